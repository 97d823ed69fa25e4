//! What workers say and are told, translated between the wire and plain types ([`exchange`](crate::exchange)).

use soup_core::ledger::{Dataset, Evaluation, Slice};
use soup_core::machine::{FileDigest, Reread, TaskResult, Tier, Work, WorkerId};
use soup_core::run::DiagnosisLevel;
use soup_core::sequence::SequenceId;
use soup_core::shard::Shard;
use soup_core::{Error, Result};
use soup_proto::v1::coordinator_message::Message;
use soup_proto::v1::task_done::Result as Answer;
use soup_proto::v1::{self, assign, worker_message};
use soup_proto::{bounded, sha256, statistics, tensors_of};
use soup_store::load::{plan_reads, stored_dtypes};

use crate::exchange::{self, Assignment, Attempt, HandedIn, Incarnation, Peer, PeerKey, Reached, Said, Told};
use crate::prepare::PreparedRun;

/// What a worker is told, as it is sent.
pub(crate) fn told(told: Told) -> v1::CoordinatorMessage {
    let message = match told {
        Told::Welcome { worker, heartbeat_ms } => {
            Message::Welcome(v1::Welcome { worker: worker.0, heartbeat_ms })
        }
        Told::Begin(of, prepared, key) => Message::Begin(begin(&of, &prepared, &key)),
        Told::Place { of, owners, peers } => Message::Placement(placement(of, &owners, peers)),
        Told::Assign(assignment) => Message::Assign(assign(&assignment)),
        Told::Forget(Incarnation { run, epoch }) => Message::Forget(v1::ForgetSoups { run, epoch }),
        Told::Cancel(attempt) => Message::Cancel(v1::CancelTask { key: Some(key_of(&attempt)) }),
        Told::Release { of: Incarnation { run, epoch }, step, part } => {
            Message::Release(v1::ReleaseGradient { run, epoch, step, part })
        }
        Told::End { run } => Message::End(v1::EndRun { run }),
        Told::Over => Message::Over(v1::WorkOver {}),
        Told::Probe { number, peers } => {
            Message::Probe(v1::ProbePeers { number, peers: peers.into_iter().map(peer).collect() })
        }
    };
    v1::CoordinatorMessage { message: Some(message) }
}

/// What a part of a message takes besides its texts, in bytes.
const PART_BYTES: usize = 48;

/// About how large it is what a worker is told, in bytes, where that is told to every worker and grows with the run or with how many they are.
pub(crate) fn weight(told: &Told) -> usize {
    let of_peers = |peers: &[Peer]| peers.iter().map(|peer| peer.address.len() + PART_BYTES).sum::<usize>();
    match told {
        Told::Begin(_, prepared, _) => {
            let tensors = prepared.schema.tensors().iter().map(|tensor| &tensor.name);
            let texts = tensors.chain(&prepared.names).chain(&prepared.fingerprints);
            let headers = prepared.files.iter().map(|file| file.header.len() + PART_BYTES);
            let configurations = prepared.model_config_json.len()
                + prepared.preprocessor_config_json.as_ref().map_or(0, String::len);
            texts.map(|text| text.len() + PART_BYTES).sum::<usize>() + headers.sum::<usize>() + configurations
        }
        Told::Place { owners, peers, .. } => owners.len() * size_of::<WorkerId>() + of_peers(peers),
        Told::Probe { peers, .. } => of_peers(peers),
        Told::Welcome { .. }
        | Told::Assign(_)
        | Told::Cancel(_)
        | Told::Forget(_)
        | Told::Release { .. }
        | Told::End { .. }
        | Told::Over => 0,
    }
}

/// A message, where a worker takes one of its size. One that it does not take would end its stream, and the task would go to the next worker to
/// end that one's.
///
/// # Errors
/// Which attempt it is about, and why that has failed.
pub(crate) fn sendable(
    message: v1::CoordinatorMessage,
    bytes_max: usize,
) -> Result<v1::CoordinatorMessage, (Attempt, Error)> {
    let Err(error) = bounded::check_sent(&message, bytes_max) else { return Ok(message) };
    match message.message {
        Some(Message::Assign(v1::Assign { key: Some(key), .. })) => {
            let text = "what it would have to do is too much to tell: use a pool of fewer ingredients, or places with shorter names";
            Err((attempt_of(key), error.context(text)))
        }
        // Runs are looked at before they begin ([`check_size`]), and nothing else grows.
        other => Ok(v1::CoordinatorMessage { message: other }),
    }
}

