use object_store::memory::InMemory;
use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn faulty(script: Script) -> (Arc<InMemory>, FaultyStore) {
    let inner = Arc::new(InMemory::new());
    (Arc::clone(&inner), FaultyStore::new(inner, script.decide()))
}

async fn content(store: &InMemory, path: &Path) -> Option<Bytes> {
    match store.get(path).await {
        Ok(got) => Some(got.bytes().await.unwrap()),
        Err(_) => None,
    }
}

fn create() -> PutOptions {
    PutMode::Create.into()
}

#[tokio::test(start_paused = true)]
async fn each_effect_is_what_it_says() {
    let path = Path::from("log/1");
    for (effect, written, exists) in [
        (Effect::Fail, false, false),
        (Effect::LoseAnswer, true, false),
        (Effect::LateWrite(SECOND), false, false),
        (Effect::Exists409, false, true),
    ] {
        let (inner, store) = faulty(Script::new().nth(Op::Put, "log/", 1, effect));
        let error = store.put_opts(&path, "a".into(), create()).await.unwrap_err();
        assert_eq!(matches!(error, Error::AlreadyExists { .. }), exists, "{effect:?}");
        assert_eq!(content(&inner, &path).await.is_some(), written, "{effect:?}");
        tokio::time::sleep(2 * SECOND).await;
        let late = effect == Effect::LateWrite(SECOND);
        assert_eq!(content(&inner, &path).await.is_some(), written || late, "{effect:?}");
        // Only that one request.
        store.put(&Path::from("log/2"), "b".into()).await.unwrap();
    }
    let (inner, store) = faulty(Script::new().nth(Op::Put, "", 1, Effect::Stall(SECOND)));
    let begun = Instant::now();
    let given_up = tokio::time::timeout(SECOND / 2, store.put(&path, "a".into())).await;
    assert!(given_up.is_err());
    tokio::time::sleep(SECOND).await;
    assert_eq!(content(&inner, &path).await, None, "given up before it was done");
    store.put(&path, "a".into()).await.unwrap();
    assert_eq!(begun.elapsed(), SECOND + SECOND / 2);
}

#[tokio::test]
async fn scripts_count_what_matches() {
    let script = Script::new()
        .nth(Op::Get, "b", 2, Effect::Fail)
        .nth(Op::List, "", 1, Effect::LoseAnswer)
        .since(Op::Delete, "a", 1, Effect::Fail);
    let (_, store) = faulty(script);
    let (a, b) = (Path::from("a"), Path::from("b"));
    store.put(&a, "a".into()).await.unwrap();
    store.put(&b, "b".into()).await.unwrap();
    let mut gets = Vec::new();
    for path in [&a, &b, &a, &b, &b] {
        gets.push(store.get(path).await.is_ok());
    }
    assert_eq!(gets, [true, true, true, false, true]);
    let listed: Vec<bool> = store.list(None).map(|o| o.is_ok()).collect().await;
    assert_eq!(listed, [true, true, false]);
    assert_eq!(store.list(None).count().await, 2);
    assert!(store.delete(&a).await.is_err() && store.delete(&a).await.is_err());
    store.delete(&b).await.unwrap();
}

#[tokio::test]
async fn uploads_fail_at_every_step() {
    let path = Path::from("big");
    for (op, effect, there) in [
        (Op::Begin, Effect::Fail, false),
        (Op::Part, Effect::Fail, false),
        (Op::Complete, Effect::Fail, false),
        (Op::Complete, Effect::LoseAnswer, true),
    ] {
        let (inner, store) = faulty(Script::new().nth(op, "big", 1, effect));
        let done = async {
            let mut upload = store.put_multipart(&path).await?;
            upload.put_part("part".into()).await?;
            upload.complete().await
        };
        assert!(done.await.is_err(), "{op:?}");
        assert_eq!(content(&inner, &path).await.is_some(), there, "{op:?}");
    }
}

#[tokio::test]
async fn memory_is_what_this_thread_says() {
    use crate::location::Location;

    let (inner, store) = faulty(Script::new());
    set_memory_store(Arc::new(store) as Arc<dyn ObjectStore>);
    let place = Location::parse("memory:///override").unwrap();
    place.store().put(place.path(), "x".into()).await.unwrap();
    assert!(content(&inner, place.path()).await.is_some());
    std::thread::spawn(|| assert!(memory_store().is_none())).join().unwrap();
    set_memory_store(None);
    let place = Location::parse("memory:///override").unwrap();
    assert!(place.store().head(place.path()).await.is_err());
}
