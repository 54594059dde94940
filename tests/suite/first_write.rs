//! Crashes around the first write after an open.

use std::sync::Arc;

use pagecache::io::sim::{Chooser, Effort, SimDisk, explore};
use tests::{stepwise, tiny_pages};
use tree::{Config, Db};

fn open(disk: Arc<SimDisk>) -> Result<Db, String> {
    Config::new()
        .page_cache(|builder| tiny_pages(stepwise(builder, disk)).salt_seed(1))
        .open()
        .map_err(|error| error.to_string())
}

/// A store was closed cleanly, in the middle of a log segment. The first write after the next open
/// published a salt, and with it the start of the next log segment as a stable position, which no
/// record would ever reach: cut off before its first sync, the store called its log damaged. The
/// published position is now that of the last record, and all that was closed over reads back.
#[test]
fn the_first_write_after_a_clean_close_may_be_cut_off_anywhere() {
    let disk = Arc::new(SimDisk::new());
    let db = open(disk.clone()).unwrap();
    db.insert("before", "closed").unwrap();
    drop(db);
    disk.restart_trace();
    let db = open(disk.clone()).unwrap();
    db.insert("after", "open").unwrap();
    db.flush().unwrap();
    disk.mark("flushed", 1);
    std::mem::forget(db); // no clean close: the trace ends with the flush
    let trace = disk.trace();
    let explored = explore(&trace, &Effort::quick(1), |case, crashed| {
        let db = open(Arc::new(crashed))?;
        let get = |key: &str| db.get(key).map_err(|error| error.to_string());
        let flushed = trace.marked("flushed", case.position).is_some();
        match (get("before")?, get("after")?) {
            (None, _) => Err("what was closed over is gone".to_owned()),
            (Some(_), None) if flushed => Err("what was flushed is gone".to_owned()),
            _ => Ok(()),
        }
    });
    let explored = explored.unwrap_or_else(|found| panic!("{found}"));
    assert!(explored.distinct > 20, "{explored:?}");
}

/// An epoch was published, and the machine stopped before a record of it was on the disk. The next
/// open published one of its own from where the records end, which lay before the start of the one
/// that never was; the list named both, records were sealed under the new one's salt and looked for
/// under the other's: a flushed write was gone. An epoch now takes the place of those that were to
/// begin at or after its start.
#[test]
fn an_epoch_without_records_gives_way_to_the_next() {
    let disk = Arc::new(SimDisk::new());
    let db = open(disk.clone()).unwrap();
    db.insert("before", "closed").unwrap();
    drop(db);
    let db = open(disk.clone()).unwrap();
    db.insert("never", "written").unwrap();
    let disk = Arc::new(disk.crash(&mut Chooser::none()));
    std::mem::forget(db);
    let db = open(disk.clone()).unwrap();
    assert_eq!(db.get("never").unwrap(), None);
    db.insert("after", "flushed").unwrap();
    db.flush().unwrap();
    let disk = Arc::new(disk.crash(&mut Chooser::none()));
    std::mem::forget(db);
    let db = open(disk).unwrap();
    assert_eq!(db.get("before").unwrap().as_deref(), Some(&b"closed"[..]));
    assert_eq!(db.get("after").unwrap().as_deref(), Some(&b"flushed"[..]));
}
