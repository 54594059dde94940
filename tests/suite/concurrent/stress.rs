//! Four threads that write one key space, interleaved within every leaf: each knows what became of its
//! own keys, and all of them write the same shared keys in batches.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use pagecache::io::sim::{Chooser, Rng, SimDisk};
use tests::{seeds, small_tree, within};
use tree::{Batch, Config, Db, Iter};

const THREADS: u64 = 4;
/// Own keys of each thread.
const OWN_KEYS: u64 = 300;
const SHARED_KEYS: u64 = 12;
/// Steps after which another part of the key space is emptied.
const TIDE_STEPS: u64 = 3000;
const HANG: Duration = Duration::from_secs(120);

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: &Arc<SimDisk>, cache: u64) -> Db {
    let disk = disk.clone();
    small_tree(Config::new().cache_capacity_unchecked(cache).flush_every_ms(Some(5)))
        .page_cache(|builder| builder.storage(disk))
        .open()
        .expect("the store opens")
}

fn own_key(thread: u64, number: u64) -> Vec<u8> {
    format!("k{:06}", number * THREADS + thread).into_bytes()
}

/// Shared keys lie between the own ones, over the whole key space.
fn shared_key(number: u64) -> Vec<u8> {
    format!("k{:06}s", number * THREADS * OWN_KEYS / SHARED_KEYS).into_bytes()
}

fn is_shared(key: &[u8]) -> bool {
    key.ends_with(b"s")
}

/// One thread: what it knows, and the iterator that it holds across everything.
struct Writer<'d> {
    db: &'d Db,
    thread: u64,
    rng: Rng,
    model: Model,
    steps: &'d AtomicU64,
    held: Option<Held>,
}

struct Held {
    iter: Iter,
    from_front: bool,
    last: Option<Vec<u8>>,
}

impl Writer<'_> {
    /// True in the quarter of the key space that all threads are emptying, but for a few keys at every other turn,
    /// so that leaves join.
    fn ebbs(&self, number: u64) -> bool {
        let turn = self.steps.load(Ordering::Relaxed) / TIDE_STEPS;
        let stays = number.is_multiple_of(12) && turn.is_multiple_of(2);
        number * 4 / OWN_KEYS == turn % 4 && !stays
    }

    fn value(&mut self) -> Vec<u8> {
        let len = if self.rng.below(60) == 0 { 1500 } else { 8 + self.rng.index(40) };
        let mut value = vec![0; len];
        self.rng.fill(&mut value);
        value
    }

    fn step(&mut self, place: &str) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let number = self.rng.below(OWN_KEYS);
        let key = own_key(self.thread, number);
        match self.rng.below(100) {
            0..50 if !self.ebbs(number) => {
                let value = self.value();
                let old = self.db.insert(&key, &value[..]).unwrap_or_else(|e| panic!("{place}: insert: {e}"));
                assert_eq!(old.map(|old| old.to_vec()), self.model.insert(key, value), "{place}: insert");
            }
            0..65 => {
                let old = self.db.remove(&key).unwrap_or_else(|e| panic!("{place}: remove: {e}"));
                assert_eq!(old.map(|old| old.to_vec()), self.model.remove(&key), "{place}: remove");
            }
            65..83 => {
                let got = self.db.get(&key).unwrap_or_else(|e| panic!("{place}: get: {e}"));
                assert_eq!(got.map(|got| got.to_vec()), self.model.get(&key).cloned(), "{place}: get");
            }
            83..90 => self.batch(place),
            90..98 => self.go_on(place),
            98 => {
                self.db.flush().unwrap_or_else(|e| panic!("{place}: flush: {e}"));
            }
            _ => self.db.checkpoint().unwrap_or_else(|e| panic!("{place}: checkpoint: {e}")),
        }
    }

    fn batch(&mut self, place: &str) {
        let mut batch = Batch::default();
        let stamp = self.value();
        for number in 0..SHARED_KEYS {
            batch.insert(shared_key(number), &stamp[..8]);
        }
        for _ in 0..self.rng.index(20) {
            let number = self.rng.below(OWN_KEYS);
            let key = own_key(self.thread, number);
            if self.ebbs(number) {
                batch.remove(&key[..]);
                self.model.remove(&key);
            } else {
                batch.insert(&key[..], &stamp[..8]);
                self.model.insert(key, stamp[..8].to_vec());
            }
        }
        self.db.apply_batch(batch).unwrap_or_else(|e| panic!("{place}: batch: {e}"));
    }

    /// Takes some entries off an iterator that was begun long ago.
    fn go_on(&mut self, place: &str) {
        let from_front = self.rng.chance(1, 2);
        let held = self.held.get_or_insert_with(|| Held { iter: self.db.iter(), from_front, last: None });
        for _ in 0..self.rng.index(200) {
            let next = if held.from_front { held.iter.next() } else { held.iter.next_back() };
            let Some(entry) = next else {
                self.held = None;
                return;
            };
            let key = entry.unwrap_or_else(|e| panic!("{place}: iterator: {e}")).0.to_vec();
            if let Some(last) = &held.last {
                assert!(
                    if held.from_front { *last < key } else { *last > key },
                    "{place}: {key:?} after {last:?}"
                );
            }
            held.last = Some(key);
        }
    }
}

