//! Words to commands, checked against the table in [`crate::command`].
//!
//! A bare word that begins with `--` is an option (`--name VALUE` or `--name=VALUE`) until a bare
//! `--` says that only arguments follow; a quoted word is never an option. Commands come one at
//! a time, so those before a fault have run when it is met.

use crate::command::{self, COMMANDS, Kind, Spec, Verb};
use crate::exit::{Failure, NAMED_COLUMNS, Result};
use crate::output::spelled_within;
use crate::quote::harmless;
use crate::token::{Form, Lexeme, Span, Tokens, Word};
use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A file named in a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// `-`: standard input or output.
    Standard,
    /// A file by its path.
    At(PathBuf),
}

/// What each line of an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key TAB value` in words.
    Tsv,
    /// A key.
    Lines,
}

/// Which records `scan` shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// The first key, inclusive.
    pub from: Option<Vec<u8>>,
    /// The last key, exclusive.
    pub to: Option<Vec<u8>>,
    /// What each key begins with.
    pub prefix: Option<Vec<u8>>,
    /// From the greatest key down.
    pub reverse: bool,
    /// How many at most; `Some(0)` for all.
    pub limit: Option<u64>,
}

/// A command that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Set a record to what a file holds.
    SetFrom {
        key: Cow<'a, [u8]>,
        file: PathBuf,
    },
    /// Set a record.
    Set {
        key: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
    },
    /// Print a value.
    Get {
        key: Cow<'a, [u8]>,
    },
    /// Delete a record.
    Del {
        key: Cow<'a, [u8]>,
    },
    /// Print records.
    Scan(Scan),
    /// Print the number of records.
    Count,
    /// Read records from a file.
    Import {
        file: File,
        format: Format,
        flush_every: Option<u64>,
    },
    /// Write all records.
    Export {
        file: File,
        replace: bool,
    },
    /// Make everything durable.
    Flush,
    Compact,
    /// Print figures.
    Stats {
        profile: bool,
    },
    /// Explain.
    Help(Option<Verb>),
    /// Leave.
    Quit,
}

impl Command<'_> {
    /// True if it changes the store.
    pub fn writes(&self) -> bool {
        matches!(self, Command::Set { .. } | Command::Del { .. } | Command::Import { .. } | Command::Compact)
    }

    /// Which command it is.
    #[cfg(test)]
    pub fn verb(&self) -> Verb {
        match self {
            Command::Set { .. } | Command::SetFrom { .. } => Verb::Set,
            Command::Get { .. } => Verb::Get,
            Command::Del { .. } => Verb::Del,
            Command::Scan(_) => Verb::Scan,
            Command::Count => Verb::Count,
            Command::Import { .. } => Verb::Import,
            Command::Export { .. } => Verb::Export,
            Command::Flush => Verb::Flush,
            Command::Compact => Verb::Compact,
            Command::Stats { .. } => Verb::Stats,
            Command::Help(_) => Verb::Help,
            Command::Quit => Verb::Quit,
        }
    }
}

/// Reads the commands of a line.
#[derive(Debug)]
pub struct Parser<'a> {
    tokens: Tokens<'a>,
}

impl<'a> Parser<'a> {
    /// Reads `line` from its beginning.
    pub fn new(line: &'a [u8]) -> Parser<'a> {
        Parser { tokens: Tokens::new(line) }
    }

    /// The words up to the next separator or the end; none if nothing is left.
    fn words(&mut self) -> Result<Vec<Word<'a>>> {
        let mut words = Vec::new();
        for lexeme in self.tokens.by_ref() {
            match lexeme? {
                Lexeme::Word(word) => words.push(word),
                Lexeme::Comment(_) => {}
                Lexeme::Separator(_) if words.is_empty() => {}
                Lexeme::Separator(_) => break,
            }
        }
        Ok(words)
    }
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<(Span, Command<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.words() {
            Err(failure) => Some(Err(failure)),
            Ok(words) if words.is_empty() => None,
            Ok(words) => Some(command_of(words)),
        }
    }
}

/// Reads one command from its words, the first of which names it.
pub fn command_of(words: Vec<Word<'_>>) -> Result<(Span, Command<'_>)> {
    let mut words = words.into_iter();
    let Some(name) = words.next() else {
        return Err(Failure::usage(None, "a command is missing; 'help' lists them"));
    };
    let span = name.span;
    let Some(spec) = command::find(&name.bytes) else {
        return Err(unknown_command(&name));
    };
    Arguments::sort(spec, span, words)?.build().map(|command| (span, command))
}

