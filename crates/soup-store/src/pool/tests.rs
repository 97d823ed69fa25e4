use soup_core::ErrorKind;

use super::*;
use crate::conformance::{fails, memory, put, safetensors, small_schema};

/// Puts a model, or for other names a few bytes, at each of `files`.
async fn files(root: &Location, files: &[&str]) {
    for file in files {
        let bytes = if file_stem(file).is_some() {
            safetensors(&small_schema(), |_| 1)
        } else {
            file.as_bytes().to_vec()
        };
        put(root, file, bytes).await;
    }
}

async fn pool(root: &Location, urls: &[&str]) -> Result<Vec<String>> {
    let urls: Vec<String> = urls.iter().map(|u| format!("{root}/{u}")).collect();
    open_pool(&urls).await.map(|pool| pool.checkpoints.into_iter().map(|c| c.name).collect())
}

/// The names that `urls` lead to, on local disk and in memory.
async fn check(test: &str, tree: &[&str], urls: &[&str], expect: &[&str]) {
    let local = tempfile::tempdir().unwrap();
    for root in [Location::local(local.path()).unwrap(), memory(&format!("pool-{test}"))] {
        files(&root, tree).await;
        assert_eq!(pool(&root, urls).await.unwrap(), expect);
    }
}

#[tokio::test]
async fn a_folder_of_files() {
    let tree = ["p/b.safetensors", "p/a b.safetensors", "p/readme.md", "p/.hidden.safetensors", "p/logs/x"];
    check("files", &tree, &["p"], &["a b", "b"]).await;
    check("files2", &tree, &["p/"], &["a b", "b"]).await;
    check("files3", &tree, &["p/b.safetensors", "p/a b.safetensors"], &["b", "a b"]).await;
}

#[tokio::test]
async fn the_extension_in_any_case() {
    let tree = [
        "p/a.safetensors",
        "p/B.SAFETENSORS",
        "p/c.Safetensors",
        "p/c.pt",
        "q/x/MODEL.SAFETENSORS",
        "q/m.safetensors",
    ];
    check("case", &tree, &["p"], &["B", "a", "c"]).await;
    check("case2", &tree, &["p/*.SAFETENSORS"], &["B"]).await;
    check("case3", &tree, &["p/B.SAFETENSORS", "q/x/MODEL.SAFETENSORS"], &["B", "MODEL"]).await;
    check("case4", &tree, &["q/*/MODEL.SAFETENSORS"], &["x"]).await;
    let root = memory("case5");
    files(&root, &tree).await;
    let expect = "q/x/MODEL.SAFETENSORS, or */MODEL.SAFETENSORS, in the pool to take it";
    fails(pool(&root, &["q"]).await, ErrorKind::Data, expect);
}

/// In which one of the store's clients sees parts of unfinished files.
#[tokio::test]
async fn names_with_a_number_sign() {
    let tree = [
        "p/a/model.safetensors",
        "p/run#2/model.safetensors",
        "p/run#10/model.safetensors",
        "q/m#1.safetensors",
    ];
    check("number", &tree, &["p"], &["a", "run#10", "run#2"]).await;
    check("number2", &tree, &["p/*"], &["a", "run#10", "run#2"]).await;
    let local = tempfile::tempdir().unwrap();
    let root = Location::local(local.path()).unwrap();
    files(&root, &tree).await;
    assert_eq!(pool(&root, &["p/run#2", "q"]).await.unwrap(), ["run#2", "m#1"]);
    files(&root, &["q/m.safetensors#3"]).await;
    fails(pool(&root, &["q"]).await, ErrorKind::Data, "\"m.safetensors#3\" is not whole");
}

#[tokio::test]
async fn a_folder_of_folders() {
    let tree = [
        "p/two/model.safetensors",
        "p/one/model.safetensors",
        "p/logs/x",
        "p/m.safetensors",
        "p/config.json",
    ];
    check("folders", &tree, &["p"], &["m", "one", "two"]).await;
}

