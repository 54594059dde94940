//! What a child process does: one group of rows on one engine.
//!
//! Keys and records are made in pieces outside of the timed parts. Every byte of every value that is
//! read is checked, in the timed part, at the same small price for all engines.

use std::{
    hint::black_box,
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    args::{Args, Group},
    engine::{self, Engine, Visit},
    machine,
    raw::RawFile,
    rows::{self, tell},
    workload::{KEY_BYTES, Numbers, check, key, value},
};

type Key = [u8; KEY_BYTES];

/// What a child prints when it may be killed.
pub(crate) const READY: &str = "ready";

/// Records made at once, outside of the timed parts.
const PIECE: u64 = 4_096;
const READS_MAX: u64 = 1_000_000;
const RANGES_MAX: u64 = 100_000;
const BATCHES_MAX: u64 = 200;
const SINGLES: u64 = 2_000;

/// Runs a group on the engine that `args` name.
pub(crate) fn run(group: Group, args: &Args) -> Result<()> {
    let name = args.engines.first().ok_or("a child needs an engine")?;
    engine::dispatch(name, Run { group, args })
}

struct Run<'a> {
    group: Group,
    args: &'a Args,
}

impl Visit for Run<'_> {
    fn with<E: Engine>(self) -> Result<()> {
        let started = Instant::now();
        let db = E::open(&self.args.dir, self.args.cache_mib << 20)?;
        let n = self.args.n;
        match self.group {
            Group::Load => load(db, n),
            Group::Read => read(db, n, started),
            Group::Batch => batches(&db, n),
            Group::Sync => singles(&db, &self.args.dir),
            Group::Kill => load_and_wait(&db, n),
            Group::Recover => recover(&db, n, started),
        }
    }
}

/// Inserts records `from..to` in the order of their numbers, which is no order of keys.
fn insert(db: &impl Engine, from: u64, to: u64) -> Result<Duration> {
    let mut spent = Duration::ZERO;
    for start in (from..to).step_by(PIECE as usize) {
        let keys: Vec<_> = (start..to.min(start + PIECE)).map(key).collect();
        let values: Vec<_> = keys.iter().map(|key| value(key)).collect();
        let began = Instant::now();
        for (key, value) in keys.iter().zip(&values) {
            db.insert(key, value)?;
        }
        spent += began.elapsed();
    }
    Ok(spent)
}

fn load<E: Engine>(db: E, n: u64) -> Result<()> {
    let spent = insert(&db, 0, n)?;
    tell(rows::LOAD, n as f64 / spent.as_secs_f64());
    let began = Instant::now();
    db.close()?;
    tell(rows::CLOSE, began.elapsed().as_secs_f64());
    tell(rows::LOAD_RSS, machine::peak_memory_bytes()? as f64);
    Ok(())
}

fn read<E: Engine>(db: E, n: u64, started: Instant) -> Result<()> {
    get(&db, &key(n / 2))?;
    tell(rows::REOPEN, started.elapsed().as_secs_f64());
    // The first scan brings the records into the engine's cache, the second is measured.
    scan_all(&db, n)?;
    tell(rows::SCAN, n as f64 / scan_all(&db, n)?.as_secs_f64());
    let mut numbers = Numbers(n);
    let reads = n.min(READS_MAX);
    let spent = repeat(reads, &mut numbers, n, |key| get(&db, key))?;
    tell(rows::GET, reads as f64 / spent.as_secs_f64());
    let ranges = (n / 10).min(RANGES_MAX);
    let spent = repeat(ranges, &mut numbers, n, |key| range_of_ten(&db, key))?;
    tell(rows::RANGE, ranges as f64 / spent.as_secs_f64());
    tell(rows::READ_RSS, machine::peak_memory_bytes()? as f64);
    db.close()
}

/// Does `what` with so many keys of records below `n`.
fn repeat(
    times: u64,
    numbers: &mut Numbers,
    n: u64,
    mut what: impl FnMut(&Key) -> Result<()>,
) -> Result<Duration> {
    let mut spent = Duration::ZERO;
    for start in (0..times).step_by(PIECE as usize) {
        let keys: Vec<_> = (start..times.min(start + PIECE)).map(|_| key(numbers.below(n))).collect();
        let began = Instant::now();
        keys.iter().try_for_each(&mut what)?;
        spent += began.elapsed();
    }
    Ok(spent)
}

