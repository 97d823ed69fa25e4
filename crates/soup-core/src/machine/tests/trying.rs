//! Verdicts that are certain before all samples are judged: the same as those on all of them, after the same samples on any cluster.

use super::*;
use crate::journal::SoupRecord;

const WALKS: [RecipeKind; 3] = [RecipeKind::Greedy, RecipeKind::Pruned, RecipeKind::Learned];

/// A cluster of so many workers that has run to its end.
fn ran(plan: &Plan, workers: u32) -> Cluster {
    let mut cluster = Cluster::new(plan.clone());
    (0..workers).for_each(|_| cluster.join());
    cluster.run_quietly();
    cluster
}

fn told(cluster: &Cluster) -> Vec<(Soup, Ingredient, u32, Verdict)> {
    let decisions = cluster.machine.replay().decisions;
    decisions.into_iter().map(|d| (d.soup, d.candidate, d.pass, d.verdict)).collect()
}

fn verified(cluster: &Cluster) -> crate::journal::Verified {
    verified_by(cluster, &cluster.records).unwrap()
}

/// Samples that were judged of soups that were rejected, and how many there were.
fn judged_of_rejected(cluster: &Cluster) -> (u64, u64) {
    let decisions = cluster.machine.replay().decisions;
    let rejected = decisions.iter().filter(|d| d.verdict == Verdict::Rejected);
    rejected.fold((0, 0), |(judged, all), d| (judged + d.score.samples(), all + d.bar.samples()))
}

#[test]
fn early_verdicts_are_those_of_full_evaluation_after_fewer_samples() {
    for kind in WALKS {
        for accept in [Accept::AtLeast, Accept::Better] {
            for metric in ["accuracy", "loss", "macro-f1", "matthews"] {
                let of = plan(kind, 6, 1);
                let recipe = RecipeSpec { accept, metric: metric.parse().unwrap(), ..of.recipe.clone() };
                let early = ran(&Plan { recipe: recipe.clone(), ..of.clone() }, 2);
                let full = ran(&Plan { recipe, early: false, ..of }, 2);
                let about = format!("{kind:?} {accept:?} {metric}");
                assert_eq!(told(&early), told(&full), "{about}");
                assert_eq!(early.machine.chosen(), full.machine.chosen(), "{about}");
                // What both have scored has the same score, to the bit, in whichever order its samples were judged.
                let both = early.log.scores.iter().filter_map(|(of, score)| {
                    full.machine.ledger.score(of.dataset, &of.soup).map(|other| (score, other))
                });
                both.for_each(|(early, full)| assert_eq!(early, full, "{about}"));
                let (judged, all) = judged_of_rejected(&early);
                assert!(judged < all || all == 0, "{about}: {judged} of {all}");
                assert_eq!(judged_of_rejected(&full), (all, all));
                let (early, full) = (verified(&early), verified(&full));
                assert_eq!((early.decisions, full.rejections), (full.decisions, 0), "{about}");
                assert_eq!(early.rejections > 0, all > 0, "{about}");
            }
        }
    }
}

#[test]
fn verdicts_come_after_the_same_samples_on_any_cluster_and_through_restarts() {
    for kind in WALKS {
        let plan = plan(kind, 6, 1);
        let expected = reference(&plan);
        for (workers, lookahead) in [(1, Some(0)), (3, Some(4)), (9, Some(2)), (1, None), (40, None)] {
            let cluster = ran(&Plan { lookahead, ..plan.clone() }, workers);
            assert_eq!(cluster.outcome(), expected, "{kind:?} {workers} {lookahead:?}");
        }
        // The last answers come first, and the coordinator dies now and then.
        for period in [7, 16, 45] {
            let mut cluster = Cluster::new(plan.clone());
            (0..3).for_each(|_| cluster.join());
            let mut events = 0;
            while cluster.result.is_none() {
                events += 1;
                if events % period == 0 && events < 400 {
                    cluster.restart(events % 2 == 0);
                } else if cluster.entry.is_some() && events % 3 == 0 {
                    cluster.durable();
                } else if cluster.inbox.is_empty() {
                    cluster.durable();
                    cluster.now += 1000;
                    cluster.event(Event::Tick);
                } else {
                    cluster.answer(cluster.inbox.len() - 1);
                }
            }
            assert_eq!(cluster.outcome(), expected, "{kind:?} {period}");
            verified(&cluster);
        }
    }
}

