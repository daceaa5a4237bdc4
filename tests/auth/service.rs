//! Logging in and out over a real store.

use std::time::Duration;

use rowcast::auth::present::Presented;
use rowcast::auth::principal::Principal;
use rowcast::auth::service::SESSIONS;
use rowcast::auth::token::{ClaimedUser, Claims, Keys};
use rowcast::auth::users::{Bootstrap, NewUser};
use rowcast::auth::{limiter, now_seconds};
use rowcast::error::{Error, Kind};
use rowcast::model::change::Notice;
use rowcast::model::value::Value;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::house::{HOME, House, KEY, PASSWORD, Plan, peek};

fn names(principal: &Principal) -> Vec<&str> {
    principal.roles.iter().map(|role| &**role).collect()
}

fn wrong_login(error: &Error) {
    assert_eq!((error.status(), error.message.as_str()), (422, "Invalid login or password"));
}

#[tokio::test]
async fn the_first_admin_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let root = house.who(&house.login("root").await.token).await.unwrap();
    assert!(root.admin && root.logged_in && names(&root) == ["admin"]);
    assert_eq!(root.username.as_deref(), Some("root"));
    let later = house.auth.bootstrap_admin("other", None, Some("another password")).await.unwrap();
    assert!(later == Bootstrap::Existing);
    wrong_login(&house.auth.login("other", "another password", None).await.unwrap_err());
    assert_eq!(house.auth.user_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_no_admin_is_left_the_machines_owner_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let disable_all = || {
        let connection = rusqlite::Connection::open(dir.path().join("rowcast.db")).unwrap();
        connection.execute("UPDATE users SET active = 0", ()).unwrap();
    };
    drop(House::open(dir.path(), Plan::default()).await);
    disable_all();
    let house = House::open(dir.path(), Plan::default()).await;
    assert!(house.who(&house.login("root").await.token).await.unwrap().admin);

    disable_all();
    let made = house.auth.bootstrap_admin("boss", Some("boss@example.com"), None).await.unwrap();
    let Bootstrap::Random { username, password } = made else { panic!("not random") };
    assert_eq!((username.as_str(), password.len()), ("boss", 20));
    let tokens = house.auth.login("boss@example.com", &password, None).await.unwrap();
    assert!(house.who(&tokens.token).await.unwrap().admin);
}

#[tokio::test]
async fn only_good_tokens_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let ann = house.add("ann", &[]).await;
    let guest = house.auth.authenticate(&Presented::Nothing).await.unwrap();
    assert_eq!(*guest, Principal::guest());
    assert_eq!(house.auth.authenticate(&Presented::Bad).await.unwrap_err().status(), 401);

    let tokens = house.login("ann").await;
    let who = house.who(&tokens.token).await.unwrap();
    assert_eq!((who.user, who.expires), (Some(ann), Some(tokens.expires)));
    assert!(!who.admin && who.logged_in && who.roles.is_empty() && who.claims.is_empty());
    let week = tokens.expires - now_seconds() - 7 * 24 * 3600;
    assert!((-5..=0).contains(&week));

    let session = who.session.unwrap();
    let now = now_seconds();
    let sign = |key: &[u8], user: Uuid, sid: Uuid, exp: i64| {
        let user = ClaimedUser { id: user, username: "ann".into(), roles: vec!["admin".into()] };
        let claims = Claims { exp, iat: now, nbf: None, sid, user };
        Keys::new(key, None).unwrap().sign(&claims).unwrap()
    };
    // The token's roles are for show.
    let proud = house.who(&sign(KEY, ann, session, now + 9)).await.unwrap();
    assert!(!proud.admin && proud.roles.is_empty());
    let root = house.auth.user_list().await.unwrap()[1].id;
    for bad in [
        sign(&[7; 32], ann, session, now + 9),
        sign(KEY, ann, session, now),
        sign(KEY, ann, session, now - 9),
        sign(KEY, ann, Uuid::now_v7(), now + 9),
        sign(KEY, root, session, now + 9),
        sign(KEY, Uuid::now_v7(), session, now + 9),
        format!("{}x", tokens.token),
        tokens.token[..tokens.token.len() - 1].to_owned(),
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.e30.".into(),
    ] {
        assert!(house.refuses(&bad).await, "{bad}");
    }
}

