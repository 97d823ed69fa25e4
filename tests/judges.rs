//! Judges that are programs of their own: the same soup on any cluster, whoever is killed, and whatever they do wrong is said.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use soup_tests::{Cluster, PATIENCE, Pool, Soupctl, judge, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");
const JUDGE: &str = env!("CARGO_BIN_EXE_soup-judge-under-test");

/// The set that decides, and one that is reported on.
const DATA: [&str; 4] = ["--validation", "lin:points/400/1", "--test", "other=lin:points/150/2"];

/// A folder with a pool of linear models.
fn kitchen() -> TempDir {
    let dir = TempDir::new().unwrap();
    judge::pool(&dir.path().join("pool"), 6);
    dir
}

/// Where a judge notes what it did.
fn notes(dir: &Path) -> PathBuf {
    dir.join("notes")
}

/// The judge `lin` as a worker starts it, with these options; and where it notes what it did.
fn started_by_worker(dir: &Path, options: &str) -> String {
    format!("lin=cmd:exec {JUDGE} --notes {} {options}", notes(dir).display())
}

/// A cook in an embedded cluster, of the judge with these options, into the folder `soup`.
fn cook(dir: &Path, options: &str, args: &[&str]) -> Soupctl {
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "--pool", "pool", "--judge", &started_by_worker(dir, options)])
        .args(if args.contains(&"--batch-size") { &[][..] } else { &["--batch-size", "16"] })
        .args(["--judge-dir", ".", "--output", "soup", "--overwrite", "--fresh", "-o", "json"])
        .args(DATA)
        .args(args)
}

/// A cook on a cluster, of the judge that its workers have.
fn submit(cluster: &Cluster, dir: &Path, args: &[&str]) -> Soupctl {
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "--pool", "pool", "--judge", "lin", "--batch-size", "16", "--output", "soup"])
        .args(["--coordinator", &cluster.url, "--overwrite", "-o", "json"])
        .args(DATA)
        .args(args)
}

