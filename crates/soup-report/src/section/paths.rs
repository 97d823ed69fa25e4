//! What lies between ingredients: lines between two of them, and a plane through three.

use maud::{Markup, html};
use soup_core::diagnosis::{Curve, CurvePoint, Plane};
use soup_core::report::Figures;

use crate::plot::frame::{Axis, Frame, Head, Shape, WIDTH, figure, line, mark, x_axis, x_marks, y_axis};
use crate::plot::heat::{Map, key};
use crate::plot::label::{short, spread};
use crate::plot::number::{Unit, coordinate};
use crate::plot::ramp::Ramp;
use crate::plot::scale::{Scale, Span};
use crate::section::section;
use crate::view::View;

/// Curves that are drawn: as many as there are colours.
const CURVES_MAX: usize = 7;
/// Grid points of a plane that are drawn.
const GRID_MAX: usize = 10_000;
/// Characters of a name.
const NAME_MAX: usize = 9;

/// Interpolations and the plane.
pub(crate) fn render(view: &View<'_>) -> Markup {
    let Some(diagnosis) = &view.report.diagnosis else { return html! {} };
    let curves = &diagnosis.interpolation[..diagnosis.interpolation.len().min(CURVES_MAX)];
    let left_out = diagnosis.interpolation.len() - curves.len();
    let lead = match left_out {
        0 => String::new(),
        n => format!("{n} further interpolations are not drawn."),
    };
    let parts = vec![
        interpolation(view, curves, "Accuracy between two ingredients", Unit::Percent, |p| {
            p.score.accuracy()
        }),
        interpolation(view, curves, "Loss between two ingredients", Unit::Number, |p| p.score.loss()),
        diagnosis.plane.as_ref().map(|p| plane(view, p)).unwrap_or_default(),
    ];
    section("between", "Between ingredients", &lead, parts)
}

fn interpolation(
    view: &View<'_>,
    curves: &[Curve],
    title: &str,
    unit: Unit,
    of: fn(&CurvePoint) -> Option<f64>,
) -> Markup {
    let all = || curves.iter().flat_map(|c| &c.points);
    let spans = (Span::of(all().map(|p| p.t)), Span::of(all().filter_map(of)));
    let (Some(x), Some(y)) = spans else { return html! {} };
    let frame = Frame { right: 120.0, ..Frame::usual() };
    let (x, y) = (frame.x(x), frame.y(y.padded(0.06)));
    let place = |p: &CurvePoint| of(p).filter(|v| v.is_finite()).map(|v| (x.at(p.t), y.at(v)));
    let ends: Vec<f64> = curves
        .iter()
        .map(|c| c.points.iter().rev().find_map(place).map_or(frame.base(), |p| p.1 + 4.0))
        .collect();
    let labels = spread(&ends, 15.0, frame.top + 6.0, frame.base());
    let quantity = if unit == Unit::Percent { "accuracy" } else { "loss" };
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit, title: &format!("{quantity} on {}", view.report.validation) }))
        (x_axis(&frame, &Axis { scale: x, unit: Unit::Number, title: "t" }))
        @for (i, curve) in curves.iter().enumerate() {
            @let class = format!("c{i}");
            (line(curve.points.iter().map(place), &class, &format!("{} to {}", curve.from, curve.to)))
            @for point in &curve.points {
                @if let (Some((cx, cy)), Some(value)) = (place(point), of(point)) {
                    circle class={ "dot " (class) } cx=(coordinate(cx)) cy=(coordinate(cy)) r="3.5" {
                        title { (curve.from) " to " (curve.to) ", t = " (format!("{:.2}", point.t)) ": " (unit.value(value)) }
                    }
                }
            }
        }
        @for (i, (curve, label)) in curves.iter().zip(labels).enumerate() {
            text class={ "label ink c" (i) } x=(coordinate(x.to + 9.0)) y=(coordinate(label)) {
                (short(&curve.from, NAME_MAX)) " → " (short(&curve.to, NAME_MAX))
            }
        }
    };
    let about = match unit {
        Unit::Percent => {
            "Soups (1 − t) of the first and t of the second. A line that sags: a barrier between them."
        }
        _ => "The same soups: a bump is a barrier.",
    };
    figure(&Head { title, about: about.to_owned() }, frame.height, &body)
}

/// Edges of the cells around grid coordinates: halfway between neighbours.
fn edges(at: &[f64]) -> Vec<f64> {
    let n = at.len();
    let step = |i: usize| if n < 2 { 1.0 } else { at[(i + 1).min(n - 1)] - at[(i + 1).min(n - 1) - 1] };
    let mut edges = Vec::with_capacity(n + 1);
    for (i, &v) in at.iter().enumerate() {
        edges.push(if i == 0 { v - step(0) / 2.0 } else { (v + at[i - 1]) / 2.0 });
    }
    edges.extend(at.last().map(|v| v + step(n.saturating_sub(2)) / 2.0));
    edges
}

