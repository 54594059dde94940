//! Eviction: a clock hand passes over the pages and takes those that nobody touched since its last
//! pass. Clean pages leave at once, dirty ones are written back first. Of a page with something pending
//! the base leaves and the changes stay: a batch may touch far more pages than fit (P-8). The hand passes over
//! parts of the table that nobody has asked for: nothing of them is in memory.
//!
//! How a page is written back is [`super::writeback`]'s business, how it returns [`super::resident`]'s.

use super::{Cache, resident::copy_of};
use crate::{
    error::Failure,
    ids::{PageId, PageSeq},
    materializer::Materializer,
    metrics::Work,
    page::{
        cell::{Cell, Form, Head, Word},
        chain::{ALL_DURABLE, Body, Node, free_chain},
    },
    reclaim::{Guard, pin},
    store::Purpose,
};

/// Dirty pages gathered before they are written back together.
const VICTIMS_PER_ROUND: usize = 64;
/// Part of the capacity that one call frees beyond what is over it, so that calls are rare.
const SLACK_DIVISOR: usize = 32;

impl<M: Materializer> Cache<M> {
    /// True if pages occupy more than they may.
    #[inline]
    pub(crate) fn is_over_capacity(&self) -> bool {
        self.resident_bytes() > self.capacity
    }

    /// Evicts pages until the rest fits. One thread does it at a time; others return at once.
    pub(crate) fn make_room(&self) -> Result<(), Failure> {
        let Some(mut hand) = self.hand.try_lock() else { return Ok(()) };
        let _timing = self.metrics.time(Work::Evict);
        let target = self.capacity - self.capacity / SLACK_DIVISOR;
        // Two passes take every untouched page; pages touched meanwhile are in use.
        let mut steps = 2 * self.pages.bound();
        let mut dirty = Vec::new();
        while self.resident_bytes() > target && steps > 0 {
            let guard = pin();
            while dirty.len() < VICTIMS_PER_ROUND && self.resident_bytes() > target && steps > 0 {
                steps -= 1;
                let pid = *hand;
                let next = self.pages.spans.skip(pid).unwrap_or(pid + 1);
                *hand = if next < self.pages.bound() { next } else { 0 };
                let Some(cell) = self.pages.cell(pid) else { continue };
                if !matches!(cell.head(&guard).1, Head::Chain(_)) || cell.take_touch() {
                    continue;
                }
                if !self.evict(cell, &guard) {
                    dirty.push(pid);
                }
            }
            drop(guard);
            self.evict_dirty(&mut dirty)?;
        }
        Ok(())
    }

    fn evict_dirty(&self, dirty: &mut Vec<PageId>) -> Result<(), Failure> {
        if dirty.is_empty() {
            return Ok(());
        }
        self.write_back(dirty, Purpose::Ordinary)?;
        self.store.note_room();
        let guard = pin();
        for pid in dirty.drain(..) {
            if let Some(cell) = self.pages.cell(pid) {
                self.evict(cell, &guard);
            }
        }
        Ok(())
    }

    /// Evicts a page whose durable form is current. False if it is not.
    fn evict(&self, cell: &Cell<M::PageFrag>, guard: &Guard) -> bool {
        // The claim keeps the durable form in its place until the swap.
        let Some(_claim) = cell.claim() else { return false };
        let (word, head) = cell.head(guard);
        let Head::Chain(top) = head else { return true };
        let Some(durable) = cell.durable(guard) else { return false };
        if matches!(durable.form, Form::Free) {
            return false;
        }
        if top.is_unsettled() {
            self.evict_under(cell, word, top, durable.seq, guard);
            // Writing it back would have to wait for the batch.
            return true;
        }
        if top.oldest_above(durable.seq) != ALL_DURABLE {
            return false;
        }
        let charge = top.chain_charge();
        if cell.set(word, Word::evicted(top.seq), guard) {
            self.uncharge(charge);
        }
        true
    }

    /// Evicts what lies in the page's durable form and leaves the changes above it, pending ones among
    /// them, as they are.
    fn evict_under(
        &self,
        cell: &Cell<M::PageFrag>,
        word: Word<M::PageFrag>,
        top: &Node<M::PageFrag>,
        durable_seq: PageSeq,
        guard: &Guard,
    ) {
        let mut kept: Vec<&Node<M::PageFrag>> =
            top.walk().take_while(|node| node.seq > durable_seq).collect();
        let is_over_evicted = kept.len() == top.depth as usize;
        // A base among them is in no file yet, or may yet fail to replace what would be missing.
        if is_over_evicted || kept.iter().any(|node| !matches!(node.body, Body::Append(_))) {
            return;
        }
        let Some(oldest) = kept.pop() else { return };
        let mut chain = Node::bottom(&self.memory, copy_of(oldest));
        while let Some(node) = kept.pop() {
            chain = Node::atop(&self.memory, copy_of(node), chain);
        }
        let charge = chain.chain_charge();
        self.charge(charge);
        match cell.replace(word, chain, guard) {
            Ok(_) => self.uncharge(top.chain_charge()),
            Err(chain) => {
                self.uncharge(charge);
                free_chain(chain);
            }
        }
    }
}
