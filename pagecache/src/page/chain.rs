//! A page in memory: a chain of immutable nodes, newest first, that ends at a base.
//!
//! ```text
//! cell ─► delta 9 ─► delta 8 ─► base 7 ─► (nothing, or what a pending base would replace)
//! ```
//!
//! A node holds one fragment, the page's sequence number as of that fragment, and the stamp: the
//! fragment's LSN, or the slot of the batch it belongs to. A chain whose last node is no base stands
//! *over an evicted base*: the rest of the page lies at the cell's durable address.
//!
//! * CHAIN-1: a node never changes after it is published; only its slot does.
//! * CHAIN-2: sequence numbers fall strictly along a chain.
//! * CHAIN-3: a node is owned by the cell or by the node above it, and a chain is retired whole, so
//!   whoever reached a node under a guard may follow it to the end.
//! * CHAIN-4: the ground of a chain is a committed base or free below which nobody needs to read. A node
//!   notes the ground as of when it came; a base that was pending then is no ground for it, and its marks
//!   say that it may hide anything.
//!
//! Which node heads a page is [`super::cell`]'s business.

use std::{fmt, ptr, sync::Arc};

use super::slot::{Slot, SlotState};
use crate::{
    ids::{Lsn, PageSeq},
    mem::{PageMemory, Placed},
    reclaim::Guard,
};

/// `oldest` of a node that holds nothing but what is durable.
pub(crate) const ALL_DURABLE: Lsn = Lsn::MAX;

/// Marks of a change of which nothing is known.
const ALL_MARKS: u64 = u64::MAX;

/// What a node does to its page.
#[derive(Clone)]
pub(crate) enum Body<P> {
    /// The page begins anew here.
    Base(P),
    /// A change to what is below.
    Append(P),
    /// The page is gone.
    Free,
}

/// When a node's fragment was, or will be, committed.
#[derive(Clone)]
pub(crate) enum Stamp {
    At(Lsn),
    Slot(Arc<Slot>),
}

/// One fragment of a page in memory.
pub(crate) struct Node<P> {
    pub(crate) body: Body<P>,
    pub(crate) seq: PageSeq,
    pub(crate) stamp: Stamp,
    /// Smallest LSN of a change in this node that may not be in the page's durable form:
    /// [`ALL_DURABLE`] for a node read from disk. Only a lower bound once the page was written back.
    pub(crate) oldest: Lsn,
    /// Bytes charged to the cache for this node.
    pub(crate) charge: usize,
    /// Of a base that was folded in memory: the changes in it that the durable form may lack.
    pub(crate) unsaved: Option<Unsaved<P>>,
    /// Nodes from here to the end of the chain.
    pub(crate) depth: u32,
    /// Nodes from here down to what was ground when this one came that were installed with a slot: zero
    /// means that nothing below can be pending.
    pub(crate) slotted: u32,
    /// Marks of all changes from here down to the ground.
    pub(crate) marks: u64,
    /// True if this node is ground itself: a base or a free that is no part of a batch.
    is_ground: bool,
    /// True of a base that was made of several fragments, and says itself of what came when as far as any
    /// snapshot asks (SNAP-3).
    is_folded: bool,
    /// The ground below this node, if there was one when it came.
    ground: *const Node<P>,
    below: *const Node<P>,
}

// SAFETY: a node is read-only once shared (CHAIN-1), its slot is `Sync`, and `below` is followed only
// as a shared reference and freed only by the chain's sole owner (CHAIN-3).
unsafe impl<P: Send + Sync> Send for Node<P> {}
// SAFETY: as for `Send`.
unsafe impl<P: Send + Sync> Sync for Node<P> {}

impl<P> fmt::Debug for Node<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("seq", &self.seq).field("depth", &self.depth).finish_non_exhaustive()
    }
}

