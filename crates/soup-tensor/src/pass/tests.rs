use std::num::NonZeroUsize;

use soup_core::batch_norm::BatchNorm;
use soup_core::schema::TensorSpec;
use soup_core::soup::Weight;

use super::*;
use crate::{Device, ShardMemory};

/// Numbers from -2 to 2, never the same twice.
fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 11) as f64 / (1u64 << 51) as f64 - 2.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn bytes_of(dtype: Dtype, values: &[f64]) -> Vec<u8> {
    match dtype.is_float() {
        true => {
            let mut out = vec![0; values.len() * dtype.width_bytes() as usize];
            narrow(dtype, values, &mut out);
            out
        }
        false => {
            let width = dtype.width_bytes() as usize;
            values.iter().flat_map(|v| ((v * 1000.0) as i64).to_le_bytes()[..width].to_vec()).collect()
        }
    }
}

/// What an ingredient stores, tensor by tensor of the schema; `None`: it lacks the tensor.
type Tensors = Vec<Option<(Dtype, Vec<f64>)>>;

struct Pool {
    schema: Schema,
    ingredients: Vec<Tensors>,
}

impl Pool {
    /// All of `ingredient` as it is read, and what it has.
    fn read(&self, ingredient: &Tensors) -> (Vec<u8>, Having) {
        let (mut bytes, mut having) = (Vec::new(), Having::default());
        for (index, (spec, stored)) in self.schema.tensors().iter().zip(ingredient).enumerate() {
            let start = bytes.len();
            match stored {
                None => bytes.resize(start + spec.bytes().unwrap() as usize, 0),
                Some((dtype, values)) => {
                    bytes.extend(bytes_of(*dtype, values));
                    having.covered.push(start..bytes.len());
                    if *dtype != spec.dtype {
                        having.dtypes.insert(index, *dtype);
                    }
                }
            }
        }
        (bytes, having)
    }

    /// A pass over all, as if it were one shard, in groups of so many tiles.
    fn pass(&self, soup: Option<&Soup>, base: Option<&Tensors>, at_once: usize) -> (Vec<u8>, Passed) {
        let read: Vec<(Vec<u8>, Having)> = self.ingredients.iter().map(|i| self.read(i)).collect();
        let having: Vec<Having> = read.iter().map(|(_, h)| h.clone()).collect();
        let base = base.map(|b| self.read(b));
        let range = 0..self.schema.bytes();
        let passing = Passing::new(&self.schema, range, &having, base.as_ref().map(|(_, h)| h), true);
        let passing = Arc::new(passing);
        let mut pass = Pass::new(passing.clone(), soup).unwrap();
        let mut out = vec![0xaa; passing.bytes()];
        for first in (0..passing.tiles()).step_by(at_once) {
            let group = first..passing.tiles().min(first + at_once);
            // Buffers of their own, as if they had just been read.
            let copy = |at: usize, all: &[u8]| aligned(&all[passing.stored_range(at, group.clone())]);
            let mut buffers: Vec<_> = read.iter().enumerate().map(|(at, (all, _))| copy(at, all)).collect();
            buffers.extend(base.iter().map(|(all, _)| copy(read.len(), all)));
            for tile in group.clone() {
                let of = |at: usize| {
                    let (start, range) = (
                        passing.stored_range(at, group.clone()).start,
                        passing.stored_range(at, tile..tile + 1),
                    );
                    let all: &[u8] = bytemuck::cast_slice(&buffers[at]);
                    &all[range.start - start..range.end - start]
                };
                let tiles: Vec<&[u8]> = (0..read.len()).map(of).collect();
                let base = base.as_ref().map(|_| of(read.len()));
                let place = if soup.is_some() { passing.blend_range(tile) } else { 0..0 };
                pass.tile(tile, &tiles, base, &mut out[place]).unwrap();
            }
        }
        (out, pass.finish())
    }

