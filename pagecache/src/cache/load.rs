//! Filling cells from the persisted page table, a map page at a time, when one of its pages is first
//! asked for.
//!
//! A map page is read and decoded, with the changes that were appended to it and those that the log's
//! tail has for its pages, before the first cell is filled. So damage leaves all of it as it was, and
//! whoever asks again is told again; the other map pages are served.
//!
//! * SPAN-1: the group's lock is held from the first frame read to the mark, and the mark comes last.
//! * MAPS-1: so no frame of the group is superseded meanwhile.
//!
//! Where the frames lie is [`super::maps`]' business, what the tail holds [`super::replay`]'s.

use std::{collections::BTreeMap, sync::Arc};

use super::{Cache, maps::GroupTable, replay};
use crate::{
    error::{DecodeError, Failure},
    format::{
        batch::EntryKind,
        bytes::Source,
        directory::{FrameRef, Index},
        frame::FrameKind,
        map::{Entry, GROUP_SPAN, MAP_SPAN, MapChanges, MapPage},
        value::Extents,
    },
    ids::{FragmentAddr, Lsn, PageId, PageSeq},
    materializer::Materializer,
    mem::Placed,
    page::{
        cell::Word,
        chain::{Body, Draft, Node, Stamp},
        durable::{Durable, Form, Image},
    },
    reclaim::pin,
    store::Frame,
};

/// A change of the tail, decoded.
struct Change<P> {
    seq: PageSeq,
    lsn: Lsn,
    first: Lsn,
    what: What<P>,
}

/// What a change does to its page.
enum What<P> {
    Fragment(Body<P>),
    /// The page is a value from here on, and nothing but a free follows.
    Adopts(Extents),
}

/// The tail's changes of the pages of one map page.
type Changed<P> = BTreeMap<PageId, Vec<Change<P>>>;

impl<M: Materializer> Cache<M> {
    /// Makes sure that the page's cell says what there is to say of it.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] naming what of the page table, or of the log, is damaged.
    #[inline]
    pub(crate) fn load(&self, pid: PageId) -> Result<(), Failure> {
        if self.pages.spans.is_filled(pid) { Ok(()) } else { self.fill(pid) }
    }

    /// Loads all there is.
    pub(crate) fn load_all(&self) -> Result<(), Failure> {
        (0..self.pages.spans.bound()).step_by(MAP_SPAN as usize).try_for_each(|pid| self.load(pid))
    }

    /// From which position on the log is kept for a page whose cell was not filled; `None` for one that
    /// has no changes in the tail, or was filled by now.
    pub(super) fn unfilled_oldest(&self, pid: PageId) -> Option<Lsn> {
        if self.pages.spans.is_filled(pid) {
            return None;
        }
        self.maps.replay().and_then(|replay| replay.oldest(pid))
    }

    #[cold]
    fn fill(&self, pid: PageId) -> Result<(), Failure> {
        let number = pid as u64 / MAP_SPAN;
        let group = self.maps.group(number / GROUP_SPAN);
        let mut table = group.lock();
        if self.pages.spans.is_filled(pid) {
            return Ok(());
        }
        let entries = self.read_entries(number, &mut table)?;
        let first = (number * MAP_SPAN) as PageId;
        let span = first..self.pages.spans.bound().min(first + MAP_SPAN as PageId);
        let replay = self.maps.replay();
        let tail = replay.as_ref().map_or(&[][..], |replay| replay.of(span.clone()));
        let replayed = tail.chunk_by(|a, b| a.pid == b.pid).count();
        let mut changed = Changed::new();
        if let Some(replay) = &replay {
            for changes in tail.chunk_by(|a, b| a.pid == b.pid) {
                let pid = changes[0].pid;
                let entry = entries.get(&((pid - first) as u16));
                changed.insert(pid, self.decode(replay, changes, entry)?);
            }
        }
        let adopted = changed.values().flatten().filter_map(|change| match &change.what {
            What::Adopts(extents) => Some(extents),
            What::Fragment(_) => None,
        });
        // Their bytes count before any segment is handed out, as an open loads these first (P-4).
        adopted.flat_map(Extents::addrs).try_for_each(|addr| self.store.retain(addr))?;
        // Nothing below fails.
        let (mut free, mut were_free) = (Vec::new(), 0);
        for pid in span {
            let entry = entries.get(&((pid - first) as u16));
            let changes = changed.remove(&pid).unwrap_or_default();
            let is_present = entry.is_some_and(Entry::is_present);
            were_free += usize::from(!is_present && pid < self.maps.bound);
            if !is_present && changes.is_empty() {
                free.push(pid);
            }
            self.restore(pid, entry, changes);
        }
        self.pages.spans.mark(pid);
        self.pages.restore_given_back(&free);
        self.maps.loaded(replayed, were_free);
        Ok(())
    }

