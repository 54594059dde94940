//! What the page cache knows of the tree's pages: how fragments fold, and how they look in bytes.

use std::hash::{DefaultHasher, Hash, Hasher};

use pagecache::{Config, DecodeError, Lsn, Materializer, PageId, mem::PageMemory};
use serde::{Deserialize, Serialize};

use crate::node::{Frag, Ops, merge};

/// What an open needs before it can read a single key: the page of the catalogue's root, which never
/// moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// The catalogue's root page, as a number of fixed width.
    pub(crate) catalogue: u64,
}

/// Teaches the page cache about nodes and their changes.
#[derive(Debug)]
pub(crate) struct TreeMaterializer {
    memory: PageMemory,
}

impl TreeMaterializer {
    /// Where this store's nodes lie.
    pub(crate) fn memory(&self) -> &PageMemory {
        &self.memory
    }
}

impl Materializer for TreeMaterializer {
    type PageFrag = Frag;
    type Recovery = Root;

    fn new(config: Config, _: &Option<Root>) -> TreeMaterializer {
        TreeMaterializer { memory: config.page_memory().clone() }
    }

    fn merge(&self, frags: &[&Frag]) -> Frag {
        merge(&self.memory, frags)
    }

    fn recover(&self, frag: &Frag) -> Option<Root> {
        match frag {
            Frag::Catalogue { root } => Some(Root { catalogue: *root as u64 }),
            _ => None,
        }
    }

    fn size_in_bytes(&self, frag: &Frag) -> usize {
        // The fragment itself lies in the chain's node, which the cache counts.
        frag.size_in_bytes().saturating_sub(size_of::<Frag>())
    }

    fn encoded_len(&self, frag: &Frag) -> usize {
        frag.encoded_len()
    }

    fn encode(&self, frag: &Frag, out: &mut [u8]) {
        frag.encode(out);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Frag, DecodeError> {
        Frag::decode(&self.memory, bytes).map_err(|error| DecodeError(error.0))
    }

    fn recover_encoded(&self, bytes: &[u8]) -> Result<Option<Root>, DecodeError> {
        let root = Frag::check(bytes).map_err(|error| DecodeError(error.0))?;
        Ok(root.map(|root| Root { catalogue: root as u64 }))
    }

    fn merge_versions(&self, frags: &[(&Frag, Lsn)], _keep: &[Lsn]) -> Frag {
        let frags: Vec<&Frag> = frags.iter().map(|(frag, _)| *frag).collect();
        self.merge(&frags)
    }

    fn commutes(&self, pending: &Frag, new: &Frag) -> bool {
        pending.commutes(new)
    }

    fn unite(&self, changes: &[&Frag]) -> Option<Frag> {
        let ops: Option<Vec<&Ops>> = changes.iter().map(|frag| frag.ops()).collect();
        Ops::united(&self.memory, &ops?).map(Frag::Ops)
    }

    fn marks(&self, change: &Frag) -> u64 {
        change.marks()
    }

    fn digest(&self, page: &Frag) -> u64 {
        let mut hasher = DefaultHasher::new();
        match page {
            Frag::Node(node) => node.hash_content(&mut hasher),
            Frag::Catalogue { root } => root.hash(&mut hasher),
            change => format!("{change:?}").hash(&mut hasher),
        }
        hasher.finish()
    }

    fn tally(&self, frag: &Frag) -> Option<(u64, i64)> {
        match frag {
            Frag::Ops(ops) => {
                let tally = ops.tally();
                (tally.diff != 0).then_some((tally.tree, tally.diff))
            }
            _ => None,
        }
    }
}

/// The page that says where the catalogue's root is; the first page of every store.
pub(crate) const CATALOGUE_PAGE: PageId = 0;
