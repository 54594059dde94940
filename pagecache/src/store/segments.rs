//! Which segment holds how many live bytes, and when one may be written over.
//!
//! ```text
//! Free --take--> Active --seal--> Sealed --last live byte released--> Dead --published--> Free
//! ```
//!
//! * STORE-1: a segment is handed out only while no live byte lies in it, no superblock that a
//!   crash could bring back refers to it, and nobody reads it.
//! * STORE-2: a byte released before [`Segments::mark`] is absent from the checkpoint whose prefix
//!   is fixed after it; so a dead segment is free once a checkpoint marked after its last release
//!   is [`Segments::published`]. One emptied later waits for the next. Bytes of a value that nothing has named
//!   yet are in no checkpoint, and are released without a mark (VALUE-3).
//! * STORE-3: a frame just written has no owner yet; a [`Hold`] keeps its segment from dying until
//!   its owner has retained it or given it up.
//! * STORE-4: a reader counts itself with [`Segments::pin`], then looks at the page's word again:
//!   if that still names the address, the release comes after the pin.
//! * A count that would fall below zero marks its segment as miscounted: it is never handed out
//!   again, and the next open counts afresh.
//!
//! One mutex around the [`Table`], the innermost: nothing is called and nothing waits under it. It is
//! taken for cold reads and for writes, next to which it costs nothing.

use std::{ops::Range, path::PathBuf, sync::Arc};

use crate::{
    error::{DecodeError, Failure},
    ids::FragmentAddr,
    store::{
        layout::Layout,
        stats::StoreStats,
        table::{Choice, Segment, State, Table},
    },
    sync::Mutex,
};

/// A moment in the order of releases: what was released before it, a checkpoint fixed after it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// A segment as the cleaner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedSegment {
    pub(crate) segment: u32,
    pub(crate) live_bytes: u64,
    /// How many checkpoints were begun since it was sealed: its age.
    pub(crate) age: u64,
}

fn as_sealed(now: u64) -> impl Fn((u32, &Segment)) -> SealedSegment {
    move |(segment, found)| SealedSegment {
        segment,
        live_bytes: found.live_bytes,
        age: now - found.sealed_at,
    }
}

/// The segments of one `pages` file.
#[derive(Debug)]
pub(crate) struct Segments {
    layout: Layout,
    path: PathBuf,
    /// Free written segments that only a checkpoint may take.
    reserve: usize,
    table: Mutex<Table>,
}

impl Segments {
    /// Counts the frames that an open store refers to. `file_bytes` is the file's length.
    ///
    /// Segments that nobody refers to are dead, not free: the other superblock may still do so.
    /// They are free after the first publication, marked and published like any other.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] naming an address where no frame can lie, or past the file's end.
    #[cfg(test)]
    pub(crate) fn rebuild(
        layout: Layout,
        path: PathBuf,
        reserve: usize,
        live: impl IntoIterator<Item = FragmentAddr>,
        file_bytes: u64,
    ) -> Result<Segments, Failure> {
        let segments = Segments::rebuild_counted(layout, path, reserve, &[], file_bytes)?;
        for addr in live {
            if addr.offset.saturating_add(u64::from(addr.len)) > file_bytes {
                return Err(
                    segments.corrupt(addr.offset, &format!("the file ends at {file_bytes}, inside a frame"))
                );
            }
            segments.retain(addr)?;
        }
        Ok(segments)
    }

    /// As [`Segments::rebuild`], from the (segment, live bytes) that the directory lists.
    pub(crate) fn rebuild_counted(
        layout: Layout,
        path: PathBuf,
        reserve: usize,
        counts: &[(u32, u32)],
        file_bytes: u64,
    ) -> Result<Segments, Failure> {
        let len = layout.segments_in(file_bytes);
        let table = Table::reopened(len, layout.segment_bytes());
        let segments = Segments { layout, path, reserve, table: Mutex::new(table) };
        let mut table = segments.table.lock();
        for (segment, live_bytes) in counts {
            let live_bytes = u64::from(*live_bytes);
            if *segment >= len || live_bytes > layout.segment_bytes() {
                let found = format!("segment {segment} cannot hold the {live_bytes} live bytes on record");
                return Err(segments.corrupt(layout.segment_start(*segment), &found));
            }
            table.retain(*segment, live_bytes);
        }
        drop(table);
        Ok(segments)
    }

