//! Which plans a row may concern, without asking each of them.
//!
//! A plan's predicate is filed under *places* (`file`) such that whenever it is TRUE of a row,
//! the row comes by one of them: a part of an AND is enough, of an OR each part has one. Looking a
//! row up gives all plans at the places it comes by, each once. That may be more than match, never
//! fewer: each candidate is then checked exactly. What a look-up costs depends on the number of
//! columns that plans name, and on what they find; what adding and removing cost, on the plan's
//! own predicates.
//!
//! One file per family of operators: `equal`, `range`, `prefix`, `fragment`, `presence`,
//! and `scan` for plans that no place is known for. Beside them `record`, for who wants one record.
//!
//! **Does not know:** who listens, and how; related records.

mod equal;
mod file;
mod fragment;
mod posting;
mod prefix;
mod presence;
mod range;
mod record;
mod scan;
mod slots;

use crate::filter::Predicate;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::map::IdMap;
use crate::model::schema::{Schema, SchemaId};

use equal::Equal;
use file::{About, Filing, Place};
use fragment::Fragments;
pub(in crate::live) use posting::Plain;
use posting::{Finds, Id};
use prefix::Prefixes;
use presence::Presence;
use range::Ranges;
pub use record::Records;
use scan::Scan;

/// Plans by what their predicates ask for.
#[derive(Debug, Default)]
pub struct Index {
    /// By the version of the schema that slots belong to: mostly there is one.
    schemas: IdMap<SchemaId, Vec<Version>>,
}

#[derive(Debug)]
struct Version {
    version: u32,
    /// Plans filed here, those included that are filed nowhere as they never match.
    plans: usize,
    /// Of them, those that come by with nearly every row.
    loose: usize,
    files: Files,
}

/// The families.
#[derive(Debug, Default)]
struct Files {
    equal: Equal,
    range: Ranges,
    prefix: Prefixes,
    fragment: Fragments,
    presence: Presence,
    scan: Scan,
}

/// Where a plan was filed: what [`Index::remove`] needs to know.
#[derive(Debug)]
pub struct Filed {
    schema: SchemaId,
    version: u32,
    /// `None`: among those that are scanned.
    places: Option<Box<[Place]>>,
}

impl Filed {
    /// Filed, but only by there being a value in some column.
    fn is_loose(&self) -> bool {
        self.places.iter().flatten().any(Place::is_loose)
    }
}

impl Index {
    /// Files `plan`, whose predicate is about rows of `schema`, as `catalog` has it.
    pub fn add(
        &mut self,
        plan: usize,
        catalog: &Catalog,
        schema: &Schema,
        predicate: &Predicate,
    ) -> Filed {
        let versions = self.schemas.entry(schema.id).or_default();
        let at = versions.iter().position(|known| known.version == schema.version);
        let at = at.unwrap_or_else(|| {
            let (version, files) = (schema.version, Files::default());
            versions.push(Version { version, plans: 0, loose: 0, files });
            versions.len() - 1
        });
        let Version { plans, loose, files, .. } = &mut versions[at];
        *plans += 1;
        let filing = Filing { files, catalog };
        let way = filing.way(predicate, false, About::Own(schema));
        let places = way.map(|way| {
            let mut places = way.places;
            if !is_whole(predicate) {
                file::loosen(&mut places);
            }
            file::tidy(&mut places);
            places.into_boxed_slice()
        });
        match &places {
            Some(places) => places.iter().for_each(|place| files.add(place, id(plan))),
            None => files.scan.add(id(plan)),
        }
        let filed = Filed { schema: schema.id, version: schema.version, places };
        *loose += usize::from(filed.is_loose());
        filed
    }

    /// Takes a plan out.
    pub fn remove(&mut self, plan: usize, filed: &Filed) {
        let Some(versions) = self.schemas.get_mut(&filed.schema) else { return };
        let Some(at) = versions.iter().position(|known| known.version == filed.version) else {
            return;
        };
        let Version { plans, loose, files, .. } = &mut versions[at];
        match &filed.places {
            Some(places) => places.iter().for_each(|place| files.remove(place, id(plan))),
            None => files.scan.remove(id(plan)),
        }
        *loose -= usize::from(filed.is_loose());
        *plans -= 1;
        if *plans == 0 {
            debug_assert!(files.is_empty(), "what was filed is taken out again");
            versions.swap_remove(at);
            if versions.is_empty() {
                self.schemas.remove(&filed.schema);
            }
        }
    }

