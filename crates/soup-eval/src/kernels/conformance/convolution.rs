//! Convolutions, poolings and what follows them.

use super::*;
use crate::kernels::windows::{Window, Windows, by_pixel};
use crate::kernels::{Filters, Finish};

/// Windows on some images, and the channels of those.
#[derive(Clone, Copy)]
struct On {
    windows: Windows,
    channels: usize,
}

fn on(batch: usize, image: [usize; 2], channels: usize, window: Window) -> On {
    On { windows: Windows::new(window, batch, image), channels }
}

impl On {
    fn pixels(&self) -> usize {
        self.windows.batch * self.windows.image[0] * self.windows.image[1]
    }

    fn inputs(&self) -> usize {
        self.windows.pixels() * self.channels
    }

    fn images<B: Kernels>(&self, leaf: &Tensor<B, 1>) -> Tensor<B, 2> {
        shaped(leaf, [self.pixels(), self.channels])
    }
}

/// Every kind of padding, stride and size that models have, on images of one pixel and more, and of channels by less and more than a
/// vector.
fn all() -> Vec<On> {
    let window = |size, stride, rows, columns| Window { size, stride, padding: [rows, columns] };
    vec![
        on(1, [1, 1], 1, Window::centred(1, 1)),
        on(2, [5, 4], 7, Window::centred(1, 1)),
        on(3, [5, 4], 17, Window::centred(1, 2)),
        on(2, [9, 7], 3, Window::centred(7, 2)),
        on(2, [1, 2], 18, Window::centred(3, 1)),
        on(3, [6, 9], 33, Window::centred(3, 1)),
        on(2, [8, 5], 16, window([3, 3], 2, [0, 1], [0, 1])),
        on(2, [8, 5], 20, window([5, 5], 2, [1, 2], [1, 2])),
        on(2, [7, 6], 5, window([1, 1], 2, [-1, 0], [-1, 0])),
        on(1, [7, 8], 5, window([2, 3], 3, [0, -2], [-1, 2])),
        on(2, [9, 11], 34, window([4, 4], 1, [1, 2], [1, 2])),
        on(2, [4, 6], 9, window([4, 6], 1, [0, 0], [0, 0])),
    ]
}

step!(
    Dense { on: On, outputs: usize },
    |l, self| {
        let layout = Layout::Filters { channels: self.on.channels };
        let sizes = [self.on.inputs(), self.outputs];
        let weight = B::parameter(host(sizes[0] * sizes[1], 7), &layout, sizes, &l[0].device());
        B::convolve(self.on.images(&l[0]), Filters::Dense(weight, self.outputs), &self.on.windows)
    },
    {
        // [outputs, channels, pixels] to [pixels * channels, outputs].
        let [channels, pixels] = [self.on.channels, self.on.windows.pixels()];
        let sizes = [self.on.inputs(), self.outputs];
        let weight = host(sizes[0] * sizes[1], 7);
        let weight: Tensor<Autodiff<Flex>, 3> = tensor(weight, [self.outputs, channels, pixels], &FlexDevice);
        let weight = weight.permute([2, 1, 0]).reshape(sizes);
        by_pixel::convolve(self.on.images(&l[0]), Filters::Dense(weight, self.outputs), &self.on.windows)
    }
);
step!(
    PerChannel { on: On },
    |l, self| {
        let sizes = [self.on.windows.pixels(), self.on.channels];
        let weight = shaped(&l[1], sizes);
        B::convolve(self.on.images(&l[0]), Filters::PerChannel(weight), &self.on.windows)
    },
    {
        let weight = shaped(&l[1], [self.on.windows.pixels(), self.on.channels]);
        by_pixel::convolve(self.on.images(&l[0]), Filters::PerChannel(weight), &self.on.windows)
    }
);
step!(
    Then { shape: [usize; 2], act: Activation },
    |l, self| {
        let residual = shaped(&l[3], self.shape);
        let (scale, shift, act) = (l[1].clone(), l[2].clone(), self.act);
        B::finish(shaped(&l[0], self.shape), Finish { scale, shift, residual: Some(&residual), act })
    },
    {
        let residual = shaped(&l[3], self.shape);
        let (scale, shift, act) = (l[1].clone(), l[2].clone(), self.act);
        by_pixel::finish(shaped(&l[0], self.shape), Finish { scale, shift, residual: Some(&residual), act })
    }
);
step!(
    Alone { shape: [usize; 2], act: Activation },
    |l, self| {
        let (scale, shift, act) = (l[1].clone(), l[2].clone(), self.act);
        B::finish(shaped(&l[0], self.shape), Finish { scale, shift, residual: None, act })
    },
    {
        let (scale, shift, act) = (l[1].clone(), l[2].clone(), self.act);
        by_pixel::finish(shaped(&l[0], self.shape), Finish { scale, shift, residual: None, act })
    }
);
step!(
    Largest { on: On },
    |l, self| B::largest(self.on.images(&l[0]), &self.on.windows),
    by_pixel::largest(&self.on.images(&l[0]), &self.on.windows)
);
step!(
    Mean { on: On },
    |l, self| B::mean(self.on.images(&l[0]), self.on.windows.batch),
    by_pixel::mean(self.on.images(&l[0]), self.on.windows.batch)
);
step!(
    Scaled { on: On },
    |l, self| {
        let factors = shaped(&l[1], [self.on.windows.batch, self.on.channels]);
        B::scale_images(self.on.images(&l[0]), factors)
    },
    {
        let factors = shaped(&l[1], [self.on.windows.batch, self.on.channels]);
        by_pixel::scale_images(self.on.images(&l[0]), factors)
    }
);