fn get(db: &impl Engine, key: &Key) -> Result<()> {
    let found = db.get(key, |value| check(key, value))?;
    if !found {
        return Err(format!("record {} is lost", String::from_utf8_lossy(key)).into());
    }
    Ok(())
}

fn range_of_ten(db: &impl Engine, from: &Key) -> Result<()> {
    let mut first = true;
    db.scan(from, 10, |key, value| {
        assert!(!first || key == from, "a range does not begin at its first key");
        first = false;
        check(key, value);
    })?;
    assert!(!first, "a range from a key that is there is empty");
    Ok(())
}

fn scan_all(db: &impl Engine, n: u64) -> Result<Duration> {
    let began = Instant::now();
    let (mut count, mut last) = (0_u64, Vec::new());
    db.scan(b"", usize::MAX, |key, value| {
        assert!(last.as_slice() < key, "a scan is out of order");
        last.clear();
        last.extend_from_slice(key);
        check(key, value);
        count += 1;
    })?;
    let spent = began.elapsed();
    if black_box(count) != n {
        return Err(format!("a scan found {count} records of {n}").into());
    }
    Ok(spent)
}

fn batches(db: &impl Engine, n: u64) -> Result<()> {
    let count = (n / 1_000).clamp(1, BATCHES_MAX);
    let mut spent = Duration::ZERO;
    for batch in 0..count {
        let record = |i| (key(i).to_vec(), value(&key(i)).to_vec());
        let records: Vec<_> = (batch * 1_000..(batch + 1) * 1_000).map(record).collect();
        let began = Instant::now();
        db.insert_batch(&records)?;
        db.sync()?;
        spent += began.elapsed();
    }
    tell(rows::BATCH, count as f64 * 1_000.0 / spent.as_secs_f64());
    for i in 0..count * 1_000 {
        get(db, &key(i))?;
    }
    Ok(())
}

/// Synced writes and the device's own, one of each in turn, so that both meet the same weather.
fn singles(db: &impl Engine, dir: &Path) -> Result<()> {
    let mut raw = RawFile::create(&dir.with_extension("raw"))?;
    let (mut ours, mut devices) = (Vec::new(), Vec::new());
    for i in 0..SINGLES {
        let (key, value) = (key(i), value(&key(i)));
        let began = Instant::now();
        db.insert(&key, &value)?;
        db.sync()?;
        ours.push(began.elapsed().as_secs_f64());
        // Whatever an engine left to the device is not the yardstick's to pay for.
        raw.write_and_sync()?;
        let began = Instant::now();
        raw.write_and_sync()?;
        devices.push(began.elapsed().as_secs_f64());
    }
    raw.remove()?;
    for (rate, median, mut times) in
        [(rows::SINGLE, rows::SINGLE_MEDIAN, ours), (rows::RAW, rows::RAW_MEDIAN, devices)]
    {
        tell(rate, times.len() as f64 / times.iter().sum::<f64>());
        times.sort_by(f64::total_cmp);
        tell(median, times[times.len() / 2]);
    }
    for i in 0..SINGLES {
        get(db, &key(i))?;
    }
    Ok(())
}

/// Loads and syncs, writes a hundredth more without sync, and waits for the end.
fn load_and_wait(db: &impl Engine, n: u64) -> Result<()> {
    insert(db, 0, n)?;
    db.sync()?;
    insert(db, n, n + n / 100)?;
    println!("{READY}");
    std::io::stdout().flush()?;
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// The first get after a kill, and then that every synced record is there.
fn recover(db: &impl Engine, n: u64, started: Instant) -> Result<()> {
    get(db, &key(n / 2))?;
    tell(rows::RECOVER, started.elapsed().as_secs_f64());
    for i in 0..n {
        get(db, &key(i))?;
    }
    Ok(())
}
