//! Runs in the tail: which of them count, and how much of them.

use super::{Fold, Nonsense, by_page, digest, fold};
use crate::{
    Config, Materializer,
    cache::TailChange,
    format::{
        batch::{ENTRY_HEADER_BYTES, EntryKind, put_header},
        codec,
        record::Kind,
        run::{Part, PartsSum, RunEnd, put_part},
    },
    ids::{Lsn, PageId},
    log::tail::TailRecord,
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

/// The fold of these records, each digested alone.
fn folded(from: Lsn, records: &[(Lsn, Kind, Vec<u8>)]) -> Result<Fold<u32>, Nonsense> {
    let digests = records.iter().filter(|(lsn, ..)| *lsn >= from).map(|(lsn, kind, payload)| {
        digest(&Texts, [TailRecord { lsn: *lsn, kind: *kind, pid: 0, seq: 0, payload }].into_iter())
    });
    fold(&Texts, 0, None, from, digests)
}

fn places(fold: &Fold<u32>) -> Vec<(PageId, Lsn, Lsn)> {
    let place = |change: &super::TailChange| {
        let first = fold.runs.get(&change.lsn).map_or(change.lsn, |run| run.first);
        (change.pid, change.lsn, first)
    };
    fold.changes.iter().map(place).collect()
}

#[test]
fn a_whole_run_counts_at_its_end_and_is_kept_from_its_first_part_on() {
    let fold = folded(20, &run()).unwrap_or_else(|nonsense| panic!("{}", nonsense.why));
    assert_eq!(places(&fold), [(3, 30, 20), (4, 30, 20)]);
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

#[test]
fn a_fragment_of_a_run_is_placed_in_the_part_in_which_it_begins() {
    let fold = folded(20, &run()).unwrap_or_else(|nonsense| panic!("{}", nonsense.why));
    let parts = &fold.runs[&30].parts;
    let len = |text: &str| codec::encoded_len(&text.to_owned());
    let (one, two) = (ENTRY_HEADER_BYTES + 3, len("left") - 3 + ENTRY_HEADER_BYTES + len("right"));
    assert_eq!(*parts, [(20 + 24 + 12, one as u32), (25 + 24 + 12, two as u32)]);
    let found: Vec<_> = fold.changes.iter().map(|change| (change.at, change.len as usize)).collect();
    // The first goes on in the second part.
    let second = parts[1].0 + (two - len("right")) as Lsn;
    assert_eq!(found, [(parts[0].0 + ENTRY_HEADER_BYTES as Lsn, len("left")), (second, len("right"))]);
}

#[test]
fn changes_are_in_the_order_of_numbers_and_begin_with_the_newest_base() {
    let text = |text: &str| {
        let text = text.to_owned();
        let mut bytes = vec![0; codec::encoded_len(&text)];
        codec::encode(&text, &mut bytes);
        bytes
    };
    let (old, base, above) = (text("old"), text("base"), text("above"));
    let record = |lsn, kind, pid, seq, payload| TailRecord { lsn, kind, pid, seq, payload };
    let digests = [
        digest(
            &Texts,
            [record(10, Kind::Append, 2, 9, &above), record(20, Kind::Base, 5, 1, &base)].into_iter(),
        ),
        digest(
            &Texts,
            [record(30, Kind::Append, 2, 7, &old), record(40, Kind::Base, 2, 8, &base)].into_iter(),
        ),
        digest(&Texts, [record(50, Kind::Free, 5, 2, &[])].into_iter()),
    ];
    let fold = fold(&Texts, 3, None, 10, digests).unwrap_or_else(|nonsense| panic!("{}", nonsense.why));
    let found: Vec<_> = fold.changes.iter().map(|change| (change.pid, change.seq, change.lsn)).collect();
    assert_eq!(found, [(2, 8, 40), (2, 9, 10), (5, 2, 50)]);
    assert_eq!(fold.bound, 6);
}

#[test]
fn changes_of_many_pages_are_sorted_as_a_sort_of_all_sorts_them() {
    let change = |pid: usize, seq: u64, kind| TailChange {
        pid,
        seq,
        lsn: (pid as Lsn) * 100 + seq as Lsn,
        at: 0,
        len: 0,
        crc: 0,
        kind,
    };
    for (pages, of_each, spread) in [(1, 1, 1), (1, 40, 1), (3, 7, 1 << 40), (500, 3, 1), (500, 3, 977)] {
        // A permutation, so that lists and pages are mixed.
        let total = pages * of_each;
        let mut lists = vec![Vec::new(); 4];
        for at in (0..total).map(|at| at * 389 % total) {
            let (page, seq) = (at / of_each, (at % of_each) as u64);
            let kind = if (page + at) % 5 == 0 { EntryKind::Base } else { EntryKind::Append };
            lists[at % 4].push(change(page * spread, seq, kind));
        }
        let mut want: Vec<TailChange> = lists.concat();
        want.sort_by_key(|change| (change.pid, change.seq));
        let all = want.clone();
        want.retain(|kept| {
            !all.iter().any(|c| c.pid == kept.pid && c.seq > kept.seq && c.kind != EntryKind::Append)
        });
        assert_eq!(by_page(&lists, (pages - 1) * spread + 1), want, "{pages} pages");
    }
    assert_eq!(by_page(&[], 10), []);
    assert_eq!(by_page(&[Vec::new()], 0), []);
}
