//! Writing a node from its records.
//!
//! The prefix is what the first and the last key share, so it is what all share: more than the fences
//! share at the edges of a tree, where a fence may be empty or missing.

use std::cmp::Ordering;

use pagecache::{
    PageId,
    mem::{PageBuf, PageMemory},
};

use super::{
    KEY_BYTES_MAX, Node, NodeError,
    layout::{
        CHILD_BYTES, FIXED_KEYS, FIXED_VALUES, HAS_APART, HAS_HIGH, HEADER_BYTES, Header, PAGE_ID_END, View,
        end_bytes, head_of, page_number, shared_len,
    },
};

/// What a node says of itself beside its records.
pub(super) struct Frame<'a> {
    pub(super) level: u8,
    pub(super) low: &'a [u8],
    pub(super) high: Option<&'a [u8]>,
    pub(super) next: Option<PageId>,
    pub(super) first_child: Option<PageId>,
}

/// A record to be written. The key comes in two pieces, as it lies in the node it comes from.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) prefix: &'a [u8],
    pub(super) suffix: &'a [u8],
    pub(super) value: &'a [u8],
    /// The value stands for one that lives apart.
    pub(super) is_apart: bool,
}

impl<'a> Item<'a> {
    pub(super) fn new(key: &'a [u8], value: &'a [u8]) -> Item<'a> {
        Item { prefix: &[], suffix: key, value, is_apart: false }
    }

    /// Records `from..to` of a node.
    pub(super) fn run(view: &View<'a>, from: usize, to: usize) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let view = *view;
        (from..to).map(move |i| {
            let (suffix, value) = view.record(i);
            Item { prefix: view.prefix(), suffix, value, is_apart: view.is_apart(i) }
        })
    }

    fn key_len(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    fn key(&self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }

    /// The key without its first `skipped` bytes, in two pieces.
    fn rest(&self, skipped: usize) -> (&'a [u8], &'a [u8]) {
        match self.prefix.get(skipped..) {
            Some(rest) => (rest, self.suffix),
            None => (&[], &self.suffix[skipped - self.prefix.len()..]),
        }
    }

    fn cmp_keys(&self, other: &Item<'_>) -> Ordering {
        // An empty slice may point nowhere, and a vector comparison that touches such an address is
        // suppressed by the processor at 100 ns and more: so ask for the length first.
        if self.prefix.len() == other.prefix.len() && (self.prefix.is_empty() || self.prefix == other.prefix)
        {
            return self.suffix.cmp(other.suffix);
        }
        self.prefix.iter().chain(self.suffix).cmp(other.prefix.iter().chain(other.suffix))
    }

    fn head(&self, skipped: usize) -> u32 {
        let (front, back) = self.rest(skipped);
        if front.is_empty() || front.len() >= 4 {
            return head_of(if front.is_empty() { back } else { front });
        }
        let mut four = [0; 4];
        four.iter_mut().zip(front.iter().chain(back)).for_each(|(to, from)| *to = *from);
        u32::from_be_bytes(four)
    }
}

/// Writes a node, after checking that it will be one.
pub(super) fn build(memory: &PageMemory, frame: &Frame<'_>, items: &[Item<'_>]) -> Result<Node, NodeError> {
    check_frame(frame)?;
    check_items(frame, items)?;
    let header = plan(frame, items)?;
    let bytes = write(memory, frame, &header, items);
    debug_assert_eq!(super::validate::validate(&bytes), Ok(()), "a node was written wrong: {header:?}");
    Ok(Node { bytes })
}

/// Bytes of the node that [`build`] would write.
pub(super) fn measure(frame: &Frame<'_>, items: &[Item<'_>]) -> Result<usize, NodeError> {
    Ok(plan(frame, items)?.total as usize)
}

fn check_frame(frame: &Frame<'_>) -> Result<(), NodeError> {
    let fail = |what: &str| Err(NodeError(format!("cannot build a node of level {}: {what}", frame.level)));
    if frame.low.len() > KEY_BYTES_MAX || frame.high.is_some_and(|high| high.len() > KEY_BYTES_MAX) {
        return fail("a fence is too long");
    }
    if frame.high.is_some_and(|high| high <= frame.low) {
        return fail("its high fence is not above its low fence");
    }
    if frame.next.is_some() && frame.high.is_none() {
        return fail("it has a sibling but no high fence");
    }
    if (frame.level == 0) != frame.first_child.is_none() {
        return fail("leaves have no children, and inner nodes have one at least");
    }
    if [frame.next, frame.first_child].into_iter().flatten().any(|pid| pid as u64 >= PAGE_ID_END) {
        return fail("a page id is too large");
    }
    Ok(())
}

