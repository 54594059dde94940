//! The shell in a folder of its own, and what a run of it printed.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A folder with a store called `db`.
pub struct Shell {
    pub folder: TempDir,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub out: Vec<u8>,
    pub err: String,
    pub status: i32,
}

impl Ran {
    #[track_caller]
    pub fn gives(self, out: impl AsRef<[u8]>) -> Ran {
        let want = out.as_ref();
        assert!(self.out == want, "wanted {:?}, got {self:#?}", want.escape_ascii().to_string());
        self
    }

    #[track_caller]
    pub fn exits(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn says(self, part: &str) -> Ran {
        assert!(self.err.contains(part), "wanted {part:?} in {self:#?}");
        self
    }

    #[track_caller]
    pub fn says_nothing(self) -> Ran {
        assert_eq!(self.err, "", "{self:#?}");
        self
    }
}

impl Shell {
    pub fn new() -> Shell {
        Shell { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("a file");
    }

    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repl"));
        command.args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs with these arguments and nothing on standard input.
    pub fn args<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        let ran = self.command(arguments).output().expect("repl starts");
        Ran {
            out: ran.stdout,
            err: String::from_utf8_lossy(&ran.stderr).into(),
            status: ran.status.code().expect("not killed"),
        }
    }

    /// Runs `script` on standard input of `repl db --create`.
    pub fn script(&self, script: impl AsRef<[u8]>) -> Ran {
        self.feed(["db", "--create"], script)
    }

    /// Runs a line of the system's shell, for which `$0` is the program.
    pub fn sh(&self, line: &str) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", line, env!("CARGO_BIN_EXE_repl")]).current_dir(self.folder.path());
        let ran = command.stdin(Stdio::null()).output().expect("sh starts");
        Ran {
            out: ran.stdout,
            err: String::from_utf8_lossy(&ran.stderr).into(),
            status: ran.status.code().expect("not killed"),
        }
    }

    /// Leaves the store `name` as it is when its process dies after these commands.
    pub fn killed(&self, name: &str, commands: &str) {
        let mut child = self.command([name, "--create"]).stdin(Stdio::piped()).spawn().expect("repl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdin.write_all(format!("{commands}; count\n").as_bytes()).expect("repl reads");
        stdout.read_line(&mut String::new()).expect("an answer");
        child.kill().expect("it runs");
        child.wait().expect("it is gone");
    }

    pub fn feed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: impl AsRef<[u8]>,
    ) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("repl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.as_ref().to_vec();
        // A run that stops early closes the pipe, which is no fault of the test.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ran = child.wait_with_output().expect("repl ends");
        feeder.join().expect("the feeder ends");
        Ran {
            out: ran.stdout,
            err: String::from_utf8_lossy(&ran.stderr).into(),
            status: ran.status.code().expect("not killed"),
        }
    }
}
