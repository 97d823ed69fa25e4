//! What remote stores answer reaches the user, with the right exit code.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use soup_tests::{Output, Soupctl};

use crate::fixture::{Place, SOUPCTL, animals, noted};

/// How an [`s3`] misbehaves.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers everything with this status, code and message.
    Refuses(u16, &'static str, &'static str),
    /// Lists a key with an empty part.
    ListsAnEmptyPart,
    /// Denies the keys of which this is true.
    Denies(fn(&str) -> bool),
    /// Asks for patience for so long.
    AsksForPatience(Duration),
}

/// A small S3 over a folder, which is its one bucket `b`; its endpoint. It lives as long as the test.
fn s3(root: &Path, manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (root, begun) = (Arc::new(root.to_owned()), Instant::now());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let root = Arc::clone(&root);
            std::thread::spawn(move || serve(stream, &root, manner, begun));
        }
    });
    endpoint
}

fn serve(mut stream: TcpStream, root: &Path, manner: Manner, begun: Instant) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim().is_empty() => break,
                Ok(_) => lines.push(line.trim().to_owned()),
            }
        }
        let header = |name: &str| {
            lines.iter().find_map(|l| l.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()))
        };
        let bytes = header("content-length:").and_then(|v| v.parse().ok()).unwrap_or(0);
        std::io::copy(&mut reader.by_ref().take(bytes), &mut std::io::sink()).unwrap();
        let mut words = lines[0].split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (status, more, body) = answer(target, header("range:"), root, manner, begun);
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{more}\r\n", body.len());
        let body = if method == "HEAD" { Vec::new() } else { body };
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// Status, further headers and body.
fn answer(
    target: &str,
    range: Option<String>,
    root: &Path,
    manner: Manner,
    begun: Instant,
) -> (u16, String, Vec<u8>) {
    let error = |status: u16, code: &str, message: &str| {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        (status, String::new(), body.into_bytes())
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.trim_start_matches("/b").trim_start_matches('/');
    match manner {
        Manner::Refuses(status, code, message) => return error(status, code, message),
        Manner::AsksForPatience(long) if begun.elapsed() < long => {
            return error(503, "SlowDown", "Please wait.");
        }
        _ => {}
    }
    if query.contains("list-type=2") {
        let prefix =
            query.split('&').find_map(|p| p.strip_prefix("prefix=")).unwrap_or_default().replace("%2F", "/");
        return (200, String::new(), list(&root.join(&prefix), &prefix, manner).into_bytes());
    }
    if let Manner::Denies(denied) = manner
        && denied(key)
    {
        return error(403, "AccessDenied", "Access Denied");
    }
    let Ok(content) = std::fs::read(root.join(key)) else { return error(404, "NoSuchKey", "no such key") };
    let common = "ETag: \"e\"\r\nLast-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n";
    let bounds = range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let Some((start, end)) = bounds else { return (200, common.to_owned(), content) };
    let last = content.len() - 1;
    let (start, end) = (start.parse::<usize>().unwrap(), end.parse().unwrap_or(last).min(last));
    let headers = format!("{common}Content-Range: bytes {start}-{end}/{}\r\n", content.len());
    (206, headers, content[start..=end].to_vec())
}

fn list(folder: &Path, prefix: &str, manner: Manner) -> String {
    let mut inside = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        inside += &match entry.path().is_dir() {
            true => format!("<CommonPrefixes><Prefix>{key}/</Prefix></CommonPrefixes>"),
            false => format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag>\
                 <Size>{}</Size></Contents>",
                entry.metadata().unwrap().len()
            ),
        };
    }
    if let Manner::ListsAnEmptyPart = manner {
        inside += &format!("<CommonPrefixes><Prefix>{prefix}/</Prefix></CommonPrefixes>");
    }
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><Prefix>{prefix}</Prefix><KeyCount>1</KeyCount>\
         <MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>false</IsTruncated>{inside}</ListBucketResult>"
    )
}

const KEYS: [(&str, &str); 4] = [
    ("AWS_ALLOW_HTTP", "true"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "a"),
    ("AWS_SECRET_ACCESS_KEY", "b"),
];

/// The uniform soup of `s3://b/pool`, a copy of the small pool on an [`s3`] of this manner.
fn cook(place: &Place, manner: Manner) -> Output {
    let endpoint = s3(place.path(), manner);
    let call = KEYS.iter().fold(Soupctl::new(SOUPCTL), |call, (name, value)| call.env(name, value));
    let validation: PathBuf = animals().join("validation.parquet");
    call.env("AWS_ENDPOINT_URL", &endpoint)
        .dir(place.path())
        .args(["cook", "--pool", "s3://b/pool", "--recipe", "uniform", "--workers", "1", "--threads", "1"])
        .args([
            "--memory",
            "100MiB",
            "--fresh",
            "--no-baselines",
            "--diagnose",
            "none",
            "--quiet",
            "-o",
            "json",
        ])
        .args(["--output", "soup", "--overwrite", "--validation", validation.to_str().unwrap()])
        .run()
}

