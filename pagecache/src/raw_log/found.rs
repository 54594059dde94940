//! Where a record lies, and what a read of it found.

use serde::{Deserialize, Serialize};

use crate::ids::{LogId, Lsn};

/// Where the bytes of a record lie.
///
/// Large values have no file of their own here, so there is no second variant yet; match with a
/// wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DiskPtr {
    /// In the log itself, at this offset of its file.
    Inline(LogId),
}

impl DiskPtr {
    /// The offset in the log's file.
    #[must_use]
    pub fn lid(&self) -> LogId {
        match self {
            DiskPtr::Inline(lid) => *lid,
        }
    }

    /// True if the bytes lie in the log itself.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self, DiskPtr::Inline(_))
    }
}

/// What lies at a position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogRead {
    /// A record that counts: its LSN, its bytes, and how many bytes it takes in the file.
    Inline(Lsn, Vec<u8>, usize),
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

    /// The record's bytes, if it counts.
    #[must_use]
    pub fn into_data(self) -> Option<Vec<u8>> {
        self.inline().map(|(_, bytes, _)| bytes)
    }

    /// True for a record that counts and lies in the log itself.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self, LogRead::Inline(..))
    }

    /// True for a record that counts.
    #[must_use]
    pub fn is_successful(&self) -> bool {
        self.is_inline()
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
