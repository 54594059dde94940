//! What a tail of log records means: one pure fold over a checkpoint and the records after it.
//!
//! Records of a page are ordered by the page's sequence number, not by their place in the log: two
//! batches that touch one page may commit in the other order. A record whose number is at or below
//! the checkpoint's number for its page is part of the page's image already.
//!
//! A run counts by the record that ends it. One that began before the tail concerns durable pages only,
//! and no more is taken of it than that record says; one that began in the tail must be whole (P-2).

use std::collections::BTreeMap;

use crate::{
    error::DecodeError,
    format::{
        batch::{self, EntryKind},
        bytes::Source,
        codec,
        record::Kind,
        run::{PartsSum, RunEnd, read_part},
        value::Extents,
    },
    ids::{Lsn, PageId, PageSeq},
    materializer::Materializer,
    page::chain::Body,
};

/// A record as the fold needs it.
pub(crate) struct Replayed<'t> {
    pub(crate) lsn: Lsn,
    pub(crate) kind: Kind,
    pub(crate) pid: PageId,
    pub(crate) seq: PageSeq,
    pub(crate) payload: &'t [u8],
}

/// One change of a page that its durable form lacks.
pub(crate) struct Change<P> {
    pub(crate) pid: PageId,
    pub(crate) lsn: Lsn,
    /// Where the first record of its batch lies, which the log must keep.
    pub(crate) first: Lsn,
    pub(crate) seq: PageSeq,
    pub(crate) what: What<P>,
}

/// What a change does to its page.
pub(crate) enum What<P> {
    /// It adds a fragment, or frees the page.
    Fragment(Body<P>),
    /// The page is a value from here on.
    Adopts(Extents),
}

impl<P> What<P> {
    /// True if it needs what the page was before.
    pub(crate) fn is_append(&self) -> bool {
        matches!(self, What::Fragment(Body::Append(_)))
    }
}

/// What the tail adds to the checkpoint.
pub(crate) struct Fold<P, R> {
    /// Changes by page, each page's in the order of its sequence numbers, starting with its newest
    /// base or free if there is one.
    pub(crate) changes: Vec<Change<P>>,
    /// Ids below this exist.
    pub(crate) bound: PageId,
    pub(crate) recovery: Option<(Lsn, R)>,
}

/// A record that passed its checksum and still makes no sense.
pub(crate) struct Nonsense {
    pub(crate) lsn: Lsn,
    pub(crate) why: String,
}

/// Folds `records`, read from `from` on, over a checkpoint: `bound` and `recovery` are the
/// checkpoint's, `durable_seq` tells its number for a page, 0 for one that it does not hold.
pub(crate) fn fold<'t, M: Materializer>(
    materializer: &M,
    bound: PageId,
    recovery: Option<(Lsn, M::Recovery)>,
    from: Lsn,
    durable_seq: impl Fn(PageId) -> PageSeq,
    records: impl Iterator<Item = Replayed<'t>>,
) -> Result<Fold<M::PageFrag, M::Recovery>, Nonsense> {
    let fold = Fold { changes: Vec::new(), bound, recovery };
    let known = fold.recovery.as_ref().map_or(0, |(lsn, _)| *lsn);
    let mut folding = Folding { materializer, durable_seq, from, known, fold, runs: BTreeMap::new() };
    for record in records {
        let lsn = record.lsn;
        folding.take(record).map_err(|why| Nonsense { lsn, why })?;
    }
    let mut fold = folding.fold;
    order(&mut fold.changes);
    Ok(fold)
}

/// A fold under way.
struct Folding<'t, 'm, M: Materializer, D> {
    materializer: &'m M,
    durable_seq: D,
    from: Lsn,
    /// The position of the checkpoint's recovery value.
    known: Lsn,
    fold: Fold<M::PageFrag, M::Recovery>,
    /// Parts of runs that began in the tail and did not end yet, by the runs' first positions.
    runs: BTreeMap<Lsn, Vec<(Lsn, &'t [u8])>>,
}

/// Where a fragment stands in the log.
#[derive(Clone, Copy)]
struct Place {
    lsn: Lsn,
    first: Lsn,
}

impl<'t, M: Materializer, D: Fn(PageId) -> PageSeq> Folding<'t, '_, M, D> {
    fn take(&mut self, record: Replayed<'t>) -> Result<(), String> {
        let Replayed { lsn, kind, pid, seq, payload } = record;
        let place = Place { lsn, first: lsn };
        let single = |kind| batch::Entry { pid, kind, seq, bytes: payload };
        match kind {
            Kind::Append => self.change(place, single(EntryKind::Append), true),
            Kind::Base => self.change(place, single(EntryKind::Base), true),
            Kind::Free => self.change(place, single(EntryKind::Free), true),
            Kind::Batch => self.changes(place, payload, true),
            Kind::RunPart => self.part(lsn, payload),
            Kind::RunCommit => self.end(lsn, payload),
            other => Err(format!("a record of kind {other:?} has no place in a page log")),
        }
    }

