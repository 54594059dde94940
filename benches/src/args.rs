//! The command line.

use std::path::PathBuf;

use crate::{Result, engine};

const USAGE: &str = "usage: bench [--engine NAME[,NAME..] | --engine all] [--n RECORDS] [--rounds K]
             [--cache-mib M] [--dir DIRECTORY] [--json]";

/// Rows that are measured in one child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// The random-order load, into an empty store, and a clean close.
    Load,
    /// Reads of what `Load` left.
    Read,
    /// Batches of 1,000, each synced.
    Batch,
    /// Single writes, each synced, beside the device's own.
    Sync,
    /// A load that ends by SIGKILL.
    Kill,
    /// Opening what `Kill` left.
    Recover,
}

impl Group {
    /// All groups, in the order in which they run.
    pub(crate) const ALL: [Group; 6] =
        [Group::Load, Group::Read, Group::Batch, Group::Sync, Group::Kill, Group::Recover];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Load => "load",
            Group::Read => "read",
            Group::Batch => "batch",
            Group::Sync => "sync",
            Group::Kill => "kill",
            Group::Recover => "recover",
        }
    }

    /// The folder of the store: `Read` goes on where `Load` stopped, `Recover` where `Kill` did.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Group::Read => Group::Load.name(),
            Group::Recover => Group::Kill.name(),
            other => other.name(),
        }
    }

    pub(crate) fn starts_afresh(self) -> bool {
        self.folder() == self.name()
    }

    pub(crate) fn is_killed(self) -> bool {
        self == Group::Kill
    }
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    /// Which group to run, in a child process.
    pub(crate) child: Option<Group>,
    pub(crate) engines: Vec<String>,
    /// Records of the large stores.
    pub(crate) n: u64,
    pub(crate) rounds: usize,
    /// The cache that every engine is given.
    pub(crate) cache_mib: u64,
    pub(crate) dir: PathBuf,
    pub(crate) json: bool,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
        let mut args = Args {
            child: None,
            engines: all_engines(),
            n: 1_000_000,
            rounds: 1,
            cache_mib: 1024,
            dir: PathBuf::from("target/bench-data"),
            json: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--engine" => args.engines = engines(&value()?)?,
                "--n" => args.n = value()?.replace('_', "").parse()?,
                "--rounds" => args.rounds = value()?.parse()?,
                "--cache-mib" => args.cache_mib = value()?.parse()?,
                "--dir" => args.dir = value()?.into(),
                "--json" => args.json = true,
                "--child" => args.child = Some(group(&value()?)?),
                _ => return Err(format!("unknown word {word}\n{USAGE}").into()),
            }
        }
        if args.n < 1_000 || args.rounds == 0 {
            return Err(format!("at least 1,000 records and one round\n{USAGE}").into());
        }
        Ok(args)
    }
}

fn all_engines() -> Vec<String> {
    engine::NAMES.iter().map(|name| (*name).to_owned()).collect()
}

fn engines(list: &str) -> Result<Vec<String>> {
    if list == "all" {
        return Ok(all_engines());
    }
    let known = |name: &str| {
        let message = || format!("no engine {name} in this build, which has {}", engine::NAMES.join(", "));
        engine::NAMES.contains(&name).then(|| name.to_owned()).ok_or_else(message)
    };
    Ok(list.split(',').map(known).collect::<std::result::Result<_, _>>()?)
}

fn group(name: &str) -> Result<Group> {
    let found = Group::ALL.into_iter().find(|group| group.name() == name);
    Ok(found.ok_or_else(|| format!("no group {name}"))?)
}
