//! What large values cost, counted: bytes written, length of the file, memory.

use std::{io::Read, sync::Arc};

use pagecache::io::{CountingStorage, Operation, SyncReason, sim::SimDisk};
use tree::{Config, Db, Error};

use super::{SEGMENT, bytes, world};

const MIB: usize = 1 << 20;

/// Bytes without end, made as they are read.
struct Pattern(u64);

impl Read for Pattern {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        for (byte, at) in out.iter_mut().zip(self.0..) {
            *byte = (at % 253) as u8 ^ (at >> 20) as u8;
        }
        self.0 += out.len() as u64;
        Ok(out.len())
    }
}

fn counted(cache_bytes: u64) -> (Arc<CountingStorage>, Db) {
    let storage = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
    let db = Config::new()
        .cache_capacity_unchecked(cache_bytes)
        .flush_every_ms(None)
        .page_cache(|builder| builder.storage(storage.clone()))
        .open()
        .expect("a new store opens");
    (storage, db)
}

/// A value of 100 MiB through a memory for pages of 4 MiB: written once, synced once, never resident.
#[test]
fn a_large_value_is_written_once_and_never_lies_in_page_memory() {
    let (storage, db) = counted(4 << 20);
    let before = storage.snapshot();
    let bytes = 100 * MIB as u64;
    let lsn = db.put_from("film", bytes, Pattern(0)).unwrap();
    db.wait_durable(lsn).unwrap();
    let after = storage.snapshot();
    let written = after.total(Operation::Write).bytes - before.total(Operation::Write).bytes;
    assert!(written * 100 <= bytes * 105, "{written} bytes were written for {bytes}");
    assert_eq!(after.syncs(SyncReason::Values) - before.syncs(SyncReason::Values), 1);
    assert!(db.stats().page_memory_bytes() < 4 << 20, "{:?}", db.stats());
    assert!(matches!(db.get("film"), Err(Error::TooLarge { .. })));
    assert!(matches!(db.insert("film", "short"), Err(Error::TooLarge { .. })), "it would return the old one");
    let mut reader = db.get_reader("film").unwrap().expect("it is there");
    let (mut got, mut want) = (vec![0; 3 * MIB / 2], vec![0; 3 * MIB / 2]);
    let mut source = Pattern(0);
    loop {
        let len = reader.read(&mut got).unwrap();
        if len == 0 {
            break;
        }
        source.read_exact(&mut want[..len]).unwrap();
        assert!(got[..len] == want[..len], "before byte {}", source.0);
    }
    assert_eq!(source.0, bytes);
    assert!(db.stats().page_memory_bytes() < 4 << 20, "{:?}", db.stats());
    drop(reader);
    db.put("film", "short").unwrap();
    db.checkpoint().unwrap();
    assert!(db.stats().pages_file_bytes() < 8 * MIB as u64, "{:?}", db.stats());
}

/// The file was as long as all values that ever were: freed ones waited for a checkpoint, and the log,
/// which holds only their names, asked for none.
#[test]
fn a_thousand_overwrites_leave_the_file_bounded() {
    let dir = std::env::temp_dir().join(format!("values-{}", std::process::id()));
    let open = || Config::new().path(&dir).flush_every_ms(None).inline_bytes_max(4096).open().unwrap();
    let db = open();
    let value = vec![7; MIB];
    let mut longest = 0;
    for _ in 0..1000 {
        db.put("k", &value).unwrap();
        longest = longest.max(db.stats().pages_file_bytes());
    }
    assert!(longest <= 8 * MIB as u64, "the file was {longest} bytes long, one value has {MIB}");
    db.close().unwrap();
    let db = open();
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&value[..]));
    db.recount().unwrap();
    db.close().unwrap();
    let _ = std::fs::remove_dir_all(&dir);
}

/// Values of which none fills a segment share segments: the file is not much longer than they are.
#[test]
fn values_fill_their_segments() {
    let world = world(1 << 30);
    let db = world.open(1).unwrap();
    let lens = [SEGMENT * 6 / 10, SEGMENT * 3 / 4, SEGMENT + 1000, 700, 3 * SEGMENT - 500];
    let mut sum = 0;
    for number in 0..200_u64 {
        let len = lens[number as usize % lens.len()];
        sum += len as u64;
        db.insert(number.to_be_bytes(), bytes(len, number)).unwrap();
    }
    db.checkpoint().unwrap();
    let file = db.stats().pages_file_bytes();
    assert!(file * 100 <= sum * 115 + 100 * 8 * SEGMENT as u64, "{file} bytes for {sum}");
    let left: u64 = (0..200_u64)
        .filter(|number| number % 4 != 0)
        .map(|number| db.remove(number.to_be_bytes()).unwrap().expect("it was there").len() as u64)
        .sum();
    db.compact().unwrap();
    let (file, sum) = (db.stats().pages_file_bytes(), sum - left);
    assert!(file * 100 <= sum * 115 + 100 * 8 * SEGMENT as u64, "{file} bytes for {sum}");
}
