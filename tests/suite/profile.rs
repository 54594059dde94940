//! What a store measures of itself: exactly what was done, each store's own, and nothing unless asked for.

use std::{env, process::Command, sync::Arc};

use pagecache::{
    ConfigBuilder, Log, PagePtr, SegmentMode,
    io::{CountingStorage, FileId, Operation, sim::SimDisk},
    metrics::Profile,
    pin,
};
use tests::{stepwise, strings::Pages};

/// Set for the process that is to print a profile.
const CHILD: &str = "PROFILE_CHILD";

fn on(storage: &Arc<CountingStorage>) -> ConfigBuilder {
    stepwise(ConfigBuilder::new(), storage.clone())
        .block_bytes(512)
        .log_segment_bytes(16 << 10)
        .log_capacity(1 << 20)
        .checkpoint_every_bytes(256 << 10)
        .store_segment_bytes(16 << 10)
}

fn disk() -> Arc<CountingStorage> {
    Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())))
}

/// Pages with changes, a checkpoint of them, and reads: 20 begun, 60 changed, 1 freed, 40 read.
fn work(pages: &Pages) {
    let guard = pin();
    let ids: Vec<_> = (0..20).map(|_| pages.allocate(&guard).unwrap()).collect();
    for &pid in &ids {
        let mut key = pages.replace(pid, PagePtr::allocated(), "a".repeat(100), &guard).unwrap();
        for _ in 0..3 {
            key = pages.link(pid, key, "b".to_owned(), &guard).unwrap();
        }
    }
    pages.flush().unwrap();
    pages.checkpoint().unwrap();
    for _ in 0..2 {
        ids.iter().for_each(|&pid| assert_eq!(pages.get(pid, &guard).unwrap().unwrap().0.len(), 103));
    }
    assert!(pages.link(ids[1], PagePtr::allocated(), "late".to_owned(), &guard).is_err(), "a lost race");
    let (_, key) = pages.get(ids[0], &guard).unwrap().unwrap();
    pages.free(ids[0], key, &guard).unwrap();
}

fn count(profile: &Profile, name: &str) -> u64 {
    profile.row(name).unwrap_or_else(|| panic!("no row {name}")).count
}

#[test]
fn a_profile_counts_exactly_what_was_done_in_this_store() {
    let (storage, other) = (disk(), disk());
    let before = storage.snapshot();
    let pages = Pages::start(on(&storage).timing(true).build()).unwrap();
    let idle = Pages::start(on(&other).timing(true).build()).unwrap();
    work(&pages);
    let profile = pages.profile();
    let counts = storage.snapshot() - before;
    let wanted = [("replace", 20), ("link", 61), ("free", 1), ("get", 41), ("lost races", 1), ("batch", 0)];
    for (name, times) in wanted {
        assert_eq!(count(&profile, name), times, "{name}");
        assert_eq!(count(&idle.profile(), name), 0, "{name} of a store that did nothing");
    }
    assert_eq!(
        count(&profile, "reserve"),
        81,
        "one record for each change that was not stale from the start"
    );
    assert_eq!(count(&profile, "checkpoint"), 1);
    assert!(count(&profile, "flush") > 0 && count(&profile, "page out") > 0);
    assert_eq!(profile.row("pages out").map(|row| row.sum), Some(20));
    for (file, name) in [(FileId::Log, "log"), (FileId::Pages, "pages")] {
        let row = |what: &str| count(&profile, &format!("{name} {what}"));
        let created =
            if file == FileId::Pages { counts.tally(FileId::PagesNew, Operation::Write).calls } else { 0 };
        let durable = row("write, durable");
        let tally = |operation| counts.tally(file, operation).calls;
        assert_eq!(row("read"), tally(Operation::Read), "{name}");
        assert_eq!(row("write") + durable, tally(Operation::Write) + created, "{name}");
        let made = u64::from(file == FileId::Pages); // the new file is synced before it has its name
        assert_eq!(row("sync") + durable, tally(Operation::Sync) + made, "{name}");
        let made = counts.tally(FileId::PagesNew, Operation::Write).bytes;
        let bytes = counts.tally(file, Operation::Write).bytes + if file == FileId::Pages { made } else { 0 };
        assert_eq!(profile.row(&format!("{name} bytes")).map(|row| row.sum), Some(bytes));
    }
    let table = profile.to_string();
    assert!(table.lines().any(|line| line.starts_with("replace ")), "{table}");
    assert!(
        !table.lines().any(|line| line.starts_with("batch ")),
        "what never happened is left out: {table}"
    );
}

#[test]
fn a_store_that_is_not_asked_measures_nothing() {
    let pages = Pages::start(on(&disk()).build()).unwrap();
    work(&pages);
    assert!(!pages.profile().is_on() && pages.profile().rows().is_empty());
}

#[test]
fn a_log_used_alone_has_a_profile_too() {
    let storage = disk();
    let config = on(&storage).segment_mode(SegmentMode::Linear).timing(true).build();
    let log = Log::start_raw_log(config).unwrap();
    let (lsn, _) = log.write("one").unwrap();
    log.make_stable(lsn).unwrap();
    log.write("two").unwrap();
    let profile = log.profile();
    assert_eq!((count(&profile, "reserve"), count(&profile, "flush"), count(&profile, "get")), (2, 1, 0));
    assert!(count(&profile, "log write") + count(&profile, "log write, durable") > 0);
}

#[test]
fn a_profile_is_printed_when_the_store_goes() {
    if env::var_os(CHILD).is_some() {
        let db = tree::Config::new().temporary(true).print_profile_on_drop(true).open().unwrap();
        db.insert("k", "v").unwrap();
        return;
    }
    let this = env::current_exe().expect("a path to this program");
    let test = "profile::a_profile_is_printed_when_the_store_goes";
    let ran = Command::new(this).args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    for row in ["tree set  ", "link  ", "log bytes  "] {
        assert_eq!(said.matches(&format!("\n{row}")).count(), 1, "{row:?} in {said}");
    }
}
