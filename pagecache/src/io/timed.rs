//! A storage whose calls are measured: [`Work`] by file and kind.
//!
//! It changes nothing of what it passes on. What becomes of the numbers is [`crate::metrics`]' business.

use std::{io, path::PathBuf, sync::Arc};

use super::{FileId, Storage, SyncReason, Work};
use crate::metrics::Metrics;

/// Wraps the files of a store that is measured.
#[derive(Debug)]
pub(crate) struct TimedStorage {
    inner: Arc<dyn Storage>,
    metrics: Metrics<Work>,
}

impl TimedStorage {
    /// The files as they are if nothing is measured.
    pub(crate) fn around(inner: Arc<dyn Storage>, metrics: &Metrics<Work>) -> Arc<dyn Storage> {
        match metrics.is_on() {
            true => Arc::new(TimedStorage { inner, metrics: metrics.clone() }),
            false => inner,
        }
    }

    /// Of a file, its read, write, sync, write that is durable at once, and bytes written.
    fn works(file: FileId) -> [Work; 5] {
        match file {
            FileId::Log => [Work::LogRead, Work::LogWrite, Work::LogSync, Work::LogDurable, Work::LogBytes],
            FileId::Pages | FileId::PagesNew => {
                [Work::PagesRead, Work::PagesWrite, Work::PagesSync, Work::PagesDurable, Work::PagesBytes]
            }
        }
    }
}

impl Storage for TimedStorage {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        self.inner.exists(file)
    }

    fn create(&self, file: FileId) -> io::Result<()> {
        self.inner.create(file)
    }

    fn len(&self, file: FileId) -> io::Result<u64> {
        self.inner.len(file)
    }

    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let [read, ..] = TimedStorage::works(file);
        let _timing = self.metrics.time(read);
        self.inner.read_at(file, offset, buf)
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let [_, write, _, _, written] = TimedStorage::works(file);
        self.metrics.note(written, bytes.len() as u64);
        let _timing = self.metrics.time(write);
        self.inner.write_at(file, offset, bytes)
    }

    fn allocate(&self, file: FileId, offset: u64, len: u64) -> io::Result<bool> {
        self.inner.allocate(file, offset, len)
    }

    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.inner.set_len(file, len)
    }

    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        let [_, _, sync, ..] = TimedStorage::works(file);
        let _timing = self.metrics.time(sync);
        self.inner.sync(file, reason)
    }

    fn write_durably(&self, file: FileId, offset: u64, bytes: &[u8], reason: SyncReason) -> io::Result<()> {
        let [_, _, _, durable, written] = TimedStorage::works(file);
        self.metrics.note(written, bytes.len() as u64);
        let _timing = self.metrics.time(durable);
        self.inner.write_durably(file, offset, bytes, reason)
    }

    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        self.inner.remove(file)
    }

    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        let _timing = self.metrics.time(Work::NamesSync);
        self.inner.sync_names(reason)
    }

    fn lock(&self) -> io::Result<()> {
        self.inner.lock()
    }

    fn lock_shared(&self) -> io::Result<()> {
        self.inner.lock_shared()
    }

    fn lock_holder(&self) -> Option<u32> {
        self.inner.lock_holder()
    }

    fn unlock(&self) {
        self.inner.unlock();
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.inner.path(file)
    }
}
