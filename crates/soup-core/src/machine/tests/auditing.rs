//! Workers that lie in a way that could be true: audits find it, and the run comes to the same.

use super::troubles::{Says, cluster, run};
use super::*;
use crate::run::PPM;

const LIAR: WorkerId = WorkerId(2);
/// Who is asked first, about the datasets too.
const SURVEYOR: WorkerId = WorkerId(1);

/// Audited by so many millionths.
fn audited(kind: RecipeKind, ppm: u32) -> Plan {
    Plan { audit: AuditPlan::new(ppm, [3; 32]), ..plan(kind, 4, 2) }
}

/// What was true, with one number changed.
fn lie(result: TaskResult) -> TaskResult {
    match result {
        TaskResult::Evaluated(Judged::Outcomes(mut outcomes)) => {
            for outcome in &mut outcomes {
                outcome.prediction = outcome.label;
            }
            TaskResult::Evaluated(Judged::Outcomes(outcomes))
        }
        TaskResult::Loaded { mut digests, notes } => {
            digests[0][0] ^= 1;
            TaskResult::Loaded { digests, notes }
        }
        TaskResult::Passed { mut digests, grams, notes } => {
            digests[0][0] ^= 1;
            TaskResult::Passed { digests, grams, notes }
        }
        TaskResult::Measured(mut grams) => {
            grams[0].packed[0] += 0.5;
            TaskResult::Measured(grams)
        }
        TaskResult::Dotted(mut segments) => {
            segments[0].dots[0] += 0.5;
            TaskResult::Dotted(segments)
        }
        TaskResult::Differentiated(figures) => {
            TaskResult::Differentiated(PartFigures { loss: figures.loss + 0.5, ..figures })
        }
        TaskResult::Reread(mut reread) if reread.blend.is_none() => {
            reread.digests[0][0] ^= 1;
            TaskResult::Reread(reread)
        }
        TaskResult::Reread(reread) => {
            TaskResult::Reread(Reread { served: reread.blend.map(|_| [66; 32]), ..reread })
        }
        other => other,
    }
}

/// Who has which shard.
fn owners(cluster: &Cluster) -> BTreeMap<u32, WorkerId> {
    let shards = 0..cluster.machine.placement.shards() as u32;
    shards.filter_map(|shard| Some((shard, cluster.machine.placement.owner(Shard(shard))?))).collect()
}

fn notes_of(cluster: &Cluster) -> Vec<String> {
    cluster.machine.notes().map(str::to_owned).collect()
}

#[track_caller]
fn assert_noted(cluster: &Cluster, part: &str) {
    let notes = notes_of(cluster);
    assert!(notes.iter().any(|note| note.contains(part)), "no note has {part:?}: {notes:#?}");
}

/// The log makes the decisions that it says, those that were taken back included.
fn assert_verified(cluster: &Cluster) -> crate::journal::Verified {
    let verified = verified_by(cluster, &cluster.records).unwrap();
    assert_eq!(verified.decisions as usize, cluster.trials.len());
    verified
}

const ALL: [RecipeKind; 4] =
    [RecipeKind::Uniform, RecipeKind::Greedy, RecipeKind::Pruned, RecipeKind::Learned];

#[test]
fn honest_workers_come_to_the_same_whatever_share_is_audited() {
    for kind in ALL {
        let expected = reference(&plan(kind, 4, 2));
        for (ppm, workers) in [(PPM / 50, 3), (PPM / 3, 2), (PPM, 2), (PPM, 3), (PPM, 1)] {
            let mut cluster = cluster(&audited(kind, ppm), workers);
            run(&mut cluster, &|_, _| Says::Right);
            assert_eq!(cluster.outcome(), expected, "{kind:?} at {ppm} on {workers}");
            assert_eq!(assert_verified(&cluster).retractions, 0);
            assert!(!notes_of(&cluster).iter().any(|note| note.contains("quarantined")));
            let text = if workers == 1 {
                "nothing could be audited"
            } else {
                "were found out again by other workers"
            };
            assert_noted(&cluster, text);
        }
    }
}

