//! The log's tail: what recovery reads back, from where the checkpoint ends to the last record.
//!
//! The file's slots are found by their header blocks and put in LSN order. Reading starts at `from`
//! and goes on while records are valid; at a position X that holds none, the tail ends. Was X torn,
//! that is, never acknowledged, or damaged? [`super::evidence`] looks beyond X for proof that X
//! had been stable, and then it is damage and an error, never a shorter tail.
//!
//! * A segment follows at X if its header says that the records before it end at X. So what the
//!   writer left unused, and ghosts of an epoch that ended at X, are never read (LOG-6).
//! * At the very start, where nothing was read yet, records that end before `from` will do.
//! * A header counts only with the salt that the list has for its LSN: of two slots that claim one
//!   LSN, at most one does.
//!
//! Segments are read and checked each from its own bytes, on several threads if the caller has them;
//! what follows what is decided afterwards, in LSN order, so the outcome does not depend on how many.
//! The bytes are not kept: the caller makes of each segment's records what it needs. Nothing is written
//! before [`Tail::rewrite`].

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::{
    ThreadPoolBuilder,
    iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator},
};

use super::{Geometry, Position, evidence, place::TailReader};
use crate::error::Failure;
use crate::format::record::{Decoded, HEADER_BYTES, Kind, Seed, decode, decode_checked};
use crate::format::segment::{NoHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::format::superblock::Superblock;
use crate::ids::{Lsn, PageId, PageSeq};
use crate::io::{FileId, Storage, SyncReason};

/// What the newest superblock says of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded<'s> {
    /// The name of the store.
    pub(crate) store: [u8; 16],
    /// Where the tail starts.
    pub(crate) from: Lsn,
    /// All below was durable: the tail must reach it.
    pub(crate) stable: Lsn,
    /// (from LSN, salt) pairs; of two with one LSN the later counts.
    pub(crate) salts: &'s [(Lsn, u64)],
    /// The file was so long at least.
    pub(crate) bytes: u64,
    /// The segment that starts here was on the disk; 0 if that is said of none.
    pub(crate) begun: Lsn,
}

impl<'s> From<&'s Superblock> for Recorded<'s> {
    fn from(superblock: &'s Superblock) -> Recorded<'s> {
        Recorded {
            store: superblock.uuid,
            from: superblock.replay_from,
            stable: superblock.stable,
            salts: &superblock.salts,
            bytes: superblock.log_bytes,
            begun: superblock.log_begun,
        }
    }
}

/// The tail as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    from: Lsn,
    end: Lsn,
    geometry: Geometry,
    slots: u64,
    exists: bool,
    store: [u8; 16],
    /// Largest stable LSN that anything in the tail carries: a sync had returned for all below.
    stable: Lsn,
    segments: Vec<TailSegment>,
}

/// One segment of the tail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TailSegment {
    slot: u64,
    first: Lsn,
    /// Valid records lie in `begin..end` of the segment.
    begin: usize,
    end: usize,
    /// Of the header's block and the records.
    crc: u32,
}

/// One segment of the tail while its bytes are there.
pub(crate) struct SegmentRecords<'b> {
    first: Lsn,
    bytes: &'b [u8],
    begin: usize,
}

/// A record that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailRecord<'t> {
    pub(crate) lsn: Lsn,
    pub(crate) kind: Kind,
    pub(crate) pid: PageId,
    pub(crate) seq: PageSeq,
    pub(crate) payload: &'t [u8],
}

impl TailRecord<'_> {
    /// Where the payload begins.
    pub(crate) fn payload_at(&self) -> Lsn {
        self.lsn + HEADER_BYTES as Lsn
    }
}

