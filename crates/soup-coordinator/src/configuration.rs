//! What says which model an ingredient is, and how its images become pixels or its texts tokens: files beside the ingredients, or those
//! that were named instead.

use bytes::Bytes;
use serde_json::{Map, Value};
use soup_core::companion::{
    ADDED_TOKENS, CONFIG, IMAGES, OPEN_CLIP_CONFIG, PREPROCESSOR, PROCESSOR, PROMPTS, SPECIAL_TOKENS,
    TOKENIZER, TOKENIZER_CONFIG, is_open_clip, is_timm, named_twice, rename,
};
use soup_core::journal::sha256_hex;
use soup_core::metric::ClassMetric;
use soup_core::run::{NamedConfig, RunSpec};
use soup_core::schema::{Dtype, TensorSpec};
use soup_core::texts::added::TokenizerCompanions;
use soup_core::texts::{
    Decoding, PinnedFile, PromptProcessing, TextProcessing, answers, is_of_prompts, is_of_texts,
    tokenizer_notes,
};
use soup_core::transformers::Version;
use soup_core::{Error, Result};
use soup_store::checkpoint::Checkpoint;
use soup_store::pool;

/// The model's configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Text of `config.json`; empty where there is none and the native judge is not asked.
    pub model_json: String,
    /// Text of `preprocessor_config.json`, or a [`TextProcessing`] or [`PromptProcessing`] where the model looks at texts; likewise, and where `config.json` says
    /// itself how images become pixels.
    pub preprocessor_json: String,
    /// Files that go with the model: name and content.
    pub companions: Vec<(String, Bytes)>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// The configuration of a pool whose first ingredient is `first`.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a file that is missing or not UTF-8; otherwise what the store says.
pub async fn configuration(spec: &RunSpec, first: &Checkpoint) -> Result<Configuration> {
    let mut companions = pool::companions(first).await?;
    let own = own_config(&companions);
    refuse_quantized(spec, first, &own)?;
    // What another judge needs of them it says itself.
    let judged = spec.validation.as_ref().filter(|_| spec.judge.is_none());
    let mut notes: Vec<String> = renamed(spec, first, &companions)?.into_iter().collect();
    let model = match named(&spec.model_config, CONFIG, &mut companions)? {
        Some(model) => Some(model),
        None => {
            let other = named(&None, OPEN_CLIP_CONFIG, &mut companions)?;
            if judged.is_some() {
                may_be_read(first, CONFIG, false).await?;
                may_be_read(first, OPEN_CLIP_CONFIG, other.is_some()).await?;
            }
            other
        }
    };
    check_decoding(spec, model.as_deref())?;
    let of_texts = model.as_deref().is_some_and(is_of_texts);
    if judged.is_some() && spec.model_config.is_some() && !of_texts {
        notes.extend(other_pixels(&own, model.as_deref().unwrap_or_default(), &first.name)?);
    }
    let preprocessor = match judged {
        Some(_) if of_texts => Some(texts(spec, first, &companions).await?),
        Some(_) if model.as_deref().is_some_and(is_of_prompts) => {
            let own = model.as_deref().is_some_and(says_pixels);
            Some(prompts(spec, first, &mut companions, own).await?)
        }
        Some(_) => preprocessor(&spec.preprocessor_config, &mut companions)?,
        None => named(&spec.preprocessor_config, PREPROCESSOR, &mut companions)?,
    };
    // Averaging needs neither.
    let (model_json, preprocessor_json) = match judged {
        Some(_) => {
            may_be_read(first, PREPROCESSOR, preprocessor.is_some()).await?;
            let model = model.ok_or_else(|| no_config(first))?;
            // Empty: the model's own file says it.
            let own = || says_pixels(&model).then(String::new);
            let missing = || {
                let texts = of_other_texts(&first.name, &model, &companions);
                texts.unwrap_or_else(|| no_preprocessor(first))
            };
            let preprocessor = preprocessor.or_else(own).ok_or_else(missing)?;
            (model, preprocessor)
        }
        None => (model.unwrap_or_default(), preprocessor.unwrap_or_default()),
    };
    if judged.is_some() && (of_texts || is_of_prompts(&model_json)) {
        notes.extend(tokenizer_notes(tokenizer_companions(&model_json, &companions))?);
    }
    notes.extend(class_one(spec, &model_json));
    if let Some(dtype) = spec.out_dtype {
        state_dtype(&mut companions, dtype);
    }
    Ok(Configuration { model_json, preprocessor_json, companions, notes })
}

