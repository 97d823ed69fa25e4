//! Where the ingredients lie: the verdict on a shared initialisation, angles, norms, layers, duplicates, outliers.

use maud::{Markup, html};
use soup_core::diagnosis::{Diagnosis, SharedInitVerdict};

use crate::plot::bars::{Bar, bars};
use crate::plot::frame::{Axis, Frame, Head, Shape, figure, line, mark, x_marks, y_axis};
use crate::plot::heat::{Map, heat_map};
use crate::plot::label::{every, short};
use crate::plot::number::Unit;
use crate::plot::ramp::Ramp;
use crate::plot::scale::Span;
use crate::section::section;
use crate::view::View;

/// Entries of a list of duplicates or outliers.
const LISTED_MAX: usize = 50;

/// The pool's geometry.
pub(crate) fn render(view: &View<'_>) -> Markup {
    let Some(diagnosis) = &view.report.diagnosis else { return html! {} };
    let lead = match &diagnosis.base {
        Some(base) => format!("Deltas are measured from {base}."),
        None => "Deltas are measured from the mean of the pool.".to_owned(),
    };
    let parts = vec![banner(diagnosis), angles(diagnosis), norms(view, diagnosis)]
        .into_iter()
        .chain(layers(diagnosis))
        .chain([found(diagnosis)])
        .collect();
    section("geometry", "Geometry of the pool", &lead, parts)
}

/// The verdict, loud where averaging destroys the models.
fn banner(diagnosis: &Diagnosis) -> Markup {
    let init = &diagnosis.shared_init;
    let (class, sign, title) = match init.verdict {
        SharedInitVerdict::Shared => ("good", "✓", "The ingredients share an initialisation"),
        SharedInitVerdict::Separate => ("warning", "⚠", "The ingredients do not share an initialisation"),
        SharedInitVerdict::Unknown => {
            ("unknown", "?", "Whether the ingredients share an initialisation is not known")
        }
    };
    html! {
        div class={ "banner wide " (class) } role="note" {
            span.sign aria-hidden="true" { (sign) }
            div { p { strong { (title) } } @if !init.explanation.is_empty() { p { (init.explanation) } } }
        }
    }
}

fn angles(diagnosis: &Diagnosis) -> Markup {
    let matrix = &diagnosis.geometry.angles_deg;
    let off = matrix.iter().enumerate().flat_map(|(r, row)| {
        row.iter().enumerate().filter(move |(c, _)| *c != r).filter_map(|(_, angle)| *angle)
    });
    let Some(span) = Span::of(off) else { return html! {} };
    let values = matrix
        .iter()
        .enumerate()
        .map(|(r, row)| row.iter().enumerate().map(|(c, v)| v.filter(|_| r != c)).collect())
        .collect();
    let names = || diagnosis.ingredients.iter().take(matrix.len()).cloned().collect();
    let map = Map {
        rows: names(),
        columns: names(),
        values,
        unit: Unit::Degrees,
        print: |angle| format!("{angle:.0}"),
        quantity: "angle",
        ramp: Ramp::Sequential,
        span,
    };
    let about =
        "Between each two deltas. Small: fine-tuned to nearly the same place; 90°: nothing in common.";
    heat_map(Head { title: "Angles", about: about.to_owned() }, map)
}

fn norms(view: &View<'_>, diagnosis: &Diagnosis) -> Markup {
    let partial = view.report.learned.is_none() && view.chosen.len() < view.pool;
    let bar = |(name, &value): (&String, &f64)| {
        let chosen = partial && view.chosen.contains(name.as_str());
        Bar { name: name.clone(), value, class: if chosen { "soup" } else { "other" } }
    };
    let list: Vec<Bar> = diagnosis
        .ingredients
        .iter()
        .zip(&diagnosis.geometry.norms)
        .filter(|(_, n)| n.is_finite())
        .map(bar)
        .collect();
    let about = if partial { "How far each went; the chosen ones in colour." } else { "How far each went." };
    bars(&Head { title: "Norms of the deltas", about: about.to_owned() }, &list, Unit::Length)
}

