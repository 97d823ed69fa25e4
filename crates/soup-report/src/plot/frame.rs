//! The rectangle that is plotted in: figures with a title, axes with a grid, marks, lines.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::plot::number::{Unit, coordinate, ticks};
use crate::plot::scale::{Scale, Span};

/// Width of every figure. One width keeps text the same size in all of them, on wide pages (two in a row) and narrow ones.
pub(crate) const WIDTH: f64 = 480.0;

/// A rectangle for a plot within a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Height of the figure.
    pub(crate) height: f64,
    /// Space left of the plot.
    pub(crate) left: f64,
    /// Space right of the plot.
    pub(crate) right: f64,
    /// Space above the plot.
    pub(crate) top: f64,
    /// Space below the plot.
    pub(crate) bottom: f64,
}

impl Frame {
    /// The usual one: room for two axes with titles.
    pub(crate) fn usual() -> Frame {
        Frame { height: 320.0, left: 56.0, right: 18.0, top: 30.0, bottom: 46.0 }
    }

    /// Maps a span from left to right.
    pub(crate) fn x(&self, span: Span) -> Scale {
        Scale { span, from: self.left, to: WIDTH - self.right }
    }

    /// Maps a span from below upwards.
    pub(crate) fn y(&self, span: Span) -> Scale {
        Scale { span, from: self.base(), to: self.top }
    }

    /// Coordinate of the plot's lower edge.
    pub(crate) fn base(&self) -> f64 {
        self.height - self.bottom
    }
}

/// What a figure says of itself.
pub(crate) struct Head<'a> {
    /// A few words.
    pub(crate) title: &'a str,
    /// What is to be seen, one or two sentences.
    pub(crate) about: String,
}

/// A figure of one plot.
pub(crate) fn figure(head: &Head<'_>, height: f64, body: &Markup) -> Markup {
    let view = format!("0 0 {} {}", coordinate(WIDTH), coordinate(height));
    html! {
        figure {
            figcaption { h3 { (head.title) } @if !head.about.is_empty() { p { (head.about) } } }
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(view) role="img" aria-label=(head.title) {
                desc { (head.about) }
                (body)
            }
        }
    }
}

/// An axis.
pub(crate) struct Axis<'a> {
    /// Where values are.
    pub(crate) scale: Scale,
    /// How values are written.
    pub(crate) unit: Unit,
    /// What the values are.
    pub(crate) title: &'a str,
}

/// Grid lines and labels of the axis to the left, its title above the plot.
pub(crate) fn y_axis(frame: &Frame, axis: &Axis<'_>) -> Markup {
    let count = ((frame.base() - frame.top) / 46.0) as usize;
    let (left, right) = (coordinate(frame.left), coordinate(WIDTH - frame.right));
    html! {
        text.axis x="0" y=(coordinate(frame.top - 14.0)) { (axis.title) }
        @for (value, label) in ticks(axis.scale.span, count.max(2), axis.unit) {
            @let y = axis.scale.at(value);
            line.grid x1=(left) x2=(right) y1=(coordinate(y)) y2=(coordinate(y)) {}
            text.tick.end x=(coordinate(frame.left - 8.0)) y=(coordinate(y + 4.0)) { (label) }
        }
    }
}

/// Grid lines and labels of the axis below, its title under them at the right.
pub(crate) fn x_axis(frame: &Frame, axis: &Axis<'_>) -> Markup {
    let marks: Vec<(f64, String)> = ticks(axis.scale.span, 6, axis.unit)
        .into_iter()
        .map(|(value, label)| (axis.scale.at(value), label))
        .collect();
    x_marks(frame, &marks, axis.title)
}

/// As [`x_axis`], with marks at given coordinates.
pub(crate) fn x_marks(frame: &Frame, marks: &[(f64, String)], title: &str) -> Markup {
    let (top, base) = (coordinate(frame.top), coordinate(frame.base()));
    html! {
        @for (x, label) in marks {
            line.grid x1=(coordinate(*x)) x2=(coordinate(*x)) y1=(top) y2=(base) {}
            text.tick.mid x=(coordinate(*x)) y=(coordinate(frame.base() + 18.0)) { (label) }
        }
        line.base x1=(coordinate(frame.left)) x2=(coordinate(WIDTH - frame.right)) y1=(base) y2=(base) {}
        text.axis.end x=(coordinate(WIDTH - frame.right)) y=(coordinate(frame.base() + 38.0)) { (title) }
    }
}