fn unknown_command(name: &Word<'_>) -> Failure {
    let names = COMMANDS.iter().flat_map(|spec| spec.names.iter().copied());
    let lower = name.bytes.to_ascii_lowercase();
    let advice = match command::nearest(&lower, names) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "'help' lists the commands".into(),
    };
    let shown = spelled_within(&name.bytes, NAMED_COLUMNS);
    Failure::usage(Some(name.span), format!("unknown command {shown}; {advice}"))
}

/// The words of one command, sorted into arguments and options.
struct Arguments<'a> {
    spec: &'static Spec,
    name: Span,
    args: Vec<Word<'a>>,
    opts: Vec<(&'static str, Option<Word<'a>>)>,
}

impl<'a> Arguments<'a> {
    fn sort(
        spec: &'static Spec,
        name: Span,
        mut words: impl Iterator<Item = Word<'a>>,
    ) -> Result<Arguments<'a>> {
        let mut sorted = Arguments { spec, name, args: Vec::new(), opts: Vec::new() };
        let mut options_end = false;
        while let Some(word) = words.next() {
            if options_end || word.form != Form::Bare || !word.bytes.starts_with(b"--") {
                sorted.take_argument(word)?;
            } else if *word.bytes == *b"--" {
                options_end = true;
            } else {
                sorted.take_option(word, &mut words)?;
            }
        }
        match spec.args.get(sorted.args.len()) {
            Some(arg) if arg.required => {
                let message = format!("{} is missing; usage: {}", arg.name, spec.signature());
                Err(Failure::usage(Some(sorted.end()), message))
            }
            _ => Ok(sorted),
        }
    }

    fn take_argument(&mut self, word: Word<'a>) -> Result<()> {
        if self.args.len() == self.spec.args.len() {
            let message =
                format!("one word too many (quote what holds spaces); usage: {}", self.spec.signature());
            return Err(Failure::usage(Some(word.span), message));
        }
        self.args.push(word);
        Ok(())
    }

    fn take_option(&mut self, word: Word<'a>, rest: &mut impl Iterator<Item = Word<'a>>) -> Result<()> {
        let (name, inline) = split_option(&word)?;
        let Some(opt) = self.spec.option(&name) else {
            let advice = match command::nearest(&name, self.spec.opts.iter().map(|opt| opt.name)) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "quote it if it is text".into(),
            };
            let message = format!("{} has no option {}; {advice}", self.spec.name(), spelled_option(&name));
            return Err(Failure::usage(Some(word.span), message));
        };
        if self.opts.iter().any(|(given, _)| *given == opt.name) {
            return Err(Failure::usage(Some(word.span), format!("{} is given twice", opt.name)));
        }
        let value = match (opt.value, inline) {
            (None, Some(_)) => {
                return Err(Failure::usage(Some(word.span), format!("{} takes no value", opt.name)));
            }
            (None, None) => None,
            (Some(_), Some(inline)) => Some(inline),
            (Some((value, _)), None) => Some(rest.next().ok_or_else(|| {
                Failure::usage(Some(word.span), format!("{} needs a value: {} {value}", opt.name, opt.name))
            })?),
        };
        self.opts.push((opt.name, value));
        Ok(())
    }

    /// Where the command stops: the place of what is missing.
    fn end(&self) -> Span {
        let ends = self.args.iter().chain(self.opts.iter().filter_map(|(_, value)| value.as_ref()));
        let last = ends.map(|word| word.span.end).fold(self.name.end, usize::max);
        Span { start: last, end: last + 1 }
    }

    fn argument(&mut self, at: usize) -> Option<Word<'a>> {
        (at < self.args.len()).then(|| {
            let word = &mut self.args[at];
            Word { bytes: std::mem::take(&mut word.bytes), span: word.span, form: word.form }
        })
    }

    /// An argument that [`Arguments::sort`] has found to be there.
    fn bytes(&mut self, at: usize) -> Cow<'a, [u8]> {
        self.argument(at).map(|word| word.bytes).unwrap_or_default()
    }

    fn option(&mut self, name: &str) -> Option<Word<'a>> {
        let at = self.opts.iter().position(|(given, _)| *given == name)?;
        self.opts.swap_remove(at).1
    }

    fn switch(&self, name: &str) -> bool {
        self.opts.iter().any(|(given, _)| *given == name)
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(word) = self.option(name) else { return Ok(None) };
        let number =
            std::str::from_utf8(&word.bytes).ok().and_then(|text| text.replace('_', "").parse().ok());
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(Failure::usage(Some(word.span), format!("{name} needs a whole number"))),
        }
    }

    fn choice(&mut self, name: &str) -> Result<Option<&'static str>> {
        let Some(word) = self.option(name) else { return Ok(None) };
        let Some((_, Kind::OneOf(choices))) = self.spec.option(name.as_bytes()).and_then(|opt| opt.value)
        else {
            return Ok(None);
        };
        match choices.iter().find(|choice| choice.as_bytes() == &*word.bytes) {
            Some(choice) => Ok(Some(choice)),
            None => Err(Failure::usage(Some(word.span), format!("{name} is one of {}", choices.join(", ")))),
        }
    }

    fn build(mut self) -> Result<Command<'a>> {
        Ok(match self.spec.verb {
            Verb::Set => self.set()?,
            Verb::Get => Command::Get { key: self.bytes(0) },
            Verb::Del => Command::Del { key: self.bytes(0) },
            Verb::Scan => Command::Scan(Scan {
                from: self.argument(0).map(|word| word.bytes.into_owned()),
                to: self.argument(1).map(|word| word.bytes.into_owned()),
                prefix: self.option("--prefix").map(|word| word.bytes.into_owned()),
                reverse: self.switch("--reverse"),
                limit: self.number("--limit")?,
            }),
            Verb::Count => Command::Count,
            Verb::Import => self.import()?,
            Verb::Export => {
                let file = self.argument(0).map_or(File::Standard, file_of);
                Command::Export { file, replace: self.switch("--replace") }
            }
            Verb::Flush => Command::Flush,
            Verb::Compact => Command::Compact,
            Verb::Stats => Command::Stats { profile: self.switch("--profile") },
            Verb::Help => Command::Help(match self.argument(0) {
                None => None,
                Some(word) => Some(command::find(&word.bytes).ok_or_else(|| unknown_command(&word))?.verb),
            }),
            Verb::Quit => Command::Quit,
        })
    }

    fn set(mut self) -> Result<Command<'a>> {
        let end = self.end();
        let (key, value, file) = (self.bytes(0), self.argument(1), self.option("--from"));
        match (value, file) {
            (Some(value), None) => Ok(Command::Set { key, value: value.bytes }),
            (None, Some(word)) => {
                let span = word.span;
                match file_of(word) {
                    File::At(file) => Ok(Command::SetFrom { key, file }),
                    File::Standard => {
                        let message = "--from needs a file: a value's length is known before it is read";
                        Err(Failure::usage(Some(span), message))
                    }
                }
            }
            (Some(value), Some(_)) => {
                Err(Failure::usage(Some(value.span), "the value is given twice, by V and by --from"))
            }
            (None, None) => {
                let message = "V is missing; usage: set K V, or set K --from FILE";
                Err(Failure::usage(Some(end), message))
            }
        }
    }

    fn import(mut self) -> Result<Command<'a>> {
        let file = self.argument(0).map_or(File::Standard, file_of);
        let format = if self.choice("--format")? == Some("lines") { Format::Lines } else { Format::Tsv };
        let flush_every = self.number("--flush-every")?.filter(|every| *every > 0);
        Ok(Command::Import { file, format, flush_every })
    }
}

