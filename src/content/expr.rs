//! `$expr`: `+ - * /` on numbers and `||` on text, over a record's own fields and literals.
//!
//! Compiled once per request into postfix steps, so that running it needs no recursion. A NULL
//! operand makes the result NULL, as in SQL. Integers stay integers (division cuts towards zero),
//! a float makes the rest float; overflow and division by zero are errors.

use std::sync::Arc;

use crate::error::clip;
use crate::model::change::Row;
use crate::model::schema::{Schema, Slot};
use crate::model::value::Value;

/// Deepest parentheses: bounds the parser's recursion.
const EXPR_DEPTH: usize = 32;

/// A checked expression; whether it gives a number or text is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    steps: Vec<Step>,
    fields: Vec<Slot>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Load(Slot),
    Push(Value),
    Negate,
    Apply(Operator),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Join,
}

impl Operator {
    fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Join => "||",
        }
    }

    fn takes(self) -> Kind {
        if self == Operator::Join { Kind::Text } else { Kind::Number }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Number => "a number",
            Kind::Text => "text",
        }
    }
}

impl Expr {
    /// Compiles `text`, at most `bytes` long, for the column `target` of `schema`; `readable` says
    /// which columns may be named, others are answered like unknown ones.
    ///
    /// # Errors
    /// What is wrong, for a message that begins with the target's name.
    pub fn compile(
        text: &str,
        bytes: usize,
        schema: &Schema,
        target: Slot,
        readable: impl Fn(Slot) -> bool,
    ) -> Result<Expr, String> {
        if text.len() > bytes {
            return Err(format!("an expression is at most {bytes} bytes long"));
        }
        let expected = kind_of(schema, target).ok_or_else(|| {
            format!("$expr computes numbers and text, not {}", schema.columns[target].ty.name())
        })?;
        let mut parser = Parser { text, at: 0, schema, readable: &readable, steps: Vec::new() };
        let kind = parser.joined(0)?;
        parser.skip();
        if parser.at < text.len() {
            return Err(parser.unexpected());
        }
        if kind != expected {
            return Err(format!("the expression gives {}, not {}", kind.name(), expected.name()));
        }
        let mut fields: Vec<Slot> = parser
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Load(slot) => Some(*slot),
                _ => None,
            })
            .collect();
        fields.sort_unstable();
        fields.dedup();
        Ok(Expr { steps: parser.steps, fields })
    }

    /// The columns it reads, each once.
    pub fn fields(&self) -> &[Slot] {
        &self.fields
    }

    /// Whether it joins texts: a short one may make a large one of others, again and again.
    pub fn joins(&self) -> bool {
        self.steps.contains(&Step::Apply(Operator::Join))
    }

    /// The result for a record's old state: Null, Int, Float or Text, at most `bytes` long.
    ///
    /// # Errors
    /// Overflow, division by zero, text too long.
    pub fn run(&self, row: &Row, bytes: usize) -> Result<Value, String> {
        let mut stack: Vec<Value> = Vec::new();
        for step in &self.steps {
            match step {
                Step::Load(slot) => stack.push(row.get(*slot).clone()),
                Step::Push(value) => stack.push(value.clone()),
                Step::Negate => {
                    let value = stack.pop().unwrap_or(Value::Null);
                    stack.push(arithmetic(Operator::Subtract, &Value::Int(0), &value)?);
                }
                Step::Apply(operator) => {
                    let right = stack.pop().unwrap_or(Value::Null);
                    let left = stack.pop().unwrap_or(Value::Null);
                    stack.push(match operator {
                        Operator::Join => join(&left, &right, bytes)?,
                        _ => arithmetic(*operator, &left, &right)?,
                    });
                }
            }
        }
        Ok(stack.pop().unwrap_or(Value::Null))
    }
}

/// `$add` on a number: NULL counts as 0, as in FastSchema.
///
/// # Errors
/// Overflow.
pub fn add(old: &Value, increment: &Value) -> Result<Value, String> {
    let old = if old.is_null() { &Value::Int(0) } else { old };
    arithmetic(Operator::Add, old, increment)
}

fn kind_of(schema: &Schema, slot: Slot) -> Option<Kind> {
    let column = &schema.columns[slot];
    if column.key_of.is_some() {
        None
    } else if column.ty.is_number() {
        Some(Kind::Number)
    } else if column.ty.is_text() {
        Some(Kind::Text)
    } else {
        None
    }
}

