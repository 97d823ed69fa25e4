//! Quantities as people write them: sizes in bytes (`8GiB`, `500MB`), durations (`90s`, `10m`) and shares (`2%`).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use soup_core::run::{LOOKAHEAD_MAX, PPM};

/// Units of bytes. A letter alone is the binary unit, as in most tools that limit memory.
const BYTE_UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Units of time, in milliseconds. A number alone is seconds.
const TIME_UNITS: [(&str, u64); 5] = [("", 1_000), ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A size in bytes, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// A length of time, at least one millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) u64);

/// A share in millionths, at most all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(pub(crate) u32);

/// Decimals of a share in percent: a millionth has four.
const SHARE_DECIMALS: usize = 4;

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let not_one = || format!("{text:?} is not a share such as 2% or 0.5%");
        let number = text.trim().strip_suffix('%').ok_or_else(not_one)?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) {
            return Err(not_one());
        }
        if decimals.len() > SHARE_DECIMALS {
            return Err(format!("{text:?} has more than {SHARE_DECIMALS} decimals"));
        }
        let millionths = format!("{whole}{decimals:0<SHARE_DECIMALS$}").parse::<u32>().ok();
        let share = millionths.filter(|ppm| *ppm <= PPM).map(Share);
        share.ok_or_else(|| format!("{text:?} is more than 100%"))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,4})? ?%$", "examples": ["2%", "0.5%"] })
    }
}

/// How many trials are looked ahead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookahead {
    /// As many as keep the workers busy.
    Auto,
    /// So many.
    Trials(u32),
}

impl Lookahead {
    /// The number, where one was named.
    pub(crate) fn trials(self) -> Option<u32> {
        match self {
            Lookahead::Auto => None,
            Lookahead::Trials(trials) => Some(trials),
        }
    }
}

impl FromStr for Lookahead {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Lookahead::Auto),
            text => match text.parse() {
                Ok(trials) => Ok(Lookahead::Trials(trials)),
                Err(_) => Err(format!("{text:?} is neither \"auto\" nor a number of trials")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Lookahead {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(trials) => Ok(Lookahead::Trials(trials)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for Lookahead {
    fn schema_name() -> Cow<'static, str> {
        "Lookahead".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "string", "enum": ["auto"] },
            { "type": "integer", "minimum": 0, "maximum": LOOKAHEAD_MAX }
        ] })
    }
}

/// `text` as a number times the factor of its unit; `None` unless that is a finite number of at least 1.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).filter(|&v| v >= 1);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    // 2^53: up to here every whole number of bytes is exact.
    (1.0..9e15).contains(&value).then_some(value as u64)
}

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &BYTE_UNITS)
            .map(Bytes)
            .ok_or_else(|| format!("{text:?} is not a size such as 8GiB or 500MB"))
    }
}

impl FromStr for Millis {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &TIME_UNITS)
            .map(Millis)
            .ok_or_else(|| format!("{text:?} is not a duration such as 90s or 10m"))
    }
}

impl fmt::Display for Bytes {
    /// Three significant digits in the largest binary unit that fits: `12.6 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let value = self.0 as f64 / (1u64 << shift) as f64;
        let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        write!(f, "{value:.decimals$} {unit}")
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 8GiB or 500MB")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Bytes, E> {
                if bytes == 0 { Err(E::custom("a size is at least 1 byte")) } else { Ok(Bytes(bytes)) }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Millis;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 90s or 10m")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Millis, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Millis, E> {
                seconds.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for Millis {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 1, "examples": ["90s", "10m"] })
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 1, "examples": ["8GiB", "500MB"] })
    }
}

/// A number with thousands separated: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 shard`, `2 shards`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookahead_is_auto_or_a_number() {
        let parsed = |text: &str| text.parse::<Lookahead>().map(Lookahead::trials);
        assert_eq!((parsed("auto"), parsed("0"), parsed(" 12")), (Ok(None), Ok(Some(0)), Ok(Some(12))));
        for bad in ["", "-1", "some", "1.5"] {
            assert!(parsed(bad).unwrap_err().contains("neither"), "{bad:?}");
        }
    }

    #[track_caller]
    fn bytes(text: &str, expect: Option<u64>) {
        assert_eq!(text.parse::<Bytes>().ok().map(|b| b.0), expect, "{text:?}");
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        bytes("1", Some(1));
        bytes("8GiB", Some(8 << 30));
        bytes("8 gib", Some(8 << 30));
        bytes("8G", Some(8 << 30));
        bytes("8GB", Some(8_000_000_000));
        bytes("1.5KiB", Some(1536));
        bytes(" 2TB ", Some(2_000_000_000_000));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in
            ["", "0", "0GiB", "-1", "GiB", "8XB", "8 Gi B", "1.2.3", "nan", "inf", "0.1", "99999999TiB", "."]
        {
            bytes(text, None);
        }
        bytes("18446744073709551616", None);
    }

    #[test]
    fn durations_are_seconds_unless_they_say_so() {
        let check =
            |text: &str, expect: Option<u64>| assert_eq!(text.parse::<Millis>().ok().map(|m| m.0), expect);
        check("90", Some(90_000));
        check("90s", Some(90_000));
        check("1.5s", Some(1_500));
        check("250ms", Some(250));
        check("10m", Some(600_000));
        check("2h", Some(7_200_000));
        check("0", None);
        check("2 days", None);
    }

    #[test]
    fn shares_are_exact_and_at_most_all() {
        let check = |text: &str, expect: Option<u32>| {
            assert_eq!(text.parse::<Share>().ok().map(|s| s.0), expect, "{text:?}");
        };
        check("2%", Some(20_000));
        check("0.5 %", Some(5_000));
        check("0%", Some(0));
        check("100%", Some(1_000_000));
        check("12.3456%", Some(123_456));
        check("0.0001%", Some(1));
        for text in [
            "2",
            "0.02",
            "%",
            "",
            ".5%",
            "5.%",
            "-1%",
            "+1%",
            "1e1%",
            "100.0001%",
            "1000%",
            "99999999999%",
            "0.00001%",
            "٢%",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_print_three_digits() {
        let check = |bytes: u64, expect: &str| assert_eq!(Bytes(bytes).to_string(), expect);
        check(1, "1 B");
        check(1023, "1023 B");
        check(1024, "1.00 KiB");
        check(13_218_432, "12.6 MiB");
        check(200 << 30, "200 GiB");
        check(5 << 40, "5.00 TiB");
    }

    #[test]
    fn numbers_are_grouped_and_counted() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(206_538), "206,538");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!((count(1, "shard"), count(2, "shard")), ("1 shard".into(), "2 shards".into()));
    }
}
