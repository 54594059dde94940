//! The budget: what is in memory beside what may be, who has it, and what a scan leaves of it.

use std::{env, fs, process::Command, sync::Arc, time::Duration};

use pagecache::io::{
    CountingStorage, FileId, Operation,
    sim::{Rng, SimClock, SimDisk, SimSpawner},
};
use tests::{LEAF_BYTES, seeds, small_tree, within};
use tree::{Config, Db, IVec, Iter};

const HANG: Duration = Duration::from_secs(300);

fn key(number: u64) -> Vec<u8> {
    format!("key {number:07}").into_bytes()
}

/// A small store on a disk that counts, whose background never steps.
fn counted(cache: u64, leaf_bytes: usize) -> (Arc<CountingStorage>, Db) {
    let storage = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
    let clock = Arc::new(SimClock::new());
    let spawner = Arc::new(SimSpawner::new(clock.clone()));
    let config = small_tree(Config::new().cache_capacity_unchecked(cache)).leaf_bytes_max(leaf_bytes);
    let db = {
        let storage = storage.clone();
        config.page_cache(|builder| builder.storage(storage).spawner(spawner).clock(clock)).open()
    };
    (storage, db.unwrap_or_else(|e| panic!("the store opens: {e}")))
}

/// A scan once pushed everything out that it did not read last.
#[test]
fn a_full_scan_leaves_the_hot_set_in_memory() {
    within(HANG, || {
        const RECORDS: u64 = 80_000;
        const HOT: u64 = 2_000;
        // Leaves that are many to an inner node: a scan comes back to these, so they are no part of it.
        let (storage, db) = counted(4 << 20, 2 << 10);
        for number in 0..RECORDS {
            db.put(key(number), [7; 100]).expect("a put");
        }
        db.checkpoint().expect("a checkpoint");
        let reads = || storage.snapshot().tally(FileId::Pages, Operation::Read).calls;
        let read_hot = || {
            let before = reads();
            (0..HOT).for_each(|number| assert!(db.get(key(number)).expect("a get").is_some()));
            reads() - before
        };
        let cold = read_hot();
        assert!(cold > 80, "{cold} leaves are no set worth keeping");
        // Whoever comes back to a page makes it hot.
        read_hot();
        let before = reads();
        assert_eq!(db.iter().count() as u64, RECORDS);
        let scanned = reads() - before;
        assert!(scanned > 10 * cold, "the scan read {scanned} pages: most were in memory");
        let again = read_hot();
        assert!(again * 5 < cold, "{again} of {cold} hot leaves had to be read again after the scan");
    });
}

#[test]
fn pages_stay_within_a_tiny_budget_whatever_is_done() {
    for (seed, budget) in seeds(6).zip([256u64 << 10, 1 << 20, 8 << 20].into_iter().cycle()) {
        within(HANG, move || {
            let (_, db) = counted(budget, LEAF_BYTES);
            let mut rng = Rng::new(seed);
            let mut kept: Vec<(Iter, Option<(IVec, IVec)>)> = Vec::new();
            for step in 0..15_000 {
                let number = rng.below(40_000);
                match rng.below(20) {
                    0..14 => drop(db.put(key(number), vec![step as u8; rng.index(400)]).expect("a put")),
                    14..16 => drop(db.remove(key(number)).expect("a removal")),
                    16..18 => drop(db.get(key(number)).expect("a get")),
                    18 => {
                        assert!(db.range(key(number)..).take(50).all(|entry| entry.is_ok()), "a range")
                    }
                    _ => {
                        let mut iter = db.range(key(number)..);
                        let first = iter.next().transpose().expect("an entry");
                        kept.truncate(7);
                        kept.insert(0, (iter, first));
                    }
                }
                let pages = db.stats().resident_bytes();
                assert!(
                    pages <= budget,
                    "seed {seed}, step {step}: {pages} bytes of pages, {budget} allowed"
                );
            }
        });
    }
}

