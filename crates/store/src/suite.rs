//! The tests that every store must pass. A store's own tests provide a [`Harness`], which opens, reopens and copies the store as
//! after a crash, and run all tests with [`crate::suite!`].

#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod accepting;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod batches;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod completing;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod crashes;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod damaged;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod draining;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod following;
#[expect(missing_docs, reason = "the names say it")]
pub mod helpers;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod listing;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod outputs;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod positions;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod programs;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod results;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod retention;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod sharing;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod statistics;
#[expect(missing_docs, reason = "the names of tests are sentences")]
pub mod tasks;

use std::time::Duration;

use crate::retention::Retention;
use crate::shared::Shared;
use crate::store::{Parts, Store};

/// A store under test and its data.
pub trait Harness: Send + Sync {
    /// Opens the data as a new owner. Earlier openings are closed.
    fn parts(&self) -> Parts;

    /// A copy of the open data as after a crash at this moment.
    fn crashed(&self) -> Box<dyn Harness>;

    /// Number of random histories: fewer where each opening takes long.
    fn cases(&self) -> u32 {
        60
    }

    /// Damages rows of a closed store by a statement of SQL, with the tables and columns that all stores have. Returns false if
    /// the store has no rows that could be damaged.
    fn damage(&self, sql: &str) -> bool {
        let _ = sql;
        false
    }

    /// Opens the data with a writer.
    fn open_with(&self, retention: Retention) -> Store {
        Store::start(self.parts(), retention).expect("a thread")
    }

    /// Opens the data with a writer and without limits of retention.
    fn open(&self) -> Store {
        self.open_with(helpers::KEEP_ALL)
    }
}

/// A store that several coordinators share.
pub trait SharedHarness: Send + Sync {
    /// Another coordinator's access to the same data.
    fn shared(&self) -> Box<dyn Shared>;

    /// Lets time pass by the store's clock.
    fn pass(&self, time: Duration);

    /// Moves the end of the present lease by so many hours where the store's clock goes on by itself: a lease that a test wants
    /// to last does not expire on a busy machine.
    fn move_lease(&self, _hours: i32) {}
}

/// Runs every test of a store that several coordinators share. The expression makes an empty [`SharedHarness`]; it is evaluated
/// for each test, in a module of its own.
#[macro_export]
macro_rules! shared_suite {
    ($harness:expr) => {
        $crate::suite_tests! { $harness;
            sync sharing {
                one_member_leads_at_a_time_and_each_takeover_is_an_epoch,
                a_lease_that_has_expired_is_not_renewed,
                a_holder_that_acquires_again_begins_another_epoch,
                a_leader_that_resigns_is_followed_at_once_by_a_higher_epoch,
            }
            async sharing {
                members_are_listed_with_their_last_contact_and_who_leads,
                a_leader_that_was_followed_writes_prunes_and_deletes_nothing,
                a_leader_that_opens_the_store_again_goes_on_after_its_last_batch,
                a_follower_reads_and_submits_and_makes_no_change,
                a_follower_reads_the_payloads_of_the_job_that_has_taken_an_id_over,
                all_hear_of_the_events_of_all_without_a_gap,
            }
        }
    };
}

