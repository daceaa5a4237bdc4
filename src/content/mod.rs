//! The core commands over records: authorize → plan → run → answer.
//!
//! **Does not know:** wire formats, sockets.

pub mod expr;
