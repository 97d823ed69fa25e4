//! Shards that stay on a device.
//!
//! An ingredient's elements go to the device when it is handed in, and the host keeps what is not averaged, of the first one. What is
//! asked of the shard is then the device's work, piece by piece ([`plan`](crate::plan)).

use std::sync::{Arc, Mutex, PoisonError};

use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, Result};
use soup_tensor::{Buffer, Layout, Place, SegmentDots, SegmentGram, ShardMemory};

use crate::compute::{Rows, Spans, Terms};
use crate::gpu::Opened;
use crate::order::Sums;
use crate::plan::{BLOCK_ELEMENTS, Block, GRAM_BLOCK_ELEMENTS, Piece, Plan};

/// Room for a shard on a device.
pub(crate) struct GpuPlace {
    shard: Shard,
    /// The first ingredient's part that stays here, once it came.
    on_host: Mutex<Option<Vec<u8>>>,
    /// One an ingredient, taken before its bytes go to the device.
    digests: Vec<Mutex<Option<[u8; 32]>>>,
}

struct Shard {
    device: Arc<Opened>,
    layout: Layout,
    plan: Plan,
    /// One a piece.
    rows: Vec<Rows>,
}

impl GpuPlace {
    /// Takes the room.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the device has not so much; where it fails.
    pub(crate) fn new(device: Arc<Opened>, layout: Layout) -> Result<GpuPlace> {
        let plan = Plan::new(&layout, device.compute.limit()).map_err(|e| device.named(e))?;
        let ingredients = layout.ingredients();
        let rows = device.take(plan.bytes(ingredients), |d| {
            let rows = plan.pieces.iter().map(|piece| {
                Ok(Rows {
                    format: piece.format,
                    stride: piece.stride,
                    ingredients,
                    memory: d.allocate(piece.bytes(ingredients))?,
                    parts_of_units: d.table(&piece.parts_of_units())?,
                })
            });
            rows.collect::<Result<_>>()
        })?;
        let digests = (0..ingredients).map(|_| Mutex::default()).collect();
        let shard = Shard { device, layout, plan, rows };
        Ok(GpuPlace { shard, on_host: Mutex::default(), digests })
    }
}

