//! A batch looks at what it has read when nothing below its position is still to come.
//!
//! A change has its position before it shows. Without the wait a batch with a later position finds nothing
//! changed, commits, and the earlier change comes after all: in the order of positions the batch had
//! read what was no longer so.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use pagecache::{
    Admission, Config, DecodeError, FragState, Lsn, Materializer, PageCache, PageId, PagePtr, Verdict, View,
    io::sim::{Rng, SimDisk},
    pin,
};
use tests::{seeds, within};

use super::small;

const HANG: Duration = Duration::from_secs(120);
/// Whoever writes this is stopped when it has a position and nothing shows yet.
const SLOW: &str = "slow ";

/// Pages are words, as in the other tests; a slow one can be stopped.
#[derive(Default)]
struct Stopping {
    gate: OnceLock<Gate>,
}

struct Gate {
    reserved: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Materializer for Stopping {
    type PageFrag = String;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Stopping {
        Stopping::default()
    }

    fn merge(&self, frags: &[&String]) -> String {
        frags.iter().map(|frag| frag.as_str()).collect()
    }

    fn recover(&self, _: &String) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &String) -> usize {
        frag.len()
    }

    fn encoded_len(&self, frag: &String) -> usize {
        frag.len()
    }

    fn encode(&self, frag: &String, out: &mut [u8]) {
        if frag == SLOW
            && let Some(gate) = self.gate.get()
        {
            gate.reserved.send(()).expect("the test waits");
            gate.go_on.lock().unwrap().recv().expect("the test lets it go on");
        }
        // A writer that has a position and is put aside.
        if frag == "y" {
            thread::yield_now();
        }
        out.copy_from_slice(frag.as_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, DecodeError> {
        String::from_utf8(bytes.to_vec()).map_err(|why| DecodeError(why.to_string()))
    }

    fn commutes(&self, _: &String, _: &String) -> bool {
        true
    }
}

type Pages = PageCache<Stopping, String, ()>;

fn open() -> Pages {
    // Nothing but the test makes checkpoints, which would wait for the one that is stopped.
    let config = small(Arc::new(SimDisk::untraced())).log_capacity(8 << 20).checkpoint_every_bytes(6 << 20);
    Pages::start(config.build()).expect("a new store opens")
}

fn page(pages: &Pages) -> PageId {
    let guard = pin();
    let pid = pages.allocate(&guard).expect("ids are left");
    pages.replace(pid, PagePtr::allocated(), "begins ".to_owned(), &guard).expect("nobody else writes");
    pid
}

/// Adds a word; returns its position.
fn add(pages: &Pages, pid: PageId, word: &str) -> Lsn {
    let guard = pin();
    loop {
        let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
        if let Ok(key) = pages.link(pid, key, word.to_owned(), &guard) {
            return key.changed_at();
        }
    }
}

fn is_changed(pages: &Pages, pid: PageId, since: Lsn) -> bool {
    let guard = pin();
    let View::Page(view) = pages.view(pid, &guard).unwrap() else { panic!("the page is there") };
    view.frags().any(|(_, state)| matches!(state, FragState::Committed(lsn) if lsn >= since))
}

/// Runs `work` while a writer is stopped that has a position for a change of `pid` already; the writer goes
/// on a moment after somebody else has got a position, or when `work` is done.
fn beside_a_slow_writer<T: Send>(pages: &Pages, pid: PageId, work: impl FnOnce() -> T + Send) -> T {
    let (reserved, is_reserved) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let gate = Gate { reserved, go_on: Mutex::new(goes_on) };
    assert!(pages.materializer().gate.set(gate).is_ok(), "one slow writer a test");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| add(pages, pid, SLOW));
        is_reserved.recv().expect("it has a position");
        let before = pages.next_lsn();
        let done = &done;
        scope.spawn(move || {
            while pages.next_lsn() == before && !done.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            // Long enough for whoever does not wait to go wrong.
            thread::sleep(Duration::from_millis(20));
            go_on.send(()).expect("it waits to go on");
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

#[test]
fn a_batch_is_judged_when_no_change_below_its_position_is_still_to_come() {
    within(HANG, || {
        let pages = open();
        let (read, written) = (page(&pages), page(&pages));
        let since = pages.installed_lsn().unwrap();
        let committed = beside_a_slow_writer(&pages, read, || {
            let guard = pin();
            let mut batch = pages.begin_batch(Admission::default()).unwrap();
            let (_, key) = pages.get(written, &guard).unwrap().unwrap();
            batch.link(written, key, "x ".to_owned(), &guard).unwrap();
            assert!(!is_changed(&pages, read, since), "the writer is stopped");
            batch.commit(|_| if is_changed(&pages, read, since) { Verdict::Abort } else { Verdict::Commit })
        });
        assert_eq!(committed.unwrap(), None, "the page it has read was changed at an earlier position");
        assert_eq!(pages.get(written, &pin()).unwrap().unwrap().0, "begins ");
    });
}

/// Whoever looks at pages as of the log's end sees a change come later that belongs before.
#[test]
fn a_view_taken_while_an_older_reservation_is_open_waits_for_it() {
    within(HANG, || {
        let pages = open();
        let read = page(&pages);
        let seen = beside_a_slow_writer(&pages, read, || {
            let as_of = pages.installed_lsn().unwrap();
            let guard = pin();
            (as_of, pages.get(read, &guard).unwrap().unwrap().0.clone())
        });
        assert_eq!(seen.1, "begins slow ", "as of {}", seen.0);
        assert!(!is_changed(&pages, read, seen.0), "a change below the position came after it was taken");
    });
}

/// What a batch did: it has read a page as of `since` and changed another at `lsn`.
struct Done {
    since: Lsn,
    read: PageId,
    written: PageId,
    lsn: Lsn,
}

/// Batches that read one page and change another, and single changes, on few pages, on many threads. For
/// each batch that committed there is no change of what it has read between its look and its position.
fn no_batch_misses_a_change(seed: u64) {
    const THREADS: u64 = 4;
    const TURNS: u64 = 400;
    let pages = open();
    let pids: Vec<PageId> = (0..3).map(|_| page(&pages)).collect();
    let batches: Mutex<Vec<Done>> = Mutex::default();
    let changes: Mutex<Vec<(PageId, Lsn)>> = Mutex::default();
    let given_up = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pages, pids, given_up) = (&pages, &pids, &given_up);
            let (batches, changes) = (&batches, &changes);
            scope.spawn(move || {
                let mut rng = Rng::new(seed * THREADS + thread);
                for _ in 0..TURNS {
                    let read = *rng.pick(pids).expect("there are some");
                    if rng.chance(1, 3) {
                        let lsn = add(pages, read, "y");
                        changes.lock().unwrap().push((read, lsn));
                        continue;
                    }
                    let written = *rng.pick(pids).expect("there are some");
                    let guard = pin();
                    let since = pages.installed_lsn().unwrap();
                    let mut batch = pages.begin_batch(Admission::default()).unwrap();
                    // Others come in between, on a machine with few processors too.
                    thread::yield_now();
                    loop {
                        let (_, key) = pages.get(written, &guard).unwrap().unwrap();
                        if batch.link(written, key, "x".to_owned(), &guard).is_ok() {
                            break;
                        }
                    }
                    let judge = |_| match is_changed(pages, read, since) {
                        true => Verdict::Abort,
                        false => Verdict::Commit,
                    };
                    match batch.commit(judge).unwrap() {
                        Some(lsn) => batches.lock().unwrap().push(Done { since, read, written, lsn }),
                        None => _ = given_up.fetch_add(1, Ordering::Relaxed),
                    }
                }
            });
        }
    });
    let (batches, mut changes) = (batches.into_inner().unwrap(), changes.into_inner().unwrap());
    changes.extend(batches.iter().map(|batch| (batch.written, batch.lsn)));
    for batch in &batches {
        let missed =
            changes.iter().find(|(pid, lsn)| *pid == batch.read && (batch.since..batch.lsn).contains(lsn));
        assert!(missed.is_none(), "seed {seed}: read as of {}, at {}: {missed:?}", batch.since, batch.lsn);
    }
    let (committed, given_up) = (batches.len(), given_up.into_inner());
    assert!(committed > 10 && given_up > 0, "seed {seed}: {committed} committed, {given_up} given up");
}

#[test]
fn no_batch_that_commits_has_missed_a_change_of_what_it_read() {
    for seed in seeds(4) {
        within(HANG, move || no_batch_misses_a_change(seed));
    }
}
