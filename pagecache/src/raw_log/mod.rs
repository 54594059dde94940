//! The log as a product of its own: ordered records, durable up to a point, and nothing of pages.
//!
//! What holds here is the internal log's (LOG-1 to LOG-8); this is its face and its durable
//! [`root`]. Records are of kind `raw` and belong to no page.
//!
//! * RAW-1: a released position is durable before any segment below it is used again, so reading goes
//!   on from there after any crash.
//! * RAW-2: a linear log never releases, so no record that was stable is ever written over.
//! * RAW-4: what a blob that may still be read consists of stays: see [`blob`].
//! * RAW-3: what a close acknowledged is the whole log: the next open finds exactly that, or damage.

mod blob;
#[cfg(all(test, not(loom)))]
mod blob_tests;
#[cfg(all(test, not(loom)))]
mod crash_tests;
mod found;
mod iter;
mod reservation;
mod root;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use self::{
    blob::Kept,
    root::{Found, Root},
};
pub use self::{
    found::{DiskPtr, LogRead},
    iter::LogIter,
    reservation::Reservation,
};
use crate::{
    config::{Config, SegmentMode, Traffic},
    error::{Error, Failure, Poison, Result},
    format::{
        blob::{List, Role},
        superblock,
    },
    ids::{Lsn, PageId},
    io::{Clock, Next, Storage, ThreadSpawner, TimedStorage, Worker},
    log::{self, Geometry, Reader, Walk},
    metrics::{Metrics, Profile, Work},
    sync::{AtomicBool, Mutex, Ordering},
};

/// What is written at once where nobody waits for less, in bytes: much for one write past the system's cache,
/// and little enough for the buffers to stay in the processor's.
const TURN_BYTES: usize = 1 << 20;

/// The longest time between two looks of the background.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// A log used alone.
///
/// ```
/// use pagecache::{ConfigBuilder, Log, SegmentMode};
///
/// let config = ConfigBuilder::new().temporary(true).segment_mode(SegmentMode::Linear).build();
/// let log = Log::start_raw_log(config)?;
///
/// // The place is known before the record counts.
/// let reservation = log.reserve(b"first")?;
/// let known = (reservation.lsn(), reservation.ptr());
/// assert_eq!(reservation.complete()?, known);
/// log.reserve(b"never was")?.abort()?;
///
/// let (lsn, _) = log.write(b"second")?;
/// log.make_stable(lsn)?; // on the device when this returns
///
/// assert_eq!(log.read(known.0, known.1)?.into_data(), Some(b"first".to_vec()));
/// let all: Result<Vec<_>, _> = log.iter_from(0).map(|met| met.map(|(_, _, bytes)| bytes)).collect();
/// assert_eq!(all?, [b"first".to_vec(), b"second".to_vec()]);
/// # Ok::<(), pagecache::Error<()>>(())
/// ```
pub struct Log {
    shared: Arc<Shared>,
    worker: Mutex<Option<Arc<dyn Worker>>>,
}

struct Shared {
    log: log::Log,
    root: Root,
    kept: Kept,
    /// Most bytes of a blob for which the log can ever have room.
    blob_room: u64,
    storage: Arc<dyn Storage>,
    poison: Arc<Poison>,
    mode: SegmentMode,
    read_only: bool,
    prints_profile: bool,
    metrics: Metrics<Work>,
    stopping: AtomicBool,
    /// Writes full buffers out while the next is filled.
    worker: OnceLock<Arc<dyn Worker>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("log", &self.shared.log).field("mode", &self.shared.mode).finish()
    }
}

impl Log {
    /// Opens the log of the settings, or makes it. What a crash left of its tail is made durable
    /// again before this returns.
    ///
    /// All that was not released is read once, and held in memory while it is checked.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`] if bytes that had been stable do not read back; [`Error::Unsupported`]
    /// for settings out of range or a directory that holds a page cache; [`Error::Io`].
    pub fn start(config: Config) -> Result<Log, ()> {
        config.check()?;
        let clock = config.clock();
        let metrics = config.metrics(&clock);
        let storage = TimedStorage::around(config.lock_storage(Traffic::Stream)?, &metrics);
        let opened = Shared::open(&config, &storage, metrics);
        let shared = opened.inspect_err(|_| storage.unlock())?;
        // From here on dropping the log gives the lock back.
        let log = Log { shared, worker: Mutex::new(None) };
        let worker: Arc<dyn Worker> = Arc::from(start_background(&config, &log.shared, clock)?);
        let _first_counts = log.shared.worker.set(worker.clone());
        *log.worker.lock() = Some(worker);
        Ok(log)
    }

