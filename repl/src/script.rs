//! Commands that nobody types: from `-c`, from a file or pipe, and from the program's arguments.
//!
//! The first failure stops, reported with its line and column. Input is read and run line by
//! line, and answers are sent before waiting for more, so a program can hold a conversation.

use crate::exit::{Failure, Result};
use crate::lines::Lines;
use crate::parse::command_of;
use crate::report::{Place, report};
use crate::session::{Flow, Session};
use crate::token::{Fault, Form, Span, Word, one_word};
use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

/// Runs the lines of `source`, a file called `name` if it is one.
pub fn run(session: &mut Session<'_>, source: impl Read, name: Option<&Path>) -> Result<()> {
    let mut lines = Lines::new(source);
    loop {
        if lines.would_read() {
            session.send()?;
        }
        let next = lines.next_line().map_err(Failure::io("read", name.unwrap_or(Path::new("the commands"))));
        let next = next.inspect_err(|failure| session.out.say(&format!("repl: {failure}")))?;
        let Some((number, line)) = next else { break };
        let place = Place::Line(name.map(Path::to_owned), number);
        if session.run_line(line, &place)? == Flow::Quit {
            break;
        }
    }
    session.send()
}

/// Runs the command that the program's arguments make. An argument is one word: what begins with
/// a quote or `0x` is read as at the prompt, everything else is taken as it stands, so that what
/// the system's shell has unquoted needs no second quoting.
pub fn run_arguments(session: &mut Session<'_>, arguments: &[Vec<u8>]) -> Result<()> {
    let line = arguments.join(&b' ');
    let ran = match words(arguments).and_then(command_of) {
        Ok((span, command)) => session.run_command(span, command, &line, &Place::Arguments),
        Err(failure) => Err((failure.span(), failure)),
    };
    if let Err((span, failure)) = ran {
        report(&mut session.out, &Place::Arguments, &line, span, &failure);
        return Err(failure);
    }
    session.send()
}

/// The arguments as words, placed as if joined by spaces.
fn words(arguments: &[Vec<u8>]) -> Result<Vec<Word<'_>>> {
    let mut start = 0;
    let mut words = Vec::with_capacity(arguments.len());
    for argument in arguments {
        words.push(word(argument, start)?);
        start += argument.len() + 1;
    }
    Ok(words)
}

fn word(argument: &[u8], start: usize) -> std::result::Result<Word<'_>, Fault> {
    let shift = |span: Span| Span { start: span.start + start, end: span.end + start };
    if !matches!(argument, [b'"' | b'\'', ..] | [b'0', b'x', ..]) {
        let span = shift(Span { start: 0, end: argument.len() });
        return Ok(Word { bytes: Cow::Borrowed(argument), span, form: Form::Bare });
    }
    match one_word(argument) {
        Ok(word) => Ok(Word { span: shift(word.span), ..word }),
        Err(fault) => Err(Fault { span: shift(fault.span), ..fault }),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn arguments_are_words_without_a_second_quoting() {
        let arguments = ["set", "a b;c #d", r#""\x00""#, "0xFF", "it's"].map(|text| text.as_bytes().to_vec());
        let words = words(&arguments).expect("all can be read");
        let got: Vec<&[u8]> = words.iter().map(|word| &*word.bytes).collect();
        assert_eq!(got, [&b"set"[..], b"a b;c #d", b"\0", b"\xFF", b"it's"]);
        assert_eq!(words[2].span.start, 13);
    }
}
