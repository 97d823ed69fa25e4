//! A judge for the tests: a linear classifier on points that it makes itself, over the protocol of external judges. It can do all that a
//! judge must, and on purpose everything that one must not ([`Fault`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use safetensors::SafeTensors;
use soup_proto::judge_v1::judge_server::Judge;
use soup_proto::judge_v1::{self as v1, block, judge_response, load_response, open_response, survey};
use tonic::{Request, Response, Status};

/// Classes of the points, and their coordinates.
pub const CLASSES: usize = 3;
/// See [`CLASSES`].
pub const FEATURES: usize = 4;

/// What a judge must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Says nothing when it is asked to judge.
    Silent,
    /// Tells of one sample too few.
    Counts,
    /// Tells of a class that there is not.
    Labels,
    /// Dies when it is asked to judge.
    Dies,
    /// Answers for another generation.
    Generation,
    /// Answers the first block twice.
    Twice,
    /// Answers blocks in another order.
    Order,
    /// Gives a loss that is not a number.
    Nan,
    /// Gives a loss of minus infinity.
    Infinite,
    /// Surveys another number of samples each time it is started.
    Survey,
    /// Cuts the file short that it was handed.
    Cuts,
    /// Fails with an error of its own.
    Fails,
    /// Refuses what it is asked.
    Refuses,
    /// Says something else each time.
    Random,
    /// Has other data than it had the first time.
    Data,
    /// Is another version each time it is started.
    Version,
    /// Starts a process that outlives it, and ignores being asked to end.
    Stubborn,
    /// Recomputes a statistic to something that is not a number.
    NanStatistics,
    /// Recomputes other statistics each time.
    RandomStatistics,
    /// Says that it recomputed statistics, and wrote none.
    NoStatistics,
    /// Counts more tokens each time, whose number it promised to be the same.
    Tokens,
}

impl Fault {
    /// The fault of this name.
    ///
    /// # Panics
    /// Where there is none.
    pub fn named(name: &str) -> Fault {
        match name {
            "silent" => Fault::Silent,
            "counts" => Fault::Counts,
            "labels" => Fault::Labels,
            "dies" => Fault::Dies,
            "generation" => Fault::Generation,
            "twice" => Fault::Twice,
            "order" => Fault::Order,
            "nan" => Fault::Nan,
            "infinite" => Fault::Infinite,
            "survey" => Fault::Survey,
            "cuts" => Fault::Cuts,
            "fails" => Fault::Fails,
            "refuses" => Fault::Refuses,
            "random" => Fault::Random,
            "data" => Fault::Data,
            "version" => Fault::Version,
            "stubborn" => Fault::Stubborn,
            "nan-statistics" => Fault::NanStatistics,
            "random-statistics" => Fault::RandomStatistics,
            "no-statistics" => Fault::NoStatistics,
            "tokens" => Fault::Tokens,
            other => panic!("no fault is called {other}"),
        }
    }
}

/// Options of the judge.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What it does wrong.
    pub fault: Option<Fault>,
    /// Where it notes how often it did, or was started: one line each.
    pub notes: Option<PathBuf>,
    /// It does wrong so many times only.
    pub times: Option<usize>,
    /// Tells of sums instead of classes.
    pub sums: bool,
    /// How long each block takes.
    pub pause: Duration,
    /// Dies at every so many calls, as far as anybody can tell: it breaks off and forgets all that it had.
    pub dies_every: Option<u64>,
}

/// See the module.
pub struct Linear {
    options: Options,
    /// How often it was started before.
    started: usize,
    calls: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: String,
    /// Samples of every dataset, and what their points are made of.
    datasets: Vec<(u64, u64)>,
    soups: BTreeMap<u64, Arc<Model>>,
}

struct Model {
    weight: Vec<f32>,
    bias: Vec<f32>,
    norm: Option<Norm>,
}

/// What comes before: every coordinate is scaled, and normalised by the mean and the variance that it has then.
struct Norm {
    scale: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
}

