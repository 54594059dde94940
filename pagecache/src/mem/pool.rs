//! The chunks of an arena: where slabs get their runs of pages, and what the system gets back.
//!
//! * MEM-4: once a store has half of what it may take, the pages that no slab uses are a
//!   thirty-second of that at most. What exceeds it is *left*: its memory is the system's, its addresses
//!   stay here. A store that is well within its bound leaves nothing, and keeps its huge pages whole.
//!
//! Which pages are free is the business of [`super::runs`]; how they are mapped that of
//! [`super::mapping`].

use std::{
    alloc::{Layout, handle_alloc_error},
    ops::Range,
    ptr::NonNull,
};

use super::{
    class::PAGE_BYTES,
    mapping::{HUGE_BYTES, Mapping},
    runs::{Run, RunPool},
};

const HUGE_FROM_BYTES: usize = 16 << 20;
const SMALL_CHUNK_BYTES: usize = 64 << 10;
const MIDDLE_CHUNK_BYTES: usize = 1 << 20;
/// Part of what the store may take that free pages may have, and what they always may.
const FREE_DIVISOR: usize = 32;
const FREE_BYTES_MIN: usize = 1 << 20;
/// Parts that are left, at most: the system allows a process some 65,000 parts of different rights, and each
/// of these makes two.
const LEFT_MAX: usize = 8 << 10;

/// The memory that an arena has from the system, large buffers apart.
pub(super) struct Pool {
    runs: RunPool,
    /// By chunk number.
    chunks: Vec<Option<Mapping>>,
    /// Bytes of the chunks without what is left.
    bytes: usize,
    bytes_max: usize,
}

impl Pool {
    pub(super) fn new() -> Pool {
        Pool { runs: RunPool::default(), chunks: Vec::new(), bytes: 0, bytes_max: usize::MAX }
    }

    /// Says how much the store may take.
    pub(super) fn expect_at_most(&mut self, bytes: usize) {
        self.bytes_max = bytes;
    }

    /// Bytes taken from the system.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A run of pages that are there.
    pub(super) fn take(&mut self, pages: usize) -> Option<(Run, NonNull<u8>)> {
        let run = self.runs.take(pages)?;
        Some((run, self.start_of(run)))
    }

    /// A run of pages, from the system if none is there.
    ///
    /// Aborts the process if the system has no memory.
    pub(super) fn take_or_grow(&mut self, pages: usize) -> (Run, NonNull<u8>) {
        let found = self.take(pages).or_else(|| self.take_left(pages)).or_else(|| {
            self.grow();
            self.take(pages).or_else(|| self.take_left(pages))
        });
        let found = found.unwrap_or_else(|| no_memory(pages * PAGE_BYTES));
        self.keep_within_bound();
        found
    }

    /// Takes a run back.
    pub(super) fn give(&mut self, run: Run) {
        if self.runs.give(run) {
            self.keep_empty(1);
        }
        self.keep_within_bound();
    }

    /// Unmaps wholly free chunks until `kept` are left.
    pub(super) fn keep_empty(&mut self, kept: usize) {
        while self.runs.empty_chunks() > kept {
            let (number, present) = self.runs.remove_empty_chunk();
            self.chunks[number as usize] = None;
            self.bytes -= present * PAGE_BYTES;
        }
    }

    fn start_of(&self, run: Run) -> NonNull<u8> {
        let chunk = self.chunks[run.chunk as usize].as_ref().expect("a chunk in use");
        chunk.at(bytes_of(run).start)
    }

    /// A run of which some pages were left.
    fn take_left(&mut self, pages: usize) -> Option<(Run, NonNull<u8>)> {
        let (run, left) = self.runs.find_left(pages)?;
        let chunk = self.chunks[run.chunk as usize].as_ref().expect("a chunk in use");
        if !chunk.enter(bytes_of(run)) {
            return None;
        }
        self.runs.take_left(run);
        self.bytes += left * PAGE_BYTES;
        Some((run, self.start_of(run)))
    }

    /// Maps one more chunk: a quarter of what there is, and huge pages once a store is no longer small.
    fn grow(&mut self) {
        let bytes = if self.bytes >= HUGE_FROM_BYTES {
            HUGE_BYTES
        } else {
            (self.bytes / 4).next_power_of_two().clamp(SMALL_CHUNK_BYTES, MIDDLE_CHUNK_BYTES)
        };
        let mapping = Mapping::reserve(bytes).unwrap_or_else(|| no_memory(bytes));
        let is_present = self.may_be_free(bytes) && mapping.enter(0..bytes);
        let number = self.runs.add_chunk(bytes / PAGE_BYTES, is_present) as usize;
        if number == self.chunks.len() {
            self.chunks.push(None);
        }
        self.chunks[number] = Some(mapping);
        self.bytes += if is_present { bytes } else { 0 };
    }

