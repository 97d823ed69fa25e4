use soup_core::ErrorKind;
use soup_core::journal::{Entry, Operation, RunState};
use soup_core::tally::packed::Packed;
use soup_core::tally::{Counts, Outcome};

use super::*;
use crate::scores::KeptScore;

fn local() -> (tempfile::TempDir, State) {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path().join("state").to_str().unwrap()).unwrap();
    (folder, state)
}

fn memory(name: &str) -> State {
    State::open(&format!("memory:///state-tests/{name}")).unwrap()
}

async fn begun(state: &State, writer: &str) -> Journal {
    state.create_plan("r", Bytes::from_static(b"{}")).await.unwrap();
    let (mut journal, _) = state.claim("r", writer, Claim::default()).await.unwrap();
    journal.append(Entry::Submitted(Operation::default())).await.unwrap();
    journal
}

async fn check_a_log_reads_back(state: State) {
    state.probe().await.unwrap();
    assert!(state.runs().await.unwrap().is_empty());
    let mut journal = begun(&state, "a").await;
    journal.append(Entry::Begun {}).await.unwrap();
    let (fold, records) = state.read("r").await.unwrap();
    assert_eq!((fold.state, fold.epoch, records.len()), (RunState::Running, 1, 3));
    assert_eq!(fold.tail().seq, journal.seq());
    assert_eq!(state.runs().await.unwrap(), ["r"]);
    // Another plan under the same name is refused, the same one is not.
    state.create_plan("r", Bytes::from_static(b"{}")).await.unwrap();
    let other = state.create_plan("r", Bytes::from_static(b"{1}")).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Data);
}

async fn check_the_later_claim_wins(state: State) {
    let mut first = begun(&state, "a").await;
    let claim = Claim { host: "node7".into(), pid: 9, version: "0".into() };
    let (mut second, fold) = state.claim("r", "b", claim).await.unwrap();
    assert_eq!((second.epoch(), fold.epoch), (2, 2));
    let fenced = first.append(Entry::Begun {}).await.unwrap_err();
    let AppendError::Fenced(error) = fenced else { panic!("{fenced:?}") };
    assert_eq!(error.kind(), ErrorKind::TryAgain);
    assert!(error.chain().contains("node7"), "{}", error.chain());
    // Fenced is fenced for good.
    assert!(matches!(first.append(Entry::Begun {}).await, Err(AppendError::Fenced(_))));
    second.append(Entry::Begun {}).await.unwrap();
    assert_eq!(state.read("r").await.unwrap().0.owner.unwrap().writer, "b");
}

/// Found by simulation: a coordinator whose workers had all gone to its successor had nothing to append, and so kept whoever
/// watched the run waiting for a result that came elsewhere.
async fn check_an_idle_owner_finds_out_by_looking(state: State) {
    let mut first = begun(&state, "a").await;
    first.look().await.unwrap();
    let claim = Claim { host: "node7".into(), pid: 9, version: "0".into() };
    let (mut second, _) = state.claim("r", "b", claim).await.unwrap();
    let AppendError::Fenced(error) = first.look().await.unwrap_err() else { panic!("not fenced") };
    assert!(error.chain().contains("node7"), "{}", error.chain());
    assert!(matches!(first.append(Entry::Begun {}).await, Err(AppendError::Fenced(_))));
    second.look().await.unwrap();
    second.append(Entry::Begun {}).await.unwrap();
}

async fn check_the_last_seat_is_the_states(state: State) {
    let claim = |host: &str| Claim { host: host.into(), ..Claim::default() };
    let first = state.take_seat("a", claim("h1")).await.unwrap();
    assert_eq!(first.successor().await.unwrap(), None);
    let second = state.take_seat("b", claim("h2")).await.unwrap();
    assert_eq!(first.successor().await.unwrap(), Some(claim("h2")));
    assert_eq!(second.successor().await.unwrap(), None);
}

async fn check_of_many_claims_each_epoch_has_one(state: State) {
    state.create_plan("r", Bytes::from_static(b"{}")).await.unwrap();
    let claims = (0..8).map(|i| {
        let state = state.clone();
        async move { state.claim("r", &format!("w{i}"), Claim::default()).await.is_ok() }
    });
    let won = futures::future::join_all(claims).await.into_iter().filter(|w| *w).count();
    let (fold, records) = state.read("r").await.unwrap();
    assert!(won >= 1);
    assert_eq!((records.len(), fold.epoch as usize), (won, won));
}

