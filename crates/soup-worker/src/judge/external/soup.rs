//! A soup with an external judge: a file that is filled, loaded, asked about, and loaded again where the judge was started again.

use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use soup_core::batch_norm::statistics_bytes;
use soup_core::tally::Judged as Said;
use soup_core::{Error, Result};
use soup_proto::judge_v1::{
    DifferentiateRequest, DifferentiateResponse, JudgeRequest, JudgeResponse, LoadRequest, LoadResponse,
    Recompute, ReleaseRequest, differentiate_response, judge_response, load_response,
};

use super::answers::{self, Asked};
use super::folder::Handed;
use super::host::Seat;
use super::{Inner, Known};
use crate::judge::statistics::Statistics;
use crate::judge::{Gradient, Judged, Loaded, Loss, Vessel};
use crate::task::Cancelled;

/// A file that a soup is assembled into.
pub(super) struct FileVessel {
    of: Arc<Inner>,
    generation: u64,
    file: Arc<Handed>,
}

impl FileVessel {
    /// A file with its header; there is room for all of it.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where there is none.
    pub(super) async fn new(of: Arc<Inner>) -> Result<FileVessel> {
        // So that there never is one more than there is room for.
        of.host.all_released().await;
        let generation = of.host.next_generation();
        let name = file_name(&of, generation, "safetensors");
        let spare = of.spare().take().and_then(|spare| of.host.folder.file_of(spare, &name, of.file_bytes()));
        let file = match spare {
            Some(file) => file,
            None => of.host.folder.file(&name, of.file_bytes())?,
        };
        file.write(0, &of.header)?;
        Ok(FileVessel { of, generation, file: Arc::new(file) })
    }
}

/// The files of a folder are of several runs and judges.
fn file_name(of: &Inner, number: u64, kind: &str) -> String {
    format!("{}-{}-{number}.{kind}", of.host.name(), &of.id[..8])
}

#[tonic::async_trait]
impl Vessel for FileVessel {
    async fn fill(&mut self, start: u64, bytes: Bytes) -> Result<()> {
        let (file, at) = (self.file.clone(), self.of.header.len() as u64);
        let at = at.checked_add(start).ok_or_else(|| Error::internal("parameters beyond all bytes"))?;
        self.of.compute.beside(move || file.write(at, &bytes)).await
    }

    async fn load(self: Box<Self>) -> Result<Arc<dyn Loaded>> {
        let FileVessel { of, generation, file } = *self;
        let soup =
            Generation { of, generation, file, handed: SyncMutex::default(), statistics: OnceLock::new() };
        soup.of.check_pins_again().await?;
        let mut seat = soup.of.host.seat().await?;
        let loaded = soup.ensure(&mut seat).await.map(drop);
        seat.settle(loaded).await?;
        Ok(Arc::new(soup))
    }
}

/// A soup that was handed over.
struct Generation {
    of: Arc<Inner>,
    generation: u64,
    file: Arc<Handed>,
    /// Whom it was handed to last.
    handed: SyncMutex<Option<HandedTo>>,
    /// What the judge recomputed when it was handed it first.
    statistics: OnceLock<Statistics>,
}

/// Who was asked to load a soup. Whoever asked may have been dropped before the answer.
struct HandedTo {
    incarnation: u64,
    session: String,
    /// Whether it has said that it did.
    loaded: bool,
}

