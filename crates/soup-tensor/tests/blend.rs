//! Blends and inner products in memory and on a disk.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use soup_core::ErrorKind;
use soup_core::devices::DeviceKind;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::Ingredient;
use soup_tensor::{Buffer, Device, Place, ShardBuilder, ShardMemory};

use cases::{Maker, device, in_memory, on_disk, pool};

mod cases;

/// Both places of this crate.
const PLACES: [Maker<'_>; 2] = [&in_memory, &on_disk];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn blends_are_the_naive_ones_however_shards_are_cut(
        tensors in prop::collection::vec((prop::sample::select(&Dtype::ALL[..]), prop_oneof![0u64..40, 4000u64..9000]), 1..7),
        ingredients in 1usize..10,
        seed in any::<u64>(),
        any_bits in any::<bool>(),
        cuts in prop::collection::vec(any::<u64>(), 0..3),
    ) {
        let pool = pool(&tensors, ingredients, seed, any_bits);
        cases::blends_are_the_naive_ones(&in_memory, &pool, &cuts, seed);
    }

    #[test]
    fn a_disk_gives_the_same_bits(
        tensors in prop::collection::vec((prop::sample::select(&Dtype::ALL[..]), prop_oneof![0u64..40, 4000u64..90_000]), 1..7),
        ingredients in 1usize..6,
        seed in any::<u64>(),
        any_bits in any::<bool>(),
        threads in 1usize..4,
    ) {
        let pool = pool(&tensors, ingredients, seed, any_bits);
        cases::all_is_as_in_memory(&on_disk, &pool, threads, seed);
    }
}

#[test]
fn memory_is_counted_where_it_is() {
    let pool = pool(&[(Dtype::F32, 6)], 2, 1, false);
    let [memory, disk] = PLACES.map(|make| pool.load(make, 1, pool.whole()));
    let counted = |m: &dyn ShardMemory| (m.resident_bytes(), m.device_bytes(), m.disk_bytes());
    assert_eq!((counted(memory.as_ref()), counted(disk.as_ref())), ((48, 0, 0), (0, 0, 48)));
}

cases::conformance!(PLACES);

#[test]
fn ranges_that_are_none_are_refused() {
    let pool = pool(&[(Dtype::F32, 6)], 2, 1, false);
    let device = Device::cpu(NonZeroUsize::MIN);
    for (range, ingredients) in [(0..25, 2), (4..24, 2), (0..12, 2), (0..24, 0), (32..32, 2)] {
        assert!(device.builder(&pool.schema, range, ingredients).is_err());
    }
    assert!(device.builder(&pool.schema, 8..24, 2).is_ok());
}

#[test]
fn devices_are_chosen_by_name() {
    for (name, kind, full) in [
        ("cpu", DeviceKind::Cpu, "cpu"),
        ("cuda", DeviceKind::Cuda(0), "cuda:0"),
        ("cuda:3", DeviceKind::Cuda(3), "cuda:3"),
        ("vulkan", DeviceKind::Vulkan(0), "vulkan:0"),
        ("vulkan:1", DeviceKind::Vulkan(1), "vulkan:1"),
    ] {
        let device = Device::parse(name).unwrap();
        assert_eq!((device.kind(), device.name().as_str()), (kind, full));
        assert_eq!(Device::parse(&device.name()).unwrap(), device);
    }
    for name in
        ["tpu", "", "cpu:0", "cuda:", "cuda:+1", "cuda:-1", "cuda:0:1", "vulkan:x", "cuda:4294967296", "CUDA"]
    {
        let error = Device::parse(name).unwrap_err();
        let text = format!(
            "unknown device {name:?}: expected \"cpu\", \"cuda:N\" or \"vulkan:N\", where N is the number of the device, from 0"
        );
        assert_eq!((error.kind(), error.chain()), (ErrorKind::Usage, text));
    }
}

