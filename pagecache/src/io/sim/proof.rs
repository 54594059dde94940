//! Proof that the explorer finds a missing sync: a small store, correct as long as each of its syncs
//! works, is explored with each one dropped in turn.

use super::{Case, Chooser, Effort, FaultPlan, Found, SimDisk, Trace, explore};
use crate::io::{FileId, Storage, SyncReason};

const PAGES_BYTES: usize = 2000;
const RECORD_BYTES: u64 = 16;
const RECORDS: u8 = 3;
const REASONS: [SyncReason; 4] =
    [SyncReason::Creation, SyncReason::CreationName, SyncReason::LogName, SyncReason::Commit];

/// The bytes of `pages` in one of its versions.
fn pages(version: u8) -> Vec<u8> {
    vec![version; PAGES_BYTES]
}

fn record(number: u8) -> [u8; RECORD_BYTES as usize] {
    [number; RECORD_BYTES as usize]
}

/// Replaces `pages` twice by a new file that is renamed, then appends records to a log.
fn run(disk: &SimDisk) -> std::io::Result<()> {
    for version in 1..=2 {
        disk.create(FileId::PagesNew)?;
        disk.write_at(FileId::PagesNew, 0, &pages(version))?;
        disk.sync(FileId::PagesNew, SyncReason::Creation)?;
        disk.rename(FileId::PagesNew, FileId::Pages)?;
        disk.sync_names(SyncReason::CreationName)?;
        disk.mark("version", u64::from(version));
    }
    disk.create(FileId::Log)?;
    disk.sync_names(SyncReason::LogName)?;
    for number in 1..=RECORDS {
        disk.write_at(FileId::Log, u64::from(number - 1) * RECORD_BYTES, &record(number))?;
        disk.sync(FileId::Log, SyncReason::Commit)?;
        disk.mark("records", u64::from(number));
    }
    Ok(())
}

/// Whole versions only, never an older one than acknowledged; every acknowledged record.
fn check(disk: &SimDisk, version: u64, records: u64) -> Result<(), String> {
    match disk.contents(FileId::Pages) {
        None if version == 0 => {}
        None => return Err(format!("pages are gone, version {version} was acknowledged")),
        Some(bytes) => {
            let found = u64::from(bytes.first().copied().unwrap_or(0));
            if !(1..=2).contains(&found) || bytes != pages(found as u8) {
                return Err(format!("pages are torn: {} bytes, first {found}", bytes.len()));
            }
            if found < version {
                return Err(format!("pages have version {found}, {version} was acknowledged"));
            }
        }
    }
    let log = disk.contents(FileId::Log).unwrap_or_default();
    for number in 1..=records {
        let end = (number * RECORD_BYTES) as usize;
        if log.get(end - RECORD_BYTES as usize..end) != Some(&record(number as u8)) {
            return Err(format!("record {number} is gone, {records} were acknowledged"));
        }
    }
    Ok(())
}

fn explore_with(plan: FaultPlan) -> (Trace, Result<super::Explored, Box<Found>>) {
    let disk = SimDisk::new();
    disk.set_faults(plan);
    run(&disk).unwrap();
    let trace = disk.trace();
    let result = explore(&trace, &Effort::quick(1), |case: &Case, disk| {
        let marked = |label| trace.marked(label, case.position).unwrap_or(0);
        let (version, records) = (marked("version"), marked("records"));
        check(&disk, version, records)?;
        // What a first crash left must also outlive a second one.
        let second = disk.crash(&mut Chooser::none());
        check(&second, version, records).map_err(|problem| format!("after a second crash: {problem}"))
    });
    (trace, result)
}

#[test]
fn nothing_is_found_while_every_sync_works() {
    let (trace, result) = explore_with(FaultPlan::new());
    let explored = result.unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(trace.len(), 18);
    assert!(explored.distinct > 35 && explored.crashes > 4 * explored.distinct, "{explored:?}");
}

#[test]
fn each_dropped_sync_is_found() {
    for reason in REASONS {
        let (trace, result) = explore_with(FaultPlan::new().drop_reason(reason));
        let found = result.expect_err(&format!("dropping {reason:?} was not found"));
        let again = || trace.crash_at(found.case.position, &mut found.case.chooser.clone());
        assert_eq!(again().hash(), again().hash(), "{reason:?}: the case can be made again");
    }
}

#[test]
fn lying_syncs_are_found() {
    assert!(explore_with(FaultPlan::new().lying_syncs()).1.is_err());
}

#[test]
fn what_is_found_is_told_in_full() {
    let (_, result) = explore_with(FaultPlan::new().drop_reason(SyncReason::Creation));
    let told = result.unwrap_err().to_string();
    for part in ["torn", "position", "write 2000 bytes at 0 of pages.new", "pages: bytes 512 to 1024"] {
        assert!(told.contains(part), "{part:?} is missing in: {told}");
    }
}
