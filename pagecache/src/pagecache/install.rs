//! Changing a page: log a record, swap the page's head, complete the record.
//!
//! A lost race always marks the record failed, and the caller reserves again: so the positions of a
//! page's records rise with its sequence numbers wherever no batch is involved.

use super::{
    PageCache,
    page_ptr::{Key, PagePtr},
};
use crate::{
    cache::is_value,
    error::{Error, Failure},
    format::record::{Kind, RecordHead},
    ids::{Lsn, PageId, PageSeq},
    log::Reservation,
    materializer::Materializer,
    mem::PageMemory,
    metrics::Work,
    page::{
        cell::{Cell, Head, Word},
        chain::{ALL_DURABLE, Body, Draft, Node, Stamp},
        slot::{Slot, SlotState},
    },
    reclaim::Guard,
};

/// What became of a change.
#[must_use = "a lost race must be retried or reported"]
pub(crate) enum Outcome<'g, P> {
    Done(PagePtr<'g, P>),
    /// The page is not as the key says; this is its key now.
    Stale(PagePtr<'g, P>),
    /// There is no page to change.
    Gone,
}

impl<'g, P> Outcome<'g, P> {
    /// The page's new key, or what the face says of a lost race.
    pub(crate) fn told(self) -> Result<PagePtr<'g, P>, Error<Option<PagePtr<'g, P>>>> {
        match self {
            Outcome::Done(key) => Ok(key),
            Outcome::Stale(now) => Err(Error::CasFailed(Some(now))),
            Outcome::Gone => Err(Error::CasFailed(None)),
        }
    }
}

/// A page that is as the caller's key says, and may be changed.
pub(crate) struct Target<'g, 'c, P> {
    pub(crate) cell: &'c Cell<P>,
    pub(crate) word: Word<P>,
    pub(crate) head: Head<'g, P>,
    pub(crate) seq: PageSeq,
}

impl<P> Target<'_, '_, P> {
    /// True if a batch that was pending when the key was taken has ended since, so that whoever made
    /// the change may not have seen what the page says now. Asked after [`conflict`]: what is still
    /// pending then may end at any time, as it commutes with the change.
    pub(crate) fn is_settled_since(&self, key: &PagePtr<'_, P>) -> bool {
        let pending = match self.head {
            Head::Chain(top) => top.pending(),
            _ => 0,
        };
        pending != key.pending
    }
}

impl<P> Target<'_, '_, P> {
    /// Smallest LSN of a change that the page's durable form lacks and that `body` takes out of the chain: the
    /// log keeps it for as long as nobody knows that what takes its place is durable.
    fn oldest_replaced(&self, body: &Body<P>, guard: &Guard) -> Lsn {
        match (&self.head, body) {
            (Head::Chain(_), Body::Append(_)) => ALL_DURABLE,
            (Head::Chain(top), _) => {
                top.oldest_above(self.cell.durable(guard).map_or(0, |durable| durable.seq))
            }
            _ => ALL_DURABLE,
        }
    }
}

/// The answer of [`PageCache::aim`].
pub(crate) enum Aim<'g, 'c, P> {
    At(Target<'g, 'c, P>),
    Stale(PagePtr<'g, P>),
    Gone,
}

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// Compares the page with the key.
    pub(crate) fn aim<'g>(
        &self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        guard: &'g Guard,
    ) -> Result<Aim<'g, '_, P>, Failure> {
        let Some(cell) = self.shared.cache.pages.cell(pid) else { return Ok(Aim::Gone) };
        let (mut word, mut head) = cell.head(guard);
        if matches!(head, Head::Unallocated) {
            self.shared.cache.load(pid)?;
            (word, head) = cell.head(guard);
        }
        let seq = match head {
            Head::Unallocated | Head::Free(_) => return Ok(Aim::Gone),
            Head::Evicted(_) if is_value(cell, guard) => return Ok(Aim::Gone),
            Head::Allocated(seq) | Head::Evicted(seq) => seq,
            Head::Chain(top) => {
                if is_freed(top) || (top.ground().is_none() && is_value(cell, guard)) {
                    return Ok(Aim::Gone);
                }
                top.seq
            }
        };
        let matches = match key.key {
            Key::Allocated => word.is_allocated(),
            Key::Word(expected) => expected == word,
        };
        Ok(if matches {
            Aim::At(Target { cell, word, head, seq: seq + 1 })
        } else {
            Aim::Stale(ptr_of(word, head))
        })
    }

    /// Changes the page by one record of its own, with `len` bytes of payload.
    pub(crate) fn install<'g>(
        &self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        body: Body<P>,
        len: usize,
        guard: &'g Guard,
    ) -> Result<Outcome<'g, P>, Failure> {
        let shared = &*self.shared;
        shared.cache.poison.check()?;
        let target = match self.aim(pid, key, guard)? {
            Aim::At(target) => target,
            Aim::Stale(now) => return Ok(Outcome::Stale(now)),
            Aim::Gone => return Ok(Outcome::Gone),
        };
        if let Some(slot) = conflict(&shared.cache.materializer, &target.head, &body, None) {
            slot.wait_from_outside()?;
            return Ok(self.restale(target.cell, guard));
        }
        if target.is_settled_since(key) {
            return Ok(self.restale(target.cell, guard));
        }
        let body = based(body, &target.head);
        let recovered = frag_of(&body).and_then(|frag| shared.cache.materializer.recover(frag));
        let mut reservation = self.log_single(pid, target.seq, &body, len)?;
        reservation.seal();
        let lsn = reservation.lsn();
        let charge = shared.cache.charge_of(frag_of(&body));
        let marks = frag_of(&body).map_or(u64::MAX, |frag| shared.cache.materializer.marks(frag));
        let oldest = lsn.min(target.oldest_replaced(&body, guard));
        let draft = Draft { body, seq: target.seq, stamp: Stamp::At(lsn), oldest, charge };
        shared.cache.charge(charge);
        let Some((word, dropped)) = put(&shared.cache.memory, &target, draft, marks, guard) else {
            reservation.abort();
            shared.cache.uncharge(charge);
            return Ok(self.restale(target.cell, guard));
        };
        shared.cache.uncharge(dropped);
        if !matches!(target.head, Head::Chain(_)) {
            shared.cache.budget.page_entered();
        }
        shared.mark_dirty(pid);
        if let Some(value) = recovered {
            shared.advance_recovery(lsn, value);
        }
        reservation.complete();
        shared.note_progress(lsn);
        Ok(Outcome::Done(PagePtr {
            changed_at: lsn,
            ..self.after_install(target.cell, word, key.pending, guard)
        }))
    }

    fn log_single(
        &self,
        pid: PageId,
        seq: PageSeq,
        body: &Body<P>,
        len: usize,
    ) -> Result<Reservation<'_>, Failure> {
        let materializer = &self.shared.cache.materializer;
        let (kind, frag) = match body {
            Body::Append(frag) => (Kind::Append, Some(frag)),
            Body::Base(frag) => (Kind::Base, Some(frag)),
            Body::Free => (Kind::Free, None),
        };
        let _timing = self.shared.cache.metrics.time(Work::Reserve);
        let mut tries = 0;
        let mut reservation = loop {
            match self.shared.log.reserve(RecordHead { kind, pid, seq }, len) {
                Err(failure) if self.waits_for_log(&failure, &mut tries) => {}
                outcome => break outcome?,
            }
        };
        if let Some(frag) = frag {
            materializer.encode(frag, reservation.payload());
        }
        Ok(reservation)
    }

    pub(crate) fn restale<'g>(&self, cell: &Cell<P>, guard: &'g Guard) -> Outcome<'g, P> {
        let (word, head) = cell.head(guard);
        match head {
            Head::Unallocated | Head::Free(_) => Outcome::Gone,
            Head::Chain(top) if is_freed(top) => Outcome::Gone,
            _ => Outcome::Stale(ptr_of(word, head)),
        }
    }

    /// Keeps chains short and memory bounded; returns the page's key.
    pub(super) fn after_install<'g>(
        &self,
        cell: &Cell<P>,
        word: Word<P>,
        pending: u32,
        guard: &'g Guard,
    ) -> PagePtr<'g, P> {
        let cache = &self.shared.cache;
        cell.touch();
        let (now, head) = cell.head(guard);
        let Head::Chain(top) = head else { return PagePtr::of_word(word) };
        if now != word {
            // Somebody changed the page already: the caller's key is stale from the start.
            return PagePtr::of_word(word);
        }
        // What was pending is not known to the caller, so a key of a page that holds it would lie.
        if pending == 0
            && top.depth as usize > self.shared.consolidation_threshold
            && let Some((word, node)) = cache.shorten(cell, word, top, guard)
        {
            return PagePtr::of_chain(word, node);
        }
        PagePtr { pending, ..PagePtr::of_chain(word, top) }
    }
}

