//! Every bound, with its unit, its default, what it may be set to, and its reason.
//!
//! The names are those of the configuration: `body_bytes` is `--body-bytes`,
//! `ROWCAST_BODY_BYTES`, and `"body_bytes"` in the file. Names ending in `_bytes` count bytes,
//! durations are of type [`Duration`], the rest are plain counts.

use std::sync::LazyLock;
use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;
const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
const DAY: u64 = 24 * 3600;
/// What this process may use; asked once, as the system reads files to tell.
static CORES: LazyLock<usize> = LazyLock::new(|| {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(1_024))
});

/// One bound as the configuration sees it.
pub struct Bound {
    /// The name of the field and of the setting.
    pub key: &'static str,
    /// Why it is there: the first sentence of the field's documentation, and the rest.
    pub reason: &'static [&'static str],
    /// As text that `set` takes.
    pub default: fn() -> String,
    /// Sets it from text, e.g. `8MiB`, `30s`, `1000`; the error says what would be right.
    pub set: fn(&mut Limits, &str) -> Result<(), String>,
}

macro_rules! bounds {
    ($($(#[doc = $reason:literal])+ $key:ident: $type:ty = $default:expr, $least:expr => $most:expr;)*) => {
        /// All bounds; every one can be set (see `config.rs`).
        #[derive(Clone, Debug)]
        pub struct Limits {
            $($(#[doc = $reason])+ pub $key: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Limits { $($key: $default,)* }
            }
        }

        /// The bounds by name, for the configuration.
        pub const BOUNDS: &[Bound] = &[$(
            Bound {
                key: stringify!($key),
                reason: &[$($reason),+],
                default: || show(stringify!($key), &Limits::default().$key),
                set: |limits, text| {
                    limits.$key = read(stringify!($key), text, $least, $most)?;
                    Ok(())
                },
            },
        )*];
    };
}

bounds! {
    /// A stored record, as JSON: what one message must be able to carry.
    record_bytes: usize = MIB, KIB => 64 * MIB;
    /// A request body: a bulk of records, held in memory while it is read.
    body_bytes: usize = 8 * MIB, KIB => 1024 * MIB;
    /// Bodies being read, all requests together: memory that clients without a token can ask for.
    bodies_bytes: usize = 256 * MIB, MIB => 65536 * MIB;
    /// Records one write may touch, consequences included: others wait while it runs.
    write_records: usize = 10_000, 1 => 1_000_000;
    /// States (before and after) one write may hold: memory, and the size of its log entry.
    write_bytes: usize = 64 * MIB, MIB => 1024 * MIB;
    /// Largest `limit` of a list.
    page_records: u64 = 1_000, 1 => 100_000;
    /// `limit` of a list that names none.
    page_default: u64 = 10, 1 => 100_000;
    /// Largest offset a list may skip: skipped rows are read all the same.
    page_offset: u64 = 1_000_000, 0 => 1_000_000_000;
    /// An answer to a list, and the records it is made from: memory that one request takes.
    answer_bytes: usize = 64 * MIB, MIB => 4096 * MIB;
    /// Related records that one read or one commit gathers, all relations together: memory, and
    /// the writer's time. A read beyond it is refused; subscriptions that read through relations
    /// end at such a commit.
    related_records: usize = 100_000, 1 => 100_000_000;
    /// Entries in one `select`.
    select_entries: usize = 64, 1 => 10_000;
    /// Relations one entry of a `select` may cross.
    select_hops: usize = 2, 0 => 8;
    /// How deep a filter may nest.
    filter_depth: usize = 16, 1 => 128;
    /// Tests and groups in a filter: what a list's every row and each change costs.
    filter_nodes: usize = 256, 1 => 10_000;
    /// Elements of one array in a filter.
    filter_elements: usize = 1_000, 1 => 100_000;
    /// A filter as text.
    filter_bytes: usize = 16 * KIB, 64 => 16 * MIB;
    /// Relations one path in a filter may cross.
    filter_hops: usize = 3, 0 => 8;
    /// What one subscription's filter and projection may cost, where a comparison costs 1 (an `$in`
    /// an eighth of its values), a text search 16 (a long pattern more) and a step over a relation
    /// 64; beyond it 400 (admins exempt). Every change that may concern it is held against it, in
    /// the one thread that tells all changes: some 10 ns for each, where texts are of a kilobyte.
    /// Asked when it begins: rules that change later do not end it for what it costs.
    plan_cost: u64 = 10_000, 1 => u32::MAX as u64;
    /// What the subscriptions of one user, or of one address's guests, may cost together; beyond
    /// it 4429 or 429 (loopback and admins exempt; theirs do not count). Each counts as it was when
    /// it began, twice where transitions are told. A client that opens many dear ones should run
    /// into its own bound before others wait for it: some milliseconds a change. An app's
    /// subscription with a few comparisons and a search in a text costs 20 to 50.
    principal_cost: u64 = 100_000, 1 => 1 << 50;
    /// An `$expr` as text: what a person writes.
    expr_bytes: usize = KIB, 16 => 64 * KIB;
    /// A read is interrupted after this: readers are few.
    read_time: Duration = seconds(5), Duration::from_millis(10) => seconds(3600);
    /// The head of a request must have come within this.
    head_time: Duration = seconds(10), Duration::from_millis(100) => seconds(600);
    /// The body of a request must have come within this; a response that is taken slower than
    /// 4 KiB/s is given up after it.
    body_time: Duration = seconds(30), Duration::from_millis(100) => seconds(3600);
    /// A connection without a request is closed after this.
    idle_time: Duration = seconds(60), Duration::from_millis(100) => seconds(3600);
    /// How long a stopping server waits for what is under way.
    drain_time: Duration = seconds(10), Duration::ZERO => seconds(600);
    /// The largest message read from a native client, which has nothing to say.
    message_bytes: usize = 64 * KIB, 125 => 16 * MIB;
    /// Messages read from a native client a second; the rest waits in the socket.
    messages_per_second: u32 = 20, 1 => 1_000_000;
    /// Writes waiting for the writer; beyond it 503. As many bulk calls and imports again, of which
    /// a quarter may be one user's, or one address's.
    waiting_writes: usize = 1_024, 1 => 1_000_000;
    /// Reads waiting for a reader; beyond it 503.
    waiting_reads: usize = 256, 1 => 1_000_000;
    /// Threads that read rows; each holds a connection and a page cache of its own.
    readers: usize = 4, 1 => 64;
    /// Threads that serve connections, each its own; by default one for each core.
    event_loops: usize = *CORES, 1 => 1_024;
    /// Frames one connection may have waiting; beyond it 4408.
    outbox_frames: usize = 1_024, 1 => 1_000_000;
    /// Bytes one connection may have waiting; beyond it 4408.
    outbox_bytes: usize = 4 * MIB, 64 * KIB => 1024 * MIB;
    /// Records in one message; longer ones are cut.
    message_records: usize = 1_000, 1 => 100_000;
    /// Bytes in one message; longer ones are cut between records.
    frame_bytes: usize = MIB, KIB => 64 * MIB;
    /// Bytes of commits that may wait in memory to be told; beyond it they are read from the log.
    /// And of one commit's frames that may wait in outboxes; beyond it, those end (4408) for whom
    /// most of it waits. And, with twice what `recent_bytes` says, of all messages in memory before
    /// who comes back waits to be told a commit that is larger than its outbox.
    tail_bytes: usize = 256 * MIB, MIB => 65536 * MIB;
    /// Bytes of told commits kept in memory for clients that come back; and again as many of
    /// entries read from the log for them, and of messages made of those.
    recent_bytes: usize = 64 * MIB, MIB => 65536 * MIB;
    /// Replays that work at the same time; the others wait in line. More would take cores from
    /// the live stream.
    replays: usize = 2, 1 => 256;
    /// Replays that may wait in line; beyond it 4429.
    replays_waiting: usize = 20_000, 1 => 10_000_000;
    /// Records that one commit may concern through relations alone, for subscriptions with
    /// transitions: the writer's time. Beyond it these end (4410).
    dependants: usize = 10_000, 0 => 10_000_000;
    /// Longest `wait` of a poll for changes.
    poll_time: Duration = seconds(60), Duration::ZERO => seconds(600);
    /// A WebSocket or event stream that takes no byte for so long is ended.
    write_time: Duration = seconds(30), Duration::from_millis(100) => seconds(3600);
    /// How long a WebSocket's closing handshake may take.
    close_time: Duration = seconds(2), Duration::from_millis(100) => seconds(60);
    /// Open connections, all clients together: descriptors and memory.
    connections: usize = 50_000, 1 => 10_000_000;
    /// Open connections of one address or user (loopback and admins exempt).
    connections_per_client: usize = 1_000, 1 => 10_000_000;
    /// Handshakes under way at once, per address (loopback exempt).
    handshakes_per_client: usize = 100, 1 => 10_000_000;
    /// The server pings every so often, so that proxies keep quiet connections; a client that
    /// missed two is gone.
    ping_every: Duration = seconds(25), Duration::from_millis(100) => seconds(3600);
    /// Entries of the change log older than this are trimmed (the newest never).
    log_age: Duration = seconds(DAY), seconds(1) => seconds(3650 * DAY);
    /// The change log is trimmed to this many bytes (the newest entry always stays).
    log_bytes: u64 = GIB, MIB as u64 => 1 << 50;
}

impl Limits {
    /// Bytes of messages for clients that the process may hold before those who come back wait:
    /// of one commit's, and of those that are kept for who comes next.
    pub fn held_bytes(&self) -> usize {
        self.tail_bytes.saturating_add(self.recent_bytes.saturating_mul(2))
    }

    /// What must hold between bounds; the error names both.
    pub fn check(&self) -> Result<(), String> {
        let at_most = |less: &str, a: u64, more: &str, b: u64| {
            if a <= b {
                return Ok(());
            }
            Err(format!("{less} ({a}) is over {more} ({b}); it must be at most that"))
        };
        at_most("page_default", self.page_default, "page_records", self.page_records)?;
        at_most("body_bytes", self.body_bytes as u64, "bodies_bytes", self.bodies_bytes as u64)?;
        at_most("record_bytes", self.record_bytes as u64, "body_bytes", self.body_bytes as u64)?;
        at_most(
            "record_bytes",
            self.record_bytes as u64,
            "answer_bytes",
            self.answer_bytes as u64,
        )?;
        // Told transitions, a subscription costs twice.
        let twice = 2 * self.plan_cost;
        at_most("twice plan_cost", twice, "principal_cost", self.principal_cost)?;
        // An update holds two states.
        at_most(
            "twice record_bytes",
            2 * self.record_bytes as u64,
            "write_bytes",
            self.write_bytes as u64,
        )?;
        at_most("frame_bytes", self.frame_bytes as u64, "outbox_bytes", self.outbox_bytes as u64)
    }
}

/// What a bound can be counted in.
trait Amount: Copy + PartialOrd {
    fn from_number(number: u64) -> Option<Self>;
    fn number(self) -> u64;
}

macro_rules! amount {
    ($($type:ty),*) => {$(
        impl Amount for $type {
            fn from_number(number: u64) -> Option<Self> {
                number.try_into().ok()
            }
            fn number(self) -> u64 {
                self as u64
            }
        }
    )*};
}
amount!(usize, u64, u32);

/// Counted in milliseconds.
impl Amount for Duration {
    fn from_number(number: u64) -> Option<Self> {
        Some(Duration::from_millis(number))
    }
    fn number(self) -> u64 {
        self.as_millis() as u64
    }
}

/// Units of a kind, largest first, and what a bare number means.
fn units<T: 'static>(key: &str) -> (&'static [(&'static str, u64)], u64) {
    if std::any::TypeId::of::<T>() == std::any::TypeId::of::<Duration>() {
        (&[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)], 1_000)
    } else if key.ends_with("_bytes") {
        (&[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)], 1)
    } else {
        (&[("", 1)], 1)
    }
}

fn show<T: Amount + 'static>(key: &str, amount: &T) -> String {
    let number = amount.number();
    let fits = |(_, size): &&(&str, u64)| number > 0 && number.is_multiple_of(*size);
    match units::<T>(key).0.iter().find(fits) {
        Some((unit, size)) => format!("{}{unit}", number / size),
        None => number.to_string(),
    }
}

fn read<T: Amount + 'static>(key: &str, text: &str, least: T, most: T) -> Result<T, String> {
    let (units, bare) = units::<T>(key);
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let size = match unit {
        "" => Some(bare),
        _ => units.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size),
    };
    let amount = size
        .and_then(|size| number.parse::<u64>().ok()?.checked_mul(size))
        .and_then(T::from_number)
        .filter(|amount| (least..=most).contains(amount));
    amount.ok_or_else(|| {
        let names: Vec<_> = units.iter().map(|(name, _)| *name).filter(|n| !n.is_empty()).collect();
        let form = match names.as_slice() {
            [] => String::from("a number"),
            names => format!("a number with {}", names.join(", ")),
        };
        format!("'{text}': use {form}, from {} to {}", show(key, &least), show(key, &most))
    })
}

