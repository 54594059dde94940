//! [`Db`]: an open store and its trees; [`Tree`]: an ordered map from byte strings to byte strings.

use std::{ops::Deref, path::Path, sync::Arc};

use pagecache::{
    Admission, Failure, PageId, PagePtr,
    io::{Clock, SystemClock},
    metrics::{Metrics, Profile},
    pin,
};

use crate::{
    Config, Error, IVec, Result,
    materializer::{CATALOGUE_PAGE, Root},
    metrics::{Call, PrintsOnDrop},
    node::{Frag, Node},
    ops::{Core, Pages, Tended},
};

/// The name of the tree that a [`Db`] is when used as one; sled's.
const DEFAULT_TREE: &[u8] = b"__sled__default";
/// The catalogue's own number in tallies; trees count from 1.
const CATALOGUE_ID: u64 = 0;

/// How durable a write is when the call that made it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// In the process's memory: a crash of the process may lose it. A background flush makes it
    /// durable within `flush_every_ms`.
    #[default]
    None,
    /// With the operating system: it survives the process, not the machine.
    Buffered,
    /// On the device: it survives any crash.
    Sync,
}

/// Opens the database at `path`, or makes it, with default settings.
///
/// # Errors
///
/// As [`Config::open`].
pub fn open<P: AsRef<Path>>(path: P) -> Result<Db> {
    Config::new().path(path).open()
}

/// An open database. Clones are handles to the same one; the last to go closes it.
///
/// It is used as its default [`Tree`] too.
#[derive(Debug, Clone)]
pub struct Db {
    tree: Tree,
}

impl Deref for Db {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl Db {
    pub(crate) fn start(config: &Config) -> Result<Db> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Metrics::new(config.timing, &clock);
        let pages = Arc::new(Pages::open(config.page_cache_config())?);
        let catalogue = match pages.recovered_state() {
            Some(root) => Core {
                root: PageId::try_from(root.catalogue).map_err(|_| damaged_root(&pages, root))?,
                id: CATALOGUE_ID,
                leaf_bytes_max: config.leaf_bytes_max,
                pages: Tended::by_writers(pages.clone()),
                inline_bytes_max: config.inline_bytes_max,
            },
            None if config.read_only => {
                let path = pages.path();
                let what = format!("{} holds no database yet; open it to write first", path.display());
                return Err(Error::Unsupported(what));
            }
            None => create(&pages, config)?,
        };
        let root = default_root(&catalogue)?;
        drop(catalogue);
        let pages = Tended::by_a_thread(pages, config.leaf_bytes_max)?;
        let Config { leaf_bytes_max, inline_bytes_max, .. } = *config;
        let core = Core { pages, id: 1, root, leaf_bytes_max, inline_bytes_max };
        let prints = config.print_profile.then(|| Arc::new(PrintsOnDrop(metrics.clone())));
        let tree = Tree { core, name: IVec::from(DEFAULT_TREE), metrics, _prints: prints };
        Ok(Db { tree })
    }

    /// True if the database was there before it was opened.
    #[must_use]
    pub fn was_recovered(&self) -> bool {
        self.core.pages.was_recovered()
    }

    /// Bytes of the database's files.
    ///
    /// # Errors
    ///
    /// None today; sled's signature.
    pub fn size_on_disk(&self) -> Result<u64> {
        let stats = self.core.pages.stats();
        Ok(stats.log_file_bytes + stats.pages_file_bytes)
    }

    /// Sizes and counts of this database.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { pages: self.core.pages.stats() }
    }

    /// How often the calls on this database, and the parts of the page cache below, ran and how long they
    /// took, since it was opened; nothing unless [`Config::timing`] is on. `{}` prints it as a table.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.metrics.profile().and(self.core.pages.profile())
    }

    /// Makes everything so far part of a checkpoint, so that the next open replays nothing of it.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] changes nothing; any other refusal poisons the database.
    pub fn checkpoint(&self) -> Result<()> {
        self.core.pages.checkpoint().map_err(from_page_error)
    }

    /// Moves what is alive in the `pages` file together and gives the rest of it back, while the
    /// database stays open: the file is then within a few percent of what is alive, and a few blocks.
    ///
    /// Copies up to all that is alive, an eighth at a time; readers and writers go on meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Db::checkpoint`].
    pub fn compact(&self) -> Result<()> {
        self.core.pages.compact().map_err(from_page_error)
    }

    /// Compares every page with what an open would make of the files: for tests.
    ///
    /// # Errors
    ///
    /// [`Error::ReportableBug`] names what differs.
    #[doc(hidden)]
    pub fn verify_checkpoint(&self) -> Result<pagecache::Verified> {
        self.core.pages.verify_checkpoint().map_err(from_page_error)
    }

    /// Looks at every page of the tree, which nobody may write to meanwhile; returns how many there are on each
    /// level, the leaves first: for tests.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`] if two of them do not fit together.
    #[doc(hidden)]
    pub fn shape(&self) -> Result<Vec<u64>> {
        Ok(self.core.shape()?)
    }

    /// Counts the live bytes of the `pages` file anew and compares: for tests.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`] if they were miscounted.
    #[doc(hidden)]
    pub fn recount(&self) -> Result<()> {
        self.core.pages.recount().map_err(from_page_error)
    }

    /// Closes the database: everything is durable, the files are small, and the next open replays
    /// nothing. Other handles to it must be gone.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if other handles or iterators are still there, which then keep it open;
    /// [`Error::Io`] names what could not be written, and what was durable before stays durable.
    pub fn close(self) -> Result<()> {
        let Db { tree: Tree { core: Core { pages, .. }, .. } } = self;
        match Arc::into_inner(pages).and_then(Tended::into_pages) {
            Some(pages) => pages.close().map_err(from_page_error),
            None => Err(Error::Unsupported(
                "close: other handles or iterators of this database are still in use; drop them first"
                    .to_owned(),
            )),
        }
    }
}

