//! The slots of the log file and which segment lies in each.
//!
//! A slot is free, live (it holds a segment that recovery may need), or not written yet. Free ones
//! are reused lowest first. When none is free, the file grows by one slot, so that a disk that is full
//! says so before anything is reserved. It is a slot of zeros, since written blocks sync faster than
//! merely allocated ones; but where whole segments are filled without a sync, a few are set aside and not
//! written, since writing them would cost as much as what comes there. Such a *bare* slot that is wanted
//! for small rounds after all is written first. The file never grows beyond its capacity.

use std::collections::{BTreeMap, BTreeSet};

use super::Geometry;
use crate::error::{Failure, Poison};
use crate::ids::Lsn;
use crate::io::{FileId, Storage};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex};

/// Zeros are written in pieces of at most this many bytes: what is much longer stays with the general heap.
const ZEROS_BYTES: usize = 128 << 10;
/// A stream has room set aside for this part of the file's length at once, and for at most so many bytes.
const STREAM_SHARE: u64 = 4;
const ASIDE_BYTES_MAX: u64 = 32 << 20;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Segments {
    state: Mutex<Slots>,
    /// An extension has ended.
    extended: Condvar,
    /// Nothing below is needed.
    released: AtomicU64,
    /// The last slot was taken for a stream.
    streams: AtomicBool,
    segment_bytes: u64,
    slots_max: u64,
    /// Slots below this were there at open.
    found: u64,
}

/// What a segment is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Many writes, each perhaps synced.
    Rounds,
    /// To be filled and written at once, as the one before.
    Stream,
}

#[derive(Debug)]
struct Slots {
    /// Slots below this have been written, or are set aside.
    written: u64,
    free: BTreeSet<u64>,
    /// Those of the free ones whose room is set aside and was never written.
    bare: BTreeSet<u64>,
    /// First LSN to slot.
    live: BTreeMap<Lsn, u64>,
    /// Somebody is making slot `written`, or writes a bare one.
    extending: bool,
}

impl Segments {
    pub(super) fn new(geometry: &Geometry, written: u64, live: &[(u64, Lsn)], released: Lsn) -> Segments {
        let live: BTreeMap<Lsn, u64> = live.iter().map(|(slot, first)| (*first, *slot)).collect();
        let taken: BTreeSet<u64> = live.values().copied().collect();
        let written = taken.last().map_or(written, |last| written.max(last + 1));
        let free = (0..written).filter(|slot| !taken.contains(slot)).collect();
        Segments {
            state: Mutex::new(Slots { written, free, bare: BTreeSet::new(), live, extending: false }),
            extended: Condvar::new(),
            released: AtomicU64::new(released.cast_unsigned()),
            streams: AtomicBool::new(false),
            segment_bytes: geometry.segment_bytes as u64,
            slots_max: geometry.capacity_bytes / geometry.segment_bytes as u64,
            found: written,
        }
    }

    /// A written slot for the segment that starts at `first`, or `None` if the log is at capacity.
    pub(super) fn take(
        &self,
        first: Lsn,
        wanted_for: Use,
        disk: &dyn Storage,
        poison: &Poison,
    ) -> Result<Option<u64>, Failure> {
        // A hint for the background; either way of extending is right.
        self.streams.store(wanted_for == Use::Stream, Relaxed);
        let mut slots = self.state.lock();
        loop {
            match slots.free.first().copied() {
                Some(slot) if wanted_for == Use::Rounds && slots.bare.contains(&slot) => {
                    if slots.extending {
                        self.extended.wait(&mut slots);
                    } else {
                        drop(slots);
                        self.write_bare(disk, poison)?;
                        slots = self.state.lock();
                    }
                    continue;
                }
                Some(slot) => {
                    slots.free.remove(&slot);
                    slots.bare.remove(&slot);
                    slots.live.insert(first, slot);
                    return Ok(Some(slot));
                }
                None => {}
            }
            if slots.extending {
                self.extended.wait(&mut slots);
            } else if slots.written < self.slots_max {
                drop(slots);
                self.extend(wanted_for, disk, poison)?;
                slots = self.state.lock();
            } else {
                return Ok(None);
            }
        }
    }

