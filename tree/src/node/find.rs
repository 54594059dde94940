//! Reading a page of the tree through its fragments, newest first, without folding them.

use pagecache::PageId;

use super::{Apart, Frag, Stored};

/// What the fragments of a leaf say about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find<'a> {
    /// It has this value.
    Value(&'a [u8]),
    /// It has this value, which lives apart.
    Apart(Apart),
    /// It is not there.
    Absent,
    /// It belongs further right.
    Right(PageId),
    /// It belongs further left, or the page is no leaf: the descent went wrong, start again.
    Elsewhere,
    /// The changes do not settle it and the node was not among the fragments.
    NeedsBase,
    /// The page is damaged; the text says how.
    Damaged(&'a str),
}

/// Level, fences and sibling of a page, its changes taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach<'a> {
    /// Height above the leaves.
    pub(crate) level: u8,
    /// The least key that belongs here.
    pub(crate) low: &'a [u8],
    /// The least key that belongs further right.
    pub(crate) high: Option<&'a [u8]>,
    /// The right sibling.
    pub(crate) next: Option<PageId>,
}

/// Where a key stands against the newest high fence.
fn beyond<'a>(next: Option<PageId>) -> Find<'a> {
    next.map_or(Find::Elsewhere, Find::Right)
}

fn found(stored: Option<Stored<'_>>) -> Find<'_> {
    match stored {
        Some(Stored::Inline(value)) => Find::Value(value),
        Some(Stored::Apart(apart)) => Find::Apart(apart),
        None => Find::Absent,
    }
}

/// Looks a key up in a leaf.
///
/// The newest fragment that sets the high fence decides whether the key belongs here. Below it, an older
/// fence at or under the key means that the range was given away and came back empty.
pub(crate) fn find<'a>(newest_first: impl IntoIterator<Item = &'a Frag>, key: &[u8]) -> Find<'a> {
    let mut is_covered = false;
    for frag in newest_first {
        match frag {
            Frag::Ops(ops) => {
                if let Some(change) = ops.get(key) {
                    return found(change.stored());
                }
            }
            Frag::Node(node) => {
                if !node.is_leaf() || key < node.low() {
                    return Find::Elsewhere;
                }
                return match node.high() {
                    Some(high) if high <= key && is_covered => Find::Absent,
                    Some(high) if high <= key => beyond(node.next()),
                    _ => found(node.stored(key)),
                };
            }
            Frag::HalfSplit { separator, right } => {
                if **separator <= *key {
                    return if is_covered { Find::Absent } else { Find::Right(*right) };
                }
                is_covered = true;
            }
            Frag::Join(join) => {
                if join.high.as_deref().is_some_and(|high| high <= key) {
                    return if is_covered { Find::Absent } else { beyond(join.next) };
                }
                if let Some(change) = join.moved.as_ref().and_then(|moved| moved.get(key)) {
                    return found(change.stored());
                }
                is_covered = true;
            }
            Frag::Post { .. } | Frag::Unpost { .. } | Frag::Catalogue { .. } => return Find::Elsewhere,
            Frag::Damaged(why) => return Find::Damaged(why),
        }
    }
    Find::NeedsBase
}

/// Level and range of a page; `None` without its node.
pub(crate) fn reach<'a>(newest_first: impl IntoIterator<Item = &'a Frag>) -> Option<Reach<'a>> {
    let mut newest: Option<(Option<&'a [u8]>, Option<PageId>)> = None;
    for frag in newest_first {
        match frag {
            Frag::HalfSplit { separator, right } => {
                newest.get_or_insert((Some(separator), Some(*right)));
            }
            Frag::Join(join) => {
                newest.get_or_insert((join.high.as_deref(), join.next));
            }
            Frag::Node(node) => {
                let (high, next) = newest.unwrap_or((node.high(), node.next()));
                return Some(Reach { level: node.level(), low: node.low(), high, next });
            }
            Frag::Damaged(_) | Frag::Catalogue { .. } => return None,
            Frag::Ops(_) | Frag::Post { .. } | Frag::Unpost { .. } => {}
        }
    }
    None
}
