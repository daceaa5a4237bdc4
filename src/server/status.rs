//! `GET /api/realtime/status`: how the stream and its log are, for admins.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::auth::principal::Principal;
use crate::error::{Error, Result};
use crate::live::{Payer, Spender};
use crate::model::cursor::Cursor;
use crate::model::time;
use crate::store::Mark;

use super::App;

/// What stands under `data`.
///
/// # Errors
/// 401 for guests, 403 for everybody but admins, and the store's.
pub(super) async fn status(app: &App, principal: &Principal) -> Result<Json> {
    if !principal.admin {
        return Err(match principal.user {
            None => Error::unauthorized("log in as an admin"),
            Some(_) => Error::forbidden("the status of the stream is the admins'"),
        });
    }
    let (log, stats) = tokio::join!(app.store.read(|reader| reader.log_size()), app.live.stats());
    let log = log?;
    let by_name = |counts: &[(Arc<str>, usize)]| -> Map<String, Json> {
        counts.iter().map(|(name, number)| (name.to_string(), json!(number))).collect()
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    // Whoever left so long ago, and has a cursor of then, can still resume.
    let hours = log.oldest.map(|mark| {
        let hours = now.saturating_sub(mark.time).max(0) as f64 / 3_600_000_000.0;
        (hours * 1_000.0).round() / 1_000.0
    });
    Ok(json!({
        "cursor": {"oldest": log.oldest.map(cursor), "newest": log.newest.map(cursor)},
        "log": {
            "entries": log.entries,
            "bytes": log.bytes,
            "oldest_time": log.oldest.map(|mark| time::format(mark.time)),
            "newest_time": log.newest.map(|mark| time::format(mark.time)),
            "hours": hours,
            "most_bytes": app.limits.log_bytes,
            "most_hours": app.limits.log_age.as_secs_f64() / 3_600.0,
        },
        "subscriptions": stats.subscriptions,
        "plans": stats.plans,
        "by_schema": by_name(&stats.by_schema),
        "scanned": by_name(&stats.scanned),
        "slowest_outbox": {"frames": stats.slowest_frames, "bytes": stats.slowest_bytes},
        "replays": {
            "working": stats.replays_working,
            "waiting": stats.replays.saturating_sub(stats.replays_working),
        },
        "matching": {
            "top": stats.spenders.iter().map(|spender| self::spender(app, spender)).collect::<Vec<_>>(),
            "shared_microseconds": micros(stats.shared),
        },
        "behind": {"commits": stats.behind_commits, "bytes": stats.behind_bytes},
    }))
}

/// A principal, what of the matcher's time went to it, and what it has open.
fn spender(app: &App, spender: &Spender) -> Json {
    let (user, address) = match spender.payer {
        Payer::User(user) => (Some(user), None),
        Payer::Address(address) => (None, address),
    };
    json!({
        "user": user.map(|user| user.to_string()),
        "username": user.and_then(|user| app.auth.directory().username(&user)),
        "address": address.map(|address| address.to_string()),
        "microseconds": micros(spender.time),
        "subscriptions": spender.subscriptions,
        "cost": app.live.ledger().of(spender.payer).0,
    })
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Admins are under no grant: its fingerprint is 0, so these are cursors they can use.
fn cursor(mark: Mark) -> String {
    Cursor { position: mark.position, stamp: mark.stamp, grant: 0 }.to_string()
}
