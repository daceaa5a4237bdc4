//! A small world of schemas built by hand: `tag`s, `category`s (a tree by `parent`), `blog`s with
//! an optional category, a required `author` (a `person` by UUID), tags and see-also links.

use std::sync::{Arc, Mutex};

use rowcast::model::catalog::Catalog;
use rowcast::model::change::Commit;
use rowcast::model::schema::*;
use rowcast::model::value::{FieldType, Value};
use rowcast::store::{CommitSink, Options, Store};

pub const TAG: SchemaId = SchemaId(1);
pub const CATEGORY: SchemaId = SchemaId(2);
pub const BLOG: SchemaId = SchemaId(3);
pub const PERSON: SchemaId = SchemaId(4);
pub const BLOG_TAGS: SchemaId = SchemaId(5);
pub const SEE_ALSO: SchemaId = SchemaId(6);

pub fn column(id: u32, name: &str, ty: FieldType) -> Column {
    Column {
        id: FieldId(id),
        name: name.into(),
        ty,
        optional: false,
        unique: false,
        default: None,
        sortable: true,
        filterable: true,
        enums: Vec::new(),
        size: None,
        automatic: false,
        key_of: None,
    }
}

fn automatic(id: u32, ty: FieldType) -> Column {
    Column { automatic: true, ..column(id, "id", ty) }
}

fn key(id: u32, name: &str, ty: FieldType, of: usize, optional: bool) -> Column {
    Column { key_of: Some(of), optional, ..column(id, name, ty) }
}

fn relation(
    id: u32,
    name: &str,
    kind: RelationKind,
    target: SchemaId,
    back: &str,
    shape: Shape,
) -> Relation {
    let optional = true;
    Relation {
        id: FieldId(id),
        name: name.into(),
        kind,
        target,
        back: back.into(),
        optional,
        shape,
    }
}

fn schema(id: SchemaId, name: &str, columns: Vec<Column>, relations: Vec<Relation>) -> Schema {
    let at = |name: &str| columns.iter().position(|column| &*column.name == name);
    Schema {
        id,
        version: 1,
        name: name.into(),
        table: format!("{name}s").into(),
        label_field: "id".into(),
        primary: 0,
        created_at: at("created_at"),
        updated_at: at("updated_at"),
        columns,
        relations,
        indexes: Vec::new(),
        access: AccessRules::default(),
        kind: SchemaKind::User,
        source: Arc::default(),
    }
}

