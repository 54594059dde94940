//! Settings of a store, and the seams through which files, time and threads come in.
//!
//! [`ConfigBuilder::build`] checks every setting; what it finds is told by `PageCache::start`, since
//! the seed's `build` cannot fail.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    error::{Failure, Poison},
    event_log::EventLog,
    io::{Clock, FileId, FileStorage, Spawner, Storage, SystemClock, memory_bytes},
    mem::PageMemory,
    metrics::{Metrics, Work},
};

/// Smallest block: one sector.
const BLOCK_BYTES_MIN: usize = 512;
/// Largest block that the formats allow.
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// The largest memory that a store takes unasked.
const DEFAULT_MEMORY_MAX: u64 = 1 << 30;
/// The part of the machine's memory that a store takes unasked.
const DEFAULT_MEMORY_DIVISOR: u64 = 4;

fn default_memory() -> u64 {
    let machine = memory_bytes().unwrap_or(u64::MAX);
    (machine / DEFAULT_MEMORY_DIVISOR).min(DEFAULT_MEMORY_MAX)
}

/// What becomes of the segments of a log that is used alone ([`crate::Log`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentMode {
    /// Nothing is ever written over; the file grows with what is appended.
    Linear,
    /// Segments wholly below a released position are used again.
    #[default]
    Gc,
}

/// Settings of a store, made by a [`ConfigBuilder`]. Clones share the page memory and the seams.
#[derive(Clone)]
pub struct Config {
    pub(crate) inner: Arc<Settings>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) temporary: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) read_only: bool,
    /// `None` for what the machine suggests.
    pub(crate) cache_capacity: Option<u64>,
    pub(crate) flush_every: Option<Duration>,
    pub(crate) page_consolidation_threshold: usize,
    pub(crate) block_bytes: usize,
    pub(crate) log_segment_bytes: usize,
    pub(crate) log_buffers: usize,
    pub(crate) log_capacity: u64,
    pub(crate) checkpoint_every_bytes: u64,
    pub(crate) store_segment_bytes: usize,
    pub(crate) cleaning: bool,
    pub(crate) use_compression: bool,
    pub(crate) segment_mode: SegmentMode,
    pub(crate) timing: bool,
    pub(crate) event_log: Option<EventLog>,
    pub(crate) print_profile_on_drop: bool,
    pub(crate) storage: Option<Arc<dyn Storage>>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) spawner: Option<Arc<dyn Spawner>>,
    pub(crate) salt_seed: Option<u64>,
    pub(crate) memory: PageMemory,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("path", &self.inner.path)
            .field("temporary", &self.inner.temporary)
            .field("cache_capacity", &self.inner.cache_capacity)
            .finish_non_exhaustive()
    }
}

/// What becomes of what is written to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// It is read again soon: pages, and the log of a store when it is opened after a kill.
    ReadAgain,
    /// It is written in a stream and seldom read.
    Stream,
}

impl Config {
    /// The directory that holds the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Bytes of memory that the store may take, see [`ConfigBuilder::cache_capacity`].
    #[must_use]
    pub fn cache_capacity(&self) -> u64 {
        self.inner.cache_capacity.unwrap_or_else(default_memory)
    }

    /// The memory that page buffers of this store come from.
    #[must_use]
    pub fn page_memory(&self) -> &PageMemory {
        &self.inner.memory
    }

