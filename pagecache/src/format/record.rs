//! Log records: a header of 24 bytes, then the payload, unaligned and without a trailer.
//!
//! ```text
//!  0        4        8              14     15      16             24
//!  | crc    | length | page id (48) | kind | state | page sequence | payload ...
//! ```
//!
//! Integers are little-endian; `length` counts the payload alone. The checksum is crc32 over the
//! salt of the epoch, the record's LSN, the header from byte 4 on with the state byte as 0, and the
//! payload, XORed with the constant of its [`State`]. So a record read at another position, or left
//! over from an earlier epoch, is no record; and no flipped bit turns one state into another.
//!
//! A *pad* closes a buffer: it reaches the next block border that is at least [`PAD_BYTES_MIN`]
//! away. Its checksum covers the header and the first 8 bytes of its payload, the stable LSN when it
//! was written; the rest of its length is zero when written and never looked at.
//!
//! Where records lie in segments and blocks is the business of [`super::segment`] and the log.

use std::fmt;

use crc32fast::Hasher;

use crate::ids::{Lsn, PageId, PageSeq};

/// Bytes of a record that are not payload.
pub(crate) const HEADER_BYTES: usize = 24;
/// Shortest pad: its header and the stable mark.
pub(crate) const PAD_BYTES_MIN: usize = HEADER_BYTES + MARK_BYTES;

const MARK_BYTES: usize = 8;
const STATE_AT: usize = 15;
const PAGE_ID_BYTES: usize = 6;

/// What a record says about its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A fragment on top of the ones before.
    Append = 1,
    /// A fragment that stands for all before.
    Base = 2,
    /// The page is given back.
    Free = 3,
    /// Several changes that hold together or not at all.
    Batch = 4,
    /// Fills a buffer up to a block border and carries the stable mark.
    Pad = 5,
    /// Kept for bytes written beforehand that become a page; not written: an entry of a batch does so.
    Adopt = 6,
    /// A part of a batch too large for one record.
    RunPart = 7,
    /// The end of such a batch.
    RunCommit = 8,
    /// Bytes of a caller that uses the log alone.
    Raw = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Append,
            2 => Kind::Base,
            3 => Kind::Free,
            4 => Kind::Batch,
            5 => Kind::Pad,
            6 => Kind::Adopt,
            7 => Kind::RunPart,
            8 => Kind::RunCommit,
            9 => Kind::Raw,
            _ => return None,
        })
    }
}

/// How a record ended. Written twice: in the checksum, which decides, and in the state byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// It counts.
    Ok = 1,
    /// Its writer gave it up; readers step over it.
    Failed = 2,
    /// It is a pad.
    Pad = 3,
}

impl State {
    const ALL: [State; 3] = [State::Ok, State::Failed, State::Pad];

    /// XORed into the checksum; any two differ in at least 8 bits.
    fn mask(self) -> u32 {
        match self {
            State::Ok => 0x4B4F_5F21,
            State::Failed => 0xB4B0_5FDE,
            State::Pad => 0x4BB0_A021,
        }
    }
}

/// What a writer says about its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) kind: Kind,
    pub(crate) pid: PageId,
    pub(crate) seq: PageSeq,
}

/// The checksum's state after the salt, computed once an epoch.
#[derive(Clone, Debug)]
pub(crate) struct Seed(Hasher);

impl Seed {
    pub(crate) fn new(salt: u64) -> Seed {
        let mut hasher = Hasher::new();
        hasher.update(&salt.to_le_bytes());
        Seed(hasher)
    }

    fn at(&self, lsn: Lsn) -> Hasher {
        let mut hasher = self.0.clone();
        hasher.update(&lsn.to_le_bytes());
        hasher
    }

    /// The checksum of an open record (see [`write_head`]) before a state is chosen.
    pub(crate) fn sum(&self, lsn: Lsn, open: &[u8]) -> Sum {
        let mut hasher = self.at(lsn);
        hasher.update(&open[4..]);
        Sum(hasher.finalize())
    }
}

/// A record's checksum without its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum(u32);

/// Starts a record in `out`, which is exactly as long as the record: header without checksum and state.
pub(crate) fn write_head(head: RecordHead, out: &mut [u8]) {
    let len = u32::try_from(out.len() - HEADER_BYTES).expect("a record is shorter than a buffer");
    let pid = (head.pid as u64).to_le_bytes();
    assert!(pid[PAGE_ID_BYTES..] == [0, 0], "page id {} exceeds 48 bits", head.pid);
    out[0..4].fill(0);
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out[8..14].copy_from_slice(&pid[..PAGE_ID_BYTES]);
    out[14] = head.kind as u8;
    out[STATE_AT] = 0;
    out[16..24].copy_from_slice(&head.seq.to_le_bytes());
}

/// Gives an open record its final state.
pub(crate) fn finish(record: &mut [u8], sum: Sum, state: State) {
    record[0..4].copy_from_slice(&(sum.0 ^ state.mask()).to_le_bytes());
    record[STATE_AT] = state as u8;
}

