//! Plans that were compiled lately, for those who ask the same and may see the same.
//!
//! Thousands who listen to the same, or one who comes back, are given the plan that there is: it
//! saves compiling (7 us of a handshake) and the memory of a question and a plan for each. What a
//! principal may see is told by its roles, and where a rule of the schema or of one that it leads
//! to speaks of the principal itself, by its name, id and claims too.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::auth::principal::Principal;
use crate::auth::rules;
use crate::error::Result;
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::json;
use crate::model::schema::{Schema, SchemaId};

use super::{Ask, Body, Plan, Question};

/// How many are kept at least, and half of how many at most.
const PLANS: usize = 1_024;

/// The longest key of a plan that is kept: a filter of a thousand elements is its owner's own.
const KEY_BYTES: usize = 4 << 10;

/// The most memory of a question that is kept, with the claims it is told apart by: much of what is
/// asked may leave nothing in the key.
const ASK_BYTES: usize = 2 * KEY_BYTES;

/// So many bodies are known before any are looked at that may be gone.
const BODIES: usize = 64;

/// See the module. One for the server, shared.
#[derive(Debug, Default)]
pub struct Plans {
    kept: Mutex<Kept>,
    seed: RandomState,
}

/// Plans of one catalog. When `young` is full it becomes `old`, and what nobody asked for since it
/// did last is gone.
#[derive(Debug, Default)]
struct Kept {
    version: u64,
    young: HashMap<u64, Known>,
    old: HashMap<u64, Known>,
    /// Schemas by whether a rule that counts there speaks of the principal itself.
    personal: HashMap<SchemaId, bool>,
    bodies: Bodies,
    /// No longer kept, and to be freed once nobody waits for the lock.
    gone: HashMap<u64, Known>,
}

/// What plans show that are there still, kept here or not.
#[derive(Debug, Default)]
struct Bodies {
    known: HashMap<u64, Weak<Body>>,
    /// With so many known, those that are gone are taken out.
    tidy_at: usize,
}

#[derive(Clone, Debug)]
struct Known {
    asked: Question,
    /// Of its claims what counts.
    principal: Arc<Principal>,
    plan: Arc<Plan>,
}

impl Plans {
    /// As [`Plan::compile`]. Where the plan is known already, `asked` becomes the one that is kept
    /// with it.
    pub fn compile(
        &self,
        catalog: &Arc<Catalog>,
        principal: &Arc<Principal>,
        limits: &Limits,
        asked: &mut Question,
    ) -> Result<Arc<Plan>> {
        let compile = |asked: &Ask| self.make(catalog, principal, limits, asked);
        let Some(schema) = catalog.named(&asked.schema) else { return compile(asked) };
        let bytes = asked.memory();
        if bytes > ASK_BYTES {
            return compile(asked);
        }
        let hash;
        let personal;
        {
            let mut kept = self.kept(catalog);
            if kept.version > catalog.version {
                drop(kept);
                return compile(asked);
            }
            personal = kept.personal(catalog, schema);
            if personal && bytes + json::memory_of(&principal.claims) > ASK_BYTES {
                drop(kept);
                return compile(asked);
            }
            hash = self.hash(principal, personal, asked);
            let found = kept.get(hash, principal, personal, asked);
            let gone = std::mem::take(&mut kept.gone);
            drop(kept);
            drop(gone);
            if let Some(known) = found {
                *asked = known.asked;
                return Ok(known.plan);
            }
        }
        let plan = compile(asked)?;
        if plan.key.len() <= KEY_BYTES {
            let (asked, principal) = (asked.clone(), counting(principal, personal));
            let mut kept = self.lock();
            if kept.version == catalog.version {
                kept.put(hash, Known { asked, principal, plan: plan.clone() });
            }
            let gone = std::mem::take(&mut kept.gone);
            drop(kept);
            drop(gone);
        }
        Ok(plan)
    }