#[test]
fn what_is_audited_is_done_by_two_workers_and_nothing_else_is() {
    for (ppm, share) in [(0, 0.0), (PPM / 10, 0.1), (PPM, 1.0)] {
        // Where verdicts are certain early, what is audited may be dropped half-way.
        let mut cluster = cluster(&Plan { early: false, ..audited(RecipeKind::Greedy, ppm) }, 3);
        let by = std::cell::RefCell::new(BTreeMap::<Work, Vec<WorkerId>>::new());
        let mut seen = BTreeSet::new();
        while cluster.result.is_none() {
            let next = cluster.inbox.front().cloned().filter(|_| cluster.entry.is_none());
            if let Some((worker, key, work)) = next.filter(|(_, key, _)| key.task != 0 && seen.insert(*key)) {
                let _ = key;
                by.borrow_mut().entry(work).or_default().push(worker);
            }
            if cluster.inbox.is_empty() && cluster.entry.is_none() {
                cluster.event(Event::Tick);
            } else {
                cluster.step();
            }
        }
        cluster.outcome();
        let by = by.into_inner();
        let slices: Vec<_> = by.iter().filter(|(work, _)| matches!(work, Work::Evaluate(..))).collect();
        for (work, workers) in &slices {
            let Work::Evaluate(evaluation, slice) = work else { unreachable!() };
            let twice = cluster.machine.plan.audit.takes_slice(evaluation, slice.index);
            let different: BTreeSet<_> = workers.iter().collect();
            assert_eq!((workers.len(), different.len()), if twice { (2, 2) } else { (1, 1) }, "{work:?}");
        }
        let twice = slices.iter().filter(|(_, workers)| workers.len() == 2).count() as f64;
        assert!((twice / slices.len() as f64 - share).abs() < 0.05, "{twice} of {}", slices.len());
        let rereads = by.keys().filter(|work| matches!(work, Work::Reread(..))).count();
        assert_eq!(rereads > 0, ppm > 0);
    }
}

/// Whether work is of a kind.
type Is = fn(&Work) -> bool;

/// Whatever a worker lies about, on the first answer of its kind or always, it is found, and the soup is the same.
#[test]
fn a_worker_that_lies_is_quarantined_and_the_soup_is_the_same() {
    let kinds: [(&str, Is); 5] = [
        ("slices", |work| matches!(work, Work::Evaluate(..))),
        ("loads", |work| matches!(work, Work::Load(_))),
        ("what it read of others' shards", |work| matches!(work, Work::Reread(_, Some(_)))),
        ("slices and products", |work| matches!(work, Work::Evaluate(..) | Work::Gram(_))),
        ("everything", |_| true),
    ];
    for (what, lies_about) in kinds {
        for kind in ALL {
            for (always, liar) in [(true, LIAR), (false, LIAR), (true, SURVEYOR)] {
                // Products are not audited: one lie about them is not found.
                if !always && what.ends_with("products") {
                    continue;
                }
                let expected = reference(&plan(kind, 4, 2));
                let plan = audited(kind, PPM);
                let mut cluster = cluster(&plan, 4);
                let lied = std::cell::Cell::new(false);
                run(&mut cluster, &|worker, work| {
                    if worker != liar || !lies_about(work) || lied.get() && !always {
                        return Says::Right;
                    }
                    let truth = answer(work, &plan);
                    let lie = lie(truth.clone());
                    if lie == truth || matches!(work, Work::Survey | Work::Write(..) | Work::ReadBack(_)) {
                        return Says::Right;
                    }
                    lied.set(true);
                    Says::With(self::lie)
                });
                assert!(lied.get(), "{what}: {kind:?} had it do none of that");
                assert!(matches!(cluster.result, Some(Ok(()))), "{what}: {kind:?} {:?}", cluster.result);
                assert_eq!(cluster.outcome(), expected, "{what}: {kind:?}");
                assert_noted(&cluster, &format!("worker {} is quarantined", liar.0));
                assert!(!cluster.machine.workers.contains_key(&liar));
                if kind == RecipeKind::Greedy && liar == SURVEYOR {
                    let surveys = cluster.evaluated.get(&Work::Survey).copied();
                    assert_eq!(surveys, Some(2), "the datasets are surveyed by somebody else too");
                }
                assert_verified(&cluster);
                let others = notes_of(&cluster).iter().filter(|note| note.contains("is quarantined")).count();
                assert_eq!(others, 1, "{what}: {kind:?} {:#?}", notes_of(&cluster));
            }
        }
    }
}