/// Checks that workers can be told of a run.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the model has too many tensors for one message.
pub(crate) fn check_size(of: &Incarnation, prepared: &PreparedRun) -> Result<()> {
    begin(of, prepared, &PeerKey(Default::default())).check_size()
}

fn key_of(attempt: &Attempt) -> v1::TaskKey {
    v1::TaskKey::new(&attempt.of.run, attempt.of.epoch, attempt.key)
}

fn attempt_of(key: v1::TaskKey) -> Attempt {
    Attempt { key: key.attempt_key(), of: Incarnation { run: key.run, epoch: key.epoch } }
}

/// Everything about a run that does not change.
fn begin(of: &Incarnation, prepared: &PreparedRun, key: &PeerKey) -> v1::BeginRun {
    let spec = &prepared.spec;
    v1::BeginRun {
        run: of.run.clone(),
        epoch: of.epoch,
        tensors: tensors_of(&prepared.schema),
        shard_bytes: prepared.shards.shard_bytes(),
        ingredients: prepared.names.clone(),
        datasets: spec.datasets().cloned().map(Into::into).collect(),
        model_config_json: prepared.model_config_json.clone(),
        preprocessor_config_json: prepared.preprocessor_config_json.clone().unwrap_or_default(),
        batch_size: spec.batch_size,
        class_subset: spec.class_subset,
        keep_logits: spec.diagnosis.level == DiagnosisLevel::Full,
        allow_nan: spec.allow_nan,
        streams: spec.streams(),
        judge: prepared.judge.as_ref().map(Into::into),
        batch_norm: prepared.schema.batch_norm().map_or_else(String::new, |b| b.name().to_owned()),
        calibration: spec.calibration_set().map(|set| set.0),
        fingerprints: prepared.fingerprints.clone(),
        digest: v1::DigestKind::from(spec.digest).into(),
        peer_key: key.0.to_vec(),
        output: spec.output.clone(),
        files: prepared
            .files
            .iter()
            .map(|f| v1::OutputFile {
                name: f.name.clone(),
                header: f.header.clone(),
                start: f.range.start,
                end: f.range.end,
            })
            .collect(),
    }
}

/// Who owns what.
fn placement(of: Incarnation, owners: &[WorkerId], peers: Vec<Peer>) -> v1::Placement {
    let owners = owners.iter().map(|w| w.0).collect();
    v1::Placement { run: of.run, epoch: of.epoch, owners, peers: peers.into_iter().map(peer).collect() }
}

fn peer(peer: Peer) -> v1::Peer {
    v1::Peer { worker: peer.worker.0, address: peer.address.to_string() }
}

/// An attempt of a task.
fn assign(assignment: &Assignment) -> v1::Assign {
    let prepared = &*assignment.prepared;
    let work = match &assignment.work {
        Work::Load(shard) => assign::Work::Load(load(prepared, *shard, assignment.tier)),
        Work::Reread(shard, soup) => assign::Work::Reread(v1::RereadShard {
            load: Some(v1::LoadShard { products: false, base: None, ..load(prepared, *shard, Tier::Memory) }),
            soup: soup.as_deref().map(Into::into),
        }),
        Work::Pass(shard) => assign::Work::Pass(v1::PassShard { shard: shard.0 }),
        Work::Survey => assign::Work::Survey(v1::Survey {}),
        Work::Evaluate(evaluation, slice) => assign::Work::Evaluate(v1::JudgeSlice {
            seal: assignment.seal.clone(),
            samples: assignment.samples.clone(),
            ..judge_slice(evaluation, *slice)
        }),
        Work::Prove(_, evaluation, slice) => assign::Work::Prove(judge_slice(evaluation, *slice)),
        Work::Write(soup, file) => {
            assign::Work::Write(v1::WriteFile { soup: Some(soup.into()), file: *file })
        }
        Work::ReadBack(file) => assign::Work::ReadBack(v1::ReadBackFile { file: *file }),
        Work::Digest(soup) => assign::Work::Digest(v1::DigestSoup { soup: Some(soup.into()) }),
        Work::Differentiate(part) => {
            let dataset = prepared.spec.deciding_set().0;
            assign::Work::Differentiate(v1::Differentiate { dataset, ..(&**part).into() })
        }
        Work::Dot(dot) => assign::Work::Dot(dot.into()),
        Work::Gram(shard) => assign::Work::Gram(v1::GramShard {
            shard: shard.0,
            base: prepared.base.as_ref().map(|base| reads_of(base, prepared, *shard)),
        }),
        Work::Compare(of) => assign::Work::Compare(v1::CompareSlice {
            dataset: of.dataset.0,
            start: of.slice.start,
            end: of.slice.end,
            weights: of.weights.iter().map(|w| w.get()).collect(),
            votes: of.votes.iter().map(|w| w.get()).collect(),
            hits: of.hits,
        }),
    };
    let traceparent = assignment.traceparent.clone();
    v1::Assign { key: Some(key_of(&assignment.attempt)), work: Some(work), traceparent }
}

