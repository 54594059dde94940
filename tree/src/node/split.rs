//! Where a node is cut in two, and the two nodes that come of it.
//!
//! * A separator is above every key on its left and not above any on its right, and as short as that
//!   allows: `left < separator <= right`.
//! * Both sides of a cut hold something, so splitting comes to an end.

use pagecache::{PageId, mem::PageMemory};

use super::{
    Frag, Node, NodeError,
    build::{self, Frame, Item},
    layout::{View, shared_len},
    try_merge,
};

/// Fewest records of an inner node that is split: one goes up, each side keeps one.
const INNER_RECORDS_MIN: usize = 3;

/// A cut node: what goes right, and the key from which it does.
#[derive(Debug)]
pub(crate) struct Split {
    /// The low fence of the right node.
    pub(crate) separator: Box<[u8]>,
    /// The right node, with the old node's high fence and sibling.
    pub(crate) right: Node,
}

/// The shortest key that is above `left` and not above `right`, which must be above `left`.
pub(crate) fn separator<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    right.get(..shared_len(left, right) + 1).unwrap_or(right)
}

impl Node {
    /// True if the node is longer than `bytes_max` and can be cut.
    pub(crate) fn should_split(&self, bytes_max: usize) -> bool {
        self.bytes().len() > bytes_max && self.split_point(false).is_some()
    }

    /// The first record that goes right. `None` if there are too few to cut between.
    ///
    /// `right_edge_append` leaves the node full and moves only the end of it, for keys that arrive in
    /// order; otherwise the bytes are halved, near the middle where the separator is shortest.
    pub(crate) fn split_point(&self, right_edge_append: bool) -> Option<usize> {
        let view = self.view();
        let inner = view.header.level > 0;
        let (first, last) = match view.count() {
            count if inner && count >= INNER_RECORDS_MIN => (1, count - 2),
            count if !inner && count >= 2 => (1, count - 1),
            _ => return None,
        };
        if right_edge_append {
            return Some(last);
        }
        let total = view.start(view.count());
        let nearest = |bytes: usize| partition(first, last, |i| view.start(i) < bytes);
        let middle = nearest(total / 2);
        let window = nearest(total / 2 - total / 16)..=nearest(total / 2 + total / 16);
        // Nearest first, so that the shortest of equals is the one nearest to the middle.
        window.min_by_key(|i| (separator_len(&view, *i), i.abs_diff(middle)))
    }

    /// The first record that goes right so that the left node stays as full as `bytes_max` allows, for
    /// keys that arrive in order. `None` if there are too few to cut between.
    pub(crate) fn split_point_full(&self, bytes_max: usize) -> Option<usize> {
        let last = self.split_point(true)?;
        let view = self.view();
        // What the records have in the arrays in front of them goes with them.
        let arrays_bytes = (view.header.records_at() - view.header.heads_at()) / view.count();
        let left_bytes = |count: usize| view.header.heads_at() + count * arrays_bytes + view.start(count);
        let first = usize::from(self.split_point(false)? > 0);
        Some(partition(first, last, |i| left_bytes(i + 1) <= bytes_max))
    }

    /// The first record that goes right so that the right node is as full as `bytes_max` allows, for
    /// nodes of many times that size: only what goes right is logged, so cutting from the end logs
    /// each record once. `None` if there are too few to cut between.
    pub(crate) fn split_point_end(&self, bytes_max: usize) -> Option<usize> {
        let last = self.split_point(true)?;
        let view = self.view();
        let count = view.count();
        let arrays_bytes = (view.header.records_at() - view.header.heads_at()) / count;
        let right_bytes = |i: usize| {
            view.header.heads_at() + (count - i) * arrays_bytes + view.start(count) - view.start(i)
        };
        Some(partition(1, last, |i| right_bytes(i) > bytes_max))
    }

