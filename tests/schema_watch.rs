//! The schemas folder over a real store: what is saved there is served, what is not good is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rowcast::auth::principal::Principal;
use rowcast::model::change::Commit;
use rowcast::schemas::{Rename, Service, check_dir};
use rowcast::store::{CommitSink, Options, Store};
use serde_json::{Value as Json, json};

/// A second is promised and a quarter of it taken; a machine that runs other tests may need longer.
const SOON: Duration = Duration::from_secs(4);

struct Ignore;

impl CommitSink for Ignore {
    fn committed(&mut self, _: &[Arc<Commit>]) {}
}

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("schemas")).unwrap();
        Place { root }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("schemas")
    }

    fn save(&self, name: &str, schema: &Json) {
        let text = serde_json::to_string_pretty(schema).unwrap();
        std::fs::write(self.dir().join(format!("{name}.json")), text).unwrap();
    }

    fn file(&self, name: &str) -> Option<Json> {
        let text = std::fs::read_to_string(self.dir().join(format!("{name}.json"))).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn store(&self) -> Store {
        Store::open(Options::new(self.root.path().join("data")), Box::new(Ignore)).unwrap()
    }

    async fn open(&self) -> (Store, Arc<Service>) {
        let store = self.store();
        let service = Service::open(store.clone(), self.dir()).await.unwrap();
        (store, service)
    }
}

fn note() -> Json {
    json!({"name": "note", "namespace": "notes", "label_field": "text",
           "fields": [{"name": "text", "type": "string"}]})
}

fn with_field(mut schema: Json, field: Json) -> Json {
    schema["fields"].as_array_mut().unwrap().push(field);
    schema
}

fn serves(store: &Store, name: &str, field: &str) -> bool {
    store.catalog().named(name).is_some_and(|schema| schema.field(field).is_some())
}

