//! After any crash the store opens and holds a prefix of its writes with every durable one.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use pagecache::io::sim::FaultPlan;
use tests::{
    Budget,
    crash::{Counts, Proof, Seen, cut_everywhere},
    seeds,
};

/// Crashes made of one history.
const CRASHES: usize = 160;
/// Distinct images of the long proof, at least.
const IMAGES_MIN: usize = 20_000;
/// The long proof gives up after this if it has not seen enough.
const LONGEST: Duration = Duration::from_secs(240);

/// The seeds in turn: all there are, or the one that is named.
struct Seeds {
    next: AtomicU64,
    end: u64,
}

impl Seeds {
    fn new() -> Seeds {
        let mut all = seeds(u64::MAX);
        let first = all.next().unwrap_or(0);
        let end = all.next().map_or(first + 1, |_| u64::MAX);
        Seeds { next: AtomicU64::new(first), end }
    }

    fn next(&self) -> Option<u64> {
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < self.end)
    }

    fn is_one(&self) -> bool {
        self.end != u64::MAX
    }
}

/// Looks at histories until `enough`, on so many threads.
fn prove(threads: usize, seeds: &Seeds, seen: &Seen, enough: impl Fn() -> bool + Sync) -> Counts {
    let failed = AtomicBool::new(false);
    let work = || {
        let mut counts = Counts::default();
        while !enough() && !failed.load(Ordering::Relaxed) {
            let Some(seed) = seeds.next() else { break };
            let outcome = Proof::new(seed, FaultPlan::new(), seen).run(CRASHES);
            counts = counts.and(outcome.unwrap_or_else(|problem| {
                failed.store(true, Ordering::Relaxed);
                panic!("{problem}");
            }));
        }
        counts
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let each = all.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
        each.fold(Counts::default(), Counts::and)
    })
}

fn tell(seen: &Seen, start: Instant, counts: &Counts) {
    println!("{} distinct images in {:.1?}: {counts:?}", seen.distinct(), start.elapsed());
}

#[test]
fn a_crash_leaves_a_prefix_with_all_that_was_durable() {
    let (seen, start) = (Seen::default(), Instant::now());
    let counts = prove(1, &Seeds::new(), &seen, || seen.distinct() >= IMAGES_MIN / 10);
    tell(&seen, start, &counts);
}

#[test]
fn a_new_store_cut_anywhere_is_none_or_opens_and_stays_once_it_was_opened() {
    for seed in seeds(4) {
        let explored =
            cut_everywhere(&FaultPlan::new(), seed).unwrap_or_else(|found| panic!("seed {seed}: {found}"));
        assert!(explored.distinct > 40, "seed {seed}: {explored:?}");
    }
}

#[test]
fn a_seed_repeats_its_history_call_by_call() {
    for seed in seeds(20) {
        let hash = || Proof::new(seed, FaultPlan::new(), &Seen::default()).record_hash();
        let (once, again) = (hash(), hash());
        assert!(once.is_ok(), "seed {seed}: {once:?}");
        assert_eq!(once, again, "seed {seed}");
    }
}

#[test]
#[ignore = "a long proof: `cargo test -p tests -- --ignored crash::`"]
fn twenty_thousand_images() {
    let (seen, seeds, start, budget) = (Seen::default(), Seeds::new(), Instant::now(), Budget::start());
    let enough = || seen.distinct() >= IMAGES_MIN && !budget.lasts();
    let counts = prove(2, &seeds, &seen, || enough() || start.elapsed() > LONGEST);
    tell(&seen, start, &counts);
    if seeds.is_one() {
        return;
    }
    assert!(seen.distinct() >= IMAGES_MIN, "{} distinct images, {IMAGES_MIN} are asked for", seen.distinct());
    for (what, count) in [
        ("crashes of the process", counts.of_process),
        ("damaged superblocks", counts.damaged),
        ("crashes after crashes", counts.nested),
    ] {
        assert!(count * 20 >= counts.opened, "only {count} {what} of {}", counts.opened);
    }
    assert!(counts.runs * 20 >= counts.histories, "batches above one record: {counts:?}");
    assert!(counts.moved * 10 >= counts.histories, "joins of leaves that held something: {counts:?}");
}
