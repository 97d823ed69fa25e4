//! Deterministic simulation: the real coordinator, workers and services on a simulated network, by a simulated clock.
//!
//! Every seed is a world of its own: how long messages and computations take, which links are cut or stalled, which hosts
//! crash and when, what the store refuses, loses or does late, when a second coordinator appears. In every world the run has
//! to end, with the same soup, the same decisions and the same counts as where nothing goes wrong; its log has to be
//! sound all along ([`witness`]), and say so before anybody hears of it. The same seed is the same world, to the line, until a host dies.
//!
//! ```text
//! cargo test -p soup-tests --test simulation                          64 seeds
//! SOUP_SEEDS=10000 cargo test -p soup-tests --test simulation         so many, in parallel
//! SOUP_SEEDS=10000..20000 cargo test -p soup-tests --test simulation  those from one on, to before another
//! SOUP_SEED=17 cargo test -p soup-tests --test simulation -- --nocapture   one, with its log
//! ```

#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![allow(clippy::print_stdout)] // figures and logs are what these tests are asked for
#![allow(unreachable_pub)] // modules of a test

mod client;
mod faults;
mod liar;
mod log;
mod network;
mod pool;
mod random;
mod witness;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use soup_core::ErrorKind;
use soup_core::recipe::RecipeKind;
use soup_core::run::PPM;

use crate::faults::{Faults, WORKERS};
use crate::liar::Lie;
use crate::random::Random;
use crate::world::{Ended, PATIENCE, World};

/// Seeds that are simulated by default.
const SEEDS: u64 = 64;
/// And those beyond that failed once, with what they found:
/// a store that says "exists" where nothing is, when an output was claimed (224, 675); workers that stayed with a coordinator
/// that had no run any more (494; so did 50); a run that was published again by its next owner (707); an output that its next
/// owner emptied while it was being published (359) or found in its own way (2425, 3653, 4824); a run that was recovered without
/// having been accepted (4520); a coordinator that removed what was staged of a run while the next one wrote it (5947).
const ONCE_FAILED: [u64; 10] = [224, 359, 494, 675, 707, 2425, 3653, 4520, 4824, 5947];
/// The same, of worlds with judges of their own, liars and averages: what a shard was said to hold before an audit had settled that, held
/// against the log under the next coordinator (119, 791); two workers that differed, where the third was about to come back (340); soups that
/// the judge still had under the coordinator before (597, 829); what honest workers had said of soups with blends of one that lied, held against
/// what they said once it was out (220, 1372); a liar that was the first one back, whose word alone was held against the log (27004).
const FAILED_SINCE: [u64; 8] = [119, 220, 340, 597, 791, 829, 1372, 27004];
/// Within this simulated time faults begin: somewhat longer than a run takes undisturbed.
const WINDOW: Duration = Duration::from_secs(5);
/// Reads of an object that are wrong in turn.
const READS: u64 = 8;
/// Failing seeds after which no more are tried.
const FAILURES_MAX: usize = 5;
/// Lines of the log shown of a seed that fails.
const LINES_SHOWN: usize = 80;

fn world(seed: u64) -> World {
    let mut random = Random::new(seed, 1);
    let recipe = match random.number(0..20) {
        0..5 => RecipeKind::Pruned,
        5..10 => RecipeKind::Learned,
        _ => RecipeKind::Greedy,
    };
    // Without data. Seeds that once failed stay the worlds that they were.
    let averages = seed % 8 == 7 && !ONCE_FAILED.contains(&seed);
    let recipe = if averages { RecipeKind::Uniform } else { recipe };
    let lookahead = (random.number(0..4) as u32).checked_sub(1);
    let overwrite = random.number(0..3) == 0;
    // By a judge that is a program of its own.
    let judge = seed % 4 == 1 && !averages && !ONCE_FAILED.contains(&seed);
    let mut faults = Faults::of(seed, WINDOW);
    if seed % 4 == 2 && !ONCE_FAILED.contains(&seed) {
        faults = faults.and_silence(seed, WINDOW);
    }
    let mut liar = None;
    if seed % 8 == 4 && !ONCE_FAILED.contains(&seed) || seed % 32 == 23 {
        faults = faults.that_leave_workers_there();
        liar = Some(lies(&mut Random::new(seed, 5), averages));
    }
    // A liar needs to be found, and to be found changes nothing.
    let audit_ppm = if liar.is_some() || seed % 16 == 9 { PPM } else { 0 };
    World { seed, recipe, judge, lookahead, overwrite, faults, liar, audit_ppm, patience: PATIENCE }
}

