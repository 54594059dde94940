//! A storage that counts what passes through it, and can hold back syncs.
//!
//! Counted is what was asked, also if it failed: the device was bothered all the same.

use std::{io, ops::Sub, path::PathBuf, sync::Arc};

use super::{FileId, Operation, Storage, SyncReason, operation::file_index};
use crate::sync::{Condvar, Mutex};

/// Wraps any storage and counts its calls.
#[derive(Debug)]
pub struct CountingStorage {
    inner: Arc<dyn Storage>,
    state: Mutex<State>,
    gate: Mutex<Gate>,
    gate_changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// Lengths as far as known, so that growth is seen without asking each time.
    lens: [Option<u64>; FileId::ALL.len()],
}

#[derive(Debug, Default)]
struct Gate {
    held: bool,
    waiting: usize,
}

/// How often something was called, and with how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls.
    pub calls: u64,
    /// Bytes read or written.
    pub bytes: u64,
}

/// What was counted up to some moment. The difference of two is what happened between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    per_file: [[Tally; Operation::ALL.len()]; FileId::ALL.len()],
    name_syncs: u64,
    per_reason: [u64; SyncReason::ALL.len()],
    growth: [u64; FileId::ALL.len()],
}

impl Counts {
    /// Calls and bytes of one operation on one file. `SyncNames` belongs to no file.
    #[must_use]
    pub fn tally(&self, file: FileId, operation: Operation) -> Tally {
        self.per_file[file_index(file)][operation as usize]
    }

    /// Calls and bytes of one operation, on all files together.
    #[must_use]
    pub fn total(&self, operation: Operation) -> Tally {
        let mut total = Tally::default();
        for file in FileId::ALL {
            let tally = self.tally(file, operation);
            total.calls += tally.calls;
            total.bytes += tally.bytes;
        }
        if operation == Operation::SyncNames {
            total.calls += self.name_syncs;
        }
        total
    }

    /// Syncs of files and of names for this reason.
    #[must_use]
    pub fn syncs(&self, reason: SyncReason) -> u64 {
        self.per_reason[reason as usize]
    }

    /// Syncs of files and of names for any reason.
    #[must_use]
    pub fn syncs_total(&self) -> u64 {
        self.per_reason.iter().sum()
    }

    /// By how many bytes the file grew, not counting what it shrank.
    #[must_use]
    pub fn growth(&self, file: FileId) -> u64 {
        self.growth[file_index(file)]
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(mut self, earlier: Counts) -> Counts {
        for (tallies, before) in self.per_file.iter_mut().zip(&earlier.per_file) {
            for (tally, before) in tallies.iter_mut().zip(before) {
                tally.calls -= before.calls;
                tally.bytes -= before.bytes;
            }
        }
        for (count, before) in self.per_reason.iter_mut().zip(&earlier.per_reason) {
            *count -= before;
        }
        for (growth, before) in self.growth.iter_mut().zip(&earlier.growth) {
            *growth -= before;
        }
        self.name_syncs -= earlier.name_syncs;
        self
    }
}

impl CountingStorage {
    /// Counts what passes to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> CountingStorage {
        CountingStorage {
            inner,
            state: Mutex::default(),
            gate: Mutex::default(),
            gate_changed: Condvar::new(),
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Counts {
        self.state.lock().counts
    }

    /// Makes every sync from now on wait until [`CountingStorage::release_syncs`].
    pub fn hold_syncs(&self) {
        self.gate.lock().held = true;
    }

    /// Lets the waiting syncs and all later ones through.
    pub fn release_syncs(&self) {
        self.gate.lock().held = false;
        self.gate_changed.notify_all();
    }

    /// How many syncs wait now.
    #[must_use]
    pub fn waiting_syncs(&self) -> usize {
        self.gate.lock().waiting
    }

    /// Waits until at least `count` syncs are held.
    pub fn await_waiting_syncs(&self, count: usize) {
        let mut gate = self.gate.lock();
        while gate.waiting < count {
            self.gate_changed.wait(&mut gate);
        }
    }

    fn pass_gate(&self) {
        let mut gate = self.gate.lock();
        if !gate.held {
            return;
        }
        gate.waiting += 1;
        self.gate_changed.notify_all();
        while gate.held {
            self.gate_changed.wait(&mut gate);
        }
        gate.waiting -= 1;
    }

    fn count(&self, file: FileId, operation: Operation, bytes: usize) {
        let mut state = self.state.lock();
        let tally = &mut state.counts.per_file[file_index(file)][operation as usize];
        tally.calls += 1;
        tally.bytes += bytes as u64;
    }

    fn count_sync(&self, reason: SyncReason) {
        self.state.lock().counts.per_reason[reason as usize] += 1;
    }

    /// Learns the length before the first change, so that growth counts from there.
    fn learn_len(&self, file: FileId) {
        let unknown = self.state.lock().lens[file_index(file)].is_none();
        if unknown && let Ok(len) = self.inner.len(file) {
            self.state.lock().lens[file_index(file)].get_or_insert(len);
        }
    }

    fn grown(&self, file: FileId, len: u64, may_shrink: bool) {
        let mut state = self.state.lock();
        let State { counts, lens } = &mut *state;
        let known = lens[file_index(file)].get_or_insert(0);
        counts.growth[file_index(file)] += len.saturating_sub(*known);
        *known = if may_shrink { len } else { len.max(*known) };
    }
}

impl Storage for CountingStorage {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        self.count(file, Operation::Exists, 0);
        self.inner.exists(file)
    }

