//! A node of the tree: an immutable, sorted run of records in one buffer of page memory.
//!
//! The buffer is also the node's form on disk: encoding copies it, decoding validates and copies it. A
//! leaf's records are keys and values. An inner node's are separators and children, and the first child,
//! which starts at the low fence, stands in the header.
//!
//! * Every node carries its level and both fences; the low one is inclusive, the high one is not.
//! * A node never changes. A change builds another one: [`edit`] copies what stays in whole runs,
//!   [`build`] writes anew.
//!
//! What lies where is [`layout`]'s business, which bytes are a node [`validate`]'s, how changes wait in
//! front of a node [`frag`]'s, how they are folded in [`merge`]'s, where nodes are cut [`split`]'s, how two
//! become one [`join`]'s.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use pagecache::{
    PageId,
    mem::{Lent, PageBuf, PageMemory, prefetch_read},
};

mod apart;
mod build;
mod edit;
mod find;
mod frag;
mod join;
mod layout;
mod merge;
mod ops;
mod search;
mod split;
mod validate;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    apart::{APART_BYTES, Apart, Stored},
    find::{Find, Reach, find, reach},
    frag::Frag,
    join::Join,
    merge::{merge, try_merge},
    ops::{APART_MARK, Change, Ops, SHAPE_MARK, Tally, mark_of},
    split::Split,
};
use self::{
    build::{Frame, Item},
    layout::View,
};

/// Longest key, in bytes: lengths are stored in 16 bits.
pub(crate) const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Why bytes are no node, or fragments make none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeError(pub(crate) String);

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NodeError {}

/// One node. A clone shares the buffer.
#[derive(Clone)]
pub(crate) struct Node {
    bytes: PageBuf,
}

/// A key in the two pieces in which a node holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyParts<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) suffix: &'a [u8],
}

impl KeyParts<'_> {
    /// The key in one piece.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }
}

/// Making nodes.
impl Node {
    /// A leaf of these records, which must rise strictly and lie within the fences.
    ///
    /// # Errors
    ///
    /// Records out of order or out of the fences, a key above [`KEY_BYTES_MAX`], more than 4 GiB.
    pub(crate) fn leaf<'a>(
        memory: &PageMemory,
        low: &[u8],
        high: Option<&[u8]>,
        next: Option<PageId>,
        records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Node, NodeError> {
        let items: Vec<Item<'_>> = records.into_iter().map(|(key, value)| Item::new(key, value)).collect();
        build::build(memory, &Frame { level: 0, low, high, next, first_child: None }, &items)
    }

    /// The leaf that a fresh tree consists of: all keys belong in it, and none is there.
    pub(crate) fn empty_leaf(memory: &PageMemory) -> Result<Node, NodeError> {
        Node::leaf(memory, &[], None, None, [])
    }

    /// An inner node: `first_child` from the low fence on, each other child from its separator on.
    ///
    /// # Errors
    ///
    /// As [`Node::leaf`]; also a level of 0 or a page id of more than 48 bits.
    pub(crate) fn inner<'a>(
        memory: &PageMemory,
        level: u8,
        low: &[u8],
        high: Option<&[u8]>,
        next: Option<PageId>,
        first_child: PageId,
        children: impl IntoIterator<Item = (&'a [u8], PageId)>,
    ) -> Result<Node, NodeError> {
        let children: Vec<(&[u8], [u8; 8])> =
            children.into_iter().map(|(key, pid)| (key, (pid as u64).to_le_bytes())).collect();
        let items: Vec<Item<'_>> = children.iter().map(|(key, pid)| Item::new(key, pid)).collect();
        build::build(memory, &Frame { level, low, high, next, first_child: Some(first_child) }, &items)
    }

    /// The root above two children: all keys below `separator` are in `left`, the others in `right`.
    ///
    /// # Errors
    ///
    /// As [`Node::inner`].
    pub(crate) fn root(
        memory: &PageMemory,
        level: u8,
        left: PageId,
        separator: &[u8],
        right: PageId,
    ) -> Result<Node, NodeError> {
        Node::inner(memory, level, &[], None, None, left, [(separator, right)])
    }

