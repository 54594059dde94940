//! What a store must find again after a restart, and the oracle that compares it with its files.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use pagecache::{
    EventLog, Verified,
    io::sim::{Chooser, Rng, SimDisk},
};
use tests::{seeds, small_tree, stepwise};
use tree::{Config, Db, Error};

fn on(disk: &Arc<SimDisk>, events: &EventLog) -> Config {
    let (disk, events) = (disk.clone(), events.clone());
    small_tree(Config::new())
        .flush_every_ms(None)
        .page_cache(|builder| stepwise(builder, disk).event_log(events))
}

fn work(db: &Db, rng: &mut Rng, writes: usize) {
    for _ in 0..writes {
        let key = format!("key {:05}", rng.below(800));
        match rng.below(4) {
            0 => drop(db.remove(key).unwrap()),
            _ => drop(db.insert(key, vec![7; rng.index(80)]).unwrap()),
        }
    }
}

fn refused(outcome: tree::Result<Db>) -> String {
    match outcome.map(drop) {
        Err(Error::ReportableBug(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_closed_store_is_found_as_it_was_left_page_by_page() {
    for seed in seeds(3) {
        let (disk, events) = (Arc::new(SimDisk::untraced()), EventLog::new());
        let mut rng = Rng::new(seed);
        for round in 0..6 {
            let db = on(&disk, &events).open().unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
            assert_eq!(events.compared(), 2 * round, "seed {seed}");
            work(&db, &mut rng, 400);
            // A reader finds it so too, and leaves nothing of its own.
            db.close().unwrap();
            let reader = on(&disk, &events).read_only(true).open();
            drop(reader.unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}")));
        }
    }
}

/// The planted disagreement: the files are those of an earlier close, whole in themselves.
#[test]
fn a_store_that_was_put_back_to_an_earlier_state_is_told() {
    let (disk, events) = (Arc::new(SimDisk::untraced()), EventLog::new());
    let mut rng = Rng::new(1);
    let db = on(&disk, &events).open().unwrap();
    work(&db, &mut rng, 300);
    db.close().unwrap();
    let earlier = Arc::new(disk.crash(&mut Chooser::all()));
    let db = on(&disk, &events).open().unwrap();
    db.insert("one more", "v").unwrap();
    db.close().unwrap();
    let told = refused(on(&earlier, &events).open());
    assert!(told.contains("the end of the log was") && told.contains("page "), "{told}");
    events.forget();
    on(&earlier, &events).open().unwrap();
}

#[test]
fn a_killed_store_finds_what_was_durable_and_is_told_if_it_does_not() {
    for seed in seeds(4) {
        let (disk, events) = (Arc::new(SimDisk::untraced()), EventLog::new());
        let mut rng = Rng::new(seed);
        let db = on(&disk, &events).open().unwrap();
        work(&db, &mut rng, 300);
        db.flush().unwrap();
        let flushed = Arc::new(disk.crash(&mut Chooser::none()));
        work(&db, &mut rng, 100);
        let after = Arc::new(disk.crash(&mut Chooser::random(seed)));
        let killed = on(&after, &events).open().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(events.compared(), 1, "seed {seed}");
        killed.close().unwrap();
        // More is made durable, and then it is as if that had not been.
        db.insert("one more", "v").unwrap();
        db.flush().unwrap();
        std::mem::forget(db);
        let told = refused(on(&flushed, &events).open());
        assert!(
            told.contains("had change") || told.contains("the log was durable up to"),
            "seed {seed}: {told}"
        );
    }
}

#[test]
fn a_checkpoint_read_back_is_the_one_that_would_be_made_anew() {
    for seed in seeds(3) {
        let (disk, events) = (Arc::new(SimDisk::untraced()), EventLog::new());
        let mut rng = Rng::new(seed);
        let db = on(&disk, &events).open().unwrap();
        let mut places = 0;
        for step in 0..12 {
            work(&db, &mut rng, 100);
            let explain = |e: Error| -> Verified { panic!("seed {seed}, step {step}: {e}") };
            // In the middle of everything, behind a checkpoint, and behind cleaning.
            db.verify_checkpoint().unwrap_or_else(explain);
            match step % 3 {
                0 => db.checkpoint().unwrap(),
                1 => db.compact().unwrap(),
                _ => {}
            }
            places += u32::from(db.verify_checkpoint().unwrap_or_else(explain) == Verified::Places);
        }
        assert!(places >= 4, "seed {seed}: places were compared {places} times");
    }
}

/// A checkpoint that ran beside the comparison let go of what one side of it had seen: a store that was
/// right was said to differ from its files.
#[test]
fn a_checkpoint_beside_the_comparison_makes_no_difference() {
    let (disk, events) = (Arc::new(SimDisk::untraced()), EventLog::new());
    let mut rng = Rng::new(9);
    let db = on(&disk, &events).open().unwrap();
    for round in 0..150 {
        work(&db, &mut rng, 40);
        let both_begin = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                both_begin.wait();
                db.checkpoint().unwrap();
                db.compact().unwrap();
            });
            both_begin.wait();
            for _ in 0..3 {
                db.verify_checkpoint().unwrap_or_else(|e| panic!("round {round}: {e}"));
            }
        });
    }
}

/// The disk loses one bit of the newest table: what is read anew is no longer what is in memory.
#[test]
fn a_table_that_rotted_under_an_open_store_is_found() {
    use pagecache::io::FileId;
    let (disk, events) = (Arc::new(SimDisk::untraced()), EventLog::new());
    let db = on(&disk, &events).open().unwrap();
    work(&db, &mut Rng::new(5), 300);
    db.checkpoint().unwrap();
    assert_eq!(db.verify_checkpoint().unwrap(), Verified::Places);
    let pages = disk.contents(FileId::Pages).expect("the file is there");
    for (at, byte) in pages.iter().enumerate().skip(1024) {
        disk.damage(FileId::Pages, at as u64, &[byte ^ 0x10]).unwrap();
    }
    let found = db.verify_checkpoint();
    assert!(found.as_ref().is_err_and(Error::is_corruption), "{found:?}");
    std::mem::forget(db);
}
