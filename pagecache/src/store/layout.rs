//! Where blocks and segments of the `pages` file lie: arithmetic only.
//!
//! ```text
//! slot 0 | slot 1 | segment 0 | segment 1 | ...
//! ```
//!
//! A slot is one block; segment 0 starts right behind both.
//!
//! * A frame lies inside one segment, or it is longer than one: then it starts at the start of a
//!   segment and runs through the whole ones that follow, and nothing precedes it in its last.

use std::ops::Range;

use crate::{
    error::DecodeError,
    format::{frame::FRAME_HEADER_BYTES, superblock::Geometry},
    ids::FragmentAddr,
};

/// Sizes of the `pages` file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    block_bytes: u64,
    segment_bytes: u64,
}

impl Layout {
    /// The layout of a geometry that was checked.
    pub(crate) fn new(geometry: &Geometry) -> Layout {
        Layout {
            block_bytes: u64::from(geometry.block_bytes),
            segment_bytes: u64::from(geometry.store_segment_bytes),
        }
    }

    /// Length of a segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Length of a block.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Where segment 0 starts.
    pub(crate) fn data_start(&self) -> u64 {
        2 * self.block_bytes
    }

    /// Where the segment starts.
    pub(crate) fn segment_start(&self, segment: u32) -> u64 {
        self.data_start() + u64::from(segment) * self.segment_bytes
    }

    /// The next multiple of a block, counted from a segment's start.
    pub(crate) fn block_up(&self, in_segment: u64) -> u64 {
        in_segment.next_multiple_of(self.block_bytes)
    }

    /// How many segments a file of `file_bytes` reaches into.
    pub(crate) fn segments_in(&self, file_bytes: u64) -> u32 {
        let segments = file_bytes.saturating_sub(self.data_start()).div_ceil(self.segment_bytes);
        u32::try_from(segments).unwrap_or(u32::MAX)
    }

    /// How many segments a frame of `len` bytes takes.
    pub(crate) fn span(&self, len: u64) -> u32 {
        u32::try_from(len.div_ceil(self.segment_bytes)).expect("a frame's length has 32 bits")
    }

    /// The segments that the frame touches.
    ///
    /// # Errors
    ///
    /// If no frame can lie there.
    pub(crate) fn segments_of(&self, addr: FragmentAddr) -> Result<Range<u32>, DecodeError> {
        let FragmentAddr { offset, len } = addr;
        let nowhere = |why: &str| DecodeError(format!("no frame of {len} bytes can lie here: {why}"));
        if (len as usize) < FRAME_HEADER_BYTES {
            return Err(nowhere("it is shorter than a header"));
        }
        let Some(data) = offset.checked_sub(self.data_start()) else {
            return Err(nowhere("the superblocks do"));
        };
        let within = data % self.segment_bytes;
        if within != 0 && within + u64::from(len) > self.segment_bytes {
            return Err(nowhere("it would straddle two segments"));
        }
        let first = u32::try_from(data / self.segment_bytes).map_err(|_| nowhere("no file is that long"))?;
        let end =
            first.checked_add(self.span(u64::from(len))).ok_or_else(|| nowhere("no file is that long"))?;
        Ok(first..end)
    }

    /// How many of the frame's bytes lie in `segment`, one of those it touches.
    pub(crate) fn bytes_in(&self, addr: FragmentAddr, segment: u32) -> u64 {
        let start = self.segment_start(segment).max(addr.offset);
        let end = (self.segment_start(segment) + self.segment_bytes).min(addr.offset + u64::from(addr.len));
        end.saturating_sub(start)
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;
    use crate::{format::superblock::Geometry, ids::FragmentAddr};

    fn layout() -> Layout {
        Layout::new(&Geometry { block_bytes: 512, log_segment_bytes: 512, store_segment_bytes: 2048 })
    }

    #[test]
    fn a_frame_touches_the_segments_that_hold_its_bytes() {
        for (name, offset, len, want) in [
            ("in the superblocks", 1023, 24, None),
            ("shorter than a header", 1024, 23, None),
            ("at the start", 1024, 24, Some(0..1)),
            ("a whole segment", 1024, 2048, Some(0..1)),
            ("up to the end", 1024 + 2000, 48, Some(0..1)),
            ("straddling", 1024 + 2000, 49, None),
            ("a run", 1024 + 2048, 2049, Some(1..3)),
            ("a run that starts late", 1024 + 512, 2049, None),
            ("far away", u64::MAX - 10, 24, None),
        ] {
            let addr = FragmentAddr { offset, len };
            assert_eq!(layout().segments_of(addr).ok(), want, "{name}");
            if let Some(touched) = want {
                let sum: u64 = touched.map(|n| layout().bytes_in(addr, n)).sum();
                assert_eq!(sum, u64::from(len), "{name}");
            }
        }
    }

    #[test]
    fn a_file_reaches_into_the_segment_it_ends_in() {
        for (file_bytes, want) in [(0, 0), (1024, 0), (1025, 1), (1024 + 2048, 1), (1024 + 2049, 2)] {
            assert_eq!(layout().segments_in(file_bytes), want, "{file_bytes}");
        }
    }
}
