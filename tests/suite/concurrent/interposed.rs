//! Schedules by seed: whenever one operation reads, writes or syncs the `pages` file, others happen
//! there and then, on another thread, before it goes on.
//!
//! So descents arrive at parents that are out of date, pages are split, joined, freed and used again
//! between two steps of a get, and changes fall between the steps of a checkpoint. The operations
//! in between have keys of their own, so that every answer is known.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pagecache::io::{
    FileId, Operation, Storage,
    sim::{Chooser, Rng, SimDisk},
};
use tests::{Hook, HookedStorage, seeds, small_tree, stepwise, within};
use tree::{Batch, Config, Db};

const HANG: Duration = Duration::from_secs(120);
const KEYS: u64 = 400;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
/// Has `other` happen on another thread, but not within itself.
fn interpose(other: impl Fn() + Clone + Send + Sync + 'static, at_writes: bool) -> Hook {
    let inside = AtomicBool::new(false);
    Arc::new(move |file, operation| {
        // Where what happens in between writes to the file too, it would wait for this very write.
        let is_free = at_writes || operation != Operation::Write;
        if file != FileId::Pages || !is_free || inside.swap(true, Ordering::SeqCst) {
            return;
        }
        let outcome = thread::spawn(other.clone()).join();
        inside.store(false, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    })
}

/// Opens without a background, and with a log that never fills: an operation in between must not have
/// to wait for the one that it interrupts.
fn open(storage: Arc<dyn Storage>, cache: u64, cleaning: bool) -> Db {
    small_tree(Config::new().cache_capacity_unchecked(cache))
        .page_cache(|builder| {
            stepwise(builder, storage)
                .log_segment_bytes(64 << 10)
                .log_capacity(256 << 20)
                .checkpoint_every_bytes(128 << 20)
                .cleaning(cleaning)
        })
        .open()
        .unwrap_or_else(|e| panic!("the store opens: {e}"))
}

/// What one side does: its keys are those of its parity.
struct Side {
    name: &'static str,
    parity: u64,
    rng: Rng,
    model: Model,
}

impl Side {
    fn new(name: &'static str, parity: u64, seed: u64) -> Side {
        Side { name, parity, rng: Rng::new(seed * 2 + parity), model: Model::new() }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key {:05}", self.rng.below(KEYS) * 2 + self.parity).into_bytes()
    }

    fn change(&mut self, db: &Db, place: &str) {
        let key = self.key();
        let name = self.name;
        match self.rng.below(10) {
            0..5 => {
                let value = vec![self.rng.next_u64() as u8; 10 + self.rng.index(50)];
                let old =
                    db.insert(&key, &value[..]).unwrap_or_else(|e| panic!("{place}: {name} insert: {e}"));
                assert_eq!(
                    old.map(|old| old.to_vec()),
                    self.model.insert(key, value),
                    "{place}: {name} insert"
                );
            }
            5..7 => {
                let old = db.remove(&key).unwrap_or_else(|e| panic!("{place}: {name} remove: {e}"));
                assert_eq!(old.map(|old| old.to_vec()), self.model.remove(&key), "{place}: {name} remove");
            }
            7 => self.empty(db, key, place),
            _ => {
                let got = db.get(&key).unwrap_or_else(|e| panic!("{place}: {name} get: {e}"));
                assert_eq!(got.map(|got| got.to_vec()), self.model.get(&key).cloned(), "{place}: {name} get");
            }
        }
    }

    /// Empties a stretch, or all of it but a few keys, so that leaves join and their pages are freed.
    fn empty(&mut self, db: &Db, from: Vec<u8>, place: &str) {
        let stays = if self.rng.chance(1, 2) { 8 } else { 40 };
        let doomed = self.model.range(from..).take(40).enumerate().filter(|(at, _)| (at + 1) % stays != 0);
        let doomed: Vec<Vec<u8>> = doomed.map(|(_, (key, _))| key.clone()).collect();
        for key in doomed {
            let old = db.remove(&key).unwrap_or_else(|e| panic!("{place}: {} remove: {e}", self.name));
            assert_eq!(old.map(|old| old.to_vec()), self.model.remove(&key), "{place}: {} remove", self.name);
        }
    }

    fn batch(&mut self, db: &Db, place: &str) {
        let mut batch = Batch::default();
        for _ in 0..self.rng.index(40) {
            let key = self.key();
            let value = vec![self.rng.next_u64() as u8; 20];
            batch.insert(&key[..], &value[..]);
            self.model.insert(key, value);
        }
        db.apply_batch(batch).unwrap_or_else(|e| panic!("{place}: {} batch: {e}", self.name));
    }

    /// Walks over everything; only this side's keys stand still meanwhile.
    fn scan(&mut self, db: &Db, place: &str) {
        let mut iter = db.iter();
        let from_front = self.rng.chance(1, 2);
        let mut got = Vec::new();
        while let Some(entry) = if from_front { iter.next() } else { iter.next_back() } {
            let (key, value) = entry.unwrap_or_else(|e| panic!("{place}: {} scan: {e}", self.name));
            got.push((key.to_vec(), value.to_vec()));
        }
        if !from_front {
            got.reverse();
        }
        assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0), "{place}: scan out of order");
        got.retain(|(key, _)| u64::from(key[key.len() - 1]) % 2 == self.parity);
        assert!(
            got.into_iter().eq(self.model.clone()),
            "{place}: {} scan from the front {from_front}",
            self.name
        );
    }
}

