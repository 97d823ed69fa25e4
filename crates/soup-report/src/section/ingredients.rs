//! Every ingredient alone, beside the soups.

use maud::{Markup, html};
use soup_core::report::Figures;

use crate::plot::bars::ROWS_MAX;
use crate::plot::frame::{Axis, Frame, Head, Shape, WIDTH, figure, mark, x_axis, y_axis};
use crate::plot::label::{every, short, spread};
use crate::plot::number::{Unit, coordinate};
use crate::plot::scale::{Scale, Span};
use crate::section::section;
use crate::view::{View, plain};

/// Height of a row of the ranking.
const ROW: f64 = 20.0;
/// Characters of a name.
const NAME_MAX: usize = 16;
/// Models this many times further from the others than those are from each other are drawn at the edge.
const FAR: f64 = 10.0;
/// More ingredients than this are small dots.
const CROWD: usize = 80;
/// Names in the margin of the scatter plot.
const MARGIN_NAMES_MAX: usize = 12;
/// Chosen ingredients that are named in a long ranking.
const NAMED_MAX: usize = 12;

/// Validation against the test sets, and the ranking.
pub(crate) fn render(view: &View<'_>) -> Markup {
    section("ingredients", "Ingredients", "", vec![scatter(view), ranking(view)])
}

/// A model in the scatter plot.
struct Point {
    name: String,
    validation: f64,
    test: f64,
    shape: Shape,
    class: &'static str,
    named: bool,
}

/// All models of which validation and every test set are known; the important ones last, so that they are on top.
fn points(view: &View<'_>) -> Vec<Point> {
    let report = view.report;
    let mut points = Vec::new();
    let mut add =
        |name: String, score: &Figures, test, (shape, class): (Shape, &'static str), named: bool| {
            if let (Some(validation), Some(test)) = (score.accuracy(), view.mean_test(test)) {
                points.push(Point { name, validation, test, shape, class, named });
            }
        };
    for one in &report.ranking {
        let chosen = view.chosen.len() < view.pool && view.chosen.contains(one.ingredient.as_str());
        let look = match (chosen, report.ranking.len() > CROWD) {
            (true, _) => (Shape::Disc, "soup"),
            (false, false) => (Shape::Ring, "other"),
            (false, true) => (Shape::Dot, "other"),
        };
        add(one.ingredient.clone(), &one.score, &one.test, look, false);
    }
    for other in report.diagnosis.iter().flat_map(|d| &d.alternatives).filter(|a| a.forward_passes > 1) {
        add(plain(&other.name).to_owned(), &other.score, &other.test, (Shape::Cross, "alternative"), true);
    }
    if let Some(uniform) = report.baselines.uniform.as_ref().filter(|_| report.recipe != "uniform") {
        add("uniform".to_owned(), &uniform.score, &uniform.test, (Shape::Diamond, "uniform"), true);
    }
    if let Some(best) = &report.baselines.best_single {
        let name = format!("best, {}", short(&best.ingredients.concat(), 8));
        add(name, &best.score, &best.test, (Shape::Disc, "best"), true);
    }
    if let Some(score) = &report.score {
        add(format!("{} soup", report.recipe), score, &report.test, (Shape::Star, "soup"), true);
    }
    points
}

