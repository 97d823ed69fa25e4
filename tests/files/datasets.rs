//! Classes, splits and images: what a dataset's names and files mean.

use serde_json::json;
use soup_tests::Output;

use crate::fixture::{CLASSES, Place, animals, noted};

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
fn what_has_no_classes_is_not_scored() {
    let place = Place::with(&["a"]);
    for (key, value, part) in [
        ("problem_type", json!("regression"), "regression"),
        ("problem_type", json!("multi_label_classification"), "multi_label"),
        ("id2label", json!({ "0": "price" }), "one class"),
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
    both(&|p| p["image_processor_type"] = json!("ConvNextImageProcessor"), "preprocessor_config.json");
    find(&place, &["ConvNextImageProcessor"]);
    both(&|p| p["image_processor_type"] = json!("ViTImageProcessor"), "preprocessor_config.json");
    both(&|c| c["architectures"] = json!(["BertModel"]), "config.json");
    find(&place, &["BertModel", "unknown architecture"]);
    // Nothing was loaded: an ingredient whose parameters are all NaN would be named first.
    both(&|c| c["architectures"] = json!(["ViTForImageClassification"]), "config.json");
    let swapped = ["plan", "--pool", "pool", "--validation", "set.yaml"];
    place.write("set.yaml", "no data");
    place.call(&swapped).fails(65, &["neither .parquet files nor images"]);
}