    /// The files, locked: those that the settings bring, a fresh directory, or the path.
    pub(crate) fn lock_storage(&self, traffic: Traffic) -> Result<Arc<dyn Storage>, Failure> {
        let storage = self.open_storage(traffic)?;
        let locked = if self.inner.read_only { storage.lock_shared() } else { storage.lock() };
        locked.map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => {
                let (path, holder) = (storage.path(FileId::Pages), storage.lock_holder());
                Failure::Locked { path, holder }
            }
            _ => Failure::from_io("locking the store", storage.path(FileId::Pages), 0, 0, e),
        })?;
        Ok(storage)
    }

    /// Where time comes from.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()))
    }

    /// The measurements of a store that is about to be opened.
    pub(crate) fn metrics(&self, clock: &Arc<dyn Clock>) -> Metrics<Work> {
        Metrics::new(self.inner.timing || self.inner.print_profile_on_drop, clock)
    }

    /// What stops every write: nothing yet, or that the settings allow none.
    pub(crate) fn poison(&self, storage: &Arc<dyn Storage>) -> Arc<Poison> {
        Arc::new(match self.inner.read_only {
            true => Poison::read_only(storage.path(FileId::Pages)),
            false => Poison::default(),
        })
    }

    /// Refuses to make a store at `path` if the settings do.
    pub(crate) fn may_create(&self, path: &Path) -> Result<(), Failure> {
        let settings = &self.inner;
        if settings.create && !settings.read_only {
            return Ok(());
        }
        Err(Failure::Unsupported { what: format!("there is no store at {}", path.display()) })
    }

    fn open_storage(&self, traffic: Traffic) -> Result<Arc<dyn Storage>, Failure> {
        let settings = &self.inner;
        if let Some(storage) = &settings.storage {
            return Ok(storage.clone());
        }
        let refused = |path: &Path, e| Failure::from_io("opening the directory", path.to_path_buf(), 0, 0, e);
        let temporary = std::env::temp_dir();
        let (path, opened) = match (settings.temporary, settings.read_only) {
            (true, _) => (&temporary, FileStorage::temporary()),
            (false, true) => (&settings.path, FileStorage::open_read_only(&settings.path)),
            (false, false) => (&settings.path, FileStorage::open(&settings.path, settings.create)),
        };
        let storage = opened.map_err(|e| refused(path, e))?;
        Ok(match traffic {
            Traffic::ReadAgain => Arc::new(storage),
            Traffic::Stream => Arc::new(storage.past_cache()),
        })
    }

    /// Refuses settings that cannot work, naming the setting and its range.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let s = &*self.inner;
        let block = s.block_bytes;
        let rules = [
            (
                block.is_power_of_two() && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block),
                "block_bytes must be a power of two from 512 to 65536",
            ),
            (
                s.log_segment_bytes.is_multiple_of(block) && s.log_segment_bytes >= 4 * block,
                "log_segment_bytes must be a multiple of block_bytes and at least four blocks",
            ),
            (s.log_segment_bytes <= 1 << 30, "log_segment_bytes must be at most 1 GiB"),
            (
                s.log_buffers.is_power_of_two() && s.log_buffers >= 2,
                "log_buffers must be a power of two from 2 on",
            ),
            (
                s.log_capacity >= 4 * s.log_segment_bytes as u64,
                "log_capacity must hold at least four log segments",
            ),
            (
                s.checkpoint_every_bytes > 0 && s.checkpoint_every_bytes <= s.log_capacity * 3 / 4,
                "checkpoint_every_bytes must be from 1 to three quarters of log_capacity",
            ),
            (
                s.store_segment_bytes.is_multiple_of(block) && s.store_segment_bytes >= 4 * block,
                "store_segment_bytes must be a multiple of block_bytes and at least four blocks",
            ),
            (s.store_segment_bytes <= 1 << 30, "store_segment_bytes must be at most 1 GiB"),
            (s.page_consolidation_threshold >= 1, "page_consolidation_threshold must be at least 1"),
            (s.cache_capacity != Some(0), "cache_capacity must be at least 1 byte"),
            (
                !(s.read_only && (s.temporary || s.create_new)),
                "read_only opens what is there: it excludes temporary and create_new",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(Failure::Unsupported { what: (*rule).to_owned() }),
        }
    }
}

/// Chooses settings one by one; each call returns the builder.
///
/// Settings of `pagecache` 0.8.1 that have another name here, or none, and why:
///
/// | 0.8.1 | here |
/// |---|---|
/// | `io_bufs` | [`ConfigBuilder::log_buffers`] |
/// | `io_buf_size` | [`ConfigBuilder::log_segment_bytes`]; pages lie in segments of their own, [`ConfigBuilder::store_segment_bytes`], because changes live short and pages long |
/// | `snapshot_after_ops` | [`ConfigBuilder::checkpoint_every_bytes`]: what a crash costs is bytes of log, not calls |
/// | `snapshot_path` | none: a checkpoint lies in the `pages` file, and is published with what it refers to |
/// | `cache_bits` | none: no list of recently used pages, so no shards of one |
/// | `segment_cleanup_threshold`, `segment_cleanup_skew` | none: the file is held to a fixed part of what is alive in it |
/// | `blink_node_split_size` | a setting of the tree, which alone knows nodes |
/// | `merge_operator` | none: what merges fragments is the [`crate::Materializer`], given at each open |
/// | `idgen_persist_interval` | none: ids are the tree's business |
///
/// Nothing of this is persisted but what is fixed when a store is made.
///
/// ```
/// let config = pagecache::ConfigBuilder::new().temporary(true).cache_capacity(64 << 20).build();
/// assert_eq!(config.cache_capacity(), 64 << 20);
/// ```
#[derive(Clone)]
pub struct ConfigBuilder {
    settings: Settings,
}

impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder").field("path", &self.settings.path).finish_non_exhaustive()
    }
}

impl Default for ConfigBuilder {
    fn default() -> ConfigBuilder {
        ConfigBuilder::new()
    }
}

