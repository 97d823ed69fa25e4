//! A device, driven by cubecl.
//!
//! cubecl answers late and not always: allocations fail in a thread of its own, launches fail when somebody reads. Every call here
//! therefore waits until what it asked for is done, looks whether it was, and takes a panic for the failure that it is. A device that
//! failed once is not asked again. Calls are made one at a time and on one stream, because cubecl keeps memory for every stream.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use cubecl::Runtime;
use cubecl::client::ComputeClient;
use cubecl::stream_id::StreamId;
use soup_core::{Error, ErrorKind, Result};

use crate::budget::Memory;
use crate::compute::{Compute, Held, Rows, Spans, Terms};
use crate::launch::{self, Deltas, Pairs};
use crate::plan::{Block, GRAM_BLOCK_ELEMENTS};
use crate::transfer::Transfer;

/// The one stream that calls are made on; no thread's.
const STREAM: StreamId = StreamId { value: u64::MAX / 2 };
/// Bytes of the vectors of blocks that are multiplied at a time.
const DELTAS_BYTES: usize = 64 << 20;
/// Largest piece, even where kernels could be given more.
const PIECE_BYTES: u64 = 1 << 30;
/// Bytes of a token behind a row.
const TOKEN_BYTES: usize = 16;
/// What is left of a piece for tokens.
const MARGIN_BYTES: u64 = 64 << 10;

/// See the module.
pub(crate) struct Engine<R: Runtime, T> {
    client: ComputeClient<R>,
    transfer: T,
    native: bool,
    token: AtomicU32,
    one_at_a_time: Mutex<()>,
    failed: AtomicBool,
}

