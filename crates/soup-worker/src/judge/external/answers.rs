//! What a judge answers, checked: nothing of it is believed before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use soup_core::judge::{JudgeId, Offer};
use soup_core::machine::PartFigures;
use soup_core::metric::{Formula, Range, Ranges, SumMetric, check_word};
use soup_core::survey::{Ability, Survey, Tallies};
use soup_core::tally::{Judged, Outcome, Sums, Value, Values};
use soup_core::{Error, Result};
use soup_proto::JUDGE_PROTOCOL_VERSION;
use soup_proto::judge_v1::metric::Formula as WireFormula;
use soup_proto::judge_v1::survey::Tallies as WireTallies;
use soup_proto::judge_v1::{Block, DescribeResponse, Differentiated, block};

use crate::survey::Surveyed;

/// Longest text of a judge that is shown.
const TEXT_CHARS_MAX: usize = 2000;
/// Most datasets that a judge names, most notes that it makes, and the longest of either.
const NAMES_MAX: usize = 1000;
const NOTES_MAX: usize = 50;
const NAME_CHARS_MAX: usize = 256;
/// Largest tolerance.
const TOLERANCE_MAX: f64 = 0.1;

/// Text of a judge as it can be shown: of bounded length, and without what moves a terminal's cursor.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect::<String>() } else { c.to_string() };
    let mut plain: String = text.chars().take(TEXT_CHARS_MAX).map(shown).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        plain.push('…');
    }
    plain
}

/// Something that a judge must not answer.
pub(super) fn wrong(what: impl AsRef<str>) -> Error {
    Error::internal(format!("it {}", what.as_ref()))
}

/// What a judge says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct About {
    /// What workers offer.
    pub(crate) offer: Offer,
    /// By how much two workers may differ in a mean loss or figure, relative to it.
    pub(crate) tolerance: f64,
}

/// Who the judge called `name` is.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) for what cannot be.
pub(super) fn about(name: &str, said: DescribeResponse) -> Result<About> {
    let DescribeResponse { protocol, version, digest, numerics, abilities, datasets, tolerance } = said;
    if protocol != JUDGE_PROTOCOL_VERSION {
        return Err(Error::configuration(format!(
            "it speaks protocol {protocol}, and this worker protocol {JUDGE_PROTOCOL_VERSION}: install versions that fit"
        )));
    }
    for (what, text) in [("version", &version), ("numerics", &numerics)] {
        let known = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(known) {
            return Err(wrong(format!(
                "says that its {what} is {:?}: 1 to 64 letters, digits and _.+- are possible",
                plain(text)
            )));
        }
    }
    if digest.len() > 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong("gives a digest that is not a SHA-256 in hexadecimal"));
    }
    if !(0.0..=TOLERANCE_MAX).contains(&tolerance) {
        return Err(wrong(format!(
            "says that its tolerance is {tolerance}; 0 to {TOLERANCE_MAX} are possible"
        )));
    }
    let too_long = datasets.iter().any(|d| d.chars().count() > NAME_CHARS_MAX);
    if datasets.len() > NAMES_MAX || too_long {
        return Err(wrong(format!("names more than {NAMES_MAX} datasets, or too long ones")));
    }
    let id = JudgeId {
        name: name.to_owned(),
        version,
        digest: (!digest.is_empty()).then(|| digest.to_ascii_lowercase()),
        numerics,
    };
    Ok(About {
        offer: Offer {
            id,
            abilities: Ability::known(&abilities),
            datasets: datasets.iter().map(|d| plain(d)).collect(),
        },
        tolerance,
    })
}

/// What a judge of these `abilities` says of `datasets` datasets.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) for what cannot be.
pub(super) fn surveyed(
    said: soup_proto::judge_v1::Survey,
    abilities: &BTreeSet<Ability>,
    datasets: usize,
) -> Result<Surveyed> {
    let soup_proto::judge_v1::Survey { samples, tallies, notes } = said;
    if samples.len() != datasets {
        return Err(wrong(format!("surveyed {} datasets, and was asked for {datasets}", samples.len())));
    }
    let tallies = match tallies.ok_or_else(|| wrong("says neither classes nor values nor figures"))? {
        WireTallies::Classes(classes) => Tallies::Classes { classes },
        WireTallies::Values(values) => Tallies::Values { values },
        WireTallies::Figures(figures) => {
            let count = figures.names.len();
            let names: BTreeSet<String> = figures.names.into_iter().collect();
            if names.len() != count {
                return Err(wrong("names a figure twice"));
            }
            let ranges = ranges(figures.ranges)?;
            Tallies::Sums {
                figures: names,
                ranges,
                metrics: figures.metrics.into_iter().map(metric).collect::<Result<_>>()?,
            }
        }
    };
    let notes = notes.iter().take(NOTES_MAX).map(|note| plain(note)).collect();
    let survey = Survey { samples, tallies, abilities: abilities.clone() };
    // The coordinator checks that as well, but hears of nothing that is larger than messages may be.
    survey.check_tallies()?;
    Ok(Surveyed { survey, notes })
}

