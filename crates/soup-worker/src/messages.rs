//! What the coordinator says, in this worker's words, and what this worker answers: wire messages end here.

use std::sync::Arc;

use soup_core::diagnosis::ensemble::{Alternatives, Asked};
use soup_core::judge::JudgeId;
use soup_core::ledger::{Dataset, SLICE_SAMPLES_MAX};
use soup_core::machine::{
    Differentiate, Dot, FileDigest, LayerGram, PartFigures, Proof, Reread, SegmentDots, WorkerId,
};
use soup_core::run::judges_own;
use soup_core::shard::{Shard, ShardPlan};
use soup_core::soup::Soup;
use soup_core::tally::Judged;
use soup_core::{Error, Result};
use soup_proto::v1;
use soup_proto::v1::assign::Work;
use soup_proto::v1::task_done::Result as Answered;
use soup_store::load::{Read, ReadFrom};
use soup_store::location::Location;
use soup_store::places::{self, Use};
use soup_store::read::Digest;
use soup_trust::ticket;

use crate::active::{Held, Passes};
use crate::begun::{Begun, OutputFile, Owners};
use crate::judge::native::{self, Setting};
use crate::judge::statistics::Statistics;
use crate::passages::Passed;
use crate::shards::Loaded;
use crate::sources::{ShardSources, Source};
use crate::survey::Surveyed;

/// Something that is to be done.
pub(crate) enum Task {
    Load(ShardSources),
    Survey,
    Evaluate(Soup, Positions),
    /// Twice the same.
    Prove(Soup, Samples),
    /// One file of the output.
    Write(Soup, u32),
    /// One that was written.
    ReadBack(u32),
    Digest(Soup),
    Differentiate(Dataset, Differentiate),
    Dot(Dot),
    /// On a shard, beside the base if there is one.
    Gram(u32, Option<Source>),
    Compare(Samples, Asked),
    Pass(u32),
    /// With the soup whose blend is wanted, if one is.
    Reread(ShardSources, Option<Soup>),
}

/// Samples `start` to `end` of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Samples {
    pub(crate) dataset: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Samples of a dataset that a soup is judged on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// Some that follow each other.
    Range(Samples),
    /// Those at these positions, in this order; not none.
    Named { dataset: u32, positions: Vec<u64> },
}

/// What a task is called, for counting.
pub(crate) fn name(work: &Work) -> &'static str {
    match work {
        Work::Load(_) => "load",
        Work::Survey(_) => "survey",
        Work::Evaluate(_) => "evaluate",
        Work::Write(_) => "write",
        Work::Digest(_) => "digest",
        Work::Differentiate(_) => "differentiate",
        Work::Dot(_) => "dot",
        Work::Gram(_) => "gram",
        Work::Compare(_) => "compare",
        Work::Pass(_) => "pass",
        Work::Prove(_) => "prove",
        Work::ReadBack(_) => "read-back",
        Work::Reread(_) => "reread",
    }
}

/// What came of it, and of what.
pub(crate) struct Done {
    pub(crate) answer: Answer,
    /// SHA-256 of the running statistics that were recomputed for the soup, where they were.
    pub(crate) statistics: Option<[u8; 32]>,
}

impl From<Answer> for Done {
    fn from(answer: Answer) -> Done {
        Done { answer, statistics: None }
    }
}

impl Done {
    /// Of a soup with these statistics, where they were recomputed.
    pub(crate) fn of(answer: Answer, statistics: Option<&Statistics>) -> Done {
        Done { answer, statistics: statistics.map(Statistics::sha256) }
    }

    /// Bytes that were read of the pool for it.
    pub(crate) fn bytes_read(&self) -> u64 {
        match &self.answer {
            Answer::Loaded(loaded) => loaded.bytes_read,
            Answer::Passed(passed) => passed.bytes_read,
            Answer::Reread(_, bytes) => *bytes,
            _ => 0,
        }
    }

    /// As the coordinator is told, of the attempt `key`.
    pub(crate) fn told(self, key: v1::TaskKey) -> v1::TaskDone {
        v1::TaskDone {
            key: Some(key),
            result: Some(self.answer.into()),
            statistics_sha256: self.statistics.map_or_else(Vec::new, Vec::from),
        }
    }
}

