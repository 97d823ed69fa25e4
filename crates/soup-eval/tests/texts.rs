//! Texts in Parquet, and what becomes of them: read, made tokens, judged.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod pool;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use soup_core::run::DatasetOptions;
use soup_core::texts::Decoding;
use soup_core::weights::Weights;
use soup_core::{ErrorKind, Result};
use soup_eval::{
    Budget, Dataset, Evaluator, EvaluatorSpec, Input, InputKind, LocalFiles, LossSpec, Predictions, Prepared,
    Target, TokenizerFiles, evaluator,
};

/// The pool of reviews.
fn reviews(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pools/bert-reviews").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(reviews(name)).unwrap()
}

/// The pool of reviews of which a model answers what they are.
fn answers(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pools/t5-reviews").join(name)
}

fn evaluator_of(config_json: String, batch_size: u32) -> Result<Box<dyn Evaluator>> {
    let tokenizer = TokenizerFiles {
        tokenizer_json: text("tokenizer.json").into(),
        config_json: Some(text("tokenizer_config.json")),
    };
    evaluator(&EvaluatorSpec {
        config_json,
        tokenizer: Some(tokenizer),
        batch_size,
        ..EvaluatorSpec::default()
    })
}

fn open(path: &Path, evaluator: &dyn Evaluator, options: &DatasetOptions) -> Result<Dataset> {
    let files = Arc::new(LocalFiles::new(path));
    let mut dataset = Dataset::open_of(files, options, Budget::default(), InputKind::Texts)?;
    dataset.align(evaluator.class_names(), false)?;
    Ok(dataset)
}

/// A Parquet file of pairs whose labels are names; a `None` is null.
fn pairs(rows: &[(Option<&str>, &str, &str)]) -> tempfile::TempDir {
    let schema = "message m { optional binary premise (UTF8); required binary hypothesis (UTF8); \
                  required binary label (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = |text: &str| ByteArray::from(text.as_bytes().to_vec());
    let premises: Vec<ByteArray> = rows.iter().filter_map(|r| r.0.map(bytes)).collect();
    let levels: Vec<i16> = rows.iter().map(|r| i16::from(r.0.is_some())).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&premises, Some(&levels), None).unwrap();
    column.close().unwrap();
    for texts in
        [rows.iter().map(|r| bytes(r.1)).collect::<Vec<_>>(), rows.iter().map(|r| bytes(r.2)).collect()]
    {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.parquet"), writer.into_inner().unwrap()).unwrap();
    dir
}

#[test]
fn pairs_come_from_parquet_with_names_for_labels() {
    let evaluator = evaluator_of(text("config.json"), 4).unwrap();
    let of = |rows: &[(Option<&str>, &str, &str)]| {
        let dir = pairs(rows);
        open(dir.path(), &*evaluator, &DatasetOptions::default())?.read(0..rows.len() as u64).map(|samples| {
            let shown = |input: &Input, target: &Target| match (input, target) {
                (Input::Text { first, second }, Target::Class(class)) => {
                    format!("{first}|{}={class}", second.clone().unwrap_or_default())
                }
                _ => "no text".to_owned(),
            };
            samples.iter().map(|s| shown(&s.input, &s.target)).collect::<Vec<_>>()
        })
    };
    let rows = [(Some("a"), "b", "positive"), (Some("é"), "", "Negative"), (Some(""), "c", "1")];
    assert_eq!(of(&rows).unwrap(), ["a|b=1", "é|=0", "|c=1"]);
    let refused = |rows: &[(Option<&str>, &str, &str)]| {
        let error = of(rows).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        error.chain()
    };
    assert!(refused(&[rows[0], (None, "b", "positive")]).contains("row 1 has no text: it is null"));
    assert!(refused(&[rows[0], (Some("a"), "b", "so-so")]).contains("row 1: label \"so-so\" is no class"));
}

