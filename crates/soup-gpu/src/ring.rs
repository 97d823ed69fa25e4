//! Large copies between the host and a device, through a few small buffers: while one is copied by the device, the host fills or
//! empties the next.

use std::ops::Range;

use soup_core::Result;

/// Number of buffers.
pub(crate) const SLOTS: usize = 4;
/// Size of each, in bytes.
pub(crate) const SLOT_BYTES: usize = 16 << 20;

/// Buffers that a device copies from and to by itself.
pub(crate) trait Slots {
    /// Bytes of a buffer.
    fn slot_bytes(&self) -> usize;

    /// A buffer that the device does not use.
    fn slot(&mut self, slot: usize) -> &mut [u8];

    /// Begins to copy the beginning of a buffer to the bytes `to` of the device's memory.
    ///
    /// # Errors
    /// Where the device fails.
    fn send(&mut self, slot: usize, to: Range<usize>) -> Result<()>;

    /// Begins to copy the bytes `from` of the device's memory to the beginning of a buffer.
    ///
    /// # Errors
    /// Where the device fails.
    fn receive(&mut self, slot: usize, from: Range<usize>) -> Result<()>;

    /// Waits for the last copy of a buffer, if there was one.
    ///
    /// # Errors
    /// Where the device fails.
    fn wait(&mut self, slot: usize) -> Result<()>;
}

/// Cuts `bytes` bytes into what the buffers take.
fn chunks(bytes: usize, slot_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..bytes).step_by(slot_bytes).map(move |start| start..bytes.min(start + slot_bytes))
}

/// Copies `bytes` bytes to the device, from `start` on: `fill` is asked for them, from an offset on.
///
/// # Errors
/// Where the device fails.
pub(crate) fn upload(
    slots: &mut impl Slots,
    start: usize,
    bytes: usize,
    fill: &mut dyn FnMut(usize, &mut [u8]),
) -> Result<()> {
    for (nth, chunk) in chunks(bytes, slots.slot_bytes()).enumerate() {
        let slot = nth % SLOTS;
        slots.wait(slot)?;
        fill(chunk.start, &mut slots.slot(slot)[..chunk.len()]);
        slots.send(slot, start + chunk.start..start + chunk.end)?;
    }
    (0..SLOTS).try_for_each(|slot| slots.wait(slot))
}

/// Copies `bytes` bytes from the device, from `start` on, and gives them to `take`, each with its offset, in order.
///
/// # Errors
/// Where the device fails.
pub(crate) fn download(
    slots: &mut impl Slots,
    start: usize,
    bytes: usize,
    take: &mut dyn FnMut(usize, &[u8]),
) -> Result<()> {
    let chunks: Vec<Range<usize>> = chunks(bytes, slots.slot_bytes()).collect();
    let mut begun = 0;
    for (nth, chunk) in chunks.iter().enumerate() {
        while begun < chunks.len().min(nth + SLOTS) {
            let chunk = &chunks[begun];
            slots.receive(begun % SLOTS, start + chunk.start..start + chunk.end)?;
            begun += 1;
        }
        let slot = nth % SLOTS;
        slots.wait(slot)?;
        take(chunk.start, &slots.slot(slot)[..chunk.len()]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use soup_core::Error;

    use super::*;

    /// A device whose copies happen when they are waited for, as late as they may.
    struct Late {
        memory: Vec<u8>,
        slots: [[u8; 8]; SLOTS],
        begun: [Option<(bool, Range<usize>)>; SLOTS],
        most: usize,
        fails_after: usize,
    }

    impl Late {
        fn new(memory: Vec<u8>) -> Late {
            Late {
                memory,
                slots: Default::default(),
                begun: Default::default(),
                most: 0,
                fails_after: usize::MAX,
            }
        }

        fn begin(&mut self, slot: usize, to_device: bool, range: Range<usize>) -> Result<()> {
            assert!(self.begun[slot].is_none() && range.len() <= 8 && !range.is_empty());
            if self.fails_after == 0 {
                return Err(Error::unavailable("off"));
            }
            self.fails_after -= 1;
            self.begun[slot] = Some((to_device, range));
            self.most = self.most.max(self.begun.iter().flatten().count());
            Ok(())
        }
    }

    impl Slots for Late {
        fn slot_bytes(&self) -> usize {
            8
        }

        fn slot(&mut self, slot: usize) -> &mut [u8] {
            assert!(self.begun[slot].is_none(), "the device is not done with it");
            &mut self.slots[slot]
        }

        fn send(&mut self, slot: usize, to: Range<usize>) -> Result<()> {
            self.begin(slot, true, to)
        }

        fn receive(&mut self, slot: usize, from: Range<usize>) -> Result<()> {
            self.begin(slot, false, from)
        }

        fn wait(&mut self, slot: usize) -> Result<()> {
            if let Some((to_device, range)) = self.begun[slot].take() {
                let (buffer, memory) = (&mut self.slots[slot][..range.len()], &mut self.memory[range]);
                if to_device { memory.copy_from_slice(buffer) } else { buffer.copy_from_slice(memory) }
            }
            Ok(())
        }
    }

    #[test]
    fn bytes_arrive_whatever_their_number() {
        for bytes in [0, 1, 7, 8, 9, 31, 32, 33, 1000] {
            let data: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
            let mut device = Late::new(vec![0xff; bytes + 10]);
            let mut fill =
                |offset: usize, out: &mut [u8]| out.copy_from_slice(&data[offset..offset + out.len()]);
            upload(&mut device, 3, bytes, &mut fill).unwrap();
            assert_eq!(device.memory[3..3 + bytes], data);
            assert!(device.memory[..3].iter().chain(&device.memory[3 + bytes..]).all(|&b| b == 0xff));
            let mut back = Vec::new();
            let mut take = |offset: usize, part: &[u8]| {
                assert_eq!(offset, back.len());
                back.extend_from_slice(part);
            };
            download(&mut device, 3, bytes, &mut take).unwrap();
            assert_eq!(back, data);
            assert_eq!(device.most, bytes.div_ceil(8).min(SLOTS), "all buffers are used");
            assert!(device.begun.iter().all(Option::is_none), "nothing goes on when it returns");
        }
    }

    #[test]
    fn a_failure_is_told() {
        let mut device = Late::new(vec![0; 1000]);
        device.fails_after = 6;
        assert_eq!(upload(&mut device, 0, 1000, &mut |_, _| ()).unwrap_err().chain(), "off");
        let mut device = Late::new(vec![0; 1000]);
        device.fails_after = 6;
        let mut taken = 0;
        assert!(download(&mut device, 0, 1000, &mut |_, part| taken += part.len()).is_err());
        assert!(taken < 1000);
    }
}
