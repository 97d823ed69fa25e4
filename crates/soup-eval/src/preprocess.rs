//! From an encoded image to what a model eats, as `preprocessor_config.json` says.
//!
//! Follows the image processors of transformers: decode, convert to grey or RGB, resize, crop the centre, rescale, normalise. Some work on PIL
//! images (and resize as Pillow 13 does, [`resize`]), some on tensors (and resize as torchvision does, `tensors`), both bit for bit; which of
//! them a file means depends on the version of transformers (`version`). PNG and
//! lossless WebP decode exactly; JPEG decoders may differ by a grey level, and by up to three where colours are stored
//! with fewer pixels than the brightness. Images are turned upright (`upright`), as the datasets library does.

mod chunks;
mod colours;
mod decode;
mod kinds;
mod processor;
mod remarks;
pub mod resize;
mod tensors;
mod timm;
mod upright;
mod version;
mod whole;

use serde_json::{Map, Value};
use soup_core::transformers::Version;
use soup_core::{Error, Result};

pub(crate) use self::kinds::{CLIP_MEAN, CLIP_STD};
use self::processor::Model;
use self::resize::Filter;
use crate::budget::Budget;

/// Height and width, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

/// 8-bit pixels, row by row, channels interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `height * width * channels` values.
    pub values: Vec<u8>,
}

/// Size after resizing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Exact(ImageSize),
    /// The shorter edge gets this many pixels, the other one its share.
    ShortestEdge(usize),
    /// As small as covers this size, the sides in their proportion.
    Cover(ImageSize),
}

/// Which side of a crop has more, where the two cannot have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Margins {
    /// The far one has a pixel more, and the near one of an image that is too small; transformers cuts PIL images so.
    Floor,
    /// The far one has a pixel more, of an image that is too small, too; transformers cuts tensors so.
    Truncated,
    /// Half a pixel goes to the even number of pixels; where there are too few, the far side gets one more. torchvision cuts so.
    HalfEven,
}

/// The steps from an encoded image to normalised values.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    resize: Option<(Target, Filter)>,
    /// Whether images are resized as tensors.
    tensors: bool,
    /// Whether transparent pixels are laid on white, and not as if they were not transparent.
    on_white: bool,
    crop: Option<ImageSize>,
    margins: Margins,
    /// Size that the model takes.
    output: ImageSize,
    /// Whether nothing says that size: the model takes any, and images are left as they are.
    assumed: bool,
    channels: usize,
    /// For every channel, the normalised value of each of the 256 levels.
    levels: Vec<[f32; 256]>,
    /// What somebody should know about it, as the rest of a sentence about a dataset.
    notes: Vec<String>,
}

impl Preprocessor {
    /// Reads the text of a `preprocessor_config.json` for a model that takes images of `output` pixels and `channels`
    /// channels (1 or 3). One that does not say whose processor it is of is taken for ViT's, and all that
    /// it says is looked at.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is not understood, or asks for something that is not implemented.
    pub fn from_json(text: &str, output: ImageSize, channels: usize) -> Result<Preprocessor> {
        let model = Model { image: output, any: false, channels, model_type: None, version: Version::UNSAID };
        processor::from_json(text, model).map(|(preprocessor, _)| preprocessor)
    }

    /// The same for a model that takes images of any one size: the file says which, and `usual` is it where the file does not.
    ///
    /// # Errors
    /// As [`from_json`](Preprocessor::from_json).
    pub fn of_any_size(text: &str, usual: ImageSize, channels: usize) -> Result<Preprocessor> {
        Preprocessor::of_any_size_beside("{}", text, usual, channels)
    }

    /// The same where `config` is the text of the `config.json` beside it, which says which version of transformers that file is of.
    ///
    /// # Errors
    /// As [`from_json`](Preprocessor::from_json).
    pub fn of_any_size_beside(
        config: &str,
        text: &str,
        usual: ImageSize,
        channels: usize,
    ) -> Result<Preprocessor> {
        let version = version::of_config(config)?;
        let model = Model { image: usual, any: true, channels, model_type: None, version };
        processor::from_json(text, model).map(|(preprocessor, _)| preprocessor)
    }

    /// The same for a model of `model_type`, whose `config.json` is `config`, that takes images of `image` pixels, or of any one size: its type
    /// says whose processor it is where the file does not. With what people should know about how the file was read.
    ///
    /// # Errors
    /// As [`from_json`](Preprocessor::from_json).
    pub(crate) fn of_model(
        config: &str,
        text: &str,
        (image, any): (ImageSize, bool),
        channels: usize,
        model_type: &str,
    ) -> Result<(Preprocessor, Option<String>)> {
        let version = version::of_config(config)?;
        processor::from_json(text, Model { image, any, channels, model_type: Some(model_type), version })
    }

