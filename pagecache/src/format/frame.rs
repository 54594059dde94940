//! A frame: what is written to the `pages` file at once, with its identity. A page or what changed of it, a piece
//! of a large value, or a part of the page table.
//!
//! ```text
//!  0 crc32 u32   4 payload bytes u32   8 pid u48   14 kind u8   15 codec u8   16 seq u64   24 payload
//! ```
//!
//! * The checksum covers the store's name, the frame's offset, the header and the payload: a frame
//!   of another store, or one that landed elsewhere, is damage.
//! * A header of zeros is padding, never a frame: no kind is zero.
//!
//! Where frames lie is [`crate::store`]'s business; what payloads mean, that of the page's owner and of
//! [`super::delta`], [`super::map`] and [`super::directory`].

use crate::{error::DecodeError, format::bytes::Source};

/// Bytes in front of the payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// Largest page id that a header holds, plus one.
pub(crate) const FRAME_PID_LIMIT: u64 = 1 << 48;
/// Largest payload, in bytes.
pub(crate) const FRAME_PAYLOAD_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FrameKind {
    /// A whole page.
    Image = 1,
    /// All changes of a page since its last durable form, as [`super::delta`] has them.
    DeltaPage = 2,
    /// Where 256 pages lie; the pid is the map page's number.
    MapPage = 3,
    /// Where the groups of map pages lie; the pid is 0.
    Directory = 4,
    /// A piece of a large value, which [`super::value`] lists.
    Value = 5,
    /// Where the map pages of one group lie; the pid is the group's number.
    MapIndex = 6,
    /// Changed entries of a group's map pages; the pid is the group's number.
    MapChanges = 7,
}

impl FrameKind {
    /// True for what a store may pack: large values come as they are asked for, and the page table is small.
    pub(crate) fn may_be_packed(self) -> bool {
        matches!(self, FrameKind::Image | FrameKind::DeltaPage)
    }

    fn from_byte(byte: u8) -> Option<FrameKind> {
        Some(match byte {
            1 => FrameKind::Image,
            2 => FrameKind::DeltaPage,
            3 => FrameKind::MapPage,
            4 => FrameKind::Directory,
            5 => FrameKind::Value,
            6 => FrameKind::MapIndex,
            7 => FrameKind::MapChanges,
            _ => return None,
        })
    }
}

/// How a payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As it is.
    Plain = 0,
    /// As [`super::packed`] has it: images and delta-pages alone.
    Lz4 = 1,
}

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) pid: u64,
    pub(crate) seq: u64,
    pub(crate) kind: FrameKind,
    pub(crate) codec: Codec,
    /// As they are written.
    pub(crate) payload_bytes: u32,
}

impl FrameHeader {
    /// The whole frame's length in bytes.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// Writes everything but the checksum, which [`FrameSeed::seal`] adds once the place is known.
    ///
    /// # Panics
    ///
    /// If the pid needs more than 48 bits; pids are bounded long before.
    pub(crate) fn encode(&self, out: &mut [u8; FRAME_HEADER_BYTES]) {
        assert!(self.pid < FRAME_PID_LIMIT, "page id {} exceeds 48 bits", self.pid);
        out[..4].fill(0);
        out[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[8..14].copy_from_slice(&self.pid.to_le_bytes()[..6]);
        out[14] = self.kind as u8;
        out[15] = self.codec as u8;
        out[16..24].copy_from_slice(&self.seq.to_le_bytes());
    }

    /// Reads a header whose checksum is not yet known to be right.
    pub(crate) fn decode(bytes: &[u8]) -> Result<FrameHeader, DecodeError> {
        let mut source = Source::new(bytes);
        source.take(4, "the frame checksum")?;
        let payload_bytes = source.u32("the frame length")?;
        let packed = source.u64("the page id")?;
        let [.., kind, codec] = packed.to_le_bytes();
        let seq = source.u64("the page's number")?;
        let codec = match codec {
            0 => Codec::Plain,
            1 => Codec::Lz4,
            _ => {
                return Err(DecodeError(format!(
                    "frame is packed with codec {codec}, which this version does not know; open the store with a newer one"
                )));
            }
        };
        let Some(kind) = FrameKind::from_byte(kind) else {
            return Err(DecodeError(format!("frame is of kind {kind}, which this version does not know")));
        };
        if codec != Codec::Plain && !kind.may_be_packed() {
            return Err(DecodeError(format!("frame of kind {kind:?} is packed, which only pages are")));
        }
        Ok(FrameHeader { pid: packed & (FRAME_PID_LIMIT - 1), seq, kind, codec, payload_bytes })
    }
}

/// The part of every frame's checksum that comes from its store.
#[derive(Clone, Debug)]
pub(crate) struct FrameSeed(crc32fast::Hasher);

impl FrameSeed {
    pub(crate) fn new(uuid: &[u8; 16]) -> FrameSeed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(uuid);
        FrameSeed(hasher)
    }

