//! What a worker shows a peer before it is given anything of a run: that the coordinator counts it among the run's workers now.
//!
//! The coordinator makes a key for every incarnation of a run and tells it to the workers that take part, with the run. A ticket is an HMAC
//! with that key over run, epoch, the worker's number and the time until which it holds. Whoever has no key cannot make one, and one that
//! was overheard is worth nothing after a while, nor to a run's next incarnation. Workers of one run trust each other: any of them can make
//! tickets in any other's name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use soup_core::{Error, Result};

/// Bytes of a run's key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a ticket's proof.
const MAC_BYTES: usize = 32;
/// How long a ticket holds from when it is made.
const HOLDS: Duration = Duration::from_secs(10 * 60);
/// By how much clocks of workers may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(30 * 60);

/// The key of one incarnation of a run.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What the ticket of a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer<'a> {
    /// The run.
    pub run: &'a str,
    /// Its incarnation.
    pub epoch: u64,
    /// The worker's number with that coordinator.
    pub worker: u64,
}

/// A proof of that, until some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Seconds since 1970 until which it holds.
    pub until: u64,
    /// The HMAC-SHA-256.
    pub mac: Vec<u8>,
}

/// A new run's key.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) where the system has no randomness.
pub fn new_key() -> Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)
        .map_err(|e| Error::internal("the system gives no random bytes").with_source(e))?;
    Ok(key)
}

impl Key {
    /// The key that the coordinator told.
    ///
    /// # Errors
    /// [`Usage`](soup_core::ErrorKind::Usage) for one of another length.
    pub fn new(bytes: &[u8]) -> Result<Key> {
        if bytes.len() != KEY_BYTES {
            return Err(Error::usage(format!("a run's key has {KEY_BYTES} bytes and not {}", bytes.len())));
        }
        Ok(Key(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// A ticket from now on.
    #[must_use]
    pub fn ticket(&self, bearer: Bearer<'_>) -> Ticket {
        let until = (now() + HOLDS).as_secs();
        Ticket { until, mac: hmac::sign(&self.0, &signed(bearer, until)).as_ref().to_vec() }
    }

    /// Whether a ticket is the bearer's, and holds.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) for any other.
    pub fn check(&self, bearer: Bearer<'_>, ticket: &Ticket) -> Result<()> {
        self.check_at(bearer, ticket, now())
    }

    fn check_at(&self, bearer: Bearer<'_>, ticket: &Ticket, now: Duration) -> Result<()> {
        // In constant time, whatever it is compared with.
        let ours = ticket.mac.len() == MAC_BYTES
            && hmac::verify(&self.0, &signed(bearer, ticket.until), &ticket.mac).is_ok();
        if !ours {
            return Err(Error::configuration(format!("the ticket is none of run {:?}", bearer.run)));
        }
        let until = Duration::from_secs(ticket.until);
        if now > until.saturating_add(CLOCKS_DIFFER) || until > now + HOLDS + CLOCKS_DIFFER {
            let text = format!(
                "the ticket does not hold now: the clocks of two workers differ by more than {} minutes, or it is an old one",
                CLOCKS_DIFFER.as_secs() / 60
            );
            return Err(Error::configuration(text));
        }
        Ok(())
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Fixed lengths first, so that no two bearers give the same bytes.
fn signed(bearer: Bearer<'_>, until: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + bearer.run.len());
    for number in [bearer.epoch, bearer.worker, until] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(bearer.run.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEARER: Bearer<'_> = Bearer { run: "r", epoch: 3, worker: 7 };

    #[test]
    fn a_ticket_is_good_for_its_bearer_alone() {
        let key = Key::new(&new_key().unwrap()).unwrap();
        let ticket = key.ticket(BEARER);
        key.check(BEARER, &ticket).unwrap();
        let others =
            [Bearer { run: "q", ..BEARER }, Bearer { epoch: 4, ..BEARER }, Bearer { worker: 8, ..BEARER }];
        for other in others {
            key.check(other, &ticket).unwrap_err();
        }
        let another = Key::new(&new_key().unwrap()).unwrap();
        another.check(BEARER, &ticket).unwrap_err();
        for mac in [vec![], ticket.mac[1..].to_vec(), vec![0; MAC_BYTES], [&ticket.mac[..], &[0]].concat()] {
            key.check(BEARER, &Ticket { mac, ..ticket }).unwrap_err();
        }
        key.check(BEARER, &Ticket { until: ticket.until + 1, ..ticket }).unwrap_err();
    }

    #[test]
    fn a_ticket_ends() {
        let key = Key::new(&[1; KEY_BYTES]).unwrap();
        let ticket = key.ticket(BEARER);
        let until = Duration::from_secs(ticket.until);
        let second = Duration::from_secs(1);
        key.check_at(BEARER, &ticket, until + CLOCKS_DIFFER).unwrap();
        key.check_at(BEARER, &ticket, until + CLOCKS_DIFFER + second).unwrap_err();
        key.check_at(BEARER, &ticket, until - HOLDS - CLOCKS_DIFFER).unwrap();
        key.check_at(BEARER, &ticket, until - HOLDS - CLOCKS_DIFFER - second).unwrap_err();
        // Nor do times that cannot be added to overflow.
        let far =
            Ticket { until: u64::MAX, mac: hmac::sign(&key.0, &signed(BEARER, u64::MAX)).as_ref().to_vec() };
        key.check(BEARER, &far).unwrap_err();
    }

    #[test]
    fn keys_are_not_printed() {
        let key = Key::new(&[0xab; KEY_BYTES]).unwrap();
        assert_eq!(format!("{key:?}"), "Key(…)");
        Key::new(&[0; 31]).unwrap_err();
    }
}