/// Changes that were folded into a base, kept so that write-back can write them alone.
pub(crate) struct Unsaved<P> {
    /// Every change above this number is among them.
    pub(crate) since: PageSeq,
    /// Oldest first, each with its number.
    pub(crate) frags: Box<[(PageSeq, P)]>,
}

/// What a node is made of before it stands in a chain.
pub(crate) struct Draft<P> {
    pub(crate) body: Body<P>,
    pub(crate) seq: PageSeq,
    pub(crate) stamp: Stamp,
    pub(crate) oldest: Lsn,
    pub(crate) charge: usize,
}

impl<P> Node<P> {
    /// A node that ends its chain.
    pub(crate) fn bottom(memory: &PageMemory, draft: Draft<P>) -> Placed<Node<P>> {
        Node::assemble(memory, draft, None)
    }

    /// A base that ends its chain and was folded from changes, `unsaved` among them.
    pub(crate) fn folded(
        memory: &PageMemory,
        draft: Draft<P>,
        unsaved: Option<Unsaved<P>>,
    ) -> Placed<Node<P>> {
        let mut node = Node::bottom(memory, draft);
        node.unsaved = unsaved;
        node.is_folded = true;
        node
    }

    /// As [`Node::above`], for a change that has only these marks.
    pub(crate) fn marked(
        memory: &PageMemory,
        draft: Draft<P>,
        marks: u64,
        below: &Node<P>,
    ) -> Placed<Node<P>> {
        let is_append = matches!(draft.body, Body::Append(_));
        let marks = if is_append { below.marks_above_ground() | marks } else { ALL_MARKS };
        let mut node = Node::above(memory, draft, below);
        node.marks = marks;
        node
    }

    /// A node above `below`, which it owns once it is installed in `below`'s place.
    pub(crate) fn above(memory: &PageMemory, draft: Draft<P>, below: &Node<P>) -> Placed<Node<P>> {
        assert!(below.seq < draft.seq, "page sequence numbers fall along a chain (CHAIN-2)");
        Node::assemble(memory, draft, Some(below))
    }

    /// A node above a chain that nobody else has seen yet.
    pub(crate) fn atop(memory: &PageMemory, draft: Draft<P>, below: Placed<Node<P>>) -> Placed<Node<P>> {
        let below = Placed::into_raw(below);
        // SAFETY: just given up, so it stays until the node that is made here is freed (CHAIN-3).
        Node::above(memory, draft, unsafe { &*below })
    }

    /// As [`Node::atop`], for a change that has only these marks.
    pub(crate) fn marked_atop(
        memory: &PageMemory,
        draft: Draft<P>,
        marks: u64,
        below: Placed<Node<P>>,
    ) -> Placed<Node<P>> {
        let marks = below.marks_above_ground() | marks;
        let mut node = Node::atop(memory, draft, below);
        node.marks = marks;
        node
    }

    fn assemble(memory: &PageMemory, draft: Draft<P>, below: Option<&Node<P>>) -> Placed<Node<P>> {
        let slotted = u32::from(matches!(draft.stamp, Stamp::Slot(_)));
        let is_ground = slotted == 0 && !matches!(draft.body, Body::Append(_));
        let ground = below.filter(|_| !is_ground).and_then(Node::ground);
        let above_ground = below.filter(|below| !ground.is_some_and(|ground| ptr::eq(ground, *below)));
        let node = Node {
            body: draft.body,
            seq: draft.seq,
            stamp: draft.stamp,
            oldest: draft.oldest,
            charge: draft.charge,
            unsaved: None,
            depth: 1 + below.map_or(0, |node| node.depth),
            slotted: slotted + above_ground.map_or(0, |node| node.slotted),
            marks: if is_ground { 0 } else { ALL_MARKS },
            is_ground,
            is_folded: false,
            ground: ground.map_or(ptr::null(), ptr::from_ref),
            below: below.map_or(ptr::null(), ptr::from_ref),
        };
        Placed::new(memory, node)
    }

