//! The face of the log used alone, on the simulated disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{DiskPtr, Log, LogRead};
use crate::{
    Config, ConfigBuilder, Error, Failure, SegmentMode,
    ids::Lsn,
    io::{
        FileId, Operation,
        sim::{Chooser, Fault, FaultPlan, SimClock, SimDisk, SimSpawner},
    },
};

pub(super) const SEGMENT: usize = 4 << 10;

pub(super) fn config(disk: &Arc<SimDisk>, mode: SegmentMode) -> Config {
    config_of(disk, mode, 4)
}

/// With a capacity of so many segments, where the log recycles.
pub(super) fn config_of(disk: &Arc<SimDisk>, mode: SegmentMode, segments: u64) -> Config {
    let clock = Arc::new(SimClock::new());
    ConfigBuilder::new()
        .block_bytes(512)
        .log_segment_bytes(SEGMENT)
        .store_segment_bytes(SEGMENT)
        .log_buffers(2)
        .log_capacity(segments * SEGMENT as u64)
        .checkpoint_every_bytes(SEGMENT as u64)
        .flush_every_ms(None)
        .segment_mode(mode)
        .salt_seed(disk.calls() + 1)
        .storage(disk.clone())
        .spawner(Arc::new(SimSpawner::new(clock.clone())))
        .clock(clock)
        .build()
}

fn linear(disk: &Arc<SimDisk>) -> Log {
    Log::start_raw_log(config(disk, SegmentMode::Linear)).unwrap()
}

fn recycling(disk: &Arc<SimDisk>) -> Log {
    Log::start(config(disk, SegmentMode::Gc)).unwrap()
}

/// What the disk holds when the process dies.
pub(super) fn died(disk: &SimDisk) -> Arc<SimDisk> {
    Arc::new(disk.crash(&mut Chooser::process_crash()))
}

pub(super) fn all(log: &Log) -> Result<Vec<(Lsn, Vec<u8>)>, Error<()>> {
    log.iter_from(0).map(|met| met.map(|(lsn, _, bytes)| (lsn, bytes))).collect()
}

fn bytes(n: usize) -> Vec<u8> {
    vec![n as u8; 100 + n % 300]
}

#[test]
fn a_place_is_known_before_the_record_counts() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    let mut kept = Vec::new();
    for n in 0..60 {
        let reservation = log.reserve(bytes(n)).unwrap();
        let known = (reservation.lsn(), reservation.ptr());
        assert_eq!(reservation.lid(), known.1.lid());
        if n % 3 == 0 {
            assert_eq!(reservation.abort().unwrap(), known);
            assert_eq!(log.read(known.0, known.1).unwrap(), LogRead::Failed(known.0, bytes(n).len() + 24));
        } else {
            assert_eq!(reservation.complete().unwrap(), known);
            assert_eq!(log.read(known.0, known.1).unwrap().into_data(), Some(bytes(n)), "record {n}");
            kept.push((known.0, known.1, bytes(n)));
        }
    }
    log.flush().unwrap();
    let met: Vec<_> = log.iter_from(0).map(Result::unwrap).collect();
    assert_eq!(met, kept);
    let from = kept[20].0;
    let met: Vec<_> = log.iter_from(from).map(Result::unwrap).collect();
    assert_eq!(met, kept[20..], "from a record on");
    let met: Vec<_> = log.iter_from(from + 1).map(Result::unwrap).collect();
    assert_eq!(met, kept[21..], "from within a record on");
}

#[test]
fn a_reservation_dropped_by_a_panic_is_aborted() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    let (first, _) = log.write(b"before").unwrap();
    let torn = catch_unwind(AssertUnwindSafe(|| {
        let _held = log.reserve(b"never").unwrap();
        panic!("in the middle of a reservation");
    }));
    assert!(torn.is_err());
    let (second, _) = log.write(b"after").unwrap();
    log.flush().unwrap();
    assert_eq!(all(&log).unwrap(), [(first, b"before".to_vec()), (second, b"after".to_vec())]);
}

