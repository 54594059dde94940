//! The mapping table: one cell per page id, in an array that grows without moving or locking.
//!
//! Chunk `k` holds `256 << k` cells, so an id names its chunk by its highest bit and a few dozen chunk
//! pointers reach every id. An empty table has no chunk; large chunks are memory that the system gives
//! only where it is touched, on huge pages, because every read of the store begins with a cell.
//!
//! * TABLE-1: a chunk pointer goes from null to a chunk once and stays, so a cell's address is good for
//!   as long as the table.
//! * TABLE-2: who sees a chunk pointer sees its cells initialised.
//!
//! What a cell says is the business of who names `T`. Who may use which id is decided elsewhere.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    io,
    path::PathBuf,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

use crate::{
    error::Failure,
    ids::{PAGE_ID_LIMIT, PageId},
    mem::Mapping,
    sync::{AtomicPtr, AtomicUsize, Ordering},
};

/// A cell type for which zeroed memory is `T::default()`.
///
/// # Safety
///
/// All-zero bytes are a valid value, equal to `T::default()`. (In loom models, whose atomics are no
/// plain bytes, cells are made by `default()` instead.)
pub(crate) unsafe trait ZeroInit: Default + Send + Sync {}

/// First chunk's cells, as a power of two. Models need few cells, not many.
const FIRST_BITS: u32 = if cfg!(loom) { 1 } else { 8 };

/// Chunks that reach up to [`PAGE_ID_LIMIT`].
const CHUNKS: usize = (PAGE_ID_LIMIT.ilog2() - FIRST_BITS) as usize;

/// Ids that the chunks hold: the first chunk's cells short of [`PAGE_ID_LIMIT`].
const IDS: usize = PAGE_ID_LIMIT as usize - (1 << FIRST_BITS);

/// Chunks from this size on are mapped; smaller ones come from the allocator.
const MAPPED_FROM_BYTES: usize = 64 << 10;

/// A growable array of cells. Cells are shared: whatever changes in them is atomic.
pub(crate) struct Table<T: ZeroInit> {
    chunks: [AtomicPtr<T>; CHUNKS],
    /// One more than the largest id that was ever grown to.
    bound: AtomicUsize,
}

