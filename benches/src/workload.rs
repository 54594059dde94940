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

fn seed_of(key: &[u8]) -> u64 {
    key.chunks(8).fold(0, |seed, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(seed ^ u64::from_le_bytes(word))
    })
}

/// The value that belongs to `key`.
pub(crate) fn value(key: &[u8]) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    let seed = seed_of(key);
    for (i, chunk) in value.chunks_mut(8).enumerate() {
        let len = chunk.len();
        chunk.copy_from_slice(&mix(seed.wrapping_add(i as u64)).to_le_bytes()[..len]);
    }
    value
}

/// Panics unless `value` is the one that belongs to `key`, in every byte.
pub(crate) fn check(key: &[u8], found: &[u8]) {
    assert!(found == value(key), "a wrong value for {}", String::from_utf8_lossy(key));
}

/// Panics unless the value's length and first eight bytes are right: enough to catch a mix-up,
/// cheap enough for a scan.
pub(crate) fn check_briefly(key: &[u8], found: &[u8]) {
    let first = mix(seed_of(key)).to_le_bytes();
    let is_right = found.len() == VALUE_BYTES && found[..8] == first;
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
