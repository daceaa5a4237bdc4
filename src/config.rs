//! What was typed → what it means: flags, environment, an optional file; each value with its source.
//!
//! A flag wins over the environment, that over the file, that over the default. Secrets come by
//! environment, by a file that the environment names (`*_FILE`) or from `.env` in the data
//! directory, never by flag.

mod file;
pub mod secret;
pub mod settings;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::limits::{BOUNDS, Limits};

pub use secret::{Secret, Secrets};
pub use settings::{Flags, Given};

/// Reads one variable of the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Everything a server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data: PathBuf,
    /// The folder of schema files.
    pub schemas: PathBuf,
    /// The address to listen on.
    pub host: IpAddr,
    /// 0 takes a free one.
    pub port: u16,
    /// Origins whose pages may use a cookie, besides the server's own, with commas; read and
    /// checked by `auth::present`.
    pub allowed_origins: Option<settings::Value>,
    /// Whether a login gives a refresh token, and its tokens are short-lived.
    pub refresh_tokens: bool,
    /// Whether many sockets are written by one call of the kernel, where it has io_uring.
    pub io_uring: bool,
    /// The first admin, made while there is none.
    pub admin: Admin,
    /// The one outside issuer whose tokens are accepted.
    pub issuer: Option<Issuer>,
    /// What is logged, e.g. `info` or `rowcast=debug`.
    pub log: Option<String>,
    /// All bounds.
    pub limits: Limits,
    /// Given by environment or file, or kept from an earlier run.
    pub secrets: Secrets,
}

/// The first admin, made while there is none.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its name.
    pub username: String,
    /// Its address; a login may use either.
    pub email: Option<String>,
}

/// An outside issuer of tokens, as configured; read and checked by `auth::issuer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// What `iss` must be.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audience: Vec<String>,
    /// `RS256`, `ES256`, `EdDSA` or one of their kin.
    pub algorithm: String,
    /// Where its public keys are.
    pub keys: IssuerKeys,
    /// The claim that holds its roles.
    pub roles_claim: String,
    /// Its role → ours.
    pub roles: Vec<(String, String)>,
}

/// Where an outside issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerKeys {
    /// A public key in PEM.
    Pem(PathBuf),
    /// A JSON Web Key Set in a file.
    JwksFile(PathBuf),
    /// A JSON Web Key Set behind a URL.
    JwksUrl(String),
}

impl Config {
    /// Puts together what flags, environment, file and defaults say. Refuses wrong values with
    /// their name and source.
    pub fn load(flags: Flags, env: Env<'_>) -> Result<Config> {
        let given = Given::gather(flags, env)?;
        let mut limits = Limits::default();
        for bound in BOUNDS {
            if let Some(value) = given.get(bound.key) {
                (bound.set)(&mut limits, &value.text).map_err(|error| value.wrong(error))?;
            }
        }
        limits.check().map_err(Error::bad)?;
        let data = given.read("data", path)?.unwrap_or_else(|| PathBuf::from("data"));
        Ok(Config {
            secrets: Secrets::load(&data, env)?,
            data,
            schemas: given.read("schemas", path)?.unwrap_or_else(|| PathBuf::from("schemas")),
            host: given.read("host", host)?.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            port: given.read("port", port)?.unwrap_or(8000),
            allowed_origins: given.get("allowed_origins").cloned(),
            refresh_tokens: given.read("refresh_tokens", switch)?.unwrap_or(false),
            io_uring: given.read("io_uring", switch)?.unwrap_or(true),
            admin: Admin {
                username: given.read("admin_username", text)?.unwrap_or_else(|| "admin".into()),
                email: given.read("admin_email", text)?,
            },
            issuer: issuer(&given)?,
            log: given.read("log", text)?,
            limits,
        })
    }
}

fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".into()) } else { Ok(text.to_owned()) }
}

fn path(value: &str) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from)
}

fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| {
        format!(
            "'{text}' is no address; use one of this machine's, e.g. 127.0.0.1, or 0.0.0.0 for all"
        )
    })
}

fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is no port; use a number from 0 (any free one) to 65535"))
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("'{text}': use true or false")),
    }
}

