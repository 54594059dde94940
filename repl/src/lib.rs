//! The shell on the store: `repl [PATH]` and then commands, typed, piped or as arguments.
//!
//! [`run`] opens the store, lets one of three doors (the prompt, or the two of a script) feed a
//! session, closes the store and turns how it ended into the exit status. It is a library so that a
//! test can be the shell in a process of its own.

#![forbid(unsafe_code)]

mod cli;
mod command;
mod complete;
mod exit;
mod export;
mod help;
mod history;
mod import;
mod interrupt;
mod lines;
mod output;
mod paint;
mod parse;
mod progress;
mod prompt;
mod quote;
mod report;
mod scan;
mod script;
mod session;
mod size;
mod store;
mod token;
mod typed;

use cli::{Options, Source};
use exit::{Failure, Result, shown};
use output::{grouped, say};
use session::Session;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use store::{Closed, Store};

/// Runs the shell with the program's name and arguments; returns its exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match cli::options(arguments) {
        Ok(options) => options,
        Err(told) => {
            // Help goes to standard output with status 0, mistakes to standard error with 2.
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { 2 } else { 0 });
        }
    };
    let started = Instant::now();
    // Where signals cannot be caught a limit ends the process, which the store survives.
    let _ = interrupt::outlive_file_limits();
    let (store, new) = match open(&options) {
        Ok(opened) => opened,
        Err(failure) => {
            say(&format!("repl: {failure}"));
            return exit::code(&Err(failure), true);
        }
    };
    let opened = Opened { new, took: started.elapsed() };
    let (ended, all_found) = {
        let mut session = Session::new(&store);
        let ended = feed(&mut session, &options, &opened);
        (ended, session.all_found || session.prompt)
    };
    let closed = match store.close() {
        Ok(Closed::Tidied) => Ok(()),
        Ok(Closed::AsFound) => {
            say("repl: the disk is full, so the log was left as it was; nothing is lost");
            Ok(())
        }
        Err(failure) => {
            // What stopped a command may stop the close too, and was told then.
            let told = ended.as_ref().err().map(ToString::to_string);
            if told.as_deref() != Some(&*failure.to_string()) {
                say(&format!("repl: {failure}"));
            }
            Err(failure)
        }
    };
    let ended = match ended {
        // That nobody read to the end is no failure, but losing what was set would be.
        Ok(()) | Err(Failure::OutputClosed) => closed.and(ended),
        Err(failure) => Err(failure),
    };
    exit::code(&ended, all_found)
}

/// How opening went, for the line that greets.
struct Opened {
    new: bool,
    took: Duration,
}

fn open(options: &Options) -> Result<(Store, bool)> {
    let opened = match options.read_only {
        true => Store::open_read_only(&options.path, options.memory).map(|store| (store, false)),
        false => Store::open(&options.path, options.create, options.memory),
    };
    opened.map_err(|failure| match failure {
        Failure::Store(message) if command::find(options.path.as_os_str().as_encoded_bytes()).is_some() => {
            Failure::Store(format!("{message}\n(the first word is the store's path: repl PATH COMMAND ...)"))
        }
        other => other,
    })
}

/// Runs what the chosen door gives.
fn feed(session: &mut Session<'_>, options: &Options, opened: &Opened) -> Result<()> {
    match &options.source {
        Source::Arguments(words) => script::run_arguments(session, words),
        Source::Lines(lines) => script::run(session, lines.as_slice(), None),
        Source::File(path) => {
            let file = File::open(path).map_err(Failure::io("read", path));
            let file = file.inspect_err(|failure| say(&format!("repl: {failure}")))?;
            script::run(session, file, Some(path))
        }
        Source::Standard if io::stdin().is_terminal() => {
            let ended = greet(session.store, opened)
                .and_then(|()| prompt::run(session, options.color, options.history));
            ended.inspect_err(|failure| {
                if !matches!(failure, Failure::OutputClosed) {
                    say(&format!("repl: {failure}"));
                }
            })
        }
        Source::Standard => {
            session.stdin_taken = true;
            script::run(session, io::stdin().lock(), None)
        }
    }
}

/// The one line on opening.
fn greet(store: &Store, opened: &Opened) -> Result<()> {
    let holds = match opened.new {
        true => "new store".to_owned(),
        false => format!("{} records", grouped(store.count()?)),
    };
    let millis = opened.took.as_secs_f64() * 1e3;
    say(&format!("{}: {holds}, opened in {millis:.1} ms; 'help' lists the commands", shown(store.path())));
    Ok(())
}
