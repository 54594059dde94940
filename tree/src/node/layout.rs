//! How a node lies in its bytes, and the borrowed view that reads them.
//!
//! ```text
//!  0 u8  kind (NODE)          16 u32 value width          32 u64 next, or NO_PAGE
//!  1 u8  level (0 = leaf)     20 u16 prefix bytes         40 u64 first child, or NO_PAGE in a leaf
//!  2 u8  flags                22 u16 low fence bytes      48     prefix | low fence | high fence
//!  3 u8  zero                 24 u16 high fence bytes            zeros up to a multiple of 4
//!  4 u32 bytes in all         26 u16 zero                        heads: u32 a record
//!  8 u32 records              28 u32 zero                        ends: u32 a record, unless both widths are fixed
//! 12 u32 key suffix width                                        records: [u16 suffix bytes] | suffix | value
//! ```
//!
//! All numbers are little-endian. A *head* is the big-endian number of the first four bytes of a suffix,
//! padded with zeros, so heads compare as their keys do, or are equal.
//!
//! Where some values live apart (HAS_APART), there is an end for every record and its top bit says of
//! which the value is what stands for it ([`super::apart`]).
//!
//! * NODE-1: suffixes rise strictly, heads agree with them, and every key lies within the fences.
//! * NODE-2: every offset that a header or an end implies lies within the bytes.
//! * NODE-3: a record carries its suffix length only if neither width is fixed.
//!
//! [`super::validate`] proves these for bytes from outside, [`super::build`] and [`super::edit`] keep
//! them; the view relies on them and its checked slices never fail.

use pagecache::PageId;

/// First byte of an encoded node.
pub(super) const NODE: u8 = 1;
/// Bytes before the prefix.
pub(super) const HEADER_BYTES: usize = 48;
/// All suffixes have the width in the header.
pub(super) const FIXED_KEYS: u8 = 1;
/// All values have the width in the header.
pub(super) const FIXED_VALUES: u8 = 2;
/// There is a high fence; without one the node reaches to the last key there can be.
pub(super) const HAS_HIGH: u8 = 4;
/// Some values live apart: every record has an end, whose top bit says whether its own does.
pub(super) const HAS_APART: u8 = 8;
/// The bit of an end.
const APART_BIT: u32 = 1 << 31;
/// Stands for no page where a page could be named.
pub(super) const NO_PAGE: u64 = u64::MAX;
/// Page ids are below this.
pub(super) const PAGE_ID_END: u64 = 1 << 48;
/// Bytes of a page id as the value of an inner node's record.
pub(super) const CHILD_BYTES: usize = 8;

/// The header's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) level: u8,
    pub(super) flags: u8,
    pub(super) total: u32,
    pub(super) count: u32,
    pub(super) key_width: u32,
    pub(super) value_width: u32,
    pub(super) prefix_len: u16,
    pub(super) low_len: u16,
    pub(super) high_len: u16,
    pub(super) next: u64,
    pub(super) first_child: u64,
}

impl Header {
    #[inline]
    pub(super) fn read(h: &[u8; HEADER_BYTES]) -> Header {
        let u16_at = |at: usize| u16::from_le_bytes([h[at], h[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Header {
            level: h[1],
            flags: h[2],
            total: u32_at(4),
            count: u32_at(8),
            key_width: u32_at(12),
            value_width: u32_at(16),
            prefix_len: u16_at(20),
            low_len: u16_at(22),
            high_len: u16_at(24),
            next: u64_at(32),
            first_child: u64_at(40),
        }
    }

    pub(super) fn write(&self, h: &mut [u8; HEADER_BYTES]) {
        *h = [0; HEADER_BYTES];
        h[0] = NODE;
        h[1] = self.level;
        h[2] = self.flags;
        h[4..8].copy_from_slice(&self.total.to_le_bytes());
        h[8..12].copy_from_slice(&self.count.to_le_bytes());
        h[12..16].copy_from_slice(&self.key_width.to_le_bytes());
        h[16..20].copy_from_slice(&self.value_width.to_le_bytes());
        h[20..22].copy_from_slice(&self.prefix_len.to_le_bytes());
        h[22..24].copy_from_slice(&self.low_len.to_le_bytes());
        h[24..26].copy_from_slice(&self.high_len.to_le_bytes());
        h[32..40].copy_from_slice(&self.next.to_le_bytes());
        h[40..48].copy_from_slice(&self.first_child.to_le_bytes());
    }

    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// True if record positions are computed, not stored.
    #[inline]
    pub(super) fn is_regular(&self) -> bool {
        self.flags & (FIXED_KEYS | FIXED_VALUES | HAS_APART) == FIXED_KEYS | FIXED_VALUES
    }

    /// True if each record opens with the length of its suffix.
    #[inline]
    pub(super) fn has_key_lens(&self) -> bool {
        self.flags & (FIXED_KEYS | FIXED_VALUES) == 0
    }

    /// Offset of the heads: behind prefix and fences, on a multiple of 4.
    #[inline]
    pub(super) fn heads_at(&self) -> usize {
        let named = usize::from(self.prefix_len) + usize::from(self.low_len) + usize::from(self.high_len);
        (HEADER_BYTES + named).next_multiple_of(4)
    }

    /// Offset of the ends, which is that of the records if there are none.
    #[inline]
    pub(super) fn ends_at(&self) -> usize {
        self.heads_at() + 4 * self.count as usize
    }

    /// Offset of the first record.
    #[inline]
    pub(super) fn records_at(&self) -> usize {
        let ends = if self.is_regular() { 0 } else { 4 * self.count as usize };
        self.ends_at() + ends
    }
}

/// A node's bytes with its header taken apart. Only over bytes for which NODE-1 to NODE-3 hold.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) header: Header,
}

impl<'a> View<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> View<'a> {
        let header = bytes.first_chunk().expect("a node is at least as long as its header");
        View { bytes, header: Header::read(header) }
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.header.count as usize
    }

    #[inline]
    pub(super) fn prefix(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..][..usize::from(self.header.prefix_len)]
    }