#[test]
fn convolutions() {
    for on in all() {
        let (images, name) =
            (on.pixels() * on.channels, format!("{:?}, {} channels", on.windows, on.channels));
        for outputs in [1, 21] {
            check(&format!("convolution by {name}"), &Dense { on, outputs }, &[images]);
        }
        check(&format!("convolution of each channel by {name}"), &PerChannel { on }, &[images, on.inputs()]);
    }
}

#[test]
fn what_follows_convolutions() {
    for shape @ [rows, width] in ROWS {
        let (all, name) = (rows * width, format!("{rows} x {width}"));
        for act in Activation::ALL {
            check(&format!("{act:?} after all, {name}"), &Then { shape, act }, &[all, width, width, all]);
            check(&format!("{act:?} after a scale, {name}"), &Alone { shape, act }, &[all, width, width]);
        }
    }
}

#[test]
fn poolings() {
    for on in all() {
        let (images, name) =
            (on.pixels() * on.channels, format!("{:?}, {} channels", on.windows, on.channels));
        check(&format!("largest by {name}"), &Largest { on }, &[images]);
        check(&format!("mean of {name}"), &Mean { on }, &[images]);
        check(&format!("factors of {name}"), &Scaled { on }, &[images, on.windows.batch * on.channels]);
    }
}

fn bits(x: Tensor<Flex, 2>) -> Vec<u32> {
    values(x, "values").unwrap().into_iter().map(f32::to_bits).collect()
}

fn gelu_after<'a>(
    scale: &Tensor<Flex, 1>,
    shift: &Tensor<Flex, 1>,
    residual: &'a Tensor<Flex, 2>,
) -> Finish<'a, Flex> {
    let (scale, shift) = (scale.clone(), shift.clone());
    Finish { scale, shift, residual: Some(residual), act: Activation::Gelu }
}

/// On the processor: alone and beside others, and in one pass with what follows or in two.
#[test]
fn an_image_comes_out_as_the_same_bits_whatever_is_beside_it() {
    for on in all() {
        let outputs = 21;
        let (one, sizes) = (on.pixels() / on.windows.batch, [on.inputs(), outputs]);
        let layout = Layout::Filters { channels: on.channels };
        let dense = Flex::parameter(host(sizes[0] * sizes[1], 7), &layout, sizes, &FlexDevice);
        let each = tensor(host(on.inputs(), 8), [on.windows.pixels(), on.channels], &FlexDevice);
        for (filters, outputs) in
            [(Filters::Dense(dense, outputs), outputs), (Filters::PerChannel(each), on.channels)]
        {
            let [scale, shift] = [3, 4].map(|seed| tensor(host(outputs, seed), [outputs], &FlexDevice));
            let added =
                tensor(host(on.windows.rows() * outputs, 5), [on.windows.rows(), outputs], &FlexDevice);
            let images: Tensor<Flex, 2> =
                tensor(host(on.pixels() * on.channels, 1), [on.pixels(), on.channels], &FlexDevice);
            let all = Flex::convolve_then(
                images.clone(),
                filters.clone(),
                &on.windows,
                gelu_after(&scale, &shift, &added),
            );
            let apart = Flex::convolve(images.clone(), filters.clone(), &on.windows);
            assert_eq!(
                bits(Flex::finish(apart, gelu_after(&scale, &shift, &added))),
                bits(all.clone()),
                "{:?}",
                on.windows
            );
            let rows = on.windows.rows() / on.windows.batch;
            for nth in 0..on.windows.batch {
                let alone = Windows { batch: 1, ..on.windows };
                let image = images.clone().slice_dim(0, nth * one..(nth + 1) * one);
                let added = added.clone().slice_dim(0, nth * rows..(nth + 1) * rows);
                let got =
                    Flex::convolve_then(image, filters.clone(), &alone, gelu_after(&scale, &shift, &added));
                let want = all.clone().slice_dim(0, nth * rows..(nth + 1) * rows);
                assert_eq!(bits(got), bits(want), "image {nth} of {:?}", on.windows);
            }
        }
    }
}

#[test]
fn nan_is_the_largest() {
    let on = on(1, [2, 2], 1, Window::centred(3, 2));
    for at in 0..4 {
        let mut image = vec![1.0, 4.0, 2.0, 3.0];
        image[at] = f32::NAN;
        let out = Flex::largest(tensor(image, [4, 1], &FlexDevice), &on.windows);
        assert!(values(out, "values").unwrap()[0].is_nan(), "{at}");
    }
}
