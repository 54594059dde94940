//! Measures the store beside other engines: same keys, same values, same order, same run.
//!
//! Every engine and group of rows runs in a child process of its own (this program, called again),
//! so that no engine inherits another's memory or caches. Rounds are interleaved: all engines run a
//! group before any runs the next. What a child reports is in [`rows`]; how it is shown, in
//! [`report`].
#![forbid(unsafe_code)]

mod args;
mod engine;
mod groups;
mod machine;
mod raw;
mod report;
mod rows;
mod workload;

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use args::{Args, Group};
use report::Report;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let outcome = Args::parse(std::env::args().skip(1)).and_then(|args| match args.child {
        Some(group) => groups::run(group, &args),
        None => measure(&args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every group of every engine, round by round, and prints the table.
fn measure(args: &Args) -> Result<()> {
    fs::create_dir_all(&args.dir)?;
    let mut report = Report::new(args);
    for round in 0..args.rounds {
        for group in Group::ALL {
            for engine in &args.engines {
                eprintln!("round {} of {}: {} {}", round + 1, args.rounds, engine, group.name());
                run_child(args, engine, group, &mut report)?;
            }
        }
        for engine in &args.engines {
            fs::remove_dir_all(args.dir.join(engine))?;
        }
    }
    fs::remove_dir_all(&args.dir)?;
    print!("{}", if args.json { report.json() } else { report.markdown() });
    Ok(())
}

/// Runs one group of one engine in a child process and takes in what it reports.
fn run_child(args: &Args, engine: &str, group: Group, report: &mut Report) -> Result<()> {
    let dir = args.dir.join(engine).join(group.folder());
    if group.starts_afresh() && dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    write_out(&dir)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--child", group.name(), "--engine", engine, "--dir"])
        .arg(&dir)
        .args(["--n", &args.n.to_string(), "--cache-mib", &args.cache_mib.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("the child has no output")?).lines();
    let mut was_killed = false;
    for line in lines {
        let line = line?;
        if line == groups::READY {
            // SIGKILL: nothing of the child runs any more, its memory is gone.
            child.kill()?;
            was_killed = true;
        } else {
            report.take(engine, &line)?;
        }
    }
    let status = child.wait()?;
    if was_killed != group.is_killed() || !(was_killed || status.success()) {
        return Err(format!("{engine} {}: {status}", group.name()).into());
    }
    if group == Group::Load {
        report.add(engine, rows::FILE_BYTES, total_file_bytes(&dir)? as f64);
    }
    Ok(())
}

/// Has the system write out what it holds for the device, so that no engine pays for another's writes.
fn write_out(dir: &Path) -> Result<()> {
    let status = Command::new("sync").arg("--file-system").arg(dir).status()?;
    if status.success() { Ok(()) } else { Err(format!("sync: {status}").into()) }
}

/// The lengths of all files under `dir`.
fn total_file_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { total_file_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
