//! Joins: a page that holds little is united with a neighbour, and the right one of the two is freed.
//!
//! One batch: the left page takes over the range and what is in it, the right one is freed, the parent
//! forgets the separator. Both are children of one parent, and the right one is not its first: so every
//! join changes the parent that covers the separator, and a post that was about to name the freed page
//! fails there (P-7). A first child takes its right neighbour instead of being taken; an only child waits
//! until its parent, which has a single child then, was joined itself.
//!
//! A leaf's records move as a change of the left leaf, since they are few; an inner node is written anew.
//! A root with one child takes that child's content (TREE-2).

use pagecache::{Admission, Failure, Guard, PageId, pin};

use super::{
    Core, Page,
    descend::{NodePage, visible},
    split::lost,
};
use crate::node::{Frag, Join, Node, Ops};

/// Part of the bytes a page may have that its records have at most when it is joined.
const SMALL_PART: usize = 8;
/// A leaf that holds little is looked at again after so many removals: its neighbours may have room by then.
const LOOK_EVERY: usize = 4;
/// Tries of a join before it is left to a later writer.
const JOIN_TRIES: usize = 3;

/// Where two neighbours meet.
struct Seam {
    level: u8,
    separator: Vec<u8>,
}

/// What became of a join.
enum Joined {
    /// There is one page less; these are to be looked at now.
    Done(Vec<PageId>),
    /// They are not to be joined.
    Apart,
    /// Somebody was faster, or the parent did not know the right page.
    Again,
}

impl Core {
    /// True if the node holds so little that it is to be joined to a neighbour.
    pub(super) fn is_small(&self, node: &Node) -> bool {
        node.records_bytes() <= self.bytes_max(node) / SMALL_PART
    }

    /// True if a leaf may be small, as far as can be said without folding it: removals in front of its node
    /// count as if each took a record away.
    pub(super) fn may_be_small(&self, pid: PageId, page: &Page<'_>) -> bool {
        self.left_in(pid, page).is_some_and(|(base, left)| self.would_be_small(base, left))
    }

    /// True if so many removals make a leaf small, or it is time to look again at one that was.
    pub(super) fn becomes_small(&self, pid: PageId, page: &Page<'_>, removals: usize) -> bool {
        let Some((base, before)) = self.left_in(pid, page).filter(|_| removals > 0) else { return false };
        let after = before.saturating_sub(removals);
        let is_looked_at = after == 0 || after / LOOK_EVERY != before / LOOK_EVERY;
        self.would_be_small(base, after) && (is_looked_at || !self.would_be_small(base, before))
    }

