//! The arena: where page buffers lie, and the way back from a buffer to its place.
//!
//! Memory comes from the system in *chunks*, 64 KiB while a store is small and later 2 MiB, aligned and
//! advised to be huge pages: a dependent read from one costs little more than half of one from small
//! pages. A chunk is cut into *runs* ([`super::runs`]), a run is the *slab* of one size class
//! ([`super::slabs`]), a slab is cut into *blocks*, and a block holds a [`Header`] and the bytes of one
//! buffer. What is larger than the largest class lies in an allocation of its own.
//!
//! * MEM-1: a block belongs to one buffer from [`Arena::take`] to [`Owner::give_back`].
//! * MEM-2: every slab and every large buffer keeps the arena alive through its [`Owner`], so buffers
//!   outlive the handle they were built with and the last one frees the arena.
//! * MEM-3: a freed block is filled with [`POISON`] where checks are on, and whoever gets it next, or
//!   releases its slab, finds it intact; anything else was a write after free.
//! * Lock order: class, then pool. Classes are only tried, never awaited, by who holds another one.
//!
//! Contention: all threads share stripe 0 until one finds a class locked and moves on to the next
//! stripe, so a lone thread never pays for many. Stripes belong to no thread: none is lost with one, and who
//! needs a slab goes where others have left a slab's worth of blocks.
//!
//! With the feature `malloc_pages`, and under Miri, every buffer is an allocation of its own.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::{Arc, OnceLock},
};

use crossbeam_utils::CachePadded;

use super::{
    MemoryStats,
    class::{CLASSES, PAGE_BYTES, SizeClass},
    mapping::Mapping,
    pool::Pool,
    runs::Run,
    slabs::{Released, Slabs, Taken},
};
use crate::sync::{AtomicU32, AtomicUsize, Mutex, MutexGuard, Ordering, set_stripe_hint, stripe_hint};

/// What freed bytes are overwritten with.
pub(super) const POISON: u8 = 0xDE;

/// Bytes between the start of a block and the buffer's bytes.
pub(super) const HEADER_BYTES: usize = size_of::<Header>().next_multiple_of(BLOCK_ALIGN);

const BLOCK_ALIGN: usize = 16;
const STRIPES: usize = 8;
/// Memory that a store has for each stripe, at least.
const STRIPE_FROM_BYTES: usize = 64 << 20;
/// Buffers from here on are mapped one by one, so that freeing one gives its memory back.
const MAPPED_FROM_BYTES: usize = 128 << 10;
const ALONE: bool = cfg!(any(feature = "malloc_pages", miri));

#[cfg(not(loom))]
const _: () = assert!(HEADER_BYTES == 16, "header and first data share a cache line");

/// What stands in front of a buffer's bytes.
#[repr(C)]
pub(super) struct Header {
    owner: NonNull<Owner>,
    /// Zero once the buffer was freed.
    pub(super) refs: AtomicU32,
    pub(super) len: u32,
}

/// Where a block came from. Never changes; lives as long as the slab or the large buffer.
pub(super) struct Owner {
    arena: Arc<Arena>,
    place: Place,
}

enum Place {
    Slab { stripe: u8, class: SizeClass, slot: u32, run: Run, base: NonNull<u8>, inverse: u32 },
    Alone { layout: Layout, mapped: bool },
}

/// The memory of one store.
pub(super) struct Arena {
    checked: bool,
    stripes: [OnceLock<Stripe>; STRIPES],
    /// Stripes that are used: each has part-filled slabs of its own, so a small store has few.
    stripes_max: AtomicUsize,
    pool: Mutex<Pool>,
    alone: Mutex<MemoryStats>,
    /// Bytes of runs that are slabs, and of buffers that lie alone: what cannot serve another class.
    held_bytes: AtomicUsize,
    /// See [`super::lent`].
    pub(super) lent_bytes: AtomicUsize,
    /// Bytes that nobody new can reach and the epoch has not freed yet.
    pub(super) retired_bytes: AtomicUsize,
}

/// The slabs of every class.
struct Stripe(Box<[CachePadded<Mutex<Slabs<SlabName>>>]>);

#[derive(Clone, Copy)]
struct SlabName(NonNull<Owner>);

// SAFETY: the name of an `Owner`, which is shared between threads; nothing is reached through it but
// shared references.
unsafe impl Send for SlabName {}

// SAFETY: `base` is only an address to compute with; the bytes there belong to buffers (MEM-1).
unsafe impl Send for Owner {}
// SAFETY: as above; everything else in it is `Sync`.
unsafe impl Sync for Owner {}

