//! Own tokens: JWT, HS256 under `APP_KEY` and nothing else.
//!
//! The library checks the algorithm and the signature; every claim is checked here, because its
//! defaults allow a minute of leeway and leave `nbf` alone. A token proves who asks; what that
//! user may do now is told by the [`Directory`](super::directory::Directory).

use std::collections::HashSet;
use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Shortest key in bytes: what HMAC-SHA-256 can use whole.
pub const KEY_BYTES: usize = 32;

/// Longest token looked at, in bytes; issuers with long lists of groups stay below it.
pub const TOKEN_BYTES: usize = 16 << 10;

/// What an own token says. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    pub exp: i64,
    pub iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// The session that ends this token when it ends.
    pub sid: Uuid,
    pub user: ClaimedUser,
}

/// The user as of signing, for clients to show. The server believes only the id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimedUser {
    pub id: Uuid,
    pub username: String,
    pub roles: Vec<String>,
}

/// The keys under which own tokens are signed and verified.
pub struct Keys {
    sign: EncodingKey,
    /// The present key first, then the previous one.
    verify: Vec<DecodingKey>,
    validation: Validation,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// `key` signs and verifies, `previous` only verifies. Both need [`KEY_BYTES`] or more; the
    /// error names the one that is too short and not its contents.
    pub fn new(key: &[u8], previous: Option<&[u8]>) -> Result<Keys, String> {
        for (name, key) in [("APP_KEY", Some(key)), ("APP_KEY_PREVIOUS", previous)] {
            if key.is_some_and(|key| key.len() < KEY_BYTES) {
                return Err(format!("{name} is too short: it must have {KEY_BYTES} bytes or more"));
            }
        }
        let verify = std::iter::once(key).chain(previous).map(DecodingKey::from_secret).collect();
        let validation = signature_only(Algorithm::HS256);
        Ok(Keys { sign: EncodingKey::from_secret(key), verify, validation })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.sign)
            .map_err(Error::internal)
    }

    /// The claims of a good token at `now`; 401 for anything else. `exp` is the first second at
    /// which the token is no longer good: there is no leeway.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims> {
        let mut last = None;
        for key in &self.verify {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                Ok(good) => {
                    check_claims(&good.claims, now)?;
                    return Ok(good.claims);
                }
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => last = Some(error),
                Err(error) => return Err(refused(&error)),
            }
        }
        Err(last.map_or_else(|| Error::unauthorized("bad token"), |error| refused(&error)))
    }
}

/// Only the algorithm and the signature are left to the library.
pub(super) fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims = HashSet::new();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// The header of a token, before anything is verified. 401 for what is no JWT, for `alg: none`
/// and unknown algorithms, and for extensions that the sender calls critical.
pub fn header(token: &str) -> Result<Header> {
    bounded(token)?;
    let header = jsonwebtoken::decode_header(token).map_err(|error| refused(&error))?;
    if header.crit.is_some() {
        return Err(Error::unauthorized("bad token: critical extensions are not supported"));
    }
    Ok(header)
}

/// 401 for a token that nobody would have made so long.
pub fn bounded(token: &str) -> Result<()> {
    match token.len() > TOKEN_BYTES {
        true => Err(Error::unauthorized("token too long")),
        false => Ok(()),
    }
}

/// Whether an own token is good at `now`, if its signature is.
pub(super) fn check_claims(claims: &Claims, now: i64) -> Result<()> {
    check_times(Some(claims.exp as f64), claims.nbf.map(|nbf| nbf as f64), now, 0)
}

/// `exp` is required. Both are finite; outside issuers may send fractions.
pub(super) fn check_times(exp: Option<f64>, nbf: Option<f64>, now: i64, leeway: i64) -> Result<()> {
    let Some(exp) = exp else {
        return Err(Error::unauthorized("bad token: 'exp' is missing"));
    };
    let (now, leeway) = (now as f64, leeway as f64);
    if now >= exp + leeway {
        return Err(Error::unauthorized("token expired"));
    }
    if nbf.is_some_and(|nbf| nbf > now + leeway) {
        return Err(Error::unauthorized("token not valid yet"));
    }
    Ok(())
}

