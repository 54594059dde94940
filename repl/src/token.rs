//! The tokenizer: bytes of a line to words with their places.
//!
//! A word is bare (`user:1`), literal (`'a b'`, nothing is special inside), escaped
//! (`"a\n\x00\u{1F600}"`) or hexadecimal (`0xDEADBEEF`). `;` and the end of a line separate
//! commands; `#` where a word could start opens a comment. Input may hold any bytes.
//!
//! * Every byte string has a spelling (see [`crate::quote`]), and no input panics.
//! * Each lexeme and each fault carries the [`Span`] it was read from, and the tokenizer always
//!   moves forward, so the error caret, the completer and the highlighter share it.
//!
//! What words mean together is [`crate::parse`]'s business.

use std::borrow::Cow;

/// A range of bytes in the line being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset just past the last byte.
    pub end: usize,
}

/// How a word was written; options are recognised in bare words alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Without quotes.
    Bare,
    /// In single quotes, taken as it stands.
    Literal,
    /// In double quotes, with escapes.
    Escaped,
    /// `0x` and pairs of hexadecimal digits.
    Hex,
}

/// One word: the bytes it stands for, and where and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word<'a> {
    /// The bytes meant.
    pub bytes: Cow<'a, [u8]>,
    /// The bytes read.
    pub span: Span,
    /// How it was written.
    pub form: Form,
}

/// One piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lexeme<'a> {
    /// A word.
    Word(Word<'a>),
    /// `;` or a line feed.
    Separator(Span),
    /// `#` to the end of the line.
    Comment(Span),
}

/// What cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The bytes at fault.
    pub span: Span,
    /// What is wrong with them and what would be right.
    pub message: String,
    /// Whether the fault is a quote still open, as while a line is being typed.
    pub open: bool,
}

