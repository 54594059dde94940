//! A profile: what was measured up to one moment, as numbers and as a table. Measuring is [`super`]'s business.

use std::fmt;

use super::Unit;

/// What was measured up to some moment.
///
/// Shown by `{}` as a table, without the rows of what never happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    rows: Option<Vec<Row>>,
}

/// One thing that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// What its numbers count.
    pub unit: Unit,
    /// How often it happened.
    pub count: u64,
    /// All together.
    pub sum: u64,
    /// The smallest.
    pub min: u64,
    /// Half of all were at most this, or up to an eighth less.
    pub p50: u64,
    /// As `p50`, of nine tenths.
    pub p90: u64,
    /// As `p50`, of 99 hundredths.
    pub p99: u64,
    /// As `p50`, of 999 thousandths.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl Profile {
    pub(super) fn of(rows: Vec<Row>) -> Profile {
        Profile { rows: Some(rows) }
    }

    /// True if anything was to be measured.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.rows.is_some()
    }

    /// Everything that was to be measured, in a fixed order.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        self.rows.as_deref().unwrap_or(&[])
    }

    /// The row of this name.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows().iter().find(|row| row.name == name)
    }

    /// Both together, these rows first.
    #[must_use]
    pub fn and(self, other: Profile) -> Profile {
        match (self.rows, other.rows) {
            (Some(mut rows), Some(more)) => {
                rows.extend(more);
                Profile { rows: Some(rows) }
            }
            (rows, more) => Profile { rows: rows.or(more) },
        }
    }
}

const HEADINGS: [&str; 9] = ["", "count", "sum", "min", "p50", "p90", "p99", "p99.9", "max"];

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_on() {
            return f.write_str("nothing was measured: the setting `timing` is off\n");
        }
        let happened = self.rows().iter().filter(|row| row.count > 0);
        let cells: Vec<[String; 9]> =
            std::iter::once(HEADINGS.map(str::to_owned)).chain(happened.map(cells_of)).collect();
        for line in &cells {
            for (column, cell) in line.iter().enumerate() {
                let width = cells.iter().map(|line| line[column].len()).max().unwrap_or(0);
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

fn cells_of(row: &Row) -> [String; 9] {
    let Row { name, unit, count, sum, min, p50, p90, p99, p999, max } = *row;
    let shown = |value: u64| shown(value, unit);
    [
        name.to_owned(),
        count.to_string(),
        shown(sum),
        shown(min),
        shown(p50),
        shown(p90),
        shown(p99),
        shown(p999),
        shown(max),
    ]
}

/// A number with its unit, in three digits or a little more.
fn shown(value: u64, unit: Unit) -> String {
    let (steps, factor): (&[&str], f64) = match unit {
        Unit::Time => (&["ns", "us", "ms", "s"], 1000.0),
        Unit::Bytes => (&["B", "KiB", "MiB", "GiB", "TiB"], 1024.0),
        Unit::Number => return value.to_string(),
    };
    let mut scaled = value as f64;
    let mut step = 0;
    while scaled >= factor && step + 1 < steps.len() {
        scaled /= factor;
        step += 1;
    }
    let digits = if step == 0 || scaled >= 100.0 { 0 } else { 1 };
    format!("{scaled:.digits$} {}", steps[step])
}
