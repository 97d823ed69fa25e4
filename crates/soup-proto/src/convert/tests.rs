//! What goes over the wire comes back the same; what is malformed is refused by name.

use soup_core::batch_norm::BatchNorm;
use soup_core::diagnosis::boosting::Hits;
use soup_core::diagnosis::ensemble::{Alternatives, Newton};
use soup_core::machine::Differentiate;
use soup_core::metric::{Formula, MetricName, Range, SumMetric};
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::survey::{Ability, Survey, Tallies};
use soup_core::tally::{Counts, Judged, Outcome, Sums, Tally, Value, Values};
use soup_core::texts::Decoding;

use super::*;

#[allow(clippy::too_many_lines)] // a list of all there are
fn spec() -> RunSpec {
    let set = |name: &str| DatasetSpec {
        name: name.into(),
        url: format!("s3://b/{name}.parquet"),
        options: DatasetOptions {
            image_column: Some("img".into()),
            label_column: None,
            limit: Some(7),
            split: (name == "train").then_some(Split { train: true, train_ppm: 300_000 }),
            named_split: Some("validation".into()),
            others: [("text-column".to_owned(), "s".to_owned())].into(),
        },
    };
    RunSpec {
        pool: vec!["s3://b/pool".into()],
        recipe: RecipeSpec {
            kind: RecipeKind::Learned,
            order: Order::Random,
            accept: Accept::Better,
            alpha: None,
            seed: u64::MAX,
            max_ingredients: Some(3),
            passes: 2,
            metric: "accuracy+matthews".parse().unwrap(),
            learn: Some(LearnSpec {
                granularity: Granularity::Layer,
                weights: WeightRule::SumToOne,
                optimizer: Optimizer::Adamw,
                lr: 0.3,
                schedule: Schedule::Cosine,
                warmup: 0.2,
                clip: Some(1.5),
                epochs: 7,
                batch_size: 9,
                parts: 3,
                shuffle: false,
                label_smoothing: 0.1,
                init: Init::Greedy,
                fold_beta: true,
            }),
        },
        validation: Some(set("val")),
        tests: vec![set("test")],
        train: Some(set("train")),
        diagnosis: DiagnosisSpec {
            level: DiagnosisLevel::Full,
            base: Some("s3://b/base".into()),
            require_shared_init: true,
            report_only: true,
        },
        output: "/tmp/soup".into(),
        overwrite: true,
        batch_size: 50,
        allow_nan: true,
        baselines: false,
        lookahead: Some(2),
        workers_min: 3,
        model_config: None,
        preprocessor_config: Some(NamedConfig { url: "/p.json".into(), text: "{}".into() }),
        ignore_config: vec!["hidden_act".into()],
        class_subset: false,
        ingredient_weights: None,
        ranked_by: None,
        missing: Missing::Refuse,
        out_dtype: None,
        judge: Some("lm".into()),
        numerics: None,
        batch_norm: Some(BatchNorm::First),
        calibration: None,
        audit_ppm: 20_000,
        evaluate: Evaluate::Full,
        digest: soup_core::digest::DigestKind::Blake3,
        decoding: Decoding::Labels,
    }
}

#[test]
fn how_answers_are_decoded_survives() {
    let mut spec = RunSpec { judge: None, decoding: Decoding::Greedy, train: None, ..spec() };
    spec.recipe = RecipeSpec { kind: RecipeKind::Greedy, learn: None, ..spec.recipe };
    spec.diagnosis.level = DiagnosisLevel::Geometry;
    assert_eq!(RunSpec::try_from(v1::RunSpec::from(spec.clone())).unwrap(), spec);
    let unknown = v1::RunSpec { decoding: "beam".to_owned(), ..spec.into() };
    let error = RunSpec::try_from(unknown).unwrap_err();
    assert!(error.chain().contains("unknown decoding \"beam\""), "{}", error.chain());
}

