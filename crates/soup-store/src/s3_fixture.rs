//! An S3 service for tests, in this process and on a loopback port: the operations that `object_store` uses, one lock for
//! all of them (so that every request takes effect at one moment), signatures checked.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use futures::TryStreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;

use crate::location::{Location, remote_with};

const KEY: &str = "test";
const SECRET: &str = "secret";
/// Entries of one page of a listing: few, so that there are several.
const PAGE: usize = 3;

/// What a server does that others do not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// `If-None-Match` of puts is not looked at.
    pub(crate) ignores_create: bool,
    /// Puts with `If-None-Match` that are answered with 409 and do nothing, of each object.
    pub(crate) conflicts: u32,
}

#[derive(Default)]
pub(crate) struct Server {
    habits: Habits,
    bucket: Mutex<Bucket>,
    pub(crate) endpoint: String,
    /// Conditional puts that were answered.
    pub(crate) conditional_puts: AtomicU32,
}

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, BTreeMap<PartNumber, Bytes>>,
    conflicts: BTreeMap<String, u32>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    e_tag: ETag,
    modified: Timestamp,
}

impl Object {
    fn new(bytes: Bytes) -> Object {
        let e_tag = ETag::Strong(soup_core::journal::sha256_hex(&bytes)[..32].to_owned());
        Object { bytes, e_tag, modified: SystemTime::now().into() }
    }
}

/// Where objects of `bucket` are on the S3 service at `endpoint`.
pub(crate) fn bucket(endpoint: &str, bucket: &str, key: &str, secret: &str) -> Location {
    let settings = [
        ("aws_endpoint", endpoint),
        ("aws_access_key_id", key),
        ("aws_secret_access_key", secret),
        ("aws_region", "us-east-1"),
        ("allow_http", "true"),
    ];
    remote_with(&format!("s3://{bucket}"), &settings).unwrap()
}

impl Server {
    /// Serves until the runtime of the test ends; returns the root of its bucket.
    pub(crate) async fn start(habits: Habits) -> (Arc<Server>, Location) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let root = bucket(&endpoint, "bucket", KEY, SECRET);
        let server = Arc::new(Server { habits, endpoint, ..Server::default() });
        let mut service = S3ServiceBuilder::new(Shared(Arc::clone(&server)));
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (server, root)
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap()
    }

    /// The object, if it is the version that is asked for.
    fn object(&self, key: &str, if_match: Option<IfMatch>) -> S3Result<Object> {
        let bucket = self.lock();
        let object = bucket.objects.get(key).ok_or_else(|| s3_error!(NoSuchKey))?;
        match if_match {
            Some(ETagCondition::ETag(tag)) if tag != object.e_tag => Err(s3_error!(PreconditionFailed)),
            _ => Ok(object.clone()),
        }
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let parts: Vec<Bytes> = body.try_collect().await.map_err(|_| s3_error!(IncompleteBody))?;
    Ok(parts.concat().into())
}

struct Shared(Arc<Server>);

