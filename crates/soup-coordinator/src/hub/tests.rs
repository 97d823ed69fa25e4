//! Transcripts: what happens to a coordinator, and what workers, the journal and watchers have of it. What is expected is in the
//! files beside the scripts, one a test, to be read like a play. Where a change is meant to show in them,
//! `SOUP_TRANSCRIPTS=write cargo test -p soup-coordinator --lib hub` writes them anew, and the difference is what changed.

mod pool;
mod script;
mod text;
mod worker;

use soup_core::ledger::{Dataset, Evaluation};
use soup_core::machine::{Slice, Work};
use soup_core::soup::{Ingredient, Soup, Weight};
use soup_core::{Error, ErrorKind};
use soup_proto::v1;
use soup_store::state::State;

use crate::exchange::{Assignment, Attempt, HandedIn, Incarnation, Said};
use crate::hub::{self, Meant, NamedRun};
use crate::messages;
use crate::opening::Keeper;
use crate::prepare::prepare;
use pool::{averages, greedy};
use script::Script;

#[tokio::test(start_paused = true)]
async fn an_average_with_two_workers() {
    let name = "average";
    let mut script = Script::begin(name).await;
    script.joins("w1").await;
    script.joins("w2").await;
    script.submits("A", averages(name, "out")).await;
    script.all_work().await;
    // It is done, and stays done.
    script.submits("A", averages(name, "out")).await;
    script.coordinator_stops().await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn a_greedy_soup_with_two_workers() {
    let name = "greedy";
    let mut script = Script::begin(name).await;
    script.submits("A", greedy(name, "out", 2)).await;
    script.joins("w1").await;
    script.joins("w2").await;
    script.all_work().await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn workers_lost_while_loading_and_while_judging() {
    let name = "lost";
    let mut script = Script::begin(name).await;
    script.submits("A", greedy(name, "out", 2)).await;
    script.joins("w1").await;
    script.joins("w2").await;
    script.works("w1").await;
    script.leaves("w2").await;
    script.works("w1").await;
    script.works("w1").await;
    script.joins("w3").await;
    script.works("w1").await;
    script.leaves("w1").await;
    script.works("w3").await;
    script.leaves("w3").await;
    script.joins("w4").await;
    script.all_work().await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_silent_and_one_that_says_that_it_leaves() {
    let name = "silent";
    let mut script = Script::begin(name).await;
    script.joins("w1").await;
    script.joins("w2").await;
    script.submits("A", greedy(name, "out", 2)).await;
    script.passes(9, &["w2"]).await;
    script.passes(2, &["w2"]).await;
    script.says("w2", "leaving", Said::Leaving).await;
    script.joins("w3").await;
    script.works("w2").await;
    script.leaves("w2").await;
    script.all_work().await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn answers_that_do_not_count() {
    let name = "answers";
    let mut script = Script::begin(name).await;
    script.joins("w1").await;
    script.submits("A", greedy(name, "out", 1)).await;
    // A failure that may pass; the answer of that attempt comes all the same.
    let survey = script.takes("w1");
    let failed =
        Said::Failed(survey.attempt.clone(), Error::unavailable("the dataset's store is away"), None);
    script.says("w1", "failed at the survey", failed).await;
    let late = Said::Done(survey.attempt.clone(), worker::answer(&survey).await);
    script.says("w1", "done all the same", late).await;
    script.passes(1, &["w1"]).await;
    // An answer to another coordinator.
    let mut other = script.attempt("w1");
    other.of.epoch += 1;
    let answer = worker::answer(&survey).await;
    script.says("w1", "done, in another epoch", Said::Done(other, answer)).await;
    // One that says nothing: somebody else has to try.
    script.joins("w2").await;
    let survey = script.takes("w1");
    script.says("w1", "done, without a result", done(&survey, None)).await;
    script.passes(1, &["w1", "w2"]).await;
    script.works("w2").await;
    // What cannot be understood fails the attempt, and here the run.
    let load = script.takes("w1");
    let loaded = v1::Loaded { digests: vec![vec![1, 2, 3]], notes: Vec::new(), bytes_read: 5 };
    let loaded = v1::task_done::Result::Loaded(loaded);
    script.says("w1", "done, with a digest of three bytes", done(&load, Some(loaded))).await;
    script.ends();
}

/// What a worker sends when it is done, as the hub hears it.
fn done(task: &Assignment, result: Option<v1::task_done::Result>) -> Said {
    let Attempt { of, key } = &task.attempt;
    let key = Some(v1::TaskKey::new(&of.run, of.epoch, *key));
    let done = v1::TaskDone { key, result, ..v1::TaskDone::default() };
    messages::said(v1::WorkerMessage { message: Some(v1::worker_message::Message::Done(done)) }).unwrap()
}

#[tokio::test(start_paused = true)]
async fn runs_that_wait_for_each_other() {
    let name = "queue";
    let mut script = Script::begin(name).await;
    script.submits("A", averages(name, "a")).await;
    script.submits("B", averages(name, "b")).await;
    script.submits("B", averages(name, "b")).await;
    script.submits("C", averages(name, "c")).await;
    script.submits("D", averages(name, "d")).await;
    script.joins("w1").await;
    script.cancels("B").await;
    script.cancels("A").await;
    script.cancels("A").await;
    script.cancels("X").await;
    script.all_work().await;
    // One that was cancelled goes on when it is asked for again.
    script.submits("A", averages(name, "a")).await;
    script.passes(4, &["w1"]).await;
    script.all_work().await;
    // One that is cancelled while its output is being staged.
    script.submits_and_cancels("E", averages(name, "e")).await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_stopped_and_one_that_goes_on() {
    let name = "stopped";
    let mut script = Script::begin(name).await;
    script.joins("w1").await;
    script.submits("A", greedy(name, "out", 1)).await;
    script.submits("B", averages(name, "b")).await;
    for _ in 0..5 {
        script.works("w1").await;
    }
    let slice = script.takes("w1");
    script.coordinator_stops().await;
    script.coordinator_starts().await;
    script.joins_holding("w1", "A", &[0, 1]).await;
    let Work::Evaluate(evaluation, Slice { start, end, .. }) = slice.work else { panic!("not a slice") };
    let outcomes = worker::outcomes(&evaluation.soup, start..end);
    // A worker does not know the slice's number.
    let of = Incarnation { epoch: slice.attempt.of.epoch + 1, run: slice.attempt.of.run };
    // Nobody else was given it, and no other one.
    let handed = HandedIn {
        evaluation,
        slice: Slice { index: u32::MAX, start, end, sequence: Default::default() },
        judged: outcomes,
        seal: slice.seal,
    };
    let evaluation = Evaluation { dataset: Dataset(1), ..handed.evaluation.clone() };
    let other = HandedIn { evaluation, ..handed.clone() };
    script.says("w1", "hands in a slice that it was not given", Said::HandedIn(of.clone(), other)).await;
    script.says("w1", "hands in the slice", Said::HandedIn(of, handed)).await;
    for _ in ["A", "B"] {
        script.passes(4, &["w1"]).await;
        script.all_work().await;
    }
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_dies_while_a_worker_writes() {
    let name = "dies";
    let mut script = Script::begin(name).await;
    script.joins("w1").await;
    script.submits("A", averages(name, "out")).await;
    script.works("w1").await;
    script.works("w1").await;
    script.coordinator_dies().await;
    script.coordinator_starts().await;
    script.joins("w1").await;
    script.passes(4, &["w1"]).await;
    script.all_work().await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_whose_run_is_taken() {
    let name = "taken";
    let mut script = Script::begin(name).await;
    script.joins("w1").await;
    script.submits("A", averages(name, "out")).await;
    script.taken("A").await;
    script.passes(10, &[]).await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_take_messages() {
    let name = "full";
    let mut script = Script::begin(name).await;
    script.submits("A", greedy(name, "out", 2)).await;
    script.joins("w1").await;
    script.joins_with_outbox("w2", 2).await;
    script.joins("w3").await;
    script.all_work().await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn runs_that_fail() {
    let name = "fails";
    let mut script = Script::begin(name).await;
    // Nobody comes.
    script.submits("A", averages(name, "a")).await;
    script.passes(61, &[]).await;
    // The data is wrong.
    script.joins("w1").await;
    script.submits("B", greedy(name, "b", 1)).await;
    script.fails("w1", Error::data("the dataset has no rows")).await;
    script.ends();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_named_is_that_run_or_refused() {
    let name = "named";
    pool::put(name).await;
    let state = State::open("memory:///named/state").unwrap();
    let (handle, _hub) = hub::start(script::config(), Keeper::new(state));
    let submit = async |output: &str, meant: Meant| {
        handle.submit(averages(name, output), meant, handle.admit(None).unwrap()).await
    };
    let named = |run: &str, theirs| Meant::Run(NamedRun { run: run.to_owned(), theirs });
    let run = submit("out", Meant::Any).await.unwrap();
    for theirs in [true, false] {
        assert_eq!(submit("out", named(&run, theirs)).await.unwrap(), run);
    }
    // Of what is another's nothing is told, not even whether it is there.
    for run in [&*run, "uniform-000000000000"] {
        let error = submit("elsewhere", named(run, false)).await.unwrap_err();
        assert_eq!(error.chain(), format!("this coordinator knows no run {run:?}"));
    }
    let error = submit("elsewhere", named(&run, true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let expected =
        format!("what run {run} is made of changed since it was submitted (something else is asked for)");
    assert!(error.chain().starts_with(&expected), "{}", error.chain());
    let error = submit("out", named("uniform-000000000000", true)).await.unwrap_err();
    assert!(error.chain().starts_with("there is no run \"uniform-000000000000\""), "{}", error.chain());
}

#[tokio::test]
async fn a_soup_that_no_run_has_is_told_from_its_own() {
    let name = "no-soup";
    pool::put(name).await;
    let prepared = prepare(averages(name, "out"), None, None).await.unwrap();
    let tensors = prepared.schema.tensors().len();
    let soup = |members: &[u32], rows: usize| {
        let members: Vec<Ingredient> = members.iter().copied().map(Ingredient).collect();
        match rows {
            0 => Soup::mean(members).unwrap(),
            _ => {
                let row = vec![Weight::new(0.5).unwrap(); members.len()];
                Soup::weighted(members, vec![row; rows]).unwrap()
            }
        }
    };
    for (members, rows, may) in [
        (&[0, 1][..], 0, true),
        (&[1], 1, true),
        (&[0, 1], tensors, true),
        (&[0, 2], 0, false),
        (&[2], 1, false),
        (&[0, 1], tensors + 1, false),
    ] {
        assert_eq!(prepared.may_be_of(&soup(members, rows)), may, "{members:?} {rows}");
    }
}