/// Shapes of marks, so that colour never is the only difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A disc.
    Disc,
    /// A ring.
    Ring,
    /// A small disc, for many of them.
    Dot,
    /// A square on its corner.
    Diamond,
    /// An upright cross, turned.
    Cross,
    /// A star of five points.
    Star,
    /// A triangle pointing down: the value lies below the plot.
    Below,
}

/// A mark at (x, y) with a tooltip.
pub(crate) fn mark(shape: Shape, (x, y): (f64, f64), class: &str, tooltip: &str) -> Markup {
    let path = |d: String, class: String| html! { path class=(class) d=(d) { title { (tooltip) } } };
    let polygon = |offsets: &[(f64, f64)]| {
        let mut d = String::new();
        for (i, (dx, dy)) in offsets.iter().enumerate() {
            let letter = if i == 0 { 'M' } else { 'L' };
            let _ = write!(d, "{letter}{} {}", coordinate(x + dx), coordinate(y + dy));
        }
        d + "Z"
    };
    match shape {
        Shape::Disc | Shape::Ring => {
            let class = format!("{class} {}", if shape == Shape::Disc { "disc" } else { "ring" });
            html! { circle class=(class) cx=(coordinate(x)) cy=(coordinate(y)) r="5" { title { (tooltip) } } }
        }
        Shape::Dot => {
            html! {
                circle class={ "dot " (class) } cx=(coordinate(x)) cy=(coordinate(y)) r="2.5" { title { (tooltip) } }
            }
        }
        Shape::Diamond => {
            path(polygon(&[(0.0, -7.0), (7.0, 0.0), (0.0, 7.0), (-7.0, 0.0)]), format!("{class} disc"))
        }
        Shape::Below => path(polygon(&[(-5.0, -4.0), (5.0, -4.0), (0.0, 4.0)]), format!("{class} disc")),
        Shape::Star => {
            let corner = |i: usize| {
                let (turn, r) =
                    (i as f64 * std::f64::consts::PI / 5.0, if i.is_multiple_of(2) { 10.0 } else { 4.3 });
                (r * turn.sin(), -r * turn.cos())
            };
            path(polygon(&(0..10).map(corner).collect::<Vec<_>>()), format!("{class} disc"))
        }
        Shape::Cross => {
            let (l, r, t, b) = (x - 4.0, x + 4.0, y - 4.0, y + 4.0);
            let [l, r, t, b] = [l, r, t, b].map(coordinate);
            path(format!("M{l} {t}L{r} {b}M{l} {b}L{r} {t}"), format!("{class} cross"))
        }
    }
}

/// A line through points, with gaps where there is none.
pub(crate) fn line(
    points: impl IntoIterator<Item = Option<(f64, f64)>>,
    class: &str,
    tooltip: &str,
) -> Markup {
    let mut d = String::new();
    let mut down = false;
    for point in points {
        if let Some((x, y)) = point {
            let _ = write!(d, "{}{} {}", if down { 'L' } else { 'M' }, coordinate(x), coordinate(y));
        }
        down = point.is_some();
    }
    html! {
        @if !d.is_empty() {
            path class={ "line " (class) } d=(d) { @if !tooltip.is_empty() { title { (tooltip) } } }
        }
    }
}

/// A dashed line across the plot at a value, named at its right end.
pub(crate) fn reference(frame: &Frame, y: f64, class: &str, label: &str) -> Markup {
    let (x1, x2) = (coordinate(frame.left), coordinate(WIDTH - frame.right));
    html! {
        line class={ "reference " (class) } x1=(x1) x2=(x2) y1=(coordinate(y)) y2=(coordinate(y)) {}
        text class={ "label end ink " (class) } x=(x2) y=(coordinate(y - 6.0)) { (label) }
    }
}
