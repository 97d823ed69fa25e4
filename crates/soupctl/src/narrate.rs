//! Run events as lines and gauges for people. Pure: what is shown where is [`crate::progress`]'s business.

use soup_core::metric::{ClassMetric, MetricName};
use soup_core::report::{apart, chance, decimal, percent};
use soup_proto::v1::run_event::Event;
use soup_proto::v1::tally::Kind;
use soup_proto::v1::underway::What;
use soup_proto::v1::{
    Decided, Loading, Planned, Retracted, Scored, Soup, Stepped, Tally, Underway, WorkersChanged,
};

use crate::quantity::{Bytes, count, grouped};

/// Names longer than this do not widen their column.
const NAME_WIDTH_MAX: usize = 24;

/// Lines about the steps of a learned soup, at most and about.
const STEP_LINES: u32 = 20;

/// Something to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A line.
    Line(String),
    /// How far a phase is. Always shown where bars are; as lines only for phases that have no lines of their own.
    Gauge { phase: Phase, done: u64, total: u64 },
}

/// What takes time and can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Loading,
    Ranking,
    Trials,
    Learning,
    Measuring,
    Diagnosing,
    Comparing,
    Writing,
    Checking,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Loading => "loading",
            Phase::Ranking => "ranking",
            Phase::Trials => "trials",
            Phase::Learning => "learning",
            Phase::Measuring => "measuring",
            Phase::Diagnosing => "diagnosing",
            Phase::Comparing => "comparing",
            Phase::Writing => "writing",
            Phase::Checking => "checking",
        }
    }

    /// Whether every step has a line of its own.
    pub(crate) fn has_lines(self) -> bool {
        matches!(self, Phase::Ranking | Phase::Trials | Phase::Learning)
    }

    /// Whether it is told as soon as it begins: the first of few steps may take as long as all others.
    pub(crate) fn begins_with_a_line(self) -> bool {
        matches!(self, Phase::Diagnosing | Phase::Writing | Phase::Checking)
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Phase::Loading | Phase::Measuring => "shards",
            Phase::Ranking => "ingredients",
            Phase::Trials => "trials at most",
            Phase::Learning => "steps",
            Phase::Diagnosing => "soups",
            Phase::Comparing => "slices at most",
            Phase::Writing | Phase::Checking => "files",
        }
    }
}

/// Tells what happens in one run.
pub(crate) struct Narrator {
    metric: MetricName,
    /// Trials at most, by the number of ingredients.
    trials_max: Box<dyn Fn(u32) -> u64 + Send>,
    ingredients: Vec<String>,
    name_width: usize,
    datasets: Vec<String>,
    /// So many workers the run waits for, until it has begun.
    workers_min: u32,
    ranked: u64,
    /// The last trial that was told: a coordinator that took over tells all of them again.
    trials_told: u32,
    /// The last step, likewise.
    steps_told: u32,
}

impl Narrator {
    pub(crate) fn new(metric: MetricName, trials_max: impl Fn(u32) -> u64 + Send + 'static) -> Narrator {
        Narrator {
            metric,
            trials_max: Box::new(trials_max),
            ingredients: Vec::new(),
            name_width: 0,
            datasets: Vec::new(),
            workers_min: 0,
            ranked: 0,
            trials_told: 0,
            steps_told: 0,
        }
    }

    /// What to show for an event.
    pub(crate) fn tell(&mut self, event: &Event) -> Vec<Told> {
        let line = |text: String| vec![Told::Line(text)];
        match event {
            Event::Queued(queued) if queued.ahead == 0 => Vec::new(),
            Event::Queued(queued) => line(format!("queued behind {}", count(queued.ahead.into(), "run"))),
            Event::Planned(planned) => self.planned(planned),
            Event::Workers(WorkersChanged { workers, what }) if *workers < self.workers_min => {
                let all = count(self.workers_min.into(), "worker");
                line(format!("{what} ({workers} of {all}, for which the run waits)"))
            }
            Event::Workers(WorkersChanged { workers, what }) => {
                line(format!("{what} ({})", count((*workers).into(), "worker")))
            }
            Event::Loading(Loading { shards_resident: done, shards }) => {
                self.workers_min = 0;
                gauge(Phase::Loading, *done, *shards)
            }
            Event::Scored(scored) => self.scored(scored),
            Event::Decided(decided) => self.decided(decided),
            Event::Stepped(stepped) => self.stepped(stepped),
            Event::Writing(writing) => gauge(Phase::Writing, writing.files_written, writing.files),
            Event::Underway(underway) => self::underway(underway),
            Event::Retracted(retracted) => self.retracted(retracted),
            Event::Note(text) => line(format!("note: {text}")),
            // The end is told by the result or the error.
            Event::FinishedJson(_) | Event::Failed(_) => Vec::new(),
        }
    }

