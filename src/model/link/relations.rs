//! Both ends of every relation.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{Fault, Linked, fault, is_mutual};
use crate::model::file::{
    FieldDef, RelationDef, SchemaDef, What, is_identifier, key_name, kind_name, list, plain_column,
};
use crate::model::schema::{
    AccessRules, FieldId, Index, Relation, RelationKind, Schema, SchemaId, SchemaKind, Shape,
};
use crate::model::value::FieldType;

/// One end of a relation: schema and field, by index into the definitions. A system schema's
/// undeclared end has no field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    schema: usize,
    field: Option<usize>,
}

/// A relation with both ends; the first is the one that owns a junction.
#[derive(Debug)]
pub(super) struct Pair {
    first: End,
    second: End,
    kind: RelationKind,
    /// Names of the two fields.
    names: (Arc<str>, Arc<str>),
    junction_table: Option<Arc<str>>,
}

fn relations(def: &SchemaDef) -> impl Iterator<Item = (usize, &FieldDef, &RelationDef)> {
    def.fields.iter().enumerate().filter_map(|(at, field)| match &field.what {
        What::Relation(relation) => Some((at, field, relation)),
        What::Column(_) | What::Broken => None,
    })
}

/// Finds the other end of every declared relation.
pub(super) fn pair(defs: &[SchemaDef], faults: &mut Vec<Fault>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (at, def) in defs.iter().enumerate() {
        for (index, field, relation) in relations(def) {
            let end = End { schema: at, field: Some(index) };
            let Some(target) = defs.iter().position(|other| other.name == relation.schema) else {
                faults.push(no_target(defs, def, field, relation));
                continue;
            };
            let other = &defs[target];
            if def.kind == SchemaKind::User && other.kind == SchemaKind::System {
                if system_end(defs, def, field, relation, other, faults) {
                    pairs.push(Pair {
                        first: end,
                        second: End { schema: target, field: None },
                        kind: relation.kind,
                        names: (field.name.clone(), relation.field.clone()),
                        junction_table: relation.junction_table.clone(),
                    });
                }
                continue;
            }
            let Some((back_index, back)) = back(def, field, relation, other) else {
                let broken = |back: &FieldDef| matches!(back.what, What::Broken);
                if other.field(&relation.field).is_some_and(broken) {
                    continue;
                }
                faults.push(no_back(def, field, relation, other));
                continue;
            };
            let second = End { schema: target, field: Some(back_index) };
            // Each pair is met from both ends; it is judged and kept once.
            if (second.schema, second.field) < (end.schema, end.field) {
                continue;
            }
            let mutual = end == second;
            if let Some((code, message)) = disagree(def, field, relation, other, back, mutual) {
                let path = format!("{}.relation", field.path);
                faults.push(fault(def, &[other], code, &path, &field.name, message));
                continue;
            }
            let name = |def: &SchemaDef, field: &str| format!("{}.{field}", def.name);
            let swap = relation.kind == RelationKind::M2M
                && match (relation.owner, back.owner) {
                    (true, false) => false,
                    (false, true) => true,
                    _ => name(def, &field.name) > name(other, &relation.field),
                };
            let names = (field.name.clone(), relation.field.clone());
            let (first, second, names) =
                if swap { (second, end, (names.1, names.0)) } else { (end, second, names) };
            let junction_table = relation.junction_table.clone().or(back.junction_table.clone());
            pairs.push(Pair { first, second, kind: relation.kind, names, junction_table });
        }
    }
    let unnamed = |pair: &&Pair| pair.kind == RelationKind::M2M && pair.junction_table.is_none();
    for pair in pairs.iter().filter(unnamed) {
        let table = table_of(defs, pair);
        if !is_identifier(&table) {
            let def = &defs[pair.first.schema];
            let path = pair.first.field.map_or(String::new(), |at| def.fields[at].path.clone());
            let message = format!(
                "the junction's name would be '{table}', which is too long; name it yourself with \
                 \"junction_table\""
            );
            let code = "relation.junction_table.invalid";
            faults.push(fault(def, &[], code, &path, &pair.names.0, message));
        }
    }
    pairs
}

fn no_target(
    defs: &[SchemaDef],
    def: &SchemaDef,
    field: &FieldDef,
    relation: &RelationDef,
) -> Fault {
    let near = defs.iter().find(|other| other.name.eq_ignore_ascii_case(&relation.schema));
    let message = match near {
        Some(near) => {
            format!(
                "target schema '{}' is not defined; did you mean '{}'?",
                relation.schema, near.name
            )
        }
        None => {
            let mut names: Vec<&str> = defs.iter().map(|def| &*def.name).collect();
            names.sort_unstable();
            format!(
                "target schema '{}' is not defined; add {0}.json or relate to {}",
                relation.schema,
                list(&names)
            )
        }
    };
    let path = format!("{}.relation.schema", field.path);
    let mut fault = fault(def, &[], "relation.target.not_found", &path, &field.name, message);
    fault.schemas.push(relation.schema.clone());
    fault
}

