//! Everything wrong with the access rules of a schema, told before they hold.
//!
//! The block's structure (roles, actions, keys) is checked where the file is parsed; here stand
//! the checks that need the schema and its neighbours: fields, filters, placeholders, values.

use serde_json::Value as Json;

use crate::error::Problem;
use crate::filter::ast::{self, Literal, Operator};
use crate::filter::compile::{self, Unrestricted};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::schema::{Column, FieldRef, RoleRules, Rule, RuleBody, Schema};
use crate::model::value::{FieldType, Value};

use super::grant::Action;
use super::rules::{self, MOST_ROLES, Variable};

const ACTIONS: [Action; 4] = [Action::Read, Action::Create, Action::Update, Action::Delete];

/// Every problem in the access rules of `schema`.
pub fn check(catalog: &Catalog, schema: &Schema) -> Vec<Problem> {
    let mut check = Check { catalog, schema, problems: Vec::new() };
    if schema.access.roles.len() > MOST_ROLES {
        let count = schema.access.roles.len();
        check.tell("access".into(), "access.roles.too_many", "", {
            format!("{count} roles have rules here; at most {MOST_ROLES} may")
        });
    }
    for rules in &schema.access.roles {
        check.role(rules);
    }
    check.problems
}

struct Check<'a> {
    catalog: &'a Catalog,
    schema: &'a Schema,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn tell(&mut self, path: String, code: &str, field: &str, message: String) {
        self.problems.push(Problem {
            code: code.to_owned(),
            file: None,
            line: None,
            path,
            field: field.to_owned(),
            message,
        });
    }

    fn role(&mut self, rules: &RoleRules) {
        let path = format!("access.{}", rules.role);
        for action in ACTIONS {
            if let Rule::When(body) = rules::rule(rules, action) {
                self.body(&format!("{path}.{}", action.name()), action, body);
            }
        }
    }

    fn body(&mut self, path: &str, action: Action, body: &RuleBody) {
        if let Some(filter) = &body.filter {
            self.filter(&format!("{path}.filter"), filter);
        }
        if let Some(fields) = &body.fields {
            for (index, name) in fields.iter().enumerate() {
                if self.schema.field(name).is_none() {
                    self.unknown(format!("{path}.fields[{index}]"), name);
                }
            }
        }
        for (name, given) in &body.set {
            self.set(&format!("{path}.set.{name}"), action, name, given);
        }
    }

    fn unknown(&mut self, path: String, name: &str) {
        let columns = self.schema.columns.iter().map(|column| &*column.name);
        let relations = self.schema.relations.iter().map(|relation| &*relation.name);
        let known: Vec<&str> = columns.chain(relations).collect();
        let message = format!(
            "'{}' has no field '{name}'; its fields are {}",
            self.schema.name,
            known.join(", ")
        );
        self.tell(path, "field.not_found", name, message);
    }

    fn filter(&mut self, path: &str, filter: &Json) {
        let (catalog, schema) = (self.catalog, self.schema);
        let limits = &Limits::default();
        let mut wrong = Vec::new();
        let told = ast::parse(filter, limits, false).and_then(|mut tree| {
            let placeholders = tree.map_literals::<()>(&mut |field, operator, literal| {
                if let Err(message) = placeholder(catalog, schema, &field.name, operator, literal) {
                    wrong.push((field.name.clone(), message));
                }
                Ok(())
            });
            // Nothing in there fails: what is wrong was noted.
            let _ = placeholders;
            compile::compile(&tree, catalog, schema, &Unrestricted, limits).map(drop)
        });
        for (field, message) in wrong {
            self.tell(path.to_owned(), "access.variable.invalid", &field, message);
        }
        if let Err(error) = told {
            self.tell(path.to_owned(), "access.filter.invalid", "", error.message);
        }
    }

    fn set(&mut self, path: &str, action: Action, name: &str, given: &Json) {
        let Some(field) = self.schema.field(name) else {
            return self.unknown(path.to_owned(), name);
        };
        let Some(column) = rules::set_column(self.catalog, self.schema, field) else {
            let message = format!(
                "'{name}' leads to many records; `set` takes columns and relations to one record"
            );
            return self.tell(path.to_owned(), "access.set.invalid", name, message);
        };
        if let FieldRef::Column(slot) = field {
            let schema = self.schema;
            let message = if schema.created_at == Some(slot) || schema.updated_at == Some(slot) {
                Some(format!("'{name}' is set by the server"))
            } else if schema.primary == slot && action == Action::Update {
                Some(format!("'{name}' is the primary key, which never changes"))
            } else {
                None
            };
            if let Some(message) = message {
                return self.tell(path.to_owned(), "access.set.invalid", name, message);
            }
        }
        let wrong = match given {
            Json::String(text) if Variable::parse(text).is_some() => match Variable::parse(text) {
                Some(Ok(Variable::Roles)) => Some(is_list(text)),
                Some(Ok(variable)) => fits(variable, text, name, column).err(),
                _ => Some(unknown_variable(text)),
            },
            given => match rules::hidden_variable(given) {
                Some(text) => Some(alone(text)),
                None if given.is_null() && !self.optional(field) => {
                    Some("expected a value, got null: the field is required".to_owned())
                }
                None => Value::from_json(given, column).err(),
            },
        };
        if let Some(message) = wrong {
            self.tell(path.to_owned(), "access.set.invalid", name, message);
        }
    }

    fn optional(&self, field: FieldRef) -> bool {
        match field {
            FieldRef::Column(slot) => self.schema.columns[slot].optional,
            FieldRef::Relation(index) => self.schema.relations[index].optional,
        }
    }
}

