//! Random schemas' worth of records: few values, so that equal ones meet, and many nulls.

use rowcast::model::schema::Schema;
use rowcast::model::value::FieldType;
use serde_json::{Map, Value as Json, json};

use crate::tables::Tables;

/// Records of `node`, the schema most filters are about.
pub const NODES: usize = 10;

/// SplitMix64: small, good enough, the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const ENUMS: [&str; 3] = ["draft", "published", "in review"];

pub fn world(random: &mut Random) -> Tables {
    let relation = |name: &str, schema: &str, back: &str, kind: &str, owner: bool| {
        json!({"type": "relation", "name": name, "label": name, "optional": true,
               "relation": {"schema": schema, "field": back, "type": kind, "owner": owner,
                            "optional": true}})
    };
    let columns = || -> Vec<Json> {
        let column = |(ty, _): (&str, FieldType)| {
            let mut field = json!({"type": ty, "name": format!("a_{ty}"), "label": ty,
                                   "optional": true});
            if ty == "enum" {
                let words = ENUMS.map(|word| json!({"value": word, "label": word}));
                field["enums"] = words.as_slice().into();
            }
            field
        };
        FieldType::NAMES.into_iter().map(column).collect()
    };
    let schema = |name: &str, relations: &[Json]| {
        let mut fields = columns();
        fields.extend_from_slice(relations);
        json!({"name": name, "namespace": format!("{name}s"), "label_field": "a_string",
               "disable_timestamp": true, "fields": fields})
    };
    let mut badge = schema(
        "badge",
        &[
            relation("node", "node", "badge", "o2o", false),
            relation("tags", "tag", "badge", "o2m", true),
        ],
    );
    let key = json!({"type": "uuid", "name": "id", "label": "id", "db": {"key": "PRI"}});
    badge["fields"].as_array_mut().expect("fields").push(key);
    let mut tables = Tables::new(&[
        schema(
            "node",
            &[
                relation("parent", "node", "children", "o2m", false),
                relation("children", "node", "parent", "o2m", true),
                relation("tags", "tag", "nodes", "m2m", true),
                relation("badge", "badge", "node", "o2o", true),
            ],
        ),
        schema(
            "tag",
            &[
                relation("nodes", "node", "tags", "m2m", false),
                relation("badge", "badge", "tags", "o2m", false),
            ],
        ),
        badge,
    ]);
    let record = |random: &mut Random, schema: &Schema, id: Json| {
        let mut record = Map::from_iter([("id".to_owned(), id)]);
        for column in schema.columns.iter().filter(|column| column.name.starts_with("a_")) {
            if random.chance(75) {
                record.insert(column.name.to_string(), literal(random, column.ty));
            }
        }
        record
    };
    let (node, tag, badge) = (tables.schema("node"), tables.schema("tag"), tables.schema("badge"));
    // Each node may have one badge; some badges lie about.
    for index in 0..6 {
        let mut badge = record(random, &badge, json!(uuid(index)));
        if random.chance(70) {
            badge.insert("node".to_owned(), json!(index + 1));
        }
        tables.insert("badge", &badge.into());
    }
    for id in 1..=6 {
        let mut tag = record(random, &tag, json!(id));
        if random.chance(60) {
            tag.insert("badge".to_owned(), json!(uuid(random.below(6))));
        }
        tables.insert("tag", &tag.into());
    }
    for id in 1..=NODES {
        let mut node = record(random, &node, json!(id));
        if random.chance(70) {
            node.insert("parent".to_owned(), json!(random.below(NODES) + 1));
        }
        let tags: Vec<usize> = (1..=6).filter(|_| random.chance(30)).collect();
        node.insert("tags".to_owned(), json!(tags));
        tables.insert("node", &node.into());
    }
    tables
}

pub fn uuid(index: usize) -> String {
    format!("0190163d-8694-739b-aea5-{:012x}", [0x2a_u64, 0xffff, 1, 0x80_0000_0000, 7, 9][index])
}

/// A value of the type out of a few, so that equal ones meet.
pub fn literal(random: &mut Random, ty: FieldType) -> Json {
    let one = |random: &mut Random, from: &[Json]| from[random.below(from.len())].clone();
    if let Some((least, most)) = ty.int_range() {
        let far = most.min(9_007_199_254_740_993);
        return one(
            random,
            &[json!(least), json!(0), json!(5), json!(far - 1), json!(far), json!(most)],
        );
    }
    match ty {
        FieldType::Bool => json!(random.chance(50)),
        FieldType::Float32 => one(random, &[json!(0), json!(0.1), json!(-1.5), json!(3.4e38)]),
        FieldType::Float64 => {
            one(random, &[json!(0), json!(0.1), json!(-1.5), json!(1e300), json!(7)])
        }
        FieldType::Enum => json!(random.pick(&ENUMS)),
        FieldType::Uuid => json!(uuid(random.below(6))),
        FieldType::Time => one(
            random,
            &[
                json!("2024-02-29"),
                json!("2024-02-29T01:00:00+01:00"),
                json!("1969-12-31T23:59:59.9999999Z"),
                json!("0001-01-01"),
                json!("9999-12-31 23:59:59"),
            ],
        ),
        FieldType::Json => one(
            random,
            &[
                json!(1),
                json!(1.0),
                json!([1, null]),
                json!({"b": 1, "a": "x"}),
                json!("x"),
                json!(false),
            ],
        ),
        FieldType::Bytes => one(random, &[json!(""), json!("AA=="), json!("AAEC"), json!("/+8=")]),
        _ => json!(word(random)),
    }
}

/// Text over an alphabet in which patterns, escapes and letter case mean something.
pub fn word(random: &mut Random) -> String {
    (0..random.below(5))
        .map(|_| *random.pick(&[&'a', &'b', &'B', &'é', &'É', &'%', &'_', &'\n']))
        .collect()
}

pub fn pattern(random: &mut Random) -> String {
    let pieces = ["a", "b", "B", "é", "%", "%", "_", "\\%", "\\_", "\\\\", "\n"];
    (0..random.below(5)).map(|_| random.pick(&pieces)).collect()
}
