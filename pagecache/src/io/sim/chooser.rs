//! Which of the unsynced changes a crash keeps.

use super::rng::{Rng, mix};

/// Decides for each pending unit whether it survives a crash.
///
/// Units are sectors of writes, changes of length and changes of names, in the order that
/// [`Trace::units_at`](super::Trace::units_at) lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chooser {
    keep: Keep,
    garbage: Option<u64>,
    tears: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    Everything,
    AllBut(usize),
    Only(usize),
    Mask(u64),
    Random { seed: u64 },
    Process,
}

impl Chooser {
    fn new(keep: Keep) -> Chooser {
        Chooser { keep, garbage: None, tears: None }
    }

    /// Nothing that was not synced survives.
    #[must_use]
    pub fn none() -> Chooser {
        Chooser::new(Keep::Nothing)
    }

    /// All of it survives.
    #[must_use]
    pub fn all() -> Chooser {
        Chooser::new(Keep::Everything)
    }

    /// All but this unit.
    #[must_use]
    pub fn all_but(unit: usize) -> Chooser {
        Chooser::new(Keep::AllBut(unit))
    }

    /// This unit alone.
    #[must_use]
    pub fn only(unit: usize) -> Chooser {
        Chooser::new(Keep::Only(unit))
    }

    /// The units whose bits are set, of the first 64; none of the others.
    #[must_use]
    pub fn mask(units: u64) -> Chooser {
        Chooser::new(Keep::Mask(units))
    }

    /// A subset chosen by the seed, sparse or dense; another one at each use.
    #[must_use]
    pub fn random(seed: u64) -> Chooser {
        Chooser::new(Keep::Random { seed })
    }

    /// The process dies and the system lives on: all that was written is there, but what was not
    /// synced is still not, so a later power cut may take it.
    #[must_use]
    pub fn process_crash() -> Chooser {
        Chooser::new(Keep::Process)
    }

    /// Lets sectors that a file grew by, but that were not written or not kept, read as old garbage
    /// instead of zero: any bytes, or what was cut off or removed earlier.
    #[must_use]
    pub fn with_garbage(self, seed: u64) -> Chooser {
        Chooser { garbage: Some(seed), ..self }
    }

    /// Lets some of the sectors that are kept be cut off in their middle: the rest of such a sector is
    /// as it was before.
    #[must_use]
    pub fn with_tears(self, seed: u64) -> Chooser {
        Chooser { tears: Some(seed), ..self }
    }

    pub(super) fn is_process_crash(&self) -> bool {
        self.keep == Keep::Process
    }

    /// One decision for each of `count` units.
    pub(super) fn choose(&mut self, count: usize) -> Vec<bool> {
        match &mut self.keep {
            Keep::Nothing => vec![false; count],
            Keep::Everything | Keep::Process => vec![true; count],
            Keep::AllBut(unit) => (0..count).map(|each| each != *unit).collect(),
            Keep::Only(unit) => (0..count).map(|each| each == *unit).collect(),
            Keep::Mask(units) => (0..count).map(|each| each < 64 && *units >> each & 1 == 1).collect(),
            Keep::Random { seed } => {
                let mut rng = Rng::new(*seed);
                *seed = mix(seed.wrapping_add(1));
                let kept_of_eight = 1 + rng.below(7);
                (0..count).map(|_| rng.chance(kept_of_eight, 8)).collect()
            }
        }
    }

    /// The garbage of this use, if there is to be any.
    pub(super) fn garbage(&mut self) -> Option<Rng> {
        next(self.garbage.as_mut()?)
    }

    /// The torn sectors of this use, if there are to be any.
    pub(super) fn tears(&mut self) -> Option<Rng> {
        next(self.tears.as_mut()?)
    }
}

/// A generator of this use; the next use gets another.
fn next(seed: &mut u64) -> Option<Rng> {
    let rng = Rng::new(*seed);
    *seed = mix(seed.wrapping_add(1));
    Some(rng)
}
