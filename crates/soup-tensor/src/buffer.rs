//! The shard of one ingredient in host memory, on its way to where it stays.

use sha2::{Digest, Sha256};

/// Bytes in host memory, aligned for every dtype: the shard of one ingredient.
pub struct Buffer {
    words: Vec<u64>,
    bytes: usize,
    /// SHA-256 of the bytes, once taken.
    sha256: Option<[u8; 32]>,
}

impl Buffer {
    /// `bytes` zeros, or `None` where the system refuses the memory.
    pub(crate) fn zeroed(bytes: usize) -> Option<Buffer> {
        let words = bytes.div_ceil(size_of::<u64>());
        // `vec!` gets zeroed pages from the system without touching them, but aborts when refused: ask first.
        Vec::<u64>::new().try_reserve_exact(words).ok()?;
        Some(Buffer { words: vec![0; words], bytes, sha256: None })
    }

    /// A copy, aligned for any element.
    pub(crate) fn copied_from(bytes: &[u8]) -> Buffer {
        let words = vec![0; bytes.len().div_ceil(size_of::<u64>())];
        let mut buffer = Buffer { words, bytes: bytes.len(), sha256: None };
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    /// The bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.sha256 = None;
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

impl Buffer {
    /// Takes the SHA-256 of what was read into it, on this thread; [`ShardMemory::digest`] then has it already.
    pub fn take_digest(&mut self) {
        self.sha256 = Some(self.sha256());
    }

    /// Takes over the SHA-256 of what was read into it, from whoever read it.
    pub fn set_digest(&mut self, sha256: [u8; 32]) {
        self.sha256 = Some(sha256);
    }

    /// SHA-256 of the bytes: the one that was taken, or else it is taken now.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256.unwrap_or_else(|| Sha256::digest(self.bytes()).into())
    }
}