    /// Fills one cell. A page with changes gets these, above what is durable of it, without reading that.
    fn restore(&self, pid: PageId, entry: Option<&Entry>, changes: Vec<Change<M::PageFrag>>) {
        let cell = self.pages.cell(pid).expect("restored ids are below the bound");
        let value = |seq, extents| (Some(Durable { seq, form: Form::Value(extents) }), Word::evicted(seq));
        let (durable, word) = match entry {
            Some(Entry::Present { seq, parts }) => {
                (Some(Durable { seq: *seq, form: Form::Page(Image::of(parts)) }), Word::evicted(*seq))
            }
            Some(Entry::Value { seq, extents }) => value(*seq, Arc::new(extents.clone())),
            Some(Entry::Free { seq }) if *seq > 0 => {
                (Some(Durable { seq: *seq, form: Form::Free }), Word::free(*seq))
            }
            Some(Entry::Free { .. }) | None => (None, Word::free(0)),
        };
        let mut chain: Option<Placed<Node<M::PageFrag>>> = None;
        for change in changes {
            let Change { seq, lsn, first, what } = change;
            let body = match what {
                What::Fragment(body) => body,
                What::Adopts(extents) => {
                    // No chain keeps the log from the record on: the next checkpoint has the entry.
                    let (durable, word) = value(seq, Arc::new(extents));
                    let mut changes = self.changes.lock();
                    changes.recovered_value(pid, lsn);
                    let durable = durable.map(|durable| self.place_durable(cell, durable, &pin()));
                    return cell.restore(durable, word);
                }
            };
            let draft = self.draft(seq, lsn, first, body);
            chain = Some(match chain {
                None => Node::bottom(&self.memory, draft),
                Some(below) => Node::atop(&self.memory, draft, below),
            });
        }
        let durable = durable.map(|durable| self.place_durable(cell, durable, &pin()));
        match chain {
            Some(top) => {
                self.budget.page_entered();
                cell.restore_chain(durable, top);
            }
            None => cell.restore(durable, word),
        }
    }

    /// A recovered change as a node; charged from here on.
    fn draft(&self, seq: PageSeq, lsn: Lsn, oldest: Lsn, body: Body<M::PageFrag>) -> Draft<M::PageFrag> {
        let frag = match &body {
            Body::Base(frag) | Body::Append(frag) => Some(frag),
            Body::Free => None,
        };
        let charge = self.charge_of(frag);
        self.charge(charge);
        Draft { seq, stamp: Stamp::At(lsn), oldest, charge, body }
    }

    /// What of a page's changes in the tail its durable form lacks.
    fn decode(
        &self,
        tail: &replay::Replay,
        changes: &[replay::TailChange],
        entry: Option<&Entry>,
    ) -> Result<Vec<Change<M::PageFrag>>, Failure> {
        let lacking = replay::lacking(changes, entry)
            .map_err(|change| tail.corrupt(change, "it does not follow the one before"))?;
        let decode = |change: &replay::TailChange| {
            let bytes = tail.read(change)?;
            let frag = || {
                self.materializer
                    .decode(&bytes)
                    .map_err(|why| tail.corrupt(change, format!("it does not decode: {}", why.0)))
            };
            let what = match change.kind {
                EntryKind::Append => What::Fragment(Body::Append(frag()?)),
                EntryKind::Base => What::Fragment(Body::Base(frag()?)),
                EntryKind::Free => What::Fragment(Body::Free),
                EntryKind::Adopt => {
                    let extents = Extents::decode(&mut Source::new(&bytes));
                    What::Adopts(extents.map_err(|why| tail.corrupt(change, why.0))?)
                }
            };
            Ok(Change { seq: change.seq, lsn: change.lsn, first: tail.first(change), what })
        };
        lacking.iter().map(decode).collect()
    }