    fn create(&self, file: FileId) -> io::Result<()> {
        self.count(file, Operation::Create, 0);
        self.inner.create(file)?;
        self.grown(file, 0, true);
        Ok(())
    }

    fn len(&self, file: FileId) -> io::Result<u64> {
        self.count(file, Operation::Len, 0);
        self.inner.len(file)
    }

    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.count(file, Operation::Read, buf.len());
        self.inner.read_at(file, offset, buf)
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.count(file, Operation::Write, bytes.len());
        self.learn_len(file);
        self.inner.write_at(file, offset, bytes)?;
        self.grown(file, offset.saturating_add(bytes.len() as u64), false);
        Ok(())
    }

    fn allocate(&self, file: FileId, offset: u64, len: u64) -> io::Result<bool> {
        self.inner.allocate(file, offset, len)
    }

    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.count(file, Operation::SetLen, 0);
        self.learn_len(file);
        self.inner.set_len(file, len)?;
        self.grown(file, len, true);
        Ok(())
    }

    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        self.pass_gate();
        self.count(file, Operation::Sync, 0);
        self.count_sync(reason);
        self.inner.sync(file, reason)
    }

    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.count(from, Operation::Rename, 0);
        self.inner.rename(from, to)?;
        let lens = &mut self.state.lock().lens;
        if from != to {
            lens[file_index(to)] = lens[file_index(from)].take();
        }
        Ok(())
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        self.count(file, Operation::Remove, 0);
        self.inner.remove(file)?;
        self.state.lock().lens[file_index(file)] = None;
        Ok(())
    }

    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        self.pass_gate();
        self.count_sync(reason);
        self.state.lock().counts.name_syncs += 1;
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

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        thread,
    };

    use super::{CountingStorage, FileId, Operation, Storage, SyncReason, Tally};
    use crate::io::sim::SimDisk;

    #[test]
    fn calls_bytes_reasons_and_growth_add_up() {
        let counting = CountingStorage::new(Arc::new(SimDisk::new()));
        counting.create(FileId::PagesNew).unwrap();
        counting.write_at(FileId::PagesNew, 0, &[1; 100]).unwrap();
        counting.sync(FileId::PagesNew, SyncReason::Creation).unwrap();
        counting.rename(FileId::PagesNew, FileId::Pages).unwrap();
        counting.sync_names(SyncReason::CreationName).unwrap();
        let early = counting.snapshot();
        counting.write_at(FileId::Pages, 50, &[2; 100]).unwrap();
        counting.write_at(FileId::Pages, 0, &[2; 10]).unwrap();
        counting.set_len(FileId::Pages, 10).unwrap();
        counting.set_len(FileId::Pages, 30).unwrap();
        counting.read_at(FileId::Pages, 0, &mut [0; 7]).unwrap();
        counting.sync(FileId::Pages, SyncReason::Images).unwrap();
        let all = counting.snapshot();
        let late = all - early;

        assert_eq!(early.tally(FileId::PagesNew, Operation::Write), Tally { calls: 1, bytes: 100 });
        assert_eq!(early.growth(FileId::PagesNew), 100);
        assert_eq!(late.tally(FileId::Pages, Operation::Write), Tally { calls: 2, bytes: 110 });
        assert_eq!(late.tally(FileId::Pages, Operation::Read), Tally { calls: 1, bytes: 7 });
        assert_eq!(late.growth(FileId::Pages), 50 + 20);
        assert_eq!(late.growth(FileId::PagesNew), 0);
        assert_eq!(all.total(Operation::Write), Tally { calls: 3, bytes: 210 });
        assert_eq!((early.syncs_total(), late.syncs_total()), (2, 1));
        assert_eq!(all.syncs(SyncReason::CreationName), 1);
        assert_eq!(late.syncs(SyncReason::Images), 1);
        assert_eq!(all.total(Operation::SyncNames).calls, 1);
    }

    #[test]
    fn a_held_sync_returns_only_after_its_release() {
        let counting = CountingStorage::new(Arc::new(SimDisk::new()));
        counting.create(FileId::Log).unwrap();
        counting.hold_syncs();
        let released = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    counting.sync(FileId::Log, SyncReason::Commit).unwrap();
                    assert!(released.load(SeqCst));
                });
            }
            counting.await_waiting_syncs(2);
            assert_eq!((counting.waiting_syncs(), counting.snapshot().syncs_total()), (2, 0));
            released.store(true, SeqCst);
            counting.release_syncs();
        });
        assert_eq!(counting.snapshot().syncs(SyncReason::Commit), 2);
    }
}
