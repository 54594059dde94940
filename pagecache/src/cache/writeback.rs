//! Writing pages back to the `pages` file: images of changed pages, and moves of unchanged ones.
//!
//! A page is written under its claim. Its image holds exactly the fragments up to some sequence
//! number; changes that arrive meanwhile stay in the chain above that number and keep the page dirty.
//! No guard is held while the file is written, so that memory is reclaimed meanwhile.
//! Nothing is synced here: until a checkpoint publishes the new places, recovery uses the old ones.

use super::Cache;
use crate::{
    error::Failure,
    format::frame::FrameKind,
    ids::{FragmentAddr, Lsn, PageId, PageSeq},
    materializer::Materializer,
    page::{
        cell::{Cell, Claim, Durable, Head, Image, Word},
        chain::{ALL_DURABLE, committed},
    },
    reclaim::{Guard, pin},
    store::{Batch, Purpose, WrittenFrame},
};

/// Claims held at one time: bounds the memory of a round and the time a claim is held.
const PAGES_PER_ROUND: usize = 64;

/// What became of a round of write-back.
#[derive(Debug, Default)]
pub(crate) struct WrittenBack {
    /// Pages whose durable form is current as of this round.
    pub(crate) pages: usize,
    /// Pages left dirty: pending fragments, or another thread had the claim.
    pub(crate) skipped: Vec<PageId>,
}

/// A page whose image is on its way to the file.
struct Written<'c, P> {
    pid: PageId,
    claim: Claim<'c, P>,
    seq: PageSeq,
    newest: Lsn,
    /// The word of a Free node that turns into a plain Free word; there is no image then.
    free: Option<Word<P>>,
}

impl<M: Materializer> Cache<M> {
    /// Writes the given pages back, in rounds.
    pub(crate) fn write_back(&self, pids: &[PageId], purpose: Purpose) -> Result<WrittenBack, Failure> {
        let mut done = WrittenBack::default();
        for round in pids.chunks(PAGES_PER_ROUND) {
            let mut batch = self.store.batch(purpose);
            let mut written = Vec::with_capacity(round.len());
            for &pid in round {
                match self.write_one(pid, &mut batch, &pin())? {
                    Outcome::Clean => done.pages += 1,
                    Outcome::Later => done.skipped.push(pid),
                    Outcome::Written(page) => written.push(page),
                }
            }
            let frames = batch.finish()?;
            done.pages += written.len();
            self.record(written, frames.frames(), &pin())?;
        }
        Ok(done)
    }

