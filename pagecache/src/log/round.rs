//! Commit rounds: one thread leads, writes what is complete in LSN order and syncs once for all who
//! wait; whoever comes meanwhile rides the next round.
//!
//! There is no log thread and no timer. The leader is the first who waits, the background through
//! `prepare`, or a writer who finds every buffer of the ring in use, who then writes without a sync.
//!
//! * LOG-5: one leader at a time, turns in order, `stable` published after the sync that covers it. A
//!   turn that is all there is to sync is written and made durable by one call.

use std::sync::Arc;

use super::buffer::{Landing, Place};
use super::word::Duty;
use super::{Epoch, Log, held};
use crate::error::Failure;
use crate::format::segment::SegmentHeader;
use crate::ids::Lsn;
use crate::io::{FileId, SyncReason};
use crate::sync::Ordering::{self, Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, yield_now};

/// How far a round takes the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Written: they survive this process.
    System,
    /// Synced: they survive the machine.
    Device,
}

/// What has been written and synced, and whether somebody is at it.
#[derive(Debug)]
pub(super) struct Rounds {
    state: Mutex<Reached>,
    /// `state`, `stable`, or the queued or recyclable state of a buffer has changed.
    changed: Condvar,
    /// Everything below is durable.
    stable: AtomicU64,
    /// As in `state`, for those who only look.
    landed: AtomicU64,
}

#[derive(Debug)]
struct Reached {
    /// Somebody writes.
    leading: bool,
    /// The last turn that was written.
    landed: u64,
    /// Where the records of written turns end.
    written: Lsn,
}

impl Rounds {
    pub(super) fn new(end: Lsn) -> Rounds {
        Rounds {
            state: Mutex::new(Reached { leading: false, landed: 0, written: end }),
            changed: Condvar::new(),
            stable: AtomicU64::new(end.cast_unsigned()),
            landed: AtomicU64::new(0),
        }
    }

    /// The last turn that was written, or one before it.
    pub(super) fn landed(&self) -> u64 {
        self.landed.load(Relaxed)
    }

    pub(super) fn stable(&self) -> Lsn {
        self.stable.load(Acquire).cast_signed() // pairs with the leader's store: what came before the sync is seen
    }

    /// Says that everything below is durable.
    fn publish(&self, stable: Lsn) {
        // Release pairs with the load above: who sees the position sees what came before its sync.
        self.publish_as(stable, Release);
    }

    /// `ordering` is a parameter for the model that proves `Release` is needed.
    fn publish_as(&self, stable: Lsn, ordering: Ordering) {
        self.stable.store(stable.cast_unsigned(), ordering);
    }

    /// Wakes everybody who waits for a round or a buffer. The empty critical section makes sure
    /// that nobody is between looking and waiting.
    pub(super) fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }
}

impl Log {
    /// Takes on what a released claim left to do.
    pub(super) fn settle(&self, duty: Duty) {
        if duty == Duty::Queue {
            self.rounds.wake();
        }
    }

    /// Waits for rounds, leading one if nobody does, until `goal` is reached.
    pub(super) fn ride(&self, goal: Lsn, depth: Depth) -> Result<Lsn, Failure> {
        let reached = |state: &Reached| match depth {
            Depth::System => state.written.max(self.stable()) >= goal,
            Depth::Device => self.stable() >= goal,
        };
        let mut state = self.rounds.state.lock();
        let mut has_waited = false;
        loop {
            if reached(&state) {
                return Ok(self.stable());
            }
            self.poison.check()?;
            held::none(self.address())?;
            if state.leading {
                self.rounds.changed.wait(&mut state);
                has_waited = true;
                continue;
            }
            let leading = Leading::start(self, state);
            if has_waited {
                // Those who were woken by the same round are about to write again: let them in.
                yield_now();
            }
            self.lead(depth)?;
            drop(leading);
            state = self.rounds.state.lock();
        }
    }

    /// Writes everything reserved before the call, and syncs it at `Depth::Device`.
    fn lead(&self, depth: Depth) -> Result<(), Failure> {
        let last = self.close_current();
        self.wait_queued(last);
        if depth == Depth::Device && self.land_alone(last)? {
            return Ok(());
        }
        self.land_ready()?;
        let written = self.rounds.state.lock().written;
        if depth == Depth::Device && written > self.stable() {
            let synced = self.disk.sync(FileId::Log, SyncReason::Commit);
            synced.map_err(|source| self.give_up("syncing the log", 0, source))?;
            self.rounds.publish(written);
        }
        Ok(())
    }

    /// Writes turn `last` and makes it durable by one call, if it is all that is not durable yet. False if it
    /// is not. A turn that begins a segment is synced with the whole file, so that the zeros in which the
    /// next ones lie reach the device: each would else have to have its blocks allocated.
    fn land_alone(&self, last: u64) -> Result<bool, Failure> {
        let state = self.rounds.state.lock();
        let is_alone = state.landed + 1 == last && state.written == self.stable();
        drop(state);
        if !is_alone {
            return Ok(false);
        }
        let Some(landing) = self.buffer(last).take(last) else { return Ok(false) };
        if landing.bytes().is_empty() || landing.place().continues.is_some() {
            self.land(landing, last)?;
            return Ok(false);
        }
        let (place, bytes) = (landing.place(), landing.bytes());
        let end = place.base + bytes.len() as Lsn;
        let written = self.disk.write_durably(FileId::Log, place.offset, bytes, SyncReason::Commit);
        written.map_err(|source| self.give_up("writing the log durably", place.offset, source))?;
        self.landed(landing, last, Some(end));
        self.rounds.publish(end);
        Ok(true)
    }

