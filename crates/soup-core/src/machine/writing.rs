//! The output: which files are written, and what the soup's parameters hash to.

use super::progress::Progress;
use super::{Action, Error, FileDigest, Machine, ReadingBack, Report, Work, WorkerId};

/// What is written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    files: Vec<Option<FileDigest>>,
    data_sha256: Option<[u8; 32]>,
}

impl Writing {
    /// Of so many files, none.
    pub(super) fn of(files: u32) -> Writing {
        Writing { files: vec![None; files as usize], data_sha256: None }
    }

    /// Whether all files are written.
    pub(super) fn all_files(&self) -> bool {
        self.files.iter().all(Option::is_some)
    }

    /// Whether a file is written.
    pub(super) fn is_written(&self, file: u32) -> bool {
        self.digest_of(file).is_some()
    }

    /// What whoever wrote a file said of it.
    pub(super) fn digest_of(&self, file: u32) -> Option<FileDigest> {
        self.files.get(file as usize).copied().flatten()
    }

    /// What lies there is not what was written.
    pub(super) fn unwritten(&mut self, file: u32) {
        if let Some(slot) = self.files.get_mut(file as usize) {
            *slot = None;
        }
    }

    /// The soup's parameters hash to this.
    pub(super) fn digested(&mut self, sha256: [u8; 32]) {
        self.data_sha256 = Some(sha256);
    }
}

impl Machine {
    /// Digests of the output files, once all are written.
    pub fn files(&self) -> Option<Vec<FileDigest>> {
        self.writing.files.iter().copied().collect()
    }

    /// SHA-256 of the soup's flattened parameters, once known.
    pub fn data_sha256(&self) -> Option<[u8; 32]> {
        self.writing.data_sha256
    }

    /// Everything is scored: the output is written.
    pub(super) fn begin_writing(&mut self, out: &mut Vec<Action>) {
        self.progress.go_on(Progress::Writing);
        // What is streamed is told of as it is read.
        if self.plan.files > 0 && !self.plan.streams {
            out.push(Action::Report(Report::Writing {
                written: self.files_written(),
                files: self.plan.files,
            }));
        }
    }

    fn files_written(&self) -> u32 {
        self.writing.files.iter().flatten().count() as u32
    }

    pub(super) fn written(&mut self, writer: WorkerId, file: u32, digest: FileDigest, out: &mut Vec<Action>) {
        let Some(slot) = self.writing.files.get_mut(file as usize) else {
            return self.finish(
                Err(Error::internal(format!("a worker wrote file {file}, which is not planned"))),
                out,
            );
        };
        *slot = Some(digest);
        self.reading_back.written(file, writer);
        if self.plan.files == 1 {
            self.writing.digested(digest.data_sha256);
        }
        out.push(Action::Report(Report::Writing { written: self.files_written(), files: self.plan.files }));
        self.tell_of_reading_back(out);
    }

    /// Whatever was written is written again: another soup, or of other blends.
    pub(super) fn write_again(&mut self) {
        self.writing = Writing::of(self.plan.files);
        self.reading_back = ReadingBack::default();
    }

    pub(super) fn finished_writing(&self) -> bool {
        // Without files there is nothing to write, and nothing to digest.
        let digested = self.plan.files == 0 || self.writing.data_sha256.is_some();
        let writing = matches!(self.progress, Progress::Writing(_));
        let written = self.writing.all_files() && self.all_read_back() && digested && self.streamed_enough();
        writing && written && self.audited_enough()
    }

    /// What is left to write of the chosen soup, once nothing is left to score.
    pub(super) fn writing_works(&self) -> Vec<Work> {
        let Progress::Writing(soup) = &self.progress else { return Vec::new() };
        let open = (0..self.plan.files).filter(|&f| self.writing.files[f as usize].is_none());
        let mut works: Vec<Work> = open.map(|f| Work::Write(soup.clone(), f)).collect();
        works.extend(self.read_back_works());
        // The one file's own digest is the soup's; several files need a pass over all of them.
        // Where blends are not at hand, that is over what was written and read back.
        let before_files = !self.plan.streams || works.is_empty();
        if self.plan.files > 1 && self.writing.data_sha256.is_none() && before_files {
            works.push(Work::Digest(soup.clone()));
        }
        works
    }
}
