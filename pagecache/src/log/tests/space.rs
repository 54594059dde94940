//! Segments: reuse after release, capacity, trimming.

use super::disk::Call;
use super::{Rig, SMALL, append, contents};
use crate::error::Failure;
use crate::log::Geometry;

const TIGHT: Geometry = Geometry { capacity_bytes: 3 * (8 << 10), ..SMALL };

#[test]
fn a_full_log_asks_the_host_once_and_goes_on() {
    let rig = Rig::releasing(TIGHT);
    for step in 0..2000u32 {
        let payload = step.to_le_bytes().repeat(10);
        let lsn = rig.append(&payload);
        if step % 7 == 0 {
            rig.log.make_stable(lsn).unwrap();
        }
        assert!(rig.log.tail_bytes() <= 4 * (8 << 10));
    }
    assert!(*rig.host.truncations.lock() > 3);
    assert_eq!(rig.disk.image().len() as u64, TIGHT.capacity_bytes, "it grew to its capacity and no further");
    assert_eq!(rig.log.file_bytes(), TIGHT.capacity_bytes);
    // What was not released reads back.
    let from = rig.log.segments.released();
    let stable = rig.log.flush().unwrap();
    let tail = rig.scan(from, stable).unwrap();
    assert_eq!(tail.end(), stable);
    let steps: Vec<u32> = contents(&tail)
        .iter()
        .map(|(_, payload)| u32::from_le_bytes(*payload.first_chunk().unwrap()))
        .collect();
    assert_eq!(steps.last(), Some(&1999));
    assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 1), "{steps:?}");
}

#[test]
fn a_full_log_that_nobody_releases_is_an_error_that_names_the_capacity() {
    let rig = Rig::new(TIGHT);
    let refused = (0..10_000).find_map(|_| append(&rig.log, 1, &[1; 100]).err()).unwrap();
    assert!(
        matches!(refused, Failure::TooLarge { limit, .. } if limit == TIGHT.capacity_bytes),
        "{refused:?}"
    );
    rig.log.poisoned().unwrap();
    rig.log.release(rig.log.flush().unwrap());
    rig.append(b"goes on");
}

#[test]
fn writers_at_capacity_all_go_on() {
    let rig = Rig::releasing(TIGHT);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let rig = &rig;
            scope.spawn(move || {
                for _ in 0..500 {
                    append(&rig.log, thread, &[9; 120]).unwrap();
                }
            });
        }
    });
    rig.log.flush().unwrap();
}

#[test]
fn slots_are_reused_lowest_first_and_only_when_wholly_released() {
    let rig = Rig::new(SMALL);
    let second = rig.first() + SMALL.segment_bytes as i64;
    while rig.log.next_lsn() < second + 2 * SMALL.segment_bytes as i64 {
        rig.append(&[1; 100]);
    }
    rig.log.flush().unwrap();
    rig.log.release(second - 1);
    rig.disk.calls();
    while rig.log.next_lsn() < second + 3 * SMALL.segment_bytes as i64 {
        rig.append(&[1; 100]);
    }
    rig.log.flush().unwrap();
    let lowest = rig.disk.calls().into_iter().filter_map(|call| match call {
        Call::Write { offset, .. } => Some(offset),
        _ => None,
    });
    assert!(lowest.min().unwrap() >= 2 * SMALL.segment_bytes as u64, "a slot was reused too early");
    rig.log.release(second + SMALL.segment_bytes as i64);
    rig.disk.calls();
    while rig.log.next_lsn() < second + 4 * SMALL.segment_bytes as i64 + 1000 {
        rig.append(&[1; 100]);
    }
    rig.log.flush().unwrap();
    let used = |call: &Call| matches!(call, Call::Write { offset: 0, len } if *len > 512);
    assert!(rig.disk.calls().iter().any(used), "the lowest slot was not written, header first");
}

const STREAM: Geometry = Geometry { buffer_bytes: 8 << 10, ..SMALL };

/// Appends until the segment `segments` after the next has begun.
fn fill(rig: &Rig, segments: i64) {
    let end = rig.log.next_lsn() + segments * STREAM.segment_bytes as i64;
    while rig.log.next_lsn() < end {
        rig.append(&[7; 100]);
    }
}

fn written(calls: &[Call]) -> usize {
    let lens = calls.iter().map(|call| if let Call::Write { len, .. } = call { *len } else { 0 });
    lens.sum()
}

