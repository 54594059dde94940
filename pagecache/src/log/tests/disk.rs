//! A disk in memory for the log's tests: counts calls, fails on demand, keeps what was synced.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::io::{FileId, Storage, SyncReason};
use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(super) struct Disk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    log: Option<Vec<u8>>,
    calls: Vec<Call>,
    /// Fails the call number `n` from now and all later ones of that kind.
    fail_write: Option<(usize, io::ErrorKind)>,
    fail_sync: Option<usize>,
    /// Bytes that the file may still grow by.
    room: Option<usize>,
    /// Takes room aside when asked: bytes up to this length are had.
    allocates: bool,
    aside: usize,
    sync_time: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Write { offset: u64, len: usize },
    SetLen(u64),
    Allocate { offset: u64, len: u64 },
    Sync(SyncReason),
    SyncNames(SyncReason),
}

impl Disk {
    /// A disk that holds this log.
    pub(super) fn with(log: Vec<u8>) -> Disk {
        let disk = Disk::default();
        disk.state.lock().log = Some(log);
        disk
    }

    pub(super) fn image(&self) -> Vec<u8> {
        self.state.lock().log.clone().unwrap_or_default()
    }

    /// The calls that changed something since the last time.
    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().calls)
    }

    pub(super) fn fail_writes_after(&self, writes: usize, kind: io::ErrorKind) {
        self.state.lock().fail_write = Some((writes, kind));
    }

    pub(super) fn fail_syncs_after(&self, syncs: usize) {
        self.state.lock().fail_sync = Some(syncs);
    }

    pub(super) fn set_room(&self, room: Option<usize>) {
        self.state.lock().room = room;
    }

    pub(super) fn set_allocates(&self, allocates: bool) {
        self.state.lock().allocates = allocates;
    }

    pub(super) fn set_sync_time(&self, time: Duration) {
        self.state.lock().sync_time = time;
    }

    pub(super) fn syncs(&self, reason: SyncReason) -> usize {
        self.state.lock().calls.iter().filter(|call| **call == Call::Sync(reason)).count()
    }
}

impl Storage for Disk {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        Ok(file == FileId::Log && self.state.lock().log.is_some())
    }

    fn create(&self, _: FileId) -> io::Result<()> {
        let mut state = self.state.lock();
        state.calls.push(Call::Create);
        state.log = Some(Vec::new());
        Ok(())
    }

    fn len(&self, _: FileId) -> io::Result<u64> {
        Ok(self.state.lock().log.as_ref().map_or(0, |log| log.len() as u64))
    }

    fn read_at(&self, _: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        let log = state.log.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let at = offset as usize;
        buf.copy_from_slice(log.get(at..at + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        match &mut state.fail_write {
            Some((0, kind)) => return Err((*kind).into()),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        let end = offset as usize + bytes.len();
        let held = state.log.as_ref().ok_or(io::ErrorKind::NotFound)?.len().max(state.aside);
        let grows = end.saturating_sub(held);
        if let Some(room) = &mut state.room {
            *room = room.checked_sub(grows).ok_or(io::ErrorKind::StorageFull)?;
        }
        state.calls.push(Call::Write { offset, len: bytes.len() });
        let log = state.log.as_mut().ok_or(io::ErrorKind::NotFound)?;
        log.resize(log.len().max(end), 0);
        log[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, _: FileId, offset: u64, len: u64) -> io::Result<bool> {
        let mut state = self.state.lock();
        if !state.allocates {
            return Ok(false);
        }
        state.calls.push(Call::Allocate { offset, len });
        let held = state.log.as_ref().ok_or(io::ErrorKind::NotFound)?.len().max(state.aside);
        let end = (offset + len) as usize;
        if let Some(room) = &mut state.room {
            *room = room.checked_sub(end.saturating_sub(held)).ok_or(io::ErrorKind::StorageFull)?;
        }
        state.aside = state.aside.max(end);
        Ok(true)
    }

    fn set_len(&self, _: FileId, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.calls.push(Call::SetLen(len));
        state.aside = state.aside.min(len as usize);
        state.log.as_mut().ok_or(io::ErrorKind::NotFound)?.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self, _: FileId, reason: SyncReason) -> io::Result<()> {
        let time = self.state.lock().sync_time;
        if !time.is_zero() {
            std::thread::sleep(time);
        }
        let mut state = self.state.lock();
        state.calls.push(Call::Sync(reason));
        match &mut state.fail_sync {
            Some(0) => Err(io::ErrorKind::Other.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn rename(&self, _: FileId, _: FileId) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: FileId) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        self.state.lock().calls.push(Call::SyncNames(reason));
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn unlock(&self) {}

    fn path(&self, file: FileId) -> PathBuf {
        PathBuf::from(file.name())
    }
}
