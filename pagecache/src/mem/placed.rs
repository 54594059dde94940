//! One value in page memory: what a `Box` is on the heap.
//!
//! Nodes of chains are made by writers and freed by whoever collects the epoch's garbage. On a general
//! heap the two meet at one lock; here they meet in the slabs of one store, and every byte is accounted.
//!
//! * PLACED-1: the value is made in a block of its own, and that block is given back by whoever drops
//!   the handle, once.
//!
//! In loom models, whose atomics are no plain bytes, values lie on the heap.

#[cfg(not(loom))]
pub(crate) use paged::Placed;

#[cfg(loom)]
pub(crate) use boxed::Placed;

#[cfg(not(loom))]
mod paged {
    use std::{
        marker::PhantomData,
        ops::{Deref, DerefMut},
        ptr::NonNull,
    };

    use super::super::{
        PageMemory,
        arena::{HEADER_BYTES, Header, Owner},
        class::SizeClass,
    };
    use crate::sync::Ordering;

    /// A value in page memory; dropping it drops the value and frees its block.
    pub(crate) struct Placed<T> {
        value: NonNull<T>,
        owns: PhantomData<T>,
    }

    // SAFETY: it owns its value as a `Box` does, and blocks may be freed by any thread.
    unsafe impl<T: Send> Send for Placed<T> {}
    // SAFETY: sharing it shares the value only.
    unsafe impl<T: Sync> Sync for Placed<T> {}

    impl<T> Placed<T> {
        /// Puts `value` into a block of `memory`.
        #[inline]
        pub(crate) fn new(memory: &PageMemory, value: T) -> Placed<T> {
            const { assert!(align_of::<T>() <= HEADER_BYTES && size_of::<T>() < 1 << 16) };
            let header = memory.arena().take(size_of::<T>() as u32);
            // SAFETY: the block holds that many bytes after its header.
            let place = unsafe { header.cast::<u8>().add(HEADER_BYTES) }.cast::<T>();
            // SAFETY: in bounds, ours alone (MEM-1), and aligned as blocks and headers are.
            unsafe { place.write(value) };
            Placed { value: place, owns: PhantomData }
        }

        /// Bytes of page memory that each value takes.
        pub(crate) fn block_bytes() -> usize {
            let bytes = HEADER_BYTES + size_of::<T>();
            SizeClass::holding(bytes).map_or(bytes, SizeClass::block_bytes)
        }

        /// Counts `bytes` as retired: nobody new reaches them, and they are freed once the readers of now
        /// are gone.
        pub(crate) fn note_retired(&self, bytes: usize) {
            // Relaxed: a sum that nobody orders anything by.
            self.header().arena().retired_bytes.fetch_add(bytes, Ordering::Relaxed);
        }

        /// The end of [`Placed::note_retired`]: they are about to be freed.
        pub(crate) fn note_freed(&self, bytes: usize) {
            self.header().arena().retired_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }

        fn header(&self) -> &Header {
            // SAFETY: the header lies right before the value, in the same block.
            let header = unsafe { self.value.cast::<u8>().sub(HEADER_BYTES) }.cast::<Header>();
            // SAFETY: the block is this handle's until it is dropped (PLACED-1).
            unsafe { header.as_ref() }
        }

        /// Gives the value up without dropping it; [`Placed::from_raw`] takes it back.
        #[inline]
        pub(crate) fn into_raw(self) -> *mut T {
            std::mem::ManuallyDrop::new(self).value.as_ptr()
        }

        /// Takes a value back.
        ///
        /// # Safety
        ///
        /// `raw` is from [`Placed::into_raw`], this is its only return, and nobody else uses the value
        /// in a way that the new owner's use would upset.
        #[inline]
        pub(crate) unsafe fn from_raw(raw: *mut T) -> Placed<T> {
            // SAFETY: `into_raw` gives no null.
            Placed { value: unsafe { NonNull::new_unchecked(raw) }, owns: PhantomData }
        }
    }

    impl<T> Deref for Placed<T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            // SAFETY: the value lives until this handle is dropped (PLACED-1).
            unsafe { self.value.as_ref() }
        }
    }

    impl<T> DerefMut for Placed<T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above, and this is the only handle.
            unsafe { self.value.as_mut() }
        }
    }

    impl<T> Drop for Placed<T> {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: the value was made in `new` and is dropped once (PLACED-1).
            unsafe { self.value.drop_in_place() };
            // SAFETY: the header lies right before the value, in the same block.
            let header = unsafe { self.value.cast::<u8>().sub(HEADER_BYTES) }.cast::<Header>();
            // SAFETY: the block is this handle's alone, and this is its last use.
            unsafe { Owner::give_back(header) };
        }
    }
}

#[cfg(loom)]
mod boxed {
    use std::ops::{Deref, DerefMut};

    use super::super::PageMemory;

    /// A value on the heap.
    pub(crate) struct Placed<T>(Box<T>);

    impl<T> Placed<T> {
        pub(crate) fn new(_: &PageMemory, value: T) -> Placed<T> {
            Placed(Box::new(value))
        }

        pub(crate) fn block_bytes() -> usize {
            size_of::<T>()
        }

        pub(crate) fn note_retired(&self, _bytes: usize) {}

        pub(crate) fn note_freed(&self, _bytes: usize) {}

        pub(crate) fn into_raw(self) -> *mut T {
            Box::into_raw(self.0)
        }

        /// # Safety
        ///
        /// As `Box::from_raw`.
        pub(crate) unsafe fn from_raw(raw: *mut T) -> Placed<T> {
            // SAFETY: the caller's.
            Placed(unsafe { Box::from_raw(raw) })
        }
    }

    impl<T> Deref for Placed<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for Placed<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::{super::PageMemory, Placed};

    #[test]
    fn a_value_is_dropped_once_and_its_block_comes_back() {
        let memory = PageMemory::with_checks();
        let counted = Arc::new(());
        let placed: Vec<_> = (0..100).map(|_| Placed::new(&memory, (counted.clone(), [7u64; 11]))).collect();
        assert_eq!(Arc::strong_count(&counted), 101);
        assert_eq!(memory.stats().buffers, 100);
        assert!(placed.iter().all(|value| value.1 == [7; 11]));
        let raw: Vec<_> = placed.into_iter().map(Placed::into_raw).collect();
        assert_eq!(Arc::strong_count(&counted), 101, "given up, not dropped");
        // SAFETY: each is from `into_raw` just above and returns once.
        raw.into_iter().for_each(|raw| drop(unsafe { Placed::from_raw(raw) }));
        assert_eq!(Arc::strong_count(&counted), 1);
        assert_eq!(memory.stats().buffers, 0);
    }

    #[test]
    fn a_value_outlives_the_handle_of_its_memory_and_may_die_on_another_thread() {
        let memory = PageMemory::new();
        let placed = Placed::new(&memory, String::from("still here"));
        drop(memory);
        std::thread::spawn(move || assert_eq!(*placed, "still here")).join().unwrap();
    }
}
