use std::collections::BTreeMap;

use super::tar::tests::{InMemory, ended, member, summed};
use super::*;
use crate::classes::Classes;
use crate::dataset::Dataset;

type Parts<'a> = &'a [(&'a str, &'a [u8])];

fn archive(parts: Parts<'_>) -> Vec<u8> {
    ended(&parts.iter().map(|(name, content)| member(name, b'0', content)).collect::<Vec<_>>())
}

fn open_all(files: &InMemory, options: &DatasetOptions) -> Result<Archives> {
    let mut archives = Archives::open(files, files.list()?, options)?;
    let names = ["cat", "dog", "owl"].map(str::to_owned).to_vec();
    archives.labels = Labels::of(&Classes::new(names, &BTreeMap::new()));
    Ok(archives)
}

/// The image and the class of every sample.
fn samples(parts: Parts<'_>, options: &DatasetOptions) -> std::result::Result<Vec<(String, u32)>, String> {
    let files = InMemory::one(archive(parts));
    let read = || {
        let archives = open_all(&files, options)?;
        archives.read(&files, 0..archives.len())
    };
    let shown = |sample: Sample| {
        let (Input::Image(image), Target::Class(class)) = (sample.input, sample.target) else { panic!() };
        (String::from_utf8(image.to_vec()).unwrap(), class)
    };
    Ok(read().map_err(|e| e.chain())?.into_iter().map(shown).collect())
}

#[track_caller]
fn check(parts: Parts<'_>, options: &DatasetOptions, expect: &[(&str, u32)]) {
    let expect: Vec<_> = expect.iter().map(|(image, class)| ((*image).to_owned(), *class)).collect();
    assert_eq!(samples(parts, options).unwrap(), expect);
}

#[track_caller]
fn refused(parts: Parts<'_>, options: &DatasetOptions, part: &str) {
    let error = samples(parts, options).unwrap_err();
    assert!(error.contains(part), "{error}");
}

fn columns(image: Option<&str>, label: Option<&str>) -> DatasetOptions {
    DatasetOptions {
        image_column: image.map(str::to_owned),
        label_column: label.map(str::to_owned),
        ..DatasetOptions::default()
    }
}

