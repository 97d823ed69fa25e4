//! The checks over a real S3 API, by HTTP.

use std::sync::atomic::Ordering;

use soup_core::ErrorKind;

use super::journals::state;
use super::{conforms, fails, names};
use crate::s3_fixture::{Habits, Server, bucket};

#[tokio::test]
async fn s3() {
    let (server, root) = Server::start(Habits::default()).await;
    conforms(&root).await;
    assert!(server.conditional_puts.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn s3_that_answers_409_before_anything_is_written() {
    let (_server, root) = Server::start(Habits { conflicts: 2, ..Habits::default() }).await;
    super::journals::conforms(&root.join("state").unwrap()).await;
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused() {
    let (_server, root) = Server::start(Habits { ignores_create: true, ..Habits::default() }).await;
    let refused = state(&root.join("s").unwrap()).probe().await;
    fails(refused, ErrorKind::Configuration, "s3://bucket/s: this store overwrites where it is asked to");
    assert_eq!(names(&root).await, [""; 0], "nothing is left of a probe");
}

#[tokio::test]
async fn a_refusal_is_told_from_a_failure() {
    let (server, _) = Server::start(Habits::default()).await;
    let patience = std::time::Duration::from_secs(3600);
    let refused = state(&bucket(&server.endpoint, "bucket", "unknown", "key")).with_patience(patience);
    fails(refused.probe().await, ErrorKind::Configuration, "state s3://bucket cannot be used");
    // Nobody listens on this port.
    let gone = state(&bucket("http://127.0.0.1:1", "bucket", "a", "b"));
    let gone = gone.with_patience(std::time::Duration::from_millis(300));
    fails(gone.probe().await, ErrorKind::Unavailable, "state s3://bucket cannot be used");
}

/// Run by `tests/stores/moto.sh`, and by hand against any other service: a bucket that exists, empty.
#[tokio::test]
#[ignore = "needs an S3 service: SOUP_TEST_S3=endpoint,bucket,key,secret"]
async fn s3_elsewhere() {
    let settings = std::env::var("SOUP_TEST_S3").unwrap();
    let [endpoint, name, key, secret] = settings.split(',').collect::<Vec<_>>()[..] else {
        panic!("SOUP_TEST_S3={settings:?} is not endpoint,bucket,key,secret");
    };
    conforms(&bucket(endpoint, name, key, secret)).await;
}
