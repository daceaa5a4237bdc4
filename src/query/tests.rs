mod stream;

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{Ask, Plan};
use crate::auth::grant::{self, Action};
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::{Key, NoRelated, RelatedSet};
use crate::model::value::Value;
use crate::model::{file, link, system};

/// Schemas `category` (many of `blog`) and `blog`, with the access rules given.
fn catalog(category: Json, blog: Json) -> Arc<Catalog> {
    catalog_at(1, category, blog)
}

/// The same, as of a version.
pub(super) fn catalog_at(version: u64, category: Json, blog: Json) -> Arc<Catalog> {
    let category = json!({
        "name": "category", "namespace": "categories", "label_field": "name",
        "disable_timestamp": true, "access": category,
        "fields": [
            { "name": "name", "label": "Name", "type": "string", "sortable": true },
            { "name": "secret", "label": "Secret", "type": "int", "optional": true },
            { "name": "blogs", "label": "Blogs", "type": "relation", "optional": true, "relation":
              { "schema": "blog", "field": "category", "type": "o2m", "owner": true } }
        ]
    });
    let blog = json!({
        "name": "blog", "namespace": "blogs", "label_field": "title",
        "disable_timestamp": true, "access": blog,
        "fields": [
            { "name": "title", "label": "Title", "type": "string", "sortable": true },
            { "name": "views", "label": "Views", "type": "int", "optional": true, "sortable": true },
            { "name": "notes", "label": "Notes", "type": "string", "optional": true },
            { "name": "category", "label": "Category", "type": "relation", "optional": true,
              "sortable": true,
              "relation": { "schema": "category", "field": "blogs", "type": "o2m" } },
            { "name": "author", "label": "Author", "type": "relation", "optional": true,
              "relation": { "schema": "user", "field": "blogs", "type": "o2m" } }
        ]
    });
    let mut defs = system::schemas();
    for schema in [category, blog] {
        defs.push(file::parse(None, schema.to_string().as_bytes()).def.expect("a good schema"));
    }
    let linked = link::link(&defs).expect("good schemas");
    let catalog = Catalog::new(version, linked.schemas.into_iter().map(Arc::new).collect());
    for schema in catalog.all() {
        assert_eq!(grant::check(&catalog, schema), []);
    }
    Arc::new(catalog)
}

fn user(roles: &[&str]) -> Principal {
    Principal {
        user: Some(uuid::Uuid::from_u128(7)),
        username: Some("ann".into()),
        roles: roles.iter().map(|role| Arc::from(*role)).collect(),
        logged_in: true,
        ..Principal::default()
    }
}

fn ask(filter: Json, select: &str, sort: &str) -> Ask {
    Ask {
        schema: "blog".into(),
        filter: Some(filter),
        untyped: false,
        select: Some(select.into()),
        sort: Some(sort.into()),
        watch: None,
    }
}

fn compile(catalog: &Arc<Catalog>, who: &Principal, ask: &Ask) -> Result<Plan, String> {
    Plan::compile(catalog, who, &Limits::default(), ask).map_err(|error| error.message)
}

/// A blog: id, title, views, notes, category.
fn blog(id: i64, title: &str, views: i64, category: Option<i64>) -> Row {
    Row::new(vec![
        Value::Int(id),
        Value::Text(title.into()),
        Value::Int(views),
        Value::Null,
        category.map_or(Value::Null, Value::Int),
        Value::Null,
    ])
}

/// What `category` of blog `from` leads to.
fn leads_to(catalog: &Catalog, from: i64, id: i64, name: &str, secret: i64) -> RelatedSet {
    let mut related = RelatedSet::default();
    let row = Row::new(vec![Value::Int(id), Value::Text(name.into()), Value::Int(secret)]);
    let schema = catalog.named("blog").unwrap();
    related.insert(schema.id, &"category".into(), Key::Int(from), vec![Arc::new(row)]);
    related
}

fn shown(plan: &Plan, row: &Row, related: &RelatedSet) -> Json {
    let mut out = Vec::new();
    plan.body.encode(row, related, &mut out);
    serde_json::from_slice(&out).expect("valid JSON")
}

