//! What goes into the machine and what comes out of it: works and their results, events, actions and reports.

use super::space::{Space, Tier};
use crate::diagnosis::ensemble::Alternatives;
use crate::error::{Error, Result};
use crate::journal::Entry;
use crate::ledger::{Dataset, Evaluation, Slice};
use crate::recipe::Decision;
use crate::shard::Shard;
use crate::soup::{Soup, Weight};
use crate::survey::Survey;
use crate::tally::packed::Packed;
use crate::tally::{Judged, Outcome, Tally};

/// A worker, by the number its coordinator gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// Which attempt of which task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// The task.
    pub task: u64,
    /// From 1.
    pub attempt: u32,
}

/// Something that a worker has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Read one shard of every ingredient and keep it resident; where shards are not kept, only know where it is.
    Load(Shard),
    /// Count the samples of every dataset, and check that the model can be evaluated.
    Survey,
    /// Score a soup on a slice of a dataset.
    Evaluate(Evaluation, Slice),
    /// Judge, on this worker, the samples that every worker's judge is asked about.
    Prove(WorkerId, Evaluation, Slice),
    /// Write one output file.
    Write(Soup, u32),
    /// Hash the flattened parameters of a soup.
    Digest(Soup),
    /// Loss and gradient of a soup on one part of a mini-batch. The gradient stays with the worker, for its peers.
    Differentiate(Box<Differentiate>),
    /// Multiply a gradient with one shard of every ingredient.
    Dot(Dot),
    /// Multiply one shard of every ingredient with that of every other.
    Gram(Shard),
    /// Compare other uses of all ingredients on a slice.
    Compare(Box<Compare>),
    /// Tell what was found in reading a shard that is not kept; whoever has not read it yet does so now.
    Pass(Shard),
    /// Digest an output file as it lies in the store.
    ReadBack(u32),
    /// Read one shard of every ingredient and keep nothing of it; make the blend of a soup of that, if there is one, and fetch the same
    /// from the shard's owner.
    Reread(Shard, Option<Box<Soup>>),
}

impl Work {
    /// What is asked for, in a few words: what it is about may be large.
    pub fn kind(&self) -> &'static str {
        match self {
            Work::Load(_) => "a shard to be loaded",
            Work::Survey => "a survey",
            Work::Evaluate(..) => "a slice to be judged",
            Work::Prove(..) => "a proof of its judge",
            Work::Write(..) => "a file to be written",
            Work::Digest(_) => "a digest",
            Work::Differentiate(_) => "a part of a step",
            Work::Dot(_) => "products of a gradient",
            Work::Gram(_) => "products of ingredients",
            Work::Compare(_) => "a slice to be compared",
            Work::Pass(_) => "a pass",
            Work::ReadBack(_) => "a file to be read back",
            Work::Reread(..) => "a shard to be read again",
        }
    }
}

/// A slice on which other uses of all ingredients are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Compare {
    /// The dataset.
    pub dataset: Dataset,
    /// Which step of the stacking's fit this is.
    pub step: u32,
    /// The slice.
    pub slice: Slice,
    /// Weights of the stacking, one an ingredient.
    pub weights: Vec<Weight>,
    /// Votes of the boosting, one an ingredient; empty where there are none yet.
    pub votes: Vec<Weight>,
    /// Whether it is to be told which ingredients are right on which samples.
    pub hits: bool,
}

/// Inner products of all ingredients on the part of a layer in a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerGram {
    /// Position of the layer.
    pub layer: u32,
    /// Whether these are the layer's matrices; else its vectors.
    pub matrix: bool,
    /// See [`Gram`](crate::diagnosis::geometry::Gram).
    pub packed: Vec<f64>,
}

/// One part of a step of a learned soup.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Differentiate {
    /// Counts from 1.
    pub step: u32,
    /// Which part of the step's mini-batch.
    pub part: u32,
    /// The soup.
    pub soup: Soup,
    /// What its logits are multiplied by.
    pub beta: Weight,
    /// Share of the label's probability that is spread over all classes.
    pub label_smoothing: Weight,
    /// What the loss of each sample is multiplied by: one over the samples of the mini-batch.
    pub scale: Weight,
    /// Positions in the dataset that is learned from.
    pub samples: Vec<u64>,
}

/// The products of a gradient with one shard of every ingredient.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dot {
    /// Step and part whose gradient it is.
    pub step: u32,
    /// Which part of the step's mini-batch.
    pub part: u32,
    /// The shard; its owner does this.
    pub shard: Shard,
    /// Who holds the gradient.
    pub source: WorkerId,
}

/// What differentiating a part tells besides the gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartFigures {
    /// Sum over the samples of scale times loss: cross-entropy in nats, or the squared error of a number.
    pub loss: f64,
    /// Its derivative with respect to beta; 0 of numbers.
    pub d_beta: f64,
    /// Samples whose prediction is their label; 0 of numbers.
    pub correct: u64,
    /// Samples.
    pub total: u64,
}

