//! Names of classes in a file that is named instead of the ingredients' own.
//!
//! Such a file is for names that ingredients lack, or have in another spelling. It cannot move a class to another row.

use serde_json::{Map, Value};

use super::forms::canonical;
use super::{CONFIG, Ignored};
use crate::error::{Error, Result};

/// What people should know of the classes that the file `named` with --model-config has, where those of ingredient `ingredient`, which
/// says `own`, are called otherwise.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) where both have a name, for different classes, and `ignore` does not say that this is meant.
pub fn rename(
    named: &Map<String, Value>,
    (ingredient, own): (&str, &Map<String, Value>),
    ignore: &[String],
) -> Result<Option<String>> {
    let classes = |settings: &Map<String, Value>| match canonical(CONFIG, settings).remove("id2label") {
        Some(Value::Object(classes)) => classes,
        _ => Map::new(),
    };
    let (named, own) = (classes(named), classes(own));
    let differ = |(id, name): &(&String, &Value)| own.get(*id).is_some_and(|own| own != *name);
    let differing: Vec<(&String, &Value)> = named.iter().filter(differ).collect();
    let Some((id, name)) = differing.first() else { return Ok(None) };
    let both = |id: &str, name: &Value| {
        format!(
            "the file named with --model-config calls class {id} {name}, and ingredient {ingredient:?} calls it {}",
            own[id]
        )
    };
    let elsewhere = |name: &Value| own.iter().find(|(_, own)| *own == name).map(|(id, _)| id);
    let moved = differing.iter().find_map(|(id, name)| Some((id, name, elsewhere(name)?)));
    if let Some((id, name, other)) = moved.filter(|_| !Ignored::new(ignore).takes(CONFIG, "id2label")) {
        return Err(Error::data(format!(
            "{}, and class {other} {name}: the rows of its classifier are in another order; leave the file out, or say --ignore-config \
             id2label if you know that it is right",
            both(id, name)
        )));
    }
    let more = match differing.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more differ)"),
    };
    Ok(Some(format!("{}{more}: the names of the file were taken", both(id, name))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn renamed(named: Value, own: Value, ignore: &[&str]) -> std::result::Result<Option<String>, String> {
        let (Value::Object(named), Value::Object(own)) = (named, own) else { panic!("settings are objects") };
        let ignore: Vec<String> = ignore.iter().map(|key| (*key).to_owned()).collect();
        rename(&named, ("a", &own), &ignore).map_err(|e| e.chain())
    }

    #[test]
    fn a_class_may_be_called_otherwise_but_not_be_another_one() {
        let names = |a: &str, b: &str| json!({ "id2label": { "0": a, "1": b } });
        let own = names("cat", "dog");
        assert_eq!(renamed(own.clone(), own.clone(), &[]), Ok(None));
        assert_eq!(renamed(own.clone(), names("LABEL_0", "LABEL_1"), &[]), Ok(None));
        assert_eq!(renamed(json!({}), own.clone(), &[]), Ok(None));
        let note = renamed(names("Katze", "Hund"), own.clone(), &[]).unwrap().unwrap();
        assert!(
            note.contains(r#"calls class 0 "Katze", and ingredient "a" calls it "cat" (1 more differ)"#),
            "{note}"
        );
        let error = renamed(names("dog", "cat"), own.clone(), &[]).unwrap_err();
        assert!(
            error.contains(r#"calls class 0 "dog", and ingredient "a" calls it "cat", and class 1 "dog""#),
            "{error}"
        );
        assert!(renamed(json!({ "label2id": { "dog": 0, "cat": 1 } }), own.clone(), &[]).is_err());
        assert!(renamed(names("dog", "cat"), own, &["id2label"]).unwrap().is_some());
    }
}
