//! What a coordinator may say to a worker, which is confined as one is: two messages, the first byte says how long the first one is.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use soup_proto::v1::{self, coordinator_message::Message as Told};
use soup_store::places::{Places, confine};
use soup_worker::fuzzing;

static CONFINED: Once = Once::new();

fuzz_target!(|input: &[u8]| {
    CONFINED.call_once(|| {
        let folder = ["/tmp".to_owned()];
        confine(Places::new(&folder, &folder).unwrap()).unwrap();
    });
    let Some((first, bytes)) = input.split_first() else { return };
    let (first, second) = bytes.split_at(bytes.len().min(usize::from(*first)));
    let (mut begin, mut assigned, mut placement) = (None, Vec::new(), None);
    for bytes in [first, second] {
        let Ok(message) = v1::CoordinatorMessage::decode(bytes) else { continue };
        match message.message {
            Some(Told::Begin(run)) => begin = Some(run),
            Some(Told::Assign(assign)) => assigned.push(assign),
            Some(Told::Placement(all)) => placement = Some(all),
            _ => {}
        }
    }
    fuzzing::told(begin, assigned, placement);
});
