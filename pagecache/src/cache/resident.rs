//! Bringing a page's content into memory. Nothing here writes or logs.
//!
//! A page that is there is found without a lock. For one that was evicted its durable form is read
//! ([`super::durable`]); for one that nobody has asked for since the store was opened the part of the page table
//! that covers it comes first, under a lock ([`super::load`]). A large value has no content here and passes for
//! free ([`super::values`]).

use super::Cache;
use crate::{
    error::Failure,
    ids::{Lsn, PageId, PageSeq},
    materializer::Materializer,
    mem::Placed,
    page::{
        cell::{Cell, Head, Word},
        chain::{ALL_DURABLE, Body, Draft, Node, Stamp},
        slot::SlotState,
    },
    reclaim::Guard,
};

/// A page as a reader finds it: its chain stands on a base in memory, if it has content at all.
pub(crate) enum Resident<'g, P> {
    Unallocated,
    Allocated(Word<P>),
    Free(Word<P>),
    /// The whole page; the chain's oldest needed node is a base.
    Chain(Word<P>, &'g Node<P>),
}

impl<M: Materializer> Cache<M> {
    /// The page, fetched if need be.
    #[inline]
    pub(crate) fn resident<'g>(
        &self,
        pid: PageId,
        guard: &'g Guard,
    ) -> Result<Resident<'g, M::PageFrag>, Failure> {
        let Some(cell) = self.pages.cell(pid) else { return Ok(Resident::Unallocated) };
        let mut was_fetched = false;
        loop {
            let (word, head) = cell.head(guard);
            match head {
                Head::Chain(top) => {
                    if stands_on_base(top) {
                        // Who fetches a page has not come back to it: it is on probation.
                        if !was_fetched {
                            cell.touch();
                        }
                        return Ok(classify(word, top));
                    }
                    if is_value(cell, guard) {
                        return Ok(Resident::Free(word));
                    }
                    self.fetch_under(pid, cell, word, top, guard)?;
                }
                // Whoever comes with an old id finds the page gone, as it is: this is another one.
                Head::Evicted(_) if is_value(cell, guard) => return Ok(Resident::Free(word)),
                Head::Evicted(seq) => {
                    self.fetch(pid, cell, word, seq, guard)?;
                    was_fetched = true;
                }
                Head::Free(_) => return Ok(Resident::Free(word)),
                Head::Allocated(_) => return Ok(Resident::Allocated(word)),
                Head::Unallocated if pid >= self.pages.spans.bound() => return Ok(Resident::Unallocated),
                Head::Unallocated => self.load(pid)?,
            }
        }
    }

    /// Brings an evicted page back. Whether this thread's copy was installed does not matter: the
    /// caller looks again.
    fn fetch(
        &self,
        pid: PageId,
        cell: &Cell<M::PageFrag>,
        word: Word<M::PageFrag>,
        seq: PageSeq,
        guard: &Guard,
    ) -> Result<(), Failure> {
        let Some(frag) = self.read_durable(pid, cell, guard)? else { return Ok(()) };
        let node = self.clean_base(frag, seq);
        let charge = node.charge;
        self.charge(charge);
        if cell.replace(word, node, guard).is_ok() {
            self.budget.page_entered();
            // Without it the page is an untouched one under the clock: not worth a wait.
            if let Some(mut victims) = self.victims.try_lock() {
                victims.admit(pid, charge);
            }
        } else {
            self.uncharge(charge);
        }
        Ok(())
    }

    /// Brings the base back under a chain that stands on an evicted one.
    fn fetch_under(
        &self,
        pid: PageId,
        cell: &Cell<M::PageFrag>,
        word: Word<M::PageFrag>,
        top: &Node<M::PageFrag>,
        guard: &Guard,
    ) -> Result<(), Failure> {
        let Some(durable_seq) = cell.durable(guard).map(|durable| durable.seq) else {
            return Err(self.lost_base(pid));
        };
        let Some(base) = self.read_durable(pid, cell, guard)? else { return Ok(()) };
        // Nodes at or below the durable number are in the base already.
        let mut kept: Vec<&Node<M::PageFrag>> =
            top.walk().take_while(|node| node.seq > durable_seq).collect();
        let mut chain = self.clean_base(base, durable_seq);
        let (mut charge, base_charge) = (chain.charge, chain.charge);
        while let Some(node) = kept.pop() {
            charge += node.charge;
            chain = Node::atop(&self.memory, copy_of(node), chain);
        }
        self.charge(charge);
        match cell.replace_sharing(word, chain, charge - base_charge, guard) {
            Ok(_) => self.uncharge(top.chain_charge()),
            Err(chain) => {
                self.uncharge(charge);
                crate::page::chain::free_chain(chain);
            }
        }
        Ok(())
    }

    /// Smallest LSN that the page's durable form lacks, and whether the page may be dirty at all: it
    /// is while fragments are pending, whose LSNs are yet to come.
    pub(crate) fn lacking(&self, pid: PageId, guard: &Guard) -> (Lsn, bool) {
        let Some(cell) = self.pages.cell(pid) else { return (ALL_DURABLE, false) };
        // Asked first: a page that is filled meanwhile shows in its head then.
        if let Some(oldest) = self.unfilled_oldest(pid) {
            return (oldest, true);
        }
        let Head::Chain(top) = cell.head(guard).1 else { return (ALL_DURABLE, false) };
        let unsettled = top.is_unsettled();
        let lacks = match cell.durable(guard) {
            Some(durable) => top.oldest_above(durable.seq),
            None => top.oldest_above(0),
        };
        (lacks, unsettled || lacks != ALL_DURABLE)
    }

    fn clean_base(&self, frag: M::PageFrag, seq: PageSeq) -> Placed<Node<M::PageFrag>> {
        let charge = self.charge_of(Some(&frag));
        let draft = Draft { body: Body::Base(frag), seq, stamp: Stamp::At(0), oldest: ALL_DURABLE, charge };
        Node::bottom(&self.memory, draft)
    }

    pub(super) fn lost_base(&self, pid: PageId) -> Failure {
        Failure::Corrupt {
            found: format!("page {pid} has changes and no base"),
            path: self.store.path(),
            offset: 0,
        }
    }
}

