//! Failing writes and syncs poison and wake everybody; a full disk heals.

use std::io::ErrorKind;
use std::time::Duration;

use super::disk::Call;
use super::{Rig, SMALL, append, contents};
use crate::error::Failure;
use crate::io::SyncReason;

#[test]
fn a_failing_sync_reaches_every_waiter_and_is_not_repeated() {
    let rig = Rig::new(SMALL);
    rig.log.make_stable(rig.append(b"fine")).unwrap();
    rig.disk.set_sync_time(Duration::from_millis(20));
    rig.disk.fail_syncs_after(0);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| append(&rig.log, 1, b"lost").and_then(|lsn| rig.log.make_stable(lsn))))
            .collect();
        for waiter in waiters {
            let result = waiter.join().unwrap();
            assert!(matches!(result, Err(Failure::Poisoned { .. })), "{result:?}");
        }
    });
    assert_eq!(rig.disk.syncs(SyncReason::Commit), 2, "one that worked, one that failed, none repeated");
    rig.disk.calls();
    assert!(matches!(append(&rig.log, 1, b"x"), Err(Failure::Poisoned { .. })));
    assert!(matches!(rig.log.prepare(), Err(Failure::Poisoned { .. })));
    assert!(rig.log.poisoned().is_err());
    assert_eq!(rig.disk.calls(), []);
}

#[test]
fn every_failing_write_poisons_whoever_waits() {
    // Extending takes one write, the header one, each buffer one.
    for writes in 0..8 {
        let rig = Rig::new(SMALL);
        rig.disk.fail_writes_after(writes, ErrorKind::Other);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let rig = &rig;
                scope.spawn(move || {
                    let failure = (0..1000).find_map(|_| match append(&rig.log, thread, &[3; 300]) {
                        Ok(lsn) if lsn % 2 == 0 => rig.log.make_stable(lsn).err(),
                        Ok(_) => None,
                        Err(failure) => Some(failure),
                    });
                    assert!(matches!(failure, Some(Failure::Poisoned { .. })), "{failure:?}");
                });
            }
        });
        let Err(Failure::Poisoned { cause }) = rig.log.poisoned() else { panic!("not poisoned") };
        assert!(matches!(*cause, Failure::Io { .. }), "{cause:?}");
        // What was acknowledged is there.
        let stable = rig.log.stable();
        let tail = rig.scan(rig.first(), stable).unwrap();
        assert!(tail.end() >= stable);
    }
}

#[test]
fn a_full_disk_refuses_before_reserving_and_heals() {
    let rig = Rig::new(SMALL);
    rig.disk.set_room(Some(SMALL.segment_bytes + 700));
    let mut model = Vec::new();
    let refused = loop {
        match append(&rig.log, 1, &[4; 150]) {
            Ok(lsn) => model.push((lsn, vec![4; 150])),
            Err(failure) => break failure,
        }
        if model.len() == 1 {
            // Of what comes in one stream no segment is made ahead.
            rig.log.flush().unwrap();
        }
    };
    assert!(matches!(refused, Failure::DiskFull { .. }), "{refused:?}");
    assert!(matches!(append(&rig.log, 1, b"again"), Err(Failure::DiskFull { .. })));
    assert!(matches!(rig.log.prepare(), Err(Failure::DiskFull { .. })));
    rig.log.poisoned().unwrap();
    let stable = rig.log.flush().unwrap();
    assert_eq!(contents(&rig.scan(rig.first(), stable).unwrap()), model);
    rig.disk.set_room(None);
    model.push((rig.append(b"healed"), b"healed".to_vec()));
    let stable = rig.log.flush().unwrap();
    assert_eq!(contents(&rig.scan(rig.first(), stable).unwrap()), model);
}

#[test]
fn a_full_disk_at_the_first_append_begins_the_epoch_once() {
    let rig = Rig::new(SMALL);
    rig.disk.set_room(Some(100));
    for _ in 0..3 {
        assert!(matches!(append(&rig.log, 1, b"x"), Err(Failure::DiskFull { .. })));
    }
    rig.disk.set_room(None);
    rig.append(b"x");
    assert_eq!(rig.salts().len(), 1);
    let created = rig.disk.calls().into_iter().filter(|call| *call == Call::Create).count();
    assert_eq!(created, 1);
}

#[test]
fn without_a_host_nothing_is_written() {
    let rig = Rig::new(SMALL);
    let Rig { disk, host, log, .. } = rig;
    drop(host);
    assert!(matches!(append(&log, 1, b"x"), Err(Failure::Misuse { .. })));
    assert_eq!(disk.calls(), []);
}
