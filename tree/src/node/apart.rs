//! A value that lives apart: what its leaf holds in its place.
//!
//! ```text
//! page u64 | change u64 | bytes u64
//! ```
//!
//! A page and the number of the change that made it a value name that value for ever, so whoever has an
//! old leaf in hand learns that the value is gone, and never reads another one in its place.

use pagecache::{PageId, ValueId};

use super::layout::names_page;

/// Bytes in a leaf, or in a change, that stand for a value that lives apart.
pub(crate) const APART_BYTES: usize = 24;

/// A value that lives apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Apart {
    /// Where.
    pub(crate) id: ValueId,
    /// Its length.
    pub(crate) bytes: u64,
}

impl Apart {
    pub(crate) fn encode(&self) -> [u8; APART_BYTES] {
        let mut out = [0; APART_BYTES];
        let numbers = [self.id.pid as u64, self.id.seq, self.bytes];
        for (to, number) in out.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *to = number.to_le_bytes();
        }
        out
    }

    /// `None` for bytes that name no value.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Apart> {
        let numbers = <&[u8; APART_BYTES]>::try_from(bytes).ok()?.as_chunks::<8>().0;
        let [pid, seq, bytes] = *numbers else { return None };
        let pid = u64::from_le_bytes(pid);
        if !names_page(pid) {
            return None;
        }
        let id = ValueId { pid: pid as PageId, seq: u64::from_le_bytes(seq) };
        Some(Apart { id, bytes: u64::from_le_bytes(bytes) })
    }
}

/// A value as a leaf, or a change of one, holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// Here.
    Inline(&'a [u8]),
    /// In a page of its own.
    Apart(Apart),
}

impl<'a> Stored<'a> {
    /// What lies in the leaf: the value, or what stands for it.
    pub(super) fn of(bytes: &'a [u8], is_apart: bool) -> Stored<'a> {
        match is_apart {
            false => Stored::Inline(bytes),
            true => Stored::Apart(Apart::decode(bytes).expect("checked when the bytes came in")),
        }
    }

    /// The value that lives apart, if it does.
    pub(crate) fn apart(self) -> Option<Apart> {
        match self {
            Stored::Inline(_) => None,
            Stored::Apart(apart) => Some(apart),
        }
    }
}

#[cfg(test)]
mod tests {
    use pagecache::ValueId;

    use super::{APART_BYTES, Apart};

    #[test]
    fn what_stands_for_a_value_reads_back_and_nothing_else_does() {
        let apart = Apart { id: ValueId { pid: 7, seq: 1 << 40 }, bytes: 1 << 30 };
        let bytes = apart.encode();
        assert_eq!(bytes[..9], [7, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Apart::decode(&bytes), Some(apart));
        assert_eq!(Apart::decode(&bytes[1..]), None);
        assert_eq!(Apart::decode(&[0xff; APART_BYTES]), None);
    }
}
