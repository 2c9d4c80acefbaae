//! The common part of `sum-of-primes` and `count-primes`: their parameters, and the choice between a sieve of the range and two
//! sums over all primes up to a number.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::{Algorithm, InvalidJob, NumberRange, Payloads};
use primes::{Plan, Quantity, Sieve, Stopped};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::execute::{Execute, ExecuteError, parse_work};
use crate::prefix_parts::{Parts, PartsExecutor, PrefixParts};
use crate::sieved::{Sieved, Stretch, search};
use crate::verified::Verified;
use crate::workload::{Combined, Division, Parsed, Report, Workload, parse_params, raw, restore_params};

/// The quantity over the primes of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find {
    Sum,
    Count,
}

impl Find {
    pub(crate) fn quantity(self) -> Quantity {
        match self {
            Self::Sum => Quantity::Sum,
            Self::Count => Quantity::Count,
        }
    }

    /// A bound for the result over a range.
    pub(crate) fn most(self, range: NumberRange) -> u128 {
        match self {
            Self::Sum => range.max_sum(),
            Self::Count => range.len(),
        }
    }

    pub(crate) fn result(self, range: NumberRange, total: u128) -> Combined {
        let name = match self {
            Self::Sum => "sum",
            Self::Count => "count",
        };
        Combined::Result(raw(format!(r#"{{"a":{},"b":{},"{name}":"{total}"}}"#, range.a(), range.b())))
    }
}

/// Parameters of both kinds, for the API's description; [`Params`] reads them.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the parameters")]
pub(crate) struct RangeParams {
    /// The first number.
    a: u64,
    /// The last number, at least `a`.
    b: u64,
    #[schema(schema_with = algorithms, required = false)]
    algorithm: Algorithm,
    /// Whether the other algorithm computes it as well; a job whose results differ fails.
    #[schema(default = false, required = false)]
    verify: bool,
}

/// Describes the algorithms that a client can ask for.
fn algorithms() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Algorithm::ALL.map(Algorithm::as_str)))
        .default(Some(Algorithm::default().as_str().into()))
        .description(Some("`sieve`, `combinatorial`, or `auto` for the one that is expected to take less."))
        .into()
}

/// The parameters of a client.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    a: u64,
    b: u64,
    #[serde(default)]
    algorithm: Algorithm,
    #[serde(default)]
    verify: bool,
}

/// The parameters as they are stored. Those of the first release are `a` and `b`, and mean a sieve.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Stored {
    #[serde(flatten)]
    params: Params,
    /// The algorithm that `auto` chose, unless it was the sieve.
    #[serde(default)]
    chosen: Algorithm,
    /// The version of the parts, where there are some.
    #[serde(default)]
    plan: Option<u32>,
}

/// A job as it was decided to be computed.
#[derive(Clone, Copy, Debug)]
struct Decided {
    find: Find,
    range: NumberRange,
    /// The algorithm that the client asked for.
    asked: Algorithm,
    is_combinatorial: bool,
    verify: bool,
}

pub(crate) fn parse(find: Find, params: &RawValue, chunk_size: NonZeroU64) -> Result<Parsed, InvalidJob> {
    let Params { a, b, algorithm, verify } = parse_params(params)?;
    let range = NumberRange::new(a, b)?;
    let parts = PrefixParts::new(find, range);
    let is_combinatorial = match algorithm {
        Algorithm::Sieve => false,
        Algorithm::Combinatorial => true,
        Algorithm::Auto => is_worth_a_look(range) && is_cheaper(&parts, range),
    };
    if is_combinatorial || verify {
        // Here, where a client can wait, and not at the first use: there the coordinator's other clients would wait, too.
        parts.divide();
    }
    let decided = Decided { find, range, asked: algorithm, is_combinatorial, verify };
    let may_fall_back = is_combinatorial && algorithm == Algorithm::Auto && !verify;
    let sieved = || Decided { is_combinatorial: false, ..decided }.division(chunk_size, PrefixParts::new(find, range));
    let fallback = may_fall_back.then(sieved);
    let Division { workload, stored } = decided.division(chunk_size, parts);
    Ok(Parsed {
        workload,
        stored,
        payloads: Payloads::default(),
        identity: written(range, algorithm, verify),
        fallback,
    })
}