#[test]
fn devices_of_other_crates_are_refused_here_with_the_feature_that_they_need() {
    let pool = pool(&[(Dtype::F32, 6)], 2, 1, false);
    for (name, text) in [
        (
            "cuda:1",
            r#"this build of the program has no device "cuda:1": use "cpu", or a build with the cargo feature "cuda""#,
        ),
        (
            "vulkan",
            r#"this build of the program has no device "vulkan:0": use "cpu", or a build with the cargo feature "vulkan""#,
        ),
    ] {
        let device = Device::parse(name).unwrap();
        let made = device.builder(&pool.schema, pool.whole(), 2);
        for error in [device.on_host().err(), made.err()] {
            let error = error.unwrap();
            assert_eq!((error.kind(), error.chain().as_str()), (ErrorKind::Configuration, text));
        }
        // The disk is the host's, whatever the device.
        assert!(device.disk_builder(&pool.schema, pool.whole(), 2, &std::env::temp_dir()).is_ok());
    }
    assert!(Device::parse("cpu").unwrap().on_host().is_ok());
}

/// A place of another crate's, which takes the bytes away.
struct Elsewhere(Arc<Mutex<BTreeMap<u32, Vec<u8>>>>);

impl Place for Elsewhere {
    fn keep(&self, ingredient: Ingredient, buffer: Buffer) -> soup_core::Result<()> {
        self.0.lock().unwrap().insert(ingredient.0, buffer.bytes().to_vec());
        Ok(())
    }

    fn finish(self: Box<Self>) -> soup_core::Result<Box<dyn ShardMemory>> {
        Err(soup_core::Error::unavailable("far away"))
    }
}

#[test]
fn a_place_of_another_crate_takes_what_was_inspected() {
    let pool = pool(&[(Dtype::F32, 6), (Dtype::I16, 3)], 3, 1, false);
    let layout = device(2).layout(&pool.schema, pool.whole(), 3).unwrap();
    let taken = Arc::new(Mutex::new(BTreeMap::new()));
    let builder = ShardBuilder::new(layout, Box::new(Elsewhere(taken.clone())));
    std::thread::scope(|scope| {
        for (index, bytes) in (0..).zip(&pool.ingredients) {
            let builder = &builder;
            scope.spawn(move || {
                let mut buffer = builder.buffer().unwrap();
                buffer.bytes_mut().copy_from_slice(bytes);
                builder.keep(Ingredient(index), buffer).unwrap();
            });
        }
    });
    let outside = builder.keep(Ingredient(3), builder.buffer().unwrap()).unwrap_err();
    assert_eq!(outside.chain(), "ingredient 3 is not of this shard");
    assert!(taken.lock().unwrap().values().eq(&pool.ingredients), "nothing of the ingredient outside");
    assert_eq!(builder.finish(|_, _| true).err().unwrap().chain(), "far away");
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let schema = Schema::new(vec![TensorSpec::new("w", Dtype::F32, [1 << 60])]).unwrap();
    let builder = Device::cpu(NonZeroUsize::MIN).builder(&schema, 0..schema.bytes(), 2).unwrap();
    let error = builder.buffer().err().unwrap();
    assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
}

#[test]
fn a_digest_is_that_of_the_bytes_whenever_it_was_taken() {
    let schema = Schema::new(vec![TensorSpec::new("t", Dtype::U8, [9])]).unwrap();
    let device = Device::parse("cpu").unwrap();
    let load = |early: &dyn Fn(&mut Buffer)| {
        let builder = device.builder(&schema, 0..9, 2).unwrap();
        let mut buffers = [0, 1].map(|_| builder.buffer().unwrap());
        buffers.iter_mut().for_each(|buffer| {
            buffer.bytes_mut().fill(7);
            early(buffer);
        });
        buffers[1].bytes_mut()[8] = 8;
        (0..).zip(buffers).for_each(|(i, buffer)| builder.keep(Ingredient(i), buffer).unwrap());
        let memory = builder.finish(|_, _| true).unwrap().0;
        [0, 1].map(|i| memory.digest(Ingredient(i)).unwrap())
    };
    let expected: [[u8; 32]; 2] =
        [[7u8; 9], [7, 7, 7, 7, 7, 7, 7, 7, 8]].map(|bytes| Sha256::digest(bytes).into());
    assert_eq!(load(&|_| ()), expected);
    assert_eq!(load(&Buffer::take_digest), expected, "what is written later counts");
}
