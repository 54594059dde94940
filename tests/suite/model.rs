//! Random operations and reopens against a `BTreeMap`.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use pagecache::{
    EventLog,
    io::sim::{Rng, SimClock, SimDisk, SimSpawner},
};
use tree::{Batch, Config, Db, IVec};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store of many small pages on a simulated disk, with background steps chosen by the seed.
struct World {
    disk: Arc<SimDisk>,
    spawner: Arc<SimSpawner>,
    clock: Arc<SimClock>,
    cache: u64,
    events: EventLog,
}

impl World {
    fn new(cache: u64) -> World {
        let clock = Arc::new(SimClock::new());
        World {
            disk: Arc::new(SimDisk::untraced()),
            spawner: Arc::new(SimSpawner::new(clock.clone())),
            clock,
            cache,
            events: EventLog::new(),
        }
    }

    fn open(&self) -> Db {
        let (disk, spawner, clock) = (self.disk.clone(), self.spawner.clone(), self.clock.clone());
        Config::new()
            .leaf_bytes_max(512)
            .cache_capacity_unchecked(self.cache)
            .page_cache(|builder| {
                builder
                    .storage(disk)
                    .event_log(self.events.clone())
                    .spawner(spawner)
                    .clock(clock)
                    .salt_seed(1)
                    .block_bytes(512)
                    .log_segment_bytes(16 << 10)
                    .log_capacity(128 << 10)
                    .checkpoint_every_bytes(48 << 10)
                    .store_segment_bytes(16 << 10)
            })
            .open()
            .expect("the store opens")
    }
}

fn key(rng: &mut Rng) -> Vec<u8> {
    let number = rng.below(2000);
    match rng.below(4) {
        0 => format!("{number}").into_bytes(),
        1 => format!("a long prefix that all of these keys share {number:06}").into_bytes(),
        2 => number.to_be_bytes().to_vec(),
        _ => vec![b'x'; rng.index(12)],
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.below(50) == 0 { rng.index(3000) } else { rng.index(40) };
    let byte = rng.next_u64() as u8;
    vec![byte; len]
}

fn bound(rng: &mut Rng) -> Bound<Vec<u8>> {
    match rng.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(rng)),
        _ => Bound::Excluded(key(rng)),
    }
}

fn is_in_order(range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> bool {
    use Bound::{Excluded, Included};
    match range {
        (Included(a), Included(b)) => a <= b,
        (Included(a) | Excluded(a), Included(b) | Excluded(b)) => a < b,
        _ => true,
    }
}

/// A walk from both ends at once, in an order chosen by the seed.
fn check_range(db: &Db, model: &Model, rng: &mut Rng, place: &str) {
    let range = (bound(rng), bound(rng));
    let mut want: std::collections::VecDeque<(Vec<u8>, Vec<u8>)> = if is_in_order(&range) {
        model.range(range.clone()).map(|(k, v)| (k.clone(), v.clone())).collect()
    } else {
        Default::default()
    };
    let mut iter = db.range(range.clone());
    let style = rng.below(3);
    loop {
        let from_front = match style {
            0 => true,
            1 => false,
            _ => rng.chance(1, 2),
        };
        let (got, expected) =
            if from_front { (iter.next(), want.pop_front()) } else { (iter.next_back(), want.pop_back()) };
        let got = got.map(|entry| entry.expect("no page is damaged")).map(|(k, v)| (k.to_vec(), v.to_vec()));
        assert_eq!(got, expected, "{place}: {range:?}, from the front: {from_front}");
        if expected.is_none() {
            break;
        }
    }
}

fn run(seed: u64, steps: usize, cache: u64) {
    let mut rng = Rng::new(seed);
    let world = World::new(cache);
    let mut model = Model::new();
    let mut db = world.open();
    for step in 0..steps {
        let place = format!("seed {seed}, step {step}");
        match rng.below(100) {
            0..45 => {
                let (k, v) = (key(&mut rng), value(&mut rng));
                let old = db.insert(&k, &v[..]).unwrap();
                assert_eq!(old.map(|old| old.to_vec()), model.insert(k, v), "{place}: insert");
            }
            45..65 => {
                let k = key(&mut rng);
                let old = db.remove(&k).unwrap();
                assert_eq!(old.map(|old| old.to_vec()), model.remove(&k), "{place}: remove");
            }
            65..80 => {
                let k = key(&mut rng);
                assert_eq!(
                    db.get(&k).unwrap().map(|v| v.to_vec()),
                    model.get(&k).cloned(),
                    "{place}: get {k:?}"
                );
            }
            80..86 => {
                let mut batch = Batch::default();
                for _ in 0..rng.index(60) {
                    let (k, v) = (key(&mut rng), value(&mut rng));
                    if rng.chance(1, 3) {
                        batch.remove(&k[..]);
                        model.remove(&k);
                    } else {
                        batch.insert(&k[..], IVec::from(&v[..10.min(v.len())]));
                        model.insert(k, v[..10.min(v.len())].to_vec());
                    }
                }
                db.apply_batch(batch).unwrap();
            }
            86..92 => check_range(&db, &model, &mut rng, &place),
            92 => assert_eq!(db.len(), model.len(), "{place}: len"),
            93 => {
                // A stretch is emptied, or all of it but a few keys, so that leaves are joined.
                let from = key(&mut rng);
                let stays = if rng.chance(1, 2) { 10 } else { 61 };
                let doomed = model.range(from..).take(60).enumerate().filter(|(at, _)| (at + 1) % stays != 0);
                let doomed: Vec<Vec<u8>> = doomed.map(|(_, (k, _))| k.clone()).collect();
                for k in doomed {
                    assert!(db.remove(&k).unwrap().is_some(), "{place}: {k:?} was there");
                    model.remove(&k);
                }
            }
            94..97 => {
                world.clock.advance(std::time::Duration::from_millis(600));
                world.spawner.run(&mut rng, 3);
            }
            97 => {
                db.flush().unwrap();
            }
            98 => {
                db.checkpoint().unwrap();
            }
            _ => {
                if rng.chance(1, 2) {
                    db.close().unwrap();
                } else {
                    drop(db);
                }
                db = world.open();
                assert!(db.was_recovered());
                if step % 4 == 0 {
                    db.verify_checkpoint().unwrap_or_else(|e| panic!("{place}: {e}"));
                }
            }
        }
    }
    let all: Vec<(Vec<u8>, Vec<u8>)> =
        db.iter().map(|e| e.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
    let want: Vec<(Vec<u8>, Vec<u8>)> = model.into_iter().collect();
    assert_eq!(all, want, "seed {seed}: at the end");
    db.shape().unwrap_or_else(|e| panic!("seed {seed}: at the end: {e}"));
}

#[test]
fn random_operations_and_reopens_agree_with_a_map() {
    for seed in tests::seeds(12) {
        run(seed, 4000, 1 << 30);
    }
}

#[test]
fn a_cache_far_smaller_than_the_data_changes_no_answer() {
    for seed in tests::seeds(8) {
        run(seed, 4000, 8 << 10);
    }
}