pub(crate) fn restore(find: Find, stored: &RawValue, chunk_size: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob> {
    let Stored { params: Params { a, b, algorithm, verify }, chosen, plan } = restore_params(stored)?;
    if let Some(version) = plan.filter(|version| *version != Plan::VERSION) {
        let message = format!("are divided by plan {version}, this release has plan {}", Plan::VERSION);
        return Err(InvalidJob::new("params", message));
    }
    let is_combinatorial = algorithm == Algorithm::Combinatorial || chosen == Algorithm::Combinatorial;
    let range = NumberRange::new(a, b)?;
    let decided = Decided { find, range, asked: algorithm, is_combinatorial, verify };
    Ok(decided.division(chunk_size, PrefixParts::new(find, range)).workload)
}

/// The parameters of a stored job as its client gave them.
pub(crate) fn asked(stored: &RawValue) -> Box<RawValue> {
    let parsed = restore_params(stored).and_then(|Stored { params: Params { a, b, algorithm, verify }, .. }| {
        Ok(written(NumberRange::new(a, b)?, algorithm, verify))
    });
    parsed.unwrap_or_else(|_| stored.to_owned())
}

/// Parameters without what was left to the default, in a fixed order: those of the first release where nothing else was
/// asked for.
fn written(range: NumberRange, algorithm: Algorithm, verify: bool) -> Box<RawValue> {
    raw(format!("{}}}", begun(range, algorithm, verify)))
}

fn begun(range: NumberRange, algorithm: Algorithm, verify: bool) -> String {
    let algorithm = match algorithm {
        Algorithm::Auto => String::new(),
        Algorithm::Sieve | Algorithm::Combinatorial => format!(r#","algorithm":"{algorithm}""#),
    };
    let verify = if verify { r#","verify":true"# } else { "" };
    format!(r#"{{"a":{},"b":{}{algorithm}{verify}"#, range.a(), range.b())
}

/// No range of so few numbers is cheaper by sums from 2 on: they take more than a sieve of it wherever it is.
fn is_worth_a_look(range: NumberRange) -> bool {
    const LEAST: u128 = 20_000_000;
    range.len() >= LEAST
}

/// Whether the sums are expected to take less than a sieve.
fn is_cheaper(parts: &PrefixParts, range: NumberRange) -> bool {
    !parts.is_sieve() && parts.cost() < primes::sieve_cost(range.into())
}

impl Decided {
    /// The job's work, of which `parts` are the combinatorial way.
    fn division(self, chunk_size: NonZeroU64, parts: PrefixParts) -> Division {
        let Self { find, range, asked, is_combinatorial, verify } = self;
        let sieve = Sieved::new(find, range, chunk_size);
        let workload: Arc<dyn Workload> = match (is_combinatorial, verify) {
            (false, false) => Arc::new(sieve),
            (true, false) => Arc::new(parts),
            (false, true) => Arc::new(Verified::new(Arc::new(sieve), Arc::new(parts))),
            (true, true) => Arc::new(Verified::new(Arc::new(parts), Arc::new(sieve))),
        };
        let is_chosen = asked == Algorithm::Auto && is_combinatorial;
        let chosen = if is_chosen { r#","chosen":"combinatorial""# } else { "" };
        let plan = if is_combinatorial || verify { format!(r#","plan":{}"#, Plan::VERSION) } else { String::new() };
        Division { workload, stored: raw(format!("{}{chosen}{plan}}}", begun(range, asked, verify))) }
    }
}

/// The work of a lease, of either algorithm.
#[derive(Deserialize)]
#[serde(untagged)]
enum Work {
    Stretch(Stretch),
    Parts(Parts),
}

/// Searches with a sieve that stays where the last lease ended, and with tables that stay for the next parts.
pub(crate) struct Searcher {
    find: Find,
    sieve: Sieve,
    /// The sieve that another kind has left, until the next lease.
    left: Option<Sieve>,
    parts: PartsExecutor,
}

impl Searcher {
    pub(crate) fn new(find: Find) -> Self {
        Self { find, sieve: Sieve::new(), left: None, parts: PartsExecutor::default() }
    }
}

impl Execute for Searcher {
    fn run(&mut self, work: &RawValue, _: &Range<u64>, stop: &AtomicBool) -> Result<Report, ExecuteError> {
        let left = self.left.take();
        let value = match parse_work(work)? {
            Work::Stretch(stretch) => {
                // A far sieve and the tables of a long sum would take memory at the same time.
                self.parts = PartsExecutor::default();
                // A near range goes on with a sieve of its own.
                if let Some(sieve) = left.filter(|_| stretch.is_far()) {
                    self.sieve = sieve;
                }
                search(self.find, &mut self.sieve, stretch, stop)
            }
            Work::Parts(parts) => {
                drop(left);
                self.sieve.give_back();
                self.parts.run(self.find.quantity(), parts, stop).map_err(ExecuteError::Unsupported)?
            }
        };
        Ok(Report { value: Some(value.map_err(|Stopped| ExecuteError::Stopped)?), results: Vec::new() })
    }

    fn takes_large_memory(&self) -> bool {
        true
    }

    fn rest(&mut self) -> Option<Sieve> {
        self.parts.give_back();
        self.sieve.is_large().then(|| std::mem::take(&mut self.sieve))
    }

    fn take_over(&mut self, sieve: Sieve) {
        self.left = Some(sieve);
    }
}

#[cfg(test)]
mod tests;
