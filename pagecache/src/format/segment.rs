//! The first block of a log segment: which part of the log the segment holds.
//!
//! ```text
//!  0       8         12      16      24       32     40       48          56      72    76
//!  | magic | version | block | first | length | salt | stable | continues | store | crc | zeros ...
//! ```
//!
//! Integers are little-endian. `first` is the LSN of the header block itself and a multiple of
//! `length`; records start one block later. `continues` is where the records before this segment
//! end: equal to `first` when they fill theirs, less when the writer skipped what was left, as it
//! does after every open. `stable` is the stable LSN when the header was written, `store` the name of the store in its
//! superblocks. The checksum is crc32 over everything before it and fits the first sector.

use crate::ids::Lsn;

/// Bytes of the header that mean something; the rest of its block is zero.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 76;

const MAGIC: [u8; 8] = *b"PageLog\0";
const VERSION: u32 = 1;
const STORE_AT: usize = 56;
const CRC_AT: usize = 72;

/// What a segment's first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) block_bytes: u32,
    /// The segment covers `[first, first + segment_bytes)`.
    pub(crate) first: Lsn,
    pub(crate) segment_bytes: u64,
    pub(crate) salt: u64,
    /// Everything below was durable when this was written.
    pub(crate) stable: Lsn,
    /// Where the records before this segment end.
    pub(crate) continues: Lsn,
    /// The store's uuid.
    pub(crate) store: [u8; 16],
}

/// Why a block is no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// Never written, overwritten or damaged.
    Absent,
    /// Whole, but of a format this version does not read.
    Version(u32),
}

impl SegmentHeader {
    /// Writes the header over all of `block`.
    pub(crate) fn encode(&self, block: &mut [u8]) {
        block.fill(0);
        block[0..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&self.block_bytes.to_le_bytes());
        block[16..24].copy_from_slice(&self.first.to_le_bytes());
        block[24..32].copy_from_slice(&self.segment_bytes.to_le_bytes());
        block[32..40].copy_from_slice(&self.salt.to_le_bytes());
        block[40..48].copy_from_slice(&self.stable.to_le_bytes());
        block[48..56].copy_from_slice(&self.continues.to_le_bytes());
        block[STORE_AT..CRC_AT].copy_from_slice(&self.store);
        let crc = crc32fast::hash(&block[..CRC_AT]);
        block[CRC_AT..SEGMENT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header from the front of a segment.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, NoHeader> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk().ok_or(NoHeader::Absent)?;
        let crc = u32::from_le_bytes(field(bytes, CRC_AT));
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..CRC_AT]) != crc {
            return Err(NoHeader::Absent);
        }
        let version = u32::from_le_bytes(field(bytes, 8));
        if version != VERSION {
            return Err(NoHeader::Version(version));
        }
        Ok(SegmentHeader {
            block_bytes: u32::from_le_bytes(field(bytes, 12)),
            first: Lsn::from_le_bytes(field(bytes, 16)),
            segment_bytes: u64::from_le_bytes(field(bytes, 24)),
            salt: u64::from_le_bytes(field(bytes, 32)),
            stable: Lsn::from_le_bytes(field(bytes, 40)),
            continues: Lsn::from_le_bytes(field(bytes, 48)),
            store: field(bytes, STORE_AT),
        })
    }
}

/// The `N` bytes at `at`, which lies inside the header.
fn field<const N: usize>(bytes: &[u8; SEGMENT_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::{CRC_AT, NoHeader, SEGMENT_HEADER_BYTES, SegmentHeader};

    const HEADER: SegmentHeader = SegmentHeader {
        block_bytes: 512,
        first: 0x2000,
        segment_bytes: 0x1000,
        salt: 0x0102_0304_0506_0708,
        stable: 0x1F00,
        continues: 0x1F40,
        store: *b"a store in tests",
    };

    fn block() -> Vec<u8> {
        let mut block = vec![0xEE; 512];
        HEADER.encode(&mut block);
        block
    }

    #[test]
    fn golden_bytes() {
        let block = block();
        let want: [u8; CRC_AT] = [
            b'P', b'a', b'g', b'e', b'L', b'o', b'g', 0, // magic
            1, 0, 0, 0, // version
            0, 2, 0, 0, // block
            0, 0x20, 0, 0, 0, 0, 0, 0, // first
            0, 0x10, 0, 0, 0, 0, 0, 0, // length
            8, 7, 6, 5, 4, 3, 2, 1, // salt
            0, 0x1F, 0, 0, 0, 0, 0, 0, // stable
            0x40, 0x1F, 0, 0, 0, 0, 0, 0, // continues
            b'a', b' ', b's', b't', b'o', b'r', b'e', b' ', b'i', b'n', b' ', b't', b'e', b's', b't', b's',
        ];
        assert_eq!(block[..CRC_AT], want);
        assert_eq!(block[CRC_AT..SEGMENT_HEADER_BYTES], GOLDEN_CRC);
        assert!(block[SEGMENT_HEADER_BYTES..].iter().all(|b| *b == 0), "the rest of the block is zero");
    }

    const GOLDEN_CRC: [u8; 4] = [6, 135, 161, 123];

    #[test]
    fn reads_back() {
        assert_eq!(SegmentHeader::decode(&block()), Ok(HEADER));
    }

    #[test]
    fn no_flipped_bit_and_no_truncation_is_a_header() {
        let whole = block();
        for len in 0..SEGMENT_HEADER_BYTES {
            assert_eq!(SegmentHeader::decode(&whole[..len]), Err(NoHeader::Absent), "cut at {len}");
        }
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), Err(NoHeader::Absent), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&[0; 512]), Err(NoHeader::Absent), "zeros");
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut bytes = block();
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..SEGMENT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(NoHeader::Version(9)));
    }
}
