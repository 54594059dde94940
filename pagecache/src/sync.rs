//! The primitives that threads meet over, behind one face: the real ones, or loom's.
//!
//! Ordinary builds get std's atomics and parking_lot's locks. Builds with `--cfg loom` get loom's,
//! wrapped to parking_lot's shape: `lock()` returns a guard and never a `Result`. Code that uses this
//! face can be checked by a loom model without a change.
//!
//! Three habits keep a file checkable: shared bytes live in this [`UnsafeCell`], whose `with` and
//! `with_mut` tell loom about every access; waiting loops call [`spin_loop`] or [`yield_now`], which
//! loom needs in order to end them; and no atomic is built in a `const`, because loom's cannot be.
//!
//! `Arc` and `OnceLock` come from std directly. Epochs are [`crate::reclaim`]'s business.

// The face is whole whether or not every part of it is in use.
#[cfg(not(loom))]
#[allow(unused_imports)]
pub(crate) use real::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering,
    RwLock, RwLockReadGuard, RwLockWriteGuard, UnsafeCell, WaitTimeoutResult, fence, spin_loop, yield_now,
};

#[cfg(loom)]
#[allow(unused_imports)]
pub(crate) use modelled::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering,
    RwLock, RwLockReadGuard, RwLockWriteGuard, UnsafeCell, WaitTimeoutResult, fence, spin_loop, yield_now,
};

thread_local! {
    static STRIPE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Where this thread last found room in something striped; zero until it was ever in another's way.
///
/// A hint that may be stale or shared: whatever uses it must be right for every value.
#[inline]
pub(crate) fn stripe_hint() -> usize {
    STRIPE.try_with(std::cell::Cell::get).unwrap_or(0)
}

/// Differs between threads that run at one time.
#[inline]
pub(crate) fn thread_mark() -> usize {
    STRIPE.try_with(|hint| std::ptr::from_ref(hint).addr()).unwrap_or(0)
}

/// Remembers a stripe for [`stripe_hint`].
#[inline]
pub(crate) fn set_stripe_hint(stripe: usize) {
    // A thread that is ending has no use for a hint.
    let _ = STRIPE.try_with(|hint| hint.set(stripe));
}

/// What ordinary builds use.
#[cfg(not(loom))]
#[allow(dead_code, unused_imports)]
mod real {
    pub(crate) use std::{
        hint::spin_loop,
        sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
        thread::yield_now,
    };

    pub(crate) use parking_lot::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult,
    };

    /// A cell that threads share under a rule of their own; loom checks the rule in models.
    ///
    /// Like std's it is not `Sync`: the type around it says why it may be, in its own `unsafe impl`.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// Lends the place for reading. The pointer must not outlive the call.
        #[inline(always)]
        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        /// Lends the place for writing. The pointer must not outlive the call.
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }
}

/// What loom models use: the same names and calls over loom's types.
#[cfg(loom)]
#[allow(dead_code, unused_imports)]
mod modelled {
    use std::{
        ops::{Deref, DerefMut},
        time::Duration,
    };

    pub(crate) use loom::{
        cell::UnsafeCell,
        hint::spin_loop,
        sync::{
            RwLockReadGuard, RwLockWriteGuard,
            atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
        },
        thread::yield_now,
    };

    const POISONED: &str = "a model thread panicked while it held this lock";

    /// [`parking_lot::Mutex`]'s shape.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    /// The hold on a [`Mutex`].
    #[derive(Debug)]
    pub(crate) struct MutexGuard<'m, T> {
        // Empty only inside `Condvar::wait`, which owns the guard mutably meanwhile.
        held: Option<loom::sync::MutexGuard<'m, T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { held: Some(self.0.lock().expect(POISONED)) }
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok().map(|held| MutexGuard { held: Some(held) })
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect(POISONED)
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner().expect(POISONED)
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.held.as_ref().expect("held outside a wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.held.as_mut().expect("held outside a wait")
        }
    }

    /// [`parking_lot::Condvar`]'s shape. A wait with a limit never reaches it: loom has no clock.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    /// Whether a wait ended because its time was up; in a model it never does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct WaitTimeoutResult(());

    impl WaitTimeoutResult {
        pub(crate) fn timed_out(self) -> bool {
            false
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Condvar {
            Condvar(loom::sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.held.take().expect("held outside a wait");
            guard.held = Some(self.0.wait(held).expect(POISONED));
        }

        pub(crate) fn wait_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            _limit: Duration,
        ) -> WaitTimeoutResult {
            self.wait(guard);
            WaitTimeoutResult(())
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// [`parking_lot::RwLock`]'s shape.
    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> RwLock<T> {
            RwLock(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect(POISONED)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect(POISONED)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Mutex;

    #[test]
    fn a_panic_under_a_lock_does_not_close_it() {
        let lock = Mutex::new(1);
        let panicked = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _held = lock.lock();
                    panic!("while holding the lock");
                })
                .join()
        });
        assert!(panicked.is_err());
        assert_eq!(*lock.lock(), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::{Condvar, Mutex};

    #[test]
    fn loom_a_notified_waiter_sees_what_was_set_under_the_lock() {
        loom::model(|| {
            let shared = Arc::new((Mutex::new(false), Condvar::new()));
            let other = shared.clone();
            let setter = loom::thread::spawn(move || {
                *other.0.lock() = true;
                other.1.notify_one();
            });
            let mut ready = shared.0.lock();
            while !*ready {
                shared.1.wait(&mut ready);
            }
            drop(ready);
            setter.join().unwrap();
        });
    }
}