/// What came of something.
pub(crate) enum Answer {
    Loaded(Loaded),
    Surveyed(Surveyed),
    Evaluated(Judged),
    Proved(Box<Proof>),
    Written(FileDigest),
    ReadBack(Digest),
    Digested([u8; 32]),
    Differentiated(PartFigures),
    Dotted(Vec<SegmentDots>),
    Measured(Vec<LayerGram>),
    Compared(Box<Alternatives>),
    Passed(Passed),
    /// And how many bytes were read for it.
    Reread(Reread, u64),
}

/// What is to be done in a run.
///
/// # Errors
/// Where the message is malformed, or does not fit the run.
pub(crate) fn task(work: Work, run: &Begun) -> Result<Task> {
    Ok(match work {
        Work::Load(task) => Task::Load(shard_sources(task, run)?),
        Work::Survey(_) => Task::Survey,
        Work::Evaluate(task) => {
            let (soup, asked) = evaluation(task)?;
            Task::Evaluate(soup, asked)
        }
        Work::Prove(task) => {
            let (soup, asked) = evaluation(task)?;
            match asked {
                Positions::Range(samples) => Task::Prove(soup, samples),
                Positions::Named { .. } => {
                    return Err(Error::internal("a judge is proved by samples in another order"));
                }
            }
        }
        Work::Write(task) => Task::Write(soup(task.soup)?, task.file),
        Work::ReadBack(task) => Task::ReadBack(task.file),
        Work::Digest(task) => Task::Digest(soup(task.soup)?),
        Work::Differentiate(task) => {
            let dataset = Dataset(task.dataset);
            Task::Differentiate(dataset, task.try_into()?)
        }
        Work::Dot(v1::DotShard { step, part, shard, source }) => {
            Task::Dot(Dot { step, part, shard: Shard(shard), source: WorkerId(source) })
        }
        Work::Gram(task) => Task::Gram(task.shard, task.base.map(|base| the_base(base, run)).transpose()?),
        Work::Compare(v1::CompareSlice { dataset, start, end, weights, votes, hits }) => {
            Task::Compare(samples(dataset, start, end)?, Asked { weights, votes, hits })
        }
        Work::Pass(task) => Task::Pass(task.shard),
        Work::Reread(v1::RereadShard { load, soup: of }) => {
            let load = load.ok_or_else(|| Error::internal("a shard to be read again is nowhere"))?;
            Task::Reread(shard_sources(load, run)?, of.map(|of| soup(Some(of))).transpose()?)
        }
    })
}

fn evaluation(task: v1::JudgeSlice) -> Result<(Soup, Positions)> {
    let v1::JudgeSlice { soup: of, dataset, start, end, seal: _, sequence, samples } = task;
    let range = self::samples(dataset, start, end)?;
    let asked = match (sequence, samples.len() as u64) {
        (0, 0) => Positions::Range(range),
        (1.., count) if count == end - start => {
            Positions::Named { dataset, positions: samples.into_iter().map(u64::from).collect() }
        }
        (_, count) => {
            return Err(Error::internal(format!("{count} samples are named for a slice of {}", end - start)));
        }
    };
    Ok((soup(of)?, asked))
}

/// Samples that follow each other. Their positions will be a list, so they may be no more than a slice has.
fn samples(dataset: u32, start: u64, end: u64) -> Result<Samples> {
    match end.checked_sub(start) {
        Some(1..=SLICE_SAMPLES_MAX) => Ok(Samples { dataset, start, end }),
        Some(count @ 1..) => Err(Error::internal(format!("a slice of {count} samples"))),
        _ => Err(Error::internal("an evaluation without samples")),
    }
}

fn soup(wire: Option<v1::Soup>) -> Result<Soup> {
    wire.ok_or_else(|| Error::internal("a task has no soup"))?.try_into()
}

