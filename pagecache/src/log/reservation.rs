//! A reservation: one record's place in the log, filled in place.
//!
//! Its owner fills the payload, may *seal* it (compute the checksum) before the step that makes it
//! count, and then completes or aborts it. Dropped in any other way, as by a panic in the code that
//! fills it, it is aborted: a valid record in state `Failed`, which readers step over.

use super::{Log, buffer::Claim, held};
use crate::format::record::{HEADER_BYTES, RecordHead, State, Sum, finish, write_head};
use crate::ids::Lsn;

/// See the module's head.
#[derive(Debug)]
#[must_use = "a dropped reservation is an aborted one"]
pub(crate) struct Reservation<'l> {
    log: &'l Log,
    /// Taken when the reservation ends.
    claim: Option<Claim<'l>>,
    sum: Option<Sum>,
    /// Counted per thread, so it stays on its thread.
    stays: std::marker::PhantomData<*mut ()>,
}

impl<'l> Reservation<'l> {
    pub(super) fn new(log: &'l Log, mut claim: Claim<'l>, head: RecordHead) -> Reservation<'l> {
        write_head(head, claim.bytes());
        held::add(log.address());
        Reservation { log, claim: Some(claim), sum: None, stays: std::marker::PhantomData }
    }

    /// The record's LSN.
    pub(crate) fn lsn(&self) -> Lsn {
        self.claim.as_ref().map_or(0, Claim::lsn)
    }

    /// Where in the file the record will lie.
    pub(crate) fn offset(&self) -> u64 {
        self.claim.as_ref().map_or(0, Claim::offset)
    }

    /// The payload. What it holds at first is arbitrary.
    pub(crate) fn payload(&mut self) -> &mut [u8] {
        self.sum = None;
        self.claim.as_mut().map_or(&mut [], |claim| &mut claim.bytes()[HEADER_BYTES..])
    }

    /// Computes the checksum, so that completing is short.
    pub(crate) fn seal(&mut self) {
        if let (Some(claim), None) = (&mut self.claim, self.sum) {
            let lsn = claim.lsn();
            self.sum = Some(self.log.seed().sum(lsn, claim.bytes()));
        }
    }

    /// Waits until every earlier reservation was completed or aborted: the one wait that is allowed while
    /// one is held (P-5). Nothing below this record's LSN is still to come then.
    pub(crate) fn wait_for_earlier(&self) {
        if let Some(claim) = &self.claim {
            self.log.wait_for_earlier(claim);
        }
    }

    /// The record counts.
    pub(crate) fn complete(mut self) {
        self.end(State::Ok);
    }

    /// The record never was.
    pub(crate) fn abort(mut self) {
        self.end(State::Failed);
    }

    fn end(&mut self, state: State) {
        self.seal();
        if let (Some(mut claim), Some(sum)) = (self.claim.take(), self.sum) {
            finish(claim.bytes(), sum, state);
            held::sub(self.log.address());
            self.log.settle(claim.release());
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.end(State::Failed);
    }
}
