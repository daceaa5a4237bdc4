//! What the stream asks of a plan beside its filter: what changed, what is watched, what is read
//! of others, and the number for the grant.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::{Ask, Body, Plan};
use super::{ask, blog, compile, leads_to, user};
use crate::auth::principal::Principal;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::{NoRelated, RelatedSet};
use crate::model::value::Value;
use crate::model::{file, system};
use crate::store::migrate::{How, Rename, Stored, StoredSchema, plan};

const OPEN: &str = r#"{ "guest": { "read": true } }"#;

/// `category`, many of `blog`, with these access rules; `title` is what the blog's first column is
/// called, `more` is added to its fields.
fn files(category: Json, blog: Json, title: &str, more: &[Json]) -> Vec<Json> {
    let category = json!({
        "name": "category", "namespace": "categories", "label_field": "name",
        "disable_timestamp": true, "access": category,
        "fields": [
            { "name": "name", "label": "Name", "type": "string" },
            { "name": "secret", "label": "Secret", "type": "int", "optional": true },
            { "name": "blogs", "label": "Blogs", "type": "relation", "optional": true, "relation":
              { "schema": "blog", "field": "category", "type": "o2m", "owner": true } }
        ]
    });
    let mut blog = json!({
        "name": "blog", "namespace": "blogs", "label_field": title,
        "disable_timestamp": true, "access": blog,
        "fields": [
            { "name": title, "label": "Title", "type": "string" },
            { "name": "views", "label": "Views", "type": "int", "optional": true },
            { "name": "notes", "label": "Notes", "type": "string", "optional": true },
            { "name": "category", "label": "Category", "type": "relation", "optional": true,
              "relation": { "schema": "category", "field": "blogs", "type": "o2m" } },
            { "name": "author", "label": "Author", "type": "relation", "optional": true,
              "relation": { "schema": "user", "field": "blogs", "type": "o2m" } }
        ]
    });
    blog["fields"].as_array_mut().unwrap().splice(1..1, more.iter().cloned());
    vec![category, blog]
}

fn migrated(stored: &Stored, files: &[Json], how: &How) -> Stored {
    let mut defs = system::schemas();
    for text in files {
        defs.push(file::parse(None, text.to_string().as_bytes()).def.expect("a good schema"));
    }
    let catalog = plan(stored, &defs, how).expect("a good migration").catalog;
    let row = |schema: &Arc<crate::model::schema::Schema>| StoredSchema {
        schema: schema.clone(),
        text: schema.source.to_string().into(),
        retired: false,
        pending: None,
    };
    let schemas = catalog.all().map(|schema| (schema.id, row(schema))).collect();
    // Ids only grow; how far they have is of no matter here.
    Stored { catalog, schemas, next_schema: 1000, next_field: 1000 }
}

fn catalog(category: Json, blog: Json) -> Arc<Catalog> {
    let files = files(category, blog, "title", &[]);
    migrated(&Stored::default(), &files, &How::default()).catalog
}

fn open() -> Json {
    serde_json::from_str(OPEN).unwrap()
}

fn plain() -> Ask {
    ask(json!({}), "", "")
}

fn watching(names: &str) -> Ask {
    Ask { watch: Some(names.into()), ..plain() }
}

/// Names of what changed, as `body` shows it.
fn changed<'b>(
    body: &'b Body,
    before: (&Row, &RelatedSet),
    after: (&Row, &RelatedSet),
) -> Vec<&'b str> {
    let indexes = body.changed((before.0, before.1), (after.0, after.1));
    indexes.into_iter().map(|index| body.name(index)).collect()
}

fn fingerprint(catalog: &Arc<Catalog>, who: &Principal, ask: &Ask) -> u64 {
    compile(catalog, who, ask).expect("a good question").grant
}

