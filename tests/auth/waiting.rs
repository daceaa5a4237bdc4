//! Rights that are taken away while a write stands in line.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use futures_util::FutureExt;
use rowcast::auth::principal::Principal;
use rowcast::auth::service::{Auth, Lifetimes};
use rowcast::auth::token::Keys;
use rowcast::content::{BulkAsk, Content, ImportAsk};
use rowcast::error::{Error, Result};
use rowcast::limits::Limits;
use rowcast::model::value::Value;
use rowcast::schemas;
use rowcast::store::{Lane, Rows, accounts};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::house::{House, KEY, Plan};

type Write = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

fn content(house: &House) -> Content {
    let keys = Keys::new(KEY, None).unwrap();
    let (store, directory) = (house.store.clone(), house.directory.clone());
    let auth = Auth::new(store.clone(), directory, keys, Lifetimes::new(false), None).unwrap();
    Content::new(store, Arc::new(Limits::default())).with_auth(Arc::new(auth))
}

fn object(json: Json) -> Map<String, Json> {
    let Json::Object(object) = json else { panic!("{json}") };
    object
}

/// Writes that take long, by whom: each would change all that is called `victim`, or make one.
fn long_ones(content: &Content, who: &Principal) -> [Write; 3] {
    let ask = || BulkAsk {
        schema: "user".into(),
        filter: json!({"username": "victim"}),
        untyped: false,
        address: None,
    };
    let made = |content: Content, who: Principal| async move {
        let record = object(json!({"username": "made"}));
        let all = ImportAsk { all_or_nothing: true, ..ImportAsk::default() };
        let imported = content.import(&who, "user", vec![record], all).await?;
        imported.refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    };
    let (one, other) = ((content.clone(), who.clone()), (content.clone(), who.clone()));
    let (delete, update) = (ask(), ask());
    [
        async move { one.0.delete_all(&one.1, delete).await.map(drop) }.boxed(),
        async move {
            let body = object(json!({"email": "victim@example.org"}));
            other.0.update_all(&other.1, update, body).await.map(drop)
        }
        .boxed(),
        made(content.clone(), who.clone()).boxed(),
    ]
}

/// Hands in `writes`, and `change` after them, while a write that takes long is at work; gives what
/// became of the writes.
async fn meanwhile(house: &House, writes: Vec<Write>, change: Write) -> Vec<Result<()>> {
    let (begun, begins) = channel();
    let (release, released) = channel();
    let mut held = Box::pin(house.store.write_long(Lane::Schemas, move |_| {
        begun.send(()).unwrap();
        // It outlasts a group, so that what is written next comes before what takes long.
        let _ = released.recv_timeout(Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(15));
        Ok(())
    }));
    assert!((&mut held).now_or_never().is_none());
    begins.recv_timeout(Duration::from_secs(20)).unwrap();
    let mut waiting = writes;
    for write in &mut waiting {
        let early = write.now_or_never();
        assert!(early.is_none(), "{early:?}");
    }
    let mut change = change;
    let early = (&mut change).now_or_never();
    assert!(early.is_none(), "{early:?}");
    release.send(()).unwrap();
    held.await.unwrap();
    change.await.unwrap();
    futures_util::future::join_all(waiting).await
}

fn told(outcome: Vec<Result<()>>) -> Vec<u16> {
    outcome.iter().map(|result| result.as_ref().map_or_else(Error::status, |()| 200)).collect()
}

async fn set_active(content: Content, user: Uuid, active: bool) -> Result<()> {
    let body = object(json!({"active": active}));
    content.update(&Principal::owner(), "user", &user.to_string(), body, None).await.map(drop)
}

async fn names(house: &House) -> Vec<String> {
    let list = house.auth.user_list().await.unwrap();
    list.into_iter().map(|user| user.username.to_string()).collect()
}

