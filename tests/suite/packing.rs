//! Pages are packed where that makes them shorter, and a store opens whatever the setting says.

use std::{sync::Arc, time::Duration};

use pagecache::io::{FileId, sim::SimDisk};
use tests::within;
use tree::{Config, Db};

const HANG: Duration = Duration::from_secs(60);
const RECORDS: u64 = 4000;
/// Where a superblock has its incompatible features, and the one that says that pages may be packed.
const FEATURES: std::ops::Range<usize> = 36..40;
const PACKED: u32 = 2;

fn open(disk: &Arc<SimDisk>, packs: bool) -> Db {
    let disk = disk.clone();
    let config = Config::new().use_compression(packs).flush_every_ms(None);
    config.page_cache(|builder| builder.storage(disk)).open().unwrap()
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number:08}").into_bytes()
}

fn value(number: u64, round: u64) -> Vec<u8> {
    format!("{{\"number\": {number}, \"round\": {round}, \"state\": \"as good as any other\"}}").into_bytes()
}

fn fill(db: &Db, round: u64, every: usize) {
    (0..RECORDS).step_by(every).for_each(|number| _ = db.put(key(number), value(number, round)).unwrap());
}

fn holds(db: &Db, round_of: impl Fn(u64) -> u64) {
    for number in 0..RECORDS {
        assert_eq!(db.get(key(number)).unwrap().unwrap(), value(number, round_of(number)), "{number}");
    }
    assert_eq!(db.len() as u64, RECORDS);
}

/// The features that either superblock names.
fn features(disk: &SimDisk) -> u32 {
    let pages = disk.contents(FileId::Pages).unwrap();
    let of = |block: usize| u32::from_le_bytes(pages[block..][FEATURES].try_into().unwrap());
    of(0) | of(4096)
}

fn closed(packs: bool) -> (Arc<SimDisk>, u64) {
    let disk = Arc::new(SimDisk::untraced());
    let db = open(&disk, packs);
    fill(&db, 0, 1);
    db.checkpoint().unwrap();
    fill(&db, 1, 100);
    db.close().unwrap();
    let bytes = disk.contents(FileId::Pages).unwrap().len() as u64;
    (disk, bytes)
}

#[test]
fn a_store_of_values_that_repeat_themselves_takes_half_the_room_or_less() {
    within(HANG, || {
        let ((_, plain), (_, packed)) = (closed(false), closed(true));
        assert!(packed * 2 < plain, "{packed} bytes packed, {plain} plain");
    });
}

#[test]
fn a_store_opens_whatever_the_setting_says() {
    within(HANG, || {
        let (disk, _) = closed(true);
        assert_eq!(features(&disk), PACKED);
        let round_of = |number: u64| u64::from(number.is_multiple_of(100));
        let db = open(&disk, false);
        holds(&db, round_of);
        // Plain delta-pages above packed images.
        fill(&db, 2, 50);
        db.checkpoint().unwrap();
        db.close().unwrap();
        let round_of = |number: u64| if number.is_multiple_of(50) { 2 } else { 0 };
        let db = open(&disk, true);
        holds(&db, round_of);
        // And packed ones above those.
        fill(&db, 3, 20);
        db.close().unwrap();
        let db = open(&disk, false);
        holds(&db, |number| if number.is_multiple_of(20) { 3 } else { round_of(number) });
        db.close().unwrap();
        assert_eq!(features(&disk), PACKED, "pages may still be packed");
    });
}

#[test]
fn a_store_that_never_packed_says_so() {
    within(HANG, || {
        let (disk, _) = closed(false);
        assert_eq!(features(&disk), 0);
        // Looking at it is no reason to keep older versions out.
        open(&disk, true).close().unwrap();
        assert_eq!(features(&disk), 0);
        let db = open(&disk, true);
        fill(&db, 2, 100);
        db.flush().unwrap();
        assert_eq!(features(&disk), PACKED, "before anything refers to a packed page");
        drop(db);
    });
}

#[test]
fn packed_pages_are_moved_as_they_are() {
    within(HANG, || {
        let ((disk, _), (_, plain)) = (closed(true), closed(false));
        let db = open(&disk, false);
        // The leaves of the other half stay as they are, packed, in a segment with what these supersede.
        (0..RECORDS / 2).for_each(|number| _ = db.put(key(number), value(number, 2)).unwrap());
        db.compact().unwrap();
        let moved = db.stats().pages_written_bytes().find(|(name, _)| *name == "moved").map_or(0, |(_, b)| b);
        assert!(moved > 0, "nothing was moved");
        let round_of =
            |number: u64| if number < RECORDS / 2 { 2 } else { u64::from(number.is_multiple_of(100)) };
        holds(&db, round_of);
        db.close().unwrap();
        let bytes = disk.contents(FileId::Pages).unwrap().len() as u64;
        assert!(bytes * 4 < plain * 3, "{bytes} bytes with one half packed, {plain} if all were plain");
        holds(&open(&disk, false), round_of);
    });
}