impl Arena {
    pub(super) fn new(checked: bool) -> Arc<Arena> {
        Arc::new(Arena {
            checked,
            stripes: [const { OnceLock::new() }; STRIPES],
            stripes_max: AtomicUsize::new(STRIPES),
            pool: Mutex::new(Pool::new()),
            alone: Mutex::new(MemoryStats::default()),
            held_bytes: AtomicUsize::new(0),
            lent_bytes: AtomicUsize::new(0),
            retired_bytes: AtomicUsize::new(0),
        })
    }

    /// A block for `len` bytes, its header written with one reference.
    ///
    /// Aborts the process if the system has no memory, as every allocation in Rust does.
    pub(super) fn take(self: &Arc<Arena>, len: u32) -> NonNull<Header> {
        let bytes = HEADER_BYTES + len as usize;
        let (owner, block) = match SizeClass::holding(bytes) {
            Some(class) if !ALONE => self.take_block(class),
            _ => self.take_alone(bytes),
        };
        let header = block.cast::<Header>();
        // SAFETY: the block is at least `bytes` long, aligned for a header, and ours alone (MEM-1).
        unsafe { header.write(Header { owner, refs: AtomicU32::new(1), len }) };
        header
    }

    /// Says how much memory the store may take, so that it is not cut too finely.
    pub(super) fn expect_at_most(&self, bytes: usize) {
        let stripes = (bytes / STRIPE_FROM_BYTES).clamp(1, STRIPES);
        self.stripes_max.store(stripes, Ordering::Relaxed);
        self.pool.lock().expect_at_most(bytes);
    }

    /// Releases memory that no buffer uses.
    pub(super) fn trim(&self) {
        for slabs in self.classes() {
            let released = slabs.lock().trim();
            released.into_iter().for_each(|slab| self.release(slab));
        }
        self.pool.lock().keep_empty(0);
    }

    /// From now on keeps nothing for later buffers.
    pub(super) fn close(&self) {
        for slabs in self.classes() {
            let released = slabs.lock().close();
            released.into_iter().for_each(|slab| self.release(slab));
        }
    }

    pub(super) fn stats(&self) -> MemoryStats {
        let mut stats = *self.alone.lock();
        for stripe in self.stripes.iter().filter_map(OnceLock::get) {
            for class in SizeClass::all() {
                let blocks = stripe.0[class.index()].lock().used_blocks();
                stats.buffers += blocks;
                stats.in_use_bytes += blocks * class.block_bytes();
            }
        }
        stats.reserved_bytes += self.pool.lock().bytes();
        stats.held_bytes = self.held_bytes();
        stats.retired_bytes = self.retired_bytes.load(Ordering::Relaxed);
        stats
    }

