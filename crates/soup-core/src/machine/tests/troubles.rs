//! Workers that are heard and do not get done, answer what nobody can use, or cannot be reached: the run goes on without them.

use super::*;

/// What a worker does about a work.
pub(super) enum Says {
    Right,
    /// Nothing, ever.
    Nothing,
    /// The answer, after so long.
    After(Millis),
    Other(TaskResult),
    Fails(Error),
    /// It could not fetch from another worker.
    Unreached(WorkerId),
    /// What is true, changed.
    With(fn(TaskResult) -> TaskResult),
}

pub(super) type Play<'a> = &'a dyn Fn(WorkerId, &Work) -> Says;

/// One thing that happens, or a second without any.
pub(super) fn happen(cluster: &mut Cluster, begun: &mut BTreeMap<TaskKey, Millis>, play: Play<'_>) {
    if cluster.entry.is_some() {
        return cluster.durable();
    }
    let now = cluster.now;
    let mut next = None;
    for (at, (worker, key, work)) in cluster.inbox.iter().enumerate() {
        let since = *begun.entry(*key).or_insert(now);
        let says = if key.task == 0 { Says::Right } else { play(*worker, work) };
        match says {
            Says::Nothing => {}
            Says::After(ms) if now < since + ms => {}
            says => {
                next = Some((at, says));
                break;
            }
        }
    }
    let Some((at, says)) = next else {
        cluster.now += 1000;
        return cluster.event(Event::Tick);
    };
    let (worker, key, _) = cluster.inbox[at].clone();
    match says {
        Says::Right | Says::After(_) | Says::Nothing => cluster.answer(at),
        Says::With(change) => {
            let (_, _, work) = cluster.inbox.remove(at).unwrap();
            let result = change(cluster.truth(&work));
            cluster.event(Event::Done(worker, key, result));
        }
        Says::Other(result) => {
            cluster.inbox.remove(at);
            cluster.event(Event::Done(worker, key, result));
        }
        Says::Fails(error) => {
            cluster.inbox.remove(at);
            cluster.event(Event::Failed(worker, key, error));
        }
        Says::Unreached(source) => {
            cluster.inbox.remove(at);
            cluster.event(Event::Unreached(worker, key, source));
            let error = Error::unavailable(format!("cannot fetch from worker {}", source.0));
            cluster.event(Event::Failed(worker, key, error));
        }
    }
}

pub(super) fn run(cluster: &mut Cluster, play: Play<'_>) {
    let mut begun = BTreeMap::new();
    while cluster.result.is_none() {
        happen(cluster, &mut begun, play);
    }
}

pub(super) fn cluster(plan: &Plan, workers: usize) -> Cluster {
    let mut cluster = Cluster::new(plan.clone());
    let worker = |worker| NewWorker {
        worker: WorkerId(worker),
        name: worker.to_string(),
        slots: 2,
        space: space(10_000, 0),
        judges: true,
        held: vec![],
    };
    let all: Vec<NewWorker> = (1..=workers as u64).map(worker).collect();
    cluster.next_worker = workers as u64;
    cluster.alive = all.iter().map(|w| w.worker).collect();
    cluster.event(Event::WorkersJoined(all));
    cluster
}

fn has_note(cluster: &Cluster, part: &str) -> bool {
    cluster.machine.notes().any(|n| n.contains(part))
}

const ALL: [RecipeKind; 4] =
    [RecipeKind::Uniform, RecipeKind::Greedy, RecipeKind::Pruned, RecipeKind::Learned];
const ODD: WorkerId = WorkerId(1);

#[test]
fn a_worker_that_is_heard_and_does_nothing_holds_nothing_up() {
    for kind in ALL {
        let plan = plan(kind, 4, 2);
        let expected = reference(&plan);
        let mut cluster = cluster(&plan, 3);
        run(&mut cluster, &|worker, _| if worker == ODD { Says::Nothing } else { Says::Right });
        assert_eq!(cluster.outcome(), expected);
        assert!(cluster.now < 600_000, "{kind:?} took {} s", cluster.now / 1000);
    }
}

