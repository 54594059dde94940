//! Writing pages back to the `pages` file: what changed of them, or all of them.
//!
//! A page is written under its claim: as a delta-page with the changes that its durable form lacks, while
//! these are few and known one by one, else as an image. What is written holds exactly the fragments up to some
//! sequence number; changes that arrive meanwhile stay in the chain above that number and keep the page dirty.
//! A freed page is recorded as free, and nothing is written for it.
//!
//! Where a snapshot reads an older version of something in a page, the page is written whole, with what is kept
//! for that ([`super::snapshots`]).
//!
//! * DELTA-1: a delta-page holds every change above the number of the durable form that it goes on, which
//!   the page's claim keeps in its place until the delta-page is recorded.
//!
//! No guard is held while the file is written, so that memory is reclaimed meanwhile.
//! Nothing is synced here: until a checkpoint publishes the new places, recovery uses the old ones.
//! Moves of unchanged parts are [`super::relocate`]'s business.

use super::{Cache, Keep, Resident};
use crate::{
    error::Failure,
    format::{
        delta,
        frame::{FRAME_HEADER_BYTES, FrameKind},
    },
    ids::{FragmentAddr, Lsn, PageId, PageSeq},
    materializer::Materializer,
    mem::Placed,
    metrics::Work,
    page::{
        cell::{Cell, Claim, Head, Word},
        chain::{ALL_DURABLE, Node, changes_above, committed},
        durable::{self, Durable, Image},
    },
    reclaim::{Guard, pin},
    store::{Batch, Purpose, Stream, WrittenFrame},
};

/// Claims held at one time: bounds the memory of a round and the time a claim is held.
pub(super) const PAGES_PER_ROUND: usize = 64;

/// What became of a round of write-back.
#[derive(Debug, Default)]
pub(crate) struct WrittenBack {
    /// Pages whose durable form is current as of this round.
    pub(crate) pages: usize,
    /// Pages left dirty: pending fragments, or another thread had the claim.
    pub(crate) skipped: Vec<PageId>,
}

/// A page whose new form is on its way to the file.
pub(super) struct Written<'c, P> {
    pub(super) pid: PageId,
    pub(super) claim: Claim<'c, P>,
    pub(super) seq: PageSeq,
    pub(super) newest: Lsn,
    pub(super) form: Form<P>,
}

/// What was written of a page.
pub(super) enum Form<P> {
    /// The whole page.
    Image,
    /// What its durable form lacked.
    Delta,
    /// Again what lay at this address.
    Moved(FragmentAddr),
    /// Nothing: the page is gone. The word is that of its Free node, which turns into a plain Free word.
    Free(Word<P>),
}

/// The parts that a new one joins. The page's claim is held, so they are still the ones that it was
/// made for.
fn image_below<P>(cell: &Cell<P>, guard: &Guard) -> Option<Image> {
    cell.durable(guard).and_then(|durable| durable.image().cloned())
}

/// The form in which the part at `from` lies where `frame` does.
fn moved(form: &durable::Form, from: FragmentAddr, frame: &WrittenFrame) -> durable::Form {
    match form {
        durable::Form::Free => durable::Form::Free,
        durable::Form::Page(image) => {
            let mut image = image.clone();
            image.moved(from, frame.addr);
            durable::Form::Page(image)
        }
        // Values move by themselves, piece by piece.
        durable::Form::Value(extents) => durable::Form::Value(extents.clone()),
    }
}

