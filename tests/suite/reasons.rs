//! Each reason to sync is needed, and the crash tests can see each: with any one of them dropped they
//! find a store that lost something.

use pagecache::io::{SyncReason, sim::FaultPlan};
use tests::{
    Budget,
    crash::{Proof, Seen, cut_everywhere},
};

/// Crashes made of one history.
const CRASHES: usize = 160;
/// Histories among which a missing sync must show.
const HISTORIES_MAX: u64 = 60;

/// What shows first that a sync is missing. `None`: nothing does.
fn found(plan: &FaultPlan, histories: u64) -> Option<String> {
    if let Err(found) = cut_everywhere(plan, 0) {
        let crash = format!("position {}: {:?}", found.case.position, found.case.chooser);
        return Some(format!("a new store: {}; crash at {crash}", found.problem));
    }
    let seen = Seen::default();
    (0..histories).find_map(|seed| {
        let failed = Proof::new(seed, plan.clone(), &seen).run(CRASHES).err()?;
        Some(failed.summary())
    })
}

/// In how many of so many histories a crash shows that a sync is missing.
fn histories_that_show(plan: &FaultPlan, histories: u64) -> u64 {
    let seen = Seen::default();
    (0..histories).map(|seed| u64::from(Proof::new(seed, plan.clone(), &seen).run(CRASHES).is_err())).sum()
}

/// The table: what each missing sync loses first.
fn all_are_found(reasons: &[SyncReason]) {
    let mut superfluous = Vec::new();
    for reason in reasons {
        match found(&FaultPlan::new().drop_reason(*reason), HISTORIES_MAX) {
            Some(what) => println!("{:<18} red    {what}", format!("{reason:?}")),
            None => {
                println!("{:<18} green  nothing is lost in {HISTORIES_MAX} histories", format!("{reason:?}"));
                superfluous.push(*reason);
            }
        }
    }
    assert!(
        superfluous.is_empty(),
        "syncs that nobody misses, or that the crash tests cannot see: {superfluous:?}"
    );
}

#[test]
fn each_missing_sync_is_found() {
    all_are_found(&SyncReason::ALL);
}

#[test]
fn nothing_is_found_while_none_is_missing() {
    assert_eq!(found(&FaultPlan::new(), 8), None);
}

#[test]
#[ignore = "a long proof: `cargo test -p tests -- --ignored reasons::`"]
fn each_missing_sync_is_found_by_many_histories() {
    let budget = Budget::start();
    let mut histories = 20;
    loop {
        println!("{:<18} histories of {histories} in which a crash shows that it is missing", "reason");
        for reason in SyncReason::ALL {
            let shown = histories_that_show(&FaultPlan::new().drop_reason(reason), histories);
            println!("{:<18} {shown}", format!("{reason:?}"));
            // A tree writes its first pages before its open returns, and their sync of names covers
            // the store's: only a page cache that nothing was written to misses this one.
            let expected = if reason == SyncReason::CreationName { 0 } else { 1 };
            assert!(shown >= expected, "{reason:?} dropped: no history of {histories} shows it");
        }
        assert_eq!(histories_that_show(&FaultPlan::new(), histories), 0, "nothing is missing");
        histories *= 2;
        if !budget.lasts() || histories > 80 {
            break;
        }
    }
}
