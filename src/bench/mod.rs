//! `rowcast bench`: a load generator that measures a server from outside, over real sockets, and
//! the floor beside it.

mod check;
mod client;
mod drive;
mod fair;
mod feed;
mod floor;
mod folder;
mod idle;
mod ledger;
mod machine;
mod matching;
mod options;
mod place;
mod process;
mod progress;
mod record;
mod report;
mod scenario;
mod started;
mod stats;
mod subscriber;
mod wire;
mod writer;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::Result;

use self::drive::Pace;
use self::fair::Fair;
use self::feed::Audience;
use self::machine::Machine;
use self::matching::Match;
use self::options::Options;
use self::progress::Bar;
use self::report::Told;
use self::scenario::Scenario;

const HELP: &str = "\
Starts a server of its own in a temporary folder, or another build's (--server), or takes one that
runs (--url); subscribes over WebSockets, writes over HTTP, and tells what the server spent. With
--floor every round is measured twice: the server, and the same frames by bare write() calls from a
process that stores and matches nothing; the ratio of the two says more than either, since a
machine's speed drifts.

Exits with 1 where a delivery was missing, doubled, behind a later commit or not for its subscriber,
or the server ended a connection.

  rowcast bench broadcast --floor
  rowcast bench selective --subscribers 10000 --writers 1,4,16,64
  rowcast bench selective --subscribers 100,10000 --server old/rowcast
  rowcast bench fair --floor
  rowcast bench fair --beside import,bulk --server old/rowcast
  rowcast bench all --floor --json > result.json

All of them with --floor take some six minutes; --seconds and --pairs make it shorter.";

/// `rowcast bench SCENARIO`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// All that follow, one after the other, each as it is by default
    All {
        #[command(flatten)]
        options: Options,
        /// For `match`: how many plans, with commas
        #[arg(
            long,
            value_name = "N",
            value_delimiter = ',',
            default_value = "1000,10000,100000,1000000"
        )]
        plans: Vec<usize>,
        #[command(flatten)]
        sizes: fair::Sizes,
    },
    /// Every change to every subscriber
    Broadcast(Options),
    /// As many filters as subscribers: each change is for one of them
    Selective(Options),
    /// Twenty compound filters with a selection, shared by all subscribers
    Mixed(Options),
    /// Subscribers who only wait: memory of each, how fast they come, what is left when they go
    Idle(Options),
    /// Durable creates, with nobody listening
    Writes(Options),
    /// Who is held up by whom: reads, deliveries and lone writes beside nothing, and beside
    /// subscribers that do not read, replays, dear filters, imports and bulk updates in turn; with
    /// --floor also beside a process that only computes as long
    Fair(fair::Asked),
    /// What a change costs among many plans, in process and without a store
    Match(Match),
    /// A server of bare write() calls, for --floor
    #[command(hide = true)]
    FloorServer(floor::FloorServer),
    /// A process that only computes, for `fair --floor`
    #[command(hide = true)]
    Computing(fair::Computing),
    /// A server to measure: it ends with the process that starts it
    #[command(hide = true)]
    Started(started::Started),
}

impl Bench {
    /// Runs the scenario; fails where a delivery was missing, doubled, reordered or wrong.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.command {
            Command::All { options, plans, sizes } => {
                run(everything(options, plans, sizes), options)
            }
            Command::Broadcast(options) => run(broadcast(options), options),
            Command::Selective(options) => run(selective(options), options),
            Command::Mixed(options) => run(mixed(options), options),
            Command::Idle(options) => {
                idle::check_alone(options)?;
                run(idle(options), options)
            }
            Command::Writes(options) => run(writes(options), options),
            Command::Fair(fair::Asked { options, sizes, beside }) => {
                fair::check_alone(options)?;
                run(fair(options, sizes, beside, false), options)
            }
            Command::Match(matching) => matching.run(),
            Command::Computing(computing) => computing.run(),
            Command::FloorServer(floor) => floor.run(),
            Command::Started(started) => started.run(),
        }
    }
}

fn everything(options: &Options, plans: &[usize], sizes: &fair::Sizes) -> Vec<Part> {
    let mut parts = broadcast(options);
    // Several writers keep that pace anyway.
    if options.pace.is_none() && options.writers(&[1]).contains(&1) {
        let (pace, writers) = (Some(Pace::Ack), vec![1]);
        parts.extend(broadcast(&Options { pace, writers, ..options.clone() }));
    }
    parts.extend(selective(options));
    parts.extend(mixed(options));
    parts.extend(idle(options));
    parts.extend(writes(options));
    parts.extend(fair(options, sizes, &[], true));
    parts.push(Part::Match(Match::among(plans.to_vec(), options.seconds)));
    parts
}

fn broadcast(options: &Options) -> Vec<Part> {
    listened("broadcast", options, &[1_000], |_| Audience::All)
}

fn selective(options: &Options) -> Vec<Part> {
    let audience = |subscribers| Audience::Distinct(subscribers as u64);
    listened("selective", options, &[100, 1_000, 10_000], audience)
}

fn mixed(options: &Options) -> Vec<Part> {
    listened("mixed", options, &[1_000], |_| Audience::Mixed)
}

