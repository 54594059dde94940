//! Pages that everybody writes to all the time: they must be written back nevertheless, or the log
//! behind them can never be used again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pagecache::io::sim::SimDisk;
use tests::{small_tree, within};
use tree::{Batch, Config, Db};

const HANG: Duration = Duration::from_secs(120);
const LOG_BYTES: u64 = 256 << 10;
/// Many times the log's capacity, in records of some sixty bytes.
const WRITES: u64 = 30_000;

fn open(disk: &Arc<SimDisk>) -> Db {
    let disk = disk.clone();
    small_tree(Config::new().flush_every_ms(Some(5)))
        .page_cache(|builder| builder.storage(disk).log_capacity(LOG_BYTES))
        .open()
        .unwrap()
}

/// Three threads put to one key without a pause. The log is 256 KiB: it must be cut again and again.
#[test]
fn a_hot_page_does_not_keep_the_log_from_being_cut() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let db = open(&disk);
        thread::scope(|scope| {
            for thread in 0..3u64 {
                let db = &db;
                scope.spawn(move || {
                    for round in 0..WRITES {
                        db.put(b"hot", (thread * WRITES + round).to_le_bytes()).unwrap();
                    }
                });
            }
        });
        assert!(db.stats().log_file_bytes() <= LOG_BYTES, "{:?}", db.stats());
    });
}

/// Batches of four threads overlap on one leaf, so that some fragment is pending there almost always
/// (P-9). The leaf must be written back all the same.
#[test]
fn a_page_with_batches_always_pending_does_not_keep_the_log_from_being_cut() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let db = open(&disk);
        thread::scope(|scope| {
            for thread in 0..4u64 {
                let db = &db;
                scope.spawn(move || {
                    for round in 0..WRITES / 8 {
                        let mut batch = Batch::default();
                        for number in 0..6u64 {
                            batch.insert(
                                format!("{number}-{thread}").as_bytes(),
                                round.to_le_bytes().to_vec(),
                            );
                        }
                        db.apply_batch(batch)
                            .unwrap_or_else(|e| panic!("thread {thread}, round {round}: {e}"));
                    }
                });
            }
        });
        assert_eq!(db.len(), 24);
    });
}

/// A batch over many leaves is open, one thread keeps its leaves changing, and others fill the log.
#[test]
fn long_batches_and_a_small_log_get_along() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let db = open(&disk);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for thread in 0..2u64 {
                let (db, stop) = (&db, &stop);
                scope.spawn(move || {
                    let mut round = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        db.put(format!("{:04}", round * 7 % 200 * 2 + thread), vec![thread as u8; 100])
                            .unwrap_or_else(|e| panic!("thread {thread}, round {round}: {e}"));
                    }
                });
            }
            for round in 0..300u64 {
                let mut batch = Batch::default();
                for number in 0..100 {
                    batch.insert(format!("{:04}b", number * 4).as_bytes(), vec![round as u8; 40]);
                }
                if let Err(e) = db.apply_batch(batch) {
                    stop.store(true, Ordering::Relaxed);
                    panic!("round {round}: {e}");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(
            db.scan_prefix("").keys().filter(|key| key.as_ref().unwrap().ends_with(b"b")).count(),
            100
        );
    });
}
