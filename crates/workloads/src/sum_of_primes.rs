//! `sum-of-primes`: the exact sum of all primes in a range.

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
pub(crate) struct SumOfPrimes;

impl Kind for SumOfPrimes {
    fn name(&self) -> JobKind {
        JobKind::SUM_OF_PRIMES
    }

    fn summary(&self) -> &'static str {
        "The sum of all primes in a range"
    }

    fn params_schema(&self) -> (&'static str, RefOr<Schema>) {
        ("Range", RangeParams::schema())
    }

    fn parse(&self, params: &RawValue, chunk_size: NonZeroU64) -> Result<Parsed, InvalidJob> {
        prime_range::parse(Find::Sum, params, chunk_size)
    }

    fn asked(&self, stored: &RawValue) -> Box<RawValue> {
        prime_range::asked(stored)
    }

    fn restore(&self, stored: &RawValue, chunk_size: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob> {
        prime_range::restore(Find::Sum, stored, chunk_size)
    }

    fn executor(&self) -> Option<Box<dyn Execute>> {
        Some(Box::new(Searcher::new(Find::Sum)))
    }

    fn abilities(&self) -> Labels {
        prefix_parts::abilities()
    }
}