#[test]
fn a_change_is_one_of_what_is_shown() {
    let catalog = catalog(
        json!({ "user": { "read": { "filter": { "secret": 0 }, "fields": ["name"] } } }),
        json!({ "user": { "read": true } }),
    );
    let who = user(&[]);
    let row = blog(1, "a", 1, Some(3));
    let news = leads_to(&catalog, 1, 3, "news", 0);
    let renamed = leads_to(&catalog, 1, 3, "old", 0);
    let hidden = leads_to(&catalog, 1, 3, "news", 1);
    let other = leads_to(&catalog, 1, 4, "news", 0);
    let moved = blog(1, "a", 2, Some(4));
    let body = |select: &str| compile(&catalog, &who, &ask(json!({}), select, "")).unwrap().body;

    let all = body("");
    assert_eq!(changed(&all, (&row, &news), (&row, &renamed)), [""; 0]);
    assert_eq!(changed(&all, (&row, &news), (&row, &hidden)), ["category_id"]);
    assert_eq!(changed(&all, (&row, &hidden), (&row, &hidden)), [""; 0]);
    assert_eq!(changed(&all, (&row, &news), (&moved, &other)), ["views", "category_id"]);
    let whole = body("category");
    assert_eq!(changed(&whole, (&row, &news), (&row, &renamed)), ["category"]);
    assert_eq!(changed(&whole, (&row, &news), (&row, &hidden)), ["category"]);
    assert_eq!(changed(&whole, (&row, &news), (&moved, &other)), ["category"]);
    // The other category is called the same: what is shown is the same.
    let name = body("category.name");
    assert_eq!(changed(&name, (&row, &news), (&moved, &other)), [""; 0]);
    assert_eq!(changed(&name, (&row, &news), (&row, &renamed)), ["category"]);
    assert_eq!(name.name(99), "");
}

#[test]
fn related_records_are_compared_as_far_as_they_are_visible() {
    let catalog = catalog(
        open(),
        json!({ "user": { "read": { "filter": { "views": { "$gt": 10 } },
                                    "fields": ["title", "category"] } } }),
    );
    let ask = |select: &str| Ask {
        schema: "category".into(),
        select: Some(select.into()),
        ..Ask::default()
    };
    let plan = compile(&catalog, &user(&[]), &ask("blogs")).unwrap();
    let row = Row::new(vec![Value::Int(3), Value::Text("news".into()), Value::Null]);
    let with = |rows: &[(i64, &str, i64)]| {
        let mut set = RelatedSet::default();
        let rows = rows.iter().map(|(id, title, views)| Arc::new(blog(*id, title, *views, None)));
        let schema = catalog.named("category").unwrap();
        let key = crate::model::related::Key::Int(3);
        set.insert(schema.id, &"blogs".into(), key, rows.collect());
        set
    };
    let was = with(&[(1, "a", 11), (2, "b", 1)]);
    for (is, differs) in [
        (with(&[(1, "a", 12), (2, "b", 1)]), false),
        (with(&[(1, "a", 11), (2, "c", 2)]), false),
        (with(&[(1, "a", 11)]), false),
        (with(&[(1, "x", 11), (2, "b", 1)]), true),
        (with(&[(1, "a", 11), (2, "b", 11)]), true),
        (with(&[(2, "b", 1)]), true),
    ] {
        assert_eq!(!changed(&plan.body, (&row, &was), (&row, &is)).is_empty(), differs, "{is:?}");
    }
}

#[test]
fn what_one_side_shows_alone_has_changed() {
    let catalog = catalog(
        open(),
        json!({
            "guest": { "read": { "filter": { "views": { "$gt": 10 } }, "fields": ["title"] } },
            "user": { "read": { "filter": { "title": "mine" }, "fields": ["notes"] } }
        }),
    );
    let body = compile(&catalog, &user(&[]), &plain()).unwrap().body;
    let none = RelatedSet::default();
    let side = |title: &str, views| blog(1, title, views, None);
    for (was, is, want) in [
        (side("mine", 1), side("mine", 11), vec!["title"]),
        (side("mine", 11), side("a", 11), vec!["title", "notes"]),
        (side("a", 11), side("a", 12), vec![]),
        (side("a", 1), side("b", 2), vec![]),
    ] {
        assert_eq!(changed(&body, (&was, &none), (&is, &none)), want);
    }
}

