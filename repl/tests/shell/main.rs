//! The shell as its users meet it: the real program, in a folder of its own, through each door.

mod kit;
mod refusals;

use kit::Shell;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

#[test]
fn the_default_store_is_made_and_any_other_only_on_request() {
    let shell = Shell::new();
    shell.args(["-c", "set a 1; get a"]).gives("1\n").says_nothing().exits(0);
    assert!(shell.path("default.db").exists());
    shell.args(["default.db", "get", "a"]).gives("1\n").exits(0);
    shell
        .args(["missing", "get", "a"])
        .gives("")
        .says("there is no store at missing")
        .says("--create")
        .exits(3);
    assert!(!shell.path("missing").exists());
    shell.args(["missing", "--create", "count"]).gives("0\n").exits(0);
    shell.args(["missing", "count"]).gives("0\n").exits(0);
    shell.args(["get", "a"]).says("the first word is the store's path").exits(3);
}

#[test]
fn what_is_not_a_store_is_left_alone() {
    let shell = Shell::new();
    shell.write("file", "text");
    shell.args(["file", "--create", "count"]).says("file is not a store").exits(3);
    fs::create_dir(shell.path("folder")).expect("a folder");
    shell.args(["folder", "count"]).says("there is no store at folder").exits(3);
    shell.write("folder/notes.txt", "text");
    shell.args(["folder", "--create", "count"]).says("folder is not a store").exits(3);
    assert_eq!(fs::read_dir(shell.path("folder")).expect("a folder").count(), 1);
}

#[test]
fn what_a_cut_creation_leaves_is_no_store_and_in_nobodys_way() {
    let shell = Shell::new();
    fs::create_dir(shell.path("folder")).expect("a folder");
    shell.write("folder/pages.new", "the beginning of a store");
    shell.args(["folder", "count"]).says("there is no store at folder").exits(3);
    shell.args(["folder", "--create", "set", "k", "v"]).exits(0);
    shell.args(["folder", "get", "k"]).gives("v\n").exits(0);
}

#[test]
fn every_door_gives_the_same() {
    let shell = Shell::new();
    shell.script("set 'a b' \"x\\ty\"\nset plain 0x00ff\n").gives("").says_nothing().exits(0);
    let want = "\"a b\"\t\"x\\ty\"\nplain\t0x00FF\n";
    shell.write("commands", "# all\nscan\n");
    shell.args(["db", "scan"]).gives(want).exits(0);
    shell.args(["db", "-c", "scan"]).gives(want).exits(0);
    shell.args(["db", "-f", "commands"]).gives(want).exits(0);
    shell.script("scan").gives(want).exits(0);
    shell.script("scan\r\n").gives(want).exits(0);
    shell.args(["db", "get", "a b"]).gives("x\ty\n").exits(0);
    shell.args(["db", "get", "\"a b\""]).gives("x\ty\n").exits(0);
    shell.args(["db", "get", "plain"]).gives(b"\x00\xFF\n").exits(0);
    shell.args(["db", "set", "--", "--odd", "-v"]).exits(0);
    shell.args(["db", "get", "'--odd'"]).gives("-v\n").exits(0);
}

