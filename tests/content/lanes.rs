//! Who waits behind whom: told by the order of the commits.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join, join_all};
use rowcast::auth::principal::Principal;
use rowcast::content::ImportAsk;
use rowcast::dialects::fastschema::rest::{self, Call};
use rowcast::error::Result;
use rowcast::store::{Lane, Store};
use serde_json::{Value as Json, json};

use crate::admin;
use crate::bounds::{node, plant};
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(20);

/// A job that keeps the writer until it is released, and for longer than a group goes on.
struct Hold {
    job: BoxFuture<'static, ()>,
    begun: Receiver<()>,
    release: Sender<()>,
}

fn hold(store: &Store) -> Hold {
    let ((begins, begun), (release, released)) = (channel(), channel());
    let store = store.clone();
    let job = async move {
        let held = store.write_long(Lane::Schemas, move |_| {
            begins.send(()).unwrap();
            let _ = released.recv_timeout(PATIENCE);
            std::thread::sleep(Duration::from_millis(200));
            Ok(())
        });
        held.await.map(drop).unwrap();
    };
    let mut job = job.boxed();
    assert!((&mut job).now_or_never().is_none());
    Hold { job, begun, release }
}

/// Hands a write of one record in.
fn hand_in<'w>(
    world: &'w World,
    who: &'w Principal,
    address: Option<IpAddr>,
    (method, path, body): (&str, &str, Json),
) -> BoxFuture<'w, Result<()>> {
    let content = &world.content;
    let body = body.to_string();
    let call = rest::parse(method, path, "", body.as_bytes(), &content.limits).unwrap();
    let write = async move {
        let done = match call {
            Call::Create { schema, body } => content.create(who, &schema, body, address).await,
            Call::Update { schema, id, body } => {
                content.update(who, &schema, &id, body, address).await
            }
            Call::Delete { schema, id } => content.delete(who, &schema, &id, address).await,
            _ => panic!("not one record"),
        };
        done.map(drop)
    };
    let mut write = write.boxed();
    assert!((&mut write).now_or_never().is_none());
    write
}

/// How many changes each entry has, from the `from`th on.
fn sizes(world: &World, from: usize) -> Vec<usize> {
    world.told.0.lock().unwrap()[from..].iter().map(|commit| commit.changes.len()).collect()
}

#[test]
fn a_write_that_changes_many_lets_others_pass() {
    const CHILDREN: i64 = 600;
    let world = World::open(&[node(true)]);
    // 1 and 2 have many children, 3 has few, 4 all others.
    plant(&world, 3_000, |id| match id {
        1..=4 => id,
        5..605 => 1,
        605..1_205 => 2,
        1_205..1_210 => 3,
        _ => 4,
    });
    let ids = |from: i64, count: i64| (from..from + count).collect::<Vec<_>>();
    let before = world.entries();
    let who = admin();
    let Hold { job, begun, release } = hold(&world.store);
    begun.recv_timeout(PATIENCE).unwrap();
    let writes = [
        ("PUT", "/api/content/node/1", json!({"children": []})),
        // One of many: all of them are read.
        ("PUT", "/api/content/node/2", json!({"$clear": {"children": [{"id": 700}]}})),
        ("PUT", "/api/content/node/3", json!({"$add": {"children": ids(1_500, CHILDREN + 10)}})),
        ("POST", "/api/content/node", json!({"name": "y", "children": ids(2_200, CHILDREN + 20)})),
        ("PUT", "/api/content/node/3", json!({"children": []})),
        ("POST", "/api/content/node", json!({"name": "x", "children": ids(1_300, 3)})),
    ];
    let writes = writes.map(|write| hand_in(&world, &who, None, write));
    release.send(()).unwrap();
    world.runtime.block_on(async {
        job.await;
        join_all(writes).await.into_iter().for_each(|done| done.unwrap());
    });
    let many = |named: i64| usize::try_from(CHILDREN + named + 1).unwrap();
    // 1 was its own child, and 3 too: those are one change.
    assert_eq!(
        sizes(&world, before),
        [6, 4, many(10), many(20), many(0), 2],
        "short ones first, then what names many, then what turned out to have many"
    );
}

