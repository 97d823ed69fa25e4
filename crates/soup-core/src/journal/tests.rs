use super::*;
use crate::error::ErrorKind;
use crate::ledger::Dataset;
use crate::sequence::SequenceId;
use crate::soup::{Ingredient, Soup, Weight};
use crate::tally::{Counts, Judged, Sums, Value, Values};

/// A log as a store keeps it.
#[derive(Default)]
struct Log {
    fold: Fold,
    objects: Vec<Vec<u8>>,
}

impl Log {
    fn add(&mut self, epoch: u64, writer: &str, entry: Entry) -> &mut Log {
        let tail = self.fold.tail().clone();
        let record = Record {
            v: entry.version(),
            seq: tail.seq,
            epoch,
            writer: writer.to_owned(),
            put_id: format!("{writer}-{}", tail.seq),
            prev_sha256: tail.prev_sha256,
            at: format!("2026-01-01T00:00:{:02}Z", tail.seq),
            entry,
            signature: None,
        };
        let bytes = serde_json::to_vec(&record).unwrap();
        let read = self.fold.push(record.seq, &bytes).unwrap();
        assert_eq!(serde_json::to_vec(&read).unwrap(), bytes, "reads back as it was written");
        self.objects.push(bytes);
        self
    }

    fn refold(objects: &[Vec<u8>]) -> Result<Fold, Error> {
        let mut fold = Fold::default();
        for (seq, bytes) in objects.iter().enumerate() {
            fold.push(seq as u64, bytes)?;
        }
        Ok(fold)
    }
}

#[test]
fn what_a_newer_version_wrote_is_said_to_be_newer() {
    let newer = format!(r#"{{"v":{},"seq":0,"kind":"something-new","body":{{}}}}"#, VERSION + 1);
    let error = Fold::default().push(0, newer.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.chain().contains("written by a newer version of soupctl"), "{}", error.chain());
    for broken in [&br#"{"v":1,"seq":0,"kind":"something-new","body":{}}"#[..], br#"{"v":0}"#, b"{}"] {
        assert_eq!(Fold::default().push(0, broken).unwrap_err().kind(), ErrorKind::Data);
    }
}

fn score(correct: u64, loss_sum: f64) -> Tally {
    Counts { total: 10, correct, loss_sum, confusion: [((0, 0), correct), ((1, 0), 10 - correct)].into() }
        .into()
}

fn slice(soup: &Soup, slice: u32) -> ScoredSlice {
    ScoredSlice {
        dataset: 0,
        soup: soup.into(),
        slice,
        sequence: SequenceId::NATURAL,
        judged: Judged::Tally(score(3, 0.1 + 0.2)),
    }
}

fn scored(soup: &Soup, loss_sum: f64, trials: &[u32]) -> Entry {
    let decided = |&trial: &u32| Decided { trial, candidate: 1, pass: 1, verdict: Verdict::Accepted };
    Entry::Scored(Scored {
        dataset: 0,
        soup: soup.into(),
        score: score(7, loss_sum),
        outcomes_sha256: None,
        recalled: false,
        decisions: trials.iter().map(decided).collect(),
    })
}

fn sample_log() -> Log {
    let (a, b) = (Soup::single(Ingredient(0)), Soup::uniform(2).unwrap());
    let mut log = Log::default();
    log.add(1, "x", Entry::EpochClaim(Claim { host: "h".into(), pid: 1, version: "0".into() }))
        .add(
            1,
            "x",
            Entry::Submitted(Operation { overwrite: true, lookahead: Some(2), ..Operation::default() }),
        )
        .add(1, "x", Entry::Begun {})
        .add(
            1,
            "x",
            Entry::Surveyed(Surveyed { survey: Survey::of_classes(vec![10], 2), ..Surveyed::default() }),
        )
        .add(1, "x", Entry::Slices(vec![slice(&a, 0), slice(&a, 1), slice(&b, 0)]))
        .add(1, "x", scored(&a, 0.1, &[]))
        .add(1, "x", Entry::Suspended {})
        .add(2, "y", Entry::EpochClaim(Claim::default()))
        .add(2, "y", Entry::Begun {})
        .add(2, "y", scored(&b, f64::NAN, &[1]));
    log
}

#[test]
fn a_fold_knows_what_the_log_says() {
    let log = sample_log();
    let fold = &log.fold;
    assert_eq!((fold.epoch, fold.state, fold.decisions), (2, RunState::Running, 1));
    assert_eq!(fold.owner.as_ref().unwrap().writer, "y");
    assert!(fold.slices.is_empty(), "complete evaluations have no slices left");
    assert_eq!(fold.scores.len(), 2);
    assert_eq!(fold.scores[0].0.dataset, Dataset::VALIDATION);
    assert_eq!(fold.scores[0].1, score(7, 0.1));
    assert!(fold.scores[1].1.counts().unwrap().loss_sum.is_nan());
    assert_eq!(fold.times.as_ref().unwrap().1, "2026-01-01T00:00:09Z");
    assert_eq!(Log::refold(&log.objects).unwrap().tail(), fold.tail());
}

#[test]
fn what_is_retracted_is_not_known_any_more() {
    let (a, b) = (Soup::single(Ingredient(0)), Soup::uniform(2).unwrap());
    let of = |soup: &Soup| ScoredSoup { dataset: 0, soup: soup.into() };
    let retracted = |scores, decisions| {
        Entry::Retracted(Retracted { why: "it lied".into(), scores, steps: 0, decisions })
    };
    let mut log = sample_log();
    log.add(2, "y", Entry::Slices(vec![ScoredSlice { dataset: 1, ..slice(&a, 0) }]));
    log.add(2, "y", retracted(vec![of(&b)], 0));
    assert_eq!((log.fold.scores.len(), log.fold.decisions, log.fold.slices.len()), (1, 0, 1));
    // It is scored again, and the trial decided.
    log.add(2, "y", scored(&b, 0.5, &[1]));
    assert_eq!((log.fold.scores.len(), log.fold.decisions), (2, 1));
    // Slices of what has no score yet go too.
    log.add(2, "y", retracted(vec![ScoredSoup { dataset: 1, soup: (&a).into() }], 1));
    assert_eq!((log.fold.scores.len(), log.fold.slices.len()), (2, 0));
    assert_eq!(Log::refold(&log.objects).unwrap(), log.fold);
    // Readers from before there was such a record say that it is newer than they are.
    let last = String::from_utf8(log.objects.last().unwrap().clone()).unwrap();
    assert!(
        last.contains("\"v\":2")
            && log.objects[..10].iter().all(|o| String::from_utf8_lossy(o).contains("\"v\":1"))
    );
    for (from, to, expected) in [
        ("\"v\":2", "\"v\":1", "version 1, and its kind 2"),
        ("\"decisions\":1", "\"decisions\":2", "leaves 0 steps and 2 decisions"),
        ("\"steps\":0", "\"steps\":1", "leaves 1 steps"),
    ] {
        let mut objects = log.objects.clone();
        *objects.last_mut().unwrap() = last.replace(from, to).into_bytes();
        let error = Log::refold(&objects).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.chain().contains(expected), "{}", error.chain());
    }
}

