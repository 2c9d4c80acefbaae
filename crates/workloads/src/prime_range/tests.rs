use model::Requirements;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::workload::Report;

fn parsed(find: Find, params: &Value) -> Parsed {
    parse(find, &raw(params.to_string()), model::DEFAULT_CHUNK_SIZE).expect("valid parameters")
}

/// The stored parameters of a job, its shown parameters, and its algorithm.
fn kept(params: &Value) -> (Value, Value, Option<Algorithm>) {
    let parsed = parsed(Find::Sum, params);
    let json = |raw: &RawValue| serde_json::from_str(raw.get()).expect("JSON");
    (json(&parsed.stored), json(&asked(&parsed.stored)), parsed.workload.algorithm())
}

/// Computes tasks in leases that end where `ends` say and where sections do; returns the total and that to compare.
fn compute(find: Find, work: &dyn Workload, ends: &[u64]) -> (u128, u128) {
    let (tasks, sections) = (work.tasks(), work.sections());
    let mut cuts: Vec<u64> = ends.iter().map(|end| end % tasks).chain(sections).chain([0, tasks]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut searcher = Searcher::new(find);
    let (mut total, mut check) = (0_u128, 0_u128);
    for pair in cuts.windows(2) {
        let lease = pair[0]..pair[1];
        let report = searcher.run(&work.lease(&lease, lease.end), &lease, &AtomicBool::new(false)).expect("computed");
        let accepted = work.accept(&lease, report).expect("an honest report");
        total = total.wrapping_add(accepted.value);
        check = check.wrapping_add(accepted.check);
    }
    (total, check)
}

#[test]
fn the_worked_example_is_two_tasks_whose_parts_add_up() {
    let work = parsed(Find::Sum, &json!({"a": 10, "b": 3_700_000})).workload;
    assert_eq!(work.tasks(), 2);
    let (total, _) = compute(Find::Sum, &*work, &[1]);
    let Combined::Result(result) = work.combine(total) else { panic!("a sum") };
    assert_eq!(result.get(), r#"{"a":10,"b":3700000,"sum":"468476582935"}"#);
}

#[test]
fn a_long_range_goes_by_parts_and_a_short_or_far_one_by_a_sieve() {
    let algorithm = |a: u64, b: u64| kept(&json!({"a": a, "b": b})).2.expect("one of two");
    assert_eq!(algorithm(1, 1_000_000), Algorithm::Sieve);
    assert_eq!(algorithm(1, 1_000_000_000_000), Algorithm::Combinatorial);
    assert_eq!(algorithm(1_000_000_000_000, 1_000_010_000_000), Algorithm::Sieve);
    assert_eq!(algorithm(1_000_000_000_000_000, 1_000_001_000_000_000), Algorithm::Sieve);
    assert_eq!(algorithm(500_000_000_000, 1_000_000_000_000), Algorithm::Combinatorial);
}

#[test]
fn what_is_asked_for_is_done_and_shown_and_what_was_chosen_is_stored() {
    let long = json!({"a": 1, "b": 1_000_000_000_000_u64});
    for (asked, stored, algorithm) in [
        (json!({"a": 1, "b": 9}), json!({"a": 1, "b": 9}), Algorithm::Sieve),
        (
            json!({"a": 1, "b": 9, "algorithm": "sieve"}),
            json!({"a": 1, "b": 9, "algorithm": "sieve"}),
            Algorithm::Sieve,
        ),
        (
            json!({"a": 1, "b": 9, "algorithm": "combinatorial"}),
            json!({"a": 1, "b": 9, "algorithm": "combinatorial", "plan": 1}),
            Algorithm::Combinatorial,
        ),
        (long.clone(), json!({"a": 1, "b": long["b"], "chosen": "combinatorial", "plan": 1}), Algorithm::Combinatorial),
        (json!({"a": 1, "b": 9, "verify": true}), json!({"a": 1, "b": 9, "verify": true, "plan": 1}), Algorithm::Sieve),
    ] {
        assert_eq!(kept(&asked), (stored, asked.clone(), Some(algorithm)), "{asked}");
    }
    for wrong in [
        json!({"a": 1, "b": 2, "algorithm": "magic"}),
        json!({"a": 2, "b": 1}),
        json!({"a": 1, "b": 2, "verify": 1}),
        json!({"a": 1, "b": 2, "plan": 1}),
        json!({"a": 1, "b": 2, "chosen": "sieve"}),
    ] {
        assert!(parse(Find::Sum, &raw(wrong.to_string()), model::DEFAULT_CHUNK_SIZE).is_err(), "{wrong}");
    }
}

#[test]
fn new_work_is_divided_where_it_is_parsed_and_stored_work_where_it_is_used() {
    let is_divided = |work: &dyn Workload| !format!("{work:?}").contains("uninit");
    for params in [
        json!({"a": 1_000_000_000, "b": 1_000_000_000_000_u64}),
        json!({"a": 1, "b": 9, "algorithm": "combinatorial"}),
        json!({"a": 1, "b": 9, "verify": true}),
    ] {
        let new = parsed(Find::Sum, &params);
        assert!(is_divided(&*new.workload), "{params}");
        let stored = restore(Find::Sum, &new.stored, model::DEFAULT_CHUNK_SIZE).expect("a stored job");
        assert!(!is_divided(&*stored), "{params}");
        assert!(stored.tasks() > 0 && is_divided(&*stored), "{params}");
    }
}

#[test]
fn defaults_that_are_spelled_out_are_the_same_job_as_that_of_the_first_release() {
    let identity = |params: Value| parsed(Find::Sum, &params).identity.get().to_owned();
    let first_release = r#"{"a":1,"b":1000000000000}"#;
    assert_eq!(identity(json!({"b": 1_000_000_000_000_u64, "a": 1})), first_release);
    let spelled = json!({"a": 1, "b": 1_000_000_000_000_u64, "algorithm": "auto", "verify": false});
    assert_eq!(identity(spelled), first_release);
    for other in [json!({"a": 1, "b": 9, "algorithm": "sieve"}), json!({"a": 1, "b": 9, "verify": true})] {
        assert_ne!(identity(other), identity(json!({"a": 1, "b": 9})));
    }
}

#[test]
fn jobs_of_the_first_release_are_sieved_however_long_they_are() {
    let stored = raw(r#"{"a":1,"b":1000000000000}"#.to_owned());
    let work = restore(Find::Sum, &stored, model::DEFAULT_CHUNK_SIZE).expect("a stored job");
    assert_eq!(work.tasks(), 400_000);
    assert!(work.requires().labels.is_empty());
}

#[test]
fn stored_jobs_are_divided_as_they_were_and_refused_if_that_is_not_known() {
    for params in [
        json!({"a": 7, "b": 40_000_000}),
        json!({"a": 1, "b": 30_000_000_000_u64}),
        json!({"a": 900, "b": 70_000_000, "verify": true}),
        json!({"a": 21_000_000, "b": 70_000_000, "algorithm": "combinatorial"}),
    ] {
        let new = parsed(Find::Count, &params);
        let restored = restore(Find::Count, &new.stored, model::DEFAULT_CHUNK_SIZE).expect("a stored job");
        assert_eq!((restored.tasks(), restored.sections()), (new.workload.tasks(), new.workload.sections()));
        assert_eq!(restored.requires(), new.workload.requires());
    }
    for unknown in [r#"{"a":1,"b":9,"chosen":"magic"}"#, r#"{"a":1,"b":9,"algorithm":"combinatorial","plan":2}"#] {
        assert!(restore(Find::Sum, &raw(unknown.to_owned()), model::DEFAULT_CHUNK_SIZE).is_err(), "{unknown}");
    }
}

#[test]
fn a_far_range_goes_on_with_the_sieve_that_another_kind_has_left_and_a_near_one_gives_its_memory_back() {
    const FAR: u64 = 2_000_000_000_000;
    let run = |searcher: &mut Searcher, a: u64, b: u64, horizon: u64| {
        let work = raw(format!(r#"{{"a":{a},"b":{b},"horizon":{horizon}}}"#));
        searcher.run(&work, &(0..1), &AtomicBool::new(false)).expect("computed").value
    };
    let (mut count, mut sum) = (Searcher::new(Find::Count), Searcher::new(Find::Sum));
    assert!(count.rest().is_none(), "it has nothing that is large");
    run(&mut count, FAR, FAR + 1_000, FAR + 1_000_000_000);
    sum.take_over(count.rest().expect("a far sieve"));
    assert!(!count.sieve.is_large());
    // So short a range needs no large sieve.
    let mut cold = Searcher::new(Find::Sum);
    let expected = run(&mut cold, FAR + 500, FAR + 600, FAR + 600);
    assert!(!cold.sieve.is_large());
    assert_eq!(run(&mut sum, FAR + 500, FAR + 600, FAR + 600), expected);
    assert!(sum.sieve.is_large(), "it is that of the count");
    count.take_over(sum.rest().expect("a far sieve"));
    assert_eq!(run(&mut count, 1, 100, 100), Some(25));
    assert!(!count.sieve.is_large() && count.left.is_none());
}

#[test]
fn a_long_sum_needs_its_memory_on_each_slot_of_a_worker() {
    let requires = |b: u64, verify: bool| {
        let params = json!({"a": 1, "b": b, "algorithm": "combinatorial", "verify": verify});
        let Requirements { memory_bytes, slot_memory_bytes, .. } = parsed(Find::Sum, &params).workload.requires();
        assert_eq!(memory_bytes, None);
        slot_memory_bytes
    };
    assert_eq!(requires(1_000_000_000_000, false), None);
    for verify in [false, true] {
        assert_eq!(requires(1_000_000_000_000_000_000, verify), Some(64 << 20));
    }
}

#[test]
fn workers_that_know_no_parts_can_sieve_what_was_left_to_the_choice() {
    let mut job = parsed(Find::Sum, &json!({"a": 1, "b": 1_000_000_000_000_u64}));
    assert!(!job.workload.requires().labels.is_empty());
    job.fall_back();
    assert_eq!((job.workload.tasks(), job.workload.requires().labels.is_empty()), (400_000, true));
    assert_eq!(job.stored.get(), r#"{"a":1,"b":1000000000000}"#);
    let demanded = json!({"a": 1, "b": 1_000_000_000_000_u64, "algorithm": "combinatorial"});
    assert!(parsed(Find::Sum, &demanded).fallback.is_none());
}

#[test]
fn no_lease_of_a_verified_range_is_longer_than_some_seconds_whatever_its_tasks_are() {
    for (a, b) in [(1_000_000_000_000_000_000, 1_000_000_001_000_000_000), (u64::MAX - 1_000_000_000, u64::MAX)] {
        let work = parsed(Find::Sum, &json!({"a": a, "b": b, "verify": true})).workload;
        let most = work.profile().max_lease_tasks;
        let (mut start, mut longest) = (0, 0.0_f64);
        for end in work.sections().into_iter().chain([work.tasks()]) {
            while start < end {
                let lease = start..end.min(start + most);
                longest = longest.max(work.weight(&lease));
                start = lease.end;
            }
        }
        // Weights are nanoseconds of a fast machine.
        assert!((1e9..10e9).contains(&longest), "{longest} ns for {most} tasks of [{a}, {b}]");
    }
    let short = parsed(Find::Sum, &json!({"a": 1, "b": 1_000_000_000, "verify": true})).workload;
    assert!(short.profile().max_lease_tasks > short.tasks());
}

#[test]
fn two_algorithms_that_disagree_are_a_contradiction() {
    let work = parsed(Find::Sum, &json!({"a": 1, "b": 100, "verify": true})).workload;
    assert_eq!(compute(Find::Sum, &*work, &[]), (1060, 1060));
    assert_eq!(work.judge(1060, 1060), Ok(()));
    let error = work.judge(1060, 1061).expect_err("they differ").to_string();
    assert_eq!(error, "the two algorithms disagree: sieve gives 1060, combinatorial gives 1061");
    let parts = parsed(Find::Count, &json!({"a": 1, "b": 100, "algorithm": "combinatorial"})).workload;
    assert!(parts.judge(101, 0).is_err(), "more primes than numbers");
}

#[test]
fn workers_refuse_parts_of_another_plan_and_parts_that_are_not_there() {
    let mut searcher = Searcher::new(Find::Sum);
    for wrong in [
        r#"{"x":100000000,"first":0,"beyond":1,"plan":2}"#,
        r#"{"x":100000000,"first":0,"beyond":9999,"plan":1}"#,
        r#"{"x":100000000,"first":3,"beyond":3,"plan":1}"#,
        r#"{"x":-1}"#,
    ] {
        let refused = searcher.run(&raw(wrong.to_owned()), &(0..1), &AtomicBool::new(false));
        assert!(matches!(refused, Err(ExecuteError::Unsupported(_))), "{wrong}");
    }
}

#[test]
fn a_value_of_parts_may_be_any_number_below_2_to_the_128() {
    let params = json!({"a": 50_000_000, "b": 60_000_000, "algorithm": "combinatorial"});
    let work = parsed(Find::Sum, &params).workload;
    let report = || Report { value: Some(u128::MAX), results: Vec::new() };
    assert_eq!(work.accept(&(0..1), report()).expect("any value").value, u128::MAX);
    let last = work.tasks() - 1;
    assert_eq!(work.accept(&(last..last + 1), report()).expect("any value").value, 1, "it is subtracted");
    let nothing = Report::default();
    assert!(work.accept(&(0..1), nothing).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_division_of_either_algorithm_gives_the_same(
        a in 0..60_000_000u64,
        len in 0..60_000_000u64,
        ends in proptest::collection::vec(any::<u64>(), 0..6),
        count in any::<bool>(),
    ) {
        let find = if count { Find::Count } else { Find::Sum };
        let params = json!({"a": a, "b": a + len, "verify": true});
        let work = parsed(find, &params).workload;
        let (total, check) = compute(find, &*work, &ends);
        prop_assert_eq!(total, check);
        prop_assert_eq!(work.judge(total, check), Ok(()));
        let expected = if count { primes::count(a..=a + len).into() } else { primes::sum(a..=a + len) };
        prop_assert_eq!(total, expected);
    }

    #[test]
    fn weights_of_tasks_add_up(a in 0..90_000_000u64, len in 0..90_000_000u64, cut in any::<u64>(), verify in any::<bool>()) {
        let params = json!({"a": a, "b": a + len, "algorithm": "combinatorial", "verify": verify});
        let work = parsed(Find::Sum, &params).workload;
        let (tasks, cut) = (work.tasks(), cut % work.tasks());
        let whole = work.weight(&(0..tasks));
        let parts = work.weight(&(0..cut)) + work.weight(&(cut..tasks));
        prop_assert!((whole - parts).abs() <= 1e-6 * whole.max(1.0), "{} and {}", whole, parts);
    }
}

#[test]
fn parameters_of_a_range_are_an_object() {
    for (params, message) in [
        (json!([1, 10]), "must be an object, but is an array"),
        (json!({"a": [1], "b": 10}), "a must be a whole number from 0 to 18446744073709551615, but is an array"),
        (json!({"a": 1, "b": 10, "verify": 1}), "verify must be true or false, but is 1"),
    ] {
        let error = parse(Find::Sum, &raw(params.to_string()), model::DEFAULT_CHUNK_SIZE).expect_err("wrong");
        assert_eq!((error.field, error.message.as_str()), ("params", message), "{params}");
    }
}
