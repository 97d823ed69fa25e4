//! How a worker's memory is shared out, so that workers and plans say the same.

/// Soups that a worker has at most: the one in work, the next one, and one that may be written.
pub const SOUPS_MAX: u64 = 3;
/// Blends that are fetched ahead of the one that is being written to a file.
pub const SHARDS_AHEAD: u64 = 4;
/// Decoded samples take at most this part of what a worker offers, on top of it.
pub const SAMPLES_SHARE: u64 = 4;

/// Soups that a worker has at a time, of `model_bytes` each, where shards leave `free_bytes` of what it offers. There is always room
/// for one: without it nothing could be judged.
pub fn soups_kept(free_bytes: u64, model_bytes: u64) -> u64 {
    free_bytes.checked_div(model_bytes).unwrap_or(u64::MAX).clamp(1, SOUPS_MAX)
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
}