impl Generation {
    fn handed(&self) -> MutexGuard<'_, Option<HandedTo>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it loaded where the judge has not, or not any more.
    async fn ensure(&self, seat: &mut Seat<'_>) -> Result<(&Known, String)> {
        let (known, session) = self.of.open(seat).await?;
        if self.handed().as_ref().is_some_and(|to| to.loaded && to.session == session) {
            return Ok((known, session));
        }
        let recomputing = self.recomputing(known)?;
        let request = LoadRequest {
            session: session.clone(),
            generation: self.generation,
            path: self.file.path().display().to_string(),
            recompute: recomputing.as_ref().map(|(request, _)| request.clone()),
        };
        let mut client = seat.client()?;
        let to = HandedTo { incarnation: seat.incarnation(), session: session.clone(), loaded: false };
        *self.handed() = Some(to);
        let mut answer = seat.begun("load a soup", client.load(request)).await?;
        let split = |m: LoadResponse| match m.message {
            Some(load_response::Message::Progress(progress)) => Err(progress),
            Some(load_response::Message::Loaded(_)) => Ok(true),
            None => Ok(false),
        };
        match seat.next("load a soup", &mut answer, split).await? {
            Some(true) => {
                if let Some((_, file)) = recomputing {
                    self.recomputed(&file)?;
                }
                self.handed().iter_mut().for_each(|to| to.loaded = true);
                Ok((known, session))
            }
            _ => Err(answers::wrong("ended without having loaded the soup")),
        }
    }

    /// What the judge is asked to recompute, and the file for that; `None` where nothing is.
    fn recomputing(&self, known: &Known) -> Result<Option<(Recompute, Handed)>> {
        let Some(dataset) = self.of.setting.calibration else { return Ok(None) };
        let samples = known.surveyed.survey.samples.get(dataset as usize).copied();
        let samples = samples.ok_or_else(|| Error::internal("the run has no calibration set"))?;
        let name = file_name(&self.of, self.of.host.next_generation(), "statistics");
        let file = self.of.host.folder.file(&name, statistics_bytes(&self.of.schema))?;
        let path = file.path().display().to_string();
        let block_samples = self.of.setting.batch_size.max(1);
        Ok(Some((Recompute { dataset, samples, block_samples, path }, file)))
    }

    /// Takes what the judge recomputed. It may have been started again since it did so first.
    fn recomputed(&self, file: &Handed) -> Result<()> {
        let statistics = Statistics::new(&self.of.schema, file.read()?)?;
        match self.statistics.get() {
            Some(before) if *before != statistics => Err(answers::wrong(
                "recomputed other running statistics of the same soup since it was started again",
            )),
            _ => {
                let _ = self.statistics.set(statistics);
                Ok(())
            }
        }
    }

    /// Asks about `rows` of a dataset.
    async fn ask(
        &self,
        seat: &mut Seat<'_>,
        dataset: u32,
        rows: Vec<u64>,
        logits: bool,
        cancelled: &Cancelled,
    ) -> Result<Judged> {
        let (known, session) = self.ensure(seat).await?;
        let block = self.of.setting.batch_size.max(1);
        let lengths: Vec<usize> = rows.chunks(block as usize).map(<[u64]>::len).collect();
        let request = JudgeRequest {
            session,
            generation: self.generation,
            dataset,
            positions: rows,
            block_samples: block,
            logits,
        };
        let mut client = seat.client()?;
        let mut answer = seat.begun("judge", client.judge(request)).await?;
        let mut said: Option<Said> = None;
        let mut all_logits = Vec::new();
        for (nth, samples) in lengths.into_iter().enumerate() {
            if cancelled.get() {
                return Err(Error::cancelled("the evaluation was cancelled"));
            }
            let next = self.next_block(seat, &mut answer).await?;
            let next = next.ok_or_else(|| answers::wrong(format!("ended before block {nth}")))?;
            if next.block as usize != nth {
                return Err(answers::wrong(format!(
                    "answered block {} when block {nth} was due",
                    next.block
                )));
            }
            let asked = Asked { survey: &known.surveyed.survey, figures: &known.figures, samples, logits };
            let (judged, logits) = answers::judged(next, &asked)?;
            Said::add(&mut said, judged)?;
            all_logits.extend(logits);
        }
        if self.next_block(seat, &mut answer).await?.is_some() {
            return Err(answers::wrong("answered more blocks than there are"));
        }
        let said = said.unwrap_or(Said::Outcomes(Vec::new()));
        Ok(Judged { said, logits: logits.then_some(all_logits) })
    }

