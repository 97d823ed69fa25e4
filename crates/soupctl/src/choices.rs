//! The options that are one of a few names. Their doc comments are the help of each name.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Deserialize;
use soup_core::agree::Missing;
use soup_core::batch_norm::BatchNorm;
use soup_core::digest::DigestKind;
use soup_core::recipe::learned::{Granularity, Init, Optimizer, Schedule, WeightRule};
use soup_core::recipe::{Accept, Order, RecipeKind};
use soup_core::run::{DiagnosisLevel, Evaluate};
use soup_core::texts::Decoding;

use soup_core::schema::Dtype;

/// How to choose the ingredients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RecipeName {
    /// The mean of all ingredients
    Uniform,
    /// The one ingredient that scores best
    BestSingle,
    /// Add ingredients, best first, while the score does not drop
    Greedy,
    /// Take ingredients out of the uniform soup while the score does not drop
    Pruned,
    /// Learn the weights by gradient descent, on data of their own
    Learned,
    /// Take the weights that --weights-file gives
    Weighted,
}

/// What becomes of tensors that only some ingredients have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MissingName {
    /// The pool is refused
    Refuse,
    /// The soup does not have them
    Skip,
    /// The soup has that of the first ingredient which has one, as it is
    First,
}

impl From<MissingName> for Missing {
    fn from(name: MissingName) -> Missing {
        match name {
            MissingName::Refuse => Missing::Refuse,
            MissingName::Skip => Missing::Skip,
            MissingName::First => Missing::First,
        }
    }
}

/// What becomes of running statistics of normalisation layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BatchNormName {
    /// The judge computes them anew for every soup, on the --calibration set
    Recompute,
    /// They are averaged like parameters
    Average,
    /// They are those of the soup's first ingredient in pool order
    First,
}

impl From<BatchNormName> for BatchNorm {
    fn from(name: BatchNormName) -> BatchNorm {
        match name {
            BatchNormName::Recompute => BatchNorm::Recompute,
            BatchNormName::Average => BatchNorm::Average,
            BatchNormName::First => BatchNorm::First,
        }
    }
}

/// A floating-point dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DtypeName {
    /// 64 bits
    #[value(alias = "float64")]
    #[serde(alias = "float64")]
    F64,
    /// 32 bits
    #[value(alias = "float32")]
    #[serde(alias = "float32")]
    F32,
    /// 16 bits, 5 of them exponent
    #[value(alias = "float16")]
    #[serde(alias = "float16")]
    F16,
    /// 16 bits, 8 of them exponent
    #[value(alias = "bfloat16")]
    #[serde(alias = "bfloat16")]
    Bf16,
}

impl From<DtypeName> for Dtype {
    fn from(name: DtypeName) -> Dtype {
        match name {
            DtypeName::F64 => Dtype::F64,
            DtypeName::F32 => Dtype::F32,
            DtypeName::F16 => Dtype::F16,
            DtypeName::Bf16 => Dtype::BF16,
        }
    }
}

/// What has weights of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GranularityName {
    /// The model: one weight an ingredient (the paper)
    Model,
    /// Every layer
    Layer,
    /// Every tensor (the authors' code)
    Tensor,
}

/// What weights may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WeightRuleName {
    /// Positive, with sum 1
    Softmax,
    /// Anything
    Free,
    /// Anything with sum 1
    SumToOne,
}

/// How weights are stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OptimizerName {
    /// AdamW without weight decay
    Adamw,
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScheduleName {
    /// It stays
    Constant,
    /// It falls to zero along half a cosine
    Cosine,
}

/// Where learning starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum InitName {
    /// At the uniform soup
    Uniform,
    /// At the greedy soup of the data that is learned from
    Greedy,
}

/// In which order candidates are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CandidateOrder {
    /// By validation score: greedy takes the best first, pruned the worst
    Sorted,
    /// Shuffled by --seed
    Random,
    /// As in the pool
    Pool,
}

/// When a trial is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AcceptRule {
    /// When it scores at least what the soup so far does (the paper)
    AtLeast,
    /// When it scores better (the authors' code)
    Better,
    /// When it scores better than luck explains: an exact McNemar test of all samples, at --alpha
    Significant,
}

/// What is found out about the pool itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DiagnosisName {
    /// Nothing
    None,
    /// Lengths and angles, duplicates, outliers, whether the ingredients share an initialisation: one pass over the shards
    Geometry,
    /// Also interpolations, a plane, the utility of each further ingredient, and ensembles: many evaluations
    Full,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// How log lines are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text each
    #[default]
    Text,
    /// One JSON object each
    Json,
}

