//! What it costs to pack pages, and what it gains.
//!
//! `cargo run --release -p benches --bin packing -- [--n RECORDS] [--dir DIRECTORY]`
//!
//! Records of 24 + 150 bytes: values like those of a log in JSON, and values that do not shrink. Both ways run in
//! turns. "Cold" is a store that was opened again with memory for a sixteenth of the data, its files in the
//! system's cache, so that what is seen is the work and not the device.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tree::{Config, Db};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const RECORD_BYTES: u64 = 24 + 150;

fn args() -> Result<(u64, PathBuf)> {
    let (mut records, mut dir) = (500_000, std::env::temp_dir());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--n" => records = value.replace('_', "").parse()?,
            "--dir" => dir = value.into(),
            _ => return Err(format!("unknown option {word}: there are --n, --dir").into()),
        }
    }
    Ok((records, dir))
}

/// The number at a place of a fixed sequence: Sebastiano Vigna's splitmix64.
fn random(at: u64) -> u64 {
    let mut z = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(number: u64) -> Vec<u8> {
    format!("user{:020}", random(number)).into_bytes()
}

#[derive(Clone, Copy, Debug)]
enum Values {
    Json,
    Noise,
}

impl Values {
    fn of(self, number: u64) -> Vec<u8> {
        let noise = (0..19).flat_map(|word| random(number * 19 + word).to_le_bytes());
        let mut value: Vec<u8> = match self {
            Values::Noise => noise.collect(),
            Values::Json => {
                let (id, cents) = (random(number) % 100_000_000, random(number + 1) % 1_000_000);
                let state = ["paid", "open", "refused", "sent"][(random(number + 2) % 4) as usize];
                format!(
                    "{{\"id\":{id:08},\"cents\":{cents:06},\"state\":\"{state}\",\"currency\":\"EUR\",\
                     \"items\":[{{\"sku\":\"A-{:05}\",\"count\":{}}}],\"comment\":\"\",\"country\":\"NL\",\"gift\":false}}      ",
                    id % 90_000,
                    cents % 9 + 1
                )
                .into_bytes()
            }
        };
        value.resize(150, b' ');
        value
    }
}

/// What one way took.
#[derive(Clone, Copy, Default)]
struct Took {
    load: Duration,
    close: Duration,
    cold_gets: Duration,
    scan: Duration,
    file_bytes: u64,
}

fn open(path: &Path, packs: bool, cache: Option<u64>) -> tree::Result<Db> {
    let config = Config::new().path(path).use_compression(packs);
    cache.map_or(config.clone(), |bytes| config.cache_capacity(bytes)).open()
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn run(dir: &Path, records: u64, values: Values, packs: bool) -> Result<Took> {
    let path = dir.join(format!("packing-{}", std::process::id()));
    let mut took = Took::default();
    let db = open(&path, packs, None)?;
    took.load = timed(|| {
        for number in 0..records {
            db.put(key(number), values.of(number))?;
        }
        Ok(db.flush()?)
    })?;
    took.close = timed(|| Ok(db.close()?))?;
    took.file_bytes = fs::metadata(path.join("pages"))?.len();
    let db = open(&path, packs, Some((records * RECORD_BYTES / 16).max(4 << 20)))?;
    took.cold_gets = timed(|| {
        for at in 0..records / 10 {
            let number = random(at + records) % records;
            if db.get(key(number))?.as_deref() != Some(&values.of(number)[..]) {
                return Err(format!("record {number} is another").into());
            }
        }
        Ok(())
    })?;
    took.scan = timed(|| match db.iter().count() as u64 {
        count if count == records => Ok(()),
        count => Err(format!("{count} of {records} records were scanned").into()),
    })?;
    drop(db);
    fs::remove_dir_all(&path)?;
    Ok(took)
}

fn main() -> Result<()> {
    const ROUNDS: usize = 3;
    let (records, dir) = args()?;
    println!("{records} records, medians of {ROUNDS}");
    for values in [Values::Json, Values::Noise] {
        let mut ways = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (way, packs) in ways.iter_mut().zip([false, true]) {
                way.push(run(&dir, records, values, packs)?);
            }
        }
        for (way, name) in ways.iter().zip(["plain", "packed"]) {
            let median = |figure: fn(&Took) -> u128| {
                let mut figures: Vec<u128> = way.iter().map(figure).collect();
                figures.sort_unstable();
                figures[ROUNDS / 2]
            };
            println!(
                "{values:?}, {name:<6}  load {:>6} ms  close {:>5} ms  cold get {:>6.2} us  scan {:>5} ms  file {:.3} of the raw bytes",
                median(|took| took.load.as_millis()),
                median(|took| took.close.as_millis()),
                median(|took| took.cold_gets.as_nanos()) as f64 / (records / 10) as f64 / 1000.0,
                median(|took| took.scan.as_millis()),
                median(|took| u128::from(took.file_bytes)) as f64 / (records * RECORD_BYTES) as f64,
            );
        }
    }
    Ok(())
}
