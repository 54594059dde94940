//! Joins: an empty leaf is given to its left neighbour, and its page freed.
//!
//! One batch: the left leaf takes over the range, the empty leaf is freed, the parent forgets the
//! separator. It is done only where the parent knows the empty leaf and it is not the parent's first
//! child, so it always changes the parent that covers the separator, and a post that was about to
//! name the freed page fails there (P-7).

use pagecache::{Admission, Failure, Guard, PageId, pin};

use super::{Core, descend::NodePage, split::lost};
use crate::node::Frag;

impl Core {
    /// Joins the leaf that begins at `low` to its left neighbour, if it is still empty.
    pub(super) fn join_empty(&self, low: &[u8]) -> Result<(), Failure> {
        if low.is_empty() {
            return Ok(());
        }
        let guard = pin();
        let Some(parent) = self.node_at(1, low, &guard)? else { return Ok(()) };
        let child = parent.node.child_index(low);
        if child == 0 || parent.node.child_low(child).to_vec() != low {
            return Ok(());
        }
        let Some(empty) = self.node(parent.node.child(child), &guard)? else { return Ok(()) };
        if !empty.node.is_leaf() || !empty.node.is_empty() || empty.node.low() != low {
            return Ok(());
        }
        let Some(left) = self.left_of(parent.node.child(child - 1), low, &guard)? else { return Ok(()) };
        self.install_join(&left, &empty, &parent, &guard)
    }

    /// The leaf that ends at `high`, found along the sibling links from `from`.
    fn left_of<'g>(
        &self,
        from: PageId,
        high: &[u8],
        guard: &'g Guard,
    ) -> Result<Option<NodePage<'g>>, Failure> {
        let mut pid = from;
        while let Some(found) = self.node(pid, guard)? {
            match (found.node.high(), found.node.next()) {
                (Some(end), _) if end == high && found.node.is_leaf() => return Ok(Some(found)),
                (Some(end), Some(next)) if end < high => pid = next,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn install_join(
        &self,
        left: &NodePage<'_>,
        empty: &NodePage<'_>,
        parent: &NodePage<'_>,
        guard: &Guard,
    ) -> Result<(), Failure> {
        let mut batch = self.pages.begin_batch(Admission { optional: true, ..Admission::default() })?;
        let join = Frag::Join { high: empty.node.high().map(Into::into), next: empty.node.next() };
        let unpost = Frag::Unpost { separator: empty.node.low().into() };
        let installed = batch
            .link(left.pid, left.key, join, guard)
            .and_then(|_| batch.free(empty.pid, empty.key, guard))
            .and_then(|()| batch.link(parent.pid, parent.key, unpost, guard));
        match installed {
            Ok(_) => batch.apply()?,
            Err(error) => {
                drop(batch);
                return lost(error).map(|_: Option<()>| ());
            }
        };
        let _ = self.node(left.pid, guard)?;
        let _ = self.node(parent.pid, guard)?;
        Ok(())
    }
}
