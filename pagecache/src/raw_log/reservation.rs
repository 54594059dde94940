//! A reservation as its user sees it: a record's place, known before the record counts.

use super::{DiskPtr, blob::OpenBlob};
use crate::{
    error::Result,
    ids::{LogId, Lsn},
    log,
};

/// A record's place in the log, with the bytes already in it; it counts once it is completed.
///
/// Dropped in any other way, as by a panic, it is aborted. The buffer it lies in is written only when
/// every reservation in it has ended, so end it soon. A thread that holds one and asks the log to wait
/// gets an error, since it would wait for itself.
#[derive(Debug)]
#[must_use = "a dropped reservation is an aborted one"]
pub struct Reservation<'l> {
    inner: log::Reservation<'l>,
    log: &'l super::Log,
    ptr: DiskPtr,
    blob: Option<OpenBlob<'l>>,
}

impl<'l> Reservation<'l> {
    pub(super) fn new(log: &'l super::Log, inner: log::Reservation<'l>) -> Reservation<'l> {
        let ptr = DiskPtr::Inline(inner.offset());
        Reservation { inner, log, ptr, blob: None }
    }

    pub(super) fn of_blob(log: &'l super::Log, inner: log::Reservation<'l>, blob: OpenBlob<'l>) -> Self {
        let ptr = DiskPtr::Blob(inner.offset(), blob.first());
        Reservation { inner, log, ptr, blob: Some(blob) }
    }

    /// The record counts, once it is stable. Returns where it is.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if an earlier write failed: this record will never become stable.
    pub fn complete(self) -> Result<(Lsn, DiskPtr), ()> {
        let place = (self.lsn(), self.ptr);
        // A release that comes after the record must find the blob among those that stay.
        if let Some(blob) = self.blob {
            blob.complete();
        }
        self.inner.complete();
        self.log.check()?;
        Ok(place)
    }

    /// The record never was; readers step over it. Returns where it would have been.
    ///
    /// # Errors
    ///
    /// As [`Reservation::complete`].
    pub fn abort(self) -> Result<(Lsn, DiskPtr), ()> {
        let place = (self.lsn(), self.ptr);
        self.inner.abort();
        self.log.check()?;
        Ok(place)
    }

    /// The record's LSN.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.inner.lsn()
    }

    /// The record's offset in the log's file.
    #[must_use]
    pub fn lid(&self) -> LogId {
        self.ptr.lid()
    }

    /// Where the record will lie.
    #[must_use]
    pub fn ptr(&self) -> DiskPtr {
        self.ptr
    }
}
