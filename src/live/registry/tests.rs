//! Nothing is left of those who left.

use std::collections::HashMap;

use super::*;
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::live::Close;
use crate::live::tests::world::{Plain, catalog, files};
use crate::model::change::Row;
use crate::model::value::Value;
use crate::query::Ask;

#[test]
fn nothing_is_left_of_those_who_left() {
    let catalog = catalog(1, &files(""));
    let limits = Limits::default();
    let mut registry = Registry::default();
    let attach = |registry: &mut Registry, id: SubId, key: Option<i64>| {
        let ask = Ask { schema: "blog".into(), ..Ask::default() };
        let principal = Arc::new(Principal::owner());
        let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a plan");
        let request = Request::new(ask, Arc::new(Plain), principal);
        let outbox = Outbox::new(&limits, Close::new(4408, "slow"));
        let plan = Arc::new(plan);
        let (key, mode) = (key.map(Key::Int), Mode::of(&request, &plan));
        let listener = Listener { request, plan, key, mode, hold: None, outbox, told: 0 };
        registry.attach(id, listener);
    };
    attach(&mut registry, 0, None);
    for id in 1..100 {
        attach(&mut registry, id, Some(id as i64 / 3));
    }
    let entry = |registry: &Registry| registry.plans().next().map(Entry::listeners);
    assert_eq!(entry(&registry), Some(100));
    // In an order that moves seats about.
    for id in (1..100).step_by(2).chain((2..100).step_by(2)) {
        assert!(registry.detach(id).is_some());
        assert!(registry.detach(id).is_none());
    }
    let plan = registry.plans().next().expect("the plan of the last one");
    assert_eq!(plan.groups.len(), 1);
    assert!(plan.by_key.is_empty());
    for id in 1..100 {
        attach(&mut registry, id, Some(1_000 + id as i64));
    }
    let plan = registry.plans().next().expect("the plan");
    assert_eq!(plan.groups.places(), 100, "places are used again");
    for id in 0..100 {
        registry.detach(id);
    }
    assert!(registry.is_empty() && registry.plans().next().is_none());
    assert!(registry.by_schema.is_empty() && registry.bodies.is_empty());
    assert!(registry.index.is_empty() && registry.with_cursors.is_empty());
    assert!(registry.standing.is_empty() && registry.expiries.is_empty());
}

#[test]
fn plans_are_read_back_only_while_somebody_wants_to_know() {
    let catalog = catalog(1, &files(""));
    let limits = Limits::default();
    let mut registry = Registry::default();
    let attach = |registry: &mut Registry, id: SubId, transitions: bool, select: &str| {
        let select = Some(select.to_owned());
        let ask = Ask { schema: "blog".into(), select, ..Ask::default() };
        let principal = Arc::new(Principal::owner());
        let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a plan");
        let mut request = Request::new(ask, Arc::new(Plain), principal);
        request.told.transitions = transitions;
        let (plan, outbox) = (Arc::new(plan), Outbox::collector());
        let mode = Mode::of(&request, &plan);
        let listener = Listener { request, plan, key: None, mode, hold: None, outbox, told: 0 };
        registry.attach(id, listener);
    };
    attach(&mut registry, 1, false, "category");
    attach(&mut registry, 2, true, "title");
    assert!(registry.readings().is_empty());
    attach(&mut registry, 3, true, "category");
    attach(&mut registry, 4, true, "category");
    // Another plan that reads the same.
    attach(&mut registry, 5, true, "title,category");
    let category = catalog.named("category").expect("a schema").id;
    let touched = [category];
    let plans = |registry: &Registry| -> Vec<usize> {
        let readings = registry.readings().reaching(&touched);
        readings
            .map(|(_, reading)| {
                assert_eq!(reading.what().reach, [category]);
                reading.plans().len()
            })
            .collect()
    };
    assert_eq!(plans(&registry), [2]);
    assert!(registry.readings().reaching(&[SchemaId(0)]).next().is_none());
    registry.detach(5);
    registry.detach(3);
    assert_eq!(plans(&registry), [1]);
    registry.detach(4);
    assert!(registry.readings().is_empty());
    assert_eq!(registry.plans().count(), 2);
}