/// Writes a pad over all of `out`.
pub(crate) fn write_pad(seed: &Seed, lsn: Lsn, stable: Lsn, out: &mut [u8]) {
    assert!(out.len() >= PAD_BYTES_MIN, "a pad of {} bytes", out.len());
    write_head(RecordHead { kind: Kind::Pad, pid: 0, seq: 0 }, out);
    out[HEADER_BYTES..PAD_BYTES_MIN].copy_from_slice(&stable.to_le_bytes());
    out[PAD_BYTES_MIN..].fill(0);
    let sum = seed.sum(lsn, &out[..PAD_BYTES_MIN]);
    finish(out, sum, State::Pad);
}

/// A valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// A record that counts.
    Record { head: RecordHead, payload: &'a [u8] },
    /// A record its writer gave up, header and payload together this long.
    Failed { bytes: usize },
    /// The end of a buffer, this long, with the stable mark.
    Pad { bytes: usize, stable: Lsn },
}

impl Decoded<'_> {
    /// Header and payload together, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Decoded::Record { payload, .. } => HEADER_BYTES + payload.len(),
            Decoded::Failed { bytes } | Decoded::Pad { bytes, .. } => *bytes,
        }
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// The bytes end inside the header, the payload or the mark.
    Short,
    /// The kind byte names no kind, or one that its state forbids.
    Kind(u8),
    /// The state byte names no state.
    State(u8),
    /// The checksum is not that of these bytes at this place in this epoch.
    Checksum,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Short => f.write_str("a record that ends beyond its segment"),
            Invalid::Kind(byte) => write!(f, "record kind {byte}"),
            Invalid::State(byte) => write!(f, "record state {byte}"),
            Invalid::Checksum => f.write_str("a record whose checksum does not match"),
        }
    }
}

/// The header's fields as they stand, checked for sense but not against the checksum.
struct Fields {
    crc: u32,
    len: usize,
    head: RecordHead,
    state: State,
}

fn fields(header: &[u8; HEADER_BYTES]) -> Result<Fields, Invalid> {
    let [c0, c1, c2, c3, l0, l1, l2, l3, p0, p1, p2, p3, p4, p5, kind, state, seq @ ..] = *header;
    let kind_known = Kind::from_byte(kind).ok_or(Invalid::Kind(kind))?;
    let state_known = State::ALL.into_iter().find(|s| *s as u8 == state).ok_or(Invalid::State(state))?;
    if (kind_known == Kind::Pad) != (state_known == State::Pad) {
        return Err(Invalid::Kind(kind));
    }
    let pid = u64::from_le_bytes([p0, p1, p2, p3, p4, p5, 0, 0]);
    let pid = PageId::try_from(pid).map_err(|_| Invalid::Short)?;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    let len = usize::try_from(len).map_err(|_| Invalid::Short)?;
    let head = RecordHead { kind: kind_known, pid, seq: u64::from_le_bytes(seq) };
    Ok(Fields { crc: u32::from_le_bytes([c0, c1, c2, c3]), len, head, state: state_known })
}

/// Reads the record at the front of `bytes`, which lies at `lsn`.
pub(crate) fn decode<'a>(seed: &Seed, lsn: Lsn, bytes: &'a [u8]) -> Result<Decoded<'a>, Invalid> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Invalid::Short)?;
    let Fields { crc, len, head, state } = fields(header)?;
    let payload = rest.get(..len).ok_or(Invalid::Short)?;
    let covered =
        if state == State::Pad { payload.get(..MARK_BYTES).ok_or(Invalid::Short)? } else { payload };
    let mut open = *header;
    open[STATE_AT] = 0;
    let mut hasher = seed.at(lsn);
    hasher.update(&open[4..]);
    hasher.update(covered);
    if hasher.finalize() ^ state.mask() != crc {
        return Err(Invalid::Checksum);
    }
    trusted(head, state, payload).ok_or(Invalid::Short)
}

/// How long the record is that starts with `header`, in bytes; `None` if that is no header.
pub(crate) fn record_bytes(header: &[u8]) -> Option<usize> {
    let Fields { len, .. } = fields(header.first_chunk()?).ok()?;
    HEADER_BYTES.checked_add(len)
}

/// Reads a record that [`decode`] has found valid before, without its checksum.
pub(crate) fn decode_checked(bytes: &[u8]) -> Option<Decoded<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let Fields { len, head, state, .. } = fields(header).ok()?;
    trusted(head, state, rest.get(..len)?)
}

fn trusted(head: RecordHead, state: State, payload: &[u8]) -> Option<Decoded<'_>> {
    let bytes = HEADER_BYTES + payload.len();
    Some(match state {
        State::Ok => Decoded::Record { head, payload },
        State::Failed => Decoded::Failed { bytes },
        State::Pad => Decoded::Pad { bytes, stable: Lsn::from_le_bytes(*payload.first_chunk()?) },
    })
}

