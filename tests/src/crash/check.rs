//! Makes crashes of a history and opens what they leave.
//!
//! All choices come from the history's seed, so that a seed repeats them. Disks that were seen
//! already are not opened again.

use std::{
    collections::HashSet,
    fmt,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use pagecache::io::{
    FileId,
    sim::{Chooser, FaultPlan, Rng, SimDisk, Trace},
};

use super::{
    driver::{BEGUN, DURABLE, Driver, IDLE, Keys, Mood, OPENED, Problem},
    timeline::{Map, Timeline},
};
use crate::world::{Shape, World};

/// One crash in so many is followed by another in its recovery.
const NESTED_ONE_IN: u64 = 10;
/// One disk in so many is read before it is opened for writing.
const READ_ONE_IN: u64 = 4;
/// Crashes in recoveries of recoveries and so on, at most.
const DEPTH_MAX: usize = 4;
/// Calls on a store in the shortest histories; the longest have sixteen times as many.
const STEPS_MIN: usize = 40;
/// Writes after an open.
const WRITES_AFTER: usize = 5;

/// Disks that were opened, shared by all who look for others.
#[derive(Debug, Default)]
pub struct Seen(Mutex<SeenSets>);

#[derive(Debug, Default)]
struct SeenSets {
    disks: HashSet<u64>,
    /// Disk and what it must hold: the same bytes may be right before an acknowledgement and wrong
    /// after it.
    cases: HashSet<(u64, u64)>,
}

impl Seen {
    /// How many distinct disks were opened.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.sets().disks.len()
    }

    fn sets(&self) -> std::sync::MutexGuard<'_, SeenSets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if this case is new.
    fn insert(&self, disk: u64, must: u64) -> bool {
        let mut sets = self.sets();
        sets.disks.insert(disk);
        sets.cases.insert((disk, must))
    }
}

/// How many crashes of each kind were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Histories.
    pub histories: u64,
    /// Disks opened and looked at.
    pub opened: u64,
    /// Of these, left by the death of the process alone.
    pub of_process: u64,
    /// Of these, with a damaged superblock.
    pub damaged: u64,
    /// Of these, left by a crash within or after a recovery.
    pub nested: u64,
    /// The most crashes in a row.
    pub depth: u64,
    /// Histories with at least eight pages at a time.
    pub grown: u64,
    /// Histories in which leaves were joined.
    pub joined: u64,
    /// Histories in which leaves were joined that were not empty.
    pub moved: u64,
    /// Histories in which log segments were used again.
    pub recycled: u64,
    /// Histories with batches above one record.
    pub runs: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Counts) -> Counts {
        Counts {
            histories: self.histories + other.histories,
            opened: self.opened + other.opened,
            of_process: self.of_process + other.of_process,
            damaged: self.damaged + other.damaged,
            nested: self.nested + other.nested,
            depth: self.depth.max(other.depth),
            grown: self.grown + other.grown,
            joined: self.joined + other.joined,
            moved: self.moved + other.moved,
            recycled: self.recycled + other.recycled,
            runs: self.runs + other.runs,
        }
    }
}

/// A crash after which something was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    seed: u64,
    shape: Option<Shape>,
    /// The crashes that led there, the first one first.
    crashes: Vec<String>,
    problem: Problem,
}

impl Failed {
    /// The crashes and the problem in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let crashes: Vec<&str> = self.crashes.iter().filter_map(|crash| crash.lines().next()).collect();
        let problem = self.problem.lines().next().unwrap_or_default();
        format!("seed {}: {problem}; {}", self.seed, crashes.join(", then "))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.problem)?;
        if let Some(shape) = &self.shape {
            writeln!(f, "{shape:?}")?;
        }
        self.crashes.iter().try_for_each(|crash| writeln!(f, "{crash}"))
    }
}

impl std::error::Error for Failed {}

/// What a crash of a history may leave.
struct Expected<'t> {
    timeline: &'t Timeline,
    states: RangeInclusive<usize>,
}

/// The crashes of one history.
pub struct Proof<'s> {
    seed: u64,
    rng: Rng,
    shape: Shape,
    keys: Keys,
    plan: FaultPlan,
    seen: &'s Seen,
    crashes: Vec<String>,
    counts: Counts,
}

impl fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("seed", &self.seed)
            .field("crashes", &self.crashes)
            .finish_non_exhaustive()
    }
}