#[test]
fn hidden_and_missing_names_are_answered_in_the_same_words() {
    let catalog = catalog(
        json!({ "user": { "read": { "fields": ["name"] } } }),
        json!({ "user": { "read": { "fields": ["title", "category"] } } }),
    );
    let told = |ask: Ask| compile(&catalog, &user(&[]), &ask).unwrap_err();
    let same = |hidden: &str, missing: &str, make: &dyn Fn(&str) -> Ask| {
        let (one, other) = (told(make(hidden)), told(make(missing)));
        assert!(one.contains(hidden), "{one}");
        assert_eq!(one.replace(hidden, missing), other);
    };
    for (hidden, missing) in [
        ("notes", "qqqqq"),
        ("author", "qqqqqq"),
        ("author.username", "author.qqqqqqqq"),
        ("author_id", "qqqqqq_qq"),
        ("category.secret", "category.qqqqqq"),
        ("category.blogs", "category.qqqqq"),
        ("category.blogs.title", "category.qqqqq.title"),
    ] {
        same(hidden, missing, &|name| ask(json!({ name: { "$gt": [] } }), "", ""));
        same(hidden, missing, &|name| ask(json!({}), name, ""));
        same(hidden, missing, &|name| ask(json!({}), "", name));
    }
}

#[test]
fn an_alternative_counts_only_with_every_field_that_is_named() {
    let catalog = catalog(
        json!({}),
        json!({
            "guest": { "read": { "filter": { "views": { "$gt": 10 } }, "fields": ["title"] } },
            "user": { "read": { "filter": { "title": "mine" }, "fields": ["title", "notes"] } }
        }),
    );
    let who = user(&[]);
    let all = compile(&catalog, &who, &ask(json!({ "title": { "$neq": "x" } }), "", "")).unwrap();
    assert!(all.matches(&blog(1, "a", 11, None), &NoRelated));
    assert!(all.matches(&blog(1, "mine", 1, None), &NoRelated));
    let notes = ask(json!({ "notes": { "$null": true } }), "", "");
    let notes = compile(&catalog, &who, &notes).unwrap();
    assert!(!notes.matches(&blog(1, "a", 11, None), &NoRelated));
    assert!(notes.matches(&blog(1, "mine", 1, None), &NoRelated));
    assert!(compile(&catalog, &Principal::guest(), &ask(json!({ "notes": "x" }), "", "")).is_err());
    // The rule's own field is not the client's to ask for.
    assert!(compile(&catalog, &who, &ask(json!({ "views": 11 }), "", "")).is_err());
    // A sort counts as well.
    assert!(compile(&catalog, &who, &ask(json!({ "notes": "x" }), "", "views")).is_err());
}

#[test]
fn a_record_shows_the_fields_of_the_alternatives_that_are_true_for_it() {
    let catalog = catalog(
        json!({}),
        json!({
            "guest": { "read": { "filter": { "views": { "$gt": 10 } }, "fields": ["title"] } },
            "user": { "read": { "filter": { "title": "mine" }, "fields": ["views"] } }
        }),
    );
    let plan = compile(&catalog, &user(&[]), &ask(json!({}), "", "")).unwrap();
    let none = RelatedSet::default();
    assert_eq!(shown(&plan, &blog(1, "a", 11, None), &none), json!({ "id": 1, "title": "a" }));
    assert_eq!(shown(&plan, &blog(1, "mine", 5, None), &none), json!({ "id": 1, "views": 5 }));
    let both = json!({ "id": 1, "title": "mine", "views": 12 });
    assert_eq!(shown(&plan, &blog(1, "mine", 12, None), &none), both);
    // What is selected is cut in the same way.
    let plan = compile(&catalog, &user(&[]), &ask(json!({}), "views", "")).unwrap();
    assert_eq!(shown(&plan, &blog(1, "a", 11, None), &none), json!({ "id": 1 }));
}

