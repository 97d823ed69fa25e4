//! What the journal rests on, and promises, on every kind of store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use soup_core::ErrorKind;
use soup_core::journal::{Claim, Entry, Operation, RunState};
use soup_core::tally::packed::Packed;
use soup_core::tally::{Counts, Outcome};

use super::{fails, names, put};
use crate::location::Location;
use crate::read;
use crate::scores::KeptScore;
use crate::state::{AppendError, Journal, RECORDS_MAX, State};

/// A state whose records tell the same times in every test.
pub(super) fn state(root: &Location) -> State {
    let seconds = AtomicU64::new(0);
    let clock = move || format!("2026-01-01T00:00:{:02}Z", seconds.fetch_add(1, Ordering::SeqCst));
    State::at(root.clone()).unwrap().with_clock(Arc::new(clock)).with_patience(Duration::from_secs(5))
}

pub(super) fn claim(host: &str) -> Claim {
    Claim { host: host.into(), pid: 7, version: "1".into() }
}

#[track_caller]
pub(super) fn is_fenced(result: Result<impl std::fmt::Debug, AppendError>, expect: &str) {
    let Err(AppendError::Fenced(e)) = result else { panic!("{result:?}") };
    assert_eq!(e.kind(), ErrorKind::TryAgain);
    assert!(e.chain().contains(expect), "{}", e.chain());
}

pub(super) async fn conforms(root: &Location) {
    probes(&root.join("probed").unwrap()).await;
    plans(&root.join("plans").unwrap()).await;
    appends(&root.join("appends").unwrap()).await;
    fences(&root.join("fences").unwrap()).await;
    claims(&root.join("claims").unwrap()).await;
    breaks(&root.join("breaks").unwrap()).await;
    scores(&root.join("scores of old").unwrap()).await;
    outcomes(&root.join("outcomes").unwrap()).await;
}

async fn probes(root: &Location) {
    state(root).probe().await.unwrap();
    state(root).probe().await.unwrap();
    assert_eq!(names(root).await, [""; 0], "nothing is left of a probe");
}

async fn plans(root: &Location) {
    let state = state(root);
    assert_eq!(state.runs().await.unwrap(), [""; 0]);
    assert_eq!(state.plan("r").await.unwrap(), None);
    fails(state.read("r").await, ErrorKind::Usage, "there is no run \"r\" in ");
    let refused = state.claim("r", "w", claim("h")).await.unwrap_err();
    assert_eq!(refused.into_error().kind(), ErrorKind::Usage);
    for _ in 0..2 {
        state.create_plan("r", Bytes::from_static(b"{}")).await.unwrap();
    }
    fails(state.create_plan("r", Bytes::from_static(b"[]")).await, ErrorKind::Data, "plan of another run");
    state.create_plan("a-2", Bytes::from_static(b"{}")).await.unwrap();
    put(root, "runs/without plan/log/x", "").await;
    put(root, "runs/half/log/x", "").await;
    assert_eq!(state.plan("r").await.unwrap().unwrap(), "{}");
    assert_eq!(state.runs().await.unwrap(), ["a-2", "r"]);
    for bad in ["", "..", "a.b", "a/b", "a b", "ä"] {
        fails(state.plan(bad).await, ErrorKind::Usage, "cannot be the id of a run");
    }
}

/// A run with a plan, and its owner.
pub(super) async fn owned(state: &State, writer: &str) -> Journal {
    state.create_plan("r", Bytes::from_static(b"{}")).await.unwrap();
    state.claim("r", writer, claim("first host")).await.unwrap().0
}

async fn appends(root: &Location) {
    let state = state(root);
    let mut journal = owned(&state, "w").await;
    assert_eq!((journal.run(), journal.writer(), journal.epoch(), journal.seq()), ("r", "w", 1, 1));
    journal.append(Entry::Submitted(Operation::default())).await.unwrap();
    journal.append(Entry::Begun {}).await.unwrap();
    assert_eq!(journal.seq(), 3);
    // What a killed writer leaves, and what others put there, are no records.
    put(root, "runs/r/log/note.txt", "x").await;
    put(root, "runs/r/log/old/00000000000000000009.json", "x").await;
    if let Some(log) = root.local_path().map(|p| p.join("runs/r/log")) {
        std::fs::write(log.join("00000000000000000003.json#1"), "half").unwrap();
    }
    let (fold, records) = state.read("r").await.unwrap();
    assert_eq!((fold.epoch, fold.state), (1, RunState::Running));
    let kinds: Vec<&str> = records.iter().map(|r| r.entry.kind()).collect();
    assert_eq!(kinds, ["epoch-claim", "submitted", "begun"]);
    assert_eq!((records[2].put_id.as_str(), records[2].at.as_str()), ("w-2", "2026-01-01T00:00:02Z"));
    journal.append(Entry::Suspended {}).await.unwrap();
    assert_eq!(state.read("r").await.unwrap().0.state, RunState::Suspended);
}

