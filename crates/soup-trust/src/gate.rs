//! The one place where a server decides whether somebody may ask for what they ask for.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::credentials::Credentials;
use crate::identity::Identity;
use crate::listen::Peer;
use crate::rights::{Caller, may_call};

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Everybody, to everything: in one process, or in plain text.
    Everybody,
    /// Members of this cluster, to what their roles allow.
    Members(String),
}

/// The layer of a server: denies a request, with one line in the log, or hands it on with its [`Caller`].
#[derive(Clone, Debug)]
pub struct Gate {
    policy: Policy,
}

impl Gate {
    /// A gate with a policy.
    #[must_use]
    pub fn new(policy: Policy) -> Gate {
        Gate { policy }
    }
}

impl Policy {
    /// The members of a server's own cluster; everybody without credentials.
    #[must_use]
    pub fn of(credentials: Option<&Credentials>) -> Policy {
        credentials.map_or(Policy::Everybody, |own| Policy::Members(own.identity().cluster))
    }

    /// Who calls `path`.
    ///
    /// # Errors
    /// Why they may not.
    fn caller(&self, peer: Option<&Peer>, path: &str) -> Result<Caller, String> {
        let Policy::Members(cluster) = self else { return Ok(Caller::Anybody) };
        let member: &Identity = match peer.map(|peer| &peer.member) {
            Some(Some(member)) => member,
            _ => return Err("the certificate names no member of a cluster".to_owned()),
        };
        if member.cluster != *cluster {
            return Err(format!(
                "this is cluster {cluster:?}, and the certificate is for {:?}",
                member.cluster
            ));
        }
        match may_call(member.role, path) {
            true => Ok(Caller::Member(member.clone())),
            false => Err(format!("this is not for the role {}", member.role.name())),
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { policy: self.policy.clone(), inner }
    }
}

/// A service behind a gate.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    policy: Policy,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let peer = request.extensions().get::<Peer>();
        match self.policy.caller(peer, path) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(why) => {
                let address = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
                let who =
                    peer.and_then(|peer| peer.member.as_ref()).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(who, address, what = path, why, "denied");
                Either::Right(ready(Ok(Status::permission_denied(why).into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    fn peer(cluster: &str, role: Role) -> Peer {
        Peer::of_member(Identity::new(cluster, role, "m").unwrap())
    }

    const WORK: &str = "/soup.v1.Coordinator/Work";

    #[test]
    fn members_may_what_their_roles_allow() {
        let policy = Policy::Members("lab".to_owned());
        let worker = peer("lab", Role::Worker);
        assert!(
            matches!(policy.caller(Some(&worker), WORK), Ok(Caller::Member(m)) if m.role == Role::Worker)
        );
        for (peer, path, why) in [
            (Some(peer("lab", Role::Client)), WORK, "not for the role client"),
            (Some(peer("bal", Role::Worker)), WORK, "is for \"bal\""),
            (Some(peer("lab", Role::Worker)), "/soup.v1.Coordinator/Submit", "not for the role worker"),
            (Some(peer("lab", Role::Admin)), "/soup.v1.Coordinator/Other", "not for the role admin"),
            (Some(Peer::of_nobody()), WORK, "names no member"),
            (None, WORK, "names no member"),
        ] {
            let denied = policy.caller(peer.as_ref(), path).unwrap_err();
            assert!(denied.contains(why), "{denied}");
        }
    }

    #[test]
    fn where_nobody_is_told_from_anybody_everybody_may() {
        assert_eq!(Policy::Everybody.caller(None, WORK), Ok(Caller::Anybody));
    }
}
