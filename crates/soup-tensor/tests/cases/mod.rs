//! What every shard has to do, wherever it is: cases for any place, against a naive reference, one element at a time.
//!
//! A case is given a *maker*, which makes an empty shard in a layout.
#![allow(dead_code, unreachable_pub)] // every test takes what it needs

use std::num::NonZeroUsize;
use std::ops::Range;

use half::{bf16, f16};
use soup_core::batch_norm::BatchNorm;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::shard::segments;
use soup_core::soup::{Ingredient, Soup, Weight};
use soup_tensor::{Device, DifferingIntegers, Findings, NonFinite, ShardBuilder, ShardMemory};

/// Makes an empty shard for so many threads: the byte range of the flattened parameters of so many ingredients.
pub type Maker<'a> = &'a dyn Fn(usize, &Schema, Range<u64>, u32) -> ShardBuilder;

/// The flattened parameters of every ingredient.
pub struct Pool {
    pub schema: Schema,
    pub ingredients: Vec<Vec<u8>>,
}

impl Pool {
    /// One tensor, with these bytes in every ingredient.
    pub fn of_one(dtype: Dtype, ingredients: Vec<Vec<u8>>) -> Pool {
        let elements = ingredients[0].len() as u64 / dtype.width_bytes();
        let schema = Schema::new(vec![TensorSpec::new("w", dtype, [elements])]).unwrap();
        Pool { schema, ingredients }
    }

    /// The bytes `range` of all ingredients, in a shard that `make` makes.
    pub fn builder(&self, make: Maker<'_>, threads: usize, range: Range<u64>) -> ShardBuilder {
        let builder = make(threads, &self.schema, range.clone(), self.ingredients.len() as u32);
        // The last one first: the order does not matter.
        for (index, bytes) in self.ingredients.iter().enumerate().rev() {
            let mut buffer = builder.buffer().unwrap();
            assert!(buffer.bytes_mut().iter().all(|&b| b == 0));
            buffer.bytes_mut().copy_from_slice(&bytes[range.start as usize..range.end as usize]);
            builder.keep(Ingredient(index as u32), buffer).unwrap();
        }
        builder
    }

    pub fn load(&self, make: Maker<'_>, threads: usize, range: Range<u64>) -> Box<dyn ShardMemory> {
        self.builder(make, threads, range).finish(|_, _| true).unwrap().0
    }

    pub fn whole(&self) -> Range<u64> {
        0..self.schema.bytes()
    }

    /// The whole blend, element by element.
    pub fn reference(&self, soup: &Soup) -> Vec<u8> {
        let mut out = Vec::new();
        for segment in segments(&self.schema, self.whole()) {
            let width = segment.dtype.width_bytes() as usize;
            for at in segment.range.clone().step_by(width) {
                let element = |i: usize| &self.ingredients[i][at..at + width];
                let first = segment.of_first_member.then(|| element(soup.members()[0].index()).to_vec());
                out.extend(
                    first.unwrap_or_else(|| blend_element(soup, segment.dtype, segment.tensor, element)),
                );
            }
        }
        out
    }

    pub fn elements(&self) -> usize {
        segments(&self.schema, self.whole()).iter().map(|s| s.elements()).sum()
    }
}

/// A shard in the host's memory.
pub fn in_memory(threads: usize, schema: &Schema, range: Range<u64>, ingredients: u32) -> ShardBuilder {
    device(threads).builder(schema, range, ingredients).unwrap()
}

/// A shard on the disk.
pub fn on_disk(threads: usize, schema: &Schema, range: Range<u64>, ingredients: u32) -> ShardBuilder {
    device(threads).disk_builder(schema, range, ingredients, &std::env::temp_dir()).unwrap()
}

