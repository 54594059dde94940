//! Background jobs on threads of their own.
//!
//! * A wake is never lost: it sets a flag that the thread clears only right before a step.
//! * After `join` the job and all that it held are gone, whether it said `Done` or panicked.

use std::{
    fmt, io,
    sync::Arc,
    thread::{self, JoinHandle, ThreadId},
    time::Instant,
};

use super::{Job, Next, Spawner, Worker};
use crate::sync::{Condvar, Mutex};

/// Bytes of a thread's stack: the deepest job uses a tenth, and the system counts all of it where a limit is
/// set on a process's data.
const STACK_BYTES: usize = 512 << 10;

/// Runs each job on a named thread, which sleeps between steps as the job's [`Next`] says.
///
/// A panic in a job ends its thread, and `join` returns; nobody else is told. A job that others wait
/// for has to catch its own panics, or hold a guard that reports them when dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadSpawner;

impl Spawner for ThreadSpawner {
    fn spawn(&self, name: &'static str, job: Job) -> io::Result<Box<dyn Worker>> {
        let alarm = Arc::new(Alarm::default());
        let heard = Arc::clone(&alarm);
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        let handle = thread.spawn(move || run(job, &heard))?;
        let id = handle.thread().id();
        Ok(Box::new(ThreadWorker { name, id, alarm, handle: Mutex::new(Some(handle)) }))
    }

    fn is_inline(&self) -> bool {
        false
    }
}

fn run(mut job: Job, alarm: &Alarm) {
    loop {
        let next = job();
        match next {
            Next::Done => return,
            Next::Again => alarm.clear(),
            Next::WhenWoken => alarm.wait(None),
            // A time beyond the clock's range is as good as never.
            Next::After(pause) => alarm.wait(Instant::now().checked_add(pause)),
        }
    }
}

/// A flag that a thread can sleep on.
#[derive(Debug, Default)]
struct Alarm {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Alarm {
    fn ring(&self) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }

    fn clear(&self) {
        *self.woken.lock() = false;
    }

    /// Sleeps until the alarm rings or the time has come, and clears it.
    fn wait(&self, until: Option<Instant>) {
        let mut woken = self.woken.lock();
        while !*woken {
            match until {
                None => self.changed.wait(&mut woken),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if self.changed.wait_for(&mut woken, left).timed_out() {
                        break;
                    }
                }
            }
        }
        *woken = false;
    }
}

struct ThreadWorker {
    name: &'static str,
    id: ThreadId,
    alarm: Arc<Alarm>,
    /// Held while joining, so that every caller of `join` waits for the same end.
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for ThreadWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadWorker").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Worker for ThreadWorker {
    fn wake(&self) {
        self.alarm.ring();
    }

    fn join(&self) {
        // A job that drops the last handle of its own store would wait for itself.
        if thread::current().id() == self.id {
            return;
        }
        if let Some(handle) = self.handle.lock().take() {
            // The panic hook has reported a panic already, and the job has told those who wait.
            let _ended = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
            mpsc,
        },
        thread,
        time::{Duration, Instant},
    };

    use super::{Next, Spawner, ThreadSpawner};

    const LONG: Duration = Duration::from_secs(600);
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_job_steps_again_until_it_is_done_on_its_named_thread() {
        let steps = Arc::new(AtomicU32::new(0));
        let (named, name) = mpsc::channel();
        let counted = Arc::clone(&steps);
        let worker = ThreadSpawner
            .spawn(
                "stepper",
                Box::new(move || {
                    if counted.fetch_add(1, SeqCst) < 4 {
                        return Next::Again;
                    }
                    named.send(thread::current().name().map(str::to_owned)).unwrap();
                    Next::Done
                }),
            )
            .unwrap();
        worker.join();
        assert_eq!(steps.load(SeqCst), 5);
        assert_eq!(name.recv().unwrap().as_deref(), Some("stepper"));
        worker.join();
    }

    #[test]
    fn a_wake_ends_a_sleep_of_either_kind() {
        for sleep in [Next::WhenWoken, Next::After(LONG), Next::After(Duration::MAX)] {
            let (stepped, step) = mpsc::channel();
            let stop = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&stop);
            let worker = ThreadSpawner
                .spawn(
                    "sleeper",
                    Box::new(move || {
                        stepped.send(()).unwrap();
                        if told.load(SeqCst) { Next::Done } else { sleep }
                    }),
                )
                .unwrap();
            step.recv_timeout(PATIENCE).unwrap();
            assert!(step.recv_timeout(Duration::from_millis(20)).is_err(), "{sleep:?} does not sleep");
            worker.wake();
            step.recv_timeout(PATIENCE).unwrap();
            stop.store(true, SeqCst);
            worker.wake();
            worker.join();
        }
    }

    #[test]
    fn a_wake_during_a_step_is_not_lost() {
        let (stepped, step) = mpsc::channel();
        let (go, may_end) = mpsc::channel::<Next>();
        let worker = ThreadSpawner
            .spawn(
                "busy",
                Box::new(move || {
                    stepped.send(()).unwrap();
                    may_end.recv().unwrap()
                }),
            )
            .unwrap();
        step.recv_timeout(PATIENCE).unwrap();
        worker.wake();
        go.send(Next::WhenWoken).unwrap();
        step.recv_timeout(PATIENCE).unwrap();
        go.send(Next::Done).unwrap();
        worker.join();
    }

    #[test]
    fn a_pause_ends_by_itself() {
        let start = Instant::now();
        let mut first = true;
        let worker = ThreadSpawner
            .spawn(
                "pausing",
                Box::new(move || {
                    if std::mem::take(&mut first) {
                        Next::After(Duration::from_millis(5))
                    } else {
                        Next::Done
                    }
                }),
            )
            .unwrap();
        worker.join();
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn join_returns_after_a_panic_and_drops_what_the_job_held() {
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let worker = ThreadSpawner
            .spawn(
                "panicking",
                Box::new(move || {
                    let _held = &inside;
                    std::panic::resume_unwind(Box::new("on purpose, past the hook"));
                }),
            )
            .unwrap();
        worker.join();
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn every_join_waits_for_the_end() {
        let done = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&done);
        let worker = ThreadSpawner
            .spawn(
                "slow",
                Box::new(move || {
                    thread::sleep(Duration::from_millis(30));
                    set.store(true, SeqCst);
                    Next::Done
                }),
            )
            .unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    worker.join();
                    assert!(done.load(SeqCst));
                });
            }
        });
    }
}
