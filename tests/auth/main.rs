//! Who is asking: tokens, passwords, sessions, the outside issuer, cookies.

mod house;
mod issuer;
mod outside;
mod presented;
mod service;