#[test]
fn a_ranking_and_a_level_of_significance_survive() {
    let mut spec = spec();
    spec.recipe = RecipeSpec {
        kind: RecipeKind::Greedy,
        order: Order::Sorted,
        accept: Accept::Significant,
        alpha: Some(0.1),
        metric: MetricName::default(),
        learn: None,
        ..spec.recipe
    };
    spec.train = None;
    spec.ranked_by = Some([("a".to_owned(), 0.25), ("b".to_owned(), -1.0)].into());
    assert_eq!(RunSpec::try_from(v1::RunSpec::from(spec.clone())).unwrap(), spec);
    let refused = |change: &dyn Fn(&mut v1::RunSpec), part: &str| {
        let mut wire = v1::RunSpec::from(spec.clone());
        change(&mut wire);
        let error = RunSpec::try_from(wire).unwrap_err();
        assert!(error.chain().contains(part), "{}", error.chain());
    };
    fn recipe(change: impl Fn(&mut v1::Recipe)) -> impl Fn(&mut v1::RunSpec) {
        move |wire| change(wire.recipe.as_mut().unwrap())
    }
    refused(
        &|wire| {
            wire.ranked_by.insert("a".to_owned(), f64::NAN);
        },
        "which is no number to rank by",
    );
    for alpha in [0.0, 0.5, f64::NAN, -1.0] {
        refused(&recipe(|recipe| recipe.alpha = Some(alpha)), "must be above 0 and below 0.5");
    }
    refused(&recipe(|recipe| recipe.alpha = None), "accept significant has no alpha");
    refused(&recipe(|recipe| recipe.metric = "loss".to_owned()), "is a test of accuracies");
    refused(&recipe(|recipe| recipe.set_order(v1::recipe::Order::Pool)), "and so does --order");
    refused(
        &recipe(|recipe| recipe.set_kind(v1::recipe::Kind::BestSingle)),
        "the best-single recipe takes none",
    );
    refused(&recipe(|recipe| recipe.set_accept(v1::recipe::Accept::Better)), "belongs to accept significant");
}

#[test]
fn a_spec_survives() {
    assert_eq!(RunSpec::try_from(v1::RunSpec::from(spec())).unwrap(), spec());
    let mut native = RunSpec { judge: None, numerics: Some("cuda-sm90".into()), ..spec() };
    let sets = native.validation.iter_mut().chain(&mut native.tests).chain(&mut native.train);
    sets.for_each(|set| set.options.others.clear());
    assert_eq!(RunSpec::try_from(v1::RunSpec::from(native.clone())).unwrap(), native);
}

#[test]
fn what_a_worker_says_of_its_judges_is_checked() {
    let offer = Offer {
        id: JudgeId { name: "lm".into(), ..JudgeId::native() },
        abilities: [Ability::Logits].into(),
        datasets: vec!["dev".into()],
    };
    for offer in [offer.clone(), Offer::native()] {
        assert_eq!(Offer::try_from(v1::OfferedJudge::from(offer.clone())).unwrap(), offer);
    }
    let refused = |change: &dyn Fn(&mut Offer)| {
        let mut changed = offer.clone();
        change(&mut changed);
        assert!(Offer::try_from(v1::OfferedJudge::from(changed)).is_err());
    };
    refused(&|o| o.id.name = "a b".into());
    refused(&|o| o.id.version = "1\u{1b}[2J".into());
    refused(&|o| o.id.numerics = "x".repeat(2000));
    refused(&|o| o.datasets = vec![String::new(); 1001]);
    assert!(Offer::try_from(v1::OfferedJudge::default()).is_err());
    for tolerance in [f64::NAN, -1.0, 2.0] {
        let surveyed = Some(v1::Surveyed::new(soup_core::survey::Survey::of_classes(vec![1], 2), vec![]));
        let evaluated = Some((&Judged::Outcomes(Vec::new())).into());
        let proved =
            v1::Proved { evaluated, surveyed, again: true, tolerance: 0.5, statistics_sha256: vec![7; 32] };
        assert!(Proof::try_from(proved.clone()).is_ok());
        assert!(Proof::try_from(v1::Proved { tolerance, ..proved.clone() }).is_err());
        assert!(Proof::try_from(v1::Proved { surveyed: None, ..proved.clone() }).is_err());
        assert!(Proof::try_from(v1::Proved { statistics_sha256: vec![7; 31], ..proved }).is_err());
    }
}

