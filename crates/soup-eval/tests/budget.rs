//! What decoding takes is claimed before it is allocated: files that say they are larger than there is room for are refused, and what
//! they hold is never looked at.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod pool;

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, RgbImage};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use soup_core::run::DatasetOptions;
use soup_core::{ErrorKind, Result};
use soup_eval::preprocess::{ImageSize, Preprocessor};
use soup_eval::{Budget, Dataset, Input, LocalFiles, Samples};

const MIB: usize = 1 << 20;

/// A Parquet file of these images.
fn table(images: &[Vec<u8>], codec: Compression, dictionary: bool) -> Vec<u8> {
    let schema = "message m { required group image { required binary bytes; } required int64 label; }";
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_dictionary_enabled(dictionary)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = images.iter().map(|image| image.clone().into()).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&vec![0; images.len()], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn open(path: &Path, budget: usize) -> Dataset {
    let files = Arc::new(LocalFiles::new(path));
    Dataset::open_within(files, &DatasetOptions::default(), Budget::new(budget as u64)).unwrap()
}

/// All samples of a Parquet file of these bytes.
fn read(bytes: &[u8], budget: usize) -> Result<Samples> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    std::fs::write(&path, bytes).unwrap();
    let dataset = open(&path, budget);
    dataset.read(0..dataset.len())
}

#[track_caller]
fn refused<T>(result: Result<T>, parts: &[&str]) {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Data);
    for part in parts {
        assert!(error.chain().contains(part), "{}", error.chain());
    }
}

fn codecs() -> [Compression; 4] {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap());
    [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd, Compression::GZIP(GzipLevel::default())]
}

#[test]
fn pages_are_not_unpacked_where_they_say_that_they_do_not_fit() {
    for codec in codecs() {
        let good = table(&[vec![0; 8 * MIB]], codec, false);
        let samples = read(&good, 64 * MIB).unwrap();
        let Input::Image(image) = &samples[0].input else { panic!("no image") };
        assert!(*image == vec![0; 8 * MIB], "{codec}");
        // As it is unpacked, and what of it is stored.
        let sizes = ["row 0 takes 8.", " MiB to decode, and this worker has 4.0 MiB for that", "--memory"];
        refused(read(&good, 8 * MIB), &sizes);
        // Nobody gets as far as to notice that there is nothing in it.
        let mut bad = good.clone();
        let page = 40..good.len().min(300);
        bad[page].fill(0xee);
        refused(read(&bad, 8 * MIB), &sizes);
    }
}

#[test]
fn an_image_that_many_rows_share_is_there_once() {
    let [_, snappy, ..] = codecs();
    let rows = vec![vec![7; MIB / 2]; 200];
    let samples = read(&table(&rows, snappy, true), 16 * MIB).unwrap();
    assert_eq!(samples.len(), 200);
    assert!(samples.iter().all(|sample| matches!(&sample.input, Input::Image(image) if *image == rows[0])));
}

#[test]
fn a_dictionary_has_as_many_entries_as_it_has_room_for() {
    let rows = [vec![1], vec![2], vec![3]];
    let mut file = table(&rows, Compression::UNCOMPRESSED, true);
    assert_eq!(read(&file, 16 * MIB).unwrap().len(), 3);
    // The header of the dictionary (field 7), of three entries; now of 63.
    let header = file.windows(3).position(|bytes| bytes == [0x4c, 0x15, 0x06]).unwrap();
    file[header + 2] = 0x7e;
    refused(read(&file, 16 * MIB), &["a dictionary of 15 bytes claims 63 entries"]);
}

#[test]
fn gzip_that_unpacks_to_more_than_it_says_is_refused() {
    let [.., gzip] = codecs();
    let mut file = table(&[vec![0; 8 * MIB]], gzip, false);
    // A page of data, of 8 MiB and the length of the image; now of 2 MiB less.
    let header = file.windows(6).position(|bytes| bytes == [0x15, 0x00, 0x15, 0x88, 0x80, 0x80]).unwrap();
    assert_eq!(file[header + 6], 0x08);
    file[header + 6] = 0x06;
    refused(read(&file, 64 * MIB), &["x.parquet", "a page does not unpack to 6291460 bytes"]);
}

#[test]
fn images_are_not_decoded_where_they_say_that_they_do_not_fit() {
    let mut jpeg = Cursor::new(Vec::new());
    RgbImage::new(28, 28).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let mut jpeg = jpeg.into_inner();
    // Height and width in the header of the frame.
    let frame = jpeg.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[20_000u16.to_be_bytes(), 10_000u16.to_be_bytes()].concat());
    let json = r#"{"do_resize": true, "size": {"height": 28, "width": 28}, "resample": 2}"#;
    let preprocessor = Preprocessor::from_json(json, ImageSize { height: 28, width: 28 }, 3).unwrap();
    let mut values = Vec::new();
    let refuse = |result: Result<()>| {
        let sizes = ["image of 10000 x 20000 pixels takes 5", "and this worker has 64.0 MiB for that"];
        refused(result, &sizes);
    };
    refuse(preprocessor.apply(&jpeg, &Budget::new(128 << 20), &mut values));
    // A progressive one is there as coefficients too: it is refused earlier.
    jpeg[frame + 5..frame + 9].copy_from_slice(&[3_000u16.to_be_bytes(), 4_000u16.to_be_bytes()].concat());
    jpeg[frame + 1] = 0xc2;
    let result = preprocessor.apply(&jpeg, &Budget::new(128 << 20), &mut values);
    refused(result, &["image of 4000 x 3000 pixels takes 10"]);
    assert!(values.is_empty());
}

#[test]
fn as_many_samples_as_fit_are_decoded_at_a_time() {
    let path = pool::path("data/val.parquet");
    let evaluator = pool::evaluator_of(1);
    let all = evaluator.prepare(&open(path.as_ref(), usize::MAX), 100..400).unwrap();
    let mut parts = 0;
    for budget in [2 * MIB, 4 * MIB, 8 * MIB] {
        let dataset = open(path.as_ref(), budget);
        match evaluator.prepare(&dataset, 100..400) {
            Ok(prepared) => {
                assert_eq!(prepared, all);
                parts += u32::from(dataset.read(0..dataset.len()).is_err());
            }
            Err(error) => assert!(error.chain().contains("to decode"), "{}", error.chain()),
        }
    }
    assert!(parts > 0, "one of the budgets is too small for all samples and large enough for some");
}
