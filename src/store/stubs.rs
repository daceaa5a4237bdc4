//! Stand-ins until reader and transaction read.
use super::*;
use crate::filter::Predicate;
use crate::model::change::Row;
use crate::model::related::RelatedSet;
use crate::model::schema::Schema;
use crate::model::value::Value;

macro_rules! rows {
    ($name:ident) => {
        impl Rows for $name<'_> {
            fn catalog(&self) -> &Arc<Catalog> {
                todo!()
            }
            fn get(&self, _: &Schema, _: &Value) -> Result<Option<Arc<Row>>> {
                todo!()
            }
            fn select(&self, _: &Query) -> Result<Vec<Arc<Row>>> {
                todo!()
            }
            fn count(&self, _: &Schema, _: &Predicate) -> Result<u64> {
                todo!()
            }
            fn gather(&self, _: &Schema, _: &[Arc<Row>], _: &Paths) -> Result<RelatedSet> {
                todo!()
            }
        }
    };
}
rows!(Reader);
rows!(Tx);
