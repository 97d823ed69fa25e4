//! The shard of one ingredient in host memory, on its way to where it stays.

use soup_core::digest::DigestKind;

use memmap2::MmapMut;

use crate::digests::Hasher;

/// From this size on, memory comes from the system directly, in huge pages where it has them: touching fresh pages of 4 KiB
/// takes as long as half of a read from the page cache.
const MAPPED_BYTES_MIN: usize = 4 << 20;

/// Bytes in host memory, aligned for every dtype: the shard of one ingredient.
pub struct Buffer {
    memory: Memory,
    bytes: usize,
    kind: DigestKind,
    /// Of the bytes, once taken.
    digest: Option<[u8; 32]>,
}

/// Whose memory it is.
enum Memory {
    /// The allocator's, aligned for any element.
    Words(Vec<u64>),
    /// The system's; pages are aligned for anything.
    Mapped(MmapMut),
}

impl Memory {
    /// At least `bytes` zeros, which nobody touched yet, or `None` where the system refuses them.
    fn zeroed(bytes: usize) -> Option<Memory> {
        if bytes >= MAPPED_BYTES_MIN {
            let mapped = MmapMut::map_anon(bytes).ok()?;
            // A wish: a system without huge pages gives others.
            #[cfg(target_os = "linux")]
            mapped.advise(memmap2::Advice::HugePage).ok();
            return Some(Memory::Mapped(mapped));
        }
        let words = bytes.div_ceil(size_of::<u64>());
        // `vec!` aborts when refused: ask first.
        Vec::<u64>::new().try_reserve_exact(words).ok()?;
        Some(Memory::Words(vec![0; words]))
    }
}

impl Buffer {
    /// `bytes` zeros, or `None` where the system refuses the memory.
    pub(crate) fn zeroed(bytes: usize, kind: DigestKind) -> Option<Buffer> {
        Some(Buffer { memory: Memory::zeroed(bytes)?, bytes, kind, digest: None })
    }

    /// A copy, aligned for any element.
    pub(crate) fn copied_from(bytes: &[u8]) -> Buffer {
        let memory = Memory::Words(vec![0; bytes.len().div_ceil(size_of::<u64>())]);
        let mut buffer = Buffer { memory, bytes: bytes.len(), kind: DigestKind::default(), digest: None };
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = match &self.memory {
            Memory::Words(words) => bytemuck::cast_slice(words),
            Memory::Mapped(mapped) => mapped,
        };
        &all[..self.bytes]
    }

    /// The bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.digest = None;
        let all: &mut [u8] = match &mut self.memory {
            Memory::Words(words) => bytemuck::cast_slice_mut(words),
            Memory::Mapped(mapped) => mapped,
        };
        &mut all[..self.bytes]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeros_of_its_size_wherever_its_memory_is_from() {
        for bytes in [0, 1, 9, MAPPED_BYTES_MIN - 1, MAPPED_BYTES_MIN, MAPPED_BYTES_MIN + 3] {
            let mut buffer = Buffer::zeroed(bytes, DigestKind::default()).unwrap();
            assert_eq!(buffer.bytes().len(), bytes);
            assert!(buffer.bytes().iter().all(|&b| b == 0));
            assert!(buffer.bytes().as_ptr().cast::<u64>().is_aligned());
            buffer.bytes_mut().fill(7);
            assert!(buffer.bytes().iter().all(|&b| b == 7));
        }
        assert!(Buffer::zeroed(1 << 60, DigestKind::default()).is_none());
    }
}