/// Iterator over the lexemes of a line.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Reads `line` from its beginning.
    pub fn new(line: &'a [u8]) -> Tokens<'a> {
        Tokens { line, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start, end: self.at }
    }

    fn fault<T>(&self, start: usize, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { span: self.span_from(start), message: message.into(), open: false })
    }

    /// Skips what is left of a faulty word, so that reading can go on behind it.
    fn recover(&mut self) {
        self.skip_while(|byte| !ends_word(byte));
    }

    fn bare(&mut self) -> Result<Word<'a>, Fault> {
        let start = self.at;
        self.skip_while(|byte| !ends_word(byte));
        let span = self.span_from(start);
        let text = &self.line[start..self.at];
        match text.strip_prefix(b"0x") {
            None => Ok(Word { bytes: Cow::Borrowed(text), span, form: Form::Bare }),
            Some(digits) => match decode_hex(digits) {
                Some(bytes) => Ok(Word { bytes: Cow::Owned(bytes), span, form: Form::Hex }),
                None => {
                    self.fault(start, "0x needs pairs of hexadecimal digits; quote the word if it is text")
                }
            },
        }
    }

    fn literal(&mut self) -> Result<Word<'a>, Fault> {
        let start = self.at;
        self.at += 1;
        self.skip_while(|byte| byte != b'\'' && byte != b'\n');
        if self.peek() != Some(b'\'') {
            return self.unclosed(start, "this ' is never closed");
        }
        self.at += 1;
        let bytes = Cow::Borrowed(&self.line[start + 1..self.at - 1]);
        self.closed(Word { bytes, span: self.span_from(start), form: Form::Literal })
    }

    fn escaped(&mut self) -> Result<Word<'a>, Fault> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let run = self.at;
            self.skip_while(|byte| !matches!(byte, b'"' | b'\\' | b'\n'));
            bytes.extend_from_slice(&self.line[run..self.at]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut bytes)?,
                _ => return self.unclosed(start, "this \" is never closed"),
            }
        }
        self.at += 1;
        self.closed(Word { bytes: Cow::Owned(bytes), span: self.span_from(start), form: Form::Escaped })
    }

    fn unclosed<T>(&self, start: usize, message: &str) -> Result<T, Fault> {
        Err(Fault { span: self.span_from(start), message: message.into(), open: true })
    }

    /// A quoted word must end where a word may end: `"a"b` is more likely a slip than two words.
    fn closed(&mut self, word: Word<'a>) -> Result<Word<'a>, Fault> {
        if self.peek().is_none_or(ends_word) {
            return Ok(word);
        }
        let start = self.at;
        self.recover();
        self.fault(start, "a space is missing after the closing quote")
    }

    /// Reads one escape at `\`, appending what it stands for.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        let Some(kind) = self.peek() else {
            return self.unclosed(start, "the line ends inside an escape");
        };
        self.at += 1;
        match kind {
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'\\' | b'"' => bytes.push(kind),
            b'x' => match self.line.get(self.at..self.at + 2).and_then(decode_hex) {
                Some(pair) => {
                    self.at += 2;
                    bytes.extend_from_slice(&pair);
                }
                None => return self.bad_escape(start, r"\x needs two hexadecimal digits"),
            },
            b'u' => match self.unicode() {
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                None => return self.bad_escape(start, r"\u needs a code point in braces, as in \u{1F600}"),
            },
            _ => return self.bad_escape(start, r#"unknown escape; known are \n \t \\ \" \xHH \u{1F600}"#),
        }
        Ok(())
    }

    /// Reads `{hex}`: one to six digits of a character that exists.
    fn unicode(&mut self) -> Option<char> {
        let rest = self.line.get(self.at..)?.strip_prefix(b"{")?;
        let len = rest.iter().take(7).position(|&byte| byte == b'}')?;
        let digits = std::str::from_utf8(&rest[..len]).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let found = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
        self.at += len + 2;
        Some(found)
    }

    fn bad_escape<T>(&mut self, start: usize, message: &str) -> Result<T, Fault> {
        // `kind` may be the first byte of a longer character: the span takes all of it.
        self.skip_while(|byte| byte & 0xC0 == 0x80);
        let fault = self.fault(start, message);
        self.skip_while(|byte| byte != b'"' && byte != b'\n');
        self.recover();
        fault
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Lexeme<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        let start = self.at;
        let word = match self.peek()? {
            b';' | b'\n' => {
                self.at += 1;
                return Some(Ok(Lexeme::Separator(self.span_from(start))));
            }
            b'#' => {
                self.skip_while(|byte| byte != b'\n');
                return Some(Ok(Lexeme::Comment(self.span_from(start))));
            }
            b'\'' => self.literal(),
            b'"' => self.escaped(),
            _ => self.bare(),
        };
        Some(word.map(Lexeme::Word))
    }
}

/// Reads `text` as exactly one word, as it would be read on a line of its own.
pub fn one_word(text: &[u8]) -> Result<Word<'_>, Fault> {
    let mut tokens = Tokens::new(text);
    let whole = Span { start: 0, end: text.len() };
    let fault = |message: &str| Fault { span: whole, message: message.into(), open: false };
    match (tokens.next(), tokens.next()) {
        (Some(Ok(Lexeme::Word(word))), None) => Ok(word),
        (Some(Err(found)), _) => Err(found),
        _ => Err(fault("this is not one word")),
    }
}

/// The bytes that a word still being typed stands for so far, if it has a meaning yet.
pub fn decode_unfinished(text: &[u8]) -> Option<Vec<u8>> {
    let closer = match text.first()? {
        quote @ (b'"' | b'\'') => *quote,
        _ => return one_word(text).ok().map(|word| word.bytes.into_owned()),
    };
    let mut finished = text.to_vec();
    finished.push(closer);
    one_word(&finished).ok().map(|word| word.bytes.into_owned())
}

fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';')
}