#[tokio::test]
async fn a_checkpoint_folder_is_one_ingredient() {
    let tree = ["p/model.safetensors", "p/other.safetensors", "p/sub/model.safetensors"];
    check("one", &tree, &["p"], &["p"]).await;
    check("two", &tree, &["p", "p/sub"], &["p", "sub"]).await;
}

#[tokio::test]
async fn ingredients_count_instead() {
    let tree = [
        "p/theta0.safetensors",
        "p/ingredients/m1.safetensors",
        "p/ingredients/m0.safetensors",
        "p/config.json",
    ];
    check("ingredients", &tree, &["p"], &["m0", "m1"]).await;
}

#[tokio::test]
async fn globs() {
    let tree = [
        "r/a/model.safetensors",
        "r/b/model.safetensors",
        "r/b/x1.safetensors",
        "r/b/x2.safetensors",
        "r/c/log",
        "r/m01.safetensors",
        "r/m02.safetensors",
    ];
    check("g1", &tree, &["r/*.safetensors"], &["m01", "m02"]).await;
    check("g2", &tree, &["r/*/model.safetensors"], &["a", "b"]).await;
    check("g3", &tree, &["r/*"], &["a", "b", "m01", "m02"]).await;
    check("g4", &tree, &["r/m?2.safetensors"], &["m02"]).await;
    check("g5", &tree, &["r/b*/x*"], &["b/x1", "b/x2"]).await;
    check("g6", &tree, &["r/b/x*", "r/a*"], &["x1", "x2", "a"]).await;
}

#[tokio::test]
async fn what_is_no_pool_is_refused() {
    let local = tempfile::tempdir().unwrap();
    std::fs::create_dir(local.path().join("empty")).unwrap();
    let root = Location::local(local.path()).unwrap();
    files(&root, &["a/m.safetensors", "b/m.safetensors", "c/x", "notes.txt"]).await;
    fails(pool(&root, &["empty"]).await, ErrorKind::Data, "no checkpoints in ");
    fails(pool(&root, &["c"]).await, ErrorKind::Data, "no checkpoints in ");
    fails(pool(&root, &["c/*"]).await, ErrorKind::Data, "c/*\"");
    fails(pool(&root, &["notes.txt"]).await, ErrorKind::Data, "no checkpoints in ");
    fails(pool(&root, &["nowhere"]).await, ErrorKind::Data, "nowhere does not exist");
    fails(pool(&root, &["*/a/b/m.safetensors"]).await, ErrorKind::Data, "no checkpoints in ");
    for (first, then) in [("a", "a/m.safetensors"), ("a", "a"), ("a/*", "a")] {
        let twice = format!(
            "a/m.safetensors is in the pool twice: \"{root}/{first}\" names it, and so does \"{root}/{then}\""
        );
        fails(pool(&root, &[first, then]).await, ErrorKind::Usage, &twice);
    }
    files(&root, &["d/m.safetensors", "d/m.SAFETENSORS"]).await;
    fails(pool(&root, &["d"]).await, ErrorKind::Data, "two ingredients are called \"m\"");
    put(&root, "a/broken.safetensors", "no header").await;
    fails(pool(&root, &["a"]).await, ErrorKind::Data, "a/broken.safetensors claims a header");
}

#[tokio::test]
async fn companions_come_from_the_own_folder_first() {
    let root = memory("companions");
    files(
        &root,
        &["p/ingredients/m.safetensors", "p/ingredients/vocab.txt", "p/vocab.txt", "p/config.json", "p/x"],
    )
    .await;
    let pool = open_pool(&[format!("{root}/p")]).await.unwrap();
    let found = companions(&pool.checkpoints[0]).await.unwrap();
    let found: Vec<_> = found.iter().map(|(n, b)| (n.as_str(), std::str::from_utf8(b).unwrap())).collect();
    assert_eq!(found, [("config.json", "p/config.json"), ("vocab.txt", "p/ingredients/vocab.txt")]);
}

