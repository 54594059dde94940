//! The payload of a batch record: one entry a fragment, end to end.
//!
//! ```text
//! pid u48 | kind u8 | seq u64 | length u32 | fragment bytes …   (repeated)
//! ```
//!
//! The record's own checksum covers all of it; here only lengths are checked. What a fragment's bytes mean is the
//! business of the page's owner, of an adopted value that of [`super::value`].

use crate::ids::{PAGE_ID_LIMIT, PageId, PageSeq};

/// Bytes of an entry before its fragment.
pub(crate) const ENTRY_HEADER_BYTES: usize = 19;

/// What an entry does to its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Append,
    Base,
    Free,
    /// The page is a value whose bytes were written and synced before; the entry's bytes say where
    /// ([`super::value`]).
    Adopt,
}

/// One fragment of a batch, as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'b> {
    pub(crate) pid: PageId,
    pub(crate) kind: EntryKind,
    pub(crate) seq: PageSeq,
    pub(crate) bytes: &'b [u8],
}

/// Writes an entry's header and returns the place for its fragment and what follows it.
pub(crate) fn put_header(
    out: &mut [u8],
    pid: PageId,
    kind: EntryKind,
    seq: PageSeq,
    len: usize,
) -> (&mut [u8], &mut [u8]) {
    let (header, rest) = out.split_at_mut(ENTRY_HEADER_BYTES);
    header[..6].copy_from_slice(&(pid as u64).to_le_bytes()[..6]);
    header[6] = match kind {
        EntryKind::Append => 1,
        EntryKind::Base => 2,
        EntryKind::Free => 3,
        EntryKind::Adopt => 4,
    };
    header[7..15].copy_from_slice(&seq.to_le_bytes());
    let len32 = u32::try_from(len).expect("a fragment fits a log buffer");
    header[15..].copy_from_slice(&len32.to_le_bytes());
    rest.split_at_mut(len)
}

/// The first entry of `bytes` and what follows it, or what is wrong with it. `None` at the end.
pub(crate) fn next_entry(bytes: &[u8]) -> Option<Result<(Entry<'_>, &[u8]), String>> {
    if bytes.is_empty() {
        return None;
    }
    Some(parse(bytes))
}

fn parse(bytes: &[u8]) -> Result<(Entry<'_>, &[u8]), String> {
    let Some((header, rest)) = bytes.split_at_checked(ENTRY_HEADER_BYTES) else {
        return Err(format!("a batch entry needs {ENTRY_HEADER_BYTES} bytes, {} available", bytes.len()));
    };
    let mut pid = [0; 8];
    pid[..6].copy_from_slice(&header[..6]);
    let pid = u64::from_le_bytes(pid);
    if pid >= PAGE_ID_LIMIT {
        return Err(format!("a batch entry names page {pid}, the limit is {PAGE_ID_LIMIT}"));
    }
    let kind = match header[6] {
        1 => EntryKind::Append,
        2 => EntryKind::Base,
        3 => EntryKind::Free,
        4 => EntryKind::Adopt,
        other => return Err(format!("a batch entry has the unknown kind {other}")),
    };
    let mut seq = [0; 8];
    seq.copy_from_slice(&header[7..15]);
    let mut len = [0; 4];
    len.copy_from_slice(&header[15..]);
    let len = u32::from_le_bytes(len) as usize;
    let Some((fragment, rest)) = rest.split_at_checked(len) else {
        return Err(format!("a batch entry needs {len} bytes, {} available", rest.len()));
    };
    let entry = Entry { pid: pid as PageId, kind, seq: u64::from_le_bytes(seq), bytes: fragment };
    Ok((entry, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = vec![0; 2 * ENTRY_HEADER_BYTES + 3];
        let (place, rest) = put_header(&mut bytes, 7, EntryKind::Append, 9, 3);
        place.copy_from_slice(b"abc");
        let (place, rest) = put_header(rest, 1 << 30, EntryKind::Free, u64::MAX, 0);
        assert!(place.is_empty() && rest.is_empty());
        bytes
    }

    #[test]
    fn entries_read_back_as_they_were_written() {
        let bytes = sample();
        let (first, rest) = next_entry(&bytes).unwrap().unwrap();
        assert_eq!(first, Entry { pid: 7, kind: EntryKind::Append, seq: 9, bytes: b"abc" });
        let (second, rest) = next_entry(rest).unwrap().unwrap();
        assert_eq!(second, Entry { pid: 1 << 30, kind: EntryKind::Free, seq: u64::MAX, bytes: b"" });
        assert!(next_entry(rest).is_none());
    }

    #[test]
    fn every_truncation_is_an_error_or_ends_between_entries() {
        let bytes = sample();
        for len in 1..bytes.len() {
            let whole = match next_entry(&bytes[..len]).unwrap() {
                Err(_) => continue,
                Ok((_, rest)) => next_entry(rest),
            };
            assert!(whole.is_none_or(|second| second.is_err()), "cut at {len}");
        }
    }
}
