//! The figures of all rounds, as a table or as lines of JSON.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    Result,
    args::Args,
    engine, machine,
    rows::{self, Row, Unit},
};

/// What was measured, by engine and row, one figure a round.
pub(crate) struct Report {
    header: String,
    engines: Vec<String>,
    figures: BTreeMap<(String, &'static str), Vec<f64>>,
}

impl Report {
    pub(crate) fn new(args: &Args) -> Report {
        let header = format!(
            "{} records of 24 + 150 bytes, {} MiB of cache, {} round(s), one thread. {}.",
            args.n,
            args.cache_mib,
            args.rounds,
            machine::facts(&args.dir)
        );
        Report { header, engines: args.engines.clone(), figures: BTreeMap::new() }
    }

    /// Takes in a child's line.
    pub(crate) fn take(&mut self, engine: &str, line: &str) -> Result<()> {
        let (row, figure) = rows::heard(line).ok_or_else(|| format!("{engine} said: {line}"))?;
        self.add(engine, row, figure);
        Ok(())
    }

    pub(crate) fn add(&mut self, engine: &str, row: Row, figure: f64) {
        self.figures.entry((engine.to_owned(), row.name)).or_default().push(figure);
    }

    /// One line a figure's rounds, and one for the header.
    pub(crate) fn json(&self) -> String {
        let mut out = format!("{{\"machine\":{:?}}}\n", self.header);
        for row in rows::ALL {
            for engine in &self.engines {
                let Some(figures) = self.figures.get(&(engine.clone(), row.name)) else { continue };
                let _ = writeln!(
                    out,
                    "{{\"engine\":{engine:?},\"row\":{:?},\"unit\":{:?},\"rounds\":{figures:?},\"median\":{:?}}}",
                    row.name,
                    row.unit.name(),
                    median(figures)
                );
            }
        }
        out
    }

    /// A table of medians. Beside every engine but the first stands how many times better the first
    /// one is (less than 1: worse).
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("{}\n\n| |", self.header);
        for (i, engine) in self.engines.iter().enumerate() {
            let _ = write!(out, " {engine} |");
            if i > 0 {
                let _ = write!(out, " {} is better by |", self.engines[0]);
            }
        }
        let columns = self.engines.len() * 2 - 1;
        let _ = writeln!(out, "\n|---|{}", "---:|".repeat(columns));
        for row in rows::ALL {
            let _ = writeln!(out, "| {} |{}", row.name, self.cells(row));
        }
        for engine in &self.engines {
            let _ = writeln!(out, "\n{engine}: {}.", engine::settings(engine));
        }
        out
    }

    fn cells(&self, row: Row) -> String {
        let median_of = |engine: &String| self.figures.get(&(engine.clone(), row.name)).map(|f| median(f));
        let first = median_of(&self.engines[0]);
        let mut out = String::new();
        for (i, engine) in self.engines.iter().enumerate() {
            let figure = median_of(engine);
            let _ = write!(out, " {} |", figure.map_or("n/a".into(), |figure| shown(row.unit, figure)));
            if i > 0 {
                let ratio = first.zip(figure).map(|(first, other)| ratio(row.unit, first, other));
                let _ = write!(out, " {} |", ratio.map_or("n/a".into(), |ratio| format!("{ratio:.2}")));
            }
        }
        out
    }
}

/// How many times better `first` is than `other`.
fn ratio(unit: Unit, first: f64, other: f64) -> f64 {
    if unit.more_is_better() { first / other } else { other / first }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// A figure as people read it, with three digits that count.
fn shown(unit: Unit, figure: f64) -> String {
    match unit {
        Unit::PerSecond if figure >= 1e6 => format!("{:.2} M/s", figure / 1e6),
        Unit::PerSecond if figure >= 1e4 => format!("{:.0} k/s", figure / 1e3),
        Unit::PerSecond => format!("{:.2} k/s", figure / 1e3),
        Unit::Seconds if figure < 1e-3 => format!("{:.0} µs", figure * 1e6),
        Unit::Seconds if figure < 1.0 => format!("{:.1} ms", figure * 1e3),
        Unit::Seconds => format!("{figure:.2} s"),
        Unit::Bytes => format!("{:.1} MB", figure / 1e6),
    }
}