#[test]
fn who_holds_a_reservation_gets_an_error_instead_of_waiting_for_itself() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    let held = log.reserve(b"held").unwrap();
    assert!(matches!(log.flush(), Err(Error::Unsupported(_))));
    assert!(matches!(log.make_stable(held.lsn()), Err(Error::Unsupported(_))));
    assert!(matches!(log.read(held.lsn(), held.ptr()), Err(Error::Unsupported(_))));
    held.complete().unwrap();
    log.flush().unwrap();
}

#[test]
fn positions_that_hold_no_record_are_no_record() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    let (lsn, ptr) = log.write(bytes(50)).unwrap();
    log.flush().unwrap();
    for off in 1..200 {
        let read = log.read(lsn + off, DiskPtr::Inline(ptr.lid() + off as u64)).unwrap();
        assert!(!read.is_successful(), "{off} bytes beyond a record: {read:?}");
    }
    assert!(matches!(log.read(lsn, DiskPtr::Inline(ptr.lid() + 1)), Err(Error::Corruption { .. })));
    assert!(log.read(lsn, DiskPtr::Inline(ptr.lid() + 4 * SEGMENT as u64)).is_err());
    assert!(log.read(-5, ptr).is_err());
    assert!(log.read(Lsn::MAX, ptr).is_err());
    assert_eq!(log.iter_from(Lsn::MAX).count(), 0);
    assert_eq!(log.iter_from(Lsn::MIN).count(), 1);
}

#[test]
fn a_linear_log_writes_over_nothing() {
    let disk = Arc::new(SimDisk::new());
    let mut kept = Vec::new();
    for round in 0..3 {
        let log = linear(&disk);
        for n in 0..120 {
            kept.push((log.write(bytes(n)).unwrap().0, bytes(n)));
        }
        assert!(matches!(log.release(Lsn::MAX), Err(Error::Unsupported(_))));
        log.flush().unwrap();
        assert_eq!(all(&log).unwrap(), kept, "round {round}");
        log.close().unwrap();
    }
    assert!(kept.len() * 250 > 16 * SEGMENT, "more than a log that recycles may hold");
    let refused = Log::start_raw_log(config(&disk, SegmentMode::Gc)).unwrap_err();
    assert!(matches!(refused, Error::Unsupported(_)));
}

#[test]
fn a_log_that_recycles_uses_what_was_released_and_nothing_else() {
    let disk = Arc::new(SimDisk::new());
    let mut kept: Vec<(Lsn, Vec<u8>)> = Vec::new();
    for round in 0..30 {
        let log = recycling(&disk);
        let mut n = round;
        let full = loop {
            match log.write(bytes(n)) {
                Ok((lsn, _)) => kept.push((lsn, bytes(n))),
                Err(full) => break full,
            }
            n += 7;
        };
        assert!(matches!(&full, Error::Io(failure) if failure.is_log_full()), "{full}");
        log.flush().unwrap();
        let below = kept[kept.len() / 2].0;
        let (gone, gone_ptr) = log.iter_from(0).next().unwrap().map(|(lsn, ptr, _)| (lsn, ptr)).unwrap();
        log.release(below).unwrap();
        assert!(log.released_lsn() <= below && below - log.released_lsn() < SEGMENT as Lsn);
        assert!(matches!(log.read(gone, gone_ptr), Err(Error::Unsupported(_))));
        kept.retain(|(lsn, _)| *lsn >= log.released_lsn());
        assert_eq!(all(&log).unwrap(), kept, "round {round}");
        assert!(log.file_bytes() <= 4 * SEGMENT as u64);
        if round % 2 == 0 {
            log.close().unwrap()
        } else {
            drop(log)
        }
        let again = recycling(&disk);
        assert_eq!(all(&again).unwrap(), kept, "round {round}, again");
    }
}

