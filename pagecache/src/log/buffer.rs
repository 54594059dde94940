//! Log buffers: many threads fill one, one thread writes it.
//!
//! The right to a range of bytes is a token: a [`Claim`] may write its range, a [`Landing`] may read
//! the whole buffer once no claim is left. [`super::word`] hands them out so that they never meet.
//!
//! * LOG-2: ranges of claims never overlap.
//! * LOG-3: a landing exists only after the last claim of its turn was released.
//! * LOG-4: a buffer is recycled, and claimed anew, only after its landing is gone.
//!
//! The bytes lie in std's cell; the model of the word has cells of its own for loom to watch. In front
//! of them is a block for the header of a segment that they begin, so that one write takes both; it
//! begins on the border that direct writes ask for.
//! Buffers end on block borders: the one who seals owns the bytes up to the border behind a pad.

use std::cell::UnsafeCell;

use super::word::{BufferState, Claimed, Duty, Sealing};
use crate::format::record::PAD_BYTES_MIN;
use crate::ids::Lsn;
use crate::sync::Ordering::{Acquire, Relaxed};
use crate::sync::{AtomicU32, AtomicU64, Mutex};

/// Border on which the memory begins; what it is short of a block's size costs direct writes, no more.
const MEMORY_ALIGN: usize = 4096;

/// Where a turn's bytes go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The LSN of the buffer's first byte.
    pub(super) base: Lsn,
    /// Its offset in the log file.
    pub(super) offset: u64,
    /// How many bytes the turn may hold, a multiple of the block.
    pub(super) capacity: u32,
    /// Set if the buffer is the first of its segment: where the records before it end.
    pub(super) continues: Option<Lsn>,
}

/// One buffer of the ring.
#[derive(Debug)]
pub(super) struct LogBuffer {
    state: BufferState,
    /// The LSN of the first byte in this turn; fixed while a claim is held.
    base: AtomicU64,
    /// Where that lies in the file.
    offset: AtomicU64,
    /// Bytes to be written in this turn; set by the one who seals before it releases its claim.
    end: AtomicU32,
    place: Mutex<Place>,
    /// The most that a turn had room for.
    touched: AtomicU32,
    block_bytes: u32,
    /// The block in front and the bytes, from `front` on.
    memory: Box<[UnsafeCell<u8>]>,
    front: usize,
}

// SAFETY: the bytes are reached only through `Claim` and `Landing`, which are made so that a range
// is either written by one claim or read by one landing (LOG-2, LOG-3, LOG-4).
unsafe impl Sync for LogBuffer {}

/// What came of asking a buffer for a range.
#[must_use]
pub(super) enum Asked<'b> {
    /// The range asked for.
    Room(Claim<'b>),
    /// It did not fit, and the caller must close the buffer with this pad.
    Close(Claim<'b>),
    /// The next turn is needed.
    Full,
    /// As `Full`; somebody may wait for the claim that was just taken back.
    Late(Duty),
}

impl LogBuffer {
    pub(super) fn new(buffer_bytes: usize, block_bytes: u32) -> LogBuffer {
        let len = MEMORY_ALIGN + block_bytes as usize + buffer_bytes;
        let zeros = Box::into_raw(vec![0u8; len].into_boxed_slice());
        // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, and the box was just given up.
        let memory = unsafe { Box::from_raw(zeros as *mut [UnsafeCell<u8>]) };
        let front = memory.as_ptr().align_offset(MEMORY_ALIGN).min(MEMORY_ALIGN);
        LogBuffer {
            state: BufferState::new(),
            base: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            end: AtomicU32::new(0),
            place: Mutex::new(Place::default()),
            touched: AtomicU32::new(0),
            block_bytes,
            memory,
            front,
        }
    }

    fn bytes(&self) -> &[UnsafeCell<u8>] {
        &self.memory[self.front + self.block_bytes as usize..]
    }

    /// Asks for `len` bytes; whoever finds them not to fit first gets the pad instead.
    pub(super) fn ask(&self, len: u32) -> Asked<'_> {
        match self.state.claim(len) {
            Claimed::Room { at } => Asked::Room(Claim { buffer: self, at, len }),
            Claimed::Sealed { at } => Asked::Close(self.pad_claim(at)),
            Claimed::Full => Asked::Full,
            Claimed::Late(duty) => Asked::Late(duty),
        }
    }

    /// Seals the buffer if something is in it: `Ok(None)` if nothing is, `Err` if it is sealed already.
    pub(super) fn seal(&self) -> Result<Option<Claim<'_>>, AlreadySealed> {
        match self.state.seal() {
            Sealing::Sealed { at } => Ok(Some(self.pad_claim(at))),
            Sealing::Empty => Ok(None),
            Sealing::Already => Err(AlreadySealed),
        }
    }

    /// Seals the buffer if nothing is in it.
    pub(super) fn seal_empty(&self) -> Option<Claim<'_>> {
        self.state.seal_empty().then(|| self.pad_claim(0))
    }

    /// The claim of the one who sealed at `at`: up to the border that a pad reaches. A buffer with
    /// nothing in it needs none. Claims end [`PAD_BYTES_MIN`] before the capacity, so the pad fits.
    fn pad_claim(&self, at: u32) -> Claim<'_> {
        let border = (at + PAD_BYTES_MIN as u32).next_multiple_of(self.block_bytes);
        let len = if at == 0 { 0 } else { border - at };
        self.end.store(at + len, Relaxed); // published by the release of this claim
        Claim { buffer: self, at, len }
    }

    /// Bytes of memory that turns up to now may have written to.
    pub(super) fn touched_bytes(&self) -> usize {
        self.touched.load(Relaxed) as usize
    }

    /// Opens the buffer for `turn`; false while a late claim is still being taken back.
    pub(super) fn recycle(&self, turn: u64, place: Place) -> bool {
        assert!(place.capacity as usize <= self.bytes().len(), "a turn of {} bytes", place.capacity);
        let limit = place.capacity - PAD_BYTES_MIN as u32;
        self.state.recycle(turn, limit, || {
            self.base.store(place.base.cast_unsigned(), Relaxed); // published with the turn
            self.offset.store(place.offset, Relaxed); // as well
            *self.place.lock() = place;
            self.touched.fetch_max(place.capacity, Relaxed);
        })
    }

    /// See [`BufferState::filled`].
    pub(super) fn filled(&self) -> Option<u32> {
        self.state.filled()
    }

    /// See [`BufferState::settled`].
    pub(super) fn settled(&self) -> Option<u32> {
        self.state.settled()
    }

    /// See [`BufferState::writers`].
    pub(super) fn writers(&self) -> u64 {
        self.state.writers()
    }

    /// See [`BufferState::is_queued`].
    pub(super) fn is_queued(&self, turn: u64) -> bool {
        self.state.is_queued(turn)
    }

    /// The current turn's first LSN, if the caller keeps the turn from being recycled; else that or
    /// a later turn's.
    pub(super) fn base(&self) -> Lsn {
        self.base.load(Acquire).cast_signed()
    }

    /// The right to write out `turn`, if it is queued and nobody took it before.
    pub(super) fn take(&self, turn: u64) -> Option<Landing<'_>> {
        self.state.take(turn).then_some(Landing { buffer: self, turn })
    }
}

