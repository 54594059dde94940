//! Standard output and standard error as the commands see them.
//!
//! * Data goes to standard output, everything else to standard error.
//! * What is already said on one is out before the other speaks, so that both on one terminal or
//!   in one file read in order.
//! * A reader that went away is [`Failure::OutputClosed`], never a panic.

use crate::exit::{Failure, Result};
use crate::quote::spell;
use console::Term;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};
use unicode_width::UnicodeWidthChar as _;

const BUFFER_BYTES: usize = 64 << 10;

/// Standard output.
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    /// Whether a person reads it, who wants columns and no more than a screenful or so.
    pub terminal: bool,
}

impl Output {
    /// Takes standard output.
    pub fn new() -> Output {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Output { out: BufWriter::with_capacity(BUFFER_BYTES, stdout.lock()), terminal }
    }

    /// Writes bytes as they are; not for a terminal unless they are spelled.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Failure::output)
    }

    /// Writes a line.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Sends what is buffered.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Failure::output)
    }

    /// Says a line on standard error, after all that was written before. If the output's reader
    /// went away, the next write tells; that is no reason to keep silent here.
    pub fn say(&mut self, text: &str) {
        let _ = self.out.flush();
        say(text);
    }

    /// The columns of the terminal.
    pub fn width(&self) -> usize {
        let (_, columns) = Term::stdout().size();
        usize::from(columns).max(20)
    }
}

/// Says a line on standard error in one write. If nobody listens there is nobody to tell.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Appends one record as text that `import` reads back, with a line feed.
pub fn spell_record(key: &[u8], value: &[u8], out: &mut String) {
    spell(key, out);
    out.push('\t');
    spell(value, out);
    out.push('\n');
}

/// The columns that `text` takes.
pub fn text_width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The spelling of `bytes`, cut to `columns` with a note of the whole size.
pub fn spelled_within(bytes: &[u8], columns: usize) -> String {
    // No spelling has fewer columns than a quarter of its bytes, except that of marks without a
    // width, which would be cut all the same.
    let prefix = &bytes[..bytes.len().min(4 * columns + 4)];
    let mut text = String::new();
    spell(prefix, &mut text);
    if prefix.len() == bytes.len() && text_width(&text) <= columns {
        return text;
    }
    let note = format!("...({})", size(bytes.len() as u64));
    let room = columns.saturating_sub(note.len());
    let mut used = 0;
    let kept = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > room
    });
    text.truncate(kept.map_or(text.len(), |(at, _)| at));
    text.push_str(&note);
    text
}

/// A size in bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// A number for people: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{grouped, size, spelled_within, text_width};

    #[test]
    fn numbers_are_grouped_and_sizes_have_units() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, want) in cases {
            assert_eq!(grouped(number), want);
        }
        assert_eq!(
            (size(1023), size(4300), size(3 << 20)),
            ("1023 B".into(), "4.2 KiB".into(), "3.0 MiB".into())
        );
    }

    #[test]
    fn a_cut_spelling_fits_and_tells_the_size() {
        let cases: [(&[u8], usize, &str); 4] = [
            (b"short", 10, "short"),
            (b"0123456789", 10, "0123456789"),
            (b"01234567890123456789", 14, "01234...(20 B)"),
            ("日本語日本語日本語".as_bytes(), 14, "\"日本...(27 B)"),
        ];
        for (bytes, columns, want) in cases {
            let text = spelled_within(bytes, columns);
            assert_eq!(text, want);
            assert!(text_width(&text) <= columns, "{text}");
        }
        let long = vec![b'x'; 4300];
        assert!(spelled_within(&long, 40).ends_with("...(4.2 KiB)"));
    }
}
