//! What is written down in a transcript.

use soup_core::journal::{Entry, SoupRecord};
use soup_core::machine::{Tier, Work, WorkerId};
use soup_core::soup::Soup;
use soup_proto::v1;
use soup_proto::v1::run_event::Event;

use crate::exchange::{Assignment, Attempt, Incarnation, Told};

fn of(of: &Incarnation) -> String {
    format!("{} in epoch {}", of.run, of.epoch)
}

pub(super) fn attempt(attempt: &Attempt) -> String {
    format!("{}.{} of {}", attempt.key.task, attempt.key.attempt, of(&attempt.of))
}

fn members(members: impl IntoIterator<Item = u32>) -> String {
    members.into_iter().map(|m| m.to_string()).collect::<Vec<_>>().join("+")
}

fn soup(soup: &Soup) -> String {
    members(soup.members().iter().map(|m| m.0))
}

fn recorded(soup: &SoupRecord) -> String {
    members(soup.members.iter().copied())
}

fn sent(soup: Option<v1::Soup>) -> String {
    members(soup.unwrap_or_default().members)
}

fn workers<'a>(workers: impl IntoIterator<Item = &'a WorkerId>) -> String {
    workers.into_iter().map(|w| w.0.to_string()).collect::<Vec<_>>().join(", ")
}

pub(super) fn told(told: &Told) -> String {
    match told {
        Told::Welcome { worker, heartbeat_ms } => {
            format!("welcome as {}, to be heard every {heartbeat_ms} ms", worker.0)
        }
        Told::Begin(incarnation, prepared, _) => {
            format!("begin {}, shards of {} bytes", of(incarnation), prepared.shards.shard_bytes())
        }
        Told::Place { of: incarnation, owners, peers } => format!(
            "place {}: owners {}; peers {}",
            of(incarnation),
            workers(owners),
            workers(peers.iter().map(|p| &p.worker))
        ),
        Told::Assign(assignment) => {
            format!("{}: {}", attempt(&assignment.attempt), work(assignment))
        }
        Told::Cancel(cancelled) => format!("cancel {}", attempt(cancelled)),
        Told::Forget(incarnation) => format!("forget soups {}", of(incarnation)),
        Told::Release { of: incarnation, step, part } => {
            format!("release {step}.{part} of {}", of(incarnation))
        }
        Told::End { run } => format!("end {run}"),
        Told::Over => "over".to_owned(),
        Told::Probe { number, peers } => {
            format!("probe {number}: {}", workers(peers.iter().map(|p| &p.worker)))
        }
    }
}

fn work(assignment: &Assignment) -> String {
    match &assignment.work {
        Work::Load(shard) => match assignment.tier {
            Tier::Memory => format!("load shard {}", shard.0),
            Tier::Disk => format!("load shard {} to disk", shard.0),
            Tier::Device => format!("load shard {} to the device", shard.0),
        },
        Work::Pass(shard) => format!("pass shard {}", shard.0),
        Work::Survey => "survey".to_owned(),
        Work::Evaluate(evaluation, slice) => {
            let (start, end) = (slice.start, slice.end);
            format!("evaluate {} on {}, {start}..{end}", soup(&evaluation.soup), evaluation.dataset.0)
        }
        Work::Write(made, file) => format!("write file {file} of {}", soup(made)),
        Work::ReadBack(file) => format!("read back file {file}"),
        Work::Digest(made) => format!("digest {}", soup(made)),
        other => format!("{other:?}"),
    }
}

pub(super) fn entry(entry: &Entry) -> String {
    match entry {
        Entry::Surveyed(found) => format!("surveyed, samples {:?}", found.survey.samples),
        Entry::Slices(slices) => {
            let slices: Vec<String> =
                slices.iter().map(|s| format!("{} on slice {}", recorded(&s.soup), s.slice)).collect();
            format!("slices, {}", slices.join(", "))
        }
        Entry::Scored(scored) => {
            let decided = scored.decisions.iter().map(|d| format!("; trial {} {:?}", d.trial, d.verdict));
            let recalled = if scored.recalled { ", recalled" } else { "" };
            format!("scored, {}{recalled}{}", recorded(&scored.soup), decided.collect::<String>())
        }
        Entry::Failed { exit_code, message } => format!("failed with {exit_code}: {message}"),
        other => other.kind().to_owned(),
    }
}

pub(super) fn event(event: v1::RunEvent) -> String {
    match event.event.unwrap() {
        Event::Queued(queued) => format!("queued, {} ahead", queued.ahead),
        Event::Planned(p) => format!(
            "planned, ingredients {}, {} parameters, {} shards, datasets {:?}",
            p.ingredients.join(" "),
            p.parameters,
            p.shards,
            p.datasets
        ),
        Event::Workers(workers) => format!("{}, {} now", workers.what, workers.workers),
        Event::Loading(loading) => {
            format!("loaded {} of {} shards", loading.shards_resident, loading.shards)
        }
        Event::Scored(scored) => {
            format!("scored {} on {}: {:.2}", sent(scored.soup), scored.dataset, scored.value)
        }
        Event::Decided(d) => format!(
            "trial {}, {}: {}, {:.2} against {:.2}",
            d.trial,
            sent(d.soup),
            if d.accepted { "accepted" } else { "rejected" },
            d.value,
            d.bar_value
        ),
        Event::Stepped(step) => format!("step {} of {}", step.step, step.steps),
        Event::Writing(writing) => format!("wrote {} of {} files", writing.files_written, writing.files),
        Event::Underway(underway) => {
            let (done, of) = (underway.done, underway.of);
            format!("{:?}, {done} of {of}", underway.what())
        }
        Event::Retracted(r) => format!("taken back {} scores, {} trials remain", r.scores, r.trials),
        Event::Note(note) => format!("note: {note}"),
        Event::FinishedJson(json) => {
            let report: serde_json::Value = serde_json::from_str(&json).unwrap();
            format!("finished, {} soup of {}", report["recipe"], report["ingredients"])
        }
        Event::Failed(failure) => format!("failed: {}", failure.message),
    }
}
