//! Digests of streams of bytes, and of several at once on one thread.
//!
//! A step of SHA-256 needs the one before it, so that a processor with instructions for it mostly waits for them: two streams in
//! turns take hardly longer than one. Streams are digested in pairs where the processor has those instructions
//! (`digests/sha_ni.rs`), and one by one elsewhere. Digests are the same. BLAKE3 does not wait: it digests many parts of one stream side by
//! side.

#[cfg(target_arch = "x86_64")]
mod sha_ni;

use sha2::{Digest, Sha256};
use soup_core::digest::DigestKind;

/// The digest of a stream, in progress.
pub(crate) enum Hasher {
    /// By SHA-256.
    Sha256(Sha256),
    /// By BLAKE3; its state is large.
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Of a stream of which nothing has come.
    pub(crate) fn new(kind: DigestKind) -> Hasher {
        match kind {
            DigestKind::Sha256 => Hasher::Sha256(Sha256::new()),
            DigestKind::Blake3 => Hasher::Blake3(Box::default()),
        }
    }

    /// Takes what comes next.
    pub(crate) fn update(&mut self, part: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(part),
            Hasher::Blake3(hash) => drop(hash.update(part)),
        }
    }

    /// The digest of all that came.
    pub(crate) fn finish(self) -> [u8; 32] {
        match self {
            Hasher::Sha256(hash) => hash.finalize().into(),
            Hasher::Blake3(hash) => hash.finalize().into(),
        }
    }
}

/// The digests of several streams, in progress.
pub(crate) enum Digests {
    Single(Vec<Hasher>),
    #[cfg(target_arch = "x86_64")]
    Paired(sha_ni::ShaNi, Vec<sha_ni::Stream>),
}

impl Digests {
    /// Of so many streams, of which nothing has come.
    pub(crate) fn new(kind: DigestKind, streams: usize) -> Digests {
        #[cfg(target_arch = "x86_64")]
        if let (DigestKind::Sha256, Some(sha_ni)) = (kind, sha_ni::ShaNi::detect()) {
            return Digests::Paired(sha_ni, vec![sha_ni::Stream::default(); streams]);
        }
        Digests::Single((0..streams).map(|_| Hasher::new(kind)).collect())
    }

    /// Takes what comes next of each stream.
    pub(crate) fn update(&mut self, parts: &[&[u8]]) {
        match self {
            Digests::Single(hashes) => {
                hashes.iter_mut().zip(parts).for_each(|(hash, part)| hash.update(part));
            }
            #[cfg(target_arch = "x86_64")]
            Digests::Paired(sha_ni, streams) => {
                for (streams, parts) in streams.chunks_mut(2).zip(parts.chunks(2)) {
                    match (streams, parts) {
                        ([a, b], [part_a, part_b]) => sha_ni.update_two([a, b], [part_a, part_b]),
                        ([a, ..], [part_a, ..]) => sha_ni.update(a, part_a),
                        _ => {}
                    }
                }
            }
        }
    }

    /// The digests of all that came.
    pub(crate) fn finish(self) -> Vec<[u8; 32]> {
        match self {
            Digests::Single(hashes) => hashes.into_iter().map(Hasher::finish).collect(),
            #[cfg(target_arch = "x86_64")]
            Digests::Paired(sha_ni, streams) => streams.into_iter().map(|s| sha_ni.finish(s)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Streams that come in parts, each stream's parts of other lengths.
    fn check(streams: &[Vec<Vec<u8>>]) {
        let sha256 = |bytes: Vec<u8>| Sha256::digest(bytes).into();
        check_by(DigestKind::Sha256, &sha256, streams);
        check_by(DigestKind::Blake3, &|bytes| blake3::hash(&bytes).into(), streams);
    }

    fn check_by(kind: DigestKind, whole: &dyn Fn(Vec<u8>) -> [u8; 32], streams: &[Vec<Vec<u8>>]) {
        let mut digests = Digests::new(kind, streams.len());
        let parts = streams.iter().map(Vec::len).max().unwrap_or(0);
        for part in 0..parts {
            let parts: Vec<&[u8]> = streams.iter().map(|s| s.get(part).map_or(&[][..], |p| p)).collect();
            digests.update(&parts);
        }
        let expect: Vec<[u8; 32]> = streams.iter().map(|s| whole(s.concat())).collect();
        assert_eq!(digests.finish(), expect);
    }

    fn bytes(count: usize, seed: usize) -> Vec<u8> {
        (0..count).map(|i| (i * 31 + seed * 101 + i / 257) as u8).collect()
    }

    /// Around the ends of blocks, and where padding takes one more.
    #[test]
    fn every_length_has_its_digest() {
        for length in 0..=260 {
            check(&[vec![bytes(length, 1)], vec![bytes(length, 2)], vec![bytes(length, 3)]]);
            check(&[vec![bytes(length, 1)], vec![bytes(260 - length, 2)]]);
        }
        check(&[]);
    }

    #[test]
    fn long_streams_have_their_digest() {
        let parts = |seed| vec![bytes(200_003, seed), bytes(65_536, seed + 1), bytes(99, seed + 2)];
        check(&[parts(1), parts(5), parts(9)]);
    }

    proptest! {
        #[test]
        fn however_streams_come_their_digests_are_the_same(
            lengths in prop::collection::vec(prop::collection::vec(prop_oneof![0usize..9, 55usize..75, 100usize..700], 0..6), 0..6),
        ) {
            let stream = |(seed, lengths): (usize, &Vec<usize>)| -> Vec<Vec<u8>> {
                lengths.iter().map(|&length| bytes(length, seed)).collect()
            };
            check(&lengths.iter().enumerate().map(stream).collect::<Vec<_>>());
        }
    }
}