fn ranges(said: Vec<soup_proto::judge_v1::Range>) -> Result<Ranges> {
    let mut ranges = Ranges::new();
    for soup_proto::judge_v1::Range { figure, least, most, fixed } in said {
        match ranges.entry(figure) {
            Entry::Vacant(new) => _ = new.insert(Range { least, most, fixed }),
            Entry::Occupied(known) => {
                return Err(wrong(format!("promises two ranges of {:?}", plain(known.key()))));
            }
        }
    }
    Ok(ranges)
}

fn metric(metric: soup_proto::judge_v1::Metric) -> Result<SumMetric> {
    let kind = metric.formula();
    let soup_proto::judge_v1::Metric { name, figure, by, lower_is_better, .. } = metric;
    for word in [&name, &figure] {
        check_word(word).map_err(|why| wrong(format!("has a metric of {:?}, which {why}", plain(word))))?;
    }
    let formula = match kind {
        WireFormula::Mean => Formula::Mean(figure),
        WireFormula::Ratio => Formula::Ratio(figure, by),
        WireFormula::ExpRatio => Formula::ExpRatio(figure, by),
        WireFormula::Unspecified => return Err(wrong(format!("has a metric {name:?} of no formula"))),
    };
    Ok(SumMetric { name, formula, lower_is_better })
}

/// What was asked for in a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) survey: &'a Survey,
    /// Names of the figures in the judge's own order; none of a classifier.
    pub(super) figures: &'a [String],
    pub(super) samples: usize,
    pub(super) logits: bool,
}

