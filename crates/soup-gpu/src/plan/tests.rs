use std::num::NonZeroUsize;

use soup_core::ErrorKind;
use soup_core::batch_norm::BatchNorm;
use soup_core::schema::{Schema, TensorSpec};

use super::*;

fn layout(tensors: &[(&str, Dtype, u64)], ingredients: u32, statistics: Option<BatchNorm>) -> Layout {
    let spec = |&(name, dtype, n): &(&str, Dtype, u64)| TensorSpec::new(name, dtype, [n]);
    let schema = Schema::new(tensors.iter().map(spec).collect()).unwrap().normalised(statistics);
    Layout::new(&schema, 0..schema.bytes(), ingredients, NonZeroUsize::MIN).unwrap()
}

/// Every kind of tensor; sizes around a unit and a block.
fn mixed(ingredients: u32) -> Layout {
    let tensors = [
        ("a", Dtype::F64, 5000),
        ("b", Dtype::F32, 128),
        ("c", Dtype::F32, 129),
        ("d", Dtype::F32, 100_000),
        ("n.running_mean", Dtype::F32, 7),
        ("e", Dtype::I64, 3),
        ("f", Dtype::F16, 1),
        ("g", Dtype::BF16, 9000),
        ("h", Dtype::F16, 8192),
        ("i", Dtype::U8, 5),
    ];
    layout(&tensors, ingredients, Some(BatchNorm::First))
}

/// A shard of bytes that differ.
fn shard(layout: &Layout) -> Vec<u8> {
    (0..layout.bytes()).map(|i| (i * 7 + i / 256) as u8).collect()
}

#[test]
fn every_byte_has_one_place() {
    let layout = mixed(3);
    for limit in [3 * 40_000, 3 * 100_000, 1 << 30] {
        let plan = Plan::new(&layout, limit).unwrap();
        let mut taken = vec![0; layout.bytes()];
        let mut take = |range: Range<usize>| taken[range].iter_mut().for_each(|t| *t += 1);
        plan.on_host.iter().cloned().for_each(&mut take);
        for piece in &plan.pieces {
            assert!(piece.bytes(3) <= limit, "{} of {limit}", piece.bytes(3));
            assert_eq!(piece.stride % UNIT_BYTES, 0);
            let mut at = 0;
            for part in &piece.parts {
                let segment = &layout.segments()[part.segment];
                assert_eq!((part.at, part.tensor), (at, segment.tensor), "no gap but to the next unit");
                assert_eq!(segment.dtype, piece.format.dtype());
                assert_eq!(segment.of_first_member, piece.of_first_member);
                assert_eq!(part.first % BLOCK_ELEMENTS, 0);
                at = (part.at + part.bytes.len()).next_multiple_of(UNIT_BYTES);
                take(part.bytes.clone());
            }
            assert_eq!(at, piece.stride);
            assert_eq!(piece.parts_of_units().len(), piece.stride / UNIT_BYTES);
        }
        assert!(taken.iter().all(|&t| t == 1), "{limit}");
        assert_eq!(plan.bytes(3), plan.pieces.iter().map(|p| p.stride as u64 * 3).sum::<u64>());
    }
}

#[test]
fn rows_come_back_as_they_went_with_zeros_between() {
    let layout = mixed(2);
    let (plan, shard) = (Plan::new(&layout, 1 << 18).unwrap(), shard(&layout));
    let mut back = vec![0u8; layout.bytes()];
    for piece in &plan.pieces {
        let mut whole = vec![0xaa; piece.stride];
        piece.gather(&shard, 0, &mut whole);
        let mut own = vec![false; piece.stride];
        piece.parts.iter().for_each(|p| own[p.at..p.at + p.bytes.len()].fill(true));
        assert!(whole.iter().zip(own).all(|(&byte, own)| own || byte == 0));
        // The same by chunks that cut tensors and gaps anywhere.
        for chunk in [1, 500, 4096, 100_001] {
            for start in (0..piece.stride).step_by(chunk.max(piece.stride / 50)) {
                let end = (start + chunk).min(piece.stride);
                let mut part = vec![0xaa; end - start];
                piece.gather(&shard, start, &mut part);
                assert_eq!(part, whole[start..end]);
            }
        }
        for (nth, row) in whole.chunks(3333).enumerate() {
            piece.scatter(row, nth * 3333, &mut back);
        }
    }
    plan.on_host.iter().for_each(|r| back[r.clone()].copy_from_slice(&shard[r.clone()]));
    assert!(back == shard);
}

#[test]
fn units_and_gradients_belong_to_their_tensors() {
    let layout = layout(&[("a", Dtype::F32, 129), ("b", Dtype::F32, 1), ("c", Dtype::I32, 2)], 1, None);
    let plan = Plan::new(&layout, 1 << 20).unwrap();
    let [piece] = plan.pieces.as_slice() else { panic!("{plan:?}") };
    assert_eq!(piece.parts_of_units(), [0, 0, 1]);
    let gradient: Vec<f32> = (0..132).map(|e| e as f32).collect();
    let row = piece.gather_gradient(&gradient);
    assert_eq!(row.len(), 3 * UNIT_BYTES / 4);
    assert_eq!((row[128], row[129], row[256], row[257]), (128.0, 0.0, 129.0, 0.0));
}

#[test]
fn blocks_are_those_of_the_segments_however_pieces_are_cut() {
    let layout = layout(&[("a", Dtype::F32, 3 * 65_536 + 4097), ("b", Dtype::F32, 10)], 4, None);
    let blocks = |limit: u64, elements: usize| {
        let plan = Plan::new(&layout, limit).unwrap();
        let blocks: Vec<Block> = plan.pieces.iter().flat_map(|p| p.blocks(elements)).collect();
        (plan.pieces.len(), blocks.iter().map(|b| (b.segment, b.span, b.count)).collect::<Vec<_>>())
    };
    for elements in [BLOCK_ELEMENTS, GRAM_BLOCK_ELEMENTS] {
        let (one, whole) = blocks(1 << 30, elements);
        let (many, cut) = blocks(4 * 5 * 4 * 4096, elements);
        assert_eq!(one, 1);
        assert!(many > 5, "{many}");
        assert_eq!(cut, whole);
        let last = whole.len() - 1;
        assert_eq!(whole[0], (0, 0, elements));
        assert_eq!(whole[65_536 / elements], (0, 1, elements));
        assert_eq!(whole[last - 1], (0, 3, 1));
        assert_eq!(whole[last], (1, 0, 10));
    }
}

#[test]
fn more_ingredients_than_kernels_can_be_given_are_refused() {
    let layout = layout(&[("a", Dtype::F32, 100_000)], 9, None);
    assert!(Plan::new(&layout, 9 * 4096 * 4).is_ok());
    let error = Plan::new(&layout, 9 * 4096 * 4 - 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.chain().starts_with("9 ingredients are too many for this device"), "{}", error.chain());
}