/// True if the newest thing that readers may see is that the page is gone.
pub(crate) fn is_freed<P>(top: &Node<P>) -> bool {
    let visible = top.walk().find(|node| matches!(node.state(), SlotState::Committed(_)));
    visible.is_some_and(|node| matches!(node.body, Body::Free))
}

pub(crate) fn frag_of<P>(body: &Body<P>) -> Option<&P> {
    match body {
        Body::Base(frag) | Body::Append(frag) => Some(frag),
        Body::Free => None,
    }
}

/// The first change of an allocated page begins it, whatever it was called.
pub(crate) fn based<P>(body: Body<P>, head: &Head<'_, P>) -> Body<P> {
    match (body, head) {
        (Body::Append(frag), Head::Allocated(_)) => Body::Base(frag),
        (body, _) => body,
    }
}

pub(crate) fn ptr_of<'g, P>(word: Word<P>, head: Head<'g, P>) -> PagePtr<'g, P> {
    match head {
        Head::Chain(top) => PagePtr::of_chain(word, top),
        _ => PagePtr::of_word(word),
    }
}

/// The slot of a pending fragment above which `body` may not be added, if there is one. Fragments of
/// the batch that owns `own` are no obstacle to it.
pub(crate) fn conflict<'g, PM: Materializer>(
    materializer: &PM,
    head: &Head<'g, PM::PageFrag>,
    body: &Body<PM::PageFrag>,
    own: Option<&Slot>,
) -> Option<&'g Slot> {
    let Head::Chain(top) = head else { return None };
    if top.slotted == 0 {
        return None;
    }
    top.walk().find_map(|node| {
        let Stamp::Slot(slot) = &node.stamp else { return None };
        let is_own = own.is_some_and(|own| std::ptr::eq(own, &**slot));
        if is_own || slot.state() != SlotState::Pending {
            return None;
        }
        let commutes = match (&node.body, body) {
            (Body::Append(pending), Body::Append(new)) => materializer.commutes(pending, new),
            _ => false,
        };
        (!commutes).then_some(&**slot)
    })
}

/// Swaps the new node in. Returns the new word and the charge of what it replaced for good.
fn put<P: Send + Sync + 'static>(
    memory: &PageMemory,
    target: &Target<'_, '_, P>,
    draft: Draft<P>,
    marks: u64,
    guard: &Guard,
) -> Option<(Word<P>, usize)> {
    let replaces = !matches!(draft.body, Body::Append(_));
    match target.head {
        Head::Chain(top) if !replaces => {
            target.cell.push(target.word, Node::marked(memory, draft, marks, top)).ok().map(|word| (word, 0))
        }
        Head::Chain(top) => {
            let dropped = top.chain_charge();
            target
                .cell
                .replace(target.word, Node::bottom(memory, draft), guard)
                .ok()
                .map(|word| (word, dropped))
        }
        _ => target.cell.replace(target.word, Node::bottom(memory, draft), guard).ok().map(|word| (word, 0)),
    }
}
