//! Reading the parts of one page: one after the other, or side by side where the device is waited for.
//!
//! A read that the system answers from its own memory takes less than it takes to wake a thread. So each part
//! is first asked for without waiting, and only when so many are left that waiting for them in turn costs
//! more, threads of the store's own read them at once. These do nothing but read, and
//! take no guard, so whoever waits for them under one waits for the device alone.
//!
//! What the parts say is [`super::durable`]'s business.

use std::sync::OnceLock;

use rayon::{
    ThreadPool, ThreadPoolBuilder,
    iter::{IndexedParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator},
};

use crate::{
    error::Failure,
    ids::PageId,
    store::{Frame, Pin, Store},
    sync::{AtomicBool, Ordering},
};

/// Parts of a page from which on they are read side by side.
const PARTS_MIN: usize = 3;
/// A page has no more parts than this.
const THREADS: usize = 4;
/// Bytes of a reader's stack: a read and its checksum.
const STACK_BYTES: usize = 256 << 10;

/// Who reads the parts of pages.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    /// Made when it is first needed; `None` if the system refused.
    pool: OnceLock<Option<ThreadPool>>,
    inline: AtomicBool,
}

impl Readers {
    /// For a store whose background runs on its caller's own thread: so do its reads.
    pub(crate) fn stay_inline(&self) {
        // Relaxed: set before the store is used.
        self.inline.store(true, Ordering::Relaxed);
    }

    /// Reads the parts of a page, in their order.
    pub(super) fn read(&self, store: &Store, pid: PageId, pins: &[Pin]) -> Result<Vec<Frame>, Failure> {
        let read = |pin: &Pin| store.read(pin, pid as u64, None);
        if pins.len() < PARTS_MIN || self.inline.load(Ordering::Relaxed) {
            return pins.iter().map(read).collect();
        }
        let at_once = |pin| store.read_at_once(pin, pid as u64);
        let mut frames = pins.iter().map(at_once).collect::<Result<Vec<Option<Frame>>, _>>()?;
        let left = frames.iter().filter(|frame| frame.is_none()).count();
        let fill = |(frame, pin): (&mut Option<Frame>, &Pin)| {
            if frame.is_none() {
                *frame = Some(read(pin)?);
            }
            Ok(())
        };
        match self.pool().filter(|_| left >= PARTS_MIN) {
            Some(pool) => pool.install(|| frames.par_iter_mut().zip(pins.par_iter()).try_for_each(fill))?,
            None => frames.iter_mut().zip(pins).try_for_each(fill)?,
        }
        Ok(frames.into_iter().flatten().collect())
    }

    fn pool(&self) -> Option<&ThreadPool> {
        let make = || {
            let named = |number| format!("pagecache-read-{number}");
            let threads = ThreadPoolBuilder::new().num_threads(THREADS).stack_size(STACK_BYTES);
            threads.thread_name(named).build().ok()
        };
        self.pool.get_or_init(make).as_ref()
    }
}