#[test]
fn get_and_del_answer_no_with_status_1_and_a_script_goes_on() {
    let shell = Shell::new();
    shell.script("").gives("").exits(0);
    shell.args(["db", "get", "k"]).gives("").says("no such key: k").exits(1);
    shell.args(["db", "del", "k"]).gives("").says("no such key: k").exits(1);
    shell
        .script("set k v\ndel k\nget k\nset k w\nget k")
        .gives("w\n")
        .says("line 3, column 1: no such key")
        .exits(1);
    shell.args(["db", "set", "empty", ""]).exits(0);
    shell.args(["db", "get", "empty"]).gives("\n").exits(0);
    shell.args(["db", "get", "\x1b[2J"]).says(r#"no such key: "\x1B[2J""#).exits(1);
}

#[test]
fn scan_takes_ranges_prefixes_direction_and_limit() {
    let shell = Shell::new();
    let rows = |keys: &str| keys.split_whitespace().map(|key| format!("{key}\tv\n")).collect::<String>();
    shell.script("set a v; set b v; set ba v; set bb v; set c v; set d v").exits(0);
    let cases = [
        ("scan", "a b ba bb c d"),
        ("scan b", "b ba bb c d"),
        ("scan b c", "b ba bb"),
        ("scan c b", ""),
        ("scan --prefix b", "b ba bb"),
        ("scan ba --prefix b", "ba bb"),
        ("scan a bb --prefix b", "b ba"),
        ("scan --reverse", "d c bb ba b a"),
        ("scan b d --reverse --limit 2", "c bb"),
        ("scan --limit 2", "a b"),
        ("scan --limit 0", "a b ba bb c d"),
        ("scan x", ""),
    ];
    for (command, keys) in cases {
        shell.args(["db", "-c", command]).gives(rows(keys)).says_nothing().exits(0);
    }
}

#[test]
fn a_pipe_gets_every_row() {
    let shell = Shell::new();
    let script: String = (0..2_000).map(|n| format!("set k{n:04} v\n")).collect();
    shell.script(script).says_nothing().exits(0);
    let rows: String = (0..2_000).map(|n| format!("k{n:04}\tv\n")).collect();
    shell.args(["db", "scan"]).gives(&rows).says_nothing().exits(0);
    shell.args(["db", "count"]).gives("2000\n").exits(0);
}

#[test]
fn flush_stats_help_and_quit_work() {
    let shell = Shell::new();
    shell.script("set a 1; flush; quit; set b 2\nset c 3").gives("").says_nothing().exits(0);
    shell.script("count\nexit\nbogus").gives("1\n").exits(0);
    let profile = shell.args(["db", "-c", "get a; get b; stats --profile"]);
    let table = String::from_utf8_lossy(&profile.out).into_owned();
    let gets = table.lines().find(|line| line.starts_with("tree get")).expect("a line on gets");
    assert_eq!(gets.split_whitespace().nth(2), Some("2"), "{table}");
    let stats = shell.args(["db", "stats"]).exits(0);
    let text = String::from_utf8(stats.out).expect("text");
    assert!(text.contains("records\t1\n"), "{text}");
    assert!(text.lines().all(|line| line.split('\t').count() == 2), "{text}");
    let list = shell.args(["db", "help"]).exits(0);
    let list = String::from_utf8(list.out).expect("text");
    for command in [
        "set", "get", "del", "scan", "count", "import", "export", "flush", "compact", "stats", "help", "quit",
    ] {
        assert!(list.contains(&format!("\n{command}")) || list.starts_with(command), "{command}: {list}");
        let help = shell.args(["db", "help", command]).exits(0);
        assert!(String::from_utf8_lossy(&help.out).contains("example: "), "{help:?}");
    }
    let usage = shell.args(["--help"]).exits(0);
    assert!(String::from_utf8_lossy(&usage.out).contains("Exit status"), "{usage:?}");
}

#[test]
fn compact_makes_the_file_as_small_as_what_is_in_it() {
    let shell = Shell::new();
    let words: String = (1..=60_000).map(|n| format!("{:05}\n", n * 7_919 % 60_000)).collect();
    shell.write("words", words);
    shell.args(["db", "--create", "import", "words", "--format", "lines"]).exits(0);
    let removals: String = (0..60_000).filter(|n| n % 50 > 0).map(|n| format!("del {n:05}\n")).collect();
    let shown = shell.script(format!("{removals}compact\nstats\ncount")).exits(0);
    let text = String::from_utf8(shown.out).expect("text");
    let figure = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}\t")));
        line.and_then(|figure| figure.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
    };
    let (file, live) = (figure("pages_file_bytes"), figure("pages_live_bytes"));
    // The superblocks and the last blocks of a few checkpoints come on top.
    assert!(file < live + live / 4 + 40_000, "{file} bytes of file for {live}");
    assert!(text.ends_with("\n1200\n"), "{text}");
}

