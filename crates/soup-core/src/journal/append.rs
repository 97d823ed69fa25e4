//! What the outcome of an append means. Shared by the code that appends and by the model that checks every interleaving.
//!
//! An append creates the object of the next number, if there is none. Stores answer such a request in ways that do not say
//! what happened: "exists" may be our own write whose answer was lost, or (S3's 409) nothing at all. So anything but a
//! plain success is answered by reading the slot back and comparing put ids.

/// What the store said to create-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Put {
    /// It was created.
    Created,
    /// There is one already, says the store.
    Exists,
    /// An error, or no answer: it may or may not have been created, and may still be.
    Unknown,
}

/// What an append does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The record is durable.
    Durable,
    /// Read the slot.
    Read,
    /// Put the same record again.
    Retry,
    /// Somebody else owns the run: stop, and touch nothing else.
    Fenced,
}

/// After a put.
pub fn after_put(put: Put) -> Next {
    match put {
        Put::Created => Next::Durable,
        Put::Exists | Put::Unknown => Next::Read,
    }
}

/// After reading the slot: `found` is the put id of the record there, if there is one.
pub fn after_read<Id: PartialEq + ?Sized>(ours: &Id, found: Option<&Id>) -> Next {
    match found {
        Some(id) if id == ours => Next::Durable,
        Some(_) => Next::Fenced,
        None => Next::Retry,
    }
}

/// The epoch that a claim on a log of highest epoch `seen` asks for.
pub fn next_epoch(seen: u64) -> u64 {
    seen + 1
}