fn check(db: &Db, sides: [&Model; 2], place: &str) {
    let want: Model = sides.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let got: Model = db
        .iter()
        .map(|entry| entry.unwrap_or_else(|e| panic!("{place}: {e}")))
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    let lost: Vec<_> = want.iter().filter(|(key, value)| got.get(*key) != Some(*value)).take(3).collect();
    assert!(got == want, "{place}: {} entries, {} wanted; lost, as {lost:?}", got.len(), want.len());
}

fn run(seed: u64, cache: u64, steps: u64) {
    let disk = Arc::new(SimDisk::untraced());
    let storage = Arc::new(HookedStorage::new(disk.clone()));
    // A writer whose evictions fill the file takes the checkpoint's part: none may then wait for it
    // from in between.
    let cleaning = seed.is_multiple_of(2);
    let db = open(storage.clone(), cache, cleaning);
    let mut outer = Side::new("outer", 0, seed);
    let inner = Arc::new(Mutex::new(Side::new("inner", 1, seed)));
    let may = |checkpoint: bool| -> Hook {
        let (db, inner) = (db.clone(), inner.clone());
        let other = move || {
            let mut inner = inner.lock().unwrap();
            if inner.rng.chance(2, 3) {
                return;
            }
            let place = format!("seed {seed}, in between");
            for _ in 0..inner.rng.index(30) {
                match inner.rng.below(30) {
                    0 if checkpoint => db.checkpoint().unwrap_or_else(|e| panic!("{place}: checkpoint: {e}")),
                    1 => inner.batch(&db, &place),
                    _ => inner.change(&db, &place),
                }
            }
        };
        interpose(other, cache > 1 << 20)
    };
    let (anything, changes) = (may(cache > 1 << 20 || !cleaning), may(false));
    for step in 0..steps {
        let place = format!("seed {seed}, step {step}");
        let choice = outer.rng.below(100);
        storage.set_hook(match choice {
            0..6 => Some(changes.clone()),
            // What is pending must not be waited for from in between.
            6..12 => None,
            _ => Some(anything.clone()),
        });
        match choice {
            0..6 => db.checkpoint().unwrap_or_else(|e| panic!("{place}: checkpoint: {e}")),
            6..12 => outer.batch(&db, &place),
            12..16 => outer.scan(&db, &place),
            _ => outer.change(&db, &place),
        }
        if choice < 6 || step + 1 == steps {
            storage.set_hook(None);
            let inner = inner.lock().unwrap();
            db.flush().unwrap();
            let crashed = Arc::new(disk.crash(&mut Chooser::random(seed ^ step)));
            check(
                &open(crashed, cache, cleaning),
                [&outer.model, &inner.model],
                &format!("{place}, after a crash"),
            );
        }
    }
    storage.set_hook(None);
    check(&db, [&outer.model, &inner.lock().unwrap().model], &format!("seed {seed}, at the end"));
    db.shape().unwrap_or_else(|e| panic!("seed {seed}, at the end: {e}"));
}

#[test]
fn operations_between_the_reads_and_writes_of_others_change_no_answer() {
    for seed in seeds(6) {
        within(HANG, move || run(seed, 4 << 10, 300));
    }
}

#[test]
fn changes_between_the_steps_of_a_checkpoint_survive_a_crash_right_after_it() {
    for seed in seeds(6) {
        within(HANG, move || run(seed, 1 << 30, 300));
    }
}

/// The long version.
mod linear {
    use tests::{Budget, seeds, within};

    use super::{HANG, run};

    #[test]
    #[ignore = "a long proof"]
    fn operations_between_the_reads_and_writes_of_others_change_no_answer() {
        let budget = Budget::start();
        for turn in 100.. {
            let seed = seeds(1).next().filter(|&named| named > 0).unwrap_or(turn);
            let cache = if seed.is_multiple_of(3) { 1 << 30 } else { 4 << 10 };
            within(HANG, move || run(seed, cache, 600));
            if !budget.lasts() {
                break;
            }
        }
    }
}