    /// Checks that `bytes` are a node, wholly, and copies them into page memory.
    ///
    /// # Errors
    ///
    /// The first thing that no node could hold.
    pub(crate) fn decode(memory: &PageMemory, bytes: &[u8]) -> Result<Node, NodeError> {
        Node::check(bytes)?;
        Ok(Node { bytes: PageBuf::copy_of(memory, bytes) })
    }

    /// Finds out whether the bytes are a node.
    fn check(bytes: &[u8]) -> Result<(), NodeError> {
        validate::validate(bytes)
    }
}

/// Reading nodes.
impl Node {
    #[inline]
    fn view(&self) -> View<'_> {
        View::new(&self.bytes)
    }

    /// Height above the leaves.
    #[inline]
    pub(crate) fn level(&self) -> u8 {
        self.view().header.level
    }

    /// True if the records are keys and values.
    #[inline]
    pub(crate) fn is_leaf(&self) -> bool {
        self.level() == 0
    }

    /// How many records there are: in an inner node one less than children.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.view().count()
    }

    /// True if there are no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The least key that belongs here.
    #[inline]
    pub(crate) fn low(&self) -> &[u8] {
        self.view().low()
    }

    /// The least key that belongs further right; `None` if all above the low fence belong here.
    #[inline]
    pub(crate) fn high(&self) -> Option<&[u8]> {
        self.view().high()
    }

    /// The right sibling.
    pub(crate) fn next(&self) -> Option<PageId> {
        self.view().next()
    }

    /// Level, fences and sibling.
    #[inline]
    pub(crate) fn reach(&self) -> Reach<'_> {
        Reach { level: self.level(), low: self.low(), high: self.high(), next: self.next() }
    }

    /// True if `key` belongs here.
    #[inline]
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        let view = self.view();
        view.low() <= key && view.high().is_none_or(|high| key < high)
    }

    /// `Ok(i)` if record `i` has this key, else `Err` with the place where it would go.
    #[inline]
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        search::search(&self.view(), key)
    }

    /// As [`Node::search`], and asks for the records from there on that a short range reads: the first of
    /// them is then compared while the others are on their way.
    #[inline]
    pub(crate) fn search_range(&self, key: &[u8]) -> Result<usize, usize> {
        let view = self.view();
        search::search_from(&view, key, |from| self.prefetch_records(from, view.count()))
    }

    /// The value under `key`, of a leaf in which all are inline.
    #[cfg(test)]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let view = self.view();
        search::search(&view, key).ok().map(|i| view.value(i))
    }

    /// The value under `key`, or where it lives.
    #[inline]
    pub(crate) fn stored(&self, key: &[u8]) -> Option<Stored<'_>> {
        let view = self.view();
        search::search(&view, key).ok().map(|i| Stored::of(view.value(i), view.is_apart(i)))
    }

    /// Where the value of record `i` lives, if that is not here.
    #[inline]
    pub(crate) fn apart(&self, i: usize) -> Option<Apart> {
        let view = self.view();
        view.is_apart(i).then(|| Apart::decode(view.value(i)).expect("checked when the bytes came in"))
    }

    /// False if every value of the leaf is in it.
    #[inline]
    pub(crate) fn may_hold_apart(&self) -> bool {
        self.view().header.has(layout::HAS_APART)
    }

    /// The key of record `i`.
    pub(crate) fn key_parts(&self, i: usize) -> KeyParts<'_> {
        let view = self.view();
        KeyParts { prefix: view.prefix(), suffix: view.suffix(i) }
    }

    /// Keys and values from record `from` on, in order.
    #[cfg(test)]
    pub(crate) fn records(
        &self,
        from: usize,
    ) -> impl DoubleEndedIterator<Item = (KeyParts<'_>, &[u8])> + ExactSizeIterator {
        let view = self.view();
        (from.min(view.count())..view.count()).map(move |i| {
            let (suffix, value) = view.record(i);
            (KeyParts { prefix: view.prefix(), suffix }, value)
        })
    }

    /// Asks for the lines that a search begins with, header, fences and heads, all at once: one wait
    /// for memory in place of three. So many hold the heads of a leaf of a hundred records.
    #[inline]
    pub(crate) fn prefetch_front(&self) {
        const LINES: usize = 8;
        for line in 0..LINES {
            prefetch_read(self.bytes.as_ptr().wrapping_add(line * 64));
        }
    }

    /// Asks for the records from `from` on that a short range reads, all at once, or as many as a processor asks
    /// for side by side; it goes on by itself from there.
    #[inline]
    pub(crate) fn prefetch_records(&self, from: usize, to: usize) {
        const RECORDS: usize = 10;
        const LINES_MAX: usize = 16;
        let view = self.view();
        let (from, to) = (view.start(from), view.start(to.min(from + RECORDS)));
        let records = view.records().as_ptr();
        for line in 0..((to - from) / 64 + 1).min(LINES_MAX) {
            prefetch_read(records.wrapping_add(from + line * 64));
        }
    }

    /// Key and value of record `i`.
    #[inline]
    pub(crate) fn record(&self, i: usize) -> (KeyParts<'_>, &[u8]) {
        let view = self.view();
        let (suffix, value) = view.record(i);
        (KeyParts { prefix: view.prefix(), suffix }, value)
    }

    /// The node's buffer on loan, and nothing if too much is lent already.
    pub(crate) fn lend(&self, memory: &PageMemory, bytes_max: usize) -> Option<Lent> {
        memory.lend(&self.bytes, bytes_max)
    }

    /// Where a part of the node's bytes lies among them.
    #[inline]
    pub(crate) fn offset_of(&self, part: &[u8]) -> usize {
        part.as_ptr().addr() - self.bytes.as_ptr().addr()
    }

    /// Feeds all that the node says, whatever form it has, to `hasher`.
    pub(crate) fn hash_content(&self, hasher: &mut impl Hasher) {
        (self.level(), self.low(), self.high(), self.next()).hash(hasher);
        self.view().first_child().hash(hasher);
        for i in 0..self.len() {
            let (key, value) = self.record(i);
            (key.to_vec(), value).hash(hasher);
        }
    }

    /// The bytes, which are the encoding.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory that the node occupies.
    pub(crate) fn charged_bytes(&self) -> usize {
        self.bytes.charged_bytes()
    }
}

