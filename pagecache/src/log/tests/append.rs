//! Appending: order, sharing of rounds, one block a durable write, dormancy.

use std::time::{Duration, Instant};

use super::disk::Call;
use super::{Random, Rig, SMALL, append, contents};
use crate::error::Failure;
use crate::format::record::{HEADER_BYTES, Kind, RecordHead};
use crate::ids::Lsn;
use crate::io::SyncReason;
use crate::log::Geometry;
use crate::sync::AtomicBool;
use crate::sync::Ordering::Relaxed;

const HEAD: RecordHead = RecordHead { kind: Kind::Base, pid: 3, seq: 5 };

#[test]
fn a_log_that_is_only_opened_touches_nothing() {
    let rig = Rig::new(SMALL);
    assert_eq!(rig.log.stable(), rig.first());
    assert_eq!(rig.log.next_lsn(), rig.first());
    assert_eq!(rig.log.flush().unwrap(), rig.first());
    assert_eq!(rig.log.watermark().unwrap(), rig.first());
    assert_eq!(rig.log.make_stable(1 << 40).unwrap(), rig.first());
    rig.log.hand_over().unwrap();
    assert!(!rig.log.prepare().unwrap());
    rig.log.trim().unwrap();
    assert_eq!(rig.disk.calls(), []);
    assert_eq!(rig.salts(), []);
}

#[test]
fn the_first_append_names_the_file_before_it_begins_the_epoch() {
    let rig = Rig::new(SMALL);
    rig.append(b"one");
    rig.append(b"two");
    assert_eq!(rig.disk.calls()[..2], [Call::Create, Call::SyncNames(SyncReason::LogName)]);
    assert_eq!(rig.salts(), [(rig.first(), 0xFEED_0000)], "one epoch, from the first segment");
}

#[test]
fn a_lone_durable_write_is_one_block_and_one_sync() {
    let rig = Rig::new(SMALL);
    rig.log.make_stable(rig.append(b"opens the segment")).unwrap();
    rig.disk.calls();
    for _ in 0..5 {
        let lsn = rig.append(&[7; 200]);
        assert!(rig.log.make_stable(lsn).unwrap() > lsn);
        let calls = rig.disk.calls();
        assert!(
            matches!(calls[..], [Call::Write { len: 512, .. }, Call::Sync(SyncReason::Commit)]),
            "calls were {calls:?}"
        );
        // Nothing is left to do.
        rig.log.flush().unwrap();
        rig.log.make_stable(lsn).unwrap();
        assert_eq!(rig.disk.calls(), []);
        assert_eq!(rig.log.stable(), rig.log.next_lsn());
    }
}

#[test]
fn handing_over_writes_without_a_sync_and_a_later_flush_syncs() {
    let rig = Rig::new(SMALL);
    let lsn = rig.append(b"x");
    rig.log.hand_over().unwrap();
    assert_eq!(rig.disk.syncs(SyncReason::Commit), 0);
    assert_eq!(contents(&rig.scan(rig.first(), rig.first()).unwrap()), [(lsn, b"x".to_vec())]);
    assert!(rig.log.stable() <= lsn);
    assert!(rig.log.flush().unwrap() > lsn);
    assert_eq!(rig.disk.syncs(SyncReason::Commit), 1);
}

