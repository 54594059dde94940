//! Turns of buffers: closing the one in use and opening the next.
//!
//! Reservations need no lock while the current buffer has room. The one whose reservation does not
//! fit closes it with a pad and publishes where it ended; then anybody may open the next, one at a
//! time, and the others wait. Opening may need a free segment, hence the disk and the host, and a
//! free buffer, hence a write: all this is done with no lock held, and its failure is the opener's
//! own: the next in line tries again.
//!
//! States of [`Opening`]: open (the current turn takes reservations), closed (its end is known) and
//! closed and busy (somebody opens the next).

use std::sync::{Arc, Weak};

use super::buffer::{Asked, Claim, Place};
use super::segments::Use;
use super::{Begun, Epoch, Host, Log, held};
use crate::error::{Failure, LOG_FULL};
use crate::format::record::{PAD_BYTES_MIN, Seed, write_pad};
use crate::ids::Lsn;
use crate::io::{FileId, SyncReason};
use crate::sync::MutexGuard;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// Which turn is open, or where the last one ended.
#[derive(Debug)]
pub(super) struct Opening {
    turn: u64,
    /// False from when the current turn's end is known until the next one opens.
    is_open: bool,
    /// Somebody is opening the next turn.
    busy: bool,
    /// Where the records of all closed turns end.
    end: Lsn,
    /// The segment in use.
    segment: Option<InUse>,
    /// A turn of that segment was closed before it was full.
    had_rounds: bool,
}

/// Why a turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// The next record does not fit.
    Full,
    /// Somebody waits for what is in it.
    Early,
}

#[derive(Clone, Copy, Debug)]
struct InUse {
    first: Lsn,
    slot: u64,
}

impl Opening {
    /// Before the first turn: the records of earlier epochs end at `end`.
    pub(super) fn closed_at(end: Lsn) -> Opening {
        Opening { turn: 0, is_open: false, busy: false, end, segment: None, had_rounds: false }
    }
}