impl ConfigBuilder {
    /// Starts from the defaults.
    #[must_use]
    pub fn new() -> ConfigBuilder {
        ConfigBuilder {
            settings: Settings {
                path: PathBuf::from("default.db"),
                temporary: false,
                create: true,
                create_new: false,
                read_only: false,
                cache_capacity: None,
                flush_every: Some(Duration::from_millis(500)),
                page_consolidation_threshold: 5,
                block_bytes: 4096,
                log_segment_bytes: 2 << 20,
                log_buffers: 4,
                log_capacity: 128 << 20,
                checkpoint_every_bytes: 24 << 20,
                store_segment_bytes: 1 << 20,
                cleaning: true,
                use_compression: false,
                segment_mode: SegmentMode::Gc,
                timing: false,
                event_log: None,
                print_profile_on_drop: false,
                storage: None,
                clock: None,
                spawner: None,
                salt_seed: None,
                memory: PageMemory::new(),
            },
        }
    }

    /// Checks the settings and seals them. A setting out of its range is told by `start`.
    #[must_use]
    pub fn build(self) -> Config {
        Config { inner: Arc::new(self.settings) }
    }

    /// Directory of the store. Default: `default.db`.
    #[must_use]
    pub fn path<P: AsRef<Path>>(mut self, path: P) -> ConfigBuilder {
        self.settings.path = path.as_ref().to_path_buf();
        self
    }

    /// Keeps the store in a fresh directory that goes away when the store is dropped. Default: false.
    #[must_use]
    pub fn temporary(mut self, temporary: bool) -> ConfigBuilder {
        self.settings.temporary = temporary;
        self
    }

    /// Makes the store where there is none. Default: true.
    #[must_use]
    pub fn create(mut self, create: bool) -> ConfigBuilder {
        self.settings.create = create;
        self
    }

    /// Refuses to open a store that is already there. Default: false.
    #[must_use]
    pub fn create_new(mut self, create_new: bool) -> ConfigBuilder {
        self.settings.create_new = create_new;
        self
    }

