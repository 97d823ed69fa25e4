//! Soups that replace the incumbent only where they are significantly better, and rankings that are given.

use super::*;
use crate::significance::{Discordant, McNemar};

/// A cluster of so many workers that has run to its end.
fn ran(plan: &Plan, workers: u32) -> Cluster {
    let mut cluster = Cluster::new(plan.clone());
    (0..workers).for_each(|_| cluster.join());
    cluster.run_quietly();
    cluster
}

fn significant(kind: RecipeKind, alpha: f64) -> Plan {
    let of = plan(kind, 6, 1);
    let recipe = RecipeSpec { accept: Accept::Significant, alpha: Some(alpha), ..of.recipe.clone() };
    Plan { recipe, ..of }
}

fn outcomes(soup: &Soup) -> Vec<Outcome> {
    let of = Evaluation { dataset: Dataset::VALIDATION, soup: soup.clone() };
    (0..SAMPLES[0]).map(|sample| outcome(&of, sample)).collect()
}

/// The greedy soup, worked out by itself.
fn greedy_by_hand(alpha: f64) -> (Soup, usize) {
    let right = |soup: &Soup| outcomes(soup).iter().filter(|o| o.label == o.prediction).count();
    let mut order: Vec<Soup> = (0..6).map(|i| Soup::single(Ingredient(i))).collect();
    order.sort_by_key(|soup| std::cmp::Reverse(right(soup)));
    let (mut soup, mut accepted) = (order[0].clone(), 0);
    for _ in 0..2 {
        let before = accepted;
        for single in &order {
            let candidate = single.members()[0];
            if soup.contains(candidate) {
                continue;
            }
            let tried = soup.with(candidate);
            let counts = Discordant::of(&outcomes(&tried), &outcomes(&soup)).unwrap();
            if McNemar::of(counts).better <= alpha {
                (soup, accepted) = (tried, accepted + 1);
            }
        }
        if accepted == before {
            break;
        }
    }
    (soup, accepted)
}

#[test]
fn what_is_accepted_is_significantly_better() {
    let mut accepted_by_any = 0;
    for alpha in [0.001, 0.05, 0.2, 0.4, 0.49] {
        let (soup, accepted) = greedy_by_hand(alpha);
        accepted_by_any += accepted;
        for (early, workers, lookahead) in
            [(true, 1, Some(0)), (true, 3, None), (false, 2, Some(3)), (true, 40, Some(9))]
        {
            let cluster = ran(&Plan { early, lookahead, ..significant(RecipeKind::Greedy, alpha) }, workers);
            let (chosen, decisions, _) = cluster.outcome();
            assert_eq!(chosen, soup, "{alpha} {early} {workers}");
            let accepted_here = decisions.iter().filter(|d| d.verdict == Verdict::Accepted);
            assert_eq!(accepted_here.clone().count(), accepted);
            let shown = |d: &Decision| d.compared.is_some_and(|counts| McNemar::of(counts).better <= alpha);
            assert!(accepted_here.clone().all(shown));
            let verified = verified_by(&cluster, &cluster.records).unwrap();
            assert_eq!(
                verified.comparisons as usize,
                decisions.iter().filter(|d| d.compared.is_some()).count()
            );
        }
    }
    assert!(accepted_by_any > 0, "the world is too even to show anything");
}

#[test]
fn comparisons_outlive_the_coordinator() {
    for kind in [RecipeKind::Greedy, RecipeKind::Pruned, RecipeKind::Learned] {
        let plan = significant(kind, 0.45);
        let expected = reference(&plan);
        for period in [1, 2, 5, 13] {
            let mut cluster = Cluster::new(plan.clone());
            (0..2).for_each(|_| cluster.join());
            let mut entries = 0;
            while cluster.result.is_none() {
                if cluster.entry.is_some() {
                    entries += 1;
                    let restart = entries % period == 0 && entries < 200;
                    if restart {
                        cluster.restart(entries % 2 == 0)
                    } else {
                        cluster.durable()
                    }
                    if restart && period == 1 {
                        cluster.durable();
                    }
                } else if cluster.inbox.is_empty() {
                    cluster.now += 1000;
                    cluster.event(Event::Tick);
                } else {
                    cluster.answer(0);
                }
            }
            assert_eq!(cluster.outcome(), expected, "{kind:?} {period}");
            verified_by(&cluster, &cluster.records).unwrap();
        }
    }
}