fn check_items(frame: &Frame<'_>, items: &[Item<'_>]) -> Result<(), NodeError> {
    for (i, pair) in items.windows(2).enumerate() {
        if pair[0].cmp_keys(&pair[1]) != Ordering::Less {
            return Err(NodeError(format!("record {} is not above the one before it", i + 1)));
        }
    }
    if let Some(long) = items.iter().find(|item| item.key_len() > KEY_BYTES_MAX) {
        return Err(NodeError(format!("a key of {} bytes, the limit is {KEY_BYTES_MAX}", long.key_len())));
    }
    let (Some(first), Some(last)) = (items.first(), items.last()) else { return Ok(()) };
    let first = first.key();
    let below = if frame.level > 0 { &*first <= frame.low } else { &*first < frame.low };
    if below || frame.high.is_some_and(|high| &*last.key() >= high) {
        return Err(NodeError("a record outside of the fences".to_owned()));
    }
    let is_child = |value: &[u8]| value.first_chunk().is_some_and(|p| u64::from_le_bytes(*p) < PAGE_ID_END);
    if frame.level > 0 && !items.iter().all(|item| item.value.len() == CHILD_BYTES && is_child(item.value)) {
        return Err(NodeError("a separator whose child is no page".to_owned()));
    }
    Ok(())
}

/// The length of a node, if a buffer can be so long.
pub(super) fn total_bytes(total: u64) -> Option<u32> {
    // The top bit of an end says something else.
    u32::try_from(total).ok().filter(|total| *total as usize <= PageBuf::LEN_MAX && *total <= i32::MAX as u32)
}

/// The header that these records need.
fn plan(frame: &Frame<'_>, items: &[Item<'_>]) -> Result<Header, NodeError> {
    let prefix_len = match items {
        [] => 0,
        [only] => only.key_len(),
        [first, .., last] => shared_len(&first.key(), &last.key()),
    };
    let key_width = items.first().map_or(0, |item| item.key_len() - prefix_len);
    let empty_value = if frame.level > 0 { CHILD_BYTES } else { 0 };
    let value_width = items.first().map_or(empty_value, |item| item.value.len());
    let keys_fixed = items.iter().all(|item| item.key_len() == key_width + prefix_len);
    let values_fixed = items.iter().all(|item| item.value.len() == value_width);
    let mut flags = if frame.high.is_some() { HAS_HIGH } else { 0 };
    flags |= if keys_fixed { FIXED_KEYS } else { 0 };
    flags |= if values_fixed { FIXED_VALUES } else { 0 };
    flags |= if items.iter().any(|item| item.is_apart) { HAS_APART } else { 0 };

    let too_large = |_| NodeError("a node of more than 2 GiB".to_owned());
    let width = |fixed: bool, width: usize| u32::try_from(if fixed { width } else { 0 }).map_err(too_large);
    let mut header = Header {
        level: frame.level,
        flags,
        total: 0,
        count: u32::try_from(items.len()).map_err(too_large)?,
        key_width: width(keys_fixed, key_width)?,
        value_width: width(values_fixed, value_width)?,
        prefix_len: prefix_len as u16,
        low_len: frame.low.len() as u16,
        high_len: frame.high.map_or(0, <[u8]>::len) as u16,
        next: page_number(frame.next),
        first_child: page_number(frame.first_child),
    };
    let key_lens = if header.has_key_lens() { 2 } else { 0 };
    let records = items.iter().map(|item| (key_lens + item.key_len() - prefix_len + item.value.len()) as u64);
    let total = header.records_at() as u64 + records.sum::<u64>();
    header.total = total_bytes(total).ok_or_else(|| NodeError("a node of more than 2 GiB".to_owned()))?;
    Ok(header)
}

fn write(memory: &PageMemory, frame: &Frame<'_>, header: &Header, items: &[Item<'_>]) -> PageBuf {
    memory.build(header.total as usize, |out| {
        let prefix_len = usize::from(header.prefix_len);
        let prefix = items.first().map(|item| item.key()).unwrap_or_default();
        let (front, back) = out.split_at_mut(header.heads_at());
        write_front(front, header, &prefix[..prefix_len], frame);
        let (heads, back) = back.split_at_mut(4 * items.len());
        let (ends, records) = back.split_at_mut(header.records_at() - header.ends_at());
        for (to, item) in heads.as_chunks_mut().0.iter_mut().zip(items) {
            *to = item.head(prefix_len).to_le_bytes();
        }
        let mut ends = ends.as_chunks_mut().0.iter_mut();
        let mut at = Cursor { out: records, at: 0 };
        for item in items {
            let (front, back) = item.rest(prefix_len);
            if header.has_key_lens() {
                at.put(&((front.len() + back.len()) as u16).to_le_bytes());
            }
            at.put(front);
            at.put(back);
            at.put(item.value);
            if let Some(end) = ends.next() {
                *end = end_bytes(at.at, item.is_apart);
            }
        }
    })
}

/// Writes header, prefix, fences and padding.
fn write_front(out: &mut [u8], header: &Header, prefix: &[u8], frame: &Frame<'_>) {
    if let Some((first, rest)) = out.split_first_chunk_mut() {
        header.write(first);
        let mut at = Cursor { out: rest, at: 0 };
        at.put(prefix);
        at.put(frame.low);
        at.put(frame.high.unwrap_or_default());
        at.out[at.at..].fill(0);
    }
}

/// A place to write at.
pub(super) struct Cursor<'a> {
    pub(super) out: &'a mut [u8],
    pub(super) at: usize,
}

impl Cursor<'_> {
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

const _: () = assert!(HEADER_BYTES.is_multiple_of(4), "heads follow the header on a multiple of four");
