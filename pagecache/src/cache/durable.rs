//! Reading a page's durable form: an image, and the delta-pages above it.
//!
//! Every part names the number of the one below, and the newest one's number is the page's, so a part
//! that is missing, stale or another page's shows.
//!
//! In which order the parts are read is [`super::readers`]' business. Large values are read elsewhere
//! ([`super::values`]).

use std::ptr;

use super::Cache;
use crate::{
    error::{DecodeError, Failure},
    format::{delta::DeltaPage, frame::FrameKind},
    ids::{FragmentAddr, PageId, PageSeq},
    materializer::Materializer,
    metrics::Work,
    page::{
        cell::{Cell, Head},
        durable::Durable,
    },
    reclaim::Guard,
    store::{Frame, Pin},
};

impl<M: Materializer> Cache<M> {
    /// Reads a page's durable form. `None` if it moved meanwhile: look again.
    pub(super) fn read_durable(
        &self,
        pid: PageId,
        cell: &Cell<M::PageFrag>,
        guard: &Guard,
    ) -> Result<Option<M::PageFrag>, Failure> {
        let durable = cell.durable(guard);
        if let Some(extents) = durable.and_then(Durable::value) {
            let at = extents.addrs().next().map_or(0, |addr| addr.offset);
            let addr = FragmentAddr { offset: at, len: 0 };
            return Err(self.no_page(pid, addr, DecodeError("the page is a large value".to_owned())));
        }
        let Some(durable) = durable.filter(|durable| durable.image().is_some()) else {
            return match cell.head(guard).1 {
                Head::Evicted(_) => Err(self.lost_base(pid)),
                _ => Ok(None),
            };
        };
        let pins = durable.parts().map(|part| self.store.pin(part)).collect::<Result<Vec<_>, _>>()?;
        // The segments cannot be reused from here on; they held the page if the word still says so.
        if !cell.durable(guard).is_some_and(|now| ptr::eq(now, durable)) {
            return Ok(None);
        }
        let _timing = self.metrics.time(Work::PageIn);
        self.read_parts(pid, durable, &pins).map(Some)
    }

    fn read_parts(&self, pid: PageId, durable: &Durable, pins: &[Pin]) -> Result<M::PageFrag, Failure> {
        let bytes = pins.iter().map(|pin| pin.addr().len as usize).sum();
        let _reading = self.budget.in_flight(bytes);
        let frames = self.readers.read(&self.store, pid, pins)?;
        let mut changes = Vec::new();
        let mut seq = durable.seq;
        for (frame, pin) in frames.iter().zip(pins).skip(1).rev() {
            self.expect(frame, pin.addr(), pid, FrameKind::DeltaPage, seq)?;
            let delta =
                DeltaPage::decode(frame.payload()).map_err(|why| self.no_page(pid, pin.addr(), why))?;
            seq = delta.above;
            for bytes in delta.frags.iter().rev() {
                changes.push(self.decode_part(pid, pin.addr(), bytes)?);
            }
        }
        let (Some(frame), Some(pin)) = (frames.first(), pins.first()) else {
            return Err(self.lost_base(pid));
        };
        self.expect(frame, pin.addr(), pid, FrameKind::Image, seq)?;
        let base = self.decode_part(pid, pin.addr(), frame.payload())?;
        if changes.is_empty() {
            return Ok(base);
        }
        let oldest_first: Vec<&M::PageFrag> = std::iter::once(&base).chain(changes.iter().rev()).collect();
        Ok(self.merge(&oldest_first))
    }

    fn expect(
        &self,
        frame: &Frame,
        addr: FragmentAddr,
        pid: PageId,
        kind: FrameKind,
        seq: PageSeq,
    ) -> Result<(), Failure> {
        if (frame.kind(), frame.seq()) == (kind, seq) {
            return Ok(());
        }
        let (found, at) = (frame.kind(), frame.seq());
        let why =
            format!("a frame of kind {found:?} at change {at} where {kind:?} at change {seq} should be");
        Err(self.no_page(pid, addr, DecodeError(why)))
    }

    fn decode_part(&self, pid: PageId, addr: FragmentAddr, bytes: &[u8]) -> Result<M::PageFrag, Failure> {
        self.materializer.decode(bytes).map_err(|why| self.no_page(pid, addr, why))
    }

    fn no_page(&self, pid: PageId, addr: FragmentAddr, why: DecodeError) -> Failure {
        Failure::Corrupt {
            found: format!("a part of page {pid} cannot be: {why}"),
            path: self.store.path(),
            offset: addr.offset,
        }
    }
}
