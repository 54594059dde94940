//! The `pages` file: reads and writes with their failures named.
//!
//! * A full disk is reported and harms nothing; any other failed write or sync poisons the store.
//! * Reads go on in a poisoned store.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    error::{DecodeError, Failure, Poison},
    format::{frame::FrameSeed, superblock::Superblock},
    io::{FileId, Storage, SyncReason},
    store::layout::Layout,
};

/// The open `pages` file of one store.
#[derive(Clone, Debug)]
pub(crate) struct PagesFile {
    storage: Arc<dyn Storage>,
    poison: Arc<Poison>,
    layout: Layout,
    seed: FrameSeed,
}

impl PagesFile {
    /// The file that `superblock` was read from.
    pub(crate) fn new(storage: Arc<dyn Storage>, poison: Arc<Poison>, superblock: &Superblock) -> PagesFile {
        let layout = Layout::new(&superblock.geometry);
        PagesFile { storage, poison, layout, seed: FrameSeed::new(&superblock.uuid) }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Seals and opens the frames of this store.
    pub(crate) fn seed(&self) -> &FrameSeed {
        &self.seed
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.storage.path(FileId::Pages)
    }

    /// Damage at `offset`.
    pub(crate) fn corrupt(&self, offset: u64, found: DecodeError) -> Failure {
        Failure::Corrupt { found: found.0, path: self.path(), offset }
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> Result<u64, Failure> {
        let failed = |e| Failure::from_io("measuring the pages", self.path(), 0, 0, e);
        self.storage.len(FileId::Pages).map_err(failed)
    }

    /// Fills `out`; a file that ends before is damaged.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Failure> {
        let read = self.storage.read_at(FileId::Pages, offset, out);
        read.map_err(|e| self.unread(offset, out.len(), e))
    }

    /// As [`PagesFile::read`], if no device has to be waited for; false if that may be.
    pub(crate) fn read_at_once(&self, offset: u64, out: &mut [u8]) -> Result<bool, Failure> {
        let read = self.storage.read_at_once(FileId::Pages, offset, out);
        read.map_err(|e| self.unread(offset, out.len(), e))
    }

    fn unread(&self, offset: u64, needed: usize, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self
                .corrupt(offset, DecodeError(format!("the file ends before the {needed} bytes needed here"))),
            _ => Failure::from_io("reading the pages", self.path(), offset, 0, error),
        }
    }

    /// Refuses once a write has failed.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.poison.check()
    }

    /// Writes `bytes`. [`Failure::DiskFull`] leaves the store as it was.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.poison.check()?;
        self.storage.write_at(FileId::Pages, offset, bytes).map_err(|e| {
            match Failure::from_io("writing the pages", self.path(), offset, bytes.len() as u64, e) {
                full @ Failure::DiskFull { .. } => full,
                other => self.poison.set(other),
            }
        })
    }

    /// Writes `bytes` where the file has room already, so that a full disk is a failure too, and makes
    /// them durable, them alone.
    pub(crate) fn overwrite_durably(
        &self,
        offset: u64,
        bytes: &[u8],
        reason: SyncReason,
    ) -> Result<(), Failure> {
        self.poison.check()?;
        self.storage.write_durably(FileId::Pages, offset, bytes, reason).map_err(|e| {
            let bytes = bytes.len() as u64;
            self.poison.set(Failure::from_io("writing the pages durably", self.path(), offset, bytes, e))
        })
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self, reason: SyncReason) -> Result<(), Failure> {
        self.poison.check()?;
        self.storage
            .sync(FileId::Pages, reason)
            .map_err(|e| self.poison.set(Failure::from_io("syncing the pages", self.path(), 0, 0, e)))
    }

    /// Cuts the file.
    pub(crate) fn cut(&self, len: u64) -> Result<(), Failure> {
        self.poison.check()?;
        self.storage
            .set_len(FileId::Pages, len)
            .map_err(|e| self.poison.set(Failure::from_io("cutting the pages", self.path(), len, 0, e)))
    }
}
