//! A batch shows all at once to every get that begins after any get has seen it.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use pagecache::{Lsn, io::sim::Rng};
use tests::{Budget, seeds, small_tree, within};
use tree::{Batch, Config, Db, Durability};

/// Keys of every batch, each in a leaf of its own.
const KEYS: u64 = 12;
const COLD_KEYS: u64 = 240;
const HANG: Duration = Duration::from_secs(120);

fn key(number: u64) -> Vec<u8> {
    format!("{:04}", number * COLD_KEYS / KEYS).into_bytes()
}

fn number_at(db: &Db, key: &[u8]) -> u64 {
    let read = |value: Option<&[u8]>| value.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    db.get_with(key, read).unwrap()
}

fn open(cache: u64) -> Db {
    let config = Config::new().temporary(true).cache_capacity_unchecked(cache).flush_every_ms(Some(2));
    small_tree(config).open().unwrap()
}

/// Puts and takes keys between those of the batches, so that their leaves split and join.
fn churn(db: &Db, rng: &mut Rng) {
    let key = format!("{:04}c", rng.below(COLD_KEYS));
    if rng.chance(1, 2) {
        db.insert(key, vec![7; 60]).unwrap();
    } else {
        db.remove(key).unwrap();
    }
}

/// One writer counts up in all keys by batches. A reader that has seen n anywhere must see at least n
/// wherever it looks next, whichever way it goes.
fn one_writer(seed: u64, cache: u64, batches: u64) {
    let db = open(cache);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (db, stop) = (&db, &stop);
        for reader in 0..2 {
            scope.spawn(move || {
                let mut rng = Rng::new(seed * 8 + reader);
                let mut newest = 0;
                while !stop.load(Ordering::Relaxed) {
                    let number = rng.below(KEYS);
                    let got = number_at(db, &key(number));
                    assert!(got >= newest, "seed {seed}: key {number} shows {got} after {newest} was seen");
                    newest = got;
                }
            });
        }
        scope.spawn(move || {
            let mut rng = Rng::new(seed * 8 + 7);
            while !stop.load(Ordering::Relaxed) {
                churn(db, &mut rng);
            }
        });
        for n in 1..=batches {
            let mut batch = Batch::default();
            (0..KEYS).for_each(|number| batch.insert(key(number), n.to_le_bytes().to_vec()));
            db.apply_batch(batch).unwrap_or_else(|e| panic!("seed {seed}, batch {n}: {e}"));
            let first = number_at(db, &key(n % KEYS));
            assert_eq!(first, n, "seed {seed}: a get after the batch");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Several writers on the same keys: batches have an order, that of their positions, and whoever has
/// seen one sees it or a later one from then on.
fn many_writers(seed: u64, cache: u64, batches: u64) {
    let db = open(cache);
    let next = AtomicU64::new(1);
    let positions: Mutex<HashMap<u64, Lsn>> = Mutex::new(HashMap::from([(0, 0)]));
    let writing = AtomicU64::new(3);
    let seen: Mutex<Vec<Vec<(u64, u64)>>> = Mutex::default();
    thread::scope(|scope| {
        let (db, next, positions, writing, seen) = (&db, &next, &positions, &writing, &seen);
        for writer in 0..3 {
            scope.spawn(move || {
                let mut rng = Rng::new(seed * 8 + writer);
                for _ in 0..batches {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let mut batch = Batch::default();
                    (0..KEYS).for_each(|number| batch.insert(key(number), id.to_le_bytes().to_vec()));
                    let lsn = db.write(&batch, Durability::None).unwrap();
                    positions.lock().unwrap().insert(id, lsn);
                    churn(db, &mut rng);
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(move || {
            let mut rng = Rng::new(seed * 8 + 7);
            let mut sight = Vec::new();
            while writing.load(Ordering::Relaxed) > 0 {
                let number = rng.below(KEYS);
                sight.push((number, number_at(db, &key(number))));
            }
            seen.lock().unwrap().push(sight);
        });
    });
    let positions = positions.into_inner().unwrap();
    for sight in seen.into_inner().unwrap() {
        let mut newest = (0, 0);
        for (number, id) in sight {
            let lsn = positions[&id];
            assert!(lsn >= newest.1, "seed {seed}: key {number} shows batch {id} at {lsn} after {newest:?}");
            newest = (id, lsn);
        }
    }
    let last = positions.iter().max_by_key(|(_, lsn)| **lsn).map(|(id, _)| *id);
    (0..KEYS)
        .for_each(|number| assert_eq!(Some(number_at(&db, &key(number))), last, "seed {seed}, key {number}"));
}

const CACHES: [u64; 2] = [1 << 30, 16 << 10];

#[test]
fn no_get_sees_a_part_of_a_batch() {
    for seed in seeds(2) {
        let cache = CACHES[(seed % 2) as usize];
        within(HANG, move || one_writer(seed, cache, 1500));
        within(HANG, move || many_writers(seed, cache, 400));
    }
}

#[test]
#[ignore = "a long proof"]
fn no_get_sees_a_part_of_a_batch_for_long() {
    let budget = Budget::start();
    for turn in 1000.. {
        let seed = seeds(1).next().filter(|&named| named > 0).unwrap_or(turn);
        let cache = CACHES[(seed % 2) as usize];
        within(HANG, move || one_writer(seed, cache, 4000));
        within(HANG, move || many_writers(seed, cache, 1500));
        if !budget.lasts() {
            break;
        }
    }
}
