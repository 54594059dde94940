//! The file backend, counting the blocks that writes touch.
//!
//! What a process wrote, as Linux tells it (`write_bytes` of `/proc/self/io`), counts every page of a large folio
//! of which one block was written: up to 2 MiB for 4 KiB. The device gets the blocks.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pagecache::io::{FileId, FileStorage, Storage, SyncReason};

const BLOCK: u64 = 4096;

/// Bytes of the blocks that writes touched so far; one that two writes touched counts twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched(Arc<AtomicU64>);

impl Touched {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, offset: u64, bytes: &[u8]) {
        let end = (offset + bytes.len() as u64).next_multiple_of(BLOCK);
        self.0.fetch_add(end - offset / BLOCK * BLOCK, Ordering::Relaxed);
    }
}

/// The files of a directory.
#[derive(Debug)]
pub(crate) struct Blocks {
    files: FileStorage,
    touched: Touched,
}

impl Blocks {
    pub(crate) fn open(path: &Path, touched: &Touched) -> io::Result<Arc<Blocks>> {
        Ok(Arc::new(Blocks { files: FileStorage::open(path, true)?, touched: touched.clone() }))
    }
}

impl Storage for Blocks {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        self.files.exists(file)
    }
    fn create(&self, file: FileId) -> io::Result<()> {
        self.files.create(file)
    }
    fn len(&self, file: FileId) -> io::Result<u64> {
        self.files.len(file)
    }
    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.files.read_at(file, offset, buf)
    }
    fn read_at_once(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        self.files.read_at_once(file, offset, buf)
    }
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.touched.add(offset, bytes);
        self.files.write_at(file, offset, bytes)
    }
    fn allocate(&self, file: FileId, offset: u64, len: u64) -> io::Result<bool> {
        self.files.allocate(file, offset, len)
    }
    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.files.set_len(file, len)
    }
    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        self.files.sync(file, reason)
    }
    fn write_durably(&self, file: FileId, offset: u64, bytes: &[u8], reason: SyncReason) -> io::Result<()> {
        self.touched.add(offset, bytes);
        self.files.write_durably(file, offset, bytes, reason)
    }
    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.files.rename(from, to)
    }
    fn remove(&self, file: FileId) -> io::Result<()> {
        self.files.remove(file)
    }
    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        self.files.sync_names(reason)
    }
    fn lock(&self) -> io::Result<()> {
        self.files.lock()
    }
    fn lock_shared(&self) -> io::Result<()> {
        self.files.lock_shared()
    }
    fn lock_holder(&self) -> Option<u32> {
        self.files.lock_holder()
    }
    fn unlock(&self) {
        self.files.unlock();
    }
    fn path(&self, file: FileId) -> PathBuf {
        self.files.path(file)
    }
}
