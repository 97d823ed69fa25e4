//! Judges that are programs of their own have to prove that they say the same.

use super::*;

/// A run that is judged by such a one.
fn judged(kind: RecipeKind) -> Plan {
    let lm = JudgeId { name: "lm".into(), ..JudgeId::native() };
    Plan { judge: Some(lm), ..plan(kind, 4, 1) }
}

/// Workers, by whether they have the judge.
fn joined(plan: Plan, judges: &[bool]) -> Cluster {
    let mut cluster = Cluster::new(plan);
    let worker = |(nth, judges): (usize, &bool)| NewWorker {
        worker: WorkerId(nth as u64 + 1),
        name: (nth + 1).to_string(),
        slots: 2,
        space: space(10_000, 0),
        judges: *judges,
        held: vec![],
    };
    let workers: Vec<NewWorker> = judges.iter().enumerate().map(worker).collect();
    cluster.alive = workers.iter().map(|w| w.worker).collect();
    cluster.event(Event::WorkersJoined(workers));
    cluster
}

/// Answers until the run ends, proofs by `prove`. Gives who judged anything.
fn run(cluster: &mut Cluster, prove: &dyn Fn(WorkerId, Proof) -> Result<Proof>) -> BTreeSet<WorkerId> {
    let mut judging = BTreeSet::new();
    while cluster.result.is_none() {
        cluster.durable();
        let Some((worker, key, work)) = cluster.inbox.front().cloned() else {
            cluster.event(Event::Tick);
            continue;
        };
        match &work {
            Work::Prove(on, ..) => {
                assert_eq!(*on, worker);
                let TaskResult::Proved(proof) = answer(&work, &cluster.machine.plan) else { unreachable!() };
                cluster.inbox.pop_front();
                match prove(worker, *proof) {
                    Ok(proof) => cluster.event(Event::Done(worker, key, TaskResult::Proved(Box::new(proof)))),
                    Err(error) => cluster.event(Event::Failed(worker, key, error)),
                }
                continue;
            }
            Work::Evaluate(..) | Work::Differentiate(_) => _ = judging.insert(worker),
            _ => {}
        }
        cluster.answer(0);
    }
    judging
}

/// Another class for the first sample.
fn other_data(mut proof: Proof) -> Proof {
    let Judged::Outcomes(outcomes) = &mut proof.judged else { unreachable!() };
    outcomes[0].label = (outcomes[0].label + 1) % 10;
    proof
}

#[test]
fn a_worker_that_says_something_else_holds_shards_and_does_not_judge() {
    for kind in [RecipeKind::Greedy, RecipeKind::Learned] {
        let mut native = joined(plan(kind, 4, 1), &[true; 3]);
        run(&mut native, &|_, _| unreachable!("the native judge proves nothing"));
        let mut cluster = joined(judged(kind), &[true, true, false, true]);
        let lies = WorkerId(2);
        let judging =
            run(&mut cluster, &|worker, proof| Ok(if worker == lies { other_data(proof) } else { proof }));
        cluster.result.take().unwrap().unwrap();
        assert_eq!(judging, [WorkerId(1), WorkerId(4)].into());
        assert_eq!(cluster.machine.chosen(), native.machine.chosen());
        let notes: Vec<&str> = cluster.machine.notes().collect();
        assert!(notes.iter().any(|n| n.contains("worker 2 does not judge")), "{notes:?}");
    }
}

#[test]
fn where_no_side_is_the_larger_one_the_run_ends() {
    let mut cluster = joined(judged(RecipeKind::Greedy), &[true, true, false]);
    let judging =
        run(&mut cluster, &|worker, proof| Ok(if worker == WorkerId(1) { other_data(proof) } else { proof }));
    let error = cluster.result.take().unwrap().unwrap_err();
    assert!(judging.is_empty() && error.kind() == ErrorKind::Configuration);
    assert!(
        error.chain().contains("workers 1 and 2") && error.chain().contains("of class"),
        "{}",
        error.chain()
    );
}