/// The owner of shards gives wrong blends to everybody, and right digests to the coordinator.
#[test]
fn an_owner_that_serves_wrong_blends_is_found_by_who_reads_the_shard_again() {
    for (kind, workers) in ALL.into_iter().flat_map(|kind| [(kind, 3), (kind, 4)]) {
        let expected = reference(&plan(kind, 4, 2));
        let plan = audited(kind, PPM);
        let mut cluster = cluster(&plan, workers);
        let owns = std::cell::Cell::new(false);
        let mut begun = BTreeMap::new();
        while cluster.result.is_none() {
            owns.set(cluster.machine.placement.by_owner().contains_key(&LIAR));
            let owner = owners(&cluster);
            let play = |worker, work: &Work| match work {
                Work::Reread(shard, Some(_)) if owner.get(&shard.0) == Some(&LIAR) => {
                    let TaskResult::Reread(reread) = answer(work, &plan) else { unreachable!() };
                    // It is right that this is not what was read.
                    Says::Other(TaskResult::Reread(Reread { served: Some([66; 32]), ..reread }))
                }
                // What others say of soups that have its blends is wrong, and all say the same.
                Work::Evaluate(..) if owns.get() && worker != LIAR => Says::With(lie),
                _ => Says::Right,
            };
            super::troubles::happen(&mut cluster, &mut begun, &play);
        }
        assert_eq!(cluster.outcome(), expected, "{kind:?}");
        assert_noted(
            &cluster,
            "worker 2 is quarantined, and what it did is done again: its blend is not the one that workers",
        );
        assert_verified(&cluster);
    }
}

/// Of a share, what a liar did before it was found is in the journal: it is taken back there, and done again.
#[test]
fn what_is_in_the_journal_is_taken_back() {
    let mut retractions = 0;
    for seed in 0..24 {
        for kind in [RecipeKind::Greedy, RecipeKind::Pruned, RecipeKind::BestSingle] {
            let expected = reference(&plan(kind, 4, 2));
            let plan = Plan { audit: AuditPlan::new(PPM / 50, [seed; 32]), ..plan(kind, 4, 2) };
            let mut cluster = cluster(&plan, 4);
            run(&mut cluster, &|worker, work| match work {
                Work::Evaluate(..) if worker == LIAR => Says::With(lie),
                _ => Says::Right,
            });
            assert!(matches!(cluster.result, Some(Ok(()))), "{:?}", cluster.result);
            let found = !cluster.machine.workers.contains_key(&LIAR);
            let verified = assert_verified(&cluster);
            assert_eq!(verified.retractions > 0, found);
            if found {
                assert_eq!(cluster.outcome(), expected, "{kind:?} {seed}");
                retractions += usize::from(
                    cluster
                        .records
                        .iter()
                        .any(|r| matches!(&r.entry, Entry::Retracted(r) if r.scores.len() > 1)),
                );
                // What the log adds up to is what the machine knows.
                let mut again = Machine::resume(plan.clone(), 0, &cluster.log).unwrap();
                again.handle(0, Event::Tick);
                assert_eq!(again.ledger().count(), cluster.machine.ledger().count());
            }
        }
    }
    assert!(retractions > 20, "scores were taken back in {retractions} runs");
}

