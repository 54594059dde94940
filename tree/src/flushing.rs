//! A flush that somebody else waits for: a thread of its own makes it, and wakes who polls.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use pagecache::io::Next;
use parking_lot::Mutex;

use crate::{Error, Result, Tree};

/// The outcome of a flush, once it is there.
pub(crate) struct Flushing(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    outcome: Option<Result<usize>>,
    waker: Option<Waker>,
}

impl Flushing {
    /// Starts the flush; where the jobs of the store run on the caller's own thread, it is made at once.
    pub(crate) fn start(tree: &Tree) -> Flushing {
        let state = Arc::new(Mutex::new(State::default()));
        let job = {
            let (tree, told) = (tree.clone(), Told(state.clone()));
            let mut work = Some((tree, told));
            move || {
                if let Some((tree, told)) = work.take() {
                    let outcome = tree.flush();
                    // Before anybody hears of it: who then closes the store finds this handle gone.
                    drop(tree);
                    told.tell(outcome);
                }
                Next::Done
            }
        };
        match tree.core.pages.spawn("flush", Box::new(job)) {
            Ok(Some(_runs_alone)) => {}
            // No thread could be had, or none is wanted: the job was dropped, and has told that it was.
            Ok(None) | Err(_) => state.lock().outcome = Some(tree.flush()),
        }
        Flushing(state)
    }
}

impl Future for Flushing {
    type Output = Result<usize>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut state = self.0.lock();
        match state.outcome.clone() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The duty to tell an outcome: whoever drops it without one says that the flush was not made.
struct Told(Arc<Mutex<State>>);

impl Told {
    fn tell(self, outcome: Result<usize>) {
        self.0.lock().outcome = Some(outcome);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let lost = || Err(Error::ReportableBug("the thread that was to flush has ended before".to_owned()));
        state.outcome.get_or_insert_with(lost);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::Arc,
        task::{Context, Poll, Wake, Waker},
        thread::{self, Thread},
    };

    use crate::{Config, Result};

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn what_was_written_before_the_call_is_durable_when_it_is_ready() {
        fn is_sent<T: Send + 'static>(future: T) -> T {
            future
        }
        let db = Config::new().temporary(true).flush_every_ms(None).open().unwrap();
        for round in 0..20_u8 {
            let lsn = db.put([round], "v").unwrap();
            assert!(db.durable_lsn() < lsn, "round {round}");
            let bytes: Result<usize> = block_on(is_sent(db.flush_async()));
            assert!(bytes.unwrap() > 0 && db.durable_lsn() >= lsn, "round {round}");
        }
        drop(db.flush_async());
        let both = (db.flush_async(), db.flush_async());
        block_on(both.0).unwrap();
        block_on(both.1).unwrap();
    }

    #[test]
    fn who_was_told_may_close_the_database() {
        for _ in 0..50 {
            let db = Config::new().temporary(true).flush_every_ms(None).open().unwrap();
            db.put("k", "v").unwrap();
            let flushed = db.flush_async();
            block_on(flushed).unwrap();
            db.close().unwrap();
        }
    }
}