impl Place for GpuPlace {
    fn keep(&self, ingredient: Ingredient, buffer: Buffer) -> Result<()> {
        let digest = self.shard.layout.of(&self.digests, ingredient)?;
        let taken = buffer.digest();
        for (piece, rows) in self.shard.pieces() {
            let start = ingredient.index() * rows.stride;
            let fill = &mut |offset: usize, out: &mut [u8]| piece.gather(buffer.bytes(), offset, out);
            self.shard.device.ask(|d| d.upload(&rows.memory, start, rows.stride, fill))?;
        }
        if ingredient.index() == 0 {
            let kept = self.shard.plan.on_host.iter().flat_map(|range| &buffer.bytes()[range.clone()]);
            *lock(&self.on_host) = Some(kept.copied().collect());
        }
        *lock(digest) = Some(taken);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn ShardMemory>> {
        let GpuPlace { shard, on_host, digests } = *self;
        let digests: Option<Vec<[u8; 32]>> = digests.iter().map(|d| *lock(d)).collect();
        match (digests, into_inner(on_host)) {
            (Some(digests), Some(on_host)) => Ok(Box::new(GpuShards { shard, on_host, digests })),
            _ => Err(Error::internal("a shard on a device is finished, but not every ingredient was loaded")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn pieces(&self) -> impl Iterator<Item = (&Piece, &Rows)> {
        self.plan.pieces.iter().zip(&self.rows)
    }

    /// Bytes on the device.
    fn bytes(&self) -> u64 {
        self.plan.bytes(self.layout.ingredients())
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let bytes = self.bytes();
        self.rows.clear();
        // A device that cannot give memory back says so when it is asked for more.
        let _ = self.device.give_back(bytes);
    }
}

/// A shard of all ingredients on a device.
struct GpuShards {
    shard: Shard,
    /// What is not averaged, of the first ingredient, one tensor after the other.
    on_host: Vec<u8>,
    /// One an ingredient.
    digests: Vec<[u8; 32]>,
}

impl ShardMemory for GpuShards {
    fn bytes(&self) -> usize {
        self.shard.layout.bytes()
    }

    fn blend(&self, soup: &Soup, out: &mut [u8]) -> Result<()> {
        let Shard { device, layout, plan, .. } = &self.shard;
        layout.check_blend(soup, out.len())?;
        let mut kept = self.on_host.as_slice();
        for range in &plan.on_host {
            let (own, others) = kept.split_at(range.len());
            out[range.clone()].copy_from_slice(own);
            kept = others;
        }
        let members: Vec<u32> = soup.members().iter().map(|m| m.0).collect();
        for (piece, rows) in self.shard.pieces() {
            let take = &mut |offset: usize, row: &[u8]| piece.scatter(row, offset, out);
            if piece.of_first_member || (members.len() == 1 && soup.rows().is_none()) {
                let start = members[0] as usize * rows.stride;
                device.ask(|d| d.download(&rows.memory, start..start + rows.stride, take))?;
            } else {
                let terms = Terms { members: &members, rows: weights(soup, piece) };
                device.ask(|d| d.blend(rows, &terms, take))?;
            }
        }
        Ok(())
    }

    fn dots(&self, gradient: &[f32]) -> Result<Vec<SegmentDots>> {
        self.shard.layout.check_gradient(gradient.len())?;
        let ingredients = self.shard.layout.ingredients();
        let mut sums = Sums::default();
        for (piece, rows) in self.shard.pieces() {
            let blocks = piece.blocks(BLOCK_ELEMENTS);
            let row = piece.gather_gradient(gradient);
            let found = self.shard.device.ask(|d| d.dots(rows, &row, &blocks))?;
            blocks.iter().zip(found.chunks(ingredients)).for_each(|(block, found)| sums.add(block, found));
        }
        let tensor = |segment: usize| self.shard.layout.segments()[segment].tensor;
        Ok(sums.finish().map(|(segment, dots)| SegmentDots { tensor: tensor(segment), dots }).collect())
    }

    fn gram(&self, base: Option<&[u8]>) -> Result<Vec<SegmentGram>> {
        if let Some(base) = base {
            self.shard.layout.check_base(base.len())?;
        }
        let vectors = self.shard.layout.ingredients() + 1;
        let mut sums = Grams { sums: Sums::default(), width: vectors * (vectors + 1) / 2 };
        for (piece, rows) in self.shard.pieces() {
            let blocks = piece.blocks(GRAM_BLOCK_ELEMENTS);
            let row = base.map(|base| {
                let mut row = vec![0; piece.stride];
                piece.gather(base, 0, &mut row);
                row
            });
            self.shard.device.ask(|d| d.gram(rows, row.as_deref(), &blocks, &mut sums))?;
        }
        let tensor = |segment: usize| self.shard.layout.segments()[segment].tensor;
        let found = sums.sums.finish();
        Ok(found.map(|(segment, packed)| SegmentGram { tensor: tensor(segment), packed }).collect())
    }

    fn digest(&self, ingredient: Ingredient) -> Result<[u8; 32]> {
        self.shard.layout.of(&self.digests, ingredient).copied()
    }

    fn resident_bytes(&self) -> u64 {
        self.on_host.len() as u64
    }

    fn device_bytes(&self) -> u64 {
        self.shard.bytes()
    }
}

/// The weights of a soup on a piece: one row, or one a part; none for a mean.
fn weights(soup: &Soup, piece: &Piece) -> Option<Vec<f64>> {
    let rows = soup.rows()?;
    Some(match rows {
        [row] => row.iter().map(|w| w.get()).collect(),
        rows => piece.parts.iter().flat_map(|part| &rows[part.tensor]).map(|w| w.get()).collect(),
    })
}

struct Grams {
    sums: Sums,
    /// Numbers of a block.
    width: usize,
}

impl Spans for Grams {
    fn so_far(&mut self, block: &Block) -> Vec<f64> {
        self.sums.open(block, self.width).clone()
    }

    fn are_now(&mut self, block: &Block, sums: &[f64]) {
        self.sums.open(block, self.width).copy_from_slice(sums);
    }
}
