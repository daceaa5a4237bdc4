//! The binary as a user meets it: starting, refusing, commands, stopping.

mod common;

use common::{Options, Server};

#[test]
fn sigterm_exits_zero() {
    let mut server = Server::start(Options::default());
    let (status, answer) = server.request("GET", "/api/health", None, None);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
}
