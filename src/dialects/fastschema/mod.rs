//! The native dialect.

pub mod params;
pub mod realtime;
pub mod rest;
