//! A limit on how long a test may take: what would hang fails instead.
//!
//! A test that hangs leaves its threads behind; they hold only what is the test's own.

use std::{
    panic::resume_unwind,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Runs `test` on a thread of its own and fails if it has not ended after `limit`.
///
/// # Panics
///
/// As `test` does, and if it takes longer than `limit`.
pub fn within<T: Send + 'static>(limit: Duration, test: impl FnOnce() -> T + Send + 'static) -> T {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (ended, end) = channel();
    let runner = thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let outcome = test();
            // Nobody listens any more if the limit has passed.
            let _ = ended.send(());
            outcome
        })
        .expect("a thread starts");
    match end.recv_timeout(limit) {
        // Disconnected: the test has panicked, which `join` passes on.
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            runner.join().unwrap_or_else(|panic| resume_unwind(panic))
        }
        Err(RecvTimeoutError::Timeout) => panic!("{name} hangs: it has not ended after {limit:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{thread::park_timeout, time::Duration};

    use super::within;

    #[test]
    #[should_panic(expected = "hangs: it has not ended after 10ms")]
    fn a_hang_becomes_a_failure() {
        within(Duration::from_millis(10), || park_timeout(Duration::from_secs(5)));
    }

    #[test]
    #[should_panic(expected = "its own words")]
    fn a_panic_is_passed_on() {
        within(Duration::from_secs(60), || panic!("its own words"));
    }

    #[test]
    fn an_outcome_is_returned() {
        assert_eq!(within(Duration::from_secs(60), || 7), 7);
    }
}
