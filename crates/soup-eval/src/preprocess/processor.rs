//! `preprocessor_config.json`: what it says, with the defaults of the processor that wrote it.

use serde_json::{Map, Value};
use soup_core::transformers::Version;
use soup_core::{Error, Result};

use super::kinds::{Defaults, VIT, defaults, of_model};
use super::resize::{Filter, SIDE_MAX};
use super::version::one_of_two;
use super::{ImageSize, Preprocessor, Target, levels, tensors};

/// Images that become at least so large are resized to a square instead of being cut out of a larger one.
const WARPED: usize = 384;

/// Options that change pixels in ways that are not implemented, with the values at which they do nothing. Some processors have those that
/// are named apart.
const REFUSED: [&str; 4] = ["do_pad", "do_thumbnail", "do_align_long_axis", "do_flip_channel_order"];
const OF_CONVNEXT: [&str; 1] = ["crop_pct"];
const OF_EFFICIENTNET: [&str; 2] = ["rescale_offset", "include_top"];

/// Options that are understood.
const KNOWN: [&str; 15] = [
    "image_processor_type",
    "feature_extractor_type",
    "do_resize",
    "size",
    "resample",
    "default_to_square",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_convert_rgb",
    "num_channels",
];

/// Those of the options that say something where they are null, too: that they are off.
const FLAGS: [&str; 7] = [
    "do_resize",
    "default_to_square",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "rescale_offset",
    "include_top",
];

/// Options that change no pixel of an image that is classified: where a file comes from, how arrays are passed around, and what
/// is done to maps of segments.
const HARMLESS: [&str; 20] = [
    "processor_class",
    "image_processor_class",
    "transformers_version",
    "auto_map",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "do_reduce_labels",
    "reduce_labels",
    "ignore_index",
    "image_size",
    "patch_size",
    "image_seq_length",
    "model_input_names",
    "name_or_path",
    "torch_dtype",
    "dtype",
    "use_fast",
];

pub(super) fn wrong(text: impl std::fmt::Display) -> Error {
    Error::data(format!("preprocessor_config.json: {text}"))
}

/// The model that images are for.
#[derive(Clone, Copy)]
pub(super) struct Model<'a> {
    /// The size that it takes; where it takes `any`, its usual one.
    pub(super) image: ImageSize,
    pub(super) any: bool,
    pub(super) channels: usize,
    /// As in its `config.json`, where that is known. Where it is not, a file that does not say whose it is is ViT's, and all that it says
    /// is looked at.
    pub(super) model_type: Option<&'a str>,
    /// Of transformers that saved it.
    pub(super) version: Version,
}

/// See [`Preprocessor::from_json`], and, for any size, [`Preprocessor::of_any_size`]; with what people should know.
pub(super) fn from_json(text: &str, model: Model<'_>) -> Result<(Preprocessor, Option<String>)> {
    let (output, channels) = (model.image, model.channels);
    let map: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| wrong("not a JSON object").with_source(e))?;
    let raw = Raw(map);
    let (name, unsaid) = match (raw.name()?, model.model_type) {
        (Some(name), _) => (Some(name), None),
        (None, Some(model_type)) => of_model(model_type).map(|(name, note)| (Some(name), Some(note)))?,
        (None, None) => (None, None),
    };
    let defaults = match name {
        Some(name) => defaults(name, model.version)?,
        None => VIT,
    };
    let mut preprocessor = raw.preprocessor(&defaults, output, channels)?;
    // Where pixels stay where they are, both do the same.
    let moves = preprocessor.resize.is_some() || preprocessor.crop.is_some();
    let two = name.filter(|_| moves).and_then(|name| one_of_two(name, unsaid.is_none(), model.version));
    let note = [unsaid, two].into_iter().flatten().reduce(|first, second| format!("{first}; {second}"));
    if model.any {
        let size = preprocessor.size();
        preprocessor.assumed = size.is_none();
        preprocessor.output = size.unwrap_or(output);
    }
    preprocessor.check()?;
    Ok((preprocessor, note))
}

impl Preprocessor {
    /// The size that images get, where the file says so. Of those that are not cropped and whose shorter edge is all that is said, the
    /// size of square ones: a model takes images of one size.
    fn size(&self) -> Option<ImageSize> {
        match (self.crop, self.resize) {
            (Some(size), _) | (None, Some((Target::Exact(size), _))) => Some(size),
            (None, Some((Target::ShortestEdge(edge), _))) => Some(ImageSize { height: edge, width: edge }),
            (None, None | Some((Target::Cover(_), _))) => None,
        }
    }

    /// Refuses at once what every image would be refused for.
    fn check(&self) -> Result<()> {
        let shorter = self.output.width.min(self.output.height);
        let fixed = match (self.crop, self.resize) {
            (None, Some((Target::ShortestEdge(edge), _))) if edge != shorter => {
                return Err(wrong(format!(
                    "the shorter edge of images becomes {edge} pixels and is not cropped, the model takes {} x {} (image_size in config.json; position embeddings are not interpolated)",
                    self.output.width, self.output.height
                )));
            }
            (Some(size), _) | (None, Some((Target::Exact(size), _))) => size,
            _ => return Ok(()),
        };
        if fixed == self.output {
            return Ok(());
        }
        Err(wrong(format!(
            "images become {} x {} pixels, the model takes {} x {} (image_size in config.json; position embeddings are not interpolated)",
            fixed.width, fixed.height, self.output.width, self.output.height
        )))
    }
}