/// Where a shard is.
pub(crate) fn shard_sources(task: v1::LoadShard, run: &Begun) -> Result<ShardSources> {
    let tier = task.tier().try_into()?;
    let v1::LoadShard { shard, ingredients, products, base, .. } = task;
    if ingredients.len() != run.ingredients.len() || shard >= run.plan.count() {
        return Err(Error::internal("a load task does not fit its run"));
    }
    let named = run.ingredients.iter().map(|name| format!("ingredient {name:?}"));
    let sources = ingredients.into_iter().zip(named).map(|(reads, name)| source(reads, name, run));
    Ok(ShardSources {
        ingredients: sources.collect::<Result<_>>()?,
        base: base.map(|base| the_base(base, run)).transpose()?,
        shard,
        tier,
        products,
    })
}

fn the_base(reads: v1::IngredientReads, run: &Begun) -> Result<Source> {
    source(reads, "the base".to_owned(), run)
}

fn source(from: v1::IngredientReads, name: String, run: &Begun) -> Result<Source> {
    let stored = from.stored(run.schema.tensors().len())?;
    let object = |o: v1::Object| {
        let etag = Some(o.etag).filter(|e| !e.is_empty());
        places::check(Use::Pool, &o.url)?;
        Ok(ReadFrom { location: Location::parse(&o.url)?, etag })
    };
    let read = |r: v1::Read| Read {
        file: r.object as usize,
        file_offset: r.object_offset,
        dest_offset: r.shard_offset,
        len: r.bytes,
    };
    Ok(Source {
        name,
        files: from.objects.into_iter().map(object).collect::<Result<_>>()?,
        reads: from.reads.into_iter().map(read).collect(),
        stored,
    })
}

impl From<Answer> for Answered {
    fn from(answer: Answer) -> Answered {
        let bytes = |digests: Vec<[u8; 32]>| digests.into_iter().map(Vec::from).collect();
        match answer {
            Answer::Loaded(Loaded { digests, notes, bytes_read }) => {
                Answered::Loaded(v1::Loaded { digests: bytes(digests), notes, bytes_read })
            }
            Answer::Surveyed(Surveyed { survey, notes }) => {
                Answered::Surveyed(v1::Surveyed::new(survey, notes))
            }
            Answer::Evaluated(judged) => Answered::Evaluated((&judged).into()),
            Answer::Proved(proof) => {
                let Proof { judged, again, tolerance, survey, statistics } = *proof;
                Answered::Proved(v1::Proved {
                    evaluated: Some((&judged).into()),
                    again,
                    tolerance,
                    surveyed: Some(v1::Surveyed::new(survey, Vec::new())),
                    statistics_sha256: statistics.map_or_else(Vec::new, Vec::from),
                })
            }
            Answer::Written(FileDigest { data_sha256, file_sha256, bytes }) => {
                Answered::Written(v1::Digest {
                    sha256: data_sha256.to_vec(),
                    file_sha256: file_sha256.to_vec(),
                    bytes,
                })
            }
            Answer::ReadBack(Digest { bytes, sha256 }) => {
                Answered::ReadBack(v1::ReadBack { sha256: sha256.to_vec(), bytes })
            }
            Answer::Digested(sha256) => {
                Answered::Digested(v1::Digest { sha256: sha256.to_vec(), ..v1::Digest::default() })
            }
            Answer::Differentiated(PartFigures { loss, d_beta, correct, total }) => {
                Answered::Differentiated(v1::Differentiated { loss, d_beta, correct, total })
            }
            Answer::Dotted(segments) => {
                let segment = |SegmentDots { tensor, dots }| v1::SegmentDots { tensor, dots };
                Answered::Dotted(v1::Dotted { segments: segments.into_iter().map(segment).collect() })
            }
            Answer::Measured(grams) => {
                Answered::Measured(v1::Measured { grams: grams.into_iter().map(Into::into).collect() })
            }
            Answer::Compared(found) => Answered::Compared((&*found).into()),
            Answer::Reread(Reread { digests, blend, served }, bytes_read) => Answered::Reread(v1::Reread {
                digests: bytes(digests),
                blend_sha256: blend.map_or_else(Vec::new, Vec::from),
                served_sha256: served.map_or_else(Vec::new, Vec::from),
                bytes_read,
            }),
            Answer::Passed(Passed { digests, grams, notes, bytes_read }) => Answered::Passed(v1::Passed {
                digests: bytes(digests),
                grams: grams.into_iter().map(Into::into).collect(),
                notes,
                bytes_read,
            }),
        }
    }
}