/// Of which class `binary-f1` is, where the native judge judges by it: a number means nothing to people, and another order of the same
/// names another figure.
fn class_one(spec: &RunSpec, model_json: &str) -> Option<String> {
    let asked = spec.recipe.metric.parts().any(|part| part == ClassMetric::BinaryF1.name());
    if !asked || spec.judge.is_some() || spec.validation.is_none() {
        return None;
    }
    let config: Value = serde_json::from_str(model_json).unwrap_or_default();
    Some(match config["id2label"]["1"].as_str() {
        Some(name) => format!("binary-f1 is of class 1, {name:?}"),
        None => "binary-f1 is of class 1, which config.json gives no name".to_owned(),
    })
}

/// Where a configuration says that weights are quantized, and how: transformers' name, an older one, and MLX's.
const QUANTIZED: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

/// Whether a tensor may hold weights that are packed into integers: counters, positions and masks have other types, or one dimension.
fn may_be_packed(tensor: &TensorSpec) -> bool {
    tensor.shape.len() > 1 && !tensor.dtype.is_float() && !matches!(tensor.dtype, Dtype::I64 | Dtype::Bool)
}

/// What `config.json` beside an ingredient says; null where there is none, or no JSON, which is refused by whoever needs it.
fn own_config(companions: &[(String, Bytes)]) -> Value {
    let own = companions.iter().find(|(name, _)| name == CONFIG).map(|(_, content)| content);
    own.and_then(|own| serde_json::from_slice(own).ok()).unwrap_or_default()
}

/// What people should know where a `config.json` was `named` instead of an ingredient's `own` one, whose version of transformers the file of the
/// image processor beside it is of.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) where the named one says no version, and images would be prepared as for another than
/// that in the own one.
fn other_pixels(own: &Value, named: &str, ingredient: &str) -> Result<Option<String>> {
    if !own.is_object() || says_pixels(named) {
        return Ok(None);
    }
    let named: Value = serde_json::from_str(named).unwrap_or_default();
    let [before, now] =
        [own, &named].map(|config| config.get("transformers_version").filter(|v| !v.is_null()));
    // What is no version is refused by whoever needs it.
    let versions = Version::of(before).zip(Version::of(now));
    if versions.is_none_or(|(before, now)| before.prepares_images_as(now)) {
        return Ok(None);
    }
    let before = before.map_or_else(|| "none".to_owned(), Value::to_string);
    match now {
        None => Err(Error::data(format!(
            "the {CONFIG} that --model-config names has no \"transformers_version\", and that of ingredient {ingredient:?} has {before}, by \
             which {IMAGES} means other pixels: say in it which version that file is of"
        ))),
        Some(now) => Ok(Some(format!(
            "the {CONFIG} that --model-config names has \"transformers_version\" {now}, by which {IMAGES} means other pixels than by that of \
             ingredient {ingredient:?} ({before}); images are prepared as for the former"
        ))),
    }
}

/// Refuses a quantized model, as its own `config` says: its integers would be one ingredient's, beside scales that are everybody's mean. One whose weights were
/// unpacked again may still say that it was.
fn refuse_quantized(spec: &RunSpec, first: &Checkpoint, config: &Value) -> Result<()> {
    let Some(packed) = first.schema.tensors().iter().find(|t| may_be_packed(t)) else { return Ok(()) };
    let known = |key: &str| spec.ignore_config.iter().any(|ignored| ignored == key);
    match QUANTIZED.into_iter().find(|key| config[*key].is_object() && !known(key)) {
        None => Ok(()),
        Some(key) => Err(Error::data(format!(
            "ingredient {:?} is quantized, as {key} in its {CONFIG} says, and has its weights in integers, such as tensor {:?} ({}): their \
             average is no model; dequantize the ingredients first (`model.dequantize()`) and save them again, or say --ignore-config {key} if you \
             know that all have the same there",
            first.name, packed.name, packed.dtype
        ))),
    }
}