impl<T: ZeroInit> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table { chunks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())), bound: AtomicUsize::new(0) }
    }

    /// The cell of `pid`, or `None` if the table never grew so far.
    ///
    /// A cell in a chunk that another id brought in is there, and is still `T::default()`.
    #[inline(always)]
    pub(crate) fn get(&self, pid: PageId) -> Option<&T> {
        let (chunk, cell) = place(pid);
        // Acquire pairs with the Release in `install` (TABLE-2).
        let base = NonNull::new(self.chunks.get(chunk)?.load(Ordering::Acquire))?;
        // SAFETY: a chunk holds every cell that `place` names in it.
        let cell = unsafe { base.add(cell) };
        // SAFETY: it was initialised before we could see it (TABLE-2), and stays where it is while `self`
        // is borrowed (TABLE-1).
        Some(unsafe { cell.as_ref() })
    }

    /// The cell of `pid`; the table grows to hold it.
    ///
    /// # Errors
    ///
    /// If the id is beyond what a store can hold, or the system has no memory.
    pub(crate) fn get_or_grow(&self, pid: PageId) -> Result<&T, Failure> {
        if pid >= IDS {
            let what = format!(
                "page id {pid} is too large, a store holds {IDS} pages; free some, or use larger ones"
            );
            return Err(Failure::Unsupported { what });
        }
        if self.get(pid).is_none() {
            self.install(place(pid).0, Ordering::Release)?;
        }
        // Relaxed: the bound only grows, and tells a scan where untouched cells begin. A scan that must
        // see this id learns of it from whoever sees this call return.
        if self.bound.load(Ordering::Relaxed) <= pid {
            self.bound.fetch_max(pid + 1, Ordering::Relaxed);
        }
        Ok(self.get(pid).expect("the chunk was installed"))
    }

    /// Brings in every chunk that ids below `bound` lie in, without touching a cell.
    ///
    /// # Errors
    ///
    /// As [`Table::get_or_grow`].
    pub(crate) fn grow(&self, bound: PageId) -> Result<(), Failure> {
        let Some(last) = bound.checked_sub(1) else { return Ok(()) };
        for chunk in 0..=place(last.min(IDS)).0 {
            self.get_or_grow(first_id(chunk))?;
        }
        self.get_or_grow(last).map(|_| ())
    }

    /// One more than the largest id the table grew to.
    pub(crate) fn bound(&self) -> PageId {
        self.bound.load(Ordering::Relaxed)
    }

    /// Every cell below [`Table::bound`] as slices, each with the id of its first cell, in order.
    ///
    /// Ids that other threads grow to meanwhile may be missing. A chunk between others that nobody grew
    /// to is skipped.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (PageId, &[T])> {
        let bound = self.bound();
        (0..CHUNKS)
            .map_while(move |chunk| {
                let first = first_id(chunk);
                let cells = bound.checked_sub(first).filter(|cells| *cells > 0)?;
                Some((first, self.get(first).map(NonNull::from), cells.min(cells_in(chunk))))
            })
            .filter_map(|(first, base, cells)| {
                // SAFETY: the chunk is there, holds that many cells, and cells are only ever shared.
                Some((first, unsafe { slice::from_raw_parts(base?.as_ptr(), cells) }))
            })
    }

    /// Bytes of memory that the table occupies, if ids were used densely.
    pub(crate) fn memory_bytes(&self) -> usize {
        let least = if self.bound() == 0 { 0 } else { cells_in(0) };
        size_of::<Table<T>>() + self.bound().max(least) * size_of::<T>()
    }

    /// Brings a chunk in, or finds that another thread just did; the loser frees its own.
    ///
    /// `publish` is Release, to pair with the Acquire in `get` (TABLE-2); the model shows that less
    /// will not do.
    #[cold]
    fn install(&self, chunk: usize, publish: Ordering) -> Result<(), Failure> {
        let made = allocate::<T>(chunk)?;
        // Relaxed on failure: `get` loads the winner's pointer again, with Acquire.
        let lost = self.chunks[chunk]
            .compare_exchange(ptr::null_mut(), made.as_ptr(), publish, Ordering::Relaxed)
            .is_err();
        if lost {
            // SAFETY: made above for this chunk and shown to nobody.
            unsafe { free(chunk, made) };
        }
        Ok(())
    }
}

impl<T: ZeroInit> Drop for Table<T> {
    fn drop(&mut self) {
        for (chunk, base) in self.chunks.iter().enumerate() {
            if let Some(base) = NonNull::new(base.load(Ordering::Acquire)) {
                // SAFETY: installed for this chunk, and `&mut self` says that nobody has a cell.
                unsafe { free(chunk, base) };
            }
        }
    }
}

impl<T: ZeroInit> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("bound", &self.bound()).finish_non_exhaustive()
    }
}

/// Chunk and cell of an id. The chunk is out of range if the id is.
#[inline(always)]
fn place(pid: PageId) -> (usize, usize) {
    // With the first chunk's cells added, the highest bit says the chunk and the rest says the cell. Ids
    // that wrap have no such bit; they come out as a chunk beyond any.
    let shifted = pid.wrapping_add(1 << FIRST_BITS);
    let highest = (usize::BITS - 1).wrapping_sub(shifted.leading_zeros());
    let cell = shifted ^ 1usize.wrapping_shl(highest);
    (highest.wrapping_sub(FIRST_BITS) as usize, cell)
}

fn cells_in(chunk: usize) -> usize {
    1 << (chunk + FIRST_BITS as usize)
}

fn first_id(chunk: usize) -> PageId {
    cells_in(chunk) - cells_in(0)
}

/// Memory of a chunk in bytes; `None` if it exceeds the address space.
fn chunk_layout<T>(chunk: usize) -> Option<Layout> {
    Layout::array::<T>(cells_in(chunk)).ok()
}

fn is_mapped(layout: Layout) -> bool {
    layout.size() >= MAPPED_FROM_BYTES && !cfg!(any(miri, loom))
}

