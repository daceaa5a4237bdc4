//! Rowcast: schema files in, filtered realtime streams out.
#![doc = include_str!("../ARCHITECTURE.md")]

pub mod auth;
pub mod bench;
pub mod cli;
pub mod config;
pub mod content;
pub mod dialects;
pub mod error;
pub mod filter;
pub mod limits;
pub mod live;
pub mod model;
pub mod net;
pub mod nice;
pub mod query;
pub mod schemas;
pub mod server;
pub mod store;
