//! A file as numbered lines of any bytes, each borrowed from one reused buffer.
//!
//! A line has no length of its own choosing: past [`LINE_BYTES_MAX`] reading fails, so that a
//! file without line feeds cannot take all memory.

use std::io::{self, BufRead as _, BufReader, Read};

const BUFFER_BYTES: usize = 1 << 20;

/// The longest line read, in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Reads lines; see the module's text.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    number: u64,
    bytes_read: u64,
    line_bytes_max: usize,
}

impl<R: Read> Lines<R> {
    /// Reads from the beginning of `reader`.
    pub fn new(reader: R) -> Lines<R> {
        Lines {
            reader: BufReader::with_capacity(BUFFER_BYTES, reader),
            line: Vec::new(),
            number: 0,
            bytes_read: 0,
            line_bytes_max: LINE_BYTES_MAX,
        }
    }

    /// The next line without its line feed, and its number from 1; none at the end.
    pub fn next_line(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let most = self.line_bytes_max as u64 + 1;
        let read = self.reader.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes_read += read as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > self.line_bytes_max {
            let message = format!(
                "line {} is longer than {} bytes; 'set KEY --from FILE' takes a longer value",
                self.number, self.line_bytes_max
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Some((self.number, &self.line)))
    }

    /// How many lines were read.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes the lines read so far took.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Whether the next line has to be waited for, so that answers so far should be sent.
    pub fn would_read(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_numbered_and_lose_only_the_line_feed() {
        let mut lines = Lines::new(&b"a\r\n\n\xFF\0\nlast"[..]);
        let mut got = Vec::new();
        while let Some((number, line)) = lines.next_line().expect("memory can be read") {
            got.push((number, line.to_vec()));
        }
        let want = [(1, &b"a\r"[..]), (2, b""), (3, b"\xFF\0"), (4, b"last")];
        assert_eq!(got, want.map(|(number, line)| (number, line.to_vec())));
        assert_eq!((lines.number(), lines.bytes_read()), (4, 11));
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit() {
        let mut lines = Lines { line_bytes_max: 8, ..Lines::new(&b"12345678\n123456789\n"[..]) };
        assert!(matches!(lines.next_line(), Ok(Some((1, b"12345678")))));
        let error = lines.next_line().expect_err("nine bytes are too many");
        assert!(error.to_string().contains("line 2 is longer than 8"), "{error}");
    }
}
