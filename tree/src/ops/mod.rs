//! One tree over pages: finding a leaf, changing it, keeping the shape.
//!
//! [`descend`] finds, [`write`] changes, [`split`] and [`join`] keep the shape, [`batch`] changes many
//! keys at once, with [`ahead`] to find their leaves, [`tidier`] does so behind the writers,
//! [`apart`] sees to large values, [`walk`] goes from leaf to leaf, [`shape`] looks at all pages. What a page
//! holds is [`crate::node`]'s business.
//!
//! * TREE-1: every node carries its level and both fences. A key at or above the high fence is found
//!   by going right; a level or low fence that does not fit sends a descent back to the root.
//! * TREE-2: the root's page never moves.
//! * TREE-3: a change of shape is one batch of fragments, each about its own page only.
//! * TREE-4 (P-6): batches install leaves first, then by low fence; a change of shape that would wait
//!   while it holds anything gives up instead, and is tried again by a later writer.

mod ahead;
mod apart;
mod batch;
mod descend;
mod join;
mod shape;
mod split;
mod tidier;
mod walk;
mod write;

use std::sync::Arc;

use pagecache::{Failure, PageCache, PageId, PageView, mem::PageMemory};

pub(crate) use self::{
    apart::{INLINE_BYTES_MAX, Looked},
    tidier::{DEPTH_END, Tended},
    walk::{Leaf, Part},
    write::Decision,
};
use crate::{
    materializer::{Root, TreeMaterializer},
    node::{Frag, KEY_BYTES_MAX, Node},
};

/// Bytes above which a leaf is split.
pub(crate) const LEAF_BYTES_MAX: usize = 8 << 10;
/// Bytes above which an inner node is split.
const INNER_BYTES_MAX: usize = 8 << 10;
/// A record of the tree may take this part of a log record.
const RECORD_PART: usize = 4;
/// Fragments above which a reader folds a leaf in memory.
const READ_DEPTH_MAX: usize = 3;
/// Descents from the root before a tree that does not fit together counts as damaged.
const DESCENTS_MAX: usize = 64;

/// The pages of a store.
pub(crate) type Pages = PageCache<TreeMaterializer, Frag, Root>;
/// A page of it, unmerged.
pub(crate) type Page<'g> = PageView<'g, Frag>;

/// One tree of a store.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    pub(crate) pages: Arc<Tended>,
    /// The tree's number, in tallies.
    pub(crate) id: u64,
    pub(crate) root: PageId,
    /// Bytes above which a leaf is split: [`LEAF_BYTES_MAX`], less in tests.
    pub(crate) leaf_bytes_max: usize,
    /// Bytes above which a value lives apart: [`INLINE_BYTES_MAX`], less in tests.
    pub(crate) inline_bytes_max: usize,
}

impl Core {
    pub(crate) fn memory(&self) -> &PageMemory {
        self.pages.materializer().memory()
    }

    /// Refuses a record above a quarter of what one log record takes: a leaf may come to hold several
    /// before it is split. Batches are measured when they are let in.
    fn check_record(&self, bytes: usize) -> Result<(), Failure> {
        let limit = self.record_bytes_max();
        if bytes <= limit {
            return Ok(());
        }
        let remedy = "split it, or make the database with larger log segments";
        Err(Failure::TooLarge { what: "key and value", bytes: bytes as u64, limit: limit as u64, remedy })
    }

    /// Refuses a key whose length is not written anywhere.
    pub(crate) fn check_key(key: &[u8]) -> Result<(), Failure> {
        if key.len() <= KEY_BYTES_MAX {
            return Ok(());
        }
        let remedy = "put the rest of it into the value";
        let (bytes, limit) = (key.len() as u64, KEY_BYTES_MAX as u64);
        Err(Failure::TooLarge { what: "key", bytes, limit, remedy })
    }

    /// Bytes that a key and what its leaf holds for it may have.
    fn record_bytes_max(&self) -> usize {
        self.pages.record_bytes_max() / RECORD_PART
    }

    fn bytes_max(&self, node: &Node) -> usize {
        if node.is_leaf() { self.leaf_bytes_max } else { INNER_BYTES_MAX.min(self.leaf_bytes_max) }
    }

    /// A tree whose pages do not fit together.
    fn damaged(&self, pid: PageId, what: impl Into<String>) -> Failure {
        Failure::Corrupt {
            found: format!("page {pid} of the tree rooted at page {}: {}", self.root, what.into()),
            path: self.pages.path(),
            offset: 0,
        }
    }
}
