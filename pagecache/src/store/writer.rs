//! Appends frames to segments, many with one write.
//!
//! A [`Batch`] collects frames in memory, without a lock; every full megabyte, and the rest at
//! [`Batch::finish`], is placed, sealed with its place and written, one batch at a time.
//!
//! * An address exists only once its frame is written: `finish` returns them all.
//! * P-10: [`FrameWriter::make_durable`] ends the block before it syncs, so no block with bytes that
//!   a superblock or record may come to refer to is written again; the gap is dead bytes.
//! * A full disk changes nothing: segments taken are given back, the file is cut to its old length,
//!   the batch keeps its frames and may be finished again later. Any other failure is poison.
//! * When the file cannot grow, frames go into free segments that were written before. The last few
//!   of those, the reserve, are for checkpoints, so that a full disk can always be emptied.
//! * Where the store packs, pages are packed one by one as they come, so that a frame is read alone.
//! * Frames of one [`Stream`] follow each other in its own active segment, so that what dies together
//!   lies together.
//!
//! Which segments are free is [`super::segments`]' business, where frames go [`super::placement`]'s.

use std::ops::Range;
use std::sync::Arc;

use crate::{
    error::Failure,
    format::{
        frame::{Codec, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameHeader, FrameKind},
        packed::pack,
    },
    ids::{FragmentAddr, PageSeq},
    io::SyncReason,
    store::{
        pages::PagesFile,
        placement::{Plan, Tail, place},
        reader::Frame,
        segments::{Hold, Segments},
        stats::{StoreStats, WrittenBytes, WrittenCounts},
        table::Choice,
    },
    sync::{AtomicU64, Mutex, Ordering},
};

/// A batch is written whenever it reaches this many bytes.
const FLUSH_BYTES: usize = 1 << 20;
/// Live data from which on streams have segments of their own, in segments.
const STREAMS_FROM_SEGMENTS: u64 = 16;

/// Buffers kept, and bytes of each, at most.
const SPARES_MAX: usize = 2;
const SPARE_BYTES_MAX: usize = 2 * FLUSH_BYTES;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What frames are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Write-back, cleaning, large values.
    Ordinary,
    /// A checkpoint, and whatever lets one finish: may use the reserve.
    Checkpoint,
}

/// Frames that are likely to die together: each stream fills segments of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Pages that were just changed, and may be again soon.
    Hot,
    /// What changed of pages, which dies with the next image of each.
    Deltas,
    /// What lived on in a segment that was emptied.
    Survivors,
    /// Map pages and directories, which the next checkpoints supersede.
    Tables,
    /// Large values, which fill segments by themselves.
    Values,
}

const STREAMS: usize = 5;

#[derive(Debug)]
struct Position {
    /// By stream.
    tails: [Option<Tail>; STREAMS],
    /// All streams are one.
    united: bool,
    file_bytes: u64,
}

/// The one place where the segments of a `pages` file are written.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    file: PagesFile,
    segments: Arc<Segments>,
    /// Whether pages are packed.
    packs: bool,
    position: Mutex<Position>,
    /// Buffers of batches and of looks at segments that are done, for the next: the general heap keeps what it
    /// once gave for one.
    spare: Mutex<Vec<Vec<u8>>>,
    /// The length in `position`, for those who would only look and must not wait for a write.
    length: AtomicU64,
    counts: WrittenCounts,
}

impl FrameWriter {
    /// Goes on behind the end of the file, if it ends in a segment with live bytes; else the first
    /// frame takes a free segment.
    pub(crate) fn new(file: PagesFile, segments: Arc<Segments>, packs: bool) -> Result<FrameWriter, Failure> {
        let file_bytes = file.len()?;
        let resumed = segments.resume(file_bytes);
        let tail = resumed.map(|(segment, used)| Tail { segment, used, written: false });
        let position = Position { tails: [tail, None, None, None, None], united: false, file_bytes };
        let length = AtomicU64::new(file_bytes);
        Ok(FrameWriter {
            file,
            segments,
            packs,
            position: Mutex::new(position),
            spare: Mutex::new(Vec::new()),
            length,
            counts: WrittenCounts::default(),
        })
    }

