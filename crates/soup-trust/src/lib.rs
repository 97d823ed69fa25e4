//! Who is who in a cluster, what each may do, and the connections on which that holds.
//!
//! # Words
//!
//! - A *cluster* is a name; its members have certificates of one *authority* ([`authority`]) which say the cluster, a *role* and a
//!   name: an [`Identity`]. There is nothing else by which anybody is known: not an address, not what somebody says.
//! - A member's *credentials* ([`Credentials`]) are three files in one folder, under the names that Kubernetes gives them:
//!   `ca.crt`, `tls.crt`, `tls.key`.
//! - A *token* ([`token`]) is one secret that makes whoever has it a member: for clusters where all trust each other.
//! - A *caller* ([`Caller`]) is who a request comes from, as the connection proves it.
//! - A *ticket* ([`ticket`]) is what a worker shows its peers: that it takes part in this incarnation of this run.
//!
//! # Flow
//!
//! A server takes connections through [`listen`]: so many at a time, each of which has to shake hands and to say something within
//! seconds. A client opens them through [`Dialer`], which wants a certain role at the other end; inside one process there is a network that nobody else can reach ([`InProcess`]). On the server, one layer ([`Gate`])
//! looks each request's method up in one table ([`rights`]) before anybody reads it, and hands the [`Caller`] on; the next one ([`Intake`])
//! bounds what requests may take and how long replies may lie there unread.
//!
//! Without credentials all of this speaks plain text and lets everybody do everything; whether that is wanted is asked where
//! addresses are known ([`plain_beyond_loopback`]).

mod ahead;
pub mod authority;
mod believed;
mod credentials;
mod cryptography;
mod dial;
mod gate;
mod identity;
mod idle;
mod in_process;
mod intake;
mod listen;
pub mod rights;
mod shares;
pub mod ticket;
pub mod token;
mod unread;
mod verify;

pub use crate::credentials::{AUTHORITY_FILE, CERTIFICATE_FILE, Credentials, KEY_FILE};
pub use crate::dial::{Connect, Dialer, plain_beyond_loopback};
pub use crate::gate::{Gate, Policy};
pub use crate::identity::{Identity, Role};
pub use crate::in_process::{InProcess, Listener};
pub use crate::intake::{Intake, Sizes};
pub use crate::listen::{Connection, Peer, connections_max, listen};
pub use crate::rights::Caller;
pub use crate::unread::Held;
