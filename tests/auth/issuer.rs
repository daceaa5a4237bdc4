//! The outside issuer: its keys, its claims, its roles.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rowcast::auth::issuer::{
    Fetch, Fetched, Issuer, IssuerConfig, KeySource, LEEWAY, Mapping, Pace,
};
use rowcast::auth::token;
use serde_json::{Map, Value as Json, json};

pub const NOW: i64 = 1_700_000_000;
pub const ISSUER: &str = "https://id.example.com/";
pub const AUDIENCE: &str = "rowcast";

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/auth").join(name)
}

pub fn private(name: &str) -> (Algorithm, EncodingKey) {
    let pem = std::fs::read(fixture(&format!("{name}.private.pem"))).unwrap();
    match name {
        "es256" | "other-es256" => (Algorithm::ES256, EncodingKey::from_ec_pem(&pem).unwrap()),
        "eddsa" => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem).unwrap()),
        _ => (Algorithm::RS256, EncodingKey::from_rsa_pem(&pem).unwrap()),
    }
}

/// A key set of these keys, each under a `kid`.
pub fn key_set(keys: &[(&str, &str)]) -> Json {
    let keys = keys.iter().map(|(kid, name)| {
        let (algorithm, key) = private(name);
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        jwk.common.key_id = Some((*kid).to_owned());
        serde_json::to_value(jwk).unwrap()
    });
    json!({"keys": keys.collect::<Vec<_>>()})
}

pub fn config(algorithm: &str, keys: KeySource) -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.into(),
        audience: vec![AUDIENCE.into()],
        algorithm: algorithm.into(),
        keys,
        roles_claim: "roles".into(),
        roles: BTreeMap::from([("staff".into(), "editor".into())]),
    }
}

pub fn claims(now: i64) -> Json {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "exp": now + 100, "roles": ["staff"]})
}