    /// Makes a free slot ahead of need; true if it did. A stream needs none: setting room aside is quick.
    pub(super) fn prepare(&self, disk: &dyn Storage, poison: &Poison) -> Result<bool, Failure> {
        if self.streams.load(Relaxed) {
            return Ok(false);
        }
        let slots = self.state.lock();
        let next = slots.free.first().copied();
        let is_bare = next.is_some_and(|slot| slots.bare.contains(&slot));
        let wanted = next.is_none() && !slots.extending && slots.written < self.slots_max;
        drop(slots);
        match is_bare {
            true => self.write_bare(disk, poison),
            false if wanted => self.extend(Use::Rounds, disk, poison),
            false => Ok(false),
        }
    }

    /// Writes the first free slot if it is bare; false if it is not, or somebody is at it.
    fn write_bare(&self, disk: &dyn Storage, poison: &Poison) -> Result<bool, Failure> {
        let mut slots = self.state.lock();
        let Some(slot) = slots.free.first().copied().filter(|slot| slots.bare.contains(slot)) else {
            return Ok(false);
        };
        if slots.extending {
            return Ok(false);
        }
        // Nobody else may have it meanwhile; what becomes free below it is taken first.
        slots.extending = true;
        slots.free.remove(&slot);
        slots.bare.remove(&slot);
        drop(slots);
        let writing = Extending(self);
        let written = self.write_zeros(slot, disk);
        let mut slots = self.state.lock();
        slots.free.insert(slot);
        if written.is_err() {
            slots.bare.insert(slot);
        }
        drop(slots);
        drop(writing);
        match written {
            Ok(()) => Ok(true),
            Err(full @ Failure::DiskFull { .. }) => Err(full),
            Err(other) => Err(poison.set(other)),
        }
    }

    /// Makes one more slot; false if somebody else is at it or did.
    fn extend(&self, wanted_for: Use, disk: &dyn Storage, poison: &Poison) -> Result<bool, Failure> {
        let mut slots = self.state.lock();
        if slots.extending || slots.written >= self.slots_max {
            return Ok(false);
        }
        slots.extending = true;
        let slot = slots.written;
        let many = (slot / STREAM_SHARE).clamp(1, (ASIDE_BYTES_MAX / self.segment_bytes).max(1));
        let many = many.min(self.slots_max - slot);
        drop(slots);
        let extending = Extending(self);
        let done = match wanted_for {
            Use::Stream => self.set_aside(slot, many, disk),
            Use::Rounds => self.write_zeros(slot, disk).map(|()| Made { slots: 1, bare: false }),
        };
        match done {
            Ok(made) => extending.done(made),
            // A full disk loses nothing and heals; anything else is the end of writing.
            Err(full @ Failure::DiskFull { .. }) => {
                // Half a segment would keep the room that a checkpoint may need. If the cut fails, the
                // next try to extend writes over what is left.
                let _ = disk.set_len(FileId::Log, slot * self.segment_bytes);
                return Err(full);
            }
            Err(other) => return Err(poison.set(other)),
        }
        Ok(true)
    }

    /// Room for up to `many` slots. Several at once, since the system lets nobody set room aside in a file
    /// while a large write into it is under way.
    fn set_aside(&self, slot: u64, many: u64, disk: &dyn Storage) -> Result<Made, Failure> {
        let start = slot * self.segment_bytes;
        let bytes = many * self.segment_bytes;
        let allocated = disk.allocate(FileId::Log, start, bytes).map_err(|source| {
            Failure::from_io("extending the log", disk.path(FileId::Log), start, bytes, source)
        });
        match allocated {
            Ok(true) => Ok(Made { slots: many, bare: true }),
            Ok(false) => self.write_zeros(slot, disk).map(|()| Made { slots: 1, bare: false }),
            Err(Failure::DiskFull { .. }) => {
                self.write_zeros(slot, disk)?;
                // What was set aside behind it before the disk was full goes back; if it does not, the
                // next slot is made of it.
                let _ = disk.set_len(FileId::Log, start + self.segment_bytes);
                Ok(Made { slots: 1, bare: false })
            }
            Err(other) => Err(other),
        }
    }

