//! The superblock: the one block that says where everything else of a store lies.
//!
//! One block long, everything that counts in its first 256 bytes, so that a sector holds it whole;
//! the rest is zero. Two slots hold one each, at byte 0 and right behind it.
//!
//! ```text
//!   0 magic "PageStor"   8 version u32        12 crc32 of the block with these four bytes zero
//!  16 block_bytes u32   20 log_segment u32    24 store_segment u32
//!  28 compatible u32    32 read_only_comp u32 36 incompatible u32
//!  40 uuid [16]         56 generation u64     64 replay_from i64       72 stable i64
//!  80 flags u8          81 salts u8           82 zero u16              84 directory crc u32
//!  88 directory at u64  96 directory len u32 100 zero u32             104 8 x {from i64, salt u64}
//! 232 log bytes u64   240 log begun i64
//! ```
//!
//! * Magic, version, checksum and `block_bytes` stay where they are in every later version, so that
//!   a newer store is told from a damaged one.
//! * The checksum covers the whole block: any changed bit is damage.
//!
//! Which slot counts and how they are written is [`crate::store::superblocks`]' business.

use std::fmt;

use crate::{
    error::DecodeError,
    format::bytes::Source,
    ids::{FragmentAddr, Lsn},
};

/// The first bytes of every store.
const MAGIC: [u8; 8] = *b"PageStor";
/// The version this code writes, and the newest it reads.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a salt and the position from which it is valid.
const SALT_BYTES: usize = 16;
/// Most salts that one superblock holds; a full list forces a checkpoint.
pub(crate) const SALTS_MAX: usize = 8;
/// Smallest block, in bytes.
pub(crate) const BLOCK_BYTES_MIN: u32 = 512;
/// Largest block, in bytes.
pub(crate) const BLOCK_BYTES_MAX: u32 = 64 << 10;

const CRC: std::ops::Range<usize> = 12..16;
/// What is said of the log's file, behind the salts.
const LOG: std::ops::Range<usize> = 232..248;
const FLAG_CLEAN: u8 = 1;
const FLAG_DIRECTORY: u8 = 2;

/// Sizes fixed at creation, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Unit of atomicity: what a superblock refers to never shares one with later writes.
    pub(crate) block_bytes: u32,
    /// One segment of the log.
    pub(crate) log_segment_bytes: u32,
    /// One segment of the `pages` file.
    pub(crate) store_segment_bytes: u32,
}

impl Geometry {
    /// Says what is wrong with the sizes, if anything.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        let block = self.block_bytes;
        if !block.is_power_of_two() || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block) {
            return Err(DecodeError(format!(
                "a block of {block} bytes is no power of two from 512 to 65536"
            )));
        }
        for (what, bytes) in
            [("log segment", self.log_segment_bytes), ("store segment", self.store_segment_bytes)]
        {
            if bytes == 0 || !bytes.is_multiple_of(block) {
                return Err(DecodeError(format!(
                    "a {what} of {bytes} bytes is no multiple of a block of {block}"
                )));
            }
        }
        Ok(())
    }
}

/// Where the directory lies, and the checksum of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryRef {
    pub(crate) addr: FragmentAddr,
    pub(crate) crc: u32,
}

/// Format extensions in use, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Code that does not know one may read and write all the same.
    pub(crate) compatible: u32,
    /// Code that does not know one may only read.
    pub(crate) read_only_compatible: u32,
    /// Code that does not know one must not open the store.
    pub(crate) incompatible: u32,
}

/// The state of a store as of one publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Names the store; every checksum of a frame is seeded with it.
    pub(crate) uuid: [u8; 16],
    /// One more with each publication; the higher valid one counts.
    pub(crate) generation: u64,
    /// T: replay starts here.
    pub(crate) replay_from: Lsn,
    /// The log was durable up to here at least when this was written.
    pub(crate) stable: Lsn,
    /// The store was closed and the log holds nothing that the directory lacks.
    pub(crate) clean: bool,
    /// From which position on the log is sealed with which salt; at most [`SALTS_MAX`], ascending.
    pub(crate) salts: Vec<(Lsn, u64)>,
    pub(crate) geometry: Geometry,
    /// None while nothing was ever checkpointed.
    pub(crate) directory: Option<DirectoryRef>,
    pub(crate) features: Features,
    /// The log's file had at least this many bytes, durably; 0 if it was cut since.
    pub(crate) log_bytes: u64,
    /// The log segment that starts here was on the disk, with its header, before this was written; 0 if that
    /// is said of none.
    pub(crate) log_begun: Lsn,
}

/// Why a block is no superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockError {
    /// It never was one.
    NotAStore,
    /// It was written by later code.
    Newer { version: u32 },
    /// It was one.
    Damaged(DecodeError),
}

