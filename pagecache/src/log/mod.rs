//! The log: ordered records, durable up to a point.
//!
//! A writer reserves a place with one `fetch_add`, fills it, and completes or aborts it. Buffers
//! are written in LSN order by the leader of a commit round, which one sync serves; whoever comes
//! meanwhile rides the next round. Nothing is written before the first reservation after an open,
//! and that one asks the [`Host`] to publish a new epoch first.
//!
//! * LOG-1: a record is at its LSN, under its epoch's salt, or nowhere.
//! * LOG-2, LOG-3, LOG-4: see [`word`].
//! * LOG-5: buffers reach the file in LSN order, and `stable` moves only after a sync that came
//!   after their writes. A buffer ends on a block border, so no block that was acknowledged is
//!   ever written again.
//! * LOG-6: every epoch starts a segment of its own. What an earlier epoch left unused of its last
//!   segment is skipped; the new segment's header says where the records before it end.
//! * LOG-7: a failed write or sync poisons the store; nobody waits for ever, no sync is repeated.
//! * LOG-8: the segment with which an epoch begins is durable, whole, before a superblock says that it is
//!   there, and its header is not written again. So a file without it is not one that a crash has left.
//!
//! Lock order: no two of the log's locks are held together, and none while the host or the disk is
//! called (but for [`Segments::clear`] at close).
//!
//! Bytes are [`crate::format::record`]'s and [`crate::format::segment`]'s; reading is [`tail`]'s.

mod buffer;
mod evidence;
mod held;
mod open;
mod order;
pub(crate) mod place;
mod read;
mod reservation;
mod round;
mod segments;
pub(crate) mod tail;
mod word;

use std::sync::{Arc, OnceLock, Weak};

use self::buffer::LogBuffer;
use self::open::Opening;
use self::order::Waiting;
pub(crate) use self::read::{Found, Met, Reader, Walk, damage, record_len};
pub(crate) use self::reservation::Reservation;
use self::round::{Depth, Rounds};
use self::segments::Segments;
use crate::error::{Failure, Poison};
use crate::format::record::{HEADER_BYTES, PAD_BYTES_MIN, RecordHead, Seed};
use crate::ids::Lsn;
use crate::io::{FileId, Storage};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Condvar, Mutex};

/// Sizes of the log; fixed while it is open. Block and segment sizes are fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Unit of writing: a power of two from 512, in bytes.
    pub(crate) block_bytes: usize,
    /// A multiple of the block and at least two of them.
    pub(crate) segment_bytes: usize,
    /// A multiple of the block.
    pub(crate) buffer_bytes: usize,
    /// A power of two from 2.
    pub(crate) buffers: usize,
    /// The file's largest length; at least two segments.
    pub(crate) capacity_bytes: u64,
}

impl Geometry {
    /// Refuses sizes that do not fit together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Geometry { block_bytes, segment_bytes, buffer_bytes, buffers, capacity_bytes } = *self;
        let rules = [
            (
                block_bytes.is_power_of_two() && block_bytes >= 512,
                "a log block is a power of two from 512 bytes",
            ),
            (
                block_bytes > 0
                    && segment_bytes.is_multiple_of(block_bytes)
                    && segment_bytes / block_bytes >= 2,
                "a log segment is a multiple of the block and at least two blocks",
            ),
            (
                block_bytes > 0 && buffer_bytes.is_multiple_of(block_bytes) && buffer_bytes > 0,
                "a log buffer is a multiple of the block",
            ),
            (buffer_bytes <= word::LIMIT_BYTES_MAX as usize, "a log buffer is at most 1 GiB"),
            (segment_bytes <= 1 << 30, "a log segment is at most 1 GiB"),
            (
                buffers.is_power_of_two() && (2..=1024).contains(&buffers),
                "log buffers are a power of two from 2 to 1024",
            ),
            (capacity_bytes / 2 >= segment_bytes as u64, "the log's capacity is at least two segments"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(Failure::Unsupported { what: format!("{rule}; these are {self:?}") }),
        }
    }

