//! Large results in S3, by a real server of its protocol.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use model::{AttemptId, JobKind, JobState, OutputObject, ProgramHash, ProgramKind, ProgramOutput};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use sha2::{Digest, Sha256};
use store::suite::helpers::*;
use store::{ChangeKind, NewJob, Objects, ProgramRecord, Retention, Store, memory::Memory};
use tempfile::TempDir;
use url::Url;

/// A server of S3 with one bucket, in a directory. It ends with the test's runtime.
async fn serve(directory: &TempDir) -> String {
    std::fs::create_dir(directory.path().join("bucket")).expect("room");
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory.path()).expect("a directory"));
    builder.set_auth(SimpleAuth::from_single("key", "secret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                // A client may leave.
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
            });
        }
    });
    format!("http://{address}")
}

fn open(url: &str, endpoint: &str, secret: &str) -> Objects {
    let settings = [
        ("aws_endpoint", endpoint),
        ("aws_access_key_id", "key"),
        ("aws_secret_access_key", secret),
        ("aws_region", "us-east-1"),
        ("aws_allow_http", "true"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Objects::open_with(&Url::parse(url).expect("a URL"), settings).expect("it is understood")
}

fn large(bytes: usize) -> String {
    format!("[{}1]", "12345, ".repeat(bytes / 7))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_results_go_to_s3_in_parts_and_come_back_until_they_are_deleted() {
    let directory = TempDir::new().expect("room");
    let endpoint = serve(&directory).await;
    let objects = open("s3://bucket/some/results", &endpoint, "secret").of_store(uuid::Uuid::from_u128(7));
    let mut parts = Memory::new().open();
    parts.objects = objects.clone();
    let keep_none = Retention { max_age: std::time::Duration::ZERO, max_bytes: 0 };
    let store = Store::start(parts, keep_none).expect("a thread");
    // An object in one piece, and an object in several parts.
    for (number, bytes) in [(1, 100_000), (2, 20_000_000)] {
        store.submit(range_job(number, 1)).await.expect("room");
        let result = store.put_result(id(number), raw(&large(bytes))).await.expect("it is stored");
        store.record(completed(id(number), 0..1, 1));
        store.commit(ended_with(id(number), JobState::Succeeded, result, at(1))).await.expect("room");
        let found = store.result(id(number)).await.expect("readable").expect("there");
        assert!(found.json == large(bytes), "{} bytes", found.json.len());
    }
    assert_eq!(objects.names().await.map(|names| names.len()), Ok(2));
    assert!(directory.path().join("bucket/some/results").exists());

    let elsewhere = TempDir::new().expect("room");
    let copies = Objects::local(elsewhere.path()).expect("a directory");
    for name in objects.names().await.expect("readable") {
        assert!(objects.copy(&name, &copies).await.expect("it is copied"), "{name} is not there");
    }
    assert_eq!(copies.names().await.map(|names| names.len()), Ok(2));

    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(2));
    assert_eq!(objects.names().await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_go_to_s3_piece_by_piece_and_are_copied_and_deleted_with_their_job() {
    let directory = TempDir::new().expect("room");
    let endpoint = serve(&directory).await;
    // A file of this server has the whole path and the id of the upload in its name.
    let objects = open("s3://bucket", &endpoint, "secret").of_store(uuid::Uuid::from_u128(7));
    let mut parts = Memory::new().open();
    parts.objects = objects.clone();
    let keep_none = Retention { max_age: std::time::Duration::ZERO, max_bytes: 0 };
    let store = Store::start(parts, keep_none).expect("a thread");
    store.submit(NewJob { kind: JobKind::PROGRAM, is_individual: true, ..range_job(1, 2) }).await.expect("room");
    let attempt = AttemptId(uuid::Uuid::from_u128(9));
    for (task, bytes) in [(0, 100_000), (1, 20_000_000)] {
        let content = large(bytes);
        let sha256 = ProgramHash(Sha256::digest(&content).into());
        let object = OutputObject { attempt, bytes: content.len() as u64, sha256, text: true };
        for _ in 0..2 {
            let mut upload = store.upload_output(id(1), task, object).expect("it leads");
            for piece in content.as_bytes().chunks(300_007) {
                upload.push(piece).await.expect("room");
            }
            assert_eq!(upload.finish().await, Ok(()));
        }
        assert_eq!(store.has_output(id(1), task, &object).await, Ok(true));
        let mut read = store.output_bytes(id(1), task, ProgramOutput::Object { object }).await.expect("there");
        let mut found = Vec::new();
        while let Some(piece) = read.next().await.expect("whole") {
            found.extend_from_slice(&piece);
        }
        assert!(found == content.as_bytes(), "{} bytes", found.len());
    }
    let elsewhere = TempDir::new().expect("room");
    let copies = Objects::local(elsewhere.path()).expect("a directory").of_store(uuid::Uuid::from_u128(7));
    assert_eq!(objects.copy_outputs(&copies).await.expect("copied"), 2);
    assert_eq!(copies.names().await.map(|names| names.len()), Ok(2));

    store.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert_eq!(objects.names().await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_go_to_s3_beside_objects_without_a_row_and_are_deleted_with_them() {
    let directory = TempDir::new().expect("room");
    let endpoint = serve(&directory).await;
    let objects = open("s3://bucket", &endpoint, "secret").of_store(uuid::Uuid::from_u128(7));
    let start = || {
        let mut parts = Memory::new().open();
        parts.objects = objects.clone();
        Store::start(parts, KEEP_ALL).expect("a thread")
    };
    // Each has no row for the objects of the other one.
    let (one, other) = (start(), start());
    for bytes in [100, 20_000_000] {
        let content = large(bytes);
        let hash = ProgramHash(Sha256::digest(&content).into());
        for store in [&one, &other] {
            let mut upload = store.upload_program(hash).await;
            for piece in content.as_bytes().chunks(300_007) {
                upload.push(piece).await.expect("room");
            }
            let (bytes, kind) = (content.len() as u64, ProgramKind::Wasm);
            let record = ProgramRecord { hash, bytes, kind, uploaded_at: at(1), uploaded_by: None };
            assert_eq!(store.put_program(upload, record).await, Ok(true));
            let mut read = store.program_bytes(hash).await.expect("readable").expect("there");
            let mut found = Vec::new();
            while let Some(piece) = read.next().await.expect("whole") {
                found.extend_from_slice(&piece);
            }
            assert!(found == content.as_bytes(), "{} bytes", found.len());
        }
        assert_eq!(objects.names().await.map(|names| names.len()), Ok(2));
        assert_eq!(other.delete_program(hash).await, Ok(true));
        assert_eq!(objects.names().await, Ok(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_is_told_before_a_result_is_to_be_stored_and_then() {
    let directory = TempDir::new().expect("room");
    let endpoint = serve(&directory).await;
    let start = |secret: &str| {
        let mut parts = Memory::new().open();
        parts.objects = open("s3://bucket", &endpoint, secret);
        Store::start(parts, KEEP_ALL).expect("a thread")
    };
    let (wait, right) = (std::time::Duration::from_mins(1), start("secret"));
    assert_eq!(right.try_place_of_results(wait).await, Ok(()));
    assert_eq!(open("s3://bucket", &endpoint, "secret").names().await, Ok(Vec::new()), "nothing is left");
    let store = start("wrong");
    let tried = store.try_place_of_results(wait).await;
    assert!(matches!(tried, Err(store::PlaceError::Refused { .. })), "{tried:?}");
    let refused = store.put_result(id(1), raw(&large(100_000))).await;
    assert!(matches!(refused, Err(store::WriteError::Results(_))), "{refused:?}");
}
