//! Limits on the appends of an agent, and of an account with all of its agents together: frames and bytes a second,
//! with a burst, over any number of streams and connections. And on their commits to one channel: a commit names the one
//! before it, so that an agent, or an account's agents in turn, that commit without pause keep commits of the other members away.
//!
//! The rates outlive a connection, so that connecting again buys nothing. They are this node's: in a fleet each node has its own.

use crate::config::LimitsConfig;
use governor::clock::{Clock, DefaultClock, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;
use skytale_proto::session::Refusal;
use skytale_proto::{AccountId, AgentId, Code, Detail, Header, LogId};
use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

/// Bytes are counted in cells of this many, rounded up, so that a rate is exact to a nanosecond a cell.
const CELL_BYTES: u64 = 64;
/// The shortest wait that is asked for: a shorter one is over before its refusal has arrived.
const WAIT_MIN: Duration = Duration::from_millis(50);

type Keyed<K, C> = RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The rates of all agents and accounts.
#[derive(Debug)]
pub(crate) struct Rates<C: Clock = DefaultClock> {
    agents: Meters<AgentId, C>,
    accounts: Meters<AccountId, C>,
    commits: Mutex<Commits>,
    clock: C,
    begun: C::Instant,
}

/// Commits of each agent, and of each account, to each channel: a minute's worth at once, by the generic cell rate algorithm
/// (ITU-T I.371). One that the log does not take is given back: an agent whose commits come too late again and again may go on
/// trying.
#[derive(Debug)]
struct Commits {
    agents: Allowances<AgentId>,
    accounts: Allowances<AccountId>,
}

impl Commits {
    fn take(&mut self, agent: &AgentId, account: &AccountId, log: &LogId, now_ns: u64) -> Result<(), Over> {
        let agents = self.agents.after(agent, log, now_ns).map_err(Over::Commits)?;
        let accounts = self
            .accounts
            .after(account, log, now_ns)
            .map_err(Over::AccountCommits)?;
        self.agents.whole_at.insert((*agent, *log), agents);
        self.accounts.whole_at.insert((*account, *log), accounts);
        Ok(())
    }

    fn give_back(&mut self, agent: &AgentId, account: &AccountId, log: &LogId) {
        self.agents.give_back(agent, log);
        self.accounts.give_back(account, log);
    }

    fn forget_idle(&mut self, now_ns: u64) {
        self.agents.forget_idle(now_ns);
        self.accounts.forget_idle(now_ns);
    }
}

/// Allowances of everyone of a kind, in each channel.
#[derive(Debug)]
struct Allowances<K> {
    interval_ns: u64,
    /// Time at which each allowance is whole again, in ns since the beginning.
    whole_at: HashMap<(K, LogId), u64>,
}

const MINUTE_NS: u64 = 60_000_000_000;

impl<K: Hash + Eq + Copy> Allowances<K> {
    fn new(per_minute: u32) -> Self {
        Self {
            interval_ns: MINUTE_NS / u64::from(per_minute.max(1)),
            whole_at: HashMap::new(),
        }
    }

    /// Time at which the allowance would be whole again if one more were taken now, or the time to wait for that one.
    fn after(&self, whose: &K, log: &LogId, now_ns: u64) -> Result<u64, Duration> {
        let before = self.whole_at.get(&(*whose, *log)).copied().unwrap_or_default();
        let after = before.max(now_ns) + self.interval_ns;
        match after.checked_sub(now_ns + MINUTE_NS) {
            Some(wait_ns) if wait_ns > 0 => Err(Duration::from_nanos(wait_ns).max(WAIT_MIN)),
            _ => Ok(after),
        }
    }

    fn give_back(&mut self, whose: &K, log: &LogId) {
        if let Some(whole_at) = self.whole_at.get_mut(&(*whose, *log)) {
            *whole_at = whole_at.saturating_sub(self.interval_ns);
        }
    }

    fn forget_idle(&mut self, now_ns: u64) {
        self.whole_at.retain(|_, whole_at| *whole_at > now_ns);
        self.whole_at.shrink_to_fit();
    }
}

/// Frames and bytes of everyone of a kind.
#[derive(Debug)]
struct Meters<K: Hash + Eq + Clone, C: Clock> {
    frames: Meter<K, C>,
    bytes: Meter<K, C>,
}

/// One rate of everyone of a kind.
#[derive(Debug)]
struct Meter<K: Hash + Eq + Clone, C: Clock> {
    limiter: Keyed<K, C>,
    burst: NonZeroU32,
    clock: C,
}

/// Units that a frame takes from the rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// 1, and one more for each Welcome that the frame causes.
    pub(crate) frames: u32,
    pub(crate) bytes: usize,
    /// The channel, if the frame is a commit.
    commits_to: Option<LogId>,
}

