//! Large values: pages that are plain bytes in the `pages` file and never lie in page memory.
//!
//! ```text
//! Allocated ─write─► written ─sync─► durable bytes ─record at c─► adopted: a durable word, no chain
//! ```
//!
//! * VALUE-1: a value's frames are synced before the record that adopts it is reserved. The types
//!   say so: only [`Cache::sync_values`] turns a [`Written`] value into a [`NewValue`].
//! * VALUE-2: a value is adopted while the record's reservation is held: its durable word takes its
//!   place in the list of map changes before the watermark can pass the record, so every checkpoint
//!   that starts replay beyond the record has the value's entry, and the log stable up to it.
//! * VALUE-3: bytes that were written and never adopted were never named by anything, so they are free
//!   as soon as their owner lets go, without a checkpoint.
//!
//! The frames of a value count as live from being written on: the file is as long as they make it.
//! Freeing a value is a change of its page like any other. A frame that is moved may be cut where a segment
//! ends, so that values fill their segments whatever became of their neighbours; which frames move is
//! [`super::relocate`]'s business.

use std::{
    io::{self, Read},
    path::PathBuf,
    ptr,
    sync::Arc,
};

use super::Cache;
use crate::{
    error::Failure,
    format::{
        frame::{FRAME_HEADER_BYTES, FrameKind},
        value::{Extent, Extents, VALUE_BYTES_MAX},
    },
    ids::{FragmentAddr, Lsn, PageId, PageSeq},
    io::SyncReason,
    materializer::Materializer,
    page::{
        cell::{Claim, Head, Word},
        durable::{Durable, Form},
    },
    reclaim::pin,
    store::{Extent as PinnedExtent, Purpose, Stream, ValueFrames},
    sync::{AtomicBool, Ordering},
};

/// A value that is being written, or was and is not synced yet.
pub(crate) struct Written<'c, M: Materializer>(NewValue<'c, M>);

/// A value whose bytes are durable and named by nothing yet. Dropped before it is adopted, it gives its
/// bytes and its page back.
pub(crate) struct NewValue<'c, M: Materializer> {
    cache: &'c Cache<M>,
    pid: PageId,
    /// The number that the page has once it is adopted.
    seq: PageSeq,
    /// Nobody else moves or frees the frames.
    claim: Claim<'c, M::PageFrag>,
    extents: Arc<Extents>,
    adopted: AtomicBool,
}

impl<M: Materializer> NewValue<'_, M> {
    pub(crate) fn pid(&self) -> PageId {
        self.pid
    }

    pub(crate) fn seq(&self) -> PageSeq {
        self.seq
    }

    pub(crate) fn extents(&self) -> &Extents {
        &self.extents
    }

    /// Makes the page be the value, as of the record at `lsn`, whose reservation the caller holds
    /// (VALUE-2). Once.
    pub(crate) fn adopt(&self, lsn: Lsn) {
        let guard = pin();
        let cell = self.cache.pages.cell(self.pid).expect("an allocated page has a cell");
        let durable = Durable { seq: self.seq, form: Form::Value(self.extents.clone()) };
        {
            let mut changes = self.cache.changes.lock();
            let durable = self.cache.place_durable(cell, durable, &guard);
            changes.record(self.pid, &self.claim, durable, lsn, &guard);
            self.extents.addrs().for_each(|addr| self.cache.store.name(addr));
        }
        let (word, head) = cell.head(&guard);
        let is_new = matches!(head, Head::Allocated(seq) if seq + 1 == self.seq);
        assert!(is_new, "page {} was to become a value and is {word:?}", self.pid);
        assert!(cell.set(word, Word::evicted(self.seq), &guard), "nobody else knows page {}", self.pid);
        // Relaxed: read only by the drop, which happens after every other use.
        self.adopted.store(true, Ordering::Relaxed);
    }

    /// True once it was adopted.
    pub(crate) fn is_adopted(&self) -> bool {
        self.adopted.load(Ordering::Relaxed)
    }
}

impl<M: Materializer> Drop for NewValue<'_, M> {
    fn drop(&mut self) {
        if self.is_adopted() {
            return;
        }
        let store = &self.cache.store;
        self.extents.addrs().for_each(|addr| store.release_unnamed(addr));
        if let Some(first) = self.extents.addrs().map(|addr| addr.offset).min()
            && self.extents.bytes() >= store.segment_bytes()
        {
            // What this one made the file longer by; a failure poisons the store, or harms nothing.
            let _ = store.shrink_from(first);
        }
        let guard = pin();
        let Some(cell) = self.cache.pages.cell(self.pid) else { return };
        if let (word, Head::Allocated(seq)) = cell.head(&guard)
            && cell.set(word, Word::free(seq), &guard)
        {
            self.cache.pages.give_back(vec![self.pid], &guard);
        }
    }
}