/// The field of `other` that points back at `field`.
fn back<'a>(
    def: &SchemaDef,
    field: &FieldDef,
    relation: &RelationDef,
    other: &'a SchemaDef,
) -> Option<(usize, &'a RelationDef)> {
    relations(other)
        .find(|(_, back, _)| back.name == relation.field)
        .filter(|(_, _, back)| back.schema == def.name && back.field == field.name)
        .map(|(at, _, back)| (at, back))
}

/// The field that the other side of `relation` needs, as its author would write it.
pub fn back_field(schema: &str, field: &str, relation: &RelationDef) -> Json {
    let mut inner = json!({"schema": schema, "field": field, "type": kind_name(relation.kind)});
    if !relation.owner {
        inner["owner"] = true.into();
    }
    json!({
        "name": &*relation.field,
        "label": &*relation.field,
        "type": "relation",
        "optional": true,
        "relation": inner,
    })
}

fn no_back(def: &SchemaDef, field: &FieldDef, relation: &RelationDef, other: &SchemaDef) -> Fault {
    let need = back_field(&def.name, &field.name, relation);
    let message = match other.field(&relation.field) {
        None => format!(
            "'{}' has no field '{}' that points back; add to its fields: {need}",
            other.name, relation.field
        ),
        Some(_) => format!(
            "'{}.{}' does not point back at '{}.{}'; its relation must be {}",
            other.name, relation.field, def.name, field.name, need["relation"]
        ),
    };
    let path = format!("{}.relation.field", field.path);
    fault(def, &[other], "relation.back_ref.missing", &path, &field.name, message)
}

/// Why two ends that point at each other make no relation.
fn disagree(
    def: &SchemaDef,
    field: &FieldDef,
    relation: &RelationDef,
    other: &SchemaDef,
    back: &RelationDef,
    mutual: bool,
) -> Option<(&'static str, String)> {
    let ends = format!("'{}.{}' and '{}.{}'", def.name, field.name, other.name, relation.field);
    if relation.kind != back.kind {
        let (one, two) = (kind_name(relation.kind), kind_name(back.kind));
        let message = format!("{ends} disagree: '{one}' here, '{two}' there; make them the same");
        return Some(("relation.type.mismatch", message));
    }
    if mutual {
        return (relation.kind == RelationKind::O2M).then(|| {
            let message = "an o2m relation cannot point back at itself: it needs a field for one \
                           and a field for many";
            ("relation.type.mismatch", message.to_owned())
        });
    }
    if relation.kind != RelationKind::M2M && relation.owner == back.owner {
        let message = if relation.owner {
            format!("both {ends} say \"owner\": the one that holds the key must not")
        } else {
            format!("neither of {ends} says \"owner\": the one that does not hold the key must")
        };
        return Some(("relation.owner.mismatch", message));
    }
    if let (Some(one), Some(two)) = (&relation.junction_table, &back.junction_table)
        && one != two
    {
        let message = format!(
            "{ends} name two junction tables, '{one}' and '{two}'; name one, or leave it out"
        );
        return Some(("relation.junction_table.invalid", message));
    }
    None
}

/// Whether a relation to a system schema is good: that side is not declared, so it can hold no key
/// and its name must be free there.
fn system_end(
    defs: &[SchemaDef],
    def: &SchemaDef,
    field: &FieldDef,
    relation: &RelationDef,
    system: &SchemaDef,
    faults: &mut Vec<Fault>,
) -> bool {
    let mut bad = |code: &str, key: &str, others: &[&SchemaDef], message: String| {
        let path = format!("{}.relation.{key}", field.path);
        faults.push(fault(def, others, code, &path, &field.name, message));
    };
    if relation.owner && relation.kind != RelationKind::M2M {
        let message = format!(
            "the key must lie with '{}', because '{}' is a system schema; take \"owner\" out",
            def.name, system.name
        );
        bad("relation.owner.mismatch", "owner", &[], message);
        return false;
    }
    if !is_identifier(&relation.field) {
        let message = format!(
            "'{}' is no name for a field of '{}'",
            crate::model::json::cut(&relation.field),
            system.name
        );
        bad("field.name.invalid", "field", &[], message);
        return false;
    }
    let name = &relation.field;
    let own = system.fields.iter().any(|f| f.name.eq_ignore_ascii_case(name))
        || ["created_at", "updated_at", "password"].contains(&name.to_ascii_lowercase().as_str());
    if own {
        let message = format!(
            "'{}' has a field '{name}' of its own; choose another name for the way back, such as \
             '{}_{}'",
            system.name, def.name, field.name
        );
        bad("relation.back_ref.taken", "field", &[], message);
        return false;
    }
    let twin = defs.iter().find_map(|other| {
        relations(other)
            .find(|(_, f, r)| {
                r.schema == system.name
                    && r.field.eq_ignore_ascii_case(name)
                    && (&other.name, &f.name) < (&def.name, &field.name)
            })
            .map(|(_, f, _)| (other, f))
    });
    if let Some((other, twin)) = twin {
        let message = format!(
            "'{}.{}' comes back to '{}' by the name '{name}' too; choose another, such as '{}_{}'",
            other.name, twin.name, system.name, def.name, field.name
        );
        bad("relation.back_ref.taken", "field", &[other], message);
        return false;
    }
    true
}

