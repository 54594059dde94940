//! Page images in segments: the `pages` file, behind its two superblocks.
//!
//! * [`layout`] says where blocks and segments lie; [`pages`] reads and writes them.
//! * [`superblocks`] creates a store, finds the newest superblock and publishes the next.
//! * [`segments`] counts live bytes and says which segment may be written over, and when.
//! * [`writer`] appends frames, [`placement`] decides where they go.
//! * [`reader`] reads one frame, [`scan`] all of one segment.
//!
//! What is in a frame, and which frames a page consists of, is the caller's business.

pub(crate) mod layout;
pub(crate) mod pages;
pub(crate) mod placement;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod segments;
pub(crate) mod stats;
pub(crate) mod superblocks;
pub(crate) mod table;
pub(crate) mod writer;

use std::{path::PathBuf, sync::Arc};

use self::{pages::PagesFile, segments::Segments, writer::FrameWriter};
pub(crate) use self::{
    reader::Frame,
    scan::Found,
    segments::{Mark, Pin},
    stats::StoreStats,
    writer::{Batch, Purpose, WrittenFrame},
};
use crate::{
    error::Failure,
    ids::{FragmentAddr, PageSeq},
};

/// A segment with less than this share of live bytes, in percent, is worth emptying at close.
const SPARSE_PERCENT: u64 = 85;

/// An open `pages` file: frames by address, live bytes by segment.
#[derive(Debug)]
pub(crate) struct Store {
    file: PagesFile,
    segments: Arc<Segments>,
    writer: FrameWriter,
}

impl Store {
    /// Opens the file for writing; `live` are the frames that the newest superblock leads to.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] naming an address where no frame can lie.
    pub(crate) fn new(
        file: PagesFile,
        live: impl IntoIterator<Item = FragmentAddr>,
    ) -> Result<Store, Failure> {
        let segments = Arc::new(Segments::rebuild(file.layout(), file.path(), 0, live, file.len()?)?);
        let writer = FrameWriter::new(file.clone(), segments.clone())?;
        Ok(Store { file, segments, writer })
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

    /// The moment at which a checkpoint fixes its prefix.
    pub(crate) fn mark(&self) -> Mark {
        self.segments.mark()
    }

    /// The checkpoint of `mark` is durable in both superblocks.
    pub(crate) fn published(&self, mark: Mark) {
        self.segments.published(mark);
    }

    pub(crate) fn batch(&self, purpose: Purpose) -> Batch<'_> {
        self.writer.batch(purpose)
    }

    /// Makes every finished batch durable, and safe from later writes.
    pub(crate) fn make_durable(&self) -> Result<(), Failure> {
        self.writer.make_durable()
    }

    /// Gives free segments at the file's end back.
    pub(crate) fn shrink(&self) -> Result<(), Failure> {
        self.writer.shrink()
    }

    pub(crate) fn stats(&self) -> StoreStats {
        self.writer.stats()
    }

    /// The frames to move so that the file comes within `slack_percent` of its live bytes: those of
    /// sparse segments, and those beyond the length it should have. None if it is there already.
    pub(crate) fn frames_to_move(&self, slack_percent: u64) -> Result<Vec<Found>, Failure> {
        let stats = self.stats();
        let layout = self.file.layout();
        let occupied = stats.file_bytes.saturating_sub(layout.data_start());
        let target = stats.live_bytes + stats.live_bytes * slack_percent / 100;
        let mut frames = Vec::new();
        if occupied <= target + 2 * layout.block_bytes() {
            return Ok(frames);
        }
        let segments_wanted = target.div_ceil(layout.segment_bytes());
        for sealed in self.segments.sealed() {
            let is_sparse = sealed.live_bytes * 100 < layout.segment_bytes() * SPARSE_PERCENT;
            if is_sparse || u64::from(sealed.segment) >= segments_wanted {
                frames.extend(self.file.scan(sealed.segment)?);
            }
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod testdisk;
