//! Changes to the records of one leaf, waiting in front of it: one buffer, one allocation.
//!
//! The buffer is the encoding. One change, the usual case, lies tightly, because it is also what the log
//! writes; many have a table to search in.
//!
//! ```text
//! one:  u8 PUT, DEL or APART | tree (varint) | difference (varint) | key bytes (varint) | key | value
//! many: u8 MANY | 3 zeros | u32 count | u64 tree | i64 difference
//!       | a slot each: u32 end, u16 key bytes, u8 PUT, DEL or APART, zero | a record each: key | value
//! ```
//!
//! * OPS-1: keys rise strictly, so there is one change a key.
//! * OPS-2: a removal has no value, APART has what stands for one, and all that a length or an end implies
//!   is there.

use std::fmt;

use pagecache::mem::{PageBuf, PageMemory};

use super::{
    KEY_BYTES_MAX, NodeError,
    apart::{Apart, Stored},
};

pub(super) const PUT: u8 = 2;
pub(super) const DEL: u8 = 3;
pub(super) const MANY: u8 = 4;
pub(super) const APART: u8 = 11;

const MANY_HEADER_BYTES: usize = 24;
const SLOT_BYTES: usize = 8;

/// What becomes of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// It has this value.
    Put(&'a [u8]),
    /// It has a value that lives apart, for which this stands.
    Apart(&'a [u8]),
    /// It goes away.
    Del,
}

impl<'a> Change<'a> {
    /// The value or what stands for it, unless the key goes away.
    /// See [`Change::stored`] for which.
    #[inline]
    pub(crate) fn value(self) -> Option<&'a [u8]> {
        match self {
            Change::Put(value) | Change::Apart(value) => Some(value),
            Change::Del => None,
        }
    }

    /// The value, or where it lives; `None` if the key goes away.
    #[inline]
    pub(crate) fn stored(self) -> Option<Stored<'a>> {
        match self {
            Change::Put(value) => Some(Stored::Inline(value)),
            Change::Apart(value) => Some(Stored::of(value, true)),
            Change::Del => None,
        }
    }

    fn kind(self) -> u8 {
        match self {
            Change::Put(_) => PUT,
            Change::Apart(_) => APART,
            Change::Del => DEL,
        }
    }

    fn of(kind: u8, value: &'a [u8]) -> Change<'a> {
        match kind {
            PUT => Change::Put(value),
            APART => Change::Apart(value),
            _ => Change::Del,
        }
    }
}

/// Says how long a value is, never what it is.
impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Put(value) => write!(f, "Put({} bytes)", value.len()),
            Change::Apart(_) => f.write_str("Apart"),
            Change::Del => f.write_str("Del"),
        }
    }
}

/// By how much changes alter the number of keys of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The tree.
    pub(crate) tree: u64,
    /// Keys added less keys removed.
    pub(crate) diff: i64,
}

/// Changes sorted by key, and what they add to the tally of their tree. A clone shares the buffer.
#[derive(Clone)]
pub(crate) struct Ops {
    bytes: PageBuf,
    /// [`fingerprint`] of a single change's key, so that a look for another key does not touch the
    /// buffer; [`OF_MANY`] for many.
    fingerprint: u32,
}

/// The fingerprint of changes that have no one key.
const OF_MANY: u32 = 0;

/// A few bits of a key that two different keys seldom share; never [`OF_MANY`]. Taken from the key's
/// end, where neighbouring keys differ.
#[inline]
fn fingerprint(key: &[u8]) -> u32 {
    let end = match key.last_chunk::<8>() {
        Some(end) => u64::from_le_bytes(*end),
        None => key.iter().fold(key.len() as u64, |end, &byte| end << 8 | u64::from(byte)),
    };
    (end.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 | 1
}

/// The mark that changes of records never have, and changes of shape always do.
pub(crate) const SHAPE_MARK: u64 = 1 << 63;

/// The mark that changes have which put a value that lives apart, and changes of shape.
pub(crate) const APART_MARK: u64 = 1 << 62;

/// The mark of a key among the marks of changes: different keys seldom share it.
#[inline]
pub(crate) fn mark_of(key: &[u8]) -> u64 {
    1 << ((fingerprint(key) >> 1) % APART_MARK.trailing_zeros())
}

/// A single change taken apart.
struct One<'a> {
    tally: Tally,
    key: &'a [u8],
    change: Change<'a>,
}

/// Making changes.
impl Ops {
    /// `key` gets `value`.
    ///
    /// # Errors
    ///
    /// A key above [`KEY_BYTES_MAX`], more than 4 GiB.
    pub(crate) fn put(memory: &PageMemory, tally: Tally, key: &[u8], value: &[u8]) -> Result<Ops, NodeError> {
        Ops::one(memory, tally, key, Change::Put(value))
    }

