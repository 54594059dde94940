//! [`Frag`]: a node, or one change to it. What the page cache stores and logs for the tree.
//!
//! The first byte of an encoding says which. Everything that is decoded has been validated on its own;
//! whether fragments fit *each other* only [`super::merge`] can tell.
//!
//! ```text
//! HALF_SPLIT, POST: kind | page (varint) | separator        UNPOST: kind | separator
//! CATALOGUE: kind | page (varint)
//! JOIN: kind | 1 high fence + 2 sibling + 4 records | sibling (varint) | high fence
//! JOIN with records: as above, with the fence's bytes (varint) in front of it | changes that put the records
//! ```

use pagecache::{PageId, mem::PageMemory};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Join, KEY_BYTES_MAX, Node, NodeError, Ops,
    layout::{NODE, PAGE_ID_END},
    ops::{APART, DEL, Front, MANY, PUT, read_varint},
};

const HALF_SPLIT: u8 = 5;
const POST: u8 = 6;
const UNPOST: u8 = 7;
const JOIN: u8 = 8;
const DAMAGED: u8 = 9;
const CATALOGUE: u8 = 10;

/// A fragment of a page of the tree.
#[derive(Clone, Debug)]
pub(crate) enum Frag {
    /// The whole node.
    Node(Node),
    /// Changes to the records of a leaf.
    Ops(Ops),
    /// Keys from `separator` on are in the page `right` from now on, which is the sibling.
    HalfSplit {
        /// The new high fence.
        separator: Box<[u8]>,
        /// The new sibling.
        right: PageId,
    },
    /// An inner node learns of a child.
    Post {
        /// The least key of the child.
        separator: Box<[u8]>,
        /// The child.
        child: PageId,
    },
    /// An inner node forgets a child, whose range falls to the child on its left.
    Unpost {
        /// The least key of the child.
        separator: Box<[u8]>,
    },
    /// The node takes the range of its right sibling, and the records in it.
    Join(Box<Join>),
    /// The page that every open starts from: it says where the catalogue's root is.
    Catalogue {
        /// The catalogue's root page.
        root: PageId,
    },
    /// Fragments that do not fit each other: the page is damaged, and every use of it must say so.
    Damaged(Box<str>),
}

const _: () = assert!(size_of::<Frag>() <= 40, "a fragment lies in every link of every chain");

