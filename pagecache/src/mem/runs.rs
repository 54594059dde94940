//! Runs: which pages of which chunk are free. Numbers only; where chunks lie is the arena's business.
//!
//! * Runs handed out never overlap: [`RunPool::take`] sets the bits that [`RunPool::give`] clears, and
//!   both check them.
//! * Every chunk is listed in exactly one bin of a kind, that of its longest span, so finding room takes a
//!   look at seventeen bins however many chunks there are.
//! * Pages that nobody has are free, or *left*: addresses without memory. [`RunPool::take`] gives free ones
//!   only.

use std::ops::Range;

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
    /// Chunk numbers by the length of their longest span of a kind, capped at [`RUN_PAGES_MAX`].
    bins: [[Vec<u32>; RUN_PAGES_MAX + 1]; 2],
    vacant: Vec<u32>,
    /// Wholly free chunks.
    empty: usize,
    free_pages: usize,
    left_spans: usize,
}

/// What a span of pages that nobody has consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Pages that are there.
    Free,
    /// Such pages and others that are left, of chunks that have some.
    Left,
}

#[derive(Debug)]
struct Chunk {
    pages: u16,
    used: u16,
    /// Bin and place in it of each kind.
    listed: [(u8, u32); 2],
    /// A set bit is a page that is used or left; bits past the end are set.
    map: Map,
    /// A set bit is a page that is left.
    left: Map,
    left_pages: u16,
    left_spans: u16,
}

type Map = [u64; WORDS];

impl RunPool {
    /// Takes a run of `pages` where the span it is cut from is shortest, or `None` if no chunk has room.
    pub(super) fn take(&mut self, pages: usize) -> Option<Run> {
        let run = self.find(pages, Kind::Free)?;
        self.mark_used(run);
        Some(run)
    }

    /// A run of `pages`, some of which are left, and how many those are.
    pub(super) fn find_left(&mut self, pages: usize) -> Option<(Run, usize)> {
        let run = self.find(pages, Kind::Left)?;
        let left = &self.chunk_mut(run.chunk).left;
        let count = pages_of(run).filter(|page| is_set(left, *page)).count();
        Some((run, count))
    }

    /// Takes a run from [`RunPool::find_left`], all of whose pages are there again.
    pub(super) fn take_left(&mut self, run: Run) {
        let chunk = self.chunk_mut(run.chunk);
        let left: Vec<usize> = pages_of(run).filter(|page| is_set(&chunk.left, *page)).collect();
        for page in &left {
            flip(&mut chunk.left, *page);
            flip(&mut chunk.map, *page);
        }
        chunk.left_pages -= left.len() as u16;
        self.free_pages += left.len();
        self.mark_used(run);
    }

    /// Takes a run back. Returns true if its chunk is now wholly free.
    pub(super) fn give(&mut self, run: Run) -> bool {
        let chunk = self.chunk_mut(run.chunk);
        chunk.flip(run, true);
        chunk.used -= run.pages;
        let is_empty = chunk.used == 0;
        self.empty += usize::from(is_empty);
        self.free_pages += usize::from(run.pages);
        self.rebin(run.chunk);
        is_empty
    }

    /// One of the longest free spans.
    pub(super) fn longest_free(&mut self) -> Option<Run> {
        let number = *self.bins[Kind::Free as usize][1..].iter().rev().find_map(|bin| bin.last())?;
        let span = self.chunk_mut(number).spans(Kind::Free).max_by_key(|span| span.len())?;
        Some(Run { chunk: number, first_page: span.start as u16, pages: span.len() as u16 })
    }

    /// Says that the pages of a free run are not there any more.
    pub(super) fn leave(&mut self, run: Run) {
        let chunk = self.chunk_mut(run.chunk);
        chunk.flip(run, false);
        pages_of(run).for_each(|page| flip(&mut chunk.left, page));
        chunk.left_pages += run.pages;
        self.free_pages -= usize::from(run.pages);
        self.rebin(run.chunk);
    }

    /// How many chunks are wholly free.
    pub(super) fn empty_chunks(&self) -> usize {
        self.empty
    }

