//! Ends: of a store while iterators live, of a guard after its store, of a closure by a panic.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use pagecache::{
    Config as PageConfig, ConfigBuilder, DecodeError, Materializer, PageCache, PagePtr,
    io::sim::SimDisk,
    mem::{PageBuf, PageMemory},
    pin,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tests::{small_tree, within};
use tree::{Config, Db, Error};

const HANG: Duration = Duration::from_secs(60);

fn open(disk: &Arc<SimDisk>) -> Db {
    let disk = disk.clone();
    small_tree(Config::new().cache_capacity_unchecked(64 << 10).flush_every_ms(Some(5)))
        .page_cache(|builder| builder.storage(disk))
        .open()
        .unwrap_or_else(|e| panic!("the store opens: {e}"))
}

fn key(number: u32) -> Vec<u8> {
    format!("{number:05}").into_bytes()
}

fn fill(db: &Db, count: u32) {
    (0..count).for_each(|number| assert!(db.insert(key(number), vec![number as u8; 50]).unwrap().is_none()));
}

#[test]
fn an_iterator_outlives_every_handle_and_the_last_to_go_closes_the_store() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let db = open(&disk);
        fill(&db, 1000);
        let mut iters: Vec<_> = (0..4).map(|_| db.iter()).collect();
        assert!(iters.iter_mut().all(|iter| iter.next().is_some()));
        let handle = db.clone();
        drop(db);
        drop(handle);
        thread::scope(|scope| {
            for iter in iters {
                scope.spawn(move || {
                    let keys: Vec<Vec<u8>> = iter.map(|entry| entry.unwrap().0.to_vec()).collect();
                    assert!(keys.into_iter().eq((1..1000).map(key)));
                });
            }
        });
        // The lock is free only once the last iterator has closed the store.
        assert_eq!(open(&disk).len(), 1000);
    });
}

#[test]
fn close_refuses_while_other_handles_or_iterators_live_and_they_stay_usable() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let db = open(&disk);
        fill(&db, 500);
        let other = db.clone();
        let iter = db.iter();
        assert!(matches!(db.close(), Err(Error::Unsupported(why)) if why.contains("still in use")));
        assert!(other.insert("more", "1").unwrap().is_none());
        assert!(matches!(other.close(), Err(Error::Unsupported(_))), "the iterator is a handle too");
        assert_eq!(iter.count(), 501);
        let db = open(&disk);
        assert_eq!(db.len(), 501);
        db.close().unwrap();
        assert_eq!(open(&disk).len(), 501);
    });
}

#[test]
fn stores_that_are_dropped_while_others_open_and_read_do_not_disturb_each_other() {
    within(HANG, || {
        thread::scope(|scope| {
            for thread in 0..4u32 {
                scope.spawn(move || {
                    for round in 0..8 {
                        let disk = Arc::new(SimDisk::untraced());
                        let db = open(&disk);
                        fill(&db, 200);
                        let held = db.iter();
                        drop(db);
                        assert_eq!(held.count(), 200, "thread {thread}, round {round}");
                        assert_eq!(open(&disk).len(), 200, "thread {thread}, round {round}");
                    }
                });
            }
        });
    });
}

#[test]
fn a_panic_in_a_closure_leaves_the_store_as_it_was() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let db = open(&disk);
        fill(&db, 300);
        let before: Vec<_> = db.iter().map(Result::unwrap).collect();
        type Call = fn(&Db);
        let calls: [(&str, Call); 4] = [
            ("update_and_fetch", |db| {
                let _ = db.update_and_fetch(key(7), |_| -> Option<Vec<u8>> { panic!("on purpose") });
            }),
            ("fetch_and_update", |db| {
                let _ = db.fetch_and_update(key(150), |_| -> Option<Vec<u8>> { panic!("on purpose") });
            }),
            ("update_and_fetch of an absent key", |db| {
                let _ = db.update_and_fetch("absent", |_| -> Option<Vec<u8>> { panic!("on purpose") });
            }),
            ("get_with", |db| {
                let _ = db.get_with(key(7), |_| panic!("on purpose"));
            }),
        ];
        for (name, call) in calls {
            let panicked = catch_unwind(AssertUnwindSafe(|| call(&db)));
            assert!(panicked.is_err(), "{name}");
            let now: Vec<_> = db.iter().map(Result::unwrap).collect();
            assert!(now == before, "{name}");
            db.flush().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert!(db.insert("afterwards", "1").unwrap().is_none());
        db.close().unwrap();
        assert_eq!(open(&disk).len(), 301);
    });
}

/// A page in page memory, which fills what is freed with a pattern.
#[derive(Clone, Debug)]
struct Paged(PageBuf);

impl Serialize for Paged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Paged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Paged, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Ok(Paged(PageBuf::copy_of(&PageMemory::with_checks(), &bytes)))
    }
}

struct InMemory(PageMemory);

impl Materializer for InMemory {
    type PageFrag = Paged;
    type Recovery = ();

    fn new(_: PageConfig, _: &Option<()>) -> InMemory {
        InMemory(PageMemory::with_checks())
    }

    fn merge(&self, frags: &[&Paged]) -> Paged {
        let bytes: Vec<u8> = frags.iter().flat_map(|frag| frag.0.iter().copied()).collect();
        Paged(PageBuf::copy_of(&self.0, &bytes))
    }

    fn recover(&self, _: &Paged) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &Paged) -> usize {
        frag.0.charged_bytes()
    }

    fn encoded_len(&self, frag: &Paged) -> usize {
        frag.0.len()
    }

    fn encode(&self, frag: &Paged, out: &mut [u8]) {
        out.copy_from_slice(&frag.0);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Paged, DecodeError> {
        Ok(Paged(PageBuf::copy_of(&self.0, bytes)))
    }
}

/// What a guard has seen stays as it was, though the pages were changed, folded, evicted and written
/// back meanwhile, and the store is gone.
#[test]
fn a_guard_that_outlives_its_store_still_reads_what_it_saw() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let config = ConfigBuilder::new().storage(disk).cache_capacity(8 << 10);
        let cache: PageCache<InMemory, Paged, ()> = PageCache::start(config.build()).unwrap();
        let paged = |byte: u8| Paged(PageBuf::copy_of(&cache.materializer().0, &[byte; 100]));
        let guard = pin();
        let mut seen = Vec::new();
        for byte in 0..100u8 {
            let pid = cache.allocate(&guard).unwrap();
            cache.replace(pid, PagePtr::allocated(), paged(byte), &guard).unwrap();
            let (frag, key) = cache.get(pid, &guard).unwrap().unwrap();
            seen.push((frag, byte));
            cache.link(pid, key, paged(!byte), &guard).unwrap();
        }
        cache.checkpoint().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || drop(cache));
        });
        // Other threads come and go, so that whatever could be freed would be.
        for _ in 0..200 {
            thread::spawn(|| drop(pin())).join().unwrap();
        }
        for (frag, byte) in seen {
            assert!(frag.0.iter().all(|read| *read == byte), "page {byte} was freed under a guard");
        }
    });
}
