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
fn a_limit_on_files_is_a_full_disk_and_not_the_end() {
    let shell = Shell::new();
    let rows: String = (0..20_000).map(|n| format!("key {n:06}\t{}\n", "v".repeat(200))).collect();
    shell.write("rows", rows.replace("key ", "key"));
    // 3 MiB, in units of 512 bytes.
    let limited = r#"trap '' XFSZ; ulimit -f 6144; exec "$0" db --create import rows --flush-every 1000"#;
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