#[test]
fn many_writers_leave_exactly_their_completed_records_in_order() {
    let geometry = Geometry { segment_bytes: 32 << 10, buffer_bytes: 8 << 10, ..SMALL };
    for seed in [1u64, 2, 3] {
        let rig = Rig::new(geometry);
        let busy = AtomicBool::new(true);
        let mut model: Vec<(Lsn, Vec<u8>)> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while busy.load(Relaxed) {
                    rig.log.prepare().unwrap();
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            let writers: Vec<_> = (0..8u64)
                .map(|thread| {
                    let log = &rig.log;
                    scope.spawn(move || {
                        let mut random = Random(seed * 1000 + thread);
                        let mut kept = Vec::new();
                        for step in 0..1000u32 {
                            let big = step % 100 == 0;
                            let len =
                                if big { random.below(log.max_payload() + 1) } else { random.below(200) };
                            let mut reservation = log.reserve(HEAD, len).unwrap();
                            let byte = random.next() as u8;
                            reservation.payload().fill(byte);
                            if random.below(2) == 0 {
                                reservation.seal();
                            }
                            if random.below(2) == 0 {
                                kept.push((reservation.lsn(), vec![byte; len]));
                                reservation.complete();
                            } else if random.below(2) == 0 {
                                reservation.abort();
                            } else {
                                drop(reservation);
                            }
                            match random.below(100) {
                                0 => drop(log.flush().unwrap()),
                                1 => drop(log.watermark().unwrap()),
                                2 => log.hand_over().unwrap(),
                                _ => {}
                            }
                        }
                        kept
                    })
                })
                .collect();
            let kept = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
            busy.store(false, Relaxed);
            kept
        });
        model.sort();
        let stable = rig.log.flush().unwrap();
        let tail = rig.scan(rig.first(), stable).unwrap();
        assert_eq!(tail.end(), stable, "seed {seed}");
        assert_eq!(contents(&tail), model, "seed {seed}");
        assert!(tail.records().all(|r| (r.kind, r.pid, r.seq) == (HEAD.kind, HEAD.pid, HEAD.seq)));
    }
}

#[test]
fn durable_writers_share_rounds() {
    let rig = Rig::new(Geometry { buffer_bytes: 8 << 10, segment_bytes: 64 << 10, ..SMALL });
    rig.disk.set_sync_time(Duration::from_millis(2));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let lsn = append(&rig.log, 1, &[1; 100]).unwrap();
                    assert!(rig.log.make_stable(lsn).unwrap() > lsn);
                }
            });
        }
    });
    let syncs = rig.disk.syncs(SyncReason::Commit);
    println!("{syncs} syncs");
    assert!(syncs < 200, "{syncs} syncs for 800 durable writes");
}

#[test]
fn the_watermark_waits_for_open_reservations_below_it() {
    let rig = Rig::new(SMALL);
    rig.append(b"before");
    let mut open = rig.log.reserve(HEAD, 4).unwrap();
    open.payload().copy_from_slice(b"open");
    let lsn = open.lsn();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| rig.log.watermark().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished(), "the watermark passed an open reservation");
        open.complete();
        assert!(waiter.join().unwrap() > lsn);
    });
    assert_eq!(rig.disk.syncs(SyncReason::Commit), 0, "a watermark needs no sync");
}

#[test]
fn waiting_for_ones_own_reservation_is_an_error() {
    let rig = Rig::new(SMALL);
    let open = rig.log.reserve(HEAD, 4).unwrap();
    for result in [rig.log.flush(), rig.log.watermark(), rig.log.make_stable(open.lsn())] {
        assert!(matches!(result, Err(Failure::Misuse { .. })), "{result:?}");
    }
    assert!(matches!(rig.log.hand_over(), Err(Failure::Misuse { .. })));
    // A second reservation is fine while it need not wait, and an error from there on.
    let refused = (0..100).find_map(|_| rig.log.reserve(HEAD, 100).err());
    assert!(matches!(refused, Some(Failure::Misuse { .. })), "{refused:?}");
    drop(open);
    rig.log.flush().unwrap();
}

#[test]
fn a_panic_while_filling_gives_the_reservation_up() {
    let rig = Rig::new(SMALL);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut reservation = rig.log.reserve(HEAD, 10).unwrap();
        reservation.payload()[0] = 1;
        panic!("in user code");
    }));
    assert!(caught.is_err());
    let lsn = rig.append(b"after");
    let stable = rig.log.flush().unwrap();
    assert_eq!(contents(&rig.scan(rig.first(), stable).unwrap()), [(lsn, b"after".to_vec())]);
}

