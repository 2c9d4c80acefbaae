//! The image recipes, and the manifests' commands in them.

use crate::helpers::{Workload, coordinator, read, worker};

#[test]
fn manifests_run_the_images_of_this_release() {
    for workload in [coordinator(), worker()] {
        let image = format!("{}:{}", workload.name, env!("CARGO_PKG_VERSION"));
        assert_eq!(workload.container().image, Some(image));
        assert_eq!(workload.container().command, None);
        assert_eq!(workload.container().args, None);
    }
}

#[test]
fn user_of_the_image_is_the_user_of_the_manifest() {
    for workload in [coordinator(), worker()] {
        let [user] = &instructions(&workload, "USER")[..] else {
            panic!("{} sets its user once", workload.name);
        };
        let ids = user.split_once(':').expect("USER is uid:gid");
        let uid: i64 = ids.0.parse().expect("the user is a number");
        let gid: i64 = ids.1.parse().expect("the group is a number");
        assert!(uid > 10_000);
        let rights = workload.pod.security_context.expect("the pod is secured");
        assert_eq!(rights.run_as_user, Some(uid));
        assert_eq!(rights.run_as_group, Some(gid));
    }
}

#[test]
fn image_starts_its_own_binary_without_a_shell() {
    for workload in [coordinator(), worker()] {
        let [entrypoint] = &instructions(&workload, "ENTRYPOINT")[..] else {
            panic!("{} has one entry point", workload.name);
        };
        let words: Vec<String> = serde_json::from_str(entrypoint).expect("it is in exec form");
        assert_eq!(words, [format!("/usr/local/bin/{}", workload.name)]);
        assert_eq!(instructions(&workload, "CMD"), [""; 0]);
    }
}

#[test]
fn image_exposes_the_ports_of_its_container() {
    for workload in [coordinator(), worker()] {
        let exposed = instructions(&workload, "EXPOSE").join(" ");
        let ports = workload.container().ports.iter().flatten();
        let ports: Vec<_> = ports.map(|port| port.container_port.to_string()).collect();
        assert_eq!(exposed, ports.join(" "));
    }
}

#[test]
fn recipes_name_nothing_that_is_fetched_besides_their_pinned_bases() {
    let toolchain = format!("=docker.io/library/rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    for workload in [coordinator(), worker()] {
        let recipe = recipe(&workload).to_lowercase();
        assert!(!recipe.contains("syntax="), "a frontend is fetched");
        assert!(instructions(&workload, "ADD").is_empty());
        let bases = instructions(&workload, "ARG");
        assert!(bases.iter().any(|base| base.contains(&toolchain)));
        let images = bases.iter().filter(|base| base.contains("_IMAGE="));
        for base in images.filter_map(|base| base.split_once('=')) {
            let tag = base.1.rsplit_once(':').map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "{base:?}");
        }
        let stages = instructions(&workload, "FROM");
        assert!(stages.len() >= 2, "the compiler is not in the image");
    }
}

#[test]
fn image_says_which_release_it_is() {
    let version = format!("VERSION={}", env!("CARGO_PKG_VERSION"));
    for (recipe, base) in [
        ("Dockerfile.coordinator", "RUNTIME_IMAGE"),
        ("Dockerfile.worker", "RUNTIME_IMAGE"),
        ("Dockerfile.worker-slim", "RUNTIME_IMAGE"),
        ("sdk/python/Dockerfile.python-worker", "PYTHON_IMAGE"),
    ] {
        let text = read(recipe);
        assert!(instructions_of(&text, "ARG").contains(&version), "{recipe}");
        for label in ["title", "description", "version", "revision", "base.name"] {
            assert!(text.contains(&format!("org.opencontainers.image.{label}=")), "{label} is missing in {recipe}");
        }
        // Arguments before the first stage have no value in a stage that does not name them.
        let stage = text.rsplit_once("\nFROM ").expect("a last stage").1;
        for argument in [base, "VERSION", "REVISION"] {
            assert!(stage.contains(&format!("\nARG {argument}")), "{argument} is empty in {recipe}");
        }
    }
}

#[test]
fn image_to_extend_runs_the_same_worker_as_the_same_user() {
    let (own, slim) = (recipe(&worker()), read("Dockerfile.worker-slim"));
    for instruction in ["USER", "EXPOSE", "ENTRYPOINT"] {
        assert_eq!(instructions_of(&slim, instruction), instructions_of(&own, instruction), "{instruction}");
    }
    let image = format!("WORKER_IMAGE=divvy-worker:{}", env!("CARGO_PKG_VERSION"));
    assert!(instructions_of(&slim, "ARG").contains(&image), "it takes the binary from the image of this release");
    assert!(instructions_of(&slim, "RUN").is_empty(), "nothing is fetched");
}

/// The lines of a workload's Dockerfile with this instruction, without it.
fn instructions(workload: &Workload, instruction: &str) -> Vec<String> {
    instructions_of(&recipe(workload), instruction)
}

fn instructions_of(recipe: &str, instruction: &str) -> Vec<String> {
    let lines = recipe.lines();
    lines.filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' ')).map(str::to_owned).collect()
}

fn recipe(workload: &Workload) -> String {
    let component = workload.name.strip_prefix("divvy-");
    let component = component.expect("names start with the product's");
    read(&format!("Dockerfile.{component}"))
}
