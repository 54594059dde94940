//! `scan`: records in order, as words for a pipe and as columns for a terminal.
//!
//! A terminal gets [`ROWS_SHOWN`] records unless told, and then the command that goes on from
//! there. A pipe gets everything.

use crate::exit::Result;
use crate::interrupt::Interrupt;
use crate::output::{Output, spell_record, spelled_within, text_width};
use crate::parse::Scan;
use crate::quote::spelled;
use crate::store::{Bytes, Range, Store};
use std::ops::Bound;

/// How many records a terminal gets unless told.
const ROWS_SHOWN: u64 = 50;

/// The longest key that the advice on how to go on spells out.
const ADVICE_KEY_BYTES: usize = 60;

/// Prints the records that `scan` asks for.
pub fn run(store: &Store, out: &mut Output, scan: &Scan, interrupt: &Interrupt) -> Result<()> {
    let Some(range) = range_of(scan) else { return Ok(()) };
    let records = store.records(range);
    if scan.reverse {
        print(out, scan, records.rev(), interrupt)
    } else {
        print(out, scan, records, interrupt)
    }
}

fn print(
    out: &mut Output,
    scan: &Scan,
    mut records: impl Iterator<Item = Result<(Bytes, Bytes)>>,
    interrupt: &Interrupt,
) -> Result<()> {
    let limit = match scan.limit {
        None if out.terminal => ROWS_SHOWN,
        None | Some(0) => u64::MAX,
        Some(limit) => limit,
    };
    let mut rows = Rows::new(out);
    let mut last = None;
    for shown in 0..limit {
        let Some(record) = records.next() else { return rows.finish() };
        let (key, value) = record?;
        interrupt.check(|| format!("{shown} records shown"))?;
        rows.push(&key, &value)?;
        last = Some(key);
    }
    rows.finish()?;
    if scan.limit.is_none()
        && let Some(next) = records.next()
    {
        let (next, _) = next?;
        let advice = advice(scan, last.as_deref().unwrap_or_default(), &next);
        out.say(&format!("-- {limit} shown, more follow: {advice}, or --limit 0 for all"));
    }
    Ok(())
}

/// The keys that `scan` asks for; none if there can be no such key.
fn range_of(scan: &Scan) -> Option<Range> {
    let mut from = scan.from.clone().unwrap_or_default();
    let mut to = scan.to.clone();
    if let Some(prefix) = &scan.prefix {
        from = from.max(prefix.clone());
        // Without a successor (all bytes 0xFF) the prefix sets no upper bound.
        if let Some(end) = successor(prefix) {
            to = Some(to.map_or(end.clone(), |to| to.min(end)));
        }
    }
    if to.as_ref().is_some_and(|to| *to <= from) {
        return None;
    }
    Some((Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded)))
}

/// The least key greater than all that begin with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    Some(end)
}

/// The command that shows what follows.
fn advice(scan: &Scan, last: &[u8], next: &[u8]) -> String {
    // Upwards the next key is where to begin; downwards the last one, being exclusive, is.
    let (from, to) = match scan.reverse {
        false => (next, scan.to.as_deref()),
        true => (scan.from.as_deref().unwrap_or_default(), Some(last)),
    };
    if from.len().max(to.map_or(0, <[u8]>::len)) > ADVICE_KEY_BYTES {
        return "--limit N shows more".into();
    }
    let mut command = format!("scan {}", spelled(from));
    if let Some(to) = to {
        command.push_str(&format!(" {}", spelled(to)));
    }
    if let Some(prefix) = &scan.prefix {
        command.push_str(&format!(" --prefix {}", spelled(prefix)));
    }
    if scan.reverse {
        command.push_str(" --reverse");
    }
    command
}

/// Prints records; a terminal's columns get their widths from the first of them.
struct Rows<'o> {
    out: &'o mut Output,
    text: String,
    waiting: Vec<(String, Bytes)>,
    key_columns: Option<usize>,
    columns: usize,
}

impl<'o> Rows<'o> {
    fn new(out: &'o mut Output) -> Rows<'o> {
        let columns = out.width();
        Rows { out, text: String::new(), waiting: Vec::new(), key_columns: None, columns }
    }

    fn push(&mut self, key: &[u8], value: &Bytes) -> Result<()> {
        if !self.out.terminal {
            self.text.clear();
            spell_record(key, value, &mut self.text);
            return self.out.write(self.text.as_bytes());
        }
        let key = spelled_within(key, self.columns / 2);
        match self.key_columns {
            Some(key_columns) => self.row(&key, value, key_columns),
            None => {
                self.waiting.push((key, value.clone()));
                if self.waiting.len() as u64 == ROWS_SHOWN { self.settle() } else { Ok(()) }
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        self.settle()
    }

    /// Fixes the width of the keys and prints the rows that waited for it.
    fn settle(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let widest = waiting.iter().map(|(key, _)| text_width(key)).max().unwrap_or(0);
        let key_columns = *self.key_columns.get_or_insert(widest);
        waiting.iter().try_for_each(|(key, value)| self.row(key, value, key_columns))
    }

    fn row(&mut self, key: &str, value: &[u8], key_columns: usize) -> Result<()> {
        let pad = " ".repeat(key_columns.saturating_sub(text_width(key)) + 2);
        // The last column stays free: many terminals wrap once it is written.
        let room = self.columns.saturating_sub(text_width(key) + pad.len() + 1);
        self.out.line(&format!("{key}{pad}{}", spelled_within(value, room)))
    }
}

#[cfg(test)]
mod tests {
    use super::{advice, range_of, successor};
    use crate::parse::Scan;
    use std::ops::Bound::{Excluded, Included, Unbounded};

    fn key(text: &str) -> Option<Vec<u8>> {
        Some(text.into())
    }

    #[test]
    fn ranges_and_prefixes_intersect() {
        let scan = |from, to, prefix| Scan { from, to, prefix, ..Scan::default() };
        let included = |text: &str| Included(text.as_bytes().to_vec());
        let excluded = |text: &str| Excluded(text.as_bytes().to_vec());
        let cases = [
            (scan(None, None, None), Some((included(""), Unbounded))),
            (scan(key("b"), key("d"), None), Some((included("b"), excluded("d")))),
            (scan(None, None, key("b")), Some((included("b"), excluded("c")))),
            (scan(key("bx"), key("z"), key("b")), Some((included("bx"), excluded("c")))),
            (scan(key("a"), key("bc"), key("b")), Some((included("b"), excluded("bc")))),
            (scan(key("d"), None, key("b")), None),
            (scan(key("b"), key("b"), None), None),
            (scan(key("c"), key("a"), None), None),
        ];
        for (scan, want) in cases {
            assert_eq!(range_of(&scan), want, "{scan:?}");
        }
    }

    #[test]
    fn a_prefix_ends_at_its_successor() {
        assert_eq!(successor(b"a\xFF\xFF").as_deref(), Some(&b"b"[..]));
        assert_eq!(successor(b"\xFF"), None);
        assert_eq!(successor(b""), None);
    }

    #[test]
    fn the_advice_goes_on_where_the_rows_stopped() {
        let up = Scan { to: key("z"), prefix: key("k"), ..Scan::default() };
        assert_eq!(advice(&up, b"k1", b"k 2"), "scan \"k 2\" z --prefix k");
        let down = Scan { reverse: true, to: key("z"), ..Scan::default() };
        assert_eq!(advice(&down, b"k1", b"k0"), "scan \"\" k1 --reverse");
    }
}
