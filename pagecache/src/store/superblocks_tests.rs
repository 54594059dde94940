//! Whatever is cut, fails or rots, the newest superblock or the one before it is found.

use std::sync::Arc;

use super::{Publisher, Slots, create, read_newest};
use crate::{
    error::{Failure, Poison},
    format::superblock::Superblock,
    io::{FileId, Storage, SyncReason},
    store::{
        pages::PagesFile,
        testdisk::{TestDisk, superblock},
    },
};

fn publisher(disk: &Arc<TestDisk>) -> Publisher {
    let (newest, slots) = read_newest(&**disk).expect("a store that opens");
    let file = PagesFile::new(disk.clone(), Arc::new(Poison::default()), &newest);
    Publisher::new(file, newest, slots)
}

fn publish(publisher: &mut Publisher, stable: i64) -> Result<(), Failure> {
    let mut next = Superblock { stable, ..publisher.newest().clone() };
    publisher.publish(&mut next)
}

fn created(block_bytes: u32) -> Arc<TestDisk> {
    let disk = TestDisk::new();
    create(&*disk, &superblock(block_bytes, block_bytes)).expect("an empty disk");
    disk
}

/// Every disk that a cut at this moment may leave.
fn cuts(disk: &TestDisk) -> impl Iterator<Item = Arc<TestDisk>> {
    let open = disk.open_questions();
    assert!(open <= 17, "{open} open questions");
    (0..1u64 << open).map(|mask| disk.after_cut(mask))
}

#[test]
fn a_cut_creation_leaves_nothing_or_an_empty_store() {
    let want = superblock(1024, 1024);
    for cut in 0..=5 {
        let disk = TestDisk::new();
        disk.cut_at(cut);
        assert_eq!(create(&*disk, &want).is_ok(), cut == 5, "cut at call {cut}");
        for left in cuts(&disk) {
            if left.exists(FileId::Pages).expect("no failure") {
                assert_eq!(read_newest(&*left).expect("a store that opens").0, want, "cut at call {cut}");
            } else {
                assert!(cut < 5, "the name was lost");
                create(&*left, &want).expect("what is left is overwritten");
                assert_eq!(read_newest(&*left).expect("a store that opens").0, want, "cut at call {cut}");
            }
        }
    }
}

#[test]
fn creation_and_publication_sync_before_they_go_on() {
    let disk = created(512);
    assert_eq!(disk.take_log().0, [SyncReason::Creation, SyncReason::CreationName]);
    let mut writer = publisher(&disk);
    publish(&mut writer, 1).expect("no failure");
    // Which slot a process left in the cache only is not known at open: one is made sure of first.
    let (syncs, writes) = disk.take_log();
    assert_eq!(
        syncs,
        [SyncReason::FirstSuperblock, SyncReason::FirstSuperblock, SyncReason::SecondSuperblock]
    );
    assert_eq!(writes, [(512, 512), (0, 512), (512, 512)]);
    publish(&mut writer, 2).expect("no failure");
    let (syncs, writes) = disk.take_log();
    assert_eq!(syncs, [SyncReason::FirstSuperblock, SyncReason::SecondSuperblock]);
    assert_eq!(writes, [(0, 512), (512, 512)]);
}

/// Cuts at every call of a publication, then again at every call of the one after the reopen: the
/// second cut meets slots that differ.
#[test]
fn a_cut_publication_leaves_the_newest_or_the_one_before() {
    for block_bytes in [512, 2048] {
        for first_cut in 0..=4 {
            let disk = created(block_bytes);
            let mut writer = publisher(&disk);
            publish(&mut writer, 10).expect("no failure");
            disk.cut_at(disk.calls() + first_cut);
            assert_eq!(publish(&mut writer, 20).is_ok(), first_cut == 4);
            for left in cuts(&disk) {
                let (found, _) = read_newest(&*left).expect("a store that opens");
                let may_be: &[i64] = match first_cut {
                    0 => &[10],
                    1 => &[10, 20],
                    _ => &[20],
                };
                assert!(may_be.contains(&found.stable), "cut at call {first_cut}: {}", found.stable);
                cut_again(&left, found.stable);
            }
        }
    }
}

