//! A disk that becomes full in the middle of a large value: nothing of it stays, and the same handle goes
//! on once there is room.

use tree::{Batch, Error};

use super::{SEGMENT, bytes, world};

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_value_heals_and_leaks_nothing() {
    for kib in (48..400).step_by(8) {
        let place = format!("room for {kib} KiB");
        let world = world(1 << 30);
        let db = world.open(1).unwrap();
        db.insert("small", "there").unwrap();
        let kept = bytes(SEGMENT, 1);
        db.insert("kept", &kept[..]).unwrap();
        db.checkpoint().unwrap();
        let live = db.stats().pages_live_bytes();
        world.disk.set_capacity(Some(world.disk.bytes_total() + (kib << 10)));
        let large = bytes(20 * SEGMENT, 2);
        for round in 0..3 {
            let refused = match round {
                0 => db.put("large", &large).map(drop),
                1 => db.put_from("kept", large.len() as u64, &large[..]).map(drop),
                _ => {
                    let mut batch = Batch::default();
                    batch.insert("one", &kept[..]);
                    batch.insert("large", &large[..]);
                    db.apply_batch(batch)
                }
            };
            if kib < 300 {
                assert!(matches!(refused, Err(Error::DiskFull { .. })), "{place}: {refused:?}");
            }
            if refused.is_err() {
                db.recount().unwrap();
                let now = db.stats().pages_live_bytes();
                assert!(now <= live + SEGMENT as u64, "{place}: {now} bytes alive, {live} before");
                assert_eq!(db.get("kept").unwrap().as_deref(), Some(&kept[..]), "{place}");
                assert_eq!(db.get("one").unwrap(), None, "{place}");
            } else {
                break;
            }
        }
        world.disk.set_capacity(None);
        db.put("large", &large).unwrap();
        assert_eq!(db.get("large").unwrap().as_deref(), Some(&large[..]), "{place}");
        db.close().unwrap();
        let db = world.open(2).unwrap();
        assert_eq!(db.get("large").unwrap().as_deref(), Some(&large[..]), "{place}: opened again");
        db.recount().unwrap();
    }
}
