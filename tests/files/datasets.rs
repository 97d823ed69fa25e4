//! Classes, splits and images: what a dataset's names and files mean.

use serde_json::json;
use soup_tests::Output;

use crate::fixture::{CLASSES, Place, animals, copy, noted};

/// Demands that a cook scored all of `total` samples right.
#[track_caller]
fn all_right(output: &Output, total: u64) -> serde_json::Value {
    let result = output.json();
    assert_eq!((&result["score"]["correct"], &result["score"]["total"]), (&total.into(), &total.into()));
    result
}

fn upper(class: usize) -> Option<String> {
    Some(CLASSES[class].to_uppercase())
}

#[test]
fn folders_are_the_models_classes_by_name_whatever_their_case() {
    let place = Place::with(&["a"]);
    place.images("exact", |c| Some(CLASSES[c].to_owned()));
    place.images("upper", upper);
    for folder in ["exact", "upper"] {
        assert_eq!(all_right(&place.cook(&["--validation", folder]), 12)["notes"], json!([]));
    }
}

#[test]
fn folders_that_are_numbers_are_the_models_numbers() {
    let place = Place::with(&["a"]);
    place.images("plain", |c| Some(c.to_string()));
    place.images("padded", |c| Some(format!("{c:04}")));
    for folder in ["plain", "padded"] {
        noted(&all_right(&place.cook(&["--validation", folder]), 12), &["called by numbers"]);
    }
    // Counted from one: the last one is no class.
    place.images("from-one", |c| Some((c + 1).to_string()));
    place.cook(&["--validation", "from-one"]).fails(65, &["\"12\"", "0 to 11"]);
}

#[test]
fn a_class_that_is_missing_does_not_shift_the_others() {
    let place = Place::with(&["a"]);
    place.images("images", |c| (CLASSES[c] != "seal").then(|| CLASSES[c].to_owned()));
    noted(&all_right(&place.cook(&["--validation", "images"]), 11), &["11 of the model's 12 classes"]);
    place.images("numbers", |c| (c != 4).then(|| c.to_string()));
    all_right(&place.cook(&["--validation", "numbers"]), 11);
}

#[test]
fn folders_that_are_no_class_are_refused_by_name() {
    let place = Place::with(&["a"]);
    place.images("plural", |c| Some(format!("{}s", CLASSES[c])));
    place.cook(&["--validation", "plural"]).fails(65, &["\"lynxs\"", "more", "\"zebra\"", "--model-config"]);
    place.images("one", |c| Some(if c == 3 { "stoat".to_owned() } else { CLASSES[c].to_owned() }));
    place.cook(&["--validation", "one"]).fails(65, &["\"stoat\"", "\"vole\""]);
    place.images("twice", upper);
    place.images("twice", |c| (c == 0).then(|| "zebra".to_owned()));
    place.cook(&["--validation", "twice"]).fails(65, &["\"ZEBRA\"", "\"zebra\"", "class 0"]);
}

#[test]
fn wordnet_ids_need_a_model_that_knows_them() {
    let place = Place::with(&["a"]);
    place.images("wordnet", |c| Some(format!("n{:08}", 1_440_764 + c)));
    place.cook(&["--validation", "wordnet"]).fails(65, &["WordNet", "label2id", "n01440764"]);
    place.change_json("pool/a/config.json", |config| {
        for class in 0..12 {
            config["label2id"][format!("n{:08}", 1_440_764 + class)] = class.into();
        }
    });
    all_right(&place.cook(&["--validation", "wordnet"]), 12);
}

