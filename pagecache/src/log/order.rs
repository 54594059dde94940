//! Waiting, under a reservation, until every earlier one is installed (P-5).
//!
//! Whoever decides by what it has read at its own position must know that nothing below that position
//! is still to come. Other writers pay nothing for it: how many of them hold a claim is in the word of
//! their buffer already, and only who waits enters a list.
//!
//! Parties: writers, who hold a claim and wait for nothing; those who wait, each with a claim of its own.
//! A waiter is *entered*, then *first*; being first it leaves the list and is a writer like any other.
//!
//! * ORDER-1: who is in the list holds its claim. So the claims held of a turn, less those of the list,
//!   are the writers; where there are none, and nobody in the list is lower, all below is installed.
//! * ORDER-2: the lowest in the list waits for writers alone, and who is higher for it: there is no ring.
//!
//! New writers keep coming while a turn is open. Who has seen that for long closes the turn, and its
//! writers are then finitely many.

use super::{Log, buffer::Claim};
use crate::{
    ids::Lsn,
    sync::{Mutex, spin_loop, yield_now},
};

/// Looks after which the turn is closed. A record is short: in most cases the first look is enough.
const LOOKS_MAX: u32 = 256;

/// Reservations whose owners wait for the earlier ones, each with its turn.
#[derive(Debug)]
pub(super) struct Waiting(Mutex<Vec<(u64, Lsn)>>);

impl Waiting {
    pub(super) fn new() -> Waiting {
        Waiting(Mutex::new(Vec::new()))
    }

    fn enter(&self, turn: u64, lsn: Lsn) {
        self.0.lock().push((turn, lsn));
    }

    /// True if the one at `lsn` is first; it has left the list then. `held` says how many claims are held
    /// of its turn.
    fn is_first(&self, turn: u64, lsn: Lsn, held: impl FnOnce() -> u64) -> bool {
        let mut waiting = self.0.lock();
        let of_turn = waiting.iter().filter(|(other, _)| *other == turn).count() as u64;
        let is_lowest = waiting.iter().all(|(_, other)| *other >= lsn);
        // Read under the lock, which whoever is in the list has to take before it gives its claim back.
        let first = is_lowest && held() == of_turn;
        if first {
            waiting.retain(|(_, other)| *other != lsn);
        }
        first
    }
}

impl Log {
    /// Waits until every reservation below the one of `claim` was completed or aborted.
    pub(super) fn wait_for_earlier(&self, claim: &Claim<'_>) {
        let (turn, lsn) = (claim.turn(), claim.lsn());
        self.waiting.enter(turn, lsn);
        self.wait_queued(turn - 1);
        let mut looks = 0;
        while !self.waiting.is_first(turn, lsn, || self.buffer(turn).writers()) {
            looks += 1;
            if looks == LOOKS_MAX {
                self.close_turn(turn);
            }
            // Writers only run, and what they still have to do is less than a switch of threads; but one
            // of them may have been put aside.
            if looks < LOOKS_MAX { spin_loop() } else { yield_now() }
        }
    }
}

#[cfg(all(test, loom))]
#[path = "order_models.rs"]
mod models;
