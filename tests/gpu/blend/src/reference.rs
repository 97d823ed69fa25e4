//! What the CPU does, after soup-tensor: sums in pool order in f64, one rounding, one NaN.
pub fn widen(format: u32, bits: u32) -> f64 {
    match format {
        0 => f64::from(f32::from_bits(bits)),
        1 => half::f16::from_bits(bits as u16).to_f64(),
        _ => f64::from(f32::from_bits(bits << 16)),
    }
}

fn to_f32_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let outward = u32::from(back.abs() > value.abs());
    let truncated = nearest.to_bits() - outward;
    f32::from_bits(truncated | u32::from(back != value))
}

pub fn narrow(format: u32, value: f64) -> u32 {
    match format {
        0 => {
            if value.is_nan() {
                0x7fc0_0000
            } else {
                (value as f32).to_bits()
            }
        }
        1 => {
            let bits = to_f32_odd(value).to_bits();
            let magnitude = bits & 0x7fff_ffff;
            let sign = (bits >> 16) & 0x8000;
            let normal =
                magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
            let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
            let finite = if magnitude < 113 << 23 { subnormal } else { normal };
            let rounded = if magnitude >= 143 << 23 { 0x7c00 } else { finite };
            if value.is_nan() { 0x7e00 } else { (rounded | sign) & 0xffff }
        }
        _ => {
            let bits = to_f32_odd(value).to_bits();
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
            if value.is_nan() { 0x7fc0 } else { rounded }
        }
    }
}

/// `pool`: members of `n` elements, one after the other, as words of 32 or (format 1, 2) two of 16 bits.
pub fn blend(format: u32, pool: &[u32], words: usize, k: usize, weights: Option<&[f64]>) -> Vec<u32> {
    let one = |extract: &dyn Fn(u32) -> u32, at: usize| {
        let mut sum = -0.0f64;
        for i in 0..k {
            let x = widen(format, extract(pool[i * words + at]));
            sum += match weights {
                None => x,
                Some(w) => w[i] * x,
            };
        }
        if weights.is_none() {
            sum /= k as f64
        }
        narrow(format, sum)
    };
    (0..words)
        .map(|at| match format {
            0 => one(&|b| b, at),
            _ => one(&|b| b & 0xffff, at) | (one(&|b| b >> 16, at) << 16),
        })
        .collect()
}

pub fn dots(pool: &[u32], n: usize, k: usize, gradient: &[f32]) -> Vec<f64> {
    let blocks = n / 4096;
    let mut out = Vec::new();
    for i in 0..k {
        for b in 0..blocks {
            let mut lanes = [0.0f64; 16];
            for e in b * 4096..(b + 1) * 4096 {
                lanes[e % 16] += f64::from(gradient[e]) * f64::from(f32::from_bits(pool[i * n + e]));
            }
            out.push(lanes.into_iter().sum());
        }
    }
    out
}
