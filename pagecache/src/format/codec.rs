//! The only place that speaks bincode: user fragments of any serde type, with a limit.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::DecodeError;

/// Longest fragment that is decoded, in bytes: no length on disk makes us allocate more.
const FRAGMENT_BYTES_MAX: u64 = 1 << 30;

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .reject_trailing_bytes()
        .with_limit(FRAGMENT_BYTES_MAX)
}

/// Bytes that [`encode`] will write.
pub(crate) fn encoded_len<T: Serialize>(value: &T) -> usize {
    let len = options().serialized_size(value).expect("a fragment is at most 1 GiB");
    usize::try_from(len).expect("a fragment fits the address space")
}

/// Writes `value` into `out`, which is exactly `encoded_len` long.
pub(crate) fn encode<T: Serialize>(value: &T, out: &mut [u8]) {
    let mut rest: &mut [u8] = out;
    options().serialize_into(&mut rest, value).expect("the fragment encodes as it was measured");
    assert!(rest.is_empty(), "a fragment encoded to fewer bytes than it was measured");
}

/// Reads a value back from exactly its bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    options().deserialize(bytes).map_err(|e| DecodeError(e.to_string()))
}
