//! What decoding may take: bytes are claimed for what a file *says* it unpacks to, before any of them is allocated.
//!
//! One budget is shared by all threads of a worker. Whoever claims what is not free waits in line for others to be done, so that threads
//! take turns instead of adding up. What could never fit is refused, by name, with the sizes and what to do about it.
//!
//! There are two halves, so that nobody waits for what he keeps from others: one for what samples are stored in (files, pages of tables,
//! dictionaries), which is kept while they are decoded, and one for pixels, which is claimed for one image after the other by whoever has
//! the first. A claim on the first may have to grow, since a page is only known when it is come to. That never waits: who cannot grow gives
//! back everything and begins again with more ([`Budget::reading`]).

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use soup_core::{Error, Result};

/// What decoding may take, in bytes. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    stored: Arc<Half>,
    pixels: Arc<Half>,
}

#[derive(Debug)]
struct Half {
    bytes_max: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    /// Whose turn it is to take, and the number of the next one who comes: in line, so that small claims do not starve large ones.
    turn: u64,
    next: u64,
}

/// Bytes that are taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    half: Arc<Half>,
    bytes: u64,
}

/// How many times what pixels have one text may take while tokens are made of it, or a tokenizer while it is read: a quarter of a worker's memory,
/// for a moment, and no two such at once. A tenth would refuse texts that people have.
const TEXT_TIMES: u64 = 5;

/// Why something was not done: it takes more than there is. With less at a time it may fit.
#[derive(Debug)]
pub(crate) struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "workers decode in a tenth of their --memory, half of that for pixels: give them more, or store smaller images and pages",
        )
    }
}

impl std::error::Error for TooMuch {}

impl Default for Budget {
    /// One that nothing exceeds.
    fn default() -> Self {
        Budget::new(u64::MAX)
    }
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes_max: u64) -> Budget {
        let half =
            || Arc::new(Half { bytes_max: bytes_max / 2, state: Mutex::default(), changed: Condvar::new() });
        Budget { stored: half(), pixels: half() }
    }

    /// Takes what one image needs while it is decoded; `what` names it and its size. Blocks until that is free.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is more than there ever is.
    pub(crate) fn pixels(&self, what: impl FnOnce() -> String, bytes: u64) -> Result<Claim> {
        self.pixels.take(what, bytes)
    }

    /// Takes what one text needs while tokens are made of it, where there are no pixels; `what` names it and its size. Blocks until that is
    /// free, and where it is more than there is, until nobody else has any of it.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is many times what there is.
    pub(crate) fn text(&self, what: impl FnOnce() -> String, bytes: u64) -> Result<Claim> {
        self.for_a_moment(bytes, |wanted, max| {
            format!(
                "{} may take {wanted} to make tokens of, and this worker has {max} for that, a quarter of its --memory: give it more, or cut \
                 the text",
                what()
            )
        })
    }

    /// The same of what a `tokenizer.json` needs while it is read.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn tokenizer(&self, bytes: u64) -> Result<Claim> {
        self.for_a_moment(bytes, |wanted, max| {
            format!(
                "tokenizer.json may take {wanted} while it is read, and this worker has {max} for that, a quarter of its --memory: give it \
                 more, or use a tokenizer of a smaller vocabulary"
            )
        })
    }

    fn for_a_moment(&self, bytes: u64, refusal: impl FnOnce(String, String) -> String) -> Result<Claim> {
        let max = self.pixels.bytes_max;
        if bytes.div_ceil(TEXT_TIMES) > max {
            let text = refusal(mebibytes(bytes), mebibytes(max.saturating_mul(TEXT_TIMES)));
            return Err(Error::data(text));
        }
        self.pixels.take(|| "a text".to_owned(), bytes.min(max))
    }

    /// Does `read`, which says of everything that it is about to unpack how much that is, and gives what was taken for all of it.
    /// `bytes` are known beforehand. Blocks until as much is free as was asked for.
    ///
    /// # Errors
    /// Those of `read`; [`Data`](soup_core::ErrorKind::Data) caused by [`TooMuch`] where it takes more than there ever is.
    pub(crate) fn reading<T>(
        &self,
        what: impl Fn() -> String,
        bytes: u64,
        read: impl Fn(&Reading) -> Result<T>,
    ) -> Result<(T, Claim)> {
        let mut wanted = bytes;
        loop {
            let claim = self.stored.take(&what, wanted)?;
            let reading =
                Reading(Arc::new(Mutex::new(Growing { claim: Some(claim), used: bytes, lacking: None })));
            let result = read(&reading);
            let mut growing = reading.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing is unpacked any more.
            let Some(mut claim) = growing.claim.take() else {
                return Err(Error::internal("what was claimed is gone"));
            };
            let used = growing.used;
            match growing.lacking {
                // The next attempt has more than this one came to, so they end.
                Some(lacking) if lacking <= self.stored.bytes_max => {
                    wanted = lacking.saturating_add(lacking / 2).min(self.stored.bytes_max);
                }
                Some(lacking) => return Err(self.stored.too_much(what(), lacking)),
                None => {
                    claim.shrink(used);
                    return result.map(|read| (read, claim));
                }
            }
        }
    }
}

/// What is claimed while something is read. Clones are the same.
#[derive(Clone)]
pub(crate) struct Reading(Arc<Mutex<Growing>>);

struct Growing {
    /// Nothing once the reading is over.
    claim: Option<Claim>,
    /// What was asked for so far.
    used: u64,
    /// What would have been needed where it was not to be had.
    lacking: Option<u64>,
}

