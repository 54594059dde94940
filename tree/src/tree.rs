//! The calls of a [`Tree`], with sled's names and signatures, and ours beside them.

use std::{
    io::Read,
    ops::{Bound, RangeBounds},
};

use pagecache::Lsn;

use crate::{
    Batch, CompareAndSwapError, Durability, Error, IVec, Iter, Result, Tree, ValueReader,
    db::from_page_error,
    flushing::Flushing,
    iter::Range,
    metrics::Call,
    node::Stored,
    ops::{Core, Decision, Looked},
    source::Counted,
};

impl Tree {
    /// Sets `key` to `value`; returns the value it had.
    ///
    /// The write is visible at once and durable with the next flush.
    ///
    /// ```
    /// # let db = tree::Config::new().temporary(true).open()?;
    /// assert_eq!(db.insert(&[1, 2, 3], vec![0])?, None);
    /// assert_eq!(db.insert(&[1, 2, 3], vec![1])?, Some(tree::IVec::from(&[0])));
    /// # Ok::<(), tree::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for a value above 1 GiB, or if the old one is too large to be returned (use
    /// [`Tree::put`]); [`Error::DiskFull`] when no room is left; both without effect.
    /// [`Error::Poisoned`] after a failed write.
    pub fn insert<K, V>(&self, key: K, value: V) -> Result<Option<IVec>>
    where
        K: AsRef<[u8]>,
        V: Into<IVec>,
    {
        let _timing = self.metrics.time(Call::Set);
        let value = value.into();
        let changed =
            self.core.change_seen(key.as_ref(), |old| (Decision::Put(&value), old.map(IVec::from)))?;
        Ok(changed.seen)
    }

