//! How many reservations this thread holds, so that waiting for itself is an error and no hang.
//!
//! A writer fills its reservation in place, and user code may run meanwhile. If that code asks the
//! log to wait, the log would wait for the very reservation. The count is kept for one log a
//! thread at a time; a second log written under a reservation of the first goes uncounted, which
//! loses the error message and nothing else.

use std::cell::Cell;

use crate::error::Failure;

thread_local! {
    /// The log, by address, and its reservations held by this thread.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Counts one more reservation of `log`.
pub(super) fn add(log: usize) {
    let (counted, count) = HELD.get();
    if count == 0 {
        HELD.set((log, 1));
    } else if counted == log {
        HELD.set((log, count + 1));
    }
}

/// Counts one less.
pub(super) fn sub(log: usize) {
    let (counted, count) = HELD.get();
    if counted == log {
        HELD.set((log, count.saturating_sub(1)));
    }
}

/// Refuses to wait for `log` while this thread holds one of its reservations.
pub(super) fn none(log: usize) -> Result<(), Failure> {
    let (counted, count) = HELD.get();
    if counted == log && count > 0 {
        return Err(Failure::Misuse {
            what: "this thread holds a log reservation and asked the log to wait; complete or abort it first",
        });
    }
    Ok(())
}
