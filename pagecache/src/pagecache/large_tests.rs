//! Changes of one page that exceed one record: against a model over restarts, after crashes at any call, at
//! their limit, and when they are given up.

use std::sync::Arc;

use super::PageCache;
use crate::{
    Config, ConfigBuilder, Error, Failure, PageGet, PagePtr, Strings,
    io::sim::{Case, Effort, Rng, SimClock, SimDisk, SimSpawner, Trace, explore},
    pin,
};

type Pages = PageCache<Strings, String, ()>;

const LOG_SEGMENT: usize = 2 << 10;
const LOG_CAPACITY: u64 = 32 << 10;
/// Operations begun, and durable, as marks of the record.
const BEGUN: &str = "begun";
const DURABLE: &str = "durable";
const PAGES: usize = 3;

fn config(disk: &Arc<SimDisk>) -> Config {
    let clock = Arc::new(SimClock::new());
    ConfigBuilder::new()
        .block_bytes(512)
        .log_segment_bytes(LOG_SEGMENT)
        .store_segment_bytes(4 << 10)
        .log_capacity(LOG_CAPACITY)
        .checkpoint_every_bytes(16 << 10)
        .flush_every_ms(None)
        .page_consolidation_threshold(3)
        .salt_seed(disk.calls() + 1)
        .storage(disk.clone())
        .spawner(Arc::new(SimSpawner::new(clock.clone())))
        .clock(clock)
        .build()
}

fn open(disk: &Arc<SimDisk>) -> Pages {
    Pages::start(config(disk)).expect("the store opens")
}

type Contents = [String; PAGES];

fn contents(pages: &Pages) -> Result<Contents, String> {
    let mut contents = Contents::default();
    for (pid, content) in contents.iter_mut().enumerate() {
        match pages.get(pid, &pin()).map_err(|error| format!("page {pid}: {error}"))? {
            PageGet::Materialized(page, _) => content.clone_from(page),
            PageGet::Free(_) | PageGet::Allocated | PageGet::Unallocated => {}
        }
    }
    Ok(contents)
}

/// A text of its own for each change.
fn text(rng: &mut Rng, bytes: usize) -> String {
    let word = format!("{:x}.", rng.next_u64());
    word.chars().cycle().take(bytes).collect()
}

/// Changes pages by small and by large fragments, checks each, and records all of it.
fn run(seed: u64) -> (Trace, Vec<Contents>) {
    let disk = Arc::new(SimDisk::new());
    let mut rng = Rng::new(seed);
    let mut model = vec![Contents::default()];
    for life in 0..3 {
        let pages = open(&disk);
        assert_eq!(contents(&pages).as_ref(), Ok(model.last().unwrap()), "seed {seed}, life {life}");
        while life == 0 && pages.stats().pages < PAGES {
            pages.allocate(&pin()).unwrap();
        }
        let (record, most) = (pages.record_bytes_max(), pages.batch_bytes_max());
        assert!(most > 3 * record, "{most} bytes at most, {record} in one record");
        for step in 0..12 {
            let pid = rng.index(PAGES);
            let bytes = match rng.below(3) {
                0 => rng.index(300),
                1 => record - 2 + rng.index(5),
                _ => record + rng.index(most - record - 40),
            };
            let (anew, text) = (rng.chance(1, 2), text(&mut rng, bytes));
            let mut then = model.last().unwrap().clone();
            then[pid] = if anew { text.clone() } else { then[pid].clone() + &text };
            if then[pid].len() > 3 * most {
                continue;
            }
            model.push(then);
            disk.mark(BEGUN, model.len() as u64 - 1);
            change(&pages, pid, anew, &text)
                .unwrap_or_else(|error| panic!("seed {seed}, step {step}, {bytes} bytes: {error}"));
            assert_eq!(contents(&pages).as_ref(), Ok(model.last().unwrap()), "seed {seed}, step {step}");
            if rng.chance(1, 3) {
                pages.flush().unwrap();
                disk.mark(DURABLE, model.len() as u64 - 1);
            }
            if rng.chance(1, 6) {
                pages.checkpoint().unwrap();
            }
        }
        pages.verify_checkpoint().unwrap();
        pages.close().unwrap();
        disk.mark(DURABLE, model.len() as u64 - 1);
    }
    (disk.trace(), model)
}

/// With the key of now, as a page may leave memory at any moment.
fn change(pages: &Pages, pid: usize, anew: bool, text: &str) -> Result<(), String> {
    let guard = pin();
    loop {
        let key = match pages.get(pid, &guard).map_err(|error| error.to_string())? {
            PageGet::Materialized(_, key) => key,
            _ => PagePtr::allocated(),
        };
        let changed = match anew {
            true => pages.replace(pid, key, text.to_owned(), &guard),
            false => pages.link(pid, key, text.to_owned(), &guard),
        };
        match changed {
            Ok(_) => return Ok(()),
            Err(Error::CasFailed(Some(_))) => {}
            Err(other) => return Err(other.to_string()),
        }
    }
}