#[test]
fn keys_of_hidden_records_are_null() {
    let catalog = catalog(
        json!({ "user": { "read": { "filter": { "secret": 0 }, "fields": ["name"] } } }),
        json!({ "guest": { "read": true } }),
    );
    let row = blog(1, "a", 1, Some(3));
    let hidden = leads_to(&catalog, 1, 3, "news", 1);
    let open = leads_to(&catalog, 1, 3, "news", 0);
    let key = |plan: &Plan, related| shown(plan, &row, related)["category_id"].clone();
    let plan = compile(&catalog, &user(&[]), &ask(json!({}), "", "")).unwrap();
    assert_eq!((key(&plan, &hidden), key(&plan, &open)), (json!(null), json!(3)));
    let guest = compile(&catalog, &Principal::guest(), &ask(json!({}), "", "")).unwrap();
    assert_eq!(key(&guest, &open), json!(null));
    assert!(guest.paths.is_empty());
    let owner = compile(&catalog, &Principal::owner(), &ask(json!({}), "", "")).unwrap();
    assert_eq!(key(&owner, &RelatedSet::default()), json!(3));
    assert!(owner.paths.is_empty());

    let whole = compile(&catalog, &user(&[]), &ask(json!({}), "category", "")).unwrap();
    assert_eq!(shown(&whole, &row, &hidden), json!({ "id": 1, "category": null }));
    let news = json!({ "id": 1, "category": { "id": 3, "name": "news" } });
    assert_eq!(shown(&whole, &row, &open), news);
    let dotted = compile(&catalog, &user(&[]), &ask(json!({}), "category.name", "")).unwrap();
    assert_eq!(shown(&dotted, &row, &open), json!({ "id": 1, "category": { "name": "news" } }));

    // In filters a hidden record counts as absent, and no order tells it.
    for (filter, seen, unseen) in [
        (json!({ "category": 3 }), true, false),
        (json!({ "category_id": 3 }), true, false),
        (json!({ "category": null }), false, true),
        (json!({ "category.name": "news" }), true, false),
        (json!({ "category.name": { "$null": true } }), false, true),
    ] {
        let plan = compile(&catalog, &user(&[]), &ask(filter.clone(), "", "")).unwrap();
        assert_eq!(plan.matches(&row, &open), seen, "{filter}");
        assert_eq!(plan.matches(&row, &hidden), unseen, "{filter}");
    }
    for sort in ["category", "-category_id"] {
        assert!(compile(&catalog, &user(&[]), &ask(json!({}), "", sort)).is_err());
        assert!(compile(&catalog, &Principal::owner(), &ask(json!({}), "", sort)).is_ok());
    }
}

#[test]
fn a_related_grant_that_crosses_a_relation_refuses_the_path() {
    let catalog = catalog(
        json!({ "user": { "read": { "filter": { "blogs.title": "x" } } } }),
        json!({ "user": { "read": true } }),
    );
    let who = user(&[]);
    for ask in [
        ask(json!({ "category.name": "x" }), "", ""),
        ask(json!({ "category": 3 }), "", ""),
        ask(json!({}), "category", ""),
        ask(json!({}), "category.name", ""),
        ask(json!({}), "", "category"),
    ] {
        let told = compile(&catalog, &who, &ask).unwrap_err();
        assert!(told.contains("unknown field 'category"), "{told}");
    }
    // The category itself may be read, its own grant crossing what it likes.
    let own = Ask { schema: "category".into(), ..Ask::default() };
    assert!(!compile(&catalog, &who, &own).unwrap().paths.is_empty());
}