    fn corrupt(&self, offset: u64, found: &str) -> Failure {
        Failure::Corrupt { found: found.to_owned(), path: self.path.clone(), offset }
    }

    /// The segments of an address, all of which exist.
    fn known(&self, table: &Table, addr: FragmentAddr) -> Result<Range<u32>, Failure> {
        let touched = self.layout.segments_of(addr).and_then(|touched| match table.len() {
            len if touched.end as usize <= len => Ok(touched),
            len => Err(DecodeError(format!("a frame in segment {}, there are {len}", touched.start))),
        });
        touched.map_err(|e| self.corrupt(addr.offset, &e.0))
    }

    /// Counts the frame as live: a page's durable word, a map entry or a record refers to it now.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] if no frame can lie there.
    pub(crate) fn retain(&self, addr: FragmentAddr) -> Result<(), Failure> {
        let mut table = self.table.lock();
        for segment in self.known(&table, addr)? {
            table.retain(segment, self.layout.bytes_in(addr, segment));
        }
        Ok(())
    }

    /// Counts the frame as superseded. Call it after the change that superseded it has its place in
    /// the list of map changes.
    pub(crate) fn release(&self, addr: FragmentAddr) {
        let mut table = self.table.lock();
        let now = table.now;
        self.release_at(&mut table, addr, now);
    }

    /// Counts the frame as superseded by the checkpoint of `mark` itself, as its older map pages
    /// and directory are: it may go when that one is published.
    pub(crate) fn release_under(&self, addr: FragmentAddr, mark: Mark) {
        let mut table = self.table.lock();
        self.release_at(&mut table, addr, mark.0);
    }

    /// Counts a frame as gone that no superblock or valid record has ever referred to: it need not wait
    /// for a checkpoint.
    pub(crate) fn release_unnamed(&self, addr: FragmentAddr) {
        self.name(addr);
        self.release_at(&mut self.table.lock(), addr, 0);
    }

    /// As [`Segments::retain`], for a frame that nothing names yet: [`Segments::name`] or
    /// [`Segments::release_unnamed`] follows.
    pub(crate) fn retain_unnamed(&self, addr: FragmentAddr) -> Result<(), Failure> {
        let mut table = self.table.lock();
        for segment in self.known(&table, addr)? {
            let bytes = self.layout.bytes_in(addr, segment);
            table.retain(segment, bytes);
            table.change(segment, |found| found.unnamed_bytes += bytes);
        }
        Ok(())
    }

    /// A page is named by the list of map changes from now on that lies in the frame; the list's lock is
    /// held.
    pub(crate) fn name(&self, addr: FragmentAddr) {
        let mut table = self.table.lock();
        let Ok(touched) = self.known(&table, addr) else { return };
        for segment in touched {
            let bytes = self.layout.bytes_in(addr, segment);
            table.change(segment, |found| found.unnamed_bytes = found.unnamed_bytes.saturating_sub(bytes));
        }
    }

    fn release_at(&self, table: &mut Table, addr: FragmentAddr, released: u64) {
        let Ok(touched) = self.known(table, addr) else { return };
        for segment in touched {
            table.release(segment, self.layout.bytes_in(addr, segment), released);
        }
    }

    /// A mark for the checkpoint whose prefix is fixed **next**: take it before, or under the same
    /// lock, so that everything released earlier is in the prefix.
    pub(crate) fn mark(&self) -> Mark {
        let mut table = self.table.lock();
        let mark = Mark(table.now);
        table.now += 1;
        mark
    }

    /// The checkpoint of `mark` is in both superblocks, durably. Dead segments that it no longer
    /// refers to are free.
    pub(crate) fn published(&self, mark: Mark) {
        self.table.lock().publish(mark.0);
    }