#[test]
fn plans_of_one_projection_keep_one_body() {
    let catalog = catalog(1, &files(""));
    let limits = Limits::default();
    let mut registry = Registry::default();
    for id in 0..4 {
        let select = Some(if id == 3 { "views" } else { "title" }.to_owned());
        let filter = Some(serde_json::json!({"views": id}));
        let ask = Ask { schema: "blog".into(), select, filter, ..Ask::default() };
        let principal = Arc::new(Principal::owner());
        let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a plan");
        let request = Request::new(ask, Arc::new(Plain), principal);
        let (plan, outbox) = (Arc::new(plan), Outbox::collector());
        let mode = Mode::of(&request, &plan);
        let listener = Listener { request, plan, key: None, mode, hold: None, outbox, told: 0 };
        registry.attach(id, listener);
    }
    let bodies: Vec<&Arc<Body>> = registry.plans().map(|entry| &entry.plan.body).collect();
    assert_eq!(bodies.len(), 4);
    assert!(bodies[..3].iter().all(|body| Arc::ptr_eq(body, bodies[0])));
    assert!(!Arc::ptr_eq(bodies[3], bodies[0]));
}

/// As many as may be are found as without a bound; where there is one more, nothing is.
#[test]
fn a_look_up_ends_where_there_is_too_much() {
    let catalog = catalog(1, &files(""));
    let limits = Limits::default();
    let blog = catalog.named("blog").expect("a schema").clone();
    let filters = [
        serde_json::json!({"views": 1}),
        serde_json::json!({"views": {"$gte": 0, "$lte": 9}}),
        serde_json::json!({"title": {"$contains": "needle"}}),
        serde_json::json!({"title": {"$null": false}}),
        serde_json::json!({"title": {"$notcontains": "b"}}),
    ];
    let mut registry = Registry::default();
    for id in 0..100 {
        let parts =
            [&filters[id as usize % 5], &serde_json::json!({"title": {"$neq": id.to_string()}})];
        let filter = Some(serde_json::json!({"$and": parts}));
        let ask = Ask { schema: "blog".into(), filter, ..Ask::default() };
        let principal = Arc::new(Principal::owner());
        let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a plan");
        let request = Request::new(ask, Arc::new(Plain), principal);
        let (plan, outbox) = (Arc::new(plan), Outbox::collector());
        let mode = Mode::of(&request, &plan);
        let listener = Listener { request, plan, key: None, mode, hold: None, outbox, told: 0 };
        registry.attach(id, listener);
    }
    let values = blog.columns.iter().map(|column| match &*column.name {
        "title" => Value::Text("a needle".into()),
        "views" => Value::Int(1),
        _ => Value::Null,
    });
    let row = Arc::new(Row::new(values.collect()));
    let change = Change {
        schema: blog.id,
        schema_version: blog.version,
        op: Op::Create,
        key: Value::Int(1),
        before: None,
        after: Some(row),
    };
    let (mut all, mut some) = (Vec::new(), Vec::new());
    registry.candidates(&change, &mut all);
    assert_eq!(all.len(), 100);
    for most in 0..=120 {
        assert_eq!(registry.candidates_within(most, &change, &mut some), most >= 100, "{most}");
        assert_eq!(some, if most >= 100 { &all[..] } else { &[] });
    }
}

