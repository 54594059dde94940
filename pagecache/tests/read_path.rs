//! A read of a settled page in memory: it allocates nothing, calls nothing of the system, takes no position
//! in the log, and gets through while somebody stands in the middle of a write or sync, whatever locks
//! that one holds.
#![cfg(all(feature = "sim", not(loom)))]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use pagecache::{
    ConfigBuilder, PageCache, PageId, PagePtr, Strings, View,
    io::{
        CountingStorage, FileId, Storage, SyncReason,
        sim::{SimClock, SimDisk, SimSpawner},
    },
    pin,
};

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call is the system's; the counter is a thread's own and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Pages = PageCache<Strings, String, ()>;

const PAGES: usize = 300;
const TEXT: &str = "a page that is read again and again";

fn open(storage: Arc<dyn Storage>) -> Pages {
    let clock = Arc::new(SimClock::new());
    let config = ConfigBuilder::new()
        .storage(storage)
        .spawner(Arc::new(SimSpawner::new(clock.clone())))
        .clock(clock)
        .block_bytes(512)
        .log_segment_bytes(8 << 10)
        .log_capacity(64 << 10)
        .checkpoint_every_bytes(32 << 10)
        .store_segment_bytes(8 << 10)
        .build();
    Pages::start(config).expect("a new store opens")
}

fn fill(pages: &Pages) -> Vec<PageId> {
    let guard = pin();
    let page = |_| {
        let pid = pages.allocate(&guard).expect("ids are left");
        pages.replace(pid, PagePtr::allocated(), TEXT.to_owned(), &guard).expect("nobody else writes");
        pid
    };
    (0..PAGES).map(page).collect()
}

/// One test at a time: garbage that one leaves is freed by whoever pins next, and that is not its read.
static ALONE: Mutex<()> = Mutex::new(());

/// Frees what writes have left behind.
fn drain_garbage() {
    // A piece is freed once the epoch has moved on twice, and each call frees a bounded piece.
    (0..64).for_each(|_| pin().flush());
}

/// Reads every page in both ways.
fn read_all(pages: &Pages, pids: &[PageId]) {
    for pid in pids {
        let guard = pin();
        assert_eq!(pages.get(*pid, &guard).unwrap().unwrap().0, TEXT);
        let View::Page(view) = pages.view(*pid, &guard).unwrap() else { panic!("the page is there") };
        assert_eq!(view.settled().map(String::as_str), Some(TEXT));
    }
}

#[test]
fn a_read_of_a_settled_page_allocates_nothing_and_asks_the_system_for_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let storage = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
    let pages = open(storage.clone());
    let pids = fill(&pages);
    // Dirty pages are settled as clean ones are.
    for round in ["dirty", "clean"] {
        read_all(&pages, &pids);
        drain_garbage();
        let (before, next, stable) = (storage.snapshot(), pages.next_lsn(), pages.stable_lsn());
        let allocations = ALLOCATIONS.get();
        (0..100).for_each(|_| read_all(&pages, &pids));
        assert_eq!(ALLOCATIONS.get() - allocations, 0, "{round}: allocations of {} reads", 200 * PAGES);
        assert_eq!(storage.snapshot(), before, "{round}: calls of the storage");
        assert_eq!((pages.next_lsn(), pages.stable_lsn()), (next, stable), "{round}: the log moved");
        pages.checkpoint().unwrap();
    }
    let allocations = ALLOCATIONS.get();
    drop(Box::new(allocations));
    assert_eq!(ALLOCATIONS.get(), allocations + 1, "the count sees what it is to see");
}

/// A disk on which something happens before each write and each sync.
struct Interrupted {
    disk: SimDisk,
    meanwhile: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Interrupted {
    fn interrupt(&self) {
        if let Some(meanwhile) = &*self.meanwhile.lock().unwrap() {
            meanwhile();
        }
    }
}

impl Storage for Interrupted {
    fn exists(&self, file: FileId) -> std::io::Result<bool> {
        self.disk.exists(file)
    }
    fn create(&self, file: FileId) -> std::io::Result<()> {
        self.disk.create(file)
    }
    fn len(&self, file: FileId) -> std::io::Result<u64> {
        self.disk.len(file)
    }
    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.disk.read_at(file, offset, buf)
    }
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.interrupt();
        self.disk.write_at(file, offset, bytes)
    }
    fn set_len(&self, file: FileId, len: u64) -> std::io::Result<()> {
        self.interrupt();
        self.disk.set_len(file, len)
    }
    fn sync(&self, file: FileId, reason: SyncReason) -> std::io::Result<()> {
        self.interrupt();
        self.disk.sync(file, reason)
    }
    fn rename(&self, from: FileId, to: FileId) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, file: FileId) -> std::io::Result<()> {
        self.disk.remove(file)
    }
    fn sync_names(&self, reason: SyncReason) -> std::io::Result<()> {
        self.interrupt();
        self.disk.sync_names(reason)
    }
    fn lock(&self) -> std::io::Result<()> {
        self.disk.lock()
    }
    fn unlock(&self) {
        self.disk.unlock();
    }
    fn path(&self, file: FileId) -> std::path::PathBuf {
        self.disk.path(file)
    }
}

/// Whoever writes, checkpoints or compacts stops before each of its calls, with all locks that it holds
/// there, until another thread has read every page.
#[test]
fn reads_of_pages_in_memory_wait_for_nobody_who_writes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let storage = Arc::new(Interrupted { disk: SimDisk::untraced(), meanwhile: Mutex::new(None) });
    let pages = Arc::new(open(storage.clone()));
    let pids = Arc::new(fill(&pages));
    pages.checkpoint().unwrap();
    read_all(&pages, &pids);
    let interruptions = Arc::new(AtomicUsize::new(0));
    let (reader, counted) = ((pages.clone(), pids.clone()), interruptions.clone());
    *storage.meanwhile.lock().unwrap() = Some(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let (pages, pids) = reader.clone();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            read_all(&pages, &pids);
            // Nobody listens any more if this came too late.
            let _ = done.send(());
        });
        is_done.recv_timeout(Duration::from_secs(60)).expect("a read waits for whoever writes");
    }));
    let mut others = Vec::new();
    for round in 0..20 {
        let guard = pin();
        let pid = pages.allocate(&guard).unwrap();
        pages.replace(pid, PagePtr::allocated(), "x".repeat(1000), &guard).unwrap();
        others.push(pid);
        drop(guard);
        match round % 3 {
            0 => pages.flush().unwrap(),
            1 => pages.checkpoint().unwrap(),
            _ => pages.hand_over().unwrap(),
        }
    }
    for pid in others {
        let guard = pin();
        let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
        pages.free(pid, key, &guard).unwrap();
    }
    pages.compact().unwrap();
    *storage.meanwhile.lock().unwrap() = None;
    assert!(interruptions.load(Ordering::Relaxed) > 50, "{interruptions:?} calls were interrupted");
}
