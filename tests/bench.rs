//! `rowcast bench` as a user runs it, only smaller.

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::faulty::{Faults, serve};
use common::{Options, PATIENCE, Server, rowcast};
use serde_json::{Value as Json, json};

/// Exit code, what came to stdout and to stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the binary");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn bench(arguments: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    // Its servers live there: what is left of them would be seen.
    let mut command = rowcast(folder.path());
    command.env("TMPDIR", folder.path()).arg("bench").args(arguments.split(' '));
    let told = run(&mut command);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{arguments}: left behind {left:?}");
    told
}

/// The document's results; every one whole.
fn results(arguments: &str) -> Vec<Json> {
    told(arguments).0
}

/// The results, and what stood on stderr.
fn told(arguments: &str) -> (Vec<Json>, String) {
    let (code, out, err) = bench(arguments);
    assert_eq!(code, 0, "{arguments}\n{out}\n{err}");
    let document: Json =
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!(document["rowcast"], env!("CARGO_PKG_VERSION"));
    assert!(document["machine"]["cores"].as_u64() > Some(0), "{document}");
    let results = document["results"].as_array().expect("results").clone();
    for result in results.iter().filter(|result| result["scenario"] != "match") {
        for fault in ["missing", "doubled", "reordered", "unexpected", "closed"] {
            assert_eq!(result["faults"][fault], 0, "{arguments}: {fault}: {result}");
            assert_eq!(result["floor_faults"][fault], 0, "{arguments}: {fault}: {result}");
        }
    }
    (results, err)
}

fn number(result: &Json, pointer: &str) -> f64 {
    let found = result.pointer(pointer).and_then(Json::as_f64);
    found.unwrap_or_else(|| panic!("no number at {pointer}: {result}"))
}

#[test]
fn a_broadcast_beside_the_floor() {
    let found =
        results("broadcast --subscribers 10 --writes 12 --pairs 2 --floor --pace delivery --json");
    let [result] = found.as_slice() else { panic!("one result: {found:?}") };
    assert_eq!(result["scenario"], "broadcast");
    assert_eq!(result["subscribers"], 10);
    assert_eq!(result["pace"], "delivery");
    for side in ["server", "floor"] {
        let rounds = result["rounds"][side].as_array().expect("rounds");
        assert_eq!(rounds.len(), 2, "{side}");
        for round in rounds {
            assert_eq!(round["writes"], 12, "{side}");
            assert_eq!(round["deliveries"], 120, "{side}");
            let time = |name| number(round, &format!("/delivery_ms/{name}"));
            assert!(time("p50") <= time("p99") && time("p99") <= time("max"), "{round}");
        }
        assert!(number(result, &format!("/{side}/deliveries_per_second")) > 0.0);
    }
    let ratio = |name| number(result, &format!("/ratio/deliveries_per_second/{name}"));
    assert!(ratio("min") <= ratio("median") && ratio("median") <= ratio("max"));
    // The floor sends the same frames, but for the digits of an id.
    let bytes = |side| number(result, &format!("/{side}/frame_bytes"));
    assert!((bytes("server") - bytes("floor")).abs() < 4.0, "{result}");
    if cfg!(target_os = "linux") {
        assert!(number(result, "/server/cpu_us_per_delivery") > 0.0);
        assert!(number(result, "/server/memory_mib") > 1.0);
    }
}

#[test]
fn every_pace() {
    for (pace, told) in [("ack --writers 3", "ack"), ("200", "200 a second")] {
        let found = results(&format!(
            "broadcast --subscribers 7 --writes 30 --pairs 1 --json --pace {pace}"
        ));
        assert_eq!(found[0]["pace"], told);
        assert_eq!(found[0]["rounds"]["server"][0]["deliveries"], 210, "{pace}");
    }
}

#[test]
fn a_filter_each() {
    let found = results("selective --subscribers 5,10 --writes 20 --pairs 1 --floor --json");
    assert_eq!(found.len(), 2);
    for (result, subscribers) in found.iter().zip([5, 10]) {
        assert_eq!(result["subscribers"], subscribers);
        // One of them hears of each write.
        for side in ["server", "floor"] {
            assert_eq!(result["rounds"][side][0]["deliveries"], 20, "{side}");
        }
    }
}

