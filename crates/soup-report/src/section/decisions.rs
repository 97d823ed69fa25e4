//! The recipe's decisions over time.

use maud::{Markup, html};
use soup_core::recipe::{Accept, RecipeKind, Verdict};
use soup_core::report::{TrialReport, chance, percent};

use crate::plot::frame::{Axis, Frame, Head, Shape, WIDTH, figure, line, mark, x_axis, x_marks, y_axis};
use crate::plot::label::short;
use crate::plot::number::{Unit, coordinate};
use crate::plot::scale::{Scale, Span};
use crate::section::section;
use crate::view::View;

/// Trials that are marked; of more, accepted ones and every so-manieth rejected one.
const MARKS_MAX: usize = 1500;
/// More rejected trials than this are small dots.
const CROWD: usize = 120;
/// Up to this many trials the axis shows candidates' names.
const NAMES_MAX: usize = 26;

/// Trials this many times further from the others than those are from each other are drawn at the edge.
const FAR: f64 = 3.0;
/// Up to this many trials the values of those outside the plot are printed.
const PRINTED_MAX: usize = 16;

/// A trial's number from 1, and the trial.
type Numbered<'a> = (usize, &'a TrialReport);

/// What a trial scored; what it could have reached at best, where its verdict was certain before all samples were judged.
fn reached(view: &View<'_>, trial: &TrialReport) -> Option<f64> {
    trial.score.as_ref().and_then(|score| view.value(score)).or(trial.bound)
}

/// Whether the verdict was certain before all samples were judged.
fn is_early(trial: &TrialReport) -> bool {
    trial.score.is_none()
}

/// Every trial against its bar.
pub(crate) fn render(view: &View<'_>) -> Markup {
    section("decisions", "Decisions", "", vec![trials(view), table(view)])
}

fn trials(view: &View<'_>) -> Markup {
    let trials = &view.report.trials;
    let lower_is_better = view.lower_is_better();
    let values: Vec<f64> = trials.iter().filter_map(|t| reached(view, t)).collect();
    let bars: Vec<f64> = trials.iter().map(|t| t.bar).filter(|b| b.is_finite()).collect();
    let all: Vec<f64> = values.iter().chain(&bars).copied().collect();
    let Some(span) = Span::robust(&all, !lower_is_better, FAR).map(|s| s.padded(0.08)) else {
        return html! {};
    };
    let named = trials.len() <= NAMES_MAX;
    let frame =
        Frame { height: 380.0, bottom: if named { 74.0 } else { 46.0 }, right: 24.0, ..Frame::usual() };
    let x = frame.x(Span { lo: 0.5, hi: trials.len() as f64 + 0.5 });
    let y = frame.y(span);
    let (name, unit) = view.metric();
    let shown = thinned(trials);
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit, title: &format!("{name} on {}", view.report.validation) }))
        @if named { (candidates(&frame, &x, trials)) } @else {
            (x_axis(&frame, &Axis { scale: x, unit: Unit::Count, title: "trial" }))
        }
        (passes(&frame, &x, trials))
        (line(steps(trials, &x, &y), "soup", "the bar: what a trial has to reach"))
        @for (number, trial) in &shown { (one(view, (*number, trial), &x, &y, span)) }
    };
    figure(&Head { title: "Trials", about: about(view, shown.len()) }, frame.height, &body)
}

fn about(view: &View<'_>, shown: usize) -> String {
    let trials = &view.report.trials;
    let accepted = trials.iter().filter(|t| t.verdict == Verdict::Accepted).count();
    let options = &view.report.options;
    let verb = if options.kind == RecipeKind::Pruned { "removes" } else { "adds" };
    let reached = match (options.accept, options.alpha) {
        (Accept::AtLeast, _) => "reached the bar (line)".to_owned(),
        (_, None) => "were better than the bar (line)".to_owned(),
        (_, Some(alpha)) => {
            format!("were better than the bar (line) by more than luck explains (p of at most {alpha})")
        }
    };
    let mut about = format!(
        "Each trial {verb} one ingredient: {accepted} of {} {reached} and became the soup (discs).",
        trials.len()
    );
    let early: Vec<&TrialReport> = trials.iter().filter(|t| is_early(t)).collect();
    if !early.is_empty() {
        let sum = |of: fn(&TrialReport) -> u64| early.iter().map(|t| of(t)).sum::<u64>();
        about += &format!(
            " {} were certain to be rejected after {} of their samples, and are drawn at what they could have reached.",
            early.len(),
            percent(sum(|t| t.evaluated), sum(|t| t.out_of))
        );
    }
    if shown < trials.len() {
        about += &format!(" {} rejected ones are not drawn.", trials.len() - shown);
    }
    about
}

fn thinned(trials: &[TrialReport]) -> Vec<Numbered<'_>> {
    let step = trials.len().div_ceil(MARKS_MAX).max(1);
    let keep =
        |(i, t): &Numbered<'_>| i.is_multiple_of(step) || (step < 100 && t.verdict == Verdict::Accepted);
    trials.iter().enumerate().filter(keep).map(|(i, t)| (i + 1, t)).collect()
}

