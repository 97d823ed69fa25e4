//! Blends against a naive reference, one element at a time, on every device this build can test.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use half::{bf16, f16};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use soup_core::ErrorKind;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::shard::segments;
use soup_core::soup::{Ingredient, Soup, Weight};
use soup_tensor::{
    Buffer, Device, DeviceKind, DifferingIntegers, Findings, NonFinite, Place, SegmentDots, SegmentGram,
    ShardBuilder, ShardMemory,
};

/// The flattened parameters of every ingredient.
struct Pool {
    schema: Schema,
    ingredients: Vec<Vec<u8>>,
}

impl Pool {
    fn builder(&self, threads: usize, range: Range<u64>) -> ShardBuilder {
        let builder = device(threads).builder(&self.schema, range.clone(), self.ingredients.len() as u32);
        self.fill(builder.unwrap(), range)
    }

    fn disk_builder(&self, threads: usize, range: Range<u64>) -> ShardBuilder {
        let (count, folder) = (self.ingredients.len() as u32, std::env::temp_dir());
        let builder = device(threads).disk_builder(&self.schema, range.clone(), count, &folder);
        self.fill(builder.unwrap(), range)
    }

    fn fill(&self, builder: ShardBuilder, range: Range<u64>) -> ShardBuilder {
        // The last one first: the order does not matter.
        for (index, bytes) in self.ingredients.iter().enumerate().rev() {
            let mut buffer = builder.buffer().unwrap();
            assert!(buffer.bytes_mut().iter().all(|&b| b == 0));
            buffer.bytes_mut().copy_from_slice(&bytes[range.start as usize..range.end as usize]);
            builder.keep(Ingredient(index as u32), buffer).unwrap();
        }
        builder
    }

    fn load(&self, threads: usize, range: Range<u64>) -> Box<dyn ShardMemory> {
        self.builder(threads, range).finish(|_, _| true).unwrap().0
    }

    fn whole(&self) -> Range<u64> {
        0..self.schema.bytes()
    }

    /// The whole blend, element by element.
    fn reference(&self, soup: &Soup) -> Vec<u8> {
        let mut out = Vec::new();
        for segment in segments(&self.schema, self.whole()) {
            let width = segment.dtype.width_bytes() as usize;
            for at in segment.range.clone().step_by(width) {
                let element = |i: usize| &self.ingredients[i][at..at + width];
                out.extend(blend_element(soup, segment.dtype, segment.tensor, element));
            }
        }
        out
    }
}

fn device(threads: usize) -> Device {
    Device::parse("cpu").unwrap().with_threads(NonZeroUsize::new(threads).unwrap())
}

fn blend_element<'a>(
    soup: &Soup,
    dtype: Dtype,
    tensor: usize,
    element: impl Fn(usize) -> &'a [u8],
) -> Vec<u8> {
    let members = soup.members();
    if !dtype.is_float() {
        return element(0).to_vec();
    }
    if let (1, None) = (members.len(), soup.rows()) {
        return element(members[0].index()).to_vec();
    }
    let mut sum = None;
    for (at, member) in members.iter().enumerate() {
        let x = value(dtype, element(member.index()));
        let term = soup.row(tensor).map_or(x, |row| row[at].get() * x);
        sum = Some(sum.map_or(term, |sum: f64| sum + term));
    }
    let sum = sum.unwrap();
    rounded(dtype, if soup.rows().is_some() { sum } else { sum / members.len() as f64 })
}

fn value(dtype: Dtype, bytes: &[u8]) -> f64 {
    match dtype {
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
        Dtype::F32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
        Dtype::F16 => f16::from_le_bytes(bytes.try_into().unwrap()).to_f64(),
        Dtype::BF16 => bf16::from_le_bytes(bytes.try_into().unwrap()).to_f64(),
        _ => unreachable!(),
    }
}

