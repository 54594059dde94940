//! Uniting a node with its right neighbour: the change that says so, and what both make together.
//!
//! * TREE-6: a leaf is told by one change what range it takes and which records come with it, so that no
//!   reader sees the one without the other.
//!
//! An inner node is written anew: that is rare.

use pagecache::{PageId, mem::PageMemory};

use super::{
    Change, KEY_BYTES_MAX, Node, NodeError, Ops, Tally,
    build::{self, Frame, Item},
    frag::{page_number, read_key},
    layout::CHILD_BYTES,
    ops::{Front, read_varint},
};

const HAS_HIGH: u8 = 1;
const HAS_NEXT: u8 = 2;
const HAS_MOVED: u8 = 4;

/// What a node takes over from its right sibling.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// The sibling's high fence.
    pub(crate) high: Option<Box<[u8]>>,
    /// The sibling's sibling.
    pub(crate) next: Option<PageId>,
    /// The sibling's records, if it had any: all of them lie between the old high fence and the new one.
    pub(crate) moved: Option<Ops>,
}

/// A join taken apart.
struct Parts<'a> {
    high: Option<&'a [u8]>,
    next: Option<PageId>,
    moved: Option<&'a [u8]>,
}

impl Join {
    /// The join that takes all of a leaf.
    ///
    /// # Errors
    ///
    /// As [`Ops::many`].
    pub(crate) fn taking(memory: &PageMemory, tree: u64, leaf: &Node) -> Result<Join, NodeError> {
        let records: Vec<(Vec<u8>, Change<'_>)> = (0..leaf.len())
            .map(|i| {
                let (key, value) = leaf.record(i);
                let is_apart = leaf.apart(i).is_some();
                (key.to_vec(), if is_apart { Change::Apart(value) } else { Change::Put(value) })
            })
            .collect();
        let changes: Vec<(&[u8], Change<'_>)> = records.iter().map(|(key, to)| (&**key, *to)).collect();
        // The tree gets no key that it did not have.
        let tally = Tally { tree, diff: 0 };
        let moved = if changes.is_empty() { None } else { Some(Ops::many(memory, tally, &changes)?) };
        Ok(Join { high: leaf.high().map(Box::from), next: leaf.next(), moved })
    }

    /// What stands before the moved records: the flags, a few numbers, and the fence.
    fn front(&self) -> (Front, &[u8]) {
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        let flags = flag(self.high.is_some(), HAS_HIGH)
            | flag(self.next.is_some(), HAS_NEXT)
            | flag(self.moved.is_some(), HAS_MOVED);
        let mut front = Front::new(flags);
        if let Some(next) = self.next {
            front.varint(next as u64);
        }
        let high = self.high.as_deref().unwrap_or_default();
        if self.moved.is_some() && self.high.is_some() {
            front.varint(high.len() as u64);
        }
        (front, high)
    }

    /// Bytes that [`Join::encode`] writes.
    pub(super) fn encoded_len(&self) -> usize {
        let (front, high) = self.front();
        front.len + high.len() + self.moved.as_ref().map_or(0, |moved| moved.bytes().len())
    }

    pub(super) fn encode(&self, out: &mut [u8]) {
        let (front, high) = self.front();
        let (to_front, rest) = out.split_at_mut(front.len);
        let (to_high, to_moved) = rest.split_at_mut(high.len());
        to_front.copy_from_slice(&front.bytes[..front.len]);
        to_high.copy_from_slice(high);
        to_moved.copy_from_slice(self.moved.as_ref().map_or(&[], Ops::bytes));
    }

    pub(super) fn decode(memory: &PageMemory, bytes: &[u8]) -> Result<Join, NodeError> {
        let Parts { high, next, moved } = parse(bytes)?;
        let moved = moved.map(|bytes| Ops::decode(memory, bytes)).transpose()?;
        Ok(Join { high: high.map(Box::from), next, moved })
    }

    /// Finds out whether the bytes decode.
    pub(super) fn check(bytes: &[u8]) -> Result<(), NodeError> {
        match parse(bytes)?.moved {
            Some(moved) => Ops::check(moved).map(|_fingerprint| ()),
            None => Ok(()),
        }
    }

    /// Bytes of memory beside the fragment.
    pub(super) fn charged_bytes(&self) -> usize {
        let high = self.high.as_ref().map_or(0, |high| high.len());
        size_of::<Join>() + high + self.moved.as_ref().map_or(0, Ops::charged_bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<Parts<'_>, NodeError> {
    let nothing = || NodeError("a join that means nothing".to_owned());
    let (&flags, rest) = bytes.split_first().ok_or_else(nothing)?;
    let has = |flag: u8| flags & flag != 0;
    if flags & !(HAS_HIGH | HAS_NEXT | HAS_MOVED) != 0 || (has(HAS_NEXT) && !has(HAS_HIGH)) {
        return Err(nothing());
    }
    let (next, rest) = match has(HAS_NEXT) {
        true => page_number(rest).map(|(next, rest)| (Some(next), rest))?,
        false => (None, rest),
    };
    let (high, rest) = match (has(HAS_HIGH), has(HAS_MOVED)) {
        (false, _) => (None, rest),
        (true, false) => (Some(rest), &[][..]),
        (true, true) => {
            let (len, rest) = read_varint(rest).ok_or_else(nothing)?;
            let len = usize::try_from(len).ok().filter(|len| *len <= KEY_BYTES_MAX).ok_or_else(nothing)?;
            rest.split_at_checked(len).map(|(high, rest)| (Some(high), rest)).ok_or_else(nothing)?
        }
    };
    let high = high.map(read_key).transpose()?;
    match (has(HAS_MOVED), rest) {
        (false, []) => Ok(Parts { high, next, moved: None }),
        (true, [_, ..]) => Ok(Parts { high, next, moved: Some(rest) }),
        _ => Err(nothing()),
    }
}

impl Node {
    /// Bytes of the records, and of what is stored for each beside them.
    #[inline]
    pub(crate) fn records_bytes(&self) -> usize {
        let header = self.view().header;
        header.total as usize - header.heads_at()
    }

    /// Bytes of the node that this one and its right neighbour make together. `None` if they make none.
    pub(crate) fn united_bytes(&self, right: &Node) -> Option<usize> {
        self.unite(right, build::measure).ok()
    }

    /// The node that this one and its right neighbour make together.
    ///
    /// # Errors
    ///
    /// Two nodes that are no neighbours.
    pub(crate) fn united(&self, memory: &PageMemory, right: &Node) -> Result<Node, NodeError> {
        self.unite(right, |frame, items| build::build(memory, frame, items))
    }

    fn unite<T>(
        &self,
        right: &Node,
        make: impl FnOnce(&Frame<'_>, &[Item<'_>]) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let (left_view, right_view) = (self.view(), right.view());
        if self.level() != right.level() || self.high() != Some(right.low()) {
            return Err(NodeError("two nodes that are no neighbours".to_owned()));
        }
        let first_child: Option<[u8; CHILD_BYTES]> =
            right_view.first_child().map(|pid| (pid as u64).to_le_bytes());
        let mut items: Vec<Item<'_>> = Vec::with_capacity(self.len() + right.len() + 1);
        items.extend(Item::run(&left_view, 0, left_view.count()));
        items.extend(first_child.as_ref().map(|child| Item::new(right.low(), child)));
        items.extend(Item::run(&right_view, 0, right_view.count()));
        let frame = Frame {
            level: self.level(),
            low: self.low(),
            high: right.high(),
            next: right.next(),
            first_child: left_view.first_child(),
        };
        make(&frame, &items)
    }
}
