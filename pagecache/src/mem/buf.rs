//! One buffer of page memory: counted, and never changed once built.
//!
//! * BUF-1: bytes are written only before the first handle leaves this file.
//! * BUF-2: the block is given back by whoever drops the last reference, after everybody's reads.
//!
//! A handle is one pointer, to a header that lies right before the bytes, so that header and first
//! bytes come with one cache line. Where blocks come from is [`super::arena`]'s business.

use std::{fmt, ops::Deref, ptr::NonNull, slice, sync::Arc};

use super::{
    PageMemory,
    arena::{Arena, HEADER_BYTES, Header, Owner},
    prefetch::prefetch_read,
};
use crate::sync::Ordering;

/// References that no honest program holds; beyond lies overflow.
const REFS_MAX: u32 = i32::MAX as u32;

/// An immutable byte buffer in page memory. Cloning counts a reference; the last drop frees it.
///
/// Stays valid after every [`PageMemory`] handle is gone. The bytes are aligned to 16.
pub struct PageBuf {
    header: NonNull<Header>,
}

// SAFETY: the bytes are immutable while shared (BUF-1) and the count is atomic.
unsafe impl Send for PageBuf {}
// SAFETY: as above.
unsafe impl Sync for PageBuf {}

impl PageBuf {
    /// The longest buffer, in bytes.
    pub const LEN_MAX: usize = u32::MAX as usize - 4096;

    /// A buffer with these bytes.
    ///
    /// # Panics
    ///
    /// If there are more than [`PageBuf::LEN_MAX`].
    #[must_use]
    pub fn copy_of(memory: &PageMemory, bytes: &[u8]) -> PageBuf {
        let buf = PageBuf::uninitialised(memory.arena(), bytes.len());
        // SAFETY: the block holds `bytes.len()` bytes after its header, and is new, so it cannot overlap.
        unsafe { buf.start().copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        buf
    }

    /// Bytes of memory that the buffer occupies: header, bytes and slack.
    #[must_use]
    pub fn charged_bytes(&self) -> usize {
        self.header().charged_bytes()
    }

    /// The memory that it lies in.
    pub(super) fn arena(&self) -> &Arena {
        self.header().arena()
    }

    /// Asks the processor for the first cache line, which holds the length too.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_read(self.header.as_ptr().cast());
    }

    /// True if both are one buffer.
    #[inline]
    #[must_use]
    pub fn is_same(&self, other: &PageBuf) -> bool {
        self.header == other.header
    }

    /// A new buffer of `len` zeros, once `fill` has seen to them.
    pub(super) fn try_filled<E>(
        arena: &Arc<Arena>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<PageBuf, E> {
        let buf = PageBuf::uninitialised(arena, len);
        // SAFETY: the block holds `len` bytes after its header.
        unsafe { buf.start().write_bytes(0, len) };
        // SAFETY: those bytes are initialised, and `buf` is the only handle until we return it (BUF-1).
        fill(unsafe { slice::from_raw_parts_mut(buf.start().as_ptr(), len) })?;
        Ok(buf)
    }

    /// The caller initialises the bytes before anybody reads them.
    #[inline]
    fn uninitialised(arena: &Arc<Arena>, len: usize) -> PageBuf {
        assert!(len <= PageBuf::LEN_MAX, "a page buffer of {len} bytes, at most {} fit", PageBuf::LEN_MAX);
        PageBuf { header: arena.take(len as u32) }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the block is ours while a reference is counted, and `self` is one.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    fn start(&self) -> NonNull<u8> {
        // SAFETY: every block is at least as long as its header.
        unsafe { self.header.cast::<u8>().add(HEADER_BYTES) }
    }

    /// Drops a reference that may not be the last. Returns true if it was.
    #[cold]
    fn drop_shared(&self) -> bool {
        // Release orders our reads before the last dropper's free.
        let before = self.header().refs.fetch_sub(1, Ordering::Release);
        assert!(before != 0, "a page buffer was freed twice");
        if before == 1 {
            // Acquire shows us that every other holder's reads are over. A load, not a fence, because
            // ThreadSanitizer does not follow fences.
            self.header().refs.load(Ordering::Acquire);
        }
        before == 1
    }
}

impl Deref for PageBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes were initialised when it was built and never change again (BUF-1).
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.header().len as usize) }
    }
}

impl AsRef<[u8]> for PageBuf {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for PageBuf {
    #[inline]
    fn clone(&self) -> PageBuf {
        // Relaxed: the new handle is made from one that is counted already.
        let before = self.header().refs.fetch_add(1, Ordering::Relaxed);
        if before >= REFS_MAX {
            // Handles are being leaked; one more round and the count would wrap to a free buffer.
            std::process::abort();
        }
        PageBuf { header: self.header }
    }
}

impl Drop for PageBuf {
    #[inline]
    fn drop(&mut self) {
        // Acquire pairs with the Release of whoever dropped the second-last reference. Nobody can
        // count one more: that takes a handle, and ours is the only one.
        if self.header().refs.load(Ordering::Acquire) == 1 {
            self.header().refs.store(0, Ordering::Relaxed);
        } else if !self.drop_shared() {
            return;
        }
        // SAFETY: the last reference is gone, and every other holder's reads are over (BUF-2).
        unsafe { Owner::give_back(self.header) };
    }
}

impl fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageBuf({} bytes)", self.len())
    }
}

#[cfg(all(test, not(loom), not(feature = "malloc_pages"), not(miri)))]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        ptr,
    };

    use super::PageBuf;
    use crate::mem::PageMemory;

    /// What a panic said.
    fn complaint(work: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("must panic");
        panic
            .downcast_ref::<String>()
            .cloned()
            .unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
    }

    #[test]
    fn a_write_after_free_is_found_by_the_next_owner_of_the_block() {
        let memory = PageMemory::with_checks();
        let keeps_the_slab = PageBuf::copy_of(&memory, &[0; 100]);
        let freed = PageBuf::copy_of(&memory, &[7; 100]);
        let dangling = freed.as_ptr().cast_mut();
        drop(freed);
        // SAFETY: not a read of anybody's bytes, only the bug that must be found: the block is free, its
        // slab is still mapped and no other thread knows this memory.
        unsafe { dangling.wrapping_add(42).write(1) };
        let said = complaint(|| drop(PageBuf::copy_of(&memory, &[8; 100])));
        assert!(said.contains("written after it was freed: byte 42 "), "{said}");
        drop(keeps_the_slab);
    }

    #[test]
    fn a_write_after_free_is_found_when_the_slab_is_released() {
        let memory = PageMemory::with_checks();
        let freed = PageBuf::copy_of(&memory, &[7; 1000]);
        let dangling = freed.as_ptr().cast_mut();
        drop(freed);
        // SAFETY: as above.
        unsafe { dangling.wrapping_add(999).write(1) };
        let said = complaint(|| memory.trim());
        assert!(said.contains("written after it was freed: byte 999 "), "{said}");
    }

    #[test]
    fn a_second_free_is_noticed() {
        let memory = PageMemory::with_checks();
        let keeps_the_slab = PageBuf::copy_of(&memory, &[0; 100]);
        let first = PageBuf::copy_of(&memory, &[7; 100]);
        // SAFETY: the bug that must be found: a second handle that nobody counted.
        let second = unsafe { ptr::read(&first) };
        drop(first);
        let said = complaint(|| drop(second));
        assert!(said.contains("freed twice"), "{said}");
        drop(keeps_the_slab);
    }
}
