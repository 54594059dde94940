//! What runs behind an open store: periodic flushes, checkpoints, segments made ready for the log,
//! garbage in the pages moved together.
//!
//! Garbage is moved for the sake of a shorter file only while little is written: most of what a busy store would
//! move is superseded before long. Then it is only kept within its limit, a step at a time, so that a checkpoint
//! that writers wait for comes first.
//!
//! One job, called in steps. An idle store's steps touch nothing but memory. A panic in a step
//! poisons the store, so that nobody waits for work that will not come.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Duration,
};

use super::shared::Shared;
use crate::{
    checkpoint::Cleaned,
    error::Failure,
    ids::Lsn,
    io::{Next, Worker},
    materializer::Materializer,
    sync::Ordering,
};

/// The longest time between two looks at the store.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// A store is busy while this many bytes are logged in half a second: it is then cleaned only as far as it must
/// be. What is superseded soon is not worth moving.
const BUSY_BYTES: i64 = 256 << 10;
const BUSY_LOOK: Duration = Duration::from_millis(500);

/// The time between two steps of cleaning, so that commits get at the device in between.
const PAUSE: Duration = Duration::from_millis(2);

/// Starts the background of a store.
pub(crate) fn start<M: Materializer + Send + Sync + 'static>(
    shared: &Arc<Shared<M>>,
) -> Result<Box<dyn Worker>, Failure> {
    let weak: Weak<Shared<M>> = Arc::downgrade(shared);
    let mut past = Past::new(shared.clock.now(), shared.log.next_lsn());
    let job = move || {
        let Some(shared) = weak.upgrade() else { return Next::Done };
        if shared.stopping.load(Ordering::Acquire) {
            return Next::Done;
        }
        let stepped = catch_unwind(AssertUnwindSafe(|| step(&shared, &mut past)));
        stepped.unwrap_or_else(|_| {
            shared
                .cache
                .poison
                .set(Failure::Misuse { what: "the background of the store panicked; please report it" });
            Next::Done
        })
    };
    let worker = shared
        .spawner
        .spawn("pagecache", Box::new(job))
        .map_err(|e| Failure::from_io("starting the background", std::path::PathBuf::new(), 0, 0, e))?;
    Ok(worker)
}

/// What the background remembers from one step to the next.
struct Past {
    last_flush: Duration,
    looked_at: Duration,
    next_lsn: Lsn,
    is_busy: bool,
}

impl Past {
    fn new(now: Duration, next_lsn: Lsn) -> Past {
        Past { last_flush: now, looked_at: now, next_lsn, is_busy: false }
    }

    /// Notes how far the log has come, and says whether much is being written.
    fn is_busy(&mut self, now: Duration, next_lsn: Lsn) -> bool {
        if now.saturating_sub(self.looked_at) >= BUSY_LOOK {
            self.is_busy = next_lsn - self.next_lsn >= BUSY_BYTES;
            (self.looked_at, self.next_lsn) = (now, next_lsn);
        }
        self.is_busy
    }
}

fn step<M: Materializer + Send + Sync + 'static>(shared: &Shared<M>, past: &mut Past) -> Next {
    if shared.cache.poison.check().is_err() {
        return Next::WhenWoken;
    }
    // Failures poison the store or, on a full disk, leave it as it was: whoever writes is told.
    if shared.checkpoint_wanted.load(Ordering::Relaxed) {
        let _ = shared.trim_log();
    }
    let _ = shared.log.prepare();
    let now = shared.clock.now();
    if let Some(every) = shared.flush_every
        && now.saturating_sub(past.last_flush) >= every
    {
        past.last_flush = now;
        let _ = shared.log.flush();
    }
    let is_busy = past.is_busy(now, shared.log.next_lsn());
    let has_room = shared.cache.store.note_room();
    if (!is_busy || !has_room) && matches!(shared.clean(), Ok(Cleaned::Some)) {
        return if has_room { Next::After(PAUSE) } else { Next::Again };
    }
    Next::After(shared.flush_every.unwrap_or(LOOK_EVERY_MAX).min(LOOK_EVERY_MAX))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::{BUSY_BYTES, Past};

    #[test]
    fn a_store_is_busy_while_much_is_logged_between_two_looks() {
        let at = Duration::from_millis;
        let mut past = Past::new(at(0), 0);
        assert!(!past.is_busy(at(499), 100 * BUSY_BYTES), "nothing is known yet");
        assert!(past.is_busy(at(500), 100 * BUSY_BYTES));
        assert!(past.is_busy(at(999), 100 * BUSY_BYTES), "until the next look");
        assert!(!past.is_busy(at(1000), 101 * BUSY_BYTES - 1));
        assert!(past.is_busy(at(1500), 102 * BUSY_BYTES));
    }
}
