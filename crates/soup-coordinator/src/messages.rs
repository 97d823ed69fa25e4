//! Actions and what workers say, translated between soup-core's machine and the wire.

use soup_core::ledger::{Dataset, Evaluation, Slice};
use soup_core::machine::{Event, FileDigest, TaskKey, TaskResult, Tier, Work, WorkerId};
use soup_core::run::DiagnosisLevel;
use soup_core::shard::Shard;
use soup_core::{Error, Result};
use soup_proto::v1::coordinator_message::Message;
use soup_proto::v1::task_done::Result as Answer;
use soup_proto::v1::{self, assign};
use soup_proto::{sha256, tensors_of};
use soup_store::load::{plan_reads, stored_dtypes};

use crate::prepare::Prepared;

/// Which run, and which of its coordinators is speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) run: String,
    pub(crate) epoch: u64,
}

impl Incarnation {
    fn key(&self, key: TaskKey) -> v1::TaskKey {
        v1::TaskKey::new(&self.run, self.epoch, key)
    }
}

/// Everything about a run that does not change.
pub(crate) fn begin(of: &Incarnation, prepared: &Prepared) -> v1::BeginRun {
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
pub(crate) fn placement(of: &Incarnation, owners: &[WorkerId], peers: Vec<v1::Peer>) -> Message {
    let owners = owners.iter().map(|w| w.0).collect();
    Message::Placement(v1::Placement { run: of.run.clone(), epoch: of.epoch, owners, peers })
}

/// An attempt of a task.
pub(crate) fn assign(
    of: &Incarnation,
    key: TaskKey,
    work: &Work,
    prepared: &Prepared,
    tier: impl Fn(Shard) -> Tier,
) -> Message {
    let work = match work {
        Work::Load(shard) => assign::Work::Load(v1::LoadShard {
            shard: shard.0,
            on_disk: tier(*shard) == Tier::Disk,
            ingredients: prepared.checkpoints.iter().map(|c| reads_of(c, prepared, *shard)).collect(),
            products: prepared.spec.streams() && prepared.spec.diagnosis.level != DiagnosisLevel::None,
            base: match prepared.spec.streams() {
                true => prepared.base.as_ref().map(|base| reads_of(base, prepared, *shard)),
                false => None,
            },
        }),
        Work::Pass(shard) => assign::Work::Pass(v1::PassShard { shard: shard.0 }),
        Work::Survey => assign::Work::Survey(v1::Survey {}),
        Work::Evaluate(evaluation, slice) => assign::Work::Evaluate(v1::Evaluate {
            soup: Some((&evaluation.soup).into()),
            dataset: evaluation.dataset.0,
            start: slice.start,
            end: slice.end,
        }),
        Work::Write(soup, file) => {
            assign::Work::Write(v1::WriteFile { soup: Some(soup.into()), file: *file })
        }
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
        }),
    };
    Message::Assign(v1::Assign { key: Some(of.key(key)), work: Some(work) })
}

/// An attempt that is not wanted any more.
pub(crate) fn cancel(of: &Incarnation, key: TaskKey) -> Message {
    Message::Cancel(v1::CancelTask { key: Some(of.key(key)) })
}

/// A gradient that nobody needs any more.
pub(crate) fn release(of: &Incarnation, step: u32, part: u32) -> Message {
    Message::Release(v1::ReleaseGradient { run: of.run.clone(), epoch: of.epoch, step, part })
}

/// The end of a run.
pub(crate) fn end(run: &str) -> Message {
    Message::End(v1::EndRun { run: run.to_owned() })
}

/// Where a shard of a checkpoint is.
fn reads_of(
    checkpoint: &soup_store::checkpoint::Checkpoint,
    prepared: &Prepared,
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

/// What a worker hands in that it did for an earlier coordinator.
///
/// # Errors
/// Where the message is malformed.
pub(crate) fn handed_in(message: v1::HandedIn) -> Result<Event> {
    let missing = || Error::internal("a worker handed in nothing");
    let work = message.work.ok_or_else(missing)?;
    let evaluation =
        Evaluation { dataset: Dataset(work.dataset), soup: work.soup.ok_or_else(missing)?.try_into()? };
    let slice = Slice { index: u32::MAX, start: work.start, end: work.end };
    Ok(Event::HandedIn(evaluation, slice, message.evaluated.ok_or_else(missing)?.try_into()?))
}

/// What a worker brought back.
///
/// # Errors
/// Where the message is malformed.
pub(crate) fn result(answer: Option<Answer>) -> Result<TaskResult> {
    Ok(match answer.ok_or_else(|| Error::internal("a worker sent a result without content"))? {
        Answer::Loaded(l) => TaskResult::Loaded {
            sha256: l.sha256.iter().map(|d| sha256(d)).collect::<Result<_>>()?,
            notes: l.notes,
        },
        Answer::Surveyed(s) => {
            let (survey, notes) = s.survey()?;
            TaskResult::Surveyed { survey, notes }
        }
        Answer::Evaluated(e) => TaskResult::Evaluated(e.try_into()?),
        Answer::Written(d) => TaskResult::Written(FileDigest::try_from(d)?),
        Answer::Digested(d) => TaskResult::Digested(sha256(&d.sha256)?),
        Answer::Differentiated(d) => TaskResult::Differentiated(d.into()),
        Answer::Measured(m) => TaskResult::Measured(m.grams.into_iter().map(Into::into).collect()),
        Answer::Compared(c) => TaskResult::Compared(Box::new(c.try_into()?)),
        Answer::Passed(p) => TaskResult::Passed {
            sha256: p.sha256.iter().map(|d| sha256(d)).collect::<Result<_>>()?,
            grams: p.grams.into_iter().map(Into::into).collect(),
            notes: p.notes,
        },
        Answer::Dotted(d) => TaskResult::Dotted(d.segments.into_iter().map(Into::into).collect()),
    })
}
