//! Loom models of the stable position: who is told that a position is durable finds what is to be there
//! (LOG-5).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use loom::thread;

use super::Rounds;
use crate::{
    ids::Lsn,
    sync::{
        AtomicU64,
        Ordering::{self, Relaxed, Release},
    },
};

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// A leader whose two syncs cover one record each, and somebody who asks without waiting.
fn a_leader_and_one_who_asks(ordering: Ordering) {
    const FIRST: Lsn = 1;
    let rounds = Arc::new(Rounds::new(FIRST));
    // What the device has, as the leader's syncs left it.
    let device = Arc::new(AtomicU64::new(FIRST.cast_unsigned()));
    let leader = {
        let (rounds, device) = (rounds.clone(), device.clone());
        thread::spawn(move || {
            for end in [FIRST + 1, FIRST + 2] {
                device.store(end.cast_unsigned(), Relaxed);
                rounds.publish_as(end, ordering);
            }
        })
    };
    let first = rounds.stable();
    assert!(device.load(Relaxed) >= first.cast_unsigned(), "told of a sync that was not made");
    assert!(rounds.stable() >= first, "what was durable is not any more");
    leader.join().expect("the leader");
}

#[test]
fn loom_a_stable_position_is_published_after_its_sync() {
    explore(|| a_leader_and_one_who_asks(Release));
    let weakened = catch_unwind(AssertUnwindSafe(|| explore(|| a_leader_and_one_who_asks(Relaxed))));
    assert!(weakened.is_err(), "the model cannot see a missing Release");
}
