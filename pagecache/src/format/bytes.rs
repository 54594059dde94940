//! A cursor over bytes from disk, and the small encodings that the formats share.
//!
//! * Reading never panics, and never allocates more than the bytes that are left can justify.
//! * Every value has exactly one encoding: a longer varint than needed is refused.
//!
//! What the bytes mean is the business of the other files of this folder.

use crate::error::DecodeError;

/// Bytes that are still to be read.
pub(crate) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Source<'a> {
        Source { rest: bytes }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError(format!("{what} needs {len} bytes, {} available", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError(format!("{what} needs {N} bytes, {} available", self.rest.len())));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn i64(&mut self, what: &str) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    /// Seven bits a byte, lowest first; the top bit says that another byte follows.
    pub(crate) fn varint(&mut self, what: &str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError(format!("{what} exceeds 64 bits")));
            }
            value |= bits << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError(format!("{what} is longer than needed")));
                }
                return Ok(value);
            }
        }
        Err(DecodeError(format!("{what} exceeds 64 bits")))
    }

    pub(crate) fn varint_u32(&mut self, what: &str) -> Result<u32, DecodeError> {
        let value = self.varint(what)?;
        u32::try_from(value).map_err(|_| DecodeError(format!("{what} of {value} exceeds 32 bits")))
    }

    /// A varint of a signed number, small for small distances from zero.
    pub(crate) fn zigzag(&mut self, what: &str) -> Result<i64, DecodeError> {
        let coded = self.varint(what)?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    /// A number of items of at least `item_bytes_min` each: more than could follow are refused, so
    /// that the caller may allocate for them.
    pub(crate) fn count(&mut self, item_bytes_min: usize, what: &str) -> Result<usize, DecodeError> {
        let count = self.varint(what)?;
        let fitting = self.rest.len() / item_bytes_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= fitting => Ok(count),
            _ => Err(DecodeError(format!("{what} of {count} exceeds the {fitting} that fit the bytes left"))),
        }
    }

    /// True if nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The bytes must end here.
    pub(crate) fn end(self, what: &str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError(format!("{what} is followed by {left} bytes that belong to nothing"))),
        }
    }
}

/// Appends `value`, seven bits a byte.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, short when it is close to zero.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use super::{Source, put_varint, put_zigzag};

    #[test]
    fn numbers_read_back_and_each_has_one_encoding() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(Source::new(&out).varint("it"), Ok(value));
            for len in 0..out.len() {
                assert!(Source::new(&out[..len]).varint("it").is_err(), "{value} cut to {len} bytes");
            }
            let last = out.len() - 1;
            out[last] |= 0x80;
            out.push(0);
            assert!(Source::new(&out).varint("it").is_err(), "{value} with a byte too many");
        }
        for value in [0, 1, -1, 63, -64, 64, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_zigzag(&mut out, value);
            assert_eq!(Source::new(&out).zigzag("it"), Ok(value));
        }
        assert!(Source::new(&[0xff; 10]).varint("it").is_err(), "70 bits");
    }

    #[test]
    fn a_count_never_exceeds_what_the_bytes_can_hold() {
        let mut out = Vec::new();
        put_varint(&mut out, 3);
        out.extend_from_slice(&[0; 11]);
        assert!(Source::new(&out).count(4, "items").is_err());
        out.push(0);
        assert_eq!(Source::new(&out).count(4, "items"), Ok(3));
    }
}
