//! Time that moves when told, and background jobs as steps chosen by a seed.
//!
//! No lock is held while a job steps, since a step may wake workers, its own included.

use std::{fmt, io, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::rng::Rng;
use crate::io::{Clock, Job, Next, Spawner, Worker};

/// After so many steps without an end, `join` takes the job for stuck.
const JOIN_STEPS_MAX: u32 = 1_000_000;

/// A clock that stands still until it is advanced.
#[derive(Debug, Default)]
pub struct SimClock {
    now: Mutex<Duration>,
}

impl SimClock {
    /// A clock that reads zero.
    #[must_use]
    pub fn new() -> SimClock {
        SimClock::default()
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        *now = now.saturating_add(by);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        *self.now.lock()
    }
}

/// Keeps jobs until somebody makes them step.
#[derive(Clone, Debug)]
pub struct SimSpawner {
    clock: Arc<SimClock>,
    slots: Arc<Mutex<Vec<Slot>>>,
}

struct Slot {
    name: &'static str,
    /// `None` while it steps, and after its end.
    job: Option<Job>,
    waits: Waits,
    woken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    ForNothing,
    Until(Duration),
    ForWake,
    /// Done, or panicked.
    Ended,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waits {:?}, woken: {}", self.name, self.waits, self.woken)
    }
}

impl Slot {
    fn is_ready(&self, now: Duration) -> bool {
        let due = match self.waits {
            Waits::ForNothing => true,
            Waits::Until(time) => time <= now,
            Waits::ForWake => false,
            Waits::Ended => return false,
        };
        self.job.is_some() && (due || self.woken)
    }
}

impl SimSpawner {
    /// A spawner whose pauses end by this clock.
    #[must_use]
    pub fn new(clock: Arc<SimClock>) -> SimSpawner {
        SimSpawner { clock, slots: Arc::default() }
    }

    /// Makes one ready job step, chosen by `rng`, and returns its name; `None` if none is ready.
    pub fn step(&self, rng: &mut Rng) -> Option<&'static str> {
        let now = self.clock.now();
        let (index, name) = {
            let slots = self.slots.lock();
            let ready: Vec<usize> = (0..slots.len()).filter(|&index| slots[index].is_ready(now)).collect();
            let index = *rng.pick(&ready)?;
            (index, slots[index].name)
        };
        self.step_job(index);
        Some(name)
    }

    /// Steps until no job is ready or `steps_max` steps are made; returns how many were.
    pub fn run(&self, rng: &mut Rng, steps_max: usize) -> usize {
        (0..steps_max).take_while(|_| self.step(rng).is_some()).count()
    }

    /// The earliest time at which a pausing job becomes ready by itself.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let slots = self.slots.lock();
        let dues = slots.iter().filter_map(|slot| match slot.waits {
            Waits::Until(time) => Some(time),
            _ => None,
        });
        dues.min()
    }

    /// Jobs that have not ended.
    #[must_use]
    pub fn live_jobs(&self) -> usize {
        self.slots.lock().iter().filter(|slot| slot.waits != Waits::Ended).count()
    }

    /// Makes the job step, if it is neither stepping already nor ended.
    fn step_job(&self, index: usize) {
        let taken = {
            let slot = &mut self.slots.lock()[index];
            slot.woken = false;
            slot.job.take()
        };
        let Some(job) = taken else { return };
        let mut step = Step { spawner: self, index, job: Some(job), waits: Waits::Ended };
        step.run();
    }

    /// Makes any other ready job step, for a job that waits for it. Returns false if there is none.
    fn step_other(&self, but: usize) -> bool {
        let now = self.clock.now();
        let other = {
            let slots = self.slots.lock();
            (0..slots.len()).find(|&index| index != but && slots[index].is_ready(now))
        };
        other.map(|index| self.step_job(index)).is_some()
    }
}

/// A job out of its slot. Dropping it puts the job back, or ends it if the step panicked.
struct Step<'s> {
    spawner: &'s SimSpawner,
    index: usize,
    job: Option<Job>,
    waits: Waits,
}

impl Step<'_> {
    fn run(&mut self) {
        let Some(job) = &mut self.job else { return };
        self.waits = match job() {
            Next::Again => Waits::ForNothing,
            Next::After(pause) => Waits::Until(self.spawner.clock.now().saturating_add(pause)),
            Next::WhenWoken => Waits::ForWake,
            Next::Done => Waits::Ended,
        };
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if self.waits == Waits::Ended {
            // Before the slot says so, and without the lock: what the job holds may wake workers.
            drop(self.job.take());
        }
        let slot = &mut self.spawner.slots.lock()[self.index];
        slot.waits = self.waits;
        slot.job = self.job.take();
    }
}

impl Spawner for SimSpawner {
    fn spawn(&self, name: &'static str, job: Job) -> io::Result<Box<dyn Worker>> {
        let mut slots = self.slots.lock();
        slots.push(Slot { name, job: Some(job), waits: Waits::ForNothing, woken: false });
        Ok(Box::new(SimWorker { spawner: self.clone(), index: slots.len() - 1, name }))
    }

    fn is_inline(&self) -> bool {
        true
    }
}

struct SimWorker {
    spawner: SimSpawner,
    index: usize,
    name: &'static str,
}

impl fmt::Debug for SimWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWorker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Worker for SimWorker {
    fn wake(&self) {
        self.spawner.slots.lock()[self.index].woken = true;
    }

    /// Makes the job step until it is done, and others in between when it waits.
    fn join(&self) {
        for _ in 0..JOIN_STEPS_MAX {
            let waits = {
                let slots = self.spawner.slots.lock();
                let slot = &slots[self.index];
                // Ended; or stepping further up this very stack, where nothing can be waited for.
                if slot.job.is_none() {
                    return;
                }
                slot.waits
            };
            if waits != Waits::ForNothing {
                self.spawner.step_other(self.index);
            }
            self.spawner.step_job(self.index);
        }
        panic!("job {} was joined but did not end in {JOIN_STEPS_MAX} steps", self.name);
    }
}
