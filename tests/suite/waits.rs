//! Who waits is parked, and reads of a file do not wait for each other.

use std::{
    fs,
    sync::{
        Arc, Barrier, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use pagecache::{
    Admission, ConfigBuilder, PageGet, PagePtr, Verdict,
    io::{CountingStorage, FileId, Operation, sim::SimDisk},
    pin,
};
use tests::{HookedStorage, strings::Pages, within};

const HANG: Duration = Duration::from_secs(60);
const WAITERS: usize = 8;
/// How long the waiting is watched, and how much of the processor all who wait may use of it together:
/// a single one that looks again and again uses nearly all.
const WATCHED: Duration = Duration::from_millis(300);
const USED_MAX: Duration = Duration::from_millis(60);

fn small() -> ConfigBuilder {
    ConfigBuilder::new()
        .block_bytes(512)
        .log_segment_bytes(8 << 10)
        .log_buffers(2)
        .log_capacity(16 << 20)
        .store_segment_bytes(8 << 10)
        .checkpoint_every_bytes(8 << 20)
        .flush_every_ms(None)
}

/// A thread's number for the system, told by itself.
fn task() -> String {
    let link = fs::read_link("/proc/thread-self").expect("threads have a place");
    link.file_name().expect("a name").to_string_lossy().into_owned()
}

/// Time that these threads have had a processor.
fn used(tasks: &[String]) -> Duration {
    let of = |task: &String| {
        let path = format!("/proc/self/task/{task}/schedstat");
        let stat = fs::read_to_string(path).expect("the thread runs");
        Duration::from_nanos(stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).expect("a number"))
    };
    tasks.iter().map(of).sum()
}

/// Starts `WAITERS` threads that come to wait, watches them, and lets go.
fn expect_parked(
    what: &str,
    wait: impl Fn(usize) + Send + Sync + 'static,
    begun: impl Fn(),
    let_go: impl FnOnce(),
) {
    let wait = Arc::new(wait);
    let (told, tasks) = channel();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|number| {
            let (told, wait) = (told.clone(), wait.clone());
            thread::spawn(move || {
                told.send(task()).expect("somebody listens");
                wait(number);
            })
        })
        .collect();
    let tasks: Vec<String> = tasks.iter().take(WAITERS).collect();
    begun();
    // They are on their way into the wait; what that takes is no part of it.
    let mut before = used(&tasks);
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = used(&tasks);
        if now - before < Duration::from_millis(5) || now > HANG {
            break;
        }
        before = now;
    }
    let before = used(&tasks);
    thread::sleep(WATCHED);
    let during = used(&tasks) - before;
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()), "{what}: somebody did not wait");
    let_go();
    waiters.into_iter().for_each(|waiter| waiter.join().expect("who waited goes on"));
    assert!(during < USED_MAX, "{what}: waiting used {during:?} of the processor");
}

#[test]
fn who_waits_for_a_sync_or_a_batch_is_parked() {
    within(HANG, || {
        let storage = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
        let pages = Arc::new(Pages::start(small().storage(storage.clone()).build()).unwrap());
        let pid = {
            let guard = pin();
            let pid = pages.allocate(&guard).unwrap();
            pages.replace(pid, PagePtr::allocated(), "a".to_owned(), &guard).unwrap();
            pid
        };
        storage.hold_syncs();
        let flushing = pages.clone();
        let release = storage.clone();
        expect_parked(
            "a sync",
            move |_| flushing.flush().unwrap(),
            || storage.await_waiting_syncs(1),
            move || release.release_syncs(),
        );

        let guard = pin();
        let PageGet::Materialized(_, key) = pages.get(pid, &guard).unwrap() else { panic!("it is there") };
        let mut batch = pages.begin_batch(Admission::default()).unwrap();
        batch.link(pid, key, "b".to_owned(), &guard).unwrap();
        let linking = pages.clone();
        expect_parked(
            "a batch",
            move |_| {
                let guard = pin();
                loop {
                    let key = match linking.get(pid, &guard).unwrap() {
                        PageGet::Materialized(_, key) => key,
                        other => panic!("{other:?}"),
                    };
                    if linking.link(pid, key, "c".to_owned(), &guard).is_ok() {
                        break;
                    }
                }
            },
            || {},
            || assert!(batch.commit(|_| Verdict::Commit).unwrap().is_some()),
        );
        let (page, _) = pages.get(pid, &guard).unwrap().unwrap();
        assert_eq!(page, &format!("ab{}", "c".repeat(WAITERS)));
    });
}

