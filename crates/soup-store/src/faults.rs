//! A store that fails as told: for tests and simulations, behind the feature `faults`.
//!
//! A [`FaultyStore`] asks a closure about every [`Request`] and has the [`Effect`] that it names. Nothing here draws lots: a
//! [`Script`] counts requests, and a simulation's closure can draw from its own seed.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A whole object is written.
    Put,
    /// An object, or a part of one, is read.
    Get,
    /// Size and version of an object are read.
    Head,
    /// Objects are listed.
    List,
    /// An object is deleted.
    Delete,
    /// An object is copied.
    Copy,
    /// An upload in parts begins.
    Begin,
    /// A part is uploaded.
    Part,
    /// The parts become an object.
    Complete,
}

/// One request to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub op: Op,
    /// The object, or the prefix of a listing.
    pub path: String,
    /// Whether a put is to create the object only if it is absent.
    pub create: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is not done and reports an error.
    Fail,
    /// It is done and reports an error; a listing after all of its entries.
    LoseAnswer,
    /// A put reports an error and is done so much later. Other requests fail.
    LateWrite(Duration),
    /// It is done so much later. If whoever asks gives up before, it is not done at all.
    Stall(Duration),
    /// A put writes nothing and says that the object exists, as S3 does when others write at the same time. Other requests
    /// fail.
    Exists409,
    /// It is not done: whoever asks has no right to.
    Deny,
    /// A put, a part of an upload, or a read is done with one bit changed, and nobody is told. Other requests are done as they are.
    FlipBit,
}

/// Says what becomes of each request; nothing unusual where it says nothing.
pub type Decide = Arc<dyn Fn(&Request) -> Option<Effect> + Send + Sync>;

/// Rules that count requests.
#[derive(Clone, Debug, Default)]
pub struct Script(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    op: Option<Op>,
    contains: String,
    /// Which of the requests that match, counted from 1.
    which: Range<u64>,
    effect: Effect,
    matched: u64,
}

impl Script {
    /// A script without rules.
    pub fn new() -> Script {
        Script::default()
    }

    /// The `n`th (from 1) request of kind `op` (`None`: of any kind) whose path contains `contains` has `effect`.
    #[must_use]
    pub fn nth(self, op: impl Into<Option<Op>>, contains: &str, n: u64, effect: Effect) -> Script {
        self.rule(op.into(), contains, n..n + 1, effect)
    }

    /// Like [`nth`](Script::nth), for that request and all later ones.
    #[must_use]
    pub fn since(self, op: impl Into<Option<Op>>, contains: &str, n: u64, effect: Effect) -> Script {
        self.rule(op.into(), contains, n..u64::MAX, effect)
    }

    fn rule(mut self, op: Option<Op>, contains: &str, which: Range<u64>, effect: Effect) -> Script {
        self.0.push(Rule { op, contains: contains.to_owned(), which, effect, matched: 0 });
        self
    }

    /// The closure that follows the rules; the first one that applies to a request counts.
    pub fn decide(self) -> Decide {
        let rules = Mutex::new(self.0);
        Arc::new(move |request| {
            let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
            let mut effect = None;
            for rule in rules.iter_mut() {
                if rule.op.is_none_or(|op| op == request.op) && request.path.contains(&rule.contains) {
                    rule.matched += 1;
                    if rule.which.contains(&rule.matched) {
                        effect = effect.or(Some(rule.effect));
                    }
                }
            }
            effect
        })
    }
}

/// A store that fails as told, around one that does not.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    decide: Decide,
}

impl FaultyStore {
    /// `inner`, with the effects that `decide` names.
    pub fn new(inner: Arc<dyn ObjectStore>, decide: Decide) -> FaultyStore {
        FaultyStore { inner, decide }
    }

    fn effect(&self, op: Op, path: &Path, create: bool) -> Option<Effect> {
        (self.decide)(&Request { op, path: path.to_string(), create })
    }

    /// Does `request` as its effect says.
    async fn with_effect<T>(
        &self,
        op: Op,
        path: &Path,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        suffer(self.effect(op, path, false), request).await
    }
}

/// Does `request` as `effect` says.
async fn suffer<T>(effect: Option<Effect>, request: impl Future<Output = Result<T>>) -> Result<T> {
    match effect {
        None | Some(Effect::FlipBit) => request.await,
        Some(Effect::Stall(pause)) => {
            tokio::time::sleep(pause).await;
            request.await
        }
        Some(Effect::LoseAnswer) => {
            let _ = request.await;
            Err(failure("the answer was lost"))
        }
        Some(Effect::Deny) => {
            Err(Error::PermissionDenied { path: String::new(), source: "no right to".into() })
        }
        Some(Effect::Fail | Effect::LateWrite(_) | Effect::Exists409) => Err(failure("not done")),
    }
}

/// What is written in the place of `payload`.
fn written(effect: Option<Effect>, payload: PutPayload) -> PutPayload {
    if effect != Some(Effect::FlipBit) || payload.content_length() == 0 {
        return payload;
    }
    let mut bytes: Vec<u8> = payload.iter().flatten().copied().collect();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    bytes.into()
}

/// What was read, with a bit changed.
fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    bytes.into()
}

