//! One rule of a schema file → one alternative: placeholders become values, names become fields.
//!
//! A placeholder's value is put into the filter as a literal, never as part of its syntax: an
//! object from a token cannot bring operators along, `%` from a user name is no wildcard.

use serde_json::Value as Json;

use crate::filter::Predicate;
use crate::filter::ast::{self, Literal, Operator};
use crate::filter::compile::{self, Unrestricted};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::schema::{Column, FieldRef, RoleRules, Rule, Schema, Shape};
use crate::model::value::Value;

use super::grant::{Action, Alternative, FieldSet};
use super::principal::Principal;

pub use super::check::check;

/// Roles one schema may have rules for: what is shown of a record is worked out with one bit a
/// role.
pub const MOST_ROLES: usize = 64;

/// Whether rules of `role` hold for `principal`.
pub fn holds(role: &str, principal: &Principal) -> bool {
    match role {
        "guest" => true,
        "user" => principal.logged_in,
        _ => principal.roles.iter().any(|own| &**own == role),
    }
}

/// What of `rules` is for `action`.
pub fn rule(rules: &RoleRules, action: Action) -> &Rule {
    match action {
        Action::Read => &rules.read,
        Action::Create => &rules.create,
        Action::Update => &rules.update,
        Action::Delete => &rules.delete,
    }
}

/// The alternative that `rules` give, or `None` where they give nothing: no rule, or one that
/// does not resolve for this principal.
pub fn alternative(
    catalog: &Catalog,
    schema: &Schema,
    principal: &Principal,
    action: Action,
    rules: &RoleRules,
) -> Option<Alternative> {
    // Rules are the operator's own: where clients are held to narrower limits, these are not.
    let limits = &Limits::default();
    let body = match rule(rules, action) {
        Rule::No => return None,
        Rule::Yes => &Default::default(),
        Rule::When(body) => body,
    };
    let filter = match &body.filter {
        None => Predicate::ALL,
        Some(filter) => {
            let mut tree = ast::parse(filter, limits, false).ok()?;
            fill(&mut tree, principal).ok()?;
            compile::compile(&tree, catalog, schema, &Unrestricted, limits).ok()?
        }
    };
    let fields = match &body.fields {
        None if action == Action::Read => FieldSet::all(schema),
        None => writable(schema),
        Some(names) => {
            let mut fields = FieldSet::none(schema);
            if action == Action::Read {
                fields.add(schema, FieldRef::Column(schema.primary));
            }
            for name in names {
                fields.add(schema, schema.field(name)?);
            }
            fields
        }
    };
    let mut set = Vec::with_capacity(body.set.len());
    for (name, given) in &body.set {
        let field = schema.field(name)?;
        let given = match given.as_str().and_then(Variable::parse) {
            Some(variable) => scalar(value(principal, variable.ok()?)?)?,
            None => given.clone(),
        };
        // A null that stands in the rule itself empties the field; it fits every type.
        Value::from_json(&given, set_column(catalog, schema, field)?).ok()?;
        set.push((field, given));
    }
    Some(Alternative { filter, fields, set })
}

/// What a write rule without `fields` may write.
fn writable(schema: &Schema) -> FieldSet {
    let mut fields = FieldSet::all(schema);
    for (slot, column) in schema.columns.iter().enumerate() {
        let stamp = schema.created_at == Some(slot) || schema.updated_at == Some(slot);
        fields.columns[slot] = !column.automatic && !stamp;
    }
    fields
}

/// The column whose type a `set` value has: the field's own, or the related primary key. `None`
/// for to-many relations.
pub(super) fn set_column<'a>(
    catalog: &'a Catalog,
    schema: &'a Schema,
    field: FieldRef,
) -> Option<&'a Column> {
    match field {
        FieldRef::Column(slot) => schema.columns.get(slot),
        FieldRef::Relation(index) => {
            let relation = schema.relations.get(index)?;
            match relation.shape {
                Shape::Key { slot } => schema.columns.get(slot),
                Shape::BackKey { .. } => {
                    catalog.get(relation.target).map(|target| target.primary_column())
                }
                Shape::Many { .. } | Shape::Link { .. } => None,
            }
        }
    }
}

