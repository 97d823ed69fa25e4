//! What systems around a process are told of it: over its admin port as long as it runs, and in one line when it ends.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use soup_admin::{Admin, Watch};
use soup_coordinator::Window;
use soup_core::{Error, Result};

use crate::args::AdminArgs;
use crate::print;

/// Most bytes of a line about how a process ended: what Kubernetes keeps.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What a page shows of the coordinator behind `window`.
pub(crate) fn watch(window: &Window) -> Watch {
    let window = window.clone();
    Arc::new(move || window.watch().boxed())
}

/// Does `work`, and answers operators meanwhile, if they are to be: with a page where there is something to watch.
///
/// # Errors
/// Those of `work`; [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the port cannot be listened on.
pub(crate) async fn beside<T>(
    args: &AdminArgs,
    watch: Option<Watch>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(address) = &args.admin else { return work.await };
    let admin = Admin::listen(address).await?;
    print::line(&format!("operators are answered on http://{}", admin.address()?));
    let answering = admin.serve(watch);
    tokio::select! {
        result = work => result,
        never = answering => { let never: Infallible = never; match never {} }
    }
}

/// Leaves a line about how a process ended in `file`: an error, or what came of it.
pub(crate) fn leave(file: &Path, ended: std::result::Result<&str, &Error>) {
    let line = match ended {
        Ok(line) => line.to_owned(),
        Err(error) => format!("error: {}", error.chain()),
    };
    let line = crate::print::plain(&line);
    let mut end = line.len().min(MESSAGE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    if let Err(error) = std::fs::write(file, &line[..end]) {
        print::line(&format!("warning: {} cannot be written: {error}", file.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_fits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        leave(&file, Ok("the soup is in s3://b/soup"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "the soup is in s3://b/soup");
        leave(&file, Err(&Error::data("é".repeat(MESSAGE_BYTES_MAX))));
        let left = std::fs::read_to_string(&file).unwrap();
        assert!(left.starts_with("error: é") && left.len() <= MESSAGE_BYTES_MAX, "{}", left.len());
    }
}
