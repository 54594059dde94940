//! The page cache: the public face over everything below.
//!
//! Changes go through [`install`], several at once through [`batch`], reads through [`read`]; opening
//! and closing is here, what runs behind is [`background`]'s business.

mod admission;
mod background;
mod batch;
mod gate;
mod install;
mod large;
mod oracle;
mod owners;
mod pace;
mod page_ptr;
mod read;
mod run;
mod shared;
mod snapshot;
mod values;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

pub use admission::Admission;
pub use batch::{Batch, Verdict};
pub use oracle::Verified;
pub use owners::MemoryOwners;
pub use page_ptr::{FragState, PageGet, PagePtr, PageView, View};
pub use shared::Stats;
pub use snapshot::Snapshot;
pub use values::{NewValue, UnsyncedValue, ValueId, ValueReader};

use self::{
    install::{Outcome, frag_of},
    shared::Shared,
};
use crate::{
    config::Config,
    error::{Failure, Result},
    ids::{Lsn, PageId},
    io::{Job, Worker},
    materializer::Materializer,
    metrics::{Profile, Work},
    page::chain::Body,
    reclaim::Guard,
};

/// How often a change that finds the log full is tried again, and the time between two tries: five
/// seconds in all, far more than any batch takes.
const LOG_TRIES_MAX: u32 = 5000;
const LOG_PAUSE: Duration = Duration::from_millis(1);

/// Part of the memory for pages that callers may hold on loan.
const LENT_DIVISOR: usize = 8;

/// A latch-free page cache on log-structured storage.
///
/// Pages are made of fragments: a base and changes to it, united by a [`Materializer`]. Every change
/// is one record in the log and one compare-and-swap in memory; no lock is taken.
///
/// # Working with the `PageCache`
///
/// ```
/// use pagecache::{pin, Materializer};
///
/// pub struct TestMaterializer;
///
/// impl Materializer for TestMaterializer {
///     // The possibly fragmented page, written to log storage sequentially, and
///     // read in parallel from multiple locations on disk when serving
///     // a request to read the page. These will be merged to a single version
///     // at read time, and possibly cached.
///     type PageFrag = String;
///
///     // The state returned by a call to `PageCache::recover`, as
///     // described by `Materializer::recover`
///     type Recovery = ();
///
///     // Create a new `Materializer` with the previously recovered
///     // state if any existed.
///     fn new(config: pagecache::Config, last_recovery: &Option<Self::Recovery>) -> Self {
///         TestMaterializer
///     }
///
///     // Used to merge chains of partial pages into a form
///     // that is useful for the `PageCache` owner.
///     fn merge(&self, frags: &[&Self::PageFrag]) -> Self::PageFrag {
///         let mut consolidated = String::new();
///         for frag in frags.into_iter() {
///             consolidated.push_str(&*frag);
///         }
///
///         consolidated
///     }
///
///     // Used to feed custom recovery information back to a higher-level abstraction
///     // during startup. For example, a B-Link tree must know what the current
///     // root node is before it can start serving requests.
///     fn recover(&self, _: &Self::PageFrag) -> Option<Self::Recovery> {
///         None
///     }
///
///     // Used to determine the resident size for this item in cache.
///     fn size_in_bytes(&self, frag: &String) -> usize {
///         std::mem::size_of::<String>() + frag.as_bytes().len()
///     }
///
/// }
///
/// fn main() {
///     let config = pagecache::ConfigBuilder::new().temporary(true).build();
///     let pc: pagecache::PageCache<TestMaterializer, _, _> =
///         pagecache::PageCache::start(config).unwrap();
///     {
///         let guard = pin();
///         let id = pc.allocate(&guard).unwrap();
///         let mut key = pagecache::PagePtr::allocated();
///
///         // The first item in a page should be set using replace,
///         // which signals that this is the beginning of a new
///         // page history, and that any previous items associated
///         // with this page should be forgotten.
///         key = pc.replace(id, key, "a".to_owned(), &guard).unwrap();
///
///         // Subsequent atomic updates should be added with link.
///         key = pc.link(id, key, "b".to_owned(), &guard).unwrap();
///         key = pc.link(id, key, "c".to_owned(), &guard).unwrap();
///
///         // When getting a page, the provided `Materializer` is
///         // used to merge all pages together.
///         let (consolidated, key) = pc.get(id, &guard).unwrap().unwrap();
///
///         assert_eq!(*consolidated, "abc".to_owned());
///     }
/// }
/// ```
pub struct PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    shared: Arc<Shared<PM>>,
    worker: Option<Arc<dyn Worker>>,
}

