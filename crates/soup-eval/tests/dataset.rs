//! Datasets: the checked-in Parquet files, and folders made on the spot.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod pool;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use image::{GrayImage, ImageFormat, Luma};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use soup_core::run::DatasetOptions;
use soup_core::{ErrorKind, Result};
use soup_eval::{
    Classes, Dataset, EvaluatorSpec, FileEntry, Files, Input, LocalFiles, Sample, Target, evaluator,
};

fn open(path: &std::path::Path, options: &DatasetOptions) -> Result<Dataset> {
    Dataset::open(Arc::new(LocalFiles::new(path)), options)
}

fn image_of(sample: &Sample) -> &Bytes {
    let Input::Image(image) = &sample.input else { panic!("{sample:?}") };
    image
}

fn class_of(sample: &Sample) -> u32 {
    let Target::Class(class) = sample.target else { panic!("{sample:?}") };
    class
}

fn refused(path: &std::path::Path, options: &DatasetOptions) -> String {
    let error = open(path, options).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Data);
    error.chain()
}

#[test]
fn parquet_has_rows_labels_and_names() {
    let dataset = pool::dataset("val");
    assert_eq!(dataset.len(), 2000);
    assert_eq!(dataset.label_names().unwrap()[9], "Ankle boot");
    let all = dataset.read(0..2000).unwrap();
    assert_eq!(all.len(), 2000);
    assert!(all.iter().all(|s| class_of(s) < 10 && image_of(s).starts_with(b"\x89PNG")));
    for range in [0..1, 1999..2000, 777..1333, 5..5] {
        assert_eq!(dataset.read(range.clone()).unwrap()[..], all[range.start as usize..range.end as usize]);
    }
    assert_eq!(dataset.read(0..2001).unwrap_err().kind(), ErrorKind::Internal);
}

/// Files with changed bits, which make the reader below panic, or read what is not there.
#[test]
fn what_the_reader_of_parquet_trips_over_is_refused() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, expect) in [
        ("indices-without-a-dictionary", "a page refers to a dictionary that there is not"),
        ("page-without-its-header", "not a readable Parquet file"),
        // This one would keep it busy for hours.
        ("header-of-a-billion-numbers", "unexpected end of file"),
    ] {
        let dataset = open(&folder.join(name).with_extension("parquet"), &DatasetOptions::default()).unwrap();
        let of = |start: u64| dataset.read(start..dataset.len().min(start + 16)).err();
        let error = of(0).or_else(|| of(dataset.len().saturating_sub(16))).unwrap();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.chain().contains(expect), "{}", error.chain());
    }
}

/// Archives that webdataset and Python's tarfile wrote are the same five samples, whatever their labels are written in.
#[test]
fn archives_are_read_as_they_are_written() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/archives");
    let names = ["cat", "dog", "owl"].map(str::to_owned).to_vec();
    let classes = Classes::new(names, &BTreeMap::new());
    let read = |path: &std::path::Path, options: &DatasetOptions| {
        let mut dataset = open(path, options).unwrap();
        dataset.align(&classes, false).unwrap();
        (dataset.read(0..dataset.len()).unwrap(), dataset.notes().to_vec(), dataset.place(4))
    };
    let plain = DatasetOptions::default();
    let (numbers, notes, place) = read(&folder.join("numbers.tar"), &plain);
    assert_eq!(numbers.iter().map(class_of).collect::<Vec<_>>(), [2, 0, 1, 1, 0]);
    assert!(numbers.iter().all(|s| image_of(s).starts_with(b"\x89PNG")) && notes.is_empty());
    assert!(place.ends_with("archive \"numbers.tar\" sample \"000004\""), "{place}");
    for name in ["keys", "names", "ustar", "pax", "gnu"] {
        let (samples, notes, _) = read(&folder.join(name).with_extension("tar"), &plain);
        assert_eq!(samples, numbers, "{name}");
        let left_out = "members of its archives that are neither image nor label were left out: .seg.png";
        let others = ["keys", "names"].contains(&name);
        assert_eq!(notes, [left_out].map(str::to_owned)[..if others { 0 } else { 1 }], "{name}");
    }
    // A folder of them is one dataset, in the order of their names.
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [("numbers", "train/1"), ("keys", "val/1"), ("keys", "val/0")] {
        let to = dir.path().join(to).with_extension("tar");
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(folder.join(from).with_extension("tar"), to).unwrap();
    }
    std::fs::write(dir.path().join("classnames.txt"), "cat\ndog\nowl\n").unwrap();
    let error = open(dir.path(), &plain).err().unwrap();
    assert!(error.chain().contains("several splits (train, validation)"), "{}", error.chain());
    let val = DatasetOptions { named_split: Some("val".into()), limit: Some(7), ..plain };
    let (seven, _, place) = read(dir.path(), &val);
    assert_eq!((seven[..5].to_vec(), seven[5..].to_vec()), (numbers.to_vec(), numbers[..2].to_vec()));
    assert!(place.contains("val/0.tar"), "{place}");
}