impl<M: Materializer> Cache<M> {
    /// Writes the given pages back, in rounds.
    pub(crate) fn write_back(&self, pids: &[PageId], purpose: Purpose) -> Result<WrittenBack, Failure> {
        let mut done = WrittenBack::default();
        for round in pids.chunks(PAGES_PER_ROUND) {
            let _timing = self.metrics.time(Work::PageOut);
            let mut images = self.store.batch(purpose, Stream::Hot);
            let mut deltas = self.store.batch(purpose, Stream::Deltas);
            let (mut whole, mut changed) = (Vec::with_capacity(round.len()), Vec::new());
            let mut writing = self.budget.in_flight(0);
            for &pid in round {
                writing.set(images.memory_bytes() + deltas.memory_bytes());
                // Now, and not under the guard.
                images.write_if_full()?;
                deltas.write_if_full()?;
                match self.write_one(pid, &mut images, &mut deltas, &pin())? {
                    Outcome::Clean => done.pages += 1,
                    Outcome::Later => done.skipped.push(pid),
                    Outcome::Written(page) if matches!(page.form, Form::Delta) => changed.push(page),
                    Outcome::Written(page) => whole.push(page),
                }
            }
            done.pages += whole.len() + changed.len();
            self.metrics.note(Work::PagesOut, (whole.len() + changed.len()) as u64);
            for (mut batch, written) in [(images, whole), (deltas, changed)] {
                let frames = batch.finish()?;
                self.record(written, frames.frames(), &pin())?;
            }
        }
        Ok(done)
    }

