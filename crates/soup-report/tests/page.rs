//! Pages of real and of hostile reports: well-formed figures, nothing but text from names, bounded, the same every time.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;

use roxmltree::Document;
use serde_json::{Value, json};
use soup_core::diagnosis::{Alternative, Geometry, LayerGeometry, Marginal, Outlier, SharedInitVerdict};
use soup_core::recipe::{Accept, Verdict};
use soup_core::report::{Figures, LearnedStep, Ranked, RunReport};
use soup_report::html;

/// A greedy cook of the example pool with its full diagnosis.
fn greedy() -> RunReport {
    serde_json::from_str(include_str!("data/greedy.json")).unwrap()
}

/// A learned cook of the example pool: a weight for every layer.
fn learned() -> RunReport {
    serde_json::from_str(include_str!("data/learned.json")).unwrap()
}

fn figures(correct: u64, total: u64) -> Figures {
    let accuracy = correct as f64 / total as f64;
    Figures::Classes { correct, total, accuracy, loss: Some(0.5), metric: BTreeMap::new() }
}

/// The SVG elements of a page, each parsed as XML; tags around them are HTML's.
fn figures_of(page: &str) -> Vec<Document<'_>> {
    let parts = page.split("<svg ").skip(1).map(|part| part.split_inclusive("</svg>").next().unwrap().len());
    let starts: Vec<usize> = page.match_indices("<svg ").map(|(at, _)| at).collect();
    let texts = starts.iter().zip(parts).map(|(&at, length)| &page[at..at + "<svg ".len() + length]);
    texts.map(|text| Document::parse(text).unwrap_or_else(|e| panic!("{e}: {text:.400}"))).collect()
}

/// Whether an attribute of a figure holds text rather than numbers.
fn is_text(name: &str) -> bool {
    matches!(name, "class" | "aria-label" | "role" | "fill" | "transform")
}