/// Reads a duration as the bounds are read, e.g. `30s` or `7d`.
pub fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    read("time", text, least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, text: &str) -> Result<Limits, String> {
        let mut limits = Limits::default();
        let bound = BOUNDS.iter().find(|bound| bound.key == key).expect("a bound");
        (bound.set)(&mut limits, text)?;
        Ok(limits)
    }

    #[test]
    fn defaults_can_be_set_as_they_are_shown() {
        for bound in BOUNDS {
            let mut limits = Limits::default();
            (bound.set)(&mut limits, &(bound.default)()).expect(bound.key);
            assert_eq!(format!("{limits:?}"), format!("{:?}", Limits::default()), "{}", bound.key);
        }
        Limits::default().check().expect("defaults fit each other");
    }

    #[test]
    fn units_and_refusals() {
        assert_eq!(set("body_bytes", "2MiB").unwrap().body_bytes, 2 << 20);
        assert_eq!(set("body_bytes", "4096").unwrap().body_bytes, 4096);
        assert_eq!(set("idle_time", "5").unwrap().idle_time, seconds(5));
        assert_eq!(set("idle_time", "250ms").unwrap().idle_time, Duration::from_millis(250));
        assert_eq!(set("log_age", "2h").unwrap().log_age, seconds(7200));
        for (key, text) in [
            ("body_bytes", "much"),
            ("body_bytes", "-1"),
            ("body_bytes", ""),
            ("body_bytes", "5s"),
            ("body_bytes", "99999999999999999999"),
            ("page_records", "0"),
            ("page_records", "10KiB"),
            ("messages_per_second", "5000000000"),
            ("ping_every", "1ms"),
        ] {
            let error = set(key, text).expect_err(text);
            assert!(error.contains("from"), "{error}");
        }
        assert_eq!(
            set("head_time", "soon").unwrap_err(),
            "'soon': use a number with d, h, m, s, ms, from 100ms to 10m"
        );
    }
}
