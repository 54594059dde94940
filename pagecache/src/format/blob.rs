//! A blob of the log used alone: bytes that exceed one record, as parts and the record that lists them.
//!
//! ```text
//! part: the next bytes of the blob                  (kind raw, page 1)
//! list: bytes u64 | crc u32 | {lsn i64, offset u64} a part   (kind raw, page 2)
//! ```
//!
//! Parts lie below their list, in order. `crc` is that of [`super::run`]: over the LSN and the checksum of
//! each part's bytes. A part that no list names is nothing.

use super::bytes::Source;
use crate::{
    error::DecodeError,
    ids::{LogId, Lsn, PageId},
};

const LIST_HEADER_BYTES: usize = 12;
const PLACE_BYTES: usize = 16;

/// What a raw record is, by its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A record of its own.
    Whole = 0,
    Part = 1,
    List = 2,
}

impl Role {
    pub(crate) fn of(pid: PageId) -> Option<Role> {
        [Role::Whole, Role::Part, Role::List].into_iter().find(|role| role.pid() == pid)
    }

    pub(crate) fn pid(self) -> PageId {
        self as PageId
    }
}

/// Where the parts of a blob lie, and what they are together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    /// Position and file offset of each part; at least one, rising in position.
    pub(crate) parts: Vec<(Lsn, LogId)>,
}

impl List {
    /// How many parts a list of so many bytes can name.
    pub(crate) fn parts_max(list_bytes: usize) -> usize {
        list_bytes.saturating_sub(LIST_HEADER_BYTES) / PLACE_BYTES
    }

    /// The position of the first part: the blob's name.
    pub(crate) fn first(&self) -> Lsn {
        self.parts[0].0
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LIST_HEADER_BYTES + PLACE_BYTES * self.parts.len());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        for (lsn, offset) in &self.parts {
            out.extend_from_slice(&lsn.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
        out
    }

    /// Reads the list that stands at `at`.
    pub(crate) fn decode(bytes: &[u8], at: Lsn) -> Result<List, DecodeError> {
        let mut source = Source::new(bytes);
        let len = source.u64("the bytes of a blob")?;
        let crc = source.u32("the checksum of a blob")?;
        let mut parts: Vec<(Lsn, LogId)> = Vec::with_capacity(List::parts_max(bytes.len()));
        let places = &bytes[LIST_HEADER_BYTES..];
        let mut above = 0;
        while parts.len() * PLACE_BYTES < places.len() {
            let lsn = source.i64("the position of a part")?;
            let offset = source.u64("the offset of a part")?;
            if lsn <= above || lsn >= at {
                return Err(DecodeError(format!("a part at {lsn}, after one at {above}, listed at {at}")));
            }
            above = lsn;
            parts.push((lsn, offset));
        }
        if parts.is_empty() {
            return Err(DecodeError("a blob without parts".to_owned()));
        }
        Ok(List { bytes: len, crc, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::{List, Role};

    #[test]
    fn a_list_has_these_bytes_and_reads_back() {
        let list = List { bytes: 500, crc: 0xAABB_CCDD, parts: vec![(0x0102, 3), (0x0104, 9)] };
        let bytes = list.encode();
        let want = b"\xf4\x01\0\0\0\0\0\0\xdd\xcc\xbb\xaa\
                     \x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\x01\0\0\0\0\0\0\x09\0\0\0\0\0\0\0";
        assert_eq!(bytes, want);
        assert_eq!(List::decode(&bytes, 0x0105), Ok(list.clone()));
        assert_eq!(List::parts_max(bytes.len()), 2);
        assert_eq!((list.first(), List::parts_max(0)), (0x0102, 0));
    }

    #[test]
    fn every_truncation_and_every_list_in_disorder_is_an_error() {
        let list = List { bytes: 500, crc: 1, parts: vec![(5, 3), (7, 9)] };
        let whole = list.encode();
        for len in (0..whole.len()).filter(|len| *len != 28) {
            assert!(List::decode(&whole[..len], 8).is_err(), "cut at {len}");
        }
        assert!(List::decode(&[&whole[..], &[0]].concat(), 8).is_err(), "a byte too many");
        assert!(List::decode(&whole, 7).is_err(), "a part at its list");
        for parts in [vec![], vec![(7, 9), (5, 3)], vec![(5, 3), (5, 3)], vec![(-1, 0)]] {
            assert!(List::decode(&List { parts, ..list.clone() }.encode(), 8).is_err());
        }
    }

    #[test]
    fn each_role_has_a_page_of_its_own() {
        for role in [Role::Whole, Role::Part, Role::List] {
            assert_eq!(Role::of(role.pid()), Some(role));
        }
        assert_eq!(Role::of(3), None);
    }
}
