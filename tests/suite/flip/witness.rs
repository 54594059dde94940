//! What the bytes of a store say about themselves, read without the code under test: which kinds of
//! things are there, and which of them vouch for a position up to which the log was stable.
//!
//! `docs/FORMAT.md` draws what is read here.

use std::ops::Range;

use pagecache::io::FileId;

use super::stores::{BLOCK_BYTES, LOG_SEGMENT_BYTES, STORE_SEGMENT_BYTES, Sample};

const FRAME_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 24;
const PAD_BYTES_MIN: usize = 32;

/// A position that was stable, and the bytes that say so.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) file: FileId,
    pub(super) bytes: Range<usize>,
    /// The header of the segment it lies in.
    pub(super) header: Range<usize>,
    pub(super) stable: i64,
}

/// One thing found in a file.
struct Found {
    what: String,
    witness: Option<Witness>,
}

/// Every witness of a sample.
pub(super) fn witnesses(sample: &Sample) -> Vec<Witness> {
    read(sample).into_iter().filter_map(|found| found.witness).collect()
}

/// The kinds of everything in a sample, sorted.
pub(super) fn kinds(sample: &Sample) -> Vec<String> {
    let mut kinds: Vec<String> = read(sample).into_iter().map(|found| found.what).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

fn read(sample: &Sample) -> Vec<Found> {
    let mut found = Vec::new();
    superblocks(sample.file(FileId::Pages), &mut found);
    frames(sample.file(FileId::Pages), &mut found);
    for (slot, bytes) in sample.file(FileId::Log).chunks(LOG_SEGMENT_BYTES).enumerate() {
        segment(slot * LOG_SEGMENT_BYTES, bytes, &mut found);
    }
    found
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

fn superblocks(pages: &[u8], found: &mut Vec<Found>) {
    for slot in 0..2 {
        let start = slot * BLOCK_BYTES;
        let block = &pages[start..start + BLOCK_BYTES];
        if block.starts_with(b"PageStor") {
            // One damaged slot is survived, so the two vouch for each other.
            let range = start..start;
            let stable = number::<8>(block, 72).cast_signed();
            let witness = Witness { file: FileId::Pages, bytes: range.clone(), header: range, stable };
            found.push(Found { what: format!("superblock {slot}"), witness: Some(witness) });
        }
    }
}

fn frames(pages: &[u8], found: &mut Vec<Found>) {
    for segment in pages[2 * BLOCK_BYTES..].chunks(STORE_SEGMENT_BYTES) {
        let mut at = 0;
        while at + FRAME_HEADER_BYTES <= segment.len() {
            let len = number::<4>(segment, at + 4) as usize;
            if number::<4>(segment, at) == 0 || at + FRAME_HEADER_BYTES + len > segment.len() {
                at = (at + 1).next_multiple_of(BLOCK_BYTES);
                continue;
            }
            let payload = &segment[at + FRAME_HEADER_BYTES..];
            let what = match segment[at + 14] {
                1 => "image",
                2 => "delta-page",
                3 => "map page",
                4 => "directory",
                6 => "map index",
                7 => "map changes",
                _ => "something else",
            };
            found.push(Found { what: what.to_owned(), witness: None });
            let is_packed = segment[at + 15] == 1;
            let inside = match (what, payload.first()) {
                ("image" | "delta-page", _) if is_packed => Some(format!("packed {what}")),
                ("image", Some(1)) => Some(format!("node of level {}", payload[1])),
                ("image", Some(10)) => Some("catalogue".to_owned()),
                _ => None,
            };
            found.extend(inside.map(|what| Found { what, witness: None }));
            at += FRAME_HEADER_BYTES + len;
        }
    }
}

fn segment(start: usize, bytes: &[u8], found: &mut Vec<Found>) {
    if !bytes.starts_with(b"PageLog\0") {
        return;
    }
    let header = start..start + BLOCK_BYTES;
    let vouched = number::<8>(bytes, 40).cast_signed();
    let witness = |bytes, stable| Some(Witness { file: FileId::Log, bytes, header: header.clone(), stable });
    found.push(Found { what: "segment".to_owned(), witness: witness(start..start + 60, vouched) });
    let mut at = BLOCK_BYTES;
    while at + PAD_BYTES_MIN <= bytes.len() {
        let len = number::<4>(bytes, at + 4) as usize;
        let end = at + RECORD_HEADER_BYTES + len;
        if number::<4>(bytes, at) == 0 || end > bytes.len() {
            return;
        }
        let (kind, state) = (bytes[at + 14], bytes[at + 15]);
        let what = match (kind, state) {
            (_, 2) => "failed",
            (1, 1) => "append",
            (2, 1) => "base",
            (3, 1) => "free",
            (4, 1) => "batch",
            (5, 3) => "pad",
            _ => return,
        };
        let stable = number::<8>(bytes, at + RECORD_HEADER_BYTES).cast_signed();
        if what == "pad" && stable < vouched {
            return; // left over from an earlier use of the slot
        }
        let range = start + at..start + at + PAD_BYTES_MIN;
        found.push(Found {
            what: what.to_owned(),
            witness: if what == "pad" { witness(range, stable) } else { None },
        });
        at = end;
    }
}