#[test]
fn several_numbers_of_writers() {
    let found = results("selective --subscribers 10,20 --writers 1,4 --writes 20 --pairs 1 --json");
    let told: Vec<_> = found
        .iter()
        .map(|result| {
            assert_eq!(result["rounds"]["server"][0]["deliveries"], 20);
            json!([result["subscribers"], result["writers"], result["pace"]])
        })
        .collect();
    let expected = [json!([10, 1, "delivery"]), json!([10, 4, "ack"]), json!([20, 1, "delivery"])];
    assert_eq!((&told[..3], &told[3]), (&expected[..], &json!([20, 4, "ack"])));
    let (code, _, err) = bench("writes --writers 1,0");
    assert!(code == 2 && err.contains("--writers"), "{err}");
}

#[test]
fn a_floor_that_stores() {
    let found = results("writes --writes 20 --pairs 1 --floor --durable-floor --json");
    assert!(found.iter().all(|result| result["durable_floor"] == true), "{found:?}");
    assert!(found.iter().all(|result| number(result, "/rounds/floor/0/writes") >= 20.0));
    let (code, _, err) = bench("writes --durable-floor --writes 1");
    assert!(code == 2 && err.contains("--floor"), "{err}");
}

#[test]
fn compound_filters() {
    let found = results("mixed --subscribers 20 --writes 40 --pairs 1 --floor --json");
    let deliveries = |side: &str| number(&found[0], &format!("/rounds/{side}/0/deliveries"));
    // Each write is for one filter, or for two; the floor sends as many.
    assert!((40.0..=80.0).contains(&deliveries("server")), "{found:?}");
    assert!((40.0..=80.0).contains(&deliveries("floor")), "{found:?}");
}

#[test]
fn idle_ones_come_and_go() {
    let found = results("idle --subscribers 20 --pairs 2 --floor --json");
    assert!(number(&found[0], "/opened_per_second") > 0.0);
    assert!(number(&found[0], "/floor_opened_per_second") > 0.0);
    let rounds = found[0]["rounds"]["server"].as_array().expect("rounds");
    assert_eq!(rounds.len(), 2);
    if cfg!(target_os = "linux") {
        for round in rounds {
            let (open, after) = (number(round, "/handles"), number(round, "/handles_after"));
            assert!(open >= after + 20.0, "{round}");
        }
    }
}

#[test]
fn writes_with_nobody_listening() {
    let found = results("writes --writes 25 --pairs 1 --json");
    assert_eq!(found.len(), 2);
    for (result, writers) in found.iter().zip([1, 64]) {
        assert_eq!(result["writers"], writers);
        assert_eq!(result["rounds"]["server"][0]["writes"], 25);
        assert!(number(result, "/server/write_ms_p50") > 0.0);
    }
}

/// Each burden, in order, with its rounds: quiet ones, those beside it and beside what computes.
fn besides(result: &Json) -> Vec<(String, [Vec<Json>; 3])> {
    let rounds =
        |beside: &Json, name: &str| beside["rounds"][name].as_array().expect("rounds").clone();
    let all = result["beside"].as_array().expect("burdens").iter();
    all.map(|beside| {
        let name = beside["beside"].as_str().expect("a name").to_owned();
        (name, ["quiet", "burden", "computing"].map(|name| rounds(beside, name)))
    })
    .collect()
}

