//! The shard of one ingredient in host memory, on its way to where it stays.

use soup_core::digest::DigestKind;

use crate::digests::Hasher;

/// Bytes in host memory, aligned for every dtype: the shard of one ingredient.
pub struct Buffer {
    words: Vec<u64>,
    bytes: usize,
    kind: DigestKind,
    /// Of the bytes, once taken.
    digest: Option<[u8; 32]>,
}

impl Buffer {
    /// `bytes` zeros, or `None` where the system refuses the memory.
    pub(crate) fn zeroed(bytes: usize, kind: DigestKind) -> Option<Buffer> {
        let words = bytes.div_ceil(size_of::<u64>());
        // `vec!` gets zeroed pages from the system without touching them, but aborts when refused: ask first.
        Vec::<u64>::new().try_reserve_exact(words).ok()?;
        Some(Buffer { words: vec![0; words], bytes, kind, digest: None })
    }

    /// A copy, aligned for any element.
    pub(crate) fn copied_from(bytes: &[u8]) -> Buffer {
        let words = vec![0; bytes.len().div_ceil(size_of::<u64>())];
        let mut buffer = Buffer { words, bytes: bytes.len(), kind: DigestKind::default(), digest: None };
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    /// The bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.digest = None;
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

impl Buffer {
    /// Takes the digest of what was read into it, on this thread; [`ShardMemory::digest`](crate::ShardMemory::digest) then has it already.
    pub fn take_digest(&mut self) {
        self.digest = Some(self.digest());
    }

    /// Takes over the digest of what was read into it, from whoever saw that.
    pub(crate) fn set_digest(&mut self, digest: [u8; 32]) {
        self.digest = Some(digest);
    }

    /// The digest of the bytes: the one that was taken, or else it is taken now.
    pub fn digest(&self) -> [u8; 32] {
        self.digest.unwrap_or_else(|| {
            let mut hasher = Hasher::new(self.kind);
            hasher.update(self.bytes());
            hasher.finish()
        })
    }
}