#[test]
fn what_becomes_of_running_statistics_survives() {
    let greedy = RecipeSpec { kind: RecipeKind::Greedy, learn: None, ..spec().recipe };
    let calibration = spec().train.map(|set| DatasetSpec { name: "calibration".into(), ..set });
    for (what, calibration) in
        [(None, None), (Some(BatchNorm::Average), None), (Some(BatchNorm::Recompute), calibration)]
    {
        let spec = RunSpec { recipe: greedy.clone(), train: None, batch_norm: what, calibration, ..spec() };
        assert_eq!(RunSpec::try_from(v1::RunSpec::from(spec.clone())).unwrap(), spec);
    }
    let unknown = v1::RunSpec { batch_norm: "guess".into(), ..spec().into() };
    assert!(RunSpec::try_from(unknown).unwrap_err().chain().contains("running statistics \"guess\""));
}

#[test]
fn a_judge_survives() {
    for digest in [None, Some("abc".to_owned())] {
        let judge = JudgeId { digest, ..JudgeId::native() };
        assert_eq!(JudgeId::from(v1::Judge::from(&judge)), judge);
    }
}

#[test]
fn weights_survive() {
    let parts = [("*".to_owned(), 0.1), ("classifier".to_owned(), 1.0 / 3.0)];
    let table =
        [("a".to_owned(), GivenWeight::Model(0.3)), ("b".to_owned(), GivenWeight::Parts(parts.into()))];
    let weighted = RunSpec {
        recipe: RecipeSpec { kind: RecipeKind::Weighted, learn: None, ..spec().recipe },
        train: None,
        validation: None,
        tests: Vec::new(),
        diagnosis: DiagnosisSpec::default(),
        judge: None,
        numerics: None,
        batch_norm: None,
        calibration: None,
        ingredient_weights: Some(table.into()),
        ..spec()
    };
    assert_eq!(RunSpec::try_from(v1::RunSpec::from(weighted.clone())).unwrap(), weighted);
}

#[test]
fn soups_survive() {
    let w = |v| Weight::new(v).unwrap();
    let soups = [
        Soup::mean([Ingredient(3), Ingredient(0)]).unwrap(),
        Soup::weighted(vec![Ingredient(1), Ingredient(4)], vec![vec![w(0.1), w(-0.3)], vec![w(1.0), w(0.0)]])
            .unwrap(),
    ];
    for soup in soups {
        assert_eq!(Soup::try_from(v1::Soup::from(&soup)).unwrap(), soup);
    }
}

#[test]
fn outcomes_survive() {
    let outcomes = vec![Outcome { label: 1, prediction: 2, loss: 0.25 }; 3];
    let counts: Counts = outcomes.iter().collect();
    let sums =
        Sums { samples: 3, figures: [("nll".to_owned(), f64::INFINITY), ("tokens".to_owned(), 0.1)].into() };
    let value = |truth, prediction| Value { truth, prediction };
    let values: Values = [value(3.8, f64::INFINITY), value(0.1 + 0.2, -1.0)].into_iter().collect();
    let tallies = [counts.into(), sums.into(), values.into()].map(Judged::Tally);
    for judged in tallies.into_iter().chain([Judged::Outcomes(outcomes)]) {
        assert_eq!(Judged::try_from(v1::Evaluated::from(&judged)).unwrap(), judged);
    }
    let uneven = v1::Values { truths: vec![1.0], predictions: vec![] };
    refused(Values::try_from(uneven), "columns of values differ in length");
    let long = vec![0.0; 65_537];
    refused(Values::try_from(v1::Values { truths: long.clone(), predictions: long }), "or are too long");
}

