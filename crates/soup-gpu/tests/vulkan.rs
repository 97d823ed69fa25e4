//! Shards on a device of Vulkan's: all that every shard has to do, to the CPU's bits. Without a device these tests fail: the feature
//! asks for one. `tests/gpu/lavapipe` runs them with a driver that needs no card.
#![cfg(feature = "vulkan")]
#![allow(clippy::unwrap_used, clippy::panic)] // a panic is how a test fails

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use soup_core::ErrorKind;
use soup_core::devices::DeviceKind;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::{Ingredient, Soup};
use soup_gpu::{Gpu, devices};
use soup_tensor::{Layout, ShardBuilder};

use cases::{Pool, blend, in_memory, mean, pool, weighted};

#[path = "../../soup-tensor/tests/cases/mod.rs"]
mod cases;

/// The first device, opened once.
fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::open(DeviceKind::Vulkan(0)).unwrap_or_else(|e| panic!("{}", e.chain())))
}

fn on_device(threads: usize, schema: &Schema, range: Range<u64>, ingredients: u32) -> ShardBuilder {
    let layout = Layout::new(schema, range, ingredients, NonZeroUsize::new(threads).unwrap()).unwrap();
    let place = gpu().place(layout.clone()).unwrap_or_else(|e| panic!("{}", e.chain()));
    ShardBuilder::new(layout, place)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn all_is_as_in_memory(
        tensors in prop::collection::vec((prop::sample::select(&Dtype::ALL[..]), prop_oneof![0u64..40, 4000u64..20_000]), 1..7),
        ingredients in 1usize..7,
        seed in any::<u64>(),
        any_bits in any::<bool>(),
    ) {
        let pool = pool(&tensors, ingredients, seed, any_bits);
        cases::all_is_as_in_memory(&on_device, &pool, 1, seed);
    }

    #[test]
    fn blends_are_the_naive_ones_however_shards_are_cut(
        tensors in prop::collection::vec((prop::sample::select(&Dtype::ALL[..]), prop_oneof![0u64..40, 4000u64..9000]), 1..7),
        ingredients in 1usize..10,
        seed in any::<u64>(),
        any_bits in any::<bool>(),
        cuts in prop::collection::vec(any::<u64>(), 0..2),
    ) {
        let pool = pool(&tensors, ingredients, seed, any_bits);
        cases::blends_are_the_naive_ones(&on_device, &pool, &cuts, seed);
    }
}

cases::conformance!([&on_device as cases::Maker<'_>]);

/// More than one binding holds, so that the shard is in several pieces and chunks.
#[test]
fn large_shards_are_in_pieces() {
    let tensors =
        [TensorSpec::new("a", Dtype::BF16, [9_000_001]), TensorSpec::new("b", Dtype::BF16, [4_000_000])];
    let schema = Schema::new(tensors.to_vec()).unwrap();
    let mut next = cases::noise(5);
    let mut ingredient = || -> Vec<u8> {
        // Numbers around one, of both signs.
        let word = |w: u64| ((w as u32 & 0x80ff_80ff) | 0x3f00_3f00).to_le_bytes();
        (0..schema.bytes() / 4).flat_map(|_| word(next())).chain([0x80, 0x3f]).collect()
    };
    let ingredients = (0..6).map(|_| ingredient()).collect();
    let pool = Pool { schema, ingredients };
    let (memory, device) = (pool.load(&in_memory, 2, pool.whole()), pool.load(&on_device, 1, pool.whole()));
    assert!(device.device_bytes() > 128 << 20, "{}", device.device_bytes());
    assert_eq!((device.resident_bytes(), device.disk_bytes()), (0, 0));
    for soup in [mean(&[0, 1, 2, 3, 4, 5]), mean(&[4]), weighted(&[1, 5], 2, 3)] {
        assert!(blend(device.as_ref(), &soup) == blend(memory.as_ref(), &soup), "{soup:?}");
    }
    let gradient: Vec<f32> = (0..13_000_001).map(|e| (e % 89) as f32 - 44.3).collect();
    assert_eq!(device.dots(&gradient).unwrap(), memory.dots(&gradient).unwrap());
    assert_eq!(device.gram(None).unwrap(), memory.gram(None).unwrap());
}

#[test]
fn many_threads_ask_at_once() {
    let pool = Arc::new(pool(&[(Dtype::F32, 40_000), (Dtype::I32, 3)], 8, 2, false));
    let layout = Layout::new(&pool.schema, pool.whole(), 8, NonZeroUsize::MIN).unwrap();
    let builder = ShardBuilder::new(layout.clone(), gpu().place(layout).unwrap());
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
    let shard = builder.finish(|_, _| true).unwrap().0;
    std::thread::scope(|scope| {
        for seed in 0..6u64 {
            let (pool, shard) = (&pool, shard.as_ref());
            scope.spawn(move || {
                let soup = weighted(&[seed as u32, 6, 7], 2, seed + 1);
                assert!(blend(shard, &soup) == pool.reference(&soup));
            });
        }
    });
}

#[test]
fn what_there_is_has_a_name_and_memory() {
    let found = devices();
    let first = found.iter().find(|f| f.kind == DeviceKind::Vulkan(0)).unwrap();
    let info = first.device.as_ref().unwrap();
    assert!(!info.name.is_empty() && !info.driver.is_empty());
    assert_eq!((info.kind, &info.name), (gpu().info().kind, &gpu().info().name));
    let memory = info.memory.unwrap();
    assert!(memory.free <= memory.total && memory.total > 1 << 28, "{memory:?}");
    let free = gpu().free_bytes().unwrap();
    assert!(free < memory.total, "{free}");
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let error = Gpu::open(DeviceKind::Vulkan(77)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.chain().starts_with("device vulkan:77: there are "), "{}", error.chain());
    assert!(Gpu::open(DeviceKind::Cpu).is_err());
    #[cfg(not(feature = "cuda"))]
    assert!(Gpu::open(DeviceKind::Cuda(0)).err().unwrap().chain().contains("the cargo feature \"cuda\""));
}

#[test]
fn more_memory_than_there_is_is_refused_before_it_is_taken() {
    let schema = Schema::new(vec![TensorSpec::new("w", Dtype::F32, [1 << 36])]).unwrap();
    let layout = Layout::new(&schema, 0..schema.bytes(), 8, NonZeroUsize::MIN).unwrap();
    let error = gpu().place(layout).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let text = error.chain();
    assert!(text.starts_with("device vulkan:0 (") && text.contains("has no room for 2048.0 GiB"), "{text}");
    // And goes on.
    cases::what_does_not_fit_is_refused(&on_device);
}

#[test]
fn speed_is_measured() {
    let speed = gpu().speed(8 << 20).unwrap();
    assert!(speed.copy > 1e6 && speed.blend > 1e6, "{speed:?}");
}

#[test]
fn a_shard_of_integers_alone_needs_no_device() {
    let pool = pool(&[(Dtype::I64, 5), (Dtype::U8, 3)], 3, 4, true);
    let shard = pool.load(&on_device, 1, pool.whole());
    assert_eq!((shard.device_bytes(), shard.resident_bytes()), (0, 43));
    assert_eq!(blend(shard.as_ref(), &Soup::uniform(3).unwrap()), pool.ingredients[0]);
}
