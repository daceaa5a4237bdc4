//! REST exchanges from `fixtures/rest/*.json` against a real server; see the README there.

mod common;

use std::path::{Path, PathBuf};

use common::exchange::{Scene, Step, exchange, files, read};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trial = |(name, path): (String, PathBuf)| Trial::test(name, move || run(&path));
    let trials = files("rest").into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(path: &Path) -> Result<(), Failed> {
    let fixture = read::<Step>(path)?;
    let mut scene = Scene::start(&fixture, path)?;
    for (number, step) in fixture.steps.iter().enumerate() {
        exchange(&mut scene, step).map_err(|why| {
            format!(
                "step {}: {} as {}\n{why}\nthe server said:\n{}",
                number + 1,
                step.call,
                step.who,
                scene.server.log()
            )
        })?;
    }
    Ok(())
}
