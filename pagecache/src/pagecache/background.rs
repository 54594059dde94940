//! What runs behind an open store: periodic flushes, checkpoints, segments made ready for the log,
//! garbage in the pages moved together.
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
    io::{Next, Worker},
    materializer::Materializer,
    sync::Ordering,
};

/// The longest time between two looks at the store.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// The time between two steps of cleaning, so that commits get at the device in between.
const PAUSE: Duration = Duration::from_millis(2);

/// Starts the background of a store.
pub(crate) fn start<M: Materializer + Send + Sync + 'static>(
    shared: &Arc<Shared<M>>,
) -> Result<Box<dyn Worker>, Failure> {
    let weak: Weak<Shared<M>> = Arc::downgrade(shared);
    let mut last_flush = shared.clock.now();
    let job = move || {
        let Some(shared) = weak.upgrade() else { return Next::Done };
        if shared.stopping.load(Ordering::Acquire) {
            return Next::Done;
        }
        let stepped = catch_unwind(AssertUnwindSafe(|| step(&shared, &mut last_flush)));
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

fn step<M: Materializer + Send + Sync + 'static>(shared: &Shared<M>, last_flush: &mut Duration) -> Next {
    if shared.cache.poison.check().is_err() {
        return Next::WhenWoken;
    }
    // Failures poison the store or, on a full disk, leave it as it was: whoever writes is told.
    if shared.checkpoint_wanted.load(Ordering::Relaxed) {
        let _ = shared.checkpoint();
    }
    let _ = shared.log.prepare();
    let now = shared.clock.now();
    if let Some(every) = shared.flush_every
        && now.saturating_sub(*last_flush) >= every
    {
        *last_flush = now;
        let _ = shared.log.flush();
    }
    match shared.clean() {
        Ok(Cleaned::Some) => return Next::After(PAUSE),
        Ok(Cleaned::Nothing) | Err(_) => {}
    }
    Next::After(shared.flush_every.unwrap_or(LOOK_EVERY_MAX).min(LOOK_EVERY_MAX))
}
