//! All pages of a store in memory: cells by page id, which of them may be dirty, which ids are free.
//!
//! * PAGES-1: a page whose chain holds a change that its durable form lacks has its dirty bit set, or
//!   the writer that installed the change has not yet completed its reservation. The writer swaps the
//!   head, then reads the bit; the scan clears the bit, then reads the head: both sequentially
//!   consistent, so one of them sees the other.
//! * PAGES-3: a bit is taken away for good by a scan, or by who wrote the page back, never by both at a
//!   time: between taking a bit and setting it again a page that is dirty looks clean, and a scan that
//!   met it then would let go of log that the page needs.
//! * PAGES-2: an id in the free list is Free in the newest durable checkpoint, so that handing it out
//!   again cannot bring an old page back after a crash, and every guard that lived when it was given
//!   back is gone: who still holds the key of the page that was allocated under it cannot use it on
//!   another page (P-11).

use std::sync::Arc;

use crate::{
    error::Failure,
    ids::{PAGE_ID_LIMIT, PageId},
    mem::Placed,
    page::{
        cell::{Cell, DirtyBits, Head, Word},
        durable::Durable,
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
    /// Bits that are set, to within those that are being changed.
    dirty_count: AtomicUsize,
    /// Held while the dirty bits are read for a checkpoint, and while one bit is taken away.
    scanning: Mutex<()>,
    /// Durable records, and the bytes that these have beside their blocks of page memory.
    durable_count: AtomicUsize,
    beside_durable_bytes: AtomicUsize,
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
            dirty_count: AtomicUsize::new(0),
            scanning: Mutex::new(()),
            durable_count: AtomicUsize::new(0),
            beside_durable_bytes: AtomicUsize::new(0),
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

    /// Says that the page holds a change that is not durable in the `pages` file. True if that is news.
    #[inline]
    pub(crate) fn mark_dirty(&self, pid: PageId) -> bool {
        let (word, bit) = self.dirty_bit(pid);
        // SeqCst: see PAGES-1.
        if word.0.load(Ordering::SeqCst) & bit != 0 || word.0.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
            return false;
        }
        self.dirty_count.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn dirty_bit(&self, pid: PageId) -> (&DirtyBits, u64) {
        let word = self.dirty.get(pid / PAGES_PER_WORD).expect("the bitmap grows before the page");
        (word, 1 << (pid % PAGES_PER_WORD))
    }

    /// How many pages may be dirty.
    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty_count.load(Ordering::Relaxed)
    }

    /// Every page that may be dirty, in order. They stay marked.
    pub(crate) fn dirty_pages(&self) -> Vec<PageId> {
        let words = self.bound().div_ceil(PAGES_PER_WORD);
        (0..words).flat_map(|index| self.dirty_in(index)).collect()
    }

    /// Some pages that may be dirty, at least `count` if there are as many, going round from `from` on;
    /// and where to go on. They stay marked.
    pub(crate) fn some_dirty(&self, from: PageId, count: usize) -> (Vec<PageId>, PageId) {
        let words = self.bound().div_ceil(PAGES_PER_WORD).max(1);
        let first = from / PAGES_PER_WORD;
        let mut found = Vec::new();
        for step in 0..words {
            let index = (first + step) % words;
            found.extend(self.dirty_in(index));
            if found.len() >= count {
                return (found, (index + 1) % words * PAGES_PER_WORD);
            }
        }
        (found, from)
    }

    fn dirty_in(&self, index: usize) -> impl Iterator<Item = PageId> + use<P> {
        // Relaxed: who must not miss a page calls `scan_dirty`.
        let mut bits = self.dirty.get(index).map_or(0, |word| word.0.load(Ordering::Relaxed));
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(index * PAGES_PER_WORD + bit)
        })
    }

    /// Clears every dirty bit, calls `is_dirty` with each page that had it, and sets it again if that
    /// says so.
    pub(crate) fn scan_dirty(&self, mut is_dirty: impl FnMut(PageId) -> bool) {
        let _scan = self.scanning.lock();
        let bound = self.bound();
        for index in 0..bound.div_ceil(PAGES_PER_WORD) {
            let Some(word) = self.dirty.get(index) else { continue };
            if word.0.load(Ordering::SeqCst) == 0 {
                continue;
            }
            // SeqCst: see PAGES-1.
            let mut bits = word.0.swap(0, Ordering::SeqCst);
            self.dirty_count.fetch_sub(bits.count_ones() as usize, Ordering::Relaxed);
            while bits != 0 {
                let pid = index * PAGES_PER_WORD + bits.trailing_zeros() as usize;
                if is_dirty(pid) {
                    self.mark_dirty(pid);
                }
                bits &= bits - 1;
            }
        }
    }

    /// Takes a page's dirty bit away, unless `is_dirty` says that it has to stay or a scan is under way
    /// (PAGES-3).
    pub(crate) fn unmark_dirty(&self, pid: PageId, is_dirty: impl FnOnce() -> bool) {
        let Some(_no_scan) = self.scanning.try_lock() else { return };
        let (word, bit) = self.dirty_bit(pid);
        // SeqCst: see PAGES-1.
        if word.0.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
            self.dirty_count.fetch_sub(1, Ordering::Relaxed);
            if is_dirty() {
                self.mark_dirty(pid);
            }
        }
    }

    /// Says that a durable record takes the place of another, or is a page's first.
    pub(crate) fn note_durable(&self, before: Option<&Durable>, after: &Durable) {
        // Relaxed: sums that nobody orders anything by. One may wrap on the way to a smaller one.
        if before.is_none() {
            self.durable_count.fetch_add(1, Ordering::Relaxed);
        }
        let more = after.bytes_beside().wrapping_sub(before.map_or(0, Durable::bytes_beside));
        if more != 0 {
            self.beside_durable_bytes.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Bytes of page memory that durable records take.
    pub(crate) fn durable_bytes(&self) -> usize {
        self.durable_count.load(Ordering::Relaxed) * Placed::<Durable>::block_bytes()
    }

    /// Bytes of other memory: what the cells and dirty bits take, and what durable records have beside.
    pub(crate) fn memory_bytes(&self) -> (usize, usize) {
        // Memory of the table that was never written to is none.
        let unread = self.spans.bound().saturating_sub(self.spans.filled_cells()) * size_of::<Cell<P>>();
        let cells = self.cells.memory_bytes().saturating_sub(unread);
        (cells + self.dirty.memory_bytes(), self.beside_durable_bytes.load(Ordering::Relaxed))
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
#[path = "pages_tests.rs"]
mod tests;

#[cfg(all(test, not(loom)))]
#[path = "pages_schedules.rs"]
mod schedules;
