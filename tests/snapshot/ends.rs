//! Who may see what in a snapshot, and what ends one under way.

use serde_json::{Value as Json, json};

use crate::common::Server;
use crate::common::view::View;
use crate::shop::{Rng, Shop, item, options};
use crate::{paced, snapshot};

#[test]
fn what_may_not_be_read_is_in_no_page() {
    let server = Server::start(options(10));
    Shop::open(&server, 60, 2, 10);
    let (_, ann) = server.user("ann", &[]);
    let (_, eve) = server.user("eve", &["auditor"]);
    for (token, query) in
        [(&ann, ""), (&ann, "filter[n][$lt]=8&select=n"), (&eve, ""), (&eve, "filter[n]=6")]
    {
        let mut socket = snapshot(&server, token, query);
        let mut view = View::new();
        view.complete_from(&mut socket);
        assert!(!view.records.is_empty() && view.records.len() < 60, "{query}");
        view.is_what_lists(&server, token, "item", query);
    }
    let mut refused = snapshot(&server, &ann, "filter[owner]=bob");
    assert_eq!(refused.closed().0, 4400);
}

/// While a slow reader takes its pages: what it may see changes.
#[test]
fn a_changed_grant_ends_a_snapshot_under_way() {
    let server = Server::start(paced(10));
    let shop = Shop::open(&server, 300, 0, 60_000);
    let (eve_id, eve) = server.user("eve", &["auditor"]);
    let (bob_id, bob) = server.user("bob", &[]);
    let mut of_eve = snapshot(&server, &eve, "");
    let mut of_bob = snapshot(&server, &bob, "");
    let (mut view_of_eve, mut view_of_bob) = (View::new(), View::new());
    view_of_eve.next(&mut of_eve);
    view_of_bob.next(&mut of_bob);
    shop.done("PUT", &format!("/api/content/user/{eve_id}"), &json!({"roles": []}));
    shop.done("PUT", &format!("/api/content/user/{bob_id}"), &json!({"active": false}));
    assert_eq!(of_eve.closed().0, 4410);
    assert_eq!(of_bob.closed().0, 4401);
}

#[test]
fn a_migration_ends_a_snapshot_under_way_unless_it_only_adds() {
    let server = Server::start(paced(10));
    let shop = Shop::open(&server, 200, 0, 60_000);
    let mut socket = snapshot(&server, &shop.token, "");
    let mut view = View::new();
    view.next(&mut socket);
    let write = |extra: &str, lost: &[&str]| {
        let mut schema: Json = serde_json::from_str(&item(extra)).expect("a schema");
        schema["accept_data_loss"] = json!(lost);
        std::fs::write(server.schemas().join("item.json"), schema.to_string()).expect("written");
    };
    let applied = |field: &str, there: bool| {
        server.until("the new schema", || {
            let (_, schema) = server.request("GET", "/api/schema/item", Some(&shop.token), None);
            let named = format!("\"name\":\"{field}\"");
            (schema.to_string().contains(&named) == there).then_some(())
        });
    };
    write(r#", {"name": "extra", "type": "int", "optional": true}"#, &[]);
    applied("extra", true);
    shop.done("PUT", "/api/content/item/1", &json!({"extra": 5}));
    view.complete_from(&mut socket);
    assert_eq!(view.records.len(), 200);
    assert_eq!(view.records["1"]["extra"], 5);

    let mut socket = snapshot(&server, &shop.token, "");
    let mut view = View::new();
    view.next(&mut socket);
    write("", &["extra"]);
    applied("extra", false);
    assert_eq!(socket.closed().0, 4410);
}

/// Nobody is sent a view with a hole: what was committed between two pages is gone.
#[test]
fn a_log_trimmed_under_way_ends_a_snapshot() {
    let small = paced(10).env("ROWCAST_LOG_BYTES", "1MiB").env("ROWCAST_RECENT_BYTES", "1MiB");
    let server = Server::start(small);
    let shop = Shop::open(&server, 250, 0, 100_000);
    let mut socket = snapshot(&server, &shop.token, "");
    let mut view = View::new();
    view.next(&mut socket);
    let mut rng = Rng(1);
    let newest = (0..60).map(|_| shop.create(&mut rng)).last();
    server.until("the log to be trimmed", || {
        let (_, status) = server.request("GET", "/api/realtime/status", Some(&shop.token), None);
        let bytes = status["data"]["log"]["bytes"].as_u64().expect("bytes");
        (bytes < 2 << 20 && newest.is_some()).then_some(())
    });
    let (code, reason) = socket.closed();
    assert_eq!(code, 4410, "{reason}");
    assert!(reason.contains("older than the log keeps"), "{reason}");
}
