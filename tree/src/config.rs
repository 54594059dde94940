//! Settings of a database, with sled's names.

use std::path::{Path, PathBuf};

use pagecache::ConfigBuilder;

use crate::{
    Db, Result,
    ops::{DEPTH_END, INLINE_BYTES_MAX, LEAF_BYTES_MAX},
};

/// What a database optimizes for; kept for programs written for sled, without effect here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Little space.
    LowSpace,
    /// High throughput.
    HighThroughput,
}

/// Settings of a database.
///
/// ```
/// let db = tree::Config::new().temporary(true).cache_capacity(64 << 20).open()?;
/// db.insert("key", "value")?;
/// # Ok::<(), tree::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    builder: ConfigBuilder,
    path: PathBuf,
    create: bool,
    pub(crate) read_only: bool,
    pub(crate) timing: bool,
    pub(crate) print_profile: bool,
    pub(crate) leaf_bytes_max: usize,
    pub(crate) inline_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

impl Config {
    /// The least memory that a database works with: below it each page is read and written again for nearly
    /// every call.
    pub const CACHE_CAPACITY_MIN: u64 = 1 << 20;

    /// The defaults: `default.db`, a quarter of the machine's memory but at most 1 GiB, a flush every 500 ms.
    #[must_use]
    pub fn new() -> Config {
        Config {
            // Chains are made short by the tree itself, up to this length.
            builder: ConfigBuilder::new().page_consolidation_threshold(DEPTH_END),
            path: PathBuf::from("default.db"),
            create: true,
            read_only: false,
            timing: false,
            print_profile: false,
            leaf_bytes_max: LEAF_BYTES_MAX,
            inline_bytes_max: INLINE_BYTES_MAX,
        }
    }

    /// Directory of the database. Default: `default.db`.
    #[must_use]
    pub fn path<P: AsRef<Path>>(mut self, path: P) -> Config {
        self.path = path.as_ref().to_path_buf();
        self.with(|builder| builder.path(path))
    }

    /// Bytes of memory for the database, all of it: pages and changes in memory, what readers and iterators
    /// hold, the page table, the log's buffers, what is being read or written. [`Stats::memory_owners`](crate::Stats::memory_owners)
    /// tells who has it. Pages get what the others leave, but half at least. Default: a quarter of the
    /// machine's memory, or of what its control group allows, and at most 1 GiB. Less than
    /// [`Config::CACHE_CAPACITY_MIN`] counts as that much. May change at each open.
    #[must_use]
    pub fn cache_capacity(self, to: u64) -> Config {
        self.cache_capacity_unchecked(to.max(Config::CACHE_CAPACITY_MIN))
    }

    /// As [`Config::cache_capacity`], however little it is, for tests that want pages to come and go.
    #[doc(hidden)]
    #[must_use]
    pub fn cache_capacity_unchecked(self, to: u64) -> Config {
        self.with(|builder| builder.cache_capacity(to))
    }

    /// Milliseconds after which a write is durable without being asked for; `None` for never.
    /// Default: 500. May change at each open.
    #[must_use]
    pub fn flush_every_ms(self, every: Option<u64>) -> Config {
        self.with(|builder| builder.flush_every_ms(every))
    }

    /// Keeps the database in a fresh directory that goes away when it is dropped. Default: false.
    #[must_use]
    pub fn temporary(self, to: bool) -> Config {
        self.with(|builder| builder.temporary(to))
    }

    /// Refuses to open a database that is already there. Default: false.
    #[must_use]
    pub fn create_new(self, to: bool) -> Config {
        self.with(|builder| builder.create_new(to))
    }

    /// Makes the database where there is none. Default: true.
    #[must_use]
    pub fn create(mut self, to: bool) -> Config {
        self.create = to;
        self.with(|builder| builder.create(to))
    }

