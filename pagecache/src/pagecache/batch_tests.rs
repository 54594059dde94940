//! What checkpoints keep of the log, seen from inside.

use std::sync::Arc;

use super::{PageCache, Verdict};
use crate::{
    Admission, ConfigBuilder, PageId, PagePtr, Strings,
    checkpoint::Purpose,
    ids::Lsn,
    io::sim::{SimClock, SimSpawner},
    pin,
};

type Pages = PageCache<Strings, String, ()>;

fn open() -> Pages {
    PageCache::start(small().build()).expect("a new store opens")
}

fn small() -> ConfigBuilder {
    ConfigBuilder::new()
        .temporary(true)
        .log_segment_bytes(64 << 10)
        .log_capacity(1 << 20)
        .checkpoint_every_bytes(512 << 10)
        .flush_every_ms(None)
}

fn page(pages: &Pages) -> PageId {
    let guard = pin();
    let pid = pages.allocate(&guard).expect("ids are left");
    pages.replace(pid, PagePtr::allocated(), "begins ".to_owned(), &guard).expect("nobody else writes");
    pid
}

fn replay_from(pages: &Pages) -> Lsn {
    pages.checkpoint().expect("the disk is well");
    pages.shared.checkpointer.replay_from()
}

/// Parts of a run were in the log and its end was not; a checkpoint took all of them for done, and
/// their segment was used again. The end that followed had no parts.
#[test]
fn a_checkpoint_between_the_parts_of_a_run_and_its_end_keeps_the_parts() {
    let pages = open();
    let pid = page(&pages);
    let guard = pin();
    let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    batch.link(pid, key, "x".repeat(100 << 10), &guard).unwrap();
    let run = batch.write_parts(None).expect("the log has room");
    assert!(replay_from(&pages) <= run.first(), "T passed the first part of a run under way");
    let first = run.first();
    drop((run, batch));
    assert!(replay_from(&pages) > first, "a run that was given up is kept no longer");
}

/// A page took the position of the run's end for the oldest change that its durable form lacks. T came
/// to lie between the parts and the end, and the page's change was gone after a crash.
#[test]
fn a_page_that_lacks_a_run_keeps_the_log_from_the_first_part_on() {
    let pages = open();
    let pid = page(&pages);
    let before = replay_from(&pages);
    let guard = pin();
    let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    batch.link(pid, key, "x".repeat(100 << 10), &guard).unwrap();
    let end = batch.commit(|_| Verdict::Commit).unwrap().expect("the verdict was to commit");
    assert!(end - before > 100 << 10, "the batch was one record");
    // Whoever has the claim keeps the page from being written back.
    let cell = pages.shared.cache.pages.cell(pid).expect("the page is there");
    let claim = cell.claim().expect("nobody else writes it back");
    let kept = replay_from(&pages);
    assert!(kept <= end - (100 << 10), "T is {kept}, the run ends at {end} and began 100 KiB before");
    drop(claim);
    assert!(replay_from(&pages) > end, "the page is durable");
}

/// Links a change to the page and says where its record lies.
fn change(pages: &Pages, pid: PageId) -> Lsn {
    let guard = pin();
    let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
    pages.link(pid, key, "changes ".to_owned(), &guard).expect("nobody else writes").last_lsn()
}

#[test]
fn a_checkpoint_that_trims_the_log_writes_the_pages_that_hold_it_up_and_no_others() {
    let pages = open();
    let (old, young) = (page(&pages), page(&pages));
    replay_from(&pages);
    let first = change(&pages, old);
    let second = change(&pages, young);
    change(&pages, old);
    let shared = &pages.shared;
    let dirty = |pid| shared.cache.lacking(pid, &pin()).1;
    let trim = |below| {
        let purpose = Purpose::Trim(below);
        shared
            .checkpointer
            .run(&shared.cache, &shared.log, &shared.recovery, purpose)
            .expect("the disk is well");
        shared.checkpointer.replay_from()
    };
    assert!(first < second && trim(first) <= first && dirty(old) && dirty(young), "nothing lies below");
    assert_eq!(trim(second), second, "T is where the page that was not written was changed");
    assert!(!dirty(old) && dirty(young), "the newer change of the old page went with its oldest");
    assert!(trim(second + 1) > second && !dirty(young));
}

/// A writer that found the log full wrote back every dirty page of the store, for seconds.
#[test]
fn who_finds_the_log_full_writes_no_more_than_the_pages_that_hold_it_up() {
    let spawner = SimSpawner::new(Arc::new(SimClock::new()));
    let pages: Pages =
        PageCache::start(small().spawner(Arc::new(spawner)).build()).expect("a new store opens");
    let pids: Vec<PageId> = (0..100).map(|_| page(&pages)).collect();
    replay_from(&pages);
    let released = pages.shared.log.released();
    let mut changed = 0;
    for pid in pids.iter().copied().cycle() {
        let guard = pin();
        let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
        pages.link(pid, key, "x".repeat(16 << 10), &guard).expect("nobody else writes");
        if pages.shared.log.released() != released {
            break;
        }
        changed += 1;
    }
    assert!((40..100).contains(&changed), "{changed} changes of 16 KiB fill a log of a mebibyte");
    let dirty = pages.shared.cache.pages.dirty_count();
    assert!(dirty > changed / 4, "of {changed} pages {dirty} are left for later");
    pages.checkpoint().expect("the disk is well");
    assert_eq!(pages.shared.cache.pages.dirty_count(), 0);
}

#[test]
fn who_waited_for_a_checkpoint_that_made_room_takes_none() {
    let pages = open();
    let pid = page(&pages);
    let shared = &pages.shared;
    let run_if = |wanted| {
        let done = shared.checkpointer.run_if(
            || wanted,
            &shared.cache,
            &shared.log,
            &shared.recovery,
            Purpose::Shorten,
        );
        done.expect("the disk is well");
        shared.cache.lacking(pid, &pin()).1
    };
    assert!(run_if(false), "the page was written back");
    assert!(!run_if(true));
}
