//! What happens in a world, line by line, with the simulated time: everything that the roles log, and the faults.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, Once, PoisonError};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;

/// What is logged unless `SOUP_LOG` says otherwise: targets and levels. With `turmoil=trace` every message is.
const LOGGED: &str = "soup_coordinator=debug,soup_worker=debug,soup_store=debug,simulation=info,turmoil=info";

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
    static FIRST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A line without the names that processes draw so that nobody else has them: 16 hexadecimal digits or more.
fn without_chance(line: &str) -> String {
    let mut out = String::new();
    for part in line.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        if digits.len() < 16 {
            out.push_str(part);
        } else {
            out.push('*');
            out.push_str(&part[digits.len()..]);
        }
    }
    out
}

/// What is logged on this thread while this lives.
pub struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        match turmoil::in_simulation().then(turmoil::sim_elapsed).flatten() {
            Some(elapsed) => write!(w, "{:9.3}", elapsed.as_secs_f64()),
            None => write!(w, "{:9}", ""),
        }
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn start() -> Log {
        static HOOK: Once = Once::new();
        // Panics of tasks are caught by their runtimes; no invariant of ours allows one.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                PANICS.set(PANICS.get() + 1);
                FIRST_PANIC.with_borrow_mut(|first| first.get_or_insert_with(|| info.to_string()).len());
                before(info);
            }));
        });
        PANICS.set(0);
        FIRST_PANIC.take();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = bytes.clone();
        let filter = std::env::var("SOUP_LOG").unwrap_or_else(|_| LOGGED.to_owned());
        let targets: Targets = filter.parse().unwrap();
        let lines = tracing_subscriber::fmt::layer()
            .with_timer(SimulatedTime)
            .with_ansi(false)
            .with_writer(move || Sink(sink.clone()));
        let subscriber = tracing_subscriber::registry().with(lines).with(targets);
        Log { bytes, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).lines().map(without_chance).collect()
    }

    /// The first panic on this thread since the start.
    pub fn panic(&self) -> Option<String> {
        (PANICS.get() > 0).then(|| FIRST_PANIC.with_borrow(|first| first.clone().unwrap_or_default()))
    }
}
