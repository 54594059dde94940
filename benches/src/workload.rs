//! The records: 24-byte keys, 150-byte values that do not compress, all from a number.
//!
//! A value follows from its key, so that any record read can be checked by itself.

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 24;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 150;

/// Sebastiano Vigna's splitmix64, as a function of the position.
fn mix(position: u64) -> u64 {
    let mut z = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Key number `i`: `user` and 20 digits. Different for each `i`; the order of keys is a shuffle of
/// the order of numbers.
pub(crate) fn key(i: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"user00000000000000000000";
    let mut digits = mix(i);
    for place in key[4..].iter_mut().rev() {
        *place += (digits % 10) as u8;
        digits /= 10;
    }
    key
}

/// Words of a value; six bytes follow them.
const WORDS: usize = VALUE_BYTES / 8;

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at * 8..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

fn seed_of(key: &[u8]) -> u64 {
    let sum = word(key, 0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ word(key, 1).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ word(key, 2).wrapping_mul(0x1656_67b1_9e37_79f9);
    mix(sum)
}

/// The value that belongs to `key`: its words are random, but together they give the key's seed by
/// exclusive or, so that every byte of a value is checked at little more than the price of reading it.
pub(crate) fn value(key: &[u8]) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    let seed = seed_of(key);
    let mut left = seed;
    let (words, rest) = value.as_chunks_mut::<8>();
    for (i, word) in words.iter_mut().enumerate() {
        let next = if i + 1 < WORDS { mix(seed.wrapping_add(i as u64)) } else { left };
        left ^= next;
        *word = next.to_le_bytes();
    }
    let len = rest.len();
    rest.copy_from_slice(&seed.to_le_bytes()[..len]);
    value
}

/// Panics unless `found` is the value that belongs to `key`: any one byte that differs shows.
pub(crate) fn check(key: &[u8], found: &[u8]) {
    let (words, rest) = found.as_chunks::<8>();
    let seed = words.iter().fold(0, |all, word| all ^ u64::from_le_bytes(*word));
    let is_right =
        found.len() == VALUE_BYTES && seed == seed_of(key) && rest == &seed.to_le_bytes()[..VALUE_BYTES % 8];
    assert!(is_right, "a wrong value for {}", String::from_utf8_lossy(key));
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// The next one below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(!self.0) % bound
    }
}
