//! System tests live in `suite/`.