/// The junction's table: as named, or after the end that owns it.
fn table_of(defs: &[SchemaDef], pair: &Pair) -> String {
    match &pair.junction_table {
        Some(table) => table.to_string(),
        None => format!("{}_{}_links", defs[pair.first.schema].name, pair.names.0),
    }
}

/// Adds every relation to the schemas, and the junctions they need.
pub(super) fn resolve(defs: &[SchemaDef], pairs: &[Pair], linked: &mut Linked) {
    // Relations stand in the order of their fields, the undeclared ends of system schemas last.
    let mut placed: Vec<Vec<(usize, Relation)>> = defs.iter().map(|_| Vec::new()).collect();
    let mut owners = Vec::new();
    for (order, pair) in pairs.iter().enumerate() {
        let junction = (pair.kind == RelationKind::M2M).then(|| {
            let junction = junction(defs, pair, linked.schemas.len());
            let id = junction.id;
            linked.schemas.push(junction);
            linked.defs.push(None);
            owners.push((id, pair.first.schema, pair.names.0.clone()));
            id
        });
        let mut ends = vec![(pair.first, pair.second, &pair.names.0, &pair.names.1, true)];
        if pair.first != pair.second {
            ends.push((pair.second, pair.first, &pair.names.1, &pair.names.0, false));
        }
        for (end, far, name, back, first) in ends {
            let here = &linked.schemas[end.schema];
            let there = &linked.schemas[far.schema];
            let own_key = here.column(&key_name(name)).filter(|_| holds_key(defs, end));
            let shape = match (junction, own_key) {
                (Some(junction), _) => {
                    let (own, other) = if first { (1, 2) } else { (2, 1) };
                    Shape::Link { junction, own, other }
                }
                (None, Some(slot)) => Shape::Key { slot },
                (None, None) => {
                    let slot = there.column(&key_name(back)).unwrap_or_default();
                    if pair.kind == RelationKind::O2O {
                        Shape::BackKey { slot }
                    } else {
                        Shape::Many { slot }
                    }
                }
            };
            let optional = match (shape, end.field.map(|at| &defs[end.schema].fields[at].what)) {
                (Shape::Key { .. }, Some(What::Relation(relation))) => relation.optional,
                _ => true,
            };
            let relation = Relation {
                id: FieldId(0),
                name: name.clone(),
                kind: pair.kind,
                target: SchemaId(far.schema as u32),
                back: back.clone(),
                optional,
                shape,
            };
            let place = end.field.unwrap_or(defs[end.schema].fields.len() + order);
            placed[end.schema].push((place, relation));
        }
    }
    for (schema, mut relations) in linked.schemas.iter_mut().zip(placed) {
        relations.sort_by_key(|(place, _)| *place);
        schema.relations = relations.into_iter().map(|(_, relation)| relation).collect();
        for (at, relation) in schema.relations.iter().enumerate() {
            if let Shape::Key { slot } = relation.shape {
                schema.columns[slot].key_of = Some(at);
            }
        }
    }
    for (junction, schema, name) in owners {
        if let Some(at) = linked.schemas[schema].relation(&name) {
            linked.owners.insert(junction, (SchemaId(schema as u32), at));
        }
    }
}

fn holds_key(defs: &[SchemaDef], end: End) -> bool {
    let def = &defs[end.schema];
    end.field.is_some_and(|at| match &def.fields[at].what {
        What::Relation(relation) => relation.holds_key() || is_mutual(def, &def.fields[at]),
        What::Column(_) | What::Broken => false,
    })
}

/// The hidden schema of a many-to-many relation. Its name holds a dot, which no file's can.
fn junction(defs: &[SchemaDef], pair: &Pair, at: usize) -> Schema {
    let key = |name: &str, end: End| {
        let def = &defs[end.schema];
        let mut column = plain_column(name, FieldType::Uint64);
        if let What::Column(primary) = &def.fields[def.primary].what {
            (column.ty, column.size) = (primary.ty, primary.size);
        }
        column
    };
    let mut id = plain_column("id", FieldType::Uint64);
    (id.unique, id.automatic) = (true, true);
    let table = table_of(defs, pair);
    Schema {
        id: SchemaId(at as u32),
        version: 1,
        name: format!("{}.{}", defs[pair.first.schema].name, pair.names.0).into(),
        label_field: "id".into(),
        columns: vec![id, key("source_id", pair.first), key("target_id", pair.second)],
        relations: Vec::new(),
        primary: 0,
        created_at: None,
        updated_at: None,
        // The name is only a placeholder: `store/ddl.rs` names the index after the schema's id.
        indexes: vec![Index { name: "".into(), columns: vec![1, 2], unique: true }],
        access: AccessRules::default(),
        kind: SchemaKind::Junction,
        source: Arc::new(Json::Null),
        table: table.into(),
    }
}
