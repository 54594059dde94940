//! Page images in segments: the `pages` file, behind its two superblocks.
//!
//! * [`layout`] says where blocks and segments lie; [`pages`] reads and writes them.
//! * [`superblocks`] creates a store, finds the newest superblock and publishes the next.
//! * [`segments`] counts live bytes and says which segment may be written over, and when.
//! * [`writer`] appends frames, [`placement`] decides where they go.
//! * [`space`] says how long the file may be, and which segments to empty when it is longer.
//! * [`reader`] reads one frame, [`scan`] all of one segment, [`value`] the frames of a large value.
//!
//! What is in a frame, and which frames a page consists of, is the caller's business.

pub(crate) mod layout;
pub(crate) mod pages;
pub(crate) mod placement;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod segments;
pub(crate) mod space;
pub(crate) mod stats;
pub(crate) mod superblocks;
pub(crate) mod table;
pub(crate) mod value;
pub(crate) mod writer;

use std::{path::PathBuf, sync::Arc};

pub use self::stats::WrittenBytes;
use self::{pages::PagesFile, segments::Segments, writer::FrameWriter};
pub(crate) use self::{
    reader::Frame,
    scan::Found,
    segments::{Mark, Pin},
    space::Due,
    stats::StoreStats,
    value::{Extent, ValueFrames},
    writer::{Batch, Purpose, Stream, WrittenFrame},
};
use crate::{
    error::Failure,
    ids::{FragmentAddr, PageSeq},
    io::SyncReason,
    sync::AtomicBool,
};

/// An open `pages` file: frames by address, live bytes by segment.
#[derive(Debug)]
pub(crate) struct Store {
    file: PagesFile,
    segments: Arc<Segments>,
    writer: FrameWriter,
    /// Whether garbage is moved together while the store runs.
    cleaning: bool,
    /// The file is as long as it may be, or nearly: see [`space`].
    tight: AtomicBool,
}

impl Store {
    /// Opens the file for writing; `live` says how many live bytes lie in which segment, but for the
    /// directory's frame.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] if that cannot be.
    pub(crate) fn new(
        file: PagesFile,
        live: &[(u32, u32)],
        directory: Option<FragmentAddr>,
        cleaning: bool,
        packs: bool,
    ) -> Result<Store, Failure> {
        let segments = Segments::rebuild_counted(file.layout(), file.path(), 0, live, file.len()?)?;
        directory.map_or(Ok(()), |addr| segments.retain(addr))?;
        let segments = Arc::new(segments);
        let writer = FrameWriter::new(file.clone(), segments.clone(), packs)?;
        Ok(Store { file, segments, writer, cleaning, tight: AtomicBool::new(false) })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.file.path()
    }

    /// Keeps a frame in its place while it is read.
    pub(crate) fn pin(&self, addr: FragmentAddr) -> Result<Pin, Failure> {
        self.segments.pin(addr)
    }

    /// Reads a pinned frame.
    pub(crate) fn read(&self, pin: &Pin, pid: u64, seq: Option<PageSeq>) -> Result<Frame, Failure> {
        self.file.read_pinned(pin, pid, seq)
    }

    /// As [`Store::read`], but a packed payload stays packed.
    pub(crate) fn read_as_is(&self, pin: &Pin, pid: u64) -> Result<Frame, Failure> {
        self.file.read_pinned_as_is(pin, pid)
    }

    /// Whether pages are packed as they are written.
    pub(crate) fn packs(&self) -> bool {
        self.writer.packs()
    }

    /// As [`Store::read`], if no device has to be waited for; `None` if that may be.
    pub(crate) fn read_at_once(&self, pin: &Pin, pid: u64) -> Result<Option<Frame>, Failure> {
        self.file.read_pinned_at_once(pin, pid)
    }

    pub(crate) fn retain(&self, addr: FragmentAddr) -> Result<(), Failure> {
        self.segments.retain(addr)
    }

    pub(crate) fn release(&self, addr: FragmentAddr) {
        self.segments.release(addr);
    }

    /// Releases what the checkpoint of `mark` itself supersedes.
    pub(crate) fn release_under(&self, addr: FragmentAddr, mark: Mark) {
        self.segments.release_under(addr, mark);
    }

    /// Counts what nothing names yet as live.
    pub(crate) fn retain_unnamed(&self, addr: FragmentAddr) -> Result<(), Failure> {
        self.segments.retain_unnamed(addr)
    }

    /// Says that the list of map changes names a frame from now on.
    pub(crate) fn name(&self, addr: FragmentAddr) {
        self.segments.name(addr);
    }

    /// Releases what was never named by a superblock, a map entry or a record that counts.
    pub(crate) fn release_unnamed(&self, addr: FragmentAddr) {
        self.segments.release_unnamed(addr);
    }

    /// The moment at which a checkpoint fixes its prefix.
    pub(crate) fn mark(&self) -> Mark {
        self.segments.mark()
    }

    /// The checkpoint of `mark` is durable in both superblocks.
    pub(crate) fn published(&self, mark: Mark) {
        self.segments.published(mark);
    }

    pub(crate) fn batch(&self, purpose: Purpose, stream: Stream) -> Batch<'_> {
        self.writer.batch(purpose, stream)
    }

    /// Bytes of memory that are kept for the next batches.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.writer.spare_bytes()
    }

    /// Makes every finished batch durable, and safe from later writes.
    pub(crate) fn make_durable(&self, reason: SyncReason) -> Result<(), Failure> {
        self.writer.make_durable(reason)
    }

    /// Gives free segments at the file's end back.
    pub(crate) fn shrink(&self) -> Result<(), Failure> {
        self.writer.shrink()
    }

    /// As [`Store::shrink`], after leaving the segments from that of `offset` on as they are, though they
    /// may not be full.
    pub(crate) fn shrink_from(&self, offset: u64) -> Result<(), Failure> {
        let layout = self.file.layout();
        let data = offset.saturating_sub(layout.data_start());
        self.writer.leave_segments_from(data / layout.segment_bytes());
        self.writer.shrink()
    }

    pub(crate) fn stats(&self) -> StoreStats {
        self.writer.stats()
    }

    /// Bytes of the frames written so far.
    pub(crate) fn written(&self) -> WrittenBytes {
        self.writer.written()
    }

    /// The frames that start in a segment.
    pub(crate) fn scan(&self, segment: u32) -> Result<Vec<Found>, Failure> {
        let mut bytes = self.writer.spare();
        let found = self.file.scan(segment, &mut bytes);
        self.writer.keep(bytes);
        found
    }

    /// Makes all streams one while `work` runs, so that the file can become as small as may be.
    pub(crate) fn united<T>(&self, work: impl FnOnce() -> T) -> T {
        self.writer.unite_streams();
        let outcome = work();
        self.writer.part_streams();
        outcome
    }

    /// Segments with live bytes, ascending, and how many: see [`Segments::live_table`].
    pub(crate) fn live_table(&self) -> Vec<(u32, u32)> {
        self.segments.live_table()
    }

    /// The segments that a frame touches and how many of its bytes lie in each, for recounting.
    pub(crate) fn bytes_by_segment(&self, addr: FragmentAddr) -> Result<Vec<(u32, u64)>, Failure> {
        let layout = self.file.layout();
        let touched = layout.segments_of(addr).map_err(|why| self.file.corrupt(addr.offset, why))?;
        Ok(touched.map(|segment| (segment, layout.bytes_in(addr, segment))).collect())
    }
}

#[cfg(test)]
mod testdisk;