#[test]
fn the_first_mistake_stops_a_script_at_its_line_and_column() {
    let shell = Shell::new();
    let ran = shell.script("set a 1\n\n  set b 2; bogus x\nset c 3\n").gives("").exits(2);
    let ran = ran.says("repl: line 3, column 12: unknown command bogus");
    ran.says("\n    set b 2; bogus x\n             ^^^^^\n");
    shell.args(["db", "scan"]).gives("a\t1\nb\t2\n");
    shell.script("set é \"\\q\"").says("line 1, column 8: unknown escape").exits(2);
    shell.script("get a\nset k").gives("1\n").says("line 2, column 6: V is missing; usage: set K V").exits(2);
    shell.args(["db", "-c", "count", "-c", "get 'a"]).says("line 2, column 5").exits(2);
    shell.write("commands", "count\nscan --limit x\n");
    shell.args(["db", "-f", "commands"]).says("commands, line 2, column 14: --limit needs").exits(2);
    shell.args(["db", "-f", "none"]).says("cannot read none").exits(3);
    shell.args(["db", "bogus"]).says("repl: unknown command bogus").exits(2);
    shell.args(["db", "get", "0xZ"]).says("pairs of hexadecimal digits").says("get 0xZ\n      ^^^").exits(2);
    shell.args(["--bogus"]).exits(2);
}

#[test]
fn scripts_hold_any_bytes_and_messages_hold_no_control_sequence() {
    let shell = Shell::new();
    shell.script(b"set \xFF\x01 \x80\x1B\nget \xFF\x01\n").gives(b"\x80\x1B\n").exits(0);
    shell.args(["db", "scan"]).gives("0xFF01\t0x801B\n");
    let ran = shell.script(b"get \x1B]0;title\x07\n").exits(2);
    assert!(!ran.err.contains('\x1B') && !ran.err.contains('\x07'), "{ran:?}");
    let ran = shell.script(b"\x1B[2J\xFF x\n").exits(2).says("unknown command");
    assert!(!ran.err.contains('\x1B'), "{ran:?}");
}

#[test]
fn lines_are_imported_with_their_numbers() {
    let shell = Shell::new();
    shell.write("words", "pear\n\napple\r\npear\n\n");
    let ran = shell.args(["db", "--create", "import", "words", "--format", "lines"]);
    ran.gives("").says("durable 5\n").exits(0);
    shell.args(["db", "scan"]).gives("\"apple\\x0D\"\t3\npear\t4\n");
    shell.feed(["db", "import", "-", "--format", "lines"], "zoo").says("durable 1\n").exits(0);
    shell.args(["db", "get", "zoo"]).gives("1\n");
    shell.args(["db", "import", "none"]).says("cannot read none").exits(3);
    shell.args(["db", "import", "words"]).says("words, line 1, column 5").says("--format lines").exits(2);
    shell.write("none", "");
    shell.args(["db", "import", "none"]).says("durable 0\n").exits(0);
    shell.script("import -\na\tb\n").says("standard input holds the commands").exits(2);
}

#[test]
fn import_flushes_as_often_as_asked_and_says_what_is_durable() {
    let shell = Shell::new();
    let words: String = (1..=2_500).map(|n| format!("w{n}\n")).collect();
    shell.write("words", words);
    let ran = shell
        .args(["db", "--create", "import", "words", "--format=lines", "--flush-every", "1_200"])
        .exits(0);
    assert_eq!(ran.err, "durable 1200\ndurable 2400\ndurable 2500\n");
    let ran = shell.args(["db", "import", "words", "--format=lines", "--flush-every=1250"]).exits(0);
    assert_eq!(ran.err, "durable 1250\ndurable 2500\n");
    shell.args(["db", "count"]).gives("2500\n");
}

#[test]
fn a_faulty_record_leaves_exactly_those_before_it() {
    let shell = Shell::new();
    let mut rows: String = (0..1_500).map(|n| format!("k{n}\tv\n")).collect();
    rows.push_str("# a comment\nbad\tv #1\nlater\tv\n");
    shell.write("rows.tsv", rows);
    let ran = shell.args(["db", "--create", "import", "rows.tsv"]).exits(2);
    ran.says("durable 1500\n").says("rows.tsv, line 1502, column 7: more than a key and a value");
    shell.args(["db", "count"]).gives("1500\n");
}

