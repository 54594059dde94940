//! Changing one key, and reading one. A change that adopts or frees a value that lives apart is a batch
//! ([`super::apart`]); every other is one record of one page.

use pagecache::{Error as PageError, Failure, Guard, Lsn, PageId, PagePtr, View, pin};

use super::{
    Core, READ_DEPTH_MAX,
    apart::{Looked, New},
    descend::{LeafPage, visible},
    tidier::DEPTH_MAX,
};
use crate::node::{APART_BYTES, Apart, Find, Frag, Ops, Stored, Tally, find, mark_of};

/// What to do with a key, decided from its value.
pub(crate) enum Decision<'a> {
    /// Leave it as it is.
    Keep,
    /// Give it this value.
    Put(&'a [u8]),
    /// Give it this value, which was written before.
    Adopt(&'a New<'a>),
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
    /// Calls `read` with the value of `key`, which lies in page memory, or in memory of its own if it
    /// lives apart.
    pub(crate) fn get_with<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(Option<&[u8]>) -> T,
    ) -> Result<T, Failure> {
        let mut read = Some(read);
        let mut call = |value: Option<&[u8]>| (read.take().expect("a value is read once"))(value);
        match self.look(key, &mut call)? {
            Looked::Read(done) => Ok(done),
            Looked::Apart(_) => {
                let bytes = self.look_apart(
                    key,
                    |core| core.look(key, |found| found.map(<[u8]>::to_vec)),
                    |apart| self.load(apart),
                    Some,
                )?;
                Ok(call(bytes.as_deref()))
            }
        }
    }

    /// Calls `read` with the value of `key`, which lies in page memory, unless it lives apart.
    #[inline]
    pub(crate) fn look<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(Option<&[u8]>) -> T,
    ) -> Result<Looked<T>, Failure> {
        let guard = pin();
        loop {
            let leaf = self.leaf(key, &guard)?;
            if leaf.page.depth() > READ_DEPTH_MAX {
                let _ = self.pages.settle(leaf.pid, leaf.page, &guard);
            }
            match self.find_in(&leaf, key)? {
                Some(None) => return Ok(Looked::Read(read(None))),
                Some(Some(Stored::Inline(value))) => return Ok(Looked::Read(read(Some(value)))),
                Some(Some(Stored::Apart(apart))) => return Ok(Looked::Apart(apart)),
                None => continue,
            }
        }
    }

    /// The key's value in its leaf; the outer `None` says that the leaf is not its leaf any more.
    pub(super) fn find_in<'g>(
        &self,
        leaf: &LeafPage<'g>,
        key: &[u8],
    ) -> Result<Option<Option<Stored<'g>>>, Failure> {
        if let Some(Frag::Node(node)) = leaf.page.base_under(mark_of(key))
            && node.is_leaf()
            && node.covers(key)
        {
            return Ok(Some(node.stored(key)));
        }
        // A batch that ended since the descent may have split or freed the leaf under the view.
        let is_final = leaf.page.is_final();
        let found = match leaf.page.settled() {
            Some(Frag::Node(node)) if is_final || (node.is_leaf() && node.covers(key)) => {
                return Ok(Some(node.stored(key)));
            }
            Some(Frag::Node(_)) => return Ok(None),
            _ => find(visible(&leaf.page), key),
        };
        match found {
            Find::Value(value) => Ok(Some(Some(Stored::Inline(value)))),
            Find::Apart(apart) => Ok(Some(Some(Stored::Apart(apart)))),
            Find::Absent => Ok(Some(None)),
            Find::Right(_) | Find::Elsewhere => Ok(None),
            Find::NeedsBase if !is_final => Ok(None),
            Find::NeedsBase => Err(self.damaged(leaf.pid, "its changes stand on no node")),
            Find::Damaged(why) => Err(self.damaged(leaf.pid, why)),
        }
    }

    /// Shows the key's value, or where it lives, to `decide` and does what it says, as one step. `decide`
    /// may be called again where another thread was faster, or where its value had to be written first.
    pub(crate) fn change<'v, T>(
        &self,
        key: &[u8],
        decide: impl FnMut(Option<Stored<'_>>) -> (Decision<'v>, T),
    ) -> Result<Changed<T>, Failure> {
        Core::check_key(key)?;
        let changed = self.change_leaf(key, decide)?;
        if changed.lsn.is_some() {
            self.pages.pay();
        }
        Ok(changed)
    }

    fn change_leaf<'v, T>(
        &self,
        key: &[u8],
        mut decide: impl FnMut(Option<Stored<'_>>) -> (Decision<'v>, T),
    ) -> Result<Changed<T>, Failure> {
        let mut written: Option<(&[u8], New<'_>)> = None;
        let mut tries = 0;
        loop {
            let guard = pin();
            let leaf = self.leaf(key, &guard)?;
            let Some(old) = self.find_in(&leaf, key)? else { continue };
            let (decision, seen) = decide(old);
            let tally = |diff| Tally { tree: self.id, diff };
            let (added, removed) = (tally(i64::from(old.is_none())), tally(-i64::from(old.is_some())));
            let mut new = None;
            let (ops, bytes) = match decision {
                Decision::Keep => return Ok(Changed { seen, lsn: None }),
                Decision::Put(value) if self.lives_apart(key.len(), value.len()) => match &written {
                    Some((bytes, value_written)) if std::ptr::eq(*bytes, value) => {
                        new = Some(value_written);
                        let named = Core::named(value_written);
                        (Ops::apart(self.memory(), added, key, &named), key.len() + APART_BYTES)
                    }
                    _ => {
                        // Not while memory waits for this guard, and not before it is known to be wanted.
                        drop(guard);
                        let mut source = value;
                        written = Some((value, self.write_apart(value.len() as u64, &mut source)?));
                        continue;
                    }
                },
                Decision::Put(value) => (Ops::put(self.memory(), added, key, value), key.len() + value.len()),
                Decision::Adopt(value) => {
                    new = Some(value);
                    let named = Core::named(value);
                    (Ops::apart(self.memory(), added, key, &named), key.len() + APART_BYTES)
                }
                Decision::Remove => (Ops::del(self.memory(), removed, key), key.len()),
            };
            self.check_record(bytes)?;
            let removes = matches!(decision, Decision::Remove);
            let ops = ops.map_err(|error| Failure::Unsupported { what: error.0 })?;
            let freed = old.and_then(Stored::apart);
            if new.is_some() || freed.is_some() {
                match self.change_apart(&leaf, ops, new, freed, &guard, &mut tries)? {
                    Some(lsn) => return Ok(Changed { seen, lsn: Some(lsn) }),
                    None => continue,
                }
            }
            match self.pages.link(leaf.pid, leaf.page.key(), Frag::Ops(ops), &guard) {
                Ok(page) => {
                    let lsn = page.changed_at();
                    self.after_change(&leaf, &page, key, removes)?;
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

    /// A change of a key with a value that lives apart, before or after. `None` if it has to be tried
    /// again.
    fn change_apart(
        &self,
        leaf: &LeafPage<'_>,
        ops: Ops,
        new: Option<&New<'_>>,
        freed: Option<Apart>,
        guard: &Guard,
        tries: &mut u32,
    ) -> Result<Option<Lsn>, Failure> {
        let lsn = match self.link_apart(leaf, ops, new, freed, guard) {
            // The batch was given up with the error, so this thread holds nothing.
            Err(Failure::Gated { pid }) => return self.pages.pass_gate(pid).map(|()| None),
            Err(failure) if self.pages.waits_for_log(&failure, tries) => return Ok(None),
            outcome => outcome?,
        };
        if lsn.is_some() {
            if let Some(unposted) = &leaf.unposted {
                self.optional(self.post(unposted.level, &unposted.separator))?;
            }
            self.optional(self.tidy(leaf.pid))?;
        }
        Ok(lsn)
    }

    /// Keeps the shape after a change of a leaf. The change itself has happened: what fails here is
    /// told by the next call that meets it, so only damage is reported.
    fn after_change(
        &self,
        leaf: &LeafPage<'_>,
        page: &PagePtr<'_, Frag>,
        key: &[u8],
        removes: bool,
    ) -> Result<(), Failure> {
        if let Some(unposted) = &leaf.unposted {
            self.optional(self.post(unposted.level, &unposted.separator))?;
        }
        let Some(view) = page.view() else { return Ok(()) };
        match view.settled() {
            Some(Frag::Node(node)) if node.should_split(self.bytes_max(node)) => {
                self.optional(self.split(leaf.pid, Some(key)))
            }
            _ if removes && self.becomes_small(leaf.pid, &leaf.page, 1) => self.leave(leaf.pid),
            _ if view.depth() > DEPTH_MAX => self.see_to(leaf.pid, view.depth(), DEPTH_MAX),
            _ => Ok(()),
        }
    }

    /// Makes the chain of a leaf short, and keeps the shape if that folded it.
    pub(super) fn shorten(&self, pid: PageId) -> Result<(), Failure> {
        let guard = pin();
        let View::Page(page) = self.pages.view(pid, &guard)? else { return Ok(()) };
        if self.may_be_small(pid, &page) {
            return self.tidy(pid);
        }
        match self.pages.shorten(pid, page, &guard).map(|short| short.settled()) {
            // Its changes are one now, and the leaf is about as large as it was.
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

    /// Folds a page, splits it if it is too large, and joins it to a neighbour if it holds little.
    pub(super) fn tidy(&self, pid: PageId) -> Result<(), Failure> {
        let guard = pin();
        let Some(found) = self.node(pid, &guard)? else { return Ok(()) };
        if found.node.should_split(self.bytes_max(found.node)) {
            return self.split(pid, None);
        }
        if pid != self.root && self.is_small(found.node) { self.join(pid) } else { Ok(()) }
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
