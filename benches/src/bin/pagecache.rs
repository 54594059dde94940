//! The page cache alone, beside the machine: `pagecache [DIRECTORY]`.
//!
//! Each row and its yardstick are measured in turns, round by round, and told as medians in nanoseconds
//! with the median of their ratios. Numbers of one run are to be compared with each other, and with
//! nothing else.

use std::{
    env,
    error::Error,
    fs::{self, File},
    hint::black_box,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use pagecache::{
    Config, ConfigBuilder, DecodeError, Materializer, PageCache, PageGet, PageId, PagePtr, View, pin,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const ROUNDS: usize = 9;
/// Bytes of a change.
const CHANGE_BYTES: usize = 200;
/// Bytes of a page.
const PAGE_BYTES: usize = 4000;
/// Pages that are changed and read in turn.
const HOT_PAGES: usize = 512;
/// Pages of the rows that go to the file: far more than the memory they are given.
const COLD_PAGES: usize = 32 << 10;
/// Bytes in which the yardstick of a random read jumps about: beyond every cache.
const JUMP_BYTES: usize = 256 << 20;

/// Pages of bytes. A change names the place that it is put to by its first two bytes.
struct Bytes;

const WHOLE: [u8; 2] = [0xFF; 2];

impl Materializer for Bytes {
    type PageFrag = Vec<u8>;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Bytes {
        Bytes
    }

    fn merge(&self, frags: &[&Vec<u8>]) -> Vec<u8> {
        let mut page = frags[0].clone();
        for change in &frags[1..] {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
            page[at..at + change.len() - 2].copy_from_slice(&change[2..]);
        }
        page
    }

    fn recover(&self, _: &Vec<u8>) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &Vec<u8>) -> usize {
        frag.len()
    }

    fn encoded_len(&self, frag: &Vec<u8>) -> usize {
        frag.len()
    }

    fn encode(&self, frag: &Vec<u8>, out: &mut [u8]) {
        out.copy_from_slice(frag);
    }

    fn decode(&self, bytes: &[u8]) -> std::result::Result<Vec<u8>, DecodeError> {
        Ok(bytes.to_vec())
    }
}

type Pages = PageCache<Bytes, Vec<u8>, ()>;

/// Numbers that repeat (xorshift64*).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) as usize % bound
    }
}

fn open(dir: &Path, cache: u64) -> Result<Pages> {
    let config = ConfigBuilder::new()
        .path(dir)
        .cache_capacity(cache)
        .log_capacity(1 << 30)
        .checkpoint_every_bytes(512 << 20)
        .flush_every_ms(None);
    Ok(Pages::start(config.build())?)
}

fn whole() -> Vec<u8> {
    let mut page = vec![0x5A; PAGE_BYTES];
    page[..2].copy_from_slice(&WHOLE);
    page
}

fn change(rng: &mut Rng) -> Vec<u8> {
    let mut change = vec![0xA5; CHANGE_BYTES];
    let at = 2 + rng.below(PAGE_BYTES - CHANGE_BYTES) as u16;
    change[..2].copy_from_slice(&at.to_le_bytes());
    change
}

fn fill(pages: &Pages, count: usize) -> Result<Vec<PageId>> {
    let page = |_| -> Result<PageId> {
        let guard = pin();
        let pid = pages.allocate(&guard)?;
        pages.replace(pid, PagePtr::allocated(), whole(), &guard).map_err(|_| "a race with nobody")?;
        Ok(pid)
    };
    (0..count).map(page).collect()
}

/// Adds a change to a page as it is.
fn link(pages: &Pages, pid: PageId, change: Vec<u8>) -> Result<()> {
    let guard = pin();
    let View::Page(view) = pages.view(pid, &guard)? else { return Err("the page is gone".into()) };
    pages.link(pid, view.key(), change, &guard).map_err(|_| "a race with nobody")?;
    Ok(())
}

