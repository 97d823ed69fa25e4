//! Whether the kernels of blends and inner products give the processor's bits on a device, and how fast they are there.
//!
//! `check` (the default) compares them with [`reference`] on model-like values, any bits, denormals, signed zeros, infinities and NaN,
//! and under cancelling weights, which show a contracted product where nothing else does; it exits 1 where a bit differs.
//! `bench WORDS INGREDIENTS` measures them beside a copy. `pool MIB COUNT` shows what allocations reserve, and `raw` (CUDA) that a
//! buffer can be written by its address.

#![allow(missing_docs)]

mod kernels;
mod reference;
use cubecl::ir::{AddressType, ElemType, FloatKind, UIntKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use kernels::*;
use std::time::Instant;

#[cfg(feature = "cuda")]
type R = cubecl::cuda::CudaRuntime;
#[cfg(not(feature = "cuda"))]
type R = cubecl::wgpu::WgpuRuntime;

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// kind 0: weights of a model; 1: any bits; 2: denormals and zeros; 3: specials among numbers
fn element(rng: &mut Rng, format: u32, kind: u32) -> u32 {
    let r = rng.next();
    let model = ((r >> 11) as f64 / (1u64 << 53) as f64 - 0.5) * 0.2;
    let as_format = |v: f64| reference::narrow(format, v);
    let (width, mb) = match format {
        0 => (32, 23),
        1 => (16, 10),
        _ => (16, 7),
    };
    let mask = if width == 32 { u32::MAX } else { 0xffff };
    match kind {
        0 => as_format(model),
        1 => r as u32 & mask,
        2 => {
            (((r as u32) & ((1 << mb) - 1)) >> ((r >> 40) % (mb + 1)) as u32)
                | (((r >> 63) as u32) << (width - 1))
        }
        _ => match r % 16 {
            0 => 0,
            1 => 1 << (width - 1),
            2 => as_format(f64::INFINITY),
            3 => as_format(f64::NEG_INFINITY),
            4 => as_format(f64::NAN),
            5 => 1,
            6 => (1 << mb) - 1,
            7 => as_format(f64::INFINITY) - 1,
            _ => as_format(model),
        },
    }
}

fn pool(rng: &mut Rng, format: u32, kind: u32, words: usize, k: usize) -> Vec<u32> {
    (0..words * k)
        .map(|_| match format {
            0 => element(rng, 0, kind),
            _ => element(rng, format, kind) | (element(rng, format, kind) << 16),
        })
        .collect()
}

fn words(v: &[u32]) -> &[u8] {
    bytemuck::cast_slice(v)
}

fn cubes(units: usize) -> CubeCount {
    let n = units.div_ceil(256) as u32;
    // CUDA takes 2^31 - 1 in x; Vulkan 65535 a dimension.
    if cfg!(feature = "cuda") || n <= 65535 {
        CubeCount::Static(n, 1, 1)
    } else {
        CubeCount::Static(65535, n.div_ceil(65535), 1)
    }
}

#[allow(clippy::too_many_arguments)]
fn launch_blend(
    client: &ComputeClient<R>,
    format: u32,
    p: &Handle,
    pool_words: usize,
    w: &Handle,
    k: usize,
    out: &Handle,
    out_words: usize,
    mode: u32,
    integer: bool,
    unroll: usize,
    address: AddressType,
) {
    let stride = out_words / 4;
    unsafe {
        let pool = ArrayArg::from_raw_parts(p.clone(), pool_words / 4);
        let weights = ArrayArg::from_raw_parts(w.clone(), k);
        let o = ArrayArg::from_raw_parts(out.clone(), stride);
        if format == 0 {
            blend_f32::launch_unchecked::<R>(
                client,
                cubes(stride),
                CubeDim::new_1d(256),
                address,
                4,
                pool,
                weights,
                o,
                stride,
                k,
                k as f64,
                -0.0f64,
                mode,
                integer,
                unroll,
            );
        } else {
            blend_half::launch_unchecked::<R>(
                client,
                cubes(stride),
                CubeDim::new_1d(256),
                address,
                4,
                pool,
                weights,
                o,
                stride,
                k,
                k as f64,
                -0.0f64,
                mode,
                format,
            );
        }
    }
}

fn check(client: &ComputeClient<R>) -> usize {
    let mut rng = Rng(1);
    let (n, k) = (1_000_000usize, 16usize);
    let mut bad = 0;
    for format in [F32, F16, BF16] {
        let per = if format == F32 { 1 } else { 2 };
        let w = n / per;
        for kind in 0..5u32 {
            if std::env::var("KIND").is_ok_and(|k| k != kind.to_string()) {
                continue;
            }
            let mut p = pool(&mut rng, format, if kind == 4 { 0 } else { kind }, w, k);
            let mut weights: Vec<f64> =
                (0..k).map(|_| (rng.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.25).collect();
            // Pairs that cancel but for the rounding of the products: a fused or double rounding shows in every element.
            if kind == 4 {
                for i in (1..k).step_by(2) {
                    p.copy_within((i - 1) * w..i * w, i * w);
                    weights[i] = -f64::from_bits(weights[i - 1].to_bits() + 1);
                }
            }
            let hp = client.create_from_slice(words(&p));
            let mut given = weights.clone();
            // Negative control: a weight one ulp off must be seen.
            if std::env::var_os("SABOTAGE").is_some() {
                given[3] = f64::from_bits(given[3].to_bits() ^ 1)
            }
            let hw = client.create_from_slice(bytemuck::cast_slice(&given));
            for mode in 0..3u32 {
                let expect =
                    reference::blend(format, &p, w, k, if mode == 0 { None } else { Some(&weights) });
                for integer in [false, true] {
                    if format != F32 && !integer {
                        continue;
                    }
                    let ho = client.empty(w * 4);
                    launch_blend(
                        client,
                        format,
                        &hp,
                        p.len(),
                        &hw,
                        k,
                        &ho,
                        w,
                        mode,
                        integer,
                        4,
                        AddressType::U32,
                    );
                    let got = client.read_one(ho).expect("read");
                    let got: &[u32] = bytemuck::cast_slice(&got);
                    let wrong: Vec<usize> = (0..w).filter(|&i| got[i] != expect[i]).collect();
                    println!(
                        "blend {} {} {} {}: {} of {w} words differ{}",
                        ["f32", "f16", "bf16"][format as usize],
                        ["model", "any", "denormal", "special", "cancelling"][kind as usize],
                        ["mean", "weights/fma(-0)", "weights/plain"][mode as usize],
                        if integer { "integer" } else { "native" },
                        wrong.len(),
                        wrong
                            .first()
                            .map(|&i| format!(
                                ", first at {i}: got {:#010x} expect {:#010x}",
                                got[i], expect[i]
                            ))
                            .unwrap_or_default()
                    );
                    if integer || cfg!(feature = "cuda") {
                        if mode < 2 {
                            bad += wrong.len()
                        }
                    }
                }
            }
        }
    }
    // dots
    let n = 4096 * 64;
    let p = pool(&mut rng, F32, 0, n, k);
    let gradient: Vec<f32> = (0..n).map(|_| f32::from_bits(element(&mut rng, F32, 0))).collect();
    let expect = reference::dots(&p, n, k, &gradient);
    for integer in [false, true] {
        let got = run_dots(
            client,
            &client.create_from_slice(words(&p)),
            p.len(),
            &client.create_from_slice(bytemuck::cast_slice(&gradient)),
            n,
            k,
            integer,
        );
        let wrong = got.iter().zip(&expect).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        println!("dots integer={integer}: {wrong} of {} differ", expect.len());
        bad += wrong;
    }
    // denormals by themselves
    let x: Vec<f32> = (0..64).map(|i| f32::from_bits(i * 77)).collect();
    let hx = client.create_from_slice(bytemuck::cast_slice(&x));
    let ho = client.empty(64 * 8);
    unsafe {
        identity::launch_unchecked::<R>(
            client,
            CubeCount::new_single(),
            CubeDim::new_1d(64),
            ArrayArg::from_raw_parts(hx, 64),
            ArrayArg::from_raw_parts(ho.clone(), 64),
            1.0,
        )
    };
    let got = client.read_one(ho).expect("read");
    let got: &[f64] = bytemuck::cast_slice(&got);
    let flushed = got.iter().zip(&x).skip(1).filter(|(g, x)| **g != f64::from(**x)).count();
    println!("f32 denormals -> f64: {flushed} of 63 flushed");
    bad
}

fn run_dots(
    client: &ComputeClient<R>,
    hp: &Handle,
    len: usize,
    hg: &Handle,
    n: usize,
    k: usize,
    integer: bool,
) -> Vec<f64> {
    let blocks = n / BLOCK;
    let ho = client.empty(blocks * k * 8);
    unsafe {
        dots_f32::launch_unchecked::<R>(
            client,
            CubeCount::Static(blocks.div_ceil(16) as u32, k as u32, 1),
            CubeDim::new_2d(16, 16),
            AddressType::U32.max_for(len),
            ArrayArg::from_raw_parts(hp.clone(), len),
            ArrayArg::from_raw_parts(hg.clone(), n),
            ArrayArg::from_raw_parts(ho.clone(), blocks * k),
            n,
            blocks,
            -0.0f64,
            integer,
        );
    }
    bytemuck::cast_slice(&client.read_one(ho).expect("read")).to_vec()
}

trait MaxFor {
    fn max_for(self, len: usize) -> AddressType;
}
impl MaxFor for AddressType {
    fn max_for(self, len: usize) -> AddressType {
        if len > (1usize << 31) { AddressType::U64 } else { AddressType::U32 }
    }
}

fn sync(client: &ComputeClient<R>) {
    cubecl::future::block_on(client.sync()).expect("sync");
}

fn timed(client: &ComputeClient<R>, runs: usize, mut f: impl FnMut()) -> f64 {
    f();
    f();
    sync(client);
    let mut best = f64::MAX;
    for _ in 0..3 {
        let t = Instant::now();
        for _ in 0..runs {
            f()
        }
        sync(client);
        best = best.min(t.elapsed().as_secs_f64() / runs as f64);
    }
    best
}

fn bench(client: &ComputeClient<R>, n: usize, k: usize) {
    let mut rng = Rng(7);
    let runs = 20;
    // one ingredient's data on the host, uploaded k times with another seed each would take long: fill on the device by upload
    let t = Instant::now();
    let one: Vec<u32> = (0..n).map(|_| element(&mut rng, F32, 0)).collect();
    println!("made {} MB in {:.2} s", n * 4 / 1_000_000, t.elapsed().as_secs_f64());
    let mut all = Vec::with_capacity(n * k);
    for i in 0..k {
        let r = (i * 7919) % n;
        all.extend_from_slice(&one[r..]);
        all.extend_from_slice(&one[..r]);
    }
    let t = Instant::now();
    let hp = client.create_from_slice(words(&all));
    sync(client);
    let s = t.elapsed().as_secs_f64();
    println!(
        "create_from_slice: {:.2} GB in {s:.2} s = {:.2} GB/s",
        (n * k * 4) as f64 / 1e9,
        (n * k * 4) as f64 / 1e9 / s
    );
    let weights: Vec<f64> = (0..k).map(|i| (i as f64 + 1.0) / 100.0).collect();
    let hw = client.create_from_slice(bytemuck::cast_slice(&weights));
    let ho = client.empty(n * 4);
    let address = AddressType::U32.max_for(n * k);
    // copy of the same amount of bytes read, half of all traffic
    let cw = n * k / 2;
    let hc = client.empty(cw * 4);
    let t = timed(client, runs, || unsafe {
        copy::launch_unchecked::<R>(
            client,
            cubes(cw / 4),
            CubeDim::new_1d(256),
            address,
            4,
            ArrayArg::from_raw_parts(hp.clone(), cw / 4),
            ArrayArg::from_raw_parts(hc.clone(), cw / 4),
            cw / 4,
        )
    });
    let peak = cw as f64 * 8.0 / t / 1e9;
    println!("kernel copy: {peak:.0} GB/s (read + written)");
    for mode in 0..3u32 {
        for integer in [false, true] {
            for unroll in [1usize, 4, 8, 16] {
                if integer && unroll != 8 {
                    continue;
                }
                let t = timed(client, runs, || {
                    launch_blend(client, F32, &hp, n * k, &hw, k, &ho, n, mode, integer, unroll, address)
                });
                let rate = (n * (k + 1)) as f64 * 4.0 / t / 1e9;
                println!(
                    "blend f32 k={k} mode {mode} integer {integer} unroll {unroll}: {rate:.0} GB/s = {:.0} % of copy, {:.3} ms",
                    rate / peak * 100.0,
                    t * 1e3
                );
            }
        }
    }
    for format in [F16, BF16] {
        for mode in [0u32, 1] {
            let t = timed(client, runs, || {
                launch_blend(client, format, &hp, n * k, &hw, k, &ho, n, mode, true, 1, address)
            });
            let rate = (n * (k + 1)) as f64 * 4.0 / t / 1e9;
            println!(
                "blend {} k={k} mode {mode}: {rate:.0} GB/s = {:.0} % of copy",
                ["", "f16", "bf16"][format as usize],
                rate / peak * 100.0
            );
        }
    }
    let n = n / BLOCK * BLOCK;
    let hg = client.create_from_slice(words(&one[..n]));
    for integer in [false, true] {
        let blocks = n / BLOCK;
        let hd = client.empty(blocks * k * 8);
        let t = timed(client, runs, || unsafe {
            dots_f32::launch_unchecked::<R>(
                client,
                CubeCount::Static(blocks.div_ceil(16) as u32, k as u32, 1),
                CubeDim::new_2d(16, 16),
                address,
                ArrayArg::from_raw_parts(hp.clone(), n * k),
                ArrayArg::from_raw_parts(hg.clone(), n),
                ArrayArg::from_raw_parts(hd.clone(), blocks * k),
                n,
                blocks,
                -0.0f64,
                integer,
            )
        });
        let rate = (n * k) as f64 * 4.0 / t / 1e9;
        println!(
            "dots f32 k={k} integer {integer}: {rate:.0} GB/s of ingredients = {:.0} % of copy",
            rate / peak * 100.0
        );
    }
    let t = Instant::now();
    let back = client.read_one(ho.clone()).expect("read");
    println!(
        "read back {} MB: {:.2} GB/s (first, allocates pinned)",
        back.len() / 1_000_000,
        back.len() as f64 / 1e9 / t.elapsed().as_secs_f64()
    );
    drop(back);
    let t = Instant::now();
    let back = client.read_one(ho.clone().offset_end((n as u64 * 4) / 2)).expect("read");
    println!(
        "read back half, {} MB: {:.2} GB/s",
        back.len() / 1_000_000,
        back.len() as f64 / 1e9 / t.elapsed().as_secs_f64()
    );
}

fn usage(client: &ComputeClient<R>, label: &str) {
    let u = client.memory_usage().expect("usage");
    println!(
        "{label}: {} allocations, in use {:.2} GiB, reserved {:.2} GiB",
        u.number_allocs,
        u.bytes_in_use as f64 / f64::from(1 << 30),
        u.bytes_reserved as f64 / f64::from(1 << 30)
    );
}

/// What the pools do with `size_mb` x `count`.
fn pools(client: &ComputeClient<R>, size_mb: usize, count: usize) {
    let mut kept = Vec::new();
    for _ in 0..count {
        kept.push(client.empty(size_mb << 20))
    }
    sync(client);
    usage(client, "plain");
    drop(kept);
    client.memory_cleanup();
    sync(client);
    usage(client, "plain, dropped and cleaned up");
    let kept = client
        .memory_persistent_allocation((), |()| {
            (0..count).map(|_| client.empty(size_mb << 20)).collect::<Vec<_>>()
        })
        .expect("persistent");
    sync(client);
    usage(client, "persistent");
    let from_other = std::thread::scope(|s| {
        s.spawn(|| {
            let h = client.empty(size_mb << 20);
            sync(client);
            usage(client, "another thread");
            h
        })
        .join()
    });
    usage(client, "this thread after");
    drop((kept, from_other));
    client.memory_cleanup();
    sync(client);
    usage(client, "persistent, dropped and cleaned up");
}

/// The device's memory by its address: the fake driver's is host memory, so that this can be seen without a GPU.
#[cfg(feature = "cuda")]
fn raw(client: &ComputeClient<R>) {
    let data: Vec<u32> = (0..1024).collect();
    let h = client.create_from_slice(words(&data));
    sync(client);
    let resource = client.get_resource(h.clone()).expect("resource");
    println!("whole at {:#x}, {} bytes", resource.resource().ptr, resource.resource().size);
    let part = client.get_resource(h.clone().offset_start(400).offset_end(4096 - 800)).expect("resource");
    println!("part  at +{}, {} bytes", part.resource().ptr - resource.resource().ptr, part.resource().size);
    let got = client.read_one(h.clone().offset_start(400).offset_end(4096 - 800)).expect("read");
    let got: &[u32] = bytemuck::cast_slice(&got);
    assert_eq!(got, &data[100..200]);
    if std::env::var_os("FAKE_CUDA").is_some() {
        // SAFETY: the fake driver's memory is the process's.
        unsafe { *(resource.resource().ptr as *mut u32).add(7) = 0xdead_beef };
        let got = client.read_one(h).expect("read");
        println!("word 7 after a write by address: {:#x}", bytemuck::cast_slice::<u8, u32>(&got)[7]);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    #[cfg(feature = "cuda")]
    let device = cubecl::cuda::CudaDevice::new(args.get(4).map_or(0, |a| a.parse().unwrap()));
    #[cfg(not(feature = "cuda"))]
    let device = cubecl::wgpu::WgpuDevice::DefaultDevice;
    let t = Instant::now();
    let client = R::client(&device);
    println!("{}: client after {:.2} s", R::name(&client), t.elapsed().as_secs_f64());
    println!("memory {:?}", client.properties().memory);
    println!("f64 {}", client.properties().supports_type(ElemType::Float(FloatKind::F64)));
    println!(
        "f16 {} bf16 {} u64 {}",
        client.properties().supports_type(ElemType::Float(FloatKind::F16)),
        client.properties().supports_type(ElemType::Float(FloatKind::BF16)),
        client.properties().supports_type(ElemType::UInt(UIntKind::U64))
    );
    match args.get(1).map(String::as_str) {
        Some("pool") => pools(&client, args[2].parse().unwrap(), args[3].parse().unwrap()),
        #[cfg(feature = "cuda")]
        Some("raw") => raw(&client),
        Some("bench") => bench(&client, args[2].parse().unwrap(), args[3].parse().unwrap()),
        _ => {
            let bad = check(&client);
            println!("{}", if bad == 0 { "ALL EQUAL" } else { "DIFFERENT" });
            if bad > 0 {
                std::process::exit(1)
            }
        }
    }
}
