//! Realtime transcripts from `fixtures/realtime/*.json` against a real server; see the README
//! there.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::exchange::{
    Scene, Step, admin, at, exchange, files, fill, filled, matches, read, target_encoded,
};
use common::sse::Sse;
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
    Restart(Restart),
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
    #[serde(default)]
    over: Over,
}

/// What carries the messages.
#[derive(Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    #[default]
    Socket,
    /// Server-sent events; an `id:` is heard as `cursor`, one without data as a position.
    Events,
}

/// A client that listens.
enum Ear {
    Socket(Box<Ws>),
    Events(Box<Sse>),
}

impl Ear {
    fn next_within(&mut self, time: Duration) -> Option<Json> {
        match self {
            Ear::Socket(socket) => socket.next_within(time),
            Ear::Events(events) => events.next_within(time),
        }
    }

    /// The next message that tells a change.
    fn change_within(&mut self, time: Duration) -> Option<Json> {
        let deadline = Instant::now() + time;
        loop {
            let message = self.next_within(deadline.saturating_duration_since(Instant::now()))?;
            if message["event"] != "position" {
                return Some(message);
            }
        }
    }

    fn closed(&mut self) -> (u16, String) {
        match self {
            Ear::Socket(socket) => socket.closed(),
            Ear::Events(events) => events.closed(),
        }
    }

    fn head(&self) -> &HttpAnswer {
        match self {
            Ear::Socket(socket) => &socket.handshake,
            Ear::Events(events) => &events.head,
        }
    }
}

#[derive(Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Via {
    #[default]
    Bearer,
    /// As a browser does it, `Origin` included.
    Subprotocol,
    /// `access_token` in the URL.
    Query,
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
    /// and what its `detail` must be.
    detail: Option<Json>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Hear {
    hear: String,
    messages: Vec<Json>,
    /// Name → where in the last of them.
    #[serde(default)]
    save: BTreeMap<String, String>,
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

/// The server ends and starts again on the same data.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    restart: How,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    /// SIGTERM: whoever listens is told.
    Stop,
    /// As a power cut would: its clients are gone.
    Kill,
}

fn run(path: &Path) -> Result<(), Failed> {
    let fixture = read::<Json>(path)?;
    let mut scene = Scene::start(&fixture, path)?;
    let mut ears = BTreeMap::new();
    for (number, step) in fixture.steps.iter().enumerate() {
        // Parsed one by one, so that an error names the step.
        let done = serde_json::from_value::<Action>(step.clone())
            .map_err(|error| error.to_string())
            .and_then(|action| act(&mut scene, &mut ears, &action));
        done.map_err(|why| {
            let log = scene.server.log();
            format!("step {}: {step}\n{why}\nthe server said:\n{log}", number + 1)
        })?;
    }
    std::thread::sleep(SILENCE);
    for (name, ear) in &mut ears {
        if let Some(message) = ear.change_within(Duration::from_millis(1)) {
            return Err(format!("{name} heard what no step expects: {message}").into());
        }
    }
    Ok(())
}

fn act(scene: &mut Scene, ears: &mut BTreeMap<String, Ear>, action: &Action) -> Result<(), String> {
    match action {
        Action::Call(step) => exchange(scene, step),
        Action::Subscribe(subscribe) => {
            let ear = connect(scene, &subscribe.client, &subscribe.query)?
                .map_err(|answer| format!("refused: {} {}", answer.status, answer.text()))?;
            for (name, value) in &subscribe.answer_headers {
                let found = ear.head().header(name).unwrap_or("@absent");
                if found != value {
                    return Err(format!("header {name} is {found}, not {value}"));
                }
            }
            ears.insert(subscribe.subscribe.clone(), ear);
            Ok(())
        }
        Action::Refuse(refuse) => refused(scene, refuse),
        Action::Hear(hear) => {
            let ear = ears.get_mut(&hear.hear).ok_or("no such client")?;
            heard(scene, ear, hear)
        }
        Action::Closed(closed) => {
            let mut ear = ears.remove(&closed.closed).ok_or("no such client")?;
            ended(ear.closed(), closed.code, &filled(&closed.reason, &scene.saved)?)
        }
        Action::Leave(leave) => match ears.remove(&leave.leave).ok_or("no such client")? {
            Ear::Socket(mut socket) => {
                let frame = CloseFrame { code: leave.code.into(), reason: "bye".into() };
                socket.socket.close(Some(frame)).map_err(|error| error.to_string())?;
                ended(socket.closed(), leave.code, "")
            }
            Ear::Events(_) => Ok(()),
        },
        Action::Restart(Restart { restart }) => {
            if let How::Stop = restart {
                let code = scene.server.terminate();
                if code != Some(0) {
                    return Err(format!("stopped with {code:?}"));
                }
            }
            scene.server.restart();
            if let How::Kill = restart {
                ears.clear();
            }
            Ok(())
        }
    }
}

