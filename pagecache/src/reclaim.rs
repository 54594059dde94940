//! Epochs: what a reader may still see is not freed before the reader has gone.
//!
//! [`pin`] gives a [`Guard`]; whatever was reachable while it lived stays allocated until it is
//! dropped. A writer that unlinks a node hands it to [`Guard::defer`] or [`Guard::defer_drop`], which
//! run after every guard that could have seen it is gone.
//!
//! * One collector serves the process, because [`pin`] names no store. It is the only static, and this
//!   is the only file that names the epoch crate.
//! * Deferred work must not assume a thread or a time: it runs on whichever thread pins or unpins
//!   later, and it may outlive the store that deferred it. What it touches it must own.
//! * One sleeping guard keeps all garbage of the process. So what runs behind holds none while it writes or
//!   syncs; a reader's spans the read of its page, and a writer's what its change has to wait for.
//!
//! In loom models deferred work is leaked: epochs are the epoch crate's proof, and a model has to
//! show only that nothing is reached after it was unlinked and retired.

#[cfg(not(loom))]
pub use epoch::{Guard, pin};
#[cfg(loom)]
pub use leaking::{Guard, pin};

#[cfg(not(loom))]
mod epoch {
    use std::{cell::Cell, fmt, sync::OnceLock};

    use crossbeam_epoch::{Collector, LocalHandle};

    static COLLECTOR: OnceLock<Collector> = OnceLock::new();

    thread_local! {
        static PARTICIPANT: LocalHandle = register();
        /// Bytes deferred by this thread since its work was last handed over.
        static DEFERRED_BYTES: Cell<usize> = const { Cell::new(0) };
    }

    /// The collector counts what is deferred by pieces and collects every so many pins; large pages would
    /// pile up by hundreds of megabytes in between.
    const HAND_OVER_BYTES: usize = 1 << 20;

    #[cold]
    fn register() -> LocalHandle {
        COLLECTOR.get_or_init(Collector::new).register()
    }

    /// Pins the current thread: pages seen through the guard stay in memory until it is dropped.
    ///
    /// Takes about ten nanoseconds, less if the thread is already pinned, and never waits. Keep a guard
    /// for one operation, not across sleeps: while it lives, nothing that any store in the process
    /// retires is freed.
    #[inline]
    #[must_use = "the thread is pinned only while the guard lives"]
    pub fn pin() -> Guard {
        // A thread's last destructors may run after its participant is gone: they get one of their own.
        Guard(PARTICIPANT.try_with(LocalHandle::pin).unwrap_or_else(|_| register().pin()))
    }

    /// A pinned thread. References into pages borrow it.
    pub struct Guard(crossbeam_epoch::Guard);

    impl Guard {
        /// Runs `work` once every guard that lives now is gone, on any thread.
        ///
        /// Allocates only if `work` captures more than three words.
        #[inline]
        pub(crate) fn defer<F>(&self, work: F)
        where
            F: FnOnce() + Send + 'static,
        {
            self.0.defer(work);
        }

        /// As [`Guard::defer`], for work that frees about so many bytes: they do not pile up.
        #[inline]
        pub(crate) fn defer_bytes<F>(&self, bytes: usize, work: F)
        where
            F: FnOnce() + Send + 'static,
        {
            self.0.defer(work);
            let due = DEFERRED_BYTES.try_with(|deferred| {
                let sum = deferred.get().saturating_add(bytes);
                let due = sum >= HAND_OVER_BYTES;
                deferred.set(if due { 0 } else { sum });
                due
            });
            if due.unwrap_or(true) {
                self.flush();
            }
        }

        /// Hands this thread's deferred work to the collector and runs what is due, a bounded piece of
        /// it. Threads that work for others call it, so that those find less to do when they pin.
        pub fn flush(&self) {
            self.0.flush();
        }
    }

    impl fmt::Debug for Guard {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Guard")
        }
    }
}

