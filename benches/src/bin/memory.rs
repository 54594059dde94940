//! Data of ten times the memory under mixed load: what the process takes at its peak, and who has it.
//!
//! `cargo run --release -p benches --bin memory -- [--mib 32,128,512] [--times 10] [--dir DIRECTORY]`
//!
//! Each budget is a process of its own that loads records of 24 + 40 to 2000 bytes, then reads, updates,
//! removes, scans and keeps iterators with three threads. The bound is the budget, a tenth of it, and
//! 32 MiB; the same run is made once more with the system refusing memory beyond it (`ulimit -d`). Fails if
//! one of them takes more or does not reach its end.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread::{Builder, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use tree::{Config, Db, IVec, Iter};

const KEY_BYTES: u64 = 24;
const VALUE_BYTES_MIN: u64 = 40;
const VALUE_BYTES_MAX: u64 = 2000;
const THREADS: u64 = 3;
/// Iterators that each thread keeps, each with an entry that it has returned.
const ITERATORS: usize = 24;
/// Bytes beside the budget that the process may take: for its code, its threads and their moments.
const BESIDE_BYTES: u64 = 32 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Args {
    mib: Vec<u64>,
    times: u64,
    dir: PathBuf,
    child: bool,
}

fn args() -> Result<Args> {
    let mut args = Args { mib: vec![32, 128, 512], times: 10, dir: std::env::temp_dir(), child: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--child" {
            args.child = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--mib" => args.mib = value.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?,
            "--times" => args.times = value.parse()?,
            "--dir" => args.dir = value.into(),
            _ => return Err(format!("unknown option {word}: there are --mib, --times, --dir").into()),
        }
    }
    Ok(args)
}

fn bound(budget: u64) -> u64 {
    budget + budget / 10 + BESIDE_BYTES
}

/// A pseudo-random sequence: Sebastiano Vigna's splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("user{number:020}").into_bytes()
}

fn value(random: &mut Random) -> Vec<u8> {
    // Many short ones, few long ones.
    let range = VALUE_BYTES_MAX - VALUE_BYTES_MIN;
    let bytes = VALUE_BYTES_MIN + random.below(range).min(random.below(range)).min(random.below(range));
    let seed = random.next().to_le_bytes();
    (0..bytes as usize).map(|at| seed[at % 8] ^ at as u8).collect()
}

