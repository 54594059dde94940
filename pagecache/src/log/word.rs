//! The state of one log buffer: a packed word and the turn it serves.
//!
//! A buffer serves one *turn* after another. In a turn writers claim ranges of it until somebody
//! seals it; whoever brings a sealed buffer to zero writers is told to queue it; the leader of a
//! round takes it, writes it and lands it; the next turn of this buffer recycles it.
//!
//! * LOG-2: claims of one turn never overlap. `filled` only grows within a turn, and every claim
//!   gets its own part of the growth.
//! * LOG-3: exactly one thread a turn is told to queue, after the last release of a claim. The one
//!   who seals holds a claim itself, so zero writers with the seal set means that nobody writes.
//! * LOG-4: a buffer is recycled only after it landed and with zero writers, so that a writer who
//!   came too late, and still has to take its failed claim back, never meets the next turn.
//!
//! A claim is one blind `fetch_add`: it may hit a later turn than the one its thread had looked at.
//! That claim is as good as any, because base and limit are read after it. The bytes are
//! [`super::buffer`]'s business; which turn comes next, [`super::open`]'s.

use crossbeam_utils::CachePadded;

use crate::sync::Ordering::{self, AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64};

/// 63 sealed | 62..48 turn, low bits | 47..32 writers | 31..0 filled bytes
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const SEALED: u64 = 1 << 63;
    const ONE_WRITER: u64 = 1 << 32;
    const TURN_MASK: u64 = 0x7FFF;

    fn open(turn: u64) -> Word {
        Word((turn & Word::TURN_MASK) << 48)
    }

    fn is_sealed(self) -> bool {
        self.0 & Word::SEALED != 0
    }

    fn is_of(self, turn: u64) -> bool {
        (self.0 >> 48) & Word::TURN_MASK == turn & Word::TURN_MASK
    }

    fn writers(self) -> u64 {
        (self.0 >> 32) & 0xFFFF
    }

    fn filled(self) -> u32 {
        self.0 as u32
    }
}

/// Claims above this go by compare-and-swap. Blind adds are at most this large, so that even
/// 65,535 of them that all came too late do not overflow `filled`.
const BLIND_ADD_BYTES_MAX: u32 = 32 << 10;

/// Largest limit of a buffer, in bytes, for the same reason.
pub(super) const LIMIT_BYTES_MAX: u32 = 1 << 30;

/// Who has to queue the buffer.
#[must_use = "a buffer that nobody queues is never written"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Somebody else.
    None,
    /// The caller: the turn is complete and may be written.
    Queue,
}

/// What came of asking for a range.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The caller owns the bytes it asked for, from here on.
    Room { at: u32 },
    /// It did not fit, and the caller sealed the buffer: it owns all from here on.
    Sealed { at: u32 },
    /// The buffer is sealed, or about to be by the one whose claim crossed the limit.
    Full,
    /// As `Full`, found out after adding; the caller's failed claim was taken back.
    Late(Duty),
}

/// What came of closing a buffer early.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sealing {
    /// The caller sealed it and owns all from here on.
    Sealed { at: u32 },
    /// Nothing is in it; it stays open.
    Empty,
    /// Somebody else has sealed it, or is about to.
    Already,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct BufferState {
    word: CachePadded<AtomicU64>,
    /// The turn served; changed only between landing and recycling.
    turn: AtomicU64,
    /// Claims end at or below this; changed with `turn`.
    limit: AtomicU32,
    /// `3 * turn` + 0 queued, 1 taken, 2 landed. It only grows, so a thread that is late by any
    /// number of turns cannot queue one twice.
    phase: AtomicU64,
}

const QUEUED: u64 = 0;
const TAKEN: u64 = 1;
const LANDED: u64 = 2;

fn phase(turn: u64, step: u64) -> u64 {
    3 * turn + step
}

impl BufferState {
    /// A buffer that has landed turn 0, in which nobody wrote.
    pub(super) fn new() -> BufferState {
        BufferState {
            word: CachePadded::new(AtomicU64::new(Word::SEALED)),
            turn: AtomicU64::new(0),
            limit: AtomicU32::new(0),
            phase: AtomicU64::new(phase(0, LANDED)),
        }
    }

    /// Asks for `len` bytes, sealing the buffer if they do not fit.
    pub(super) fn claim(&self, len: u32) -> Claimed {
        loop {
            // Acquire pairs with the recycling CAS: an open word shows its turn's limit.
            let seen = Word(self.word.load(Acquire));
            let limit = self.limit.load(Relaxed);
            if seen.is_sealed() || seen.filled() > limit {
                return Claimed::Full;
            }
            if seen.filled() + len > limit {
                if self.try_seal(seen) {
                    return Claimed::Sealed { at: seen.filled() };
                }
            } else if len <= BLIND_ADD_BYTES_MAX {
                return self.add(len);
            } else if self.swap(seen, seen.0 + Word::ONE_WRITER + u64::from(len)) {
                return Claimed::Room { at: seen.filled() };
            }
        }
    }

    fn add(&self, len: u32) -> Claimed {
        let before = Word(self.word.fetch_add(Word::ONE_WRITER + u64::from(len), AcqRel));
        // The claim holds the turn in place, so this is the limit of the turn that was added to.
        let limit = self.limit.load(Relaxed);
        if before.is_sealed() || before.filled() > limit {
            return Claimed::Late(self.release());
        }
        if before.filled() + len <= limit {
            return Claimed::Room { at: before.filled() };
        }
        // This add alone crossed the limit. Until the bit is set, the others see the excess.
        self.word.fetch_or(Word::SEALED, AcqRel);
        Claimed::Sealed { at: before.filled() }
    }

