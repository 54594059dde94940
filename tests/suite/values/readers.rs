//! Who reads a value while it is replaced gets the old one or the new one, whole.

use std::{
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tree::{Config, Db, IVec};

use super::{INLINE, SEGMENT, bytes, world};

const ROUNDS: u64 = 300;

fn open() -> Db {
    Config::new()
        .temporary(true)
        .inline_bytes_max(INLINE)
        .leaf_bytes_max(1024)
        .cache_capacity(8 << 20)
        .flush_every_ms(None)
        .page_cache(|builder| {
            builder
                .block_bytes(512)
                .log_segment_bytes(SEGMENT)
                .log_capacity(16 * SEGMENT as u64)
                .checkpoint_every_bytes(8 << 10)
                .store_segment_bytes(SEGMENT)
        })
        .open()
        .expect("a new store opens")
}

/// The value of one round; every round has another length.
fn value(round: u64) -> Vec<u8> {
    bytes(INLINE + 1 + (round as usize * 977) % (3 * SEGMENT), round)
}

fn is_whole(got: &[u8], rounds: u64) -> bool {
    (0..rounds).any(|round| got.len() == value(round).len() && got == value(round))
}

/// Whole values only, in whatever way they are read, though each is freed a moment later and the file is
/// cleaned and used again all the while.
#[test]
fn concurrent_readers_get_the_old_value_or_the_new_one() {
    let db = open();
    for key in ["a", "b", "c"] {
        db.insert(key, value(0)).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for style in 0..3 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let got: Vec<IVec> = match style {
                        0 => vec![db.get("b").unwrap().expect("it is always there")],
                        1 => {
                            let mut got = Vec::new();
                            db.get_reader("b").unwrap().expect("it is").read_to_end(&mut got).unwrap();
                            vec![got.into()]
                        }
                        _ => {
                            let got: Vec<IVec> = db.iter().values().collect::<Result<_, _>>().unwrap();
                            assert_eq!(got.len(), 3);
                            got
                        }
                    };
                    assert!(got.iter().all(|value| is_whole(value, ROUNDS)), "a value that nobody wrote");
                }
            });
        }
        for round in 1..ROUNDS {
            let key = ["a", "b", "c"][round as usize % 3];
            match round % 4 {
                0 => drop(db.insert(key, value(round)).unwrap()),
                1 => drop(db.put_from(key, value(round).len() as u64, &value(round)[..]).unwrap()),
                2 => drop(db.update_and_fetch(key, |_| Some(value(round))).unwrap()),
                _ => {
                    let mut batch = tree::Batch::default();
                    batch.insert("b", value(round));
                    batch.insert(key, value(round));
                    db.apply_batch(batch).unwrap();
                }
            }
            if round % 20 == 0 {
                db.checkpoint().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    db.recount().unwrap();
    db.close().unwrap();
}

/// Two threads swap one value: exactly one of two wins, and nothing of the loser's stays in the file.
#[test]
fn of_two_swaps_of_a_large_value_one_wins() {
    let db = open();
    db.insert("k", value(0)).unwrap();
    let wins: u64 = thread::scope(|scope| {
        let swap = |salt: u64| {
            let db = &db;
            scope.spawn(move || {
                let mut wins = 0;
                for round in 0..80 {
                    let old = db.get("k").unwrap();
                    let new = value(1 + salt * 80 + round);
                    wins += u64::from(db.compare_and_swap("k", old, Some(new)).unwrap().is_ok());
                }
                wins
            })
        };
        let both = [swap(0), swap(1)];
        both.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert!((80..=160).contains(&wins), "{wins} of 160");
    db.recount().unwrap();
    db.checkpoint().unwrap();
    let live = db.stats().pages_live_bytes();
    assert!(live < 5 * SEGMENT as u64, "{live} bytes alive, one value is there");
}

/// An iterator holds its leaf as it was; by the time it gets to a value that is another one, or none.
#[test]
fn an_iterator_reads_the_value_of_now_where_that_of_its_leaf_is_gone() {
    let db = world(1 << 30).open(1).unwrap();
    for (key, round) in ["a", "b", "c", "d"].into_iter().zip(0..) {
        db.insert(key, value(round)).unwrap();
    }
    let mut iter = db.iter();
    assert_eq!(&iter.next().unwrap().unwrap().0[..], b"a");
    db.insert("b", value(9)).unwrap();
    db.remove("c").unwrap();
    db.checkpoint().unwrap();
    for round in 20..40 {
        db.insert("x", value(round)).unwrap();
    }
    let (key, got) = iter.next().unwrap().unwrap();
    assert_eq!((&key[..], &got[..]), (&b"b"[..], &value(9)[..]));
    let (key, got) = iter.next().unwrap().unwrap();
    assert_eq!((&key[..], &got[..]), (&b"d"[..], &value(3)[..]));
}
