//! Memory as the system gives it: addresses, and the right to use a part of them.
//!
//! A system that is asked to limit a process's data counts what may be written, touched or not. So
//! addresses are taken without rights, and a part that is left loses them again.
//!
//! Which parts are used is the business of [`super::pool`].

use std::{
    ffi::c_void,
    mem::ManuallyDrop,
    ops::Range,
    ptr::{self, NonNull},
};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

use super::{class::PAGE_BYTES, runs::CHUNK_PAGES_MAX};

pub(super) const HUGE_BYTES: usize = CHUNK_PAGES_MAX * PAGE_BYTES;

/// Memory mapped from the system: zeros, and resident only where it was touched.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: owned memory, bound to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `bytes`, from a huge page's worth on aligned to one and advised to be such. `None` if the
    /// system has no memory.
    pub(crate) fn new(bytes: usize) -> Option<Mapping> {
        let mapping = Mapping::reserve(bytes)?;
        mapping.enter(0..bytes).then_some(mapping)
    }

    /// As [`Mapping::new`], but addresses only: nothing of it may be used before [`Mapping::enter`].
    pub(super) fn reserve(bytes: usize) -> Option<Mapping> {
        if bytes < HUGE_BYTES {
            return Mapping::anywhere(bytes);
        }
        let first = Mapping::anywhere(bytes)?;
        let mapping = if first.base.as_ptr().addr().is_multiple_of(HUGE_BYTES) {
            first
        } else {
            drop(first);
            Mapping::anywhere(bytes.checked_add(HUGE_BYTES)?)?.cut_to_huge(bytes)
        };
        // SAFETY: the range is this mapping. Refusal only means small pages.
        let _ = unsafe { madvise(mapping.base.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Some(mapping)
    }

    /// The first byte. The caller keeps the length, and calls [`Mapping::from_raw`] or leaks it.
    pub(crate) fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).base
    }

    /// Takes a mapping back, to unmap it.
    ///
    /// # Safety
    ///
    /// `base` is from [`Mapping::into_raw`] of a mapping of `bytes`, and this is its only return.
    pub(crate) unsafe fn from_raw(base: NonNull<u8>, bytes: usize) -> Mapping {
        Mapping { base, bytes }
    }

    /// The address of a byte of it.
    pub(super) fn at(&self, byte: usize) -> NonNull<u8> {
        assert!(byte < self.bytes, "byte {byte} of {}", self.bytes);
        // SAFETY: it lies in this mapping, as just asserted.
        unsafe { self.base.add(byte) }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Keeps `bytes` from the first huge page's start on and unmaps what is before and after them.
    fn cut_to_huge(self, bytes: usize) -> Mapping {
        let before = self.base.as_ptr().addr().wrapping_neg() % HUGE_BYTES;
        let after = self.bytes - before - bytes;
        // SAFETY: both lie in this mapping, which is one huge page longer than what is kept.
        let kept = unsafe { self.base.add(before) };
        // SAFETY: as above.
        let rest = unsafe { kept.add(bytes) };
        for (base, bytes) in [(self.base, before), (rest, after)] {
            if bytes > 0 {
                drop(Mapping { base, bytes });
            }
        }
        let _whole = ManuallyDrop::new(self);
        Mapping { base: kept, bytes }
    }

    /// Gives the memory of a part back to the system, which counts it no more. What was in it is gone; the
    /// addresses stay this mapping's. False if the system refused: then the part may be used as before.
    pub(super) fn leave(&self, part: Range<usize>) -> bool {
        let (start, bytes) = self.part(part);
        // SAFETY: the range is in this mapping, and its owner says that nothing there is used.
        let given = unsafe { madvise(start, bytes, Advice::LinuxDontNeed) };
        // SAFETY: as above. A part that may not be accessed is no data of the process.
        given.is_ok() && unsafe { mprotect(start, bytes, MprotectFlags::empty()) }.is_ok()
    }

    /// Makes a part usable that was left, or mapped without being used; what was left is zeros. False if the
    /// system has no memory.
    pub(super) fn enter(&self, part: Range<usize>) -> bool {
        let (start, bytes) = self.part(part);
        // SAFETY: the range is in this mapping; more rights upset nobody.
        unsafe { mprotect(start, bytes, MprotectFlags::READ | MprotectFlags::WRITE) }.is_ok()
    }

    fn part(&self, part: Range<usize>) -> (*mut c_void, usize) {
        assert!(part.end <= self.bytes, "{part:?} of {} bytes", self.bytes);
        (self.at(part.start).as_ptr().cast(), part.len())
    }

    fn anywhere(bytes: usize) -> Option<Mapping> {
        // SAFETY: a new private mapping touches no memory that exists.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let base = base.ok()?;
        Some(Mapping { base: NonNull::new(base.cast())?, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own, and who drops it vouches that nothing in it is used: a
        // chunk goes wholly free, or with the arena, which every buffer keeps alive (MEM-2). A refusal
        // leaks it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