#[test]
fn export_and_import_carry_any_bytes() {
    let shell = Shell::new();
    let mut script = String::new();
    let mut state = 0x00C0_FFEE_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    for _ in 0..3_000 {
        let mut hex = |len: usize| (0..len).map(|_| format!("{:02x}", random() as u8)).collect::<String>();
        script.push_str(&format!("set 0x{} 0x{}\n", hex(3), hex(9)));
    }
    script.push_str(
        "set \"\" ''\nset \"tab\\there\" \"line\\nfeed\"\nset '#hash' '; --x'\nset größe \"\\u{1F600}\"\n",
    );
    script.push_str(&format!("set long {}\n", "x".repeat(500_000)));
    shell.script(script).says_nothing().exits(0);
    let scan = shell.args(["db", "scan"]).exits(0).out;
    shell.args(["db", "export", "all.tsv"]).gives("").says("exported 3").exits(0);
    assert_eq!(fs::read(shell.path("all.tsv")).expect("the export"), scan);
    shell.args(["db", "export"]).gives(&scan).says_nothing().exits(0);
    shell.args(["db", "export", "-"]).gives(&scan).exits(0);
    shell.args(["copy", "--create", "import", "all.tsv"]).gives("").exits(0);
    shell.args(["copy", "scan"]).gives(&scan).exits(0);
    shell.feed(["third", "--create", "import", "-"], &scan).exits(0);
    shell.args(["third", "scan"]).gives(&scan).exits(0);

    shell.args(["db", "export", "all.tsv"]).says("all.tsv exists; --replace").exits(2);
    shell.args(["db", "-c", "del long; export all.tsv --replace"]).exits(0);
    assert!(fs::read(shell.path("all.tsv")).expect("the export").len() < scan.len() - 500_000);
    shell.args(["db", "export", "none/all.tsv"]).says("cannot create none/all.tsv").exits(3);
    let left = fs::read_dir(shell.folder.path()).expect("the folder").flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().contains(".part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_large_value_goes_from_a_file_to_a_file() {
    let shell = Shell::new();
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    shell.write("large", &bytes);
    shell.write("empty", "");
    shell.script("set film --from large; set none --from empty; set film2 --from=large").gives("").exits(0);
    let printed = [&bytes[..], b"\n"].concat();
    shell.script("get film").gives(&printed).exits(0);
    shell.script("get none").gives("\n").exits(0);
    shell.script("del film; get film").says("no such key").exits(1);
    shell.script("get film2").gives(&printed).exits(0);
    shell.script("set k v --from large").says("given twice").exits(2);
    shell.script("set k --from -").says("needs a file").exits(2);
    shell.script("set k --from nowhere").says("nowhere").exits(3);
    shell.script("set film --from .").says("does not say how long it is").exits(2);
    shell.script("set film2 --from /dev/null").says("copy it into a file first").exits(2);
    shell.script("set film2 --from /proc/self/stat").says("does not say how long it is").exits(2);
    shell.script("get film2").gives(&printed).exits(0);
}

#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let shell = Shell::new();
    let script: String = (0..20_000).map(|n| format!("set key{n:06} some-value\n")).collect();
    shell.script(script).exits(0);
    let mut child = shell.command(["db", "scan"]).spawn().expect("repl starts");
    let mut first = [0; 10];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("a row");
    let ended = child.wait_with_output().expect("repl ends");
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]), "{ended:?}");
}

#[test]
fn an_output_that_fails_is_an_error() {
    let shell = Shell::new();
    shell.script("set a 1").exits(0);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let ran = shell.command(["db", "scan"]).stdout(full).output().expect("repl starts");
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(err.contains("cannot write to standard output"), "{err}");
    assert_eq!(ran.status.code(), Some(3), "{err}");
}

#[test]
fn answers_come_before_more_input_is_awaited() {
    let shell = Shell::new();
    let mut child = shell.command(["db", "--create"]).stdin(Stdio::piped()).spawn().expect("repl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for n in 0..3 {
        stdin.write_all(format!("set k {n}; get k\n").as_bytes()).expect("repl reads");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("an answer");
        assert_eq!(line, format!("{n}\n"));
    }
    drop(stdin);
    assert!(child.wait().expect("repl ends").success());
}

