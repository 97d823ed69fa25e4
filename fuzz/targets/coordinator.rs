//! What workers may say to a coordinator: the first byte says whether it is their first message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use soup_coordinator::fuzzing;
use soup_proto::v1;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, bytes)) => _ = v1::Register::decode(bytes).map(fuzzing::register),
        Some((_, bytes)) => _ = v1::WorkerMessage::decode(bytes).map(fuzzing::said),
        None => {}
    }
});