/// What is to be said where a file was named that calls classes otherwise than the ingredient's own.
fn renamed(spec: &RunSpec, first: &Checkpoint, companions: &[(String, Bytes)]) -> Result<Option<String>> {
    let own = companions.iter().find(|(name, _)| name == CONFIG).map(|(_, content)| content);
    let (Some(given), Some(own)) = (&spec.model_config, own) else { return Ok(None) };
    // What is no JSON object is refused by whoever needs it.
    match (serde_json::from_str(&given.text), serde_json::from_slice(own)) {
        (Ok(given), Ok(own)) => rename(&given, (&first.name, &own), &spec.ignore_config),
        _ => Ok(None),
    }
}

/// Refuses what only a model that answers in words can be asked for.
fn check_decoding(spec: &RunSpec, model: Option<&str>) -> Result<()> {
    // Without a file it is said elsewhere what is missing.
    match spec.decoding.is_labels() || model.is_none_or(answers) {
        true => Ok(()),
        false => Err(Error::usage(format!(
            "--decoding {} is for models that answer in words (T5ForConditionalGeneration), and config.json tells of none: leave it out",
            spec.decoding.name()
        ))),
    }
}

/// Whether a model's own file says itself how images become pixels.
fn says_pixels(config_json: &str) -> bool {
    serde_json::from_str(config_json).is_ok_and(|config| is_timm(&config) || is_open_clip(&config))
}

/// Largest file whose text is told to every worker, in bytes.
const TOLD_BYTES_MAX: usize = 1 << 20;

/// The text of a file that is told to every worker.
fn told(name: &str, content: &Bytes) -> Result<String> {
    if content.len() > TOLD_BYTES_MAX {
        let bytes = content.len();
        return Err(Error::data(format!(
            "{name} has {bytes} bytes, and at most {TOLD_BYTES_MAX} are possible"
        )));
    }
    std::str::from_utf8(content)
        .map(str::to_owned)
        .map_err(|e| Error::data(format!("{name} is not UTF-8")).with_source(e))
}

/// How texts become tokens: by the files beside the ingredients.
async fn texts(spec: &RunSpec, first: &Checkpoint, companions: &[(String, Bytes)]) -> Result<String> {
    if let Some(NamedConfig { url, .. }) = &spec.preprocessor_config {
        return Err(Error::usage(format!(
            "--preprocessor-config {url} says how images become pixels, and the model is one of texts: leave it out"
        )));
    }
    TextProcessing { decoding: spec.decoding, ..tokenizer(first, companions).await? }.to_json()
}

/// How images and prompts become what a model takes, and which prompts there are: by the files beside the ingredients. Where the
/// model's `own` file says how images become pixels, nothing else has to.
async fn prompts(
    spec: &RunSpec,
    first: &Checkpoint,
    companions: &mut Vec<(String, Bytes)>,
    own: bool,
) -> Result<String> {
    let images = preprocessor(&spec.preprocessor_config, companions)?;
    may_be_read(first, PREPROCESSOR, images.is_some()).await?;
    let images = images.or_else(|| own.then(String::new)).ok_or_else(|| no_preprocessor(first))?;
    let Some((_, content)) = companions.iter().find(|(name, _)| name == PROMPTS) else {
        may_be_read(first, PROMPTS, false).await?;
        return Err(no_prompts(first));
    };
    let prompts = told(PROMPTS, content)?;
    let texts = tokenizer(first, companions).await?;
    PromptProcessing { images, texts, prompts }.to_json()
}

