//! The log alone, beside the device it writes to: `log [DIRECTORY]`.
//!
//! Three rows: the processor's part of an append, over files that keep no log; the rate of appends
//! against plain sequential writes; durable appends of some threads against one block and one sync.
//! Numbers of one run are to be compared with each other, and with nothing else.

use std::{
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pagecache::{
    ConfigBuilder, Log, SegmentMode,
    io::{FileId, FileStorage, Storage, SyncReason},
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const RECORD: [u8; 200] = [0x5A; 200];
const APPENDS: u64 = 1 << 21;
const SEQUENTIAL_BYTES: u64 = 1 << 30;
const PIECE_BYTES: usize = 2 << 20;
const ROUNDS: usize = 5;
/// As the headers of Linux have it, but for a few processors.
const O_DIRECT: i32 =
    if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o200_000 } else { 0o40_000 };
const COMMIT_TIME: Duration = Duration::from_secs(2);

/// A directory in which the log's bytes go nowhere, and which counts the log's syncs.
#[derive(Debug)]
struct Counted {
    files: FileStorage,
    discards: bool,
    syncs: AtomicU64,
}

impl Storage for Counted {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        self.files.exists(file)
    }
    fn create(&self, file: FileId) -> io::Result<()> {
        self.files.create(file)
    }
    fn len(&self, file: FileId) -> io::Result<u64> {
        self.files.len(file)
    }
    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.files.read_at(file, offset, buf)
    }
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.discards && file == FileId::Log { Ok(()) } else { self.files.write_at(file, offset, bytes) }
    }
    fn write_durably(&self, file: FileId, offset: u64, bytes: &[u8], reason: SyncReason) -> io::Result<()> {
        if file == FileId::Log {
            self.syncs.fetch_add(1, Ordering::Relaxed); // a count only
        }
        if self.discards && file == FileId::Log {
            return Ok(());
        }
        self.files.write_durably(file, offset, bytes, reason)
    }
    fn allocate(&self, file: FileId, offset: u64, len: u64) -> io::Result<bool> {
        if self.discards && file == FileId::Log { Ok(true) } else { self.files.allocate(file, offset, len) }
    }
    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.files.set_len(file, len)
    }
    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        if file == FileId::Log {
            self.syncs.fetch_add(1, Ordering::Relaxed); // a count only
        }
        if self.discards && file == FileId::Log { Ok(()) } else { self.files.sync(file, reason) }
    }
    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.files.rename(from, to)
    }
    fn remove(&self, file: FileId) -> io::Result<()> {
        self.files.remove(file)
    }
    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        self.files.sync_names(reason)
    }
    fn lock(&self) -> io::Result<()> {
        self.files.lock()
    }
    fn unlock(&self) {
        self.files.unlock();
    }
    fn path(&self, file: FileId) -> PathBuf {
        self.files.path(file)
    }
}

fn open(dir: &Path, discards: bool) -> Result<(Log, Arc<Counted>)> {
    let files = FileStorage::open(dir, true)?.past_cache();
    let storage = Arc::new(Counted { files, discards, syncs: AtomicU64::new(0) });
    let config = ConfigBuilder::new().segment_mode(SegmentMode::Linear).flush_every_ms(None);
    Ok((Log::start_raw_log(config.storage(storage.clone()).build())?, storage))
}

fn append(dir: &Path) -> Result<()> {
    let (log, _) = open(dir, true)?;
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..APPENDS / 5 {
            log.write(RECORD)?;
        }
        rounds.push(begun.elapsed().as_nanos() as u64 / (APPENDS / 5));
    }
    rounds.sort_unstable();
    println!("append of 200 bytes, nothing kept: {} ns (median of {rounds:?})", rounds[2]);
    Ok(())
}