/// Which worker lies about what. One that lies only once may do so while nobody else is there, after a coordinator died.
fn lies(random: &mut Random, averages: bool) -> (usize, Lie) {
    let all =
        if averages { &[Lie::Loads][..] } else { &[Lie::Slices, Lie::Loads, Lie::Blends, Lie::HandIns][..] };
    let lie = all[random.number(0..all.len() as u64) as usize];
    (random.number(0..WORKERS as u64) as usize, lie)
}

/// The report of a run in which nothing goes wrong, without what may differ between runs.
fn undisturbed(recipe: RecipeKind, judge: bool) -> &'static Value {
    static REPORTS: [[OnceLock<Value>; 4]; 2] = [const { [const { OnceLock::new() }; 4] }; 2];
    let reports = &REPORTS[usize::from(judge)];
    let slot = match recipe {
        RecipeKind::Pruned => &reports[0],
        RecipeKind::Learned => &reports[1],
        RecipeKind::Uniform => &reports[3],
        _ => &reports[2],
    };
    slot.get_or_init(|| {
        let world = World { judge, ..calm(recipe) };
        let (report, sha256) = world.simulate().result.unwrap();
        assert_eq!(report["sha256"], sha256.as_str());
        essence(report)
    })
}

/// A world in which nothing goes wrong.
fn calm(recipe: RecipeKind) -> World {
    let faults = Faults::none();
    World {
        seed: 0,
        recipe,
        judge: false,
        lookahead: Some(0),
        overwrite: false,
        faults,
        liar: None,
        audit_ppm: 0,
        patience: PATIENCE,
    }
}

/// What has to be equal.
fn essence(mut report: Value) -> Value {
    for name in ["run", "output", "seconds", "notes", "pool_bytes_read"] {
        report.as_object_mut().unwrap().remove(name);
    }
    report
}

/// What is wrong with how a world ended.
fn check(world: &World, ended: &Ended) -> Result<(), String> {
    let (report, sha256) = ended.result.as_ref().map_err(soup_core::Error::chain)?;
    if report["sha256"] != sha256.as_str() {
        return Err(format!("the output's SHA-256 is {sha256}, not {}", report["sha256"]));
    }
    let (found, expected) = (essence(report.clone()), undisturbed(world.recipe, world.judge));
    if found != *expected {
        return Err(format!("the report is\n{found:#}\nand not\n{expected:#}"));
    }
    Ok(())
}

fn number(name: &str, text: &str) -> u64 {
    text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}"))
}

/// `SOUP_SEEDS`: so many, or from one on to before another.
fn many() -> Option<Vec<u64>> {
    let (name, text) = ("SOUP_SEEDS", std::env::var("SOUP_SEEDS").ok()?);
    let (from, to) = text.split_once("..").unwrap_or(("0", &text));
    Some((number(name, from)..number(name, to)).collect())
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    counts: BTreeMap<&'static str, u64>,
    simulated: Duration,
    longest: Duration,
    failures: Vec<(u64, String, Vec<String>)>,
}

impl Totals {
    fn add(&mut self, world: &World, ended: &Ended, verdict: Result<(), String>) {
        self.seeds += 1;
        for (kind, count) in &ended.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.simulated += ended.simulated;
        self.longest = self.longest.max(ended.simulated);
        if let Err(why) = verdict {
            self.failures.push((world.seed, why, ended.log.clone()));
        }
    }
}

