//! The suite that every store passes: one test for each promise of [`LogStore`].
//!
//! ```text
//! // A fresh store, and whatever must live as long as it does.
//! async fn open() -> (Arc<MyStore>, TempDir) { .. }
//!
//! skytale_log_store::log_store_conformance!(open);
//! ```
//!
//! Each store tests its own promises across a restart.

pub mod appends;
pub mod closing;
pub mod handshakes;
pub mod heads;
pub mod key_packages;
pub mod membership;
pub mod reads;
pub mod refusals;
pub mod rule;
mod script;

use crate::LogStore;
use std::sync::Arc;
use std::time::Duration;

/// The store under test.
pub type Store = Arc<dyn LogStore>;

/// Time after which a promise counts as hanging; a generous guard, not a measure.
const HANGING: Duration = Duration::from_secs(180);

/// Runs one promise against a store, and fails where it hangs.
pub async fn hold<S, P, F>(store: Arc<S>, promise: P)
where
    S: LogStore,
    P: FnOnce(Store) -> F,
    F: Future<Output = ()>,
{
    let kept: Store = store;
    let run = Box::pin(promise(Arc::clone(&kept)));
    assert!(tokio::time::timeout(HANGING, run).await.is_ok(), "hangs");
    kept.close().await.expect("the store closes");
}

/// Makes a test for each promise. Takes the path of an `async fn` in the same module that gives a fresh store, as
/// `(Arc<impl LogStore>, kept)`; `kept` is dropped after the test. The crate that calls it needs tokio with `macros`
/// and `rt-multi-thread`.
#[macro_export]
macro_rules! log_store_conformance {
    ($open:path) => {
        $crate::log_store_conformance!(@room $open, appends: [
            offsets_are_dense_from_one,
            many_logs_interleaved_keep_their_own_offsets,
            pipelined_frames_keep_their_order,
            concurrent_authors_each_keep_their_order,
            a_frame_sent_again_gets_the_offset_it_has,
            a_frame_pipelined_twice_is_one_entry,
            a_refused_frame_is_not_remembered,
            an_append_that_nobody_waits_for_is_kept,
            what_an_append_was_lent_is_given_back_though_nobody_looks_at_the_answer,
            times_never_go_back,
            the_largest_frame_is_kept,
        ]);
        $crate::log_store_conformance!(@room $open, handshakes: [
            of_two_commits_on_one_head_the_first_wins,
            messages_behind_a_lost_race_are_all_stale,
            a_proposal_does_not_move_the_handshake_head,
            a_bundle_puts_one_welcome_on_each_recipients_log,
            a_bundle_leaves_nothing_with_recipients_that_do_not_know_its_author,
            a_bundle_sent_again_emits_nothing,
            nobody_can_take_a_welcomes_id_beforehand,
            a_refused_bundle_emits_nothing,
            welcomes_can_be_read_when_the_bundle_is_acknowledged,
        ]);
        $crate::log_store_conformance!(@room $open, refusals: [
            an_unknown_channel_takes_no_frame,
            a_channel_is_created_once,
            who_is_not_on_the_roster_appends_nothing,
            a_stale_commit_or_proposal_is_told_the_head,
            a_stale_message_is_told_the_head,
            membership_is_checked_before_the_parent,
            a_commit_that_contradicts_the_roster_is_refused,
            a_full_roster_takes_nobody,
            a_channel_takes_the_kinds_of_its_mode_alone,
            a_raw_channel_takes_its_account_alone,
            only_its_agent_offers_key_packages_on_a_log,
            a_trim_stays_within_the_log,
            a_refused_frame_takes_no_offset,
        ]);
        $crate::log_store_conformance!(@room $open, rule: [
            any_frames_in_any_order_have_the_folds_verdicts,
        ]);
        $crate::log_store_conformance!(@room $open, key_packages: [
            claims_take_the_oldest_package_first,
            the_last_resort_is_given_when_nothing_else_is_left_and_stays,
            a_new_last_resort_replaces_the_old_one,
            a_claim_with_nothing_in_stock_is_refused,
            a_full_stock_takes_no_more,
            each_package_is_claimed_once_by_concurrent_claims,
            a_claim_sent_again_takes_the_same_package,
            trimmed_packages_are_not_given,
            claims_are_the_owners_to_allow,
            claims_without_end_make_few_entries,
        ]);
        $crate::log_store_conformance!(@room $open, reads: [
            a_read_gives_the_authors_bytes,
            a_read_is_bounded_in_bytes,
            a_read_is_bounded_in_entries,
            a_read_gives_at_least_one_record,
            a_read_at_the_head_is_empty,
            a_cursor_past_the_head_is_an_error,
            a_log_without_entries_reads_as_empty,
            trimmed_entries_are_said_to_be_gone,
            a_trim_forgets_frame_ids,
            readers_during_writes_see_no_gap,
        ]);
        $crate::log_store_conformance!(@room $open, heads: [
            a_log_that_does_not_exist_has_head_zero,
            a_watch_wakes_when_the_head_moves,
            a_watch_made_later_begins_at_the_head,
            what_is_acknowledged_can_be_read_at_once,
            what_a_head_shows_can_be_read,
            a_refusal_and_a_duplicate_do_not_move_the_head,
        ]);
        $crate::log_store_conformance!(@room $open, membership: [
            members_read_from_their_adding_to_their_removal,
            an_agent_added_again_reads_both_stretches,
            an_agent_removed_and_added_at_once_reads_on,
            a_raw_channel_is_read_by_its_account,
            an_agents_log_is_its_own,
            a_channel_that_does_not_exist_is_unknown,
            a_removed_agent_appends_nothing_more,
            a_trim_forgets_stretches_that_have_ended,
        ]);
        $crate::log_store_conformance!(@room $open, closing: [
            a_closed_store_refuses_appends,
            closing_finishes_what_is_queued,
            closing_twice_is_closing_once,
        ]);
    };
    (@room $open:path, $room:ident: [$($promise:ident),* $(,)?]) => {
        mod $room {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let (store, _kept) = $open().await;
                    $crate::conformance::hold(store, $crate::conformance::$room::$promise).await;
                }
            )*
        }
    };
}
