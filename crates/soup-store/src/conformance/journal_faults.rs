//! The journal on a store that fails: one request after the other, in every way, and the result is as if it had not.
//!
//! Time is simulated, so pauses take none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use soup_core::ErrorKind;
use soup_core::journal::{Entry, Operation};
use soup_core::tally::Counts;
use tokio::time::Instant;

use super::journals::{claim, is_fenced, owned, state};
use crate::faults::{Decide, Effect, FaultyStore, Op, Script, set_memory_store};
use crate::location::Location;
use crate::scores::KeptScore;
use crate::state::{AppendError, State};

const EFFECTS: [Effect; 7] = [
    Effect::Fail,
    Effect::LoseAnswer,
    Effect::Exists409,
    Effect::LateWrite(Duration::from_millis(10)),
    Effect::LateWrite(Duration::from_secs(1)),
    Effect::Stall(Duration::from_millis(10)),
    // Longer than any answer is waited for.
    Effect::Stall(Duration::from_secs(3600)),
];

/// A state on a memory of its own that fails as `decide` says.
fn faulty(decide: Decide) -> (Arc<InMemory>, State) {
    let memory = Arc::new(InMemory::new());
    let faulty = FaultyStore::new(Arc::clone(&memory) as Arc<dyn ObjectStore>, decide);
    set_memory_store(Arc::new(faulty) as Arc<dyn ObjectStore>);
    let state = state(&Location::parse("memory:///s").unwrap()).with_patience(Duration::from_secs(120));
    set_memory_store(None);
    (memory, state)
}

/// All that is kept of runs and scores.
async fn kept(memory: &InMemory) -> BTreeMap<String, Bytes> {
    let objects: Vec<_> = memory.list(None).try_collect().await.unwrap();
    let mut kept = BTreeMap::new();
    for path in objects.into_iter().map(|o| o.location).filter(|p| !p.as_ref().contains("probe")) {
        let bytes = memory.get(&path).await.unwrap().bytes().await.unwrap();
        kept.insert(path.to_string(), bytes);
    }
    kept
}

