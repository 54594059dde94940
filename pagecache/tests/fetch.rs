//! A page of several parts is read by several threads at once where the device is waited for, by its reader
//! alone where nothing is, and in a simulation always.
#![cfg(all(feature = "sim", not(loom)))]

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
};

use pagecache::{
    ConfigBuilder, PageCache, PageId, PagePtr, Strings,
    io::{
        FileId, Storage, SyncReason,
        sim::{SimClock, SimDisk, SimSpawner},
    },
    pin,
};

type Pages = PageCache<Strings, String, ()>;

/// A disk that notes who reads pages, and may be slow to.
#[derive(Debug)]
struct Watched {
    disk: SimDisk,
    is_slow: AtomicBool,
    waiting: Mutex<Vec<ThreadId>>,
    answered_at_once: AtomicUsize,
    /// Lets waiting reads go on only when so many are under way.
    together: Mutex<Option<Arc<Barrier>>>,
}

impl Storage for Watched {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        self.disk.exists(file)
    }
    fn create(&self, file: FileId) -> io::Result<()> {
        self.disk.create(file)
    }
    fn len(&self, file: FileId) -> io::Result<u64> {
        self.disk.len(file)
    }
    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if file == FileId::Pages {
            self.waiting.lock().unwrap().push(thread::current().id());
            let together = self.together.lock().unwrap().clone();
            if let Some(barrier) = together {
                barrier.wait();
            }
        }
        self.disk.read_at(file, offset, buf)
    }
    fn read_at_once(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        if self.is_slow.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.answered_at_once.fetch_add(1, Ordering::Relaxed);
        self.disk.read_at(file, offset, buf).map(|()| true)
    }
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, offset, bytes)
    }
    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.disk.set_len(file, len)
    }
    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        self.disk.sync(file, reason)
    }
    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, file: FileId) -> io::Result<()> {
        self.disk.remove(file)
    }
    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        self.disk.sync_names(reason)
    }
    fn lock(&self) -> io::Result<()> {
        self.disk.lock()
    }
    fn unlock(&self) {
        self.disk.unlock();
    }
    fn path(&self, file: FileId) -> PathBuf {
        self.disk.path(file)
    }
}

fn open(storage: &Arc<Watched>, simulated: bool) -> Pages {
    let builder = ConfigBuilder::new().storage(storage.clone()).flush_every_ms(None).cleaning(false);
    let clock = Arc::new(SimClock::new());
    let builder = match simulated {
        true => builder.spawner(Arc::new(SimSpawner::new(clock.clone()))).clock(clock),
        false => builder,
    };
    Pages::start(builder.build()).expect("the store opens")
}

/// A store with one page of several parts.
struct Parts {
    storage: Arc<Watched>,
    pid: PageId,
    /// Another page, whose place in the page table is read together with the first one's.
    beside: PageId,
    text: String,
}

/// A store with one page of so many parts.
fn of_parts(parts: usize) -> Parts {
    let storage = Arc::new(Watched {
        disk: SimDisk::untraced(),
        is_slow: AtomicBool::new(false),
        waiting: Mutex::default(),
        answered_at_once: AtomicUsize::new(0),
        together: Mutex::default(),
    });
    let pages = open(&storage, true);
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    let beside = pages.allocate(&guard).unwrap();
    pages.replace(beside, PagePtr::allocated(), String::new(), &guard).unwrap();
    let mut text = "x".repeat(4000);
    pages.replace(pid, PagePtr::allocated(), text.clone(), &guard).unwrap();
    pages.checkpoint().unwrap();
    for part in 1..parts {
        let more = format!(" and part {part}");
        let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
        pages.link(pid, key, more.clone(), &guard).unwrap();
        text += &more;
        pages.checkpoint().unwrap();
    }
    pages.close().unwrap();
    Parts { storage, pid, beside, text }
}

/// Reads the page of a store that was just opened, whose place is known; returns who waited for the device,
/// and how many answers came at once.
fn read(store: &Parts, simulated: bool, together: Option<usize>) -> (Vec<ThreadId>, usize) {
    let Parts { storage, pid, beside, text } = store;
    let pages = open(storage, simulated);
    assert_eq!(pages.get(*beside, &pin()).unwrap().unwrap().0, "");
    storage.waiting.lock().unwrap().clear();
    storage.answered_at_once.store(0, Ordering::Relaxed);
    *storage.together.lock().unwrap() = together.map(|count| Arc::new(Barrier::new(count)));
    assert_eq!(pages.get(*pid, &pin()).unwrap().unwrap().0, text);
    *storage.together.lock().unwrap() = None;
    (storage.waiting.lock().unwrap().clone(), storage.answered_at_once.load(Ordering::Relaxed))
}

#[test]
fn parts_that_the_device_is_waited_for_are_read_side_by_side() {
    let me = thread::current().id();
    for parts in [3, 4] {
        let store = of_parts(parts);
        store.storage.is_slow.store(true, Ordering::Relaxed);
        // None of them returns before all have begun: one after the other they never would.
        let (waiting, _) = read(&store, false, Some(parts));
        assert_eq!(waiting.len(), parts);
        assert!(!waiting.contains(&me), "{parts} parts");
    }
}

#[test]
fn parts_in_the_systems_memory_and_few_parts_are_read_by_their_reader() {
    let me = thread::current().id();
    for parts in 1..=4 {
        let store = of_parts(parts);
        let (waiting, at_once) = read(&store, false, None);
        let plain = if parts < 3 { vec![me; parts] } else { Vec::new() };
        assert_eq!((waiting, at_once), (plain, if parts < 3 { 0 } else { parts }), "{parts} parts");
        store.storage.is_slow.store(true, Ordering::Relaxed);
        let (waiting, _) = read(&store, true, None);
        assert_eq!(waiting, vec![me; parts], "{parts} parts in a simulation");
    }
}