/// The bar as steps, each as wide as its trial; a corner only where it changes.
fn steps<'a>(trials: &'a [TrialReport], x: &'a Scale, y: &'a Scale) -> Vec<Option<(f64, f64)>> {
    let mut points = Vec::new();
    let mut before = f64::NAN;
    for (i, trial) in trials.iter().enumerate().filter(|(_, t)| t.bar.is_finite()) {
        if trial.bar != before {
            let at = x.at(i as f64 + 0.5);
            if before.is_finite() {
                points.push(Some((at, y.at(before))));
            }
            points.push(Some((at, y.at(trial.bar))));
            before = trial.bar;
        }
    }
    if before.is_finite() {
        points.push(Some((x.to, y.at(before))));
    }
    points
}

fn one(view: &View<'_>, (number, trial): Numbered<'_>, x: &Scale, y: &Scale, span: Span) -> Markup {
    let Some(value) = reached(view, trial) else { return html! {} };
    let unit = view.metric().1;
    let accepted = trial.verdict == Verdict::Accepted;
    let verdict = if accepted { "accepted" } else { "rejected" };
    let most = match (is_early(trial), view.lower_is_better()) {
        (false, _) => "",
        (true, false) => "at most ",
        (true, true) => "at least ",
    };
    let after = match is_early(trial) {
        true => format!(" after {} of {} samples", trial.evaluated, trial.out_of),
        false => String::new(),
    };
    let p = trial.compared.map_or(String::new(), |compared| format!(" (p {})", chance(compared.p)));
    let tooltip = format!(
        "trial {number}, {}: {most}{} against {}{p}, {verdict}{after}",
        trial.candidate,
        unit.value(value),
        unit.value(trial.bar)
    );
    let (shape, class) = match (accepted, span.holds(value)) {
        (true, _) => (Shape::Disc, "soup"),
        (false, true) if view.report.trials.len() > CROWD => (Shape::Dot, "rejected"),
        (false, true) => (Shape::Cross, "rejected"),
        (false, false) => (Shape::Below, "rejected"),
    };
    let at = (x.at(number as f64), y.at(value));
    html! {
        (mark(shape, at, class, &tooltip))
        @if shape == Shape::Below && view.report.trials.len() <= PRINTED_MAX {
            // At two heights, since neighbours are closer than a value is wide.
            @let height = if number.is_multiple_of(2) { 10.0 } else { 24.0 };
            text.tick.mid x=(coordinate(at.0)) y=(coordinate(if y.span.share(value) < 0.5 { at.1 - height } else { at.1 + height + 8.0 })) {
                (unit.value(value))
            }
        }
    }
}

fn candidates(frame: &Frame, x: &Scale, trials: &[TrialReport]) -> Markup {
    let base = coordinate(frame.base() + 14.0);
    html! {
        (x_marks(frame, &[], ""))
        @for (i, trial) in trials.iter().enumerate() {
            @let at = coordinate(x.at(i as f64 + 1.0) + 3.0);
            text.tick.end x=(at) y=(base) transform={ "rotate(-45 " (at) " " (base) ")" } { (short(&trial.candidate, 10)) }
        }
        text.axis.end x=(coordinate(WIDTH - frame.right)) y=(coordinate(frame.height - 6.0)) { "candidate, in the order of trials" }
    }
}

/// A line where a new pass over the candidates begins.
fn passes(frame: &Frame, x: &Scale, trials: &[TrialReport]) -> Markup {
    let begins = trials.windows(2).enumerate().filter(|(_, w)| w[0].pass != w[1].pass);
    html! {
        @for (i, w) in begins.take(20) {
            @let at = x.at(i as f64 + 1.5);
            line.reference.other x1=(coordinate(at)) x2=(coordinate(at)) y1=(coordinate(frame.top))
                y2=(coordinate(frame.base())) {}
            text.tick x=(coordinate(at + 5.0)) y=(coordinate(frame.top + 10.0)) { "pass " (w[1].pass) }
        }
    }
}

/// Accepted trials listed in the table.
const LISTED_MAX: usize = 10;

/// The soup as it grew or shrank.
fn table(view: &View<'_>) -> Markup {
    let accepted: Vec<Numbered<'_>> =
        (1..).zip(&view.report.trials).filter(|(_, t)| t.verdict == Verdict::Accepted).collect();
    let unit = view.metric().1;
    let sign = if view.report.options.kind == RecipeKind::Pruned { "−" } else { "+" };
    html! {
        @if !accepted.is_empty() {
            figure {
                figcaption { h3 { "Accepted" } p { "The trials that became the soup." } }
                div.scroll { table {
                    thead { tr {
                        th.n scope="col" { "trial" } th scope="col" { "change" } th.n scope="col" { "ingredients" }
                        th.n scope="col" { "before" } th.n scope="col" { "after" }
                    } }
                    tbody { @for (number, trial) in accepted.iter().take(LISTED_MAX) { tr {
                        th.n scope="row" { (number) }
                        td { (sign) (short(&trial.candidate, 16)) }
                        td.n { (trial.ingredients.len()) }
                        td.n { (unit.value(trial.bar)) }
                        td.n { (reached(view, trial).map_or("-".to_owned(), |v| unit.value(v))) }
                    } } }
                } }
                @if accepted.len() > LISTED_MAX { p { "and " (accepted.len() - LISTED_MAX) " more" } }
            }
        }
    }
}
