//! The budget: one number for all memory of a store, and what is charged to it.
//!
//! | owner | how it is known |
//! |---|---|
//! | pages and changes in memory | charged when a chain enters a cell, uncharged when it leaves (CACHE-1) |
//! | former pages that a reader may still see, leaves that iterators hold | page memory counts them |
//! | cut of page memory: part-filled slabs | page memory counts them |
//! | cells, durable records (page memory too), the log's tail by page | the table counts them, and the tail |
//! | free runs of page memory | a thirty-second at most, on top (MEM-4) |
//! | log buffers | their turns are cut to a sixteenth of the budget each |
//! | bytes on their way to and from the disk | [`InFlight`] |
//!
//! * BUDGET-1: pages get what the other owners leave, and half of the budget at least: a store with a
//!   tiny budget still works, and the rest comes on top.
//! * BUDGET-2: writers keep a twentieth of it free, which readers use for pages that they fetch; dirty
//!   pages take three fifths at most. So a reader finds something clean to evict and waits for nothing
//!   but its own page.
//!
//! Who is to do what about it is [`super::pressure`]'s business.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// Part of the budget that the turns of the log's buffers may take together.
const LOG_DIVISOR: usize = 4;
/// A turn of the log is not shorter than this, in bytes.
const TURN_BYTES_MIN: usize = 64 << 10;
/// Nor longer: so the buffers stay in the processor's cache.
const TURN_BYTES_MAX: usize = 512 << 10;
/// Part of the pages' share that writers leave to readers.
const READERS_DIVISOR: usize = 20;
/// Bytes of part-filled slabs that every store may have on top: one or two of each class that is in use.
const SLABS_ON_TOP_BYTES: usize = 2 << 20;

/// What a store's memory may be, and the part of it that changes too often to be counted elsewhere.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    log_bytes: AtomicUsize,
    resident_bytes: AtomicUsize,
    resident_pages: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    counts_pages_only: AtomicBool,
}

/// What page memory and the table say when the budget is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elsewhere {
    pub(crate) table_bytes: usize,
    pub(crate) retired_bytes: usize,
    pub(crate) held_bytes: usize,
}

/// How much of the budget pages have, and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// What they take: themselves and what was made of them, or the slabs that they lie in.
    pub(crate) used: usize,
    /// What writers keep them to.
    pub(crate) soft: usize,
    /// What nobody exceeds for long.
    pub(crate) hard: usize,
}

impl Share {
    #[inline]
    pub(crate) fn over_soft(self) -> usize {
        self.used.saturating_sub(self.soft)
    }

    #[inline]
    pub(crate) fn is_over_hard(self) -> bool {
        self.used > self.hard
    }
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Budget {
        Budget {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            log_bytes: AtomicUsize::new(0),
            resident_bytes: AtomicUsize::new(0),
            resident_pages: AtomicUsize::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            counts_pages_only: AtomicBool::new(false),
        }
    }

    /// For a store whose background runs on its caller's own thread: what waits for the epoch does not count,
    /// because that depends on every thread of the process, and a simulation must repeat.
    pub(crate) fn count_pages_only(&self) {
        // Relaxed: set before the store is used.
        self.counts_pages_only.store(true, Ordering::Relaxed);
    }

    /// True if what waits for the epoch is part of what pages take.
    #[inline]
    pub(crate) fn counts_garbage(&self) -> bool {
        !self.counts_pages_only.load(Ordering::Relaxed)
    }

    /// The budget itself.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long a turn of one of the log's `buffers` may be, a turn for a larger record apart; charged
    /// from now on.
    pub(crate) fn take_log_turns(&self, buffers: usize, buffer_bytes: usize) -> usize {
        let share = self.bytes / LOG_DIVISOR / buffers;
        let turn = share.clamp(TURN_BYTES_MIN, TURN_BYTES_MAX).min(buffer_bytes);
        self.log_bytes.store(turn * buffers, Ordering::Relaxed);
        turn
    }

    // Sums that nobody orders anything by: all Relaxed.