    /// `covered` is the frame from its fifth byte on.
    fn checksum(&self, offset: u64, covered: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&offset.to_le_bytes());
        hasher.update(covered);
        hasher.finalize()
    }

    /// Completes a frame that will lie at `offset`. May be repeated for another place.
    pub(crate) fn seal(&self, offset: u64, frame: &mut [u8]) {
        let (crc, covered) = frame.split_at_mut(4);
        crc.copy_from_slice(&self.checksum(offset, covered).to_le_bytes());
    }

    /// As [`FrameSeed::open`], of a frame whose header and payload lie apart in memory.
    pub(crate) fn open_parts(
        &self,
        offset: u64,
        head: &[u8; FRAME_HEADER_BYTES],
        payload: &[u8],
    ) -> Result<FrameHeader, DecodeError> {
        let written = Source::new(head).u32("the frame checksum")?;
        let mut hasher = self.0.clone();
        hasher.update(&offset.to_le_bytes());
        hasher.update(&head[4..]);
        hasher.update(payload);
        let found = hasher.finalize();
        if found != written {
            return Err(DecodeError(format!("frame checksum is {found:08x}, {written:08x} was written")));
        }
        let header = FrameHeader::decode(head)?;
        if header.payload_bytes as usize != payload.len() {
            let (said, is) = (header.payload_bytes, payload.len());
            return Err(DecodeError(format!("frame says {said} bytes of payload, its address {is}")));
        }
        Ok(header)
    }

    /// Reads and verifies the frame that `bytes`, found at `offset`, consist of.
    pub(crate) fn open<'a>(
        &self,
        offset: u64,
        bytes: &'a [u8],
    ) -> Result<(FrameHeader, &'a [u8]), DecodeError> {
        let mut source = Source::new(bytes);
        let written = source.u32("the frame checksum")?;
        let found = self.checksum(offset, bytes.get(4..).unwrap_or(&[]));
        if found != written {
            return Err(DecodeError(format!("frame checksum is {found:08x}, {written:08x} was written")));
        }
        let header = FrameHeader::decode(bytes)?;
        if header.frame_bytes() != bytes.len() as u64 {
            let (said, is) = (header.frame_bytes(), bytes.len());
            return Err(DecodeError(format!("frame says {said} bytes, its address {is}")));
        }
        Ok((header, &bytes[FRAME_HEADER_BYTES..]))
    }
}

#[cfg(test)]
mod tests {
    use super::{Codec, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FrameSeed};

    const UUID: [u8; 16] = *b"a store's uuid!!";

