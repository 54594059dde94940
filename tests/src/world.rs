//! A tree on a simulated disk, small enough that a few hundred writes split pages, fill log
//! segments, evict, checkpoint and use segments again.

use std::{sync::Arc, time::Duration};

use pagecache::{
    EventLog,
    io::sim::{Rng, SimClock, SimDisk, SimSpawner},
};
use tree::{Config, Db};

/// Bytes of a segment of the pages, and of the log's largest.
pub(crate) const SEGMENT_BYTES: usize = 16 << 10;

/// Sizes of a small store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Unit of atomicity.
    pub block_bytes: usize,
    /// Leaves above this are split.
    pub leaf_bytes_max: usize,
    /// Memory for pages.
    pub cache_bytes: u64,
    /// Log bytes between checkpoints.
    pub checkpoint_every_bytes: u64,
    /// Bytes of a segment of the log; a batch above it is a run of records.
    pub log_segment_bytes: usize,
    /// Log bytes on disk.
    pub log_capacity: u64,
    /// Buffers in front of the log.
    pub log_buffers: usize,
    /// Milliseconds between flushes in the background.
    pub flush_every_ms: Option<u64>,
    /// Bytes above which a value lives in a page of its own.
    pub inline_bytes_max: usize,
}

impl Shape {
    /// Sizes chosen by the seed; pages have segments of 16 KiB, the log of 8 or 16.
    #[must_use]
    pub fn any(rng: &mut Rng) -> Shape {
        let log_capacity = SEGMENT_BYTES as u64 * (4 + rng.below(5));
        Shape {
            block_bytes: 512 << rng.below(3),
            leaf_bytes_max: 128 << rng.below(4),
            cache_bytes: if rng.chance(1, 2) { 1 << 30 } else { 1 << (10 + rng.below(5)) },
            checkpoint_every_bytes: (2 << 10) + rng.below(log_capacity / 2),
            log_segment_bytes: SEGMENT_BYTES >> rng.below(2),
            log_capacity,
            log_buffers: 2 << rng.below(3),
            flush_every_ms: if rng.chance(1, 2) { Some(500) } else { None },
            inline_bytes_max: *rng.pick(&[usize::MAX, usize::MAX, 40, 100, 300]).unwrap_or(&usize::MAX),
        }
    }
}

/// A disk, the time and the background of the stores on it.
#[derive(Debug)]
pub struct World {
    /// Where the store lies.
    pub disk: Arc<SimDisk>,
    /// Its background.
    pub spawner: Arc<SimSpawner>,
    /// Its time.
    pub clock: Arc<SimClock>,
    /// Its sizes.
    pub shape: Shape,
    /// What one store left for the next.
    pub events: EventLog,
}

impl World {
    /// A world around a disk.
    #[must_use]
    pub fn on(disk: Arc<SimDisk>, shape: Shape) -> World {
        let clock = Arc::new(SimClock::new());
        let spawner = Arc::new(SimSpawner::new(clock.clone()));
        World { disk, spawner, clock, shape, events: EventLog::new() }
    }

    /// Opens the store, or makes it. `salt_seed` must be another at each open, as chance is: equal
    /// salts let a record that a crash took away pass for a new one.
    ///
    /// # Errors
    ///
    /// As [`Config::open`].
    pub fn open(&self, salt_seed: u64) -> tree::Result<Db> {
        self.config(salt_seed).open()
    }

    /// Opens the store for reading alone.
    ///
    /// # Errors
    ///
    /// As [`Config::open`].
    pub fn open_read_only(&self) -> tree::Result<Db> {
        self.config(0).read_only(true).open()
    }

    fn config(&self, salt_seed: u64) -> Config {
        let (disk, spawner, clock) = (self.disk.clone(), self.spawner.clone(), self.clock.clone());
        let shape = &self.shape;
        Config::new()
            .leaf_bytes_max(shape.leaf_bytes_max)
            .cache_capacity_unchecked(shape.cache_bytes)
            .inline_bytes_max(shape.inline_bytes_max)
            .flush_every_ms(shape.flush_every_ms)
            .page_cache(|builder| {
                builder
                    .storage(disk)
                    .event_log(self.events.clone())
                    .spawner(spawner)
                    .clock(clock)
                    .salt_seed(salt_seed)
                    .block_bytes(shape.block_bytes)
                    .log_segment_bytes(shape.log_segment_bytes)
                    .log_capacity(shape.log_capacity)
                    .log_buffers(shape.log_buffers)
                    .checkpoint_every_bytes(shape.checkpoint_every_bytes)
                    .store_segment_bytes(SEGMENT_BYTES)
                    // Some opens pack and some do not, whatever the ones before did.
                    .use_compression(salt_seed.is_multiple_of(2))
            })
    }

    /// Lets time pass and the background take a few steps.
    pub fn pass(&self, time: Duration, steps_max: usize, rng: &mut Rng) {
        self.clock.advance(time);
        self.spawner.run(rng, steps_max);
    }
}
