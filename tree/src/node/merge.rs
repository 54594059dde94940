//! Folding the fragments of a page, oldest first, into one node.
//!
//! The newest change of a key wins. Changes count only for the range that the node had when they were
//! made: a half-split takes those at or above its separator away, so a later join does not revive them.
//!
//! Fragments are checked one by one when they are decoded; that they fit each other is checked here.
//! [`try_merge`] says what does not fit. [`merge`] cannot fail, so it yields [`Frag::Damaged`], which every
//! reader must turn into an error: a guess would be a wrong answer.

use pagecache::{PageId, mem::PageMemory};

use super::{
    Change, Frag, Join, Node, NodeError, Ops,
    build::{self, Frame, Item},
    edit::{self, Edit},
    layout::{CHILD_BYTES, View},
    search,
};

/// Unites fragments, oldest first. What came before the newest node is of no account.
pub(crate) fn merge(memory: &PageMemory, oldest_first: &[&Frag]) -> Frag {
    match try_merge(memory, oldest_first) {
        Ok(node) => Frag::Node(node),
        Err(error) => Frag::Damaged(error.0.into()),
    }
}

/// As [`merge`], telling fragments that do not fit each other.
///
/// # Errors
///
/// No node among the fragments, changes outside of the fences or of the wrong level, a damaged page.
pub(crate) fn try_merge(memory: &PageMemory, oldest_first: &[&Frag]) -> Result<Node, NodeError> {
    let newest = oldest_first.iter().rposition(|frag| !is_change(frag));
    let Some((base, changes)) = newest.and_then(|at| oldest_first[at..].split_first()) else {
        return Err(NodeError(format!("none of {} fragments is a node", oldest_first.len())));
    };
    match base {
        Frag::Node(node) if changes.is_empty() => Ok(node.clone()),
        Frag::Node(node) => {
            let mut fold = Fold::new(node);
            changes.iter().try_for_each(|frag| fold.add(frag))?;
            fold.finish(memory)
        }
        Frag::Damaged(why) => Err(NodeError(why.to_string())),
        _ => Err(NodeError("a change where a node should be".to_owned())),
    }
}

fn is_change(frag: &Frag) -> bool {
    !matches!(frag, Frag::Node(_) | Frag::Damaged(_))
}

/// What a change writes.
#[derive(Clone, Copy)]
enum Written<'a> {
    Value(&'a [u8]),
    /// What stands for a value that lives apart.
    Apart(&'a [u8]),
    Child([u8; CHILD_BYTES]),
    Nothing,
}

impl Written<'_> {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Written::Value(value) | Written::Apart(value) => Some(value),
            Written::Child(pid) => Some(pid),
            Written::Nothing => None,
        }
    }
}

/// A node, what has been changed in it, and its fences by now.
struct Fold<'a> {
    base: View<'a>,
    changes: Vec<(&'a [u8], Written<'a>)>,
    /// Changes are sorted by key, one a key: true as long as there is one source of them.
    is_sorted: bool,
    high: Option<&'a [u8]>,
    next: Option<PageId>,
    /// Records of the base from here on were taken away.
    cut: Option<&'a [u8]>,
    /// Fences or sibling differ from the base's.
    is_structural: bool,
}

