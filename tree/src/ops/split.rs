//! Splits: a page that grew too large gives its right part to a new page.
//!
//! One batch installs the new page's base and a small half-split on the left. From then on the right
//! part is found through the sibling link; the parent learns of it by a post of its own, at once or
//! by a later writer that had to go right (P-7). The root splits in place: its content moves to two
//! new pages, and its page becomes the node above them.

use pagecache::{Admission, Failure, PageId, PagePtr, pin};

use super::{Core, descend::NodePage, write::failure_of};
use crate::node::{Frag, Node, NodeError, Split};

/// Tries of a post before it is left to a later writer.
const POST_TRIES: usize = 4;

impl Core {
    /// Splits a page, and those that come of it, until none is too large. `hint` is the key that was
    /// just written there.
    pub(super) fn split(&self, pid: PageId, hint: Option<&[u8]>) -> Result<(), Failure> {
        let mut todo = vec![pid];
        while let Some(pid) = todo.pop() {
            let halves = if pid == self.root { self.split_root(hint)? } else { self.split_once(pid, hint)? };
            todo.extend(halves.into_iter().flatten());
        }
        Ok(())
    }

    /// Splits a page that is not the root; returns both halves, which may themselves be too large.
    fn split_once(&self, pid: PageId, hint: Option<&[u8]>) -> Result<Option<[PageId; 2]>, Failure> {
        let guard = pin();
        let Some(found) = self.node(pid, &guard)? else { return Ok(None) };
        let Some(at) = self.cut(found.node, hint) else { return Ok(None) };
        let Split { separator, right } =
            found.node.split(self.memory(), at).map_err(|e| self.unfit(pid, e))?;
        let level = found.node.level();
        let Some(right_pid) = self.install_split(&found, &separator, right)? else { return Ok(None) };
        self.post(level, &separator)?;
        Ok(Some([pid, right_pid]))
    }

    fn install_split(
        &self,
        left: &NodePage<'_>,
        separator: &[u8],
        right: Node,
    ) -> Result<Option<PageId>, Failure> {
        let guard = pin();
        let right_pid = self.pages.allocate(&guard).map_err(failure_of)?;
        let mut batch = self.pages.begin_batch(Admission { optional: true, ..Admission::default() })?;
        let half = Frag::HalfSplit { separator: separator.into(), right: right_pid };
        let installed = batch
            .link(left.pid, left.key, half, &guard)
            .and_then(|_| batch.replace(right_pid, PagePtr::allocated(), Frag::Node(right), &guard));
        match installed {
            Ok(_) => batch.apply()?,
            Err(error) => {
                drop(batch);
                let _ = self.pages.free(right_pid, PagePtr::allocated(), &guard);
                return lost(error);
            }
        };
        // Fold the half-split in, so that readers meet a plain node.
        let _ = self.node(left.pid, &guard)?;
        Ok(Some(right_pid))
    }

    /// Splits the root in place; returns its two children, which may themselves be too large.
    fn split_root(&self, hint: Option<&[u8]>) -> Result<Option<[PageId; 2]>, Failure> {
        let guard = pin();
        let Some(found) = self.node(self.root, &guard)? else { return Ok(None) };
        let Some(at) = self.cut(found.node, hint) else { return Ok(None) };
        let left_pid = self.pages.allocate(&guard).map_err(failure_of)?;
        let right_pid = self.pages.allocate(&guard).map_err(failure_of)?;
        let parts = found.node.split_root(self.memory(), at, left_pid, right_pid);
        let (left, right, root) = parts.map_err(|e| self.unfit(self.root, e))?;
        let mut batch = self.pages.begin_batch(Admission { optional: true, ..Admission::default() })?;
        let installed = batch
            .replace(left_pid, PagePtr::allocated(), Frag::Node(left), &guard)
            .and_then(|_| batch.replace(right_pid, PagePtr::allocated(), Frag::Node(right), &guard))
            .and_then(|_| batch.replace(self.root, found.key, Frag::Node(root), &guard));
        match installed {
            Ok(_) => batch.apply()?,
            Err(error) => {
                drop(batch);
                // The batch gave back what it had installed; these calls find nothing to do there.
                for pid in [left_pid, right_pid] {
                    let _ = self.pages.free(pid, PagePtr::allocated(), &guard);
                }
                return lost(error);
            }
        };
        let _ = self.node(self.root, &guard)?;
        Ok(Some([left_pid, right_pid]))
    }

    /// Where to cut a node that is too large. Keys that arrive in order at the right edge leave the
    /// left part full.
    fn cut(&self, node: &Node, hint: Option<&[u8]>) -> Option<usize> {
        let bytes_max = self.bytes_max(node);
        if !node.should_split(bytes_max) {
            return None;
        }
        let appends = node.high().is_none()
            && match hint {
                Some(key) => node.search(key).unwrap_or_else(|at| at) + 1 >= node.len(),
                None => true,
            };
        if node.bytes().len() > self.pages.batch_bytes_max() {
            // Only the right part is logged: as little as can be, again and again.
            return node.split_point(true);
        }
        if node.bytes().len() > 2 * bytes_max {
            return node.split_point_end(bytes_max);
        }
        if appends { node.split_point_full(bytes_max) } else { node.split_point(false) }
    }

    /// Tells the parent of the page that begins at `separator` on `level` about it.
    ///
    /// The parent's key is taken first, then the sibling link is read again, then the post goes out
    /// under that key: whoever takes the page away meanwhile changes the parent, and the post fails.
    pub(super) fn post(&self, level: u8, separator: &[u8]) -> Result<(), Failure> {
        for _ in 0..POST_TRIES {
            let guard = pin();
            let Some(parent) = self.node_at(level + 1, separator, &guard)? else { return Ok(()) };
            let child = parent.node.child_index(separator);
            if parent.node.child_low(child).to_vec() == separator && !separator.is_empty() {
                return Ok(());
            }
            let Some(sibling) = self.sibling_at(parent.node.child(child), level, separator)? else {
                return Ok(());
            };
            let post = Frag::Post { separator: separator.into(), child: sibling };
            match self.pages.link(parent.pid, parent.key, post, &guard) {
                Ok(_) => return self.after_post(parent.pid),
                Err(error) => lost(error).map(|_: Option<()>| ())?,
            }
        }
        Ok(())
    }

    /// The page that begins exactly at `separator`, found along the sibling links from `from`.
    fn sibling_at(&self, from: PageId, level: u8, separator: &[u8]) -> Result<Option<PageId>, Failure> {
        let guard = pin();
        let mut pid = from;
        while let Some(found) = self.node(pid, &guard)? {
            if found.node.level() != level {
                return Ok(None);
            }
            match (found.node.high(), found.node.next()) {
                (Some(high), Some(next)) if high == separator => return Ok(Some(next)),
                (Some(high), Some(next)) if high < separator => pid = next,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn after_post(&self, parent: PageId) -> Result<(), Failure> {
        let guard = pin();
        let Some(found) = self.node(parent, &guard)? else { return Ok(()) };
        if found.node.should_split(self.bytes_max(found.node)) {
            return self.split(parent, None);
        }
        Ok(())
    }

    pub(super) fn unfit(&self, pid: PageId, error: NodeError) -> Failure {
        self.damaged(pid, error.0)
    }
}

/// A lost race is no failure: somebody else is at the page and will see to it.
pub(super) fn lost<T, A>(error: pagecache::Error<A>) -> Result<Option<T>, Failure> {
    match error {
        pagecache::Error::CasFailed(_) => Ok(None),
        other => Err(failure_of(other)),
    }
}