impl<R: Runtime, T: Transfer<R>> Engine<R, T> {
    /// A device that converts elements by itself if it is `native`.
    pub(crate) fn new(client: ComputeClient<R>, transfer: T, native: bool) -> Engine<R, T> {
        Engine {
            client,
            transfer,
            native,
            token: AtomicU32::new(0x5eed_0000),
            one_at_a_time: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// Has the device `work`, while nobody else does.
    fn alone<A>(&self, work: impl FnOnce() -> Result<A>) -> Result<A> {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::unavailable(
                "it failed before: start again, and look at what the driver logged",
            ));
        }
        let done = catch_unwind(AssertUnwindSafe(|| STREAM.executes(work)));
        let done = done.unwrap_or_else(|panic| Err(Error::unavailable(said(panic.as_ref()))));
        // A kernel that was not run is one call's trouble: every call looks.
        if done.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable) {
            self.failed.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Waits for all that was asked.
    fn settle(&self) -> Result<()> {
        cubecl::future::block_on(self.client.sync()).map_err(|e| failure(&e))
    }

    fn next_token(&self) -> u32 {
        self.token.fetch_add(1, Ordering::Relaxed)
    }

    fn empty(&self, bytes: usize) -> Held {
        Held(self.client.empty(bytes))
    }

    fn create(&self, bytes: &[u8]) -> Held {
        // An empty table is one that no unit reads; buffers without bytes there are none.
        Held(self.client.create_from_slice(if bytes.is_empty() { &[0; 16] } else { bytes }))
    }

    fn put(
        &self,
        to: &Held,
        start: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        self.transfer.upload(&self.client, to, start, bytes, fill)?;
        self.settle()
    }

    /// A copy of `bytes` on the device for one call.
    fn lent(&self, bytes: &[u8]) -> Result<Held> {
        let held = self.empty(bytes.len());
        self.settle()?;
        let fill =
            &mut |offset: usize, out: &mut [u8]| out.copy_from_slice(&bytes[offset..offset + out.len()]);
        self.put(&held, 0, bytes.len(), fill)?;
        Ok(held)
    }

    /// What a kernel wrote, without its token.
    fn numbers(&self, held: Held, count: usize, token: u32) -> Result<Vec<f64>> {
        self.settle()?;
        let bytes = self.client.read_one(held.0).map_err(|e| failure(&e))?;
        let mut numbers: Vec<f64> = bytemuck::pod_collect_to_vec(&bytes[..(count + 1) * size_of::<f64>()]);
        if numbers.pop() != Some(f64::from(token)) {
            return Err(not_run());
        }
        Ok(numbers)
    }

    fn blend_alone(&self, rows: &Rows, terms: &Terms<'_>, take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let token = self.next_token();
        let out = self.empty(rows.stride + TOKEN_BYTES);
        let members = self.create(bytemuck::cast_slice(terms.members));
        let weights = self.create(bytemuck::cast_slice(terms.rows.as_deref().unwrap_or_default()));
        launch::blend(&self.client, rows, terms, (&members, &weights, &out), token, self.native)?;
        self.settle()?;
        let end = out.0.clone().offset_start(rows.stride as u64);
        let end = self.client.read_one(end).map_err(|e| failure(&e))?;
        if end.get(..4) != Some(&token.to_le_bytes()) {
            return Err(not_run());
        }
        self.transfer.download(&self.client, &out, 0..rows.stride, take)
    }

    fn gram_alone(
        &self,
        rows: &Rows,
        base: Option<&[u8]>,
        blocks: &[Block],
        spans: &mut dyn Spans,
    ) -> Result<()> {
        let vectors = rows.ingredients + 1;
        let pairs = Pairs::of(vectors);
        let tables = [&pairs.firsts, &pairs.seconds].map(|t| self.create(bytemuck::cast_slice(t)));
        let base = base.map(|base| self.lent(base)).transpose()?;
        let block_bytes = vectors * GRAM_BLOCK_ELEMENTS * size_of::<f64>();
        let at_once = (DELTAS_BYTES / block_bytes).max(1);
        for blocks in blocks.chunks(at_once) {
            let deltas = self.empty(blocks.len() * block_bytes);
            let [starts, counts] = [|b: &Block| b.start as u32, |b: &Block| b.count as u32]
                .map(|of| self.create(bytemuck::cast_slice(&blocks.iter().map(of).collect::<Vec<u32>>())));
            let made = Deltas { starts: &starts, counts: &counts, out: &deltas, blocks: blocks.len() };
            launch::deltas(&self.client, rows, base.as_ref(), &made, self.native)?;
            let sums = self.empty(blocks.len() * pairs.count() * size_of::<f64>());
            launch::inner(&self.client, (&deltas, vectors), (&tables, &pairs), &sums, blocks.len())?;
            let bounds = bounds(blocks);
            let count = bounds.len() - 1;
            let carry = self.create(bytemuck::cast_slice(&spans.so_far(&blocks[0])));
            let out = self.empty((count * pairs.count() + 1) * size_of::<f64>());
            let token = self.next_token();
            let table = self.create(bytemuck::cast_slice(&bounds));
            let width = pairs.count();
            launch::add_blocks(
                &self.client,
                (&sums, blocks.len()),
                (&table, count),
                &carry,
                (&out, width),
                token,
            )?;
            let numbers = self.numbers(out, count * width, token)?;
            for (&first, sums) in bounds.iter().zip(numbers.chunks(width)) {
                spans.are_now(&blocks[first as usize], sums);
            }
        }
        Ok(())
    }
}

/// Where the spans of blocks begin, and the end of the last one.
fn bounds(blocks: &[Block]) -> Vec<u32> {
    let span = |b: &Block| (b.segment, b.span);
    let begins = |&at: &usize| at == 0 || span(&blocks[at - 1]) != span(&blocks[at]);
    (0..blocks.len()).filter(begins).chain([blocks.len()]).map(|at| at as u32).collect()
}

fn not_run() -> Error {
    Error::try_again("a kernel was not run, though no error was told")
}

/// What a library says of its failure, without the trace.
pub(crate) fn failure(error: &dyn std::fmt::Display) -> Error {
    let text = error.to_string();
    // The one refusal of a driver that has nothing to do with the device, and is there until somebody installs something.
    if text.contains("CUDA_ERROR_UNSUPPORTED_PTX_VERSION") {
        return Error::configuration(
            "NVIDIA's driver is older than the compiler of kernels (libnvrtc.so), and does not load what that makes: install a newer \
             driver, or the compiler and headers of the CUDA that nvidia-smi names",
        );
    }
    let text = text.split("Backtrace").next().unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    Error::unavailable(shortened(&words.join(" ")))
}

/// What was said when something panicked.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let text = shortened(text.unwrap_or("no reason"));
    format!("what drives it gave up ({text}): start again, and look at what the driver logged")
}

fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

impl<R: Runtime, T: Transfer<R>> Compute for Engine<R, T> {
    fn limit(&self) -> u64 {
        // Room for a token behind what fits exactly.
        self.client.properties().memory.max_page_size.min(PIECE_BYTES).saturating_sub(MARGIN_BYTES)
    }

    fn memory(&self) -> Result<Option<Memory>> {
        self.alone(|| self.transfer.memory())
    }

    fn allocate(&self, bytes: u64) -> Result<Held> {
        self.alone(|| {
            let bytes = usize::try_from(bytes).map_err(|_| Error::internal("more than can be addressed"))?;
            let held = self
                .client
                .memory_persistent_allocation((), |()| self.empty(bytes))
                .map_err(|e| failure(&e))?;
            self.settle()?;
            // It is taken when it is asked for: a buffer that there is not has no resource.
            self.client.get_resource(held.0.clone()).map_err(|e| failure(&e))?;
            Ok(held)
        })
    }

    fn table(&self, words: &[u32]) -> Result<Held> {
        self.alone(|| {
            let held = self.create(bytemuck::cast_slice(words));
            self.settle()?;
            Ok(held)
        })
    }

    fn upload(
        &self,
        to: &Held,
        start: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        self.alone(|| self.put(to, start, bytes, fill))
    }

    fn download(&self, from: &Held, range: Range<usize>, take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.alone(|| {
            self.settle()?;
            self.transfer.download(&self.client, from, range, take)
        })
    }

    fn blend(&self, rows: &Rows, terms: &Terms<'_>, take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.alone(|| self.blend_alone(rows, terms, take))
    }

    fn dots(&self, rows: &Rows, gradient: &[f32], blocks: &[Block]) -> Result<Vec<f64>> {
        self.alone(|| {
            let gradient = self.lent(bytemuck::cast_slice(gradient))?;
            let token = self.next_token();
            let count = blocks.len() * rows.ingredients;
            let out = self.empty((count + 1) * size_of::<f64>());
            let (starts, groups) = launch::vectors_and_groups(rows.format, blocks);
            let tables = [starts, groups].map(|t| self.create(bytemuck::cast_slice(&t)));
            launch::dots(&self.client, rows, &gradient, (&tables, blocks.len()), &out, token, self.native)?;
            self.numbers(out, count, token)
        })
    }

    fn gram(&self, rows: &Rows, base: Option<&[u8]>, blocks: &[Block], spans: &mut dyn Spans) -> Result<()> {
        self.alone(|| self.gram_alone(rows, base, blocks, spans))
    }

    fn copy_within(&self, within: &Held, bytes: usize) -> Result<()> {
        self.alone(|| {
            let proof = self.empty(size_of::<f64>());
            launch::put(&self.client, within, (within, bytes), bytes, (&proof, 0), self.next_token())?;
            self.settle()
        })
    }

    fn give_back(&self) -> Result<()> {
        self.alone(|| {
            self.client.memory_cleanup();
            self.settle()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_bounds() {
        let block = |segment, span| Block { segment, span, start: 0, count: 1 };
        assert_eq!(bounds(&[block(0, 0)]), [0, 1]);
        assert_eq!(bounds(&[block(0, 0), block(0, 0), block(0, 1), block(3, 1), block(3, 1)]), [0, 2, 3, 5]);
    }

    #[test]
    fn failures_are_short_and_without_traces() {
        assert_eq!(failure(&"no\n  memory\nBacktrace:\n 1: main").chain(), "no memory");
        let old = "errors: [Launch(\"Unable to load the PTX: DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"too new\")\")]";
        let old = failure(&old);
        assert_eq!(old.kind(), ErrorKind::Configuration, "no use to try again");
        assert!(old.chain().starts_with("NVIDIA's driver is older than the compiler"), "{}", old.chain());
        assert!(shortened(&"é".repeat(1000)).chars().count() < 410);
        assert!(said(&"no luck").contains("(no luck)"), "{}", said(&"no luck"));
    }
}