/// Owner of the rate that is used up, and the time to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Agent(Duration),
    /// The agent, by its commits to the channel.
    Commits(Duration),
    Account(Duration),
    /// The account, by its agents' commits to the channel.
    AccountCommits(Duration),
}

impl Over {
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Agent(wait) => {
                let why = "more frames or bytes than this agent may append a second";
                Refusal::because(Code::RateLimited, why).after(wait)
            }
            Self::Commits(wait) => {
                let why = "more commits than this agent may append to one channel a minute";
                Refusal::because(Code::RateLimited, why).after(wait)
            }
            Self::Account(wait) => {
                let why = "more frames or bytes than the agents of this account may append a second, together";
                Refusal::because(Code::AccountRateLimited, why).after(wait)
            }
            Self::AccountCommits(wait) => {
                let why = "more commits than the agents of this account may append to one channel a minute, together";
                Refusal::because(Code::AccountRateLimited, why).after(wait)
            }
        }
    }
}

/// Number of Welcomes that a frame causes.
pub(crate) fn welcomes_of(header: &Header) -> usize {
    match &header.detail {
        Detail::Commit { recipients, .. } => recipients.len(),
        _ => 0,
    }
}

impl Cost {
    /// The cost of a frame of `bytes` bytes with this header.
    pub(crate) fn of(header: &Header, bytes: usize) -> Self {
        let welcomes = u32::try_from(welcomes_of(header)).unwrap_or(u32::MAX);
        Self {
            frames: welcomes.saturating_add(1),
            bytes,
            commits_to: matches!(header.detail, Detail::Commit { .. }).then_some(header.log),
        }
    }

    /// The cost of a frame that cannot be read, or that the agent may not append.
    pub(crate) const fn unfit(bytes: usize) -> Self {
        Self {
            frames: 1,
            bytes,
            commits_to: None,
        }
    }
}