/// Listeners of one record and of all come and go by chance: whoever may be concerned is found,
/// and a plan that is only asked for single records is found by those alone.
#[test]
fn plans_of_single_records_are_found_by_them() {
    let catalog = catalog(1, &files(""));
    let limits = Limits::default();
    let blog = catalog.named("blog").expect("a schema").clone();
    let filters = [
        serde_json::json!({}),
        serde_json::json!({"views": 1}),
        serde_json::json!({"views": {"$gte": 2}}),
        serde_json::json!({"title": {"$neq": "a"}}),
        serde_json::json!({"$or": [{"views": {"$in": [0, 3]}}, {"title": {"$contains": "needle"}}]}),
    ];
    let mut state = 5_u64;
    let mut roll = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % sides
    };
    let mut registry = Registry::default();
    let (mut here, mut spared, mut alone) = (BTreeSet::new(), 0, 0);
    for step in 0..3_000 {
        let id = roll(30);
        if here.remove(&id) {
            assert!(registry.detach(id).is_some());
        } else {
            let filter = Some(filters[roll(5) as usize].clone());
            let ask = Ask { schema: "blog".into(), filter, ..Ask::default() };
            let principal = Arc::new(Principal::owner());
            let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a plan");
            let mut request = Request::new(ask, Arc::new(Plain), principal);
            request.told.transitions = roll(4) == 0;
            let (plan, outbox) = (Arc::new(plan), Outbox::collector());
            let mode = Mode::of(&request, &plan);
            let key = (roll(4) > 0).then(|| Key::Int(roll(4) as i64));
            registry.attach(id, Listener { request, plan, key, mode, hold: None, outbox, told: 0 });
            here.insert(id);
        }
        let mut row = || {
            let values = blog.columns.iter().map(|column| match &*column.name {
                "title" => Value::Text(["a", "b", "a needle"][roll(3) as usize].into()),
                "views" => Value::Int(roll(5) as i64),
                _ => Value::Null,
            });
            Arc::new(Row::new(values.collect()))
        };
        let (before, after) = (row(), row());
        let change = Change {
            schema: blog.id,
            schema_version: blog.version,
            op: Op::Update,
            key: Value::Int(step % 4),
            before: Some(before.clone()),
            after: Some(after.clone()),
        };
        let mut found = Vec::new();
        registry.candidates(&change, &mut found);
        for most in [0, found.len(), 1_000] {
            let mut some = Vec::new();
            // Ways to come by a plan are counted, of which there may be several.
            match registry.candidates_within(most, &change, &mut some) {
                true => assert_eq!(some, found),
                false => assert!(some.is_empty() && most < 1_000),
            }
        }
        found.sort_unstable();
        assert!(found.windows(2).all(|two| two[0] < two[1]), "twice");
        let record = Key::Int(step % 4);
        let none = crate::model::related::RelatedRows::default();
        for (id, entry) in registry.plans.iter() {
            let candidate = found.binary_search(&id).is_ok();
            let wanted = entry.keyed(&record).next().is_some();
            let is = entry.plan.matches(&after, &none.after);
            let was = entry.tells_transitions() && entry.plan.matches(&before, &none.before);
            if (is || was) && (wanted || !entry.only_keyed()) {
                assert!(candidate, "{:?}", entry.plan.filter);
            }
            if entry.only_keyed() {
                assert_eq!(candidate, wanted);
                (spared, alone) =
                    (spared + usize::from(is && !candidate), alone + usize::from(wanted));
            }
        }
    }
    assert!(spared > 500 && alone > 500, "{spared} {alone}");
    here.into_iter().for_each(|id| drop(registry.detach(id)));
    assert!(registry.is_empty() && registry.plans().next().is_none());
    assert!(registry.by_schema.is_empty() && registry.index.is_empty());
}

/// Of each kind there is one group, however many there are, of all records and of one.
#[test]
fn listeners_who_are_told_alike_are_one_group() {
    let catalog = catalog(1, &files(""));
    let limits = Limits::default();
    let mut state = 3_u64;
    let mut roll = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % sides
    };
    let mut registry = Registry::default();
    let mut here: HashMap<SubId, (u64, Option<Key>)> = HashMap::new();
    let mut most = 0;
    for step in 0..6_000 {
        let id = roll(200);
        // More come than go, then more go than come.
        let comes = roll(4) < if step % 2_000 < 1_000 { 3 } else { 1 };
        if !comes || here.contains_key(&id) {
            assert_eq!(registry.detach(id).is_some(), here.remove(&id).is_some());
        } else {
            let ask = Ask { schema: "blog".into(), ..Ask::default() };
            let principal = Arc::new(Principal::owner());
            let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a plan");
            let request = Request::new(ask, Arc::new(Plain), principal);
            let (plan, outbox) = (Arc::new(plan), Outbox::collector());
            let grant = roll(40);
            let mode = Mode { cursors: Some(grant), ..Mode::default() };
            let key = (roll(3) == 0).then_some(Key::Int(1));
            let listener =
                Listener { request, plan, key: key.clone(), mode, hold: None, outbox, told: 0 };
            registry.attach(id, listener);
            here.insert(id, (grant, key));
        }
        let Some(entry) = registry.plans().next() else { continue };
        let keyed = entry.keyed(&Key::Int(1)).inspect(|group| assert!(group.key.is_some()));
        let mut kinds = BTreeSet::new();
        for group in entry.open().inspect(|group| assert!(group.key.is_none())).chain(keyed) {
            let kind = (group.mode.cursors.expect("a grant"), group.key.clone());
            for seat in &group.seats {
                assert_eq!(here[&seat.subscriber], kind);
            }
            assert!(kinds.insert(kind), "twice");
        }
        assert_eq!(kinds, here.values().cloned().collect());
        most = most.max(entry.open().count());
    }
    assert!(most > 30, "{most}");
    here.into_keys().for_each(|id| drop(registry.detach(id)));
    assert!(registry.is_empty() && registry.plans().next().is_none());
}