#[test]
fn watch_names_own_fields_that_may_be_read() {
    let closed = catalog(
        json!({}),
        json!({
            "guest": { "read": { "fields": ["title", "category"] } },
            "user": { "read": { "filter": { "title": "mine" }, "fields": ["title", "views"] } }
        }),
    );
    let told = |names: &str| compile(&closed, &user(&[]), &watching(names)).unwrap_err();
    for (hidden, missing) in [("notes", "qqqqq"), ("author", "qqqqqq"), ("category", "qqqqqqqq")] {
        assert_eq!(told(hidden).replace(hidden, missing), told(missing));
        assert!(told(hidden).starts_with("invalid watch: unknown field"), "{}", told(hidden));
    }
    assert!(told("category.name").contains("own fields"), "{}", told("category.name"));
    assert!(told(" , ").contains("at least one"), "{}", told(" , "));
    assert!(told(&"a,".repeat(65)).contains("64"));

    // Only alternatives that hold what is watched count, as with a filter.
    let guest = compile(&closed, &user(&[]), &watching("title")).unwrap();
    let narrow = compile(&closed, &user(&[]), &watching("views")).unwrap();
    let (mine, other) = (blog(1, "mine", 1, None), blog(1, "a", 1, None));
    assert!(guest.matches(&other, &NoRelated) && guest.matches(&mine, &NoRelated));
    assert!(!narrow.matches(&other, &NoRelated) && narrow.matches(&mine, &NoRelated));
    assert_ne!(guest.key, narrow.key);

    let who = Principal::guest();
    let open = catalog(open(), open());
    let watch = |names: &str| compile(&open, &who, &watching(names)).unwrap();
    assert_eq!(watch("title,views").key, watch(" views , title,title").key);
    assert_ne!(watch("title").key, watch("views").key);
    assert_ne!(watch("title").key, compile(&open, &who, &plain()).unwrap().key);
    assert!(compile(&open, &who, &plain()).unwrap().watch.is_none());
}

#[test]
fn relations_are_watched_as_keys() {
    let catalog = catalog(
        json!({ "user": { "read": { "filter": { "secret": 0 }, "fields": ["name"] } } }),
        json!({ "user": { "read": true } }),
    );
    let who = user(&[]);
    let (row, moved) = (blog(1, "a", 1, Some(3)), blog(1, "b", 1, Some(4)));
    let news = leads_to(&catalog, 1, 3, "news", 0);
    let renamed = leads_to(&catalog, 1, 3, "old", 0);
    let hidden = leads_to(&catalog, 1, 3, "news", 1);
    let other = leads_to(&catalog, 1, 4, "news", 0);
    for name in ["category", "category_id"] {
        let plan = compile(&catalog, &who, &watching(name)).unwrap();
        let watch = plan.watch.as_ref().unwrap();
        assert!(plan.paths.0.contains_key("category"));
        assert!(changed(watch, (&row, &news), (&row, &renamed)).is_empty(), "{name}");
        assert!(!changed(watch, (&row, &news), (&row, &hidden)).is_empty(), "{name}");
        assert!(!changed(watch, (&row, &news), (&moved, &other)).is_empty(), "{name}");
    }
    let title = compile(&catalog, &who, &watching("title")).unwrap();
    assert_eq!(changed(title.watch.as_ref().unwrap(), (&row, &news), (&moved, &other)), ["title"]);
}

#[test]
fn reads_are_what_may_be_seen_on_the_clients_paths() {
    let catalog = catalog(
        json!({ "user": { "read": { "filter": { "secret": { "$lt": 9 } }, "fields": ["name"] } },
                "editor": { "read": true } }),
        json!({ "user": { "read": true } }),
    );
    let reads = |who: &Principal, filter: Json, select: &str| {
        compile(&catalog, who, &ask(filter, select, "")).unwrap().reads
    };
    let (who, editor) = (user(&[]), user(&["editor"]));
    assert!(reads(&who, json!({ "title": "x" }), "title").is_none());
    assert!(reads(&editor, json!({}), "").is_none());

    let row = blog(1, "a", 1, Some(3));
    let was = leads_to(&catalog, 1, 3, "news", 0);
    let renamed = leads_to(&catalog, 1, 3, "old", 0);
    let secret = leads_to(&catalog, 1, 3, "news", 1);
    let hidden = leads_to(&catalog, 1, 3, "news", 9);
    let told = |reads: &Option<Arc<Body>>, is: &RelatedSet| {
        !changed(reads.as_ref().unwrap(), (&row, &was), (&row, is)).is_empty()
    };
    for (filter, select) in [
        (json!({ "category.name": { "$neq": "x" } }), "title"),
        (json!({}), "category"),
        (json!({}), "category.name"),
    ] {
        let all = reads(&editor, filter.clone(), select);
        let some = reads(&who, filter, select);
        assert!(told(&all, &renamed) && told(&all, &secret));
        assert!(told(&some, &renamed) && !told(&some, &secret) && told(&some, &hidden));
    }
    // A key that everybody sees is read without its record.
    assert!(reads(&editor, json!({ "category": 3 }), "").is_none());
    // Nothing but the key is shown of the category: only whether it may be seen matters.
    let key = reads(&who, json!({}), "");
    assert!(!told(&key, &renamed) && told(&key, &hidden));
}

