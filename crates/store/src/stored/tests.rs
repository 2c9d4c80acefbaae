use model::{Labels, MAX_TASKS};
use proptest::prelude::*;

use super::*;

#[test]
fn the_forms_are_those_that_stand_in_databases() {
    let words = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    let options = JobOptions {
        priority: Priority::HIGHEST,
        tags: words("user", "ann"),
        affinity: Affinity { labels: words("zone", "a"), key: Some("k".to_owned()) },
        requires: Requirements { labels: words("gpu", "1"), cpus: Some(3), memory_bytes: Some(4096) },
        max_attempts: NonZeroU32::new(2).expect("not 0"),
        timeout: Timeout { task_seconds: NonZeroU32::new(4), job_seconds: None },
        output: Some("sums".to_owned()),
        chunk_size: NonZeroU64::new(77),
    };
    let text = concat!(
        r#"{"v":1,"priority":9,"tags":{"user":"ann"},"affinity":{"labels":{"zone":"a"},"key":"k"},"#,
        r#""requires":{"labels":{"gpu":"1"},"cpus":3,"memory_bytes":4096},"max_attempts":2,"#,
        r#""timeout":{"task_seconds":4,"job_seconds":null},"output":"sums","chunk_size":77}"#
    );
    assert_eq!(options_to_stored(&options), text);
    assert_eq!(options_from_stored(text).expect("well formed"), options);
    let range = NumberRange::new(10, u64::MAX).expect("ascending");
    let sleep = SleepParams { seconds: 0.25, fail_rate: 0.5, tasks: 7 };
    for (work, text, released) in [
        (
            JobWork::SumOfPrimes(range),
            r#"{"v":1,"a":10,"b":18446744073709551615}"#,
            r#"{"a":10,"b":18446744073709551615}"#,
        ),
        (
            JobWork::CountPrimes(range),
            r#"{"v":1,"a":10,"b":18446744073709551615}"#,
            r#"{"a":10,"b":18446744073709551615}"#,
        ),
        (
            JobWork::Sleep(sleep),
            r#"{"v":1,"seconds":0.25,"fail_rate":0.5,"tasks":7}"#,
            r#"{"seconds":0.25,"fail_rate":0.5,"tasks":7}"#,
        ),
        (JobWork::Tasks { count: 3 }, r#"{"v":1,"count":3}"#, "3"),
    ] {
        assert_eq!(work_to_stored(&work), text);
        assert_eq!(work_from_stored(work.kind(), text).expect("well formed"), work);
        assert_eq!(work_from_stored(work.kind(), released).expect("as released"), work);
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
    for (kind, text) in [
        (JobKind::SumOfPrimes, r#"{"v":2,"a":1,"b":2}"#),
        (JobKind::SumOfPrimes, r#"{"a":3,"b":2}"#),
        (JobKind::Sleep, r#"{"v":9,"seconds":1}"#),
        (JobKind::Tasks, r#"{"v":2,"count":1}"#),
        (JobKind::Tasks, "-1"),
    ] {
        assert!(work_from_stored(kind, text).is_err(), "{text}");
    }
    assert!(JobState::from_stored_name("Queued").is_err());
}

#[test]
fn names_are_told_apart_and_come_back() {
    fn check<T: StoredName + PartialEq + std::fmt::Debug>() {
        for &value in T::ALL {
            assert_eq!(T::from_stored_name(value.stored_name()).expect("known"), value);
        }
    }
    check::<JobState>();
    check::<JobKind>();
    check::<EventKind>();
}

proptest! {
    #[test]
    fn any_work_comes_back(a: u64, len: u64, seconds in 0.0..86_400.0_f64, fail_rate in 0.0..1.0_f64, tasks in 1..MAX_TASKS) {
        let range = NumberRange::new(a, a.saturating_add(len)).expect("ascending");
        let sleep = SleepParams { seconds, fail_rate, tasks };
        for work in [JobWork::SumOfPrimes(range), JobWork::CountPrimes(range), JobWork::Sleep(sleep), JobWork::Tasks { count: tasks }] {
            prop_assert_eq!(work_from_stored(work.kind(), &work_to_stored(&work)).expect("well formed"), work);
        }
    }
}
