//! A store that is rewritten many times over: how long its file gets, how much is written for it, and
//! how long a writer waits, with cleaning and without.
//!
//! `cargo run --release -p benches --bin ageing -- [--n RECORDS] [--rounds K] [--load uniform|skewed]
//! [--cleaning on|off] [--checkpoint-bytes B] [--segment-bytes B] [--dir DIRECTORY]`; without a choice, both of
//! each. A quarter of a million records with checkpoints of 6 MiB and segments of 256 KiB behave as the million
//! with the defaults, in a quarter of the time.
//!
//! Records have 24 + 150 bytes and are updated one at a time by one thread. A skewed load sends nine of
//! ten updates to a tenth of the keys. "Written" is bytes of write calls, and of the blocks that they touch, which
//! is what the device gets at most. It is shown by what it is for: the log by its positions, the `pages` file by
//! its frames, and the rest, which is zeros under new segments of the log, superblocks, and blocks that two writes
//! share.

#[path = "ageing/blocks.rs"]
mod blocks;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use blocks::{Blocks, Touched};
use tree::{Config, Db};

const KEY_BYTES: u64 = 24;
const VALUE_BYTES: u64 = 150;
/// Updates between two looks at the file.
const LOOK_EVERY: u64 = 512;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Args {
    records: u64,
    rounds: u64,
    loads: Vec<Load>,
    cleaning: Vec<bool>,
    checkpoint_bytes: Option<u64>,
    segment_bytes: Option<usize>,
    dir: PathBuf,
}

