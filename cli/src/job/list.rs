//! `divvy job list`.

use api::JobPage;
use api::client::{Client, Query};

use crate::arguments::{Filter, Format, List};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_jobs, print_json, tell};

/// The most jobs that one request asks for.
const PAGE_SIZE: usize = 1000;

pub(super) async fn run(grid: &Client, format: Format, arguments: &List) -> Result<(), Failure> {
    let limit = usize::try_from(arguments.limit.get()).unwrap_or(usize::MAX);
    let mut list = JobPage { jobs: Vec::new(), next_page_token: None };
    loop {
        let mut query = query(&arguments.filter);
        query.push(("limit", PAGE_SIZE.min(limit - list.jobs.len()).to_string()));
        query.extend(list.next_page_token.map(|token| ("page_token", token)));
        let page = patiently(async || grid.job_page(&query).await).await?;
        list.jobs.extend(page.jobs);
        list.next_page_token = page.next_page_token;
        if list.next_page_token.is_none() || list.jobs.len() >= limit {
            break;
        }
    }
    if format == Format::Json {
        return print_json(&list);
    }
    print_jobs(format, &list.jobs)?;
    if format == Format::Table && list.next_page_token.is_some() {
        tell("there are more: raise --limit");
    }
    Ok(())
}

/// The filter as the API takes it.
pub(super) fn query(filter: &Filter) -> Query {
    let states = filter.state.iter().map(|state| ("state", state.as_str().to_owned()));
    let kind = filter.kind.map(|kind| ("kind", kind.as_str().to_owned()));
    let tags = filter.tag.iter().map(|tag| ("tag", tag.clone()));
    states.chain(kind).chain(tags).collect()
}