/// Part-filled slabs and free runs once came on top of the budget, as much again as a half of it.
#[test]
fn all_owners_together_stay_within_the_budget_under_mixed_load() {
    const BUDGET: u64 = 48 << 20;
    within(HANG, || {
        let db = Config::new().temporary(true).cache_capacity(BUDGET).open().expect("the store opens");
        let mut rng = Rng::new(1);
        // Many short ones, few long ones: leaves of every size, and none of the same for long.
        let value = |rng: &mut Rng| {
            let bytes = 40 + rng.index(1960).min(rng.index(1960)).min(rng.index(1960));
            vec![bytes as u8; bytes]
        };
        let (mut bytes, mut records, mut step) = (0, 0, 0u64);
        let mut look = || {
            step += 1;
            if step.is_multiple_of(64) {
                let stats = db.stats();
                // What is under way when a thread has to wait for a processor comes on top.
                let (owners, most) = (stats.memory_bytes(), BUDGET + BUDGET / 4);
                let named: Vec<_> = stats.memory_owners().collect();
                assert!(owners <= most, "step {step}: {owners} of {most} bytes: {named:?}");
            }
        };
        while bytes < 6 * BUDGET {
            let number = if rng.below(8) == 0 { rng.below(records + 1) } else { records };
            records = records.max(number + 1);
            let value = value(&mut rng);
            bytes += value.len() as u64;
            db.put(key(number), value).expect("a put");
            look();
        }
        for _ in 0..records / 6 {
            match rng.below(10) {
                0..5 => drop(db.get(key(rng.below(records))).expect("a get")),
                5..9 => drop(db.put(key(rng.below(records)), value(&mut rng)).expect("a put")),
                _ => assert!(db.range(key(rng.below(records))..).take(100).all(|entry| entry.is_ok())),
            }
            look();
        }
    });
}

/// Set for the process that measures itself.
const CHILD: &str = "MEMORY_CHILD";

/// What stats() names is what the process has: a process of its own, because others' memory cannot be told
/// from the store's.
#[test]
fn the_owners_of_memory_add_up_to_the_process() {
    in_a_process_of_its_own("the_owners_of_memory_add_up_to_the_process", measure);
}

/// The log's buffers are eight mebibytes of addresses; what nobody writes into takes no memory.
#[test]
fn a_store_that_is_written_to_a_little_takes_a_little_memory() {
    in_a_process_of_its_own("a_store_that_is_written_to_a_little_takes_a_little_memory", || {
        let before = anonymous_bytes();
        let db = Config::new().temporary(true).open().expect("the store opens");
        (0..100).for_each(|number| assert!(db.put(key(number), [7; 100]).expect("a put") > 0));
        db.flush().expect("a flush");
        let process = anonymous_bytes() - before;
        println!("owners {:?}, process {process}", db.stats().memory_owners().collect::<Vec<_>>());
        assert!(process < 4 << 20, "{process} bytes for a hundred records");
    });
}

/// Runs `measure` in a process that runs nothing but the test of that name.
fn in_a_process_of_its_own(test: &str, measure: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return measure();
    }
    let child = Command::new(env::current_exe().expect("a path to this program"))
        .args(["--exact", &format!("memory::{test}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("this program starts");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("owners "), "the child measured nothing: {said}");
}

fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("what the system says of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a figure");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

fn measure() {
    let before = anonymous_bytes();
    let db = Config::new().temporary(true).cache_capacity(256 << 20).open().expect("the store opens");
    let mut rng = Rng::new(1);
    for number in 0..120_000 {
        let bytes = 200 + rng.index(1200);
        db.put(key(number * 7 % 120_000), vec![number as u8; bytes]).expect("a put");
    }
    let iters: Vec<_> =
        (0..20).map(|at| db.range(key(at * 5000)..)).map(|mut iter| (iter.next(), iter)).collect();
    let owners = db.stats().memory_bytes();
    let process = anonymous_bytes() - before;
    let named: Vec<_> = db.stats().memory_owners().collect();
    println!("owners {owners}, process {process}, {named:?}");
    assert!(owners > 90 << 20, "too little to measure: {owners}");
    assert!(owners.abs_diff(process) < process / 16, "{owners} bytes named of {process}: {named:?}");
    drop(iters);
}