/// Steps of a learned soup have no audit of their own: those of a liar that is found otherwise go.
#[test]
fn steps_are_taken_back_and_made_again() {
    let expected = reference(&plan(RecipeKind::Learned, 4, 2));
    let plan = audited(RecipeKind::Learned, PPM);
    let mut cluster = cluster(&plan, 3);
    run(&mut cluster, &|worker, work| match work {
        Work::Dot(_) if worker == LIAR => Says::With(lie),
        // Only what it says of the learned soup is audited after the steps.
        Work::Evaluate(e, _) if worker == LIAR && e.soup.rows().is_some() => Says::With(lie),
        _ => Says::Right,
    });
    assert_eq!(cluster.outcome(), expected);
    assert_eq!(cluster.machine.learned().unwrap().steps.len(), 6);
    let took_back = |r: &Record| matches!(&r.entry, Entry::Retracted(r) if r.steps == 0);
    let stepped = cluster.records.iter().filter(|r| matches!(r.entry, Entry::Stepped(_))).count();
    assert!(cluster.records.iter().any(took_back) && stepped == 12, "{stepped} steps recorded");
    assert_verified(&cluster);
}

#[test]
fn two_workers_that_differ_end_the_run_and_are_both_named() {
    let cases: [(Is, &str); 3] = [
        (|w| matches!(w, Work::Evaluate(..)), "say different things of samples"),
        (|w| matches!(w, Work::Load(_)), "say different things of what is in shard"),
        (|w| matches!(w, Work::Reread(_, Some(_))), "worker 1 has the blend of a soup"),
    ];
    for (lies_about, text) in cases {
        let plan = audited(RecipeKind::Greedy, PPM);
        let mut cluster = cluster(&plan, 2);
        run(&mut cluster, &|worker, work| match worker == LIAR && lies_about(work) {
            true => Says::With(lie),
            false => Says::Right,
        });
        let error = cluster.result.take().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let named = error.chain().contains("1 and 2")
            || error.chain().contains("2 and 1")
            || error.chain().contains("worker 2");
        assert!(error.chain().contains(text) && named, "{}", error.chain());
    }
}

/// What two workers of whom one lies say of this, until nobody can tell who is right.
fn in_dispute(plan: &Plan, lies_about: Is) -> Cluster {
    let mut cluster = cluster(plan, 2);
    let mut begun = BTreeMap::new();
    let play = lying(lies_about);
    while !notes_of(&cluster).iter().any(|note| note.contains("one more worker is waited for")) {
        super::troubles::happen(&mut cluster, &mut begun, &play);
    }
    assert!(cluster.result.is_none());
    cluster
}

fn lying(lies_about: Is) -> impl Fn(WorkerId, &Work) -> Says {
    move |worker, work| match worker == LIAR && lies_about(work) {
        true => Says::With(lie),
        false => Says::Right,
    }
}

const DISPUTED: [Is; 3] = [
    |work| matches!(work, Work::Evaluate(..)),
    |work| matches!(work, Work::Load(_) | Work::Reread(_, None)),
    |work| matches!(work, Work::Reread(_, Some(_))),
];

#[test]
fn where_two_workers_differ_the_next_one_tells_who_is_right() {
    for (which, lies_about) in DISPUTED.into_iter().enumerate() {
        let plan = audited(RecipeKind::Greedy, PPM);
        let mut cluster = in_dispute(&plan, lies_about);
        // Most of the time that is waited.
        cluster.now += plan.limits.dispute_ms * 3 / 4;
        cluster.event(Event::Tick);
        cluster.join();
        run(&mut cluster, &lying(lies_about));
        assert!(matches!(cluster.result, Some(Ok(()))), "{which}: {:?}", cluster.result);
        assert_eq!(cluster.outcome(), reference(&super::plan(RecipeKind::Greedy, 4, 2)), "{which}");
        assert_noted(&cluster, "worker 2 is quarantined");
    }
}

