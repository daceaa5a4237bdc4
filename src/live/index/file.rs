//! Predicate → the places that it is filed under, so that whenever it is TRUE of a row, the row
//! comes by at least one of them.
//!
//! What is known of related records is not looked at: a place is found by the row's own columns.

use std::collections::HashSet;

use crate::filter::text::Like;
use crate::filter::{Hop, Predicate, Test, TestOp, Truth};
use crate::model::catalog::Catalog;
use crate::model::schema::{Schema, Shape, Slot};
use crate::model::value::Value;

use super::Files;
use super::fragment::{Crowd, Cut};
use super::range::{Span, Spans};

/// One place, in 16 bytes: a plan keeps its places for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Equal(Column, u64),
    Range(Column, Box<Span>),
    /// Whether NULL is asked for, or some value.
    Presence(Column, bool),
    /// Some value, as nothing better is known of rows that match.
    Value(Column),
    /// A beginning's length and hash.
    Prefix(Column, u8, u64),
    /// How texts are cut, and the hash.
    Fragment(Column, Cut, u64),
}

/// A [`Slot`] of half the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Column(u32);

impl Place {
    /// Whether nearly every row comes by.
    pub(super) fn is_loose(&self) -> bool {
        matches!(self, Place::Value(_))
    }
}

impl Column {
    fn of(slot: Slot) -> Self {
        Column(slot as u32)
    }

    pub(super) fn slot(self) -> Slot {
        self.0 as Slot
    }
}

/// A way to file a predicate.
pub(super) struct Way {
    pub(super) places: Vec<Place>,
    /// Roughly how many plans come by with this one, times how likely a row is to come by.
    cost: u64,
}

/// How likely a row is to come by a place, against one of equality. Rough, but it need not be
/// more: a place that is crowded costs more for each plan that is there already, so plans spread
/// over what they can be filed under (a tenant's `status = x AND owner = N` over the owners).
mod weight {
    pub const EQUAL: u64 = 1;
    pub const PREFIX: u64 = 1;
    pub const CLOSED: u64 = 2;
    pub const FRAGMENT: u64 = 4;
    pub const NULL: u64 = 8;
    /// A prefix of one character or two.
    pub const LETTER: u64 = 16;
    /// An interval with one end.
    pub const OPEN: u64 = 32;
    /// Nearly every row has something there.
    pub const PRESENT: u64 = 4_096;
}

/// Files predicates about rows of one schema.
pub(super) struct Filing<'a> {
    pub(super) files: &'a Files,
    pub(super) catalog: &'a Catalog,
}

/// Where predicates speak of: rows of a schema, of whose columns those count that the filed row
/// knows too.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    Own(&'a Schema),
    /// The record that a key column of the filed row names: its primary key is known.
    Named {
        schema: &'a Schema,
        by: Slot,
    },
}

impl About<'_> {
    fn slot(self, slot: Slot) -> Option<Slot> {
        match self {
            About::Own(_) => Some(slot),
            About::Named { schema, by } => (slot == schema.primary).then_some(by),
        }
    }
}

/// A part of an AND, and whether it stands under a NOT.
type Part<'p> = (&'p Predicate, bool);