#[test]
fn a_log_whose_comparison_is_not_that_of_the_scores_is_refused() {
    let cluster = ran(&significant(RecipeKind::Greedy, 0.45), 1);
    let at = cluster.records.iter().position(|r| matches!(r.entry, Entry::Compared(_))).unwrap();
    let refused = |change: &dyn Fn(&mut Compared), part: &str| {
        let mut records = cluster.records.clone();
        let Entry::Compared(compared) = &mut records[at].entry else { unreachable!() };
        change(compared);
        let error = verified_by(&cluster, &records).unwrap_err().chain();
        assert!(error.contains(part), "{error}");
    };
    refused(&|c| c.counts.gains += 1, "their scores do not differ");
    refused(&|c| std::mem::swap(&mut c.soup, &mut c.reference), "their scores do not differ");
    refused(
        &|c| (c.counts.gains, c.counts.losses) = (c.counts.gains + 900, c.counts.losses + 900),
        "scores do not",
    );
    refused(&|c| c.dataset = 1, "their scores do not differ");
}

#[test]
fn without_kept_outcomes_nothing_is_taken_to_be_significant() {
    let mut cluster = Cluster::new(significant(RecipeKind::Greedy, 0.45));
    cluster.join();
    while cluster.log.scores.len() < 6 {
        cluster.step();
    }
    cluster.kept.clear();
    cluster.restart(true);
    cluster.run_quietly();
    let Some(Err(error)) = &cluster.result else { panic!("{:?}", cluster.result) };
    assert!(error.chain().contains("nothing is kept of those of the soup of ingredients"), "{error:?}");

    // Scores that earlier runs left without them are found anew.
    let plan = Plan { recall: true, ..significant(RecipeKind::Greedy, 0.45) };
    let mut again = Cluster::new(plan.clone());
    again.earlier = ran(&plan, 1).log.scores.iter().cloned().collect();
    again.join();
    again.run_quietly();
    assert_eq!(again.outcome(), reference(&plan));
}

#[test]
fn a_ranking_that_is_given_is_not_found_out() {
    for (kind, lower_is_better) in
        [(RecipeKind::Greedy, false), (RecipeKind::Pruned, false), (RecipeKind::Greedy, true)]
    {
        let mut of = plan(kind, 6, 1);
        if lower_is_better {
            of.recipe.metric = "loss".parse().unwrap();
        }
        let scores: Arc<[f64]> = [0.5, 0.7, 0.2, 0.7, -0.0, 0.0].into();
        let given = Plan { ranking: Some(scores), ..of };
        let cluster = ran(&given, 2);
        let order: Vec<u32> = cluster.machine.replay().order.iter().map(|i| i.0).collect();
        // Ties are in pool order in both directions.
        let expected: [u32; 6] = match (kind, lower_is_better) {
            (RecipeKind::Greedy, false) => [1, 3, 0, 2, 4, 5],
            _ => [4, 5, 2, 0, 1, 3],
        };
        assert_eq!(order, expected, "{kind:?}");
        let best = Soup::single(Ingredient(if lower_is_better { 4 } else { 1 }));
        assert_eq!(cluster.machine.best_single(), Some(best.clone()));
        let singles = cluster.log.scores.iter().filter(|(e, _)| e.soup.members().len() == 1);
        let scored: BTreeSet<&Soup> = singles.map(|(e, _)| &e.soup).collect();
        assert!(scored.contains(&best));
        // A pruned soup may have come down to one.
        assert!(scored.len() <= 2, "{scored:?}");
        verified_by(&cluster, &cluster.records).unwrap();
        assert_eq!(ran(&given, 9).outcome(), cluster.outcome());
    }
}
