//! How fast writers may go while the log fills faster than checkpoints shorten it.
//!
//! * PACE-1: from a third of the way between the length at which a checkpoint is asked for and a full log, writers
//!   pause a millisecond at a time, at first now and then, in the end after each change. So they slow down to what
//!   the checkpoint takes, and hardly ever find the log full and have to take one themselves.
//!
//! Pauses are made without a guard and without a reservation.

use std::time::Duration;

use crate::{
    ids::Lsn,
    sync::{AtomicU64, Ordering},
};

/// One pause.
const PAUSE: Duration = Duration::from_millis(1);
/// Pauses made at once, by who has logged as much at once; what is below so many bytes owes one.
const PAUSES_MAX: u64 = 8;
const PAUSE_BYTES_MIN: u64 = 4 << 10;
/// Bytes logged between two pauses half way to a full log.
const BETWEEN_BYTES: u64 = 64 << 10;

/// Lengths of the log's tail, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Pauses begin.
    from: u64,
    /// Every change pauses.
    full: u64,
}

impl Marks {
    /// Between the length at which a checkpoint is asked for, and that which no tail should exceed.
    pub(super) fn new(asked: u64, full: u64) -> Marks {
        Marks { from: asked + full.saturating_sub(asked) / 3, full }
    }

    /// Bytes that may be logged between two pauses; `None` if there is to be none.
    fn between(self, tail: u64) -> Option<u64> {
        let over = tail.checked_sub(self.from).filter(|over| *over > 0)?;
        let left = self.full.saturating_sub(tail);
        Some((BETWEEN_BYTES as u128 * u128::from(left) / u128::from(over)) as u64)
    }
}

/// Where the next pause is due.
#[derive(Debug, Default)]
pub(super) struct Pace {
    at: AtomicU64,
}

impl Pace {
    /// How long a writer pauses whose change ended at `lsn`, the tail being as long as that.
    pub(super) fn pause(&self, marks: Marks, lsn: Lsn, tail: u64) -> Option<Duration> {
        let between = marks.between(tail)?;
        let now = lsn.cast_unsigned();
        // Relaxed: a position of its own; who loses the race leaves the pause to who won it.
        let due = self.at.load(Ordering::Relaxed);
        if now < due && due - now <= between {
            return None;
        }
        let next = now.saturating_add(between);
        self.at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        // The first one of all owes nothing for what came before.
        let owed = if due == 0 { 1 } else { now.saturating_sub(due) / between.max(PAUSE_BYTES_MIN) + 1 };
        Some(PAUSE * owed.min(PAUSES_MAX) as u32)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{BETWEEN_BYTES, Marks, PAUSE, PAUSES_MAX, Pace};

    const MARKS: Marks = Marks { from: 80 << 20, full: 120 << 20 };

    #[test]
    fn pauses_begin_rarely_and_end_after_each_change() {
        assert_eq!(Marks::new(60 << 20, 120 << 20).from, 80 << 20);
        assert_eq!(MARKS.between(80 << 20), None);
        assert_eq!(MARKS.between(100 << 20), Some(BETWEEN_BYTES));
        assert_eq!(MARKS.between(120 << 20), Some(0));
        assert_eq!(MARKS.between(200 << 20), Some(0), "beyond what should be");
        let steps: Vec<u64> = (81..=120).map(|mib| MARKS.between(mib << 20).unwrap()).collect();
        assert!(steps.is_sorted_by(|before, after| before > after), "{steps:?}");
        assert_eq!(Marks::new(10, 5).between(11), Some(0), "marks the wrong way round stop nobody for good");
    }

    #[test]
    fn one_writer_pauses_for_what_was_logged() {
        let pace = Pace::default();
        let pause = |lsn, tail_mib: u64| pace.pause(MARKS, lsn, tail_mib << 20);
        let step = BETWEEN_BYTES as i64;
        assert_eq!(pause(1000, 60), None);
        assert_eq!(pause(1000, 100), Some(PAUSE));
        assert_eq!(pause(1000 + step - 1, 100), None, "it was paid for");
        assert_eq!(pause(1000 + step, 100), Some(PAUSE));
        assert_eq!(pause(1000 + 5 * step, 100), Some(PAUSE * 4), "a large change pauses longer");
        assert_eq!(pause(1000 + 900 * step, 100), Some(PAUSE * PAUSES_MAX as u32), "not for ever");
        // A pause that was due far ahead, when there was room, is due at once when there is none.
        assert_eq!(pause(1000 + 901 * step, 81), Some(PAUSE));
        assert_eq!(pause(1001 + 901 * step, 119), Some(PAUSE));
        for change in 0..5 {
            assert_eq!(pause(1002 + 901 * step + 200 * change, 120), Some(PAUSE), "each");
        }
    }
}