impl<PM, P, R> fmt::Debug for PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = &self.shared.cache.pages;
        f.debug_struct("PageCache").field("pages", &pages.bound()).field("free", &pages.free_count()).finish()
    }
}

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// Opens the store of `config`, or makes it.
    ///
    /// Takes time proportional to the log since the last checkpoint; a store that was closed opens
    /// without replaying or writing anything.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Unsupported`] names a setting out of its range or a format of another version;
    /// [`crate::Error::Corruption`] the file and offset of damage; [`crate::Error::Io`] everything else, as
    /// a store that is open elsewhere.
    pub fn start(config: Config) -> Result<PageCache<PM, P, R>, ()> {
        Ok(PageCache::open(config)?)
    }

    /// Like [`PageCache::start`], with the plain failure.
    ///
    /// # Errors
    ///
    /// As [`PageCache::start`].
    pub fn open(config: Config) -> std::result::Result<PageCache<PM, P, R>, Failure> {
        let shared = Shared::open(config)?;
        let worker: Arc<dyn Worker> = Arc::from(background::start(&shared)?);
        shared.set_worker(worker.clone());
        Ok(PageCache { shared, worker: Some(worker) })
    }

    /// Makes a new page, in the place of a freed one if there is one.
    ///
    /// The page is `Allocated` until something is written to it; if nothing is, it is free again
    /// after a restart.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Unsupported`] when no page id is left; [`crate::Error::Io`] if the store takes no
    /// writes.
    pub fn allocate(&self, guard: &Guard) -> Result<PageId, ()> {
        self.shared.cache.poison.check()?;
        Ok(self.shared.cache.allocate(guard)?)
    }

    /// Adds a change to a page; returns the page's new key. On a page that holds nothing yet it is
    /// the page's beginning, as [`PageCache::replace`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::CasFailed`] with the key of now if the page is not as `key` says, or `None` if there
    /// is no such page; [`crate::Error::Io`] if the store cannot take the change, with
    /// [`Failure::TooLarge`] if it exceeds [`PageCache::batch_bytes_max`].
    pub fn link<'g>(
        &self,
        pid: PageId,
        key: PagePtr<'g, P>,
        frag: P,
        guard: &'g Guard,
    ) -> Result<PagePtr<'g, P>, Option<PagePtr<'g, P>>> {
        self.change(pid, &key, Body::Append(frag), guard)
    }

    /// Begins a page anew; returns its new key.
    ///
    /// # Errors
    ///
    /// As [`PageCache::link`].
    pub fn replace<'g>(
        &self,
        pid: PageId,
        key: PagePtr<'g, P>,
        frag: P,
        guard: &'g Guard,
    ) -> Result<PagePtr<'g, P>, Option<PagePtr<'g, P>>> {
        self.change(pid, &key, Body::Base(frag), guard)
    }

    /// Frees a page; its id is handed out again once the free is in a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`PageCache::link`].
    pub fn free<'g>(
        &self,
        pid: PageId,
        key: PagePtr<'g, P>,
        guard: &'g Guard,
    ) -> Result<(), Option<PagePtr<'g, P>>> {
        if key.is_allocated() {
            // Nothing of it was ever logged: it goes straight back.
            return self.free_allocated(pid, &key, guard);
        }
        self.change(pid, &key, Body::Free, guard).map(|_| ())
    }

    fn change<'g>(
        &self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        body: Body<P>,
        guard: &'g Guard,
    ) -> Result<PagePtr<'g, P>, Option<PagePtr<'g, P>>> {
        let metrics = &self.shared.cache.metrics;
        let _timing = metrics.time(match &body {
            Body::Append(_) => Work::Link,
            Body::Base(_) => Work::Replace,
            Body::Free => Work::Free,
        });
        let len = frag_of(&body).map_or(0, |frag| self.materializer().encoded_len(frag));
        let outcome = match self.is_large(len) {
            true => self.install_large(pid, key, &body, len, guard)?,
            false => self.install(pid, key, body, len, guard)?,
        };
        self.shared.make_room_under_guard();
        if matches!(outcome, Outcome::Stale(_)) {
            metrics.note(Work::LostRaces, 1);
        }
        outcome.told()
    }

    /// Makes every change that returned before this call durable.
    ///
    /// Blocks for at least one device sync unless all is durable already; concurrent calls share it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if the device refused; the store is then poisoned, because a second sync could
    /// report success over lost data (Rebello et al., USENIX ATC 2020).
    pub fn flush(&self) -> Result<(), ()> {
        let _timing = self.shared.cache.metrics.time(Work::Flush);
        self.shared.log.flush()?;
        self.shared.note_durable();
        Ok(())
    }

    /// Makes the change at `lsn` durable, and all before it; returns the highest durable position.
    ///
    /// # Errors
    ///
    /// As [`PageCache::flush`].
    pub fn make_stable(&self, lsn: Lsn) -> Result<Lsn, ()> {
        let _timing = self.shared.cache.metrics.time(Work::Flush);
        let stable = self.shared.log.make_stable(lsn)?;
        self.shared.note_durable();
        Ok(stable - 1)
    }

    /// Hands every change so far to the operating system: they survive the process, not the machine.
    ///
    /// # Errors
    ///
    /// As [`PageCache::flush`].
    pub fn hand_over(&self) -> Result<(), ()> {
        Ok(self.shared.log.hand_over()?)
    }

    /// The highest durable position: a change whose LSN is at or below it survives any crash.
    #[must_use]
    pub fn stable_lsn(&self) -> Lsn {
        self.shared.log.stable() - 1
    }

    /// The position that the next change will be at or above.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.shared.log.next_lsn()
    }

    /// A position below which every change shows, at or above that of every change that returned before
    /// this call. What is read from now on holds all below it; what is changed later is not below it.
    ///
    /// Waits for changes that have a position already and do not show yet, never for the disk.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Unsupported`] if this thread is in the middle of a change itself.
    pub fn installed_lsn(&self) -> Result<Lsn, ()> {
        Ok(self.shared.log.watermark()?)
    }

    /// What [`Materializer::recover`] said of the newest fragment for which it said something.
    #[must_use]
    pub fn recovered_state(&self) -> Option<R> {
        self.shared.recovered_state()
    }

    /// True if [`PageCache::start`] found a store; false if it made one.
    #[must_use]
    pub fn was_recovered(&self) -> bool {
        self.shared.was_recovered
    }

    /// Where the pages lie, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.shared.cache.store.path()
    }

    /// The materializer that merges this store's pages.
    #[must_use]
    pub fn materializer(&self) -> &PM {
        &self.shared.cache.materializer
    }

    /// Bytes of the largest change of one page that is one record of the log. A larger one is written in
    /// parts, as a batch of it alone would be, up to [`PageCache::batch_bytes_max`].
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.shared.log.max_payload()
    }

    /// Bytes of the largest batch: a quarter of the log's capacity or of the memory for pages, whichever
    /// is less, but what fits one record always.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        self.shared.batch_bytes_max()
    }

    /// Writes the page table out, so that a later open replays nothing up to here.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`]; a full disk changes nothing, any other refusal poisons the store.
    pub fn checkpoint(&self) -> Result<(), ()> {
        Ok(self.shared.checkpoint()?)
    }

    /// Moves what is alive in the `pages` file together and gives the rest of it back, while the store
    /// stays open: the file is then within a few percent of its live bytes, and a few blocks.
    ///
    /// Copies up to all that is alive, an eighth at a time.
    ///
    /// # Errors
    ///
    /// As [`PageCache::checkpoint`].
    pub fn compact(&self) -> Result<(), ()> {
        Ok(self.shared.compact()?)
    }

    /// Compares every page with what an open would make of the files as they are now: the newest
    /// checkpoint, made anew from them, and the log's tail folded over it. For tests: it reads every page
    /// twice, and nobody may be changing any meanwhile.
    ///
    /// # Errors
    ///
    /// [`crate::Error::ReportableBug`] names what differs; else as [`PageCache::get`].
    pub fn verify_checkpoint(&self) -> Result<Verified, ()> {
        Ok(self.shared.verify()?)
    }

    /// Counts anew, from the page table, which bytes of each segment are alive, and compares with what
    /// was counted on the way: for tests.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Corruption`] naming the first segment whose count is wrong.
    #[doc(hidden)]
    pub fn recount(&self) -> Result<(), ()> {
        Ok(self.shared.recount()?)
    }

    /// After a failure of a change: true if it failed for want of log that others hold up, and it is
    /// worth another try; waits a moment then. A page with a pending batch is not written back, and
    /// what it lacks stays in the log until the batch has ended. A batch is given up before this is
    /// called, for it may be the one.
    #[must_use]
    pub fn waits_for_log(&self, failure: &Failure, tries: &mut u32) -> bool {
        // Where jobs run on the caller's own thread nobody else could end anything.
        if !failure.is_log_full() || *tries == LOG_TRIES_MAX || self.shared.spawner.is_inline() {
            return false;
        }
        *tries += 1;
        std::thread::sleep(LOG_PAUSE);
        true
    }

    /// Bytes of pages that may be lent to callers at one time: an eighth of what pages may take. Who would
    /// lend more copies instead ([`crate::mem::PageMemory::lend`]).
    #[must_use]
    pub fn lend_bytes_max(&self) -> usize {
        self.shared.cache.pages_max() / LENT_DIVISOR
    }

    /// Starts a job of the layer above where this store's own jobs run. `None` if those run as steps on
    /// the caller's thread, chosen by a seed: what the job would do is then done by the caller.
    ///
    /// The job must hold this store weakly, and end before the store is closed.
    ///
    /// # Errors
    ///
    /// [`Failure`] if no thread could be had.
    pub fn spawn(
        &self,
        name: &'static str,
        job: Job,
    ) -> std::result::Result<Option<Box<dyn Worker>>, Failure> {
        let spawner = &self.shared.spawner;
        if spawner.is_inline() {
            return Ok(None);
        }
        let refused = |e| Failure::from_io("starting a thread", PathBuf::new(), 0, 0, e);
        spawner.spawn(name, job).map(Some).map_err(refused)
    }

    /// How often the parts of this store ran and how long they took, since it was opened; nothing
    /// unless [`crate::ConfigBuilder::timing`] is on.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.shared.cache.metrics.profile()
    }

    /// Sizes and counts of this store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Closes the store: everything is durable, the files are small, and the next open replays
    /// nothing. Dropping the store does the same and keeps errors to itself.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] names what could not be written; what was durable before stays durable.
    pub fn close(mut self) -> Result<(), ()> {
        Ok(self.shut_down()?)
    }

    fn shut_down(&mut self) -> std::result::Result<(), Failure> {
        let Some(worker) = self.worker.take() else { return Ok(()) };
        self.shared.stop();
        worker.wake();
        worker.join();
        self.shared.close()
    }
}

impl<PM, P, R> Drop for PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        let _ = self.shut_down();
    }
}
