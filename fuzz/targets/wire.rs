//! Messages, the first byte says which: what is accepted, sent again, is accepted as the same.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use soup_core::diagnosis::ensemble::Alternatives;
use soup_core::judge::{JudgeId, Offer};
use soup_core::machine::{Differentiate, FileDigest, Proof};
use soup_core::metric::SumMetric;
use soup_core::run::{DatasetSpec, RunSpec};
use soup_core::soup::Soup;
use soup_core::tally::{Counts, Judged, Tally};
use soup_proto::{tensors_of, v1};

/// Accepts `bytes` as a `W`, sends that, and accepts it again.
fn check<W, C>(bytes: &[u8], send: impl Fn(&C) -> W)
where
    W: Message + Default,
    C: TryFrom<W> + Debug,
    C::Error: Debug,
{
    let Ok(wire) = W::decode(bytes) else { return };
    let Ok(core) = C::try_from(wire) else { return };
    let sent = send(&core).encode_to_vec();
    let again = W::decode(&sent[..]).expect("what was sent is a message");
    let again = C::try_from(again).expect("what was accepted is accepted again");
    assert_eq!(shown(&again), shown(&core));
}

/// What something is, for comparing: numbers that are none are not equal to themselves, and prost sends a zero without its sign.
fn shown(of: &impl Debug) -> String {
    let text = format!("{of:?}");
    let mut parts = text.split("-0.0");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        // Other numbers begin so too.
        let zero = if part.starts_with(|c: char| c.is_ascii_digit() || c == 'e') { "-0.0" } else { "0.0" };
        text + zero + part
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 14 {
        0 => check::<v1::RunSpec, RunSpec>(bytes, |c| c.clone().into()),
        1 => check::<v1::Soup, Soup>(bytes, |c| c.into()),
        2 => check::<v1::Evaluated, Judged>(bytes, |c| c.into()),
        3 => check::<v1::Tally, Tally>(bytes, |c| c.into()),
        4 => check::<v1::Counts, Counts>(bytes, |c| c.into()),
        5 => check::<v1::Compared, Alternatives>(bytes, |c| c.into()),
        6 => check::<v1::Differentiate, Differentiate>(bytes, |c| c.into()),
        7 => check::<v1::OfferedJudge, Offer>(bytes, |c| c.clone().into()),
        8 => check::<v1::FigureMetric, SumMetric>(bytes, |c| c.clone().into()),
        9 => {
            if let Ok(wire) = v1::Surveyed::decode(bytes)
                && let Ok((survey, notes)) = wire.survey()
            {
                let again = v1::Surveyed::new(survey.clone(), notes).survey().expect("accepted again");
                assert_eq!(shown(&again.0), shown(&survey));
            }
        }
        10 => {
            if let Ok(wire) = v1::BeginRun::decode(bytes)
                && let Ok(schema) = wire.schema()
            {
                let tensors = tensors_of(&schema);
                let again = v1::BeginRun { tensors, ..wire }.schema().expect("accepted again");
                assert_eq!(again, schema);
            }
        }
        11 => {
            let _ = v1::Proved::decode(bytes).map(Proof::try_from);
            let _ = v1::Digest::decode(bytes).map(FileDigest::try_from);
            let _ = v1::IngredientReads::decode(bytes).map(|reads| reads.stored(3));
        }
        12 => check::<v1::DatasetSpec, DatasetSpec>(bytes, |c| c.clone().into()),
        _ => check::<v1::Judge, JudgeId>(bytes, |c| c.into()),
    }
});
