//! Loom models of a buffer's state: two or three threads, every schedule within two preemptions.
//!
//! Bytes are loom cells, so a claim that overlaps another, or a landing that reads what is still
//! being written or not yet visible, fails the model.
//!
//! Loom tries another order of two accesses only if one follows the other with no access between,
//! so the load in front of every claim would hide most schedules. The turnstile, a relaxed counter
//! that every step passes first, brings them back and orders nothing. Each model counts the
//! outcomes it means to see, so that none passes by seeing too little.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Count; // counts for the test alone, unseen by loom

use super::{BufferState, Claimed, Duty, Sealing};
use crate::sync::Ordering::{self, AcqRel, Relaxed};
use crate::sync::{AtomicU32, UnsafeCell, yield_now};

struct Buffer {
    state: BufferState,
    cells: [UnsafeCell<u8>; 4],
    queued: [Count; 3],
    written: [Count; 3],
    late: Count,
    release: Ordering,
    turnstile: AtomicU32,
}

// SAFETY: the cells are reached under claims and landings only; that is what the model checks.
unsafe impl Sync for Buffer {}
// SAFETY: as above.
unsafe impl Send for Buffer {}

impl Buffer {
    fn open(limit: u32, release: Ordering) -> Arc<Buffer> {
        let buffer = Buffer {
            state: BufferState::new(),
            cells: std::array::from_fn(|_| UnsafeCell::new(0)),
            queued: std::array::from_fn(|_| Count::new(0)),
            written: std::array::from_fn(|_| Count::new(0)),
            late: Count::new(0),
            release,
            turnstile: AtomicU32::new(0),
        };
        assert!(buffer.state.recycle(1, limit, || {}));
        Arc::new(buffer)
    }

    /// Asks for one byte and writes it if there is room. True if some claim was had.
    fn write(&self) -> bool {
        self.pass();
        match self.state.claim(1) {
            Claimed::Room { at } => {
                self.fill(at);
                self.written[self.turn()].fetch_add(1, Relaxed);
                self.release();
                true
            }
            Claimed::Sealed { at } => {
                self.pad(at);
                true
            }
            Claimed::Full => false,
            Claimed::Late(duty) => {
                self.late.fetch_add(1, Relaxed);
                self.settle(duty);
                false
            }
        }
    }

    fn seal(&self) -> bool {
        self.pass();
        match self.state.seal() {
            Sealing::Sealed { at } => {
                self.pad(at);
                true
            }
            Sealing::Empty | Sealing::Already => false,
        }
    }

    fn pad(&self, at: u32) {
        self.fill(at);
        self.release();
    }

    fn fill(&self, at: u32) {
        // SAFETY: the claim on this byte is held; loom fails the model if that is not exclusive.
        self.cells[at as usize].with_mut(|cell| unsafe { *cell += 1 });
    }

    fn pass(&self) {
        self.turnstile.fetch_add(1, Relaxed);
    }

    fn release(&self) {
        self.pass();
        self.settle(self.state.release_as(self.release));
    }

    /// The turn, which a held claim keeps in place.
    fn turn(&self) -> usize {
        self.state.turn.load(Relaxed) as usize
    }

    /// Whoever is told to queue writes the buffer at once: reads all bytes and lands it.
    fn settle(&self, duty: Duty) {
        if duty == Duty::None {
            return;
        }
        let turn = self.turn();
        self.queued[turn].fetch_add(1, Relaxed);
        assert!(self.state.take(turn as u64), "turn {turn} was taken twice");
        // SAFETY: no claim is left; loom fails the model if one is.
        let sum: usize = self.cells.iter().map(|cell| cell.with(|byte| usize::from(unsafe { *byte }))).sum();
        let before: usize = if turn == 2 { self.total(1) } else { 0 };
        assert_eq!(sum, before + self.total(turn), "bytes of turn {turn} are missing");
        self.state.land(turn as u64);
    }

    /// Bytes written in a turn: the records' and the pad's.
    fn total(&self, turn: usize) -> usize {
        self.written[turn].load(Relaxed) + 1
    }

    fn times_queued(&self, turn: usize) -> usize {
        self.queued[turn].load(Relaxed)
    }
}

/// How often a model saw what it is about.
#[derive(Default)]
struct Seen {
    writers: [Count; 3],
    early_seals: Count,
    late: Count,
}

impl Seen {
    fn check(&self, outcome: &Count, name: &str) {
        assert!(outcome.load(Relaxed) > 0, "no schedule showed {name}");
    }
}

fn explore(model: impl Fn(&Seen) + Send + Sync + 'static) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let counted = seen.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || model(&counted));
    seen
}

/// Two writers, and a third thread that seals as the leader of a round does.
fn writers_and_a_sealer(limit: u32, release: Ordering) -> Arc<Seen> {
    explore(move |seen| {
        let buffer = Buffer::open(limit, release);
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let buffer = buffer.clone();
                loom::thread::spawn(move || buffer.write())
            })
            .collect();
        let sealed = buffer.seal();
        for writer in writers {
            writer.join().unwrap();
        }
        if sealed {
            seen.early_seals.fetch_add(1, Relaxed);
        } else {
            buffer.seal();
        }
        assert_eq!(buffer.times_queued(1), 1, "queued once");
        seen.writers[buffer.written[1].load(Relaxed)].fetch_add(1, Relaxed);
        seen.late.fetch_add(buffer.late.load(Relaxed), Relaxed);
    })
}

#[test]
fn loom_claims_never_overlap_and_one_thread_queues() {
    let seen = writers_and_a_sealer(3, AcqRel);
    seen.check(&seen.early_seals, "a seal before the last writer");
    seen.check(&seen.writers[1], "a writer that came after the seal");
    seen.check(&seen.writers[2], "two writers in one turn");
    seen.check(&seen.late, "a claim that came too late");
}

#[test]
fn loom_the_claim_that_crosses_the_limit_seals() {
    let seen = writers_and_a_sealer(1, AcqRel);
    seen.check(&seen.writers[1], "a claim that crossed the limit");
    seen.check(&seen.late, "a claim that came too late");
}

#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_release_without_its_ordering_loses_bytes() {
    writers_and_a_sealer(3, Relaxed);
}

/// A writer that comes late meets the recycling of the buffer and its next turn.
#[test]
fn loom_a_late_claim_never_disturbs_the_next_turn() {
    let seen = explore(|seen| {
        let buffer = Buffer::open(1, AcqRel);
        assert!(buffer.write());
        let late = {
            let buffer = buffer.clone();
            loom::thread::spawn(move || buffer.write())
        };
        buffer.seal();
        // The late claim may be the one that sealed, or the last to leave.
        while !buffer.state.recycle(2, 2, || buffer.pass()) {
            yield_now();
        }
        buffer.write();
        late.join().unwrap();
        buffer.seal();
        assert_eq!(buffer.times_queued(1), 1, "turn 1 is queued once");
        assert_eq!(buffer.times_queued(2), 1, "turn 2 is queued once");
        seen.writers[buffer.written[2].load(Relaxed)].fetch_add(1, Relaxed);
        seen.late.fetch_add(buffer.late.load(Relaxed), Relaxed);
    });
    seen.check(&seen.writers[1], "a claim that missed the next turn");
    seen.check(&seen.writers[2], "a claim that hit the next turn");
    seen.check(&seen.late, "a claim that came too late");
}
