//! The names of things: pages, positions in the log, positions in files.

/// A position in the logical log, in bytes. It only grows.
///
/// Every record has the position of its first byte; the order of positions is the order of commits.
pub type Lsn = i64;

/// A byte offset in a file (the seed's name for a physical position).
pub type LogId = u64;

/// The name of a blob in a log that is used alone: the LSN of its first part.
pub type BlobPointer = Lsn;

/// The number of a page. Dense, allocated from 0 upward, reused after a `free`.
pub type PageId = usize;

/// The number of a segment of a file.
pub type SegmentId = usize;

/// How often a page has changed: every link, replace and free adds one. It never restarts for a
/// page id, so a stale copy of a page can always be told from the newest one.
pub(crate) type PageSeq = u64;

/// Largest page id that fits the on-disk formats, plus one.
pub(crate) const PAGE_ID_LIMIT: u64 = 1 << 40;

/// Where a fragment lies in the `pages` file: offset of its frame and the frame's length, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FragmentAddr {
    pub(crate) offset: u64,
    pub(crate) len: u32,
}
