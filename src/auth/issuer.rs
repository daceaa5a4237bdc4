//! An outside issuer: one, configured, with one asymmetric algorithm.
//!
//! Its tokens are believed for what they say of themselves and for nothing here: roles pass a
//! configured map, and a user of ours stands behind one only where linked to (issuer, subject).
//! Own tokens are HS256 and these never are, so neither can be passed off as the other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, Header, Validation};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::model::json;

use super::BUILT_IN;
use super::jwks::{self, Keys};
use super::proven::{self, Proven};
use super::token;

/// Clocks of two houses differ by this many seconds at most; the same at entry and at closing.
pub const LEEWAY: i64 = 30;

/// How often the issuer is asked for its keys.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// No sooner than this after the last time, whatever tokens come in.
    pub at_most: Duration,
    /// Keys older than this are asked for again, so that one taken back stops working.
    pub after: Duration,
    /// Keys older than this are no longer believed, although none newer could be got.
    pub too_old: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            at_most: Duration::from_secs(30),
            after: Duration::from_secs(10 * 60),
            too_old: Duration::from_secs(60 * 60),
        }
    }
}

/// What is configured about the outside issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuerConfig {
    /// Exactly the token's `iss`.
    pub issuer: String,
    /// One of these must be in the token's `aud`.
    pub audience: Vec<String>,
    /// `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384` or `EdDSA`.
    pub algorithm: String,
    pub keys: KeySource,
    /// The claim that lists roles: its name, or a path such as `realm_access.roles`.
    pub roles_claim: String,
    /// The issuer's role → ours. Roles that are not in it are dropped.
    pub roles: BTreeMap<String, String>,
}

/// Where the issuer's public keys are.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// A public key in a PEM file, read at start.
    Pem(PathBuf),
    /// A key set (RFC 7517) in a file, read again when a token names a key that is not in it.
    JwksFile(PathBuf),
    /// A key set at an `https` URL (`http` on loopback only).
    JwksUrl(String),
}

/// The answer's body, or what went wrong, for the log.
pub type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;

/// Gets a key set; the network is somebody else's room. Must end within seconds and bound what it
/// reads.
pub trait Fetch: Send + Sync {
    fn get<'a>(&'a self, url: &'a str) -> Fetched<'a>;
}

/// What the claims of the outside issuer mean here.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub issuer: Arc<str>,
    claim: String,
    roles: BTreeMap<String, Arc<str>>,
}

/// Verifies the outside issuer's tokens.
pub struct Issuer {
    issuer: String,
    audience: Vec<String>,
    pub(super) algorithm: Algorithm,
    validation: Validation,
    source: KeySource,
    fetch: Arc<dyn Fetch>,
    pace: Pace,
    keys: ArcSwap<Known>,
    proven: Proven<Signed>,
    /// When the source was last asked, well or not.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// Claims, and the keys under which their signature is good.
type Signed = (Arc<Known>, Arc<Map<String, Json>>);

/// Keys and since when they are known; `None`: never got.
#[derive(Default)]
struct Known {
    keys: Keys,
    since: Option<Instant>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({} {:?} {:?})", self.issuer, self.algorithm, self.source)
    }
}

impl Mapping {
    pub fn new(config: &IssuerConfig) -> Result<Mapping, String> {
        for role in config.roles.values() {
            if role.is_empty() || BUILT_IN.contains(&role.as_str()) {
                return Err(format!("'{role}' is no role that the issuer's roles can map to"));
            }
        }
        let roles = config.roles.iter();
        Ok(Mapping {
            issuer: config.issuer.as_str().into(),
            claim: config.roles_claim.clone(),
            roles: roles.map(|(theirs, ours)| (theirs.clone(), ours.as_str().into())).collect(),
        })
    }

    /// Our roles for these claims, sorted.
    pub fn roles(&self, claims: &Map<String, Json>) -> Vec<Arc<str>> {
        let claim = claims.get(&self.claim).or_else(|| {
            let mut steps = self.claim.split('.');
            let first = claims.get(steps.next()?)?;
            steps.try_fold(first, |at, step| at.as_object()?.get(step))
        });
        let theirs = match claim {
            Some(Json::Array(list)) => list.as_slice(),
            Some(one @ Json::String(_)) => std::slice::from_ref(one),
            _ => &[],
        };
        let mut ours: Vec<Arc<str>> =
            theirs.iter().filter_map(|role| self.roles.get(role.as_str()?).cloned()).collect();
        ours.sort();
        ours.dedup();
        ours
    }
}

