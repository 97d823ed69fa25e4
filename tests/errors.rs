//! Bad input ends in a message that names the object, the right exit code, and nothing left behind.
//!
//! Exit codes: 2 usage, 65 bad data, 69 unavailable, 78 configuration.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;

use soup_tests::{Output, Pool, Soupctl, example};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

fn validation() -> String {
    example().join("data/test_noisy.parquet").to_str().unwrap().to_owned()
}

/// Cooks a pool into `DIR/soup` unless the arguments name another output.
fn cook_in(dir: &Path, pool: &Pool, args: &[&str]) -> Output {
    let pool = pool.path().to_str().unwrap().to_owned();
    let output = if args.contains(&"--output") { &[][..] } else { &["--output", "soup"] };
    let common = ["cook", "--pool", &pool, "--no-baselines", "--recipe", "uniform"];
    Soupctl::new(SOUPCTL).dir(dir).args(common).args(output).args(args).run()
}

/// Demands that cooking fails so and leaves nothing.
#[track_caller]
fn check(pool: &Pool, args: &[&str], code: i32, parts: &[&str]) {
    let dir = TempDir::new().unwrap();
    cook_in(dir.path(), pool, args).fails(code, parts);
    assert_eq!(Pool::list(dir.path()), [""; 0], "something was left behind");
}

#[track_caller]
fn check_pool(pool: &Pool, code: i32, parts: &[&str]) {
    check(pool, &["--validation", &validation()], code, parts);
}

#[test]
fn a_corrupt_header() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change("m01", |bytes| bytes[9] = b'!');
    check_pool(&pool, 65, &["m01.safetensors", "header"]);
}

#[test]
fn a_header_length_beyond_the_file() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change("m01", |bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    check_pool(&pool, 65, &["m01.safetensors"]);
}

#[test]
fn a_truncated_file() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change("m01", |bytes| bytes.truncate(800_000));
    check_pool(&pool, 65, &["m01.safetensors"]);
}

#[test]
fn an_empty_file() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change("m01", Vec::clear);
    check_pool(&pool, 65, &["m01.safetensors"]);
}

#[test]
fn a_duplicate_key() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change_header("m01", |header| header.replace("\"vit.layernorm.weight\"", "\"vit.layernorm.bias\""));
    check_pool(&pool, 65, &["m01.safetensors", "vit.layernorm.bias", "twice"]);
}

#[test]
fn a_mismatched_shape() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change_header("m01", |header| {
        let at = header.find("\"classifier.weight\"").unwrap();
        let (before, after) = header.split_at(at);
        format!("{before}{}", after.replacen("[10,64]", "[64,10]", 1))
    });
    check_pool(&pool, 65, &["\"m01\"", "classifier.weight", "[64, 10]", "[10, 64]", "\"m00\""]);
}

#[test]
fn a_missing_tensor() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change_header("m01", |header| header.replace("\"vit.layernorm.weight\"", "\"vit.layernorm.scale\""));
    check_pool(&pool, 65, &["\"m01\"", "vit.layernorm.weight"]);
}

#[test]
fn a_missing_pool() {
    let pool = Pool::of(&["m00"]);
    let args = ["--validation", &validation(), "--pool", "/nowhere/at/all"];
    check(&pool, &args, 65, &["/nowhere/at/all"]);
}

#[test]
fn an_empty_pool() {
    check_pool(&Pool::of(&[]), 65, &["no checkpoints", "model.safetensors"]);
}

