//! What the store asks of the system, counted: writes, syncs, growth and memory, for the same work
//! every time.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pagecache::io::{
    CountingStorage, Counts, FileId, Operation, SyncReason,
    sim::{Rng, SimClock, SimDisk, SimSpawner},
};
use tests::{HookedStorage, small_tree, within};
use tree::{Config, Db};

const HANG: Duration = Duration::from_secs(60);

/// A disk that counts, and stores on it without a background of their own accord.
struct Counted {
    storage: Arc<CountingStorage>,
    clock: Arc<SimClock>,
    spawner: Arc<SimSpawner>,
}

impl Counted {
    fn new() -> Counted {
        let clock = Arc::new(SimClock::new());
        Counted {
            storage: Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced()))),
            spawner: Arc::new(SimSpawner::new(clock.clone())),
            clock,
        }
    }

    /// Opens a store whose background never steps.
    fn open(&self, config: Config) -> Db {
        let (storage, spawner, clock) = (self.storage.clone(), self.spawner.clone(), self.clock.clone());
        config
            .page_cache(|builder| builder.storage(storage).spawner(spawner).clock(clock))
            .open()
            .unwrap_or_else(|e| panic!("the store opens: {e}"))
    }

    fn snapshot(&self) -> Counts {
        self.storage.snapshot()
    }
}

