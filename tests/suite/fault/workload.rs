//! The reference workload on a simulated disk, what it must have left at every moment, and the
//! checks that end every run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pagecache::io::sim::{Chooser, FaultPlan, Rng, SimClock, SimDisk, SimSpawner};
use tree::{Batch, Config, Db, Error, IVec};

pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const STEPS: usize = 110;

/// A simulated machine for one small store.
pub(super) struct World {
    pub(super) disk: Arc<SimDisk>,
    spawner: Arc<SimSpawner>,
    clock: Arc<SimClock>,
    cache: u64,
}

impl World {
    pub(super) fn new(cache: u64) -> World {
        World::on(SimDisk::untraced(), cache)
    }

    pub(super) fn on(disk: SimDisk, cache: u64) -> World {
        let clock = Arc::new(SimClock::new());
        let spawner = Arc::new(SimSpawner::new(clock.clone()));
        World { disk: Arc::new(disk), spawner, clock, cache }
    }

    /// Opens the store, with segments so small that everything happens early.
    pub(super) fn open(&self) -> tree::Result<Db> {
        let (disk, spawner, clock) = (self.disk.clone(), self.spawner.clone(), self.clock.clone());
        Config::new()
            .leaf_bytes_max(256)
            .cache_capacity_unchecked(self.cache)
            .page_cache(|builder| {
                builder
                    .storage(disk)
                    .spawner(spawner)
                    .clock(clock)
                    .salt_seed(1)
                    .block_bytes(512)
                    .log_segment_bytes(4 << 10)
                    .log_buffers(4)
                    .log_capacity(24 << 10)
                    .checkpoint_every_bytes(8 << 10)
                    .store_segment_bytes(4 << 10)
            })
            .open()
    }

    /// The machine after a crash.
    pub(super) fn crash(&self, mut chooser: Chooser) -> World {
        World::on(self.disk.crash(&mut chooser), self.cache)
    }
}

/// Everything that a store holds.
pub(super) fn contents(db: &Db) -> tree::Result<Model> {
    db.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}

/// What a fault leads one to expect.
#[derive(Debug)]
pub(super) struct Expected {
    /// Where we are, for messages.
    pub(super) place: String,
    /// The call that is struck, counted over all changing calls; 0 if counted in another way.
    pub(super) call: u64,
    /// The disk is full, which need not poison.
    pub(super) is_full: bool,
    /// A sync says that all is well though it lost everything: what it covered is not durable.
    pub(super) lies: bool,
    /// The name of a new file could be neither made durable nor taken away again, so on the same
    /// machine it looks like any other, and a crash may take it.
    pub(super) names_in_doubt: bool,
}

/// One run of the workload: the store as it is meant to be after each operation.
pub(super) struct Run<'w> {
    world: &'w World,
    rng: Rng,
    db: Option<Db>,
    /// After 0, 1, .. operations.
    pub(super) states: Vec<Model>,
    /// So many operations were durable when a call said so.
    pub(super) durable: usize,
    pub(super) errors: Vec<Error>,
    /// The errors are those of a failing read: the workload goes on.
    reads_fail: bool,
}

