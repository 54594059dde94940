//! The process that is killed: this test binary once more, told by a variable to be the shell.
//!
//! So the shell that is killed is the one that was just compiled, wherever its own binary lies.

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader, Lines},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        process::ExitStatusExt as _,
    },
    process::{self, ChildStderr, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The shell's arguments, one a line. Set for children only.
const ARGUMENTS: &str = "KILL_SHELL_ARGUMENTS";
/// What a child says before it does anything.
const BEGINS: &str = "the shell begins";

/// In a child: runs the shell to its end and returns true. A test that starts children asks first.
pub fn is_the_shell() -> bool {
    let Some(arguments) = env::var_os(ARGUMENTS) else { return false };
    let arguments: Vec<OsString> = arguments
        .as_bytes()
        .split(|byte| *byte == b'\n')
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    eprintln!("{BEGINS}");
    assert_eq!(repl::run(arguments), ExitCode::SUCCESS, "the shell failed");
    true
}

/// A running child that has reached the shell.
pub struct Child {
    process: process::Child,
    said: Lines<BufReader<ChildStderr>>,
    began: Instant,
    /// Everything it said, for messages.
    heard: Vec<String>,
}

/// How a child ended.
pub struct Ended {
    /// The last N of `durable N`, or 0.
    pub durable: usize,
    /// It was not killed.
    pub was_done: bool,
    /// From the beginning of the shell on.
    pub took: Duration,
}

impl Child {
    /// Starts the shell with `arguments`, by way of `test`.
    pub fn start(test: &str, arguments: &[OsString]) -> Child {
        let mut process = Command::new(env::current_exe().expect("a path to this program"))
            .args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"])
            .env(ARGUMENTS, arguments.join(&OsString::from("\n")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let mut said = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let first = said.next().expect("the child says something").expect("in UTF-8");
        assert_eq!(first, BEGINS);
        Child { process, said, began: Instant::now(), heard: Vec::new() }
    }

    /// Waits for the end, which must be a good one.
    pub fn run_to_the_end(self) -> Ended {
        let ended = self.end();
        assert!(ended.was_done, "somebody else killed the child");
        ended
    }

    /// Kills the child this long after it began.
    pub fn kill_after(mut self, moment: Duration) -> Ended {
        thread::sleep(moment.saturating_sub(self.began.elapsed()));
        self.process.kill().expect("the child can be killed");
        self.end()
    }

    fn end(mut self) -> Ended {
        self.heard.extend(self.said.by_ref().map_while(Result::ok));
        let took = self.began.elapsed();
        let status = self.process.wait().expect("the child ends");
        let was_done = status.signal().is_none();
        assert!(!was_done || status.success(), "{status}: {:#?}", self.heard);
        let durable = self.heard.iter().rev().find_map(|line| line.strip_prefix("durable ")?.parse().ok());
        Ended { durable: durable.unwrap_or(0), was_done, took }
    }
}