/// A shard, and where it is.
fn load(prepared: &PreparedRun, shard: Shard, tier: Tier) -> v1::LoadShard {
    let streams = prepared.spec.streams();
    v1::LoadShard {
        shard: shard.0,
        tier: v1::Tier::from(tier).into(),
        ingredients: prepared.checkpoints.iter().map(|c| reads_of(c, prepared, shard)).collect(),
        products: streams && prepared.spec.diagnosis.level != DiagnosisLevel::None,
        base: match streams {
            true => prepared.base.as_ref().map(|base| reads_of(base, prepared, shard)),
            false => None,
        },
    }
}

/// A slice of an evaluation.
fn judge_slice(evaluation: &Evaluation, slice: Slice) -> v1::JudgeSlice {
    v1::JudgeSlice {
        soup: Some((&evaluation.soup).into()),
        dataset: evaluation.dataset.0,
        start: slice.start,
        end: slice.end,
        seal: Vec::new(),
        sequence: slice.sequence.0,
        samples: Vec::new(),
    }
}

/// Where a shard of a checkpoint is.
fn reads_of(
    checkpoint: &soup_store::checkpoint::Checkpoint,
    prepared: &PreparedRun,
    shard: Shard,
) -> v1::IngredientReads {
    let range = prepared.shards.range(shard);
    let reads = ingredient_reads(checkpoint, &plan_reads(checkpoint, &prepared.schema, range.clone()));
    let stored = stored_dtypes(checkpoint, &prepared.schema, range).into_iter();
    let stored = stored
        .map(|(tensor, dtype)| v1::StoredTensor { tensor: tensor as u32, dtype: dtype.name().to_owned() });
    v1::IngredientReads { stored: stored.collect(), ..reads }
}

fn ingredient_reads(
    checkpoint: &soup_store::checkpoint::Checkpoint,
    reads: &[soup_store::load::Read],
) -> v1::IngredientReads {
    // Only the objects that these reads touch, so that a message stays small for checkpoints of many files.
    let mut used: Vec<usize> = reads.iter().map(|r| r.file).collect();
    used.sort_unstable();
    used.dedup();
    let object = |&file: &usize| {
        let stamp = &checkpoint.files[file];
        v1::Object { url: stamp.location.to_string(), etag: stamp.etag.clone().unwrap_or_default() }
    };
    let read = |r: &soup_store::load::Read| v1::Read {
        object: used.binary_search(&r.file).unwrap_or_default() as u32,
        object_offset: r.file_offset,
        shard_offset: r.dest_offset,
        bytes: r.len,
    };
    v1::IngredientReads {
        objects: used.iter().map(object).collect(),
        reads: reads.iter().map(read).collect(),
        stored: Vec::new(),
    }
}

