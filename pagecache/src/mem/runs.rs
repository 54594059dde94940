//! Runs: which pages of which chunk are free. Numbers only; where chunks lie is the arena's business.
//!
//! * Runs handed out never overlap: [`RunPool::take`] sets the bits that [`RunPool::give`] clears, and
//!   both check them.
//! * Every chunk is listed in exactly one bin, that of its longest free span, so finding room takes a
//!   look at seventeen bins however many chunks there are.

use super::class::RUN_PAGES_MAX;

/// The longest chunk, in pages.
pub(super) const CHUNK_PAGES_MAX: usize = 512;

const WORDS: usize = CHUNK_PAGES_MAX / 64;

/// A run of pages of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) chunk: u32,
    pub(super) first_page: u16,
    pub(super) pages: u16,
}

/// The free runs of all chunks.
#[derive(Debug, Default)]
pub(super) struct RunPool {
    chunks: Vec<Option<Chunk>>,
    /// Chunk numbers by the length of their longest free span, capped at [`RUN_PAGES_MAX`].
    bins: [Vec<u32>; RUN_PAGES_MAX + 1],
    vacant: Vec<u32>,
    /// Wholly free chunks.
    empty: usize,
}

#[derive(Debug)]
struct Chunk {
    pages: u16,
    used: u16,
    bin: u8,
    place_in_bin: u32,
    /// A set bit is a used page; bits past the end are set.
    map: [u64; WORDS],
}

impl RunPool {
    /// Takes a run of `pages` where the span it is cut from is shortest, or `None` if no chunk has room.
    pub(super) fn take(&mut self, pages: usize) -> Option<Run> {
        assert!((1..=RUN_PAGES_MAX).contains(&pages), "a run of {pages} pages");
        let number = *self.bins[pages..].iter().find_map(|bin| bin.last())?;
        let chunk = self.chunk_mut(number);
        let first_page = chunk.find(pages).expect("the bin says that there is room");
        chunk.flip(first_page, pages, false);
        let was_empty = chunk.used == 0;
        chunk.used += pages as u16;
        self.empty -= usize::from(was_empty);
        self.rebin(number);
        Some(Run { chunk: number, first_page: first_page as u16, pages: pages as u16 })
    }

    /// Takes a run back. Returns true if its chunk is now wholly free.
    pub(super) fn give(&mut self, run: Run) -> bool {
        let chunk = self.chunk_mut(run.chunk);
        chunk.flip(usize::from(run.first_page), usize::from(run.pages), true);
        chunk.used -= run.pages;
        let is_empty = chunk.used == 0;
        self.empty += usize::from(is_empty);
        self.rebin(run.chunk);
        is_empty
    }

    /// How many chunks are wholly free.
    pub(super) fn empty_chunks(&self) -> usize {
        self.empty
    }

    /// Adds a chunk of `pages` free pages and returns its number.
    pub(super) fn add_chunk(&mut self, pages: usize) -> u32 {
        assert!(pages <= CHUNK_PAGES_MAX, "a chunk of {pages} pages");
        let mut chunk = Chunk { pages: pages as u16, used: 0, bin: 0, place_in_bin: 0, map: [!0; WORDS] };
        chunk.flip(0, pages, true);
        let number = self.vacant.pop().unwrap_or(self.chunks.len() as u32);
        if number as usize == self.chunks.len() {
            self.chunks.push(None);
        }
        let bin = chunk.longest_span().min(RUN_PAGES_MAX);
        self.chunks[number as usize] = Some(chunk);
        self.empty += 1;
        self.enter_bin(number, bin);
        number
    }

    /// Forgets a wholly free chunk and returns its number, which is used again.
    ///
    /// There must be one. Looks through the longest bin: callers unmap it, which takes longer.
    pub(super) fn remove_empty_chunk(&mut self) -> u32 {
        let found = self.bins[RUN_PAGES_MAX].iter().copied().find(|number| self.is_empty(*number));
        let number = found.expect("a wholly free chunk has room for the longest run");
        self.leave_bin(number);
        self.chunks[number as usize] = None;
        self.vacant.push(number);
        self.empty -= 1;
        number
    }

    fn is_empty(&self, number: u32) -> bool {
        self.chunks[number as usize].as_ref().is_some_and(|chunk| chunk.used == 0)
    }

    fn chunk_mut(&mut self, number: u32) -> &mut Chunk {
        self.chunks[number as usize].as_mut().expect("a chunk in use")
    }

    fn rebin(&mut self, number: u32) {
        let chunk = self.chunk_mut(number);
        let bin = chunk.longest_span().min(RUN_PAGES_MAX);
        if bin != usize::from(chunk.bin) {
            self.leave_bin(number);
            self.enter_bin(number, bin);
        }
    }