/// Angle and norm along the depth of the network.
fn layers(diagnosis: &Diagnosis) -> [Markup; 2] {
    let layers = &diagnosis.layers;
    let mean = |norms: &[f64]| {
        let finite: Vec<f64> = norms.iter().copied().filter(|n| n.is_finite()).collect();
        (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
    };
    let names: Vec<&str> = layers.iter().map(|l| l.layer.as_str()).collect();
    let angles: Vec<Option<f64>> = layers.iter().map(|l| l.mean_angle_deg).collect();
    let norms: Vec<Option<f64>> = layers.iter().map(|l| mean(&l.norms)).collect();
    [
        along(&names, &angles, Unit::Degrees, ("Angles by layer", "mean angle over all pairs")),
        along(&names, &norms, Unit::Length, ("Norms by layer", "mean norm of the deltas")),
    ]
}

fn along(names: &[&str], values: &[Option<f64>], unit: Unit, (title, quantity): (&str, &str)) -> Markup {
    let Some(span) = Span::of(values.iter().flatten().copied()) else { return html! {} };
    let frame = Frame { height: 260.0, ..Frame::usual() };
    let y = frame.y(if unit == Unit::Length { span.with_zero() } else { span.padded(0.1) });
    let x = frame.x(Span { lo: -0.5, hi: names.len() as f64 - 0.5 });
    let place =
        |(i, v): (usize, &Option<f64>)| v.filter(|v| v.is_finite()).map(|v| (x.at(i as f64), y.at(v)));
    let labels = layer_names(names);
    let longest = labels.iter().map(|l| l.chars().count()).max().unwrap_or(1);
    let step = every(names.len(), (400.0 / (7.0 * longest as f64 + 8.0)) as usize);
    let marks: Vec<(f64, String)> =
        labels.iter().enumerate().step_by(step).map(|(i, l)| (x.at(i as f64), l.clone())).collect();
    let body = html! {
        (y_axis(&frame, &Axis { scale: y, unit, title: quantity }))
        (x_marks(&frame, &marks, "layer, from input to output"))
        (line(values.iter().enumerate().map(place), "soup", ""))
        @for (i, value) in values.iter().enumerate() {
            @if let (Some(at), Some(value), Some(name)) = (place((i, value)), value, names.get(i)) {
                (mark(Shape::Disc, at, "soup", &format!("{name}: {}", unit.value(*value))))
            }
        }
    };
    figure(&Head { title, about: String::new() }, frame.height, &body)
}

/// Layers' names for an axis: a block by its number.
fn layer_names(names: &[&str]) -> Vec<String> {
    let one = |name: &&str| match name.rsplit('.').next() {
        Some(number) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => number.to_owned(),
        _ => short(name, 10),
    };
    names.iter().map(one).collect()
}

/// Duplicates and outliers.
fn found(diagnosis: &Diagnosis) -> Markup {
    let (duplicates, outliers) = (&diagnosis.duplicates, &diagnosis.outliers);
    html! {
        @if !duplicates.is_empty() || !outliers.is_empty() {
            figure.text {
                figcaption { h3 { "Worth knowing" } }
                ul {
                    @for group in duplicates.iter().take(LISTED_MAX) {
                        li { strong { "Equal: " } @for (i, name) in group.iter().take(LISTED_MAX).enumerate() {
                            @if i > 0 { ", " } code { (name) }
                        } }
                    }
                    @for outlier in outliers.iter().take(LISTED_MAX) {
                        li { strong { "Outlier: " } code { (outlier.ingredient) } ": " (outlier.reason) }
                    }
                }
                @let more = duplicates.len().saturating_sub(LISTED_MAX) + outliers.len().saturating_sub(LISTED_MAX);
                @if more > 0 { p { "and " (more) " more" } }
            }
        }
    }
}
