//! Moving live frames out of segments that hold little else than garbage.
//!
//! A page is one frame or several, each at its own place. What lies in a segment is found by reading
//! it; a frame is live if its page's durable word names its place, and it moves alone, the page's
//! other parts staying where they are. The move is a change like any other: under the page's claim,
//! and in one step with its place in the list of map changes (CACHE-3), so the old copy stays until a
//! checkpoint without it is durable. A map page moves by being written again, and the directory does
//! so with every checkpoint.
//!
//! Which segments are worth it is [`crate::store`]'s business.

use super::{
    Cache,
    writeback::{Form, PAGES_PER_ROUND, Written},
};
use crate::{
    error::Failure,
    format::frame::FrameKind,
    ids::{FragmentAddr, PageId},
    materializer::Materializer,
    reclaim::{Guard, pin},
    store::{Batch, Found, Purpose, Stream},
};

impl<M: Materializer> Cache<M> {
    /// Empties these segments as far as it can, in the order given; returns the bytes that moved.
    /// They are free once a checkpoint has made the moves durable.
    pub(crate) fn empty_segments(&self, segments: &[u32]) -> Result<u64, Failure> {
        let mut moved = 0;
        for &segment in segments {
            let frames = self.store.scan(segment)?;
            moved += self.move_frames(&frames)?;
        }
        self.store.set_emptied(segments);
        Ok(moved)
    }

    fn move_frames(&self, frames: &[Found]) -> Result<u64, Failure> {
        let of_kind =
            |wanted: fn(FrameKind) -> bool| frames.iter().filter(move |found| wanted(found.header.kind));
        {
            let mut changes = self.changes.lock();
            let map_pages = of_kind(|kind| kind == FrameKind::MapPage);
            map_pages.for_each(|found| changes.touch(found.header.pid));
        }
        let parts: Vec<(PageId, FragmentAddr)> =
            of_kind(|kind| matches!(kind, FrameKind::Image | FrameKind::DeltaPage))
                .map(|found| (found.header.pid as PageId, found.addr))
                .collect();
        self.relocate(&parts)
    }

    /// Copies each part of a page that still lies at the given place to a new one; returns the bytes
    /// that moved.
    fn relocate(&self, parts: &[(PageId, FragmentAddr)]) -> Result<u64, Failure> {
        let mut moved = 0;
        for round in parts.chunks(PAGES_PER_ROUND) {
            let mut batch = self.store.batch(Purpose::Ordinary, Stream::Survivors);
            let mut written = Vec::with_capacity(round.len());
            let mut bytes = 0;
            for &(pid, addr) in round {
                if let Some(page) = self.move_one(pid, addr, &mut batch, &pin())? {
                    bytes += u64::from(addr.len);
                    written.push(page);
                }
            }
            let frames = batch.finish()?;
            self.record(written, frames.frames(), &pin())?;
            moved += bytes;
        }
        Ok(moved)
    }

    /// `None` if nothing lives there any more, or another thread has the page's claim.
    fn move_one<'c>(
        &'c self,
        pid: PageId,
        addr: FragmentAddr,
        batch: &mut Batch<'_>,
        guard: &Guard,
    ) -> Result<Option<Written<'c, M::PageFrag>>, Failure> {
        let Some(cell) = self.pages.cell(pid) else { return Ok(None) };
        let Some(claim) = cell.claim() else { return Ok(None) };
        let Some(durable) = cell.durable(guard).filter(|durable| durable.parts().any(|part| part == addr))
        else {
            return Ok(None);
        };
        let frame = self.store.read(&self.store.pin(addr)?, pid as u64, None)?;
        let bytes = frame.payload();
        let fill = |out: &mut [u8]| out.copy_from_slice(bytes);
        batch.push(pid as u64, frame.seq(), frame.kind(), bytes.len(), fill)?;
        Ok(Some(Written { pid, claim, seq: durable.seq, newest: 0, form: Form::Moved(addr) }))
    }
}