    /// `key` gets a value that lives apart.
    ///
    /// # Errors
    ///
    /// A key above [`KEY_BYTES_MAX`].
    pub(crate) fn apart(
        memory: &PageMemory,
        tally: Tally,
        key: &[u8],
        value: &Apart,
    ) -> Result<Ops, NodeError> {
        Ops::one(memory, tally, key, Change::Apart(&value.encode()))
    }

    /// `key` goes away.
    ///
    /// # Errors
    ///
    /// A key above [`KEY_BYTES_MAX`].
    pub(crate) fn del(memory: &PageMemory, tally: Tally, key: &[u8]) -> Result<Ops, NodeError> {
        Ops::one(memory, tally, key, Change::Del)
    }

    fn one(memory: &PageMemory, tally: Tally, key: &[u8], change: Change<'_>) -> Result<Ops, NodeError> {
        check_key(key)?;
        let value = change.value().unwrap_or_default();
        let mut front = Front::new(change.kind());
        front.varint(tally.tree);
        front.varint(zigzag(tally.diff));
        front.varint(key.len() as u64);
        let len = check_len(front.len + key.len() + value.len())?;
        let bytes = memory.build(len, |out| {
            let (to_front, rest) = out.split_at_mut(front.len);
            let (to_key, to_value) = rest.split_at_mut(key.len());
            to_front.copy_from_slice(&front.bytes[..front.len]);
            to_key.copy_from_slice(key);
            to_value.copy_from_slice(value);
        });
        Ok(Ops { bytes, fingerprint: fingerprint(key) })
    }

