//! Faults while several threads write: everybody is told, nobody waits for ever.
//!
//! Every test here runs under a [`Watchdog`].

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use pagecache::io::{
    CountingStorage, Operation, Storage,
    sim::{Chooser, Effect, Fault, FaultPlan, Rng, SimDisk, SyncFailure},
};
use tree::{Batch, Config, Db, Error};

/// What waits longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: usize = 4;

/// Ends the process if it is not dropped in time.
struct Watchdog {
    done: Option<mpsc::Sender<()>>,
}

impl Watchdog {
    fn start(what: String) -> Watchdog {
        let (done, is_done) = mpsc::channel::<()>();
        thread::spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{what}: somebody has been waiting for {PATIENCE:?}");
                std::process::abort();
            }
        });
        Watchdog { done: Some(done) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.done.take());
    }
}

fn open(storage: Arc<dyn Storage>) -> tree::Result<Db> {
    let small = |builder: pagecache::ConfigBuilder| {
        builder
            .storage(storage)
            .block_bytes(512)
            .log_segment_bytes(4 << 10)
            .log_buffers(4)
            .log_capacity(64 << 10)
            .checkpoint_every_bytes(16 << 10)
            .store_segment_bytes(8 << 10)
    };
    Config::new().leaf_bytes_max(512).flush_every_ms(Some(2)).page_cache(small).open()
}

fn crash(disk: &SimDisk, mut chooser: Chooser) -> Arc<dyn Storage> {
    Arc::new(disk.crash(&mut chooser))
}

#[test]
fn everyone_who_waits_for_a_failing_sync_is_told() {
    let _watchdog = Watchdog::start("waiters of a failing sync".to_owned());
    for effect in [Effect::Io, Effect::NoSpace, Effect::Sync(SyncFailure::Reverted)] {
        let disk = Arc::new(SimDisk::untraced());
        let counting = Arc::new(CountingStorage::new(disk.clone()));
        let db = open(counting.clone()).expect("the disk is well");
        db.insert("before", "durable").expect("the disk is well");
        db.flush().expect("the disk is well");
        counting.hold_syncs();
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..6u8)
                .map(|n| {
                    let db = &db;
                    scope.spawn(move || {
                        db.insert([n], "in doubt")?;
                        db.flush()
                    })
                })
                .collect();
            counting.await_waiting_syncs(1);
            // One leads; the others find the round taken and wait for its end.
            thread::sleep(Duration::from_millis(30));
            disk.set_faults(FaultPlan::new().fault(Fault::from(1).on(Operation::Sync).with(effect)));
            counting.release_syncs();
            for waiter in waiters {
                let told = waiter.join().expect("no waiter panics");
                assert!(
                    matches!(told, Err(Error::Poisoned { .. })),
                    "{effect:?}: a waiter was told {told:?}"
                );
            }
        });
        let after = db.insert("after", "never");
        assert!(matches!(after, Err(Error::Poisoned { .. })), "{effect:?}: {after:?}");
        assert_eq!(db.get("before").expect("reads go on").as_deref(), Some(&b"durable"[..]));
        assert!(db.close().is_err(), "{effect:?}: it cannot have closed well");
        for chooser in [Chooser::none(), Chooser::all()] {
            let again = open(crash(&disk, chooser)).expect("it opens after a crash");
            assert_eq!(
                again.get("before").expect("it reads").as_deref(),
                Some(&b"durable"[..]),
                "{effect:?}"
            );
            assert_eq!(again.get("after").expect("it reads"), None, "{effect:?}");
        }
    }
}

/// What one writer did: entries `0..applied`, of which `0..durable` are durable.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    applied: u32,
    durable: u32,
}

fn key(writer: usize, n: u32) -> String {
    format!("{writer} {n:05}")
}

