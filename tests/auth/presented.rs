//! Where credentials are found: `fixtures/auth/presented.json`.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use rowcast::auth::present::{Origins, Presented, Purpose};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    purpose: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    allowed: Vec<String>,
    expect: serde_json::Value,
}

#[test]
fn credentials_are_found_where_they_may_stand() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../fixtures/auth/presented.json")).unwrap();
    for case in cases {
        let mut headers = HeaderMap::new();
        for (name, value) in &case.headers {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let purpose = match case.purpose.as_deref() {
            None | Some("read") => Purpose::Read,
            Some("write") => Purpose::Write,
            Some("stream") => Purpose::Stream,
            Some("websocket") => Purpose::WebSocket,
            Some(other) => panic!("{}: no purpose '{other}'", case.name),
        };
        let expect = match (&case.expect, case.expect["token"].as_str()) {
            (_, Some(token)) => Presented::Token(token.to_owned()),
            (word, _) if word == "guest" => Presented::Nothing,
            (word, _) if word == "bad" => Presented::Bad,
            (other, _) => panic!("{}: cannot expect {other}", case.name),
        };
        let origins = Origins::new(&case.allowed).unwrap();
        let found = Presented::from_headers(&headers, case.query.as_deref(), purpose, &origins);
        assert!(found == expect, "{}", case.name);
    }
}

#[test]
fn origins_are_checked_where_they_are_configured() {
    for good in ["https://app.example.com", "HTTP://localhost:5173", " https://[::1]:8443 "] {
        assert!(Origins::new([good]).is_ok(), "{good}");
    }
    for bad in ["*", "app.example.com", "https://app.example.com/", "ftp://x", "https://", "null"] {
        let error = Origins::new([bad]).unwrap_err();
        assert!(error.contains(&format!("'{bad}'")) && error.contains("https://"), "{error}");
    }
}

#[test]
fn credentials_are_not_shown() {
    assert!(!format!("{:?}", Presented::Token("secret".into())).contains("secret"));
}
