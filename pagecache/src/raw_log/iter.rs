//! An iterator over stable records.

use super::{DiskPtr, blob};
use crate::{
    error::{Failure, Result},
    format::blob::{List, Role},
    ids::Lsn,
    log::{self, Met, Walk, damage},
};

/// The records that were stable when this was made, in LSN order; see [`super::Log::iter_from`].
///
/// What was stable and does not read back is an error, never an early end; after one there is nothing
/// more. Reads one segment at a time, and the parts of one blob.
#[derive(Debug)]
pub struct LogIter<'l> {
    log: &'l log::Log,
    walk: Option<Walk>,
}

type Item = (Lsn, DiskPtr, Vec<u8>);

impl<'l> LogIter<'l> {
    pub(super) fn new(log: &'l log::Log, walk: Walk) -> LogIter<'l> {
        LogIter { log, walk: Some(walk) }
    }

    fn step(&mut self) -> std::result::Result<Option<Item>, Failure> {
        let Some(walk) = self.walk.as_mut() else { return Ok(None) };
        while let Some(met) = walk.next(self.log)? {
            let Met { lsn, offset, pid, payload } = met;
            match Role::of(pid) {
                Some(Role::Whole) => return Ok(Some((lsn, DiskPtr::Inline(offset), payload))),
                Some(Role::Part) => {}
                Some(Role::List) => {
                    let unlisted = |why: String| damage(self.log, lsn, offset, why);
                    let list = List::decode(&payload, lsn).map_err(|why| unlisted(why.0))?;
                    let first = list.first();
                    // Its beginning was released, and the blob with it.
                    if first < self.log.released() {
                        continue;
                    }
                    let bytes = blob::read(self.log, walk.reader(), &list)?;
                    let lost =
                        || damage(self.log, first, offset, format!("a blob at LSN {lsn} lacks a part"));
                    return Ok(Some((lsn, DiskPtr::Blob(offset, first), bytes.ok_or_else(lost)?)));
                }
                None => return Err(damage(self.log, lsn, offset, format!("a record of page {pid}"))),
            }
        }
        Ok(None)
    }
}

impl Iterator for LogIter<'_> {
    type Item = Result<Item, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().map_err(Into::into).transpose();
        if !matches!(item, Some(Ok(_))) {
            self.walk = None;
        }
        item
    }
}