/// Sizes and counts of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pages: pagecache::Stats,
}

impl Stats {
    /// Bytes of pages in memory.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.pages.resident_bytes as u64
    }

    /// Bytes of memory that the database may take: [`crate::Config::cache_capacity`].
    #[must_use]
    pub fn memory_budget_bytes(&self) -> u64 {
        self.pages.memory_budget_bytes as u64
    }

    /// Bytes of memory that the database takes, all owners together.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.pages.memory.total() as u64
    }

    /// Every owner of the database's memory by name, with its bytes: `pages` in memory, `retired` ones that
    /// some reader may still see, what `callers` hold, `unused` page memory, the page `table`, the `places`
    /// of pages on disk, buffers of the `log`, and what is `in_flight` to or from the disk.
    pub fn memory_owners(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.pages.memory.named().into_iter().map(|(name, bytes)| (name, bytes as u64))
    }

    /// Bytes of page memory in use: pages, and what readers still hold of former ones.
    #[must_use]
    pub fn page_memory_bytes(&self) -> u64 {
        self.pages.page_memory_bytes as u64
    }

    /// Bytes of the log that an open after a crash would replay.
    #[must_use]
    pub fn log_tail_bytes(&self) -> u64 {
        self.pages.log_tail_bytes
    }

    /// Bytes of the `log` file.
    #[must_use]
    pub fn log_file_bytes(&self) -> u64 {
        self.pages.log_file_bytes
    }

    /// Bytes of the `pages` file.
    #[must_use]
    pub fn pages_file_bytes(&self) -> u64 {
        self.pages.pages_file_bytes
    }

    /// Bytes in the `pages` file that are reachable.
    #[must_use]
    pub fn pages_live_bytes(&self) -> u64 {
        self.pages.pages_live_bytes
    }

    /// Bytes written to the `pages` file since the database was opened, by what they were written for:
    /// `images` of whole pages, `delta_pages` with what changed of them, what cleaning `moved`, pieces of large
    /// `values`, and the page `table`. What is written to the log is the advance of [`Tree::durable_lsn`].
    pub fn pages_written_bytes(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.pages.written.named().into_iter()
    }

    /// Pages of the trees, inner and leaf.
    #[must_use]
    pub fn pages(&self) -> u64 {
        (self.pages.pages - self.pages.free_pages) as u64
    }
}

/// The pages of a new database, in one batch: all of them are there, or none.
fn create(pages: &Arc<Pages>, config: &Config) -> Result<Core> {
    let guard = pin();
    let memory = pages.materializer().memory();
    let fresh = || pages.allocate(&guard).map_err(from_page_error);
    // Ids come in any order if an earlier try was given up, as on a full disk.
    let mut ids = [fresh()?, fresh()?, fresh()?];
    ids.sort_unstable();
    let [meta, catalogue, root] = ids;
    if meta != CATALOGUE_PAGE {
        return Err(Error::ReportableBug(format!("a new database begins with page {meta}")));
    }
    let unfit = |error: crate::node::NodeError| Error::ReportableBug(error.0);
    let number = (root as u64).to_le_bytes();
    let names = Node::leaf(memory, &[], None, None, [(DEFAULT_TREE, &number[..])]).map_err(unfit)?;
    let leaf = Node::empty_leaf(memory).map_err(unfit)?;
    let mut batch = pages.begin_batch(Admission::default())?;
    let allocated = PagePtr::allocated;
    batch.replace(meta, allocated(), Frag::Catalogue { root: catalogue }, &guard).map_err(from_page_error)?;
    batch.replace(catalogue, allocated(), Frag::Node(names), &guard).map_err(from_page_error)?;
    batch.replace(root, allocated(), Frag::Node(leaf), &guard).map_err(from_page_error)?;
    batch.apply()?;
    let pages = Tended::by_writers(pages.clone());
    let Config { leaf_bytes_max, inline_bytes_max, .. } = *config;
    Ok(Core { pages, id: CATALOGUE_ID, root: catalogue, leaf_bytes_max, inline_bytes_max })
}

fn default_root(catalogue: &Core) -> Result<PageId> {
    let found = catalogue.get_with(DEFAULT_TREE, |value| value.map(<[u8]>::to_vec))?;
    let number = found.as_deref().and_then(<[u8]>::first_chunk).map(|bytes| u64::from_le_bytes(*bytes));
    match number.and_then(|number| PageId::try_from(number).ok()) {
        Some(root) => Ok(root),
        None => Err(Failure::Corrupt {
            found: "the catalogue does not name the default tree".to_owned(),
            path: catalogue.pages.path(),
            offset: 0,
        }
        .into()),
    }
}

fn damaged_root(pages: &Pages, root: Root) -> Error {
    Failure::Corrupt { found: format!("page {} cannot be", root.catalogue), path: pages.path(), offset: 0 }
        .into()
}

/// An error of the page cache where no race can be lost.
pub(crate) fn from_page_error<A>(error: pagecache::Error<A>) -> Error {
    match error {
        pagecache::Error::Io(failure) | pagecache::Error::Corruption { what: failure, .. } => failure.into(),
        pagecache::Error::Unsupported(what) => Error::Unsupported(what),
        pagecache::Error::ReportableBug(what) => Error::ReportableBug(what),
        _ => Error::ReportableBug("a lost race where none can be".to_owned()),
    }
}

/// An ordered map from keys to values, both byte strings. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(crate) core: Core,
    pub(crate) name: IVec,
    pub(crate) metrics: Metrics<Call>,
    _prints: Option<Arc<PrintsOnDrop>>,
}
