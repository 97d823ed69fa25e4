//! The model card: the `README.md` of an output, for people and for the Hugging Face Hub.

use std::fmt::Write as _;

use soup_core::plain::is_odd;

/// What a model card says.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// Name of the model: the name of its folder.
    pub name: String,
    /// The recipe that chose the ingredients.
    pub recipe: String,
    /// The pretrained model that the ingredients come from, as its id on the Hub, where that is known.
    pub base_model: Option<String>,
    /// Whether transformers loads it: its configuration names a class of that.
    pub of_transformers: bool,
    /// The pool, in pool order.
    pub ingredients: Vec<CardIngredient>,
    /// What the figures are, in a sentence.
    pub figures_are: String,
    /// Headings of the columns of figures: datasets.
    pub figure_columns: Vec<String>,
    /// Rows of figures: models.
    pub figures: Vec<CardRow>,
}

/// One ingredient of the pool.
#[derive(Clone, Debug, Default)]
pub struct CardIngredient {
    /// Its name.
    pub name: String,
    /// Whether it is in the soup.
    pub chosen: bool,
    /// Its weight in words, such as `1/3`; empty if it has none.
    pub weight: String,
}

/// One row of the table of figures.
#[derive(Clone, Debug, Default)]
pub struct CardRow {
    /// The model.
    pub name: String,
    /// One figure a column, formatted.
    pub figures: Vec<String>,
}

/// The text of the card: YAML front matter and Markdown.
pub fn card(card: &Card) -> String {
    let chosen = card.ingredients.iter().filter(|i| i.chosen).count();
    let mut out = String::from("---\n");
    if let Some(base) = &card.base_model {
        // A JSON string is a YAML string.
        line(&mut out, &format!("base_model:\n- {}", serde_json::Value::from(base.as_str())));
        line(&mut out, "base_model_relation: merge");
    }
    if card.of_transformers {
        line(&mut out, "library_name: transformers");
    }
    out.push_str("tags:\n- merge\n- model-soup\n---\n\n");
    line(&mut out, &format!("# {}\n", text(&card.name)));
    line(
        &mut out,
        &format!(
            "A model soup: the weighted average of {chosen} of {} fine-tuned models, chosen by the recipe **{}**. \
             It has the size and the speed of a single model. `soup.json` records how it was made.\n",
            card.ingredients.len(),
            text(&card.recipe)
        ),
    );
    if !card.figures.is_empty() {
        line(&mut out, "## Figures\n");
        if !card.figures_are.is_empty() {
            line(&mut out, &format!("{}\n", text(&card.figures_are)));
        }
        let heading = std::iter::once("model").chain(card.figure_columns.iter().map(String::as_str));
        table(&mut out, heading, card.figures.iter().map(|r| (r.name.as_str(), r.figures.as_slice())));
    }
    line(&mut out, "## Ingredients\n");
    let rows: Vec<(&str, [String; 2])> = card
        .ingredients
        .iter()
        .map(|i| (i.name.as_str(), [if i.chosen { "yes" } else { "no" }.to_string(), i.weight.clone()]))
        .collect();
    table(
        &mut out,
        ["ingredient", "chosen", "weight"].into_iter(),
        rows.iter().map(|(n, c)| (*n, c.as_slice())),
    );
    out
}

/// The id of a model on the Hub, `organisation/name`, that `text` is or leads to: by itself, as a URL, or as a folder of the
/// Hub's cache (`models--organisation--name`). `None` where it may as well be a path.
pub fn hub_id(text: &str) -> Option<String> {
    if let Some(cached) = text.split('/').find_map(|part| part.strip_prefix("models--")) {
        return cached.split_once("--").and_then(|(org, name)| id(org, name));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let path = ["huggingface.co/", "hf.co/"].iter().find_map(|host| rest.strip_prefix(host))?;
        let mut parts = path.split('/');
        return id(parts.next()?, parts.next()?);
    }
    let (org, name) = text.split_once('/')?;
    // Folders that tools and people keep their own models in.
    let local = [
        "checkpoint",
        "checkpoints",
        "data",
        "exp",
        "experiments",
        "finetuned",
        "home",
        "logs",
        "mlruns",
        "mnt",
        "model",
        "models",
        "out",
        "output",
        "outputs",
        "pool",
        "ckpt",
        "ckpts",
        "results",
        "run",
        "runs",
        "save",
        "saved",
        "saved_models",
        "tmp",
        "wandb",
        "weights",
        "work",
        "workspace",
    ];
    let is_local = local.contains(&org.to_ascii_lowercase().as_str()) || name.starts_with("checkpoint-");
    if is_local { None } else { id(org, name) }
}

