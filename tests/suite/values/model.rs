//! Random operations on values of every size around every threshold, against a `BTreeMap`.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Seek, SeekFrom},
    time::Duration,
};

use pagecache::io::sim::Rng;
use tree::{Batch, Db, Error, IVec};

use super::{INLINE, SEGMENT, bytes, world};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(rng: &mut Rng) -> Vec<u8> {
    format!("key {:03}", rng.below(120)).into_bytes()
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let around = |rng: &mut Rng, len: usize| (len + rng.index(5)).saturating_sub(2);
    let len = match rng.below(8) {
        0..3 => rng.index(60),
        3 => around(rng, INLINE),
        4 => around(rng, 512 - 24),
        5 => around(rng, SEGMENT - 24),
        6 => rng.index(3 * SEGMENT),
        _ => INLINE + rng.index(2000),
    };
    bytes(len, rng.below(250))
}

/// All the ways to look at one key.
fn check_key(db: &Db, model: &Model, k: &[u8], limit: usize, rng: &mut Rng, place: &str) {
    let want = model.get(k);
    let len = want.map(|value| value.len() as u64);
    assert_eq!(db.value_len(k).unwrap(), len, "{place}: length");
    assert_eq!(db.contains_key(k).unwrap(), want.is_some(), "{place}");
    match db.get(k) {
        Err(Error::TooLarge { remedy, .. }) => {
            assert!(want.is_some_and(|value| value.len() > limit), "{place}: too large");
            assert!(remedy.contains("get_reader"), "{remedy}");
        }
        got => assert_eq!(got.unwrap().as_deref(), want.map(Vec::as_slice), "{place}: get"),
    }
    let mut out = vec![0; rng.index(SEGMENT)];
    assert_eq!(db.get_into(k, &mut out).unwrap(), len, "{place}: into");
    let Some(want) = want else { return };
    let shared = out.len().min(want.len());
    assert_eq!(out[..shared], want[..shared], "{place}: into");
    let mut reader = db.get_reader(k).unwrap().expect("it has a length");
    let from = rng.index(want.len() + 1);
    reader.seek(SeekFrom::Start(from as u64)).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, want[from..], "{place}: reader from {from}");
}

fn run(seed: u64, steps: usize, cache: u64) {
    let mut rng = Rng::new(seed);
    let world = world(cache);
    // What is read whole: a quarter of the memory, or what fits a record of the log.
    let limit = usize::try_from(cache / 4).unwrap().max(SEGMENT - 4096);
    let mut model = Model::new();
    let mut db = world.open(seed).unwrap();
    for step in 0..steps {
        let place = format!("seed {seed}, step {step}");
        let (k, v) = (key(&mut rng), value(&mut rng));
        let old = model.get(&k).cloned();
        let fits = old.as_ref().is_none_or(|old| old.len() <= limit);
        let told = |got: Option<IVec>| assert_eq!(got.as_deref(), old.as_deref(), "{place}: told");
        match rng.below(100) {
            0..20 if fits => {
                told(db.insert(&k, &v[..]).unwrap());
                model.insert(k, v);
            }
            20..30 => {
                db.put(&k, &v).unwrap();
                model.insert(k, v);
            }
            30..40 => {
                db.put_from(&k, v.len() as u64, Cursor::new(&v)).unwrap();
                model.insert(k, v);
            }
            40..50 if fits => {
                told(db.remove(&k).unwrap());
                model.remove(&k);
            }
            50..55 => {
                assert_eq!(db.delete(&k).unwrap().is_some(), model.remove(&k).is_some(), "{place}: delete");
            }
            55..60 if fits => {
                let other = [&v[..], b"?"].concat();
                let swapped = db.compare_and_swap(&k, Some(&other), None::<IVec>).unwrap();
                assert!(swapped.is_err(), "{place}: a swap of another value");
                let new = rng.chance(3, 4).then_some(v);
                db.compare_and_swap(&k, old.as_ref(), new.as_deref()).unwrap().expect("it is that value");
                match new {
                    Some(new) => drop(model.insert(k, new)),
                    None => drop(model.remove(&k)),
                }
            }
            60..65 if fits && v.len() <= limit => {
                let longer = |old: Option<&[u8]>| Some([old.unwrap_or_default(), b"!"].concat());
                let new = db.update_and_fetch(&k, longer).unwrap().expect("it has a value");
                model.insert(k, new.to_vec());
            }
            65..72 => {
                let mut batch = Batch::default();
                for _ in 0..rng.index(12) {
                    let (k, v) = (key(&mut rng), value(&mut rng));
                    if rng.chance(1, 3) {
                        batch.remove(&k[..]);
                        model.remove(&k);
                    } else {
                        batch.insert(&k[..], &v[..]);
                        model.insert(k, v);
                    }
                }
                db.apply_batch(batch).unwrap();
            }
            72..80 => check_key(&db, &model, &k, limit, &mut rng, &place),
            80..84 => {
                let keys: Vec<IVec> = db.iter().keys().collect::<Result<_, _>>().unwrap();
                assert!(keys.iter().map(|k| k.to_vec()).eq(model.keys().cloned()), "{place}: keys");
                assert_eq!(db.len(), model.len());
            }
            84..88 if model.values().all(|value| value.len() <= limit) => {
                let all: Model =
                    db.iter().map(|e| e.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
                assert_eq!(all, model, "{place}: scan");
                let popped = if rng.chance(1, 2) {
                    (db.pop_min(), model.pop_first())
                } else {
                    (db.pop_max(), model.pop_last())
                };
                let got = popped.0.unwrap().map(|(k, v)| (k.to_vec(), v.to_vec()));
                assert_eq!(got, popped.1, "{place}: pop");
            }
            88..91 => world.pass(Duration::from_millis(600), 3, &mut rng),
            91 => drop(db.flush().unwrap()),
            92..94 => db.checkpoint().unwrap(),
            94 => db.compact().unwrap(),
            95..97 => db.recount().unwrap(),
            97 => {
                if rng.chance(1, 2) {
                    db.close().unwrap();
                } else {
                    drop(db);
                }
                db = world.open(seed + step as u64 + 1).unwrap();
            }
            _ => {}
        }
    }
    db.recount().unwrap();
    for k in model.keys() {
        check_key(&db, &model, k, limit, &mut rng, &format!("seed {seed}: at the end"));
    }
    // Nothing of what was overwritten or removed is alive.
    let bytes: usize = model.values().map(Vec::len).sum();
    let live = db.stats().pages_live_bytes();
    assert!(live as usize <= bytes + bytes / 10 + 20 * SEGMENT, "seed {seed}: {live} bytes alive of {bytes}");
}

#[test]
fn values_of_all_sizes_agree_with_a_map() {
    for seed in tests::seeds(12) {
        run(seed, 1500, 1 << 30);
    }
}

#[test]
fn values_beyond_the_memory_agree_with_a_map() {
    for seed in tests::seeds(8) {
        run(seed, 1500, 32 << 10);
    }
}
