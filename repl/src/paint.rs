//! Colours of the line being typed: commands and options that are known or not, quotes, faults.
//!
//! Nothing is told by colour alone: pressing Enter says the same in words.

use crate::command::{self, COMMANDS, Spec};
use crate::token::{Form, Lexeme, Span, Tokens, Word};

const KNOWN: &str = "\x1b[1m";
const OPTION: &str = "\x1b[36m";
const QUOTED: &str = "\x1b[32m";
const WRONG: &str = "\x1b[31m";
const FAULT: &str = "\x1b[4;31m";
const FAINT: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";

/// Whether the environment lets a terminal have colours.
pub fn wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The hint behind the line.
pub fn hint(text: &str) -> String {
    format!("{FAINT}{text}{PLAIN}")
}

/// The line, painted; the text between the colours is the line's own.
pub fn line(line: &str) -> String {
    let mut painted = String::with_capacity(line.len() + 32);
    let mut from = 0;
    let mut command = None;
    for lexeme in Tokens::new(line.as_bytes()) {
        let (span, style) = match lexeme {
            Ok(Lexeme::Word(word)) => {
                let style = style_of(&word, command, word.span.end == line.len());
                command = command.or(Some(command::find(&word.bytes)));
                (word.span, style)
            }
            Ok(Lexeme::Comment(span)) => (span, Some(FAINT)),
            Ok(Lexeme::Separator(span)) => {
                command = None;
                (span, None)
            }
            Err(fault) if fault.open => (fault.span, Some(QUOTED)),
            Err(fault) => (fault.span, Some(FAULT)),
        };
        if let (Some(style), Some((before, text))) = (style, slices(line, from, span)) {
            painted.extend([before, style, text, PLAIN]);
            from = span.end;
        }
    }
    painted.push_str(line.get(from..).unwrap_or_default());
    painted
}

fn slices(line: &str, from: usize, span: Span) -> Option<(&str, &str)> {
    Some((line.get(from..span.start)?, line.get(span.start..span.end)?))
}

/// How a word looks: `command` is none before the command's name, and holds none after an
/// unknown one. A word that is still being typed is not yet wrong.
fn style_of(
    word: &Word<'_>,
    command: Option<Option<&'static Spec>>,
    being_typed: bool,
) -> Option<&'static str> {
    let Some(spec) = command else {
        let mut names = COMMANDS.iter().flat_map(|spec| spec.names.iter());
        return match command::find(&word.bytes) {
            Some(_) => Some(KNOWN),
            None if being_typed && names.any(|name| name.as_bytes().starts_with(&word.bytes)) => None,
            None => Some(WRONG),
        };
    };
    match word.form {
        Form::Bare if word.bytes.starts_with(b"--") => {
            let name = word.bytes.split(|byte| *byte == b'=').next().unwrap_or_default();
            spec?.option(name).map(|_| OPTION)
        }
        Form::Bare => None,
        Form::Literal | Form::Escaped | Form::Hex => Some(QUOTED),
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    fn unpainted(text: &str) -> String {
        let mut parts = text.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + part.split_once('m').map_or("", |(_, rest)| rest))
    }

    #[test]
    fn paint_changes_no_text() {
        let lines = [
            "",
            "set k 'a b' # é",
            "bogus \"\\q\" x; get 0xZZ",
            "set 'open",
            "scan --limit 5 --no",
            "é\"\\é\" ü",
        ];
        for text in lines {
            assert_eq!(unpainted(&line(text)), text);
        }
    }

    #[test]
    fn unknown_commands_are_red_once_they_cannot_become_known() {
        assert!(line("bogus ").contains("\x1b[31mbogus"));
        assert_eq!(line("sc"), "sc");
        assert!(line("sc x").contains("\x1b[31msc"));
        assert!(line("get k; bogus").contains("\x1b[31mbogus"));
    }
}
