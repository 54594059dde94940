//! Many keys at once: one delta a leaf, one record for all.
//!
//! Leaves are changed in the order of their keys (TREE-4); values that live apart are written before the first
//! ([`super::apart`]), leaves to come are asked for ahead ([`super::ahead`]), long ones are left to [`super::tidier`].

use pagecache::{Admission, Error as PageError, Failure, Lsn, PageId, pin};

use super::{
    Core,
    ahead::Ahead,
    tidier::{BATCH_DEPTH_MAX, DEPTH_END},
    write::failure_of,
};
use crate::{
    batch::{Batch, KeyWrite},
    node::{APART_BYTES, Change, Frag, Ops, SHAPE_MARK, Tally, reach},
    ops::{apart::New, descend::visible},
};

/// A write of a batch.
pub(super) struct Write<'b> {
    pub(super) key: &'b [u8],
    pub(super) value: Option<&'b [u8]>,
    /// The value, written already, if it lives apart.
    pub(super) apart: Option<Box<Prepared<'b>>>,
}

/// A value that lives apart, and what stands for it in its leaf.
pub(super) struct Prepared<'b> {
    pub(super) new: New<'b>,
    pub(super) named: [u8; APART_BYTES],
}

impl Write<'_> {
    fn change(&self) -> Change<'_> {
        match (&self.apart, self.value) {
            (Some(prepared), _) => Change::Apart(&prepared.named),
            (None, Some(value)) => Change::Put(value),
            (None, None) => Change::Del,
        }
    }

    /// Bytes that its leaf will hold.
    fn record_bytes(&self) -> usize {
        self.key.len() + self.change().value().map_or(0, <[u8]>::len)
    }
}

/// Changes of one leaf by a batch above which it is seen to at once: a leaf that grows by more than it
/// may hold is the dearer to split the longer one waits.
const OPS_UNFOLDED_MAX: usize = 8;
/// In the place of a chain's length: the leaf is seen to because it may have to be joined.
const BECOMES_SMALL: usize = 0;

fn removals(writes: &[Write<'_>]) -> usize {
    writes.iter().filter(|write| write.value.is_none()).count()
}

impl Core {
    /// Applies a batch: every get that begins after it returns sees all of it, no get sees a part.
    pub(crate) fn apply<'b>(&'b self, batch: &'b Batch) -> Result<Lsn, Failure> {
        let write =
            |(key, value): KeyWrite<'b>| Write { key, value: value.map(|value| &**value), apart: None };
        let mut writes: Vec<Write<'b>> = batch.sorted().into_iter().map(write).collect();
        writes.iter().try_for_each(|write| Core::check_key(write.key))?;
        self.write_all_apart(&mut writes)?;
        let mut touched = Vec::new();
        let mut tries = 0;
        let lsn = loop {
            touched.clear();
            match self.install(&writes, &mut touched) {
                // The batch was given up with the error, so this thread holds nothing.
                Err(Failure::Gated { pid }) => self.pages.pass_gate(pid)?,
                Err(failure) if self.pages.waits_for_log(&failure, &mut tries) => {}
                outcome => break outcome?,
            }
        };
        for (pid, depth) in touched {
            match depth {
                BECOMES_SMALL => self.leave(pid)?,
                _ => self.see_to(pid, depth, BATCH_DEPTH_MAX)?,
            }
        }
        self.pages.pay();
        Ok(lsn)
    }

    /// Installs in key order, which is the order of low fences (TREE-4), and commits.
    fn install(&self, writes: &[Write<'_>], touched: &mut Vec<(PageId, usize)>) -> Result<Lsn, Failure> {
        let mut bytes = 0;
        for write in writes {
            let record = write.record_bytes();
            self.check_record(record)?;
            bytes += record;
        }
        let mut batch =
            self.pages.begin_batch(Admission { mem: bytes, log: bytes, ..Admission::default() })?;
        for prepared in writes.iter().filter_map(|write| write.apart.as_ref()) {
            batch.adopt(&prepared.new)?;
        }
        let mut ahead = Ahead::default();
        let mut at = 0;
        while let Some(first) = writes.get(at) {
            let guard = pin();
            let near = ahead.leaf_of(self, at, writes.len(), |at| writes[at].key, &guard);
            let leaf = self.leaf_from(near, first.key, &guard)?;
            let plain = match leaf.page.base_under(SHAPE_MARK) {
                Some(Frag::Node(node)) => Some(node.reach()),
                _ => reach(visible(&leaf.page)),
            };
            let Some(range) = plain else {
                if !leaf.page.is_final() {
                    // A join that was pending has taken the leaf away since.
                    continue;
                }
                return Err(self.damaged(leaf.pid, "its changes stand on no node"));
            };
            let rest = &writes[at..];
            let here = match range.high {
                Some(high) => rest.iter().take_while(|write| write.key < high).count(),
                None => rest.len(),
            };
            let now = &rest[..here];
            let Some(freed) = self.apart_among(&leaf, now.iter().map(|write| write.key))? else { continue };
            let frag = Frag::Ops(self.ops_of(now)?);
            match batch.link(leaf.pid, leaf.page.key(), frag, &guard) {
                Ok(_) => {
                    for old in freed {
                        batch.free_value(old.id, &guard)?;
                    }
                    let is_much = now.len() > OPS_UNFOLDED_MAX;
                    let depth = if is_much { DEPTH_END } else { leaf.page.depth() + 1 };
                    if depth > BATCH_DEPTH_MAX {
                        touched.push((leaf.pid, depth));
                    } else if self.becomes_small(leaf.pid, &leaf.page, removals(now)) {
                        touched.push((leaf.pid, BECOMES_SMALL));
                    }
                    at += here;
                }
                // The leaf changed: look again what of the batch belongs there.
                Err(PageError::CasFailed(_)) => {}
                Err(other) => return Err(failure_of(other)),
            }
        }
        batch.apply()
    }

    fn ops_of<'b>(&self, writes: &'b [Write<'_>]) -> Result<Ops, Failure> {
        // Whether each key was there is not known without reading it: the count is taken from leaves.
        let tally = Tally { tree: self.id, diff: 0 };
        let change = |write: &'b Write<'_>| (write.key, write.change());
        let ops = match writes {
            [only] => Ops::many(self.memory(), tally, &[change(only)]),
            all => Ops::many(self.memory(), tally, &all.iter().map(change).collect::<Vec<_>>()),
        };
        ops.map_err(|error| Failure::Unsupported { what: error.0 })
    }
}