/// True if the page is a large value, of which nothing comes into memory.
pub(crate) fn is_value<P>(cell: &Cell<P>, guard: &Guard) -> bool {
    cell.durable(guard).is_some_and(|durable| durable.value().is_some())
}

/// What a copy of a node is made of; it takes the node's place in a chain that replaces the node's.
pub(super) fn copy_of<P: Clone>(node: &Node<P>) -> Draft<P> {
    let body = match &node.body {
        Body::Base(frag) => Body::Base(frag.clone()),
        Body::Append(frag) => Body::Append(frag.clone()),
        Body::Free => Body::Free,
    };
    let (seq, stamp) = (node.seq, node.stamp.clone());
    Draft { body, seq, stamp, oldest: node.oldest, charge: node.charge }
}

/// True if the chain holds a base that readers may see, so that nothing is missing below.
#[inline]
fn stands_on_base<P>(top: &Node<P>) -> bool {
    top.ground().is_some() || stands_on_batch(top)
}

/// As [`stands_on_base`], for a chain whose bases all belong to batches.
#[cold]
fn stands_on_batch<P>(top: &Node<P>) -> bool {
    let found = top.walk().find_map(|node| match (&node.body, node.state()) {
        (Body::Base(_) | Body::Free, SlotState::Committed(_)) => Some(true),
        _ => None,
    });
    // A chain of pending or aborted nodes on an Allocated page has no base and misses none.
    found.unwrap_or_else(|| top.walk().all(|node| matches!(node.body, Body::Base(_))))
}

fn classify<P>(word: Word<P>, top: &Node<P>) -> Resident<'_, P> {
    for node in top.walk() {
        let SlotState::Committed(_) = node.state() else { continue };
        return match node.body {
            Body::Free => Resident::Free(word),
            Body::Base(_) | Body::Append(_) => Resident::Chain(word, top),
        };
    }
    // Only a batch that is pending or aborted wrote to the page, which was new.
    Resident::Allocated(word)
}
