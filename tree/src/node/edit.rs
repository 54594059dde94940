//! Changing a few records of a node: what stays is copied in whole runs, heads likewise.
//!
//! Works while the node keeps its form: the same prefix, and the same fixed widths. Otherwise the caller
//! builds the node anew, so the form changes only there.

use pagecache::mem::PageMemory;

use super::{
    Node,
    build::{Cursor, total_bytes},
    layout::{FIXED_KEYS, FIXED_VALUES, HAS_APART, HEADER_BYTES, Header, View, head_of},
};

/// One change, against the records of the node it is made to.
#[derive(Clone, Copy)]
pub(super) struct Edit<'a> {
    /// The record that it replaces or removes, or before which it goes.
    pub(super) at: usize,
    /// True if record `at` goes away.
    pub(super) replaces: bool,
    /// Key (whole) and value to put there.
    pub(super) put: Option<(&'a [u8], &'a [u8])>,
    /// The value stands for one that lives apart.
    pub(super) is_apart: bool,
}

impl Edit<'_> {
    /// The first record behind what the edit replaces.
    fn after(&self) -> usize {
        self.at + usize::from(self.replaces)
    }
}

/// The node with these edits, which must be sorted by key. `None` if its form would change.
pub(super) fn apply(memory: &PageMemory, view: &View<'_>, edits: &[Edit<'_>]) -> Option<Node> {
    let old = &view.header;
    // Where values live apart every fold writes anew: next to the values it costs nothing.
    if old.has(HAS_APART) || edits.iter().any(|edit| edit.is_apart) {
        return None;
    }
    if !keeps_widths(view, edits) || !keeps_prefix(view, edits) {
        return None;
    }
    let header = plan(view, edits)?;
    let prefix_len = usize::from(old.prefix_len);
    let bytes = memory.build(header.total as usize, |out| {
        let (front, back) = out.split_at_mut(old.heads_at());
        front.copy_from_slice(&view.bytes[..old.heads_at()]);
        if let Some(first) = front.first_chunk_mut::<HEADER_BYTES>() {
            header.write(first);
        }
        let (heads, back) = back.split_at_mut(4 * header.count as usize);
        let (ends, records) = back.split_at_mut(header.records_at() - header.ends_at());
        copy_heads(view, edits, prefix_len, heads);
        copy_records(view, edits, prefix_len, records);
        if !header.is_regular() {
            copy_ends(view, edits, prefix_len, ends);
        }
    });
    debug_assert_eq!(super::validate::validate(&bytes), Ok(()), "a node was changed wrong: {header:?}");
    Some(Node { bytes })
}

fn keeps_widths(view: &View<'_>, edits: &[Edit<'_>]) -> bool {
    let old = &view.header;
    let key_len = usize::from(old.prefix_len) + old.key_width as usize;
    edits.iter().filter_map(|edit| edit.put).all(|(key, value)| {
        (!old.has(FIXED_KEYS) || key.len() == key_len)
            && (!old.has(FIXED_VALUES) || value.len() == old.value_width as usize)
            && key.starts_with(view.prefix())
    })
}

/// True if the prefix is, after the edits, still all that the first and the last key share.
fn keeps_prefix(view: &View<'_>, edits: &[Edit<'_>]) -> bool {
    let prefix_len = usize::from(view.header.prefix_len);
    let mut pos = 0;
    let mut first = None;
    for edit in edits {
        first =
            if pos < edit.at { Some(view.suffix(pos)) } else { edit.put.map(|(key, _)| &key[prefix_len..]) };
        if first.is_some() {
            break;
        }
        pos = edit.after();
    }
    let mut end = view.count();
    let mut last = None;
    for edit in edits.iter().rev() {
        last = if edit.after() < end {
            Some(view.suffix(end - 1))
        } else {
            edit.put.map(|(key, _)| &key[prefix_len..])
        };
        if last.is_some() {
            break;
        }
        end = edit.at;
    }
    let first = first.or_else(|| (pos < view.count()).then(|| view.suffix(pos)));
    let last = last.or_else(|| end.checked_sub(1).map(|i| view.suffix(i)));
    let (Some(first), Some(last)) = (first, last) else { return false };
    first == last && first.is_empty() || first.first() != last.first()
}

fn plan(view: &View<'_>, edits: &[Edit<'_>]) -> Option<Header> {
    let old = view.header;
    let key_lens = if old.has_key_lens() { 2 } else { 0 };
    let mut count = u64::from(old.count);
    let mut records = view.records().len() as u64;
    for edit in edits {
        if let Some((key, value)) = edit.put {
            count += 1;
            records += (key_lens + key.len() - usize::from(old.prefix_len) + value.len()) as u64;
        }
        if edit.replaces {
            count -= 1;
            records -= (view.start(edit.at + 1) - view.start(edit.at)) as u64;
        }
    }
    let mut header = Header { count: u32::try_from(count).ok()?, ..old };
    header.total = total_bytes(header.records_at() as u64 + records)?;
    Some(header)
}