/// The paper's first figure: validation against test sets that it was not chosen on.
fn scatter(view: &View<'_>) -> Markup {
    let points = points(view);
    let span = |of: fn(&Point) -> f64| {
        Span::robust(&points.iter().map(of).collect::<Vec<f64>>(), true, FAR).map(|s| s.padded(0.06))
    };
    let (Some(x), Some(y)) = (span(|p| p.validation), span(|p| p.test)) else { return html! {} };
    let frame = Frame { height: 380.0, right: 140.0, ..Frame::usual() };
    let (x, y) = (frame.x(x), frame.y(y));
    let outside = |p: &Point| !(x.span.holds(p.validation) && y.span.holds(p.test));
    let mut about = match points.iter().any(|p| matches!(p.shape, Shape::Ring | Shape::Dot)) {
        true => "Every grey mark is one ingredient, blue discs are the chosen ones. Up and to the right is better."
            .to_owned(),
        false => {
            "Up and to the right is better. Single ingredients were not scored on the test sets.".to_owned()
        }
    };
    if points.iter().any(outside) {
        about += " Triangles at an edge are far outside.";
    }
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit: Unit::Percent, title: &view.mean_test_name() }))
        (x_axis(&frame, &Axis { scale: x, unit: Unit::Percent,
            title: &format!("accuracy on {}", view.report.validation) }))
        (point_names(&points, &frame, &x, &y))
        @for p in &points {
            @let tooltip = format!("{}: {} on {}, {} on tests", p.name, Unit::Percent.value(p.validation),
                view.report.validation, Unit::Percent.value(p.test));
            @let shape = if outside(p) { Shape::Below } else { p.shape };
            (mark(shape, (x.at(p.validation), y.at(p.test)), p.class, &tooltip))
        }
    };
    figure(&Head { title: "Validation and test sets", about }, frame.height, &body)
}

/// Names of the important points: beside those in the left half, in the margin with a thin line for the others.
fn point_names(points: &[Point], frame: &Frame, x: &Scale, y: &Scale) -> Markup {
    let (left, mut right): (Vec<&Point>, Vec<&Point>) =
        points.iter().filter(|p| p.named).partition(|p| x.span.share(p.validation) < 0.5);
    // Among the few that are named the last are the important ones.
    right.drain(..right.len().saturating_sub(MARGIN_NAMES_MAX));
    let wanted: Vec<f64> = right.iter().map(|p| y.at(p.test) + 4.0).collect();
    let placed = spread(&wanted, 16.0, frame.top + 6.0, frame.base() - 4.0);
    html! {
        @for p in left {
            text class={ "label ink " (p.class) } x=(coordinate(x.at(p.validation) + 12.0)) y=(coordinate(y.at(p.test) + 4.0)) {
                (short(&p.name, 24))
            }
        }
        @for (p, label) in right.into_iter().zip(placed) {
            line.leader x1=(coordinate(x.at(p.validation))) y1=(coordinate(y.at(p.test))) x2=(coordinate(x.to + 8.0))
                y2=(coordinate(label - 4.0)) {}
            text class={ "label ink " (p.class) } x=(coordinate(x.to + 11.0)) y=(coordinate(label)) { (short(&p.name, 14)) }
        }
    }
}

/// An ingredient's name, its value, whether it is in the soup.
type Row<'a> = (&'a str, f64, bool);

/// All ingredients by their score, best first.
fn ranking(view: &View<'_>) -> Markup {
    let partial = view.report.learned.is_none() && view.chosen.len() < view.pool;
    let mut rows: Vec<Row<'_>> = view
        .report
        .ranking
        .iter()
        .filter_map(|r| {
            let name = r.ingredient.as_str();
            Some((name, view.value(&r.score)?, partial && view.chosen.contains(name)))
        })
        .collect();
    // Stable: ties stay in pool order.
    rows.sort_by(|a, b| match view.lower_is_better() {
        true => a.1.total_cmp(&b.1),
        false => b.1.total_cmp(&a.1),
    });
    let lines: Vec<(&str, f64)> = [
        view.report.score.as_ref().map(|s| ("soup", s)),
        view.report.baselines.uniform.as_ref().map(|u| ("uniform", &u.score)),
    ]
    .into_iter()
    .flatten()
    .filter_map(|(class, s)| Some((class, view.value(s)?)))
    .collect();
    let span = Span::of(rows.iter().map(|r| r.1).chain(lines.iter().map(|l| l.1))).map(|s| s.padded(0.04));
    let Some(span) = span.filter(|_| !rows.is_empty()) else { return html! {} };
    let about = match partial {
        true => "Each alone, best first; filled: chosen. Lines: the soup, and the mean of all.",
        false => "Each alone, best first. Lines: the soup, and the mean of all.",
    };
    let head = Head { title: "Ranking on validation", about: about.to_owned() };
    if rows.len() > ROWS_MAX {
        long(view, &head, &rows, &lines, span)
    } else {
        short_list(view, &head, &rows, &lines, span)
    }
}

