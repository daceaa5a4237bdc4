//! What else a plan may be asked to compare: what `watch` names, and what is read of others.

use std::sync::Arc;

use crate::auth::grant::Grant;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::related::Paths;
use crate::model::schema::{FieldRef, Schema, Shape as Lies, Slot};

use super::shape::{ALWAYS, Shape, Shaper, Shown, What, lead};
use super::unknown;

/// The names in a `watch`. Spaces, empty entries and repeats do no harm; none at all is an error,
/// as nothing would ever be told.
pub fn names<'t>(text: &'t str, limits: &Limits) -> Result<Vec<&'t str>> {
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Error::bad("invalid watch: name at least one field".to_owned()));
    }
    if names.len() > limits.select_entries {
        let most = limits.select_entries;
        return Err(Error::bad(format!("invalid watch: more than {most} entries")));
    }
    if let Some(path) = names.iter().find(|name| name.contains('.')) {
        let path = crate::error::clip(path);
        return Err(Error::bad(format!(
            "invalid watch: '{path}' is no field of its own; name own fields and relations"
        )));
    }
    Ok(names)
}

impl Shaper<'_> {
    /// The shape of what is watched: columns as they are shown, relations as their keys. `holds`
    /// tells whether a field may be named.
    pub fn watch(
        &self,
        schema: &Arc<Schema>,
        grant: &Grant,
        names: &[&str],
        holds: impl Fn(FieldRef) -> bool,
    ) -> Result<Shape> {
        let mut columns = vec![false; schema.columns.len()];
        let mut relations: Vec<(usize, What)> = Vec::new();
        for name in names {
            let field = schema.field(name).filter(|field| holds(*field));
            match field.ok_or_else(|| unknown("watch", name))? {
                FieldRef::Column(slot) => columns[slot] = true,
                FieldRef::Relation(index) => {
                    let key = self.keys(schema, index).ok_or_else(|| unknown("watch", name))?;
                    match key {
                        What::Column(slot) | What::Key { slot, .. } => columns[slot] = true,
                        key if relations.iter().all(|(known, _)| *known != index) => {
                            relations.push((index, key));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(self.assemble(schema, grant, &columns, relations))
    }

    /// The primary keys that a relation leads to; `None` where there is no way.
    fn keys(&self, schema: &Schema, index: usize) -> Option<What> {
        let relation = &schema.relations[index];
        let target = self.sight.catalog.get(relation.target)?;
        let grant = self.sight.through(target)?;
        if let Lies::Key { slot } = relation.shape {
            return Some(What::Column(slot));
        }
        let mut columns = vec![false; target.columns.len()];
        columns[target.primary] = true;
        let shape = self.assemble(target, &grant, &columns, Vec::new());
        Some(self.leads(schema, index, target, shape))
    }

    fn leads(&self, schema: &Schema, relation: usize, target: &Schema, shape: Shape) -> What {
        let visible = self.sight.visible(target);
        let shape = Box::new(shape);
        if schema.relations[relation].to_many() {
            What::Many { relation, visible, shape }
        } else {
            What::One { relation, visible, shape }
        }
    }

    /// What may be seen through a plan of its records and of all that it reads beside them: the
    /// own fields of the projection, and every own field of the related records that the client's
    /// filter (`asked`) and projection (`shown`) lead to. `gathered` are the plan's paths: what
    /// lies on none of them is left out, as it could not be known.
    pub fn reads(&self, shown: &Shape, asked: &Paths, gathered: &Paths) -> Shape {
        let mut tree = asked.clone();
        tree.merge(&relations(shown));
        let related = |shown: &Shown| matches!(shown.what, What::One { .. } | What::Many { .. });
        let mut fields: Vec<Shown> =
            shown.fields.iter().filter(|shown| !related(shown)).cloned().collect();
        for (name, deeper) in &tree.0 {
            let Some(index) = shown.schema.relation(name) else { continue };
            let through = gathered.0.get(name).unwrap_or(deeper);
            let Some(what) = self.all_of(&shown.schema, index, deeper, through) else { continue };
            // Where the client's filter names it, whoever matches shows it.
            let masked = shown.fields.iter().find(|field| {
                matches!(&field.what, What::One { relation, .. } | What::Many { relation, .. }
                    if *relation == index)
            });
            let mask = match masked {
                Some(field) if !asked.0.contains_key(name) => field.mask,
                _ => ALWAYS,
            };
            fields.push(Shown { lead: lead(name), mask, what });
        }
        let filters = if fields.iter().any(|field| field.mask != ALWAYS) {
            shown.filters.clone()
        } else {
            Box::default()
        };
        Shape { schema: shown.schema.clone(), filters, fields: fields.into() }
    }

    /// All own fields of what a relation leads to, and what `tree` leads to from there.
    fn all_of(&self, from: &Schema, index: usize, tree: &Paths, gathered: &Paths) -> Option<What> {
        let target = self.sight.catalog.get(from.relations[index].target)?;
        let grant = self.sight.through(target)?;
        let known = |slot: Slot| match target.columns[slot].key_of {
            Some(relation) => match self.key(target, slot, relation) {
                What::Key { .. } => gathered.0.contains_key(&target.relations[relation].name),
                _ => true,
            },
            None => true,
        };
        let columns: Vec<bool> = (0..target.columns.len()).map(known).collect();
        let mut relations = Vec::new();
        for (name, deeper) in &tree.0 {
            let Some(index) = target.relation(name) else { continue };
            let through = gathered.0.get(name).unwrap_or(deeper);
            if let Some(what) = self.all_of(target, index, deeper, through) {
                relations.push((index, what));
            }
        }
        let shape = self.assemble(target, &grant, &columns, relations);
        Some(self.leads(from, index, target, shape))
    }
}

/// The relations that a projection shows, without those it reads to know what to hide.
fn relations(shape: &Shape) -> Paths {
    let mut paths = Paths::default();
    for shown in &shape.fields {
        if let What::One { relation, shape: inner, .. }
        | What::Many { relation, shape: inner, .. } = &shown.what
        {
            let name = shape.schema.relations[*relation].name.clone();
            paths.0.entry(name).or_default().merge(&relations(inner));
        }
    }
    paths
}
