//! LIKE, substring and case folding, each in linear time; the store's SQL functions call these.

use crate::model::value::Value;

/// Literals of `$in` and `$nin`.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSet(pub Vec<Value>);
#[derive(Clone, Debug, PartialEq)]
pub struct Like(pub String);
#[derive(Clone, Debug, PartialEq)]
pub struct Needle(pub String);
#[derive(Clone, Debug, PartialEq)]
pub struct Fold(pub String);