#[tokio::test]
async fn a_token_says_who_and_holds_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let token = house.login("root").await.token;
    let payload: jsonwebtoken::TokenData<Json> =
        jsonwebtoken::dangerous::insecure_decode(&token).unwrap();
    let claims = payload.claims;
    assert!(claims["exp"].is_i64() && claims["iat"].is_i64());
    assert_eq!(claims["user"]["username"], "root");
    assert_eq!(claims["user"]["roles"], json!(["admin"]));
    assert!(Uuid::parse_str(claims["user"]["id"].as_str().unwrap()).is_ok());
    let text = claims.to_string();
    assert!(!text.contains("argon2") && !text.contains("password") && !text.contains(PASSWORD));
}

#[tokio::test]
async fn every_wrong_pair_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let ann = house.add("ann", &[]).await;
    house.add("bob", &[]).await;
    let guest = NewUser { username: "nopass".into(), ..NewUser::default() };
    house.auth.user_add(guest).await.unwrap();
    house.auth.user_disable("bob").await.unwrap();
    assert!(house.auth.login("ann@example.com", PASSWORD, Some(HOME)).await.is_ok());
    let long = "x".repeat(100_000);
    for (login, password) in [
        ("ann", "correct horsf"),
        ("ann", ""),
        ("ann", "x"),
        ("ann", &long),
        ("Ann", PASSWORD),
        ("nobody", PASSWORD),
        ("nobody", "x"),
        ("", ""),
        (&long, &long),
        ("bob", PASSWORD),
        ("nopass", ""),
        ("nopass", PASSWORD),
        ("' OR 1=1 --", PASSWORD),
        (&ann.to_string(), PASSWORD),
    ] {
        wrong_login(&house.auth.login(login, password, None).await.unwrap_err());
    }
}

#[tokio::test]
async fn an_unknown_user_costs_as_much_as_a_known_one() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    house.add("bob", &[]).await;
    house.auth.user_disable("bob").await.unwrap();
    let guest = NewUser { username: "nopass".into(), ..NewUser::default() };
    house.auth.user_add(guest).await.unwrap();
    let long = "x".repeat(5_000);
    let work = async |login: &str, password: &str| {
        let before = house.auth.password_work();
        wrong_login(&house.auth.login(login, password, None).await.unwrap_err());
        house.auth.password_work() - before
    };
    let known = work("root", "wrong password").await;
    assert!(known > 0);
    for (login, password) in [
        ("nobody", "wrong password"),
        ("nobody", PASSWORD),
        ("nobody", ""),
        ("nobody", &long),
        ("", ""),
        ("root", "short"),
        ("root", &long),
        ("bob", PASSWORD),
        ("nopass", PASSWORD),
    ] {
        assert_eq!(work(login, password).await, known, "{login} {}", password.len());
    }
}

#[tokio::test]
async fn failures_are_limited_by_address_and_never_lock_an_account() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let limited = |error: Error| match error.kind {
        Kind::Limited { retry_after } => assert!((1..=60).contains(&retry_after)),
        other => panic!("{other:?}"),
    };
    for _ in 0..limiter::PER_LOGIN {
        wrong_login(&house.auth.login("root", "wrong", Some(HOME)).await.unwrap_err());
    }
    limited(house.auth.login("root", "wrong", Some(HOME)).await.unwrap_err());
    limited(house.auth.login("root", PASSWORD, Some(HOME)).await.unwrap_err());
    let elsewhere = Some("192.0.2.77".parse().unwrap());
    house.auth.login("root", PASSWORD, elsewhere).await.unwrap();
    house.auth.login("root", PASSWORD, None).await.unwrap();
    for n in limiter::PER_LOGIN..limiter::PER_ADDRESS {
        wrong_login(&house.auth.login(&format!("u{n}"), "wrong", Some(HOME)).await.unwrap_err());
    }
    limited(house.auth.login("fresh", "wrong", Some(HOME)).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_right_logins_at_once_are_all_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let house = std::sync::Arc::new(House::open(dir.path(), Plan::default()).await);
    let logins: Vec<_> = (0..20)
        .map(|_| {
            let house = house.clone();
            tokio::spawn(async move { house.auth.login("root", PASSWORD, Some(HOME)).await })
        })
        .collect();
    for login in logins {
        assert!(!house.refuses(&login.await.unwrap().unwrap().token).await);
    }
}