#[test]
fn who_comes_back_under_its_name_says_nothing_twice() {
    for (which, lies_about) in DISPUTED.into_iter().enumerate() {
        let plan = audited(RecipeKind::Greedy, PPM);
        let mut cluster = in_dispute(&plan, lies_about);
        let at = cluster.alive.iter().position(|worker| *worker == LIAR).unwrap();
        cluster.lose(at);
        cluster.alive.push(WorkerId(3));
        cluster.event(Event::WorkersJoined(vec![NewWorker {
            worker: WorkerId(3),
            name: LIAR.0.to_string(),
            slots: 2,
            space: space(10_000, 0),
            judges: true,
            held: vec![],
        }]));
        let play = lying(lies_about);
        let mut begun = BTreeMap::new();
        let deadline = cluster.now + plan.limits.dispute_ms / 2;
        while cluster.result.is_none() && cluster.now < deadline {
            let says = |worker: WorkerId, work: &Work| match worker {
                WorkerId(3) => play(LIAR, work),
                _ => play(worker, work),
            };
            super::troubles::happen(&mut cluster, &mut begun, &says);
        }
        assert!(cluster.result.is_none(), "{which}: {:?}", cluster.result);
        assert!(!notes_of(&cluster).iter().any(|note| note.contains("quarantined")), "{which}");
        // An honest one tells.
        cluster.next_worker = 3;
        cluster.join();
        run(&mut cluster, &|worker, work| match worker {
            WorkerId(3) => play(LIAR, work),
            _ => play(worker, work),
        });
        assert_eq!(cluster.outcome(), reference(&super::plan(RecipeKind::Greedy, 4, 2)), "{which}");
        assert_noted(&cluster, "worker 3 is quarantined");
    }
}

/// One that only begins to lie later, or that is silent when it is to audit, holds nothing up.
#[test]
fn who_does_not_audit_is_not_waited_for() {
    for workers in [2, 3] {
        let expected = reference(&plan(RecipeKind::Greedy, 4, 2));
        let mut cluster = cluster(&audited(RecipeKind::Greedy, PPM), workers);
        run(&mut cluster, &|worker, work| match work {
            Work::Evaluate(..) | Work::Reread(..) if worker == LIAR => Says::Nothing,
            _ => Says::Right,
        });
        assert_eq!(cluster.outcome(), expected);
        assert!(cluster.now < 7_200_000, "it took {} s", cluster.now / 1000);
    }
}

#[test]
fn what_a_quarantined_worker_hands_in_is_dropped() {
    let plan = audited(RecipeKind::Greedy, PPM);
    let mut cluster = cluster(&plan, 3);
    let mut begun = BTreeMap::new();
    let play = |worker, work: &Work| match work {
        Work::Evaluate(..) if worker == LIAR => Says::With(lie),
        _ => Says::Right,
    };
    while cluster.machine.workers.contains_key(&LIAR) {
        super::troubles::happen(&mut cluster, &mut begun, &play);
    }
    let goal = cluster.machine.goals.wanted()[0].clone();
    let fresh = |slice: &&Slice| {
        let claimed = cluster.machine.auditing.claims_of(&goal, slice.index) > 0;
        !claimed && !cluster.machine.slice_done(&goal, slice)
    };
    let slice = cluster.machine.slices_for(&goal).find(|slice| fresh(&slice)).unwrap();
    let TaskResult::Evaluated(judged) = cluster.truth(&Work::Evaluate(goal.clone(), slice)) else {
        unreachable!()
    };
    cluster.event(Event::HandedIn(LIAR, goal.clone(), slice, judged.clone()));
    assert_eq!(cluster.machine.auditing.claims_of(&goal, slice.index), 0);
    // Of others it is a claim like any.
    cluster.event(Event::HandedIn(WorkerId(1), goal.clone(), slice, judged));
    assert_eq!(cluster.machine.auditing.claims_of(&goal, slice.index), 1);
    run(&mut cluster, &play);
    assert_eq!(cluster.outcome(), reference(&super::plan(RecipeKind::Greedy, 4, 2)));
}