/// `tag(id, name)`, `category(id, name, parent_id, updated_at)`, `person(id, name)`,
/// `blog(id, title, slug, category_id, author_id, updated_at)`.
pub fn catalog(version: u64) -> Catalog {
    use FieldType::*;
    use RelationKind::*;
    let tag = schema(
        TAG,
        "tag",
        vec![automatic(1, Uint64), Column { unique: true, ..column(2, "name", String) }],
        vec![relation(
            3,
            "blogs",
            M2M,
            BLOG,
            "tags",
            Shape::Link { junction: BLOG_TAGS, own: 2, other: 1 },
        )],
    );
    let category = schema(
        CATEGORY,
        "category",
        vec![
            automatic(4, Uint64),
            column(5, "name", String),
            key(6, "parent_id", Uint64, 0, true),
            column(7, "updated_at", Time),
        ],
        vec![
            relation(6, "parent", O2M, CATEGORY, "children", Shape::Key { slot: 2 }),
            relation(8, "children", O2M, CATEGORY, "parent", Shape::Many { slot: 2 }),
            relation(9, "blogs", O2M, BLOG, "category", Shape::Many { slot: 3 }),
        ],
    );
    let blog = schema(
        BLOG,
        "blog",
        vec![
            automatic(10, Uint64),
            column(11, "title", String),
            Column { unique: true, optional: true, ..column(12, "slug", String) },
            key(13, "category_id", Uint64, 0, true),
            key(14, "author_id", Uuid, 1, false),
            column(15, "updated_at", Time),
        ],
        vec![
            relation(13, "category", O2M, CATEGORY, "blogs", Shape::Key { slot: 3 }),
            relation(14, "author", O2M, PERSON, "blogs", Shape::Key { slot: 4 }),
            relation(
                16,
                "tags",
                M2M,
                TAG,
                "blogs",
                Shape::Link { junction: BLOG_TAGS, own: 1, other: 2 },
            ),
            relation(
                17,
                "see_also",
                M2M,
                BLOG,
                "see_also",
                Shape::Link { junction: SEE_ALSO, own: 1, other: 2 },
            ),
        ],
    );
    let person = schema(
        PERSON,
        "person",
        vec![automatic(18, Uuid), column(19, "name", String)],
        vec![relation(20, "blogs", O2M, BLOG, "author", Shape::Many { slot: 4 })],
    );
    let junction = |id, name: &str, field: u32, other: &str| {
        let columns = vec![
            automatic(field, Uint64),
            column(field + 1, "blog_id", Uint64),
            column(field + 2, other, Uint64),
        ];
        Schema { kind: SchemaKind::Junction, ..schema(id, name, columns, Vec::new()) }
    };
    let blog_tags = junction(BLOG_TAGS, "blog_tag", 21, "tag_id");
    let see_also = junction(SEE_ALSO, "see_also", 24, "other_id");
    let all = [tag, category, blog, person, blog_tags, see_also];
    Catalog::new(version, all.into_iter().map(Arc::new).collect())
}

pub const TABLES: &str = "
    CREATE TABLE tags (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE categorys (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,
        parent_id INTEGER REFERENCES categorys, updated_at INTEGER NOT NULL) STRICT;
    CREATE INDEX categorys_parent ON categorys (parent_id);
    CREATE TABLE persons (id BLOB PRIMARY KEY, name TEXT NOT NULL) STRICT;
    CREATE TABLE blogs (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL,
        slug TEXT UNIQUE, category_id INTEGER REFERENCES categorys,
        author_id BLOB NOT NULL REFERENCES persons, updated_at INTEGER NOT NULL) STRICT;
    CREATE INDEX blogs_category ON blogs (category_id);
    CREATE INDEX blogs_author ON blogs (author_id);
    CREATE TABLE blog_tags (id INTEGER PRIMARY KEY AUTOINCREMENT,
        blog_id INTEGER NOT NULL REFERENCES blogs, tag_id INTEGER NOT NULL REFERENCES tags,
        UNIQUE (blog_id, tag_id)) STRICT;
    CREATE INDEX blog_tags_tag ON blog_tags (tag_id);
    CREATE TABLE see_alsos (id INTEGER PRIMARY KEY AUTOINCREMENT,
        blog_id INTEGER NOT NULL REFERENCES blogs, other_id INTEGER NOT NULL REFERENCES blogs,
        UNIQUE (blog_id, other_id)) STRICT;
    CREATE INDEX see_alsos_other ON see_alsos (other_id);";

/// Keeps every commit it is told.
#[derive(Clone, Default)]
pub struct Told(pub Arc<Mutex<Vec<Arc<Commit>>>>);

impl CommitSink for Told {
    fn committed(&mut self, commits: &[Arc<Commit>]) {
        self.0.lock().unwrap().extend_from_slice(commits);
    }
}

/// An open store with the schemas in it, and what its sink was told.
pub fn open(options: Options) -> (Store, Told) {
    let told = Told::default();
    let store = Store::open(options, Box::new(told.clone())).unwrap_or_else(|e| panic!("{e}"));
    if store.catalog().version == 0 {
        store.write_blocking(|tx| tx.lay_out(TABLES, Arc::new(catalog(1)))).unwrap();
        told.0.lock().unwrap().clear();
    }
    (store, told)
}

pub fn text(text: &str) -> Value {
    Value::Text(text.into())
}