/// The same of an object, or a part of one.
async fn flipped_object(result: GetResult) -> Result<GetResult> {
    let (meta, range) = (result.meta.clone(), result.range.clone());
    let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
    let bytes = flipped(&result.bytes().await?);
    let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

fn failure(what: &str) -> Error {
    Error::Generic { store: "faulty store", source: format!("a fault was asked for: {what}").into() }
}

thread_local! {
    static MEMORY: RefCell<Option<Arc<dyn ObjectStore>>> = const { RefCell::new(None) };
}

/// Makes `store` what `memory://` means to places that are named on this thread from now on: a simulation on one thread has
/// stores of its own. `None` goes back to the process's memory.
pub fn set_memory_store(store: impl Into<Option<Arc<dyn ObjectStore>>>) {
    MEMORY.set(store.into());
}

pub(crate) fn memory_store() -> Option<Arc<dyn ObjectStore>> {
    MEMORY.with_borrow(Clone::clone)
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({:?})", self.inner)
    }
}

// The methods are written as `async_trait` would expand them, which spares a dependency.
impl ObjectStore for FaultyStore {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        path: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let create = matches!(options.mode, PutMode::Create);
        async move {
            match self.effect(Op::Put, path, create) {
                Some(Effect::Exists409) => {
                    Err(Error::AlreadyExists { path: path.to_string(), source: "409 Conflict".into() })
                }
                Some(Effect::LateWrite(pause)) => {
                    let (inner, path) = (Arc::clone(&self.inner), path.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(pause).await;
                        let _ = inner.put_opts(&path, payload, options).await;
                    });
                    Err(failure("the write is late"))
                }
                effect => suffer(effect, self.inner.put_opts(path, written(effect, payload), options)).await,
            }
        }
        .boxed()
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        path: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        async move {
            let begun = self.inner.put_multipart_opts(path, options);
            let inner = self.with_effect(Op::Begin, path, begun).await?;
            let upload = FaultyUpload { store: self.clone(), path: path.clone(), inner };
            Ok(Box::new(upload) as Box<dyn MultipartUpload>)
        }
        .boxed()
    }

    fn get_opts<'a, 'b, 'c>(&'a self, path: &'b Path, options: GetOptions) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let op = if options.head { Op::Head } else { Op::Get };
        async move {
            let effect = self.effect(op, path, false);
            let result = suffer(effect, self.inner.get_opts(path, options)).await?;
            if effect == Some(Effect::FlipBit) && op == Op::Get {
                flipped_object(result).await
            } else {
                Ok(result)
            }
        }
        .boxed()
    }

    fn get_ranges<'a, 'b, 'c, 'd>(
        &'a self,
        path: &'b Path,
        ranges: &'c [Range<u64>],
    ) -> BoxFuture<'d, Result<Vec<Bytes>>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        async move {
            let effect = self.effect(Op::Get, path, false);
            let mut parts = suffer(effect, self.inner.get_ranges(path, ranges)).await?;
            if effect == Some(Effect::FlipBit)
                && let Some(longest) = parts.iter_mut().max_by_key(|part| part.len())
            {
                *longest = flipped(longest);
            }
            Ok(parts)
        }
        .boxed()
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .and_then(move |path| {
                let store = store.clone();
                async move {
                    store.with_effect(Op::Delete, &path, store.inner.delete(&path)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let opened = async move {
            let effect = store.effect(Op::List, &prefix.clone().unwrap_or_default(), false);
            let after = match effect {
                Some(Effect::LoseAnswer) => Some(failure("the listing broke off")),
                other => suffer(other, async { Ok(None) }).await?,
            };
            Ok::<_, Error>(store.inner.list(prefix.as_ref()).chain(stream::iter(after.map(Err))))
        };
        stream::once(opened).try_flatten().boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(
        &'a self,
        prefix: Option<&'b Path>,
    ) -> BoxFuture<'c, Result<ListResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let path = prefix.cloned().unwrap_or_default();
        async move { self.with_effect(Op::List, &path, self.inner.list_with_delimiter(prefix)).await }.boxed()
    }

    fn copy_opts<'a, 'b, 'c, 'd>(
        &'a self,
        from: &'b Path,
        to: &'c Path,
        options: CopyOptions,
    ) -> BoxFuture<'d, Result<()>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        async move { self.with_effect(Op::Copy, to, self.inner.copy_opts(from, to, options)).await }.boxed()
    }
}

struct FaultyUpload {
    store: FaultyStore,
    path: Path,
    inner: Box<dyn MultipartUpload>,
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyUpload({})", self.path)
    }
}

impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let effect = self.store.effect(Op::Part, &self.path, false);
        let part = self.inner.put_part(written(effect, payload));
        suffer(effect, part).boxed()
    }

    fn complete<'a, 'b>(&'a mut self) -> BoxFuture<'b, Result<PutResult>>
    where
        'a: 'b,
        Self: 'b,
    {
        let effect = self.store.effect(Op::Complete, &self.path, false);
        suffer(effect, self.inner.complete()).boxed()
    }

    fn abort<'a, 'b>(&'a mut self) -> BoxFuture<'b, Result<()>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.inner.abort()
    }
}

#[cfg(test)]
mod tests;