    /// A new plan, whose bodies are those that other plans have already: a million filters on one
    /// projection keep one.
    fn make(
        &self,
        catalog: &Arc<Catalog>,
        principal: &Principal,
        limits: &Limits,
        asked: &Ask,
    ) -> Result<Arc<Plan>> {
        let mut plan = Plan::compile(catalog, principal, limits, asked)?;
        let mut kept = self.kept(catalog);
        if kept.version == catalog.version {
            let bodies = [Some(&mut plan.body), plan.watch.as_mut(), plan.reads.as_mut()];
            for body in bodies.into_iter().flatten() {
                let hash = self.seed.hash_one(&body.key);
                kept.bodies.share(hash, body);
            }
        }
        drop(kept);
        Ok(Arc::new(plan))
    }

    /// What is kept, of this catalog or a later one.
    fn kept(&self, catalog: &Catalog) -> MutexGuard<'_, Kept> {
        let mut kept = self.lock();
        if kept.version < catalog.version {
            let new = Kept { version: catalog.version, ..Kept::default() };
            let old = std::mem::replace(&mut *kept, new);
            drop(kept);
            // Thousands of plans: nobody waits for the lock meanwhile.
            drop(old);
            return self.lock();
        }
        kept
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Equal questions of principals who are alike have the same; whoever shares it by chance takes
    /// the other's place.
    fn hash(&self, principal: &Principal, personal: bool, asked: &Ask) -> u64 {
        let subject = || principal.claims.get("sub").and_then(|subject| subject.as_str());
        let user = personal.then(|| (principal.user, &principal.username, subject()));
        self.seed.hash_one((asked, principal.admin, principal.logged_in, &principal.roles, user))
    }
}

impl Bodies {
    /// Makes an equal one of it, where there is one. Of two of one hash the first is known.
    fn share(&mut self, hash: u64, body: &mut Arc<Body>) {
        match self.known.get(&hash).and_then(Weak::upgrade) {
            Some(known) if known.key == body.key => *body = known,
            Some(_) => {}
            None => {
                if self.known.len() >= self.tidy_at {
                    self.known.retain(|_, body| body.strong_count() > 0);
                    self.tidy_at = (2 * self.known.len()).max(BODIES);
                }
                self.known.insert(hash, Arc::downgrade(body));
            }
        }
    }
}

impl Kept {
    fn get(
        &mut self,
        hash: u64,
        principal: &Principal,
        personal: bool,
        asked: &Ask,
    ) -> Option<Known> {
        let fits =
            |known: &&Known| *known.asked == *asked && alike(&known.principal, principal, personal);
        if let Some(known) = self.young.get(&hash) {
            return Some(known).filter(fits).cloned();
        }
        let known = self.old.remove(&hash)?;
        let found = Some(&known).filter(fits).cloned();
        self.put(hash, known);
        found
    }

    fn put(&mut self, hash: u64, known: Known) {
        self.young.insert(hash, known);
        if self.young.len() >= PLANS {
            // Whoever put the last one in has taken what was gone then.
            self.gone = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        }
    }

    /// Whether what is read of `schema` depends on more of the principal than its roles.
    fn personal(&mut self, catalog: &Catalog, schema: &Schema) -> bool {
        if let Some(known) = self.personal.get(&schema.id) {
            return *known;
        }
        let mut seen = HashSet::from([schema.id]);
        let mut waiting = vec![schema];
        let mut personal = false;
        while let Some(schema) = waiting.pop() {
            personal |= rules::read_by_name(schema);
            for relation in &schema.relations {
                if let Some(target) = catalog.get(relation.target)
                    && seen.insert(target.id)
                {
                    waiting.push(target);
                }
            }
        }
        self.personal.insert(schema.id, personal);
        personal
    }
}

/// Whether two may see the same, wherever rules speak of roles alone, or `personal`ly.
fn alike(one: &Principal, other: &Principal, personal: bool) -> bool {
    let same =
        one.admin == other.admin && one.logged_in == other.logged_in && one.roles == other.roles;
    same && (!personal
        || one.user == other.user
            && one.username == other.username
            && (Arc::ptr_eq(&one.claims, &other.claims) || one.claims == other.claims))
}

