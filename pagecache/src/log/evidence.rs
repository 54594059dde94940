//! Was the end of the tail torn or damaged? Proof that bytes beyond it had been stable.
//!
//! Every pad and every segment header carries the stable LSN of the moment it was made. One of them
//! anywhere in the log, valid under its epoch's salt and at its own LSN, that names a position
//! beyond the tail's end proves that the end is damage: what was stable must read back. So does the
//! stable LSN recorded with the checkpoint.
//!
//! Buffers start at block borders, so pads beyond a damaged record are found by trying every border
//! and following the records from there. A slot without a whole header may be the damaged
//! one itself, so its bytes are tried as the segment where the tail ended and as the one after it.

use super::tail::{Directory, Tail};
use crate::error::Failure;
use crate::format::record::{Decoded, Seed, decode};
use crate::ids::Lsn;

/// `Corrupt` if anything shows that the log had been stable beyond the end of `tail`.
pub(super) fn check(directory: &Directory<'_>, tail: &Tail, recorded_stable: Lsn) -> Result<(), Failure> {
    let end = tail.end();
    let damage = |mark: Lsn, witness: &str| {
        let found = format!("no valid record at LSN {end}, but {witness} says the log was stable to {mark}");
        Err(directory.corrupt(tail.offset(end), found))
    };
    if recorded_stable > end {
        return damage(recorded_stable, "the checkpoint");
    }
    for (first, _, header) in directory.segments() {
        if header.stable > end {
            return damage(header.stable, &format!("the segment at LSN {first}"));
        }
    }
    let segment_bytes = tail.geometry().segment_bytes as Lsn;
    for (first, slot, _) in directory.segments().filter(|(first, ..)| first + segment_bytes > end) {
        if let Some((at, mark)) = mark_beyond(directory, tail, slot, first)? {
            return damage(mark, &format!("the buffer that ends at LSN {at}"));
        }
    }
    let around = end - end % segment_bytes;
    for slot in directory.headless().iter().copied() {
        for first in [around, around + segment_bytes] {
            if let Some((at, mark)) = mark_beyond(directory, tail, slot, first)? {
                return damage(mark, &format!("the buffer that ends at LSN {at}"));
            }
        }
    }
    Ok(())
}

/// A pad in `slot`, read as the segment from `first`, whose mark lies beyond the tail's end: where
/// the pad ends and its mark.
fn mark_beyond(
    directory: &Directory<'_>,
    tail: &Tail,
    slot: u64,
    first: Lsn,
) -> Result<Option<(Lsn, Lsn)>, Failure> {
    let Some(salt) = directory.salt(first) else { return Ok(None) };
    let (seed, block) = (Seed::new(salt), tail.geometry().block_bytes);
    let bytes = directory.bytes(slot, tail.geometry().segment_bytes)?;
    let mut border = block;
    while border < bytes.len() {
        let mut at = border;
        while let Some(decoded) = bytes.get(at..).and_then(|rest| decode(&seed, first + at as Lsn, rest).ok())
        {
            at += decoded.bytes();
            match decoded {
                Decoded::Pad { stable, .. } if stable > tail.end() => {
                    return Ok(Some((first + at as Lsn, stable)));
                }
                _ => {}
            }
        }
        border = if at > border && at.is_multiple_of(block) { at } else { border + block };
    }
    Ok(None)
}
