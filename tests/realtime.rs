//! Realtime transcripts from `fixtures/realtime/*.json` against a real server; see the README
//! there.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::exchange::{
    Scene, Step, admin, exchange, files, fill, filled, matches, read, target_encoded,
};
use common::tungstenite::protocol::CloseFrame;
use common::{HttpAnswer, Ws};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value as Json;

/// How long a socket must stay silent at the end. What was committed before has long been sent:
/// this only gives what should not be there a chance to show.
const SILENCE: Duration = Duration::from_millis(150);

fn main() {
    let arguments = Arguments::from_args();
    let trial = |(name, path): (String, PathBuf)| Trial::test(name, move || run(&path));
    let trials = files("realtime").into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Action {
    Call(Box<Step>),
    Subscribe(Subscribe),
    Refuse(Refuse),
    Hear(Hear),
    Closed(Closed),
    Leave(Leave),
}

/// How a client connects.
#[derive(serde::Deserialize)]
struct Client {
    #[serde(default = "admin", rename = "as")]
    who: String,
    /// Where the token goes.
    #[serde(default)]
    via: Via,
    #[serde(default = "base")]
    base: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// `Sec-WebSocket-Protocol` as sent; instead of `via: subprotocol`.
    protocols: Option<String>,
}

#[derive(Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Via {
    #[default]
    Bearer,
    /// As a browser does it, `Origin` included.
    Subprotocol,
}

fn base() -> String {
    "/api/realtime/content".into()
}

#[derive(serde::Deserialize)]
struct Subscribe {
    /// The socket's name in later steps.
    subscribe: String,
    query: String,
    #[serde(flatten)]
    client: Client,
    /// Headers of the 101, names in lower case; `@absent`.
    #[serde(default)]
    answer_headers: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Refuse {
    /// The query of a subscription that must be refused.
    refuse: String,
    #[serde(flatten)]
    client: Client,
    /// The close code after a completed handshake,
    code: Option<u16>,
    reason: Option<String>,
    /// or the status and message of an HTTP answer.
    status: Option<u16>,
    error: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Hear {
    hear: String,
    messages: Vec<Json>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Closed {
    closed: String,
    code: u16,
    reason: String,
}

/// The client closes; the server must answer with the same code and no reason.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Leave {
    leave: String,
    code: u16,
}

fn run(path: &Path) -> Result<(), Failed> {
    let fixture = read::<Json>(path)?;
    let mut scene = Scene::start(&fixture, path)?;
    let mut sockets = BTreeMap::new();
    for (number, step) in fixture.steps.iter().enumerate() {
        // Parsed one by one, so that an error names the step.
        let done = serde_json::from_value::<Action>(step.clone())
            .map_err(|error| error.to_string())
            .and_then(|action| act(&mut scene, &mut sockets, &action));
        done.map_err(|why| {
            let log = scene.server.log();
            format!("step {}: {step}\n{why}\nthe server said:\n{log}", number + 1)
        })?;
    }
    std::thread::sleep(SILENCE);
    for (name, socket) in &mut sockets {
        if let Some(message) = socket.next_within(Duration::from_millis(1)) {
            return Err(format!("{name} heard what no step expects: {message}").into());
        }
    }
    Ok(())
}

fn act(
    scene: &mut Scene,
    sockets: &mut BTreeMap<String, Ws>,
    action: &Action,
) -> Result<(), String> {
    match action {
        Action::Call(step) => exchange(scene, step),
        Action::Subscribe(subscribe) => {
            let socket = connect(scene, &subscribe.client, &subscribe.query)?
                .map_err(|answer| format!("no 101: {} {}", answer.status, answer.text()))?;
            for (name, value) in &subscribe.answer_headers {
                let found = socket.handshake.header(name).unwrap_or("@absent");
                if found != value {
                    return Err(format!("header {name} is {found}, not {value}"));
                }
            }
            sockets.insert(subscribe.subscribe.clone(), socket);
            Ok(())
        }
        Action::Refuse(refuse) => refused(scene, refuse),
        Action::Hear(hear) => {
            let socket = sockets.get_mut(&hear.hear).ok_or("no such socket")?;
            for (number, expected) in hear.messages.iter().enumerate() {
                let expected = fill(expected, &scene.saved)?;
                let heard = socket
                    .next_within(common::PATIENCE)
                    .ok_or_else(|| format!("message {}: none came", number + 1))?;
                matches(&expected, &heard, &format!("message {}", number + 1))?;
            }
            Ok(())
        }
        Action::Closed(closed) => {
            let mut socket = sockets.remove(&closed.closed).ok_or("no such socket")?;
            ended(socket.closed(), closed.code, &closed.reason)
        }
        Action::Leave(leave) => {
            let mut socket = sockets.remove(&leave.leave).ok_or("no such socket")?;
            let frame = CloseFrame { code: leave.code.into(), reason: "bye".into() };
            socket.socket.close(Some(frame)).map_err(|error| error.to_string())?;
            ended(socket.closed(), leave.code, "")
        }
    }
}

fn connect(scene: &Scene, client: &Client, query: &str) -> Result<Result<Ws, HttpAnswer>, String> {
    let target = format!("{}?{}", client.base, filled(query, &scene.saved)?);
    let mut headers = Vec::new();
    for (name, value) in &client.headers {
        headers.push((name.as_str(), filled(value, &scene.saved)?));
    }
    let mut protocols = client.protocols.clone();
    if let Some(token) = scene.token(&client.who)? {
        match (client.via, &mut protocols) {
            (_, Some(protocols)) => *protocols = protocols.replace("${token}", token),
            (Via::Bearer, _) => headers.push(("Authorization", format!("Bearer {token}"))),
            (Via::Subprotocol, none) => {
                headers.push(("Origin", "http://elsewhere.example".into()));
                *none = Some(format!("Authorization, {token}"));
            }
        }
    }
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Ok(scene.server.ws(&target_encoded(&target), &headers, protocols.as_deref()))
}

fn refused(scene: &Scene, refuse: &Refuse) -> Result<(), String> {
    match connect(scene, &refuse.client, &refuse.refuse)? {
        Ok(mut socket) => {
            let (Some(code), Some(reason)) = (refuse.code, &refuse.reason) else {
                return Err("a 101 came where an HTTP answer was expected".into());
            };
            ended(socket.closed(), code, &filled(reason, &scene.saved)?)
        }
        Err(answer) => {
            let json = answer.json();
            if Some(answer.status) != refuse.status {
                return Err(format!("answered {} {json}", answer.status));
            }
            let error = refuse.error.as_deref().ok_or("an error must be given")?;
            let message = json["error"]["message"].as_str().unwrap_or_default();
            match message.contains(error) {
                true => Ok(()),
                false => Err(format!("the message lacks '{error}': {json}")),
            }
        }
    }
}

fn ended((code, reason): (u16, String), expected: u16, text: &str) -> Result<(), String> {
    if code != expected {
        return Err(format!("closed with {code} '{reason}', expected {expected}"));
    }
    if reason.len() > 123 {
        return Err(format!("a reason of {} bytes", reason.len()));
    }
    matches(&Json::from(text), &Json::from(reason), "reason")
}
