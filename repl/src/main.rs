//! The shell as a program; all of it is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    repl::run(std::env::args_os())
}
