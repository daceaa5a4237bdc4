//! What a plan costs each change that it is held against, and when that is too much.

use crate::error::{Error, Result};
use crate::filter::cost::Cost;
use crate::limits::Limits;

use super::plan::Plan;
use super::shape::{Shape, What};
use super::sight::Visible;

/// The parts of a plan's cost: what the client asked for, and what the rules add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// The client's filter.
    pub filter: Cost,
    /// The rules' filters.
    pub access: Cost,
    /// The projection, relations and what may be seen of them.
    pub select: Cost,
    /// What is compared to see whether something changed.
    pub watch: Cost,
}

impl Costs {
    /// All parts together, in comparisons.
    pub fn total(&self) -> u64 {
        (self.filter + self.access + self.select + self.watch).total()
    }
}

impl Plan {
    /// Whether texts are read through to tell which records it is about.
    pub fn searches(&self) -> bool {
        self.filter.cost().texts > 0
    }

    /// Where its cost lies.
    pub fn costs(&self) -> Costs {
        let (all, access) = (self.filter.cost(), self.granted.cost());
        // The two were joined, and what stands in both only once.
        let filter = Cost {
            comparisons: all.comparisons.saturating_sub(access.comparisons),
            texts: all.texts.saturating_sub(access.texts),
            relations: all.relations.saturating_sub(access.relations),
        };
        Costs {
            filter,
            access,
            select: shape(&self.body.shape),
            watch: self.watch.as_ref().map_or_else(Cost::default, |body| shape(&body.shape)),
        }
    }

    /// Whether a subscription may cost so much.
    ///
    /// # Errors
    /// 400, naming each part and what it costs.
    pub fn within(&self, limits: &Limits) -> Result<()> {
        if u64::from(self.cost) <= limits.plan_cost {
            return Ok(());
        }
        let costs = self.costs();
        let parts = [
            ("filter", costs.filter),
            ("access rules", costs.access),
            ("select", costs.select),
            ("watch", costs.watch),
        ];
        let told = parts.iter().filter(|(_, cost)| cost.total() > 0);
        let told: Vec<_> = told.map(|(name, cost)| format!("{name} {cost}")).collect();
        Err(Error::bad(format!(
            "this would cost {} for every change, and plan_cost is {}: {}",
            self.cost,
            limits.plan_cost,
            told.join("; ")
        )))
    }
}

/// What showing a record takes beside writing its values.
fn shape(shape: &Shape) -> Cost {
    let filters = shape.filters.iter().map(|filter| filter.cost());
    let related = shape.fields.iter().map(|shown| match &shown.what {
        What::Column(_) | What::Key { visible: Visible::None, .. } => Cost::default(),
        What::Key { visible, .. } => step(visible),
        What::One { visible, shape: inner, .. } | What::Many { visible, shape: inner, .. } => {
            step(visible) + self::shape(inner)
        }
    });
    filters.chain(related).fold(Cost::default(), |sum, cost| sum + cost)
}

fn step(visible: &Visible) -> Cost {
    let seen = match visible {
        Visible::When(filter) => filter.cost(),
        Visible::All | Visible::None => Cost::default(),
    };
    Cost { relations: 1, ..Cost::default() } + seen
}
