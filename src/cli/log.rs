//! The log on stderr. Lines about requests, one each, are gathered for a moment and written
//! together by a thread of their own: a system call less a request, and no request waits for a
//! slow disk or pipe behind stderr. Everything else is written at once, behind what was gathered.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::model::time;

/// How long lines are gathered: nobody watching sees it.
const MOMENT: Duration = Duration::from_millis(100);

/// More than this is written by whoever comes with it: a stuck stderr holds requests up then, and
/// takes no memory without bound.
const BYTES: usize = 256 << 10;

/// Where the lines of requests come from.
const REQUESTS: &str = "rowcast::http";

static STARTED: OnceLock<Arc<Shared>> = OnceLock::new();

/// Lines on their way to stderr.
pub(super) struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    gathered: Mutex<Vec<u8>>,
    some: Condvar,
    /// Held while writing, so that lines stay in order.
    out: Mutex<()>,
}

/// Starts the thread.
///
/// # Errors
/// There is none to be had.
pub(super) fn start() -> io::Result<Log> {
    let shared = STARTED.get_or_init(Arc::default).clone();
    let gathered = shared.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || {
        loop {
            gathered.wait();
            std::thread::sleep(MOMENT);
            gathered.flush();
        }
    })?;
    Ok(Log(shared))
}

/// Writes what was gathered: before the process ends.
pub(super) fn flush() {
    if let Some(shared) = STARTED.get() {
        shared.flush();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until there is something.
    fn wait(&self) {
        let gathered = self.some.wait_while(self.lock(), |gathered| gathered.is_empty());
        drop(gathered.unwrap_or_else(PoisonError::into_inner));
    }

    /// Nobody can be told that stderr fails.
    fn flush(&self) {
        let _out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let gathered = std::mem::take(&mut *self.lock());
        let _ = io::stderr().write_all(&gathered);
    }

    fn gather(&self, line: &[u8], at_once: bool) {
        let mut gathered = self.lock();
        let first = gathered.is_empty();
        gathered.extend_from_slice(line);
        let full = gathered.len() > BYTES;
        drop(gathered);
        if at_once || full {
            self.flush();
        } else if first {
            self.some.notify_one();
        }
    }
}

/// How an event becomes a line. A request's is put together here, to the letter as it would be by
/// tracing's own format: that took 7,000 instructions, of a small create's 100,000.
#[derive(Default)]
pub(super) struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let plain = is_request(event.metadata())
            && !writer.has_ansi_escapes()
            && context.lookup_current().is_none();
        if plain {
            let mut message = Message { text: String::with_capacity(128), other: false };
            event.record(&mut message);
            // What might do something to a terminal is escaped there.
            if !message.other && message.text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
                let now = time::exactly(i64::try_from(now).unwrap_or(time::MAX).min(time::MAX));
                writer.write_str(str::from_utf8(&now).map_err(|_| fmt::Error)?)?;
                writer.write_str("  INFO rowcast::http: ")?;
                writer.write_str(&message.text)?;
                return writer.write_char('\n');
            }
        }
        self.0.format_event(context, writer, event)
    }
}

/// An event's message, and whether it has fields beside it.
struct Message {
    text: String,
    other: bool,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.other |= field.name() != "message" || write!(self.text, "{value:?}").is_err();
    }
}

/// Whether it is the line of a request.
fn is_request(event: &Metadata<'_>) -> bool {
    event.target() == REQUESTS && *event.level() == Level::INFO
}

/// Takes the line of one event.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    at_once: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.gather(line, self.at_once);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { shared: &self.0, at_once: true }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        Line { shared: &self.0, at_once: of.target() != REQUESTS || *of.level() < Level::INFO }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Registry;
    use tracing_subscriber::fmt::SubscriberBuilder;
    use tracing_subscriber::fmt::format::DefaultFields;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of some events.
    fn written<E>(ansi: bool, lines: E) -> String
    where
        E: FormatEvent<Registry, DefaultFields> + Send + Sync + 'static,
    {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = SubscriberBuilder::default()
            .with_writer(move || writer.clone())
            .with_ansi(ansi)
            .event_format(lines)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for path in
                ["/", "/api/content/side", "/\u{1b}[2J", "/\u{7f}", "/\u{85}", "/\u{e9}", ""]
            {
                tracing::info!(target: "rowcast::http", "GET {path} 200 0.1ms");
                tracing::warn!(target: "rowcast::http", "GET {path} 200 0.1ms");
                tracing::info!(target: "rowcast::http", status = 200, "GET {path}");
                tracing::info!("GET {path} 200 0.1ms");
            }
            let _within = tracing::info_span!("within").entered();
            tracing::info!(target: "rowcast::http", "GET / 200 0.1ms");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    /// Every digit a zero: times differ.
    fn timeless(text: &str) -> String {
        text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
    }

    #[test]
    fn lines_are_to_the_letter_those_of_tracing() {
        for ansi in [false, true] {
            let (ours, tracings) =
                (written(ansi, Lines::default()), written(ansi, Format::default()));
            assert_eq!(timeless(&ours), timeless(&tracings));
        }
    }
}
