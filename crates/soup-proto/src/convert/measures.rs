//! What workers measure: gradients and their products, inner products of a pool, comparisons of its other uses.

use soup_core::diagnosis::boosting::Hits;
use soup_core::diagnosis::ensemble::{Alternatives, Newton};
use soup_core::machine::{Differentiate, Dot, LayerGram, PartFigures, SegmentDots};
use soup_core::soup::Weight;
use soup_core::{Error, Result};

use super::{malformed, required};
use crate::v1;

impl From<&Differentiate> for v1::Differentiate {
    /// Without the dataset, which the run knows.
    fn from(work: &Differentiate) -> Self {
        v1::Differentiate {
            step: work.step,
            part: work.part,
            soup: Some((&work.soup).into()),
            beta: work.beta.get(),
            label_smoothing: work.label_smoothing.get(),
            scale: work.scale.get(),
            dataset: 0,
            samples: work.samples.clone(),
        }
    }
}

impl TryFrom<v1::Differentiate> for Differentiate {
    type Error = Error;
    fn try_from(d: v1::Differentiate) -> Result<Self> {
        let number =
            |value, name| Weight::new(value).ok_or_else(|| malformed(&format!("{name} is not finite")));
        Ok(Differentiate {
            step: d.step,
            part: d.part,
            soup: required(d.soup, "a soup")?.try_into()?,
            beta: number(d.beta, "beta")?,
            label_smoothing: number(d.label_smoothing, "label smoothing")?,
            scale: number(d.scale, "scale")?,
            samples: d.samples,
        })
    }
}

impl From<v1::Differentiated> for PartFigures {
    fn from(d: v1::Differentiated) -> Self {
        PartFigures { loss: d.loss, d_beta: d.d_beta, correct: d.correct, total: d.total }
    }
}

impl From<&Dot> for v1::DotShard {
    fn from(work: &Dot) -> Self {
        v1::DotShard { step: work.step, part: work.part, shard: work.shard.0, source: work.source.0 }
    }
}

impl From<v1::SegmentDots> for SegmentDots {
    fn from(s: v1::SegmentDots) -> Self {
        SegmentDots { tensor: s.tensor, dots: s.dots }
    }
}

impl From<LayerGram> for v1::LayerGram {
    fn from(g: LayerGram) -> Self {
        v1::LayerGram { layer: g.layer, matrix: g.matrix, packed: g.packed }
    }
}

impl From<v1::LayerGram> for LayerGram {
    fn from(g: v1::LayerGram) -> Self {
        LayerGram { layer: g.layer, matrix: g.matrix, packed: g.packed }
    }
}

impl From<&Alternatives> for v1::Compared {
    fn from(a: &Alternatives) -> Self {
        v1::Compared {
            logits: Some((&a.logits).into()),
            vote: Some((&a.vote).into()),
            stacked: Some((&a.stacked).into()),
            gradient: a.newton.gradient.clone(),
            curvature: a.newton.curvature.clone(),
            boosted: a.boosted.as_ref().map(Into::into),
            hits: a.hits.as_ref().map_or_else(Vec::new, |hits| hits.rows().to_vec()),
        }
    }
}

impl TryFrom<v1::Compared> for Alternatives {
    type Error = Error;
    fn try_from(c: v1::Compared) -> Result<Self> {
        let k = c.gradient.len();
        if c.curvature.len() != k * (k + 1) / 2 {
            return Err(malformed("a curvature does not fit its gradient"));
        }
        Ok(Alternatives {
            logits: required(c.logits, "logits")?.try_into()?,
            vote: required(c.vote, "vote")?.try_into()?,
            stacked: required(c.stacked, "stacked")?.try_into()?,
            newton: Newton { gradient: c.gradient, curvature: c.curvature },
            boosted: c.boosted.map(TryInto::try_into).transpose()?,
            hits: match c.hits.is_empty() {
                true => None,
                false => Some(Hits::from_rows(k, c.hits)?),
            },
        })
    }
}