/// A figure of `/proc/self/status`, in bytes.
fn status(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let figure = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or_else(|| format!("no {name}"))?;
    Ok(figure.trim().parse::<u64>()? * 1024)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Loads until the records have so many bytes; most keys come in order, one of eight does not. Returns how
/// many there are.
fn load(db: &Db, bytes: u64) -> Result<u64> {
    let mut random = Random(1);
    let (mut loaded, mut records) = (0, 0);
    while loaded < bytes {
        let number = if random.below(8) == 0 { random.below(records + 1) } else { records };
        records = records.max(number + 1);
        let value = value(&mut random);
        loaded += KEY_BYTES + value.len() as u64;
        db.put(key(number), value)?;
    }
    Ok(records)
}

/// One thread's part of the mixed load; returns its longest single read and its longest write.
fn mix(db: &Db, thread: u64, records: u64, steps: u64) -> Result<(Duration, Duration)> {
    let mut random = Random(100 + thread);
    let mut kept: Vec<(Iter, Option<(IVec, IVec)>)> = Vec::new();
    let (mut read, mut write) = (Duration::ZERO, Duration::ZERO);
    for step in 0..steps {
        let begun = Instant::now();
        match random.below(100) {
            0..35 => {
                let _ = db.get(key(random.below(records)))?;
                read = read.max(begun.elapsed());
            }
            35..50 => {
                let _ = db.get(key(random.below(records / 100)))?;
                read = read.max(begun.elapsed());
            }
            50..90 => {
                db.put(key(random.below(records)), value(&mut random))?;
                write = write.max(begun.elapsed());
            }
            90..92 => {
                let number = random.below(records);
                db.remove(key(number))?;
                db.put(key(number), value(&mut random))?;
            }
            92..96 => {
                for entry in db.range(key(random.below(records))..).take(200) {
                    entry?;
                }
            }
            _ => {
                let mut iter = db.range(key(random.below(records))..);
                let first = iter.next().transpose()?;
                if kept.len() == ITERATORS {
                    let _ = kept.swap_remove(random.below(ITERATORS as u64) as usize);
                }
                kept.push((iter, first));
            }
        }
        if thread == 0 && step == steps / 2 {
            for entry in db.iter() {
                entry?;
            }
        }
    }
    Ok((read, write))
}

/// Looks at the owners until `done`; returns the most of each, and of all together.
fn watch(db: &Db, done: &AtomicBool) -> (Vec<(&'static str, u64)>, u64) {
    let (mut most, mut total) = (Vec::new(), 0);
    while !done.load(Ordering::Relaxed) {
        let stats = db.stats();
        total = total.max(stats.memory_bytes());
        let owners: Vec<_> = stats.memory_owners().collect();
        if most.is_empty() {
            most = owners;
        } else {
            most.iter_mut()
                .zip(owners)
                .for_each(|(most, now): (&mut (_, u64), _)| most.1 = most.1.max(now.1));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    (most, total)
}

fn named(owners: impl IntoIterator<Item = (&'static str, u64)>) -> String {
    let owners: Vec<String> =
        owners.into_iter().map(|(name, bytes)| format!("{name} {:.1}", mib(bytes))).collect();
    owners.join(", ")
}

/// A thread of the load. Its stack is no part of the store's memory, so it is small.
fn spawn<'s, 'e, T: Send + 's>(
    scope: &'s Scope<'s, 'e>,
    work: impl FnOnce() -> T + Send + 's,
) -> std::io::Result<ScopedJoinHandle<'s, T>> {
    Builder::new().stack_size(512 << 10).spawn_scoped(scope, work)
}

fn child(budget: u64, times: u64, dir: &Path) -> Result<()> {
    let db = Config::new().path(dir).cache_capacity(budget).open()?;
    let begun = Instant::now();
    let done = AtomicBool::new(false);
    let (records, steps, loaded, after_load, longest, (most, total)) = std::thread::scope(|scope| {
        let (db, done) = (&db, &done);
        let watcher = spawn(scope, move || watch(db, done))?;
        let records = load(db, budget * times)?;
        let (loaded, after_load) = (begun.elapsed(), status("VmHWM")?);
        let steps = records / 8 / THREADS;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| spawn(scope, move || mix(db, thread, records, steps)))
            .collect::<std::result::Result<_, _>>()?;
        let longest: Vec<(Duration, Duration)> = threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread of the load"))
            .collect::<Result<_>>()?;
        done.store(true, Ordering::Relaxed);
        let watched = watcher.join().expect("the watcher");
        Ok::<_, Box<dyn Error + Send + Sync>>((records, steps, loaded, after_load, longest, watched))
    })?;
    let (stats, anon, peak) = (db.stats(), status("RssAnon")?, status("VmHWM")?);
    let longest = longest.iter().fold((Duration::ZERO, Duration::ZERO), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    println!(
        "  records             {records}, loaded in {loaded:.1?}, {} steps in {:.1?}",
        steps * THREADS,
        begun.elapsed() - loaded
    );
    println!("  longest read, write {:.1?}, {:.1?}", longest.0, longest.1);
    println!(
        "  peak                {:.1} MiB, {:.1} after the load; bound {:.1}",
        mib(peak),
        mib(after_load),
        mib(bound(budget))
    );
    println!("  anonymous           {:.1} MiB, {:.1} by owners", mib(anon), mib(stats.memory_bytes()));
    println!("  owners              {}", named(stats.memory_owners()));
    println!("  most of each        {}; {:.1} together", named(most), mib(total));
    println!("  data and mappings   {:.1} MiB", mib(status("VmData")?));
    db.close()?;
    let peak = status("VmHWM")?;
    println!("  at the end          peak {:.1} MiB", mib(peak));
    if peak > bound(budget) {
        return Err(format!("the peak is beyond the bound of {:.1} MiB", mib(bound(budget))).into());
    }
    Ok(())
}

fn run(args: &Args, mib: u64, limited: bool) -> Result<bool> {
    let dir = args.dir.join(format!("memory-{}", std::process::id()));
    let program = std::env::current_exe()?;
    let limit_kib = if limited { (bound(mib << 20) / 1024).to_string() } else { "unlimited".to_owned() };
    println!("budget {mib} MiB, data {} MiB, ulimit -d {limit_kib}", mib * args.times);
    let done = Command::new("sh")
        .args(["-c", "ulimit -d \"$0\" && exec \"$@\"", &limit_kib])
        .arg(program)
        .args(["--child", "--mib", &mib.to_string(), "--times", &args.times.to_string(), "--dir"])
        .arg(&dir)
        .status()?;
    fs::remove_dir_all(&dir)?;
    println!("  {done}");
    Ok(done.success())
}

fn main() -> Result<()> {
    let args = args()?;
    if args.child {
        return child(args.mib[0] << 20, args.times, &args.dir);
    }
    let mut held = true;
    for &mib in &args.mib {
        for limited in [false, true] {
            held &= run(&args, mib, limited)?;
        }
    }
    if held { Ok(()) } else { Err("a run did not reach its end within its bound".into()) }
}
