//! Batches that depend on what they have read, judged at their position in the log.

use std::sync::Arc;

use pagecache::{
    Admission, FragState, Lsn, PageId, Verdict, View,
    io::{CountingStorage, FileId, Operation, sim::SimDisk},
    pin,
};

use super::{Pages, look, page, small};

/// True if the page has changed after `since`.
fn is_changed(pages: &Pages, pid: PageId, since: Lsn) -> bool {
    let guard = pin();
    let View::Page(view) = pages.view(pid, &guard).unwrap() else { panic!("the page is there") };
    view.frags().any(|(_, state)| matches!(state, FragState::Committed(lsn) if lsn >= since))
}

/// Each of two batches read the page that the other one writes, and found it as it should be. Both
/// committed, which in no order of the two could have been. The second one to have a position sees the
/// first now.
#[test]
fn of_two_batches_that_read_what_the_other_writes_one_commits() {
    for first_is_left in [true, false] {
        let pages = Pages::start(small(Arc::new(SimDisk::untraced())).build()).unwrap();
        let guard = pin();
        let (left, right) = (page(&pages, "on duty ", &guard), page(&pages, "on duty ", &guard));
        let since = pages.next_lsn();
        let leave = |pid| {
            let mut batch = pages.begin_batch(Admission::default()).unwrap();
            let (_, key) = look(&pages, pid, &guard);
            batch.link(pid, key, "leaves ".to_owned(), &guard).unwrap();
            batch
        };
        let (mut one, mut other) = ((leave(left), right), (leave(right), left));
        if !first_is_left {
            std::mem::swap(&mut one, &mut other);
        }
        let judge = |read: PageId| {
            let pages = &pages;
            move |_| if is_changed(pages, read, since) { Verdict::Abort } else { Verdict::Commit }
        };
        assert!(one.0.commit(judge(one.1)).unwrap().is_some());
        assert!(other.0.commit(judge(other.1)).unwrap().is_none(), "both have left");
        let gone = [left, right].map(|pid| look(&pages, pid, &guard).0.ends_with("leaves "));
        assert_eq!(gone, [first_is_left, !first_is_left]);
    }
}

/// The judge needs a page that is not in memory. The position is given up, not held while the disk is
/// read, and what was installed is neither lost nor doubled.
#[test]
fn a_judge_that_asks_for_a_page_is_asked_again_at_another_position() {
    for words in [1, 6000] {
        let storage = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
        let open = || Pages::start(small(storage.clone()).build()).unwrap();
        let pages = open();
        let (read, written) = {
            let guard = pin();
            (page(&pages, "read ", &guard), page(&pages, "written ", &guard))
        };
        pages.close().unwrap();
        let pages = open();
        let guard = pin();
        let (_, key) = look(&pages, written, &guard);
        let mut batch = pages.begin_batch(Admission::default()).unwrap();
        batch.link(written, key, "x ".repeat(words), &guard).unwrap();
        let reads = || storage.snapshot().tally(FileId::Pages, Operation::Read).calls;
        let mut asked: Vec<(Lsn, u64)> = Vec::new();
        let lsn = batch.commit(|at| {
            asked.push((at, reads()));
            if asked.len() == 1 { Verdict::Load(read) } else { Verdict::Commit }
        });
        let lsn = lsn.unwrap().expect("the second verdict was to commit");
        let [(first, before), (second, after)] = asked[..] else { panic!("{asked:?}") };
        assert!(first < second && second == lsn, "{asked:?}");
        assert!(before < after, "the page was read between the two questions");
        assert_eq!(look(&pages, read, &guard).0, "read ");
        assert_eq!(reads(), after, "and it is in memory");
        let want = "written ".len() + 2 * words;
        assert_eq!(look(&pages, written, &guard).0.len(), want);
        drop(pages);
        assert_eq!(look(&open(), written, &guard).0.len(), want, "opened again");
    }
}
