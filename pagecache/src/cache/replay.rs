//! The changes that the log's tail holds, by page: where each lies, not what it says.
//!
//! Made once while the store opens. A change is read from the log and decoded when the map page of its
//! page is loaded.
//!
//! * REPLAY-1: until then its page is dirty, and the log is kept for it. What is read must have the
//!   checksum that it had when the tail was scanned, and counts only above the number of the page's
//!   durable form.
//!
//! How records become changes is the business of [`crate::checkpoint::fold`].

use std::{collections::BTreeMap, ops::Range};

use crate::{
    error::Failure,
    format::{batch::EntryKind, map::Entry},
    ids::{Lsn, PageId, PageSeq},
    log::place::TailReader,
};

/// One change of a page, as it lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailChange {
    pub(crate) pid: PageId,
    pub(crate) seq: PageSeq,
    /// Where its record lies, or the end of its run.
    pub(crate) lsn: Lsn,
    /// Where the fragment's bytes begin.
    pub(crate) at: Lsn,
    pub(crate) len: u32,
    pub(crate) crc: u32,
    pub(crate) kind: EntryKind,
}

/// Where the parts of a run lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunPlaces {
    /// The run's first record, from which on the log must be kept.
    pub(crate) first: Lsn,
    /// Where the bytes of each part begin, and how many they are.
    pub(crate) parts: Vec<(Lsn, u32)>,
}

/// Changes by page, and by number within a page.
#[derive(Debug)]
pub(crate) struct Replay {
    changes: Vec<TailChange>,
    /// By the positions at which the runs end.
    runs: BTreeMap<Lsn, RunPlaces>,
    log: TailReader,
}

impl Replay {
    /// `changes` ascend by page and number.
    pub(crate) fn new(changes: Vec<TailChange>, runs: BTreeMap<Lsn, RunPlaces>, log: TailReader) -> Replay {
        Replay { changes, runs, log }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let runs = self
            .runs
            .values()
            .map(|run| size_of::<(Lsn, RunPlaces)>() + run.parts.capacity() * size_of::<(Lsn, u32)>());
        self.changes.capacity() * size_of::<TailChange>() + runs.sum::<usize>()
    }

    /// Every page that has changes, in order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageId> {
        self.changes.chunk_by(|a, b| a.pid == b.pid).map(|changes| changes[0].pid)
    }

    /// Every page that a change of this kind is of, in order.
    pub(crate) fn pages_of(&self, kind: EntryKind) -> impl Iterator<Item = PageId> {
        self.changes.iter().filter(move |change| change.kind == kind).map(|change| change.pid)
    }

    /// The changes of these pages.
    pub(crate) fn of(&self, pids: Range<PageId>) -> &[TailChange] {
        let from = self.changes.partition_point(|change| change.pid < pids.start);
        let to = self.changes.partition_point(|change| change.pid < pids.end);
        &self.changes[from..to]
    }

    /// The position from which the log is kept for a change.
    pub(crate) fn first(&self, change: &TailChange) -> Lsn {
        self.runs.get(&change.lsn).map_or(change.lsn, |run| run.first)
    }

    /// The position from which the log is kept for a page.
    pub(crate) fn oldest(&self, pid: PageId) -> Option<Lsn> {
        self.of(pid..pid + 1).iter().map(|change| self.first(change)).min()
    }

    /// The bytes of a change's fragment.
    pub(crate) fn read(&self, change: &TailChange) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; change.len as usize];
        match self.runs.get(&change.lsn) {
            None => self.log.read(change.at, &mut bytes)?,
            Some(run) => self.read_of_run(run, change.at, &mut bytes)?,
        }
        if crc32fast::hash(&bytes) == change.crc {
            return Ok(bytes);
        }
        Err(self.corrupt(change, "it reads differently a second time"))
    }

    /// A run's bytes go on in its next part.
    fn read_of_run(&self, run: &RunPlaces, mut at: Lsn, mut out: &mut [u8]) -> Result<(), Failure> {
        let begun = run.parts.partition_point(|(begin, _)| *begin <= at);
        for (begin, len) in &run.parts[begun.saturating_sub(1)..] {
            at = at.max(*begin);
            let left = (begin + Lsn::from(*len) - at).unsigned_abs() as usize;
            let (here, rest) = out.split_at_mut(left.min(out.len()));
            self.log.read(at, here)?;
            out = rest;
        }
        Ok(())
    }

    /// Damage at a change.
    pub(crate) fn corrupt(&self, change: &TailChange, why: impl std::fmt::Display) -> Failure {
        let TailChange { pid, lsn, at, .. } = change;
        self.log.corrupt(*at, format!("the change of page {pid} at log position {lsn}: {why}"))
    }
}

