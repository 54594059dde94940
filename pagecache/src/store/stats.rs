//! What the `pages` file holds, and what was written to it, in numbers.

use crate::{
    format::frame::FrameKind,
    store::writer::Stream,
    sync::{AtomicU64, Ordering},
};

/// Bytes and segments of the `pages` file at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreStats {
    /// The file's length.
    pub(crate) file_bytes: u64,
    /// Bytes of frames that something refers to.
    pub(crate) live_bytes: u64,
    /// Segments inside the file that may be written.
    pub(crate) free: u64,
    /// Segments that are being appended to.
    pub(crate) active: u64,
    /// Segments with live bytes.
    pub(crate) sealed: u64,
    /// Empty segments that wait for a checkpoint or a reader.
    pub(crate) dead: u64,
    /// Segments whose count fell below zero, which are kept until the next open.
    pub(crate) miscounted: u64,
}

/// Bytes of frames written to the `pages` file since the store was opened, by what they were written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenBytes {
    /// Whole pages.
    pub images: u64,
    /// What changed of pages.
    pub delta_pages: u64,
    /// Pages, changes and pieces of values that were moved out of segments with little else.
    pub moved: u64,
    /// Pieces of large values.
    pub values: u64,
    /// The page table and its directory.
    pub table: u64,
}

impl WrittenBytes {
    /// Each figure by its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("images", self.images),
            ("delta_pages", self.delta_pages),
            ("moved", self.moved),
            ("values", self.values),
            ("table", self.table),
        ]
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, bytes)| bytes).sum()
    }
}

/// [`WrittenBytes`] as they are counted.
#[derive(Debug, Default)]
pub(super) struct WrittenCounts {
    images: AtomicU64,
    delta_pages: AtomicU64,
    moved: AtomicU64,
    values: AtomicU64,
    table: AtomicU64,
}

impl WrittenCounts {
    pub(super) fn add(&self, kind: FrameKind, stream: Stream, bytes: u64) {
        let count = match (stream, kind) {
            (Stream::Survivors, _) => &self.moved,
            (_, FrameKind::Image) => &self.images,
            (_, FrameKind::DeltaPage) => &self.delta_pages,
            (_, FrameKind::Value) => &self.values,
            (_, FrameKind::MapPage | FrameKind::Directory | FrameKind::MapIndex | FrameKind::MapChanges) => {
                &self.table
            }
        };
        // Relaxed: sums that nobody orders anything by.
        count.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> WrittenBytes {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WrittenBytes {
            images: now(&self.images),
            delta_pages: now(&self.delta_pages),
            moved: now(&self.moved),
            values: now(&self.values),
            table: now(&self.table),
        }
    }
}
