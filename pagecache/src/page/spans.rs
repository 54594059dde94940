//! Which cells of an opened store were filled from the persisted page table.
//!
//! The table is read a map page at a time, when a page that it covers is first asked for: until then
//! the span's cells are null, which is also what an id says that was never allocated.
//!
//! * SPAN-1: a span is filled by one thread, which has the lock of its group, and marked afterwards:
//!   who sees the mark sees every cell of it filled. The mark stays.
//! * SPAN-2: a cell that is not filled has no claim, no touch and no change: whoever wants one of these
//!   sees a head that is not null first, and with it where the page lies.
//!
//! Ids from the bound on, at which the store was opened, are no span's business. How a span is filled is the
//! business of [`crate::cache`].

use crate::{
    format::map::MAP_SPAN,
    ids::PageId,
    sync::{AtomicU64, AtomicUsize, Ordering},
};

const SPAN: PageId = MAP_SPAN as PageId;

/// Marks of the spans below a bound.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    bound: PageId,
    /// One bit a span.
    filled: Box<[AtomicU64]>,
    /// How many are marked.
    marked: AtomicUsize,
}

impl Spans {
    /// Nothing below `bound` is filled.
    pub(crate) fn new(bound: PageId) -> Spans {
        let words = bound.div_ceil(SPAN).div_ceil(64);
        let filled = (0..words).map(|_| AtomicU64::new(0)).collect();
        Spans { bound, filled, marked: AtomicUsize::new(0) }
    }

    /// Ids from here on are in no span.
    pub(crate) fn bound(&self) -> PageId {
        self.bound
    }

    /// True if the page's cell says what there is to say of it.
    #[inline]
    pub(crate) fn is_filled(&self, pid: PageId) -> bool {
        if pid >= self.bound {
            return true;
        }
        let span = pid / SPAN;
        // Acquire pairs with the Release of `mark` (SPAN-1).
        self.filled[span / 64].load(Ordering::Acquire) & 1 << (span % 64) != 0
    }

    /// Says that the span around `pid` is filled.
    pub(crate) fn mark(&self, pid: PageId) {
        // Release publishes the cells (SPAN-1); the model shows that less will not do.
        self.mark_as(pid, Ordering::Release);
    }

    pub(super) fn mark_as(&self, pid: PageId, publish: Ordering) {
        let span = pid / SPAN;
        if self.filled[span / 64].fetch_or(1 << (span % 64), publish) & 1 << (span % 64) == 0 {
            // Relaxed: a count that nobody orders anything by.
            self.marked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Cells below the bound that are filled; the others were never touched.
    pub(crate) fn filled_cells(&self) -> usize {
        self.bound.min(self.marked.load(Ordering::Relaxed) * SPAN)
    }

    /// The first id behind the span around `pid`, if that is not filled.
    pub(crate) fn skip(&self, pid: PageId) -> Option<PageId> {
        (!self.is_filled(pid)).then(|| self.bound.min((pid / SPAN + 1) * SPAN))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{SPAN, Spans};

    #[test]
    fn a_span_is_filled_as_a_whole_and_the_last_one_ends_at_the_bound() {
        let spans = Spans::new(70 * SPAN + 5);
        assert_eq!(spans.skip(0), Some(SPAN));
        assert_eq!(spans.skip(70 * SPAN + 1), Some(70 * SPAN + 5));
        spans.mark(65 * SPAN + 9);
        for pid in [65 * SPAN, 66 * SPAN - 1, 70 * SPAN + 5, usize::MAX] {
            assert!(spans.is_filled(pid) && spans.skip(pid).is_none(), "{pid}");
        }
        for pid in [0, SPAN, 65 * SPAN - 1, 66 * SPAN, 70 * SPAN + 4] {
            assert!(!spans.is_filled(pid), "{pid}");
        }
        assert!(Spans::default().is_filled(0));
    }
}