pub fn sign(name: &str, kid: Option<&str>, claims: &Json) -> String {
    let (algorithm, key) = private(name);
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

/// A network that holds what the test puts there, and counts how often it is asked.
#[derive(Default)]
pub struct Network {
    pages: Mutex<HashMap<String, Vec<u8>>>,
    asked: AtomicUsize,
}

impl Network {
    fn put(&self, url: &str, set: &Json) {
        self.pages.lock().unwrap().insert(url.into(), set.to_string().into());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Fetch for Network {
    fn get<'a>(&'a self, url: &'a str) -> Fetched<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let page = self.pages.lock().unwrap().get(url).cloned();
        Box::pin(async move { page.ok_or_else(|| "no answer".to_owned()) })
    }
}

async fn verify(
    issuer: &Issuer,
    token: &str,
    now: i64,
) -> Result<(Map<String, Json>, i64), String> {
    let refused = |error: rowcast::error::Error| {
        assert_eq!(error.status(), 401, "{error}");
        assert!(error.message.starts_with("Unauthorized"), "{error}");
        error.message
    };
    let header = token::header(token).map_err(refused)?;
    let (claims, ends) = issuer.verify(token, &header, now).await.map_err(refused)?;
    Ok(((*claims).clone(), ends))
}

async fn open(config: &IssuerConfig) -> Result<Issuer, String> {
    Issuer::open(config, Arc::new(Network::default()), Pace::default()).await
}

fn pem(name: &str) -> KeySource {
    KeySource::Pem(fixture(&format!("{name}.public.pem")))
}

const ALGORITHMS: [(&str, &str); 3] = [("RS256", "rs256"), ("ES256", "es256"), ("EdDSA", "eddsa")];

#[tokio::test]
async fn every_algorithm_by_pem_and_by_key_set() {
    let dir = tempfile::tempdir().unwrap();
    for (algorithm, name) in ALGORITHMS {
        let path = dir.path().join(name);
        std::fs::write(&path, key_set(&[("k1", name)]).to_string()).unwrap();
        for source in [pem(name), KeySource::JwksFile(path)] {
            let issuer = open(&config(algorithm, source.clone())).await.unwrap();
            for kid in [None, Some("k1")] {
                let token = sign(name, kid, &claims(NOW));
                let (found, expires) = verify(&issuer, &token, NOW).await.unwrap();
                assert_eq!(found["sub"], "u-1");
                assert_eq!(expires, NOW + 100 + LEEWAY);
                let mut altered = token.clone();
                let last = if altered.pop() == Some('A') { 'Q' } else { 'A' };
                altered.push(last);
                verify(&issuer, &altered, NOW).await.unwrap_err();
            }
            for (_, other) in ALGORITHMS.iter().filter(|(_, other)| *other != name) {
                let token = sign(other, Some("k1"), &claims(NOW));
                assert!(verify(&issuer, &token, NOW).await.unwrap_err().contains("algorithm"));
            }
        }
    }
}

#[tokio::test]
async fn keys_are_not_confused() {
    let issuer = open(&config("RS256", pem("rs256"))).await.unwrap();
    let forged = sign("other-rs256", None, &claims(NOW));
    assert!(verify(&issuer, &forged, NOW).await.unwrap_err().contains("signature"));
    // The public key as a shared secret: the classic confusion.
    let public = std::fs::read(fixture("rs256.public.pem")).unwrap();
    let secret = EncodingKey::from_secret(&public);
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(NOW), &secret);
    verify(&issuer, &token.unwrap(), NOW).await.unwrap_err();
    // A key that the token brings along.
    let (algorithm, key) = private("other-rs256");
    let mut header = Header::new(algorithm);
    header.jwk = Some(Jwk::from_encoding_key(&key, algorithm).unwrap());
    header.jku = Some("https://evil.example/keys".into());
    let token = jsonwebtoken::encode(&header, &claims(NOW), &key).unwrap();
    assert!(verify(&issuer, &token, NOW).await.unwrap_err().contains("signature"));
}

#[tokio::test]
async fn claims_are_required_and_checked() {
    let issuer = open(&config("ES256", pem("es256"))).await.unwrap();
    let with = |changes: Json| {
        let mut body = claims(NOW);
        for (name, value) in changes.as_object().unwrap() {
            if value == "-" {
                body.as_object_mut().unwrap().remove(name);
            } else {
                body[name] = value.clone();
            }
        }
        sign("es256", None, &body)
    };
    for good in [
        json!({}),
        json!({"aud": ["x", AUDIENCE]}),
        json!({"exp": NOW - LEEWAY + 1}),
        json!({"exp": NOW as f64 + 0.5}),
        json!({"nbf": NOW + LEEWAY}),
        json!({"sub": "-"}),
    ] {
        verify(&issuer, &with(good.clone()), NOW).await.unwrap_or_else(|e| panic!("{good}: {e}"));
    }
    for (bad, why) in [
        (json!({"iss": "-"}), "'iss'"),
        (json!({"iss": "https://id.example.com"}), "'iss'"),
        (json!({"iss": [ISSUER]}), "'iss'"),
        (json!({"aud": "-"}), "'aud'"),
        (json!({"aud": "other"}), "'aud'"),
        (json!({"aud": []}), "'aud'"),
        (json!({"aud": [["rowcast"]]}), "'aud'"),
        (json!({"exp": "-"}), "'exp'"),
        (json!({"exp": null}), "'exp'"),
        (json!({"exp": (NOW + 100).to_string()}), "'exp'"),
        (json!({"exp": NOW - LEEWAY}), "expired"),
        (json!({"nbf": NOW + LEEWAY + 1}), "not valid yet"),
        (json!({"nbf": "now"}), "'nbf'"),
    ] {
        let message = verify(&issuer, &with(bad.clone()), NOW).await.expect_err(&bad.to_string());
        assert!(message.contains(why), "{bad}: {message}");
    }
    // The end that sockets watch is the one that entry is checked against.
    let (_, expires) = verify(&issuer, &with(json!({"exp": NOW + 5})), NOW).await.unwrap();
    assert!(verify(&issuer, &with(json!({"exp": NOW + 5})), expires - 1).await.is_ok());
    assert!(verify(&issuer, &with(json!({"exp": NOW + 5})), expires).await.is_err());
    let (_, far) = verify(&issuer, &with(json!({"exp": 1e300})), NOW).await.unwrap();
    assert_eq!(far, i64::MAX);
}

/// Fast enough to wait for.
const PACE: Pace = Pace {
    at_most: Duration::from_secs(1),
    after: Duration::from_secs(2),
    too_old: Duration::from_secs(3),
};

#[tokio::test]
async fn keys_that_cannot_be_renewed_are_believed_for_a_while() {
    const URL: &str = "https://id.example.com/keys";
    let network = Arc::new(Network::default());
    network.put(URL, &key_set(&[("k", "es256")]));
    let config = config("ES256", KeySource::JwksUrl(URL.into()));
    let issuer = Issuer::open(&config, network.clone(), PACE).await.unwrap();
    network.pages.lock().unwrap().clear();
    let token = sign("es256", Some("k"), &claims(NOW));
    tokio::time::sleep(PACE.after + Duration::from_millis(50)).await;
    verify(&issuer, &token, NOW).await.unwrap();
    assert_eq!(network.asked(), 2);
    tokio::time::sleep(PACE.too_old - PACE.after).await;
    assert!(verify(&issuer, &token, NOW).await.unwrap_err().contains("cannot be checked"));
    network.put(URL, &key_set(&[("k", "es256")]));
    tokio::time::sleep(PACE.at_most).await;
    verify(&issuer, &token, NOW).await.unwrap();
}

#[tokio::test]
async fn keys_are_asked_for_again_when_one_is_unknown_but_not_often() {
    const URL: &str = "https://id.example.com/keys";
    let network = Arc::new(Network::default());
    network.put(URL, &key_set(&[("old", "es256")]));
    let config = config("ES256", KeySource::JwksUrl(URL.into()));
    let issuer = Issuer::open(&config, network.clone(), PACE).await.unwrap();
    assert_eq!(network.asked(), 1);
    for _ in 0..5 {
        verify(&issuer, &sign("es256", Some("old"), &claims(NOW)), NOW).await.unwrap();
    }
    // Tokens that name keys nobody has do not make us ask: we asked a moment ago.
    network.put(URL, &key_set(&[("new", "other-es256")]));
    for _ in 0..5 {
        let token = sign("other-es256", Some("new"), &claims(NOW));
        assert!(verify(&issuer, &token, NOW).await.unwrap_err().contains("unknown key"));
    }
    assert_eq!(network.asked(), 1);
    tokio::time::sleep(PACE.at_most).await;
    let many = (0..20).map(|_| async {
        verify(&issuer, &sign("other-es256", Some("new"), &claims(NOW)), NOW).await
    });
    for answer in futures_util::future::join_all(many).await {
        answer.unwrap();
    }
    assert_eq!(network.asked(), 2);
    // What was taken back is no longer believed.
    verify(&issuer, &sign("es256", Some("old"), &claims(NOW)), NOW).await.unwrap_err();
    // An answer that is no key set changes nothing.
    network.put(URL, &json!({"keys": []}));
    tokio::time::sleep(PACE.at_most).await;
    verify(&issuer, &sign("es256", Some("old"), &claims(NOW)), NOW).await.unwrap_err();
    verify(&issuer, &sign("other-es256", Some("new"), &claims(NOW)), NOW).await.unwrap();
    assert_eq!(network.asked(), 3);
}

#[tokio::test]
async fn without_keys_everything_is_refused_and_they_may_come_later() {
    const URL: &str = "https://id.example.com/keys";
    let network = Arc::new(Network::default());
    let config = config("EdDSA", KeySource::JwksUrl(URL.into()));
    let issuer = Issuer::open(&config, network.clone(), PACE).await.unwrap();
    let token = sign("eddsa", Some("k"), &claims(NOW));
    verify(&issuer, &token, NOW).await.unwrap_err();
    network.put(URL, &key_set(&[("k", "eddsa")]));
    tokio::time::sleep(PACE.at_most).await;
    verify(&issuer, &token, NOW).await.unwrap();
}

#[tokio::test]
async fn sets_are_narrowed_to_the_algorithm() {
    let dir = tempfile::tempdir().unwrap();
    let open_set = async |set: Json| {
        let path = dir.path().join("set.json");
        std::fs::write(&path, set.to_string()).unwrap();
        open(&config("RS256", KeySource::JwksFile(path))).await
    };
    // Keys of other kinds are passed over, whatever stands in them.
    let mut set = key_set(&[("a", "rs256"), ("b", "es256"), ("c", "eddsa")]);
    let list = set["keys"].as_array_mut().unwrap();
    list.insert(0, json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}));
    list.insert(0, json!({"kty": "future", "x": 1}));
    list.insert(0, json!(7));
    let issuer = open_set(set).await.unwrap();
    verify(&issuer, &sign("rs256", Some("a"), &claims(NOW)), NOW).await.unwrap();
    verify(&issuer, &sign("rs256", None, &claims(NOW)), NOW).await.unwrap();
    verify(&issuer, &sign("rs256", Some("b"), &claims(NOW)), NOW).await.unwrap_err();

    // Two keys, and a token that names none.
    let two = open_set(key_set(&[("a", "rs256"), ("b", "other-rs256")])).await.unwrap();
    verify(&two, &sign("other-rs256", Some("b"), &claims(NOW)), NOW).await.unwrap();
    verify(&two, &sign("other-rs256", Some("a"), &claims(NOW)), NOW).await.unwrap_err();
    verify(&two, &sign("rs256", None, &claims(NOW)), NOW).await.unwrap_err();

    for (name, value) in
        [("use", json!("enc")), ("alg", json!("RS512")), ("key_ops", json!(["encrypt"]))]
    {
        let mut set = key_set(&[("a", "rs256")]);
        set["keys"][0][name] = value;
        assert!(open_set(set).await.unwrap_err().contains("no key for RS256"), "{name}");
    }
    for set in [json!([]), json!({"keys": {}}), json!({"keys": []}), json!("x")] {
        open_set(set).await.unwrap_err();
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_start() {
    let missing = KeySource::Pem(fixture("missing.pem"));
    for (algorithm, source, why) in [
        ("HS256", pem("rs256"), "HS256"),
        ("none", pem("rs256"), "RS256, RS384"),
        ("RS256", pem("es256"), "no public key for RS256"),
        ("ES384", pem("es256"), "another kind"),
        ("EdDSA", pem("rs256"), "no public key for EdDSA"),
        ("RS256", pem("weak-rs256"), "2048"),
        ("RS256", KeySource::Pem(fixture("rs256.private.pem")), "private key"),
        ("RS256", KeySource::Pem(fixture("README.md")), "no public key"),
        ("RS256", missing, "missing.pem"),
        ("RS256", KeySource::JwksUrl("http://id.example.com/keys".into()), "https"),
        ("RS256", KeySource::JwksUrl("keys".into()), "https"),
    ] {
        let error = open(&config(algorithm, source)).await.unwrap_err();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
    }
    let mut nobody = config("RS256", pem("rs256"));
    nobody.audience.clear();
    assert!(open(&nobody).await.unwrap_err().contains("aud"));
    for role in ["user", "guest", ""] {
        let mut mapped = config("RS256", pem("rs256"));
        mapped.roles.insert("all".into(), role.into());
        assert!(Mapping::new(&mapped).is_err());
    }
}

#[test]
fn roles_pass_the_map() {
    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        claim: String,
        map: BTreeMap<String, String>,
        claims: Map<String, Json>,
        expect: Vec<String>,
    }
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../fixtures/auth/roles.json")).unwrap();
    for case in cases {
        let mut config = config("RS256", pem("rs256"));
        config.roles_claim = case.claim;
        config.roles = case.map;
        let roles = Mapping::new(&config).unwrap().roles(&case.claims);
        let roles: Vec<_> = roles.iter().map(|role| &**role).collect();
        assert_eq!(roles, case.expect, "{}", case.name);
    }
}