    /// Begins to collect frames.
    pub(crate) fn batch(&self, purpose: Purpose, stream: Stream) -> Batch<'_> {
        let bytes = self.spare();
        let (packed, pending, done) = (Vec::new(), Vec::new(), Written::default());
        Batch { writer: self, purpose, stream, bytes, packed, pending, done }
    }

    /// Whether pages are packed.
    pub(crate) fn packs(&self) -> bool {
        self.packs
    }

    /// Bytes of memory that are kept for the next batches.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.spare.lock().iter().map(Vec::capacity).sum()
    }

    /// A buffer that was kept, or a new one; empty.
    pub(crate) fn spare(&self) -> Vec<u8> {
        self.spare.lock().pop().unwrap_or_default()
    }

    /// Keeps a buffer for the next who needs one.
    pub(crate) fn keep(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut spare = self.spare.lock();
        if bytes.capacity() > 0 && bytes.capacity() <= SPARE_BYTES_MAX && spare.len() < SPARES_MAX {
            spare.push(bytes);
        }
    }

    /// Makes all streams one, until they are parted again: no segment of another stream stays half
    /// empty.
    pub(crate) fn unite_streams(&self) {
        let mut position = self.position.lock();
        position.united = true;
        for tail in position.tails.iter_mut().skip(1).filter_map(Option::take) {
            self.segments.seal(tail.segment, false);
        }
    }

    /// The end of [`FrameWriter::unite_streams`].
    pub(crate) fn part_streams(&self) {
        self.position.lock().united = false;
    }

    /// Stops filling segments from this one on, which the file is to lose.
    pub(crate) fn leave_segments_from(&self, segment: u64) {
        for place in &mut self.position.lock().tails {
            if let Some(tail) = place.take_if(|tail| u64::from(tail.segment) >= segment) {
                self.segments.seal(tail.segment, false);
            }
        }
    }

    /// The file's length.
    pub(crate) fn file_bytes(&self) -> u64 {
        // Relaxed: a figure that nobody orders anything by.
        self.length.load(Ordering::Relaxed)
    }

    fn set_file_bytes(&self, position: &mut Position, file_bytes: u64) {
        position.file_bytes = file_bytes;
        self.length.store(file_bytes, Ordering::Relaxed);
    }

    /// Makes the next frame start on a new block.
    pub(crate) fn seal_blocks(&self) {
        for tail in self.position.lock().tails.iter_mut().flatten() {
            tail.used = self.file.layout().block_up(tail.used);
        }
    }

    /// Makes every finished batch durable, and safe from later writes.
    pub(crate) fn make_durable(&self, reason: SyncReason) -> Result<(), Failure> {
        self.seal_blocks();
        self.file.sync(reason)
    }

    /// Fills the reserve up with written segments. A store that cannot fill it still works; it may
    /// be unable to checkpoint on a full disk.
    #[cfg_attr(not(test), expect(dead_code, reason = "a full disk is not yet prepared for"))]
    pub(crate) fn ensure_reserve(&self) -> Result<(), Failure> {
        let mut position = self.position.lock();
        let layout = self.file.layout();
        while self.segments.reserve_missing() > 0 {
            let Some(taken) = self.segments.take(1, Choice::Any) else { return Ok(()) };
            let start = layout.segment_start(taken.first);
            let end = start + layout.segment_bytes();
            if let Err(failure) = self.fill(start..end) {
                self.segments.put_back(taken);
                self.give_back(&position, end)?;
                return Err(failure);
            }
            let file_bytes = position.file_bytes.max(end);
            self.set_file_bytes(&mut position, file_bytes);
            self.segments.put_into_reserve(taken);
        }
        Ok(())
    }

    /// Cuts off the free segments at the file's end, but the reserve. Free ones are behind a durable
    /// checkpoint, so nothing that could come back refers to them.
    pub(crate) fn shrink(&self) -> Result<(), Failure> {
        let mut position = self.position.lock();
        let segments = self.segments.cut();
        let mut end = self.file.layout().segment_start(segments);
        if position.united
            && let Some(tail) = position.tails.iter_mut().flatten().find(|tail| tail.segment + 1 == segments)
        {
            // What lies behind the tail is left from an earlier use of its segment.
            let start = self.file.layout().segment_start(tail.segment);
            end = start + self.file.layout().block_up(tail.used);
            tail.written = false;
            self.segments.forget_written(tail.segment);
        }
        if end < position.file_bytes {
            self.file.cut(end)?;
            self.set_file_bytes(&mut position, end);
        }
        Ok(())
    }

    /// Bytes, and segments by state.
    pub(crate) fn stats(&self) -> StoreStats {
        self.segments.stats(self.file_bytes())
    }

    /// Bytes of the frames written so far.
    pub(crate) fn written(&self) -> WrittenBytes {
        self.counts.read()
    }

    fn append(&self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        self.file.check()?;
        let mut position = self.position.lock();
        let stream = self.stream_of(&position, batch.stream);
        let second = match batch.purpose {
            Purpose::Ordinary => Choice::Written,
            Purpose::Checkpoint => Choice::Reserve,
        };
        let growing = match self.append_into(&mut position, batch, stream, Choice::Any) {
            Err(full @ Failure::DiskFull { .. }) => full,
            settled => return settled,
        };
        match self.append_into(&mut position, batch, stream, second) {
            Err(Failure::DiskFull { .. }) => Err(growing),
            settled => settled,
        }
    }

    /// A small store has one stream: the others' segments would be most of it.
    fn stream_of(&self, position: &Position, stream: Stream) -> Stream {
        let parted_from = STREAMS_FROM_SEGMENTS * self.file.layout().segment_bytes();
        match position.united || self.segments.live_bytes() < parted_from {
            true => Stream::Hot,
            false => stream,
        }
    }

    /// Bytes left in the segment that frames of this stream go to.
    pub(crate) fn room(&self, stream: Stream) -> u64 {
        let position = self.position.lock();
        let tail = position.tails[self.stream_of(&position, stream) as usize];
        tail.map_or(0, |tail| self.file.layout().segment_bytes() - tail.used)
    }

    fn append_into(
        &self,
        position: &mut Position,
        batch: &mut Batch<'_>,
        stream: Stream,
        choice: Choice,
    ) -> Result<(), Failure> {
        let frames = batch.pending.iter().map(|frame| frame.bytes.clone());
        let Some(plan) =
            place(self.file.layout(), &self.segments, choice, position.tails[stream as usize], frames)
        else {
            return Err(Failure::DiskFull { path: self.file.path(), needed: batch.bytes.len() as u64 });
        };
        for (frame, offset) in batch.pending.iter().zip(&plan.offsets) {
            self.file.seed().seal(*offset, &mut batch.bytes[frame.bytes.clone()]);
        }
        let end = plan.end();
        if let Err(failure) = self.write(&plan, &batch.bytes) {
            plan.abandon(&self.segments);
            self.give_back(position, end)?;
            return Err(failure);
        }
        self.set_file_bytes(position, position.file_bytes.max(end));
        position.tails[stream as usize] = plan.tail;
        for (frame, offset) in batch.pending.drain(..).zip(&plan.offsets) {
            let addr = FragmentAddr { offset: *offset, len: frame.bytes.len() as u32 };
            let (pid, seq, kind) = (frame.pid, frame.seq, frame.kind);
            self.counts.add(kind, batch.stream, u64::from(addr.len));
            let crc = batch.bytes[frame.bytes].first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc));
            batch.done.holds.push(self.segments.hold(addr)?);
            batch.done.frames.push(WrittenFrame { pid, seq, kind, addr, crc });
        }
        batch.bytes.clear();
        for (segment, written) in plan.sealed {
            self.segments.seal(segment, written);
        }
        Ok(())
    }

    fn write(&self, plan: &Plan, bytes: &[u8]) -> Result<(), Failure> {
        for run in &plan.runs {
            self.file.write(run.offset, &bytes[run.bytes.clone()])?;
        }
        plan.fills.iter().try_for_each(|fill| self.fill(fill.clone()))
    }

    fn fill(&self, range: Range<u64>) -> Result<(), Failure> {
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(ZEROS.len() as u64) as usize;
            self.file.write(offset, &ZEROS[..len])?;
            offset += len as u64;
        }
        Ok(())
    }

    /// Cuts off what a failed write up to `end` may have added to the file.
    fn give_back(&self, position: &Position, end: u64) -> Result<(), Failure> {
        if end > position.file_bytes {
            self.file.cut(position.file_bytes)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Pending {
    bytes: Range<usize>,
    pid: u64,
    seq: PageSeq,
    kind: FrameKind,
}

/// One frame that is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrittenFrame {
    pub(crate) pid: u64,
    pub(crate) seq: PageSeq,
    pub(crate) kind: FrameKind,
    pub(crate) addr: FragmentAddr,
    /// The checksum in its header.
    pub(crate) crc: u32,
}

/// Frames that are in the file and have no owner yet. While this lives their bytes stay: retain
/// what you refer to, then drop it. What nobody retained is dead.
#[derive(Debug, Default)]
#[must_use = "frames that are not retained before this is dropped are lost"]
pub(crate) struct Written {
    frames: Vec<WrittenFrame>,
    holds: Vec<Hold>,
}

impl Written {
    /// In the order they were pushed.
    pub(crate) fn frames(&self) -> &[WrittenFrame] {
        &self.frames
    }
}

/// Frames on their way into the file.
#[derive(Debug)]
pub(crate) struct Batch<'w> {
    writer: &'w FrameWriter,
    purpose: Purpose,
    stream: Stream,
    bytes: Vec<u8>,
    /// Where a payload is packed before it takes the plain one's place.
    packed: Vec<u8>,
    pending: Vec<Pending>,
    done: Written,
}