/// Rounded once. For 16 bits: of the conversion through f32 and its two neighbours, the closest, at a tie the even one.
/// (The conversions of 16-bit formats are held exhaustively by unit tests; this is only independent of them.)
fn rounded(dtype: Dtype, value: f64) -> Vec<u8> {
    let closest = |bits: u16, widen: fn(u16) -> f64, nan: u16| {
        if value.is_nan() {
            return nan;
        }
        let neighbours = [bits.wrapping_sub(1), bits, bits.wrapping_add(1)];
        let distance = |b: u16| (widen(b) - value).abs();
        let infinite = widen(bits).is_infinite() || neighbours.iter().any(|&b| !widen(b).is_finite());
        if infinite || value == 0.0 {
            return bits;
        }
        let key = |b: &u16| (distance(*b), b % 2);
        neighbours.into_iter().min_by(|a, b| key(a).partial_cmp(&key(b)).unwrap()).unwrap()
    };
    match dtype {
        Dtype::F64 if value.is_nan() => f64::NAN.to_le_bytes().to_vec(),
        Dtype::F64 => value.to_le_bytes().to_vec(),
        Dtype::F32 if value.is_nan() => f32::NAN.to_le_bytes().to_vec(),
        Dtype::F32 => (value as f32).to_le_bytes().to_vec(),
        Dtype::F16 => {
            let bits = f16::from_f32(value as f32).to_bits();
            closest(bits, |b| f16::from_bits(b).to_f64(), 0x7e00).to_le_bytes().to_vec()
        }
        Dtype::BF16 => {
            let bits = bf16::from_f32(value as f32).to_bits();
            closest(bits, |b| bf16::from_bits(b).to_f64(), 0x7fc0).to_le_bytes().to_vec()
        }
        _ => unreachable!(),
    }
}

fn blend(memory: &dyn ShardMemory, soup: &Soup) -> Vec<u8> {
    // One byte off, so that the output is aligned for nothing.
    let mut out = vec![0xaa; memory.bytes() + 1];
    memory.blend(soup, &mut out[1..]).unwrap();
    out.split_off(1)
}

fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A pool of noise: any bits (so also NaN, infinities and subnormals), or numbers around one.
fn pool(tensors: &[(Dtype, u64)], ingredients: usize, seed: u64, any_bits: bool) -> Pool {
    let spec = |(i, &(dtype, n)): (usize, &(Dtype, u64))| TensorSpec::new(format!("t{i}"), dtype, [n]);
    let schema = Schema::new(tensors.iter().enumerate().map(spec).collect()).unwrap();
    let mut next = noise(seed);
    let mut element = |dtype: Dtype| {
        let bits = next();
        let number = (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        match dtype {
            _ if any_bits || !dtype.is_float() => bits.to_le_bytes()[..dtype.width_bytes() as usize].to_vec(),
            dtype => rounded(dtype, number),
        }
    };
    let mut flat = || {
        let parts = segments(&schema, 0..schema.bytes());
        let elements = parts.iter().flat_map(|s| {
            (0..s.range.len() as u64 / s.dtype.width_bytes()).map(|_| s.dtype).collect::<Vec<_>>()
        });
        elements.flat_map(&mut element).collect::<Vec<u8>>()
    };
    let ingredients = (0..ingredients).map(|_| flat()).collect();
    Pool { schema, ingredients }
}

fn weighted(members: &[u32], rows: usize, seed: u64) -> Soup {
    let mut next = noise(seed);
    let mut weight = || Weight::new((next() >> 11) as f64 / (1u64 << 52) as f64 - 0.5).unwrap();
    let rows = (0..rows).map(|_| members.iter().map(|_| weight()).collect()).collect();
    Soup::weighted(members.iter().copied().map(Ingredient).collect(), rows).unwrap()
}

fn mean(members: &[u32]) -> Soup {
    Soup::mean(members.iter().copied().map(Ingredient)).unwrap()
}

/// Soups of 1 to 9 members, so that every remainder of the kernel's turns occurs.
fn soups(ingredients: u32, tensors: usize, seed: u64) -> Vec<Soup> {
    let mut soups = Vec::new();
    for count in 1..=ingredients {
        let members: Vec<u32> = (ingredients - count..ingredients).collect();
        soups.push(mean(&members));
        soups.push(weighted(&members, 1, seed));
        soups.push(weighted(&members, tensors, seed));
    }
    soups
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn blends_are_the_naive_ones_however_shards_are_cut(
        tensors in prop::collection::vec((prop::sample::select(&Dtype::ALL[..]), prop_oneof![0u64..40, 4000u64..9000]), 1..7),
        ingredients in 1u32..10,
        seed in any::<u64>(),
        any_bits in any::<bool>(),
        cuts in prop::collection::vec(any::<u64>(), 0..3),
    ) {
        let pool = pool(&tensors, ingredients as usize, seed, any_bits);
        let total = pool.schema.bytes();
        let mut cuts: Vec<u64> = cuts.iter().map(|c| c % (total + 1) / 8 * 8).chain([0, total]).collect();
        cuts.sort_unstable();
        for (nth, soup) in soups(ingredients, tensors.len(), seed).into_iter().enumerate() {
            let expect = pool.reference(&soup);
            let threads = nth % 3 + 1;
            let mut found = Vec::new();
            for cut in cuts.windows(2) {
                found.extend(blend(pool.load(threads, cut[0]..cut[1]).as_ref(), &soup));
            }
            prop_assert!(found == expect, "{soup:?} by {threads} threads");
        }
    }

    #[test]
    fn a_disk_gives_the_same_bits(
        tensors in prop::collection::vec((prop::sample::select(&Dtype::ALL[..]), prop_oneof![0u64..40, 4000u64..90_000]), 1..7),
        ingredients in 1u32..6,
        seed in any::<u64>(),
        any_bits in any::<bool>(),
        threads in 1usize..4,
    ) {
        let pool = pool(&tensors, ingredients as usize, seed, any_bits);
        let (memory, memory_findings) = pool.builder(threads, pool.whole()).finish(|_, _| true).unwrap();
        let (disk, findings) = pool.disk_builder(threads, pool.whole()).finish(|_, _| true).unwrap();
        prop_assert_eq!(findings, memory_findings);
        prop_assert_eq!(disk.bytes(), memory.bytes());
        prop_assert_eq!((disk.resident_bytes(), memory.disk_bytes()), (0, 0));
        prop_assert!(disk.disk_bytes() >= memory.resident_bytes());
        for ingredient in (0..ingredients).map(Ingredient) {
            prop_assert_eq!(disk.digest(ingredient).unwrap(), memory.digest(ingredient).unwrap());
        }
        for soup in soups(ingredients, tensors.len(), seed) {
            prop_assert!(blend(disk.as_ref(), &soup) == blend(memory.as_ref(), &soup), "{soup:?}");
        }
        let elements: usize = tensors.iter().map(|(_, n)| *n as usize).sum();
        let gradient: Vec<f32> = (0..elements).map(|e| (e % 89) as f32 - 44.0).collect();
        let bits = |dots: Vec<SegmentDots>| {
            dots.iter().map(|d| (d.tensor, d.dots.iter().map(|x| x.to_bits()).collect())).collect::<Vec<(usize, Vec<u64>)>>()
        };
        prop_assert_eq!(bits(disk.dots(&gradient).unwrap()), bits(memory.dots(&gradient).unwrap()));
        let bits = |grams: Vec<SegmentGram>| {
            grams.iter().map(|g| (g.tensor, g.packed.iter().map(|x| x.to_bits()).collect())).collect::<Vec<(usize, Vec<u64>)>>()
        };
        for base in [None, Some(pool.ingredients[0].as_slice())] {
            prop_assert_eq!(bits(disk.gram(base).unwrap()), bits(memory.gram(base).unwrap()));
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_threads() {
    // Larger than a thread's piece, and odd, so that the last pieces are ragged.
    let pool = pool(&[(Dtype::F32, 150_001), (Dtype::BF16, 200_003), (Dtype::U8, 77)], 6, 1, false);
    for soup in [mean(&[0, 1, 2, 3, 4, 5]), mean(&[3]), weighted(&[1, 4], 3, 5)] {
        let expect = pool.reference(&soup);
        for threads in 1..=4 {
            assert!(blend(pool.load(threads, pool.whole()).as_ref(), &soup) == expect);
        }
    }
}

#[test]
fn sums_are_wide_where_16_bits_would_lose() {
    let pool = pool(&[(Dtype::BF16, 10_000)], 58, 3, false);
    let wide = blend(pool.load(2, pool.whole()).as_ref(), &Soup::uniform(58).unwrap());
    let mut narrow_is_wrong = 0;
    for at in 0..10_000 {
        let element =
            |i: usize| bf16::from_le_bytes([pool.ingredients[i][2 * at], pool.ingredients[i][2 * at + 1]]);
        let exact: f64 = (0..58).map(|i| element(i).to_f64()).sum::<f64>() / 58.0;
        let narrow = (0..58).map(element).fold(bf16::ZERO, |a, b| a + b) / bf16::from_f32(58.0);
        assert_eq!(wide[2 * at..2 * at + 2], rounded(Dtype::BF16, exact));
        narrow_is_wrong += usize::from(narrow.to_le_bytes() != wide[2 * at..2 * at + 2]);
    }
    // How many depends on the numbers; for these it is four of five.
    assert!(narrow_is_wrong > 5_000, "{narrow_is_wrong} of 10000");
}

#[test]
fn a_mean_of_one_keeps_payloads_and_signs() {
    let bits = [0x7fa0_1234u32, 0xffc0_0001, 0x8000_0000, 0x7f80_0000, 1];
    let pool = Pool {
        schema: Schema::new(vec![TensorSpec::new("w", Dtype::F32, [5])]).unwrap(),
        ingredients: vec![vec![0; 20], bits.iter().flat_map(|b| b.to_le_bytes()).collect()],
    };
    assert_eq!(blend(pool.load(1, pool.whole()).as_ref(), &mean(&[1])), pool.ingredients[1]);
}

#[test]
fn a_mean_of_equals_is_the_ingredient_and_nan_has_one_pattern() {
    let bits = [0x8000_0000u32, 0x0000_0001, 0x7f7f_ffff, 0xff80_0000, 0xffc0_0001];
    let one: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    let pool = Pool {
        schema: Schema::new(vec![TensorSpec::new("w", Dtype::F32, [5])]).unwrap(),
        ingredients: vec![one.clone(), one.clone(), one.clone()],
    };
    let blend = blend(pool.load(1, pool.whole()).as_ref(), &mean(&[0, 1, 2]));
    assert_eq!(blend[..16], one[..16]);
    assert_eq!(blend[16..], f32::NAN.to_le_bytes());
}

#[test]
fn findings_name_ingredient_and_tensor() {
    let tensors = vec![
        TensorSpec::new("a", Dtype::F32, [4]),
        TensorSpec::new("b", Dtype::BF16, [4]),
        TensorSpec::new("step", Dtype::I64, [1]),
    ];
    let schema = Schema::new(tensors).unwrap();
    let mut pool = Pool { ingredients: vec![vec![0; schema.bytes() as usize]; 3], schema };
    let at = |name: &str| pool.schema.range(pool.schema.index_of(name).unwrap()).start as usize;
    let (a, b, step) = (at("a"), at("b"), at("step"));
    pool.ingredients[1][a..a + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    pool.ingredients[1][a + 12..a + 16].copy_from_slice(&f32::INFINITY.to_le_bytes());
    pool.ingredients[2][b + 2..b + 4].copy_from_slice(&bf16::NEG_INFINITY.to_le_bytes());
    (pool.ingredients[0][step], pool.ingredients[2][step]) = (7, 8);
    let index = |name: &str| pool.schema.index_of(name).unwrap();
    // The second ingredient lacks "step": its zeros mean nothing.
    let has = |ingredient: Ingredient, tensor| ingredient != Ingredient(1) || tensor != index("step");
    for threads in 1..4 {
        let (_, on_disk) = pool.disk_builder(threads, pool.whole()).finish(has).unwrap();
        let (_, findings) = pool.builder(threads, pool.whole()).finish(has).unwrap();
        assert_eq!(on_disk, findings);
        assert_eq!(
            findings,
            Findings {
                non_finite: vec![
                    NonFinite { ingredient: Ingredient(1), tensor: index("a"), elements: 2 },
                    NonFinite { ingredient: Ingredient(2), tensor: index("b"), elements: 1 },
                ],
                differing_integers: vec![DifferingIntegers {
                    ingredient: Ingredient(2),
                    tensor: index("step")
                }],
            }
        );
    }
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
fn what_does_not_fit_is_refused() {
    let pool = pool(&[(Dtype::F32, 6)], 2, 1, false);
    let memory = pool.load(1, pool.whole());
    let blend = |soup: &Soup, bytes| memory.blend(soup, &mut vec![0; bytes]).map_err(|e| e.chain());
    assert_eq!(blend(&mean(&[0, 1]), 24), Ok(()));
    assert_eq!(blend(&mean(&[0, 1]), 23), Err("a blend of 24 bytes was asked into 23 bytes".into()));
    assert_eq!(blend(&mean(&[2]), 24), Err("ingredient 2 of a soup is not in the pool of 2".into()));
    assert_eq!(
        blend(&weighted(&[0, 1], 2, 1), 24),
        Err("a soup has weights for 2 tensors, the pool has 1".into())
    );
    assert_eq!(memory.resident_bytes(), 48);
    assert!(memory.digest(Ingredient(2)).is_err());
    let device = Device::cpu(NonZeroUsize::MIN);
    for (range, ingredients) in [(0..25, 2), (4..24, 2), (0..12, 2), (0..24, 0), (32..32, 2)] {
        assert!(device.builder(&pool.schema, range, ingredients).is_err());
    }
    assert!(device.builder(&pool.schema, 8..24, 2).is_ok());
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
    for builder in
        [device.builder(&schema, 0..9, 2), device.disk_builder(&schema, 0..9, 2, &std::env::temp_dir())]
    {
        let builder = builder.unwrap();
        builder.keep(Ingredient(0), builder.buffer().unwrap()).unwrap();
        assert!(builder.keep(Ingredient(2), builder.buffer().unwrap()).is_err(), "there is no third one");
        assert!(builder.finish(|_, _| true).is_err(), "the second one is missing");
    }
}