impl Rates {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self::with_clock(limits, &DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(limits: &LimitsConfig, clock: &C) -> Self {
        let burst_s = limits.burst_s;
        Self {
            agents: Meters::new(limits.frames_per_second, limits.bytes_per_second, burst_s, clock),
            accounts: Meters::new(
                limits.account_frames_per_second(),
                limits.account_bytes_per_second(),
                burst_s,
                clock,
            ),
            commits: Mutex::new(Commits {
                agents: Allowances::new(limits.commits_per_minute),
                accounts: Allowances::new(limits.account_commits_per_minute()),
            }),
            clock: clock.clone(),
            begun: clock.now(),
        }
    }

    fn now_ns(&self) -> u64 {
        self.clock.now().duration_since(self.begun).as_u64()
    }

    /// Takes a frame from an agent's rates and its account's; else whose are used up.
    pub(crate) fn take(&self, agent: &AgentId, account: &AccountId, cost: Cost) -> Result<(), Over> {
        // The agent's first: one that is over its own rate takes nothing from the other agents of its account.
        self.agents.take(agent, cost).map_err(Over::Agent)?;
        self.accounts.take(account, cost).map_err(Over::Account)?;
        match cost.commits_to {
            Some(log) => self.commits.lock().take(agent, account, &log, self.now_ns()),
            None => Ok(()),
        }
    }

    /// Gives a commit back that the log did not take.
    pub(crate) fn commit_refused(&self, agent: &AgentId, account: &AccountId, log: &LogId) {
        self.commits.lock().give_back(agent, account, log);
    }

    /// Forgets agents and accounts whose rates are full again.
    pub(crate) fn forget_idle(&self) {
        self.agents.forget_idle();
        self.accounts.forget_idle();
        self.commits.lock().forget_idle(self.now_ns());
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Meters<K, C> {
    fn new(frames_per_second: u32, bytes_per_second: u64, burst_s: u32, clock: &C) -> Self {
        Self {
            frames: Meter::new(quota(frames_per_second.into(), burst_s), clock),
            bytes: Meter::new(quota(bytes_per_second / CELL_BYTES, burst_s), clock),
        }
    }

    fn take(&self, key: &K, cost: Cost) -> Result<(), Duration> {
        let cells = u32::try_from((cost.bytes as u64).div_ceil(CELL_BYTES)).unwrap_or(u32::MAX);
        self.frames.take(key, cost.frames)?;
        self.bytes.take(key, cells)
    }

    fn forget_idle(&self) {
        self.frames.forget_idle();
        self.bytes.forget_idle();
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Meter<K, C> {
    fn new(quota: Quota, clock: &C) -> Self {
        Self {
            limiter: RateLimiter::dashmap_with_clock(quota, clock.clone()),
            burst: quota.burst_size(),
            clock: clock.clone(),
        }
    }

    /// Takes units, or says how long to wait. A request for more than a burst takes all of one: nothing waits for ever.
    fn take(&self, key: &K, units: u32) -> Result<(), Duration> {
        let units = NonZeroU32::new(units).unwrap_or(NonZeroU32::MIN).min(self.burst);
        match self.limiter.check_key_n(key, units) {
            Ok(Err(until)) => Err(self.wait(&until)),
            // The burst holds it.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn wait(&self, until: &NotUntil<C::Instant>) -> Duration {
        until.wait_time_from(self.clock.now()).max(WAIT_MIN)
    }

    fn forget_idle(&self) {
        self.limiter.retain_recent();
    }
}

fn quota(per_second: u64, burst_s: u32) -> Quota {
    let per_second = NonZeroU32::new(u32::try_from(per_second).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
    let burst = NonZeroU32::new(per_second.get().saturating_mul(burst_s)).unwrap_or(per_second);
    Quota::per_second(per_second).allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use skytale_proto::ChannelId;

    const A: AgentId = AgentId::from_bytes([1; 32]);
    const B: AgentId = AgentId::from_bytes([2; 32]);
    const ONE: AccountId = AccountId::from_bytes([3; 16]);
    const OTHER: AccountId = AccountId::from_bytes([4; 16]);

    const fn cost(frames: u32, bytes: usize) -> Cost {
        Cost {
            frames,
            bytes,
            commits_to: None,
        }
    }

    const fn commit_to(log: LogId) -> Cost {
        Cost {
            frames: 1,
            bytes: 100,
            commits_to: Some(log),
        }
    }

    fn rates(clock: &FakeRelativeClock) -> Rates<FakeRelativeClock> {
        let limits = LimitsConfig {
            frames_per_second: 10,
            bytes_per_second: 1024 * 1024,
            account_frames_per_second: Some(25),
            account_bytes_per_second: Some(2 * 1024 * 1024),
            burst_s: 2,
            ..LimitsConfig::default()
        };
        Rates::with_clock(&limits, clock)
    }

    #[test]
    fn a_burst_passes_then_the_sustained_rate() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        for _ in 0..20 {
            assert_eq!(rates.take(&A, &ONE, cost(1, 100)), Ok(()));
        }
        let Err(Over::Agent(wait)) = rates.take(&A, &ONE, cost(1, 100)) else {
            panic!("the burst is used up")
        };
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        clock.advance(wait.max(Duration::from_millis(100)));
        assert_eq!(rates.take(&A, &ONE, cost(1, 100)), Ok(()));
        assert!(rates.take(&A, &ONE, cost(1, 100)).is_err());
    }

    #[test]
    fn bytes_count_too_and_any_one_frame_fits() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        assert_eq!(rates.take(&A, &ONE, cost(1, 1024 * 1024)), Ok(()));
        assert_eq!(rates.take(&A, &ONE, cost(1, 1024 * 1024)), Ok(()));
        let Err(Over::Agent(wait)) = rates.take(&A, &ONE, cost(1, 1024 * 1024)) else {
            panic!("two seconds' worth are used up")
        };
        assert!(wait > Duration::from_millis(900), "{wait:?}");
        clock.advance(wait);
        assert_eq!(rates.take(&A, &ONE, cost(1, 1024 * 1024)), Ok(()));
    }

    #[test]
    fn one_agent_takes_nothing_from_another() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        while rates.take(&A, &ONE, cost(1, 100)).is_ok() {}
        assert_eq!(rates.take(&B, &ONE, cost(1, 100)), Ok(()));
    }

    #[test]
    fn an_account_has_one_rate_whatever_number_of_agents() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        let agent = |number| AgentId::from_bytes([number; 32]);
        let passed = (10..20).map(|number| {
            (0..10)
                .filter(|_| rates.take(&agent(number), &ONE, cost(1, 1)).is_ok())
                .count()
        });
        assert_eq!(passed.sum::<usize>(), 50, "two seconds' worth of the account's");
        assert!(matches!(
            rates.take(&agent(30), &ONE, cost(1, 1)),
            Err(Over::Account(_))
        ));
        assert_eq!(rates.take(&agent(31), &OTHER, cost(1, 1)), Ok(()));
        // By bytes, too.
        clock.advance(Duration::from_secs(10));
        for number in 40..44 {
            assert_eq!(rates.take(&agent(number), &ONE, cost(1, 1024 * 1024)), Ok(()));
        }
        assert!(matches!(
            rates.take(&agent(44), &ONE, cost(1, 1024 * 1024)),
            Err(Over::Account(_))
        ));
    }

    #[test]
    fn welcomes_count_as_frames_and_any_one_bundle_fits() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        assert_eq!(rates.take(&A, &ONE, cost(1 + 15, 100)), Ok(()));
        assert!(matches!(rates.take(&A, &ONE, cost(1 + 15, 100)), Err(Over::Agent(_))));
        // More than a burst takes all of one.
        assert_eq!(rates.take(&B, &OTHER, cost(4_097, 100)), Ok(()));
        assert!(matches!(rates.take(&B, &OTHER, cost(1, 100)), Err(Over::Agent(_))));
    }

    fn six_commits_a_minute(clock: &FakeRelativeClock) -> Rates<FakeRelativeClock> {
        let limits = LimitsConfig {
            commits_per_minute: 6,
            ..LimitsConfig::default()
        };
        Rates::with_clock(&limits, clock)
    }

    fn log(number: u8) -> LogId {
        ChannelId::from_bytes([number; 16]).log()
    }

    #[test]
    fn an_agents_commits_to_one_channel_have_a_rate_of_their_own() {
        let clock = FakeRelativeClock::default();
        let rates = six_commits_a_minute(&clock);
        let commit = |agent, channel| rates.take(agent, &ONE, commit_to(log(channel)));
        for _ in 0..6 {
            assert_eq!(commit(&A, 1), Ok(()));
        }
        let Err(Over::Commits(wait)) = commit(&A, 1) else {
            panic!("a minute's worth is used up")
        };
        assert!(
            wait > Duration::from_secs(9) && wait <= Duration::from_secs(10),
            "{wait:?}"
        );
        // Other members, other channels, and other frames go on.
        assert_eq!(commit(&B, 1), Ok(()));
        assert_eq!(commit(&A, 2), Ok(()));
        assert_eq!(rates.take(&A, &ONE, cost(1, 100)), Ok(()));
        clock.advance(wait);
        assert_eq!(commit(&A, 1), Ok(()));
        assert!(matches!(commit(&A, 1), Err(Over::Commits(_))));
        // One that came too late costs nothing.
        for _ in 0..20 {
            rates.commit_refused(&A, &ONE, &log(1));
            assert_eq!(commit(&A, 1), Ok(()));
        }
        assert!(matches!(commit(&A, 1), Err(Over::Commits(_))));
        clock.advance(Duration::from_secs(120));
        rates.forget_idle();
        assert!(rates.commits.lock().agents.whole_at.is_empty());
    }

    #[test]
    fn an_accounts_commits_to_one_channel_have_a_rate_whatever_number_of_agents() {
        let clock = FakeRelativeClock::default();
        let rates = six_commits_a_minute(&clock);
        let agent = |number| AgentId::from_bytes([number; 32]);
        for number in 0..30 {
            assert_eq!(rates.take(&agent(number), &ONE, commit_to(log(1))), Ok(()));
        }
        let Err(Over::AccountCommits(wait)) = rates.take(&agent(30), &ONE, commit_to(log(1))) else {
            panic!("five times an agent's")
        };
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
        assert_eq!(rates.take(&B, &OTHER, commit_to(log(1))), Ok(()));
        assert_eq!(rates.take(&agent(30), &ONE, commit_to(log(2))), Ok(()));
        // What is refused for the account's sake takes nothing from the agent.
        for _ in 0..6 {
            rates.commit_refused(&agent(0), &ONE, &log(1));
        }
        for _ in 0..6 {
            assert_eq!(rates.take(&agent(30), &ONE, commit_to(log(1))), Ok(()));
        }
        assert!(matches!(
            rates.take(&agent(30), &ONE, commit_to(log(1))),
            Err(Over::Commits(_))
        ));
        clock.advance(Duration::from_secs(120));
        rates.forget_idle();
        assert!(rates.commits.lock().accounts.whole_at.is_empty());
    }

    #[test]
    fn those_that_are_idle_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        assert_eq!(rates.take(&A, &ONE, cost(1, 100)), Ok(()));
        rates.forget_idle();
        assert_eq!(
            (rates.agents.frames.limiter.len(), rates.accounts.frames.limiter.len()),
            (1, 1)
        );
        clock.advance(Duration::from_secs(60));
        rates.forget_idle();
        let left = [rates.agents.frames.limiter.len(), rates.agents.bytes.limiter.len()];
        assert_eq!(left, [0, 0]);
        assert_eq!(
            (rates.accounts.frames.limiter.len(), rates.accounts.bytes.limiter.len()),
            (0, 0)
        );
    }
}
