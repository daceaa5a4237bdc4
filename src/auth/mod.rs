//! Who is asking, and what they may.
//!
//! [`present`] finds the token in a request, [`token`] and [`issuer`] prove who it speaks for (once
//! in a while: `proven`),
//! [`directory`] holds what is true of users, roles and sessions now, [`service`] logs in and out,
//! [`grant`] says what a principal may do.
//!
//! **Does not know:** sockets, dialects' wire formats.

mod check;
pub mod directory;
pub mod grant;
pub mod issuer;
mod jwks;
pub mod limiter;
pub mod password;
pub mod present;
pub mod principal;
mod proven;
pub mod rules;
pub mod service;
pub mod token;
pub mod users;

/// Role names that hold by themselves; no role may be made under them.
pub const BUILT_IN: [&str; 2] = ["guest", "user"];

/// The role that may do everything, always. It exists always.
pub const ADMIN: &str = "admin";

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    now_micros().div_euclid(1_000_000)
}

/// Microseconds since 1970, as `Tx::now` counts.
pub fn now_micros() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
