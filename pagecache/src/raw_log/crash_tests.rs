//! Power cuts and deaths of the process at every call of a history of a log used alone: what was
//! durable and not released reads back, in order, and nothing that was never written.

use std::sync::Arc;

use super::{
    Log,
    tests::{SEGMENT, all, config_of},
};
use crate::{
    Config, SegmentMode,
    ids::Lsn,
    io::{
        SyncReason,
        sim::{Case, Chooser, Effort, FaultPlan, Rng, SimDisk, Trace, explore},
    },
};

/// Number of records begun, durable, and the position that was released, as marks of the record.
const BEGUN: &str = "begun";
const DURABLE: &str = "durable";
const RELEASED: &str = "released";

type Model = Vec<(Lsn, Vec<u8>)>;

struct Run {
    trace: Trace,
    model: Model,
    dropped: Option<SyncReason>,
    sizes: Sizes,
}

/// Of what is written, and of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sizes {
    Records,
    /// Records, and blobs of up to three segments.
    Blobs,
}

impl Sizes {
    fn segments(self) -> u64 {
        if self == Sizes::Blobs { 8 } else { 4 }
    }

    fn config(self, disk: &Arc<SimDisk>) -> Config {
        config_of(disk, SegmentMode::Gc, self.segments())
    }

    fn payload(self, rng: &mut Rng) -> Vec<u8> {
        let is_blob = self == Sizes::Blobs && rng.chance(1, 4);
        let len = if is_blob { SEGMENT + rng.index(2 * SEGMENT) } else { rng.index(900) };
        vec![rng.next_u64() as u8; len]
    }
}

fn faults(dropped: Option<SyncReason>) -> FaultPlan {
    dropped.map_or_else(FaultPlan::new, |reason| FaultPlan::new().drop_reason(reason))
}

/// Three openings with appends, aborts, syncs and releases, each closed or only dropped.
fn run(seed: u64, sizes: Sizes, dropped: Option<SyncReason>) -> Run {
    let disk = Arc::new(SimDisk::new());
    disk.set_faults(faults(dropped));
    let mut rng = Rng::new(seed);
    let mut model = Model::new();
    let mut released = 0;
    for _ in 0..3 {
        let log = Log::start(sizes.config(&disk)).unwrap();
        for _ in 0..14 {
            let payload = sizes.payload(&mut rng);
            disk.mark(BEGUN, model.len() as u64 + 1);
            let reserved = match log.reserve(&payload) {
                Ok(reserved) => reserved,
                Err(_full) => {
                    let half = model.len() / 2;
                    let below = model.get(half + rng.index(half.max(1))).map_or(Lsn::MAX, |(lsn, _)| *lsn);
                    released = below.max(released);
                    disk.mark(RELEASED, released.cast_unsigned());
                    log.flush().unwrap();
                    disk.mark(DURABLE, model.len() as u64);
                    log.release(below).unwrap();
                    continue;
                }
            };
            if rng.chance(1, 6) {
                reserved.abort().unwrap();
            } else {
                model.push((reserved.complete().unwrap().0, payload));
            }
            if rng.chance(1, 3) {
                log.flush().unwrap();
                disk.mark(DURABLE, model.len() as u64);
            }
        }
        log.close().unwrap();
        disk.mark(DURABLE, model.len() as u64);
    }
    Run { trace: disk.trace(), model, dropped, sizes }
}

impl Run {
    fn check(&self, case: &Case, disk: SimDisk) -> Result<(), String> {
        let at = |label| self.trace.marked(label, case.position).unwrap_or(0);
        let (begun, durable, released) = (at(BEGUN), at(DURABLE), at(RELEASED).cast_signed());
        disk.set_faults(faults(self.dropped));
        disk.restart_trace();
        let disk = Arc::new(disk);
        let got = self.open(&disk, begun as usize, durable as usize, released)?;
        if !case.position.is_multiple_of(8) {
            return Ok(());
        }
        // A crash at any call of that recovery, and of a first append after it.
        let trace = disk.trace();
        for position in (0..=trace.len()).step_by(3) {
            for chooser in [Chooser::none(), Chooser::all(), Chooser::random(position as u64)] {
                let nested = Arc::new(trace.crash_at(position, &mut chooser.clone()));
                let why = |what| format!("after a crash at call {position} of the recovery: {what}");
                let durable = trace.marked(DURABLE, position).map_or(durable as usize, |_| got);
                self.open(&nested, begun as usize, durable, released).map_err(why)?;
            }
        }
        Ok(())
    }

