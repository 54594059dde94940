//! Eviction: a page whose durable form is current leaves memory at once, a dirty one is written back first.
//! Of a page with something pending the base leaves and the changes stay: a batch may touch far more pages
//! than fit (P-8).
//!
//! * CACHE-4: a head becomes *evicted* under the page's claim, and only while the durable form has its
//!   number. So whoever sees it finds that form, or a newer place of it, in the durable word.
//!
//! How a page is written back is [`super::writeback`]'s business, how it returns [`super::resident`]'s, which
//! pages leave [`super::victims`]'.

use super::{Cache, resident::copy_of};
use crate::{
    error::Failure,
    ids::{PageId, PageSeq},
    materializer::Materializer,
    page::{
        cell::{Cell, Head, Word},
        chain::{ALL_DURABLE, Body, Node, free_chain},
        durable::Form,
    },
    reclaim::{Guard, pin},
    store::Purpose,
};

impl<M: Materializer> Cache<M> {
    /// Evicts those whose durable form is current, and returns the others.
    pub(super) fn evict_clean(&self, pids: &[PageId]) -> Vec<PageId> {
        let guard = pin();
        let is_dirty = |pid: &PageId| self.pages.cell(*pid).is_some_and(|cell| !self.evict(cell, &guard));
        pids.iter().copied().filter(is_dirty).collect()
    }

    /// Writes pages back, then evicts them.
    pub(super) fn evict_dirty(&self, pids: &[PageId]) -> Result<(), Failure> {
        if pids.is_empty() {
            return Ok(());
        }
        self.write_back(pids, Purpose::Ordinary)?;
        self.store.note_room();
        self.evict_clean(pids);
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
            self.budget.page_left();
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
        match cell.replace_sharing(word, chain, charge, guard) {
            Ok(_) => self.uncharge(top.chain_charge()),
            Err(chain) => {
                self.uncharge(charge);
                free_chain(chain);
            }
        }
    }
}