#[test]
fn a_store_in_use_is_said_to_be() {
    let shell = Shell::new();
    let mut child = shell.command(["db", "--create"]).stdin(Stdio::piped()).spawn().expect("repl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"count\n").expect("repl reads");
    let mut answer = [0; 2];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut answer).expect("an answer");
    shell
        .args(["db", "count"])
        .gives("")
        .says(&format!("open in another process, number {};", child.id()))
        .exits(5);
    drop(stdin);
    assert!(child.wait().expect("repl ends").success());
    shell.args(["db", "count"]).gives("0\n").exits(0);
}

#[test]
fn a_store_that_is_only_read_says_no_to_what_would_write() {
    let shell = Shell::new();
    shell.script("set a 1; set b 2").exits(0);
    let before: Vec<_> = ["pages", "log"].map(|name| fs::read(shell.path("db").join(name)).ok()).into();
    shell.args(["db", "--read-only", "-c", "get a; scan; count; flush; stats"]).says_nothing().exits(0);
    for line in ["set a 2", "del a", "del none", "import words", "compact"] {
        shell.args(["db", "--read-only", "-c", line]).gives("").says("leave out --read-only").exits(3);
    }
    let after: Vec<_> = ["pages", "log"].map(|name| fs::read(shell.path("db").join(name)).ok()).into();
    assert!(before == after, "a reader changed a file");
    shell.args(["none", "--read-only", "count"]).says("there is no store at none").exits(3);
    shell.args(["--read-only", "-c", "count"]).says("there is no store at default.db").exits(3);
    assert!(!shell.path("none").exists() && !shell.path("default.db").exists());
    shell.args(["db", "get", "a"]).gives("1\n").exits(0);
}

#[test]
fn an_import_that_is_killed_leaves_the_first_lines_and_no_others() {
    let shell = Shell::new();
    let lines: Vec<String> = (1..=60_000).map(|n| format!("line {:05}", n * 7_919 % 60_000)).collect();
    shell.write("words", lines.join("\n"));
    let arguments = ["db", "--create", "import", "words", "--format", "lines", "--flush-every", "3000"];
    let mut child = shell.command(arguments).spawn().expect("repl starts");
    let mut durable = 0;
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    while durable < 9_000 {
        let line = stderr.next().expect("more is to come").expect("text");
        durable = line.strip_prefix("durable ").and_then(|n| n.parse().ok()).expect("durable N");
    }
    child.kill().expect("it can be killed");
    child.wait().expect("repl ends");
    // What was said between the last look and the end counts as well.
    for line in stderr.map_while(Result::ok) {
        durable = line.strip_prefix("durable ").and_then(|n| n.parse().ok()).unwrap_or(durable);
    }
    check_prefix(&shell, &lines, durable);
}

/// The store must hold exactly the first n lines, and at least those said to be durable.
fn check_prefix(shell: &Shell, lines: &[String], durable: usize) {
    let scan = String::from_utf8(shell.args(["db", "scan"]).exits(0).out).expect("text");
    let held = scan.lines().count();
    assert!(held >= durable, "{durable} were durable, {held} are left");
    let mut want: Vec<String> =
        lines[..held].iter().enumerate().map(|(at, line)| format!("\"{line}\"\t{}", at + 1)).collect();
    want.sort();
    assert!(scan.lines().eq(want.iter().map(String::as_str)), "not the first {held} lines");
}

#[test]
fn paths_of_any_bytes_work() {
    use std::os::unix::ffi::OsStrExt as _;
    let shell = Shell::new();
    let name = OsStr::from_bytes(b"st\xFFore\x1B");
    shell.args([name, OsStr::new("--create"), OsStr::new("count")]).gives("0\n").exits(0);
    assert!(Path::new(&shell.folder.path().join(name)).exists());
    shell.args([OsStr::from_bytes(b"no\xFF\x1B"), OsStr::new("count")]).says(r"no\xFF\x1B").exits(3);
}

#[test]
fn damage_is_told_by_file_and_place_with_its_own_status() {
    let shell = Shell::new();
    shell.script("set k v").exits(0);
    let path = shell.path("db").join("pages");
    let mut bytes = fs::read(&path).expect("the pages");
    // Both superblocks.
    for at in [20, 4096 + 20] {
        bytes[at] ^= 1;
    }
    fs::write(&path, bytes).expect("the pages");
    shell.args(["db", "get", "k"]).gives("").says("damaged at byte 0 of db/pages").exits(4);
}