#[test]
fn reads_leave_out_what_only_rules_read() {
    let catalog = catalog(
        open(),
        json!({ "guest": { "read": { "filter": { "category.secret": 0 } } },
                "user": { "read": { "filter": { "category.name": "news" }, "fields": ["views"] } } }),
    );
    let plan = compile(&catalog, &Principal::guest(), &ask(json!({}), "title,views", "")).unwrap();
    let row = blog(1, "a", 1, Some(3));
    let (was, is) = (leads_to(&catalog, 1, 3, "x", 0), leads_to(&catalog, 1, 3, "y", 0));
    assert!(changed(plan.reads.as_ref().unwrap(), (&row, &was), (&row, &is)).is_empty());
    // But a rule that now shows more of the record itself has changed what is seen of it.
    let plan = compile(&catalog, &user(&[]), &ask(json!({}), "title,views", "")).unwrap();
    let (was, is) = (leads_to(&catalog, 1, 3, "news", 1), leads_to(&catalog, 1, 3, "news", 0));
    let reads = plan.reads.as_ref().unwrap();
    assert_eq!(changed(reads, (&row, &was), (&row, &is)), ["title"]);
}

#[test]
fn plans_that_read_otherwise_have_other_keys() {
    let catalog = catalog(
        json!({ "user": { "read": { "fields": ["name"] } }, "editor": { "read": true } }),
        json!({ "user": { "read": true } }),
    );
    let plan = |who: &Principal| {
        compile(&catalog, who, &ask(json!({ "category.name": "x" }), "title", "")).unwrap()
    };
    let (one, other): (Plan, Plan) = (plan(&user(&[])), plan(&user(&["editor"])));
    assert_eq!(one.body.key, other.body.key);
    assert_ne!(one.key, other.key);
    assert_eq!(one.key, plan(&user(&["else"])).key);
}

/// What a record was before it could be seen must not show in `changed` or `watch`, not even where
/// filter and grant come to the same.
#[test]
fn plans_of_other_grants_have_other_keys_though_their_filters_are_equal() {
    let one = json!({ "views": 1 });
    let rules = json!({ "user": { "read": { "filter": one } }, "editor": { "read": true } });
    let catalog = catalog(json!({ "user": { "read": true } }), rules);
    let plan =
        |who: &Principal, filter: Json| compile(&catalog, who, &ask(filter, "title", "")).unwrap();
    let (narrow, wide) = (plan(&user(&[]), json!({})), plan(&Principal::owner(), one.clone()));
    assert_eq!((&narrow.filter, &narrow.body.key), (&wide.filter, &wide.body.key));
    let before = blog(1, "a", 0, None);
    assert!(wide.shows(&before, &NoRelated) && !narrow.shows(&before, &NoRelated));
    assert_ne!(narrow.key, wide.key);
}

/// Fingerprints are kept by clients: another one for the same grant would refuse every cursor
/// there is.
#[test]
fn fingerprints_are_the_same_in_every_process_and_release() {
    let rules = json!({ "user": { "read": { "filter": { "author": "$user.id" } } } });
    let catalog = catalog(open(), rules);
    let select = ask(json!({}), "title", "");
    assert_eq!(fingerprint(&catalog, &user(&[]), &select), 10_830_425_732_564_473_079);
}

#[test]
fn fingerprints_outlive_renames_and_added_columns() {
    let rules = |title: &str| {
        json!({
            "guest": { "read": { "filter": { title: { "$like": "a%" } }, "fields": [title, "views"] } },
            "user": { "read": { "filter": { "$or": [{ "author": "$user.id" }, { title: "x" }] } } }
        })
    };
    let category = json!({ "user": { "read": { "filter": { "name": "news" } } } });
    let before = files(category.clone(), rules("title"), "title", &[]);
    let before = migrated(&Stored::default(), &before, &How::default());
    let more = json!({ "name": "extra", "label": "Extra", "type": "int", "optional": true });
    let after = files(category, rules("headline"), "headline", &[more]);
    let rename = Rename { schema: "blog".into(), from: "title".into(), to: "headline".into() };
    let after = migrated(&before, &after, &How { fields: vec![rename], ..How::default() });
    let extra = |stored: &Stored| stored.catalog.named("blog").unwrap().field("extra").is_some();
    assert!(!extra(&before) && extra(&after));
    for who in [Principal::guest(), user(&[]), Principal::owner()] {
        for (filter, select) in [
            (json!({}), ""),
            (json!({ "views": 1 }), "views"),
            (json!({ "category.name": "x" }), "views"),
        ] {
            let ask = ask(filter, select, "");
            let Ok(plan) = compile(&before.catalog, &who, &ask) else { continue };
            assert_eq!(plan.grant, fingerprint(&after.catalog, &who, &ask), "{ask:?}");
        }
    }
}

