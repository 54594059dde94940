//! What survives a crash of the simulated disk, and what its faults do.

use std::{collections::HashMap, io::ErrorKind};

use super::{Chooser, Effect, Fault, FaultPlan, Rng, SimDisk, SyncFailure};
use crate::io::{FileId, Operation, Storage, SyncReason};

const LOG: FileId = FileId::Log;

/// A disk with a durable log of these bytes.
fn disk_with_log(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create(LOG).unwrap();
    disk.write_at(LOG, 0, bytes).unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap();
    disk.sync_names(SyncReason::LogName).unwrap();
    disk
}

fn after(disk: &SimDisk, mut chooser: Chooser) -> Option<Vec<u8>> {
    disk.crash(&mut chooser).contents(LOG)
}

#[test]
fn names_and_bytes_become_durable_apart() {
    let disk = SimDisk::new();
    disk.create(LOG).unwrap();
    disk.write_at(LOG, 0, b"bytes").unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap();
    assert_eq!(after(&disk, Chooser::none()), None, "the name was not synced");
    assert_eq!(after(&disk, Chooser::all()), Some(b"bytes".to_vec()));
    disk.sync_names(SyncReason::LogName).unwrap();
    assert_eq!(after(&disk, Chooser::none()), Some(b"bytes".to_vec()));

    let disk = SimDisk::new();
    disk.create(LOG).unwrap();
    disk.write_at(LOG, 0, b"bytes").unwrap();
    disk.sync_names(SyncReason::LogName).unwrap();
    assert_eq!(after(&disk, Chooser::none()), Some(Vec::new()), "the bytes were not synced");
}

#[test]
fn sectors_and_lengths_survive_apart() {
    let disk = disk_with_log(&[1; 1024]);
    disk.write_at(LOG, 500, &[2; 1000]).unwrap();
    let trace = disk.trace();
    let units = trace.units_at(trace.len());
    let want = ["length 1024 to 1500", "bytes 500 to 512", "bytes 512 to 1024", "bytes 1024 to 1500"];
    assert_eq!(units, want.map(|unit| format!("log: {unit}")));
    let image = |kept: [bool; 4]| {
        let mut bytes = vec![1; if kept[0] { 1500 } else { 1024 }];
        bytes[1024..].fill(0);
        for (range, _) in
            [500..512, 512..1024, 1024..1500].into_iter().zip(&kept[1..]).filter(|(_, kept)| **kept)
        {
            if range.end <= bytes.len() {
                bytes[range].fill(2);
            }
        }
        bytes
    };
    let mut hashes = HashMap::new();
    for mask in 0..16_u64 {
        let kept = [0, 1, 2, 3].map(|unit| mask >> unit & 1 == 1);
        let disk = trace.crash_at(trace.len(), &mut Chooser::mask(mask));
        let bytes = disk.contents(LOG);
        assert_eq!(bytes, Some(image(kept)), "{kept:?}");
        let first = hashes.entry(disk.hash()).or_insert_with(|| bytes.clone());
        assert_eq!(*first, bytes, "one hash, two disks");
    }
    // Without the length, the last sector makes no difference.
    assert_eq!(hashes.len(), 12);
}

#[test]
fn a_durable_write_makes_its_own_sectors_durable_and_no_others() {
    let disk = disk_with_log(&[1; 2048]);
    disk.write_at(LOG, 0, &[2; 2048]).unwrap();
    disk.write_durably(LOG, 600, &[3; 100], SyncReason::Commit).unwrap();
    let mut want = vec![1; 2048];
    want[512..1024].fill(2);
    want[600..700].fill(3);
    assert_eq!(after(&disk, Chooser::none()), Some(want), "the sector as a whole, and it alone");
    let mut all = vec![2; 2048];
    all[600..700].fill(3);
    assert_eq!(after(&disk, Chooser::all()), Some(all), "nothing older comes back over it");

    disk.write_durably(LOG, 2048, &[4; 10], SyncReason::Commit).unwrap();
    let grown = after(&disk, Chooser::none()).unwrap();
    assert_eq!((grown.len(), &grown[2048..]), (2058, &[4; 10][..]), "the length comes along");
}

