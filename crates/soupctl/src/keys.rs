//! `soupctl keys`, and the key that a coordinator signs with.

use std::path::Path;

use soup_core::Result;
use soup_store::signing::SigningKey;
use soup_store::state::State;

use crate::args::KeysCommand;
use crate::print;

/// Makes a key.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where there is one already.
pub(crate) fn run(command: KeysCommand) -> Result<()> {
    let KeysCommand::New { file } = command;
    let (key, beside) = SigningKey::create(&file)?;
    print::line(&format!(
        "key {} is in {}, for --signing-key: keep it secret. Its public half is in {}, for --key",
        key.public().id(),
        file.display(),
        beside.display()
    ));
    Ok(())
}

/// `state`, whose coordinator signs with the key in `file`, if one is named.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where that is none, or open to others.
pub(crate) fn signing(state: State, file: Option<&Path>) -> Result<State> {
    let Some(file) = file else { return Ok(state) };
    let key = SigningKey::read(file)?;
    tracing::info!(key = key.public().id(), "what this coordinator writes is signed");
    Ok(state.with_signing_key(key))
}
