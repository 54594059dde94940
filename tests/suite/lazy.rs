//! The page table is read as it is asked for: what an open leaves unread is neither lost nor believed.

use std::sync::Arc;

use pagecache::{
    ConfigBuilder, Error, PageGet, PageId, PagePtr,
    io::{
        CountingStorage, FileId, Operation, Storage,
        sim::{Chooser, SimDisk},
    },
    pin,
};
use tests::{stepwise, strings::Pages};

const BLOCK_BYTES: usize = 512;
const STORE_SEGMENT_BYTES: usize = 16 << 10;
/// Pages that a map page covers.
const SPAN: usize = 256;

fn open(disk: &Arc<SimDisk>) -> Pages {
    open_on(disk.clone(), 4 << 20)
}

fn open_on(storage: Arc<dyn Storage>, log_capacity: u64) -> Pages {
    let config = stepwise(ConfigBuilder::new(), storage)
        .salt_seed(1)
        .block_bytes(BLOCK_BYTES)
        .log_segment_bytes(16 << 10)
        .log_capacity(log_capacity)
        .checkpoint_every_bytes(log_capacity / 2)
        .store_segment_bytes(STORE_SEGMENT_BYTES)
        .build();
    Pages::start(config).unwrap_or_else(|e| panic!("the store opens: {e}"))
}

/// A store with this many pages, each of which says its number.
fn filled(disk: &Arc<SimDisk>, count: usize) -> Pages {
    let pages = open(disk);
    fill(&pages, count);
    pages
}

fn fill(pages: &Pages, count: usize) {
    for pid in 0..count {
        let guard = pin();
        assert_eq!(pages.allocate(&guard).unwrap(), pid);
        pages.replace(pid, PagePtr::allocated(), format!("{pid}."), &guard).unwrap();
    }
}

fn append(pages: &Pages, pid: PageId, text: &str) {
    let guard = pin();
    let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
    pages.link(pid, key, text.to_owned(), &guard).unwrap();
}

fn free(pages: &Pages, pid: PageId) {
    let guard = pin();
    let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
    pages.free(pid, key, &guard).unwrap();
}

/// What the page says, `None` if it is free.
fn text(pages: &Pages, pid: PageId) -> Result<Option<String>, String> {
    let guard = pin();
    match pages.get(pid, &guard) {
        Ok(PageGet::Materialized(text, _)) => Ok(Some(text.clone())),
        Ok(PageGet::Free(_)) => Ok(None),
        Ok(_) => Err("it passes for one that never was".to_owned()),
        Err(error @ Error::Corruption { .. }) => Err(error.to_string()),
        Err(error) => panic!("page {pid}: {error}"),
    }
}

/// Where the map page of that number lies.
fn map_page_at(disk: &SimDisk, number: u8) -> u64 {
    let bytes = disk.contents(FileId::Pages).expect("the file is there");
    let mut found = None;
    for (segment, frames) in bytes[2 * BLOCK_BYTES..].chunks(STORE_SEGMENT_BYTES).enumerate() {
        let mut at = 0;
        while at + 24 <= frames.len() {
            let len = u32::from_le_bytes(frames[at + 4..at + 8].try_into().expect("four bytes"));
            match (frames[at + 14], len) {
                (0, _) | (_, 0) => at = (at + 1).next_multiple_of(BLOCK_BYTES),
                (kind, len) => {
                    if kind == 3 && frames[at + 8] == number {
                        found = Some(2 * BLOCK_BYTES + segment * STORE_SEGMENT_BYTES + at);
                    }
                    at += 24 + len as usize;
                }
            }
        }
    }
    found.expect("a closed store has the map page") as u64
}

#[test]
fn a_damaged_map_page_takes_its_own_pages_and_no_others() {
    let disk = Arc::new(SimDisk::untraced());
    filled(&disk, 3 * SPAN + 10).close().unwrap();
    let at = map_page_at(&disk, 1) + 40;
    let byte = disk.contents(FileId::Pages).expect("the file is there")[at as usize];
    disk.damage(FileId::Pages, at, &[byte ^ 4]).unwrap();
    for open_again in 0..3 {
        let pages = open(&disk);
        for pid in 0..3 * SPAN + 10 {
            let found = text(&pages, pid);
            if (SPAN..2 * SPAN).contains(&pid) {
                let error = found.expect_err("its entry is damaged");
                assert!(error.contains("pages") && error.contains("byte"), "{error}");
            } else {
                let want =
                    if pid == 0 { "0.".to_owned() + &"x".repeat(open_again) } else { format!("{pid}.") };
                assert_eq!(found, Ok(Some(want)), "{pid}");
            }
        }
        // The store goes on, and what is damaged stays where it is.
        append(&pages, 0, "x");
        let guard = pin();
        let new = pages.allocate(&guard).unwrap();
        assert!(new >= 3 * SPAN + 10, "{new}");
        pages.checkpoint().unwrap();
        pages.close().unwrap();
    }
}

/// Ids that were free when a store was closed are in no list after it opens: whoever allocates finds them
/// all the same, all of them, and none that is in use.
#[test]
fn free_ids_in_parts_that_were_not_read_are_found_again() {
    let disk = Arc::new(SimDisk::untraced());
    let pages = filled(&disk, 5 * SPAN);
    let freed: Vec<PageId> = (0..5 * SPAN).filter(|pid| pid % 7 == 3 && pid / SPAN != 2).collect();
    freed.iter().for_each(|&pid| free(&pages, pid));
    pages.close().unwrap();
    for round in 0..2 {
        let pages = open(&disk);
        assert_eq!(pages.stats().free_pages, freed.len(), "round {round}");
        let guard = pin();
        let mut found: Vec<PageId> = freed.iter().map(|_| pages.allocate(&guard).unwrap()).collect();
        assert_eq!(pages.allocate(&guard).unwrap(), 5 * SPAN, "round {round}: nothing is left");
        found.sort_unstable();
        assert_eq!(found, freed, "round {round}");
        // Nothing was written to them, so they are free again.
        drop(pages);
    }
}

