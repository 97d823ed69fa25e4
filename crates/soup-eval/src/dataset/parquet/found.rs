//! Which leaf columns of a Parquet file have the samples, and whether what is stored of a label is the label.

use ::parquet::basic::{ConvertedType, LogicalType, Type};
use ::parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use soup_core::run::DatasetOptions;
use soup_core::{Error, Result};

use super::super::columns::{self, Column, NUMBERS, TextColumns};
use super::Inputs;

const IMAGE_COLUMNS: [&str; 2] = ["image", "img"];
const LABEL_COLUMNS: [&str; 3] = ["label", "labels", "fine_label"];

/// What was found in a file.
pub(super) struct Found {
    pub(super) inputs: Inputs,
    pub(super) label: usize,
    /// Whether the labels are numbers that are taken for some because nothing else is: no classes.
    pub(super) scores: bool,
    /// What people should know.
    pub(super) note: Option<String>,
}

/// Whether integers are stored as they are, and signed ones; or else what they stand for: of decimals the number times some power of
/// ten is stored, and of times what passed since another.
pub(super) fn integers(column: &ColumnDescriptor) -> std::result::Result<bool, String> {
    use ConvertedType as C;
    let is = column.converted_type();
    match (is, column.logical_type_ref()) {
        // Nanoseconds have no converted type.
        (C::NONE, Some(LogicalType::Time(_) | LogicalType::Timestamp(_))) => Err("a time".to_owned()),
        (C::NONE | C::INT_8 | C::INT_16 | C::INT_32 | C::INT_64 | C::UINT_8 | C::UINT_16, _) => Ok(true),
        (C::UINT_32 | C::UINT_64, _) => Ok(false),
        _ => Err(is.to_string()),
    }
}

/// The columns of images and labels. `url` is the dataset, for messages.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where one is not there, or several may be meant.
pub(super) fn images(schema: &SchemaDescriptor, options: &DatasetOptions, url: &str) -> Result<Found> {
    let (label, scores) = label_column(schema, options.label_column.as_deref(), url)?;
    let image = image_column(schema, options.image_column.as_deref(), url)?;
    Ok(Found { inputs: Inputs::Image(image), label, scores, note: None })
}

/// The leaves called `names`, in the order of those, directly or as the field `inner` of a group.
fn leaves(schema: &SchemaDescriptor, names: &[&str], inner: Option<&str>) -> Vec<usize> {
    let called = |name: &&str| {
        schema.columns().iter().position(|leaf| {
            let parts: Vec<&str> = leaf.path().parts().iter().map(String::as_str).collect();
            leaf.max_rep_level() == 0
                && (parts == [*name] || inner.is_some_and(|inner| parts == [*name, inner]))
        })
    };
    names.iter().filter_map(called).collect()
}

/// Refuses several columns of which each would do.
fn one_of(schema: &SchemaDescriptor, those: &[usize], what: (&str, &str), url: &str) -> Result<()> {
    if those.len() < 2 {
        return Ok(());
    }
    let name = |leaf: &usize| schema.column(*leaf).path().parts().first().cloned().unwrap_or_default();
    let (what, option) = what;
    Err(Error::data(format!(
        "dataset {url}: which {what} are meant is not known, it has the columns {}: name one by {option}",
        those.iter().map(name).collect::<Vec<_>>().join(" and ")
    )))
}

/// The column of labels, and whether it is one of [`NUMBERS`] alone.
fn label_column(schema: &SchemaDescriptor, name: Option<&str>, url: &str) -> Result<(usize, bool)> {
    let numbers = [Type::INT32, Type::INT64, Type::FLOAT, Type::DOUBLE];
    let is_number = |leaf: &usize| numbers.contains(&schema.column(*leaf).physical_type());
    let mut found = leaves(schema, &name.map_or(LABEL_COLUMNS.to_vec(), |name| vec![name]), None);
    let scores = found.is_empty() && name.is_none();
    if scores {
        found = leaves(schema, &[NUMBERS], None);
    }
    let may: Vec<usize> = found.iter().copied().filter(is_number).collect();
    one_of(schema, &may, ("labels", "label-column"), url)?;
    let leaf = *found.first().ok_or_else(|| {
        let wanted = name.map_or(LABEL_COLUMNS.join(", "), str::to_owned);
        Error::data(format!("dataset {url} has no labels: no column {wanted} among {}", listed(schema)))
    })?;
    match is_number(&leaf) {
        true => Ok((leaf, scores)),
        false => Err(Error::data(format!(
            "dataset {url} has no labels: column {:?} is {}, expected integers (columns: {})",
            schema.column(leaf).name(),
            schema.column(leaf).physical_type(),
            listed(schema)
        ))),
    }
}

fn image_column(schema: &SchemaDescriptor, name: Option<&str>, url: &str) -> Result<usize> {
    let found = leaves(schema, &name.map_or(IMAGE_COLUMNS.to_vec(), |name| vec![name]), Some("bytes"));
    let bytes = |leaf: &usize| schema.column(*leaf).physical_type() == Type::BYTE_ARRAY;
    // Texts are paths, or say what is to be seen.
    let text = |leaf: &usize| schema.column(*leaf).converted_type() == ConvertedType::UTF8;
    let may: Vec<usize> = found.iter().copied().filter(|leaf| bytes(leaf) && !text(leaf)).collect();
    one_of(schema, &may, ("images", "image-column"), url)?;
    may.first().or(found.first().filter(|leaf| bytes(leaf))).copied().ok_or_else(|| {
        let wanted = name.map_or(IMAGE_COLUMNS.join(", "), str::to_owned);
        Error::data(format!(
            "dataset {url} has no images: no column {wanted} with encoded images among {}",
            listed(schema)
        ))
    })
}

