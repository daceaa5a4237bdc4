//! The whole way: a real server, real sockets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rowcast::auth::now_seconds;
use rowcast::auth::token::{Claims, Keys};
use serde_json::{Value as Json, json};

use crate::common::{ADMIN_PASSWORD, HttpAnswer, Options, Server, Ws, encode};
use crate::issuer::{AUDIENCE, ISSUER, claims, key_set, sign};

const APP_KEY: &str = "the key of a test server, 32 bytes";

fn options() -> Options {
    let note = json!({
        "name": "note", "namespace": "notes", "label_field": "text",
        "fields": [{"type": "string", "name": "text", "label": "Text"}],
        "access": {
            "user": {"read": true, "create": true},
            "editor": {"delete": true}
        }
    });
    let owned = json!({
        "name": "owned", "namespace": "owneds", "label_field": "text",
        "fields": [
            {"type": "string", "name": "text", "label": "Text"},
            {"type": "string", "name": "org", "label": "Org", "optional": true}
        ],
        "access": {"user": {"read": {"filter": {"org": "$claims.org"}}}}
    });
    Options::default().schema("note", note).schema("owned", owned).env("APP_KEY", APP_KEY)
}

fn message(answer: &(u16, Json)) -> &str {
    answer.1["error"]["message"].as_str().unwrap_or_default()
}

fn unauthorized(answer: &(u16, Json)) {
    assert_eq!(answer.0, 401, "{}", answer.1);
    assert!(message(answer).starts_with("Unauthorized"), "{}", answer.1);
    assert_eq!(answer.1["error"]["code"], "401");
}

fn login(server: &Server, login: &str, password: &str) -> HttpAnswer {
    let body = json!({"login": login, "password": password}).to_string();
    let headers = [("Content-Type", "application/json")];
    server.raw("POST", "/api/auth/local/login", &headers, body.as_bytes())
}

fn list(server: &Server, headers: &[(&str, &str)], query: &str) -> u16 {
    server.raw("GET", &format!("/api/content/note{query}"), headers, b"").status
}

fn subscribe(server: &Server, token: &str) -> Ws {
    let mut ws = server.subscribe("schema=note", Some(token));
    ws.quiet(Duration::from_millis(50));
    ws
}

/// Asserts that the socket is still open.
fn open(ws: &mut Ws) {
    ws.quiet(Duration::from_millis(200));
}

