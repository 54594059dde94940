//! From leaf to leaf, in either direction, by key and fence only: pages may split, join and be
//! reused between two steps.

use pagecache::{Failure, Guard, PageId, pin};

use super::{Core, DESCENTS_MAX};
use crate::node::{Frag, Node};

/// A leaf as it was at one moment; it stays as it is for as long as it is held.
pub(crate) type Leaf = Node;

/// What a processor fetches of a page, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Entry,
    Newest,
    Base,
}

impl Core {
    /// The leaf that covers `key`: probably the page `near`, if one is named.
    pub(crate) fn leaf_at(&self, key: &[u8], near: Option<PageId>) -> Result<Leaf, Failure> {
        let guard = pin();
        for _ in 0..DESCENTS_MAX {
            let leaf = self.leaf_from(near.unwrap_or(self.root), key, &guard)?;
            // What the descent has looked at is what the view shows, unless a batch ended in between.
            if let Some(Frag::Node(node)) = leaf.page.settled()
                && (leaf.page.is_final() || (node.is_leaf() && node.covers(key)))
            {
                return Ok(node.clone());
            }
            if let Some(found) = self.node(leaf.pid, &guard)?
                && found.node.is_leaf()
                && found.node.covers(key)
            {
                return Ok(found.node.clone());
            }
        }
        Err(self.damaged(self.root, "a leaf never stands still"))
    }

    /// Asks for a part of a page that will be wanted before long: each part is one wait for memory further.
    pub(crate) fn prefetch_part(&self, pid: PageId, part: Part) {
        match part {
            Part::Entry => self.pages.prefetch_entry(pid),
            Part::Newest => self.pages.prefetch_newest(pid, &pin()),
            Part::Base => {
                if let Some(Frag::Node(node)) = self.pages.peek_base(pid, &pin()) {
                    node.prefetch_front();
                }
            }
        }
    }

    /// The leaf that covers the keys just below `bound`; the last one if there is no bound. `None` if
    /// no key is below it.
    ///
    /// The parent may not know the last pages before `bound` yet, so the walk goes right until the
    /// high fence reaches it.
    pub(crate) fn leaf_below(&self, bound: Option<&[u8]>) -> Result<Option<Leaf>, Failure> {
        if bound.is_some_and(<[u8]>::is_empty) {
            return Ok(None);
        }
        let guard = pin();
        for _ in 0..DESCENTS_MAX {
            if let Some(leaf) = self.try_leaf_below(bound, &guard)? {
                return Ok(Some(leaf));
            }
        }
        Err(self.damaged(self.root, "no leaf ends where another begins, however often one looks"))
    }

    fn try_leaf_below(&self, bound: Option<&[u8]>, guard: &Guard) -> Result<Option<Leaf>, Failure> {
        let mut pid: PageId = self.root;
        while let Some(found) = self.node(pid, guard)? {
            let node = found.node;
            if bound.is_some_and(|bound| bound <= node.low()) {
                return Ok(None);
            }
            let reaches = match (node.high(), bound) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(high), Some(bound)) => bound <= high,
            };
            match node.next() {
                Some(next) if !reaches => pid = next,
                _ if !reaches => return Ok(None),
                _ if node.is_leaf() => return Ok(Some(node.clone())),
                _ => {
                    pid = match bound {
                        Some(bound) => node.child_below(bound),
                        None => node.child(node.children() - 1),
                    }
                }
            }
        }
        Ok(None)
    }

    /// How many keys there are, leaf by leaf; keys that come and go meanwhile may be counted or not.
    pub(crate) fn count(&self) -> Result<usize, Failure> {
        let mut leaf = self.leaf_at(&[], None)?;
        let mut count = leaf.len();
        loop {
            let Some(high) = leaf.high() else { return Ok(count) };
            let next = self.leaf_at(high, leaf.next())?;
            // The next leaf may have been joined to one that was counted.
            count += next.len() - next.search(high).unwrap_or_else(|at| at);
            leaf = next;
            self.pages.keep_within_capacity();
        }
    }
}
