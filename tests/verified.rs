//! Answers that are checked by whoever did not give them: signed journals and outputs.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use soup_tests::{Output, Pool, Soupctl, example};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// A folder with keys, and a signed cook in it.
struct Signed {
    folder: TempDir,
    run: String,
}

impl Signed {
    fn cook() -> Signed {
        let folder = TempDir::new().unwrap();
        for key in ["key", "other"] {
            assert_eq!(call(folder.path(), &["keys", "new", key]).code, 0);
        }
        let pool = example().join("ingredients");
        let args = ["cook", "--recipe", "uniform", "--pool", pool.to_str().unwrap(), "--diagnose", "none"];
        let args = [&args[..], &["--output", "soup", "--signing-key", "key", "-o", "json"]].concat();
        let report = call(folder.path(), &args).json();
        Signed { run: report["run"].as_str().unwrap().to_owned(), folder }
    }

    fn call(&self, args: &[&str]) -> Output {
        call(self.folder.path(), args)
    }

    /// `log --verify`, with more arguments.
    fn log(&self, args: &[&str]) -> Output {
        let state = ["log", &self.run, "--state-url", ".soup-state", "--verify"];
        self.call(&[&state[..], args].concat())
    }

    /// The records of its journal, in order.
    fn records(&self) -> Vec<PathBuf> {
        let log = self.folder.path().join(".soup-state/runs").join(&self.run).join("log");
        Pool::list(&log).iter().map(|name| log.join(name)).collect()
    }
}

fn call(dir: &Path, args: &[&str]) -> Output {
    Soupctl::new(SOUPCTL).dir(dir).args(args).run()
}

/// Changes a file while `check` looks.
fn edited(path: &Path, edit: impl Fn(Vec<u8>) -> Vec<u8>, check: impl Fn()) {
    let before = std::fs::read(path).unwrap();
    let after = edit(before.clone());
    assert!(after != before);
    std::fs::write(path, after).unwrap();
    check();
    std::fs::write(path, before).unwrap();
}

/// A record's time is a second later.
fn later(record: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(record).unwrap();
    let at = text.find("\"at\":\"").unwrap() + "\"at\":\"2026-01-01T00:00:0".len();
    let digit = if &text[at..=at] == "9" { "8" } else { "9" };
    format!("{}{digit}{}", &text[..at], &text[at + 1..]).into_bytes()
}

#[track_caller]
fn refuses(output: &Output, parts: &[&str]) {
    assert_eq!(output.code, 65, "{}", output.stderr);
    parts.iter().for_each(|part| assert!(output.stderr.contains(part), "no {part:?} in {}", output.stderr));
}

#[test]
fn a_signed_journal_shows_every_edit() {
    let signed = Signed::cook();
    let whole = signed.log(&["--key", "key.pub"]);
    assert_eq!(whole.code, 0, "{}", whole.stderr);
    for part in ["every record is signed with key", "it reaches as far as its output says"] {
        assert!(whole.stderr.contains(part), "{}", whole.stderr);
    }
    refuses(&signed.log(&["--key", "other.pub"]), &["record 0 of the log (epoch-claim)", "and not by key"]);
    let records = signed.records();
    let (last, middle) = (records.last().unwrap(), &records[records.len() / 2]);
    edited(last, later, || {
        // The chain is of all records before the last one.
        let chained = signed.log(&[]);
        assert_eq!(chained.code, 0, "{}", chained.stderr);
        assert!(chained.stderr.contains("signatures were not checked (--key)"), "{}", chained.stderr);
        refuses(&signed.log(&["--key", "key.pub"]), &["(published) cannot be trusted", "was changed after"]);
    });
    edited(middle, later, || {
        refuses(&signed.log(&[]), &["follows a record with SHA-256"]);
        refuses(&signed.log(&["--key", "key.pub"]), &["was changed after it was signed"]);
    });
    let unsigned = |record: Vec<u8>| {
        let mut value: serde_json::Value = serde_json::from_slice(&record).unwrap();
        value.as_object_mut().unwrap().remove("signature").unwrap();
        serde_json::to_vec(&value).unwrap()
    };
    edited(last, unsigned, || refuses(&signed.log(&["--key", "key.pub"]), &["it is not signed"]));
    // Of a log that was cut off the output knows more.
    for record in &records[records.len() - 2..] {
        std::fs::remove_file(record).unwrap();
    }
    refuses(&signed.log(&["--key", "key.pub"]), &["the end of the journal", "is missing"]);
    let verify = ["verify", "soup", "--state-url", ".soup-state", "--key", "key.pub"];
    refuses(&signed.call(&verify), &["the end of the journal", "is missing"]);
}

#[test]
fn an_output_is_what_was_written_or_refused() {
    let signed = Signed::cook();
    let soup = signed.folder.path().join("soup");
    let verify = |args: &[&str]| signed.call(&[&["verify", "soup"], args].concat());
    let whole = verify(&["--key", "key.pub", "--state-url", ".soup-state", "-o", "json"]).json();
    assert_eq!((&whole["run"], &whole["all_files"]), (&signed.run.clone().into(), &true.into()));
    assert_eq!(whole["files"], Pool::list(&soup).len() - 1);
    assert!(verify(&[]).stdout.contains("signatures were not checked"));
    refuses(&verify(&["--key", "other.pub"]), &["soup.json cannot be trusted"]);

    let flipped = |mut bytes: Vec<u8>| {
        let last = bytes.len() - 9;
        bytes[last] ^= 1;
        bytes
    };
    for name in ["model.safetensors", "config.json", "README.md", "report.html"] {
        edited(&soup.join(name), flipped, || {
            refuses(
                &verify(&[]),
                &[&format!("soup/{name} is not what was written"), "copy the output again"],
            );
        });
    }
    let other_run =
        |text: Vec<u8>| String::from_utf8(text).unwrap().replacen("uniform", "another", 1).into_bytes();
    edited(&soup.join("soup.json"), other_run, || {
        refuses(&verify(&["--key", "key.pub"]), &["soup.json cannot be trusted", "was changed after"]);
    });
    std::fs::write(soup.join("adapter_config.json"), "{}").unwrap();
    refuses(&verify(&[]), &["adapter_config.json is in the output and not in its manifest", "move it away"]);
    std::fs::remove_file(soup.join("adapter_config.json")).unwrap();
    std::fs::remove_file(soup.join("config.json")).unwrap();
    refuses(&verify(&[]), &["config.json does not exist"]);
}

#[test]
fn keys_are_kept_from_others() {
    let folder = TempDir::new().unwrap();
    let made = call(folder.path(), &["keys", "new", "key"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let secret = std::fs::read_to_string(folder.path().join("key")).unwrap();
    assert!(!made.stderr.contains(secret.lines().nth(1).unwrap()));
    call(folder.path(), &["keys", "new", "key"]).fails(2, &["is there already"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("key")).unwrap(), secret);

    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(folder.path().join("key"), mode).unwrap();
    let pool = example().join("ingredients");
    let cook = ["cook", "--recipe", "uniform", "--pool", pool.to_str().unwrap(), "--signing-key", "key"];
    call(folder.path(), &cook).fails(78, &["mode 0640", "chmod 600"]);
    let remote = [&cook[..], &["--coordinator", "http://127.0.0.1:1"]].concat();
    call(folder.path(), &remote).fails(2, &["--signing-key is about an embedded cluster"]);
    let coordinator = ["coordinator", "--listen", "127.0.0.1:0", "--signing-key", "key"];
    call(folder.path(), &coordinator).fails(78, &["mode 0640"]);
}
