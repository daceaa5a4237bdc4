//! Writes through the content commands: what they change, what the log tells, who may.

mod bounds;
mod imports;
mod lanes;
mod rules;
#[path = "../support/world.rs"]
mod world;
mod writes;

use rowcast::auth::principal::Principal;
use rowcast::model::change::Op;
use serde_json::Value as Json;
use world::World;

fn admin() -> Principal {
    Principal::owner()
}

/// A schema of the REST fixtures, with access rules.
fn schema(name: &str, access: Json) -> Json {
    let path = format!("{}/fixtures/rest/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let mut schema: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    if !access.is_null() {
        schema["access"] = access;
    }
    schema
}

fn blog(post: Json, category: Json, tag: Json, comment: Json) -> World {
    World::open(&[
        schema("post", post),
        schema("category", category),
        schema("tag", tag),
        schema("comment", comment),
    ])
}

fn changed(schema: &str, op: Op, key: impl Into<Json>) -> (String, Op, Json) {
    (schema.into(), op, key.into())
}
