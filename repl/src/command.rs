//! The commands: one static table that the parser, help, hints and completion read.
//!
//! * A command, argument or option exists here or nowhere: [`crate::parse`] takes its checks from
//!   the table, and only what a command does is elsewhere ([`crate::session`]).

/// Which command it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `set K V`
    Set,
    /// `get K`
    Get,
    /// `del K`
    Del,
    /// `scan [FROM [TO]]`
    Scan,
    /// `count`
    Count,
    /// `import FILE`
    Import,
    /// `export [FILE]`
    Export,
    /// `flush`
    Flush,
    /// `compact`
    Compact,
    /// `stats`
    Stats,
    /// `help [COMMAND]`
    Help,
    /// `quit` or `exit`
    Quit,
}

/// What an argument or an option's value is, which decides how it is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A key in the store.
    Key,
    /// Any bytes.
    Value,
    /// A file.
    File,
    /// A number.
    Number,
    /// The name of a command.
    Command,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// An argument, told by its place.
#[derive(Debug)]
pub struct Arg {
    /// Its name in the signature.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Whether the command needs it; the ones needed come first.
    pub required: bool,
}

/// An option, told by its name.
#[derive(Debug)]
pub struct Opt {
    /// The name, with its dashes.
    pub name: &'static str,
    /// The value's name and kind; none for a switch.
    pub value: Option<(&'static str, Kind)>,
    /// What it does.
    pub about: &'static str,
}

/// A command.
#[derive(Debug)]
pub struct Spec {
    /// Which it is.
    pub verb: Verb,
    /// Its names, the usual one first.
    pub names: &'static [&'static str],
    /// Its arguments in order.
    pub args: &'static [Arg],
    /// Its options.
    pub opts: &'static [Opt],
    /// One line on what it does.
    pub about: &'static str,
    /// What else there is to know, in lines.
    pub notes: &'static str,
    /// A line to try.
    pub example: &'static str,
}

const fn needed(name: &'static str, kind: Kind) -> Arg {
    Arg { name, kind, required: true }
}

const fn maybe(name: &'static str, kind: Kind) -> Arg {
    Arg { name, kind, required: false }
}

/// Every command, in the order help lists them.
pub static COMMANDS: &[Spec] = &[
    Spec {
        verb: Verb::Set,
        names: &["set"],
        args: &[needed("K", Kind::Key), maybe("V", Kind::Value)],
        opts: &[Opt {
            name: "--from",
            value: Some(("FILE", Kind::File)),
            about: "the value is what FILE holds, up to 1 GiB",
        }],
        about: "Sets key K to value V.",
        notes: "Quote what holds spaces: 'as it stands', or \"with \\n \\t \\xHH \\u{1F600}\";\n\
                0xDEADBEEF is bytes. A value from a file is not held in memory.",
        example: "set user:1 'Ada Lovelace'",
    },
    Spec {
        verb: Verb::Get,
        names: &["get"],
        args: &[needed("K", Kind::Key)],
        opts: &[],
        about: "Prints the value of key K.",
        notes: "A terminal shows the value as a word that can be typed back;\n\
                a pipe or a file gets its bytes, piece by piece, and a newline.\n\
                Exit status 1 if there is no such key.",
        example: "get user:1",
    },
    Spec {
        verb: Verb::Del,
        names: &["del"],
        args: &[needed("K", Kind::Key)],
        opts: &[],
        about: "Deletes key K.",
        notes: "Exit status 1 if there is no such key.",
        example: "del user:1",
    },
    Spec {
        verb: Verb::Scan,
        names: &["scan"],
        args: &[maybe("FROM", Kind::Key), maybe("TO", Kind::Key)],
        opts: &[
            Opt { name: "--prefix", value: Some(("P", Kind::Key)), about: "only keys that begin with P" },
            Opt { name: "--reverse", value: None, about: "from the greatest key down" },
            Opt {
                name: "--limit",
                value: Some(("N", Kind::Number)),
                about: "at most N records, 0 for all (a terminal: 50)",
            },
        ],
        about: "Prints records in key order, TO exclusive.",
        notes: "A pipe gets 'key TAB value' in words that 'import' reads back;\n\
                a terminal gets columns cut to its width.",
        example: "scan user:1 user:5 --limit 10",
    },
    Spec {
        verb: Verb::Count,
        names: &["count"],
        args: &[],
        opts: &[],
        about: "Prints how many records there are.",
        notes: "",
        example: "count",
    },
    Spec {
        verb: Verb::Import,
        names: &["import"],
        args: &[needed("FILE", Kind::File)],
        opts: &[
            Opt {
                name: "--format",
                value: Some(("tsv|lines", Kind::OneOf(&["tsv", "lines"]))),
                about: "tsv (the default): 'key TAB value', as 'export' prints;\n\
                        lines: each line is a key, its number the value",
            },
            Opt {
                name: "--flush-every",
                value: Some(("N", Kind::Number)),
                about: "flush each time N more records are in",
            },
        ],
        about: "Sets the records of FILE (- is standard input).",
        notes: "With lines, empty ones are counted but not set.\n\
                Records go in as atomic batches of up to 1,000; the end is flushed. After each\n\
                flush 'durable N' on standard error tells how many records (with lines: how\n\
                many lines of FILE) are safe.",
        example: "import words.txt --format lines",
    },
    Spec {
        verb: Verb::Export,
        names: &["export"],
        args: &[maybe("FILE", Kind::File)],
        opts: &[Opt { name: "--replace", value: None, about: "overwrite FILE if there is one" }],
        about: "Writes all records as 'key TAB value'.",
        notes: "Without FILE, or with -, they go to standard output. FILE appears under its\n\
                name only once it is complete. Import takes lines of up to 64 MiB, twice\n\
                that in memory; 'set KEY --from FILE' takes longer values.",
        example: "export backup.tsv",
    },
    Spec {
        verb: Verb::Flush,
        names: &["flush"],
        args: &[],
        opts: &[],
        about: "Makes everything set so far durable.",
        notes: "",
        example: "flush",
    },
    Spec {
        verb: Verb::Compact,
        names: &["compact"],
        args: &[],
        opts: &[],
        about: "Makes the file of the pages as small as what is in it.",
        notes: "Copies up to all that is in the store; it can be used meanwhile.",
        example: "compact",
    },
    Spec {
        verb: Verb::Stats,
        names: &["stats"],
        args: &[],
        opts: &[Opt {
            name: "--profile",
            value: None,
            about: "how often each part ran in this session, and how long",
        }],
        about: "Prints figures on the store.",
        notes: "",
        example: "stats",
    },
    Spec {
        verb: Verb::Help,
        names: &["help"],
        args: &[maybe("COMMAND", Kind::Command)],
        opts: &[],
        about: "Lists the commands, or explains one.",
        notes: "",
        example: "help scan",
    },
    Spec {
        verb: Verb::Quit,
        names: &["quit", "exit"],
        args: &[],
        opts: &[],
        about: "Closes the store and leaves, as Ctrl-D does.",
        notes: "",
        example: "quit",
    },
];

