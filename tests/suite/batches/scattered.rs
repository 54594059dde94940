//! One batch over far more leaves than memory holds.

use std::sync::Arc;

use pagecache::io::{CountingStorage, FileId, Operation, sim::SimDisk};
use tree::{Batch, Config, Db};

const VALUE_BYTES: usize = 760;

fn key(number: usize) -> [u8; 8] {
    (number as u64).to_be_bytes()
}

/// Puts one record into each of `leaves` leaves that hold about ten, in one batch.
///
/// The leaves that were loaded for the batch pushed each other out before the first install, for ever;
/// or all of them stayed, ten times what memory may hold.
fn scatter(leaves: usize) {
    let storage = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
    let budget = leaves as u64 * 800;
    let open = |cache: u64| -> Db {
        let storage = storage.clone();
        let config = Config::new().cache_capacity_unchecked(cache).flush_every_ms(None);
        config.page_cache(|builder| builder.storage(storage)).open().unwrap()
    };
    let db = open(1 << 30);
    for start in (0..leaves * 10).step_by(500) {
        let mut batch = Batch::default();
        for number in start..start + 500 {
            batch.insert(&key(number), vec![b'.'; VALUE_BYTES]);
        }
        db.apply_batch(batch).unwrap();
    }
    db.close().unwrap();
    let db = open(budget);
    let pages = db.stats().pages();
    assert!(pages as usize > leaves * 3 / 4, "{pages} pages for {leaves} leaves");
    let mut batch = Batch::default();
    for number in 0..leaves {
        batch.insert(&key(number * 10), &b"scattered"[..]);
    }
    let before = storage.snapshot();
    db.apply_batch(batch).unwrap();
    let reads = (storage.snapshot() - before).tally(FileId::Pages, Operation::Read).calls;
    assert!(reads <= 2 * pages, "{reads} reads for {pages} pages");
    let resident = db.stats().resident_bytes();
    assert!(resident <= budget + budget / 4, "{resident} bytes are resident, {budget} were allowed");
    for number in (0..leaves * 10).step_by(7) {
        let got = db.get(key(number)).unwrap().unwrap();
        assert_eq!(got.len(), if number % 10 == 0 { 9 } else { VALUE_BYTES }, "record {number}");
    }
    assert_eq!(db.len(), leaves * 10);
}

#[test]
fn a_batch_over_leaves_of_ten_times_the_memory_reads_each_a_bounded_number_of_times() {
    scatter(1500);
}

#[test]
#[ignore = "a long proof: `cargo test -p tests -- --ignored scattered::`"]
fn ten_thousand_scattered_puts_over_leaves_of_ten_times_the_memory() {
    scatter(10_000);
}
