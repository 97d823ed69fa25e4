//! Shows how a run goes, on stderr: bars below the lines on a terminal, lines alone elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use soup_core::metric::MetricName;
use soup_core::run::RunSpec;
use soup_proto::v1::run_event::Event;

use crate::narrate::{Narrator, Phase, Told};
use crate::print;

/// Without bars, a phase is told at so many points of its way.
const STEPS: u64 = 4;

/// The display of one run.
pub(crate) enum Progress {
    /// Nothing is shown.
    Quiet,
    /// Everything is.
    Shown(Box<Shown>),
}

pub(crate) struct Shown {
    narrator: Narrator,
    /// Where bars can be drawn.
    watched: bool,
    bar: Option<(Phase, ProgressBar)>,
    /// The phase and step that was told last.
    told: Option<(Phase, u64)>,
}

impl Progress {
    pub(crate) fn new(spec: &RunSpec, quiet: bool) -> Progress {
        if quiet {
            return Progress::Quiet;
        }
        let (recipe, ranked) = (spec.recipe.clone(), spec.ranked_by.is_some());
        let narrator = Narrator::new(recipe.metric.clone(), move |k| recipe.trials_max(k, ranked).1);
        Progress::Shown(Box::new(Shown { narrator, watched: print::is_watched(), bar: None, told: None }))
    }

    /// The display of a run that was specified elsewhere.
    pub(crate) fn of_any_run() -> Progress {
        let narrator = Narrator::new(MetricName::default(), |_| 0);
        Progress::Shown(Box::new(Shown { narrator, watched: print::is_watched(), bar: None, told: None }))
    }

    /// Shows an event.
    pub(crate) fn event(&mut self, event: &Event) {
        if let Progress::Shown(shown) = self {
            shown.event(event);
        }
    }

    /// Shows a line of our own.
    pub(crate) fn line(&self, text: &str) {
        if let Progress::Shown(_) = self {
            print::line(text);
        }
    }

    /// Takes the bars away.
    pub(crate) fn end(&mut self) {
        if let Progress::Shown(shown) = self
            && let Some((_, bar)) = shown.bar.take()
        {
            bar.finish_and_clear();
        }
    }
}

impl Shown {
    fn event(&mut self, event: &Event) {
        for told in self.narrator.tell(event) {
            match told {
                Told::Line(text) => print::line(&text),
                Told::Gauge { phase, done, total } if self.watched => self.draw(phase, done, total),
                Told::Gauge { phase, .. } if phase.has_lines() => {}
                Told::Gauge { phase, done, total } => {
                    if let Some(text) = self.step(phase, done, total) {
                        print::line(&text);
                    }
                }
            }
        }
    }

    /// What is told of a phase where there are no bars, if it has come to another step.
    fn step(&mut self, phase: Phase, done: u64, total: u64) -> Option<String> {
        let step = done.saturating_mul(STEPS).checked_div(total).unwrap_or(STEPS);
        let begins = done == 0 && !phase.begins_with_a_line();
        if begins || self.told == Some((phase, step)) {
            return None;
        }
        self.told = Some((phase, step));
        Some(format!("{}  {done}/{total} {}", phase.name(), phase.unit()))
    }

    fn draw(&mut self, phase: Phase, done: u64, total: u64) {
        let bar = match &self.bar {
            Some((drawn, bar)) if *drawn == phase => bar,
            _ => {
                if let Some((_, old)) = self.bar.take() {
                    old.finish_and_clear();
                }
                let bar = print::BARS.add(ProgressBar::new(total));
                // The template is constant, so it is valid or a test fails; a plain bar is the fallback.
                let style =
                    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
                bar.set_style(style.progress_chars("=> "));
                bar.set_prefix(phase.name());
                bar.set_message(phase.unit());
                &self.bar.insert((phase, bar)).1
            }
        };
        bar.set_length(total);
        bar.set_position(done);
    }
}

const TEMPLATE: &str = "{prefix:10} [{bar:40}] {pos}/{len} {msg}  {elapsed}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bars_a_phase_is_told_when_it_begins_or_has_come_further() {
        let narrator = Narrator::new(MetricName::default(), |_| 0);
        let mut shown = Shown { narrator, watched: false, bar: None, told: None };
        let mut told = |phase, done, total| shown.step(phase, done, total).unwrap_or_default();
        assert_eq!(told(Phase::Loading, 0, 13), "");
        assert_eq!(told(Phase::Loading, 1, 13), "loading  1/13 shards");
        assert_eq!(told(Phase::Loading, 2, 13), "");
        assert_eq!(told(Phase::Measuring, 13, 13), "measuring  13/13 shards");
        assert_eq!(told(Phase::Writing, 0, 1), "writing  0/1 files");
        assert_eq!(told(Phase::Writing, 1, 1), "writing  1/1 files");
        assert_eq!(told(Phase::Checking, 0, 1), "checking  0/1 files");
        assert_eq!(told(Phase::Checking, 0, 1), "");
        // Whatever a coordinator says.
        assert_eq!(told(Phase::Checking, u64::MAX, 9), "checking  18446744073709551615/9 files");
    }

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