    /// Closes the buffer early if something is in it.
    pub(super) fn seal(&self) -> Sealing {
        loop {
            let seen = Word(self.word.load(Acquire));
            if seen.is_sealed() || seen.filled() > self.limit.load(Relaxed) {
                return Sealing::Already;
            }
            if seen.filled() == 0 {
                return Sealing::Empty;
            }
            if self.try_seal(seen) {
                return Sealing::Sealed { at: seen.filled() };
            }
        }
    }

    /// Closes the buffer only if nothing is in it; true if that was done. The caller has a claim.
    pub(super) fn seal_empty(&self) -> bool {
        let seen = Word(self.word.load(Acquire));
        !seen.is_sealed() && seen.filled() == 0 && self.try_seal(seen)
    }

    /// Sets the seal and takes a claim, in one step.
    fn try_seal(&self, seen: Word) -> bool {
        self.swap(seen, (seen.0 | Word::SEALED) + Word::ONE_WRITER)
    }

    fn swap(&self, seen: Word, next: u64) -> bool {
        self.word.compare_exchange(seen.0, next, AcqRel, Acquire).is_ok()
    }

    /// Gives a claim back.
    pub(super) fn release(&self) -> Duty {
        self.release_as(AcqRel)
    }

    /// `ordering` is a parameter for the model that proves `AcqRel` is needed: Release publishes
    /// this writer's bytes, Acquire shows the last one everybody's.
    fn release_as(&self, ordering: Ordering) -> Duty {
        // Recycling writes the next turn here before its CAS; the comparison below tells it apart.
        let turn = self.turn.load(Relaxed);
        let before = Word(self.word.fetch_sub(Word::ONE_WRITER, ordering));
        assert!(before.writers() > 0, "a log buffer was released more often than claimed, in turn {turn}");
        if !before.is_sealed() || before.writers() > 1 || !before.is_of(turn) {
            return Duty::None;
        }
        // Late claims can bring the count to zero more than once; the phase grows once a turn.
        let queued = phase(turn, QUEUED);
        if self.phase.fetch_max(queued, ordering) < queued { Duty::Queue } else { Duty::None }
    }

    /// True if every claim of `turn` has been released and none can come.
    pub(super) fn is_queued(&self, turn: u64) -> bool {
        self.phase.load(Acquire) >= phase(turn, QUEUED)
    }

    /// Takes the queued `turn` for writing; true for one caller only.
    pub(super) fn take(&self, turn: u64) -> bool {
        self.phase.compare_exchange(phase(turn, QUEUED), phase(turn, TAKEN), AcqRel, Relaxed).is_ok()
    }

    /// Says that the taken `turn` has been written and its bytes may change.
    pub(super) fn land(&self, turn: u64) {
        // Release pairs with the load in `recycle`: the reads of the bytes come before.
        let before = self.phase.swap(phase(turn, LANDED), Release);
        assert_eq!(before, phase(turn, TAKEN), "turn {turn} of a log buffer landed without being taken");
    }

    /// Opens a landed buffer for `turn`; false while a late claim is still being taken back.
    ///
    /// Called by one thread at a time. `prepare` runs before any claim of the new turn.
    pub(super) fn recycle(&self, turn: u64, limit: u32, prepare: impl FnOnce()) -> bool {
        let served = self.turn.load(Relaxed);
        let seen = Word(self.word.load(Acquire));
        if !seen.is_sealed() || seen.writers() > 0 || self.phase.load(Acquire) < phase(served, LANDED) {
            return false;
        }
        assert!(limit <= LIMIT_BYTES_MAX, "a log buffer of {limit} bytes");
        // A late claim may come and go from here to the CAS. It reads the turn at most to find that
        // it is not the word's, and the limit not at all, as the word is sealed.
        prepare();
        self.turn.store(turn, Relaxed);
        self.limit.store(limit, Relaxed);
        loop {
            let seen = Word(self.word.load(Acquire));
            if seen.writers() > 0 {
                self.turn.store(served, Relaxed);
                return false;
            }
            // Release publishes turn, limit and whatever `prepare` wrote.
            if self.swap(seen, Word::open(turn).0) {
                return true;
            }
        }
    }

    /// The turn served, for a caller whose claim keeps it in place.
    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Relaxed)
    }

    /// How many claims are held, those among them that came too late.
    pub(super) fn writers(&self) -> u64 {
        // Acquire pairs with the Release of claims given back: what their holders did shows.
        self.writers_as(Acquire)
    }

    /// `ordering` is a parameter for the model that proves `Acquire` is needed.
    pub(super) fn writers_as(&self, ordering: Ordering) -> u64 {
        Word(self.word.load(ordering)).writers()
    }

    /// The open buffer's fill if no claim is held on it.
    pub(super) fn settled(&self) -> Option<u32> {
        let seen = Word(self.word.load(Acquire));
        let quiet = !seen.is_sealed() && seen.writers() == 0 && seen.filled() <= self.limit.load(Relaxed);
        quiet.then_some(seen.filled())
    }

    /// The open buffer's fill, or `None` if it is sealed or about to be.
    pub(super) fn filled(&self) -> Option<u32> {
        let seen = Word(self.word.load(Acquire));
        let open = !seen.is_sealed() && seen.filled() <= self.limit.load(Relaxed);
        open.then_some(seen.filled())
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