#[tokio::test]
async fn ingredients_of_the_same_name_are_told_apart_by_their_paths() {
    let tree = ["a/m.safetensors", "b/m.safetensors", "c/x/model.safetensors", "c/y/model.safetensors"];
    check("same", &tree, &["a", "b"], &["a", "b"]).await;
    check("same2", &tree, &["c/x/model.safetensors", "c/y/model.safetensors"], &["x", "y"]).await;
}

#[tokio::test]
async fn layouts_of_other_tools_need_no_renaming() {
    let tree = [
        "mlruns/1/ab/artifacts/model/model.safetensors",
        "mlruns/1/ab/artifacts/model/config.json",
        "mlruns/1/cd/artifacts/model/model.safetensors",
        "mlruns/models/x/version-1/meta.yaml",
        "wandb/run-20260101_1-ab/files/model.safetensors",
        "wandb/run-20260101_2-cd/files/model.safetensors",
        "out/a/checkpoint-500/model.safetensors",
        "out/b/checkpoint-500/model.safetensors",
        "out/b/checkpoint-900/model.safetensors",
    ];
    check("l1", &tree, &["mlruns/*/*/artifacts/model"], &["ab", "cd"]).await;
    check("l2", &tree, &["mlruns/**/model.safetensors"], &["ab", "cd"]).await;
    let runs = ["20260101_1-ab", "20260101_2-cd"].map(|r| format!("run-{r}"));
    check("l3", &tree, &["wandb/run-*/files/model.safetensors"], &[&runs[0], &runs[1]]).await;
    check("l4", &tree, &["wandb/run-*/files"], &[&runs[0], &runs[1]]).await;
    check("l5", &tree, &["out/*/checkpoint-500/model.safetensors"], &["a", "b"]).await;
    let all = ["a/checkpoint-500", "b/checkpoint-500", "b/checkpoint-900"];
    check("l6", &tree, &["out/*/checkpoint-*/model.safetensors"], &all).await;
    check("l7", &tree, &["out/*/checkpoint-*"], &all).await;
    check("l8", &tree, &["out/**/model.safetensors"], &all).await;
}

/// The notes on a pool of `m/model.safetensors` and `tree`; the names stay `expect`.
async fn noted(test: &str, tree: &[&str], expect: &[&str]) -> String {
    let root = memory(&format!("noted-{test}"));
    files(&root, &["p/m/model.safetensors"]).await;
    files(&root, tree).await;
    let pool = open_pool(&[format!("{root}/p")]).await.unwrap();
    assert_eq!(pool.checkpoints.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), expect);
    pool.notes.join("\n")
}

async fn left_out(test: &str, tree: &[&str], parts: &[&str]) {
    let notes = noted(test, tree, &["m"]).await;
    assert!(!parts.is_empty() || notes.is_empty(), "{notes}");
    parts.iter().for_each(|p| assert!(notes.contains(p), "no {p:?} in {notes}"));
}

