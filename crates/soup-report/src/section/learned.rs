//! Learned weights, and how they were learned.

use maud::{Markup, html};
use soup_core::report::{Figures, LearnedReport, LearnedStep};

use crate::plot::bars::{Bar, bars};
use crate::plot::frame::{Axis, Frame, Head, figure, line, x_axis, y_axis};
use crate::plot::heat::{Map, heat_map};
use crate::plot::label::short;
use crate::plot::number::Unit;
use crate::plot::ramp::Ramp;
use crate::plot::scale::Span;
use crate::section::section;
use crate::view::View;

/// Points of a curve; of more steps, means over neighbours.
const POINTS_MAX: usize = 600;

/// Weights, loss and beta.
pub(crate) fn render(view: &View<'_>) -> Markup {
    let Some(learned) = &view.report.learned else { return html! {} };
    // A number has no temperature.
    let numbers = view.report.score.as_ref().is_some_and(Figures::of_numbers);
    let beta = match (numbers, learned.beta_folded) {
        (true, _) => String::new(),
        (false, true) => format!("; beta {:.4}, in the classifier", learned.beta),
        (false, false) => format!("; beta {:.4}", learned.beta),
    };
    let lead = format!("Learned from {} in {} steps{beta}.", learned.train, learned.steps.len());
    let loss = match numbers {
        true => "mean squared error of the mini-batch",
        false => "mean cross-entropy of the mini-batch, nats",
    };
    let mut parts = vec![weights(view, learned), curve(learned, "Loss", loss, |s| s.loss)];
    if !numbers {
        parts.push(curve(learned, "Beta", "what logits are multiplied by", |s| Some(s.beta)));
    }
    section("learned", "Learned weights", &lead, parts)
}

fn weights(view: &View<'_>, learned: &LearnedReport) -> Markup {
    let names = view.report.diagnosis.as_ref().map_or(&view.report.ingredients, |d| &d.ingredients);
    let name = |i: usize| names.get(i).cloned().unwrap_or_else(|| (i + 1).to_string());
    let all = learned.weights.iter().flatten().copied();
    let Some(span) = Span::of(all).map(Span::with_zero) else { return html! {} };
    if let [row] = learned.weights.as_slice() {
        let bar = |(i, &value): (usize, &f64)| Bar {
            name: name(i),
            value,
            class: if value < 0.0 { "negative" } else { "soup" },
        };
        let list: Vec<Bar> = row.iter().enumerate().filter(|(_, v)| v.is_finite()).map(bar).collect();
        let about = "One weight an ingredient, in pool order.".to_owned();
        return bars(&Head { title: "Weights", about }, &list, Unit::Number);
    }
    let most = span.hi.max(-span.lo);
    let (ramp, span) = if span.lo < 0.0 {
        (Ramp::Diverging, Span { lo: -most, hi: most })
    } else {
        (Ramp::Sequential, span)
    };
    let columns = learned.weights.iter().map(Vec::len).max().unwrap_or(0);
    let map = Map {
        rows: learned.groups.iter().map(|g| group(g)).collect(),
        columns: (0..columns).map(name).collect(),
        values: learned.weights.iter().map(|row| row.iter().map(|&w| Some(w)).collect()).collect(),
        unit: Unit::Number,
        print: printed,
        quantity: "weight",
        ramp,
        span,
    };
    let about = format!(
        "{} groups of tensors (rows), each with a weight for every ingredient.",
        learned.groups.len()
    );
    heat_map(Head { title: "Weights", about }, map)
}

/// A weight in a cell: two decimals without the zero before them, and no sign before nothing.
fn printed(weight: f64) -> String {
    let text = format!("{:.2}", weight.abs());
    let short = text.strip_prefix('0').unwrap_or(&text);
    if weight < 0.0 && text != "0.00" { format!("-{short}") } else { short.to_owned() }
}

/// A group's name without what all names of a network begin with.
fn group(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    short(&parts[parts.len().saturating_sub(2)..].join("."), 14)
}

fn curve(learned: &LearnedReport, title: &str, about: &str, of: fn(&LearnedStep) -> Option<f64>) -> Markup {
    let chunk = learned.steps.len().div_ceil(POINTS_MAX).max(1);
    let mean = |steps: &[LearnedStep]| {
        let values: Vec<f64> = steps.iter().filter_map(of).filter(|v| v.is_finite()).collect();
        let at = f64::from(steps.last().map_or(0, |s| s.step));
        (at, (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64))
    };
    let points: Vec<(f64, Option<f64>)> = learned.steps.chunks(chunk).map(mean).collect();
    let spans = (Span::of(points.iter().map(|p| p.0)), Span::of(points.iter().filter_map(|p| p.1)));
    let (Some(x), Some(y)) = spans else { return html! {} };
    let frame = Frame { height: 240.0, ..Frame::usual() };
    let (x, y) = (frame.x(x), frame.y(y.padded(0.08)));
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit: Unit::Number, title: about }))
        (x_axis(&frame, &Axis { scale: x, unit: Unit::Count, title: "step" }))
        (line(points.iter().map(|(s, v)| v.map(|v| (x.at(*s), y.at(v)))), "soup", ""))
    };
    let averaged = if chunk > 1 { format!("Means over {chunk} steps.") } else { String::new() };
    figure(&Head { title, about: averaged }, frame.height, &body)
}

#[cfg(test)]
mod tests {
    use super::printed;

    #[test]
    fn weights_fit_into_cells() {
        let texts = [0.254, -0.06, -0.001, 1.0, 10.0, -2.5].map(printed);
        assert_eq!(texts, [".25", "-.06", ".00", "1.00", "10.00", "-2.50"]);
    }
}
