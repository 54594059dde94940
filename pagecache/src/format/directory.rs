//! What a superblock leads to: the directory of the persisted page table, and an index for each group
//! of 256 map pages.
//!
//! Both are payloads of frames. Numbers are varints, except checksums and LSNs.
//!
//! ```text
//! directory: page bound,
//!            groups, {number - previous, pages, has index u8 [ref], changes u8, refs},
//!            has recovery u8 [lsn i64, bytes, value],
//!            tally cut i64, tallies, {counter, zigzag sum},
//!            segments, {number - previous, live bytes}
//! index:     group, map pages, {number in the group - previous, pages, ref}
//! ref:       offset, len, crc u32
//! ```
//!
//! * The changes of a group are read oldest first, over the map pages of its index.
//! * Live bytes are those of the checkpoint itself, but for the directory's own frame.
//! * Every payload is verified against a checksum kept one level up: in the superblock for the
//!   directory, in the directory for indexes and changes, in the index for map pages.

use super::map::{GROUP_SPAN, MAP_SPAN, addr, ascend, put_addr, verify};
use crate::{
    error::DecodeError,
    format::bytes::{Source, put_varint, put_zigzag},
    ids::{FragmentAddr, Lsn},
};

/// Most frames of changes that a group may have: what its count can say.
pub(crate) const CHANGES_LIMIT: usize = u8::MAX as usize;

/// Where a payload lies, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRef {
    pub(crate) addr: FragmentAddr,
    pub(crate) crc: u32,
}

/// Where a map page lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapPageRef {
    /// In its group.
    pub(crate) number: u8,
    /// Its ids that hold a page, without regard to later changes.
    pub(crate) present: u16,
    pub(crate) at: FrameRef,
}

/// Where the map pages of one group lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) group: u64,
    /// Strictly ascending. One that is missing holds free pages with number 0 only.
    pub(crate) map_pages: Vec<MapPageRef>,
}

/// What the directory says of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupRef {
    pub(crate) number: u64,
    /// Its ids that hold a page, changes included.
    pub(crate) present: u64,
    pub(crate) index: Option<FrameRef>,
    /// Oldest first.
    pub(crate) changes: Vec<FrameRef>,
}

/// The state of a store that a superblock refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Page ids below it exist.
    pub(crate) page_bound: u64,
    /// Strictly ascending by number. One that is missing holds free pages with number 0 only.
    pub(crate) groups: Vec<GroupRef>,
    /// The newest recovery value, and the LSN of its fragment.
    pub(crate) recovery: Option<(Lsn, Vec<u8>)>,
    /// The tallies count every record below it.
    pub(crate) tally_cut: Lsn,
    /// Counters and their sums.
    pub(crate) tallies: Vec<(u64, i64)>,
    /// Segments with live bytes, strictly ascending, and how many.
    pub(crate) segments: Vec<(u32, u32)>,
}

fn put_ref(out: &mut Vec<u8>, at: FrameRef) {
    put_addr(out, at.addr);
    out.extend_from_slice(&at.crc.to_le_bytes());
}

fn frame_ref(source: &mut Source<'_>) -> Result<FrameRef, DecodeError> {
    Ok(FrameRef { addr: addr(source)?, crc: source.u32("a checksum")? })
}

fn flag(source: &mut Source<'_>, what: &str) -> Result<bool, DecodeError> {
    match source.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError(format!("{what} is {other}"))),
    }
}

impl Index {
    /// The payload.
    ///
    /// # Panics
    ///
    /// If map pages do not ascend.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.map_pages.is_sorted_by(|l, r| l.number < r.number), "map pages out of order");
        let mut out = Vec::with_capacity(16 + self.map_pages.len() * 16);
        put_varint(&mut out, self.group);
        put_varint(&mut out, self.map_pages.len() as u64);
        let mut last = 0;
        for page in &self.map_pages {
            put_varint(&mut out, u64::from(page.number - last));
            last = page.number;
            put_varint(&mut out, u64::from(page.present));
            put_ref(&mut out, page.at);
        }
        out
    }

    /// Reads the payload of `group`, whose checksum is on record as `crc`.
    pub(crate) fn decode(payload: &[u8], crc: u32, group: u64) -> Result<Index, DecodeError> {
        verify(payload, crc, "the map's index")?;
        let mut source = Source::new(payload);
        let found = source.varint("a group's number")?;
        if found != group {
            return Err(DecodeError(format!("the index of group {found} where that of {group} should be")));
        }
        let count = source.count(8, "the number of map pages")?;
        let mut map_pages: Vec<MapPageRef> = Vec::with_capacity(count);
        for _ in 0..count {
            let last = map_pages.last().map(|page| u64::from(page.number));
            let number = ascend(&mut source, last, "a map page's number")?;
            let number = u8::try_from(number)
                .map_err(|_| DecodeError(format!("map page {number} is beyond its group of {GROUP_SPAN}")))?;
            let present = source.varint("the pages of a map page")?;
            if present > MAP_SPAN {
                return Err(DecodeError(format!("a map page of {present} pages exceeds {MAP_SPAN}")));
            }
            map_pages.push(MapPageRef { number, present: present as u16, at: frame_ref(&mut source)? });
        }
        source.end("the map's index")?;
        Ok(Index { group, map_pages })
    }
}

impl GroupRef {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.present);
        out.push(u8::from(self.index.is_some()));
        self.index.iter().for_each(|at| put_ref(out, *at));
        out.push(u8::try_from(self.changes.len()).expect("a group has few frames of changes"));
        self.changes.iter().for_each(|at| put_ref(out, *at));
    }

    fn decode(number: u64, source: &mut Source<'_>) -> Result<GroupRef, DecodeError> {
        let present = source.varint("the pages of a group")?;
        if present > MAP_SPAN * GROUP_SPAN {
            return Err(DecodeError(format!("a group of {present} pages exceeds any")));
        }
        let index = match flag(source, "the index flag")? {
            true => Some(frame_ref(source)?),
            false => None,
        };
        let count = source.u8("the number of changes")?;
        let changes = (0..count).map(|_| frame_ref(source)).collect::<Result<_, _>>()?;
        Ok(GroupRef { number, present, index, changes })
    }
}

impl Directory {
    /// The payload.
    ///
    /// # Panics
    ///
    /// If groups or segments do not ascend.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.groups.is_sorted_by(|l, r| l.number < r.number), "groups out of order");
        assert!(self.segments.is_sorted_by(|l, r| l.0 < r.0), "segments out of order");
        let mut out = Vec::with_capacity(64 + self.groups.len() * 32 + self.segments.len() * 5);
        put_varint(&mut out, self.page_bound);
        put_varint(&mut out, self.groups.len() as u64);
        let mut last = 0;
        for group in &self.groups {
            put_varint(&mut out, group.number - last);
            last = group.number;
            group.encode(&mut out);
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
        let groups = Directory::decode_groups(&mut source)?;
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
        Ok(Directory { page_bound, groups, recovery, tally_cut, tallies, segments })
    }

    fn decode_groups(source: &mut Source<'_>) -> Result<Vec<GroupRef>, DecodeError> {
        let count = source.count(4, "the number of groups")?;
        let mut groups: Vec<GroupRef> = Vec::with_capacity(count);
        for _ in 0..count {
            let last = groups.last().map(|group| group.number);
            let number = ascend(source, last, "a group's number")?;
            groups.push(GroupRef::decode(number, source)?);
        }
        Ok(groups)
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

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