/// What a worker says. Of an answer that is malformed its attempt has to hear, so that is no error.
///
/// # Errors
/// Where what a worker hands in is malformed.
pub(crate) fn said(message: v1::WorkerMessage) -> Result<Said> {
    use worker_message::Message;
    Ok(match message.message {
        Some(Message::Done(v1::TaskDone { key: Some(key), result: answer, statistics_sha256 })) => {
            Said::Done(attempt_of(key), self::answer(answer, &statistics_sha256))
        }
        Some(Message::Failed(v1::TaskFailed { key: Some(key), failure, unreached })) => {
            Said::Failed(attempt_of(key), failure.unwrap_or_default().into(), unreached.map(WorkerId))
        }
        Some(Message::HandedIn(message)) => {
            let of = Incarnation { run: message.run.clone(), epoch: message.epoch };
            Said::HandedIn(of, handed_in(message)?)
        }
        Some(Message::Leaving(v1::Leaving {})) => Said::Leaving,
        Some(Message::Probed(v1::Probed { number, reached })) => {
            let reached = reached.into_iter().map(|v1::Reached { worker, milliseconds, error }| Reached {
                worker: WorkerId(worker),
                milliseconds,
                error,
            });
            Said::Probed(number, reached.collect())
        }
        Some(Message::Heartbeat(v1::Heartbeat { passes: Some(v1::Passes { run, epoch, shards }) })) => {
            Said::Passed(Incarnation { run, epoch }, shards)
        }
        Some(Message::Done(_) | Message::Failed(_) | Message::Heartbeat(_) | Message::Register(_)) | None => {
            Said::Alive
        }
    })
}

/// What was read of the pool for an answer counts even if nobody can use the answer.
fn answer(answer: Option<Answer>, statistics_sha256: &[u8]) -> exchange::Answer {
    let bytes_read = match &answer {
        Some(Answer::Loaded(loaded)) => loaded.bytes_read,
        Some(Answer::Passed(passed)) => passed.bytes_read,
        Some(Answer::Reread(reread)) => reread.bytes_read,
        _ => 0,
    };
    let (statistics, result) = match (statistics(statistics_sha256), result(answer)) {
        (Ok(statistics), result) => (statistics, result),
        (Err(error), _) => (None, Err(error)),
    };
    exchange::Answer { result, bytes_read, statistics }
}

/// What a worker hands in that it did for an earlier coordinator.
fn handed_in(message: v1::HandedIn) -> Result<HandedIn> {
    let missing = || Error::internal("a worker handed in nothing");
    let work = message.work.ok_or_else(missing)?;
    let evaluation =
        Evaluation { dataset: Dataset(work.dataset), soup: work.soup.ok_or_else(missing)?.try_into()? };
    let sequence = SequenceId(work.sequence);
    let slice = Slice { index: u32::MAX, start: work.start, end: work.end, sequence };
    let judged = message.evaluated.ok_or_else(missing)?.try_into()?;
    Ok(HandedIn { evaluation, slice, judged, seal: work.seal })
}

/// What a worker brought back.
fn result(answer: Option<Answer>) -> Result<TaskResult> {
    Ok(match answer.ok_or_else(|| Error::internal("a worker sent a result without content"))? {
        Answer::Loaded(l) => TaskResult::Loaded {
            digests: l.digests.iter().map(|d| sha256(d)).collect::<Result<_>>()?,
            notes: l.notes,
        },
        Answer::Surveyed(s) => {
            let (survey, notes) = s.survey()?;
            TaskResult::Surveyed { survey, notes }
        }
        Answer::Evaluated(e) => TaskResult::Evaluated(e.try_into()?),
        Answer::Proved(p) => TaskResult::Proved(Box::new(p.try_into()?)),
        Answer::Written(d) => TaskResult::Written(FileDigest::try_from(d)?),
        Answer::ReadBack(d) => TaskResult::ReadBack { bytes: d.bytes, sha256: sha256(&d.sha256)? },
        Answer::Reread(r) => {
            let blend = |bytes: &[u8]| (!bytes.is_empty()).then(|| sha256(bytes)).transpose();
            TaskResult::Reread(Reread {
                digests: r.digests.iter().map(|d| sha256(d)).collect::<Result<_>>()?,
                blend: blend(&r.blend_sha256)?,
                served: blend(&r.served_sha256)?,
            })
        }
        Answer::Digested(d) => TaskResult::Digested(sha256(&d.sha256)?),
        Answer::Differentiated(d) => TaskResult::Differentiated(d.into()),
        Answer::Measured(m) => TaskResult::Measured(m.grams.into_iter().map(Into::into).collect()),
        Answer::Compared(c) => TaskResult::Compared(Box::new(c.try_into()?)),
        Answer::Passed(p) => TaskResult::Passed {
            digests: p.digests.iter().map(|d| sha256(d)).collect::<Result<_>>()?,
            grams: p.grams.into_iter().map(Into::into).collect(),
            notes: p.notes,
        },
        Answer::Dotted(d) => TaskResult::Dotted(d.segments.into_iter().map(Into::into).collect()),
    })
}

