//! Ctrl-C while a command runs at the prompt: the command stops, the session goes on.
//!
//! A second Ctrl-C before the command has noticed the first ends the process, which the store
//! survives like any other crash. Scripts keep the system's default and end at the first.
//!
//! The signal of a file that has reached the process's limit is caught too: the write then fails, and that is told
//! as a full disk.

use crate::exit::{Failure, Result};
use signal_hook::consts::{SIGINT, SIGXFSZ};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lets a write beyond the process's limit on files fail instead of ending the process.
pub fn outlive_file_limits() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Whether the user has asked the running command to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches Ctrl-C from now on.
    pub fn catch(&self) -> io::Result<()> {
        // The order matters: the first signal finds the flag unset and only then sets it.
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&self.0))?;
        flag::register(SIGINT, Arc::clone(&self.0)).map(drop)
    }

    /// Forgets an earlier Ctrl-C. Relaxed: the flag guards no other data.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Fails if Ctrl-C was pressed; `done` says how far the command came.
    pub fn check(&self, done: impl FnOnce() -> String) -> Result<()> {
        // Relaxed: seen a row later, the flag stops the command as well.
        if self.0.load(Ordering::Relaxed) { Err(Failure::Interrupted(done())) } else { Ok(()) }
    }
}
