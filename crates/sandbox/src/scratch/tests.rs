use std::os::unix::fs::{PermissionsExt, chown, symlink};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::*;

fn root() -> (tempfile::TempDir, ScratchRoot) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = ScratchRoot::open(&directory.path().join("root")).expect("a root");
    (directory, root)
}

#[test]
fn a_scratch_directory_goes_with_all_that_is_in_it() {
    let (_keep, root) = root();
    let scratch = root.create().expect("created");
    let path = scratch.path().to_owned();
    let outside = root.directory.join("outside");
    fs::write(&outside, "stays").expect("written");
    fs::create_dir(path.join("closed")).expect("made");
    fs::write(path.join("closed/file"), "x").expect("written");
    fs::write(path.join("moved-0"), "in the way").expect("written");
    fs::create_dir_all(path.join("moved-1/a/b/c")).expect("made");
    symlink(&outside, path.join("link")).expect("linked");
    fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o000)).expect("closed");
    drop(scratch);
    assert!(!path.exists());
    assert!(outside.exists());
}

#[test]
fn rights_are_given_to_directories_and_not_to_what_links_lead_to() {
    let (_keep, root) = root();
    let scratch = root.create().expect("created");
    let (outside, closed) = (root.directory.join("outside"), scratch.path().join("closed"));
    for (directory, mode) in [(&outside, 0o500), (&closed, 0o000)] {
        fs::create_dir(directory).expect("made");
        fs::set_permissions(directory, fs::Permissions::from_mode(mode)).expect("set");
    }
    symlink(&outside, scratch.path().join("link")).expect("linked");
    let top = open_directory(CWD, scratch.path()).expect("open");
    assert!(give_rights(top.as_fd(), "link").is_err());
    give_rights(top.as_fd(), "closed").expect("a directory");
    let mode = |directory: &Path| fs::metadata(directory).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&outside), mode(&closed)), (0o500, 0o700));
}

#[test]
fn a_directory_that_may_not_be_searched_or_written_is_measured_and_removed() {
    // The rights of root, which reach everywhere, are given up by a thread of its own.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
                .expect("fewer rights are always granted");
            let (_keep, root) = root();
            for mode in [0o000, 0o100, 0o300, 0o400, 0o500, 0o600] {
                let scratch = root.create().expect("created");
                let (path, closed) = (scratch.path().to_owned(), scratch.path().join("closed"));
                fs::create_dir(&closed).expect("made");
                fs::write(closed.join("file"), vec![1; 1 << 20]).expect("written");
                let close = || fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).expect("closed");
                close();
                assert!(size_of(&path, u64::MAX).expect("measured") > 1 << 20, "{mode:o}");
                close();
                drop(scratch);
                assert!(!path.exists(), "{mode:o}");
            }
        });
    });
}

#[test]
fn a_tree_deeper_than_any_path_is_too_deep_to_measure_and_is_removed() {
    let (_keep, root) = root();
    let scratch = root.create().expect("created");
    let mut at = open_directory(CWD, scratch.path()).expect("open");
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("made");
        at = open_directory(at.as_fd(), "d").expect("open");
    }
    assert_eq!(size_of(scratch.path(), u64::MAX), Err(Unmeasurable));
    let path = scratch.path().to_owned();
    drop(scratch);
    assert!(!path.exists());
}

#[test]
fn size_counts_blocks_and_entries_but_not_what_links_lead_to() {
    let (_keep, root) = root();
    let scratch = root.create().expect("created");
    fs::write(scratch.path().join("file"), vec![1; 1 << 20]).expect("written");
    symlink("/", scratch.path().join("link")).expect("linked");
    let size = size_of(scratch.path(), u64::MAX).expect("measured");
    assert!(((1 << 20)..(1 << 20) + 4 * ENTRY_BYTES).contains(&size), "{size}");
    assert!(size_of(scratch.path(), 4096).expect("measured") > 4096);
    for name in ["same file", "same file again"] {
        fs::hard_link(scratch.path().join("file"), scratch.path().join(name)).expect("linked");
    }
    let again = size_of(scratch.path(), u64::MAX).expect("measured");
    assert!(((1 << 20)..(1 << 20) + 6 * ENTRY_BYTES).contains(&again), "{again}");
    for name in 0..2 * MAX_DEPTH {
        fs::create_dir(scratch.path().join(name.to_string())).expect("made");
    }
    assert!(size_of(scratch.path(), u64::MAX).expect("wide, not deep") > size);
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("root");
    let living = ScratchRoot::open(&path).expect("a root");
    let kept = living.create().expect("created");
    let abandoned = path.join("run-dead");
    fs::create_dir_all(abandoned.join("task-1/x")).expect("made");
    fs::write(abandoned.join(LOCK), "").expect("written");
    drop(ScratchRoot::open(&path).expect("a root"));
    assert!(kept.path().exists());
    assert!(!abandoned.exists());
}

#[test]
fn a_directory_that_could_not_be_removed_is_removed_by_a_later_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("root");
    let open = || drop(ScratchRoot::open(&path).expect("a root"));
    open();
    // Several: the order in which a file system lists names is its own.
    let abandoned: Vec<_> = (0..16).map(|number| path.join(format!("run-dead-{number}"))).collect();
    for (number, run) in abandoned.iter().enumerate() {
        let task = run.join(format!("task-{number}"));
        fs::create_dir_all(&task).expect("made");
        fs::write(task.join("file"), "").expect("written");
        fs::set_permissions(&task, fs::Permissions::from_mode(0o700)).expect("set");
        if chown(&task, Some(65534), None).is_err() {
            // Only a superuser's tests can make a directory that belongs to another user.
            return;
        }
        fs::write(run.join(LOCK), "").expect("written");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
                .expect("fewer rights are always granted");
            open();
        });
    });
    assert!(abandoned.iter().all(|run| run.exists()));
    open();
    assert!(!abandoned.iter().any(|run| run.exists()));
}

#[test]
fn processes_that_start_at_the_same_time_keep_their_directories() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("root");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let root = ScratchRoot::open(&path).expect("a root");
                    assert!(root.create().expect("created").path().exists());
                }
            });
        }
    });
}

#[test]
fn a_root_that_others_can_enter_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    assert_eq!(ScratchRoot::open(directory.path()).expect_err("open to all").kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_disk_without_blocks_or_files_is_full_and_the_part_kept_for_root_is_roots() {
    let (_keep, root) = root();
    let is_full = |[all, free, free_for_others]: [u64; 3], [files, free_files]: [u64; 2], is_root| {
        let found = statvfs(&root.directory).expect("there");
        let stat = StatVfs {
            f_frsize: 4096,
            f_blocks: all,
            f_bfree: free,
            f_bavail: free_for_others,
            f_files: files,
            f_ffree: free_files,
            f_favail: free_files,
            ..found
        };
        super::is_full(&stat, is_root)
    };
    for is_root in [true, false] {
        assert!(!is_full([2000, 1000, 1000], [10, 5], is_root));
        assert!(!is_full([2000, 1000, 1000], [0, 0], is_root), "it has no bound on files");
        assert!(!is_full([0, 0, 0], [0, 0], is_root), "it has no bound at all");
        assert!(is_full([2000, 1, 1], [10, 5], is_root));
        assert!(is_full([2000, 1000, 1000], [10, 0], is_root));
        assert_eq!(is_full([2000, 1000, 0], [10, 5], is_root), !is_root);
    }
}