/// Reads the tail, and returns what `digest` makes of each segment's records. With one thread all is read in order on
/// the caller's own; with more, segments are digested that turn out to be no part of the tail.
///
/// # Errors
///
/// `Corrupt` if the tail ends below a position that was stable, or the file is not the one that was recorded.
pub(crate) fn scan<T: Send>(
    disk: &dyn Storage,
    geometry: Geometry,
    recorded: &Recorded<'_>,
    threads: usize,
    digest: impl Fn(&SegmentRecords<'_>) -> T + Sync,
) -> Result<(Tail, Vec<T>), Failure> {
    geometry.check()?;
    let directory = Directory::read(disk, geometry, recorded)?;
    directory.check_file()?;
    let from = recorded.from;
    let mut tail = Tail {
        from,
        end: from,
        geometry,
        slots: directory.len / geometry.segment_bytes as u64,
        exists: directory.exists,
        store: recorded.store,
        stable: recorded.stable,
        segments: Vec::new(),
    };
    let mut digests = Vec::new();
    let mut ahead = directory.load_ahead(from, threads, &digest);
    while let Some((first, slot)) = directory.next(tail.end, from) {
        let loaded = ahead.remove(&first).unwrap_or_else(|| directory.load(first, slot, tail.end, &digest));
        let Loaded { segment, stable, digest } = loaded?;
        tail.stable = tail.stable.max(stable);
        let end = segment.end_lsn();
        if segment.begin == segment.end {
            break; // opened, and nothing in it reached the disk
        }
        tail.segments.push(segment);
        digests.push(digest);
        tail.end = end;
    }
    evidence::check(&directory, &tail, recorded.stable)?;
    Ok((tail, digests))
}

impl Tail {
    /// Where the last record ends.
    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    /// Reads bytes of the tail again.
    pub(crate) fn reader(&self, disk: &Arc<dyn Storage>) -> TailReader {
        let slots = self.segments.iter().map(|segment| (segment.first, segment.slot)).collect();
        TailReader::new(disk.clone(), self.geometry.segment_bytes as u64, slots)
    }

    /// Where a log goes on after this tail.
    pub(crate) fn position(&self) -> Position {
        Position {
            from: self.from,
            end: self.end,
            slots: self.slots,
            live: self.segments.iter().map(|segment| (segment.slot, segment.first)).collect(),
            exists: self.exists,
            store: self.store,
        }
    }

    /// True if the segment that starts here is part of it.
    pub(crate) fn holds(&self, first: Lsn) -> bool {
        self.segments.iter().any(|segment| segment.first == first)
    }

    /// The file has at least so many bytes, durably once the tail was rewritten.
    pub(crate) fn file_bytes(&self) -> u64 {
        let segment_bytes = self.geometry.segment_bytes as u64;
        let ends = self.segments.iter().map(|segment| segment.slot * segment_bytes + segment.end as u64);
        ends.max().unwrap_or(0)
    }

    /// Writes the recovered bytes identically in place and syncs them: what was read may have been
    /// in the system's cache only. A torn identical write harms nothing.
    ///
    /// Bytes below the largest stable LSN that the tail carries are left alone: a sync had returned
    /// for them before that number was written down.
    pub(crate) fn rewrite(&self, disk: &dyn Storage) -> Result<(), Failure> {
        let block = self.geometry.block_bytes;
        let unproven = |segment: &&TailSegment| segment.end_lsn() > self.stable;
        let mut bytes = Vec::new();
        for segment in self.segments.iter().filter(unproven) {
            let start = segment.slot * self.geometry.segment_bytes as u64;
            segment.read_again(disk, start, block, &mut bytes)?;
            let proven = usize::try_from(self.stable - segment.first).unwrap_or(0);
            let records = segment.begin.max(proven) / block * block..bytes.len();
            for range in [0..block, records] {
                let offset = start + range.start as u64;
                disk.write_at(FileId::Log, offset, &bytes[range])
                    .map_err(|source| failed(disk, "rewriting the log's tail", offset, source))?;
            }
        }
        if !self.segments.iter().any(|segment| unproven(&segment)) {
            return Ok(());
        }
        disk.sync(FileId::Log, SyncReason::Tail)
            .map_err(|source| failed(disk, "syncing the log's tail", 0, source))
    }

    /// The file offset of an LSN of the tail, or of the segment that holds it.
    pub(super) fn offset(&self, lsn: Lsn) -> u64 {
        let segment_bytes = self.geometry.segment_bytes as u64;
        let last = self.segments.last();
        last.map_or(0, |last| {
            last.slot * segment_bytes + (lsn - last.first).unsigned_abs().min(segment_bytes)
        })
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }
}

impl SegmentRecords<'_> {
    /// The segment's records, in LSN order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = TailRecord<'_>> {
        let mut at = self.begin;
        std::iter::from_fn(move || {
            while at < self.bytes.len() {
                let lsn = self.first + at as Lsn;
                let decoded = decode_checked(&self.bytes[at..])?;
                at += decoded.bytes();
                if let Decoded::Record { head, payload } = decoded {
                    return Some(TailRecord { lsn, kind: head.kind, pid: head.pid, seq: head.seq, payload });
                }
            }
            None
        })
    }
}

