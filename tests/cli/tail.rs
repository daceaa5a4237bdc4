use super::*;

/// Lines that a command prints, as they come.
struct Following {
    child: std::process::Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Following {
    fn start(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Following {
        let mut child = rowcast(dir)
            .arg("tail")
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawned");
        let (send, lines) = std::sync::mpsc::channel();
        let out = child.stdout.take().expect("stdout");
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(out)).map_while(Result::ok)
            {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Following { child, lines }
    }

    fn next(&mut self) -> Json {
        let line = self.lines.recv_timeout(common::PATIENCE).unwrap_or_else(|error| {
            let _ = self.child.kill();
            let err = self.child.stderr.take().expect("stderr");
            panic!("no line: {error}: {}", std::io::read_to_string(err).unwrap_or_default())
        });
        serde_json::from_str(&line).expect("JSON")
    }

    /// Its exit code and what it said, once it has ended.
    fn ended(mut self) -> (i32, String) {
        let mut err = self.child.stderr.take().expect("stderr");
        let code = wait(&mut self.child).code().unwrap_or(-1);
        (code, std::io::read_to_string(&mut err).expect("text"))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(server: &Server, title: &str) -> u64 {
    let token = server.admin_token();
    let body = json!({"title": title});
    let (status, made) = server.request("POST", "/api/content/blog", Some(&token), Some(&body));
    assert_eq!(status, 200, "{made}");
    made["data"]["id"].as_u64().expect("an id")
}

/// Its first position, which it prints once it is subscribed.
fn position(following: &mut Following) -> String {
    let position = following.next();
    assert_eq!(position["event"], "position");
    position["cursor"].as_str().expect("a cursor").to_owned()
}

#[test]
fn it_goes_on_where_it_was_when_the_server_comes_back() {
    let mut server = Server::start(examples());
    let url = format!("http://{}", server.address);
    let dir = server.dir.path().to_owned();
    // As the owner, who finds the server again, and by a login, which must be made again.
    let mut owner = Following::start(&dir, &["blog", "--select", "id", "--cursor"], &[]);
    let mut login = Following::start(
        &dir,
        &["blog", "--select", "id", "--cursor", "--url", &url, "--login", "admin"],
        &[("ROWCAST_PASSWORD", common::ADMIN_PASSWORD)],
    );
    let first = position(&mut owner);
    position(&mut login);
    let mut written = Vec::new();
    for round in 0..3 {
        written.push(write(&server, "before"));
        if round == 1 {
            assert_eq!(server.terminate(), Some(0));
        }
        // Not a drop of the directory: a kill -9, and the same address.
        server.restart();
        written.push(write(&server, "after"));
    }
    let ids = |following: &mut Following| {
        let mut ids = Vec::new();
        while ids.len() < written.len() {
            let message = following.next();
            if message["event"] == "create" {
                assert!(message["cursor"].is_string());
                ids.push(message["data"]["id"].as_u64().expect("an id"));
            }
        }
        ids
    };
    assert_eq!(ids(&mut owner), written);
    assert_eq!(ids(&mut login), written);

    // Its session ends: it logs in again.
    let mut passwd = rowcast(&dir);
    passwd.args(["user", "passwd", "admin"]).env("ROWCAST_PASSWORD", common::ADMIN_PASSWORD);
    assert_eq!(run(&mut passwd).0, 0);
    let token = server.login("admin", common::ADMIN_PASSWORD);
    let body = json!({"title": "late"});
    let made = server.request("POST", "/api/content/blog", Some(&token), Some(&body)).1;
    let late = made["data"]["id"].as_u64().expect("an id");
    written.push(late);
    while login.next()["data"]["id"] != late {}

    // Another run, from a cursor; without --cursor there are none in what is printed.
    let count = written.len().to_string();
    let args = ["blog", "--select", "id", "--since", &first, "--count", &count];
    let mut again = Following::start(&dir, &args, &[]);
    for id in &written {
        assert_eq!(again.next(), json!({"event": "create", "data": {"id": id}}));
    }
    let (code, err) = again.ended();
    assert_eq!((code, err.as_str()), (0, ""));

    // Positions are no messages.
    let args = ["blog", "--cursor", "--since", &first, "--count", "1"];
    let mut one = Following::start(&dir, &args, &[]);
    while one.next()["event"] != "create" {}
    assert_eq!(one.ended().0, 0);

    // It ends where the server does not come back in time, and says from where to go on.
    let mut short = Following::start(&dir, &["blog", "--cursor", "--retry", "1s"], &[]);
    let last = position(&mut short);
    server.kill();
    let (code, err) = short.ended();
    assert_eq!(code, 1);
    for word in ["trying again for 1s", "go on with --since ", &last] {
        assert!(err.contains(word), "no '{word}' in {err}");
    }
}

#[test]
fn snapshots_and_transitions() {
    let server = Server::start(examples());
    let dir = server.dir.path().to_owned();
    let token = server.admin_token();
    let (one, _) = (write(&server, "one"), write(&server, "two"));
    let filter = r#"{"title":{"$in":["one","three"]}}"#;
    let args = ["blog", "--select", "title", "--filter", filter, "--changes", "--snapshot"];
    let mut following = Following::start(&dir, &args, &[]);
    let mut records = Vec::new();
    loop {
        let page = following.next();
        assert_eq!((&page["event"], &page["cursor"]), (&json!("init"), &Json::Null), "{page}");
        records.extend(page["data"].as_array().expect("records").clone());
        if page["complete"] == true {
            break;
        }
    }
    assert_eq!(records, [json!({"id": one, "title": "one"})]);
    for (title, event) in [("three", "update"), ("four", "leave"), ("one", "enter")] {
        let path = format!("/api/content/blog/{one}");
        let body = json!({"title": title});
        assert_eq!(server.request("PUT", &path, Some(&token), Some(&body)).0, 200);
        let told = following.next();
        assert_eq!(told["event"], event, "{told}");
        if event != "leave" {
            assert_eq!(told["data"][0]["title"], title, "{told}");
            let changed = if event == "update" { json!(["title"]) } else { Json::Null };
            assert_eq!(told["changed"], changed, "{told}");
        }
    }
}
