//! Who is held up by whom: reads, lone writes and deliveries beside nothing, beside what others may
//! ask of a server, and beside a process that merely computes as long.

mod burden;
mod compute;
mod line;
mod report;
mod round;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::json;

use crate::error::{Error, Result};
use crate::limits::Limits;

use super::client::Client;
use super::drive::{Length, Pace, Stretch, Target};
use super::feed::{Audience, Feed};
use super::ledger::{Class, Side};
use super::options::Options;
use super::place::{self, Bed};
use super::progress::Bar;
use super::record;
use super::report::{Told, grouped};
use super::scenario::{asks, check_files};

pub use burden::Burden;
pub use compute::Computing;
pub use report::LEGEND;

use compute::{Control, Threads};
use round::{Meter, Round, burden_threads};

/// The number of the records that are written one by one and listened to.
const LONE: u64 = 1_000_000;

/// Who listens to them.
const SUBSCRIBERS: usize = 4;

/// Connections that fill the table.
const FILLERS: u64 = 64;

/// What is waited after a burden has ended, and after one has begun.
const REST: Duration = Duration::from_millis(300);

/// As one of several scenarios: so many rounds at most, of so many seconds.
const SHORT: (u16, f64) = (2, 1.0);

/// How much `fair` has to bear.
#[derive(clap::Args, Clone, Debug)]
pub struct Sizes {
    /// For `fair`: records in the table, and entries in the log that is replayed
    #[arg(long, value_name = "N", default_value_t = 40_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    records: u64,
    /// For `fair`: what the dear filters cost together, as the server counts it, where a text
    /// search costs 16 [default: what one user's may]
    #[arg(long, value_name = "N")]
    cost: Option<u64>,
}

/// `rowcast bench fair`.
#[derive(clap::Args, Clone, Debug)]
pub struct Asked {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub sizes: Sizes,
    /// Beside what; several with commas [default: all of them]
    #[arg(long, value_name = "BURDEN", value_delimiter = ',')]
    pub beside: Vec<Burden>,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Fair {
    subscribers: usize,
    sizes: Sizes,
    beside: Vec<Burden>,
    /// Fewer and shorter rounds.
    short: bool,
}

/// What a burden is put on.
pub struct Ground {
    address: SocketAddr,
    schema: String,
    /// Headers of an admin's requests, and of a user's who is none.
    headers: String,
    stranger: String,
    owner: Option<PathBuf>,
    records: u64,
    cost: u64,
    /// From before the first record.
    cursor: String,
}

impl Ground {
    /// Records that one update touches.
    fn bulk(&self) -> u64 {
        self.records.min(burden::BULK)
    }
}

/// The rounds beside one burden, in order: a quiet one before each, and one behind the last.
struct Outcome {
    burden: Burden,
    title: String,
    quiet: Vec<Round>,
    beside: Vec<Round>,
    computing: Vec<Round>,
}

/// Whether nothing is asked for that has no meaning here.
///
/// # Errors
/// Something is.
pub fn check_alone(options: &Options) -> Result<()> {
    let senseless = [
        ("--writers", !options.writers.is_empty()),
        ("--pace", options.pace.is_some()),
        ("--durable-floor", options.durable_floor),
    ];
    match senseless.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => {
            Err(Error::bad(format!("fair: one writer writes now and then; leave {name} out")))
        }
        None => Ok(()),
    }
}

impl Fair {
    /// One for each number of subscribers.
    pub fn all(options: &Options, sizes: &Sizes, beside: &[Burden], short: bool) -> Vec<Fair> {
        let of = |subscribers| {
            let (sizes, beside) = (sizes.clone(), beside.to_vec());
            Fair { subscribers, sizes, beside, short }
        };
        options.sizes(&[SUBSCRIBERS]).into_iter().map(of).collect()
    }