/// Whether an option is one of a processor.
fn says_something(key: &str) -> bool {
    KNOWN.contains(&key) || [&REFUSED[..], &OF_CONVNEXT, &OF_EFFICIENTNET].concat().contains(&key)
}

/// To which size images are resized, if at all, and how.
type Resize = Option<(Target, Filter)>;

/// The file's fields; null means absent, except for a [`flag`](Raw::flag).
struct Raw(Map<String, Value>);

impl Raw {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// The name of the processor that wrote the file.
    fn name(&self) -> Result<Option<&str>> {
        let said = ["image_processor_type", "feature_extractor_type"].map(|key| Some((key, self.get(key)?)));
        match said.into_iter().flatten().next() {
            None => Ok(None),
            Some((_, Value::String(name))) => Ok(Some(name)),
            Some((key, other)) => Err(wrong(format!("{key} is {other}, expected the name of a processor"))),
        }
    }

    /// The steps that the file tells of.
    fn preprocessor(&self, defaults: &Defaults, output: ImageSize, channels: usize) -> Result<Preprocessor> {
        self.refuse_unsupported(defaults)?;
        self.refuse_unknown(output, channels)?;
        let mut resize = match self.flag("do_resize", true)? {
            true => Some((self.target(defaults, output)?, self.filter(defaults)?)),
            false => None,
        };
        let mut crop = match defaults.crops && self.flag("do_center_crop", defaults.do_crop)? {
            true => Some(self.crop(defaults)?),
            false => None,
        };
        let mut notes = self.ignored(defaults)?;
        if defaults.fast && matches!(resize, Some((_, Filter::Lanczos))) {
            notes.push(
                "is resized by Lanczos' filter (resample is 1) as torchvision does from 0.27 on: with an older one, transformers takes a cubic \
                 filter or none at all"
                    .to_owned(),
            );
        }
        if let Some(part) = defaults.part {
            (resize, crop) = self.part_of(resize, crop, self.number("crop_pct", part)?)?;
        }
        let levels = self.levels(defaults, channels)?;
        let (tensors, margins, on_white) = (defaults.fast, defaults.margins(), self.on_white(defaults)?);
        let assumed = false;
        Ok(Preprocessor {
            resize,
            tensors,
            on_white,
            crop,
            margins,
            output,
            assumed,
            channels,
            levels,
            notes,
        })
    }

    /// Whether what is transparent is laid on white.
    fn on_white(&self, defaults: &Defaults) -> Result<bool> {
        Ok(defaults.version >= Version::ON_WHITE && self.flag("do_convert_rgb", defaults.converts)?)
    }

    /// Refuses options that change pixels in ways that are not implemented for this processor.
    fn refuse_unsupported(&self, defaults: &Defaults) -> Result<()> {
        let is_on = |key: &&&str| self.get(key).is_some_and(|v| *v != Value::Bool(false));
        let others = [(&OF_CONVNEXT[..], defaults.part.is_none()), (&OF_EFFICIENTNET, !defaults.top)];
        let others = others.iter().filter(|(_, foreign)| *foreign).flat_map(|(keys, _)| keys.iter());
        match REFUSED.iter().chain(others).find(is_on) {
            Some(key) => Err(wrong(format!("{key} is not supported"))),
            None => Ok(()),
        }
    }

    /// Notes on what is in the file and would change pixels, but is nothing that this processor looks at.
    fn ignored(&self, defaults: &Defaults) -> Result<Vec<String>> {
        let crop = !defaults.crops && self.flag("do_center_crop", false)?;
        let square = !defaults.asks_square
            && self.get("size").is_some_and(Value::is_number)
            && self.flag("default_to_square", !defaults.shortest_edge)? == defaults.shortest_edge;
        let keys = [("do_center_crop", crop), ("default_to_square", square)];
        let keys = keys.iter().filter(|(_, ignored)| *ignored);
        Ok(keys
            .map(|(key, _)| {
                format!("is preprocessed without {key} of preprocessor_config.json, which this processor does not look at")
            })
            .collect())
    }

    /// Refuses options that might change pixels in a way that nobody here knows of.
    fn refuse_unknown(&self, output: ImageSize, channels: usize) -> Result<()> {
        // What is off or absent changes nothing, and names with an underscore are private to the program that wrote them.
        let idle = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        // What is not this processor's was refused before.
        let known = |key: &str| says_something(key) || HARMLESS.contains(&key) || key.starts_with('_');
        if let Some((key, value)) = self.0.iter().find(|(key, value)| !idle(value) && !known(key)) {
            return Err(wrong(format!(
                "{key} is {value}, an option that is not known: if it changes no pixel, leave it out in a copy that is named with \
                 --preprocessor-config"
            )));
        }
        let said = |key: &str| says_something(key) && (FLAGS.contains(&key) || self.get(key).is_some());
        if !self.0.keys().any(|key| said(key)) {
            return Err(wrong("says nothing about how images become pixels"));
        }
        if let Some(value) = self.get("num_channels").filter(|v| v.as_u64() != Some(channels as u64)) {
            return Err(wrong(format!("num_channels is {value}, the model takes {channels} (config.json)")));
        }
        if let Some(value) = self.get("image_size").and_then(Value::as_u64)
            && value as usize != output.height
        {
            return Err(wrong(format!(
                "image_size is {value}, the model takes {} x {} (config.json)",
                output.width, output.height
            )));
        }
        Ok(())
    }