fn cut_off(mut ws: Ws) {
    let began = Instant::now();
    let (code, reason) = ws.closed();
    assert_eq!(code, 4401, "{reason}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// What an own token says, resigned with another end.
fn resign(token: &str, exp: i64) -> String {
    let good = jsonwebtoken::dangerous::insecure_decode::<Claims>(token).unwrap();
    Keys::new(APP_KEY.as_bytes(), None).unwrap().sign(&Claims { exp, ..good.claims }).unwrap()
}

#[test]
fn tokens_by_every_way_and_bad_ones_by_none() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    unauthorized(&server.request("GET", "/api/content/note", None, None));
    let bearer = format!("Bearer {token}");
    let cookie = format!("token={token}");
    let query = format!("?access_token={token}");
    assert_eq!(list(&server, &[("Authorization", &bearer)], ""), 200);
    assert_eq!(list(&server, &[("X-Auth-Token", &token)], ""), 200);
    assert_eq!(list(&server, &[("Cookie", &cookie)], ""), 200);
    assert_eq!(list(&server, &[], &query), 200);
    let mut altered = token.clone();
    let last = if altered.pop() == Some('A') { 'E' } else { 'A' };
    altered.push(last);
    let foreign = Keys::new(&[9; 32], None).unwrap();
    let good = jsonwebtoken::dangerous::insecure_decode::<Claims>(&token).unwrap().claims;
    let none = format!(
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
        token.split('.').nth(1).unwrap_or_default()
    );
    for bad in [
        altered.as_str(),
        &foreign.sign(&good).unwrap(),
        &none,
        &resign(&token, now_seconds() - 1),
        "x",
        "undefined",
    ] {
        unauthorized(&server.request("GET", "/api/content/note", Some(bad), None));
        unauthorized(&server.request("GET", "/api/auth/me", Some(bad), None));
        assert_eq!(list(&server, &[("X-Auth-Token", bad)], &query), 401);
        assert_eq!(list(&server, &[("Cookie", &format!("token={bad}"))], ""), 401);
        let mut ws = server.ws(
            "/api/realtime/content?schema=note",
            &[("Origin", "https://elsewhere.example")],
            Some(&format!("Authorization, {bad}")),
        );
        assert_eq!(ws.as_mut().unwrap().closed().0, 4401);
        let refused = server.ws(
            "/api/realtime/content?schema=note",
            &[("Authorization", &format!("Bearer {bad}"))],
            None,
        );
        assert_eq!(refused.map(drop).unwrap_err().status, 401);
    }
    assert!(!server.log().contains(&token) && !server.log().contains("eyJ"), "{}", server.log());
}

#[test]
fn cookies_count_only_with_the_right_origin() {
    let server = Server::start(options().env("ALLOWED_ORIGINS", "https://app.example.com"));
    let (_, token) = server.user("ann", &[]);
    let cookie = format!("token={token}");
    let own = format!("http://{}", server.address);
    let create = |origin: Option<&str>| {
        let mut headers = vec![("Cookie", cookie.as_str()), ("Content-Type", "application/json")];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        server.raw("POST", "/api/content/note", &headers, br#"{"text":"x"}"#).status
    };
    let socket = |origin: Option<&str>| {
        let mut headers = vec![("Cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        match server.ws("/api/realtime/content?schema=note", &headers, None) {
            Ok(mut ws) if origin.is_some_and(|o| o != own && o != "https://app.example.com") => {
                ws.closed().0
            }
            Ok(mut ws) => {
                open(&mut ws);
                101
            }
            Err(answer) => answer.status,
        }
    };
    for good in [own.as_str(), "https://app.example.com"] {
        assert_eq!(create(Some(good)), 200, "{good}");
        assert_eq!(socket(Some(good)), 101, "{good}");
    }
    for bad in ["https://evil.example", "http://app.example.com", "null"] {
        assert_eq!(create(Some(bad)), 401, "{bad}");
        assert_eq!(socket(Some(bad)), 4401, "{bad}");
    }
    assert_eq!(create(None), 401);
    assert_eq!(socket(None), 401);
    // A token that a page holds itself needs no origin.
    let headers =
        [("Origin", "https://evil.example"), ("Authorization", &format!("Bearer {token}"))];
    let answer = server.raw("POST", "/api/content/note", &headers, br#"{"text":"x"}"#);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[test]
fn logging_in() {
    let server = Server::start(options());
    let answer = login(&server, "admin", ADMIN_PASSWORD);
    assert_eq!(answer.status, 200);
    let data = answer.json()["data"].clone();
    let keys: Vec<_> = data.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["token", "expires"]);
    assert!(data["expires"].as_str().unwrap().ends_with('Z'));
    let good = jsonwebtoken::dangerous::insecure_decode::<Json>(data["token"].as_str().unwrap());
    assert_eq!(good.unwrap().claims["user"]["roles"], json!(["admin"]));

    // A token that has ended does not keep anybody from getting a new one.
    let old = resign(data["token"].as_str().unwrap(), now_seconds() - 9);
    let body = json!({"login": "admin", "password": ADMIN_PASSWORD});
    assert_eq!(server.request("POST", "/api/auth/local/login", Some(&old), Some(&body)).0, 200);

    for body in [json!({}), json!({"login": "admin"}), json!({"login": 1, "password": 2}), json!(7)]
    {
        assert_eq!(server.request("POST", "/api/auth/local/login", None, Some(&body)).0, 400);
    }
    for n in 0..12 {
        let answer = login(&server, "admin", if n % 2 == 0 { "x" } else { "a wrong password" });
        let error = answer.json()["error"].clone();
        if n < 10 {
            assert_eq!(answer.status, 422);
            assert_eq!(error, json!({"code": "422", "message": "Invalid login or password"}));
        } else {
            assert_eq!(answer.status, 429, "{error}");
            let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=120).contains(&wait), "{wait}");
        }
    }
    assert_eq!(login(&server, "nobody", "x").status, 422);
}

#[test]
fn refresh_tokens_when_enabled() {
    let server = Server::start(options().env("AUTH_ENABLE_REFRESH_TOKEN", "true"));
    let first = login(&server, "admin", ADMIN_PASSWORD).json()["data"].clone();
    let refresh = |token: &Json| {
        let body = json!({"refresh_token": token});
        server.request("POST", "/api/auth/token/refresh", None, Some(&body))
    };
    let (status, second) = refresh(&first["refresh_token"]);
    assert_eq!(status, 200, "{second}");
    let second = second["data"].clone();
    let keys: Vec<_> = second.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["token", "expires", "refresh_token", "refresh_token_expires"]);
    let token = second["token"].as_str().unwrap();
    let ws = subscribe(&server, token);
    unauthorized(&refresh(&first["refresh_token"]));
    cut_off(ws);
    unauthorized(&server.request("GET", "/api/auth/me", Some(token), None));
    unauthorized(&refresh(&second["refresh_token"]));
}

#[test]
fn what_ends_a_session_ends_its_sockets() {
    let server = Server::start(options());
    let admin = server.admin_token();
    let (ann, one) = server.user("ann", &[]);
    let two = server.login("ann", "ann-password");
    let (_, bob) = server.user("bob", &[]);
    let mut bobs = subscribe(&server, &bob);

    // Log out.
    let (first, mut second) = (subscribe(&server, &one), subscribe(&server, &two));
    assert_eq!(server.request("POST", "/api/auth/logout", Some(&one), None).0, 200);
    cut_off(first);
    unauthorized(&server.request("GET", "/api/content/note", Some(&one), None));
    open(&mut second);

    // Password change: the others'.
    let three = server.login("ann", "ann-password");
    let third = subscribe(&server, &three);
    let body = json!({"current": "ann-password", "password": "a new password"});
    assert_eq!(server.request("POST", "/api/auth/password", Some(&two), Some(&body)).0, 200);
    cut_off(third);
    open(&mut second);
    unauthorized(&server.request("GET", "/api/content/note", Some(&three), None));
    let wrong = server.request("POST", "/api/auth/password", Some(&two), Some(&body));
    assert_eq!(wrong.0, 422, "{}", wrong.1);

    // Password set by an admin: all.
    let path = format!("/api/content/user/{ann}");
    let body = json!({"password": "set by the admin"});
    let (status, answer) = server.request("PUT", &path, Some(&admin), Some(&body));
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.to_string().contains("password") && !answer.to_string().contains("argon2"));
    cut_off(second);

    // Disabled.
    let four = server.login("ann", "set by the admin");
    let fourth = subscribe(&server, &four);
    let off = json!({"active": false});
    assert_eq!(server.request("PUT", &path, Some(&admin), Some(&off)).0, 200);
    cut_off(fourth);
    unauthorized(&server.request("GET", "/api/content/note", Some(&four), None));
    assert_eq!(login(&server, "ann", "set by the admin").status, 422);
    let on = json!({"active": true});
    assert_eq!(server.request("PUT", &path, Some(&admin), Some(&on)).0, 200);
    unauthorized(&server.request("GET", "/api/content/note", Some(&four), None));

    // Deleted.
    let five = server.login("ann", "set by the admin");
    let fifth = subscribe(&server, &five);
    assert_eq!(server.request("DELETE", &path, Some(&admin), None).0, 200);
    cut_off(fifth);
    unauthorized(&server.request("GET", "/api/content/note", Some(&five), None));

    // Nobody else noticed.
    open(&mut bobs);
    let body = json!({"text": "still here"});
    assert_eq!(server.request("POST", "/api/content/note", Some(&bob), Some(&body)).0, 200);
    assert_eq!(bobs.next()["data"]["text"], "still here");
}