impl TailSegment {
    fn end_lsn(&self) -> Lsn {
        self.first + self.end as Lsn
    }

    /// Reads the segment up to the block in which its records end. What lies there must be what was
    /// read before: it is about to be written.
    fn read_again(
        &self,
        disk: &dyn Storage,
        start: u64,
        block: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        bytes.clear();
        bytes.resize(self.end.next_multiple_of(block), 0);
        let len = disk.len(FileId::Log).map_err(|source| failed(disk, "measuring the log", 0, source))?;
        let held = len.saturating_sub(start).min(bytes.len() as u64) as usize;
        disk.read_at(FileId::Log, start, &mut bytes[..held])
            .map_err(|source| failed(disk, "reading the log again", start, source))?;
        if sum_of(bytes, block, self.begin, self.end) == self.crc {
            return Ok(());
        }
        let found = format!("the log from LSN {} reads differently a second time", self.first);
        Err(Failure::Corrupt { found, path: disk.path(FileId::Log), offset: start })
    }
}

/// The checksum of a segment's header block and records.
fn sum_of(bytes: &[u8], block: usize, begin: usize, end: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..block]);
    hasher.update(&bytes[begin..end]);
    hasher.finalize()
}

/// A segment that was read.
struct Loaded<T> {
    segment: TailSegment,
    /// The largest stable LSN that its header and pads carry.
    stable: Lsn,
    digest: T,
}

/// What the log file holds: the slots by the segments that lie in them.
pub(super) struct Directory<'s> {
    disk: &'s dyn Storage,
    geometry: Geometry,
    recorded: &'s Recorded<'s>,
    exists: bool,
    len: u64,
    /// First LSN to slot and header, for headers that the salt list confirms.
    segments: BTreeMap<Lsn, (u64, SegmentHeader)>,
    /// Slots with no whole header: never used, torn or damaged.
    headless: Vec<u64>,
}