/// How texts become tokens.
async fn tokenizer(first: &Checkpoint, companions: &[(String, Bytes)]) -> Result<TextProcessing> {
    let found = |name: &str| companions.iter().find(|(n, _)| n == name).map(|(_, content)| content);
    let place = pool::place_of(first, TOKENIZER).await?;
    let (Some(tokenizer), Some(place)) = (found(TOKENIZER), place) else {
        may_be_read(first, TOKENIZER, false).await?;
        return Err(no_tokenizer(first));
    };
    let config = found(TOKENIZER_CONFIG).map(|content| told(TOKENIZER_CONFIG, content)).transpose()?;
    let tokenizer = PinnedFile {
        url: place.to_string(),
        size_bytes: tokenizer.len() as u64,
        sha256: sha256_hex(tokenizer),
    };
    Ok(TextProcessing { tokenizer, tokenizer_config: config, decoding: Decoding::default() })
}

/// The files that tell of a tokenizer.
fn tokenizer_companions<'a>(
    model_json: &'a str,
    companions: &'a [(String, Bytes)],
) -> TokenizerCompanions<'a> {
    let found =
        |name: &str| companions.iter().find(|(n, _)| n == name).map_or(&[][..], |(_, content)| content);
    TokenizerCompanions {
        model: model_json.as_bytes(),
        tokenizer: found(TOKENIZER),
        config: found(TOKENIZER_CONFIG),
        special: found(SPECIAL_TOKENS),
        added: found(ADDED_TOKENS),
    }
}

/// Has `config.json` state the dtype of the soup, where it states one: whoever loads a model goes by it.
fn state_dtype(companions: &mut [(String, Bytes)], dtype: Dtype) {
    let torch = match dtype {
        Dtype::F64 => "float64",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    };
    fn state(value: &mut Value, torch: &str) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(named) if key == "torch_dtype" || key == "dtype" => {
                            torch.clone_into(named)
                        }
                        other => state(other, torch),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| state(item, torch)),
            _ => {}
        }
    }
    for (_, content) in companions.iter_mut().filter(|(name, _)| name == CONFIG) {
        if let Ok(mut config) = serde_json::from_slice::<Value>(content) {
            let before = config.clone();
            state(&mut config, torch);
            if config != before {
                *content = format!("{config:#}\n").into();
            }
        }
    }
}

/// Says so if a file that is needed is missing because it may not be read.
async fn may_be_read(first: &Checkpoint, name: &str, found: bool) -> Result<()> {
    if found {
        return Ok(());
    }
    match pool::why_missing(first, name).await {
        None => Ok(()),
        Some(denied) => Err(denied.context(match name {
            CONFIG | OPEN_CLIP_CONFIG => "let it be read, or name a configuration with --model-config",
            TOKENIZER | PROMPTS => "let it be read",
            _ => "let it be read, or name one with --preprocessor-config",
        })),
    }
}

/// How images become pixels: from the file that was named, else from `preprocessor_config.json`, else from the part of
/// `processor_config.json` that is about images.
fn preprocessor(
    given: &Option<NamedConfig>,
    companions: &mut Vec<(String, Bytes)>,
) -> Result<Option<String>> {
    if given.is_some() {
        // What was named replaces both.
        companions.retain(|(name, _)| name != PROCESSOR);
    }
    let flat = named(given, PREPROCESSOR, companions)?;
    if given.is_some()
        && let Some(nested) = flat.as_deref().and_then(image_processor)
    {
        let text = Value::Object(nested).to_string();
        companions.retain(|(name, _)| name != PREPROCESSOR);
        companions.push((PREPROCESSOR.to_owned(), text.clone().into()));
        return Ok(Some(text));
    }
    let nested = named(&None, PROCESSOR, companions)?;
    let Some(nested) = nested.as_deref().and_then(image_processor) else { return Ok(flat) };
    let Some(flat) = flat else { return Ok(Some(Value::Object(nested).to_string())) };
    agree(&flat, &nested)?;
    Ok(Some(flat))
}