#[test]
fn a_file_stays_itself_when_its_name_changes() {
    let disk = SimDisk::new();
    disk.create(FileId::PagesNew).unwrap();
    disk.write_at(FileId::PagesNew, 0, b"new").unwrap();
    disk.sync(FileId::PagesNew, SyncReason::Creation).unwrap();
    disk.sync_names(SyncReason::CreationName).unwrap();
    disk.rename(FileId::PagesNew, FileId::Pages).unwrap();
    disk.write_at(FileId::Pages, 0, b"N").unwrap();
    disk.sync(FileId::Pages, SyncReason::Images).unwrap();
    let old_name = disk.crash(&mut Chooser::none());
    assert_eq!(old_name.contents(FileId::PagesNew), Some(b"New".to_vec()));
    assert_eq!(old_name.contents(FileId::Pages), None);
    let new_name = disk.crash(&mut Chooser::all());
    assert_eq!(new_name.contents(FileId::PagesNew), None);
    assert_eq!(new_name.contents(FileId::Pages), Some(b"New".to_vec()));
}

#[test]
fn the_death_of_the_process_leaves_all_but_makes_nothing_durable() {
    let disk = disk_with_log(b"old");
    disk.lock().unwrap();
    disk.write_at(LOG, 0, b"new").unwrap();
    let next = disk.crash(&mut Chooser::process_crash());
    next.lock().unwrap();
    assert_eq!(next.contents(LOG), Some(b"new".to_vec()));
    assert_eq!(after(&next, Chooser::none()), Some(b"old".to_vec()));
    assert_ne!(next.hash(), disk.crash(&mut Chooser::all()).hash(), "pending or not makes a difference");
    next.sync(LOG, SyncReason::Tail).unwrap();
    assert_eq!(after(&next, Chooser::none()), Some(b"new".to_vec()));
    assert_eq!(after(&disk, Chooser::none()), Some(b"old".to_vec()), "the first disk is untouched");
}

#[test]
fn each_way_of_failing_to_sync_loses_bytes_in_its_own_way() {
    struct Case {
        failure: SyncFailure,
        says: [Option<ErrorKind>; 3],
        visible: &'static [u8],
        may_survive: bool,
    }
    let io = Some(std::io::Error::from(rustix::io::Errno::IO).kind());
    let cases = [
        Case { failure: SyncFailure::Reverted, says: [io, None, None], visible: b"old", may_survive: false },
        Case { failure: SyncFailure::Forgotten, says: [io, None, None], visible: b"new", may_survive: true },
        Case { failure: SyncFailure::Late, says: [None, io, None], visible: b"new", may_survive: true },
    ];
    for Case { failure, says, visible, may_survive } in cases {
        let disk = disk_with_log(b"old");
        disk.set_faults(
            FaultPlan::new().fault(Fault::once(1).on(Operation::Sync).with(Effect::Sync(failure))),
        );
        disk.write_at(LOG, 0, b"new").unwrap();
        let said = [(); 3].map(|()| disk.sync(LOG, SyncReason::Commit).err().map(|error| error.kind()));
        assert_eq!(said, says, "{failure:?}");
        assert_eq!(disk.contents(LOG).as_deref(), Some(visible), "{failure:?}");
        assert_eq!(
            after(&disk, Chooser::none()).as_deref(),
            Some(&b"old"[..]),
            "{failure:?}: no retry helps"
        );
        let survivor = if may_survive { b"new" } else { b"old" };
        assert_eq!(after(&disk, Chooser::all()).as_deref(), Some(&survivor[..]), "{failure:?}");
    }
}

/// The older bytes came back after a crash that kept everything: they were put down last, over bytes
/// that a later sync had made durable.
#[test]
fn bytes_that_a_failed_sync_forgot_never_follow_newer_durable_ones() {
    let disk = disk_with_log(&[b'o'; 1536]);
    disk.set_faults(FaultPlan::new().fault(Fault::once(1).on(Operation::Sync)));
    disk.write_at(LOG, 0, &[b'f'; 1536]).unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap_err();
    disk.write_at(LOG, 512, &[b'n'; 512]).unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap();
    for (chooser, around) in [(Chooser::none(), b'o'), (Chooser::all(), b'f')] {
        let bytes = after(&disk, chooser).unwrap();
        assert_eq!((bytes[0], bytes[511], bytes[1024]), (around, around, around));
        assert_eq!(&bytes[512..1024], &[b'n'; 512]);
    }
    disk.set_len(LOG, 100).unwrap();
    disk.set_len(LOG, 1536).unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap();
    let bytes = after(&disk, Chooser::all()).unwrap();
    assert_eq!(bytes[1024..], [0; 512], "cut off since");
}