/// What a judge says of a block: that, and its logits.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) for what cannot be.
pub(super) fn judged(said: Block, asked: &Asked<'_>) -> Result<(Judged, Vec<f32>)> {
    let Block { judged, logits, .. } = said;
    let count = asked.samples as u64;
    let judged = match judged {
        Some(block::Judged::Outcomes(of)) => {
            let columns = [of.labels.len(), of.predictions.len(), of.losses.len()];
            if columns.iter().any(|len| *len != asked.samples) {
                let [labels, predictions, losses] = columns;
                return Err(wrong(format!(
                    "told of {labels} labels, {predictions} predictions and {losses} losses, for {count} samples"
                )));
            }
            if of.losses.contains(&f64::NEG_INFINITY) {
                return Err(wrong("gave a loss of minus infinity"));
            }
            let columns = of.labels.into_iter().zip(of.predictions).zip(of.losses);
            let outcome = |((label, prediction), loss)| Outcome { label, prediction, loss };
            Judged::Outcomes(columns.map(outcome).collect())
        }
        Some(block::Judged::Values(of)) => Judged::Tally(values(of, asked.samples)?.into()),
        Some(block::Judged::Sums(of)) => {
            if of.samples != count {
                return Err(wrong(format!("told of {} samples, for {count}", of.samples)));
            }
            if of.values.len() != asked.figures.len() {
                return Err(wrong(format!(
                    "gave {} figures, and has {}",
                    of.values.len(),
                    asked.figures.len()
                )));
            }
            if let Some(at) = of.values.iter().position(|v| v.is_infinite()) {
                return Err(wrong(format!("gave an infinite {}", asked.figures[at])));
            }
            let figures: BTreeMap<String, f64> = asked.figures.iter().cloned().zip(of.values).collect();
            Judged::Tally(Sums { samples: count, figures }.into())
        }
        None => return Err(wrong("answered a block with nothing")),
    };
    asked.survey.fits(&judged, count)?;
    let row = match asked.survey.tallies {
        Tallies::Classes { classes } if asked.logits => classes as usize,
        _ => 0,
    };
    let expected = asked.samples.saturating_mul(row).saturating_mul(4);
    if logits.len() != expected {
        return Err(wrong(format!("gave {} bytes of logits where {expected} are due", logits.len())));
    }
    Ok((judged, logits.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
}

/// True and predicted numbers of a block of so many samples.
fn values(of: soup_proto::judge_v1::Values, samples: usize) -> Result<Values> {
    let soup_proto::judge_v1::Values { truths, predictions } = of;
    if [truths.len(), predictions.len()] != [samples; 2] {
        return Err(wrong(format!(
            "told of {} true numbers and {} predictions, for {samples} samples",
            truths.len(),
            predictions.len()
        )));
    }
    if predictions.iter().any(|prediction| prediction.is_infinite()) {
        return Err(wrong("gave an infinite prediction"));
    }
    let pairs = truths.into_iter().zip(predictions);
    Ok(pairs.map(|(truth, prediction)| Value { truth, prediction }).collect())
}

/// What a judge says of a step's part of `samples` samples.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) for what cannot be.
pub(super) fn differentiated(said: &Differentiated, samples: u64) -> Result<PartFigures> {
    let Differentiated { loss, d_beta, correct, total } = *said;
    if total != samples || correct > total {
        return Err(wrong(format!("differentiated {total} samples, {correct} of them right, for {samples}")));
    }
    Ok(PartFigures { loss, d_beta, correct, total })
}

#[cfg(test)]
mod tests {
    use soup_core::tally::Tally;
    use soup_proto::judge_v1::{Figures, Metric, Outcomes, Range, Sums as WireSums};

    use super::*;

    fn describe(change: impl Fn(&mut DescribeResponse)) -> Result<About> {
        let mut said = DescribeResponse {
            protocol: 1,
            version: "1.0+x".into(),
            numerics: "numpy-2".into(),
            digest: "AB".into(),
            abilities: vec!["logits".into(), "tea".into()],
            datasets: vec!["a\u{1b}[2J".into()],
            tolerance: 0.0,
        };
        change(&mut said);
        about("lm", said)
    }

    #[track_caller]
    fn says<T: std::fmt::Debug>(result: Result<T>, expected: &str) {
        let error = result.unwrap_err().chain();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_judge_is_who_it_can_be() {
        let about = describe(|_| {}).unwrap();
        assert_eq!(about.offer.id.digest.as_deref(), Some("ab"));
        assert_eq!(about.offer.abilities, [Ability::Logits].into());
        assert_eq!(about.offer.datasets, ["a\\u{1b}[2J"]);
        says(describe(|d| d.protocol = 2), "speaks protocol 2");
        says(describe(|d| d.version = String::new()), "version is \"\"");
        says(describe(|d| d.numerics = "a b".into()), "numerics is \"a b\"");
        says(describe(|d| d.version = "\u{1b}]0;x".into()), "u{1b}");
        says(describe(|d| d.digest = "xyz".into()), "not a SHA-256");
        says(describe(|d| d.tolerance = f64::NAN), "tolerance is NaN");
        says(describe(|d| d.tolerance = 1.0), "tolerance is 1");
        says(describe(|d| d.datasets = vec![String::new(); NAMES_MAX + 1]), "more than 1000 datasets");
    }

    #[test]
    fn text_is_plain_and_short() {
        assert_eq!(plain("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(plain(&"x".repeat(5000)).chars().count(), TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn a_survey_is_of_what_was_asked() {
        let promise = |names: &[&str], metrics, promised: &[&str]| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            let range =
                |figure: &str| Range { figure: figure.to_owned(), least: Some(0.0), ..Range::default() };
            let ranges = promised.iter().map(|figure| range(figure)).collect();
            Some(WireTallies::Figures(Figures { names, metrics, ranges }))
        };
        let figures = |names: &[&str], metrics| promise(names, metrics, &[]);
        let of = |samples: Vec<u64>, tallies| {
            let said = soup_proto::judge_v1::Survey { samples, tallies, notes: vec!["a\nb".into()] };
            surveyed(said, &BTreeSet::new(), 1)
        };
        let known = of(vec![3], Some(WireTallies::Classes(2))).unwrap();
        assert_eq!((known.survey.samples, known.notes), (vec![3], vec!["a\\nb".to_owned()]));
        says(of(vec![3, 4], Some(WireTallies::Classes(2))), "2 datasets, and was asked for 1");
        says(of(vec![3], None), "neither classes nor values nor figures");
        says(of(vec![3], figures(&["a", "a"], vec![])), "a figure twice");
        let metric =
            |formula: i32| Metric { name: "m".into(), formula, figure: "a".into(), ..Metric::default() };
        assert!(of(vec![3], figures(&["a"], vec![metric(1)])).is_ok());
        says(of(vec![3], figures(&["a"], vec![metric(0)])), "no formula");
        says(of(vec![3], figures(&["a"], vec![metric(9)])), "no formula");
        assert!(of(vec![3], promise(&["a"], vec![], &["a"])).is_ok());
        says(of(vec![3], promise(&["a"], vec![], &["a", "a"])), "two ranges of \"a\"");
        // What is too much for a message is told of here.
        let many: Vec<String> = (0..100_000).map(|figure| format!("f{figure}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        says(of(vec![3], figures(&many, vec![])), "gives 100000 figures and 0 metrics");
        says(of(vec![3], figures(&["a".repeat(1 << 20).as_str()], vec![])), "which");
    }

    fn values_block() -> Block {
        let of = soup_proto::judge_v1::Values { truths: vec![1.0; 2], predictions: vec![1.0; 2] };
        Block { judged: Some(block::Judged::Values(of)), ..Block::default() }
    }

    #[test]
    fn a_block_is_what_was_asked_for() {
        let classes = Survey { abilities: [Ability::Logits].into(), ..Survey::of_classes(vec![9], 2) };
        let outcomes = |labels: Vec<u32>, predictions: Vec<u32>, losses: Vec<f64>, logits: usize| Block {
            block: 0,
            judged: Some(block::Judged::Outcomes(Outcomes { labels, predictions, losses })),
            logits: vec![0; logits],
        };
        let of = |block: Block, logits: bool| {
            judged(block, &Asked { survey: &classes, figures: &[], samples: 2, logits })
        };
        let (said, rows) = of(outcomes(vec![0, 1], vec![1, 1], vec![0.5, f64::NAN], 16), true).unwrap();
        let Judged::Outcomes(said) = said else { unreachable!() };
        assert!(said[1].loss.is_nan() && rows.len() == 4, "not a number is an answer");
        says(of(outcomes(vec![0], vec![1, 1], vec![0.5; 2], 0), false), "1 labels, 2 predictions");
        says(of(outcomes(vec![0, 2], vec![1, 1], vec![0.5; 2], 0), false), "label 2");
        says(of(outcomes(vec![0, 1], vec![1, 1], vec![0.5; 2], 8), true), "8 bytes of logits where 16");
        says(of(outcomes(vec![0, 1], vec![1, 1], vec![0.5; 2], 16), false), "16 bytes of logits where 0");
        let infinite = vec![0.5, f64::NEG_INFINITY];
        says(of(outcomes(vec![0, 1], vec![1, 1], infinite, 0), false), "minus infinity");
        says(of(Block::default(), false), "with nothing");
        let sums = |samples, values: Vec<f64>| Block {
            judged: Some(block::Judged::Sums(WireSums { samples, values })),
            ..Block::default()
        };
        says(of(sums(2, vec![]), false), "another kind");
        let numbers = Survey::of_values(vec![9]);
        let values = |truths: Vec<f64>, predictions: Vec<f64>| {
            let of = soup_proto::judge_v1::Values { truths, predictions };
            let block = Block { judged: Some(block::Judged::Values(of)), ..Block::default() };
            judged(block, &Asked { survey: &numbers, figures: &[], samples: 2, logits: false })
        };
        let (said, _) = values(vec![1.0, 2.0], vec![0.5, f64::NAN]).unwrap();
        let Judged::Tally(Tally::Values(said)) = said else { unreachable!() };
        assert_eq!((said.samples()[0].truth, said.samples()[0].prediction), (1.0, 0.5));
        says(values(vec![1.0], vec![0.5; 2]), "told of 1 true numbers and 2 predictions, for 2");
        says(values(vec![1.0, f64::NAN], vec![0.5; 2]), "a true number of NaN");
        says(values(vec![1.0; 2], vec![0.5, f64::NEG_INFINITY]), "an infinite prediction");
        says(of(values_block(), false), "another kind");
        let lm = Survey {
            tallies: Tallies::Sums {
                figures: ["nll".to_owned(), "tokens".into()].into(),
                ranges: [(
                    "tokens".to_owned(),
                    soup_core::metric::Range { least: Some(1.0), most: Some(4.0), fixed: true },
                )]
                .into(),
                metrics: vec![],
            },
            ..classes.clone()
        };
        // The judge's own order.
        let figures = ["tokens".to_owned(), "nll".into()];
        let of = |block| judged(block, &Asked { survey: &lm, figures: &figures, samples: 2, logits: false });
        let (said, _) = of(sums(2, vec![7.0, 1.5])).unwrap();
        let expected = [("nll".to_owned(), 1.5), ("tokens".to_owned(), 7.0)].into();
        assert_eq!(said, Judged::Tally(Tally::Sums(Sums { samples: 2, figures: expected })));
        assert!(of(sums(2, vec![7.0, f64::NAN])).is_ok(), "not a number is an answer");
        says(of(sums(2, vec![9.0, 1.0])), "tokens of 9 over 2 samples, which is not in the range");
        says(of(sums(3, vec![7.0, 1.0])), "told of 3 samples, for 2");
        says(of(sums(2, vec![7.0])), "gave 1 figures, and has 2");
        says(of(sums(2, vec![7.0, f64::INFINITY])), "an infinite nll");
    }

    #[test]
    fn a_part_is_of_its_samples() {
        let of =
            |correct, total| differentiated(&Differentiated { loss: 1.0, d_beta: 0.0, correct, total }, 3);
        assert_eq!(of(2, 3).unwrap().correct, 2);
        says(of(2, 4), "differentiated 4 samples");
        says(of(4, 3), "4 of them right");
    }
}