#[tokio::test]
async fn what_is_left_out_is_noted() {
    left_out(
        "none",
        &["p/readme.md", "p/config.json", "p/.git/x.bin", "p/m/pytorch_model.bin", "p/m/logs/x"],
        &[],
    )
    .await;
    left_out("logs", &["p/logs/x", "p/empty/y"], &["\"empty\" and \"logs\", which hold no checkpoint"]).await;
    let doubtful = ["p/m.safetensor", "p/x.zip", "p/y.tar.gz", "p/z.bin"];
    left_out(
        "doubtful",
        &doubtful,
        &["\"x.zip\", \"y.tar.gz\" and \"z.bin\", which may hold checkpoints and are not"],
    )
    .await;
    left_out("training", &["p/optimizer.pt", "p/scheduler.safetensors"], &["training run's own"]).await;
    left_out("soup", &["p/s/model.safetensors", "p/s/soup.json"], &["\"s\", which is a soup"]).await;
    left_out(
        "trainer",
        &["p/m/checkpoint-5/model.safetensors"],
        &["\"checkpoint-5\", which is beside its model.safe"],
    )
    .await;
    left_out(
        "runs",
        &[
            "p/m/epoch_2/model.safetensors",
            "p/m/old/run/x.safetensors",
            "p/m/logs/x",
            "p/m/.git/y.safetensors",
        ],
        &["p/m: \"epoch_2\" and \"old\", which are beside its model.safetensors: name", "/p/m/* in the pool"],
    )
    .await;
    left_out(
        "beside",
        &["p/m/ema.safetensors", "p/m/model.fp16.safetensors"],
        &["\"ema.safetensors\" and \"model.fp16"],
    )
    .await;
    left_out(
        "deep",
        &["p/group/a/model.safetensors"],
        &["p/group, which holds checkpoints deeper", "/p/group/**/model"],
    )
    .await;
    left_out(
        "deep-many",
        &["p/a/run/model.safetensors", "p/b/run/model.safetensors"],
        &[
            "p: \"a\" and \"b\", which hold checkpoints deeper, such as a/run/model",
            "name memory:///noted-deep-many/p/**/model",
        ],
    )
    .await;
    left_out(
        "deep-others",
        &["p/a/run/model.safetensors", "p/b/run/best.safetensors"],
        &["name memory:///noted-deep-others/p/a/**/model", "name memory:///noted-deep-others/p/b/**/best"],
    )
    .await;
    left_out(
        "nested",
        &["p/g/a.safetensors", "p/g/b.safetensors"],
        &["folder of checkpoints itself (\"a.safetensors\""],
    )
    .await;
    let same = noted("same", &["p/x.safetensors", "p/x.pt"], &["m", "x"]).await;
    assert!(same.contains("\"x.pt\", which is a checkpoint that is there as safetensors too"), "{same}");
}

#[tokio::test]
async fn what_is_deeper_is_told_by_what_it_is() {
    left_out(
        "deep-shards",
        &["p/group/a/model-00001-of-00002.safetensors", "p/group/a/model.safetensors.index.json"],
        &["p/group, which holds checkpoints deeper", "/p/group/a in the pool to take it"],
    )
    .await;
    left_out(
        "deep-torch",
        &["p/group/checkpoint-5/pytorch_model.bin", "p/group/checkpoint-5/optimizer.pt"],
        &["p/group, which holds checkpoints deeper that are not read: checkpoint-5/pytorch_model.bin is a PyTorch file"],
    )
    .await;
    left_out(
        "deep-both",
        &["p/group/a/adapter_model.safetensors", "p/group/b/model.safetensors"],
        &["/p/group/**/model.safetensors in the pool"],
    )
    .await;
    left_out(
        "deep-adapter",
        &["p/group/a/adapter_model.safetensors"],
        &["p/group, of which a/adapter_model.safetensors is an adapter"],
    )
    .await;
}

#[tokio::test]
async fn checkpoints_beside_what_counts_are_noted() {
    let root = memory("beside");
    let all: Vec<String> = (0..70).map(|n| format!("many/{n:02}/x")).collect();
    files(&root, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let tree = [
        "p/model.safetensors",
        "p/a/model.safetensors",
        "p/best_model/model.safetensors",
        "q/ingredients/a/model.safetensors",
        "q/c/model.safetensors",
        "q/e.safetensors",
        "q/logs/x",
        "many/model.safetensors",
    ];
    files(&root, &tree).await;
    for (url, names, expect) in [
        ("p", ["p"], "p: \"a\" and \"best_model\", which are beside its model.safetensors"),
        (
            "q",
            ["a"],
            "q: \"c\" and \"e.safetensors\", which are beside its folder \"ingredients\", which counts",
        ),
        ("many", ["many"], "/many has 6 more folders, which were not looked into"),
    ] {
        let pool = open_pool(&[format!("{root}/{url}")]).await.unwrap();
        assert_eq!(pool.checkpoints.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), names);
        assert!(pool.notes.len() == 1 && pool.notes[0].contains(expect), "{:?}", pool.notes);
    }
}