#[test]
fn fingerprints_tell_what_may_be_read_and_not_what_is_asked() {
    let who = user(&[]);
    let number =
        |category: Json, blog: Json, ask: &Ask| fingerprint(&catalog(category, blog), &who, ask);
    let title = ask(json!({}), "title", "");
    let through = ask(json!({ "category.name": "x" }), "title", "");
    let rule = |filter: Json, fields: Json| {
        let mut read = json!({ "filter": filter });
        if !fields.is_null() {
            read["fields"] = fields;
        }
        json!({ "user": { "read": read } })
    };
    // Unrestricted, by whatever rule.
    for open in [open(), json!({ "user": { "read": true } })] {
        assert_eq!(number(open.clone(), open.clone(), &title), 0);
        assert_eq!(number(open.clone(), open, &through), 0);
    }
    let mut all = vec![
        number(open(), rule(json!({ "views": 1 }), json!(null)), &title),
        number(open(), rule(json!({ "views": 2 }), json!(null)), &title),
        number(open(), rule(json!({ "views": 1 }), json!(["title"])), &title),
        number(open(), rule(json!({ "views": 1 }), json!(["title", "notes"])), &title),
        number(open(), rule(json!({}), json!(["title"])), &title),
        number(open(), rule(json!({ "author": "$user.id" }), json!(null)), &title),
        number(open(), rule(json!({ "category.name": "x" }), json!(null)), &title),
        number(rule(json!({}), json!(["name"])), open(), &through),
        number(rule(json!({ "secret": 1 }), json!(null)), open(), &through),
        number(json!({}), open(), &plain()),
        0,
    ];
    // What is not on the way does not count.
    assert_eq!(number(json!({}), open(), &title), 0);
    let narrow = number(json!({}), rule(json!({ "views": 1 }), json!(null)), &title);
    assert_eq!(narrow, all[0]);
    // The order of rules and of a rule's fields changes nothing that is seen.
    let two = |names: [&str; 2]| {
        let rules: serde_json::Map<String, Json> = names
            .iter()
            .map(|name| {
                (
                    name.to_string(),
                    json!({ "read": { "fields": [
                if *name == "user" { "title" } else { "notes" }, "views"] } }),
                )
            })
            .collect();
        number(open(), rules.into(), &title)
    };
    assert_eq!(two(["user", "guest"]), two(["guest", "user"]));

    let rules = catalog(
        rule(json!({ "secret": 1 }), json!(null)),
        rule(json!({ "author": "$user.id" }), json!(null)),
    );
    let of = |who: &Principal, filter: Json, select: &str| {
        fingerprint(&rules, who, &ask(filter, select, ""))
    };
    let other = Principal { user: Some(uuid::Uuid::from_u128(8)), ..user(&[]) };
    assert_ne!(of(&who, json!({}), "title"), of(&other, json!({}), "title"));
    for filter in [json!({}), json!({ "title": "x" }), json!({ "views": { "$gt": 3 } })] {
        for select in ["title", "views", "notes,title"] {
            assert_eq!(of(&who, filter.clone(), select), of(&who, json!({}), "title"));
        }
    }
    let related = of(&who, json!({}), "category");
    assert_eq!(of(&who, json!({ "category.secret": 1 }), "title"), related);
    assert_eq!(of(&who, json!({ "category": 3 }), "views"), related);
    all.push(related);
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
    let owner: HashMap<&str, u64> = ["", "title", "category", "category.name"]
        .into_iter()
        .map(|select| (select, of(&Principal::owner(), json!({}), select)))
        .collect();
    assert!(owner.values().all(|number| *number == 0), "{owner:?}");
}