impl<'a> Fold<'a> {
    fn new(node: &'a Node) -> Fold<'a> {
        let base = node.view();
        Fold {
            base,
            changes: Vec::new(),
            is_sorted: true,
            high: base.high(),
            next: base.next(),
            cut: None,
            is_structural: false,
        }
    }

    fn add(&mut self, frag: &'a Frag) -> Result<(), NodeError> {
        match frag {
            Frag::Ops(ops) => self.add_ops(ops),
            Frag::HalfSplit { separator, right } => self.half_split(separator, *right),
            Frag::Post { separator, child } => {
                self.post(separator, Written::Child((*child as u64).to_le_bytes()))
            }
            Frag::Unpost { separator } => self.post(separator, Written::Nothing),
            Frag::Join(join) => self.join(join),
            Frag::Node(_) | Frag::Damaged(_) | Frag::Catalogue { .. } => {
                Err(NodeError("a node above a change".to_owned()))
            }
        }
    }

    fn reaches(&self, key: &[u8]) -> bool {
        self.high.is_none_or(|high| key < high)
    }

    fn add_ops(&mut self, ops: &'a Ops) -> Result<(), NodeError> {
        if self.base.header.level > 0 {
            return Err(NodeError("changes of records in an inner node".to_owned()));
        }
        let Some(last) = ops.len().checked_sub(1) else { return Ok(()) };
        if ops.change(0).0 < self.base.low() || !self.reaches(ops.change(last).0) {
            return Err(NodeError("changes outside of the fences of their leaf".to_owned()));
        }
        self.is_sorted &= self.changes.is_empty();
        self.changes.extend(ops.iter().map(|(key, change)| {
            let written = match change {
                Change::Put(value) => Written::Value(value),
                Change::Apart(value) => Written::Apart(value),
                Change::Del => Written::Nothing,
            };
            (key, written)
        }));
        Ok(())
    }

    fn post(&mut self, separator: &'a [u8], written: Written<'a>) -> Result<(), NodeError> {
        if self.base.header.level == 0 {
            return Err(NodeError("a separator posted to a leaf".to_owned()));
        }
        if separator <= self.base.low() || !self.reaches(separator) {
            return Err(NodeError("a separator posted outside of its node's fences".to_owned()));
        }
        self.is_sorted &= self.changes.is_empty();
        self.changes.push((separator, written));
        Ok(())
    }

    fn half_split(&mut self, separator: &'a [u8], right: PageId) -> Result<(), NodeError> {
        if separator <= self.base.low() || !self.reaches(separator) {
            return Err(NodeError("a half-split outside of its node's fences".to_owned()));
        }
        self.changes.retain(|(key, _)| *key < separator);
        self.cut = Some(self.cut.map_or(separator, |cut| cut.min(separator)));
        self.high = Some(separator);
        self.next = Some(right);
        self.is_structural = true;
        Ok(())
    }

    fn join(&mut self, join: &'a Join) -> Result<(), NodeError> {
        let high = join.high.as_deref();
        let Some(old) = self.high else {
            return Err(NodeError("a join at the right edge".to_owned()));
        };
        if high.is_some_and(|high| high <= old) {
            return Err(NodeError("a join that takes no range".to_owned()));
        }
        // The base holds nothing from the old fence on, or a half-split has cut it off.
        self.high = high;
        self.next = join.next;
        self.is_structural = true;
        let Some(moved) = &join.moved else { return Ok(()) };
        if moved.len() > 0 && moved.change(0).0 < old {
            return Err(NodeError("a join that moves what its node had".to_owned()));
        }
        self.add_ops(moved)
    }

    fn finish(mut self, memory: &PageMemory) -> Result<Node, NodeError> {
        if !self.is_sorted {
            // Stable, so the newest change of a key is the last of its equals.
            self.changes.sort_by(|left, right| left.0.cmp(right.0));
            let mut kept: Vec<(&[u8], Written<'_>)> = Vec::with_capacity(self.changes.len());
            for change in &self.changes {
                match kept.last_mut() {
                    Some(last) if last.0 == change.0 => *last = *change,
                    _ => kept.push(*change),
                }
            }
            self.changes = kept;
        }
        let edits = self.edits();
        if !self.is_structural
            && let Some(node) = edit::apply(memory, &self.base, &edits)
        {
            return Ok(node);
        }
        self.rebuild(memory, &edits)
    }

    /// The changes as edits of the base. A removal of what is not there is none.
    fn edits(&self) -> Vec<Edit<'_>> {
        let mut edits = Vec::with_capacity(self.changes.len());
        for (key, written) in &self.changes {
            let put = written.bytes().map(|value| (*key, value));
            let is_apart = matches!(written, Written::Apart(_));
            match search::search(&self.base, key) {
                Ok(at) => edits.push(Edit { at, replaces: true, put, is_apart }),
                Err(at) if put.is_some() => edits.push(Edit { at, replaces: false, put, is_apart }),
                Err(_) => {}
            }
        }
        edits
    }

    /// Writes the node anew: other fences, another prefix, other widths.
    fn rebuild(&self, memory: &PageMemory, edits: &[Edit<'_>]) -> Result<Node, NodeError> {
        let end = self.cut.map_or(self.base.count(), |cut| match search::search(&self.base, cut) {
            Ok(at) | Err(at) => at,
        });
        let base = &self.base;
        let mut items: Vec<Item<'_>> = Vec::with_capacity(base.count() + edits.len());
        let mut pos = 0;
        for edit in edits {
            items.extend(Item::run(base, pos, edit.at.min(end)));
            let item = |(key, value)| Item { is_apart: edit.is_apart, ..Item::new(key, value) };
            items.extend(edit.put.map(item));
            pos = edit.at + usize::from(edit.replaces);
        }
        items.extend(Item::run(base, pos, end));
        let frame = Frame {
            level: base.header.level,
            low: base.low(),
            high: self.high,
            next: self.next,
            first_child: base.first_child(),
        };
        build::build(memory, &frame, &items)
    }
}
