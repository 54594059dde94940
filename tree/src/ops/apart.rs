//! Values that live apart from their leaf: written ahead of the change that names them, freed with the
//! change that takes the name away, read outside of any guard.
//!
//! * APART-1: a leaf's change and what it does to values, adopting the new and freeing the old, are one
//!   batch. So a value's page is there exactly while a leaf names it.
//! * APART-2: a reader that finds a named value gone looks the key up again: the change that freed it
//!   shows in the leaf since. A name is a page and a number that never returns, so no reader ever takes
//!   another value for the one it was told of.

use std::io::Read;

use pagecache::{Admission, Error as PageError, Failure, Guard, Lsn, NewValue, ValueReader};

use super::{
    Core,
    batch::{Prepared, Write},
    descend::LeafPage,
    write::{Changed, Decision, failure_of},
};
use crate::{
    materializer::TreeMaterializer,
    node::{APART_BYTES, APART_MARK, Apart, Frag, Ops, SHAPE_MARK, Stored},
};

/// Bytes above which a value lives apart: see `docs/DECISIONS.md`.
pub(crate) const INLINE_BYTES_MAX: usize = 32 << 10;

/// A value of this store that no leaf names yet.
pub(crate) type New<'c> = NewValue<'c, TreeMaterializer>;

/// A value as a lookup finds it.
pub(crate) enum Looked<T> {
    /// What was made of it where it lies.
    Read(T),
    /// It lives apart.
    Apart(Apart),
}

impl Core {
    /// True if a value of so many bytes lives apart under a key of so many.
    pub(super) fn lives_apart(&self, key_bytes: usize, value_bytes: usize) -> bool {
        value_bytes > self.inline_bytes_max
            || (value_bytes > APART_BYTES && key_bytes + value_bytes > self.record_bytes_max())
    }