#[test]
fn surveys_survive() {
    let of = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let (nll, tokens) = of("nll", "tokens");
    let formulas = [
        Formula::Mean(nll.clone()),
        Formula::Ratio(nll.clone(), tokens.clone()),
        Formula::ExpRatio(nll.clone(), tokens.clone()),
    ];
    let metric = |(i, formula)| SumMetric { name: format!("m{i}"), formula, lower_is_better: i > 0 };
    let metrics = formulas.into_iter().enumerate().map(metric).collect();
    let ranges = [
        (nll.clone(), Range { least: Some(0.0), ..Range::default() }),
        (tokens.clone(), Range { fixed: true, ..Range::default() }),
    ];
    let ranges = ranges.into();
    let lm = Survey {
        samples: vec![3],
        tallies: Tallies::Sums { figures: [nll, tokens].into(), ranges, metrics },
        abilities: [Ability::Gradients].into(),
    };
    for survey in [lm.clone(), Survey::of_classes(vec![7, 2], 10), Survey::of_values(vec![4])] {
        let notes = vec!["a note".to_owned()];
        assert_eq!(v1::Surveyed::new(survey.clone(), notes.clone()).survey().unwrap(), (survey, notes));
    }
    let mut later = v1::Surveyed::new(lm.clone(), Vec::new());
    later.abilities.push("telepathy".into());
    assert_eq!(later.survey().unwrap().0, lm, "nobody asks for what nobody here knows");
    refused(v1::Surveyed::default().survey(), "what a judge tells is missing");
    let many = Survey { samples: vec![1; 65], ..lm.clone() };
    refused(v1::Surveyed::new(many, Vec::new()).survey(), "samples of 65 datasets");
    let mut twice = v1::Surveyed::new(lm.clone(), Vec::new());
    if let Some(v1::surveyed::Tallies::Figures(figures)) = &mut twice.tallies {
        figures.names.push("nll".into());
    }
    refused(twice.survey(), "a figure is named twice");
    let mut unknown = v1::Surveyed::new(lm, Vec::new());
    if let Some(v1::surveyed::Tallies::Figures(figures)) = &mut unknown.tallies {
        figures.metrics[0].formula = 9;
    }
    refused(unknown.survey(), "formula is unknown");
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, part: &str) {
    let error = result.unwrap_err();
    assert!(error.chain().contains(part), "{}", error.chain());
}

#[test]
fn malformed_messages_are_refused() {
    let wire = || v1::RunSpec::from(spec());
    refused(RunSpec::try_from(v1::RunSpec { recipe: None, ..wire() }), "recipe is missing");
    refused(RunSpec::try_from(v1::RunSpec { validation: None, ..wire() }), "no validation set given");
    refused(RunSpec::try_from(v1::RunSpec { batch_size: 0, ..wire() }), "--batch-size is 0");
    refused(RunSpec::try_from(v1::RunSpec { pool: vec![], ..wire() }), "no pool");
    let recipe = v1::Recipe { kind: 99, ..v1::Recipe::from(spec().recipe) };
    refused(RunSpec::try_from(v1::RunSpec { recipe: Some(recipe), ..wire() }), "recipe kind");
    refused(Soup::try_from(v1::Soup::default()), "no members");
    let nan = v1::Soup { members: vec![0], rows: vec![v1::WeightRow { weights: vec![f64::NAN] }] };
    refused(Soup::try_from(nan), "not finite");
    let short = v1::Outcomes { labels: vec![1], ..Default::default() };
    let short = v1::Evaluated { judged: Some(v1::evaluated::Judged::Outcomes(short)) };
    refused(Judged::try_from(short), "differ in length");
    refused(Judged::try_from(v1::Evaluated::default()), "what was judged is missing");
    refused(Tally::try_from(v1::Tally::default()), "a tally's kind is missing");
    let recipe = v1::Recipe { metric: "no metric".into(), ..v1::Recipe::from(spec().recipe) };
    refused(RunSpec::try_from(v1::RunSpec { recipe: Some(recipe), ..wire() }), "other characters");
    refused(sha256(&[0; 31]), "32 bytes");
    let tensor = v1::Tensor { name: "w".into(), dtype: "F3".into(), ..Default::default() };
    refused(TensorSpec::try_from(tensor), "unknown dtype");
    let stored = |tensor, dtype: &str| {
        let stored = vec![v1::StoredTensor { tensor, dtype: dtype.into() }];
        v1::IngredientReads { stored, ..Default::default() }.stored(2)
    };
    assert!(stored(1, "BF16").is_ok());
    refused(stored(2, "BF16"), "cannot be");
    refused(stored(0, "I64"), "cannot be");
    refused(stored(0, "F3"), "unknown dtype");
    refused(RunSpec::try_from(v1::RunSpec { missing: 0, ..wire() }), "missing tensors");
    refused(RunSpec::try_from(v1::RunSpec { out_dtype: "F3".into(), ..wire() }), "unknown dtype");
    refused(
        RunSpec::try_from(v1::RunSpec { out_dtype: "BF16".into(), ..wire() }),
        "--out-dtype is for soups",
    );
}