/// The shorter length came back after a crash that kept everything, and with it the file lost bytes that a
/// durable write had put behind it.
#[test]
fn a_length_that_a_failed_sync_forgot_never_cuts_what_a_later_durable_write_put_there() {
    let disk = disk_with_log(&[b'o'; 512]);
    disk.set_faults(FaultPlan::new().fault(Fault::once(1).on(Operation::Sync)));
    disk.write_at(LOG, 512, &[b'f'; 512]).unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap_err();
    disk.write_durably(LOG, 1024, &[b'n'; 512], SyncReason::Commit).unwrap();
    for (chooser, between) in [(Chooser::none(), 0), (Chooser::all(), b'f')] {
        let bytes = after(&disk, chooser).unwrap();
        assert_eq!(bytes.len(), 1536);
        assert_eq!((bytes[0], bytes[512], bytes[1024]), (b'o', between, b'n'));
    }
}

#[test]
fn a_late_sync_error_follows_the_file_to_its_new_name() {
    let disk = disk_with_log(b"old");
    let late = Effect::Sync(SyncFailure::Late);
    disk.set_faults(FaultPlan::new().fault(Fault::once(1).on(Operation::Sync).with(late)));
    disk.write_at(LOG, 0, b"new").unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap();
    disk.rename(LOG, FileId::Pages).unwrap();
    disk.sync(FileId::Pages, SyncReason::Images).unwrap_err();
    disk.sync(FileId::Pages, SyncReason::Images).unwrap();
}