impl fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SuperblockError::NotAStore => f.write_str("no mark of a store"),
            SuperblockError::Newer { version } => write!(
                f,
                "the store has format {version} and this version reads up to {VERSION}; open it with a newer version"
            ),
            SuperblockError::Damaged(what) => what.fmt(f),
        }
    }
}

impl From<DecodeError> for SuperblockError {
    fn from(what: DecodeError) -> SuperblockError {
        SuperblockError::Damaged(what)
    }
}

impl Superblock {
    /// The block's bytes.
    ///
    /// # Panics
    ///
    /// If there are more than [`SALTS_MAX`] salts or the geometry is none; the caller keeps both.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.salts.len() <= SALTS_MAX, "a superblock of {} salts", self.salts.len());
        assert_eq!(self.geometry.check(), Ok(()), "a superblock with an impossible geometry");
        let block_bytes = self.geometry.block_bytes as usize;
        let mut out = Vec::with_capacity(block_bytes);
        out.extend_from_slice(&MAGIC);
        for number in [
            VERSION,
            0, // the checksum, below
            self.geometry.block_bytes,
            self.geometry.log_segment_bytes,
            self.geometry.store_segment_bytes,
            self.features.compatible,
            self.features.read_only_compatible,
            self.features.incompatible,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.replay_from.to_le_bytes());
        out.extend_from_slice(&self.stable.to_le_bytes());
        self.encode_directory(&mut out);
        for (from, salt) in &self.salts {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&salt.to_le_bytes());
        }
        out.resize(LOG.start, 0);
        out.extend_from_slice(&self.log_bytes.to_le_bytes());
        out.extend_from_slice(&self.log_begun.to_le_bytes());
        out.resize(block_bytes, 0);
        let crc = checksum(&out);
        out[CRC].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn encode_directory(&self, out: &mut Vec<u8>) {
        let clean = if self.clean { FLAG_CLEAN } else { 0 };
        let present = if self.directory.is_some() { FLAG_DIRECTORY } else { 0 };
        let DirectoryRef { addr, crc } =
            self.directory.unwrap_or(DirectoryRef { addr: FragmentAddr { offset: 0, len: 0 }, crc: 0 });
        out.extend_from_slice(&[clean | present, self.salts.len() as u8, 0, 0]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&addr.offset.to_le_bytes());
        out.extend_from_slice(&addr.len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    /// Reads the superblock at the front of `bytes`, which may go on behind it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Superblock, SuperblockError> {
        let mut source = Source::new(bytes);
        if source.take(MAGIC.len(), "the magic")? != MAGIC {
            return Err(SuperblockError::NotAStore);
        }
        let version = source.u32("the version")?;
        let crc = source.u32("the checksum")?;
        let block_bytes = source.u32("the block size")?;
        if !block_bytes.is_power_of_two() || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes) {
            return Err(DecodeError(format!("superblock of {block_bytes} bytes")).into());
        }
        let block = Source::new(bytes).take(block_bytes as usize, "the superblock")?;
        let found = checksum(block);
        if found != crc {
            return Err(
                DecodeError(format!("superblock checksum is {found:08x}, {crc:08x} was written")).into()
            );
        }
        if version != VERSION {
            return Err(SuperblockError::Newer { version });
        }
        Ok(Superblock::decode_body(source, block_bytes)?)
    }

    fn decode_body(mut source: Source<'_>, block_bytes: u32) -> Result<Superblock, DecodeError> {
        let geometry = Geometry {
            block_bytes,
            log_segment_bytes: source.u32("the log segment size")?,
            store_segment_bytes: source.u32("the store segment size")?,
        };
        geometry.check()?;
        let features = Features {
            compatible: source.u32("the features")?,
            read_only_compatible: source.u32("the features")?,
            incompatible: source.u32("the features")?,
        };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(source.take(16, "the name")?);
        let generation = source.u64("the generation")?;
        let replay_from = source.i64("the replay position")?;
        let stable = source.i64("the stable position")?;
        let flags = source.u8("the flags")?;
        let salt_count = usize::from(source.u8("the number of salts")?);
        if flags & !(FLAG_CLEAN | FLAG_DIRECTORY) != 0 || salt_count > SALTS_MAX {
            return Err(DecodeError(format!("superblock has flags {flags:02x} and {salt_count} salts")));
        }
        source.take(2, "a gap")?;
        let crc = source.u32("the directory's checksum")?;
        let addr = FragmentAddr {
            offset: source.u64("the directory's place")?,
            len: source.u32("the directory's length")?,
        };
        source.take(4, "a gap")?;
        let mut salts = Vec::with_capacity(salt_count);
        for _ in 0..salt_count {
            salts.push((source.i64("a salt's position")?, source.u64("a salt")?));
        }
        source.take((SALTS_MAX - salt_count) * SALT_BYTES, "a gap")?;
        let log_bytes = source.u64("the log's length")?;
        let log_begun = source.i64("the log's begun segment")?;
        let directory = (flags & FLAG_DIRECTORY != 0).then_some(DirectoryRef { addr, crc });
        let clean = flags & FLAG_CLEAN != 0;
        Ok(Superblock {
            uuid,
            generation,
            replay_from,
            stable,
            clean,
            salts,
            geometry,
            directory,
            features,
            log_bytes,
            log_begun,
        })
    }
}