impl Reading {
    /// Whether `bytes` more may be unpacked. After a no, whoever reads has to stop: it is asked again if that may help.
    #[must_use]
    pub(crate) fn may(&self, bytes: u64) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Growing { claim, used, lacking } = &mut *state;
        let Some(claim) = claim else { return false };
        *used = used.saturating_add(bytes);
        let missing = used.saturating_sub(claim.bytes);
        if missing > 0 && !claim.grow(missing) {
            *lacking = Some(*used);
        }
        lacking.is_none()
    }
}

impl Half {
    fn too_much(&self, what: String, bytes: u64) -> Error {
        Error::data(format!(
            "{what} takes {} to decode, and this worker has {} for that",
            mebibytes(bytes),
            mebibytes(self.bytes_max)
        ))
        .with_source(TooMuch)
    }

    fn take(self: &Arc<Half>, what: impl FnOnce() -> String, bytes: u64) -> Result<Claim> {
        if bytes > self.bytes_max {
            return Err(self.too_much(what(), bytes));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.next;
        state.next += 1;
        while state.turn != mine || state.taken > self.bytes_max - bytes {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turn += 1;
        state.taken += bytes;
        drop(state);
        self.changed.notify_all();
        Ok(Claim { half: self.clone(), bytes })
    }
}

impl Claim {
    /// Takes more, where it is free.
    fn grow(&mut self, more: u64) -> bool {
        let mut state = self.half.state.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.half.bytes_max - state.taken;
        if more <= free {
            state.taken += more;
            self.bytes += more;
        }
        more <= free
    }

    /// Gives back what is beyond `bytes`.
    fn shrink(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        self.half.state.lock().unwrap_or_else(PoisonError::into_inner).taken -= back;
        self.half.changed.notify_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Whether an error says that something takes more than there is.
pub(crate) fn is_too_much(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooMuch>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn pixels(budget: &Budget, bytes: u64) -> Result<Claim> {
        budget.pixels(|| "image".to_owned(), bytes)
    }

    #[test]
    fn what_never_fits_is_refused_with_the_sizes() {
        let budget = Budget::new(20 * MIB);
        let error = pixels(&budget, 10 * MIB + MIB / 2).unwrap_err();
        assert!(error.chain().starts_with(
            "image takes 10.5 MiB to decode, and this worker has 10.0 MiB for that: workers decode in"
        ));
        assert!(is_too_much(&error.context("row 3")) && !is_too_much(&Error::data("x")));
        assert!(pixels(&budget, 10 * MIB).is_ok());
        assert!(pixels(&Budget::default(), 1 << 60).is_ok());
    }

    #[test]
    fn a_text_may_take_more_than_there_is_where_it_is_alone() {
        let budget = Budget::new(20 * MIB);
        let text = |bytes: u64| budget.text(|| "a text of 3 bytes".to_owned(), bytes);
        let error = text(50 * MIB + 1).unwrap_err().chain();
        assert!(error.starts_with("a text of 3 bytes may take 50.0 MiB to make tokens of"), "{error}");
        let whole = text(50 * MIB).unwrap();
        assert_eq!(budget.pixels.state.lock().unwrap().taken, 10 * MIB);
        drop(whole);
        let small = [text(4 * MIB).unwrap(), text(6 * MIB).unwrap()];
        assert_eq!(budget.pixels.state.lock().unwrap().taken, 10 * MIB);
        drop(small);
        assert_eq!(budget.pixels.state.lock().unwrap().taken, 0);
        Budget::default().text(String::new, 1 << 60).unwrap();
    }

    #[test]
    fn two_threads_wait_for_each_other_instead_of_adding_up() {
        let budget = Budget::new(20 * MIB);
        let first = pixels(&budget, 6 * MIB).unwrap();
        let (done, waits) = mpsc::channel();
        let other = budget.clone();
        let second = std::thread::spawn(move || {
            let claim = pixels(&other, 6 * MIB).unwrap();
            done.send(()).unwrap();
            drop(claim);
        });
        // In line for what it waits for; then there is nothing that could have let it through.
        while budget.pixels.state.lock().unwrap().next < 2 {
            std::thread::yield_now();
        }
        assert_eq!(budget.pixels.state.lock().unwrap().taken, 6 * MIB);
        waits.try_recv().unwrap_err();
        drop(first);
        waits.recv().unwrap();
        second.join().unwrap();
        assert_eq!(budget.pixels.state.lock().unwrap().taken, 0);
    }

    #[test]
    fn who_cannot_grow_gives_back_what_he_has_and_begins_again_with_more() {
        let budget = Budget::new(20 * MIB);
        let other = Mutex::new(Some(budget.stored.take(String::new, 6 * MIB).unwrap()));
        let mut attempts = Mutex::new(0);
        let read = |reading: &Reading| {
            *attempts.lock().unwrap() += 1;
            if !(reading.may(2 * MIB) && reading.may(5 * MIB)) {
                // Whoever holds the rest is done meanwhile; had this one waited for that, nobody would ever be.
                other.lock().unwrap().take();
                return Err(Error::data("no"));
            }
            Ok(7)
        };
        let (read, claim) = budget.reading(|| "page".to_owned(), MIB, read).unwrap();
        assert_eq!((read, claim.bytes, *attempts.get_mut().unwrap()), (7, 8 * MIB, 2));
        drop(claim);
        let never = budget.reading(
            || "page".to_owned(),
            0,
            |reading| match reading.may(11 * MIB) {
                true => Ok(()),
                false => Err(Error::data("no")),
            },
        );
        let never = never.unwrap_err();
        assert!(is_too_much(&never) && never.chain().starts_with("page takes 11.0 MiB"), "{}", never.chain());
        assert_eq!(budget.stored.state.lock().unwrap().taken, 0);
    }
}
