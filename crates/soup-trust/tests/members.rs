//! Members of clusters that reach each other over TLS, and those that do not.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Ready, ready};
use soup_trust::authority::Authority;
use soup_trust::{Caller, Connect, Credentials, Dialer, Gate, Identity, Policy, Role, listen};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};

const LOCAL: &str = "127.0.0.1";

/// Authorities and members, each in a folder of its own.
struct Lab(TempDir);

impl Lab {
    fn new(clusters: &[&str]) -> Lab {
        let lab = Lab(TempDir::new().unwrap());
        for cluster in clusters {
            Authority::init(&lab.path(cluster), cluster).unwrap();
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn member(&self, cluster: &str, role: Role, name: &str, hosts: &[&str]) -> Credentials {
        let folder = self.issue(cluster, role, name, hosts);
        Credentials::open(&folder, &[role]).unwrap()
    }

    fn issue(&self, cluster: &str, role: Role, name: &str, hosts: &[&str]) -> PathBuf {
        let folder = self.path(&format!("{cluster}-{}-{name}", role.name()));
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Authority::open(&self.path(cluster)).unwrap().issue(role, name, &hosts, 1, &folder).unwrap();
        folder
    }
}

/// A service that answers every request, with who it takes the caller for in a header.
#[derive(Clone)]
struct Who;

impl tonic::server::NamedService for Who {
    const NAME: &'static str = "soup.v1.Coordinator";
}

impl tower_service::Service<http::Request<Body>> for Who {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>().unwrap().clone();
        let who = match caller {
            Caller::Anybody => "anybody".to_owned(),
            Caller::Member(member) => member.uri(),
        };
        let mut response = Status::ok("").into_http();
        response.headers_mut().insert("who", who.parse().unwrap());
        ready(Ok(response))
    }
}

async fn serve(credentials: Option<Credentials>, max: usize) -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let policy = Policy::of(credentials.as_ref());
    let incoming = listen(listener, credentials, max);
    tokio::spawn(Server::builder().layer(Gate::new(policy)).add_service(Who).serve_with_incoming(incoming));
    address
}

/// What a request to a coordinator comes to: who it was taken for, or why not.
async fn ask(to: &str, own: Option<&Credentials>, role: Role, method: &str) -> Result<String, String> {
    let endpoint = Endpoint::from_shared(to.to_owned()).unwrap().connect_timeout(Duration::from_secs(60));
    let dialer = Dialer::new(own.cloned(), false, role);
    let chain = |e: &dyn std::error::Error| {
        let mut text = e.to_string();
        let mut source = e.source();
        while let Some(e) = source {
            text = format!("{text}: {e}");
            source = e.source();
        }
        text
    };
    let mut channel = dialer.connect(&endpoint).await.map_err(|e| chain(&e))?;
    let post = http::Request::post(format!("/soup.v1.Coordinator/{method}")).body(Body::empty()).unwrap();
    std::future::poll_fn(|cx| tonic::client::GrpcService::<Body>::poll_ready(&mut channel, cx))
        .await
        .map_err(|e| chain(&e))?;
    let answer = tonic::client::GrpcService::call(&mut channel, post).await.map_err(|e| chain(&e))?;
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok => {
            Err(format!("{:?}: {}", status.code(), status.message()))
        }
        _ => Ok(answer.headers()["who"].to_str().unwrap().to_owned()),
    }
}

#[tokio::test]
async fn members_are_who_their_certificates_say() {
    let lab = Lab::new(&["lab"]);
    let server = serve(Some(lab.member("lab", Role::Coordinator, "c", &[LOCAL, "localhost"])), 8).await;
    for (role, method) in [(Role::Worker, "Work"), (Role::Client, "Submit"), (Role::Admin, "Cancel")] {
        let member = lab.member("lab", role, "m", &[]);
        for host in [LOCAL, "localhost"] {
            let url = format!("https://{host}:{}", server.port());
            let who = ask(&url, Some(&member), Role::Coordinator, method).await;
            assert_eq!(who, Ok(Identity::new("lab", role, "m").unwrap().uri()));
        }
        let denied =
            ask(&format!("https://{server}"), Some(&member), Role::Coordinator, "Other").await.unwrap_err();
        assert!(denied.contains("PermissionDenied"), "{denied}");
    }
}