    fn write_one<'c>(
        &'c self,
        pid: PageId,
        batch: &mut Batch<'_>,
        guard: &Guard,
    ) -> Result<Outcome<'c, M::PageFrag>, Failure> {
        let cell = self.pages.cell(pid).expect("dirty pages are below the bound");
        let Some(claim) = cell.claim() else { return Ok(Outcome::Later) };
        // A chain over an evicted base is made whole first.
        self.resident(pid, guard)?;
        let (word, head) = cell.head(guard);
        let Head::Chain(top) = head else { return Ok(Outcome::Clean) };
        let durable_seq = cell.durable(guard).map_or(0, |durable| durable.seq);
        if top.is_unsettled() {
            return Ok(Outcome::Later);
        }
        if top.oldest_above(durable_seq) == ALL_DURABLE {
            return Ok(Outcome::Clean);
        }
        if committed(top).is_none() {
            let (seq, newest) = (top.seq, top.last_lsn());
            return Ok(Outcome::Written(Written { pid, claim, seq, newest, free: Some(word) }));
        }
        let Some(parts) = committed(top).filter(|parts| parts.has_base) else { return Ok(Outcome::Later) };
        // The merged page is not put in the chain's place: a checkpoint would make garbage of every
        // dirty page at once, which a single pinned reader could keep.
        let merged;
        let frag = match parts.frags.as_slice() {
            [only] => *only,
            many => {
                let oldest_first: Vec<&M::PageFrag> = many.iter().rev().copied().collect();
                merged = self.materializer.merge(&oldest_first);
                &merged
            }
        };
        let len = self.materializer.encoded_len(frag);
        batch.push(pid as u64, top.seq, FrameKind::Image, len, |out| self.materializer.encode(frag, out))?;
        let (seq, newest) = (top.seq, parts.newest);
        Ok(Outcome::Written(Written { pid, claim, seq, newest, free: None }))
    }

    /// Makes the new places known, in one step with their place in the list of changes (CACHE-3).
    fn record(
        &self,
        written: Vec<Written<'_, M::PageFrag>>,
        frames: &[WrittenFrame],
        guard: &Guard,
    ) -> Result<(), Failure> {
        if written.is_empty() {
            return Ok(());
        }
        // Images were pushed in the order of `written`.
        let mut frames = frames.iter();
        let mut changes = self.changes.lock();
        for page in written {
            let cell = self.pages.cell(page.pid).expect("a written page has a cell");
            let image = match page.free {
                Some(_) => None,
                None => frames.next().map(|frame| Image { base: frame.addr, deltas: Vec::new() }),
            };
            let durable = Durable { seq: page.seq, image };
            self.account(cell, &durable, guard)?;
            changes.record(page.pid, &page.claim, durable, page.newest, guard);
            if let Some(word) = page.free {
                let charge = match cell.head(guard).1 {
                    Head::Chain(top) => top.chain_charge(),
                    _ => 0,
                };
                // Nobody changes a freed page before it is given back, so this swap succeeds.
                if cell.set(word, Word::free(page.seq), guard) {
                    self.uncharge(charge);
                    changes.freed(page.pid);
                }
            }
        }
        Ok(())
    }

    /// Moves live bytes from the segments of the old form to those of the new one.
    fn account(&self, cell: &Cell<M::PageFrag>, new: &Durable, guard: &Guard) -> Result<(), Failure> {
        new.parts().try_for_each(|addr| self.store.retain(addr))?;
        if let Some(old) = cell.durable(guard) {
            old.parts().for_each(|addr| self.store.release(addr));
        }
        Ok(())
    }

    /// Moves the frames of unchanged pages: each page in `frames` whose durable base still lies at
    /// the given address is copied to a new place. Returns the bytes moved.
    pub(crate) fn relocate(&self, frames: &[(PageId, FragmentAddr)]) -> Result<u64, Failure> {
        let mut moved = 0;
        for round in frames.chunks(PAGES_PER_ROUND) {
            let mut batch = self.store.batch(Purpose::Ordinary);
            let mut written = Vec::with_capacity(round.len());
            for &(pid, addr) in round {
                if let Some(page) = self.move_one(pid, addr, &mut batch, &pin())? {
                    moved += u64::from(addr.len);
                    written.push(page);
                }
            }
            let frames = batch.finish()?;
            self.record(written, frames.frames(), &pin())?;
        }
        Ok(moved)
    }

    fn move_one<'c>(
        &'c self,
        pid: PageId,
        addr: FragmentAddr,
        batch: &mut Batch<'_>,
        guard: &Guard,
    ) -> Result<Option<Written<'c, M::PageFrag>>, Failure> {
        let Some(cell) = self.pages.cell(pid) else { return Ok(None) };
        let Some(claim) = cell.claim() else { return Ok(None) };
        let Some(durable) = cell
            .durable(guard)
            .filter(|durable| durable.image.as_ref().is_some_and(|image| image.base == addr))
        else {
            return Ok(None);
        };
        let frame = self.store.read(&self.store.pin(addr)?, pid as u64, Some(durable.seq))?;
        let bytes = frame.payload();
        batch
            .push(pid as u64, durable.seq, FrameKind::Image, bytes.len(), |out| out.copy_from_slice(bytes))?;
        Ok(Some(Written { pid, claim, seq: durable.seq, newest: 0, free: None }))
    }
}

enum Outcome<'c, P> {
    Clean,
    Later,
    Written(Written<'c, P>),
}