/// A chunk of default cells that is nobody else's yet.
fn allocate<T: ZeroInit>(chunk: usize) -> Result<NonNull<T>, Failure> {
    const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096) };
    let layout = chunk_layout::<T>(chunk);
    let base = layout.and_then(|layout| {
        if is_mapped(layout) {
            return Mapping::new(layout.size()).map(Mapping::into_raw);
        }
        // SAFETY: the layout is not empty, because cells are not.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    });
    let Some(base) = base else {
        let needed = layout.map_or(u64::MAX, |layout| layout.size() as u64);
        let reason = format!("the system has no {needed} bytes for the page table; free some memory");
        let source = Arc::new(io::Error::new(io::ErrorKind::OutOfMemory, reason));
        return Err(Failure::Io {
            doing: "growing the page table",
            path: PathBuf::from("(memory)"),
            offset: 0,
            source,
        });
    };
    let base = base.cast::<T>();
    if cfg!(loom) {
        for cell in 0..cells_in(chunk) {
            // SAFETY: the chunk is ours and as long as that.
            let cell = unsafe { base.add(cell) };
            // SAFETY: as above.
            unsafe { cell.write(T::default()) };
        }
    }
    Ok(base)
}

/// Drops the cells of a chunk and frees it.
///
/// # Safety
///
/// `base` is from [`allocate`] for the same chunk, and nobody has a reference into it or uses it again.
unsafe fn free<T: ZeroInit>(chunk: usize, base: NonNull<T>) {
    // Cells without a destructor are not visited: most of a large chunk may never have been touched.
    if std::mem::needs_drop::<T>() {
        // SAFETY: all cells are initialised and nobody has a reference to one.
        unsafe { NonNull::slice_from_raw_parts(base, cells_in(chunk)).drop_in_place() };
    }
    let layout = chunk_layout::<T>(chunk).expect("it was allocated with this layout");
    if is_mapped(layout) {
        // SAFETY: mapped with this length in `allocate`.
        drop(unsafe { Mapping::from_raw(base.cast(), layout.size()) });
    } else {
        // SAFETY: allocated with this layout in `allocate`.
        unsafe { dealloc(base.as_ptr().cast(), layout) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicU64, Ordering},
        },
        thread,
    };

    use super::{CHUNKS, IDS, Table, ZeroInit, cells_in, first_id, place};

    #[derive(Debug, Default)]
    struct Cell(AtomicU64);

    // SAFETY: zero bytes are an atomic zero, which is its default.
    unsafe impl ZeroInit for Cell {}

    #[test]
    fn chunks_hold_consecutive_ids_without_gap_or_overlap() {
        let mut next = 0;
        for chunk in 0..CHUNKS {
            assert_eq!(first_id(chunk), next);
            next += cells_in(chunk);
            assert_eq!(place(first_id(chunk)), (chunk, 0));
            assert_eq!(place(next - 1), (chunk, cells_in(chunk) - 1));
        }
        assert_eq!(next, IDS);
        for (at, pid) in (first_id(3)..first_id(5)).enumerate() {
            let want = if at < cells_in(3) { (3, at) } else { (4, at - cells_in(3)) };
            assert_eq!(place(pid), want);
        }
    }

    #[test]
    fn ids_out_of_range_have_no_cell() {
        let table = Table::<Cell>::new();
        table.get_or_grow(0).unwrap();
        for pid in [IDS, IDS + 1, 1 << 40, 1 << 63, usize::MAX - 256, usize::MAX - 255, usize::MAX] {
            assert!(table.get(pid).is_none(), "{pid}");
            let failure = table.get_or_grow(pid).unwrap_err().to_string();
            assert!(failure.contains(&format!("page id {pid} is too large")), "{failure}");
        }
        assert_eq!(table.bound(), 1);
    }

    #[test]
    fn a_cell_keeps_its_value_and_address_while_the_table_grows() {
        let table = Table::<Cell>::new();
        let cells: Vec<&Cell> = (0..100_000)
            .map(|pid| {
                let cell = table.get_or_grow(pid).unwrap();
                assert_eq!(cell.0.swap(pid as u64 + 1, Ordering::Relaxed), 0, "{pid} is not fresh");
                cell
            })
            .collect();
        for (pid, cell) in cells.iter().enumerate() {
            assert!(std::ptr::eq(*cell, table.get(pid).unwrap()), "{pid}");
            assert_eq!(cell.0.load(Ordering::Relaxed), pid as u64 + 1);
        }
    }

    #[test]
    fn a_scan_sees_every_cell_below_the_bound_once_and_in_order() {
        let table = Table::<Cell>::new();
        assert_eq!(table.chunks().count(), 0);
        for bound in [1, 255, 256, 257, 767, 768, 769, 5_000] {
            for pid in 0..bound {
                table.get_or_grow(pid).unwrap().0.store(pid as u64 + 7, Ordering::Relaxed);
            }
            let seen = table.chunks().flat_map(|(first, cells)| (first..).zip(cells));
            let mut next = 0;
            for (pid, cell) in seen {
                assert_eq!((pid, cell.0.load(Ordering::Relaxed)), (next, next as u64 + 7), "bound {bound}");
                next += 1;
            }
            assert_eq!(next, bound);
        }
    }

    #[test]
    fn a_scan_skips_chunks_that_nobody_grew_to() {
        let table = Table::<Cell>::new();
        table.get_or_grow(10_000).unwrap();
        let (first, cells) = table.chunks().next().unwrap();
        assert_eq!(first + cells.len(), 10_001);
        assert_eq!(table.chunks().count(), 1);
        assert!(table.get(0).is_none());
    }

    #[test]
    fn an_empty_table_is_small_and_a_far_id_costs_no_touched_memory() {
        let table = Table::<Cell>::new();
        assert!(table.memory_bytes() < 1024, "{}", table.memory_bytes());
        table.get_or_grow(0).unwrap();
        assert!(table.memory_bytes() < 4096, "{}", table.memory_bytes());
        if cfg!(target_os = "linux") && !cfg!(miri) {
            let before = resident_bytes();
            table.get_or_grow(100_000_000).unwrap().0.store(1, Ordering::Relaxed);
            let grown = resident_bytes().saturating_sub(before);
            assert!(grown < 100 << 20, "{grown} bytes became resident");
        }
    }

    fn resident_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn threads_that_grow_at_once_share_one_cell_per_id() {
        const THREADS: u64 = 4;
        for _ in 0..50 {
            let table = Table::<Cell>::new();
            let start = Barrier::new(THREADS as usize);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        start.wait();
                        for pid in (0..4_000).step_by(97) {
                            table.get_or_grow(pid).unwrap().0.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            for pid in (0..4_000).step_by(97) {
                assert_eq!(table.get(pid).unwrap().0.load(Ordering::Relaxed), THREADS, "{pid}");
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::{Table, ZeroInit};
    use crate::sync::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    struct Cell(AtomicU64);

    // SAFETY: models make cells by `default()`.
    unsafe impl ZeroInit for Cell {}

    /// Two threads grow to ids of one chunk while a third reads one of them.
    fn grow_and_read(publish: Ordering) {
        loom::model(move || {
            let table = Arc::new(Table::<Cell>::new());
            let growers: Vec<_> = (0..2)
                .map(|pid| {
                    let table = table.clone();
                    thread::spawn(move || {
                        if table.get(pid).is_none() {
                            table.install(0, publish).unwrap();
                        }
                        table.get(pid).unwrap().0.fetch_add(pid as u64 + 1, Ordering::Relaxed);
                    })
                })
                .collect();
            if let Some(cell) = table.get(1) {
                assert!([0, 2].contains(&cell.0.load(Ordering::Relaxed)), "a cell was not initialised");
            }
            for grower in growers {
                grower.join().unwrap();
            }
            let cells = [0, 1].map(|pid| table.get(pid).unwrap().0.load(Ordering::Relaxed));
            assert_eq!(cells, [1, 2], "a grower wrote to a chunk that was lost");
        });
    }

    #[test]
    fn loom_growers_share_one_chunk_and_readers_see_it_initialised() {
        grow_and_read(Ordering::Release);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_a_chunk_published_without_release_is_seen_uninitialised() {
        grow_and_read(Ordering::Relaxed);
    }
}