impl<'s> Directory<'s> {
    fn read(
        disk: &'s dyn Storage,
        geometry: Geometry,
        recorded: &'s Recorded<'s>,
    ) -> Result<Directory<'s>, Failure> {
        let exists =
            disk.exists(FileId::Log).map_err(|source| failed(disk, "looking for the log", 0, source))?;
        let len = if exists { disk.len(FileId::Log) } else { Ok(0) };
        let len = len.map_err(|source| failed(disk, "measuring the log", 0, source))?;
        let mut directory = Directory {
            disk,
            geometry,
            recorded,
            exists,
            len,
            segments: BTreeMap::new(),
            headless: Vec::new(),
        };
        for slot in 0..directory.slots() {
            let bytes = directory.bytes(slot, SEGMENT_HEADER_BYTES)?;
            match SegmentHeader::decode(&bytes) {
                Ok(header) if header.store != recorded.store => return Err(foreign(disk, geometry, slot)),
                Ok(header) => directory.add(slot, header)?,
                Err(NoHeader::Absent) => directory.headless.push(slot),
                Err(NoHeader::Version(version)) => {
                    let path = disk.path(FileId::Log);
                    let what =
                        format!("{} has log format {version}; open it with a newer version", path.display());
                    return Err(Failure::Unsupported { what });
                }
            }
        }
        Ok(directory)
    }

    /// Takes a segment on if its header fits this store and epoch; a ghost's does not.
    fn add(&mut self, slot: u64, header: SegmentHeader) -> Result<(), Failure> {
        let SegmentHeader { first, salt, .. } = header;
        let fits = header.segment_bytes == self.geometry.segment_bytes as u64
            && header.block_bytes as usize == self.geometry.block_bytes
            && (1..Lsn::MAX / 2).contains(&first)
            && first % self.geometry.segment_bytes as Lsn == 0
            && (0..=first).contains(&header.continues)
            && self.salt(first) == Some(salt);
        if !fits {
            return Ok(());
        }
        match self.segments.insert(first, (slot, header)) {
            None => Ok(()),
            Some((other, _)) => Err(Failure::Corrupt {
                found: format!("slots {other} and {slot} both hold the log from LSN {first}"),
                path: self.disk.path(FileId::Log),
                offset: slot * self.geometry.segment_bytes as u64,
            }),
        }
    }

    /// Refuses a file that a crash cannot have left of the one that was recorded: it is shorter, or lacks a
    /// segment that was durable (LOG-8).
    fn check_file(&self) -> Result<(), Failure> {
        let Recorded { from, stable, bytes, begun, .. } = *self.recorded;
        if self.len < bytes {
            let found = format!("the file ends here, and it had at least {bytes} bytes");
            return Err(self.corrupt(self.len, found));
        }
        let segment_bytes = self.geometry.segment_bytes as Lsn;
        let around = from - from % segment_bytes;
        let needed = match begun {
            0 => None,
            begun if begun + segment_bytes > from => Some(begun),
            _ => Some(around).filter(|first| stable > *first),
        };
        match needed.filter(|first| !self.segments.contains_key(first)) {
            None => Ok(()),
            Some(first) => {
                let found = format!(
                    "the file lacks the log segment from LSN {first}, which was on the disk: it is another log, or \
                     damaged"
                );
                Err(self.corrupt(0, found))
            }
        }
    }

    /// The segment to read on in at `at`, and its slot: the next one if records end here, else the
    /// one around `from` if nothing was read yet.
    fn next(&self, at: Lsn, from: Lsn) -> Option<(Lsn, u64)> {
        let segment_bytes = self.geometry.segment_bytes as Lsn;
        let first = at - at % segment_bytes;
        let next = if first == at { at } else { first + segment_bytes };
        let follows = |ends: Lsn| ends == at || (at == from && ends < at);
        if let Some((slot, _)) = self.segments.get(&next).filter(|(_, header)| follows(header.continues)) {
            return Some((next, *slot));
        }
        let (slot, _) = self.segments.get(&first)?;
        (at == from && at != first).then_some((first, *slot))
    }

    /// Loads on `threads` threads every segment that may belong to the tail from `from` on; none if
    /// that is not worth a thread. A failure counts only if the tail comes to the segment.
    ///
    /// The tail enters a segment at `from` or at its start, which is what [`Directory::load`] makes of
    /// `from` for each of them.
    fn load_ahead<T: Send>(
        &self,
        from: Lsn,
        threads: usize,
        digest: &(impl Fn(&SegmentRecords<'_>) -> T + Sync),
    ) -> BTreeMap<Lsn, Result<Loaded<T>, Failure>> {
        let segment_bytes = self.geometry.segment_bytes as Lsn;
        let wanted: Vec<(Lsn, u64)> = self
            .segments()
            .filter(|(first, ..)| first + segment_bytes > from)
            .map(|(first, slot, _)| (first, slot))
            .collect();
        if threads < 2 || wanted.len() < 2 {
            return BTreeMap::new();
        }
        // The pool ends with the scan: an open store needs none. Without threads it goes on alone.
        let Ok(pool) = ThreadPoolBuilder::new().num_threads(threads.min(wanted.len())).build() else {
            return BTreeMap::new();
        };
        let load = |&(first, slot): &(Lsn, u64)| (first, self.load(first, slot, from, digest));
        pool.install(|| wanted.par_iter().with_max_len(1).map(load).collect())
    }

    /// Loads a segment, finds the valid records in it, from `at` or from its start, and digests them.
    fn load<T>(
        &self,
        first: Lsn,
        slot: u64,
        at: Lsn,
        digest: &impl Fn(&SegmentRecords<'_>) -> T,
    ) -> Result<Loaded<T>, Failure> {
        let bytes = self.bytes(slot, self.geometry.segment_bytes)?;
        let block = self.geometry.block_bytes;
        let begin = usize::try_from(at - first).map_or(block, |begin| begin.max(block));
        // Beyond where the next segment says that this one ends there are only ghosts.
        let segment_bytes = self.geometry.segment_bytes;
        let next = self.segments.get(&(first + segment_bytes as Lsn));
        let ends = next.and_then(|(_, header)| usize::try_from(header.continues - first).ok());
        let limit = ends.filter(|ends| *ends > begin).unwrap_or(segment_bytes).min(segment_bytes);
        let (end, marked) = match self.salt(first) {
            Some(salt) => valid_to(&bytes, first, begin, limit, &Seed::new(salt)),
            None => (begin, 0),
        };
        let header = self.segments.get(&first).map_or(0, |(_, header)| header.stable);
        let crc = sum_of(&bytes, block, begin, end);
        let digest = digest(&SegmentRecords { first, bytes: &bytes[..end], begin });
        let segment = TailSegment { slot, first, begin, end, crc };
        Ok(Loaded { segment, stable: marked.max(header), digest })
    }

    /// The slots of the file, the last of which may be cut short.
    fn slots(&self) -> u64 {
        self.len.div_ceil(self.geometry.segment_bytes as u64)
    }

    /// Slots with no whole header.
    pub(super) fn headless(&self) -> &[u64] {
        &self.headless
    }

    /// The salt that holds at `lsn`.
    pub(super) fn salt(&self, lsn: Lsn) -> Option<u64> {
        let below = self.recorded.salts.iter().filter(|(from, _)| *from <= lsn);
        below.max_by_key(|(from, _)| *from).map(|(_, salt)| *salt)
    }

    /// Every confirmed segment: first LSN, slot and header.
    pub(super) fn segments(&self) -> impl Iterator<Item = (Lsn, u64, &SegmentHeader)> {
        self.segments.iter().map(|(first, (slot, header))| (*first, *slot, header))
    }

    /// The first `len` bytes of a slot; what the file does not hold is zero.
    pub(super) fn bytes(&self, slot: u64, len: usize) -> Result<Vec<u8>, Failure> {
        let offset = slot * self.geometry.segment_bytes as u64;
        let mut bytes = vec![0; len];
        let held = (self.len - offset.min(self.len)).min(len as u64) as usize;
        self.disk
            .read_at(FileId::Log, offset, &mut bytes[..held])
            .map_err(|source| failed(self.disk, "reading the log", offset, source))?;
        Ok(bytes)
    }

    /// Damage at a file offset.
    pub(super) fn corrupt(&self, offset: u64, found: String) -> Failure {
        Failure::Corrupt { found, path: self.disk.path(FileId::Log), offset }
    }
}

/// Where the valid records that start at `begin` end, and the largest stable LSN that a pad among
/// them carries; they do not cross `limit`.
fn valid_to(bytes: &[u8], first: Lsn, begin: usize, limit: usize, seed: &Seed) -> (usize, Lsn) {
    let (mut at, mut marked) = (begin, 0);
    while let Some(rest) = bytes.get(at..limit) {
        match decode(seed, first + at as Lsn, rest) {
            Ok(decoded) => {
                at += decoded.bytes();
                if let Decoded::Pad { stable, .. } = decoded {
                    marked = marked.max(stable);
                }
            }
            Err(_) => break,
        }
    }
    (at, marked)
}

/// Refuses a file of segments that are another store's. What has no header is none's.
pub(crate) fn check_owner(
    disk: &dyn Storage,
    geometry: Geometry,
    recorded: &Recorded<'_>,
) -> Result<(), Failure> {
    Directory::read(disk, geometry, recorded).map(drop)
}

fn foreign(disk: &dyn Storage, geometry: Geometry, slot: u64) -> Failure {
    Failure::Corrupt {
        found: "the log is another store's than `pages`; the two belong together".to_owned(),
        path: disk.path(FileId::Log),
        offset: slot * geometry.segment_bytes as u64,
    }
}

fn failed(disk: &dyn Storage, doing: &'static str, offset: u64, source: std::io::Error) -> Failure {
    Failure::Io { doing, path: disk.path(FileId::Log), offset, source: Arc::new(source) }
}