/// The part of a `processor_config.json` that is about images.
fn image_processor(text: &str) -> Option<Map<String, Value>> {
    let mut all: Map<String, Value> = serde_json::from_str(text).ok()?;
    match all.remove("image_processor")? {
        Value::Object(nested) => Some(nested),
        _ => None,
    }
}

/// Refuses two files that say different things about the same; what only one of them says is no contradiction.
fn agree(flat: &str, nested: &Map<String, Value>) -> Result<()> {
    let flat: Map<String, Value> = serde_json::from_str(flat)
        .map_err(|e| Error::data(format!("{PREPROCESSOR} is not a JSON object")).with_source(e))?;
    // Which program wrote a file says nothing about pixels.
    let about_pixels =
        |key: &str| !key.starts_with('_') && !key.ends_with("_type") && !key.ends_with("_class");
    let other =
        |(key, value): &(&String, &Value)| about_pixels(key) && nested.get(*key).is_some_and(|n| n != *value);
    match flat.iter().find(other) {
        None => Ok(()),
        Some((key, value)) => Err(Error::data(format!(
            "{PREPROCESSOR} has {key} {value}, and {PROCESSOR} beside it {}: name one of them with --preprocessor-config",
            nested[key]
        ))),
    }
}

fn no_config(first: &Checkpoint) -> Error {
    Error::data(format!(
        "found no config.json beside ingredient {:?} or in the folder above it: name one with --model-config",
        first.name
    ))
}

fn no_tokenizer(first: &Checkpoint) -> Error {
    Error::data(format!(
        "found no {TOKENIZER} beside ingredient {:?} or in the folder above it, so how texts become tokens is not known (a vocabulary alone \
         does not say): save one there with save_pretrained of a fast tokenizer of transformers",
        first.name
    ))
}

fn no_prompts(first: &Checkpoint) -> Error {
    Error::data(format!(
        "found no {PROMPTS} beside ingredient {:?} or in the folder above it: the model compares images with texts and has no classes \
         but those that it tells of, as {{\"classes\": [\"tench\", …], \"templates\": [\"a photo of a {{}}.\", …]}}",
        first.name
    ))
}

fn no_preprocessor(first: &Checkpoint) -> Error {
    Error::data(format!(
        "found no preprocessor_config.json (nor a processor_config.json with an image processor, nor MLflow's \
         components/image_processor) beside ingredient {:?} or in the folder above it, so how images become pixels is not known: name one with --preprocessor-config",
        first.name
    ))
}

/// The same where the files tell of a model of texts, which is none that tells their classes apart: what is missing is not how images
/// become pixels.
fn of_other_texts(ingredient: &str, model_json: &str, companions: &[(String, Bytes)]) -> Option<Error> {
    let has_tokenizer = companions.iter().any(|(name, _)| name == TOKENIZER || name == TOKENIZER_CONFIG);
    let config: Value = serde_json::from_str(model_json).unwrap_or_default();
    let architecture = config["architectures"].get(0).and_then(Value::as_str);
    let name = architecture.or_else(|| config["model_type"].as_str()).filter(|_| has_tokenizer)?;
    Some(Error::data(format!(
        "the model of ingredient {ingredient:?} is a {name} by its {CONFIG}, and has a tokenizer and no {PREPROCESSOR}: of models of \
         texts the native judge knows some that are called …ForSequenceClassification, and T5ForConditionalGeneration (--judge names who \
         judges others); of one of images --preprocessor-config says how these become pixels"
    )))
}