    /// A committed base or free: nothing that a reader needs lies below it. It is the newest, but where one
    /// was pending when a change came above it: that one's slot is not looked at here, and the change has
    /// all marks.
    #[inline]
    pub(crate) fn ground(&self) -> Option<&Node<P>> {
        if self.is_ground || self.is_ground_of_batch() {
            return Some(self);
        }
        // SAFETY: null, or a node further down, which lives as long as this one (CHAIN-3).
        unsafe { self.ground.as_ref() }
    }

    /// True for a base or a free of a batch that has committed, which stays so (SLOT-1).
    #[inline]
    fn is_ground_of_batch(&self) -> bool {
        !matches!(self.body, Body::Append(_)) && matches!(self.state(), SlotState::Committed(_))
    }

    /// Marks of the changes from here down to the ground.
    fn marks_above_ground(&self) -> u64 {
        if self.is_ground_of_batch() { 0 } else { self.marks }
    }

    /// The node under this one.
    #[inline]
    pub(crate) fn below(&self) -> Option<&Node<P>> {
        // SAFETY: null, or a node that this one owns; it lives as long as this one (CHAIN-3).
        unsafe { self.below.as_ref() }
    }

    /// This node and all under it, newest first.
    pub(crate) fn walk(&self) -> impl Iterator<Item = &Node<P>> {
        std::iter::successors(Some(self), |node| node.below())
    }

    /// What is known of this node's fragment.
    #[inline]
    pub(crate) fn state(&self) -> SlotState {
        match &self.stamp {
            Stamp::At(lsn) => SlotState::Committed(*lsn),
            Stamp::Slot(slot) => slot.state(),
        }
    }

    /// True if some fragment from here down may yet be committed or aborted.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.slotted > 0 && self.walk().any(|node| node.state() == SlotState::Pending)
    }

    /// Fragments that may yet be committed or aborted. For one chain the count only falls, and it is
    /// the same at two moments only if the same fragments are pending.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        if self.slotted == 0 { 0 } else { self.count_pending() }
    }

    fn count_pending(&self) -> u32 {
        let mut pending = 0;
        for node in self.walk() {
            match (node.state(), &node.body) {
                (SlotState::Pending, _) => pending += 1,
                (SlotState::Aborted, _) | (SlotState::Committed(_), Body::Append(_)) => {}
                // A base commutes with nothing, so nothing under it was pending when it came.
                (SlotState::Committed(_), Body::Base(_) | Body::Free) => break,
            }
        }
        pending
    }

    /// Bytes charged for this node and all under it.
    pub(crate) fn chain_charge(&self) -> usize {
        self.walk().map(|node| node.charge).sum()
    }

    /// Largest committed stamp of the chain, 0 if there is none.
    pub(crate) fn last_lsn(&self) -> Lsn {
        let committed = self.walk().filter_map(|node| match node.state() {
            SlotState::Committed(lsn) => Some(lsn),
            SlotState::Pending | SlotState::Aborted => None,
        });
        committed.max().unwrap_or(0)
    }

    /// Smallest LSN of a committed change with a number above `durable_seq`: what a durable form of
    /// that number lacks, or a lower bound of it. [`ALL_DURABLE`] if it lacks nothing.
    pub(crate) fn oldest_above(&self, durable_seq: PageSeq) -> Lsn {
        let lacking = self.walk().take_while(|node| node.seq > durable_seq).map(|node| match node.state() {
            SlotState::Committed(lsn) => match &node.stamp {
                Stamp::At(_) => node.oldest,
                Stamp::Slot(slot) => slot.first().min(lsn),
            },
            SlotState::Pending | SlotState::Aborted => ALL_DURABLE,
        });
        lacking.min().unwrap_or(ALL_DURABLE)
    }
}

