//! `/openapi.json` and `/docs`: the API's description, generated from the handlers, and a page to try it out.

use actix_web::web::ServiceConfig;
use actix_web::{HttpResponse, Responder};
use service::resource;
use utoipa::OpenApi;
use utoipa::openapi::server::{ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::{OpenApi as Description, Server};
use utoipa_swagger_ui::SwaggerUi;

use super::{
    coordinators, events, jobs, logs, outputs, programs, pull, results, skipping, statistics, stats, sum_of_primes,
    tasks, workers,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "divvy",
        description = "Divides big computations over a pool of workers and answers exactly. Every error is a problem \
                       detail (RFC 9457).",
    ),
    paths(
        jobs::submit, jobs::put, jobs::list, jobs::show, jobs::explain, results::of_job, results::by_name, jobs::act, jobs::act_on_all,
        tasks::list, skipping::skip, outputs::show, events::of_job, events::of_all, coordinators::list, stats::show, stats::simulate, statistics::periods, statistics::tasks,
        programs::put, programs::list, programs::show, programs::delete, programs::names, logs::of_job,
        sum_of_primes::answer, workers::list, workers::drain, pull::claim, pull::complete, pull::fail, pull::renew, pull::release,
    ),
    components(schemas(api::StreamReset)),
    tags(
        (name = "jobs", description = "Submit, follow and change jobs"),
        (name = "programs", description = "Programs of your own, run as jobs of the kind `program`"),
        (name = "events", description = "Events of jobs, as Server-Sent Events"),
        (name = "grid", description = "The grid as a whole"),
        (name = "statistics", description = "Figures by period, kind of job and name of task"),
        (name = "workers", description = "Workers, and the interface for those that fetch their tasks"),
        (name = "primes", description = "Sums of primes without a job"),
    ),
)]
struct Api;

/// The description with this program's version.
fn description() -> Description {
    let mut description = Api::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut description.info.version);
    // Without a license in the manifest there is an empty one, which is invalid.
    description.info.license = None;
    for (path, item) in &mut description.paths.paths {
        if path.starts_with("/v1/worker/") {
            for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
                operation.servers = Some(vec![internal_port()]);
            }
        }
    }
    description
}

/// The port for workers.
fn internal_port() -> Server {
    let host = ServerVariableBuilder::new().default_value("localhost").description(Some("The coordinator's host"));
    let port = ServerVariableBuilder::new().default_value("8081").description(Some("The port of DIVVY_INTERNAL_ADDR"));
    let server = ServerBuilder::new().url("http://{host}:{port}").description(Some("The coordinator's internal port"));
    server.parameter("host", host).parameter("port", port).build()
}

pub(super) fn configure(config: &mut ServiceConfig) {
    let description = description();
    let page = SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", description);
    config.service(resource("/docs", "GET").get(to_page)).service(page);
}

async fn to_page() -> impl Responder {
    HttpResponse::PermanentRedirect().insert_header(("Location", "/docs/")).finish()
}
