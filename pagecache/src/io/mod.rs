//! The only door to the operating system: files, time and threads, each behind a trait.
//!
//! [`FileStorage`], [`SystemClock`] and [`ThreadSpawner`] are the real ones; `sim` (feature
//! `sim`) holds the same traits with crashes, faults and chosen schedules.

mod clock;
#[cfg(test)]
mod conformance;
#[cfg(any(test, feature = "sim"))]
mod counting;
mod direct;
mod file;
mod machine;
mod operation;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod spawn;
mod temp;
mod timed;

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::metrics::Work;
pub(crate) use timed::TimedStorage;

pub use clock::SystemClock;
#[cfg(any(test, feature = "sim"))]
pub use counting::{CountingStorage, Counts, Tally};
pub use file::FileStorage;
pub(crate) use machine::memory_bytes;
pub use operation::Operation;
pub use spawn::ThreadSpawner;

/// The files of a store. Everything that a store keeps lies in these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileId {
    /// Page images in segments, behind two superblocks.
    Pages,
    /// `pages` while it is being created; renamed once it is whole.
    PagesNew,
    /// Records of every change since the last checkpoint.
    Log,
}

impl FileId {
    /// Every file, in the order of its creation.
    pub const ALL: [FileId; 3] = [FileId::PagesNew, FileId::Pages, FileId::Log];

    /// The file's name in the store's directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileId::Pages => "pages",
            FileId::PagesNew => "pages.new",
            FileId::Log => "log",
        }
    }
}

/// Why a file or the directory is synced. A test can drop any one of them and must then fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyncReason {
    /// The bytes of a new `pages` file, before it gets its name.
    Creation,
    /// The directory, so that the name `pages` survives.
    CreationName,
    /// The directory, so that the name `log` survives.
    LogName,
    /// The first log segment after an open, before a superblock says that it is there.
    LogBegun,
    /// Records that somebody waits for.
    Commit,
    /// Page images and map pages, before a superblock names them.
    Images,
    /// Bytes of large values, before the record that adopts them.
    Values,
    /// The first slot of a new superblock, before the second is touched.
    FirstSuperblock,
    /// The second slot of a new superblock, before anything is reused.
    SecondSuperblock,
    /// The log's tail, rewritten in place after a crash, before it is acknowledged again.
    Tail,
}

impl SyncReason {
    /// Every reason, for the table that drops each.
    pub const ALL: [SyncReason; 10] = [
        SyncReason::Creation,
        SyncReason::CreationName,
        SyncReason::LogName,
        SyncReason::LogBegun,
        SyncReason::Commit,
        SyncReason::Images,
        SyncReason::Values,
        SyncReason::FirstSuperblock,
        SyncReason::SecondSuperblock,
        SyncReason::Tail,
    ];
}

/// Where a store's bytes live: a directory with the files of [`FileId`].
///
/// Nothing is assumed of bytes, lengths and names that were not synced: after a crash each sector,
/// each length change and each name may or may not have happened.
pub trait Storage: Send + Sync + fmt::Debug + 'static {
    /// True if the file has a name.
    fn exists(&self, file: FileId) -> io::Result<bool>;
    /// Makes an empty file, throwing away one that is there. Its name is durable after `sync_names`.
    fn create(&self, file: FileId) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self, file: FileId) -> io::Result<u64>;
    /// Fills `buf` from `offset`; a file that ends before is `UnexpectedEof`.
    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// As `read_at`, if it can be done without waiting for a device; false, and `buf` holds anything, if
    /// not or if that cannot be told.
    fn read_at_once(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        self.read_at(file, offset, buf).map(|()| true)
    }
    /// Writes all of `bytes` at `offset`, growing the file where needed (holes read as zero).
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets room aside for `len` bytes at `offset`, so that writing there does not meet a full disk. Neither
    /// the file's length nor what it holds changes. False if that cannot be had; an error may leave a part
    /// of it set aside, until the file is cut.
    fn allocate(&self, _file: FileId, _offset: u64, _len: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Cuts or grows the file.
    fn set_len(&self, file: FileId, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable.
    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()>;
    /// Writes as `write_at` and makes these bytes durable, with what it takes to read them back; of other
    /// unsynced bytes it need not make any so.
    fn write_durably(&self, file: FileId, offset: u64, bytes: &[u8], reason: SyncReason) -> io::Result<()> {
        self.write_at(file, offset, bytes)?;
        self.sync(file, reason)
    }
    /// Gives `from` the name of `to`, replacing it.
    fn rename(&self, from: FileId, to: FileId) -> io::Result<()>;
    /// Takes the file's name away.
    fn remove(&self, file: FileId) -> io::Result<()>;
    /// Makes names durable.
    fn sync_names(&self, reason: SyncReason) -> io::Result<()>;
    /// Takes the store's exclusive lock; `WouldBlock` if another handle has it.
    fn lock(&self) -> io::Result<()>;
    /// Takes the store's lock for reading, beside others who read; `WouldBlock` if a handle that may
    /// write has it. Makes no file, and writes to none.
    fn lock_shared(&self) -> io::Result<()> {
        self.lock()
    }
    /// The process that holds the lock which was refused, where that can be told.
    fn lock_holder(&self) -> Option<u32> {
        None
    }
    /// Gives the lock back. Called once, when the store is closed or dropped.
    fn unlock(&self);
    /// The file's path, for messages.
    fn path(&self, file: FileId) -> PathBuf;
}

/// Monotonic time.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// What a background job wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call again at once: there is more to do.
    Again,
    /// Call again after this long, or when woken.
    After(Duration),
    /// Call again when woken.
    WhenWoken,
    /// Never call again.
    Done,
}

/// One step of background work; called again and again, never by two threads at once.
pub type Job = Box<dyn FnMut() -> Next + Send>;

/// A running background job.
pub trait Worker: Send + Sync + fmt::Debug {
    /// Makes the job's next step happen soon. Never blocks.
    fn wake(&self);
    /// Waits until the job has said [`Next::Done`]. The caller has told it to and woken it.
    fn join(&self);
}

/// Where background work runs.
pub trait Spawner: Send + Sync + fmt::Debug + 'static {
    /// Starts a job.
    fn spawn(&self, name: &'static str, job: Job) -> io::Result<Box<dyn Worker>>;
    /// True if jobs run as steps on the caller's own thread, chosen by a seed: no other thread
    /// ever touches the store, and nothing may wait for one.
    fn is_inline(&self) -> bool;
}
