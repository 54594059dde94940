//! What stays in memory: pages are fetched when asked for, consolidated where they are read or
//! written, written back to the `pages` file, and evicted when memory is short.
//!
//! * CACHE-1: every byte that becomes resident is charged at that moment and uncharged when it is
//!   swapped out of its cell.
//! * CACHE-2: a page whose chain holds a pending fragment is not consolidated or written back, and only
//!   what lies under the fragment and is durable is evicted: installs are short, one comes back later.
//! * CACHE-3: a page's durable word changes only under its claim and under the lock of the list of
//!   map changes, so a prefix of that list is exactly a state of the durable words.
//!
//! Of a store that was opened, [`maps`] knows where the page table lies and [`replay`] what the log adds;
//! [`load`] fills cells from both. What a checkpoint does with the list is [`super::checkpoint`]'s business.

mod budget;
mod changes;
mod durable;
mod evict;
mod fold;
mod free;
mod load;
mod maps;
mod pressure;
mod readers;
mod relocate;
mod replay;
mod resident;
mod snapshots;
mod values;
mod victims;
mod writeback;

use std::{mem::size_of, sync::Arc};

pub(crate) use budget::Budget;
pub(crate) use changes::{Changes, Folds, GroupForm, Prefix, Wanted};
pub(crate) use maps::{GROUP_PAGES, Group, GroupTable, Maps};
pub(crate) use replay::{Replay, RunPlaces, TailChange};
pub(crate) use resident::{Resident, is_value};
pub(crate) use snapshots::{Keep, Snapshots};
pub(crate) use values::{NewValue, Written as WrittenValue};

use self::{readers::Readers, victims::Victims};
use crate::{
    error::Poison,
    ids::{Lsn, PageId},
    materializer::Materializer,
    mem::PageMemory,
    metrics::{Metrics, Work},
    page::{chain::Node, pages::Pages},
    store::Store,
    sync::{AtomicBool, Mutex},
};

/// The pages of a store: those in memory, and the way to the rest.
pub(crate) struct Cache<M: Materializer> {
    pub(crate) pages: Pages<M::PageFrag>,
    /// The persisted page table, as far as the cells do not have it.
    pub(crate) maps: Maps,
    pub(crate) store: Store,
    pub(crate) materializer: M,
    /// Where nodes of chains lie.
    pub(crate) memory: PageMemory,
    pub(crate) changes: Mutex<Changes>,
    /// Off until the owner says otherwise.
    pub(crate) metrics: Metrics<Work>,
    pub(crate) poison: Arc<Poison>,
    pub(crate) readers: Readers,
    pub(crate) budget: Budget,
    /// Positions at which somebody still reads.
    pub(crate) snapshots: Arc<Snapshots>,
    victims: Mutex<Victims>,
    /// Where to go on with cleaning dirty pages.
    cleaned_from: Mutex<PageId>,
    /// Dirty pages have more than their part of the memory.
    too_many_dirty: AtomicBool,
}

impl<M: Materializer> Cache<M> {
    pub(crate) fn new(
        materializer: M,
        memory: PageMemory,
        pages: Pages<M::PageFrag>,
        maps: Maps,
        store: Store,
        budget: Budget,
        poison: Arc<Poison>,
    ) -> Cache<M> {
        Cache {
            pages,
            maps,
            store,
            materializer,
            memory,
            changes: Mutex::new(Changes::default()),
            metrics: Metrics::off(),
            poison,
            readers: Readers::default(),
            budget,
            snapshots: Arc::default(),
            victims: Mutex::new(Victims::default()),
            cleaned_from: Mutex::new(0),
            too_many_dirty: AtomicBool::new(false),
        }
    }

    /// One fragment for several, oldest first.
    pub(crate) fn merge(&self, oldest_first: &[&M::PageFrag]) -> M::PageFrag {
        let _timing = self.metrics.time(Work::Merge);
        self.materializer.merge(oldest_first)
    }

    /// As [`Cache::merge`], with what readers at the positions `keep` must see.
    pub(crate) fn merge_versions(&self, oldest_first: &[(&M::PageFrag, Lsn)], keep: &[Lsn]) -> M::PageFrag {
        let _timing = self.metrics.time(Work::Merge);
        self.materializer.merge_versions(oldest_first, keep)
    }

    /// Bytes that a node with this fragment occupies.
    #[inline]
    pub(crate) fn charge_of(&self, frag: Option<&M::PageFrag>) -> usize {
        size_of::<Node<M::PageFrag>>() + frag.map_or(0, |frag| self.materializer.size_in_bytes(frag))
    }

    #[inline]
    pub(crate) fn charge(&self, bytes: usize) {
        self.budget.charge(bytes);
    }

    #[inline]
    pub(crate) fn uncharge(&self, bytes: usize) {
        self.budget.uncharge(bytes);
    }

    /// Bytes that pages may occupy.
    #[inline]
    pub(crate) fn pages_max(&self) -> usize {
        self.budget.pages_max(self.table_bytes())
    }

    /// Bytes of the mapping table, of what it says of durable forms, and of what it does not say yet.
    #[inline]
    pub(crate) fn table_bytes(&self) -> usize {
        let (cells, beside) = self.pages.memory_bytes();
        cells + beside + self.pages.durable_bytes() + self.maps.replay_bytes()
    }
}
