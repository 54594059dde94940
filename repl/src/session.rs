//! A session: runs commands on one store, whichever door they come through.

use crate::exit::{Failure, Result};
use crate::export;
use crate::help;
use crate::import::Import;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::parse::{Command, File, Format, Parser};
use crate::quote::spelled;
use crate::report::{Place, report};
use crate::scan;
use crate::store::Store;
use crate::token::Span;
use std::io::{self, IsTerminal as _};

/// What to do after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Go on.
    Continue,
    /// The user wants to leave.
    Quit,
}

/// Commands, the store they work on and where they print.
pub struct Session<'s> {
    /// The store.
    pub store: &'s Store,
    /// Standard output.
    pub out: Output,
    /// Ctrl-C, if it is caught.
    pub interrupt: Interrupt,
    /// Whether a person is at the prompt, who is told that commands without output worked.
    pub prompt: bool,
    /// Whether the commands themselves come from standard input.
    pub stdin_taken: bool,
    /// Whether no `get` or `del` so far had the answer "no such key".
    pub all_found: bool,
}

impl<'s> Session<'s> {
    /// A session on `store` for commands that do not come from standard input.
    pub fn new(store: &'s Store) -> Session<'s> {
        Session {
            store,
            out: Output::new(),
            interrupt: Interrupt::default(),
            prompt: false,
            stdin_taken: false,
            all_found: true,
        }
    }

    /// Runs the commands of a line up to the first that fails, which is reported. That a key is
    /// not there is an answer and stops nothing.
    pub fn run_line(&mut self, line: &[u8], place: &Place) -> Result<Flow> {
        for item in Parser::new(line) {
            let ran = match item {
                Ok((span, command)) => self.run_command(span, command, line, place),
                Err(failure) => Err((failure.span(), failure)),
            };
            match ran {
                Ok(Flow::Continue) => {}
                Ok(Flow::Quit) => return Ok(Flow::Quit),
                Err((span, failure)) => {
                    report(&mut self.out, place, line, span, &failure);
                    return Err(failure);
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// Runs one command of `line`; a failure comes with its part of the line.
    pub fn run_command(
        &mut self,
        span: Span,
        command: Command<'_>,
        line: &[u8],
        place: &Place,
    ) -> std::result::Result<Flow, (Option<Span>, Failure)> {
        match self.run(command) {
            Err(missing @ Failure::NoSuchKey(_)) => {
                self.all_found = false;
                report(&mut self.out, place, line, Some(span), &missing);
                Ok(Flow::Continue)
            }
            Err(failure) => Err((failure.span().or(Some(span)), failure)),
            Ok(flow) => Ok(flow),
        }
    }

    fn run(&mut self, command: Command<'_>) -> Result<Flow> {
        if command.writes() {
            self.store.writable()?;
        }
        match command {
            Command::Set { key, value } => {
                self.store.set(&key, &value)?;
                self.done();
            }
            Command::SetFrom { key, file } => {
                self.store.set_from(&key, &file)?;
                self.done();
            }
            Command::Get { key } => self.get(&key)?,
            Command::Del { key } => {
                if !self.store.del(&key)? {
                    return Err(Failure::NoSuchKey(key.into_owned()));
                }
                self.done();
            }
            Command::Scan(scan) => scan::run(self.store, &mut self.out, &scan, &self.interrupt)?,
            Command::Count => self.out.line(&self.store.count()?.to_string())?,
            Command::Import { file, format, flush_every } => self.import(&file, format, flush_every)?,
            Command::Export { file, replace } => {
                export::run(self.store, &mut self.out, &file, replace, &self.interrupt)?;
            }
            Command::Flush => {
                self.store.flush()?;
                self.done();
            }
            Command::Compact => {
                self.store.compact()?;
                self.done();
            }
            Command::Stats { profile: true } => self.out.write(self.store.profile().as_bytes())?,
            Command::Stats { profile: false } => {
                for (name, figure) in self.store.stats()? {
                    self.out.line(&format!("{name}\t{figure}"))?;
                }
            }
            Command::Help(verb) => self.out.write(help::text(verb).as_bytes())?,
            Command::Quit => return Ok(Flow::Quit),
        }
        Ok(Flow::Continue)
    }

    fn get(&mut self, key: &[u8]) -> Result<()> {
        let missing = || Failure::NoSuchKey(key.to_vec());
        if self.out.terminal {
            let value = self.store.get(key)?.ok_or_else(missing)?;
            return self.out.line(&spelled(&value));
        }
        if !self.store.copy(key, |part| self.out.write(part))? {
            return Err(missing());
        }
        self.out.write(b"\n")
    }

    fn import(&mut self, file: &File, format: Format, flush_every: Option<u64>) -> Result<()> {
        if *file == File::Standard && (self.stdin_taken || io::stdin().is_terminal()) {
            let message = "standard input holds the commands, so it cannot be imported; name a file, \
                           or give the command as an argument: repl PATH import -";
            return Err(Failure::usage(None, message));
        }
        Import { format, flush_every }.run(self.store, &mut self.out, file, &self.interrupt)
    }

    /// Sends the answers so far; if that fails, says so.
    pub fn send(&mut self) -> Result<()> {
        self.out.flush().inspect_err(|failure| {
            if !matches!(failure, Failure::OutputClosed) {
                self.out.say(&format!("repl: {failure}"));
            }
        })
    }

    fn done(&mut self) {
        if self.prompt {
            self.out.say("ok");
        }
    }
}