/// Writes until the store refuses; entry `n` is two keys in one batch if `n` is even.
fn write(db: &Db, writer: usize, count: u32) -> Written {
    let mut written = Written::default();
    while written.applied < count {
        let n = written.applied;
        let outcome = if n.is_multiple_of(2) {
            let mut batch = Batch::default();
            batch.insert(key(writer, n).as_bytes(), &b"first"[..]);
            batch.insert(format!("twin of {}", key(writer, n)).as_bytes(), &b"second"[..]);
            db.apply_batch(batch)
        } else {
            db.insert(key(writer, n), "alone").map(drop)
        };
        match outcome {
            Ok(()) => written.applied += 1,
            Err(Error::DiskFull { .. }) => thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
        if n % 16 == 15 {
            match db.flush() {
                Ok(_) => written.durable = written.applied,
                Err(Error::DiskFull { .. }) => {}
                Err(_) => break,
            }
        }
    }
    written
}

/// Every writer's entries are there without a gap, as many as were durable at least, and every
/// batch is wholly in or out.
fn check(db: &Db, written: &[Written], place: &str) {
    let keys: tree::Result<BTreeSet<String>> =
        db.iter().keys().map(|key| key.map(|key| String::from_utf8_lossy(&key).into_owned())).collect();
    let mut keys = keys.unwrap_or_else(|error| panic!("{place}: {error}"));
    for (writer, written) in written.iter().enumerate() {
        let mut n = 0;
        while keys.remove(&key(writer, n)) {
            let twin = keys.remove(&format!("twin of {}", key(writer, n)));
            assert_eq!(twin, n.is_multiple_of(2), "{place}: half of a batch of writer {writer}, entry {n}");
            n += 1;
        }
        let bounds = written.durable..=written.applied;
        assert!(bounds.contains(&n), "{place}: writer {writer} has {n} entries, {written:?}");
    }
    assert!(keys.is_empty(), "{place}: entries behind a gap: {keys:?}");
}

/// Threads write; returns what they did once all have come to an end.
fn write_all(db: &Db, count: u32) -> Vec<Written> {
    thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(db, writer, count))).collect();
        writers.into_iter().map(|writer| writer.join().expect("no writer panics")).collect()
    })
}

#[test]
fn a_fault_at_any_moment_stops_all_writers_and_loses_nothing_durable() {
    let (mut runs, mut struck) = (0, 0);
    for seed in tests::seeds(60) {
        let _watchdog = Watchdog::start(format!("seed {seed}"));
        let mut rng = Rng::new(seed);
        let disk = Arc::new(SimDisk::untraced());
        let db = open(disk.clone()).expect("the disk is well");
        let effects = [Effect::Io, Effect::Torn(600), Effect::Sync(SyncFailure::Forgotten)];
        let effect = effects[rng.index(effects.len())];
        let k = 1 + rng.below(120);
        let fault = if rng.chance(1, 2) { Fault::once(k) } else { Fault::from(k) };
        let place = format!("seed {seed}, {fault:?} {effect:?}");
        disk.set_faults(FaultPlan::new().fault(fault.with(effect)));
        let written = write_all(&db, 200);
        let whole: Vec<Written> =
            written.iter().map(|written| Written { durable: written.applied, ..*written }).collect();
        check(&db, &whole, &format!("{place}, before the crash"));
        runs += 1;
        struck += u32::from(written.iter().any(|written| written.applied < 200));
        disk.cut_power();
        drop(db);
        for chooser in [Chooser::none(), Chooser::all(), Chooser::random(seed)] {
            let again = open(crash(&disk, chooser)).unwrap_or_else(|error| panic!("{place}: {error}"));
            check(&again, &written, &place);
        }
    }
    assert!(runs < 10 || struck > runs / 2, "only {struck} of {runs} faults stopped a writer");
}

#[test]
fn writers_on_a_full_disk_all_go_on_when_it_grows() {
    for seed in tests::seeds(6) {
        let _watchdog = Watchdog::start(format!("a full disk, seed {seed}"));
        let disk = Arc::new(SimDisk::untraced());
        let db = open(disk.clone()).expect("the disk is well");
        disk.set_capacity(Some((24 << 10) + seed * 2048));
        let ended = AtomicUsize::new(0);
        let written = thread::scope(|scope| {
            scope.spawn(|| {
                while db.insert("is it full", "no").is_ok() && ended.load(Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(10));
                disk.set_capacity(None);
            });
            let written = write_all(&db, 300);
            ended.store(1, Ordering::Relaxed);
            written
        });
        assert!(written.iter().all(|written| written.applied == 300), "seed {seed}: {written:?}");
        db.remove("is it full").and_then(|_| db.flush()).expect("there is room");
        let whole = [Written { applied: 300, durable: 300 }; WRITERS];
        check(&db, &whole, &format!("seed {seed}"));
        disk.cut_power();
        drop(db);
        check(
            &open(crash(&disk, Chooser::none())).expect("it opens"),
            &whole,
            &format!("seed {seed}, crashed"),
        );
    }
}