/// What the soup is, and by which decisions.
fn essence(result: &Value) -> Value {
    let keys = ["sha256", "ingredients", "score", "ranking", "trials", "test", "baselines", "judge"];
    keys.iter().map(|key| ((*key).to_owned(), result[*key].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn times(dir: &Path, what: &str) -> usize {
    std::fs::read_to_string(notes(dir)).unwrap_or_default().lines().filter(|line| *line == what).count()
}

/// The processes of judges that note in `dir`.
fn judges(dir: &Path) -> Vec<String> {
    let marker = notes(dir).display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pid = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    let is_judge = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.starts_with(JUDGE) && line.contains(&marker)
    };
    all.filter_map(pid).filter(|pid| pid.bytes().all(|b| b.is_ascii_digit())).filter(is_judge).collect()
}

fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < PATIENCE, "it did not come to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: &str) {
    // It may have ended by itself.
    let _ = Command::new("kill").args(["-9", pid]).output();
}

/// Whether a process runs: one that was killed and that nobody has buried does not.
fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn the_same_soup_comes_of_one_two_and_three_workers() {
    let dir = kitchen();
    let first = cook(dir.path(), "", &[]).run().json();
    let verdicts: Vec<&Value> = first["trials"].as_array().unwrap().iter().map(|t| &t["verdict"]).collect();
    assert!(verdicts.contains(&&"accepted".into()) && verdicts.contains(&&"rejected".into()), "{verdicts:?}");
    assert_eq!(first["judge"]["name"], "lin");
    assert!(strings(&first["notes"]).contains(&"made of points"));
    for workers in ["2", "3"] {
        let again = cook(dir.path(), "", &["--workers", workers]).run().json();
        assert_eq!(essence(&again), essence(&first), "{workers} workers");
    }
    // Nothing is left of what was handed over, nor of the judges.
    assert_eq!(Pool::list(dir.path()), ["notes", "pool", "soup"]);
    until(|| judges(dir.path()).is_empty());
}

#[test]
fn counts_are_those_of_the_soup_that_was_written() {
    let dir = kitchen();
    let result = cook(dir.path(), "", &[]).run().json();
    let file = std::fs::read(dir.path().join("soup/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let values = |name: &str| {
        let chunks = tensors.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
        chunks.into_iter().map(|b| f64::from(f32::from_le_bytes(b))).collect::<Vec<_>>()
    };
    let (weight, bias) = (values("weight"), values("bias"));
    let correct = |samples: u64, seed: u64| {
        let right = |position: &u64| {
            let (x, label) = judge::point(seed, *position);
            let logit = |class: usize| {
                let row = &weight[class * judge::FEATURES..][..judge::FEATURES];
                row.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>() + bias[class]
            };
            let logits: Vec<f64> = (0..judge::CLASSES).map(logit).collect();
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            logits.iter().position(|l| *l == most) == Some(label as usize)
        };
        (0..samples).filter(right).count()
    };
    assert_eq!(result["score"]["correct"], correct(400, 1));
    assert_eq!(result["test"]["other"]["correct"], correct(150, 2));
}

#[test]
fn sums_decide_by_their_own_metric() {
    let dir = kitchen();
    let result = cook(dir.path(), "--sums", &["--metric", "perplexity"]).run().json();
    let of = |score: &Value| score["value"].as_f64().unwrap();
    let trials = result["trials"].as_array().unwrap();
    let best = trials.iter().filter(|t| t["verdict"] == "accepted").map(of).fold(f64::INFINITY, f64::min);
    assert_eq!(of(&result["score"]), best, "{result:#}");
    let again = cook(dir.path(), "--sums", &["--metric", "perplexity", "--workers", "3"]).run().json();
    assert_eq!(essence(&again), essence(&result));
    // By what the judge promises of its figures verdicts are certain early, and what they are.
    let full = cook(dir.path(), "--sums", &["--metric", "perplexity", "--evaluate", "full"]).run().json();
    let verdicts = |result: &Value| -> Vec<(Value, Value)> {
        let trials = result["trials"].as_array().unwrap();
        trials.iter().map(|t| (t["ingredient"].clone(), t["verdict"].clone())).collect()
    };
    assert_eq!((&result["sha256"], verdicts(&result)), (&full["sha256"], verdicts(&full)));
    let early = |t: &&Value| t["evaluated"].as_u64() < t["out_of"].as_u64();
    assert!(trials.iter().filter(early).all(|t| t["verdict"] == "rejected" && t["bound"].is_f64()));
    assert!(trials.iter().any(|t| early(&t)), "{result:#}");
    let broken =
        cook(dir.path(), "--sums --fault tokens", &["--metric", "perplexity", "--workers", "1"]).run();
    broken.fails(1, &["judge lin said that tokens is the same of all soups"]);
    let refused = cook(dir.path(), "--sums", &[]).run();
    refused.fails(2, &["there is no metric \"accuracy\", there are perplexity"]);
    let learned = ["--metric", "perplexity", "--recipe", "learned"];
    cook(dir.path(), "--sums", &learned).run().fails(2, &["needs gradients, which judge lin does not give"]);
    let full = ["--metric", "perplexity", "--diagnose", "full"];
    cook(dir.path(), "--sums", &full).run().fails(2, &["needs logits, which judge lin does not give"]);
}

#[test]
fn learned_soups_work_through_a_judge_on_any_number_of_workers() {
    let dir = kitchen();
    let args = ["--recipe", "learned", "--epochs", "6", "--mini-batch", "64", "--lr", "0.2"];
    let first = cook(dir.path(), "", &args).run().json();
    let again = cook(dir.path(), "", &[&args[..], &["--workers", "3"]].concat()).run().json();
    assert_eq!(essence(&again), essence(&first));
    assert_eq!(again["learned"], first["learned"]);
    let losses: Vec<f64> =
        first["learned"]["steps"].as_array().unwrap().iter().map(|s| s["loss"].as_f64().unwrap()).collect();
    assert!(losses.last().unwrap() < &(0.97 * losses[0]), "nothing was learned: {losses:?}");
}

#[test]
fn a_full_diagnosis_works_through_a_judge() {
    let dir = kitchen();
    let first = cook(dir.path(), "", &["--diagnose", "full"]).run().json();
    let again = cook(dir.path(), "", &["--diagnose", "full", "--workers", "2"]).run().json();
    assert_eq!(first["diagnosis"], again["diagnosis"]);
    assert!(first["diagnosis"].to_string().contains("stack"), "{:#}", first["diagnosis"]);
}

#[test]
fn parts_of_a_dataset_are_positions_of_the_whole() {
    let dir = kitchen();
    // The first half of the samples is the dataset that the limit makes of it.
    std::fs::write(dir.path().join("cook.yaml"), "validation: {url: 'lin:points/400/1', limit: 200}\n")
        .unwrap();
    let base = |args: &[&str]| {
        Soupctl::new(SOUPCTL)
            .dir(dir.path())
            .args(["cook", "--pool", "pool", "--judge", &started_by_worker(dir.path(), "")])
            .args(["--batch-size", "16", "--output", "soup", "--overwrite", "--fresh", "-o", "json"])
            .args(args)
            .run()
            .json()
    };
    let limited = base(&["-f", "cook.yaml"]);
    let whole = base(&["--validation", "lin:points/200/1"]);
    assert_eq!(limited["score"]["total"], 200);
    assert_eq!(essence(&limited), essence(&whole));
}

/// What is done wrong each time ends the run with a text that says so; none of it is believed.
#[test]
fn what_a_judge_must_not_do_is_said() {
    let dir = kitchen();
    let silent = ["--judge-timeout", "300ms"];
    let cases: [(&str, &[&str], i32, &str); 9] = [
        (
            "silent",
            &silent,
            1,
            "judge lin: it said nothing for 0.3 s while it was to judge (--judge-timeout)",
        ),
        ("counts", &[], 1, "told of 15 labels, 15 predictions and 15 losses, for 16 samples"),
        ("labels", &[], 1, "label 3 and prediction"),
        ("generation", &[], 1, "answered for generation 2, asked about 1"),
        ("twice", &[], 1, "answered more blocks than there are"),
        ("infinite", &[], 1, "gave a loss of minus infinity"),
        ("fails", &[], 1, "it failed: ZeroDivisionError: \\u{1b}[31mdivision by zero"),
        ("refuses", &[], 65, "sample 3 has no text"),
        ("order", &["--batch-size", "1"], 1, "answered block 6 when block 0 was due"),
    ];
    for (fault, args, code, text) in cases {
        let output = cook(dir.path(), &format!("--fault {fault}"), args).run();
        assert!(!output.stderr.contains('\u{1b}'), "{fault}");
        output.fails(code, &[text]);
        assert!(!dir.path().join("soup").exists(), "{fault}");
    }
}

#[test]
fn not_a_number_is_the_worst_answer_and_no_failure() {
    let dir = kitchen();
    let clean = cook(dir.path(), "", &[]).run().json();
    let nan = cook(dir.path(), "--fault nan", &[]).run().json();
    assert_eq!((&nan["sha256"], &nan["ingredients"]), (&clean["sha256"], &clean["ingredients"]));
    cook(dir.path(), "--fault nan", &["--metric", "loss", "--recipe", "best-single"]).run().json();
}

#[test]
fn a_judge_that_says_two_things_is_told_of() {
    let dir = kitchen();
    let result = cook(dir.path(), "--fault random", &[]).run().json();
    let notes = strings(&result["notes"]);
    assert!(notes.iter().any(|note| note.contains("not deterministic")), "{notes:?}");
}

#[test]
fn a_fault_that_passes_costs_a_slice_and_not_the_soup() {
    let dir = kitchen();
    let clean = cook(dir.path(), "", &[]).run().json();
    for (fault, times) in [("dies", 3), ("cuts", 99)] {
        std::fs::remove_file(notes(dir.path())).unwrap();
        let result = cook(dir.path(), &format!("--fault {fault} --times {times}"), &[]).run();
        assert_eq!(essence(&result.json()), essence(&clean), "{fault}");
    }
    // With others to go to, also those that are not tried again where they were.
    for fault in ["counts", "twice", "fails", "silent"] {
        std::fs::remove_file(notes(dir.path())).unwrap();
        let args = ["--workers", "3", "--judge-timeout", "2s"];
        let result = cook(dir.path(), &format!("--fault {fault} --times 1"), &args).run();
        assert_eq!(essence(&result.json()), essence(&clean), "{fault}");
        assert_eq!(times(dir.path(), "wrong"), 1, "{fault}");
    }
}

#[test]
fn killed_judges_change_nothing() {
    let dir = kitchen();
    let clean = cook(dir.path(), "", &[]).run().json();
    let mut cook = cook(dir.path(), "--pause 5", &["--workers", "2"]).start();
    for line in ["ranking  m01", "ranking  m04", "trial 1", "trial 3"] {
        cook.line_with(line);
        judges(dir.path()).iter().for_each(|pid| kill(pid));
    }
    assert_eq!(essence(&cook.wait().json()), essence(&clean));
}

#[test]
fn another_judge_under_the_same_name_is_refused() {
    let dir = kitchen();
    for (fault, text) in
        [("survey", "tells something else of the same datasets"), ("version", "since it was started again")]
    {
        let _ = std::fs::remove_file(notes(dir.path()));
        let mut cook = cook(dir.path(), &format!("--pause 20 --fault {fault}"), &[]).start();
        cook.line_with("ranking  m01");
        judges(dir.path()).iter().for_each(|pid| kill(pid));
        let output = cook.wait();
        assert!(output.stderr.contains(text) && output.code > 1, "{fault}: {}", output.stderr);
    }
}

#[test]
fn whatever_a_judge_started_ends_with_the_cook() {
    let dir = kitchen();
    cook(dir.path(), "--fault stubborn", &[]).run().json();
    let pids = std::fs::read_to_string(notes(dir.path()).with_extension("pids")).unwrap();
    assert_eq!(pids.lines().count(), 2);
    until(|| !pids.lines().any(alive));
}

#[test]
fn judges_end_with_a_killed_worker_and_what_it_left_is_removed() {
    let dir = kitchen();
    let mut cook = cook(dir.path(), "--pause 20", &[]).start();
    cook.line_with("ranking  m01");
    cook.kill();
    until(|| judges(dir.path()).is_empty());
    let left = |dir: &Path| Pool::list(dir).iter().filter(|name| name.starts_with("soup-judge-")).count();
    assert_eq!(left(dir.path()), 1);
    self::cook(dir.path(), "", &[]).run().json();
    assert_eq!(left(dir.path()), 0);
}

#[test]
fn a_judge_that_never_serves_is_told_of_with_what_it_printed() {
    let dir = kitchen();
    let with = |command: &str, args: &[&str]| {
        let judge = format!("lin={command}");
        Soupctl::new(SOUPCTL)
            .dir(dir.path())
            .args(["cook", "--pool", "pool", "--output", "soup", "--judge", &judge])
            .args(DATA)
            .args(args)
            .run()
    };
    with("cmd:echo no module named torch >&2; exit 1", &[])
        .fails(69, &["judge lin", "has ended before it served", "no module named torch"]);
    with("cmd:true", &["--judge-dir", "missing"]).fails(78, &["--judge-dir"]);
    with("unix:/run/x.sock", &["--workers", "2"]).fails(2, &["serves one worker"]);
    with("tcp:host:1", &[]).fails(2, &["neither unix:/path/of/socket nor cmd:COMMAND"]);
}

#[test]
fn no_command_comes_from_a_cook_file_or_a_submitted_run() {
    let dir = kitchen();
    let marker = dir.path().join("marker");
    let file =
        format!("pool: pool\nvalidation: lin:points/9/1\njudge: 'lin=cmd:touch {}'\n", marker.display());
    std::fs::write(dir.path().join("cook.yaml"), file).unwrap();
    let soupctl = || Soupctl::new(SOUPCTL).dir(dir.path());
    soupctl().args(["cook", "-f", "cook.yaml"]).run().fails(2, &["does not say what it is"]);
    let command = format!("lin=cmd:touch {}", marker.display());
    let remote = ["cook", "--pool", "pool", "--coordinator", "127.0.0.1:1", "--judge", &command];
    soupctl().args(remote).args(DATA).run().fails(2, &["is about an embedded cluster"]);
    soupctl()
        .args(["cook", "--pool", "pool", "--judge", "lin"])
        .args(DATA)
        .run()
        .fails(2, &["nobody says where"]);
    assert!(!marker.exists());
}

#[test]
fn a_cluster_knows_its_judges_and_a_worker_of_another_truth_does_not_judge() {
    let dir = kitchen();
    let clean = cook(dir.path(), "", &[]).run().json();
    let mut cluster = Cluster::start(SOUPCTL, 1);
    cluster.workers[0].line_with("uses ");
    let nobody = submit(&cluster, dir.path(), &[]).run();
    nobody.fails(2, &["no worker has judge \"lin\", there are native"]);
    let good = format!("lin=cmd:exec {JUDGE}");
    let other = format!("lin=cmd:exec {JUDGE} --fault data");
    for judge in [&good, &other, &good] {
        cluster.add_worker_args(SOUPCTL, "", &["--judge", judge]);
    }
    let listed =
        || Soupctl::new(SOUPCTL).args(["judges", "--coordinator", &cluster.url, "-o", "json"]).run().json();
    until(|| listed().as_array().unwrap().len() == 4);
    let lin: Vec<Value> = listed()
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|worker| worker["judges"].as_array().unwrap().clone())
        .filter(|judge| judge["name"] == "lin")
        .collect();
    assert_eq!(lin.len(), 3);
    assert_eq!(strings(&lin[0]["abilities"]), ["logits", "gradients", "statistics"]);
    let table = Soupctl::new(SOUPCTL).args(["judges", "--coordinator", &cluster.url]).run();
    assert!(table.stdout.contains("points/SAMPLES/SEED"), "{}", table.stdout);
    let result = submit(&cluster, dir.path(), &["--min-workers", "4"]).run().json();
    let notes = strings(&result["notes"]).join("\n");
    assert!(notes.contains("does not judge") && notes.contains("do both have the same data?"), "{notes}");
    assert_eq!(notes.matches("does not judge").count(), 1, "{notes}");
    assert_eq!(essence(&result), essence(&clean));
}

#[test]
fn killed_workers_and_coordinators_change_nothing() {
    let dir = kitchen();
    let clean = cook(dir.path(), "", &[]).run().json();
    let mut cluster = Cluster::start_with(SOUPCTL, "");
    let judge = format!("lin=cmd:exec {JUDGE} --notes {} --pause 5", notes(dir.path()).display());
    for _ in 0..3 {
        cluster.add_worker_args(SOUPCTL, "", &["--judge", &judge]);
    }
    let mut cook = submit(&cluster, dir.path(), &["--min-workers", "3"]).start();
    cook.line_with("ranking  m02");
    cluster.workers[1].kill();
    cook.line_with("trial 1");
    cluster.coordinator.kill();
    cook.line_with("the coordinator is gone");
    judges(dir.path()).iter().for_each(|pid| kill(pid));
    cluster.restart_coordinator();
    // The run wants three again.
    cluster.add_worker_args(SOUPCTL, "", &["--judge", &judge]);
    cook.line_with("trial 3");
    cluster.workers[0].kill();
    assert_eq!(essence(&cook.wait().json()), essence(&clean));
}

#[test]
fn a_judge_at_a_socket_is_used_and_left_alone() {
    let dir = kitchen();
    let clean = cook(dir.path(), "", &[]).run().json();
    let socket = dir.path().join("lin.sock");
    let mut judge = Command::new(JUDGE).args(["--socket", socket.to_str().unwrap()]).spawn().unwrap();
    let flag = format!("lin=unix:{}", socket.display());
    for _ in 0..2 {
        let args = ["cook", "--pool", "pool", "--judge", &flag, "--batch-size", "16", "--output", "soup"];
        let more = ["--overwrite", "--fresh", "-o", "json"];
        let result = Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args(more).args(DATA).run().json();
        assert_eq!(essence(&result), essence(&clean));
    }
    assert!(judge.try_wait().unwrap().is_none(), "it is somebody else's");
    judge.kill().unwrap();
    judge.wait().unwrap();
}

#[test]
fn a_plan_asks_the_judge() {
    let dir = kitchen();
    let plan = |args: &[&str]| {
        let judge = started_by_worker(dir.path(), "");
        let base = ["plan", "--pool", "pool", "--judge", &judge, "-o", "json"];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(base).args(args).run()
    };
    let report = plan(&DATA).json();
    assert_eq!(report["datasets"][0]["samples"], 400);
    assert_eq!(report["datasets"][1]["samples"], 150);
    assert!(strings(&report["notes"]).contains(&"made of points"));
    plan(&["--validation", "lin:nowhere"]).fails(65, &["there is no dataset \"nowhere\""]);
    let perplexity = [&DATA[..], &["--metric", "perplexity"]].concat();
    plan(&perplexity).fails(2, &["there is no metric \"perplexity\""]);
}

/// A pool of models with running statistics, cooked with these flags.
fn cook_normalised(dir: &Path, options: &str, args: &[&str]) -> Soupctl {
    judge::normalised_pool(&dir.join("pool"), 6);
    cook(dir, options, args)
}

const RECOMPUTE: [&str; 4] = ["--batch-norm", "recompute", "--calibration", "lin:points/90/7"];

#[test]
fn running_statistics_are_recomputed_judged_and_written() {
    let dir = TempDir::new().unwrap();
    let first = cook_normalised(dir.path(), "", &RECOMPUTE).run().json();
    let file = dir.path().join("soup/model.safetensors");
    // What is written is what was judged, and what is in it is what the soup has on the calibration set.
    assert_eq!(first["score"]["correct"], judge::correct(&file, 400, 1));
    assert_eq!(first["test"]["other"]["correct"], judge::correct(&file, 150, 2));
    let (mean, variance) = judge::statistics(&file, 7, 90, 16);
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let written = |name: &str| tensors.tensor(name).unwrap().data().to_vec();
    let values = |of: &[f32]| of.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(written("norm.running_mean"), values(&mean));
    assert_eq!(written("norm.running_var"), values(&variance));
    let said = &first["batch_norm"];
    assert_eq!(said["statistics"], "recompute");
    assert_eq!((&said["tensors"], &said["samples"]), (&2.into(), &90.into()));
    let sha256 = soup_core::journal::sha256_hex(&[values(&mean), values(&variance)].concat());
    assert_eq!(said["sha256"], sha256.as_str());
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("soup/soup.json")).unwrap()).unwrap();
    assert_eq!(manifest["report"]["batch_norm"], *said);
    for workers in ["2", "3"] {
        let args = [&RECOMPUTE[..], &["--workers", workers]].concat();
        let again = cook_normalised(dir.path(), "", &args).run().json();
        assert_eq!(essence(&again), essence(&first), "{workers} workers");
        assert_eq!(again["batch_norm"], *said);
    }
    // Fewer samples are other statistics, and so is another handling of them.
    let mut seen = vec![first["sha256"].clone()];
    for args in [
        &["--batch-norm", "recompute", "--calibration", "lin:points/80/7"][..],
        &["--batch-norm", "average"],
        &["--batch-norm", "first"],
    ] {
        let other = cook_normalised(dir.path(), "", &[args, &["--recipe", "uniform"]].concat()).run().json();
        assert!(!seen.contains(&other["sha256"]), "{args:?}");
        assert_eq!(other["score"]["correct"], judge::correct(&file, 400, 1), "{args:?}");
        seen.push(other["sha256"].clone());
    }
}

