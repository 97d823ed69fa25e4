use super::*;
use crate::parameters::visitor::Listing;

fn tensors(json: &str) -> Vec<(String, Vec<u64>)> {
    let mut listing = Listing::default();
    EfficientNet::from_json(json).unwrap().parameters(&mut listing).unwrap();
    listing.tensors
}

/// As google/efficientnet-b0 has it.
const B0: &str = r#"{"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "depthwise_padding": [], "image_size": 224}"#;

#[test]
fn sizes_are_those_of_the_published_models() {
    let b0 = EfficientNet::from_json(B0).unwrap();
    assert_eq!((b0.body.blocks.len(), b0.body.stem.outputs, b0.top.channels), (16, 32, 320));
    // 49 convolutions with a normalisation, two linear maps a block, and the classifier.
    assert_eq!(tensors(B0).len(), 49 * 5 + 16 * 4 + 2);
    // The default is google/efficientnet-b7.
    let b7 = EfficientNet::from_json("{}").unwrap();
    assert_eq!(
        (b7.body.blocks.len(), b7.body.stem.outputs, b7.top.channels, b7.top.outputs),
        (55, 64, 640, 2560)
    );
    assert_eq!(b7.classifier.image, ImageSize { height: 600, width: 600 });
    assert_eq!(b7.body.blocks[0].squeezed, 16);
    let name = "efficientnet.encoder.blocks.4.squeeze_excite.reduce.weight".to_owned();
    assert!(tensors("{}").contains(&(name, vec![8, 192, 1, 1])));
}

#[test]
fn images_have_to_leave_something() {
    let of = |height, width| {
        let sized = EfficientNet::from_json(B0).unwrap().resized(ImageSize { height, width });
        sized.map(|_| ()).map_err(|e| e.chain())
    };
    assert_eq!(of(32, 33), Ok(()));
    assert!(of(31, 33).unwrap_err().contains("the images are too small"));
    assert!(of(32, 41_000).unwrap_err().contains("too large"));
}

#[test]
fn bad_configs_say_what_is_wrong() {
    let error = |json: &str| EfficientNet::from_json(json).err().map(|e| e.chain()).unwrap();
    assert!(error(r#"{"hidden_dim": 1280}"#).contains("hidden_dim is 1280, expected 2560"));
    assert!(error(r#"{"pooling_type": "sum"}"#).contains("unknown pooling_type \"sum\""));
    assert!(error(r#"{"hidden_act": "mish"}"#).contains("unknown hidden_act \"mish\""));
    assert!(error(r#"{"strides": [1, 2, 2, 3, 1, 2, 1]}"#).contains("strides has 3"));
    assert!(error(r#"{"strides": [1]}"#).contains("strides has 1 values, and in_channels 7"));
    assert!(error(r#"{"kernel_sizes": [3, 3, 0, 3, 5, 5, 3]}"#).contains("kernel_sizes has 0"));
    assert!(error(r#"{"in_channels": [32, 16, 24, 40, 80, 120, 192]}"#).contains("in_channels has 120"));
    assert!(error(r#"{"in_channels": []}"#).contains("in_channels has 0 stages"));
    assert!(error(r#"{"expand_ratios": [1, 6, 6, 0, 6, 6, 6]}"#).contains("expand_ratios is 0"));
    assert!(error(r#"{"num_block_repeats": [1, 2, 2, 3, 3, 4000, 1]}"#).contains("more than 1024 blocks"));
    assert!(error(r#"{"num_block_repeats": [0, 0, 0, 0, 0, 0, 0]}"#).contains("no block"));
    assert!(error(r#"{"depth_divisor": 0}"#).contains("depth_divisor is 0"));
    for name in ["width_coefficient", "depth_coefficient", "squeeze_expansion_ratio", "batch_norm_eps"] {
        for value in [-1i64, 0, 2_147_483_648] {
            let json = format!(r#"{{"{name}": {value}}}"#);
            assert!(error(&json).contains(&format!("{name} is {value}, expected")), "{json}");
        }
    }
    assert!(error(r#"{"width_coefficient": 9999}"#).contains("in_channels * expand_ratios is 1439856"));
    assert!(error(r#"{"expand_ratios": [1.5]}"#).contains("not understood"));
}