impl Log {
    /// `len` bytes of the current buffer, or of the next.
    pub(super) fn claim_record(&self, len: u32) -> Result<Claim<'_>, Failure> {
        loop {
            let mut has_work = false;
            let turn = self.current.load(Acquire); // pairs with the opener's store
            match self.buffer(turn).ask(len) {
                Asked::Room(claim) => return Ok(claim),
                Asked::Close(pad) => {
                    self.close(pad, Closing::Full);
                    has_work = true;
                }
                Asked::Full => {}
                Asked::Late(duty) => {
                    self.settle(duty);
                    self.rounds.wake(); // the opener may wait for this claim to be gone
                }
            }
            has_work |= self.turn_over(turn, len)?;
            if has_work && let Some(host) = self.host() {
                host.has_work();
            }
        }
    }

    fn host(&self) -> Option<Arc<dyn Host>> {
        self.host.get().and_then(Weak::upgrade)
    }

    /// Ends the current turn: pads it and publishes its end.
    fn close(&self, mut pad: Claim<'_>, closing: Closing) {
        let (lsn, len) = (pad.lsn(), pad.len());
        if len > 0 {
            write_pad(self.seed(), lsn, self.stable(), pad.bytes());
        }
        let mut opening = self.opening.lock();
        opening.is_open = false;
        opening.had_rounds |= closing == Closing::Early;
        if len > 0 {
            opening.end = lsn + Lsn::from(len);
        }
        drop(opening);
        self.opened.notify_all();
        self.settle(pad.release());
    }

    /// Closes the current turn if something is in it. Returns the last turn that is closed.
    pub(super) fn close_current(&self) -> u64 {
        let mut opening = self.opening.lock();
        loop {
            if !opening.is_open {
                return opening.turn;
            }
            let turn = opening.turn;
            // The lock keeps the current turn from being followed, hence its buffer from recycling.
            match self.buffer(turn).seal() {
                Ok(None) => return turn - 1,
                Ok(Some(pad)) => {
                    drop(opening);
                    self.close(pad, Closing::Early);
                    return turn;
                }
                // Whoever sealed it publishes its end soon, and waits for nothing before.
                Err(_) => self.opened.wait(&mut opening),
            }
        }
    }

    /// Closes `turn` unless it is closed already. The caller's claim on it keeps it in place.
    pub(super) fn close_turn(&self, turn: u64) {
        let opening = self.opening.lock();
        let is_open = opening.is_open && opening.turn == turn;
        drop(opening);
        // Who seals it meanwhile does no more than is wanted here.
        if is_open && let Ok(Some(pad)) = self.buffer(turn).seal() {
            self.close(pad, Closing::Early);
        }
    }

    /// What `stable` (or `written`) must reach to cover every reservation made so far. A buffer is
    /// written as a whole, so its first byte stands for all.
    pub(super) fn reserved_goal(&self) -> Lsn {
        let opening = self.opening.lock();
        let buffer = self.buffer(opening.turn);
        if !opening.is_open || buffer.filled() == Some(0) { opening.end } else { buffer.base() + 1 }
    }

    /// The position that the next reservation will be at or beyond.
    pub(crate) fn next_lsn(&self) -> Lsn {
        let mut opening = self.opening.lock();
        loop {
            if !opening.is_open {
                return opening.end;
            }
            let buffer = self.buffer(opening.turn);
            if let Some(filled) = buffer.filled() {
                return buffer.base() + Lsn::from(filled);
            }
            self.opened.wait(&mut opening); // for whoever sealed it
        }
    }

    /// Every reservation below the returned LSN was completed or aborted, and it is at least what
    /// was reserved before the call.
    pub(crate) fn watermark(&self) -> Result<Lsn, Failure> {
        held::none(self.address())?;
        let settled = {
            let opening = self.opening.lock();
            let buffer = self.buffer(opening.turn);
            match buffer.settled() {
                Some(0) if opening.is_open => Some((opening.turn - 1, opening.end)),
                Some(filled) if opening.is_open => {
                    Some((opening.turn - 1, buffer.base() + Lsn::from(filled)))
                }
                _ => None,
            }
        };
        let (turn, mark) = settled.unwrap_or_else(|| {
            self.close_current();
            let opening = self.opening.lock();
            (opening.turn - u64::from(opening.is_open), opening.end)
        });
        self.wait_queued(turn);
        Ok(mark)
    }

    /// Waits for, or brings about, a turn after `seen` with room for `len` bytes. True if it began a segment.
    #[cold]
    fn turn_over(&self, seen: u64, len: u32) -> Result<bool, Failure> {
        held::none(self.address())?;
        let mut opening = self.opening.lock();
        loop {
            self.poison.check()?;
            if opening.turn != seen {
                return Ok(false);
            }
            if !opening.is_open && !opening.busy {
                break;
            }
            self.opened.wait(&mut opening);
        }
        let turning = Turning::start(self, opening);
        let (turn, end, segment, wanted_for) = turning.last();
        let (segment, place, begins_segment) = match self.begin_epoch(end)? {
            Some(begun) => {
                let base = begun.first + self.geometry.block_bytes as Lsn;
                (begun, self.place_in(begun, base, len, None), true)
            }
            None => {
                let (segment, place) = self.place(end, segment, len, wanted_for)?;
                (segment, place, place.continues.is_some())
            }
        };
        self.open_buffer(turn + 1, place)?;
        turning.opened(segment, begins_segment);
        Ok(begins_segment)
    }

    /// Once an open: makes the file's name durable, and its first segment, and has the host publish the
    /// epoch. Returns that segment, whose header is not written again (LOG-8).
    fn begin_epoch(&self, end: Lsn) -> Result<Option<InUse>, Failure> {
        if self.epoch.get().is_some() {
            return Ok(None);
        }
        let host = self.host().ok_or(Failure::Misuse { what: "the log has no host; the store is closed" })?;
        self.name_file()?;
        if self.holds_bytes()? {
            host.settle()?;
        }
        let salt = host.epoch_salt()?;
        let first = self.next_segment(end);
        let slot = self.free_slot(first, end, Use::Rounds)?;
        // From here on each failure is poison: nobody tries again with another slot.
        let offset = slot * self.geometry.segment_bytes as u64;
        let mut block = vec![0; self.geometry.block_bytes];
        self.header(first, salt, end).encode(&mut block);
        let written = self.disk.write_at(FileId::Log, offset, &block);
        written.map_err(|source| self.give_up("writing the log's first segment", offset, source))?;
        let synced = self.disk.sync(FileId::Log, SyncReason::LogBegun);
        synced.map_err(|source| self.give_up("syncing the log's first segment", offset, source))?;
        // What lies behind the header in a slot that was found may be in a cache alone, after a sync that failed.
        let proven = match self.segments.is_new(slot) {
            true => self.geometry.segment_bytes,
            false => self.geometry.block_bytes,
        };
        let begun = Begun { first, salt, file_bytes: offset + proven as u64 };
        host.begin_epoch(&begun).map_err(|failure| self.poison.set(failure))?;
        self.epoch.get_or_init(|| Epoch { salt, seed: Seed::new(salt) });
        Ok(Some(InUse { first, slot }))
    }

    /// True if some of the file may be needed by an older superblock.
    fn holds_bytes(&self) -> Result<bool, Failure> {
        let len = if self.exists { self.disk.len(FileId::Log) } else { Ok(0) };
        len.map(|len| len > 0).map_err(|source| {
            let path = self.disk.path(FileId::Log);
            Failure::Io { doing: "measuring the log", path, offset: 0, source: Arc::new(source) }
        })
    }

    /// A name seen at open may be in the cache only, so it is synced in any case. One that failed to
    /// be synced must not be found again, since no later sync need make it durable.
    fn name_file(&self) -> Result<(), Failure> {
        if self.named.get().is_some() {
            return Ok(());
        }
        let created = if self.exists { Ok(()) } else { self.disk.create(FileId::Log) };
        created.and_then(|()| self.disk.sync_names(SyncReason::LogName)).map_err(|source| {
            if !self.exists {
                // Nothing is in it. If this fails too, so may the next try to make its name durable.
                let _ = self.disk.remove(FileId::Log);
            }
            let path = self.disk.path(FileId::Log);
            match Failure::from_io("creating the log", path, 0, self.geometry.segment_bytes as u64, source) {
                full @ Failure::DiskFull { .. } if !self.exists => full,
                other => self.poison.set(other),
            }
        })?;
        self.named.get_or_init(|| ());
        Ok(())
    }

    /// Where the turn after `end` goes: the rest of the segment in use, or a new one.
    fn place(
        &self,
        end: Lsn,
        segment: Option<InUse>,
        len: u32,
        wanted_for: Use,
    ) -> Result<(InUse, Place), Failure> {
        let needed = Lsn::from(len) + PAD_BYTES_MIN as Lsn;
        let segment_bytes = self.geometry.segment_bytes as Lsn;
        let used = segment.filter(|used| used.first + segment_bytes - end >= needed);
        Ok(match used {
            Some(used) => (used, self.place_in(used, end, len, None)),
            None => {
                let first = self.next_segment(end);
                let used = InUse { first, slot: self.free_slot(first, end, wanted_for)? };
                (used, self.place_in(used, first + self.geometry.block_bytes as Lsn, len, Some(end)))
            }
        })
    }

    /// The turn from `base` on, which has at least `len` bytes left in its segment.
    fn place_in(&self, used: InUse, base: Lsn, len: u32, continues: Option<Lsn>) -> Place {
        let needed = Lsn::from(len) + PAD_BYTES_MIN as Lsn;
        let segment_bytes = self.geometry.segment_bytes as Lsn;
        let left = (used.first + segment_bytes - base) as usize;
        let turn = (self.turn_bytes.load(Relaxed) as usize).max(needed as usize);
        let turn = turn.next_multiple_of(self.geometry.block_bytes);
        let capacity = turn.min(self.geometry.buffer_bytes).min(left) as u32;
        let offset = used.slot * segment_bytes as u64 + (base - used.first) as u64;
        Place { base, offset, capacity, continues }
    }

    /// The first segment that starts at or after `lsn`.
    fn next_segment(&self, lsn: Lsn) -> Lsn {
        self.segment_of(lsn + self.geometry.segment_bytes as Lsn - 1)
    }

    /// A slot for the segment at `first`, after a checkpoint if need be.
    fn free_slot(&self, first: Lsn, end: Lsn, wanted_for: Use) -> Result<u64, Failure> {
        let take = || self.segments.take(first, wanted_for, self.disk.as_ref(), &self.poison);
        if let Some(slot) = take()? {
            return Ok(slot);
        }
        if let Some(host) = self.host() {
            host.truncate()?;
        }
        take()?.ok_or_else(|| Failure::TooLarge {
            what: LOG_FULL,
            bytes: u64::try_from(end - self.segments.released()).unwrap_or(0),
            limit: self.geometry.capacity_bytes,
            remedy: "end long transactions, or raise the log's capacity",
        })
    }

    /// Closes the current turn, empty or not, for good, and keeps others from opening the next.
    pub(super) fn close_for_trim(&self) -> Result<Turning<'_>, Failure> {
        let mut opening = self.opening.lock();
        while opening.is_open || opening.busy {
            if opening.busy {
                self.opened.wait(&mut opening);
                continue;
            }
            let pad = self.buffer(opening.turn).seal_empty();
            drop(opening);
            let used = Failure::Misuse { what: "the log was trimmed while it was being written" };
            self.close(pad.ok_or(used)?, Closing::Early);
            opening = self.opening.lock();
        }
        Ok(Turning::start(self, opening))
    }
}

