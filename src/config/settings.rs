//! Every setting by name: its flag, its variable, its key in the file, its help.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::{Arg, ArgMatches};

use crate::config::{Env, file};
use crate::error::{Error, Result};
use crate::limits::BOUNDS;

/// The configuration file that is read when it is there and no other is named.
pub const DEFAULT_FILE: &str = "rowcast.json";

/// One setting that is no secret.
pub struct Setting {
    /// As in the file; the flag has hyphens.
    pub key: &'static str,
    /// Its variable of the environment.
    pub env: String,
    flag: String,
    value_name: &'static str,
    help: String,
    heading: &'static str,
}

/// What an issuer needs beside its name.
pub(super) const ISSUER: [&str; 7] = [
    "issuer_audience",
    "issuer_algorithm",
    "issuer_key_file",
    "issuer_jwks_file",
    "issuer_jwks_url",
    "issuer_roles_claim",
    "issuer_roles",
];

const SERVER: &str = "Server";
const ADMIN: &str = "First admin";
const TOKENS: &str = "Tokens";
const LIMITS: &str = "Limits (each also in the file, e.g. \"body_bytes\": \"8MiB\")";

type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// key, variable, value, heading, help.
const NAMED: &[Row] = &[
    (
        "data",
        "APP_DATA_DIR",
        "DIR",
        SERVER,
        "Where everything is kept, made when missing [default: data]",
    ),
    (
        "schemas",
        "APP_SCHEMAS_DIR",
        "DIR",
        SERVER,
        "The folder of schema files, watched [default: schemas]",
    ),
    ("host", "APP_HOST", "IP", SERVER, "The address to listen on [default: 127.0.0.1]"),
    ("port", "APP_PORT", "N", SERVER, "The port to listen on; 0 takes a free one [default: 8000]"),
    (
        "log",
        "ROWCAST_LOG",
        "LEVEL",
        SERVER,
        "What is logged to stderr: error, warn, info, debug [default: info]",
    ),
    (
        "io_uring",
        "ROWCAST_IO_URING",
        "BOOL",
        SERVER,
        "Many sockets are written by one call, where the kernel has io_uring [default: true]",
    ),
    (
        "allowed_origins",
        "ALLOWED_ORIGINS",
        "ORIGINS",
        TOKENS,
        "Origins whose pages may use a cookie, besides the server's own; several with commas",
    ),
    (
        "refresh_tokens",
        "AUTH_ENABLE_REFRESH_TOKEN",
        "BOOL",
        TOKENS,
        "Logins give a refresh token and tokens of 15 minutes, not of 7 days [default: false]",
    ),
    ("issuer", "ISSUER", "ISS", TOKENS, "Accept tokens of this outside issuer: what 'iss' must be"),
    ("issuer_audience", "ISSUER_AUDIENCE", "AUD", TOKENS, "What 'aud' must hold"),
    (
        "issuer_algorithm",
        "ISSUER_ALGORITHM",
        "ALG",
        TOKENS,
        "The one algorithm: RS256, ES256, EdDSA or one of their kin",
    ),
    ("issuer_key_file", "ISSUER_KEY_FILE", "FILE", TOKENS, "Its public key, PEM"),
    ("issuer_jwks_file", "ISSUER_JWKS_FILE", "FILE", TOKENS, "Its keys, a JSON Web Key Set"),
    (
        "issuer_jwks_url",
        "ISSUER_JWKS_URL",
        "URL",
        TOKENS,
        "Its keys, a JSON Web Key Set behind a URL",
    ),
    (
        "issuer_roles_claim",
        "ISSUER_ROLES_CLAIM",
        "NAME",
        TOKENS,
        "The claim that holds its roles [default: roles]",
    ),
    (
        "issuer_roles",
        "ISSUER_ROLES",
        "THEIRS=OURS",
        TOKENS,
        "Which of its roles are which here; several with commas; others count for nothing",
    ),
    (
        "admin_username",
        "ADMIN_USERNAME",
        "NAME",
        ADMIN,
        "Made while there is no admin, ignored later [default: admin]",
    ),
    ("admin_email", "ADMIN_EMAIL", "EMAIL", ADMIN, "Its address; a login may use either"),
];

/// All settings that are no secrets.
pub static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let named = NAMED.iter().map(|&(key, env, value_name, heading, help)| Setting {
        key,
        env: env.into(),
        flag: key.replace('_', "-"),
        value_name,
        help: help.into(),
        heading,
    });
    let bounds = BOUNDS.iter().map(|bound| {
        let reason: Vec<_> = bound.reason.iter().map(|line| line.trim()).collect();
        Setting {
            key: bound.key,
            env: format!("ROWCAST_{}", bound.key.to_ascii_uppercase()),
            flag: bound.key.replace('_', "-"),
            value_name: "N",
            help: format!(
                "{} [default: {}]",
                reason.join(" ").trim_end_matches('.'),
                (bound.default)()
            ),
            heading: LIMITS,
        }
    });
    named.chain(bounds).collect()
});

