//! Every flipped bit of a store is an error that names file and offset, or changes no answer.
//!
//! Three stores of at most 48 KiB are damaged in every place and opened again: a closed one, and two
//! killed ones, whose logs hold what the last test lists. Whatever is opened is read whole: forward,
//! backward and key by key. Each answer must be that of one and the same number of operations, which
//! is at least the number that the log still vouches for, and never wrong without an error.
//!
//! What is in the stores is [`stores`]' business, what damage there is [`damage`]'s, what answers are
//! right [`answers`]', and how a damaged store is read [`examine`]'s.

mod answers;
mod damage;
mod examine;
mod pages;
mod stores;
mod witness;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use tests::Budget;

use self::{damage::Damage, examine::Outcome, stores::Sample};

/// Threads that share the cases.
const THREADS: usize = 2;

/// What became of the cases of one store.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    right: usize,
    shorter: usize,
    refused: usize,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        self.done += 1;
        match outcome {
            Outcome::Right => self.right += 1,
            Outcome::Shorter => self.shorter += 1,
            Outcome::Refused => self.refused += 1,
        }
    }

    fn unite(&mut self, other: &Tally) {
        self.done += other.done;
        self.right += other.right;
        self.shorter += other.shorter;
        self.refused += other.refused;
    }
}

/// Tries the cases `0, stride, 2 * stride..` until the budget ends; the rest is told to be missing.
///
/// The order is scrambled by a multiplier, so that a budget that ends early leaves no region out.
fn try_all(sample: &Sample, what: &str, cases: &[Damage], stride: usize, budget: &Budget) -> Tally {
    let began = Instant::now();
    let wanted = cases.len().div_ceil(stride);
    let scramble = scramble(wanted);
    let next = AtomicUsize::new(0);
    let work = || {
        let reader = sample.reader();
        let mut tally = Tally::default();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= wanted || (turn.is_multiple_of(64) && !budget.lasts()) {
                next.store(wanted, Ordering::Relaxed);
                return tally;
            }
            let case = (turn * scramble % wanted) * stride;
            tally.add(reader.examine(&cases[case], turn));
        }
    };
    let mut total = Tally::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(tally) => total.unite(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let share = 100.0 * total.done as f64 / cases.len() as f64;
    println!(
        "{}: {} of {} {what} ({share:.1} %) in {:.1} s: {} right, {} shorter, {} refused",
        sample.name,
        total.done,
        cases.len(),
        began.elapsed().as_secs_f64(),
        total.right,
        total.shorter,
        total.refused,
    );
    total
}

/// A number without a common divisor with `count`, about 0.6 of it.
fn scramble(count: usize) -> usize {
    let common = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut step = (count * 618 / 1000).max(1);
    while common(step, count) > 1 {
        step += 1;
    }
    step
}

/// Every case of every store, grouped by store.
fn try_stores(stride: usize, budget: &Budget) {
    for sample in stores::all() {
        try_all(&sample, "coarse cases", &damage::coarse(&sample), stride.div_ceil(8), budget);
        let tally = try_all(&sample, "flips", &damage::flips(&sample), stride, budget);
        assert!(tally.done == 0 || tally.refused > 0, "{}: no flip was ever noticed", sample.name);
    }
}

#[test]
fn a_sample_of_flipped_bits_changes_no_answer_unnoticed() {
    try_stores(97, &Budget::of(Duration::from_secs(600)));
}

#[test]
#[ignore = "a long proof: run by .ci/run"]
fn no_flipped_bit_changes_an_answer_unnoticed() {
    try_stores(1, &Budget::start());
}

#[test]
fn a_store_that_has_lost_a_file_is_refused_or_whole() {
    for sample in stores::all() {
        let files: Vec<_> = sample.files().map(|(file, _)| file).collect();
        for (turn, file) in files.into_iter().enumerate() {
            let outcome = sample.reader().examine(&Damage::Gone { file }, turn);
            let may_open = sample.file(file).is_empty();
            assert!(may_open || outcome == Outcome::Refused, "{} without {file:?}: {outcome:?}", sample.name);
        }
    }
}

#[test]
fn the_stores_hold_every_kind_of_record_frame_and_node() {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for sample in stores::all() {
        let bytes: usize = sample.files().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= 48 << 10, "{} takes {bytes} bytes", sample.name);
        found.insert(sample.name, witness::kinds(&sample));
    }
    let has = |store: &str, kinds: &[&str]| {
        for kind in kinds {
            assert!(
                found[store].iter().any(|each| each == kind),
                "{store} has no {kind}: {:?}",
                found[store]
            );
        }
    };
    let pages = ["superblock 0", "superblock 1", "image", "map page", "map index", "directory"];
    has("closed", &pages);
    has("closed", &["packed image", "catalogue"]);
    has("killed tree", &pages);
    has("killed tree", &["node of level 0", "node of level 1", "node of level 2"]);
    has("killed tree", &["segment", "append", "batch", "pad"]);
    has("killed pages", &pages);
    has("killed pages", &["segment", "append", "base", "free", "batch", "pad", "failed"]);
}
