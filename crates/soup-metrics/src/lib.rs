//! What a process has done and is doing, for whoever operates it: counters, gauges and histograms in the text format of Prometheus
//! ([OpenMetrics 1.0](https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md)).
//!
//! There is one set of them in a process ([`metrics`]). Counting costs an addition, whether anybody looks or not. Nothing is decided by what is
//! counted here, and no number of a report comes from it.
//!
//! Names begin with `soup_` and follow the conventions of Prometheus: units are in the name, and counters end with `_total`. What a label
//! can be is a short list of words: never a name that somebody chose.

mod process;

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of what takes from a millisecond to hours, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 3600.0, 14400.0];

/// A label: its name and its value.
type Label = (&'static str, &'static str);
/// Counters by one label.
pub type Counts = Family<[Label; 1], Counter>;
/// Counters by two labels.
pub type PairCounts = Family<[Label; 2], Counter>;
/// Histograms of seconds by one label.
pub type Seconds = Family<[Label; 1], Histogram, fn() -> Histogram>;

/// What a process counts.
pub struct Metrics {
    registry: Registry,
    /// 1 as long as the process does what it is there for: a worker that is registered and has loaded what it was told to, a coordinator
    /// that owns its state.
    pub ready: Gauge,
    /// As a coordinator.
    pub coordinator: Coordinator,
    /// As a worker.
    pub worker: Worker,
    /// To object stores.
    pub store: Store,
}

/// What a coordinator counts.
pub struct Coordinator {
    /// Runs that ended, by `outcome`: published, failed, cancelled, suspended.
    pub runs: Counts,
    /// Runs that wait for their turn.
    pub queued: Gauge,
    /// Runs in progress: 0 or 1.
    pub running: Gauge,
    /// Trials that were decided, by `verdict`.
    pub trials: Counts,
    /// Samples of slices that workers have judged and that were taken.
    pub judged_samples: Counter,
    /// Bytes that workers have read of pools.
    pub pool_read: Counter,
    /// How long runs were in a `phase`, observed when one leaves it.
    pub phase: Seconds,
    /// Workers that are connected.
    pub workers: Gauge,
    /// Workers that joined.
    pub joined: Counter,
    /// Workers that are gone, by `reason`: left, stream, lease, outbox.
    pub lost: Counts,
    /// Workers that are believed no longer.
    pub quarantined: Counter,
    /// Attempts at tasks that failed, by `kind` of error.
    pub failed_attempts: Counts,
    /// Records that became durable.
    pub records: Counter,
    /// How long one took.
    pub append: Histogram,
    /// How often this coordinator found that a run or its state is another one's.
    pub fenced: Counter,
    /// Runs that a panic of their machine ended.
    pub defects: Counter,
}

/// What a worker counts.
pub struct Worker {
    /// Attempts at tasks, by `task` and `outcome`: done, or the kind of error.
    pub tasks: PairCounts,
    /// How long those took that were done, by `task`.
    pub task_seconds: Seconds,
    /// Tasks under way.
    pub tasks_open: Gauge,
    /// Those of them that wait for a compute thread.
    pub tasks_waiting: Gauge,
    /// Bytes read of pools.
    pub loaded: Counter,
    /// Bytes of blends that were computed of the worker's own shards.
    pub blended: Counter,
    /// Bytes that peers were sent.
    pub sent: Counter,
    /// Bytes that were fetched of peers.
    pub fetched: Counter,
    /// Fetches of peers that failed.
    pub failed_fetches: Counter,
    /// Samples that were judged.
    pub judged_samples: Counter,
    /// Bytes of shards that are resident, by `tier`: device, memory, disk.
    pub resident: Family<[Label; 1], Gauge>,
    /// Connections to a coordinator that were welcomed.
    pub welcomes: Counter,
}

/// What is counted of requests to object stores. Files on local disks are not.
pub struct Store {
    /// Requests, by `method` and `status`: the class of the answer, such as 2xx, or none.
    pub requests: PairCounts,
    /// How long the answer's head took, by `method`.
    pub seconds: Seconds,
    /// Pauses that a store asked for before a request was sent again.
    pub waits: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn by_label() -> Seconds {
    Family::new_with_constructor(seconds)
}

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// All of them in the format of [`CONTENT_TYPE`].
#[must_use]
pub fn text() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &metrics().registry);
    text
}

/// Adds a duration to a histogram of seconds.
pub fn observe(of: &Seconds, label: Label, took: Duration) {
    of.get_or_create(&[label]).observe(took.as_secs_f64());
}

/// Counts one more.
pub fn count(of: &Counts, label: Label) {
    of.get_or_create(&[label]).inc();
}

