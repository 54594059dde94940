//! `import`: the records of a file into the store, in order.
//!
//! * Records go in as atomic batches, one after the other, so at any moment the store holds the
//!   first n records of the file and nothing else of it.
//! * `durable N` is said only after the flush that made the first N safe.
//! * However reading ends (end of file, a faulty line, Ctrl-C), what was read before is applied
//!   and flushed.

use crate::exit::{Failure, Result, shown};
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::output::{Output, grouped};
use crate::parse::{File, Format};
use crate::progress::Progress;
use crate::store::{Batch, Store};
use crate::token::{Fault, Lexeme, Span, Tokens, Word};
use std::fs;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

/// The most records in a batch.
const BATCH_RECORDS: u64 = 1_000;

/// The most bytes in a batch, unless one record alone has more.
const BATCH_BYTES: usize = 512 << 10;

/// What a record takes in a batch beside its key and value.
const RECORD_OVERHEAD_BYTES: usize = 16;

/// What to import and how.
#[derive(Debug)]
pub struct Import {
    /// What each line is.
    pub format: Format,
    /// Flush each time this many more records are in.
    pub flush_every: Option<u64>,
}

impl Import {
    /// Imports from `file`; standard input must not be where the commands come from.
    pub fn run(&self, store: &Store, out: &mut Output, file: &File, interrupt: &Interrupt) -> Result<()> {
        let (source, bytes): (Box<dyn Read>, _) = match file {
            File::Standard => (Box::new(io::stdin().lock()), None),
            File::At(path) => {
                let file = fs::File::open(path).map_err(Failure::io("read", path))?;
                let bytes = file.metadata().ok().filter(fs::Metadata::is_file).map(|of| of.len());
                (Box::new(file), bytes)
            }
        };
        let path = match file {
            File::Standard => Path::new("standard input"),
            File::At(path) => path,
        };
        let mut load = Load::new(store, self, Progress::new(bytes));
        let mut lines = Lines::new(source);
        let read = self.read(&mut lines, &mut load, path, interrupt);
        if read.is_ok() {
            load.lines = lines.number();
        }
        load.finish()?;
        match read {
            Err(Failure::Interrupted(_)) => Err(Failure::Interrupted(load.summary())),
            Err(failure) => Err(failure),
            Ok(()) => {
                if io::stderr().is_terminal() {
                    out.say(&format!("imported {}", load.summary()));
                }
                Ok(())
            }
        }
    }

    fn read<R: Read>(
        &self,
        lines: &mut Lines<R>,
        load: &mut Load<'_>,
        path: &Path,
        interrupt: &Interrupt,
    ) -> Result<()> {
        loop {
            interrupt.check(String::new)?;
            let at = lines.bytes_read();
            let Some((number, line)) = lines.next_line().map_err(Failure::io("read", path))? else {
                return Ok(());
            };
            match self.format {
                Format::Lines if line.is_empty() => {}
                Format::Lines => load.add(line, number.to_string().as_bytes(), number, at)?,
                Format::Tsv => match record(line).map_err(|fault| misread(path, number, line, &fault))? {
                    Some((key, value)) => load.add(&key.bytes, &value.bytes, number, at)?,
                    None => load.skipped += 1,
                },
            }
        }
    }
}

/// Reads `key TAB value`; none for a line that is empty or a comment as a whole.
fn record(line: &[u8]) -> std::result::Result<Option<(Word<'_>, Word<'_>)>, Fault> {
    let mut tokens = Tokens::new(line);
    let mut next = || tokens.next().transpose();
    let fault = |span, message: &str| Err(Fault { span, message: message.into(), open: false });
    let end = Span { start: line.len(), end: line.len() + 1 };
    let key = match next()? {
        None | Some(Lexeme::Comment(_)) => return Ok(None),
        Some(Lexeme::Word(key)) => key,
        Some(Lexeme::Separator(span)) => return fault(span, "a key that holds ; needs quotes"),
    };
    let value = match next()? {
        Some(Lexeme::Word(value)) => value,
        None => return fault(end, "a value is missing; is each line a key? then use --format lines"),
        Some(Lexeme::Comment(span) | Lexeme::Separator(span)) => {
            return fault(span, "a value that holds ; or begins with # needs quotes");
        }
    };
    match next()? {
        None => Ok(Some((key, value))),
        // Dropping the rest as a comment could drop half a value that was never quoted.
        Some(Lexeme::Comment(span) | Lexeme::Separator(span) | Lexeme::Word(Word { span, .. })) => {
            fault(span, "more than a key and a value; quote what holds spaces, ; or #")
        }
    }
}