#[test]
fn nan_is_refused_and_can_be_allowed() {
    let pool = Pool::of(&["m00", "m01"]);
    pool.change("m01", |bytes| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    check_pool(&pool, 65, &["\"m01\"", "vit.layernorm.weight", "1 NaN", "--allow-nan"]);
    let dir = TempDir::new().unwrap();
    let output = cook_in(dir.path(), &pool, &["--validation", &validation(), "--allow-nan", "-o", "json"]);
    let result = output.json();
    assert!(result["notes"].to_string().contains("m01"), "{result}");
    // Every logit is NaN: no sample counts as correct.
    assert_eq!(result["score"]["correct"], 0);
}

#[test]
fn an_unwritable_output() {
    // The superuser may write anywhere, but nobody can make a folder inside a file.
    let pool = Pool::of(&["m00"]);
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let output = cook_in(dir.path(), &pool, &["--validation", &validation(), "--output", "file/soup"]);
    output.fails(78, &["file/soup"]);
    assert_eq!(Pool::list(dir.path()), ["file"]);
}

#[test]
fn an_existing_output_is_kept_unless_told_otherwise() {
    let pool = Pool::of(&["m00", "m10"]);
    let dir = TempDir::new().unwrap();
    let args = ["--validation", &validation(), "-o", "json"];
    let first = cook_in(dir.path(), &pool, &args).json();
    // Another run is not let in; the same one is done already, and says so again.
    let other = cook_in(dir.path(), &pool, &[&args[..], &["--metric", "loss"]].concat());
    other.fails(2, &["soup", "--overwrite"]);
    assert_eq!(cook_in(dir.path(), &pool, &args).json(), first);
    let manifest = || std::fs::read_to_string(dir.path().join("soup/soup.json")).unwrap();
    assert!(manifest().contains(first["run"].as_str().unwrap()));
    let replaced = cook_in(dir.path(), &pool, &[&args[..], &["--overwrite"]].concat()).json();
    assert!(manifest().contains(replaced["run"].as_str().unwrap()));
    assert_eq!(Pool::list(dir.path()), ["soup"]);
}

#[test]
fn no_labels() {
    let pool = Pool::of(&["m00"]);
    let args = ["--validation", &validation()];
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("cook.yaml");
    let yaml = format!("validation:\n  url: {}\n  label-column: colour\n", args[1]);
    std::fs::write(&file, yaml).unwrap();
    let output = cook_in(dir.path(), &pool, &["-f", file.to_str().unwrap()]);
    output.fails(65, &["test_noisy.parquet", "no labels", "colour"]);
    assert_eq!(Pool::list(dir.path()), ["cook.yaml"]);
}

#[test]
fn a_missing_dataset() {
    check(&Pool::of(&["m00"]), &["--validation", "/nowhere/val.parquet"], 65, &["/nowhere/val.parquet"]);
}

#[test]
fn a_failed_run_leaves_no_folders_on_the_way_to_its_output() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "no data").unwrap();
    let notes = dir.path().join("notes.txt");
    let args = ["--validation", notes.to_str().unwrap(), "--output", "a/b/soup", "--state-url", "state"];
    cook_in(dir.path(), &Pool::of(&["m00"]), &args).fails(65, &["notes.txt"]);
    assert_eq!(Pool::list(dir.path()), ["notes.txt", "state"], "only the journal says what happened");
}

#[test]
fn credentials_in_urls_are_refused_and_not_repeated() {
    let validation = validation();
    let args = ["--pool", "s3://user:s3cr3t@bucket/pool", "--validation", &validation];
    let output = Soupctl::new(SOUPCTL).args(["cook"]).args(args).run();
    assert!(!output.stderr.contains("s3cr3t"), "{}", output.stderr);
    output.fails(2, &["bucket/pool", "environment"]);
}

#[test]
fn a_dataset_that_is_not_parquet() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("val.parquet");
    std::fs::write(&file, "no parquet").unwrap();
    check(&Pool::of(&["m00"]), &["--validation", file.to_str().unwrap()], 65, &["val.parquet"]);
}

#[test]
fn an_unknown_architecture() {
    let pool = Pool::of(&["m00"]);
    std::fs::write(pool.path().join("config.json"), r#"{"model_type": "swinv2"}"#).unwrap();
    check_pool(&pool, 65, &["unknown architecture \"swinv2\"", "ViTForImageClassification"]);
}

#[test]
fn a_missing_configuration() {
    let pool = Pool::of(&["m00"]);
    std::fs::remove_file(pool.path().join("config.json")).unwrap();
    check_pool(&pool, 65, &["config.json", "--model-config"]);
}

#[test]
fn a_model_that_does_not_fit_its_configuration() {
    let pool = Pool::of(&["m00"]);
    let config = std::fs::read_to_string(pool.path().join("config.json")).unwrap();
    let config = config.replace("\"hidden_size\": 64", "\"hidden_size\": 32");
    std::fs::write(pool.path().join("config.json"), config).unwrap();
    check_pool(&pool, 65, &["shape"]);
}

#[test]
fn an_unreachable_coordinator() {
    // A port that was free a moment ago; nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    check(&Pool::of(&["m00"]), &["--validation", &validation(), "--coordinator", &url], 69, &[&url]);
}

#[test]
fn a_pool_that_does_not_fit_into_memory() {
    let pool = Pool::of(&["m00", "m01", "m02"]);
    let args = ["--validation", &validation(), "--workers", "1", "--memory", "1MiB"];
    check(&pool, &args, 78, &["MiB", "--memory"]);
}

#[test]
fn wrong_flags() {
    let usage = |args: &[&str], parts: &[&str]| Soupctl::new(SOUPCTL).args(args).run().fails(2, parts);
    usage(&["cook", "--recipe", "stew"], &["stew", "greedy"]);
    usage(&["cook"], &["pool"]);
    usage(&["cook", "--pool", "x", "--validation", "y", "--batch-size", "0"], &["batch-size"]);
    usage(&["cook", "--pool", "x", "--validation", "y", "--test", "a=b", "--test", "a=c"], &["\"a\""]);
    usage(&["fry"], &["fry"]);
}

#[test]
fn an_unknown_key_in_a_cook_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("cook.yaml");
    std::fs::write(&file, "pool: .\nvalidaton: x.parquet\n").unwrap();
    let output = Soupctl::new(SOUPCTL).args(["cook", "-f", file.to_str().unwrap()]).run();
    output.fails(2, &["cook.yaml", "validaton"]);
}