    /// For every channel what becomes of the 256 levels.
    fn levels(&self, defaults: &Defaults, channels: usize) -> Result<Vec<[f32; 256]>> {
        let rescale = match self.flag("do_rescale", true)? {
            true => Some(self.number("rescale_factor", 1.0 / 255.0)?),
            false => None,
        };
        if let Some(factor) = rescale.filter(|factor| defaults.fast && !((1.0 / factor) as f32).is_finite()) {
            return Err(wrong(format!("rescale_factor is {factor}, expected a number to divide by")));
        }
        if let Some(factor) = rescale.filter(|factor| *factor <= 0.0) {
            return Err(wrong(format!("rescale_factor is {factor}, expected a positive number")));
        }
        // Only what is rescaled has an offset.
        let offset = defaults.top && rescale.is_some() && self.flag("rescale_offset", false)?;
        let (normalise, again) =
            (self.flag("do_normalize", true)?, defaults.top && self.flag("include_top", true)?);
        if !normalise && !again {
            let levels = match defaults.fast {
                true => tensors::levels(rescale, offset, None, None),
                false => levels(rescale, offset, &[]),
            };
            return Ok(vec![levels; channels]);
        }
        let mean = self.per_channel("image_mean", &defaults.mean, channels)?;
        let std = self.per_channel("image_std", &defaults.std, channels)?;
        if let Some(bad) = std.iter().find(|&&s| s <= 0.0) {
            return Err(wrong(format!("image_std has {bad}, expected positive numbers")));
        }
        let of = |(mean, std)| {
            let normalise = normalise.then_some((mean, std));
            if defaults.fast {
                return tensors::levels(rescale, offset, normalise, again.then_some(std));
            }
            let steps = [normalise, again.then_some((0.0, std))];
            levels(rescale, offset, &steps.into_iter().flatten().collect::<Vec<_>>())
        };
        Ok(mean.into_iter().zip(std).map(of).collect())
    }

    /// What is done to images of which a part is cut out, unless they become large: these are resized to a square.
    fn part_of(
        &self,
        resize: Resize,
        crop: Option<ImageSize>,
        part: f64,
    ) -> Result<(Resize, Option<ImageSize>)> {
        if crop.is_some() {
            return Err(wrong("do_center_crop is not supported for images that are cropped by crop_pct"));
        }
        let Some((target, filter)) = resize else { return Ok((None, None)) };
        let Target::ShortestEdge(edge) = target else {
            return Err(wrong("size has no shortest_edge, by which images are cropped (crop_pct)"));
        };
        let square = ImageSize { height: edge, width: edge };
        if edge >= WARPED {
            return Ok((Some((Target::Exact(square), filter)), None));
        }
        if !(part > 0.0 && edge as f64 / part < (SIDE_MAX + 1) as f64) {
            return Err(wrong(format!("crop_pct is {part}, expected a part of 1")));
        }
        // Truncated, in floating point, as the original does.
        let whole = (edge as f64 / part) as usize;
        if whole == 0 {
            return Err(wrong(format!("crop_pct is {part}, expected a part of 1")));
        }
        Ok((Some((Target::ShortestEdge(whole), filter)), Some(square)))
    }

    /// Whether something is done: not where the file says null, as in Python.
    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(value) => {
                value.as_bool().ok_or_else(|| wrong(format!("{key} is {value}, expected true or false")))
            }
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                value.as_f64().ok_or_else(|| wrong(format!("{key} is {value}, expected a number")))
            }
        }
    }

    /// One value per channel, from a list of as many or of one, or from a number.
    fn per_channel(&self, key: &str, default: &[f64], channels: usize) -> Result<Vec<f64>> {
        let bad = |v: &Value| wrong(format!("{key} is {v}, expected 1 or {channels} numbers"));
        let values = match self.get(key) {
            None => default[..channels.min(default.len())].to_vec(),
            Some(Value::Array(list)) => list
                .iter()
                .map(Value::as_f64)
                .collect::<Option<Vec<f64>>>()
                .ok_or_else(|| bad(&Value::Array(list.clone())))?,
            Some(value) => vec![value.as_f64().ok_or_else(|| bad(value))?],
        };
        match values.len() {
            1 => Ok(vec![values[0]; channels]),
            n if n == channels => Ok(values),
            n => Err(wrong(format!(
                "{key} has {n} values, expected 1 or {channels} (num_channels in config.json)"
            ))),
        }
    }

    fn filter(&self, defaults: &Defaults) -> Result<Filter> {
        // Where it is null, there is none.
        let code = match self.0.get("resample") {
            None => Some(defaults.resample),
            Some(value) => value.as_u64(),
        };
        // There are none of the others for tensors.
        let last = if defaults.fast { 3 } else { 5 };
        code.filter(|code| *code <= last).and_then(Filter::from_code).ok_or_else(|| {
            wrong(format!(
                "resample is {}, expected 0 to {last}",
                self.get("resample").unwrap_or(&Value::Null)
            ))
        })
    }

    fn target(&self, defaults: &Defaults, output: ImageSize) -> Result<Target> {
        let square = |side| Target::Exact(ImageSize { height: side, width: side });
        match (self.get("size"), defaults.edge) {
            (None, None) => Ok(Target::Exact(output)),
            (None, Some(edge)) if defaults.shortest_edge => Ok(Target::ShortestEdge(edge as usize)),
            (None, Some(edge)) => Ok(square(edge as usize)),
            (Some(Value::Object(size)), _) => match (size.get("shortest_edge"), size.get("longest_edge")) {
                (Some(edge), None) => Ok(Target::ShortestEdge(side("size", edge)?)),
                (None, None) => Ok(Target::Exact(pair("size", size)?)),
                _ => Err(wrong("size with longest_edge is not supported")),
            },
            (Some(Value::Array(list)), _) if list.len() == 2 => Ok(Target::Exact(ImageSize {
                height: side("size", &list[0])?,
                width: side("size", &list[1])?,
            })),
            (Some(number), _) if self.means_square(defaults)? => Ok(square(side("size", number)?)),
            (Some(number), _) => Ok(Target::ShortestEdge(side("size", number)?)),
        }
    }

    /// Whether a size that is one number is a square.
    fn means_square(&self, defaults: &Defaults) -> Result<bool> {
        match defaults.asks_square {
            true => self.flag("default_to_square", !defaults.shortest_edge),
            false => Ok(!defaults.shortest_edge),
        }
    }

    fn crop(&self, defaults: &Defaults) -> Result<ImageSize> {
        match self.get("crop_size") {
            None => {
                let edge = defaults.crop.ok_or_else(|| wrong("do_center_crop without crop_size"))? as usize;
                Ok(ImageSize { height: edge, width: edge })
            }
            Some(Value::Object(size)) => pair("crop_size", size),
            Some(number) => side("crop_size", number).map(|edge| ImageSize { height: edge, width: edge }),
        }
    }
}