    /// How many pages are free and there.
    pub(super) fn free_pages(&self) -> usize {
        self.free_pages
    }

    /// How many spans of pages are left.
    pub(super) fn left_spans(&self) -> usize {
        self.left_spans
    }

    /// Adds a chunk of `pages` pages that nobody has, there or left, and returns its number.
    pub(super) fn add_chunk(&mut self, pages: usize, is_present: bool) -> u32 {
        assert!(pages <= CHUNK_PAGES_MAX, "a chunk of {pages} pages");
        let mut chunk = Chunk {
            pages: pages as u16,
            used: 0,
            listed: [(0, 0); 2],
            map: [!0; WORDS],
            left: [0; WORDS],
            left_pages: 0,
            left_spans: 0,
        };
        for page in 0..pages {
            flip(if is_present { &mut chunk.map } else { &mut chunk.left }, page);
        }
        if is_present {
            self.free_pages += pages;
        } else {
            chunk.left_pages = pages as u16;
        }
        let number = self.vacant.pop().unwrap_or(self.chunks.len() as u32);
        if number as usize == self.chunks.len() {
            self.chunks.push(None);
        }
        self.chunks[number as usize] = Some(chunk);
        self.empty += 1;
        self.enter_bin(number, Kind::Free, 0);
        self.enter_bin(number, Kind::Left, 0);
        self.rebin(number);
        number
    }

    /// Forgets a wholly free chunk and returns its number, which is used again, and how many of its pages
    /// were there.
    ///
    /// There must be one. Looks through all: callers unmap it, which takes longer.
    pub(super) fn remove_empty_chunk(&mut self) -> (u32, usize) {
        let is_empty = |chunk: &Option<Chunk>| chunk.as_ref().is_some_and(|chunk| chunk.used == 0);
        let number = self.chunks.iter().position(is_empty).expect("a wholly free chunk") as u32;
        self.leave_bin(number, Kind::Free);
        self.leave_bin(number, Kind::Left);
        let chunk = self.chunks[number as usize].take().expect("a chunk in use");
        self.vacant.push(number);
        self.empty -= 1;
        let present = usize::from(chunk.pages - chunk.left_pages);
        self.free_pages -= present;
        self.left_spans -= usize::from(chunk.left_spans);
        (number, present)
    }

    fn find(&mut self, pages: usize, kind: Kind) -> Option<Run> {
        assert!((1..=RUN_PAGES_MAX).contains(&pages), "a run of {pages} pages");
        let number = *self.bins[kind as usize][pages..].iter().find_map(|bin| bin.last())?;
        let mut spans = self.chunk_mut(number).spans(kind);
        let span = spans.find(|span| span.len() >= pages).expect("the bin says that there is room");
        Some(Run { chunk: number, first_page: span.start as u16, pages: pages as u16 })
    }

    fn mark_used(&mut self, run: Run) {
        let chunk = self.chunk_mut(run.chunk);
        chunk.flip(run, false);
        let was_empty = chunk.used == 0;
        chunk.used += run.pages;
        self.empty -= usize::from(was_empty);
        self.free_pages -= usize::from(run.pages);
        self.rebin(run.chunk);
    }

    fn chunk_mut(&mut self, number: u32) -> &mut Chunk {
        self.chunks[number as usize].as_mut().expect("a chunk in use")
    }

    fn rebin(&mut self, number: u32) {
        let chunk = self.chunk_mut(number);
        let before = usize::from(chunk.left_spans);
        if before > 0 || chunk.left_pages > 0 {
            chunk.left_spans = starts_in(&chunk.left);
        }
        let after = usize::from(chunk.left_spans);
        self.left_spans = self.left_spans + after - before;
        for kind in [Kind::Free, Kind::Left] {
            let chunk = self.chunk_mut(number);
            let bin = chunk.longest_span(kind).min(RUN_PAGES_MAX);
            if bin != usize::from(chunk.listed[kind as usize].0) {
                self.leave_bin(number, kind);
                self.enter_bin(number, kind, bin);
            }
        }
    }