async fn check_a_log_with_a_hole_is_refused(state: State) {
    let mut journal = begun(&state, "a").await;
    journal.append(Entry::Begun {}).await.unwrap();
    let place = state.run("r").unwrap().join("log").unwrap().join("00000000000000000001.json").unwrap();
    place.store().delete(place.path()).await.unwrap();
    let error = state.read("r").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.chain().contains("00000000000000000001.json is missing"), "{}", error.chain());
}

async fn check_a_removed_log_is_noticed_and_not_begun_in_the_middle(state: State) {
    let (mut journal, mut idle) = (begun(&state, "a").await, None);
    for _ in 0..2 {
        journal.append(Entry::Begun {}).await.unwrap();
        for entry in read::list(&state.run("r").unwrap().join("log").unwrap()).await.unwrap() {
            entry.location.store().delete(entry.location.path()).await.unwrap();
        }
        let gone = match idle {
            None => journal.append(Entry::Begun {}).await.unwrap_err(),
            Some(()) => journal.look().await.unwrap_err(),
        };
        let AppendError::Store(error) = gone else { panic!("{gone:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.chain().contains("somebody removed the state"), "{}", error.chain());
        assert!(matches!(journal.append(Entry::Begun {}).await, Err(AppendError::Store(_))));
        assert!(read::list(&state.run("r").unwrap().join("log").unwrap()).await.unwrap().is_empty());
        (journal, idle) = (begun(&state, "b").await, Some(()));
    }
}

async fn check_nothing_is_kept_where_the_state_was_removed(state: State) {
    let (mut journal, outcomes) = (begun(&state, "a").await, state.outcomes().unwrap());
    let packed = |loss| Packed::of(&[Outcome { label: 1, prediction: 2, loss }]);
    journal.keep(&outcomes, packed(1.0)).await.unwrap();
    for entry in read::list(&state.run("r").unwrap().join("log").unwrap()).await.unwrap() {
        entry.location.store().delete(entry.location.path()).await.unwrap();
    }
    let AppendError::Store(error) = journal.keep(&outcomes, packed(2.0)).await.unwrap_err() else { panic!() };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("somebody removed the state"), "{}", error.chain());
    assert_eq!(outcomes.get(&packed(2.0).sha256, 1).await.unwrap(), None);
    assert!(outcomes.get(&packed(1.0).sha256, 1).await.unwrap().is_some());
}

async fn check_a_secret_is_the_same_for_all(state: State) {
    state.create_plan("r", Bytes::from_static(b"{}")).await.unwrap();
    let secret = state.secret("r").await.unwrap();
    assert_eq!(state.secret("r").await.unwrap(), secret);
    assert_ne!(state.secret("s").await.unwrap(), secret);
    assert_eq!(state.runs().await.unwrap(), ["r"]);
}

async fn check_scores_are_kept(state: State) {
    let scores = state.scores("ab12").unwrap();
    assert!(scores.known().await.unwrap().is_empty());
    assert_eq!(scores.get("00ff").await.unwrap(), None);
    let score = Counts { total: 3, correct: 2, loss_sum: 0.1 + 0.2, confusion: [((0, 1), 1)].into() };
    let score = KeptScore { score: score.into(), outcomes_sha256: Some([7; 32]) };
    scores.put("00ff", &score).await.unwrap();
    let other = KeptScore { score: Counts::default().into(), outcomes_sha256: None };
    scores.put("00ff", &other).await.unwrap();
    assert_eq!(scores.get("00ff").await.unwrap(), Some(score));
    assert_eq!(scores.known().await.unwrap().into_iter().collect::<Vec<_>>(), ["00ff"]);
    assert!(state.scores("../x").is_err() && scores.get("X").await.is_err());
}

macro_rules! on_every_store {
    ($($check:ident),* $(,)?) => {$(
        mod $check {
            #[tokio::test]
            async fn local() {
                let (_folder, state) = super::local();
                super::$check(state).await;
            }

            #[tokio::test]
            async fn memory() {
                super::$check(super::memory(stringify!($check))).await;
            }
        }
    )*};
}

on_every_store!(
    check_a_log_reads_back,
    check_the_later_claim_wins,
    check_an_idle_owner_finds_out_by_looking,
    check_the_last_seat_is_the_states,
    check_of_many_claims_each_epoch_has_one,
    check_a_log_with_a_hole_is_refused,
    check_a_removed_log_is_noticed_and_not_begun_in_the_middle,
    check_nothing_is_kept_where_the_state_was_removed,
    check_a_secret_is_the_same_for_all,
    check_scores_are_kept,
);

#[tokio::test]
async fn unknown_runs_and_bad_names_are_usage_errors() {
    let state = memory("unknown");
    for run in ["nothing", "", "../up", "a/b"] {
        assert_eq!(state.read(run).await.unwrap_err().kind(), ErrorKind::Usage, "{run}");
    }
    assert_eq!(State::open("http://h/x").unwrap_err().kind(), ErrorKind::Configuration);
    assert!(State::beside("/a/b/soup").unwrap().ends_with("/a/b/.soup-state"));
}

#[tokio::test]
async fn a_state_that_cannot_be_written_is_a_configuration_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let state = State::open(file.join("state").to_str().unwrap()).unwrap();
    assert_eq!(state.probe().await.unwrap_err().kind(), ErrorKind::Configuration);
}

