//! Torn tails shorten, damage below a stable position is an error: at every byte, for every bit.

use super::{Model, Rig, SMALL, contents};
use crate::error::Failure;
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::Lsn;

/// Three rounds of two records; the last pad's mark says that the first two rounds are stable.
fn three_rounds() -> (Rig, Model, Vec<Lsn>) {
    let rig = Rig::new(SMALL);
    let (mut model, mut rounds) = (Vec::new(), Vec::new());
    for round in 0..3u8 {
        for record in 0..2u8 {
            let payload = vec![round * 16 + record; 20];
            model.push((rig.append(&payload), payload));
        }
        rounds.push(rig.log.flush().unwrap());
    }
    (rig, model, rounds)
}

#[test]
fn a_tail_cut_at_any_byte_behind_the_mark_is_a_prefix() {
    let (rig, model, rounds) = three_rounds();
    let image = rig.disk.image();
    for cut in rig.offset(rounds[1])..rig.offset(rounds[2]) {
        let mut torn = image.clone();
        torn[cut..].fill(0);
        let tail = rig.scan_image(torn, rig.first(), rounds[1]).unwrap();
        let got = contents(&tail);
        assert!(got.len() >= 4, "cut at {cut}");
        assert_eq!(got[..], model[..got.len()], "cut at {cut}");
        assert!(tail.end() <= rig.first() + cut as Lsn + 512);
        // The file may also end there.
        let tail = rig.scan_image(image[..cut].to_vec(), rig.first(), rounds[1]).unwrap();
        assert_eq!(contents(&tail), got, "file ends at {cut}");
    }
}