    /// The node of a leaf, and how many of its records the changes in front of it leave.
    fn left_in<'g>(&self, pid: PageId, page: &Page<'g>) -> Option<(&'g Node, usize)> {
        match page.base_under(0) {
            Some(Frag::Node(base)) if base.is_leaf() && pid != self.root => {
                let removed: usize = visible(page).filter_map(Frag::ops).map(Ops::removals).sum();
                Some((base, base.len().saturating_sub(removed)))
            }
            _ => None,
        }
    }

    fn would_be_small(&self, base: &Node, left: usize) -> bool {
        base.records_bytes() * left <= self.bytes_max(base) / SMALL_PART * base.len()
    }

    /// Joins a page that holds little to a neighbour, and whatever then has become small by that.
    pub(super) fn join(&self, pid: PageId) -> Result<(), Failure> {
        let mut todo = vec![pid];
        while let Some(pid) = todo.pop() {
            todo.extend(if pid == self.root { self.collapse()? } else { self.join_once(pid)? });
        }
        Ok(())
    }

    /// Joins a page that is not the root, if it is small; to its left neighbour, if that is possible.
    fn join_once(&self, pid: PageId) -> Result<Vec<PageId>, Failure> {
        let seams = {
            let guard = pin();
            match self.node(pid, &guard)? {
                Some(found) if self.is_small(found.node) => {
                    let seam = |fence: &[u8]| Seam { level: found.node.level(), separator: fence.to_vec() };
                    [Some(seam(found.node.low())), found.node.high().map(seam)]
                }
                _ => return Ok(Vec::new()),
            }
        };
        for seam in seams.into_iter().flatten().filter(|seam| !seam.separator.is_empty()) {
            if let Some(next) = self.join_at(&seam)? {
                return Ok(next);
            }
        }
        Ok(Vec::new())
    }

    /// Joins the two pages that meet at `seam`; `None` if they stay two.
    fn join_at(&self, seam: &Seam) -> Result<Option<Vec<PageId>>, Failure> {
        for _ in 0..JOIN_TRIES {
            match self.try_join_at(seam)? {
                Joined::Done(next) => return Ok(Some(next)),
                Joined::Apart => return Ok(None),
                Joined::Again => {}
            }
        }
        Ok(None)
    }

    fn try_join_at(&self, Seam { level, separator }: &Seam) -> Result<Joined, Failure> {
        let guard = pin();
        let Some(parent) = self.node_at(level + 1, separator, &guard)? else { return Ok(Joined::Apart) };
        let child = parent.node.child_index(separator);
        if parent.node.child_low(child).to_vec() != *separator {
            self.post(*level, separator)?;
            return Ok(Joined::Again);
        }
        let Some(before) = child.checked_sub(1) else { return Ok(Joined::Apart) };
        let Some(right) = self.node(parent.node.child(child), &guard)? else { return Ok(Joined::Again) };
        if right.node.level() != *level || right.node.low() != separator {
            return Ok(Joined::Again);
        }
        let from = parent.node.child(before);
        let Some(left) = self.left_of(from, *level, separator, &guard)? else { return Ok(Joined::Again) };
        if !self.fit(left.node, right.node) {
            return Ok(Joined::Apart);
        }
        if !self.install_join(&left, &right, &parent, &guard)? {
            return Ok(Joined::Again);
        }
        // What was the right one's first child is a first child no more.
        let was_first = (!right.node.is_leaf()).then(|| right.node.child(0));
        Ok(Joined::Done([Some(parent.pid), was_first].into_iter().flatten().collect()))
    }

    /// True if two neighbours are to be one page. It is then not so large that the next writes split it,
    /// but for one that holds nothing: that is in the way, and nothing moves.
    fn fit(&self, left: &Node, right: &Node) -> bool {
        let bytes_max = self.bytes_max(left);
        let fits = |limit: usize| left.united_bytes(right).is_some_and(|bytes| bytes <= limit);
        match (left.is_leaf(), left.is_empty() || right.is_empty()) {
            (true, _) if right.is_empty() => true,
            (true, _) => self.is_small(right) && fits(bytes_max / 4 * 3),
            (false, true) => fits(bytes_max),
            (false, false) => (self.is_small(left) || self.is_small(right)) && fits(bytes_max / 4 * 3),
        }
    }

    /// The page of `level` that ends at `high`, found along the sibling links from `from`.
    fn left_of<'g>(
        &self,
        from: PageId,
        level: u8,
        high: &[u8],
        guard: &'g Guard,
    ) -> Result<Option<NodePage<'g>>, Failure> {
        let mut pid = from;
        while let Some(found) = self.node(pid, guard)? {
            match (found.node.high(), found.node.next()) {
                _ if found.node.level() != level => return Ok(None),
                (Some(end), _) if end == high => return Ok(Some(found)),
                (Some(end), Some(next)) if end < high => pid = next,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Installs left, right, parent, in this order (P-6). False if a race was lost.
    fn install_join(
        &self,
        left: &NodePage<'_>,
        right: &NodePage<'_>,
        parent: &NodePage<'_>,
        guard: &Guard,
    ) -> Result<bool, Failure> {
        let unfit = |error| self.unfit(left.pid, error);
        let mut batch = self.pages.begin_batch(Admission { optional: true, ..Admission::default() })?;
        let taken = if left.node.is_leaf() {
            let join = Join::taking(self.memory(), self.id, right.node).map_err(unfit)?;
            batch.link(left.pid, left.key, Frag::Join(Box::new(join)), guard)
        } else {
            let united = left.node.united(self.memory(), right.node).map_err(unfit)?;
            batch.replace(left.pid, left.key, Frag::Node(united), guard)
        };
        let unpost = Frag::Unpost { separator: right.node.low().into() };
        let installed = taken
            .and_then(|_| batch.free(right.pid, right.key, guard))
            .and_then(|()| batch.link(parent.pid, parent.key, unpost, guard));
        match installed {
            Ok(_) => batch.apply()?,
            Err(error) => {
                drop(batch);
                return lost(error).map(|_: Option<()>| false);
            }
        };
        let _ = self.node(left.pid, guard)?;
        let _ = self.node(parent.pid, guard)?;
        Ok(true)
    }

    /// Gives the root the content of its only child, as long as it has only one.
    fn collapse(&self) -> Result<Vec<PageId>, Failure> {
        for _ in 0..JOIN_TRIES {
            let guard = pin();
            let Some(root) = self.node(self.root, &guard)? else { break };
            if root.node.is_leaf() || !root.node.is_empty() {
                break;
            }
            let Some(child) = self.node(root.node.child(0), &guard)? else { continue };
            if let Some(high) = child.node.high() {
                self.post(child.node.level(), high)?;
                continue;
            }
            let mut batch = self.pages.begin_batch(Admission { optional: true, ..Admission::default() })?;
            let content = Frag::Node(child.node.clone());
            let installed = batch
                .free(child.pid, child.key, &guard)
                .and_then(|()| batch.replace(root.pid, root.key, content, &guard));
            match installed {
                Ok(_) => batch.apply()?,
                Err(error) => {
                    drop(batch);
                    lost(error).map(|_: Option<()>| ())?;
                    continue;
                }
            };
            let _ = self.node(self.root, &guard)?;
            return Ok(vec![self.root]);
        }
        Ok(Vec::new())
    }
}