    /// Keeps the frame's bytes in place while they are read.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] if no frame can lie there.
    pub(crate) fn pin(self: &Arc<Segments>, addr: FragmentAddr) -> Result<Pin, Failure> {
        let mut table = self.table.lock();
        let touched = self.known(&table, addr)?;
        for segment in touched.clone() {
            table.change(segment, |found| found.readers += 1);
        }
        Ok(Pin { segments: self.clone(), touched, addr })
    }

    /// Segments with live bytes that are named, ascending, and how many: what a directory lists. Call it
    /// under the lock that orders map changes, or the counts belong to no prefix.
    pub(crate) fn live_table(&self) -> Vec<(u32, u32)> {
        let table = self.table.lock();
        let named = |segment: &Segment| segment.live_bytes.saturating_sub(segment.unnamed_bytes);
        let listed = table.all().map(|(number, segment)| (number, named(segment)));
        listed
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(number, bytes)| (number, u32::try_from(bytes).unwrap_or(u32::MAX)))
            .collect()
    }

    /// Bytes of frames that something refers to.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.table.lock().live_bytes
    }

    /// Free segments within a file of `file_bytes`, and those that the next publication frees.
    pub(crate) fn free_and_waiting(&self, file_bytes: u64) -> (u64, u64) {
        let table = self.table.lock();
        (table.free_below(self.layout.segments_in(file_bytes)) as u64, table.waiting() as u64)
    }

    /// Says that a segment was emptied as far as it could be, and whether the next publication frees
    /// the rest: it is not tried again before something in it has changed.
    pub(crate) fn set_emptied(&self, segment: u32, waits: bool) {
        self.table.lock().change(segment, |found| {
            found.left = Some(found.live_bytes);
            found.waits |= waits;
        });
    }

    /// Segments that could be cleaned, from `first` on: the last `count` of them, the last one first.
    pub(crate) fn last_sealed(&self, first: u32, count: usize) -> Vec<SealedSegment> {
        let table = self.table.lock();
        table.last_open(first).take(count).map(as_sealed(table.now)).collect()
    }

    /// Segments that could be cleaned: of those in which about as much is alive, the `count` oldest.
    pub(crate) fn oldest_sealed(&self, count: usize) -> Vec<SealedSegment> {
        let table = self.table.lock();
        table.oldest_open(count).map(as_sealed(table.now)).collect()
    }

    /// Live bytes and segments by state, for a file of `file_bytes`.
    pub(crate) fn stats(&self, file_bytes: u64) -> StoreStats {
        let table = self.table.lock();
        let mut stats = StoreStats { file_bytes, ..StoreStats::default() };
        let in_file = self.layout.segments_in(file_bytes) as usize;
        for (number, segment) in table.all() {
            stats.live_bytes += segment.live_bytes;
            stats.miscounted += u64::from(segment.miscounted);
            *match segment.state {
                State::Free if number as usize >= in_file => continue,
                State::Free => &mut stats.free,
                State::Active => &mut stats.active,
                State::Sealed => &mut stats.sealed,
                State::Dead => &mut stats.dead,
            } += 1;
        }
        stats
    }

    /// Takes the lowest `count` neighbouring segments that `choice` allows, to write frames into.
    pub(crate) fn take(&self, count: u32, choice: Choice) -> Option<Taken> {
        let mut table = self.table.lock();
        let first = table.find(count, choice, self.reserve)?;
        let end = first.checked_add(count)?;
        let written = table.activate(first..end);
        Some(Taken { first, count, written })
    }

    /// Takes the segment that the file ends in, if it has live bytes and room, and says where its
    /// first block past the end starts: nothing can refer to what the file never held.
    pub(crate) fn resume(&self, file_bytes: u64) -> Option<(u32, u64)> {
        let mut table = self.table.lock();
        let segment = self.layout.segments_in(file_bytes).checked_sub(1)?;
        let used = self.layout.block_up(file_bytes - self.layout.segment_start(segment));
        // Beyond the list lies what was written while the store was being opened to be compared.
        let is_sealed = table.get(segment).is_some_and(|found| found.state == State::Sealed);
        if used == self.layout.segment_bytes() || !is_sealed {
            return None;
        }
        table.change(segment, |found| found.state = State::Active);
        Some((segment, used))
    }

    /// Gives back what was taken and holds nothing that anybody knows of.
    pub(crate) fn put_back(&self, taken: Taken) {
        let mut table = self.table.lock();
        for segment in taken.first..taken.first + taken.count {
            table.change(segment, |found| found.state = State::Free);
        }
    }

    /// Keeps the segments of a frame just written from dying.
    pub(crate) fn hold(self: &Arc<Segments>, addr: FragmentAddr) -> Result<Hold, Failure> {
        let mut table = self.table.lock();
        let touched = self.known(&table, addr)?;
        for segment in touched.clone() {
            table.change(segment, |found| found.holds += 1);
        }
        Ok(Hold { segments: self.clone(), touched })
    }

    /// Nothing more will be appended to the segment; `written` says that it was filled to its end.
    pub(crate) fn seal(&self, segment: u32, written: bool) {
        let mut table = self.table.lock();
        let now = table.now;
        table.change(segment, |found| {
            (found.state, found.sealed_at) = (State::Sealed, now);
            found.written |= written;
        });
        table.settle(segment);
    }

    /// How many more free written segments the reserve needs.
    pub(crate) fn reserve_missing(&self) -> usize {
        self.reserve.saturating_sub(self.table.lock().written_free().len())
    }

    /// Says that a free segment taken for the reserve was written whole, and gives it back.
    pub(crate) fn put_into_reserve(&self, taken: Taken) {
        {
            let mut table = self.table.lock();
            for segment in taken.first..taken.first + taken.count {
                table.change(segment, |found| found.written = true);
            }
        }
        self.put_back(taken);
    }

    /// How many segments the file must keep: all up to the last that is not free, and the reserve.
    /// Those behind are forgotten as written. The caller cuts the file before it takes another.
    pub(crate) fn cut(&self) -> u32 {
        let mut table = self.table.lock();
        let kept = table.written_free().iter().take(self.reserve).fold(None, |_, last| Some(*last));
        let used_end = table.used_end();
        let end = kept.map_or(used_end, |last| used_end.max(last + 1));
        let behind: Vec<u32> = table.written_free().range(end..).copied().collect();
        for segment in behind {
            table.change(segment, |found| found.written = false);
        }
        end
    }

    /// Says that a part of an active segment is cut off the file: writing it needs new space again.
    pub(crate) fn forget_written(&self, segment: u32) {
        self.table.lock().change(segment, |found| found.written = false);
    }

    fn unpin(&self, touched: Range<u32>) {
        let mut table = self.table.lock();
        for segment in touched {
            table.change(segment, |found| found.readers -= 1);
            table.settle(segment);
        }
    }

    fn unhold(&self, touched: Range<u32>) {
        let mut table = self.table.lock();
        for segment in touched {
            table.change(segment, |found| found.holds -= 1);
            table.settle(segment);
        }
    }
}

/// Segments handed out to be written.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "segments that are taken are to be sealed or put back"]
pub(crate) struct Taken {
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Writing them needs no new space.
    pub(crate) written: bool,
}

/// Keeps the bytes of one frame in place while they are read.
#[derive(Debug)]
pub(crate) struct Pin {
    segments: Arc<Segments>,
    touched: Range<u32>,
    addr: FragmentAddr,
}

impl Pin {
    /// The frame's address.
    pub(crate) fn addr(&self) -> FragmentAddr {
        self.addr
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.segments.unpin(self.touched.clone());
    }
}

/// Keeps the segments of a frame that has no owner yet.
#[derive(Debug)]
pub(crate) struct Hold {
    segments: Arc<Segments>,
    touched: Range<u32>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.segments.unhold(self.touched.clone());
    }
}

#[cfg(test)]
#[path = "segments_tests.rs"]
mod tests;

#[cfg(all(test, not(loom)))]
#[path = "segments_models.rs"]
mod models;