/// Tensors of a model, and of one that normalises, in canonical order.
const LINEAR: [&str; 2] = ["bias", "weight"];
const NORMALISED: [&str; 5] = ["bias", "norm.running_mean", "norm.running_var", "scale", "weight"];

/// A number that follows from `seed` and `n` alone.
fn mix(seed: u64, n: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// The point at `position` of the dataset of `seed`, and its class: class centres, and noise that makes them overlap.
pub fn point(seed: u64, position: u64) -> ([f64; FEATURES], u32) {
    let label = (mix(seed, position.wrapping_mul(31)) * CLASSES as f64) as u32;
    let coordinate = |at: usize| {
        let centre = if at == label as usize { 1.0 } else { 0.0 };
        centre + 2.2 * (mix(seed, position.wrapping_mul(31) + 1 + at as u64) - 0.5)
    };
    (std::array::from_fn(coordinate), label)
}

impl Model {
    fn open(path: &Path) -> Result<Model, Status> {
        let bytes = std::fs::read(path).map_err(|e| Status::internal(e.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| Status::internal(e.to_string()))?;
        let values = |name: &str| -> Result<Vec<f32>, Status> {
            let tensor = tensors.tensor(name).map_err(|e| Status::invalid_argument(e.to_string()))?;
            let chunks = tensor.data().as_chunks::<4>().0;
            Ok(chunks.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        let norm = match tensors.names().len() == NORMALISED.len() {
            true => Some(Norm {
                scale: values("scale")?,
                mean: values("norm.running_mean")?,
                variance: values("norm.running_var")?,
            }),
            false => None,
        };
        Ok(Model { weight: values("weight")?, bias: values("bias")?, norm })
    }

    /// A point as the linear part sees it.
    fn normalised(&self, x: &[f64; FEATURES]) -> [f64; FEATURES] {
        let Some(norm) = &self.norm else { return *x };
        std::array::from_fn(|at| {
            let [scale, mean, variance] = [&norm.scale, &norm.mean, &norm.variance].map(|v| f64::from(v[at]));
            (x[at] * scale - mean) / (variance + 1e-5).sqrt()
        })
    }

    /// Computes mean and variance anew: the mean over blocks of what they are in each.
    fn recompute(&mut self, seed: u64, samples: u64, block: u64) {
        let Some(norm) = &mut self.norm else { return };
        let firsts: Vec<u64> = (0..samples).step_by(block.max(1) as usize).collect();
        for at in 0..FEATURES {
            let of_block = |first: &u64| {
                let scaled = |n: u64| point(seed, n).0[at] * f64::from(norm.scale[at]);
                let values: Vec<f64> = (*first..samples.min(first + block)).map(scaled).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
                (mean, squares / (values.len() as f64 - 1.0).max(1.0))
            };
            let (means, variances): (Vec<f64>, Vec<f64>) = firsts.iter().map(of_block).unzip();
            norm.mean[at] = (means.iter().sum::<f64>() / means.len() as f64) as f32;
            norm.variance[at] = (variances.iter().sum::<f64>() / means.len() as f64) as f32;
        }
    }

    fn logits(&self, x: &[f64; FEATURES]) -> [f64; CLASSES] {
        let x = &self.normalised(x);
        let logit = |class: usize| {
            let row = &self.weight[class * FEATURES..][..FEATURES];
            let sum: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
            sum + f64::from(self.bias[class])
        };
        std::array::from_fn(logit)
    }
}

/// The class with the largest logit, and the cross-entropy.
fn outcome(logits: &[f64; CLASSES], label: u32) -> (u32, f64) {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let prediction = logits.iter().position(|l| *l == most).unwrap_or(0) as u32;
    let sum: f64 = logits.iter().map(|l| (l - most).exp()).sum();
    (prediction, most + sum.ln() - logits[label as usize])
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn answers<T: Send + 'static>(all: Vec<Result<T, Status>>) -> Response<Answers<T>> {
    Response::new(Box::pin(futures::stream::iter(all)))
}

impl Linear {
    /// A judge with these options.
    pub fn new(options: Options) -> Linear {
        let started = options.notes.as_deref().map_or(0, |notes| noted(notes, "started"));
        let judge = Linear { options, started, calls: AtomicU64::new(0), state: Mutex::default() };
        judge.note("started");
        judge
    }

    fn note(&self, what: &str) {
        let Some(notes) = &self.options.notes else { return };
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(notes).unwrap();
        std::io::Write::write_all(&mut file, format!("{what}\n").as_bytes()).unwrap();
    }

    /// Whether it is to do wrong now in this way.
    fn wrong(&self, fault: Fault) -> bool {
        if self.options.fault != Some(fault) {
            return false;
        }
        let Some(notes) = &self.options.notes else {
            return self.options.times.is_none_or(|times| times > 0);
        };
        // Judges of other workers count with this one: none of them may look between look and note.
        let held = std::fs::OpenOptions::new().create(true).append(true).open(notes).unwrap();
        held.lock().unwrap();
        let again = self.options.times.is_none_or(|times| noted(notes, "wrong") < times);
        if again {
            self.note("wrong");
        }
        again
    }

    fn recompute(&self, session: &str, model: &mut Model, asked: &v1::Recompute) -> Result<(), Status> {
        let (_, seed) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let set = state.datasets.get(asked.dataset as usize).filter(|_| state.session == session);
            *set.ok_or_else(|| Status::failed_precondition("no such session"))?
        };
        model.recompute(seed, asked.samples, u64::from(asked.block_samples));
        let Some(norm) = &mut model.norm else { return Ok(()) };
        if self.wrong(Fault::NanStatistics) {
            norm.variance[1] = f32::NAN;
        }
        if self.wrong(Fault::RandomStatistics) {
            norm.mean[0] += std::process::id() as f32 * 1e-3;
        }
        let bytes: Vec<u8> = norm.mean.iter().chain(&norm.variance).flat_map(|v| v.to_le_bytes()).collect();
        let file = std::fs::OpenOptions::new().write(true).open(&asked.path);
        let file = file.map_err(|e| Status::internal(e.to_string()))?;
        let written = match self.wrong(Fault::NoStatistics) {
            true => file.set_len(0),
            false => std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0),
        };
        written.map_err(|e| Status::internal(e.to_string()))
    }

    fn model(
        &self,
        session: &str,
        generation: u64,
        dataset: u32,
    ) -> Result<(Arc<Model>, (u64, u64)), Status> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let soup = state.soups.get(&generation).filter(|_| state.session == session);
        let soup = soup.ok_or_else(|| Status::failed_precondition("no such generation"))?;
        let set = state.datasets.get(dataset as usize);
        Ok((soup.clone(), *set.ok_or_else(|| Status::invalid_argument("no such dataset"))?))
    }

    fn block(&self, nth: u32, model: &Model, seed: u64, positions: &[u64], logits: bool) -> v1::Block {
        let seed = if self.wrong(Fault::Data) { seed + 1 } else { seed };
        let rows: Vec<([f64; CLASSES], u32)> = positions
            .iter()
            .map(|position| {
                let (x, label) = point(seed, *position);
                (model.logits(&x), label)
            })
            .collect();
        let mut labels: Vec<u32> = rows.iter().map(|(_, label)| *label).collect();
        let (mut predictions, mut losses): (Vec<u32>, Vec<f64>) =
            rows.iter().map(|(logits, label)| outcome(logits, *label)).unzip();
        if self.wrong(Fault::Counts) {
            labels.pop();
            predictions.pop();
            losses.pop();
        }
        if self.wrong(Fault::Labels) {
            labels[0] = CLASSES as u32;
        }
        if self.wrong(Fault::Nan) {
            losses[0] = f64::NAN;
        }
        if self.wrong(Fault::Infinite) {
            losses[0] = f64::NEG_INFINITY;
        }
        if self.wrong(Fault::Random) {
            losses[0] += mix(
                std::process::id().into(),
                u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()),
            );
        }
        let more = match self.wrong(Fault::Tokens) {
            true => self.calls.load(Ordering::Relaxed) as f64,
            false => 0.0,
        };
        let judged = match self.options.sums {
            true => block::Judged::Sums(v1::Sums {
                samples: labels.len() as u64,
                values: vec![losses.iter().sum(), 2.0 * losses.len() as f64 + more],
            }),
            false => block::Judged::Outcomes(v1::Outcomes { labels, predictions, losses }),
        };
        let of = |row: &([f64; CLASSES], u32)| {
            row.0.iter().flat_map(|l| (*l as f32).to_le_bytes()).collect::<Vec<u8>>()
        };
        let logits = if logits { rows.iter().flat_map(of).collect() } else { Vec::new() };
        v1::Block { block: nth, judged: Some(judged), logits }
    }
}