/// A coordinator that writes without a pause must not keep another one from taking over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_owner_can_be_taken_over() {
    let (_folder, state) = local();
    let mut first = begun(&state, "a").await;
    let busy = tokio::spawn(async move {
        for written in 0..20_000 {
            if let Err(error) = first.append(Entry::Begun {}).await {
                return Ok((written, error));
            }
        }
        Err("was never fenced")
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let (_, fold) = state.claim("r", "b", Claim::default()).await.unwrap();
    assert_eq!(fold.epoch, 2);
    let (written, error) = busy.await.unwrap().unwrap();
    assert!(written > 0 && matches!(error, AppendError::Fenced(_)), "{error:?}");
}

/// What lies in a local state need not be what was put there.
#[tokio::test]
async fn what_is_no_file_breaks_its_run_at_once_and_no_other() {
    let (folder, state) = local();
    let mut journal = begun(&state, "a").await;
    let runs = folder.path().join("state/runs");
    for run in ["fifo", "folder", "record"] {
        state.create_plan(run, Bytes::from_static(b"{}")).await.unwrap();
        std::fs::create_dir(runs.join(run).join("log")).unwrap();
    }
    crate::conformance::fifo(&runs.join("record/log/00000000000000000000.json"));
    std::fs::create_dir(runs.join("folder/log/00000000000000000000.json")).unwrap();
    std::fs::remove_file(runs.join("fifo/plan.json")).unwrap();
    crate::conformance::fifo(&runs.join("fifo/plan.json"));
    let summaries = state.summaries().await.unwrap();
    let broken = summaries.iter().find(|s| s.run == "fifo").unwrap();
    assert_eq!((summaries.len(), broken.state.as_str()), (4, "broken"));
    assert!(broken.failure.as_ref().unwrap().contains("fifo/plan.json is a FIFO, not a file"), "{broken:?}");
    for (run, what) in [("record", "is a FIFO, not a file"), ("folder", "is a folder, not a file")] {
        let error = state.claim(run, "b", Claim::default()).await.unwrap_err().into_error();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.chain().contains(&format!("00000000000000000000.json {what}")), "{}", error.chain());
    }
    // In the place of the next record it is somebody else's.
    crate::conformance::fifo(&runs.join("r/log/00000000000000000002.json"));
    let AppendError::Fenced(error) = journal.append(Entry::Begun {}).await.unwrap_err() else { panic!() };
    assert!(error.chain().contains("which is no record of a journal"), "{}", error.chain());
}

/// Found in a shared folder: a link at the name under which a record was to be written first.
#[tokio::test]
async fn nothing_foreseeable_is_left_or_written_to() {
    let (folder, state) = local();
    std::fs::create_dir_all(folder.path().join("state/runs/r/log")).unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    for name in ["runs/r/plan.json#1", "runs/r/log/00000000000000000000.json#1"] {
        std::os::unix::fs::symlink(&victim, folder.path().join("state").join(name)).unwrap();
    }
    begun(&state, "a").await;
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    let log = folder.path().join("state/runs/r/log");
    assert_eq!(std::fs::read_dir(&log).unwrap().count(), 3, "two records and the link");
    // Whose content is not listed.
    std::os::unix::fs::symlink("/", log.join("disk")).unwrap();
    std::os::unix::fs::symlink("..", log.join("circle")).unwrap();
    assert_eq!(state.read("r").await.unwrap().1.len(), 2);
}