/// From some kind of work on it does nothing more, with shards or without.
#[test]
fn a_worker_may_fall_silent_at_any_kind_of_work() {
    let kinds: [fn(&Work) -> bool; 6] = [
        |w| matches!(w, Work::Survey),
        |w| matches!(w, Work::Load(_)),
        |w| matches!(w, Work::Gram(_)),
        |w| matches!(w, Work::Evaluate(..)),
        |w| matches!(w, Work::Write(..) | Work::Digest(_)),
        |w| matches!(w, Work::Differentiate(_) | Work::Dot(_)),
    ];
    for silent_at in kinds {
        let plan = plan(RecipeKind::Learned, 4, 3);
        let expected = reference(&plan);
        let mut cluster = cluster(&plan, 3);
        run(&mut cluster, &|worker, work| match worker == ODD && silent_at(work) {
            true => Says::Nothing,
            false => Says::Right,
        });
        assert_eq!(cluster.outcome(), expected);
        // What belongs to an owner is asked of nobody else, as long as that is there.
        if silent_at(&Work::Gram(Shard(0))) {
            assert!(has_note(&cluster, "worker 1 is left out of the run: its heartbeats come"));
        }
    }
}

#[test]
fn shards_that_do_not_get_loaded_go_to_another() {
    let plan = plan(RecipeKind::Greedy, 4, 1);
    let mut cluster = cluster(&plan, 3);
    run(&mut cluster, &|worker, work| match work {
        Work::Load(_) | Work::Evaluate(..) if worker == ODD => Says::Nothing,
        Work::Evaluate(..) => Says::After(5_000),
        _ => Says::Right,
    });
    assert_eq!(cluster.outcome(), reference(&plan));
    assert!(!cluster.machine.placement.by_owner().contains_key(&ODD));
    assert!(has_note(&cluster, "worker 1 is not done with loading shard 0 after 20 s"));
}

/// Whoever is slow and alone gets done: every attempt has twice as long.
#[test]
fn slow_work_is_never_given_up_for_being_slow() {
    for minutes in [5, 25, 90] {
        let plan = plan(RecipeKind::Uniform, 3, 1);
        let expected = reference(&plan);
        let mut cluster = cluster(&plan, 1);
        run(&mut cluster, &|_, work| match work {
            Work::Evaluate(_, slice) if slice.index > 0 => Says::Right,
            _ => Says::After(minutes * 60_000),
        });
        assert_eq!(cluster.outcome(), expected);
        assert_eq!(has_note(&cluster, "is not done with surveying"), minutes > 10);
    }
    // A slice that is slower than those before it, too.
    let plan = plan(RecipeKind::Greedy, 3, 1);
    let mut cluster = cluster(&plan, 1);
    run(&mut cluster, &|_, work| match work {
        Work::Evaluate(e, _) if e.soup.members().len() == 2 => Says::After(300_000),
        _ => Says::Right,
    });
    assert_eq!(cluster.outcome(), reference(&plan));
}

/// It never gets done, and is not asked for ever.
#[test]
fn a_worker_that_is_alone_and_does_nothing_is_given_up_in_the_end() {
    let mut cluster = cluster(&plan(RecipeKind::Uniform, 3, 1), 1);
    while cluster.result.is_none() {
        cluster.now += 600_000;
        cluster.event(Event::Tick);
    }
    let error = cluster.result.take().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("worker 1 is not done with surveying the datasets"), "{}", error.chain());
}

#[test]
fn a_store_that_is_silent_for_all_is_nobodys_fault() {
    let plan = plan(RecipeKind::Greedy, 4, 1);
    let mut cluster = cluster(&plan, 3);
    let mut begun = BTreeMap::new();
    // Half of the loads are done when it falls silent.
    while cluster.machine.placement.resident().count() < 3 {
        happen(&mut cluster, &mut begun, &|_, _| Says::Right);
    }
    let until = cluster.now + 400_000;
    while cluster.now < until {
        happen(&mut cluster, &mut begun, &|_, _| Says::Nothing);
    }
    assert_eq!(cluster.machine.workers.len(), 3);
    run(&mut cluster, &|_, _| Says::Right);
    assert_eq!(cluster.outcome(), reference(&plan));
}

