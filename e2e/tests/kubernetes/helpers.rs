//! Renders the manifests once and hands them out as typed objects.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use k8s_openapi::{
    Resource,
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{Container, PodSpec},
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) static GRID: LazyLock<Vec<Value>> = LazyLock::new(|| render(&repository("k8s")));
pub(crate) static HIGH_AVAILABILITY: LazyLock<Vec<Value>> =
    LazyLock::new(|| render(&repository("k8s/overlays/high-availability")));
pub(crate) static MONITORING: LazyLock<Vec<Value>> = LazyLock::new(|| render(&repository("k8s/monitoring")));

/// The objects of every component of `k8s/components`, each over its grid.
pub(crate) static COMPONENTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let directories = std::fs::read_dir(repository("k8s/components")).expect("the components");
    let names = directories.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let over = |name: &str| if name.starts_with("monitoring") { "k8s/monitoring" } else { "k8s" };
    let with = |name: &str| if name == "preflight-front" { vec!["k8s/components/front"] } else { Vec::new() };
    let rendered = names.flat_map(|name| {
        let own = format!("k8s/components/{name}");
        render_overlay(&[over(&name)], &[with(&name), vec![own.as_str()]].concat())
    });
    rendered.collect()
});

/// The grid with a component of `k8s/components`.
pub(crate) fn with_component(component: &str) -> Vec<Value> {
    render_overlay(&["k8s"], &[&format!("k8s/components/{component}")])
}

/// The objects of a user's overlay over these directories of the repository.
pub(crate) fn render_overlay(resources: &[&str], components: &[&str]) -> Vec<Value> {
    render(overlay(resources, components, "divvy").path())
}

/// An overlay of someone's own that names these directories of the repository, in a namespace.
pub(crate) fn overlay(resources: &[&str], components: &[&str], namespace: &str) -> TempDir {
    let overlay = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    // Kustomize takes relative paths only.
    let depth = overlay.path().canonicalize().expect("a path").components().count() - 1;
    let relative = |path: &&str| {
        let path = repository(path).canonicalize().expect("a directory of the repository");
        format!("{}{}", "../".repeat(depth), path.strip_prefix("/").expect("absolute").display())
    };
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": resources.iter().map(relative).collect::<Vec<_>>(),
        "components": components.iter().map(relative).collect::<Vec<_>>(),
    });
    std::fs::write(overlay.path().join("kustomization.yaml"), kustomization.to_string()).expect("write an overlay");
    overlay
}

/// A copy of the files of a directory, without those below it.
pub(crate) fn copy_of(directory: &str) -> TempDir {
    let copy = TempDir::new().expect("a directory");
    for entry in std::fs::read_dir(repository(directory)).expect("a directory of the repository") {
        let from = entry.expect("an entry").path();
        if from.is_file() {
            std::fs::copy(&from, copy.path().join(from.file_name().expect("a name"))).expect("copy a file");
        }
    }
    copy
}

/// A path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// The objects of a directory of manifests.
pub(crate) fn render(directory: &Path) -> Vec<Value> {
    // If kubectl is too old, scripts/test.sh has built kustomize.
    let built = repository("target/tools/bin/kustomize");
    let (program, verb) = if built.is_file() { (built, "build") } else { (PathBuf::from("kubectl"), "kustomize") };
    let output = Command::new(program).arg(verb).arg(directory).output();
    let output = output.expect("kubectl 1.27 or newer runs (scripts/test.sh installs it)");
    let (said, directory) = (String::from_utf8_lossy(&output.stderr), directory.display());
    assert!(output.status.success(), "kustomize {directory}: {said}");
    assert_eq!(said, "", "kustomize warns of {directory}");
    let yaml = String::from_utf8(output.stdout).expect("manifests are UTF-8");
    serde_saphyr::from_multiple(&yaml).expect("kustomize writes valid YAML")
}

/// Every object of one kind in the grid.
pub(crate) fn all<T: Resource + DeserializeOwned>() -> Vec<T> {
    all_of(&GRID)
}

/// Every object of one kind among these.
pub(crate) fn all_of<T: Resource + DeserializeOwned>(objects: &[Value]) -> Vec<T> {
    objects
        .iter()
        .filter(|object| object["apiVersion"] == T::API_VERSION && object["kind"] == T::KIND)
        .map(|object| T::deserialize(object).unwrap_or_else(|error| panic!("{error} in {object}")))
        .collect()
}

/// The object of one kind and name.
pub(crate) fn object<T: Resource + DeserializeOwned>(name: &str) -> T {
    let found = GRID.iter().find(|object| {
        object["apiVersion"] == T::API_VERSION && object["kind"] == T::KIND && object["metadata"]["name"] == name
    });
    let found = found.unwrap_or_else(|| panic!("no {} named {name}", T::KIND));
    T::deserialize(found).unwrap_or_else(|error| panic!("{error} in {found}"))
}

/// A kind of pod in the grid: coordinator or worker.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) replicas: i32,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) selector: Vec<(String, String)>,
    pub(crate) pod: PodSpec,
}

impl Workload {
    pub(crate) fn container(&self) -> &Container {
        let [container] = self.pod.containers.as_slice() else {
            panic!("{} has one container", self.name);
        };
        container
    }

    /// The number of the container port with this name.
    pub(crate) fn port(&self, name: &str) -> i32 {
        let ports = self.container().ports.iter().flatten();
        let mut named = ports.filter(|port| port.name.as_deref() == Some(name));
        let port = named.next();
        port.unwrap_or_else(|| panic!("{} has a port {name}", self.name)).container_port
    }

    /// The plain value of an environment variable.
    pub(crate) fn env(&self, name: &str) -> &str {
        let env = self.container().env.iter().flatten();
        let mut named = env.filter(|variable| variable.name == name);
        let value = named.next().and_then(|variable| variable.value.as_deref());
        value.unwrap_or_else(|| panic!("{} has {name}", self.name))
    }

    /// Whether a selector takes this workload's pods; the empty one takes all.
    pub(crate) fn is_selected(&self, selector: &[(String, String)]) -> bool {
        selector.iter().all(|pair| self.labels.contains(pair))
    }
}

pub(crate) fn coordinator() -> Workload {
    let object: StatefulSet = object("divvy-coordinator");
    let spec = object.spec;
    Workload {
        name: "divvy-coordinator",
        replicas: spec.replicas.expect("replicas are stated"),
        labels: pairs(spec.template.metadata.and_then(|metadata| metadata.labels)),
        selector: pairs(spec.selector.match_labels),
        pod: spec.template.spec.expect("the template has a pod"),
    }
}

pub(crate) fn worker() -> Workload {
    let object: Deployment = object("divvy-worker");
    let spec = object.spec;
    Workload {
        name: "divvy-worker",
        replicas: spec.replicas.expect("replicas are stated"),
        labels: pairs(spec.template.metadata.and_then(|metadata| metadata.labels)),
        selector: pairs(spec.selector.match_labels),
        pod: spec.template.spec.expect("the template has a pod"),
    }
}

/// A label map as pairs, none where there is none.
pub(crate) fn pairs(labels: Option<std::collections::BTreeMap<String, String>>) -> Vec<(String, String)> {
    labels.into_iter().flatten().collect()
}