/// What holds for every page.
fn check(page: &str) -> usize {
    assert!(page.starts_with("<!DOCTYPE html>"));
    for forbidden in ["<script", "javascript:", "onload", "@import", "url(", "src="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let urls = page.replace("http://www.w3.org/2000/svg", "");
    for scheme in ["=\"http://", "=\"https://", "=\"//"] {
        assert!(!urls.contains(scheme), "a resource from the network: {scheme}");
    }
    let figures = figures_of(page);
    for figure in &figures {
        let root = figure.root_element();
        assert_eq!(root.attribute("role"), Some("img"));
        assert!(root.attribute("aria-label").is_some_and(|l| !l.is_empty()));
        for node in figure.descendants().filter(|n| n.is_element()) {
            for attribute in node.attributes().filter(|a| !is_text(a.name())) {
                let numbers = attribute.value().split(|c: char| !(c.is_ascii_digit() || "-.".contains(c)));
                let numbers: Vec<&str> = numbers.filter(|n| !n.is_empty()).collect();
                assert!(!numbers.is_empty(), "{}={:?}", attribute.name(), attribute.value());
                let letters = attribute.value().chars().filter(char::is_ascii_alphabetic);
                assert!(
                    letters.clone().all(|c| "MLZhvz".contains(c)),
                    "{}={:?}",
                    attribute.name(),
                    attribute.value()
                );
            }
            for length in ["width", "height", "r"] {
                let value = node.attribute(length).map(|v| v.parse::<f64>().unwrap());
                assert!(value.is_none_or(|v| v >= 0.0), "{length}={value:?}");
            }
        }
    }
    figures.len()
}

fn sections(page: &str) -> Vec<&str> {
    page.split("<section id=\"").skip(1).map(|s| s.split('"').next().unwrap()).collect()
}

#[test]
fn a_full_report_has_every_section() {
    let page = html(&greedy());
    assert_eq!(sections(&page), ["scores", "ingredients", "decisions", "geometry", "between", "uses", "run"]);
    assert!(check(&page) >= 12);
    for text in ["Greedy soup: 3 of 16 checkpoints", "87.50 %", "+0.60 points", "+5.00 points", "m10"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains(&greedy().sha256));
}

#[test]
fn a_learned_report_shows_weights_and_steps() {
    let page = html(&learned());
    assert!(sections(&page).contains(&"learned"));
    check(&page);
    for text in [
        "layer.5, m10: 0.", // a cell's tooltip
        "mean cross-entropy of the mini-batch",
        "what logits are multiplied by",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn sections_without_data_are_left_out() {
    let mut report = greedy();
    report.diagnosis = None;
    report.trials.clear();
    report.ranking.clear();
    report.baselines = Default::default();
    report.test.clear();
    let page = html(&report);
    assert_eq!(sections(&page), ["scores", "run"]);
    check(&page);
    report.seconds.clear();
    assert!(figures_of(&html(&report)).is_empty());
}

#[test]
fn a_soup_that_was_not_judged_says_so() {
    let mut report = greedy();
    (report.score, report.validation) = (None, String::new());
    report.trials.clear();
    report.ranking.clear();
    report.baselines = Default::default();
    report.test.clear();
    let page = html(&report);
    check(&page);
    assert!(page.contains("not scored") && !sections(&page).contains(&"scores"));
    assert!(sections(&page).contains(&"geometry"), "what needs no data is there");
}

#[test]
fn the_same_report_gives_the_same_bytes() {
    assert_eq!(html(&greedy()), html(&greedy()));
    assert_eq!(html(&learned()), html(&learned()));
}

/// Replaces a name wherever it is in a report.
fn renamed(report: &RunReport, from: &str, to: &str) -> RunReport {
    fn replace(value: &mut Value, from: &str, to: &str) {
        match value {
            Value::String(text) if text == from => *text = to.to_owned(),
            Value::Array(all) => all.iter_mut().for_each(|v| replace(v, from, to)),
            Value::Object(map) => {
                map.values_mut().for_each(|v| replace(v, from, to));
                if let Some(value) = map.remove(from) {
                    map.insert(to.to_owned(), value);
                }
            }
            _ => {}
        }
    }
    let mut value = serde_json::to_value(report).unwrap();
    replace(&mut value, from, to);
    serde_json::from_value(value).unwrap()
}

#[test]
fn names_are_text_and_nothing_else() {
    let hostile = "\"><script>alert('&')</script><img src=x onerror=\"x\">";
    for report in [greedy(), learned()] {
        let mut report = renamed(&renamed(&report, "m10", hostile), "rotated", hostile);
        report.validation = hostile.to_owned();
        report.output = hostile.to_owned();
        report.notes = vec![hostile.to_owned()];
        if let Some(diagnosis) = &mut report.diagnosis {
            diagnosis.base = Some(hostile.to_owned());
            diagnosis.shared_init.explanation = hostile.to_owned();
            diagnosis.outliers = vec![Outlier { ingredient: hostile.to_owned(), reason: hostile.to_owned() }];
            diagnosis.duplicates = vec![vec![hostile.to_owned(), "m01".to_owned()]];
        }
        let page = html(&report);
        let text = page.replace("src=x", "").replace("onerror", "");
        check(&text);
        assert!(page.contains("&lt;script&gt;alert('&amp;')&lt;/script&gt;"));
        assert!(!page.contains("<img"));
    }
}

#[test]
fn what_turns_the_direction_of_a_text_is_spelled_out() {
    let page = html(&renamed(&greedy(), "m10", "a\u{202e}b\u{1b}"));
    check(&page);
    assert!(page.contains("a\\u{202e}b\\u{1b}") && !page.contains(['\u{202e}', '\u{1b}']));
}

#[test]
fn what_is_not_finite_is_left_out() {
    let mut report = learned();
    let broken = learned().learned.map(|mut learned| {
        learned.weights[0][0] = f64::NAN;
        learned.weights[1][1] = f64::INFINITY;
        learned.beta = f64::NAN;
        learned.steps[0].loss = None;
        learned.steps[1].beta = f64::NEG_INFINITY;
        learned
    });
    report.learned = broken;
    check(&html(&report));

    let mut report = greedy();
    report.trials[0].bar = f64::NAN;
    report.score = Some(figures(0, 0));
    report.ranking[0].score = figures(0, 0);
    report.seconds.insert("load".to_owned(), f64::NAN);
    let diagnosis = report.diagnosis.as_mut().unwrap();
    diagnosis.geometry.norms[0] = f64::NAN;
    diagnosis.geometry.angles_deg[0][1] = None;
    diagnosis.geometry.angles_deg[1][2] = Some(f64::NAN);
    diagnosis.layers[0].norms[0] = f64::INFINITY;
    diagnosis.layers[1].mean_angle_deg = None;
    let point = &mut diagnosis.interpolation[0].points[0];
    point.score = point.score.clone().without_loss();
    diagnosis.interpolation[0].points[1].t = f64::NAN;
    diagnosis.plane.as_mut().unwrap().scores[0][0] = None;
    diagnosis.plane.as_mut().unwrap().x[0] = 1e300;
    check(&html(&report));
    report.diagnosis.as_mut().unwrap().plane.as_mut().unwrap().corners[0] = [f64::NAN, 0.0];
    check(&html(&report));
}

#[test]
fn trials_are_told_of_by_the_rule_that_accepted_them() {
    let mut report = greedy();
    assert!(html(&report).contains("2 of 15 reached the bar (line) and became the soup"));
    // A soup that is as good as the bar reaches it, and is rejected.
    report.options.accept = Accept::Better;
    let tie = report.trials.iter_mut().find(|trial| trial.verdict == Verdict::Rejected).unwrap();
    (tie.score, tie.bound, tie.evaluated, tie.out_of) = (None, Some(tie.bar), 160, 2000);
    let page = html(&report);
    assert!(page.contains("2 of 15 were better than the bar (line) and became the soup"));
    assert!(page.contains("1 were certain to be rejected after 8.00 % of their samples"));
    (report.options.accept, report.options.alpha) = (Accept::Significant, Some(0.05));
    assert!(html(&report).contains("by more than luck explains (p of at most 0.05) and became the soup"));
}

#[test]
fn data_of_odd_shapes_are_no_reason_to_panic() {
    let mut report = greedy();
    let diagnosis = report.diagnosis.as_mut().unwrap();
    diagnosis.ingredients.truncate(3);
    diagnosis.geometry.norms.truncate(2);
    diagnosis.geometry.angles_deg[0].clear();
    diagnosis.plane.as_mut().unwrap().y.truncate(1);
    diagnosis.plane.as_mut().unwrap().corners.truncate(1);
    diagnosis.interpolation[0].points.truncate(1);
    diagnosis.alternatives.truncate(1);
    diagnosis.marginal_utility.truncate(1);
    diagnosis.layers.truncate(1);
    check(&html(&report));
    let mut report = learned();
    let learned = report.learned.as_mut().unwrap();
    learned.groups.truncate(1);
    learned.weights[1].truncate(2);
    learned.steps.truncate(1);
    check(&html(&report));
    report.learned = Some(Default::default());
    check(&html(&report));
}

#[test]
fn negative_weights_go_to_the_left_and_have_a_colour_of_their_own() {
    let mut report = learned();
    let learned = report.learned.as_mut().unwrap();
    learned.groups = vec!["model".to_owned()];
    learned.weights.truncate(1);
    learned.weights[0][3] = -0.25;
    let page = html(&report);
    check(&page);
    assert!(page.contains("class=\"fill negative\""));
    assert!(page.contains("m03: -0.2500"));
}

#[test]
fn separate_initialisations_are_a_warning() {
    let mut report = greedy();
    assert!(html(&report).contains("banner wide good"));
    let init = &mut report.diagnosis.as_mut().unwrap().shared_init;
    init.verdict = SharedInitVerdict::Separate;
    init.explanation = "angles of 89.9 degrees".to_owned();
    let page = html(&report);
    assert!(page.contains("banner wide warning") && page.contains("angles of 89.9 degrees"));
}

#[test]
fn a_recipe_that_compares_losses_is_plotted_by_loss() {
    let mut value = serde_json::to_value(greedy()).unwrap();
    value["options"]["metric"] = json!("loss");
    let page = html(&serde_json::from_value(value).unwrap());
    check(&page);
    assert!(page.contains("loss on validation") && page.contains("loss 0.4623"));
}

#[test]
fn ingredients_are_ranked_by_what_the_recipe_compares() {
    let mut report = greedy();
    report.options.metric = "loss".parse().unwrap();
    let loss_of = |place: usize| 0.25 + place as f64 / 100.0;
    // Who has more samples right has the higher loss.
    for (place, ranked) in report.ranking.iter_mut().enumerate() {
        ranked.score = figures(1000 + place as u64, 2000);
        if let Figures::Classes { loss, .. } = &mut ranked.score {
            *loss = Some(loss_of(place));
        }
    }
    let page = html(&report);
    check(&page);
    let row =
        |place: usize| page.find(&format!("<title>m{place:02}: {:.4}</title>", loss_of(place))).unwrap();
    assert!((1..16).all(|place| row(place - 1) < row(place)));
}

#[test]
fn a_model_that_is_no_classifier_is_shown_by_its_metric() {
    let mut report = greedy();
    report.options.metric = "perplexity".parse().unwrap();
    report.lower_is_better = true;
    let of = |value| Figures::Sums { samples: 50, figures: [("nll".to_owned(), Some(3.5))].into(), value };
    report.score = Some(of(Some(7.25)));
    (report.test, report.baselines, report.diagnosis) = Default::default();
    report.ranking.iter_mut().for_each(|r| (r.score, r.test) = (of(Some(8.0)), BTreeMap::new()));
    report.trials.iter_mut().for_each(|t| (t.score, t.bar) = (Some(of(Some(7.5))), 7.25));
    report.trials[0].score = Some(of(None));
    let page = html(&report);
    check(&page);
    assert!(
        page.contains("perplexity on validation") && page.contains("7.2500") && !page.contains("accuracy")
    );
    assert!(page.contains("<title>m00: 8.0000</title>"));
}

/// A pool of `k` ingredients whose report has everything.
fn large(k: usize) -> RunReport {
    let mut report = greedy();
    let names: Vec<String> = (0..k).map(|i| format!("fine-tuned-model-{i:04}")).collect();
    let score = |i: usize| figures(1500 + (i * 37 % 250) as u64, 2000);
    report.ingredients = names.iter().step_by(3).cloned().collect();
    report.ranking = (0..k)
        .map(|i| Ranked { ingredient: names[i].clone(), score: score(i), test: report.test.clone() })
        .collect();
    let trial = report.trials[0].clone();
    report.trials = (0..4 * k)
        .map(|i| {
            let mut trial = trial.clone();
            trial.candidate = names[i % k].clone();
            trial.score = Some(score(i));
            trial
        })
        .collect();
    let diagnosis = report.diagnosis.as_mut().unwrap();
    let angle = |a: usize, b: usize| Some(40.0 + ((a * b) % 50) as f64);
    diagnosis.geometry = Geometry {
        norms: (0..k).map(|i| 1.0 + (i % 17) as f64).collect(),
        angles_deg: (0..k).map(|a| (0..k).map(|b| angle(a, b)).collect()).collect(),
    };
    let layer = |l: usize| LayerGeometry {
        layer: format!("model.layers.{l}"),
        norms: vec![1.0; k],
        mean_angle_deg: Some(50.0 + l as f64 / 4.0),
    };
    diagnosis.layers = (0..80).map(layer).collect();
    diagnosis.marginal_utility = (0..k)
        .map(|i| Marginal { ingredient: names[i].clone(), size: i as u32 + 1, score: score(i) })
        .collect();
    diagnosis.alternatives = (0..40)
        .map(|i| Alternative {
            name: format!("ensemble {i}"),
            ingredients: names.clone(),
            votes: BTreeMap::new(),
            forward_passes: 1 << (i % 20),
            score: score(i),
            test: BTreeMap::new(),
        })
        .collect();
    diagnosis.ingredients = names;
    report.learned = learned().learned.map(|mut learned| {
        learned.groups = (0..300).map(|g| format!("model.layers.{g}.mlp.weight")).collect();
        learned.weights = vec![(0..k).map(|i| i as f64 / k as f64 - 0.2).collect(); 300];
        learned.steps = (1..=50_000)
            .map(|step| LearnedStep {
                step,
                loss: Some(1.0 / f64::from(step)),
                beta: 1.0,
                ..Default::default()
            })
            .collect();
        learned
    });
    report
}

#[test]
fn a_page_is_bounded_for_large_pools() {
    let page = html(&large(500));
    check(&page);
    assert!(page.len() < 6_000_000, "{} bytes", page.len());
    assert!(page.contains("the mean of up to 3 x 3 neighbours"));
    let small = html(&large(41));
    check(&small);
    assert!(small.len() < page.len());
}