#[test]
fn slices_beyond_a_verdict_are_taken_back_and_never_recorded() {
    // What was rejected is not judged again for the report.
    let plan = Plan { baselines: false, ..plan(RecipeKind::Greedy, 6, 1) };
    let mut cluster = Cluster::new(plan);
    (0..9).for_each(|_| cluster.join());
    let is_of = |work: &Work, soup: &SoupRecord| matches!(work, Work::Evaluate(of, _) if SoupRecord::from(&of.soup) == *soup);
    let mut given = BTreeSet::new();
    while cluster.result.is_none() {
        if cluster.entry.is_none() && cluster.inbox.is_empty() {
            cluster.now += 1000;
            cluster.event(Event::Tick);
        } else {
            cluster.step();
        }
        given.extend(cluster.inbox.iter().map(|(_, _, work)| work.clone()));
        if let Some(Entry::Rejected(rejected)) = &cluster.entry {
            let mut under_way = cluster.inbox.iter().map(|(_, _, work)| work);
            assert!(!under_way.any(|work| is_of(work, &rejected.soup)), "{:?}", rejected.soup);
        }
    }
    let mut rejected: Vec<SoupRecord> = Vec::new();
    for record in &cluster.records {
        match &record.entry {
            Entry::Rejected(of) => rejected.push(of.soup.clone()),
            Entry::Slices(slices) => assert!(slices.iter().all(|slice| !rejected.contains(&slice.soup))),
            _ => {}
        }
    }
    let of_rejected = given.iter().filter(|work| rejected.iter().any(|soup| is_of(work, soup)));
    let taken_back = of_rejected.filter(|work| !cluster.evaluated.contains_key(*work)).count();
    assert!(taken_back > 0, "{} were rejected", rejected.len());
}

#[test]
fn the_report_tells_of_the_same_ingredients_alone_however_many_were_tried_ahead() {
    let right = |right: u64| -> Tally {
        let outcome = |sample: u64| {
            let label = (sample % 10) as u32;
            let prediction = if sample < right { label } else { (label + 1) % 10 };
            Outcome { label, prediction, loss: 0.5 }
        };
        Tally::Classes((0..SAMPLES[0]).map(outcome).collect::<Vec<_>>().iter().collect())
    };
    let of = |ingredients: &[u32]| Evaluation {
        dataset: Dataset::VALIDATION,
        soup: Soup::mean(ingredients.iter().copied().map(Ingredient)).unwrap(),
    };
    // To leave out either of the two is better, and what remains of the first trial is the soup.
    let scores = [(of(&[0, 1]), right(100)), (of(&[0]), right(150)), (of(&[1]), right(160))];
    let pruned = plan(RecipeKind::Pruned, 2, 1);
    let given: Arc<[f64]> = Arc::new([1.0, 2.0]);
    for (order, ranking, baselines) in [(Order::Sorted, Some(given), true), (Order::Pool, None, false)] {
        let recipe = RecipeSpec { order, ..pruned.recipe.clone() };
        let plan = Plan { recipe, ranking, baselines, recall: true, ..pruned.clone() };
        let cooked = |ahead: u32| {
            let mut cluster = Cluster::new(Plan { lookahead: Some(ahead), ..plan.clone() });
            cluster.earlier = scores.iter().cloned().collect();
            cluster.join();
            cluster.run_quietly();
            let (machine, replay) = (&cluster.machine, cluster.machine.replay());
            assert_eq!(machine.chosen(), Some(&of(&[1]).soup));
            let scored = machine.ledger.validation(&of(&[0]).soup).is_some();
            let told = [0, 1].map(|one| machine.tells_of(&of(&[one]).soup, &replay));
            (scored, told, machine.best_single())
        };
        let best = baselines.then(|| of(&[1]).soup);
        assert_eq!(cooked(0), (false, [false, true], best.clone()), "{order:?}");
        assert_eq!(cooked(1), (true, [false, true], best), "{order:?}");
    }
}