#[tokio::test]
async fn soups_are_ingredients_where_nothing_else_is() {
    let tree = ["s/a/model.safetensors", "s/a/soup.json", "s/b/model.safetensors", "s/b/soup.json"];
    check("soups", &tree, &["s"], &["a", "b"]).await;
    check("soup", &tree, &["s/a"], &["a"]).await;
}

#[tokio::test]
async fn what_plainly_is_a_checkpoint_is_not_left_out() {
    let cases: [(&[&str], &str); 12] = [
        (
            &["x/pytorch_model.bin", "x/config.json"],
            "\"x\": pytorch_model.bin is a PyTorch file: load it there",
        ),
        (&["x.ckpt"], "\"x.ckpt\" is a PyTorch file"),
        (&["x/tf_model.h5"], "TensorFlow"),
        (&["x/flax_model.msgpack"], "Flax"),
        (&["x/q4.gguf"], "GGUF"),
        (&["x/adapter_config.json", "x/adapter_model.safetensors"], "\"x\" holds an adapter (LoRA, PEFT)"),
        (&["x/model-00001-of-00002.safetensors"], "no model.safetensors.index.json: bring the index"),
        (&["x-00001-of-00002.safetensors"], "one of several files of a checkpoint"),
        (&["x/model.fp16.safetensors"], "only a variant, model.fp16.safetensors"),
        (&["x/model.safetensors.index.fp16.json"], "only a variant, model.safetensors.index.fp16.json"),
        (&["x/best.safetensors"], "name memory:///refused-10/p/x/best.safetensors, or */best.safetensors"),
        (&["x/model.safetensors.gz"], "not whole, or packed"),
    ];
    for (at, (tree, expect)) in cases.into_iter().enumerate() {
        let root = memory(&format!("refused-{at}"));
        let folder = root.join("p").unwrap();
        files(&folder, &["m.safetensors"]).await;
        files(&folder, tree).await;
        fails(open_pool(&[folder.to_string()]).await, ErrorKind::Data, expect);
        // Whoever names the others is understood.
        assert_eq!(pool(&root, &["p/m*"]).await.unwrap(), ["m"]);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn broken_links_are_refused_or_noted() {
    let dir = tempfile::tempdir().unwrap();
    let root = Location::local(dir.path()).unwrap();
    files(&root, &["p/m.safetensors", "p/x/config.json"]).await;
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
    // One of a file that is no checkpoint by its name.
    link("/nowhere/read", "p/readme.md");
    let pool = open_pool(&[format!("{root}/p")]).await.unwrap();
    let expect = "\"readme.md\", which is a broken link to /nowhere/read";
    assert!(pool.notes.iter().any(|note| note.contains(expect)), "{:?}", pool.notes);
    for name in ["run", "run.v2", "best.safetensors"] {
        link("/nowhere/run", &format!("p/{name}"));
        for url in ["p", "p/*"] {
            let error = open_pool(&[format!("{root}/{url}")]).await.unwrap_err();
            let text = error.chain();
            assert!(error.kind() == ErrorKind::Data && text.contains(&format!("\"{name}\"")), "{text}");
            assert!(text.contains("is a broken link to /nowhere/run"), "{text}");
        }
        assert_eq!(open_pool(&[format!("{root}/p/m*")]).await.unwrap().checkpoints.len(), 1);
        std::fs::remove_file(dir.path().join(format!("p/{name}"))).unwrap();
    }
    // Nobody knows what a glob would have found behind it; those of other tools (`latest-run`) are often broken.
    files(&root, &["w/run-1/files/model.safetensors"]).await;
    link("run-0", "w/latest-run");
    let pool = open_pool(&[format!("{root}/w/*/files/*.safetensors")]).await.unwrap();
    assert!(pool.notes[0].contains("\"latest-run\", which is a broken link to run-0"), "{:?}", pool.notes);
    assert_eq!(open_pool(&[format!("{root}/w/run-*/files/*.safetensors")]).await.unwrap().notes, [""; 0]);
    std::os::unix::fs::symlink("../../blobs/1", dir.path().join("p/x/model.safetensors")).unwrap();
    let refused = open_pool(&[format!("{root}/p")]).await;
    fails(refused, ErrorKind::Data, "\"x\": model.safetensors is a broken link to ../../blobs/1");
    let named = open_pool(&[format!("{root}/p/x/model.safetensors")]).await;
    fails(named, ErrorKind::Data, "model.safetensors is a broken link to ../../blobs/1");
}

#[cfg(unix)]
#[tokio::test]
async fn folders_that_cannot_be_named_or_read_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let root = Location::local(dir.path()).unwrap();
    files(&root, &["p/m.safetensors"]).await;
    std::fs::create_dir(dir.path().join(std::ffi::OsStr::from_bytes(b"p/caf\xe9"))).unwrap();
    let expect = "which may be a checkpoint, is not named in UTF-8";
    fails(pool(&root, &["p"]).await, ErrorKind::Data, expect);
    assert_eq!(pool(&root, &["p/m*"]).await.unwrap(), ["m"]);
    std::fs::remove_dir(dir.path().join(std::ffi::OsStr::from_bytes(b"p/caf\xe9"))).unwrap();
    std::fs::create_dir(dir.path().join("p/run\t1")).unwrap();
    let expect = "\"run\\t1\", which may be a checkpoint, is not usable as a name";
    fails(pool(&root, &["p"]).await, ErrorKind::Data, expect);
    // Whoever runs tests may be allowed to read every folder.
    let none = Vec::new;
    let unreadable = |name: &str| vec![crate::listing::Odd::folder(name, "a folder that cannot be read")];
    let refused = survey::among("p", none(), unreadable("run")).await.unwrap().refused;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains("\"run\", which may be a checkpoint, is a folder that"), "{refused:?}");
    let survey = survey::among("p", none(), unreadable("lost+found")).await.unwrap();
    assert!(survey.refused.is_empty() && survey.notes[0].contains("lost+found"), "{survey:?}");
}

