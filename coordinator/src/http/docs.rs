//! `/openapi.json` and `/docs`: the API's description, made from the handlers, and a page to try it out.

use actix_web::web::ServiceConfig;
use actix_web::{HttpResponse, Responder};
use service::resource;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Description;
use utoipa_swagger_ui::SwaggerUi;

use super::{events, jobs, programs, pull, stats, sum_of_primes, tasks, workers};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "divvy",
        description = "Divides big computations over a pool of workers and answers exactly. Every error is a problem \
                       detail (RFC 9457). The paths under /v1/worker are at the coordinator's internal port.",
    ),
    paths(
        jobs::submit, jobs::put, jobs::list, jobs::show, jobs::explain, jobs::result, jobs::named_result, jobs::act, jobs::act_on_all,
        tasks::list, events::of_job, events::of_all, stats::show, stats::simulate, sum_of_primes::answer,
        programs::put, programs::list, programs::show, programs::delete, programs::names, programs::logs,
        workers::list, pull::claim, pull::complete, pull::fail, pull::renew, pull::release,
    ),
    tags(
        (name = "jobs", description = "Submit, follow and change jobs"),
        (name = "programs", description = "Programs of your own, run as jobs of the kind `program`"),
        (name = "events", description = "What happens, as Server-Sent Events"),
        (name = "grid", description = "The grid as a whole"),
        (name = "workers", description = "Workers, and the face for those that fetch their tasks"),
        (name = "primes", description = "Sums of primes without a job"),
    ),
)]
struct Api;

/// The description with this program's version.
fn description() -> Description {
    let mut description = Api::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut description.info.version);
    // Without one in the manifest there is an empty one, which is none.
    description.info.license = None;
    description
}

pub(super) fn configure(config: &mut ServiceConfig) {
    let description = description();
    let page = SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", description);
    config.service(resource("/docs", "GET").get(to_page)).service(page);
}

async fn to_page() -> impl Responder {
    HttpResponse::PermanentRedirect().insert_header(("Location", "/docs/")).finish()
}
