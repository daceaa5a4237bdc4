//! Connections: bytes, limits, time. **Does not know:** dialects' messages, SQL.

pub mod accept;
pub mod body;
pub mod client;
pub mod clients;
pub mod http;
mod io;
pub mod loops;
pub mod poll;
#[cfg(target_os = "linux")]
pub mod ring;
pub mod socket;
pub mod sse;
pub mod stream;
mod targets;
mod wire;
