//! What moving bytes costs: time, and processor time.

use std::fmt;
use std::time::Instant;

/// The shortest time of several rounds, and the processor time of all.
#[derive(Clone, Copy)]
pub struct Cost {
    bytes: usize,
    seconds: f64,
    cpu_seconds: f64,
    rounds: u32,
}

impl Cost {
    /// Of no round yet; each moves `bytes`.
    pub fn new(bytes: usize) -> Cost {
        Cost { bytes, seconds: f64::INFINITY, cpu_seconds: 0.0, rounds: 0 }
    }

    /// One round more.
    pub fn add(&mut self, (seconds, cpu_seconds): (f64, f64)) {
        self.seconds = self.seconds.min(seconds);
        self.cpu_seconds += cpu_seconds;
        self.rounds += 1;
    }

    /// GB/s of the best round.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e9
    }

    /// Processor seconds a GB, over all rounds.
    pub fn cpu(&self) -> f64 {
        self.cpu_seconds / f64::from(self.rounds) / (self.bytes as f64 / 1e9)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} GB/s, {:.2} CPU s/GB", self.rate(), self.cpu())
    }
}

/// Time and processor time that `work` takes, both in seconds.
pub fn measure(work: impl FnOnce()) -> (f64, f64) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    work();
    (start.elapsed().as_secs_f64(), cpu_seconds() - cpu)
}

/// Processor time of this process so far, in ticks of 10 ms; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    after_name.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}