#[test]
fn whole_segments_are_written_once_and_small_rounds_go_into_written_ones() {
    let rig = Rig::new(STREAM);
    rig.disk.set_allocates(true);
    fill(&rig, 4);
    rig.disk.calls();
    let from = rig.log.next_lsn();
    fill(&rig, 40);
    let calls = rig.disk.calls();
    let appended = (rig.log.next_lsn() - from) as usize;
    assert!(written(&calls) <= appended + 2 * STREAM.segment_bytes, "{} of {appended}", written(&calls));
    let asked = calls.iter().filter(|call| matches!(call, Call::Allocate { .. })).count();
    assert!((1..20).contains(&asked), "room was asked for {asked} times");

    // From here on every commit is a round of its own. The stream's last buffers go out first.
    rig.log.flush().unwrap();
    let mut zeroed = std::collections::BTreeSet::new();
    let mut checked = 0;
    for round in 0..64 {
        rig.append(&[8; 100]);
        rig.log.flush().unwrap();
        for call in rig.disk.calls() {
            let Call::Write { offset, len } = call else { continue };
            let slot = offset / STREAM.segment_bytes as u64;
            if len == STREAM.segment_bytes && offset.is_multiple_of(len as u64) {
                zeroed.insert(slot);
            } else if round >= 32 {
                assert!(zeroed.contains(&slot), "round {round} went into slot {slot}, never written");
                checked += 1;
            }
        }
    }
    assert!(checked >= 32);
    let stable = rig.log.stable();
    assert_eq!(rig.scan(rig.first(), stable).unwrap().end(), stable);
}

#[test]
fn a_disk_that_has_no_room_to_set_aside_takes_what_fits() {
    let rig = Rig::new(STREAM);
    rig.disk.set_allocates(true);
    fill(&rig, 20);
    // Room for two segments and a half, though more are asked for at once.
    rig.disk.set_room(Some(20 << 10));
    let full = loop {
        if let Err(full) = append(&rig.log, 1, &[9; 100]) {
            break full;
        }
    };
    assert!(matches!(full, Failure::DiskFull { .. }), "{full}");
    let stable = rig.log.flush().unwrap();
    assert_eq!(rig.scan(rig.first(), stable).unwrap().end(), stable);
    rig.disk.set_room(None);
    rig.append(b"goes on");
    let stable = rig.log.flush().unwrap();
    assert_eq!(rig.scan(rig.first(), stable).unwrap().end(), stable);
}

#[test]
fn a_trimmed_log_is_empty_and_its_positions_go_on() {
    let rig = Rig::new(SMALL);
    while rig.log.next_lsn() < rig.first() + 20_000 {
        rig.append(&[1; 100]);
    }
    let end = rig.log.flush().unwrap();
    assert!(matches!(rig.log.trim(), Err(Failure::Misuse { .. })), "it was not released");
    rig.log.release(end);
    rig.log.trim().unwrap();
    assert_eq!(rig.disk.image(), []);
    let tail = rig.scan(end, end).unwrap();
    assert_eq!((tail.end(), contents(&tail)), (end, vec![]));
    assert!(rig.scan(end - 1, end).unwrap_err().is_corruption(), "an empty file is no tail that was stable");

    let again = rig.reopen(end);
    rig.disk.calls();
    again.log.trim().unwrap();
    assert_eq!(rig.disk.calls(), [], "trimming what is trimmed");
    let lsn = again.append(b"later");
    assert!(lsn > end);
    let stable = again.log.flush().unwrap();
    assert_eq!(contents(&again.scan(end, stable).unwrap()), [(lsn, b"later".to_vec())]);

    // The same log may also go on after a trim.
    again.log.release(stable);
    again.log.trim().unwrap();
    let lsn = again.append(b"still later");
    let last = again.log.flush().unwrap();
    assert_eq!(contents(&again.scan(stable, last).unwrap()), [(lsn, b"still later".to_vec())]);
}

/// The tail fills the log to its capacity and the process crashes: nothing needs room before a
/// checkpoint has made some.
#[test]
fn a_log_at_capacity_opens_and_goes_on() {
    let rig = Rig::new(TIGHT);
    while append(&rig.log, 1, &[1; 100]).is_ok() {}
    let stable = rig.log.flush().unwrap();
    let tail = rig.scan(rig.first(), stable).unwrap();
    assert_eq!(tail.end(), stable);
    let again = Rig::at(rig.disk.clone(), TIGHT, tail.position(), rig.salts(), true);
    let lsn = again.append(b"goes on");
    let last = again.log.flush().unwrap();
    assert_eq!(*again.host.truncations.lock(), 1);
    assert_eq!(contents(&again.scan(stable, last).unwrap()), [(lsn, b"goes on".to_vec())]);
}