/// A plane with both axes at one scale, as in parameter space.
fn plane(view: &View<'_>, plane: &Plane) -> Markup {
    let all = plane.scores.iter().flatten().flatten();
    let rising = |at: &[f64]| at.is_sorted() && at.iter().all(|v| v.is_finite());
    let sound = rising(&plane.x) && rising(&plane.y) && plane.corners.iter().flatten().all(|v| v.is_finite());
    let (Some(span), true) = (Span::of(all.filter_map(Figures::accuracy)), sound) else { return html! {} };
    let (ex, ey) = (edges(&plane.x), edges(&plane.y));
    let spans = (Span::of(ex.iter().copied()), Span::of(ey.iter().copied()));
    let (true, (Some(sx), Some(sy))) = (plane.x.len() * plane.y.len() <= GRID_MAX, spans) else {
        return html! {};
    };
    let (left, right, top) = (44.0, 14.0, 52.0);
    let per_unit = ((WIDTH - left - right) / (sx.hi - sx.lo)).min(420.0 / (sy.hi - sy.lo));
    let (width, height) = (per_unit * (sx.hi - sx.lo), per_unit * (sy.hi - sy.lo));
    let frame = Frame { height: top + height + 46.0, left, right: WIDTH - left - width, top, bottom: 46.0 };
    let (x, y) = (frame.x(sx), frame.y(sy));
    let map = Map {
        rows: Vec::new(),
        columns: Vec::new(),
        values: Vec::new(),
        unit: Unit::Percent,
        print: |_| String::new(),
        quantity: "accuracy",
        ramp: Ramp::Sequential,
        span,
    };
    let body = html! {
        (key(&map, left))
        (y_axis(&frame, &Axis { scale: y, unit: Unit::Number, title: "distance" }))
        (x_axis(&frame, &Axis { scale: x, unit: Unit::Number, title: "distance in parameter space" }))
        @for (row, (scores, ys)) in plane.scores.iter().zip(ey.windows(2)).enumerate() {
            @for (column, (score, xs)) in scores.iter().zip(ex.windows(2)).enumerate() {
                @if let Some(value) = score.as_ref().and_then(Figures::accuracy) {
                    rect x=(coordinate(x.at(xs[0]))) y=(coordinate(y.at(ys[1])))
                        width=(coordinate(x.at(xs[1]) - x.at(xs[0]) + 0.3)) height=(coordinate(y.at(ys[0]) - y.at(ys[1]) + 0.3))
                        fill=(Ramp::Sequential.colour(Ramp::level(span.share(value)))) {
                        title { (format!("({:.2}, {:.2}): ", plane.x[column], plane.y[row])) (Unit::Percent.value(value)) }
                    }
                }
            }
        }
        (corners(plane, &x, &y))
    };
    let about = format!(
        "Accuracy on {} in the plane through three ingredients; one step is the same distance in both directions.",
        view.report.validation
    );
    figure(&Head { title: "A plane through three ingredients", about }, frame.height, &body)
}

fn corners(plane: &Plane, x: &Scale, y: &Scale) -> Markup {
    let places: Vec<(f64, f64)> = plane.corners.iter().map(|c| (x.at(c[0]), y.at(c[1]))).collect();
    let closed = places.iter().chain(places.first()).map(|&p| Some(p));
    html! {
        (line(closed, "triangle", ""))
        @for (&(cx, cy), name) in places.iter().zip(&plane.ingredients) {
            (mark(Shape::Disc, (cx, cy), "corner", name))
            @let right = cx > WIDTH / 2.0;
            text class=(if right { "on end" } else { "on" }) x=(coordinate(if right { cx - 9.0 } else { cx + 9.0 }))
                y=(coordinate(cy - 8.0)) { (short(name, 14)) }
        }
        (x_marks(&Frame { height: y.from, left: x.from, right: WIDTH - x.to, top: y.to, bottom: 0.0 }, &[], ""))
    }
}

#[cfg(test)]
mod tests {
    use super::edges;

    #[test]
    fn cells_meet_halfway() {
        assert_eq!(edges(&[0.0, 1.0, 3.0]), [-0.5, 0.5, 2.0, 4.0]);
        assert_eq!(edges(&[2.0]), [1.5, 2.5]);
        assert!(edges(&[]).is_empty());
    }
}
