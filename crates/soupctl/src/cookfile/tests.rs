use soup_core::ErrorKind;

use soup_core::recipe::given::GivenWeight;

use super::*;
use crate::choices::{BatchNormName, DecodingName, DtypeName, MissingName, RecipeName};

/// The error of a cook file with this text.
#[track_caller]
fn refused(text: &str, expect: &[&str]) {
    let error = CookOptions::parse(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    for part in expect {
        assert!(error.chain().contains(part), "{:?} does not say {part:?}", error.chain());
    }
}

const EVERY_KEY: &str = "pool: [a, b]\nvalidation: {url: v, split: val, image-column: i, label-column: l, limit: 7, options: {text-column: s}}\ntest:\n  z: t1\n  a: {url: t2}\n\
    model-config: c\npreprocessor-config: p\nignore-config: hidden_act\nclass-subset: true\nweights-file: w\ningredient-weights: {a: 0.5, b: {x: 1}}\nallow-nan: true\nrecipe: best-single\norder: random\nranked-by: r\naccept: better\nalpha: 0.1\n\
    seed: 3\nmax-ingredients: 4\npasses: 5\nmetric: macro-f1\noutput: o\nsigning-key: k\noverwrite: true\nbatch-size: 6\n\
    no-baselines: true\ngate: [test>=0.85, \"v <= 1%\"]\nevaluate: full\ndecoding: greedy\ndigest: blake3\nlookahead: 2\naudit: 2%\nworkers: 3\nmemory: 8GiB\ndisk-cache: /cache\ndisk: 1TiB\n\
    threads: 2\ndevice: cpu\ndevice-memory: 80GiB\nprecision: bf16\nnumerics: cuda\ncoordinator: h:1\nlisten: h:2\n\
    judge: lm\njudge-dir: /d\njudge-timeout: 90\n\
    min-workers: 1\ntrain: t\ntrain-share: 0.25\ngranularity: layer\nweights: sum-to-one\noptimizer: adamw\n\
    lr: 0.1\nschedule: cosine\nwarmup: 0.2\nclip: 1\nepochs: 2\nmini-batch: 64\nparts: 4\nshuffle: false\n\
    label-smoothing: 0.1\ninit: greedy\nfold-beta: true\ndiagnose: full\nbase: t0\nrequire-shared-init: true\n\
    missing: skip\nbatch-norm: first\ncalibration: cal\nout-dtype: bfloat16\n";

/// A dataset with all that can be said of one.
fn validation() -> DatasetEntry {
    DatasetEntry {
        url: "v".into(),
        split: Some("val".into()),
        image_column: Some("i".into()),
        label_column: Some("l".into()),
        limit: Some(7),
        options: [("text-column".to_owned(), "s".to_owned())].into(),
    }
}

fn ingredient_weights() -> WeightTable {
    WeightTable::from([
        ("a".to_owned(), GivenWeight::Model(0.5)),
        ("b".to_owned(), GivenWeight::Parts([("x".to_owned(), 1.0)].into())),
    ])
}

/// What they say.
#[allow(clippy::too_many_lines)] // a list of all there are
fn every_value() -> CookOptions {
    let set = |url: &str| DatasetEntry { url: url.into(), ..DatasetEntry::default() };
    CookOptions {
        pool: vec!["a".into(), "b".into()],
        validation: Some(validation()),
        // The file's order, not the alphabet's.
        test: vec![("z".into(), set("t1")), ("a".into(), set("t2"))],
        model_config: Some("c".into()),
        preprocessor_config: Some("p".into()),
        ignore_config: vec!["hidden_act".into()],
        class_subset: Some(true),
        weights_file: Some("w".into()),
        ingredient_weights: Some(ingredient_weights()),
        allow_nan: Some(true),
        missing: Some(MissingName::Skip),
        batch_norm: Some(BatchNormName::First),
        calibration: Some(set("cal")),
        out_dtype: Some(DtypeName::Bf16),
        recipe: Some(RecipeName::BestSingle),
        order: Some(CandidateOrder::Random),
        ranked_by: Some("r".into()),
        accept: Some(AcceptRule::Better),
        alpha: Some(0.1),
        seed: Some(3),
        max_ingredients: Some(4),
        passes: Some(5),
        metric: Some("macro-f1".parse().unwrap()),
        output: Some("o".into()),
        overwrite: Some(true),
        state_url: None,
        signing_key: Some("k".into()),
        fresh: None,
        batch_size: Some(6),
        no_baselines: Some(true),
        gate: vec!["test>=0.85".parse().unwrap(), "v <= 1%".parse().unwrap()],
        evaluate: Some(EvaluateName::Full),
        decoding: Some(DecodingName::Greedy),
        digest: Some(DigestName::Blake3),
        lookahead: Some(Lookahead::Trials(2)),
        audit: Some(Share(20_000)),
        workers: Some(3),
        memory: Some(Bytes(8 << 30)),
        disk_cache: Some("/cache".into()),
        disk: Some(Bytes(1 << 40)),
        threads: Some(2),
        device: Some("cpu".into()),
        device_memory: Some(Bytes(80 << 30)),
        precision: Some("bf16".into()),
        numerics: Some("cuda".into()),
        judge: Some("lm".parse().unwrap()),
        judge_dir: Some("/d".into()),
        judge_timeout: Some(Millis(90_000)),
        coordinator: Some("h:1".into()),
        listen: Some("h:2".into()),
        min_workers: Some(1),
        train: Some(set("t")),
        train_share: Some(0.25),
        granularity: Some(GranularityName::Layer),
        weights: Some(WeightRuleName::SumToOne),
        optimizer: Some(OptimizerName::Adamw),
        lr: Some(0.1),
        schedule: Some(ScheduleName::Cosine),
        warmup: Some(0.2),
        clip: Some(1.0),
        epochs: Some(2),
        mini_batch: Some(64),
        parts: Some(4),
        shuffle: Some(false),
        label_smoothing: Some(0.1),
        init: Some(InitName::Greedy),
        fold_beta: Some(true),
        diagnose: Some(DiagnosisName::Full),
        base: Some("t0".into()),
        require_shared_init: Some(true),
    }
}

#[test]
fn every_key_is_read() {
    let options = CookOptions::parse(EVERY_KEY).unwrap();
    let expected = every_value();
    assert_eq!(options, expected);
    // Nothing is lost where flags say nothing, and everything where they say something.
    assert_eq!(CookOptions::default().or(expected.clone()), expected);
    assert_eq!(
        expected.clone().or(CookOptions { seed: Some(9), pool: vec!["c".into()], ..Default::default() }),
        expected
    );
}

#[test]
fn unknown_keys_are_named() {
    refused("pool: a\nrecipee: greedy\n", &["recipee"]);
    refused("pool: a\nvalidation: {url: v, image_column: x}\n", &["image_column", "image-column"]);
    refused("test:\n  a: {url: v, lable: x}\n", &["lable"]);
}

#[test]
fn wrong_values_are_refused() {
    refused("recipe: greeedy\n", &["greeedy", "best-single"]);
    refused("judge: lm=cmd:rm -rf /\n", &["does not say what it is"]);
    refused("judge-timeout: soon\n", &["soon", "90s"]);
    refused("memory: lots\n", &["lots", "8GiB"]);
    refused("seed: -1\n", &["line 1"]);
    refused("batch-size: many\n", &["line 1"]);
    refused("pool: {a: b}\n", &["a URL, or a list of them"]);
    refused("test: [a]\n", &[]);
    refused("- a\n", &[]);
    refused("pool: [a\n", &[]);
    refused("", &["empty"]);
    refused("# nothing\n\n", &["empty"]);
}

#[test]
fn repeated_keys_are_refused() {
    refused("seed: 1\nseed: 2\n", &["seed"]);
    refused("test:\n  a: x\n  a: y\n", &["a"]);
}

#[test]
fn datasets_of_the_judge_are_no_paths() {
    let text = "validation: lm:gsm8k/dev\ntest: {a: lm:x, b: lx:y, c: lm}\njudge: lm\n";
    let mut options = CookOptions::parse(text).unwrap();
    let judge = options.judge.clone();
    options.resolve(Path::new("/d"), judge.as_ref()).unwrap();
    let tests: Vec<&str> = options.test.iter().map(|(_, set)| set.url.as_str()).collect();
    assert_eq!(options.validation.unwrap().url, "lm:gsm8k/dev");
    assert_eq!(tests, ["lm:x", "/d/lx:y", "/d/lm"]);
}

#[test]
fn paths_are_relative_to_their_source() {
    let check =
        |text: &str, expect: &str| assert_eq!(absolute(Path::new("/base/dir"), text).unwrap(), expect);
    check(".", "/base/dir");
    check("data/val.parquet", "/base/dir/data/val.parquet");
    check("./a/./b/../c", "/base/dir/a/c");
    check("../x", "/base/x");
    check("../../../x", "/x");
    check("/abs", "/abs");
    check("*.safetensors", "/base/dir/*.safetensors");
    check("s3://bucket/a/../b", "s3://bucket/a/../b");
    check("memory:///a", "memory:///a");
    check("1://x", "/base/dir/1:/x");
}

#[test]
fn files_are_named_in_errors_and_resolved_against_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let folder_path = folder.path().canonicalize().unwrap();
    let file = folder_path.join("cook.yaml");
    std::fs::write(&file, "pool: .\nvalidation: data/v\ntest: {a: s3://b/t}\noutput: ../out\n").unwrap();
    let options = CookOptions::read(&file, None).unwrap();
    let root = folder_path.to_str().unwrap();
    assert_eq!(options.pool, [root]);
    assert_eq!(options.validation.unwrap().url, format!("{root}/data/v"));
    assert_eq!(options.test[0].1.url, "s3://b/t");
    assert_eq!(Path::new(&options.output.unwrap()), folder_path.parent().unwrap().join("out"));
    std::fs::create_dir_all(folder_path.join("far/away")).unwrap();
    std::os::unix::fs::symlink("far/away", folder_path.join("link")).unwrap();
    std::fs::write(&file, "pool: link/../pool\n").unwrap();
    assert_eq!(CookOptions::read(&file, None).unwrap().pool, [format!("{root}/far/pool")]);
    for place in
        ["pool: ~/pool", "validation: ~/v", "test: {a: $HOME/t}", "output: ~/soups/x", "state-url: $HOME/s"]
    {
        std::fs::write(&file, format!("{place}\n")).unwrap();
        let error = CookOptions::read(&file, None).unwrap_err();
        assert!(error.chain().contains("which no shell has replaced"), "{}", error.chain());
    }

    std::fs::write(&file, "pol: .\n").unwrap();
    let error = CookOptions::read(&file, None).unwrap_err().chain();
    assert!(error.contains("cook.yaml") && error.contains("pol"), "{error}");
    let error = CookOptions::read(&folder_path.join("none.yaml"), None).unwrap_err();
    assert!(error.kind() == ErrorKind::Usage && error.chain().contains("none.yaml"), "{}", error.chain());
}

