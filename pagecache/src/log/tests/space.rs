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
    assert!(rig.disk.calls().contains(&Call::Write { offset: 0, len: 512 }), "the lowest slot got no header");
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