impl From<RecipeName> for RecipeKind {
    fn from(name: RecipeName) -> Self {
        match name {
            RecipeName::Uniform => RecipeKind::Uniform,
            RecipeName::BestSingle => RecipeKind::BestSingle,
            RecipeName::Greedy => RecipeKind::Greedy,
            RecipeName::Pruned => RecipeKind::Pruned,
            RecipeName::Learned => RecipeKind::Learned,
            RecipeName::Weighted => RecipeKind::Weighted,
        }
    }
}

impl From<GranularityName> for Granularity {
    fn from(name: GranularityName) -> Self {
        match name {
            GranularityName::Model => Granularity::Model,
            GranularityName::Layer => Granularity::Layer,
            GranularityName::Tensor => Granularity::Tensor,
        }
    }
}

impl From<WeightRuleName> for WeightRule {
    fn from(name: WeightRuleName) -> Self {
        match name {
            WeightRuleName::Softmax => WeightRule::Softmax,
            WeightRuleName::Free => WeightRule::Free,
            WeightRuleName::SumToOne => WeightRule::SumToOne,
        }
    }
}

impl From<OptimizerName> for Optimizer {
    fn from(name: OptimizerName) -> Self {
        match name {
            OptimizerName::Adamw => Optimizer::Adamw,
        }
    }
}

impl From<ScheduleName> for Schedule {
    fn from(name: ScheduleName) -> Self {
        match name {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Cosine => Schedule::Cosine,
        }
    }
}

impl From<DiagnosisName> for DiagnosisLevel {
    fn from(name: DiagnosisName) -> Self {
        match name {
            DiagnosisName::None => DiagnosisLevel::None,
            DiagnosisName::Geometry => DiagnosisLevel::Geometry,
            DiagnosisName::Full => DiagnosisLevel::Full,
        }
    }
}

impl From<InitName> for Init {
    fn from(name: InitName) -> Self {
        match name {
            InitName::Uniform => Init::Uniform,
            InitName::Greedy => Init::Greedy,
        }
    }
}

impl From<CandidateOrder> for Order {
    fn from(name: CandidateOrder) -> Self {
        match name {
            CandidateOrder::Sorted => Order::Sorted,
            CandidateOrder::Random => Order::Random,
            CandidateOrder::Pool => Order::Pool,
        }
    }
}

/// When a trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EvaluateName {
    /// As soon as its verdict is certain
    Early,
    /// When all of its samples are judged
    Full,
}

/// Which class a model that answers in words is taken to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DecodingName {
    /// The one whose label is the most probable answer
    Labels,
    /// The one whose label it writes, token by token the most probable one; whatever else it writes is wrong
    Greedy,
}

impl From<DecodingName> for Decoding {
    fn from(name: DecodingName) -> Self {
        match name {
            DecodingName::Labels => Decoding::Labels,
            DecodingName::Greedy => Decoding::Greedy,
        }
    }
}

/// By which algorithm the content of ingredients is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DigestName {
    /// SHA-256
    Sha256,
    /// BLAKE3, which takes a fraction of the time
    Blake3,
}

impl From<DigestName> for DigestKind {
    fn from(name: DigestName) -> Self {
        match name {
            DigestName::Sha256 => DigestKind::Sha256,
            DigestName::Blake3 => DigestKind::Blake3,
        }
    }
}

impl From<EvaluateName> for Evaluate {
    fn from(name: EvaluateName) -> Self {
        match name {
            EvaluateName::Early => Evaluate::Early,
            EvaluateName::Full => Evaluate::Full,
        }
    }
}

impl From<AcceptRule> for Accept {
    fn from(name: AcceptRule) -> Self {
        match name {
            AcceptRule::AtLeast => Accept::AtLeast,
            AcceptRule::Significant => Accept::Significant,
            AcceptRule::Better => Accept::Better,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_files_and_the_core_spell_names_alike() {
        for &recipe in RecipeName::value_variants() {
            let flag = recipe.to_possible_value().unwrap().get_name().to_owned();
            assert_eq!(flag, RecipeKind::from(recipe).name());
            assert_eq!(serde_json::json!(RecipeKind::from(recipe)), flag);
            assert_eq!(serde_json::from_value::<RecipeName>(flag.into()).unwrap(), recipe);
        }
    }
}

/// What Ctrl-C does to a run on a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnInterrupt {
    /// The run is cancelled; asking for it again goes on with it.
    #[default]
    Cancel,
    /// The run goes on, and can be watched again.
    Detach,
}