/// Over the whole block, with the checksum's own bytes taken as zero.
fn checksum(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..CRC.start]);
    hasher.update(&[0; 4]);
    hasher.update(&block[CRC.end..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::{CRC, DirectoryRef, Features, Geometry, Superblock, SuperblockError, checksum};
    use crate::ids::FragmentAddr;

    fn full() -> Superblock {
        Superblock {
            uuid: *b"0123456789abcdef",
            generation: 7,
            replay_from: 100,
            stable: -2,
            clean: true,
            salts: (1..=8u8).map(|n| (i64::from(n) * 10, 0x0101 * u64::from(n))).collect(),
            geometry: Geometry { block_bytes: 512, log_segment_bytes: 1024, store_segment_bytes: 2048 },
            directory: Some(DirectoryRef {
                addr: FragmentAddr { offset: 0x1234, len: 99 },
                crc: 0xdead_beef,
            }),
            features: Features { compatible: 1, read_only_compatible: 2, incompatible: 3 },
            log_bytes: 0x5678,
            log_begun: 0x0400,
        }
    }

    fn sealed(mut block: Vec<u8>) -> Vec<u8> {
        let crc = checksum(&block);
        block[CRC].copy_from_slice(&crc.to_le_bytes());
        block
    }

    #[test]
    fn every_field_reads_back() {
        let empty = Superblock {
            salts: Vec::new(),
            directory: None,
            clean: false,
            geometry: Geometry { block_bytes: 4096, log_segment_bytes: 4096, store_segment_bytes: 8192 },
            ..full()
        };
        for sb in [full(), empty] {
            let mut bytes = sb.encode();
            assert_eq!(bytes.len(), sb.geometry.block_bytes as usize);
            assert_eq!(Superblock::decode(&bytes), Ok(sb.clone()));
            bytes.extend_from_slice(b"what follows");
            assert_eq!(Superblock::decode(&bytes), Ok(sb));
        }
    }

    #[test]
    fn bytes_are_these() {
        let bytes = full().encode();
        let mut want = Vec::new();
        want.extend_from_slice(b"PageStor");
        want.extend_from_slice(&[1, 0, 0, 0]);
        want.extend_from_slice(&bytes[CRC]);
        want.extend_from_slice(&[0, 2, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0]);
        want.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
        want.extend_from_slice(b"0123456789abcdef");
        want.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0]);
        want.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        want.extend_from_slice(&[3, 8, 0, 0, 0xef, 0xbe, 0xad, 0xde]);
        want.extend_from_slice(&[0x34, 0x12, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0]);
        for n in 1..=8u8 {
            want.extend_from_slice(&[n * 10, 0, 0, 0, 0, 0, 0, 0, n, n, 0, 0, 0, 0, 0, 0]);
        }
        want.extend_from_slice(&[0x78, 0x56, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);
        want.resize(512, 0);
        assert_eq!(bytes, want);
        assert_eq!(bytes[CRC], GOLDEN_CRC);
    }

    const GOLDEN_CRC: [u8; 4] = [166, 29, 70, 238];

    #[test]
    fn every_changed_bit_and_every_cut_is_an_error() {
        let bytes = full().encode();
        for len in 0..bytes.len() {
            assert!(Superblock::decode(&bytes[..len]).is_err(), "cut to {len} bytes");
        }
        let mut changed = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&changed).is_err(), "bit {bit}");
            changed[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_stranger_a_newer_format_and_damage_are_told_apart() {
        assert_eq!(Superblock::decode(&[0; 512]), Err(SuperblockError::NotAStore));
        let mut newer = full().encode();
        newer[8] = 2;
        assert!(matches!(Superblock::decode(&newer), Err(SuperblockError::Damaged(_))), "not sealed");
        assert_eq!(Superblock::decode(&sealed(newer)), Err(SuperblockError::Newer { version: 2 }));
    }

    #[test]
    fn sealed_nonsense_is_damage() {
        for (name, at, value) in [
            ("block size", 16, 3),
            ("log segment", 20, 1),
            ("store segment", 24, 1),
            ("flags", 80, 4),
            ("salts", 81, 9),
        ] {
            let mut block = full().encode();
            block[at] = value;
            let got = Superblock::decode(&sealed(block));
            assert!(matches!(got, Err(SuperblockError::Damaged(_))), "{name}: {got:?}");
        }
    }
}
