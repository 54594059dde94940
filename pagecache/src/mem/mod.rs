//! Page memory: where pages lie while they are in memory, and counted buffers of it.
//!
//! A store has one [`PageMemory`]; it hands out [`PageBuf`]s, which are filled once and then shared.
//! They lie densely in chunks of up to 2 MiB on huge pages, so that a read that misses the cache does
//! not miss the processor's address tables as well.
//!
//! * Every byte is accounted: a buffer is charged what it occupies, and [`PageMemory::stats`] is back
//!   at zero when the last one is gone.
//! * Buffers outlive the handles they were built with.
//!
//! [`arena`] carves and frees, [`buf`] counts, [`placed`] puts single values there,
//! [`lent`] lends; [`class`], [`runs`] and [`slabs`] are their arithmetic,
//! and hold no pointers. How much memory a store may use is the cache's business.

mod arena;
mod buf;
mod class;
mod lent;
mod mapping;
mod placed;
mod pool;
mod prefetch;
mod runs;
mod slabs;

use std::{convert::Infallible, fmt, sync::Arc};

use arena::Arena;
pub use buf::PageBuf;
pub use lent::Lent;
pub(crate) use mapping::Mapping;
pub(crate) use placed::Placed;
pub use prefetch::{prefetch, prefetch_read};

use crate::sync::Ordering;

/// The page memory of one store. A handle; cloning it is cheap and gives the same memory.
#[derive(Clone)]
pub struct PageMemory(Arc<Handle>);

/// Closes the arena when the last handle goes.
struct Handle(Arc<Arena>);

/// What page memory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes that live buffers are charged.
    pub in_use_bytes: usize,
    /// Bytes taken from the system.
    pub reserved_bytes: usize,
    /// Bytes of `reserved_bytes` that are bound: cut into buffers of one size, used or not.
    pub held_bytes: usize,
    /// Bytes of `in_use_bytes` that wait for the last reader who may still see them.
    pub retired_bytes: usize,
    /// Live buffers.
    pub buffers: usize,
}

impl PageMemory {
    /// Memory for one store. Takes nothing from the system before the first buffer, then 64 KiB.
    ///
    /// Builds with debug assertions check freed memory, as [`PageMemory::with_checks`] says.
    #[must_use]
    pub fn new() -> PageMemory {
        PageMemory(Arc::new(Handle(Arena::new(cfg!(debug_assertions)))))
    }

    /// Memory that overwrites what is freed, and panics where it finds that something wrote to it
    /// afterwards. For tests: it costs two passes over every buffer.
    #[must_use]
    pub fn with_checks() -> PageMemory {
        PageMemory(Arc::new(Handle(Arena::new(true))))
    }

    /// Builds a buffer of `len` bytes; `fill` is given them as zeros.
    ///
    /// A panic in `fill` frees the buffer. The process is aborted if the system has no memory.
    ///
    /// # Panics
    ///
    /// If `len` exceeds [`PageBuf::LEN_MAX`].
    #[must_use]
    pub fn build(&self, len: usize, fill: impl FnOnce(&mut [u8])) -> PageBuf {
        let built = self.try_build(len, |bytes| {
            fill(bytes);
            Ok::<(), Infallible>(())
        });
        match built {
            Ok(buf) => buf,
            Err(never) => match never {},
        }
    }

    /// Builds a buffer as [`PageMemory::build`] does, unless `fill` fails.
    ///
    /// # Errors
    ///
    /// What `fill` returned; the buffer is freed.
    ///
    /// # Panics
    ///
    /// If `len` exceeds [`PageBuf::LEN_MAX`].
    pub fn try_build<E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<PageBuf, E> {
        PageBuf::try_filled(self.arena(), len, fill)
    }

    /// Gives memory that no buffer uses back to the system.
    pub fn trim(&self) {
        self.arena().trim();
    }

    /// What is in use and what is reserved. Exact while no other thread builds or frees.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        self.arena().stats()
    }

    /// Says how much memory the store may take.
    pub(crate) fn expect_at_most(&self, bytes: usize) {
        self.arena().expect_at_most(bytes);
    }

    /// [`MemoryStats::held_bytes`] alone; takes no lock.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        self.arena().held_bytes()
    }

    /// [`MemoryStats::retired_bytes`] alone; takes no lock.
    #[inline]
    pub(crate) fn retired_bytes(&self) -> usize {
        self.arena().retired_bytes.load(Ordering::Relaxed)
    }

    fn arena(&self) -> &Arc<Arena> {
        &self.0.0
    }
}

impl Default for PageMemory {
    fn default() -> PageMemory {
        PageMemory::new()
    }
}

impl fmt::Debug for PageMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PageMemory").field(&self.stats()).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(test)]
mod testing {
    /// A small generator for tests; the seed is all its state (xorshift64*, Vigna 2016).
    pub(super) struct Rng(u64);

    impl Rng {
        pub(super) fn new(seed: u64) -> Rng {
            Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
        }

        pub(super) fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
        }

        pub(super) fn below(&mut self, bound: usize) -> usize {
            ((self.next() >> 32) as usize * bound) >> 32
        }
    }
}
