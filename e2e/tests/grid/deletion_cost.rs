//! Workers that keep the deletion cost of their pods.

use serde_json::Value;

use crate::helpers::{ApiServer, Coordinator, LONG_TASKS, Worker, eventually, published_sum};

const POD: (&str, &str) = ("DIVVY_DELETION_COST_POD", "divvy/divvy-worker-6d5f-x2x");
const PATH: &str = "/api/v1/namespaces/divvy/pods/divvy-worker-6d5f-x2x";

fn join(coordinator: &Coordinator, server: &ApiServer) -> Worker {
    let variables = server.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Worker::join(coordinator, &[&variables[..], &[POD]].concat())
}

fn costs(server: &ApiServer) -> Vec<Value> {
    let requests = server.requests();
    for request in &requests {
        let of_request = (&request["method"], &request["path"], &request["type"]);
        assert_eq!(of_request, (&"PATCH".into(), &PATH.into(), &"application/merge-patch+json".into()));
    }
    let annotation = "/body/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost";
    requests.iter().map(|request| request.pointer(annotation).expect("the annotation").clone()).collect()
}

#[test]
fn cost_of_a_pod_follows_the_busy_slots_of_its_worker_and_is_changed_seldom() {
    let (server, coordinator) = (ApiServer::start(), Coordinator::start(&[LONG_TASKS]));
    let _worker = join(&coordinator, &server);
    eventually("the cost of an idle worker is written", || (costs(&server) == ["0"]).then_some(()));
    let endless = coordinator.ask_endless();
    eventually("the cost of a busy worker is written", || (costs(&server) == ["0", "1"]).then_some(()));
    drop(endless);
    eventually("the cost of an idle worker is written", || (costs(&server) == ["0", "1", "0"]).then_some(()));
}

#[test]
fn work_goes_on_where_the_api_server_is_away_or_refuses() {
    let (mut server, coordinator) = (ApiServer::start(), Coordinator::start(&[]));
    server.refuse(Some(403));
    let refused = join(&coordinator, &server);
    let warning = refused.logged("the pod's deletion cost cannot be kept: busy workers may be taken away first");
    assert!(warning["error"].to_string().contains("403 Forbidden: divvy may not do this"), "{warning}");
    server.stop();
    let alone = join(&coordinator, &server);
    alone.logged("the pod's deletion cost cannot be kept: busy workers may be taken away first");
    assert_eq!(coordinator.sum(1, 10_u64.pow(6)).sum(), published_sum(6));
}
