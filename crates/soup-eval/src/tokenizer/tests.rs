use super::*;

/// A tokenizer of a few words.
fn json(normalizer: &str, truncation: &str) -> String {
    format!(
        r###"{{"version": "1.0", "truncation": {truncation}, "padding": {{"strategy": {{"Fixed": 20}}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}},
        "added_tokens": [{{"id": 2, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}}],
        "normalizer": {normalizer}, "pre_tokenizer": {{"type": "BertPreTokenizer"}},
        "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}}, "decoder": null,
        "model": {{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {{"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5, "##b": 6}}}}}}"###
    )
}

const LOWERCASE: &str = r#"{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}"#;

/// Of a BERT whose `config.json` says nothing about tokens.
fn open(tokenizer: &str, config: Option<&str>, longest: usize) -> std::result::Result<TextTokenizer, String> {
    open_of("{}", tokenizer, config, longest)
}

fn open_of(
    model: &str,
    tokenizer: &str,
    config: Option<&str>,
    longest: usize,
) -> std::result::Result<TextTokenizer, String> {
    let files = TokenizerFiles {
        tokenizer_json: tokenizer.to_owned().into(),
        config_json: config.map(str::to_owned),
    };
    let takes = Takes { longest, types: true, class: "BertTokenizer" };
    TextTokenizer::open(&files, model, takes, &Budget::default()).map_err(|e| e.chain())
}

#[test]
fn texts_and_pairs_become_tokens_and_are_not_padded() {
    let tokenizer = open(&json(LOWERCASE, "null"), None, 10).unwrap();
    let one = tokenizer.encode("A ab c", None).unwrap();
    assert_eq!((one.ids, one.types, one.cut), (vec![2, 4, 4, 6, 1, 3], vec![0; 6], false));
    let pair = tokenizer.encode("a", Some("b b")).unwrap();
    assert_eq!((pair.ids, pair.types), (vec![2, 4, 3, 5, 5, 3], vec![0, 0, 0, 1, 1, 1]));
    assert_eq!(tokenizer.encode("", None).unwrap().ids, [2, 3]);
}

#[test]
fn a_long_text_takes_its_turn_or_is_refused() {
    let tokenizer = open(&json(LOWERCASE, "null"), None, 10).unwrap();
    let encode = |bytes: usize, budget: u64| {
        let encoded = tokenizer.encode_within(&"a ".repeat(bytes / 2), None, &Budget::new(budget));
        encoded.map(|encoded| encoded.ids.len()).map_err(|e| e.chain())
    };
    assert_eq!(encode(COUNTED_FROM_BYTES - 2, 2), Ok(10));
    assert_eq!(encode(COUNTED_FROM_BYTES, 8 << 20), Ok(10));
    let refused = encode(64 << 10, 8 << 20).unwrap_err();
    let why =
        "a text of 65536 bytes may take 48.0 MiB to make tokens of, and this worker has 20.0 MiB for that";
    assert!(refused.starts_with(why), "{refused}");
}

#[test]
fn long_texts_are_cut_where_something_says_so() {
    let own = r#"{"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}"#;
    for (truncation, config, longest, limit, want) in [
        ("null", None, 5, "to 5 tokens (what the model has positions for)", vec![2, 4, 5, 4, 3]),
        ("null", Some(r#"{"model_max_length": 4}"#), 5, "to 4 tokens (model_max_length", vec![2, 4, 5, 3]),
        ("null", Some(r#"{"max_len": 4}"#), 5, "to 4 tokens (max_len", vec![2, 4, 5, 3]),
        // The older name is not looked at beside the other.
        (
            "null",
            Some(r#"{"max_len": 5, "model_max_length": 4}"#),
            6,
            "to 4 tokens (model_max_length",
            vec![2, 4, 5, 3],
        ),
        (
            "null",
            Some(r#"{"max_len": 4, "model_max_length": null}"#),
            5,
            "to 5 tokens (what",
            vec![2, 4, 5, 4, 3],
        ),
        ("null", Some(r#"{"model_max_length": 1e30}"#), 6, "to 6 tokens (what", vec![2, 4, 5, 4, 5, 3]),
        (own, None, 5, "to 4 tokens (truncation in tokenizer.json)", vec![2, 4, 5, 3]),
        ("null", Some(r#"{"truncation_side": "left"}"#), 4, "to 4 tokens", vec![2, 4, 5, 3]),
    ] {
        let tokenizer = open(&json("null", truncation), config, longest).unwrap();
        assert!(tokenizer.limit().starts_with(limit), "{}", tokenizer.limit());
        let cut = tokenizer.encode("a b a b a b", None).unwrap();
        assert!(cut.cut && cut.ids.len() <= longest, "{:?}", cut.ids);
        if truncation == "null" && !config.is_some_and(|c| c.contains("left")) {
            assert_eq!(cut.ids, want);
        } else {
            assert_eq!((cut.ids.len(), cut.ids.last()), (want.len(), Some(&3)));
            assert_eq!(cut.ids[cut.ids.len() - 2], 5, "the end is kept");
        }
        assert!(!tokenizer.encode("a", None).unwrap().cut);
    }
    assert!(open(&json("null", "null"), None, 3).err().unwrap().contains("nothing would be left"));
}

#[test]
fn what_the_two_files_say_has_to_agree() {
    for (config, part) in [
        (r#"{"do_lower_case": false}"#, "do_lower_case is false, and tokenizer.json beside it does true"),
        (r#"{"strip_accents": true}"#, "strip_accents is true"),
        (r#"{"tokenize_chinese_chars": false}"#, "tokenize_chinese_chars is false"),
        (r#"{"split_special_tokens": true}"#, "split_special_tokens is true"),
        (r#"{"do_basic_tokenize": false}"#, "do_basic_tokenize is false"),
        (r#"{"model_max_length": "long"}"#, "model_max_length is \"long\""),
        (r#"{"model_max_length": 0}"#, "model_max_length is 0"),
        (r#"{"max_len": "long"}"#, "max_len is \"long\""),
        (r#"{"truncation_side": "middle"}"#, "truncation_side is \"middle\""),
        (r#"{"mask_token": "[MASK]"}"#, "mask_token has the token \"[MASK]\""),
        (r#"{"added_tokens_decoder": {"3": {"content": "[CLS]"}}}"#, "added_tokens_decoder has the token"),
        ("[]", "tokenizer_config.json: not understood"),
    ] {
        let error = open(&json(LOWERCASE, "null"), Some(config), 10).err().unwrap();
        assert!(error.contains(part), "{error}");
    }
    let agrees = r#"{"do_lower_case": true, "strip_accents": null, "cls_token": {"content": "[CLS]"}, "model_max_length": 512,
        "added_tokens_decoder": {"2": {"content": "[CLS]"}}, "tokenizer_class": "BertTokenizer"}"#;
    assert!(open(&json(LOWERCASE, "null"), Some(agrees), 10).is_ok());
    assert!(open(&json("null", "null"), Some(r#"{"do_lower_case": true}"#), 10).is_err());
    assert!(open("{}", None, 10).err().unwrap().starts_with("tokenizer.json is not understood"));
}

#[test]
fn models_are_told_types_as_transformers_does() {
    let types = |config: Option<&str>| {
        let tokenizer = open(&json(LOWERCASE, "null"), config, 10).unwrap();
        tokenizer.encode("a", Some("b")).map(|e| e.types[3]).map_err(|e| e.chain())
    };
    assert_eq!(types(None), Ok(1));
    assert_eq!(types(Some(r#"{"tokenizer_class": "BertTokenizerFast"}"#)), Ok(1));
    assert_eq!(types(Some(r#"{"tokenizer_class": "RobertaTokenizerFast"}"#)), Ok(0));
    let told =
        r#"{"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]}"#;
    assert_eq!(types(Some(told)), Ok(0));
    assert_eq!(types(Some(r#"{"tokenizer_class": "MPNetTokenizer"}"#)), Ok(0));
    assert!(types(Some(r#"{"tokenizer_class": "MyTokenizer"}"#)).unwrap_err().contains("\"MyTokenizer\""));
    // Of that transformers 4 tells them, and 5, which calls it by the other name, does not.
    let fast = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    assert!(types(Some(fast)).unwrap_err().contains("transformers 4 tells it and 5 does not"));
    assert_eq!(types(Some(r#"{"tokenizer_class": "TokenizersBackend"}"#)), Ok(0));
    for (names, of) in [(r#"["input_ids", "token_type_ids"]"#, 1), (r#"["input_ids", "attention_mask"]"#, 0)]
    {
        let told = fast.replace('}', &format!(r#", "model_input_names": {names}}}"#));
        assert_eq!(types(Some(&told)), Ok(of), "{names}");
    }
    // The model's own file names the class where the tokenizer's does not.
    let model = r#"{"tokenizer_class": "DistilBertTokenizer"}"#;
    let types = |config: Option<&str>| {
        let tokenizer = open_of(model, &json(LOWERCASE, "null"), config, 10).unwrap();
        tokenizer.encode("a", Some("b")).unwrap().types[3]
    };
    assert_eq!(types(None), 0);
    assert_eq!(types(Some(r#"{"tokenizer_class": null}"#)), 0);
    assert_eq!(types(Some(r#"{"tokenizer_class": "BertTokenizer"}"#)), 1);
}

#[test]
fn what_a_class_sets_has_to_be_what_the_file_says() {
    let changed = |from: &str, to: &str| json(&LOWERCASE.replace(from, to), "null");
    let cased = changed(r#""lowercase": true"#, r#""lowercase": false"#);
    let accents = changed(r#""strip_accents": null"#, r#""strip_accents": false"#);
    let chinese = changed(r#""handle_chinese_chars": true"#, r#""handle_chinese_chars": false"#);
    let class = |name: &str| format!(r#"{{"tokenizer_class": "{name}"}}"#);
    for (tokenizer, config, part) in [
        (&cased, None, "has lowercase false, and transformers takes true unless it is told otherwise"),
        (&cased, None, "\"BertTokenizer\" (of the model's type); say it with do_lower_case false"),
        (&cased, Some(class("DistilBertTokenizer")), "\"DistilBertTokenizer\" (of tokenizer_config.json)"),
        (&cased, Some(class("MPNetTokenizerFast")), "do_lower_case false"),
        // It may be any.
        (&cased, Some(class("MyTokenizer")), "do_lower_case false"),
        (
            &accents,
            Some(r#"{"strip_accents": null}"#.into()),
            "strip_accents false, and transformers takes null",
        ),
        (&chinese, None, "say it with tokenize_chinese_chars false"),
    ] {
        let error = open(tokenizer, config.as_deref(), 10).err().unwrap();
        assert!(error.contains(part), "{error}");
    }
    for (tokenizer, config) in [
        (&cased, r#"{"do_lower_case": false, "model_max_length": 512}"#.to_owned()),
        (&cased, class("PreTrainedTokenizerFast")),
        (&cased, class("RobertaTokenizer")),
        (&accents, r#"{"do_lower_case": true, "strip_accents": false}"#.to_owned()),
        (&chinese, class("MPNetTokenizer")),
    ] {
        assert!(open(tokenizer, Some(&config), 10).is_ok(), "{config}");
    }
    let tokenizer = open(&cased, Some(&class("PreTrainedTokenizerFast")), 10).unwrap();
    assert_eq!(tokenizer.encode("A a", None).unwrap().ids, [2, 1, 4, 3]);
    // Nothing is set in a sequence.
    let sequence = changed(LOWERCASE, &format!(r#"{{"type": "Sequence", "normalizers": [{LOWERCASE}]}}"#));
    assert!(open(&sequence.replace(r#""lowercase": true"#, r#""lowercase": false"#), None, 10).is_ok());
}

#[test]
fn spaces_before_texts_are_those_of_the_class() {
    let bytes = |space: bool| {
        let of =
            r#"{"type": "ByteLevel", "add_prefix_space": SPACE, "trim_offsets": true, "use_regex": true}"#;
        json("null", "null")
            .replace(r#"{"type": "BertPreTokenizer"}"#, &of.replace("SPACE", &space.to_string()))
    };
    for config in
        ["{}", r#"{"tokenizer_class": "RobertaTokenizer"}"#, r#"{"tokenizer_class": "MyTokenizer"}"#]
    {
        let error = open(&bytes(true), Some(config), 10).err().unwrap();
        assert!(error.contains("say it with add_prefix_space true"), "{error}");
        assert!(open(&bytes(false), Some(config), 10).is_ok());
    }
    for config in [
        r#"{"add_prefix_space": true}"#,
        r#"{"tokenizer_class": "T5Tokenizer"}"#,
        // As transformers 5 saves any.
        r#"{"tokenizer_class": "TokenizersBackend"}"#,
    ] {
        assert!(open(&bytes(true), Some(config), 10).is_ok(), "{config}");
    }
}

#[test]
fn tokens_that_are_made_at_random_are_refused() {
    let with = |dropout: &str| {
        format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "model": {{"type": "BPE", "dropout": {dropout}, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "vocab": {{"a": 0, "b": 1, "ab": 2}}, "merges": ["a b"]}}}}"#
        )
    };
    for none in ["null", "0.0"] {
        assert_eq!(open(&with(none), None, 10).unwrap().encode("aba", None).unwrap().ids, [2, 0], "{none}");
    }
    let error = open(&with("0.5"), None, 10).err().unwrap();
    assert!(error.contains("tokenizer.json has a dropout of 0.5 in its model"), "{error}");
}

#[test]
fn texts_that_would_grow_to_more_than_fits_are_refused() {
    let normalizer = r#"{"type": "Replace", "pattern": {"String": "b"}, "content": "bbbb"}"#;
    let tokenizer = open(&json(normalizer, "null"), None, 10).unwrap();
    assert_eq!(tokenizer.encode("ab", None).unwrap().ids, [2, 4, 6, 6, 6, 6, 3]);
    let long = "a ".repeat(GROWN_BYTES_MAX / 8);
    let error = tokenizer.encode(&long, Some("a")).err().unwrap().chain();
    assert!(error.contains("may make 4 times as many, expected at most 32 MiB"), "{error}");
}

#[test]
fn a_file_that_takes_more_than_there_is_to_read_is_refused_before_it_is() {
    let vocabulary =
        |tokens: u32| (0..tokens).map(|id| format!("\"t{id}\": {}, ", id + 7)).collect::<String>();
    let with = |tokens: u32| {
        json(LOWERCASE, "null").replace(r#""vocab": {"#, &format!("\"vocab\": {{{}", vocabulary(tokens)))
    };
    let open = |tokenizer: &str, budget: u64| {
        let files = TokenizerFiles { tokenizer_json: tokenizer.to_owned().into(), config_json: None };
        let takes = Takes { longest: 10, types: true, class: "BertTokenizer" };
        TextTokenizer::open(&files, "{}", takes, &Budget::new(budget)).map(drop).map_err(|e| e.chain())
    };
    assert_eq!(open(&with(1000), 2 << 20), Ok(()));
    let refused = open(&with(100_000), 2 << 20).unwrap_err();
    let why = "while it is read, and this worker has 5.0 MiB for that, a quarter of its --memory";
    assert!(refused.starts_with("tokenizer.json may take ") && refused.contains(why), "{refused}");
    assert_eq!(open(&with(100_000), 64 << 20), Ok(()));
    // A tree takes hundreds of times what its tokens are in the file, and an added token what becomes of it.
    let long = |id: u32| format!("{id:03}{}", "x".repeat(900));
    let scored = (0..100).map(|id| format!(r#"["{}", 0.0]"#, long(id))).collect::<Vec<_>>().join(", ");
    let tree =
        format!(r#"{{"version": "1.0", "model": {{"type": "Unigram", "unk_id": 0, "vocab": [{scored}]}}}}"#);
    let normalizer = r#"{"type": "Replace", "pattern": {"String": "x"}, "content": "xxxxxxxxxx"}"#;
    let token = |id: u32| {
        format!(
            r#"{{"id": {id}, "content": "{}", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
            "special": false}}, "#,
            long(id)
        )
    };
    let tokens = (100..200).map(token).collect::<String>();
    let added =
        json(normalizer, "null").replace(r#""added_tokens": ["#, &format!(r#""added_tokens": [{tokens}"#));
    for (tokenizer, at_least) in [(&tree, 30.0), (&added, 100.0)] {
        let refused = open(tokenizer, 2 << 20).unwrap_err();
        let mebibytes =
            refused.strip_prefix("tokenizer.json may take ").and_then(|rest| rest.split_once(" MiB"));
        assert!(mebibytes.is_some_and(|(number, _)| number.parse::<f64>().unwrap() > at_least), "{refused}");
    }
}
