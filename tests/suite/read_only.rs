//! Opening for reading alone: what is on the disk is shown and stays as it is.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pagecache::io::{
    CountingStorage, Counts, Operation,
    sim::{Chooser, SimDisk},
};
use tests::{small_tree, stepwise, within};
use tree::{Batch, Config, Db, Error};

const HANG: Duration = Duration::from_secs(60);
const KEYS: u64 = 3000;

fn on(storage: Arc<dyn pagecache::io::Storage>) -> Config {
    small_tree(Config::new()).flush_every_ms(None).page_cache(|builder| stepwise(builder, storage))
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

/// A store with a checkpoint and a tail above it, as it is when its process dies.
fn killed() -> (Arc<SimDisk>, BTreeMap<Vec<u8>, Vec<u8>>) {
    let disk = Arc::new(SimDisk::untraced());
    let db = on(disk.clone()).open().unwrap();
    let mut held = BTreeMap::new();
    for number in 0..KEYS {
        let value = format!("value {number}").into_bytes();
        db.insert(key(number), value.clone()).unwrap();
        held.insert(key(number), value);
        if number == KEYS / 2 {
            db.checkpoint().unwrap();
        }
    }
    for number in (0..KEYS).step_by(7) {
        db.remove(key(number)).unwrap();
        held.remove(&key(number));
    }
    db.flush().unwrap();
    let left = Arc::new(disk.crash(&mut Chooser::process_crash()));
    std::mem::forget(db);
    (left, held)
}

/// The same, closed.
fn closed() -> (Arc<SimDisk>, BTreeMap<Vec<u8>, Vec<u8>>) {
    let (disk, held) = killed();
    on(disk.clone()).open().unwrap().close().unwrap();
    (disk, held)
}

fn contents(db: &Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entry = |entry: tree::Result<(tree::IVec, tree::IVec)>| {
        let (key, value) = entry.expect("the entry reads");
        (key.to_vec(), value.to_vec())
    };
    db.iter().map(entry).collect()
}

fn mutating(counts: &Counts) -> u64 {
    let changing = Operation::ALL.into_iter().filter(|operation| operation.is_mutating());
    changing.map(|operation| counts.total(operation).calls).sum()
}

#[test]
fn a_reader_writes_nothing_to_a_closed_or_a_killed_store_and_sees_all_of_it() {
    within(HANG, || {
        for (name, (disk, held)) in [("closed", closed()), ("killed", killed())] {
            let counting = Arc::new(CountingStorage::new(disk.clone()));
            let before = disk.hash();
            let db = on(counting.clone()).read_only(true).open().unwrap();
            assert!(db.was_recovered(), "{name}");
            assert_eq!(contents(&db), held, "{name}");
            assert_eq!(db.get(key(1)).unwrap().as_deref(), held.get(&key(1)).map(Vec::as_slice), "{name}");
            assert_eq!(db.flush().unwrap(), 0, "{name}: nothing to flush");
            db.close().unwrap();
            let counts = counting.snapshot();
            assert!(counts.total(Operation::Read).calls > 0, "{name}");
            assert_eq!((mutating(&counts), counts.syncs_total()), (0, 0), "{name}: {counts:?}");
            assert_eq!(disk.hash(), before, "{name}");
            let db = on(disk).open().unwrap();
            assert_eq!(contents(&db), held, "{name}, written to again");
        }
    });
}

/// Pages that the tail changed cannot be written back, and must not be given up for it.
#[test]
fn a_reader_with_little_memory_evicts_what_it_can_and_writes_nothing() {
    within(HANG, || {
        let (disk, held) = killed();
        let counting = Arc::new(CountingStorage::new(disk));
        let db = on(counting.clone()).cache_capacity_unchecked(16 << 10).read_only(true).open().unwrap();
        for _ in 0..2 {
            assert_eq!(contents(&db), held);
            for number in (0..KEYS).rev().step_by(11) {
                let got = db.get(key(number)).unwrap();
                assert_eq!(got.as_deref(), held.get(&key(number)).map(Vec::as_slice), "{number}");
            }
        }
        drop(db);
        assert_eq!(mutating(&counting.snapshot()), 0);
    });
}

#[test]
fn every_write_on_a_reader_is_refused_and_names_the_remedy() {
    let (disk, held) = killed();
    let db = on(disk).read_only(true).open().unwrap();
    let mut batch = Batch::default();
    batch.insert("k", "v");
    let absent = None::<&[u8]>;
    let refusals = [
        ("insert", db.insert("k", "v").map(drop)),
        ("put", db.put("k", "v").map(drop)),
        ("remove", db.remove(key(1)).map(drop)),
        ("swap", db.compare_and_swap("k", absent, Some("v")).map(drop)),
        ("update", db.update_and_fetch(key(1), |_| Some("v")).map(drop)),
        ("pop", db.pop_min().map(drop)),
        ("batch", db.apply_batch(batch)),
        ("clear", db.clear()),
        ("checkpoint", db.checkpoint()),
        ("compact", db.compact()),
    ];
    for (call, refused) in refusals {
        let error = refused.expect_err(call);
        assert!(matches!(error, Error::ReadOnly { .. }), "{call}: {error:?}");
        assert!(error.to_string().contains("without read_only"), "{call}: {error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ReadOnlyFilesystem, "{call}");
    }
    assert_eq!(contents(&db), held);
}

#[test]
fn a_reader_makes_no_store() {
    let disk = Arc::new(SimDisk::untraced());
    let before = disk.hash();
    let refused = on(disk.clone()).read_only(true).open().map(drop);
    assert!(
        matches!(&refused, Err(Error::Unsupported(what)) if what.contains("there is no store")),
        "{refused:?}"
    );
    assert_eq!(disk.hash(), before);

    let refused = on(disk.clone()).read_only(true).create_new(true).open().map(drop);
    assert!(matches!(&refused, Err(Error::Unsupported(what)) if what.contains("create_new")), "{refused:?}");

    let folder = Folder::new();
    let missing = folder.0.join("missing");
    assert!(Config::new().path(&missing).read_only(true).open().is_err());
    assert!(!missing.exists());
}

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let name = format!("read_only.{}.{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Names, contents and times of change of a folder's files, and its own.
fn state(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    let of = |path: PathBuf| {
        let stat = fs::metadata(&path).expect("it is there");
        let bytes = if stat.is_file() { fs::read(&path).expect("it reads") } else { Vec::new() };
        (path, (bytes, stat.ctime(), stat.ctime_nsec()))
    };
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a name").path());
    files.chain([folder.to_owned()]).map(of).collect()
}

/// The access modes of this process's descriptors of files in a folder.
fn access_modes(folder: &Path) -> Vec<u32> {
    let open = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let modes = open.filter_map(|entry| {
        let path = fs::read_link(entry.path()).ok()?;
        if !path.starts_with(folder) || path == folder {
            return None;
        }
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        Some(u32::from_str_radix(&flags, 8).expect("octal") & 3)
    });
    modes.collect()
}

#[test]
fn a_reader_opens_no_file_for_writing_and_makes_none() {
    let folder = Folder::new();
    let config = small_tree(Config::new()).path(folder.0.join("db"));
    let db = config.open().unwrap();
    (0..500).for_each(|number| assert!(db.insert(key(number), "v").unwrap().is_none()));
    db.flush().unwrap();
    // A copy of the files of a store that was never closed.
    let copy = folder.0.join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["pages", "log"] {
        fs::copy(folder.0.join("db").join(name), copy.join(name)).unwrap();
    }
    drop(db);
    for path in [folder.0.join("db"), copy] {
        let before = state(&path);
        let db = config.clone().path(&path).read_only(true).open().unwrap();
        assert_eq!(db.count().unwrap(), 500);
        let modes = access_modes(&path);
        assert!(!modes.is_empty() && modes.iter().all(|mode| *mode == 0), "{modes:?}");
        assert!(matches!(config.clone().path(&path).open(), Err(Error::Locked { .. })));
        drop(db);
        assert_eq!(state(&path), before, "{}", path.display());
    }
}

#[test]
fn readers_share_a_store_and_keep_writers_out_and_a_writer_keeps_readers_out() {
    let folder = Folder::new();
    let config = small_tree(Config::new()).path(folder.0.join("db"));
    let reading = config.clone().read_only(true);
    let locked = |outcome: tree::Result<Db>| {
        let error = outcome.map(drop).expect_err("it is in use");
        let by_us = Some(std::process::id());
        assert!(matches!(&error, Error::Locked { holder, .. } if *holder == by_us), "{error:?}");
        assert!(error.to_string().contains("by this process"), "{error}");
    };
    let writer = config.open().unwrap();
    writer.insert("k", "v").unwrap();
    locked(reading.open());
    locked(config.open());
    drop(writer);
    let (one, two) = (reading.open().unwrap(), reading.open().unwrap());
    assert_eq!((one.count().unwrap(), two.count().unwrap()), (1, 1));
    locked(config.open());
    drop(one);
    locked(config.open());
    drop(two);
    config.open().unwrap();
}
