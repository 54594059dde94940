//! Blobs of a log used alone: against a model, at their limits, released, damaged and flipped.

use std::sync::Arc;

use super::{
    DiskPtr, Log, LogRead,
    tests::{SEGMENT, all, config, config_of, died},
};
use crate::{
    Error, Failure, SegmentMode,
    ids::Lsn,
    io::{
        FileId,
        sim::{Rng, SimDisk},
    },
};

fn linear(disk: &Arc<SimDisk>) -> Log {
    Log::start_raw_log(config(disk, SegmentMode::Linear)).unwrap()
}

/// A log that recycles, with room for blobs of three segments.
fn roomy(disk: &Arc<SimDisk>) -> Log {
    Log::start(config_of(disk, SegmentMode::Gc, 8)).unwrap()
}

/// Bytes that are found nowhere else.
fn unlike(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

#[test]
fn records_and_blobs_agree_with_a_model_over_restarts() {
    for seed in 0..6 {
        let disk = Arc::new(SimDisk::new());
        let mut rng = Rng::new(seed);
        let mut kept: Vec<(Lsn, DiskPtr, Vec<u8>)> = Vec::new();
        for life in 0..4 {
            let log = linear(&disk);
            let (record, most) = (log.record_bytes_max(), log.blob_bytes_max() as usize);
            for step in 0..30 {
                let beyond = if rng.chance(1, 8) { most - record } else { 3 * SEGMENT };
                let len = match rng.below(5) {
                    0 => record - 1 + rng.index(4),
                    1 => record / 4 * (4 + rng.index(9)) + rng.index(2),
                    2 => record + rng.index(beyond),
                    _ => rng.index(400),
                };
                let bytes = unlike(&mut rng, len);
                let what = format!("seed {seed}, life {life}, step {step}, {len} bytes");
                let reservation = log.reserve(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
                let (lsn, ptr) = (reservation.lsn(), reservation.ptr());
                assert_eq!(ptr.is_blob(), len > record, "{what}");
                assert_eq!(
                    ptr.blob().is_some_and(|(lid, first)| lid == ptr.lid() && first < lsn),
                    len > record
                );
                if rng.chance(1, 5) {
                    reservation.abort().unwrap();
                    let read = log.read(lsn, ptr);
                    assert!(matches!(&read, Ok(LogRead::Failed(at, _)) if *at == lsn), "{what}: {read:?}");
                    continue;
                }
                assert_eq!(reservation.complete().unwrap(), (lsn, ptr), "{what}");
                kept.push((lsn, ptr, bytes));
                if rng.chance(1, 4) {
                    log.flush().unwrap();
                }
            }
            log.flush().unwrap();
            for (lsn, ptr, bytes) in &kept {
                let want = match ptr.blob() {
                    Some((_, first)) => LogRead::Blob(*lsn, bytes.clone(), first),
                    None => LogRead::Inline(*lsn, bytes.clone(), bytes.len() + 24),
                };
                assert_eq!(log.read(*lsn, *ptr).unwrap(), want);
                assert_eq!(log.read(*lsn, DiskPtr::Inline(ptr.lid())).unwrap(), want, "the record tells");
            }
            for start in [0, rng.index(kept.len()), rng.index(kept.len())] {
                // From the first part of a blob on is before the blob.
                let from = match kept[start].1.blob() {
                    Some((_, first)) if rng.chance(1, 2) => first,
                    _ => kept[start].0,
                };
                let met: Vec<_> = log.iter_from(from).map(Result::unwrap).collect();
                assert_eq!(met, kept[start..], "seed {seed}, life {life}, from {from}");
            }
            if rng.chance(1, 2) { log.close().unwrap() } else { drop(log) }
        }
    }
}

#[test]
fn a_blob_is_as_large_as_it_may_be_or_refused_and_leaves_nothing() {
    for (name, log) in
        [("linear", linear(&Arc::new(SimDisk::new()))), ("gc", roomy(&Arc::new(SimDisk::new())))]
    {
        let most = log.blob_bytes_max() as usize;
        assert!(most > 2 * SEGMENT, "{name}: {most}");
        let (lsn, ptr) = log.write(vec![7; most]).unwrap();
        assert!(ptr.is_blob());
        assert_eq!(log.read(lsn, ptr).unwrap().into_data(), Some(vec![7; most]), "{name}");
        log.flush().unwrap();
        let end = log.stable_offset();
        let refused = log.write(vec![7; most + 1]).unwrap_err();
        assert!(matches!(refused, Error::Io(Failure::TooLarge { what: "blob", .. })), "{name}: {refused}");
        let told = refused.to_string();
        assert!(told.contains(&most.to_string()) && told.contains("log_capacity"), "{name}: {told}");
        log.flush().unwrap();
        assert_eq!(log.stable_offset(), end, "{name}: something was written");
    }
}

/// Without room for all of a blob its parts would fill the log and be worth nothing.
#[test]
fn a_blob_that_finds_no_room_writes_no_part_and_fits_after_a_release() {
    let log = roomy(&Arc::new(SimDisk::new()));
    let large = vec![7; log.blob_bytes_max() as usize];
    let full = loop {
        log.flush().unwrap();
        let end = log.stable_offset();
        if let Err(full) = log.write(&large) {
            log.flush().unwrap();
            assert_eq!(log.stable_offset(), end, "a part was written");
            break full;
        }
    };
    assert!(matches!(&full, Error::Io(failure) if failure.is_log_full()), "{full}");
    assert!(full.to_string().contains("release"), "{full}");
    log.release(log.stable_offset()).unwrap();
    let (lsn, ptr) = log.write(&large).unwrap();
    assert_eq!(log.read(lsn, ptr).unwrap().into_data(), Some(large));
}

/// A release that went by positions of lists alone let go of the parts of a blob that was not released.
#[test]
fn a_release_keeps_the_parts_of_blobs_above_it_and_of_those_under_way() {
    let disk = Arc::new(SimDisk::new());
    let log = roomy(&disk);
    let large = vec![7; 2 * SEGMENT];
    log.write(vec![1; 3000]).unwrap();
    let (lsn, ptr) = log.write(&large).unwrap();
    let (_, first) = ptr.blob().unwrap();
    assert!(first + (SEGMENT as Lsn) < lsn, "the parts have segments of their own");
    log.flush().unwrap();
    log.release(lsn).unwrap();
    assert!(log.released_lsn() <= first && first - log.released_lsn() < SEGMENT as Lsn);
    assert_eq!(log.read(lsn, ptr).unwrap().into_data(), Some(large.clone()));
    drop(log);
    let log = roomy(&disk);
    log.release(lsn).unwrap();
    assert_eq!(log.read(lsn, ptr).unwrap().into_data(), Some(large.clone()), "after an open");

    let held = log.reserve(&large).unwrap();
    log.release(log.stable_offset()).unwrap();
    assert!(log.released_lsn() > first, "the first blob was released");
    let gone = log.read(lsn, ptr);
    assert!(matches!(gone, Err(Error::Unsupported(_))), "{gone:?}");
    let (lsn, ptr) = held.complete().unwrap();
    log.flush().unwrap();
    log.release(lsn).unwrap();
    assert_eq!(log.read(lsn, ptr).unwrap().into_data(), Some(large.clone()), "the one under way");
    assert_eq!(all(&log).unwrap(), [(lsn, large.clone())]);
    // One that was given up keeps nothing.
    log.reserve(&large).unwrap().abort().unwrap();
    log.flush().unwrap();
    log.release(lsn + 1).unwrap();
    log.release(log.stable_offset()).unwrap();
    assert!(log.stable_offset() - log.released_lsn() <= SEGMENT as Lsn);
    // Its list may lie in the last segment, which stays; its beginning does not.
    assert_eq!(all(&log).unwrap(), []);
    log.close().unwrap();
    assert_eq!(all(&roomy(&disk)).unwrap(), []);
}

#[test]
fn what_names_a_blob_wrongly_is_refused() {
    let log = linear(&Arc::new(SimDisk::new()));
    let (lsn, ptr) = log.write(vec![7; 2 * SEGMENT]).unwrap();
    let (lid, first) = ptr.blob().unwrap();
    let other = log.read(lsn, DiskPtr::Blob(lid, first + 1));
    assert!(matches!(other, Err(Error::Corruption { .. })), "{other:?}");
    let (whole, at) = log.write(b"whole").unwrap();
    let other = log.read(whole, DiskPtr::Blob(at.lid(), first));
    assert!(matches!(other, Err(Error::Corruption { .. })), "{other:?}");
    // The first segment lies at the file's start and has positions from its length on.
    let part = log.read(first, DiskPtr::Inline(first as u64 - SEGMENT as u64)).unwrap();
    assert!(part.is_corrupt(), "a part is no record: {part:?}");
}

#[test]
fn damage_under_an_open_log_is_told_and_a_blob_without_a_part_dangles() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    let mut rng = Rng::new(1);
    let (small, large) = (unlike(&mut rng, 300), unlike(&mut rng, 2 * SEGMENT));
    let (before, _) = log.write(b"before").unwrap();
    let blob = log.write(&large).unwrap();
    let record = log.write(&small).unwrap();
    log.flush().unwrap();
    let whole = disk.contents(FileId::Log).unwrap();
    for (what, found) in [("the blob", &large[large.len() - 40..]), ("the record", &small[..40])] {
        let at = whole.windows(40).position(|bytes| bytes == found).unwrap();
        disk.damage(FileId::Log, at as u64, &[whole[at] ^ 1]).unwrap();
        let (blob, record) = (log.read(blob.0, blob.1).unwrap(), log.read(record.0, record.1).unwrap());
        match what {
            "the blob" => {
                assert!(matches!(blob, LogRead::DanglingBlob(..)), "{blob:?}");
                assert!(!blob.is_successful() && record.is_successful());
            }
            _ => assert!(blob.is_blob() && record.is_corrupt(), "{blob:?}, {record:?}"),
        }
        let met: Vec<_> = log.iter_from(0).collect();
        assert_eq!(met[0].as_ref().unwrap().0, before, "{what}");
        assert!(matches!(met.last(), Some(Err(Error::Corruption { .. }))), "{what}: {met:?}");
        disk.damage(FileId::Log, at as u64, &whole[at..=at]).unwrap();
        assert_eq!(log.iter_from(0).filter(Result::is_ok).count(), 3, "{what}, repaired");
    }
}

#[test]
fn no_flipped_bit_of_a_blob_is_taken_for_an_answer() {
    let disk = Arc::new(SimDisk::new());
    let log = linear(&disk);
    let kept = vec![vec![1; 40], vec![7; log.record_bytes_max() + 1], vec![2; 40]];
    for bytes in &kept {
        log.write(bytes).unwrap();
        log.flush().unwrap();
    }
    let cut = died(&disk);
    log.close().unwrap();
    for (name, disk, closed) in [("closed", &*disk, true), ("cut off", &*cut, false)] {
        let (mut errors, whole) = (0, disk.contents(FileId::Log).unwrap());
        for (at, byte) in whole.iter().enumerate() {
            let hit = died(disk);
            hit.damage(FileId::Log, at as u64, &[byte ^ 1 << (at % 8)]).unwrap();
            let read = Log::start(config(&hit, SegmentMode::Linear)).and_then(|log| all(&log));
            let got = read.map(|met| met.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
            let least = if closed { kept.len() } else { kept.len() - 1 };
            match got {
                Err(_) => errors += 1,
                Ok(got) => assert!(
                    got.len() >= least && got[..] == kept[..got.len()],
                    "{name}: byte {at}: {} records",
                    got.len()
                ),
            }
        }
        assert!(errors > 3000, "{name}: only {errors} were found");
    }
}

#[test]
fn each_finding_answers_to_its_own_name_alone() {
    let findings = [
        LogRead::Inline(1, vec![2], 3),
        LogRead::Blob(1, vec![2], 3),
        LogRead::DanglingBlob(1, 3),
        LogRead::Failed(1, 2),
        LogRead::Pad(1),
        LogRead::Corrupted(2),
    ];
    type Ask = fn(&LogRead) -> bool;
    let questions: [(&str, Ask, &[usize]); 9] = [
        ("is_inline", LogRead::is_inline, &[0]),
        ("is_blob", LogRead::is_blob, &[1]),
        ("is_successful", LogRead::is_successful, &[0, 1]),
        ("is_failed", LogRead::is_failed, &[3]),
        ("is_pad", LogRead::is_pad, &[4]),
        ("is_corrupt", LogRead::is_corrupt, &[5]),
        ("inline", |read| read.clone().inline() == Some((1, vec![2], 3)), &[0]),
        ("blob", |read| read.clone().blob() == Some((1, vec![2], 3)), &[1]),
        ("into_data", |read| read.clone().into_data() == Some(vec![2]), &[0, 1]),
    ];
    for (name, ask, yes) in questions {
        let said: Vec<usize> = (0..findings.len()).filter(|at| ask(&findings[*at])).collect();
        assert_eq!(said, yes, "{name}");
    }
    assert!(findings[2..].iter().all(|read| read.clone().into_data().is_none()));
    let (inline, blob) = (DiskPtr::Inline(5), DiskPtr::Blob(5, 3));
    assert_eq!([inline.lid(), blob.lid()], [5, 5]);
    assert_eq!(
        [inline.is_inline(), blob.is_inline(), inline.is_blob(), blob.is_blob()],
        [true, false, false, true]
    );
    assert_eq!([inline.blob(), blob.blob()], [None, Some((5, 3))]);
}

#[test]
fn the_stable_position_is_the_last_byte_that_is_durable() {
    let log = linear(&Arc::new(SimDisk::new()));
    let (first, _) = log.write(b"first").unwrap();
    assert!(log.stable_lsn() < first, "nothing was synced");
    let reached = log.make_stable(first).unwrap();
    assert!(reached >= first);
    assert_eq!([log.stable_lsn(), log.stable_offset()], [reached, reached + 1]);
    let (second, _) = log.write(vec![7; 2 * SEGMENT]).unwrap();
    assert!(log.stable_lsn() < second);
    assert!(log.make_stable(second).unwrap() >= second && log.stable_lsn() >= second);
}
