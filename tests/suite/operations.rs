//! The page cache's own operations against a model, a million and more of them: link, replace, get, free,
//! allocate, batches, flushes, checkpoints and restarts, over disks that fail, fill up and lose power.
//!
//! After each restart the store holds a prefix of its commits with every durable one. What its checkpoint
//! says after that, written change by change, is what a store that reads it anew counts.

mod counts;
mod driver;
mod lives;
mod model;

use std::time::Duration;

use tests::{Budget, seeds, within};

use self::{counts::Counts, lives::live};

const HANG: Duration = Duration::from_secs(300);
/// Lives of one seed's store, each ended in another way.
const LIVES: usize = 12;
/// Operations of the long proof, at least.
const OPERATIONS_MIN: u64 = 1_000_000;

fn run(seed: u64) -> Counts {
    live(seed, LIVES).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"))
}

#[test]
fn operations_batches_and_restarts_agree_with_a_model() {
    within(HANG, || {
        let counts = seeds(40).map(run).fold(Counts::default(), Counts::and);
        println!("{counts:?}");
        if std::env::var_os("SEED").is_none() {
            counts.check_that_all_was_met();
        }
    });
}

#[test]
fn a_seed_of_operations_repeats() {
    for seed in seeds(3) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
#[ignore = "a long proof: `cargo test -p tests -- --ignored operations::`"]
fn a_million_operations() {
    let budget = Budget::start();
    let is_one = std::env::var_os("SEED").is_some();
    let mut counts = Counts::default();
    for seed in seeds(u64::MAX) {
        counts = counts.and(run(seed));
        if is_one || counts.operations() >= OPERATIONS_MIN && !budget.lasts() {
            break;
        }
    }
    println!("{} operations: {counts:?}", counts.operations());
    if !is_one {
        counts.check_that_all_was_met();
    }
}
