//! A payload packed with codec 1: LZ4's block format behind the length that it unpacks to.
//!
//! ```text
//! plain bytes u32 | lz4 block
//! ```
//!
//! * Packing is kept only if it makes the payload shorter, header included; what does not shrink stays plain.
//! * No length on disk makes a reader allocate more than the block can hold: LZ4 yields at most 255 bytes for
//!   each of its own.

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use crate::{error::DecodeError, format::bytes::Source};

/// Bytes in front of the block.
const HEAD_BYTES: usize = 4;
/// Payloads below this do not shrink by what packing costs.
const PLAIN_BYTES_MIN: usize = 64;
/// Bytes that one byte of a block can stand for, at most.
const EXPANSION_MAX: usize = 255;

/// Packs `plain` into the front of `room`, which grows as is needed; the packed length, if it is less than that
/// of `plain`.
pub(crate) fn pack(plain: &[u8], room: &mut Vec<u8>) -> Option<usize> {
    let plain_bytes = u32::try_from(plain.len()).ok().filter(|_| plain.len() >= PLAIN_BYTES_MIN)?;
    let most = HEAD_BYTES + get_maximum_output_size(plain.len());
    if room.len() < most {
        room.resize(most, 0);
    }
    room[..HEAD_BYTES].copy_from_slice(&plain_bytes.to_le_bytes());
    let block = compress_into(plain, &mut room[HEAD_BYTES..]).ok()?;
    Some(HEAD_BYTES + block).filter(|packed| *packed < plain.len())
}

/// The plain bytes of a payload that was packed.
///
/// # Errors
///
/// What [`pack`] never makes: a length that the block cannot have, or a block that is damaged.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut source = Source::new(packed);
    let plain_bytes = source.u32("the unpacked length")? as usize;
    let block = &packed[HEAD_BYTES..];
    if plain_bytes > block.len().saturating_mul(EXPANSION_MAX) {
        let block = block.len();
        return Err(DecodeError(format!(
            "{plain_bytes} bytes are said to be packed in {block}, which cannot be"
        )));
    }
    let mut plain = vec![0; plain_bytes];
    match decompress_into(block, &mut plain) {
        Ok(found) if found == plain_bytes => Ok(plain),
        Ok(found) => Err(DecodeError(format!("packed bytes are {found}, {plain_bytes} were packed"))),
        Err(why) => Err(DecodeError(format!("packed bytes do not unpack: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{HEAD_BYTES, PLAIN_BYTES_MIN, pack, unpack};

    /// A fixed sequence (splitmix64), so that a failure repeats.
    fn random(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = *seed;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Bytes of all kinds: noise, runs, and what repeats from further away.
    fn some_plain(seed: &mut u64) -> Vec<u8> {
        let mut plain: Vec<u8> = Vec::new();
        for _ in 0..random(seed) % 8 {
            let len = (random(seed) % 3000) as usize;
            match random(seed) % 3 {
                0 => plain.extend((0..len).map(|_| random(seed) as u8)),
                1 => plain.extend(std::iter::repeat_n(random(seed) as u8, len)),
                _ => {
                    let end = plain.len().min(len);
                    plain.extend_from_within(..end);
                }
            }
        }
        plain
    }

    #[test]
    fn whatever_is_packed_is_shorter_and_reads_back() {
        let (mut seed, mut room, mut packed) = (1, Vec::new(), 0);
        for step in 0..2000 {
            let plain = some_plain(&mut seed);
            let Some(len) = pack(&plain, &mut room) else { continue };
            packed += 1;
            assert!(len < plain.len(), "step {step}");
            assert_eq!(unpack(&room[..len]).as_ref(), Ok(&plain), "step {step}");
        }
        assert!(packed > 1000, "{packed} were packed");
    }

    #[test]
    fn what_does_not_shrink_is_not_packed() {
        let (mut seed, mut room) = (7, Vec::new());
        let noise: Vec<u8> = (0..5000).map(|_| random(&mut seed) as u8).collect();
        assert_eq!(pack(&noise, &mut room), None);
        assert_eq!(pack(&[0; PLAIN_BYTES_MIN - 1], &mut room), None);
        assert_eq!(pack(&[], &mut room), None);
    }

    /// Another encoder may choose other matches; what they mean is fixed.
    #[test]
    fn bytes_are_these() {
        let five = [b'a'; 5];
        // A literal, a copy of 94 from one byte before, and five literals; or a copy of 93, and six.
        let packed = [&[100, 0, 0, 0, 0x1f, b'a', 1, 0, 75, 0x50][..], &five].concat();
        assert_eq!(unpack(&packed), Ok(vec![b'a'; 100]));
        let packed = [&[100, 0, 0, 0, 0x1f, b'a', 1, 0, 74, 0x60, b'a'][..], &five].concat();
        assert_eq!(unpack(&packed), Ok(vec![b'a'; 100]));
        let mut room = Vec::new();
        let len = pack(&[b'a'; 100], &mut room).expect("it shrinks");
        assert_eq!(room[..len], packed);
    }

    #[test]
    fn damage_is_an_error_or_other_bytes_of_the_same_length() {
        let mut room = Vec::new();
        let plain: Vec<u8> = (0..400_u32).map(|n| (n % 23) as u8).collect();
        let len = pack(&plain, &mut room).expect("it shrinks");
        let packed = room[..len].to_vec();
        for len in 0..packed.len() {
            assert!(unpack(&packed[..len]).is_err(), "cut to {len} bytes");
        }
        for bit in 0..packed.len() * 8 {
            let mut changed = packed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = unpack(&changed) {
                assert_eq!(found.len(), plain.len(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_length_that_no_block_can_have_is_refused_before_anything_is_allocated() {
        let mut packed = u32::MAX.to_le_bytes().to_vec();
        packed.extend([0; 20]);
        let refused = unpack(&packed).expect_err("four gigabytes in twenty bytes").0;
        assert!(refused.contains("which cannot be"), "{refused}");
        assert_eq!(packed.len(), HEAD_BYTES + 20);
    }
}