    /// The first LSN of a new log; positions below it are never used.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn first_lsn(&self) -> Lsn {
        self.segment_bytes as Lsn
    }
}

/// Turns that may wait to be written before whoever appends writes them: the one that is filled, and the one
/// before it, which others may be writing.
const TURNS_UNWRITTEN: u64 = 1;

/// What the log asks of higher layers. Called with no lock of the log held.
pub(crate) trait Host: Send + Sync {
    /// Makes sure that no superblock but the newest counts after a crash: what older ones need of the file is
    /// about to be written over.
    fn settle(&self) -> Result<(), Failure>;
    /// The salt of what is appended from now on. Nothing is written yet; called again if the epoch does not
    /// begin.
    fn epoch_salt(&self) -> Result<u64, Failure>;
    /// Before the first append after an open: publishes durably that the salt is valid from the begun segment
    /// on, unless it was published before, and that this segment is on the disk. A stable position published
    /// with it is [`Log::stable`]: no record lies between that and the segment. Must not append.
    fn begin_epoch(&self, begun: &Begun) -> Result<(), Failure>;
    /// The log is full: checkpoint and release. `Ok` when it did or somebody else did. Must not append.
    fn truncate(&self) -> Result<(), Failure>;
    /// A buffer is full, or a segment was begun: a good moment to have the background call [`Log::prepare`],
    /// which writes the one and makes the next of the other while writers go on. Must not block.
    fn has_work(&self) {}
}

/// The segment with which an epoch begins. Its header and the zeros behind it are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) first: Lsn,
    pub(crate) salt: u64,
    /// The file is at least so long, durably.
    pub(crate) file_bytes: u64,
}

/// The name of the store whose log tests look at.
#[cfg(all(test, not(loom)))]
pub(crate) const STORE: [u8; 16] = *b"a store in tests";

/// Where a log goes on: from [`tail::Tail::position`], or a superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Everything below is not needed, where the tail was read from.
    pub(crate) from: Lsn,
    /// Where the tail's records end; all below is durable once the tail was rewritten.
    pub(crate) end: Lsn,
    /// Slots of the file that have been written.
    pub(crate) slots: u64,
    /// Slots not to be reused before they are released, each with its segment's first LSN.
    pub(crate) live: Vec<(u64, Lsn)>,
    /// True if the file has a name, durable or not.
    pub(crate) exists: bool,
    /// The name of the store, for segment headers.
    pub(crate) store: [u8; 16],
}

impl Position {
    /// The position of a log that was never written.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn fresh(geometry: &Geometry) -> Position {
        let first = geometry.first_lsn();
        Position { from: first, end: first, slots: 0, live: Vec::new(), exists: false, store: STORE }
    }
}

/// The log. See the module's head.
pub(crate) struct Log {
    disk: Arc<dyn Storage>,
    geometry: Geometry,
    poison: Arc<Poison>,
    host: OnceLock<Weak<dyn Host>>,
    /// This epoch's salt; set before the first buffer opens.
    epoch: OnceLock<Epoch>,
    /// Turn `t` is served by buffer `t % buffers`.
    buffers: Box<[LogBuffer]>,
    /// Bytes of a turn, but for one that is opened for a larger record.
    turn_bytes: AtomicU64,
    /// The turn that takes reservations; 0 before the first.
    current: AtomicU64,
    opening: Mutex<Opening>,
    /// `opening` has changed.
    opened: Condvar,
    rounds: Rounds,
    waiting: Waiting,
    segments: Segments,
    exists: bool,
    /// Set once the file's name is durable.
    named: OnceLock<()>,
    store: [u8; 16],
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("geometry", &self.geometry)
            .field("opening", &self.opening)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Epoch {
    salt: u64,
    seed: Seed,
}

impl Log {
    /// A dormant log: it neither reads nor writes before the first reservation.
    pub(crate) fn new(
        disk: Arc<dyn Storage>,
        geometry: Geometry,
        poison: Arc<Poison>,
        position: Position,
    ) -> Result<Log, Failure> {
        geometry.check()?;
        let Position { from, end, slots, live, exists, store } = position;
        let buffer = |_| LogBuffer::new(geometry.buffer_bytes, geometry.block_bytes as u32);
        Ok(Log {
            disk,
            geometry,
            poison,
            host: OnceLock::new(),
            epoch: OnceLock::new(),
            buffers: (0..geometry.buffers).map(buffer).collect(),
            turn_bytes: AtomicU64::new(geometry.buffer_bytes as u64),
            current: AtomicU64::new(0),
            opening: Mutex::new(Opening::closed_at(end)),
            opened: Condvar::new(),
            rounds: Rounds::new(end),
            waiting: Waiting::new(),
            segments: Segments::new(&geometry, slots, &live, from),
            exists,
            named: OnceLock::new(),
            store,
        })
    }