    fn planned(&mut self, planned: &Planned) -> Vec<Told> {
        self.ingredients.clone_from(&planned.ingredients);
        self.datasets.clone_from(&planned.datasets);
        // Who watches a run that was asked for elsewhere knows it from here alone.
        if let Ok(metric) = planned.metric.parse() {
            self.metric = metric;
        }
        self.workers_min = planned.workers_min;
        let width = |name: &String| name.chars().count();
        self.name_width = self.ingredients.iter().map(width).max().unwrap_or(0).min(NAME_WIDTH_MAX);
        let k = planned.ingredients.len() as u64;
        let pool = Bytes(planned.bytes_per_ingredient.saturating_mul(k));
        let tests = planned.datasets.len().saturating_sub(1) as u64;
        vec![Told::Line(format!(
            "planned: {} of {} parameters ({}, {pool} in all), {}, {}",
            count(k, "ingredient"),
            grouped(planned.parameters),
            Bytes(planned.bytes_per_ingredient),
            count(planned.shards.into(), "shard"),
            count(tests, "test set"),
        ))]
    }

    fn scored(&mut self, scored: &Scored) -> Vec<Told> {
        let (Some(soup), Some(score)) = (&scored.soup, &scored.score) else { return Vec::new() };
        let figures = self.figures(score, &decimal(scored.value));
        if self.datasets.first() != Some(&scored.dataset) {
            let what = format!("{}  {}", self.describe(soup), figures);
            // A recipe that learns takes the set that it learns from for its trials, and no result is reported on that.
            let test = if self.datasets.contains(&scored.dataset) { "test " } else { "" };
            return vec![Told::Line(format!("{test}{}: {what}", scored.dataset))];
        }
        if let [one] = soup.members[..] {
            self.ranked += 1;
            let text = format!("ranking  {}  {figures}", self.name(one));
            let total = self.ingredients.len() as u64;
            return vec![
                Told::Line(text),
                Told::Gauge { phase: Phase::Ranking, done: self.ranked.min(total), total },
            ];
        }
        if soup.rows.is_empty() && soup.members.len() == self.ingredients.len() {
            return vec![Told::Line(format!("uniform  {figures}"))];
        }
        // A trial: told once it is decided.
        Vec::new()
    }

    /// What is taken back is told again once it is decided.
    fn retracted(&mut self, retracted: &Retracted) -> Vec<Told> {
        self.trials_told = self.trials_told.min(retracted.trials);
        vec![Told::Line(format!(
            "taken back: {}; {} and {} remain",
            count(retracted.scores.into(), "score"),
            count(retracted.trials.into(), "trial"),
            count(retracted.steps.into(), "step")
        ))]
    }

    fn decided(&mut self, decided: &Decided) -> Vec<Told> {
        if decided.trial <= self.trials_told {
            return Vec::new();
        }
        self.trials_told = decided.trial;
        let (Some(soup), Some(score), Some(bar)) = (&decided.soup, &decided.score, &decided.bar) else {
            return Vec::new();
        };
        let sign = if soup.members.contains(&decided.candidate) { '+' } else { '-' };
        let (value, bar_value) = apart(decided.value, decided.bar_value);
        let least = match &bar.kind {
            Some(Kind::Classes(bar)) if self.is_accuracy() => plain(bar.correct),
            _ => bar_value,
        };
        let p = decided.p.map_or(String::new(), |p| format!(", p {}", chance(p)));
        let total = (self.trials_max)(self.ingredients.len() as u32);
        let width = total.max(1).to_string().len();
        let line = format!(
            "trial {:>width$}  {sign} {}  {:>2} {:<11}  {}  {} (bar {least}{p})",
            decided.trial,
            self.name(decided.candidate),
            soup.members.len(),
            if soup.members.len() == 1 { "ingredient" } else { "ingredients" },
            match decided.early {
                true => after(samples(score), samples(bar)),
                false => self.figures(score, &value),
            },
            if decided.accepted { "accepted" } else { "rejected" },
        );
        let done = u64::from(decided.trial);
        vec![Told::Line(line), Told::Gauge { phase: Phase::Trials, done, total: total.max(done) }]
    }

