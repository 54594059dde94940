//! The length of the `pages` file beside what is alive in it, whatever is written.

use std::{sync::Arc, time::Duration};

use pagecache::io::sim::{Rng, SimDisk};
use tests::{
    seeds,
    world::{Shape, World},
};
use tree::{Batch, Config, Db};

/// Bytes of a segment in the tests' stores.
const SEGMENT: u64 = 16 << 10;

/// How keys are chosen.
#[derive(Clone, Copy, Debug)]
enum Load {
    Uniform,
    /// Nine of ten writes go to a tenth of the keys.
    Skewed,
    /// Neighbours, around and around.
    Rounds,
    /// Deletes outweigh in one third of the time, inserts in the others.
    Tides,
    /// Many keys at once.
    Batches,
}

const LOADS: [Load; 5] = [Load::Uniform, Load::Skewed, Load::Rounds, Load::Tides, Load::Batches];

fn shape(cache_bytes: u64) -> Shape {
    Shape {
        block_bytes: 512,
        leaf_bytes_max: 1024,
        cache_bytes,
        checkpoint_every_bytes: 48 << 10,
        log_segment_bytes: SEGMENT as usize,
        log_capacity: 16 * SEGMENT,
        log_buffers: 2,
        flush_every_ms: None,
        inline_bytes_max: usize::MAX,
    }
}