    fn enter_bin(&mut self, number: u32, kind: Kind, bin: usize) {
        let list = &mut self.bins[kind as usize][bin];
        let place = list.len() as u32;
        list.push(number);
        self.chunk_mut(number).listed[kind as usize] = (bin as u8, place);
    }

    fn leave_bin(&mut self, number: u32, kind: Kind) {
        let (bin, place) = self.chunk_mut(number).listed[kind as usize];
        let list = &mut self.bins[kind as usize][usize::from(bin)];
        list.swap_remove(place as usize);
        if let Some(&moved) = list.get(place as usize) {
            self.chunk_mut(moved).listed[kind as usize].1 = place;
        }
    }
}

impl Chunk {
    fn longest_span(&self, kind: Kind) -> usize {
        if kind == Kind::Left && self.left_pages == 0 {
            return 0;
        }
        self.spans(kind).map(|span| span.len()).max().unwrap_or(0)
    }

    /// The spans of pages of a kind that nobody has, first to last.
    fn spans(&self, kind: Kind) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = usize::from(self.pages);
        let mut taken = self.map;
        if kind == Kind::Left {
            taken.iter_mut().zip(self.left).for_each(|(taken, left)| *taken &= !left);
        }
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = next(&taken, at, end, false);
            at = next(&taken, start, end, true);
            (start < end).then_some(start..at)
        })
    }

    /// Frees a run that is wholly used, or uses one that is wholly free.
    fn flip(&mut self, run: Run, free: bool) {
        for page in pages_of(run) {
            let left = is_set(&self.left, page);
            assert!(
                is_set(&self.map, page) == free && !left,
                "page {page} of {} given or taken twice",
                self.pages
            );
            flip(&mut self.map, page);
        }
    }
}

fn pages_of(run: Run) -> Range<usize> {
    usize::from(run.first_page)..usize::from(run.first_page) + usize::from(run.pages)
}

fn is_set(map: &Map, page: usize) -> bool {
    map[page / 64] >> (page % 64) & 1 != 0
}

fn flip(map: &mut Map, page: usize) {
    map[page / 64] ^= 1 << (page % 64);
}

/// The first page from `at` on whose bit is set, or is not; `end` if there is none.
fn next(map: &Map, mut at: usize, end: usize, set: bool) -> usize {
    while at < end {
        let word = map[at / 64];
        let wanted = if set { word } else { !word } >> (at % 64);
        if wanted != 0 {
            return (at + wanted.trailing_zeros() as usize).min(end);
        }
        at = (at / 64 + 1) * 64;
    }
    end
}

