//! Making a page's chain short: its changes united into one, or all of it folded into one base.
//!
//! Uniting leaves the base where it is, so that few changes cost no copy of the page. The changes that the
//! page's durable form lacks stay known beside a folded base, as long as they are few: write-back then writes
//! them alone, as a delta-page ([`super::writeback`]).
//!
//! Where a snapshot reads an older version of something in the chain, changes are not united and not known one
//! by one any more: all is folded into a base that holds the versions ([`super::snapshots`]).
//!
//! * CACHE-2: a chain with a pending fragment is neither folded nor united.

use super::{Cache, Keep};
use crate::{
    ids::PageSeq,
    materializer::Materializer,
    mem::Placed,
    page::{
        cell::{Cell, Head, Word},
        chain::{
            Body, Committed, Draft, Node, Stamp, Unsaved, changes_above, committed, free_chain, versions,
        },
        durable::{DELTAS_MAX, Durable},
        slot::SlotState,
    },
    reclaim::Guard,
};

/// A folded page: its new word, and the one node behind it.
pub(crate) type Folded<'g, P> = (Word<P>, &'g Node<P>);

/// Part of an image's length that all delta-pages above it may have together.
const DELTAS_DIVISOR: usize = 3;

/// Part of a base's bytes that changes above it may have before they are folded into it.
const UNITED_DIVISOR: usize = 2;

/// Bytes that the next delta-page of a page may have; `None` if the page is to be written whole.
fn delta_bytes_max(durable: &Durable) -> Option<usize> {
    let image = durable.image().filter(|image| image.deltas().len() < DELTAS_MAX)?;
    let spent: usize = image.deltas().map(|delta| delta.len as usize).sum();
    (image.base().len as usize / DELTAS_DIVISOR).checked_sub(spent)
}