impl Frag {
    /// Bytes that [`Frag::encode`] writes.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Frag::Node(node) => node.bytes().len(),
            Frag::Ops(ops) => ops.bytes().len(),
            Frag::Join(join) => 1 + join.encoded_len(),
            other => {
                let (front, rest) = other.parts();
                front.len + rest.len()
            }
        }
    }

    /// Writes the encoding into `out`, which is as long as [`Frag::encoded_len`] says.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        match self {
            Frag::Node(node) => out.copy_from_slice(node.bytes()),
            Frag::Ops(ops) => out.copy_from_slice(ops.bytes()),
            Frag::Join(join) => {
                out[0] = JOIN;
                join.encode(&mut out[1..]);
            }
            other => {
                let (front, rest) = other.parts();
                let (to_front, to_rest) = out.split_at_mut(front.len);
                to_front.copy_from_slice(&front.bytes[..front.len]);
                to_rest.copy_from_slice(rest);
            }
        }
    }

    /// The encoding of a fragment of links: a few numbers, then bytes.
    fn parts(&self) -> (Front, &[u8]) {
        match self {
            Frag::Node(node) => (Front { bytes: [0; 32], len: 0 }, node.bytes()),
            Frag::Ops(ops) => (Front { bytes: [0; 32], len: 0 }, ops.bytes()),
            Frag::Join(join) => (Front::new(JOIN), join.high.as_deref().unwrap_or_default()),
            Frag::HalfSplit { separator, right } => (with_page(HALF_SPLIT, *right), separator),
            Frag::Post { separator, child } => (with_page(POST, *child), separator),
            Frag::Unpost { separator } => (Front::new(UNPOST), separator),
            Frag::Catalogue { root } => (with_page(CATALOGUE, *root), &[]),
            Frag::Damaged(why) => (Front::new(DAMAGED), why.as_bytes()),
        }
    }

    /// Reads a fragment back, checking all of it. Accepts any bytes without panicking.
    ///
    /// # Errors
    ///
    /// The first thing that no fragment could hold.
    pub(crate) fn decode(memory: &PageMemory, bytes: &[u8]) -> Result<Frag, NodeError> {
        match bytes.first() {
            Some(&NODE) => Node::decode(memory, bytes).map(Frag::Node),
            Some(&(PUT | DEL | MANY | APART)) => Ops::decode(memory, bytes).map(Frag::Ops),
            Some(&JOIN) => Join::decode(memory, &bytes[1..]).map(|join| Frag::Join(Box::new(join))),
            _ => Frag::decode_link(bytes),
        }
    }

    /// Finds out whether the bytes decode, without taking memory for a node or its changes; the root if
    /// they name one.
    pub(crate) fn check(bytes: &[u8]) -> Result<Option<PageId>, NodeError> {
        match bytes.first() {
            Some(&NODE) => Node::check(bytes).map(|()| None),
            Some(&(PUT | DEL | MANY | APART)) => Ops::check(bytes).map(|_fingerprint| None),
            Some(&JOIN) => Join::check(&bytes[1..]).map(|()| None),
            _ => Frag::decode_link(bytes).map(|frag| match frag {
                Frag::Catalogue { root } => Some(root),
                _ => None,
            }),
        }
    }

    /// Reads what holds no records.
    fn decode_link(bytes: &[u8]) -> Result<Frag, NodeError> {
        let Some((&kind, rest)) = bytes.split_first() else {
            return Err(NodeError("a fragment of no bytes".to_owned()));
        };
        match kind {
            HALF_SPLIT => read_page(rest).map(|(right, separator)| Frag::HalfSplit { separator, right }),
            POST => read_page(rest).map(|(child, separator)| Frag::Post { separator, child }),
            UNPOST => read_key(rest).map(|separator| Frag::Unpost { separator: separator.into() }),
            CATALOGUE => match page_number(rest)? {
                (root, []) => Ok(Frag::Catalogue { root }),
                _ => Err(NodeError("a catalogue's page with more in it".to_owned())),
            },
            DAMAGED => Ok(Frag::Damaged(String::from_utf8_lossy(rest).into())),
            _ => Err(NodeError(format!("a fragment of the unknown kind {kind}"))),
        }
    }

    /// Bytes of memory that the fragment occupies.
    pub(crate) fn size_in_bytes(&self) -> usize {
        let beside = match self {
            Frag::Node(node) => node.charged_bytes(),
            Frag::Ops(ops) => ops.charged_bytes(),
            Frag::Join(join) => join.charged_bytes(),
            other => other.parts().1.len(),
        };
        size_of::<Frag>() + beside
    }

    /// True if the outcome does not depend on which of the two comes first, or on one being given up.
    pub(crate) fn commutes(&self, other: &Frag) -> bool {
        match (self, other) {
            (Frag::Ops(left), Frag::Ops(right)) => !left.overlaps(right),
            _ => false,
        }
    }

    /// The changes of records, if this is such.
    pub(crate) fn ops(&self) -> Option<&Ops> {
        match self {
            Frag::Ops(ops) => Some(ops),
            _ => None,
        }
    }

    /// Marks of the keys that a change touches; all marks for one that touches fences or children.
    pub(crate) fn marks(&self) -> u64 {
        self.ops().map_or(u64::MAX, Ops::marks)
    }

    /// The node, if this is one.
    #[cfg(test)]
    pub(crate) fn node(&self) -> Option<&Node> {
        match self {
            Frag::Node(node) => Some(node),
            _ => None,
        }
    }
}

impl From<Node> for Frag {
    fn from(node: Node) -> Frag {
        Frag::Node(node)
    }
}

impl From<Ops> for Frag {
    fn from(ops: Ops) -> Frag {
        Frag::Ops(ops)
    }
}

fn with_page(kind: u8, pid: PageId) -> Front {
    let mut front = Front::new(kind);
    front.varint(pid as u64);
    front
}

fn read_page(bytes: &[u8]) -> Result<(PageId, Box<[u8]>), NodeError> {
    let (pid, key) = page_number(bytes)?;
    Ok((pid, read_key(key)?.into()))
}

pub(super) fn page_number(bytes: &[u8]) -> Result<(PageId, &[u8]), NodeError> {
    match read_varint(bytes).map(|(pid, rest)| (pid, PageId::try_from(pid), rest)) {
        Some((pid, Ok(page), rest)) if pid < PAGE_ID_END => Ok((page, rest)),
        _ => Err(NodeError("a fragment that names no page".to_owned())),
    }
}

pub(super) fn read_key(bytes: &[u8]) -> Result<&[u8], NodeError> {
    if bytes.len() > KEY_BYTES_MAX {
        return Err(NodeError(format!("a fence of {} bytes, the limit is {KEY_BYTES_MAX}", bytes.len())));
    }
    Ok(bytes)
}

impl Serialize for Frag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = vec![0; self.encoded_len()];
        self.encode(&mut bytes);
        serializer.serialize_bytes(&bytes)
    }
}

/// Only so that the fragment is a serde type, as the page cache asks of all: the tree decodes its
/// fragments itself, into the page memory of its store. Here each gets a memory of its own.
impl<'de> Deserialize<'de> for Frag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Frag, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Frag::decode(&PageMemory::default(), &bytes).map_err(D::Error::custom)
    }
}