    /// Waits until every claim of every turn up to `last` has been released.
    ///
    /// Only a writer holding a reservation is waited for, and it waits for nothing itself.
    pub(super) fn wait_queued(&self, last: u64) {
        let mut state = self.rounds.state.lock();
        while (state.landed + 1..=last).any(|turn| !self.is_ready(turn)) {
            self.rounds.changed.wait(&mut state);
        }
    }

    /// Writes complete turns, in order, as far as there are any; not if somebody leads. True if it
    /// wrote one.
    pub(super) fn write_ready(&self) -> Result<bool, Failure> {
        let state = self.rounds.state.lock();
        if state.leading || !self.is_ready(state.landed + 1) {
            return Ok(false);
        }
        let _leading = Leading::start(self, state);
        self.land_ready()?;
        Ok(true)
    }

    fn is_ready(&self, turn: u64) -> bool {
        self.buffer(turn).is_queued(turn)
    }

    fn land_ready(&self) -> Result<(), Failure> {
        let mut turn = self.rounds.state.lock().landed + 1;
        while let Some(landing) = self.buffer(turn).take(turn) {
            self.land(landing, turn)?;
            turn += 1;
        }
        Ok(())
    }

    /// Opens a buffer for `turn`, writing out complete ones if all are in use.
    pub(super) fn open_buffer(&self, turn: u64, place: Place) -> Result<(), Failure> {
        let mut state = self.rounds.state.lock();
        loop {
            self.poison.check()?;
            if state.landed + self.buffers.len() as u64 >= turn {
                // Fails only for a moment: the late writer wakes us when its claim is gone.
                if self.buffer(turn).recycle(turn, place) {
                    return Ok(());
                }
            } else if !state.leading && self.is_ready(state.landed + 1) {
                let leading = Leading::start(self, state);
                self.land_ready()?;
                drop(leading);
                state = self.rounds.state.lock();
                continue;
            }
            self.rounds.changed.wait(&mut state);
        }
    }

    /// Writes one turn where it belongs and gives its buffer back.
    fn land(&self, mut landing: Landing<'_>, turn: u64) -> Result<(), Failure> {
        let filled = !landing.bytes().is_empty();
        let end = landing.place().base + landing.bytes().len() as Lsn;
        if filled {
            let (offset, image) = self.image(&mut landing);
            let written = self.disk.write_at(FileId::Log, offset, image);
            written.map_err(|source| self.give_up("writing the log", offset, source))?;
        }
        self.landed(landing, turn, filled.then_some(end));
        Ok(())
    }

    /// What is to be written of a turn, and where: with the header in front if it begins a segment.
    fn image<'b>(&self, landing: &'b mut Landing<'_>) -> (u64, &'b [u8]) {
        let place = landing.place();
        match place.continues {
            None => (place.offset, landing.bytes()),
            Some(continues) => {
                let block_bytes = self.geometry.block_bytes as u64;
                let image = landing.bytes_behind(|block| self.put_header(place, continues, block));
                (place.offset - block_bytes, image)
            }
        }
    }

    /// Gives the buffer of a written turn back; its records end at `end` if it held any.
    fn landed(&self, landing: Landing<'_>, turn: u64, end: Option<Lsn>) {
        landing.landed();
        let mut state = self.rounds.state.lock();
        state.landed = turn;
        self.rounds.landed.store(turn, Relaxed);
        state.written = end.unwrap_or(state.written);
        drop(state);
        self.rounds.changed.notify_all();
    }

    /// The block in front of a segment's first buffer.
    fn put_header(&self, place: Place, continues: Lsn, block: &mut [u8]) {
        let salt = self.epoch.get().map_or(0, |Epoch { salt, .. }| *salt);
        block.fill(0);
        self.header(place.base - block.len() as Lsn, salt, continues).encode(block);
    }

    /// The header of the segment at `first`, before which the records end at `continues`.
    pub(super) fn header(&self, first: Lsn, salt: u64, continues: Lsn) -> SegmentHeader {
        SegmentHeader {
            block_bytes: self.geometry.block_bytes as u32,
            first,
            segment_bytes: self.geometry.segment_bytes as u64,
            salt,
            stable: self.stable(),
            continues,
            store: self.store,
        }
    }

    /// The first failure of the log's own bytes ends all writing.
    pub(super) fn give_up(&self, doing: &'static str, offset: u64, source: std::io::Error) -> Failure {
        let path = self.disk.path(FileId::Log);
        self.poison.set(Failure::Io { doing, path, offset, source: Arc::new(source) })
    }
}

/// The right to write and sync; given back however the round ends.
struct Leading<'l> {
    log: &'l Log,
    was_panicking: bool,
}

impl<'l> Leading<'l> {
    fn start(log: &'l Log, mut state: MutexGuard<'_, Reached>) -> Leading<'l> {
        state.leading = true;
        Leading { log, was_panicking: std::thread::panicking() }
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            let what = "the thread that wrote the log panicked; open the store again";
            let _told_to_all = self.log.poison.set(Failure::Misuse { what });
        }
        self.log.rounds.state.lock().leading = false;
        self.log.rounds.changed.notify_all();
    }
}

#[cfg(all(test, loom))]
#[path = "round_models.rs"]
mod models;