/// A gate at which calls of one kind stand still.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    /// How many calls came to it.
    came: AtomicUsize,
}

impl Gate {
    /// Before all such calls of `storage` from now on.
    fn before(storage: &HookedStorage, kind: (FileId, Operation)) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        let stand = gate.clone();
        storage.set_hook(Some(Arc::new(move |file, operation| {
            if (file, operation) == kind {
                stand.came.fetch_add(1, Ordering::SeqCst);
                let mut open = stand.open.lock().unwrap();
                while !*open {
                    open = stand.changed.wait(open).unwrap();
                }
            }
        })));
        gate
    }

    fn await_the_first(&self) {
        while self.came.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn let_all_pass(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

fn make_pages(pages: &Pages, count: usize) {
    for _ in 0..count {
        let guard = pin();
        let pid = pages.allocate(&guard).unwrap();
        pages.replace(pid, PagePtr::allocated(), "x".repeat(1000), &guard).unwrap();
    }
}

#[test]
fn who_waits_for_a_buffer_of_the_log_is_parked() {
    within(HANG, || {
        let storage = Arc::new(HookedStorage::new(Arc::new(SimDisk::untraced())));
        let pages = Arc::new(Pages::start(small().storage(storage.clone()).build()).unwrap());
        make_pages(&pages, 1);
        pages.flush().unwrap();
        let gate = Gate::before(&storage, (FileId::Log, Operation::Write));
        // The buffers hold 16 KiB together, each writer brings 24: one that is first alone must wait too.
        expect_parked(
            "a buffer",
            move |_| make_pages(&pages, 24),
            || gate.await_the_first(),
            || gate.let_all_pass(),
        );
    });
}

/// A log that is full, and the checkpoint that is to make room in it stands still.
#[test]
fn who_waits_for_room_in_the_log_is_parked() {
    within(HANG, || {
        let storage = Arc::new(HookedStorage::new(Arc::new(SimDisk::untraced())));
        let config = small().storage(storage.clone()).log_capacity(64 << 10).checkpoint_every_bytes(32 << 10);
        let pages = Arc::new(Pages::start(config.build()).unwrap());
        let gate = Gate::before(&storage, (FileId::Pages, Operation::Sync));
        // The log holds 64 KiB, the writers bring 800.
        expect_parked(
            "room in the log",
            move |_| make_pages(&pages, 100),
            || gate.await_the_first(),
            || gate.let_all_pass(),
        );
    });
}

#[test]
fn reads_of_two_pages_do_not_wait_for_each_other() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let mut ids: Vec<_> = {
            let pages = Pages::start(small().storage(disk.clone()).build()).unwrap();
            let guard = pin();
            let make = |_| {
                let pid = pages.allocate(&guard).unwrap();
                pages.replace(pid, PagePtr::allocated(), "a".repeat(300), &guard).unwrap();
                pid
            };
            let ids = (0..3).map(make).collect();
            pages.close().unwrap();
            ids
        };
        let storage = Arc::new(HookedStorage::new(disk));
        let pages = Arc::new(Pages::start(small().storage(storage.clone()).build()).unwrap());
        // Where the pages lie is read once, for all that lie beside each other in the page table.
        let beside = ids.pop().expect("three pages");
        assert_eq!(pages.get(beside, &pin()).unwrap().unwrap().0.len(), 300);
        // Each read goes on only when the other has begun, too.
        let both = Arc::new(Barrier::new(2));
        storage.set_hook(Some(Arc::new(move |file, operation| {
            if (file, operation) == (FileId::Pages, Operation::Read) {
                both.wait();
            }
        })));
        let readers: Vec<_> = ids
            .into_iter()
            .map(|pid| {
                let pages = pages.clone();
                thread::spawn(move || assert_eq!(pages.get(pid, &pin()).unwrap().unwrap().0.len(), 300))
            })
            .collect();
        readers.into_iter().for_each(|reader| reader.join().expect("it reads"));
        storage.set_hook(None);
    });
}