/// Products on the part of one tensor in a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentDots {
    /// Position of the tensor in the schema.
    pub tensor: u32,
    /// One an ingredient.
    pub dots: Vec<f64>,
}

/// What a worker's judge says of the samples that every worker's judge is asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// What it says of them.
    pub judged: Judged,
    /// Whether it said the same when it was asked again.
    pub again: bool,
    /// By how much workers may differ in a mean loss or figure, relative to it.
    pub tolerance: f64,
    /// What it finds of the datasets: that has to be the same too.
    pub survey: Survey,
    /// SHA-256 of the running statistics that it recomputed, where it had to.
    pub statistics: Option<[u8; 32]>,
}

/// SHA-256 of tensor data, and of the file around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Of the tensor data, without the header.
    pub data_sha256: [u8; 32],
    /// Of the whole file.
    pub file_sha256: [u8; 32],
    /// Size of the whole file.
    pub bytes: u64,
}

/// What was found in a shard that was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// Of the shard of every ingredient in pool order, by the run's [`DigestKind`](crate::digest::DigestKind).
    pub digests: Vec<[u8; 32]>,
    /// SHA-256 of the blend that was made of that, where one was wanted.
    pub blend: Option<[u8; 32]>,
    /// SHA-256 of the blend that the shard's owner gave.
    pub served: Option<[u8; 32]>,
}

/// What a worker brings back.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskResult {
    /// Of [`Work::Load`]: the digest of the shard of every ingredient in pool order, and what people should know.
    Loaded {
        /// One per ingredient; none where nothing was read.
        digests: Vec<[u8; 32]>,
        /// One line each.
        notes: Vec<String>,
    },
    /// Of [`Work::Survey`].
    Surveyed {
        /// What the judge told.
        survey: Survey,
        /// One line each.
        notes: Vec<String>,
    },
    /// Of [`Work::Evaluate`].
    Evaluated(Judged),
    /// Of [`Work::Prove`].
    Proved(Box<Proof>),
    /// Of [`Work::Write`].
    Written(FileDigest),
    /// Of [`Work::Digest`].
    Digested([u8; 32]),
    /// Of [`Work::Differentiate`].
    Differentiated(PartFigures),
    /// Of [`Work::Dot`]: one for each part of a tensor in the shard, in order; tensors that are copied may be left out.
    Dotted(Vec<SegmentDots>),
    /// Of [`Work::Gram`].
    Measured(Vec<LayerGram>),
    /// Of [`Work::Compare`].
    Compared(Box<Alternatives>),
    /// Of [`Work::Pass`].
    Passed {
        /// Of the shard of every ingredient in pool order.
        digests: Vec<[u8; 32]>,
        /// The inner products of the ingredients, where they are wanted.
        grams: Vec<LayerGram>,
        /// What people should know, one line each.
        notes: Vec<String>,
    },
    /// Of [`Work::Reread`].
    Reread(Reread),
    /// Of [`Work::ReadBack`].
    ReadBack {
        /// Size of the whole file.
        bytes: u64,
        /// Of the whole file.
        sha256: [u8; 32],
    },
}

impl TaskResult {
    /// What it is, in a few words: what is in it may be anything, and as much as a message has.
    pub fn kind(&self) -> &'static str {
        match self {
            TaskResult::Loaded { .. } => "a loaded shard",
            TaskResult::Surveyed { .. } => "a survey",
            TaskResult::Evaluated(_) => "a judged slice",
            TaskResult::Proved(_) => "a proof of its judge",
            TaskResult::Written(_) => "a written file",
            TaskResult::Digested(_) => "a digest",
            TaskResult::Differentiated(_) => "figures of a part of a step",
            TaskResult::Dotted(_) => "products of a gradient",
            TaskResult::Measured(_) => "products of ingredients",
            TaskResult::Compared(_) => "a compared slice",
            TaskResult::Passed { .. } => "what a pass found",
            TaskResult::Reread(_) => "what a second reading found",
            TaskResult::ReadBack { .. } => "what a file was read back as",
        }
    }
}