/// Without data shards stream: what an owner found in one, and the blend that it gives, are held against another's reading.
#[test]
fn shards_that_stream_are_audited_too() {
    for lies_of_blend in [None, Some(false), Some(true)] {
        let plan = Plan { audit: AuditPlan::new(PPM, [3; 32]), ..streaming(2) };
        let mut cluster = cluster(&plan, 3);
        let mut begun = BTreeMap::new();
        while cluster.result.is_none() {
            let owner = owners(&cluster);
            let play = |worker, work: &Work| match (work, lies_of_blend) {
                (Work::Pass(_), Some(false)) if worker == LIAR => Says::With(lie),
                (Work::Reread(shard, Some(_)), Some(true)) if owner.get(&shard.0) == Some(&LIAR) => {
                    Says::With(lie)
                }
                _ => Says::Right,
            };
            super::troubles::happen(&mut cluster, &mut begun, &play);
        }
        assert_eq!(cluster.outcome().0, Soup::uniform(3).unwrap());
        let reread = cluster.evaluated.keys().filter(|work| matches!(work, Work::Reread(..))).count();
        assert!(reread >= 10, "{reread} shards and blends were read again");
        let quarantined = notes_of(&cluster).iter().any(|note| note.contains("worker 2 is quarantined"));
        assert_eq!(quarantined, lies_of_blend.is_some());
        assert!(cluster.log.surveyed.is_some() && cluster.machine.measured().is_some());
    }
}

/// Whatever a coordinator knew that died: what is read of shards again is not held against its log before an audit has settled it.
#[test]
fn shards_that_stream_are_audited_under_another_coordinator_too() {
    for restart_at in 0..80 {
        let plan = Plan { audit: AuditPlan::new(PPM, [3; 32]), ..streaming(2) };
        let mut cluster = cluster(&plan, 3);
        let mut begun = BTreeMap::new();
        let mut events = 0;
        while cluster.result.is_none() {
            events += 1;
            if events == restart_at && !cluster.machine.publishing() {
                cluster.restart(true);
                cluster.now += 10_000;
                cluster.event(Event::Tick);
                continue;
            }
            super::troubles::happen(&mut cluster, &mut begun, &|worker, work| match work {
                Work::Pass(_) if worker == LIAR => Says::With(lie),
                _ => Says::Right,
            });
        }
        assert!(matches!(cluster.result, Some(Ok(()))), "{restart_at}: {:?}", cluster.result);
        assert_eq!(cluster.outcome().0, Soup::uniform(3).unwrap());
    }
}

/// Under another coordinator the same is audited, and what the one before recorded is nobody's.
#[test]
fn a_coordinator_that_dies_changes_nothing() {
    for kind in [RecipeKind::Greedy, RecipeKind::Pruned] {
        let expected = reference(&plan(kind, 4, 2));
        let plan = audited(kind, PPM / 5);
        let mut cluster = cluster(&plan, 4);
        let mut begun = BTreeMap::new();
        let mut events = 0;
        // Found after the second coordinator took over.
        let restarts = std::cell::Cell::new(0);
        while cluster.result.is_none() {
            events += 1;
            if events % 97 == 0 && !cluster.machine.publishing() && restarts.get() < 3 {
                restarts.set(restarts.get() + 1);
                cluster.restart(true);
                cluster.now += 10_000;
                cluster.event(Event::Tick);
                continue;
            }
            super::troubles::happen(&mut cluster, &mut begun, &|worker, work| match work {
                Work::Evaluate(..) if worker == LIAR && restarts.get() > 1 => Says::With(lie),
                _ => Says::Right,
            });
        }
        assert!(matches!(cluster.result, Some(Ok(()))), "{:?}", cluster.result);
        assert_eq!(cluster.outcome(), expected);
        assert_verified(&cluster);
    }
}

/// A run that goes on under another coordinator, when its pool is recorded; so many of three workers are still there.
fn resumed(there: &[WorkerId]) -> Cluster {
    let mut cluster = cluster(&audited(RecipeKind::Greedy, PPM / 50), 3);
    let mut begun = BTreeMap::new();
    while cluster.machine.surveyed().is_none() {
        super::troubles::happen(&mut cluster, &mut begun, &|_, _| Says::Right);
    }
    cluster.alive.retain(|worker| there.contains(worker));
    cluster.restart(true);
    cluster
}

const LOADS: Is = |work| matches!(work, Work::Load(_) | Work::Reread(_, None));

