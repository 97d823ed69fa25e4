//! `soupctl inspect`: what is in a checkpoint or a pool. Reads headers only.

use std::collections::BTreeMap;

use serde::Serialize;
use soup_core::agree::{Terms, agree};
use soup_core::batch_norm;
use soup_core::plan::DtypeInfo;
use soup_core::schema::{Schema, TensorSpec};
use soup_core::{Error, Result};
use soup_store::checkpoint::Checkpoint;
use soup_store::{companion, header, pool};

use crate::args::InspectArgs;
use crate::choices::OutputFormat;
use crate::cookfile::{absolute, current_folder};
use crate::print;
use crate::quantity::{Bytes, count, grouped};
use crate::table::{align, pairs};

/// Lists longer than this are cut in the middle.
const ROWS_MAX: usize = 24;

/// What was found.
#[derive(Debug, Serialize)]
struct Inspection {
    /// In pool order.
    ingredients: Vec<IngredientInfo>,
    /// Sum over the ingredients.
    bytes: u64,
    /// Elements of one ingredient, the first.
    parameters: u64,
    /// Of the first ingredient.
    dtypes: BTreeMap<String, DtypeInfo>,
    /// Of the first ingredient, in canonical order.
    tensors: Vec<TensorSpec>,
    /// Of the first ingredient's first file.
    metadata: BTreeMap<String, String>,
    /// What was left out of the pool, and tolerated differences.
    notes: Vec<String>,
    /// The first difference that keeps the ingredients from being averaged.
    disagreement: Option<String>,
}

#[derive(Debug, Serialize)]
struct IngredientInfo {
    name: String,
    location: String,
    files: usize,
    bytes: u64,
    tensors: usize,
    parameters: u64,
}

/// Inspects.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for what is corrupt, missing, or does not agree; the latter after
/// everything is printed.
pub(crate) async fn run(args: InspectArgs) -> Result<()> {
    let cwd = current_folder()?;
    let urls: Vec<String> = args.urls.iter().map(|url| absolute(&cwd, url)).collect::<Result<_>>()?;
    let (inspection, verdict) = inspect(pool::open_pool(&urls).await?).await?;
    match args.format {
        OutputFormat::Json => print::json(&inspection)?,
        OutputFormat::Table => print::result(&render(&inspection, args.tensors))?,
    }
    verdict
}

async fn inspect(pool: pool::Pool) -> Result<(Inspection, Result<()>)> {
    let pool::Pool { checkpoints, mut notes } = pool;
    let Some(first) = checkpoints.first() else {
        return Err(Error::data("there is no checkpoint"));
    };
    let metadata = match first.files.first() {
        Some(file) => header::read_header(&file.location).await?.0.metadata,
        None => BTreeMap::new(),
    };
    let (more, verdict) = agreement(&checkpoints).await;
    notes.extend(more);
    let statistics = batch_norm::statistics(&first.schema).count();
    if statistics > 0 {
        notes.push(format!(
            "{} of BatchNorm layers: a cook has to be told what becomes of them (--batch-norm)",
            count(statistics as u64, "running statistic")
        ));
    }
    let inspection = Inspection {
        ingredients: checkpoints.iter().map(info).collect(),
        bytes: checkpoints.iter().map(Checkpoint::size_bytes).sum(),
        parameters: first.schema.parameters(),
        dtypes: dtypes(&first.schema),
        tensors: first.schema.tensors().to_vec(),
        metadata,
        notes,
        disagreement: verdict.as_ref().err().map(Error::chain),
    };
    Ok((inspection, verdict))
}

