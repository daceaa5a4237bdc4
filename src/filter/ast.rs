//! A filter as it was typed, each part with its JSON path for the error.
//!
//! Nothing here knows a schema: names and literals are checked by [`super::compile`]. Literals
//! stay JSON, so that access rules can put a principal's values where placeholders stand
//! ([`Ast::map_literals`]) while in a client's filter `"$user.id"` is plain text.

use std::io;

use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::{json, near};

/// A parsed filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Ast {
    pub root: Node,
}

/// One part of a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Field(Field),
}

/// `"category.name": {…}` or `"views": 3`.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name as typed, dots included.
    pub name: String,
    /// JSON path of this field within the filter, e.g. `$or[1].category.name`.
    pub at: String,
    /// ANDed; never empty.
    pub comparisons: Vec<Comparison>,
}

/// One operator and its literal.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub operator: Operator,
    pub literal: Literal,
    /// JSON path within the filter, e.g. `$or[1].category.name.$gt`.
    pub at: String,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// JSON as typed.
    Typed(Json),
    /// From a query string's brackets: scalars are text and read by the field's type, arrays may
    /// be objects with numeric keys.
    Untyped(Json),
    /// Some value of the right type, not known yet (a placeholder in an access rule that is only
    /// being checked): compiles to UNKNOWN after field and operator are checked.
    Unknown,
}

/// The operators that compare a field with a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    NotLike,
    Contains,
    NotContains,
    ContainsFold,
    NotContainsFold,
    In,
    Nin,
    Null,
}

impl Operator {
    /// Every operator, in the order documents list them.
    pub const ALL: [Operator; 15] = [
        Operator::Eq,
        Operator::Neq,
        Operator::Gt,
        Operator::Gte,
        Operator::Lt,
        Operator::Lte,
        Operator::Like,
        Operator::NotLike,
        Operator::Contains,
        Operator::NotContains,
        Operator::ContainsFold,
        Operator::NotContainsFold,
        Operator::In,
        Operator::Nin,
        Operator::Null,
    ];

    /// As written in a filter.
    pub fn name(self) -> &'static str {
        match self {
            Operator::Eq => "$eq",
            Operator::Neq => "$neq",
            Operator::Gt => "$gt",
            Operator::Gte => "$gte",
            Operator::Lt => "$lt",
            Operator::Lte => "$lte",
            Operator::Like => "$like",
            Operator::NotLike => "$notlike",
            Operator::Contains => "$contains",
            Operator::NotContains => "$notcontains",
            Operator::ContainsFold => "$containsfold",
            Operator::NotContainsFold => "$notcontainsfold",
            Operator::In => "$in",
            Operator::Nin => "$nin",
            Operator::Null => "$null",
        }
    }

    /// The operator that is written so in a filter.
    pub fn named(name: &str) -> Option<Operator> {
        Operator::ALL.into_iter().find(|operator| operator.name() == name)
    }

    /// Those that look for a text within another, which takes long where that is.
    pub fn searches(self) -> bool {
        matches!(
            self,
            Operator::Like
                | Operator::NotLike
                | Operator::Contains
                | Operator::NotContains
                | Operator::ContainsFold
                | Operator::NotContainsFold
        )
    }

    /// `$in` and `$nin`: the operators whose literal is an array.
    pub fn takes_array(self) -> bool {
        matches!(self, Operator::In | Operator::Nin)
    }
}

const LOGICAL: [&str; 3] = ["$and", "$or", "$not"];

/// Parses a filter. `untyped` says that it came from brackets in a query string, where every
/// scalar is text and arrays may be objects with numeric keys.
///
/// Errors (all [`crate::error::Kind::Bad`]) begin with the JSON path of the part at fault: what
/// is no filter, an unknown operator, and anything over the limits. `$and` within `$and` is one
/// deeper; a node is a comparison, a `$and`, `$or` or `$not`, or an empty filter.
pub fn parse(filter: &Json, limits: &Limits, untyped: bool) -> Result<Ast> {
    let mut room = Room(limits.filter_bytes);
    if serde_json::to_writer(&mut room, filter).is_err() {
        return Err(Error::bad(format!(
            "the filter is longer than {} bytes of JSON",
            limits.filter_bytes
        )));
    }
    let mut parser = Parser { limits, untyped, nodes: 0 };
    let root = parser.filter(filter, "", 1)?;
    Ok(Ast { root })
}