#[test]
fn every_world_cooks_the_same_soup() {
    let one = std::env::var("SOUP_SEED").ok().map(|text| number("SOUP_SEED", &text));
    let usual = || (0..SEEDS).chain(ONCE_FAILED).chain(FAILED_SINCE).collect();
    let seeds = one.map(|seed| vec![seed]).or_else(many).unwrap_or_else(usual);
    let show = one.is_some();
    let begun = Instant::now();
    let (next, totals) = (AtomicUsize::new(0), Mutex::new(Totals::default()));
    let work = || {
        loop {
            let next = next.fetch_add(1, Ordering::Relaxed);
            let Some(&seed) = seeds.get(next) else { return };
            if totals.lock().unwrap().failures.len() >= FAILURES_MAX {
                return;
            }
            let world = world(seed);
            let ended = catch_unwind(AssertUnwindSafe(|| world.simulate()));
            let ended = ended.unwrap_or_else(|_| panic!("seed {seed} panicked outside of its hosts"));
            if show {
                println!("{world:#?}\n{}", ended.log.join("\n"));
            }
            let verdict = check(&world, &ended);
            totals.lock().unwrap().add(&world, &ended, verdict);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let totals = totals.into_inner().unwrap();
    println!(
        "{} seeds, {:.1} s simulated (longest {:.1} s) in {:.1} s; {}",
        totals.seeds,
        totals.simulated.as_secs_f64(),
        totals.longest.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        totals.counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
    );
    for (seed, why, log) in &totals.failures {
        let tail = log[log.len().saturating_sub(LINES_SHOWN)..].join("\n");
        println!("seed {seed} FAILED: {why}\nlast lines of its log:\n{tail}\n");
    }
    let failed: Vec<u64> = totals.failures.iter().map(|f| f.0).collect();
    assert!(
        failed.is_empty(),
        "seeds {failed:?} failed; run one with its whole log: \
         SOUP_SEED={} cargo test -p soup-tests --test simulation -- --nocapture",
        failed[0]
    );
}

#[test]
fn an_undisturbed_world_decides_both_ways_and_counts_every_sample() {
    for recipe in [RecipeKind::Greedy, RecipeKind::Pruned] {
        let report = undisturbed(recipe, false);
        let totals = [&report["score"]["total"], &report["test"]["test"]["total"]];
        assert_eq!(
            totals.map(|t| t.as_u64().unwrap()),
            pool::SAMPLES.map(|(_, samples)| samples),
            "{report:#}"
        );
        let trials = report["trials"].as_array().unwrap();
        assert!(trials.len() >= 3, "{report:#}");
        let verdicts: std::collections::BTreeSet<&str> =
            trials.iter().map(|t| t["verdict"].as_str().unwrap()).collect();
        assert!(verdicts.len() == 2, "both verdicts should occur: {report:#}");
    }
}

/// What lies in the store is what is published, and not what was meant to lie there.
#[test]
fn a_file_in_which_a_bit_changed_is_written_again_and_never_published() {
    let faults = |flipped| Faults { flipped, ..Faults::none() };
    let world = |recipe, faults| World { faults, ..calm(recipe) };
    for recipe in [RecipeKind::Greedy, RecipeKind::Uniform] {
        for flipped in [1, 2] {
            let world = world(recipe, faults(flipped));
            let ended = world.simulate();
            check(&world, &ended).unwrap();
            assert_eq!(ended.counts["written bits changed"], flipped);
            let (report, _) = ended.result.unwrap();
            let notes = report["notes"].as_array().unwrap();
            let again = |note: &&Value| note.as_str().is_some_and(|n| n.ends_with("it is written again"));
            assert_eq!(notes.iter().filter(again).count() as u64, flipped, "{notes:?}");
        }
        // A run that ends so may be asked for again, and is, as long as the world goes on.
        let patience = Duration::from_secs(60);
        let ended = World { patience, ..world(recipe, faults(u64::MAX)) }.simulate();
        assert!(ended.result.is_err(), "{:?}", ended.result);
        let told = |line: &&String| line.contains("client: ") && line.contains("3 times in a row");
        assert!(ended.log.iter().filter(told).count() > 1, "{:#?}", ended.log);
    }
}

/// Whoever lies about what: where everything is audited it is named, and the soup is that of the honest. Where nothing is, the run ends.
#[test]
fn a_worker_that_lies_is_found_where_everything_is_audited() {
    for (lie, recipe) in Lie::ALL.into_iter().flat_map(|lie| {
        [RecipeKind::Greedy, RecipeKind::Learned, RecipeKind::Uniform].map(|recipe| (lie, recipe))
    }) {
        // Without data nothing is judged, and a mean does not depend on its order.
        let averages = recipe == RecipeKind::Uniform;
        if averages && lie != Lie::Loads {
            continue;
        }
        let mut found = 0;
        for liar in 0..WORKERS {
            let world = World { liar: Some((liar, lie)), audit_ppm: PPM, ..calm(recipe) };
            let ended = world.simulate();
            check(&world, &ended).unwrap_or_else(|why| panic!("{lie:?} of {liar}, {recipe:?}: {why}"));
            let (report, _) = ended.result.unwrap();
            let notes = report["notes"].as_array().unwrap();
            let named =
                notes.iter().filter(|n| n.as_str().is_some_and(|n| n.contains("is quarantined"))).count();
            assert!(named <= usize::from(lie.is_found()), "{lie:?} of {liar}, {recipe:?}: {notes:?}");
            found += named;
        }
        // Who has no shard has nothing to lie about there.
        assert!(found > 0 || !lie.is_found(), "{lie:?}, {recipe:?}");
        let world = World { liar: Some((1, lie)), ..calm(recipe) };
        let (report, _) = world.simulate().result.unwrap_or_else(|e| panic!("{lie:?}: {}", e.chain()));
        if lie == Lie::HandIns {
            assert_eq!(essence(report), *undisturbed(recipe, false));
        }
    }
}

/// A bit that changes once, as an ingredient or a sample is read: where everything is audited that makes no other soup. It may end the run.
#[test]
fn what_is_read_wrongly_once_makes_no_other_soup() {
    let (mut misread, mut cooked) = (0, 0);
    for (recipe, path) in [
        (RecipeKind::Greedy, "pool/b.safetensors"),
        (RecipeKind::Greedy, "validation/class1/001.png"),
        (RecipeKind::Uniform, "pool/b.safetensors"),
    ] {
        for which in 1..=READS {
            let faults = Faults { misread: Some((path.to_owned(), which)), ..Faults::none() };
            let world = World { faults, audit_ppm: PPM, ..calm(recipe) };
            let ended = world.simulate();
            if !ended.counts.contains_key("read bits changed") {
                break;
            }
            misread += 1;
            match &ended.result {
                Ok(_) => {
                    check(&world, &ended)
                        .unwrap_or_else(|why| panic!("read {which} of {path}, {recipe:?}: {why}"));
                    cooked += 1;
                }
                // Headers are read by the coordinator alone.
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Data | ErrorKind::Configuration | ErrorKind::Usage),
                    "{}",
                    error.chain()
                ),
            }
        }
    }
    println!("{misread} reads were wrong; {cooked} runs came to the same soup, the others ended");
    assert!(misread >= 10 && cooked * 2 > misread, "{misread} misread, {cooked} cooked");
}

/// Worlds in which a host dies are the same up to that moment. Then tokio drops the host's tasks in an order that depends on
/// how many tasks the whole process has had, and connections close in that order: whose peer hears of it first differs.
#[test]
fn the_same_seed_is_the_same_world() {
    let dies = |w: &World| w.faults.planned.iter().any(|p| p.fault.kills());
    let mut worlds: Vec<World> = (0..SEEDS).map(world).filter(|w| !dies(w)).collect();
    worlds.sort_by_key(|w| w.faults.planned.len());
    assert!(worlds.len() >= 3);
    worlds.iter().rev().take(3).for_each(check_is_the_same_again);
}

fn check_is_the_same_again(world: &World) {
    let (first, second) = (world.simulate(), world.simulate());
    let differs = first.log.iter().zip(&second.log).position(|(a, b)| a != b);
    if let Some(at) = differs {
        let around = |log: &[String]| log[at.saturating_sub(5)..(at + 2).min(log.len())].join("\n");
        panic!("line {at} differs:\n{}\n---\n{}", around(&first.log), around(&second.log));
    }
    assert_eq!(first.log.len(), second.log.len());
    assert_eq!(first.simulated, second.simulated);
    assert!(first.log.len() > 100);
}