/// How a setting is called in messages: `--port (APP_PORT)`.
pub(super) fn names(key: &str) -> String {
    match SETTINGS.iter().find(|setting| setting.key == key) {
        Some(setting) => format!("--{} ({})", setting.flag, setting.env),
        None => key.to_owned(),
    }
}

/// Flags as typed, and the file they name. Becomes a part of a command by `#[command(flatten)]`.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// By the setting's key.
    pub values: BTreeMap<&'static str, String>,
    /// `--config`.
    pub config: Option<PathBuf>,
}

fn flag(setting: &'static Setting) -> Arg {
    Arg::new(setting.key)
        .long(setting.flag.as_str())
        .value_name(setting.value_name)
        .help(format!("{} [env: {}]", setting.help, setting.env))
        .help_heading(setting.heading)
        .allow_hyphen_values(true)
}

fn config_flag() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(format!("Settings as a JSON object; names as in the flags, with underscores [default: {DEFAULT_FILE}, if it is there]"))
        .help_heading(SERVER)
}

impl Flags {
    fn from(matches: &ArgMatches) -> Flags {
        let typed =
            |key: &str| matches.try_get_one::<String>(key).ok().flatten().map(ToOwned::to_owned);
        Flags {
            values: SETTINGS.iter().filter_map(|s| Some((s.key, typed(s.key)?))).collect(),
            config: typed("config").map(PathBuf::from),
        }
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Flags::from(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from(matches);
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.arg(config_flag()).args(SETTINGS.iter().map(flag))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// The few flags of commands that work on a data directory.
#[derive(Clone, Debug, Default)]
pub struct PlaceFlags(pub Flags);

impl clap::FromArgMatches for PlaceFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(PlaceFlags(Flags::from(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = PlaceFlags(Flags::from(matches));
        Ok(())
    }
}

impl clap::Args for PlaceFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let place = |setting: &&Setting| ["data", "schemas", "log"].contains(&setting.key);
        let flags = SETTINGS.iter().filter(place).map(flag).chain([config_flag()]);
        // Before or after the action of a command that has several (`user list --data DIR`).
        command.args(flags.map(|flag| flag.global(true)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag, by its name.
    Flag(String),
    /// A variable of the environment.
    Env(String),
    /// The configuration file.
    File {
        /// As it was named.
        path: PathBuf,
        /// The key that holds the value.
        key: String,
        /// 1-based, where it was found.
        line: Option<usize>,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(flag) => write!(f, "flag --{flag}"),
            Source::Env(name) => write!(f, "environment variable {name}"),
            Source::File { path, key, line: Some(line) } => {
                write!(f, "{}:{line}: \"{key}\"", path.display())
            }
            Source::File { path, key, line: None } => write!(f, "{}: \"{key}\"", path.display()),
        }
    }
}

/// A value as text, and where it came from.
#[derive(Clone, Debug)]
pub struct Value {
    /// As it was given.
    pub text: String,
    /// Where.
    pub source: Source,
}

impl Value {
    /// The refusal of this value.
    pub fn wrong(&self, why: impl fmt::Display) -> Error {
        Error::bad(format!("{}: {why}", self.source))
    }
}

/// All that was given, the strongest source of each setting.
#[derive(Debug, Default)]
pub struct Given(BTreeMap<&'static str, Value>);

impl Given {
    /// Flags over environment over file. An empty variable counts as not set.
    pub fn gather(flags: Flags, env: Env<'_>) -> Result<Given> {
        let mut given = match (&flags.config, Path::new(DEFAULT_FILE)) {
            (Some(named), _) => file::read(named)?,
            (None, default) if default.exists() => file::read(default)?,
            (None, _) => BTreeMap::new(),
        };
        for setting in SETTINGS.iter() {
            let flag = flags.values.get(setting.key).map(|text| Value {
                text: text.clone(),
                source: Source::Flag(setting.flag.clone()),
            });
            let variable = || {
                let text = env(&setting.env).filter(|text| !text.is_empty())?;
                Some(Value { text, source: Source::Env(setting.env.clone()) })
            };
            if let Some(value) = flag.or_else(variable) {
                given.insert(setting.key, value);
            }
        }
        Ok(Given(given))
    }

    /// A setting's value, if it was given.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Reads a setting's text; an error tells its source.
    pub fn read<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        parse(&value.text).map(Some).map_err(|why| value.wrong(why))
    }
}
