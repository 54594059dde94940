//! Large keys, values and batches: what fits is kept, what does not is refused before anything happens.

use tree::{Batch, Config, Error};

/// Bytes of a value that just fits its leaf: a quarter of a record of the log.
const LARGE: usize = 500_000;

#[test]
fn values_up_to_the_limit_pile_up_in_one_leaf_and_every_split_fits_a_record() {
    let db = open();
    let value = |n: u8, len: usize| vec![n; len];
    let limit = LARGE;
    for round in 0..3 {
        for n in 0..12_u8 {
            db.insert([b'k', n], value(n + round, limit - 2 - usize::from(n))).unwrap();
        }
    }
    let mut batch = Batch::default();
    for n in 0..4_u8 {
        batch.insert(&[b'a', n], value(n, limit / 3));
    }
    db.apply_batch(batch).unwrap();
    assert_eq!(db.len(), 16);
    for n in 0..12_u8 {
        let got = db.get([b'k', n]).unwrap().unwrap();
        assert!(got == value(n + 2, limit - 2 - usize::from(n)), "value {n}");
    }
    let pages = db.stats().pages();
    assert!(pages >= 12, "{pages} pages: large values did not part");
}

/// A store that keeps values in their leaves as long as it can.
fn open() -> tree::Db {
    Config::new().temporary(true).inline_bytes_max(usize::MAX).open().unwrap()
}

#[test]
fn what_is_too_large_is_refused_by_name_and_nothing_has_happened() {
    let db = open();
    let gib = vec![0; (1 << 30) + 1];
    assert!(matches!(db.put("k", &gib), Err(Error::TooLarge { what: "value", .. })));
    db.insert("k", vec![0; LARGE]).unwrap();
    let mut batch = Batch::default();
    for n in 0..=255_u8 {
        batch.insert(&[n], vec![0; LARGE]);
    }
    let refused = db.apply_batch(batch);
    assert!(matches!(refused, Err(Error::TooLarge { what: "batch", .. })), "{refused:?}");
    assert_eq!(db.len(), 1);
    let mut batch = Batch::default();
    batch.insert(vec![7; 65_536], "v");
    let refusals = [
        ("insert", db.insert(vec![7; 65_536], "v").map(drop)),
        ("remove", db.remove(vec![7; 70_000]).map(drop)),
        ("put_from", db.put_from(vec![7; 65_536], 1 << 20, &vec![0; 1 << 20][..]).map(drop)),
        ("batch", db.apply_batch(batch)),
    ];
    for (call, refused) in refusals {
        assert!(
            matches!(refused, Err(Error::TooLarge { what: "key", limit: 65_535, .. })),
            "{call}: {refused:?}"
        );
    }
    assert_eq!(db.len(), 1);
    db.insert(vec![7; 65_535], "v").unwrap();
}

/// A value that no record could hold was refused.
#[test]
fn a_value_too_large_for_its_leaf_lives_apart_whatever_is_set() {
    let db = open();
    db.insert("k", vec![7; 3 << 20]).unwrap();
    assert_eq!(db.get("k").unwrap().map(|value| value.len()), Some(3 << 20));
    assert!(db.stats().log_tail_bytes() < 1 << 20, "it went through the log");
}

/// A batch of a thousand records into one leaf made a leaf of many times its size, which was cut from
/// the front: every cut logged all that was left, sixty times the batch. It is cut from the end now.
#[test]
fn a_batch_into_one_leaf_logs_a_few_times_its_size() {
    let db = Config::new().temporary(true).open().unwrap();
    let mut written = 0;
    for round in 0..8_u32 {
        let mut batch = Batch::default();
        for n in 0..1000_u32 {
            let key = (round * 1000 + n).to_be_bytes();
            batch.insert(&key, vec![round as u8; 500]);
            written += 504;
        }
        db.apply_batch(batch).unwrap();
    }
    let logged = db.stats().log_tail_bytes();
    assert!(logged < 5 * written, "{logged} bytes of log for {written}");
    assert_eq!(db.len(), 8000);
}
