//! Opening a large store whose process died: `reopen [--pages N] [--tail-mib M] [--keep] [DIRECTORY]`.
//!
//! The store is synthetic: it is written byte by byte as `docs/FORMAT.md` draws it, since making fifty
//! million pages by calls would take an hour. Its page table names an image of 4 KiB for each page, most of
//! which are holes of a sparse file; its log's tail is records of 200 bytes over uniformly chosen pages,
//! none of which any sync is known to have covered, so that recovery writes all of it again.
//!
//! Each open is a process of its own that ends without closing, and finds the superblocks as they were.
//! Warm is the best and the median of several with both files in the system's cache; cold is one after
//! the cache was dropped, if this process may. The first touches of pages are timed beside it.

#![forbid(unsafe_code)]

#[path = "reopen/format.rs"]
mod format;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use pagecache::{Config, ConfigBuilder, Materializer, PageCache, PageGet, pin};

use self::format::{Synthetic, page_of_probe};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WARM_OPENS: usize = 7;
const PROBES: u64 = 1000;

/// Pages of bytes, whose changes are appended.
struct Bytes;

impl Materializer for Bytes {
    type PageFrag = Vec<u8>;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Bytes {
        Bytes
    }

    fn merge(&self, frags: &[&Vec<u8>]) -> Vec<u8> {
        frags.iter().flat_map(|frag| frag.iter()).copied().collect()
    }

    fn recover(&self, _: &Vec<u8>) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &Vec<u8>) -> usize {
        size_of::<Vec<u8>>() + frag.len()
    }
}

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (mut pages, mut tail_mib, mut keep, mut directory) = (50_000_000, 64, false, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--pages" => pages = value()?.parse()?,
            "--tail-mib" => tail_mib = value()?.parse()?,
            "--keep" => keep = true,
            "--open" => return open(Path::new(&value()?)),
            other => directory = Some(PathBuf::from(other)),
        }
    }
    let directory = directory.unwrap_or_else(|| env::temp_dir().join("reopen-bench.db"));
    if directory.exists() {
        return Err(format!("{} is there already", directory.display()).into());
    }
    fs::create_dir_all(&directory)?;
    let outcome = measure(&Synthetic { directory: directory.clone(), pages, tail_bytes: tail_mib << 20 });
    if !keep {
        fs::remove_dir_all(&directory)?;
    }
    outcome
}

fn measure(store: &Synthetic) -> Result<()> {
    let began = Instant::now();
    let made = store.make()?;
    println!(
        "{} pages, {} map pages in {} MB; a tail of {} records in {} MB; made in {:.1} s",
        store.pages,
        made.map_pages,
        made.table_bytes >> 20,
        made.records,
        store.tail_bytes >> 20,
        began.elapsed().as_secs_f64()
    );
    let mut times = Vec::new();
    let mut peak = 0;
    for _ in 0..WARM_OPENS {
        made.restore(store)?;
        let opened = open_in_child(&store.directory)?;
        times.push(opened.open_ms);
        peak = peak.max(opened.peak_kib);
        println!(
            "  warm: open {:.0} ms, {} ms of processor time, peak {} MiB; first touch of a page {:.0} us",
            opened.open_ms,
            opened.processor_ms,
            opened.peak_kib >> 10,
            opened.touch_us
        );
    }
    times.sort_by(f64::total_cmp);
    println!(
        "warm: best {:.0} ms, median {:.0} ms, peak {} MiB",
        times[0],
        times[times.len() / 2],
        peak >> 10
    );
    made.restore(store)?;
    if Command::new("sync").status()?.success() && fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        let opened = open_in_child(&store.directory)?;
        println!("cold: open {:.0} ms, first touch {:.0} us", opened.open_ms, opened.touch_us);
    } else {
        println!("cold: not measured, the system's cache cannot be dropped by this process");
    }
    Ok(())
}

/// What a child said.
struct Opened {
    open_ms: f64,
    /// Of all threads; in steps of ten.
    processor_ms: u64,
    /// Before the first page is touched.
    peak_kib: u64,
    touch_us: f64,
}

fn open_in_child(directory: &Path) -> Result<Opened> {
    let output = Command::new(env::current_exe()?).arg("--open").arg(directory).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    let mut next = || words.next().ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned());
    let (open_ms, processor_ms) = (next()?.parse()?, next()?.parse()?);
    Ok(Opened { open_ms, processor_ms, peak_kib: next()?.parse()?, touch_us: next()?.parse()? })
}

/// Opens the store, touches some pages, and ends as if killed.
fn open(directory: &Path) -> Result<()> {
    let config = ConfigBuilder::new().path(directory).flush_every_ms(None).build();
    let began = Instant::now();
    let store = PageCache::<Bytes, _, _>::start(config).map_err(|e| e.to_string())?;
    let open_ms = began.elapsed().as_secs_f64() * 1e3;
    let (processor_ms, peak_kib) = (processor_ms()?, peak_kib()?);
    let began = Instant::now();
    let pages = store.stats().pages as u64;
    for probe in 0..PROBES {
        let pid = page_of_probe(probe, pages);
        let guard = pin();
        match store.get(pid as usize, &guard).map_err(|e| e.to_string())? {
            PageGet::Materialized(bytes, _) if bytes.starts_with(&pid.to_le_bytes()) => {}
            _ => return Err(format!("page {pid} is not what was logged").into()),
        }
    }
    let touch_us = began.elapsed().as_secs_f64() * 1e6 / PROBES as f64;
    println!("{open_ms} {processor_ms} {peak_kib} {touch_us}");
    std::process::exit(0)
}

/// Time that this process's threads have had, user and system.
fn processor_ms() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<std::result::Result<u64, _>>()?;
    // A tick is a hundredth of a second on every Linux.
    Ok(ticks * 10)
}

fn peak_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmHWM in /proc")?.parse()?)
}
