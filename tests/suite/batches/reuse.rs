//! A page id that is freed and given to another page.

use std::{sync::Arc, thread, time::Duration};

use pagecache::{
    ConfigBuilder, PagePtr,
    io::sim::{Chooser, SimDisk},
    pin,
};
use tests::within;

use super::{Pages, look, page, small};

const HANG: Duration = Duration::from_secs(120);

/// Somebody held the key of a page that had just been allocated. The page was written, freed and its id
/// given out again, and the key, which names no content, fitted the stranger's page. An id is given out
/// now only when whoever could hold such a key has let go of its guard.
#[test]
fn an_id_is_not_given_out_while_a_guard_from_before_its_free_lives() {
    within(HANG, || {
        let config = ConfigBuilder::new().temporary(true).build();
        let pages = Pages::start(config).unwrap();
        let late = pin();
        let pid = pages.allocate(&late).unwrap();
        let mine = PagePtr::allocated();
        // Another thread, which was told the id, uses the page up.
        thread::scope(|scope| {
            scope.spawn(|| {
                let guard = pin();
                pages.replace(pid, PagePtr::allocated(), "short-lived ".to_owned(), &guard).unwrap();
                let (_, key) = look(&pages, pid, &guard);
                pages.free(pid, key, &guard).unwrap();
                drop(guard);
                for _ in 0..3 {
                    pages.checkpoint().unwrap();
                    (0..1000).for_each(|_| drop(pin()));
                    let guard = pin();
                    assert_ne!(pages.allocate(&guard).unwrap(), pid, "the late one still has its guard");
                }
            });
        });
        let refused = pages.replace(pid, mine, "late ".to_owned(), &late);
        assert!(matches!(refused, Err(pagecache::Error::CasFailed(None))), "{refused:?}");
        drop(late);
        while pages.stats().free_pages == 0 {
            drop(pin());
            thread::yield_now();
        }
        assert_eq!(pages.allocate(&pin()).unwrap(), pid, "nobody is left");
    });
}

/// The id of a freed page came back across a checkpoint; a crash may show the page before, nothing, or
/// the page after, and never one in the other's place.
#[test]
fn an_id_freed_and_used_again_across_a_checkpoint_holds_what_was_written_last() {
    for flushes in [true, false] {
        let mut disk = Arc::new(SimDisk::untraced());
        let pages = Pages::start(small(disk.clone()).build()).unwrap();
        let pid = {
            let guard = pin();
            let pid = page(&pages, "before ", &guard);
            pages.checkpoint().unwrap();
            let (_, key) = look(&pages, pid, &guard);
            pages.free(pid, key, &guard).unwrap();
            pages.checkpoint().unwrap();
            assert_eq!(page(&pages, "after ", &guard), pid, "the free is in a checkpoint");
            pid
        };
        if flushes {
            pages.flush().unwrap();
        }
        disk.cut_power();
        disk = Arc::new(disk.crash(&mut Chooser::none()));
        drop(pages);
        let pages = Pages::start(small(disk).build()).unwrap();
        let guard = pin();
        let found = pages.get(pid, &guard).unwrap();
        if flushes {
            assert_eq!(found.unwrap().0, "after ");
        } else {
            assert!(found.is_free(), "{found:?}");
        }
    }
}