#[test]
fn the_first_ingredients_statistics_are_taken_to_the_bit() {
    let dir = TempDir::new().unwrap();
    let args = ["--batch-norm", "first", "--recipe", "uniform"];
    let judged = cook_normalised(dir.path(), "", &args).run().json();
    let tensor = |file: &str, name: &str| {
        let bytes = std::fs::read(dir.path().join(file)).unwrap();
        safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
    };
    for name in ["norm.running_mean", "norm.running_var"] {
        let first = tensor("pool/ingredients/m00.safetensors", name);
        assert_eq!(tensor("soup/model.safetensors", name), first, "{name}");
    }
    assert_ne!(
        tensor("soup/model.safetensors", "scale"),
        tensor("pool/ingredients/m00.safetensors", "scale")
    );
    // Without data the same.
    let plain = Soupctl::new(SOUPCTL)
        .dir(dir.path())
        .args(["cook", "--pool", "pool", "--output", "plain", "-o", "json"])
        .args(args)
        .run()
        .json();
    assert_eq!(plain["sha256"], judged["sha256"]);
}

#[test]
fn nothing_is_guessed_of_running_statistics() {
    let dir = TempDir::new().unwrap();
    let refused = |code, args: &[&str], expected: &str| {
        cook_normalised(dir.path(), "", args).run().fails(code, &[expected]);
    };
    refused(2, &[], "say what becomes of them with --batch-norm");
    refused(2, &["--batch-norm", "recompute"], "--calibration");
    refused(2, &["--calibration", "lin:points/9/7"], "--batch-norm recompute");
    refused(
        2,
        &[&RECOMPUTE[..], &["--recipe", "learned", "--train", "lin:points/50/3"]].concat(),
        "learned recipe",
    );
    refused(65, &["--batch-norm", "recompute", "--calibration", "lin:lines/9"], "there is no dataset");
    let averaged = Soupctl::new(SOUPCTL)
        .dir(dir.path())
        .args(["cook", "--pool", "pool", "--recipe", "uniform", "--output", "plain"])
        .run();
    averaged.fails(2, &["running statistics of BatchNorm"]);
    let sums = cook_normalised(dir.path(), "--sums", &[&RECOMPUTE[..], &["--metric", "perplexity"]].concat());
    sums.run().fails(2, &["needs statistics, which judge lin does not give"]);
    let plain = kitchen();
    cook(plain.path(), "", &RECOMPUTE).run().fails(2, &["the pool has no running statistics"]);
    let noted = cook(plain.path(), "", &["--batch-norm", "average"]).run().json();
    assert!(strings(&noted["notes"]).iter().any(|note| note.contains("changes nothing")));
}