    /// Sets `key` to `value`; returns the write's position, for [`Tree::wait_durable`]. Does not copy
    /// the old value out.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn put<K, V>(&self, key: K, value: V) -> Result<Lsn>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let _timing = self.metrics.time(Call::Set);
        let changed = self.core.change(key.as_ref(), |_| (Decision::Put(value.as_ref()), ()))?;
        Ok(changed.lsn.unwrap_or_default())
    }

    /// Sets `key` to the next `bytes` of `source`, without holding them in memory: a value that lives in
    /// a page of its own is written in pieces of at most 1 MiB, and synced before the write is visible.
    /// Returns the write's position, for [`Tree::wait_durable`].
    ///
    /// ```
    /// # let db = tree::Config::new().temporary(true).open()?;
    /// let film = vec![7; 3 << 20];
    /// db.put_from("film", film.len() as u64, &film[..])?;
    /// let mut end = [0; 4];
    /// db.get_reader("film")?.expect("it was put there").read_at((3 << 20) - 4, &mut end)?;
    /// assert_eq!(end, [7; 4]);
    /// # Ok::<(), tree::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if `source` fails or ends early, naming the key and how far it came, [`Error::TooLarge`] above 1 GiB, others as
    /// [`Tree::insert`]; all without effect.
    pub fn put_from<K, S>(&self, key: K, bytes: u64, source: S) -> Result<Lsn>
    where
        K: AsRef<[u8]>,
        S: Read,
    {
        let key = key.as_ref();
        let mut source = Counted::new(source);
        self.put_counted(key, bytes, &mut source).map_err(|error| source.explain(key, bytes, error))
    }

    fn put_counted(&self, key: &[u8], bytes: u64, source: &mut dyn Read) -> Result<Lsn> {
        Core::check_key(key)?;
        let changed = match usize::try_from(bytes) {
            Ok(bytes) if bytes <= self.core.inline_bytes_max => {
                let mut value = vec![0; bytes];
                source.read_exact(&mut value)?;
                return self.put(key, value);
            }
            _ => {
                let _timing = self.metrics.time(Call::Set);
                let value = self.core.write_apart(bytes, source)?;
                self.core.change(key, |_| (Decision::Adopt(&value), ()))?
            }
        };
        Ok(changed.lsn.unwrap_or_default())
    }

    /// The length of the value of `key` in bytes. Reads nothing of it.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`], but for its limit.
    pub fn value_len<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<u64>> {
        let _timing = self.metrics.time(Call::Get);
        let found = match self.core.look(key.as_ref(), |value| value.map(|value| value.len() as u64))? {
            Looked::Read(found) => found,
            Looked::Apart(apart) => Some(apart.bytes),
        };
        self.core.pages.keep_within_capacity();
        Ok(found)
    }

    /// A reader of the value of `key`, of whatever length, as it is now.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`], but for its limit.
    pub fn get_reader<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<ValueReader>> {
        let _timing = self.metrics.time(Call::Get);
        let key = key.as_ref();
        let pages = || self.core.pages.clone();
        let found = self.core.look_apart(
            key,
            |core| core.look(key, |value| value.map(|value| ValueReader::inline(pages(), value.into()))),
            |apart| self.core.open(apart),
            |reader| Some(ValueReader::apart(pages(), reader)),
        )?;
        self.core.pages.keep_within_capacity();
        Ok(found)
    }

    /// Reads the value of `key` into `out`, as much of it as fits; returns the value's length, and `None`
    /// if there is no value.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`], but for its limit.
    pub fn get_into<K: AsRef<[u8]>>(&self, key: K, out: &mut [u8]) -> Result<Option<u64>> {
        let Some(mut reader) = self.get_reader(key)? else { return Ok(None) };
        reader.read_at(0, out)?;
        Ok(Some(reader.len()))
    }

    /// The value of `key`, copied out.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for a value above a quarter of `cache_capacity`: [`Tree::get_into`] and
    /// [`Tree::get_reader`] read it. [`Error::Corruption`] or [`Error::Io`] if it could not be read.
    pub fn get<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<IVec>> {
        self.get_with(key, |value| value.map(IVec::from))
    }

    /// Calls `read` with the value of `key` where it lies, without copying it. Memory is not
    /// reclaimed while `read` runs: keep it short. A value in a page of its own is read first.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`].
    pub fn get_with<K: AsRef<[u8]>, T>(&self, key: K, read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        let _timing = self.metrics.time(Call::Get);
        let found = self.core.get_with(key.as_ref(), read)?;
        self.core.pages.keep_within_capacity();
        Ok(found)
    }

    /// True if `key` has a value.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`].
    pub fn contains_key<K: AsRef<[u8]>>(&self, key: K) -> Result<bool> {
        Ok(self.value_len(key)?.is_some())
    }

    /// Takes `key` away; returns the value it had.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn remove<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<IVec>> {
        let _timing = self.metrics.time(Call::Remove);
        let decide = |old: Option<&[u8]>| match old {
            None => (Decision::Keep, None),
            Some(old) => (Decision::Remove, Some(IVec::from(old))),
        };
        Ok(self.core.change_seen(key.as_ref(), decide)?.seen)
    }

    /// Takes `key` away without reading the value it had; returns the write's position, or `None` if
    /// there was no value.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn delete<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<Lsn>> {
        let _timing = self.metrics.time(Call::Remove);
        let decide = |old: Option<Stored<'_>>| match old {
            None => (Decision::Keep, ()),
            Some(_) => (Decision::Remove, ()),
        };
        Ok(self.core.change(key.as_ref(), decide)?.lsn)
    }

    /// Sets `key` to `new`, or takes it away, if its value is `old`.
    ///
    /// # Errors
    ///
    /// The outer error as [`Tree::insert`]; the inner one holds the value that is there, and what was
    /// proposed.
    #[allow(clippy::type_complexity)]
    pub fn compare_and_swap<K, OV, NV>(
        &self,
        key: K,
        old: Option<OV>,
        new: Option<NV>,
    ) -> Result<std::result::Result<(), CompareAndSwapError>>
    where
        K: AsRef<[u8]>,
        OV: AsRef<[u8]>,
        NV: Into<IVec>,
    {
        let _timing = self.metrics.time(Call::Swap);
        let new: Option<IVec> = new.map(Into::into);
        let old = old.as_ref().map(AsRef::as_ref);
        let changed = self.core.change_seen(key.as_ref(), |current| {
            if current != old {
                return (Decision::Keep, Err(current.map(IVec::from)));
            }
            match &new {
                Some(value) => (Decision::Put(value), Ok(())),
                None if current.is_some() => (Decision::Remove, Ok(())),
                None => (Decision::Keep, Ok(())),
            }
        })?;
        Ok(changed.seen.map_err(|current| CompareAndSwapError { current, proposed: new }))
    }

    /// Replaces the value of `key` by what `f` makes of it; returns the new value. `f` may be called
    /// again where another thread was faster.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn update_and_fetch<K, V, F>(&self, key: K, f: F) -> Result<Option<IVec>>
    where
        K: AsRef<[u8]>,
        F: FnMut(Option<&[u8]>) -> Option<V>,
        V: Into<IVec>,
    {
        Ok(self.update(key.as_ref(), f)?.1)
    }

    /// Replaces the value of `key` by what `f` makes of it; returns the value it had. `f` may be
    /// called again where another thread was faster.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn fetch_and_update<K, V, F>(&self, key: K, f: F) -> Result<Option<IVec>>
    where
        K: AsRef<[u8]>,
        F: FnMut(Option<&[u8]>) -> Option<V>,
        V: Into<IVec>,
    {
        Ok(self.update(key.as_ref(), f)?.0)
    }

    fn update<V: Into<IVec>>(
        &self,
        key: &[u8],
        mut f: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<(Option<IVec>, Option<IVec>)> {
        loop {
            let current = self.get(key)?;
            let next: Option<IVec> = f(current.as_deref()).map(Into::into);
            if self.compare_and_swap(key, current.as_ref(), next.clone())?.is_ok() {
                return Ok((current, next));
            }
        }
    }

    /// The entry with the greatest key below `key`.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`].
    pub fn get_lt<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<(IVec, IVec)>> {
        self.range(..key.as_ref()).next_back().transpose()
    }

    /// The entry with the least key above `key`.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`].
    pub fn get_gt<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<(IVec, IVec)>> {
        let above: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(key.as_ref()), Bound::Unbounded);
        self.range::<&[u8], _>(above).next().transpose()
    }

    /// Applies a batch: all of it or nothing, also after a crash; every get that begins after this
    /// returns sees all of it, and none ever sees a part.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if it exceeds a quarter of the log or of the memory, values in pages of their
    /// own not counted; others as
    /// [`Tree::insert`]. Nothing of the batch has happened then.
    pub fn apply_batch(&self, batch: Batch) -> Result<()> {
        self.write(&batch, Durability::None).map(|_| ())
    }

    /// Applies a batch and returns once it is as durable as asked for; returns its position.
    ///
    /// # Errors
    ///
    /// As [`Tree::apply_batch`]; an error of the durability part poisons the database.
    pub fn write(&self, batch: &Batch, durability: Durability) -> Result<Lsn> {
        let _timing = self.metrics.time(Call::Batch);
        let lsn = self.core.apply(batch)?;
        match durability {
            Durability::None => {}
            Durability::Buffered => self.core.pages.hand_over().map_err(from_page_error)?,
            Durability::Sync => self.wait_durable(lsn)?,
        }
        Ok(lsn)
    }

    /// Returns once the write at `lsn`, and all before it, survive any crash.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the device refused; the database is then poisoned.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.core.pages.make_stable(lsn).map(|_| ()).map_err(from_page_error)
    }

    /// The highest durable position: a write at or below it survives any crash.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.core.pages.stable_lsn()
    }

    /// Makes every write that returned before this call durable; returns the bytes that this took.
    ///
    /// Blocks for at least one device sync unless all is durable already; concurrent calls share it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the device refused; the database is then poisoned, because a second sync
    /// could report success over lost data (Rebello et al., USENIX ATC 2020).
    pub fn flush(&self) -> Result<usize> {
        let before = self.durable_lsn();
        self.core.pages.flush().map_err(from_page_error)?;
        Ok(usize::try_from(self.durable_lsn() - before).unwrap_or(0))
    }

    /// As [`Tree::flush`], by a thread of its own that lives as long as that takes. What is returned may be
    /// dropped; the flush is made all the same, and the database counts as in use until then.
    ///
    /// # Errors
    ///
    /// The future's, as [`Tree::flush`].
    pub fn flush_async(&self) -> impl Future<Output = Result<usize>> + Send + 'static + use<> {
        Flushing::start(self)
    }

    /// Every entry, in key order; double-ended. Holds no lock and no guard: it sees each leaf as it
    /// is when the iterator arrives there.
    #[must_use]
    pub fn iter(&self) -> Iter {
        self.range::<&[u8], _>(..)
    }

    /// The entries with keys in `range`, in key order; double-ended. A range whose start lies beyond
    /// its end is empty.
    ///
    /// ```
    /// # let db = tree::Config::new().temporary(true).open()?;
    /// for key in ["a", "b", "c", "d"] { db.insert(key, key)?; }
    /// let keys: Result<Vec<_>, _> = db.range("b".."d").keys().collect();
    /// assert_eq!(keys?, ["b", "c"]);
    /// # Ok::<(), tree::Error>(())
    /// ```
    pub fn range<K, R>(&self, range: R) -> Iter
    where
        K: AsRef<[u8]>,
        R: RangeBounds<K>,
    {
        Iter::new(self.core.clone(), Range::new(range.start_bound(), range.end_bound()))
    }

    /// The entries whose keys begin with `prefix`, in key order; double-ended.
    pub fn scan_prefix<P: AsRef<[u8]>>(&self, prefix: P) -> Iter {
        Iter::new(self.core.clone(), Range::of_prefix(prefix.as_ref()))
    }

    /// The entry with the least key.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`].
    pub fn first(&self) -> Result<Option<(IVec, IVec)>> {
        self.iter().next().transpose()
    }

    /// The entry with the greatest key.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`].
    pub fn last(&self) -> Result<Option<(IVec, IVec)>> {
        self.iter().next_back().transpose()
    }

    /// Takes the entry with the least key away and returns it.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn pop_min(&self) -> Result<Option<(IVec, IVec)>> {
        self.pop(|tree| tree.first())
    }

    /// Takes the entry with the greatest key away and returns it.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn pop_max(&self) -> Result<Option<(IVec, IVec)>> {
        self.pop(|tree| tree.last())
    }

    fn pop(&self, end: impl Fn(&Tree) -> Result<Option<(IVec, IVec)>>) -> Result<Option<(IVec, IVec)>> {
        loop {
            let Some((key, value)) = end(self)? else { return Ok(None) };
            if self.compare_and_swap(&key, Some(&value), None::<IVec>)?.is_ok() {
                return Ok(Some((key, value)));
            }
        }
    }

    /// How many entries there are: visits every leaf. Zero if a leaf could not be read; see
    /// [`Tree::count`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.count().unwrap_or(0)
    }

    /// How many entries there are: visits every leaf.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`].
    pub fn count(&self) -> Result<usize> {
        let _timing = self.metrics.time(Call::Count);
        Ok(self.core.count()?)
    }

    /// True if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().keys().next().is_none()
    }

    /// Takes every entry away, one by one: others may see some gone and some not.
    ///
    /// # Errors
    ///
    /// As [`Tree::insert`].
    pub fn clear(&self) -> Result<()> {
        for key in self.iter().keys() {
            self.delete(key?)?;
        }
        Ok(())
    }

    /// The tree's name.
    #[must_use]
    pub fn name(&self) -> IVec {
        self.name.clone()
    }
}

impl IntoIterator for &Tree {
    type Item = Result<(IVec, IVec)>;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Error {
        match never {}
    }
}