fn args() -> Result<Args> {
    let mut args = Args {
        records: 1_000_000,
        rounds: 20,
        loads: vec![Load::Uniform, Load::Skewed],
        cleaning: vec![true, false],
        checkpoint_bytes: None,
        segment_bytes: None,
        dir: std::env::temp_dir(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--n" => args.records = value.replace('_', "").parse()?,
            "--rounds" => args.rounds = value.parse()?,
            "--load" if value == "uniform" => args.loads = vec![Load::Uniform],
            "--load" if value == "skewed" => args.loads = vec![Load::Skewed],
            "--cleaning" if value == "on" => args.cleaning = vec![true],
            "--cleaning" if value == "off" => args.cleaning = vec![false],
            "--checkpoint-bytes" => args.checkpoint_bytes = Some(value.parse()?),
            "--segment-bytes" => args.segment_bytes = Some(value.parse()?),
            "--dir" => args.dir = value.into(),
            _ => {
                let known = "--n, --rounds, --load uniform|skewed, --cleaning on|off, --checkpoint-bytes, \
                             --segment-bytes, --dir";
                return Err(format!("unknown option {word} {value}: there are {known}").into());
            }
        }
    }
    if args.records < 10 {
        return Err("--n must be at least 10".into());
    }
    Ok(args)
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

#[derive(Clone, Copy, Debug)]
enum Load {
    Uniform,
    Skewed,
}

impl Load {
    fn choose(self, records: u64, random: &mut Random) -> u64 {
        match self {
            Load::Skewed if random.below(10) < 9 => random.below(records / 10),
            _ => random.below(records),
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    // Spread, so that hot keys are not neighbours.
    format!("user{:020}", Random(number).next()).into_bytes()
}

fn value(random: &mut Random) -> Vec<u8> {
    let words = (0..VALUE_BYTES.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    words.take(VALUE_BYTES as usize).collect()
}

/// Times in buckets that grow by an eighth.
struct Times {
    buckets: Vec<u64>,
    longest: Duration,
}

impl Times {
    fn new() -> Times {
        Times { buckets: vec![0; 512], longest: Duration::ZERO }
    }

    fn add(&mut self, time: Duration) {
        let nanos = time.as_nanos().max(1) as u64;
        let power = u64::from(nanos.ilog2());
        let eighth = if power >= 3 { (nanos >> (power - 3)) & 7 } else { 0 };
        self.buckets[(power * 8 + eighth) as usize] += 1;
        self.longest = self.longest.max(time);
    }

    /// The upper end of the bucket that this share of the times does not exceed.
    fn at(&self, permille: u64) -> Duration {
        let all: u64 = self.buckets.iter().sum();
        let mut left = all * permille / 1000;
        for (bucket, count) in self.buckets.iter().enumerate() {
            if left < *count {
                let (power, eighth) = (bucket as u32 / 8, bucket as u64 % 8);
                return Duration::from_nanos(((9 + eighth) << power) >> 3);
            }
            left -= count;
        }
        self.longest
    }
}

/// Bytes of write calls of this process so far.
fn called() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar:"));
    line.and_then(|figure| figure.trim().parse().ok()).ok_or_else(|| format!("no wchar in {text}").into())
}

fn open(args: &Args, path: &Path, cleaning: bool, touched: &Touched) -> Result<Db> {
    let files = Blocks::open(path, touched)?;
    let config = Config::new().path(path).page_cache(|mut builder| {
        if let Some(bytes) = args.checkpoint_bytes {
            builder = builder.checkpoint_every_bytes(bytes);
        }
        if let Some(bytes) = args.segment_bytes {
            builder = builder.store_segment_bytes(bytes);
        }
        builder.storage(files).cleaning(cleaning)
    });
    Ok(config.open()?)
}

/// Bytes of frames written so far, by what for.
fn frames(db: &Db) -> Vec<(&'static str, u64)> {
    db.stats().pages_written_bytes().collect()
}

fn frames_since(db: &Db, before: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let since = |((name, now), (_, before)): ((&'static str, u64), &(_, u64))| (name, now - before);
    frames(db).into_iter().zip(before).map(since).filter(|(_, bytes)| *bytes > 0).collect()
}

fn run(args: &Args, load: Load, cleaning: bool) -> Result<()> {
    let path = args.dir.join(format!("ageing-{}", std::process::id()));
    let raw = args.records * (KEY_BYTES + VALUE_BYTES);
    let mut random = Random(1);
    let touched = Touched::default();
    let db = open(args, &path, cleaning, &touched)?;
    for number in 0..args.records {
        db.put(key(number), value(&mut random))?;
    }
    db.checkpoint()?;
    db.flush()?;
    let (mut of_live, mut of_raw, mut log, mut times) = (0.0_f64, 0.0_f64, 0, Times::new());
    let (calls, device) = (called()?, touched.bytes());
    let (frames, position) = (frames(&db), db.durable_lsn());
    let start = Instant::now();
    let updates = args.records * args.rounds;
    for update in 0..updates {
        let (key, value) = (key(load.choose(args.records, &mut random)), value(&mut random));
        let begun = Instant::now();
        db.put(key, value)?;
        times.add(begun.elapsed());
        if update % LOOK_EVERY == 0 {
            let stats = db.stats();
            of_live = of_live.max(stats.pages_file_bytes() as f64 / stats.pages_live_bytes() as f64);
            of_raw = of_raw.max(stats.pages_file_bytes() as f64 / raw as f64);
            log = log.max(stats.log_file_bytes());
        }
    }
    let took = start.elapsed();
    db.flush()?;
    let (calls_end, device_end) = (called()?, touched.bytes());
    let per_byte = |bytes: u64| bytes as f64 / (updates * (KEY_BYTES + VALUE_BYTES)) as f64;
    let logged = (db.durable_lsn() - position).unsigned_abs();
    let mut parts = vec![("log", logged)];
    parts.extend(frames_since(&db, &frames));
    let named: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    parts.push(("rest", (device_end - device).saturating_sub(named)));
    let live = db.stats().pages_live_bytes();
    db.close()?;
    let closed = fs::metadata(path.join("pages"))?.len() + fs::metadata(path.join("log"))?.len();
    println!("{load:?}, cleaning {}", if cleaning { "on" } else { "off" });
    println!("  pages file / reachable   {of_live:.3} at most");
    println!("  pages file / raw         {of_raw:.3} at most, and {} MiB of log", log >> 20);
    println!("  files / raw, closed      {:.3}", closed as f64 / raw as f64);
    println!(
        "  written / user bytes     {:.2} by calls, {:.2} in blocks",
        per_byte(calls_end - calls),
        per_byte(device_end - device)
    );
    let parts: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {:.2}", per_byte(*bytes))).collect();
    println!("    of it                  {}", parts.join(", "));
    println!("  reachable / raw          {:.3} at the end", live as f64 / raw as f64);
    println!(
        "  a put                    p50 {:.1?}  p99 {:.1?}  p99.9 {:.1?}  longest {:.1?}",
        times.at(500),
        times.at(990),
        times.at(999),
        times.longest
    );
    println!("  updates                  {updates} in {took:.1?}");
    fs::remove_dir_all(&path)?;
    Ok(())
}

fn main() -> Result<()> {
    let args = args()?;
    println!("{} records rewritten {} times over, in {}", args.records, args.rounds, args.dir.display());
    for &load in &args.loads {
        for &cleaning in &args.cleaning {
            run(&args, load, cleaning)?;
        }
    }
    Ok(())
}