#[tokio::test]
async fn logging_out_ends_this_session_at_once_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::refreshing()).await;
    let (one, two) = (house.login("root").await, house.login("root").await);
    let who = house.who(&one.token).await.unwrap();
    house.auth.logout(&who).await.unwrap();
    assert!(house.refuses(&one.token).await && !house.refuses(&two.token).await);
    assert!(house.directory.current(&who).is_none());
    let told = house.commits.lock().unwrap().last().unwrap().notices.clone();
    assert!(matches!(told[..], [Notice::Session { user, session }]
        if Some(user) == who.user && session == who.session));
    // Again is no error and nothing to tell.
    let before = house.commits.lock().unwrap().len();
    house.auth.logout(&who).await.unwrap();
    assert_eq!(house.commits.lock().unwrap().len(), before);
    let refresh = one.refresh.unwrap().0;
    assert_eq!(house.auth.refresh(&refresh).await.unwrap_err().status(), 401);
    assert_eq!(house.auth.logout(&Principal::guest()).await.unwrap_err().status(), 401);
    drop(house);
    let house = House::open(dir.path(), Plan::refreshing()).await;
    assert!(house.refuses(&one.token).await && !house.refuses(&two.token).await);
}

#[tokio::test]
async fn refresh_tokens_are_used_once() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::refreshing()).await;
    let first = house.login("root").await;
    let quarter = first.expires - now_seconds() - 15 * 60;
    assert!((-5..=0).contains(&quarter));
    let (token, expires) = first.refresh.clone().unwrap();
    assert!((-5..=0).contains(&(expires - now_seconds() - 7 * 24 * 3600)));
    let json = first.to_json();
    assert!(json["expires"].as_str().unwrap().ends_with('Z'));
    assert!(json["refresh_token_expires"].as_str().unwrap().ends_with('Z'));
    assert_eq!(json["refresh_token"], token);

    let second = house.auth.refresh(&token).await.unwrap();
    let (next, _) = second.refresh.clone().unwrap();
    assert_ne!(next, token);
    assert!(!house.refuses(&first.token).await && !house.refuses(&second.token).await);
    let third = house.auth.refresh(&next).await.unwrap();

    // The first one again: whoever comes with it, or whoever holds the third, has stolen it.
    let who = house.who(&third.token).await.unwrap();
    assert_eq!(house.auth.refresh(&token).await.unwrap_err().status(), 401);
    assert!(house.refuses(&third.token).await && house.refuses(&first.token).await);
    assert!(house.directory.current(&who).is_none());
    let last = third.refresh.unwrap().0;
    assert_eq!(house.auth.refresh(&last).await.unwrap_err().status(), 401);
    assert!(peek(dir.path(), "SELECT hash FROM _rc_refresh_used").is_empty());

    for unknown in ["", "nonsense", &first.token] {
        assert_eq!(house.auth.refresh(unknown).await.unwrap_err().status(), 401);
    }
    // Guessing ends nobody's session.
    let other = house.login("root").await;
    house.auth.refresh("guess").await.unwrap_err();
    assert!(!house.refuses(&other.token).await);
    // Only hashes are stored.
    let stored = peek(dir.path(), "SELECT refresh FROM _rc_session WHERE refresh IS NOT NULL");
    assert!(!stored.is_empty() && !stored.contains(&other.refresh.unwrap().0));
}

#[tokio::test]
async fn without_refresh_tokens_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let tokens = house.login("root").await;
    assert!(tokens.refresh.is_none());
    assert_eq!(tokens.to_json().as_object().unwrap().len(), 2);
    assert_eq!(house.auth.refresh("x").await.unwrap_err().status(), 400);
}

