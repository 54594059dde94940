//! The shape of a tree, looked at page by page while nobody writes: for tests and tools.

use pagecache::{Failure, PageId, pin};

use super::Core;
use crate::node::Node;

impl Core {
    /// Pages on each level, the leaves first, after a look at every page: the fences of a level meet, and
    /// every child begins where its parent says.
    pub(crate) fn shape(&self) -> Result<Vec<u64>, Failure> {
        let mut first = self.root;
        let mut counts = Vec::new();
        loop {
            let (count, below) = self.level_from(first)?;
            counts.push(count);
            match below {
                Some(child) => first = child,
                None => break,
            }
        }
        counts.reverse();
        Ok(counts)
    }

    /// How many pages there are from this one to the right edge, and the first one of the level below.
    fn level_from(&self, first: PageId) -> Result<(u64, Option<PageId>), Failure> {
        let mut count = 0;
        let mut below = None;
        let mut fence = Some(Vec::new());
        let mut at = Some(first);
        while let Some(pid) = at {
            let guard = pin();
            let Some(found) = self.node(pid, &guard)? else { return Err(self.damaged(pid, "it is gone")) };
            let node = found.node;
            if fence.as_deref() != Some(node.low()) {
                return Err(self.damaged(pid, "it does not begin where its left neighbour ends"));
            }
            if below.is_none() && !node.is_leaf() {
                below = Some(node.child(0));
            }
            self.check_children(pid, node)?;
            (fence, at) = (node.high().map(<[u8]>::to_vec), node.next());
            count += 1;
        }
        if fence.is_some() {
            return Err(self.damaged(first, "the right edge of its level has a fence"));
        }
        Ok((count, below))
    }

    fn check_children(&self, pid: PageId, node: &Node) -> Result<(), Failure> {
        for i in 0..node.children() {
            let guard = pin();
            let found = self.node(node.child(i), &guard)?;
            let fits = found.is_some_and(|child| {
                child.node.level() + 1 == node.level() && child.node.low() == node.child_low(i).to_vec()
            });
            if !fits {
                return Err(self.damaged(pid, format!("its child {i} is not what it says")));
            }
        }
        Ok(())
    }
}