    /// A step of a learned soup: all of them on a bar, so many of them as lines.
    fn stepped(&mut self, stepped: &Stepped) -> Vec<Told> {
        let Stepped { step, steps, loss, beta } = *stepped;
        if step <= self.steps_told {
            return Vec::new();
        }
        self.steps_told = step;
        let gauge = Told::Gauge { phase: Phase::Learning, done: step.into(), total: steps.into() };
        let every = steps.div_ceil(STEP_LINES).max(1);
        if step != 1 && step != steps && !step.is_multiple_of(every) {
            return vec![gauge];
        }
        let width = steps.to_string().len();
        vec![
            Told::Line(format!("step {step:>width$}/{steps}  loss {}  beta {beta:.3}", decimal(loss))),
            gauge,
        ]
    }

    /// `1750/2000  87.50 %`, and the run's metric where it is another.
    fn figures(&self, score: &Tally, value: &str) -> String {
        let own = format!("{} {value}", self.metric);
        let Some(Kind::Classes(score)) = &score.kind else { return own };
        let share = percent(score.correct, score.total);
        let total = plain(score.total);
        let counts = format!("{:>width$}/{total}  {share:>7}", score.correct, width = total.len());
        if self.is_accuracy() { counts } else { format!("{counts}  {own}") }
    }

    /// Whether soups are compared by the counts that are shown anyway.
    fn is_accuracy(&self) -> bool {
        self.metric.as_str() == ClassMetric::Accuracy.name()
    }

    fn name(&self, ingredient: u32) -> String {
        let name =
            self.ingredients.get(ingredient as usize).cloned().unwrap_or_else(|| format!("#{ingredient}"));
        format!("{name:<width$}", width = self.name_width)
    }

    /// A soup in few words.
    fn describe(&self, soup: &Soup) -> String {
        match soup.members[..] {
            [one] => self.name(one).trim_end().to_owned(),
            _ if soup.rows.is_empty() && soup.members.len() == self.ingredients.len() => "uniform".to_owned(),
            _ => count(soup.members.len() as u64, "ingredient"),
        }
    }
}

fn gauge(phase: Phase, done: u32, total: u32) -> Vec<Told> {
    vec![Told::Gauge { phase, done: done.into(), total: total.into() }]
}

/// How far something is, of what this program knows.
fn underway(underway: &Underway) -> Vec<Told> {
    let phase = match underway.what() {
        What::Products => Phase::Measuring,
        What::Scores => Phase::Diagnosing,
        What::Uses => Phase::Comparing,
        What::ReadingBack => Phase::Checking,
        What::Unspecified => return Vec::new(),
    };
    gauge(phase, underway.done, underway.of)
}

/// The samples that a tally is of.
fn samples(tally: &Tally) -> u64 {
    match &tally.kind {
        Some(Kind::Classes(counts)) => counts.total,
        Some(Kind::Sums(sums)) => sums.samples,
        Some(Kind::Values(values)) => values.truths.len() as u64,
        None => 0,
    }
}

/// How many of the samples made a verdict certain, as wide as counts are.
fn after(judged: u64, samples: u64) -> String {
    let total = plain(samples);
    format!("after {judged:>width$} of {total}", width = total.len())
}

/// Counts in columns are not grouped: scripts read them.
fn plain(number: u64) -> String {
    number.to_string()
}

#[cfg(test)]
mod tests {
    use soup_proto::v1::{Counts, Queued, Writing};

    use super::*;

    fn soup(members: &[u32]) -> Option<Soup> {
        Some(Soup { members: members.to_vec(), rows: Vec::new() })
    }

    fn score(correct: u64) -> Option<Tally> {
        let counts = Counts { total: 2000, correct, loss_sum: 1.0, ..Counts::default() };
        Some(Tally { kind: Some(Kind::Classes(counts)) })
    }

    fn planned() -> Event {
        Event::Planned(Planned {
            ingredients: ["m00", "m01", "m02", "long-name"].map(String::from).into(),
            parameters: 206_538,
            bytes_per_ingredient: 826_152,
            shards: 13,
            workers_min: 2,
            datasets: vec!["validation".into(), "rotated".into()],
            metric: String::new(),
        })
    }

    fn narrator(metric: &str) -> Narrator {
        let mut narrator = Narrator::new(metric.parse().unwrap(), |_| 15);
        narrator.tell(&planned());
        narrator
    }

