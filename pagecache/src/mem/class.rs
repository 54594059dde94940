//! Size classes: which block sizes there are, and how long a run of pages one slab takes.
//!
//! From 128 bytes up there are eight classes per doubling, so that a buffer wastes at most an eighth of
//! its block and a sixteenth on average. Blocks are multiples of 16 bytes, hence four classes below.

/// Unit of runs, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// The longest run a slab takes, in pages. The smallest chunk is as long.
pub(super) const RUN_PAGES_MAX: usize = 16;

/// Number of size classes.
pub(super) const CLASSES: usize = 77;

const SMALLEST: usize = 64;
const EIGHTHS_FROM: usize = 128;
const BELOW_EIGHTHS: usize = 4;
const LARGEST: usize = 64 << 10;
/// Blocks from here on lie in short slabs.
const LARGE_FROM: usize = 2 << 10;

/// One of the block sizes, 64 bytes to 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SizeClass(u8);

impl SizeClass {
    /// The smallest class whose blocks hold `bytes`, or `None` if none does.
    #[inline]
    pub(super) fn holding(bytes: usize) -> Option<SizeClass> {
        if bytes > LARGEST {
            return None;
        }
        if bytes <= EIGHTHS_FROM {
            return Some(SizeClass((bytes.max(SMALLEST) - SMALLEST).div_ceil(16) as u8));
        }
        let last = bytes - 1;
        let doubling = last.ilog2() as usize;
        let eighth = (last >> (doubling - 3)) & 7;
        Some(SizeClass((BELOW_EIGHTHS + (doubling - 7) * 8 + eighth + 1) as u8))
    }

    pub(super) fn all() -> impl Iterator<Item = SizeClass> {
        (0..CLASSES as u8).map(SizeClass)
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Size of a block in bytes.
    #[inline]
    pub(super) fn block_bytes(self) -> usize {
        let index = self.index();
        if index < BELOW_EIGHTHS {
            return SMALLEST + 16 * index;
        }
        let steps = index - BELOW_EIGHTHS;
        (8 + steps % 8) << (steps / 8 + 4)
    }

    /// Pages of a class's next slab, if it has `slabs` already: a class that is used little takes little.
    pub(super) fn run_pages(self, slabs: usize) -> usize {
        if self.is_large() {
            return self.run_pages_min(16);
        }
        let least = self.run_pages_min(64);
        least * (slabs + 1).min(RUN_PAGES_MAX / least)
    }

    /// Blocks of a node's size. Nodes that grow together leave a class together, so their slabs are
    /// short: the fewer blocks a slab has, the sooner it is free for another class.
    fn is_large(self) -> bool {
        self.block_bytes() >= LARGE_FROM
    }

    /// The shortest run that loses at most this part of itself at its end.
    fn run_pages_min(self, part: usize) -> usize {
        let block = self.block_bytes();
        (1..RUN_PAGES_MAX)
            .find(|pages| {
                let run = pages * PAGE_BYTES;
                run >= block && (run % block) * part <= run
            })
            .unwrap_or(RUN_PAGES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, LARGEST, PAGE_BYTES, RUN_PAGES_MAX, SizeClass};

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for bytes in 0..=LARGEST {
            let class = SizeClass::holding(bytes).unwrap();
            assert!(class.block_bytes() >= bytes, "{bytes} bytes in {class:?}");
            if class.index() > 0 {
                let smaller = SizeClass(class.0 - 1);
                assert!(smaller.block_bytes() < bytes, "{bytes} bytes in {class:?}, would fit {smaller:?}");
            }
        }
        assert_eq!(SizeClass::holding(LARGEST + 1), None);
    }

    #[test]
    fn classes_are_counted_aligned_and_waste_an_eighth_at_most() {
        assert_eq!(SizeClass::holding(LARGEST).unwrap().index(), CLASSES - 1);
        let sizes: Vec<usize> = SizeClass::all().map(SizeClass::block_bytes).collect();
        for pair in sizes.windows(2) {
            assert_eq!(pair[0] % 16, 0, "{pair:?}");
            assert!(pair[0] < pair[1], "{pair:?}");
            assert!(pair[0] < 128 || (pair[1] - pair[0]) * 8 <= pair[1], "{pair:?}");
        }
    }

    #[test]
    fn a_run_holds_a_block_and_loses_little() {
        for class in SizeClass::all() {
            let mut before = 0;
            for slabs in 0..20 {
                let pages = class.run_pages(slabs);
                assert!(pages <= RUN_PAGES_MAX && pages >= before, "{class:?} with {slabs} slabs: {pages}");
                let run = pages * PAGE_BYTES;
                assert!(run >= class.block_bytes(), "{class:?}");
                let part = if class.is_large() { 16 } else { 64 };
                let lost = run % class.block_bytes();
                assert!(lost * part <= run || pages == RUN_PAGES_MAX, "{class:?} loses {lost}");
                before = pages;
            }
        }
    }
}
