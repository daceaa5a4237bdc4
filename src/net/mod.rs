//! Connections: bytes, limits, time. **Does not know:** dialects' messages, SQL.

pub mod client;
pub mod clients;
pub mod http;
pub mod socket;
pub mod stream;
mod targets;
mod wire;
