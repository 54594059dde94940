//! What system tests share: which seeds to run and for how long, small stores, a limit for hangs. The
//! tests live in `suite/`.
//!
//! A failing test prints its seed; the variable `SEED` makes it run that one alone. Long proofs stop
//! their random part after `PROOF_SECONDS`.
#![forbid(unsafe_code)]

pub mod crash;
mod hooked;
mod small;
pub mod strings;
mod watchdog;
pub mod world;

pub use hooked::{Hook, HookedStorage};
pub use small::{BLOCK_BYTES, LEAF_BYTES, small_pages, small_tree, stepwise, tiny_pages};
pub use watchdog::within;

use std::{
    env,
    time::{Duration, Instant},
};

/// Seconds of a long proof's random part, unless `PROOF_SECONDS` says otherwise.
const PROOF_SECONDS: u64 = 20;

/// The seeds of a random test: the first `count`, or only the one that `SEED` names.
///
/// # Panics
///
/// If `SEED` is set and no number: a typing error must not run other seeds.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let (first, count) = range_of_seeds(env::var("SEED").ok().as_deref(), count);
    (0..count).map(move |i| first.wrapping_add(i))
}

fn range_of_seeds(named: Option<&str>, count: u64) -> (u64, u64) {
    match named {
        None => (0, count),
        Some(text) => (number(text).unwrap_or_else(|| panic!("SEED={text} is no number")), 1),
    }
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// How long the random part of a long proof may go on. It is over at once if `SEED` names one seed,
/// so that a loop of `do one; while budget.lasts()` replays just that.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    end: Instant,
}

impl Budget {
    /// A budget that starts now.
    ///
    /// # Panics
    ///
    /// If `PROOF_SECONDS` is set and no number.
    #[must_use]
    pub fn start() -> Budget {
        let seconds = match (env::var("SEED"), env::var("PROOF_SECONDS")) {
            (Ok(_), _) => 0,
            (_, Ok(text)) => number(&text).unwrap_or_else(|| panic!("PROOF_SECONDS={text} is no number")),
            _ => PROOF_SECONDS,
        };
        Budget::of(Duration::from_secs(seconds))
    }

    /// A budget of this length, for the small version of a proof in plain `cargo test`.
    #[must_use]
    pub fn of(length: Duration) -> Budget {
        Budget { end: Instant::now() + length }
    }

    /// True while there is time left.
    #[must_use]
    pub fn lasts(&self) -> bool {
        Instant::now() < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_seed_is_the_only_one() {
        for (named, want) in [(None, (0, 7)), (Some("12"), (12, 1)), (Some("0xff"), (255, 1))] {
            assert_eq!(range_of_seeds(named, 7), want, "{named:?}");
        }
    }

    #[test]
    #[should_panic(expected = "SEED=twelve is no number")]
    fn a_seed_that_is_no_number_is_refused() {
        let _ = range_of_seeds(Some("twelve"), 7);
    }

    #[test]
    fn a_budget_ends() {
        assert!(Budget::of(Duration::from_secs(3_600)).lasts());
        assert!(!Budget::of(Duration::ZERO).lasts());
    }
}