    /// True if so many more free bytes would still be within the bound (MEM-4).
    fn may_be_free(&self, more: usize) -> bool {
        let free = self.runs.free_pages() * PAGE_BYTES + more;
        self.bytes + more <= self.bytes_max / 2 || free <= (self.bytes_max / FREE_DIVISOR).max(FREE_BYTES_MIN)
    }

    /// Leaves free pages until the others are within the bound, the longest spans first: they are cheapest.
    fn keep_within_bound(&mut self) {
        while !self.may_be_free(0) {
            if self.runs.empty_chunks() > 0 {
                self.keep_empty(self.runs.empty_chunks() - 1);
                continue;
            }
            if self.runs.left_spans() >= LEFT_MAX {
                break;
            }
            let Some(run) = self.runs.longest_free() else { break };
            let chunk = self.chunks[run.chunk as usize].as_ref().expect("a chunk in use");
            if !chunk.leave(bytes_of(run)) {
                break;
            }
            self.runs.leave(run);
            self.bytes -= usize::from(run.pages) * PAGE_BYTES;
        }
    }
}

fn bytes_of(run: Run) -> Range<usize> {
    let first = usize::from(run.first_page) * PAGE_BYTES;
    first..first + usize::from(run.pages) * PAGE_BYTES
}

fn no_memory(bytes: usize) -> ! {
    handle_alloc_error(Layout::from_size_align(bytes, PAGE_BYTES).expect("some pages"))
}

#[cfg(all(test, not(any(miri, feature = "malloc_pages"))))]
mod tests {
    use super::{FREE_BYTES_MIN, FREE_DIVISOR, PAGE_BYTES, Pool};
    use crate::mem::testing::Rng;

    /// Bytes of these ranges, each of an address and a length, that the process may write: what the system
    /// counts as its data.
    fn writable_bytes(ranges: &[(usize, usize)]) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("what the system says of the process");
        let within = |line: &str| {
            let (start, rest) = line.split_once('-').expect("a range");
            let (end, rights) = rest.split_once(' ').expect("a range and its rights");
            let address = |text| usize::from_str_radix(text, 16).expect("an address");
            let (start, end) = (address(start), address(end));
            let common =
                |(base, bytes): &(usize, usize)| end.min(base + bytes).saturating_sub(start.max(*base));
            if rights.starts_with("rw") { ranges.iter().map(common).sum() } else { 0 }
        };
        maps.lines().map(within).sum()
    }

    /// Free runs between used ones once stayed with the store for good: a quarter of its memory.
    #[test]
    fn what_no_slab_uses_goes_back_to_the_system_once_a_store_is_at_its_bound() {
        const MAX: usize = 64 << 20;
        for seed in 0..3 {
            let mut rng = Rng::new(seed);
            let mut pool = Pool::new();
            pool.expect_at_most(MAX);
            let mut held = Vec::new();
            let mut used = 0;
            let free_max = (MAX / FREE_DIVISOR).max(FREE_BYTES_MIN);
            for step in 0..40_000 {
                // Three quarters of the bound, in runs that differ in length more and more.
                if used < MAX / 4 * 3 {
                    let pages = 1 + rng.below(2 + step * 14 / 40_000);
                    held.push(pool.take_or_grow(pages).0);
                    used += pages * PAGE_BYTES;
                } else {
                    for _ in 0..1 + rng.below(40) {
                        let run = held.swap_remove(rng.below(held.len()));
                        used -= usize::from(run.pages) * PAGE_BYTES;
                        pool.give(run);
                    }
                }
                let most = (used + free_max).max(MAX / 2);
                assert!(pool.bytes() <= most, "seed {seed}, step {step}: {} of {most} bytes", pool.bytes());
            }
            let chunks = pool.chunks.iter().flatten();
            let ranges: Vec<(usize, usize)> =
                chunks.map(|chunk| (chunk.at(0).as_ptr().addr(), chunk.len())).collect();
            assert_eq!(writable_bytes(&ranges), pool.bytes(), "seed {seed}");
            held.drain(..).for_each(|run| pool.give(run));
            pool.keep_empty(0);
            assert_eq!(pool.bytes(), 0, "seed {seed}");
        }
    }

    #[test]
    fn a_store_well_within_its_bound_leaves_nothing() {
        let mut pool = Pool::new();
        pool.expect_at_most(256 << 20);
        let held: Vec<_> = (0..4_000).map(|_| pool.take_or_grow(4).0).collect();
        let before = pool.bytes();
        for run in held.iter().step_by(2) {
            pool.give(*run);
        }
        assert_eq!((pool.bytes(), pool.runs.left_spans()), (before, 0));
    }
}
