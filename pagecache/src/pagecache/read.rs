//! Reading pages. Nothing here logs or syncs.
//!
//! A page in memory is read without a lock. The first to ask for a page of a part of the table that was not read
//! since the store was opened takes the lock of that part's group; whoever finds memory short tries to evict, and
//! may write a page back for it. How a page comes into memory is [`crate::cache`]'s business; large values are
//! read in [`super::values`].

use super::{
    PageCache,
    page_ptr::{PageGet, PagePtr, PageView, View},
};
use crate::{
    cache::Resident,
    error::{Failure, Result},
    ids::PageId,
    materializer::Materializer,
    mem::prefetch,
    metrics::Work,
    page::{
        cell::{Head, Word},
        chain::{Node, committed, lend, versions},
    },
    reclaim::Guard,
};

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// The page, merged, and its key.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Corruption`] or [`crate::Error::Io`] if the page could not be read back.
    pub fn get<'g>(&self, pid: PageId, guard: &'g Guard) -> Result<PageGet<'g, P>, Option<PagePtr<'g, P>>> {
        Ok(self.read(pid, guard)?)
    }

    /// As [`PageCache::get`], with the plain failure.
    ///
    /// # Errors
    ///
    /// As [`PageCache::get`].
    pub fn read<'g>(&self, pid: PageId, guard: &'g Guard) -> std::result::Result<PageGet<'g, P>, Failure> {
        let _timing = self.shared.cache.metrics.time(Work::Get);
        loop {
            // Before the page is fetched: where much may not leave memory, it would itself be what leaves, and
            // no key of it would ever be good.
            self.shared.make_room_to_read(true);
            match self.shared.cache.resident(pid, guard)? {
                Resident::Unallocated => return Ok(PageGet::Unallocated),
                Resident::Allocated(_) => return Ok(PageGet::Allocated),
                Resident::Free(word) => return Ok(PageGet::Free(PagePtr::of_word(word))),
                Resident::Chain(word, top) => {
                    if let Some(found) = self.materialize(pid, word, top, guard) {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// Merges a chain, in place if it is settled. `None` if the page changed meanwhile.
    fn materialize<'g>(
        &self,
        pid: PageId,
        word: Word<P>,
        top: &'g Node<P>,
        guard: &'g Guard,
    ) -> Option<PageGet<'g, P>> {
        let view = PageView::new(word, top);
        if let Some(frag) = view.settled() {
            return Some(PageGet::Materialized(frag, view.key()));
        }
        let cell = self.shared.cache.pages.cell(pid)?;
        if let Some((word, node)) = self.shared.cache.consolidate(cell, word, top, guard) {
            let view = PageView::new(word, node);
            return view.settled().map(|frag| PageGet::Materialized(frag, view.key()));
        }
        if !top.is_unsettled() && !self.shared.cache.snapshots.is_any_placed() {
            return None;
        }
        // Pending fragments stay where they are, and so does everything while a snapshot is taken; this reader
        // gets a copy.
        let cache = &self.shared.cache;
        let mut frags = committed(top)?.frags;
        frags.reverse();
        let merged = match cache.snapshots.positions() {
            none if none.is_empty() => cache.merge(&frags),
            positions => cache.merge_versions(&versions(top), &positions),
        };
        let merged = lend(merged, guard);
        Some(PageGet::Materialized(merged, view.key()))
    }

    /// The page, unmerged: its fragments and what is known of each.
    ///
    /// # Errors
    ///
    /// If the page could not be read back.
    #[inline]
    pub fn view<'g>(&self, pid: PageId, guard: &'g Guard) -> std::result::Result<View<'g, P>, Failure> {
        let resident = self.shared.cache.resident(pid, guard)?;
        Ok(match resident {
            Resident::Chain(word, top) => View::Page(PageView::new(word, top)),
            Resident::Free(word) => View::Free(PagePtr::of_word(word)),
            Resident::Allocated(word) => View::Allocated(PagePtr::of_word(word)),
            Resident::Unallocated => View::Unallocated,
        })
    }

    /// Asks the processor for a page's entry in the table, which a view of it reads first. Who is about
    /// to view several pages has these reads overlap, where they would wait for each other.
    #[inline]
    pub fn prefetch_entry(&self, pid: PageId) {
        if let Some(cell) = self.shared.cache.pages.cell(pid) {
            prefetch(cell);
        }
    }

    /// Asks for a page's newest fragment, which a view reads after the page's entry.
    #[inline]
    pub fn prefetch_newest(&self, pid: PageId, guard: &Guard) {
        if let Some(cell) = self.shared.cache.pages.cell(pid)
            && let (_, Head::Chain(top)) = cell.head(guard)
        {
            prefetch(top);
        }
    }

    /// The newest base of a page if both are in memory, as [`PageView::base_under`] no marks; reads
    /// nothing from disk, and says nothing of the changes above.
    #[inline]
    pub fn peek_base<'g>(&self, pid: PageId, guard: &'g Guard) -> Option<&'g P> {
        match self.shared.cache.pages.cell(pid)?.head(guard) {
            (word, Head::Chain(top)) => PageView::new(word, top).base_under(0),
            _ => None,
        }
    }

    /// Folds the page's fragments into one in memory, if none of them is pending and the page is
    /// still as `view` says. Returns the page as it is then.
    pub fn settle<'g>(
        &self,
        pid: PageId,
        view: PageView<'g, P>,
        guard: &'g Guard,
    ) -> Option<PageView<'g, P>> {
        let cell = self.shared.cache.pages.cell(pid)?;
        let (word, top) = self.shared.cache.consolidate(cell, view.word, view.top, guard)?;
        Some(PageView::new(word, top))
    }

    /// Makes the page's chain short, if none of its fragments is pending: unites its changes if they are
    /// few against their base, else folds it. Returns the page as it is then.
    pub fn shorten<'g>(
        &self,
        pid: PageId,
        view: PageView<'g, P>,
        guard: &'g Guard,
    ) -> Option<PageView<'g, P>> {
        let cell = self.shared.cache.pages.cell(pid)?;
        let (word, top) = self.shared.cache.shorten(cell, view.word, view.top, guard)?;
        Some(PageView::new(word, top))
    }

    /// Lets clean pages leave if memory is short. Who looks at pages by [`PageCache::view`] calls it now and
    /// then, without a guard; everything else does so by itself.
    pub fn keep_within_capacity(&self) {
        self.shared.make_room_to_read(false);
    }

    /// What a writer owes for the memory and the room on disk that it took: it evicts pages if memory is
    /// short, writes some back, and helps to clean, each a bounded piece at a time.
    ///
    /// A change does all this by itself, under its caller's guard, which holds up the memory of everybody.
    /// So whoever calls this once is taken to call it after each of its changes, holding no guard, and
    /// changes do only what cannot wait.
    pub fn pay(&self) {
        self.shared.pay();
    }
}