    /// Cuts before record `at`. The node itself stays: it gets a [`Frag::HalfSplit`], or a new base.
    ///
    /// # Errors
    ///
    /// `at` beyond the records.
    pub(crate) fn split(&self, memory: &PageMemory, at: usize) -> Result<Split, NodeError> {
        let view = self.view();
        let inner = view.header.level > 0;
        if at >= view.count() || (!inner && at == 0) {
            return Err(NodeError(format!("a node of {} records cannot be cut at {at}", view.count())));
        }
        let right_key = self.key_parts(at).to_vec();
        let separator: Box<[u8]> = if inner {
            right_key.into()
        } else {
            separator(&self.key_parts(at - 1).to_vec(), &right_key).into()
        };
        // The child of the separator that goes up becomes the first of the right node.
        let from = if inner { at + 1 } else { at };
        let items: Vec<Item<'_>> = Item::run(&view, from, view.count()).collect();
        let frame = Frame {
            level: view.header.level,
            low: &separator,
            high: view.high(),
            next: view.next(),
            first_child: inner.then(|| self.child(at + 1)),
        };
        let right = build::build(memory, &frame, &items)?;
        Ok(Split { separator, right })
    }

    /// Splits a root in place: left half, right half, and the root above them.
    ///
    /// # Errors
    ///
    /// As [`Node::split`]; also a tree of 255 levels.
    pub(crate) fn split_root(
        &self,
        memory: &PageMemory,
        at: usize,
        left: PageId,
        right: PageId,
    ) -> Result<(Node, Node, Node), NodeError> {
        let level =
            self.level().checked_add(1).ok_or_else(|| NodeError("a tree of 255 levels".to_owned()))?;
        let split = self.split(memory, at)?;
        let root = Node::root(memory, level, left, &split.separator, right)?;
        let cut = Frag::HalfSplit { separator: split.separator, right };
        let left = try_merge(memory, &[&Frag::Node(self.clone()), &cut])?;
        Ok((left, split.right, root))
    }
}

/// The least of `first..=last` for which `before` does not hold, or `last`.
fn partition(mut first: usize, mut last: usize, before: impl Fn(usize) -> bool) -> usize {
    while first < last {
        let middle = first + (last - first) / 2;
        if before(middle) {
            first = middle + 1;
        } else {
            last = middle;
        }
    }
    first
}

/// Length of the separator, less the prefix, of a cut before record `i`.
fn separator_len(view: &View<'_>, i: usize) -> usize {
    let right = view.suffix(i);
    if view.header.level > 0 { right.len() } else { shared_len(view.suffix(i - 1), right) + 1 }
}

#[cfg(test)]
mod tests {
    use super::separator;

    #[test]
    fn a_separator_divides_and_is_the_shortest_that_does() {
        struct Case {
            name: &'static str,
            left: &'static [u8],
            right: &'static [u8],
            want: &'static [u8],
        }
        let cases = [
            Case { name: "differ at once", left: b"apple", right: b"banana", want: b"b" },
            Case { name: "share a prefix", left: b"user:17", right: b"user:29", want: b"user:2" },
            Case { name: "left is empty", left: b"", right: b"anything", want: b"a" },
            Case { name: "left is a prefix", left: b"ab", right: b"abcd", want: b"abc" },
            Case { name: "by one byte", left: b"ab", right: b"abc", want: b"abc" },
            Case { name: "zero bytes", left: b"\0", right: b"\0\0\0", want: b"\0\0" },
            Case { name: "empty and zero", left: b"", right: b"\0", want: b"\0" },
            Case { name: "high bytes", left: b"\xff", right: b"\xff\xff\xff", want: b"\xff\xff" },
            Case { name: "left is longer", left: b"aazzzz", right: b"ab", want: b"ab" },
        ];
        for Case { name, left, right, want } in cases {
            let got = separator(left, right);
            assert_eq!(got, want, "{name}");
            assert!(left < got && got <= right, "{name}: {got:?} does not divide");
        }
    }
}