#[cfg(test)]
mod tests {
    use soup_core::machine::TaskKey;

    use super::*;

    fn said_of(message: worker_message::Message) -> Result<Said> {
        said(v1::WorkerMessage { message: Some(message) })
    }

    #[test]
    fn a_malformed_answer_fails_its_attempt_and_says_what_was_read() {
        let of = Incarnation { run: "r".to_owned(), epoch: 2 };
        let attempt = Attempt { of, key: TaskKey { task: 3, attempt: 4 } };
        let loaded = v1::Loaded { digests: vec![vec![1, 2, 3]], notes: Vec::new(), bytes_read: 5 };
        let done = v1::TaskDone {
            key: Some(key_of(&attempt)),
            result: Some(Answer::Loaded(loaded)),
            ..v1::TaskDone::default()
        };
        let Ok(Said::Done(of, answer)) = said_of(worker_message::Message::Done(done)) else { panic!() };
        assert_eq!((of, answer.bytes_read), (attempt, 5));
        assert!(answer.result.unwrap_err().chain().contains("SHA-256"));
    }

    #[test]
    fn what_belongs_to_no_attempt_says_that_the_worker_is_alive() {
        let done = v1::TaskDone::default();
        let failed = v1::TaskFailed::default();
        let heartbeat = v1::Heartbeat { passes: None };
        for message in [
            worker_message::Message::Done(done),
            worker_message::Message::Failed(failed),
            worker_message::Message::Heartbeat(heartbeat),
        ] {
            assert!(matches!(said_of(message), Ok(Said::Alive)));
        }
        assert!(matches!(said(v1::WorkerMessage { message: None }), Ok(Said::Alive)));
    }

    #[test]
    fn a_task_that_is_too_large_to_tell_has_failed() {
        let of = Incarnation { run: "r".to_owned(), epoch: 2 };
        let attempt = Attempt { of, key: TaskKey { task: 3, attempt: 4 } };
        let assign = |samples: usize| {
            let slice = v1::JudgeSlice { samples: vec![1; samples], ..v1::JudgeSlice::default() };
            let work = Some(assign::Work::Evaluate(slice));
            let assign = v1::Assign { key: Some(key_of(&attempt)), work, traceparent: String::new() };
            v1::CoordinatorMessage { message: Some(Message::Assign(assign)) }
        };
        assert_eq!(sendable(assign(10), 1000).unwrap(), assign(10));
        let (failed, error) = sendable(assign(1000), 1000).unwrap_err();
        assert_eq!((failed, error.kind()), (attempt.clone(), soup_core::ErrorKind::Data));
        assert!(error.chain().starts_with("what it would have to do is too much"), "{}", error.chain());
        let welcome = told(Told::Welcome { worker: WorkerId(1), heartbeat_ms: 5 });
        assert_eq!(sendable(welcome.clone(), 0).unwrap(), welcome);
    }

    #[test]
    fn what_all_are_told_is_weighed_before_it_is_put_into_words() {
        let peers = |count: u64| {
            let peer = |worker| Peer {
                worker: WorkerId(worker),
                address: format!("https://10.0.0.7:{worker}").into(),
            };
            (0..count).map(peer).collect::<Vec<_>>()
        };
        let of = Incarnation { run: "r".to_owned(), epoch: 2 };
        let place = Told::Place { of, owners: vec![WorkerId(300); 4000], peers: peers(5000) };
        let probe = Told::Probe { number: 1, peers: peers(5000) };
        for all in [place, probe] {
            let weight = weight(&all);
            let bytes = soup_proto::message_bytes(&told(all));
            assert!((bytes..4 * bytes).contains(&weight), "{weight} and {bytes} bytes");
        }
        assert_eq!(weight(&Told::Over), 0);
    }

    #[test]
    fn what_is_handed_in_is_whole_or_refused() {
        let message = v1::HandedIn { run: "r".to_owned(), epoch: 2, work: None, evaluated: None };
        assert!(said_of(worker_message::Message::HandedIn(message)).is_err());
    }
}
