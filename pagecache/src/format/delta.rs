//! The payload of a delta-page: changes of one page that its durable form before lacked, oldest first.
//!
//! ```text
//! number of the durable form before (varint) | {length (varint), fragment bytes} ...
//! ```
//!
//! The number ties each part of a page to the one below it: a part that was lost, or is another's,
//! shows. The frame's own number is that of the newest change in it.

use crate::{
    error::DecodeError,
    format::bytes::{Source, put_varint},
    ids::PageSeq,
};

/// What a delta-page holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeltaPage<'a> {
    /// The page's number as of the part below.
    pub(crate) above: PageSeq,
    /// Encoded fragments, oldest first.
    pub(crate) frags: Vec<&'a [u8]>,
}

/// Begins a payload.
pub(crate) fn begin(above: PageSeq) -> Vec<u8> {
    let mut payload = Vec::new();
    put_varint(&mut payload, above);
    payload
}

/// Appends a fragment of `len` bytes, which `encode` writes.
pub(crate) fn put(payload: &mut Vec<u8>, len: usize, encode: impl FnOnce(&mut [u8])) {
    put_varint(payload, len as u64);
    let at = payload.len();
    payload.resize(at + len, 0);
    encode(&mut payload[at..]);
}

impl<'a> DeltaPage<'a> {
    /// Takes a payload apart.
    ///
    /// # Errors
    ///
    /// The first thing that no delta-page could hold.
    pub(crate) fn decode(payload: &'a [u8]) -> Result<DeltaPage<'a>, DecodeError> {
        let mut source = Source::new(payload);
        let above = source.varint("the number of the part below")?;
        let mut frags = Vec::new();
        while !source.is_empty() {
            let len = source.varint_u32("the length of a change")?;
            frags.push(source.take(len as usize, "a change")?);
        }
        if frags.is_empty() {
            return Err(DecodeError("a delta-page without a change".to_owned()));
        }
        Ok(DeltaPage { above, frags })
    }
}

#[cfg(test)]
mod tests {
    use super::{DeltaPage, begin, put};

    fn payload(above: u64, frags: &[&[u8]]) -> Vec<u8> {
        let mut payload = begin(above);
        frags.iter().for_each(|frag| put(&mut payload, frag.len(), |out| out.copy_from_slice(frag)));
        payload
    }

    #[test]
    fn changes_read_back_in_order() {
        let long = [7; 300];
        for frags in [vec![&b"a"[..]], vec![b"", b"bc"], vec![&long, b"", b"d"]] {
            let bytes = payload(1 << 40, &frags);
            assert_eq!(DeltaPage::decode(&bytes), Ok(DeltaPage { above: 1 << 40, frags }));
        }
    }

    #[test]
    fn bytes_are_these() {
        assert_eq!(payload(300, &[b"ab", b""]), [0xac, 2, 2, b'a', b'b', 0]);
    }

    #[test]
    fn cuts_are_errors_or_whole_changes() {
        let bytes = payload(300, &[b"ab", b"cde"]);
        for len in 0..bytes.len() {
            match DeltaPage::decode(&bytes[..len]) {
                Ok(cut) => assert_eq!((len, cut.frags.as_slice()), (5, &[&b"ab"[..]][..])),
                Err(error) => assert!(!error.0.is_empty()),
            }
        }
        assert!(DeltaPage::decode(&[0, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err(), "more than there is");
    }
}