/// Writes a new file front to back and makes it durable; returns the rate in bytes a second.
fn plain_writes(path: &Path, extra: i32, piece: &[u8]) -> Result<f64> {
    let file = OpenOptions::new().create_new(true).write(true).custom_flags(extra).open(path)?;
    let begun = Instant::now();
    for at in (0..SEQUENTIAL_BYTES).step_by(piece.len()) {
        file.write_all_at(piece, at)?;
    }
    file.sync_data()?;
    let rate = SEQUENTIAL_BYTES as f64 / begun.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

fn log_appends(dir: &Path) -> Result<f64> {
    let (log, _) = open(dir, false)?;
    let begun = Instant::now();
    let records = SEQUENTIAL_BYTES / (24 + RECORD.len() as u64);
    for _ in 0..records {
        log.write(RECORD)?;
    }
    log.flush()?;
    let rate = SEQUENTIAL_BYTES as f64 / begun.elapsed().as_secs_f64();
    drop(log);
    fs::remove_dir_all(dir)?;
    Ok(rate)
}

/// The same number of bytes into a new file of the same directory, in turns: through the system's cache,
/// past it where the file system allows that, and as records of a log. Each is durable at the end.
fn sequential(dir: &Path) -> Result<()> {
    let memory = vec![0xA5; PIECE_BYTES + 4096];
    let piece = &memory[memory.as_ptr().align_offset(4096)..][..PIECE_BYTES];
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        rates[0].push(plain_writes(&dir.join("cached"), 0, piece)?);
        // Refused, as by a file system in memory, leaves a row out.
        rates[1].extend(plain_writes(&dir.join("direct"), O_DIRECT, piece).ok());
        rates[2].push(log_appends(&dir.join("rate"))?);
    }
    let [cached, direct, log] = rates.map(|mut rates| {
        rates.sort_unstable_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    });
    let log = log.unwrap_or_default();
    println!("appends to a growing file: {:.0} MB/s (medians of {ROUNDS} rounds in turns)", log / 1e6);
    for (name, rate) in [("through the cache", cached), ("past the cache", direct)] {
        if let Some(rate) = rate {
            println!(
                "  plain sequential writes {name}: {:.0} MB/s, the log has {:.2}",
                rate / 1e6,
                log / rate
            );
        }
    }
    Ok(())
}

fn commits(dir: &Path) -> Result<()> {
    let path = dir.join("blocks");
    let file = File::create(&path)?;
    (0..1024).try_for_each(|n| file.write_all_at(&[1; 4096], n * 4096))?;
    file.sync_all()?;
    let (begun, mut raw) = (Instant::now(), 0_u64);
    while begun.elapsed() < COMMIT_TIME {
        file.write_all_at(&[2; 4096], raw % 1024 * 4096)?;
        file.sync_data()?;
        raw += 1;
    }
    let raw = raw as f64 / begun.elapsed().as_secs_f64();
    println!("one block and one sync: {raw:.0}/s");
    for threads in [1, 8, 64] {
        let (log, storage) = open(&dir.join(format!("commits-{threads}")), false)?;
        log.write(RECORD)?;
        log.flush()?;
        let before = storage.syncs.load(Ordering::Relaxed);
        let begun = Instant::now();
        let done = thread::scope(|scope| -> Result<u64> {
            let work = || -> Result<u64> {
                let mut count = 0;
                while begun.elapsed() < COMMIT_TIME {
                    let (lsn, _) = log.write(RECORD)?;
                    log.make_stable(lsn)?;
                    count += 1;
                }
                Ok(count)
            };
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let counts = running.into_iter().map(|one| one.join().map_err(|_| "a writer panicked")?);
            counts.sum()
        })?;
        let (rate, syncs) =
            (done as f64 / begun.elapsed().as_secs_f64(), storage.syncs.load(Ordering::Relaxed) - before);
        println!(
            "commits of {threads} threads: {rate:.0}/s, {:.2} of raw, {:.1} a sync",
            rate / raw,
            done as f64 / syncs as f64
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("log-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let outcome = append(&dir.join("append")).and_then(|()| sequential(&dir)).and_then(|()| commits(&dir));
    fs::remove_dir_all(&dir)?;
    outcome
}
