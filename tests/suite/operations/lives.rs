//! The lives of a store: each begins with an open and ends in another way, and what is left is compared.

use std::{rc::Rc, sync::Arc};

use pagecache::{
    Lsn, PageGet, Verified,
    io::{
        Operation,
        sim::{Chooser, Effect, Fault, FaultPlan, Rng, SimClock, SimDisk, SimSpawner, SyncFailure},
    },
    pin,
};

use super::{
    counts::Counts,
    driver::{Driver, Expects, Pages, Problem, Shape, failed},
    model::{Contents, Model},
};

/// Operations of one life, at most.
const STEPS_MAX: u64 = 600;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    ProcessCrash,
    PowerCut,
    /// Some call fails, and what the store refuses from then on is refused.
    Failure,
    /// The disk is full for a while; the life goes on and is closed.
    FullDisk,
}

/// So many lives of one store.
///
/// # Errors
///
/// The first difference between store and model, in words.
pub(super) fn live(seed: u64, lives: usize) -> Result<Counts, Problem> {
    let mut rng = Rng::new(seed);
    let shape = Shape {
        cache: if rng.chance(1, 3) { 1 << 30 } else { 1 << (9 + rng.below(5)) },
        checkpoint_every: (2 << 10) + rng.below(20 << 10),
        threshold: 1 + rng.index(6),
        words_max: 1 << rng.below(8),
        log_segment: if rng.chance(1, 3) { 2 << 10 } else { 8 << 10 },
    };
    let clock = Arc::new(SimClock::new());
    let mut driver = Driver {
        disk: Arc::new(SimDisk::untraced()),
        spawner: Arc::new(SimSpawner::new(clock.clone())),
        clock,
        shape,
        rng,
        pages: None,
        model: Model::default(),
        counts: Counts::default(),
        expects: Expects::Nothing,
        salt: seed << 16,
    };
    for life in 0..lives {
        driver.one_life().map_err(|problem| format!("life {life}, {shape:?}: {problem}"))?;
    }
    Ok(driver.counts)
}

