//! Running statistics that judges recompute.

use super::*;
use crate::survey::Ability;

/// A run whose judges recompute them, on a set of 8 samples.
fn recomputing() -> Plan {
    let lm = JudgeId { name: "lm".into(), ..JudgeId::native() };
    Plan { judge: Some(lm), calibration: Some(Dataset(1)), ..plan(RecipeKind::Greedy, 4, 1) }
}

fn worker((number, judges): (u64, bool)) -> NewWorker {
    let (slots, space) = (2, space(10_000, 0));
    let name = number.to_string();
    NewWorker { worker: WorkerId(number), name, slots, space, judges, held: vec![] }
}

fn joined() -> Cluster {
    let mut cluster = Cluster::new(recomputing());
    // The last one only holds shards.
    let workers: Vec<NewWorker> = [(1, true), (2, true), (3, false)].map(worker).into();
    cluster.alive = workers.iter().map(|w| w.worker).collect();
    cluster.event(Event::WorkersJoined(workers));
    cluster
}

/// Of a soup: any bytes that follow from it.
fn of(soup: &Soup) -> [u8; 32] {
    std::array::from_fn(|at| soup.members().iter().map(|m| m.0 as u8 + 1).sum::<u8>() ^ at as u8)
}

/// What a worker says, asked to do something with a soup.
type Say<'a> = &'a dyn Fn(WorkerId, &Work, &Soup) -> Option<[u8; 32]>;

/// Answers until the run ends; `say` tells what a worker says of the statistics of a soup.
fn run(cluster: &mut Cluster, say: Say<'_>) -> Vec<WorkerId> {
    let mut wrote = Vec::new();
    while cluster.result.is_none() {
        wrote.extend(step(cluster, say));
    }
    wrote
}

/// What happens next; gives who has written something.
fn step(cluster: &mut Cluster, say: Say<'_>) -> Option<WorkerId> {
    let mut survey = Survey::of_classes(SAMPLES[..cluster.machine.plan.datasets as usize].to_vec(), 10);
    survey.abilities.insert(Ability::Statistics);
    cluster.durable();
    let Some((worker, key, work)) = cluster.inbox.pop_front() else {
        cluster.now += 1000;
        cluster.event(Event::Tick);
        return None;
    };
    if worker == WorkerId(0) {
        cluster.event(Event::Published(Ok(())));
        return None;
    }
    let writes = matches!(work, Work::Write(..) | Work::Digest(_));
    let soup = match &work {
        Work::Evaluate(evaluation, _) | Work::Prove(_, evaluation, _) => Some(evaluation.soup.clone()),
        Work::Write(soup, _) | Work::Digest(soup) => Some(soup.clone()),
        _ => None,
    };
    let said = soup.and_then(|soup| say(worker, &work, &soup));
    let mut result = cluster.truth(&work);
    match &mut result {
        TaskResult::Proved(proof) => (proof.statistics, proof.survey) = (said, survey.clone()),
        TaskResult::Surveyed { survey: surveyed, .. } => *surveyed = survey.clone(),
        _ => {}
    }
    if let (Some(sha256), false) = (said, matches!(work, Work::Prove(..))) {
        cluster.event(Event::Recomputed(worker, key, sha256));
    }
    cluster.event(Event::Done(worker, key, result));
    writes.then_some(worker)
}

#[test]
fn the_statistics_of_the_soup_are_known_and_only_judges_write() {
    let mut cluster = joined();
    let wrote = run(&mut cluster, &|_, _, soup| Some(of(soup)));
    cluster.result.take().unwrap().unwrap();
    let soup = cluster.machine.chosen().unwrap().clone();
    assert_eq!(cluster.machine.statistics(&soup), Some(of(&soup)));
    assert!(!wrote.is_empty() && !wrote.contains(&WorkerId(3)), "{wrote:?}");
    // The calibration set decides nothing, and nothing is reported on it.
    assert!(cluster.machine.reported_tests().all(|set| set != Dataset(1)));
}

