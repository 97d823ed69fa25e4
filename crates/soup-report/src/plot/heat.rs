//! Heat maps: one cell a value, at most 200 x 200 of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use maud::{Markup, html};

use crate::plot::frame::{Head, WIDTH, figure};
use crate::plot::label::{every, short};
use crate::plot::number::{Unit, coordinate, ticks};
use crate::plot::ramp::{LEVELS, Ramp};
use crate::plot::scale::{Scale, Span};

/// Cells along a side; of larger maps neighbours are averaged.
const SIDE_MAX: usize = 200;
/// Up to this many cells each has a tooltip; with more, those of a colour share one path.
const TOOLTIPS_MAX: usize = 2500;
/// Up to this many columns values are printed.
const PRINTED_MAX: usize = 20;
/// Characters of a row's name.
const NAME_MAX: usize = 14;

/// What a heat map shows.
pub(crate) struct Map {
    /// Names of the rows, from above.
    pub(crate) rows: Vec<String>,
    /// Names of the columns.
    pub(crate) columns: Vec<String>,
    /// `values[row][column]`; an empty cell where there is none.
    pub(crate) values: Vec<Vec<Option<f64>>>,
    /// How values are written in tooltips.
    pub(crate) unit: Unit,
    /// How a value is printed in its cell.
    pub(crate) print: fn(f64) -> String,
    /// What values are, for the key.
    pub(crate) quantity: &'static str,
    /// Whether zero is in the middle of the colours.
    pub(crate) ramp: Ramp,
    /// Values at the ends of the colours.
    pub(crate) span: Span,
}

/// Names and values of a map in which neighbours are averaged.
struct Condensed {
    rows: Vec<String>,
    columns: Vec<String>,
    values: Vec<Vec<Option<f64>>>,
    /// How many rows, and columns, are one now.
    factor: usize,
}