#[test]
fn every_flipped_bit_below_the_mark_is_damage() {
    let (rig, model, rounds) = three_rounds();
    let image = rig.disk.image();
    let covered = |byte: usize| {
        // Behind a pad's mark its bytes mean nothing.
        let lsn = rig.first() + byte as Lsn;
        let next = rounds.iter().find(|end| lsn < **end).copied().unwrap_or(Lsn::MAX);
        let records_end = model
            .iter()
            .rfind(|(at, _)| *at < next)
            .map_or(0, |(at, payload)| at + 24 + payload.len() as Lsn);
        lsn < records_end + 32
    };
    for byte in rig.offset(rig.first()) + 512..rig.offset(rounds[1]) {
        for bit in 0..8 {
            let mut bytes = image.clone();
            bytes[byte] ^= 1 << bit;
            // Nothing is recorded but the start: the marks alone must tell.
            let scanned = rig.scan_image(bytes, rig.first(), rig.first());
            if covered(byte) {
                assert!(
                    matches!(scanned, Err(Failure::Corrupt { .. })),
                    "byte {byte}, bit {bit}: {scanned:?}"
                );
            } else {
                assert_eq!(contents(&scanned.unwrap()), model, "byte {byte}, bit {bit}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_behind_the_last_mark_is_a_shorter_prefix() {
    let (rig, model, rounds) = three_rounds();
    let image = rig.disk.image();
    for byte in rig.offset(rounds[1])..rig.offset(rounds[2]) {
        for bit in 0..8 {
            let mut bytes = image.clone();
            bytes[byte] ^= 1 << bit;
            let tail = rig.scan_image(bytes.clone(), rig.first(), rig.first()).unwrap();
            let got = contents(&tail);
            assert!(got.len() >= 4, "byte {byte}, bit {bit}");
            assert_eq!(got[..], model[..got.len()], "byte {byte}, bit {bit}");
            // A checkpoint that knows better calls it damage.
            let known = rig.scan_image(bytes, rig.first(), rounds[2]);
            assert_eq!(known.is_err(), tail.end() < rounds[2], "byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn a_damaged_segment_header_is_damage_once_something_in_it_was_stable() {
    let (rig, _, rounds) = three_rounds();
    let image = rig.disk.image();
    for bit in 0..SEGMENT_HEADER_BYTES * 8 {
        let mut bytes = image.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let scanned = rig.scan_image(bytes, rig.first(), rig.first());
        assert!(matches!(scanned, Err(Failure::Corrupt { .. })), "bit {bit}: {scanned:?}");
    }
    // A later segment: all that was before reads, so only what was stable inside it can tell.
    let again = rig.reopen(rig.first());
    for _ in 0..2 {
        again.append(b"second epoch");
        again.log.flush().unwrap();
    }
    let image = again.disk.image();
    for bit in 0..SEGMENT_HEADER_BYTES * 8 {
        let mut bytes = image.clone();
        bytes[SMALL.segment_bytes + bit / 8] ^= 1 << (bit % 8);
        let scanned = again.scan_image(bytes, rig.first(), rounds[2]);
        assert!(matches!(scanned, Err(Failure::Corrupt { .. })), "bit {bit}: {scanned:?}");
    }
}

/// The last records of an epoch had been recovered, rewritten and built upon.
#[test]
fn the_end_of_an_earlier_epoch_may_not_shrink() {
    let rig = Rig::new(SMALL);
    rig.append(b"first");
    let last = rig.append(b"last of its epoch");
    rig.log.hand_over().unwrap();
    let again = rig.reopen(rig.first());
    again.append(b"next epoch");
    let stable = again.log.flush().unwrap();
    let mut bytes = again.disk.image();
    bytes[rig.offset(last) + 30] ^= 4;
    let scanned = again.scan_image(bytes, rig.first(), rig.first());
    assert!(matches!(scanned, Err(Failure::Corrupt { .. })), "{scanned:?}");
    assert!(again.scan(rig.first(), stable).is_ok());
}

#[test]
fn a_missing_log_is_damage_unless_it_held_nothing_stable() {
    let (rig, _, rounds) = three_rounds();
    assert!(rig.scan_image(Vec::new(), rig.first(), rounds[2]).unwrap_err().is_corruption());
    let mut file = rig.disk.image();
    file.truncate(512);
    assert!(rig.scan_image(file, rig.first(), rounds[0]).unwrap_err().is_corruption());
    assert_eq!(rig.scan_image(Vec::new(), rounds[2], rounds[2]).unwrap().end(), rounds[2]);
}

#[test]
fn random_bytes_never_panic() {
    let (rig, _, rounds) = three_rounds();
    let mut random = super::Random(77);
    for round in 0..300 {
        let mut bytes = rig.disk.image();
        for _ in 0..1 + random.below(20) {
            let at = random.below(2048);
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(bytes.len() - random.below(SMALL.segment_bytes) * (round % 2));
        let _either = rig.scan_image(bytes, rig.first(), rounds[round % 3]);
    }
}

/// Nothing but the start is recorded, and no mark says that anything was stable: what was published as the
/// epoch began tells that the file is not what it was.
#[test]
fn a_file_that_lost_the_segment_with_which_the_epoch_began_is_damage() {
    let rig = Rig::new(SMALL);
    rig.append(b"first");
    rig.log.flush().unwrap();
    let image = rig.disk.image();
    for len in 0..image.len() {
        let cut = rig.scan_begun(image[..len].to_vec(), rig.first(), rig.first());
        let Err(Failure::Corrupt { found, offset, .. }) = &cut else { panic!("cut at {len}: {cut:?}") };
        assert!(found.contains(&format!("at least {} bytes", SMALL.segment_bytes)), "cut at {len}: {found}");
        assert_eq!(*offset, len as u64);
    }
    let mut zeros = image.clone();
    zeros.fill(0);
    let lost = rig.scan_begun(zeros, rig.first(), rig.first()).unwrap_err();
    assert!(lost.to_string().contains("lacks the log segment"), "{lost}");
    assert_eq!(rig.scan_begun(image, rig.first(), rig.first()).unwrap().records().count(), 1);
}

/// Read from further on, where that segment is not needed, the one around the start is, once some of it was
/// stable.
#[test]
fn a_file_that_lacks_the_segment_in_which_reading_starts_is_damage() {
    let rig = Rig::new(SMALL);
    while rig.log.stable() < rig.first() + 2 * SMALL.segment_bytes as Lsn {
        rig.append(&[7; 500]);
        rig.log.flush().unwrap();
    }
    let (from, mut image) = (rig.log.stable(), rig.disk.image());
    assert!(rig.scan_begun(image.clone(), from, from).is_ok());
    let first = from - from % SMALL.segment_bytes as Lsn;
    image[rig.offset(first)..].fill(0);
    assert!(rig.scan_begun(image.clone(), from, from).unwrap_err().is_corruption());
    assert!(rig.scan_begun(image, first, first).is_ok(), "none of it need have been written");
}

#[test]
fn a_segment_of_another_store_is_damage_wherever_it_lies() {
    let (rig, _, rounds) = three_rounds();
    let mut image = rig.disk.image();
    let theirs = image.len();
    image.resize(theirs + SMALL.segment_bytes, 0);
    let header = SegmentHeader::decode(&image).unwrap();
    SegmentHeader { store: [9; 16], ..header }.encode(&mut image[theirs..theirs + SMALL.block_bytes]);
    let scanned = rig.scan_image(image, rig.first(), rounds[2]);
    let Err(Failure::Corrupt { found, offset, .. }) = &scanned else { panic!("{scanned:?}") };
    assert!(found.contains("another store"), "{found}");
    assert_eq!(*offset, theirs as u64);
}
