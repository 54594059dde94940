//! Reopening: epochs, ghosts, the identical rewrite, chains of crashes.

use super::disk::Call;
use super::{Random, Rig, SMALL, contents};
use crate::ids::Lsn;
use crate::io::SyncReason;

#[test]
fn every_epoch_starts_a_segment_and_all_read_as_one() {
    let mut rig = Rig::new(SMALL);
    let from = rig.first();
    let mut model = Vec::new();
    for epoch in 0..6u8 {
        for step in 0..epoch * 30 + 1 {
            let payload = vec![epoch; usize::from(step) + 10];
            model.push((rig.append(&payload), payload));
        }
        let stable = rig.log.flush().unwrap();
        let tail = rig.scan(from, stable).unwrap();
        assert_eq!(contents(&tail), model, "epoch {epoch}");
        rig = rig.reopen(from);
        assert_eq!(rig.log.stable(), stable);
    }
    let salts = rig.salts();
    assert_eq!(salts.len(), 6);
    assert!(salts.iter().all(|(from, _)| from % SMALL.segment_bytes as Lsn == 0));
    // From the middle too: what comes before is not looked at.
    for at in (0..model.len()).step_by(17) {
        let tail = rig.scan(model[at].0, rig.log.stable()).unwrap();
        assert_eq!(contents(&tail), model[at..], "from record {at}");
    }
}

#[test]
fn rewriting_changes_no_byte_and_syncs() {
    let rig = Rig::new(SMALL);
    for step in 0..300u32 {
        rig.append(&step.to_le_bytes().repeat(10));
    }
    rig.log.hand_over().unwrap();
    let before = rig.disk.image();
    rig.disk.calls();
    let tail = rig.scan(rig.first(), rig.first()).unwrap();
    tail.rewrite(rig.disk.as_ref()).unwrap();
    assert_eq!(rig.disk.image(), before);
    let calls = rig.disk.calls();
    assert_eq!(calls.last(), Some(&Call::Sync(SyncReason::Tail)));
    let written: usize =
        calls.iter().map(|call| if let Call::Write { len, .. } = call { *len } else { 0 }).sum();
    assert!(written as Lsn >= tail.end() - rig.first() - 4096, "{written} bytes rewritten");
    assert_eq!(rig.scan(rig.first(), rig.first()).unwrap().end(), tail.end());
}

#[test]
fn rewriting_an_empty_tail_does_nothing() {
    let rig = Rig::new(SMALL);
    rig.scan(rig.first(), rig.first()).unwrap().rewrite(rig.disk.as_ref()).unwrap();
    assert_eq!(rig.disk.calls(), []);
}

/// Two records were written in one epoch and the first one torn; the epoch after it wrote a record
/// in place of the first. Under the old salt the second would line up behind it.
#[test]
fn a_ghost_behind_a_torn_record_stays_dead() {
    let rig = Rig::new(SMALL);
    let kept = rig.append(b"kept");
    rig.log.flush().unwrap();
    let torn = rig.append(b"torn");
    rig.log.hand_over().unwrap();
    let ghost = rig.append(b"ghost");
    rig.log.hand_over().unwrap();
    let mut image = rig.disk.image();
    image[rig.offset(torn)..][..512].fill(0);
    crate::io::Storage::write_at(rig.disk.as_ref(), crate::io::FileId::Log, 0, &image).unwrap();

    let again = rig.reopen(rig.first());
    assert!(again.log.next_lsn() <= torn);
    assert_eq!(contents(&again.scan(rig.first(), rig.first()).unwrap()), [(kept, b"kept".to_vec())]);
    let new = again.append(b"new");
    assert!(new > ghost, "an epoch starts a segment of its own");
    let stable = again.log.flush().unwrap();
    let want = [(kept, b"kept".to_vec()), (new, b"new".to_vec())];
    assert_eq!(contents(&again.scan(rig.first(), stable).unwrap()), want);
    // Even if the torn record comes back, as from a disk that had lost it for a while.
    let mut image = again.disk.image();
    let old = rig.disk.image();
    image[rig.offset(torn)..][..512].copy_from_slice(&old[rig.offset(torn)..][..512]);
    assert_eq!(contents(&again.scan_image(image, rig.first(), stable).unwrap()), want);
}

/// An epoch was published and its first segment torn; the next epoch starts at the same LSN.
#[test]
fn of_two_slots_with_one_lsn_the_salt_list_picks_the_live_one() {
    let rig = Rig::new(SMALL);
    rig.append(b"one");
    let end = rig.log.flush().unwrap();
    let lost = rig.reopen(rig.first());
    lost.append(b"lost");
    lost.log.hand_over().unwrap();
    let mut image = lost.disk.image();
    let slot = SMALL.segment_bytes;
    image[slot + 512..slot + 1024].fill(0);
    // The lost segment survives in a slot of its own, header and all.
    let ghost = image[slot..2 * slot].to_vec();
    crate::io::Storage::write_at(lost.disk.as_ref(), crate::io::FileId::Log, 0, &image).unwrap();
    let again = lost.reopen(rig.first());
    assert_eq!(again.log.next_lsn(), end);
    let new = again.append(b"new");
    let stable = again.log.flush().unwrap();
    let mut image = again.disk.image();
    image.extend_from_slice(&ghost);
    let tail = again.scan_image(image, rig.first(), stable).unwrap();
    assert_eq!(contents(&tail).last(), Some(&(new, b"new".to_vec())));
}

/// Random epochs, each cut at a random byte behind its stable LSN.
#[test]
fn whatever_was_durable_survives_chains_of_crashes() {
    for seed in 0..60u64 {
        let mut random = Random(seed);
        let mut rig = Rig::new(SMALL);
        let from = rig.first();
        let mut model: Vec<(Lsn, Vec<u8>)> = Vec::new();
        for epoch in 0..4 {
            let mut stable = rig.log.stable();
            for _ in 0..random.below(60) {
                let payload = vec![random.next() as u8; random.below(600)];
                model.push((rig.append(&payload), payload));
                match random.below(8) {
                    0 => stable = rig.log.flush().unwrap(),
                    1 => rig.log.hand_over().unwrap(),
                    _ => {}
                }
            }
            // Each sector written since the last sync is there or not.
            let mut image = rig.disk.image();
            for (at, sector) in image.chunks_mut(512).enumerate() {
                let lsn = rig.first() + (at * 512) as Lsn;
                let last = rig.salts().last().map_or(lsn, |(from, _)| *from);
                if lsn >= stable && lsn >= last && random.below(3) == 0 {
                    sector.fill(0);
                }
            }
            if !image.is_empty() {
                crate::io::Storage::write_at(rig.disk.as_ref(), crate::io::FileId::Log, 0, &image).unwrap();
            }
            let tail = rig.scan(from, stable).unwrap_or_else(|e| panic!("seed {seed}, epoch {epoch}: {e}"));
            let got = contents(&tail);
            assert_eq!(got[..], model[..got.len()], "seed {seed}, epoch {epoch}");
            let durable = model.iter().filter(|(lsn, _)| *lsn < stable).count();
            assert!(got.len() >= durable, "seed {seed}, epoch {epoch}: {} of {durable}", got.len());
            model.truncate(got.len());
            rig = rig.reopen(from);
        }
    }
}
