//! Output files are read back before they are published.
//!
//! Whoever writes a file digests what it means to write. What lies in the store in the end may be something else: memories, disks and
//! networks change bytes, and a worker can be wrong in what it says. So each file that was written is *read back* by another worker, where
//! there is one, and what that finds has to be what its writer said. Otherwise nobody can tell which of the two is right: the file is
//! written again, and read again, both by others where there are some; after a few times that ends the run.

use std::collections::BTreeSet;

use super::{Action, BTreeMap, Error, FileDigest, Machine, Underway, Work, WorkerId};

/// How often what was read of one file may differ from what was written, before that ends the run.
const DIFFERED_MAX: u32 = 3;

/// Which files were read back.
#[derive(Debug, Default)]
pub(super) struct ReadingBack {
    files: BTreeMap<u32, File>,
}

/// One that was written.
#[derive(Debug, Default)]
struct File {
    /// Who wrote what lies there now.
    writer: Option<WorkerId>,
    /// Whether that was read back.
    done: bool,
    /// Who wrote or read it when the two differed.
    writers: BTreeSet<WorkerId>,
    readers: BTreeSet<WorkerId>,
    differed: u32,
}

impl ReadingBack {
    /// A file was written.
    pub(super) fn written(&mut self, file: u32, writer: WorkerId) {
        let file = self.files.entry(file).or_default();
        (file.writer, file.done) = (Some(writer), false);
    }

    /// Whether a file that was written was read back since.
    pub(super) fn is_done(&self, file: u32) -> bool {
        self.files.get(&file).is_some_and(|file| file.done)
    }

    /// How little `worker` suits for `work`, by what it has to do with the file. `failed`: somebody cannot do this work at all.
    fn against(&self, work: &Work, worker: WorkerId, failed: bool) -> u32 {
        let file = |file: &u32| self.files.get(file);
        match work {
            Work::Write(_, f) => file(f).map_or(0, |file| u32::from(file.writers.contains(&worker))),
            Work::ReadBack(f) => file(f).map_or(0, |file| {
                let wrote = file.writer == Some(worker);
                // Whoever wrote a file can reach it: not everybody may.
                let reaches = u32::from(if failed { !wrote } else { wrote });
                2 * reaches + u32::from(file.readers.contains(&worker))
            }),
            _ => 0,
        }
    }
}

impl Machine {
    /// Whether every file that was written was read back.
    pub(super) fn all_read_back(&self) -> bool {
        (0..self.plan.files).all(|file| self.reading_back.is_done(file))
    }

    /// What is to be read back.
    pub(super) fn read_back_works(&self) -> impl Iterator<Item = Work> {
        let files = (0..self.plan.files).filter(|file| !self.reading_back.is_done(*file));
        files.filter(|file| self.writing.is_written(*file)).map(Work::ReadBack)
    }

    /// Tells how many files were read back, once all are written.
    pub(super) fn tell_of_reading_back(&self, out: &mut Vec<Action>) {
        let files = self.plan.files as usize;
        let done = (0..self.plan.files).filter(|file| self.reading_back.is_done(*file)).count();
        // When the last one is done so is the run.
        if self.writing.all_files() && done < files {
            out.push(Action::underway(Underway::ReadingBack, (done, files)));
        }
    }

    /// Whether no other worker suits better for `work`, by what they have to do with the file.
    pub(super) fn suits(&self, work: &Work, worker: WorkerId) -> bool {
        let failed = self.tasks.has_failed(work);
        let mine = self.reading_back.against(work, worker, failed);
        let better = |other: WorkerId| self.reading_back.against(work, other, failed) < mine;
        mine == 0 || !self.able_to(work).any(better)
    }

    /// A worker has read a file back.
    pub(super) fn read_back(
        &mut self,
        reader: WorkerId,
        file: u32,
        found: (u64, [u8; 32]),
        out: &mut Vec<Action>,
    ) {
        let Some(FileDigest { bytes, file_sha256, .. }) = self.writing.digest_of(file) else { return };
        let state = self.reading_back.files.entry(file).or_default();
        if (bytes, file_sha256) == found {
            state.done = true;
            return self.tell_of_reading_back(out);
        }
        state.differed += 1;
        state.readers.insert(reader);
        state.writers.extend(state.writer);
        let writer = state.writer.unwrap_or(reader);
        let text = format!(
            "output file {} of {}: worker {} wrote {bytes} bytes of SHA-256 {}, and worker {} read {} of {} there",
            file + 1,
            self.plan.files,
            writer.0,
            hex::encode(file_sha256),
            reader.0,
            found.0,
            hex::encode(found.1)
        );
        if state.differed >= DIFFERED_MAX {
            let text = format!(
                "{text}, {DIFFERED_MAX} times in a row: memory, a disk or the way to it changes bytes"
            );
            return self.finish(Err(Error::unavailable(text)), out);
        }
        self.note(format!("{text}: it is written again"), out);
        self.writing.unwritten(file);
    }
}
