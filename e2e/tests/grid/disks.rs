//! Jobs on a disk that fails, fills up or holds damaged files.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use fastrand::Rng;
use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{Conduct, Coordinator, Order, Puller, Signal, Worker, eventually, get, heavy, request};

const DATABASE: &str = "divvy.db";

const CUTS: usize = 25;

/// Tasks that are small beside the disk.
const SMALL_TASKS: [(&str, &str); 2] = [("DIVVY_CHUNK_SIZE", "1000000"), ("DIVVY_LEASE_TARGET_MS", "20")];

#[test]
fn second_coordinator_on_the_same_data_is_told_that_they_are_in_use() {
    let coordinator = Coordinator::start(&[]);
    let error = Coordinator::try_start_on(coordinator.shared_data_dir()).expect_err("one at a time");
    let data_dir = coordinator.data_dir().display();
    assert!(error.contains(&format!("the data directory {data_dir} is in use by another process")), "{error}");
    assert_eq!(get(coordinator.public, "/readyz").status, 200);
}

#[test]
fn database_that_was_cut_is_named_unless_nothing_of_it_is_missing() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for signal in [Signal::TERM, Signal::KILL] {
        let mut coordinator = Coordinator::start(&[]);
        let worker = Worker::join(&coordinator, &[]);
        for order in [Order::sum(1, 7), Order::count(2, 6), Order::sleep(10, 0.001)] {
            let id = coordinator.submit(&order);
            assert_eq!(eventually("its result", || coordinator.client().result(&id)), order.result);
        }
        drop(worker);
        for count in 1..=30 {
            coordinator.submit(&Order::squares(&vec![count; 100]));
        }
        let before = states(&coordinator);
        coordinator.signal(signal);
        coordinator.exit_status();
        let length = fs::metadata(coordinator.data_dir().join(DATABASE)).expect("a database").len();
        let mut refused = 0;
        for cut in (0..CUTS).map(|cut| if cut == 0 { length } else { rng.u64(0..length) }) {
            let case = format!("after {signal:?}, {cut} of {length} bytes");
            let copy = Arc::new(copy_of(coordinator.data_dir()));
            let database = copy.path().join(DATABASE);
            OpenOptions::new().write(true).open(&database).expect("a database").set_len(cut).expect("shorter");
            match Coordinator::try_start_on(copy) {
                Ok(second) => assert_eq!(states(&second), before, "{case}"),
                Err(error) => {
                    assert!(error.contains(&database.display().to_string()), "{case}: {error}");
                    assert!(cut < length, "{case}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "after {signal:?}: whatever is cut off, all is there");
    }
}

#[test]
fn full_disk_refuses_new_jobs_while_the_old_ones_go_on_and_all_is_stored_once_there_is_room() {
    let _turn = heavy();
    let Some((data_dir, mount)) = small_disk(8) else { return };
    let coordinator = Coordinator::start_with_mount(data_dir, &mount, &SMALL_TASKS);
    let worker = Worker::join(&coordinator, &[]);
    let client = coordinator.client();
    let orders = [Order::sum(1, 10), Order::squares(&(0..3000).collect::<Vec<_>>()), Order::count(3, 8)];
    let jobs: Vec<_> = orders.iter().map(|order| coordinator.submit(order)).collect();
    eventually("they run", || (done(&client.job(&jobs[0])) > 0).then_some(()));

    let filler = coordinator.root().join(coordinator.data_dir().strip_prefix("/").expect("absolute")).join("filler");
    fill(&filler);
    let refused = eventually("a job is refused", || {
        let answer = request(coordinator.public, "POST", "/v1/jobs", &[], &Order::squares(&[7; 1000]).body);
        (answer.status != 201).then_some(answer)
    });
    assert_eq!(refused.problem(507), "nothing can be stored: the disk is full");
    let accepted = client.jobs().len();
    let stats = client.stats();
    assert_eq!(stats["store_error"], "the disk is full", "{stats}");
    coordinator.logged("nothing new is accepted: jobs that are there go on");
    assert_eq!(coordinator.metric("divvy_store_failing"), 1.0);
    assert_eq!(get(coordinator.public, "/readyz").status, 200, "what runs goes on, and all can be seen");

    let puller = Puller { coordinator: coordinator.internal, name: "puller".to_owned() };
    let before = done(&client.job(&jobs[0]));
    for _ in 0..50 {
        let claim = puller.claim(10).expect("tasks");
        assert_eq!(puller.end(&claim, Conduct::Complete), Some(true));
    }
    assert!(done(&client.job(&jobs[1])) >= 500);
    eventually("the worker goes on", || (done(&client.job(&jobs[0])) > before).then_some(()));
    assert_eq!(client.stats()["store_error"], "the disk is full");
    eventually("the page warns of the disk", || {
        get(coordinator.public, "/").body.contains("attention-disk").then_some(())
    });
    assert!(coordinator.metric("divvy_disk_free_bytes") < coordinator.metric("divvy_disk_size_bytes") / 8.0);

    fs::remove_file(&filler).expect("it is there");
    eventually("all is stored", || (client.stats()["store_error"] == Value::Null).then_some(()));
    coordinator.logged("new jobs are accepted again");
    let late = coordinator.submit(&orders[2]);
    assert_eq!(client.jobs().len(), accepted + 1, "what was refused is not there");
    pull_all(&puller, || client.result(&jobs[1]).is_some());
    for (id, order) in jobs.iter().chain([&late]).zip(orders.iter().chain([&orders[2]])) {
        assert_eq!(eventually("its result", || client.result(id)), order.result);
    }
    assert!(worker.metric(r#"divvy_worker_leases_total{outcome="completed"}"#) > 0.0);
}

#[test]
fn coordinator_whose_data_directory_is_deleted_refuses_jobs_is_not_ready_and_says_so() {
    let coordinator = Coordinator::start(&[]);
    coordinator.submit(&Order::squares(&[1]));
    assert_eq!(get(coordinator.public, "/readyz").status, 200);
    let removed = Command::new("rm").arg("-rf").arg(coordinator.data_dir()).status().expect("rm");
    assert!(removed.success());
    let not_ready = eventually("it is not ready", || {
        let answer = get(coordinator.public, "/readyz");
        (answer.status != 200).then_some(answer)
    });
    let message = not_ready.problem(503);
    assert_eq!(message, "this service is not ready: the files of its store are gone or were replaced; try again later");
    let refused = request(coordinator.public, "POST", "/v1/jobs", &[], &Order::squares(&[7]).body);
    let message = refused.problem(507);
    let database = coordinator.data_dir().join(DATABASE);
    assert!(message.contains(&format!("the database {} was deleted", database.display())), "{message}");
    assert_eq!(get(coordinator.public, "/livez").status, 200);
    coordinator.logged("changes cannot be committed");
}

#[test]
fn jobs_are_canceled_on_a_full_disk_in_the_room_that_is_kept_for_them() {
    let _turn = heavy();
    let Some((data_dir, mount)) = small_disk(64) else { return };
    let coordinator = Coordinator::start_with_mount(data_dir, &mount, &[]);
    let client = coordinator.client();
    let jobs: Vec<_> = (0..200).map(|_| coordinator.submit(&Order::squares(&[7; 100]))).collect();
    let own_dir = coordinator.root().join(coordinator.data_dir().strip_prefix("/").expect("absolute"));
    assert_eq!(fs::metadata(own_dir.join("divvy.reserve")).expect("a reserve").len(), 4 << 20);
    fill(&own_dir.join("filler"));
    let submit = || request(coordinator.public, "POST", "/v1/jobs", &[], &Order::squares(&[7; 100]).body);
    assert_eq!(submit().problem(507), "nothing can be stored: the disk is full");
    for id in &jobs {
        let canceled = request(coordinator.public, "POST", &format!("/v1/jobs/{id}/cancel"), &[], "");
        assert_eq!(canceled.status, 200, "{}", canceled.body);
    }
    assert_eq!(submit().problem(507), "nothing can be stored: the disk is full");
    assert!(client.jobs().iter().all(|job| job["state"] == "canceled"));
    assert_eq!(client.stats()["store_error"], "the disk is full");

    fs::remove_file(own_dir.join("filler")).expect("it is there");
    eventually("there is room", || (client.stats()["store_error"] == Value::Null).then_some(()));
    assert_eq!(submit().status, 201);
    assert_eq!(fs::metadata(own_dir.join("divvy.reserve")).expect("a reserve").len(), 4 << 20);
}

#[test]
fn jobs_that_come_without_a_pause_leave_room_on_a_small_disk_to_cancel_them() {
    let _turn = heavy();
    let Some((data_dir, mount)) = small_disk(8) else { return };
    let coordinator = Coordinator::start_with_mount(data_dir, &mount, &[]);
    let submit = |order: &Order| request(coordinator.public, "POST", "/v1/jobs", &[], &order.body);
    let order = Order::squares(&[7; 60_000]);
    let refused = loop {
        let answer = submit(&order);
        if answer.status != 201 {
            break answer;
        }
    };
    let message = refused.problem(507);
    assert!(message.starts_with("nothing can be stored: the disk "), "{message}");
    assert_eq!(get(coordinator.public, "/readyz").status, 200);
    let jobs = coordinator.client().jobs();
    assert!(jobs.len() >= 10, "{} jobs", jobs.len());
    for job in &jobs {
        let path = format!("/v1/jobs/{}/cancel", job["id"].as_str().expect("an id"));
        let canceled = request(coordinator.public, "POST", &path, &[], "");
        assert_eq!(canceled.status, 200, "{}", canceled.body);
    }
    assert!(coordinator.client().jobs().iter().all(|job| job["state"] == "canceled"));
}

#[test]
fn limit_of_file_lengths_refuses_jobs_and_ends_no_coordinator() {
    let _turn = heavy();
    let data_dir = Arc::new(TempDir::new().expect("a directory"));
    let mount = format!("mount -t tmpfs -o size=16m none {} && ulimit -f 4096", data_dir.path().display());
    if !can_mount(&mount) {
        return;
    }
    let coordinator = Coordinator::start_with_mount(data_dir, &mount, &[]);
    let submit = || request(coordinator.public, "POST", "/v1/jobs", &[], &Order::squares(&[7; 2000]).body);
    let refused = eventually("a job is refused", || Some(submit()).filter(|answer| answer.status != 201));
    let message = refused.problem(503);
    assert!(message.starts_with("the store cannot be written"), "{message}");
    assert_eq!(get(coordinator.public, "/livez").status, 200);
    assert!(!coordinator.client().jobs().is_empty(), "reading goes on");
}

#[test]
fn disk_that_turns_read_only_refuses_new_jobs_and_keeps_the_old_ones() {
    let _turn = heavy();
    let images = TempDir::new().expect("a directory");
    let (image, data_dir) = (images.path().join("image"), Arc::new(TempDir::new().expect("a directory")));
    File::create(&image).and_then(|image| image.set_len(32 << 20)).expect("room");
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).stderr(Stdio::null()).status();
    let mount = format!("mount -o loop,errors=remount-ro {} {}", image.display(), data_dir.path().display());
    if !made.is_ok_and(|made| made.success()) || !can_mount(&mount) {
        eprintln!("not run: there is no file system of this test's own");
        return;
    }
    let mut coordinator = Coordinator::start_with_mount(Arc::clone(&data_dir), &mount, &SMALL_TASKS);
    let _worker = Worker::join(&coordinator, &[]);
    let client = coordinator.client();
    let order = Order::sum(1, 10);
    let job = coordinator.submit(&order);
    eventually("it runs", || (done(&client.job(&job)) > 0).then_some(()));
    let waiting = coordinator.submit(&Order::squares(&[1, 2, 3]));

    if fs::write(error_trigger(&coordinator), "1").is_err() {
        eprintln!("not run: the file system does not fail on demand");
        return;
    }
    let refused = eventually("a job is refused", || {
        let answer = request(coordinator.public, "POST", "/v1/jobs", &[], &order.body);
        (answer.status != 201).then_some(answer)
    });
    let message = refused.problem(503);
    assert!(message.starts_with("the store cannot be written"), "{message}");
    let accepted = client.jobs().len();
    assert_ne!(client.stats()["store_error"], Value::Null);
    coordinator.logged("changes cannot be committed");
    eventually("it goes on", || (done(&client.job(&job)) > 100).then_some(()));
    let puller = Puller { coordinator: coordinator.internal, name: "puller".to_owned() };
    let claim = puller.claim(10).expect("tasks");
    assert_eq!((claim.job.as_str(), puller.end(&claim, Conduct::Complete)), (waiting.as_str(), Some(true)));

    coordinator.signal(Signal::TERM);
    assert_eq!(coordinator.exit_status().code(), Some(1), "something is lost");
    let is_loss = |line: &String| line.contains(r#""message":"commit the last changes: "#);
    let log = eventually("it says what", || coordinator.log().into_iter().find(is_loss));
    assert!(log.contains(r#""level":"ERROR""#), "{log}");
    drop(coordinator);
    // The second start uses the same disk, after an operator's repair.
    let second = Coordinator::start_with_mount(data_dir, &mount, &SMALL_TASKS);
    let _worker = Worker::join(&second, &[]);
    assert_eq!(second.client().jobs().len(), accepted);
    assert_eq!(eventually("its result", || second.client().result(&job)), order.result);
    let puller = Puller { coordinator: second.internal, name: "puller".to_owned() };
    pull_all(&puller, || second.client().result(&waiting).is_some());
}

/// The id and the state of every job.
fn states(coordinator: &Coordinator) -> Vec<(Value, Value)> {
    coordinator.client().jobs().iter().map(|job| (job["id"].clone(), job["state"].clone())).collect()
}

fn done(job: &Value) -> u64 {
    job["tasks"]["succeeded"].as_u64().expect("a number")
}

fn pull_all(puller: &Puller, is_over: impl Fn() -> bool) {
    eventually("all is fetched and done", || {
        while let Some(claim) = puller.claim(100) {
            assert_eq!(puller.end(&claim, Conduct::Complete), Some(true));
        }
        is_over().then_some(())
    });
}

fn copy_of(directory: &Path) -> TempDir {
    let copy = TempDir::new().expect("a directory");
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("room");
        }
    }
    copy
}

/// Writes until there is no room at all.
pub(crate) fn fill(filler: &Path) {
    let mut file = File::create(filler).expect("a file needs no room");
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// A directory, and the command that mounts an empty file system of so many MiB on it; none where nothing can be mounted.
pub(crate) fn small_disk(mebibytes: u32) -> Option<(Arc<TempDir>, String)> {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let mount = format!("mount -t tmpfs -o size={mebibytes}m none {}", directory.path().display());
    can_mount(&mount).then_some((directory, mount))
}

/// Whether this process may mount something where nobody else sees it; if not, it says so.
fn can_mount(mount: &str) -> bool {
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", mount]).stderr(Stdio::null()).status();
    let can = tried.is_ok_and(|tried| tried.success());
    if !can {
        eprintln!("not run: nothing can be mounted here");
    }
    can
}

/// The file that makes the file system of the coordinator's data fail.
fn error_trigger(coordinator: &Coordinator) -> PathBuf {
    let mounts = fs::read_to_string(coordinator.root().parent().expect("/proc/<id>").join("mounts")).expect("readable");
    let data_dir = coordinator.data_dir().to_str().expect("a readable path");
    let device = mounts.lines().find(|line| line.split(' ').nth(1) == Some(data_dir)).expect("it is mounted");
    let device = device.split(' ').next().and_then(|device| device.strip_prefix("/dev/")).expect("a device");
    Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error")
}