/// Fails when more is written than there is room for: a length without the text.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ast {
    /// Names of the fields of the own schema that the filter reads: first parts of paths, as
    /// typed, each once.
    pub fn fields(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.root.visit(&mut |field| {
            let head = field.name.split('.').next().unwrap_or_default();
            if !names.contains(&head) {
                names.push(head);
            }
        });
        names
    }

    /// Shows every comparison to `change`, which may replace its literal. Stops at an error.
    pub fn map_literals<E>(
        &mut self,
        change: &mut impl FnMut(&Field, Operator, &mut Literal) -> Result<(), E>,
    ) -> Result<(), E> {
        self.root.map_literals(change)
    }
}

impl Node {
    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Field)) {
        match self {
            Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|node| node.visit(see)),
            Node::Not(node) => node.visit(see),
            Node::Field(field) => see(field),
        }
    }

    fn map_literals<E>(
        &mut self,
        change: &mut impl FnMut(&Field, Operator, &mut Literal) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Node::And(nodes) | Node::Or(nodes) => {
                nodes.iter_mut().try_for_each(|node| node.map_literals(change))
            }
            Node::Not(node) => node.map_literals(change),
            Node::Field(field) => {
                let mut comparisons = std::mem::take(&mut field.comparisons);
                let done = comparisons.iter_mut().try_for_each(|comparison| {
                    change(field, comparison.operator, &mut comparison.literal)
                });
                field.comparisons = comparisons;
                done
            }
        }
    }
}

struct Parser<'a> {
    limits: &'a Limits,
    untyped: bool,
    nodes: usize,
}

impl Parser<'_> {
    /// One filter: an object of fields and logical operators. `at` is its path, "" at the root.
    fn filter(&mut self, filter: &Json, at: &str, depth: usize) -> Result<Node> {
        if depth > self.limits.filter_depth {
            return Err(fault(
                "",
                format!(
                    "the filter is nested deeper than {} levels of $and, $or and $not",
                    self.limits.filter_depth
                ),
            ));
        }
        let Json::Object(map) = filter else {
            return Err(fault(
                at,
                format!(
                    "expected a filter such as {{\"name\": \"x\"}}, got {}",
                    json::brief(filter)
                ),
            ));
        };
        if map.is_empty() {
            self.node()?;
        }
        let mut nodes = Vec::with_capacity(map.len());
        for (key, value) in map {
            let inside = join(at, key);
            nodes.push(match key.as_str() {
                "$and" => Node::And(self.filters(value, &inside, depth)?),
                "$or" => Node::Or(self.filters(value, &inside, depth)?),
                "$not" => {
                    self.node()?;
                    Node::Not(Box::new(self.filter(value, &inside, depth + 1)?))
                }
                _ if key.starts_with('$') => return Err(self.unknown_logical(at, key)),
                _ => Node::Field(self.field(key, value, inside)?),
            });
        }
        Ok(match nodes.pop() {
            Some(only) if nodes.is_empty() => only,
            Some(last) => {
                nodes.push(last);
                Node::And(nodes)
            }
            None => Node::And(nodes),
        })
    }

    /// The array of filters under `$and` or `$or`.
    fn filters(&mut self, value: &Json, at: &str, depth: usize) -> Result<Vec<Node>> {
        self.node()?;
        let expected =
            || fault(at, format!("expected an array of filters, got {}", json::brief(value)));
        let filters = elements(value, self.untyped).ok_or_else(expected)?;
        self.count_elements(filters.len(), at)?;
        filters
            .into_iter()
            .enumerate()
            .map(|(index, filter)| self.filter(filter, &format!("{at}[{index}]"), depth + 1))
            .collect()
    }

    fn field(&mut self, name: &str, value: &Json, at: String) -> Result<Field> {
        if name.split('.').any(str::is_empty) {
            return Err(fault(&at, "expected a field's name or a path such as category.name"));
        }
        // One more part than hops: the last names the field. A bare relation at the end is one
        // hop more, which only the schema can tell.
        if name.split('.').count() > self.limits.filter_hops + 1 {
            return Err(fault(&at, too_many_hops(self.limits)));
        }
        let mut comparisons = Vec::new();
        match value {
            Json::Object(map) => {
                if map.is_empty() {
                    return Err(fault(
                        &at,
                        "expected an operator such as {\"$gt\": 1}, got {}; an empty JSON object \
                         is compared with {\"$eq\": {}}",
                    ));
                }
                for (key, literal) in map {
                    let Some(operator) = Operator::named(key) else {
                        return Err(unknown_operator(&at, name, key));
                    };
                    comparisons.push(self.comparison(operator, literal, join(&at, key))?);
                }
            }
            literal => comparisons.push(self.comparison(Operator::Eq, literal, at.clone())?),
        }
        Ok(Field { name: name.to_owned(), at, comparisons })
    }

    fn comparison(&mut self, operator: Operator, literal: &Json, at: String) -> Result<Comparison> {
        self.node()?;
        let literal = if operator.takes_array() {
            // An array that came as an object with numeric keys becomes one here; what is no
            // array at all may still be a placeholder and is left to `compile`.
            match elements(literal, self.untyped) {
                Some(elements) => {
                    self.count_elements(elements.len(), &at)?;
                    Json::Array(elements.into_iter().cloned().collect())
                }
                None => literal.clone(),
            }
        } else {
            if let Json::Array(elements) = literal {
                self.count_elements(elements.len(), &at)?;
            }
            literal.clone()
        };
        let literal =
            if self.untyped { Literal::Untyped(literal) } else { Literal::Typed(literal) };
        Ok(Comparison { operator, literal, at })
    }

    fn node(&mut self) -> Result<()> {
        self.nodes += 1;
        if self.nodes > self.limits.filter_nodes {
            return Err(fault(
                "",
                format!(
                    "the filter has more than {} comparisons, $and, $or and $not",
                    self.limits.filter_nodes
                ),
            ));
        }
        Ok(())
    }

    fn count_elements(&self, count: usize, at: &str) -> Result<()> {
        check_elements(count, self.limits, at)
    }

    fn unknown_logical(&self, at: &str, key: &str) -> Error {
        if Operator::named(key).is_some() {
            return fault(
                at,
                format!("{key} stands within a field, as in {{\"name\": {{\"{key}\": …}}}}"),
            );
        }
        let hint = near::hint(key, LOGICAL);
        let known = if hint.is_empty() { "; use $and, $or or $not" } else { &hint };
        fault(at, format!("unknown operator '{}'{known}", json::cut(key)))
    }
}

