//! Where the parts of the persisted page table lie, and what of it was not read yet.
//!
//! Map pages come in groups of 256. A group's index says where its map pages lie; changes of entries
//! that were appended since are frames beside it. An index is read when its group is first asked for.
//!
//! * MAPS-1: a frame of a group is read under the group's lock, and whoever supersedes it takes the lock
//!   to say so before the frame is released. So no frame is written over while it is read.
//! * MAPS-2: a map page that was not loaded keeps its place: its entries are written anew only from
//!   cells, which loading fills.
//!
//! What is in the frames becomes cells in [`super::load`].

use std::{collections::BTreeMap, sync::Arc};

use super::Replay;
use crate::{
    format::{
        directory::{Directory, FrameRef, GroupRef, Index, MapPageRef},
        map::{GROUP_SPAN, MAP_SPAN},
    },
    ids::{FragmentAddr, PageId},
    sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering},
};

/// Pages that one group covers.
pub(crate) const GROUP_PAGES: u64 = GROUP_SPAN * MAP_SPAN;

/// The groups of a store, and the changes of its log's tail.
#[derive(Debug)]
pub(crate) struct Maps {
    groups: Mutex<BTreeMap<u64, Arc<Group>>>,
    /// Ids from here on are in no map page that was not loaded.
    pub(super) bound: PageId,
    /// Gone once every page of it is in its cell.
    replay: Mutex<Option<Arc<Replay>>>,
    replay_left: AtomicUsize,
    /// Bytes of memory of `replay`.
    replay_bytes: AtomicUsize,
    /// Ids that are free in map pages that were not loaded.
    hidden_free: AtomicUsize,
    /// The map page at which the search for free ids goes on.
    pub(super) search: Mutex<u64>,
    pub(super) searched: AtomicBool,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) number: u64,
    table: Mutex<GroupTable>,
}

/// Where the parts of a group lie.
#[derive(Clone, Debug)]
pub(crate) struct GroupTable {
    /// Ids that hold a page, as of the newest checkpoint.
    pub(crate) present: u64,
    pub(crate) index: Option<FrameRef>,
    /// By number in the group; `None` while the index was not read.
    pub(super) pages: Option<BTreeMap<u8, MapPageRef>>,
    /// Oldest first.
    pub(crate) changes: Vec<FrameRef>,
}

impl Maps {
    /// The groups of a directory, of which nothing was read, and what the log adds to them.
    pub(crate) fn new(directory: Option<&Directory>, replay: Option<Replay>) -> Maps {
        let listed = directory.map_or(&[][..], |directory| &directory.groups);
        let bound = directory.map_or(0, |directory| directory.page_bound);
        let present: u64 = listed.iter().map(|group| group.present).sum();
        let groups = listed.iter().map(|group| (group.number, Arc::new(Group::listed(group)))).collect();
        Maps {
            groups: Mutex::new(groups),
            bound: bound as PageId,
            replay_left: AtomicUsize::new(replay.as_ref().map_or(0, |replay| replay.pages().count())),
            replay_bytes: AtomicUsize::new(replay.as_ref().map_or(0, Replay::memory_bytes)),
            replay: Mutex::new(replay.map(Arc::new)),
            hidden_free: AtomicUsize::new(bound.saturating_sub(present) as usize),
            search: Mutex::new(0),
            searched: AtomicBool::new(false),
        }
    }

    /// The group of that number.
    pub(crate) fn group(&self, number: u64) -> Arc<Group> {
        let mut groups = self.groups.lock();
        groups.entry(number).or_insert_with(|| Arc::new(Group::empty(number))).clone()
    }

    /// Every group, in order.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.lock().values().cloned().collect()
    }

    /// The changes of the log's tail, while there are pages that lack theirs.
    pub(crate) fn replay(&self) -> Option<Arc<Replay>> {
        self.replay.lock().clone()
    }

    /// Says that this many pages of the tail are in their cells, and so many free ids known.
    pub(super) fn loaded(&self, replayed: usize, free: usize) {
        // Relaxed: counts; what they count was published otherwise.
        let hidden = self.hidden_free.load(Ordering::Relaxed);
        self.hidden_free.fetch_sub(free.min(hidden), Ordering::Relaxed);
        if replayed > 0 && self.replay_left.fetch_sub(replayed, Ordering::Relaxed) == replayed {
            *self.replay.lock() = None;
            self.replay_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes of memory of what the log's tail says, while there are pages that lack their changes.
    #[inline]
    pub(crate) fn replay_bytes(&self) -> usize {
        self.replay_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of memory of what is known of the groups.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.groups().iter().map(|group| group.memory_bytes()).sum()
    }

    /// Ids that are free and not in the list of free ids, as the checkpoint has it.
    pub(crate) fn hidden_free(&self) -> usize {
        self.hidden_free.load(Ordering::Relaxed)
    }
}

impl Group {
    fn listed(group: &GroupRef) -> Group {
        let pages = group.index.is_none().then(BTreeMap::new);
        let GroupRef { number, present, index, changes } = group.clone();
        Group { number, table: Mutex::new(GroupTable { present, index, pages, changes }) }
    }

    fn empty(number: u64) -> Group {
        Group::listed(&GroupRef { number, present: 0, index: None, changes: Vec::new() })
    }

    /// The group's table, which is not superseded meanwhile (MAPS-1).
    pub(crate) fn lock(&self) -> MutexGuard<'_, GroupTable> {
        self.table.lock()
    }

    fn memory_bytes(&self) -> usize {
        let table = self.lock();
        let pages = table.pages.as_ref().map_or(0, BTreeMap::len);
        size_of::<Group>()
            + pages * size_of::<(u8, MapPageRef)>()
            + table.changes.capacity() * size_of::<FrameRef>()
    }

    /// What the directory says of the group.
    pub(crate) fn entry(&self, table: &GroupTable) -> GroupRef {
        let GroupTable { present, index, changes, .. } = table.clone();
        GroupRef { number: self.number, present, index, changes }
    }
}

impl GroupTable {
    /// The index as it was read.
    pub(super) fn set_index(&mut self, index: Index) {
        self.pages = Some(index.map_pages.into_iter().map(|page| (page.number, page)).collect());
    }

    /// The map pages, if the index was read.
    pub(crate) fn pages(&self) -> Option<&BTreeMap<u8, MapPageRef>> {
        self.pages.as_ref()
    }

    /// Replaces map pages by these, which hold every change; returns what is not referred to any more,
    /// the index among it.
    pub(crate) fn fold(&mut self, folded: impl Iterator<Item = MapPageRef>) -> Vec<FragmentAddr> {
        let pages = self.pages.get_or_insert_default();
        let mut superseded: Vec<FragmentAddr> =
            folded.filter_map(|page| pages.insert(page.number, page)).map(|page| page.at.addr).collect();
        superseded.extend(self.index.take().into_iter().chain(self.changes.drain(..)).map(|at| at.addr));
        superseded
    }

    /// Every frame of the group that is known.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FragmentAddr> {
        let pages = self.pages.iter().flat_map(BTreeMap::values).map(|page| page.at.addr);
        let beside = self.index.iter().chain(&self.changes).map(|at| at.addr);
        pages.chain(beside)
    }

    /// True if the map page may have a free id among `ids`.
    pub(super) fn may_have_free(&self, page: u8, ids: u64) -> bool {
        let present = self.pages.as_ref().and_then(|pages| pages.get(&page)).map_or(0, |page| page.present);
        !self.changes.is_empty() || u64::from(present) < ids
    }
}
