//! Bytes to text: the spelling of a key or value that the tokenizer reads back to the same bytes.
//!
//! * Round trip: [`crate::token`] reads what [`spell`] writes as exactly one word of the same bytes.
//! * The spelling holds no control character, no line or direction mark and no byte that is not
//!   UTF-8, so it can go to a terminal.
//!
//! Plain words stay bare, other text is quoted, and bytes of which more than half would need an
//! escape become `0x..`.

use std::fmt::Write as _;

/// Appends the spelling of `bytes` to `out`.
pub fn spell(bytes: &[u8], out: &mut String) {
    if is_plain(bytes) {
        out.extend(bytes.iter().copied().map(char::from));
        return;
    }
    let start = out.len();
    out.push('"');
    let escaped = escape(bytes, out);
    out.push('"');
    // Newlines and quotes are text: only bytes that nobody can read count as unreadable.
    if escaped * 2 > bytes.len() {
        out.truncate(start);
        out.push_str("0x");
        for byte in bytes {
            push_hex(*byte, out);
        }
    }
}

/// The spelling of `bytes`.
pub fn spelled(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    spell(bytes, &mut out);
    out
}

/// `bytes` made harmless for a message: readable characters as they are, the rest escaped.
pub fn harmless(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            push_byte(*byte, &mut out);
        }
    }
    out
}

/// Words that need no quotes. Beyond what the tokenizer demands, this leaves out everything a
/// shell or a later grammar may give a meaning: `-` in front, `@`, `$`, `*` and their like.
fn is_plain(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else { return false };
    *first != b'-'
        && !bytes.starts_with(b"0x")
        && bytes.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'/' | b'+' | b'%')
        })
}

/// Writes the inside of a quoted word; returns how many bytes were unreadable.
fn escape(bytes: &[u8], out: &mut String) -> usize {
    let mut unreadable = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                _ => unreadable += push_char(c, out),
            }
        }
        for byte in chunk.invalid() {
            push_byte(*byte, out);
            unreadable += 1;
        }
    }
    unreadable
}

/// Writes one character, escaped unless it is readable; returns the number of bytes escaped.
fn push_char(c: char, out: &mut String) -> usize {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        ' '..='~' => out.push(c),
        '\0'..='\u{7F}' => {
            push_byte(c as u8, out);
            return 1;
        }
        _ if is_readable(c) => out.push(c),
        _ => {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "\\u{{{:X}}}", u32::from(c));
            return c.len_utf8();
        }
    }
    0
}

/// Whether a character beyond ASCII shows as itself. The standard library knows which are
/// printable; after a base letter it lets combining marks through, as they should be here.
fn is_readable(c: char) -> bool {
    let mut text = [b'a'; 5];
    let len = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..len]).is_ok_and(|text| text.escape_debug().eq(text.chars()))
}

fn push_byte(byte: u8, out: &mut String) {
    out.push_str("\\x");
    push_hex(byte, out);
}

fn push_hex(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::{harmless, spelled};
    use crate::token::one_word;

    #[test]
    fn spellings_are_the_readable_ones() {
        let cases: &[(&[u8], &str)] = &[
            (b"user:1", "user:1"),
            (b"", "\"\""),
            (b"a b", "\"a b\""),
            (b"--limit", "\"--limit\""),
            (b"0x12", "\"0x12\""),
            (b"it's", "\"it's\""),
            (b"say \"hi\"\\", r#""say \"hi\"\\""#),
            (b"two\nlines\t", r#""two\nlines\t""#),
            ("größe".as_bytes(), "\"größe\""),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
            ("abcd\u{202E}".as_bytes(), r#""abcd\u{202E}""#),
            (b"abcdef\x1B[2J", r#""abcdef\x1B[2J""#),
            ("abcd\u{9B}".as_bytes(), r#""abcd\u{9B}""#),
            (b"ab\xFF", r#""ab\xFF""#),
            (b"\x00\x01\x02a", "0x00010261"),
            (b"\x00", "0x00"),
        ];
        for (bytes, want) in cases {
            assert_eq!(spelled(bytes), *want);
        }
    }

    #[test]
    fn every_spelling_reads_back_and_is_harmless() {
        let seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let pieces: [&[u8]; 8] =
            [b"0x", b"--", b"\\", b"\"", "\u{1F600}".as_bytes(), b"\xC3", b" #;'", b"\x1B]0;"];
        for round in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..random() % 12 {
                match random() % 4 {
                    0 => bytes.extend_from_slice(pieces[random() % pieces.len()]),
                    1 => bytes.push(b'a' + (random() % 26) as u8),
                    2 => bytes.extend(
                        char::from_u32(random() as u32 % 0x11_0000)
                            .map(String::from)
                            .unwrap_or_default()
                            .bytes(),
                    ),
                    _ => bytes.push(random() as u8),
                }
            }
            let text = spelled(&bytes);
            let word = one_word(text.as_bytes())
                .unwrap_or_else(|fault| panic!("seed {seed}, round {round}: {text}: {fault:?}"));
            assert_eq!(*word.bytes, *bytes, "seed {seed}, round {round}: {text}");
            assert!(!text.chars().any(char::is_control), "seed {seed}, round {round}: {text:?}");
            assert!(!harmless(&bytes).chars().any(char::is_control), "seed {seed}, round {round}");
        }
    }
}
