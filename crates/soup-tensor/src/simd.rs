//! Which instructions the loops of blends and products are made of.
//!
//! # Words
//!
//! An [`InstructionSet`] widens and narrows eight elements at a time ([`Simd`]). Every processor has [`Portable`], plain Rust of
//! which the compiler makes what vectors it can; the widest that a processor has is chosen when the program runs. A [`Job`] is
//! written once, for any of them.
//!
//! # Bits
//!
//! All give the same bits: conversions are exact or rounded once, so there is one right result, NaN included; what is between
//! them is addition, multiplication and division as IEEE 754 defines them, never fused. The tests hold every instruction set that
//! the processor has against plain loops.

#[cfg(target_arch = "x86_64")]
mod avx2;

use crate::format::{Bf16, F16, Format};

/// An instruction set. Who has a value of it may use it.
pub(crate) trait Simd: Copy {
    /// Does `job`, compiled for this instruction set.
    fn run<J: Job>(self, job: J) -> J::Output;
    /// The values of eight elements; exact. In any order: the one that `narrow_f16` takes.
    fn widen_f16(self, bits: [u16; 8]) -> [f64; 8];
    /// The nearest elements, as [`Format::narrow`] says; in the order of the bits that were widened.
    fn narrow_f16(self, values: [f64; 8]) -> [u16; 8];
    /// The values of eight elements; exact. In any order: the one that `narrow_bf16` takes.
    fn widen_bf16(self, bits: [u16; 8]) -> [f64; 8];
    /// The nearest elements, as [`Format::narrow`] says; in the order of the bits that were widened.
    fn narrow_bf16(self, values: [f64; 8]) -> [u16; 8];
    /// Says that these elements are read now, and soon what comes after them.
    fn prefetch<T>(self, _elements: &[T]) {}
}

/// What is done with an instruction set.
pub(crate) trait Job {
    /// What comes of it.
    type Output;

    /// Has to be inlined (`#[inline(always)]`), with all that it calls in its loops: what is not, is compiled for every processor.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// One that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InstructionSet {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
}

impl InstructionSet {
    /// The one with the widest vectors.
    pub(crate) fn widest() -> InstructionSet {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::detect() {
            return InstructionSet::Avx2(avx2);
        }
        InstructionSet::Portable
    }

    /// Does `job` with it.
    pub(crate) fn run<J: Job>(self, job: J) -> J::Output {
        match self {
            InstructionSet::Portable => Portable.run(job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(avx2) => avx2.run(job),
        }
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<InstructionSet> {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::detect() {
            return vec![InstructionSet::Portable, InstructionSet::Avx2(avx2)];
        }
        vec![InstructionSet::Portable]
    }
}

/// What every processor has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    #[inline(always)]
    fn run<J: Job>(self, job: J) -> J::Output {
        job.run(self)
    }

    #[inline(always)]
    fn widen_f16(self, bits: [u16; 8]) -> [f64; 8] {
        widen_each::<F16>(bits)
    }

    #[inline(always)]
    fn narrow_f16(self, values: [f64; 8]) -> [u16; 8] {
        narrow_each::<F16>(values)
    }

    #[inline(always)]
    fn widen_bf16(self, bits: [u16; 8]) -> [f64; 8] {
        widen_each::<Bf16>(bits)
    }

    #[inline(always)]
    fn narrow_bf16(self, values: [f64; 8]) -> [u16; 8] {
        narrow_each::<Bf16>(values)
    }
}

// Loops, and no closures: those are not always inlined.

#[inline(always)]
pub(crate) fn widen_each<F: Format>(bits: [F::Bits; 8]) -> [f64; 8] {
    let mut values = [0.0; 8];
    for (value, bits) in values.iter_mut().zip(bits) {
        *value = F::widen(bits);
    }
    values
}

#[inline(always)]
pub(crate) fn narrow_each<F: Format>(values: [f64; 8]) -> [F::Bits; 8] {
    let mut bits = [bytemuck::Zeroable::zeroed(); 8];
    for (bits, value) in bits.iter_mut().zip(values) {
        *bits = F::narrow(value);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All elements, and all numbers that are on a boundary between two or one step of f64 beside it, through both conversions.
    struct Conversions(InstructionSet);

    impl Job for Conversions {
        type Output = ();

        fn run<S: Simd>(self, simd: S) {
            check::<F16>(self.0, |b| simd.widen_f16(b), |v| simd.narrow_f16(v));
            check::<Bf16>(self.0, |b| simd.widen_bf16(b), |v| simd.narrow_bf16(v));
        }
    }

    fn check<F: Format<Bits = u16>>(
        set: InstructionSet,
        widen: impl Fn([u16; 8]) -> [f64; 8],
        narrow: impl Fn([f64; 8]) -> [u16; 8],
    ) {
        // Where the value of each element of eight is, in the order of the instruction set.
        let place = |at: usize| {
            let mut bits = [F::narrow(2.0); 8];
            bits[at] = F::narrow(1.0);
            widen(bits).iter().position(|&v| v == 1.0).unwrap()
        };
        let places: [usize; 8] = std::array::from_fn(place);
        let one = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for bits in all.as_chunks::<8>().0 {
            let values = widen(*bits);
            for (at, &bits) in bits.iter().enumerate() {
                let expect = F::widen(bits);
                assert_eq!(one(values[places[at]]), one(expect), "{set:?} {bits:#x}");
            }
            assert_eq!(narrow(values), bits.map(|b| F::narrow(F::widen(b))), "{set:?} {bits:x?}");
        }
        let neighbours = all.windows(2).flat_map(|pair| {
            let [a, b] = [pair[0], pair[1]].map(F::widen);
            let mantissa = u64::from(pair[1]) << 40 | 1;
            // NaN of any payload, the smallest ones too, and numbers that no 16-bit format has.
            let far =
                [f64::from_bits(mantissa), f64::from_bits(0x7ff << 52 | mantissa), a * 1e300, a * 1e-300];
            let near = [a, (a + b) / 2.0, b];
            near.into_iter().flat_map(|v| [v.next_down(), v, v.next_up()]).chain(far)
        });
        let neighbours: Vec<f64> = neighbours.flat_map(|v| [v, -v]).collect();
        for values in neighbours.chunks(8) {
            let (mut eight, mut placed) = ([0.0; 8], [0.0; 8]);
            eight[..values.len()].copy_from_slice(values);
            (0..8).for_each(|at| placed[places[at]] = eight[at]);
            assert_eq!(narrow(placed), eight.map(F::narrow), "{set:?} {eight:?}");
        }
    }

    #[test]
    fn every_instruction_set_converts_alike() {
        for set in InstructionSet::all() {
            set.run(Conversions(set));
        }
    }
}
