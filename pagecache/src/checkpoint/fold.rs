//! What a tail of log records means: one pure fold over the records after a checkpoint.
//!
//! It comes in two steps. Each log segment is digested alone, on any thread: every fragment is looked at
//! once, for what it has to recover; what stays is where it lies. The digests are then put together: their
//! runs in the order of the log, their changes by page.
//!
//! Records of a page are ordered by the page's sequence number, not by their place in the log: two
//! batches that touch one page may commit in the other order. A record whose number is at or below
//! the checkpoint's number for its page is part of the page's image already; that is found out when
//! the page's entry is read ([`crate::cache::Replay`]).
//!
//! A run counts by the record that ends it. One that began before the tail concerns durable pages only,
//! and no more is taken of it than that record says; one that began in the tail must be whole (P-2).

use std::{collections::BTreeMap, mem};

use serde::de::DeserializeOwned;

use crate::{
    cache::{RunPlaces, TailChange},
    error::DecodeError,
    format::{
        batch::{self, ENTRY_HEADER_BYTES, EntryKind},
        bytes::Source,
        codec,
        record::{HEADER_BYTES as RECORD_HEADER_BYTES, Kind},
        run::{PART_HEADER_BYTES, PartsSum, RunEnd, read_part},
        value::Extents,
    },
    ids::{Lsn, PageId},
    log::tail::TailRecord,
    materializer::Materializer,
};

/// What the tail adds to the checkpoint.
#[derive(Debug)]
pub(crate) struct Fold<R> {
    /// By page, each page's in the order of its sequence numbers, starting with its newest base or free
    /// if there is one.
    pub(crate) changes: Vec<TailChange>,
    /// By the positions at which the runs end.
    pub(crate) runs: BTreeMap<Lsn, RunPlaces>,
    /// Ids below this exist.
    pub(crate) bound: PageId,
    pub(crate) recovery: Option<(Lsn, R)>,
}

/// A record that passed its checksum and still makes no sense.
#[derive(Debug)]
pub(crate) struct Nonsense {
    pub(crate) lsn: Lsn,
    pub(crate) why: String,
}

/// What one segment of the log says.
#[derive(Debug)]
pub(crate) struct Digest<R> {
    changes: Vec<TailChange>,
    bound: PageId,
    recovery: Option<(Lsn, R)>,
    runs: Vec<RunRecord>,
}

/// A record of a run, the rest of which may lie in other segments.
#[derive(Debug)]
enum RunRecord {
    Part { lsn: Lsn, first: Lsn, index: u32, bytes: Vec<u8> },
    End { lsn: Lsn, end: RunEnd },
}

/// Digests the records of one segment.
pub(crate) fn digest<'t, M: Materializer>(
    materializer: &M,
    records: impl Iterator<Item = TailRecord<'t>>,
) -> Result<Digest<M::Recovery>, Nonsense> {
    let mut digest = Digest { changes: Vec::new(), bound: 0, recovery: None, runs: Vec::new() };
    for record in records {
        let lsn = record.lsn;
        digest.take(materializer, record).map_err(|why| Nonsense { lsn, why })?;
    }
    Ok(digest)
}

impl<R: DeserializeOwned> Digest<R> {
    fn take<M: Materializer<Recovery = R>>(
        &mut self,
        materializer: &M,
        record: TailRecord<'_>,
    ) -> Result<(), String> {
        let TailRecord { lsn, kind, pid, seq, payload } = record;
        let at = record.payload_at();
        let single = |kind| batch::Entry { pid, kind, seq, bytes: payload };
        match kind {
            Kind::Append => self.change(materializer, lsn, at, single(EntryKind::Append)),
            Kind::Base => self.change(materializer, lsn, at, single(EntryKind::Base)),
            Kind::Free => self.change(materializer, lsn, at, single(EntryKind::Free)),
            Kind::Batch => {
                let mut rest = payload;
                while let Some(next) = batch::next_entry(rest) {
                    let (entry, after) = next?;
                    let begin = at + (payload.len() - rest.len() + ENTRY_HEADER_BYTES) as Lsn;
                    self.change(materializer, lsn, begin, entry)?;
                    rest = after;
                }
                Ok(())
            }
            Kind::RunPart => {
                let part = read_part(payload).map_err(|why| why.to_string())?;
                let (first, index, bytes) = (part.first, part.index, part.bytes.to_vec());
                self.runs.push(RunRecord::Part { lsn, first, index, bytes });
                Ok(())
            }
            Kind::RunCommit => {
                let end = RunEnd::decode(payload).map_err(|why| why.to_string())?;
                if let Some(bytes) = &end.recovery {
                    let value = codec::decode(bytes)
                        .map_err(|why| format!("the recovery value of a run does not decode: {why}"))?;
                    self.recovery = Some((lsn, value));
                }
                self.runs.push(RunRecord::End { lsn, end });
                Ok(())
            }
            other => Err(format!("a record of kind {other:?} has no place in a page log")),
        }
    }

