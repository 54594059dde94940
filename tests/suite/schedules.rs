//! Schedules that once broke the design, made to happen. Others of them stand where their subject is:
//! docs/TESTING.md lists all.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use pagecache::{
    Admission, ConfigBuilder, Error, PageId, PagePtr, Verdict,
    io::{
        FileId, Operation, Storage,
        sim::{Chooser, SimDisk},
    },
    pin,
};
use tests::{BLOCK_BYTES, HookedStorage, small_tree, stepwise, strings::Pages, tiny_pages, within};
use tree::{Config, Db};

const HANG: Duration = Duration::from_secs(120);
const BLOCK: u64 = BLOCK_BYTES as u64;
const LOG_BYTES: u64 = 64 << 10;

fn key(number: u64) -> Vec<u8> {
    format!("key {number:05}").into_bytes()
}

fn tree_on(storage: Arc<dyn Storage>) -> Db {
    let config = small_tree(Config::new()).page_cache(|builder| stepwise(builder, storage));
    config.open().unwrap_or_else(|e| panic!("the store opens: {e}"))
}

/// A put has read the parent and is on its way to the leaf that the parent names. Before it reads that one,
/// the leaf is split several times, or emptied and joined into its neighbour and its page freed.
#[test]
fn a_put_routed_through_a_stale_parent_lands_where_it_belongs() {
    within(HANG, || {
        let mut happened = 0;
        for (splits, at_read) in (1..6).flat_map(|read| [(true, read), (false, read)]) {
            let storage = Arc::new(HookedStorage::new(Arc::new(SimDisk::untraced())));
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let db = tree_on(storage.clone());
            for number in (0..4000).step_by(10) {
                db.insert(key(number), &[1; 40][..]).unwrap();
                model.insert(key(number), vec![1; 40]);
            }
            db.close().unwrap();
            // Every page has to be read anew.
            let db = tree_on(storage.clone());
            let meanwhile = {
                let db = db.clone();
                move || match splits {
                    true => {
                        (1901..2100).for_each(|number| drop(db.insert(key(number), &[2; 40][..]).unwrap()))
                    }
                    false => (1500..2500).for_each(|number| drop(db.remove(key(number)).unwrap())),
                }
            };
            let reads = AtomicU64::new(0);
            let itself = Arc::downgrade(&storage);
            storage.set_hook(Some(Arc::new(move |file, operation| {
                let is_read = file == FileId::Pages && operation == Operation::Read;
                if is_read && reads.fetch_add(1, Ordering::Relaxed) + 1 == at_read {
                    itself.upgrade().expect("the store is open").set_hook(None);
                    thread::spawn(meanwhile.clone()).join().expect("what happens meanwhile succeeds");
                }
            })));
            db.insert("key 02005x", &[3; 40][..]).unwrap();
            let found = db.get(key(2001)).unwrap().is_some() || db.get(key(2000)).unwrap().is_none();
            happened += u64::from(found);
            storage.set_hook(None);
            if found && splits {
                model.extend((1901..2100).map(|number| (key(number), vec![2; 40])));
            } else if found {
                (1500..2500).for_each(|number| drop(model.remove(&key(number))));
            }
            model.insert(b"key 02005x".to_vec(), vec![3; 40]);
            let place = format!("splits {splits}, before read {at_read}");
            let all = || db.iter().map(|entry| entry.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec()));
            assert!(all().eq(model.clone()), "{place}");
            assert_eq!(db.get("key 02005x").unwrap().as_deref(), Some(&[3; 40][..]), "{place}");
        }
        assert!(happened >= 4, "{happened} puts met a parent that was out of date");
    });
}

fn pages_on(disk: Arc<SimDisk>, salt: u64) -> Pages {
    let config = tiny_pages(stepwise(ConfigBuilder::new(), disk)).salt_seed(salt).log_capacity(LOG_BYTES);
    Pages::start(config.build()).expect("the store opens")
}

fn page(pages: &Pages) -> PageId {
    let guard = pin();
    let pid = pages.allocate(&guard).expect("ids are left");
    pages.replace(pid, PagePtr::allocated(), "begins ".to_owned(), &guard).expect("nobody else writes");
    pid
}

