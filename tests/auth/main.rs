//! Who is asking: tokens, passwords, sessions, the outside issuer, cookies.

mod issuer;
mod presented;