    fn lines(told: Vec<Told>) -> Vec<String> {
        let line = |t| match t {
            Told::Line(text) => Some(text),
            Told::Gauge { .. } => None,
        };
        told.into_iter().filter_map(line).collect()
    }

    #[track_caller]
    fn check(event: Event, expect: &[&str]) {
        assert_eq!(lines(narrator("accuracy").tell(&event)), expect);
    }

    fn decided(members: &[u32], candidate: u32, accepted: bool) -> Event {
        Event::Decided(Decided {
            trial: 3,
            soup: soup(members),
            candidate,
            pass: 1,
            score: score(1750),
            bar: score(1748),
            value: 0.875,
            bar_value: 0.874,
            accepted,
            early: false,
            p: None,
        })
    }

    fn scored(dataset: &str, members: &[u32]) -> Event {
        Event::Scored(Scored {
            dataset: dataset.into(),
            soup: soup(members),
            score: score(985),
            value: 0.4925,
        })
    }

    #[test]
    fn the_plan_is_told_in_one_line() {
        check(
            planned(),
            &[
                "planned: 4 ingredients of 206,538 parameters (807 KiB, 3.15 MiB in all), 13 shards, 1 test set",
            ],
        );
    }

    #[test]
    fn trials_are_told_with_their_verdict() {
        check(
            decided(&[0, 1, 2], 2, true),
            &["trial  3  + m02         3 ingredients  1750/2000  87.50 %  accepted (bar 1748)"],
        );
        check(
            decided(&[1], 0, false),
            &["trial  3  - m00         1 ingredient   1750/2000  87.50 %  rejected (bar 1748)"],
        );
    }

    #[test]
    fn a_rule_that_asks_for_significance_is_told_with_what_it_found() {
        let Event::Decided(decided) = decided(&[0, 1, 2], 2, false) else { unreachable!() };
        check(
            Event::Decided(Decided { p: Some(0.412), ..decided }),
            &["trial  3  + m02         3 ingredients  1750/2000  87.50 %  rejected (bar 1748, p = 0.4120)"],
        );
    }

    #[test]
    fn a_verdict_that_was_certain_early_is_told_with_the_samples_that_it_took() {
        let counts = Counts { total: 320, correct: 100, ..Counts::default() };
        let judged = Some(Tally { kind: Some(Kind::Classes(counts)) });
        let Event::Decided(decided) = decided(&[0, 1, 2], 2, false) else { unreachable!() };
        check(
            Event::Decided(Decided { score: judged, early: true, ..decided }),
            &["trial  3  + m02         3 ingredients  after  320 of 2000  rejected (bar 1748)"],
        );
    }

    #[test]
    fn other_metrics_are_told_with_their_value() {
        let told = lines(narrator("macro-f1").tell(&decided(&[0, 1], 1, true)));
        let expected = "trial  3  + m01         2 ingredients  1750/2000  87.50 %  macro-f1 0.8750  accepted (bar 0.8740)";
        assert_eq!(told, [expected]);
        // Why it was rejected is in the fifth decimal.
        let Event::Decided(decided) = decided(&[0, 1], 1, false) else { unreachable!() };
        let near = Event::Decided(Decided { value: 0.87402, bar_value: 0.87404, ..decided });
        let expected = "trial  3  + m01         2 ingredients  1750/2000  87.50 %  macro-f1 0.87402  rejected (bar 0.87404)";
        assert_eq!(lines(narrator("macro-f1").tell(&near)), [expected]);
    }

    #[test]
    fn who_watches_is_told_by_the_metric_of_the_run() {
        let Event::Planned(plan) = planned() else { unreachable!() };
        let mut narrator = narrator("accuracy");
        narrator.tell(&Event::Planned(Planned { metric: "macro-f1".into(), ..plan }));
        let told = lines(narrator.tell(&decided(&[0, 1], 1, false)));
        let expected = "trial  3  + m01         2 ingredients  1750/2000  87.50 %  macro-f1 0.8750  rejected (bar 0.8740)";
        assert_eq!(told, [expected]);
    }