/// Reads from a client of HTTP/2 until it has asked for something: past its preface, up to the first frame of headers.
fn read_request(stream: &mut std::net::TcpStream) {
    const PREFACE_BYTES: usize = 24;
    const HEADERS: u8 = 1;
    let mut read = |bytes: usize| {
        let mut buffer = vec![0; bytes];
        std::io::Read::read_exact(stream, &mut buffer).ok().map(|()| buffer)
    };
    let mut next = read(PREFACE_BYTES);
    while next.is_some() {
        let Some(head) = read(9) else { return };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        next = read(length);
        if head[3] == HEADERS {
            return;
        }
    }
}

/// Something that takes connections and is no coordinator: a web server, or what says nothing. Gives its URL.
fn no_coordinator(answer: Option<&'static str>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().map(Result::unwrap) {
            if let Some(answer) = answer {
                read_request(&mut stream);
                let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
            }
            // Closed, it would say by that what it is to say by its answer.
            kept.push(stream);
        }
    });
    url
}

const WEB_SERVER: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn a_worker_where_no_coordinator_is_gives_up() {
    for (answer, expected) in
        [(Some(WEB_SERVER), "does not speak HTTP/2: it is no coordinator"), (None, "says nothing")]
    {
        let url = no_coordinator(answer);
        let args = ["worker", "--connect-timeout", "1s", "--coordinator", &url];
        let output = Soupctl::new(SOUPCTL).args(args).run();
        output.fails(69, &[expected, &format!("no coordinator has answered at {url} for 1 s")]);
    }
}

#[test]
fn a_client_where_a_web_server_is_says_so() {
    let url = no_coordinator(Some(WEB_SERVER));
    let pool = example().display().to_string();
    for args in [
        &["runs"][..],
        &["judges"],
        &["cook", "--pool", &pool, "--recipe", "uniform", "--output", "/tmp/no-soup"],
    ] {
        let output = Soupctl::new(SOUPCTL).args(args).args(["--coordinator", &url]).run();
        output.fails(69, &["does not speak HTTP/2", &url]);
    }
}

#[test]
fn a_state_that_is_not_there_is_no_empty_one() {
    let dir = TempDir::new().unwrap();
    for args in [&["runs"][..], &["status", "greedy-0123456789ab"]] {
        let output = Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args(["--state-url", "stat"]).run();
        output.fails(2, &["there is no state at", "stat: it does not exist"]);
    }
    assert!(!dir.path().join("stat").exists());
    std::fs::create_dir(dir.path().join("stat")).unwrap();
    let args = ["status", "greedy-0123456789ab", "--state-url", "stat"];
    let output = Soupctl::new(SOUPCTL).dir(dir.path()).args(args).run();
    output.fails(2, &["there is no run \"greedy-0123456789ab\" in state ", "stat; soupctl runs lists them"]);
}

/// A terminal obeys what is printed: no name, and no text of a store, has a control character in it when it is shown.
#[test]
fn nothing_that_a_terminal_obeys_is_printed() {
    let dir = TempDir::new().unwrap();
    let pool = Pool::of(&["m00"]);
    let odd = "x\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}y";
    let named = [
        vec!["cook", "--pool", odd, "--recipe", "uniform", "--output", "soup"],
        vec!["cook", "--pool", pool.path().to_str().unwrap(), "--recipe", "uniform", "--output", odd],
        vec!["cook", "--pool", "p", "--validation", odd, "--output", "soup"],
        vec!["inspect", odd],
        vec!["runs", "--state-url", odd],
        vec!["log", odd, "--state-url", "state"],
        vec!["runs", "--coordinator", odd],
        vec!["cook", "-f", odd],
    ];
    for args in named {
        let output = Soupctl::new(SOUPCTL).dir(dir.path()).args(&args).run();
        let all = [&output.stdout[..], &output.stderr].concat();
        let shown = all.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(shown, None, "{args:?}: {all:?}");
    }
}

/// A limit on the size of files is an error that names the file, and no death without a word.
#[test]
fn a_file_that_may_not_grow_is_named() {
    let dir = TempDir::new().unwrap();
    let command = format!(
        "ulimit -f 300; exec {SOUPCTL} cook --pool {} --recipe uniform --output soup",
        example().display()
    );
    let output = Soupctl::new("sh").dir(dir.path()).args(["-c", &command]).run();
    assert!(output.code > 0, "{}: {}", output.code, output.stderr);
    assert!(output.stderr.contains("File too large"), "{}", output.stderr);
    assert!(!dir.path().join("soup").exists());
}

/// What other programs on the same runtime are told in the environment is no reason to panic.
#[test]
fn a_number_of_threads_that_is_none_is_not_taken() {
    for threads in ["0", "many"] {
        let dir = TempDir::new().unwrap();
        let program = Soupctl::new(SOUPCTL).dir(dir.path()).env("TOKIO_WORKER_THREADS", threads);
        program.args(["runs", "--state-url", "nowhere"]).run().fails(2, &["there is no state at"]);
    }
}
