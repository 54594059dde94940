//! The persisted page table: map pages of 256 entries each, and the directory that lists them.
//!
//! Both are payloads of frames. Numbers are varints, except checksums and LSNs.
//!
//! ```text
//! map page:  number, entries, free, {index u8, parts u8 (0: free), seq, parts x {offset, len}
//!                                    or index u8, 255, seq, extents of a value}
//! directory: page bound,
//!            map pages, {number - previous, has free u8, offset, len, crc u32},
//!            has recovery u8 [lsn i64, bytes, value],
//!            tally cut i64, tallies, {counter, zigzag sum},
//!            segments, {number - previous, live bytes}
//! ```
//!
//! * A page id below the bound without an entry is free with number 0.
//! * Entries and lists ascend strictly; the free count is that of the entries and gaps.
//! * Every payload is verified against a checksum kept one level up: in the directory, and in the
//!   superblock for the directory itself.
//!
//! When they are written is the business of the checkpoint; [`super::frame`] wraps them.

use crate::{
    error::DecodeError,
    format::{
        bytes::{Source, put_varint, put_zigzag},
        value::Extents,
    },
    ids::{FragmentAddr, Lsn, PageSeq},
};

/// Pages that one map page covers.
pub(crate) const MAP_SPAN: u64 = 256;
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

/// Where a map page lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapPageRef {
    pub(crate) number: u64,
    pub(crate) addr: FragmentAddr,
    /// Checksum of its payload.
    pub(crate) crc: u32,
    /// It has a free page id below the bound.
    pub(crate) has_free: bool,
}

/// The state of a store that a superblock refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Page ids below it exist.
    pub(crate) page_bound: u64,
    /// Strictly ascending by number. One that is missing holds free pages with number 0 only.
    pub(crate) map_pages: Vec<MapPageRef>,
    /// The newest recovery value, and the LSN of its fragment.
    pub(crate) recovery: Option<(Lsn, Vec<u8>)>,
    /// The tallies count every record below it.
    pub(crate) tally_cut: Lsn,
    /// Counters and their sums.
    pub(crate) tallies: Vec<(u64, i64)>,
    /// Segments with live bytes, strictly ascending, and how many.
    pub(crate) segments: Vec<(u32, u32)>,
}

/// The checksum that the level above keeps of a payload.
pub(crate) fn checksum(payload: &[u8]) -> u32 {
    crc32fast::hash(payload)
}

