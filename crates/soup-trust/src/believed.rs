//! Whether what somebody proved when hands were shaken still holds: connections may go on for longer than certificates and authorities do.
//!
//! A certificate that ends is all that takes a right away again, so a connection must not outlive it. It is looked at now and then with what
//! this process believes at that moment: where an authority was replaced, those that it vouched for have to come with another certificate.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::time::{Instant, Sleep};

use crate::credentials::Credentials;

/// How often that is looked at, and so for how long it may go on at most.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What somebody at the other end of a connection proved.
pub(crate) struct Believed {
    credentials: Credentials,
    chain: Vec<CertificateDer<'static>>,
    look: Pin<Box<Sleep>>,
}

impl Believed {
    /// The certificate of somebody who has shaken hands just now, and what leads from it to an authority; `credentials` are this end's.
    pub(crate) fn new(credentials: Credentials, chain: Vec<CertificateDer<'static>>) -> Believed {
        Believed { credentials, chain, look: Box::pin(tokio::time::sleep(LOOK_EVERY)) }
    }

    /// Why it does not hold any more; whoever asks is woken to ask again.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> Poll<rustls::Error> {
        while self.look.as_mut().poll(cx).is_ready() {
            if let Err(error) = self.credentials.material().check_client(&self.chain, UnixTime::now()) {
                return Poll::Ready(error);
            }
            self.look.as_mut().reset(Instant::now() + LOOK_EVERY);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::HandshakeKind;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::authority::Authority;
    use crate::credentials::Material;
    use crate::identity::{Identity, Role};

    fn authority() -> Authority {
        Authority::with_key("lab", rcgen::KeyPair::generate().unwrap()).unwrap()
    }

    /// One with a certificate for a day.
    fn member(of: &Authority, role: Role) -> Material {
        of.member(&Identity::new("lab", role, "m").unwrap(), 1).unwrap()
    }

    async fn over(believed: &mut Believed, within: Duration) -> bool {
        let over = std::future::poll_fn(|cx| believed.is_over(cx));
        tokio::time::timeout(within, over).await.is_ok()
    }

    #[test]
    fn a_certificate_is_believed_until_it_ends_and_as_long_as_its_authority_is() {
        let lab = authority();
        let (server, client) = (member(&lab, Role::Coordinator), member(&lab, Role::Client));
        let now = UnixTime::now();
        server.check_client(&client.chain, now).unwrap();
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 2 * 24 * 3600));
        let error = server.check_client(&client.chain, later).unwrap_err();
        assert!(crate::verify::has_expired(&error), "{error}");
        member(&authority(), Role::Coordinator).check_client(&client.chain, now).unwrap_err();
        server.check_client(&[], now).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_shaken_hands_is_looked_at_again() {
        let lab = tempfile::tempdir().unwrap();
        let [first, second] =
            ["first", "second"].map(|name| Authority::init(&lab.path().join(name), "lab").unwrap());
        let (server, client) = (lab.path().join("server"), lab.path().join("client"));
        first.issue(Role::Coordinator, "c", &[], 1, &server).unwrap();
        first.issue(Role::Client, "m", &[], 1, &client).unwrap();
        let server_credentials = Credentials::open(&server, &[Role::Coordinator]).unwrap();
        let chain = Credentials::open(&client, &[Role::Client]).unwrap().material().chain.clone();
        let mut believed = Believed::new(server_credentials, chain);
        assert!(!over(&mut believed, 100 * LOOK_EVERY).await);
        // Another authority: whom the first one vouched for is believed no more.
        std::fs::remove_dir_all(&server).unwrap();
        second.issue(Role::Coordinator, "c", &[], 1, &server).unwrap();
        // Files are looked at once a second by the system's clock, which does not stand still.
        std::thread::sleep(Duration::from_millis(1100));
        assert!(over(&mut believed, 2 * LOOK_EVERY).await);
    }

    #[tokio::test]
    async fn nobody_comes_back_without_showing_a_certificate() {
        let lab = authority();
        let server = member(&lab, Role::Coordinator);
        // One that keeps whatever a server gives it to come back with.
        let client = Arc::new(member(&lab, Role::Client).client(Role::Coordinator).unwrap());
        for _ in 0..3 {
            let (near, far) = tokio::io::duplex(64 << 10);
            let name = ServerName::try_from("localhost").unwrap();
            let (accepted, connected) = tokio::join!(
                TlsAcceptor::from(server.server.clone()).accept(far),
                TlsConnector::from(client.clone()).connect(name, near),
            );
            let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
            // What it could come back with comes before the first byte.
            accepted.write_all(b"x").await.unwrap();
            accepted.flush().await.unwrap();
            connected.read_exact(&mut [0]).await.unwrap();
            assert_eq!(accepted.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}