/// One more of something, until this is dropped.
pub struct Open(&'static Gauge);

impl Open {
    /// Of this gauge.
    #[must_use]
    pub fn of(gauge: &'static Gauge) -> Open {
        gauge.inc();
        Open(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    fn new() -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        let ready = Gauge::<i64>::default();
        registry.register(
            "soup_ready",
            "1 if a worker is registered and has loaded what it was told to, or a coordinator owns its state",
            ready.clone(),
        );
        let coordinator = Coordinator::new(&mut registry);
        let worker = Worker::new(&mut registry);
        let store = Store::new(&mut registry);
        Metrics { registry, ready, coordinator, worker, store }
    }
}

/// Registers metrics under the names of fields that hold them.
macro_rules! registered {
    ($registry:ident: $($field:ident = $make:expr, $name:literal $(in $unit:expr)?, $help:literal;)*) => {
        Self {
            $($field: {
                let metric = $make;
                registered!(@ $registry, $name, $help, metric.clone() $(, $unit)?);
                metric
            },)*
        }
    };
    (@ $registry:ident, $name:literal, $help:literal, $metric:expr) => {
        $registry.register($name, $help, $metric)
    };
    (@ $registry:ident, $name:literal, $help:literal, $metric:expr, $unit:expr) => {
        $registry.register_with_unit($name, $help, $unit, $metric)
    };
}

impl Coordinator {
    fn new(registry: &mut Registry) -> Coordinator {
        registered! { registry:
            runs = Counts::default(), "soup_runs", "Runs that ended here";
            queued = Gauge::default(), "soup_runs_queued", "Runs that wait for their turn";
            running = Gauge::default(), "soup_runs_in_progress", "Runs in progress";
            trials = Counts::default(), "soup_trials", "Trials that were decided";
            judged_samples = Counter::<u64, AtomicU64>::default(), "soup_judged_samples", "Samples that workers have judged, as far as that was taken";
            pool_read = Counter::<u64, AtomicU64>::default(), "soup_pool_read" in Unit::Bytes, "What workers have read of pools";
            phase = by_label(), "soup_phase" in Unit::Seconds, "How long runs were in a phase, once they have left it";
            workers = Gauge::default(), "soup_workers", "Workers that are connected";
            joined = Counter::<u64, AtomicU64>::default(), "soup_workers_joined", "Workers that joined";
            lost = Counts::default(), "soup_workers_lost", "Workers that are gone";
            quarantined = Counter::<u64, AtomicU64>::default(), "soup_workers_quarantined", "Workers that are believed no longer";
            failed_attempts = Counts::default(), "soup_failed_attempts", "Attempts at tasks that failed, by the kind of error";
            records = Counter::<u64, AtomicU64>::default(), "soup_journal_records", "Records of journals that became durable";
            append = seconds(), "soup_journal_append" in Unit::Seconds, "How long a record took to become durable";
            fenced = Counter::<u64, AtomicU64>::default(), "soup_fenced", "How often a run or the state was found to be another coordinator's, or lost";
            defects = Counter::<u64, AtomicU64>::default(), "soup_defects", "Runs that a defect of this program ended";
        }
    }
}

impl Worker {
    fn new(registry: &mut Registry) -> Worker {
        registered! { registry:
            tasks = PairCounts::default(), "soup_worker_tasks", "Attempts at tasks: done, or the kind of error";
            task_seconds = by_label(), "soup_worker_task" in Unit::Seconds, "How long tasks took that were done";
            tasks_open = Gauge::default(), "soup_worker_tasks_open", "Tasks under way";
            tasks_waiting = Gauge::default(), "soup_worker_tasks_waiting", "Tasks that wait for a compute thread";
            loaded = Counter::<u64, AtomicU64>::default(), "soup_worker_loaded" in Unit::Bytes, "Read of pools";
            blended = Counter::<u64, AtomicU64>::default(), "soup_worker_blended" in Unit::Bytes, "Blends computed of own shards";
            sent = Counter::<u64, AtomicU64>::default(), "soup_worker_sent" in Unit::Bytes, "Blends and gradients that peers were given";
            fetched = Counter::<u64, AtomicU64>::default(), "soup_worker_fetched" in Unit::Bytes, "Blends and gradients fetched of peers";
            failed_fetches = Counter::<u64, AtomicU64>::default(), "soup_worker_failed_fetches", "Fetches of peers that failed";
            judged_samples = Counter::<u64, AtomicU64>::default(), "soup_worker_judged_samples", "Samples that were judged";
            resident = Family::default(), "soup_worker_resident" in Unit::Bytes, "Shards that are resident";
            welcomes = Counter::<u64, AtomicU64>::default(), "soup_worker_welcomes", "Connections to a coordinator that were welcomed";
        }
    }
}

impl Store {
    fn new(registry: &mut Registry) -> Store {
        registered! { registry:
            requests = PairCounts::default(), "soup_store_requests", "Requests to object stores, by the class of the answer";
            seconds = by_label(), "soup_store_request" in Unit::Seconds, "How long the head of an object store's answer took";
            waits = Counter::<u64, AtomicU64>::default(), "soup_store_waits", "Pauses that a store asked for";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_in_the_text() {
        count(&metrics().coordinator.trials, ("verdict", "accepted"));
        metrics().worker.loaded.inc_by(7);
        observe(&metrics().worker.task_seconds, ("task", "load"), Duration::from_millis(30));
        let text = text();
        for line in [
            "soup_trials_total{verdict=\"accepted\"} 1",
            "soup_worker_loaded_bytes_total 7",
            "soup_worker_task_seconds_bucket{le=\"0.1\",task=\"load\"} 1",
            "soup_worker_task_seconds_count{task=\"load\"} 1",
            "# TYPE soup_trials counter",
            "# UNIT soup_worker_loaded_bytes bytes",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
            assert!(text.lines().any(|l| l.starts_with(name)), "no {name} in\n{text}");
        }
    }

    #[test]
    fn what_is_open_is_closed_by_itself() {
        let gauge = &metrics().worker.tasks_waiting;
        let open = Open::of(gauge);
        assert_eq!(gauge.get(), 1);
        drop(open);
        assert_eq!(gauge.get(), 0);
    }
}
