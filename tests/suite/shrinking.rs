//! Stores that lose most of what they held: the tree gets as small and as low as what is left needs, and
//! shows that in either direction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use pagecache::io::{FileId, Operation, Storage, sim::SimDisk};
use tests::{HookedStorage, small_tree, stepwise, within};
use tree::{Config, Db};

const HANG: Duration = Duration::from_secs(120);
const VALUE_BYTES: usize = 24;

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// An order in which neighbours do not follow each other: a bijection below a power of two.
fn scattered(number: u64, count: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9) & (count - 1)
}

/// Writers do here what a thread does behind them elsewhere.
fn open(config: Config, storage: Arc<dyn Storage>) -> Db {
    config
        .page_cache(|builder| stepwise(builder, storage))
        .open()
        .unwrap_or_else(|e| panic!("the store opens: {e}"))
}

fn filled(config: Config, count: u64) -> Db {
    let db = open(config, Arc::new(SimDisk::untraced()));
    for number in 0..count {
        let value = [number as u8; VALUE_BYTES];
        db.put(key(scattered(number, count)), value).unwrap_or_else(|e| panic!("a put: {e}"));
    }
    db
}

fn shape(db: &Db) -> Vec<u64> {
    db.shape().unwrap_or_else(|e| panic!("every page fits the others: {e}"))
}

/// All that there is, seen from either end.
fn check(db: &Db, left: &[u64], what: &str) {
    let number = |entry: tree::Result<(tree::IVec, tree::IVec)>| {
        let (key, value) = entry.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(value.len(), VALUE_BYTES, "{what}");
        u64::from_be_bytes(key[..].try_into().expect("keys have eight bytes"))
    };
    assert!(db.iter().map(number).eq(left.iter().copied()), "{what}: from the front");
    assert!(db.iter().rev().map(number).eq(left.iter().rev().copied()), "{what}: from behind");
    assert_eq!(db.len(), left.len(), "{what}");
}

/// Which keys stay, of so many.
type Stays = fn(u64, u64) -> bool;

const CASES: [(&str, Stays); 7] = [
    ("every twentieth", |number, _| scattered(number, 1 << 30).is_multiple_of(20)),
    ("every hundredth", |number, _| scattered(number, 1 << 30).is_multiple_of(100)),
    ("a range in the middle", |number, count| (count / 2..count / 2 + count / 20).contains(&number)),
    ("the left end", |number, count| number < count / 20),
    ("the right end", |number, count| number >= count - count / 20),
    ("both ends", |number, count| number == 0 || number == count - 1),
    ("nothing", |_, _| false),
];

/// Pages of a level that so many on the level below, or bytes in the leaves, may take: a page that holds an eighth
/// of what it may is joined unless a neighbour is full, so two neighbours hold three eighths and more.
fn pages_max(bytes: u64, page_bytes: u64) -> u64 {
    4 + 4 * bytes / page_bytes
}

fn shrinks(config: &Config, count: u64, leaf_bytes: u64, name: &str, stays: Stays) {
    let db = filled(config.clone(), count);
    let before = shape(&db);
    let mut left: Vec<u64> = (0..count).filter(|number| stays(*number, count)).collect();
    left.sort_unstable();
    for number in (0..count).map(|number| scattered(number, count)).filter(|number| !stays(*number, count)) {
        assert!(db.delete(key(number)).unwrap().is_some(), "{name}: {number} was there");
    }
    check(&db, &left, name);
    let after = shape(&db);
    let bytes = left.len() as u64 * (8 + VALUE_BYTES as u64 + 4);
    assert!(after[0] <= pages_max(bytes, leaf_bytes), "{name}: {before:?} pages have become {after:?}");
    for (level, pair) in after.windows(2).enumerate() {
        let most = pages_max(pair[0] * 16, leaf_bytes);
        assert!(pair[1] <= most, "{name}: level {} of {after:?} may have {most}", level + 1);
    }
    assert!(after.len() < before.len(), "{name}: {before:?} pages have become {after:?}");
}

#[test]
fn a_large_tree_shrinks_with_what_is_in_it() {
    for (name, stays) in [CASES[0], CASES[2]] {
        within(HANG, move || shrinks(&Config::new(), 1 << 17, 8 << 10, name, stays));
    }
}

#[test]
fn a_tree_of_many_levels_shrinks_from_either_end_and_from_within() {
    for (name, stays) in CASES.into_iter().skip(1) {
        within(HANG, move || shrinks(&small_tree(Config::new()), 1 << 14, 512, name, stays));
    }
}

/// The last leaf was emptied as the count was about to read it, and joined to the one before it, whose keys had
/// been counted already: all of them were counted again.
#[test]
fn a_count_takes_no_key_twice_where_leaves_are_joined_meanwhile() {
    within(HANG, || {
        const KEYS: u64 = 400;
        let storage = Arc::new(HookedStorage::new(Arc::new(SimDisk::untraced())));
        let reopened = || open(small_tree(Config::new()), storage.clone());
        let db = reopened();
        (0..KEYS).for_each(|number| assert!(db.put(key(number), [1; VALUE_BYTES]).is_ok()));
        db.close().unwrap();
        let reads = Arc::new(AtomicU64::new(0));
        let count_reads = reads.clone();
        let db = reopened();
        storage.set_hook(Some(Arc::new(move |file, operation| {
            let is_read = file == FileId::Pages && operation == Operation::Read;
            count_reads.fetch_add(u64::from(is_read), Ordering::Relaxed);
        })));
        assert_eq!(db.count().unwrap() as u64, KEYS);
        storage.set_hook(None);
        db.close().unwrap();

        let db = reopened();
        let meanwhile = {
            let db = db.clone();
            move || {
                let leaves = shape(&db)[0];
                let doomed = (0..KEYS).rev().take_while(|_| shape(&db)[0] == leaves);
                doomed.for_each(|number| assert!(db.delete(key(number)).unwrap().is_some()));
            }
        };
        let last = reads.swap(0, Ordering::Relaxed);
        let itself = Arc::downgrade(&storage);
        storage.set_hook(Some(Arc::new(move |file, operation| {
            let is_read = file == FileId::Pages && operation == Operation::Read;
            if is_read && reads.fetch_add(1, Ordering::Relaxed) + 1 == last {
                itself.upgrade().expect("the store is open").set_hook(None);
                thread::spawn(meanwhile.clone()).join().expect("what happens meanwhile succeeds");
            }
        })));
        let (counted, left) = (db.count().unwrap() as u64, db.iter().count() as u64);
        assert!(left < KEYS, "nothing happened while the last leaf was read");
        assert_eq!(
            counted, left,
            "the keys of the last leaf but one were counted before, and no other is left"
        );
    });
}