#[test]
fn a_refusal_is_shown_with_its_code_and_is_no_outage() {
    let place = Place::with(&["a", "b"]);
    for (status, code) in
        [(400, "ExpiredToken"), (403, "AccessDenied"), (403, "RequestTimeTooSkewed"), (404, "NoSuchBucket")]
    {
        let message = "because of this";
        cook(&place, Manner::Refuses(status, code, message)).fails(78, &["s3://b/pool", code, message]);
    }
}

#[test]
fn companions_that_may_not_be_read_are_absent() {
    let result =
        cook(&Place::with(&["a", "b"]), Manner::Denies(|key| key.ends_with("/generation_config.json")))
            .json();
    assert_eq!(result["score"]["correct"], 12);
}

#[test]
fn a_configuration_that_may_not_be_read_is_not_called_missing() {
    let denies = Manner::Denies(|key| key.ends_with("/config.json"));
    let parts = ["s3://b/pool/a/config.json", "AccessDenied"];
    cook(&Place::with(&["a", "b"]), denies).fails(78, &parts);
}

#[test]
fn keys_that_are_no_path_do_not_stop_a_listing() {
    let result = cook(&Place::with(&["a", "b"]), Manner::ListsAnEmptyPart).json();
    assert_eq!(result["score"]["correct"], 12);
    noted(&result, &["left out of", "\"/\", which is a key that is no path"]);
}

#[test]
fn a_store_that_asks_for_patience_gets_it() {
    let result = cook(&Place::with(&["a", "b"]), Manner::AsksForPatience(Duration::from_secs(5))).json();
    assert_eq!(result["score"]["correct"], 12);
}

#[test]
fn an_average_is_the_same_from_a_store() {
    let place = Place::with(&["a", "b"]);
    // Something to average: the one has the other's tensors in another order of bytes.
    let file = place.ingredient("b").join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[head..].chunks_exact_mut(4).for_each(|float| float[..2].reverse());
    std::fs::write(&file, bytes).unwrap();
    let endpoint = s3(place.path(), Manner::Denies(|_| false));
    let average = |pool: &str, output: &str| {
        let call = KEYS.iter().fold(Soupctl::new(SOUPCTL), |call, (name, value)| call.env(name, value));
        let cook = ["cook", "--recipe", "uniform", "--pool", pool, "--output", output, "-o", "json", "-q"];
        call.env("AWS_ENDPOINT_URL", &endpoint).dir(place.path()).args(cook).run().json()
    };
    let (local, remote) = (average("pool", "local"), average("s3://b/pool", "remote"));
    assert_eq!(remote["sha256"], local["sha256"]);
    assert_eq!(remote["diagnosis"], local["diagnosis"], "to the last bit");
    assert_eq!(remote["pool_bytes_read"], local["pool_bytes_read"]);
}

#[test]
fn profiles_of_the_aws_command_line_are_used() {
    let place = Place::with(&["a", "b"]);
    let endpoint = s3(place.path(), Manner::Denies(|_| false));
    place
        .write("home/.aws/config", format!("[profile lab]\nregion = us-east-1\nendpoint_url = {endpoint}\n"));
    place.write("home/.aws/credentials", "[lab]\naws_access_key_id = a\naws_secret_access_key = b\n");
    let home = place.path().join("home");
    let call = || {
        Soupctl::new(SOUPCTL)
            .dir(place.path())
            .env("HOME", home.to_str().unwrap())
            .args(["inspect", "s3://b/pool"])
    };
    call()
        .env("AWS_PROFILE", "lab")
        .run()
        .fails(78, &["AWS_ENDPOINT_URL begins with http://", "AWS_ALLOW_HTTP=true"]);
    let found =
        call().env("AWS_PROFILE", "lab").env("AWS_ALLOW_HTTP", "true").args(["-o", "json"]).run().json();
    assert_eq!(found["ingredients"].as_array().unwrap().len(), 2);
    call().env("AWS_PROFILE", "nobody").run().fails(78, &["AWS_PROFILE names profile \"nobody\""]);
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_do_not_stop_a_listing() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::with(&["a", "b"]);
    let odd = |name: &[u8]| {
        std::fs::write(place.path().join("pool").join(std::ffi::OsStr::from_bytes(name)), "x").unwrap()
    };
    odd(b"caf\xe9.txt");
    odd(b"._a.safetensors");
    odd(b"caf\xe9");
    let result = place.cook_all(&[]).json();
    assert_eq!(result["score"]["correct"], 12);
    noted(&result, &["not named in UTF-8"]);
}