    fn enter_bin(&mut self, number: u32, bin: usize) {
        let place = self.bins[bin].len() as u32;
        self.bins[bin].push(number);
        let chunk = self.chunk_mut(number);
        chunk.bin = bin as u8;
        chunk.place_in_bin = place;
    }

    fn leave_bin(&mut self, number: u32) {
        let chunk = self.chunk_mut(number);
        let (bin, place) = (usize::from(chunk.bin), chunk.place_in_bin);
        self.bins[bin].swap_remove(place as usize);
        if let Some(&moved) = self.bins[bin].get(place as usize) {
            self.chunk_mut(moved).place_in_bin = place;
        }
    }
}

impl Chunk {
    /// First page of the first free span of at least `pages`.
    fn find(&self, pages: usize) -> Option<usize> {
        self.spans().find(|span| span.len() >= pages).map(|span| span.start)
    }

    fn longest_span(&self) -> usize {
        self.spans().map(|span| span.len()).max().unwrap_or(0)
    }

    /// The free spans, first to last.
    fn spans(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let end = usize::from(self.pages);
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, end, true);
            at = self.next(start, end, false);
            (start < end).then_some(start..at)
        })
    }

    /// The first page from `at` on that is free, or that is used; `end` if none is.
    fn next(&self, mut at: usize, end: usize, free: bool) -> usize {
        while at < end {
            let word = self.map[at / 64];
            let wanted = if free { !word } else { word } >> (at % 64);
            if wanted != 0 {
                return (at + wanted.trailing_zeros() as usize).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }

    /// Frees a span that is wholly used, or uses one that is wholly free.
    fn flip(&mut self, first: usize, pages: usize, free: bool) {
        for page in first..first + pages {
            let bit = 1 << (page % 64);
            let word = &mut self.map[page / 64];
            assert_eq!(*word & bit != 0, free, "page {page} of {} given or taken twice", self.pages);
            *word ^= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, RunPool};
    use crate::mem::testing::Rng;

    #[test]
    fn runs_do_not_overlap_and_a_pool_given_everything_back_is_empty() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut pool = RunPool::default();
            let mut chunk_pages = Vec::new();
            let mut out: Vec<Run> = Vec::new();
            for step in 0..2_000 {
                if rng.below(5) < 3 {
                    let pages = 1 + rng.below(16);
                    let fits_somewhere =
                        (0..chunk_pages.len()).any(|c| longest_free(&chunk_pages, &out, c) >= pages);
                    let run = pool.take(pages);
                    assert_eq!(run.is_some(), fits_somewhere, "seed {seed}, step {step}: {pages} pages");
                    let Some(run) = run else {
                        let pages = 16 << rng.below(6);
                        assert_eq!(pool.add_chunk(pages) as usize, chunk_pages.len());
                        chunk_pages.push(pages);
                        continue;
                    };
                    let clash = out.iter().find(|held| overlap(held, &run));
                    assert_eq!(clash, None, "seed {seed}, step {step}: {run:?}");
                    out.push(run);
                } else if !out.is_empty() {
                    let run = out.swap_remove(rng.below(out.len()));
                    let last = !out.iter().any(|held| held.chunk == run.chunk);
                    assert_eq!(pool.give(run), last, "seed {seed}, step {step}: {run:?}");
                }
            }
            for run in out.drain(..) {
                pool.give(run);
            }
            assert_eq!(pool.empty_chunks(), chunk_pages.len(), "seed {seed}");
        }
    }

    fn overlap(a: &Run, b: &Run) -> bool {
        a.chunk == b.chunk && a.first_page < b.first_page + b.pages && b.first_page < a.first_page + a.pages
    }

    fn longest_free(chunk_pages: &[usize], out: &[Run], chunk: usize) -> usize {
        let mut used = vec![false; chunk_pages[chunk]];
        for run in out.iter().filter(|run| run.chunk as usize == chunk) {
            used[usize::from(run.first_page)..][..usize::from(run.pages)].fill(true);
        }
        used.split(|used| *used).map(<[bool]>::len).max().unwrap_or(0)
    }

    #[test]
    fn a_removed_chunk_gives_its_number_to_the_next() {
        let mut pool = RunPool::default();
        let (first, second) = (pool.add_chunk(16), pool.add_chunk(16));
        let run = pool.take(1).unwrap();
        let other = first + second - run.chunk;
        assert_eq!(pool.remove_empty_chunk(), other);
        assert_eq!(pool.add_chunk(512), other);
        assert_eq!(pool.take(16).map(|run| run.chunk), Some(other));
    }

    #[test]
    #[should_panic(expected = "given or taken twice")]
    fn a_run_given_twice_is_noticed() {
        let mut pool = RunPool::default();
        pool.add_chunk(16);
        let run = pool.take(3).unwrap();
        pool.take(3).unwrap();
        pool.give(run);
        pool.give(run);
    }
}
