//! Batches: changes of several pages that happen together or not at all (P-5).
//!
//! ```text
//! install every fragment as pending ─► reserve one record at c ─► write it
//!     ─► (wait for all below c, and look) ─► adopt values ─► slot := committed(c) ─► complete
//! ```
//!
//! A batch that depends on what it has read looks at it again at its own position, when nothing below that
//! can change any more. One that does not is simply applied.
//!
//! What exceeds one record is written in parts before that, and c is the record that ends them
//! ([`super::run`]).
//!
//! * BATCH-1: every fragment is installed before the record is reserved, and all of them show at the
//!   one store that flips the slot.
//! * BATCH-2: a batch that is dropped, or whose record cannot be had, aborts: its fragments are
//!   hidden for ever and nothing of it counts in the log.
//! * BATCH-3 (P-6): callers install in one total order, so two batches never wait for each other in
//!   a ring. A batch that must not wait while it holds anything says so at admission.
//!
//! How a batch waits for what is below it is told in the log (ORDER-1), how its values were written before in
//! [`super::values`].

use std::{collections::BTreeMap, sync::Arc};

use super::{
    PageCache,
    admission::{Admission, Admitted},
    install::{Aim, Outcome, based, conflict, frag_of, is_freed},
    page_ptr::PagePtr,
    run::{Parts, Written},
    shared::Shared,
    values::{NewValue, ValueId},
};
use crate::{
    error::{Error, Failure, Result},
    format::{
        batch::{ENTRY_HEADER_BYTES, EntryKind, put_header},
        record::{Kind, RecordHead},
    },
    ids::{Lsn, PageId, PageSeq},
    log::Reservation,
    materializer::Materializer,
    metrics::Work,
    page::{
        cell::{Head, Word},
        chain::{Body, Draft, Node, Stamp},
        slot::Slot,
    },
    reclaim::{Guard, pin},
    store::Purpose,
};

/// What the last look at a batch decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The batch happens.
    Commit,
    /// The batch does not happen.
    Abort,
    /// It cannot be said without this page, which is not in memory. The position is given up, the
    /// page is fetched, and the question comes again with another position: no disk is read while a
    /// place in the log is held. What was installed stays pending meanwhile.
    Load(PageId),
}