    /// The same pool, kept.
    fn kept(&self) -> (Box<dyn ShardMemory>, Findings) {
        let (count, range) = (self.ingredients.len() as u32, 0..self.schema.bytes());
        let builder = Device::cpu(NonZeroUsize::MIN).builder(&self.schema, range, count).unwrap();
        for (index, ingredient) in self.ingredients.iter().enumerate() {
            let mut buffer = builder.buffer().unwrap();
            buffer.bytes_mut().copy_from_slice(&self.read(ingredient).0);
            builder.keep(Ingredient(index as u32), buffer).unwrap();
        }
        builder.finish(|i, tensor| self.ingredients[i.index()][tensor].is_some()).unwrap()
    }
}

fn aligned(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

fn schema(tensors: &[(&str, Dtype, u64)]) -> Schema {
    Schema::new(tensors.iter().map(|&(n, d, count)| TensorSpec::new(n, d, [count])).collect()).unwrap()
}

/// Of every dtype, several pieces long and with odd counts; the second ingredient lacks the integers.
fn native() -> Pool {
    let tensors = [
        ("a", Dtype::F64, 70_001),
        ("b", Dtype::I64, 3),
        ("c", Dtype::F32, 140_003),
        ("d", Dtype::F32, 1),
        ("e", Dtype::F32, 0),
        ("f", Dtype::F16, 66_001),
        ("g", Dtype::BF16, 5),
        ("h", Dtype::U8, 7),
    ];
    let schema = schema(&tensors);
    let ingredient = |seed: u64| -> Tensors {
        let tensor = |(at, t): (usize, &TensorSpec)| {
            let values = numbers(t.elements().unwrap() as usize, seed * 100 + at as u64);
            (seed != 2 || t.dtype.is_float()).then_some((t.dtype, values))
        };
        schema.tensors().iter().enumerate().map(tensor).collect()
    };
    Pool { ingredients: (1..4).map(ingredient).collect(), schema }
}

fn weighted(weights: &[f64]) -> Soup {
    let members = (0..weights.len() as u32).map(Ingredient).collect();
    Soup::weighted(members, vec![weights.iter().map(|w| Weight::new(*w).unwrap()).collect()]).unwrap()
}

#[test]
fn a_pass_gives_the_bits_of_a_shard_that_is_kept() {
    let pool = native();
    let (kept, findings) = pool.kept();
    for soup in [Soup::uniform(3).unwrap(), Soup::single(Ingredient(1)), weighted(&[0.25, -0.5, 1.5])] {
        for at_once in [1, 3, 1000] {
            let (out, passed) = pool.pass(Some(&soup), None, at_once);
            let mut expect = vec![0; kept.bytes()];
            kept.blend(&soup, &mut expect).unwrap();
            assert!(out == expect, "{soup:?}");
            assert_eq!(passed.grams, kept.gram(None).unwrap());
            assert_eq!(passed.findings, findings);
            let digests = (0..3).map(|i| kept.digest(Ingredient(i)).unwrap());
            assert_eq!(passed.digests, digests.collect::<Vec<_>>());
            assert_eq!(passed.overflown, BTreeSet::new());
        }
    }
}

/// Running statistics that are a soup's first member's: bit for bit, whatever the weights, kept or passed over.
#[test]
fn what_is_of_the_first_member_is_copied() {
    let names = [
        ("w", Dtype::F32, 70_001),
        ("n.running_mean", Dtype::F32, 140_003),
        ("n.running_var", Dtype::BF16, 5),
    ];
    let schema = schema(&names).normalised(Some(BatchNorm::First));
    let ingredient = |seed: u64| -> Tensors {
        let tensor = |(at, t): (usize, &TensorSpec)| {
            Some((t.dtype, numbers(t.elements().unwrap() as usize, seed * 100 + at as u64)))
        };
        schema.tensors().iter().enumerate().map(tensor).collect()
    };
    let pool = Pool { ingredients: (1..4).map(ingredient).collect(), schema };
    let (kept, _) = pool.kept();
    let of = |soup: Soup, first: usize| {
        let mut blend = vec![0; kept.bytes()];
        kept.blend(&soup, &mut blend).unwrap();
        let (passed, _) = pool.pass(Some(&soup), None, 3);
        assert!(blend == passed, "{soup:?}");
        let whole = pool.read(&pool.ingredients[first]).0;
        for (at, tensor) in pool.schema.tensors().iter().enumerate() {
            let range = pool.schema.range(at);
            let range = range.start as usize..range.end as usize;
            let same = blend[range.clone()] == whole[range];
            assert_eq!(same, tensor.name != "w", "{} of {soup:?}", tensor.name);
        }
    };
    of(Soup::uniform(3).unwrap(), 0);
    of(Soup::mean([Ingredient(2), Ingredient(1)]).unwrap(), 1);
    of(weighted(&[0.0, 0.5, 0.5]), 0);
}

#[test]
fn a_pass_without_a_soup_finds_the_same() {
    let pool = native();
    let base = pool.ingredients[2].clone();
    let (kept, findings) = pool.kept();
    let (_, passed) = pool.pass(None, Some(&base), 2);
    assert_eq!(passed.grams, kept.gram(Some(&pool.read(&base).0)).unwrap());
    assert_eq!(passed.findings, findings);
    assert_eq!(passed.digests[0], kept.digest(Ingredient(0)).unwrap());
}

/// A pool that stores its tensors in other dtypes, on which the soup is `out`; the last one is taken from ingredient 1.
fn mixed(out: Dtype) -> Pool {
    let schema = schema(&[("w", out, 70_001), ("b", out, 3), ("n", Dtype::I32, 3), ("pooler", out, 5)])
        .taking(&BTreeMap::from([("pooler", Ingredient(1))]));
    let stored = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64];
    let ingredient = |(seed, dtype): (usize, &Dtype)| -> Tensors {
        let tensor = |t: &TensorSpec| {
            let values = numbers(t.elements().unwrap() as usize, seed as u64);
            let dtype = if t.dtype.is_float() { *dtype } else { t.dtype };
            // As it is stored, for the reference.
            let values = if dtype.is_float() {
                let mut stored = vec![0.0; values.len()];
                widen(dtype, &bytes_of(dtype, &values), &mut stored);
                stored
            } else {
                values
            };
            (t.name != "pooler" || seed == 1).then_some((dtype, values))
        };
        schema.tensors().iter().map(tensor).collect()
    };
    Pool { ingredients: stored.iter().enumerate().map(ingredient).collect(), schema }
}