impl<M: Materializer> Cache<M> {
    /// Makes a chain short: unites its changes if they are few against their base, folds them if not.
    /// `None` as for [`Cache::consolidate`].
    pub(crate) fn shorten<'g>(
        &self,
        cell: &Cell<M::PageFrag>,
        word: Word<M::PageFrag>,
        top: &'g Node<M::PageFrag>,
        guard: &'g Guard,
    ) -> Option<Folded<'g, M::PageFrag>> {
        if top.is_unsettled() {
            return None;
        }
        match self.united(cell, top, guard) {
            Some(chain) => {
                let shared = top.ground().map_or(0, |ground| ground.charge);
                self.put_folded(cell, word, top, chain, shared, guard)
            }
            None => self.consolidate(cell, word, top, guard),
        }
    }

    /// A copy of a settled chain whose changes are one; `None` if they are too many or do not unite.
    fn united(
        &self,
        cell: &Cell<M::PageFrag>,
        top: &Node<M::PageFrag>,
        guard: &Guard,
    ) -> Option<Placed<Node<M::PageFrag>>> {
        let ground = top.ground()?;
        let Body::Base(base) = &ground.body else { return None };
        let mut left = self.materializer.encoded_len(base) / UNITED_DIVISOR;
        let mut changes = Vec::with_capacity(top.depth as usize);
        let mut newest = 0;
        for node in top.walk().take_while(|node| node.seq > ground.seq) {
            let SlotState::Committed(lsn) = node.state() else { continue };
            let Body::Append(frag) = &node.body else { return None };
            left = left.checked_sub(self.materializer.encoded_len(frag))?;
            newest = newest.max(lsn);
            changes.push(frag);
        }
        if self.snapshots.keep(newest) != Keep::Newest {
            return None;
        }
        changes.reverse();
        let united = self.materializer.unite(&changes)?;
        let durable_seq = cell.durable(guard).map_or(0, |durable| durable.seq);
        let copy = self.copy_of(ground, base, durable_seq)?;
        let (charge, marks) = (self.charge_of(Some(&united)), self.materializer.marks(&united));
        let draft = Draft {
            body: Body::Append(united),
            seq: top.seq,
            stamp: Stamp::At(newest),
            oldest: top.oldest_above(durable_seq.max(ground.seq)),
            charge,
        };
        Some(Node::marked_atop(&self.memory, draft, marks, copy))
    }

    /// A node like `ground`, whose base is this one, with nothing below it.
    fn copy_of(
        &self,
        ground: &Node<M::PageFrag>,
        base: &M::PageFrag,
        durable_seq: PageSeq,
    ) -> Option<Placed<Node<M::PageFrag>>> {
        let SlotState::Committed(lsn) = ground.state() else { return None };
        let draft = Draft {
            body: Body::Base(base.clone()),
            seq: ground.seq,
            stamp: Stamp::At(lsn),
            // What the base of a batch replaced lies below it and may hold the log too.
            oldest: ground.oldest_above(durable_seq),
            charge: ground.charge,
        };
        let unsaved = ground.unsaved.as_ref();
        let unsaved = unsaved.map(|unsaved| Unsaved { since: unsaved.since, frags: unsaved.frags.clone() });
        Some(Node::folded(&self.memory, draft, unsaved))
    }

    /// Puts a chain that says the same in the place of the one headed by `top`; they have fragments of
    /// `shared_bytes` in common.
    fn put_folded<'g>(
        &self,
        cell: &Cell<M::PageFrag>,
        word: Word<M::PageFrag>,
        top: &'g Node<M::PageFrag>,
        chain: Placed<Node<M::PageFrag>>,
        shared_bytes: usize,
        guard: &'g Guard,
    ) -> Option<Folded<'g, M::PageFrag>> {
        let charge = chain.chain_charge();
        self.charge(charge);
        match cell.replace_sharing(word, chain, shared_bytes, guard) {
            Ok(installed) => {
                self.uncharge(top.chain_charge());
                match cell.head(guard) {
                    // What another thread has put there since may be pending: it is not this fold.
                    (now, Head::Chain(node)) if now == installed => Some((now, node)),
                    _ => None,
                }
            }
            Err(chain) => {
                self.uncharge(charge);
                free_chain(chain);
                None
            }
        }
    }

    /// The committed part of a settled chain as one fragment; `None` while all of it is to be kept.
    pub(super) fn whole(
        &self,
        top: &Node<M::PageFrag>,
        parts: &Committed<'_, M::PageFrag>,
        keep: &Keep,
    ) -> Option<M::PageFrag> {
        match (keep, parts.frags.as_slice()) {
            (Keep::All, _) => None,
            (Keep::At(positions), _) => Some(self.merge_versions(&versions(top), positions)),
            (Keep::Newest, [only]) => Some((*only).clone()),
            (Keep::Newest, many) => {
                let oldest_first: Vec<&M::PageFrag> = many.iter().rev().copied().collect();
                Some(self.merge(&oldest_first))
            }
        }
    }

    /// Folds a chain into one base in memory. `None` if the chain is not settled, is free, is kept as it is
    /// while a snapshot is taken, or was changed meanwhile; the new word and node otherwise.
    pub(crate) fn consolidate<'g>(
        &self,
        cell: &Cell<M::PageFrag>,
        word: Word<M::PageFrag>,
        top: &'g Node<M::PageFrag>,
        guard: &'g Guard,
    ) -> Option<Folded<'g, M::PageFrag>> {
        if matches!(top.body, Body::Base(_)) && top.depth == 1 && matches!(top.stamp, Stamp::At(_)) {
            return Some((word, top));
        }
        if top.is_unsettled() {
            return None;
        }
        let parts = committed(top)?;
        if !parts.has_base {
            return None;
        }
        let keep = self.snapshots.keep(parts.newest);
        let merged = self.whole(top, &parts, &keep)?;
        let durable = cell.durable(guard);
        let unsaved = durable.filter(|_| keep == Keep::Newest).and_then(|durable| self.unsaved(top, durable));
        let beside = unsaved.iter().flat_map(|unsaved| &unsaved.frags);
        let beside: usize = beside.map(|(_, frag)| self.charge_of(Some(frag))).sum();
        let charge = self.charge_of(Some(&merged)) + beside;
        let draft = Draft {
            body: Body::Base(merged),
            seq: top.seq,
            stamp: Stamp::At(parts.newest),
            oldest: top.oldest_above(durable.map_or(0, |durable| durable.seq)),
            charge,
        };
        self.put_folded(cell, word, top, Node::folded(&self.memory, draft, unsaved), 0, guard)
    }

    /// Bytes that the changes in the next delta-page of a page may have before they are packed; `None` if the
    /// page is to be written whole.
    pub(super) fn change_bytes_max(&self, top: &Node<M::PageFrag>, durable: &Durable) -> Option<usize> {
        let bytes_max = delta_bytes_max(durable)?;
        let (true, Some(image), Some(ground)) = (self.store.packs(), durable.image(), top.ground()) else {
            return Some(bytes_max);
        };
        let Body::Base(base) = &ground.body else { return Some(bytes_max) };
        // The lengths of what is stored are packed ones: changes are taken to pack as well as the page did.
        let (packed, plain) = (image.base().len as usize, self.materializer.encoded_len(base));
        Some(bytes_max.saturating_mul(plain.max(packed)) / packed.max(1))
    }

    /// The changes that `durable` lacks, if they may become a delta-page.
    fn unsaved(&self, top: &Node<M::PageFrag>, durable: &Durable) -> Option<Unsaved<M::PageFrag>> {
        let bytes_max = self.change_bytes_max(top, durable)?;
        let changes = changes_above(top, durable.seq)?;
        let frags: Vec<&M::PageFrag> = changes.iter().map(|(_, frag)| *frag).collect();
        let one = self.as_one(&frags).zip(changes.last().map(|(newest, _)| *newest));
        let frags: Box<[_]> = match one {
            Some((one, newest)) => Box::new([(newest, one)]),
            None => changes.into_iter().map(|(seq, frag)| (seq, frag.clone())).collect(),
        };
        let bytes: usize = frags.iter().map(|(_, frag)| self.materializer.encoded_len(frag)).sum();
        (bytes <= bytes_max).then_some(Unsaved { since: durable.seq, frags })
    }

    /// Several changes, oldest first, as one that does the same, if the materializer can: a record that was
    /// changed again and again then counts once.
    pub(super) fn as_one(&self, changes: &[&M::PageFrag]) -> Option<M::PageFrag> {
        if changes.len() > 1 { self.materializer.unite(changes) } else { None }
    }

    /// Lets go of changes kept beside a base that are durable by now.
    pub(super) fn forget_unsaved(&self, cell: &Cell<M::PageFrag>, guard: &Guard) {
        let (word, Head::Chain(top)) = cell.head(guard) else { return };
        let Body::Base(base) = &top.body else { return };
        let is_saved = cell.durable(guard).is_some_and(|durable| durable.seq == top.seq);
        if top.unsaved.is_none() || !is_saved {
            return;
        }
        let charge = self.charge_of(Some(base));
        let draft = Draft {
            body: Body::Base(base.clone()),
            seq: top.seq,
            stamp: top.stamp.clone(),
            oldest: top.oldest,
            charge,
        };
        self.charge(charge);
        match cell.replace_sharing(word, Node::bottom(&self.memory, draft), charge, guard) {
            Ok(_) => self.uncharge(top.chain_charge()),
            Err(_) => self.uncharge(charge),
        }
    }
}
