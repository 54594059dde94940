//! A page that is pending at every moment is let go of now and then.

use std::sync::Arc;

use pagecache::{Admission, Batch, Error, Failure, Guard, PageId, Verdict, io::sim::SimDisk, pin};

use super::{LOG_BYTES, Pages, Words, look, page, small};

/// Adds a word to a page, in a batch of its own.
fn begin<'p>(
    pages: &'p Pages,
    pid: PageId,
    word: &str,
    guard: &Guard,
) -> Result<Batch<'p, Words, String, ()>, Error<()>> {
    let mut batch = pages.begin_batch(Admission::default())?;
    loop {
        let (_, key) = look(pages, pid, guard);
        match batch.link(pid, key, word.to_owned(), guard) {
            Ok(_) => return Ok(batch),
            Err(Error::CasFailed(_)) => {}
            // What is pending is this thread's own, so waiting for it would never end.
            Err(Error::Unsupported(what)) => return Err(Error::Unsupported(what)),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Each batch began before the one before it had ended, so that one was pending at every moment. The
/// page was never written back, T stood still, and the log filled. The gate refuses a batch now; here
/// it says so, because who would have to end first is the same thread.
#[test]
fn batches_in_turns_on_one_page_are_stopped_until_it_was_written() {
    let pages = Pages::start(small(Arc::new(SimDisk::untraced())).build()).unwrap();
    let guard = pin();
    let hot = page(&pages, "begins ", &guard);
    let (mut batches, mut stops) = (0, 0);
    let mut inside = begin(&pages, hot, "x ", &guard).unwrap();
    while batches < 2000 {
        batches += 1;
        match begin(&pages, hot, "x ", &guard) {
            Ok(next) => {
                inside.commit(|_| Verdict::Commit).unwrap();
                inside = next;
            }
            Err(Error::Unsupported(_)) => {
                stops += 1;
                inside.commit(|_| Verdict::Commit).unwrap();
                inside = begin(&pages, hot, "x ", &guard).expect("nothing is pending there any more");
            }
            Err(other) => panic!("batch {batches}: {other:?}"),
        }
    }
    inside.commit(|_| Verdict::Commit).unwrap();
    assert!(stops >= 2000 / 70, "{stops} stops in {batches} batches: the page grew beyond 64 fragments");
    assert_eq!(look(&pages, hot, &guard).0.len(), "begins ".len() + 2 * 2001);
    assert!(pages.stats().log_tail_bytes <= LOG_BYTES, "{:?}", pages.stats());
}

/// Two fragments are few, but the older one held up the log: half of it lay behind that one.
#[test]
fn a_pending_page_whose_oldest_change_has_grown_old_takes_no_new_batch() {
    let pages = Pages::start(small(Arc::new(SimDisk::untraced())).build()).unwrap();
    let guard = pin();
    let (old, other) = (page(&pages, "old ", &guard), page(&pages, "other ", &guard));
    let inside = begin(&pages, old, "inside ", &guard).unwrap();
    drop(begin(&pages, old, "beside ", &guard).expect("the page's changes are young"));
    for _ in 0..36 {
        let (_, key) = look(&pages, other, &guard);
        pages.link(other, key, "y".repeat(1 << 10), &guard).unwrap();
    }
    let refused = begin(&pages, old, "beside ", &guard).err();
    assert!(matches!(refused, Some(Error::Unsupported(_))), "{refused:?}");
    inside.commit(|_| Verdict::Commit).unwrap();
    let next = begin(&pages, old, "next ", &guard).expect("the page was written");
    next.commit(|_| Verdict::Commit).unwrap();
    assert_eq!(look(&pages, old, &guard).0, "old inside next ");
}

/// Whoever waits at a gate holds nothing.
#[test]
fn a_batch_that_holds_something_gives_up_at_a_gate() {
    let pages = Pages::start(small(Arc::new(SimDisk::untraced())).build()).unwrap();
    let guard = pin();
    let (first, hot) = (page(&pages, "first ", &guard), page(&pages, "hot ", &guard));
    let mut inside = Vec::new();
    let full = loop {
        match begin(&pages, hot, "x ", &guard) {
            Ok(batch) => inside.push(batch),
            Err(refused) => break refused,
        }
        assert!(inside.len() < 100, "the page takes more and more");
    };
    assert!(matches!(full, Error::Unsupported(_)), "{full:?}");
    let mut batch = begin(&pages, first, "held ", &guard).unwrap();
    let (_, key) = look(&pages, hot, &guard);
    let refused = batch.link(hot, key, "x ".to_owned(), &guard).err();
    assert!(matches!(refused, Some(Error::Io(Failure::Gated { pid })) if pid == hot), "{refused:?}");
    // Those inside go on where they are.
    let (_, key) = look(&pages, hot, &guard);
    inside[0].link(hot, key, "y ".to_owned(), &guard).expect("its batch is inside");
    drop(batch);
    for each in inside {
        each.commit(|_| Verdict::Commit).unwrap();
    }
    pages.pass_gate(hot).unwrap();
    begin(&pages, hot, "z ", &guard).unwrap().commit(|_| Verdict::Commit).unwrap();
    assert_eq!(look(&pages, first, &guard).0, "first ");
    assert!(look(&pages, hot, &guard).0.ends_with("y z "));
}