    /// Writes a value that lives apart, and makes it durable.
    pub(crate) fn write_apart(&self, bytes: u64, source: &mut dyn Read) -> Result<New<'_>, Failure> {
        let written = self.pages.write_value(bytes, source)?;
        let mut synced = self.pages.sync_values(vec![written])?;
        Ok(synced.pop().expect("one was given"))
    }

    /// Writes those of these values that live apart, and makes them durable with one sync.
    pub(super) fn write_all_apart<'b>(&'b self, writes: &mut [Write<'b>]) -> Result<(), Failure> {
        let mut unsynced = Vec::new();
        let mut named = Vec::new();
        for (at, write) in writes.iter().enumerate() {
            let large = write.value.filter(|value| self.lives_apart(write.key.len(), value.len()));
            if let Some(mut value) = large {
                unsynced.push(self.pages.write_value(value.len() as u64, &mut value)?);
                named.push(at);
            }
        }
        if unsynced.is_empty() {
            return Ok(());
        }
        for (at, new) in named.into_iter().zip(self.pages.sync_values(unsynced)?) {
            let named = Core::named(&new).encode();
            writes[at].apart = Some(Box::new(Prepared { new, named }));
        }
        Ok(())
    }

    /// What stands for a new value in its leaf.
    pub(super) fn named(value: &New<'_>) -> Apart {
        Apart { id: value.id(), bytes: value.bytes() }
    }

    /// Changes a leaf, and with it the values that live apart, as one batch (APART-1). `None` if the leaf
    /// has changed: look again.
    pub(super) fn link_apart(
        &self,
        leaf: &LeafPage<'_>,
        ops: Ops,
        new: Option<&New<'_>>,
        old: Option<Apart>,
        guard: &Guard,
    ) -> Result<Option<Lsn>, Failure> {
        // No memory is asked for: making room for it might evict the leaf that was just read, for ever.
        let log = ops.bytes().len();
        let mut batch = self.pages.begin_batch(Admission { log, ..Admission::default() })?;
        if let Some(value) = new {
            batch.adopt(value)?;
        }
        match batch.link(leaf.pid, leaf.page.key(), Frag::Ops(ops), guard) {
            Ok(_) => {}
            Err(PageError::CasFailed(_)) => return Ok(None),
            Err(other) => return Err(failure_of(other)),
        }
        if let Some(old) = old {
            batch.free_value(old.id, guard)?;
        }
        batch.apply().map(Some)
    }

    /// The values that live apart under these keys of a leaf. `None` if it is not their leaf any more.
    pub(super) fn apart_among<'k>(
        &self,
        leaf: &LeafPage<'_>,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Option<Vec<Apart>>, Failure> {
        // In a leaf without any, and in front of which no change puts one, no key is looked up.
        if let Some(Frag::Node(node)) = leaf.page.base_under(SHAPE_MARK | APART_MARK)
            && !node.may_hold_apart()
        {
            return Ok(Some(Vec::new()));
        }
        let mut found = Vec::new();
        for key in keys {
            let Some(stored) = self.find_in(leaf, key)? else { return Ok(None) };
            found.extend(stored.and_then(Stored::apart));
        }
        Ok(Some(found))
    }

    /// As [`Core::change`], showing `decide` the value itself wherever it lives.
    pub(crate) fn change_seen<'v, T>(
        &self,
        key: &[u8],
        mut decide: impl FnMut(Option<&[u8]>) -> (Decision<'v>, T),
    ) -> Result<Changed<T>, Failure> {
        let mut loaded: Option<(Apart, Vec<u8>)> = None;
        loop {
            let Changed { seen, lsn } = self.change(key, |old| match (old, &loaded) {
                (Some(Stored::Apart(apart)), Some((known, bytes))) if *known == apart => {
                    let (decision, seen) = decide(Some(bytes));
                    (decision, Looked::Read(seen))
                }
                (Some(Stored::Apart(apart)), _) => (Decision::Keep, Looked::Apart(apart)),
                (Some(Stored::Inline(value)), _) => {
                    let (decision, seen) = decide(Some(value));
                    (decision, Looked::Read(seen))
                }
                (None, _) => {
                    let (decision, seen) = decide(None);
                    (decision, Looked::Read(seen))
                }
            })?;
            match seen {
                Looked::Read(seen) => return Ok(Changed { seen, lsn }),
                Looked::Apart(apart) => loaded = self.load(apart)?.map(|bytes| (apart, bytes)),
            }
        }
    }

    /// A value that lives apart, whole. `None` if it is gone.
    pub(crate) fn load(&self, apart: Apart) -> Result<Option<Vec<u8>>, Failure> {
        let limit = self.pages.whole_value_bytes_max();
        if apart.bytes > limit {
            return Err(Failure::TooLarge {
                what: "value to be read whole",
                bytes: apart.bytes,
                limit,
                remedy: "read it with `get_into` or `get_reader`, replace it with `put`, take it away with \
                         `delete`, or raise `cache_capacity`: a value that is read whole may take a \
                         quarter of it",
            });
        }
        match self.open(apart)? {
            Some(mut reader) => reader.read_all().map(Some),
            None => Ok(None),
        }
    }

    /// A reader of a value that lives apart. `None` if it is gone.
    pub(crate) fn open(&self, apart: Apart) -> Result<Option<ValueReader>, Failure> {
        let Some(reader) = self.pages.open_value(apart.id)? else { return Ok(None) };
        if reader.bytes() == apart.bytes {
            return Ok(Some(reader));
        }
        let found = format!("it holds {} bytes where a leaf names {}", reader.bytes(), apart.bytes);
        Err(self.damaged(apart.id.pid, found))
    }

    /// Calls `read` with what a leaf says of a key, and `open` outside of the guard if that lives apart,
    /// until it is not gone (APART-2).
    pub(crate) fn look_apart<T, U>(
        &self,
        key: &[u8],
        mut look: impl FnMut(&Core) -> Result<Looked<T>, Failure>,
        mut open: impl FnMut(Apart) -> Result<Option<U>, Failure>,
        read: impl FnOnce(U) -> T,
    ) -> Result<T, Failure> {
        let mut before = None;
        loop {
            match look(self)? {
                Looked::Read(done) => return Ok(done),
                Looked::Apart(apart) if before == Some(apart) => {
                    let found =
                        format!("a leaf names a value that is not there, for a key of {} bytes", key.len());
                    return Err(self.damaged(apart.id.pid, found));
                }
                Looked::Apart(apart) => match open(apart)? {
                    Some(opened) => return Ok(read(opened)),
                    None => before = Some(apart),
                },
            }
        }
    }
}