impl Issuer {
    /// Reads the key or key set. A file that cannot be used is an error that names it; a URL that
    /// does not answer now is only logged, and its tokens are refused until it does.
    pub async fn open(
        config: &IssuerConfig,
        fetch: Arc<dyn Fetch>,
        pace: Pace,
    ) -> Result<Issuer, String> {
        let algorithm = Algorithm::from_str(&config.algorithm)
            .ok()
            .filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac)
            .ok_or_else(|| {
                format!(
                    "'{}' is no algorithm for an outside issuer; use RS256, RS384, RS512, PS256, \
                     PS384, PS512, ES256, ES384 or EdDSA",
                    config.algorithm
                )
            })?;
        if config.issuer.is_empty() || config.audience.iter().all(String::is_empty) {
            return Err("an outside issuer needs both its 'iss' and an 'aud'".into());
        }
        if let KeySource::JwksUrl(url) = &config.keys {
            jwks::check_url(url)?;
        }
        let issuer = Issuer {
            issuer: config.issuer.clone(),
            audience: config.audience.iter().filter(|one| !one.is_empty()).cloned().collect(),
            algorithm,
            validation: token::signature_only(algorithm),
            source: config.keys.clone(),
            fetch,
            pace,
            keys: ArcSwap::default(),
            proven: Proven::default(),
            asked: tokio::sync::Mutex::new(None),
        };
        match issuer.load().await {
            Ok(keys) => issuer.keys.store(Known::now(keys)),
            Err(why) if matches!(issuer.source, KeySource::JwksUrl(_)) => {
                tracing::warn!("no keys of the outside issuer yet, its tokens are refused: {why}");
            }
            Err(why) => return Err(why),
        }
        *issuer.asked.lock().await = Some(Instant::now());
        Ok(issuer)
    }

    /// The claims of a good token at `now`, and the second at which it ends, leeway included; 401
    /// for anything else, also when its key cannot be got.
    pub async fn verify(
        &self,
        token: &str,
        header: &Header,
        now: i64,
    ) -> Result<(Arc<Map<String, Json>>, i64)> {
        if header.alg != self.algorithm {
            return Err(Error::unauthorized("bad token: wrong algorithm"));
        }
        let kid = header.kid.as_deref();
        let mut known = self.keys.load_full();
        if known.keys.find(kid).is_empty() || known.older_than(self.pace.after) {
            known = self.refresh(kid).await;
        }
        if known.older_than(self.pace.too_old) && !matches!(self.source, KeySource::Pem(_)) {
            return Err(Error::unauthorized("bad token: its key cannot be checked now"));
        }
        // Good under a key that has been taken back is good no more: keys and claims go together.
        let digest = proven::digest(token);
        let proven = self.proven.get(&digest).filter(|(under, _)| Arc::ptr_eq(under, &known));
        let claims = match proven {
            Some((_, claims)) => claims,
            None => {
                let claims = Arc::new(self.claims(token, known.keys.find(kid))?);
                self.proven.put(digest, (known, claims.clone()), json::memory_of(&claims));
                claims
            }
        };
        let expires = self.check(&claims, now)?;
        Ok((claims, expires))
    }

    fn claims(
        &self,
        token: &str,
        keys: Vec<&jsonwebtoken::DecodingKey>,
    ) -> Result<Map<String, Json>> {
        let mut why = Error::unauthorized("bad token: unknown key");
        for key in keys {
            match jsonwebtoken::decode::<Map<String, Json>>(token, key, &self.validation) {
                Ok(good) => return Ok(good.claims),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                    why = token::refused(&error);
                }
                Err(error) => return Err(token::refused(&error)),
            }
        }
        Err(why)
    }

    fn check(&self, claims: &Map<String, Json>, now: i64) -> Result<i64> {
        if claims.get("iss").and_then(Json::as_str) != Some(&self.issuer) {
            return Err(Error::unauthorized("bad token: wrong 'iss'"));
        }
        let ours =
            |aud: &Json| aud.as_str().is_some_and(|aud| self.audience.iter().any(|a| a == aud));
        let meant = match claims.get("aud") {
            Some(Json::Array(list)) => list.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        if !meant {
            return Err(Error::unauthorized("bad token: wrong 'aud'"));
        }
        let number = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().filter(|n| n.is_finite()).map(Some).ok_or_else(|| {
                Error::unauthorized(format_args!("bad token: '{name}' is no number"))
            }),
        };
        let exp = number("exp")?;
        token::check_times(exp, number("nbf")?, now, LEEWAY)?;
        // A float casts to the nearest i64 there is, so a far future stays one.
        Ok((exp.unwrap_or_default().ceil() as i64).saturating_add(LEEWAY))
    }

    /// Asks the source again, unless it was asked a moment ago. Many requests ask at once after a
    /// key change: the first does the work, and those wait for it that cannot go on without.
    async fn refresh(&self, kid: Option<&str>) -> Arc<Known> {
        let known = self.keys.load_full();
        if matches!(self.source, KeySource::Pem(_)) {
            return known;
        }
        let enough =
            |known: &Known, age| !known.keys.find(kid).is_empty() && !known.older_than(age);
        let mut asked = if enough(&known, self.pace.too_old) {
            match self.asked.try_lock() {
                Ok(asked) => asked,
                Err(_) => return known,
            }
        } else {
            self.asked.lock().await
        };
        let known = self.keys.load_full();
        let lately = asked.is_some_and(|at| at.elapsed() < self.pace.at_most);
        if lately || enough(&known, self.pace.after) {
            return known;
        }
        // Before asking: a client that leaves while we wait must not let the next one ask.
        *asked = Some(Instant::now());
        match self.load().await {
            Ok(keys) => self.keys.store(Known::now(keys)),
            Err(why) => tracing::warn!("the outside issuer's keys could not be renewed: {why}"),
        }
        self.keys.load_full()
    }

    async fn load(&self) -> Result<Keys, String> {
        let read = |path: PathBuf| async move {
            let name = path.display().to_string();
            tokio::task::spawn_blocking(move || std::fs::read(path))
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| format!("{name}: {error}"))
        };
        match &self.source {
            KeySource::Pem(path) => Keys::from_pem(&read(path.clone()).await?, self.algorithm)
                .map_err(|why| format!("{}: {why}", path.display())),
            KeySource::JwksFile(path) => Keys::from_set(&read(path.clone()).await?, self.algorithm)
                .map_err(|why| format!("{}: {why}", path.display())),
            KeySource::JwksUrl(url) => {
                let body = self.fetch.get(url).await.map_err(|why| format!("{url}: {why}"))?;
                Keys::from_set(&body, self.algorithm).map_err(|why| format!("{url}: {why}"))
            }
        }
    }
}

impl Known {
    fn now(keys: Keys) -> Arc<Known> {
        Arc::new(Known { keys, since: Some(Instant::now()) })
    }

    fn older_than(&self, age: Duration) -> bool {
        self.since.is_none_or(|since| since.elapsed() > age)
    }
}
