//! Labels: cut to a length, spread so that they do not overlap.

/// A name of at most `max` characters; of a longer one its beginning and its end, which tell names of a pool apart.
pub(crate) fn short(name: &str, max: usize) -> String {
    let count = name.chars().count();
    if count <= max {
        return name.to_owned();
    }
    let tail = max.saturating_sub(1) / 2;
    let head: String = name.chars().take(max.saturating_sub(1) - tail).collect();
    let tail: String = name.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// Coordinates near `wanted`, in the same order, at least `gap` apart and within `lo` to `hi` where there is room.
pub(crate) fn spread(wanted: &[f64], gap: f64, lo: f64, hi: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut placed = wanted.to_vec();
    let mut least = lo;
    for &i in &order {
        placed[i] = placed[i].max(least);
        least = placed[i] + gap;
    }
    let mut most = hi;
    for &i in order.iter().rev() {
        placed[i] = placed[i].min(most);
        most = placed[i] - gap;
    }
    placed
}

/// Every how many of `count` labels one is shown, for at most `max` of them.
pub(crate) fn every(count: usize, max: usize) -> usize {
    count.div_ceil(max.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(short("m01", 8), "m01");
        assert_eq!(short("fine-tuned-07", 9), "fine…d-07");
        assert_eq!(short("ääääää", 3), "ä…ä");
    }

    #[test]
    fn labels_are_spread() {
        let placed = spread(&[10.0, 11.0, 50.0], 14.0, 0.0, 100.0);
        assert_eq!(placed, [10.0, 24.0, 50.0]);
        let placed = spread(&[99.0, 98.0], 14.0, 0.0, 100.0);
        assert_eq!(placed, [100.0, 86.0]);
    }

    #[test]
    fn labels_are_thinned() {
        assert_eq!([every(5, 10), every(20, 10), every(21, 10), every(0, 10)], [1, 2, 3, 1]);
    }
}
