//! A judge as a program: `soup-judge-under-test [--fault NAME] [--times N] [--notes FILE] [--sums] [--pause MS] [--socket PATH]`. Without
//! `--socket` it is one that a worker starts.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use soup_proto::judge_v1::judge_server::JudgeServer;
use soup_tests::judge::{Fault, Linear, Options};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options::default();
    let mut socket: Option<PathBuf> = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--fault" => options.fault = Some(Fault::named(&value())),
            "--times" => options.times = Some(value().parse().expect("a number")),
            "--notes" => options.notes = Some(value().into()),
            "--pause" => options.pause = Duration::from_millis(value().parse().expect("a number")),
            "--socket" => socket = Some(value().into()),
            "--sums" => options.sums = true,
            other => panic!("{other} is no option"),
        }
    }
    let given = std::env::var_os("SOUP_JUDGE_SOCKET").map(PathBuf::from);
    if options.fault == Some(Fault::Stubborn) {
        stay(&options);
    } else if socket.is_none() {
        std::thread::spawn(|| {
            // The end of what comes in is the end of the worker.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
    }
    let socket = socket.or(given).expect("--socket or SOUP_JUDGE_SOCKET");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListenerStream::new(UnixListener::bind(socket).expect("a socket"));
        let service = JudgeServer::new(Linear::new(options));
        Server::builder().add_service(service).serve_with_incoming(listener).await.expect("a server");
    });
}

/// Starts a process that outlives this one, and ignores being asked to end.
#[allow(clippy::zombie_processes)] // that is what is tried
fn stay(options: &Options) {
    let child = std::process::Command::new("sleep").arg("600").spawn().expect("a process");
    let notes = options.notes.as_deref().expect("--notes");
    let pids = format!("{}\n{}\n", std::process::id(), child.id());
    std::fs::write(notes.with_extension("pids"), pids).expect("a file");
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut term =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
            while term.recv().await.is_some() {}
        });
    });
}