#[tokio::test]
async fn tokens_and_sessions_end_by_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    // Seconds apart, so that a busy machine does not come too late to the next step.
    let house = House::open(dir.path(), Plan::lasting(2, Some(7))).await;
    let tokens = house.login("root").await;
    assert!(!house.refuses(&tokens.token).await);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(house.refuses(&tokens.token).await);
    let again = house.auth.refresh(&tokens.refresh.unwrap().0).await.unwrap();
    assert!(!house.refuses(&again.token).await);
    tokio::time::sleep(Duration::from_millis(7100)).await;
    assert!(house.refuses(&again.token).await);
    assert_eq!(house.auth.refresh(&again.refresh.unwrap().0).await.unwrap_err().status(), 401);
    // The next login sweeps up.
    house.login("root").await;
    assert_eq!(peek(dir.path(), "SELECT count(*) FROM _rc_session"), ["Integer(1)"]);
    assert_eq!(peek(dir.path(), "SELECT count(*) FROM _rc_refresh_used"), ["Integer(0)"]);
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_and_its_tokens_stay_dead() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let ann = house.add("ann", &[]).await;
    let tokens = house.login("ann").await;
    let who = house.who(&tokens.token).await.unwrap();
    house.change(ann, &[("active", Value::Bool(false))]).await.unwrap();
    assert!(house.refuses(&tokens.token).await && house.directory.current(&who).is_none());
    wrong_login(&house.auth.login("ann", PASSWORD, None).await.unwrap_err());
    assert!(house.auth.issue("ann", 60).await.is_err());
    house.change(ann, &[("active", Value::Bool(true))]).await.unwrap();
    assert!(house.refuses(&tokens.token).await);
    assert!(!house.refuses(&house.login("ann").await.token).await);
    house.auth.user_disable("ann").await.unwrap();
    assert_eq!(house.auth.user_disable("nobody").await.unwrap_err().status(), 404);
    drop(house);
    let house = House::open(dir.path(), Plan::default()).await;
    assert!(house.refuses(&tokens.token).await);
}

#[tokio::test]
async fn a_deleted_user_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let ann = house.add("ann", &[]).await;
    let tokens = house.login("ann").await;
    house.delete(ann).await.unwrap();
    assert!(house.refuses(&tokens.token).await);
    wrong_login(&house.auth.login("ann", PASSWORD, None).await.unwrap_err());
    assert_eq!(peek(dir.path(), "SELECT count(*) FROM _rc_credential"), ["Integer(1)"]);
    assert_eq!(peek(dir.path(), "SELECT count(*) FROM _rc_session"), ["Integer(0)"]);
}

