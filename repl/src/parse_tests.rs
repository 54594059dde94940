//! Tests of the parser: a table of lines and what they mean, and a table of mistakes.

use super::{Command, File, Format, Parser, Scan};
use crate::command::Verb;
use std::borrow::Cow;

fn bytes(text: &str) -> Cow<'static, [u8]> {
    Cow::Owned(text.as_bytes().to_vec())
}

fn key(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

#[test]
fn lines_mean_their_commands() {
    let import = |file, format, flush_every| Command::Import { file, format, flush_every };
    let cases = [
        ("set k v", Command::Set { key: bytes("k"), value: bytes("v") }),
        ("set k \"\"", Command::Set { key: bytes("k"), value: bytes("") }),
        ("set -- --k --v", Command::Set { key: bytes("--k"), value: bytes("--v") }),
        ("set '--k' -v", Command::Set { key: bytes("--k"), value: bytes("-v") }),
        ("get 0x6B # why", Command::Get { key: bytes("k") }),
        (" ;; del k ;", Command::Del { key: bytes("k") }),
        ("scan", Command::Scan(Scan::default())),
        (
            "scan --reverse a --limit 1_000 z --prefix=p",
            Command::Scan(Scan {
                from: key("a"),
                to: key("z"),
                prefix: key("p"),
                reverse: true,
                limit: Some(1000),
            }),
        ),
        ("count", Command::Count),
        ("import -", import(File::Standard, Format::Tsv, None)),
        ("import '-'", import(File::At("-".into()), Format::Tsv, None)),
        (
            "import --format lines a.txt --flush-every 5",
            import(File::At("a.txt".into()), Format::Lines, Some(5)),
        ),
        ("export", Command::Export { file: File::Standard, replace: false }),
        ("export --replace 'a b'", Command::Export { file: File::At("a b".into()), replace: true }),
        ("flush", Command::Flush),
        ("compact", Command::Compact),
        ("stats", Command::Stats { profile: false }),
        ("stats --profile", Command::Stats { profile: true }),
        ("help", Command::Help(None)),
        ("help exit", Command::Help(Some(Verb::Quit))),
        ("exit", Command::Quit),
    ];
    for (line, want) in cases {
        let mut parser = Parser::new(line.as_bytes());
        match parser.next() {
            Some(Ok((_, command))) => assert_eq!(command, want, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
        assert!(parser.next().is_none(), "{line}");
    }
}

#[test]
fn mistakes_are_told_at_their_place() {
    let cases = [
        ("bogus", 0, "unknown command bogus; 'help'"),
        ("Sett k v", 0, "did you mean set?"),
        ("set k", 5, "V is missing; usage: set K V"),
        ("set", 3, "K is missing"),
        ("set k a b", 8, "one word too many"),
        ("count x", 6, "one word too many"),
        ("get --k", 4, "get has no option --k; quote it"),
        ("scan --limt 5", 5, "did you mean --limit?"),
        ("scan --limit", 5, "--limit needs a value: --limit N"),
        ("scan --limit x", 13, "--limit needs a whole number"),
        ("scan --limit -1", 13, "--limit needs a whole number"),
        ("scan --limit=x", 13, "--limit needs a whole number"),
        ("scan --reverse=1", 5, "--reverse takes no value"),
        ("scan --reverse --reverse", 15, "given twice"),
        ("scan --prefix='a b'", 14, "as two words"),
        ("import f --format csv", 18, "--format is one of tsv, lines"),
        ("help me", 5, "unknown command me"),
        ("get 'k", 4, "never closed"),
        ("get \x1b[2J x", 9, "one word too many"),
    ];
    for (line, start, says) in cases {
        match Parser::new(line.as_bytes()).next() {
            Some(Err(failure)) => {
                let text = failure.to_string();
                assert!(text.contains(says), "{line}: {text}");
                assert_eq!(failure.span().map(|span| span.start), Some(start), "{line}: {text}");
                assert_eq!(failure.status(), 2, "{line}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn commands_before_a_mistake_are_there() {
    let mut parser = Parser::new(b"set a 1; bogus; get a");
    assert!(matches!(parser.next(), Some(Ok((_, Command::Set { .. })))));
    assert!(matches!(parser.next(), Some(Err(_))));
}