#[test]
fn syncs_that_lie_or_are_dropped_make_nothing_durable() {
    let drop_commit = FaultPlan::new().drop_reason(SyncReason::Commit);
    let cases = [
        (FaultPlan::new(), SyncReason::Commit, true),
        (FaultPlan::new().lying_syncs(), SyncReason::Commit, false),
        (drop_commit.clone(), SyncReason::Commit, false),
        (drop_commit, SyncReason::Tail, true),
    ];
    for (plan, reason, durable) in cases {
        let disk = disk_with_log(b"old");
        disk.set_faults(plan.clone());
        disk.write_at(LOG, 0, b"new").unwrap();
        disk.sync(LOG, reason).unwrap();
        let want = if durable { b"new" } else { b"old" };
        assert_eq!(after(&disk, Chooser::none()).as_deref(), Some(&want[..]), "{plan:?}, {reason:?}");
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_heals_when_it_grows() {
    let disk = disk_with_log(&[1; 100]);
    disk.set_faults(FaultPlan::new().capacity(150));
    disk.write_at(LOG, 50, &[2; 50]).unwrap();
    assert_eq!(disk.write_at(LOG, 120, &[3; 100]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.len(LOG).unwrap(), 150);
    assert_eq!(disk.set_len(LOG, 151).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.create(FileId::Pages).unwrap();
    assert_eq!(disk.write_at(FileId::Pages, 0, b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    disk.set_capacity(Some(220));
    disk.write_at(LOG, 120, &[3; 100]).unwrap();
    assert_eq!(disk.bytes_total(), 220);
    disk.set_capacity(Some(0));
    disk.write_at(LOG, 0, &[4; 220]).unwrap();
    disk.set_len(LOG, 10).unwrap();
}

#[test]
fn room_that_was_set_aside_is_there_when_the_disk_is_full_by_then() {
    let disk = disk_with_log(&[1; 100]);
    assert!(disk.allocate(LOG, 100, 100).unwrap());
    disk.set_capacity(Some(100));
    disk.write_at(LOG, 150, &[2; 50]).unwrap();
    assert_eq!(disk.write_at(LOG, 150, &[2; 51]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(!disk.allocate(LOG, 200, 100).unwrap());
    disk.set_len(LOG, 100).unwrap();
    assert_eq!(disk.write_at(LOG, 100, b"x").unwrap_err().kind(), ErrorKind::StorageFull, "it was cut off");
}

#[test]
fn faults_strike_the_calls_they_name() {
    let io = std::io::Error::from(rustix::io::Errno::IO).kind();
    let reads = Fault::from(2).on(Operation::Read).of(LOG);
    let writes = Fault::once(1).on(Operation::Write).with(Effect::Torn(2));
    let commits = Fault::once(2).because(SyncReason::Commit).with(Effect::NoSpace);
    let disk = disk_with_log(b"old");
    disk.set_faults(FaultPlan::new().fault(reads).fault(writes).fault(commits));
    let read = || disk.read_at(LOG, 0, &mut [0]).err().map(|error| error.kind());
    assert_eq!([read(), read(), read()], [None, Some(io), Some(io)]);
    assert_eq!(disk.write_at(LOG, 0, b"new").unwrap_err().kind(), io);
    assert_eq!(disk.contents(LOG), Some(b"ned".to_vec()));
    disk.sync(LOG, SyncReason::Tail).unwrap();
    disk.sync(LOG, SyncReason::Commit).unwrap();
    assert_eq!(disk.sync(LOG, SyncReason::Commit).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.sync(LOG, SyncReason::Commit).unwrap();
}

#[test]
fn every_changing_call_can_be_the_one_that_fails_or_the_last() {
    let run = |disk: &SimDisk| -> std::io::Result<()> {
        disk.create(LOG)?;
        disk.write_at(LOG, 0, b"bytes")?;
        disk.set_len(LOG, 3)?;
        disk.sync(LOG, SyncReason::Commit)?;
        disk.rename(LOG, FileId::Pages)?;
        disk.sync_names(SyncReason::LogName)?;
        disk.remove(FileId::Pages)
    };
    let whole = SimDisk::new();
    run(&whole).unwrap();
    assert_eq!(whole.calls(), 7);
    for k in 1..=7 {
        let disk = SimDisk::new();
        disk.set_faults(FaultPlan::new().fault(Fault::once(k)));
        run(&disk).unwrap_err();
        assert_eq!(disk.calls(), k);
        let disk = SimDisk::new();
        disk.set_faults(FaultPlan::new().fault(Fault::once(k).with(Effect::PowerCut)));
        run(&disk).unwrap_err();
        assert_eq!((disk.calls(), disk.is_powered(), disk.trace().len()), (k, false, k as usize - 1));
        disk.exists(LOG).unwrap_err();
        disk.lock().unwrap_err();
        disk.sync_names(SyncReason::LogName).unwrap_err();
    }
}

/// Any changing call on any file.
fn random_call(disk: &SimDisk, rng: &mut Rng) {
    let file = *rng.pick(&FileId::ALL).unwrap();
    let other = *rng.pick(&FileId::ALL).unwrap();
    // Calls on files without a name are refused and change nothing; that is part of the mix.
    let _refused = match rng.below(16) {
        0..2 => disk.create(file),
        2..9 => {
            let mut bytes = vec![0; 1 + rng.index(3000)];
            rng.fill(&mut bytes);
            disk.write_at(file, rng.below(9000), &bytes)
        }
        9..11 => disk.set_len(file, rng.below(9000)),
        11..13 => disk.sync(file, SyncReason::Images),
        13 => disk.rename(file, other),
        14 => disk.remove(file),
        _ => disk.sync_names(SyncReason::CreationName),
    };
}

fn files(disk: &SimDisk) -> [Option<Vec<u8>>; 3] {
    FileId::ALL.map(|file| disk.contents(file))
}

#[test]
fn all_kept_is_what_was_seen_and_all_synced_needs_nothing_kept() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new();
        for step in 0..60 {
            random_call(&disk, &mut rng);
            let kept = disk.crash(&mut Chooser::all());
            assert_eq!(files(&kept), files(&disk), "seed {seed}, step {step}");
        }
        for file in FileId::ALL {
            let _no_name = disk.sync(file, SyncReason::Images);
        }
        disk.sync_names(SyncReason::CreationName).unwrap();
        assert_eq!(files(&disk.crash(&mut Chooser::none())), files(&disk), "seed {seed}");
        let trace = disk.trace();
        assert_eq!(trace.unit_count_at(trace.len()), 0, "seed {seed}");
    }
}

#[test]
fn a_trace_leads_to_the_disk_it_was_made_on_at_every_position() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new();
        let mut hashes = vec![disk.hash()];
        while hashes.len() < 50 {
            random_call(&disk, &mut rng);
            if disk.trace().len() == hashes.len() {
                hashes.push(disk.hash());
            }
        }
        let trace = disk.trace();
        for position in (0..50).chain([10, 40, 0, 49]) {
            let there = trace.crash_at(position, &mut Chooser::process_crash());
            assert_eq!(there.hash(), hashes[position], "seed {seed}, position {position}");
            assert_eq!(trace.units_at(position).len(), trace.unit_count_at(position));
        }
    }
}

#[test]
fn equal_seeds_make_equal_traces_and_equal_crashes() {
    let run = |seed| {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new();
        for step in 0..100 {
            random_call(&disk, &mut rng);
            disk.mark("steps", step);
        }
        let trace = disk.trace();
        let mut chooser = Chooser::random(seed).with_garbage(seed);
        let crashes: Vec<u64> = (0..trace.len()).map(|at| trace.crash_at(at, &mut chooser).hash()).collect();
        (trace.hash(), crashes)
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
        assert_ne!(run(seed).0, run(seed + 1).0, "seed {seed}");
    }
}

#[test]
fn crashes_nest() {
    let disk = disk_with_log(b"one");
    disk.write_at(LOG, 0, b"two").unwrap();
    let second = disk.crash(&mut Chooser::all());
    second.write_at(LOG, 3, b" and more").unwrap();
    let trace = second.trace();
    assert_eq!(trace.len(), 1);
    let third = trace.crash_at(1, &mut Chooser::none());
    assert_eq!(third.contents(LOG), Some(b"two".to_vec()));
    assert!(third.trace().is_empty());
}

#[test]
fn marks_hold_from_their_position_on() {
    let disk = disk_with_log(b"");
    let start = disk.trace().len();
    disk.mark("durable", 1);
    disk.set_len(LOG, 1).unwrap();
    disk.mark("applied", 7);
    disk.mark("durable", 2);
    let trace = disk.trace();
    let at = |position| (trace.marked("durable", position), trace.marked("applied", position));
    assert_eq!(at(start - 1), (None, None));
    assert_eq!(at(start), (Some(1), None));
    assert_eq!(at(start + 1), (Some(2), Some(7)));
}

#[test]
fn damage_is_seen_at_once_and_survives() {
    let disk = disk_with_log(b"old");
    disk.damage(LOG, 1, b"X").unwrap();
    assert_eq!(disk.contents(LOG), Some(b"oXd".to_vec()));
    assert_eq!(after(&disk, Chooser::none()), Some(b"oXd".to_vec()));
    disk.damage_len(LOG, 2).unwrap();
    assert_eq!(after(&disk, Chooser::none()), Some(b"oX".to_vec()));
    assert_eq!(disk.damage(FileId::Pages, 0, b"").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn garbage_may_be_what_was_removed_before() {
    let disk = disk_with_log(&[0xab; 8192]);
    disk.remove(LOG).unwrap();
    disk.sync_names(SyncReason::LogName).unwrap();
    disk.create(LOG).unwrap();
    disk.sync_names(SyncReason::LogName).unwrap();
    disk.write_at(LOG, 0, &[1; 4096]).unwrap();
    let length_alone = Chooser::only(0);
    assert_eq!(after(&disk, length_alone.clone()), Some(vec![0; 4096]));
    let stale = (0..20).any(|seed| {
        let bytes = after(&disk, length_alone.clone().with_garbage(seed)).unwrap();
        bytes.chunks(512).any(|sector| sector.iter().all(|&byte| byte == 0xab))
    });
    assert!(stale);
}

#[test]
fn garbage_is_nothing_that_the_same_crash_leaves_in_its_place() {
    let disk = disk_with_log(&[0xab; 8192]);
    disk.write_at(LOG, 8192, &[1; 4096]).unwrap();
    disk.set_len(LOG, 0).unwrap();
    // The file was longer, and neither what was written there nor the cut has happened.
    let longer = Chooser::only(0);
    assert_eq!(after(&disk, longer.clone()).map(|bytes| bytes.len()), Some(12_288));
    let twice = |disk: &SimDisk| {
        (0..40).any(|seed| {
            let bytes = after(disk, longer.clone().with_garbage(seed)).unwrap_or_default();
            bytes.get(8192..).is_some_and(|grown| grown.chunks(512).any(|sector| sector == [0xab; 512]))
        })
    };
    assert!(!twice(&disk), "one block is in two places");
    disk.sync(LOG, SyncReason::Commit).unwrap();
    disk.write_at(LOG, 0, &[1; 12_288]).unwrap();
    assert!(twice(&disk), "what was cut for good may turn up in what the file grows by");
}

#[test]
fn a_torn_sector_is_new_in_front_or_behind_and_old_in_the_rest() {
    let disk = disk_with_log(&[1; 1024]);
    disk.write_at(LOG, 0, &[2; 1024]).unwrap();
    let mut shapes = HashMap::new();
    for seed in 0..300 {
        let bytes = after(&disk, Chooser::all().with_tears(seed)).unwrap();
        for sector in bytes.chunks(512) {
            let changes = sector.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes <= 1, "seed {seed}: {changes} borders in one sector");
            *shapes.entry((sector[0], sector[511])).or_insert(0) += 1;
        }
    }
    assert!([(2, 2), (2, 1), (1, 2)].iter().all(|shape| shapes[shape] > 50), "{shapes:?}");
    assert_eq!(shapes.get(&(1, 1)), None, "what is kept leaves at least a byte");
    let process = after(&disk, Chooser::process_crash().with_tears(1));
    assert_eq!(process, Some(vec![2; 1024]), "the death of a process tears nothing");
}
