//! Secrets: by environment, by a file that the environment names, or from `.env` in the data
//! directory, which only its owner may read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Env;
use crate::error::{Error, Kind, Result};

/// The secrets there are.
pub const NAMES: [&str; 3] = ["APP_KEY", "APP_KEY_PREVIOUS", "ADMIN_PASSWORD"];

/// What HS256 needs.
const KEY_BYTES: usize = 32;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text` from now on.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself; never to be logged.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// So many random letters and digits: almost 6 bits each, and safe to paste anywhere.
    pub fn random(letters: usize) -> Result<Self> {
        const ALPHABET: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = String::with_capacity(letters);
        while text.len() < letters {
            let mut bytes = [0; 64];
            getrandom::fill(&mut bytes).map_err(Error::internal)?;
            // Bytes beyond a multiple of 62 are thrown away, so that every letter is as likely.
            let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| byte % 62);
            let letters_left = letters - text.len();
            text.extend(fair.take(letters_left).map(|index| ALPHABET[index as usize] as char));
        }
        Ok(Secret(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What was given; what is missing is made by [`Secrets::keep`].
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Signs tokens.
    pub app_key: Option<Secret>,
    /// Verifies tokens that it signed before.
    pub app_key_previous: Option<Secret>,
    /// Of the first admin.
    pub admin_password: Option<Secret>,
}

impl Secrets {
    /// Environment first, then `data/.env`, which is refused if others can read it.
    pub fn load(data: &Path, env: Env<'_>) -> Result<Secrets> {
        let kept = read_kept(&kept_path(data))?;
        let find = |name: &str, check: fn(&str) -> Result<(), String>| -> Result<Option<Secret>> {
            let given = match from_env(name, env)? {
                Some(given) => Some(given),
                None => kept.iter().find(|(kept, _)| kept == name).map(|(_, text)| {
                    (text.clone(), format!("{name} in {}", kept_path(data).display()))
                }),
            };
            let Some((text, source)) = given else { return Ok(None) };
            check(&text).map_err(|why| Error::bad(format!("{source}: {why}")))?;
            Ok(Some(Secret(text)))
        };
        Ok(Secrets {
            app_key: find("APP_KEY", key)?,
            app_key_previous: find("APP_KEY_PREVIOUS", key)?,
            admin_password: find("ADMIN_PASSWORD", password)?,
        })
    }

    /// Adds a made secret to `data/.env`. The caller holds the data directory's lock.
    pub fn keep(data: &Path, name: &str, secret: &Secret) -> Result<()> {
        let path = kept_path(data);
        let fault = |error: std::io::Error| {
            let text = format!("cannot write {}: {error}", path.display());
            Error::new(Kind::Unavailable, text)
        };
        let mut text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                "# Made by rowcast at its first run. Whoever reads this file can do everything.\n"
                    .into()
            }
            Err(error) => return Err(fault(error)),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{name}={}\n", secret.0));
        // Written whole beside it and renamed: a crash leaves the old file or the new one.
        let beside = data.join(".env.new");
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600);
        let write = || -> std::io::Result<()> {
            let mut file = open.open(&beside)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(data)?.sync_all()
        };
        write().map_err(fault)
    }
}

/// Where made secrets are kept.
pub fn kept_path(data: &Path) -> PathBuf {
    data.join(".env")
}

/// `NAME` or the content of the file named by `NAME_FILE`, and what to call it.
fn from_env(name: &str, env: Env<'_>) -> Result<Option<(String, String)>> {
    let set = |name: &str| env(name).filter(|text| !text.is_empty());
    let file_name = format!("{name}_FILE");
    match (set(name), set(&file_name)) {
        (Some(_), Some(_)) => {
            Err(Error::bad(format!("{name} and {file_name} are both set; use one of them")))
        }
        (Some(text), None) => Ok(Some((text, format!("environment variable {name}")))),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => {
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                Ok(Some((text, format!("{path} ({file_name})"))))
            }
            Err(error) => Err(Error::bad(format!(
                "environment variable {file_name}: cannot read {path}: {error}"
            ))),
        },
        (None, None) => Ok(None),
    }
}

fn key(text: &str) -> Result<(), String> {
    if text.len() >= KEY_BYTES {
        return Ok(());
    }
    Err(format!("it has {} bytes; at least {KEY_BYTES} are needed", text.len()))
}

fn password(text: &str) -> Result<(), String> {
    match text.chars().count() {
        8..=256 => Ok(()),
        count => Err(format!("it has {count} characters; 8 to 256 are needed")),
    }
}

/// `NAME=value` lines; blank ones and those beginning with `#` are skipped.
fn read_kept(path: &Path) -> Result<Vec<(String, String)>> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::bad(format!("cannot read {shown}: {error}"))),
    };
    let mode = std::fs::metadata(path)
        .map_err(|error| Error::bad(format!("cannot read {shown}: {error}")))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Error::bad(format!(
            "{shown} holds secrets and others can read it (mode {:04o}): chmod 600 {shown}",
            mode & 0o7777
        )));
    }
    let mut kept: Vec<(String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| Error::bad(format!("{shown}:{}: {why}", number + 1));
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("NAME=value is needed"))?;
        if !NAMES.contains(&name) {
            return Err(wrong(&format!("only secrets belong here: {}", NAMES.join(", "))));
        }
        if kept.iter().any(|(kept, _)| kept == name) {
            return Err(wrong(&format!("{name} stands twice")));
        }
        kept.push((name.into(), value.into()));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_secrets_are_long_and_differ() {
        let (a, b) = (Secret::random(40).unwrap(), Secret::random(40).unwrap());
        assert_eq!(a.reveal().len(), 40);
        assert!(a.reveal().chars().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(a, b);
        assert_eq!(format!("{a:?}"), "Secret");
    }

    #[test]
    fn kept_secrets_come_back_and_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let none = |_: &str| None;
        let made = Secret::random(48).unwrap();
        Secrets::keep(dir.path(), "APP_KEY", &made).unwrap();
        Secrets::keep(dir.path(), "ADMIN_PASSWORD", &Secret::new("correct horse")).unwrap();
        let path = kept_path(dir.path());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let secrets = Secrets::load(dir.path(), &none).unwrap();
        assert_eq!(secrets.app_key, Some(made));
        assert_eq!(secrets.admin_password, Some(Secret::new("correct horse")));

        let env = |name: &str| (name == "APP_KEY").then(|| "k".repeat(32));
        let secrets = Secrets::load(dir.path(), &env).unwrap();
        assert_eq!(secrets.app_key, Some(Secret::new("k".repeat(32))), "environment first");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Secrets::load(dir.path(), &none).unwrap_err().message;
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn refusals_name_the_source_and_never_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "topsecret\n").unwrap();
        let named = path.display().to_string();
        let by_file = |name: &str| (name == "APP_KEY_FILE").then(|| named.clone());
        let by_env = |name: &str| (name == "APP_KEY").then(|| "topsecret".to_owned());
        let both = |name: &str| name.starts_with("APP_KEY").then(|| "topsecret".to_owned());
        let missing = |name: &str| (name == "ADMIN_PASSWORD_FILE").then(|| "/nowhere".to_owned());
        let short = |name: &str| (name == "ADMIN_PASSWORD").then(|| "topsecr".to_owned());
        let cases: [(Env<'_>, &str); 5] = [
            (&by_file, "APP_KEY_FILE"),
            (&by_env, "environment variable APP_KEY: it has 9 bytes; at least 32 are needed"),
            (&both, "both set"),
            (&missing, "ADMIN_PASSWORD_FILE: cannot read /nowhere"),
            (&short, "it has 7 characters"),
        ];
        for (env, expected) in cases {
            let error = Secrets::load(dir.path(), env).unwrap_err().message;
            assert!(error.contains(expected) && !error.contains("topsec"), "{error}");
        }
    }
}
