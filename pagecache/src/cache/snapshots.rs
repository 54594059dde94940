//! Positions at which somebody still reads: what a fold of a page must keep, and what it may drop.
//!
//! Parties: those who take snapshots, and those who put one fragment in the place of several (folds in memory,
//! pages on their way to the file). States of a snapshot: *placed*, when it has no position yet and everything
//! is kept for it; *live*, with its position; gone.
//!
//! * SNAP-1: who takes a snapshot is placed first, then asks the log for a position below which every
//!   reservation has ended, then is live at it.
//! * SNAP-2: who folds reads the chain and the slots of its nodes first, and looks here after that. So either
//!   it sees the snapshot, or all it has read was reserved before the snapshot asked for its position, which is
//!   then no smaller: the newest version is the one that this snapshot reads.
//! * SNAP-3: a version is dropped only if a newer one is at or below every live position at which it shows.
//!   While one is placed nothing is dropped: who wants to fold comes back.
//!
//! The two orders meet in a fence on either side. Where nobody has a snapshot a fold pays the fence and one load.

use std::collections::BTreeMap;

use crate::{
    ids::Lsn,
    sync::{
        AtomicUsize, Mutex,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

/// The snapshots of a store.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// Those placed and those live.
    held: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many are on their way to a position.
    placed: usize,
    /// How many are live at each position.
    live: BTreeMap<Lsn, usize>,
}

/// What of a page is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The newest version of everything.
    Newest,
    /// What readers at these positions see as well; ascending.
    At(Vec<Lsn>),
    /// All of it: a snapshot is being taken.
    All,
}

impl Snapshots {
    /// Keeps everything from here on, until the snapshot has a position or is given up.
    pub(crate) fn place(&self) -> PlacedSnapshot<'_> {
        let placed = self.place_unfenced();
        // Pairs with the fence in `keep`: the position is asked for after this.
        fence(SeqCst);
        placed
    }

    /// Without the fence, for the model that proves it is needed.
    fn place_unfenced(&self) -> PlacedSnapshot<'_> {
        self.state.lock().placed += 1;
        self.held.fetch_add(1, Relaxed); // ordered by the fence that follows
        PlacedSnapshot { of: self }
    }

    /// What a fold of fragments up to `newest` keeps. The fragments were read before this call.
    #[inline]
    pub(crate) fn keep(&self, newest: Lsn) -> Keep {
        // Pairs with the fence in `place`: what was read comes before the look.
        fence(SeqCst);
        if self.held.load(Relaxed) == 0 { Keep::Newest } else { self.keep_for(newest) }
    }

    #[cold]
    fn keep_for(&self, newest: Lsn) -> Keep {
        let state = self.state.lock();
        if state.placed > 0 {
            return Keep::All;
        }
        let positions: Vec<Lsn> = state.live.range(..newest).map(|(at, _)| *at).collect();
        if positions.is_empty() { Keep::Newest } else { Keep::At(positions) }
    }

    /// Gives a live snapshot back.
    pub(crate) fn end(&self, at: Lsn) {
        let mut state = self.state.lock();
        let left = state.live.get_mut(&at).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            state.live.remove(&at);
        }
        drop(state);
        self.held.fetch_sub(1, Relaxed); // seen late, it makes a fold keep too much
    }

    /// True while a snapshot has no position yet, and everything is kept for it.
    pub(crate) fn is_any_placed(&self) -> bool {
        // Relaxed: who has just been told to keep everything and misses why looks again.
        self.held.load(Relaxed) > 0 && self.state.lock().placed > 0
    }

    /// The positions that are live, in order.
    pub(crate) fn positions(&self) -> Vec<Lsn> {
        // Relaxed: who must not miss a snapshot has taken it itself, or asks `keep`.
        match self.held.load(Relaxed) {
            0 => Vec::new(),
            _ => self.state.lock().live.keys().copied().collect(),
        }
    }

    /// How many are live.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().live.values().sum()
    }
}

/// A snapshot that has no position yet.
#[derive(Debug)]
#[must_use = "dropped, the snapshot is given up"]
pub(crate) struct PlacedSnapshot<'s> {
    of: &'s Snapshots,
}

impl PlacedSnapshot<'_> {
    /// The snapshot is live at `at`, until [`Snapshots::end`].
    pub(crate) fn settle(self, at: Lsn) {
        let of = self.of;
        *of.state.lock().live.entry(at).or_insert(0) += 1;
        of.held.fetch_add(1, Relaxed); // the placed one's part goes when `self` is dropped
    }
}

impl Drop for PlacedSnapshot<'_> {
    fn drop(&mut self) {
        self.of.state.lock().placed -= 1;
        self.of.held.fetch_sub(1, Relaxed); // seen late, it makes a fold keep too much
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Keep, Snapshots};

    #[test]
    fn a_fold_keeps_what_snapshots_below_its_newest_change_read() {
        let snapshots = Snapshots::default();
        assert_eq!(snapshots.keep(100), Keep::Newest);
        let placed = snapshots.place();
        assert_eq!(snapshots.keep(1), Keep::All);
        placed.settle(12);
        snapshots.place().settle(30);
        snapshots.place().settle(12);
        drop(snapshots.place());
        let cases = [(12, Keep::Newest), (13, Keep::At(vec![12])), (31, Keep::At(vec![12, 30]))];
        for (newest, keep) in cases {
            assert_eq!(snapshots.keep(newest), keep, "changes up to {newest}");
        }
        snapshots.end(12);
        assert_eq!(snapshots.keep(20), Keep::At(vec![12]), "one of two at one position is gone");
        snapshots.end(12);
        snapshots.end(30);
        assert_eq!((snapshots.keep(100), snapshots.count()), (Keep::Newest, 0));
    }
}

#[cfg(all(test, loom))]
#[path = "snapshots_models.rs"]
mod models;
