//! Time that moves when told, and background jobs as steps chosen by a seed.
//!
//! No lock is held while a job steps, since a step may wake workers, its own included.

use std::{fmt, io, sync::Arc, time::Duration};

use super::rng::Rng;
use crate::{
    io::{Clock, Job, Next, Spawner, Worker},
    sync::Mutex,
};

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

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::Arc,
        time::Duration,
    };

    use super::{Next, Rng, SimClock, SimSpawner, Spawner, Worker};
    use crate::sync::Mutex;

    type Journal = Arc<Mutex<Vec<&'static str>>>;

    fn spawner() -> (Arc<SimClock>, SimSpawner) {
        let clock = Arc::new(SimClock::new());
        (Arc::clone(&clock), SimSpawner::new(clock))
    }

    /// A job that writes its name into the journal and says these things in turn, then `Done`.
    fn spawn(
        spawner: &SimSpawner,
        name: &'static str,
        journal: &Journal,
        says: Vec<Next>,
    ) -> Box<dyn Worker> {
        let journal = Arc::clone(journal);
        let mut says = says.into_iter();
        let job = move || {
            journal.lock().push(name);
            says.next().unwrap_or(Next::Done)
        };
        spawner.spawn(name, Box::new(job)).unwrap()
    }

    #[test]
    fn a_job_is_ready_as_its_last_word_says() {
        let (clock, spawner) = spawner();
        let mut rng = Rng::new(1);
        let journal = Journal::default();
        let pause = Duration::from_millis(10);
        let says = vec![Next::Again, Next::WhenWoken, Next::After(pause), Next::After(pause)];
        let worker = spawn(&spawner, "job", &journal, says);
        assert_eq!(spawner.run(&mut rng, 100), 2);
        clock.advance(pause * 100);
        assert_eq!(spawner.step(&mut rng), None, "time does not wake it");
        worker.wake();
        assert_eq!(spawner.run(&mut rng, 100), 1);
        assert_eq!(spawner.next_due(), Some(pause * 101));
        clock.advance(pause);
        assert_eq!(spawner.run(&mut rng, 100), 1);
        assert_eq!(spawner.live_jobs(), 1);
        worker.wake();
        assert_eq!(spawner.run(&mut rng, 100), 1, "a wake ends a pause");
        assert_eq!((spawner.live_jobs(), spawner.next_due()), (0, None));
        worker.wake();
        assert_eq!(spawner.step(&mut rng), None);
        assert_eq!(journal.lock().len(), 5);
    }

    #[test]
    fn the_seed_decides_the_order() {
        let order = |seed| {
            let (_, spawner) = spawner();
            let journal = Journal::default();
            for name in ["a", "b", "c"] {
                spawn(&spawner, name, &journal, vec![Next::Again; 10]);
            }
            assert_eq!(spawner.run(&mut Rng::new(seed), 1000), 33);
            journal.lock().clone()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn a_step_may_wake_any_worker_and_join_itself() {
        let (_, spawner) = spawner();
        let workers: Arc<Mutex<Vec<Arc<dyn Worker>>>> = Arc::default();
        let inside = Arc::clone(&workers);
        let mut steps = 0;
        let job = move || {
            let all: Vec<Arc<dyn Worker>> = inside.lock().clone();
            for worker in all {
                worker.wake();
                worker.join();
            }
            steps += 1;
            if steps < 3 { Next::WhenWoken } else { Next::Done }
        };
        let worker: Arc<dyn Worker> = Arc::from(spawner.spawn("job", Box::new(job)).unwrap());
        workers.lock().push(Arc::clone(&worker));
        assert_eq!(spawner.run(&mut Rng::new(0), 100), 3, "a wake during a step is not lost");
    }

    #[test]
    fn join_steps_the_job_to_its_end_and_the_others_that_it_waits_for() {
        let (_, spawner) = spawner();
        let ready = Arc::new(Mutex::new(false));
        let seen = Arc::clone(&ready);
        let waiting = move || if *seen.lock() { Next::Done } else { Next::WhenWoken };
        let worker = spawner.spawn("waiting", Box::new(waiting)).unwrap();
        let helping = move || {
            *ready.lock() = true;
            Next::Done
        };
        spawner.spawn("helping", Box::new(helping)).unwrap();
        worker.join();
        assert_eq!(spawner.live_jobs(), 0);
        worker.join();
    }

    #[test]
    fn a_panic_reaches_the_caller_and_ends_the_job() {
        let (_, spawner) = spawner();
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let job = move || {
            let _held = &inside;
            std::panic::resume_unwind(Box::new("on purpose, past the hook"))
        };
        let worker = spawner.spawn("panicking", Box::new(job)).unwrap();
        let step = catch_unwind(AssertUnwindSafe(|| spawner.step(&mut Rng::new(0))));
        assert!(step.is_err());
        assert_eq!((spawner.live_jobs(), Arc::strong_count(&held)), (0, 1));
        worker.join();
    }
}
