//! Pure types: no I/O, no runtime, no wire formats.

pub mod catalog;
pub mod change;
pub mod cursor;
pub mod file;
pub mod json;
pub mod lines;
pub mod link;
pub mod map;
pub mod near;
pub mod related;
pub mod schema;
pub mod system;
pub mod time;
pub mod types;
pub mod value;
