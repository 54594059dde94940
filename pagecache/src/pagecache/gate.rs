//! The gate in front of a page that is always pending (P-9).
//!
//! A page with something pending is not written back, and what it lacks stays in the log. Batches that
//! commute may take turns on it so that something is pending at every moment. So a page that has grown
//! long, or whose oldest change has come to lie in the older half of the log, lets no new batch in until
//! what is pending has ended and the page was folded and written. Whoever waits at the gate holds
//! nothing, and who is inside only ever waits further on in the order of P-6, so everybody gets through.

use super::PageCache;
use crate::{
    error::Failure,
    ids::{Lsn, PageId},
    materializer::Materializer,
    page::{
        cell::{Cell, Head},
        chain::{Body, Node, Stamp},
        slot::{Slot, SlotState},
    },
    reclaim::{Guard, pin},
    store::Purpose,
};

/// Fragments of a page above which it is gated.
const FRAGMENTS_MAX: u32 = 64;
/// How many times its size a page's changes may have before it is gated.
const CHANGES_PER_PAGE_MAX: usize = 4;
/// A smaller page counts as this large, in bytes: a new leaf is no bottleneck.
const PAGE_BYTES_MIN: usize = 8 << 10;
/// Rounds at one gate before the batch looks again at the page.
const ROUNDS_MAX: usize = 8;

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// True if a batch that has nothing pending on the page may not begin to.
    pub(super) fn is_gated(&self, cell: &Cell<P>, top: &Node<P>, own: &Slot, guard: &Guard) -> bool {
        // Where nothing is pending the page can be written at any time; and whoever waited for that moment
        // writes it.
        if top.pending() == 0 || is_inside(top, own) {
            return false;
        }
        top.depth > FRAGMENTS_MAX || changes_too_large(top) || self.holds_up_the_log(cell, top, guard)
    }

    fn holds_up_the_log(&self, cell: &Cell<P>, top: &Node<P>, guard: &Guard) -> bool {
        let log = &self.shared.log;
        let half = log.capacity_bytes() / 2;
        if log.tail_bytes() <= half {
            return false;
        }
        let older_half_ends = log.next_lsn() - Lsn::try_from(half).unwrap_or(Lsn::MAX);
        top.oldest_above(cell.durable(guard).map_or(0, |durable| durable.seq)) < older_half_ends
    }

    /// Waits until nothing is pending on a page, then folds and writes it. The caller holds neither a
    /// reservation nor a batch with anything installed.
    ///
    /// # Errors
    ///
    /// [`Failure::Misuse`] if what is pending is this thread's own and so would never end, and what
    /// writing the page may bring.
    pub fn pass_gate(&self, pid: PageId) -> Result<(), Failure> {
        let cache = &self.shared.cache;
        for _ in 0..ROUNDS_MAX {
            let guard = pin();
            let Some(cell) = cache.pages.cell(pid) else { return Ok(()) };
            let (word, head) = cell.head(&guard);
            let Head::Chain(top) = head else { return Ok(()) };
            let Some(slot) = pending_slot(top) else {
                let _ = cache.consolidate(cell, word, top, &guard);
                drop(guard);
                return cache.write_back(&[pid], Purpose::Ordinary).map(|_| ());
            };
            drop(guard);
            slot.wait_from_outside()?;
        }
        Ok(())
    }
}

fn is_inside<P>(top: &Node<P>, own: &Slot) -> bool {
    top.walk().any(|node| matches!(&node.stamp, Stamp::Slot(slot) if std::ptr::eq(own, &**slot)))
}

fn pending_slot<P>(top: &Node<P>) -> Option<std::sync::Arc<Slot>> {
    top.walk().find_map(|node| match &node.stamp {
        Stamp::Slot(slot) if slot.state() == SlotState::Pending => Some(slot.clone()),
        _ => None,
    })
}

fn changes_too_large<P>(top: &Node<P>) -> bool {
    let (mut changes, mut page) = (0, 0);
    for node in top.walk() {
        match node.body {
            Body::Append(_) => changes += node.charge,
            Body::Base(_) | Body::Free => page = page.max(node.charge),
        }
    }
    changes > CHANGES_PER_PAGE_MAX * page.max(PAGE_BYTES_MIN)
}