/// The columns of texts and labels, and what people should know of them.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where one is not there, or several may be meant.
pub(super) fn texts(schema: &SchemaDescriptor, options: &DatasetOptions, about: &str) -> Result<Found> {
    let top = |leaf: &usize| {
        let column = schema.column(*leaf);
        column.max_rep_level() == 0 && column.path().parts().len() == 1
    };
    let leaves: Vec<usize> = (0..schema.num_columns()).filter(top).collect();
    let all = leaves.iter().map(|&leaf| {
        let column = schema.column(leaf);
        let text = matches!(column.converted_type(), ConvertedType::NONE | ConvertedType::UTF8);
        (column.name().to_owned(), text && column.physical_type() == Type::BYTE_ARRAY)
    });
    let all: Vec<(String, bool)> = all.collect();
    let candidates: Vec<Column<'_>> = all.iter().map(|(name, text)| Column { name, text: *text }).collect();
    let (TextColumns { first, second, label, scores }, note) = columns::choose(&candidates, options, about)?;
    let label_is = schema.column(leaves[label]).physical_type();
    let numbers = [Type::INT32, Type::INT64, Type::FLOAT, Type::DOUBLE];
    if !numbers.contains(&label_is) && !candidates[label].text {
        return Err(Error::data(format!(
            "{about} has no labels: column {:?} is {label_is}, expected numbers, or names of classes",
            candidates[label].name
        )));
    }
    let inputs = Inputs::Text { first: leaves[first], second: second.map(|at| leaves[at]) };
    Ok(Found { inputs, label: leaves[label], scores, note })
}

/// Top-level column names, for messages.
fn listed(schema: &SchemaDescriptor) -> String {
    let fields = schema.root_schema().get_fields();
    fields.iter().take(50).map(|f| f.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    fn schema(columns: &str) -> SchemaDescriptor {
        SchemaDescriptor::new(Arc::new(parse_message_type(&format!("message m {{ {columns} }}")).unwrap()))
    }

    fn of(columns: &str, options: &DatasetOptions) -> std::result::Result<String, String> {
        let schema = schema(columns);
        let Found { inputs, label, scores, .. } = images(&schema, options, "URL").map_err(|e| e.chain())?;
        let name = |leaf: usize| schema.column(leaf).path().string();
        let image = inputs.leaves().map(name).collect::<Vec<_>>().join(" ");
        Ok(format!("{image} {}{}", name(label), if scores { " scores" } else { "" }))
    }

    #[test]
    fn of_several_columns_of_images_or_labels_none_is_taken() {
        let plain = DatasetOptions::default();
        let image = "optional group image { optional binary bytes; optional binary path (UTF8); }";
        let label = "required int64 label;";
        for (columns, want) in [
            (format!("{image} {label}"), "image.bytes label"),
            // As CIFAR-100 is on the Hub.
            (
                "optional group img { optional binary bytes; } required int64 fine_label; required int64 coarse_label;"
                    .to_owned(),
                "img.bytes fine_label",
            ),
            (format!("{image} {label} optional binary labels (UTF8); optional binary img (UTF8);"), "image.bytes label"),
            (format!("{image} required double score;"), "image.bytes score scores"),
            (format!("{image} {label} required double score;"), "image.bytes label"),
        ] {
            assert_eq!(of(&columns, &plain).unwrap(), want);
        }
        for (columns, part) in [
            (format!("{image} {label} required int64 labels;"), "label and labels: name one by label-column"),
            (
                format!("{image} {label} required int32 fine_label;"),
                "label and fine_label: name one by label-column",
            ),
            (format!("{image} {label} required binary img;"), "image and img: name one by image-column"),
        ] {
            let error = of(&columns, &plain).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let named = |label: &str, image: &str| DatasetOptions {
            label_column: Some(label.to_owned()),
            image_column: Some(image.to_owned()),
            ..DatasetOptions::default()
        };
        let both = format!("{image} required binary img; {label} required int64 labels;");
        assert_eq!(of(&both, &named("labels", "img")).unwrap(), "img labels");
    }

    #[test]
    fn what_is_stored_of_decimals_and_times_is_no_label() {
        let is = |column: &str| integers(&schema(column).column(0));
        for plain in
            ["int32 a", "int64 a", "int32 a (INT_8)", "int32 a (UINT_16)", "int64 a (INTEGER(64,true))"]
        {
            assert_eq!(is(&format!("required {plain};")), Ok(true), "{plain}");
        }
        assert_eq!(is("required int64 a (UINT_64);"), Ok(false));
        for (other, what) in [
            ("int32 a (DECIMAL(5,1))", "DECIMAL"),
            ("int32 a (DATE)", "DATE"),
            ("int64 a (TIMESTAMP_MICROS)", "TIMESTAMP_MICROS"),
            ("int64 a (TIMESTAMP(NANOS,true))", "a time"),
        ] {
            assert_eq!(is(&format!("required {other};")), Err(what.to_owned()), "{other}");
        }
    }
}