fn get(pages: &Pages, pid: PageId) -> Result<u8> {
    let guard = pin();
    match pages.read(pid, &guard)? {
        PageGet::Materialized(page, _) => Ok(page[pid % PAGE_BYTES]),
        _ => Err("the page is gone".into()),
    }
}

/// Nanoseconds of one of `count` steps.
fn time(count: usize, mut step: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    for number in 0..count {
        step(number)?;
    }
    Ok(begun.elapsed().as_nanos() as f64 / count as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures a row and its yardstick in turns and tells both.
fn row(
    name: &str,
    against: &str,
    mut ours: impl FnMut() -> Result<f64>,
    mut yardstick: impl FnMut() -> Result<f64>,
) -> Result<()> {
    let (mut mine, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (theirs_now, mine_now) = (yardstick()?, ours()?);
        mine.push(mine_now);
        theirs.push(theirs_now);
        ratios.push(mine_now / theirs_now);
    }
    let (mine, theirs, ratio) = (median(&mut mine), median(&mut theirs), median(&mut ratios));
    println!("{name:<44} {mine:>8.0} ns   {against:<36} {theirs:>7.0} ns   ratio {ratio:.2}");
    Ok(())
}

/// Jumps through memory, each place naming the next.
struct Jumps {
    next: Vec<u32>,
    at: usize,
}

impl Jumps {
    fn new(rng: &mut Rng) -> Jumps {
        // A place each 64 bytes; one cycle through all of them (Sattolo).
        let count = JUMP_BYTES / 64;
        let mut order: Vec<u32> = (0..count as u32).collect();
        for last in (1..count).rev() {
            order.swap(last, rng.below(last));
        }
        let mut next = vec![0; count * 16];
        for (from, to) in order.iter().enumerate() {
            next[from * 16] = to * 16;
        }
        Jumps { next, at: 0 }
    }

    fn time(&mut self, count: usize) -> Result<f64> {
        time(count, |_| {
            self.at = self.next[self.at] as usize;
            black_box(self.at);
            Ok(())
        })
    }
}

/// What a change cannot do without: a copy of its bytes, and a place for it.
fn copy_and_add(into: &mut [u8], end: &AtomicU64) -> Result<f64> {
    let bytes = [0xA5; CHANGE_BYTES];
    time(1 << 20, |_| {
        let at = end.fetch_add(CHANGE_BYTES as u64, Ordering::AcqRel) as usize % (into.len() - CHANGE_BYTES);
        into[at..at + CHANGE_BYTES].copy_from_slice(black_box(&bytes));
        Ok(())
    })
}

fn hot(dir: &Path) -> Result<()> {
    let pages = open(dir, 1 << 30)?;
    let pids = fill(&pages, HOT_PAGES)?;
    let mut rng = Rng(1);
    let (mut room, end) = (vec![0; 1 << 20], AtomicU64::new(0));
    let mut jumps = Jumps::new(&mut rng);
    let at = |number: usize| pids[number * 7 % pids.len()];
    pages.checkpoint()?;
    let one = pids[0];
    row(
        "get, settled, the same page",
        "dependent random read, 256 MiB",
        || time(1 << 20, |_| get(&pages, black_box(one)).map(|byte| _ = black_box(byte))),
        || jumps.time(1 << 19),
    )?;
    row(
        "get, settled, 512 pages of 4 KB in turn",
        "dependent random read, 256 MiB",
        || time(1 << 20, |n| get(&pages, at(n)).map(|byte| _ = black_box(byte))),
        || jumps.time(1 << 19),
    )?;
    row(
        "pin alone",
        "dependent random read, 256 MiB",
        || {
            time(1 << 20, |_| {
                drop(black_box(pin()));
                Ok(())
            })
        },
        || jumps.time(1 << 19),
    )?;
    let deltas = |rng: &mut Rng| -> Result<f64> {
        for pid in &pids {
            for _ in 0..3 {
                link(&pages, *pid, change(rng))?;
            }
        }
        time(pids.len(), |n| get(&pages, at(n)).map(|byte| _ = black_box(byte)))
    };
    let mut page = vec![0; PAGE_BYTES];
    let from = whole();
    row(
        "get with 3 deltas, which folds them",
        "copy of the page",
        || deltas(&mut rng),
        || {
            time(1 << 16, |_| {
                page.copy_from_slice(black_box(&from));
                black_box(&mut page);
                Ok(())
            })
        },
    )?;
    let change_of_two_hundred = change(&mut rng);
    row(
        "link of 200 bytes, folding included",
        "copy of 200 bytes and fetch_add",
        || time(1 << 16, |n| link(&pages, at(n), change_of_two_hundred.clone())),
        || copy_and_add(&mut room, &end),
    )?;
    row(
        "replace of 200 bytes",
        "copy of 200 bytes and fetch_add",
        || {
            time(1 << 16, |n| {
                let guard = pin();
                let View::Page(view) = pages.view(at(n), &guard)? else {
                    return Err("the page is gone".into());
                };
                let small = vec![0xA5; CHANGE_BYTES];
                pages.replace(at(n), view.key(), small, &guard).map_err(|_| "a race with nobody")?;
                Ok(())
            })
        },
        || copy_and_add(&mut room, &end),
    )?;
    Ok(pages.close()?)
}

/// Gets of pages that are not in memory, of so many fragments each, from the system's cache.
fn cold(dir: &Path, fragments: usize) -> Result<()> {
    let pages = open(dir, 8 << 20)?;
    let pids = fill(&pages, COLD_PAGES)?;
    let mut rng = Rng(2);
    pages.checkpoint()?;
    for _ in 1..fragments {
        for pid in &pids {
            link(&pages, *pid, change(&mut rng))?;
        }
        pages.checkpoint()?;
    }
    let file = File::open(pages.path())?;
    let blocks = file.metadata()?.len() as usize / 4096;
    let (mut gets, mut reads) = (Rng(3), Rng(4));
    let mut block = vec![0; 4096];
    let plural = if fragments == 1 { "" } else { "s" };
    row(
        &format!("cold get of {fragments} fragment{plural}"),
        "pread of 4 KiB of the same file",
        || time(1 << 13, |_| get(&pages, pids[gets.below(pids.len())]).map(|byte| _ = black_box(byte))),
        || time(1 << 13, |_| Ok(file.read_exact_at(&mut block, (reads.below(blocks) * 4096) as u64)?)),
    )?;
    if fragments == 1 {
        return Ok(pages.close()?);
    }
    // From the device: a page's parts lie in as many places of the file.
    let path = pages.path();
    row(
        "the same, from the device",
        &format!("{fragments} preads, one after the other"),
        || {
            forget(&path)?;
            time(1 << 8, |_| get(&pages, pids[gets.below(pids.len())]).map(|byte| _ = black_box(byte)))
        },
        || {
            forget(&path)?;
            let read = |number: usize| file.read_exact_at(&mut [0; 4096], number as u64 * 4096);
            time(1 << 8, |_| {
                let mut places = (0..fragments).map(|_| reads.below(blocks));
                Ok(places.try_for_each(read)?)
            })
        },
    )?;
    Ok(pages.close()?)
}

/// Has the system forget what it holds of a file.
fn forget(path: &Path) -> Result<()> {
    let mut out = std::ffi::OsString::from("of=");
    out.push(path);
    let told = Command::new("dd")
        .arg("if=/dev/null")
        .arg(out)
        .args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"])
        .status()?;
    if told.success() { Ok(()) } else { Err("dd could not have the file forgotten".into()) }
}

fn main() -> Result<()> {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("pagecache-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let outcome = hot(&dir.join("hot"))
        .and_then(|()| [1, 2, 3, 4].into_iter().try_for_each(|n| cold(&dir.join(format!("cold-{n}")), n)));
    fs::remove_dir_all(&dir)?;
    outcome
}