    /// Opens a database that is there for reading alone. Default: false. May change at each open.
    ///
    /// Nothing is written, synced, cut or made, and no permission to do so is needed; every write is
    /// refused with [`crate::Error::ReadOnly`]. A database that was killed is shown as a writer would
    /// recover it, though until one has opened it the last of that may not be on the device. Several may
    /// read at one time, and while they do nobody may write; beside a writer the open is refused with
    /// [`crate::Error::Locked`].
    #[must_use]
    pub fn read_only(mut self, to: bool) -> Config {
        self.read_only = to;
        self.with(|builder| builder.read_only(to))
    }

    /// Kept for programs written for sled; there is one mode.
    #[must_use]
    pub fn mode(self, _mode: Mode) -> Config {
        self
    }

    /// Whether pages are packed with LZ4 as they are written, each by itself and only where that makes it
    /// shorter. Default: false. May change at each open: a database opens whatever it says.
    ///
    /// Where values repeat themselves the file gets shorter, and as much less is written; a page that is not
    /// in memory takes a little longer to read. Versions before this setting refuse a database that was opened
    /// with it. The log and large values stay plain.
    #[must_use]
    pub fn use_compression(self, to: bool) -> Config {
        self.with(|builder| builder.use_compression(to))
    }

    /// Kept for programs written for sled: LZ4 has one level here.
    #[must_use]
    pub fn compression_factor(self, _to: i32) -> Config {
        self
    }

    /// Measures how often calls and the parts of the page cache run and how long they take, for
    /// [`Db::profile`]. Default: false. May change at each open.
    ///
    /// Each measured step then costs two looks at the clock; without it, a comparison with null (`cargo run
    /// --release -p benches --bin metrics` measures both).
    #[must_use]
    pub fn timing(mut self, to: bool) -> Config {
        self.timing = to || self.print_profile;
        self.with(|builder| builder.timing(to))
    }

    /// Prints what was measured to standard error when the last handle goes; switches
    /// [`Config::timing`] on. Default: false. May change at each open.
    #[must_use]
    pub fn print_profile_on_drop(mut self, to: bool) -> Config {
        self.print_profile = to;
        self.timing |= to;
        self.with(|builder| builder.print_profile_on_drop(to))
    }

    /// Settings of the page cache below, for tests and tools.
    #[doc(hidden)]
    #[must_use]
    pub fn page_cache(self, set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Config {
        self.with(set)
    }

    /// Bytes above which a leaf is split, for tests that want many pages of few records.
    #[doc(hidden)]
    #[must_use]
    pub fn leaf_bytes_max(mut self, bytes: usize) -> Config {
        self.leaf_bytes_max = bytes.max(64);
        self
    }

    /// Bytes above which a value lives in a page of its own, for tests and tools.
    #[doc(hidden)]
    #[must_use]
    pub fn inline_bytes_max(mut self, bytes: usize) -> Config {
        self.inline_bytes_max = bytes.max(32);
        self
    }

    fn with(mut self, set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Config {
        self.builder = set(self.builder);
        self
    }

    /// Opens the database, or makes it.
    ///
    /// Takes time proportional to the log that pages still lack, about four times
    /// `checkpoint_every_bytes` of it; after a clean close nothing is replayed or written.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Locked`] if it is open elsewhere, [`crate::Error::Corruption`] naming file and offset of
    /// damage, [`crate::Error::Io`] for the rest.
    pub fn open(&self) -> Result<Db> {
        Db::start(self)
    }

    /// The page cache's settings, with page memory of its own for this open.
    pub(crate) fn page_cache_config(&self) -> pagecache::Config {
        self.builder.clone().fresh_memory().build()
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn too_little_memory_counts_as_the_least_that_works() {
        for (asked, got) in [(0, 1 << 20), (1, 1 << 20), (64 << 10, 1 << 20), (3 << 20, 3 << 20)] {
            let db = Config::new().temporary(true).cache_capacity(asked).open().unwrap();
            assert_eq!(db.stats().memory_budget_bytes(), got, "{asked}");
        }
    }
}