async fn fences(root: &Location) {
    let state = state(root);
    let mut first = owned(&state, "w1").await;
    first.append(Entry::Begun {}).await.unwrap();
    let (mut second, fold) = state.claim("r", "w2", claim("second host")).await.unwrap();
    assert_eq!((second.epoch(), fold.epoch, fold.owner.as_ref().unwrap().writer.as_str()), (2, 2, "w2"));
    assert_eq!(fold.tail().seq, second.seq());
    let expect = "run \"r\" was taken over by the coordinator on second host (process 7), epoch 2: ";
    is_fenced(first.append(Entry::Begun {}).await, expect);
    second.append(Entry::Begun {}).await.unwrap();
    // Fenced for good, though its next slot is free to be tried.
    is_fenced(first.append(Entry::Begun {}).await, expect);
    assert_eq!(state.read("r").await.unwrap().1.len(), 4);
}

async fn claims(root: &Location) {
    let state = state(root);
    state.create_plan("r", Bytes::from_static(b"{}")).await.unwrap();
    // Eight at once, in rounds: whoever wins has the next epoch, and everybody else knows that it lost.
    let mut epochs = Vec::new();
    for round in 0..4 {
        let claimed = (0..8).map(|i| {
            let state = state.clone();
            async move { state.claim("r", &format!("w{round}-{i}"), claim("h")).await }
        });
        for claimed in futures::future::join_all(claimed).await {
            match claimed {
                Ok((journal, _)) => epochs.push(journal.epoch()),
                Err(e) => is_fenced(Err::<(), _>(e), "was taken over by the coordinator on"),
            }
        }
    }
    assert!(epochs.len() >= 4);
    let (fold, records) = state.read("r").await.unwrap();
    epochs.sort_unstable();
    assert_eq!(epochs, Vec::from_iter(1..=fold.epoch), "no epoch is anybody's twice");
    assert_eq!(records.len() as u64, fold.epoch);
    // Of all that ever won only the last one goes on: two writers at one slot, exactly one gets it.
    let (mut a, _) = state.claim("r", "a", claim("h")).await.unwrap();
    let (mut b, _) = state.claim("r", "b", claim("b")).await.unwrap();
    let (a, b) = tokio::join!(a.append(Entry::Begun {}), b.append(Entry::Begun {}));
    is_fenced(a, "was taken over by the coordinator on b");
    b.unwrap();
}

async fn breaks(root: &Location) {
    let state = state(root);
    let mut journal = owned(&state, "w").await;
    for _ in 0..4 {
        journal.append(Entry::Begun {}).await.unwrap();
    }
    let log = root.join("runs/r/log").unwrap();
    let second = log.join("00000000000000000002.json").unwrap();
    let kept = read::read_small(&second, 1 << 20).await.unwrap();
    second.store().delete(second.path()).await.unwrap();
    fails(state.read("r").await, ErrorKind::Data, "00000000000000000002.json is missing");
    let edited = String::from_utf8(kept.to_vec()).unwrap().replace("00:00:02", "00:00:03");
    put(&log, "00000000000000000002.json", edited).await;
    fails(state.read("r").await, ErrorKind::Data, "record 3 of the log is broken: it follows");
    let refused = state.claim("r", "w2", claim("h")).await.unwrap_err();
    assert_eq!(refused.into_error().kind(), ErrorKind::Data, "a broken log is not claimed");
    put(&log, "00000000000000000002.json", kept).await;
    state.read("r").await.unwrap();
    // In the owner's next slot: whatever it is, it is not ours.
    put(&log, "00000000000000000005.json", "{").await;
    is_fenced(
        journal.append(Entry::Begun {}).await,
        "00000000000000000005.json, which is no record of a journal",
    );
    put(&log, "99999999999999999999.json", "{").await;
    fails(state.read("r").await, ErrorKind::Data, "has more than 100000 records");
}

