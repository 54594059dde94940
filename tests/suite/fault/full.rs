//! A full disk: nothing is poisoned, reads go on, and the same handle writes again when there is room.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use pagecache::io::sim::{Chooser, FaultPlan};
use tree::{Batch, Config, Db, Error};

use super::{
    each,
    workload::{Model, Run, World, contents},
};

fn is_full(error: &Error) -> bool {
    matches!(error, Error::DiskFull { .. })
}

/// A disk of every size up to what the workload needs: each error says that it is full, and once it
/// has grown the same handle does all that was refused.
#[test]
fn a_full_disk_heals_without_reopening() {
    for seed in tests::seeds(2) {
        let sectors = 64;
        each(sectors * 2, |case| {
            let cache = if case % 2 == 0 { 1 << 30 } else { 4 << 10 };
            let capacity = (1 + case / 2) * 512;
            let place = format!("seed {seed}, a disk of {capacity} bytes, cache {cache}");
            let world = World::new(cache);
            world.disk.set_faults(FaultPlan::new().capacity(capacity));
            let mut run = Run::new(&world, seed);
            run.go();
            let strange = run.errors.iter().find(|error| !is_full(error));
            assert!(strange.is_none(), "{place}: {strange:?}");
            let (db, mut model) = run.into_store();
            world.disk.set_capacity(None);
            // The store may have been too large to be made, or to be opened again.
            let db =
                db.unwrap_or_else(|| world.open().unwrap_or_else(|error| panic!("{place}, grown: {error}")));
            heal(&db, &mut model, &place);
            world.disk.cut_power();
            drop(db);
            let found = world.crash(Chooser::none()).open().and_then(|db| contents(&db));
            assert_eq!(
                found.unwrap_or_else(|error| panic!("{place}, crashed: {error}")),
                model,
                "{place}, crashed"
            );
        });
    }
}

/// The store holds `model` and does everything again.
fn heal(db: &Db, model: &mut Model, place: &str) {
    let told =
        |what: &str, outcome: tree::Result<()>| outcome.unwrap_or_else(|e| panic!("{place}, {what}: {e}"));
    let read = |model: &Model| {
        let found = contents(db).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(&found == model, "{place}: it holds {found:?} instead of {model:?}");
    };
    read(model);
    for n in 0..40 {
        let (key, value) = (format!("{n:04} healed"), vec![b'h'; 50]);
        told("insert", db.insert(&key, &value[..]).map(drop));
        model.insert(key.into_bytes(), value);
    }
    let mut batch = Batch::default();
    for (key, _) in model.iter().step_by(3) {
        batch.remove(&key[..]);
    }
    told("batch", db.apply_batch(batch));
    *model = std::mem::take(model)
        .into_iter()
        .enumerate()
        .filter(|(n, _)| n % 3 != 0)
        .map(|(_, entry)| entry)
        .collect();
    told("flush", db.flush().map(drop));
    told("checkpoint", db.checkpoint());
    read(model);
}

/// Nothing was ever let in, and every later open said that the store begins with the wrong page: the
/// pages of the first try had been freed, and came back in another order.
#[test]
fn a_store_that_had_no_room_to_be_made_is_made_later() {
    for sectors in 0..32 {
        let world = World::new(1 << 30);
        world.disk.set_faults(FaultPlan::new().capacity(sectors * 512));
        for _ in 0..2 {
            if let Err(error) = world.open() {
                assert!(is_full(&error), "{sectors} sectors: {error}");
            }
        }
        world.disk.set_capacity(None);
        let db = world.open().unwrap_or_else(|error| panic!("{sectors} sectors: {error}"));
        db.insert("a", "b")
            .and_then(|_| db.flush())
            .unwrap_or_else(|error| panic!("{sectors} sectors: {error}"));
    }
}

/// A small file system of its own, gone when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(name: &str, bytes: usize) -> io::Result<Tmpfs> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output()?;
        if mounted.status.success() {
            return Ok(Tmpfs(path));
        }
        fs::remove_dir(&path)?;
        Err(io::Error::other(String::from_utf8_lossy(&mounted.stderr).trim().to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // What cannot be taken away is left to the machine; the test has its answer.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

fn open(path: &Path) -> tree::Result<Db> {
    let small = |builder: pagecache::ConfigBuilder| {
        builder
            .log_segment_bytes(64 << 10)
            .log_capacity(512 << 10)
            .checkpoint_every_bytes(256 << 10)
            .store_segment_bytes(64 << 10)
    };
    Config::new().path(path).page_cache(small).open()
}

#[test]
fn a_full_file_system_heals_without_reopening() {
    let disk = match Tmpfs::mount("full-store", 4 << 20) {
        Ok(disk) => disk,
        Err(error) => {
            println!("SKIPPED: no file system of four megabytes can be mounted here: {error}");
            return;
        }
    };
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 2 << 20]).expect("there is room for the ballast");
    let path = disk.0.join("store");
    let db = open(&path).expect("there is room for a new store");
    let key = |n: u32| n.to_be_bytes();
    let value = |n: u32| vec![n as u8; 300];
    let mut count = 0;
    let refused = loop {
        match db.insert(key(count), value(count)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 100_000, "thirty megabytes fit into four");
    };
    assert!(is_full(&refused), "{refused}");
    assert!(count > 100, "only {count} entries fitted");
    let check = |db: &Db, from: u32, to: u32| {
        let entries = db.iter().map(|entry| entry.expect("reads go on"));
        let found: Vec<u32> = entries
            .map(|(key, found)| {
                let n = u32::from_be_bytes(key[..].try_into().expect("keys of four bytes"));
                assert_eq!(found, value(n), "{n}");
                n
            })
            .collect();
        assert!(found.iter().copied().eq(from..to), "{} entries instead of {from}..{to}", found.len());
    };
    check(&db, 0, count);
    match db.flush() {
        Ok(_) => {}
        Err(error) => assert!(is_full(&error), "{error}"),
    }

    fs::remove_file(&ballast).expect("the ballast is there");
    for n in 0..20 {
        assert!(db.remove(key(n)).expect("there is room again").is_some(), "{n} was there");
    }
    for n in count..count + 200 {
        db.insert(key(n), value(n)).expect("there is room again");
    }
    db.flush().expect("there is room again");
    db.checkpoint().expect("there is room again");
    check(&db, 20, count + 200);
    db.close().expect("there is room again");
    check(&open(&path).expect("it opens again"), 20, count + 200);
}
