//! SHA-256 by the instructions that x86-64 processors have for it (SHA-NI), of one stream or two in turns.
//!
//! FIPS 180-4 says what is computed, and Intel's "SHA Extensions" how the instructions want it. `unsafe` is allowed here to call what
//! is compiled for more than every processor has: a [`ShaNi`] is the proof that this one has it.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

/// Bytes that are digested at a time.
const BLOCK: usize = 64;

/// The state before anything has come.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The constants of the 64 rounds, four a step.
#[rustfmt::skip]
const ROUNDS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// The processor has SHA-NI, and what is used beside it.
#[derive(Clone, Copy)]
pub(crate) struct ShaNi(());

/// A digest in progress.
#[derive(Clone)]
pub(crate) struct Stream {
    state: [u32; 8],
    /// Of all that came, what does not fill a block yet: the first [`Stream::waiting`] bytes of one.
    block: [u8; BLOCK],
    bytes: u64,
}

impl Default for Stream {
    fn default() -> Stream {
        Stream { state: INITIAL, block: [0; BLOCK], bytes: 0 }
    }
}

impl Stream {
    fn waiting(&self) -> usize {
        (self.bytes % BLOCK as u64) as usize
    }
}

impl ShaNi {
    /// Where it has.
    pub(super) fn detect() -> Option<ShaNi> {
        let has = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        has.then_some(ShaNi(()))
    }

    /// Takes what comes next.
    pub(super) fn update(self, stream: &mut Stream, part: &[u8]) {
        let part = self.fill(stream, part);
        let (blocks, rest) = part.as_chunks();
        self.compress([stream], [blocks]);
        keep(stream, blocks, rest);
    }

    /// Takes what comes next of two, in turns as long as both have some.
    pub(super) fn update_two(self, [a, b]: [&mut Stream; 2], [part_a, part_b]: [&[u8]; 2]) {
        let parts = [self.fill(a, part_a), self.fill(b, part_b)];
        let both = parts.map(|part| part.len() / BLOCK).into_iter().min().unwrap_or(0) * BLOCK;
        let [(now_a, later_a), (now_b, later_b)] = parts.map(|part| part.split_at(both));
        let blocks = [now_a.as_chunks().0, now_b.as_chunks().0];
        self.compress([a, b], blocks);
        keep(a, blocks[0], &[]);
        keep(b, blocks[1], &[]);
        self.update(a, later_a);
        self.update(b, later_b);
    }

    /// Fills the block that waits, if one does, and digests it when it is full; gives what is left of `part`.
    fn fill<'a>(self, stream: &mut Stream, part: &'a [u8]) -> &'a [u8] {
        let waiting = stream.waiting();
        if waiting == 0 {
            return part;
        }
        let (now, later) = part.split_at(part.len().min(BLOCK - waiting));
        stream.block[waiting..waiting + now.len()].copy_from_slice(now);
        stream.bytes += now.len() as u64;
        if stream.waiting() == 0 {
            let block = stream.block;
            self.compress([stream], [&[block]]);
        }
        later
    }

    /// The digest of all that came: padded with a one, zeros, and the number of bits.
    pub(super) fn finish(self, mut stream: Stream) -> [u8; 32] {
        let (bits, waiting) = (stream.bytes * 8, stream.waiting());
        let mut padding = [0; 2 * BLOCK];
        padding[0] = 0x80;
        let length_at = if waiting + 1 + size_of::<u64>() <= BLOCK { BLOCK } else { 2 * BLOCK } - waiting;
        padding[length_at - size_of::<u64>()..length_at].copy_from_slice(&bits.to_be_bytes());
        self.update(&mut stream, &padding[..length_at]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(stream.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }

    /// Digests as many blocks of each.
    fn compress<const N: usize>(self, streams: [&mut Stream; N], blocks: [&[[u8; BLOCK]]; N]) {
        let states = streams.each_ref().map(|stream| stream.state);
        // SAFETY: the processor has what the function is compiled for.
        let states = unsafe { compress(states, blocks) };
        streams.into_iter().zip(states).for_each(|(stream, state)| stream.state = state);
    }
}

/// Counts `blocks`, which were digested, and keeps `rest`, which is less than one. Nothing else waits.
fn keep(stream: &mut Stream, blocks: &[[u8; BLOCK]], rest: &[u8]) {
    stream.bytes += (blocks.len() * BLOCK) as u64;
    if !rest.is_empty() {
        stream.block[..rest.len()].copy_from_slice(rest);
        stream.bytes += rest.len() as u64;
    }
}

/// The states after as many blocks of each of `N` streams: each step of one is followed by that of the next.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress<const N: usize>(states: [[u32; 8]; N], blocks: [&[[u8; BLOCK]]; N]) -> [[u32; 8]; N] {
    let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    // The instructions want the words of a state as f, e, b, a and h, g, d, c.
    let (mut abef, mut cdgh) = ([_mm_setzero_si128(); N], [_mm_setzero_si128(); N]);
    for n in 0..N {
        let [abcd, efgh]: [__m128i; 2] = bytemuck::cast(states[n]);
        let (badc, hgfe) = (_mm_shuffle_epi32::<0xb1>(abcd), _mm_shuffle_epi32::<0x1b>(efgh));
        abef[n] = _mm_alignr_epi8::<8>(badc, hgfe);
        cdgh[n] = _mm_blend_epi16::<0xf0>(hgfe, badc);
    }
    let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    for at in 0..count {
        let (abef_before, cdgh_before) = (abef, cdgh);
        let mut words = [[_mm_setzero_si128(); 4]; N];
        for (words, blocks) in words.iter_mut().zip(blocks) {
            *words = bytemuck::cast(blocks[at]);
            for four in words {
                *four = _mm_shuffle_epi8(*four, big_endian);
            }
        }
        for (step, constants) in ROUNDS.iter().enumerate() {
            for n in 0..N {
                if step >= 4 {
                    let [w16, w12, w8, w4] = words[n];
                    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w16, w12), _mm_alignr_epi8::<4>(w4, w8));
                    words[n] = [w12, w8, w4, _mm_sha256msg2_epu32(sum, w4)];
                }
                let four = if step >= 4 { words[n][3] } else { words[n][step] };
                let sum = _mm_add_epi32(four, bytemuck::cast(*constants));
                cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], sum);
                abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32::<0x0e>(sum));
            }
        }
        for n in 0..N {
            abef[n] = _mm_add_epi32(abef[n], abef_before[n]);
            cdgh[n] = _mm_add_epi32(cdgh[n], cdgh_before[n]);
        }
    }
    let mut after = states;
    for n in 0..N {
        let (feba, dchg) = (_mm_shuffle_epi32::<0x1b>(abef[n]), _mm_shuffle_epi32::<0xb1>(cdgh[n]));
        after[n] = bytemuck::cast([_mm_blend_epi16::<0xf0>(feba, dchg), _mm_alignr_epi8::<8>(dchg, feba)]);
    }
    after
}