/// What a rule may say instead of a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable<'a> {
    /// A UUID.
    UserId,
    Username,
    /// A list of names.
    Roles,
    /// Whatever the token holds under that name.
    Claim(&'a str),
}

impl<'a> Variable<'a> {
    /// `None` for plain text, an error for text that looks like a variable and is none. (`$5` is
    /// plain text.)
    pub fn parse(text: &'a str) -> Option<Result<Variable<'a>, ()>> {
        let name = text.strip_prefix('$')?;
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            return None;
        }
        Some(match name {
            "user.id" => Ok(Variable::UserId),
            "user.username" => Ok(Variable::Username),
            "user.roles" => Ok(Variable::Roles),
            _ => match name.strip_prefix("claims.") {
                Some(claim) if !claim.is_empty() => Ok(Variable::Claim(claim)),
                _ => Err(()),
            },
        })
    }
}

/// The principal's value for a variable; `None` where it has none.
fn value(principal: &Principal, variable: Variable<'_>) -> Option<Json> {
    let value = match variable {
        Variable::UserId => Json::String(principal.user?.to_string()),
        Variable::Username => Json::String(principal.username.as_ref()?.to_string()),
        Variable::Roles => principal.roles.iter().map(|role| role.to_string()).collect(),
        Variable::Claim(name) => principal.claims.get(name)?.clone(),
    };
    let nothing = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    (!nothing).then_some(value)
}

/// Refuses lists where one value is wanted.
fn scalar(value: Json) -> Option<Json> {
    (!value.is_array()).then_some(value)
}

/// Puts the principal's values where a filter has placeholders. `Err` where one has no value, is
/// unknown or stands where none may.
fn fill(tree: &mut ast::Ast, principal: &Principal) -> Result<(), ()> {
    let lookup = |text: &str| match Variable::parse(text) {
        Some(variable) => value(principal, variable?).map(Some).ok_or(()),
        None => Ok(None),
    };
    tree.map_literals(&mut |_, operator, literal| {
        let Literal::Typed(given) = literal else {
            return Err(());
        };
        match given {
            Json::String(text) => {
                let Some(value) = lookup(text)? else { return Ok(()) };
                *given = match operator {
                    Operator::In | Operator::Nin if value.is_array() => value,
                    // `$null` takes no value of the field but is a question in itself.
                    Operator::In | Operator::Nin | Operator::Null => return Err(()),
                    Operator::Like | Operator::NotLike => verbatim(scalar(value).ok_or(())?),
                    _ => scalar(value).ok_or(())?,
                };
            }
            Json::Array(elements) if operator.takes_array() => {
                for element in elements {
                    match element {
                        Json::String(text) => {
                            if let Some(value) = lookup(text)? {
                                *element = scalar(value).ok_or(())?;
                            }
                        }
                        other if hidden_variable(other).is_some() => return Err(()),
                        _ => {}
                    }
                }
            }
            other if hidden_variable(other).is_some() => return Err(()),
            _ => {}
        }
        Ok(())
    })
}

/// The LIKE pattern that matches just this text: a user's name holds no wildcards.
fn verbatim(value: Json) -> Json {
    match value {
        Json::String(text) => {
            let mut pattern = String::with_capacity(text.len());
            for char in text.chars() {
                if matches!(char, '%' | '_' | '\\') {
                    pattern.push('\\');
                }
                pattern.push(char);
            }
            Json::String(pattern)
        }
        other => other,
    }
}

/// Whether a rule for reading `schema` speaks of the principal itself, not of its roles alone.
pub fn read_by_name(schema: &Schema) -> bool {
    schema.access.roles.iter().any(|rules| match &rules.read {
        Rule::No | Rule::Yes => false,
        Rule::When(body) => {
            let set = body.set.iter().map(|(_, given)| given);
            body.filter.iter().chain(set).any(|given| hidden_variable(given).is_some())
        }
    })
}

/// The first text within that looks like a variable.
pub(super) fn hidden_variable(given: &Json) -> Option<&str> {
    match given {
        Json::String(text) => Variable::parse(text).map(|_| text.as_str()),
        Json::Array(elements) => elements.iter().find_map(hidden_variable),
        Json::Object(map) => map.values().find_map(hidden_variable),
        _ => None,
    }
}