/// Calls that change something or make it durable.
fn mutating(counts: &Counts) -> Vec<(Operation, u64)> {
    let calls = |operation: Operation| (operation, counts.total(operation).calls);
    Operation::ALL
        .into_iter()
        .filter(|operation| operation.is_mutating())
        .map(calls)
        .filter(|(_, calls)| *calls > 0)
        .collect()
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

fn put(db: &Db, key: Vec<u8>, value: impl AsRef<[u8]>) {
    db.put(key, value).map(|_| ()).unwrap_or_else(|e| panic!("a put: {e}"));
}

fn fill(db: &Db, keys: std::ops::Range<u64>) {
    keys.for_each(|number| assert!(db.insert(key(number), vec![7; 60]).unwrap().is_none()));
}

#[test]
fn a_lone_durable_write_into_used_segments_is_one_block_one_sync_and_no_growth() {
    within(HANG, || {
        const BLOCK: u64 = 4096;
        let counted = Counted::new();
        let db = counted.open(Config::new().page_cache(|builder| builder.log_segment_bytes(64 << 10)));
        // Two turns through the first segments; then they are free and written.
        for turn in 0..2 {
            (0..2000u64).for_each(|number| put(&db, key(number % 20), [turn; 60]));
            db.flush().unwrap();
            db.checkpoint().unwrap();
        }
        for number in 0..10u64 {
            let before = counted.snapshot();
            let lsn = db.put(key(number), b"durable").unwrap();
            db.wait_durable(lsn).unwrap();
            let made = counted.snapshot() - before;
            let log = made.tally(FileId::Log, Operation::Write);
            // A write that begins a segment of the log has the segment's header in front.
            assert!(log.calls == 1 && (1..=2).contains(&(log.bytes / BLOCK)), "{number}: {made:?}");
            assert!(log.bytes.is_multiple_of(BLOCK), "{number}: {made:?}");
            assert_eq!(made.syncs(SyncReason::Commit), 1, "{number}");
            assert_eq!(made.syncs_total(), 1, "{number}");
            assert_eq!(made.growth(FileId::Log) + made.growth(FileId::Pages), 0, "{number}");
            assert_eq!(made.tally(FileId::Pages, Operation::Write).calls, 0, "{number}");
        }
    });
}

#[test]
fn the_background_makes_segments_of_the_log_before_writers_need_them() {
    within(HANG, || {
        const SEGMENT: u64 = 64 << 10;
        let counted = Counted::new();
        let db =
            counted.open(Config::new().page_cache(|builder| builder.log_segment_bytes(SEGMENT as usize)));
        let mut rng = Rng::new(1);
        let mut by_writers = 0;
        for number in 0..200u64 {
            let before = counted.snapshot();
            let lsn = db.put(key(number % 20), [7; 2000]).unwrap();
            db.wait_durable(lsn).unwrap();
            let made = (counted.snapshot() - before).tally(FileId::Log, Operation::Write);
            by_writers += u64::from(made.bytes >= SEGMENT);
            // Time stands still, so the background steps only because it was woken.
            counted.spawner.run(&mut rng, 100);
        }
        let log = counted.snapshot().growth(FileId::Log);
        assert!(log > 8 * SEGMENT, "the log has grown by {log} bytes only");
        assert!(by_writers <= 1, "writers made {by_writers} segments of the log themselves");
    });
}

#[test]
fn a_stream_of_changes_writes_the_log_once() {
    within(HANG, || {
        let counted = Counted::new();
        let config =
            Config::new().flush_every_ms(None).page_cache(|builder| builder.log_segment_bytes(64 << 10));
        let db = counted.open(config);
        (0..20_000u64).for_each(|number| put(&db, key(number % 20), [7; 60]));
        let made = counted.snapshot();
        let (log, grown) = (made.tally(FileId::Log, Operation::Write), made.growth(FileId::Log));
        assert!(grown > 1 << 20, "the log has grown by {grown} bytes only");
        // Zeros in front of every record would double it; the first segments have them.
        assert!(log.bytes < grown + grown / 4, "{} bytes written to a log of {grown}", log.bytes);
    });
}

/// The background, which takes checkpoints elsewhere, stands still here.
#[test]
fn a_writer_takes_a_checkpoint_only_when_the_log_or_the_file_is_full() {
    within(HANG, || {
        const LOG: u64 = 1 << 20;
        const SEGMENT: u64 = 64 << 10;
        const KEYS: u64 = 400;
        for (is_log, cache, log) in [(true, 1 << 30, LOG), (false, 24 << 10, 256 << 20)] {
            let counted = Counted::new();
            let config = small_tree(Config::new().cache_capacity_unchecked(cache)).page_cache(|builder| {
                builder.log_segment_bytes(SEGMENT as usize).log_capacity(log).checkpoint_every_bytes(LOG / 8)
            });
            let db = counted.open(config);
            fill(&db, 0..KEYS);
            db.checkpoint().unwrap();
            let begun = counted.snapshot();
            let checkpoints = || (counted.snapshot() - begun).syncs(SyncReason::FirstSuperblock);
            let mut number = 0;
            let mut before = db.stats();
            while checkpoints() == 0 {
                before = db.stats();
                number += 1;
                put(&db, key(number * 7 % KEYS), [number as u8; 60]);
                assert!(number < 200 * KEYS, "the writer never took one");
            }
            let (tail, file) = (before.log_tail_bytes(), before.pages_file_bytes());
            // What is looked at covers a segment of the log, and sixteen pages and three segments of the file.
            if is_log {
                assert!(tail + 2 * SEGMENT >= LOG, "{tail} bytes of {LOG} were in use");
            } else {
                let live = before.pages_live_bytes();
                assert!(file >= live + live / 5, "{file} bytes of file, {live} alive, {tail} of log");
            }
        }
    });
}

#[test]
fn a_small_change_takes_a_few_bytes_of_log_beside_its_key_and_value() {
    within(HANG, || {
        const KEYS: u64 = 2000;
        const KEY_BYTES: i64 = 24;
        const VALUE_BYTES: i64 = 150;
        // A record's header, and of the change its kind, tree, difference and key's length.
        const BESIDE_BYTES: i64 = 24 + 4;
        let db = Counted::new().open(Config::new());
        let name = |number: u64| format!("{number:024}");
        let put = |number: u64| db.put(name(number), [7; VALUE_BYTES as usize]).unwrap();
        (0..KEYS).for_each(|number| assert!(put(number) > 0));
        let check = |what: &str, bytes: i64, lsns: Vec<i64>| {
            let taken: Vec<i64> = lsns.windows(2).map(|pair| pair[1] - pair[0]).collect();
            // Where a buffer or a segment of the log ends there is more, once in very many records.
            let few = taken.iter().filter(|taken| **taken > bytes + BESIDE_BYTES).count();
            assert!(few * 100 < taken.len(), "{what}: {few} of {} took more than {bytes}", taken.len());
            let all: i64 = taken.iter().sum();
            let most = (bytes + BESIDE_BYTES) * taken.len() as i64;
            assert!(all * 100 < most * 105, "{what}: {all} bytes for {}", taken.len());
        };
        // Every key is there, so no leaf is split.
        check("a put", KEY_BYTES + VALUE_BYTES, (0..KEYS).map(|number| put(number * 7 % KEYS)).collect());
        let delete = |number: u64| db.delete(name(number)).unwrap().expect("it was there");
        check("a removal", KEY_BYTES, (0..KEYS / 4).map(|number| delete(number * 4)).collect());
    });
}

#[test]
fn durable_writes_of_eight_threads_share_their_syncs() {
    within(HANG, || {
        const THREADS: u64 = 8;
        const WRITES: u64 = 100;
        let counted = Counted::new();
        // A device that takes its time over each sync: who writes meanwhile waits for the next.
        let slow = Arc::new(HookedStorage::new(counted.storage.clone()));
        slow.set_hook(Some(Arc::new(|_, operation| {
            if operation == Operation::Sync {
                thread::sleep(Duration::from_millis(2));
            }
        })));
        let db =
            Config::new().flush_every_ms(None).page_cache(|builder| builder.storage(slow)).open().unwrap();
        fill(&db, 0..THREADS);
        db.flush().unwrap();
        let before = counted.snapshot();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let db = &db;
                scope.spawn(move || {
                    for write in 0..WRITES {
                        let lsn = db.put(key(thread), write.to_le_bytes()).unwrap();
                        db.wait_durable(lsn).unwrap();
                    }
                });
            }
        });
        let syncs = (counted.snapshot() - before).syncs_total();
        assert!(syncs < 2 * WRITES, "{syncs} syncs for {} durable writes", THREADS * WRITES);
        assert!(syncs >= WRITES, "{syncs} syncs: a thread's {WRITES} writes cannot share one");
    });
}