async fn soon(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{what}: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_changed_bad_and_removed_files() {
    let place = Place::new();
    let (store, service) = place.open().await;
    place.save(
        "early",
        &json!({"name": "early", "namespace": "earlies", "label_field": "text",
        "fields": [{"name": "text", "type": "string"}]}),
    );
    let _watch = service.watch();
    soon("a file saved before the watch began", || serves(&store, "early", "text")).await;

    place.save("note", &note());
    soon("a new file", || serves(&store, "note", "text")).await;

    // As editors do: a temporary file, then a rename.
    let wider = with_field(note(), json!({"name": "stars", "type": "int8", "optional": true}));
    let temporary = place.dir().join(".note.json.swp");
    std::fs::write(&temporary, wider.to_string()).unwrap();
    std::fs::rename(&temporary, place.dir().join("note.json")).unwrap();
    soon("a changed file", || serves(&store, "note", "stars")).await;

    std::fs::write(place.dir().join("note.json"), "{\"name\": \"note\",").unwrap();
    soon("a bad file", || !service.report().is_good()).await;
    assert!(serves(&store, "note", "stars"), "the last good version is served");
    assert_eq!(service.report().kept, ["note"]);

    // A bad file holds nothing else back.
    let other = json!({"name": "other", "namespace": "others", "label_field": "id", "fields": []});
    place.save("other", &other);
    soon("a good file beside a bad one", || serves(&store, "other", "id")).await;
    assert!(!service.report().is_good());

    place.save("note", &wider);
    soon("a mended file", || service.report().is_good()).await;

    std::fs::remove_file(place.dir().join("note.json")).unwrap();
    soon("a removed file", || store.catalog().named("note").is_none()).await;

    std::fs::rename(place.dir(), place.root.path().join("elsewhere")).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(serves(&store, "other", "id"), "an unreadable folder removes nothing");
    std::fs::rename(place.root.path().join("elsewhere"), place.dir()).unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    place.save("note", &wider);
    soon("a file in the folder that came back", || serves(&store, "note", "stars")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_writes_the_files() {
    let place = Place::new();
    let (store, service) = place.open().await;
    let _watch = service.watch();
    let admin = Principal::owner();
    let tag = json!({"name": "tag", "namespace": "tags", "label_field": "name",
                     "fields": [{"name": "name", "type": "string", "unique": true}]});
    service.create(&admin, tag).await.unwrap();
    let with_tags = with_field(
        note(),
        json!({"name": "tags", "type": "relation", "optional": true,
               "relation": {"schema": "tag", "field": "notes", "type": "m2m", "owner": true}}),
    );
    let shown = service.create(&admin, with_tags.clone()).await.unwrap();
    let names: Vec<&str> =
        shown["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["id", "text", "tags", "created_at", "updated_at"]);
    assert_eq!(place.file("note").unwrap(), with_tags);
    let tag = place.file("tag").unwrap();
    assert_eq!(tag["fields"][1]["name"], "notes", "the way back is added: {tag}");

    // What GET shows can be sent back by PUT.
    let version = store.catalog().version;
    service.update(&admin, "note", shown, vec![], vec![]).await.unwrap();
    assert_eq!(place.file("note").unwrap()["fields"].as_array().unwrap().len(), 2);

    let mut renamed = place.file("note").unwrap();
    renamed["name"] = "memo".into();
    renamed["namespace"] = "memos".into();
    renamed["fields"][1]["name"] = "labels".into();
    let fields = vec![Rename { from: "tags".into(), to: "labels".into() }];
    let tables = vec![Rename { from: "notes".into(), to: "memos".into() }];
    service.update(&admin, "note", renamed, fields, tables).await.unwrap();
    assert!(place.file("note").is_none());
    assert_eq!(place.file("memo").unwrap()["fields"][1]["name"], "labels");
    let tag = place.file("tag").unwrap();
    assert_eq!(
        tag["fields"][1]["relation"],
        json!({"schema": "memo", "field": "labels", "type": "m2m"})
    );
    assert!(store.catalog().named("note").is_none() && serves(&store, "memo", "labels"));

    let refused = service.delete(&admin, "tag").await.unwrap_err();
    assert_eq!(refused.status(), 409, "{refused}");
    assert!(refused.message.contains("memo.labels"), "{refused}");

    let mut bare = place.file("memo").unwrap();
    bare["fields"].as_array_mut().unwrap().pop();
    let refused = service.update(&admin, "memo", bare.clone(), vec![], vec![]).await.unwrap_err();
    assert_eq!(refused.status(), 422);
    assert_eq!(refused.problems[0].code, "migrate.data_loss", "{:?}", refused.problems);
    bare["accept_data_loss"] = json!(["labels"]);
    service.update(&admin, "memo", bare, vec![], vec![]).await.unwrap();
    assert_eq!(place.file("tag").unwrap()["fields"].as_array().unwrap().len(), 1);
    assert!(place.file("memo").unwrap().get("accept_data_loss").is_none());
    service.delete(&admin, "tag").await.unwrap();
    assert!(place.file("tag").is_none() && store.catalog().named("tag").is_none());

    // None of this came back through the watched folder as a change of its own.
    let after = store.catalog().version;
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(store.catalog().version, after);
    assert!(after > version);
    assert!(service.report().is_good(), "{}", service.report());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_see_what_they_may_read() {
    let place = Place::new();
    for name in ["blog", "category", "earthquake", "movie"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{name}.json"));
        std::fs::copy(from, place.dir().join(format!("{name}.json"))).unwrap();
    }
    let (_store, service) = place.open().await;
    assert!(service.report().is_good(), "{}", service.report());
    let admin = service.list(&Principal::owner()).unwrap();
    let names: Vec<&str> =
        admin.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["blog", "category", "earthquake", "movie", "role", "user"]);
    let guest = service.get(&Principal::guest(), "blog").unwrap();
    let fields: Vec<&str> =
        guest["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "id",
            "title",
            "content",
            "status",
            "views",
            "tags",
            "category",
            "category_id",
            "created_at",
            "updated_at"
        ]
    );
    assert!(guest.get("access").is_none() && guest.get("db").is_none());
    assert_eq!(service.get(&Principal::guest(), "user").unwrap_err().status(), 401);
    assert_eq!(service.get(&Principal::guest(), "nothing").unwrap_err().status(), 401);
    let user = Principal { logged_in: true, ..Principal::default() };
    assert_eq!(service.get(&user, "nothing").unwrap_err().status(), 404);
    let shown = service.get(&user, "user").unwrap();
    assert_eq!(shown["fields"].as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(service.create(&user, note()).await.unwrap_err().status(), 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_finishes_what_could_not_be_written() {
    let place = Place::new();
    // A directory that is not empty stands where the file must go: the change is committed, its
    // file is not.
    let block = |name: &str| {
        std::fs::create_dir_all(place.dir().join(format!("{name}.json/in the way"))).unwrap();
    };
    let clear = |name: &str| {
        std::fs::remove_dir_all(place.dir().join(format!("{name}.json"))).unwrap();
    };
    let admin = Principal::owner();
    {
        let (store, service) = place.open().await;
        block("note");
        let error = service.create(&admin, note()).await.unwrap_err();
        assert_eq!(error.status(), 503, "{error}");
        assert!(serves(&store, "note", "text"), "what is committed is served");
        clear("note");
    }
    {
        let (store, service) = place.open().await;
        assert!(service.report().is_good(), "{}", service.report());
        assert!(serves(&store, "note", "text"));
        assert_eq!(place.file("note").unwrap(), note());
        block("memo");
        let mut memo = note();
        memo["name"] = "memo".into();
        service.update(&admin, "note", memo, vec![], vec![]).await.unwrap_err();
        assert!(place.file("note").is_some() && serves(&store, "memo", "text"));
        clear("memo");
    }
    let (store, service) = place.open().await;
    assert!(service.report().is_good(), "{}", service.report());
    assert!(place.file("note").is_none());
    assert_eq!(place.file("memo").unwrap()["name"], "memo");
    assert!(serves(&store, "memo", "text") && store.catalog().named("note").is_none());
}

#[test]
fn the_shipped_schemas_are_good() {
    let report = check_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")).unwrap();
    assert!(report.is_good() && report.warnings.is_empty(), "{report}");
    assert_eq!(report.schemas, ["blog", "category", "earthquake", "movie"]);
}