fn issuer(given: &Given) -> Result<Option<Issuer>> {
    let Some(issuer) = given.read("issuer", text)? else {
        let alone = settings::ISSUER.iter().find_map(|key| given.get(key));
        return match alone {
            Some(value) => Err(value.wrong("it needs issuer (what 'iss' must be) beside it")),
            None => Ok(None),
        };
    };
    let needed = |key: &str| {
        let name = settings::names(key);
        Error::bad(format!("an issuer is set, but not {name}: both are needed"))
    };
    let keys = [
        given.read("issuer_key_file", path)?.map(IssuerKeys::Pem),
        given.read("issuer_jwks_file", path)?.map(IssuerKeys::JwksFile),
        given.read("issuer_jwks_url", text)?.map(IssuerKeys::JwksUrl),
    ];
    let mut keys = keys.into_iter().flatten();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(Error::bad(
            "an issuer needs exactly one of issuer_key_file, issuer_jwks_file and issuer_jwks_url",
        ));
    };
    Ok(Some(Issuer {
        issuer,
        audience: given.read("issuer_audience", list)?.ok_or_else(|| needed("issuer_audience"))?,
        algorithm: given
            .read("issuer_algorithm", algorithm)?
            .ok_or_else(|| needed("issuer_algorithm"))?,
        keys: key,
        roles_claim: given.read("issuer_roles_claim", text)?.unwrap_or_else(|| "roles".into()),
        roles: given.read("issuer_roles", pairs)?.unwrap_or_default(),
    }))
}

fn list(text: &str) -> Result<Vec<String>, String> {
    Ok(text.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect())
}

fn algorithm(text: &str) -> Result<String, String> {
    match text {
        "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" | "ES256" | "ES384" | "EdDSA" => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "'{text}': use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
        )),
    }
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((theirs, ours)) if !theirs.trim().is_empty() && !ours.trim().is_empty() => {
            Ok((theirs.trim().to_owned(), ours.trim().to_owned()))
        }
        _ => Err(format!("'{pair}': use THEIRS=OURS, several with commas")),
    };
    text.split(',').filter(|text| !text.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str) -> Result<Config> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("settings.json");
        std::fs::write(&path, file).expect("written");
        let mut flags = Flags {
            values: flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect(),
            config: Some(path),
        };
        flags.values.entry("data").or_insert_with(|| dir.path().display().to_string());
        let variable = |name: &str| {
            env.iter().find(|(set, _)| *set == name).map(|(_, text)| (*text).to_owned())
        };
        Config::load(flags, &variable)
    }

    #[test]
    fn a_flag_wins_over_environment_over_file_over_default() {
        let file = r#"{"port": 3, "host": "::1", "body_bytes": "1MiB", "allowed_origins": ["https://a.example"]}"#;
        let all = load(&[("port", "1")], &[("APP_PORT", "2"), ("APP_HOST", "0.0.0.0")], file);
        let all = all.expect("a good configuration");
        assert_eq!(all.port, 1);
        assert_eq!(all.host, IpAddr::from([0, 0, 0, 0]));
        assert_eq!(all.limits.body_bytes, 1 << 20);
        assert_eq!(all.limits.record_bytes, 1 << 20);
        assert_eq!(all.allowed_origins.expect("given").text, "https://a.example");
        let env = load(&[], &[("APP_PORT", "2"), ("APP_HOST", "")], file).expect("good");
        assert_eq!((env.port, env.host), (2, IpAddr::from(std::net::Ipv6Addr::LOCALHOST)));
        let none = load(&[], &[], "{}").expect("good");
        assert_eq!((none.port, none.host), (8000, IpAddr::from([127, 0, 0, 1])));
        assert_eq!(none.schemas, PathBuf::from("schemas"));
    }

    #[test]
    fn wrong_values_are_refused_with_name_and_source() {
        let refused = |flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str| {
            load(flags, env, file).expect_err("refused").message
        };
        assert_eq!(
            refused(&[("port", "80000")], &[], "{}"),
            "flag --port: '80000' is no port; use a number from 0 (any free one) to 65535"
        );
        let error = refused(&[], &[("APP_HOST", "here")], "{}");
        assert!(error.starts_with("environment variable APP_HOST: 'here'"), "{error}");
        let error = refused(&[], &[], "{\n\"idle_time\": \"long\"}");
        assert!(error.contains("settings.json:2: \"idle_time\": 'long'"), "{error}");
        let error = refused(&[], &[("ROWCAST_PAGE_DEFAULT", "2000")], "{}");
        assert!(error.contains("page_default (2000) is over page_records (1000)"), "{error}");
        let error = refused(&[], &[("ROWCAST_PLAN_COST", "60000")], "{}");
        let told = "twice plan_cost (120000) is over principal_cost (100000)";
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn an_issuer_is_whole_or_refused() {
        let whole = [
            ("ISSUER", "https://issuer.example"),
            ("ISSUER_AUDIENCE", "rowcast"),
            ("ISSUER_ALGORITHM", "RS256"),
            ("ISSUER_JWKS_URL", "https://issuer.example/jwks"),
            ("ISSUER_ROLES", "editors=editor, root=admin"),
        ];
        let issuer = load(&[], &whole, "{}").expect("good").issuer.expect("an issuer");
        assert_eq!(issuer.roles[1], ("root".into(), "admin".into()));
        for missing in 0..4 {
            let mut part = whole.to_vec();
            part.remove(missing);
            let error = load(&[], &part, "{}").expect_err("a part").message;
            assert!(error.to_lowercase().contains("issuer"), "{error}");
        }
    }
}
