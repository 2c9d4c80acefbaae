//! `divvy job list`.

use api::JobPage;
use api::client::{Client, Query};

use crate::arguments::{Filter, Format, List};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_jobs, print_json, tell};

/// The most jobs of a list without `--limit`.
const DEFAULT_LIMIT: usize = 100;

/// The most jobs that one request asks for.
const PAGE_SIZE: usize = 1000;

pub(super) async fn run(grid: &Client, format: Format, arguments: &List) -> Result<(), Failure> {
    let asked = arguments.limit.map(|limit| usize::try_from(limit.get()).unwrap_or(usize::MAX));
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
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
    if list.next_page_token.is_some() {
        tell_of_more(format, asked);
    }
    Ok(())
}

/// Says that a list is cut. A list of ids for a script looks whole, unless the script has asked for so many.
pub(super) fn tell_of_more(format: Format, asked: Option<usize>) {
    if format == Format::Table || asked.is_none() {
        tell("there are more: raise --limit");
    }
}

/// The filter as the API takes it.
pub(super) fn query(filter: &Filter) -> Query {
    let states = filter.state.iter().map(|state| ("state", state.as_str().to_owned()));
    let kind = filter.kind.map(|kind| ("kind", kind.as_str().to_owned()));
    let tags = filter.tag.iter().map(|tag| ("tag", tag.clone()));
    states.chain(kind).chain(tags).collect()
}