    /// As [`Log::start`], for a log that is never written over.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] unless the settings say [`SegmentMode::Linear`]; else as [`Log::start`].
    pub fn start_raw_log(config: Config) -> Result<Log, ()> {
        if config.inner.segment_mode != SegmentMode::Linear {
            return Err(Error::Unsupported("a raw log needs segment_mode Linear".to_owned()));
        }
        Log::start(config)
    }

    /// A place for `bytes`, copied into it. No I/O unless the current buffer is full.
    ///
    /// What exceeds one record ([`Log::record_bytes_max`]) becomes a blob: its parts are written here, and the
    /// place is that of the record that lists them. Parts of what is then not completed take room until they are
    /// released.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with `TooLarge` beyond [`Log::blob_bytes_max`] or if a log that recycles is full,
    /// with `DiskFull` if the file cannot grow (nothing is lost; try again with more space), or with
    /// `Poisoned` after a failed write.
    pub fn reserve(&self, bytes: impl AsRef<[u8]>) -> Result<Reservation<'_>, ()> {
        let bytes = bytes.as_ref();
        let _timing = self.shared.metrics.time(Work::Reserve);
        if bytes.len() > self.record_bytes_max() {
            return Ok(self.reserve_blob(bytes)?);
        }
        let mut inner = self.shared.log.reserve(blob::whole(), bytes.len())?;
        inner.payload().copy_from_slice(bytes);
        Ok(Reservation::new(self, inner))
    }

    /// Appends a record and returns where it is. It counts at once and is durable when its LSN is stable.
    ///
    /// # Errors
    ///
    /// As [`Log::reserve`].
    pub fn write(&self, bytes: impl AsRef<[u8]>) -> Result<(Lsn, DiskPtr), ()> {
        self.reserve(bytes)?.complete()
    }

    /// Makes everything that was reserved before the call durable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the device refused, now or earlier; [`Error::Unsupported`] if this thread holds
    /// a reservation.
    pub fn flush(&self) -> Result<(), ()> {
        let _timing = self.shared.metrics.time(Work::Flush);
        self.shared.log.flush()?;
        Ok(())
    }

    /// Waits until the record at `lsn` is durable; concurrent calls share one sync. Returns the
    /// highest durable position.
    ///
    /// # Errors
    ///
    /// As [`Log::flush`].
    pub fn make_stable(&self, lsn: Lsn) -> Result<Lsn, ()> {
        let _timing = self.shared.metrics.time(Work::Flush);
        Ok(self.shared.log.make_stable(lsn)? - 1)
    }

    /// The highest durable position.
    #[must_use]
    pub fn stable_lsn(&self) -> Lsn {
        self.shared.log.stable() - 1
    }

    /// The first position that is not durable yet: everything below it is.
    #[must_use]
    pub fn stable_offset(&self) -> Lsn {
        self.shared.log.stable()
    }

    /// The first position that may still be read.
    #[must_use]
    pub fn released_lsn(&self) -> Lsn {
        self.shared.log.released()
    }

    /// How often the parts of this log ran and how long they took, since it was opened; nothing unless
    /// [`crate::ConfigBuilder::timing`] is on.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.shared.metrics.profile()
    }

    /// Bytes of the log's file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.shared.log.file_bytes()
    }

    /// Most bytes that one record holds.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.shared.log.max_payload()
    }

    /// Reads the record at `lsn`, which [`Log::write`] said lies at `ptr`. What is in a buffer only is
    /// handed to the system first, and not synced.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`] if `lsn` and `ptr` do not belong together or the file ends before;
    /// [`Error::Unsupported`] if the position was released, or this thread holds a reservation; else
    /// [`Error::Io`].
    pub fn read(&self, lsn: Lsn, ptr: DiskPtr) -> Result<LogRead, ()> {
        let released = || Error::Unsupported(format!("the log was released beyond LSN {lsn}"));
        if lsn < self.released_lsn() {
            return Err(released());
        }
        self.shared.log.make_readable(lsn)?;
        if !self.shared.log.may_lie(lsn, ptr.lid()) {
            let found = format!("no record of LSN {lsn} can lie here");
            return Err(self.corrupt(ptr, found).into());
        }
        let reader = Reader::new(self.shared.root.salts());
        let read = reader.record(&self.shared.log, lsn, ptr.lid())?;
        let read = match read {
            log::Found::Record { pid, payload } => self.by_role(pid, lsn, payload, &reader)?,
            log::Found::Failed(len) => LogRead::Failed(lsn, len),
            log::Found::Pad => LogRead::Pad(lsn),
            log::Found::Invalid(len) => LogRead::Corrupted(len),
        };
        let first = match read {
            LogRead::Blob(_, _, first) | LogRead::DanglingBlob(_, first) => first,
            _ => lsn,
        };
        if first < self.released_lsn() {
            return Err(released());
        }
        match ptr {
            DiskPtr::Blob(_, named) if named != first && (read.is_successful() || first != lsn) => {
                Err(self.corrupt(ptr, format!("no blob of LSN {named} is listed here")).into())
            }
            _ => Ok(read),
        }
    }

    /// What a record that counts is to its reader.
    fn by_role(
        &self,
        pid: PageId,
        lsn: Lsn,
        payload: Vec<u8>,
        reader: &Reader,
    ) -> std::result::Result<LogRead, Failure> {
        let len = log::record_len(payload.len());
        let list = match Role::of(pid) {
            Some(Role::Whole) => return Ok(LogRead::Inline(lsn, payload, len)),
            Some(Role::List) => List::decode(&payload, lsn).ok(),
            Some(Role::Part) | None => None,
        };
        // No record of the user's starts here.
        let Some(list) = list else { return Ok(LogRead::Corrupted(len)) };
        Ok(match blob::read(&self.shared.log, reader, &list)? {
            Some(bytes) => LogRead::Blob(lsn, bytes, list.first()),
            None => LogRead::DanglingBlob(lsn, list.first()),
        })
    }

    /// Every record from `lsn` on that is stable now, in order. Aborted ones are stepped over.
    pub fn iter_from(&self, lsn: Lsn) -> LogIter<'_> {
        let reader = Reader::new(self.shared.root.salts());
        LogIter::new(&self.shared.log, Walk::new(&self.shared.log, reader, lsn))
    }

    /// Lets go of the records below `lsn`, as far as they are stable: segments that hold no others are
    /// used again. Durable when this returns. Records that share a segment with `lsn` stay readable, and so
    /// does all from the first part on of a blob at or above it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] in a log that is [`SegmentMode::Linear`]; else as [`Log::flush`].
    pub fn release(&self, lsn: Lsn) -> Result<(), ()> {
        if self.shared.mode == SegmentMode::Linear {
            return Err(Error::Unsupported("a linear log is never released".to_owned()));
        }
        self.check()?;
        let stable = self.shared.log.stable();
        let from = self.shared.log.segment_start(self.shared.kept.keep_from(lsn.min(stable)));
        if self.shared.root.release(from, stable, self.shared.log.durable_bytes())? {
            self.shared.log.release(from); // both superblocks are durable: RAW-1
            self.shared.kept.forget_below(from);
        }
        Ok(())
    }

    /// Makes everything durable and closes the log, telling what dropping it would not.
    ///
    /// # Errors
    ///
    /// As [`Log::flush`].
    pub fn close(self) -> Result<(), ()> {
        Ok(self.shut_down()?)
    }

    fn check(&self) -> std::result::Result<(), Failure> {
        self.shared.poison.check()
    }

    fn corrupt(&self, ptr: DiskPtr, found: String) -> Failure {
        let path = self.shared.storage.path(crate::io::FileId::Log);
        Failure::Corrupt { found, path, offset: ptr.lid() }
    }

    fn shut_down(&self) -> std::result::Result<(), Failure> {
        if self.shared.stopping.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if let Some(worker) = self.worker.lock().take() {
            worker.wake();
            worker.join();
        }
        let outcome = match self.shared.read_only {
            true => Ok(()),
            false => {
                let log = &self.shared.log;
                log.flush().and_then(|end| self.shared.root.close(end, log.durable_bytes()))
            }
        };
        self.shared.storage.unlock();
        if self.shared.prints_profile {
            eprint!("{}", self.profile());
        }
        outcome
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        let _ = self.shut_down();
    }
}