/// What a model that predicts a number should say to one text in Parquet with this label, whose column is declared so.
fn number<T: DataType>(label: T::T, declared: &str, names: Option<&str>) -> std::result::Result<f64, String> {
    let schema = format!("message m {{ required binary text (UTF8); required {declared}; }}");
    let info =
        format!(r#"{{"info": {{"features": {{"label": {{"names": {}}}}}}}}}"#, names.unwrap_or("null"));
    let about = vec![parquet::file::metadata::KeyValue::new("huggingface".to_owned(), info)];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(about)).build();
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from("fine")], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&[label], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.parquet"), writer.into_inner().unwrap()).unwrap();
    let one = text("config.json").replace("\"1\": \"positive\"", "").replace("\"negative\",", "\"negative\"");
    let one = one.replace("single_label_classification", "regression");
    let evaluator = evaluator_of(one, 4).map_err(|e| e.chain())?;
    let opened = open(dir.path(), &*evaluator, &DatasetOptions::default());
    let samples = opened.and_then(|dataset| dataset.read(0..1)).map_err(|e| e.chain())?;
    match samples[0].target {
        Target::Number(number) => Ok(number),
        Target::Class(class) => Err(format!("class {class}")),
    }
}

#[test]
fn a_schema_that_would_take_a_stack_or_all_memory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.parquet");
    // A repetition, a name of one letter, and the number of fields.
    let element = |fields: &[u8]| [&[0x35, 0, 0x18, 1, b'a', 0x15][..], fields, &[0]].concat();
    let file = |count: &[u8], elements: &[u8]| {
        let metadata = [&[0x15, 2, 0x19, 0xfc][..], count, elements, &[0x16, 0, 0x19, 0xc, 0]].concat();
        let bytes = (metadata.len() as u32).to_le_bytes();
        std::fs::write(&path, [b"PAR1", &metadata[..], &bytes, b"PAR1"].concat()).unwrap();
    };
    let refused = || {
        let files = Arc::new(LocalFiles::new(dir.path()));
        let options = DatasetOptions::default();
        let error = Dataset::open_of(files, &options, Budget::default(), InputKind::Texts).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Data);
        error.chain()
    };
    file(&[0xa0, 0x8d, 6], &element(&[2]).repeat(100_000));
    let deep = refused();
    assert!(deep.contains("v.parquet") && deep.contains("nested more than 64 deep"), "{deep}");
    file(&[1], &element(&[0xfe, 0xff, 0xff, 0xff, 0xf]));
    let wide = refused();
    assert!(wide.contains("v.parquet") && wide.contains("claims 2147483647 fields"), "{wide}");
}