#[test]
fn who_is_held_up_by_whom() {
    let sizes = "--records 300 --cost 8000";
    let found =
        results(&format!("fair --subscribers 3 --writes 6 --pairs 2 --floor {sizes} --json"));
    let [result] = found.as_slice() else { panic!("one result: {found:?}") };
    assert_eq!((&result["scenario"], &result["records"]), (&json!("fair"), &json!(300)));
    let besides = besides(result);
    let names: Vec<_> = besides.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["stopped", "replay", "filters", "import", "bulk"]);
    for (name, rounds) in &besides {
        assert_eq!(rounds.each_ref().map(Vec::len), [3, 2, 2], "{name}");
        for round in rounds.iter().flatten() {
            let count = |what| number(round, &format!("/{what}/count"));
            assert_eq!((count("write"), count("delivery"), count("told")), (6.0, 18.0, 18.0));
            assert!(count("read") >= 2.0, "{name}: {round}");
            for what in ["read", "told", "delivery", "write"] {
                let time = |name| number(round, &format!("/{what}/{name}"));
                assert!(time("p50") <= time("p99") && time("p99") <= time("max"), "{round}");
            }
            // Nothing is told before it is sent.
            assert!(number(round, "/told/p50") <= number(round, "/delivery/p50"), "{round}");
        }
        assert!(rounds[1].iter().all(|round| number(round, "/burden_count") > 0.0), "{name}");
    }
    for beside in result["beside"].as_array().expect("burdens") {
        for of in ["ratio", "computing_ratio", "ratio_to_computing"] {
            let ratio = |name| number(beside, &format!("/{of}/read_ms_p50/{name}"));
            assert!(ratio("min") <= ratio("median") && ratio("median") <= ratio("max"), "{beside}");
        }
    }
    // Ten that stop, and so many dear filters as the cost allows: 8,000 by 16 and by 240.
    let count = |burden: usize| number(&besides[burden].1[1][0], "/burden_count");
    assert_eq!((count(0), count(2)), (10.0, 3.0));
}

#[test]
fn some_burdens_in_a_table() {
    let sizes = "--records 200 --seconds 0.2 --pairs 1";
    let (code, out, err) = bench(&format!("fair --beside bulk,stopped {sizes}"));
    assert_eq!(code, 0, "{out}\n{err}");
    let told = ["fair, beside updates of 200 records; 1 rounds", "read ms p99", "x quiet"];
    for told in told.iter().chain(&["10 subscribers that do not read", "missing 0, doubled 0"]) {
        assert!(out.contains(told), "{told}:\n{out}");
    }
    assert!(!out.contains("replays") && !out.contains("beside : computing"), "{out}");
    assert!(err.contains("fair, 4 subscribers: beside updates of 200 records\n"), "{err}");
}

#[test]
fn who_is_held_up_on_a_server_that_runs_already() {
    let server = Server::start(Options::default());
    let token = server.admin_token();
    let mut command = rowcast(server.dir.path());
    let url = format!("http://{}", server.address);
    command.args(["bench", "fair", "--writes", "3", "--pairs", "1", "--records", "150"]);
    command.args(["--cost", "4000", "--json", "--url", &url, "--token-env", "T"]);
    let (code, out, err) = run(command.env("T", &token));
    assert_eq!(code, 0, "{out}\n{err}");
    let document: Json = serde_json::from_str(&out).expect("JSON");
    let names: Vec<_> =
        besides(&document["results"][0]).into_iter().map(|(name, _)| name).collect();
    // Its data has another owner.
    assert_eq!(names, ["stopped", "replay", "filters", "bulk"]);
    for (what, path) in [("a schema", "/api/schema"), ("a user", "/api/content/user")] {
        let (_, left) = server.request("GET", path, Some(&token), None);
        assert!(!left.to_string().contains("bench_"), "{what}: {left}");
    }
}

#[test]
fn all_of_them() {
    let sizes = "--plans 10 --records 100 --cost 4000";
    let (found, err) = told(&format!("all --subscribers 5 --writes 5 --pairs 1 {sizes} --json"));
    // Which is which stands in the lines that tell how far it is.
    for pace in ["delivery", "ack"] {
        assert!(err.contains(&format!(": broadcast, 5 subscribers, pace {pace}\n")), "{err}");
    }
    let names: Vec<_> = found.iter().map(|result| result["scenario"].as_str()).collect();
    let expected = [
        "broadcast",
        "broadcast",
        "selective",
        "mixed",
        "idle",
        "writes",
        "writes",
        "fair",
        "match",
    ];
    assert_eq!(names, expected.map(Some));
}

