//! `rowcast user` and `rowcast token`.

use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value as Json, json};

use crate::config::settings::PlaceFlags;
use crate::error::{Error, Result};
use crate::limits;

use super::link::Link;
use super::say;
use super::secret::PasswordFrom;

#[derive(clap::Args)]
pub struct Users {
    #[command(subcommand)]
    user: User,
    #[command(flatten)]
    pub place: PlaceFlags,
}

#[derive(clap::Subcommand)]
enum User {
    /// Adds a user
    Add {
        username: String,
        #[arg(long)]
        email: Option<String>,
        /// A role it gets, e.g. admin; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Disables a user: its sessions and sockets end at once
    Disable { username: String },
    /// Sets a user's password: its sessions end
    Passwd {
        username: String,
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Lists all users, a JSON object a line
    List,
}

impl Users {
    /// What is sent, and where.
    pub fn call(&self) -> Result<(&'static str, Json)> {
        Ok(match &self.user {
            User::Add { username, email, roles, password } => {
                let password = password.get(true)?;
                let mut body = json!({"username": username, "password": password, "roles": roles});
                if let Some(email) = email {
                    body["email"] = json!(email);
                }
                ("/owner/user/add", body)
            }
            User::Disable { username } => ("/owner/user/disable", json!({"username": username})),
            User::Passwd { username, password } => {
                let password = password.get(true)?;
                ("/owner/user/passwd", json!({"username": username, "password": password}))
            }
            User::List => ("/owner/user/list", json!({})),
        })
    }

    pub async fn run(&self, path: &str, body: &Json, link: &Link) -> Result<ExitCode> {
        let answer = link.call(Method::POST, path, Some(body)).await?;
        match &self.user {
            User::Add { username, .. } => {
                say(format_args!("added {username}, id {}", answer.as_str().unwrap_or_default()));
            }
            User::Disable { username } => say(format_args!("disabled {username}")),
            User::Passwd { username, .. } => say(format_args!("password of {username} set")),
            User::List => {
                for user in answer.as_array().into_iter().flatten() {
                    say(user);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(clap::Args)]
pub struct Token {
    /// Whose
    username: String,
    /// How long it is good for, e.g. 1h or 30d
    #[arg(long, default_value = "7d", value_name = "TIME")]
    lifetime: String,
    #[command(flatten)]
    pub place: PlaceFlags,
}

impl Token {
    /// Prints a token of a session of its own.
    pub async fn run(&self, link: &Link) -> Result<ExitCode> {
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(3650 * 24 * 3600));
        let lifetime = limits::duration(&self.lifetime, least, most)
            .map_err(|why| Error::bad(format!("--lifetime: {why}")))?;
        let body = json!({"username": self.username, "seconds": lifetime.as_secs()});
        let answer = link.call(Method::POST, "/owner/token", Some(&body)).await?;
        say(answer["token"].as_str().unwrap_or_default());
        Ok(ExitCode::SUCCESS)
    }
}