#[test]
fn other_dtypes_are_averaged_exactly_and_rounded_once() {
    for out_dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
        let pool = mixed(out_dtype);
        for weights in [None, Some([0.1, 0.2, 0.3, 0.4])] {
            let soup = weights.map_or_else(|| Soup::uniform(4).unwrap(), |w| weighted(&w));
            let (out, _) = pool.pass(Some(&soup), None, 3);
            let mut expect = Vec::new();
            for (index, t) in pool.schema.tensors().iter().enumerate() {
                let stored = |i: usize| &pool.ingredients[i][index].as_ref().unwrap().1;
                let mean = |e: usize| match weights {
                    None => (0..4).map(|i| stored(i)[e]).sum::<f64>() / 4.0,
                    Some(w) => (0..4).fold(-0.0, |sum, i| sum + w[i] * stored(i)[e]),
                };
                expect.extend(match (t.name.as_str(), t.dtype.is_float()) {
                    ("pooler", _) => bytes_of(t.dtype, stored(1)),
                    (_, false) => bytes_of(t.dtype, stored(0)),
                    _ => bytes_of(t.dtype, &(0..stored(0).len()).map(mean).collect::<Vec<_>>()),
                });
            }
            assert!(out == expect, "{out_dtype} {weights:?}");
        }
        // One ingredient is that ingredient, in the soup's dtype.
        let (out, _) = pool.pass(Some(&Soup::single(Ingredient(2))), None, 1);
        let at = pool.schema.tensors().iter().position(|t| t.name == "w").unwrap();
        let range = pool.schema.range(at);
        let expect = bytes_of(out_dtype, &pool.ingredients[2][at].as_ref().unwrap().1);
        assert!(out[range.start as usize..range.end as usize] == expect);
    }
}