impl Shared {
    fn open(
        config: &Config,
        storage: &Arc<dyn Storage>,
        metrics: Metrics<Work>,
    ) -> std::result::Result<Arc<Shared>, Failure> {
        let poison = config.poison(storage);
        let sizes = |geometry: &superblock::Geometry| sizes(config, geometry);
        let Found { root, position, geometry, blobs } = Root::open(config, storage, &poison, sizes)?;
        let Geometry { segment_bytes, capacity_bytes, .. } = sizes(&geometry);
        let blob_room = capacity_bytes.saturating_sub(2 * segment_bytes as u64) / 2;
        let log = log::Log::new(storage.clone(), sizes(&geometry), poison.clone(), position)?;
        log.bound_turns(TURN_BYTES);
        let shared = Arc::new(Shared {
            log,
            root,
            kept: Kept::found(blobs.into_iter()),
            blob_room,
            storage: storage.clone(),
            poison,
            mode: config.inner.segment_mode,
            read_only: config.inner.read_only,
            prints_profile: config.inner.print_profile_on_drop,
            metrics,
            stopping: AtomicBool::new(false),
            worker: OnceLock::new(),
        });
        let host: Weak<Shared> = Arc::downgrade(&shared);
        shared.log.set_host(host);
        Ok(shared)
    }

