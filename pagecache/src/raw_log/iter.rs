//! An iterator over stable records.

use super::DiskPtr;
use crate::{
    error::Result,
    ids::Lsn,
    log::{self, Walk},
};

/// The records that were stable when this was made, in LSN order; see [`super::Log::iter_from`].
///
/// What was stable and does not read back is an error, never an early end; after one there is nothing
/// more. Reads one segment at a time.
#[derive(Debug)]
pub struct LogIter<'l> {
    log: &'l log::Log,
    walk: Option<Walk>,
}

impl<'l> LogIter<'l> {
    pub(super) fn new(log: &'l log::Log, walk: Walk) -> LogIter<'l> {
        LogIter { log, walk: Some(walk) }
    }
}

impl Iterator for LogIter<'_> {
    type Item = Result<(Lsn, DiskPtr, Vec<u8>), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let met = self.walk.as_mut()?.next(self.log);
        let item = match met {
            Ok(met) => met.map(|(lsn, offset, bytes)| Ok((lsn, DiskPtr::Inline(offset), bytes))),
            Err(failure) => Some(Err(failure.into())),
        };
        if !matches!(item, Some(Ok(_))) {
            self.walk = None;
        }
        item
    }
}