/// A worker that joins a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWorker {
    /// Its number, never used before.
    pub worker: WorkerId,
    /// Who it is: whoever comes back as the same answers for what it did then.
    pub name: String,
    /// Tasks it runs at a time.
    pub slots: u32,
    /// What it may keep.
    pub space: Space,
    /// Whether it has the run's judge. Others hold shards.
    pub judges: bool,
    /// Shards of this run that it has already, from under an earlier coordinator, and where.
    pub held: Vec<(Shard, Tier)>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Workers are there. Those that are there from the start come in one event, so that shards spread over all.
    WorkersJoined(Vec<NewWorker>),
    /// A worker is gone for good.
    WorkerLost(WorkerId),
    /// A worker is about to go: it gets nothing new.
    WorkerLeaving(WorkerId),
    /// The judge of a worker that finishes an attempt recomputed the running statistics of the soup that it is about, with this
    /// SHA-256; what else it says follows.
    Recomputed(WorkerId, TaskKey, [u8; 32]),
    /// A worker finished an attempt.
    Done(WorkerId, TaskKey, TaskResult),
    /// A worker failed at an attempt.
    Failed(WorkerId, TaskKey, Error),
    /// A worker that fails at an attempt could not fetch from another one, which is the last; its failure follows.
    Unreached(WorkerId, TaskKey, WorkerId),
    /// Time passed.
    Tick,
    /// Somebody wants the run to end.
    Cancel,
    /// The entry of the last [`Action::Record`] is durable.
    Recorded,
    /// The answer to [`Action::Recall`]: the score of an earlier run, if there is one, and the SHA-256 of its outcomes, where those are kept.
    Recalled(Evaluation, Option<(Tally, Option<[u8; 32]>)>),
    /// The answer to [`Action::Recollect`]: the outcomes, if they are there.
    Recollected(Evaluation, Option<Vec<Outcome>>),
    /// A worker hands in a slice that it was given by an earlier coordinator of this run. The slice's index is not looked at.
    HandedIn(WorkerId, Evaluation, Slice, Judged),
    /// The answer to [`Action::Publish`].
    Published(Result<()>),
}

/// Something to be done by the caller, in the order given.
#[derive(Debug)]
pub enum Action {
    /// Tell a worker about the run.
    Begin(WorkerId),
    /// Tell a worker who owns each shard.
    Place(WorkerId, Vec<WorkerId>),
    /// Give a worker an attempt of a task.
    Assign(WorkerId, TaskKey, Work),
    /// Take it back.
    Cancel(WorkerId, TaskKey),
    /// Tell a worker to forget the soups that it has assembled: blends of them may be wrong.
    Forget(WorkerId),
    /// Nothing that a worker says is believed any more in this run.
    Quarantine(WorkerId),
    /// Tell a worker that nobody needs the gradient of this step and part any more.
    Release(WorkerId, u32, u32),
    /// Make this entry durable, after the outcomes that it names, where there are some; then answer with [`Event::Recorded`]. There is never
    /// more than one without its answer.
    Record(Entry, Option<Packed>),
    /// Look for the outcomes of a score, which have this SHA-256, and answer with [`Event::Recollected`].
    Recollect(Evaluation, [u8; 32]),
    /// Look for a score of an earlier run, and answer with [`Event::Recalled`].
    Recall(Evaluation),
    /// Tell whoever watches.
    Report(Report),
    /// Make the written output visible, then answer with [`Event::Published`].
    Publish,
    /// The run is over; on an error, remove what was staged. Nothing follows.
    Finish(Result<()>),
}

impl Action {
    /// Tells how far something is: so much of so much.
    pub(super) fn underway(what: Underway, (done, of): (usize, usize)) -> Action {
        let count = |n: usize| n.try_into().unwrap_or(u32::MAX);
        Action::Report(Report::Underway { what, done: count(done), of: count(of) })
    }
}

/// What takes long between scores and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underway {
    /// The ingredients are multiplied with each other, and with a base where there is one: by shards.
    Products,
    /// What a full diagnosis asks for is scored: by soups on a dataset.
    Scores,
    /// Other uses of the ingredients are compared: by slices, of which there are at most so many.
    Uses,
    /// What was written is read back: by files.
    ReadingBack,
}

/// What whoever watches a run wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The number of workers changed.
    Workers {
        /// How many there are now.
        count: u32,
        /// Which one came or went.
        worker: WorkerId,
        /// Whether it came.
        joined: bool,
    },
    /// Shards were loaded.
    Loading {
        /// Resident now.
        resident: u32,
        /// Of so many.
        shards: u32,
    },
    /// A soup got its score.
    Scored(Evaluation, Tally),
    /// A soup is certain to be rejected by so many of its samples.
    Rejected(Evaluation, u64),
    /// A trial got its verdict; counted from 1.
    Decided(u32, Box<Decision>),
    /// A step of a learned soup was made.
    Stepped {
        /// So many now.
        step: u32,
        /// Of so many.
        steps: u32,
        /// Mean loss of the mini-batch, in nats.
        loss: f64,
        /// Beta after the step.
        beta: f64,
    },
    /// Output files were written.
    Writing {
        /// So many.
        written: u32,
        /// Of so many.
        files: u32,
    },
    /// How far something is that takes long and is told of in no other way.
    Underway {
        /// What.
        what: Underway,
        /// So much of it is done.
        done: u32,
        /// Of so much, or at most so much.
        of: u32,
    },
    /// Something was taken back, since a worker turned out not to be believed.
    Retracted {
        /// Scores that are not known any more.
        scores: u32,
        /// Trials whose verdict remains.
        trials: u32,
        /// Steps of a learned soup that remain.
        steps: u32,
    },
    /// Something people should know.
    Note(String),
}
