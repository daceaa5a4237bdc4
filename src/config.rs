//! What was typed → what it means: flags, environment, an optional file; each value with its source.

use std::path::PathBuf;

use crate::limits::Limits;

/// Everything a server is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub data: PathBuf,
    pub schemas: PathBuf,
    pub host: std::net::IpAddr,
    pub port: u16,
    /// Origins (scheme, host, port) whose pages may use a cookie, besides the server's own.
    pub allowed_origins: Vec<String>,
    pub limits: Limits,
}
