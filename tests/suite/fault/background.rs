//! A panic in the background of a store, as a mistake there would be one: everybody is told, nobody waits for
//! work that will not come, and what was durable is there at the next open.

use std::{sync::Arc, thread, time::Duration};

use pagecache::io::{FileId, Operation, sim::SimDisk};
use tests::{HookedStorage, within};
use tree::{Config, Db, Error};

const HANG: Duration = Duration::from_secs(60);
/// Records written before, all of them durable.
const COUNT: u32 = 200;

fn open(storage: Arc<HookedStorage>) -> tree::Result<Db> {
    Config::new()
        .flush_every_ms(Some(1))
        .page_cache(|builder| {
            builder.storage(storage).log_segment_bytes(64 << 10).store_segment_bytes(64 << 10)
        })
        .open()
}

/// Panics in whatever the given thread does not do.
fn panic_elsewhere(storage: &HookedStorage) {
    let own = thread::current().id();
    storage.set_hook(Some(Arc::new(move |file, operation| {
        let changes = matches!(operation, Operation::Write | Operation::Sync);
        assert!(thread::current().id() == own || !changes, "{operation:?} of {file:?} in the background");
    })));
}

#[test]
fn a_panic_in_the_background_is_told_to_every_writer_and_loses_nothing_durable() {
    within(HANG, || {
        let disk = Arc::new(SimDisk::untraced());
        let storage = Arc::new(HookedStorage::new(disk.clone()));
        let db = open(storage.clone()).expect("the disk is well");
        for n in 0..COUNT {
            db.insert(n.to_be_bytes(), "before").expect("the disk is well");
        }
        db.flush().expect("the disk is well");
        panic_elsewhere(&storage);
        // The background has something to flush, and meets its panic within a few milliseconds.
        let told = loop {
            match db.insert("again", "and again") {
                Ok(_) => thread::sleep(Duration::from_millis(1)),
                Err(error) => break error,
            }
        };
        assert!(matches!(told, Error::Poisoned { .. }), "{told:?}");
        // Its own words, or those of the round of the log that it led.
        assert!(told.to_string().contains("panicked"), "{told}");
        for outcome in [db.flush().map(drop), db.checkpoint(), db.remove("again").map(drop)] {
            assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
        }
        for n in 0..COUNT {
            assert_eq!(db.get(n.to_be_bytes()).expect("reads go on").as_deref(), Some(&b"before"[..]), "{n}");
        }
        assert!(db.close().is_err(), "a poisoned store says that it closed well");
        storage.set_hook(None);
        assert!(disk.contents(FileId::Log).is_some_and(|log| !log.is_empty()), "the log is there");
        let db = open(storage).expect("what was durable opens");
        assert!(db.len() >= COUNT as usize, "{} of {COUNT} records are left", db.len());
    });
}