/// What ingredients are ranked by: its title, and how it is written.
fn axis(view: &View<'_>) -> (String, Unit) {
    let (name, unit) = view.metric();
    (format!("{name} on {}", view.report.validation), unit)
}

fn label(view: &View<'_>, class: &str) -> String {
    if class == "soup" { format!("{} soup", view.report.recipe) } else { class.to_owned() }
}

fn short_list(
    view: &View<'_>,
    head: &Head<'_>,
    rows: &[Row<'_>],
    lines: &[(&str, f64)],
    span: Span,
) -> Markup {
    let longest = rows.iter().map(|r| r.0.chars().count().min(NAME_MAX)).max().unwrap_or(0);
    let height = ROW * rows.len() as f64 + 84.0;
    let frame = Frame { height, left: 16.0 + 7.2 * longest as f64, right: 18.0, top: 32.0, bottom: 46.0 };
    let x = frame.x(span);
    let (title, unit) = axis(view);
    let body = html! {
        (x_axis(&frame, &Axis { scale: x, unit, title: &title }))
        @for (i, (class, value)) in lines.iter().enumerate() {
            @let at = x.at(*value);
            line class={ "reference " (class) } x1=(coordinate(at)) x2=(coordinate(at))
                y1=(coordinate(frame.top - 6.0 - 14.0 * (i % 2) as f64)) y2=(coordinate(frame.base())) {}
            text class={ "label ink " (class) @if at > WIDTH / 2.0 { " end" } }
                x=(coordinate(if at > WIDTH / 2.0 { at - 5.0 } else { at + 5.0 }))
                y=(coordinate(frame.top - 6.0 - 14.0 * (i % 2) as f64)) { (label(view, class)) }
        }
        @for (i, (name, value, chosen)) in rows.iter().enumerate() {
            @let y = frame.top + (i as f64 + 0.5) * ROW;
            line.stem x1=(coordinate(frame.left)) x2=(coordinate(x.at(*value))) y1=(coordinate(y)) y2=(coordinate(y)) {}
            text class=(if *chosen { "name strong" } else { "name" }) x="0" y=(coordinate(y + 4.0)) {
                (short(name, NAME_MAX))
            }
            (mark(if *chosen { Shape::Disc } else { Shape::Ring }, (x.at(*value), y),
                if *chosen { "soup" } else { "other" }, &format!("{name}: {}", unit.value(*value))))
        }
    };
    figure(head, height, &body)
}

fn long(view: &View<'_>, head: &Head<'_>, rows: &[Row<'_>], lines: &[(&str, f64)], span: Span) -> Markup {
    let frame = Frame { height: 380.0, ..Frame::usual() };
    let y = frame.y(span);
    let x = frame.x(Span { lo: 0.0, hi: rows.len() as f64 + 1.0 });
    let chosen: Vec<(usize, &Row<'_>)> = rows.iter().enumerate().filter(|(_, r)| r.2).collect();
    let step = every(chosen.len(), NAMED_MAX);
    let (title, unit) = axis(view);
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit, title: &title }))
        (x_axis(&frame, &Axis { scale: x, unit: Unit::Count, title: "rank" }))
        @for (i, (name, value, _)) in rows.iter().enumerate().filter(|(_, r)| !r.2) {
            circle.dot.other cx=(coordinate(x.at(i as f64 + 1.0))) cy=(coordinate(y.at(*value))) r="2.5" {
                title { (name) ": " (unit.value(*value)) }
            }
        }
        @for (class, value) in lines {
            (crate::plot::frame::reference(&frame, y.at(*value), class, &label(view, class)))
        }
        @for (i, (name, value, _)) in &chosen {
            (mark(Shape::Disc, (x.at(*i as f64 + 1.0), y.at(*value)), "soup",
                &format!("{name}: {}", unit.value(*value))))
        }
        @for (i, (name, value, _)) in chosen.iter().step_by(step) {
            @let (at, base) = (coordinate(x.at(*i as f64 + 1.0)), coordinate(y.at(*value) + 16.0));
            text.tick x=(at) y=(base) transform={ "rotate(40 " (at) " " (base) ")" } { (short(name, NAME_MAX)) }
        }
    };
    figure(head, frame.height, &body)
}
