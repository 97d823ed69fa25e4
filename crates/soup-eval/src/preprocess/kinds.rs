//! The kinds of image processors: what each does where its file does not say.

use soup_core::Result;
use soup_core::transformers::Version;

use super::Margins;
use super::processor::wrong;
use super::version::works_on_tensors;

/// What a processor does where its file does not say, and what it looks at in the file.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    /// Of which transformers.
    pub(super) version: Version,
    /// One of those that work on tensors ("fast"), not on PIL images.
    pub(super) fast: bool,
    /// Whether images become RGB (`do_convert_rgb`) as far as that matters: what is transparent may then be laid on white.
    pub(super) converts: bool,
    /// Whether `do_center_crop` is looked at.
    pub(super) crops: bool,
    /// Whether `default_to_square` is looked at.
    pub(super) asks_square: bool,
    /// `None`: the model's own image size.
    pub(super) edge: Option<u64>,
    /// A size that is one number means the shorter edge, not a square.
    pub(super) shortest_edge: bool,
    pub(super) resample: u64,
    /// The edge of what is cut out, where the file does not say.
    pub(super) crop: Option<u64>,
    pub(super) do_crop: bool,
    /// The part of the shorter edge that is cut out of images that do not become large (`crop_pct`); `None`: there is no such
    /// option.
    pub(super) part: Option<f64>,
    /// Whether there are an offset after rescaling and a second division by the deviations (`rescale_offset`, `include_top`).
    pub(super) top: bool,
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
}

const HALF: [f64; 3] = [0.5; 3];
/// What CLIP's images are normalised by.
pub(crate) const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
pub(crate) const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

pub(super) const VIT: Defaults = Defaults {
    version: Version::UNSAID,
    fast: false,
    converts: false,
    crops: true,
    asks_square: true,
    edge: None,
    shortest_edge: false,
    resample: 2,
    crop: None,
    do_crop: false,
    part: None,
    top: false,
    mean: HALF,
    std: HALF,
};
const SIGLIP: Defaults = Defaults { resample: 3, converts: true, ..VIT };
const DEIT: Defaults = Defaults { edge: Some(256), resample: 3, crop: Some(224), do_crop: true, ..VIT };
const CLIP: Defaults = Defaults {
    converts: true,
    edge: Some(224),
    shortest_edge: true,
    resample: 3,
    crop: Some(224),
    do_crop: true,
    mean: CLIP_MEAN,
    std: CLIP_STD,
    ..VIT
};
const CONVNEXT: Defaults =
    Defaults { edge: Some(384), shortest_edge: true, part: Some(224.0 / 256.0), ..VIT };
const EFFICIENTNET: Defaults = Defaults { edge: Some(346), resample: 0, crop: Some(289), top: true, ..VIT };

/// The kinds of processors: what those on PIL images do, and those on tensors, in version 4. Newer ones on PIL images have the defaults of
/// those on tensors.
const KINDS: [(&str, Defaults, Defaults); 9] = [
    ("ViT", uncropped(VIT), fast(VIT)),
    ("Siglip", uncropped(SIGLIP), fast(Defaults { shortest_edge: true, ..SIGLIP })),
    ("DeiT", slow(DEIT), fast(DEIT)),
    ("Beit", slow(DEIT), fast(Defaults { edge: Some(224), do_crop: false, ..DEIT })),
    ("CLIP", slow(CLIP), fast(CLIP)),
    ("ChineseCLIP", slow(CLIP), fast(CLIP)),
    ("Bit", slow(CLIP), fast(CLIP)),
    ("ConvNext", uncropped(CONVNEXT), fast(CONVNEXT)),
    ("EfficientNet", slow(EFFICIENTNET), fast(EFFICIENTNET)),
];

const fn fast(defaults: Defaults) -> Defaults {
    Defaults { fast: true, ..defaults }
}

/// Whether one number is a square is what the kind says, whatever the file says.
const fn slow(defaults: Defaults) -> Defaults {
    Defaults { asks_square: false, ..defaults }
}

const fn uncropped(defaults: Defaults) -> Defaults {
    Defaults { crops: false, ..slow(defaults) }
}

/// Whose processor transformers takes, by the model's type, where the file does not say.
pub(super) const OF_MODELS: [(&str, &str); 7] = [
    ("vit", "ViTImageProcessor"),
    ("deit", "DeiTImageProcessor"),
    ("dinov2", "BitImageProcessor"),
    ("clip", "CLIPImageProcessor"),
    ("resnet", "ConvNextImageProcessor"),
    ("efficientnet", "EfficientNetImageProcessor"),
    ("align", "EfficientNetImageProcessor"),
];

/// The processor of a model of that type, and what people should know about that.
pub(super) fn of_model(model_type: &str) -> Result<(&'static str, String)> {
    let found = OF_MODELS.iter().find(|(of, _)| *of == model_type);
    let (_, name) = found.ok_or_else(|| {
        wrong(format!(
            "has no image_processor_type, and which one models of type {model_type:?} have is not known: add it in a copy that is named \
             with --preprocessor-config"
        ))
    })?;
    let note = format!(
        "preprocessor_config.json has no image_processor_type: it was read as {name}'s, which transformers takes for models of type \
         {model_type:?}"
    );
    Ok((name, note))
}

pub(super) fn defaults(name: &str, version: Version) -> Result<Defaults> {
    // That name is as old as the plain one for tensors.
    let version = if name.ends_with("Pil") { version.max(Version::PLAIN_IS_TENSORS) } else { version };
    // "ViTFeatureExtractor" does what "ViTImageProcessor" does.
    let family = name
        .trim_end_matches("Fast")
        .trim_end_matches("Pil")
        .trim_end_matches("ImageProcessor")
        .trim_end_matches("FeatureExtractor");
    let kind = KINDS.iter().find(|(kind, _, _)| *kind == family);
    let (_, slow, fast) = kind.ok_or_else(|| {
        wrong(format!(
            "unknown image_processor_type {name:?}: known are those of ViT, DeiT, Beit, CLIP, Bit, Siglip, ConvNext and EfficientNet"
        ))
    })?;
    let on_tensors = works_on_tensors(name, version);
    let of = if on_tensors || version >= Version::PLAIN_IS_TENSORS { *fast } else { *slow };
    let resample = match of.part.is_some() || of.top {
        true if version >= Version::FIFTH => 3,
        _ => of.resample,
    };
    Ok(Defaults { version, fast: on_tensors, resample, ..of })
}

impl Defaults {
    /// How what is cut out lies in the image.
    pub(super) fn margins(&self) -> Margins {
        match (self.fast, self.part) {
            (false, _) => Margins::Floor,
            // torchvision's own function.
            (true, Some(_)) if self.version < Version::FIFTH => Margins::HalfEven,
            (true, _) => Margins::Truncated,
        }
    }
}
