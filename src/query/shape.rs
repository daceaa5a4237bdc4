//! Selection and grant → the shape of what is shown: which fields, under which alternatives.

use std::sync::Arc;

use crate::auth::grant::Grant;
use crate::error::Result;
use crate::filter::Predicate;
use crate::limits::Limits;
use crate::model::related::Paths;
use crate::model::schema::{FieldRef, Schema, Slot};

use super::select::{Select, too_far};
use super::sight::{Sight, Visible};
use super::unknown;

/// One bit an alternative: what is shown whichever of them is TRUE.
pub const ALWAYS: u64 = u64::MAX;

/// What is shown of records of one schema, in the order it is written.
#[derive(Clone, Debug)]
pub struct Shape {
    pub schema: Arc<Schema>,
    /// The alternatives' filters, one bit each; empty where every field is shown always.
    pub filters: Box<[Predicate]>,
    pub fields: Box<[Shown]>,
}

/// One field.
#[derive(Clone, Debug)]
pub struct Shown {
    /// `,"name":`, ready to be written.
    pub lead: Box<[u8]>,
    /// The alternatives that show it.
    pub mask: u64,
    pub what: What,
}

/// Where the value comes from.
#[derive(Clone, Debug)]
pub enum What {
    Column(Slot),
    /// The key of a to-one relation: null where the related record is hidden.
    Key {
        slot: Slot,
        relation: usize,
        visible: Visible,
    },
    /// The related record, or null.
    One {
        relation: usize,
        visible: Visible,
        shape: Box<Shape>,
    },
    /// The related records, in an array.
    Many {
        relation: usize,
        visible: Visible,
        shape: Box<Shape>,
    },
}

/// Makes shapes for one principal.
pub struct Shaper<'a> {
    pub sight: &'a Sight<'a>,
    pub limits: &'a Limits,
}

impl Shaper<'_> {
    /// The shape of records of `schema` under `grant`; `wanted` `None`: all own columns.
    pub fn root(
        &self,
        schema: &Arc<Schema>,
        grant: &Grant,
        wanted: Option<&Select<'_>>,
    ) -> Result<Shape> {
        let whole = Select { whole: true, ..Select::default() };
        self.shape(schema, grant, wanted.unwrap_or(&whole), &mut Vec::new())
    }

    fn shape<'t>(
        &self,
        schema: &Arc<Schema>,
        grant: &Grant,
        wanted: &Select<'t>,
        path: &mut Vec<&'t str>,
    ) -> Result<Shape> {
        let mut columns = vec![wanted.whole; schema.columns.len()];
        // A selection always brings the primary key; behind a dot it brings only what is named.
        columns[schema.primary] |= path.is_empty();
        let mut relations = Vec::new();
        for (name, deeper) in &wanted.names {
            path.push(name);
            let field = schema.field(name).filter(|field| grant.offers(*field));
            match field {
                Some(FieldRef::Column(slot)) if deeper.names.is_empty() => columns[slot] = true,
                Some(FieldRef::Relation(index)) => {
                    relations.push((index, self.related(schema, index, deeper, path)?));
                }
                _ => return Err(self.unknown(path, deeper)),
            }
            path.pop();
        }
        Ok(self.assemble(schema, grant, &columns, relations))
    }

    /// The shape that shows `columns` and `relations` wherever `grant` does.
    pub fn assemble(
        &self,
        schema: &Arc<Schema>,
        grant: &Grant,
        columns: &[bool],
        mut relations: Vec<(usize, What)>,
    ) -> Shape {
        // In the schema's order, so that the order of a selection makes no other plan.
        relations.sort_by_key(|(index, _)| *index);

        let bits = |field| {
            let holding = grant.alternatives.iter().enumerate();
            let holding = holding.filter(|(_, held)| held.fields.has(field));
            holding.fold(0, |mask, (bit, _)| mask | 1 << bit)
        };
        let all = (0..grant.alternatives.len()).fold(0, |mask, bit| mask | 1u64 << bit);
        let mut fields = Vec::new();
        let mut show = |name: &str, field, what| {
            let mask = bits(field);
            let mask = if mask == all { ALWAYS } else { mask };
            if mask != 0 {
                fields.push(Shown { lead: lead(name), mask, what });
            }
        };
        for (slot, column) in schema.columns.iter().enumerate() {
            if columns[slot] {
                let what = match column.key_of {
                    Some(relation) => self.key(schema, slot, relation),
                    None => What::Column(slot),
                };
                show(&column.name, FieldRef::Column(slot), what);
            }
        }
        for (index, what) in relations {
            show(&schema.relations[index].name, FieldRef::Relation(index), what);
        }
        let masked = fields.iter().any(|shown| shown.mask != ALWAYS);
        let filters = if masked {
            grant.alternatives.iter().map(|held| held.filter.clone()).collect()
        } else {
            Box::default()
        };
        Shape { schema: schema.clone(), filters, fields: fields.into() }
    }

    pub fn key(&self, schema: &Schema, slot: Slot, relation: usize) -> What {
        let target = self.sight.catalog.get(schema.relations[relation].target);
        match target.map_or(Visible::None, |target| self.sight.visible(target)) {
            Visible::All => What::Column(slot),
            visible => What::Key { slot, relation, visible },
        }
    }

    fn related<'t>(
        &self,
        schema: &Schema,
        index: usize,
        wanted: &Select<'t>,
        path: &mut Vec<&'t str>,
    ) -> Result<What> {
        let relation = &schema.relations[index];
        let target = self.sight.catalog.get(relation.target);
        let Some((target, grant)) =
            target.and_then(|target| Some((target, self.sight.through(target)?)))
        else {
            return Err(self.unknown(path, wanted));
        };
        if path.len() > self.limits.select_hops {
            return Err(too_far(&path.join("."), self.limits));
        }
        let visible = self.sight.visible(target);
        let shape = Box::new(self.shape(target, &grant, wanted, path)?);
        Ok(if relation.to_many() {
            What::Many { relation: index, visible, shape }
        } else {
            What::One { relation: index, visible, shape }
        })
    }

    /// Names the first path under `path` that was asked for, whole: that it is unknown must not
    /// tell which of its parts is.
    fn unknown(&self, path: &[&str], wanted: &Select<'_>) -> crate::error::Error {
        let mut path = path.to_vec();
        let mut at = wanted;
        while !at.whole {
            let Some((name, deeper)) = at.names.first_key_value() else { break };
            path.push(name);
            at = deeper;
        }
        unknown("select", &path.join("."))
    }
}

pub fn lead(name: &str) -> Box<[u8]> {
    let mut lead = vec![b','];
    crate::model::json::write_string(name, &mut lead);
    lead.push(b':');
    lead.into()
}

impl Shape {
    /// The relations that are read to show this.
    pub fn paths(&self, catalog: &crate::model::catalog::Catalog) -> Paths {
        let mut paths = Paths::default();
        for filter in &self.filters {
            paths.merge(&filter.paths(catalog, &self.schema));
        }
        for shown in &self.fields {
            let (relation, deeper) = match &shown.what {
                What::Column(_) | What::Key { visible: Visible::None, .. } => continue,
                What::Key { relation, .. } => (*relation, Paths::default()),
                What::One { relation, shape, .. } | What::Many { relation, shape, .. } => {
                    (*relation, shape.paths(catalog))
                }
            };
            let name = self.schema.relations[relation].name.clone();
            paths.0.entry(name).or_default().merge(&deeper);
        }
        paths
    }
}