#[tokio::test]
async fn what_would_block_is_refused_by_name() {
    use crate::conformance::fifo;
    let dir = tempfile::tempdir().unwrap();
    let root = Location::local(dir.path()).unwrap();
    files(&root, &["p/m.safetensors", "p/x/config.json", "q/a/model.safetensors", "q/b/model.safetensors"])
        .await;
    fifo(&dir.path().join("fifo.safetensors"));
    fifo(&dir.path().join("fifo"));
    for name in ["fifo.safetensors", "fifo"] {
        let named = open_pool(&[format!("{root}/{name}")]).await;
        fails(named, ErrorKind::Data, &format!("{name} is a FIFO, not a file"));
    }
    fails(open_pool(&["/dev/zero".to_owned()]).await, ErrorKind::Data, "/dev/zero is a device, not a file");
    fails(open_pool(&[format!("{root}/*.safetensors")]).await, ErrorKind::Data, "is a FIFO, not a file");
    fifo(&dir.path().join("p/x/model.safetensors"));
    let refused = open_pool(&[format!("{root}/p")]).await;
    fails(refused, ErrorKind::Data, "\"x\": model.safetensors is a FIFO, not a file");
    std::fs::remove_file(dir.path().join("p/x/model.safetensors")).unwrap();
    fifo(&dir.path().join("p/x/model.safetensors.index.json"));
    let refused = open_pool(&[format!("{root}/p")]).await;
    fails(refused, ErrorKind::Data, "\"x\": model.safetensors.index.json is a FIFO, not a file");

    let pool = async || open_pool(&[format!("{root}/q")]).await.unwrap().checkpoints;
    let config = dir.path().join("q/b/config.json");
    fifo(&config);
    let expect = "b/config.json is a FIFO, not a file";
    fails(companions(&pool().await[1]).await, ErrorKind::Data, expect);
    fails(crate::companion::check(&pool().await, &[]).await, ErrorKind::Data, expect);
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    let expect = "b/config.json is a folder, not a file";
    fails(companions(&pool().await[1]).await, ErrorKind::Data, expect);
    fails(crate::companion::check(&pool().await, &[]).await, ErrorKind::Data, expect);
}

