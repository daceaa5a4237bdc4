//! Who sees and may what: cases from `fixtures/access/*.json`; see the README there. Each file
//! runs twice: on the core in this process, and against a real server.

#[path = "access/case.rs"]
mod case;
mod common;
#[path = "access/core.rs"]
mod core;
mod rig;
#[path = "access/server.rs"]
mod server;

use std::path::PathBuf;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value as Json;

use case::{Case, Fixture, Saved, Side};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (name, path) in common::exchange::files("access") {
        let also = path.clone();
        trials.push(Trial::test(format!("{name}::core"), move || core(&path)));
        trials.push(Trial::test(format!("{name}::server"), move || server(&also)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn load(path: &PathBuf) -> Result<Fixture, Failed> {
    let text = std::fs::read_to_string(path)?;
    let fixture = serde_json::from_str(&text);
    fixture.map_err(|error| format!("{}: {error}", path.display()).into())
}

fn core(path: &PathBuf) -> Result<(), Failed> {
    let fixture = load(path)?;
    if let Some(problems) = &fixture.problems {
        return case::same_problems(&core::Core::problems(&fixture), problems);
    }
    run(&mut core::Core::new(&fixture)?, &fixture)
}

fn server(path: &PathBuf) -> Result<(), Failed> {
    let fixture = load(path)?;
    if let Some(problems) = &fixture.problems {
        return case::same_problems(&server::problems(&fixture), problems);
    }
    run(&mut server::Served::new(&fixture)?, &fixture)
}

/// Does what the cases say and compares; all failures of a file are told.
fn run(side: &mut dyn Side, fixture: &Fixture) -> Result<(), Failed> {
    let saved = side.saved();
    for (name, listener) in &fixture.listeners {
        side.listen(name, &saved.in_deed(&listener.deed), &listener.who).map_err(|refusal| {
            format!("listener {name}: refused with {} {}", refusal.status, refusal.says)
        })?;
    }
    let mut failures = Vec::new();
    for (number, case) in fixture.cases()?.iter().enumerate() {
        for who in case.who.all() {
            if !side.has(fixture, who) {
                continue;
            }
            if let Err(why) = one(side, fixture, &saved, case, who) {
                let about = case.about.as_deref().unwrap_or_default();
                let deed = &fixture.cases[number];
                failures.push(format!("case {} as {who}: {about}\n  {deed}\n  {why}", number + 1));
            }
        }
    }
    for name in fixture.listeners.keys() {
        let more = side.heard(name, None);
        if !more.is_empty() {
            failures.push(format!("listener {name} heard too much: {}", case::show(&more)));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

fn one(
    side: &mut dyn Side,
    fixture: &Fixture,
    saved: &Saved,
    case: &Case,
    who: &str,
) -> Result<(), String> {
    let got = side.act(who, &saved.in_deed(&case.deed));
    case::compare(&got, &saved.in_expected(&case.expected))?;
    for name in fixture.listeners.keys() {
        let want: Vec<Json> = case.heard.get(name).cloned().unwrap_or_default();
        let want: Vec<Json> = want.iter().map(|one| saved.in_json(one)).collect();
        let heard = side.heard(name, Some(want.len()));
        if heard != want {
            return Err(format!(
                "listener {name} heard {}\n  wanted {}",
                case::show(&heard),
                case::show(&want)
            ));
        }
    }
    Ok(())
}
