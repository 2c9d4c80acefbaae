//! The dashboard: thin handlers that gather the data of the pages, which the crate `dashboard` renders, from the API's views.

mod actions;
mod assets;
mod coordinators;
mod job;
mod jobs;
mod live;
mod overview;
mod page;
mod shared_failure;
mod shared_statistics;
mod shared_streams;
mod sign_in;
mod snapshot;
mod statistics;
mod submit;
mod task_stream;
mod upload;
mod workers;

use std::sync::LazyLock;

use actix_web::web::ServiceConfig;
use service::{Right, Route, resource};

pub(crate) use snapshot::{Dashboard, run};

pub(crate) use submit::FORM_EXPANSION;
pub(super) use upload::FormFile;
pub(crate) use upload::OVERHEAD_BYTES as UPLOAD_OVERHEAD_BYTES;

use page::refused;

/// The routes of the pages. Every coordinator has the stored data; the leader knows best what runs now.
const ROUTES: &[Route] = &[
    Route::page("GET", "/", Right::Read, refused).by_leader_if_any(),
    Route::page("GET", "/task-stream", Right::Read, refused).by_leader_if_any(),
    Route::page("GET", "/task-stream/data", Right::Read, refused).by_leader_if_any(),
    Route::page("GET", "/jobs", Right::Read, refused).by_leader_if_any(),
    Route::page("GET", "/jobs/states", Right::Read, refused),
    Route::page("GET", "/jobs/{id}", Right::Read, refused).by_leader_if_any(),
    Route::page("GET", "/jobs/{id}/result", Right::Read, refused),
    Route::page("GET", "/jobs/all/{action}", Right::Submit, refused).by_leader_if_any(),
    Route::page("POST", "/jobs/all/{action}", Right::Submit, refused).by_leader().repeatable(),
    Route::page("GET", "/jobs/{id}/{action}", Right::Submit, refused).by_leader_if_any(),
    Route::page("POST", "/jobs/{id}/{action}", Right::Submit, refused).by_leader().repeatable(),
    Route::page("GET", "/submit", Right::Read, refused),
    // The form's key makes a repeated request the same submission.
    Route::page("POST", "/submit", Right::Submit, refused).form().by_leader().repeatable(),
    Route::page("POST", "/submit/program", Right::Programs, refused).file().by_leader().repeatable(),
    Route::page("GET", "/grid/workers", Right::Read, refused).by_leader_if_any(),
    Route::page("GET", "/grid/workers/{id}/drain", Right::Admin, refused).by_leader_if_any(),
    Route::page("POST", "/grid/workers/{id}/drain", Right::Admin, refused).by_leader().repeatable(),
    Route::page("GET", "/grid/coordinators", Right::Read, refused),
    Route::page("GET", "/statistics", Right::Read, refused),
    Route::page("GET", "/live", Right::Read, refused).by_leader_if_any(),
    Route::page("GET", "/sign-in", Right::Read, refused).without_token(),
    Route::page("POST", "/sign-in", Right::Read, refused).without_token(),
    Route::page("POST", "/sign-out", Right::Read, refused).without_token(),
    Route::page("GET", "/assets/{name}", Right::Read, refused).without_token(),
    Route::elsewhere(refused),
];

static WITH_PAGES: LazyLock<Vec<Route>> = LazyLock::new(|| [super::PUBLIC, ROUTES].concat());

/// The routes of the public port, with the pages or without them.
pub(crate) fn public_routes(has_pages: bool) -> &'static [Route] {
    if has_pages { &WITH_PAGES } else { super::PUBLIC }
}

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource("/", "GET").get(overview::show))
        .service(resource("/task-stream", "GET").get(task_stream::show))
        .service(resource("/task-stream/data", "GET").get(task_stream::data))
        .service(resource("/jobs/states", "GET").get(jobs::states))
        .service(resource("/jobs", "GET").get(jobs::list))
        .service(resource("/jobs/{id}", "GET").get(job::show))
        .service(resource("/jobs/all/{action}", "GET, POST").get(actions::ask).post(actions::act_on_all))
        .service(resource("/jobs/{id}/result", "GET").get(job::result))
        .service(resource("/jobs/{id}/{action}", "GET, POST").get(actions::ask_of_one).post(actions::act))
        .service(resource("/submit", "GET, POST").get(submit::form).post(submit::submit))
        .service(resource("/submit/program", "POST").post(upload::program))
        .service(resource("/grid/workers", "GET").get(workers::list))
        .service(resource("/grid/workers/{id}/drain", "GET, POST").get(workers::ask).post(workers::drain))
        .service(resource("/grid/coordinators", "GET").get(coordinators::list))
        .service(resource("/statistics", "GET").get(statistics::show))
        .service(resource("/live", "GET").get(live::ticks))
        .service(resource("/sign-in", "GET, POST").get(sign_in::form).post(sign_in::sign_in))
        .service(resource("/sign-out", "POST").post(sign_in::sign_out))
        .service(resource("/assets/{name}", "GET").get(assets::file));
}