#[test]
fn other_samples_than_were_surveyed_are_other_data() {
    let fewer = |mut proof: Proof| {
        proof.survey.samples[1] -= 1;
        proof
    };
    // One of three does not judge; where most have others than were surveyed, the run ends.
    let mut cluster = joined(judged(RecipeKind::Greedy), &[true, true, true]);
    let other = WorkerId(3);
    let judging = run(&mut cluster, &|worker, proof| Ok(if worker == other { fewer(proof) } else { proof }));
    cluster.result.take().unwrap().unwrap();
    assert_eq!(judging, [WorkerId(1), WorkerId(2)].into());
    let mut cluster = joined(judged(RecipeKind::Greedy), &[true, true, true]);
    let judging = run(&mut cluster, &|worker, proof| Ok(if worker == other { proof } else { fewer(proof) }));
    let error = cluster.result.take().unwrap().unwrap_err();
    assert!(judging.is_empty() && error.chain().contains("do all have the same data"), "{}", error.chain());
}

#[test]
fn whoever_comes_later_is_held_against_what_is_true() {
    let mut cluster = joined(judged(RecipeKind::Greedy), &[true]);
    while cluster.trials.is_empty() {
        cluster.durable();
        if !cluster.inbox.is_empty() {
            cluster.answer(0);
        }
    }
    cluster.next_worker = 1;
    cluster.join();
    run(&mut cluster, &|_, proof| Ok(other_data(proof)));
    cluster.result.take().unwrap().unwrap();
    assert!(cluster.machine.notes().any(|n| n.contains("worker 2 does not judge")));
}

#[test]
fn one_that_says_two_things_is_noted() {
    let mut cluster = joined(judged(RecipeKind::Uniform), &[true]);
    run(&mut cluster, &|_, proof| Ok(Proof { again: false, ..proof }));
    cluster.result.take().unwrap().unwrap();
    assert!(cluster.machine.notes().any(|n| n.contains("not deterministic")));
}

#[test]
fn where_nobody_is_left_who_may_judge_the_run_ends_with_the_reason() {
    let fails = |error: fn(&str) -> Error, text: &str, kind: ErrorKind| {
        let mut cluster = joined(judged(RecipeKind::Greedy), &[true, false, true]);
        let judging = run(&mut cluster, &|_, _| Err(error(text)));
        let error = cluster.result.take().unwrap().unwrap_err();
        assert!(judging.is_empty() && error.chain().contains(text), "{}", error.chain());
        assert_eq!(error.kind(), kind);
    };
    fails(|text| Error::internal(text), "it said nothing", ErrorKind::Internal);
    fails(|text| Error::data(text), "sample 3 has no text", ErrorKind::Data);
    fails(|text| Error::try_again(text), "it has died", ErrorKind::Unavailable);
}

#[test]
fn a_run_waits_for_a_worker_with_its_judge_but_not_for_ever() {
    let mut cluster = joined(judged(RecipeKind::Greedy), &[false, false]);
    assert!(cluster.inbox.is_empty());
    cluster.now += cluster.machine.plan.limits.start_timeout_ms;
    cluster.event(Event::Tick);
    let error = cluster.result.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("for a worker with judge lm"), "{}", error.chain());
}

#[test]
fn a_lost_worker_takes_its_proof_along() {
    let mut cluster = joined(judged(RecipeKind::Greedy), &[true]);
    let proofs = std::cell::Cell::new(0);
    while cluster.trials.is_empty() {
        cluster.durable();
        if matches!(cluster.inbox.front(), Some((_, _, Work::Prove(..)))) {
            proofs.set(proofs.get() + 1);
        }
        if !cluster.inbox.is_empty() {
            cluster.answer(0);
        }
    }
    cluster.next_worker = 1;
    cluster.join();
    cluster.lose(0);
    run(&mut cluster, &|_, proof| {
        proofs.set(proofs.get() + 1);
        Ok(proof)
    });
    cluster.result.take().unwrap().unwrap();
    assert_eq!(proofs.get(), 2);
}
