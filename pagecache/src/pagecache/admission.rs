//! Letting a batch in: whether it is small enough, and room for it in memory and log before its first
//! install.
//!
//! What is admitted counts as used until the batch ends: many batches at once cannot all be promised
//! the same room. Memory that a fragment takes is taken out of what was set aside for its batch.

use super::shared::Shared;
use crate::{error::Failure, materializer::Materializer, sync::Ordering};

/// Part of the log's capacity, and of the memory, that one batch may take.
const BATCH_PART: u64 = 4;
/// How much larger than a caller's batch a change of shape may be: a page that holds such a batch, and
/// what was there before, moves as a whole when it splits.
const OPTIONAL_FACTOR: usize = 2;

const BATCH: &str = "batch";

/// What a batch is let in with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission {
    /// Bytes of memory that its fragments will take, as far as known.
    pub mem: usize,
    /// Bytes of log that its records will take, as far as known.
    pub log: usize,
    /// True for optional work, as the change of a tree's shape: where it would wait for another
    /// batch while it holds anything, it fails with [`crate::Error::CasFailed`] instead. It may be twice
    /// as large as other batches.
    pub optional: bool,
}

/// Room set aside for one batch; what is left of it is given back on drop.
pub(super) struct Admitted<'c, M: Materializer> {
    shared: &'c Shared<M>,
    mem: usize,
    log: usize,
    bytes_max: usize,
}

impl<M: Materializer + Send + Sync + 'static> Shared<M> {
    /// Bytes of the largest batch that is no optional work.
    pub(super) fn batch_bytes_max(&self) -> usize {
        let part = self.log.capacity_bytes().min(self.cache.budget.bytes() as u64) / BATCH_PART;
        // What fits one record is taken whatever the rest allows.
        usize::try_from(part).unwrap_or(usize::MAX / OPTIONAL_FACTOR).max(self.log.max_payload())
    }

    /// Refuses a change of one page that no batch could hold.
    pub(super) fn check_change(&self, bytes: usize) -> Result<(), Failure> {
        check_size("change of a page", bytes, self.batch_bytes_max())
    }

    pub(super) fn admit(&self, admission: Admission) -> Result<Admitted<'_, M>, Failure> {
        let Admission { mem, log, optional } = admission;
        let factor = if optional { OPTIONAL_FACTOR } else { 1 };
        let bytes_max = self.batch_bytes_max().saturating_mul(factor);
        check_size(BATCH, log, bytes_max)?;
        let admitted = Admitted { shared: self, mem, log, bytes_max };
        self.cache.charge(mem);
        if mem > 0 {
            self.make_room_to_write();
        }
        // Relaxed: a sum that nobody orders anything by.
        let promised = self.admitted_log_bytes.fetch_add(log, Ordering::Relaxed) + log;
        // Now, while the batch holds nothing: pages with pending changes are not written back, so a
        // checkpoint later might release nothing.
        if !self.log.has_room_for(promised) {
            self.make_room_in_log(|| self.log.has_room_for(promised))?;
        }
        Ok(admitted)
    }
}

impl<M: Materializer> Admitted<'_, M> {
    /// Refuses a batch that has grown to so many bytes of log.
    pub(super) fn check(&self, bytes: usize) -> Result<(), Failure> {
        check_size(BATCH, bytes, self.bytes_max)
    }

    /// Says that a fragment was charged: so much less is set aside.
    pub(super) fn take_memory(&mut self, charge: usize) {
        let taken = charge.min(self.mem);
        self.mem -= taken;
        if taken > 0 {
            self.shared.cache.uncharge(taken);
        }
    }
}

impl<M: Materializer> Drop for Admitted<'_, M> {
    fn drop(&mut self) {
        self.shared.cache.uncharge(self.mem);
        self.shared.admitted_log_bytes.fetch_sub(self.log, Ordering::Relaxed);
    }
}

fn check_size(what: &'static str, bytes: usize, limit: usize) -> Result<(), Failure> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Failure::TooLarge {
        what,
        bytes: bytes as u64,
        limit: limit as u64,
        remedy: "split it, or raise both `log_capacity` and `cache_capacity`: it may take a quarter of \
                 either, or one record if that is more",
    })
}
