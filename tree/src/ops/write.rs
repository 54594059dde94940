//! Changing one key, and reading one.

use pagecache::{Error as PageError, Failure, Lsn, PageId, PagePtr, View, pin};

use super::{
    Core, READ_DEPTH_MAX,
    descend::{LeafPage, visible},
};
use crate::node::{Change, Find, Frag, Ops, Tally, find, mark_of};

/// What to do with a key, decided from its value.
pub(crate) enum Decision<'a> {
    /// Leave it as it is.
    Keep,
    /// Give it this value.
    Put(&'a [u8]),
    /// Take it away.
    Remove,
}

/// What became of a change.
pub(crate) struct Changed<T> {
    /// What the decision made of the value it saw.
    pub(crate) seen: T,
    /// The change's position in the log; `None` if there was none.
    pub(crate) lsn: Option<Lsn>,
}

impl Core {
    /// Calls `read` with the value of `key`, which lies in page memory.
    pub(crate) fn get_with<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(Option<&[u8]>) -> T,
    ) -> Result<T, Failure> {
        let guard = pin();
        loop {
            let leaf = self.leaf(key, &guard)?;
            if leaf.page.depth() > READ_DEPTH_MAX {
                let _ = self.pages.settle(leaf.pid, leaf.page, &guard);
            }
            match self.find_in(&leaf, key)? {
                Some(found) => return Ok(read(found)),
                None => continue,
            }
        }
    }

    /// The key's value in its leaf; the outer `None` says that the leaf is not its leaf any more.
    fn find_in<'g>(&self, leaf: &LeafPage<'g>, key: &[u8]) -> Result<Option<Option<&'g [u8]>>, Failure> {
        if let Some(Frag::Node(node)) = leaf.page.base_under(mark_of(key))
            && node.is_leaf()
            && node.covers(key)
        {
            return Ok(Some(node.get(key)));
        }
        // A batch that ended since the descent may have split or freed the leaf under the view.
        let is_final = leaf.page.is_final();
        let found = match leaf.page.settled() {
            Some(Frag::Node(node)) if is_final || (node.is_leaf() && node.covers(key)) => {
                return Ok(Some(node.get(key)));
            }
            Some(Frag::Node(_)) => return Ok(None),
            _ => find(visible(&leaf.page), key),
        };
        match found {
            Find::Value(value) => Ok(Some(Some(value))),
            Find::Absent => Ok(Some(None)),
            Find::Right(_) | Find::Elsewhere => Ok(None),
            Find::NeedsBase if !is_final => Ok(None),
            Find::NeedsBase => Err(self.damaged(leaf.pid, "its changes stand on no node")),
            Find::Damaged(why) => Err(self.damaged(leaf.pid, why)),
        }
    }

    /// Shows the key's value to `decide` and does what it says, as one step. `decide` may be called
    /// again where another thread was faster.
    pub(crate) fn change<'v, T>(
        &self,
        key: &[u8],
        mut decide: impl FnMut(Option<&[u8]>) -> (Decision<'v>, T),
    ) -> Result<Changed<T>, Failure> {
        loop {
            let guard = pin();
            let leaf = self.leaf(key, &guard)?;
            let Some(old) = self.find_in(&leaf, key)? else { continue };
            let (decision, seen) = decide(old);
            let (change, diff) = match decision {
                Decision::Keep => return Ok(Changed { seen, lsn: None }),
                Decision::Put(value) => (Change::Put(value), i64::from(old.is_none())),
                Decision::Remove => (Change::Del, -i64::from(old.is_some())),
            };
            let bytes = key.len() + change.value().map_or(0, <[u8]>::len);
            self.check_record(bytes)?;
            let tally = Tally { tree: self.id, diff };
            let ops = match change {
                Change::Put(value) => Ops::put(self.memory(), tally, key, value),
                Change::Del => Ops::del(self.memory(), tally, key),
            };
            let ops = ops.map_err(|error| Failure::Unsupported { what: error.0 })?;
            match self.pages.link(leaf.pid, leaf.page.key(), Frag::Ops(ops), &guard) {
                Ok(page) => {
                    let lsn = page.changed_at();
                    self.after_change(&leaf, &page, key)?;
                    if bytes > self.leaf_bytes_max / 2 {
                        // Large ones are not let pile up: the leaf must fit a record when it splits.
                        self.optional(self.tidy(leaf.pid))?;
                    }
                    return Ok(Changed { seen, lsn: Some(lsn) });
                }
                Err(PageError::CasFailed(_)) => {}
                Err(other) => return Err(failure_of(other)),
            }
        }
    }

    /// Keeps the shape after a change of a leaf. The change itself has happened: what fails here is
    /// told by the next call that meets it, so only damage is reported.
    fn after_change(&self, leaf: &LeafPage<'_>, page: &PagePtr<'_, Frag>, key: &[u8]) -> Result<(), Failure> {
        if let Some(unposted) = &leaf.unposted {
            self.optional(self.post(unposted.level, &unposted.separator))?;
        }
        let Some(view) = page.view() else { return Ok(()) };
        match view.settled() {
            Some(Frag::Node(node)) if node.should_split(self.bytes_max(node)) => {
                self.optional(self.split(leaf.pid, Some(key)))
            }
            Some(Frag::Node(node)) if node.is_empty() && leaf.pid != self.root => {
                self.optional(self.join_empty(node.low()))
            }
            _ => self.see_to(leaf.pid, view.depth()),
        }
    }

    /// Makes the chain of a leaf short, and keeps the shape if that folded it.
    pub(super) fn shorten(&self, pid: PageId) -> Result<(), Failure> {
        let guard = pin();
        let View::Page(page) = self.pages.view(pid, &guard)? else { return Ok(()) };
        match self.pages.shorten(pid, page, &guard).map(|short| short.settled()) {
            // Its changes are one now, and the leaf is as large as it was.
            Some(None) => Ok(()),
            // A page is not folded while a batch is pending on it (P-9).
            None if !page.is_final() => Ok(()),
            _ => self.tidy(pid),
        }
    }

    /// Work on the shape may be left for later for want of room; damage and poison may not be hidden.
    pub(super) fn optional(&self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        match outcome {
            Err(failure) if failure.is_corruption() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Folds a page and splits it if it is too large; called for pages that a batch wrote to.
    pub(super) fn tidy(&self, pid: PageId) -> Result<(), Failure> {
        let guard = pin();
        let Some(found) = self.node(pid, &guard)? else { return Ok(()) };
        if found.node.should_split(self.bytes_max(found.node)) {
            return self.split(pid, None);
        }
        if found.node.is_leaf() && found.node.is_empty() && pid != self.root {
            return self.join_empty(found.node.low());
        }
        Ok(())
    }
}

/// The failure in an error of the page cache that is no lost race.
pub(super) fn failure_of<A>(error: PageError<A>) -> Failure {
    match error {
        PageError::Io(failure) | PageError::Corruption { what: failure, .. } => failure,
        PageError::Unsupported(what) => Failure::Unsupported { what },
        PageError::ReportableBug(what) => {
            Failure::Unsupported { what: format!("please report this: {what}") }
        }
        _ => Failure::Misuse { what: "a lost race where none can be" },
    }
}