/// The command called `name`.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| spec.names.iter().any(|known| known.as_bytes() == name))
}

/// The known name nearest to `name`, if it is near enough to be what was meant.
pub fn nearest<'n>(name: &[u8], known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > 20 {
        return None;
    }
    let allowed = if name.len() < 4 { 1 } else { 2 };
    known
        .map(|candidate| (distance(name, candidate.as_bytes()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many bytes must be inserted, removed or replaced to make `b` of `a`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Spec {
    /// The name that help and messages use.
    pub fn name(&self) -> &'static str {
        self.names[0]
    }

    /// The option called `name`.
    pub fn option(&self, name: &[u8]) -> Option<&'static Opt> {
        self.opts.iter().find(|opt| opt.name.as_bytes() == name)
    }

    /// What may still follow once `given` arguments and the options in `used` are there.
    pub fn remaining(&self, given: usize, used: &[&str]) -> String {
        let mut parts = Vec::new();
        let mut closing = 0;
        for arg in self.args.iter().skip(given) {
            if arg.required {
                parts.push(arg.name.to_owned());
            } else {
                // An optional argument can only follow the one before it: [FROM [TO]].
                parts.push(format!("[{}", arg.name));
                closing += 1;
            }
        }
        if let Some(last) = parts.last_mut() {
            last.push_str(&"]".repeat(closing));
        }
        for opt in self.opts.iter().filter(|opt| !used.contains(&opt.name)) {
            parts.push(match opt.value {
                Some((value, _)) => format!("[{} {value}]", opt.name),
                None => format!("[{}]", opt.name),
            });
        }
        parts.join(" ")
    }

    /// The whole signature: name, arguments and options.
    pub fn signature(&self) -> String {
        let rest = self.remaining(0, &[]);
        let name = self.names.join(" or ");
        if rest.is_empty() { name } else { format!("{name} {rest}") }
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, Verb, find, nearest};
    use crate::parse::Parser;

    #[test]
    fn every_example_parses_as_its_command() {
        for spec in COMMANDS {
            let (_, command) = Parser::new(spec.example.as_bytes())
                .next()
                .expect("an example is not empty")
                .unwrap_or_else(|failure| panic!("{}: {failure}", spec.example));
            assert_eq!(command.verb(), spec.verb, "{}", spec.example);
        }
    }

    #[test]
    fn signatures_nest_what_is_optional() {
        let scan = find(b"scan").expect("there is a scan");
        assert_eq!(scan.signature(), "scan [FROM [TO]] [--prefix P] [--reverse] [--limit N]");
        assert_eq!(scan.remaining(1, &["--prefix", "--limit"]), "[TO] [--reverse]");
        assert_eq!(find(b"set").map(|spec| spec.remaining(1, &[])).as_deref(), Some("[V] [--from FILE]"));
        assert_eq!(find(b"exit").map(|spec| spec.verb), Some(Verb::Quit));
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let names = || COMMANDS.iter().flat_map(|spec| spec.names.iter().copied());
        assert_eq!(nearest(b"improt", names()), Some("import"));
        assert_eq!(nearest(b"gt", names()), Some("get"));
        assert_eq!(nearest(b"select", names()), None);
    }
}
