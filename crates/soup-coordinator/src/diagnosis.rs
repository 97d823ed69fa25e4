//! What a report says of the pool itself, from what the machine found out.

use std::collections::BTreeMap;

use soup_core::diagnosis::ensemble::{Alternatives, STACK_INGREDIENTS_MAX};
use soup_core::diagnosis::{Alternative, Curve, Diagnosis, path};
use soup_core::ledger::Dataset;
use soup_core::machine::{LINE_SEGMENTS, Machine};
use soup_core::report::Sources;
use soup_core::soup::{Ingredient, Soup};
use soup_core::tally::Counts;

use crate::prepare::PreparedRun;

/// Layers are reported for pools up to this many ingredients.
const LAYERS_INGREDIENTS_MAX: usize = 256;

/// The diagnosis, where inner products were taken. `chosen` is the recipe's soup.
pub(crate) fn diagnose(
    machine: &Machine,
    sources: &Sources<'_>,
    prepared: &PreparedRun,
    chosen: &Soup,
) -> Option<Diagnosis> {
    let measured = machine.measured()?;
    let names = &prepared.names;
    let layers = &soup_core::layer::Layers::new(&prepared.schema).names;
    let named = |group: Vec<usize>| group.into_iter().map(|i| names[i].clone()).collect();
    let order = machine.ranking();
    let full = machine.compared();
    let origin = if prepared.spec.diagnosis.base.is_some() { "the base" } else { "the pool's mean" };
    Some(Diagnosis {
        ingredients: names.clone(),
        base: prepared.spec.diagnosis.base.clone(),
        geometry: measured.whole.geometry(),
        layers: match names.len() <= LAYERS_INGREDIENTS_MAX {
            true => layers.iter().zip(&measured.layers).map(|(name, gram)| gram.layer(name)).collect(),
            false => Vec::new(),
        },
        duplicates: machine.duplicates().into_iter().map(named).collect(),
        outliers: measured.whole.outliers(names, origin),
        shared_init: measured.matrices.shared_init(),
        interpolation: order.as_ref().map_or_else(Vec::new, |o| curves(machine, sources, o)),
        plane: order.as_ref().filter(|_| full.is_some()).and_then(|o| Some(machine.grid(o)?.plane(sources))),
        marginal_utility: match (&order, full) {
            (Some(order), Some(_)) => path::marginal_utility(sources, order),
            _ => Vec::new(),
        },
        alternatives: full
            .map_or_else(Vec::new, |found| alternatives(machine, sources, prepared, (chosen, found))),
    })
}

fn curves(machine: &Machine, sources: &Sources<'_>, order: &[Ingredient]) -> Vec<Curve> {
    let curve = |(from, to)| path::curve(sources, from, to, LINE_SEGMENTS);
    machine.lines(order).into_iter().filter_map(curve).collect()
}

/// Soups, which cost one forward pass, and other uses of all ingredients, which cost one each.
fn alternatives(
    machine: &Machine,
    sources: &Sources<'_>,
    prepared: &PreparedRun,
    (chosen, found): (&Soup, &BTreeMap<Dataset, Alternatives>),
) -> Vec<Alternative> {
    let mut soups: Vec<(String, Soup)> = Vec::new();
    soups.extend(machine.best_single().map(|s| ("best single ingredient".to_owned(), s)));
    soups.extend(Soup::uniform(prepared.names.len() as u32).map(|s| ("uniform soup".to_owned(), s)));
    soups.push((format!("{} soup", prepared.spec.recipe.kind.name()), chosen.clone()));
    let soup = |(name, soup): (String, Soup)| {
        let b = sources.baseline(&soup)?;
        Some(Alternative {
            name,
            ingredients: b.ingredients,
            votes: BTreeMap::new(),
            forward_passes: 1,
            score: b.score,
            test: b.test,
        })
    };
    let other = |name: &str, part: fn(&Alternatives) -> Option<&Counts>, has_loss: bool| {
        let on = |dataset: Dataset| {
            let figures = sources.figures_of(&part(found.get(&dataset)?)?.clone().into())?;
            Some(if has_loss { figures } else { figures.without_loss() })
        };
        let set = |(index, name): (usize, &String)| Some((name.clone(), on(Dataset(index as u32))?));
        Some(Alternative {
            name: name.to_owned(),
            ingredients: prepared.names.clone(),
            votes: BTreeMap::new(),
            forward_passes: prepared.names.len() as u32,
            score: on(Dataset::VALIDATION)?,
            test: sources.datasets.iter().enumerate().skip(1).filter_map(set).collect(),
        })
    };
    let mut all: Vec<Alternative> = Vec::new();
    for (name, made_of) in soups {
        // The best single ingredient may be what the recipe chose.
        all.extend(soup((name, made_of)));
    }
    all.extend(other("logit ensemble", |a| Some(&a.logits), true));
    all.extend(other("majority vote", |a| Some(&a.vote), false));
    let boosting = other("boosting (fitted on the validation set)", |a| a.boosted.as_ref(), false);
    all.extend(boosting.map(|all| of_voters(all, machine.votes())));
    // No weights are better than others where what is mixed is not a number.
    let is_fitted = |found: &Alternatives| found.stacked.loss_sum.is_finite();
    if prepared.names.len() <= STACK_INGREDIENTS_MAX && found.get(&Dataset::VALIDATION).is_some_and(is_fitted)
    {
        all.extend(other("stacking (fitted on the validation set)", |a| Some(&a.stacked), true));
    }
    all
}

/// The same of those ingredients alone that have a vote: nobody has to ask the others.
fn of_voters(all: Alternative, votes: &[f64]) -> Alternative {
    let voters = all.ingredients.into_iter().zip(votes.iter().copied()).filter(|(_, vote)| *vote > 0.0);
    let (ingredients, votes): (Vec<String>, Vec<f64>) = voters.unzip();
    Alternative {
        forward_passes: ingredients.len() as u32,
        votes: ingredients.iter().cloned().zip(votes).collect(),
        ingredients,
        ..all
    }
}