fn pair(key: &str, size: &Map<String, Value>) -> Result<ImageSize> {
    match (size.get("height"), size.get("width")) {
        (Some(height), Some(width)) => Ok(ImageSize { height: side(key, height)?, width: side(key, width)? }),
        _ => Err(wrong(format!("{key} has neither height and width nor shortest_edge"))),
    }
}

fn side(key: &str, value: &Value) -> Result<usize> {
    value
        .as_u64()
        .filter(|side| (1..=SIDE_MAX as u64).contains(side))
        .map(|side| side as usize)
        .ok_or_else(|| wrong(format!("{key} has {value}, expected 1 to {SIDE_MAX} pixels")))
}

#[cfg(test)]
mod tests {
    use super::super::Margins;
    use super::super::kinds::OF_MODELS;
    use super::*;

    fn model(side: usize, any: bool, channels: usize) -> Model<'static> {
        let image = ImageSize { height: side, width: side };
        Model { image, any, channels, model_type: None, version: Version::UNSAID }
    }

    fn parse(json: &str, side: usize, channels: usize) -> Result<Preprocessor> {
        from_json(json, model(side, false, channels)).map(|(preprocessor, _)| preprocessor)
    }

    fn check(json: &str, resize: Option<(Target, Filter)>, crop: Option<usize>) {
        let got = parse(json, 224, 3).unwrap();
        assert_eq!(got.resize, resize, "{json}");
        assert_eq!(got.crop, crop.map(|side| ImageSize { height: side, width: side }), "{json}");
    }

    fn square(side: usize) -> Target {
        Target::Exact(ImageSize { height: side, width: side })
    }

    #[test]
    fn the_processors_own_defaults_fill_the_gaps() {
        check(r#"{"do_rescale": true}"#, Some((square(224), Filter::Bilinear)), None);
        check(
            r#"{"image_processor_type": "ViTImageProcessorFast"}"#,
            Some((square(224), Filter::Bilinear)),
            None,
        );
        check(
            r#"{"feature_extractor_type": "ViTFeatureExtractor", "size": 224}"#,
            Some((square(224), Filter::Bilinear)),
            None,
        );
        check(
            r#"{"image_processor_type": "DeiTImageProcessor"}"#,
            Some((square(256), Filter::Bicubic)),
            Some(224),
        );
        check(
            r#"{"image_processor_type": "CLIPImageProcessor"}"#,
            Some((Target::ShortestEdge(224), Filter::Bicubic)),
            Some(224),
        );
        check(
            r#"{"feature_extractor_type": "CLIPFeatureExtractor", "size": 256, "crop_size": 224}"#,
            Some((Target::ShortestEdge(256), Filter::Bicubic)),
            Some(224),
        );
        check(
            r#"{"size": {"shortest_edge": 240}, "resample": 1, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}}"#,
            Some((Target::ShortestEdge(240), Filter::Lanczos)),
            Some(224),
        );
        check(
            r#"{"size": 240, "default_to_square": false, "do_center_crop": true, "crop_size": 224, "_valid_processor_keys": ["size"],
                "do_sharpen": false, "processor_class": null, "data_format": "channels_first", "use_fast": true}"#,
            Some((Target::ShortestEdge(240), Filter::Bilinear)),
            Some(224),
        );
        check(r#"{"do_resize": false, "do_pad": false, "do_convert_rgb": true}"#, None, None);
    }

    /// The first row of what a processor that neither rescales nor normalises makes of a picture of 4 rows, each with the levels from 1 on.
    fn first_row(kind: &str, have: u8, more: &str) -> Vec<f32> {
        let (mut png, width) = (std::io::Cursor::new(Vec::new()), u32::from(have));
        let picture = image::GrayImage::from_fn(width, 4, |x, _| image::Luma([x as u8 + 1]));
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let json = format!(
            r#"{{"image_processor_type": "{kind}", "do_rescale": false, "do_normalize": false, {more}}}"#
        );
        let (preprocessor, _) = from_json(&json, model(4, true, 1)).unwrap();
        let mut values = Vec::new();
        preprocessor.apply(&png.into_inner(), &crate::Budget::default(), &mut values).unwrap();
        values.truncate(preprocessor.output().width);
        values
    }

    #[test]
    fn what_works_on_tensors_cuts_elsewhere() {
        let check = |kind: &str, have: u8, want: u8, row: &[f32]| {
            let crop = format!(
                r#""do_resize": false, "do_center_crop": true, "crop_size": {{"height": 4, "width": {want}}}"#
            );
            assert_eq!(first_row(kind, have, &crop), row, "{kind} {have} {want}");
        };
        check("CLIPImageProcessor", 7, 4, &[2., 3., 4., 5.]);
        check("CLIPImageProcessor", 4, 7, &[0., 0., 1., 2., 3., 4., 0.]);
        for kind in ["CLIPImageProcessorFast", "ViTImageProcessorFast"] {
            check(kind, 7, 4, &[2., 3., 4., 5.]);
            check(kind, 4, 7, &[0., 1., 2., 3., 4., 0., 0.]);
            check(kind, 4, 9, &[0., 0., 1., 2., 3., 4., 0., 0., 0.]);
        }
        let check = |kind: &str, have: u8, row: &[f32]| {
            let got = first_row(kind, have, r#""size": {"shortest_edge": 4}, "crop_pct": 1.0"#);
            assert_eq!(got, row, "{kind} {have}");
        };
        check("ConvNextImageProcessor", 7, &[2., 3., 4., 5.]);
        check("ConvNextImageProcessor", 9, &[3., 4., 5., 6.]);
        check("ConvNextImageProcessorFast", 7, &[3., 4., 5., 6.]);
        check("ConvNextImageProcessorFast", 9, &[3., 4., 5., 6.]);
        check("ConvNextImageProcessorFast", 11, &[5., 6., 7., 8.]);
    }

    #[test]
    fn what_works_on_tensors_has_defaults_of_its_own() {
        check(
            r#"{"image_processor_type": "BeitImageProcessor"}"#,
            Some((square(256), Filter::Bicubic)),
            Some(224),
        );
        check(
            r#"{"image_processor_type": "BeitImageProcessorFast"}"#,
            Some((square(224), Filter::Bicubic)),
            None,
        );
        let of = |kind: &str, more: &str| {
            let json = format!(r#"{{"image_processor_type": "{kind}", "size": 224{more}}}"#);
            parse(&json, 224, 3).unwrap().resize.unwrap().0
        };
        assert_eq!(of("SiglipImageProcessor", ""), square(224));
        assert_eq!(of("SiglipImageProcessorFast", ""), Target::ShortestEdge(224));
        assert_eq!(of("SiglipImageProcessorFast", r#", "default_to_square": true"#), square(224));
        assert_eq!(of("ViTImageProcessorFast", ""), square(224));
        assert_eq!(of("ViTImageProcessorFast", r#", "default_to_square": null"#), Target::ShortestEdge(224));
    }

    /// As a file is read beside a `config.json` of that version.
    fn of_version(version: &str, json: &str) -> (Preprocessor, Option<String>) {
        let config = format!(r#"{{"transformers_version": "{version}"}}"#);
        let version = super::super::version::of_config(&config).unwrap();
        from_json(json, Model { version, ..model(224, true, 3) }).unwrap()
    }

    #[test]
    fn the_version_says_what_a_name_means() {
        let tensors = |version: &str, kind: &str| {
            of_version(version, &format!(r#"{{"image_processor_type": "{kind}"}}"#)).0.tensors
        };
        for version in ["4.57.6", "5.0.0", "5.3.0"] {
            assert!(!tensors(version, "ViTImageProcessor") && tensors(version, "ViTImageProcessorFast"));
        }
        for version in ["5.4.0", "5.24.0", "6.0.0.dev0"] {
            assert!(tensors(version, "ViTImageProcessor") && tensors(version, "ViTImageProcessorFast"));
            assert!(tensors(version, "ViTFeatureExtractor") && !tensors(version, "ViTImageProcessorPil"));
        }
        let note = |version: &str, kind: &str| {
            of_version(version, &format!(r#"{{"image_processor_type": "{kind}"}}"#)).1
        };
        let said = note("5.3.0", "CLIPImageProcessor").unwrap();
        assert!(said.contains("by Pillow") && said.contains(r#""CLIPImageProcessorFast""#), "{said}");
        assert_eq!(note("5.3.0", "CLIPImageProcessorFast"), None);
        assert_eq!(note("4.57.6", "CLIPImageProcessor"), None);
        let still = r#"{"image_processor_type": "ViTImageProcessor", "do_resize": false}"#;
        assert_eq!(of_version("5.24.0", still).1, None, "nothing is resized or cut");
        assert_eq!(note("5.24.0", "CLIPImageProcessorFast"), None);
        assert_eq!(note("5.24.0", "CLIPImageProcessorPil"), None);
        for kind in ["CLIPImageProcessor", "CLIPFeatureExtractor"] {
            let said = note("5.24.0", kind).unwrap();
            assert!(
                said.contains("transformers 5.24") && said.contains(r#""CLIPImageProcessorPil""#),
                "{said}"
            );
        }
        let both = Model { model_type: Some("vit"), version: Version::ON_WHITE, ..model(224, true, 3) };
        let said = from_json(r#"{"do_rescale": true}"#, both).unwrap().1.unwrap();
        assert!(
            said.contains("no image_processor_type")
                && said.contains("images are resized and cut by torchvision")
        );
    }

    #[test]
    fn the_version_says_what_a_file_leaves_out() {
        let of = |version: &str, kind: &str, more: &str| {
            of_version(version, &format!(r#"{{"image_processor_type": "{kind}"{more}}}"#)).0
        };
        let filter = |version: &str, kind: &str| of(version, kind, "").resize.unwrap().1;
        for kind in ["ConvNextImageProcessor", "ConvNextImageProcessorFast"] {
            assert_eq!(filter("4.57.6", kind), Filter::Bilinear);
            assert_eq!(filter("5.0.0", kind), Filter::Bicubic);
        }
        for kind in ["EfficientNetImageProcessor", "EfficientNetImageProcessorFast"] {
            assert_eq!(filter("4.57.6", kind), Filter::Nearest);
            assert_eq!(filter("5.24.0", kind), Filter::Bicubic);
        }
        let part = |version: &str| {
            let more = r#", "size": {"shortest_edge": 31}"#;
            of(version, "ConvNextImageProcessorFast", more).margins
        };
        assert_eq!((part("4.57.6"), part("5.0.0")), (Margins::HalfEven, Margins::Truncated));
        for kind in ["BeitImageProcessor", "BeitImageProcessorPil"] {
            let beit = of("5.24.0", kind, "");
            assert_eq!((beit.resize, beit.crop), (Some((square(224), Filter::Bicubic)), None));
        }
        let crop = r#", "size": 256, "do_center_crop": true, "crop_size": 224"#;
        assert!(of("4.57.6", "ViTImageProcessor", crop).crop.is_none());
        for kind in ["ViTImageProcessor", "ViTImageProcessorPil"] {
            let vit = of("5.24.0", kind, crop);
            assert!(vit.crop.is_some() && vit.notes.is_empty());
        }
        assert_eq!(
            of("5.24.0", "SiglipImageProcessor", r#", "size": 224"#).resize.unwrap().0,
            Target::ShortestEdge(224)
        );
    }

    #[test]
    fn what_is_transparent_is_laid_on_white_where_images_become_rgb() {
        let of = |version: &str, kind: &str, more: &str| {
            of_version(version, &format!(r#"{{"image_processor_type": "{kind}"{more}}}"#)).0.on_white
        };
        for kind in ["CLIPImageProcessor", "BitImageProcessorPil", "SiglipImageProcessorFast"] {
            assert!(!of("4.57.6", kind, "") && !of("5.20.2", kind, "") && of("5.21.0", kind, ""));
            assert!(!of("5.24.0", kind, r#", "do_convert_rgb": false"#));
        }
        assert!(!of("5.24.0", "ViTImageProcessor", ""));
        assert!(of("5.24.0", "ViTImageProcessor", r#", "do_convert_rgb": true"#));
        assert!(!of("4.57.6", "ViTImageProcessor", r#", "do_convert_rgb": true"#));
    }

    #[test]
    fn lanczos_on_tensors_is_noted() {
        let of = |kind: &str| {
            of_version("5.24.0", &format!(r#"{{"image_processor_type": "{kind}", "resample": 1}}"#))
                .0
                .notes
                .concat()
        };
        assert!(of("ViTImageProcessor").contains("torchvision does from 0.27 on"));
        assert_eq!(of("ViTImageProcessorPil"), "");
    }

    #[test]
    fn null_is_off() {
        let clip = |more: &str| {
            let json = format!(r#"{{"image_processor_type": "CLIPImageProcessor"{more}}}"#);
            from_json(&json, model(224, true, 3)).unwrap().0
        };
        assert_eq!(clip(r#", "do_center_crop": null"#).crop, None);
        assert_eq!(clip(r#", "do_resize": null"#).resize, None);
        assert_eq!(clip(r#", "do_normalize": null"#).levels[0][255], 1.0);
        assert_eq!(clip(r#", "do_normalize": null, "do_rescale": null"#).levels[0][255], 255.0);
        // What has a value is the default.
        let same = clip(r#", "size": null, "crop_size": null, "image_mean": null"#);
        assert_eq!((same.resize, same.crop), (clip("").resize, clip("").crop));
        assert_eq!(same.levels, clip("").levels);
        // Also where that is all that is said.
        assert_eq!(parse(r#"{"do_resize": null}"#, 224, 3).unwrap().resize, None);
    }

    #[test]
    fn what_a_processor_does_not_look_at_is_noted() {
        let of = |json: &str| {
            let got = parse(json, 224, 3).unwrap();
            (got.resize.unwrap().0, got.crop.is_some(), got.notes().concat())
        };
        let crop = r#""size": 224, "do_center_crop": true, "crop_size": 192"#;
        for kind in ["ViTImageProcessor", "ViTFeatureExtractor", "SiglipImageProcessor"] {
            let (target, cropped, notes) = of(&format!(r#"{{"image_processor_type": "{kind}", {crop}}}"#));
            assert_eq!((target, cropped), (square(224), false));
            assert!(notes.contains("without do_center_crop of"), "{notes}");
        }
        let clip = |more: &str| of(&format!(r#"{{"image_processor_type": "CLIPImageProcessor"{more}}}"#));
        let (target, _, notes) = clip(r#", "size": 224, "default_to_square": true"#);
        assert_eq!(target, Target::ShortestEdge(224));
        assert!(notes.contains("without default_to_square of"), "{notes}");
        let quiet = |more: &str| assert_eq!(clip(more).2, "", "{more}");
        quiet("");
        quiet(r#", "size": 224, "default_to_square": false, "do_center_crop": true"#);
        quiet(r#", "size": {"shortest_edge": 224}, "default_to_square": true"#);
    }

    #[test]
    fn the_models_type_says_whose_processor_it_is_where_the_file_does_not() {
        let of = |model_type: &'static str, json: &str| {
            from_json(json, Model { model_type: Some(model_type), ..model(224, true, 3) })
        };
        for (model_type, name) in OF_MODELS {
            let more = r#""do_rescale": true"#;
            let (got, note) = of(model_type, &format!("{{{more}}}")).unwrap();
            let (said, none) =
                of("bit", &format!(r#"{{"image_processor_type": "{name}", {more}}}"#)).unwrap();
            assert_eq!((got.resize, got.crop, got.levels), (said.resize, said.crop, said.levels));
            assert_eq!((got.margins, got.notes), (Margins::Floor, said.notes));
            assert!(note.is_some_and(|note| note.contains(name)) && none.is_none());
        }
        let (clip, note) = of("vit", r#"{"feature_extractor_type": "CLIPFeatureExtractor"}"#).unwrap();
        assert_eq!((clip.resize.map(|(target, _)| target), note), (Some(Target::ShortestEdge(224)), None));
        // What the processor of that type does not look at, is not looked at.
        let crop = r#"{"do_center_crop": true, "crop_size": 192, "size": 224, "default_to_square": false}"#;
        let (vit, _) = of("vit", crop).unwrap();
        assert_eq!((vit.resize.map(|(target, _)| target), vit.crop), (Some(square(224)), None));
        assert!(
            vit.notes.concat().contains("do_center_crop") && vit.notes.concat().contains("default_to_square")
        );
        assert!(of("deit", crop).unwrap().0.crop.is_some());
        let error = of("swin", r#"{"do_rescale": true}"#).unwrap_err().chain();
        assert!(error.contains("no image_processor_type") && error.contains("\"swin\""), "{error}");
    }

    #[test]
    fn a_part_is_cut_out_of_what_is_not_large() {
        let of = |more: &str, side: usize| {
            let json = format!(r#"{{"feature_extractor_type": "ConvNextFeatureExtractor"{more}}}"#);
            let got = parse(&json, side, 3).unwrap();
            (got.resize.map(|(target, _)| target), got.crop.map(|crop| crop.height))
        };
        assert_eq!(of("", 384), (Some(square(384)), None));
        // As microsoft/resnet-50 has it.
        assert_eq!(
            of(r#", "size": 224, "crop_pct": 0.875"#, 224),
            (Some(Target::ShortestEdge(256)), Some(224))
        );
        assert_eq!(
            of(r#", "size": {"shortest_edge": 383}"#, 383),
            (Some(Target::ShortestEdge(437)), Some(383))
        );
        assert_eq!(of(r#", "do_resize": false"#, 30), (None, None));
    }

    #[test]
    fn efficientnet_divides_twice() {
        let of = |more: &str| {
            let json = format!(
                r#"{{"image_processor_type": "EfficientNetImageProcessor", "image_mean": 0.25, "image_std": 0.5{more}}}"#
            );
            parse(&json, 346, 1).unwrap().levels[0][255]
        };
        assert_eq!(of(""), 3.0);
        assert_eq!(of(r#", "include_top": false"#), 1.5);
        assert_eq!(of(r#", "do_normalize": false"#), 2.0);
        assert_eq!(of(r#", "do_normalize": false, "include_top": false"#), 1.0);
        assert_eq!(of(r#", "rescale_offset": true, "include_top": false"#), -0.5);
        let cropped = r#"{"image_processor_type": "EfficientNetImageProcessorFast", "do_center_crop": true}"#;
        let cropped = parse(cropped, 289, 3).unwrap();
        assert_eq!(cropped.resize, Some((square(346), Filter::Nearest)));
        assert_eq!(cropped.crop, Some(ImageSize { height: 289, width: 289 }));
    }

    #[test]
    fn the_file_says_which_of_all_sizes() {
        let check = |json: &str, height, width| {
            let (got, _) = from_json(json, model(518, true, 3)).unwrap();
            assert_eq!(got.output(), ImageSize { height, width }, "{json}");
        };
        // As facebook/dinov2-base-imagenet1k-1-layer has it.
        let published = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
            "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 3,
            "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256}}"#;
        check(published, 224, 224);
        check(r#"{"size": {"height": 28, "width": 42}}"#, 28, 42);
        check(r#"{"size": {"shortest_edge": 256}}"#, 256, 256);
        check(r#"{"do_rescale": true}"#, 518, 518);
        check(r#"{"do_resize": false}"#, 518, 518);
        assert!(from_json(published, model(518, false, 3)).is_err());
    }

    #[test]
    fn a_size_that_nothing_says_is_called_so() {
        let bytes = |json: &str, any: bool| {
            let (preprocessor, _) = from_json(json, model(224, any, 3)).unwrap();
            preprocessor.resize_bytes(32, 24)
        };
        let error = |json: &str, any: bool| bytes(json, any).unwrap_err().chain();
        let unsaid = error(r#"{"do_resize": false}"#, true);
        assert!(unsaid.contains("has 32 x 24 pixels, and preprocessor_config.json does not say"), "{unsaid}");
        assert!(unsaid.contains(r#""size": {"height": 24, "width": 32}"#), "{unsaid}");
        let said = error(r#"{"do_resize": false}"#, false);
        assert!(said.contains("after preprocessing, the model takes 224 x 224"), "{said}");
        let long = error(r#"{"size": {"shortest_edge": 224}}"#, true);
        assert!(long.contains("after preprocessing, the model takes 224 x 224"), "{long}");
        // What the message says to do.
        let size = r#"{"do_resize": true, "size": {"height": 24, "width": 32}}"#;
        assert!(bytes(size, true).is_ok());
    }

    #[test]
    fn one_mean_serves_all_channels() {
        let got = parse(r#"{"image_mean": [0.25], "image_std": 0.5}"#, 224, 3).unwrap();
        assert_eq!(got.levels.len(), 3);
        assert_eq!(got.levels[2][0], -0.5);
        let clip =
            parse(r#"{"image_processor_type": "CLIPImageProcessor", "do_rescale": false}"#, 224, 3).unwrap();
        assert_ne!(clip.levels[0], clip.levels[1]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let error = |json: &str| parse(json, 224, 3).unwrap_err().chain();
        assert!(
            error(r#"{"image_processor_type": "LevitImageProcessor"}"#).contains("\"LevitImageProcessor\"")
        );
        assert!(
            error(r#"{"image_processor_type": 5}"#).contains("image_processor_type is 5, expected the name")
        );
        for nothing in ["{}", r#"{"processor_class": "X", "_size": 3}"#, r#"{"size": null}"#] {
            assert!(error(nothing).contains("says nothing about how images become pixels"), "{nothing}");
        }
        assert!(error(r#"{"crop_pct": 0.875}"#).contains("crop_pct is not supported"));
        assert!(error(r#"{"include_top": true}"#).contains("include_top is not supported"));
        assert!(error(r#"{"rescale_offset": true}"#).contains("rescale_offset is not supported"));
        let convnext =
            |more: &str| error(&format!(r#"{{"image_processor_type": "ConvNextImageProcessorFast"{more}}}"#));
        assert!(convnext(r#", "size": {"height": 3, "width": 3}"#).contains("size has no shortest_edge"));
        assert!(convnext(r#", "size": 3, "crop_pct": 0"#).contains("crop_pct is 0"));
        assert!(convnext(r#", "size": 3, "crop_pct": 4"#).contains("crop_pct is 4"));
        assert!(convnext(r#", "do_center_crop": true, "crop_size": 224"#).contains("do_center_crop"));
        assert!(convnext(r#", "rescale_offset": true"#).contains("rescale_offset is not supported"));
        assert!(error(r#"{"resample": 7}"#).contains("resample is 7"));
        assert!(
            error(r#"{"do_resize": true, "resample": null}"#).contains("resample is null, expected 0 to 5")
        );
        let fast = r#"{"image_processor_type": "ViTImageProcessorFast", "resample": 4}"#;
        assert!(error(fast).contains("resample is 4, expected 0 to 3"));
        let fast = r#"{"image_processor_type": "ViTImageProcessorFast", "rescale_factor": 0}"#;
        assert!(error(fast).contains("rescale_factor is 0, expected a number to divide by"));
        for factor in ["0", "-0.00392156862745098"] {
            let text = format!("rescale_factor is {factor}, expected a positive number");
            assert!(
                error(&format!(r#"{{"do_rescale": true, "rescale_factor": {factor}}}"#)).contains(&text),
                "{factor}"
            );
        }
        assert!(
            error(r#"{"size": 225}"#).contains("225 x 225 pixels, the model takes 224 x 224 (image_size")
        );
        assert!(error(r#"{"size": {}}"#).contains("neither height and width"));
        assert!(error(r#"{"size": 0}"#).contains("size has 0"));
        assert!(error(r#"{"size": {"shortest_edge": 3, "longest_edge": 5}}"#).contains("longest_edge"));
        assert!(error(r#"{"image_mean": [1, 2]}"#).contains("image_mean has 2 values"));
        assert!(error(r#"{"image_std": [0]}"#).contains("image_std has 0"));
        assert!(error(r#"{"do_resize": "yes"}"#).contains("do_resize is \"yes\""));
        assert!(error(r#"{"do_sharpen": true}"#).contains("do_sharpen is true, an option that is not known"));
        assert!(error(r#"{"interpolation": "area"}"#).contains("interpolation"));
        assert!(error(r#"{"num_channels": 1}"#).contains("num_channels is 1"));
        assert!(error(r#"{"size": {"shortest_edge": 256}}"#).contains("shorter edge of images becomes 256"));
        assert!(error("[]").contains("preprocessor_config.json"));
    }
}
