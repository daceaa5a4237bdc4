//! What one principal sees of other schemas through relations.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::auth::grant::{self, Action, Grant};
use crate::auth::principal::Principal;
use crate::filter::{Predicate, Truth};
use crate::model::catalog::Catalog;
use crate::model::schema::{FieldRef, Schema, SchemaId};

/// Read grants of related schemas, each resolved once.
pub struct Sight<'a> {
    pub catalog: &'a Catalog,
    pub principal: &'a Principal,
    /// `None`: no way through, as there is no grant or it crosses a relation itself.
    grants: RefCell<HashMap<SchemaId, Option<Rc<Grant>>>>,
}

/// Which records of a related schema are there for the principal.
#[derive(Clone, Debug)]
pub enum Visible {
    All,
    None,
    /// Those for which this is TRUE. Crosses no relation.
    When(Arc<Predicate>),
}

impl Visible {
    fn of(filter: Predicate) -> Visible {
        match filter {
            Predicate::Const(Truth::True) => Visible::All,
            Predicate::Const(_) => Visible::None,
            filter => Visible::When(Arc::new(filter)),
        }
    }
}

impl<'a> Sight<'a> {
    /// What `principal` sees under `catalog`.
    pub fn new(catalog: &'a Catalog, principal: &'a Principal) -> Self {
        Sight { catalog, principal, grants: RefCell::default() }
    }

    /// The grant that a path into `target` goes by; `None` where there is no way.
    pub fn through(&self, target: &Schema) -> Option<Rc<Grant>> {
        if let Some(known) = self.grants.borrow().get(&target.id) {
            return known.clone();
        }
        let grant = grant::resolve(self.catalog, target, self.principal, Action::Read);
        let refused = grant.is_nothing() || grant.crosses(self.catalog, target);
        let grant = (!refused).then(|| Rc::new(grant));
        self.grants.borrow_mut().insert(target.id, grant.clone());
        grant
    }

    /// Which records of `target` are visible, in whatever part.
    pub fn visible(&self, target: &Schema) -> Visible {
        self.through(target).map_or(Visible::None, |grant| Visible::of(grant.filter()))
    }

    /// Which records of `target` show `field`: `None` where no alternative holds it.
    pub fn visible_field(&self, target: &Schema, field: FieldRef) -> Option<Visible> {
        let grant = self.through(target)?;
        let holding = grant.alternatives.iter().filter(|held| held.fields.has(field));
        let filters: Vec<Predicate> = holding.map(|held| held.filter.clone()).collect();
        (!filters.is_empty()).then(|| Visible::of(Predicate::or(filters)))
    }
}
