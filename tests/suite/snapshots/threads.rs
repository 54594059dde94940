//! Snapshots beside writers: each has all that returned before it, batches wholly or not at all, and reads the
//! same whenever it is asked.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use pagecache::{Admission, ConfigBuilder, Error, Lsn, PageId, PagePtr, Snapshot, Verdict, pin};

use super::{Pages, said, versions::text};

const BATCHES: u64 = 1500;
const WRITERS: u64 = 2;

fn open() -> Pages {
    let config = ConfigBuilder::new().temporary(true).cache_capacity(256 << 10);
    Pages::open(config.checkpoint_every_bytes(64 << 10).page_consolidation_threshold(3).build())
        .expect("the store opens")
}

fn begin(pages: &Pages) -> PageId {
    let guard = pin();
    let pid = pages.allocate(&guard).expect("ids are left");
    pages.replace(pid, PagePtr::allocated(), said("begun "), &guard).expect("nobody else writes");
    pid
}

/// Adds the same words to both pages; returns where, or `None` if another batch was in the way.
fn add_to_both(pages: &Pages, pids: [PageId; 2], words: &str) -> Option<Lsn> {
    let guard = pin();
    let mut batch = pages.begin_batch(Admission::default()).expect("the disk is well");
    for pid in pids {
        let (_, key) = pages.get(pid, &guard).expect("the disk is well").unwrap();
        match batch.link(pid, key, said(words), &guard) {
            Ok(_) => {}
            Err(Error::CasFailed(_)) => return None,
            Err(why) => panic!("a batch failed: {why:?}"),
        }
    }
    batch.commit(|_| Verdict::Commit).expect("the disk is well")
}

fn read(pages: &Pages, pid: PageId, snapshot: &Snapshot) -> String {
    let guard = pin();
    text(pages.read_at(pid, snapshot, &guard).expect("the disk is well").expect("it was there"))
}

/// Where the last batch ended that one of the writers has told of.
fn look(pages: &Pages, pids: [PageId; 2], told: &AtomicU64) -> usize {
    let before = told.load(Ordering::Acquire);
    let snapshot = pages.snapshot().expect("no change is under way");
    assert!(snapshot.lsn() >= before.cast_signed(), "a change that returned is not in the snapshot");
    let (left, right) = (read(pages, pids[0], &snapshot), read(pages, pids[1], &snapshot));
    assert_eq!(left, right, "a part of a batch shows at {snapshot:?}");
    thread::yield_now();
    for pid in pids {
        assert_eq!(read(pages, pid, &snapshot), left, "page {pid} reads another way at {snapshot:?}");
    }
    left.split(' ').count()
}

#[test]
fn a_snapshot_beside_batches_shows_whole_ones_and_never_changes() {
    let pages = open();
    let pids = [begin(&pages), begin(&pages)];
    let (told, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(Ordering::Acquire) {
                seen.push(look(&pages, pids, &told));
            }
            seen
        });
        let write = |writer: u64| {
            let mut left = BATCHES;
            while left > 0 {
                if let Some(lsn) = add_to_both(&pages, pids, &format!("{writer}.{left} ")) {
                    told.fetch_max(lsn.cast_unsigned(), Ordering::AcqRel);
                    left -= 1;
                }
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
        done.store(true, Ordering::Release);
        reader.join().expect("the reader ends")
    });
    assert!(seen.is_sorted(), "a later snapshot shows less");
    assert!(seen.first() < seen.last(), "the snapshots were not taken beside the writers: {}", seen.len());
    let now = pages.snapshot().expect("no change is under way");
    assert_eq!(read(&pages, pids[0], &now).split(' ').count() as u64, WRITERS * BATCHES + 2);
}

#[test]
fn a_snapshot_within_a_change_of_ones_own_is_an_error_and_no_hang() {
    let pages = open();
    let pids = [begin(&pages), begin(&pages)];
    let guard = pin();
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    let (_, key) = pages.get(pids[0], &guard).unwrap().unwrap();
    batch.link(pids[0], key, said("x "), &guard).unwrap();
    let mut within = None;
    batch
        .commit(|_| {
            within = Some(pages.snapshot().is_err());
            Verdict::Commit
        })
        .unwrap();
    assert_eq!((within, pages.snapshots()), (Some(true), 0));
    assert_eq!(read(&pages, pids[0], &pages.snapshot().unwrap()), "begun x ");
}