/// The changes of a settled chain above `seq`, oldest first, each with its number. `None` if the page
/// began anew since, or if what a fold took up is not known one by one.
pub(crate) fn changes_above<P>(top: &Node<P>, seq: PageSeq) -> Option<Vec<(PageSeq, &P)>> {
    let mut changes = Vec::new();
    for node in top.walk().take_while(|node| node.seq > seq) {
        match (&node.body, node.state()) {
            (_, SlotState::Aborted) => {}
            (Body::Append(frag), _) => changes.push((node.seq, frag)),
            (Body::Free, _) => return None,
            (Body::Base(_), _) => {
                let unsaved = node.unsaved.as_ref().filter(|unsaved| unsaved.since <= seq)?;
                let newest_first = unsaved.frags.iter().rev().map(|(at, frag)| (*at, frag));
                changes.extend(newest_first.take_while(|(at, _)| *at > seq));
                break;
            }
        }
    }
    changes.reverse();
    Some(changes)
}

/// Frees a chain that nobody else can reach, without recursion.
pub(crate) fn free_chain<P>(top: Placed<Node<P>>) {
    let mut next = top.below;
    drop(top);
    while !next.is_null() {
        // SAFETY: the chain's nodes came from `Placed`, and its owner gave the chain up whole
        // (CHAIN-3): nothing else frees or reads them.
        let node = unsafe { Placed::from_raw(next.cast_mut()) };
        next = node.below;
    }
}

/// The committed part of a chain, ready to be merged.
pub(crate) struct Committed<'g, P> {
    /// Newest first, down to and including the newest committed base if the chain holds one.
    pub(crate) frags: Vec<&'g P>,
    /// True if the last of `frags` is a base; false if the base is evicted.
    pub(crate) has_base: bool,
    /// Largest committed stamp met, 0 if none.
    pub(crate) newest: Lsn,
}

/// Collects what readers may see of a chain. `None` if the newest committed node says Free.
pub(crate) fn committed<P>(top: &Node<P>) -> Option<Committed<'_, P>> {
    let mut found = Committed { frags: Vec::new(), has_base: false, newest: 0 };
    for node in top.walk() {
        let SlotState::Committed(lsn) = node.state() else { continue };
        found.newest = found.newest.max(lsn);
        match &node.body {
            Body::Append(frag) => found.frags.push(frag),
            Body::Base(frag) => {
                found.frags.push(frag);
                found.has_base = true;
                return Some(found);
            }
            Body::Free if found.frags.is_empty() => return None,
            // Nothing is ever appended to a freed page; a fragment above says a later life began.
            Body::Free => break,
        }
    }
    Some(found)
}

/// The committed part of a chain, oldest first from the newest committed base on, each fragment with the LSN of
/// what it does not say of itself: 0 for a base that was folded or read back, which is older than any snapshot
/// but where it says more.
pub(crate) fn versions<P>(top: &Node<P>) -> Vec<(&P, Lsn)> {
    let mut found = Vec::new();
    for node in top.walk() {
        let SlotState::Committed(lsn) = node.state() else { continue };
        match &node.body {
            Body::Append(frag) => found.push((frag, lsn)),
            Body::Base(frag) => {
                found.push((frag, if node.is_folded { 0 } else { lsn }));
                break;
            }
            Body::Free => break,
        }
    }
    found.reverse();
    found
}

/// Lends a value until the guard is dropped, then drops it.
pub(crate) fn lend<T: Send + 'static>(value: T, guard: &Guard) -> &T {
    let boxed = Box::into_raw(Box::new(value));
    let owner = Lent(boxed);
    guard.defer(move || drop(owner));
    // SAFETY: made by `Box::into_raw` above; the deferred drop runs only after this guard is gone,
    // and the reference does not outlive the guard.
    unsafe { &*boxed }
}

/// A lent value on its way out.
struct Lent<T>(*mut T);

// SAFETY: the pointer is the sole owner of a `T: Send`; it is used by one thread, in `drop`.
unsafe impl<T: Send> Send for Lent<T> {}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` and freed only here.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

#[cfg(all(test, not(loom)))]
#[path = "chain_tests.rs"]
mod tests;
