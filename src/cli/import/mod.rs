pub mod convert;
pub mod read;
