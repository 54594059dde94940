//! What a half-typed line asks for next: the one reading that completion and hints share.

use crate::command::{self, Kind, Opt, Spec};
use crate::token::{Form, Lexeme, Span, Tokens, Word};

/// The command being typed.
#[derive(Debug)]
pub struct Typed<'a> {
    /// The finished words, the command's name first.
    words: Vec<Word<'a>>,
    /// The word the cursor is at the end of; empty after a space.
    pub current: &'a [u8],
    /// Where that word begins.
    pub start: usize,
}

/// What the word at the cursor is.
#[derive(Debug)]
pub enum Slot {
    /// The name of a command.
    Command,
    /// The argument at this place, which may be one too many.
    Argument(&'static Spec, usize),
    /// The value of an option.
    Value(&'static Opt),
    /// Nothing that is known.
    Unknown,
}

impl<'a> Typed<'a> {
    /// Reads a line up to the cursor; none in a comment or behind a fault.
    pub fn read(line: &'a [u8]) -> Option<Typed<'a>> {
        let mut typed = Typed { words: Vec::new(), current: b"", start: line.len() };
        for lexeme in Tokens::new(line) {
            match lexeme {
                Ok(Lexeme::Word(word)) if word.span.end == line.len() => typed.take_current(line, word.span),
                Ok(Lexeme::Word(word)) => typed.words.push(word),
                Ok(Lexeme::Separator(_)) => typed.words.clear(),
                Ok(Lexeme::Comment(_)) => return None,
                Err(fault) if fault.span.end == line.len() => typed.take_current(line, fault.span),
                Err(_) => return None,
            }
        }
        Some(typed)
    }

    fn take_current(&mut self, line: &'a [u8], span: Span) {
        self.current = &line[span.start..span.end];
        self.start = span.start;
    }

    /// The options given so far.
    pub fn options(&self) -> Vec<&'static str> {
        let Some(spec) = self.spec() else { return Vec::new() };
        self.words.iter().filter_map(|word| spec.option(&word.bytes)).map(|opt| opt.name).collect()
    }

    /// The command, once its name is finished.
    pub fn spec(&self) -> Option<&'static Spec> {
        command::find(&self.words.first()?.bytes)
    }

    /// What the word at the cursor is.
    pub fn slot(&self) -> Slot {
        if self.words.is_empty() {
            return Slot::Command;
        }
        let Some(spec) = self.spec() else { return Slot::Unknown };
        let mut given = 0;
        let mut options_end = false;
        let mut value_of = None;
        for word in &self.words[1..] {
            let dashed = word.form == Form::Bare && word.bytes.starts_with(b"--");
            if value_of.take().is_some() {
                continue;
            }
            match spec.option(&word.bytes) {
                _ if options_end || !dashed => given += 1,
                None => options_end = *word.bytes == *b"--",
                Some(opt) => value_of = opt.value.map(|_| opt),
            }
        }
        match value_of {
            Some(opt) => Slot::Value(opt),
            None => Slot::Argument(spec, given),
        }
    }

    /// What may follow, in the words of the signature; none if nothing is known to.
    pub fn hint(&self) -> Option<String> {
        let (spec, given) = match self.slot() {
            Slot::Command => (command::find(self.current)?, 0),
            Slot::Argument(spec, given) => (spec, given + usize::from(self.types_argument())),
            Slot::Value(opt) if self.current.is_empty() => {
                return opt.value.map(|(name, _)| name.to_owned());
            }
            Slot::Value(..) | Slot::Unknown => return None,
        };
        let mut used = self.options();
        used.extend(spec.option(self.current).map(|opt| opt.name));
        let rest = spec.remaining(given, &used);
        let value = spec.option(self.current).and_then(|opt| opt.value).map(|(name, _)| name);
        let text = value.into_iter().chain(Some(rest.as_str())).filter(|part| !part.is_empty());
        let text = text.collect::<Vec<_>>().join(" ");
        let space = if self.current.is_empty() { "" } else { " " };
        (!text.is_empty()).then(|| format!("{space}{text}"))
    }

    fn types_argument(&self) -> bool {
        !self.current.is_empty() && !self.current.starts_with(b"--")
    }
}

impl Slot {
    /// What completes the word.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Slot::Argument(spec, given) => spec.args.get(*given).map(|arg| arg.kind),
            Slot::Value(opt) => opt.value.map(|(_, kind)| kind),
            Slot::Command => Some(Kind::Command),
            Slot::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Typed;

    #[test]
    fn hints_are_what_remains_of_the_signature() {
        let cases = [
            ("", None),
            ("se", None),
            ("set", Some(" K [V] [--from FILE]")),
            ("set ", Some("K [V] [--from FILE]")),
            ("set k", Some(" [V] [--from FILE]")),
            ("set 'a b", Some(" [V] [--from FILE]")),
            ("set k ", Some("[V] [--from FILE]")),
            ("set k v", Some(" [--from FILE]")),
            ("get k; del ", Some("K")),
            ("scan --limit ", Some("N")),
            ("scan --limit", Some(" N [FROM [TO]] [--prefix P] [--reverse]")),
            ("scan --limit 5 ", Some("[FROM [TO]] [--prefix P] [--reverse]")),
            ("scan a b --reverse ", Some("[--prefix P] [--limit N]")),
            ("set -- --limit ", Some("[V] [--from FILE]")),
            ("bogus ", None),
            ("set k # ", None),
        ];
        for (line, want) in cases {
            assert_eq!(
                Typed::read(line.as_bytes()).and_then(|typed| typed.hint()).as_deref(),
                want,
                "{line:?}"
            );
        }
    }
}