    fn change<M: Materializer<Recovery = R>>(
        &mut self,
        materializer: &M,
        lsn: Lsn,
        at: Lsn,
        entry: batch::Entry<'_>,
    ) -> Result<(), String> {
        if let Some(value) = recover(materializer, &entry)? {
            self.recovery = Some((lsn, value));
        }
        self.bound = self.bound.max(entry.pid + 1);
        self.changes.push(placed(lsn, at, &entry));
        Ok(())
    }
}

/// Puts the digests of a tail together, which was read from `from` on; `bound` and `recovery` are the
/// checkpoint's.
pub(crate) fn fold<M: Materializer>(
    materializer: &M,
    bound: PageId,
    recovery: Option<(Lsn, M::Recovery)>,
    from: Lsn,
    digests: impl IntoIterator<Item = Result<Digest<M::Recovery>, Nonsense>>,
) -> Result<Fold<M::Recovery>, Nonsense> {
    let mut fold = Fold { changes: Vec::new(), runs: BTreeMap::new(), bound, recovery };
    let mut changes = Vec::new();
    let known = fold.recovery.as_ref().map_or(0, |(lsn, _)| *lsn);
    let mut open: OpenRuns = BTreeMap::new();
    for digest in digests {
        let digest = digest?;
        fold.bound = fold.bound.max(digest.bound);
        changes.push(digest.changes);
        if digest.recovery.as_ref().is_some_and(|(lsn, _)| *lsn > known) {
            fold.recovery = digest.recovery;
        }
        for record in digest.runs {
            match record {
                RunRecord::Part { lsn, first, index, bytes } if first >= from => {
                    take_part(&mut open, lsn, first, index, bytes).map_err(|why| Nonsense { lsn, why })?;
                }
                RunRecord::End { lsn, end } if end.first >= from => {
                    let parts = open.remove(&end.first).unwrap_or_default();
                    fold.take_run(materializer, lsn, &end, &parts).map_err(|why| Nonsense { lsn, why })?;
                }
                RunRecord::Part { .. } | RunRecord::End { .. } => {}
            }
        }
    }
    changes.push(mem::take(&mut fold.changes));
    fold.changes = by_page(&changes, fold.bound);
    Ok(fold)
}

/// Parts of runs that began in the tail and did not end yet, by the runs' first positions.
type OpenRuns = BTreeMap<Lsn, Vec<(Lsn, Vec<u8>)>>;

fn take_part(open: &mut OpenRuns, lsn: Lsn, first: Lsn, index: u32, bytes: Vec<u8>) -> Result<(), String> {
    if (index == 0) != (first == lsn) || first > lsn {
        return Err(format!("part {index} of a run says that the run begins at {first}"));
    }
    let parts = open.entry(first).or_default();
    // What a missing part leaves open is settled by the run's end.
    if index as usize == parts.len() {
        parts.push((lsn, bytes));
    }
    Ok(())
}

