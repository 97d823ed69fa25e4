use soup_core::ErrorKind;

use super::*;

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn endpoints_without_tls_name_the_variable_that_allows_them() {
    let keys =
        [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ENDPOINT_URL_S3", "http://h:9")];
    let base = Url::parse("s3://bucket").unwrap();
    let e = new_store(&base, settings(&keys)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Configuration);
    assert!(e.chain().contains("AWS_ENDPOINT_URL_S3 begins with http://"), "{}", e.chain());
    assert!(e.chain().contains("AWS_ALLOW_HTTP=true"), "{}", e.chain());
    let allowed = [&keys[..], &[("AWS_ALLOW_HTTP", "true")]].concat();
    assert!(new_store(&base, settings(&allowed)).is_ok());
    let azure = [("AZURE_STORAGE_ENDPOINT", "http://h:9"), ("AZURE_STORAGE_ACCOUNT_NAME", "a")];
    let e = new_store(&Url::parse("az://container").unwrap(), settings(&azure)).unwrap_err();
    assert!(e.chain().contains("AZURE_ALLOW_HTTP=true"), "{}", e.chain());
}

/// Nothing listens there, as on a machine without a metadata service.
#[tokio::test]
async fn missing_credentials_fail_at_once_and_name_what_was_looked_for() {
    let none = [
        ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9"),
        ("AWS_CONFIG_FILE", "/none"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/none"),
    ];
    let place = crate::location::remote_with("s3://bucket/x", &none).unwrap();
    let begun = std::time::Instant::now();
    let e = crate::read::stat(&place).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Configuration, "{}", e.chain());
    for part in [
        "s3://bucket/x",
        "there are no credentials",
        "AWS_ACCESS_KEY_ID",
        "profile \"default\"",
        "metadata service",
    ] {
        assert!(e.chain().contains(part), "{}", e.chain());
    }
    assert!(begun.elapsed().as_secs() < 5);
}
