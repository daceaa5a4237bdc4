//! One compile step for lists and the stream.

use std::sync::Arc;

use crate::auth::grant::{self, Action, Alternative, Grant};
use crate::auth::principal::Principal;
use crate::error::{Error, Result};
use crate::filter::{Predicate, ast, compile, eval};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::{Paths, Related};
use crate::model::schema::{FieldRef, Schema, Slot};
use crate::model::value::Value;

use super::body::Body;
use super::fingerprint::{self, Touched};
use super::key::By;
use super::shape::{Shape, Shaper};
use super::sight::{Sight, Visible};
use super::{Ask, key, reads, select, sort, unknown};

/// A compiled question: which records, and what of them. Shared by all who may see the same.
#[derive(Debug)]
pub struct Plan {
    /// What it was compiled under; slots and relations mean what they mean there.
    pub catalog: Arc<Catalog>,
    /// Whose records it is about.
    pub schema: Arc<Schema>,
    /// Client's filter AND (one of the alternatives that count).
    pub filter: Predicate,
    /// Column and whether it descends, as asked; empty where nothing was.
    pub sort: Vec<(Slot, bool)>,
    /// The part of `filter` that the grant makes: for whom it is not TRUE, the record is not there.
    pub(super) granted: Predicate,
    /// What a change costs that it is held against, in comparisons (see [`Plan::costs`]).
    pub cost: u32,
    /// Bytes of `filter` written out: what filing it takes grows with them.
    pub filter_bytes: u32,
    /// What is shown of each record.
    pub body: Arc<Body>,
    /// What `watch` names, as it is shown; relations as their keys.
    pub watch: Option<Arc<Body>>,
    /// All that may be seen of a record and of what filter and projection read beside it: if this
    /// did not change, a change of a related record is none to be told. Rules' own filters count
    /// by what they show and hide only. `None` where nothing is read through relations.
    pub reads: Option<Arc<Body>>,
    /// Relations that `filter`, `body`, `watch` and `reads` read.
    pub paths: Paths,
    /// Equal for plans that match, watch and show the same; holds filter, grant, projection. What
    /// the grant alone hides counts too: it decides what a record was before it could be seen.
    pub key: Arc<[u8]>,
    /// Fingerprint of what the principal may read of the schema and of those that filter and
    /// projection lead to; 0: all of it. It stays the same over restarts, renames and added
    /// columns, and whatever else the client asks of the same schemas.
    pub grant: u64,
}

impl Plan {
    /// Checks `ask` against the schema and what `principal` may read. Errors: no such schema (401
    /// for guests), 401 or 403 without a grant, 400 the rest.
    pub fn compile(
        catalog: &Arc<Catalog>,
        principal: &Principal,
        limits: &Limits,
        ask: &Ask,
    ) -> Result<Plan> {
        let schema = grant::schema(catalog, principal, &ask.schema, Action::Read)?;
        let grant = grant::require(catalog, &schema, principal, Action::Read)?;
        let sight = Sight::new(catalog, principal);

        let tree = match &ask.filter {
            Some(filter) => Some(ast::parse(filter, limits, ask.untyped).map_err(in_filter)?),
            None => None,
        };
        let sorted = sort::parse(ask.sort.as_deref().unwrap_or_default(), limits)?;
        let watched = ask.watch.as_deref().map(|text| reads::names(text, limits)).transpose()?;
        let named: Vec<&str> = tree.iter().flat_map(|tree| tree.fields()).collect();
        let names = named.into_iter().chain(sorted.iter().map(|(name, _)| *name));
        let names = names.chain(watched.iter().flatten().copied());
        let narrow = Narrow::new(&sight, &schema, &grant, names);

        let asked = match &tree {
            Some(tree) => {
                compile::compile(tree, catalog, &schema, &narrow, limits).map_err(in_filter)?
            }
            None => Predicate::ALL,
        };
        let sort = narrow.sort(&schema, &sorted)?;
        let asks = asked.paths(catalog, &schema);
        let granted = narrow.filter();
        let filter = Predicate::and([asked, granted.clone()]);

        let wanted = select::parse(ask.select.as_deref().unwrap_or_default(), limits)?;
        let shaper = Shaper { sight: &sight, limits };
        let shape = shaper.root(&schema, &grant, wanted.as_ref())?;
        let watch = watched
            .map(|names| shaper.watch(&schema, &grant, &names, |field| narrow.holds(field)))
            .transpose()?;

        let mut paths = filter.paths(catalog, &schema);
        paths.merge(&shape.paths(catalog));
        if let Some(watch) = &watch {
            paths.merge(&watch.paths(catalog));
        }
        let mut touched = Touched::default();
        touched.paths(catalog, &schema, &asks);
        touched.shape(&shape);
        if let Some(watch) = &watch {
            touched.shape(watch);
        }
        let fingerprint = fingerprint::of(&sight, &schema, &grant, &touched);

        let reads = (!paths.is_empty()).then(|| shaper.reads(&shape, &asks, &paths));
        let body = |shape| Arc::new(body(catalog, shape));
        let (shown, watch, reads) = (body(shape), watch.map(body), reads.map(body));

        let mut bytes = Vec::new();
        key::predicate(&filter, By::Place, &mut bytes);
        let filter_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // What was there before for whom is told apart even where the same matches now.
        key::predicate(&granted, By::Place, &mut bytes);
        key::versions(catalog, &schema, &paths, &mut bytes);
        for body in [Some(&shown), watch.as_ref(), reads.as_ref()] {
            key::block(body.map_or(&[], |body| &body.key), &mut bytes);
        }
        let mut plan = Plan {
            catalog: catalog.clone(),
            schema,
            filter,
            granted,
            cost: 0,
            filter_bytes,
            sort,
            body: shown,
            watch,
            reads,
            paths,
            key: bytes.into(),
            grant: fingerprint,
        };
        plan.cost = u32::try_from(plan.costs().total()).unwrap_or(u32::MAX);
        Ok(plan)
    }