#[test]
fn products_do_not_depend_on_how_elements_are_stored() {
    // Every number is one of bf16, so all dtypes hold the same.
    let values = |seed: u64| {
        let mut stored = vec![0.0; 70_001];
        widen(Dtype::BF16, &bytes_of(Dtype::BF16, &numbers(70_001, seed)), &mut stored);
        stored
    };
    let grams = |dtypes: [Dtype; 3], base: Dtype| {
        let schema = schema(&[("w", Dtype::F32, 70_001)]);
        let ingredients =
            dtypes.iter().enumerate().map(|(i, d)| vec![Some((*d, values(i as u64)))]).collect();
        let pool = Pool { schema, ingredients };
        pool.pass(None, Some(&vec![Some((base, values(9)))]), 2).1.grams
    };
    let native = grams([Dtype::F32; 3], Dtype::F32);
    assert_eq!(native[0].packed.len(), 10);
    assert_eq!(grams([Dtype::F32, Dtype::BF16, Dtype::F64], Dtype::F32), native);
    assert_eq!(grams([Dtype::F32; 3], Dtype::BF16), native);
}

#[test]
fn what_the_dtype_cannot_hold_is_told() {
    let pool = |out: Dtype, stored: Dtype, value: f64| Pool {
        schema: schema(&[("w", out, 2), ("v", out, 2)]),
        ingredients: (0..2)
            .map(|_| vec![Some((stored, vec![1.0, 2.0])), Some((stored, vec![1.0, value]))])
            .collect(),
    };
    let overflown = |pool: Pool, soup: Soup| pool.pass(Some(&soup), None, 1).1.overflown;
    let mean = || Soup::uniform(2).unwrap();
    assert_eq!(overflown(pool(Dtype::F16, Dtype::F32, 1e5), mean()), BTreeSet::from([1]));
    assert_eq!(
        overflown(pool(Dtype::F16, Dtype::F32, 1e5), Soup::single(Ingredient(0))),
        BTreeSet::from([1])
    );
    assert_eq!(overflown(pool(Dtype::BF16, Dtype::F32, 1e5), mean()), BTreeSet::new());
    // Weights can do that to any dtype.
    assert_eq!(overflown(pool(Dtype::F16, Dtype::F16, 4e4), weighted(&[1.0, 1.0])), BTreeSet::from([1]));
    assert_eq!(overflown(pool(Dtype::F16, Dtype::F16, 4e4), mean()), BTreeSet::new());
    // An ingredient that is not finite is found for what it is.
    let (_, passed) = pool(Dtype::F16, Dtype::F32, f64::INFINITY).pass(Some(&mean()), None, 1);
    assert_eq!((passed.overflown.len(), passed.findings.non_finite.len()), (0, 2));
    assert_eq!(passed.findings.non_finite[1].tensor, 1);
}

#[test]
fn what_is_not_the_tile_is_refused() {
    let pool = native();
    let having: Vec<Having> = pool.ingredients.iter().map(|i| pool.read(i).1).collect();
    let passing = Arc::new(Passing::new(&pool.schema, 0..pool.schema.bytes(), &having, None, false));
    let mut pass = Pass::new(passing.clone(), Some(&Soup::uniform(3).unwrap())).unwrap();
    let tile = aligned(&vec![0; passing.stored_range(0, 0..1).len()]);
    let tile: &[u8] = bytemuck::cast_slice(&tile);
    let mut out = vec![0; passing.blend_range(0).len()];
    assert!(pass.tile(0, &[tile, tile], None, &mut out).is_err());
    assert!(pass.tile(0, &[tile, tile, &tile[1..]], None, &mut out).is_err());
    assert!(pass.tile(0, &[tile; 3], Some(tile), &mut out).is_err());
    assert!(pass.tile(0, &[tile; 3], None, &mut out[1..]).is_err());
    assert!(pass.tile(0, &[tile; 3], None, &mut out).is_ok());
    assert!(Pass::new(passing, Some(&Soup::single(Ingredient(3)))).is_err());
}
