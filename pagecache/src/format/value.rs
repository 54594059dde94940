//! Where a large value lies: the frames that hold its bytes, in order.
//!
//! ```text
//! bytes (varint) | extents (varint) | {offset, len, crc u32} ...
//! ```
//!
//! The same list stands in the log record that adopts a value and, later, in its page's map entry.
//!
//! * An extent is one frame of kind 5 inside one segment; the payloads end to end are the value.
//! * The length is the sum of the extents', none of which is empty.
//! * The checksum of each frame is kept here too, so that bytes of an earlier value of the page, which
//!   would be valid in themselves, never pass for those of this one.
//!
//! How values are written is the business of [`crate::cache`], how they are read that of [`crate::store`].

use crate::{
    error::DecodeError,
    format::{
        bytes::{Source, put_varint},
        frame::FRAME_HEADER_BYTES,
        map::{addr, put_addr},
    },
    ids::FragmentAddr,
};

/// Longest value, in bytes.
pub(crate) const VALUE_BYTES_MAX: u64 = 1 << 30;
/// Bytes that an extent takes in a list, at least.
const EXTENT_BYTES_MIN: usize = 6;
/// Bytes that an extent takes in a list, at most.
const EXTENT_BYTES_MAX: usize = 10 + 5 + 4;

/// One frame of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) addr: FragmentAddr,
    /// The checksum in the frame's header.
    pub(crate) crc: u32,
}

impl Extent {
    /// Bytes of the value in it.
    pub(crate) fn payload_bytes(&self) -> u64 {
        u64::from(self.addr.len).saturating_sub(FRAME_HEADER_BYTES as u64)
    }
}

/// A value's frames, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extents(pub(crate) Vec<Extent>);

impl Extents {
    /// Bytes of the value.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(Extent::payload_bytes).sum()
    }

    pub(crate) fn addrs(&self) -> impl Iterator<Item = FragmentAddr> {
        self.0.iter().map(|extent| extent.addr)
    }

    /// Bytes of memory that the list takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Extent>()
    }

    /// Bytes that [`Extents::encode`] adds, at most.
    pub(crate) fn encoded_bytes_max(&self) -> usize {
        2 * 10 + self.0.len() * EXTENT_BYTES_MAX
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.bytes());
        put_varint(out, self.0.len() as u64);
        for extent in &self.0 {
            put_addr(out, extent.addr);
            out.extend_from_slice(&extent.crc.to_le_bytes());
        }
    }

    pub(crate) fn decode(source: &mut Source<'_>) -> Result<Extents, DecodeError> {
        let bytes = source.varint("a value's length")?;
        let count = source.count(EXTENT_BYTES_MIN, "the number of extents")?;
        let extent = |source: &mut Source<'_>| {
            let extent = Extent { addr: addr(source)?, crc: source.u32("an extent's checksum")? };
            match extent.payload_bytes() {
                0 => Err(DecodeError(format!("an extent of {} bytes holds nothing", extent.addr.len))),
                _ => Ok(extent),
            }
        };
        let extents = (0..count).map(|_| extent(source)).collect::<Result<_, _>>().map(Extents)?;
        if extents.bytes() != bytes || bytes > VALUE_BYTES_MAX {
            let found = extents.bytes();
            return Err(DecodeError(format!("a value of {bytes} bytes has extents of {found}")));
        }
        Ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::{Extent, Extents};
    use crate::{format::bytes::Source, ids::FragmentAddr};

    fn sample() -> Extents {
        let extent = |offset, len, crc| Extent { addr: FragmentAddr { offset, len }, crc };
        Extents(vec![extent(8192, 1 << 20, 7), extent(1 << 33, 25, u32::MAX)])
    }

    #[test]
    fn lists_read_back_and_no_truncation_of_one_does() {
        for extents in [sample(), Extents::default()] {
            let mut bytes = Vec::new();
            extents.encode(&mut bytes);
            assert!(bytes.len() <= extents.encoded_bytes_max());
            let mut source = Source::new(&bytes);
            assert_eq!(Extents::decode(&mut source).as_ref(), Ok(&extents));
            assert!(source.is_empty());
            for len in 0..bytes.len() {
                assert!(Extents::decode(&mut Source::new(&bytes[..len])).is_err(), "cut to {len}");
            }
        }
    }

    #[test]
    fn bytes_are_these() {
        let mut bytes = Vec::new();
        Extents(vec![Extent { addr: FragmentAddr { offset: 8192, len: 27 }, crc: 0x0403_0201 }])
            .encode(&mut bytes);
        assert_eq!(bytes, [3, 1, 0x80, 0x40, 27, 1, 2, 3, 4]);
    }

    #[test]
    fn lists_that_hold_something_else_than_they_say_are_refused() {
        for (name, bytes) in [
            ("an empty extent", &[0, 1, 0x80, 0x40, 24, 1, 2, 3, 4][..]),
            ("another length", &[4, 1, 0x80, 0x40, 27, 1, 2, 3, 4]),
            ("more extents than bytes", &[3, 9, 0x80, 0x40, 27, 1, 2, 3, 4]),
        ] {
            assert!(Extents::decode(&mut Source::new(bytes)).is_err(), "{name}");
        }
    }
}
