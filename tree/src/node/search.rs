//! Finding a key in a node: heads first, then suffixes where heads are equal.
//!
//! A key whose head is not in the node is settled without touching a record.

use std::cmp::Ordering;

use super::layout::{View, head_of};

/// Up to this many heads are counted rather than halved: four cache lines, which the compiler compares
/// in vectors and the hardware fetches side by side.
const COUNTED_HEADS: usize = 64;

/// `Ok(i)` if record `i` has this key, else `Err` with the number of records below it.
#[inline]
pub(super) fn search(view: &View<'_>, key: &[u8]) -> Result<usize, usize> {
    search_from(view, key, |_| {})
}

/// As [`search`]; tells `near` the first record that the heads leave possible before it looks at any
/// record, so that what is read next can be asked for meanwhile.
#[inline]
pub(super) fn search_from(view: &View<'_>, key: &[u8], near: impl FnOnce(usize)) -> Result<usize, usize> {
    let prefix = view.prefix();
    match key.strip_prefix(prefix) {
        Some(suffix) => search_suffix(view, suffix, near),
        // Not under the prefix, so on one side of all records.
        None if key < prefix => Err(0),
        None => Err(view.count()),
    }
}

#[inline]
fn search_suffix(view: &View<'_>, suffix: &[u8], near: impl FnOnce(usize)) -> Result<usize, usize> {
    let heads = view.heads();
    let head = head_of(suffix);
    let from = lower_bound(heads, head);
    near(from);
    let wanted = head.to_le_bytes();
    if heads.get(from) != Some(&wanted) {
        return Err(from);
    }
    if heads.get(from + 1) != Some(&wanted) {
        return match view.suffix(from).cmp(suffix) {
            Ordering::Less => Err(from + 1),
            Ordering::Equal => Ok(from),
            Ordering::Greater => Err(from),
        };
    }
    let to = from + heads[from..].partition_point(|other| *other == wanted);
    search_records(view, suffix, from, to)
}

/// Halves the records `from..to`, whose heads are all equal to the suffix's.
fn search_records(view: &View<'_>, suffix: &[u8], mut from: usize, mut to: usize) -> Result<usize, usize> {
    while from < to {
        let middle = from + (to - from) / 2;
        match view.suffix(middle).cmp(suffix) {
            Ordering::Less => from = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => to = middle,
        }
    }
    Err(from)
}

/// How many heads are less than `head`.
#[inline]
fn lower_bound(heads: &[[u8; 4]], head: u32) -> usize {
    let mut base = 0;
    let mut size = heads.len();
    while size > COUNTED_HEADS {
        let half = size / 2;
        base += if u32::from_le_bytes(heads[base + half - 1]) < head { half } else { 0 };
        size -= half;
    }
    let less: u32 = heads[base..base + size].iter().map(|h| u32::from(u32::from_le_bytes(*h) < head)).sum();
    base + less as usize
}

#[cfg(test)]
mod tests {
    use super::{head_of, lower_bound};

    #[test]
    fn lower_bound_counts_the_lesser_heads_at_every_size() {
        for count in [0, 1, 2, 63, 64, 65, 127, 128, 129, 300, 1000] {
            let heads: Vec<[u8; 4]> = (0..count).map(|i: u32| (i / 3 * 7).to_le_bytes()).collect();
            for head in (0..count * 3).chain([u32::MAX, u32::MAX - 1]) {
                let want = heads.iter().filter(|h| u32::from_le_bytes(**h) < head).count();
                assert_eq!(lower_bound(&heads, head), want, "{head} among {count}");
            }
        }
    }

    #[test]
    fn heads_never_contradict_their_keys() {
        let keys: [&[u8]; 9] =
            [b"", b"\0", b"\0\0\0\0\0", b"a", b"a\0", b"ab", b"abcd", b"abcde", b"\xff\xff\xff\xff"];
        for (at, left) in keys.iter().enumerate() {
            for right in &keys[at + 1..] {
                assert!(left < right && head_of(left) <= head_of(right), "{left:?} {right:?}");
            }
        }
        assert_eq!(head_of(b"ab"), 0x6162_0000);
    }
}