/// One that somebody listens to, at each of its sizes, by so many writers each time.
fn listened(
    name: &'static str,
    options: &Options,
    sizes: &[usize],
    audience: impl Fn(usize) -> Audience,
) -> Vec<Part> {
    let mut parts = Vec::new();
    for subscribers in options.sizes(sizes) {
        for writers in options.writers(&[1]) {
            let pace = if writers == 1 { Pace::Delivery } else { Pace::Ack };
            let (pace, audience) = (options.pace.unwrap_or(pace), audience(subscribers));
            parts.push(Part::Load(Scenario { name, audience, subscribers, writers, pace }));
        }
    }
    parts
}

fn writes(options: &Options) -> Vec<Part> {
    let audience = Audience::Nobody;
    let pace = options.pace.unwrap_or(Pace::Ack);
    let name = "writes";
    let of = |writers| {
        // Nobody listens: what is answered is delivered.
        let pace = if writers > 1 && pace == Pace::Delivery { Pace::Ack } else { pace };
        Part::Load(Scenario { name, audience, subscribers: 0, writers, pace })
    };
    options.writers(&[1, 64]).into_iter().map(of).collect()
}

fn idle(options: &Options) -> Vec<Part> {
    options.sizes(&[10_000]).into_iter().map(Part::Idle).collect()
}

/// `short`: as one of several.
fn fair(options: &Options, sizes: &fair::Sizes, beside: &[fair::Burden], short: bool) -> Vec<Part> {
    let all = Fair::all(options, sizes, beside, short).into_iter();
    all.map(Part::Fair).collect()
}

/// What is run, and told of as one.
enum Part {
    Load(Scenario),
    Fair(Fair),
    Idle(usize),
    Match(Match),
}

impl Part {
    fn check(&self, options: &Options) -> Result<()> {
        match self {
            Part::Load(scenario) => scenario.check(options),
            Part::Fair(fair) => fair.check(options),
            Part::Idle(subscribers) => idle::check(*subscribers),
            Part::Match(matching) => matching.check(),
        }
    }

    /// As progress names it.
    fn label(&self) -> String {
        match self {
            Part::Load(scenario) => scenario.label(),
            Part::Fair(fair) => fair.label(),
            Part::Idle(subscribers) => idle::label(*subscribers),
            Part::Match(_) => "match".into(),
        }
    }

    fn run(&self, options: &Options, bar: &Bar) -> Result<Told> {
        match self {
            Part::Load(scenario) => Ok(report::told(&scenario.run(options, bar)?)),
            Part::Fair(fair) => fair.run(options, bar),
            Part::Idle(subscribers) => idle::run(*subscribers, options, bar),
            Part::Match(matching) => bar.aside(|| matching.told()),
        }
    }
}

/// Runs these, one after the other, and tells what they came to.
fn run(parts: Vec<Part>, options: &Options) -> Result<ExitCode> {
    // The last is refused before the first has taken its time.
    parts.iter().try_for_each(|part| part.check(options))?;
    listen_for_interrupts();
    let machine = Machine::of(options);
    machine.warn();
    let bar = Bar::new();
    if !options.json {
        bar.print(&machine.head());
        if parts.iter().any(|part| matches!(part, Part::Load(_))) {
            bar.print(&report::legend(options));
        }
        if parts.iter().any(|part| matches!(part, Part::Fair(_))) {
            bar.print(fair::LEGEND);
        }
    }
    let (mut all, mut failed) = (Vec::new(), None);
    let count = parts.len();
    for (number, part) in (1..).zip(parts) {
        bar.part(number, count, &part.label());
        match part.run(options, &bar) {
            Ok(told) => {
                if !options.json {
                    bar.print(&format!("\n{}", told.table));
                }
                all.push(told);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let whole = all.iter().all(|told| told.whole);
    if options.json {
        bar.print(&format!("{:#}", report::document(all, &machine, failed.as_ref())));
    }
    match failed {
        Some(error) => Err(error),
        None if whole => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// So that Ctrl-C, SIGTERM or SIGHUP leaves no server and no folder behind: the generator looks at
/// what it sets. Whoever says so again does not want to wait for what is cleared up elsewhere.
fn listen_for_interrupts() {
    let (listens, listening) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        let told = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            // Whoever began it with nohup wants it to go on.
            let mut hangup = match ignores_hangup() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            };
            drop(listens);
            for told in [&client::INTERRUPTED, &place::HURRIED] {
                let hangs_up = async {
                    match &mut hangup {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangs_up => {}
                }
                told.store(true, Ordering::Relaxed);
            }
            std::io::Result::Ok(())
        });
        if let Err(error) = told {
            eprintln!("rowcast: signals are not heard: {error}");
        }
    });
    // Nothing is started that a signal could leave behind before it is heard.
    let _: std::result::Result<(), _> = listening.recv();
}

/// Whether SIGHUP was ignored when this process began: a handler would undo that. `false` where
/// the system does not tell.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Bit 0 is signal 1.
    ignored.is_some_and(|mask| mask & 1 != 0)
}
