//! One world: a server, its people, and rounds of storm and quiet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rowcast::model::cursor::Cursor;

use crate::ask::Question;
use crate::checks;
use crate::client::Told;
use crate::common::{Options, Server};
use crate::rng::Rng;
use crate::subscriber::{Manner, Subscriber, Weather};
use crate::wire::Kind;
use crate::world::{self, Form, Person, SCHEMAS};
use crate::writers::{self, Records};

/// What came to pass, so that a run can be seen to have tried something.
#[derive(Debug, Default)]
pub struct Counts {
    pub worlds: usize,
    pub rounds: usize,
    pub commits: usize,
    pub messages: usize,
    pub resumes: usize,
    pub views: usize,
    pub sequences: usize,
    pub kills: usize,
    pub rules: usize,
    pub roles: usize,
    pub columns: usize,
    pub renames: usize,
    pub ends: BTreeMap<String, usize>,
}

/// How long everybody may take to catch up once it is quiet.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    seed: u64,
    pub(crate) rng: Rng,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) people: Vec<Person>,
    pub(crate) editor: String,
    pub(crate) forms: BTreeMap<&'static str, Form>,
    pub(crate) strangers: usize,
    records: Records,
    weather: Weather,
    groups: Vec<Vec<Subscriber>>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let mut forms = BTreeMap::new();
        let mut options = Options::default();
        for schema in SCHEMAS {
            let form = Form { rules: rng.below(world::variants(schema)), ..Form::default() };
            forms.insert(schema, form);
            options = options.schema(schema, world::file(schema, form));
        }
        // What is cut, cached and waited for differs from world to world.
        options = options.env("ROWCAST_PING_EVERY", "1500ms");
        if rng.chance(50) {
            options = options.env("ROWCAST_MESSAGE_RECORDS", 1 + rng.below(7));
        }
        if rng.chance(40) {
            options = options.env("ROWCAST_FRAME_BYTES", "1KiB");
        }
        if rng.chance(50) {
            options = options.env("ROWCAST_REPLAYS", 1 + rng.below(4));
        }
        if rng.chance(30) {
            options = options.env("ROWCAST_OUTBOX_BYTES", "64KiB").env("ROWCAST_OUTBOX_FRAMES", 40);
            options = options.env("ROWCAST_FRAME_BYTES", "4KiB");
        }
        let weather =
            Weather { few_dependants: rng.chance(12), trims: rng.chance(12), ..Weather::default() };
        if weather.few_dependants {
            options = options.env("ROWCAST_DEPENDANTS", 2 + rng.below(4));
        }
        if weather.trims {
            options = options.env("ROWCAST_LOG_AGE", "1s");
        }
        if rng.chance(40) {
            options = options.env("ROWCAST_RECENT_BYTES", "1MiB");
        }
        // Every other world, where the tester has not said which.
        if std::env::var_os("ROWCAST_IO_URING").is_none() {
            options = options.env("ROWCAST_IO_URING", seed % 2 == 1);
        }
        let server = Server::start(options);
        let admin = Person { name: "admin", id: String::new(), token: Some(server.admin_token()) };
        let mut people = vec![admin];
        for (name, roles) in [("ann", &[][..]), ("bob", &["editor"][..])] {
            let (id, token) = server.user(name, roles);
            people.push(Person { name, id, token: Some(token) });
        }
        people.push(Person { name: "guest", id: String::new(), token: None });
        let filter = crate::common::encode(r#"{"name":"editor"}"#);
        let (_, roles) = server.request(
            "GET",
            &format!("/api/content/role?filter={filter}"),
            people[0].token.as_deref(),
            None,
        );
        let editor = roles["data"]["items"][0]["id"].as_str().expect("the role").to_owned();
        let (address, records) = (server.address, Records::default());
        if rng.chance(20) {
            // Readers who sleep have their pipes filled.
            records.weight.store(8_000, Ordering::Relaxed);
        }
        writers::furnish(&mut rng, address, &people[0], &records);
        let groups = (0..5).map(|_| Vec::new()).collect();
        World {
            seed,
            rng,
            server,
            address,
            people,
            editor,
            forms,
            strangers: 0,
            records,
            weather,
            groups,
        }
    }

    /// Rounds for about so long, one at least.
    pub fn run(mut self, time: Duration, counts: &mut Counts) {
        let began = Instant::now();
        counts.worlds += 1;
        loop {
            self.gather();
            self.storm(counts);
            self.check(counts);
            counts.rounds += 1;
            if began.elapsed() >= time {
                return;
            }
        }
    }

    /// At a quiet point: whoever stands aside begins, with what is listed.
    fn gather(&mut self) {
        self.weather.target.store(0, Ordering::SeqCst);
        for at in 0..self.groups.len() {
            self.pump();
            let known = self.groups[at].first().map(|first| first.question.clone());
            let known = known.filter(|_| !self.rng.chance(10));
            let (question, listed) = loop {
                let question = known
                    .clone()
                    .unwrap_or_else(|| Question::random(&mut self.rng, self.people.len()));
                match checks::list(self.address, &self.people, &question) {
                    Ok(listed) => break (question, Some(listed)),
                    // May not be asked under the rules there are now.
                    Err(_) if known.is_some() => break (question, None),
                    Err((400 | 401 | 403, _)) => {}
                    Err(refused) => panic!("{question:?}: {refused:?}"),
                }
            };
            if known.is_none() {
                self.groups[at] = self.everybody(at, &question);
            }
            let Some(listed) = listed else {
                self.groups[at].clear();
                continue;
            };
            for subscriber in &mut self.groups[at] {
                let blind = !subscriber.told.cursors && subscriber.unsettled(&self.weather);
                if blind && subscriber.told.transitions {
                    subscriber.client.view = listed.clone();
                }
                if subscriber.is_off() {
                    subscriber.start(self.address, &self.people, &self.weather);
                    if subscriber.told.transitions && !subscriber.told.snapshot {
                        subscriber.client.view = listed.clone();
                    }
                }
                subscriber.turn_over(&self.weather);
            }
            for subscriber in &mut self.groups[at] {
                let began = Instant::now();
                let waits = subscriber.told.cursors && !subscriber.told.snapshot;
                while waits && subscriber.client.cursor.is_none() && subscriber.faults.is_empty() {
                    subscriber.step(self.address, &self.people, &self.weather);
                    if began.elapsed() > PATIENCE {
                        subscriber.fault("no position after the start".into());
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Has everybody answer the server's pings.
    fn pump(&mut self) {
        for subscriber in self.groups.iter_mut().flatten() {
            subscriber.pump(&self.weather);
        }
    }

    /// One subscriber of every kind that asks `question`.
    fn everybody(&mut self, group: usize, question: &Question) -> Vec<Subscriber> {
        let steady = Manner::default();
        let flaky = Manner { flaky: true, ..steady };
        let wild = Manner { slow: true, ..flaky };
        let by = |by: Kind, manner: Manner| Manner { by, ..manner };
        let live = Told::default();
        let plain = Told { cursors: true, ..live.clone() };
        let moving = Told { transitions: true, changes: true, ..plain.clone() };
        let snapshot = Told { snapshot: true, transitions: true, ..plain.clone() };
        let event = *self.rng.pick(&["create", "update", "delete"]);
        let mut all = vec![
            ("control", plain.clone(), steady),
            ("resuming", plain.clone(), flaky),
            ("live", live.clone(), steady),
            ("one event", Told { event: Some(event), ..plain.clone() }, wild),
            ("moving", moving.clone(), steady),
            ("moving and resuming", moving.clone(), wild),
            ("moving live", Told { cursors: false, ..moving.clone() }, steady),
            ("snapshot", snapshot.clone(), flaky),
            ("snapshot with changes", Told { changes: true, ..snapshot.clone() }, wild),
            ("events", plain.clone(), by(Kind::Events, flaky)),
            ("moving events", moving.clone(), by(Kind::Events, wild)),
            ("snapshot by events", snapshot, by(Kind::Events, flaky)),
            ("polls", plain.clone(), by(Kind::Polls, flaky)),
            ("moving polls", moving.clone(), by(Kind::Polls, flaky)),
        ];
        // What is watched must be shown to the control: the select has it, or everything.
        let watch = match question.schema {
            "item" => "n",
            "group" => "rank",
            "person" => "level",
            _ => "weight",
        };
        let shown = question.select.is_empty() || question.select.split(',').any(|n| n == watch);
        if question.who == 0 && shown {
            all.push(("watching", Told { watch: Some(watch), ..moving }, flaky));
        }
        if group == 0 {
            // As many who hear the same as are written together.
            all.extend((0..4).map(|_| ("crowd", plain.clone(), steady)));
        }
        let make = |(name, told, manner): (&str, Told, Manner)| {
            let rng = Rng(self.rng.next());
            Subscriber::new(format!("{group} {name}"), question.clone(), told, manner, rng)
        };
        all.into_iter().map(make).collect()
    }

    /// Writers, subscribers and misfortunes; ends when everybody has caught up.
    fn storm(&mut self, counts: &mut Counts) {
        let time = Duration::from_millis(400 + self.rng.below(1200) as u64);
        let deadline = Instant::now() + time;
        let pause = *self.rng.pick(&[0, 5, 30]);
        let rngs: Vec<Rng> = (0..3).map(|_| Rng(self.rng.next())).collect();
        let mut groups = std::mem::take(&mut self.groups);
        let subscribers: Vec<&mut Subscriber> = groups.iter_mut().flatten().collect();
        let mut hands: Vec<Vec<&mut Subscriber>> = (0..4).map(|_| Vec::new()).collect();
        for (at, subscriber) in subscribers.into_iter().enumerate() {
            hands[at % 4].push(subscriber);
        }
        let people = self.people.clone();
        let records = std::mem::take(&mut self.records);
        let weather = std::mem::take(&mut self.weather);
        std::thread::scope(|scope| {
            let (people, records, weather) = (&people, &records, &weather);
            let address = self.address;
            let tasks: Vec<_> = rngs
                .into_iter()
                .zip([0, 1, 2])
                .map(|(rng, who)| {
                    let who = &people[if who == 1 { 0 } else { who }];
                    scope.spawn(move || writers::run(rng, address, who, records, deadline, pause))
                })
                .collect();
            for mut hand in hands {
                scope.spawn(move || drive(&mut hand, address, people, weather));
            }
            for _ in 0..self.rng.below(4) {
                std::thread::sleep(time.mul_f64(0.1 + self.rng.below(30) as f64 / 100.0));
                self.misfortune(weather, counts);
            }
            for task in tasks {
                match task.join().expect("a writer") {
                    Ok((made, _)) => counts.commits += made,
                    Err(fault) => self.stop(&format!("a write: {fault}")),
                }
            }
            // What is committed now is all there will be: who begins to listen is told where.
            let mut ws = self.server.subscribe("schema=tag&since=now", people[0].token.as_deref());
            let cursor = ws.next()["cursor"].as_str().expect("a cursor").parse::<Cursor>();
            weather.target.store(cursor.expect("a cursor").position, Ordering::SeqCst);
        });
        (self.groups, self.records, self.weather) = (groups, records, weather);
    }

    /// The quiet point.
    fn check(&mut self, counts: &mut Counts) {
        for at in 0..self.groups.len() {
            self.pump();
            let group = &mut self.groups[at];
            let Some(first) = group.first() else { continue };
            let listed = checks::list(self.address, &self.people, &first.question);
            for subscriber in group.iter_mut() {
                counts.messages += subscriber.client.heard.len();
                counts.resumes += std::mem::take(&mut subscriber.resumes);
                for end in &subscriber.ends {
                    let end: String = end.chars().take(40).collect();
                    *counts.ends.entry(end).or_default() += 1;
                }
                // Without cursors, one whose rules changed is not told what it lost by that.
                let right = subscriber.told.cursors
                    || subscriber.whole && !subscriber.unsettled(&self.weather);
                if subscriber.told.transitions
                    && !subscriber.is_off()
                    && subscriber.told.watch.is_none()
                    && subscriber.faults.is_empty()
                    && right
                {
                    counts.views += 1;
                    checks::view(subscriber, &listed);
                }
            }
            checks::compare(group, counts);
        }
        let faults: Vec<String> = self
            .groups
            .iter()
            .flatten()
            .filter(|subscriber| !subscriber.faults.is_empty())
            .map(|subscriber| self.report(subscriber))
            .collect();
        if !faults.is_empty() {
            self.stop(&faults.join("\n\n"));
        }
    }

    fn report(&self, subscriber: &Subscriber) -> String {
        let who = self.people[subscriber.question.who].name;
        let mut text = format!("{} ({who}, {:?})\n", subscriber.name, subscriber.question);
        let _ = writeln!(text, "{:?} ends {:?}", subscriber.told, subscriber.ends);
        for fault in &subscriber.faults {
            let _ = writeln!(text, "FAULT {fault}");
        }
        let raw = &subscriber.raw;
        for line in &raw[raw.len().saturating_sub(60)..] {
            let line: String = line.chars().take(600).collect();
            let _ = writeln!(text, "    {line}");
        }
        text
    }

    /// Ends the test with all that is known.
    pub fn stop(&self, why: &str) -> ! {
        let log = self.records.log.lock().map(|log| log.join("\n")).unwrap_or_default();
        let forms = &self.forms;
        let text = format!("{why}\n\n{forms:?}\n\nWRITES\n{log}\n\nSERVER\n{}", self.server.log());
        let file = std::env::temp_dir().join(format!("stream-oracle-{}.txt", self.seed));
        let kept = std::fs::write(&file, text);
        let short: String = why.chars().take(3_000).collect();
        panic!("seed {}: {short}\nall of it: {} {kept:?}", self.seed, file.display());
    }
}

/// Drives some subscribers until each is done.
fn drive(hand: &mut [&mut Subscriber], address: SocketAddr, people: &[Person], weather: &Weather) {
    let mut quiet = None;
    loop {
        let mut busy = false;
        for subscriber in hand.iter_mut() {
            busy |= subscriber.step(address, people, weather);
        }
        if hand.iter().all(|subscriber| subscriber.is_done(weather)) {
            return;
        }
        if weather.target.load(Ordering::SeqCst) > 0 {
            let began = *quiet.get_or_insert_with(Instant::now);
            if began.elapsed() > PATIENCE {
                let target = weather.target.load(Ordering::SeqCst);
                for subscriber in hand.iter_mut().filter(|one| !one.is_done(weather)) {
                    let at = subscriber.client.position();
                    subscriber.fault(format!("is at {at:?} and not at {target} in time"));
                }
            }
        }
        if !busy {
            std::thread::sleep(Duration::from_millis(4));
        }
    }
}
