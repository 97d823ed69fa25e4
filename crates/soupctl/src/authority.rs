//! `soupctl ca`: a lab's own authority, and certificates of it; or a token instead.

use std::path::PathBuf;

use clap::Subcommand;
use soup_core::Result;
use soup_trust::Role;
use soup_trust::authority::{Authority, DAYS_MAX};

use crate::print;

/// What `ca` does.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Make an authority: a folder with ca.crt, which everybody may have, and ca.key, which stays where it is
    Init {
        /// The cluster that it is the authority of; members of other clusters are refused
        #[arg(long, default_value = "soup", value_name = "NAME")]
        cluster: String,
        /// Folder of the authority
        #[arg(long, default_value = "soup-ca", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Make a token: one file for all members instead of certificates, where all of them may do everything
    Token {
        /// The file
        #[arg(default_value = "soup.token", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Issue a certificate: a folder with ca.crt, tls.crt and tls.key, for --tls of whoever it is for
    Issue {
        /// What it is for: a coordinator, workers, a client with runs of its own, or an admin to whom all runs are its own
        #[arg(value_parser = ["coordinator", "worker", "client", "admin"])]
        role: String,
        /// Name of the member; runs are recorded under that of a client
        name: String,
        /// Names or addresses at which a coordinator or a worker is reached [repeatable]
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// For how many days it holds
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
        /// Folder of the authority
        #[arg(long, default_value = "soup-ca", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Folder of the member [default: its role and name, such as ./client-ada]
        #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
        out: Option<PathBuf>,
    },
}

/// Does it, and says where what is.
///
/// # Errors
/// Those of the authority.
pub(crate) fn run(command: AuthorityCommand) -> Result<()> {
    match command {
        AuthorityCommand::Init { cluster, dir } => {
            let authority = Authority::init(&dir, &cluster)?;
            let folder = dir.display();
            print::line(&format!(
                "{folder} is the authority of cluster {:?}; keep {folder}/ca.key to yourself",
                authority.cluster()
            ));
            Ok(())
        }
        AuthorityCommand::Token { file } => {
            soup_trust::token::init(&file)?;
            print::line(&format!(
                "{} is the token of a cluster: give it as --token-file to every member, and to nobody else",
                file.display()
            ));
            Ok(())
        }
        AuthorityCommand::Issue { role, name, hosts, days, dir, out } => {
            // The parser takes no other names.
            let role = Role::of(&role).unwrap_or(Role::Client);
            let out = out.unwrap_or_else(|| format!("{}-{name}", role.name()).into());
            let identity = Authority::open(&dir)?.issue(role, &name, &hosts, days, &out)?;
            print::line(&format!("{} is for the {identity}: give it as --tls", out.display()));
            if hosts.is_empty() && matches!(role, Role::Coordinator | Role::Worker) {
                print::line(
                    "note: it names no --host, so it is believed wherever it is; workers with it have to be reached at the address that they \
                     connect from",
                );
            }
            Ok(())
        }
    }
}
