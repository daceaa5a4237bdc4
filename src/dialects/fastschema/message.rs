//! The JSON of messages, whatever carries it.

use crate::live::{Event, Message, Records};
use crate::model::json;

/// A guess at what [`write`] appends, in bytes.
pub(super) fn length(message: &Message<'_>) -> usize {
    message.records.bytes() + message.records.iter().len() + 128
}

/// `{"event":…,"data":…}`, with the fields that changed where they are told, and a cursor.
pub(super) fn write(message: &Message<'_>, cursor: Option<&str>, out: &mut Vec<u8>) {
    let (head, bare) = match message.event {
        Event::Create => (&br#"{"event":"create","data":"#[..], true),
        Event::Update => (&br#"{"event":"update","data":"#[..], message.single),
        Event::Delete => (&br#"{"event":"delete","data":"#[..], message.single),
        Event::Enter => (&br#"{"event":"enter","data":"#[..], message.single),
        Event::Leave => (&br#"{"event":"leave","data":"#[..], message.single),
    };
    out.extend_from_slice(head);
    array(&message.records, bare, out);
    if let Some(changed) = message.changed {
        out.extend_from_slice(br#","changed":["#);
        for (at, name) in changed.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            json::write_string(name, out);
        }
        out.push(b']');
    }
    end(cursor, out);
}

/// A guess at what [`write_page`] appends, in bytes.
pub(super) fn page_length(records: &Records<'_>) -> usize {
    records.bytes() + records.iter().len() + 128
}

/// A page of a snapshot.
pub(super) fn write_page(
    records: &Records<'_>,
    complete: bool,
    cursor: Option<&str>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#"{"event":"init","data":"#);
    array(records, false, out);
    let told: &[u8] = if complete { br#","complete":true"# } else { br#","complete":false"# };
    out.extend_from_slice(told);
    end(cursor, out);
}

/// Where the stream stands.
pub(super) fn write_position(cursor: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"event":"position""#);
    end(Some(cursor), out);
}

/// The records as an array, or the one record bare.
fn array(records: &Records<'_>, bare: bool, out: &mut Vec<u8>) {
    if !bare {
        out.push(b'[');
    }
    for (at, record) in records.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(record);
    }
    if !bare {
        out.push(b']');
    }
}

fn end(cursor: Option<&str>, out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        // A cursor is base64url: nothing to escape.
        out.extend_from_slice(br#","cursor":""#);
        out.extend_from_slice(cursor.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
}