#[tokio::test]
async fn whoever_has_the_token_is_a_member_and_nobody_else() {
    let lab = Lab::new(&["lab"]);
    let [own, other] = ["own", "other"].map(|name| lab.path(name));
    for path in [&own, &other] {
        soup_trust::token::init(path).unwrap();
    }
    let of = |path: &Path, role| Credentials::of_token(path, role, "m").unwrap();
    let server = serve(Some(of(&own, Role::Coordinator)), 8).await;
    let url = format!("https://{server}");
    for (role, method) in [(Role::Worker, "Work"), (Role::Admin, "Submit")] {
        let who = ask(&url, Some(&of(&own, role)), Role::Coordinator, method).await.unwrap();
        assert!(who.starts_with("soup://token-") && who.ends_with(&format!("/{}/m", role.name())), "{who}");
    }
    let own_worker = of(&own, Role::Worker);
    // Another token, an authority's certificate, nothing; and a server that is something else.
    for stranger in [of(&other, Role::Admin), lab.member("lab", Role::Admin, "m", &[])] {
        ask(&url, Some(&stranger), Role::Coordinator, "Submit").await.unwrap_err();
    }
    ask(&format!("http://{server}"), None, Role::Coordinator, "Submit").await.unwrap_err();
    let denied = ask(&url, Some(&own_worker), Role::Worker, "Fetch").await.unwrap_err();
    assert!(denied.contains("a worker of cluster"), "{denied}");
    // The token is nowhere in what a stranger is told.
    let token = std::fs::read_to_string(&own).unwrap();
    assert!(!denied.contains(token.trim()));
}

#[tokio::test]
async fn nobody_else_is_let_in() {
    let lab = Lab::new(&["lab", "bal"]);
    let server = serve(Some(lab.member("lab", Role::Coordinator, "c", &[LOCAL])), 8).await;
    let url = format!("https://{server}");
    // Another authority, even of a cluster that is called the same: neither end believes the other.
    let stranger = lab.member("bal", Role::Client, "m", &[]);
    let denied = ask(&url, Some(&stranger), Role::Coordinator, "Submit").await.unwrap_err();
    assert!(denied.contains("UnknownIssuer"), "{denied}");
    let twin = Lab::new(&["lab"]);
    let stranger = twin.member("lab", Role::Client, "m", &[]);
    let denied = ask(&url, Some(&stranger), Role::Coordinator, "Submit").await.unwrap_err();
    assert!(denied.contains("UnknownIssuer") || denied.contains("BadSignature"), "{denied}");
    // One that believes everybody, with a certificate of another authority.
    let trusting = lab.path("trusting");
    std::fs::create_dir(&trusting).unwrap();
    let theirs = lab.path("bal-client-m");
    for file in ["tls.crt", "tls.key"] {
        std::fs::copy(theirs.join(file), trusting.join(file)).unwrap();
    }
    std::fs::copy(lab.path("lab").join("ca.crt"), trusting.join("ca.crt")).unwrap();
    let denied = ask_as_of(&url, &trusting).await.unwrap_err();
    assert!(!denied.contains("soup://"), "{denied}");
    // Plain text to a server of TLS.
    ask(&format!("http://{server}"), None, Role::Coordinator, "Submit").await.unwrap_err();
    // No credentials.
    let denied = ask(&url, None, Role::Coordinator, "Submit").await.unwrap_err();
    assert!(denied.contains("--tls"), "{denied}");
    // Who is no worker does no work, and workers ask for no runs.
    for (role, method) in [(Role::Client, "Work"), (Role::Worker, "Submit"), (Role::Coordinator, "List")] {
        let member = match role {
            Role::Coordinator => lab.member("lab", role, "other", &[]),
            _ => lab.member("lab", role, "m", &[]),
        };
        let denied = ask(&url, Some(&member), Role::Coordinator, method).await.unwrap_err();
        assert!(denied.contains("PermissionDenied") && denied.contains(role.name()), "{denied}");
    }
}

