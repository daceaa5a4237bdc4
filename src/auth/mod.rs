//! Who is asking, and what they may.

pub mod grant;
pub mod principal;
