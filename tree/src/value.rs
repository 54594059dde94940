//! [`ValueReader`]: one value, read in pieces, wherever it lives.

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use crate::{Error, IVec, Result, ops::Tended};

/// Reads one value in pieces, each verified before it is returned.
///
/// Made by [`crate::Tree::get_reader`]. It has the value as it was then, whole, whatever is written
/// meanwhile; as long as it lives the file keeps the value's bytes, and the database counts as in use. A
/// whole piece, at most 1 MiB, is read straight into the caller's buffer.
pub struct ValueReader {
    at: u64,
    source: Source,
    /// Nobody closes the database under a reader.
    _pages: Arc<Tended>,
}

enum Source {
    Inline(IVec),
    Apart(pagecache::ValueReader),
}

impl fmt::Debug for ValueReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueReader").field("len", &self.len()).field("at", &self.at).finish_non_exhaustive()
    }
}

impl ValueReader {
    pub(crate) fn inline(pages: Arc<Tended>, value: IVec) -> ValueReader {
        ValueReader { at: 0, source: Source::Inline(value), _pages: pages }
    }

    pub(crate) fn apart(pages: Arc<Tended>, reader: pagecache::ValueReader) -> ValueReader {
        ValueReader { at: 0, source: Source::Apart(reader), _pages: pages }
    }

    /// The value's length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.source {
            Source::Inline(value) => value.len() as u64,
            Source::Apart(reader) => reader.bytes(),
        }
    }

    /// True if the value has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` from byte `at` of the value on; returns how many bytes there were, fewer than asked
    /// for only at the value's end.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`] naming file and offset; [`Error::Io`].
    pub fn read_at(&mut self, at: u64, out: &mut [u8]) -> Result<usize> {
        match &mut self.source {
            Source::Inline(value) => {
                let from = usize::try_from(at).map_or(value.len(), |at| at.min(value.len()));
                let len = out.len().min(value.len() - from);
                out[..len].copy_from_slice(&value[from..from + len]);
                Ok(len)
            }
            Source::Apart(reader) => Ok(reader.read_at(at, out)?),
        }
    }
}

impl Read for ValueReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.read_at(self.at, out).map_err(|error| match error {
            Error::Io(error) => error,
            other if other.is_corruption() => io::Error::new(io::ErrorKind::InvalidData, other),
            other => io::Error::other(other),
        })?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for ValueReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.len(), by),
            SeekFrom::Current(by) => (self.at, by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the value's beginning");
        self.at = from.checked_add_signed(by).ok_or_else(before)?;
        Ok(self.at)
    }
}
