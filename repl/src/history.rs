//! The history of the prompt: a file only its user can read, without long values.
//!
//! Lines with a long word are kept with a stand-in that does not parse, so that recalling one
//! and pressing Enter is an error instead of a wrong value.

use crate::exit::{Failure, Result};
use crate::token::{Lexeme, Tokens};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

/// The longest word kept as it is.
const WORD_BYTES_MAX: usize = 256;

/// Lines kept.
pub const LINES_MAX: usize = 10_000;

/// Makes sure the history's file is there with mode 0600, and returns its path.
///
/// None if no folder is known to keep it in.
pub fn file() -> Result<Option<PathBuf>> {
    let Some(folder) = folder() else { return Ok(None) };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&folder).map_err(Failure::io("create", &folder))?;
    let path = folder.join("history");
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let file = file.map_err(Failure::io("open", &path))?;
    // An older file, or one brought from elsewhere, may be readable for others.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(Failure::io("protect", &path))?;
    Ok(Some(fs::canonicalize(&path).unwrap_or(path)))
}

/// `$XDG_STATE_HOME/repl`, or `~/.local/state/repl`. The standard demands absolute paths.
fn folder() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")));
    state.filter(|path| path.is_absolute()).map(|path| path.join("repl"))
}

/// The line as the history keeps it.
pub fn kept(line: &str) -> String {
    let mut kept = String::with_capacity(line.len().min(4 * WORD_BYTES_MAX));
    let mut from = 0;
    for lexeme in Tokens::new(line.as_bytes()) {
        let (span, len) = match lexeme {
            Ok(Lexeme::Word(word)) => (word.span, word.bytes.len()),
            Ok(Lexeme::Separator(_)) => continue,
            Ok(Lexeme::Comment(span)) => (span, 0),
            Err(fault) => (fault.span, 0),
        };
        if len.max(span.end - span.start) > WORD_BYTES_MAX {
            kept.push_str(line.get(from..span.start).unwrap_or_default());
            kept.push_str(&format!("'@... {} bytes not kept", span.end - span.start));
            from = span.end;
        }
    }
    kept.push_str(line.get(from..).unwrap_or_default());
    kept
}

#[cfg(test)]
mod tests {
    use super::kept;
    use crate::token::Tokens;

    #[test]
    fn long_words_are_not_kept_and_cannot_be_run_by_mistake() {
        let long = "x".repeat(257);
        for line in [format!("set k {long}"), format!("set k '{long}"), format!("set '{long}' v; get k")] {
            let kept = kept(&line);
            assert!(kept.len() < 80 && !kept.contains("xxx"), "{kept}");
            assert!(Tokens::new(kept.as_bytes()).any(|lexeme| lexeme.is_err()), "{kept}");
        }
        let short = format!("set k {} # {}", "x".repeat(256), "é");
        assert_eq!(kept(&short), short);
    }
}