/// How many spans of set bits there are.
fn starts_in(map: &Map) -> u16 {
    let mut before = 0;
    let mut starts = 0;
    for word in map {
        starts += (word & !(word << 1 | before)).count_ones() as u16;
        before = word >> 63;
    }
    starts
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
            // Runs that are used, and spans that were left, whole or what was not taken of them since.
            let (mut out, mut left): (Vec<Run>, Vec<Run>) = (Vec::new(), Vec::new());
            for step in 0..2_000 {
                let context = format!("seed {seed}, step {step}");
                let nobody_s = |out: &[Run], left: &[Run]| {
                    let taken: Vec<Run> = out.iter().chain(left).copied().collect();
                    (0..chunk_pages.len()).map(|chunk| longest_free(&chunk_pages, &taken, chunk)).max()
                };
                match rng.below(10) {
                    0..5 => {
                        let pages = 1 + rng.below(16);
                        let fits = nobody_s(&out, &left).is_some_and(|longest| longest >= pages);
                        let fits_on_left = nobody_s(&out, &[]).is_some_and(|longest| longest >= pages);
                        let run = pool.take(pages);
                        assert_eq!(run.is_some(), fits, "{context}: {pages} pages");
                        let run = run.or_else(|| {
                            let (run, there) = pool.find_left(pages)?;
                            let gone = left
                                .iter()
                                .flat_map(pages_in)
                                .filter(|page| pages_in(&run).any(|p| p == *page));
                            assert_eq!(gone.count(), there, "{context}: {run:?}");
                            pool.take_left(run);
                            left = left.iter().flat_map(|span| without(*span, run)).collect();
                            Some(run)
                        });
                        let has_left = !left.is_empty();
                        assert!(run.is_some() || !fits_on_left || !has_left, "{context}: {pages} pages");
                        let Some(run) = run else {
                            let (pages, is_present) = (16 << rng.below(6), rng.below(4) > 0);
                            let number = pool.add_chunk(pages, is_present);
                            assert_eq!(number as usize, chunk_pages.len());
                            chunk_pages.push(pages);
                            if !is_present {
                                left.push(Run { chunk: number, first_page: 0, pages: pages as u16 });
                            }
                            continue;
                        };
                        let clash = out.iter().find(|held| overlap(held, &run));
                        assert_eq!(clash, None, "{context}: {run:?}");
                        out.push(run);
                    }
                    5 => {
                        let longest = nobody_s(&out, &left).filter(|longest| *longest > 0);
                        let run = pool.longest_free();
                        assert_eq!(run.map(|run| usize::from(run.pages).min(16)), longest.map(|l| l.min(16)));
                        if let Some(run) = run {
                            assert!(!out.iter().chain(&left).any(|held| overlap(held, &run)), "{context}");
                            pool.leave(run);
                            left.push(run);
                        }
                    }
                    _ if !out.is_empty() => {
                        let run = out.swap_remove(rng.below(out.len()));
                        let last = !out.iter().any(|held| held.chunk == run.chunk);
                        assert_eq!(pool.give(run), last, "{context}: {run:?}");
                    }
                    _ => {}
                }
                let pages = |runs: &[Run]| runs.iter().map(|run| usize::from(run.pages)).sum::<usize>();
                let free = chunk_pages.iter().sum::<usize>() - pages(&out) - pages(&left);
                assert_eq!(pool.free_pages(), free, "{context}");
                assert!(pool.left_spans() <= left.len(), "{context}");
            }
            for run in out.drain(..) {
                pool.give(run);
            }
            assert_eq!(pool.empty_chunks(), chunk_pages.len(), "seed {seed}");
            let present: usize = (0..chunk_pages.len()).map(|_| pool.remove_empty_chunk().1).sum();
            let gone: usize = left.iter().map(|run| usize::from(run.pages)).sum();
            assert_eq!(present + gone, chunk_pages.iter().sum::<usize>(), "seed {seed}");
            assert_eq!((pool.free_pages(), pool.left_spans()), (0, 0), "seed {seed}");
        }
    }

    fn pages_in(run: &Run) -> impl Iterator<Item = (u32, usize)> + use<> {
        let chunk = run.chunk;
        super::pages_of(*run).map(move |page| (chunk, page))
    }

    /// What is left of a span when a run was cut out of it.
    fn without(span: Run, run: Run) -> Vec<Run> {
        if !overlap(&span, &run) {
            return vec![span];
        }
        let (start, end) = (span.first_page, span.first_page + span.pages);
        let before = (start, run.first_page.max(start));
        let after = ((run.first_page + run.pages).min(end), end);
        let some = [before, after].into_iter().filter(|(from, to)| from < to);
        some.map(|(from, to)| Run { first_page: from, pages: to - from, ..span }).collect()
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
        let (first, second) = (pool.add_chunk(16, true), pool.add_chunk(16, true));
        let run = pool.take(1).unwrap();
        let other = first + second - run.chunk;
        assert_eq!(pool.remove_empty_chunk(), (other, 16));
        assert_eq!(pool.add_chunk(512, true), other);
        assert_eq!(pool.take(16).map(|run| run.chunk), Some(other));
    }

    #[test]
    #[should_panic(expected = "given or taken twice")]
    fn a_run_given_twice_is_noticed() {
        let mut pool = RunPool::default();
        pool.add_chunk(16, true);
        let run = pool.take(3).unwrap();
        pool.take(3).unwrap();
        pool.give(run);
        pool.give(run);
    }
}