/// Children of inner nodes.
impl Node {
    /// How many children there are; none in a leaf.
    pub(crate) fn children(&self) -> usize {
        let view = self.view();
        view.first_child().map_or(0, |_| view.count() + 1)
    }

    /// Child `i` of `0..children()`.
    ///
    /// # Panics
    ///
    /// If there is no such child, as in a leaf.
    #[inline]
    pub(crate) fn child(&self, i: usize) -> PageId {
        let view = self.view();
        let Some(record) = i.checked_sub(1) else {
            return view.first_child().expect("only an inner node is asked for a child");
        };
        let pid = view.value(record).first_chunk().expect("a child is a number of eight bytes");
        u64::from_le_bytes(*pid) as PageId
    }

    /// Which child covers `key`, given that this node does.
    #[inline]
    pub(crate) fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(i) => i + 1,
            Err(i) => i,
        }
    }

    /// The child that covers `key`, given that this node does.
    #[inline]
    pub(crate) fn child_for(&self, key: &[u8]) -> PageId {
        self.child(self.child_index(key))
    }

    /// The child that covers the keys just below `key`, for walks to the left.
    pub(crate) fn child_below(&self, key: &[u8]) -> PageId {
        let (Ok(i) | Err(i)) = self.search(key);
        self.child(i)
    }

    /// The low fence of child `i`.
    pub(crate) fn child_low(&self, i: usize) -> KeyParts<'_> {
        match i.checked_sub(1) {
            Some(record) => self.key_parts(record),
            None => KeyParts { prefix: self.low(), suffix: &[] },
        }
    }
}

/// Says what a node is, never what it holds.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("level", &self.level())
            .field("records", &self.len())
            .field("bytes", &self.bytes.len())
            .field("low_bytes", &self.low().len())
            .field("high_bytes", &self.high().map(<[u8]>::len))
            .field("next", &self.next())
            .finish()
    }
}