    /// Whether it can be run at all.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self, options: &Options) -> Result<()> {
        if self.subscribers == 0 {
            return Err(Error::bad("fair: --subscribers 0 is nobody to be told"));
        }
        if options.url.is_some() && self.beside.contains(&Burden::Import) {
            return Err(Error::bad(
                "fair: an import goes through a socket of the data's owner: leave it or --url out",
            ));
        }
        if options.floor && options.url.is_some() && options.pid.is_none() {
            return Err(Error::bad(
                "fair --floor: how long to compute is known by the server's --pid",
            ));
        }
        check_files("fair", self.subscribers + 1_000)
    }

    /// As progress names it.
    pub fn label(&self) -> String {
        format!("fair, {} subscribers", grouped(self.subscribers as f64, 0))
    }

    fn burdens(&self, options: &Options) -> impl Iterator<Item = Burden> {
        let owned = options.url.is_none();
        let asked = self.beside.clone();
        let is_asked = move |burden: &Burden| asked.is_empty() || asked.contains(burden);
        let can = move |burden: &Burden| owned || *burden != Burden::Import;
        Burden::ALL.into_iter().filter(is_asked).filter(can)
    }

    pub fn run(&self, options: &Options, bar: &Bar) -> Result<Told> {
        let short = Options {
            pairs: options.pairs.min(SHORT.0),
            seconds: options.seconds.min(SHORT.1),
            ..options.clone()
        };
        let options = if self.short { &short } else { options };
        let label = self.label();
        bar.say(format!("{label}: starting"));
        let bed = Bed::make_of(options, record::open_schema)?;
        let stranger = Stranger::make(&bed)?;
        let changes = format!("/api/realtime/changes?schema={}&since=now", bed.schema);
        let cursor = bed.call(Method::GET, &changes, None)?;
        let ground = Arc::new(Ground {
            address: bed.address,
            schema: bed.schema.clone(),
            headers: bed.headers(),
            stranger: bed.headers_of(&stranger.token),
            owner: bed.owner_socket(),
            records: self.sizes.records,
            cost: self.sizes.cost.unwrap_or_else(|| Limits::default().principal_cost),
            cursor: cursor["next"].as_str().unwrap_or_default().to_owned(),
        });
        let mut meter = self.meter(&bed, &ground, options, bar)?;
        let mut outcomes = Vec::new();
        for burden in self.burdens(options) {
            bar.step(&format!("{label}: beside {}", burden.title(&ground)));
            outcomes.push(beside(burden, &ground, &mut meter, options, bar)?);
        }
        meter.client.rest(REST)?;
        let faults = std::mem::take(&mut meter.client.ledger(Side::Server).faults);
        let ended = meter.client.ledger(Side::Server).ended.take();
        drop(stranger);
        Ok(report::told(self.subscribers, &ground, &outcomes, faults, ended))
    }

    /// Fills the table, and subscribes.
    fn meter(&self, bed: &Bed, ground: &Ground, options: &Options, bar: &Bar) -> Result<Meter> {
        let label = self.label();
        let mut client = Client::new()?;
        let audience = Audience::Number(LONE);
        let mut target = Target {
            side: Side::Server,
            address: bed.address,
            pid: bed.pid,
            path: format!("/api/content/{}", bed.schema),
            headers: bed.headers(),
            template: None,
            sizes: vec![self.subscribers as u64],
            feed: Feed::new(Audience::Nobody, options.seed),
        };
        bar.say(format!("{label}: {} records", grouped(ground.records as f64, 0)));
        let fill = Stretch {
            pace: Pace::Ack,
            length: Length::Writes(ground.records),
            writers: ground.records.min(FILLERS) as usize,
            ahead: options.ahead,
            patience: options.patience(),
        };
        fill.run(&mut client, &mut target, |share| bar.at(share))?;
        target.feed.audience = audience;
        client.ledger(Side::Server).classes = vec![Class::default()];
        let path = format!(
            "/api/realtime/content?schema={}&event=create{}",
            bed.schema,
            audience.query(0)
        );
        let all = (0..self.subscribers).map(|_| asks(0, &path, &ground.headers));
        client.open(Side::Server, bed.address, all, |_| {})?;
        let path = format!(
            "/api/content/{}?filter={}&limit=10",
            bed.schema,
            super::feed::encode(r#"{"id":{"$lt":100}}"#)
        );
        let page = format!("GET {path} HTTP/1.1\r\n{}\r\n", ground.headers).into_bytes();
        let (length, patience) = (options.length(), options.patience());
        Ok(Meter { client, target, page, length, patience, random: options.seed })
    }
}