#[test]
fn records_up_to_the_largest_payload_fit_and_larger_ones_are_refused() {
    for geometry in [SMALL, Geometry { buffer_bytes: 64 << 10, ..SMALL }] {
        let rig = Rig::new(geometry);
        let max = rig.log.max_payload();
        let mut model = Vec::new();
        for len in [1, max, 0, max - 1, 500, max, max] {
            model.push((rig.append(&vec![len as u8; len]), vec![len as u8; len]));
        }
        assert!(matches!(rig.log.reserve(HEAD, max + 1), Err(Failure::TooLarge { .. })));
        let stable = rig.log.flush().unwrap();
        assert_eq!(contents(&rig.scan(rig.first(), stable).unwrap()), model);
    }
}

#[test]
fn writers_that_fill_the_ring_write_it_out_themselves() {
    let rig = Rig::new(SMALL);
    let mut model = Vec::new();
    for step in 0..500u32 {
        let payload = step.to_le_bytes().repeat(20);
        model.push((rig.append(&payload), payload));
    }
    assert_eq!(rig.disk.syncs(SyncReason::Commit), 0);
    let stable = rig.log.flush().unwrap();
    assert_eq!(contents(&rig.scan(rig.first(), stable).unwrap()), model);
}

#[test]
fn preparing_writes_full_buffers_and_keeps_a_slot_ahead() {
    let rig = Rig::new(SMALL);
    while rig.log.next_lsn() < rig.first() + 3 * 2048 {
        rig.append(&[1; 100]);
    }
    let before = rig.disk.image().len();
    assert!(rig.log.prepare().unwrap());
    assert_eq!(rig.disk.image().len(), before + SMALL.segment_bytes);
    assert!(!rig.log.prepare().unwrap(), "all was done the first time");
    assert_eq!(rig.disk.syncs(SyncReason::Commit), 0);
    assert!(rig.scan(rig.first(), rig.first()).unwrap().end() > rig.first() + 1024);
}

/// Bytes that were acknowledged must not be at the mercy of a later write to their block.
#[test]
fn no_block_is_written_twice() {
    let rig = Rig::new(SMALL);
    let mut random = Random(5);
    let mut written = std::collections::BTreeSet::new();
    for step in 0..2000 {
        let lsn = rig.append(&vec![1; random.below(700)]);
        match random.below(6) {
            0 => drop(rig.log.make_stable(lsn).unwrap()),
            1 => rig.log.hand_over().unwrap(),
            2 => drop(rig.log.watermark().unwrap()),
            _ => {}
        }
        for call in rig.disk.calls() {
            match call {
                // The zeros that make the blocks written ones.
                Call::Write { len, .. } if len == SMALL.segment_bytes => {}
                Call::Write { offset, len } => {
                    for block in offset / 512..(offset + len as u64).div_ceil(512) {
                        assert!(written.insert(block), "block {block} was written again at step {step}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(written.len() > 500);
}

/// Prints the cost of the fast path; asserts only that it is not absurd, as machines differ.
#[test]
fn an_append_is_cheap() {
    let geometry = Geometry {
        block_bytes: 4096,
        segment_bytes: 8 << 20,
        buffer_bytes: 1 << 20,
        buffers: 8,
        capacity_bytes: 1 << 30,
    };
    let rig = Rig::releasing(geometry);
    let payload = [5u8; 200];
    // The best of many short runs: the machine does other things as well.
    let best = (0..100).map(|_| {
        let start = Instant::now();
        for _ in 0..1000 {
            let mut reservation = rig.log.reserve(HEAD, payload.len()).unwrap();
            reservation.payload().copy_from_slice(&payload);
            reservation.seal();
            reservation.complete();
        }
        let spent = start.elapsed();
        rig.log.release(rig.log.flush().unwrap());
        spent
    });
    let nanos = best.min().unwrap().as_nanos() / 1000;
    println!("{nanos} ns an append of {} bytes", HEADER_BYTES + payload.len());
    assert!(nanos < 20_000, "{nanos} ns an append");
}
