//! Public keys of an outside issuer: a PEM file or a key set (RFC 7517), narrowed to one algorithm.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value as Json;

/// Keys a set may hold; issuers publish a handful.
const KEYS: usize = 64;

/// Shortest RSA modulus in bytes: 2048 bits, as RFC 7518 requires.
const RSA_BYTES: usize = 256;

/// Usable keys, each with the id that tokens name it by.
#[derive(Default)]
pub struct Keys(Vec<(Option<String>, DecodingKey)>);

impl Keys {
    /// The keys a token that names `kid` may be signed with. Without a `kid` there must be no
    /// choice; a lone key that has no id itself (a PEM file) serves every token.
    pub fn find(&self, kid: Option<&str>) -> Vec<&DecodingKey> {
        match (kid, self.0.as_slice()) {
            (None, [(_, only)]) | (Some(_), [(None, only)]) => vec![only],
            (None, _) => Vec::new(),
            (Some(kid), keys) => keys
                .iter()
                .filter(|(id, _)| id.as_deref() == Some(kid))
                .map(|(_, key)| key)
                .collect(),
        }
    }

    /// One public key. The error tells what is wrong, without the file's contents.
    pub fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<Keys, String> {
        let wrong = || format!("no public key for {algorithm:?} in PEM form");
        if memchr::memmem::find(pem, b"PRIVATE KEY").is_some() {
            return Err("a private key; only the issuer's public key belongs here".into());
        }
        // The library takes the first bits it finds in a certificate, which are no key.
        if memchr::memmem::find(pem, b"CERTIFICATE").is_some() {
            return Err("a certificate; extract its public key first".into());
        }
        let key = match algorithm.family() {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
            AlgorithmFamily::Hmac => return Err(wrong()),
        }
        .map_err(|_| wrong())?;
        // What the key is shows only when converted back, e.g. the curve and the modulus.
        let jwk = Jwk::from_decoding_key(&key, Some(algorithm)).map_err(|_| wrong())?;
        fits(&jwk, algorithm)?;
        Ok(Keys(vec![(None, key)]))
    }

    /// Those keys of a set that are meant for signatures by `algorithm`. Others are passed over,
    /// as RFC 7517 says; an error if none is left.
    pub fn from_set(bytes: &[u8], algorithm: Algorithm) -> Result<Keys, String> {
        let set: Json = serde_json::from_slice(bytes).map_err(|_| "no JSON".to_owned())?;
        let listed = set
            .get("keys")
            .and_then(Json::as_array)
            .ok_or("no key set: a list 'keys' is missing")?;
        if listed.len() > KEYS {
            return Err(format!("{} keys are too many; {KEYS} at most", listed.len()));
        }
        let mut keys = Vec::new();
        let mut why = "it is empty".to_owned();
        for one in listed {
            match one_key(one, algorithm) {
                Ok(key) => keys.push(key),
                Err(reason) => why = reason,
            }
        }
        if keys.is_empty() {
            return Err(format!("no key for {algorithm:?} in the set: {why}"));
        }
        Ok(Keys(keys))
    }
}

fn one_key(json: &Json, algorithm: Algorithm) -> Result<(Option<String>, DecodingKey), String> {
    let jwk: Jwk = serde_json::from_value(json.clone()).map_err(|_| "a key of another kind")?;
    fits(&jwk, algorithm)?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "a key that cannot be read")?;
    Ok((jwk.common.key_id, key))
}

/// Whether a key may verify signatures by this algorithm.
fn fits(jwk: &Jwk, algorithm: Algorithm) -> Result<(), String> {
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return Err("a key for something else than signatures".into());
    }
    let operations = common.key_operations.as_ref();
    if operations.is_some_and(|list| !list.contains(&KeyOperations::Verify)) {
        return Err("a key for something else than verifying".into());
    }
    if common.key_algorithm.is_some_and(|own| own != KeyAlgorithm::from(algorithm)) {
        return Err("a key for another algorithm".into());
    }
    let fits = match (&jwk.algorithm, algorithm.family()) {
        (AlgorithmParameters::RSA(rsa), AlgorithmFamily::Rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            if modulus.iter().skip_while(|byte| **byte == 0).count() < RSA_BYTES {
                return Err("an RSA key of less than 2048 bits".into());
            }
            true
        }
        (AlgorithmParameters::EllipticCurve(ec), AlgorithmFamily::Ec) => match algorithm {
            Algorithm::ES256 => ec.curve == EllipticCurve::P256,
            Algorithm::ES384 => ec.curve == EllipticCurve::P384,
            _ => false,
        },
        (AlgorithmParameters::OctetKeyPair(pair), AlgorithmFamily::Ed) => {
            pair.curve == EllipticCurve::Ed25519
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err("a key of another kind".into()) }
}

/// `https`, or `http` to this machine: whoever could change the keys on the way could be anybody.
pub fn check_url(url: &str) -> Result<(), String> {
    let parsed: hyper::Uri = url.parse().map_err(|_| format!("'{url}' is no URL"))?;
    let host = parsed.host().unwrap_or_default();
    let local = host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match parsed.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if local => Ok(()),
        _ => Err(format!("'{url}' must be an https URL")),
    }
}