/// Changes in the tail of pages that nobody asks for outlive one crash after another, and are written at
/// a checkpoint; so do frees and new pages.
#[test]
fn what_the_tail_says_of_pages_that_nobody_asks_for_is_kept() {
    let disk = Arc::new(SimDisk::new());
    let pages = filled(&disk, 4 * SPAN);
    pages.checkpoint().unwrap();
    (0..4 * SPAN).step_by(5).for_each(|pid| append(&pages, pid, "tail"));
    (1..4 * SPAN).step_by(50).filter(|pid| pid % 5 != 0).for_each(|pid| free(&pages, pid));
    let guard = pin();
    let new = pages.allocate(&guard).unwrap();
    pages.replace(new, PagePtr::allocated(), "new".to_owned(), &guard).unwrap();
    drop(guard);
    pages.flush().unwrap();
    let check = |pages: &Pages, when: &str| {
        for pid in 0..4 * SPAN {
            let want = match pid {
                _ if pid % 5 == 0 => Some(format!("{pid}.tail")),
                _ if pid % 50 == 1 => None,
                _ => Some(format!("{pid}.")),
            };
            assert_eq!(text(pages, pid), Ok(want), "{when}: page {pid}");
        }
        assert_eq!(text(pages, new), Ok(Some("new".to_owned())), "{when}");
    };
    let mut last = Arc::new(disk.crash(&mut Chooser::none()));
    std::mem::forget(pages);
    for touched in 0..3 {
        let pages = open(&last);
        // One map page is read, changed and lost again; its tail is not.
        assert_eq!(text(&pages, touched * SPAN + 2), Ok(Some(format!("{}.", touched * SPAN + 2))));
        let after = Arc::new(last.crash(&mut Chooser::none()));
        std::mem::forget(pages);
        last = after;
    }
    let seen = Arc::new(last.crash(&mut Chooser::none()));
    let reader = open(&seen);
    check(&reader, "replayed");
    std::mem::forget(reader);
    let pages = open(&last);
    pages.checkpoint().unwrap();
    let after = Arc::new(last.crash(&mut Chooser::none()));
    std::mem::forget(pages);
    let pages = open(&after);
    assert!(pages.stats().log_tail_bytes < 32 << 10, "{} bytes of tail", pages.stats().log_tail_bytes);
    check(&pages, "written by a checkpoint");
    pages.recount().unwrap();
    pages.close().unwrap();
    check(&open(&after), "closed");
}

/// New ids in the map page in which the table ended at open: it once was folded before it had been read.
#[test]
fn new_pages_beside_old_ones_that_nobody_asked_for_lose_none_of_them() {
    const OLD: usize = SPAN + 100;
    const NEW: usize = 150;
    let disk = Arc::new(SimDisk::new());
    let pages = filled(&disk, OLD);
    pages.checkpoint().unwrap();
    drop(pages);
    let pages = open(&disk);
    for pid in OLD..OLD + NEW {
        let guard = pin();
        assert_eq!(pages.allocate(&guard).unwrap(), pid);
        pages.replace(pid, PagePtr::allocated(), format!("{pid}."), &guard).unwrap();
    }
    // So many changes that the group is folded at once.
    pages.checkpoint().unwrap();
    drop(pages);
    let pages = open(&disk);
    for pid in 0..OLD + NEW {
        assert_eq!(text(&pages, pid), Ok(Some(format!("{pid}."))), "page {pid}");
    }
}

/// Calls and bytes of reading, for the open of a store of so many pages that was killed with the same tail.
fn cost_of_open(count: usize) -> (u64, u64, u64) {
    const CHANGED: usize = 40;
    // So little that both stores have used all of it.
    const LOG_BYTES: u64 = 512 << 10;
    let disk = Arc::new(SimDisk::untraced());
    let pages = open_on(disk.clone(), LOG_BYTES);
    fill(&pages, count);
    pages.checkpoint().unwrap();
    (0..CHANGED).for_each(|number| append(&pages, number * (count / CHANGED), "changed."));
    pages.flush().unwrap();
    let left = Arc::new(disk.crash(&mut Chooser::none()));
    let counting = Arc::new(CountingStorage::new(left));
    let again = open_on(counting.clone(), LOG_BYTES);
    let read = counting.snapshot().total(Operation::Read);
    assert_eq!(text(&again, count / CHANGED), Ok(Some(format!("{}.changed.", count / CHANGED))));
    (read.calls, read.bytes, again.stats().pages_live_bytes)
}

#[test]
fn an_open_reads_as_much_of_many_pages_as_of_few() {
    const FEW: usize = 20_000;
    const MANY: usize = 200_000;
    let (few_calls, few_bytes, few_live) = cost_of_open(FEW);
    let (many_calls, many_bytes, many_live) = cost_of_open(MANY);
    assert!(many_live > 9 * few_live, "{many_live} bytes alive, and {few_live}");
    assert!(many_calls <= few_calls + 4, "{many_calls} reads, and {few_calls}");
    // The directory lists segments, which are tiny here, and groups of map pages.
    let listed = (MANY - FEW) as u64 / 5;
    assert!(many_bytes <= few_bytes + listed, "{many_bytes} bytes of reading, and {few_bytes}");
}
