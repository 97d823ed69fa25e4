//! Where the soup comes from: time spent, notes, what identifies the run and its output.

use maud::{Markup, html};
use soup_core::rounding::fixed;

use crate::plot::frame::{Head, WIDTH, figure};
use crate::plot::number::coordinate;
use crate::section::section;
use crate::view::View;

/// Phases that have a colour of their own.
const COLOURS: usize = 7;
/// Notes that are listed.
const NOTES_MAX: usize = 100;

/// Timings, notes, provenance.
pub(crate) fn render(view: &View<'_>) -> Markup {
    section("run", "The run", "", vec![timings(view), notes(view), provenance(view)])
}

/// One bar, cut by phase, and the phases listed below it.
fn timings(view: &View<'_>) -> Markup {
    let phases: Vec<(&str, f64)> = view
        .report
        .seconds
        .iter()
        .filter(|(name, s)| *name != "total" && s.is_finite() && **s > 0.0)
        .map(|(name, s)| (name.as_str(), *s))
        .collect();
    let sum: f64 = phases.iter().map(|p| p.1).sum();
    if phases.is_empty() || !sum.is_finite() {
        return html! {};
    }
    let mut phases = phases;
    phases.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let total = view.report.seconds.get("total").copied().filter(|t| t.is_finite()).unwrap_or(sum);
    let starts = phases.iter().scan(0.0, |at, p| {
        let start = *at;
        *at += p.1 / sum * WIDTH;
        Some(start)
    });
    let row = 20.0;
    let height = 44.0 + row * phases.len() as f64;
    let body = html! {
        @for (i, ((name, s), start)) in phases.iter().zip(starts).enumerate() {
            @let class = format!("fill c{}", i.min(COLOURS));
            @let y = 40.0 + row * i as f64;
            rect class=(class) x=(coordinate(start)) y="0" height="26" width=(coordinate((s / sum * WIDTH - 1.0).max(0.3))) {
                title { (name) ": " (format!("{s:.2} s")) }
            }
            rect class=(class) x="0" y=(coordinate(y)) width="11" height="11" rx="2" {}
            text.name x="19" y=(coordinate(y + 10.0)) { (name) }
            text.name.end x="220" y=(coordinate(y + 10.0)) { (format!("{s:.2} s")) }
            text.tick.end x="280" y=(coordinate(y + 10.0)) { (fixed(100.0 * s / sum, 1)) " %" }
        }
    };
    figure(&Head { title: "Time", about: format!("{total:.1} seconds in all, by phase.") }, height, &body)
}

fn notes(view: &View<'_>) -> Markup {
    let notes = &view.report.notes;
    html! {
        @if !notes.is_empty() {
            figure.text {
                figcaption { h3 { "Notes" } }
                ul { @for note in notes.iter().take(NOTES_MAX) { li { (note) } } }
                @if notes.len() > NOTES_MAX { p { "and " (notes.len() - NOTES_MAX) " more" } }
            }
        }
    }
}

fn provenance(view: &View<'_>) -> Markup {
    let report = view.report;
    let mut entries = vec![
        ("run", report.run.clone()),
        ("recipe", report.recipe.clone()),
        ("options", options(view)),
        ("validation", report.validation.clone()),
    ];
    entries.extend(report.learned.as_ref().map(|l| ("learned from", l.train.clone())));
    entries.extend(report.diagnosis.as_ref().and_then(|d| d.base.clone()).map(|base| ("base", base)));
    entries.push(("output", report.output.clone()));
    entries.extend(report.judge.iter().map(|judge| ("judge", judge.to_string())));
    entries.push(("sha256", report.sha256.clone()));
    html! {
        figure.text {
            figcaption { h3 { "Provenance" } }
            dl { @for (name, value) in entries.iter().filter(|(_, v)| !v.is_empty()) {
                dt { (name) } dd { (value) }
            } }
        }
    }
}

/// The recipe's options as they were recorded, those that are set.
fn options(view: &View<'_>) -> String {
    // Options are plain data, whose serialisation cannot fail; without them the entry is left out.
    let Ok(serde_json::Value::Object(options)) = serde_json::to_value(&view.report.options) else {
        return String::new();
    };
    let plain = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut list = Vec::new();
    for (name, value) in &options {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::Object(inner) => {
                let set = inner.iter().filter(|(_, v)| !v.is_null());
                list.extend(set.map(|(n, v)| format!("{n} {}", plain(v))));
            }
            value => list.push(format!("{name} {}", plain(value))),
        }
    }
    list.join(", ")
}
