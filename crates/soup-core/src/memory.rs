//! How a worker's memory is shared out, so that workers and plans say the same.

/// Soups that a worker has at most: the one in work, the next one, and one that may be written.
pub const SOUPS_MAX: u64 = 3;
/// Blends that are fetched ahead of the one that is being written to a file.
pub const SHARDS_AHEAD: u64 = 4;
/// Samples get this part of a worker's memory, decoded ones and those that are being decoded.
const SAMPLES_PART: u64 = 5;
/// Decoding gets this part of what samples have.
const DECODING_PART: u64 = 2;
/// What decoding has at least, even where that comes on top: half of it is for pixels, and a photograph of 20 megapixels takes 60 MiB.
pub const DECODING_BYTES_MIN: u64 = 128 << 20;
/// Logits that are kept to be compared get this part of what samples have, where there are any.
const LOGITS_PART: u64 = 4;

/// How the memory that a worker may use is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// For shards, and for the soups and blends that they leave room for.
    pub shards: u64,
    /// For decoded samples.
    pub samples: u64,
    /// For logits.
    pub logits: u64,
    /// For samples while they are decoded, by all threads together; [`DECODING_BYTES_MIN`] where that is more.
    pub decoding: u64,
}

impl Cut {
    /// Cuts `memory_bytes`, for a run that keeps logits or does not.
    pub fn of(memory_bytes: u64, logits: bool) -> Cut {
        let all = memory_bytes / SAMPLES_PART;
        let decoding = all / DECODING_PART;
        let samples = all - decoding;
        let logits = if logits { samples / LOGITS_PART } else { 0 };
        Cut { shards: memory_bytes - all, samples: samples - logits, logits, decoding }
    }
}

/// Memory of which shards get `shards_bytes`, and no more than a few bytes beyond.
pub fn memory_for(shards_bytes: u64) -> u64 {
    let parts = u128::from(SAMPLES_PART);
    // What a division leaves over goes to shards.
    let least = (u128::from(shards_bytes) * parts).saturating_sub(1) / (parts - 1);
    u64::try_from(least).unwrap_or(u64::MAX)
}

/// Soups that a worker has at a time, of `soup_bytes` each (the model, and the blends of its own shards where peers ask for them),
/// where shards leave `free_bytes` of what they have. There is always room for one: without it nothing could be judged.
pub fn soups_kept(free_bytes: u64, soup_bytes: u64) -> u64 {
    free_bytes.checked_div(soup_bytes).unwrap_or(u64::MAX).clamp(1, SOUPS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_one_soup_and_for_more_where_it_is_free() {
        let kept = |free| soups_kept(free, 100);
        assert_eq!([0, 99, 150, 200, 299, 300, u64::MAX].map(kept), [1, 1, 1, 2, 2, 3, 3]);
        assert_eq!(soups_kept(0, 0), 3);
    }

    #[test]
    fn all_memory_is_cut_and_no_more() {
        for (memory, logits) in [(0, true), (3, true), (1000, false), (1000, true), (u64::MAX, true)] {
            let Cut { shards, samples, logits: kept, decoding } = Cut::of(memory, logits);
            assert_eq!(shards + samples + kept + decoding, memory);
            assert_eq!(kept > 0, logits && memory > 10, "{memory}");
        }
        for shards in [0, 1, 4, 5, 799, 800, 801, 1 << 40] {
            let memory = memory_for(shards);
            assert!(Cut::of(memory, false).shards >= shards, "{shards}");
            assert!(Cut::of(memory, false).shards <= shards + 1, "{shards}");
        }
        assert_eq!(memory_for(u64::MAX), u64::MAX);
        assert_eq!(Cut::of(1000, true), Cut { shards: 800, samples: 75, logits: 25, decoding: 100 });
    }
}