#[test]
fn all_of_them_by_several_writers() {
    let sizes = "--plans 10 --records 100 --cost 4000";
    let common = format!("--subscribers 5 --seconds 0.05 --pairs 1 {sizes} --json");
    let found = results(&format!("all --writers 2 {common}"));
    let names: Vec<_> = found.iter().map(|result| result["scenario"].as_str()).collect();
    // By several, broadcast has one pace.
    let expected = ["broadcast", "selective", "mixed", "idle", "writes", "fair", "match"];
    assert_eq!(names, expected.map(Some));
}

#[test]
fn writes_are_delivered_when_they_are_answered() {
    let found = results("writes --pace delivery --writes 10 --pairs 1 --json");
    let paces: Vec<_> = found.iter().map(|result| result["pace"].as_str()).collect();
    assert_eq!(paces, [Some("delivery"), Some("ack")]);
}

#[test]
fn a_rate_that_one_writer_cannot_keep() {
    let found = results("writes --pace 1000000 --writers 1 --writes 30 --pairs 1 --json");
    assert_eq!(found[0]["rounds"]["server"][0]["writes"], 30);
}

#[test]
fn a_table_for_people() {
    let (code, out, err) = bench("broadcast --subscribers 4 --writes 5 --pairs 1 --floor");
    assert_eq!(code, 0, "{err}");
    let table = ["broadcast: 4 subscribers", "delivery ms p99", "missing 0, doubled 0"];
    for told in table.iter().chain(&["floor: the same frames", "ratio: server by floor"]) {
        assert!(out.contains(told), "{told}:\n{out}");
    }
    assert!(!err.contains("1 of 1"), "{err}");
}

#[test]
fn where_nobody_looks_a_line_tells_how_far_it_is() {
    let (code, out, err) = bench("selective --subscribers 3,4 --writes 5 --pairs 1");
    assert_eq!(code, 0, "{err}");
    for line in ["1 of 2: selective, 3 subscribers", "2 of 2: selective, 4 subscribers"] {
        assert!(err.contains(line), "{err}");
    }
    assert!(!out.contains("floor") && !out.contains("of 2"), "{out}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, code, told) in [
        ("broadcast --pace often", 2, "'delivery', 'ack' or a number"),
        ("broadcast --pace=-3", 2, "--pace"),
        ("broadcast --pairs 0", 2, "--pairs"),
        ("broadcast --seconds 1 --writes 1", 2, "--writes"),
        ("broadcast --url http://127.0.0.1:9", 2, "--token-env"),
        ("broadcast --pace delivery --writers 2", 1, "one writer"),
        ("idle --subscribers 1000000000", 1, "ulimit -Hn"),
        ("idle --subscribers 0", 1, "--subscribers 0"),
        ("idle --writers 2", 1, "leave --writers out"),
        ("idle --floor --durable-floor", 1, "leave --durable-floor out"),
        ("broadcast --pace 0.1 --patience 10", 1, "--patience"),
        ("fair --subscribers 0", 1, "--subscribers 0"),
        ("fair --pace ack", 1, "leave --pace out"),
        ("fair --beside nothing", 2, "[possible values: stopped, replay, filters, import, bulk]"),
        ("fair --beside import --url http://127.0.0.1:9 --token-env PATH", 1, "owner"),
        ("fair --floor --url http://127.0.0.1:9 --token-env PATH", 1, "--pid"),
        // The last part of it, before the first has begun.
        ("all --plans 0", 1, "--plans: 0"),
        ("all --writers 8 --pace delivery", 1, "one writer"),
        ("broadcast --dir no/such/folder", 1, "no/such/folder"),
        ("broadcast --server false", 1, "did not start"),
        ("broadcast --server nobody/has/this", 1, "nobody/has/this"),
        ("broadcast --url https://127.0.0.1:9 --token-env PATH", 1, "http://"),
        ("broadcast --url http://127.0.0.1:9 --token-env NO_SUCH", 1, "NO_SUCH"),
    ] {
        let (found, out, err) = bench(arguments);
        assert_eq!(found, code, "{arguments}\n{out}\n{err}");
        assert!(err.contains(told), "{arguments}: {err}");
    }
}