fn verify(payload: &[u8], crc: u32, what: &str) -> Result<(), DecodeError> {
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
fn ascend(source: &mut Source<'_>, last: Option<u64>, what: &str) -> Result<u64, DecodeError> {
    let step = source.varint(what)?;
    let next = match last {
        None => Some(step),
        Some(_) if step == 0 => None,
        Some(last) => last.checked_add(step),
    };
    next.ok_or_else(|| DecodeError(format!("{what} does not ascend")))
}

impl Entry {
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
        let taken = self.entries.iter().filter(|(_, entry)| !matches!(entry, Entry::Free { .. })).count();
        MAP_SPAN - taken as u64
    }

    /// The payload.
    ///
    /// # Panics
    ///
    /// If indexes do not ascend below [`MAP_SPAN`] or a page has no or too many fragments.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.entries.is_sorted_by(|left, right| left.0 < right.0), "map entries out of order");
        let mut out = Vec::with_capacity(16 + self.entries.len() * 16);
        put_varint(&mut out, self.number);
        put_varint(&mut out, self.entries.len() as u64);
        put_varint(&mut out, self.free_count());
        for (index, entry) in &self.entries {
            if let Entry::Present { parts, .. } = entry {
                assert!((1..=PARTS_MAX).contains(&parts.len()), "a page of {} fragments", parts.len());
            }
            out.push(u8::try_from(*index).expect("an index lies in the span"));
            entry.encode(&mut out);
        }
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
            let index = u16::from(source.u8("an index")?);
            if entries.last().is_some_and(|(last, _)| *last >= index) {
                return Err(DecodeError(format!("map entry {index} does not ascend")));
            }
            entries.push((index, Entry::decode(&mut source)?));
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

impl Directory {
    /// The payload.
    ///
    /// # Panics
    ///
    /// If map pages or segments do not ascend.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.map_pages.is_sorted_by(|l, r| l.number < r.number), "map pages out of order");
        assert!(self.segments.is_sorted_by(|l, r| l.0 < r.0), "segments out of order");
        let mut out = Vec::with_capacity(64 + self.map_pages.len() * 16 + self.segments.len() * 5);
        put_varint(&mut out, self.page_bound);
        put_varint(&mut out, self.map_pages.len() as u64);
        let mut last = 0;
        for page in &self.map_pages {
            put_varint(&mut out, page.number - last);
            last = page.number;
            out.push(u8::from(page.has_free));
            put_addr(&mut out, page.addr);
            out.extend_from_slice(&page.crc.to_le_bytes());
        }
        self.encode_recovery(&mut out);
        put_varint(&mut out, self.segments.len() as u64);
        let mut last = 0;
        for (segment, live_bytes) in &self.segments {
            put_varint(&mut out, u64::from(segment - last));
            last = *segment;
            put_varint(&mut out, u64::from(*live_bytes));
        }
        out
    }

    fn encode_recovery(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.recovery.is_some()));
        if let Some((lsn, value)) = &self.recovery {
            out.extend_from_slice(&lsn.to_le_bytes());
            put_varint(out, value.len() as u64);
            out.extend_from_slice(value);
        }
        out.extend_from_slice(&self.tally_cut.to_le_bytes());
        put_varint(out, self.tallies.len() as u64);
        for (counter, sum) in &self.tallies {
            put_varint(out, *counter);
            put_zigzag(out, *sum);
        }
    }

    /// Reads a payload whose checksum is on record as `crc`.
    pub(crate) fn decode(payload: &[u8], crc: u32) -> Result<Directory, DecodeError> {
        verify(payload, crc, "the directory")?;
        let mut source = Source::new(payload);
        let page_bound = source.varint("the page bound")?;
        let map_pages = Directory::decode_map_pages(&mut source)?;
        let recovery = match flag(&mut source, "the recovery flag")? {
            false => None,
            true => {
                let lsn = source.i64("the recovery position")?;
                let len = source.count(1, "the recovery value's length")?;
                Some((lsn, source.take(len, "the recovery value")?.to_vec()))
            }
        };
        let tally_cut = source.i64("the tally cut")?;
        let tally_count = source.count(2, "the number of tallies")?;
        let mut tallies = Vec::with_capacity(tally_count);
        for _ in 0..tally_count {
            tallies.push((source.varint("a counter")?, source.zigzag("a sum")?));
        }
        let segments = Directory::decode_segments(&mut source)?;
        source.end("the directory")?;
        Ok(Directory { page_bound, map_pages, recovery, tally_cut, tallies, segments })
    }

    fn decode_map_pages(source: &mut Source<'_>) -> Result<Vec<MapPageRef>, DecodeError> {
        let count = source.count(8, "the number of map pages")?;
        let mut map_pages: Vec<MapPageRef> = Vec::with_capacity(count);
        for _ in 0..count {
            let last = map_pages.last().map(|page| page.number);
            map_pages.push(MapPageRef {
                number: ascend(source, last, "a map page's number")?,
                has_free: flag(source, "the free flag")?,
                addr: addr(source)?,
                crc: source.u32("a map page's checksum")?,
            });
        }
        Ok(map_pages)
    }

    fn decode_segments(source: &mut Source<'_>) -> Result<Vec<(u32, u32)>, DecodeError> {
        let count = source.count(2, "the number of segments")?;
        let mut segments: Vec<(u32, u32)> = Vec::with_capacity(count);
        for _ in 0..count {
            let last = segments.last().map(|(segment, _)| u64::from(*segment));
            let number = ascend(source, last, "a segment's number")?;
            let number = u32::try_from(number)
                .map_err(|_| DecodeError(format!("segment {number} exceeds 32 bits")))?;
            segments.push((number, source.varint_u32("a segment's live bytes")?));
        }
        Ok(segments)
    }
}

fn flag(source: &mut Source<'_>, what: &str) -> Result<bool, DecodeError> {
    match source.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError(format!("{what} is {other}"))),
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