/// The column that a path of a filter ends at; a relation's bare name is the related primary key.
fn leaf<'a>(catalog: &'a Catalog, schema: &'a Schema, path: &str) -> Option<&'a Column> {
    let mut schema = schema;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        match schema.field(name)? {
            FieldRef::Column(slot) => {
                return names.peek().is_none().then_some(&schema.columns[slot]);
            }
            FieldRef::Relation(index) => schema = catalog.get(schema.relations[index].target)?,
        }
    }
    Some(schema.primary_column())
}

/// Checks the placeholders of one comparison and takes them out, so that the rest can be compiled.
fn placeholder(
    catalog: &Catalog,
    schema: &Schema,
    field: &str,
    operator: Operator,
    literal: &mut Literal,
) -> Result<(), String> {
    let Literal::Typed(given) = literal else {
        return Ok(());
    };
    let check = |text: &str, whole: bool| {
        let Some(Ok(variable)) = Variable::parse(text) else {
            return Err(unknown_variable(text));
        };
        if operator == Operator::Null {
            return Err(format!("$null takes true or false, not {text}"));
        }
        let list = whole && operator.takes_array();
        match variable {
            Variable::Roles if !list => Err(is_list(text)),
            Variable::UserId | Variable::Username if list => {
                Err(format!("{} takes a list: write [\"{text}\"]", operator.name()))
            }
            _ => leaf(catalog, schema, field)
                .map_or(Ok(()), |column| fits(variable, text, field, column)),
        }
    };
    let mut told = Ok(());
    match given {
        Json::String(text) if Variable::parse(text).is_some() => {
            told = check(text, true);
            *literal = Literal::Unknown;
        }
        Json::Array(elements) if operator.takes_array() => elements.retain(|element| match element
            .as_str()
            .filter(|text| Variable::parse(text).is_some())
        {
            Some(text) => {
                let first = check(text, false);
                if told.is_ok() {
                    told = first;
                }
                false
            }
            None => {
                if let (Some(text), true) = (rules::hidden_variable(element), told.is_ok()) {
                    told = Err(alone(text));
                }
                true
            }
        }),
        other => {
            if let Some(text) = rules::hidden_variable(other) {
                told = Err(alone(text));
            }
        }
    }
    told
}

/// Whether a variable's value can be one of the column.
fn fits(variable: Variable<'_>, text: &str, field: &str, column: &Column) -> Result<(), String> {
    let (what, fits) = match variable {
        Variable::UserId => ("a UUID", column.ty.is_text() || column.ty == FieldType::Uuid),
        Variable::Username | Variable::Roles => ("text", column.ty.is_text()),
        Variable::Claim(_) => return Ok(()),
    };
    if fits || column.ty == FieldType::Json {
        return Ok(());
    }
    Err(format!("{text} is {what}, '{field}' is of type {}", column.ty.name()))
}

fn is_list(text: &str) -> String {
    format!("{text} is a list: it stands as the whole value of $in or $nin")
}

fn unknown_variable(text: &str) -> String {
    let text = crate::error::clip(text);
    format!(
        "unknown variable '{text}'; there are $user.id, $user.username, $user.roles and \
         $claims.<name>"
    )
}

fn alone(text: &str) -> String {
    match Variable::parse(text) {
        Some(Ok(_)) => format!("{text} stands as the whole value of a field, not within another"),
        _ => unknown_variable(text),
    }
}
