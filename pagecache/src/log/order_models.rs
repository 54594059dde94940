//! Loom models of waiting for earlier reservations: writers and those who wait in one turn.
//!
//! What a writer installs is a loom cell, so whoever looks before it is there, or without having
//! synchronised with it, fails the model (ORDER-1, ORDER-2).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    sync::atomic::AtomicUsize as Count, // counts for the test alone, unseen by loom
};

use loom::thread;

use super::Waiting;
use crate::{
    ids::Lsn,
    log::word::{BufferState, Claimed, Duty},
    sync::{
        AtomicU32,
        Ordering::{self, Acquire, Relaxed},
        UnsafeCell, yield_now,
    },
};

const CLAIMS_MAX: usize = 3;

/// A turn, and at each of its places what the one who claimed it did before giving it back.
struct Turn {
    state: BufferState,
    waiting: Waiting,
    installed: [UnsafeCell<bool>; CLAIMS_MAX],
    /// Loom tries another order of two accesses only if they follow each other: every step passes here.
    turnstile: AtomicU32,
    waits: bool,
    look: Ordering,
}

// SAFETY: a cell is written under the claim of its place and read by who knows that this was given back;
// that is what the model checks.
unsafe impl Sync for Turn {}
// SAFETY: as above.
unsafe impl Send for Turn {}

impl Turn {
    fn open(waits: bool, look: Ordering) -> Arc<Turn> {
        let turn = Turn {
            state: BufferState::new(),
            waiting: Waiting::new(),
            installed: std::array::from_fn(|_| UnsafeCell::new(false)),
            turnstile: AtomicU32::new(0),
            waits,
            look,
        };
        assert!(turn.state.recycle(1, CLAIMS_MAX as u32, || {}));
        Arc::new(turn)
    }

    fn claim(&self) -> u32 {
        self.turnstile.fetch_add(1, Relaxed);
        match self.state.claim(1) {
            Claimed::Room { at } => at,
            other => unreachable!("the turn has room for all: {other:?}"),
        }
    }

    fn install(&self, at: u32) {
        self.turnstile.fetch_add(1, Relaxed);
        // SAFETY: the place is this thread's; loom fails the model if somebody reads it meanwhile.
        self.installed[at as usize].with_mut(|cell| unsafe { *cell = true });
        assert_eq!(self.state.release(), Duty::None, "the turn stays open");
    }

    fn write(&self) {
        let at = self.claim();
        self.install(at);
    }

    /// Claims, waits, looks at everything below, and installs too. Returns how much there was.
    fn decide(&self) -> usize {
        let at = self.claim();
        if self.waits {
            self.waiting.enter(1, Lsn::from(at));
            while !self.waiting.is_first(1, Lsn::from(at), || self.state.writers_as(self.look)) {
                yield_now();
            }
        }
        for below in &self.installed[..at as usize] {
            // SAFETY: whoever claimed it has given it back; loom fails the model if that is not so.
            assert!(below.with(|cell| unsafe { *cell }), "a change below the position is still to come");
        }
        self.install(at);
        at as usize
    }
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// A writer, and one who decides after the writer's reservation or before it.
fn a_writer_and_a_judge(waits: bool, look: Ordering) -> usize {
    let late = Arc::new(Count::new(0));
    let counted = late.clone();
    explore(move || {
        let turn = Turn::open(waits, look);
        let writer = {
            let turn = turn.clone();
            thread::spawn(move || turn.write())
        };
        counted.fetch_add(turn.decide(), Relaxed);
        writer.join().expect("the writer");
    });
    late.load(Relaxed)
}

#[test]
fn loom_who_waits_sees_every_change_below_its_position() {
    assert!(a_writer_and_a_judge(true, Acquire) > 0, "no schedule had the writer's position first");
}

#[test]
fn loom_who_does_not_wait_or_looks_without_order_misses_a_change() {
    for (waits, look) in [(false, Acquire), (true, Relaxed)] {
        let weakened = catch_unwind(AssertUnwindSafe(|| a_writer_and_a_judge(waits, look)));
        assert!(weakened.is_err(), "the model cannot see what {waits} and {look:?} lose");
    }
}

/// Two who wait in one turn: the lower one does not wait for the higher, and both get through.
#[test]
fn loom_two_who_wait_go_in_their_order() {
    explore(|| {
        let turn = Turn::open(true, Acquire);
        let other = {
            let turn = turn.clone();
            thread::spawn(move || turn.decide())
        };
        let mine = turn.decide();
        let theirs = other.join().expect("the other one");
        assert_eq!(mine + theirs, 1, "each has a position of its own");
    });
}
