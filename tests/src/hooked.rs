//! A storage that lets something happen before each call that moves bytes: other operations, or time.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use pagecache::io::{FileId, Operation, Storage, SyncReason};

/// What happens before a call; it is given the file and what is about to be done.
pub type Hook = Arc<dyn Fn(FileId, Operation) + Send + Sync>;

/// Wraps any storage and calls a hook before each read, write and sync of a file.
pub struct HookedStorage {
    inner: Arc<dyn Storage>,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for HookedStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HookedStorage").field(&self.inner).finish()
    }
}

impl HookedStorage {
    /// Wraps `inner`, without a hook so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> HookedStorage {
        HookedStorage { inner, hook: Mutex::new(None) }
    }

    /// Sets the hook of the calls from now on.
    pub fn set_hook(&self, hook: Option<Hook>) {
        *self.slot() = hook;
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Hook>> {
        self.hook.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Calls the hook with no lock held, so that it may use this storage too.
    fn before(&self, file: FileId, operation: Operation) {
        let hook = self.slot().clone();
        if let Some(hook) = hook {
            hook(file, operation);
        }
    }
}

impl Storage for HookedStorage {
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
        self.before(file, Operation::Read);
        self.inner.read_at(file, offset, buf)
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.before(file, Operation::Write);
        self.inner.write_at(file, offset, bytes)
    }

    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.inner.set_len(file, len)
    }

    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        self.before(file, Operation::Sync);
        self.inner.sync(file, reason)
    }

    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        self.inner.remove(file)
    }

    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
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