/// The changes of one page that its durable form lacks; or the first that does not follow the one before.
pub(crate) fn lacking<'c>(
    changes: &'c [TailChange],
    durable: Option<&Entry>,
) -> Result<&'c [TailChange], &'c TailChange> {
    let durable_seq = durable.map_or(0, Entry::seq);
    let changes = &changes[changes.partition_point(|change| change.seq <= durable_seq)..];
    let Some((bottom, above)) = changes.split_first() else { return Ok(changes) };
    let stands = match bottom.kind {
        EntryKind::Append => matches!(durable, Some(Entry::Present { .. })),
        EntryKind::Base | EntryKind::Free => true,
        // A freed id is used again only once a checkpoint has it free.
        EntryKind::Adopt => matches!(durable, None | Some(Entry::Free { .. })),
    };
    if !stands {
        return Err(bottom);
    }
    let mut below = bottom;
    for change in above {
        let is_alive = !matches!(below.kind, EntryKind::Free | EntryKind::Adopt);
        let follows = change.kind == EntryKind::Append && is_alive;
        if !follows || change.seq <= below.seq {
            return Err(change);
        }
        below = change;
    }
    Ok(changes)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{TailChange, lacking};
    use crate::format::{
        batch::EntryKind::{self, Adopt, Append, Base, Free},
        map::Entry,
    };

    fn change(seq: u64, kind: EntryKind) -> TailChange {
        TailChange { pid: 1, seq, lsn: 10, at: 10, len: 0, crc: 0, kind }
    }

    #[test]
    fn what_a_durable_form_lacks_is_above_its_number_and_stands_on_something() {
        type Case = (&'static str, &'static [(u64, EntryKind)], u64, bool, Result<usize, u64>);
        let cases: [Case; 12] = [
            ("nothing", &[], 5, true, Ok(0)),
            ("all of it is durable", &[(4, Append), (5, Append)], 5, true, Ok(0)),
            ("some of it is", &[(5, Append), (6, Append), (9, Append)], 5, true, Ok(2)),
            ("a base needs no page", &[(1, Base), (2, Append)], 0, false, Ok(2)),
            ("a free ends it", &[(6, Free)], 5, true, Ok(1)),
            ("a change without a page", &[(6, Append)], 5, false, Err(6)),
            ("a change of a freed page", &[(6, Free), (7, Append)], 5, true, Err(7)),
            ("a number twice", &[(6, Append), (6, Append)], 5, true, Err(6)),
            ("a value on a free id", &[(6, Adopt)], 5, false, Ok(1)),
            ("a value on a page", &[(6, Adopt)], 5, true, Err(6)),
            ("a change of a value", &[(6, Adopt), (7, Append)], 5, false, Err(7)),
            ("a freed page's change that is durable", &[(6, Free), (8, Append)], 7, true, Ok(1)),
        ];
        for (name, changes, durable, is_present, want) in cases {
            let changes: Vec<TailChange> = changes.iter().map(|(seq, kind)| change(*seq, *kind)).collect();
            let entry = match is_present {
                true => Entry::Present { seq: durable, parts: Vec::new() },
                false => Entry::Free { seq: durable },
            };
            let found = lacking(&changes, Some(&entry));
            assert_eq!(found.map(<[TailChange]>::len).map_err(|at| at.seq), want, "{name}");
        }
    }
}