#[test]
fn a_model_whose_classes_have_no_names_is_told_what_was_assumed() {
    let place = Place::with(&["a"]);
    place.change_json("pool/a/config.json", |config| {
        config["id2label"] = (0..12).map(|c| (c.to_string(), json!(format!("LABEL_{c}")))).collect();
        config["label2id"] = json!({});
    });
    place.images("images", |c| Some(CLASSES[c].to_owned()));
    // The model numbers its classes against the alphabet.
    let result = place.cook(&["--validation", "images"]).json();
    assert_eq!(result["score"]["correct"], 0);
    noted(&result, &["no names", "by the alphabet", "\"lynx\""]);
    place.images("some", |c| (c > 2).then(|| CLASSES[c].to_owned()));
    place.cook(&["--validation", "some"]).fails(65, &["9 folders", "12 classes without names"]);
    place.images("numbers", |c| Some(c.to_string()));
    all_right(&place.cook(&["--validation", "numbers"]), 12);
}

#[test]
fn predictions_among_the_classes_of_a_subset_are_asked_for() {
    let place = Place::with(&["a"]);
    place.images("images", |c| (c % 2 == 0).then(|| CLASSES[c].to_owned()));
    let all = all_right(&place.cook(&["--validation", "images"]), 6);
    let among = all_right(&place.cook(&["--validation", "images", "--class-subset"]), 6);
    noted(&all, &["among all (--class-subset"]);
    noted(&among, &["among those"]);
    // Fewer classes to be mistaken for: the loss is smaller.
    let loss = |result: &serde_json::Value| result["score"]["loss"].as_f64().unwrap();
    assert!(loss(&among) < loss(&all), "{among} {all}");
    let numbers = animals().join("validation.parquet");
    let args = ["--validation", numbers.to_str().unwrap(), "--class-subset"];
    place.cook(&args).fails(65, &["no class names", "--class-subset"]);
}

#[test]
fn of_several_splits_one_has_to_be_named() {
    let place = Place::with(&["a"]);
    let rows = std::fs::read(animals().join("validation.parquet")).unwrap();
    for split in ["train", "validation", "test"] {
        place.write(&format!("repo/data/{split}-00000-of-00001.parquet"), &rows);
    }
    place.write("repo/README.md", "a dataset");
    place.cook(&["--validation", "repo"]).fails(2, &["test, train, validation", "URL#validation"]);
    all_right(&place.cook(&["--validation", "repo#validation"]), 12);
    all_right(&place.cook(&["--validation", "repo#val"]), 12);
    place.cook(&["--validation", "repo#extra"]).fails(2, &["no split \"extra\"", "test, train, validation"]);
    place.write("cook.yaml", "pool: pool\nvalidation: {url: repo, split: test}\n");
    let plan = place.call(&["plan", "-f", "cook.yaml", "-o", "json"]).json();
    assert_eq!(plan["datasets"][0]["samples"], 12);
}

#[test]
fn a_glob_chooses_files_of_data_at_any_depth() {
    let place = Place::with(&["a"]);
    let rows = std::fs::read(animals().join("validation.parquet")).unwrap();
    for path in
        ["repo/data/train-0-of-1.parquet", "repo/data/validation-0-of-1.parquet", "repo/x/y/z.parquet"]
    {
        place.write(path, &rows);
    }
    for glob in ["repo/data/validation-*.parquet", "repo/*/val*.parquet", "repo/**/z.parquet", "repo/x/**"] {
        all_right(&place.cook(&["--validation", glob]), 12);
    }
    all_right(&place.cook(&["--validation", "repo/data/*#validation"]), 12);
    place.cook(&["--validation", "repo/data/*"]).fails(2, &["train, validation"]);
    place.cook(&["--validation", "repo/*.csv"]).fails(65, &["no file matches", "repo/*.csv"]);
}

#[test]
fn image_folders_have_splits_too() {
    let place = Place::with(&["a"]);
    place.images("repo/train", upper);
    place.images("repo/val", upper);
    place.cook(&["--validation", "repo"]).fails(2, &["train, validation"]);
    all_right(&place.cook(&["--validation", "repo#val"]), 12);
    all_right(&place.cook(&["--validation", "repo/val"]), 12);
}