/// A configuration file: the one that is given, which then replaces the one found beside the pool, else the found one.
fn named(
    given: &Option<NamedConfig>,
    name: &str,
    companions: &mut Vec<(String, Bytes)>,
) -> Result<Option<String>> {
    if let Some(NamedConfig { url, text }) = given {
        if text.is_empty() {
            return Err(Error::configuration(format!(
                "an older version submitted this run with the name of its {name}, {url:?}, and not with its text: submit it again"
            )));
        }
        companions.retain(|(n, _)| n != name);
        companions.push((name.to_owned(), text.clone().into()));
    }
    let Some((_, content)) = companions.iter().find(|(n, _)| n == name) else { return Ok(None) };
    let text = std::str::from_utf8(content)
        .map_err(|e| Error::data(format!("{name} is not UTF-8")).with_source(e))?;
    match named_twice(content) {
        None => Ok(Some(text.to_owned())),
        Some(key) => Err(Error::data(format!(
            "{name} has {key:?} twice in one object, and which of the two is meant is not known: leave one out"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use soup_core::texts::added;

    use super::*;

    fn files(files: &[(&str, &str)]) -> Vec<(String, Bytes)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), Bytes::from((*text).to_owned()))).collect()
    }

    #[test]
    fn preprocessing_is_found_in_either_file_and_both_have_to_agree() {
        let of = |found: &[(&str, &str)]| preprocessor(&None, &mut files(found));
        let nested = r#"{"processor_class": "P", "image_processor": {"image_processor_type": "A", "do_resize": true}}"#;
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[(PROCESSOR, r#"{"processor_class": "P"}"#)]).unwrap(), None);
        let found = of(&[(PROCESSOR, nested)]).unwrap().unwrap();
        assert_eq!(found, r#"{"do_resize":true,"image_processor_type":"A"}"#);
        let flat = r#"{"image_processor_type": "AFast", "do_resize": true, "size": 3}"#;
        assert_eq!(of(&[(PREPROCESSOR, flat), (PROCESSOR, nested)]).unwrap().as_deref(), Some(flat));
        let other = r#"{"do_resize": false}"#;
        let error = of(&[(PREPROCESSOR, other), (PROCESSOR, nested)]).unwrap_err().chain();
        assert!(error.contains("do_resize false") && error.contains("--preprocessor-config"), "{error}");
    }

    #[test]
    fn a_model_of_texts_that_is_not_judged_is_refused_by_its_name() {
        let of = |model: &str, beside: &[(&str, &str)]| {
            of_other_texts("a0", model, &files(beside)).map(|e| e.chain()).unwrap_or_default()
        };
        let tokenizer = &[(TOKENIZER, "{}")];
        let mt5 = of(r#"{"architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5"}"#, tokenizer);
        assert!(
            mt5.starts_with(
                "the model of ingredient \"a0\" is a MT5ForConditionalGeneration by its config.json"
            ),
            "{mt5}"
        );
        assert!(mt5.contains("and T5ForConditionalGeneration (--judge names who judges others)"), "{mt5}");
        assert!(of(r#"{"model_type": "umt5"}"#, &[(TOKENIZER_CONFIG, "{}")]).contains("is a umt5 by its"));
        // Nothing says that it is one of texts, or what it is.
        assert_eq!(of(r#"{"architectures": ["ViTForImageClassification"]}"#, &[]), "");
        assert_eq!(of("{}", tokenizer), "");
    }

    #[test]
    fn tokens_that_files_beside_a_tokenizer_name_are_noted() {
        let bert = r#"{"model_type": "bert"}"#;
        let of = |more: &[(&str, &str)]| {
            let vocabulary = (TOKENIZER, r#"{"added_tokens": [], "model": {"vocab": {"good": 0}}}"#);
            added::notes(tokenizer_companions(bert, &files(&[&[vocabulary], more].concat())))
        };
        assert_eq!(of(&[]), [""; 0]);
        for file in [
            (ADDED_TOKENS, r#"{"good": 0}"#),
            (SPECIAL_TOKENS, r#"{"cls_token": "good"}"#),
            (TOKENIZER_CONFIG, r#"{"cls_token": "good"}"#),
        ] {
            assert!(of(&[file])[0].contains("\"good\""), "{file:?}");
        }
    }

    #[test]
    fn a_named_config_says_of_which_version_images_are() {
        let of = |own: Value, named: &str| other_pixels(&own, named, "a0");
        let five = || serde_json::json!({ "transformers_version": "5.24.0" });
        let error = of(five(), r#"{"model_type": "vit"}"#).unwrap_err().chain();
        assert!(error.contains("no \"transformers_version\"") && error.contains("\"5.24.0\""), "{error}");
        let four = r#"{"transformers_version": "4.57.6"}"#;
        let note = of(five(), four).unwrap().unwrap();
        assert!(note.contains("\"4.57.6\", by which") && note.contains("\"a0\" (\"5.24.0\")"), "{note}");
        let note = of(serde_json::json!({}), r#"{"transformers_version": "5.24.0"}"#).unwrap().unwrap();
        assert!(note.contains("(none)"), "{note}");
        for (own, named) in [
            (five(), r#"{"transformers_version": "5.21.0"}"#),
            (Value::Null, four),
            (serde_json::json!({}), four),
            (serde_json::json!({ "transformers_version": "4.57.6" }), "{}"),
            (five(), r#"{"architecture": "vit_tiny_patch16_224"}"#),
        ] {
            assert_eq!(of(own, named).unwrap(), None, "{named}");
        }
    }

    #[test]
    fn what_is_said_twice_is_refused() {
        let twice = r#"{"image_mean": [0.1], "do_resize": false, "image_mean": [0.2]}"#;
        let error = preprocessor(&None, &mut files(&[(PREPROCESSOR, twice)])).unwrap_err().chain();
        assert!(error.starts_with("preprocessor_config.json has \"image_mean\" twice"), "{error}");
    }

    /// A run that is judged.
    fn judged() -> RunSpec {
        let spec = serde_json::json!({
            "pool": ["/p"], "recipe": {
                "kind": "uniform", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                "passes": 1, "metric": "accuracy"
            },
            "validation": { "name": "v", "url": "/v" }, "tests": [], "output": "/o", "overwrite": false, "batch_size": 1,
            "allow_nan": false, "baselines": false, "workers_min": 1, "model_config": null, "preprocessor_config": null,
            "decoding": "greedy"
        });
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_class_of_a_figure_of_one_is_named() {
        let note = |metric: &str, model: &str, judge: Option<&str>| {
            let mut spec = RunSpec { judge: judge.map(str::to_owned), ..judged() };
            spec.recipe.metric = metric.parse().unwrap();
            class_one(&spec, model)
        };
        let named = r#"{"id2label": {"0": "negative", "1": "positive"}}"#;
        assert_eq!(note("binary-f1", named, None).unwrap(), "binary-f1 is of class 1, \"positive\"");
        assert!(note("glue/mrpc", "{}", None).unwrap().ends_with("which config.json gives no name"));
        assert_eq!(note("macro-f1", named, None), None);
        assert_eq!(note("binary-f1", named, Some("lm")), None, "that judge's figure is its own");
    }

    #[test]
    fn only_what_answers_is_decoded() {
        let spec = judged();
        check_decoding(&spec, Some(r#"{"model_type": "t5"}"#)).unwrap();
        let bert = Some(r#"{"model_type": "bert"}"#);
        let error = check_decoding(&spec, bert).unwrap_err().chain();
        assert!(error.starts_with("--decoding greedy is for models that answer in words"), "{error}");
        check_decoding(&RunSpec { decoding: Decoding::Labels, ..spec }, bert).unwrap();
    }

    #[test]
    fn what_was_named_replaces_what_is_beside_the_pool_and_is_never_looked_for() {
        let given = |text: &str| Some(NamedConfig { url: "/etc/passwd".to_owned(), text: text.to_owned() });
        let mut found = files(&[(CONFIG, "{}"), ("vocab.txt", "a")]);
        assert_eq!(named(&given("{\"a\": 1}"), CONFIG, &mut found).unwrap().unwrap(), "{\"a\": 1}");
        assert_eq!(found, files(&[("vocab.txt", "a"), (CONFIG, "{\"a\": 1}")]));
        let error = named(&given(""), CONFIG, &mut found).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
        assert!(error.chain().contains("submit it again"), "{}", error.chain());
    }
}
