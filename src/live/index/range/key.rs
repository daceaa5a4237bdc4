//! Values as numbers of the same order, and the intervals that comparisons make of them.

use crate::filter::TestOp;
use crate::model::value::Value;

/// A value's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// All of it.
    Narrow(u64),
    /// Its first 16 bytes: values that begin alike have one number.
    Wide(u128),
}

impl Point {
    /// `None` for NULL and what has no order.
    pub(super) fn of(value: &Value) -> Option<Point> {
        const SIGN: u64 = 1 << 63;
        Some(match value {
            Value::Bool(truth) => Point::Narrow(u64::from(*truth)),
            Value::Int(number) | Value::Time(number) => Point::Narrow(*number as u64 ^ SIGN),
            Value::Float(number) => {
                // Adding nothing makes one zero of the two.
                let bits = (number + 0.0).to_bits();
                Point::Narrow(if bits & SIGN == 0 { bits | SIGN } else { !bits })
            }
            Value::Text(text) => Point::Wide(beginning(text.as_bytes())),
            Value::Uuid(id) => Point::Wide(id.as_u128()),
            Value::Null | Value::Json(_) | Value::Bytes(_) => return None,
        })
    }
}

fn beginning(text: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = text.len().min(16);
    bytes[..length].copy_from_slice(&text[..length]);
    u128::from_be_bytes(bytes)
}

/// From one number to another, both within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::live::index) enum Span {
    Narrow(u64, u64),
    Wide(u128, u128),
}

impl Span {
    /// Where it begins, for putting those of one column in order.
    pub(in crate::live::index) fn low(self) -> u128 {
        match self {
            Span::Narrow(low, _) => u128::from(low),
            Span::Wide(low, _) => low,
        }
    }

    /// Takes in one that begins no earlier, if the two meet.
    pub(in crate::live::index) fn join(&mut self, next: Span) -> bool {
        match (self, next) {
            (Span::Narrow(_, high), Span::Narrow(from, to)) if from <= *high => {
                *high = to.max(*high);
            }
            (Span::Wide(_, high), Span::Wide(from, to)) if from <= *high => *high = to.max(*high),
            _ => return false,
        }
        true
    }
}

/// What several comparisons of one column leave together.
#[derive(Clone, Copy, Debug)]
pub(in crate::live::index) struct Spans {
    /// `None`: no value passes all of them.
    pub(in crate::live::index) span: Option<Span>,
    /// Whether either end is bounded.
    low: bool,
    high: bool,
}

impl Spans {
    /// What one comparison leaves; `None` where the operator is none of these.
    pub(in crate::live::index) fn of(op: &TestOp) -> Option<Spans> {
        let (value, low) = match op {
            TestOp::Gt(value) | TestOp::Gte(value) => (value, true),
            TestOp::Lt(value) | TestOp::Lte(value) => (value, false),
            _ => return None,
        };
        let itself = matches!(op, TestOp::Gte(_) | TestOp::Lte(_));
        let span = match (Point::of(value)?, low) {
            (Point::Narrow(point), true) => {
                let from = if itself { Some(point) } else { point.checked_add(1) };
                from.map(|from| Span::Narrow(from, u64::MAX))
            }
            (Point::Narrow(point), false) => {
                let to = if itself { Some(point) } else { point.checked_sub(1) };
                to.map(|to| Span::Narrow(0, to))
            }
            // Others may have the same number: they are within until they are checked.
            (Point::Wide(point), true) => Some(Span::Wide(point, u128::MAX)),
            (Point::Wide(point), false) => Some(Span::Wide(0, point)),
        };
        Some(Spans { span, low, high: !low })
    }

    /// Both together.
    pub(in crate::live::index) fn and(self, other: Spans) -> Spans {
        let span = match (self.span, other.span) {
            (Some(Span::Narrow(low, high)), Some(Span::Narrow(from, to))) => {
                let (low, high) = (low.max(from), high.min(to));
                (low <= high).then_some(Span::Narrow(low, high))
            }
            (Some(Span::Wide(low, high)), Some(Span::Wide(from, to))) => {
                let (low, high) = (low.max(from), high.min(to));
                (low <= high).then_some(Span::Wide(low, high))
            }
            // A column's literals have one type, so where the two differ one is `None`.
            _ => None,
        };
        Spans { span, low: self.low || other.low, high: self.high || other.high }
    }

    /// Whether it has two ends.
    pub(in crate::live::index) fn is_closed(&self) -> bool {
        self.low && self.high
    }
}
