//! The rows of the table: what is measured, in which unit, and which way is better.

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
}

/// A row's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Operations a second; more is better.
    PerSecond,
    /// Seconds; less is better.
    Seconds,
    /// Bytes; less is better.
    Bytes,
}

impl Unit {
    pub(crate) fn more_is_better(self) -> bool {
        self == Unit::PerSecond
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "per s",
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
        }
    }
}

const fn row(name: &'static str, unit: Unit) -> Row {
    Row { name, unit }
}

pub(crate) const LOAD: Row = row("load in random order", Unit::PerSecond);
pub(crate) const GET: Row = row("point reads, random", Unit::PerSecond);
pub(crate) const RANGE: Row = row("ranges of 10", Unit::PerSecond);
pub(crate) const SCAN: Row = row("full scan, records", Unit::PerSecond);
pub(crate) const BATCH: Row = row("batches of 1,000, each synced, records", Unit::PerSecond);
pub(crate) const SINGLE: Row = row("single writes, each synced", Unit::PerSecond);
pub(crate) const RAW: Row = row("4 KiB write + fdatasync of the device, beside them", Unit::PerSecond);
pub(crate) const SINGLE_MEDIAN: Row = row("single synced write, median", Unit::Seconds);
pub(crate) const RAW_MEDIAN: Row = row("4 KiB write + fdatasync, median", Unit::Seconds);
pub(crate) const FILE_BYTES: Row = row("files after load and close", Unit::Bytes);
pub(crate) const LOAD_RSS: Row = row("peak memory, load", Unit::Bytes);
pub(crate) const READ_RSS: Row = row("peak memory, reads", Unit::Bytes);
pub(crate) const CLOSE: Row = row("clean close after load", Unit::Seconds);
pub(crate) const REOPEN: Row = row("open + first get, closed cleanly", Unit::Seconds);
pub(crate) const RECOVER: Row = row("open + first get, after kill -9", Unit::Seconds);

/// All rows, in the order of the table.
pub(crate) const ALL: [Row; 15] = [
    LOAD,
    GET,
    RANGE,
    SCAN,
    BATCH,
    SINGLE,
    RAW,
    SINGLE_MEDIAN,
    RAW_MEDIAN,
    FILE_BYTES,
    LOAD_RSS,
    READ_RSS,
    CLOSE,
    REOPEN,
    RECOVER,
];

/// Tells the parent process a figure.
pub(crate) fn tell(row: Row, figure: f64) {
    println!("{}\t{figure}", row.name);
}

/// Reads what a child told.
pub(crate) fn heard(line: &str) -> Option<(Row, f64)> {
    let (name, figure) = line.split_once('\t')?;
    let row = ALL.into_iter().find(|row| row.name == name)?;
    Some((row, figure.parse().ok()?))
}