fn misread(path: &Path, number: u64, line: &[u8], fault: &Fault) -> Failure {
    let before = &line[..fault.span.start.min(line.len())];
    let column = String::from_utf8_lossy(before).chars().count() + 1;
    Failure::usage(None, format!("{}, line {number}, column {column}: {}", shown(path), fault.message))
}

/// Records on their way into the store.
struct Load<'s> {
    store: &'s Store,
    progress: Progress,
    format: Format,
    flush_every: u64,
    batch: Batch,
    batch_records: u64,
    batch_bytes: usize,
    /// Records applied and being batched since the last flush.
    unflushed: u64,
    records: u64,
    /// The last line whose record, if it has one, is applied or in the batch.
    lines: u64,
    skipped: u64,
    durable: u64,
    /// Whether the store failed: then nothing more is claimed or tried.
    failed: bool,
}

impl<'s> Load<'s> {
    fn new(store: &'s Store, import: &Import, progress: Progress) -> Load<'s> {
        Load {
            store,
            progress,
            format: import.format,
            flush_every: import.flush_every.unwrap_or(u64::MAX),
            batch: Batch::default(),
            batch_records: 0,
            batch_bytes: 0,
            unflushed: 0,
            records: 0,
            lines: 0,
            skipped: 0,
            durable: 0,
            failed: false,
        }
    }

    /// Takes one record, which line `number` holds; `bytes` of the file came before it.
    fn add(&mut self, key: &[u8], value: &[u8], number: u64, bytes: u64) -> Result<()> {
        let size = key.len() + value.len() + RECORD_OVERHEAD_BYTES;
        if self.batch_bytes + size > BATCH_BYTES {
            self.apply(bytes)?;
        }
        self.batch.set(key, value);
        self.batch_records += 1;
        self.batch_bytes += size;
        self.unflushed += 1;
        self.records += 1;
        self.lines = number;
        if self.unflushed >= self.flush_every {
            self.apply(bytes)?;
            self.flush()
        } else if self.batch_records == BATCH_RECORDS {
            self.apply(bytes)
        } else {
            Ok(())
        }
    }

    fn apply(&mut self, bytes: u64) -> Result<()> {
        if self.batch_records > 0 {
            let applied = self.store.apply(std::mem::take(&mut self.batch));
            self.failed |= applied.is_err();
            applied?;
            (self.batch_records, self.batch_bytes) = (0, 0);
            self.progress.advance(bytes, self.records);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.store.flush();
        self.failed |= flushed.is_err();
        flushed?;
        self.unflushed = 0;
        self.durable = match self.format {
            Format::Lines => self.lines,
            Format::Tsv => self.records,
        };
        self.progress.say(&format!("durable {}", self.durable));
        Ok(())
    }

    /// Applies and flushes what is left, so that the last `durable N` counts everything.
    fn finish(&mut self) -> Result<()> {
        let ended = if self.failed { Ok(()) } else { self.end() };
        self.progress.clear();
        ended
    }

    fn end(&mut self) -> Result<()> {
        self.apply(0)?;
        let all = if self.format == Format::Lines { self.lines } else { self.records };
        if self.durable < all || all == 0 { self.flush() } else { Ok(()) }
    }

    fn summary(&self) -> String {
        let mut text = format!("{} records", grouped(self.records));
        if self.skipped > 0 {
            text.push_str(&format!(", skipped {} empty or comment lines", grouped(self.skipped)));
        }
        text.push_str(&format!(" in {}", self.progress.pace(self.records)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::record;

    #[test]
    fn a_record_is_exactly_two_words() {
        /// A key and a value, nothing, or where the fault begins.
        type Want = Result<Option<(&'static [u8], &'static [u8])>, usize>;
        let cases: &[(&[u8], Want)] = &[
            (b"k\tv", Ok(Some((b"k", b"v")))),
            (b"'a b'\t\"\\x00\"\r", Ok(Some((b"a b", b"\0")))),
            (b"0x6B v", Ok(Some((b"k", b"v")))),
            (b"", Ok(None)),
            (b"# k\tv", Ok(None)),
            (b"k", Err(1)),
            (b"k\tv #1", Err(4)),
            (b"k\ta b", Err(4)),
            (b"k\ta;b", Err(3)),
            (b"k\t#b", Err(2)),
            (b";", Err(0)),
            (b"k\t'b", Err(2)),
        ];
        for (line, want) in cases {
            let got = record(line);
            let got =
                got.as_ref().map(|record| record.as_ref().map(|(key, value)| (&*key.bytes, &*value.bytes)));
            assert_eq!(got.map_err(|fault| fault.span.start), *want, "{}", line.escape_ascii());
        }
    }
}