    fn write_zeros(&self, slot: u64, disk: &dyn Storage) -> Result<(), Failure> {
        let start = slot * self.segment_bytes;
        let zeros = vec![0; ZEROS_BYTES.min(self.segment_bytes as usize)];
        let mut at = 0;
        while at < self.segment_bytes {
            let len = (self.segment_bytes - at).min(zeros.len() as u64);
            disk.write_at(FileId::Log, start + at, &zeros[..len as usize]).map_err(|source| {
                let path = disk.path(FileId::Log);
                Failure::from_io("extending the log", path, start + at, self.segment_bytes - at, source)
            })?;
            at += len;
        }
        Ok(())
    }

    /// Frees every segment wholly below `below`.
    pub(super) fn release(&self, below: Lsn) {
        // A hint for estimates and messages; what may be reused is decided under the lock.
        self.released.fetch_max(below.cast_unsigned(), Relaxed);
        let mut slots = self.state.lock();
        while let Some(oldest) = slots.live.first_entry() {
            if oldest.key() + self.segment_bytes as Lsn > below {
                break;
            }
            let slot = oldest.remove();
            slots.free.insert(slot);
        }
    }

    /// Every segment that may be read, in LSN order: its first LSN and its slot.
    pub(super) fn live(&self) -> Vec<(Lsn, u64)> {
        self.state.lock().live.iter().map(|(first, slot)| (*first, *slot)).collect()
    }

    /// How long the file is at least if all below `stable` is durable.
    pub(super) fn bytes_below(&self, stable: Lsn) -> u64 {
        let slots = self.state.lock();
        let mut newest_first =
            slots.live.range(..stable).rev().map(|(first, slot)| (*first, slot * self.segment_bytes));
        let newest = newest_first
            .next()
            .map_or(0, |(first, start)| start + (stable - first).cast_unsigned().min(self.segment_bytes));
        // Of the others only the beginning is known to have been written.
        newest_first.map(|(_, start)| start + 1).fold(newest, u64::max)
    }

    /// Nothing below this is needed.
    pub(super) fn released(&self) -> Lsn {
        self.released.load(Relaxed).cast_signed()
    }

    /// True if the slot was written whole since the open.
    pub(super) fn is_new(&self, slot: u64) -> bool {
        slot >= self.found
    }

    /// True if there is a free slot, or one can be made.
    pub(super) fn has_free(&self) -> bool {
        let slots = self.state.lock();
        !slots.free.is_empty() || slots.written < self.slots_max
    }

    /// Bytes of the slots written so far.
    pub(super) fn file_bytes(&self) -> u64 {
        self.state.lock().written * self.segment_bytes
    }

    /// True if no slot was ever written.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().written == 0
    }

    /// Forgets every slot while `cut` empties the file.
    pub(super) fn clear(&self, cut: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let mut slots = self.state.lock();
        while slots.extending {
            self.extended.wait(&mut slots);
        }
        cut()?;
        slots.written = 0;
        slots.free.clear();
        slots.bare.clear();
        slots.live.clear();
        Ok(())
    }
}

/// Slots that were made: written, or bare.
#[derive(Clone, Copy, Debug)]
struct Made {
    slots: u64,
    bare: bool,
}

/// The right to make the next slot; given back however the writing ends.
struct Extending<'s>(&'s Segments);

impl Extending<'_> {
    /// So many slots more are there.
    fn done(&self, made: Made) {
        let mut slots = self.0.state.lock();
        let new = slots.written..slots.written + made.slots;
        slots.written = new.end;
        if made.bare {
            slots.bare.extend(new.clone());
        }
        slots.free.extend(new);
    }
}

impl Drop for Extending<'_> {
    fn drop(&mut self) {
        self.0.state.lock().extending = false;
        self.0.extended.notify_all();
    }
}