#[test]
fn what_one_worker_says_against_the_log_is_asked_of_others() {
    for others in [0, 2] {
        let mut cluster = resumed(&[LIAR]);
        let mut begun = BTreeMap::new();
        let waits = |note: &String| {
            note.contains("changed since this run began") && note.contains("one more worker is waited for")
        };
        while !notes_of(&cluster).iter().any(waits) {
            assert!(cluster.result.is_none(), "{:?}", cluster.result);
            super::troubles::happen(&mut cluster, &mut begun, &|worker, work| match work {
                Work::Evaluate(..) => panic!("judged with what nobody else has read"),
                _ => lying(LOADS)(worker, work),
            });
        }
        (0..others).for_each(|_| cluster.join());
        run(&mut cluster, &lying(LOADS));
        if others == 0 {
            let error = cluster.result.take().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            continue;
        }
        assert!(matches!(cluster.result, Some(Ok(()))), "{:?}", cluster.result);
        assert_eq!(cluster.outcome(), reference(&super::plan(RecipeKind::Greedy, 4, 2)));
        assert_noted(&cluster, "worker 2 is quarantined");
        assert_verified(&cluster);
    }
}

#[test]
fn what_one_worker_says_against_the_log_of_what_streams_is_asked_of_others() {
    let plan = Plan { audit: AuditPlan::new(PPM / 50, [3; 32]), ..streaming(2) };
    let mut cluster = cluster(&plan, 3);
    let passes: Is = |work| matches!(work, Work::Pass(_) | Work::Reread(_, None));
    let mut begun = BTreeMap::new();
    while cluster.machine.surveyed().is_none() {
        super::troubles::happen(&mut cluster, &mut begun, &|_, _| Says::Right);
    }
    cluster.alive.retain(|worker| *worker == LIAR);
    cluster.restart(true);
    while !notes_of(&cluster).iter().any(|note| note.contains("one more worker is waited for")) {
        assert!(cluster.result.is_none(), "{:?}", cluster.result);
        super::troubles::happen(&mut cluster, &mut begun, &lying(passes));
    }
    (0..2).for_each(|_| cluster.join());
    run(&mut cluster, &lying(passes));
    assert!(matches!(cluster.result, Some(Ok(()))), "{:?}", cluster.result);
    assert_eq!(cluster.outcome().0, Soup::uniform(3).unwrap());
    assert_noted(&cluster, "worker 2 is quarantined");
}

#[test]
fn what_two_workers_say_against_the_log_ends_the_run() {
    let mut cluster = resumed(&[WorkerId(1), LIAR, WorkerId(3)]);
    let before = cluster.now;
    run(&mut cluster, &|_, work| match work {
        Work::Evaluate(..) => panic!("judged with another pool than was recorded"),
        work if LOADS(work) => Says::With(lie),
        _ => Says::Right,
    });
    let error = cluster.result.take().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.chain().contains("ingredient 0 changed since this run began"), "{}", error.chain());
    assert!(cluster.now - before < cluster.machine.plan.limits.dispute_ms, "others were there to ask");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever one of four workers says, fails at or does not do: where all is audited, the soup is the same.
    #[test]
    fn one_liar_changes_nothing(
        kind in prop::sample::select(ALL.to_vec()),
        workers in 3..6usize,
        seed in any::<u64>(),
        lies in 1..100u32,
    ) {
        let expected = reference(&plan(kind, 4, 2));
        let plan = audited(kind, PPM);
        let mut cluster = cluster(&plan, workers);
        run(&mut cluster, &|worker, work| {
            let draw = ((number(&(seed, work)) + 0.5) * 1e9) as u32;
            match work {
                _ if worker != LIAR || draw % 100 >= lies => Says::Right,
                // What is not audited, and is not blends, slices or loads.
                Work::Survey | Work::Write(..) | Work::ReadBack(_) | Work::Digest(_) | Work::Gram(_) | Work::Differentiate(_)
                | Work::Dot(_) | Work::Prove(..) | Work::Compare(_) | Work::Pass(_) => Says::Right,
                _ if draw.is_multiple_of(11) => Says::Nothing,
                _ if draw % 11 == 1 => Says::Fails(Error::internal("it is odd")),
                _ => Says::With(lie),
            }
        });
        prop_assert!(matches!(cluster.result, Some(Ok(()))), "{:?}", cluster.result);
        prop_assert_eq!(cluster.outcome(), expected);
    }
}