#[test]
fn members_of_one_name_are_a_sample() {
    let plain = DatasetOptions::default();
    check(
        &[
            ("a/0.cls", b"1"),
            ("a/0.JPG", b"A"),
            ("b/0.webp", b"B"),
            ("b/0.cls", b" 2\n"),
            ("b/0.seg.png", b"?"),
        ],
        &plain,
        &[("A", 1), ("B", 2)],
    );
    check(
        &[("a.jpg", b"A"), ("README", b"?"), (".x.jpg", b"?"), ("d/._a.jpg", b"?"), ("a.txt", b"Owl\n")],
        &plain,
        &[("A", 2)],
    );
    check(&[("a.json", br#"{"label": 1, "b": []}"#), ("a.png", b"A")], &plain, &[("A", 1)]);
    check(&[("a.json", br#"{"label": "dog"}"#), ("a.png", b"A"), ("a.txt", b"owl")], &plain, &[("A", 1)]);
    // A number where the others are names.
    check(&[("a.txt", b"0"), ("a.png", b"A")], &plain, &[("A", 0)]);
}

#[test]
fn columns_are_endings_of_names_or_keys() {
    let parts: Parts<'_> = &[
        ("a.cls", b"0"),
        ("a.json", br#"{"label": 1, "fine": "owl"}"#),
        ("a.left.png", b"L"),
        ("a.png", b"A"),
        ("a.jpg", b"J"),
        ("a.kind", b"dog"),
    ];
    refused(
        parts,
        &DatasetOptions::default(),
        "sample \"a\": which image is meant is not known, it has .png and .jpg",
    );
    check(parts, &columns(Some("jpg"), None), &[("J", 0)]);
    check(parts, &columns(Some(".LEFT.png"), Some("json")), &[("L", 1)]);
    check(parts, &columns(Some("png"), Some("fine")), &[("A", 2)]);
    check(parts, &columns(Some("png"), Some("kind")), &[("A", 1)]);
    refused(parts, &columns(Some("png"), Some("coarse")), "has no label: .json has no key \"coarse\"");
    refused(
        parts,
        &columns(Some("right.png"), None),
        "has no image: no .right.png (image-column) among .cls",
    );
}

#[test]
fn samples_that_lack_something_are_refused_by_name() {
    let plain = DatasetOptions::default();
    for (parts, part) in [
        (&[("a.jpg", &b"A"[..])][..], "sample \"a\": has no label: none of .cls, .json, .txt among .jpg"),
        (&[("a.cls", b"1")], "archive \"a.tar\": sample \"a\": has no image: none of .png, .jpg"),
        (&[("a.cls", b"1"), ("a.gif", b"A")], "its image is .gif, of a kind that cannot be decoded"),
        (
            &[("a.cls", b"1"), ("a.jpg", b"A"), ("b.jpg", b"B"), ("b.txt", b"dog")],
            "sample \"b\": has no label: no .cls",
        ),
        (&[("a.cls", b"1"), ("a.CLS", b"1")], "sample \"a\" has .cls twice"),
        (
            &[
                ("a.cls", b"1"),
                ("a.jpg", b"A"),
                ("b.cls", b"1"),
                ("b.jpg", b"B"),
                ("a.jpg", b"A"),
                ("a.cls", b"1"),
            ],
            "sample \"a\": it is there twice",
        ),
        (
            &[("a.cls", b"one"), ("a.jpg", b"A")],
            "sample \"a\": \"one\" is no number of a class, as .cls should be",
        ),
        (&[("a.cls", b""), ("a.jpg", b"A")], "\"\" is no number of a class"),
        (&[("a.cls", b"-1"), ("a.jpg", b"A")], "\"-1\" is no number of a class"),
        (&[("a.cls", b"4294967296"), ("a.jpg", b"A")], "is no number of a class"),
        (
            &[("a.txt", b"a photo of a cat"), ("a.jpg", b"A")],
            "label \"a photo of a cat\" is no class of the model",
        ),
        (&[("a.json", b"[1]"), ("a.jpg", b"A")], ".json is not a JSON object"),
        (&[("a.json", br#"{"label": 1.5}"#), ("a.jpg", b"A")], "has no label: label is 1.5"),
        (&[("a.json", br#"{"label": 1, "label": 0}"#), ("a.jpg", b"A")], ".json has \"label\" twice"),
        (&[("a.json", br#"{"label": null}"#), ("a.jpg", b"A")], "label is neither a number nor a text"),
        (&[("README", b"A")], "has no samples: there are no members"),
    ] {
        refused(parts, &plain, part);
    }
    refused(
        &[("a.jpg", b"A")],
        &columns(None, Some("kind")),
        "neither .kind nor .json with a key \"kind\" among .jpg",
    );
    let long = [member("long", b'L', &[b'x'; NAME_BYTES_MAX + 1]), member("x", b'0', b"")];
    let files = InMemory::one(ended(&long));
    let error = open_all(&files, &plain).err().unwrap().chain();
    assert!(error.contains("a name of 4097 bytes"), "{error}");
    let large = vec![b' '; LABEL_BYTES_MAX as usize + 1];
    refused(&[("a.cls", &large), ("a.jpg", b"A")], &plain, "its label has 1048577 bytes");
}

#[test]
fn what_is_left_out_is_said() {
    let files =
        InMemory::one(archive(&[("a.cls", b"1"), ("a.json", b"{}"), ("a.jpg", b"A"), ("a.npy", b"?")]));
    let archives = open_all(&files, &DatasetOptions::default()).unwrap();
    assert_eq!(
        archives.notes(),
        ["members of its archives that are neither image nor label were left out: .json, .npy"]
    );
    let files = InMemory::one(archive(&[("a.cls", b"1"), ("a.jpg", b"A")]));
    assert_eq!(open_all(&files, &DatasetOptions::default()).unwrap().notes(), [""; 0]);
}

#[test]
fn neighbours_are_read_together_and_nothing_else() {
    let (small, large) = (vec![b'x'; 3000], vec![b'y'; 200_000]);
    let parts: Parts<'_> = &[
        ("0.cls", b"0"),
        ("0.jpg", &small),
        ("1.cls", b"1"),
        ("1.jpg", &small),
        ("2.jpg", &large),
        ("2.npy", &large),
        ("2.cls", b"2"),
        ("3.cls", b"1"),
        ("3.jpg", &small),
    ];
    let mut files = InMemory::one(archive(parts));
    files.files.push(("b.tar".to_owned(), archive(&[("0.cls", b"2"), ("0.jpg", b"B")])));
    let archives = open_all(&files, &DatasetOptions::default()).unwrap();
    assert_eq!((archives.len(), archives.place(2)), (5, "archive \"a.tar\" sample \"2\"".to_owned()));
    assert_eq!(archives.place(4), "archive \"b.tar\" sample \"0\"");
    let read = |range: Range<u64>| {
        files.reads.lock().unwrap().clear();
        let samples = archives.read(&files, range.clone()).unwrap();
        let reads = files.reads.lock().unwrap().clone();
        let bytes: u64 = reads.iter().map(|range| range.end - range.start).sum();
        assert_eq!(bytes, archives.bytes(range));
        (samples, reads.len(), bytes)
    };
    let (all, reads, bytes) = read(0..5);
    // The first two with a large image, what is behind the file that nobody wants, and the other archive.
    assert_eq!(reads, 3);
    assert!(bytes < 220_000, "{bytes}");
    for range in [0..1, 1..2, 2..3, 3..5, 1..4, 5..5] {
        assert_eq!(read(range.clone()).0, all[range.start as usize..range.end as usize]);
    }
    assert_eq!(all.iter().map(|s| s.target).collect::<Vec<_>>(), [0, 1, 2, 1, 2].map(Target::Class));
}

/// Every byte of an archive with all extensions, changed in several ways: what is read lies in it, the rest is an error.
#[test]
fn whatever_an_archive_says_it_is_read_within_its_bounds() {
    let long = format!("{}.cls\0", "f".repeat(120));
    let pax = format!("{} path={}.png\n", 120 + 14, "f".repeat(120));
    let good = ended(&[
        member("././@LongLink", b'L', long.as_bytes()),
        member("cut", b'0', b"1"),
        member("PaxHeader/f", b'x', pax.as_bytes()),
        member("cut", b'0', b"image"),
    ]);
    let classes = |archive: Vec<u8>| {
        let files = InMemory::one(archive);
        let archives = open_all(&files, &DatasetOptions::default())?;
        archives.read(&files, 0..archives.len()).map(|samples| samples.len())
    };
    assert_eq!(classes(good.clone()).unwrap(), 1);
    let mut read = 0;
    for at in 0..good.len() {
        for byte in [0, b' ', b'/', b'0', b'7', b'9', b'=', 0x80, 0xff, good[at] ^ 1] {
            let mut changed = good.clone();
            changed[at] = byte;
            // What a header says is looked at only where its sum is right.
            let block = at - at % 512;
            if good[block..block + 512] == summed(good[block..block + 512].to_vec()) {
                let header = summed(changed[block..block + 512].to_vec());
                changed[block..block + 512].copy_from_slice(&header);
            }
            read += usize::from(classes(changed).is_ok());
        }
    }
    assert!(read > 0);
}

/// The classes of all samples, for a model of cats, dogs and owls, where `names` is beside the archive; and the notes.
fn with_names(parts: Parts<'_>, names: &[u8]) -> std::result::Result<(Vec<u32>, Vec<String>), String> {
    let files = vec![
        ("classnames.txt".to_owned(), names.to_vec()),
        ("nshards.txt".to_owned(), b"1".to_vec()),
        ("test/0.tar".to_owned(), archive(parts)),
    ];
    let files = std::sync::Arc::new(InMemory { files, ..InMemory::default() });
    let read = || {
        let mut dataset = Dataset::open(files, &DatasetOptions::default())?;
        let names = ["cat", "dog", "owl"].map(str::to_owned).to_vec();
        dataset.align(&Classes::new(names, &BTreeMap::new()), false)?;
        let samples = dataset.read(0..dataset.len())?;
        let class = |sample: &Sample| match sample.target {
            Target::Class(class) => class,
            Target::Number(_) => panic!(),
        };
        Ok((samples.iter().map(class).collect(), dataset.notes().to_vec()))
    };
    read().map_err(|e: Error| e.chain())
}

#[test]
fn numbers_stand_for_the_names_beside_the_archives() {
    let numbers: Parts<'_> = &[("a.cls", b"0"), ("a.jpg", b"A"), ("b.cls", b"2"), ("b.jpg", b"B")];
    assert_eq!(with_names(numbers, b"cat\ndog\nowl\n").unwrap(), (vec![0, 2], vec![]));
    let other = "its labels are numbered in another order than the model's classes, and were aligned by name";
    assert_eq!(
        with_names(numbers, b"\xef\xbb\xbfOwl\r\ndog\r\ncat").unwrap(),
        (vec![2, 0], vec![other.to_owned()])
    );
    let json: Parts<'_> = &[
        ("a.json", br#"{"label": 0}"#),
        ("a.jpg", b"A"),
        ("b.json", br#"{"label": "dog"}"#),
        ("b.jpg", b"B"),
    ];
    assert_eq!(with_names(json, b"owl\ndog\ncat").unwrap().0, [2, 1]);
    // Names need none beside them.
    assert_eq!(with_names(&[("a.txt", b"owl"), ("a.jpg", b"A")], b"").unwrap(), (vec![2], vec![]));
    for (parts, names, part) in [
        (numbers, &b"cat\ndog\nowls"[..], "has classes that are no class of the model: \"owls\""),
        (numbers, b"cat\ndog", "archive \"test/0.tar\" sample \"b\": label 2 is not one of its 2 classes"),
        (numbers, b"cat\n\nowl", "file \"classnames.txt\": class 1 has no name"),
        (numbers, b" \n", "file \"classnames.txt\": class 0 has no name"),
        (numbers, b"cat\xff", "file \"classnames.txt\": it is not UTF-8"),
        (json, b"owl\ncat", "label \"dog\" is none of the names in classnames.txt"),
    ] {
        let error = with_names(parts, names).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn names_around_the_archives_are_theirs() {
    let parts: Parts<'_> = &[("a.cls", b"0"), ("a.jpg", b"A")];
    let of = |name: &str| {
        let files = vec![(name.to_owned(), b"dog\ncat\n".to_vec()), ("0.tar".to_owned(), archive(parts))];
        let files = std::sync::Arc::new(InMemory { files, ..InMemory::default() });
        let dataset = Dataset::open(files, &DatasetOptions::default()).unwrap();
        (dataset.label_names().map(<[String]>::to_vec), dataset.notes().to_vec())
    };
    assert_eq!(of("../classnames.txt"), (Some(vec!["dog".to_owned(), "cat".to_owned()]), vec![]));
    let (names, notes) = of("ClassNames.txt");
    assert!(names.is_none() && notes[0].contains("\"ClassNames.txt\" is not read"), "{notes:?}");
}

/// The numbers of all samples, for a model that predicts one.
fn numbers(parts: Parts<'_>) -> std::result::Result<Vec<f64>, String> {
    let files = InMemory::one(archive(parts));
    let read = || {
        let mut archives = Archives::open(&files, files.list()?, &DatasetOptions::default())?;
        archives.labels = Labels::of(&Classes::none());
        archives.read(&files, 0..archives.len())
    };
    let number = |sample: Sample| match sample.target {
        Target::Number(number) => number,
        Target::Class(_) => panic!(),
    };
    Ok(read().map_err(|e| e.chain())?.into_iter().map(number).collect())
}

#[test]
fn labels_are_numbers_for_a_model_that_predicts_one() {
    let parts: Parts<'_> = &[("a.cls", b"3"), ("a.jpg", b"A"), ("b.cls", b"-2.5\n"), ("b.jpg", b"B")];
    assert_eq!(numbers(parts), Ok(vec![3.0, -2.5]));
    assert_eq!(numbers(&[("a.json", br#"{"label": 0.25}"#), ("a.jpg", b"A")]), Ok(vec![0.25]));
    assert_eq!(numbers(&[("a.txt", b"1e3"), ("a.jpg", b"A")]), Ok(vec![1000.0]));
    for label in [&b"nan"[..], b"inf", b"old", b""] {
        let error = numbers(&[("a.cls", label), ("a.jpg", b"A")]).unwrap_err();
        assert!(error.contains("is no number, and the model predicts one"), "{error}");
    }
}