#[test]
fn a_log_that_was_cut_off_too_often_still_reads_and_goes_on_after_a_release() {
    let mut disk = Arc::new(SimDisk::new());
    let mut kept = Vec::new();
    let refused = loop {
        let log = linear(&disk);
        match log.write(bytes(1)) {
            Ok((lsn, _)) => kept.push((lsn, bytes(1))),
            Err(refused) => break refused,
        }
        log.flush().unwrap();
        disk = died(&disk);
        assert!(kept.len() < 20, "it never was too often");
    };
    assert!(matches!(&refused, Error::Unsupported(what) if what.contains("release")), "{refused}");
    let log = recycling(&died(&disk));
    assert_eq!(all(&log).unwrap(), kept);
    log.release(log.stable_offset()).unwrap();
    let (lsn, ptr) = log.write(b"goes on").unwrap();
    assert_eq!(log.read(lsn, ptr).unwrap().into_data(), Some(b"goes on".to_vec()));
}

#[test]
fn a_failed_write_is_told_to_everybody_and_what_was_durable_reads_on() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = Arc::new(SimDisk::new());
        let log = linear(&disk);
        let (lsn, ptr) = log.write(b"durable").unwrap();
        log.flush().unwrap();
        disk.set_faults(FaultPlan::new().fault(Fault::from(1).on(operation).of(FileId::Log)));
        let held = log.reserve(b"lost").unwrap();
        held.complete().unwrap();
        assert!(log.flush().is_err(), "{operation:?}");
        disk.set_faults(FaultPlan::new());
        assert!(matches!(log.flush(), Err(Error::Io(Failure::Poisoned { .. }))), "{operation:?}");
        assert!(log.write(b"refused").is_err());
        assert!(log.release(lsn).is_err());
        assert_eq!(log.read(lsn, ptr).unwrap().into_data(), Some(b"durable".to_vec()));
        assert_eq!(all(&log).unwrap().len(), 1);
        assert!(log.close().is_err());
        let again = linear(&disk);
        assert_eq!(all(&again).unwrap()[0], (lsn, b"durable".to_vec()), "{operation:?}");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_heals() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    disk.set_capacity(Some(1024 + 3 * SEGMENT as u64 + 100));
    let mut kept = Vec::new();
    let full = loop {
        match log.write(bytes(kept.len())) {
            Ok((lsn, _)) => kept.push((lsn, bytes(kept.len()))),
            Err(full) => break full,
        }
    };
    assert!(matches!(full, Error::Io(Failure::DiskFull { .. })), "{full}");
    log.flush().unwrap();
    assert_eq!(all(&log).unwrap(), kept);
    disk.set_capacity(None);
    kept.push((log.write(b"goes on").unwrap().0, b"goes on".to_vec()));
    log.close().unwrap();
    assert_eq!(all(&linear(&disk)).unwrap(), kept);
}

#[test]
fn no_flipped_bit_is_taken_for_an_answer() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    let mut kept = Vec::new();
    for n in 0..6 {
        kept.push((log.write(bytes(n)).unwrap().0, bytes(n)));
        log.flush().unwrap();
    }
    let cut = died(&disk);
    log.close().unwrap();
    for (name, disk, closed) in [("closed", &*disk, true), ("cut off", &*cut, false)] {
        let mut errors = 0;
        for file in [FileId::Pages, FileId::Log] {
            let whole = disk.contents(file).unwrap();
            for (at, byte) in whole.iter().enumerate() {
                let bit = if at < 128 { 0..8 } else { at % 8..at % 8 + 1 };
                for bit in bit {
                    let hit = died(disk);
                    hit.damage(file, at as u64, &[byte ^ 1 << bit]).unwrap();
                    let read = Log::start(config(&hit, SegmentMode::Linear)).and_then(|log| all(&log));
                    let what = format!("{name}: bit {bit} of byte {at} of {file:?}");
                    match read {
                        Err(_) => errors += 1,
                        Ok(got) if closed => assert_eq!(got, kept, "{what}"),
                        // The last record's sync is known to nobody but the one who waited.
                        Ok(got) => {
                            assert!(got.len() + 1 >= kept.len(), "{what}: {} records", got.len());
                            assert_eq!(got[..], kept[..got.len()], "{what}");
                        }
                    }
                }
            }
        }
        assert!(errors > 1000, "{name}: only {errors} were found");
    }
}