fn world(cache_bytes: u64) -> World {
    World::on(Arc::new(SimDisk::untraced()), shape(cache_bytes))
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

/// What the file may be at any time.
fn limit(live: u64) -> u64 {
    live * 150 / 100 + 5 * SEGMENT
}

fn put(db: &Db, number: u64, rng: &mut Rng) {
    let value = vec![rng.below(256) as u8; 100 + rng.index(100)];
    db.put(key(number), value).map(drop).unwrap_or_else(|e| panic!("a put: {e}"));
}

fn write(db: &Db, load: Load, step: u64, keys: u64, rng: &mut Rng) {
    match load {
        Load::Uniform => put(db, rng.below(keys), rng),
        Load::Skewed if rng.chance(9, 10) => put(db, rng.below(keys / 10), rng),
        Load::Skewed => put(db, rng.below(keys), rng),
        Load::Rounds => put(db, step % keys, rng),
        Load::Tides if step / keys % 3 == 2 => {
            db.remove(key(rng.below(keys))).map(drop).unwrap_or_else(|e| panic!("a removal: {e}"));
        }
        Load::Tides => put(db, rng.below(keys), rng),
        Load::Batches => {
            let mut batch = Batch::default();
            for _ in 0..8 {
                batch.insert(&key(rng.below(keys))[..], &vec![rng.below(256) as u8; 120][..]);
            }
            db.apply_batch(batch).unwrap_or_else(|e| panic!("a batch: {e}"));
        }
    }
}

/// Writes and looks at the file's length after each; returns the greatest excess in percent.
fn hold(world: &World, load: Load, seed: u64, background: bool) -> u64 {
    let mut rng = Rng::new(seed);
    let db = world.open(rng.next_u64()).unwrap_or_else(|e| panic!("the store opens: {e}"));
    let keys = 4000;
    (0..keys).for_each(|number| put(&db, number, &mut rng));
    db.checkpoint().unwrap_or_else(|e| panic!("a checkpoint: {e}"));
    let mut most = 0;
    for step in 0..4 * keys {
        write(&db, load, step, keys, &mut rng);
        if background && rng.chance(1, 20) {
            world.pass(Duration::from_millis(50), 3, &mut rng);
        }
        let stats = db.stats();
        let (file, live) = (stats.pages_file_bytes(), stats.pages_live_bytes());
        most = most.max(file * 100 / live);
        assert!(
            file <= limit(live),
            "{load:?}, seed {seed}, step {step}, background {background}: {file} bytes of file, {live} alive"
        );
        if step % 500 == 0 {
            db.recount().unwrap_or_else(|e| panic!("{load:?}, seed {seed}, step {step}: {e}"));
        }
    }
    db.close().unwrap_or_else(|e| panic!("a close: {e}"));
    most
}

#[test]
fn the_file_keeps_its_limit_whatever_is_written() {
    for seed in seeds(2) {
        for load in LOADS {
            for (cache, background) in
                [(1 << 30, true), (1 << 30, false), (64 << 10, true), (64 << 10, false)]
            {
                let most = hold(&world(cache), load, seed, background);
                println!("{load:?}, cache {cache}, background {background}: at most {most} %");
            }
        }
    }
}

#[test]
fn an_idle_store_comes_to_its_target_and_rests_there() {
    for seed in seeds(4) {
        let world = world(1 << 30);
        let mut rng = Rng::new(seed);
        let db = world.open(rng.next_u64()).unwrap_or_else(|e| panic!("the store opens: {e}"));
        (0..4000).for_each(|number| put(&db, number, &mut rng));
        (0..4000).for_each(|_| write(&db, Load::Uniform, 0, 4000, &mut rng));
        db.checkpoint().unwrap_or_else(|e| panic!("a checkpoint: {e}"));
        for _ in 0..2000 {
            world.pass(Duration::from_millis(10), 1, &mut rng);
        }
        let (file, live) = (db.stats().pages_file_bytes(), db.stats().pages_live_bytes());
        assert!(file <= live * 130 / 100 + 3 * SEGMENT, "seed {seed}: {file} bytes of file, {live} alive");
        db.recount().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn a_compact_file_is_hardly_longer_than_what_is_in_it() {
    for seed in seeds(4) {
        let world = world(1 << 30);
        let mut rng = Rng::new(seed);
        let db = world.open(rng.next_u64()).unwrap_or_else(|e| panic!("the store opens: {e}"));
        (0..6000).for_each(|number| put(&db, number, &mut rng));
        (0..4000).for_each(|_| {
            let number = rng.below(6000);
            db.remove(key(number)).map(drop).unwrap_or_else(|e| panic!("a removal: {e}"));
        });
        let before: Vec<_> = db.iter().map(|entry| entry.unwrap_or_else(|e| panic!("a scan: {e}"))).collect();
        db.compact().unwrap_or_else(|e| panic!("compact: {e}"));
        let (file, live) = (db.stats().pages_file_bytes(), db.stats().pages_live_bytes());
        // The last directories and the segment they are in come on top.
        assert!(file <= live * 110 / 100 + SEGMENT, "seed {seed}: {file} bytes of file, {live} alive");
        let after: Vec<_> = db.iter().map(|entry| entry.unwrap_or_else(|e| panic!("a scan: {e}"))).collect();
        assert!(before == after, "seed {seed}: it holds something else");
        db.recount().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        drop(db);
    }
}

/// With cleaning switched off the same work goes beyond the limit: the tests above can fail.
#[test]
fn without_cleaning_the_file_outgrows_its_limit() {
    let disk = Arc::new(SimDisk::untraced());
    let db = Config::new()
        .leaf_bytes_max(1024)
        .flush_every_ms(None)
        .page_cache(|builder| {
            builder
                .storage(disk)
                .block_bytes(512)
                .log_segment_bytes(SEGMENT as usize)
                .log_capacity(16 * SEGMENT)
                .checkpoint_every_bytes(48 << 10)
                .store_segment_bytes(SEGMENT as usize)
                .cleaning(false)
        })
        .open()
        .unwrap_or_else(|e| panic!("the store opens: {e}"));
    let mut rng = Rng::new(1);
    (0..4000).for_each(|number| put(&db, number, &mut rng));
    let beyond = (0..16_000).any(|_| {
        put(&db, rng.below(4000), &mut rng);
        db.stats().pages_file_bytes() > limit(db.stats().pages_live_bytes())
    });
    assert!(beyond, "cleaning is not needed for this");
}
