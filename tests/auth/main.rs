//! Who is asking: tokens, passwords, sessions, the outside issuer, cookies.

#[path = "../common/mod.rs"]
mod common;
mod house;
mod http;
mod issuer;
mod outside;
mod presented;
mod service;
mod waiting;
