//! `/statistics`: the statistics by period and kind.

use std::collections::BTreeMap;
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use dashboard::{Period, Statistics, statistics_page};
use jiff::Timestamp;
use model::{Counts, Grain, JobKind};
use service::ApiError;
use store::statistics::Query;

use super::super::State;
use super::super::errors::{from_invalid, from_read};
use super::super::statistics::usual_span;
use super::overview::dashboard_of;
use super::page::{PageError, Visit, html};
use super::shared_statistics::Gathered;
use crate::clock::now;

/// Rows read at a time, and the most that a page reads.
const ROWS: usize = 1_000;
const MAX_ROWS: usize = 10_000;

/// The most periods that a page shows.
const MAX_PERIODS: usize = 200;

pub(super) async fn show(state: Data<State>, request: HttpRequest, visit: Visit) -> Result<HttpResponse, PageError> {
    let dashboard = dashboard_of(&state)?;
    let to_statistics = |error| PageError::with_way(error, "/statistics", "To the statistics");
    let (grain, kind) = wanted(request.query_string()).map_err(to_statistics)?;
    let gather = async || -> Result<Gathered, ApiError> {
        // Taken before the rows are read: a later event makes another version.
        let version = dashboard.version_of_stored(&state).await?;
        let (periods, by_kind) = gather(&state, grain, kind).await?;
        Ok(Gathered { version, periods, by_kind: by_kind.into_iter().collect() })
    };
    let gathered = dashboard.statistics.get((grain, kind), Instant::now(), gather).await?;
    let Gathered { version, periods, by_kind } = &*gathered;
    let shown = Statistics { grain, kind, periods, by_kind };
    Ok(html(StatusCode::OK, &statistics_page(&visit.viewer(version), &shown)))
}

fn wanted(query: &str) -> Result<(Grain, Option<JobKind>), ApiError> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let grain = field("grain").map(|name| name.parse::<Grain>().map_err(from_invalid)).transpose()?;
    let known = |kind: JobKind| workloads::kind(kind).map(|known| known.name());
    let kind = field("kind").map(|name| name.parse().and_then(known).map_err(from_invalid)).transpose()?;
    Ok((grain.unwrap_or(Grain::Hour), kind))
}

/// Every period up to now, and the sums by kind.
async fn gather(
    state: &State,
    grain: Grain,
    kind: Option<JobKind>,
) -> Result<(Vec<Period>, BTreeMap<JobKind, Counts>), ApiError> {
    let to = now().at;
    let from = to.checked_sub(usual_span(grain)).unwrap_or(Timestamp::MIN);
    let mut periods = periods(grain, from, to);
    let (mut by_kind, mut after, mut read): (BTreeMap<JobKind, Counts>, _, _) = (BTreeMap::new(), None, 0);
    loop {
        let query = Query { grain, starts: from..to, kind };
        let rows = state.store.periods(query, after, ROWS).await.map_err(from_read)?;
        after = rows.last().map(|row| (row.start, row.kind));
        read += rows.len();
        let is_last = rows.len() < ROWS || read >= MAX_ROWS;
        for row in rows {
            by_kind.entry(row.kind).or_default().add(&row.counts);
            if let Ok(place) = periods.binary_search_by_key(&row.start, |period| period.start) {
                periods[place].counts.add(&row.counts);
            }
        }
        if is_last {
            return Ok((periods, by_kind));
        }
    }
}

/// The empty periods of a time span.
fn periods(grain: Grain, from: Timestamp, to: Timestamp) -> Vec<Period> {
    let starts = std::iter::successors(Some(grain.start_of(from)), |start| Some(grain.end_of(*start)));
    let starts = starts.take_while(|start| *start < to).take(MAX_PERIODS);
    starts.map(|start| Period { start, counts: Counts::default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_period_of_a_time_is_there_once() {
        let to: Timestamp = "2026-03-21T10:20:30Z".parse().expect("a time");
        let from = to.checked_sub(usual_span(Grain::Minute)).expect("a time");
        let minutes = periods(Grain::Minute, from, to);
        assert_eq!(minutes.len(), 61);
        assert!(minutes.windows(2).all(|pair| Grain::Minute.end_of(pair[0].start) == pair[1].start));
    }
}