    /// Bytes that buffers of some class, or single ones, have taken for themselves.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        // Relaxed: a sum that nobody orders anything by.
        self.held_bytes.load(Ordering::Relaxed)
    }

    fn classes(&self) -> impl Iterator<Item = &Mutex<Slabs<SlabName>>> {
        let stripes = self.stripes.iter().filter_map(OnceLock::get);
        stripes.flat_map(|stripe| stripe.0.iter().map(|class| &**class))
    }

    fn stripe(&self, number: usize) -> &Stripe {
        self.stripes[number].get_or_init(|| {
            Stripe((0..CLASSES).map(|_| CachePadded::new(Mutex::new(Slabs::new()))).collect())
        })
    }

    #[inline]
    fn take_block(self: &Arc<Arena>, class: SizeClass) -> (NonNull<Owner>, NonNull<u8>) {
        let (stripe, mut slabs) = self.lock_some(class);
        let taken = slabs.take();
        let taken = taken.or_else(|| self.take_elsewhere(stripe, class, &slabs));
        let taken = taken.unwrap_or_else(|| self.add_slab(stripe, class, &mut slabs));
        drop(slabs);
        let Taken { slab: SlabName(name), block, recycled } = taken;
        // SAFETY: a slab lives while one of its blocks is out, and this one is.
        let owner = unsafe { name.as_ref() };
        let start = owner.block(block);
        if recycled && self.checked {
            // SAFETY: a block of this class starts here and nobody else has it (MEM-1).
            unsafe { check_poison(start, class.block_bytes()) };
        }
        (name, start)
    }

    /// Locks the class in a stripe where nobody holds it, this thread's last one if it may be.
    #[inline]
    fn lock_some(&self, class: SizeClass) -> (u8, MutexGuard<'_, Slabs<SlabName>>) {
        // Relaxed: set before the store is used.
        let stripes = self.stripes_max.load(Ordering::Relaxed);
        let home = stripe_hint();
        for number in (home..home + stripes).map(|number| number % stripes) {
            if let Some(slabs) = self.stripe(number).0[class.index()].try_lock() {
                if number != home {
                    set_stripe_hint(number);
                }
                return (number as u8, slabs);
            }
        }
        let last = home % stripes;
        (last as u8, self.stripe(last).0[class.index()].lock())
    }

    /// A block of another stripe, where that has as many as a new slab would: what its threads took, others
    /// gave back. This thread goes on there.
    #[cold]
    fn take_elsewhere(
        &self,
        stripe: u8,
        class: SizeClass,
        slabs: &Slabs<SlabName>,
    ) -> Option<Taken<SlabName>> {
        let enough = class.run_pages(slabs.slabs()) * PAGE_BYTES / class.block_bytes();
        let others = self.stripes.iter().enumerate().filter(|(number, _)| *number != usize::from(stripe));
        others.filter_map(|(number, other)| Some((number, other.get()?))).find_map(|(number, other)| {
            let mut slabs = other.0[class.index()].try_lock()?;
            let taken = if slabs.free_blocks() >= enough { slabs.take() } else { None };
            taken.inspect(|_| set_stripe_hint(number))
        })
    }

    #[cold]
    fn add_slab(
        self: &Arc<Arena>,
        stripe: u8,
        class: SizeClass,
        slabs: &mut Slabs<SlabName>,
    ) -> Taken<SlabName> {
        let (run, base) = self.take_run(class.run_pages(slabs.slabs()));
        let block_bytes = class.block_bytes();
        let capacity = usize::from(run.pages) * PAGE_BYTES / block_bytes;
        let inverse = inverse_of(block_bytes);
        slabs.add(capacity as u16, |slot| {
            let place = Place::Slab { stripe, class, slot, run, base, inverse };
            SlabName(NonNull::from(Box::leak(Box::new(Owner { arena: self.clone(), place }))))
        });
        slabs.take().expect("the slab just added has room")
    }

    fn take_run(&self, pages: usize) -> (Run, NonNull<u8>) {
        self.held_bytes.fetch_add(pages * PAGE_BYTES, Ordering::Relaxed);
        if let Some(found) = self.pool.lock().take(pages) {
            return found;
        }
        // Kept slabs of other classes come first, before the store grows.
        for slabs in self.classes() {
            let released = slabs.try_lock().map(|mut slabs| slabs.trim()).unwrap_or_default();
            released.into_iter().for_each(|slab| self.release(slab));
        }
        self.pool.lock().take_or_grow(pages)
    }

    /// Gives the pages of a slab back. The caller took it out of its class.
    fn release(&self, released: Released<SlabName>) {
        let Released { slab: SlabName(name), fresh } = released;
        // SAFETY: made by `Box::leak` in `add_slab`; its class has forgotten it and no block of it is
        // out, so this is the last use of the name.
        let owner = unsafe { Box::from_raw(name.as_ptr()) };
        let Place::Slab { class, run, .. } = owner.place else { unreachable!("a class holds slabs only") };
        if self.checked {
            for block in 0..fresh {
                // SAFETY: every block of the slab is free and the slab is ours alone.
                unsafe { check_poison(owner.block(block), class.block_bytes()) };
            }
        }
        self.held_bytes.fetch_sub(usize::from(run.pages) * PAGE_BYTES, Ordering::Relaxed);
        self.pool.lock().give(run);
    }

    #[cold]
    fn take_alone(self: &Arc<Arena>, bytes: usize) -> (NonNull<Owner>, NonNull<u8>) {
        let bytes = if ALONE { bytes } else { bytes.next_multiple_of(PAGE_BYTES) };
        let layout = Layout::from_size_align(bytes, BLOCK_ALIGN).expect("a length of 32 bits");
        let mapping = if ALONE || bytes < MAPPED_FROM_BYTES { None } else { Mapping::new(bytes) };
        let mapped = mapping.is_some();
        let block = mapping.map_or_else(
            || {
                // SAFETY: the layout is not empty, it holds a header.
                NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
            },
            Mapping::into_raw,
        );
        let owner = Owner { arena: self.clone(), place: Place::Alone { layout, mapped } };
        self.held_bytes.fetch_add(layout.size(), Ordering::Relaxed);
        let mut alone = self.alone.lock();
        alone.buffers += 1;
        alone.in_use_bytes += layout.size();
        alone.reserved_bytes += layout.size();
        (NonNull::from(Box::leak(Box::new(owner))), block)
    }
}