    #[test]
    fn scores_are_told_once() {
        check(scored("validation", &[1]), &["ranking  m01         985/2000  49.25 %"]);
        check(scored("validation", &[0, 1, 2, 3]), &["uniform   985/2000  49.25 %"]);
        // Told by the verdict.
        check(scored("validation", &[0, 1]), &[]);
        check(scored("rotated", &[0, 1]), &["test rotated: 2 ingredients   985/2000  49.25 %"]);
        check(scored("rotated", &[0, 1, 2, 3]), &["test rotated: uniform   985/2000  49.25 %"]);
        check(scored("rotated", &[1]), &["test rotated: m01   985/2000  49.25 %"]);
        check(scored("train", &[1]), &["train: m01   985/2000  49.25 %"]);
    }

    #[test]
    fn the_rest_is_told_plainly() {
        check(Event::Queued(Queued { ahead: 0 }), &[]);
        check(Event::Queued(Queued { ahead: 1 }), &["queued behind 1 run"]);
        check(
            Event::Workers(WorkersChanged { workers: 2, what: "worker 2 joined".into() }),
            &["worker 2 joined (2 workers)"],
        );
        check(Event::Note("odd".into()), &["note: odd"]);
    }

    #[test]
    fn workers_that_are_waited_for_are_told_of() {
        let mut narrator = narrator("accuracy");
        let changed = |workers, what: &str| Event::Workers(WorkersChanged { workers, what: what.into() });
        let Event::Planned(plan) = planned() else { panic!("not a plan") };
        narrator.tell(&Event::Planned(Planned { workers_min: 2, ..plan }));
        let told = lines(narrator.tell(&changed(1, "worker 1 joined")));
        assert_eq!(told, ["worker 1 joined (1 of 2 workers, for which the run waits)"]);
        assert_eq!(lines(narrator.tell(&changed(2, "worker 2 joined"))), ["worker 2 joined (2 workers)"]);
        narrator.tell(&Event::Loading(Loading { shards_resident: 0, shards: 13 }));
        assert_eq!(lines(narrator.tell(&changed(1, "worker 2 was lost"))), ["worker 2 was lost (1 worker)"]);
    }

    #[test]
    fn what_is_taken_back_is_told_again() {
        let mut narrator = narrator("accuracy");
        let again = decided(&[0, 1], 1, true);
        let told = lines(narrator.tell(&again));
        assert!(!told.is_empty() && narrator.tell(&again).is_empty());
        let retracted = |trials| Event::Retracted(Retracted { scores: 2, trials, steps: 0 });
        assert_eq!(
            lines(narrator.tell(&retracted(2))),
            ["taken back: 2 scores; 2 trials and 0 steps remain"]
        );
        assert_eq!(lines(narrator.tell(&again)), told);
    }

    #[test]
    fn gauges_count() {
        let mut narrator = narrator("accuracy");
        let told = narrator.tell(&Event::Loading(Loading { shards_resident: 3, shards: 13 }));
        assert_eq!(told, [Told::Gauge { phase: Phase::Loading, done: 3, total: 13 }]);
        let told = narrator.tell(&Event::Writing(Writing { files_written: 1, files: 1 }));
        assert_eq!(told, [Told::Gauge { phase: Phase::Writing, done: 1, total: 1 }]);
        narrator.tell(&scored("validation", &[0]));
        let told = narrator.tell(&scored("validation", &[1]));
        assert_eq!(told[1], Told::Gauge { phase: Phase::Ranking, done: 2, total: 4 });
        let told = narrator.tell(&decided(&[0, 1], 1, true));
        assert_eq!(told[1], Told::Gauge { phase: Phase::Trials, done: 3, total: 15 });
    }

    #[test]
    fn what_takes_long_is_told_with_how_far_it_is() {
        let told = |what: What| {
            let event = Event::Underway(Underway { what: what.into(), done: 3, of: 13 });
            let told = narrator("accuracy").tell(&event);
            told.into_iter()
                .map(|told| match told {
                    Told::Gauge { phase, done: 3, total: 13 } => format!("{} {}", phase.name(), phase.unit()),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(told(What::Products), ["measuring shards"]);
        assert_eq!(told(What::Scores), ["diagnosing soups"]);
        assert_eq!(told(What::Uses), ["comparing slices at most"]);
        assert_eq!(told(What::ReadingBack), ["checking files"]);
        assert!(told(What::Unspecified).is_empty());
    }

    #[test]
    fn malformed_events_are_not_told() {
        check(Event::Scored(Scored::default()), &[]);
        check(Event::Decided(Decided::default()), &[]);
        check(
            decided(&[77, 99], 99, true),
            &["trial  3  + #99         2 ingredients  1750/2000  87.50 %  accepted (bar 1748)"],
        );
    }
}