fn check(trace: &Trace, model: &[Contents], case: &Case, disk: SimDisk) -> Result<(), String> {
    let at = |label| trace.marked(label, case.position).unwrap_or(0) as usize;
    let (begun, durable) = (at(BEGUN), at(DURABLE));
    let disk = Arc::new(disk);
    let pages = Pages::start(config(&disk)).map_err(|error| format!("opening: {error}"))?;
    let found = contents(&pages)?;
    if !model[durable..=begun].contains(&found) {
        let lens = found.map(|page| page.len());
        return Err(format!("pages of {lens:?} bytes are no state between {durable} and {begun}"));
    }
    Ok(())
}

#[test]
fn large_fragments_survive_a_crash_at_any_call_whole_or_not_at_all() {
    let mut distinct = 0;
    for seed in 0..4 {
        let (trace, model) = run(seed);
        let effort = Effort { single_units_max: 6, random: 2, ..Effort::quick(seed) };
        let explored = explore(&trace, &effort, |case, disk| check(&trace, &model, case, disk))
            .unwrap_or_else(|found| panic!("seed {seed}: {found}"));
        distinct += explored.distinct;
    }
    assert!(distinct > 1000, "only {distinct} distinct disks");
}

#[test]
fn a_fragment_beyond_the_limit_is_refused_by_name_and_changes_nothing() {
    let pages = open(&Arc::new(SimDisk::new()));
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    let most = pages.batch_bytes_max();
    assert_eq!(most as u64, LOG_CAPACITY / 4);
    let refused = pages.replace(pid, PagePtr::allocated(), "x".repeat(most), &guard).unwrap_err();
    assert!(matches!(&refused, Error::Io(Failure::TooLarge { limit, .. }) if *limit == most as u64));
    let told = refused.to_string();
    assert!(told.contains("change of a page") && told.contains("log_capacity"), "{told}");
    assert!(pages.get(pid, &guard).unwrap().is_allocated());
    let key = pages.replace(pid, PagePtr::allocated(), "kept".to_owned(), &guard).unwrap();
    pages.link(pid, key, "x".repeat(most), &guard).unwrap_err();
    assert_eq!(pages.get(pid, &guard).unwrap().unwrap().0, "kept");
}

/// A large first change of an allocated page found no room on the disk. A batch gives the pages back that
/// it was to begin; this id is the caller's, who may use it for another page meanwhile.
#[test]
fn a_large_beginning_that_is_given_up_leaves_its_page_allocated() {
    let disk = Arc::new(SimDisk::new());
    let pages = open(&disk);
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    pages.flush().unwrap();
    disk.set_capacity(Some(disk.bytes_total()));
    let large = "x".repeat(3 * LOG_SEGMENT);
    let full = pages.replace(pid, PagePtr::allocated(), large.clone(), &guard).unwrap_err();
    assert!(matches!(full, Error::Io(Failure::DiskFull { .. })), "{full}");
    assert!(pages.get(pid, &guard).unwrap().is_allocated());
    assert_ne!(pages.allocate(&guard).unwrap(), pid, "the id was given back");
    disk.set_capacity(None);
    let key = pages.replace(pid, PagePtr::allocated(), large.clone(), &guard).unwrap();
    pages.link(pid, key, "y".to_owned(), &guard).unwrap();
    assert_eq!(*pages.get(pid, &guard).unwrap().unwrap().0, large + "y");
}

/// The key that a large change returns is that of the page as it is then, and one from before is refused.
#[test]
fn the_key_of_a_large_change_is_good_for_the_next_and_the_one_before_is_not() {
    let pages = open(&Arc::new(SimDisk::new()));
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    let large = "x".repeat(2 * LOG_SEGMENT);
    let begun = pages.replace(pid, PagePtr::allocated(), large.clone(), &guard).unwrap();
    assert!(0 < begun.changed_at() && begun.changed_at() < pages.next_lsn());
    let key = pages.link(pid, begun, large.clone(), &guard).unwrap();
    assert!(begun.changed_at() < key.changed_at() && key.last_lsn() == key.changed_at());
    let stale = pages.link(pid, begun, large.clone(), &guard).unwrap_err();
    let Error::CasFailed(Some(now)) = stale else { panic!("{stale}") };
    assert_eq!(now, key);
    pages.free(pid, now, &guard).unwrap();
    assert!(matches!(pages.link(pid, key, large, &guard), Err(Error::CasFailed(None))));
}