#[test]
fn keys_are_equal_exactly_for_what_matches_and_shows_the_same() {
    let rule = json!({ "read": { "filter": { "author": "$user.id" } } });
    let catalog = catalog(
        json!({ "guest": { "read": true } }),
        json!({ "guest": { "read": { "filter": { "views": { "$gt": 1 } } } }, "user": rule }),
    );
    let other = Principal { user: Some(uuid::Uuid::from_u128(8)), ..user(&[]) };
    let key = |who: &Principal, filter: Json, select: &str, sort: &str| {
        compile(&catalog, who, &ask(filter, select, sort)).unwrap().key
    };
    let (guest, ann) = (Principal::guest(), user(&[]));
    let one = json!({ "views": 1, "title": "x" });
    let swapped = json!({ "$and": [{ "title": "x" }, { "views": 1 }, { "views": 1.0 }] });
    assert_eq!(key(&guest, one.clone(), "", ""), key(&guest, swapped, "", "views"));
    let select = "category.name,title";
    let again = " title , category . name,title";
    assert_eq!(key(&guest, one.clone(), select, ""), key(&guest, one.clone(), again, ""));
    assert_eq!(key(&ann, json!({}), "", ""), key(&user(&["x"]), json!({}), "", ""));
    // What the rule asks already is asked once.
    let ruled = json!({ "views": { "$gt": 1 } });
    assert_eq!(key(&guest, ruled, "", ""), key(&guest, json!({}), "", ""));
    let mut keys = [
        key(&guest, json!({}), "", ""),
        key(&ann, json!({}), "", ""),
        key(&other, json!({}), "", ""),
        key(&guest, json!({}), "title", ""),
        key(&guest, json!({}), "category", ""),
        key(&guest, json!({}), "category.name", ""),
        key(&guest, one, "", ""),
        key(&guest, json!({ "views": 1, "title": "y" }), "", ""),
        key(&guest, json!({ "title": { "$in": ["x"] } }), "", ""),
        key(&guest, json!({ "title": { "$in": ["x", "y"] } }), "", ""),
        key(&guest, json!({ "title": { "$nin": ["x", "y"] } }), "", ""),
        key(&guest, json!({ "views": { "$gt": 2 } }), "", ""),
        key(&guest, json!({ "views": { "$gte": 1 } }), "", ""),
        key(&guest, json!({ "views": { "$lt": 1 } }), "", ""),
        key(&guest, json!({ "views": { "$lte": 1 } }), "", ""),
        key(&guest, json!({ "title": { "$notlike": "x" } }), "", ""),
        key(&guest, json!({ "title": { "$containsfold": "y" } }), "", ""),
        key(&guest, json!({ "title": null }), "", ""),
        key(&guest, json!({ "title": "null" }), "", ""),
        key(&guest, json!({ "title": { "$neq": null } }), "", ""),
        key(&guest, json!({ "title": { "$like": "x" } }), "", ""),
        key(&guest, json!({ "title": { "$contains": "x" } }), "", ""),
        key(&guest, json!({ "title": { "$containsfold": "x" } }), "", ""),
        key(&guest, json!({ "category.name": "x" }), "", ""),
    ];
    keys.sort();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn placeholders_are_values_and_what_is_missing_grants_nothing() {
    let rules = |filter: Json| json!({ "user": { "read": { "filter": filter } } });
    let claims = |claims: Json| Principal {
        claims: Arc::new(claims.as_object().unwrap().clone()),
        ..user(&["editor"])
    };
    let row = blog(1, "ann", 3, None);
    let sees = |filter: Json, who: &Principal| {
        let catalog = catalog(json!({}), rules(filter));
        compile(&catalog, who, &ask(json!({}), "", ""))
            .is_ok_and(|plan| plan.matches(&row, &NoRelated))
    };
    assert!(sees(json!({ "title": "$user.username" }), &user(&[])));
    let nameless = Principal { username: None, ..user(&[]) };
    assert!(!sees(json!({ "title": { "$neq": "$user.username" } }), &nameless));
    assert!(!sees(json!({ "title": { "$nin": "$user.roles" } }), &user(&[])));
    assert!(sees(json!({ "title": { "$nin": "$user.roles" } }), &user(&["editor"])));
    let wild = Principal { username: Some("%".into()), ..user(&[]) };
    assert!(!sees(json!({ "title": { "$like": "$user.username" } }), &wild));
    assert!(sees(json!({ "title": { "$like": "$user.username" } }), &user(&[])));

    let views = json!({ "views": "$claims.views" });
    assert!(sees(views.clone(), &claims(json!({ "views": 3 }))));
    for wrong in [json!(4), json!("3"), json!(null), json!([3]), json!({ "$gt": 0 }), json!(3.5)] {
        assert!(!sees(views.clone(), &claims(json!({ "views": wrong }))), "{wrong}");
    }
    assert!(!sees(views, &claims(json!({}))));
    let among = json!({ "views": { "$in": "$claims.views" } });
    assert!(sees(among.clone(), &claims(json!({ "views": [1, 3] }))));
    for wrong in [json!([]), json!(3), json!([3, null]), json!([3, "x"]), json!([[3]])] {
        assert!(!sees(among.clone(), &claims(json!({ "views": wrong }))), "{wrong}");
    }
    let listed = json!({ "views": { "$in": [9, "$claims.views"] } });
    assert!(sees(listed.clone(), &claims(json!({ "views": 3 }))));
    assert!(!sees(listed, &claims(json!({ "views": [3] }))));

    // A client's own "$user.username" is plain text.
    let catalog = catalog(json!({}), json!({ "user": { "read": true } }));
    let plan = ask(json!({ "title": "$user.username" }), "", "");
    let plan = compile(&catalog, &user(&[]), &plan).unwrap();
    assert!(!plan.matches(&row, &NoRelated));
    assert!(plan.matches(&blog(1, "$user.username", 1, None), &NoRelated));
}

#[test]
fn writes_take_the_rules_in_the_files_order_and_reads_drop_what_is_covered() {
    let catalog = catalog(
        json!({}),
        json!({
            "guest": { "read": { "fields": ["title"] } },
            "editor": { "read": true, "create": true, "update": { "fields": ["id", "title"] } },
            "user": {
                "read": { "filter": { "views": 1 } },
                "create": { "fields": ["title"], "set": { "author": "$user.id", "views": 0 } }
            }
        }),
    );
    let schema = catalog.named("blog").unwrap();
    let alternatives =
        |who: &Principal, action| grant::resolve(&catalog, schema, who, action).alternatives;
    let editor = user(&["editor"]);
    assert_eq!(alternatives(&editor, Action::Read).len(), 1);
    assert_eq!(alternatives(&user(&[]), Action::Read).len(), 2);
    let create = alternatives(&editor, Action::Create);
    assert_eq!(create.len(), 2);
    let fields = |index: usize| create[index].fields.columns.to_vec();
    assert_eq!(fields(0), [false, true, true, true, true, true]);
    assert_eq!(fields(1), [false, true, false, false, false, false]);
    let set: Vec<Json> = create[1].set.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(set, [json!("00000000-0000-0000-0000-000000000007"), json!(0)]);
    assert!(alternatives(&editor, Action::Update)[0].fields.columns[0]);
    assert!(alternatives(&editor, Action::Delete).is_empty());
    assert!(alternatives(&Principal::guest(), Action::Create).is_empty());
}

#[test]
fn who_may_not_is_told_by_whether_it_is_logged_in() {
    let catalog = catalog(json!({}), json!({ "editor": { "read": true } }));
    let told = |who: &Principal, schema: &str| {
        let ask = Ask { schema: schema.into(), ..Ask::default() };
        let error = Plan::compile(&catalog, who, &Limits::default(), &ask).unwrap_err();
        (error.status(), error.close_code(), error.message)
    };
    let text = |text: &str| text.to_owned();
    let guest = Principal::guest();
    let want = (401, 4401, text("Unauthorized: log in to read 'blog'"));
    assert_eq!(told(&guest, "blog"), want);
    let want = (401, 4401, text("Unauthorized: log in to read 'nope'"));
    assert_eq!(told(&guest, "nope"), want);
    let want = (403, 4403, text("Forbidden: no rule lets you read 'blog'"));
    assert_eq!(told(&user(&[]), "blog"), want);
    assert_eq!(told(&user(&[]), "nope"), (400, 4404, text("schema not found: nope")));
    // Junctions are served to nobody.
    let junction =
        catalog.all().find(|schema| schema.kind == crate::model::schema::SchemaKind::Junction);
    let junction = junction.expect("user and role are linked").name.to_string();
    assert_eq!(told(&Principal::owner(), &junction).1, 4404);
    assert_eq!(told(&guest, "user").0, 401);
    let plan = compile(&catalog, &user(&[]), &Ask { schema: "user".into(), ..Ask::default() });
    let mut out = Vec::new();
    let row = Row::new(vec![Value::Text("x".into()); plan.as_ref().unwrap().schema.columns.len()]);
    plan.unwrap().body.encode(&row, &NoRelated, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"id":"x","username":"x"}"#);
}