#[test]
fn without_kept_outcomes_samples_are_judged_in_their_own_order() {
    let plan = Plan { lookahead: Some(0), ..plan(RecipeKind::Greedy, 6, 1) };
    let expected = ran(&plan, 2);
    let mut cluster = Cluster::new(plan);
    (0..2).for_each(|_| cluster.join());
    // The third trial has to reach the one that was accepted last.
    while cluster.machine.replay().decisions.len() < 3 {
        cluster.step();
    }
    cluster.kept.clear();
    cluster.restart(true);
    cluster.run_quietly();
    assert_eq!(told(&cluster), told(&expected));
    let (judged, all) = judged_of_rejected(&cluster);
    assert!(judged < all, "{judged} of {all}");
    assert_ne!(cluster.outcome().1, expected.outcome().1, "after other samples");
    verified(&cluster);
}

#[test]
fn a_log_with_a_verdict_that_is_not_certain_is_refused() {
    let cluster = ran(&plan(RecipeKind::Greedy, 6, 1), 1);
    let at = cluster.records.iter().position(|r| matches!(r.entry, Entry::Rejected(_))).unwrap();
    let refused = |change: &dyn Fn(&mut crate::journal::Rejected)| {
        let mut records = cluster.records.clone();
        let Entry::Rejected(rejected) = &mut records[at].entry else { unreachable!() };
        change(rejected);
        verified_by(&cluster, &records).unwrap_err().chain()
    };
    let right = |rejected: &mut crate::journal::Rejected| {
        let Tally::Classes(counts) = &mut rejected.judged else { unreachable!() };
        let right: Vec<_> = counts.confusion.iter().map(|(&(label, _), &n)| ((label, label), n)).collect();
        counts.confusion.clear();
        right.into_iter().for_each(|(pair, n)| *counts.confusion.entry(pair).or_default() += n);
        counts.correct = counts.total;
    };
    assert!(refused(&right).contains("may reach its bar yet"));
    let other_bar = |rejected: &mut crate::journal::Rejected| rejected.bar = rejected.soup.clone();
    assert!(refused(&other_bar).contains("may reach its bar yet"));
    let more = |rejected: &mut crate::journal::Rejected| {
        let Tally::Classes(counts) = &mut rejected.judged else { unreachable!() };
        counts.total += 1000;
    };
    assert!(refused(&more).contains("nothing is decided on"));
}

#[test]
fn who_adds_up_samples_in_another_order_fails() {
    let mut cluster = Cluster::new(plan(RecipeKind::Greedy, 6, 1));
    cluster.join();
    let ordered = |(_, _, work): &(WorkerId, TaskKey, Work)| matches!(work, Work::Evaluate(_, slice) if !slice.sequence.is_natural());
    while !cluster.inbox.front().is_some_and(ordered) || cluster.entry.is_some() {
        cluster.step();
    }
    let (worker, key, work) = cluster.inbox.pop_front().unwrap();
    let TaskResult::Evaluated(judged) = cluster.truth(&work) else { unreachable!() };
    cluster.event(Event::Done(worker, key, TaskResult::Evaluated(Judged::Tally(judged.tally()))));
    assert!(cluster.machine.tasks.has_failed(&work));
    let Work::Evaluate(evaluation, slice) = &work else { unreachable!() };
    assert!(!cluster.machine.slice_done(evaluation, slice));
}
