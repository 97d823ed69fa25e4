//! The page around the sections.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::section;
use crate::view::View;

/// How everything looks.
const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn render(view: &View<'_>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Nothing is ever fetched or run, even if a viewer would.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                title { (section::summary::title(view)) }
                // An empty icon: else browsers ask a server for one.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (section::summary::head(view))
                    (section::summary::figures(view))
                    (section::significance::render(view))
                    (section::ingredients::render(view))
                    (section::decisions::render(view))
                    (section::learned::render(view))
                    (section::geometry::render(view))
                    (section::paths::render(view))
                    (section::uses::render(view))
                    (section::provenance::render(view))
                }
            }
        }
    }
}
