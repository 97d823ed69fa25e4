//! What is kept of the headers of a pool: once where they say the same, and within a bound where they do not.
//!
//! The ingredients of a pool have the same tensors, and mostly at the same places in their files: a thousand headers are then one table. Who
//! reads headers holds a *permit* for their bytes, of which there are so many in the whole process, and gives it back once what they say is
//! in a table; so what is read at the same time is bounded too, however many pools are being opened.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use soup_core::schema::{Schema, TensorSpec};
use soup_core::{Error, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::checkpoint::TensorPlace;
use crate::location::Location;

/// Headers that are being read and understood, in bytes, by the whole process. Understanding one takes up to five times its size.
const HEADERS_BYTES_MAX: u64 = 64 << 20;
/// Indexes of checkpoints that are being opened, in bytes: what is known of their files until all of them are there is as large.
const INDEXES_BYTES_MAX: u64 = 128 << 20;
/// What the different tables of one pool take. One of 200,000 tensors with long names takes 40 MB.
const TABLES_BYTES_MAX: u64 = 512 << 20;
/// Permits are for so many bytes.
const UNIT_BYTES: u64 = 1 << 10;

static HEADERS: Semaphore = Semaphore::const_new((HEADERS_BYTES_MAX / UNIT_BYTES) as usize);
static INDEXES: Semaphore = Semaphore::const_new((INDEXES_BYTES_MAX / UNIT_BYTES) as usize);

/// Waits until a header of so many bytes may be read.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) for one that is larger than any may be.
pub(crate) async fn header_permit(bytes: u64) -> Result<SemaphorePermit<'static>> {
    permit(&HEADERS, bytes).await
}

/// Waits until an index of so many bytes may be read. Whoever has a permit for a header must not wait for this one.
///
/// # Errors
/// As for [`header_permit`].
pub(crate) async fn index_permit(bytes: u64) -> Result<SemaphorePermit<'static>> {
    permit(&INDEXES, bytes).await
}

async fn permit(of: &'static Semaphore, bytes: u64) -> Result<SemaphorePermit<'static>> {
    let units = u32::try_from(bytes.div_ceil(UNIT_BYTES));
    let units = units.map_err(|_| Error::internal(format!("a permit for {bytes} bytes")))?;
    of.acquire_many(units).await.map_err(|e| Error::internal("no header is read any more").with_source(e))
}

/// The tables of one pool.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    schemas: HashMap<u64, Vec<Arc<Schema>>>,
    places: HashMap<u64, Vec<Arc<Vec<TensorPlace>>>>,
    bytes: u64,
}

impl Kept {
    /// What is kept of `schema` and `places`: what is there already, if it says the same. `location` has them, for the message.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where the pool has too many that say different things.
    pub(crate) fn keep(
        &self,
        location: &Location,
        schema: Schema,
        places: Vec<TensorPlace>,
    ) -> Result<(Arc<Schema>, Arc<Vec<TensorPlace>>)> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Tables { schemas, places: others, bytes } = &mut *tables;
        let before = *bytes;
        let schema_bytes = schema.tensors().iter().map(tensor_bytes).sum();
        let schema = once(schemas, hash(schema.tensors()), schema, schema_bytes, bytes);
        let place_bytes = (size_of::<TensorPlace>() * places.len()) as u64;
        let places = once(others, hash(&places), places, place_bytes, bytes);
        if *bytes > TABLES_BYTES_MAX && *bytes > before {
            return Err(Error::data(format!(
                "{location} has other tensors than the ingredients before it, and what is known of all of them takes more than {} MiB: \
                 are they of one model?",
                TABLES_BYTES_MAX >> 20
            )));
        }
        Ok((schema, places))
    }
}

/// Memory of a tensor in a table.
pub(crate) fn tensor_bytes(tensor: &TensorSpec) -> u64 {
    (size_of::<TensorSpec>() + tensor.name.len() + size_of_val(tensor.shape.as_slice()) + size_of::<u64>())
        as u64
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// `value`, or the same one that is there.
fn once<T: PartialEq>(
    all: &mut HashMap<u64, Vec<Arc<T>>>,
    hash: u64,
    value: T,
    value_bytes: u64,
    bytes: &mut u64,
) -> Arc<T> {
    let same = all.entry(hash).or_default();
    if let Some(there) = same.iter().find(|other| ***other == value) {
        return there.clone();
    }
    *bytes += value_bytes;
    let value = Arc::new(value);
    same.push(value.clone());
    value
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use soup_core::schema::Dtype;

    use super::*;

    #[tokio::test]
    async fn headers_are_read_as_far_as_there_are_permits() {
        let own: &'static Semaphore = Box::leak(Box::new(Semaphore::new(64)));
        let first = permit(own, 40 << 10).await.unwrap();
        let mut second = std::pin::pin!(permit(own, 40 << 10));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        drop(second.await.unwrap());
        assert!(permit(own, u64::MAX).await.is_err());
    }

    #[test]
    fn what_says_the_same_is_kept_once_and_what_does_not_within_a_bound() {
        let kept = Kept::default();
        let location = Location::parse("memory://kept").unwrap();
        let table = |name: String, dimension: u64| {
            Schema::new(vec![TensorSpec::new(name, Dtype::U8, [dimension])]).unwrap()
        };
        let places = || vec![TensorPlace { file: 0, offset: 8 }];
        let (one, at) = kept.keep(&location, table("w".into(), 1), places()).unwrap();
        let (same, there) = kept.keep(&location, table("w".into(), 1), places()).unwrap();
        assert!(Arc::ptr_eq(&one, &same) && Arc::ptr_eq(&at, &there));
        let (other, there) = kept.keep(&location, table("w".into(), 2), places()).unwrap();
        assert!(!Arc::ptr_eq(&one, &other) && Arc::ptr_eq(&at, &there));
        let long = |first: char| format!("{first}{}", "n".repeat(300 << 20));
        kept.keep(&location, table(long('a'), 1), places()).unwrap();
        let error = kept.keep(&location, table(long('b'), 1), places()).unwrap_err();
        assert!(error.chain().contains("takes more than 512 MiB"), "{}", error.chain());
    }
}
