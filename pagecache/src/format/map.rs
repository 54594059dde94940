//! The persisted page table: map pages of 256 entries each, and changes of entries appended to them.
//!
//! Both are payloads of frames. Numbers are varints.
//!
//! ```text
//! map page: number, entries, free, {index u8, parts u8 (0: free), seq, parts x {offset, len}
//!                                   or index u8, 255, seq, extents of a value}
//! changes:  group, map pages, {number in the group u8, bytes, {entry as in a map page} ...}
//! ```
//!
//! * A page id below the bound without an entry is free with number 0.
//! * Entries and lists ascend strictly; the free count is that of the entries and gaps.
//! * Every payload is verified against a checksum kept one level up, by [`super::directory`].
//!
//! When they are written is the business of the checkpoint; [`super::frame`] wraps them.

use crate::{
    error::DecodeError,
    format::{
        bytes::{Source, put_varint},
        value::Extents,
    },
    ids::{FragmentAddr, PageSeq},
};

/// Pages that one map page covers.
pub(crate) const MAP_SPAN: u64 = 256;
/// Map pages that one group holds.
pub(crate) const GROUP_SPAN: u64 = 256;
/// Most durable fragments of one page.
pub(crate) const PARTS_MAX: usize = 4;
/// Stands in the place of the number of fragments of a page that is a value.
const VALUE_PARTS: u8 = u8::MAX;

/// The durable form of one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The page as of `seq` is these fragments: the base, then delta-pages, oldest first.
    Present { seq: PageSeq, parts: Vec<FragmentAddr> },
    /// The page is a large value, whose bytes lie there.
    Value { seq: PageSeq, extents: Extents },
    /// The page id is free; the next change has the number after `seq`.
    Free { seq: PageSeq },
}

/// The durable forms of the pages `number * MAP_SPAN` to `(number + 1) * MAP_SPAN - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapPage {
    pub(crate) number: u64,
    /// By index in the span, strictly ascending. A gap is [`Entry::Free`] with number 0.
    pub(crate) entries: Vec<(u16, Entry)>,
}

/// The checksum that the level above keeps of a payload.
pub(crate) fn checksum(payload: &[u8]) -> u32 {
    crc32fast::hash(payload)
}

pub(super) fn verify(payload: &[u8], crc: u32, what: &str) -> Result<(), DecodeError> {
    let found = checksum(payload);
    if found == crc {
        return Ok(());
    }
    Err(DecodeError(format!("{what} has checksum {found:08x}, {crc:08x} is on record")))
}

pub(super) fn put_addr(out: &mut Vec<u8>, addr: FragmentAddr) {
    put_varint(out, addr.offset);
    put_varint(out, u64::from(addr.len));
}

pub(super) fn addr(source: &mut Source<'_>) -> Result<FragmentAddr, DecodeError> {
    let addr = FragmentAddr { offset: source.varint("an offset")?, len: source.varint_u32("a length")? };
    if addr.offset.checked_add(u64::from(addr.len)).is_none() {
        return Err(DecodeError(format!("address {} exceeds any file", addr.offset)));
    }
    Ok(addr)
}

/// The next of a strictly ascending list that is stored as differences.
pub(super) fn ascend(source: &mut Source<'_>, last: Option<u64>, what: &str) -> Result<u64, DecodeError> {
    let step = source.varint(what)?;
    let next = match last {
        None => Some(step),
        Some(_) if step == 0 => None,
        Some(last) => last.checked_add(step),
    };
    next.ok_or_else(|| DecodeError(format!("{what} does not ascend")))
}

impl Entry {
    /// True if the id holds a page, or a value.
    pub(crate) fn is_present(&self) -> bool {
        !matches!(self, Entry::Free { .. })
    }

    /// The page's number.
    pub(crate) fn seq(&self) -> PageSeq {
        match self {
            Entry::Present { seq, .. } | Entry::Value { seq, .. } | Entry::Free { seq } => *seq,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (seq, parts) = match self {
            Entry::Value { seq, extents } => {
                out.push(VALUE_PARTS);
                put_varint(out, *seq);
                return extents.encode(out);
            }
            Entry::Present { seq, parts } => (*seq, parts.as_slice()),
            Entry::Free { seq } => (*seq, [].as_slice()),
        };
        out.push(parts.len() as u8);
        put_varint(out, seq);
        for part in parts {
            put_addr(out, *part);
        }
    }

    fn decode(source: &mut Source<'_>) -> Result<Entry, DecodeError> {
        let part_count = source.u8("the number of fragments")?;
        let seq = source.varint("a page's number")?;
        if part_count == VALUE_PARTS {
            return Ok(Entry::Value { seq, extents: Extents::decode(source)? });
        }
        let part_count = usize::from(part_count);
        if part_count == 0 {
            return Ok(Entry::Free { seq });
        }
        if part_count > PARTS_MAX {
            return Err(DecodeError(format!("a page of {part_count} fragments exceeds {PARTS_MAX}")));
        }
        let parts = (0..part_count).map(|_| addr(source)).collect::<Result<_, _>>()?;
        Ok(Entry::Present { seq, parts })
    }
}

impl MapPage {
    /// How many page ids of the span hold no page, those past the bound included.
    pub(crate) fn free_count(&self) -> u64 {
        MAP_SPAN - self.present_count()
    }