#[test]
fn a_file_with_a_number_sign_in_its_name_is_that_file() {
    let place = Place::with(&["a"]);
    let rows = std::fs::read(animals().join("validation.parquet")).unwrap();
    place.write("set#test/0.parquet", rows);
    all_right(&place.cook(&["--validation", "set#test"]), 12);
}

#[test]
fn preprocessing_is_never_assumed() {
    let place = Place::with(&["a"]);
    std::fs::remove_file(place.ingredient("a").join("preprocessor_config.json")).unwrap();
    place.cook_all(&[]).fails(65, &["preprocessor_config.json", "\"a\"", "--preprocessor-config"]);
    let named = animals().join("m0/preprocessor_config.json");
    all_right(&place.cook_all(&["--preprocessor-config", named.to_str().unwrap()]), 12);
}

#[test]
fn preprocessing_is_found_where_newer_programs_write_it() {
    let place = Place::with(&["a"]);
    let file = place.ingredient("a").join("preprocessor_config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let flat: serde_json::Value = serde_json::from_str(&text).unwrap();
    let nested = json!({ "processor_class": "AnimalProcessor", "image_processor": flat });
    std::fs::remove_file(file).unwrap();
    place.write("named.json", nested.to_string());
    all_right(&place.cook_all(&["--preprocessor-config", "named.json"]), 12);
    place.write("pool/a/processor_config.json", nested.to_string());
    all_right(&place.cook_all(&[]), 12);
    // Two files that contradict each other.
    place.write("pool/a/preprocessor_config.json", text.replace("0.7", "0.6"));
    place.cook_all(&[]).fails(65, &["image_mean", "processor_config.json", "--preprocessor-config"]);
    std::fs::remove_file(place.ingredient("a").join("preprocessor_config.json")).unwrap();
    // A processor without images.
    place.write("pool/a/processor_config.json", r#"{ "processor_class": "AnimalProcessor" }"#);
    place.cook_all(&[]).fails(65, &["--preprocessor-config"]);
}

#[test]
fn mlflow_keeps_preprocessing_in_a_component() {
    let place = Place::with(&[]);
    for (run, component) in [("1", "image_processor"), ("2", "feature_extractor")] {
        let model = place.path().join(format!("runs/{run}/artifacts/model"));
        copy(&animals().join("m0"), &model);
        let file = model.join("preprocessor_config.json");
        place.write(
            &format!("runs/{run}/artifacts/components/{component}/preprocessor_config.json"),
            std::fs::read(&file).unwrap(),
        );
        std::fs::remove_file(file).unwrap();
    }
    let validation = animals().join("validation.parquet");
    let args = ["--pool", "runs/*/artifacts/model", "--validation", validation.to_str().unwrap()];
    let lean = ["cook", "--recipe", "uniform", "--workers", "1", "--threads", "1", "--memory", "100MiB"];
    let out = ["--fresh", "--quiet", "-o", "json", "--output", "soup", "--overwrite"];
    let cook = || place.call(&[&lean[..], &args, &out].concat());
    all_right(&cook(), 12);
    assert!(place.path().join("soup/preprocessor_config.json").is_file());
    place.change_json("runs/2/artifacts/components/feature_extractor/preprocessor_config.json", |p| {
        p["image_std"] = json!([0.3, 0.2, 0.5]);
    });
    cook().fails(65, &["image_std", "\"2\""]);
}

#[test]
fn options_that_may_change_pixels_are_not_ignored() {
    let place = Place::with(&["a"]);
    for (key, value) in [("do_sharpen", json!(true)), ("crop_pct", json!(0.9)), ("num_channels", json!(1))] {
        let before = std::fs::read(place.ingredient("a").join("preprocessor_config.json")).unwrap();
        place.change_json("pool/a/preprocessor_config.json", |p| p[key] = value);
        place.cook_all(&[]).fails(65, &[key]);
        place.write("pool/a/preprocessor_config.json", before);
    }
}

#[test]
fn scores_among_fewer_classes_are_not_recalled_as_others() {
    let place = Place::with(&["a"]);
    place.images("images", |c| (c % 2 == 0).then(|| CLASSES[c].to_owned()));
    let cook = |more: &[&str]| {
        let args = ["cook", "--pool", "pool", "--recipe", "uniform", "--workers", "1", "--threads", "1"];
        let rest = ["--memory", "100MiB", "--quiet", "-o", "json", "--state-url", "state", "--overwrite"];
        let set = ["--validation", "images", "--output", "soup"];
        let result = place.call(&[&args[..], &rest[..], &set[..], more].concat()).json();
        result["score"]["loss"].as_f64().unwrap()
    };
    let all = cook(&[]);
    assert!(cook(&["--class-subset"]) < all);
}

#[test]
fn files_are_of_a_split_by_any_word_of_their_names() {
    let place = Place::with(&["a"]);
    let rows = std::fs::read(animals().join("validation.parquet")).unwrap();
    for path in ["words/animals_train.parquet", "words/animals-val.parquet"] {
        place.write(path, &rows);
    }
    place.cook(&["--validation", "words"]).fails(2, &["train, validation"]);
    all_right(&place.cook(&["--validation", "words#val"]), 12);
    for path in ["configs/en/test-00000-of-00001.parquet", "configs/fr/test-00000-of-00002.parquet"] {
        place.write(path, &rows);
    }
    place.cook(&["--validation", "configs"]).fails(2, &["\"en\"", "\"fr\""]);
    noted(
        &all_right(&place.cook(&["--validation", "configs/fr"]), 12),
        &["1 of the 2 files of split \"test\""],
    );
    place.write("twice/test-0-of-1.parquet", &rows);
    place.write("twice/test-0-of-2.parquet", &rows);
    place.cook(&["--validation", "twice"]).fails(65, &["same samples twice"]);
}

#[test]
fn data_beside_parquet_files_is_counted() {
    let place = Place::with(&["a"]);
    let rows = std::fs::read(animals().join("validation.parquet")).unwrap();
    place.write("set/0.parquet", rows);
    place.write("set/1.parquet.gz", "x");
    place.write("set/README.md", "x");
    noted(&all_right(&place.cook(&["--validation", "set"]), 12), &["1 other files", "1.parquet.gz"]);
}

#[test]
fn images_that_cannot_be_decoded_matter_where_they_are_samples() {
    let place = Place::with(&["a"]);
    place.images("repo/train", upper);
    place.images("repo/val", upper);
    place.write("repo/logo.gif", "a picture of the authors");
    place.write("repo/train/SEAL/y.gif", "an image");
    noted(&all_right(&place.cook(&["--validation", "repo#val"]), 12), &["no class's folder", "logo.gif"]);
    place.cook(&["--validation", "repo#train"]).fails(65, &["train/SEAL/y.gif"]);
    // Images right in the folders of splits have no labels.
    place.write("flat/train/x.png", "an image");
    place.write("flat/val/x.png", "an image");
    place.cook(&["--validation", "flat"]).fails(65, &["no labels", "splits (train, val)"]);
}

#[test]
fn grey_images_of_16_bits_are_refused() {
    let place = Place::with(&["a"]);
    place.images("images", upper);
    let mut png = std::io::Cursor::new(Vec::new());
    let image = image::ImageBuffer::from_fn(16, 16, |x, _| image::Luma([x as u16 * 4096]));
    image::DynamicImage::ImageLuma16(image).write_to(&mut png, image::ImageFormat::Png).unwrap();
    place.write("images/SEAL/deep.png", png.into_inner());
    place.cook(&["--validation", "images"]).fails(65, &["SEAL/deep.png", "16-bit"]);
}

#[test]
fn what_has_no_classes_is_not_scored() {
    let place = Place::with(&["a"]);
    for (key, value, part) in [
        ("problem_type", json!("regression"), "regression"),
        ("problem_type", json!("multi_label_classification"), "multi_label"),
        ("id2label", json!({ "0": "price" }), "expected [1, 16] by config.json"),
    ] {
        let before = std::fs::read(place.ingredient("a").join("config.json")).unwrap();
        place.change_json("pool/a/config.json", |config| config[key] = value);
        place.cook_all(&[]).fails(65, &[part]);
        place.write("pool/a/config.json", before);
    }
}

#[test]
fn a_damaged_image_is_named_by_its_path() {
    let place = Place::with(&["a"]);
    place.images("images", upper);
    place.write("images/SEAL/x.png", b"not an image");
    place.cook(&["--validation", "images"]).fails(65, &["image \"SEAL/x.png\"", "cannot be"]);
}

#[test]
fn a_truncated_jpeg_is_refused() {
    let place = Place::with(&["a"]);
    let mut jpeg = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    image.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    place.write("images/seal/whole.jpg", &jpeg);
    assert_eq!(place.cook(&["--validation", "images"]).code, 0);
    place.write("images/seal/whole.jpg", &jpeg[..jpeg.len() * 2 / 3]);
    place.cook(&["--validation", "images"]).fails(65, &["image \"seal/whole.jpg\"", "truncated"]);
}

#[test]
fn images_that_cannot_be_decoded_are_refused_and_other_files_counted() {
    let place = Place::with(&["a"]);
    place.images("images", upper);
    place.write("images/SEAL/notes.txt", "wet");
    place.write("images/SEAL/._x.png", "of macOS");
    place.write("images/SEAL/Thumbs.db", "of Windows");
    noted(&all_right(&place.cook(&["--validation", "images"]), 12), &["1 files are no images", "notes.txt"]);
    place.write("images/SEAL/y.tiff", "an image");
    place.cook(&["--validation", "images"]).fails(65, &["SEAL/y.tiff", "cannot be decoded"]);
}

#[test]
fn hidden_files_beside_parquet_files_are_left_out() {
    let place = Place::with(&["a"]);
    let rows = std::fs::read(animals().join("validation.parquet")).unwrap();
    place.write("set/0.parquet", rows);
    place.write("set/._0.parquet", b"\0\x05\x16\x07");
    place.write("set/.cache/0.parquet", b"x");
    all_right(&place.cook(&["--validation", "set"]), 12);
}

#[test]
fn what_needs_no_parameter_is_found_by_plan_and_before_anything_is_loaded() {
    let find = |place: &Place, parts: &[&str]| {
        let validation = animals().join("validation.parquet");
        let output = place.call(&["plan", "--pool", "pool", "--validation", validation.to_str().unwrap()]);
        output.fails(65, parts);
        place.cook_all(&[]).fails(65, parts);
    };
    let place = Place::with(&["a", "b"]);
    let both = |change: &dyn Fn(&mut serde_json::Value), file: &str| {
        for name in ["a", "b"] {
            place.change_json(&format!("pool/{name}/{file}"), change);
        }
    };
    both(&|p| p["image_processor_type"] = json!("LevitImageProcessor"), "preprocessor_config.json");
    find(&place, &["LevitImageProcessor"]);
    both(&|p| p["image_processor_type"] = json!("ViTImageProcessor"), "preprocessor_config.json");
    both(&|c| c["architectures"] = json!(["BertModel"]), "config.json");
    find(&place, &["BertModel", "unknown architecture"]);
    // Nothing was loaded: an ingredient whose parameters are all NaN would be named first.
    both(&|c| c["architectures"] = json!(["ViTForImageClassification"]), "config.json");
    let swapped = ["plan", "--pool", "pool", "--validation", "set.yaml"];
    place.write("set.yaml", "no data");
    place.call(&swapped).fails(65, &["neither .parquet files nor images"]);
}
