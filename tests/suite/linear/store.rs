//! Histories of a real store: four threads on a few keys, among others that come and go so that
//! leaves split, join and are evicted, with checkpoints behind.

use std::{
    collections::BTreeMap,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use pagecache::io::sim::Rng;
use tests::{Budget, seeds, small_tree, within};
use tree::{Batch, Config, Db, IVec};

use super::checker::{Event, Op, Value, check};

const THREADS: u8 = 4;
/// Keys whose histories are checked.
const HOT_KEYS: u64 = 5;
/// Keys around them, a hundred to each.
const COLD_KEYS: u64 = 500;
const HANG: Duration = Duration::from_secs(120);

fn hot_key(number: u64) -> Vec<u8> {
    format!("{:04}", number * COLD_KEYS / HOT_KEYS + 50).into_bytes()
}

fn cold_key(number: u64) -> Vec<u8> {
    format!("{number:04}c").into_bytes()
}

fn value_of(bytes: Option<IVec>) -> Value {
    bytes.map(|bytes| u64::from_le_bytes(bytes[..8].try_into().expect("a value holds a number")))
}

/// Values carry padding, so that hot keys take part in splits.
fn bytes_of(value: u64) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + (value % 40) as usize, 0);
    bytes
}

struct Recorder<'s> {
    db: &'s Db,
    clock: &'s AtomicU64,
    thread: u8,
    rng: Rng,
    /// Unique in the run.
    fresh: u64,
    /// What this thread saw last of each key: a swap from it may succeed.
    seen: [Value; HOT_KEYS as usize],
    history: Vec<(u64, Event)>,
}

impl Recorder<'_> {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh << 8 | u64::from(self.thread)
    }

    fn step(&mut self) {
        let number = self.rng.below(HOT_KEYS);
        match self.rng.below(20) {
            0..12 => self.single(number),
            12..14 => self.batch(),
            14..19 => self.change_cold(),
            _ => self.empty_cold(),
        }
    }

    fn single(&mut self, number: u64) {
        let key = hot_key(number);
        let fresh = self.fresh();
        let choice = self.rng.below(10);
        let expected = self.seen[number as usize];
        let called = self.now();
        let op = match choice {
            0..3 => Op::Get(value_of(self.db.get(&key).unwrap())),
            3..5 => Op::Insert(fresh, value_of(self.db.insert(&key, bytes_of(fresh)).unwrap())),
            5 => Op::Remove(value_of(self.db.remove(&key).unwrap())),
            _ => {
                let new = (choice < 9).then_some(fresh);
                let swapped =
                    self.db.compare_and_swap(&key, expected.map(bytes_of), new.map(bytes_of)).unwrap();
                match swapped {
                    Ok(()) => Op::Swapped(expected, new),
                    Err(refused) => Op::Refused(expected, value_of(refused.current)),
                }
            }
        };
        let returned = self.now();
        self.seen[number as usize] = match op {
            Op::Get(value) | Op::Refused(_, value) | Op::Swapped(_, value) | Op::Put(value) => value,
            Op::Insert(value, _) => Some(value),
            Op::Remove(_) => None,
        };
        self.history.push((number, Event { thread: self.thread, op, called, returned }));
    }

    fn batch(&mut self) {
        let mut batch = Batch::default();
        let mut ops = BTreeMap::new();
        for _ in 0..1 + self.rng.index(4) {
            let (number, fresh) = (self.rng.below(HOT_KEYS), self.fresh());
            let new = self.rng.chance(3, 4).then_some(fresh);
            match new {
                Some(value) => batch.insert(hot_key(number), bytes_of(value)),
                None => batch.remove(hot_key(number)),
            }
            ops.insert(number, Op::Put(new));
        }
        for _ in 0..self.rng.index(10) {
            batch.insert(cold_key(self.rng.below(COLD_KEYS)), vec![7; 40]);
        }
        let called = self.now();
        self.db.apply_batch(batch).unwrap();
        let returned = self.now();
        let thread = self.thread;
        self.history
            .extend(ops.into_iter().map(|(number, op)| (number, Event { thread, op, called, returned })));
    }

    fn change_cold(&mut self) {
        let key = cold_key(self.rng.below(COLD_KEYS));
        if self.rng.chance(2, 3) {
            self.db.insert(key, vec![7; 40]).unwrap();
        } else {
            self.db.remove(key).unwrap();
        }
    }

    /// Empties the stretch around a hot key, or all but a few keys of it, so that its leaf is joined.
    fn empty_cold(&mut self) {
        let first = self.rng.below(COLD_KEYS);
        let stays = if self.rng.chance(1, 2) { 10 } else { COLD_KEYS };
        (first..COLD_KEYS.min(first + 60))
            .filter(|number| !number.is_multiple_of(stays))
            .for_each(|number| drop(self.db.remove(cold_key(number)).unwrap()));
    }
}

/// Runs four threads on a new store and checks the history of every hot key.
fn run(seed: u64, cache: u64, steps: u64) {
    let config = Config::new().temporary(true).cache_capacity_unchecked(cache).flush_every_ms(Some(2));
    let db = small_tree(config).open().unwrap();
    let (clock, start, stop) =
        (AtomicU64::new(1), Barrier::new(usize::from(THREADS)), AtomicBool::new(false));
    let histories: Mutex<BTreeMap<u64, Vec<Event>>> = Mutex::default();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (db, clock, start, histories) = (&db, &clock, &start, &histories);
                scope.spawn(move || {
                    let rng = Rng::new(seed * u64::from(THREADS) + u64::from(thread));
                    let seen = [None; HOT_KEYS as usize];
                    let mut recorder =
                        Recorder { db, clock, thread, rng, fresh: 0, seen, history: Vec::new() };
                    start.wait();
                    (0..steps).for_each(|_| recorder.step());
                    let mut histories = histories.lock().unwrap();
                    for (number, event) in recorder.history {
                        histories.entry(number).or_default().push(event);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                db.checkpoint().unwrap();
                thread::sleep(Duration::from_millis(3));
            }
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
    for (number, history) in histories.into_inner().unwrap() {
        check(&history, None)
            .unwrap_or_else(|why| panic!("seed {seed}, cache {cache}, hot key {number}: {why}"));
    }
}

const CACHES: [u64; 2] = [1 << 30, 16 << 10];

#[test]
fn histories_of_four_threads_on_a_few_keys_have_an_order() {
    for seed in seeds(4) {
        let cache = CACHES[(seed % 2) as usize];
        within(HANG, move || run(seed, cache, 3000));
    }
}

#[test]
#[ignore = "a long proof"]
fn histories_of_four_threads_on_a_few_keys_have_an_order_for_long() {
    let budget = Budget::start();
    for turn in 1000.. {
        let seed = seeds(1).next().filter(|&named| named > 0).unwrap_or(turn);
        within(HANG, move || run(seed, CACHES[(seed % 2) as usize], 8000));
        if !budget.lasts() {
            break;
        }
    }
}
