//! The slot of a batch: one word that makes all of its fragments visible at once, and beside it the
//! position of the batch's first record, which the log must keep (P-2).
//!
//! States: *pending* (0) → *committed* (the LSN of the batch's record, > 0) or *aborted*; both
//! are final.
//!
//! * SLOT-1: a slot leaves *pending* exactly once.
//! * SLOT-2: a reader that sees *committed* sees every fragment of the batch: all of them were
//!   installed before the store of the state, which is a Release that the reader's load acquires. The
//!   first record's position was stored before it too.

use std::thread::{self, ThreadId};

use crate::{
    error::Failure,
    ids::Lsn,
    sync::{AtomicU64, Condvar, Mutex, Ordering},
};

const PENDING: u64 = 0;
const ABORTED: u64 = u64::MAX;

/// What is known of a batch's fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    Pending,
    Committed(Lsn),
    Aborted,
}

/// The shared fate of the fragments of one batch.
#[derive(Debug)]
pub(crate) struct Slot {
    state: AtomicU64,
    first: AtomicU64,
    waiting: Mutex<()>,
    settled: Condvar,
    owner: ThreadId,
}

impl Slot {
    pub(crate) fn new() -> Slot {
        Slot {
            state: AtomicU64::new(PENDING),
            first: AtomicU64::new(0),
            waiting: Mutex::new(()),
            settled: Condvar::new(),
            owner: thread::current().id(),
        }
    }

    pub(crate) fn state(&self) -> SlotState {
        // Acquire pairs with the Release in `settle` (SLOT-2).
        match self.state.load(Ordering::Acquire) {
            PENDING => SlotState::Pending,
            ABORTED => SlotState::Aborted,
            lsn => SlotState::Committed(lsn.cast_signed()),
        }
    }

    /// Of a batch that was seen to be committed: where its first record lies.
    pub(crate) fn first(&self) -> Lsn {
        // Relaxed: the load that saw the commit acquired the store before it (SLOT-2).
        self.first.load(Ordering::Relaxed).cast_signed()
    }

    /// Shows the batch to everybody, as of its last record's position; `first` is that of its first.
    pub(crate) fn commit(&self, first: Lsn, lsn: Lsn) {
        assert!(0 < first && first <= lsn, "a batch from {first} cannot commit at {lsn}");
        self.set_first(first);
        self.settle(lsn.cast_unsigned());
    }

    fn set_first(&self, first: Lsn) {
        // Relaxed: published with the state.
        self.first.store(first.cast_unsigned(), Ordering::Relaxed);
    }

    /// Hides the batch for ever.
    pub(crate) fn abort(&self) {
        self.settle(ABORTED);
    }

    fn settle(&self, state: u64) {
        // Release publishes the installs before it (SLOT-2).
        self.settle_as(state, Ordering::Release);
    }

    /// As [`Slot::commit`], with an ordering that a model chooses.
    #[cfg(all(test, loom))]
    pub(crate) fn commit_as(&self, first: Lsn, lsn: Lsn, publish: Ordering) {
        self.set_first(first);
        self.settle_as(lsn.cast_unsigned(), publish);
    }

    fn settle_as(&self, state: u64, publish: Ordering) {
        let guard = self.waiting.lock();
        let before = self.state.swap(state, publish);
        assert_eq!(before, PENDING, "a slot settles once");
        drop(guard);
        self.settled.notify_all();
    }

    /// Waits until the batch has committed or aborted, unless it is this thread's own, which could
    /// never end then. The caller holds no reservation.
    pub(crate) fn wait_from_outside(&self) -> Result<(), Failure> {
        if self.owner == thread::current().id() {
            return Err(Failure::Misuse {
                what: "this thread has a batch open on the page: change the page through the batch",
            });
        }
        self.wait();
        Ok(())
    }

    fn wait(&self) {
        let mut guard = self.waiting.lock();
        while self.state() == SlotState::Pending {
            self.settled.wait(&mut guard);
        }
    }
}
