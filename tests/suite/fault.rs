//! Calls of the storage that fail: what was asked for is refused with the cause, what is in memory
//! is still read, nothing hangs, and nothing that was durable is lost.
//!
//! Every changing call of a reference workload ([`workload`]) fails in every way that a device
//! knows, once or from then on. A failed write or sync poisons the store: each later write gets the
//! first cause. A full disk does not, and heals on the same handle ([`full`]). With threads in
//! [`threads`], where the background panics in [`background`].

mod background;
mod full;
mod threads;
mod workload;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use pagecache::io::{
    Operation,
    sim::{Effect, Fault, FaultPlan, SyncFailure},
};

use self::workload::{Expected, Run, World};

/// Threads that share the cases.
const THREADS: usize = 2;
/// Workloads, each with every fault.
const SEEDS: u64 = 1;

/// Runs `case` for every number below `count`.
fn each(count: u64, case: impl Fn(u64) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed) as u64;
            if turn >= count {
                return;
            }
            case(turn);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// How often the workload makes a call of this kind, or any changing call, when all is well.
fn calls_of(seed: u64, cache: u64, operation: Option<Operation>) -> u64 {
    let Some(operation) = operation else {
        let world = World::new(cache);
        Run::new(&world, seed).go();
        return world.disk.calls();
    };
    let happens = |at: u64| {
        let world = World::new(cache);
        let fault = Fault::once(at).on(operation).with(Effect::PowerCut);
        world.disk.set_faults(FaultPlan::new().fault(fault));
        Run::new(&world, seed).go();
        !world.disk.is_powered()
    };
    // The largest number whose call happens, bit by bit.
    (0..12)
        .rev()
        .map(|bit| 1 << bit)
        .fold(0, |count, step| if happens(count + step) { count + step } else { count })
}

/// One run with one fault, and all that must hold afterwards.
fn strike(seed: u64, cache: u64, fault: Fault, expected: Expected) {
    let world = World::new(cache);
    world.disk.set_faults(FaultPlan::new().fault(fault));
    Run::new(&world, seed).go_on_to_the_end(expected);
}

fn every_call(cache: u64) {
    for seed in tests::seeds(SEEDS) {
        let calls = calls_of(seed, cache, None);
        assert!(calls > 60, "seed {seed}: {calls} calls are no workload");
        let effects = [Effect::Io, Effect::Torn(1), Effect::Torn(700), Effect::NoSpace];
        each(calls * effects.len() as u64 * 2, |case| {
            let (k, rest) = (1 + case % calls, case / calls);
            let effect = effects[rest as usize / 2];
            let fault = if rest % 2 == 0 { Fault::once(k) } else { Fault::from(k) };
            let place = format!("seed {seed}, cache {cache}, call {k} of {calls}: {fault:?} {effect:?}");
            let is_full = effect == Effect::NoSpace;
            // The first seven calls make the files.
            let names_in_doubt = k <= 7 && rest % 2 == 1;
            let expected = Expected { place, call: k, is_full, lies: false, names_in_doubt };
            strike(seed, cache, fault.with(effect), expected);
        });
    }
}

#[test]
fn every_failing_call_is_told_and_loses_nothing_durable() {
    every_call(1 << 30);
}

#[test]
fn every_failing_call_is_told_also_while_pages_are_evicted() {
    every_call(4 << 10);
}

#[test]
fn every_way_in_which_a_sync_fails_is_told_and_loses_nothing_durable() {
    for seed in tests::seeds(SEEDS) {
        for operation in [Operation::Sync, Operation::SyncNames] {
            let calls = calls_of(seed, 1 << 30, Some(operation));
            assert!(calls > 1, "seed {seed}: {calls} calls of {operation:?}");
            let failures = [SyncFailure::Reverted, SyncFailure::Forgotten, SyncFailure::Late];
            each(calls * failures.len() as u64 * 2, |case| {
                let (k, rest) = (1 + case % calls, case / calls);
                let failure = failures[rest as usize / 2];
                let fault = if rest % 2 == 0 { Fault::once(k) } else { Fault::from(k) };
                let place = format!("seed {seed}, {operation:?} {k} of {calls}: {fault:?} {failure:?}");
                let lies = failure == SyncFailure::Late;
                let fault = fault.on(operation).with(Effect::Sync(failure));
                let names_in_doubt = operation == Operation::SyncNames && rest % 2 == 1;
                let expected = Expected { place, call: 0, is_full: false, lies, names_in_doubt };
                strike(seed, 1 << 30, fault, expected);
            });
        }
    }
}

/// A page that cannot be read is an error of the call that wanted it, and of no other.
#[test]
fn a_failing_read_is_told_and_poisons_nothing() {
    for seed in tests::seeds(SEEDS) {
        let cache = 4 << 10;
        let calls = calls_of(seed, cache, Some(Operation::Read));
        assert!(calls > 20, "seed {seed}: {calls} reads are no workload");
        each(calls, |case| {
            let world = World::new(cache);
            let fault = Fault::once(1 + case).on(Operation::Read);
            world.disk.set_faults(FaultPlan::new().fault(fault));
            Run::new(&world, seed)
                .go_through_failing_reads(&format!("seed {seed}, read {} of {calls}", 1 + case));
        });
    }
}