    fn step(&self, last_flush: &mut Duration, every: Option<Duration>, now: Duration) -> Next {
        if self.poison.check().is_err() {
            return Next::WhenWoken;
        }
        // Failures poison the log or, on a full disk, leave it as it was: whoever writes is told.
        let _ = self.log.prepare();
        if every.is_some_and(|every| now.saturating_sub(*last_flush) >= every) {
            *last_flush = now;
            let _ = self.log.flush();
        }
        Next::After(every.unwrap_or(LOOK_EVERY_MAX).min(LOOK_EVERY_MAX))
    }
}

impl log::Host for Shared {
    fn settle(&self) -> std::result::Result<(), Failure> {
        self.root.settle()
    }

    fn epoch_salt(&self) -> std::result::Result<u64, Failure> {
        self.root.epoch_salt()
    }

    fn begin_epoch(&self, begun: &log::Begun) -> std::result::Result<(), Failure> {
        self.root.begin_epoch(begun, self.log.stable())
    }

    fn has_work(&self) {
        if let Some(worker) = self.worker.get() {
            worker.wake();
        }
    }

    /// Only the user knows what may go.
    fn truncate(&self) -> std::result::Result<(), Failure> {
        Ok(())
    }
}

fn sizes(config: &Config, geometry: &superblock::Geometry) -> log::Geometry {
    let settings = &config.inner;
    let segment_bytes = geometry.log_segment_bytes as usize;
    let capacity_bytes = match settings.segment_mode {
        SegmentMode::Linear => i64::MAX as u64 / 4, // the disk is the limit
        SegmentMode::Gc => settings.log_capacity.max(4 * segment_bytes as u64),
    };
    log::Geometry {
        block_bytes: geometry.block_bytes as usize,
        segment_bytes,
        buffer_bytes: segment_bytes,
        buffers: settings.log_buffers,
        capacity_bytes,
    }
}

fn start_background(
    config: &Config,
    shared: &Arc<Shared>,
    clock: Arc<dyn Clock>,
) -> std::result::Result<Box<dyn Worker>, Failure> {
    let settings = &config.inner;
    let every = settings.flush_every;
    let weak: Weak<Shared> = Arc::downgrade(shared);
    let mut last_flush = clock.now();
    let job = move || match weak.upgrade() {
        Some(shared) if !shared.stopping.load(Ordering::Acquire) => {
            shared.step(&mut last_flush, every, clock.now())
        }
        _ => Next::Done,
    };
    let spawner = settings.spawner.clone().unwrap_or_else(|| Arc::new(ThreadSpawner));
    let failed = |e| Failure::from_io("starting the background", std::path::PathBuf::new(), 0, 0, e);
    spawner.spawn("raw log", Box::new(job)).map_err(failed)
}