/// `org/name` if both can be parts of an id.
fn id(org: &str, name: &str) -> Option<String> {
    let part = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && p.len() <= 96
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    (part(org) && part(name)).then(|| format!("{org}/{name}"))
}

fn table<'a>(
    out: &mut String,
    heading: impl Iterator<Item = &'a str>,
    rows: impl Iterator<Item = (&'a str, &'a [String])>,
) {
    let heading: Vec<String> = heading.map(text).collect();
    line(out, &format!("| {} |", heading.join(" | ")));
    line(out, &format!("|{}", "---|".repeat(heading.len())));
    for (name, cells) in rows {
        let cells: Vec<String> = std::iter::once(text(name)).chain(cells.iter().map(|c| text(c))).collect();
        line(out, &format!("| {} |", cells.join(" | ")));
    }
    out.push('\n');
}

fn line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

/// `raw` as text on one line that neither ends a cell nor starts markup, nor turns the direction of others.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '|' | '*' | '_' | '`' | '<' | '[' | ']' | '\\' | '#' => out.extend(['\\', c]),
            c if is_odd(c) => {
                out.push('\\');
                out.extend(c.escape_unicode());
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_reads_well() {
        let ingredient = |name: &str, chosen, weight: &str| CardIngredient {
            name: name.into(),
            chosen,
            weight: weight.into(),
        };
        let text = card(&Card {
            of_transformers: true,
            name: "my|soup".into(),
            recipe: "greedy".into(),
            base_model: Some("google/vit-base".into()),
            ingredients: vec![ingredient("a", true, "1/1"), ingredient("b", false, "")],
            figures_are: "Shares of correct predictions.".into(),
            figure_columns: vec!["validation".into()],
            figures: vec![CardRow { name: "soup".into(), figures: vec!["87.50 %".into()] }],
        });
        let expect = "---\nbase_model:\n- \"google/vit-base\"\nbase_model_relation: merge\nlibrary_name: transformers\ntags:\n- merge\n- model-soup\n---\n\n\
            # my\\|soup\n\n\
            A model soup: the weighted average of 1 of 2 fine-tuned models, chosen by the recipe **greedy**. \
            It has the size and the speed of a single model. `soup.json` records how it was made.\n\n\
            ## Figures\n\nShares of correct predictions.\n\n| model | validation |\n|---|---|\n| soup | 87.50 % |\n\n\
            ## Ingredients\n\n| ingredient | chosen | weight |\n|---|---|---|\n| a | yes | 1/1 |\n| b | no |  |\n\n";
        assert_eq!(text, expect);
    }

    #[test]
    fn what_turns_a_text_is_spelled_out() {
        assert_eq!(text("a\u{202e}b\u{1b}c\nd"), "a\\\\u{202e}b\\\\u{1b}c d");
    }

    #[test]
    fn ids_of_the_hub_are_told_from_paths() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(hub_id(text).as_deref(), expect, "{text}");
        check("google/vit-base-patch16-224-in21k", Some("google/vit-base-patch16-224-in21k"));
        check("https://huggingface.co/google/vit/resolve/main/model.safetensors", Some("google/vit"));
        check("/root/.cache/huggingface/hub/models--google--vit/snapshots/ab", Some("google/vit"));
        for path in [
            "",
            "vit",
            "./a/b",
            "/a/b",
            "a/b/c",
            "output/vit",
            "a/checkpoint-500",
            "../a",
            "a/..",
            "s3://a/b",
            "a b/c",
            "C:\\a/b",
        ] {
            check(path, None);
        }
    }
}