#[test]
fn numbers_come_from_columns_of_any_type_that_says_them() {
    assert_eq!(number::<DoubleType>(3.8, "double label", None), Ok(3.8));
    assert_eq!(number::<FloatType>(2.5, "float score", None), Ok(2.5));
    assert_eq!(number::<Int32Type>(-4, "int32 label", None), Ok(-4.0));
    assert_eq!(number::<ByteArrayType>("4.25".into(), "binary label (UTF8)", None), Ok(4.25));
    let refused = |got: std::result::Result<f64, String>, part: &str| {
        assert!(got.as_ref().is_err_and(|error| error.contains(part)), "{got:?}");
    };
    refused(number::<DoubleType>(f64::NAN, "double label", None), "row 0: has no label: it is NaN");
    refused(number::<ByteArrayType>("four".into(), "binary label (UTF8)", None), "\"four\" is no number");
    let stars = Some(r#"["1 star", "2 stars"]"#);
    refused(number::<Int32Type>(1, "int32 label", stars), "has classes, such as \"1 star\"");
    let decimal = number::<Int32Type>(38, "int32 label (DECIMAL(3, 1))", None);
    refused(decimal, "column \"label\" is DECIMAL, expected signed integers or floating-point numbers");
}

#[test]
fn labels_of_classes_are_no_fractions() {
    let evaluator = evaluator_of(text("config.json"), 4).unwrap();
    let ratings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pools/bert-ratings/data");
    let error = open(&ratings.join("test.parquet"), &*evaluator, &DatasetOptions::default()).err().unwrap();
    assert!(
        error.chain().contains("column \"label\" is DOUBLE, expected integers, or names of classes"),
        "{error:?}"
    );
    let error = open(&ratings.join("test.jsonl"), &*evaluator, &DatasetOptions::default()).err().unwrap();
    assert!(error.chain().contains("no column of labels but score"), "{error:?}");
    let named = DatasetOptions { label_column: Some("score".to_owned()), ..DatasetOptions::default() };
    let lines = open(&ratings.join("test.jsonl"), &*evaluator, &named).unwrap();
    let error = lines.read(0..1).unwrap_err().chain();
    assert!(error.contains("line 1: has no label: it is"), "{error}");
}

/// The same reviews in Parquet and as tab-separated values are the same samples, whatever is prepared with them.
#[test]
fn both_forms_of_a_dataset_are_the_same_samples() {
    let evaluator = evaluator_of(text("config.json"), 16).unwrap();
    let options = DatasetOptions::default();
    let [parquet, tabs] = ["parquet", "tsv"]
        .map(|form| open(&reviews(&format!("data/test.{form}")), &*evaluator, &options).unwrap());
    assert_eq!((parquet.len(), tabs.len()), (400, 400));
    let all = evaluator.prepare(&parquet, 0..400).unwrap();
    assert_eq!(evaluator.prepare(&tabs, 0..400).unwrap(), all);
    assert_eq!(evaluator.prepare(&tabs, 17..31).unwrap(), all.pick(17..31).unwrap());
    assert_eq!(evaluator.look_over(&tabs).unwrap(), [""; 0], "nothing is cut");
    let (schema, bytes) = pool::parameters_in(&reviews("ingredients/m0.safetensors"));
    let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
    let logits = model.logits(&all, 0..400, &|| false).unwrap();
    let right = all.outcomes(0..400, &logits).unwrap().iter().filter(|o| o.label == o.prediction).count();
    assert!(right > 300, "{right}");
}

/// What PyTorch counts of the first ingredient; labels become tokens by the tokenizer, as if somebody had said which.
#[test]
fn a_model_answers_with_the_names_of_its_classes() {
    let text = |name: &str| std::fs::read_to_string(answers(name)).unwrap();
    let tokenizer = TokenizerFiles {
        tokenizer_json: text("tokenizer.json").into(),
        config_json: Some(text("tokenizer_config.json")),
    };
    let of = |config_json: String, label_tokens: Vec<Vec<u32>>| {
        let tokenizer = Some(tokenizer.clone());
        evaluator(&EvaluatorSpec { config_json, tokenizer, label_tokens, ..EvaluatorSpec::default() })
    };
    let by_name = of(text("config.json"), Vec::new()).unwrap();
    let dataset = open(&answers("data/val.jsonl"), &*by_name, &DatasetOptions::default()).unwrap();
    let all = by_name.prepare(&dataset, 0..320).unwrap();
    let (schema, bytes) = pool::parameters_in(&answers("ingredients/m0.safetensors"));
    let logits = |evaluator: &dyn Evaluator| {
        let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        model.logits(&all, 0..320, &|| false).unwrap()
    };
    let scores = logits(&*by_name);
    let outcomes = all.outcomes(0..320, &scores).unwrap();
    assert_eq!(outcomes.iter().filter(|o| o.label == o.prediction).count(), 241);
    let loss = outcomes.iter().map(|o| o.loss).sum::<f64>() / 320.0;
    assert!((loss - 0.527_178_062).abs() < 1e-5, "{loss}");
    // As the library of tokenizers in Python has them.
    let (no, yes) = (vec![3, 19, 4, 30, 11, 8, 37, 1], vec![162, 5, 12, 8, 37, 1]);
    let by_tokens = of(text("config.json"), vec![no.clone(), yes.clone()]).unwrap();
    assert_eq!(logits(&*by_tokens), scores);
    assert_ne!(logits(&*of(text("config.json"), vec![yes, no]).unwrap()), scores);
    let unnamed =
        text("config.json").replace("\"negative\"", "\"LABEL_0\"").replace("\"positive\"", "\"LABEL_1\"");
    let error = of(unnamed, Vec::new()).err().unwrap().chain();
    assert!(error.contains("id2label has no names for the 2 classes"), "{error}");
    let same = text("config.json").replace("\"positive\"", "\"negative\"");
    let error = of(same, Vec::new()).err().unwrap().chain();
    assert!(error.contains("cannot be told apart"), "{error}");
}

/// Tiny models with random parameters write what transformers has them write: labels, beginnings of labels, longer answers.
#[test]
fn what_a_model_writes_is_what_transformers_has_it_write() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read = |name: &str| std::fs::read_to_string(golden.join(name)).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&read("answers.json")).unwrap();
    for (case, of) in cases.as_object().unwrap() {
        let tokens = |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(of[key].clone()).unwrap() };
        let mut config: serde_json::Value =
            serde_json::from_str(&read(&format!("models/{case}/config.json"))).unwrap();
        config["eos_token_id"] = of["end"].clone();
        let labelled = |decoding| {
            let spec = EvaluatorSpec {
                config_json: config.to_string(),
                label_tokens: tokens("labels"),
                decoding,
                batch_size: 16,
                ..EvaluatorSpec::default()
            };
            evaluator(&spec).unwrap()
        };
        let (greedy, by_labels) = (labelled(Decoding::Greedy), labelled(Decoding::Labels));
        let classes = tokens("labels").len();
        assert_eq!((greedy.classes(), greedy.predictions()), (classes as u32, classes as u32 + 1));
        assert_eq!(by_labels.predictions(), classes as u32);
        let texts = tokens("texts");
        let (count, texts) = (texts.len(), texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let samples = Prepared::from_tokens(&texts, vec![0; count]).unwrap();
        let (schema, bytes) = pool::parameters_in(&golden.join(format!("models/{case}/model.safetensors")));
        let rows = |evaluator: &dyn Evaluator| {
            let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
            model.logits(&samples, 0..count, &|| false).unwrap()
        };
        let (answers, logits) = (rows(&*greedy), rows(&*by_labels));
        let said: Vec<u32> = serde_json::from_value(of["said"].clone()).unwrap();
        let labels: Vec<f32> = answers.chunks(classes + 1).flat_map(|row| row[..classes].to_vec()).collect();
        assert_eq!(labels, logits, "{case}: probabilities are the same");
        let of_labels = samples.outcomes(0..count, &logits).unwrap();
        let samples = samples.clone().predicting(Predictions::Answers);
        let outcomes = samples.outcomes(0..count, &answers).unwrap();
        let predictions: Vec<u32> = outcomes.iter().map(|o| o.prediction).collect();
        assert_eq!(predictions, said, "{case}");
        assert!((0..=classes).all(|class| said.contains(&(class as u32))), "{case}: {said:?}");
        assert!(outcomes.iter().zip(&of_labels).all(|(a, b)| a.loss == b.loss), "{case}");
        let loss = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };
        let error = greedy.differentiate(&schema, &bytes, &samples, 0..1, &loss, &|| false).unwrap_err();
        assert!(error.chain().contains("an answer has no gradient"), "{}", error.chain());
    }
}

#[test]
fn what_does_not_answer_is_not_decoded() {
    let config_json = text("config.json");
    let spec = EvaluatorSpec { config_json, decoding: Decoding::Greedy, ..EvaluatorSpec::default() };
    let error = evaluator(&spec).err().unwrap().chain();
    assert!(error.starts_with("BertForSequenceClassification does not answer in words"), "{error}");
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let small = text("config.json").replace("\"vocab_size\": ", "\"vocab_size\": 20, \"was\": ");
    let evaluator = evaluator_of(small, 4).unwrap();
    let dataset = open(&reviews("data/val.jsonl"), &*evaluator, &DatasetOptions::default()).unwrap();
    let error = evaluator.prepare(&dataset, 0..1).unwrap_err().chain();
    assert!(error.contains("line 1: its token ") && error.contains("not one of the model's 20"), "{error}");
}