/// An answer that nobody can use is its worker's failure, not the run's.
#[test]
fn answers_that_cannot_be_are_asked_of_another() {
    type Answers = fn(&Work) -> Option<TaskResult>;
    let wrong: [(&str, Answers); 6] = [
        ("a slice of too few samples", |w| match w {
            Work::Evaluate(..) => Some(TaskResult::Evaluated(Judged::Outcomes(vec![]))),
            _ => None,
        }),
        ("another answer", |w| match w {
            Work::Gram(_) | Work::Write(..) | Work::Evaluate(..) => Some(TaskResult::Digested([0; 32])),
            _ => None,
        }),
        ("too few digests", |w| match w {
            Work::Load(_) => Some(TaskResult::Loaded { digests: vec![[1; 32]], notes: vec![] }),
            _ => None,
        }),
        ("inner products of nothing", |w| match w {
            Work::Gram(_) => {
                Some(TaskResult::Measured(vec![LayerGram { layer: 9, matrix: true, packed: vec![] }]))
            }
            _ => None,
        }),
        ("no samples", |w| match w {
            Work::Survey => {
                let survey = Survey::of_classes(vec![0, 0, 0], 10);
                Some(TaskResult::Surveyed { survey, notes: vec![] })
            }
            _ => None,
        }),
        ("more right than there are", |w| match w {
            Work::Differentiate(_) => {
                let figures = PartFigures { correct: 1 << 40, ..PartFigures::default() };
                Some(TaskResult::Differentiated(figures))
            }
            _ => None,
        }),
    ];
    for (what, wrong) in wrong {
        let plan = plan(RecipeKind::Learned, 4, 2);
        let mut cluster = cluster(&plan, 3);
        run(&mut cluster, &|worker, work| match wrong(work).filter(|_| worker == ODD) {
            Some(result) => Says::Other(result),
            None => Says::Right,
        });
        assert!(matches!(cluster.result, Some(Ok(()))), "{what}: {:?}", cluster.result);
        assert_eq!(cluster.outcome(), reference(&plan), "{what}");
    }
}

/// Of what is no answer no more is told than that, however much of it there is.
#[test]
fn what_is_no_answer_is_told_in_a_few_words() {
    let outcomes = vec![Outcome { label: 0, prediction: 0, loss: 0.5 }; 100_000];
    let machine = Machine::new(plan(RecipeKind::Greedy, 4, 1), 0).unwrap();
    let checked = machine.check_answer(&Work::Survey, &TaskResult::Evaluated(Judged::Outcomes(outcomes)));
    let text = "a worker was asked for a survey and answered with a judged slice";
    assert_eq!(checked.unwrap_err().chain(), text);
}

/// A disk that is not mounted, a copy that is torn: it is wrong here, and not everywhere.
#[test]
fn what_one_worker_finds_wrong_is_asked_of_another() {
    for kind in
        [ErrorKind::Data, ErrorKind::Usage, ErrorKind::Internal, ErrorKind::Configuration, ErrorKind::Gate]
    {
        let plan = plan(RecipeKind::Greedy, 4, 2);
        let mut cluster = cluster(&plan, 3);
        run(&mut cluster, &|worker, work| match work {
            Work::Gram(_) => Says::Right,
            _ if worker == ODD => Says::Fails(Error::new(kind, "no such file")),
            _ => Says::Right,
        });
        assert!(matches!(cluster.result, Some(Ok(()))), "{kind:?}: {:?}", cluster.result);
        assert_eq!(cluster.outcome(), reference(&plan));
        assert!(has_note(&cluster, "no such file"), "{kind:?}");
        // Everybody finds it wrong.
        let mut cluster = cluster_of(&plan);
        let broken = |_, work: &Work| match work {
            Work::Load(Shard(3)) => Says::Fails(Error::new(kind, "no such file")),
            _ => Says::Right,
        };
        run(&mut cluster, &broken);
        let error = cluster.result.take().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.chain().as_str()), (kind, "no such file"));
    }
}

fn cluster_of(plan: &Plan) -> Cluster {
    cluster(plan, 3)
}