#[test]
fn reading_writes_logs_and_syncs_nothing() {
    within(HANG, || {
        let counted = Counted::new();
        // Far less memory than pages, so that reads evict, and changes that no image holds yet.
        let db = counted.open(small_tree(Config::new().cache_capacity_unchecked(24 << 10)));
        fill(&db, 0..2000);
        db.checkpoint().unwrap();
        db.flush().unwrap();
        // Pages that were changed and are pushed out have to go somewhere; a checkpoint has settled them.
        let (before, stable) = (counted.snapshot(), db.durable_lsn());
        for number in 0..2000 {
            assert!(db.get(key(number * 7 % 2000)).unwrap().is_some());
        }
        assert!(db.get("absent").unwrap().is_none());
        assert!(db.remove("absent").unwrap().is_none());
        assert_eq!(db.iter().count(), 2000);
        assert_eq!(db.iter().rev().count(), 2000);
        assert_eq!(db.len(), 2000);
        assert!(db.compare_and_swap(key(1), None::<&[u8]>, Some("x")).unwrap().is_err());
        let made = counted.snapshot() - before;
        assert_eq!(mutating(&made), [], "{made:?}");
        assert!(made.total(Operation::Read).calls > 100, "the pages were not in memory");
        db.flush().unwrap();
        assert_eq!((mutating(&(counted.snapshot() - before)), db.durable_lsn()), (vec![], stable));
    });
}

#[test]
fn a_split_logs_less_than_the_leaf_that_it_splits() {
    within(HANG, || {
        const LEAF: u64 = 8 << 10;
        let counted = Counted::new();
        let db = counted.open(Config::new());
        // In no order, so that leaves split in the middle.
        let (mut splits, mut most) = (0, 0);
        let mut next = db.put("0", "0").unwrap();
        for number in 0..4000u64 {
            let pages = db.stats().pages();
            let lsn = db.put(key(number * 2477 % 4000), [7; 60]).unwrap();
            let after = db.put("0", "0").unwrap();
            if db.stats().pages() > pages {
                splits += 1;
                most = most.max(after - lsn);
            }
            assert!(next < lsn);
            next = after;
        }
        assert!(splits > 20, "{splits} splits");
        // The right part and two small records; a split of the root logs both parts.
        assert!(most.cast_unsigned() < LEAF, "a split logged {most} bytes");
    });
}

#[test]
fn a_checkpoint_writes_the_pages_that_changed_and_not_the_others() {
    within(HANG, || {
        let counted = Counted::new();
        let db = counted.open(small_tree(Config::new()));
        fill(&db, 0..2000);
        // The second one leaves out what the first one added to the log, the end of a buffer.
        db.checkpoint().unwrap();
        db.checkpoint().unwrap();
        let pages = db.stats().pages();
        let written = |change: &dyn Fn()| {
            change();
            let before = counted.snapshot();
            db.checkpoint().unwrap();
            (counted.snapshot() - before).tally(FileId::Pages, Operation::Write).bytes
        };
        let nothing = written(&|| ());
        let one = written(&|| put(&db, key(1000), b"changed"));
        let all = written(&|| (0..2000).for_each(|number| put(&db, key(number), [8; 60])));
        let live = db.stats().pages_live_bytes();
        assert_eq!(nothing, 0);
        // One image, one map page with its directory, two superblocks, each in blocks.
        assert!(one > 0 && one < live / 4, "{one} bytes for one page of {pages}, all of them {live}");
        assert!(all > live / 2, "{all} bytes for every page, {live} alive");
    });
}

