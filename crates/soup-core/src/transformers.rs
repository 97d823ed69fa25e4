//! Which transformers saved a model. Names of image processors, and what these do where their file does not say, changed with it, and their
//! file does not name it: `config.json` beside it does (`transformers_version`).

use serde_json::Value;

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32);

impl Version {
    /// What is taken where nothing is said: 5 always says it.
    pub const UNSAID: Version = Version(4, 0);
    /// From here on, processors of ConvNext and EfficientNet resize in another way where their file does not say how, and ConvNext's that work on
    /// tensors cut as the others do.
    pub const FIFTH: Version = Version(5, 0);
    /// From here on, processors that work on tensors have the plain names, and those that work on PIL images end in "Pil", which they do not write
    /// into their file.
    pub const PLAIN_IS_TENSORS: Version = Version(5, 4);
    /// From here on, what is transparent is laid on white where a processor makes images RGB.
    pub const ON_WHITE: Version = Version(5, 21);

    /// What `transformers_version` is, where it is a version ("5.24.0", "5.0.0rc1", "4.57.0.dev0") or nothing is said.
    pub fn of(said: Option<&Value>) -> Option<Version> {
        match said {
            None | Some(Value::Null) => Some(Version::UNSAID),
            Some(said) => {
                let mut parts = said.as_str()?.split('.').map(|part| part.parse().ok());
                Some(Version(parts.next()??, parts.next()??))
            }
        }
    }

    /// Whether the same file of an image processor means the same in both.
    pub fn prepares_images_as(self, other: Version) -> bool {
        let since = [Version::FIFTH, Version::PLAIN_IS_TENSORS, Version::ON_WHITE];
        since.iter().all(|since| (self >= *since) == (other >= *since))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let of = |said: Value| Version::of(Some(&said));
        assert_eq!(of(json!("5.24.0")), Some(Version(5, 24)));
        assert_eq!(of(json!("4.6.0.dev0")), Some(Version(4, 6)));
        assert_eq!(of(json!("5.0.0rc1")), Some(Version::FIFTH));
        assert_eq!((of(Value::Null), Version::of(None)), (Some(Version::UNSAID), Some(Version::UNSAID)));
        for wrong in [json!(5), json!("5"), json!("main"), json!("-1.5"), json!(""), json!([5, 24])] {
            assert_eq!(of(wrong.clone()), None, "{wrong}");
        }
        assert!(Version(4, 57) < Version::FIFTH && Version(5, 3) < Version::PLAIN_IS_TENSORS);
        assert!(Version(5, 20) < Version::ON_WHITE && Version::ON_WHITE < Version(6, 0));
    }

    #[test]
    fn some_versions_prepare_images_in_other_ways() {
        let same = |a: (u32, u32), b: (u32, u32)| Version(a.0, a.1).prepares_images_as(Version(b.0, b.1));
        assert!(same((4, 20), (4, 57)) && same((5, 4), (5, 20)) && same((5, 21), (6, 0)));
        assert!(!same((4, 57), (5, 0)) && !same((5, 4), (5, 3)) && !same((5, 20), (5, 24)));
    }
}
