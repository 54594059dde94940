//! A disk in memory for this folder's tests: it can be full, fail, and lose power.
//!
//! After a cut, of every file each sector written since its last sync is there or not, as the bits
//! of a mask say; so is the last change of each name.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use crate::{
    error::Poison,
    format::superblock::{Features, Geometry, Superblock},
    io::{FileId, Storage, SyncReason},
    store::{pages::PagesFile, superblocks},
    sync::Mutex,
};

pub(crate) const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written since the last sync.
    dirty: BTreeSet<usize>,
    /// Sectors that take space.
    taken: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<FileId, usize>,
    durable_names: BTreeMap<FileId, usize>,
    calls: u64,
    cut_at: Option<u64>,
    fail_at: Option<u64>,
    capacity: Option<usize>,
    syncs: Vec<SyncReason>,
    writes: Vec<(u64, usize)>,
}

#[derive(Debug, Default)]
pub(crate) struct TestDisk(Mutex<State>);

impl TestDisk {
    pub(crate) fn new() -> Arc<TestDisk> {
        Arc::default()
    }

    /// Calls that change something, so far.
    pub(crate) fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// The power goes before the call with this number.
    pub(crate) fn cut_at(&self, call: u64) {
        self.0.lock().cut_at = Some(call);
    }

    /// The call with this number is refused, once.
    pub(crate) fn fail_at(&self, call: u64) {
        self.0.lock().fail_at = Some(call);
    }

    /// How many bytes the disk holds.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.0.lock().capacity = bytes.map(|bytes| bytes / SECTOR);
    }

    /// Takes what was synced and what was written since the last call.
    pub(crate) fn take_log(&self) -> (Vec<SyncReason>, Vec<(u64, usize)>) {
        let mut state = self.0.lock();
        (std::mem::take(&mut state.syncs), std::mem::take(&mut state.writes))
    }

    /// How many sectors and names a cut leaves open.
    pub(crate) fn open_questions(&self) -> usize {
        let state = self.0.lock();
        state.files.iter().map(|file| file.dirty.len()).sum::<usize>()
            + usize::from(state.names != state.durable_names)
    }

    /// The disk after a cut, its open questions answered by the bits of `mask`.
    pub(crate) fn after_cut(&self, mut mask: u64) -> Arc<TestDisk> {
        let mut answer = || {
            let yes = mask & 1 == 1;
            mask >>= 1;
            yes
        };
        let mut state = self.0.lock().clone();
        for file in &mut state.files {
            for sector in std::mem::take(&mut file.dirty) {
                if answer() {
                    let start = sector * SECTOR;
                    let end = (start + SECTOR).min(file.bytes.len());
                    if end > start {
                        file.durable.resize(file.durable.len().max(end), 0);
                        file.durable[start..end].copy_from_slice(&file.bytes[start..end]);
                    }
                }
            }
            file.bytes = file.durable.clone();
        }
        if state.names != state.durable_names && answer() {
            state.durable_names = state.names.clone();
        }
        state.names = state.durable_names.clone();
        Arc::new(TestDisk(Mutex::new(State { cut_at: None, fail_at: None, ..state })))
    }

    /// Turns one bit, durably.
    pub(crate) fn damage(&self, at: u64) {
        let mut state = self.0.lock();
        let inode = state.names[&FileId::Pages];
        let file = &mut state.files[inode];
        file.bytes[at as usize] ^= 0x10;
        file.durable = file.bytes.clone();
    }

    fn change<T>(
        &self,
        file: FileId,
        apply: impl FnOnce(&mut State, Option<usize>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.0.lock();
        let call = state.calls;
        if state.cut_at.is_some_and(|cut| call >= cut) {
            return Err(io::Error::other("the power is off"));
        }
        state.calls += 1;
        if state.fail_at == Some(call) {
            return Err(io::Error::other("the device refused"));
        }
        let inode = state.names.get(&file).copied();
        apply(&mut state, inode)
    }
}

fn absent() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Storage for TestDisk {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        Ok(self.0.lock().names.contains_key(&file))
    }

    fn create(&self, file: FileId) -> io::Result<()> {
        self.change(file, |state, _| {
            state.files.push(File::default());
            let inode = state.files.len() - 1;
            state.names.insert(file, inode);
            Ok(())
        })
    }

    fn len(&self, file: FileId) -> io::Result<u64> {
        let state = self.0.lock();
        let inode = *state.names.get(&file).ok_or_else(absent)?;
        Ok(state.files[inode].bytes.len() as u64)
    }

    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock();
        let inode = *state.names.get(&file).ok_or_else(absent)?;
        let start = usize::try_from(offset).expect("small");
        let from = state.files[inode].bytes.get(start..start + buf.len());
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(file, |state, inode| {
            let start = offset as usize;
            state.writes.push((offset, bytes.len()));
            let mut left = state.capacity.map_or(usize::MAX, |sectors| {
                sectors.saturating_sub(state.files.iter().map(|file| file.taken.len()).sum())
            });
            let file = &mut state.files[inode.ok_or_else(absent)?];
            for sector in start / SECTOR..(start + bytes.len()).div_ceil(SECTOR) {
                if file.taken.insert(sector) {
                    if left == 0 {
                        file.taken.remove(&sector);
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    left -= 1;
                }
                let from = start.max(sector * SECTOR);
                let to = (start + bytes.len()).min((sector + 1) * SECTOR);
                file.bytes.resize(file.bytes.len().max(to), 0);
                file.bytes[from..to].copy_from_slice(&bytes[from - start..to - start]);
                file.dirty.insert(sector);
            }
            Ok(())
        })
    }

    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.change(file, |state, inode| {
            let file = &mut state.files[inode.ok_or_else(absent)?];
            file.bytes.resize(len as usize, 0);
            file.taken.split_off(&(len as usize).div_ceil(SECTOR));
            Ok(())
        })
    }

    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        self.change(file, |state, inode| {
            state.syncs.push(reason);
            let file = &mut state.files[inode.ok_or_else(absent)?];
            file.dirty.clear();
            file.durable = file.bytes.clone();
            Ok(())
        })
    }

    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.change(from, |state, inode| {
            state.names.remove(&from);
            state.names.insert(to, inode.ok_or_else(absent)?);
            Ok(())
        })
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        self.change(file, |state, _| {
            state.names.remove(&file);
            Ok(())
        })
    }

    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        self.change(FileId::Pages, |state, _| {
            state.syncs.push(reason);
            state.durable_names = state.names.clone();
            Ok(())
        })
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn unlock(&self) {}

    fn path(&self, file: FileId) -> PathBuf {
        PathBuf::from(file.name())
    }
}

pub(crate) fn superblock(block_bytes: u32, store_segment_bytes: u32) -> Superblock {
    Superblock {
        uuid: *b"a store in tests",
        generation: 1,
        replay_from: 0,
        stable: 0,
        clean: true,
        salts: vec![(0, 1)],
        geometry: Geometry { block_bytes, log_segment_bytes: block_bytes, store_segment_bytes },
        directory: None,
        features: Features::default(),
        log_bytes: 0,
        log_begun: 0,
    }
}

/// A fresh store with blocks of 512 bytes.
pub(crate) fn fresh(disk: &Arc<TestDisk>, store_segment_bytes: u32) -> PagesFile {
    let superblock = superblock(512, store_segment_bytes);
    superblocks::create(&**disk, &superblock).expect("an empty disk");
    PagesFile::new(disk.clone(), Arc::new(Poison::default()), &superblock)
}

/// Pseudo-random numbers from a seed (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}
