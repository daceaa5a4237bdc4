//! The native dialect.

mod message;
pub mod params;
pub mod poll;
pub mod realtime;
pub mod rest;
pub mod sse;
