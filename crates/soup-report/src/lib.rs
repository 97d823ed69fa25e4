//! Shows: a run's report as one HTML page, with its figures as inline SVG.
//!
//! # Words
//!
//! - The *page* is one file: no script, no network, no font but the system's. It follows the reader's light or dark scheme.
//! - A *section* is a chapter of the page. It is there if the report holds its data, else it is left out.
//! - A *figure* is a section's plot: an SVG of fixed coordinates that scales with the page. Values are in its tooltips.
//! - A *span* is a range of values, a *scale* maps it to coordinates, a *frame* is the rectangle that is plotted in.
//!
//! # Flow
//!
//! [`html`] looks at the report once ([`view`]), lets every section make its markup, and wraps them ([`page`]). Sections
//! draw with the primitives of [`plot`]. Everything is a pure function of the report: the same report gives the same bytes.
//! Text is escaped by `maud`; no number that is not finite reaches an attribute, because scales map only finite ones.

mod page;
mod plot;
mod section;
mod view;

use soup_core::plain::plain;
use soup_core::report::RunReport;

/// A page about a run, for people: self-contained HTML, whose size is bounded for pools of any size.
pub fn html(report: &RunReport) -> String {
    // What turns the direction of a text would turn that of others around it.
    plain(&page::render(&view::View::new(report)).into_string()).into_owned()
}