#[test]
fn a_schema_survives_with_whose_its_tensors_are() {
    let tensor = |name: &str| TensorSpec::new(name, Dtype::F32, [2, 3]);
    let schema = Schema::new(vec![tensor("a"), tensor("b")]).unwrap();
    let schema = schema.taking(&BTreeMap::from([("b", Ingredient(1))]));
    let begin = |ingredients: &[&str]| v1::BeginRun {
        tensors: tensors_of(&schema),
        ingredients: ingredients.iter().map(|&n| n.to_owned()).collect(),
        ..Default::default()
    };
    assert_eq!(begin(&["x", "y"]).schema().unwrap(), schema);
    refused(begin(&["x"]).schema(), "an ingredient that there is not");
}

#[test]
fn an_average_on_its_own_terms_survives() {
    let uniform = RecipeSpec { kind: RecipeKind::Uniform, learn: None, ..spec().recipe };
    let spec = RunSpec {
        recipe: uniform,
        validation: None,
        train: None,
        tests: vec![],
        diagnosis: DiagnosisSpec::default(),
        judge: None,
        numerics: None,
        batch_norm: None,
        calibration: None,
        missing: Missing::First,
        out_dtype: Some(Dtype::BF16),
        ..spec()
    };
    assert_eq!(RunSpec::try_from(v1::RunSpec::from(spec.clone())).unwrap(), spec);
}

#[test]
fn parts_of_steps_survive() {
    let w = |v| Weight::new(v).unwrap();
    let part = Differentiate {
        step: 3,
        part: 1,
        soup: Soup::uniform(3).unwrap(),
        beta: w(1.5),
        label_smoothing: w(0.1),
        scale: w(0.25),
        samples: vec![7, 2],
    };
    let wire = v1::Differentiate::from(&part);
    assert_eq!(Differentiate::try_from(wire.clone()).unwrap(), part);
    refused(Differentiate::try_from(v1::Differentiate { soup: None, ..wire.clone() }), "a soup is missing");
    refused(Differentiate::try_from(v1::Differentiate { beta: f64::NAN, ..wire }), "beta is not finite");
}

#[test]
fn comparisons_survive_and_crooked_ones_are_refused() {
    let score = Counts { total: 3, correct: 2, loss_sum: 0.5, confusion: [((0, 1), 1), ((1, 1), 2)].into() };
    let newton = Newton { gradient: vec![0.1, -0.2], curvature: vec![1.0, 0.5, 2.0] };
    let found = Alternatives {
        logits: score.clone(),
        vote: Counts { correct: 1, ..score.clone() },
        stacked: Counts { loss_sum: -0.0, ..score.clone() },
        newton,
        boosted: None,
        hits: Some(Hits::from_rows(2, vec![1, 3, 0]).unwrap()),
    };
    let wire = v1::Compared::from(&found);
    assert_eq!(Alternatives::try_from(wire.clone()).unwrap(), found);
    assert!(Alternatives::try_from(v1::Compared { gradient: vec![0.0], ..wire.clone() }).is_err());
    let voted = Alternatives { boosted: Some(score), hits: None, ..found };
    assert_eq!(Alternatives::try_from(v1::Compared::from(&voted)).unwrap(), voted);
    let third = v1::Compared { hits: vec![1, 4, 0], ..wire.clone() };
    refused(Alternatives::try_from(third), "not whole rows of 2 ingredients");
    let mut crooked = wire;
    crooked.vote.as_mut().unwrap().counts.pop();
    assert!(Alternatives::try_from(crooked).is_err());
}

#[test]
fn texts_of_failures_are_as_long_as_a_journal_bears() {
    let long = || "x".repeat(1 << 20);
    let kind = v1::failure::Kind::from(ErrorKind::Data).into();
    let heard = Error::from(v1::Failure { kind, message: long() });
    assert_eq!((heard.kind(), heard.chain().len()), (ErrorKind::Data, TEXT_BYTES_MAX));
    let said = v1::Failure::from(&Error::data(long()));
    assert_eq!((said.message.len(), said.kind), (TEXT_BYTES_MAX, kind));
}