impl<'w> Run<'w> {
    pub(super) fn new(world: &'w World, seed: u64) -> Run<'w> {
        Run {
            world,
            rng: Rng::new(seed),
            db: None,
            states: vec![Model::new()],
            durable: 0,
            errors: Vec::new(),
            reads_fail: false,
        }
    }

    /// Runs to the end, or to the first error that is no full disk; returns the store if it is open.
    pub(super) fn go(&mut self) -> Option<&Db> {
        for step in 0..STEPS {
            if self.db.is_none() && !self.open() {
                return None;
            }
            if !self.step(step) {
                break;
            }
        }
        self.db.as_ref()
    }

    fn now(&self) -> &Model {
        self.states.last().expect("there is a first state")
    }

    /// Opens the store and finds out which operations it holds; false if it does not open.
    fn open(&mut self) -> bool {
        let opened = self.world.open();
        let Some(db) = self.told(opened) else { return false };
        let read = contents(&db);
        self.db = Some(db);
        if let Some(found) = self.told(read) {
            let n = self.states.iter().rposition(|state| *state == found);
            let n = n.unwrap_or_else(|| panic!("the store holds what it never held: {found:?}"));
            assert!(n >= self.durable, "it holds {n} operations, {} were durable", self.durable);
            self.states.truncate(n + 1);
        }
        true
    }

    /// The store, if it is open, and what it is to hold.
    pub(super) fn into_store(mut self) -> (Option<Db>, Model) {
        let model = self.states.pop().expect("there is a first state");
        (self.db, model)
    }

    /// The value, or nothing and the error noted.
    fn told<T>(&mut self, outcome: tree::Result<T>) -> Option<T> {
        outcome.map_err(|error| self.errors.push(error)).ok()
    }

    /// One step; false if the store is of no use any more.
    fn step(&mut self, step: usize) -> bool {
        let before = self.errors.len();
        match self.rng.below(100) {
            // The store is closed and opened in the middle of the run.
            _ if step == STEPS / 2 => {
                let db = self.db.take().expect("the store is open");
                let closed = db.close();
                if self.told(closed).is_some() {
                    self.durable = self.states.len() - 1;
                }
            }
            0..50 => self.insert(),
            50..65 => self.remove(),
            65..80 => self.batch(),
            80..90 => {
                let flushed = self.db().flush();
                if self.told(flushed).is_some() {
                    self.durable = self.states.len() - 1;
                }
            }
            90..95 => {
                let outcome = self.db().checkpoint();
                self.told(outcome);
            }
            _ => {
                self.world.clock.advance(Duration::from_millis(600));
                self.world.spawner.run(&mut self.rng, 3);
            }
        }
        let fatal = |error: &Error| !matches!(error, Error::DiskFull { .. });
        self.reads_fail || !self.errors[before..].iter().any(fatal)
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("the store is open")
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.rng.below(90);
        format!("{n:04} is a key").into_bytes()
    }

    fn insert(&mut self) {
        let (key, value) = (self.key(), vec![b'a' + self.rng.below(26) as u8; self.rng.index(60)]);
        let old = self.now().get(&key).cloned();
        let outcome = self.db().insert(&key, &value[..]);
        if let Some(found) = self.told(outcome) {
            assert_eq!(found.map(|value| value.to_vec()), old, "the value before");
            let mut state = self.now().clone();
            state.insert(key, value);
            self.states.push(state);
        }
    }

    fn remove(&mut self) {
        let key = self.key();
        let old = self.now().get(&key).cloned();
        let outcome = self.db().remove(&key);
        if let Some(found) = self.told(outcome) {
            assert_eq!(found.map(|value| value.to_vec()), old, "the value before");
            let mut state = self.now().clone();
            state.remove(&key);
            self.states.push(state);
        }
    }

    fn batch(&mut self) {
        let mut batch = Batch::default();
        let mut state = self.now().clone();
        for _ in 0..1 + self.rng.index(8) {
            let key = self.key();
            if self.rng.chance(1, 3) {
                batch.remove(&key[..]);
                state.remove(&key);
            } else {
                batch.insert(&key[..], IVec::from(&b"in a batch"[..]));
                state.insert(key, b"in a batch".to_vec());
            }
        }
        let outcome = self.db().apply_batch(batch);
        if self.told(outcome).is_some() {
            self.states.push(state);
        }
    }

    /// Runs the workload under a fault, and checks whatever must hold after it.
    pub(super) fn go_on_to_the_end(mut self, expected: Expected) {
        let place = &expected.place;
        self.go();
        let is_poisoned = self.errors.iter().any(|error| !matches!(error, Error::DiskFull { .. }));
        if let Some(db) = self.db.take() {
            self.check_reads(&db, place);
            if is_poisoned {
                check_poison(&db, place);
            }
            let closed = db.close();
            assert!(!is_poisoned || closed.is_err(), "{place}: a poisoned store says that it closed well");
            if self.told(closed).is_some() && !expected.lies {
                self.durable = self.states.len() - 1;
            }
        }
        let was_struck = expected.call > 0 && self.world.disk.calls() >= expected.call;
        if was_struck && !expected.is_full {
            assert!(!self.errors.is_empty(), "{place}: nobody was told");
        }
        let kind =
            |error: &Error| matches!(error, Error::DiskFull { .. } | Error::Io(_) | Error::Poisoned { .. });
        let strange = self.errors.iter().find(|error| !kind(error));
        assert!(expected.lies || strange.is_none(), "{place}: {strange:?} is not the cause");
        if expected.lies {
            self.durable = 0;
        }
        self.check_crashes(&expected);
        self.check_same_machine(&expected);
    }

    fn check_reads(&self, db: &Db, place: &str) {
        match contents(db) {
            Ok(found) => assert_eq!(&found, self.now(), "{place}: what reads see after the fault"),
            // What a failed sync has thrown away cannot be read again.
            Err(error) if self.world.cache < 1 << 20 => assert!(error.is_corruption(), "{place}: {error}"),
            Err(error) => panic!("{place}: what is in memory cannot be read: {error}"),
        }
    }

    /// After a crash of any kind the store opens and holds a prefix with everything durable.
    fn check_crashes(&self, expected: &Expected) {
        let seed = expected.call + self.states.len() as u64;
        let choosers = [
            Chooser::none(),
            Chooser::all(),
            Chooser::random(seed),
            Chooser::random(seed + 1).with_garbage(seed),
        ];
        for (n, chooser) in choosers.into_iter().enumerate() {
            let place = format!("{}, crash {n}", expected.place);
            self.check_prefix(&self.world.crash(chooser), &place, expected.lies);
        }
    }

    fn check_prefix(&self, world: &World, place: &str, may_be_damaged: bool) -> Option<Db> {
        let opened = world.open().and_then(|db| Ok((contents(&db)?, db)));
        let (found, db) = match opened {
            Ok(opened) => opened,
            Err(error) if may_be_damaged && error.is_corruption() => return None,
            Err(error) => panic!("{place}: it does not open: {error}"),
        };
        let n = self.states.iter().rposition(|state| *state == found);
        let n = n.unwrap_or_else(|| panic!("{place}: it holds what it never held: {found:?}"));
        assert!(n >= self.durable, "{place}: it holds {n} operations, {} were durable", self.durable);
        Some(db)
    }

    /// The process opens the store again on the machine where the fault was, without a crash: what
    /// it makes durable now stays, though an earlier sync has forgotten what the caches still show.
    fn check_same_machine(&self, expected: &Expected) {
        if expected.lies || expected.names_in_doubt {
            return;
        }
        let place = format!("{}, opened again", expected.place);
        self.world.disk.set_faults(FaultPlan::new());
        let Some(db) = self.check_prefix(self.world, &place, false) else { return };
        let mut now = contents(&db).unwrap_or_else(|error| panic!("{place}: {error}"));
        for n in 0..3 {
            let (key, value) = (format!("later {n}"), "still here");
            db.insert(&key, value)
                .and_then(|_| db.flush())
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            now.insert(key.into_bytes(), value.into());
        }
        self.world.disk.cut_power();
        drop(db);
        for chooser in [Chooser::none(), Chooser::all(), Chooser::random(now.len() as u64)] {
            let world = self.world.crash(chooser);
            let found = world.open().and_then(|db| contents(&db));
            let found = found.unwrap_or_else(|error| panic!("{place}, then crashed: {error}"));
            let lost = now.iter().filter(|(key, value)| found.get(*key) != Some(*value));
            let lost: Vec<_> = lost.map(|(key, _)| String::from_utf8_lossy(key)).collect();
            assert!(found == now, "{place}, then crashed: lost {lost:?}");
        }
    }

    /// Runs the workload to its end though a read fails: each error is the read's, and afterwards
    /// everything is there.
    pub(super) fn go_through_failing_reads(mut self, place: &str) {
        self.reads_fail = true;
        for step in 0..STEPS {
            while self.db.is_none() {
                assert!(self.errors.len() < 3, "{place}: one failing read keeps the store from opening");
                self.open();
            }
            self.step(step);
        }
        let poison = self.errors.iter().find(|error| !matches!(error, Error::Io(_)));
        assert!(poison.is_none(), "{place}: a read has failed, and it says {poison:?}");
        let db = self.db.take().expect("the store is open");
        let found =
            contents(&db).or_else(|_| contents(&db)).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(&found, self.now(), "{place}");
        db.flush().unwrap_or_else(|error| panic!("{place}: {error}"));
        // What closing moves it reads before, and may fail to.
        let _ = db.close();
        let again = self.world.open().and_then(|db| contents(&db));
        assert_eq!(&again.unwrap_or_else(|error| panic!("{place}: {error}")), self.now(), "{place}");
    }
}

/// Every write gets the first cause; nothing waits.
fn check_poison(db: &Db, place: &str) {
    let mut batch = Batch::default();
    batch.insert("x", "y");
    let outcomes = [
        ("insert", db.insert("x", "y").map(drop)),
        ("remove", db.remove("x").map(drop)),
        ("batch", db.apply_batch(batch)),
        ("checkpoint", db.checkpoint()),
        ("insert again", db.insert("x", "y").map(drop)),
    ];
    let mut causes = Vec::new();
    for (call, outcome) in outcomes {
        match outcome {
            // There was nothing to remove, so nothing was written.
            Ok(()) if call == "remove" => {}
            Ok(()) => panic!("{place}: {call} works on a poisoned store"),
            Err(Error::Poisoned { cause }) => causes.push(cause.to_string()),
            Err(other) => panic!("{place}: {call} says {other:?}"),
        }
    }
    causes.dedup();
    assert_eq!(causes.len(), 1, "{place}: not one cause: {causes:?}");
}