    /// Many changes, whose keys must rise strictly.
    ///
    /// # Errors
    ///
    /// Keys out of order, a key above [`KEY_BYTES_MAX`], more than 4 GiB.
    pub(crate) fn many(
        memory: &PageMemory,
        tally: Tally,
        changes: &[(&[u8], Change<'_>)],
    ) -> Result<Ops, NodeError> {
        if let [(key, change)] = changes {
            return Ops::one(memory, tally, key, *change);
        }
        if let Some(at) = changes.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
            return Err(NodeError(format!("change {} is not above the one before it", at + 1)));
        }
        changes.iter().try_for_each(|(key, _)| check_key(key))?;
        let record = |(key, change): &(&[u8], Change<'_>)| key.len() + change.value().map_or(0, <[u8]>::len);
        let records_at = MANY_HEADER_BYTES + SLOT_BYTES * changes.len();
        let len = check_len(records_at + changes.iter().map(record).sum::<usize>())?;
        let bytes = memory.build(len, |out| {
            let (front, records) = out.split_at_mut(records_at);
            let (header, slots) = front.split_at_mut(MANY_HEADER_BYTES);
            header[..4].copy_from_slice(&[MANY, 0, 0, 0]);
            header[4..8].copy_from_slice(&(changes.len() as u32).to_le_bytes());
            header[8..16].copy_from_slice(&tally.tree.to_le_bytes());
            header[16..24].copy_from_slice(&tally.diff.to_le_bytes());
            let mut at = 0;
            for ((key, change), slot) in changes.iter().zip(slots.as_chunks_mut::<SLOT_BYTES>().0) {
                let value = change.value().unwrap_or_default();
                records[at..][..key.len()].copy_from_slice(key);
                records[at + key.len()..][..value.len()].copy_from_slice(value);
                at += key.len() + value.len();
                *slot = Slot { end: at as u32, key_len: key.len() as u16, kind: change.kind() }.to_bytes();
            }
        });
        Ok(Ops { bytes, fingerprint: OF_MANY })
    }

    /// All of these changes, oldest first, as one: the newest of a key counts. `None` if they are of
    /// several trees or too large together.
    pub(crate) fn united(memory: &PageMemory, oldest_first: &[&Ops]) -> Option<Ops> {
        let tree = oldest_first.first()?.tally().tree;
        let mut diff = 0;
        let mut changes = Vec::with_capacity(oldest_first.iter().map(|ops| ops.len()).sum());
        for ops in oldest_first {
            let tally = ops.tally();
            if tally.tree != tree {
                return None;
            }
            diff += tally.diff;
            changes.extend(ops.iter());
        }
        // Stable, so the newest change of a key is the last of its equals.
        changes.sort_by(|left, right| left.0.cmp(right.0));
        let mut kept: Vec<(&[u8], Change<'_>)> = Vec::with_capacity(changes.len());
        for change in changes {
            match kept.last_mut() {
                Some(last) if last.0 == change.0 => *last = change,
                _ => kept.push(change),
            }
        }
        Ops::many(memory, Tally { tree, diff }, &kept).ok()
    }

    /// Checks that `bytes` are changes, wholly, and copies them into page memory.
    ///
    /// # Errors
    ///
    /// The first thing that no changes could hold.
    pub(super) fn decode(memory: &PageMemory, bytes: &[u8]) -> Result<Ops, NodeError> {
        let fingerprint = Ops::check(bytes)?;
        Ok(Ops { bytes: PageBuf::copy_of(memory, bytes), fingerprint })
    }

    /// The fingerprint of the changes in `bytes`, if they are whole.
    pub(super) fn check(bytes: &[u8]) -> Result<u32, NodeError> {
        check_len(bytes.len())?;
        if bytes.first() == Some(&MANY) {
            return validate_many(bytes).map(|()| OF_MANY);
        }
        let one = parse_one(bytes).ok_or_else(|| NodeError("a change that is cut short".to_owned()))?;
        check_key(one.key)?;
        Ok(fingerprint(one.key))
    }
}

/// Reading changes.
impl Ops {
    #[inline]
    fn is_many(&self) -> bool {
        self.fingerprint == OF_MANY
    }

    #[inline]
    fn single(&self) -> One<'_> {
        parse_one(&self.bytes).expect("a single change was checked when it was made")
    }

    #[inline]
    fn slots(&self) -> &[[u8; SLOT_BYTES]] {
        let count = u32::from_le_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]]);
        self.bytes[MANY_HEADER_BYTES..][..SLOT_BYTES * count as usize].as_chunks().0
    }

    /// Marks of all keys that change.
    pub(crate) fn marks(&self) -> u64 {
        self.iter().fold(0, |marks, (key, change)| {
            let apart = if matches!(change, Change::Apart(_)) { APART_MARK } else { 0 };
            marks | mark_of(key) | apart
        })
    }

    /// How many keys change.
    pub(crate) fn len(&self) -> usize {
        if self.is_many() { self.slots().len() } else { 1 }
    }

    /// How many keys go away.
    pub(crate) fn removals(&self) -> usize {
        let dels = |slots: &[[u8; SLOT_BYTES]]| slots.iter().filter(|slot| slot[6] == DEL).count();
        if self.is_many() { dels(self.slots()) } else { usize::from(self.bytes.first() == Some(&DEL)) }
    }

    /// What becomes of `key`, if it changes.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<Change<'_>> {
        if !self.is_many() {
            if self.fingerprint != fingerprint(key) {
                return None;
            }
            let one = self.single();
            return (one.key == key).then_some(one.change);
        }
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            let (found, change) = self.change(middle);
            match found.cmp(key) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Some(change),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// Change `i` of `0..len()`.
    #[inline]
    pub(crate) fn change(&self, i: usize) -> (&[u8], Change<'_>) {
        if !self.is_many() {
            let one = self.single();
            assert_eq!(i, 0, "there is one change");
            return (one.key, one.change);
        }
        let slots = self.slots();
        let slot = Slot::from_bytes(slots[i]);
        let start = i.checked_sub(1).map_or(0, |before| Slot::from_bytes(slots[before]).end as usize);
        let records = &self.bytes[MANY_HEADER_BYTES + SLOT_BYTES * slots.len()..];
        let (key, value) = records[start..slot.end as usize].split_at(usize::from(slot.key_len));
        (key, Change::of(slot.kind, value))
    }

    /// Keys and changes, in key order.
    pub(crate) fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = (&[u8], Change<'_>)> + ExactSizeIterator + Clone {
        (0..self.len()).map(|i| self.change(i))
    }

    /// True if both change some key.
    pub(crate) fn overlaps(&self, other: &Ops) -> bool {
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        few.iter().any(|(key, _)| many.get(key).is_some())
    }

    /// What the changes add to the number of keys of their tree.
    pub(crate) fn tally(&self) -> Tally {
        if !self.is_many() {
            return self.single().tally;
        }
        let number = |at: usize| self.bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        Tally { tree: number(8), diff: number(16).cast_signed() }
    }

    /// The bytes, which are the encoding.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory that the changes occupy.
    pub(crate) fn charged_bytes(&self) -> usize {
        self.bytes.charged_bytes()
    }
}

/// Says how many changes there are and how long, never what they hold.
impl fmt::Debug for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ops")
            .field("changes", &self.len())
            .field("bytes", &self.bytes.len())
            .field("tally", &self.tally())
            .finish()
    }
}

struct Slot {
    end: u32,
    key_len: u16,
    kind: u8,
}

impl Slot {
    #[inline]
    fn from_bytes(b: [u8; SLOT_BYTES]) -> Slot {
        Slot {
            end: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            key_len: u16::from_le_bytes([b[4], b[5]]),
            kind: b[6],
        }
    }

