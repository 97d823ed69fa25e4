//! Compiles the protos without a system `protoc`, and notes which fields of messages are messages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use tonic_prost_build::FileDescriptorSet;

/// What servers read of others: how much these may be made of is bounded before they are read.
const BOUNDED: [&str; 3] = [".soup.v1.SubmitRequest", ".soup.v1.WorkerMessage", ".soup.v1.FetchRequest"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = [
        "soup/v1/run.proto",
        "soup/v1/coordinator.proto",
        "soup/v1/blends.proto",
        "soup/judge/v1/judge.proto",
    ];
    println!("cargo:rerun-if-changed={root}");
    let descriptors = protox::compile(files, [root])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("shapes.rs"), shapes(&descriptors)?)?;
    tonic_prost_build::configure()
        .bytes(".soup.v1.Chunk.data")
        .codec_path("crate::bounded::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// For each message its fields that are messages, as `(number, position of that message)`; and where those are that are bounded.
fn shapes(descriptors: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let mut fields = BTreeMap::new();
    let mut roots = Vec::new();
    for file in &descriptors.file {
        let package = format!(".{}", file.package());
        let mut left: Vec<_> = file.message_type.iter().map(|of| (package.clone(), of)).collect();
        roots.extend(file.message_type.iter().map(|of| (package.clone(), of.name())));
        while let Some((within, message)) = left.pop() {
            let name = format!("{within}.{}", message.name());
            left.extend(message.nested_type.iter().map(|of| (name.clone(), of)));
            fields.insert(name, &message.field);
        }
    }
    let position: BTreeMap<&str, usize> =
        fields.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut text = "static MESSAGES: &[&[(u32, usize)]] = &[\n".to_owned();
    for fields in fields.values() {
        let inner = fields.iter().filter_map(|of| Some((of.number(), position.get(of.type_name())?)));
        writeln!(text, "    &{:?},", inner.collect::<Vec<_>>())?;
    }
    text.push_str("];\n");
    for (package, name) in roots {
        let full = format!("{package}.{name}");
        let at = position.get(&*full).filter(|_| BOUNDED.contains(&&*full));
        let module = if package == ".soup.v1" { "v1" } else { "judge_v1" };
        writeln!(text, "impl Shaped for crate::{module}::{name} {{ const SHAPE: Option<usize> = {at:?}; }}")?;
    }
    Ok(text)
}
