//! Scans beside writers: a key that is there all the time comes exactly once and in order, a key that
//! is never there does not come.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use pagecache::io::sim::Rng;
use tests::{Budget, seeds, small_tree, within};
use tree::{Config, Db, Iter};

const HANG: Duration = Duration::from_secs(120);
/// Of each hundred keys a few stay, a few never come, the others come and go.
const KEYS: u64 = 600;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lot {
    Stays,
    NeverComes,
    ComesAndGoes,
}

fn lot(number: u64) -> Lot {
    match number % 10 {
        0 => Lot::Stays,
        1 => Lot::NeverComes,
        // Whole stretches come and go, so that leaves empty but for what stays.
        _ if number % 100 < 10 => Lot::Stays,
        _ => Lot::ComesAndGoes,
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:05}").into_bytes()
}

fn number(key: &[u8]) -> u64 {
    std::str::from_utf8(key).unwrap().parse().unwrap()
}

/// Writers sweep over stretches that no key stays in, which are emptied whole, and change single keys.
fn write(db: &Db, rng: &mut Rng, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let first = rng.below(KEYS);
        let count = if rng.chance(1, 10) { 120 } else { 4 };
        let comes = rng.chance(1, 2);
        for number in (first..KEYS.min(first + count)).filter(|&number| lot(number) == Lot::ComesAndGoes) {
            if comes {
                db.insert(key(number), vec![7; 50]).unwrap();
            } else {
                db.remove(key(number)).unwrap();
            }
        }
    }
}

/// Takes the rest of an iterator from the front, from the back, or from either end in turns.
fn drain(iter: &mut Iter, style: u64, rng: &mut Rng, place: &str) -> Vec<u64> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    loop {
        let from_front = match style {
            0 => true,
            1 => false,
            _ => rng.chance(1, 2),
        };
        let next = if from_front { iter.next() } else { iter.next_back() };
        let Some(entry) = next else { break };
        let number = number(&entry.unwrap_or_else(|e| panic!("{place}: {e}")).0);
        if from_front { front.push(number) } else { back.push(number) }
    }
    front.extend(back.into_iter().rev());
    front
}

fn check(got: &[u64], low: u64, high: u64, place: &str) {
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{place}: out of order or twice: {got:?}");
    assert!(
        got.iter().all(|number| (low..high).contains(number)),
        "{place}: outside of {low}..{high}: {got:?}"
    );
    let came = got.iter().find(|&&number| lot(number) == Lot::NeverComes);
    assert_eq!(came, None, "{place}: a key that nobody wrote");
    let stay = (low..high).filter(|&number| lot(number) == Lot::Stays);
    assert!(
        got.iter().copied().filter(|&number| lot(number) == Lot::Stays).eq(stay),
        "{place}: keys that stay are missing between {low} and {high}: {got:?}"
    );
}

fn run(seed: u64, cache: u64, scans: u64) {
    let config = Config::new().temporary(true).cache_capacity_unchecked(cache).flush_every_ms(Some(2));
    let db = small_tree(config).open().unwrap();
    for number in (0..KEYS).filter(|&number| lot(number) == Lot::Stays) {
        db.insert(key(number), vec![1; 30]).unwrap();
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (db, stop) = (&db, &stop);
        for writer in 0..3 {
            scope.spawn(move || write(db, &mut Rng::new(seed * 8 + writer), stop));
        }
        let scanner = scope.spawn(move || {
            let mut rng = Rng::new(seed * 8 + 7);
            for scan in 0..scans {
                let place = format!("seed {seed}, cache {cache}, scan {scan}");
                let whole = rng.chance(1, 2);
                let (low, high) =
                    if whole { (0, KEYS) } else { (rng.below(KEYS / 2), KEYS / 2 + rng.below(KEYS / 2)) };
                let mut iter = if whole { db.iter() } else { db.range(key(low)..key(high)) };
                check(&drain(&mut iter, rng.below(3), &mut rng, &place), low, high, &place);
                let (below, above) = (db.get_lt(key(high)).unwrap(), db.get_gt(key(low)).unwrap());
                let stays = |number: u64| lot(number) == Lot::Stays;
                let least = (low + 1..KEYS).find(|&number| stays(number)).unwrap_or(KEYS);
                let greatest = (0..high).rev().find(|&number| stays(number)).unwrap_or(0);
                assert!(
                    below.is_some_and(|(found, _)| number(&found) >= greatest && number(&found) < high),
                    "{place}: get_lt"
                );
                assert!(
                    above.is_none_or(|(found, _)| number(&found) <= least && number(&found) > low),
                    "{place}: get_gt"
                );
            }
        });
        let end = scanner.join();
        stop.store(true, Ordering::Relaxed);
        end.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

const CACHES: [u64; 2] = [1 << 30, 16 << 10];

#[test]
fn scans_beside_writers_show_what_stays_once_and_in_order_from_either_end() {
    for seed in seeds(4) {
        within(HANG, move || run(seed, CACHES[(seed % 2) as usize], 120));
    }
}

#[test]
#[ignore = "a long proof"]
fn scans_beside_writers_show_what_stays_for_long() {
    let budget = Budget::start();
    for turn in 1000.. {
        let seed = seeds(1).next().filter(|&named| named > 0).unwrap_or(turn);
        within(HANG, move || run(seed, CACHES[(seed % 2) as usize], 400));
        if !budget.lasts() {
            break;
        }
    }
}