    fn frame(header: FrameHeader, offset: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES + payload.len()];
        header.encode(bytes.first_chunk_mut().expect("long enough"));
        bytes[FRAME_HEADER_BYTES..].copy_from_slice(payload);
        FrameSeed::new(&UUID).seal(offset, &mut bytes);
        bytes
    }

    fn header() -> FrameHeader {
        FrameHeader {
            pid: 0x0605_0403_0201,
            seq: 9,
            kind: FrameKind::MapPage,
            codec: Codec::Plain,
            payload_bytes: 3,
        }
    }

    #[test]
    fn every_kind_reads_back() {
        for kind in [
            FrameKind::Image,
            FrameKind::DeltaPage,
            FrameKind::MapPage,
            FrameKind::Directory,
            FrameKind::Value,
        ] {
            let header = FrameHeader { kind, ..header() };
            let bytes = frame(header, 4096, b"abc");
            assert_eq!(FrameSeed::new(&UUID).open(4096, &bytes), Ok((header, b"abc".as_slice())), "{kind:?}");
        }
    }

    #[test]
    fn packed_pages_read_back_and_nothing_else_is_packed() {
        let seed = FrameSeed::new(&UUID);
        for (kind, is_packed) in [
            (FrameKind::Image, true),
            (FrameKind::DeltaPage, true),
            (FrameKind::MapPage, false),
            (FrameKind::Directory, false),
            (FrameKind::Value, false),
            (FrameKind::MapIndex, false),
            (FrameKind::MapChanges, false),
        ] {
            let header = FrameHeader { kind, codec: Codec::Lz4, ..header() };
            let bytes = frame(header, 4096, b"abc");
            assert_eq!(bytes[15], 1);
            let opened = seed.open(4096, &bytes);
            match is_packed {
                true => assert_eq!(opened, Ok((header, b"abc".as_slice())), "{kind:?}"),
                false => assert!(opened.is_err_and(|why| why.0.contains("only pages")), "{kind:?}"),
            }
        }
    }

    #[test]
    fn bytes_are_these() {
        let bytes = frame(header(), 8192, b"abc");
        let mut plain = Vec::from(UUID);
        plain.extend_from_slice(&[0, 0x20, 0, 0, 0, 0, 0, 0]);
        let covered = [3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 3, 0, 9, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c'];
        plain.extend_from_slice(&covered);
        assert_eq!(bytes[4..], covered);
        assert_eq!(bytes[..4], crc32fast::hash(&plain).to_le_bytes());
        assert_eq!(bytes[..4], [212, 176, 251, 110]);
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_an_error() {
        let seed = FrameSeed::new(&UUID);
        let bytes = frame(header(), 512, b"abc");
        for len in 0..bytes.len() {
            assert!(seed.open(512, &bytes[..len]).is_err(), "cut to {len} bytes");
        }
        let mut changed = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(seed.open(512, &changed).is_err(), "bit {bit}");
            changed[bit / 8] ^= 1 << (bit % 8);
        }
        changed.push(0);
        assert!(seed.open(512, &changed).is_err(), "a byte too many");
    }

    #[test]
    fn a_misplaced_frame_and_a_strangers_frame_are_damage() {
        let bytes = frame(header(), 4096, b"abc");
        assert!(FrameSeed::new(&UUID).open(4096, &bytes).is_ok());
        assert!(FrameSeed::new(&UUID).open(8192, &bytes).is_err());
        assert!(FrameSeed::new(b"another stores u").open(4096, &bytes).is_err());
    }

    #[test]
    fn unknown_codecs_kinds_and_padding_are_refused_by_name() {
        for (name, at, value, want) in [
            (
                "codec",
                15,
                2,
                "packed with codec 2, which this version does not know; open the store with a newer one",
            ),
            ("kind", 14, 9, "kind 9"),
            ("padding", 14, 0, "kind 0"),
        ] {
            let mut bytes = frame(header(), 512, b"abc");
            bytes[at] = value;
            let seed = FrameSeed::new(&UUID);
            seed.seal(512, &mut bytes);
            let found = seed.open(512, &bytes).expect_err(name).0;
            assert!(found.contains(want), "{name}: {found}");
        }
    }
}
