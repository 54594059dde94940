//! Who does what when memory is short.
//!
//! * PRESSURE-1: a reader of pages that are in memory does nothing and waits for nothing. One who fetches a
//!   page evicts clean ones for it, without the disk. Only where a sleeper's guard keeps a sixteenth of the
//!   memory from being freed, and the hard mark is passed, it waits for that, less than a millisecond.
//! * PRESSURE-2: a writer beyond the soft mark does one bounded piece of work, more of it the further beyond:
//!   evicts clean pages, and writes dirty ones back if it must. Only beyond the hard mark it does several.
//!   Pieces of several writers go on side by side; nobody waits for another's.
//! * PRESSURE-3: a writer that makes a page dirty while dirty pages have three fifths of the memory writes
//!   some back, so that there is always something that a reader may evict.
//!
//! What is chosen is [`super::victims`]' business.

use std::{thread, time::Duration};

use super::{
    Cache,
    budget::{Elsewhere, Share},
};
use crate::{
    error::Failure, materializer::Materializer, metrics::Work, reclaim::pin, store::Purpose, sync::Ordering,
};

/// Bytes of one piece of work, at least, and its divisor of the memory for pages where that is little.
const PIECE_BYTES_MIN: usize = 64 << 10;
const PIECE_DIVISOR: usize = 32;
/// Bytes of one piece of work, at most.
const PIECE_BYTES_MAX: usize = 512 << 10;
/// Pieces that one writer does in a row.
const PIECES_MAX: usize = 8;
/// Times that garbage is asked for before pages are evicted in its stead: an epoch takes two.
const COLLECTIONS_MAX: usize = 4;
/// Part of the memory for pages beyond the hard mark that is too much even for who holds a guard.
const URGENT_DIVISOR: usize = 16;
/// Part of the memory for pages that garbage must have before somebody waits for it to go, and bytes.
const RETIRED_DIVISOR: usize = 16;
const RETIRED_BYTES_MIN: usize = 4 << 20;
/// Waits of one reader or writer, the first of which takes so long and each other twice as long as the one
/// before.
/// One more wait for each such part of the hard mark beyond it.
const WAITS_PER_HARD: usize = 16;
const READER_WAITS_MAX: u32 = 4;
const WRITER_WAITS_MAX: u32 = 7;
const WAIT: Duration = Duration::from_micros(50);
/// Dirty pages may take this part of the memory for pages.
const DIRTY_PERCENT: usize = 60;
/// Pages that a writer cleans when there are more.
const CLEANED_PAGES: usize = 16;

impl<M: Materializer> Cache<M> {
    #[inline]
    fn share(&self) -> Share {
        self.budget.share(Elsewhere {
            table_bytes: self.table_bytes(),
            retired_bytes: self.memory.retired_bytes(),
            // Durable records lie in slabs too, and count as the table's.
            held_bytes: self.memory.held_bytes().saturating_sub(self.pages.durable_bytes()),
        })
    }

    /// True if pages take more than writers should let them.
    #[inline]
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.share().over_soft() > 0
    }

    /// True if pages take more than anybody should let them.
    #[inline]
    pub(crate) fn is_far_too_short_of_memory(&self) -> bool {
        let share = self.share();
        share.used > share.hard + share.hard / URGENT_DIVISOR
    }

    /// What a reader does about it: clean pages leave, nothing is written, nobody is waited for.
    pub(crate) fn make_room_to_read(&self, holds_guard: bool) {
        let _timing = self.metrics.time(Work::Evict);
        if !holds_guard {
            self.wait_for_readers(READER_WAITS_MAX);
        }
        let wanted = self.piece();
        if let Some(mut victims) = self.victims.try_lock() {
            let chosen = self.choose_victims(&mut victims, wanted);
            drop(victims);
            self.evict_clean(&chosen);
        }
    }

    /// What a writer does about it.
    ///
    /// # Errors
    ///
    /// That of writing pages back.
    pub(crate) fn make_room_to_write(&self) -> Result<(), Failure> {
        let _timing = self.metrics.time(Work::Evict);
        if self.has_too_many_dirty() {
            self.keep_some_clean()?;
        }
        for _ in 0..PIECES_MAX {
            self.wait_for_readers(WRITER_WAITS_MAX);
            let wanted = self.piece();
            if wanted == 0 {
                break;
            }
            let chosen = self.choose_victims(&mut self.victims.lock(), wanted);
            let dirty = self.evict_clean(&chosen);
            self.evict_dirty(&dirty)?;
            if !self.share().is_over_hard() {
                break;
            }
        }
        Ok(())
    }

    /// Bytes that wait for the epoch and count as used.
    fn garbage_bytes(&self) -> usize {
        if self.budget.counts_garbage() { self.memory.retired_bytes() } else { 0 }
    }

    /// How many bytes to evict now.
    fn piece(&self) -> usize {
        self.collect();
        let share = self.share();
        // What somebody's guard keeps is on its way out; more of it would not make it come sooner.
        let over = share.over_soft().saturating_sub(self.garbage_bytes());
        let least = PIECE_BYTES_MIN.min(self.pages_max() / PIECE_DIVISOR).max(1);
        if over == 0 { 0 } else { over.clamp(least, PIECE_BYTES_MAX) }
    }

    /// Makes way, for longer each time, for a thread that was put to sleep under its guard: until it goes on,
    /// all that leaves memory is kept for it. The further beyond the hard mark, the longer. Nobody waits who
    /// holds a guard, or before there is much garbage.
    fn wait_for_readers(&self, waits_max: u32) {
        for round in 0..waits_max {
            self.collect();
            let much = RETIRED_BYTES_MIN.max(self.pages_max() / RETIRED_DIVISOR);
            let share = self.share();
            let step = (share.hard / WAITS_PER_HARD).max(1);
            let waits = share.used.saturating_sub(share.hard).div_ceil(step);
            if waits <= round as usize || self.garbage_bytes() < much {
                break;
            }
            thread::sleep(WAIT * (1 << round));
        }
    }

    /// Lets go of what nobody sees any more: what was evicted and is not free yet would be evicted twice.
    fn collect(&self) {
        for _ in 0..COLLECTIONS_MAX {
            if self.share().over_soft() == 0 || self.garbage_bytes() == 0 {
                break;
            }
            pin().flush();
        }
    }

    /// True if dirty pages have more than their part of the memory.
    #[inline]
    pub(crate) fn has_too_many_dirty(&self) -> bool {
        // Relaxed: whoever reads a stale value cleans a write early or late.
        self.too_many_dirty.load(Ordering::Relaxed)
    }

    /// Called when a page has become dirty.
    pub(crate) fn note_dirty(&self) {
        let dirty = self.budget.bytes_of_pages(self.pages.dirty_count());
        let is_too_much = dirty > self.pages_max() / 100 * DIRTY_PERCENT;
        if is_too_much != self.has_too_many_dirty() {
            self.too_many_dirty.store(is_too_much, Ordering::Relaxed);
        }
    }

    /// Writes some dirty pages back, which stay in memory. One thread does it at a time.
    fn keep_some_clean(&self) -> Result<(), Failure> {
        let Some(mut from) = self.cleaned_from.try_lock() else { return Ok(()) };
        let (pids, next) = self.pages.some_dirty(*from, CLEANED_PAGES);
        *from = next;
        drop(from);
        self.write_back(&pids, Purpose::Ordinary)?;
        self.store.note_room();
        self.note_dirty();
        Ok(())
    }
}