/// With credentials whose certificate is not of the cluster that they believe.
async fn ask_as_of(url: &str, folder: &Path) -> Result<String, String> {
    let own = Credentials::open(folder, &Role::ALL).map_err(|e| e.chain())?;
    ask(url, Some(&own), Role::Coordinator, "Submit").await
}

#[tokio::test]
async fn a_server_has_to_be_the_one_that_is_wanted() {
    let lab = Lab::new(&["lab"]);
    let client = lab.member("lab", Role::Client, "m", &[]);
    // A worker in the coordinator's place.
    let worker = serve(Some(lab.member("lab", Role::Worker, "w", &[LOCAL])), 8).await;
    let denied =
        ask(&format!("https://{worker}"), Some(&client), Role::Coordinator, "Submit").await.unwrap_err();
    assert!(
        denied.contains(
            "it is the worker \"w\" of cluster \"lab\", and a coordinator of cluster \"lab\" is wanted there"
        ),
        "{denied}"
    );
    // The coordinator at another host than its certificate is for.
    let elsewhere =
        serve(Some(lab.member("lab", Role::Coordinator, "c", &["coordinator.lab", "10.0.0.1"])), 8).await;
    let denied =
        ask(&format!("https://{elsewhere}"), Some(&client), Role::Coordinator, "Submit").await.unwrap_err();
    assert!(denied.contains("not valid for name"), "{denied}");
    // One whose certificate names no host is believed by its role.
    let anywhere = serve(Some(lab.member("lab", Role::Coordinator, "d", &[])), 8).await;
    ask(&format!("https://{anywhere}"), Some(&client), Role::Coordinator, "Submit").await.unwrap();
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    let lab = Lab::new(&["lab", "bal"]);
    let folder = lab.issue("lab", Role::Coordinator, "c", &["other.lab"]);
    let server = serve(Some(Credentials::open(&folder, &[Role::Coordinator]).unwrap()), 8).await;
    let client = lab.member("lab", Role::Client, "m", &[]);
    let url = format!("https://{server}");
    let denied = ask(&url, Some(&client), Role::Coordinator, "Submit").await.unwrap_err();
    assert!(denied.contains("not valid for name"), "{denied}");
    let renew = |cluster: &str, role, name: &str| {
        let new = lab.issue(cluster, role, name, &[LOCAL]);
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            std::fs::copy(new.join(file), folder.join(file)).unwrap();
        }
    };
    let answered = async || loop {
        match ask(&url, Some(&client), Role::Coordinator, "Submit").await {
            Ok(_) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    renew("lab", Role::Coordinator, "renewed");
    tokio::time::timeout(Duration::from_secs(20), answered()).await.unwrap();
    // What is no successor is not used, and what cannot be read is not either.
    renew("bal", Role::Coordinator, "renewed");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ask(&url, Some(&client), Role::Coordinator, "Submit").await.unwrap();
    std::fs::write(folder.join("tls.crt"), "half a certif").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ask(&url, Some(&client), Role::Coordinator, "Submit").await.unwrap();
}

#[test]
fn credentials_that_cannot_be_used_are_named() {
    let lab = Lab::new(&["lab"]);
    let folder = lab.issue("lab", Role::Client, "m", &[]);
    let open = |roles: &[Role]| Credentials::open(&folder, roles).err().map(|e| e.chain());
    assert_eq!(open(&[Role::Client, Role::Admin]), None);
    assert!(open(&[Role::Worker]).unwrap().contains("client \"m\" of cluster \"lab\""));
    let key = std::fs::read_to_string(folder.join("tls.key")).unwrap();
    let spoiled = |file: &str, content: &str| {
        let path = folder.join(file);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        let error = open(&[Role::Client]).unwrap();
        std::fs::write(&path, before).unwrap();
        assert!(error.contains(file), "{error}");
        let secret = key.lines().nth(1).unwrap();
        assert!(!error.contains(secret), "{error}");
    };
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        spoiled(file, "");
        spoiled(file, "not PEM");
        spoiled(file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    }
    // A key of another certificate.
    let other = lab.issue("lab", Role::Client, "other", &[]);
    spoiled("tls.key", &std::fs::read_to_string(other.join("tls.key")).unwrap());
    // A certificate that names no member: the authority's own.
    spoiled("tls.crt", &std::fs::read_to_string(folder.join("ca.crt")).unwrap());
    std::fs::remove_file(folder.join("tls.crt")).unwrap();
    assert!(open(&[Role::Client]).unwrap().contains("tls.crt"));
}

#[test]
fn an_authority_overwrites_nothing_and_shows_its_keys_to_nobody() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new(&["lab"]);
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(lab.path("lab/ca.key")), 0o600);
    let before = std::fs::read(lab.path("lab/ca.key")).unwrap();
    assert!(Authority::init(&lab.path("lab"), "lab").err().unwrap().chain().contains("ca.key"));
    assert_eq!(std::fs::read(lab.path("lab/ca.key")).unwrap(), before);
    let folder = lab.issue("lab", Role::Worker, "w", &["node0", "10.0.0.7"]);
    assert_eq!((mode(folder.join("tls.key")), mode(folder.join("tls.crt"))), (0o600, 0o644));
    let authority = Authority::open(&lab.path("lab")).unwrap();
    assert_eq!(authority.cluster(), "lab");
    authority.issue(Role::Worker, "w", &[], 1, &folder).unwrap_err();
    for (name, hosts, days) in
        [("w w", vec![], 1), ("", vec![], 1), ("x", vec!["höst".to_owned()], 1), ("x", vec![], 0)]
    {
        let error = authority.issue(Role::Worker, name, &hosts, days, &lab.path("x")).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Usage, "{}", error.chain());
    }
    assert!(!lab.path("x").exists());
    assert!(Authority::init(&lab.path("y"), "a/b").is_err() && !lab.path("y").exists());
    Authority::open(&folder).err().unwrap();
}