impl<'s> Proof<'s> {
    /// The history of this seed, on disks on which `plan` goes wrong.
    #[must_use]
    pub fn new(seed: u64, plan: FaultPlan, seen: &'s Seen) -> Proof<'s> {
        let mut rng = Rng::new(seed);
        let shape = Shape::any(&mut rng);
        let count = *rng.pick(&[3, 12, 60, 300]).expect("there are some");
        let keys = Keys { count, value_bytes: 8 << rng.below(6) };
        Proof { seed, rng, shape, keys, plan, seen, crashes: Vec::new(), counts: Counts::default() }
    }

    /// Runs the history and looks at so many of its crashes.
    ///
    /// # Errors
    ///
    /// The first crash after which something is wrong.
    pub fn run(mut self, crashes: usize) -> Result<Counts, Box<Failed>> {
        self.counts.histories = 1;
        match self.history().and_then(|(trace, timeline)| self.crash_often(&trace, &timeline, crashes)) {
            Ok(()) => Ok(self.counts),
            Err(problem) => Err(Box::new(Failed {
                seed: self.seed,
                shape: Some(self.shape),
                crashes: self.crashes,
                problem,
            })),
        }
    }

    /// A hash over all that the history did to its disk.
    ///
    /// # Errors
    ///
    /// What went wrong without any crash.
    pub fn record_hash(mut self) -> Result<u64, Problem> {
        self.history().map(|(trace, _)| trace.hash())
    }

    /// The history's record, and the states it went through.
    fn history(&mut self) -> Result<(Trace, Timeline), Problem> {
        let disk = Arc::new(SimDisk::new());
        disk.set_faults(self.plan.clone());
        let rng = Rng::new(self.rng.next_u64());
        let (shape, keys) = (self.shape.clone(), self.keys);
        let mood = Mood::any(&mut self.rng);
        let steps = STEPS_MIN << self.rng.below(5);
        let work = || {
            let mut driver = Driver::open(World::on(disk.clone(), shape), keys, rng)?;
            for step in 0..steps {
                driver.step(&mood).map_err(|problem| format!("step {step}: {problem}"))?;
            }
            let (timeline, reached) = (driver.timeline().clone(), driver.reached());
            // What is written on the way out is no part of the history.
            let trace = disk.trace();
            driver.finish(false)?;
            Ok((trace, timeline, reached))
        };
        let (trace, timeline, reached) = guarded(work)?;
        self.counts.grown += u64::from(reached.pages >= 8);
        self.counts.joined += u64::from(reached.joined > 0);
        self.counts.moved += u64::from(reached.moved > 0);
        self.counts.recycled += u64::from(reached.recycled_bytes > 0);
        self.counts.runs += u64::from(reached.runs > 0);
        Ok((trace, timeline))
    }

    fn crash_often(&mut self, trace: &Trace, timeline: &Timeline, crashes: usize) -> Result<(), Problem> {
        // Half of them just before a sync, when the most is at risk.
        let units: Vec<usize> = (0..=trace.len()).map(|position| trace.unit_count_at(position)).collect();
        let peaks: Vec<usize> = (0..trace.len()).filter(|at| units[*at] > units[at + 1]).collect();
        let mut positions: Vec<usize> = (0..crashes)
            .map(|number| match self.rng.pick(&peaks) {
                Some(peak) if number % 2 == 0 => *peak,
                _ => self.rng.index(trace.len() + 1),
            })
            .collect();
        positions.sort_unstable();
        for position in positions {
            let durable = trace.marked(DURABLE, position).unwrap_or(0) as usize;
            let begun = trace.marked(BEGUN, position).unwrap_or(0) as usize;
            self.crash(trace, position, Expected { timeline, states: durable..=begun }, 1)?;
        }
        Ok(())
    }

    /// One crash there, of a kind that the seed chooses.
    fn crash(
        &mut self,
        trace: &Trace,
        position: usize,
        expected: Expected<'_>,
        depth: usize,
    ) -> Result<(), Problem> {
        let chooser = self.chooser(trace.unit_count_at(position));
        let of_process = chooser == Chooser::process_crash();
        let disk = trace.crash_at(position, &mut chooser.clone());
        let quiet = position > 0 && trace.marked(IDLE, position) != trace.marked(IDLE, position - 1);
        let damage = if quiet && self.rng.chance(1, 2) { self.damage_slot(&disk) } else { None };
        let states = &expected.states;
        let must = (*states.start() as u64) << 32 | *states.end() as u64;
        let branch = self.rng.next_u64();
        if !self.seen.insert(disk.hash(), must) {
            return Ok(());
        }
        self.counts.opened += 1;
        self.counts.of_process += u64::from(of_process);
        self.counts.damaged += u64::from(damage.is_some());
        self.counts.nested += u64::from(depth > 1);
        self.counts.depth = self.counts.depth.max(depth as u64);
        self.crashes.push(told(trace, position, &chooser, damage.as_deref()));
        self.look(Arc::new(disk), &expected, depth, Rng::new(branch))?;
        self.crashes.pop();
        Ok(())
    }

    fn chooser(&mut self, units: usize) -> Chooser {
        let seed = self.rng.next_u64();
        let chooser = match self.rng.below(16) {
            0..3 => return Chooser::process_crash(),
            3 | 4 => Chooser::none(),
            5 => Chooser::all(),
            6 => Chooser::all_but(self.rng.index(units)),
            7 => Chooser::only(self.rng.index(units)),
            _ => Chooser::random(seed),
        };
        match self.rng.below(4) {
            0 => chooser.with_garbage(!seed),
            1 => chooser.with_tears(!seed),
            _ => chooser,
        }
    }

    /// Damages one of the two superblocks of a store that has them; says how.
    fn damage_slot(&mut self, disk: &SimDisk) -> Option<String> {
        let pages = disk.contents(FileId::Pages)?;
        let block = self.shape.block_bytes;
        let slot = self.rng.index(2);
        let mut bytes = pages.get(slot * block..(slot + 1) * block)?.to_vec();
        let rng = &mut self.rng;
        let how = match rng.below(3) {
            0 => {
                bytes.fill(0);
                "zeroed".to_owned()
            }
            1 => {
                let from = rng.index(256);
                rng.fill(&mut bytes[from..]);
                format!("garbage from byte {from}")
            }
            _ => {
                let bit = rng.index(block * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                format!("bit {bit} flipped")
            }
        };
        disk.damage(FileId::Pages, (slot * block) as u64, &bytes).ok()?;
        Some(format!("superblock {slot}: {how}"))
    }

    /// Opens what a crash left.
    fn look(
        &mut self,
        disk: Arc<SimDisk>,
        expected: &Expected<'_>,
        depth: usize,
        rng: Rng,
    ) -> Result<(), Problem> {
        let read = guarded(|| read_only(&disk, &self.shape))?;
        disk.set_faults(self.plan.clone());
        let nested = depth < DEPTH_MAX && self.rng.chance(1, NESTED_ONE_IN);
        let (shape, keys) = (self.shape.clone(), self.keys);
        let outcome = guarded(|| {
            let mut driver = Driver::open(World::on(disk.clone(), shape), keys, rng)?;
            let found = driver.timeline().now();
            if read.as_ref().is_some_and(|read| read != found) {
                return Err("a reader saw something else before".to_owned());
            }
            if expected.timeline.find(found, expected.states.clone()).is_none() {
                return Err(expected.timeline.explain(found, expected.states.clone()));
            }
            if read.is_some() {
                driver.verify()?;
            }
            work_on(&mut driver)?;
            let timeline = driver.timeline().clone();
            let trace = nested.then(|| disk.trace());
            driver.finish(false)?;
            Ok((trace, timeline))
        });
        if let (Some(trace), timeline) = outcome? {
            self.crash_again(&trace, &timeline, expected, depth)?;
        }
        Ok(())
    }

    /// Crashes twice somewhere in a recovery or in the work after it.
    fn crash_again(
        &mut self,
        trace: &Trace,
        timeline: &Timeline,
        before: &Expected<'_>,
        depth: usize,
    ) -> Result<(), Problem> {
        let mut positions = [self.rng.index(trace.len() + 1), self.rng.index(trace.len() + 1)];
        positions.sort_unstable();
        for position in positions {
            // An open that returned has made what it found durable.
            let expected = match trace.marked(OPENED, position) {
                None => Expected { timeline: before.timeline, states: before.states.clone() },
                Some(_) => {
                    let durable = trace.marked(DURABLE, position).unwrap_or(0) as usize;
                    let begun = trace.marked(BEGUN, position).unwrap_or(0) as usize;
                    Expected { timeline, states: durable..=begun }
                }
            };
            self.crash(trace, position, expected, depth + 1)?;
        }
        Ok(())
    }
}

/// What a reader finds on one disk in so many; `None` where it was not asked. A reader changes nothing.
fn read_only(disk: &Arc<SimDisk>, shape: &Shape) -> Result<Option<Map>, Problem> {
    let before = disk.hash();
    if !before.is_multiple_of(READ_ONE_IN) {
        return Ok(None);
    }
    let found = match World::on(disk.clone(), shape.clone()).open_read_only() {
        Ok(db) => {
            let entries = db.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
            let found: Result<Map, _> = entries.collect();
            db.close().map_err(|error| format!("close of a reader: {error}"))?;
            found.map_err(|error| format!("scan of a reader: {error}"))?
        }
        // There is no store yet, or nothing in it: it died while it was being made.
        Err(tree::Error::Unsupported(_)) => Map::new(),
        Err(error) => return Err(format!("open of a reader: {error}")),
    };
    if disk.hash() != before {
        return Err("a reader changed the disk".to_owned());
    }
    Ok(Some(found))
}

/// A few more writes, made durable, and all is as it should be.
fn work_on(driver: &mut Driver) -> Result<(), Problem> {
    for _ in 0..WRITES_AFTER {
        driver.write().map_err(|problem| format!("after the open: {problem}"))?;
    }
    driver.flush()?;
    driver.note_idle();
    driver.check()
}

/// A panic is a problem too.
fn guarded<T>(work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without words")))
    })
}

/// A crash in words.
fn told(trace: &Trace, position: usize, chooser: &Chooser, damage: Option<&str>) -> String {
    let mut told = format!("crash at position {position} of {}: {chooser:?}", trace.len());
    if let Some(damage) = damage {
        told.push_str(&format!(", {damage}"));
    }
    for call in trace.calls_before(position, 8) {
        told.push_str(&format!("\n  {call}"));
    }
    told
}
