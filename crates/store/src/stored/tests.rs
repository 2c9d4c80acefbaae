use model::Labels;

use super::*;

#[test]
fn the_forms_are_those_that_stand_in_databases() {
    let words = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    let options = JobOptions {
        priority: Priority::HIGHEST,
        tags: words("user", "ann"),
        affinity: Affinity { labels: words("zone", "a"), key: Some("k".to_owned()) },
        requires: Requirements {
            labels: words("gpu", "1"),
            cpus: Some(3),
            memory_bytes: Some(4096),
            ..Requirements::default()
        },
        max_attempts: NonZeroU32::new(2).expect("not 0"),
        timeout: Timeout { task_seconds: NonZeroU32::new(4), job_seconds: None },
        output: Some("sums".to_owned()),
        verify: None,
        chunk_size: NonZeroU64::new(77),
        submitted_by: Some("ci".to_owned()),
        is_admitted: false,
        trace: None,
    };
    let text = concat!(
        r#"{"v":1,"priority":9,"tags":{"user":"ann"},"affinity":{"labels":{"zone":"a"},"key":"k"},"#,
        r#""requires":{"labels":{"gpu":"1"},"cpus":3,"memory_bytes":4096},"max_attempts":2,"#,
        r#""timeout":{"task_seconds":4,"job_seconds":null},"output":"sums","chunk_size":77,"submitted_by":"ci"}"#
    );
    assert_eq!(options_to_stored(&options), text);
    assert_eq!(options_from_stored(text).expect("well formed"), options);
    let verified = JobOptions { verify: model::Share::try_from(0.25).ok(), ..options };
    let text = text.replace(r#""chunk_size""#, r#""verify":0.25,"chunk_size""#);
    assert_eq!(options_to_stored(&verified), text);
    assert_eq!(options_from_stored(&text).expect("well formed"), verified);
    assert!(options_from_stored(r#"{"v":1,"verify":2}"#).is_err());
    let admitted = JobOptions { is_admitted: true, ..verified };
    let text = text.replace(r#""submitted_by":"ci""#, r#""submitted_by":"ci","is_admitted":true"#);
    assert_eq!(options_to_stored(&admitted), text);
    assert_eq!(options_from_stored(&text).expect("well formed"), admitted);
    let (parent, state) = ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=00f067aa0ba902b7");
    let traced = JobOptions { trace: TraceContext::parse(parent, state), ..admitted };
    let own = format!(r#""is_admitted":true,"traceparent":"{parent}","tracestate":"{state}""#);
    let text = text.replace(r#""is_admitted":true"#, &own);
    assert_eq!(options_to_stored(&traced), text);
    assert_eq!(options_from_stored(&text).expect("well formed"), traced);
    let damaged = options_from_stored(r#"{"v":1,"traceparent":"00-"}"#).expect("a job all the same");
    assert_eq!(damaged.trace, None);
    for (is_individual, text) in
        [(true, r#"{"v":1,"is_individual":true}"#), (false, r#"{"v":1,"is_individual":false}"#)]
    {
        assert_eq!(work_to_stored(is_individual), text);
        assert_eq!(super::is_individual(JobKind::new("any"), text).expect("well formed"), is_individual);
    }
}

#[test]
fn the_first_release_tells_individual_tasks_by_their_kind() {
    for (kind, text, is_individual) in [
        (JobKind::SUM_OF_PRIMES, r#"{"a":10,"b":18446744073709551615}"#, false),
        (JobKind::COUNT_PRIMES, r#"{"a":1,"b":2}"#, false),
        (JobKind::SLEEP, r#"{"seconds":0.25,"fail_rate":0.5,"tasks":7}"#, true),
        (JobKind::TASKS, "3", true),
    ] {
        assert_eq!(super::is_individual(kind, text).expect("as released"), is_individual, "{text}");
    }
}

#[test]
fn a_form_of_the_first_release_may_lack_anything() {
    assert_eq!(options_from_stored("{}").expect("well formed"), JobOptions::default());
}

#[test]
fn what_is_damaged_or_of_a_later_version_is_an_error() {
    for text in ["", "{", r#"{"v":2}"#, r#"{"priority":10}"#, r#"{"max_attempts":0}"#] {
        assert!(options_from_stored(text).is_err(), "{text}");
    }
    for text in ["", "{", r#"{"v":2,"is_individual":true}"#] {
        assert!(is_individual(JobKind::TASKS, text).is_err(), "{text}");
    }
    assert!(JobState::from_stored_name("Queued").is_err());
}

#[test]
fn values_of_earlier_releases_are_read_and_written_as_before() {
    assert_eq!(values_from_stored("7").expect("a value"), (7, 0));
    assert_eq!(values_to_stored(7, 0), "7");
    for values in [(0, 0), (1, 1), (u128::MAX, u128::MAX)] {
        assert_eq!(values_from_stored(&values_to_stored(values.0, values.1)).expect("two values"), values);
    }
    for text in ["", "/", "1/", "-1", "1/2/3", "340282366920938463463374607431768211456"] {
        assert!(values_from_stored(text).is_err(), "{text}");
    }
}

#[test]
fn names_are_told_apart_and_come_back() {
    fn check<T: StoredName + PartialEq + std::fmt::Debug>() {
        for &value in T::ALL {
            assert_eq!(T::from_stored_name(value.stored_name()).expect("known"), value);
        }
    }
    check::<JobState>();
    check::<EventKind>();
}