    /// Opens a store that is there for reading alone. Default: false. May change at each open.
    ///
    /// Nothing is written, synced, cut or made, and no permission to do so is needed. A store that was
    /// killed is shown as a writer would recover it, its log's tail replayed in memory; until a writer has
    /// opened it, what that tail shows may not be on the device yet. Every write is refused with
    /// [`Failure::ReadOnly`]. Several may read at one time, and while they do nobody may write: segments
    /// that a writer uses again would vanish under who reads. The tail's
    /// changes stay in memory whatever `cache_capacity` says.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> ConfigBuilder {
        self.settings.read_only = read_only;
        self
    }

    /// Bytes of memory for the store: pages and their changes in memory, former pages that somebody still
    /// reads, the page table, the log's buffers, what is being read or written. Pages get what the others
    /// leave, but half at least, so a few mebibytes come on top where it is tiny. Default: a quarter of the
    /// machine's memory, or of what its control group allows, and at most 1 GiB. May change at each open.
    ///
    /// The process takes more by its code and by what its threads allocate for a moment, 32 MiB at most.
    #[must_use]
    pub fn cache_capacity(mut self, bytes: u64) -> ConfigBuilder {
        self.settings.cache_capacity = Some(bytes);
        self
    }

    /// Milliseconds after which a write is durable without being asked for; `None` for never.
    /// Default: 500. May change at each open.
    #[must_use]
    pub fn flush_every_ms(mut self, every: Option<u64>) -> ConfigBuilder {
        self.settings.flush_every = every.map(Duration::from_millis);
        self
    }

    /// Fragments of a page above which a writer consolidates it in memory. Default: 5.
    #[must_use]
    pub fn page_consolidation_threshold(mut self, fragments: usize) -> ConfigBuilder {
        self.settings.page_consolidation_threshold = fragments;
        self
    }

    /// Bytes that the device writes as a whole. Default: 4096. Fixed when the store is made.
    #[must_use]
    pub fn block_bytes(mut self, bytes: usize) -> ConfigBuilder {
        self.settings.block_bytes = bytes;
        self
    }

    /// Bytes of a log segment, which bounds the size of one change; a batch beyond it is written in
    /// parts. Default: 2 MiB. Fixed when the store is made.
    #[must_use]
    pub fn log_segment_bytes(mut self, bytes: usize) -> ConfigBuilder {
        self.settings.log_segment_bytes = bytes;
        self
    }

    /// Buffers between writers and the log, each of one log segment at most. Default: 4.
    #[must_use]
    pub fn log_buffers(mut self, buffers: usize) -> ConfigBuilder {
        self.settings.log_buffers = buffers;
        self
    }

    /// Bytes that the log may take on disk; when it is full, writers wait for a checkpoint. Default:
    /// 128 MiB. May change at each open.
    #[must_use]
    pub fn log_capacity(mut self, bytes: u64) -> ConfigBuilder {
        self.settings.log_capacity = bytes;
        self
    }

    /// The log's tail, which an open after a crash reads, grows to four times as many bytes; then a
    /// checkpoint in the background takes half as many off it. A tail has three quarters of `log_capacity` at
    /// most; writers that outrun the checkpoint slow down before the log is full. Default: 24 MiB. May change at each open.
    ///
    /// A page is written back when its oldest change is about to leave the tail, so a longer one gathers more
    /// changes of a page for each time that it is written.
    #[must_use]
    pub fn checkpoint_every_bytes(mut self, bytes: u64) -> ConfigBuilder {
        self.settings.checkpoint_every_bytes = bytes;
        self
    }

    /// Bytes of a segment of the `pages` file. Default: 1 MiB. Fixed when the store is made.
    #[must_use]
    pub fn store_segment_bytes(mut self, bytes: usize) -> ConfigBuilder {
        self.settings.store_segment_bytes = bytes;
        self
    }

    /// Whether pages are packed with LZ4 as they are written to the `pages` file, each by itself and only where
    /// that makes it shorter. Default: false. May change at each open: a store opens whatever it says, and what
    /// is packed stays so until it is written anew. Log records and large values stay plain.
    ///
    /// The file of values that repeat themselves gets shorter, and as much less is written and cleaned; a page
    /// that is not in memory takes a few microseconds more to read, and one to be written more than that (`cargo
    /// run --release -p benches --bin packing` measures both). Versions before this setting refuse a store that
    /// was opened with it.
    #[must_use]
    pub fn use_compression(mut self, to: bool) -> ConfigBuilder {
        self.settings.use_compression = to;
        self
    }

    /// Kept for programs that set it: LZ4 has one level here.
    #[must_use]
    pub fn compression_factor(self, _to: i32) -> ConfigBuilder {
        self
    }

    /// Whether garbage in the `pages` file is moved together while the store runs. Default: true.
    /// Without it the file has no bound but that of a close; it is there to measure what cleaning costs.
    #[doc(hidden)]
    #[must_use]
    pub fn cleaning(mut self, cleaning: bool) -> ConfigBuilder {
        self.settings.cleaning = cleaning;
        self
    }

    /// Whether a log that is used alone may use its segments again. Default: [`SegmentMode::Gc`]. May
    /// change at each open; a page cache always recycles its log.
    #[must_use]
    pub fn segment_mode(mut self, mode: SegmentMode) -> ConfigBuilder {
        self.settings.segment_mode = mode;
        self
    }

    /// Measures how often the parts of the store run and how long they take, for
    /// [`crate::PageCache::profile`]. Default: false. May change at each open.
    ///
    /// Each measured step then costs two looks at the clock; without it, a comparison with null (`cargo run
    /// --release -p benches --bin metrics` measures both). Takes half a mebibyte of memory.
    #[must_use]
    pub fn timing(mut self, timing: bool) -> ConfigBuilder {
        self.settings.timing = timing;
        self
    }

    /// Prints what was measured to standard error when the store is closed or dropped; switches
    /// [`ConfigBuilder::timing`] on. Default: false. May change at each open.
    #[must_use]
    pub fn print_profile_on_drop(mut self, print: bool) -> ConfigBuilder {
        self.settings.print_profile_on_drop = print;
        self
    }

    /// Writes down at a close, and at each flush, what the next open with the same log must find: pages
    /// and where they lie, live bytes of segments, the log's end, the value that is recovered. An open
    /// that finds anything else is refused with [`Failure::Bug`]. For tests: it reads every page.
    #[must_use]
    pub fn event_log(mut self, events: EventLog) -> ConfigBuilder {
        self.settings.event_log = Some(events);
        self
    }

    /// Gives the store page memory of its own. Builders start with one; clones of a builder share it.
    #[must_use]
    pub fn fresh_memory(mut self) -> ConfigBuilder {
        self.settings.memory = PageMemory::new();
        self
    }

    /// Where the bytes live, in place of files in `path`.
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> ConfigBuilder {
        self.settings.storage = Some(storage);
        self
    }

    /// Where time comes from, in place of the system's monotonic clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> ConfigBuilder {
        self.settings.clock = Some(clock);
        self
    }

    /// Where background work runs, in place of threads.
    #[must_use]
    pub fn spawner(mut self, spawner: Arc<dyn Spawner>) -> ConfigBuilder {
        self.settings.spawner = Some(spawner);
        self
    }

    /// Makes salts and the store's identity from this number instead of the system's randomness, so
    /// that a simulation repeats exactly. Never use it for a store that matters: equal salts let an
    /// old record pass for a new one.
    #[must_use]
    pub fn salt_seed(mut self, seed: u64) -> ConfigBuilder {
        self.settings.salt_seed = Some(seed);
        self
    }
}