fn heard(scene: &mut Scene, ear: &mut Ear, hear: &Hear) -> Result<(), String> {
    let mut last = Json::Null;
    for (number, expected) in hear.messages.iter().enumerate() {
        let expected = fill(expected, &scene.saved)?;
        // Positions come when they come: they are heard only where one is expected.
        let heard = match expected["event"] == "position" {
            true => ear.next_within(common::PATIENCE),
            false => ear.change_within(common::PATIENCE),
        };
        last = heard.ok_or_else(|| format!("message {}: none came", number + 1))?;
        matches(&expected, &last, &format!("message {}", number + 1))?;
    }
    for (name, place) in &hear.save {
        let found = at(&last, place);
        if found.is_null() {
            return Err(format!("nothing to save at {place} of {last}"));
        }
        scene.saved.insert(name.clone(), found.clone());
    }
    Ok(())
}

fn connect(scene: &Scene, client: &Client, query: &str) -> Result<Result<Ear, HttpAnswer>, String> {
    let mut target = format!("{}?{}", client.base, filled(query, &scene.saved)?);
    let mut headers = Vec::new();
    for (name, value) in &client.headers {
        headers.push((name.as_str(), filled(value, &scene.saved)?));
    }
    let mut protocols = client.protocols.clone();
    if let Some(token) = scene.token(&client.who)? {
        match (client.via, &mut protocols) {
            (_, Some(protocols)) => *protocols = protocols.replace("${token}", token),
            (Via::Query, _) => target.push_str(&format!("&access_token={token}")),
            (Via::Bearer, _) => headers.push(("Authorization", format!("Bearer {token}"))),
            (Via::Subprotocol, none) => {
                headers.push(("Origin", "http://elsewhere.example".into()));
                *none = Some(format!("Authorization, {token}"));
            }
        }
    }
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (server, target) = (&scene.server, target_encoded(&target));
    Ok(match client.over {
        Over::Socket => server
            .ws(&target, &headers, protocols.as_deref())
            .map(|socket| Ear::Socket(Box::new(socket))),
        Over::Events => server.sse(&target, &headers).map(|events| Ear::Events(Box::new(events))),
    })
}

fn refused(scene: &Scene, refuse: &Refuse) -> Result<(), String> {
    match connect(scene, &refuse.client, &refuse.refuse)? {
        Ok(mut ear) => {
            let (Some(code), Some(reason)) = (refuse.code, &refuse.reason) else {
                return Err("no HTTP refusal came where one was expected".into());
            };
            ended(ear.closed(), code, &filled(reason, &scene.saved)?)
        }
        Err(answer) => {
            let json = answer.json();
            if Some(answer.status) != refuse.status {
                return Err(format!("answered {} {json}", answer.status));
            }
            let error = refuse.error.as_deref().ok_or("an error must be given")?;
            let message = json["error"]["message"].as_str().unwrap_or_default();
            if !message.contains(error) {
                return Err(format!("the message lacks '{error}': {json}"));
            }
            match &refuse.detail {
                Some(detail) => matches(detail, &json["error"]["detail"], "detail"),
                None => Ok(()),
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
