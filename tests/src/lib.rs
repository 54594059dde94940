//! System tests live in `suite/`.
#![forbid(unsafe_code)]
