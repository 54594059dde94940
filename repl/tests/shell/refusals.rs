//! What the shell refuses, and what it says then.

use crate::kit::Shell;
use std::fs;

#[test]
fn a_store_without_its_pages_is_damaged_and_says_what_is_missing() {
    let shell = Shell::new();
    shell.script("set k v").exits(0);
    fs::remove_file(shell.path("db/pages")).expect("it was there");
    for more in [&["count"][..], &["--read-only", "count"], &["--create", "count"]] {
        let ran = shell.args([&["db"], more].concat()).gives("").exits(4);
        ran.says("db/pages").says("the file is gone, though db/log is there").says("from a copy");
    }
    assert!(!shell.path("db/pages").exists());
}

#[test]
fn a_killed_store_whose_log_was_emptied_is_damaged() {
    let shell = Shell::new();
    shell.killed("db", "set k v; flush");
    shell.args(["db", "get", "k"]).gives("v\n").exits(0);
    shell.killed("db", "set k w; flush");
    fs::write(shell.path("db/log"), "").expect("it was there");
    for more in [&["get", "k"][..], &["--read-only", "get", "k"]] {
        let ran = shell.args([&["db"], more].concat()).gives("").exits(4);
        ran.says("byte 0 of db/log").says("the file ends here").says("from a copy");
    }
}

#[test]
fn what_no_store_works_with_is_refused_by_name() {
    let shell = Shell::new();
    for memory in ["1", "64k", "1023KiB"] {
        let ran = shell.args(["--memory", memory, "db", "--create", "count"]).gives("").exits(2);
        ran.says("--memory").says("at least").says("1.0 MiB");
    }
    shell.args(["--memory", "1MiB", "db", "--create", "count"]).gives("0\n").exits(0);
    shell.args(["--memory", "16EiB", "db", "count"]).says("no unit").says("64MiB").exits(2);
    shell.args(["", "count"]).says("the path of the store is empty").exits(2);
    let help = shell.args(["--help"]).exits(0);
    assert!(String::from_utf8_lossy(&help.out).contains("130 interrupted"), "{help:?}");
}

#[test]
fn a_value_too_large_to_be_shown_is_named_with_the_command_that_writes_it() {
    let shell = Shell::new();
    shell.write("film", vec![b'x'; 3 << 20]);
    shell.script("set a 1; set 'the film' --from film; set z 2").exits(0);
    let little = ["--memory", "1MiB", "db"];
    for (command, before) in
        [(&["scan"][..], "a\t1\n"), (&["scan", "--reverse"], "z\t2\n"), (&["export"], "a\t1\n")]
    {
        let ran = shell.args([&little[..], command].concat()).gives(before).exits(3);
        let ran = ran.says("the value of \"the film\" has 3145728 bytes");
        let ran = ran.says("'get \"the film\" > FILE' writes it").says("--memory");
        assert!(!ran.err.contains("get_reader") && !ran.err.contains("cache_capacity"), "{ran:?}");
    }
    let ran = shell.args([&little[..], &["get", "the film"]].concat()).exits(0);
    assert_eq!(ran.out.len(), (3 << 20) + 1);
}

#[test]
fn an_output_that_takes_nothing_is_an_error_and_one_that_is_thrown_away_is_not() {
    let shell = Shell::new();
    shell.script("set a 1").exits(0);
    shell.sh(r#""$0" db get a >/dev/full"#).says("cannot write to standard output").exits(3);
    shell.sh(r#""$0" db -c 'set b 2' >/dev/full"#).says_nothing().exits(0);
    // Supervisors open it for reading and writing, as the runtime does for an output that was closed.
    for thrown_away in [">/dev/null", "1<>/dev/null", ">&-"] {
        let commands = format!(r#""$0" db -c 'get a; set c 3' {thrown_away}"#);
        shell.sh(&commands).says_nothing().exits(0);
        shell.args(["db", "-c", "get c; del c"]).exits(0);
    }
}

#[test]
fn a_limit_on_files_is_a_full_disk_and_not_the_end() {
    let shell = Shell::new();
    let rows: String = (0..20_000).map(|n| format!("key {n:06}\t{}\n", "v".repeat(200))).collect();
    shell.write("rows", rows.replace("key ", "key"));
    // 3 MiB, in units of 512 bytes.
    let limited = r#"ulimit -f 6144; exec "$0" db --create import rows --flush-every 1000"#;
    let ran = shell.sh(limited).says("the disk is full").says("limit").exits(3);
    assert!(!ran.err.contains("an earlier write failed"), "{ran:?}");
    let durable = ran.err.lines().filter_map(|line| line.strip_prefix("durable ")).next_back();
    let durable: u64 = durable.expect("some were").parse().expect("a number");
    let kept = shell.args(["db", "count"]).exits(0);
    let kept: u64 = String::from_utf8_lossy(&kept.out).trim().parse().expect("a number");
    assert!((durable..20_000).contains(&kept), "{kept} of {durable}");
    shell.args(["db", "import", "rows"]).exits(0);
    shell.args(["db", "count"]).gives("20000\n");
}

/// The store was killed, and its close finds no room for the checkpoint that the log stands for.
#[test]
fn an_answer_that_was_given_is_no_failure_because_the_disk_is_full() {
    let shell = Shell::new();
    // So short a log that it is within the limit, whatever was flushed in between.
    for _ in 0..50 {
        let _ = fs::remove_dir_all(shell.path("db"));
        shell.killed("db", "set a 1; flush");
        if fs::read(shell.path("db/log")).expect("a log")[8192..].iter().all(|byte| *byte == 0) {
            break;
        }
    }
    let limited = |commands: &str| format!(r#"trap '' XFSZ; ulimit -f 16; exec "$0" db -c '{commands}'"#);
    for _ in 0..2 {
        let ran = shell.sh(&limited("get a; count")).gives("1\n1\n").exits(0);
        ran.says("the disk is full, so the log was left as it was; nothing is lost");
    }
    let ran = shell.sh(&limited("set b 2")).exits(3);
    assert_eq!(ran.err.matches("File too large").count(), 1, "told once: {ran:?}");
    shell.args(["db", "get", "a"]).gives("1\n").says_nothing().exits(0);
}