/// However many others a write changes, and whoever does it in the end: it is done once, whole.
#[test]
fn what_an_event_loop_finds_too_much_is_done_all_the_same() {
    let counts = [0, 3, 14, 15, 16, 17, 40, 498, 499, 500, 501, 600];
    let world = World::open(&[node(true)]);
    let roots = 2 * counts.len() as i64;
    // Each twice: one root to delete, one to take the children from.
    let mut parents: Vec<i64> = (1..=roots).collect();
    for root in 1..=roots {
        let children = counts[(root as usize - 1) / 2];
        parents.extend(std::iter::repeat_n(root, children));
    }
    plant(&world, parents.len() as i64, move |id| parents[id as usize - 1]);
    for (turn, children) in counts.into_iter().enumerate() {
        let (first, second) = (2 * turn as i64 + 1, 2 * turn as i64 + 2);
        let before = world.entries();
        let path = format!("DELETE /api/content/node/{first}");
        assert_eq!(world.ok(&admin(), &path, Json::Null), json!({"id": first}));
        let path = format!("PUT /api/content/node/{second}");
        world.ok(&admin(), &path, json!({"children": []}));
        assert_eq!(sizes(&world, before), [children + 1; 2], "{children} children");
    }
}

#[test]
fn what_is_refused_is_refused_before_anything_is_counted() {
    let mut schema = node(true);
    schema["access"] = json!({"guest": {
        "read": true,
        "update": {"filter": {"name": "mine"}},
        "delete": {"filter": {"name": "mine"}}
    }});
    let world = World::open(&[schema]);
    plant(&world, 700, |_| 1);
    let before = world.entries();
    let guest = Principal::guest();
    // Whoever is sent to a lane of those that take long waits behind the second of these.
    let first = hold(&world.store);
    first.begun.recv_timeout(PATIENCE).unwrap();
    let second = hold(&world.store);
    let calls = [
        ("PUT", "/api/content/node/1", json!({"children": []})),
        ("DELETE", "/api/content/node/1", Json::Null),
    ];
    let calls = calls.map(|call| hand_in(&world, &guest, None, call));
    first.release.send(()).unwrap();
    let refused = world.runtime.block_on(join_all(calls));
    second.release.send(()).unwrap();
    world.runtime.block_on(join(first.job, second.job));
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(error.status(), 401);
        assert!(error.message.contains("this 'node' with id 1"), "{}", error.message);
    }
    let names_many = json!({"children": (1..600).collect::<Vec<_>>()});
    let call = "PUT /api/content/node/1";
    world.refused(&guest, call, names_many, 401, "this 'node' with id 1");
    assert_eq!(world.entries(), before);
}

#[test]
fn who_is_no_user_waits_by_its_address() {
    let mut schema = node(true);
    schema["access"] = json!({"guest": {"read": true, "update": true, "delete": true}});
    let world = World::open(&[schema]);
    // 1 to 3 have 600 children each.
    plant(&world, 1_803, |id| if id <= 3 { id } else { (id - 4) / 600 + 1 });
    let before = world.entries();
    let (who, guest) = (admin(), Principal::guest());
    let first = hold(&world.store);
    first.begun.recv_timeout(PATIENCE).unwrap();
    let second = hold(&world.store);
    let imports = [1, 2, 3].map(|count| {
        let record = json!({"name": "imported"}).as_object().unwrap().clone();
        let records = vec![record; count];
        let mut import = world.content.import(&who, "node", records, ImportAsk::default()).boxed();
        assert!((&mut import).now_or_never().is_none());
        import
    });
    let address = |last| Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, last)));
    let mut writes = vec![
        hand_in(&world, &guest, address(1), ("DELETE", "/api/content/node/1", Json::Null)),
        hand_in(
            &world,
            &guest,
            address(2),
            ("PUT", "/api/content/node/2", json!({"children": []})),
        ),
        hand_in(&world, &guest, address(1), ("DELETE", "/api/content/node/3", Json::Null)),
    ];
    let mut marker = world.store.write(|_| Ok(())).boxed();
    assert!((&mut marker).now_or_never().is_none());
    first.release.send(()).unwrap();
    world.runtime.block_on(marker).unwrap();
    // All are known to take long by now; the writer is held again while they are handed in so.
    for write in &mut writes {
        assert!(write.now_or_never().is_none());
    }
    second.release.send(()).unwrap();
    world.runtime.block_on(async {
        first.job.await;
        second.job.await;
        let (imports, writes) = join(join_all(imports), join_all(writes)).await;
        imports.into_iter().for_each(|done| drop(done.unwrap()));
        writes.into_iter().for_each(|done| done.unwrap());
    });
    let deleted = 601;
    assert_eq!(
        sizes(&world, before),
        [1, deleted, deleted, 2, deleted, 3],
        "one of each in turn: the owner, the one address, the other"
    );
}