#[test]
fn a_limit_takes_the_first_rows() {
    let ten = DatasetOptions { limit: Some(10), ..DatasetOptions::default() };
    let few = pool::dataset_with("val", &ten);
    assert_eq!(few.len(), 10);
    assert_eq!(few.read(0..10).unwrap(), pool::dataset("val").read(0..10).unwrap());
    assert!(few.read(0..11).is_err());
    let more = DatasetOptions { limit: Some(5000), ..DatasetOptions::default() };
    assert_eq!(pool::dataset_with("val", &more).len(), 2000);
}

#[test]
fn several_files_are_one_dataset_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::copy(pool::path("data/test_blurred.parquet"), dir.path().join("data/1.parquet")).unwrap();
    std::fs::copy(pool::path("data/test_noisy.parquet"), dir.path().join("data/0.parquet")).unwrap();
    std::fs::write(dir.path().join("README.md"), "no data").unwrap();
    let both = open(dir.path(), &DatasetOptions::default()).unwrap();
    assert_eq!(both.len(), 2000);
    let across = both.read(995..1005).unwrap();
    assert_eq!(across[..5], pool::dataset("test_noisy").read(995..1000).unwrap()[..]);
    assert_eq!(across[5..], pool::dataset("test_blurred").read(0..5).unwrap()[..]);
}

#[test]
fn missing_columns_are_named_with_those_there_are() {
    let path = pool::path("data/val.parquet");
    let label = DatasetOptions { label_column: Some("class".into()), ..DatasetOptions::default() };
    let text = refused(&path, &label);
    assert!(text.contains("has no labels: no column class among image, label"), "{text}");
    let image = DatasetOptions { image_column: Some("picture".into()), ..DatasetOptions::default() };
    assert!(refused(&path, &image).contains("has no images: no column picture"));
    let swapped = DatasetOptions { label_column: Some("image".into()), ..DatasetOptions::default() };
    assert!(refused(&path, &swapped).contains("has no labels"));
}

#[test]
fn files_with_their_samples_in_other_columns_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, columns) in [
        ("a.parquet", "required binary image; required int64 label;"),
        ("b.parquet", "required int64 labels; required binary img;"),
    ] {
        let schema = Arc::new(parse_message_type(&format!("message m {{ {columns} }}")).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        std::fs::write(dir.path().join(name), writer.into_inner().unwrap()).unwrap();
    }
    let text = refused(dir.path(), &DatasetOptions::default());
    let expect =
        r#""a.parquet" and "b.parquet" have their samples in other columns (image, label; img, labels)"#;
    assert!(text.contains(expect), "{text}");
}

/// What a model of `classes` should say to one image in Parquet with this label, whose column is declared so.
fn said<T: DataType>(label: T::T, declared: &str, classes: &Classes) -> std::result::Result<Target, String> {
    let schema = format!("message m {{ required binary image; required {declared}; }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(png(1))], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&[label], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.parquet"), writer.into_inner().unwrap()).unwrap();
    let target = || {
        let mut dataset = open(dir.path(), &DatasetOptions::default())?;
        dataset.align(classes, false)?;
        Ok(dataset.read(0..1)?[0].target)
    };
    target().map_err(|e: soup_core::Error| e.chain())
}

