//! The page's head: what was cooked and how good it is; and the table of figures.

use std::collections::BTreeMap;

use maud::{Markup, html};
use soup_core::report::{Baseline, Figures};
use soup_core::rounding::fixed;

use crate::plot::label::short;
use crate::plot::number::Unit;
use crate::view::View;

/// Names of ingredients that the page lists in one place.
const LISTED_MAX: usize = 60;

/// Title, the soup's score against what it is compared with, and the chosen ingredients.
pub(crate) fn head(view: &View<'_>) -> Markup {
    let report = view.report;
    let baselines = &report.baselines;
    html! {
        header {
            p.eyebrow { "soupctl · model soup" }
            h1 { (title(view)) }
            div.tiles {
                @match &report.score {
                    Some(score) => (tile("soup", &format!("{} soup", report.recipe), score, &report.validation, None, view)),
                    None => div class="tile soup" {
                        p.what { (report.recipe) " soup" }
                        p.how { "not scored: no validation set was given" }
                    },
                }
                @if let Some(best) = &baselines.best_single {
                    @let name = best.ingredients.first().map(String::as_str).unwrap_or_default();
                    (tile("best", &format!("best single, {}", short(name, 24)), &best.score, &report.validation,
                        report.score.as_ref(), view))
                }
                @if let Some(uniform) = &baselines.uniform {
                    (tile("uniform", &format!("uniform, all {}", uniform.ingredients.len()), &uniform.score,
                        &report.validation, report.score.as_ref(), view))
                }
            }
            (chosen(view))
        }
    }
}

/// What the page is about, for its title and its heading.
pub(crate) fn title(view: &View<'_>) -> String {
    let (chosen, pool) = (view.report.ingredients.len(), view.pool);
    let noun = if pool == 1 { "checkpoint" } else { "checkpoints" };
    match view.report.recipe.as_str() {
        "best-single" => format!("The best single one of {pool} {noun}"),
        _ if chosen == pool => format!("{} soup of {pool} {noun}", view.recipe_title()),
        _ => format!("{} soup: {chosen} of {pool} {noun}", view.recipe_title()),
    }
}

fn tile(
    class: &str,
    label: &str,
    figures: &Figures,
    dataset: &str,
    soup: Option<&Figures>,
    view: &View<'_>,
) -> Markup {
    let (name, unit) = view.metric();
    let difference = soup.and_then(|s| Some(100.0 * (s.accuracy()? - figures.accuracy()?)));
    html! {
        div class={ "tile " (class) } {
            p.what { (label) }
            p.big { (figures.headline()) }
            p.how {
                @match difference {
                    Some(d) => { "soup: " strong { (points(d)) } },
                    None if figures.accuracy().is_none() => { (name) " on " (dataset) },
                    None => { "accuracy on " (dataset) },
                }
                @if unit != Unit::Percent && figures.accuracy().is_some() { @if let Some(v) = view.value(figures) { " · " (name) " " (unit.value(v)) } }
            }
        }
    }
}

/// A difference in percentage points.
fn points(difference: f64) -> String {
    let text = fixed(difference.abs(), 2);
    match text.as_str() {
        "0.00" => "equal".to_owned(),
        _ if difference > 0.0 => format!("+{text} points"),
        _ => format!("−{text} points"),
    }
}

fn chosen(view: &View<'_>) -> Markup {
    let all = &view.report.ingredients;
    html! {
        @if !all.is_empty() && view.report.learned.is_none() {
            p.chosen {
                @if all.len() == view.pool { "All ingredients: " } @else { "Chosen: " }
                @for name in all.iter().take(LISTED_MAX) { code { (name) } " " }
                @if all.len() > LISTED_MAX { "and " (all.len() - LISTED_MAX) " more" }
            }
        }
    }
}

/// The table of all figures: one row a model, one column a dataset.
pub(crate) fn figures(view: &View<'_>) -> Markup {
    let report = view.report;
    let Some(score) = &report.score else { return html! {} };
    let (name, unit) = view.metric();
    // What is no classifier has its metric in the first column.
    let own = (unit != Unit::Percent && score.accuracy().is_some()).then_some(name);
    let row = |label: &str, baseline: &Baseline, class: &str| {
        cells(view, (label, class), baseline.ingredients.len(), &baseline.score, &baseline.test)
    };
    html! {
        section #scores {
            h2 { "Scores" }
            div.scroll { table {
                thead { tr {
                    th scope="col" { "model" }
                    th.n scope="col" { "ingredients" }
                    th.n scope="col" { (report.validation) }
                    @if let Some(own) = own { th.n scope="col" { (own) } }
                    @if own != Some("loss") && score.accuracy().is_some() { th.n scope="col" { "loss" } }
                    @for test in &view.tests { th.n scope="col" { (test) } }
                } }
                tbody {
                    @if let Some(best) = &report.baselines.best_single { @if report.recipe != "best-single" {
                        @let name = best.ingredients.first().map(String::as_str).unwrap_or_default();
                        (row(&format!("best single ({})", short(name, 24)), best, "best"))
                    } }
                    @if let Some(uniform) = &report.baselines.uniform { @if report.recipe != "uniform" {
                        (row("uniform", uniform, "uniform"))
                    } }
                    (cells(view, (&report.recipe, "soup"), report.ingredients.len(), score, &report.test))
                }
            } }
        }
    }
}

fn cells(
    view: &View<'_>,
    (label, class): (&str, &str),
    count: usize,
    score: &Figures,
    test: &BTreeMap<String, Figures>,
) -> Markup {
    let (name, unit) = view.metric();
    html! {
        tr class=(class) {
            th scope="row" { (label) }
            td.n { (count) }
            td.n { (score.headline()) }
            @if unit != Unit::Percent && score.accuracy().is_some() { td.n { (view.value(score).map_or("-".to_owned(), |v| unit.value(v))) } }
            @if name != "loss" && score.accuracy().is_some() { td.n { (score.loss().map_or("-".to_owned(), |v| Unit::Number.value(v))) } }
            @for name in &view.tests {
                td.n { (test.get(*name).map_or("-".to_owned(), |f| f.headlines(&view.report.options.metric))) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::points;

    #[test]
    fn differences_have_a_sign() {
        assert_eq!(points(0.6), "+0.60 points");
        assert_eq!(points(-5.0), "−5.00 points");
        assert_eq!(points(0.001), "equal");
        // 2 samples of 320, from anywhere.
        let of = |correct: f64| correct / 320.0;
        for correct in [1.0, 100.0, 155.0, 301.0] {
            assert_eq!(points(100.0 * (of(correct + 2.0) - of(correct))), "+0.63 points", "{correct}");
        }
    }
}