fn join(left: &Value, right: &Value, bytes: usize) -> Result<Value, String> {
    let (Value::Text(left), Value::Text(right)) = (left, right) else {
        return Ok(Value::Null);
    };
    if left.len() + right.len() > bytes {
        return Err(format!("the expression gives text over {bytes} bytes"));
    }
    Ok(Value::Text(Arc::from([&**left, &**right].concat())))
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value, String> {
    let overflow = || format!("{} overflows", operator.sign());
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        if operator == Operator::Divide && *right == 0 {
            return Err("division by zero".to_owned());
        }
        return match operator {
            Operator::Add => left.checked_add(*right),
            Operator::Subtract => left.checked_sub(*right),
            Operator::Multiply => left.checked_mul(*right),
            Operator::Divide => left.checked_div(*right),
            Operator::Join => None,
        }
        .map(Value::Int)
        .ok_or_else(overflow);
    }
    let (Some(left), Some(right)) = (float(left), float(right)) else {
        return Ok(Value::Null);
    };
    let result = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide if right == 0.0 => return Err("division by zero".to_owned()),
        Operator::Divide => left / right,
        Operator::Join => return Ok(Value::Null),
    };
    match result.is_finite() {
        true => Ok(Value::Float(result)),
        false => Err(overflow()),
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

/// Recursive descent. `||` takes text only and the others numbers only, so how it binds beside them
/// makes no difference to what is accepted.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    schema: &'a Schema,
    readable: &'a dyn Fn(Slot) -> bool,
    steps: Vec<Step>,
}