/// The rounds beside one burden.
fn beside(
    burden: Burden,
    ground: &Arc<Ground>,
    meter: &mut Meter,
    options: &Options,
    bar: &Bar,
) -> Result<Outcome> {
    let title = burden.title(ground);
    let mut outcome =
        Outcome { burden, title, quiet: Vec::new(), beside: Vec::new(), computing: Vec::new() };
    let say = |what: &str, round: u16| {
        bar.say(format!("beside {}: {what}, {round} of {}", outcome.title, options.pairs));
    };
    for round in 1..=options.pairs {
        say("quiet", round);
        meter.client.rest(REST)?;
        let quiet = meter.round(|| true, |share| bar.at(share))?;
        say("beside it", round);
        let working = burden.begin(ground)?;
        meter.client.rest(REST)?;
        let before = burden_threads();
        let measured = meter.round(|| working.is_alive(), |share| bar.at(share));
        let client = burden_threads().since(&before);
        let ended = working.end();
        // Why it ended by itself says more than that it did.
        let mut done = ended?;
        let mut borne = measured?;
        borne.burden_cores = client.cpu() as f64 / 1e9 / borne.seconds;
        borne.burden_count = done.count;
        borne.burden_per_second = done.times.times().map(|_| done.count as f64 / done.seconds);
        borne.burden_ms = done.times.times().map(|times| times.p50 as f64 / 1e6);
        borne.faults.add(std::mem::take(&mut done.faults));
        if options.floor {
            say("computing", round);
            meter.client.rest(REST)?;
            let mut pieces = borne.server.more_than(borne.seconds, &quiet.server, quiet.seconds);
            pieces.extend(client.more_than(borne.seconds, &Threads::default(), 1.0));
            let control = Control::start(&pieces)?;
            meter.client.rest(REST)?;
            let before = control.used();
            let mut computing = meter.round(|| true, |share| bar.at(share))?;
            let used = control.used().since(&before);
            computing.burden_cores = used.cpu() as f64 / 1e9 / computing.seconds;
            computing.burden_count = pieces.len() as u64;
            outcome.computing.push(computing);
        }
        outcome.quiet.push(quiet);
        outcome.beside.push(borne);
    }
    bar.say(format!("beside {}: quiet", outcome.title));
    meter.client.rest(REST)?;
    outcome.quiet.push(meter.round(|| true, |share| bar.at(share))?);
    Ok(outcome)
}

/// A user who is no admin; gone with the value.
struct Stranger<'a> {
    bed: &'a Bed,
    id: String,
    token: String,
}

impl Stranger<'_> {
    fn make(bed: &Bed) -> Result<Stranger<'_>> {
        let login = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let password = uuid::Uuid::new_v4().simple().to_string();
        let user = json!({"username": login, "password": password});
        let made = bed.call(Method::POST, "/api/content/user", Some(&user))?;
        let id = made["id"].as_str().map(str::to_owned);
        let id = id.ok_or_else(|| Error::bad("the server named no user"))?;
        let mut stranger = Stranger { bed, id, token: String::new() };
        let login = json!({"login": login, "password": password});
        let answer = bed.call(Method::POST, "/api/auth/local/login", Some(&login))?;
        answer["token"].as_str().unwrap_or_default().clone_into(&mut stranger.token);
        Ok(stranger)
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        if place::HURRIED.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let path = format!("/api/content/user/{}", self.id);
        if let Err(error) = self.bed.call(Method::DELETE, &path, None) {
            eprintln!("rowcast: the bench's user could not be removed: {error}");
        }
    }
}