/// The right to open the next turn; given back however that ends.
pub(super) struct Turning<'l>(&'l Log);

impl<'l> Turning<'l> {
    fn start(log: &'l Log, mut opening: MutexGuard<'_, Opening>) -> Turning<'l> {
        opening.busy = true;
        Turning(log)
    }

    /// The last turn, where its records end, its segment, and what the next segment would be taken for.
    fn last(&self) -> (u64, Lsn, Option<InUse>, Use) {
        let opening = self.0.opening.lock();
        let streams = opening.segment.is_some() && !opening.had_rounds;
        let wanted_for = if streams { Use::Stream } else { Use::Rounds };
        (opening.turn, opening.end, opening.segment, wanted_for)
    }

    /// Publishes the next turn, which lies in `segment`.
    fn opened(self, segment: InUse, begins_segment: bool) {
        let mut opening = self.0.opening.lock();
        opening.had_rounds &= !begins_segment;
        opening.turn += 1;
        opening.is_open = true;
        opening.segment = Some(segment);
        self.0.current.store(opening.turn, Release);
    }

    /// The next turn starts a new segment.
    pub(super) fn leave_segment(self) {
        self.0.opening.lock().segment = None;
    }
}

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        self.0.opening.lock().busy = false;
        self.0.opened.notify_all();
    }
}
