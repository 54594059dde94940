//! Ids for new pages: those that wait to be used again, those that are free in parts of the page table
//! which nobody has asked for yet, then new ones.
//!
//! The search through the table goes over it once after an open, a few frames at each call that finds no
//! other id, so no id is lost over restarts and no call waits long. What is damaged is passed over.
//!
//! When an id may be handed out again is told in [`crate::page::pages`] (PAGES-2).

use super::{Cache, maps::GROUP_PAGES};
use crate::{
    error::Failure,
    format::map::{GROUP_SPAN, MAP_SPAN},
    ids::PageId,
    materializer::Materializer,
    reclaim::Guard,
    sync::Ordering,
};

/// Frames of the table that one call reads at most, not counting changes.
const READS_MAX: usize = 8;

impl<M: Materializer> Cache<M> {
    /// Hands out an id whose page is now Allocated: a freed one, or the next.
    pub(crate) fn allocate(&self, guard: &Guard) -> Result<PageId, Failure> {
        // Relaxed: a search too many finds nothing.
        if !self.maps.searched.load(Ordering::Relaxed) && self.pages.free_count() == 0 {
            self.search_free();
        }
        self.pages.allocate(guard)
    }

    /// Loads map pages with free ids, a few at a time. What is damaged is passed over: its ids are not
    /// used again.
    #[cold]
    fn search_free(&self) {
        let Some(mut next) = self.maps.search.try_lock() else { return };
        let bound = self.pages.spans.bound() as u64;
        let mut reads = 0;
        while reads < READS_MAX && self.pages.free_count() == 0 {
            let (number, first) = (*next, *next * MAP_SPAN);
            if first >= bound {
                // Relaxed: see `allocate`.
                self.maps.searched.store(true, Ordering::Relaxed);
                return;
            }
            let group = self.maps.group(number / GROUP_SPAN);
            let mut table = group.lock();
            let group_first = group.number * GROUP_PAGES;
            let is_full = table.present >= GROUP_PAGES.min(bound - group_first);
            let was_read = table.pages().is_some();
            if is_full || self.read_index(group.number, &mut table).is_err() {
                *next = (group.number + 1) * GROUP_SPAN;
                continue;
            }
            let may = table.may_have_free((number % GROUP_SPAN) as u8, MAP_SPAN.min(bound - first));
            drop(table);
            reads += usize::from(!was_read);
            *next += 1;
            if may && !self.pages.spans.is_filled(first as PageId) {
                reads += 1;
                let _passed_over = self.load(first as PageId);
            }
        }
    }
}
