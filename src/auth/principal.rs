//! Who is asking.

use std::sync::Arc;

use uuid::Uuid;

/// A guest is a principal too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Principal {
    /// `None` for a guest and for an outside issuer's user who is linked to nobody here.
    pub user: Option<Uuid>,
    pub username: Option<Arc<str>>,
    /// Names of roles, sorted; without `guest` and `user`, which hold by themselves.
    pub roles: Vec<Arc<str>>,
    /// The token's other claims, for `$claims.<name>` in rules.
    pub claims: Arc<serde_json::Map<String, serde_json::Value>>,
    /// The own session that the token belongs to.
    pub session: Option<Uuid>,
    /// Seconds since 1970 at which the token ends (leeway included); `None` for a guest and for
    /// commands run by the owner of the data directory.
    pub expires: Option<i64>,
    /// Whether a good token (or the owner) stands behind this.
    pub logged_in: bool,
    /// Everything is allowed, always.
    pub admin: bool,
}

impl Principal {
    pub fn guest() -> Self {
        Principal::default()
    }

    /// Commands run by whoever owns the data directory.
    pub fn owner() -> Self {
        Principal { logged_in: true, admin: true, ..Principal::default() }
    }
}