/// What is resident, as a new coordinator is told.
pub(crate) fn held(held: Vec<Held>) -> Vec<v1::Held> {
    let of = |Held { run, shards, on_disk, on_device }| v1::Held { run, shards, on_disk, on_device };
    held.into_iter().map(of).collect()
}

/// How far a run that streams has come.
pub(crate) fn heartbeat(passes: Option<Passes>) -> v1::Heartbeat {
    let passes = passes.map(|Passes { run, epoch, shards }| v1::Passes { run, epoch, shards });
    v1::Heartbeat { passes }
}

/// The places that a run names, and what for. Where its ingredients are comes with each shard.
fn places_of(begin: &v1::BeginRun) -> impl Iterator<Item = (Use, String)> {
    let judge = begin.judge.as_ref().map_or("", |judge| &judge.name);
    let is_native = judge == JudgeId::native().name;
    // The native judge brings none along.
    let is_place = move |url: &&String| is_native || judges_own(judge, url).is_none();
    let data = begin.datasets.iter().map(|set| &set.url).filter(is_place);
    let data = data.map(|url| (Use::Data, url.clone()));
    // It lies beside the ingredients.
    let tokenizer = native::tokenizer_url(&begin.model_config_json, &begin.preprocessor_config_json);
    data.chain(tokenizer.map(|url| (Use::Pool, url))).chain([(Use::Output, begin.output.clone())])
}

/// Refuses a run that names places which are not allowed here, whatever its coordinator thinks of them.
fn check_places(begin: &v1::BeginRun) -> Result<()> {
    places_of(begin).try_for_each(|(what, url)| places::check(what, &url))
}

impl TryFrom<v1::BeginRun> for Begun {
    type Error = Error;
    fn try_from(begin: v1::BeginRun) -> Result<Self> {
        check_places(&begin)?;
        let schema = Arc::new(begin.schema()?);
        let digest = begin.digest().try_into()?;
        let plan = ShardPlan::new(schema.bytes());
        if plan.shard_bytes() != begin.shard_bytes {
            let text =
                format!("shards of {} bytes expected, not of {}", plan.shard_bytes(), begin.shard_bytes);
            return Err(Error::internal(text));
        }
        let file = |f: v1::OutputFile| {
            let range = f.start..f.end;
            match range.start <= range.end && range.end <= schema.bytes() {
                true => Ok(OutputFile { name: f.name, header: f.header, range }),
                false => Err(Error::internal(format!("file {:?} is not of this run's parameters", f.name))),
            }
        };
        Ok(Begun {
            key: ticket::Key::new(&begin.peer_key)?,
            files: begin.files.into_iter().map(file).collect::<Result<_>>()?,
            run: begin.run,
            epoch: begin.epoch,
            ingredients: begin.ingredients,
            judging: Setting {
                model_json: begin.model_config_json,
                preprocessor_json: begin.preprocessor_config_json,
                batch_size: begin.batch_size,
                class_subset: begin.class_subset,
                datasets: begin.datasets.into_iter().map(Into::into).collect(),
                calibration: begin.calibration,
                fingerprints: begin.fingerprints,
            },
            judge: begin.judge.map(Into::into),
            keep_logits: begin.keep_logits,
            allow_nan: begin.allow_nan,
            digest,
            streams: begin.streams,
            output: begin.output,
            schema,
            plan,
        })
    }
}