/// The host.
pub fn device(threads: usize) -> Device {
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

pub fn value(dtype: Dtype, bytes: &[u8]) -> f64 {
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
pub fn rounded(dtype: Dtype, value: f64) -> Vec<u8> {
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

pub fn blend(memory: &dyn ShardMemory, soup: &Soup) -> Vec<u8> {
    // One byte off, so that the output is aligned for nothing.
    let mut out = vec![0xaa; memory.bytes() + 1];
    memory.blend(soup, &mut out[1..]).unwrap();
    out.split_off(1)
}

pub fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A pool of noise: any bits (so also NaN, infinities and subnormals), or numbers around one.
pub fn pool(tensors: &[(Dtype, u64)], ingredients: usize, seed: u64, any_bits: bool) -> Pool {
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

pub fn weighted(members: &[u32], rows: usize, seed: u64) -> Soup {
    let mut next = noise(seed);
    let mut weight = || Weight::new((next() >> 11) as f64 / (1u64 << 52) as f64 - 0.5).unwrap();
    let rows = (0..rows).map(|_| members.iter().map(|_| weight()).collect()).collect();
    Soup::weighted(members.iter().copied().map(Ingredient).collect(), rows).unwrap()
}

pub fn mean(members: &[u32]) -> Soup {
    Soup::mean(members.iter().copied().map(Ingredient)).unwrap()
}

/// Soups of 1 to 9 members, so that every remainder of the kernel's turns occurs.
pub fn soups(ingredients: u32, tensors: usize, seed: u64) -> Vec<Soup> {
    let mut soups = Vec::new();
    for count in 1..=ingredients {
        let members: Vec<u32> = (ingredients - count..ingredients).collect();
        soups.push(mean(&members));
        soups.push(weighted(&members, 1, seed));
        soups.push(weighted(&members, tensors, seed));
    }
    soups
}

/// Blends of noise are the naive ones, however shards are cut; `cuts` are anywhere.
pub fn blends_are_the_naive_ones(make: Maker<'_>, pool: &Pool, cuts: &[u64], seed: u64) {
    let (total, tensors) = (pool.schema.bytes(), pool.schema.tensors().len());
    let mut cuts: Vec<u64> = cuts.iter().map(|c| c % (total + 1) / 8 * 8).chain([0, total]).collect();
    cuts.sort_unstable();
    let load = |nth: usize| -> Vec<_> {
        cuts.windows(2).map(|cut| pool.load(make, nth % 3 + 1, cut[0]..cut[1])).collect()
    };
    let shards = [load(0), load(1), load(2)];
    for (nth, soup) in soups(pool.ingredients.len() as u32, tensors, seed).into_iter().enumerate() {
        let found: Vec<u8> = shards[nth % 3].iter().flat_map(|shard| blend(shard.as_ref(), &soup)).collect();
        assert!(found == pool.reference(&soup), "{soup:?} by {} threads", nth % 3 + 1);
    }
}

/// All that a shard says is what one in memory says, to the bit; of sums that are NaN, that they are.
pub fn all_is_as_in_memory(make: Maker<'_>, pool: &Pool, threads: usize, seed: u64) {
    let (memory, memory_findings) =
        pool.builder(&in_memory, threads, pool.whole()).finish(|_, _| true).unwrap();
    let (other, findings) = pool.builder(make, threads, pool.whole()).finish(|_, _| true).unwrap();
    assert_eq!(findings, memory_findings);
    assert_eq!(other.bytes(), memory.bytes());
    let ingredients = pool.ingredients.len() as u32;
    for ingredient in (0..ingredients).map(Ingredient) {
        assert_eq!(other.digest(ingredient).unwrap(), memory.digest(ingredient).unwrap());
    }
    for soup in soups(ingredients, pool.schema.tensors().len(), seed) {
        assert!(blend(other.as_ref(), &soup) == blend(memory.as_ref(), &soup), "{soup:?}");
    }
    products_are_those_in_memory(other.as_ref(), memory.as_ref(), pool);
}

fn bits(sums: &[f64]) -> Vec<u64> {
    sums.iter().map(|x| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() }).collect()
}

fn products_are_those_in_memory(other: &dyn ShardMemory, memory: &dyn ShardMemory, pool: &Pool) {
    // Multiples of a third, so that products and sums are rounded.
    let gradient: Vec<f32> = (0..pool.elements()).map(|e| ((e % 89) as f32 - 44.0) / 3.0).collect();
    let dots = |shard: &dyn ShardMemory| {
        let dots = shard.dots(&gradient).unwrap();
        dots.iter().map(|d| (d.tensor, bits(&d.dots))).collect::<Vec<_>>()
    };
    assert_eq!(dots(other), dots(memory));
    let base = &pool.ingredients[pool.ingredients.len() / 2];
    for base in [None, Some(base.as_slice())] {
        let gram = |shard: &dyn ShardMemory| {
            let grams = shard.gram(base).unwrap();
            grams.iter().map(|g| (g.tensor, bits(&g.packed))).collect::<Vec<_>>()
        };
        assert_eq!(gram(other), gram(memory), "{}", base.is_some());
    }
}

/// Sizes around pieces, blocks and lanes; more members than are added in a turn.
pub fn sizes_do_not_matter(make: Maker<'_>) {
    let tensors = [
        (Dtype::F32, 150_001),
        (Dtype::BF16, 200_003),
        (Dtype::F16, 65_536 + 4096 + 17),
        (Dtype::F64, 4097),
        (Dtype::F32, 1),
        (Dtype::U8, 77),
    ];
    let pool = pool(&tensors, 18, 1, false);
    let all: Vec<u32> = (0..18).collect();
    let soups = [mean(&all), mean(&[3]), weighted(&[1, 4], 6, 5), weighted(&all[1..], 6, 7)];
    let expected = soups.each_ref().map(|soup| pool.reference(soup));
    for threads in 1..=4 {
        let shard = pool.load(make, threads, pool.whole());
        for (soup, expected) in soups.iter().zip(&expected) {
            assert!(blend(shard.as_ref(), soup) == *expected, "{threads} {soup:?}");
        }
        if threads == 1 {
            let memory = pool.load(&in_memory, 2, pool.whole());
            products_are_those_in_memory(shard.as_ref(), memory.as_ref(), &pool);
        }
    }
}

/// Sums are in `f64`, and rounded once.
pub fn sums_are_wide_where_16_bits_would_lose(make: Maker<'_>) {
    let pool = pool(&[(Dtype::BF16, 10_000)], 58, 3, false);
    let wide = blend(pool.load(make, 2, pool.whole()).as_ref(), &Soup::uniform(58).unwrap());
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

/// A product is rounded before it is added: on equal elements whose weights nearly cancel, whoever does both at once is found out.
pub fn products_are_rounded_before_they_are_added(make: Maker<'_>) {
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
        let one = pool(&[(dtype, 5_000)], 1, 9, false).ingredients.remove(0);
        let pool = Pool::of_one(dtype, vec![one.clone(), one.clone()]);
        let weights = [0.1f64, -0.1f64.next_up()];
        let row = weights.map(|w| Weight::new(w).unwrap()).to_vec();
        let soup = Soup::weighted(vec![Ingredient(0), Ingredient(1)], vec![row]).unwrap();
        let found = blend(pool.load(make, 1, pool.whole()).as_ref(), &soup);
        assert!(found == pool.reference(&soup), "{dtype}");
        let width = dtype.width_bytes() as usize;
        let fused = one.chunks_exact(width).flat_map(|x| {
            let x = value(dtype, x);
            rounded(dtype, x.mul_add(weights[1], x * weights[0]))
        });
        assert_ne!(found, fused.collect::<Vec<u8>>(), "{dtype}: the numbers show nothing");
    }
}

/// What is at the ends of a format: denormals, zeros of both signs, infinities, NaN, the largest numbers.
pub fn hard_numbers_are_numbers_too(make: Maker<'_>) {
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
        let (width, mantissa) = match dtype {
            Dtype::F64 => (64, 52),
            Dtype::F32 => (32, 23),
            Dtype::F16 => (16, 10),
            _ => (16, 7),
        };
        let top = ((1u64 << (width - 1 - mantissa)) - 1) << mantissa;
        let mut next = noise(11);
        let mut one = |kind: usize| {
            let (word, sign) = (next(), next() >> 63 << (width - 1));
            let magnitude = match kind {
                0 => word & ((1 << mantissa) - 1),
                1 => 0,
                2 => top - 1 - (word & 3),
                3 => [top, top | (1 << (mantissa - 1)), top | 1][(word % 3) as usize],
                _ => (1 << mantissa) + (word & 3),
            };
            (magnitude | sign).to_le_bytes()[..width / 8].to_vec()
        };
        let mut ingredient = |kinds: &[usize]| -> Vec<u8> {
            (0..3_000).flat_map(|e| one(kinds[e * 7 / 5 % kinds.len()])).collect()
        };
        let ingredients =
            [&[0][..], &[1], &[0, 1], &[2], &[2, 4], &[0, 1, 2, 3, 4], &[4]].map(&mut ingredient).to_vec();
        let pool = Pool::of_one(dtype, ingredients);
        let shard = pool.load(make, 1, pool.whole());
        let mut all = soups(7, 1, 21);
        all.extend([mean(&[0, 1]), mean(&[1, 2]), mean(&[3, 4]), mean(&[0, 6]), weighted(&[0, 1, 2], 1, 3)]);
        for soup in all {
            assert!(blend(shard.as_ref(), &soup) == pool.reference(&soup), "{dtype} {soup:?}");
        }
    }
}

/// The mean of one ingredient is a copy of it; NaN is otherwise one pattern.
pub fn copies_keep_their_bits_and_other_nan_are_one(make: Maker<'_>) {
    let bits = [0x7fa0_1234u32, 0xffc0_0001, 0x8000_0000, 0x7f80_0000, 1];
    let odd: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    let pool = Pool::of_one(Dtype::F32, vec![vec![0; 20], odd]);
    assert_eq!(blend(pool.load(make, 1, pool.whole()).as_ref(), &mean(&[1])), pool.ingredients[1]);
    let bits = [0x8000_0000u32, 0x0000_0001, 0x7f7f_ffff, 0xff80_0000, 0xffc0_0001];
    let one: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    let pool = Pool::of_one(Dtype::F32, vec![one.clone(), one.clone(), one.clone()]);
    let blend = blend(pool.load(make, 1, pool.whole()).as_ref(), &mean(&[0, 1, 2]));
    assert_eq!(blend[..16], one[..16]);
    assert_eq!(blend[16..], f32::NAN.to_le_bytes());
}

/// Running statistics that are said to be a soup's first member's are.
pub fn what_is_the_first_members_is_copied(make: Maker<'_>) {
    let names = [("a.weight", 700), ("n.running_mean", 33), ("n.running_var", 129), ("z.weight", 5)];
    let tensors = names.map(|(name, n)| TensorSpec::new(name, Dtype::F32, [n]));
    let schema = Schema::new(tensors.to_vec()).unwrap().normalised(Some(BatchNorm::First));
    let noise = pool(&[(Dtype::F32, 700 + 33 + 129 + 5)], 4, 8, true);
    let pool = Pool { schema, ..noise };
    let copied = segments(&pool.schema, pool.whole()).iter().filter(|s| s.of_first_member).count();
    assert_eq!(copied, 2);
    let shard = pool.load(make, 1, pool.whole());
    for soup in [mean(&[1, 2, 3]), weighted(&[2, 3], 1, 1), weighted(&[1, 3], 4, 2), mean(&[2])] {
        assert!(blend(shard.as_ref(), &soup) == pool.reference(&soup), "{soup:?}");
    }
    products_are_those_in_memory(shard.as_ref(), pool.load(&in_memory, 1, pool.whole()).as_ref(), &pool);
}

/// What is wrong with ingredients is said with their names.
pub fn findings_name_ingredient_and_tensor(make: Maker<'_>) {
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
        let (_, findings) = pool.builder(make, threads, pool.whole()).finish(has).unwrap();
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

/// What does not fit the shard is refused, and the shard goes on.
pub fn what_does_not_fit_is_refused(make: Maker<'_>) {
    let pool = pool(&[(Dtype::F32, 6)], 2, 1, false);
    let shard = pool.load(make, 1, pool.whole());
    let blend = |soup: &Soup, bytes| shard.blend(soup, &mut vec![0; bytes]).map_err(|e| e.chain());
    assert_eq!(blend(&mean(&[0, 1]), 23), Err("a blend of 24 bytes was asked into 23 bytes".into()));
    assert_eq!(blend(&mean(&[2]), 24), Err("ingredient 2 of a soup is not in the pool of 2".into()));
    assert_eq!(
        blend(&weighted(&[0, 1], 2, 1), 24),
        Err("a soup has weights for 2 tensors, the pool has 1".into())
    );
    let refused = |text: Result<String, soup_core::Error>| text.map_err(|e| e.chain()).unwrap_err();
    let dots = shard.dots(&[0.0; 5]).map(|_| String::new());
    assert_eq!(refused(dots), "a gradient of 5 values for 6 elements");
    let gram = shard.gram(Some(&[0; 8])).map(|_| String::new());
    assert_eq!(refused(gram), "a base of 8 bytes for a shard of 24");
    assert!(shard.digest(Ingredient(2)).is_err());
    assert_eq!(blend(&mean(&[0, 1]), 24), Ok(()));
}

/// All ingredients have to be there, and no other.
pub fn an_ingredient_that_is_missing_is_noticed(make: Maker<'_>) {
    let pool = pool(&[(Dtype::F32, 6), (Dtype::U8, 9)], 2, 1, false);
    let builder = make(1, &pool.schema, pool.whole(), 2);
    builder.keep(Ingredient(0), builder.buffer().unwrap()).unwrap();
    assert!(builder.keep(Ingredient(2), builder.buffer().unwrap()).is_err(), "there is no third one");
    assert!(builder.finish(|_, _| true).is_err(), "the second one is missing");
}

/// One test for each case that every place has to pass, of all `$makers`: a new case is added here, and nowhere else.
macro_rules! conformance {
    ($makers:expr) => {
        $crate::cases::conformance!($makers;
            sizes_do_not_matter
            sums_are_wide_where_16_bits_would_lose
            products_are_rounded_before_they_are_added
            hard_numbers_are_numbers_too
            copies_keep_their_bits_and_other_nan_are_one
            what_is_the_first_members_is_copied
            findings_name_ingredient_and_tensor
            what_does_not_fit_is_refused
            an_ingredient_that_is_missing_is_noticed
        );
    };
    ($makers:expr; $($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                for make in $makers {
                    cases::$case(make);
                }
            }
        )+
    };
}
pub(crate) use conformance;