fn cut_again(left: &Arc<TestDisk>, before: i64) {
    for cut in 0..=6 {
        let disk = left.after_cut(0);
        let mut writer = publisher(&disk);
        disk.cut_at(disk.calls() + cut);
        let is_published = publish(&mut writer, 30).is_ok();
        for left in cuts(&disk) {
            let (found, _) = read_newest(&*left).expect("a store that opens");
            assert!(
                found.stable == 30 || (found.stable == before && !is_published),
                "second cut at call {cut}: {} after {before}",
                found.stable
            );
        }
    }
}

/// The first slot of a publication reached the system's cache and its sync failed. The process
/// starts again, reads that slot from the cache, publishes over the other one, and the power goes:
/// unless the first slot was written again, the disk may hold neither.
#[test]
fn a_slot_that_only_the_cache_holds_is_written_again_before_the_other_is_touched() {
    let disk = created(512);
    let mut writer = publisher(&disk);
    publish(&mut writer, 10).expect("no failure");
    disk.fail_at(disk.calls() + 1);
    publish(&mut writer, 20).expect_err("the sync failed");
    let mut writer = publisher(&disk);
    assert_eq!(writer.newest().stable, 20);
    disk.take_log();
    publish(&mut writer, 30).expect("no failure");
    let (syncs, writes) = disk.take_log();
    assert_eq!(writes, [(0, 512), (512, 512), (0, 512)]);
    assert_eq!(
        syncs,
        [SyncReason::FirstSuperblock, SyncReason::FirstSuperblock, SyncReason::SecondSuperblock]
    );
}

#[test]
fn one_damaged_slot_is_survived_and_repaired_first() {
    for block_bytes in [512, 4096, 65536] {
        for slot in [0, 1] {
            let disk = created(block_bytes);
            publish(&mut publisher(&disk), 10).expect("no failure");
            disk.damage(slot * u64::from(block_bytes) + 60);
            let (found, Slots(valid)) = read_newest(&*disk).expect("one slot is whole");
            assert_eq!((found.stable, valid[slot as usize]), (10, None), "slot {slot} of {block_bytes}");
            disk.take_log();
            publish(&mut publisher(&disk), 20).expect("no failure");
            assert_eq!(disk.take_log().1[0].0, slot * u64::from(block_bytes), "the whole slot was touched");
            let (found, Slots(valid)) = read_newest(&*disk).expect("both slots are whole");
            assert_eq!((found.stable, valid[0]), (20, valid[1]));
        }
    }
}

#[test]
fn two_damaged_slots_are_corruption_at_byte_zero() {
    let disk = created(512);
    disk.damage(60);
    disk.damage(512 + 60);
    let failure = read_newest(&*disk).expect_err("nothing is whole");
    assert!(matches!(failure, Failure::Corrupt { offset: 0, .. }), "{failure}");
    let disk = TestDisk::new();
    disk.create(FileId::Pages).expect("no failure");
    let failure = read_newest(&*disk).expect_err("an empty file");
    assert!(matches!(failure, Failure::Corrupt { offset: 0, .. }), "{failure}");
}

#[test]
fn what_later_code_wrote_is_refused_by_name() {
    let disk = created(512);
    let mut newer = superblock(512, 512);
    newer.generation = 2;
    newer.features.incompatible = 4;
    disk.write_at(FileId::Pages, 0, &newer.encode()).expect("no failure");
    let failure = read_newest(&*disk).expect_err("an unknown feature");
    assert!(matches!(&failure, Failure::Unsupported { what } if what.contains("0x4")), "{failure}");
}

#[test]
fn slots_of_two_stores_are_corruption() {
    let disk = created(512);
    let mut other = superblock(512, 512);
    other.uuid[0] ^= 1;
    disk.write_at(FileId::Pages, 0, &other.encode()).expect("no failure");
    assert!(read_newest(&*disk).expect_err("two stores").is_corruption());
}

#[test]
fn a_failed_publication_poisons() {
    for call in 0..4 {
        let disk = created(512);
        let mut writer = publisher(&disk);
        disk.fail_at(disk.calls() + call);
        assert!(matches!(publish(&mut writer, 10), Err(Failure::Poisoned { .. })), "call {call}");
        assert!(matches!(publish(&mut writer, 20), Err(Failure::Poisoned { .. })), "after call {call}");
    }
    let disk = created(512);
    let mut writer = publisher(&disk);
    disk.set_capacity(Some(0));
    publish(&mut writer, 10).expect("written blocks need no space");
}