#[test]
fn labels_of_images_are_what_their_column_says() {
    let classes = Classes::new(["cat", "dog"].map(str::to_owned).to_vec(), &BTreeMap::new());
    assert_eq!(said::<Int32Type>(1, "int32 label", &classes), Ok(Target::Class(1)));
    assert_eq!(said::<Int32Type>(1, "int32 label (UINT_32)", &classes), Ok(Target::Class(1)));
    let refused = |got: std::result::Result<Target, String>, part: &str| {
        assert!(got.as_ref().is_err_and(|error| error.contains(part)), "{got:?}");
    };
    // What is stored of 0.1 is 1.
    let decimal = || said::<Int32Type>(1, "int32 label (DECIMAL(5, 1))", &classes);
    refused(decimal(), "column \"label\" is DECIMAL, expected integers");
    refused(said::<Int32Type>(1, "int32 label (DATE)", &classes), "column \"label\" is DATE");
    refused(
        said::<DoubleType>(1.0, "double label", &classes),
        "column \"label\" is DOUBLE, expected integers",
    );
    refused(said::<Int32Type>(1, "int32 score", &classes), "no column of labels but score");
    // A model that predicts a number.
    let none = Classes::none();
    assert_eq!(said::<DoubleType>(0.25, "double label", &none), Ok(Target::Number(0.25)));
    assert_eq!(said::<Int32Type>(-4, "int32 score", &none), Ok(Target::Number(-4.0)));
    refused(said::<Int32Type>(1, "int32 label (DATE)", &none), "column \"label\" is DATE");
}

#[test]
fn corrupt_parquet_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let good = std::fs::read(pool::path("data/test_blurred.parquet")).unwrap();
    for bad in [&b""[..], b"PAR1", &good[..good.len() / 2], &good[4..]] {
        std::fs::write(&path, bad).unwrap();
        let error = open(&path, &DatasetOptions::default()).and_then(|d| d.read(0..d.len())).err();
        let error = error.unwrap_or_else(|| panic!("{} bytes were read", bad.len()));
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.chain().contains("x.parquet"), "{error:?}");
    }
}

/// Counts what is read.
struct Counted(LocalFiles, AtomicU64);

impl Files for Counted {
    fn list(&self) -> Result<Vec<FileEntry>> {
        self.0.list()
    }
    fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        self.1.fetch_add(range.end - range.start, Ordering::Relaxed);
        self.0.read(path, range)
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[test]
fn opening_and_slicing_do_not_read_the_whole_file() {
    let path = pool::path("data/test.parquet");
    let size_bytes = std::fs::metadata(&path).unwrap().len();
    let files = Arc::new(Counted(LocalFiles::new(path), AtomicU64::new(0)));
    let dataset = Dataset::open(files.clone(), &DatasetOptions::default()).unwrap();
    let opened = files.1.swap(0, Ordering::Relaxed);
    assert!(opened <= 512 << 10, "{opened} bytes to open");
    dataset.read(0..10).unwrap();
    let sliced = files.1.load(Ordering::Relaxed);
    assert!(sliced < size_bytes, "{sliced} of {size_bytes} bytes for 10 of 4000 rows");
}

fn png(level: u8) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    GrayImage::from_pixel(28, 28, Luma([level])).write_to(&mut out, ImageFormat::Png).unwrap();
    out.into_inner()
}

/// A folder of images, each of one grey level.
fn folder(images: &[(&str, u8)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, level) in images {
        let at = dir.path().join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, png(*level)).unwrap();
    }
    dir
}