    /// Whether the grant alone is TRUE for the row: whether there is such a record for the principal.
    pub fn shows(&self, row: &Row, related: &dyn Related) -> bool {
        self.granted == Predicate::ALL
            || eval::matches(&self.granted, &self.catalog, &self.schema, row, related)
    }

    /// Whether filter and grant are TRUE for the row; `related` must hold [`Plan::paths`].
    pub fn matches(&self, row: &Row, related: &dyn Related) -> bool {
        eval::matches(&self.filter, &self.catalog, &self.schema, row, related)
    }
}

fn body(catalog: &Arc<Catalog>, shape: Shape) -> Body {
    let mut bytes = Vec::new();
    key::shape(&shape, &mut bytes);
    key::versions(catalog, &shape.schema, &shape.paths(catalog), &mut bytes);
    Body { key: bytes.into(), catalog: catalog.clone(), shape }
}

/// An id as a URL gives it → a primary key of `schema`. 400 where it cannot be one.
pub fn parse_key(schema: &Schema, text: &str) -> Result<Value> {
    let column = schema.primary_column();
    let wrong = |why| Error::bad(format!("invalid id '{}': {why}", crate::error::clip(text)));
    match Value::from_text(text, column) {
        Ok(Value::Null) => Err(wrong("there is none".to_owned())),
        Ok(key) => Ok(key),
        Err(why) => Err(wrong(why)),
    }
}

fn in_filter(error: Error) -> Error {
    Error { message: format!("invalid filter: {}", error.message), ..error }
}

/// The alternatives that count for a request.
struct Narrow<'a> {
    sight: &'a Sight<'a>,
    counting: Vec<&'a Alternative>,
}

impl<'a> Narrow<'a> {
    /// `names`: the own fields that filter, sort and watch name, in the order they are checked.
    /// Each leaves the alternatives that hold it. The first that would leave none changes nothing:
    /// no alternative that counts holds it, so it is met as unknown where it is checked.
    fn new<'n>(
        sight: &'a Sight<'a>,
        schema: &Schema,
        grant: &'a Grant,
        names: impl Iterator<Item = &'n str>,
    ) -> Self {
        let mut counting: Vec<&Alternative> = grant.alternatives.iter().collect();
        for field in names.filter_map(|name| schema.field(name)) {
            let mut left = counting.clone();
            left.retain(|held| held.fields.has(field));
            if left.is_empty() {
                break;
            }
            counting = left;
        }
        Narrow { sight, counting }
    }

    fn holds(&self, field: FieldRef) -> bool {
        self.counting.iter().any(|held| held.fields.has(field))
    }

    fn filter(&self) -> Predicate {
        Predicate::or(self.counting.iter().map(|held| held.filter.clone()))
    }

    fn sort(&self, schema: &Schema, names: &[(&str, bool)]) -> Result<Vec<(Slot, bool)>> {
        let mut sorted: Vec<(Slot, bool)> = Vec::with_capacity(names.len());
        for (name, descending) in names {
            let field = schema.field(name).filter(|field| self.holds(*field));
            let field = field.ok_or_else(|| unknown("sort", name))?;
            let slot = sort::column(schema, field).filter(|slot| sort::sortable(schema, *slot));
            let slot = slot.ok_or_else(|| {
                Error::bad(format!("invalid sort: '{}' is not sortable", crate::error::clip(name)))
            })?;
            // An order over keys that are partly hidden would tell what the hidden ones are.
            if let Some(relation) = schema.columns[slot].key_of {
                let target = self.sight.catalog.get(schema.relations[relation].target);
                let visible = target.map(|target| self.sight.visible(target));
                if !matches!(visible, Some(Visible::All)) {
                    return Err(unknown("sort", name));
                }
            }
            if !sorted.iter().any(|(known, _)| *known == slot) {
                sorted.push((slot, *descending));
            }
        }
        Ok(sorted)
    }
}

impl compile::Reader for Narrow<'_> {
    fn own(&self, _: &Schema, field: FieldRef) -> bool {
        self.holds(field)
    }

    fn hop(&self, target: &Schema, field: FieldRef) -> Option<Option<Arc<Predicate>>> {
        match self.sight.visible_field(target, field)? {
            Visible::All => Some(None),
            Visible::None => Some(Some(Arc::new(Predicate::NONE))),
            Visible::When(filter) => Some(Some(filter)),
        }
    }
}
