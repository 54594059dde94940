//! A run: a batch too large for one record, as parts and the record that ends them (P-2).
//!
//! ```text
//! part: first i64 | index u32 | the next bytes of the batch's payload, cut anywhere
//! end:  first i64 | parts u32 | bytes u64 | crc u32
//!       | tallies, {counter, zigzag sum} | has recovery u8 [value]
//! ```
//!
//! `first` is the LSN of the run's first part, which names itself. `crc` is a checksum over the LSN and
//! the checksum of each part's bytes, so that an end is that of its own parts and of no others. Without
//! its end a part is nothing. Counts of tallies are varints.

use crc32fast::Hasher;

use super::bytes::{Source, put_varint, put_zigzag};
use crate::{error::DecodeError, ids::Lsn};

/// Bytes of a part before its share of the payload.
pub(crate) const PART_HEADER_BYTES: usize = 12;

/// A part, as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'b> {
    pub(crate) first: Lsn,
    pub(crate) index: u32,
    pub(crate) bytes: &'b [u8],
}

/// Writes a part over all of `out`.
pub(crate) fn put_part(out: &mut [u8], part: Part<'_>) {
    let (header, rest) = out.split_at_mut(PART_HEADER_BYTES);
    header[..8].copy_from_slice(&part.first.to_le_bytes());
    header[8..].copy_from_slice(&part.index.to_le_bytes());
    rest.copy_from_slice(part.bytes);
}

/// Reads a part.
pub(crate) fn read_part(bytes: &[u8]) -> Result<Part<'_>, DecodeError> {
    let mut source = Source::new(bytes);
    let first = source.i64("the first position of a run")?;
    let index = source.u32("the index of a part")?;
    Ok(Part { first, index, bytes: &bytes[PART_HEADER_BYTES..] })
}

/// The checksum over a run's parts, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartsSum(Hasher);

impl PartsSum {
    pub(crate) fn add(&mut self, lsn: Lsn, bytes: &[u8]) {
        self.0.update(&lsn.to_le_bytes());
        self.0.update(&crc32fast::hash(bytes).to_le_bytes());
    }

    pub(crate) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// What ends a run, and speaks for all of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunEnd {
    pub(crate) first: Lsn,
    pub(crate) parts: u32,
    /// Bytes of the batch's payload in all parts together.
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    /// What the batch adds to each counter.
    pub(crate) tallies: Vec<(u64, i64)>,
    /// The value to recover, encoded, if a fragment of the run carries one.
    pub(crate) recovery: Option<Vec<u8>>,
}

impl RunEnd {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.parts.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        put_varint(&mut out, self.tallies.len() as u64);
        for (counter, sum) in &self.tallies {
            put_varint(&mut out, *counter);
            put_zigzag(&mut out, *sum);
        }
        out.push(u8::from(self.recovery.is_some()));
        out.extend_from_slice(self.recovery.as_deref().unwrap_or_default());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<RunEnd, DecodeError> {
        let mut source = Source::new(bytes);
        let first = source.i64("the first position of a run")?;
        let parts = source.u32("the parts of a run")?;
        let len = source.u64("the bytes of a run")?;
        let crc = source.u32("the checksum of a run")?;
        let count = source.count(2, "the tallies of a run")?;
        let mut tallies = Vec::with_capacity(count);
        for _ in 0..count {
            tallies.push((source.varint("a counter")?, source.zigzag("a sum")?));
        }
        let recovery = match source.u8("whether a run has a recovery value")? {
            0 => {
                source.end("the end of a run")?;
                None
            }
            1 => Some(source.rest().to_vec()),
            other => return Err(DecodeError(format!("{other} says whether a run has a recovery value"))),
        };
        Ok(RunEnd { first, parts, bytes: len, crc, tallies, recovery })
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, PartsSum, RunEnd, put_part, read_part};

    fn end(recovery: Option<Vec<u8>>) -> RunEnd {
        RunEnd { first: 0x0102, parts: 3, bytes: 500, crc: 0xAABB_CCDD, tallies: vec![(1, -2)], recovery }
    }

    #[test]
    fn a_part_and_an_end_have_these_bytes_and_read_back() {
        let mut out = [0; 15];
        let part = Part { first: 0x0102, index: 3, bytes: b"abc" };
        put_part(&mut out, part);
        assert_eq!(out, *b"\x02\x01\0\0\0\0\0\0\x03\0\0\0abc");
        assert_eq!(read_part(&out), Ok(part));
        let bytes = end(Some(b"xy".to_vec())).encode();
        let want = b"\x02\x01\0\0\0\0\0\0\x03\0\0\0\xf4\x01\0\0\0\0\0\0\xdd\xcc\xbb\xaa\x01\x01\x03\x01xy";
        assert_eq!(bytes, want);
        assert_eq!(RunEnd::decode(&bytes), Ok(end(Some(b"xy".to_vec()))));
        assert_eq!(RunEnd::decode(&end(None).encode()), Ok(end(None)));
    }

    #[test]
    fn every_truncation_and_every_addition_is_an_error() {
        let whole = end(None).encode();
        for len in 0..whole.len() {
            assert!(RunEnd::decode(&whole[..len]).is_err(), "cut at {len}");
        }
        assert!(RunEnd::decode(&[&whole[..], &[0]].concat()).is_err(), "a byte too many");
        for len in 0..12 {
            assert!(read_part(&[0; 15][..len]).is_err(), "a part cut at {len}");
        }
    }

    #[test]
    fn the_sum_tells_other_parts_other_places_and_another_order_apart() {
        let of = |parts: &[(i64, &[u8])]| {
            let mut sum = PartsSum::default();
            parts.iter().for_each(|(lsn, bytes)| sum.add(*lsn, bytes));
            sum.finish()
        };
        let whole = of(&[(20, b"ab"), (25, b"cd")]);
        for other in [
            of(&[(20, b"ab")]),
            of(&[(20, b"ab"), (26, b"cd")]),
            of(&[(20, b"ab"), (25, b"ce")]),
            of(&[(25, b"cd"), (20, b"ab")]),
            of(&[(20, b"abc"), (25, b"d")]),
        ] {
            assert_ne!(whole, other);
        }
    }
}