#[test]
fn a_server_that_runs_already() {
    let server = Server::start(Options::default());
    let token = server.admin_token();
    let mut command = rowcast(server.dir.path());
    let url = format!("http://{}", server.address);
    command.args(["bench", "broadcast", "--subscribers", "3", "--writes", "4", "--pairs", "1"]);
    command.args(["--json", "--url", &url, "--token-env", "T"]).env("T", &token);
    let (code, out, err) = run(&mut command);
    assert_eq!(code, 0, "{out}\n{err}");
    let document: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!(document["results"][0]["rounds"]["server"][0]["deliveries"], 12);
    // Whose process it is was not said.
    assert_eq!(document["results"][0]["server"]["memory_mib"], Json::Null);
    let (_, schemas) = server.request("GET", "/api/schema", Some(&token), None);
    assert!(!schemas.to_string().contains("bench_"), "the schema was removed: {schemas}");

    command.env("T", "nonsense");
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 1);
    assert!(err.contains("401"), "{err}");
}

#[test]
fn a_faulty_server_is_found_out() {
    for (faults, expected) in [
        (Faults::default(), [0, 0, 0, 0, 0]),
        (Faults { skipped: Some(5), ..Faults::default() }, [1, 0, 0, 0, 0]),
        (Faults { doubled: Some(5), ..Faults::default() }, [0, 1, 0, 0, 0]),
        (Faults { late: Some(5), ..Faults::default() }, [0, 0, 1, 0, 0]),
        (Faults { foreign: Some(5), ..Faults::default() }, [0, 0, 0, 1, 0]),
        (Faults { closed: Some(5), ..Faults::default() }, [0, 0, 0, 0, 1]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = serve(listener, faults);
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = rowcast(folder.path());
        let url = format!("http://{address}");
        // Three to warm up, 13 that count.
        command.args(["bench", "broadcast", "--subscribers", "1", "--writes", "13"]);
        command.args(["--pairs", "1", "--pace", "ack", "--patience", "5", "--json"]);
        command.args(["--url", &url, "--token-env", "T"]).env("T", "token");
        let (code, out, err) = run(&mut command);
        let document: Json =
            serde_json::from_str(&out).unwrap_or_else(|_| panic!("{faults:?}: {err}"));
        let told = &document["results"][0]["faults"];
        let mut told = ["missing", "doubled", "reordered", "unexpected", "closed"]
            .map(|name| told[name].as_u64().expect("a count"));
        if faults.closed.is_some() {
            // As many as were written before it was seen to be closed.
            told[0] = 0;
        }
        assert_eq!(told, expected, "{faults:?}");
        assert_eq!(code, i32::from(expected != [0; 5]), "{faults:?}");
        let result = &document["results"][0];
        assert_eq!(result["floor_faults"]["closed"], 0, "not the floor's");
        if faults.closed.is_some() {
            assert_eq!(result["ended"], "closed with 4408: slow");
        }
    }
}

/// A bench that runs until it is told to end, with a server in `folder` that is there by now.
#[cfg(target_os = "linux")]
fn without_end(folder: &Path) -> Child {
    endless(rowcast(folder), folder)
}

#[cfg(target_os = "linux")]
fn endless(mut command: Command, folder: &Path) -> Child {
    command.args(["bench", "all", "--subscribers", "3", "--seconds", "600", "--pairs", "1"]);
    command.args(["--json", "--dir", "."]).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::null()).spawn().expect("the binary");
    until("a server", || servers(folder).next().is_some());
    child
}

/// The processes that work inside this folder.
#[cfg(target_os = "linux")]
fn servers(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = folder.canonicalize().expect("a folder");
    let all = std::fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    all.filter(move |process| {
        let place = std::fs::read_link(process.join("cwd"));
        place.is_ok_and(|place| place != folder && place.starts_with(&folder))
    })
}

