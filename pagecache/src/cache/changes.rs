//! The list of map changes: which parts of the persisted page table are out of date.
//!
//! Every change of a durable word happens under this list's lock and takes its place in it, so the
//! list and the durable words never disagree. A checkpoint takes the whole list, which at that moment
//! is a prefix of all changes there will ever be, together with a copy of the entries it touches
//! (P-1, CACHE-3).
//!
//! What is taken of a group is either its changed entries, to be appended, or all entries of the map
//! pages that have any: those changed now, and those changed since the group was last written whole.
//! The latter are in their cells, because whoever decides for it loads them first (MAPS-2).
//!
//! Which form a group takes, and how it is written, is the checkpoint's business.

use std::collections::{BTreeMap, BTreeSet};

use super::maps::GROUP_PAGES;
use crate::{
    format::map::{Entry, GROUP_SPAN, MAP_SPAN, MapChanges, MapPage},
    ids::{Lsn, PageId},
    mem::Placed,
    page::{
        cell::Claim,
        durable::{Durable, Form},
        pages::Pages,
    },
    reclaim::{Guard, pin},
    store::Mark,
};

/// Changes of durable words since the last prefix was taken.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// In the order of the changes, and as often as there were any.
    touched: Vec<PageId>,
    /// By group: how many pages more it has.
    grown: BTreeMap<u64, i64>,
    newest: Lsn,
    freed: Vec<PageId>,
    wanted: Wanted,
}

/// Parts of the table to be written again though no entry of them changed, because of where they lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Map pages by number.
    pub(crate) pages: BTreeSet<u64>,
    pub(crate) groups: BTreeSet<u64>,
    pub(crate) directory: bool,
}

/// The groups that are to be written whole, each with the map pages that have changes since.
pub(crate) type Folds = BTreeMap<u64, BTreeSet<u8>>;

/// A prefix of all changes: what a checkpoint writes.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// The groups that differ from the last checkpoint, as of this prefix.
    pub(crate) groups: Vec<GroupChange>,
    /// The directory is to be written in any case.
    pub(crate) directory: bool,
    /// Largest LSN that some image in the prefix holds.
    pub(crate) newest: Lsn,
    /// Pages that are free as of this prefix and may be allocated again once it is published.
    pub(crate) freed: Vec<PageId>,
    /// Ids below this exist.
    pub(crate) bound: PageId,
    /// Segments emptied before this mark are free once the prefix is published.
    pub(crate) mark: Mark,
    /// Live bytes by segment, as of this prefix.
    pub(crate) live: Vec<(u32, u32)>,
    touched: Vec<PageId>,
}

/// What a checkpoint writes of one group.
#[derive(Debug)]
pub(crate) struct GroupChange {
    pub(crate) number: u64,
    /// How many pages more it has.
    pub(crate) grown: i64,
    pub(crate) form: GroupForm,
}

#[derive(Debug)]
pub(crate) enum GroupForm {
    /// What changed, beside what was written before.
    Appended(Vec<u8>),
    /// The map pages that differ from the group's index, and with them an index that stands alone.
    Folded(Vec<FoldedPage>),
}

/// A map page as it is written: a fifth of what its entries would take.
#[derive(Debug)]
pub(crate) struct FoldedPage {
    pub(crate) number: u64,
    pub(crate) present: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Prefix {
    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let bytes = |change: &GroupChange| match &change.form {
            GroupForm::Appended(bytes) => bytes.capacity(),
            GroupForm::Folded(pages) => pages.iter().map(|page| page.bytes.capacity()).sum(),
        };
        let ids = (self.touched.capacity() + self.freed.capacity()) * size_of::<PageId>();
        ids + self.live.capacity() * size_of::<(u32, u32)>() + self.groups.iter().map(bytes).sum::<usize>()
    }
}

