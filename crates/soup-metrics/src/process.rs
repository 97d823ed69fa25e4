//! What the system knows of this process, under the names that all clients of Prometheus use.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads it when it is asked for.
#[derive(Debug)]
pub(crate) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut put = |name: &str, help: &str, unit: Option<Unit>, metric: &dyn Put| {
            metric.put(&mut encoder, name, help, unit.as_ref())
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (field, name, help) in [
            ("VmRSS:", "process_resident_memory", "Resident memory"),
            ("VmSize:", "process_virtual_memory", "Virtual memory"),
        ] {
            if let Some(kibibytes) = field_of(&status, field) {
                put(name, help, Some(Unit::Bytes), &ConstGauge::new(kibibytes * 1024))?;
            }
        }
        if let Some(seconds) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|s| cpu_seconds(&s)) {
            put("process_cpu", "Processor time", Some(Unit::Seconds), &ConstCounter::new(seconds))?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // One of them is what they are counted through.
            let open = ConstGauge::new(open.count().saturating_sub(1) as i64);
            put("process_open_fds", "Open file descriptors", None, &open)?;
        }
        Ok(())
    }
}

/// The number of a line of `/proc/self/status`.
fn field_of(status: &str, field: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Ticks of a second in `/proc`, which is the same in all of Linux.
const TICKS: f64 = 100.0;

/// Processor time of the process and the kernel for it, by `/proc/self/stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program may have anything in it, and is in parentheses.
    let mut after = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (u64, u64) = (after.next()?.parse().ok()?, after.next()?.parse().ok()?);
    Some((user + system) as f64 / TICKS)
}

/// What can be put into a text.
trait Put {
    fn put(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> fmt::Result;
}

impl<M: EncodeMetric> Put for M {
    fn put(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> fmt::Result {
        let encoder = encoder.encode_descriptor(name, help, unit, self.metric_type())?;
        self.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_understood() {
        let status = "Name:\tsoupctl\nVmSize:\t  200 kB\nVmRSS:\t   12 kB\n";
        assert_eq!((field_of(status, "VmRSS:"), field_of(status, "VmSwap:")), (Some(12), None));
        let stat = "7 (so) up (ctl) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 200 3";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (soupctl"), None);
    }
}