fn copy_heads(view: &View<'_>, edits: &[Edit<'_>], prefix_len: usize, out: &mut [u8]) {
    let heads = &view.bytes[view.header.heads_at()..view.header.ends_at()];
    let mut to = Cursor { out, at: 0 };
    let mut pos = 0;
    for edit in edits {
        to.put(&heads[4 * pos..4 * edit.at]);
        if let Some((key, _)) = edit.put {
            to.put(&head_of(&key[prefix_len..]).to_le_bytes());
        }
        pos = edit.after();
    }
    to.put(&heads[4 * pos..]);
}

fn copy_records(view: &View<'_>, edits: &[Edit<'_>], prefix_len: usize, out: &mut [u8]) {
    let records = view.records();
    let key_lens = view.header.has_key_lens();
    let mut to = Cursor { out, at: 0 };
    let mut pos = 0;
    for edit in edits {
        to.put(&records[pos..view.start(edit.at)]);
        if let Some((key, value)) = edit.put {
            if key_lens {
                to.put(&((key.len() - prefix_len) as u16).to_le_bytes());
            }
            to.put(&key[prefix_len..]);
            to.put(value);
        }
        pos = view.start(edit.after());
    }
    to.put(&records[pos..]);
}

/// Ends move by as much as the edits before them added or took.
fn copy_ends(view: &View<'_>, edits: &[Edit<'_>], prefix_len: usize, out: &mut [u8]) {
    let old = view.ends();
    let key_lens = if view.header.has_key_lens() { 2 } else { 0 };
    let mut to = out.as_chunks_mut().0.iter_mut();
    let mut shift = 0_u32;
    let mut pos = 0;
    for edit in edits {
        // Wrapping sums come out right, because every end fits 32 bits.
        for (end, to) in old[pos..edit.at].iter().zip(&mut to) {
            *to = u32::from_le_bytes(*end).wrapping_add(shift).to_le_bytes();
        }
        if let Some((key, value)) = edit.put {
            let start = (view.start(edit.at) as u32).wrapping_add(shift);
            let len = (key_lens + key.len() - prefix_len + value.len()) as u32;
            if let Some(to) = to.next() {
                *to = start.wrapping_add(len).to_le_bytes();
            }
            shift = shift.wrapping_add(len);
        }
        if edit.replaces {
            shift = shift.wrapping_sub((view.start(edit.at + 1) - view.start(edit.at)) as u32);
        }
        pos = edit.after();
    }
    for (end, to) in old[pos..].iter().zip(to) {
        *to = u32::from_le_bytes(*end).wrapping_add(shift).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use pagecache::mem::PageMemory;

    use super::{super::Node, Edit, apply};

    /// Edits of a leaf of three keys under the prefix "k", four bytes each, with values of one byte.
    #[test]
    fn a_node_is_copied_in_runs_exactly_while_it_keeps_its_form() {
        let memory = PageMemory::new();
        let records = [(&b"ka11"[..], &b"1"[..]), (b"kb22", b"2"), (b"kc33", b"3")];
        let node = Node::leaf(&memory, b"", None, None, records).unwrap();
        let edit = |at, replaces, put| Edit { at, replaces, put, is_apart: false };
        let put = |key: &'static str, value: &'static str| Some((key.as_bytes(), value.as_bytes()));
        let cases: [(&str, &[Edit<'_>], bool); 10] = [
            ("replaced", &[edit(1, true, put("kb22", "x"))], true),
            ("inserted", &[edit(1, false, put("ka99", "x"))], true),
            ("at the end", &[edit(3, false, put("kd11", "x"))], true),
            ("removed", &[edit(1, true, None)], true),
            ("swapped ends", &[edit(0, true, put("k000", "x")), edit(2, true, put("kzzz", "y"))], true),
            ("another key width", &[edit(1, false, put("ka999", "x"))], false),
            ("another value width", &[edit(1, true, put("kb22", "xy"))], false),
            ("a shorter prefix", &[edit(3, false, put("l111", "x"))], false),
            ("a longer prefix", &[edit(1, true, None), edit(2, true, put("ka33", "x"))], false),
            ("none left", &[edit(0, true, None), edit(1, true, None), edit(2, true, None)], false),
        ];
        for (name, edits, kept) in cases {
            let got = apply(&memory, &node.view(), edits);
            assert_eq!(got.is_some(), kept, "{name}");
            let Some(got) = got else { continue };
            for (key, value) in edits.iter().filter_map(|edit| edit.put) {
                assert_eq!(got.get(key), Some(value), "{name}");
            }
            assert!(Node::decode(&memory, got.bytes()).is_ok(), "{name}");
        }
    }
}
