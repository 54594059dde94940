//! Random work on a store, with notes on its disk of what was begun, what is durable, and when
//! nothing was under way.
//!
//! Every answer is compared with the model on the way. The notes (marks of the disk's record):
//! [`BEGUN`] the number of the newest state that a crash may show, [`DURABLE`] the number of the
//! oldest, [`IDLE`] another number at each moment at which no call was running, [`OPENED`] that the
//! store is open.

use std::time::Duration;

use pagecache::{Lsn, io::sim::Rng};
use tree::{Batch, Db, Durability, IVec};

use super::timeline::{Map, Put, Timeline};
use crate::world::{SEGMENT_BYTES, World};

/// Number of the newest state that a crash may show.
pub const BEGUN: &str = "begun";
/// Number of the oldest state that a crash may show.
pub const DURABLE: &str = "durable";
/// Differs between moments at which no call was running.
pub const IDLE: &str = "idle";
/// The store is open.
pub const OPENED: &str = "opened";

/// Part of a log segment that a large value takes at most.
const LARGE_PART: usize = 8;
/// Segments of the pages that a value takes at most where it lives in a page of its own.
const SEGMENTS_MAX: usize = 3;
/// Keys of a batch above one record.
const RUN_KEYS: u64 = 24;

/// Which keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// How many there are.
    pub count: u64,
    /// Bytes of a small value, at most.
    pub value_bytes: usize,
}

/// How often the calls other than writes come, in the time of a hundred writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mood {
    /// Batches.
    pub batches: u64,
    /// Batches above one record.
    pub runs: u64,
    /// Writes of many neighbours.
    pub stretches: u64,
    /// Flushes.
    pub flushes: u64,
    /// Checkpoints that the user asks for.
    pub checkpoints: u64,
    /// Steps of the background.
    pub background: u64,
    /// Ends and new beginnings.
    pub reopens: u64,
}

impl Mood {
    /// A mood chosen by the seed; most calls are rare in some.
    #[must_use]
    pub fn any(rng: &mut Rng) -> Mood {
        let mut weight = |often: u64| often * rng.below(4) / 3;
        Mood {
            batches: weight(20),
            runs: weight(4),
            stretches: weight(20),
            flushes: weight(30),
            checkpoints: weight(8),
            background: weight(30),
            reopens: weight(8),
        }
    }

    fn total(&self) -> u64 {
        100 + self.batches
            + self.runs
            + self.stretches
            + self.flushes
            + self.checkpoints
            + self.background
            + self.reopens
    }
}

/// What a history came through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The most pages at one time.
    pub pages: u64,
    /// Batches that were runs of records.
    pub runs: u64,
    /// Pages fewer than before, at most: leaves were joined.
    pub joined: u64,
    /// Leaves that went while neighbours of what they held stayed: their records moved.
    pub moved: u64,
    /// Bytes of log beyond what its file can hold: segments were used again.
    pub recycled_bytes: u64,
}

/// A store at work.
#[derive(Debug)]
pub struct Driver {
    world: World,
    db: Option<Db>,
    rng: Rng,
    keys: Keys,
    reached: Reached,
    /// Makes values differ between the branches of a history.
    branch: u64,
    timeline: Timeline,
    durable: usize,
    idle: u64,
    /// Positions of states in the log, where the call told it.
    lsns: Vec<(Lsn, usize)>,
}

/// What is wrong, in words.
pub type Problem = String;

