//! What a tail of log records means: one pure fold over a checkpoint and the records after it.
//!
//! Records of a page are ordered by the page's sequence number, not by their place in the log: two
//! batches that touch one page may commit in the other order. A record whose number is at or below
//! the checkpoint's number for its page is part of the page's image already.

use crate::{
    error::DecodeError,
    format::{
        batch::{self, EntryKind},
        record::Kind,
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
    pub(crate) seq: PageSeq,
    pub(crate) body: Body<P>,
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

/// Folds `records` over a checkpoint: `bound` and `recovery` are the checkpoint's, `durable_seq`
/// tells its number for a page, 0 for one that it does not hold.
pub(crate) fn fold<'t, M: Materializer>(
    materializer: &M,
    bound: PageId,
    recovery: Option<(Lsn, M::Recovery)>,
    durable_seq: impl Fn(PageId) -> PageSeq,
    records: impl Iterator<Item = Replayed<'t>>,
) -> Result<Fold<M::PageFrag, M::Recovery>, Nonsense> {
    let mut fold = Fold { changes: Vec::new(), bound, recovery };
    let known = fold.recovery.as_ref().map_or(0, |(lsn, _)| *lsn);
    for record in records {
        let lsn = record.lsn;
        let mut take = |pid: PageId, seq: PageSeq, kind: EntryKind, bytes: &[u8]| -> Result<(), Nonsense> {
            fold.bound = fold.bound.max(pid + 1);
            let body = decode(materializer, kind, bytes).map_err(|why| Nonsense {
                lsn,
                why: format!("a fragment of page {pid} does not decode: {why}"),
            })?;
            if lsn > known
                && let Body::Base(frag) | Body::Append(frag) = &body
                && let Some(value) = materializer.recover(frag)
            {
                fold.recovery = Some((lsn, value));
            }
            if seq > durable_seq(pid) {
                fold.changes.push(Change { pid, lsn, seq, body });
            }
            Ok(())
        };
        match record.kind {
            Kind::Append => take(record.pid, record.seq, EntryKind::Append, record.payload)?,
            Kind::Base => take(record.pid, record.seq, EntryKind::Base, record.payload)?,
            Kind::Free => take(record.pid, record.seq, EntryKind::Free, record.payload)?,
            Kind::Batch => {
                let mut rest = record.payload;
                while let Some(next) = batch::next_entry(rest) {
                    let (entry, after) = next.map_err(|why| Nonsense { lsn, why })?;
                    take(entry.pid, entry.seq, entry.kind, entry.bytes)?;
                    rest = after;
                }
            }
            other => {
                return Err(Nonsense {
                    lsn,
                    why: format!("a record of kind {other:?} has no place in a page log"),
                });
            }
        }
    }
    order(&mut fold.changes);
    Ok(fold)
}

fn decode<M: Materializer>(
    materializer: &M,
    kind: EntryKind,
    bytes: &[u8],
) -> Result<Body<M::PageFrag>, DecodeError> {
    match kind {
        EntryKind::Append => Ok(Body::Append(materializer.decode(bytes)?)),
        EntryKind::Base => Ok(Body::Base(materializer.decode(bytes)?)),
        EntryKind::Free => Ok(Body::Free),
    }
}

/// Sorts changes by page and number, and drops those that a later base or free of their page covers.
fn order<P>(changes: &mut Vec<Change<P>>) {
    changes.sort_by_key(|change| (change.pid, change.seq));
    changes.reverse();
    let mut covered = None;
    changes.retain(|change| {
        let keep = covered != Some(change.pid);
        if !matches!(change.body, Body::Append(_)) {
            covered = Some(change.pid);
        }
        keep
    });
    changes.reverse();
}