#[tokio::test]
async fn changing_the_password_ends_the_other_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    house.add("ann", &[]).await;
    let (mine, other) = (house.login("ann").await, house.login("ann").await);
    let root = house.login("root").await;
    let me = house.who(&mine.token).await.unwrap();
    let them = house.who(&other.token).await.unwrap();
    let change = async |current: &str, new: &str| {
        house.auth.change_password(&me, current, new, Some(HOME)).await
    };
    let wrong = change("wrong password", "a new password").await.unwrap_err();
    assert_eq!((wrong.status(), wrong.message.as_str()), (422, "Invalid current password"));
    for short in ["", "seven77", &"x".repeat(257)] {
        let error = change(PASSWORD, short).await.unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.message.contains("8 to 256"), "{error}");
    }
    assert!(!house.refuses(&other.token).await);
    change(PASSWORD, "a new password").await.unwrap();
    assert!(!house.refuses(&mine.token).await && house.refuses(&other.token).await);
    assert!(house.directory.current(&me).is_some() && house.directory.current(&them).is_none());
    assert!(!house.refuses(&root.token).await);
    wrong_login(&house.auth.login("ann", PASSWORD, None).await.unwrap_err());
    assert!(house.auth.login("ann", "a new password", None).await.is_ok());
    let guest = house.auth.change_password(&Principal::guest(), "a", "b", None).await;
    assert_eq!(guest.unwrap_err().status(), 401);

    // Set by somebody else, it ends them all.
    house.auth.user_passwd("ann", "yet another one").await.unwrap();
    assert!(house.refuses(&mine.token).await && house.directory.current(&me).is_none());
    assert!(house.auth.login("ann", "yet another one", None).await.is_ok());
    // Guesses at the current one are limited too.
    let guessing = house.who(&root.token).await.unwrap();
    let mut last = 0;
    for _ in 0..=limiter::PER_LOGIN {
        let guess = house.auth.change_password(&guessing, "guess", "a new password", Some(HOME));
        last = guess.await.unwrap_err().status();
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn names_and_roles_are_those_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let (editor, author) =
        (house.new_role("editor").await.unwrap(), house.new_role("author").await.unwrap());
    let ann = house.add("ann", &["editor"]).await;
    let token = house.login("ann").await.token;
    assert_eq!(names(&house.who(&token).await.unwrap()), ["editor"]);
    house.role(ann, author, true).await.unwrap();
    assert_eq!(names(&house.who(&token).await.unwrap()), ["author", "editor"]);
    house.change_role(author, Some("writer")).await.unwrap();
    assert_eq!(names(&house.who(&token).await.unwrap()), ["editor", "writer"]);
    house.role(ann, editor, false).await.unwrap();
    assert_eq!(names(&house.who(&token).await.unwrap()), ["writer"]);
    house.change_role(author, None).await.unwrap();
    assert!(house.who(&token).await.unwrap().roles.is_empty());
    house.change(ann, &[("username", Value::Text("anna".into()))]).await.unwrap();
    assert_eq!(house.who(&token).await.unwrap().username.as_deref(), Some("anna"));
    house.role(ann, editor, true).await.unwrap();
    drop(house);
    let house = House::open(dir.path(), Plan::default()).await;
    let who = house.who(&token).await.unwrap();
    assert_eq!((who.username.as_deref(), names(&who)), (Some("anna"), vec!["editor"]));

    let me = house.auth.me(&who).await.unwrap().to_json();
    assert_eq!(me["username"], "anna");
    assert_eq!(me["id"], ann.to_string());
    assert_eq!(me["email"], "ann@example.com");
    assert_eq!(me["roles"], json!([{"id": editor.to_string(), "name": "editor"}]));
    assert!(!me.to_string().contains("argon2") && me.get("password").is_none());
    assert_eq!(house.auth.me(&Principal::guest()).await.unwrap_err().status(), 401);
}

#[tokio::test]
async fn an_active_admin_is_always_left() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let root = house.auth.user_list().await.unwrap()[0].id;
    let admin = house.directory.roles(&root)[0].0;
    let token = house.login("root").await.token;
    let off = [("active", Value::Bool(false))];
    let refused = |answer: Result<(), Error>| {
        let error = answer.unwrap_err();
        assert_eq!(error.status(), 403);
        assert!(error.message.starts_with("Forbidden: "), "{error}");
    };
    for _ in 0..2 {
        refused(house.change(root, &off).await);
        refused(house.delete(root).await);
        refused(house.role(root, admin, false).await);
        refused(house.change_role(admin, Some("boss")).await);
        refused(house.change_role(admin, None).await);
        refused(house.auth.user_disable("root").await);
        // Others, and inactive admins, are no help.
        house.add("ann", &[]).await;
        let bob = house.add("bob", &["admin"]).await;
        house.change(bob, &off).await.unwrap();
        refused(house.change(root, &off).await);
        assert!(house.who(&token).await.unwrap().admin);
        house.delete(bob).await.unwrap();
        for listed in house.auth.user_list().await.unwrap() {
            if &*listed.username == "ann" {
                house.delete(listed.id).await.unwrap();
            }
        }
    }
    for name in ["admin", "user", "guest", "Admin", "GUEST"] {
        let error = house.new_role(name).await.unwrap_err();
        assert!(matches!(error.status(), 400 | 403), "{name}: {error}");
    }
    let editor = house.new_role("editor").await.unwrap();
    refused(house.change_role(editor, Some("user")).await);
    assert_eq!(house.change_role(editor, Some("admin")).await.unwrap_err().status(), 400);
    // With another one, the first may go.
    house.add("carl", &["admin"]).await;
    house.change(root, &off).await.unwrap();
    assert!(house.refuses(&token).await);
    assert!(house.who(&house.login("carl").await.token).await.unwrap().admin);
}

