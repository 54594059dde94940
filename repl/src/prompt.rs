//! The prompt: rustyline with our completion, hints, colours and history.
//!
//! Ctrl-C drops the line, or stops the running command; Ctrl-D leaves.

use crate::complete::complete;
use crate::exit::{Failure, Result};
use crate::history;
use crate::output::say;
use crate::paint;
use crate::report::Place;
use crate::session::{Flow, Session};
use crate::store::Store;
use crate::typed::Typed;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter};
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, ColorMode, CompletionType, Config, Context, Editor};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

const PROMPT: &str = "repl> ";

/// Reads that may fail in a row because of bytes that are no text.
const GARBLED_MAX: u32 = 100;

/// Asks for commands and runs them until the user leaves.
pub fn run(session: &mut Session<'_>, color: bool, keep_history: bool) -> Result<()> {
    session.prompt = true;
    session.interrupt.catch().map_err(|error| failed(&error))?;
    let color = color && paint::wanted();
    let mut editor = editor(session, color).map_err(|error| failed(&error))?;
    let history = if keep_history { open_history(&mut editor) } else { None };
    let mut garbled = GARBLED_MAX;
    loop {
        session.interrupt.reset();
        match editor.readline(PROMPT) {
            Ok(text) => {
                garbled = GARBLED_MAX;
                remember(&mut editor, history.as_ref(), &text);
                if run_text(session, &text)? == Flow::Quit {
                    return Ok(());
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData && garbled > 0 => {
                garbled -= 1;
                say("what was typed is not UTF-8; \"\\xNN\" in quotes stands for such a byte");
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// Runs what was typed or pasted, which may be several lines; the first failure stops them.
fn run_text(session: &mut Session<'_>, text: &str) -> Result<Flow> {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let ran = session.run_line(line.as_bytes(), &Place::Prompt);
        // At a prompt the reader of a pipe behind standard output ends the session, nothing else.
        match ran.and_then(|flow| session.send().map(|()| flow)) {
            Ok(Flow::Quit) => return Ok(Flow::Quit),
            Ok(Flow::Continue) => {}
            Err(closed @ Failure::OutputClosed) => return Err(closed),
            Err(_) => {
                let left = lines.len() - at - 1;
                if left > 0 {
                    session.out.say(&format!("{left} more pasted lines were not run"));
                }
                break;
            }
        }
    }
    Ok(Flow::Continue)
}

fn editor<'s>(session: &Session<'s>, color: bool) -> rustyline::Result<Editor<Helper<'s>, FileHistory>> {
    // Data going into a pipe must not mix with the prompt, which then goes to the terminal.
    let behavior = if session.out.terminal { Behavior::Stdio } else { Behavior::PreferTerm };
    let config = Config::builder()
        .max_history_size(history::LINES_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .color_mode(if color { ColorMode::Enabled } else { ColorMode::Disabled })
        .behavior(behavior)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Helper { store: session.store, color }));
    Ok(editor)
}

/// The history's file; without one the session goes on, and says so.
fn open_history(editor: &mut Editor<Helper<'_>, FileHistory>) -> Option<PathBuf> {
    let opened = history::file().and_then(|path| {
        let Some(path) = path else { return Ok(None) };
        editor.load_history(&path).map_err(|error| failed(&error))?;
        Ok(Some(path))
    });
    opened.unwrap_or_else(|failure| {
        say(&format!("no history: {failure}"));
        None
    })
}

fn remember(editor: &mut Editor<Helper<'_>, FileHistory>, file: Option<&PathBuf>, line: &str) {
    let added = editor.add_history_entry(history::kept(line)).unwrap_or(false);
    if added
        && let Some(path) = file
        && let Err(error) = editor.append_history(path)
    {
        say(&format!("the history could not be written: {error}"));
    }
}

fn failed(error: &dyn std::error::Error) -> Failure {
    let source = io::Error::other(error.to_string());
    Failure::Io { doing: "use", path: "the terminal".into(), source }
}

/// What rustyline asks while a line is typed.
struct Helper<'s> {
    store: &'s Store,
    color: bool,
}

impl rustyline::Helper for Helper<'_> {}

impl Validator for Helper<'_> {}

impl Completer for Helper<'_> {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let found = complete(self.store, line.get(..pos).unwrap_or_default());
        Ok((found.start, found.words))
    }
}

/// A hint to look at; there is nothing in it to insert.
struct Signature(String);

impl Hint for Signature {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Helper<'_> {
    type Hint = Signature;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Signature> {
        // Without colours nobody could tell the hint from what was typed.
        if pos < line.len() || !self.color {
            return None;
        }
        Typed::read(line.as_bytes())?.hint().map(Signature)
    }
}

impl Highlighter for Helper<'_> {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.color { Cow::Owned(paint::line(line)) } else { Cow::Borrowed(line) }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.color { Cow::Owned(paint::hint(hint)) } else { Cow::Borrowed(hint) }
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.color && kind != CmdKind::MoveCursor
    }
}
