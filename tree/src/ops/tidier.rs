//! Folding, splitting and joining behind the writers, on a thread of its own.
//!
//! A writer that leaves a long chain, or a leaf that holds little, names the page and goes on; the thread
//! makes the chain short and keeps the shape. A writer does it itself where the thread has fallen behind, where the chain has
//! become very long, and where jobs run on the caller's own thread.
//!
//! * TIDY-1: whether and when a page is tidied changes nothing that a reader finds.
//! * TIDY-2: between two steps the thread holds the pages weakly, and whoever drops [`Tended`] waits for
//!   the step under way first, so it is never the thread that closes the store.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use pagecache::{
    Failure, PageId,
    io::{Next, Worker},
    pin,
};
use parking_lot::Mutex;

use super::{Core, Pages};

/// Fragments of a leaf above which who writes one key names it.
pub(super) const DEPTH_MAX: usize = 9;
/// As [`DEPTH_MAX`], for a batch: its fragments hold several changes each.
pub(super) const BATCH_DEPTH_MAX: usize = 6;
/// Fragments of a leaf above which whoever writes to it folds it.
pub(crate) const DEPTH_END: usize = 24;
/// A page that grows on is named again after so many fragments: the thread may have lost a race.
const NAME_EVERY: usize = 4;

/// Pages that may wait for the thread.
const NAMED_MAX: usize = 1_024;
/// The thread is woken for each so many pages, since waking costs as much as tidying one.
const NAMED_PER_WAKE: usize = 32;

/// A page, and the tree that it belongs to.
struct Named {
    tree: u64,
    root: PageId,
    pid: PageId,
}

/// Pages that wait.
#[derive(Default)]
struct Waiting {
    named: Mutex<Vec<Named>>,
    is_over: AtomicBool,
}

/// The pages of an open store, and who tidies them.
#[derive(Debug)]
pub(crate) struct Tended {
    /// Before `pages`, so that it is dropped, and its thread gone, before they are closed (TIDY-2).
    tidier: Option<Tidier>,
    pages: Arc<Pages>,
}

impl Tended {
    /// Pages that whoever writes to them tidies.
    pub(crate) fn by_writers(pages: Arc<Pages>) -> Arc<Tended> {
        Arc::new(Tended { tidier: None, pages })
    }

    /// Pages that a thread tidies, unless this store's jobs run on the caller's own.
    pub(crate) fn by_a_thread(pages: Arc<Pages>, leaf_bytes_max: usize) -> Result<Arc<Tended>, Failure> {
        let tidier = Tidier::start(&pages, leaf_bytes_max)?;
        Ok(Arc::new(Tended { tidier, pages }))
    }

    /// The pages alone, once the thread is gone; `None` if others hold them still.
    pub(crate) fn into_pages(self) -> Option<Pages> {
        let Tended { tidier, pages } = self;
        drop(tidier);
        Arc::into_inner(pages)
    }
}

impl Deref for Tended {
    type Target = Pages;

    #[inline]
    fn deref(&self) -> &Pages {
        &self.pages
    }
}

/// The thread that tidies the trees of a store. It ends when this is dropped.
struct Tidier {
    waiting: Arc<Waiting>,
    worker: Box<dyn Worker>,
}

impl fmt::Debug for Tidier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tidier").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Tidier {
    /// Starts the thread; `None` if this store's jobs run on the caller's own.
    fn start(pages: &Arc<Pages>, leaf_bytes_max: usize) -> Result<Option<Tidier>, Failure> {
        let waiting = Arc::new(Waiting::default());
        let job = {
            let (pages, waiting) = (Arc::downgrade(pages), waiting.clone());
            move || step(&pages, &waiting, leaf_bytes_max)
        };
        let worker = pages.spawn("tree", Box::new(job))?;
        Ok(worker.map(|worker| Tidier { waiting, worker }))
    }

    /// Leaves `pid` to the thread; false if the caller must see to it.
    fn name(&self, core: &Core, pid: PageId) -> bool {
        // Whoever finds the list locked has something better to do than to wait for it.
        let Some(mut named) = self.waiting.named.try_lock() else { return false };
        if named.len() >= NAMED_MAX {
            return false;
        }
        named.push(Named { tree: core.id, root: core.root, pid });
        let is_enough = named.len().is_multiple_of(NAMED_PER_WAKE);
        drop(named);
        if is_enough {
            self.worker.wake();
        }
        true
    }
}

impl Drop for Tidier {
    fn drop(&mut self) {
        // Release pairs with the Acquire of the step.
        self.waiting.is_over.store(true, Ordering::Release);
        self.worker.wake();
        self.worker.join();
    }
}

