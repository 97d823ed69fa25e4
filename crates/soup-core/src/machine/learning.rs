//! One step of a learned soup: its mini-batch's parts are differentiated by whoever is free, and the gradient of each meets
//! the ingredients where their shards are.
//!
//! A part is *open* until a worker has differentiated it, and then *held* by that worker, which keeps the gradient for the
//! owners of the shards to fetch. They answer with its products with every ingredient, shard by shard; when all shards have
//! answered, the part is done, and the gradient may go. Products are added by part, shard and tensor in this order, so that
//! who did what, and when, changes no bit. A worker that is lost takes the gradients with it that it held.

use std::collections::BTreeMap;

use super::{Action, Error, Machine, Millis, Work, WorkerId};
use crate::ledger::Gradients;
use crate::machine::exchange::{Differentiate, Dot, PartFigures, SegmentDots};
use crate::recipe::learned::MiniBatch;
use crate::shard::Shard;
use crate::soup::Weight;

/// What is known of steps.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// The step in work.
    step: Option<StepInWork>,
    /// Which worker differentiated which part in the last step: it has the samples.
    homes: BTreeMap<u32, WorkerId>,
}

impl Learning {
    /// Whether a step is in work.
    pub(super) fn in_work(&self) -> bool {
        self.step.is_some()
    }
}

#[derive(Debug)]
struct StepInWork {
    mini: MiniBatch,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Open,
    Held { by: WorkerId, figures: PartFigures, dots: BTreeMap<Shard, Vec<SegmentDots>> },
    Done { figures: PartFigures, sums: Vec<Vec<f64>> },
}

impl StepInWork {
    fn new(mini: MiniBatch) -> StepInWork {
        let parts = mini.parts.iter().map(|_| Part::Open).collect();
        StepInWork { mini, parts }
    }

    /// Gradients that `worker` holds.
    fn held_by(&self, worker: WorkerId) -> u32 {
        self.parts.iter().filter(|p| matches!(p, Part::Held { by, .. } if *by == worker)).count() as u32
    }

    fn work(&self, part: usize) -> Option<Work> {
        Some(Work::Differentiate(Box::new(Differentiate {
            step: self.mini.step,
            part: part as u32,
            soup: self.mini.soup.clone(),
            beta: Weight::new(self.mini.beta)?,
            label_smoothing: Weight::new(self.mini.label_smoothing)?,
            scale: Weight::new(1.0 / self.mini.samples() as f64)?,
            samples: self.mini.parts[part].clone(),
        })))
    }

    /// Loss and gradient of the mini-batch, once all parts are done.
    fn total(&self) -> Option<Gradients> {
        let mut total: Option<Gradients> = None;
        for part in &self.parts {
            let Part::Done { figures, sums } = part else { return None };
            let sum = total.get_or_insert_with(|| Gradients {
                dots: sums.iter().map(|row| vec![0.0; row.len()]).collect(),
                ..Gradients::default()
            });
            sum.loss += figures.loss;
            sum.d_beta += figures.d_beta;
            sum.correct += figures.correct;
            sum.total += figures.total;
            for (sum, part) in sum.dots.iter_mut().flatten().zip(sums.iter().flatten()) {
                *sum += part;
            }
        }
        total
    }
}

/// A product with one of the resident shards `own`.
fn pick_dot(learning: &StepInWork, own: &[Shard], may: &dyn Fn(&Work) -> bool) -> Option<Work> {
    learning.parts.iter().enumerate().find_map(|(index, part)| {
        let Part::Held { by, dots, .. } = part else { return None };
        let dot = |shard: &Shard| {
            Work::Dot(Dot { step: learning.mini.step, part: index as u32, shard: *shard, source: *by })
        };
        own.iter().filter(|shard| !dots.contains_key(shard)).map(dot).find(|work| may(work))
    })
}

impl Machine {
    /// Begins the step that the recipe asks for, unless it is in work.
    pub(super) fn begin_step(&mut self, mini: MiniBatch) {
        if self.learning.step.as_ref().is_none_or(|s| s.mini.step != mini.step) {
            self.learning.step = Some(StepInWork::new(mini));
        }
    }

    /// Something of the step in work for `worker`: products first, since they let gradients go.
    /// Only one that is `judging` differentiates.
    pub(super) fn pick_learning(
        &self,
        worker: WorkerId,
        own: &[Shard],
        judging: bool,
        now: Millis,
    ) -> Option<Work> {
        let learning = self.learning.step.as_ref()?;
        let may = |work: &Work| self.tasks.is_open(work, now) && !self.tasks.failed_on(work, worker);
        // Products belong to the owners, parts to anybody.
        let may_part = |work: &Work| self.tasks.is_open(work, now) && !self.is_barred(work, worker);
        let part = || if judging { self.pick_part(learning, worker, &may_part) } else { None };
        pick_dot(learning, own, &may).or_else(part)
    }

