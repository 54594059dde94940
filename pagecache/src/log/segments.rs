//! The slots of the log file and which segment lies in each.
//!
//! A slot is free, live (it holds a segment that recovery may need), or not written yet. Free ones
//! are reused lowest first. When none is free, the file grows by one slot of zeros: written blocks
//! sync faster than merely allocated ones, and a disk that is full says so before anything is
//! reserved. The file never grows beyond its capacity.

use std::collections::{BTreeMap, BTreeSet};

use super::Geometry;
use crate::error::{Failure, Poison};
use crate::ids::Lsn;
use crate::io::{FileId, Storage};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Condvar, Mutex};

/// Zeros are written in pieces of at most this many bytes.
const ZEROS_BYTES: usize = 1 << 20;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Segments {
    state: Mutex<Slots>,
    /// An extension has ended.
    extended: Condvar,
    /// Nothing below is needed.
    released: AtomicU64,
    segment_bytes: u64,
    slots_max: u64,
}

#[derive(Debug)]
struct Slots {
    /// Slots below this have been written.
    written: u64,
    free: BTreeSet<u64>,
    /// First LSN to slot.
    live: BTreeMap<Lsn, u64>,
    /// Somebody is writing slot `written`.
    extending: bool,
}

impl Segments {
    pub(super) fn new(geometry: &Geometry, written: u64, live: &[(u64, Lsn)], released: Lsn) -> Segments {
        let live: BTreeMap<Lsn, u64> = live.iter().map(|(slot, first)| (*first, *slot)).collect();
        let taken: BTreeSet<u64> = live.values().copied().collect();
        let written = taken.last().map_or(written, |last| written.max(last + 1));
        let free = (0..written).filter(|slot| !taken.contains(slot)).collect();
        Segments {
            state: Mutex::new(Slots { written, free, live, extending: false }),
            extended: Condvar::new(),
            released: AtomicU64::new(released.cast_unsigned()),
            segment_bytes: geometry.segment_bytes as u64,
            slots_max: geometry.capacity_bytes / geometry.segment_bytes as u64,
        }
    }

    /// A written slot for the segment that starts at `first`, or `None` if the log is at capacity.
    pub(super) fn take(
        &self,
        first: Lsn,
        disk: &dyn Storage,
        poison: &Poison,
    ) -> Result<Option<u64>, Failure> {
        let mut slots = self.state.lock();
        loop {
            if let Some(slot) = slots.free.pop_first() {
                slots.live.insert(first, slot);
                return Ok(Some(slot));
            }
            if slots.extending {
                self.extended.wait(&mut slots);
            } else if slots.written < self.slots_max {
                drop(slots);
                self.extend(disk, poison)?;
                slots = self.state.lock();
            } else {
                return Ok(None);
            }
        }
    }

    /// Makes a free slot ahead of need; true if it did.
    pub(super) fn prepare(&self, disk: &dyn Storage, poison: &Poison) -> Result<bool, Failure> {
        let slots = self.state.lock();
        let wanted = slots.free.is_empty() && !slots.extending && slots.written < self.slots_max;
        drop(slots);
        if wanted { self.extend(disk, poison) } else { Ok(false) }
    }

    /// Writes one more slot; false if somebody else is at it or did.
    fn extend(&self, disk: &dyn Storage, poison: &Poison) -> Result<bool, Failure> {
        let mut slots = self.state.lock();
        if slots.extending || slots.written >= self.slots_max {
            return Ok(false);
        }
        slots.extending = true;
        let slot = slots.written;
        drop(slots);
        let extending = Extending(self);
        let done = self.write_zeros(slot, disk);
        match done {
            Ok(()) => extending.done(),
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

    /// Nothing below this is needed.
    pub(super) fn released(&self) -> Lsn {
        self.released.load(Relaxed).cast_signed()
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
        slots.live.clear();
        Ok(())
    }
}

/// The right to write the next slot; given back however the writing ends.
struct Extending<'s>(&'s Segments);

impl Extending<'_> {
    fn done(&self) {
        let mut slots = self.0.state.lock();
        let slot = slots.written;
        slots.written += 1;
        slots.free.insert(slot);
    }
}

impl Drop for Extending<'_> {
    fn drop(&mut self) {
        self.0.state.lock().extending = false;
        self.0.extended.notify_all();
    }
}
