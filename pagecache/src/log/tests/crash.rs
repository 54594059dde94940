//! Power cuts at every call of a workload over two epochs, with every kind of loss that the
//! simulated disk knows: what was stable reads back, and nothing reads back that was not written.

use std::sync::{Arc, Weak};

use super::{Model, Random, append, contents, read as read_tail};
use crate::error::{Failure, Poison};
use crate::ids::Lsn;
use crate::io::sim::{Case, Effort, Explored, FaultPlan, Found, SimDisk, Trace, explore};
use crate::io::{Storage, SyncReason};
use crate::log::{Begun, Geometry, Host, Log, Position};
use crate::sync::Mutex;

const GEOMETRY: Geometry = Geometry {
    block_bytes: 512,
    segment_bytes: 4 << 10,
    buffer_bytes: 1 << 10,
    buffers: 4,
    capacity_bytes: 1 << 20,
};

/// Publishes epochs as if in a superblock of its own, that no crash takes.
struct Epochs {
    disk: Arc<SimDisk>,
    salts: Mutex<Vec<(Lsn, u64)>>,
    begun: Mutex<Vec<Begun>>,
}

impl Host for Epochs {
    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn epoch_salt(&self) -> Result<u64, Failure> {
        Ok(0xABCD_0000 + self.salts.lock().len() as u64)
    }

    fn begin_epoch(&self, begun: &Begun) -> Result<(), Failure> {
        let mut salts = self.salts.lock();
        salts.push((begun.first, begun.salt));
        self.begun.lock().push(*begun);
        self.disk.mark("epochs", salts.len() as u64);
        Ok(())
    }

    fn truncate(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// What a run did, to judge crashes by.
struct Run {
    trace: Trace,
    salts: Vec<(Lsn, u64)>,
    begun: Vec<Begun>,
    /// All records of the first epoch.
    first: Model,
    /// What was left of them, and all records of the second epoch.
    both: Model,
    /// How many were left.
    kept: usize,
}

fn run(seed: u64, faults: FaultPlan) -> Run {
    let disk = Arc::new(SimDisk::new());
    disk.set_faults(faults);
    let host =
        Arc::new(Epochs { disk: disk.clone(), salts: Mutex::new(Vec::new()), begun: Mutex::default() });
    let mut random = Random(seed);
    let first = epoch(&host, Position::fresh(&GEOMETRY), &mut random);

    // The process dies; what it had handed over is read back, made durable and built upon.
    let from = GEOMETRY.first_lsn();
    let salts = host.salts.lock().clone();
    let tail = read_tail(disk.as_ref(), GEOMETRY, from, &salts, from, None, 1).unwrap();
    tail.rewrite(disk.as_ref()).unwrap();
    disk.mark("stable", tail.end().cast_unsigned());
    let mut both = contents(&tail);
    let kept = both.len();
    both.extend(epoch(&host, tail.position(), &mut random));
    let salts = host.salts.lock().clone();
    let begun = host.begun.lock().clone();
    Run { trace: disk.trace(), salts, begun, first, both, kept }
}

/// Appends for a while; the last records are handed over or not, and never synced.
fn epoch(host: &Arc<Epochs>, position: Position, random: &mut Random) -> Model {
    let disk: Arc<dyn Storage> = host.disk.clone();
    let log = Log::new(disk, GEOMETRY, Arc::new(Poison::default()), position).unwrap();
    let weak: Weak<Epochs> = Arc::downgrade(host);
    log.set_host(weak);
    let mut model = Model::new();
    for _ in 0..12 {
        let payload = vec![random.next() as u8; random.below(700)];
        model.push((append(&log, 1, &payload).unwrap(), payload));
        match random.below(4) {
            0 => host.disk.mark("stable", log.flush().unwrap().cast_unsigned()),
            1 => log.hand_over().unwrap(),
            2 => drop(log.prepare().unwrap()),
            _ => {}
        }
    }
    log.hand_over().unwrap();
    let lost = append(&log, 1, b"never handed over").unwrap();
    model.push((lost, b"never handed over".to_vec()));
    model
}

impl Run {
    fn check(&self, case: &Case, disk: &SimDisk) -> Result<(), String> {
        let from = GEOMETRY.first_lsn();
        let marked = |label| self.trace.marked(label, case.position);
        let stable = marked("stable").map_or(from, u64::cast_signed);
        let epochs = marked("epochs").map_or(0, |count| count as usize);
        let (salts, begun) = (&self.salts[..epochs], self.begun[..epochs].last().copied());
        let read = || {
            read_tail(disk, GEOMETRY, from, salts, stable, begun, 1).map_err(|failure| failure.to_string())
        };
        let tail = read()?;
        let got = contents(&tail);
        let (model, kept) = if epochs < 2 { (&self.first, 0) } else { (&self.both, self.kept) };
        if model.get(..got.len()) != Some(&got[..]) {
            return Err(format!("{} records are no prefix of what was written", got.len()));
        }
        let durable = model.iter().filter(|(lsn, _)| *lsn < stable).count().max(kept);
        if got.len() < durable {
            return Err(format!("{} of {durable} durable records", got.len()));
        }
        tail.rewrite(disk).map_err(|failure| failure.to_string())?;
        if contents(&read()?) == got { Ok(()) } else { Err("it reads otherwise after rewriting".to_owned()) }
    }

    fn explore(&self, seed: u64) -> Result<Explored, Box<Found>> {
        explore(&self.trace, &Effort::quick(seed), |case, disk| self.check(case, &disk))
    }
}

#[test]
fn what_was_stable_survives_a_power_cut_at_any_call() {
    let mut distinct = 0;
    for seed in 0..40 {
        let explored =
            run(seed, FaultPlan::new()).explore(seed).unwrap_or_else(|found| panic!("seed {seed}: {found}"));
        distinct += explored.distinct;
    }
    assert!(distinct > 5000, "only {distinct} distinct disks");
}

#[test]
fn every_sync_of_the_log_is_needed() {
    for reason in [SyncReason::LogName, SyncReason::LogBegun, SyncReason::Commit, SyncReason::Tail] {
        let found = (0..8).any(|seed| run(seed, FaultPlan::new().drop_reason(reason)).explore(seed).is_err());
        assert!(found, "nothing was lost without {reason:?}");
    }
}
