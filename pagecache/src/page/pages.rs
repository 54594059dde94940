//! All pages of a store in memory: cells by page id, which of them may be dirty, which ids are free.
//!
//! * PAGES-1: a page whose chain holds a change that its durable form lacks has its dirty bit set, or
//!   the writer that installed the change has not yet completed its reservation. The writer swaps the
//!   head, then reads the bit; the scan clears the bit, then reads the head: both sequentially
//!   consistent, so one of them sees the other.
//! * PAGES-2: an id in the free list is Free in the newest durable checkpoint, so that handing it out
//!   again cannot bring an old page back after a crash, and every guard that lived when it was given
//!   back is gone: who still holds the key of the page that was allocated under it cannot use it on
//!   another page (P-11).

use std::sync::Arc;

use crate::{
    error::Failure,
    ids::{PAGE_ID_LIMIT, PageId},
    page::{
        cell::{Cell, DirtyBits, Head, Word},
        spans::Spans,
        table::Table,
    },
    reclaim::{Guard, pin},
    sync::{AtomicBool, AtomicUsize, Mutex, Ordering},
};

const PAGES_PER_WORD: usize = 64;

/// The mapping table and what goes with it.
pub(crate) struct Pages<P: Send + Sync + 'static> {
    cells: Table<Cell<P>>,
    dirty: Table<DirtyBits>,
    bound: AtomicUsize,
    /// Which of the pages that the store was opened with have their cells.
    pub(crate) spans: Spans,
    /// Owned by deferred work too, which may outlive the store.
    free: Arc<Mutex<Vec<PageId>>>,
    reuses_at_once: AtomicBool,
}

impl<P: Send + Sync + 'static> Pages<P> {
    pub(crate) fn new() -> Pages<P> {
        Pages {
            cells: Table::new(),
            dirty: Table::new(),
            bound: AtomicUsize::new(0),
            spans: Spans::default(),
            free: Arc::new(Mutex::new(Vec::new())),
            reuses_at_once: AtomicBool::new(false),
        }
    }

    /// Ids below this were allocated at some time.
    pub(crate) fn bound(&self) -> PageId {
        self.bound.load(Ordering::Acquire)
    }

    /// The page's cell, if the id was ever allocated.
    #[inline]
    pub(crate) fn cell(&self, pid: PageId) -> Option<&Cell<P>> {
        self.cells.get(pid)
    }

    /// Hands out an id whose page is now Allocated: a freed one, or the next.
    pub(crate) fn allocate(&self, guard: &Guard) -> Result<PageId, Failure> {
        let freed = self.free.lock().pop();
        if let Some(pid) = freed {
            let cell = self.cell(pid).expect("a free id is below the bound");
            let (word, head) = cell.head(guard);
            let Head::Free(seq) = head else {
                unreachable!("page {pid} is in the free list and is {word:?}");
            };
            assert!(cell.set(word, Word::allocated(seq), guard), "a free id is handed out once");
            return Ok(pid);
        }
        let pid = self.bound.fetch_add(1, Ordering::AcqRel);
        if pid as u64 >= PAGE_ID_LIMIT {
            return Err(Failure::Unsupported {
                what: format!("a store holds at most {PAGE_ID_LIMIT} pages"),
            });
        }
        self.dirty.get_or_grow(pid / PAGES_PER_WORD)?;
        let cell = self.cells.get_or_grow(pid)?;
        assert!(cell.set(Word::unallocated(), Word::allocated(0), guard), "a new id is handed out once");
        Ok(pid)
    }

    /// Gives ids back whose pages are Free, durably or without ever having been logged (PAGES-2). They
    /// are handed out again once every guard of now is gone.
    pub(crate) fn give_back(&self, pids: Vec<PageId>, guard: &Guard) {
        // Relaxed: set before the store is used.
        if self.reuses_at_once.load(Ordering::Relaxed) {
            self.free.lock().extend(pids);
        } else if !pids.is_empty() {
            let free = self.free.clone();
            guard.defer(move || free.lock().extend(pids));
        }
    }

    /// For a store whose background runs on its caller's own thread: ids given back are handed out at
    /// once, because epochs depend on every thread of the process, and a simulation must repeat.
    pub(crate) fn reuse_at_once(&self) {
        self.reuses_at_once.store(true, Ordering::Relaxed);
    }

    /// Recovery: ids that are free, and that nobody knows of yet.
    pub(crate) fn restore_given_back(&self, pids: &[PageId]) {
        self.free.lock().extend_from_slice(pids);
    }

    /// How many ids wait to be used again.
    pub(crate) fn free_count(&self) -> usize {
        self.free.lock().len()
    }

    /// Says that the page holds a change that is not durable in the `pages` file.
    #[inline]
    pub(crate) fn mark_dirty(&self, pid: PageId) {
        let word = self.dirty.get(pid / PAGES_PER_WORD).expect("the bitmap grows before the page");
        let bit = 1 << (pid % PAGES_PER_WORD);
        // SeqCst: see PAGES-1.
        if word.0.load(Ordering::SeqCst) & bit == 0 {
            word.0.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Clears every dirty bit and calls `visit` with each page that had it. The visitor marks a page
    /// that stays dirty again.
    pub(crate) fn drain_dirty(&self, mut visit: impl FnMut(PageId)) {
        let bound = self.bound();
        for index in 0..bound.div_ceil(PAGES_PER_WORD) {
            let Some(word) = self.dirty.get(index) else { continue };
            if word.0.load(Ordering::SeqCst) == 0 {
                continue;
            }
            // SeqCst: see PAGES-1.
            let mut bits = word.0.swap(0, Ordering::SeqCst);
            while bits != 0 {
                visit(index * PAGES_PER_WORD + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Recovery: ids below `bound` exist from now on, and their cells are to be filled span by span.
    pub(crate) fn restore_bound(&mut self, bound: PageId) -> Result<(), Failure> {
        self.cells.grow(bound)?;
        self.dirty.grow(bound.div_ceil(PAGES_PER_WORD))?;
        self.spans = Spans::new(bound);
        self.bound.store(bound, Ordering::Release);
        Ok(())
    }
}

impl<P: Send + Sync + 'static> Drop for Pages<P> {
    fn drop(&mut self) {
        let guard = pin();
        for (first, cells) in self.cells.chunks() {
            // Cells that nobody filled own nothing, and most of them are memory that was never touched.
            let mut pid = first;
            while let Some(cell) = cells.get(pid - first) {
                match self.spans.skip(pid) {
                    Some(next) => pid = next,
                    None => {
                        cell.retire_all(&guard);
                        pid += 1;
                    }
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "pages_schedules.rs"]
mod schedules;