/// Whether checkpoints agree, in their tensors and in what gives these their meaning; with what people should know.
pub(crate) async fn agreement(checkpoints: &[Checkpoint]) -> (Vec<String>, Result<()>) {
    match agree(&schemas(checkpoints), Terms::default()) {
        Ok(agreement) => match companion::check(checkpoints, &[]).await {
            Ok(notes) => ([agreement.notes, notes].concat(), Ok(())),
            Err(error) => (agreement.notes, Err(error)),
        },
        // One checkpoint alone cannot disagree, only be unfit for a pool.
        Err(error) if checkpoints.len() == 1 => (vec![error.chain()], Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    }
}

/// The schemas of a pool with the names of the ingredients.
pub(crate) fn schemas(checkpoints: &[Checkpoint]) -> Vec<(&str, &Schema)> {
    checkpoints.iter().map(|c| (c.name.as_str(), &*c.schema)).collect()
}

fn info(checkpoint: &Checkpoint) -> IngredientInfo {
    IngredientInfo {
        name: checkpoint.name.clone(),
        location: checkpoint.location.to_string(),
        files: checkpoint.files.len(),
        bytes: checkpoint.size_bytes(),
        tensors: checkpoint.schema.tensors().len(),
        parameters: checkpoint.schema.parameters(),
    }
}

/// How much of which dtype there is.
pub(crate) fn dtypes(schema: &Schema) -> BTreeMap<String, DtypeInfo> {
    let mut by_name: BTreeMap<String, DtypeInfo> = BTreeMap::new();
    for tensor in schema.tensors() {
        let info = by_name.entry(tensor.dtype.name().to_owned()).or_default();
        info.tensors += 1;
        info.parameters += tensor.elements().unwrap_or(0);
    }
    by_name
}

/// `206,538 F32, 1 I64`.
pub(crate) fn dtypes_text(dtypes: &BTreeMap<String, DtypeInfo>) -> String {
    let one = |(name, info): (&String, &DtypeInfo)| format!("{} {name}", grouped(info.parameters));
    dtypes.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn render(inspection: &Inspection, all: bool) -> String {
    let rows_max = if all { usize::MAX } else { ROWS_MAX };
    let many = inspection.ingredients.len() > 1;
    let mut summary = vec![
        ("ingredients", grouped(inspection.ingredients.len() as u64)),
        ("parameters", format!("{} ({})", grouped(inspection.parameters), dtypes_text(&inspection.dtypes))),
        ("tensors", grouped(inspection.tensors.len() as u64)),
        ("bytes", format!("{} ({})", grouped(inspection.bytes), Bytes(inspection.bytes))),
    ];
    if many {
        let verdict = inspection.disagreement.as_deref().map_or("yes".to_owned(), |why| format!("no: {why}"));
        summary.push(("agree", verdict));
    }
    summary.extend(inspection.notes.iter().map(|n| ("note", n.clone())));
    summary.extend(inspection.metadata.iter().map(|(key, value)| ("metadata", format!("{key}: {value}"))));
    let mut text = pairs(&summary);

    let mut rows = vec![["ingredient", "tensors", "parameters", "bytes", "files"].map(String::from).to_vec()];
    rows.extend(inspection.ingredients.iter().map(|i| {
        let numbers = [i.tensors as u64, i.parameters, i.bytes, i.files as u64].map(grouped);
        std::iter::once(i.name.clone()).chain(numbers).collect()
    }));
    text += "\n";
    text += &abbreviate(&align(&rows), rows_max);

    let mut rows = vec![["tensor", "dtype", "shape"].map(String::from).to_vec()];
    rows.extend(
        inspection
            .tensors
            .iter()
            .map(|t| vec![t.name.clone(), t.dtype.to_string(), format!("{:?}", t.shape)]),
    );
    text += "\n";
    text += &abbreviate(&align(&rows), rows_max);
    text
}

/// The first and last of more than `rows_max` rows below the header.
fn abbreviate(table: &str, rows_max: usize) -> String {
    let lines: Vec<&str> = table.lines().collect();
    let rows = lines.len().saturating_sub(1);
    if rows <= rows_max {
        return table.to_owned();
    }
    let (head, tail) = (rows_max * 2 / 3, rows_max / 3);
    let left_out = format!("... {} more, which --tensors lists", grouped((rows - head - tail) as u64));
    let shown = [&lines[..=head], &[left_out.as_str()], &lines[lines.len() - tail..]].concat();
    shown.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tables_are_cut_in_the_middle() {
        let table: String = (0..=30).map(|i| format!("{i}\n")).collect();
        assert_eq!(abbreviate(&table, 30), table);
        assert_eq!(abbreviate(&table, 3), "0\n1\n2\n... 27 more, which --tensors lists\n30\n");
        assert_eq!(abbreviate("h\n", 3), "h\n");
    }

    #[test]
    fn dtypes_are_counted() {
        use soup_core::schema::Dtype;
        let schema = Schema::new(vec![
            TensorSpec::new("a", Dtype::F32, [2, 500]),
            TensorSpec::new("b", Dtype::F32, [234]),
            TensorSpec::new("step", Dtype::I64, []),
        ])
        .unwrap();
        let found = dtypes(&schema);
        assert_eq!(found["F32"], DtypeInfo { tensors: 2, parameters: 1234 });
        assert_eq!(dtypes_text(&found), "1,234 F32, 1 I64");
    }
}