impl Filing<'_> {
    /// The best way to file a predicate (`not`: what is TRUE where it is FALSE); `None` where
    /// every row must come by.
    pub(super) fn way(&self, predicate: &Predicate, not: bool, about: About<'_>) -> Option<Way> {
        let mut parts = Vec::new();
        flatten(predicate, not, &mut parts);
        let mut best = None;
        let mut spans: Vec<(Slot, Spans)> = Vec::new();
        for (part, not) in parts {
            if let Predicate::Test(test) = part
                && let Some(slot) = about.slot(test.slot)
                && let Some(new) = spans_of(test, not)
            {
                match spans.iter_mut().find(|(known, _)| *known == slot) {
                    Some((_, known)) => *known = known.and(new),
                    None => spans.push((slot, new)),
                }
                continue;
            }
            better(&mut best, self.part(part, not, about));
        }
        for (slot, spans) in spans {
            better(&mut best, Some(self.range(slot, spans)));
        }
        best
    }

    /// One part of an AND that is no AND itself.
    fn part(&self, part: &Predicate, not: bool, about: About<'_>) -> Option<Way> {
        match part {
            Predicate::Const(truth) => {
                let holds = if not { Truth::False } else { Truth::True };
                (*truth != holds).then_some(Way { places: Vec::new(), cost: 0 })
            }
            Predicate::Test(test) => self.test(about.slot(test.slot)?, &test.op, not),
            Predicate::And(parts) | Predicate::Or(parts) => self.some(parts, not, about),
            Predicate::Not(inner) => self.way(inner, !not, about),
            Predicate::One(hop) => self.hop(hop, not, about),
            Predicate::Any(_) => None,
        }
    }

    /// Parts of which one is enough.
    fn some(&self, parts: &[Predicate], not: bool, about: About<'_>) -> Option<Way> {
        let mut all = Way { places: Vec::new(), cost: 0 };
        for part in parts {
            let Way { places, cost } = self.way(part, not, about)?;
            all.places.extend(places);
            all.cost = all.cost.saturating_add(cost);
        }
        Some(all)
    }

    /// A predicate about the record that a key of the row names. What it says of no record at all
    /// must not be TRUE, else a key that leads nowhere would have to come by too.
    fn hop(&self, hop: &Hop, not: bool, about: About<'_>) -> Option<Way> {
        let absent = if not { !hop.absent } else { hop.absent };
        let About::Own(schema) = about else { return None };
        let relation = &schema.relations[hop.relation];
        let Shape::Key { slot: by } = relation.shape else { return None };
        if absent == Truth::True {
            return None;
        }
        let target = self.catalog.get(relation.target)?;
        let mut best = Some(self.value(by));
        better(&mut best, self.way(&hop.inner, not, About::Named { schema: target, by }));
        best
    }

    /// A comparison that is no range (those are put together first).
    fn test(&self, slot: Slot, op: &TestOp, not: bool) -> Option<Way> {
        Some(match (op, not) {
            (TestOp::IsNull, not) => self.presence(slot, !not),
            (TestOp::NotNull, not) => self.presence(slot, not),
            (TestOp::Eq(value), false) | (TestOp::Neq(value), true) => {
                self.equal(slot, std::slice::from_ref(value))
            }
            (TestOp::Neq(Value::Bool(other)), false) | (TestOp::Eq(Value::Bool(other)), true) => {
                self.equal(slot, &[Value::Bool(!other)])
            }
            (TestOp::In(set), false) | (TestOp::NotIn(set), true) => self.equal(slot, set.values()),
            (TestOp::Like(like), false) | (TestOp::NotLike(like), true) => self.like(slot, like)?,
            (TestOp::Contains(needle), false) | (TestOp::NotContains(needle), true) => {
                let texts = std::iter::once(needle.source());
                self.fragment(slot, self.files.fragment.rarest(slot, texts))
            }
            (TestOp::ContainsFold(fold), false) | (TestOp::NotContainsFold(fold), true) => {
                let rarest = self.files.fragment.rarest_folded(slot, fold.needle());
                self.fragment(slot, rarest)
            }
            // Whatever else is asked is never TRUE of NULL.
            _ => self.value(slot),
        })
    }

    fn equal(&self, slot: Slot, values: &[Value]) -> Way {
        let equal = &self.files.equal;
        let place = |value| Place::Equal(Column::of(slot), equal.hash(slot, value));
        let places: Vec<Place> = values.iter().map(place).collect();
        // A row has one of the values.
        let crowd = values.iter().map(|value| equal.len(equal.hash(slot, value))).max();
        let cost = crowd.map_or(0, |crowd| (crowd as u64 + values.len() as u64) * weight::EQUAL);
        Way { places, cost }
    }

    fn like(&self, slot: Slot, like: &Like) -> Option<Way> {
        if let Some(text) = like.exact() {
            return Some(self.equal(slot, &[Value::Text(text.into())]));
        }
        let rarest = self.files.fragment.rarest(slot, like.texts());
        let mut best = Some(self.fragment(slot, rarest));
        let prefix = like.prefix();
        if !prefix.is_empty() {
            let weight = if prefix.len() < 3 { weight::LETTER } else { weight::PREFIX };
            let (length, hash) = self.files.prefix.place(slot, prefix);
            let crowd = self.files.prefix.len(hash) as u64;
            let places = vec![Place::Prefix(Column::of(slot), length, hash)];
            better(&mut best, Some(Way { places, cost: (crowd + 1) * weight }));
        }
        best
    }

    /// Where nothing is long enough to be a fragment, by there being a value at all.
    fn fragment(&self, slot: Slot, rarest: Option<Crowd>) -> Way {
        let Some((cut, hash, crowd)) = rarest else { return self.value(slot) };
        let places = vec![Place::Fragment(Column::of(slot), cut, hash)];
        Way { places, cost: (crowd as u64 + 1) * weight::FRAGMENT }
    }

    fn range(&self, slot: Slot, spans: Spans) -> Way {
        let Some(span) = spans.span else { return Way { places: Vec::new(), cost: 0 } };
        let weight = if spans.is_closed() { weight::CLOSED } else { weight::OPEN };
        let crowd = self.files.range.crowd(slot, span) as u64;
        Way {
            places: vec![Place::Range(Column::of(slot), span.into())],
            cost: (crowd + 1) * weight,
        }
    }

    fn presence(&self, slot: Slot, null: bool) -> Way {
        let weight = if null { weight::NULL } else { weight::PRESENT };
        let crowd = self.files.presence.len(slot, null) as u64;
        Way { places: vec![Place::Presence(Column::of(slot), null)], cost: (crowd + 1) * weight }
    }

    fn value(&self, slot: Slot) -> Way {
        Way { places: vec![Place::Value(Column::of(slot))], ..self.presence(slot, false) }
    }
}

