//! The caller's source of a value: how far it came, and why it came no further.

use std::io::{self, ErrorKind, Read};

use crate::Error;

/// Bytes of a key that a message shows.
const KEY_SHOWN_BYTES: usize = 60;

/// Counts what a source gives, and remembers why it gave no more.
pub(crate) struct Counted<S> {
    inner: S,
    given: u64,
    stopped: Option<Stopped>,
}

enum Stopped {
    Ended,
    Failed(io::Error),
}

impl<S: Read> Counted<S> {
    pub(crate) fn new(inner: S) -> Counted<S> {
        Counted { inner, given: 0, stopped: None }
    }

    /// What to tell of `error`, with which a value of `bytes` under `key` was not written: if that is the
    /// source's doing, which key it was, and how far the source came.
    pub(crate) fn explain(self, key: &[u8], bytes: u64, error: Error) -> Error {
        let (kind, why) = match self.stopped {
            None => return error,
            Some(Stopped::Ended) => (ErrorKind::UnexpectedEof, "ended".to_owned()),
            Some(Stopped::Failed(why)) => (why.kind(), format!("failed ({why})")),
        };
        let shown = key[..key.len().min(KEY_SHOWN_BYTES)].escape_ascii();
        let more = if key.len() > KEY_SHOWN_BYTES { "..." } else { "" };
        let given = self.given;
        let told = format!(
            "the value of key {shown}{more} was to have {bytes} bytes, and its source {why} after {given}; \
             nothing was written"
        );
        Error::Io(io::Error::new(kind, told))
    }
}

impl<S: Read> Read for Counted<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(out) {
            Ok(0) if !out.is_empty() => {
                self.stopped = Some(Stopped::Ended);
                Ok(0)
            }
            Ok(len) => {
                self.given += len as u64;
                Ok(len)
            }
            // Who reads tries these again.
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.stopped = Some(Stopped::Failed(error));
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Read};

    use crate::{Config, Error};

    /// Gives so many bytes and fails then.
    struct Breaks(u64);

    impl Read for Breaks {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::new(ErrorKind::ConnectionReset, "the wire was cut"));
            }
            let len = out.len().min(usize::try_from(self.0).unwrap());
            self.0 -= len as u64;
            Ok(len)
        }
    }

    #[test]
    fn a_source_that_does_not_give_what_was_promised_is_told_with_key_and_bytes() {
        let db = Config::new().temporary(true).open().unwrap();
        db.insert("film", "before").unwrap();
        for promised in [1_000, 5 << 20] {
            for given in [0, promised / 2, promised - 1] {
                let short = db.put_from("film", promised, &vec![7; given as usize][..]);
                let broken = db.put_from("film", promised, Breaks(given));
                for (outcome, kind, why) in [
                    (short, ErrorKind::UnexpectedEof, "ended"),
                    (broken, ErrorKind::ConnectionReset, "the wire was cut"),
                ] {
                    let Err(Error::Io(error)) = outcome else { panic!("{outcome:?}") };
                    assert_eq!(error.kind(), kind);
                    let told = error.to_string();
                    let parts = ["key film", why, &format!("{promised} bytes"), &format!("after {given}")];
                    for part in parts {
                        assert!(told.contains(part), "{part:?} is not in {told:?}");
                    }
                }
                assert_eq!(db.get("film").unwrap().as_deref(), Some(&b"before"[..]));
            }
        }
        let long = db.put_from(vec![b'k'; 5_000], 10, &b"too few"[..]).unwrap_err().to_string();
        assert!(long.contains("kkk...") && long.len() < 250, "{long}");
    }

    #[test]
    fn what_is_not_the_sources_fault_is_told_as_it_is() {
        let db = Config::new().temporary(true).open().unwrap();
        let refused = db.put_from("k", (1 << 30) + 1, io::empty());
        assert!(matches!(refused, Err(Error::TooLarge { what: "value", .. })), "{refused:?}");
    }
}