/// Splits `--name=value`. Only bare words come here, so offsets in bytes and text agree.
fn split_option<'a>(word: &Word<'a>) -> Result<(Vec<u8>, Option<Word<'a>>)> {
    let Some(at) = word.bytes.iter().position(|byte| *byte == b'=') else {
        return Ok((word.bytes.to_vec(), None));
    };
    let span = Span { start: word.span.start + at + 1, end: word.span.end };
    let (name, value) = (word.bytes[..at].to_vec(), word.bytes[at + 1..].to_vec());
    if value.starts_with(b"\"") || value.starts_with(b"'") || value.starts_with(b"0x") {
        // Inside a bare word quotes are text; taking them so here would surprise.
        let message = format!("write {} and the quoted value as two words", spelled_option(&name));
        return Err(Failure::usage(Some(span), message));
    }
    Ok((name, Some(Word { bytes: Cow::Owned(value), span, form: Form::Bare })))
}

/// An option's name for a message: its dashes are not quoted away as those of a key are.
fn spelled_option(name: &[u8]) -> String {
    harmless(&name[..name.len().min(NAMED_COLUMNS)])
}

/// The file a word names: bare `-` is standard input or output, bare `~/` the home folder.
fn file_of(word: Word<'_>) -> File {
    let path = PathBuf::from(OsString::from_vec(word.bytes.into_owned()));
    if word.form != Form::Bare {
        return File::At(path);
    }
    if path.as_os_str() == "-" {
        return File::Standard;
    }
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => File::At(home.join(rest)),
        _ => File::At(path),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
