//! The native dialect.

mod message;
pub mod params;
pub mod realtime;
pub mod rest;
pub mod sse;
