//! Histograms against sorted values, and the table.

use std::{sync::Arc, thread, time::Duration};

use super::{BUCKETS, Measured, Metrics, Unit, Work, bucket_of, top_of};
use crate::{io::Clock, sync::Mutex};

#[derive(Clone, Copy, Debug)]
enum What {
    Work,
    Weight,
}

impl Measured for What {
    const ALL: &'static [(&'static str, Unit)] = &[("work", Unit::Time), ("weight", Unit::Bytes)];

    fn index(self) -> usize {
        self as usize
    }
}

/// Moves by a step at each look.
#[derive(Debug)]
struct Steps(Mutex<(Duration, Duration)>);

impl Clock for Steps {
    fn now(&self) -> Duration {
        let mut state = self.0.lock();
        let (now, step) = *state;
        state.0 = now + step;
        state.0
    }
}

fn on(step: Duration) -> Metrics<What> {
    Metrics::on(Arc::new(Steps(Mutex::new((Duration::ZERO, step)))))
}

#[test]
fn every_work_has_a_name_of_its_own_at_its_place() {
    assert_eq!(Work::NamesSync.index() + 1, Work::ALL.len());
    assert_eq!(Work::ALL[Work::Checkpoint.index()].0, "checkpoint");
    let names: std::collections::BTreeSet<&str> = Work::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), Work::ALL.len());
}

#[test]
fn buckets_are_in_order_and_an_eighth_wide_at_most() {
    let mut last = None;
    for bucket in 0..BUCKETS {
        let top = top_of(bucket);
        assert_eq!(bucket_of(top), bucket, "top {top}");
        let first = last.map_or(0, |last: u64| last + 1);
        assert_eq!(bucket_of(first), bucket, "first {first}");
        assert!(top - first <= first / 8, "{first}..={top}");
        last = Some(top);
    }
    assert_eq!(last, Some(u64::MAX));
}

#[test]
fn what_is_read_is_what_was_noted_to_an_eighth() {
    let metrics = on(Duration::ZERO);
    let mut values: Vec<u64> = (0..10_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9) % 1_000_003).collect();
    values.iter().for_each(|value| metrics.note(What::Weight, *value));
    values.sort_unstable();
    let profile = metrics.profile();
    let row = profile.row("weight").expect("it is measured");
    assert_eq!((row.count, row.sum), (10_000, values.iter().sum()));
    assert_eq!((row.min, row.max), (values[0], values[9_999]));
    for (got, rank) in [(row.p50, 5_000), (row.p90, 9_000), (row.p99, 9_900), (row.p999, 9_990)] {
        let exact = values[rank - 1];
        assert!(exact <= got && got <= exact + exact / 8, "rank {rank}: {got} for {exact}");
    }
    assert_eq!(profile.row("work").map(|row| (row.count, row.min, row.p50)), Some((0, 0, 0)));
}

#[test]
fn a_time_ends_where_its_scope_does_also_by_a_panic() {
    let metrics = on(Duration::from_micros(3));
    drop(metrics.time(What::Work));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _timing = metrics.time(What::Work);
        panic!("in the middle");
    }));
    assert!(unwound.is_err());
    let row = *metrics.profile().row("work").expect("it is measured");
    assert_eq!((row.count, row.sum, row.min, row.max), (2, 6_000, 3_000, 3_000));
}

#[test]
fn nothing_is_lost_among_threads() {
    let metrics = on(Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (1..=1_000).for_each(|value| metrics.note(What::Weight, value)));
        }
    });
    let row = *metrics.profile().row("weight").expect("it is measured");
    assert_eq!((row.count, row.sum, row.min, row.max), (8_000, 8 * 500_500, 1, 1_000));
}

#[test]
fn a_table_shows_what_happened_and_says_when_nothing_was_measured() {
    let metrics = on(Duration::from_micros(1_500));
    drop(metrics.time(What::Work));
    let table = metrics.profile().to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].ends_with("max") && lines[1].starts_with("work"), "{table}");
    assert!(lines[1].contains("1.5 ms"), "{table}");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");

    let off: Metrics<What> = Metrics::off();
    drop(off.time(What::Work));
    off.note(What::Weight, 1);
    assert!(!off.is_on() && off.profile().rows().is_empty());
    assert!(off.profile().to_string().contains("`timing` is off"));
}