    /// The entries of a map page, by index in its span, with the changes appended to it.
    fn read_entries(&self, number: u64, table: &mut GroupTable) -> Result<BTreeMap<u16, Entry>, Failure> {
        let group = number / GROUP_SPAN;
        let page = (number % GROUP_SPAN) as u8;
        self.read_index(group, table)?;
        let mut entries = BTreeMap::new();
        if let Some(named) = table.pages().and_then(|pages| pages.get(&page)) {
            let at = named.at;
            let frame = self.read_table_frame(at, number, FrameKind::MapPage)?;
            let found =
                MapPage::decode(frame.payload(), at.crc).map_err(|why| self.no_table(at.addr, why))?;
            if found.number != number {
                let why = format!("map page {} where {number} should be", found.number);
                return Err(self.no_table(at.addr, DecodeError(why)));
            }
            entries.extend(self.below_bound(number, found.entries, at.addr)?);
        }
        for at in &table.changes {
            let frame = self.read_table_frame(*at, group, FrameKind::MapChanges)?;
            let corrupt = |why| self.no_table(at.addr, why);
            let listed = MapChanges::list(frame.payload(), at.crc, group).map_err(corrupt)?;
            if let Some(changed) = listed.iter().find(|changed| changed.page == page) {
                let changed = changed.decode().map_err(corrupt)?;
                entries.extend(self.below_bound(number, changed, at.addr)?);
            }
        }
        Ok(entries)
    }

    fn below_bound(
        &self,
        number: u64,
        entries: Vec<(u16, Entry)>,
        at: FragmentAddr,
    ) -> Result<Vec<(u16, Entry)>, Failure> {
        let ids = (self.maps.bound as u64).saturating_sub(number * MAP_SPAN);
        match entries.last().filter(|(last, _)| u64::from(*last) >= ids) {
            None => Ok(entries),
            Some((index, _)) => {
                let pid = number * MAP_SPAN + u64::from(*index);
                let why = format!("page {pid} is above the bound {}", self.maps.bound);
                Err(self.no_table(at, DecodeError(why)))
            }
        }
    }

    /// Reads where the group's map pages lie, unless that is known.
    pub(crate) fn read_index(&self, group: u64, table: &mut GroupTable) -> Result<(), Failure> {
        let Some(at) = table.index.filter(|_| table.pages().is_none()) else { return Ok(()) };
        let frame = self.read_table_frame(at, group, FrameKind::MapIndex)?;
        let index =
            Index::decode(frame.payload(), at.crc, group).map_err(|why| self.no_table(at.addr, why))?;
        table.set_index(index);
        Ok(())
    }

    /// The map pages that have appended changes, by number in the group.
    pub(crate) fn changed_pages(&self, group: u64, table: &GroupTable) -> Result<Vec<u8>, Failure> {
        let mut pages = Vec::new();
        for at in &table.changes {
            let frame = self.read_table_frame(*at, group, FrameKind::MapChanges)?;
            let listed = MapChanges::list(frame.payload(), at.crc, group)
                .map_err(|why| self.no_table(at.addr, why))?;
            pages.extend(listed.iter().map(|changed| changed.page));
        }
        Ok(pages)
    }

    fn read_table_frame(&self, at: FrameRef, number: u64, kind: FrameKind) -> Result<Frame, Failure> {
        let frame = self.store.read(&self.store.pin(at.addr)?, number, None)?;
        if frame.kind() == kind {
            return Ok(frame);
        }
        let why = format!("a frame of kind {:?} stands where {kind:?} was written", frame.kind());
        Err(self.no_table(at.addr, DecodeError(why)))
    }

    fn no_table(&self, at: FragmentAddr, why: DecodeError) -> Failure {
        Failure::Corrupt { found: why.0, path: self.store.path(), offset: at.offset }
    }
}
