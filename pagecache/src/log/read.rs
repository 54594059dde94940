//! Reading records of an open log back from its file.
//!
//! Each record is checked on its own: under its epoch's salt and at its own LSN it is whole, or it is
//! none (LOG-1). A walk goes on from segment to segment and knows where each must end, so what was
//! stable when it began is read to the last byte or is reported as damage.
//!
//! The salts are the caller's to keep. Nothing here waits for a reservation: what is read must have
//! been written before.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::Log;
use crate::error::Failure;
use crate::format::record::{Decoded, HEADER_BYTES, Seed, decode, record_bytes};
use crate::format::segment::SegmentHeader;
use crate::ids::{Lsn, PageId};
use crate::io::FileId;

/// What lies at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record that counts: its page and its payload.
    Record { pid: PageId, payload: Vec<u8> },
    /// A record that was given up, header and payload this long.
    Failed(usize),
    /// The end of a buffer.
    Pad,
    /// No record of this position, as long as its header says.
    Invalid(usize),
}

/// Reads under a list of (from LSN, salt) pairs.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    salts: Vec<(Lsn, u64)>,
}

impl Reader {
    pub(crate) fn new(salts: Vec<(Lsn, u64)>) -> Reader {
        Reader { salts }
    }

    fn salt(&self, lsn: Lsn) -> Option<u64> {
        self.salts.iter().rev().find(|(from, _)| *from <= lsn).map(|(_, salt)| *salt)
    }

    /// The record at `lsn`, which should lie at `offset` of the file.
    pub(crate) fn record(&self, log: &Log, lsn: Lsn, offset: u64) -> Result<Found, Failure> {
        let segment_bytes = log.geometry.segment_bytes;
        let within = (lsn - log.segment_of(lsn)) as usize;
        let left = segment_bytes - within;
        let Some(seed) = self.salt(lsn).map(Seed::new) else { return Ok(Found::Invalid(0)) };
        let mut bytes = vec![0; left.min(HEADER_BYTES)];
        log.read_bytes(offset, &mut bytes)?;
        let len = record_bytes(&bytes).filter(|len| *len <= left);
        let Some(len) = len else { return Ok(Found::Invalid(bytes.len())) };
        bytes.resize(len, 0);
        let (_, payload) = bytes.split_at_mut(HEADER_BYTES);
        log.read_bytes(offset + HEADER_BYTES as u64, payload)?;
        Ok(match decode(&seed, lsn, &bytes) {
            Ok(Decoded::Record { head, payload }) => {
                Found::Record { pid: head.pid, payload: payload.to_vec() }
            }
            Ok(Decoded::Failed { bytes }) => Found::Failed(bytes),
            Ok(Decoded::Pad { .. }) => Found::Pad,
            Err(_) => Found::Invalid(len),
        })
    }
}

/// A record met on a walk.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) lsn: Lsn,
    pub(crate) offset: u64,
    pub(crate) pid: PageId,
    pub(crate) payload: Vec<u8>,
}

/// Goes over the records from one position to another.
#[derive(Debug)]
pub(crate) struct Walk {
    reader: Reader,
    from: Lsn,
    /// Stable when the walk began: all below reads back.
    until: Lsn,
    /// Segments still to read: first LSN and slot.
    ahead: VecDeque<(Lsn, u64)>,
    at: Option<Loaded>,
}

/// A segment that is being walked.
#[derive(Debug)]
struct Loaded {
    first: Lsn,
    slot: u64,
    bytes: Vec<u8>,
    at: usize,
    /// Where its records end.
    end: usize,
    seed: Seed,
}

impl Walk {
    /// From the first record at or above `from` to what is stable now.
    pub(crate) fn new(log: &Log, reader: Reader, from: Lsn) -> Walk {
        let until = log.stable();
        let segment_bytes = log.geometry.segment_bytes as Lsn;
        let needed = |first: Lsn| first < until && first > from.saturating_sub(segment_bytes);
        let ahead = log.segments.live().into_iter().filter(|(first, _)| needed(*first)).collect();
        Walk { reader, from, until, ahead, at: None }
    }

