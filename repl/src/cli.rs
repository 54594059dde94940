//! The program's own command line. What the commands are is [`crate::command`]'s business.

use crate::output;
use crate::size;
use crate::store::MEMORY_BYTES_MIN;
use clap::builder::{OsStringValueParser, TypedValueParser as _, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// The store that is opened when none is named.
const DEFAULT_PATH: &str = "default.db";

const AFTER_HELP: &str = "\
Without commands, repl asks for them at a prompt, or reads them from standard input if that is
not a terminal. 'repl -c help' lists the commands.

Exit status: 0 done, 1 no such key, 2 a command cannot be read, 3 the store or a file failed,
4 the store is damaged, 5 another process has it open, 130 interrupted.";

/// Where the commands come from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// The prompt, or standard input if it is not a terminal.
    Standard,
    /// Lines given with `-c`.
    Lines(Vec<u8>),
    /// A file given with `-f`.
    File(PathBuf),
    /// One command as arguments.
    Arguments(Vec<Vec<u8>>),
}

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The store.
    pub path: PathBuf,
    /// Whether to make the store if there is none.
    pub create: bool,
    /// Whether to open the store for reading alone.
    pub read_only: bool,
    /// Bytes of memory that the store may take, if they were given.
    pub memory: Option<u64>,
    /// Where the commands come from.
    pub source: Source,
    /// Whether the prompt may use colours; the environment can still say no.
    pub color: bool,
    /// Whether the prompt keeps a history on disk.
    pub history: bool,
}

/// A path names something.
fn a_path(text: OsString) -> Result<OsString, String> {
    if text.is_empty() { Err("the path of the store is empty".to_owned()) } else { Ok(text) }
}

/// As much memory as a store works with.
fn memory(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    if bytes >= MEMORY_BYTES_MIN {
        return Ok(bytes);
    }
    Err(format!("a store needs {} of memory at least", output::size(MEMORY_BYTES_MIN)))
}

fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let value = |name: &'static str| Arg::new(name).value_parser(ValueParser::os_string());
    Command::new("repl")
        .about("A shell on an ordered key-value store")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(AFTER_HELP)
        .arg(
            value("path")
                .value_name("PATH")
                .value_parser(OsStringValueParser::new().try_map(a_path))
                .help("The store [default: ./default.db, made if missing]"),
        )
        .arg(flag("create").help("Make the store if there is none"))
        .arg(
            flag("read-only")
                .conflicts_with("create")
                .help("Only read: nothing is written, and what would write is refused"),
        )
        .arg(
            Arg::new("memory")
                .long("memory")
                .value_name("SIZE")
                .value_parser(memory)
                .help("Memory for the store, as 64MiB or 1g [default: 1/4 of the machine's, 1 GiB at most]"),
        )
        .arg(
            value("commands")
                .short('c')
                .value_name("COMMANDS")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .help("Run COMMANDS, separated by ';', and leave"),
        )
        .arg(
            value("file")
                .short('f')
                .value_name("FILE")
                .conflicts_with("commands")
                .help("Run the commands of FILE"),
        )
        .arg(flag("no-color").help("No colours at the prompt (also with NO_COLOR set)"))
        .arg(flag("no-history").help("Keep no history of the prompt"))
        .arg(
            value("words")
                .value_name("COMMAND")
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .conflicts_with_all(["commands", "file"])
                .help("Run one command, its words as arguments, and leave"),
        )
}

/// Reads the arguments; the error is clap's own text and exit status, help among them.
pub fn options(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, clap::Error> {
    command().try_get_matches_from(arguments).map(|matches| chosen(&matches))
}

fn chosen(matches: &ArgMatches) -> Options {
    let path = matches.get_one::<OsString>("path");
    Options {
        path: path.map_or_else(|| DEFAULT_PATH.into(), PathBuf::from),
        // The default is where a first try goes, and its name can hardly be a typing error.
        create: matches.get_flag("create") || (path.is_none() && !matches.get_flag("read-only")),
        read_only: matches.get_flag("read-only"),
        memory: matches.get_one::<u64>("memory").copied(),
        source: source(matches),
        color: !matches.get_flag("no-color"),
        history: !matches.get_flag("no-history"),
    }
}

fn source(matches: &ArgMatches) -> Source {
    let bytes = |name: &str| -> Option<Vec<Vec<u8>>> {
        let values = matches.get_many::<OsString>(name)?;
        Some(values.cloned().map(OsString::into_vec).collect())
    };
    if let Some(lines) = bytes("commands") {
        Source::Lines(lines.join(&b'\n'))
    } else if let Some(file) = matches.get_one::<OsString>("file") {
        Source::File(file.into())
    } else if let Some(words) = bytes("words") {
        Source::Arguments(words)
    } else {
        Source::Standard
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, Source, command, options};
    use std::ffi::OsString;

    fn read(line: &str) -> Options {
        let arguments = std::iter::once("repl").chain(line.split_whitespace()).map(OsString::from);
        options(arguments).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn only_the_default_store_is_made_unasked() {
        assert!(read("").create);
        assert!(read("-c count").create);
        assert!(!read("a.db").create);
        assert!(read("a.db --create").create);
        assert!(read("--create a.db get k").create);
        assert!(!read("--read-only").create);
        assert!(read("a.db --read-only get k").read_only && !read("a.db get k").read_only);
    }

    #[test]
    fn the_memory_is_a_size_and_anything_else_is_refused() {
        assert_eq!(read("a.db count").memory, None);
        assert_eq!(read("--memory 64MiB a.db count").memory, Some(64 << 20));
        let arguments = ["repl", "--memory", "much", "a.db"].map(OsString::from);
        let refused = options(arguments).expect_err("no size").to_string();
        assert!(refused.contains("--memory") && refused.contains("64MiB"), "{refused}");
    }

    #[test]
    fn words_after_the_path_are_the_commands_own() {
        let words =
            |words: &[&str]| Source::Arguments(words.iter().map(|word| word.as_bytes().to_vec()).collect());
        let cases = [
            ("a.db get k", words(&["get", "k"])),
            ("a.db scan --limit 5 -c", words(&["scan", "--limit", "5", "-c"])),
            ("a.db set -- --k v", words(&["set", "--", "--k", "v"])),
            ("a.db export -", words(&["export", "-"])),
            ("a.db -c count -c stats", Source::Lines(b"count\nstats".to_vec())),
            ("-c count a.db", Source::Lines(b"count".to_vec())),
            ("a.db -f x.txt", Source::File("x.txt".into())),
            ("a.db", Source::Standard),
        ];
        for (line, want) in cases {
            assert_eq!(read(line).source, want, "{line}");
        }
    }
}
