//! What else could be made of the ingredients: means of the best n, and alternatives that need several forward passes.

use maud::{Markup, html};
use soup_core::diagnosis::{Alternative, Marginal};

use crate::plot::frame::{
    Axis, Frame, Head, Shape, WIDTH, figure, line, mark, reference, x_axis, x_marks, y_axis,
};
use crate::plot::label::{short, spread};
use crate::plot::number::{Unit, coordinate};
use crate::plot::scale::Span;
use crate::section::section;
use crate::view::{View, plain};

/// Rows of the table, and marks of the figure.
const ALTERNATIVES_MAX: usize = 24;
/// Up to this many points of the utility are marked and have tooltips.
const MARKS_MAX: usize = 1000;

/// Marginal utility and alternatives.
pub(crate) fn render(view: &View<'_>) -> Markup {
    let Some(diagnosis) = &view.report.diagnosis else { return html! {} };
    let few = &diagnosis.alternatives[..diagnosis.alternatives.len().min(ALTERNATIVES_MAX)];
    let parts = vec![marginal(view, &diagnosis.marginal_utility), costs(view, few), table(view, few)];
    section("uses", "Other uses of the same ingredients", "", parts)
}

fn marginal(view: &View<'_>, points: &[Marginal]) -> Markup {
    let (name, unit) = view.metric();
    let soup = view.report.score.as_ref().and_then(|s| view.value(s));
    let values: Vec<f64> = points.iter().filter_map(|p| view.value(&p.score)).collect();
    let Some(y) = Span::of(values.iter().copied().chain(soup)).filter(|_| !values.is_empty()) else {
        return html! {};
    };
    let frame = Frame::usual();
    let most = points.iter().map(|p| p.size).max().unwrap_or(1);
    let x = frame.x(Span { lo: 0.5, hi: f64::from(most) + 0.5 });
    let y = frame.y(y.padded(0.1));
    let place = |p: &Marginal| view.value(&p.score).map(|v| (x.at(f64::from(p.size)), y.at(v)));
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit, title: &format!("{name} on {}", view.report.validation) }))
        (x_axis(&frame, &Axis { scale: x, unit: Unit::Count, title: "ingredients in the mean" }))
        @if let Some(soup) = soup { (reference(&frame, y.at(soup), "soup", &format!("{} soup", view.report.recipe))) }
        (line(points.iter().map(place), "uniform", ""))
        @for point in points.iter().take(MARKS_MAX) {
            @if let (Some((cx, cy)), Some(value)) = (place(point), view.value(&point.score)) {
                circle.dot.uniform cx=(coordinate(cx)) cy=(coordinate(cy)) r=(if points.len() > 60 { "2" } else { "4" }) {
                    title { (point.size) " ingredients, + " (point.ingredient) ": " (unit.value(value)) }
                }
            }
        }
    };
    let about =
        "The mean of the best one, the best two, …, of all: what each further ingredient adds or takes.";
    figure(&Head { title: "Marginal utility", about: about.to_owned() }, frame.height, &body)
}

/// Whether this is the soup that the run is about.
fn is_soup(view: &View<'_>, other: &Alternative) -> bool {
    other.forward_passes == 1
        && other.ingredients == view.report.ingredients
        && Some(&other.score) == view.report.score.as_ref()
}

/// An alternative, the logarithm of its forward passes, its accuracy.
type Point<'a> = (&'a Alternative, f64, f64);

/// Accuracy against the forward passes that one prediction takes, on an axis where doubling is a step.
fn costs(view: &View<'_>, alternatives: &[Alternative]) -> Markup {
    let points: Vec<Point<'_>> = alternatives
        .iter()
        .filter_map(|a| Some((a, f64::from(a.forward_passes.max(1)).log2(), a.score.accuracy()?)))
        .collect();
    let spans = (Span::of(points.iter().map(|p| p.1)), Span::of(points.iter().map(|p| p.2)));
    let (Some(x), Some(y)) = spans else { return html! {} };
    let frame = Frame { height: 340.0, ..Frame::usual() };
    let (x, y) = (frame.x(Span { lo: -0.25, hi: x.hi.max(1.0) + 0.25 }), frame.y(y.padded(0.1)));
    let doublings = x.span.hi.floor().clamp(1.0, 32.0) as u32;
    let marks: Vec<(f64, String)> = (0..=doublings)
        .step_by(doublings.div_ceil(8).max(1) as usize)
        .map(|p| (x.at(f64::from(p)), (1u64 << p).to_string()))
        .collect();
    // Labels of the left half go to the right of their marks, the others to the left; the two columns do not meet.
    let (left, right): (Vec<Point<'_>>, Vec<Point<'_>>) =
        points.into_iter().partition(|p| x.span.share(p.1) < 0.5);
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit: Unit::Percent, title: &format!("accuracy on {}", view.report.validation) }))
        (x_marks(&frame, &marks, "forward passes for one prediction"))
        @for (side, end) in [(left, false), (right, true)] {
            @let wanted: Vec<f64> = side.iter().map(|p| y.at(p.2) + 4.0).collect();
            @let placed = spread(&wanted, 15.0, frame.top + 8.0, frame.base() - 4.0);
            @for (&(other, passes, value), label) in side.iter().zip(placed) {
                @let (shape, class) = match (is_soup(view, other), other.forward_passes) {
                    (true, _) => (Shape::Star, "soup"),
                    (false, 1) => (Shape::Disc, "uniform"),
                    _ => (Shape::Cross, "alternative"),
                };
                @let tooltip = format!("{}: {} for {} forward passes", other.name, Unit::Percent.value(value),
                    other.forward_passes);
                (mark(shape, (x.at(passes), y.at(value)), class, &tooltip))
                text class={ "label ink " (class) @if end { " end" } }
                    x=(coordinate(if end { x.at(passes) - 13.0 } else { x.at(passes) + 13.0 })) y=(coordinate(label)) {
                    (short(plain(&other.name), 26))
                }
            }
        }
        line.base x1=(coordinate(frame.left)) x2=(coordinate(WIDTH - frame.right)) y1=(coordinate(frame.base()))
            y2=(coordinate(frame.base())) {}
    };
    let about = "A soup costs one forward pass, an ensemble one for each of its ingredients.";
    figure(&Head { title: "Accuracy against cost", about: about.to_owned() }, frame.height, &body)
}

fn table(view: &View<'_>, alternatives: &[Alternative]) -> Markup {
    html! {
        @if !alternatives.is_empty() {
            figure.wide {
                figcaption { h3 { "Alternatives" } p { "The same ingredients, used in other ways." } }
                div.scroll { table {
                    thead { tr {
                        th scope="col" { "use" } th.n scope="col" { "ingredients" } th.n scope="col" { "forward passes" }
                        th.n scope="col" { (view.report.validation) }
                        @for test in &view.tests { th.n scope="col" { (test) } }
                    } }
                    tbody { @for other in alternatives { tr class=(if is_soup(view, other) { "soup" } else { "" }) {
                        th scope="row" { (other.name) }
                        td.n { (other.ingredients.len()) }
                        td.n { (other.forward_passes) }
                        td.n { (other.score.headline()) }
                        @for test in &view.tests {
                            td.n { (other.test.get(*test).map_or("-".to_owned(), |f| f.headline())) }
                        }
                    } } }
                } }
            }
        }
    }
}
