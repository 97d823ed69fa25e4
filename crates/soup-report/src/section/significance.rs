//! Whether the soup is better than others or only luckier, on every dataset.

use maud::{Markup, html};
use soup_core::report::{Comparison, chance};

use crate::plot::number::Unit;
use crate::section::section;
use crate::view::View;

/// The soup beside the best single ingredient and the uniform soup, sample by sample.
pub(crate) fn render(view: &View<'_>) -> Markup {
    section("significance", "Better, or luckier", "", vec![table(view, &view.report.significance)])
}

fn table(view: &View<'_>, comparisons: &[Comparison]) -> Markup {
    let (name, unit) = view.metric();
    html! {
        @if !comparisons.is_empty() {
            figure.wide {
                figcaption {
                    h3 { "On the same samples" }
                    p {
                        "Samples that only one of two got right, and McNemar's exact test of them: p says how often equally good models "
                        "differ as much. Beside it the difference of " (name) ", and where it lies at 95 % over samples drawn anew. "
                        "Recipes choose by the validation set, so there the soup has been lucky already."
                    }
                }
                div.scroll { table {
                    thead { tr {
                        th scope="col" { "dataset" } th scope="col" { "soup against" }
                        th.n scope="col" { "gained" } th.n scope="col" { "lost" } th.n scope="col" { "p" }
                        th.n scope="col" { "difference" } th.n scope="col" { "from" } th.n scope="col" { "to" }
                    } }
                    tbody { @for of in comparisons { tr {
                        th scope="row" { (of.dataset) }
                        td { (of.against.name()) }
                        td.n { (of.discordant.gains) }
                        td.n { (of.discordant.losses) }
                        td.n { (chance(of.p).trim_start_matches("= ")) }
                        td.n { (signed(unit, of.difference)) }
                        td.n { (signed(unit, of.interval.map(|(low, _)| low))) }
                        td.n { (signed(unit, of.interval.map(|(_, high)| high))) }
                    } } }
                } }
            }
        }
    }
}

/// A difference with its sign; `-` where there is none.
fn signed(unit: Unit, value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let text = unit.value(value.abs());
    let is_nothing = !text.contains(|c: char| matches!(c, '1'..='9'));
    let sign = if value < 0.0 && !is_nothing { "−" } else { "+" };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_a_sign_unless_they_are_shown_as_nothing() {
        let shown = |value| signed(Unit::Percent, value);
        assert_eq!([Some(2.0 / 320.0), Some(-2.0 / 320.0)].map(shown), ["+0.63 %", "−0.63 %"]);
        assert_eq!([Some(0.0), Some(-0.000_01), None].map(shown), ["+0.00 %", "+0.00 %", "-"]);
        assert_eq!(signed(Unit::Number, Some(-3e-5)), "−3.000e-5");
    }
}