/// One fragment of the batch, kept until the record is written.
struct Item<P> {
    pid: PageId,
    seq: PageSeq,
    kind: EntryKind,
    frag: Option<P>,
    /// Where a value lies that the batch adopts.
    extents: Vec<u8>,
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
    /// Values that become pages at the commit; nobody can reach them before.
    adopted: Vec<NewValue<'c, PM>>,
    /// Pages of values that go at the commit.
    freed_values: Vec<PageId>,
    bytes: usize,
    admitted: Admitted<'c, PM>,
    optional: bool,
    /// It is one change of one page ([`super::large`]), so a page that it was to begin is not its own to
    /// give back.
    alone: bool,
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
    /// [`Failure::TooLarge`] if `admission.log` exceeds [`PageCache::batch_bytes_max`],
    /// [`Failure::Poisoned`] after a failed write.
    pub fn begin_batch(&self, admission: Admission) -> std::result::Result<Batch<'_, PM, P, R>, Failure> {
        self.shared.cache.poison.check()?;
        Ok(Batch {
            pc: self,
            slot: Arc::new(Slot::new()),
            items: Vec::new(),
            adopted: Vec::new(),
            freed_values: Vec::new(),
            bytes: 0,
            admitted: self.shared.admit(admission)?,
            optional: admission.optional,
            alone: false,
            settled: false,
        })
    }

    /// Begins a batch of one change, which leaves an allocated page allocated if it is given up.
    pub(super) fn begin_alone(
        &self,
        admission: Admission,
    ) -> std::result::Result<Batch<'_, PM, P, R>, Failure> {
        let mut batch = self.begin_batch(admission)?;
        batch.alone = true;
        Ok(batch)
    }

    pub(crate) fn free_allocated<'g>(
        &self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        guard: &'g Guard,
    ) -> Result<(), Option<PagePtr<'g, P>>> {
        match self.aim(pid, key, guard)? {
            Aim::At(target) => {
                let seq = target.seq - 1;
                if target.cell.set(target.word, Word::free(seq), guard) {
                    self.shared.cache.pages.give_back(vec![pid], guard);
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

impl<'c, PM, P, R> Batch<'c, PM, P, R>
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
    /// [`Error::Io`] with [`Failure::TooLarge`] if the batch exceeds [`PageCache::batch_bytes_max`],
    /// and with [`Failure::Gated`] if the page takes no new batch while this one holds anything: give
    /// the batch up, call [`PageCache::pass_gate`], and begin again.
    pub fn link<'g>(
        &mut self,
        pid: PageId,
        key: PagePtr<'g, P>,
        frag: P,
        guard: &'g Guard,
    ) -> Result<PagePtr<'g, P>, Option<PagePtr<'g, P>>> {
        self.add(pid, &key, Body::Append(frag), guard)?.told()
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
        self.add(pid, &key, Body::Base(frag), guard)?.told()
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
        self.add(pid, &key, Body::Free, guard)?.told().map(|_| ())
    }

    /// Of a batch of one change that begins an allocated page: what the page is again if the batch is given
    /// up.
    pub(super) fn begun(&self) -> Option<Word<P>> {
        self.items.first().filter(|item| item.fresh).map(|item| Word::allocated(item.seq))
    }

    pub(super) fn add<'g>(
        &mut self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        body: Body<P>,
        guard: &'g Guard,
    ) -> std::result::Result<Outcome<'g, P>, Failure> {
        let pc = self.pc;
        let cache = &pc.shared.cache;
        let target = match pc.aim(pid, key, guard)? {
            Aim::At(target) => target,
            Aim::Stale(now) => return Ok(Outcome::Stale(now)),
            Aim::Gone => return Ok(Outcome::Gone),
        };
        if let Some(other) = conflict(&cache.materializer, &target.head, &body, Some(&self.slot)) {
            if !self.optional || self.items.is_empty() {
                other.wait_from_outside()?;
            }
            return Ok(pc.restale(target.cell, guard));
        }
        if target.is_settled_since(key) {
            return Ok(pc.restale(target.cell, guard));
        }
        match target.head {
            // A change of shape commutes with nothing, so it begins where nothing is pending anyway.
            Head::Chain(top) if !self.optional && pc.is_gated(target.cell, top, &self.slot, guard) => {
                if !self.items.is_empty() {
                    return Err(Failure::Gated { pid });
                }
                pc.pass_gate(pid)?;
                return Ok(pc.restale(target.cell, guard));
            }
            // A chain of nothing but a pending base reads as a page that was never written: what the base
            // may yet fail to replace has to lie under it.
            Head::Evicted(_) if !matches!(body, Body::Append(_)) => {
                let _ = cache.resident(pid, guard)?;
                return Ok(pc.restale(target.cell, guard));
            }
            _ => {}
        }
        let body = based(body, &target.head);
        let len = frag_of(&body).map_or(0, |frag| cache.materializer.encoded_len(frag));
        let bytes = self.bytes + ENTRY_HEADER_BYTES + len;
        self.admitted.check(bytes)?;
        let item = Item {
            pid,
            seq: target.seq,
            kind: match &body {
                Body::Append(_) => EntryKind::Append,
                Body::Base(_) => EntryKind::Base,
                Body::Free => EntryKind::Free,
            },
            frag: frag_of(&body).cloned(),
            extents: Vec::new(),
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
                self.admitted.take_memory(charge);
                if !matches!(target.head, Head::Chain(_)) {
                    cache.budget.page_entered();
                }
                pc.shared.mark_dirty(pid);
                // The page may leave again at once, and the change stays.
                pc.shared.make_room_for_batch();
                // Its own fragment is one more that readers do not see.
                Ok(Outcome::Done(PagePtr { pending: key.pending + 1, ..PagePtr::of_word(word) }))
            }
            Err(_) => {
                cache.uncharge(charge);
                Ok(pc.restale(target.cell, guard))
            }
        }
    }

    /// Makes a value part of the batch: it is there from the commit on, named by whatever else the batch
    /// writes. A batch that is given up leaves the value to the caller's handle.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLarge`] if the batch exceeds [`PageCache::batch_bytes_max`], [`Failure::Misuse`] if
    /// the value was adopted before.
    pub fn adopt(&mut self, value: &NewValue<'c, PM>) -> std::result::Result<ValueId, Failure> {
        let id = value.id();
        if value.0.is_adopted() || self.adopted.iter().any(|other| other.id() == id) {
            return Err(Failure::Misuse { what: "a value is adopted once" });
        }
        let mut extents = Vec::with_capacity(value.0.extents().encoded_bytes_max());
        value.0.extents().encode(&mut extents);
        let bytes = self.bytes + ENTRY_HEADER_BYTES + extents.len();
        self.admitted.check(bytes)?;
        self.bytes = bytes;
        let (kind, frag, fresh) = (EntryKind::Adopt, None, false);
        self.items.push(Item { pid: id.pid, seq: id.seq, kind, frag, extents, fresh });
        self.adopted.push(value.clone());
        Ok(id)
    }

    /// Frees a value once the batch commits. The caller has added the change to the batch that takes the
    /// value's name away, so nobody else frees it.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] if the page is not that value.
    pub fn free_value(&mut self, value: ValueId, guard: &Guard) -> std::result::Result<(), Failure> {
        let cache = &self.pc.shared.cache;
        let lost = || Failure::Corrupt {
            found: format!("page {} is not the value of change {} that is to be freed", value.pid, value.seq),
            path: cache.store.path(),
            offset: 0,
        };
        let cell = cache.pages.cell(value.pid).ok_or_else(lost)?;
        cache.load(value.pid)?;
        loop {
            let durable = cell.durable(guard);
            if !durable.is_some_and(|durable| durable.seq == value.seq && durable.value().is_some()) {
                return Err(lost());
            }
            let (word, head) = cell.head(guard);
            let before = match head {
                Head::Evicted(seq) => seq,
                Head::Chain(top) if top.pending() == 0 && !is_freed(top) => top.seq,
                _ => return Err(lost()),
            };
            let bytes = self.bytes + ENTRY_HEADER_BYTES;
            self.admitted.check(bytes)?;
            let (seq, charge, stamp) = (before + 1, cache.charge_of(None), Stamp::Slot(self.slot.clone()));
            let draft = Draft { body: Body::Free, seq, stamp, oldest: Lsn::MAX, charge };
            let node = match head {
                Head::Chain(top) => Node::above(&cache.memory, draft, top),
                _ => Node::bottom(&cache.memory, draft),
            };
            cache.charge(charge);
            if cell.push(word, node).is_ok() {
                let (pid, kind, frag) = (value.pid, EntryKind::Free, None);
                self.items.push(Item { pid, seq, kind, frag, extents: Vec::new(), fresh: false });
                self.freed_values.push(pid);
                self.bytes = bytes;
                self.admitted.take_memory(charge);
                cache.pages.mark_dirty(pid);
                return Ok(());
            }
            // An eviction has taken an aborted change away.
            cache.uncharge(charge);
        }
    }

    /// Writes the batch's record and shows its changes. Returns the record's position.
    ///
    /// # Errors
    ///
    /// [`Failure`] if no record could be had; the batch is then given up.
    pub fn apply(mut self) -> std::result::Result<Lsn, Failure> {
        if self.items.is_empty() {
            return Ok(self.pc.shared.log.next_lsn());
        }
        let _timing = self.pc.shared.cache.metrics.time(Work::Batch);
        let recovered = self.recovered();
        let run = self.write_beginning(recovered.as_ref())?;
        let reservation = self.write_last(run.as_ref())?;
        Ok(self.show(run, reservation, recovered))
    }

    /// As [`Batch::apply`], if `judge` says so when asked with the record's position. Returns that
    /// position, or `None` if the batch was given up.
    ///
    /// When `judge` is asked, every change below that position shows, and every change that does not show
    /// yet will be above it: what the batch has read is as it was if nothing of it has changed by then. It
    /// must not write, and must not wait for anybody who does.
    ///
    /// # Errors
    ///
    /// As [`Batch::apply`], and if a page that `judge` asked for could not be read.
    pub fn commit(
        mut self,
        mut judge: impl FnMut(Lsn) -> Verdict,
    ) -> std::result::Result<Option<Lsn>, Failure> {
        let shared: &'c Shared<PM> = &self.pc.shared;
        if self.items.is_empty() {
            return Ok(Some(shared.log.next_lsn()));
        }
        let _timing = shared.cache.metrics.time(Work::Batch);
        let recovered = self.recovered();
        let run = self.write_beginning(recovered.as_ref())?;
        let reservation = loop {
            let reservation = self.write_last(run.as_ref())?;
            reservation.wait_for_earlier();
            match judge(reservation.lsn()) {
                Verdict::Commit => break reservation,
                Verdict::Abort => {
                    reservation.abort();
                    return Ok(None);
                }
                Verdict::Load(pid) => {
                    reservation.abort();
                    let _ = shared.cache.resident(pid, &pin())?;
                }
            }
        };
        Ok(Some(self.show(run, reservation, recovered)))
    }

    /// What the newest fragment that says something to recovery says.
    fn recovered(&self) -> Option<R> {
        let materializer = &self.pc.shared.cache.materializer;
        self.items.iter().filter_map(|item| materializer.recover(item.frag.as_ref()?)).last()
    }

    /// The parts of a batch that exceeds one record.
    fn write_beginning(&self, recovered: Option<&R>) -> std::result::Result<Option<Written<'c>>, Failure> {
        if self.bytes <= self.pc.shared.log.max_payload() {
            return Ok(None);
        }
        self.write_parts(recovered).map(Some)
    }

    /// The record whose position is the batch's.
    fn write_last(&self, run: Option<&Written<'c>>) -> std::result::Result<Reservation<'c>, Failure> {
        match run {
            None => self.write_whole(),
            Some(run) => self.write_end(run),
        }
    }

    /// Everybody sees the batch from here on.
    fn show(&mut self, run: Option<Written<'c>>, reservation: Reservation<'c>, recovered: Option<R>) -> Lsn {
        let shared: &'c Shared<PM> = &self.pc.shared;
        let lsn = reservation.lsn();
        if let Some(value) = recovered {
            shared.advance_recovery(lsn, value);
        }
        self.settled = true;
        // Before anything that names them shows, and before the watermark passes the record (VALUE-2).
        self.adopted.iter().for_each(|value| value.0.adopt(lsn));
        self.slot.commit(run.as_ref().map_or(lsn, Written::first), lsn);
        reservation.complete();
        // From here on the pages themselves keep the log from the run's first part on.
        drop(run);
        // Large, so not left to the next checkpoint; what another thread is about to move is.
        let _left_dirty = shared.cache.write_back(&self.freed_values, Purpose::Ordinary);
        shared.note_progress(lsn);
        shared.make_room_under_guard();
        lsn
    }

    /// The batch as one record.
    fn write_whole(&self) -> std::result::Result<Reservation<'c>, Failure> {
        let shared: &'c Shared<PM> = &self.pc.shared;
        let head = RecordHead { kind: Kind::Batch, pid: 0, seq: 0 };
        let mut reservation = shared.log.reserve(head, self.bytes)?;
        let mut rest = reservation.payload();
        for item in &self.items {
            rest = self.encode(item, rest, item.len(&shared.cache.materializer));
        }
        assert!(rest.is_empty(), "a batch encoded to fewer bytes than it was measured");
        reservation.seal();
        Ok(reservation)
    }

    /// The batch as parts of a run, without the run's end.
    fn write_parts(&self, recovered: Option<&R>) -> std::result::Result<Written<'c>, Failure> {
        let shared: &'c Shared<PM> = &self.pc.shared;
        let materializer = &shared.cache.materializer;
        let mut parts = Parts::new(shared);
        let mut entry = Vec::new();
        let mut tallies = BTreeMap::new();
        for item in &self.items {
            let len = item.len(materializer);
            entry.resize(ENTRY_HEADER_BYTES + len, 0);
            self.encode(item, &mut entry, len);
            parts.put(&entry)?;
            if let Some((counter, difference)) = item.frag.as_ref().and_then(|frag| materializer.tally(frag))
            {
                *tallies.entry(counter).or_insert(0) += difference;
            }
        }
        parts.finish(tallies.into_iter().collect(), recovered)
    }

    /// The record that ends a run.
    fn write_end(&self, run: &Written<'c>) -> std::result::Result<Reservation<'c>, Failure> {
        let shared: &'c Shared<PM> = &self.pc.shared;
        let end = run.end();
        let head = RecordHead { kind: Kind::RunCommit, pid: 0, seq: 0 };
        let mut reservation = shared.log.reserve(head, end.len())?;
        reservation.payload().copy_from_slice(&end);
        reservation.seal();
        Ok(reservation)
    }

    /// Writes one entry to the front of `out` and returns the rest.
    fn encode<'o>(&self, item: &Item<P>, out: &'o mut [u8], len: usize) -> &'o mut [u8] {
        let (place, rest) = put_header(out, item.pid, item.kind, item.seq, len);
        match &item.frag {
            Some(frag) => self.pc.shared.cache.materializer.encode(frag, place),
            None => place.copy_from_slice(&item.extents),
        }
        rest
    }
}

impl<P> Item<P> {
    fn len<M: Materializer<PageFrag = P>>(&self, materializer: &M) -> usize {
        self.frag.as_ref().map_or(self.extents.len(), |frag| materializer.encoded_len(frag))
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
        let guard = pin();
        let cache = &self.pc.shared.cache;
        for item in self.items.iter().filter(|item| item.fresh) {
            let cell = cache.pages.cell(item.pid).expect("the batch changed the page");
            let (word, head) = cell.head(&guard);
            // Nobody changes it while the batch is pending, so it is as the batch left it.
            let Head::Chain(top) = head else { continue };
            let charge = top.chain_charge();
            let before = if self.alone { Word::allocated(top.seq) } else { Word::free(top.seq) };
            if cell.set(word, before, &guard) {
                cache.uncharge(charge);
                if !self.alone {
                    cache.pages.give_back(vec![item.pid], &guard);
                }
            }
        }
        self.slot.abort();
    }
}

#[cfg(all(test, not(loom)))]
#[path = "batch_tests.rs"]
mod tests;