    async fn next_block(
        &self,
        seat: &Seat<'_>,
        answer: &mut tonic::Streaming<JudgeResponse>,
    ) -> Result<Option<soup_proto::judge_v1::Block>> {
        let split = |m: JudgeResponse| match m.message {
            Some(judge_response::Message::Progress(progress)) => Err(progress),
            Some(judge_response::Message::Block(block)) => Ok((m.generation, Some(block))),
            None => Ok((m.generation, None)),
        };
        match seat.next("judge", answer, split).await? {
            None => Ok(None),
            Some((generation, _)) if generation != self.generation => Err(self.other(generation)),
            Some((_, None)) => Err(answers::wrong("answered a block with nothing")),
            Some((_, block)) => Ok(block),
        }
    }

    fn other(&self, generation: u64) -> Error {
        answers::wrong(format!("answered for generation {generation}, asked about {}", self.generation))
    }

    async fn step(
        &self,
        seat: &mut Seat<'_>,
        mut request: DifferentiateRequest,
        cancelled: &Cancelled,
    ) -> Result<soup_core::machine::PartFigures> {
        (_, request.session) = self.ensure(seat).await?;
        if cancelled.get() {
            return Err(Error::cancelled("the step was cancelled"));
        }
        let samples = request.positions.len() as u64;
        let mut client = seat.client()?;
        let mut answer = seat.begun("differentiate", client.differentiate(request)).await?;
        let split = |m: DifferentiateResponse| match m.message {
            Some(differentiate_response::Message::Progress(progress)) => Err(progress),
            Some(differentiate_response::Message::Differentiated(of)) => Ok((m.generation, Some(of))),
            None => Ok((m.generation, None)),
        };
        match seat.next("differentiate", &mut answer, split).await? {
            Some((generation, _)) if generation != self.generation => Err(self.other(generation)),
            Some((_, Some(figures))) => answers::differentiated(&figures, samples),
            _ => Err(answers::wrong("ended without having differentiated")),
        }
    }
}

#[tonic::async_trait]
impl Loaded for Generation {
    async fn judge(
        &self,
        dataset: u32,
        positions: Vec<u64>,
        logits: bool,
        cancelled: Cancelled,
    ) -> Result<Judged> {
        let rows = self.of.rows(dataset, &positions)?;
        let mut seat = self.of.host.seat().await?;
        let judged = self.ask(&mut seat, dataset, rows, logits, &cancelled).await;
        seat.settle(judged).await
    }

    fn statistics(&self) -> Option<&Statistics> {
        self.statistics.get()
    }

    async fn differentiate(
        &self,
        dataset: u32,
        positions: Vec<u64>,
        loss: Loss,
        cancelled: Cancelled,
    ) -> Result<Gradient> {
        let elements: u64 = self.of.schema.parameters();
        let name = file_name(&self.of, self.of.host.next_generation(), "gradient");
        let file = self.of.host.folder.file(&name, elements.saturating_mul(4))?;
        let request = DifferentiateRequest {
            session: String::new(),
            generation: self.generation,
            dataset,
            positions: self.of.rows(dataset, &positions)?,
            block_samples: self.of.setting.batch_size.max(1),
            beta: loss.beta,
            label_smoothing: loss.label_smoothing,
            scale: loss.scale,
            path: file.path().display().to_string(),
        };
        let mut seat = self.of.host.seat().await?;
        let figures = match self.step(&mut seat, request, &cancelled).await {
            Ok(figures) => file.read_f32().map(|values| Gradient { figures, values }),
            Err(error) => Err(error),
        };
        seat.settle(figures).await
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // One that nobody was handed only has its file removed.
        let to = self.handed().take();
        let (incarnation, session) = to.map(|to| (to.incarnation, to.session)).unwrap_or_default();
        let of = ReleaseRequest { session, generation: self.generation };
        let run = Arc::downgrade(&self.of);
        self.of.host.release(incarnation, of, self.file.clone(), move |file| {
            // Nobody else has it any more; where the run is over, it goes.
            if let (Some(run), Ok(file)) = (run.upgrade(), Arc::try_unwrap(file)) {
                *run.spare() = Some(file);
            }
        });
    }
}