impl Changes {
    /// Records that the page's durable form is another one now.
    pub(crate) fn record<P: Send + Sync + 'static>(
        &mut self,
        pid: PageId,
        claim: &Claim<'_, P>,
        durable: Placed<Durable>,
        newest: Lsn,
        guard: &Guard,
    ) {
        let is_present = |durable: &Durable| !matches!(durable.form, Form::Free);
        let was_present = claim.durable(guard).is_some_and(is_present);
        let difference = i64::from(is_present(&durable)) - i64::from(was_present);
        claim.set_durable(durable, guard);
        self.touched.push(pid);
        *self.grown.entry(pid as u64 / GROUP_PAGES).or_insert(0) += difference;
        self.newest = self.newest.max(newest);
    }

    /// Records that recovery fills the page's cell with a value that the record at `lsn` adopted: the
    /// list's lock is held while it does (VALUE-2).
    pub(crate) fn recovered_value(&mut self, pid: PageId, lsn: Lsn) {
        self.touched.push(pid);
        *self.grown.entry(pid as u64 / GROUP_PAGES).or_insert(0) += 1;
        self.newest = self.newest.max(lsn);
    }

    /// Records that parts of the table are to be written again though no entry of them changed.
    pub(crate) fn want(&mut self, wanted: Wanted) {
        self.wanted.pages.extend(wanted.pages);
        self.wanted.groups.extend(wanted.groups);
        self.wanted.directory |= wanted.directory;
    }

    /// True if every durable word is as the last checkpoint says.
    pub(crate) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Records that the page is free in its durable form too.
    pub(crate) fn freed(&mut self, pid: PageId) {
        self.freed.push(pid);
    }

    /// What is to be written again, which is forgotten, and how many entries of which groups have changed.
    pub(crate) fn survey(&mut self) -> (Wanted, BTreeMap<u64, u64>) {
        self.touched.sort_unstable();
        self.touched.dedup();
        let groups = self.touched.chunk_by(|a, b| group_of(*a) == group_of(*b));
        let counts = groups.map(|pids| (group_of(pids[0]), pids.len() as u64)).collect();
        (std::mem::take(&mut self.wanted), counts)
    }

    /// Takes the list as it is. The caller holds the list's lock, so the durable words stand still, and
    /// has loaded every map page that `folds` names.
    pub(crate) fn take_prefix<P: Send + Sync + 'static>(
        &mut self,
        pages: &Pages<P>,
        mark: Mark,
        live: Vec<(u32, u32)>,
        folds: Folds,
    ) -> Prefix {
        let bound = pages.bound();
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        let mut grown = std::mem::take(&mut self.grown);
        let mut groups: Vec<GroupChange> = Vec::new();
        let mut folds: BTreeMap<u64, BTreeSet<u8>> = folds;
        for pids in touched.chunk_by(|a, b| group_of(*a) == group_of(*b)) {
            let number = group_of(pids[0]);
            let grown = grown.remove(&number).unwrap_or(0);
            let form = match folds.remove(&number) {
                None => GroupForm::Appended(changed_entries(pages, number, pids)),
                Some(mut changed) => {
                    changed.extend(pids.iter().map(|pid| page_of(*pid)));
                    GroupForm::Folded(map_pages(pages, number, &changed, bound))
                }
            };
            groups.push(GroupChange { number, grown, form });
        }
        // Of these no entry has changed.
        let rest = folds.into_iter().map(|(number, changed)| {
            let form = GroupForm::Folded(map_pages(pages, number, &changed, bound));
            GroupChange { number, grown: 0, form }
        });
        groups.extend(rest);
        groups.sort_unstable_by_key(|group| group.number);
        Prefix {
            groups,
            directory: std::mem::take(&mut self.wanted.directory),
            newest: std::mem::take(&mut self.newest),
            freed: std::mem::take(&mut self.freed),
            bound,
            mark,
            live,
            touched,
        }
    }

    /// Puts a prefix back that could not be published: it becomes part of the next.
    pub(crate) fn put_back(&mut self, prefix: Prefix) {
        self.touched.extend(prefix.touched);
        for group in prefix.groups {
            *self.grown.entry(group.number).or_insert(0) += group.grown;
        }
        self.newest = self.newest.max(prefix.newest);
        self.freed.extend(prefix.freed);
        self.wanted.directory |= prefix.directory;
    }
}

fn group_of(pid: PageId) -> u64 {
    pid as u64 / GROUP_PAGES
}

/// The number, in its group, of the map page that covers a page.
fn page_of(pid: PageId) -> u8 {
    (pid as u64 / MAP_SPAN % GROUP_SPAN) as u8
}

/// The changed entries of a group as they are written, a map page at a time.
fn changed_entries<P: Send + Sync + 'static>(pages: &Pages<P>, group: u64, pids: &[PageId]) -> Vec<u8> {
    // One guard a map page: a long one would keep everybody's garbage.
    let of_page = |pids: &[PageId]| {
        let guard = pin();
        let entry = |pid: &PageId| {
            // A page whose durable form was taken away again is free with number 0.
            let entry = map_entry(pages, *pid, &guard).unwrap_or(Entry::Free { seq: 0 });
            ((*pid as u64 % MAP_SPAN) as u16, entry)
        };
        (page_of(pids[0]), pids.iter().map(entry).collect())
    };
    let by_page = || pids.chunk_by(|a, b| page_of(*a) == page_of(*b));
    MapChanges::encode(group, by_page().count(), by_page().map(of_page))
}

fn map_pages<P: Send + Sync + 'static>(
    pages: &Pages<P>,
    group: u64,
    numbers: &BTreeSet<u8>,
    bound: PageId,
) -> Vec<FoldedPage> {
    let number = |page: &u8| group * GROUP_SPAN + u64::from(*page);
    let fold = |page: &u8| {
        let page = map_page(pages, number(page), bound);
        FoldedPage { number: page.number, present: page.present_count() as u16, bytes: page.encode() }
    };
    numbers.iter().map(fold).collect()
}

fn map_page<P: Send + Sync + 'static>(pages: &Pages<P>, number: u64, bound: PageId) -> MapPage {
    let guard = pin();
    let first = (number * MAP_SPAN) as PageId;
    assert!(pages.spans.is_filled(first), "map page {number} is written before it was read (MAPS-2)");
    let last = bound.min(first + MAP_SPAN as PageId);
    let entries = (first..last).filter_map(|pid| {
        let entry = map_entry(pages, pid, &guard)?;
        Some(((pid - first) as u16, entry))
    });
    MapPage { number, entries: entries.collect() }
}

/// What the persisted table says of a page; `None` for one that is Free with number 0.
fn map_entry<P: Send + Sync + 'static>(pages: &Pages<P>, pid: PageId, guard: &Guard) -> Option<Entry> {
    let durable = pages.cell(pid)?.durable(guard)?;
    let seq = durable.seq;
    Some(match &durable.form {
        Form::Free => Entry::Free { seq },
        Form::Page(_) => Entry::Present { seq, parts: durable.parts().collect() },
        Form::Value(extents) => Entry::Value { seq, extents: extents.as_ref().clone() },
    })
}