/// It fails at everything at once, and would be given everything first.
#[test]
fn a_worker_that_fails_at_everything_is_left_out() {
    for error in [Error::internal as fn(&'static str) -> Error, Error::unavailable] {
        let plan = plan(RecipeKind::Greedy, 6, 1);
        let mut cluster = cluster(&plan, 3);
        run(&mut cluster, &|worker, work| match work {
            Work::Evaluate(..) | Work::Write(..) if worker == ODD => Says::Fails(error("the device is gone")),
            // So that time passes.
            Work::Evaluate(..) => Says::After(2_000),
            _ => Says::Right,
        });
        assert_eq!(cluster.outcome(), reference(&plan));
        assert!(has_note(&cluster, "worker 1 is left out of the run: the device is gone"));
    }
}

/// What needs the blends of others.
fn fetches(work: &Work) -> bool {
    matches!(work, Work::Evaluate(..) | Work::Write(..) | Work::Digest(_) | Work::Differentiate(_))
}

#[test]
fn a_worker_that_nobody_can_fetch_from_is_left_out() {
    for (workers, kind) in [(2, RecipeKind::Greedy), (3, RecipeKind::Greedy), (4, RecipeKind::Learned)] {
        let plan = plan(kind, 4, 2);
        let mut cluster = cluster(&plan, workers);
        let owns = std::cell::Cell::new(true);
        let mut begun = BTreeMap::new();
        while cluster.result.is_none() {
            owns.set(cluster.machine.placement.by_owner().contains_key(&ODD));
            let play = |worker, work: &Work| match work {
                _ if owns.get() && worker != ODD && fetches(work) => Says::Unreached(ODD),
                // It can do all of it alone, slowly.
                _ if fetches(work) && worker == ODD => Says::After(3_000),
                _ => Says::Right,
            };
            happen(&mut cluster, &mut begun, &play);
        }
        assert_eq!(cluster.outcome(), reference(&plan), "{workers}");
        assert!(has_note(&cluster, "worker 1 is left out of the run: "), "{workers}");
        assert!(has_note(&cluster, "other workers could not fetch from it"), "{workers}");
    }
}

#[test]
fn a_worker_that_can_fetch_from_nobody_is_left_out() {
    let plan = plan(RecipeKind::Greedy, 6, 1);
    let mut cluster = cluster(&plan, 4);
    run(&mut cluster, &|worker, work| match worker {
        ODD if fetches(work) => Says::Unreached(WorkerId(2)),
        _ if fetches(work) => Says::After(1_000),
        _ => Says::Right,
    });
    assert_eq!(cluster.outcome(), reference(&plan));
    assert!(has_note(&cluster, "worker 1 is left out of the run: it could not fetch from worker 2"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever one worker does, as long as it does not lie in a way that could be true, it changes nothing.
    #[test]
    fn one_odd_worker_changes_nothing(
        kind in prop::sample::select(ALL.to_vec()),
        streams in prop::bool::weighted(0.2),
        workers in 2..5usize,
        seed in any::<u64>(),
    ) {
        let plan = if streams { streaming(2) } else { plan(kind, 4, 2) };
        let expected = reference(&plan);
        let mut cluster = cluster(&plan, workers);
        let kinds = [ErrorKind::Data, ErrorKind::Usage, ErrorKind::Internal, ErrorKind::Unavailable, ErrorKind::Gate];
        run(&mut cluster, &|worker, work| {
            let draw = ((number(&(seed, work)) + 0.5) * 1e9) as usize;
            match draw % 9 {
                _ if worker != ODD => Says::Right,
                0..3 => Says::Right,
                3..5 => Says::Nothing,
                5 => Says::After(draw as Millis / 9 % 60_000),
                6 => Says::Fails(Error::new(kinds[draw / 9 % kinds.len()], "it is odd")),
                7 => Says::Other(TaskResult::Dotted(vec![SegmentDots { tensor: 99, dots: vec![] }])),
                _ => Says::Unreached(WorkerId(2)),
            }
        });
        prop_assert!(matches!(cluster.result, Some(Ok(()))), "{:?}", cluster.result);
        prop_assert_eq!(cluster.outcome(), expected);
    }
}

#[test]
fn who_is_left_out_is_asked_again_where_nobody_else_is_there() {
    let plan = plan(RecipeKind::Greedy, 4, 1);
    let mut cluster = cluster(&plan, 2);
    let mut begun = BTreeMap::new();
    while cluster.machine.workers.contains_key(&ODD) {
        happen(&mut cluster, &mut begun, &|worker, work| match work {
            Work::Load(_) if worker == ODD => Says::Fails(Error::configuration("the disk cache is full")),
            _ => Says::Right,
        });
    }
    cluster.lose(1);
    run(&mut cluster, &|_, _| Says::Right);
    assert_eq!(cluster.outcome(), reference(&plan));
    assert!(has_note(&cluster, "worker 1 is asked again"));
}