    #[inline]
    pub(crate) fn charge(&self, bytes: usize) {
        self.resident_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn uncharge(&self, bytes: usize) {
        self.resident_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.resident_bytes.load(Ordering::Relaxed)
    }

    /// A page has come into memory.
    pub(crate) fn page_entered(&self) {
        self.resident_pages.fetch_add(1, Ordering::Relaxed);
    }

    /// A page has left memory.
    pub(crate) fn page_left(&self) {
        self.resident_pages.fetch_sub(1, Ordering::Relaxed);
    }

    /// What so many pages take, if they are like the others.
    pub(crate) fn bytes_of_pages(&self, pages: usize) -> usize {
        let resident = self.resident_pages.load(Ordering::Relaxed).max(pages).max(1);
        (self.resident_bytes() as u128 * pages as u128 / resident as u128) as usize
    }

    /// Says that so many bytes are on their way to or from the disk.
    pub(crate) fn in_flight(&self, bytes: usize) -> InFlight<'_> {
        self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        InFlight { budget: self, bytes }
    }

    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Relaxed)
    }

    /// What pages may have when nothing is over a mark.
    #[inline]
    pub(crate) fn pages_max(&self, table_bytes: usize) -> usize {
        let others = self.log_bytes.load(Ordering::Relaxed) + self.in_flight_bytes() + table_bytes;
        self.bytes.saturating_sub(others).max(self.bytes / 2)
    }

    #[inline]
    pub(crate) fn share(&self, elsewhere: Elsewhere) -> Share {
        let hard = self.pages_max(elsewhere.table_bytes);
        let pages = self.resident_bytes();
        let used = if self.counts_garbage() {
            let held = elsewhere.held_bytes.saturating_sub(SLABS_ON_TOP_BYTES);
            held.max(pages + elsewhere.retired_bytes)
        } else {
            pages
        };
        Share { used, soft: hard - hard / READERS_DIVISOR, hard }
    }
}

/// Bytes that somebody is reading or writing; they count until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl InFlight<'_> {
    /// Says how many they are by now.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.budget.in_flight_bytes.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Budget, Elsewhere, Share};

    const NOTHING: Elsewhere = Elsewhere { table_bytes: 0, retired_bytes: 0, held_bytes: 0 };

    #[test]
    fn pages_get_what_the_others_leave_and_half_at_least() {
        let budget = Budget::new(100 << 20);
        assert_eq!(budget.take_log_turns(4, 2 << 20), 512 << 10);
        assert_eq!(budget.pages_max(2 << 20), 96 << 20);
        let mut writing = budget.in_flight(10 << 20);
        assert_eq!(budget.pages_max(0), 88 << 20);
        writing.set(80 << 20);
        assert_eq!(budget.pages_max(20 << 20), 50 << 20);
        drop(writing);
        assert_eq!(budget.in_flight_bytes(), 0);
    }

    #[test]
    fn the_log_takes_a_quarter_of_a_small_budget_and_a_record_s_worth_of_a_tiny_one() {
        for (budget, turn) in
            [(64u64 << 20, 512 << 10), (4 << 20, 256 << 10), (1 << 20, 64 << 10), (1, 64 << 10)]
        {
            assert_eq!(Budget::new(budget).take_log_turns(4, 2 << 20), turn, "a budget of {budget}");
        }
        assert_eq!(Budget::new(1).take_log_turns(4, 16 << 10), 16 << 10, "buffers are no longer than that");
    }

    #[test]
    fn whatever_holds_memory_is_used_memory() {
        let budget = Budget::new(100 << 20);
        budget.charge(30 << 20);
        let used = |elsewhere| budget.share(elsewhere).used;
        assert_eq!(used(NOTHING), 30 << 20);
        assert_eq!(used(Elsewhere { retired_bytes: 5 << 20, ..NOTHING }), 35 << 20);
        assert_eq!(used(Elsewhere { held_bytes: 50 << 20, ..NOTHING }), 48 << 20);
        let share = budget.share(NOTHING);
        assert_eq!(share, Share { used: 30 << 20, soft: 95 << 20, hard: 100 << 20 });
        assert_eq!((share.over_soft(), share.is_over_hard()), (0, false));
    }

    #[test]
    fn dirty_pages_are_taken_to_be_as_large_as_the_others() {
        let budget = Budget::new(100);
        assert_eq!(budget.bytes_of_pages(3), 0);
        for _ in 0..10 {
            budget.page_entered();
            budget.charge(7);
        }
        assert_eq!(budget.bytes_of_pages(3), 21);
        // Marks of pages that have left memory do not make more of them than there are.
        assert_eq!(budget.bytes_of_pages(30), 70);
    }
}