    /// Power cuts at every call that tear sectors apart.
    fn torn(&self, seed: u64) -> Result<(), String> {
        for position in 0..=self.trace.len() {
            for round in 0..12 {
                let seed = seed ^ (round << 32) ^ position as u64;
                let chooser = if round % 2 == 0 { Chooser::all() } else { Chooser::random(seed) };
                let case = Case { position, chooser: chooser.with_tears(seed) };
                let disk = self.trace.crash_at(position, &mut case.chooser.clone());
                self.check(&case, disk).map_err(|why| format!("torn at call {position}: {why}"))?;
            }
        }
        Ok(())
    }

    /// Opens the log, compares it, appends a record that no model has; returns how far it reached.
    fn open(
        &self,
        disk: &Arc<SimDisk>,
        begun: usize,
        durable: usize,
        released: Lsn,
    ) -> Result<usize, String> {
        let log = Log::start(self.sizes.config(disk)).map_err(|e| format!("opening: {e}"))?;
        let mut got = all(&log).map_err(|e| format!("reading: {e}"))?;
        got.retain(|(_, bytes)| bytes != b"after the crash");
        let first = got.first().map(|(lsn, _)| *lsn);
        let start = self.model.iter().position(|(lsn, _)| Some(*lsn) == first);
        let (start, end) = start.map_or((0, 0), |start| (start, start + got.len()));
        if got.is_empty() {
            let needed = self.model[..durable].iter().filter(|(lsn, _)| *lsn >= released).count();
            return if needed == 0 { Ok(durable) } else { Err(format!("none of {needed} records")) };
        }
        if self.model.get(start..end) != Some(&got[..]) {
            return Err(format!("records {start} to {end} are not what was written"));
        }
        if end < durable || end > begun {
            return Err(format!("it ends at record {end}, {durable} are durable and {begun} begun"));
        }
        let needed = self.model.iter().position(|(lsn, _)| *lsn >= released).unwrap_or(0);
        if start > needed {
            return Err(format!("it starts at record {start} and {needed} was not released"));
        }
        disk.mark(DURABLE, 1); // an open acknowledges what it found
        if let Ok((lsn, _)) = log.write(b"after the crash") {
            log.make_stable(lsn).map_err(|e| format!("appending: {e}"))?;
        }
        Ok(end)
    }
}

#[test]
fn what_was_durable_and_not_released_survives_a_crash_at_any_call() {
    let (mut distinct, mut reused) = (0, [0, 0]);
    for seed in 0..10 {
        let sizes = if seed < 6 { Sizes::Records } else { Sizes::Blobs };
        let run = run(seed, sizes, None);
        let last = run.model.last().map_or(0, |(lsn, _)| *lsn);
        let capacity = (sizes.segments() as Lsn + 1) * SEGMENT as Lsn;
        reused[usize::from(sizes == Sizes::Blobs)] += usize::from(last > capacity);
        let explored = explore(&run.trace, &Effort::quick(seed), |case, disk| run.check(case, disk))
            .unwrap_or_else(|found| panic!("seed {seed}: {found}"));
        distinct += explored.distinct;
        run.torn(seed).unwrap_or_else(|found| panic!("seed {seed}: {found}"));
    }
    assert!(reused.iter().all(|runs| *runs > 0), "no segment was ever used again: {reused:?}");
    assert!(distinct > 1000, "only {distinct} distinct disks");
}

#[test]
fn every_sync_of_a_log_used_alone_is_needed() {
    for reason in [
        SyncReason::Creation,
        SyncReason::CreationName,
        SyncReason::LogName,
        SyncReason::LogBegun,
        SyncReason::Commit,
        SyncReason::FirstSuperblock,
        SyncReason::Tail,
    ] {
        let found = (0..8).any(|seed| {
            let run = run(seed, Sizes::Records, Some(reason));
            let explored = explore(&run.trace, &Effort::quick(seed), |case, disk| run.check(case, disk));
            explored.is_err() || run.torn(seed).is_err()
        });
        assert!(found, "nothing was lost without {reason:?}");
    }
}