    /// An open part: one that `worker` did in the step before, else one that nobody did, else anybody's. A worker has so many
    /// gradients at most as it has slots, and one more that is being fetched.
    fn pick_part(
        &self,
        learning: &StepInWork,
        worker: WorkerId,
        may: &dyn Fn(&Work) -> bool,
    ) -> Option<Work> {
        if !learning.parts.iter().any(|part| matches!(part, Part::Open)) {
            return None;
        }
        let in_work = self.tasks.count_of(worker, |work| matches!(work, Work::Differentiate(_)));
        if learning.held_by(worker) + in_work > self.workers[&worker].slots {
            return None;
        }
        let preference = |part: usize| match self.learning.homes.get(&(part as u32)) {
            Some(home) if *home == worker => 0,
            None => 1,
            Some(_) => 2,
        };
        let open = |(index, part): (usize, &Part)| matches!(part, Part::Open).then_some(index);
        learning
            .parts
            .iter()
            .enumerate()
            .filter_map(open)
            .filter_map(|index| learning.work(index).filter(may).map(|work| (preference(index), index, work)))
            .min_by_key(|(preference, index, _)| (*preference, *index))
            .map(|(_, _, work)| work)
    }

    /// A part was differentiated by `worker`, which holds its gradient now.
    pub(super) fn differentiated(&mut self, worker: WorkerId, work: &Differentiate, figures: PartFigures) {
        self.learning.homes.insert(work.part, worker);
        if self.plan.audit.any() {
            self.deeds.stepped(worker, work.step);
        }
        if let Some(part) = self.part(work.step, work.part).filter(|p| matches!(p, Part::Open)) {
            *part = Part::Held { by: worker, figures, dots: BTreeMap::new() };
        }
    }

    fn part(&mut self, step: u32, part: u32) -> Option<&mut Part> {
        let learning = self.learning.step.as_mut().filter(|s| s.mini.step == step)?;
        learning.parts.get_mut(part as usize)
    }

    /// The products of a gradient with one shard of every ingredient are there.
    pub(super) fn dotted(
        &mut self,
        worker: WorkerId,
        work: &Dot,
        segments: Vec<SegmentDots>,
        out: &mut Vec<Action>,
    ) {
        if self.plan.audit.any() {
            self.deeds.stepped(worker, work.step);
        }
        let shards = self.placement.shards();
        let Some(Part::Held { by, figures, dots }) = self.part(work.step, work.part) else { return };
        if *by != work.source {
            return;
        }
        dots.insert(work.shard, segments);
        if dots.len() < shards {
            return;
        }
        let (by, figures, dots) = (*by, *figures, std::mem::take(dots));
        let sums = self.grouped(&dots);
        if let Some(part) = self.part(work.step, work.part) {
            *part = Part::Done { figures, sums };
        }
        out.push(Action::Release(by, work.step, work.part));
        self.finish_step(out);
    }

    /// Sums products by group, in the order of shards and tensors.
    fn grouped(&self, dots: &BTreeMap<Shard, Vec<SegmentDots>>) -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; self.plan.ingredients as usize]; self.plan.groups.names.len()];
        for segment in dots.values().flatten() {
            let Some(group) = self.plan.groups.of[segment.tensor as usize] else { continue };
            for (sum, dot) in sums[group as usize].iter_mut().zip(&segment.dots) {
                *sum += dot;
            }
        }
        sums
    }

    /// When all parts are done, the step is on its way to the journal.
    fn finish_step(&mut self, out: &mut Vec<Action>) {
        let Some((step, total)) = self.learning.step.as_ref().and_then(|s| Some((s.mini.step, s.total()?)))
        else {
            return;
        };
        if !total.finite() {
            let text = format!(
                "step {step} has a loss or a gradient that is not finite: give a smaller --lr, or leave out ingredients that \
                 do not belong together (soupctl taste)"
            );
            return self.finish(Err(Error::data(text)), out);
        }
        self.learning.step = None;
        self.recorder.step(step, total);
    }

    /// Begins the step in work anew, since somebody had a part in it who is not believed.
    pub(super) fn restart_step(&mut self, out: &mut Vec<Action>) {
        self.withdraw_where(|work| matches!(work, Work::Differentiate(_) | Work::Dot(_)), out);
        let Some(StepInWork { mini, parts }) = self.learning.step.take() else { return };
        let held = (0..).zip(&parts).filter_map(|(index, part)| match part {
            Part::Held { by, .. } => Some((*by, index)),
            Part::Open | Part::Done { .. } => None,
        });
        out.extend(held.map(|(by, index)| Action::Release(by, mini.step, index)));
    }

    /// What `worker` held and what is asked of it is gone.
    pub(super) fn lose_gradients(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        self.withdraw_where(|work| matches!(work, Work::Dot(dot) if dot.source == worker), out);
        self.learning.homes.retain(|_, home| *home != worker);
        let Some(learning) = &mut self.learning.step else { return };
        for part in &mut learning.parts {
            if matches!(part, Part::Held { by, .. } if *by == worker) {
                *part = Part::Open;
            }
        }
    }

    /// Nobody has `shard` any more: products that its owner was asked for are asked of the next one.
    pub(super) fn lose_products(&mut self, shard: Shard) {
        let stale = |work: &&Work| match work {
            Work::Dot(dot) => dot.shard == shard,
            Work::Gram(of) | Work::Pass(of) | Work::Reread(of, _) => *of == shard,
            _ => false,
        };
        let works: Vec<Work> = self.tasks.works().filter(stale).cloned().collect();
        for work in &works {
            self.tasks.forget(work);
        }
    }
}
