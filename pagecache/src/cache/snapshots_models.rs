//! Loom models of taking a snapshot beside a fold and a writer (SNAP-1 to SNAP-3).
//!
//! A page is one word: the newest version it has, and the oldest. A writer reserves a position and puts a
//! version there; a fold drops what is older than the newest; a reader at a snapshot must find a version that
//! is no newer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use loom::{model::Builder, thread};

use super::{Keep, Snapshots};
use crate::{
    ids::Lsn,
    sync::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
        fence, yield_now,
    },
};

const FIRST: u64 = 1;

/// Versions of one page, and the log that numbers them.
struct Page {
    snapshots: Snapshots,
    /// newest << 32 | oldest
    versions: AtomicU64,
    /// Reserved up to here.
    tail: AtomicU64,
    /// Installed up to here.
    installed: AtomicU64,
}

fn word(newest: u64, oldest: u64) -> u64 {
    newest << 32 | oldest
}

impl Page {
    fn new() -> Page {
        Page {
            snapshots: Snapshots::default(),
            versions: AtomicU64::new(word(FIRST, FIRST)),
            tail: AtomicU64::new(FIRST),
            installed: AtomicU64::new(FIRST),
        }
    }

    /// Reserves a position, then installs a version.
    fn write(&self) {
        let lsn = self.tail.fetch_add(1, AcqRel) + 1;
        loop {
            let seen = self.versions.load(Acquire);
            let next = word(lsn, seen & 0xFFFF_FFFF);
            if self.versions.compare_exchange(seen, next, AcqRel, Acquire).is_ok() {
                break;
            }
        }
        self.installed.store(lsn, Release);
    }

    /// Drops what nobody reads, if the page stays as it was meanwhile.
    fn fold(&self, fenced: bool) {
        let seen = self.versions.load(Acquire);
        let newest = seen >> 32;
        let keep = match fenced {
            true => self.snapshots.keep(newest as Lsn),
            false if self.snapshots.held.load(Relaxed) == 0 => Keep::Newest,
            false => self.snapshots.keep_for(newest as Lsn),
        };
        if keep == Keep::Newest {
            let _lost_race = self.versions.compare_exchange(seen, word(newest, newest), AcqRel, Acquire);
        }
    }

    /// A position below which everything is installed.
    fn watermark(&self, waits: bool) -> u64 {
        let tail = self.tail.load(Relaxed);
        while waits && self.installed.load(Acquire) < tail {
            yield_now();
        }
        tail
    }

    fn expect_version_at(&self, at: u64) {
        let seen = self.versions.load(Acquire);
        let (newest, oldest) = (seen >> 32, seen & 0xFFFF_FFFF);
        assert!(oldest <= at, "the version that a snapshot at {at} reads is gone: {oldest} to {newest}");
    }
}

/// A snapshot is taken while a writer writes and a fold folds; `fenced` says whether the two orders meet.
fn beside_a_fold(fenced: bool) {
    let page = Arc::new(Page::new());
    let folds = {
        let page = page.clone();
        thread::spawn(move || {
            page.write();
            page.fold(fenced);
        })
    };
    let placed = page.snapshots.place_unfenced();
    if fenced {
        fence(SeqCst);
    }
    let at = page.watermark(true);
    placed.settle(at as Lsn);
    page.expect_version_at(at);
    folds.join().unwrap();
    page.expect_version_at(at);
    page.fold(true);
    page.expect_version_at(at);
    page.snapshots.end(at as Lsn);
}

/// An older reservation is open when the snapshot asks for its position: what the snapshot reads must not
/// change once it was read.
fn beside_an_open_reservation(waits: bool) {
    let page = Arc::new(Page::new());
    let writes = {
        let page = page.clone();
        thread::spawn(move || page.write())
    };
    let placed = page.snapshots.place();
    let at = page.watermark(waits);
    placed.settle(at as Lsn);
    let visible = |page: &Page| (page.versions.load(Acquire) >> 32).min(at);
    let before = visible(&page);
    writes.join().unwrap();
    assert_eq!(visible(&page), before, "a snapshot at {at} reads another version than before");
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn fails(model: impl Fn() + Send + Sync + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| explore(model))).is_err()
}

#[test]
fn loom_a_fold_beside_a_snapshot_keeps_what_it_reads() {
    explore(|| beside_a_fold(true));
}

#[test]
fn loom_without_the_fences_a_version_is_lost() {
    assert!(fails(|| beside_a_fold(false)));
}

#[test]
fn loom_a_snapshot_waits_for_the_reservations_below_it() {
    explore(|| beside_an_open_reservation(true));
}

#[test]
fn loom_a_snapshot_that_does_not_wait_reads_two_answers() {
    assert!(fails(|| beside_an_open_reservation(false)));
}