#[test]
fn a_token_that_ends_ends_its_socket_within_the_second() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let end = now_seconds() + 2;
    let mut ws = server.subscribe("schema=note", Some(&resign(&token, end)));
    let mut other = subscribe(&server, &token);
    assert_eq!(ws.closed().0, 4401);
    let late = now_seconds() - end;
    // A second to look at the clock, and one for a busy machine.
    assert!((0..=2).contains(&late), "{late}");
    open(&mut other);
}

#[test]
fn sessions_outlive_a_crash_and_their_ends_too() {
    let mut server = Server::start(options());
    let (_, one) = server.user("ann", &[]);
    let two = server.login("ann", "ann-password");
    assert_eq!(server.request("POST", "/api/auth/logout", Some(&one), None).0, 200);
    server.kill();
    server.restart();
    unauthorized(&server.request("GET", "/api/auth/me", Some(&one), None));
    let (status, me) = server.request("GET", "/api/auth/me", Some(&two), None);
    assert_eq!((status, &me["data"]["username"]), (200, &json!("ann")));
    assert!(me["data"].get("password").is_none());
    unauthorized(&server.request("GET", "/api/auth/me", None, None));
    unauthorized(&server.request("POST", "/api/auth/logout", None, None));
}

#[test]
fn the_last_admin_stays() {
    let server = Server::start(options());
    let admin = server.admin_token();
    let me = server.request("GET", "/api/auth/me", Some(&admin), None).1["data"].clone();
    let path = format!("/api/content/user/{}", me["id"].as_str().unwrap());
    let role = format!("/api/content/role/{}", me["roles"][0]["id"].as_str().unwrap());
    let all = |path: &str| format!("{path}?filter={}", encode("{}"));
    for (method, path, body) in [
        ("PUT", path.clone(), Some(json!({"active": false}))),
        ("PUT", path.clone(), Some(json!({"roles": []}))),
        ("PUT", path.clone(), Some(json!({"$clear": {"roles": true}}))),
        ("DELETE", path.clone(), None),
        ("PUT", role.clone(), Some(json!({"name": "boss"}))),
        ("PUT", role.clone(), Some(json!({"users": []}))),
        ("DELETE", role, None),
        ("PUT", all("/api/content/user/update"), Some(json!({"active": false}))),
        ("DELETE", all("/api/content/user/delete"), None),
        ("DELETE", all("/api/content/role/delete"), None),
    ] {
        let answer = server.request(method, &path, Some(&admin), body.as_ref());
        assert!(matches!(answer.0, 400 | 403), "{method} {path} {body:?}: {}", answer.1);
        let (status, now) = server.request("GET", "/api/auth/me", Some(&admin), None);
        assert_eq!((status, &now["data"]["roles"]), (200, &me["roles"]), "{method} {path}");
    }
    // A second admin sets the first one free, and locks itself in.
    let (_, second) = server.user("deputy", &["admin"]);
    let off = json!({"active": false});
    assert_eq!(server.request("PUT", &path, Some(&second), Some(&off)).0, 200);
    unauthorized(&server.request("GET", "/api/auth/me", Some(&admin), None));
}

