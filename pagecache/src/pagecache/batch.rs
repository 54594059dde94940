//! Batches: changes of several pages that happen together or not at all (P-5).
//!
//! ```text
//! install every fragment as pending ─► reserve one record at c ─► write it ─► slot := committed(c) ─► complete
//! ```
//!
//! * BATCH-1: every fragment is installed before the record is reserved, and all of them show at the
//!   one store that flips the slot.
//! * BATCH-2: a batch that is dropped, or whose record cannot be had, aborts: its fragments are
//!   hidden for ever and nothing of it is in the log.
//! * BATCH-3 (P-6): callers install in one total order, so two batches never wait for each other in
//!   a ring. A batch that must not wait while it holds anything says so at admission.

use std::sync::Arc;

use super::{
    PageCache,
    install::{Aim, Outcome, Target, based, conflict, frag_of},
    page_ptr::PagePtr,
};
use crate::{
    error::{Error, Failure, Result},
    format::{
        batch::{ENTRY_HEADER_BYTES, EntryKind, put_header},
        record::{Kind, RecordHead},
    },
    ids::{Lsn, PageId, PageSeq},
    materializer::Materializer,
    page::{
        cell::Head,
        chain::{Body, Draft, Node, Stamp},
        slot::Slot,
    },
    reclaim::{Guard, pin},
};

/// What a batch is let in with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission {
    /// Bytes of memory that its fragments will take, as far as known.
    pub mem: usize,
    /// Bytes of log that its record will take, as far as known.
    pub log: usize,
    /// True for optional work, as the change of a tree's shape: where it would wait for another
    /// batch while it holds anything, it fails with [`Error::CasFailed`] instead.
    pub optional: bool,
}

/// What the last look at a batch decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The batch happens.
    Commit,
    /// The batch does not happen.
    Abort,
}

/// One fragment of the batch, kept until the record is written.
struct Item<P> {
    pid: PageId,
    seq: PageSeq,
    kind: EntryKind,
    frag: Option<P>,
    /// The page was new: if the batch aborts, its id goes back.
    fresh: bool,
}

/// Changes of several pages that will happen together. Dropping it gives it up.
pub struct Batch<'c, PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    pc: &'c PageCache<PM, P, R>,
    slot: Arc<Slot>,
    items: Vec<Item<P>>,
    bytes: usize,
    optional: bool,
    settled: bool,
}

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// Begins a batch.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLarge`] if `admission.log` exceeds one record, [`Failure::Poisoned`] after a
    /// failed write.
    pub fn begin_batch(&self, admission: Admission) -> std::result::Result<Batch<'_, PM, P, R>, Failure> {
        self.shared.cache.poison.check()?;
        check_size(admission.log, self.batch_bytes_max())?;
        // Now, while the batch holds nothing: pages with pending changes are not written back, so a
        // checkpoint later might release nothing.
        if !self.shared.log.has_room_for(admission.log) {
            self.shared.checkpoint()?;
        }
        Ok(Batch {
            pc: self,
            slot: Arc::new(Slot::new()),
            items: Vec::new(),
            bytes: 0,
            optional: admission.optional,
            settled: false,
        })
    }

    pub(crate) fn free_allocated<'g>(
        &self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        guard: &'g Guard,
    ) -> Result<(), Option<PagePtr<'g, P>>> {
        match self.aim(pid, key, guard) {
            Aim::At(target) => {
                let seq = target.seq - 1;
                if target.cell.set(target.word, crate::page::cell::Word::free(seq), guard) {
                    self.shared.cache.pages.give_back(pid);
                    return Ok(());
                }
                match self.restale(target.cell, guard) {
                    Outcome::Stale(now) => Err(Error::CasFailed(Some(now))),
                    _ => Err(Error::CasFailed(None)),
                }
            }
            Aim::Stale(now) => Err(Error::CasFailed(Some(now))),
            Aim::Gone => Err(Error::CasFailed(None)),
        }
    }
}

fn check_size(bytes: usize, limit: usize) -> std::result::Result<(), Failure> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Failure::TooLarge {
        what: "batch",
        bytes: bytes as u64,
        limit: limit as u64,
        remedy: "split it, or make the store with larger log segments",
    })
}