    /// Names the host; the first call counts. Without one the log takes no reservations.
    pub(crate) fn set_host(&self, host: Weak<dyn Host>) {
        let _first_counts = self.host.set(host);
    }

    /// Bounds the bytes of a turn, and with it the memory that is touched of each buffer; a turn that is
    /// opened for a larger record is as long as that takes.
    pub(crate) fn bound_turns(&self, bytes: usize) {
        // Relaxed: whoever opens the next turn sees it, or the one after that.
        self.turn_bytes.store(bytes as u64, Relaxed);
    }

    /// Bytes of memory that the buffers take: what was ever written to them.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.buffers.iter().map(LogBuffer::touched_bytes).sum()
    }

    /// Largest payload of one record, in bytes.
    pub(crate) fn max_payload(&self) -> usize {
        let Geometry { block_bytes, segment_bytes, buffer_bytes, .. } = self.geometry;
        buffer_bytes.min(segment_bytes - block_bytes) - HEADER_BYTES - PAD_BYTES_MIN
    }

    /// A place for one record of `payload_len` bytes.
    ///
    /// Blocks only when the current buffer is used up and none is free, or the log is full. The
    /// thread should hold no other reservation: where it would have to wait, it gets `Misuse`.
    pub(crate) fn reserve(&self, head: RecordHead, payload_len: usize) -> Result<Reservation<'_>, Failure> {
        self.poison.check()?;
        if payload_len > self.max_payload() {
            return Err(self.too_large(payload_len));
        }
        self.claim_record((HEADER_BYTES + payload_len) as u32)
            .map(|claim| Reservation::new(self, claim, head))
    }

    #[cold]
    fn too_large(&self, payload_len: usize) -> Failure {
        Failure::TooLarge {
            what: "a log record",
            bytes: payload_len as u64,
            limit: self.max_payload() as u64,
            remedy: "split it, or raise the log's buffer and segment sizes",
        }
    }

    /// Waits until the byte at `lsn` is durable, if it was reserved before the call, and returns the
    /// stable LSN.
    pub(crate) fn make_stable(&self, lsn: Lsn) -> Result<Lsn, Failure> {
        if lsn < self.stable() {
            return Ok(self.stable());
        }
        let goal = self.reserved_goal().min(lsn.saturating_add(1));
        self.ride(goal, Depth::Device)
    }

    /// Makes everything reserved before the call durable; without I/O when it already is.
    pub(crate) fn flush(&self) -> Result<Lsn, Failure> {
        self.ride(self.reserved_goal(), Depth::Device)
    }

    /// Hands everything reserved before the call to the operating system, without a sync.
    pub(crate) fn hand_over(&self) -> Result<(), Failure> {
        self.ride(self.reserved_goal(), Depth::System).map(|_| ())
    }

    /// Every byte below is durable.
    pub(crate) fn stable(&self) -> Lsn {
        self.rounds.stable()
    }

    /// How much log recovery would read now, in bytes, to within one buffer. Takes no lock.
    pub(crate) fn tail_bytes(&self) -> u64 {
        // The buffer may be on its way to a later turn, whose base is as good an estimate.
        let base = self.buffer(self.current.load(Relaxed)).base();
        u64::try_from(base.max(self.stable()) - self.segments.released()).unwrap_or(0)
    }

    /// True if so many bytes of records fit before anything must be released, however the estimate errs and
    /// whatever their buffers and segments leave unused: more than one record takes is cut into parts. Takes
    /// no lock.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let Geometry { segment_bytes, block_bytes, .. } = self.geometry;
        // The end of a part's block, or of a segment that has no room for the next, and a segment's header.
        let around_a_part = (2 * block_bytes + HEADER_BYTES + PAD_BYTES_MIN) as u64;
        let parts = bytes.div_ceil(self.max_payload()) as u64;
        let unused = 2 * segment_bytes as u64 + parts * around_a_part;
        self.tail_bytes() + bytes as u64 + unused <= self.geometry.capacity_bytes
    }

    /// True if the next segment has a place.
    pub(crate) fn has_free_segment(&self) -> bool {
        self.segments.has_free()
    }

    /// How long the log's file may become, in bytes.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.geometry.capacity_bytes
    }

    /// Everything below was released.
    pub(crate) fn released(&self) -> Lsn {
        self.segments.released()
    }

    /// How long the log's file is, in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.file_bytes()
    }

    /// The file has at least so many bytes, durably.
    pub(crate) fn durable_bytes(&self) -> u64 {
        self.segments.bytes_below(self.stable())
    }

    /// Segments wholly below `below` may be reused: a durable checkpoint no longer needs them.
    pub(crate) fn release(&self, below: Lsn) {
        self.segments.release(below);
    }

    /// Cuts the file to nothing, at close, after everything was released. LSNs go on from where they are.
    pub(crate) fn trim(&self) -> Result<(), Failure> {
        self.poison.check()?;
        if self.segments.is_empty() {
            return Ok(());
        }
        let reached = self.flush()?;
        let turning = self.close_for_trim()?;
        if self.segments.released() < reached {
            return Err(Failure::Misuse { what: "the log was trimmed before all of it was released" });
        }
        self.segments.clear(|| {
            self.disk.set_len(FileId::Log, 0).map_err(|source| {
                let path = self.disk.path(FileId::Log);
                self.poison.set(Failure::Io {
                    doing: "trimming the log",
                    path,
                    offset: 0,
                    source: Arc::new(source),
                })
            })
        })?;
        turning.leave_segment();
        Ok(())
    }

    /// Background work: keeps one written, free segment ahead and writes full buffers out. True if
    /// there was something to do.
    pub(crate) fn prepare(&self) -> Result<bool, Failure> {
        self.poison.check()?;
        if self.epoch.get().is_none() {
            return Ok(false);
        }
        let written = self.write_ready()?;
        let extended = self.segments.prepare(self.disk.as_ref(), &self.poison)?;
        Ok(written || extended)
    }

    /// What whoever appended does with no guard and no reservation: writes turns out that are complete, so
    /// that the next turn finds a free buffer and nobody waits for one.
    #[inline]
    pub(crate) fn help(&self) -> Result<(), Failure> {
        // Relaxed: a stale value helps a turn later.
        if self.current.load(Relaxed) > self.rounds.landed() + TURNS_UNWRITTEN {
            self.write_ready()?;
        }
        Ok(())
    }

    /// `Err(Poisoned)` once a write or sync has failed.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn poisoned(&self) -> Result<(), Failure> {
        self.poison.check()
    }

    fn buffer(&self, turn: u64) -> &LogBuffer {
        &self.buffers[turn as usize & (self.buffers.len() - 1)]
    }

    fn seed(&self) -> &Seed {
        &self.epoch.get().expect("an epoch begins before its first buffer opens").seed
    }

    /// Tells logs apart in [`held`].
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn segment_of(&self, lsn: Lsn) -> Lsn {
        lsn - lsn % self.geometry.segment_bytes as Lsn
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