    fn changes(&mut self, place: Place, mut rest: &[u8], recovers: bool) -> Result<(), String> {
        while let Some(next) = batch::next_entry(rest) {
            let (entry, after) = next?;
            self.change(place, entry, recovers)?;
            rest = after;
        }
        Ok(())
    }

    /// One fragment. `recovers` is false where its record has named the recovery value already.
    fn change(&mut self, place: Place, entry: batch::Entry<'_>, recovers: bool) -> Result<(), String> {
        let batch::Entry { pid, kind, seq, bytes } = entry;
        self.fold.bound = self.fold.bound.max(pid + 1);
        let what = decode(self.materializer, kind, bytes)
            .map_err(|why| format!("a fragment of page {pid} does not decode: {why}"))?;
        if recovers
            && let What::Fragment(Body::Base(frag) | Body::Append(frag)) = &what
            && let Some(value) = self.materializer.recover(frag)
        {
            self.recover(place.lsn, value);
        }
        if seq > (self.durable_seq)(pid) {
            self.fold.changes.push(Change { pid, lsn: place.lsn, first: place.first, seq, what });
        }
        Ok(())
    }

    fn recover(&mut self, lsn: Lsn, value: M::Recovery) {
        if lsn > self.known {
            self.fold.recovery = Some((lsn, value));
        }
    }

    fn part(&mut self, lsn: Lsn, payload: &'t [u8]) -> Result<(), String> {
        let part = read_part(payload).map_err(|why| why.to_string())?;
        if part.first < self.from {
            return Ok(());
        }
        let begins = part.index == 0;
        if begins != (part.first == lsn) || part.first > lsn {
            return Err(format!("part {} of a run says that the run begins at {}", part.index, part.first));
        }
        let parts = self.runs.entry(part.first).or_default();
        // What a missing part leaves open is settled by the run's end.
        if part.index as usize == parts.len() {
            parts.push((lsn, part.bytes));
        }
        Ok(())
    }

    fn end(&mut self, lsn: Lsn, payload: &[u8]) -> Result<(), String> {
        let end = RunEnd::decode(payload).map_err(|why| why.to_string())?;
        if let Some(bytes) = &end.recovery {
            let value = codec::decode(bytes)
                .map_err(|why| format!("the recovery value of a run does not decode: {why}"))?;
            self.recover(lsn, value);
        }
        let parts = self.runs.remove(&end.first).unwrap_or_default();
        if end.first < self.from {
            return Ok(());
        }
        let mut sum = PartsSum::default();
        parts.iter().for_each(|(lsn, bytes)| sum.add(*lsn, bytes));
        let payload: Vec<u8> = parts.iter().flat_map(|(_, bytes)| *bytes).copied().collect();
        let found = (parts.len() as u64, payload.len() as u64, sum.finish());
        if found != (u64::from(end.parts), end.bytes, end.crc) {
            return Err(format!(
                "the run of {} parts and {} bytes from position {} is not whole: {} parts and {} bytes of it are there",
                end.parts, end.bytes, end.first, found.0, found.1
            ));
        }
        self.changes(Place { lsn, first: end.first }, &payload, false)
    }
}

fn decode<M: Materializer>(
    materializer: &M,
    kind: EntryKind,
    bytes: &[u8],
) -> Result<What<M::PageFrag>, DecodeError> {
    Ok(What::Fragment(match kind {
        EntryKind::Append => Body::Append(materializer.decode(bytes)?),
        EntryKind::Base => Body::Base(materializer.decode(bytes)?),
        EntryKind::Free => Body::Free,
        EntryKind::Adopt => {
            let mut source = Source::new(bytes);
            let extents = Extents::decode(&mut source)?;
            source.end("the place of a value")?;
            return Ok(What::Adopts(extents));
        }
    }))
}

/// Sorts changes by page and number, and drops those that a later base or free of their page covers.
fn order<P>(changes: &mut Vec<Change<P>>) {
    changes.sort_by_key(|change| (change.pid, change.seq));
    changes.reverse();
    let mut covered = None;
    changes.retain(|change| {
        let keep = covered != Some(change.pid);
        if !change.what.is_append() {
            covered = Some(change.pid);
        }
        keep
    });
    changes.reverse();
}

#[cfg(all(test, not(loom)))]
#[path = "fold_tests.rs"]
mod tests;
