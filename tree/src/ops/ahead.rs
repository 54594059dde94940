//! Finding the leaves of keys to come while earlier ones are seen to.
//!
//! A leaf that is not in the processor's caches costs three waits for memory, one after the other: the
//! page's entry, its newest change, its node. Keys that are known beforehand have theirs overlap: each is
//! one wait further than the key behind it (the idea is that of group prefetching, Chen et al., ICDE 2004).

use pagecache::{Guard, PageId};

use super::Core;
use crate::node::Frag;

/// Keys between two stages.
const STRIDE: usize = 3;

/// How far the keys of a sorted list are on their way to their leaves.
#[derive(Default)]
pub(super) struct Ahead {
    /// Where each key's leaf was when it was looked for: a place to begin a descent.
    leaves: Vec<PageId>,
    newest: usize,
    bases: usize,
}

impl Ahead {
    /// The leaf of key `at`, probably; `key_at` says what the keys of the list are, `count` how many.
    pub(super) fn leaf_of<'k>(
        &mut self,
        core: &Core,
        at: usize,
        count: usize,
        key_at: impl Fn(usize) -> &'k [u8],
        guard: &Guard,
    ) -> PageId {
        let upto = |stages: usize| (at + 1 + stages * STRIDE).min(count);
        for next in self.leaves.len()..upto(3) {
            let pid = core.probable_leaf(key_at(next), guard);
            core.pages.prefetch_entry(pid);
            self.leaves.push(pid);
        }
        for next in self.newest..upto(2) {
            core.pages.prefetch_newest(self.leaves[next], guard);
        }
        for next in self.bases..upto(1) {
            if let Some(Frag::Node(node)) = core.pages.peek_base(self.leaves[next], guard) {
                node.prefetch_front();
            }
        }
        self.newest = upto(2);
        self.bases = upto(1);
        self.leaves[at]
    }
}

impl Core {
    /// The page above which `key` would be found: its leaf, unless inner nodes are not settled or not in
    /// memory. Looks at no leaf.
    fn probable_leaf(&self, key: &[u8], guard: &Guard) -> PageId {
        let mut pid = self.root;
        while let Some(Frag::Node(node)) = self.pages.peek_base(pid, guard)
            && node.covers(key)
            && !node.is_leaf()
        {
            pid = node.child_for(key);
            if node.level() == 1 {
                break;
            }
        }
        pid
    }
}