/// The bound on arrays, also for those that placeholders stand for.
pub(super) fn check_elements(count: usize, limits: &Limits, at: &str) -> Result<()> {
    if count > limits.filter_elements {
        return Err(fault(
            at,
            format!("expected at most {} elements, got {count}", limits.filter_elements),
        ));
    }
    Ok(())
}

pub(super) fn too_many_hops(limits: &Limits) -> String {
    format!("a path may cross at most {} relations", limits.filter_hops)
}

fn unknown_operator(at: &str, field: &str, key: &str) -> Error {
    if LOGICAL.contains(&key) {
        return fault(
            at,
            format!("{key} holds whole filters: write {{\"{key}\": …}} around '{field}'"),
        );
    }
    let shown = json::cut(key);
    if key.starts_with('$') {
        let hint = near::hint(key, Operator::ALL.map(Operator::name));
        let known = if hint.is_empty() { "; use $eq, $gt, $like, $in, $null …" } else { &hint };
        return fault(at, format!("unknown operator '{shown}'{known}"));
    }
    if let Some(operator) = Operator::named(&format!("${key}")) {
        return fault(
            at,
            format!("unknown operator '{shown}'; did you mean '{}'?", operator.name()),
        );
    }
    if key.bytes().all(|byte| byte.is_ascii_digit()) {
        return fault(at, format!("unknown operator '{shown}'; an array stands under $in"));
    }
    fault(
        at,
        format!(
            "unknown operator '{shown}'; write '{field}.{shown}' for a related field, \
             {{\"$eq\": {{…}}}} for a JSON object"
        ),
    )
}

/// The elements of an array, or of an object with numeric keys where `untyped`.
fn elements(value: &Json, untyped: bool) -> Option<Vec<&Json>> {
    match value {
        Json::Array(elements) => Some(elements.iter().collect()),
        Json::Object(map) if untyped && !map.is_empty() => {
            let mut numbered = Vec::with_capacity(map.len());
            for (key, value) in map {
                let plain = key.bytes().all(|byte| byte.is_ascii_digit());
                numbered.push((key.parse::<u32>().ok().filter(|_| plain)?, value));
            }
            numbered.sort_by_key(|(index, _)| *index);
            let twice = numbered.windows(2).any(|pair| pair[0].0 == pair[1].0);
            (!twice).then(|| numbered.into_iter().map(|(_, value)| value).collect())
        }
        _ => None,
    }
}

/// An error that begins with the path of the part at fault.
pub(super) fn fault(at: &str, message: impl std::fmt::Display) -> Error {
    // Paths are made of what the client typed: bounded before they are sent back.
    match at {
        "" => Error::bad(message.to_string()),
        _ if at.chars().count() <= 120 => Error::bad(format!("{at}: {message}")),
        _ => Error::bad(format!("{}…: {message}", at.chars().take(120).collect::<String>())),
    }
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}