#[tokio::test]
async fn they_are_gone_for_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let content = content(&house);
    house.add("victim", &[]).await;
    let ann = house.add("ann", &["admin"]).await;
    let who = house.who(&house.login("ann").await.token).await.unwrap();

    // Nothing is taken from the owner, nor from who stays: all but what the first one deletes.
    let change = set_active(content.clone(), ann, true).boxed();
    let [_, update, _] = long_ones(&content, &who);
    let [_, owners, _] = long_ones(&content, &Principal::owner());
    assert_eq!(told(meanwhile(&house, vec![update, owners], change).await), [200, 200]);

    // A role: prepared anew, and refused for want of a rule.
    let admin = house.directory.roles(&ann)[0].0;
    let store = house.store.clone();
    let taken = async move {
        let job = move |tx: &mut rowcast::store::Tx<'_>| {
            let schema = tx.catalog().named("user").unwrap().clone();
            let roles = &schema.relations[schema.relation("roles").unwrap()];
            tx.unlink(&schema, roles, &Value::Uuid(ann), &Value::Uuid(admin))?;
            accounts::settle(tx)
        };
        store.write(job).await.map(drop)
    };
    let writes = long_ones(&content, &who).into();
    let before = house.commits.lock().unwrap().len();
    assert_eq!(told(meanwhile(&house, writes, taken.boxed()).await), [403, 403, 403]);
    house.role(ann, admin, true).await.unwrap();

    // The user itself.
    let change = set_active(content.clone(), ann, false).boxed();
    let writes = long_ones(&content, &who).into();
    assert_eq!(told(meanwhile(&house, writes, change).await), [401, 401, 401]);
    assert_eq!(house.commits.lock().unwrap().len() - before, 3, "the changes, and nothing else");
    let names = names(&house).await;
    assert!(names.iter().any(|name| name == "victim"), "{names:?}");
    assert!(names.iter().all(|name| name != "made"), "{names:?}");

    // A short write whose request began before.
    let body = object(json!({"username": "made"}));
    assert_eq!(content.create(&who, "user", body, None).await.unwrap_err().status(), 401);
}

/// Hands in `change` and `writes` behind it, all short, while another is at work, so that they make
/// one group; gives what became of the writes.
async fn behind(house: &House, change: Write, writes: Vec<Write>) -> Vec<Result<()>> {
    let (begun, begins) = channel();
    let (release, released) = channel();
    let mut held = Box::pin(house.store.write_long(Lane::Schemas, move |_| {
        begun.send(()).unwrap();
        let _ = released.recv_timeout(Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(15));
        Ok(())
    }));
    assert!((&mut held).now_or_never().is_none());
    begins.recv_timeout(Duration::from_secs(20)).unwrap();
    let mut waiting = vec![change];
    waiting.extend(writes);
    for write in &mut waiting {
        let early = write.now_or_never();
        assert!(early.is_none(), "{early:?}");
    }
    release.send(()).unwrap();
    held.await.unwrap();
    let mut outcome = futures_util::future::join_all(waiting).await;
    outcome.remove(0).unwrap();
    outcome
}

#[tokio::test]
async fn they_are_gone_for_what_is_written_together_with_the_change() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let content = content(&house);
    let victim = house.add("victim", &[]).await;
    let ann = house.add("ann", &["admin"]).await;
    let short = |who: &Principal| -> [Write; 3] {
        let (one, two, three) = (content.clone(), content.clone(), content.clone());
        let (a, b, c) = (who.clone(), who.clone(), who.clone());
        let id = victim.to_string();
        let other = id.clone();
        [
            async move {
                let body = object(json!({"username": "made"}));
                one.create(&a, "user", body, None).await.map(drop)
            }
            .boxed(),
            async move {
                let body = object(json!({"email": "victim@example.org"}));
                two.update(&b, "user", &id, body, None).await.map(drop)
            }
            .boxed(),
            async move { three.delete(&c, "user", &other, None).await.map(drop) }.boxed(),
        ]
    };

    // A role, a session, the user.
    let who = house.who(&house.login("ann").await.token).await.unwrap();
    let admin = house.directory.roles(&ann)[0].0;
    let store = house.store.clone();
    let taken = async move {
        let job = move |tx: &mut rowcast::store::Tx<'_>| {
            let schema = tx.catalog().named("user").unwrap().clone();
            let roles = &schema.relations[schema.relation("roles").unwrap()];
            tx.unlink(&schema, roles, &Value::Uuid(ann), &Value::Uuid(admin))?;
            accounts::settle(tx)
        };
        store.write(job).await.map(drop)
    };
    let before = house.commits.lock().unwrap().len();
    let outcome = behind(&house, taken.boxed(), short(&who).into()).await;
    assert_eq!(told(outcome), [403, 403, 403]);
    assert_eq!(house.commits.lock().unwrap().len() - before, 1, "the change, and nothing else");
    house.role(ann, admin, true).await.unwrap();

    let (store, session) = (house.store.clone(), who.session.unwrap());
    let ended = async move {
        let job = move |tx: &mut rowcast::store::Tx<'_>| accounts::end_session(tx, ann, session);
        store.write(job).await.map(drop)
    };
    assert_eq!(told(behind(&house, ended.boxed(), short(&who).into()).await), [401, 401, 401]);

    let who = house.who(&house.login("ann").await.token).await.unwrap();
    let change = set_active(content.clone(), ann, false).boxed();
    assert_eq!(told(behind(&house, change, short(&who).into()).await), [401, 401, 401]);
    let names = names(&house).await;
    assert!(names.iter().any(|name| name == "victim"), "{names:?}");
    assert!(names.iter().all(|name| name != "made"), "{names:?}");

    // What the owner writes stands whoever comes and goes.
    let change = set_active(content.clone(), ann, true).boxed();
    let outcome = behind(&house, change, short(&Principal::owner()).into()).await;
    assert_eq!(told(outcome), [200, 200, 200]);
}

