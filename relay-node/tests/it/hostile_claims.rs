//! Clients that want other agents' KeyPackages, and agents to be in channels that they do not know.

use crate::client::{Agent, Client};
use crate::fixture::{ACCOUNT, Fixture, claim, claim_as, commit, config, key_package, key_package_of, policy};
use crate::key_packages::ask;
use skytale_proto::session::{key_packages_request::Request, key_packages_response::Outcome};
use skytale_proto::{AccountId, AgentId, Allowed, ClaimRule, Code, Frame, Offset, limits};

const FOREIGN: AccountId = AccountId::from_bytes([0xf0; 16]);

/// Returns the answer to a claim: its offset and whether the package is the last resort, or the code of a refusal.
pub(crate) async fn claimed(client: &Client, frame: &Frame) -> Result<(u64, bool), Code> {
    let mut claims = client.key_packages().await;
    match ask(&mut claims, Request::Claim(frame.encoded().clone())).await {
        Outcome::Claimed(claimed) => Ok((claimed.claim_offset, claimed.last_resort)),
        Outcome::Refusal(refusal) => Err(refusal.known_code().expect("a code")),
        Outcome::Stock(_) => panic!("nobody counts"),
    }
}

/// An agent with packages on offer, and how many entries its log has.
async fn victim(fixture: &Fixture) -> (Agent, Client) {
    let (agent, client) = fixture.agent().await;
    for last_resort in [true, false, false, false] {
        client
            .append(&key_package(agent.id, last_resort))
            .await
            .expect("offered");
    }
    (agent, client)
}

async fn entries(agent: &Agent, client: &Client) -> usize {
    client.replay(agent.id.log(), Offset::ZERO).await.entries.len()
}

async fn stranger(fixture: &Fixture) -> (Agent, Client) {
    fixture.agent_with(|claims| claims.acct = FOREIGN).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_claims_are_refused_and_leave_no_entry() {
    let fixture = Fixture::new().await;
    let (bob, b) = victim(&fixture).await;
    let (mallory, m) = stranger(&fixture).await;
    for _ in 0..20 {
        let answer = claimed(&m, &claim_as(bob.id, mallory.id, FOREIGN)).await;
        assert_eq!(answer, Err(Code::ClaimNotAllowed));
    }
    // In the name of the owner's account, or of none.
    assert_eq!(
        claimed(&m, &claim_as(bob.id, mallory.id, ACCOUNT)).await,
        Err(Code::AuthorMismatch)
    );
    let nameless = crate::fixture::frame(
        bob.id.log(),
        mallory.id,
        0,
        skytale_proto::Detail::KeyPackageClaim { account: None },
        "",
    );
    assert_eq!(claimed(&m, &nameless).await, Err(Code::AuthorMismatch));
    assert_eq!(entries(&bob, &b).await, 4);
    let (alice, a) = fixture.agent().await;
    assert_eq!(claimed(&a, &claim(bob.id, alice.id)).await, Ok((5, false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_says_who_may_claim_but_the_owner_with_its_account() {
    let fixture = Fixture::new().await;
    let (bob, b) = victim(&fixture).await;
    let (mallory, m) = stranger(&fixture).await;
    let refused = |answer: Result<skytale_proto::session::Appended, skytale_proto::session::Refusal>| {
        answer.expect_err("refused").known_code()
    };
    let forged = crate::fixture::frame(
        bob.id.log(),
        mallory.id,
        0,
        skytale_proto::Detail::KeyPackagePolicy {
            account: FOREIGN,
            rule: ClaimRule::Anyone,
        },
        "",
    );
    assert_eq!(refused(m.append(&forged).await), Some(Code::KindRefused));
    let as_bob = policy(bob.id, ACCOUNT, ClaimRule::Anyone);
    assert_eq!(refused(m.append(&as_bob).await), Some(Code::AuthorMismatch));
    // Nor does the owner for another account: what it offers would be that account's to claim.
    let lent = policy(bob.id, FOREIGN, ClaimRule::Account);
    assert_eq!(refused(b.append(&lent).await), Some(Code::AuthorMismatch));
    let lent = key_package_of(bob.id, FOREIGN, false);
    assert_eq!(refused(b.append(&lent).await), Some(Code::AuthorMismatch));
    assert_eq!(
        claimed(&m, &claim_as(bob.id, mallory.id, FOREIGN)).await,
        Err(Code::ClaimNotAllowed)
    );

    let listed = Allowed::new([], [mallory.id]).expect("a list");
    b.append(&policy(bob.id, ACCOUNT, ClaimRule::Listed(listed)))
        .await
        .expect("in force");
    assert_eq!(
        claimed(&m, &claim_as(bob.id, mallory.id, FOREIGN)).await,
        Ok((6, false))
    );
    let (eve, e) = stranger(&fixture).await;
    assert_eq!(
        claimed(&e, &claim_as(bob.id, eve.id, FOREIGN)).await,
        Err(Code::ClaimNotAllowed)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_claim_and_never_stops_makes_few_entries() {
    let fixture = Fixture::new().await;
    let (bob, b) = victim(&fixture).await;
    for _ in 0..20 {
        b.append(&key_package(bob.id, false)).await.expect("offered");
    }
    b.append(&policy(bob.id, ACCOUNT, ClaimRule::Anyone))
        .await
        .expect("in force");
    let before = entries(&bob, &b).await;
    let (mallory, m) = stranger(&fixture).await;
    let mut answers = Vec::new();
    for _ in 0..300 {
        answers.push(
            claimed(&m, &claim_as(bob.id, mallory.id, FOREIGN))
                .await
                .expect("given"),
        );
    }
    assert_eq!(entries(&bob, &b).await, before + limits::CLAIMS_BY_ACCOUNT_MAX + 1);
    let (last, is_last_resort) = answers[limits::CLAIMS_BY_ACCOUNT_MAX];
    assert!(is_last_resort);
    assert!(
        answers[limits::CLAIMS_BY_ACCOUNT_MAX..]
            .iter()
            .all(|answer| *answer == (last, true))
    );
    // Others find what is theirs.
    let (alice, a) = fixture.agent().await;
    let (_, is_last_resort) = claimed(&a, &claim(bob.id, alice.id)).await.expect("given");
    assert!(!is_last_resort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_for_agents_that_did_not_ask_for_it_leaves_them_alone() {
    // Not even where its author may make so many Welcomes at once.
    let mut config = config();
    config.limits.frames_per_second = 1_000_000;
    let fixture = Fixture::with(config).await;
    let (bob, b) = victim(&fixture).await;
    let (mallory, m) = stranger(&fixture).await;
    let channel = fixture.channel(&mallory, &m).await;
    let mut recipients = vec![bob.id];
    recipients.extend((0..limits::ROSTER_CHANGE_MAX as u32 - 1).map(|number| {
        let mut bytes = [0xa6; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        AgentId::from_bytes(bytes)
    }));
    let added = m
        .append(&commit(channel, mallory.id, 1, &recipients, &[]))
        .await
        .expect("an entry of mallory's own channel");
    m.append(&commit(channel, mallory.id, added.offset, &recipients, &recipients))
        .await
        .expect("and another");
    assert_eq!(entries(&bob, &b).await, 4);
}