impl<PM, P, R> Batch<'_, PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// Adds a change to a page, unseen until the batch commits; returns the page's new key.
    ///
    /// # Errors
    ///
    /// [`Error::CasFailed`] if the page is not as `key` says: look again and add what is right then.
    /// [`Error::Io`] with [`Failure::TooLarge`] if the batch exceeds one record.
    pub fn link<'g>(
        &mut self,
        pid: PageId,
        key: PagePtr<'g, P>,
        frag: P,
        guard: &'g Guard,
    ) -> Result<PagePtr<'g, P>, Option<PagePtr<'g, P>>> {
        self.add(pid, &key, Body::Append(frag), guard)
    }

    /// Begins a page anew, unseen until the batch commits; returns the page's new key.
    ///
    /// # Errors
    ///
    /// As [`Batch::link`].
    pub fn replace<'g>(
        &mut self,
        pid: PageId,
        key: PagePtr<'g, P>,
        frag: P,
        guard: &'g Guard,
    ) -> Result<PagePtr<'g, P>, Option<PagePtr<'g, P>>> {
        self.add(pid, &key, Body::Base(frag), guard)
    }

    /// Frees a page once the batch commits.
    ///
    /// # Errors
    ///
    /// As [`Batch::link`].
    pub fn free<'g>(
        &mut self,
        pid: PageId,
        key: PagePtr<'g, P>,
        guard: &'g Guard,
    ) -> Result<(), Option<PagePtr<'g, P>>> {
        self.add(pid, &key, Body::Free, guard).map(|_| ())
    }

    fn add<'g>(
        &mut self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        body: Body<P>,
        guard: &'g Guard,
    ) -> Result<PagePtr<'g, P>, Option<PagePtr<'g, P>>> {
        let pc = self.pc;
        let cache = &pc.shared.cache;
        let target = match pc.aim(pid, key, guard) {
            Aim::At(target) => target,
            Aim::Stale(now) => return Err(Error::CasFailed(Some(now))),
            Aim::Gone => return Err(Error::CasFailed(None)),
        };
        if let Some(other) = conflict(&cache.materializer, &target.head, &body, Some(&self.slot)) {
            if !self.optional || self.items.is_empty() {
                other.wait_from_outside()?;
            }
            return Err(Error::CasFailed(self.now(&target, guard)));
        }
        if target.is_settled_since(key) {
            return Err(Error::CasFailed(self.now(&target, guard)));
        }
        let body = based(body, &target.head);
        let len = frag_of(&body).map_or(0, |frag| cache.materializer.encoded_len(frag));
        let bytes = self.bytes + ENTRY_HEADER_BYTES + len;
        check_size(bytes, pc.batch_bytes_max())?;
        let item = Item {
            pid,
            seq: target.seq,
            kind: match &body {
                Body::Append(_) => EntryKind::Append,
                Body::Base(_) => EntryKind::Base,
                Body::Free => EntryKind::Free,
            },
            frag: frag_of(&body).cloned(),
            fresh: matches!(target.head, Head::Allocated(_)),
        };
        let charge = cache.charge_of(frag_of(&body));
        let stamp = Stamp::Slot(self.slot.clone());
        let marks = frag_of(&body).map_or(u64::MAX, |frag| cache.materializer.marks(frag));
        let draft = Draft { body, seq: target.seq, stamp, oldest: Lsn::MAX, charge };
        cache.charge(charge);
        let pushed = match target.head {
            // Even a base stands above what it replaces: if the batch aborts, that is the page.
            Head::Chain(top) => target.cell.push(target.word, Node::marked(&cache.memory, draft, marks, top)),
            _ => target.cell.push(target.word, Node::bottom(&cache.memory, draft)),
        };
        match pushed {
            Ok(word) => {
                self.items.push(item);
                self.bytes = bytes;
                cache.pages.mark_dirty(pid);
                // Its own fragment is one more that readers do not see.
                Ok(PagePtr { pending: key.pending + 1, ..PagePtr::of_word(word) })
            }
            Err(_) => {
                cache.uncharge(charge);
                Err(Error::CasFailed(self.now(&target, guard)))
            }
        }
    }

    fn now<'g>(&self, target: &Target<'_, '_, P>, guard: &'g Guard) -> Option<PagePtr<'g, P>> {
        match self.pc.restale(target.cell, guard) {
            Outcome::Done(key) | Outcome::Stale(key) => Some(key),
            Outcome::Gone => None,
        }
    }

    /// Writes the batch's record and shows its changes, if `judge` says so when asked with the
    /// record's position. Returns that position, or `None` if the batch was given up.
    ///
    /// # Errors
    ///
    /// [`Failure`] if no record could be had; the batch is then given up.
    pub fn commit(mut self, judge: impl FnOnce(Lsn) -> Verdict) -> std::result::Result<Option<Lsn>, Failure> {
        let shared = &*self.pc.shared;
        if self.items.is_empty() {
            return Ok(Some(shared.log.next_lsn()));
        }
        let recovered = self
            .items
            .iter()
            .filter_map(|item| shared.cache.materializer.recover(item.frag.as_ref()?))
            .last();
        let head = RecordHead { kind: Kind::Batch, pid: 0, seq: 0 };
        let mut reservation = shared.log.reserve(head, self.bytes)?;
        let mut rest = reservation.payload();
        for item in &self.items {
            let len = item.frag.as_ref().map_or(0, |frag| shared.cache.materializer.encoded_len(frag));
            let (place, after) = put_header(rest, item.pid, item.kind, item.seq, len);
            if let Some(frag) = &item.frag {
                shared.cache.materializer.encode(frag, place);
            }
            rest = after;
        }
        assert!(rest.is_empty(), "a batch encoded to fewer bytes than it was measured");
        reservation.seal();
        let lsn = reservation.lsn();
        if judge(lsn) == Verdict::Abort {
            reservation.abort();
            return Ok(None);
        }
        if let Some(value) = recovered {
            shared.advance_recovery(lsn, value);
        }
        self.settled = true;
        self.slot.commit(lsn);
        reservation.complete();
        shared.note_progress(lsn);
        shared.keep_within_capacity();
        Ok(Some(lsn))
    }
}

impl<PM, P, R> Drop for Batch<'_, PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        self.slot.abort();
        let guard = pin();
        let cache = &self.pc.shared.cache;
        for item in self.items.iter().filter(|item| item.fresh) {
            let cell = cache.pages.cell(item.pid).expect("the batch changed the page");
            let (word, head) = cell.head(&guard);
            // Nobody else knows of the page, so it is as the batch left it.
            let Head::Chain(top) = head else { continue };
            let charge = top.chain_charge();
            if cell.set(word, crate::page::cell::Word::free(top.seq), &guard) {
                cache.uncharge(charge);
                cache.pages.give_back(item.pid);
            }
        }
    }
}
