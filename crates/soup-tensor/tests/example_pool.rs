//! Means of the example pool against the reference's soups, by the SHA-256 of their tensor data.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::num::NonZeroUsize;

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::shard::ShardPlan;
use soup_core::soup::{Ingredient, Soup};
use soup_tensor::Device;

const POOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/pools/vit-fashion");

/// The schema and the flattened parameters of an ingredient.
fn flattened(index: u32) -> (Schema, Vec<u8>) {
    let file = std::fs::read(format!("{POOL}/ingredients/m{index:02}.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let spec = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let shape: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
        TensorSpec::new(name, Dtype::from_name(&format!("{:?}", view.dtype())).unwrap(), shape)
    };
    let schema = Schema::new(tensors.tensors().into_iter().map(spec).collect()).unwrap();
    let data = |t: &TensorSpec| tensors.tensor(&t.name).unwrap().data().to_vec();
    let bytes = schema.tensors().iter().flat_map(data).collect();
    (schema, bytes)
}

#[track_caller]
fn check(name: &str, members: &[u32]) {
    let soups: serde_json::Value =
        serde_json::from_slice(&std::fs::read(format!("{POOL}/soups.json")).unwrap()).unwrap();
    let pool: Vec<(Schema, Vec<u8>)> = (0..16).map(flattened).collect();
    let schema = &pool[0].0;
    assert_eq!(schema.bytes(), soups[name]["bytes"].as_u64().unwrap());
    let soup = Soup::mean(members.iter().copied().map(Ingredient)).unwrap();
    let device = Device::cpu(NonZeroUsize::new(2).unwrap());
    let plan = ShardPlan::new(schema.bytes());
    let mut hash = Sha256::new();
    for shard in plan.shards() {
        let range = plan.range(shard);
        let builder = device.builder(schema, range.clone(), 16).unwrap();
        for (index, (_, bytes)) in (0..).zip(&pool) {
            let mut buffer = builder.buffer().unwrap();
            buffer.bytes_mut().copy_from_slice(&bytes[range.start as usize..range.end as usize]);
            builder.keep(Ingredient(index), buffer).unwrap();
        }
        let (memory, findings) = builder.finish(|_, _| true).unwrap();
        assert_eq!(findings, Default::default());
        let mut out = vec![0; memory.bytes()];
        memory.blend(&soup, &mut out).unwrap();
        hash.update(&out);
    }
    let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(found, soups[name]["sha256"].as_str().unwrap());
}

#[test]
fn greedy_is_the_references() {
    check("greedy", &[10, 2, 3]);
}

#[test]
fn pruned_is_the_references() {
    check("pruned", &[3, 6, 10]);
}

#[test]
fn uniform_is_the_references() {
    check("uniform", &(0..16).collect::<Vec<_>>());
}