    fn to_bytes(&self) -> [u8; SLOT_BYTES] {
        let (end, key_len) = (self.end.to_le_bytes(), self.key_len.to_le_bytes());
        [end[0], end[1], end[2], end[3], key_len[0], key_len[1], self.kind, 0]
    }
}

fn validate_many(bytes: &[u8]) -> Result<(), NodeError> {
    let fail = |what: &str| Err(NodeError(format!("{} bytes of changes {what}", bytes.len())));
    let Some(header) = bytes.first_chunk::<MANY_HEADER_BYTES>() else { return fail("are cut short") };
    let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let slots_bytes = u64::from(count) * SLOT_BYTES as u64;
    if header[1..4] != [0; 3] || slots_bytes > (bytes.len() - MANY_HEADER_BYTES) as u64 {
        return fail("cannot hold what their header says");
    }
    let (slots, records) = bytes[MANY_HEADER_BYTES..].split_at(slots_bytes as usize);
    let mut start = 0;
    let mut before: Option<&[u8]> = None;
    for bytes in slots.as_chunks::<SLOT_BYTES>().0 {
        let slot = Slot::from_bytes(*bytes);
        let Some(record) = records.get(start..slot.end as usize) else { return fail("lack a record") };
        let Some((key, value)) = record.split_at_checked(usize::from(slot.key_len)) else {
            return fail("have a key that is cut short");
        };
        if slot.to_bytes() != *bytes || !fits(slot.kind, value) {
            return fail("have a slot that means nothing");
        }
        if before.is_some_and(|before| before >= key) {
            return fail("are out of order");
        }
        before = Some(key);
        start = slot.end as usize;
    }
    if start != records.len() { fail("go on behind the last record") } else { Ok(()) }
}

/// True if a change of this kind may have this value (OPS-2).
#[inline]
fn fits(kind: u8, value: &[u8]) -> bool {
    match kind {
        PUT => true,
        DEL => value.is_empty(),
        APART => Apart::decode(value).is_some(),
        _ => false,
    }
}

#[inline]
fn parse_one(bytes: &[u8]) -> Option<One<'_>> {
    let (&kind, rest) = bytes.split_first()?;
    let (tree, rest) = read_varint(rest)?;
    let (diff, rest) = read_varint(rest)?;
    let (key_len, rest) = read_varint(rest)?;
    let (key, value) = rest.split_at_checked(usize::try_from(key_len).ok()?)?;
    if !fits(kind, value) {
        return None;
    }
    Some(One { tally: Tally { tree, diff: unzigzag(diff) }, key, change: Change::of(kind, value) })
}

fn check_key(key: &[u8]) -> Result<(), NodeError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(NodeError(format!("a key of {} bytes, the limit is {KEY_BYTES_MAX}", key.len())));
    }
    Ok(())
}

fn check_len(len: usize) -> Result<usize, NodeError> {
    if len > PageBuf::LEN_MAX {
        return Err(NodeError(format!("{len} bytes of changes, the limit is {}", PageBuf::LEN_MAX)));
    }
    Ok(len)
}

/// Small numbers of either sign become small numbers.
fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// A kind and a few numbers of seven bits a byte, the low ones first, before they have a buffer.
pub(super) struct Front {
    pub(super) bytes: [u8; 32],
    pub(super) len: usize,
}

impl Front {
    pub(super) fn new(kind: u8) -> Front {
        let mut bytes = [0; 32];
        bytes[0] = kind;
        Front { bytes, len: 1 }
    }

    /// Adds a number: at most ten bytes, so three fit.
    pub(super) fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes[self.len] = n as u8 | 0x80;
            self.len += 1;
            n >>= 7;
        }
        self.bytes[self.len] = n as u8;
        self.len += 1;
    }
}

#[inline]
pub(super) fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((u64::from(first), rest));
    }
    let mut n = u64::from(first & 0x7f);
    for (i, byte) in rest.iter().take(9).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * (i as u32 + 1);
        if bits << shift >> shift != bits {
            return None;
        }
        n |= bits << shift;
        if *byte < 0x80 {
            return Some((n, &rest[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Front, read_varint, unzigzag, zigzag};

    #[test]
    fn varints_come_back_and_no_truncation_of_one_does() {
        let edges = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, (1 << bit) + 1]);
        for n in edges.chain([0, u64::MAX]) {
            let mut front = Front::new(0);
            front.varint(n);
            let bytes = &front.bytes[1..front.len];
            assert_eq!(read_varint(bytes), Some((n, &[][..])), "{n}");
            assert_eq!(read_varint(&bytes[..bytes.len() - 1]), None, "{n}");
            assert_eq!(unzigzag(zigzag(n.cast_signed())), n.cast_signed(), "{n}");
        }
        assert_eq!(read_varint(&[0xff; 12]), None);
    }
}