impl Driver {
    fn one_life(&mut self) -> Result<(), Problem> {
        let end = *self
            .rng
            .pick(&[
                End::Close,
                End::Close,
                End::ProcessCrash,
                End::ProcessCrash,
                End::PowerCut,
                End::PowerCut,
                End::PowerCut,
                End::Failure,
                End::Failure,
                End::FullDisk,
            ])
            .expect("there are some");
        let tell = |step: u64| move |problem| format!("{end:?}, step {step}: {problem}");
        self.pages = Some(Rc::new(self.open(self.disk.clone()).map_err(failed("open"))?));
        self.check().map_err(tell(0))?;
        let steps = self.rng.below(STEPS_MAX);
        for step in 0..steps {
            self.step().map_err(tell(step))?;
        }
        match end {
            End::Close => self.close()?,
            End::FullDisk => self.fill_disk(steps / 4).map_err(tell(steps))?,
            End::Failure => self.fail(steps / 4).map_err(tell(steps))?,
            End::ProcessCrash => self.cut(Chooser::process_crash()).map_err(tell(steps))?,
            End::PowerCut => self.cut_power().map_err(tell(steps))?,
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        self.counts.closes += 1;
        let pages = self.take_store();
        pages.close().map_err(failed("close"))?;
        self.model.restart();
        // What is not in use can be handed out: no id leaks.
        let pages = self.open(self.disk.clone()).map_err(failed("open after a close"))?;
        let stats = pages.stats();
        let (ids, in_use) = (stats.pages, self.model.now().len());
        if stats.free_pages + in_use != ids || stats.log_tail_bytes != 0 {
            return Err(format!("of {ids} page ids {in_use} are in use: {stats:?}"));
        }
        pages.close().map_err(failed("close again"))
    }

    fn cut_power(&mut self) -> Result<(), Problem> {
        let seed = self.rng.next_u64();
        let chooser = Chooser::random(seed);
        let chooser = match self.rng.below(4) {
            0 => Chooser::none(),
            1 => chooser.with_garbage(!seed),
            2 => chooser.with_tears(!seed),
            _ => chooser,
        };
        self.cut(chooser)
    }

    /// Ends this life there and then, and finds out what is left.
    fn cut(&mut self, mut chooser: Chooser) -> Result<(), Problem> {
        let of_process = chooser == Chooser::process_crash();
        *(if of_process { &mut self.counts.process_crashes } else { &mut self.counts.power_cuts }) += 1;
        let pages = self.take_store();
        let stable: Lsn = pages.stable_lsn();
        let left = Arc::new(self.disk.crash(&mut chooser));
        self.disk.set_faults(FaultPlan::new());
        self.disk.cut_power();
        drop(pages);
        self.disk = left;
        let pages = self.open(self.disk.clone()).map_err(failed("open after a crash"))?;
        let found = contents(&pages)?;
        // A process's death takes nothing that was handed to the system, so it may hold more.
        self.model.crash(stable, found)?;
        drop(pages);
        self.disk.cut_power();
        self.disk = Arc::new(self.disk.crash(&mut Chooser::process_crash()));
        Ok(())
    }

    /// Some call fails; whatever the store refuses from then on, it goes on to answer, and nothing that was
    /// durable is lost.
    fn fail(&mut self, steps: u64) -> Result<(), Problem> {
        self.counts.failures += 1;
        let fault = Fault::once(1 + self.rng.below(12));
        let choice = self.rng.below(6);
        let is_taken_back = choice == 1;
        let fault = match choice {
            0 => fault.on(Operation::Write).with(Effect::Torn(self.rng.index(1024))),
            1 => fault.on(Operation::Sync).with(Effect::Sync(SyncFailure::Reverted)),
            2 => fault.on(Operation::Sync).with(Effect::Sync(SyncFailure::Forgotten)),
            3 => Fault::from(1 + self.rng.below(12)),
            4 => fault.with(Effect::PowerCut),
            _ => fault,
        };
        self.disk.set_faults(FaultPlan::new().fault(fault));
        self.expects = if is_taken_back { Expects::Loss } else { Expects::Poison };
        let lived =
            (0..steps).try_for_each(|step| self.step().map_err(|problem| format!("+{step}: {problem}")));
        self.expects = Expects::Nothing;
        // Reads go on in a poisoned store; not without power.
        if lived.is_err() && self.disk.is_powered() {
            return lived;
        }
        self.cut_power()
    }

    /// The disk takes nothing more for a while.
    fn fill_disk(&mut self, steps: u64) -> Result<(), Problem> {
        self.counts.full_disks += 1;
        self.disk.set_capacity(Some(self.disk.bytes_total() + self.rng.below(16 << 10)));
        self.expects = Expects::FullDisk;
        let lived =
            (0..steps).try_for_each(|step| self.step().map_err(|problem| format!("+{step}: {problem}")));
        self.expects = Expects::Nothing;
        self.disk.set_capacity(None);
        lived?;
        self.check()?;
        (0..20).try_for_each(|_| self.step())?;
        self.close()
    }

    /// Compares the store with what its files say when they are read anew.
    fn verify(&self) -> Result<Verified, Problem> {
        self.store().verify_checkpoint().map_err(failed("verify"))
    }

    /// Compares everything with the model, and the checkpoint with one made anew.
    fn check(&mut self) -> Result<(), Problem> {
        let found = contents(&self.store())?;
        if found != *self.model.now() {
            return Err(format!("it holds {found:?} and should hold {:?}", self.model.now()));
        }
        self.store().recount().map_err(failed("recount"))?;
        self.verify()?;
        if self.rng.chance(1, 2) {
            return Ok(());
        }
        // Cleaning may follow a checkpoint, and one more says what it moved.
        for _ in 0..10 {
            if self.verify()? == Verified::Places {
                self.counts.compared += 1;
                return Ok(());
            }
            self.store().checkpoint().map_err(failed("checkpoint"))?;
        }
        Err("checkpoints leave something out".to_owned())
    }
}

fn contents(pages: &Pages) -> Result<Contents, Problem> {
    let mut contents = Contents::new();
    for pid in 0..pages.stats().pages {
        let guard = pin();
        match pages.get(pid, &guard).map_err(|error| format!("get of page {pid}: {error:?}"))? {
            PageGet::Materialized(content, _) => _ = contents.insert(pid, content.clone()),
            PageGet::Free(_) | PageGet::Allocated => {}
            PageGet::Unallocated => return Err(format!("page {pid} is below the bound and unallocated")),
        }
    }
    Ok(contents)
}