fn noted(notes: &Path, what: &str) -> usize {
    std::fs::read_to_string(notes).unwrap_or_default().lines().filter(|line| *line == what).count()
}

#[tonic::async_trait]
impl Judge for Linear {
    type OpenStream = Answers<v1::OpenResponse>;
    type LoadStream = Answers<v1::LoadResponse>;
    type JudgeStream = Answers<v1::JudgeResponse>;
    type DifferentiateStream = Answers<v1::DifferentiateResponse>;

    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let version = if self.wrong(Fault::Version) { format!("1.{}", self.started) } else { "1".to_owned() };
        let abilities: &[&str] = if self.options.sums { &[] } else { &["logits", "gradients", "statistics"] };
        Ok(Response::new(v1::DescribeResponse {
            protocol: 1,
            version,
            digest: String::new(),
            numerics: "f64".to_owned(),
            abilities: abilities.iter().map(|a| (*a).to_owned()).collect(),
            datasets: vec!["points/SAMPLES/SEED".to_owned()],
            tolerance: 0.0,
        }))
    }

    async fn open(&self, request: Request<v1::OpenRequest>) -> Result<Response<Self::OpenStream>, Status> {
        let request = request.into_inner();
        let parsed = |source: &str| -> Option<(u64, u64)> {
            let mut parts = source.strip_prefix("points/")?.split('/');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        };
        let mut datasets = Vec::new();
        for set in &request.datasets {
            let known = parsed(&set.source)
                .ok_or_else(|| Status::invalid_argument(format!("there is no dataset {:?}", set.source)))?;
            datasets.push(known);
        }
        let names: Vec<&str> = request.tensors.iter().map(|t| t.name.as_str()).collect();
        if names != LINEAR && names != NORMALISED {
            return Err(Status::invalid_argument(format!(
                "tensors {names:?} are not those of a linear model"
            )));
        }
        let mut samples: Vec<u64> = datasets.iter().map(|(samples, _)| *samples).collect();
        if self.wrong(Fault::Survey) {
            samples[0] += self.started as u64;
        }
        let tallies = match self.options.sums {
            true => survey::Tallies::Figures(v1::Figures {
                names: vec!["nll".to_owned(), "tokens".to_owned()],
                metrics: vec![v1::Metric {
                    name: "perplexity".to_owned(),
                    formula: v1::metric::Formula::ExpRatio.into(),
                    figure: "nll".to_owned(),
                    by: "tokens".to_owned(),
                    lower_is_better: true,
                }],
                ranges: vec![
                    v1::Range { figure: "nll".to_owned(), least: Some(0.0), ..Default::default() },
                    v1::Range { figure: "tokens".to_owned(), fixed: true, ..Default::default() },
                ],
            }),
            false => survey::Tallies::Classes(CLASSES as u32),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { session: request.session, datasets, soups: BTreeMap::new() };
        let survey = v1::Survey { samples, tallies: Some(tallies), notes: vec!["made of points".to_owned()] };
        let message = |message| Ok(v1::OpenResponse { message: Some(message) });
        let progress = v1::Progress { what: "making points".to_owned() };
        Ok(answers(vec![
            message(open_response::Message::Progress(progress)),
            message(open_response::Message::Survey(survey)),
        ]))
    }

    async fn load(&self, request: Request<v1::LoadRequest>) -> Result<Response<Self::LoadStream>, Status> {
        let v1::LoadRequest { session, generation, path, recompute } = request.into_inner();
        let mut model = Model::open(Path::new(&path))?;
        if let Some(recompute) = recompute {
            self.recompute(&session, &mut model, &recompute)?;
        }
        if self.wrong(Fault::Cuts) {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.session != session {
            return Err(Status::failed_precondition("no such session"));
        }
        state.soups.insert(generation, Arc::new(model));
        assert!(state.soups.len() <= 2, "a judge has at most two generations");
        let loaded = load_response::Message::Loaded(v1::Loaded {});
        Ok(answers(vec![Ok(v1::LoadResponse { message: Some(loaded) })]))
    }

    async fn judge(&self, request: Request<v1::JudgeRequest>) -> Result<Response<Self::JudgeStream>, Status> {
        let request = request.into_inner();
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.options.dies_every.is_some_and(|every| calls.is_multiple_of(every)) {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
            return Err(Status::unavailable("it was killed"));
        }
        let (model, (_, seed)) = self.model(&request.session, request.generation, request.dataset)?;
        if self.wrong(Fault::Dies) {
            std::process::abort();
        }
        if self.wrong(Fault::Silent) {
            return Ok(Response::new(Box::pin(futures::stream::pending())));
        }
        if self.wrong(Fault::Fails) {
            return Err(Status::unknown("ZeroDivisionError: \u{1b}[31mdivision by zero"));
        }
        if self.wrong(Fault::Refuses) {
            return Err(Status::invalid_argument("sample 3 has no text"));
        }
        tokio::time::sleep(self.options.pause).await;
        let blocks = request.positions.chunks(request.block_samples.max(1) as usize);
        let mut all: Vec<v1::Block> = blocks
            .zip(0..)
            .map(|(positions, nth)| self.block(nth, &model, seed, positions, request.logits))
            .collect();
        if self.wrong(Fault::Twice) {
            all.push(all[0].clone());
        }
        if all.len() > 1 && self.wrong(Fault::Order) {
            all.reverse();
        }
        let generation = request.generation + u64::from(self.wrong(Fault::Generation));
        let message = |block| {
            Ok(v1::JudgeResponse { generation, message: Some(judge_response::Message::Block(block)) })
        };
        Ok(answers(all.into_iter().map(message).collect()))
    }

    async fn differentiate(
        &self,
        request: Request<v1::DifferentiateRequest>,
    ) -> Result<Response<Self::DifferentiateStream>, Status> {
        let request = request.into_inner();
        let (model, (_, seed)) = self.model(&request.session, request.generation, request.dataset)?;
        let v1::DifferentiateRequest { beta, label_smoothing, scale, .. } = request;
        // Canonical order: the bias comes first.
        let mut gradient = [0f64; CLASSES + CLASSES * FEATURES];
        let mut figures = v1::Differentiated { total: request.positions.len() as u64, ..Default::default() };
        for position in &request.positions {
            let (x, label) = point(seed, *position);
            let logits = model.logits(&x);
            let scaled: [f64; CLASSES] = logits.map(|l| beta * l);
            let most = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scaled.iter().map(|l| (l - most).exp()).sum();
            figures.correct += u64::from(outcome(&logits, label).0 == label);
            for class in 0..CLASSES {
                let wanted = label_smoothing / CLASSES as f64
                    + if class == label as usize { 1.0 - label_smoothing } else { 0.0 };
                let log_p = scaled[class] - most - sum.ln();
                figures.loss -= scale * wanted * log_p;
                let d = scale * (log_p.exp() - wanted);
                figures.d_beta += d * logits[class];
                gradient[class] += d * beta;
                for (at, x) in x.iter().enumerate() {
                    gradient[CLASSES + class * FEATURES + at] += d * beta * x;
                }
            }
        }
        let bytes: Vec<u8> = gradient.iter().flat_map(|g| (*g as f32).to_le_bytes()).collect();
        let file = std::fs::OpenOptions::new().write(true).open(&request.path);
        let file = file.map_err(|e| Status::internal(e.to_string()))?;
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0)
            .map_err(|e| Status::internal(e.to_string()))?;
        let message = Some(v1::differentiate_response::Message::Differentiated(figures));
        Ok(answers(vec![Ok(v1::DifferentiateResponse { generation: request.generation, message })]))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let v1::ReleaseRequest { session, generation } = request.into_inner();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.session == session {
            state.soups.remove(&generation);
        }
        Ok(Response::new(v1::ReleaseResponse {}))
    }
}