impl<R> Fold<R> {
    /// A run that began in the tail.
    fn take_run<M: Materializer<Recovery = R>>(
        &mut self,
        materializer: &M,
        lsn: Lsn,
        end: &RunEnd,
        parts: &[(Lsn, Vec<u8>)],
    ) -> Result<(), String> {
        let mut sum = PartsSum::default();
        parts.iter().for_each(|(lsn, bytes)| sum.add(*lsn, bytes));
        let payload: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        let found = (parts.len() as u64, payload.len() as u64, sum.finish());
        if found != (u64::from(end.parts), end.bytes, end.crc) {
            return Err(format!(
                "the run of {} parts and {} bytes from position {} is not whole: {} parts and {} bytes of it are there",
                end.parts, end.bytes, end.first, found.0, found.1
            ));
        }
        let begins = |lsn: Lsn| lsn + (RECORD_HEADER_BYTES + PART_HEADER_BYTES) as Lsn;
        let places: Vec<(Lsn, u32)> =
            parts.iter().map(|(lsn, bytes)| (begins(*lsn), bytes.len() as u32)).collect();
        let mut rest = &payload[..];
        while let Some(next) = batch::next_entry(rest) {
            let (entry, after) = next?;
            // The record that ends the run has named the recovery value already.
            let _known = recover(materializer, &entry)?;
            let at = place_in(&places, payload.len() - rest.len() + ENTRY_HEADER_BYTES);
            self.bound = self.bound.max(entry.pid + 1);
            self.changes.push(placed(lsn, at, &entry));
            rest = after;
        }
        self.runs.insert(lsn, RunPlaces { first: end.first, parts: places });
        Ok(())
    }
}

/// Where the byte `within` a run lies.
fn place_in(parts: &[(Lsn, u32)], mut within: usize) -> Lsn {
    for (at, len) in parts {
        match within.checked_sub(*len as usize) {
            Some(left) => within = left,
            None => return at + within as Lsn,
        }
    }
    // Behind the last byte: where a fragment without bytes may begin.
    parts.last().map_or(0, |(at, len)| at + Lsn::from(*len))
}

fn placed(lsn: Lsn, at: Lsn, entry: &batch::Entry<'_>) -> TailChange {
    let batch::Entry { pid, kind, seq, bytes } = *entry;
    TailChange { pid, seq, lsn, at, len: bytes.len() as u32, crc: crc32fast::hash(bytes), kind }
}

/// What an entry has to recover, if it decodes.
fn recover<M: Materializer>(
    materializer: &M,
    entry: &batch::Entry<'_>,
) -> Result<Option<M::Recovery>, String> {
    let nonsense = |why: DecodeError| format!("a fragment of page {} does not decode: {why}", entry.pid);
    match entry.kind {
        EntryKind::Append | EntryKind::Base => materializer.recover_encoded(entry.bytes).map_err(nonsense),
        EntryKind::Free => Ok(None),
        EntryKind::Adopt => {
            let mut source = Source::new(entry.bytes);
            let extents = Extents::decode(&mut source);
            extents.and_then(|_| source.end("the place of a value")).map(|()| None).map_err(nonsense)
        }
    }
}

/// Changes that share a bucket while they are sorted, on average.
const BUCKET_CHANGES: usize = 8;

/// All changes, sorted by page and number, without those that a later base or free of their page covers.
/// Pages are below `bound`.
///
/// They are dealt into buckets of neighbouring pages first, each small enough to be sorted where it lies.
fn by_page(lists: &[Vec<TailChange>], bound: PageId) -> Vec<TailChange> {
    let Some(any) = lists.iter().flatten().next() else { return Vec::new() };
    let total: usize = lists.iter().map(Vec::len).sum();
    let pages_a_bucket = bound / (total / BUCKET_CHANGES).max(1) + 1;
    let bucket = |change: &TailChange| change.pid / pages_a_bucket;
    // Where each bucket begins, and while they are filled, where its next change goes.
    let mut next = vec![0; bound / pages_a_bucket + 1];
    lists.iter().flatten().for_each(|change| next[bucket(change)] += 1);
    let mut begin = 0;
    for next in &mut next {
        begin += mem::replace(next, begin);
    }
    let mut changes = vec![*any; total];
    for change in lists.iter().flatten() {
        let next = &mut next[bucket(change)];
        changes[*next] = *change;
        *next += 1;
    }
    let (mut begin, mut kept) = (0, 0);
    for end in next {
        changes[begin..end].sort_unstable_by_key(|change| (change.pid, change.seq));
        while begin < end {
            let pid = changes[begin].pid;
            let of_page = changes[begin..end].iter().take_while(|change| change.pid == pid);
            let (mut len, mut covered) = (0, 0);
            for change in of_page {
                if change.kind != EntryKind::Append {
                    covered = len;
                }
                len += 1;
            }
            changes.copy_within(begin + covered..begin + len, kept);
            kept += len - covered;
            begin += len;
        }
    }
    changes.truncate(kept);
    changes
}

#[cfg(all(test, not(loom)))]
#[path = "fold_tests.rs"]
mod tests;