#[cfg(loom)]
mod leaking {
    /// Stands in for the epoch's pin in models.
    #[must_use = "the thread is pinned only while the guard lives"]
    pub fn pin() -> Guard {
        Guard(())
    }

    /// Stands in for the epoch's guard in models: it keeps everything for ever.
    #[derive(Debug)]
    pub struct Guard(());

    impl Guard {
        /// Leaks what `work` owns and never runs it.
        pub(crate) fn defer<F>(&self, work: F)
        where
            F: FnOnce() + Send + 'static,
        {
            std::mem::forget(work);
        }

        /// Does nothing: nothing is ever due.
        pub fn flush(&self) {}

        /// As `defer`.
        pub(crate) fn defer_bytes<F>(&self, _bytes: usize, work: F)
        where
            F: FnOnce() + Send + 'static,
        {
            self.defer(work);
        }
    }
}

#[cfg(all(test, not(loom)))]
impl Guard {
    /// Drops `owner` once every guard that lives now is gone, on any thread.
    ///
    /// Where other threads may still hold references into it, `owner` must be a token around a raw
    /// pointer that frees in its `Drop`. A `Box` will not do: moving one claims that nobody else looks.
    #[inline]
    pub(crate) fn defer_drop<T: Send + 'static>(&self, owner: T) {
        self.defer(move || drop(owner));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::pin;

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Pins and flushes until `done`, which other tests' guards may hold up for a while.
    fn collect_until(done: impl Fn() -> bool) {
        for _ in 0..1_000_000 {
            if done() {
                return;
            }
            pin().flush();
            thread::yield_now();
        }
        panic!("deferred work did not run although nothing is pinned");
    }

    #[test]
    fn deferred_work_waits_for_the_guards_that_were_there() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let reader = pin();
        thread::scope(|scope| {
            scope.spawn(|| {
                pin().defer_drop(Counted(dropped.clone()));
                for _ in 0..1_000 {
                    pin().flush();
                }
            });
        });
        assert_eq!(dropped.load(Ordering::SeqCst), 0, "freed under a live guard");
        drop(reader);
        collect_until(|| dropped.load(Ordering::SeqCst) == 1);
    }

    /// Work came due after so many pieces and pins only: a store of large values kept gigabytes of former
    /// pages while its own pages were within a megabyte.
    #[test]
    fn large_pieces_do_not_pile_up() {
        let dropped = Arc::new(AtomicUsize::new(0));
        // Other tests' guards may hold the epoch up, so it is tried for long. Counted by pieces, more than
        // a hundred would be waiting at any moment.
        for pieces in 1..1_000_000 {
            let counted = Counted(dropped.clone());
            pin().defer_bytes(1 << 20, move || drop(counted));
            let waiting = pieces - dropped.load(Ordering::SeqCst);
            if pieces > 200 && waiting < 16 {
                return;
            }
            thread::yield_now();
        }
        panic!("large pieces pile up although nothing is pinned");
    }

    #[test]
    fn what_a_thread_deferred_runs_after_the_thread_has_ended() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = Counted(dropped.clone());
        thread::spawn(move || pin().defer_drop(counted)).join().unwrap();
        collect_until(|| dropped.load(Ordering::SeqCst) == 1);
    }

    #[test]
    fn pinning_works_in_the_last_destructors_of_a_thread() {
        struct PinsLate(Arc<AtomicUsize>);
        impl Drop for PinsLate {
            fn drop(&mut self) {
                pin().defer_drop(Counted(self.0.clone()));
            }
        }
        thread_local! {
            static LATE: std::cell::RefCell<Option<PinsLate>> = const { std::cell::RefCell::new(None) };
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let late = PinsLate(dropped.clone());
        thread::spawn(move || {
            // Registered before the participant, so destroyed after it or before it, as the system likes.
            LATE.with(|slot| *slot.borrow_mut() = Some(late));
            drop(pin());
        })
        .join()
        .unwrap();
        collect_until(|| dropped.load(Ordering::SeqCst) == 1);
    }
}