/// What a client may know of why its token is no good: nothing about keys.
pub(super) fn refused(error: &jsonwebtoken::errors::Error) -> Error {
    Error::unauthorized(match error.kind() {
        ErrorKind::InvalidAlgorithm => "bad token: wrong algorithm",
        ErrorKind::InvalidSignature => "bad token: wrong signature",
        _ => "bad token",
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value as Json, json};

    use super::*;

    const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
    const OLD: &[u8; 32] = b"fedcba9876543210fedcba9876543210";
    const NOW: i64 = 1_700_000_000;

    fn claims() -> Claims {
        let user = ClaimedUser {
            id: Uuid::from_u128(7),
            username: "ann".into(),
            roles: vec!["editor".into()],
        };
        Claims { exp: NOW + 10, iat: NOW, nbf: None, sid: Uuid::from_u128(9), user }
    }

    fn forge(algorithm: Algorithm, claims: &Json, key: &[u8]) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key))
            .unwrap()
    }

    fn message(keys: &Keys, token: &str, now: i64) -> String {
        let error = match header(token) {
            Ok(_) => keys.verify(token, now).expect_err("must be refused"),
            Err(error) => error,
        };
        assert_eq!(error.status(), 401);
        assert!(error.message.starts_with("Unauthorized"), "{error}");
        error.message
    }

    #[test]
    fn signs_and_verifies() {
        let keys = Keys::new(KEY, None).unwrap();
        let token = keys.sign(&claims()).unwrap();
        assert_eq!(keys.verify(&token, NOW).unwrap(), claims());
        assert_eq!(keys.verify(&token, NOW + 9).unwrap(), claims());
    }

    #[test]
    fn previous_key_only_verifies() {
        let token = Keys::new(OLD, None).unwrap().sign(&claims()).unwrap();
        let keys = Keys::new(KEY, Some(OLD)).unwrap();
        assert!(keys.verify(&token, NOW).is_ok());
        assert!(Keys::new(KEY, None).unwrap().verify(&token, NOW).is_err());
        let fresh = keys.sign(&claims()).unwrap();
        assert!(Keys::new(OLD, None).unwrap().verify(&fresh, NOW).is_err());
    }

    #[test]
    fn short_keys_are_refused_without_being_shown() {
        let error = Keys::new(b"short-secret", None).unwrap_err();
        assert!(error.contains("APP_KEY") && !error.contains("short-secret"));
        assert!(Keys::new(KEY, Some(b"old")).unwrap_err().contains("APP_KEY_PREVIOUS"));
    }

    #[test]
    fn no_leeway() {
        let keys = Keys::new(KEY, None).unwrap();
        let token = keys.sign(&claims()).unwrap();
        assert!(message(&keys, &token, NOW + 10).contains("expired"));
        let early = keys.sign(&Claims { nbf: Some(NOW + 1), ..claims() }).unwrap();
        assert!(message(&keys, &early, NOW).contains("not valid yet"));
        assert!(keys.verify(&early, NOW + 1).is_ok());
    }

    #[test]
    fn altered_tokens_are_refused() {
        let keys = Keys::new(KEY, None).unwrap();
        let token = keys.sign(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let mut other = claims();
        other.user.id = Uuid::from_u128(1);
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
        let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
        for bad in [
            format!("{}.{payload}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{token}.x"),
            format!(" {token}"),
            "x".repeat(TOKEN_BYTES + 1),
            String::new(),
            "a.b.c".into(),
        ] {
            message(&keys, &bad, NOW);
        }
    }

    #[test]
    fn other_algorithms_are_refused_even_under_the_right_key() {
        let keys = Keys::new(KEY, None).unwrap();
        let body = serde_json::to_value(claims()).unwrap();
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            let token = forge(algorithm, &body, KEY);
            assert!(message(&keys, &token, NOW).contains("algorithm"));
        }
    }

    #[test]
    fn claims_are_required_and_typed() {
        let keys = Keys::new(KEY, None).unwrap();
        let good = serde_json::to_value(claims()).unwrap();
        for (name, value) in [
            ("exp", Json::Null),
            ("exp", json!("1700000010")),
            ("exp", json!(1_700_000_010.5)),
            ("iat", Json::Null),
            ("sid", Json::Null),
            ("sid", json!("nonsense")),
            ("nbf", json!("soon")),
            ("user", Json::Null),
            ("user", json!({"id": 1, "username": "ann", "roles": []})),
        ] {
            let mut body = good.clone();
            body[name] = value;
            message(&keys, &forge(Algorithm::HS256, &body, KEY), NOW);
            if let Some(object) = body.as_object_mut() {
                object.remove(name);
            }
            if name != "nbf" {
                message(&keys, &forge(Algorithm::HS256, &body, KEY), NOW);
            }
        }
    }

    #[test]
    fn critical_extensions_are_refused() {
        let mut head = Header::new(Algorithm::HS256);
        head.crit = Some(vec!["b64".into()]);
        let token = jsonwebtoken::encode(&head, &claims(), &EncodingKey::from_secret(KEY)).unwrap();
        assert_eq!(header(&token).unwrap_err().status(), 401);
    }
}
