//! What the shell refuses, and what it says then.

use crate::kit::Shell;

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
