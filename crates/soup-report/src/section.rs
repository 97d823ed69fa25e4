//! The sections of the page. Each makes its markup from the view, and nothing where the report lacks its data.

pub(crate) mod decisions;
pub(crate) mod geometry;
pub(crate) mod ingredients;
pub(crate) mod learned;
pub(crate) mod paths;
pub(crate) mod provenance;
pub(crate) mod significance;
pub(crate) mod summary;
pub(crate) mod uses;

use maud::{Markup, html};

/// A section with a heading, if there is anything in it.
pub(crate) fn section(id: &str, title: &str, lead: &str, parts: Vec<Markup>) -> Markup {
    let parts: Vec<Markup> = parts.into_iter().filter(|p| !p.0.is_empty()).collect();
    html! {
        @if !parts.is_empty() {
            section id=(id) {
                h2 { (title) }
                @if !lead.is_empty() { p.lead { (lead) } }
                div.grid { @for part in parts { (part) } }
            }
        }
    }
}
