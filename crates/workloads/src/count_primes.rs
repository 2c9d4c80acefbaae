//! `count-primes`: the number of primes in a range.

use std::num::NonZeroU64;
use std::sync::Arc;

use model::{InvalidJob, JobKind, Labels};
use serde_json::value::RawValue;
use utoipa::PartialSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::execute::Execute;
use crate::prefix_parts;
use crate::prime_range::{self, Find, RangeParams, Searcher};
use crate::workload::{Kind, Parsed, Workload};

#[derive(Debug)]
pub(crate) struct CountPrimes;

impl Kind for CountPrimes {
    fn name(&self) -> JobKind {
        JobKind::COUNT_PRIMES
    }

    fn summary(&self) -> &'static str {
        "How many primes a range holds"
    }

    fn params_schema(&self) -> (&'static str, RefOr<Schema>) {
        ("Range", RangeParams::schema())
    }

    fn parse(&self, params: &RawValue, chunk_size: NonZeroU64) -> Result<Parsed, InvalidJob> {
        prime_range::parse(Find::Count, params, chunk_size)
    }

    fn asked(&self, stored: &RawValue) -> Box<RawValue> {
        prime_range::asked(stored)
    }

    fn restore(&self, stored: &RawValue, chunk_size: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob> {
        prime_range::restore(Find::Count, stored, chunk_size)
    }

    fn executor(&self) -> Option<Box<dyn Execute>> {
        Some(Box::new(Searcher::new(Find::Count)))
    }

    fn abilities(&self) -> Labels {
        prefix_parts::abilities()
    }
}