/// The parts that must all be TRUE.
fn flatten<'p>(predicate: &'p Predicate, not: bool, out: &mut Vec<Part<'p>>) {
    match (predicate, not) {
        (Predicate::And(parts), false) | (Predicate::Or(parts), true) => {
            parts.iter().for_each(|part| flatten(part, not, out));
        }
        (Predicate::Not(inner), not) => flatten(inner, !not, out),
        (part, not) => out.push((part, not)),
    }
}

fn better(best: &mut Option<Way>, new: Option<Way>) {
    if let Some(new) = new
        && best.as_ref().is_none_or(|best| new.cost < best.cost)
    {
        *best = Some(new);
    }
}

/// What a comparison leaves where it is one of order.
fn spans_of(test: &Test, not: bool) -> Option<Spans> {
    if !not {
        return Spans::of(&test.op);
    }
    // What is not UNKNOWN is one or the other.
    Spans::of(&match &test.op {
        TestOp::Gt(value) => TestOp::Lte(value.clone()),
        TestOp::Gte(value) => TestOp::Lt(value.clone()),
        TestOp::Lt(value) => TestOp::Gte(value.clone()),
        TestOp::Lte(value) => TestOp::Gt(value.clone()),
        _ => return None,
    })
}

/// That some value is there says nearly nothing of rows that must be more.
pub(super) fn loosen(places: &mut [Place]) {
    for place in places {
        if let Place::Presence(column, false) = place {
            *place = Place::Value(*column);
        }
    }
}

/// Each place once, and the intervals of a column apart: no two begin or end alike.
pub(super) fn tidy(places: &mut Vec<Place>) {
    if places.len() < 2 {
        return;
    }
    let mut spans = Vec::new();
    let mut seen = HashSet::new();
    places.retain(|place| match place {
        Place::Range(column, span) => {
            spans.push((*column, **span));
            false
        }
        place => seen.insert(place.clone()),
    });
    spans.sort_unstable_by_key(|(column, span)| (*column, span.low()));
    spans.dedup_by(|(column, next), (known, span)| *column == *known && span.join(*next));
    places.extend(spans.into_iter().map(|(column, span)| Place::Range(column, span.into())));
}