    /// The transform of timm for evaluation, as the `pretrained_cfg` of its `config.json` says, for a model that takes images of `output`
    /// pixels and `channels` channels (1 or 3).
    ///
    /// # Errors
    /// As [`from_json`](Preprocessor::from_json).
    pub fn of_timm(
        pretrained_cfg: &Map<String, Value>,
        output: ImageSize,
        channels: usize,
    ) -> Result<Preprocessor> {
        timm::of(pretrained_cfg, output, channels)
    }

    /// Size of the images that come out.
    pub fn output(&self) -> ImageSize {
        self.output
    }

    /// What is in the file and is not done, because the processor does not look at it: sentences about a dataset without their subject.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of values of one prepared sample.
    pub fn values(&self) -> usize {
        self.channels * self.output.height * self.output.width
    }

    /// Appends the values of one image, `[channels, height, width]`, to `out`; what that takes meanwhile is claimed from `budget`
    /// beforehand. Blocks until it is free.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where the image cannot be decoded, does not come out in the model's size, or takes more than
    /// the budget has.
    pub fn apply(&self, image: &[u8], budget: &Budget, out: &mut Vec<f32>) -> Result<()> {
        let opened = decode::open(image)?;
        let (width, height) = opened.size();
        let bytes = opened.decode_bytes(self.channels).max(self.resize_bytes(width, height)?);
        let _claim = budget.pixels(|| format!("image of {width} x {height} pixels"), bytes)?;
        let pixels = self.pixels(opened.decode(self.channels, self.on_white)?);
        for (channel, levels) in self.levels.iter().enumerate() {
            out.extend(
                pixels.values.iter().skip(channel).step_by(self.channels).map(|&v| levels[usize::from(v)]),
            );
        }
        Ok(())
    }

    /// What resizing and cropping an image of that width and height takes at most, in bytes.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it would not come out in the model's size.
    fn resize_bytes(&self, width: usize, height: usize) -> Result<u64> {
        let (mut last, mut area) = ((width, height), width * height);
        if let Some((target, _)) = self.resize {
            let (wide, high) = target.of(width, height);
            if wide.max(high) > resize::SIDE_MAX {
                return Err(Error::data(format!(
                    "image of {width} x {height} pixels is too long to be resized"
                )));
            }
            // Rows first, and then columns.
            area += wide * height + wide * high;
            last = (wide, high);
        }
        if let Some(size) = self.crop {
            area += size.width * size.height;
            last = (size.width, size.height);
        }
        if last != (self.output.width, self.output.height) {
            return Err(self.wrong_size(last));
        }
        Ok((area * self.channels) as u64)
    }

    /// What is wrong with an image that comes out in this width and height.
    fn wrong_size(&self, (width, height): (usize, usize)) -> Error {
        let ImageSize { width: wide, height: high } = self.output;
        Error::data(match self.assumed {
            false => format!(
                "image has {width} x {height} pixels after preprocessing, the model takes {wide} x {high}"
            ),
            true => format!(
                "image has {width} x {height} pixels, and preprocessor_config.json does not say which size images have, so that {wide} x {high} \
                 is expected (image_size in config.json, or what is usual): name a copy with --preprocessor-config that has \
                 \"do_resize\": true and \"size\": {{\"height\": {height}, \"width\": {width}}}, which leaves images of that size as they are"
            ),
        })
    }

    /// Resizes and crops.
    fn pixels(&self, mut pixels: Pixels) -> Pixels {
        if let Some((target, filter)) = self.resize {
            let (width, height) = target.of(pixels.width, pixels.height);
            pixels = match self.tensors {
                true => tensors::resize(&pixels, width, height, filter),
                false => resize::resize(&pixels, width, height, filter),
            };
        }
        if let Some(size) = self.crop {
            pixels = crop(&pixels, size, self.margins);
        }
        pixels
    }
}

impl Target {
    /// Width and height of an image of that width and height after resizing.
    fn of(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Target::Exact(size) => (size.width, size.height),
            Target::ShortestEdge(edge) => {
                // Truncated, in floating point, as the original does.
                let long = |short: usize, long: usize| ((edge * long) as f64 / short as f64) as usize;
                if width <= height { (edge, long(width, height)) } else { (long(height, width), edge) }
            }
            Target::Cover(size) => {
                let (wide, high) = (width as f64, height as f64);
                let ratio = (high / size.height as f64).min(wide / size.width as f64);
                let side = |side: f64| (side / ratio).round_ties_even() as usize;
                (side(wide), side(high))
            }
        }
    }
}