#[test]
fn other_statistics_of_the_same_soup_end_the_run() {
    for odd in [1, 2] {
        let mut cluster = joined();
        run(&mut cluster, &|worker, work, soup| {
            let off =
                worker == WorkerId(odd) && matches!(work, Work::Evaluate(..)) && soup.members().len() > 1;
            Some(if off { [odd as u8; 32] } else { of(soup) })
        });
        let error = cluster.result.take().unwrap().unwrap_err();
        assert!(error.chain().contains("other running statistics"), "{}", error.chain());
    }
}

#[test]
fn what_is_written_has_the_statistics_that_were_judged() {
    let mut cluster = joined();
    run(&mut cluster, &|_, work, soup| {
        Some(if matches!(work, Work::Write(..)) { [0; 32] } else { of(soup) })
    });
    let error = cluster.result.take().unwrap().unwrap_err();
    assert!(error.chain().contains("other running statistics"), "{}", error.chain());
}

#[test]
fn silence_about_statistics_is_no_answer() {
    let judges: fn(&Work) -> bool = |work| matches!(work, Work::Evaluate(..));
    let writes: fn(&Work) -> bool = |work| matches!(work, Work::Write(..));
    for silent in [judges, writes] {
        let mut cluster = joined();
        run(&mut cluster, &|_, work, soup| (!silent(work)).then(|| of(soup)));
        let error = cluster.result.take().unwrap().unwrap_err().chain();
        assert!(error.contains("did not say which running statistics"), "{error}");
    }
}

#[test]
fn a_judge_with_other_statistics_does_not_judge() {
    let mut cluster = joined();
    cluster.alive.push(WorkerId(4));
    cluster.event(Event::WorkersJoined(vec![worker((4, true))]));
    run(&mut cluster, &|worker, _, soup| Some(if worker == WorkerId(4) { [4; 32] } else { of(soup) }));
    cluster.result.take().unwrap().unwrap();
    let notes: Vec<&str> = cluster.machine.notes().collect();
    assert!(notes.iter().any(|n| n.contains("worker 4 does not judge")), "{notes:?}");
}

/// A judge that comes when all is scored proves itself, since what is written has its statistics.
#[test]
fn a_judge_that_comes_for_the_writing_proves_itself() {
    let mut cluster = joined();
    let (mut gone, mut wrote) = (false, None);
    while cluster.result.is_none() {
        cluster.durable();
        let writes = cluster.inbox.iter().any(|(_, _, work)| matches!(work, Work::Write(..)));
        if writes && !gone {
            gone = true;
            for judge in [1, 2] {
                let at = cluster.alive.iter().position(|w| *w == WorkerId(judge)).unwrap();
                cluster.lose(at);
            }
            cluster.alive.push(WorkerId(7));
            cluster.event(Event::WorkersJoined(vec![worker((7, true))]));
        }
        wrote = step(&mut cluster, &|_, _, soup| Some(of(soup))).or(wrote);
    }
    cluster.result.take().unwrap().unwrap();
    assert_eq!((gone, wrote), (true, Some(WorkerId(7))));
}

/// After the last score the coordinator dies: nobody is proved yet with the next one, and what is written needs a judge.
#[test]
fn a_coordinator_that_takes_over_for_the_writing_has_judges_proved() {
    let mut plan = recomputing();
    plan.diagnosis.layers = None;
    let mut cluster = Cluster::new(plan);
    cluster.alive = vec![WorkerId(1), WorkerId(2)];
    cluster.event(Event::WorkersJoined(vec![worker((1, true)), worker((2, true))]));
    let mut restarted = false;
    let wrote = loop {
        cluster.durable();
        let writes = cluster.inbox.iter().any(|(_, _, work)| matches!(work, Work::Write(..)));
        if writes && !restarted {
            restarted = true;
            cluster.restart(true);
        }
        if let Some(result) = cluster.result.take() {
            break result;
        }
        step(&mut cluster, &|_, _, soup| Some(of(soup)));
    };
    wrote.unwrap();
    assert!(restarted);
}
