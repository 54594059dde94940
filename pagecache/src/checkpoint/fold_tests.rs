//! Runs in the tail: which of them count, and how much of them.

use super::{Fold, Nonsense, Replayed, fold};
use crate::{
    Config, Materializer,
    format::{
        batch::{ENTRY_HEADER_BYTES, EntryKind, put_header},
        codec,
        record::Kind,
        run::{Part, PartsSum, RunEnd, put_part},
    },
    ids::Lsn,
};

struct Texts;

impl Materializer for Texts {
    type PageFrag = String;
    type Recovery = u32;

    fn new(_: Config, _: &Option<u32>) -> Texts {
        Texts
    }

    fn merge(&self, frags: &[&String]) -> String {
        frags.iter().map(|frag| frag.as_str()).collect()
    }

    fn recover(&self, _: &String) -> Option<u32> {
        None
    }

    fn size_in_bytes(&self, frag: &String) -> usize {
        frag.len()
    }
}

/// A batch of two pages in parts at 20 and 25, ended at 30 with a recovery value of 7.
fn run() -> Vec<(Lsn, Kind, Vec<u8>)> {
    let mut payload = Vec::new();
    for (pid, text) in [(3, "left"), (4, "right")] {
        let text = text.to_owned();
        let len = codec::encoded_len(&text);
        let mut entry = vec![0; ENTRY_HEADER_BYTES + len];
        let (place, _) = put_header(&mut entry, pid, EntryKind::Base, 1, len);
        codec::encode(&text, place);
        payload.extend(entry);
    }
    // Cut inside a fragment.
    let (one, two) = payload.split_at(ENTRY_HEADER_BYTES + 3);
    let (mut records, mut sum) = (Vec::new(), PartsSum::default());
    for (index, (lsn, bytes)) in [(20, one), (25, two)].into_iter().enumerate() {
        let mut part = vec![0; 12 + bytes.len()];
        put_part(&mut part, Part { first: 20, index: index as u32, bytes });
        sum.add(lsn, bytes);
        records.push((lsn, Kind::RunPart, part));
    }
    let recovery = Some(7_u32.to_le_bytes().to_vec());
    let bytes = payload.len() as u64;
    let end = RunEnd { first: 20, parts: 2, bytes, crc: sum.finish(), tallies: Vec::new(), recovery };
    records.push((30, Kind::RunCommit, end.encode()));
    records
}

fn folded(from: Lsn, records: &[(Lsn, Kind, Vec<u8>)]) -> Result<Fold<String, u32>, Nonsense> {
    let records = records.iter().filter(|(lsn, ..)| *lsn >= from).map(|(lsn, kind, payload)| Replayed {
        lsn: *lsn,
        kind: *kind,
        pid: 0,
        seq: 0,
        payload,
    });
    fold(&Texts, 0, None, from, |_| 0, records)
}

#[test]
fn a_whole_run_counts_at_its_end_and_is_kept_from_its_first_part_on() {
    let fold = folded(20, &run()).unwrap_or_else(|nonsense| panic!("{}", nonsense.why));
    let places: Vec<_> = fold.changes.iter().map(|change| (change.pid, change.lsn, change.first)).collect();
    assert_eq!(places, [(3, 30, 20), (4, 30, 20)]);
    assert_eq!(fold.recovery, Some((30, 7)));
}

/// The parts lay at 20 and 25 and the end at 30. T passed the parts, because every page of the run was
/// durable; the end came without them and the store must open all the same, with the value that the
/// run leaves to recover.
#[test]
fn a_run_that_began_before_the_tail_leaves_its_recovery_value_and_nothing_else() {
    for from in 21..=30 {
        let fold = folded(from, &run()).unwrap_or_else(|nonsense| panic!("from {from}: {}", nonsense.why));
        assert!(fold.changes.is_empty(), "from {from}");
        assert_eq!(fold.recovery, Some((30, 7)), "from {from}");
    }
}

#[test]
fn a_run_in_the_tail_that_lacks_a_part_or_has_another_is_damage() {
    for missing in 0..2 {
        let mut records = run();
        records.remove(missing);
        let nonsense = folded(20, &records).err().unwrap_or_else(|| panic!("part {missing} is missing"));
        assert_eq!(nonsense.lsn, 30, "{}", nonsense.why);
    }
    let mut records = run();
    *records[1].2.last_mut().expect("a part has bytes") ^= 1;
    assert!(folded(20, &records).is_err(), "a part of other bytes");
}

#[test]
fn parts_without_an_end_are_nothing() {
    let mut records = run();
    records.pop();
    let fold = folded(20, &records).unwrap_or_else(|nonsense| panic!("{}", nonsense.why));
    assert!(fold.changes.is_empty() && fold.recovery.is_none());
    assert_eq!(fold.bound, 0);
}