/// A map with neighbours averaged until neither side is longer than [`SIDE_MAX`].
fn condensed(map: &Map) -> Condensed {
    let factor = map.rows.len().max(map.columns.len()).div_ceil(SIDE_MAX).max(1);
    let cell = |rows: &[Vec<Option<f64>>], column: usize| {
        let block = rows.iter().flat_map(|row| row.iter().skip(column * factor).take(factor)).flatten();
        let finite: Vec<f64> = block.copied().filter(|v| v.is_finite()).collect();
        (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
    };
    let columns = map.columns.len().div_ceil(factor);
    let values: Vec<Vec<Option<f64>>> =
        map.values.chunks(factor).map(|rows| (0..columns).map(|c| cell(rows, c)).collect()).collect();
    let names = |names: &[String]| names.iter().step_by(factor).cloned().collect();
    Condensed { rows: names(&map.rows), columns: names(&map.columns), values, factor }
}

/// A figure with a heat map and the key of its colours.
pub(crate) fn heat_map(head: Head<'_>, mut map: Map) -> Markup {
    let Condensed { rows, columns, values, factor } = condensed(&map);
    let mut head = head;
    if factor > 1 {
        head.about += &format!(" Every cell is the mean of up to {factor} x {factor} neighbours.");
        if map.ramp == Ramp::Sequential {
            // Means span less than values do.
            map.span = Span::of(values.iter().flatten().flatten().copied()).unwrap_or(map.span);
        }
    }
    let longest = rows.iter().map(|r| r.chars().count().min(NAME_MAX)).max().unwrap_or(0);
    let left = 12.0 + 6.8 * longest as f64;
    let width = ((WIDTH - left) / columns.len().max(1) as f64).min(64.0);
    let height =
        if rows.len() == columns.len() { width } else { (width * 0.9).clamp(300.0 / SIDE_MAX as f64, 26.0) };
    let top = 34.0;
    let body = html! {
        (key(&map, left))
        (cells(&map, &Grid { rows: &rows, columns: &columns, values: &values, left, top, width, height }))
        (names(&rows, &columns, (left, top), (width, height)))
    };
    let longest = columns.iter().map(|c| c.chars().count().min(NAME_MAX)).max().unwrap_or(0);
    let bottom = if slanted(&columns, width) { 20.0 + 5.0 * longest as f64 } else { 20.0 };
    figure(&head, top + height * rows.len() as f64 + bottom, &body)
}

/// Cells with their place.
struct Grid<'a> {
    rows: &'a [String],
    columns: &'a [String],
    values: &'a [Vec<Option<f64>>],
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

fn cells(map: &Map, grid: &Grid<'_>) -> Markup {
    let all = grid
        .values
        .iter()
        .enumerate()
        .flat_map(|(r, row)| row.iter().enumerate().map(move |(c, v)| (r, c, *v)));
    let known: Vec<(usize, usize, f64)> =
        all.filter_map(|(r, c, v)| Some((r, c, v.filter(|v| v.is_finite())?))).collect();
    let place = |r: usize, c: usize| (grid.left + c as f64 * grid.width, grid.top + r as f64 * grid.height);
    if known.len() > TOOLTIPS_MAX {
        return merged(map, &known, place, (grid.width, grid.height));
    }
    let printed = grid.columns.len() <= PRINTED_MAX && grid.width >= 20.0 && grid.height >= 13.0;
    let size = if grid.width < 26.0 { "cell small " } else { "cell " };
    let name = |names: &[String], i: usize| names.get(i).cloned().unwrap_or_default();
    html! {
        @for (r, c, v) in known {
            @let (x, y) = place(r, c);
            @let level = Ramp::level(map.span.share(v));
            rect x=(coordinate(x)) y=(coordinate(y)) width=(coordinate(grid.width - 1.0))
                height=(coordinate(grid.height - 1.0)) fill=(map.ramp.colour(level)) {
                title { (name(grid.rows, r)) ", " (name(grid.columns, c)) ": " (map.unit.value(v)) }
            }
            @if printed {
                text class={ (size) (map.ramp.ink(level)) } x=(coordinate(x + (grid.width - 1.0) / 2.0))
                    y=(coordinate(y + grid.height / 2.0 + 3.5)) { ((map.print)(v)) }
            }
        }
    }
}

/// Many cells: one path a colour, which is a tenth of the bytes.
fn merged(
    map: &Map,
    known: &[(usize, usize, f64)],
    place: impl Fn(usize, usize) -> (f64, f64),
    (width, height): (f64, f64),
) -> Markup {
    let mut paths: BTreeMap<usize, String> = BTreeMap::new();
    let (w, h) = (coordinate(width + 0.1), coordinate(height + 0.1));
    for &(r, c, v) in known {
        let (x, y) = place(r, c);
        let d = paths.entry(Ramp::level(map.span.share(v))).or_default();
        let _ = write!(d, "M{} {}h{w}v{h}h-{w}z", coordinate(x), coordinate(y));
    }
    html! { @for (level, d) in paths { path.crisp fill=(map.ramp.colour(level)) d=(d) {} } }
}

/// Whether names below the columns have to be slanted.
fn slanted(columns: &[String], width: f64) -> bool {
    let longest = columns.iter().map(|c| c.chars().count().min(NAME_MAX)).max().unwrap_or(0);
    let shown = every(columns.len(), (columns.len() as f64 * width / 16.0) as usize);
    longest as f64 * 7.6 + 6.0 > width * shown as f64
}

fn names(
    rows: &[String],
    columns: &[String],
    (left, top): (f64, f64),
    (width, height): (f64, f64),
) -> Markup {
    let row_step = every(rows.len(), (rows.len() as f64 * height / 13.0) as usize);
    let column_step = every(columns.len(), (columns.len() as f64 * width / 16.0) as usize);
    let base = top + height * rows.len() as f64 + 14.0;
    let slanted = slanted(columns, width);
    html! {
        @for (i, name) in rows.iter().enumerate().step_by(row_step) {
            text.tick.end x=(coordinate(left - 6.0)) y=(coordinate(top + (i as f64 + 0.5) * height + 4.0)) {
                (short(name, NAME_MAX))
            }
        }
        @for (i, name) in columns.iter().enumerate().step_by(column_step) {
            @let x = coordinate(left + (i as f64 + 0.5) * width);
            @if slanted {
                text.tick.end x=(x) y=(coordinate(base)) transform={ "rotate(-45 " (x) " " (coordinate(base - 4.0)) ")" } {
                    (short(name, NAME_MAX))
                }
            } @else {
                text.tick.mid x=(x) y=(coordinate(base)) { (short(name, NAME_MAX)) }
            }
        }
    }
}

/// The key of the colours, above the map: what is shown, and a bar with ticks.
pub(crate) fn key(map: &Map, left: f64) -> Markup {
    let (from, to) = ((WIDTH - 220.0).max(left), WIDTH - 24.0);
    let scale = Scale { span: map.span, from, to };
    let step = (to - from) / LEVELS as f64;
    html! {
        text.axis.end x=(coordinate(from - 10.0)) y="9" { (map.quantity) }
        @for level in 0..LEVELS {
            rect.crisp x=(coordinate(from + level as f64 * step)) y="0" width=(coordinate(step + 0.3)) height="9"
                fill=(map.ramp.colour(level)) {}
        }
        @for (value, label) in ticks(map.span, 4, map.unit) {
            text.tick.mid x=(coordinate(scale.at(value))) y="23" { (label) }
        }
    }
}