    fn write_one<'c>(
        &'c self,
        pid: PageId,
        images: &mut Batch<'_>,
        deltas: &mut Batch<'_>,
        guard: &Guard,
    ) -> Result<Outcome<'c, M::PageFrag>, Failure> {
        let cell = self.pages.cell(pid).expect("dirty pages are below the bound");
        if self.load(pid).is_err() {
            // Its changes stay in the log, and whoever asks for the page is told why.
            return Ok(Outcome::Later);
        }
        let Some(claim) = cell.claim() else { return Ok(Outcome::Later) };
        let (word, head) = cell.head(guard);
        let Head::Chain(top) = head else { return Ok(Outcome::Clean) };
        let durable = cell.durable(guard);
        if top.is_unsettled() {
            return Ok(Outcome::Later);
        }
        if top.oldest_above(durable.map_or(0, |durable| durable.seq)) == ALL_DURABLE {
            return Ok(Outcome::Clean);
        }
        let Some(parts) = committed(top) else {
            let (seq, newest) = (top.seq, top.last_lsn());
            return Ok(Outcome::Written(Written { pid, claim, seq, newest, form: Form::Free(word) }));
        };
        let few = durable.filter(|_| self.snapshots.keep(parts.newest) == Keep::Newest);
        if let Some(payload) = few.and_then(|durable| self.delta_page(top, durable)) {
            let (seq, newest) = (top.seq, parts.newest);
            let fill = |out: &mut [u8]| out.copy_from_slice(&payload);
            deltas.push(pid as u64, seq, FrameKind::DeltaPage, payload.len(), fill)?;
            return Ok(Outcome::Written(Written { pid, claim, seq, newest, form: Form::Delta }));
        }
        self.write_image(pid, claim, images, guard)
    }

    /// What of the page its durable form lacks, if that is known one by one and little.
    fn delta_page(&self, top: &Node<M::PageFrag>, durable: &Durable) -> Option<Vec<u8>> {
        let bytes_max = self.change_bytes_max(top, durable)?;
        let changes: Vec<_> = changes_above(top, durable.seq)?.into_iter().map(|(_, frag)| frag).collect();
        let one = self.as_one(&changes);
        let changes = one.as_ref().map_or(changes, |one| vec![one]);
        let mut payload = delta::begin(durable.seq);
        for frag in &changes {
            let len = self.materializer.encoded_len(frag);
            if FRAME_HEADER_BYTES + payload.len() + len > bytes_max {
                return None;
            }
            delta::put(&mut payload, len, |out| self.materializer.encode(frag, out));
        }
        (!changes.is_empty()).then_some(payload)
    }

    fn write_image<'c>(
        &'c self,
        pid: PageId,
        claim: Claim<'c, M::PageFrag>,
        batch: &mut Batch<'_>,
        guard: &Guard,
    ) -> Result<Outcome<'c, M::PageFrag>, Failure> {
        // A chain over an evicted base is made whole first.
        let Resident::Chain(_, top) = self.resident(pid, guard)? else { return Ok(Outcome::Later) };
        if top.is_unsettled() {
            return Ok(Outcome::Later);
        }
        let Some(parts) = committed(top).filter(|parts| parts.has_base) else { return Ok(Outcome::Later) };
        // The merged page is not put in the chain's place: a checkpoint would make garbage of every
        // dirty page at once, which a single pinned reader could keep.
        let keep = self.snapshots.keep(parts.newest);
        let merged;
        let frag = match (parts.frags.as_slice(), &keep) {
            ([only], Keep::Newest) => *only,
            _ => {
                let Some(whole) = self.whole(top, &parts, &keep) else { return Ok(Outcome::Later) };
                merged = whole;
                &merged
            }
        };
        let len = self.materializer.encoded_len(frag);
        batch.push(pid as u64, top.seq, FrameKind::Image, len, |out| self.materializer.encode(frag, out))?;
        let (seq, newest) = (top.seq, parts.newest);
        Ok(Outcome::Written(Written { pid, claim, seq, newest, form: Form::Image }))
    }

    /// Makes the new places known, in one step with their place in the list of changes (CACHE-3).
    pub(super) fn record(
        &self,
        written: Vec<Written<'_, M::PageFrag>>,
        frames: &[WrittenFrame],
        guard: &Guard,
    ) -> Result<(), Failure> {
        if written.is_empty() {
            return Ok(());
        }
        // Frames were pushed in the order of `written`.
        let mut frames = frames.iter();
        let mut changes = self.changes.lock();
        for page in written {
            let cell = self.pages.cell(page.pid).expect("a written page has a cell");
            let form = match page.form {
                Form::Free(_) => None,
                Form::Image => {
                    let image = |frame: &WrittenFrame| durable::Form::Page(Image::new(frame.addr));
                    frames.next().map(image)
                }
                Form::Delta => frames.next().zip(image_below(cell, guard)).map(|(frame, mut image)| {
                    image.push(frame.addr);
                    durable::Form::Page(image)
                }),
                Form::Moved(from) => {
                    let frame = frames.next().zip(cell.durable(guard));
                    frame.map(|(frame, durable)| moved(&durable.form, from, frame))
                }
            };
            let durable = Durable { seq: page.seq, form: form.unwrap_or(durable::Form::Free) };
            self.account(cell, &durable, guard)?;
            let durable = self.place_durable(cell, durable, guard);
            changes.record(page.pid, &page.claim, durable, page.newest, guard);
            if let Form::Free(word) = page.form {
                let charge = match cell.head(guard).1 {
                    Head::Chain(top) => top.chain_charge(),
                    _ => 0,
                };
                // Nobody changes a freed page before it is given back, so this swap succeeds.
                if cell.set(word, Word::free(page.seq), guard) {
                    self.uncharge(charge);
                    self.budget.page_left();
                    changes.freed(page.pid);
                }
            } else {
                self.forget_unsaved(cell, guard);
            }
            // Its place in the list of changes comes first: a scan that misses the page comes before a
            // prefix that has it (P-1).
            self.pages.unmark_dirty(page.pid, || self.lacking(page.pid, guard).1);
        }
        Ok(())
    }

    /// Puts the record into memory that is about to take the place of the cell's, and charges it.
    pub(super) fn place_durable(
        &self,
        cell: &Cell<M::PageFrag>,
        new: Durable,
        guard: &Guard,
    ) -> Placed<Durable> {
        self.pages.note_durable(cell.durable(guard), &new);
        Placed::new(&self.memory, new)
    }

    /// Moves live bytes from the segments of the old form to those of the new one.
    pub(super) fn account(
        &self,
        cell: &Cell<M::PageFrag>,
        new: &Durable,
        guard: &Guard,
    ) -> Result<(), Failure> {
        new.parts().try_for_each(|addr| self.store.retain(addr))?;
        if let Some(old) = cell.durable(guard) {
            old.parts().for_each(|addr| self.store.release(addr));
        }
        Ok(())
    }
}

enum Outcome<'c, P> {
    Clean,
    Later,
    Written(Written<'c, P>),
}