    #[inline]
    pub(super) fn low(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES + usize::from(self.header.prefix_len)..][..usize::from(self.header.low_len)]
    }

    #[inline]
    pub(super) fn high(&self) -> Option<&'a [u8]> {
        let at = HEADER_BYTES + usize::from(self.header.prefix_len) + usize::from(self.header.low_len);
        self.header.has(HAS_HIGH).then(|| &self.bytes[at..][..usize::from(self.header.high_len)])
    }

    pub(super) fn next(&self) -> Option<PageId> {
        page_id(self.header.next)
    }

    pub(super) fn first_child(&self) -> Option<PageId> {
        page_id(self.header.first_child)
    }

    /// The heads, in the machine's reach as arrays of four bytes.
    #[inline]
    pub(super) fn heads(&self) -> &'a [[u8; 4]] {
        self.bytes[self.header.heads_at()..self.header.ends_at()].as_chunks().0
    }

    /// The ends of the records, counted from the first record's start; empty if all widths are fixed.
    #[inline]
    pub(super) fn ends(&self) -> &'a [[u8; 4]] {
        self.bytes[self.header.ends_at()..self.header.records_at()].as_chunks().0
    }

    /// All records.
    #[inline]
    pub(super) fn records(&self) -> &'a [u8] {
        &self.bytes[self.header.records_at()..]
    }

    /// Offset, among the records, at which record `i` starts; for `i == count` the end of the last.
    #[inline]
    pub(super) fn start(&self, i: usize) -> usize {
        if self.header.is_regular() {
            return i * (self.header.key_width as usize + self.header.value_width as usize);
        }
        match i.checked_sub(1) {
            Some(before) => end_of(self.ends()[before]).0,
            None => 0,
        }
    }

    /// The suffix and the value of record `i`.
    #[inline]
    pub(super) fn record(&self, i: usize) -> (&'a [u8], &'a [u8]) {
        let record = &self.records()[self.start(i)..self.start(i + 1)];
        let (suffix_at, suffix_len) = if self.header.has(FIXED_KEYS) {
            (0, self.header.key_width as usize)
        } else if self.header.has(FIXED_VALUES) {
            (0, record.len() - self.header.value_width as usize)
        } else {
            (2, usize::from(u16::from_le_bytes([record[0], record[1]])))
        };
        record[suffix_at..].split_at(suffix_len)
    }

    /// True if what record `i` holds stands for a value that lives apart.
    #[inline]
    pub(super) fn is_apart(&self, i: usize) -> bool {
        self.header.has(HAS_APART) && end_of(self.ends()[i]).1
    }

    #[inline]
    pub(super) fn suffix(&self, i: usize) -> &'a [u8] {
        self.record(i).0
    }

    #[inline]
    pub(super) fn value(&self, i: usize) -> &'a [u8] {
        self.record(i).1
    }
}

/// An end as it is written, and whether the record's value lives apart.
#[inline]
pub(super) fn end_of(bytes: [u8; 4]) -> (usize, bool) {
    let end = u32::from_le_bytes(bytes);
    ((end & !APART_BIT) as usize, end & APART_BIT != 0)
}

/// The bytes of an end; see [`end_of`].
pub(super) fn end_bytes(end: usize, is_apart: bool) -> [u8; 4] {
    (end as u32 | if is_apart { APART_BIT } else { 0 }).to_le_bytes()
}

fn page_id(pid: u64) -> Option<PageId> {
    if pid == NO_PAGE { None } else { PageId::try_from(pid).ok() }
}

/// True if a page can have this id, here as well as on disk.
pub(super) fn names_page(pid: u64) -> bool {
    pid < PAGE_ID_END && PageId::try_from(pid).is_ok()
}

/// A page id as the header and the records hold it.
pub(super) fn page_number(pid: Option<PageId>) -> u64 {
    pid.map_or(NO_PAGE, |pid| pid as u64)
}

/// The first four bytes as a number, zeros behind a shorter suffix.
#[inline]
pub(super) fn head_of(suffix: &[u8]) -> u32 {
    if let Some(head) = suffix.first_chunk() {
        return u32::from_be_bytes(*head);
    }
    suffix.iter().fold((0, 24), |(head, shift), byte| (head | u32::from(*byte) << shift, shift - 8)).0
}

/// How many leading bytes two keys share.
pub(super) fn shared_len(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(l, r)| l == r).count()
}