impl Parser<'_> {
    fn joined(&mut self, depth: usize) -> Result<Kind, String> {
        self.chain(depth, &[("||", Operator::Join)], |parser, depth| {
            parser.chain(
                depth,
                &[("+", Operator::Add), ("-", Operator::Subtract)],
                |parser, depth| {
                    parser.chain(
                        depth,
                        &[("*", Operator::Multiply), ("/", Operator::Divide)],
                        Parser::operand,
                    )
                },
            )
        })
    }

    /// Operands of one level of binding, from left to right.
    fn chain(
        &mut self,
        depth: usize,
        operators: &[(&str, Operator)],
        next: fn(&mut Self, usize) -> Result<Kind, String>,
    ) -> Result<Kind, String> {
        let left = next(self, depth)?;
        loop {
            self.skip();
            let rest = &self.text[self.at..];
            let found = operators.iter().find(|(sign, _)| rest.starts_with(sign));
            let Some((sign, operator)) = found else { return Ok(left) };
            self.at += sign.len();
            let right = next(self, depth)?;
            for kind in [left, right] {
                if kind != operator.takes() {
                    return Err(format!(
                        "{sign} works on {}, not on {}",
                        operator.takes().name(),
                        kind.name()
                    ));
                }
            }
            self.steps.push(Step::Apply(*operator));
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Kind, String> {
        if depth > EXPR_DEPTH {
            return Err(format!("an expression nests at most {EXPR_DEPTH} deep"));
        }
        self.skip();
        match self.text.as_bytes().get(self.at) {
            Some(b'(') => {
                self.at += 1;
                let kind = self.joined(depth + 1)?;
                self.skip();
                if self.text.as_bytes().get(self.at) != Some(&b')') {
                    return Err(self.unexpected());
                }
                self.at += 1;
                Ok(kind)
            }
            Some(b'-') => {
                self.at += 1;
                // `-9223372036854775808` is a literal of its own: its positive twin is none.
                if self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_digit) {
                    return self.number(true);
                }
                let kind = self.operand(depth + 1)?;
                if kind != Kind::Number {
                    return Err("- works on a number, not on text".to_owned());
                }
                self.steps.push(Step::Negate);
                Ok(kind)
            }
            Some(b'\'') => self.string(),
            Some(byte) if byte.is_ascii_digit() => self.number(false),
            Some(byte) if byte.is_ascii_alphabetic() || *byte == b'_' => self.field(),
            _ => Err(self.unexpected()),
        }
    }

    fn field(&mut self) -> Result<Kind, String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        let slot = self.schema.column(name).filter(|slot| (self.readable)(*slot));
        let Some(slot) = slot else {
            return Err(format!("unknown field '{}'", clip(name)));
        };
        let Some(kind) = kind_of(self.schema, slot) else {
            return Err(format!("field '{name}' is neither a number nor text"));
        };
        self.at += end;
        self.steps.push(Step::Load(slot));
        Ok(kind)
    }

    fn number(&mut self, negative: bool) -> Result<Kind, String> {
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            let exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E');
            match bytes[end] {
                b'0'..=b'9' | b'.' | b'e' | b'E' => end += 1,
                b'+' | b'-' if exponent => end += 1,
                _ => break,
            }
        }
        let text = format!("{}{}", if negative { "-" } else { "" }, &rest[..end]);
        let whole = rest[..end].bytes().all(|byte| byte.is_ascii_digit());
        let value = match (whole, text.parse::<i64>(), text.parse::<f64>()) {
            (true, Ok(number), _) => Value::Int(number),
            (false, _, Ok(number)) if number.is_finite() => Value::Float(number),
            _ => return Err(format!("'{}' is no number within 64 bits", clip(&text))),
        };
        self.at += end;
        self.steps.push(Step::Push(value));
        Ok(Kind::Number)
    }

    /// `'it''s'`, as in SQL.
    fn string(&mut self) -> Result<Kind, String> {
        let mut out = String::new();
        let mut rest = &self.text[self.at + 1..];
        loop {
            let Some(end) = rest.find('\'') else {
                return Err("a text literal does not end; close it with '".to_owned());
            };
            out.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            if !rest.starts_with('\'') {
                break;
            }
            out.push('\'');
            rest = &rest[1..];
        }
        if out.contains('\0') {
            return Err("text must not contain U+0000".to_owned());
        }
        self.at = self.text.len() - rest.len();
        self.steps.push(Step::Push(Value::Text(out.into())));
        Ok(Kind::Text)
    }

    fn skip(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn unexpected(&self) -> String {
        match self.text[self.at..].chars().next() {
            None => "the expression ends too early".to_owned(),
            Some(found) => format!(
                "unexpected '{}' at character {}; an expression is made of + - * / || ( ), fields, \
                 numbers and 'text'",
                found.escape_debug(),
                self.text[..self.at].chars().count() + 1
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::tests::schema;

    fn run(text: &str, target: &str, row: &[Value]) -> Result<Value, String> {
        let schema = schema(&[
            ("id", "uint64"),
            ("n", "int"),
            ("small", "int8"),
            ("f", "float64"),
            ("s", "string"),
            ("secret", "int"),
            ("on", "bool"),
        ]);
        let target = schema.column(target).unwrap();
        let secret = schema.column("secret").unwrap();
        let expr = Expr::compile(text, 1024, &schema, target, |slot| slot != secret)?;
        expr.run(&Row::new(row.to_vec()), 20)
    }

    fn row() -> Vec<Value> {
        let text = Value::Text("it".into());
        vec![
            Value::Int(1),
            Value::Int(7),
            Value::Int(2),
            Value::Float(0.5),
            text,
            Value::Int(9),
            Value::Bool(true),
        ]
    }

    #[test]
    fn results() {
        for (text, target, result) in [
            ("n + 1", "n", Value::Int(8)),
            ("1+2*3", "n", Value::Int(7)),
            ("(1+2)*3", "n", Value::Int(9)),
            ("n / 2", "n", Value::Int(3)),
            ("-n / 2", "n", Value::Int(-3)),
            ("10 - 2 - 3", "n", Value::Int(5)),
            ("n - -1", "n", Value::Int(8)),
            ("-9223372036854775808", "n", Value::Int(i64::MIN)),
            ("9007199254740993 + 0", "n", Value::Int(9_007_199_254_740_993)),
            ("n * f", "f", Value::Float(3.5)),
            ("1e3 / 4", "f", Value::Float(250.0)),
            ("s || '''s' || ' ' || s", "s", Value::Text("it's it".into())),
        ] {
            assert_eq!(run(text, target, &row()), Ok(result), "{text}");
        }
        let mut nulls = row();
        nulls[1] = Value::Null;
        nulls[4] = Value::Null;
        assert_eq!(run("n + 1", "n", &nulls), Ok(Value::Null));
        assert_eq!(run("s || 'x'", "s", &nulls), Ok(Value::Null));
    }

    #[test]
    fn refusals() {
        let deep = format!("{}n{}", "(".repeat(400), ")".repeat(400));
        let long = "n+".repeat(600);
        for (text, target, culprit) in [
            ("", "n", "ends too early"),
            ("n +", "n", "ends too early"),
            ("n 1", "n", "'1' at character 3"),
            ("lower(s)", "s", "unknown field 'lower'"),
            ("secret", "n", "unknown field 'secret'"),
            ("nope + 1", "n", "unknown field 'nope'"),
            ("on", "n", "neither a number nor text"),
            ("n % 2", "n", "'%'"),
            ("n; drop table x", "n", "';'"),
            ("(n", "n", "ends too early"),
            ("s + 1", "n", "+ works on a number, not on text"),
            ("n || 's'", "s", "|| works on text"),
            ("n", "s", "gives a number, not text"),
            ("s", "n", "gives text, not a number"),
            ("-s", "s", "- works on"),
            ("1", "on", "not bool"),
            ("1 / 0", "n", "division by zero"),
            ("f / 0.0", "f", "division by zero"),
            ("9223372036854775807 + n", "n", "+ overflows"),
            ("-9223372036854775807 - 1 - n", "n", "- overflows"),
            ("(-9223372036854775808) / -1", "n", "/ overflows"),
            ("1e308 * 10", "f", "* overflows"),
            ("9223372036854775808", "n", "64 bits"),
            ("1.2.3", "f", "no number"),
            ("'abc", "s", "does not end"),
            ("s||s||s||s||s||s||s||s||s||s||s", "s", "over 20 bytes"),
            (&deep, "n", "32 deep"),
            (&long, "n", "1024 bytes"),
        ] {
            let error = run(text, target, &row()).expect_err(text);
            assert!(error.contains(culprit), "{text}: {error}");
        }
    }

    #[test]
    fn adding() {
        assert_eq!(add(&Value::Null, &Value::Int(3)), Ok(Value::Int(3)));
        assert_eq!(add(&Value::Float(0.5), &Value::Int(3)), Ok(Value::Float(3.5)));
        assert!(add(&Value::Int(i64::MAX), &Value::Int(1)).is_err());
    }
}