/// Writes a pool of `ingredients` linear models, that differ.
pub fn pool(folder: &Path, ingredients: u32) {
    write_pool(folder, ingredients, false);
}

/// Writes a pool of models that normalise.
pub fn normalised_pool(folder: &Path, ingredients: u32) {
    write_pool(folder, ingredients, true);
}

fn write_pool(folder: &Path, ingredients: u32, normalises: bool) {
    std::fs::create_dir_all(folder.join("ingredients")).unwrap();
    for ingredient in 0..ingredients {
        let file = folder.join(format!("ingredients/m{ingredient:02}.safetensors"));
        std::fs::write(file, checkpoint(ingredient, normalises)).unwrap();
    }
}

/// What becomes of samples of the dataset of `seed` with the model in a safetensors file: how many of so many are right.
pub fn correct(file: &Path, samples: u64, seed: u64) -> usize {
    let model = Model::open(file).unwrap();
    let right = |position: &u64| {
        let (x, label) = point(seed, *position);
        outcome(&model.logits(&x), label).0 == label
    };
    (0..samples).filter(right).count()
}

/// The statistics that the model in a safetensors file has on the first samples of the dataset of `seed`, block by block.
pub fn statistics(file: &Path, seed: u64, samples: u64, block: u64) -> (Vec<f32>, Vec<f32>) {
    let mut model = Model::open(file).unwrap();
    model.recompute(seed, samples, block);
    let norm = model.norm.unwrap();
    (norm.mean, norm.variance)
}

