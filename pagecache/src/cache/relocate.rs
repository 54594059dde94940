//! Moving live frames out of segments that hold little else than garbage.
//!
//! A page is one frame or several, each at its own place. What lies in a segment is found by reading
//! it; a frame is live if its page's durable word names its place, and it moves alone, the page's
//! other parts staying where they are. The move is a change like any other: under the page's claim,
//! and in one step with its place in the list of map changes (CACHE-3), so the old copy stays until a
//! checkpoint without it is durable. A map page, an index and appended changes move by their group
//! being written again, and the directory does so with every checkpoint.
//!
//! Which segments are worth it is [`crate::store`]'s business.

use std::collections::BTreeSet;

use super::{
    Cache, Wanted,
    writeback::{Form, PAGES_PER_ROUND, Written},
};
use crate::{
    error::Failure,
    format::{frame::FrameKind, map::GROUP_SPAN},
    ids::{FragmentAddr, PageId},
    materializer::Materializer,
    metrics::Work,
    reclaim::{Guard, pin},
    store::{Batch, Found, Purpose, Stream},
};

impl<M: Materializer> Cache<M> {
    /// Empties these segments as far as it can, in the order given; returns the bytes that moved.
    /// They are free once a checkpoint has made the moves durable.
    pub(crate) fn empty_segments(&self, segments: &[u32]) -> Result<u64, Failure> {
        let mut moved = 0;
        let mut has_tables = false;
        for &segment in segments {
            let reading = self.budget.in_flight(self.store.segment_bytes() as usize);
            let frames = self.store.scan(segment)?;
            drop(reading);
            has_tables |= self.touch_tables(&frames);
            for (pid, addr) in parts_of(&frames, |kind| kind == FrameKind::Value) {
                moved += self.move_extent(pid, addr)?;
            }
            let of_page = |kind| matches!(kind, FrameKind::Image | FrameKind::DeltaPage);
            moved += self.relocate(parts_of(&frames, of_page))?;
        }
        self.store.set_emptied(segments, moved > 0 || has_tables);
        Ok(moved)
    }

    /// Has the parts of the page table that lie there written again, and with them the directory; says
    /// whether there are any.
    fn touch_tables(&self, frames: &[Found]) -> bool {
        let mut wanted = Wanted::default();
        for Found { header, addr } in frames {
            match header.kind {
                FrameKind::MapPage if self.is_named(header.pid / GROUP_SPAN, *addr) => {
                    wanted.pages.insert(header.pid);
                }
                FrameKind::MapIndex | FrameKind::MapChanges if self.is_named(header.pid, *addr) => {
                    wanted.groups.insert(header.pid);
                }
                FrameKind::Directory => wanted.directory = true,
                _ => {}
            }
        }
        let has_tables = wanted != Wanted::default();
        self.changes.lock().want(wanted);
        has_tables
    }

    /// True if the group of the page table refers to a frame there. A damaged one says nothing.
    fn is_named(&self, group: u64, addr: FragmentAddr) -> bool {
        let group = self.maps.group(group);
        let mut table = group.lock();
        self.read_index(group.number, &mut table).is_ok() && table.frames().any(|frame| frame == addr)
    }

    /// Copies each part of a page that still lies at the given place to a new one; returns the bytes
    /// that moved.
    fn relocate(&self, mut parts: Vec<(PageId, FragmentAddr)>) -> Result<u64, Failure> {
        let mut moved = 0;
        while !parts.is_empty() {
            let round = take_round(&mut parts);
            let _timing = self.metrics.time(Work::Move);
            let mut batch = self.store.batch(Purpose::Ordinary, Stream::Survivors);
            let mut written = Vec::with_capacity(round.len());
            let mut bytes = 0;
            let mut writing = self.budget.in_flight(0);
            for (pid, addr) in round {
                batch.write_if_full()?;
                if let Some(page) = self.move_one(pid, addr, &mut batch, &pin())? {
                    bytes += u64::from(addr.len);
                    writing.set(batch.memory_bytes() + addr.len as usize);
                    written.push(page);
                }
            }
            let frames = batch.finish()?;
            self.record(written, frames.frames(), &pin())?;
            self.metrics.note(Work::MovedBytes, bytes);
            moved += bytes;
        }
        Ok(moved)
    }

    /// `None` if nothing lives there any more, another thread has the page's claim, or the part of the
    /// table that would tell is damaged.
    fn move_one<'c>(
        &'c self,
        pid: PageId,
        addr: FragmentAddr,
        batch: &mut Batch<'_>,
        guard: &Guard,
    ) -> Result<Option<Written<'c, M::PageFrag>>, Failure> {
        let Some(cell) = self.pages.cell(pid) else { return Ok(None) };
        if self.load(pid).is_err() {
            return Ok(None);
        }
        let Some(claim) = cell.claim() else { return Ok(None) };
        let Some(durable) = cell.durable(guard).filter(|durable| durable.parts().any(|part| part == addr))
        else {
            return Ok(None);
        };
        batch.push_as_is(&self.store.read_as_is(&self.store.pin(addr)?, pid as u64)?)?;
        Ok(Some(Written { pid, claim, seq: durable.seq, newest: 0, form: Form::Moved(addr) }))
    }
}

fn parts_of(frames: &[Found], wanted: impl Fn(FrameKind) -> bool) -> Vec<(PageId, FragmentAddr)> {
    let frames = frames.iter().filter(|found| wanted(found.header.kind));
    frames.map(|found| (found.header.pid as PageId, found.addr)).collect()
}

/// Takes parts of different pages, in their order: two of one page would need its claim twice.
fn take_round(parts: &mut Vec<(PageId, FragmentAddr)>) -> Vec<(PageId, FragmentAddr)> {
    let mut pids = BTreeSet::new();
    let (round, rest) =
        parts.drain(..).partition(|(pid, _)| pids.len() < PAGES_PER_ROUND && pids.insert(*pid));
    *parts = rest;
    round
}
