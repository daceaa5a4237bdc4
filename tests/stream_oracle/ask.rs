//! What subscribers ask: random filters and projections, through relations and not.

use serde_json::{Value as Json, json};

use crate::common::encode;
use crate::rng::Rng;
use crate::world::{self, SCHEMAS};

/// What is asked; subscribers of several kinds ask the same.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose place among the people.
    pub who: usize,
    pub schema: &'static str,
    pub filter: Json,
    pub select: String,
    pub id: Option<i64>,
}

impl Question {
    pub fn random(rng: &mut Rng, people: usize) -> Question {
        let schema = if rng.chance(55) { "item" } else { *rng.pick(&SCHEMAS) };
        let filter = if rng.chance(15) { json!({}) } else { filter(rng, schema, 2) };
        let id = rng.chance(8).then(|| 1 + rng.below(12) as i64);
        Question { who: rng.below(people), schema, filter, select: select(rng, schema), id }
    }

    /// The parameters of a subscription.
    pub fn query(&self) -> String {
        let mut query =
            format!("schema={}&filter={}", self.schema, encode(&self.filter.to_string()));
        if !self.select.is_empty() {
            query += &format!("&select={}", encode(&self.select));
        }
        if let Some(id) = self.id {
            query += &format!("&id={id}");
        }
        query
    }

    /// The parameters of a list of the same records.
    pub fn list(&self, page: usize) -> String {
        let filter = match self.id {
            Some(id) => json!({ "$and": [self.filter, { "id": id }] }),
            None => self.filter.clone(),
        };
        let mut query =
            format!("filter={}&sort=id&limit=200&page={page}", encode(&filter.to_string()));
        if !self.select.is_empty() {
            query += &format!("&select={}", encode(&self.select));
        }
        query
    }
}

fn filter(rng: &mut Rng, schema: &str, depth: usize) -> Json {
    let shape = if depth == 0 { 0 } else { rng.below(10) };
    match shape {
        0..6 => leaf(rng, schema),
        6 => json!({ "$not": filter(rng, schema, depth - 1) }),
        7 => json!({ "$and": [filter(rng, schema, depth - 1), filter(rng, schema, depth - 1)] }),
        _ => json!({ "$or": [filter(rng, schema, depth - 1), filter(rng, schema, depth - 1)] }),
    }
}

fn leaf(rng: &mut Rng, schema: &str) -> Json {
    let numbers: &[&str] = match schema {
        "item" => &[
            "n",
            "n",
            "n",
            "group.rank",
            "lead.level",
            "tags.weight",
            "kin.n",
            "kin_of.n",
            "group.parent.rank",
            "lead.boss.level",
            "kin.tags.weight",
            "group.head.level",
        ],
        "group" => &[
            "rank",
            "rank",
            "items.n",
            "parent.rank",
            "children.rank",
            "head.level",
            "items.tags.weight",
            "items.lead.level",
        ],
        "person" => &[
            "level",
            "level",
            "boss.level",
            "staff.level",
            "leads.n",
            "heads.rank",
            "leads.tags.weight",
            "boss.boss.level",
        ],
        _ => &["weight", "weight", "items.n", "items.group.rank", "items.lead.level"],
    };
    let others: &[&str] = match schema {
        "item" => &["state", "group", "tags", "owner", "group.open", "kin", "title", "lead.name"],
        "group" => &["open", "parent", "items.state", "head", "name"],
        "person" => &["boss", "heads.open", "leads.state", "name"],
        _ => &["items", "items.state", "items.group.open", "name"],
    };
    if rng.chance(60) {
        let field = *rng.pick(numbers);
        let test = match rng.below(8) {
            0 => json!({ "$in": [rng.below(10), rng.below(10), rng.below(50)] }),
            1 => json!({ "$nin": [rng.below(10), rng.below(10)] }),
            2 => json!({ "$null": rng.chance(50) }),
            3 => json!({ "$neq": rng.below(10) }),
            4 | 5 => json!({ "$lt": rng.below(40) }),
            _ => json!({ "$gt": rng.below(15) }),
        };
        return json!({ field: test });
    }
    let field = *rng.pick(others);
    let test = match field.rsplit('.').next().unwrap_or_default() {
        "state" => match rng.below(3) {
            0 => json!({ "$neq": "open" }),
            1 => json!({ "$in": ["open", "void"] }),
            _ => world::state(rng),
        },
        "open" => json!(rng.chance(70)),
        "name" | "title" => match rng.below(3) {
            0 => json!({ "$contains": "a" }),
            1 => json!({ "$like": "%b_%" }),
            _ => json!({ "$notcontains": "c" }),
        },
        "owner" => rng.pick(&[Json::Null, json!({ "$null": false })]).clone(),
        _ => match rng.below(3) {
            0 => Json::Null,
            1 => json!({ "$in": [1, 2, 3, 1 + rng.below(9)] }),
            _ => json!({ "$null": false }),
        },
    };
    json!({ field: test })
}

fn select(rng: &mut Rng, schema: &str) -> String {
    if rng.chance(25) {
        return String::new();
    }
    let own: &[&str] = match schema {
        "item" => &["title", "n", "state", "note", "group_id", "lead_id", "updated_at"],
        "group" => &["name", "rank", "open", "parent_id", "updated_at"],
        "person" => &["name", "level", "boss_id", "heads_id"],
        _ => &["name", "weight"],
    };
    let related: &[&str] = match schema {
        "item" => &[
            "group",
            "group.name",
            "lead.name",
            "lead",
            "tags",
            "tags.name",
            "kin.n",
            "kin_of",
            "group.head.name",
            "group.parent",
            "owner.username",
            "kin.tags.name",
            "lead.boss",
        ],
        "group" => &["items.title", "items", "parent", "children.name", "head", "items.tags"],
        "person" => &["boss.name", "staff", "leads.title", "heads", "leads.group", "boss.boss"],
        _ => &["items.title", "items", "items.group.name", "items.lead"],
    };
    let mut names = rng.some(own, 35);
    if rng.chance(60) {
        names.push(*rng.pick(related));
        if rng.chance(35) {
            names.push(*rng.pick(related));
        }
    }
    names.join(",")
}