/// What a key signed passes, and nothing else does; keys keep nobody from reading or going on.
#[tokio::test]
async fn records_are_signed_by_whoever_has_a_key() {
    let (folder, state) = local();
    let key = |name: &str| SigningKey::create(&folder.path().join(name)).unwrap().0;
    let (key, other) = (key("key"), key("other"));
    let (public, another) = (*key.public(), *other.public());
    let signing = state.clone().with_signing_key(key);
    let mut journal = begun(&signing, "a").await;
    journal.append(Entry::Begun {}).await.unwrap();
    assert_eq!(signing.read_signed("r", &public).await.unwrap().1.len(), 3);
    let error = state.read_signed("r", &another).await.unwrap_err();
    assert!(error.chain().contains("record 0 of the log (epoch-claim)"), "{}", error.chain());
    // Under the name of another run, or with another plan, the same records are worth nothing.
    let runs = folder.path().join("state/runs");
    std::fs::create_dir_all(runs.join("s/log")).unwrap();
    for name in ["plan.json", "log/00000000000000000000.json"] {
        std::fs::copy(runs.join("r").join(name), runs.join("s").join(name)).unwrap();
    }
    let refused = |error: soup_core::Error| {
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.chain().contains("of another run or another plan"), "{}", error.chain());
    };
    refused(state.read_signed("s", &public).await.unwrap_err());
    std::fs::write(runs.join("r/plan.json"), "{ }").unwrap();
    refused(state.read_signed("r", &public).await.unwrap_err());
    std::fs::write(runs.join("r/plan.json"), "{}").unwrap();
    // Whoever has no key reads it, and goes on with it.
    let (mut unsigned, fold) = state.claim("r", "b", Claim::default()).await.unwrap();
    unsigned.append(Entry::Begun {}).await.unwrap();
    assert_eq!(fold.epoch, 2);
    let error = state.read_signed("r", &public).await.unwrap_err();
    assert!(
        error.chain().contains("record 3 of the log (epoch-claim)") && error.chain().contains("not signed")
    );
    let (_, records) = state.read("r").await.unwrap();
    assert!(records[..3].iter().all(|r| r.signature.is_some()) && records[3].signature.is_none());
}

#[tokio::test]
async fn one_long_failure_makes_no_long_list() {
    let state = memory("long-failure");
    let mut journal = begun(&state, "a").await;
    let message = "x".repeat(1 << 20);
    journal.append(Entry::Failed { exit_code: 65, message: message.clone() }).await.unwrap();
    let failure = state.summary("r").await.unwrap().failure.unwrap();
    assert!(failure.len() < 4 << 10 && failure.ends_with("cut: it had 1048576 bytes]"), "{}", failure.len());
    assert_eq!(state.read("r").await.unwrap().0.failure, Some((65, message)));
}

/// A folder that another user left among the runs, or a prefix that a policy closes.
#[tokio::test]
async fn a_run_that_may_not_be_read_stops_no_list_of_the_others() {
    use crate::faults::{Effect, FaultyStore, Script, set_memory_store};
    for closed in ["runs/s", "runs/s/log", "runs/s/plan.json"] {
        let inner: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let state = |script: Script| {
            set_memory_store(Arc::new(FaultyStore::new(inner.clone(), script.decide())) as Arc<_>);
            let state = memory("closed");
            set_memory_store(None);
            state
        };
        let open = state(Script::new());
        begun(&open, "a").await;
        open.create_plan("s", Bytes::from_static(b"{}")).await.unwrap();
        let mut journal = open.claim("s", "b", Claim::default()).await.unwrap().0;
        journal.append(Entry::Submitted(Operation::default())).await.unwrap();
        let all = state(Script::new().since(None, closed, 1, Effect::Deny)).summaries().await.unwrap();
        let states: Vec<(&str, &str)> = all.iter().map(|s| (s.run.as_str(), s.state.as_str())).collect();
        assert!(
            states.contains(&("r", "queued")) && states.contains(&("s", "unreadable")),
            "{closed}: {all:?}"
        );
        let why = all.iter().find(|s| s.run == "s").unwrap().failure.as_deref().unwrap_or_default();
        assert!(why.contains("runs/s"), "{why}");
    }
}