/// Runs every test of the contract. The expression makes an empty [`Harness`]; it is evaluated for each test, in a module of its
/// own.
#[macro_export]
macro_rules! suite {
    ($harness:expr) => {
        $crate::suite_tests! { $harness;
            async accepting {
                an_accepted_job_is_there_after_a_restart_as_it_was_submitted,
                a_repeated_submission_is_the_same_job_and_another_body_under_its_names_is_refused,
                of_named_jobs_those_that_are_not_over_are_read_with_what_is_done_of_them,
                of_submissions_at_once_under_one_key_exactly_one_is_new,
                a_job_whose_payloads_are_not_as_many_as_its_tasks_is_refused,
                ten_thousand_kinds_of_payload_come_back_as_they_were_in_any_pieces,
                a_payload_larger_than_a_block_is_a_block_by_itself,
            }
            sync batches {
                each_opening_is_an_epoch_above_all_before,
            }
            async batches {
                a_batch_of_an_epoch_that_has_passed_is_refused_whole,
                the_same_batch_again_is_applied_once_and_has_the_same_answers,
                a_batch_that_skips_one_is_refused,
                an_entry_that_is_refused_leaves_the_rest_of_its_batch,
                an_owner_that_is_superseded_writes_nothing_and_says_so,
            }
            async completing {
                completions_in_any_order_become_one_interval_and_one_sum,
                values_are_added_modulo_2_to_the_128_and_those_to_compare_with_stand_apart,
                a_completion_that_overlaps_another_is_refused_whole_and_the_rest_of_its_group_stands,
                failures_are_kept_until_their_tasks_are_done_or_given_up,
                a_job_goes_through_its_life_with_an_event_for_each_step,
                changes_after_a_cancel_and_of_unknown_jobs_have_no_effect,
                a_canceled_job_that_is_retried_goes_on_where_it_was,
                a_job_with_open_tasks_cannot_succeed,
                recorded_changes_are_committed_without_anybody_waiting_for_them,
                the_numbers_of_recorded_changes_grow_and_become_durable,
                attempts_and_the_last_retry_are_there_after_a_restart,
                the_verification_of_a_job_and_the_workers_that_it_set_aside_are_kept,
                the_work_that_a_job_has_done_is_kept_beyond_its_end_and_up_to_its_retry,
                attempts_that_reached_their_time_limit_are_kept_with_their_job,
            }
            sync crashes {
                after_a_crash_there_is_all_that_was_acknowledged_and_nothing_half_or_twice,
            }
            async damaged {
                a_job_that_cannot_be_read_is_left_alone_and_all_others_go_on,
                changes_of_a_job_that_cannot_be_read_are_refused,
                a_job_that_cannot_be_read_is_canceled_as_it_is_and_goes_with_the_old_ones,
                a_job_that_is_canceled_unread_stays_canceled_though_the_writer_knows_it,
                the_figures_are_right_after_a_job_was_canceled_unread,
                pages_of_jobs_go_on_behind_any_number_that_cannot_be_read,
                events_go_on_behind_those_that_cannot_be_read,
                a_damaged_block_of_payloads_is_told_from_an_outage,
                rows_beside_jobs_that_cannot_be_read_are_left_out,
                retention_goes_on_over_a_job_whose_length_cannot_be,
            }
            async draining {
                drained_workers_are_there_after_a_restart_until_they_are_forgotten,
            }
            async following {
                events_come_in_order_from_any_number_on_of_one_job_or_of_all,
                a_caller_that_is_told_of_an_event_finds_it,
            }
            sync listing {
                pages_and_counts_of_any_filter_are_of_what_looking_at_every_job_finds_newest_first,
            }
            async listing {
                a_filter_with_too_many_tags_is_refused,
            }
            async outputs {
                an_output_is_there_after_a_restart_if_it_is_what_was_announced,
                results_have_the_content_of_objects_in_its_place,
                outputs_go_with_their_job_and_count_as_what_it_takes_up,
                outputs_of_a_job_that_has_the_id_of_one_that_is_being_forgotten_stay,
                outputs_that_never_counted_are_deleted_once_their_job_is_over,
            }
            async positions {
                a_position_moves_together_with_the_job_of_its_record,
                a_move_that_was_overtaken_writes_nothing_and_learns_where_the_position_is,
                a_record_whose_job_is_not_accepted_moves_no_position,
                old_jobs_are_kept_until_their_events_are_published,
                events_that_are_forgotten_before_they_are_published_are_counted,
            }
            async programs {
                an_uploaded_program_is_there_after_a_restart_small_or_large,
                bytes_of_another_hash_are_no_program,
                programs_are_listed_in_pages_by_hash,
                a_program_stays_while_a_job_that_is_not_over_needs_it,
                a_program_stays_while_parameters_that_cannot_be_read_name_it,
                retention_leaves_programs_alone,
                logs_are_found_by_task_and_go_with_their_job,
                logs_count_in_the_size_of_their_job_whenever_they_come,
                outputs_are_added_exactly_or_not_at_all,
                outputs_are_joined_in_the_order_of_tasks,
            }
            async results {
                small_and_large_results_come_back,
                of_results_under_one_name_the_latest_is_found,
                a_job_that_is_retried_has_no_result_until_its_next_end,
                the_bound_of_a_small_result_is_64_kib,
                a_large_result_comes_in_pieces,
                each_composing_has_a_name_of_its_own,
                objects_that_no_row_names_any_more_are_deleted,
            }
            async retention {
                jobs_that_ended_long_ago_go_with_all_that_was_theirs,
                of_more_than_may_be_kept_the_oldest_end_goes_first_and_what_is_not_over_stays,
                the_id_and_the_key_of_a_job_that_is_gone_are_free_again,
                tags_keys_and_names_count,
                a_clock_that_jumps_forgets_nothing_before_an_hour_has_passed,
            }
            async statistics {
                figures_count_what_has_happened_in_each_period,
                what_was_not_counted_before_a_restart_is_counted_with_the_next_event,
                a_batch_that_is_sent_again_and_one_that_is_refused_count_once_and_not_at_all,
                weeks_and_months_are_the_sums_of_their_days_page_by_page,
                starts_are_counted_by_the_name_of_the_tasks_and_so_many_names_apart,
                minutes_and_hours_go_when_their_time_is_over_and_days_stay,
                periods_without_events_are_filled_while_something_is_open,
            }
            async tasks {
                the_attempts_at_a_task_are_found_wherever_its_leases_began,
                an_attempt_with_another_number_of_answers_than_tasks_is_refused,
                failed_attempts_of_other_kinds_leave_no_rows_however_many_they_are,
                a_task_that_fails_for_ever_keeps_its_first_and_its_last_failures,
                a_composed_result_has_every_answer_in_its_place_and_null_where_there_is_none,
                a_composed_result_of_many_megabytes_is_whole,
            }
        }
    };
}

/// See [`crate::suite!`].
#[doc(hidden)]
#[macro_export]
macro_rules! suite_tests {
    ($harness:expr; $($kind:ident $module:ident { $($test:ident,)+ })+) => {
        $($($crate::suite_test! { $kind $harness, $module, $test })+)+
    };
}

/// See [`crate::suite!`].
#[doc(hidden)]
#[macro_export]
macro_rules! suite_test {
    (async $harness:expr, $module:ident, $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            $crate::suite::$module::$test(&$harness).await;
        }
    };
    (sync $harness:expr, $module:ident, $test:ident) => {
        #[test]
        fn $test() {
            $crate::suite::$module::$test(&$harness);
        }
    };
}
