//! The progress of an import: a bar on a terminal, nothing elsewhere, and the pace at the end.

use crate::output::{grouped, say};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

const BAR: &str = "{bar:30} {bytes} of {total_bytes}, {msg}, {eta} left";
const SPINNER: &str = "{spinner} {bytes}, {msg}";

/// Draws on standard error, if that is a terminal that can redraw a line.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    /// Starts at zero of `bytes`, if it is known how many there are.
    pub fn new(bytes: Option<u64>) -> Progress {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bar = (io::stderr().is_terminal() && !dumb).then(|| draw(bytes));
        Progress { bar, started: Instant::now() }
    }

    /// Shows that `records` were applied, which take the file's first `bytes`.
    pub fn advance(&self, bytes: u64, records: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes.max(bar.position()));
            bar.set_message(format!("{} rows/s", grouped(rate(records, self.started.elapsed()))));
        }
    }

    /// Says a line on standard error, above the bar if there is one.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Removes the bar.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// How long it took and how fast `records` went.
    pub fn pace(&self, records: u64) -> String {
        let elapsed = self.started.elapsed();
        format!("{:.1} s ({} rows/s)", elapsed.as_secs_f64(), grouped(rate(records, elapsed)))
    }
}

fn draw(bytes: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr_with_hz(8));
    let template = if bytes.is_some() { BAR } else { SPINNER };
    // The templates are constants; one that cannot be read would only look different.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("=> ")).with_message("starting")
}

fn rate(records: u64, elapsed: Duration) -> u64 {
    (records as f64 / elapsed.as_secs_f64().max(0.001)) as u64
}