fn model() -> Vec<u8> {
    safetensors(&small_schema(), |_| 1)
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_companion_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
    write("model.safetensors", &model());
    write("config.json", b"{}");
    let url = [dir.path().to_str().unwrap().to_owned()];
    let found = async || companions(&open_pool(&url).await.unwrap().checkpoints[0]).await;
    assert_eq!(found().await.unwrap().len(), 1);
    write("spiece.model", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    fails(found().await, ErrorKind::Data, "spiece.model is not what it is called but a Git LFS pointer");
    std::fs::remove_file(dir.path().join("spiece.model")).unwrap();
    write("tokenizer.json", b"<!DOCTYPE html>");
    fails(found().await, ErrorKind::Data, "tokenizer.json is not what it is called but a web page");
}

#[tokio::test]
async fn files_of_settings_with_millions_of_values_are_refused() {
    let many = format!("[{}0]", "0,".repeat(1 << 19));
    for name in ["special_tokens_map.json", "added_tokens.json"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), model()).unwrap();
        std::fs::write(dir.path().join(name), &many).unwrap();
        let pool = open_pool(&[dir.path().to_str().unwrap().to_owned()]).await.unwrap();
        let expect = format!("{name} has 524290 values, and files of settings have at most");
        fails(companions(&pool.checkpoints[0]).await, ErrorKind::Data, &expect);
    }
}

#[cfg(feature = "cloud")]
#[tokio::test]
async fn pages_that_a_web_server_has_for_whatever_is_not_there_are_no_companions() {
    let server = std::sync::Arc::new(crate::http_fixture::Server { pages: true, ..Default::default() });
    let add = |name: &str, content: Vec<u8>| server.files.lock().unwrap().insert(name.to_owned(), content);
    let urls = ["a", "b"].map(|name| {
        add(&format!("p/{name}/model.safetensors"), model());
        format!("p/{name}/model.safetensors")
    });
    add("p/config.json", b"{\"x\": 1}".to_vec());
    add("p/a/vocab.txt", b"word".to_vec());
    let root = server.start().await;
    let pool = open_pool(&urls.map(|url| format!("{root}/{url}"))).await.unwrap().checkpoints;
    let mut found = companions(&pool[0]).await.unwrap();
    found.sort();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["config.json", "vocab.txt"]);
    assert_eq!(
        place_of(&pool[0], "config.json").await.unwrap().unwrap().to_string(),
        format!("{root}/p/config.json")
    );
    crate::companion::check(&pool, &[]).await.unwrap();
}

#[cfg(feature = "cloud")]
#[tokio::test]
async fn a_server_that_does_not_allow_head_has_files() {
    let server = std::sync::Arc::new(crate::http_fixture::Server { headless: true, ..Default::default() });
    server.files.lock().unwrap().insert("m.safetensors".to_owned(), model());
    let root = server.start().await;
    let there = open_pool(&[format!("{root}/m.safetensors")]).await;
    fails(there, ErrorKind::Configuration, "m.safetensors is there, and its server does not allow HEAD");
    let absent = open_pool(&[format!("{root}/x.safetensors")]).await;
    fails(absent, ErrorKind::Data, "x.safetensors does not exist");
}
