//! Reading bytes of a tail again, by their positions, after it was scanned.
//!
//! A place is good until the log is released beyond it. Nothing is checked here: who reads has the checksum of
//! what it wants (REPLAY-1).

use std::{fmt, io, sync::Arc};

use crate::{
    error::Failure,
    ids::Lsn,
    io::{FileId, Storage},
};

/// Where the segments of a tail lie.
pub(crate) struct TailReader {
    disk: Arc<dyn Storage>,
    segment_bytes: u64,
    /// By first LSN, ascending.
    slots: Vec<(Lsn, u64)>,
}

impl fmt::Debug for TailReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TailReader").field("segments", &self.slots.len()).finish_non_exhaustive()
    }
}

impl TailReader {
    pub(super) fn new(disk: Arc<dyn Storage>, segment_bytes: u64, slots: Vec<(Lsn, u64)>) -> TailReader {
        TailReader { disk, segment_bytes, slots }
    }

    /// The file offset of a position of the tail; `None` for another.
    fn offset(&self, at: Lsn) -> Option<u64> {
        let next = self.slots.partition_point(|(first, _)| *first <= at);
        let (first, slot) = self.slots[..next].last()?;
        let within = (at - first).unsigned_abs();
        (within < self.segment_bytes).then(|| slot * self.segment_bytes + within)
    }

    /// Fills `out` with the bytes from `at` on, all of one segment; what the file does not hold is zero, as it
    /// was for who found the tail.
    pub(crate) fn read(&self, at: Lsn, out: &mut [u8]) -> Result<(), Failure> {
        let Some(offset) = self.offset(at) else {
            return Err(self.corrupt(at, format!("position {at} is not in the log's tail")));
        };
        let read = match self.disk.read_at(FileId::Log, offset, out) {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => self.read_to_end(offset, out),
            outcome => outcome,
        };
        read.map_err(|e| Failure::from_io("reading the log", self.disk.path(FileId::Log), offset, 0, e))
    }

    fn read_to_end(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let held = self.disk.len(FileId::Log)?.saturating_sub(offset).min(out.len() as u64) as usize;
        out[held..].fill(0);
        self.disk.read_at(FileId::Log, offset, &mut out[..held])
    }

    /// Damage at a position of the tail.
    pub(crate) fn corrupt(&self, at: Lsn, found: String) -> Failure {
        let offset = self.offset(at).unwrap_or(0);
        Failure::Corrupt { found, path: self.disk.path(FileId::Log), offset }
    }
}