#[cfg(target_os = "linux")]
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn who_is_interrupted_tells_what_was_done_and_leaves_nothing() {
    use rustix::process::{Pid, Signal, kill_process};

    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let folder = tempfile::tempdir().expect("a folder");
        let child = without_end(folder.path());
        let pid = Pid::from_raw(child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("told");
        let output = child.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(1), "{signal:?}");
        let document: Json = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(document["error"], "interrupted", "{signal:?}");
        assert_eq!(document["results"], json!([]), "{signal:?}");
        assert!(servers(folder.path()).next().is_none(), "{signal:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
        assert!(left.is_empty(), "{signal:?}: left behind {left:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn who_began_it_with_nohup_is_not_interrupted_by_a_hangup() {
    use rustix::process::{Pid, Signal, kill_process};

    let folder = tempfile::tempdir().expect("a folder");
    let program = rowcast(folder.path());
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(program.get_program());
    command.current_dir(folder.path());
    let child = endless(command, folder.path());
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.expect("a process");
    let hangup = |which: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(which)).expect("a mask");
        u64::from_str_radix(mask.trim(), 16).expect("hexadecimal") & 1
    };
    assert_eq!((hangup("SigIgn:"), hangup("SigCgt:")), (1, 0));
    let pid = Pid::from_raw(child.id() as i32).expect("a process");
    kill_process(pid, Signal::TERM).expect("told");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1));
    assert!(servers(folder.path()).next().is_none());
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_ends_with_the_bench_that_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = without_end(folder.path());
    child.kill().expect("killed");
    child.wait().expect("its end");
    until("end of the server", || servers(folder.path()).next().is_none());
}

#[test]
fn what_was_done_before_an_error_is_told() {
    let server = Server::start(Options::default());
    let mut command = rowcast(server.dir.path());
    let url = format!("http://{}", server.address);
    command.args(["bench", "broadcast", "--json", "--url", &url, "--token-env", "T"]);
    let (code, out, err) = run(command.env("T", "nonsense"));
    assert_eq!(code, 1);
    let document: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!(document["results"], json!([]));
    let error = document["error"].as_str().expect("why");
    assert!(error.contains("401") && err.contains(error), "{error}\n{err}");
}

#[test]
fn a_server_that_ran_already_keeps_no_records() {
    // More than one call may delete.
    keeps_no_records(Options::default(), "10100");
}

#[test]
fn nor_where_one_write_may_touch_few() {
    keeps_no_records(Options::default().env("ROWCAST_WRITE_RECORDS", "100"), "350");
}

fn keeps_no_records(options: Options, writes: &str) {
    let server = Server::start(options);
    let token = server.admin_token();
    let url = format!("http://localhost:{}", server.address.port());
    let mut command = rowcast(server.dir.path());
    command.args(["bench", "writes", "--writes", writes, "--writers", "64", "--pairs", "1"]);
    command.args(["--json", "--url", &url, "--token-env", "T"]).env("T", &token);
    let (code, out, err) = run(&mut command);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(!err.contains("removed"), "{err}");
    let name = server.until("the schema's end", || {
        let log = server.log();
        let (_, name) = log.rsplit_once("/api/schema/bench_")?;
        Some(format!("bench_{}", name.get(..8)?))
    });
    // One of the same name finds what its forerunner has left.
    let schema = json!({"name": name, "namespace": format!("{name}s"), "label_field": "sequence",
        "fields": [{"name": "sequence", "type": "int64"}],
        "accept_data_loss": ["sent", "kind", "number", "status", "title", "content"]});
    let (status, made) = server.request("POST", "/api/schema", Some(&token), Some(&schema));
    assert_eq!(status, 200, "{made}");
    let path = format!("/api/content/{name}?limit=1");
    let (_, left) = server.request("GET", &path, Some(&token), None);
    assert_eq!(left["data"]["total"], 0, "{left}");
}

#[test]
fn an_address_of_version_six() {
    // A machine may have none.
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let url = format!("http://{}", serve(listener, Faults::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = rowcast(folder.path());
    command.args(["bench", "broadcast", "--subscribers", "1", "--writes", "4", "--pairs", "1"]);
    command.args(["--json", "--url", &url, "--token-env", "T"]).env("T", "token");
    let (code, out, err) = run(&mut command);
    assert_eq!(code, 0, "{out}\n{err}");
}