fn decode_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Form, Lexeme, Tokens, decode_unfinished, one_word};

    #[test]
    fn every_form_means_its_bytes() {
        let cases: &[(&[u8], &[u8], Form)] = &[
            (b"plain", b"plain", Form::Bare),
            (b"it's", b"it's", Form::Bare),
            (b"a#b", b"a#b", Form::Bare),
            (br"C:\new", br"C:\new", Form::Bare),
            (b"\xFF\x00", b"\xFF\x00", Form::Bare),
            (b"0xDEADbeef", b"\xDE\xAD\xBE\xEF", Form::Hex),
            (b"''", b"", Form::Literal),
            (br"'a \n; # b'", br"a \n; # b", Form::Literal),
            (b"\"\"", b"", Form::Escaped),
            (br#""\n\t\\\"\x00\xfF\u{1F600}""#, "\n\t\\\"\0".as_bytes(), Form::Escaped),
        ];
        for (text, want, form) in cases {
            let word = one_word(text).unwrap_or_else(|fault| panic!("{}: {fault:?}", text.escape_ascii()));
            let mut want = want.to_vec();
            if text.ends_with(b"}\"") {
                want.push(0xFF);
                want.extend_from_slice("\u{1F600}".as_bytes());
            }
            assert_eq!(*word.bytes, *want, "{}", text.escape_ascii());
            assert_eq!(word.form, *form, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn faults_say_where() {
        let cases: &[(&[u8], usize, usize, &str)] = &[
            (br#"set k "a\q""#, 8, 10, "unknown escape"),
            (br#"set k "\xZZ" v"#, 7, 9, r"\x needs"),
            (br#"set k "\x1" v"#, 7, 9, r"\x needs"),
            (br#""\u{110000}""#, 1, 3, r"\u needs"),
            (br#""\u{}""#, 1, 3, r"\u needs"),
            (br#""\u{D800}""#, 1, 3, r"\u needs"),
            (b"set 'a", 4, 6, "never closed"),
            (b"set \"a\nget b", 4, 6, "never closed"),
            (b"\"a\\", 2, 3, "inside an escape"),
            (b"get 0x1", 4, 7, "pairs"),
            (b"get 0xZZ", 4, 8, "pairs"),
            (b"get 0x", 4, 6, "pairs"),
            (b"get 'a'b", 7, 8, "space is missing"),
            ("\"\\é\"".as_bytes(), 1, 4, "unknown escape"),
        ];
        for (line, start, end, says) in cases {
            let fault = Tokens::new(line).find_map(Result::err).expect("a fault");
            let line = line.escape_ascii();
            assert_eq!((fault.span.start, fault.span.end), (*start, *end), "{line}: {}", fault.message);
            assert!(fault.message.contains(says), "{line}: {}", fault.message);
        }
    }

    #[test]
    fn separators_and_comments_stand_between_words() {
        let kinds: String = Tokens::new(b"a 'b;';c# d\n#e ; f\ng")
            .map(|lexeme| match lexeme.expect("no fault") {
                Lexeme::Word(_) => 'w',
                Lexeme::Separator(_) => ';',
                Lexeme::Comment(_) => '#',
            })
            .collect();
        assert_eq!(kinds, "ww;ww;#;w", "c# is a word; a comment runs to the line feed");
    }

    #[test]
    fn any_bytes_are_read_to_the_end_without_overlap() {
        let mut state = 0x5EED_0001_u64;
        let alphabet = b"\\\"\\'x0uq{}1F;# \t\n\r\xFF\xC3\xA9\x00-";
        for round in 0..20_000 {
            let line: Vec<u8> = (0..round % 24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .collect();
            let mut at = 0;
            for lexeme in Tokens::new(&line) {
                let span = match lexeme {
                    Ok(Lexeme::Word(word)) => word.span,
                    Ok(Lexeme::Separator(span) | Lexeme::Comment(span)) => span,
                    Err(fault) => fault.span,
                };
                assert!(at <= span.start && span.start < span.end && span.end <= line.len(), "{line:?}");
                at = span.end;
            }
        }
    }

    #[test]
    fn a_word_being_typed_has_a_meaning() {
        let cases: &[(&[u8], Option<&[u8]>)] = &[
            (b"us", Some(b"us")),
            (br#""a\x00b"#, Some(b"a\0b")),
            (br#""a\x0"#, None),
            (b"'a b", Some(b"a b")),
            (b"0xDE", Some(b"\xDE")),
            (b"0xD", None),
            (b"", None),
        ];
        for (text, want) in cases {
            assert_eq!(decode_unfinished(text).as_deref(), *want, "{}", text.escape_ascii());
        }
    }
}