#[tokio::test]
async fn hashes_stay_in_their_table() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    house.add("ann", &[]).await;
    house.auth.user_passwd("ann", "another password").await.unwrap();
    let tokens = house.auth.login("ann", "another password", None).await.unwrap();
    let who = house.who(&tokens.token).await.unwrap();
    house.auth.change_password(&who, "another password", PASSWORD, None).await.unwrap();
    for commit in house.commits.lock().unwrap().iter() {
        let text = format!("{commit:?}");
        assert!(!text.contains("argon2") && !text.contains(PASSWORD), "{text}");
    }
    let tables = peek(
        dir.path(),
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    );
    assert!(tables.contains(&"_rc_credential".to_owned()));
    for table in tables.iter().filter(|table| *table != "_rc_credential") {
        let columns = peek(dir.path(), &format!("SELECT name FROM pragma_table_info('{table}')"));
        for column in columns {
            let sql = format!("SELECT CAST(\"{column}\" AS BLOB) FROM \"{table}\"");
            for cell in peek(dir.path(), &sql) {
                assert!(!cell.contains("argon2"), "{table}.{column}");
            }
        }
    }
}

#[tokio::test]
async fn keys_can_be_changed_without_logging_everybody_out() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let old = house.login("root").await.token;
    drop(house);
    let next: &[u8] = b"the next key of the tests, 32 bytes";
    let plan = Plan { key: next, previous: Some(KEY), ..Plan::default() };
    let house = House::open(dir.path(), plan).await;
    assert!(!house.refuses(&old).await);
    let new = house.login("root").await.token;
    drop(house);
    let house = House::open(dir.path(), Plan { key: next, ..Plan::default() }).await;
    assert!(house.refuses(&old).await && !house.refuses(&new).await);
}

#[tokio::test]
async fn commands_manage_users() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    house.new_role("editor").await.unwrap();
    house.add("ann", &["editor", "admin"]).await;
    let add = async |username: &str, email: &str, password: &str, role: &str| {
        let user = NewUser {
            username: username.into(),
            email: Some(email.to_owned()).filter(|email| !email.is_empty()),
            password: Some(password.to_owned()),
            roles: vec![role.to_owned()],
        };
        house.auth.user_add(user).await.unwrap_err()
    };
    for (error, why) in [
        (add("ann", "", PASSWORD, "editor").await, "username"),
        (add("bob", "ann@example.com", PASSWORD, "editor").await, "email"),
        (add("bob", "", "short", "editor").await, "8 to 256"),
        (add("bob", "", PASSWORD, "nosuch").await, "'nosuch'"),
        (add("bob", "", PASSWORD, "user").await, "'user'"),
        (add("", "", PASSWORD, "editor").await, "username"),
    ] {
        assert_eq!(error.status(), 400, "{error}");
        assert!(error.message.contains(why), "{error}");
    }
    let listed = house.auth.user_list().await.unwrap();
    let ann = &listed[0];
    assert_eq!((&*ann.username, ann.email.as_deref()), ("ann", Some("ann@example.com")));
    assert!(ann.active && ann.roles.iter().map(|role| &**role).eq(["admin", "editor"]));
    assert_eq!(listed.len(), 2);

    let token = house.auth.issue("ann", 60).await.unwrap();
    assert!((55..=60).contains(&(token.expires - now_seconds())));
    assert_eq!(house.who(&token.token).await.unwrap().user, Some(ann.id));
    assert_eq!(house.auth.issue("nobody", 60).await.unwrap_err().status(), 404);
    assert_eq!(house.auth.user_passwd("nobody", PASSWORD).await.unwrap_err().status(), 404);
}

#[tokio::test]
async fn one_session_too_many_ends_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    house.add("ann", &[]).await;
    house.add("bob", &[]).await;
    let bob = house.auth.issue("bob", 60).await.unwrap().token;
    let first = house.auth.issue("ann", 60).await.unwrap().token;
    let mut others = Vec::new();
    // In the time of a few commits, without filling the waiting lines.
    while others.len() < SESSIONS {
        let some = (0..100).map(|_| house.auth.issue("ann", 60));
        others.extend(futures_util::future::try_join_all(some).await.unwrap());
    }
    assert_eq!(house.who(&first).await.unwrap_err().status(), 401);
    for good in others.iter().map(|tokens| &tokens.token).chain([&bob]) {
        house.who(good).await.unwrap();
    }
    assert_eq!(peek(dir.path(), "SELECT id FROM _rc_session").len(), SESSIONS + 1);
}