impl From<v1::Placement> for Owners {
    fn from(placement: v1::Placement) -> Self {
        let addresses = placement.peers.into_iter().map(|p| (p.worker, p.address)).collect();
        Owners::new(placement.owners, addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_a_range_or_names_its_samples() {
        let slice = |sequence, samples: &[u32]| {
            let soup = Some(v1::Soup { members: vec![0], ..Default::default() });
            let (start, end, samples) = (4, 6, samples.to_vec());
            evaluation(v1::JudgeSlice {
                soup,
                dataset: 1,
                start,
                end,
                sequence,
                samples,
                ..Default::default()
            })
            .map(|(_, asked)| asked)
        };
        assert_eq!(slice(0, &[]).unwrap(), Positions::Range(Samples { dataset: 1, start: 4, end: 6 }));
        assert_eq!(slice(7, &[9, 2]).unwrap(), Positions::Named { dataset: 1, positions: vec![9, 2] });
        for (sequence, samples) in [(0, &[9, 2][..]), (7, &[]), (7, &[9]), (7, &[9, 2, 1])] {
            assert!(slice(sequence, samples).is_err(), "{sequence} {samples:?}");
        }
    }

    #[test]
    fn a_slice_is_not_believed_to_be_of_any_length() {
        samples(0, 7, 7 + SLICE_SAMPLES_MAX).unwrap();
        for (start, end) in [(0, u64::MAX), (1, SLICE_SAMPLES_MAX + 2), (5, 5), (6, 5), (u64::MAX, 0)] {
            samples(0, start, end).unwrap_err();
        }
    }

    #[test]
    fn a_tokenizer_is_a_place_that_a_run_names() {
        let texts =
            |url: &str| format!(r#"{{"tokenizer": {{"url": "{url}", "size_bytes": 2, "sha256": "ab"}}}}"#);
        let named = |model: &str, preprocessor: String| {
            let begin = v1::BeginRun {
                model_config_json: model.into(),
                preprocessor_config_json: preprocessor,
                datasets: vec![v1::DatasetSpec { url: "/data".into(), ..Default::default() }],
                output: "/soup".into(),
                ..Default::default()
            };
            places_of(&begin).collect::<Vec<_>>()
        };
        let with = |tokenizer: &[&str]| {
            let pool = tokenizer.iter().map(|url| (Use::Pool, (*url).to_owned()));
            [(Use::Data, "/data".to_owned())]
                .into_iter()
                .chain(pool)
                .chain([(Use::Output, "/soup".to_owned())])
                .collect::<Vec<_>>()
        };
        let (bert, clip) = (r#"{"model_type": "bert"}"#, r#"{"architectures": ["CLIPModel"]}"#);
        let prompts = |url| format!(r#"{{"images": "", "texts": {}, "prompts": "{{}}"}}"#, texts(url));
        assert_eq!(named(bert, texts("http://a/t")), with(&["http://a/t"]));
        assert_eq!(named(clip, prompts("s3://a/t")), with(&["s3://a/t"]));
        assert_eq!(named(r#"{"model_type": "vit"}"#, "{}".into()), with(&[]));
        assert_eq!(named(bert, String::new()), with(&[]));
        let of_judge = |name: &str| {
            let judge = v1::Judge { name: name.into(), ..Default::default() };
            let set = v1::DatasetSpec { url: format!("{name}:own"), ..Default::default() };
            let begin = v1::BeginRun { judge: Some(judge), datasets: vec![set], ..Default::default() };
            places_of(&begin).filter(|(what, _)| *what == Use::Data).count()
        };
        assert_eq!((of_judge("lab-judge"), of_judge("native")), (0, 1));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let tensor = |name: &str| v1::Tensor {
            name: name.into(),
            dtype: "F32".into(),
            shape: vec![4],
            taken_from: None,
        };
        let file = |start, end| v1::OutputFile { start, end, ..Default::default() };
        let begin = |files| v1::BeginRun {
            digest: v1::DigestKind::Sha256.into(),
            peer_key: vec![7; 32],
            tensors: vec![tensor("a"), tensor("b")],
            shard_bytes: ShardPlan::new(32).shard_bytes(),
            files,
            ..Default::default()
        };
        assert_eq!(Begun::try_from(begin(vec![file(0, 16), file(16, 32)])).unwrap().files.len(), 2);
        for bad in [file(0, 33), file(9, 8)] {
            assert!(Begun::try_from(begin(vec![bad])).is_err());
        }
        assert!(Begun::try_from(v1::BeginRun { shard_bytes: 8, ..begin(vec![]) }).is_err());
        let twice = v1::BeginRun { tensors: vec![tensor("a"), tensor("a")], ..begin(vec![]) };
        assert!(Begun::try_from(twice).is_err());
    }
}
