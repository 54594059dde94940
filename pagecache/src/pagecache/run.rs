//! Writing a batch that exceeds one record: its payload in parts, then one record that ends them (P-2).
//!
//! A part is completed before the next one is reserved, so a batch never holds two places in the log and
//! may wait for room between them. While the parts are being written the run is on the list that
//! checkpoints read.

use super::shared::Shared;
use crate::{
    checkpoint::runs::OpenRun,
    error::Failure,
    format::{
        codec,
        record::{Kind, RecordHead},
        run::{PART_HEADER_BYTES, Part, PartsSum, RunEnd, put_part},
    },
    ids::Lsn,
    materializer::Materializer,
};

/// Part of a record that a run's part may have: what a buffer cannot take is left unused, so parts that
/// fill a buffer each would waste up to half of the log.
const PARTS_PER_RECORD: usize = 4;

/// The parts of a run, as they are written.
pub(super) struct Parts<'c, M: Materializer> {
    shared: &'c Shared<M>,
    /// The part that is being filled.
    filling: Vec<u8>,
    bytes_max: usize,
    open: Option<OpenRun<'c>>,
    count: u32,
    bytes: u64,
    sum: PartsSum,
}

/// A run whose parts are all in the log. It is under way until this is dropped.
pub(super) struct Written<'c> {
    open: OpenRun<'c>,
    end: RunEnd,
}

impl Written<'_> {
    pub(super) fn first(&self) -> Lsn {
        self.open.first()
    }

    /// The payload of the record that ends the run.
    pub(super) fn end(&self) -> Vec<u8> {
        self.end.encode()
    }
}

impl<'c, M: Materializer + Send + Sync + 'static> Parts<'c, M> {
    pub(super) fn new(shared: &'c Shared<M>) -> Parts<'c, M> {
        let bytes_max = shared.log.max_payload() / PARTS_PER_RECORD - PART_HEADER_BYTES;
        Parts {
            shared,
            filling: Vec::with_capacity(bytes_max),
            bytes_max,
            open: None,
            count: 0,
            bytes: 0,
            sum: PartsSum::default(),
        }
    }

    /// Adds to the payload.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.bytes_max - self.filling.len()));
            self.filling.extend_from_slice(now);
            if self.filling.len() == self.bytes_max {
                self.write()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        let head = RecordHead { kind: Kind::RunPart, pid: 0, seq: 0 };
        let mut reservation = self.shared.log.reserve(head, PART_HEADER_BYTES + self.filling.len())?;
        let lsn = reservation.lsn();
        // Entered before the record is completed, or T could pass it.
        let open = self.open.get_or_insert_with(|| self.shared.checkpointer.runs.enter(lsn));
        let part = Part { first: open.first(), index: self.count, bytes: &self.filling };
        put_part(reservation.payload(), part);
        reservation.complete();
        self.sum.add(lsn, &self.filling);
        self.count += 1;
        self.bytes += self.filling.len() as u64;
        self.filling.clear();
        Ok(())
    }

    /// Writes what is left; the run then lacks nothing but its end.
    pub(super) fn finish(
        mut self,
        tallies: Vec<(u64, i64)>,
        recovered: Option<&M::Recovery>,
    ) -> Result<Written<'c>, Failure> {
        if !self.filling.is_empty() || self.open.is_none() {
            self.write()?;
        }
        let recovery = recovered.map(|value| {
            let mut bytes = vec![0; codec::encoded_len(value)];
            codec::encode(value, &mut bytes);
            bytes
        });
        let open = self.open.expect("a part was written");
        let end = RunEnd {
            first: open.first(),
            parts: self.count,
            bytes: self.bytes,
            crc: self.sum.finish(),
            tallies,
            recovery,
        };
        Ok(Written { open, end })
    }
}
