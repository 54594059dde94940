//! A small generator of numbers that look random and are the same for the same seed, everywhere.
//!
//! The generator is xoshiro256**, seeded by splitmix64 (Blackman and Vigna, public domain). Neither
//! is fit for secrets.

/// A seeded generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        let mut seed = seed;
        let mut next = || {
            seed = seed.wrapping_add(GOLDEN);
            mix(seed)
        };
        Rng { state: [next(), next(), next(), next()] }
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound`; zero if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias is at most bound / 2^64, which no test can see.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index below `len`; zero if `len` is zero.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True `yes` times in `of`.
    pub fn chance(&mut self, yes: u64, of: u64) -> bool {
        self.below(of) < yes
    }

    /// One of `items`, or nothing if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// Fills `bytes` with any bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }

    /// Puts `items` into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.index(end + 1));
        }
    }
}

/// The odd number nearest to 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit of `word` over the whole result; one to one.
pub(super) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A hash of `hash` followed by `word`. The two are not alike in it: a hash of two equal words
/// depends on the words.
pub(super) fn fold(hash: u64, word: u64) -> u64 {
    let mixed = (hash.rotate_left(23).wrapping_mul(GOLDEN) ^ word).wrapping_mul(GOLDEN);
    (mixed ^ (mixed >> 29)).wrapping_add(1)
}

/// A weaker [`fold`] for long rows of words, to be finished by [`mix`].
pub(super) fn fold_fast(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(29) ^ word).wrapping_mul(GOLDEN)
}

/// A hash of bytes, up to eight at a time.
pub(super) fn fold_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let mut hash = fold(hash, bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = fold(hash, u64::from_le_bytes(word));
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Rng, fold, fold_bytes, mix};

    #[test]
    fn the_sequence_is_the_published_one() {
        // The reference programs' first numbers for seed 0.
        let mut rng = Rng::new(0);
        assert_eq!(rng.state[0], 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.state[1], 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(rng.next_u64(), 0x99ec_5f36_cb75_f2b4);
    }

    #[test]
    fn hashes_of_near_sequences_differ() {
        let mut seen = HashSet::new();
        for a in 0..100 {
            for b in 0..100 {
                assert!(seen.insert(fold(fold(1, mix(a)), mix(b))), "{a}, {b}");
            }
        }
        for len in 0..20 {
            assert!(seen.insert(fold_bytes(0, &[0; 20][..len])), "{len} zeros");
        }
    }

    #[test]
    fn bounds_hold_and_every_value_comes() {
        let mut rng = Rng::new(7);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[rng.index(10)] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        assert_eq!(rng.pick::<u8>(&[]), None);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new(1).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