    /// How many page ids of the span hold a page.
    pub(crate) fn present_count(&self) -> u64 {
        self.entries.iter().filter(|(_, entry)| entry.is_present()).count() as u64
    }

    /// The payload.
    ///
    /// # Panics
    ///
    /// If indexes do not ascend below [`MAP_SPAN`] or a page has no or too many fragments.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.entries.len() * 16);
        put_varint(&mut out, self.number);
        put_varint(&mut out, self.entries.len() as u64);
        put_varint(&mut out, self.free_count());
        put_entries(&mut out, &self.entries);
        out
    }

    /// Reads a payload whose checksum is on record as `crc`.
    pub(crate) fn decode(payload: &[u8], crc: u32) -> Result<MapPage, DecodeError> {
        verify(payload, crc, "the map page")?;
        let mut source = Source::new(payload);
        let number = source.varint("the map page's number")?;
        let count = source.count(3, "the number of entries")?;
        let free = source.varint("the number of free pages")?;
        let mut entries: Vec<(u16, Entry)> = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(next_entry(&mut source, &entries)?);
        }
        source.end("the map page")?;
        let page = MapPage { number, entries };
        if page.free_count() != free {
            return Err(DecodeError(format!(
                "map page counts {free} free pages and has {}",
                page.free_count()
            )));
        }
        Ok(page)
    }
}

/// Changed entries of the map pages of one group: there may be many, so they are never all decoded at once.
#[derive(Debug)]
pub(crate) enum MapChanges {}

/// The changed entries of one map page, not yet decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedEntries<'b> {
    /// The map page's number in its group.
    pub(crate) page: u8,
    bytes: &'b [u8],
}

impl MapChanges {
    /// The payload: the changed entries of `count` map pages of a group, by a map page's number in the group
    /// and then by index in its span.
    ///
    /// # Panics
    ///
    /// If map pages or entries do not ascend, there are more or fewer map pages, or a page has no or too many
    /// fragments.
    pub(crate) fn encode(
        group: u64,
        count: usize,
        pages: impl Iterator<Item = (u8, Vec<(u16, Entry)>)>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, group);
        put_varint(&mut out, count as u64);
        let (mut entries, mut last, mut put) = (Vec::new(), None, 0);
        for (page, changed) in pages {
            assert!(last < Some(page), "changed map pages out of order");
            entries.clear();
            put_entries(&mut entries, &changed);
            out.push(page);
            put_varint(&mut out, entries.len() as u64);
            out.extend_from_slice(&entries);
            (last, put) = (Some(page), put + 1);
        }
        assert_eq!(put, count, "changed map pages of group {group}");
        out
    }

    /// What a payload, whose checksum is on record as `crc`, says of which map pages of `group`.
    pub(crate) fn list(payload: &[u8], crc: u32, group: u64) -> Result<Vec<ChangedEntries<'_>>, DecodeError> {
        verify(payload, crc, "the map's changes")?;
        let mut source = Source::new(payload);
        let found = source.varint("a group's number")?;
        if found != group {
            return Err(DecodeError(format!("changes of group {found} where those of {group} should be")));
        }
        let count = source.count(2, "the number of changed map pages")?;
        let mut pages: Vec<ChangedEntries<'_>> = Vec::with_capacity(count);
        for _ in 0..count {
            let page = source.u8("a map page's number")?;
            if pages.last().is_some_and(|last| last.page >= page) {
                return Err(DecodeError(format!("changed map page {page} does not ascend")));
            }
            let len = source.count(1, "the bytes of changed entries")?;
            pages.push(ChangedEntries { page, bytes: source.take(len, "changed entries")? });
        }
        source.end("the map's changes")?;
        Ok(pages)
    }
}

impl ChangedEntries<'_> {
    /// The entries, by index in the map page's span.
    pub(crate) fn decode(&self) -> Result<Vec<(u16, Entry)>, DecodeError> {
        let mut source = Source::new(self.bytes);
        let mut entries = Vec::new();
        while !source.is_empty() {
            entries.push(next_entry(&mut source, &entries)?);
        }
        Ok(entries)
    }
}

fn put_entries(out: &mut Vec<u8>, entries: &[(u16, Entry)]) {
    assert!(entries.is_sorted_by(|left, right| left.0 < right.0), "map entries out of order");
    for (index, entry) in entries {
        if let Entry::Present { parts, .. } = entry {
            assert!((1..=PARTS_MAX).contains(&parts.len()), "a page of {} fragments", parts.len());
        }
        out.push(u8::try_from(*index).expect("an index lies in the span"));
        entry.encode(out);
    }
}

/// The next of a list of entries, of which `before` were read.
fn next_entry(source: &mut Source<'_>, before: &[(u16, Entry)]) -> Result<(u16, Entry), DecodeError> {
    let index = u16::from(source.u8("an index")?);
    if before.last().is_some_and(|(last, _)| *last >= index) {
        return Err(DecodeError(format!("map entry {index} does not ascend")));
    }
    Ok((index, Entry::decode(source)?))
}

#[cfg(test)]
#[path = "map_tests.rs"]
pub(super) mod tests;