#[test]
fn numbers_keep_their_bits() {
    for loss in [0.1 + 0.2, f64::MIN_POSITIVE, 1e300, f64::INFINITY, -0.0, 5e-324] {
        let soup = Soup::weighted(vec![Ingredient(0)], vec![vec![Weight::new(1.0 / 3.0).unwrap()]]).unwrap();
        let mut log = Log::default();
        log.add(1, "x", Entry::EpochClaim(Claim::default())).add(1, "x", scored(&soup, loss, &[]));
        let (evaluation, score) = &log.fold.scores[0];
        assert_eq!(score.counts().unwrap().loss_sum.to_bits(), loss.to_bits());
        assert_eq!(evaluation.soup, soup);
    }
}

#[test]
fn sums_read_back_as_they_were_written() {
    let figures = [("nll", 0.1 + 0.2), ("tokens", f64::INFINITY)].map(|(name, sum)| (name.to_owned(), sum));
    let score = Tally::Sums(Sums { samples: 3, figures: figures.into() });
    let json = serde_json::to_string(&TallyRecord(score.clone())).unwrap();
    assert_eq!(json, r#"{"samples":3,"figures":{"nll":"0.30000000000000004","tokens":"inf"}}"#);
    assert_eq!(serde_json::from_str::<TallyRecord>(&json).unwrap().0, score);
}

#[test]
fn values_read_back_to_the_bits_that_were_written_and_are_newer_than_older_programs() {
    let value = |truth, prediction| Value { truth, prediction };
    let values: Values = [value(3.8, 0.1 + 0.2), value(0.0, f64::INFINITY)].into_iter().collect();
    let json = serde_json::to_string(&TallyRecord(values.clone().into())).unwrap();
    assert_eq!(json, r#"{"values":"ZmZmZmZmDkA0MzMzMzPTPwAAAAAAAAAAAAAAAAAA8H8="}"#);
    assert_eq!(serde_json::from_str::<TallyRecord>(&json).unwrap().0, values.clone().into());
    for broken in [r#"{"values":"ZmY="}"#, r#"{"values":"-"}"#] {
        assert!(serde_json::from_str::<TallyRecord>(broken).is_err());
    }
    let soup = Soup::single(Ingredient(0));
    let surveyed = Surveyed { survey: Survey::of_values(vec![2]), ..Surveyed::default() };
    let slice = ScoredSlice { judged: Judged::Tally(values.clone().into()), ..slice(&soup, 0) };
    let Entry::Scored(scored) = scored(&soup, 0.0, &[]) else { unreachable!() };
    let mut log = Log::default();
    log.add(1, "x", Entry::EpochClaim(Claim::default()))
        .add(1, "x", Entry::Surveyed(surveyed.clone()))
        .add(1, "x", Entry::Slices(vec![slice]))
        .add(1, "x", Entry::Scored(Scored { score: values.clone().into(), ..scored }));
    let text = |i: usize| String::from_utf8(log.objects[i].clone()).unwrap();
    assert!(text(0).contains("\"v\":1") && (1..4).all(|i| text(i).contains("\"v\":5")));
    assert!(text(1).contains(r#""body":{"samples":[2],"values":1,"abilities":["gradients"]"#), "{}", text(1));
    assert_eq!(log.fold.surveyed, Some(surveyed));
    assert_eq!(log.fold.scores[0].1, values.into());
    let error = Log::refold(&[log.objects[0].clone(), text(1).replace("\"v\":5", "\"v\":1").into_bytes()]);
    assert!(error.unwrap_err().chain().contains("version 1, and its kind 5"));
}

#[test]
fn a_log_that_was_tampered_with_is_refused() {
    let log = sample_log();
    let text = |i: usize| String::from_utf8(log.objects[i].clone()).unwrap();
    let edited = |i: usize, from: &str, to: &str| {
        let mut objects = log.objects.clone();
        assert!(text(i).contains(from), "{}", text(i));
        objects[i] = text(i).replace(from, to).into_bytes();
        objects
    };
    let mut missing = log.objects.clone();
    missing.remove(4);
    let mut twice = log.objects.clone();
    twice.insert(5, twice[5].clone());
    let cases = [
        ("a changed score", edited(5, "\"correct\":7", "\"correct\":8"), "follows a record"),
        ("a changed time", edited(5, "00:05", "00:06"), "follows a record"),
        ("another version", edited(9, "\"v\":1", "\"v\":0"), "version 0"),
        ("a missing record", missing, "number 4 is expected"),
        ("a record twice", twice, "number 6 is expected"),
        ("an old epoch", edited(8, "\"epoch\":2", "\"epoch\":1"), "belongs to"),
        ("another writer", edited(8, "\"writer\":\"y\"", "\"writer\":\"x\""), "belongs to"),
        ("a skipped epoch", edited(7, "\"epoch\":2", "\"epoch\":3"), "claims epoch 3"),
        ("a skipped trial", edited(9, "\"trial\":1", "\"trial\":2"), "decides trial 2"),
        ("no record", vec![b"{}".to_vec()], "cannot be read"),
    ];
    for (what, objects, expected) in cases {
        let error = Log::refold(&objects).map(|_| ()).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Data, "{what}");
        assert!(error.chain().contains(expected), "{what}: {}", error.chain());
    }
}

#[test]
fn nothing_is_written_before_a_claim() {
    let record = Record {
        v: 1,
        seq: 0,
        epoch: 0,
        writer: "x".into(),
        put_id: "x-0".into(),
        prev_sha256: GENESIS.into(),
        at: String::new(),
        entry: Entry::Begun {},
        signature: None,
    };
    let error = Fold::default().push(0, &serde_json::to_vec(&record).unwrap()).unwrap_err();
    assert!(error.chain().contains("nobody"), "{}", error.chain());
}

#[test]
fn asking_again_reopens_a_run_and_keeps_what_is_known() {
    let mut log = sample_log();
    log.add(2, "y", Entry::Failed { exit_code: 69, message: "gone".into() });
    assert!(log.fold.state.ended());
    log.add(3, "z", Entry::EpochClaim(Claim::default())).add(3, "z", Entry::Submitted(Operation::default()));
    assert_eq!((log.fold.state, log.fold.scores.len()), (RunState::Queued, 2));
    assert_eq!(log.fold.failure, None);
}

#[test]
fn a_record_of_a_failure_is_bounded() {
    let Entry::Failed { exit_code, message } = Entry::failed(&Error::data("x".repeat(1 << 20))) else {
        panic!()
    };
    assert_eq!((exit_code, message.len()), (65, crate::error::TEXT_BYTES_MAX));
}