/// A linear model as a safetensors file, which may normalise first.
pub fn checkpoint(ingredient: u32, normalises: bool) -> Vec<u8> {
    // Some are close to where they come from, and others are not.
    let scale = [2.0, 3.0, 1.5, 4.0, 2.5, 6.0][ingredient as usize % 6];
    let noise = |n: usize| scale * (mix(77, u64::from(ingredient) * 1000 + n as u64) - 0.5);
    let on_diagonal = |n: usize| if n / FEATURES == n % FEATURES { 2.0 } else { 0.0 };
    let weight: Vec<f32> = (0..CLASSES * FEATURES).map(|n| (on_diagonal(n) + noise(n)) as f32).collect();
    let bias: Vec<f32> = (0..CLASSES).map(|n| noise(500 + n) as f32).collect();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (weight, bias) = (bytes(&weight), bytes(&bias));
    let view = |shape: Vec<usize>, bytes| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap()
    };
    let mut tensors =
        vec![("weight", view(vec![CLASSES, FEATURES], &weight)), ("bias", view(vec![CLASSES], &bias))];
    let row = |first: usize, around: f64| {
        let value = |n: usize| (around + 0.25 * noise(first + n).abs()) as f32;
        bytes(&(0..FEATURES).map(value).collect::<Vec<f32>>())
    };
    let (scale, mean, variance) = (row(600, 1.0), row(700, 0.2), row(800, 0.5));
    if normalises {
        tensors.push(("scale", view(vec![FEATURES], &scale)));
        tensors.push(("norm.running_mean", view(vec![FEATURES], &mean)));
        tensors.push(("norm.running_var", view(vec![FEATURES], &variance)));
    }
    safetensors::serialize(tensors, None).unwrap()
}