#[test]
fn a_checkpoint_writes_the_changes_of_a_page_and_not_the_page() {
    within(HANG, || {
        const CHANGED: u64 = 20;
        let counted = Counted::new();
        let db = counted.open(Config::new());
        fill(&db, 0..4000);
        db.checkpoint().unwrap();
        db.checkpoint().unwrap();
        let written = |value: u8| {
            (0..CHANGED).for_each(|leaf| put(&db, key(leaf * 200), [value; 60]));
            let before = counted.snapshot();
            db.checkpoint().unwrap();
            (counted.snapshot() - before).tally(FileId::Pages, Operation::Write).bytes
        };
        let changes = written(8);
        // Images of that many leaves, of four to eight kibibytes each, are more than twice as much.
        assert!(changes < CHANGED * 1200, "{changes} bytes for {CHANGED} changes of as many leaves");
        drop(db);
        let db = counted.open(Config::new());
        let changed = (0..CHANGED).all(|leaf| db.get(key(leaf * 200)).unwrap().unwrap() == [8; 60]);
        assert!(changed && db.len() == 4000, "what a delta-page says is read back");
    });
}

#[test]
fn a_record_that_was_changed_again_and_again_is_written_back_once() {
    within(HANG, || {
        const CHANGED: u64 = 20;
        const BLOCK_BYTES: u64 = 4096;
        let counted = Counted::new();
        let db = counted.open(Config::new());
        fill(&db, 0..4000);
        db.checkpoint().unwrap();
        db.checkpoint().unwrap();
        // More changes of a leaf than its chain holds, so that some are folded into its base.
        let written = |times: u8| {
            (0..times).for_each(|time| (0..CHANGED).for_each(|leaf| put(&db, key(leaf * 200), [time; 60])));
            let before = counted.snapshot();
            db.checkpoint().unwrap();
            (counted.snapshot() - before).tally(FileId::Pages, Operation::Write).bytes
        };
        let (once, often) = (written(1), written(20));
        assert!(often < once + BLOCK_BYTES, "{often} bytes for twenty changes of a record, {once} for one");
        drop(db);
        let db = counted.open(Config::new());
        let changed = (0..CHANGED).all(|leaf| db.get(key(leaf * 200)).unwrap().unwrap() == [19; 60]);
        assert!(changed && db.len() == 4000, "what a delta-page says is read back");
    });
}

/// The map of these leaves is sixty kilobytes in map pages of 256 entries, of which the changed leaves touch
/// nearly all.
#[test]
fn a_checkpoint_of_one_record_in_a_hundredth_of_the_leaves_writes_a_tenth_of_their_images() {
    within(HANG, || {
        const RECORDS: u64 = 420_000;
        let counted = Counted::new();
        let config = || Config::new().cache_capacity(256 << 20);
        let db = counted.open(config());
        (0..RECORDS).for_each(|number| put(&db, key(number), [7; 110]));
        db.checkpoint().unwrap();
        db.checkpoint().unwrap();
        let (leaves, live) = (db.stats().pages(), db.stats().pages_live_bytes());
        let changed = leaves / 100;
        assert!(changed >= 55, "{leaves} leaves");
        let (step, images) = (RECORDS / changed, live / leaves * changed);
        for round in 1..=3 {
            (0..changed).for_each(|leaf| put(&db, key(leaf * step + round), [round as u8; 110]));
            let before = counted.snapshot();
            db.checkpoint().unwrap();
            let made = (counted.snapshot() - before).tally(FileId::Pages, Operation::Write).bytes;
            assert!(made * 10 < images, "{made} bytes for {changed} leaves, whose images have {images}");
        }
        db.close().unwrap();

        // Opening reads a directory, and of the map what the tree's root needs.
        let before = counted.snapshot();
        let db = counted.open(config());
        let read = (counted.snapshot() - before).tally(FileId::Pages, Operation::Read).bytes;
        // Superblocks are looked for in 128 KiB, as the size of a block is not known yet.
        assert!(read < 144 << 10, "{read} bytes were read of {live}");
        assert_eq!(db.stats().pages(), leaves, "what was not read is counted");
        let is_changed = |round: u64| {
            (0..changed).all(|leaf| db.get(key(leaf * step + round)).unwrap().unwrap() == [round as u8; 110])
        };
        assert!((1..=3).all(is_changed), "an appended entry was not read back");
    });
}

