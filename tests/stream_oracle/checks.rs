//! What must hold at a quiet point: views are what a list shows, and all who asked the same were
//! told the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value as Json;

use crate::ask::Question;
use crate::client::{Heard, key, plain, records};
use crate::run::Counts;
use crate::subscriber::Subscriber;
use crate::wire::Kind;
use crate::world::Person;
use crate::writers::call;

/// All records that a question has as its answer; `Err` where it is refused.
pub fn list(
    address: SocketAddr,
    people: &[Person],
    question: &Question,
) -> Result<BTreeMap<i64, Json>, (u16, String)> {
    let mut view = BTreeMap::new();
    for page in 1.. {
        let path = format!("/api/content/{}?{}", question.schema, question.list(page));
        let token = people[question.who].token.as_deref();
        let (status, answer) =
            call(address, "GET", &path, token, None).ok_or((0, "no answer".to_owned()))?;
        if status != 200 {
            return Err((status, answer.to_string()));
        }
        for item in answer["data"]["items"].as_array().into_iter().flatten() {
            let id = key(item).map_err(|why| (0, why))?;
            if view.insert(id, item.clone()).is_some() {
                return Err((0, format!("{id} is listed twice")));
            }
        }
        if answer["data"]["last_page"].as_u64().is_none_or(|last| page as u64 >= last) {
            break;
        }
    }
    Ok(view)
}

/// What a client holds must be what is listed.
pub fn view(subscriber: &mut Subscriber, listed: &Result<BTreeMap<i64, Json>, (u16, String)>) {
    let listed = match listed {
        Ok(listed) => listed,
        Err(refused) => {
            subscriber.fault(format!("is told what a list refuses: {refused:?}"));
            return;
        }
    };
    let held = &subscriber.client.view;
    let mut faults = Vec::new();
    for (id, record) in held {
        match listed.get(id) {
            None => faults.push(format!("holds {id}, which is not listed: {record}")),
            Some(other) if plain(other) != plain(record) => {
                faults.push(format!("holds {record}\nlisted is {other}"));
            }
            Some(_) => {}
        }
    }
    for (id, record) in listed.iter().filter(|(id, _)| !held.contains_key(id)) {
        faults.push(format!("lacks {id}: {record}"));
    }
    faults.into_iter().for_each(|fault| subscriber.fault(fault));
}

/// Whoever asked the same in the same way must have heard the same.
pub fn compare(group: &mut [Subscriber], counts: &mut Counts) {
    let heard = |group: &[Subscriber], name: &str| {
        let found = group.iter().find(|one| one.name.ends_with(name));
        found.filter(|one| one.whole && one.faults.is_empty()).map(|one| one.client.heard.clone())
    };
    let (control, moving) = (heard(group, " control"), heard(group, " moving"));
    // Never away, as it has no cursor: had one of them been too much, it would have ended with it.
    if heard(group, " moving live").is_some() {
        for other in group.iter_mut().filter(|one| one.untold) {
            other.fault("was not told a commit that was told live".into());
        }
    }
    if let (Some(control), Some(moving)) = (&control, &moving)
        && let Err(fault) = within(control, moving)
        && let Some(first) = group.first_mut()
    {
        first.fault(fault);
    }
    for other in group.iter_mut().filter(|one| one.whole && one.faults.is_empty()) {
        let (told, heard) = (other.told.clone(), &other.client.heard);
        let basis = if told.transitions { &moving } else { &control };
        let Some(basis) = basis.as_ref().filter(|_| !told.snapshot) else { continue };
        let result = match (told.watch, told.event) {
            (Some(watch), _) => watched(basis, heard, watch),
            (None, Some(event)) => {
                let only: Vec<_> = basis.iter().filter(|it| it.event == event).cloned().collect();
                same(&only, heard, true)
            }
            (None, None) => {
                let positions = told.cursors && other.manner.by != Kind::Polls;
                same(basis, heard, positions)
            }
        };
        counts.sequences += 1;
        if let Err(fault) = result {
            other.fault(fault);
        }
    }
}