impl<M: Materializer> Cache<M> {
    /// Writes a value of `bytes` from `source` into frames of its own; `between` is called between
    /// frames.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLarge`], a source that fails or ends early, or a file that cannot take it: all that
    /// was written is given back.
    pub(crate) fn write_value(
        &self,
        bytes: u64,
        source: &mut dyn Read,
        between: impl Fn(),
    ) -> Result<Written<'_, M>, Failure> {
        if bytes > VALUE_BYTES_MAX {
            let remedy = "split it: a value has at most 1 GiB";
            return Err(Failure::TooLarge { what: "value", bytes, limit: VALUE_BYTES_MAX, remedy });
        }
        let mut value = self.new_value()?;
        while let left @ 1.. = bytes - value.extents.bytes() {
            let payload = self.store.value_piece(left);
            let extent = self.write_extent(&value, payload, source)?;
            Arc::make_mut(&mut value.extents).0.push(extent);
            between();
        }
        Ok(Written(value))
    }

    fn new_value(&self) -> Result<NewValue<'_, M>, Failure> {
        let guard = pin();
        let pid = self.allocate(&guard)?;
        let cell = self.pages.cell(pid).expect("an allocated page has a cell");
        // The cleaner claims a page for a moment when it finds an old frame of it.
        let claim = loop {
            match cell.claim() {
                Some(claim) => break claim,
                None => std::thread::yield_now(),
            }
        };
        let Head::Allocated(seq) = cell.head(&guard).1 else {
            unreachable!("page {pid} was allocated just now");
        };
        let (extents, adopted) = (Arc::default(), AtomicBool::new(false));
        Ok(NewValue { cache: self, pid, seq: seq + 1, claim, extents, adopted })
    }

    /// Writes the next `payload` bytes of `source` as one frame, which counts as live from now on.
    fn write_extent(
        &self,
        value: &NewValue<'_, M>,
        payload: u64,
        source: &mut dyn Read,
    ) -> Result<Extent, Failure> {
        let _writing = self.budget.in_flight(payload as usize);
        let mut batch = self.store.batch(Purpose::Ordinary, Stream::Values);
        let mut filled = Ok(());
        let fill = |out: &mut [u8]| filled = source.read_exact(out);
        batch.push(value.pid as u64, value.seq, FrameKind::Value, payload as usize, fill)?;
        filled.map_err(|error| unreadable(value.extents.bytes(), error))?;
        let written = batch.finish()?;
        let frame = written.frames()[0];
        self.store.retain_unnamed(frame.addr)?;
        Ok(Extent { addr: frame.addr, crc: frame.crc })
    }

    /// Moves the frame of a value that lies at `addr`; returns the bytes that moved, none if it lies there
    /// no more or another thread has the page's claim.
    pub(super) fn move_extent(&self, pid: PageId, addr: FragmentAddr) -> Result<u64, Failure> {
        let Some(cell) = self.pages.cell(pid) else { return Ok(0) };
        if self.load(pid).is_err() {
            return Ok(0);
        }
        let Some(claim) = cell.claim() else { return Ok(0) };
        let lies_there = |durable: &&Durable| durable.parts().any(|part| part == addr);
        if cell.durable(&pin()).filter(lies_there).is_none() {
            return Ok(0);
        }
        // What is read, and what of it is being written.
        let _moving = self.budget.in_flight(2 * addr.len as usize);
        let frame = self.store.read(&self.store.pin(addr)?, pid as u64, None)?;
        let (mut rest, mut pieces, mut written) = (frame.payload(), Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.store.value_piece(rest.len() as u64) as usize);
            let mut batch = self.store.batch(Purpose::Ordinary, Stream::Values);
            batch
                .push(pid as u64, frame.seq(), FrameKind::Value, now.len(), |out| out.copy_from_slice(now))?;
            let piece = batch.finish()?;
            pieces.extend(piece.frames().iter().map(|frame| Extent { addr: frame.addr, crc: frame.crc }));
            written.push(piece);
            rest = later;
        }
        let guard = pin();
        // The claim has kept the durable form as it was.
        let Some((seq, extents)) = cell.durable(&guard).and_then(|now| Some((now.seq, now.value()?))) else {
            return Ok(0);
        };
        let mut extents = extents.as_ref().clone();
        if let Some(at) = extents.0.iter().position(|extent| extent.addr == addr) {
            extents.0.splice(at..=at, pieces);
        }
        let durable = Durable { seq, form: Form::Value(Arc::new(extents)) };
        let mut changes = self.changes.lock();
        self.account(cell, &durable, &guard)?;
        let durable = self.place_durable(cell, durable, &guard);
        changes.record(pid, &claim, durable, 0, &guard);
        Ok(u64::from(addr.len))
    }

    /// Makes the bytes of these values durable, with one sync for all (VALUE-1).
    pub(crate) fn sync_values<'c>(
        &'c self,
        written: Vec<Written<'c, M>>,
    ) -> Result<Vec<NewValue<'c, M>>, Failure> {
        if written.iter().any(|value| !value.0.extents.0.is_empty()) {
            self.store.make_durable(SyncReason::Values)?;
        }
        Ok(written.into_iter().map(|Written(value)| value).collect())
    }

    /// The frames of the value that page `pid` is since change `seq`, kept in their places. `None` if it
    /// is not that value any more.
    pub(crate) fn value_frames(&self, pid: PageId, seq: PageSeq) -> Result<Option<ValueFrames>, Failure> {
        let guard = pin();
        let Some(cell) = self.pages.cell(pid) else { return Ok(None) };
        self.load(pid)?;
        loop {
            let Some(durable) = cell.durable(&guard).filter(|durable| durable.seq == seq) else {
                return Ok(None);
            };
            let Some(extents) = durable.value() else { return Ok(None) };
            let pinned = extents
                .0
                .iter()
                .map(|extent| Ok(PinnedExtent { pin: self.store.pin(extent.addr)?, crc: extent.crc }));
            let pinned = pinned.collect::<Result<Vec<_>, Failure>>()?;
            // The segments cannot be used again from here on; they held the value if the word still
            // says so (STORE-4).
            if cell.durable(&guard).is_some_and(|now| ptr::eq(now, durable)) {
                return Ok(Some(self.store.value_frames(pid as u64, seq, pinned)));
            }
        }
    }
}

/// What the caller's own source said.
fn unreadable(offset: u64, error: io::Error) -> Failure {
    Failure::Io {
        doing: "reading the bytes of a value",
        path: PathBuf::from("the caller's source"),
        offset,
        source: Arc::new(error),
    }
}

const _: () = assert!(FRAME_HEADER_BYTES < 512, "a block has room for a frame's header and payload");