fn step(pages: &Weak<Pages>, waiting: &Waiting, leaf_bytes_max: usize) -> Next {
    let Some(pages) = pages.upgrade().map(Tended::by_writers) else { return Next::Done };
    let named = std::mem::take(&mut *waiting.named.lock());
    for Named { tree, root, pid } in named {
        // What is left is left to writers.
        if waiting.is_over.load(Ordering::Acquire) {
            return Next::Done;
        }
        let core = Core {
            pages: pages.clone(),
            id: tree,
            root,
            leaf_bytes_max,
            inline_bytes_max: super::INLINE_BYTES_MAX,
        };
        // Damage is told to whoever reads the page, poison to whoever writes.
        let _ = core.shorten(pid);
        // What this leaves behind would else be freed by writers when they pin.
        pin().flush();
    }
    if waiting.is_over.load(Ordering::Acquire) {
        return Next::Done;
    }
    match waiting.named.lock().len() {
        few if few < NAMED_PER_WAKE => Next::WhenWoken,
        _ => Next::Again,
    }
}

impl Core {
    /// Sees to a leaf whose chain is longer than `depth_max`: later if it can wait, at once if not.
    pub(super) fn see_to(&self, pid: PageId, depth: usize, depth_max: usize) -> Result<(), Failure> {
        if depth >= DEPTH_END {
            return self.optional(self.shorten(pid));
        }
        let is_named_already = !(depth - depth_max - 1).is_multiple_of(NAME_EVERY);
        if is_named_already && self.pages.tidier.is_some() { Ok(()) } else { self.leave(pid) }
    }

    /// Leaves a leaf to the thread, or sees to it at once if that cannot be.
    pub(super) fn leave(&self, pid: PageId) -> Result<(), Failure> {
        match &self.pages.tidier {
            Some(tidier) if tidier.name(self, pid) => Ok(()),
            _ => self.optional(self.shorten(pid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use pagecache::{View, pin};

    use super::{DEPTH_END, DEPTH_MAX};
    use crate::{Config, Db};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn key(i: u32) -> [u8; 4] {
        i.wrapping_mul(0x9e37_79b9).to_be_bytes()
    }

    fn longest_chain(db: &Db) -> usize {
        let guard = pin();
        let pages = &db.core.pages;
        let depth = |pid| match pages.view(pid, &guard) {
            Ok(View::Page(page)) => page.depth(),
            _ => 0,
        };
        (0..pages.stats().pages).map(depth).max().unwrap_or(0)
    }

    #[test]
    fn the_thread_makes_chains_short() {
        let db = Config::new().temporary(true).open().unwrap();
        for i in 0..DEPTH_MAX as u32 + 2 {
            db.insert(key(i), "value").unwrap();
        }
        // One named page does not wake the thread, and nobody else folds it.
        assert!(longest_chain(&db) > DEPTH_MAX);
        db.core.pages.tidier.as_ref().expect("jobs have threads here").worker.wake();
        let begun = Instant::now();
        while longest_chain(&db) > 2 {
            assert!(begun.elapsed() < PATIENCE, "{} fragments", longest_chain(&db));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(db.len(), DEPTH_MAX + 2);
    }

    #[test]
    fn the_thread_joins_leaves_that_hold_little() {
        const KEYS: u32 = 20_000;
        let db = Config::new().temporary(true).open().unwrap();
        (0..KEYS).for_each(|i| assert!(db.insert(key(i), vec![7; 60]).unwrap().is_none()));
        let before = db.shape().unwrap()[0];
        (0..KEYS).filter(|i| i % 50 != 0).for_each(|i| assert!(db.remove(key(i)).unwrap().is_some()));
        let begun = Instant::now();
        // While the thread is at work what is looked at may not fit together.
        while !db.shape().is_ok_and(|levels| levels[0] * 8 <= before) {
            assert!(begun.elapsed() < PATIENCE, "of {before} leaves {:?} are left", db.shape());
            db.core.pages.tidier.as_ref().expect("jobs have threads here").worker.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(db.len(), (KEYS / 50) as usize);
    }

    #[test]
    fn no_writer_leaves_a_chain_longer_than_it_may_be() {
        let db = Config::new().temporary(true).open().unwrap();
        // As if the thread never got at it.
        let stuck = db.core.pages.tidier.as_ref().expect("jobs have threads here");
        let _list = stuck.waiting.named.lock();
        for i in 0..1_000 {
            db.insert(key(i), "value").unwrap();
            assert!(longest_chain(&db) <= DEPTH_END);
        }
    }

    #[test]
    fn whoever_drops_a_database_has_closed_it_when_the_drop_returns() {
        let dir = std::env::temp_dir().join(format!("tidier-{}", std::process::id()));
        for round in 0..20_u32 {
            let db = Config::new().path(&dir).open().expect("the drop before has let the files go");
            for i in 0..2_000 {
                db.insert(key(round * 2_000 + i), vec![7; 40]).unwrap();
            }
        }
        assert_eq!(Config::new().path(&dir).open().unwrap().len(), 40_000);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
