//! Reading a large value: frame by frame, each verified whole before a byte of it is returned, against the checksum
//! that the value's list has for it too.
//!
//! The frames' segments are pinned for as long as the reader lives, so it has the whole value though it be freed
//! or moved meanwhile (STORE-4, APART-2). How values are cut into frames is here as well; who writes them is
//! elsewhere.

use std::fmt;

use crate::{
    error::{DecodeError, Failure},
    format::{
        frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind},
        value,
    },
    ids::PageSeq,
    store::{Store, pages::PagesFile, segments::Pin},
};

/// Part of a segment that a piece of a value has at least where a value is cut. What cannot be cut is
/// less than twice that, so no segment has more room left than it.
const PIECE_DIVISOR: u64 = 64;

/// A frame of a value, kept in its place.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) pin: Pin,
    pub(crate) crc: u32,
}

impl Extent {
    fn payload_bytes(&self) -> u64 {
        value::Extent { addr: self.pin.addr(), crc: self.crc }.payload_bytes()
    }
}

/// A value's frames, kept in their places for as long as this lives.
pub(crate) struct ValueFrames {
    file: PagesFile,
    pid: u64,
    seq: PageSeq,
    extents: Vec<Extent>,
    /// Where in the value each extent begins, and where the last one ends.
    starts: Vec<u64>,
}

impl fmt::Debug for ValueFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueFrames").field("pid", &self.pid).field("bytes", &self.bytes()).finish()
    }
}

impl ValueFrames {
    /// Bytes of the value.
    pub(crate) fn bytes(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The frame with byte `at` of the value, and where it begins in the value. `None` at the end.
    pub(crate) fn frame_at(&self, at: u64) -> Option<(usize, u64)> {
        let index = self.starts.partition_point(|start| *start <= at).checked_sub(1)?;
        (index < self.extents.len()).then(|| (index, self.starts[index]))
    }

    /// Bytes of the value in one frame.
    pub(crate) fn frame_bytes(&self, index: usize) -> usize {
        self.extents[index].payload_bytes() as usize
    }

    /// Reads a frame's payload into `out`, which is as long.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] naming the frame's place; `out` then holds nothing to be used.
    pub(crate) fn read_frame(&self, index: usize, out: &mut [u8]) -> Result<(), Failure> {
        let extent = &self.extents[index];
        let offset = extent.pin.addr().offset;
        let corrupt = |why: String| self.file.corrupt(offset, DecodeError(why));
        let mut head = [0; FRAME_HEADER_BYTES];
        self.file.read(offset, &mut head)?;
        self.file.read(offset + FRAME_HEADER_BYTES as u64, out)?;
        let header =
            self.file.seed().open_parts(offset, &head, out).map_err(|why| self.file.corrupt(offset, why))?;
        let FrameHeader { pid, seq, kind, .. } = header;
        if (pid, seq, kind) != (self.pid, self.seq, FrameKind::Value) {
            return Err(corrupt(format!(
                "a frame of kind {kind:?} of page {pid} at change {seq} where the value of page {} at change {} should be",
                self.pid, self.seq
            )));
        }
        let found = head.first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc));
        if found != extent.crc {
            return Err(corrupt(format!("another value of page {pid}: {found:08x}, not {:08x}", extent.crc)));
        }
        Ok(())
    }
}

impl Store {
    /// A value's frames, once they are pinned.
    pub(crate) fn value_frames(&self, pid: u64, seq: PageSeq, extents: Vec<Extent>) -> ValueFrames {
        let mut starts = vec![0];
        let mut end = 0;
        for extent in &extents {
            end += extent.payload_bytes();
            starts.push(end);
        }
        ValueFrames { file: self.file.clone(), pid, seq, extents, starts }
    }

    /// How many of so many bytes of a value its next frame should have, so that segments become full: all,
    /// if they fit the segment that values go to, or else as many as do. A hint: the room may be somebody
    /// else's by the time of the write.
    pub(crate) fn value_piece(&self, bytes: u64) -> u64 {
        let header = FRAME_HEADER_BYTES as u64;
        let segment = self.segment_bytes();
        let room = self.writer.room(super::Stream::Values).saturating_sub(header);
        if bytes <= room {
            return bytes;
        }
        let least = segment / PIECE_DIVISOR;
        let cut = room.min(bytes.saturating_sub(least));
        if cut >= least { cut } else { bytes.min(segment - header) }
    }

    /// Bytes of a segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.file.layout().segment_bytes()
    }
}
