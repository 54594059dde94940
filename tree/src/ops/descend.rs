//! From the root to the page that covers a key.

use pagecache::{Failure, FragState, Guard, PageId, PagePtr, View};

use super::{Core, DESCENTS_MAX, Page};
use crate::node::{Frag, Node, Reach, SHAPE_MARK, reach};

/// A leaf that covers the key that was asked for, and how it was reached.
pub(super) struct LeafPage<'g> {
    pub(super) pid: PageId,
    pub(super) page: Page<'g>,
    /// A page was left by its sibling link: its parent does not know the sibling.
    pub(super) unposted: Option<Unposted>,
}

/// A sibling that its parent may not know yet.
#[derive(Debug)]
pub(super) struct Unposted {
    pub(super) level: u8,
    pub(super) separator: Vec<u8>,
}

/// An inner or leaf node, merged, and its page's key.
#[derive(Clone, Copy)]
pub(super) struct NodePage<'g> {
    pub(super) pid: PageId,
    pub(super) node: &'g Node,
    pub(super) key: PagePtr<'g, Frag>,
}

/// Where a descent goes from a page.
enum Step {
    Down(PageId),
    Right(PageId),
    Here,
    Restart,
}

fn step(reach: &Reach<'_>, key: &[u8]) -> Step {
    if key < reach.low {
        return Step::Restart;
    }
    match (reach.high, reach.next) {
        (Some(high), Some(next)) if high <= key => Step::Right(next),
        (Some(high), None) if high <= key => Step::Restart,
        _ => Step::Here,
    }
}

/// The fragments that readers may see, newest first.
pub(super) fn visible<'g>(page: &Page<'g>) -> impl Iterator<Item = &'g Frag> + use<'g> {
    page.frags().filter(|(_, state)| matches!(state, FragState::Committed(_))).map(|(frag, _)| frag)
}

impl Core {
    /// The leaf that covers `key`.
    pub(super) fn leaf<'g>(&self, key: &[u8], guard: &'g Guard) -> Result<LeafPage<'g>, Failure> {
        self.leaf_from(self.root, key, guard)
    }

    /// The leaf that covers `key`, found from any page of the tree: one that begins above the key, or is
    /// none any more, sends the descent to the root (TREE-1).
    pub(super) fn leaf_from<'g>(
        &self,
        start: PageId,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<LeafPage<'g>, Failure> {
        let mut unposted = None;
        let mut pid = start;
        for _ in 0..DESCENTS_MAX {
            while let View::Page(page) = self.pages.view(pid, guard)? {
                let next = match page.base_under(SHAPE_MARK) {
                    Some(Frag::Node(node)) => {
                        node.prefetch_front();
                        self.step_settled(node, key)
                    }
                    Some(other) => return Err(self.not_a_node(pid, other)),
                    None => self.step_unsettled(pid, &page, key, guard)?,
                };
                match next {
                    Step::Down(child) => pid = child,
                    Step::Right(sibling) => {
                        unposted = left_behind(&page);
                        pid = sibling;
                    }
                    Step::Here => return Ok(LeafPage { pid, page, unposted }),
                    Step::Restart => break,
                }
            }
            pid = self.root;
        }
        Err(self.damaged(self.root, "no leaf covers a key, however often one looks"))
    }

    #[inline]
    fn step_settled(&self, node: &Node, key: &[u8]) -> Step {
        match step(&node.reach(), key) {
            Step::Here if !node.is_leaf() => Step::Down(node.child_for(key)),
            other => other,
        }
    }

    fn step_unsettled<'g>(
        &self,
        pid: PageId,
        page: &Page<'g>,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<Step, Failure> {
        if let Some(found) = reach(visible(page))
            && found.level == 0
        {
            return Ok(step(&found, key));
        }
        // An inner node with changes in front: fold them, so that the next reader meets none.
        match self.node(pid, guard)? {
            Some(found) => Ok(self.step_settled(found.node, key)),
            None => Ok(Step::Restart),
        }
    }

    /// The node of a page, merged. `None` if the page is gone.
    pub(super) fn node<'g>(&self, pid: PageId, guard: &'g Guard) -> Result<Option<NodePage<'g>>, Failure> {
        let got = self.pages.read(pid, guard)?;
        let pagecache::PageGet::Materialized(frag, key) = got else { return Ok(None) };
        match frag {
            Frag::Node(node) => Ok(Some(NodePage { pid, node, key })),
            other => Err(self.not_a_node(pid, other)),
        }
    }

    pub(super) fn not_a_node(&self, pid: PageId, frag: &Frag) -> Failure {
        match frag {
            Frag::Damaged(why) => self.damaged(pid, why.to_string()),
            _ => self.damaged(pid, "a change stands where a node should be"),
        }
    }

    /// The node at `level` that covers `key`. `None` if the root is lower.
    pub(super) fn node_at<'g>(
        &self,
        level: u8,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<Option<NodePage<'g>>, Failure> {
        for _ in 0..DESCENTS_MAX {
            let mut pid = self.root;
            while let Some(found) = self.node(pid, guard)? {
                let node = found.node;
                if node.level() < level {
                    if pid == self.root {
                        return Ok(None);
                    }
                    break;
                }
                match self.step_settled(node, key) {
                    Step::Right(sibling) => pid = sibling,
                    Step::Restart => break,
                    _ if node.level() == level => return Ok(Some(found)),
                    Step::Down(child) => pid = child,
                    Step::Here => break,
                }
            }
        }
        Err(self
            .damaged(self.root, format!("no node at level {level} covers a key, however often one looks")))
    }
}

fn left_behind(page: &Page<'_>) -> Option<Unposted> {
    let found = reach(visible(page))?;
    Some(Unposted { level: found.level, separator: found.high?.to_vec() })
}