/// A batch holds the left page and waits for the right one. A change of shape holds the right one and
/// comes to the left one: it gives up, whatever the order is, and the batch goes on.
#[test]
fn of_two_batches_that_want_each_others_page_the_optional_one_gives_up() {
    within(HANG, || {
        let pages = pages_on(Arc::new(SimDisk::untraced()), 1);
        let (left, right) = (page(&pages), page(&pages));
        let guard = pin();
        let key_of = |pid: PageId| pages.get(pid, &guard).unwrap().unwrap().1;
        let mut shape = pages.begin_batch(Admission { optional: true, ..Admission::default() }).unwrap();
        shape.link(right, key_of(right), "of the shape ".to_owned(), &guard).unwrap();
        let lsn = thread::scope(|scope| {
            let held = std::sync::mpsc::channel();
            let pages = &pages;
            let user = scope.spawn(move || {
                let guard = pin();
                let mut batch = pages.begin_batch(Admission::default()).unwrap();
                let (_, key) = pages.get(left, &guard).unwrap().unwrap();
                batch.link(left, key, "of the user ".to_owned(), &guard).unwrap();
                held.0.send(()).unwrap();
                // Waits until the other one has ended, then looks again.
                loop {
                    let (_, key) = pages.get(right, &guard).unwrap().unwrap();
                    match batch.link(right, key, "of the user ".to_owned(), &guard) {
                        Ok(_) => break batch.commit(|_| Verdict::Commit).unwrap(),
                        Err(Error::CasFailed(Some(_))) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
            held.1.recv().unwrap();
            let refused = shape.link(left, key_of(left), "of the shape ".to_owned(), &guard);
            assert!(matches!(refused, Err(Error::CasFailed(_))), "it would have waited: {refused:?}");
            drop(shape);
            user.join().expect("the user's batch goes on")
        });
        assert!(lsn.is_some());
        for pid in [left, right] {
            assert_eq!(pages.get(pid, &guard).unwrap().unwrap().0, "begins of the user ");
        }
    });
}

/// The newest superblock was the only one that knew where the log begins by now: the other one led to log
/// that had been written over. Whichever of the two is damaged, the other one leads to all there is.
#[test]
fn a_superblock_damaged_after_the_log_was_used_again_loses_nothing() {
    let disk = Arc::new(SimDisk::untraced());
    let pages = pages_on(disk.clone(), 1);
    let pids: Vec<PageId> = (0..20).map(|_| page(&pages)).collect();
    let guard = pin();
    let mut model: BTreeMap<PageId, String> = BTreeMap::new();
    for round in 0..2000_usize {
        let pid = pids[round * 7 % pids.len()];
        let text = format!("{round:200}");
        loop {
            let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
            if pages.replace(pid, key, text.clone(), &guard).is_ok() {
                break;
            }
        }
        model.insert(pid, text);
        if round % 50 == 49 {
            pages.checkpoint().unwrap();
        }
    }
    pages.flush().unwrap();
    assert!(pages.next_lsn() > 4 * LOG_BYTES.cast_signed(), "the log was not used again");
    for (slot, byte) in [(0, 0), (0, 100), (1, 0), (1, 100)] {
        let left = Arc::new(disk.crash(&mut Chooser::none()));
        let at = slot * BLOCK + byte;
        let old = left.contents(FileId::Pages).expect("the file is there")[at as usize];
        left.damage(FileId::Pages, at, &[old ^ 1]).unwrap();
        let again = pages_on(left, 2);
        for (pid, text) in &model {
            assert_eq!(
                again.get(*pid, &guard).unwrap().unwrap().0,
                text,
                "slot {slot}, byte {byte}: page {pid}"
            );
        }
    }
}

/// The image held change 1; the page was begun anew, that was published, and the next write-back put what
/// followed on the old image: a reopen read old and new mixed.
#[test]
fn a_page_begun_anew_above_its_image_is_read_back_without_what_was_before() {
    for (checkpoints, writes_on) in [(false, false), (false, true), (true, false), (true, true)] {
        let disk = Arc::new(SimDisk::untraced());
        let pages = pages_on(disk.clone(), 1);
        let guard = pin();
        let pid = page(&pages);
        let long = "before ".repeat(60);
        let change = |text: &str, anew: bool| {
            let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
            let changed = if anew {
                pages.replace(pid, key, text.to_owned(), &guard)
            } else {
                pages.link(pid, key, text.to_owned(), &guard)
            };
            changed.expect("nobody else writes");
        };
        change(&long, false);
        pages.checkpoint().unwrap();
        change("anew ", true);
        if checkpoints {
            pages.checkpoint().unwrap();
        }
        change("and on ", false);
        if writes_on {
            pages.checkpoint().unwrap();
        }
        pages.flush().unwrap();
        let again = pages_on(Arc::new(disk.crash(&mut Chooser::none())), 2);
        assert_eq!(again.get(pid, &guard).unwrap().unwrap().0, "anew and on ");
    }
}

/// What a page had lacked was in the log, durably, when it was begun anew. The position of its new beginning
/// counted for all that it lacked, a checkpoint let go of the log below, and the new beginning itself was
/// not durable yet: a crash then brought back the page as of before both.
#[test]
fn a_page_begun_anew_keeps_the_log_of_what_it_replaced_until_it_is_written() {
    for frees in [false, true] {
        let disk = Arc::new(SimDisk::untraced());
        let pages = pages_on(disk.clone(), 1);
        let (pid, other) = (page(&pages), page(&pages));
        pages.checkpoint().unwrap();
        let guard = pin();
        let key_of = |pid: PageId| pages.get(pid, &guard).unwrap().unwrap().1;
        pages.link(pid, key_of(pid), "durable ".to_owned(), &guard).unwrap();
        // Something for the checkpoint to say.
        pages.link(other, key_of(other), "changed ".to_owned(), &guard).unwrap();
        pages.flush().unwrap();
        let stable = pages.stable_lsn();
        match frees {
            true => pages.free(pid, key_of(pid), &guard).unwrap(),
            false => _ = pages.replace(pid, key_of(pid), "anew ".to_owned(), &guard).unwrap(),
        }
        // Whoever holds a page's claim, or has something pending on it, keeps it from being written back.
        let mut batch = pages.begin_batch(Admission::default()).unwrap();
        if !frees {
            batch.link(pid, key_of(pid), "pending ".to_owned(), &guard).unwrap();
        }
        pages.checkpoint().unwrap();
        let was_durable = pages.stable_lsn() > stable;
        let again = pages_on(Arc::new(disk.crash(&mut Chooser::none())), 2);
        let found = again.get(pid, &guard).unwrap();
        match was_durable && frees {
            true => assert!(found.is_free(), "{found:?}"),
            false => {
                let text = found.unwrap().0;
                let is_anew = was_durable && text == "anew ";
                assert!(is_anew || text == "begins durable ", "{text:?}");
            }
        }
        drop(batch);
    }
}