/// Another thread has sealed the buffer, or is about to publish that it did.
#[derive(Debug)]
pub(super) struct AlreadySealed;

/// Sole right to write one range of one buffer. Never cloned; must be released.
#[derive(Debug)]
#[must_use = "a claim that is not released stops the log"]
pub(super) struct Claim<'b> {
    buffer: &'b LogBuffer,
    at: u32,
    len: u32,
}

impl Claim<'_> {
    /// The LSN of the range's first byte.
    pub(super) fn lsn(&self) -> Lsn {
        self.buffer.base.load(Relaxed).cast_signed() + Lsn::from(self.at)
    }

    /// The file offset of the range's first byte. The claim holds the turn's place still.
    pub(super) fn offset(&self) -> u64 {
        self.buffer.offset.load(Relaxed) + u64::from(self.at)
    }

    /// The turn that the claim holds in place.
    pub(super) fn turn(&self) -> u64 {
        self.buffer.state.turn()
    }

    /// How many bytes the claim covers.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The range.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let cells = &self.buffer.bytes()[self.at as usize..(self.at + self.len) as usize];
        let start = UnsafeCell::raw_get(cells.as_ptr());
        // SAFETY: in bounds and initialised, as `cells` is this range of a box made of zeros.
        // Unaliased, because `&mut self` is the only handle to these bytes (LOG-2) and a landing
        // reads none of them before this claim is released (LOG-3).
        unsafe { std::slice::from_raw_parts_mut(start, cells.len()) }
    }

    /// Gives the range up; its bytes are final.
    pub(super) fn release(self) -> Duty {
        self.buffer.state.release()
    }
}

/// Sole right to read a complete buffer; dropped unlanded, it keeps the buffer from being recycled.
#[derive(Debug)]
pub(super) struct Landing<'b> {
    buffer: &'b LogBuffer,
    turn: u64,
}

impl Landing<'_> {
    /// Where the bytes go.
    pub(super) fn place(&self) -> Place {
        *self.buffer.place.lock()
    }

    /// All bytes of the turn.
    pub(super) fn bytes(&self) -> &[u8] {
        let cells = &self.buffer.bytes()[..self.buffer.end.load(Relaxed) as usize];
        let start = UnsafeCell::raw_get(cells.as_ptr()).cast_const();
        // SAFETY: in bounds and initialised, as `cells` is this range of a box made of zeros. Nobody
        // writes: all claims of the turn are released (LOG-3), and the next turn's claims come after
        // `landed`, which takes this landing (LOG-4).
        unsafe { std::slice::from_raw_parts(start, cells.len()) }
    }

    /// The block in front, as `fill` writes it, and all bytes of the turn.
    pub(super) fn bytes_behind(&mut self, fill: impl FnOnce(&mut [u8])) -> &[u8] {
        let (front, block) = (self.buffer.front, self.buffer.block_bytes as usize);
        let end = front + block + self.buffer.end.load(Relaxed) as usize;
        let cells = &self.buffer.memory[front..end];
        let start = UnsafeCell::raw_get(cells.as_ptr());
        // SAFETY: in bounds and initialised, as `cells` is this range of a box made of zeros. No claim
        // reaches the block in front, and `&mut self` is the only landing of the turn.
        fill(unsafe { std::slice::from_raw_parts_mut(start, block) });
        // SAFETY: as above, and as in `bytes`: nobody writes before `landed`.
        unsafe { std::slice::from_raw_parts(start.cast_const(), cells.len()) }
    }

    /// Gives the buffer back for another turn.
    pub(super) fn landed(self) {
        self.buffer.state.land(self.turn);
    }
}
