//! How often the parts of an open store run, and how long they take: each store's own, and off unless
//! asked for.
//!
//! Off, a measurement is one comparison with null and touches no memory that is shared. On, it is two
//! looks at the clock and a few relaxed additions to counters of the thread's stripe, so that threads
//! which do the same at one time seldom meet at one cache line.
//!
//! A histogram has eight buckets for each power of two, so what is read from it is at most an eighth too
//! high; counts, sums and extremes are exact. Counters are read while others add to them: a profile
//! taken meanwhile may lack a little of what is under way.
//!
//! What is measured is the owner's list, a [`Measured`], as [`Work`] is a page cache's; how it is shown
//! is [`Profile`]'s business.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

mod profile;
mod work;

pub use profile::{Profile, Row};
pub use work::Work;

use crate::{
    io::Clock,
    sync::{AtomicU64, Ordering, thread_mark},
};

/// Stripes of counters; threads beyond so many share.
const STRIPES: usize = 4;
/// Buckets for each power of two, as a power of two.
const SUB_BITS: u32 = 3;
/// Values below are their own bucket.
const EXACT: u64 = 1 << SUB_BITS;
/// Buckets of a histogram: the exact ones, and eight for each of the other powers of two.
const BUCKETS: usize = (EXACT + (64 - SUB_BITS as u64) * EXACT) as usize;

/// What a measurement's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Things.
    Number,
}

/// A list of what is measured, as a plain enum.
pub trait Measured: Copy + fmt::Debug + Send + Sync + 'static {
    /// Name and unit of each, in the order of [`Measured::index`].
    const ALL: &'static [(&'static str, Unit)];

    /// The place in [`Measured::ALL`].
    fn index(self) -> usize;
}

/// The measurements of one owner. Clones share them.
#[derive(Clone)]
pub struct Metrics<K> {
    recorder: Option<Arc<Recorder>>,
    what: PhantomData<fn(K)>,
}

struct Recorder {
    clock: Arc<dyn Clock>,
    /// One histogram for each thing measured, in each stripe.
    stripes: Vec<Vec<Histogram>>,
}

struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// The bits of the smallest value, inverted, so that zero means none.
    lowest: AtomicU64,
    highest: AtomicU64,
}

impl<K> fmt::Debug for Metrics<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("is_on", &self.is_on()).finish()
    }
}

impl<K> Metrics<K> {
    /// Measures nothing.
    #[must_use]
    pub const fn off() -> Metrics<K> {
        Metrics { recorder: None, what: PhantomData }
    }

    /// True if anything is measured.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.recorder.is_some()
    }
}

impl<K: Measured> Metrics<K> {
    /// Measures by this clock.
    #[must_use]
    pub fn on(clock: Arc<dyn Clock>) -> Metrics<K> {
        let stripe = || K::ALL.iter().map(|_| Histogram::new()).collect();
        let stripes = std::iter::repeat_with(stripe).take(STRIPES).collect();
        Metrics { recorder: Some(Arc::new(Recorder { clock, stripes })), what: PhantomData }
    }

    /// Measures by a clock if `is_wanted`.
    #[must_use]
    pub fn new(is_wanted: bool, clock: &Arc<dyn Clock>) -> Metrics<K> {
        if is_wanted { Metrics::on(clock.clone()) } else { Metrics::off() }
    }

    /// Measures the time until what this returns is dropped.
    #[inline]
    #[must_use = "the time ends when this is dropped"]
    pub fn time(&self, what: K) -> Timing<'_> {
        Timing(self.recorder.as_deref().map(|recorder| Started::now(recorder, what.index())))
    }

    /// Notes a number of bytes or things.
    #[inline]
    pub fn note(&self, what: K, amount: u64) {
        if let Some(recorder) = &self.recorder {
            recorder.add(what.index(), amount);
        }
    }

    /// Everything measured so far.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let Some(recorder) = &self.recorder else { return Profile::default() };
        let row = |(index, (name, unit)): (usize, &(&'static str, Unit))| {
            let striped: Vec<&Histogram> = recorder.stripes.iter().map(|stripe| &stripe[index]).collect();
            row_of(name, *unit, &striped)
        };
        Profile::of(K::ALL.iter().enumerate().map(row).collect())
    }
}

/// A time that is being measured; it ends when this is dropped.
#[must_use = "the time ends when this is dropped"]
pub struct Timing<'m>(Option<Started<'m>>);

struct Started<'m> {
    recorder: &'m Recorder,
    index: usize,
    at: Duration,
}

impl fmt::Debug for Timing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timing").field("is_on", &self.0.is_some()).finish()
    }
}

impl Drop for Timing<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(started) = &self.0 {
            started.end();
        }
    }
}

impl<'m> Started<'m> {
    #[cold]
    fn now(recorder: &'m Recorder, index: usize) -> Started<'m> {
        Started { recorder, index, at: recorder.clock.now() }
    }

    #[cold]
    fn end(&self) {
        let took = self.recorder.clock.now().saturating_sub(self.at);
        self.recorder.add(self.index, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Recorder {
    #[cold]
    fn add(&self, index: usize, value: u64) {
        // Neighbouring threads' marks differ in the middle of the word; the product mixes them upwards.
        let mixed = thread_mark().wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
        let stripe = mixed >> (usize::BITS - STRIPES.ilog2());
        self.stripes[stripe][index].add(value);
    }
}

impl Histogram {
    fn new() -> Histogram {
        Histogram {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            lowest: AtomicU64::new(0),
            highest: AtomicU64::new(0),
        }
    }

    fn add(&self, value: u64) {
        // Relaxed throughout: sums that nobody orders anything by.
        self.buckets[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.lowest.fetch_max(!value, Ordering::Relaxed);
        self.highest.fetch_max(value, Ordering::Relaxed);
    }
}

/// The bucket that holds a value.
fn bucket_of(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let power = value.ilog2();
    let within = (value >> (power - SUB_BITS)) - EXACT;
    (u64::from(power - SUB_BITS) * EXACT + EXACT + within) as usize
}

/// The largest value of a bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let (power, within) = ((bucket - EXACT) / EXACT, (bucket - EXACT) % EXACT);
    // The width last, so that the topmost does not overflow.
    ((EXACT + within) << power) + ((1 << power) - 1)
}

fn row_of(name: &'static str, unit: Unit, striped: &[&Histogram]) -> Row {
    let mut buckets = vec![0_u64; BUCKETS];
    let (mut sum, mut lowest, mut highest) = (0_u64, 0, 0);
    for histogram in striped {
        for (total, bucket) in buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.load(Ordering::Relaxed);
        }
        sum = sum.saturating_add(histogram.sum.load(Ordering::Relaxed));
        lowest = lowest.max(histogram.lowest.load(Ordering::Relaxed));
        highest = highest.max(histogram.highest.load(Ordering::Relaxed));
    }
    let count: u64 = buckets.iter().sum();
    let quantile = |thousandths: u64| {
        let rank = (count * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= rank
        });
        found.map_or(0, |bucket| top_of(bucket).min(highest))
    };
    Row {
        name,
        unit,
        count,
        sum,
        min: if count == 0 { 0 } else { !lowest },
        p50: quantile(500),
        p90: quantile(900),
        p99: quantile(990),
        p999: quantile(999),
        max: highest,
    }
}

#[cfg(all(test, not(loom)))]
#[path = "metrics/tests.rs"]
mod tests;