/// Cuts `size` out of the centre; what lies outside of the image is black.
fn crop(pixels: &Pixels, size: ImageSize, margins: Margins) -> Pixels {
    let channels = pixels.channels;
    let mut values = vec![0; size.height * size.width * channels];
    let top = margins.offset(pixels.height, size.height);
    let left = margins.offset(pixels.width, size.width);
    for row in 0..size.height {
        let Some(from) = shifted(row, top, pixels.height) else { continue };
        for column in 0..size.width {
            let Some(at) = shifted(column, left, pixels.width) else { continue };
            let source = (from * pixels.width + at) * channels;
            let target = (row * size.width + column) * channels;
            values[target..target + channels].copy_from_slice(&pixels.values[source..source + channels]);
        }
    }
    Pixels { width: size.width, height: size.height, channels, values }
}

impl Margins {
    /// Where the cut begins: before the image (negative) where the image is smaller.
    fn offset(self, have: usize, want: usize) -> isize {
        // Sides are far below 2^31.
        let margin = have as isize - want as isize;
        match self {
            // Floor of the halves on both sides of zero: (have - want) // 2 in Python.
            Margins::Floor => margin.div_euclid(2),
            Margins::HalfEven if margin > 0 => (margin as f64 / 2.0).round_ties_even() as isize,
            // Towards zero.
            Margins::Truncated | Margins::HalfEven => margin / 2,
        }
    }
}

fn shifted(index: usize, by: isize, len: usize) -> Option<usize> {
    index.checked_add_signed(by).filter(|&i| i < len)
}

/// The values of the 256 levels: rescaled in f64 and rounded, less 1 where there is an offset, then normalised in f32 by a mean and a
/// deviation, as often as these are given: as numpy does.
fn levels(rescale: Option<f64>, offset: bool, normalise: &[(f64, f64)]) -> [f32; 256] {
    std::array::from_fn(|level| {
        let value = match rescale {
            Some(factor) => (level as f64 * factor) as f32,
            None => level as f32,
        };
        let value = if offset { value - 1.0 } else { value };
        normalise.iter().fold(value, |value, (mean, std)| (value - *mean as f32) / *std as f32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_edge_decides() {
        let check = |width, height, want| assert_eq!(Target::ShortestEdge(224).of(width, height), want);
        check(448, 448, (224, 224));
        check(500, 375, (298, 224));
        check(375, 500, (224, 298));
        check(224, 300, (224, 300));
    }

    fn grey(width: usize, height: usize) -> Pixels {
        Pixels { width, height, channels: 1, values: (1..=(width * height) as u8).collect() }
    }

    fn check_crop(width: usize, height: usize, want: &[u8]) {
        assert_eq!(crop(&grey(3, 3), ImageSize { height, width }, Margins::Floor).values, want);
    }

    #[test]
    fn the_centre_is_cut_out() {
        check_crop(3, 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        check_crop(1, 1, &[5]);
        check_crop(2, 1, &[4, 5]);
        check_crop(5, 1, &[0, 4, 5, 6, 0]);
        check_crop(4, 1, &[0, 4, 5, 6]);
        check_crop(1, 5, &[0, 2, 5, 8, 0]);
    }

    #[test]
    fn margins_are_those_of_the_original() {
        let of = |margins: Margins| {
            [(9, 4), (7, 4), (8, 4), (4, 9), (4, 7), (4, 4)].map(|(h, w)| margins.offset(h, w))
        };
        assert_eq!(of(Margins::Floor), [2, 1, 2, -3, -2, 0]);
        assert_eq!(of(Margins::Truncated), [2, 1, 2, -2, -1, 0]);
        // round(2.5), round(1.5) in Python; then what torchvision pads before.
        assert_eq!(of(Margins::HalfEven), [2, 2, 2, -2, -1, 0]);
    }

    #[test]
    fn levels_follow_the_two_steps() {
        let of = levels(Some(1.0 / 255.0), false, &[(0.5, 0.25)]);
        assert_eq!((of[0], of[255]), (-2.0, 2.0));
        assert_eq!(levels(None, false, &[])[7], 7.0);
        assert_eq!(levels(Some(1.0 / 127.5), true, &[(0.0, 0.5), (0.0, 0.25)])[255], 8.0);
    }
}