impl Batch<'_> {
    /// Adds a frame, whose payload `fill` writes into exactly `payload_bytes` zeros. A page is packed then if
    /// the store packs and that makes it shorter.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLarge`], or that of writing the frames before it; then this one was not added.
    pub(crate) fn push(
        &mut self,
        pid: u64,
        seq: PageSeq,
        kind: FrameKind,
        payload_bytes: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Failure> {
        let at = self.room_for(payload_bytes)?;
        fill(&mut self.bytes[at..]);
        let may_pack = self.writer.packs && kind.may_be_packed();
        let packed = may_pack.then(|| pack(&self.bytes[at..], &mut self.packed)).flatten();
        let (codec, payload_bytes) = match packed {
            None => (Codec::Plain, payload_bytes),
            Some(len) => {
                self.bytes[at..at + len].copy_from_slice(&self.packed[..len]);
                self.bytes.truncate(at + len);
                (Codec::Lz4, len)
            }
        };
        self.add(FrameHeader { pid, seq, kind, codec, payload_bytes: payload_bytes as u32 });
        Ok(())
    }

    /// Adds a frame as it was read, packed or not.
    ///
    /// # Errors
    ///
    /// As [`Batch::push`].
    pub(crate) fn push_as_is(&mut self, frame: &Frame) -> Result<(), Failure> {
        let payload = frame.payload();
        let at = self.room_for(payload.len())?;
        self.bytes[at..].copy_from_slice(payload);
        self.add(frame.header());
        Ok(())
    }

    /// Room for a frame's payload, in zeros, behind that for its header; says where it begins.
    fn room_for(&mut self, payload_bytes: usize) -> Result<usize, Failure> {
        if payload_bytes > FRAME_PAYLOAD_BYTES_MAX {
            let (bytes, limit) = (payload_bytes as u64, FRAME_PAYLOAD_BYTES_MAX as u64);
            return Err(Failure::TooLarge { what: "page", bytes, limit, remedy: "split the page" });
        }
        let frame_bytes = FRAME_HEADER_BYTES + payload_bytes;
        // A fill that panicked may have left its bytes behind the last frame.
        self.bytes.truncate(self.pending.last().map_or(0, |frame| frame.bytes.end));
        if !self.bytes.is_empty() && self.bytes.len() + frame_bytes > FLUSH_BYTES {
            self.flush()?;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + frame_bytes, 0);
        Ok(start + FRAME_HEADER_BYTES)
    }

    /// Completes the frame whose payload ends the bytes.
    fn add(&mut self, header: FrameHeader) {
        let end = self.bytes.len();
        let start = end - header.frame_bytes() as usize;
        let head = self.bytes[start..].first_chunk_mut().expect("a frame is longer than its header");
        header.encode(head);
        let FrameHeader { pid, seq, kind, .. } = header;
        self.pending.push(Pending { bytes: start..end, pid, seq, kind });
    }

    /// Writes what is collected if the next frame might make it too much.
    ///
    /// # Errors
    ///
    /// As [`Batch::finish`].
    pub(crate) fn write_if_full(&mut self) -> Result<(), Failure> {
        if self.bytes.len() > FLUSH_BYTES / 4 * 3 { self.flush() } else { Ok(()) }
    }

    /// Bytes of memory that the frames collected so far take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.packed.capacity()
    }

    /// Writes what is collected, and says where all of the batch's frames are. They are durable
    /// after [`FrameWriter::make_durable`].
    ///
    /// # Errors
    ///
    /// [`Failure::DiskFull`] leaves the batch as it was, to be finished again later or dropped.
    pub(crate) fn finish(&mut self) -> Result<Written, Failure> {
        self.flush()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let writer = self.writer;
        writer.append(self)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.writer.keep(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
