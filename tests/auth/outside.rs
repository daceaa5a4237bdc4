//! Tokens of the outside issuer, through the service.

use rowcast::auth::issuer::{KeySource, LEEWAY};
use rowcast::auth::now_seconds;
use rowcast::model::value::Value;
use serde_json::{Value as Json, json};

use crate::house::{House, Plan};
use crate::issuer::{ISSUER, claims, config, fixture, sign};

async fn open(dir: &std::path::Path, map: Json) -> House {
    let mut config = config("ES256", KeySource::Pem(fixture("es256.public.pem")));
    config.roles = serde_json::from_value(map).unwrap();
    House::open(dir, Plan { issuer: Some(config), ..Plan::default() }).await
}

fn token(roles: Json) -> String {
    let mut claims = claims(now_seconds());
    claims["roles"] = roles;
    claims["org"] = json!("acme");
    sign("es256", None, &claims)
}

#[tokio::test]
async fn a_stranger_has_its_mapped_roles_and_no_user() {
    let dir = tempfile::tempdir().unwrap();
    let house = open(dir.path(), json!({"staff": "editor", "chief": "admin"})).await;
    let who = house.who(&token(json!(["staff", "admin", "root"]))).await.unwrap();
    assert!(who.logged_in && !who.admin && who.user.is_none() && who.username.is_none());
    assert_eq!(who.roles, ["editor".into()]);
    assert_eq!(who.claims["org"], "acme");
    let left = who.expires.unwrap() - now_seconds() - 100 - LEEWAY;
    assert!((-5..=0).contains(&left));
    assert_eq!(*house.directory.current(&who).unwrap(), who);
    let me = house.auth.me(&who).await.unwrap().to_json();
    assert_eq!(
        me,
        json!({"id": null, "username": null, "roles": [{"id": null, "name": "editor"}]})
    );
    house.auth.logout(&who).await.unwrap();

    // Admin only where mapped by name.
    let chief = house.who(&token(json!(["chief"]))).await.unwrap();
    assert!(chief.admin && chief.roles == ["admin".into()]);
}

#[tokio::test]
async fn a_linked_user_is_that_user_as_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let house = open(dir.path(), json!({"staff": "editor"})).await;
    let link = |subject: &str| {
        [("provider", Value::Text(ISSUER.into())), ("provider_id", Value::Text(subject.into()))]
    };
    house.new_role("author").await.unwrap();
    let ann = house.add("ann", &["author", "admin"]).await;
    let token = token(json!(["staff"]));
    house.change(ann, &link("u-2")).await.unwrap();
    assert!(house.who(&token).await.unwrap().user.is_none());
    house.change(ann, &link("u-1")).await.unwrap();
    let who = house.who(&token).await.unwrap();
    assert_eq!((who.user, who.username.as_deref()), (Some(ann), Some("ann")));
    // The user's own roles count, but the issuer cannot make an admin that is not mapped.
    assert_eq!(who.roles, ["author".into(), "editor".into()]);
    assert!(!who.admin);

    // The same subject of another issuer is somebody else.
    let mut other = link("u-1");
    other[0].1 = Value::Text("https://other.example.com/".into());
    house.change(ann, &other).await.unwrap();
    assert!(house.who(&token).await.unwrap().user.is_none());
    house.change(ann, &link("u-1")).await.unwrap();

    // One subject is one user.
    let bob = house.add("bob", &[]).await;
    assert_eq!(house.change(bob, &link("u-1")).await.unwrap_err().status(), 400);
    house.change(ann, &link("u-2")).await.unwrap();
    house.change(bob, &link("u-1")).await.unwrap();
    assert_eq!(house.who(&token).await.unwrap().user, Some(bob));
    house.delete(bob).await.unwrap();
    assert!(house.who(&token).await.unwrap().user.is_none());
    house.change(ann, &link("u-1")).await.unwrap();

    house.change(ann, &[("active", Value::Bool(false))]).await.unwrap();
    assert!(house.refuses(&token).await && house.directory.current(&who).is_none());
    drop(house);
    let house = open(dir.path(), json!({"staff": "editor"})).await;
    assert!(house.refuses(&token).await);
    house.change(ann, &[("active", Value::Bool(true))]).await.unwrap();
    assert_eq!(house.who(&token).await.unwrap().user, Some(ann));
}

#[tokio::test]
async fn without_an_issuer_its_tokens_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    assert!(house.refuses(&token(json!([]))).await);
    // And own tokens are refused by nobody for its sake.
    let house = {
        drop(house);
        open(dir.path(), json!({})).await
    };
    let own = house.login("root").await.token;
    assert!(house.who(&own).await.unwrap().admin);
}