impl Driver {
    /// Opens the store, which nothing is known of but that it may open.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub fn open(world: World, keys: Keys, mut rng: Rng) -> Result<Driver, Problem> {
        let branch = rng.next_u64() >> 40;
        let db = world.open(rng.next_u64()).map_err(|error| format!("open: {error}"))?;
        let timeline = Timeline::from(Map::new());
        let mut driver = Driver {
            world,
            db: Some(db),
            rng,
            keys,
            reached: Reached::default(),
            branch,
            timeline,
            durable: 0,
            idle: 0,
            lsns: Vec::new(),
        };
        driver.timeline = Timeline::from(driver.contents()?);
        driver.world.disk.mark(OPENED, 1);
        driver.world.disk.mark(BEGUN, 0);
        driver.note_durable(0);
        driver.note_idle();
        Ok(driver)
    }

    /// The store's world.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The states so far.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What it came through so far.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// Ends the work: the store is closed, or dropped as it is.
    ///
    /// # Errors
    ///
    /// What `close` said.
    pub fn finish(mut self, close: bool) -> Result<Timeline, Problem> {
        if close {
            self.close()?;
        }
        Ok(self.timeline)
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("the store is open between steps")
    }

    /// All that the store holds, read in both directions.
    ///
    /// # Errors
    ///
    /// The store's own, and entries out of order.
    pub fn contents(&self) -> Result<Map, Problem> {
        let mut map = Map::new();
        let mut last: Option<IVec> = None;
        for entry in self.db().iter() {
            let (key, value) = entry.map_err(|error| format!("scan: {error}"))?;
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(format!("scan: {} is out of order", key.escape_ascii()));
            }
            map.insert(key.to_vec(), value.to_vec());
            last = Some(key);
        }
        Ok(map)
    }

    /// Compares all that the store holds with the newest state, by scan, from behind, and by key.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn check(&mut self) -> Result<(), Problem> {
        let found = self.contents()?;
        let now = self.timeline.newest();
        if found != *self.timeline.now() {
            return Err(format!("while open: {}", self.timeline.explain(&found, now..=now)));
        }
        let mut backwards =
            self.db().iter().rev().map(|entry| entry.map_err(|error| format!("scan: {error}")));
        for (key, value) in found.iter().rev() {
            let entry = backwards.next().transpose()?;
            if entry.as_ref().is_none_or(|(k, v)| k[..] != key[..] || v[..] != value[..]) {
                return Err(format!("from behind {} is missing", key.escape_ascii()));
            }
        }
        if backwards.next().is_some() {
            return Err("from behind there is more".to_owned());
        }
        drop(backwards);
        self.leaves()?;
        for _ in 0..4 {
            let key = self.key();
            let got = self.db().get(&key).map_err(|error| format!("get: {error}"))?;
            if got.as_deref() != self.timeline.now().get(&key).map(Vec::as_slice) {
                return Err(format!("get of {} disagrees with the scan", key.escape_ascii()));
            }
        }
        Ok(())
    }

    /// How many leaves there are, if every page fits the others.
    fn leaves(&self) -> Result<u64, Problem> {
        Ok(self.db().shape().map_err(explain("shape"))?[0])
    }

    /// Compares all pages with what an open would make of the files.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn verify(&self) -> Result<(), Problem> {
        self.db().verify_checkpoint().map(|_| ()).map_err(explain("verify"))
    }

    /// One random call.
    ///
    /// # Errors
    ///
    /// A failed call, or an answer that is not the model's.
    pub fn step(&mut self, mood: &Mood) -> Result<(), Problem> {
        type Call = fn(&mut Driver) -> Result<(), Problem>;
        let calls: [(u64, Call); 7] = [
            (mood.batches, Driver::batch),
            (mood.runs, Driver::run),
            (mood.stretches, Driver::write_stretch),
            (mood.flushes, Driver::flush),
            (mood.checkpoints, Driver::checkpoint),
            (mood.background, Driver::background),
            (mood.reopens, Driver::reopen),
        ];
        let mut at = self.rng.below(mood.total());
        let chosen = calls.iter().find_map(|(weight, call)| {
            let hit = at < *weight;
            at = at.saturating_sub(*weight);
            hit.then_some(*call)
        });
        match chosen {
            Some(call) => call(self)?,
            None if self.rng.chance(1, 10) => self.check_one()?,
            None => self.write()?,
        }
        self.note_idle();
        self.look_around();
        if self.rng.chance(1, 20) {
            self.db().recount().map_err(explain("recount"))?;
            self.verify()?;
        }
        Ok(())
    }

    fn look_around(&mut self) {
        let (stats, lsn) = (self.db().stats(), self.db().durable_lsn());
        let reached = &mut self.reached;
        reached.pages = reached.pages.max(stats.pages());
        reached.joined = reached.joined.max(reached.pages - stats.pages());
        let beyond = u64::try_from(lsn).unwrap_or(0).saturating_sub(2 * self.world.shape.log_capacity);
        reached.recycled_bytes = reached.recycled_bytes.max(beyond);
    }

    /// One random call that changes one key.
    ///
    /// # Errors
    ///
    /// As [`Driver::step`].
    pub fn write(&mut self) -> Result<(), Problem> {
        let key = self.key();
        let old = self.timeline.now().get(&key).cloned();
        let value = self.value();
        let style = self.rng.below(12);
        let new = if style < 3 { None } else { Some(value) };
        let state = self.begin(vec![(key.clone(), new.clone())]);
        let db = self.db();
        let told = match (&new, style) {
            (None, 0 | 1) => db.remove(&key).map_err(explain("remove"))?,
            (None, _) => db.fetch_and_update(&key, |_| None::<IVec>).map_err(explain("update to nothing"))?,
            (Some(value), 3..6) => {
                let lsn = db.put(&key, &value[..]).map_err(explain("put"))?;
                self.lsns.push((lsn, state));
                self.look_at_lsns();
                return Ok(());
            }
            (Some(value), 6 | 7) => {
                let update = |_: Option<&[u8]>| Some(IVec::from(&value[..]));
                db.fetch_and_update(&key, update).map_err(explain("update"))?
            }
            (Some(value), 8) => {
                let swapped =
                    db.compare_and_swap(&key, old.as_deref(), Some(&value[..])).map_err(explain("swap"))?;
                return swapped.map_err(|error| format!("swap of {} refused: {error}", key.escape_ascii()));
            }
            (Some(value), _) => db.insert(&key, &value[..]).map_err(explain("insert"))?,
        };
        if told.as_deref() != old.as_deref() {
            return Err(format!("writing {} told another old value than was there", key.escape_ascii()));
        }
        Ok(())
    }

    /// Several keys at once, sometimes durable on return.
    fn batch(&mut self) -> Result<(), Problem> {
        let mut batch = Batch::default();
        let mut change: Vec<Put> = Vec::new();
        for _ in 0..1 + self.rng.index(20) {
            let key = self.key();
            let new = if self.rng.chance(1, 3) { None } else { Some(self.value()) };
            let new = new.filter(|value| value.len() < 300);
            match &new {
                Some(value) => batch.insert(&key[..], &value[..]),
                None => batch.remove(&key[..]),
            }
            change.push((key, new));
        }
        self.apply(&batch, change)
    }

    /// A batch of neighbours that exceeds one record, where the store takes such.
    fn run(&mut self) -> Result<(), Problem> {
        let shape = &self.world.shape;
        let (bytes, limit) = (shape.log_segment_bytes + 512, shape.log_capacity.min(shape.cache_bytes) / 4);
        let count = RUN_KEYS.min(self.keys.count);
        let value_bytes = bytes / count as usize + 1;
        if (bytes + bytes / 4) as u64 > limit || value_bytes > shape.log_segment_bytes / LARGE_PART {
            return self.batch();
        }
        let mut batch = Batch::default();
        let mut change: Vec<Put> = Vec::new();
        let start = self.rng.below(self.keys.count - count + 1);
        for number in start..start + count {
            let (key, mut value) = (self.key_of(number), self.value());
            value.resize(value_bytes, b'+');
            batch.insert(&key[..], &value[..]);
            change.push((key, Some(value)));
        }
        self.reached.runs += 1;
        self.apply(&batch, change)
    }

    fn apply(&mut self, batch: &Batch, change: Vec<Put>) -> Result<(), Problem> {
        let state = self.begin(change);
        let durability = match self.rng.below(4) {
            0 => Durability::Sync,
            1 => Durability::Buffered,
            _ => Durability::None,
        };
        let lsn = self.db().write(batch, durability).map_err(explain("batch"))?;
        self.lsns.push((lsn, state));
        if durability == Durability::Sync {
            self.note_durable(state);
        }
        self.look_at_lsns();
        Ok(())
    }

    /// Many neighbours come or go, or all but a few of them go, so that leaves are split and joined.
    fn write_stretch(&mut self) -> Result<(), Problem> {
        let count = 1 + self.rng.index(30);
        let start = self.rng.below(self.keys.count);
        let removes = self.rng.chance(1, 2);
        let thins = removes && self.rng.chance(1, 2);
        let leaves = if thins { self.leaves()? } else { 0 };
        for number in (start..self.keys.count).take(count).filter(|number| !thins || number % 6 != 0) {
            let key = self.key_of(number);
            let new = if removes { None } else { Some(self.value()) };
            let old = self.timeline.now().get(&key).cloned();
            self.begin(vec![(key.clone(), new.clone())]);
            let told = match &new {
                Some(value) => self.db().insert(&key, &value[..]),
                None => self.db().remove(&key),
            };
            if told.map_err(explain("write in a stretch"))?.as_deref() != old.as_deref() {
                return Err(format!("writing {} told another old value than was there", key.escape_ascii()));
            }
        }
        if thins {
            self.reached.moved += leaves.saturating_sub(self.leaves()?);
        }
        Ok(())
    }

    fn check_one(&mut self) -> Result<(), Problem> {
        let key = self.key();
        let got = self.db().get(&key).map_err(explain("get"))?;
        if got.as_deref() == self.timeline.now().get(&key).map(Vec::as_slice) {
            return Ok(());
        }
        Err(format!("get of {} is not what was written last", key.escape_ascii()))
    }

    /// Makes all durable.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub fn flush(&mut self) -> Result<(), Problem> {
        self.db().flush().map_err(explain("flush"))?;
        self.note_durable(self.timeline.newest());
        Ok(())
    }

    /// Takes a checkpoint.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub fn checkpoint(&mut self) -> Result<(), Problem> {
        self.db().checkpoint().map_err(explain("checkpoint"))?;
        self.note_durable(self.timeline.newest());
        Ok(())
    }

    fn background(&mut self) -> Result<(), Problem> {
        self.world.pass(Duration::from_millis(600), 3, &mut self.rng);
        self.look_at_lsns();
        Ok(())
    }

    /// Closes or drops the store and opens it again.
    ///
    /// # Errors
    ///
    /// A store that does not open, or holds something else than before.
    pub fn reopen(&mut self) -> Result<(), Problem> {
        self.close()?;
        let db = self.world.open(self.rng.next_u64()).map_err(|error| format!("open again: {error}"))?;
        self.db = Some(db);
        self.check().map_err(|problem| format!("opened again: {problem}"))?;
        self.verify()
    }

    fn close(&mut self) -> Result<(), Problem> {
        let db = self.db.take().expect("the store is open between steps");
        if self.rng.chance(1, 2) {
            db.close().map_err(explain("close"))?;
        } else {
            drop(db);
        }
        self.lsns.clear();
        self.note_durable(self.timeline.newest());
        Ok(())
    }

    /// Notes the state that the coming call leads to.
    fn begin(&mut self, change: Vec<Put>) -> usize {
        let state = self.timeline.push(change);
        self.world.disk.mark(BEGUN, state as u64);
        state
    }

    fn note_durable(&mut self, state: usize) {
        self.durable = self.durable.max(state);
        self.world.disk.mark(DURABLE, self.durable as u64);
    }

    /// Notes that no call is running.
    pub fn note_idle(&mut self) {
        self.idle += 1;
        self.world.disk.mark(IDLE, self.idle);
    }

    /// What the store says is durable must be.
    fn look_at_lsns(&mut self) {
        let reached = self.db().durable_lsn();
        let durable = self.lsns.iter().filter(|(lsn, _)| *lsn <= reached).map(|(_, state)| *state).max();
        self.lsns.retain(|(lsn, _)| *lsn > reached);
        if let Some(state) = durable {
            self.note_durable(state);
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.rng.below(self.keys.count);
        self.key_of(number)
    }

    fn key_of(&self, number: u64) -> Vec<u8> {
        match number % 16 {
            0 if number == 0 => Vec::new(),
            1 => format!("{number:04} and a long tail that many of these keys share").into_bytes(),
            _ => format!("{number:04}").into_bytes(),
        }
    }

    /// A value that no other write makes.
    fn value(&mut self) -> Vec<u8> {
        let number = self.timeline.newest() + 1;
        let mut value = format!("{number}-{:x}-{:x}", self.branch, self.rng.below(0x1_0000)).into_bytes();
        let large = self.rng.chance(1, 60);
        let large_bytes = self.world.shape.log_segment_bytes / LARGE_PART;
        let takes_larger =
            self.world.shape.inline_bytes_max < large_bytes && self.world.shape.cache_bytes >= 1 << 20;
        let len = match large {
            true if takes_larger && self.rng.chance(1, 2) => self.rng.index(SEGMENTS_MAX * SEGMENT_BYTES),
            true => self.rng.index(large_bytes),
            false => self.rng.index(self.keys.value_bytes + 1),
        };
        value.resize(value.len().max(len), b'.');
        value
    }
}

fn explain(call: &'static str) -> impl Fn(tree::Error) -> Problem {
    move |error| format!("{call}: {error}")
}