    /// Gives the plans that `rows` of this version of a schema come by, each once.
    pub fn look_up<'r>(
        &self,
        schema: SchemaId,
        version: u32,
        rows: impl IntoIterator<Item = &'r Row>,
        out: &mut Vec<usize>,
    ) {
        self.look_up_within(usize::MAX, (schema, version), rows, out);
    }

    /// The same. `false`: they come by more than `most`, counting twice those that they come by
    /// twice, and nothing is given. It takes no longer then than to find so many.
    pub fn look_up_within<'r>(
        &self,
        most: usize,
        (schema, version): (SchemaId, u32),
        rows: impl IntoIterator<Item = &'r Row>,
        out: &mut Vec<usize>,
    ) -> bool {
        let versions = self.schemas.get(&schema).map_or(&[][..], Vec::as_slice);
        let Some(known) = versions.iter().find(|known| known.version == version) else {
            return true;
        };
        let files = &known.files;
        let Some(most) = most.checked_sub(files.scan.len()) else { return false };
        let mut finds = Finds::new(most);
        for row in rows {
            files.look_up(row, &mut finds);
        }
        let Some(mut found) = finds.all() else { return false };
        found.sort_unstable();
        found.dedup();
        // Whoever is scanned is filed nowhere else.
        out.extend(found.into_iter().chain(files.scan.plans()).map(|plan| plan as usize));
        true
    }

    /// Whether plans are filed for another version of the schema than this one.
    pub fn has_others(&self, schema: SchemaId, version: u32) -> bool {
        let versions = self.schemas.get(&schema);
        versions.is_some_and(|all| all.iter().any(|known| known.version != version))
    }

    /// How many plans of a schema every change has to be checked against, or every change with
    /// some value in a column: what is known of them parts hardly any rows.
    pub fn scanned(&self, schema: SchemaId) -> usize {
        let versions = self.schemas.get(&schema).map_or(&[][..], Vec::as_slice);
        versions.iter().map(|known| known.files.scan.len() + known.loose).sum()
    }

    /// Of [`scanned`](Self::scanned), those that are filed nowhere.
    pub fn unfiled(&self, schema: SchemaId) -> usize {
        let versions = self.schemas.get(&schema).map_or(&[][..], Vec::as_slice);
        versions.iter().map(|known| known.files.scan.len()).sum()
    }

    /// Whether nothing is filed.
    pub fn is_empty(&self) -> bool {
        self.schemas.is_empty()
    }
}

impl Files {
    fn add(&mut self, place: &Place, plan: Id) {
        match place {
            Place::Equal(at, hash) => self.equal.add(at.slot(), *hash, plan),
            Place::Range(at, span) => self.range.add(at.slot(), **span, plan),
            Place::Prefix(at, length, hash) => self.prefix.add(at.slot(), (*length, *hash), plan),
            Place::Fragment(at, cut, hash) => self.fragment.add(at.slot(), *cut, *hash, plan),
            Place::Presence(at, null) => self.presence.add(at.slot(), *null, plan),
            Place::Value(at) => self.presence.add(at.slot(), false, plan),
        }
    }

    fn remove(&mut self, place: &Place, plan: Id) {
        match place {
            Place::Equal(at, hash) => self.equal.remove(at.slot(), *hash, plan),
            Place::Range(at, span) => self.range.remove(at.slot(), **span, plan),
            Place::Prefix(at, length, hash) => {
                self.prefix.remove(at.slot(), (*length, *hash), plan)
            }
            Place::Fragment(at, cut, hash) => self.fragment.remove(at.slot(), *cut, *hash, plan),
            Place::Presence(at, null) => self.presence.remove(at.slot(), *null, plan),
            Place::Value(at) => self.presence.remove(at.slot(), false, plan),
        }
    }

    fn look_up(&self, row: &Row, out: &mut Finds) {
        self.equal.look_up(row, out);
        self.range.look_up(row, out);
        self.prefix.look_up(row, out);
        self.fragment.look_up(row, out);
        self.presence.look_up(row, out);
    }

    fn is_empty(&self) -> bool {
        self.equal.is_empty()
            && self.range.is_empty()
            && self.prefix.is_empty()
            && self.fragment.is_empty()
            && self.presence.is_empty()
            && self.scan.len() == 0
    }
}

/// Whether a predicate asks for one thing alone: whoever comes by a value's being there then matches.
fn is_whole(predicate: &Predicate) -> bool {
    match predicate {
        Predicate::Test(_) => true,
        Predicate::Not(inner) => is_whole(inner),
        _ => false,
    }
}

/// Plans are numbered by their places in a table, of which there are fewer than 2^32.
fn id(plan: usize) -> Id {
    plan as Id
}