#[cfg(test)]
mod tests {
    use super::{
        Decoded, HEADER_BYTES, Invalid, Kind, PAD_BYTES_MIN, RecordHead, Seed, State, decode, decode_checked,
        finish, write_head, write_pad,
    };

    const SALT: u64 = 0x0123_4567_89AB_CDEF;
    const LSN: i64 = 4096;

    fn record(kind: Kind, state: State, payload: &[u8]) -> Vec<u8> {
        let seed = Seed::new(SALT);
        let mut out = vec![0xEE; HEADER_BYTES + payload.len()];
        write_head(RecordHead { kind, pid: 0x0605_0403_0201, seq: 7 }, &mut out);
        out[HEADER_BYTES..].copy_from_slice(payload);
        let sum = seed.sum(LSN, &out);
        finish(&mut out, sum, state);
        out
    }

    #[test]
    fn states_differ_in_at_least_eight_bits() {
        for a in State::ALL {
            for b in State::ALL {
                assert!(a == b || (a.mask() ^ b.mask()).count_ones() >= 8, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let got = record(Kind::Base, State::Ok, b"abc");
        let want = [
            GOLDEN_CRC[0],
            GOLDEN_CRC[1],
            GOLDEN_CRC[2],
            GOLDEN_CRC[3], // crc
            3,
            0,
            0,
            0, // length
            1,
            2,
            3,
            4,
            5,
            6, // page id
            2,
            1, // kind, state
            7,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // page sequence
            b'a',
            b'b',
            b'c',
        ];
        assert_eq!(got, want);
        // The same checksum from the definition: one crc32 over the concatenation.
        let mut whole = Vec::new();
        whole.extend_from_slice(&SALT.to_le_bytes());
        whole.extend_from_slice(&LSN.to_le_bytes());
        whole.extend_from_slice(&want[4..15]);
        whole.push(0);
        whole.extend_from_slice(&want[16..]);
        assert_eq!((crc32fast::hash(&whole) ^ 0x4B4F_5F21).to_le_bytes(), GOLDEN_CRC);
    }

    const GOLDEN_CRC: [u8; 4] = [0xDD, 0x4D, 0x35, 0x9E];

    #[test]
    fn every_kind_and_state_reads_back() {
        let seed = Seed::new(SALT);
        for byte in 0..=u8::MAX {
            let Some(kind) = Kind::from_byte(byte).filter(|kind| *kind != Kind::Pad) else { continue };
            assert_eq!(kind as u8, byte);
            for payload in [&b""[..], b"x", &[9; 300]] {
                let head = RecordHead { kind, pid: 0x0605_0403_0201, seq: 7 };
                let ok = record(kind, State::Ok, payload);
                assert_eq!(decode(&seed, LSN, &ok), Ok(Decoded::Record { head, payload }), "{kind:?}");
                assert_eq!(decode_checked(&ok), Some(Decoded::Record { head, payload }), "{kind:?}");
                let failed = record(kind, State::Failed, payload);
                let bytes = HEADER_BYTES + payload.len();
                assert_eq!(decode(&seed, LSN, &failed), Ok(Decoded::Failed { bytes }), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_pad_covers_its_mark_and_nothing_behind() {
        let seed = Seed::new(SALT);
        let mut pad = vec![0xEE; 100];
        write_pad(&seed, LSN, 77, &mut pad);
        assert_eq!(decode(&seed, LSN, &pad), Ok(Decoded::Pad { bytes: 100, stable: 77 }));
        for at in 0..pad.len() {
            let mut bytes = pad.clone();
            bytes[at] ^= 0x10;
            assert_eq!(decode(&seed, LSN, &bytes).is_err(), at < PAD_BYTES_MIN, "byte {at}");
        }
    }

    #[test]
    fn no_flipped_bit_and_no_truncation_is_a_record() {
        let seed = Seed::new(SALT);
        for state in [State::Ok, State::Failed] {
            let whole = record(Kind::Append, state, b"some payload of a page");
            for len in 0..whole.len() {
                assert!(decode(&seed, LSN, &whole[..len]).is_err(), "{state:?} cut at {len}");
            }
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Longer lengths must find bytes to be tempted by.
                bytes.resize(1 << 16, 0);
                assert!(decode(&seed, LSN, &bytes).is_err(), "{state:?} with bit {bit} flipped");
            }
        }
    }

    #[test]
    fn a_record_is_valid_at_its_own_place_and_epoch_only() {
        let bytes = record(Kind::Append, State::Ok, b"here");
        assert!(decode(&Seed::new(SALT), LSN, &bytes).is_ok());
        assert_eq!(decode(&Seed::new(SALT), LSN + 1, &bytes), Err(Invalid::Checksum));
        assert_eq!(decode(&Seed::new(SALT + 1), LSN, &bytes), Err(Invalid::Checksum));
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(decode(&Seed::new(SALT), LSN, &[0; 512]), Err(Invalid::Kind(0)));
    }
}
