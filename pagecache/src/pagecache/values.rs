//! Large values: plain bytes that are a page of their own, written ahead of the batch that names them.
//!
//! ```text
//! write_value ─► sync_values ─► Batch::adopt ─► commit         open_value ─► ValueReader
//! ```
//!
//! Neither writing nor reading charges the memory for pages: at most one frame of a value, a segment
//! of the `pages` file, is in memory at a time, unless the value is asked for whole.
//!
//! Why a value is durable before a record names it, and is the right one when it is read, is told in
//! [`crate::cache`] (VALUE-1 to VALUE-3) and in the store (STORE-4).

use std::{fmt, io::Read, sync::Arc};

use super::{PageCache, shared::Shared};
use crate::{
    cache::{self, WrittenValue},
    error::Failure,
    format::value::VALUE_BYTES_MAX,
    ids::PageId,
    materializer::Materializer,
    store::ValueFrames,
};

/// Part of the memory for pages that one value may take when it is read whole.
const WHOLE_DIVISOR: usize = 4;

/// A large value: its page, and the change of that page that made it. No two values ever share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ValueId {
    /// The page.
    pub pid: PageId,
    /// The change.
    pub seq: u64,
}

/// A value whose bytes are in the file and may be lost in a crash: see [`PageCache::sync_values`].
pub struct UnsyncedValue<'c, PM: Materializer>(WrittenValue<'c, PM>);

/// A value whose bytes are durable, to be named by a batch: see [`Batch::adopt`](super::Batch::adopt).
///
/// A clone is a handle to the same one. Dropped before a batch that adopts it has committed, it gives
/// its bytes back.
pub struct NewValue<'c, PM: Materializer>(pub(super) Arc<cache::NewValue<'c, PM>>);

impl<PM: Materializer> Clone for NewValue<'_, PM> {
    fn clone(&self) -> Self {
        NewValue(self.0.clone())
    }
}

impl<PM: Materializer> fmt::Debug for UnsyncedValue<'_, PM> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsyncedValue").finish_non_exhaustive()
    }
}

impl<PM: Materializer> fmt::Debug for NewValue<'_, PM> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NewValue").field(&self.id()).finish()
    }
}

impl<PM: Materializer> NewValue<'_, PM> {
    /// What it is called from the commit on.
    #[must_use]
    pub fn id(&self) -> ValueId {
        ValueId { pid: self.0.pid(), seq: self.0.seq() }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.extents().bytes()
    }
}

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// Bytes of the longest value.
    pub const VALUE_BYTES_MAX: u64 = VALUE_BYTES_MAX;

    /// Writes the next `bytes` of `source` as a large value, once and in pieces. Nothing names it yet.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLarge`] above [`PageCache::VALUE_BYTES_MAX`]; [`Failure::Io`] if `source` fails or
    /// ends early; [`Failure::DiskFull`]. What was written is given back then.
    pub fn write_value(
        &self,
        bytes: u64,
        source: &mut dyn Read,
    ) -> std::result::Result<UnsyncedValue<'_, PM>, Failure> {
        let shared: &Shared<PM> = &self.shared;
        shared.cache.poison.check()?;
        Ok(UnsyncedValue(shared.cache.write_value(bytes, source, || shared.make_room_for_value())?))
    }

    /// Makes values durable, with one sync for all, so that a batch may name them.
    ///
    /// # Errors
    ///
    /// [`Failure::Poisoned`] if the device refused.
    pub fn sync_values<'c>(
        &'c self,
        written: Vec<UnsyncedValue<'c, PM>>,
    ) -> std::result::Result<Vec<NewValue<'c, PM>>, Failure> {
        let written = written.into_iter().map(|UnsyncedValue(value)| value).collect();
        let values = self.shared.cache.sync_values(written)?;
        Ok(values.into_iter().map(|value| NewValue(Arc::new(value))).collect())
    }

    /// The bytes of a value. `None` if it is gone: freed, or never adopted.
    ///
    /// The reader has the whole value, whatever becomes of its page meanwhile; the file keeps its
    /// bytes for as long as the reader lives.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] if the value lies where none can.
    pub fn open_value(&self, value: ValueId) -> std::result::Result<Option<ValueReader>, Failure> {
        let frames = self.shared.cache.value_frames(value.pid, value.seq)?;
        Ok(frames.map(|frames| ValueReader { frames, loaded: None }))
    }

    /// Bytes of the longest value that is read whole into memory of its own: a quarter of the memory budget,
    /// but what fits one record always. Longer ones are read in pieces, or into memory of the
    /// caller's.
    #[must_use]
    pub fn whole_value_bytes_max(&self) -> u64 {
        (self.shared.cache.budget.bytes() / WHOLE_DIVISOR).max(self.shared.log.max_payload()) as u64
    }
}

/// Reads one value, verified piece by piece.
#[derive(Debug)]
pub struct ValueReader {
    frames: ValueFrames,
    /// The frame that was read last where a caller wanted a part of it.
    loaded: Option<(usize, Vec<u8>)>,
}

impl ValueReader {
    /// The value's length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.frames.bytes()
    }

    /// Fills `out` from byte `at` of the value on; returns how many bytes there were. Whole frames are
    /// read straight into `out`.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] naming the place, [`Failure::Io`].
    pub fn read_at(&mut self, at: u64, out: &mut [u8]) -> std::result::Result<usize, Failure> {
        let mut done = 0;
        while done < out.len() {
            let Some((index, start)) = self.frames.frame_at(at.saturating_add(done as u64)) else { break };
            let left = &mut out[done..];
            let skipped = (at + done as u64 - start) as usize;
            let len = self.frames.frame_bytes(index);
            if skipped == 0 && left.len() >= len {
                self.frames.read_frame(index, &mut left[..len])?;
                done += len;
            } else {
                let part = &self.load(index)?[skipped..];
                let len = part.len().min(left.len());
                left[..len].copy_from_slice(&part[..len]);
                done += len;
            }
        }
        Ok(done)
    }

    fn load(&mut self, index: usize) -> std::result::Result<&[u8], Failure> {
        let (at, mut bytes) = self.loaded.take().unwrap_or((usize::MAX, Vec::new()));
        if at != index {
            bytes.resize(self.frames.frame_bytes(index), 0);
            self.frames.read_frame(index, &mut bytes)?;
        }
        Ok(&self.loaded.insert((index, bytes)).1)
    }

    /// The whole value.
    ///
    /// # Errors
    ///
    /// As [`ValueReader::read_at`].
    pub fn read_all(&mut self) -> std::result::Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; self.bytes() as usize];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(all(test, not(loom)))]
#[path = "values_tests.rs"]
mod tests;
