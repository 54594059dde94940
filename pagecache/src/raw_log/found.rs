//! Where a record lies, and what a read of it found.

use serde::{Deserialize, Serialize};

use crate::ids::{BlobPointer, LogId, Lsn};

/// Where the bytes of a record lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DiskPtr {
    /// In the record at this offset of the log's file.
    Inline(LogId),
    /// In parts that the record at this offset lists. They exceeded one record, and are named by the position
    /// of the first part.
    Blob(LogId, BlobPointer),
}

impl DiskPtr {
    /// The offset in the log's file.
    #[must_use]
    pub fn lid(&self) -> LogId {
        match self {
            DiskPtr::Inline(lid) | DiskPtr::Blob(lid, _) => *lid,
        }
    }

    /// True if the bytes lie in the record itself.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self, DiskPtr::Inline(_))
    }

    /// True if the bytes lie in parts that the record lists.
    #[must_use]
    pub fn is_blob(&self) -> bool {
        matches!(self, DiskPtr::Blob(..))
    }

    /// The list's offset in the log's file and the blob's name.
    #[must_use]
    pub fn blob(&self) -> Option<(LogId, BlobPointer)> {
        match self {
            DiskPtr::Blob(lid, first) => Some((*lid, *first)),
            DiskPtr::Inline(_) => None,
        }
    }
}

/// What lies at a position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogRead {
    /// A record that counts: its LSN, its bytes, and how many bytes it takes in the file.
    Inline(Lsn, Vec<u8>, usize),
    /// A blob that counts: the LSN of its list, its bytes, and its name.
    Blob(Lsn, Vec<u8>, BlobPointer),
    /// A blob that counts and cannot be read, since a part of it is not what was written: damage. The LSN of
    /// its list and its name.
    DanglingBlob(Lsn, BlobPointer),
    /// A record that was aborted, and how many bytes it takes in the file.
    Failed(Lsn, usize),
    /// What fills a buffer up to a block border.
    Pad(Lsn),
    /// No record of this position: damage, or a position at which none starts. How many bytes were
    /// looked at.
    Corrupted(usize),
}

impl LogRead {
    /// LSN, bytes and length in the file, of a record that counts.
    #[must_use]
    pub fn inline(self) -> Option<(Lsn, Vec<u8>, usize)> {
        match self {
            LogRead::Inline(lsn, bytes, len) => Some((lsn, bytes, len)),
            _ => None,
        }
    }

    /// LSN, bytes and name, of a blob that counts.
    #[must_use]
    pub fn blob(self) -> Option<(Lsn, Vec<u8>, BlobPointer)> {
        match self {
            LogRead::Blob(lsn, bytes, name) => Some((lsn, bytes, name)),
            _ => None,
        }
    }

    /// The bytes of a record or a blob that counts.
    #[must_use]
    pub fn into_data(self) -> Option<Vec<u8>> {
        match self {
            LogRead::Inline(_, bytes, _) | LogRead::Blob(_, bytes, _) => Some(bytes),
            _ => None,
        }
    }

    /// True for a record that counts and holds its bytes itself.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self, LogRead::Inline(..))
    }

    /// True for a blob that counts and is whole.
    #[must_use]
    pub fn is_blob(&self) -> bool {
        matches!(self, LogRead::Blob(..))
    }

    /// True for a record or a whole blob that counts.
    #[must_use]
    pub fn is_successful(&self) -> bool {
        self.is_inline() || self.is_blob()
    }

    /// True for an aborted record.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self, LogRead::Failed(..))
    }

    /// True for what fills a buffer.
    #[must_use]
    pub fn is_pad(&self) -> bool {
        matches!(self, LogRead::Pad(_))
    }

    /// True if no record was found.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, LogRead::Corrupted(_))
    }
}