    /// Reads single records under the same salts.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The next record that counts.
    pub(crate) fn next(&mut self, log: &Log) -> Result<Option<Met>, Failure> {
        loop {
            let Some(loaded) = &mut self.at else {
                let Some((first, slot)) = self.ahead.pop_front() else { return Ok(None) };
                self.at = Some(self.load(log, first, slot)?);
                continue;
            };
            if loaded.at >= loaded.end {
                self.at = None;
                continue;
            }
            let (at, lsn) = (loaded.at, loaded.first + loaded.at as Lsn);
            let offset = loaded.slot * log.geometry.segment_bytes as u64 + at as u64;
            let Ok(decoded) = decode(&loaded.seed, lsn, &loaded.bytes[at..loaded.end]) else {
                return Err(damage(log, loaded.first, offset, format!("no valid record at LSN {lsn}")));
            };
            loaded.at += decoded.bytes();
            if let Decoded::Record { head, payload } = decoded
                && lsn >= self.from
            {
                return Ok(Some(Met { lsn, offset, pid: head.pid, payload: payload.to_vec() }));
            }
        }
    }

    fn load(&self, log: &Log, first: Lsn, slot: u64) -> Result<Loaded, Failure> {
        let segment_bytes = log.geometry.segment_bytes as Lsn;
        let header = self.header(log, first, slot)?;
        let next = self.ahead.front().filter(|(next, _)| *next == first + segment_bytes);
        let ends = match next {
            Some((next, slot)) => self.header(log, *next, *slot)?.continues,
            None => self.until,
        };
        let end = ends.min(self.until).min(first + segment_bytes) - first;
        let block = log.geometry.block_bytes;
        let end = usize::try_from(end).unwrap_or(0).max(block);
        let mut bytes = vec![0; end];
        let offset = slot * segment_bytes as u64;
        log.read_bytes(offset, &mut bytes)?;
        Ok(Loaded { first, slot, bytes, at: block, end, seed: Seed::new(header.salt) })
    }

    /// The header of a segment that must be there.
    fn header(&self, log: &Log, first: Lsn, slot: u64) -> Result<SegmentHeader, Failure> {
        let offset = slot * log.geometry.segment_bytes as u64;
        let mut block = vec![0; log.geometry.block_bytes];
        log.read_bytes(offset, &mut block)?;
        SegmentHeader::decode(&block)
            .ok()
            .filter(|header| header.first == first && Some(header.salt) == self.reader.salt(first))
            .ok_or_else(|| damage(log, first, offset, format!("no header of the segment at LSN {first}")))
    }
}

/// Bytes that are not what was stable: damage, unless the segment was released meanwhile.
pub(crate) fn damage(log: &Log, first: Lsn, offset: u64, found: String) -> Failure {
    if first < log.released() {
        return Failure::Misuse { what: "the log was released while it was being read" };
    }
    Failure::Corrupt { found, path: log.disk.path(FileId::Log), offset }
}

/// How many bytes of the file a record of `payload_len` bytes takes.
pub(crate) fn record_len(payload_len: usize) -> usize {
    HEADER_BYTES + payload_len
}

impl Log {
    /// The start of the segment that `lsn` lies in.
    pub(crate) fn segment_start(&self, lsn: Lsn) -> Lsn {
        self.segment_of(lsn)
    }

    /// True if a record of `lsn` could lie at `offset`: as deep in its slot as in its segment.
    pub(crate) fn may_lie(&self, lsn: Lsn, offset: u64) -> bool {
        let segment_bytes = self.geometry.segment_bytes as u64;
        let within = lsn.cast_unsigned() % segment_bytes;
        lsn > 0 && offset % segment_bytes == within && within >= self.geometry.block_bytes as u64
    }

    /// Sees to it that the record at `lsn`, reserved before this call, is in the file.
    pub(crate) fn make_readable(&self, lsn: Lsn) -> Result<(), Failure> {
        if lsn < self.stable() { Ok(()) } else { self.hand_over() }
    }

    fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<(), Failure> {
        self.disk.read_at(FileId::Log, offset, out).map_err(|source| {
            let path = self.disk.path(FileId::Log);
            if source.kind() == io::ErrorKind::UnexpectedEof {
                let found = format!("the file ends within the {} bytes to be read", out.len());
                return Failure::Corrupt { found, path, offset };
            }
            Failure::Io { doing: "reading the log", path, offset, source: Arc::new(source) }
        })
    }
}