async fn outcomes(root: &Location) {
    let outcomes = state(root).outcomes().unwrap();
    let outcome = |loss| Outcome { label: 1, prediction: 2, loss };
    let (some, others) = ([outcome(0.5), outcome(0.25)], [outcome(0.125)]);
    let (packed, other) = (Packed::of(&some), Packed::of(&others));
    assert_eq!(outcomes.get(&packed.sha256, 2).await.unwrap(), None);
    for _ in 0..2 {
        outcomes.put(packed.clone()).await.unwrap();
    }
    assert_eq!(outcomes.get(&packed.sha256, 2).await.unwrap(), Some(some.to_vec()));
    assert!(outcomes.get(&packed.sha256, 1).await.is_err(), "more than there are samples");
    let name = format!("outcomes/{}", hex::encode(other.sha256));
    put(root, &name, "else").await;
    assert_eq!(outcomes.get(&other.sha256, 2).await.unwrap(), None, "not what its name says");
    fails(outcomes.put(other).await, ErrorKind::Data, "is not what its name says");
}

async fn scores(root: &Location) {
    let scores = state(root).scores("c0ffee").unwrap();
    assert_eq!((scores.known().await.unwrap().len(), scores.get("ab").await.unwrap()), (0, None));
    let confusion = [((0, 0), 1), ((1, 0), 2)].into();
    let kept = |of: Counts, outcomes_sha256| KeptScore { score: of.into(), outcomes_sha256 };
    let score = kept(Counts { total: 3, correct: 1, loss_sum: 0.1 + 0.2, confusion }, Some([7; 32]));
    scores.put("ab", &score).await.unwrap();
    scores.put("ab", &kept(Counts::default(), None)).await.unwrap();
    scores.put("00", &kept(Counts::default(), None)).await.unwrap();
    assert_eq!(scores.get("ab").await.unwrap().unwrap(), score, "the first one stays");
    put(root, "scores/c0ffee/cd.json", "{").await;
    put(root, "scores/c0ffee/not hex.json", "{").await;
    assert_eq!(scores.get("cd").await.unwrap(), None, "a broken one is none");
    assert_eq!(Vec::from_iter(scores.known().await.unwrap()), ["00", "ab", "cd"]);
    // As they were before outcomes were kept.
    put(root, "scores/c0ffee/ef.json", r#"{"correct":1,"total":1,"loss_sum":"0.5","confusion":[[0,0,1]]}"#)
        .await;
    let old = Counts { total: 1, correct: 1, loss_sum: 0.5, confusion: [((0, 0), 1)].into() };
    assert_eq!(scores.get("ef").await.unwrap(), Some(kept(old, None)));
    assert_eq!(state(root).scores("c0ffe").unwrap().known().await.unwrap().len(), 0, "contexts are apart");
    for bad in ["", "../x", "AB", "xyz"] {
        fails(scores.get(bad).await, ErrorKind::Internal, "is no digest");
        let refused = state(root).scores(bad).map(drop);
        fails(refused, ErrorKind::Internal, "is no digest");
    }
}

#[test]
fn a_web_server_keeps_no_state() {
    if cfg!(feature = "cloud") {
        fails(
            State::open("http://127.0.0.1:9/s"),
            ErrorKind::Configuration,
            "plain HTTP servers cannot be written to",
        );
    }
    fails(State::open(""), ErrorKind::Usage, "not a usable path");
}

#[tokio::test]
async fn the_longest_log_is_read() {
    let root = super::memory("long logs");
    let state = state(&root).with_clock(Arc::new(|| "2026-01-01T00:00:00Z".into()));
    let mut journal = owned(&state, "w").await;
    for _ in 1..RECORDS_MAX {
        journal.append(Entry::Begun {}).await.unwrap();
    }
    let full = journal.append(Entry::Begun {}).await.unwrap_err().into_error();
    assert!(full.chain().contains("beyond the bounds"), "{}", full.chain());
    assert_eq!(state.read("r").await.unwrap().1.len(), RECORDS_MAX);
}

#[test]
fn journals_can_be_awaited_on_any_thread() {
    fn send<T: Send>(_: T) {}
    let state = state(&super::memory("send"));
    send(state.probe());
    send(async {
        let (mut journal, _) = state.claim("r", "w", Claim::default()).await?;
        journal.append(Entry::Begun {}).await
    });
    let scores = state.scores("ab").unwrap();
    send(async { (scores.known().await, scores.get("a").await, state.runs().await, state.read("r").await) });
}