/// Everything that a run does with its state.
async fn whole_life(state: &State) {
    state.probe().await.unwrap();
    let mut journal = owned(state, "w1").await;
    journal.append(Entry::Submitted(Operation::default())).await.unwrap();
    journal.append(Entry::Begun {}).await.unwrap();
    drop(journal);
    assert_eq!(state.runs().await.unwrap(), ["r"]);
    let (mut journal, fold) = state.claim("r", "w2", claim("second")).await.unwrap();
    assert_eq!((fold.epoch, journal.epoch()), (2, 2));
    let scores = state.scores("ab").unwrap();
    let kept = KeptScore { score: Counts::default().into(), outcomes_sha256: None };
    scores.put("01", &kept).await.unwrap();
    assert_eq!(scores.known().await.unwrap().len(), 1);
    assert_eq!(scores.get("01").await.unwrap(), Some(kept));
    journal.append(Entry::Suspended {}).await.unwrap();
    assert_eq!(state.read("r").await.unwrap().1.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn any_two_requests_may_fail_in_any_way() {
    let requests = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&requests);
    let (memory, state) = faulty(Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    }));
    whole_life(&state).await;
    let undisturbed = kept(&memory).await;
    assert_eq!(undisturbed.len(), 7, "a plan, five records, a score");
    let requests = requests.load(Ordering::SeqCst);
    assert!(requests > 20);
    for effect in EFFECTS {
        for first in 1..=requests {
            // The second one past the first: the same request tried again, or any later one.
            for second in first + 1..=requests + 1 {
                let script = Script::new().nth(None, "", first, effect).nth(None, "", second, effect);
                let (memory, state) = faulty(script.decide());
                whole_life(&state).await;
                // Late writes come now.
                tokio::time::sleep(Duration::from_secs(10)).await;
                assert_eq!(kept(&memory).await, undisturbed, "{effect:?} at {first} and {second}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_one_goes_on_whatever_fails() {
    for effect in EFFECTS {
        // Which of the puts fail: a run's first record on, whoever's.
        for failing in 0..64_u64 {
            let puts = AtomicU64::new(0);
            let (memory, state) = faulty(Arc::new(move |request| {
                let ours = request.op == Op::Put && request.path.contains("/log/");
                let n = if ours { puts.fetch_add(1, Ordering::SeqCst) } else { u64::MAX };
                (n < 6 && failing >> n & 1 == 1).then_some(effect)
            }));
            // Six answers in a row may be waited for in vain.
            let state = state.with_patience(Duration::from_secs(600));
            let mut a = owned(&state, "a").await;
            let (appended, claimed) =
                tokio::join!(a.append(Entry::Begun {}), state.claim("r", "b", claim("b")));
            let what = format!("{effect:?}, puts {failing:b}");
            let appended = appended.is_ok();
            let mut owners = 0;
            let expect = "was taken over by";
            match a.append(Entry::Begun {}).await {
                Ok(()) => owners += 1,
                Err(e) => is_fenced(Err::<(), _>(e), expect),
            }
            match claimed {
                Ok((mut b, _)) => {
                    b.append(Entry::Suspended {}).await.unwrap();
                    owners += 1;
                }
                Err(e) => is_fenced(Err::<(), _>(e), expect),
            }
            tokio::time::sleep(Duration::from_secs(7200)).await;
            assert_eq!(owners, 1, "{what}");
            let (_, records) = state.read("r").await.unwrap_or_else(|e| panic!("{what}: {}", e.chain()));
            let of_a = records.iter().filter(|r| r.writer == "a").count();
            let at_least = if appended { 2 } else { 1 };
            assert!(of_a >= at_least, "{what}: what was appended is kept");
            assert_eq!(kept(&memory).await.len(), 1 + records.len(), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    for effect in EFFECTS.into_iter().filter(|e| !matches!(e, Effect::LoseAnswer | Effect::LateWrite(_))) {
        if effect == Effect::Stall(Duration::from_millis(10)) {
            continue;
        }
        let gone = Script::new().since(Op::Put, "000002.json", 1, effect);
        let (_, state) = faulty(gone.decide());
        let mut journal = owned(&state, "w").await;
        journal.append(Entry::Begun {}).await.unwrap();
        let begun = Instant::now();
        let error = journal.append(Entry::Begun {}).await.unwrap_err();
        let AppendError::Store(error) = error else { panic!("{error:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
        assert!(
            error.chain().contains("00000000000000000002.json: the store failed for"),
            "{}",
            error.chain()
        );
        let seconds = begun.elapsed().as_secs();
        assert!((100..=125).contains(&seconds), "{effect:?}: {seconds} s");
        // Whether it is there is not known, so nothing is appended after it.
        assert!(matches!(journal.append(Entry::Begun {}).await, Err(AppendError::Store(_))));
        assert_eq!(journal.seq(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_was_cut_off_ends_its_journal() {
    let slow = Script::new().nth(Op::Put, "000001.json", 1, Effect::Stall(Duration::from_secs(5)));
    let (_, state) = faulty(slow.decide());
    let mut journal = owned(&state, "w").await;
    let cut = tokio::time::timeout(Duration::from_secs(1), journal.append(Entry::Begun {})).await;
    assert!(cut.is_err());
    // A second record of the same number and the same writer would be mistaken for the first one.
    let refused = journal.append(Entry::Suspended {}).await.unwrap_err().into_error();
    assert!(refused.chain().contains("failed or was cut off"), "{}", refused.chain());
    state.claim("r", "w2", claim("h")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let inside = Location::local(&folder.path().join("file/state")).unwrap();
    let begun = Instant::now();
    let error = state(&inside).probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{}", error.chain());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