/// Both must have heard the same; `positions` says whether both are told cursors.
fn same(control: &[Heard], other: &[Heard], positions: bool) -> Result<(), String> {
    let shown = |heard: Option<&Heard>| heard.map_or("nothing".to_owned(), |it| format!("{it:?}"));
    let (mut left, mut right) = (control, other);
    loop {
        let (one, two) = match (left.first(), right.first()) {
            (None, None) => return Ok(()),
            heads => heads,
        };
        let same = one.zip(two).is_some_and(|(one, two)| {
            alike(one, two, positions) && plain(&one.data) == plain(&two.data)
        });
        let (some, others) = match cut_otherwise(left, right, positions) {
            _ if same => (1, 1),
            Some(cut) => cut,
            None => {
                return Err(format!(
                    "message {} of {} is\n{}\nwhere the control's ({}) is\n{}",
                    other.len() - right.len(),
                    other.len(),
                    shown(two),
                    control.len(),
                    shown(one)
                ));
            }
        };
        (left, right) = (&left[some..], &right[others..]);
    }
}

/// Whether both may be messages of one kind and commit.
fn alike(one: &Heard, two: &Heard, positions: bool) -> bool {
    one.event == two.event
        && (!positions || one.position == two.position)
        && one.data.is_array() == two.data.is_array()
        && one.changed == two.changed
}

/// Who comes back is shown columns that were added meanwhile: messages that are cut for their
/// length end earlier then. Gives how many messages of each are the same for all that.
fn cut_otherwise(left: &[Heard], right: &[Heard], positions: bool) -> Option<(usize, usize)> {
    let first = left.first()?;
    let some = left.iter().take_while(|it| alike(first, it, true)).count();
    let want: Vec<&Json> = left[..some].iter().flat_map(|it| records(&it.data)).collect();
    let (mut got, mut others) = (Vec::new(), 0);
    for message in right.iter().take_while(|it| alike(first, it, positions)) {
        if got.len() >= want.len() {
            break;
        }
        got.extend(records(&message.data));
        others += 1;
    }
    let pairs = || want.iter().zip(&got);
    let same = got.len() == want.len() && pairs().all(|(one, two)| plain(one) == plain(two));
    (same && pairs().any(|(one, two)| one != two)).then_some((some, others))
}

/// One record of one commit.
type Single = (Option<u64>, String, i64, Json);

/// Record by record, by commit and key: messages may be cut otherwise.
fn singles(heard: &[Heard], keep: impl Fn(&Heard) -> bool) -> Vec<Single> {
    let mut all = Vec::new();
    for message in heard.iter().filter(|message| keep(message)) {
        for record in records(&message.data) {
            let id = key(record).unwrap_or_default();
            all.push((message.position, message.event.clone(), id, plain(record)));
        }
    }
    all.sort_by_key(|single| (single.0, single.2));
    all
}

/// Who watches hears what the control hears, less the updates in which nothing watched changed.
fn watched(control: &[Heard], watcher: &[Heard], watch: &str) -> Result<(), String> {
    let names: Vec<&str> = watch.split(',').collect();
    let keep = |message: &Heard| {
        message.event != "update"
            || message
                .changed
                .as_ref()
                .is_none_or(|changed| names.iter().any(|name| changed.contains(*name)))
    };
    let (want, got) = (singles(control, keep), singles(watcher, |_| true));
    match (0..want.len().max(got.len())).find(|at| want.get(*at) != got.get(*at)) {
        None => Ok(()),
        Some(at) => Err(format!(
            "watching {watch}, record {at} is\n{:?}\nand should be\n{:?}",
            got.get(at),
            want.get(at)
        )),
    }
}

/// Without transitions one hears of the same records, less those that came, went or changed through
/// others, and an `enter` as an update.
fn within(control: &[Heard], moving: &[Heard]) -> Result<(), String> {
    let mut all = singles(moving, |message| message.event != "leave");
    for single in &mut all {
        if single.1 == "enter" {
            single.1 = "update".to_owned();
        }
    }
    let heard = singles(control, |_| true);
    let mut left = all.iter();
    for single in heard.iter().map(Some).chain([None]) {
        loop {
            match left.next() {
                other if other == single => break,
                Some(other) if other.1 == "update" => {}
                Some(other) => {
                    return Err(format!("without transitions nothing was heard of {other:?}"));
                }
                None => return Err(format!("with transitions nothing was heard of {single:?}")),
            }
        }
    }
    Ok(())
}