#[async_trait::async_trait]
impl S3 for Shared {
    async fn put_object(&self, r: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = r.input;
        let object = Object::new(collect(input.body).await?);
        let mut bucket = self.0.lock();
        if input.if_none_match == Some(ETagCondition::Any) && !self.0.habits.ignores_create {
            self.0.conditional_puts.fetch_add(1, Ordering::SeqCst);
            let conflicts = bucket.conflicts.entry(input.key.clone()).or_default();
            *conflicts += 1;
            if *conflicts <= self.0.habits.conflicts {
                return Err(s3_error!(ConditionalRequestConflict));
            }
            if bucket.objects.contains_key(&input.key) {
                return Err(s3_error!(PreconditionFailed));
            }
        }
        if let Some(IfMatch::ETag(expected)) = &input.if_match {
            match bucket.objects.get(&input.key) {
                None => return Err(s3_error!(NoSuchKey)),
                Some(found) if found.e_tag != *expected => return Err(s3_error!(PreconditionFailed)),
                Some(_) => {}
            }
        }
        let output = PutObjectOutput { e_tag: Some(object.e_tag.clone()), ..PutObjectOutput::default() };
        bucket.objects.insert(input.key, object);
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, r: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let object = self.0.object(&r.input.key, r.input.if_match)?;
        let length = object.bytes.len() as u64;
        let (bytes, content_range) = match r.input.range {
            None => (object.bytes, None),
            Some(range) => {
                let range = range.check(length).map_err(|_| s3_error!(InvalidRange))?;
                let header = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                (object.bytes.slice(range.start as usize..range.end as usize), Some(header))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(bytes.len() as i64),
            content_range,
            body: Some(Body::from(bytes).into()),
            e_tag: Some(object.e_tag),
            last_modified: Some(object.modified),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, r: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.0.object(&r.input.key, r.input.if_match)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(object.bytes.len() as i64),
            e_tag: Some(object.e_tag),
            last_modified: Some(object.modified),
            ..HeadObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        r: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = r.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        // The token is the last entry of the page before; one that ends in the delimiter stands for all below it.
        let after = input.continuation_token.clone().or(input.start_after.clone());
        let delimiter = input.delimiter.clone();
        let bucket = self.0.lock();
        let (mut contents, mut folders) = (Vec::new(), BTreeSet::new());
        let (mut last, mut more) = (None, false);
        for (key, object) in bucket.objects.range(prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&prefix) else { break };
            let end = delimiter.as_ref().and_then(|d| rest.find(d.as_str()).map(|at| at + d.len()));
            let entry = end.map_or(key.clone(), |end| format!("{prefix}{}", &rest[..end]));
            if folders.contains(&entry) || after.as_ref().is_some_and(|a| entry <= *a) {
                continue;
            }
            if contents.len() + folders.len() == PAGE {
                more = true;
                break;
            }
            last = Some(entry.clone());
            match end {
                Some(_) => _ = folders.insert(entry),
                None => contents.push(s3s::dto::Object {
                    key: Some(entry),
                    size: Some(object.bytes.len() as i64),
                    e_tag: Some(object.e_tag.clone()),
                    last_modified: Some(object.modified.clone()),
                    ..s3s::dto::Object::default()
                }),
            }
        }
        let folders = folders.into_iter().map(|f| CommonPrefix { prefix: Some(f) });
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            delimiter,
            key_count: Some((contents.len() + folders.len()) as i32),
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            contents: Some(contents),
            common_prefixes: Some(folders.collect()),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn delete_object(
        &self,
        r: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.0.lock().objects.remove(&r.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        r: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut bucket = self.0.lock();
        let mut deleted = Vec::new();
        for object in r.input.delete.objects {
            bucket.objects.remove(&object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() }))
    }

    async fn create_multipart_upload(
        &self,
        r: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let mut bucket = self.0.lock();
        let id = format!("upload-{}", bucket.uploads.len());
        bucket.uploads.insert(id.clone(), BTreeMap::new());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(r.input.bucket),
            key: Some(r.input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, r: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let object = Object::new(collect(r.input.body).await?);
        let mut bucket = self.0.lock();
        let parts = bucket.uploads.get_mut(&r.input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        parts.insert(r.input.part_number, object.bytes);
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(object.e_tag), ..UploadPartOutput::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        r: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = r.input;
        let mut bucket = self.0.lock();
        let parts = bucket.uploads.get(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let mut bytes = Vec::new();
        for part in input.multipart_upload.and_then(|m| m.parts).unwrap_or_default() {
            let part = part.part_number.and_then(|n| parts.get(&n)).ok_or_else(|| s3_error!(InvalidPart))?;
            bytes.extend_from_slice(part);
        }
        let object = Object::new(bytes.into());
        let e_tag = Some(object.e_tag.clone());
        bucket.objects.insert(input.key.clone(), object);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag,
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        r: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        // Its place stays taken, so that ids do not come again.
        if let Some(parts) = self.0.lock().uploads.get_mut(&r.input.upload_id) {
            parts.clear();
        }
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