#[test]
fn passwords_go_in_and_never_come_out() {
    let server = Server::start(options());
    let admin = server.admin_token();
    let mut ws = server.subscribe("schema=user", Some(&admin));
    let (id, _) = server.user("ann", &[]);
    let seen = ws.next();
    assert_eq!(seen["data"]["username"], "ann");
    let path = format!("/api/content/user/{id}");
    let list = "/api/content/user".to_owned();
    let mut texts = vec![seen.to_string()];
    for path in [path.clone(), list, format!("{path}?select=roles,username")] {
        texts.push(server.request("GET", &path, Some(&admin), None).1.to_string());
    }
    for text in texts {
        assert!(!text.contains("password") && !text.contains("argon2"), "{text}");
    }
    let log = server.log();
    assert!(!log.contains("ann-password") && !log.contains("argon2"), "{log}");
    let filter = encode(r#"{"password":{"$like":"%"}}"#);
    for query in
        [format!("filter={filter}"), "select=password".to_owned(), "sort=password".to_owned()]
    {
        let answer =
            server.request("GET", &format!("/api/content/user?{query}"), Some(&admin), None);
        assert_eq!(answer.0, 400, "{query}: {}", answer.1);
    }
    for bad in [json!("short"), json!(7), json!(null), json!("x".repeat(257))] {
        let body = json!({"password": bad, "username": "renamed"});
        let answer = server.request("PUT", &path, Some(&admin), Some(&body));
        assert_eq!(answer.0, 400, "{}", answer.1);
        assert!(message(&answer).contains("password"), "{}", answer.1);
    }
    let now = server.request("GET", &path, Some(&admin), None).1;
    assert_eq!(now["data"]["username"], "ann");
}

/// Serves a key set at a URL on this machine; counts how often it is asked.
fn serve_keys(set: Json) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            count.fetch_add(1, Ordering::SeqCst);
            let body = set.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    (url, asked)
}