/// A principal without claims that count for nothing: it is kept longer than its connections.
fn counting(principal: &Arc<Principal>, personal: bool) -> Arc<Principal> {
    if personal || principal.claims.is_empty() {
        return principal.clone();
    }
    Arc::new(Principal { claims: Arc::default(), ..(**principal).clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};
    use uuid::Uuid;

    use super::*;
    use crate::query::tests::catalog_at;

    /// Rules that speak of roles alone, and rules that speak of the reader.
    fn by_role() -> Json {
        json!({
            "guest": {"read": {"filter": {"title": "open"}}},
            "user": {"read": {"fields": ["title"]}},
            "editor": {"read": true},
        })
    }

    fn by_name() -> Json {
        json!({"user": {"read": {"filter": {"title": "$user.username"}}}})
    }

    fn catalog(version: u64, blog: Json) -> Arc<Catalog> {
        catalog_at(version, json!({"guest": {"read": true}}), blog)
    }

    fn somebody(user: u128, roles: &[&str]) -> Arc<Principal> {
        Arc::new(Principal {
            user: Some(Uuid::from_u128(user)),
            username: Some(format!("user{user}").into()),
            roles: roles.iter().map(|role| Arc::from(*role)).collect(),
            logged_in: true,
            session: Some(Uuid::from_u128(user + 100)),
            expires: Some(user as i64),
            ..Principal::default()
        })
    }

    #[test]
    fn a_kept_plan_is_the_one_that_would_be_compiled() {
        let limits = Limits::default();
        let plans = Plans::default();
        let everybody = [
            Arc::new(Principal::guest()),
            Arc::new(Principal::owner()),
            somebody(1, &[]),
            somebody(2, &[]),
            somebody(3, &["editor"]),
            somebody(4, &["editor"]),
        ];
        for (version, blog) in [(1, by_role()), (2, by_name()), (3, by_role())] {
            let catalog = catalog(version, blog);
            // Twice: from nothing, and from what is kept.
            for _ in 0..2 {
                for schema in ["blog", "category", "user", "none"] {
                    let filters = [
                        None,
                        Some(json!({"title": "a"})),
                        Some(json!({"blogs.title": "a"})),
                        Some(json!({"nix": 1})),
                    ];
                    for filter in filters {
                        for who in &everybody {
                            let ask = Ask {
                                schema: schema.into(),
                                filter: filter.clone(),
                                ..Ask::default()
                            };
                            let mut question = Question::from(ask.clone());
                            let kept = plans.compile(&catalog, who, &limits, &mut question);
                            let made = Plan::compile(&catalog, who, &limits, &ask);
                            assert_eq!(*question, ask);
                            let key = |plan: &Plan| (plan.key.clone(), plan.grant);
                            match (kept, made) {
                                (Ok(kept), Ok(made)) => assert_eq!(key(&kept), key(&made)),
                                (kept, made) => assert_eq!(
                                    kept.map(drop).map_err(|error| error.to_string()),
                                    made.map(drop).map_err(|error| error.to_string()),
                                ),
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn who_may_see_the_same_shares() {
        let limits = Limits::default();
        let plans = Plans::default();
        let [one, two] = [1, 2].map(|user| somebody(user, &["editor"]));
        for (version, blog, shared) in [(1, by_role(), true), (2, by_name(), false)] {
            let catalog = catalog(version, blog);
            let get = |schema: &str, who: &Arc<Principal>| {
                let mut question = Question::from(Ask { schema: schema.into(), ..Ask::default() });
                let plan = plans.compile(&catalog, who, &limits, &mut question).expect("a plan");
                (plan, question.0)
            };
            // `category` leads to `blog`.
            for schema in ["blog", "category"] {
                let ((first, asked), (second, again)) = (get(schema, &one), get(schema, &two));
                assert_eq!(Arc::ptr_eq(&first, &second), shared, "{schema}");
                assert_eq!(Arc::ptr_eq(&asked, &again), shared, "{schema}");
                assert!(Arc::ptr_eq(&get(schema, &one).0, &first), "{schema}: one's own");
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (limits, plans) = (Limits::default(), Plans::default());
        let catalog = catalog(1, by_role());
        let who = somebody(1, &[]);
        for n in 0..3 * PLANS {
            let filter = Some(json!({"title": n.to_string()}));
            let mut question =
                Question::from(Ask { schema: "blog".into(), filter, ..Ask::default() });
            plans.compile(&catalog, &who, &limits, &mut question).expect("a plan");
            let kept = plans.lock();
            assert!(kept.young.len() + kept.old.len() <= 2 * PLANS);
        }
        // Nothing is left of the zeros in the key, nor of the names in the projection.
        let zeros = vec![0; ASK_BYTES / 64];
        let large = [
            Ask { filter: Some(json!({"title": "a".repeat(KEY_BYTES)})), ..Ask::default() },
            Ask { filter: Some(json!({"views": {"$in": zeros}})), ..Ask::default() },
            Ask { select: Some("title,".repeat(ASK_BYTES / 6) + "title"), ..Ask::default() },
            Ask { watch: Some("title,".repeat(ASK_BYTES / 6) + "title"), ..Ask::default() },
        ];
        let limits = Limits { select_entries: 10_000, ..limits };
        for ask in large {
            let mut question = Question::from(Ask { schema: "blog".into(), ..ask });
            let before = plans.lock().young.len();
            plans.compile(&catalog, &who, &limits, &mut question).expect("a plan");
            assert_eq!(plans.lock().young.len(), before);
        }
    }

    #[test]
    fn plans_of_one_projection_share_a_body_while_there_is_one() {
        let (limits, plans) = (Limits::default(), Plans::default());
        let who = somebody(1, &["editor"]);
        let compile = |catalog: &Arc<Catalog>, select: &str, title: &str| {
            let (select, watch) = (Some(select.into()), Some("views".into()));
            let filter = Some(json!({"title": title, "category.name": "a"}));
            let ask = Ask { schema: "blog".into(), filter, select, watch, ..Ask::default() };
            plans.compile(catalog, &who, &limits, &mut ask.into()).expect("a plan")
        };
        let (old, new) = (catalog(1, by_role()), catalog(2, by_role()));
        let one = compile(&old, "title", "a");
        let same = |one: &Option<Arc<Body>>, other: &Option<Arc<Body>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => panic!("both have one"),
        };
        // Too long to be kept, too.
        for title in ["b".to_owned(), "c".repeat(ASK_BYTES)] {
            let other = compile(&old, "title", &title);
            assert!(!Arc::ptr_eq(&one, &other) && Arc::ptr_eq(&one.body, &other.body));
            assert!(same(&one.watch, &other.watch) && same(&one.reads, &other.reads));
        }
        let other = compile(&old, "views", "a");
        assert!(!Arc::ptr_eq(&one.body, &other.body) && same(&one.watch, &other.watch));
        // Another catalog's are others, nor do they meet when somebody comes late.
        let two = compile(&new, "title", "a");
        assert!(!Arc::ptr_eq(&one.body, &two.body));
        assert!(!Arc::ptr_eq(&compile(&old, "title", "b").body, &two.body));
        // Those that are gone are forgotten.
        drop((one, other));
        let limits = Limits { select_entries: 10_000, ..Limits::default() };
        let long = "a".repeat(ASK_BYTES);
        for n in 0..10 * BODIES {
            let fields = ["id", "title", "views", "notes", "category", "author"];
            let at = |place: usize| fields[n / 6usize.pow(place as u32) % 6];
            let select = Some(format!("{},{},{},{}", at(0), at(1), at(2), at(3)));
            let filter = Some(json!({"title": long}));
            let ask = Ask { schema: "blog".into(), filter, select, ..Ask::default() };
            plans.compile(&new, &who, &limits, &mut ask.into()).expect("a plan");
            assert!(plans.lock().bodies.known.len() <= BODIES + 4);
        }
    }

    #[test]
    fn claims_are_kept_where_they_count_and_are_small() {
        let (limits, plans) = (Limits::default(), Plans::default());
        let claims = json!({"rooms": vec![1; ASK_BYTES / 64]});
        let claims = Arc::new(claims.as_object().expect("an object").clone());
        for (version, blog, kept) in [(1, by_role(), 1), (2, by_name(), 0)] {
            let who = Arc::new(Principal { claims: claims.clone(), ..(*somebody(1, &[])).clone() });
            let catalog = catalog(version, blog);
            let mut question = Question::from(Ask { schema: "blog".into(), ..Ask::default() });
            plans.compile(&catalog, &who, &limits, &mut question).expect("a plan");
            assert_eq!(plans.lock().young.len(), kept);
            drop(who);
            assert_eq!(Arc::strong_count(&claims), 1);
        }
    }
}