#[test]
fn statistics_that_cannot_be_are_said() {
    for (fault, expected) in [
        ("nan-statistics", "\"norm.running_var\" to something that is not finite"),
        ("no-statistics", "was cut short"),
    ] {
        let dir = TempDir::new().unwrap();
        cook_normalised(dir.path(), &format!("--fault {fault}"), &RECOMPUTE).run().fails(1, &[expected]);
        assert!(!dir.path().join("soup").exists());
    }
    // Two judges that come to different bits: nobody can tell who is right.
    let dir = TempDir::new().unwrap();
    let args = [&RECOMPUTE[..], &["--workers", "2"]].concat();
    let random = cook_normalised(dir.path(), "--fault random-statistics", &args).run();
    random.fails(78, &["it recomputed other running statistics"]);
}

#[test]
fn killed_judges_recompute_the_same_statistics() {
    let dir = TempDir::new().unwrap();
    let calm = cook_normalised(dir.path(), "", &RECOMPUTE).run().json();
    let again = cook_normalised(
        dir.path(),
        "--fault dies --times 3",
        &[&RECOMPUTE[..], &["--workers", "2"]].concat(),
    );
    let shaken = again.run().json();
    assert_eq!(essence(&shaken), essence(&calm));
    assert_eq!(shaken["batch_norm"], calm["batch_norm"]);
}

#[test]
fn an_inspection_tells_of_running_statistics() {
    let dir = TempDir::new().unwrap();
    judge::normalised_pool(&dir.path().join("pool"), 2);
    let said = Soupctl::new(SOUPCTL).dir(dir.path()).args(["inspect", "pool", "-o", "json"]).run().json();
    assert!(
        strings(&said["notes"]).iter().any(|note| note.contains("2 running statistics of BatchNorm layers"))
    );
}