#[test]
fn an_outside_issuers_tokens_by_a_key_sets_url() {
    let (url, asked) = serve_keys(key_set(&[("k", "eddsa")]));
    let server = Server::start(
        options()
            .env("ISSUER", ISSUER)
            .env("ISSUER_AUDIENCE", AUDIENCE)
            .env("ISSUER_ALGORITHM", "EdDSA")
            .env("ISSUER_JWKS_URL", url)
            .env("ISSUER_ROLES", "staff=editor,chief=admin"),
    );
    let admin = server.admin_token();
    for org in ["acme", "other"] {
        let body = json!({"text": org, "org": org});
        assert_eq!(server.request("POST", "/api/content/owned", Some(&admin), Some(&body)).0, 200);
    }
    let token = |kid: &str, changes: Json| {
        let mut body = claims(now_seconds());
        body["org"] = json!("acme");
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        sign("eddsa", Some(kid), &body)
    };
    let good = token("k", json!({}));
    let (status, found) = server.request("GET", "/api/content/owned", Some(&good), None);
    assert_eq!((status, &found["data"]["total"]), (200, &json!(1)), "{found}");
    assert_eq!(found["data"]["items"][0]["org"], "acme");
    let (_, me) = server.request("GET", "/api/auth/me", Some(&good), None);
    assert_eq!(me["data"]["id"], Json::Null);

    // Its role `staff` is our `editor`, who may delete.
    let (_, note) =
        server.request("POST", "/api/content/note", Some(&good), Some(&json!({"text": "n"})));
    let path = format!("/api/content/note/{}", note["data"]["id"]);
    let plain = token("k", json!({"roles": ["admin", "editor"]}));
    assert_eq!(server.request("DELETE", &path, Some(&plain), None).0, 403);
    assert_eq!(server.request("DELETE", &path, Some(&good), None).0, 200);
    let chief = token("k", json!({"roles": ["chief"]}));
    let users = server.request("GET", "/api/content/user?select=email", Some(&chief), None);
    assert_eq!(users.0, 200, "{}", users.1);

    for bad in [
        token("k", json!({"iss": "https://evil.example"})),
        token("k", json!({"aud": "other"})),
        token("k", json!({"exp": now_seconds() - 31})),
        token("unknown", json!({})),
        sign("es256", Some("k"), &claims(now_seconds())),
    ] {
        unauthorized(&server.request("GET", "/api/content/owned", Some(&bad), None));
    }
    // Within the leeway, and closed when that is over.
    let ending = token("k", json!({"exp": now_seconds() - 28}));
    let mut ws = server.subscribe("schema=note", Some(&ending));
    assert_eq!(ws.closed().0, 4401);

    // A subject that gets a user, and loses it.
    let (id, _) = server.user("ann", &[]);
    let path = format!("/api/content/user/{id}");
    let link = json!({"provider": ISSUER, "provider_id": "u-1"});
    assert_eq!(server.request("PUT", &path, Some(&admin), Some(&link)).0, 200);
    let (_, me) = server.request("GET", "/api/auth/me", Some(&good), None);
    assert_eq!(me["data"]["username"], "ann", "{me}");
    let ws = subscribe(&server, &good);
    let off = json!({"active": false});
    assert_eq!(server.request("PUT", &path, Some(&admin), Some(&off)).0, 200);
    cut_off(ws);
    unauthorized(&server.request("GET", "/api/auth/me", Some(&good), None));
    assert!(asked.load(Ordering::SeqCst) <= 2);
}
