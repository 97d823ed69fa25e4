//! Reading a run's log.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use soup_core::journal::{Fold, Record};
use soup_core::{Error, Result};

use super::slot::Patience;
use super::{RECORD_BYTES_MAX, RECORDS_MAX};
use crate::location::Location;
use crate::read;

/// Records read at the same time.
const READS_IN_FLIGHT: usize = 16;
/// Digits of a record's name; names sort as numbers do.
const DIGITS: usize = 20;

/// The slot of record `seq`.
pub(super) fn slot(folder: &Location, seq: u64) -> Result<Location> {
    folder.join(&format!("{seq:0DIGITS$}.json"))
}

/// What the log in `folder` adds up to; each of its records is given to `visit` with its bytes, in order.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a log that is broken; otherwise what the store says.
pub(super) async fn fold(
    folder: &Location,
    patience: Patience,
    mut visit: impl FnMut(Record, &Bytes) -> Result<()>,
) -> Result<Fold> {
    let length = patience.read(|| length(folder)).await?;
    // A listing says how far the log reaches, and no more: that of a disk may miss a record that was appended meanwhile,
    // which is no gap.
    let mut records = futures::stream::iter(0..length)
        .map(|seq| async move {
            let slot = slot(folder, seq)?;
            let bytes = patience.read(|| read::read_small_if_exists(&slot, RECORD_BYTES_MAX)).await?;
            let gap = || Error::data(format!("{slot} is missing, but later records of the log are there"));
            Ok::<_, Error>((seq, bytes.ok_or_else(gap)?))
        })
        .buffered(READS_IN_FLIGHT);
    let mut fold = Fold::default();
    while let Some((seq, bytes)) = records.try_next().await? {
        let record = fold.push(seq, &bytes);
        record.and_then(|record| visit(record, &bytes)).map_err(|e| e.context(folder.to_string()))?;
    }
    Ok(fold)
}

/// One more than the highest number in the log.
pub(super) async fn length(folder: &Location) -> Result<u64> {
    let mut length = 0;
    // One level deep: a folder in it may be a link to a whole disk.
    for entry in read::list(folder).await?.iter().filter(|e| e.stamp.is_some()) {
        // Anything else is no record: what a disk's writer left behind when it was killed, a note, an index.
        if let Some(seq) = number(&entry.name) {
            length = length.max(seq.saturating_add(1));
        }
        if length > RECORDS_MAX as u64 {
            return Err(Error::data(format!("{folder} has more than {RECORDS_MAX} records")));
        }
    }
    Ok(length)
}

/// The number of the record that is called `name`.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    // 20 digits may be more than 64 bits: far beyond any log, which is said then.
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_records_are_exact() {
        assert_eq!(number("00000000000000000042.json"), Some(42));
        assert_eq!(number("99999999999999999999.json"), Some(u64::MAX));
        for other in [
            "42.json",
            "00000000000000000042.json#1",
            "+0000000000000000042.json",
            "x/00000000000000000042.json",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
        let folder = Location::parse("memory:///log").unwrap();
        assert_eq!(number(slot(&folder, 7).unwrap().name()), Some(7));
    }
}
