//! Asking the processor for memory that will be read soon.
//!
//! Dependent loads cost a full round trip each, independent ones overlap: whoever knows two addresses
//! asks for both before using either. Elsewhere than on x86-64 the calls do nothing.

/// Asks for the cache line in which `value` starts.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_read(std::ptr::from_ref(value).cast());
}

/// Asks for the cache line of an address, which may be any: a prefetch reads nothing and never faults.
#[inline(always)]
pub fn prefetch_read(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; it neither reads nor faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::{prefetch, prefetch_read};

    #[test]
    fn any_address_may_be_asked_for() {
        for address in [0usize, 1, usize::MAX, 0x7FFF_FFFF_F000] {
            prefetch_read(std::ptr::without_provenance(address));
        }
        prefetch(&[1u8, 2, 3][..]);
        prefetch("");
    }
}