/// Waits until the other end closes.
async fn is_closed(connection: &mut TcpStream) {
    let mut bytes = Vec::new();
    // Reset or ended: both are closed.
    let _ = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut bytes)).await.unwrap();
}

/// Two hundred of them, four at a time, for as long as each may take, would be in the way for longer than anybody waits.
#[tokio::test]
async fn whoever_cannot_shake_hands_makes_room_for_whoever_can() {
    let lab = Lab::new(&["lab"]);
    let client = lab.member("lab", Role::Client, "m", &[]);
    let server = serve(Some(lab.member("lab", Role::Coordinator, "c", &[LOCAL])), 4).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(server).await.unwrap());
    }
    ask(&format!("https://{server}"), Some(&client), Role::Coordinator, "Submit").await.unwrap();
    is_closed(&mut silent[0]).await;
}

#[tokio::test]
async fn whoever_says_nothing_keeps_nobody_out_for_long() {
    let lab = Lab::new(&["lab"]);
    let client = lab.member("lab", Role::Client, "m", &[]);
    for own in [None, Some(lab.member("lab", Role::Coordinator, "c", &[LOCAL]))] {
        let secure = own.is_some();
        let server = serve(own, 4).await;
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(TcpStream::connect(server).await.unwrap());
        }
        let url = format!("{}://{server}", if secure { "https" } else { "http" });
        let asked = ask(&url, secure.then_some(&client), Role::Coordinator, "Submit");
        let waited = tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
        assert!(waited.is_ok(), "{waited:?}");
        for connection in &mut silent {
            is_closed(connection).await;
        }
    }
}
