//! Connections: bytes, limits, time. **Does not know:** dialects' messages, SQL.

pub mod client;
pub mod http;
pub mod socket;
