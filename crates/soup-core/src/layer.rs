//! Which layer of a network a tensor belongs to, told by its name alone: checkpoints of most libraries number their blocks.

use crate::schema::{Schema, TensorSpec};

/// Words before a block's number.
const BLOCKS: [&str; 9] =
    ["layer", "layers", "stages", "stage", "block", "blocks", "h", "resblocks", "encoderblock"];

/// The layer that the tensor `name` belongs to: the name up to the number of its outermost block
/// (`vit.encoder.layer.3`), else `embeddings`, `classifier` or `final`.
pub fn layer_of(name: &str) -> &str {
    let mut end = 0;
    let mut after_block = false;
    for part in name.split('.') {
        let number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        end += part.len();
        if after_block && number {
            return &name[..end];
        }
        after_block = BLOCKS.contains(&part);
        end += 1;
    }
    let has = |word: &str| name.contains(word);
    if ["embed", "patch", "cls_token", "class_token", "reg_token"].into_iter().any(has) {
        "embeddings"
    } else if is_classifier(name) {
        "classifier"
    } else {
        "final"
    }
}

/// Whether the tensor `name` is of the classifier, the last linear map: its scale is that of the logits.
pub fn is_classifier(name: &str) -> bool {
    // Models that learned from a teacher have two.
    const CLASSIFIERS: [&str; 8] = [
        "classifier",
        "head",
        "fc",
        "heads",
        "score",
        "lm_head",
        "cls_classifier",
        "distillation_classifier",
    ];
    name.split('.').next().is_some_and(|first| CLASSIFIERS.contains(&first))
}

/// The layers of `names` in the order of the network: embeddings, blocks by number, what follows, classifier; and for each
/// name the position of its layer.
pub fn layers<'a>(names: impl IntoIterator<Item = &'a str>) -> (Vec<String>, Vec<u32>) {
    let of: Vec<&str> = names.into_iter().map(layer_of).collect();
    let mut layers: Vec<&str> = of.clone();
    layers.sort_by_key(|layer| place(layer));
    layers.dedup();
    let position = |layer: &&str| layers.iter().position(|l| l == layer).unwrap_or_default() as u32;
    let positions = of.iter().map(position).collect();
    (layers.into_iter().map(str::to_owned).collect(), positions)
}

/// The layers of a model's averaged tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Their names, in the order of the network.
    pub names: Vec<String>,
    /// The layer of each tensor, in canonical order; `None` for tensors that are copied.
    pub of: Vec<Option<u32>>,
    /// Whether each tensor is a matrix, or of a higher rank.
    pub matrix: Vec<bool>,
}

impl Layers {
    /// The layers of a pool's tensors.
    pub fn new(schema: &Schema) -> Layers {
        let averaged = (0..schema.tensors().len()).filter(|&t| schema.is_averaged(t));
        let (names, positions) = layers(averaged.map(|t| schema.tensors()[t].name.as_str()));
        let mut positions = positions.into_iter();
        let layer = |t: usize| schema.is_averaged(t).then(|| positions.next()).flatten();
        // Dimensions of 1 make no matrix: a class token is [1, 1, hidden].
        let matrix = |t: &TensorSpec| t.shape.iter().filter(|&&d| d > 1).count() > 1;
        Layers {
            of: (0..schema.tensors().len()).map(layer).collect(),
            matrix: schema.tensors().iter().map(matrix).collect(),
            names,
        }
    }
}

/// Sorts embeddings first, then blocks by prefix and number, then the rest.
fn place(layer: &str) -> (u8, &str, u64) {
    match layer {
        "embeddings" => (0, layer, 0),
        "final" => (2, layer, 0),
        "classifier" => (3, layer, 0),
        block => {
            let (prefix, number) = block.rsplit_once('.').unwrap_or((block, ""));
            (1, prefix, number.parse().unwrap_or(u64::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_belong_to_layers() {
        let check = |name: &str, layer: &str| assert_eq!(layer_of(name), layer, "{name}");
        check("vit.encoder.layer.11.attention.attention.query.weight", "vit.encoder.layer.11");
        check("model.layers.0.mlp.up_proj.weight", "model.layers.0");
        check("resnet.encoder.stages.2.layers.1.weight", "resnet.encoder.stages.2");
        check("transformer.h.7.ln_1.bias", "transformer.h.7");
        check("vit.embeddings.patch_embeddings.projection.weight", "embeddings");
        check("classifier.bias", "classifier");
        check("distillation_classifier.bias", "classifier");
        check("deit.embeddings.distillation_token", "embeddings");
        check("reg_token", "embeddings");
        check("blocks.3.attn.qkv.weight", "blocks.3");
        check("fc_norm.weight", "final");
        check("vit.layernorm.weight", "final");
        check("layer.x.weight", "final");
        check("", "final");
    }

    #[test]
    fn layers_are_in_the_order_of_the_network() {
        let names = [
            "classifier.weight",
            "a.layer.10.w",
            "norm.weight",
            "a.layer.9.w",
            "wte.embed.weight",
            "a.layer.10.b",
        ];
        let (layers, of) = layers(names);
        assert_eq!(layers, ["embeddings", "a.layer.9", "a.layer.10", "final", "classifier"]);
        assert_eq!(of, [4, 2, 3, 1, 0, 2]);
    }
}