#[tokio::test]
async fn they_are_gone_for_a_schema_that_waits() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let house = House::open(dir.path(), Plan::default()).await;
    let content = content(&house);
    let ann = house.add("ann", &["admin"]).await;
    let who = house.who(&house.login("ann").await.token).await.unwrap();
    let service = schemas::Service::open(house.store.clone(), folder.path()).await.unwrap();
    service.asks(house.directory.clone());
    let create = |who: &Principal, name: &str| {
        let (service, who) = (service.clone(), who.clone());
        let schema = json!({
            "name": name, "namespace": name, "label_field": "text",
            "fields": [{"name": "text", "label": "T", "type": "string"}]
        });
        async move { service.create(&who, schema).await.map(drop) }.boxed()
    };
    let change = set_active(content.clone(), ann, true).boxed();
    assert_eq!(told(meanwhile(&house, vec![create(&who, "one")], change).await), [200]);
    let change = set_active(content.clone(), ann, false).boxed();
    let writes = vec![create(&who, "two"), create(&Principal::owner(), "three")];
    assert_eq!(told(meanwhile(&house, writes, change).await), [401, 200]);
    let catalog = house.store.catalog();
    assert!(catalog.named("one").is_some() && catalog.named("three").is_some());
    assert!(catalog.named("two").is_none());
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    files.sort_by_key(|file| file.as_ref().unwrap().file_name());
    let names: Vec<_> = files.iter().map(|file| file.as_ref().unwrap().file_name()).collect();
    assert_eq!(names, ["one.json", "three.json"], "nor is there a file");
}

/// The directory's lock goes with the last handle on the store, after the writer has ended.
#[tokio::test]
async fn what_waits_does_not_hold_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let content = content(&house);
    house.add("ann", &["admin"]).await;
    let who = house.who(&house.login("ann").await.token).await.unwrap();
    let (begun, begins) = channel();
    let (gone, goes) = channel();
    {
        let mut held = Box::pin(house.store.write_long(Lane::Schemas, move |tx| {
            begun.send(()).unwrap();
            // Nobody says so while the writer is waited for.
            let _: std::result::Result<(), _> = goes.recv_timeout(Duration::from_millis(300));
            let role = tx.catalog().named("role").unwrap().clone();
            let value = |column: &rowcast::model::schema::Column| match &*column.name {
                "name" => Value::Text("made".into()),
                "created_at" | "updated_at" => Value::Time(tx.now()),
                _ => Value::Null,
            };
            let values = role.columns.iter().map(value).collect();
            tx.insert(&role, values).map(drop)
        }));
        assert!((&mut held).now_or_never().is_none());
        begins.recv_timeout(Duration::from_secs(20)).unwrap();
        let body = object(json!({"username": "made"}));
        let mut create = content.create(&who, "user", body, None).boxed();
        assert!((&mut create).now_or_never().is_none());
        for mut write in long_ones(&content, &who) {
            assert!((&mut write).now_or_never().is_none());
        }
    }
    let House { store, directory, auth, commits } = house;
    let before = commits.lock().unwrap().len();
    drop((content, auth, directory, store));
    assert_eq!(commits.lock().unwrap().len(), before + 1, "the writer has ended");
    let _ = gone.send(());
}
