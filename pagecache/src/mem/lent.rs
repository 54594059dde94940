//! Page memory lent to callers: what a scan returns points into its leaf instead of copying it.
//!
//! A leaf that is lent stays in memory for as long as somebody keeps a value of it, evicted or not. The
//! bytes lent are counted, so that whoever lends can stop in time and copy instead.

use std::{ops::Deref, sync::Arc};

use super::{PageBuf, PageMemory};
use crate::sync::Ordering;

/// A buffer on loan; clones share one loan. It ends with the last of them.
#[derive(Clone)]
pub struct Lent(Arc<Loan>);

struct Loan {
    buf: PageBuf,
}

impl PageMemory {
    /// Lends `buf`, unless more than `bytes_max` would be lent then.
    #[must_use]
    pub fn lend(&self, buf: &PageBuf, bytes_max: usize) -> Option<Lent> {
        let (arena, bytes) = (self.arena(), buf.charged_bytes());
        // Relaxed: a sum that nobody orders anything by.
        let before = arena.lent_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > bytes_max {
            arena.lent_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Lent(Arc::new(Loan { buf: buf.clone() })))
    }

    /// Bytes of buffers that are lent.
    #[must_use]
    pub fn lent_bytes(&self) -> usize {
        self.arena().lent_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.buf.arena().lent_bytes.fetch_sub(self.buf.charged_bytes(), Ordering::Relaxed);
    }
}

impl Deref for Lent {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0.buf
    }
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lent({} bytes)", self.len())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{PageBuf, PageMemory};

    #[test]
    fn loans_are_counted_refused_above_the_limit_and_end_with_their_last_clone() {
        let memory = PageMemory::with_checks();
        let bufs: Vec<PageBuf> = (0..3u8).map(|fill| PageBuf::copy_of(&memory, &[fill; 1000])).collect();
        let one = bufs[0].charged_bytes();
        let first = memory.lend(&bufs[0], 2 * one).expect("nothing is lent yet");
        let copy = first.clone();
        let second = memory.lend(&bufs[1], 2 * one).expect("within the limit");
        assert!(memory.lend(&bufs[2], 2 * one).is_none(), "beyond the limit");
        assert_eq!(memory.lent_bytes(), 2 * one);
        drop(bufs);
        assert_eq!((&first[..3], &second[..3]), (&[0; 3][..], &[1; 3][..]));
        drop((first, second));
        assert_eq!(memory.lent_bytes(), one);
        drop(copy);
        assert_eq!((memory.lent_bytes(), memory.stats().buffers), (0, 0));
    }
}
