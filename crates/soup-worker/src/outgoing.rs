//! What a worker tells its coordinator, measured before it goes.
//!
//! A message that the coordinator does not take breaks the stream: the worker would be lost, come back, do the same again, and be lost again. So an
//! answer that is too large becomes a failure of its task that says so. All that goes to the coordinator comes through here.

use soup_proto::v1::task_done::Result as Answer;
use soup_proto::v1::worker_message::Message as Up;
use soup_proto::v1::{TaskDone, TaskFailed, WorkerMessage};
use soup_proto::{CONTROL_BYTES_MAX, bounded};

/// A message as it can be sent; `None` where there is nothing to be said instead of it.
pub(crate) fn fitting(message: WorkerMessage) -> Option<WorkerMessage> {
    within(message, CONTROL_BYTES_MAX)
}

fn within(message: WorkerMessage, bytes_max: usize) -> Option<WorkerMessage> {
    let Err(error) = bounded::check_sent(&message, bytes_max) else { return Some(message) };
    match message.message {
        Some(Up::Done(TaskDone { key, result, .. })) => {
            let error = error.context(too_much(result.as_ref()));
            tracing::warn!(error = error.chain(), "an answer is larger than its coordinator takes");
            let failed = TaskFailed { key, failure: Some((&error).into()), unreached: None };
            Some(WorkerMessage { message: Some(Up::Failed(failed)) })
        }
        // Scored again, it is an answer.
        Some(Up::HandedIn(_)) => {
            tracing::warn!(error = error.chain(), "a slice of an earlier coordinator is not handed in");
            None
        }
        // Nothing else grows with what others wrote, but for what a worker says of itself, of which the coordinator says what is too much.
        other => Some(WorkerMessage { message: other }),
    }
}

/// What is too much of an answer, and what to do about it.
fn too_much(answer: Option<&Answer>) -> &'static str {
    match answer {
        Some(Answer::Evaluated(_) | Answer::Proved(_)) => {
            "what was judged is too much to tell: use a part of the dataset (limit), or a judge of fewer and shorter figures"
        }
        Some(Answer::Surveyed(_)) => {
            "what was found of the datasets is too much to tell: use fewer, or a judge that says less of them"
        }
        _ => "what was found is too much to tell: use a pool of fewer ingredients",
    }
}

#[cfg(test)]
mod tests {
    use soup_core::{Error, ErrorKind};
    use soup_proto::v1::{Dotted, Evaluated, HandedIn, Heartbeat, Outcomes, SegmentDots, TaskKey, evaluated};

    use super::*;

    fn done(result: Answer) -> WorkerMessage {
        let key = Some(TaskKey { run: "r".into(), epoch: 2, task: 3, attempt: 4 });
        let done = TaskDone { key, result: Some(result), ..TaskDone::default() };
        WorkerMessage { message: Some(Up::Done(done)) }
    }

    fn outcomes(samples: usize) -> Evaluated {
        let losses = vec![0.5; samples];
        let outcomes = Outcomes { labels: vec![1; samples], predictions: vec![1; samples], losses };
        Evaluated { judged: Some(evaluated::Judged::Outcomes(outcomes)) }
    }

    /// The failure that becomes of an answer.
    #[track_caller]
    fn failure(answer: WorkerMessage, bytes_max: usize) -> String {
        let sent = within(answer, bytes_max).unwrap();
        assert!(bounded::check_sent(&sent, bytes_max).is_ok());
        let Some(Up::Failed(TaskFailed { key, failure, unreached: None })) = sent.message else { panic!() };
        assert_eq!(key.unwrap(), TaskKey { run: "r".into(), epoch: 2, task: 3, attempt: 4 });
        let error = Error::from(failure.unwrap());
        assert_eq!(error.kind(), ErrorKind::Data, "tried again, it would be as large");
        error.chain()
    }

    #[test]
    fn an_answer_that_is_too_large_is_a_failure_of_its_task() {
        let small = done(Answer::Evaluated(outcomes(10)));
        assert_eq!(within(small.clone(), 1000), Some(small));
        let why = failure(done(Answer::Evaluated(outcomes(1000))), 1000);
        assert!(
            why.starts_with("what was judged is too much") && why.ends_with("at most 1000 are taken"),
            "{why}"
        );
        let segment = |dots| SegmentDots { tensor: 1, dots };
        let dotted = |segments| done(Answer::Dotted(Dotted { segments }));
        let why = failure(dotted(vec![segment(vec![0.5; 1000])]), 1000);
        assert!(why.contains("fewer ingredients"), "{why}");
        // Few bytes in very many parts are not read either.
        let why = failure(dotted(vec![segment(Vec::new()); 600_000]), CONTROL_BYTES_MAX);
        assert!(why.contains("parts is not taken"), "{why}");
    }

    #[test]
    fn what_is_no_answer_goes_as_it_is_or_not_at_all() {
        let handed = |samples| {
            let handed = HandedIn { evaluated: Some(outcomes(samples)), ..HandedIn::default() };
            WorkerMessage { message: Some(Up::HandedIn(handed)) }
        };
        assert_eq!(within(handed(10), 1000), Some(handed(10)));
        assert_eq!(within(handed(1000), 1000), None);
        let alive = WorkerMessage { message: Some(Up::Heartbeat(Heartbeat { passes: None })) };
        assert_eq!(within(alive.clone(), 1000), Some(alive));
    }
}