#[test]
fn an_idle_store_makes_no_call_though_its_background_runs() {
    within(HANG, || {
        let storage = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
        let disk = storage.clone();
        let db = small_tree(Config::new().flush_every_ms(Some(20)))
            .page_cache(|builder| builder.storage(disk))
            .open()
            .unwrap();
        let idle_for = |length: Duration| {
            let before = storage.snapshot();
            thread::sleep(length);
            storage.snapshot() - before
        };
        // The background may still be finishing what opening and writing left to do.
        let settles = || {
            let patience = Instant::now() + Duration::from_secs(10);
            while idle_for(Duration::from_millis(100)) != Counts::default() {
                assert!(Instant::now() < patience, "the store does not come to rest");
            }
        };
        settles();
        assert_eq!(idle_for(Duration::from_millis(1100)), Counts::default(), "a store that was just opened");
        fill(&db, 0..2000);
        settles();
        assert_eq!(idle_for(Duration::from_millis(1100)), Counts::default(), "a store that was written to");
        assert!(db.get(key(1)).unwrap().is_some());
        settles();
        assert_eq!(idle_for(Duration::from_millis(1100)), Counts::default(), "a store that was read");
        drop(db);
    });
}

#[test]
fn a_held_iterator_or_value_stops_no_reclamation() {
    within(HANG, || {
        let counted = Counted::new();
        let db = counted.open(small_tree(Config::new()));
        fill(&db, 0..1000);
        let rewrite = |byte: u8| (0..1000).for_each(|number| put(&db, key(number), [byte; 60]));
        // Guards of other tests in this process may hold memory up for a moment.
        let comes_down_to = |goal: u64| {
            let patience = Instant::now() + Duration::from_secs(20);
            loop {
                rewrite(9);
                db.checkpoint().unwrap();
                let now = db.stats().page_memory_bytes();
                if now <= goal || Instant::now() > patience {
                    return now;
                }
            }
        };
        let before = (0..50).map(|_| comes_down_to(u64::MAX)).min().unwrap_or(0);
        let mut iter = db.iter();
        let first = iter.next().unwrap().unwrap();
        let value = db.get(key(500)).unwrap().unwrap();
        (0..50).for_each(rewrite);
        // The leaf that the iterator is in, what was just rewritten, and no more.
        let goal = before + before / 4;
        let held = comes_down_to(goal);
        assert!(held <= goal, "{held} bytes while an iterator is held, {before} before");
        assert_eq!((&*first.0, &*value), (&key(0)[..], &[9u8; 60][..]));
        assert_eq!(iter.count(), 999);
    });
}

#[test]
fn a_cleanly_closed_store_opens_and_closes_again_without_a_write() {
    within(HANG, || {
        let counted = Counted::new();
        let config = || small_tree(Config::new().cache_capacity_unchecked(24 << 10));
        let db = counted.open(config());
        fill(&db, 0..2000);
        (0..1000).for_each(|number| drop(db.remove(key(number)).unwrap()));
        db.close().unwrap();
        let before = counted.snapshot();
        let db = counted.open(config());
        assert_eq!(db.stats().log_tail_bytes(), 0, "nothing to replay");
        let opened = counted.snapshot() - before;
        assert_eq!(mutating(&opened), [], "opening");
        assert_eq!(opened.tally(FileId::Log, Operation::Read).calls, 0, "the log was read");
        assert_eq!(db.len(), 1000);
        assert_eq!(mutating(&(counted.snapshot() - before)), [], "reading");
        db.close().unwrap();
        assert_eq!(mutating(&(counted.snapshot() - before)), [], "closing after reading");
        // A drop is a close too.
        drop(counted.open(config()));
        assert_eq!(mutating(&(counted.snapshot() - before)), [], "closing at once");
        let db = counted.open(config());
        assert_eq!(mutating(&(counted.snapshot() - before)), [], "up to the first append");
        db.insert("first", "append").unwrap();
        assert_ne!(mutating(&(counted.snapshot() - before)), [], "the first append publishes a salt");
    });
}
