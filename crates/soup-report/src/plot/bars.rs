//! Rows of bars with names, and numbered columns where there are too many.

use maud::{Markup, html};

use crate::plot::frame::{Axis, Frame, Head, WIDTH, figure, x_axis, y_axis};
use crate::plot::label::short;
use crate::plot::number::{Unit, coordinate};
use crate::plot::scale::Span;

/// Up to this many bars each has a row with its name; more become numbered columns.
pub(crate) const ROWS_MAX: usize = 40;
/// Height of a row.
const ROW: f64 = 20.0;
/// Characters of a name.
const NAME_MAX: usize = 16;

/// A bar.
pub(crate) struct Bar {
    /// Its name.
    pub(crate) name: String,
    /// How long it is, and negative to the left.
    pub(crate) value: f64,
    /// Class of its colour.
    pub(crate) class: &'static str,
}

/// A figure of bars from zero.
pub(crate) fn bars(head: &Head<'_>, bars: &[Bar], unit: Unit) -> Markup {
    let Some(span) = Span::of(bars.iter().map(|b| b.value)).map(Span::with_zero) else { return html! {} };
    if bars.len() > ROWS_MAX { columns(head, bars, unit, span) } else { rows(head, bars, unit, span) }
}

fn rows(head: &Head<'_>, bars: &[Bar], unit: Unit, span: Span) -> Markup {
    let longest = bars.iter().map(|b| b.name.chars().count().min(NAME_MAX)).max().unwrap_or(0);
    let left = 14.0 + 7.2 * longest as f64 + if span.lo < 0.0 { 56.0 } else { 0.0 };
    let height = ROW * bars.len() as f64 + 4.0;
    let frame = Frame { height, left, right: 64.0, top: 0.0, bottom: 4.0 };
    let scale = frame.x(span);
    let zero = scale.at(0.0);
    let body = html! {
        @for (i, bar) in bars.iter().enumerate() {
            @let y = i as f64 * ROW;
            @let at = scale.at(bar.value);
            @let negative = bar.value < 0.0;
            text.name x="0" y=(coordinate(y + 14.0)) { (short(&bar.name, NAME_MAX)) }
            rect class={ "fill " (bar.class) } x=(coordinate(at.min(zero))) y=(coordinate(y + 3.0))
                width=(coordinate((at - zero).abs().max(0.5))) height=(coordinate(ROW - 6.0)) rx="2" {
                title { (bar.name) ": " (unit.value(bar.value)) }
            }
            text class=(if negative { "tick end" } else { "tick" }) y=(coordinate(y + 14.0))
                x=(coordinate(if negative { at - 5.0 } else { at + 5.0 })) { (unit.value(bar.value)) }
        }
        line.base x1=(coordinate(zero)) x2=(coordinate(zero)) y1="0" y2=(coordinate(frame.base())) {}
    };
    figure(head, height, &body)
}

fn columns(head: &Head<'_>, bars: &[Bar], unit: Unit, span: Span) -> Markup {
    let frame = Frame { top: 12.0, ..Frame::usual() };
    let scale = frame.y(span);
    let step = (WIDTH - frame.left - frame.right) / bars.len() as f64;
    let zero = scale.at(0.0);
    // Bars are numbered from 1: cut names of a large pool look alike, and whole ones are in the tooltips.
    let numbers = frame.x(Span { lo: 0.5, hi: bars.len() as f64 + 0.5 });
    let place = |i: usize| frame.left + i as f64 * step;
    let body = html! {
        (y_axis(&frame, &Axis { scale, unit, title: "" }))
        @for (i, bar) in bars.iter().enumerate() {
            @let at = scale.at(bar.value);
            rect class={ "fill " (bar.class) } x=(coordinate(place(i))) y=(coordinate(at.min(zero)))
                width=(coordinate((step * 0.85).max(0.4))) height=(coordinate((at - zero).abs().max(0.5))) {
                title { (bar.name) ": " (unit.value(bar.value)) }
            }
        }
        line.base x1=(coordinate(frame.left)) x2=(coordinate(WIDTH - frame.right)) y1=(coordinate(zero))
            y2=(coordinate(zero)) {}
        (x_axis(&frame, &Axis { scale: numbers, unit: Unit::Count, title: "ingredient, in pool order" }))
    };
    figure(head, frame.height, &body)
}