#[test]
fn a_folder_of_images_by_class() {
    let dir = folder(&[("Sandal/a.png", 10), ("Bag/b.png", 20), ("Bag/a.png", 30)]);
    let mut dataset = open(dir.path(), &DatasetOptions::default()).unwrap();
    assert_eq!(dataset.label_names().unwrap(), ["Bag", "Sandal"]);
    let labels = |d: &Dataset| d.read(0..3).unwrap().iter().map(class_of).collect::<Vec<_>>();
    assert_eq!(labels(&dataset), [0, 0, 1]);
    assert_eq!(*image_of(&dataset.read(0..1).unwrap()[0]), png(30));
    let evaluator = pool::evaluator_of(4);
    dataset.align(evaluator.class_names(), false).unwrap();
    assert!(dataset.notes()[0].contains("2 of the model's 10 classes"), "{:?}", dataset.notes());
    assert_eq!(labels(&dataset), [8, 8, 5]);
    let prepared = evaluator.prepare(&dataset, 1..3).unwrap();
    assert_eq!((prepared.len(), prepared.labels()), (2, &[8, 5][..]));
    assert_eq!(pool::pixels(&prepared)[0], ((20.0f64 / 255.0) as f32 - 0.286) / 0.353);
}

#[test]
fn some_samples_are_prepared_without_those_between_them() {
    let dir = folder(&[("Bag/a.png", 10), ("Bag/b.png", 20), ("Sandal/a.png", 30), ("Sandal/c.png", 40)]);
    std::fs::write(dir.path().join("Sandal/b.png"), b"not a png").unwrap();
    let evaluator = pool::evaluator_of(4);
    let mut dataset = open(dir.path(), &DatasetOptions::default()).unwrap();
    dataset.align(evaluator.class_names(), false).unwrap();
    assert!(evaluator.prepare(&dataset, 1..5).is_err(), "one of them is no image");
    // In any order, and more than once.
    let some = evaluator.prepare_some(&dataset, 1, &[3, 0, 1, 0]).unwrap();
    let one = |at: u64| evaluator.prepare(&dataset, at..at + 1).unwrap();
    let mut expected = one(4);
    [1, 2, 1].into_iter().for_each(|at| expected.append(one(at)).unwrap());
    assert_eq!(some, expected);
    let error = evaluator.prepare_some(&dataset, 1, &[0, 2]).unwrap_err().chain();
    assert!(error.contains("\"Sandal/b.png\""), "{error}");
    assert!(evaluator.prepare_some(&dataset, 0, &[5]).is_err());
    assert!(evaluator.prepare_some(&dataset, 0, &[]).unwrap().is_empty());
}

#[test]
fn rows_that_cannot_be_used_are_named() {
    let dir = folder(&[("a/a.png", 1), ("b/b.png", 1)]);
    std::fs::write(dir.path().join("b/c.png"), b"not a png").unwrap();
    let dataset = open(dir.path(), &DatasetOptions::default()).unwrap();
    let error = pool::evaluator_of(4).prepare(&dataset, 1..3).unwrap_err().chain();
    assert!(error.contains("image \"b/c.png\": image cannot be"), "{error}");
    let config = pool::text("config.json");
    let two_classes = serde_json::from_str::<serde_json::Value>(&config).map(|mut c| {
        c["id2label"] = serde_json::json!({"0": "a", "1": "x"});
        c.to_string()
    });
    let spec = EvaluatorSpec {
        config_json: two_classes.unwrap(),
        preprocessor_json: Some(pool::text("preprocessor_config.json")),
        batch_size: 1,
        ..EvaluatorSpec::default()
    };
    let mut dataset = open(dir.path(), &DatasetOptions::default()).unwrap();
    let error = dataset.align(evaluator(&spec).unwrap().class_names(), false).unwrap_err().chain();
    assert!(error.contains("no class of the model: \"b\"; classes that it lacks: \"x\""), "{error}");
}

#[test]
fn empty_folders_say_what_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(dir.path(), &DatasetOptions::default()).contains("neither .parquet files nor images"));
    let flat = folder(&[("a.png", 1)]);
    assert!(refused(flat.path(), &DatasetOptions::default()).contains("has no labels"));
}