impl Header {
    /// The arena that the block came from.
    pub(super) fn arena(&self) -> &Arena {
        // SAFETY: the owner lives while its block is out (MEM-2), and `self` is in that block.
        &unsafe { self.owner.as_ref() }.arena
    }

    /// Bytes that the buffer occupies, header and slack included.
    pub(super) fn charged_bytes(&self) -> usize {
        // SAFETY: the owner lives while its block is out (MEM-2), and `self` is in that block.
        match unsafe { self.owner.as_ref() }.place {
            Place::Slab { class, .. } => class.block_bytes(),
            Place::Alone { layout, .. } => layout.size(),
        }
    }
}

impl Owner {
    /// Frees a buffer's block.
    ///
    /// # Safety
    ///
    /// `header` is of a buffer from [`Arena::take`] whose last reference is gone; nobody uses it again.
    pub(super) unsafe fn give_back(header: NonNull<Header>) {
        // SAFETY: the block is out until this function frees it, so its header is there.
        let name = unsafe { header.as_ref() }.owner;
        // SAFETY: the owner lives while its block is out (MEM-2).
        let owner = unsafe { name.as_ref() };
        let start = header.cast::<u8>();
        match owner.place {
            Place::Slab { stripe, class, slot, .. } => {
                if owner.arena.checked {
                    let bytes = class.block_bytes() - HEADER_BYTES;
                    // SAFETY: every block is at least as long as its header.
                    let rest = unsafe { start.add(HEADER_BYTES) };
                    // SAFETY: the block is this long and still ours (MEM-1).
                    unsafe { rest.write_bytes(POISON, bytes) };
                }
                let (arena, block) = (&owner.arena, owner.number_of(start));
                let released = arena.stripe(usize::from(stripe)).0[class.index()].lock().give(slot, block);
                // From here on another thread may free the slab's last block, release the slab and with
                // it the arena; unless the slab came out, which makes it ours. (The unlock itself is
                // safe: it does not touch the lock after the store that opens it.)
                if let Some(released) = released {
                    arena.clone().release(released);
                }
            }
            Place::Alone { layout, mapped } => {
                if mapped {
                    // SAFETY: mapped with this length in `take_alone`, and freed once.
                    drop(unsafe { Mapping::from_raw(start, layout.size()) });
                } else {
                    // SAFETY: allocated with this layout in `take_alone`, and freed once.
                    unsafe { dealloc(start.as_ptr(), layout) };
                }
                // SAFETY: leaked in `take_alone` for this one block, which is gone.
                let owner = unsafe { Box::from_raw(name.as_ptr()) };
                owner.arena.held_bytes.fetch_sub(layout.size(), Ordering::Relaxed);
                let mut alone = owner.arena.alone.lock();
                alone.buffers -= 1;
                alone.in_use_bytes -= layout.size();
                alone.reserved_bytes -= layout.size();
            }
        }
    }

    /// Where a block of this slab starts.
    #[inline]
    fn block(&self, number: u16) -> NonNull<u8> {
        let Place::Slab { class, base, .. } = self.place else { unreachable!("only slabs have blocks") };
        // SAFETY: the number is below the slab's capacity, so the block lies in its run.
        unsafe { base.add(usize::from(number) * class.block_bytes()) }
    }

    #[inline]
    fn number_of(&self, block: NonNull<u8>) -> u16 {
        let Place::Slab { base, inverse, .. } = self.place else { unreachable!("only slabs have blocks") };
        let units = (block.as_ptr().addr() - base.as_ptr().addr()) / BLOCK_ALIGN;
        ((units as u64 * u64::from(inverse)) >> 32) as u16
    }
}

/// Multiplier that divides a block's distance from its slab's start, in units of the alignment, by the
/// block size: exact for the at most 4096 units of a run, and a third of a division's time.
fn inverse_of(block_bytes: usize) -> u32 {
    ((1u64 << 32).div_ceil((block_bytes / BLOCK_ALIGN) as u64)) as u32
}

/// Panics if a freed block was written to.
///
/// # Safety
///
/// A free block of `bytes` starts at `block`, it was in use before, and nobody else has it.
unsafe fn check_poison(block: NonNull<u8>, bytes: usize) {
    // SAFETY: every block is at least as long as its header.
    let rest = NonNull::slice_from_raw_parts(unsafe { block.add(HEADER_BYTES) }, bytes - HEADER_BYTES);
    // SAFETY: `give_back` initialised all bytes after the header; the caller has them alone.
    let rest = unsafe { rest.as_ref() };
    if let Some(at) = rest.iter().position(|byte| *byte != POISON) {
        panic!(
            "page memory was written after it was freed: byte {at} of a buffer in a block of {bytes} bytes"
        );
    }
}