fn check(db: &Db, want: &Model, place: &str) {
    let mut own = Model::new();
    let mut shared = Vec::new();
    for entry in db.iter() {
        let (key, value) = entry.unwrap_or_else(|e| panic!("{place}: {e}"));
        if is_shared(&key) {
            shared.push(value);
        } else {
            own.insert(key.to_vec(), value.to_vec());
        }
    }
    assert!(own == *want, "{place}: own keys differ, {} instead of {}", own.len(), want.len());
    assert!(
        shared.windows(2).all(|pair| pair[0] == pair[1]),
        "{place}: shared keys are of several batches: {shared:?}"
    );
    assert_eq!(shared.len() as u64, SHARED_KEYS, "{place}");
}

fn run(seed: u64, cache: u64, steps: u64) {
    let disk = Arc::new(SimDisk::untraced());
    let db = open(&disk, cache);
    let steps_done = AtomicU64::new(0);
    let all: Mutex<Model> = Mutex::default();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, steps_done, all) = (&db, &steps_done, &all);
            scope.spawn(move || {
                let rng = Rng::new(seed * THREADS + thread);
                let mut writer =
                    Writer { db, thread, rng, model: Model::new(), steps: steps_done, held: None };
                for step in 0..steps / THREADS {
                    writer.step(&format!("seed {seed}, thread {thread}, step {step}"));
                }
                writer.batch("at the end");
                all.lock().unwrap().append(&mut writer.model);
            });
        }
    });
    let want = all.into_inner().unwrap();
    check(&db, &want, &format!("seed {seed}, after the threads"));
    db.flush().unwrap();
    let crashed = Arc::new(disk.crash(&mut Chooser::random(seed)));
    check(&open(&crashed, cache), &want, &format!("seed {seed}, after a crash"));
    db.close().unwrap();
    check(&open(&disk, cache), &want, &format!("seed {seed}, after a close"));
}

#[test]
fn four_threads_agree_with_their_models_and_so_does_what_a_crash_leaves() {
    for seed in seeds(3) {
        within(HANG, move || run(seed, 1 << 30, 24_000));
    }
}

#[test]
fn four_threads_agree_with_their_models_in_a_cache_of_a_few_pages() {
    for seed in seeds(3) {
        within(HANG, move || run(seed, 24 << 10, 12_000));
    }
}

/// The long version.
mod linear {
    use tests::{Budget, seeds, within};

    use super::{HANG, run};

    #[test]
    #[ignore = "a long proof"]
    fn four_threads_agree_with_their_models() {
        let budget = Budget::start();
        for turn in 100.. {
            let seed = seeds(1).next().filter(|&named| named > 0).unwrap_or(turn);
            let cache = if seed.is_multiple_of(2) { 1 << 30 } else { 32 << 10 };
            within(HANG, move || run(seed, cache, 24_000));
            if !budget.lasts() {
                break;
            }
        }
    }
}

/// Batches over the same keys in many leaves, each thread's begun elsewhere: they wait for each other
/// on every leaf, and must never do so in a ring.
#[test]
fn batches_that_wait_for_each_others_keys_all_commit() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let db = open(&disk, 1 << 30);
        (0..OWN_KEYS)
            .for_each(|number| assert!(db.insert(own_key(0, number), vec![0; 60]).unwrap().is_none()));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let db = &db;
                scope.spawn(move || {
                    for round in 0..150u64 {
                        let mut batch = Batch::default();
                        for step in 0..OWN_KEYS / 2 {
                            let number = (thread * OWN_KEYS / THREADS + 7 * step) % OWN_KEYS;
                            batch.insert(
                                own_key(0, number),
                                (round * THREADS + thread).to_le_bytes().to_vec(),
                            );
                        }
                        db.apply_batch(batch).unwrap();
                    }
                });
            }
        });
        assert_eq!(db.len() as u64, OWN_KEYS);
    });
}