#[test]
fn the_schema_has_every_key() {
    let schema = serde_json::to_value(schemars::schema_for!(CookOptions)).unwrap();
    let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(schema["additionalProperties"], serde_json::json!(false));
    let command = <CookOptions as clap::Args>::augment_args(clap::Command::new("cook"));
    for argument in command.get_arguments().filter_map(|a| a.get_long()) {
        assert!(keys.iter().any(|k| *k == argument), "{argument} is a flag, but not a key");
    }
    // What is a file on the command line can be written out in a cook file.
    let written_out = ["ingredient-weights"];
    assert_eq!(keys.len(), command.get_arguments().count() + written_out.len());
    assert!(written_out.iter().all(|key| keys.iter().any(|k| k == key)));
}

#[test]
fn a_judges_dataset_without_its_judge_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lm:file"), "").unwrap();
    let resolved = |url: &str, judge: Option<&str>| {
        let mut options = CookOptions::parse(&format!("pool: p\nvalidation: {url:?}\n")).unwrap();
        let judge = judge.map(|name| name.parse().unwrap());
        options.resolve(folder.path(), judge.as_ref()).map(|()| options.validation.unwrap().url)
    };
    let error = resolved("lm:dev", None).unwrap_err().chain();
    assert!(error.contains("judge \"lm\"") && error.contains("--judge"), "{error}");
    assert_eq!(resolved("lm:dev", Some("lm")).unwrap(), "lm:dev");
    let absolute = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(resolved("lm:file", None).unwrap(), absolute("lm:file"));
    assert_eq!(resolved("data/a:b", None).unwrap(), absolute("data/a:b"));
    assert_eq!(resolved("s3://b/c", None).unwrap(), "s3://b/c");
}
