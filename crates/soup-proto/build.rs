//! Compiles the protos without a system `protoc`.

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
    tonic_prost_build::configure().bytes(".soup.v1.Chunk.data").compile_fds(descriptors)?;
    Ok(())
}
