//! The rule of the log once more, as plainly as it can be said: it keeps nothing but the entries, and answers every
//! question by looking through all of them. [`super::LogState`] is tested against it.

use crate::Access;
use skytale_proto::{
    AccountId, AgentId, ChannelId, ChannelMode, ClaimRule, Code, Detail, FrameId, Header, Kind, LogId, Offset, Policy,
    Right, limits,
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Model {
    log: LogId,
    /// The entry at offset n is at index n - 1. Nothing is ever dropped.
    entries: Vec<Header>,
}

/// A claim that no Welcome has spent.
#[derive(Clone, Debug)]
struct Unspent {
    at: u64,
    /// The package's offset, and whether it is the last resort.
    package: (u64, bool),
    agent: AgentId,
    account: Option<AccountId>,
}

#[derive(Default)]
struct Held {
    claims: Vec<Unspent>,
    given: BTreeSet<u64>,
    /// By channel: the bundle of the newest Welcome, and whose claim brought the agent there.
    welcomed: BTreeMap<ChannelId, (u64, Brought)>,
}

/// An agent, of an account.
type Brought = (AgentId, Option<AccountId>);

/// Package that a claim takes.
enum Took {
    New((u64, bool)),
    /// The last resort that it holds by the claim there.
    Again(u64),
}

fn is_listed(rule: &ClaimRule, agent: &AgentId, account: Option<&AccountId>) -> bool {
    match rule {
        ClaimRule::Account => false,
        ClaimRule::Listed(allowed) => {
            allowed.agents().contains(agent) || account.is_some_and(|account| allowed.accounts().contains(account))
        }
        ClaimRule::Anyone => true,
    }
}

fn account_of(claim: &Header) -> Option<AccountId> {
    match claim.detail {
        Detail::KeyPackageClaim { account } => account,
        _ => None,
    }
}

/// Expected outcome of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Appended {
        offset: u64,
        welcomed: Vec<AgentId>,
        /// The package's offset, and whether it is the last resort.
        claimed: Option<(u64, bool)>,
        trimmed: Option<u64>,
    },
    Duplicate(u64),
    Refused(Code, Option<u64>),
}

impl Model {
    pub(super) fn new(log: LogId) -> Self {
        Self {
            log,
            entries: Vec::new(),
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Entries with their offsets.
    fn numbered(&self) -> impl DoubleEndedIterator<Item = (u64, &Header)> {
        self.entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (index as u64 + 1, entry))
    }

    /// The greatest offset that a Trim before `offset` gave up.
    fn trimmed_before(&self, offset: u64) -> u64 {
        self.numbered()
            .filter(|(at, _)| *at < offset)
            .filter_map(|(_, entry)| match entry.detail {
                Detail::Trim { up_to } => Some(up_to.get()),
                _ => None,
            })
            .max()
            .unwrap_or(0)
    }

    pub(super) fn trimmed(&self) -> u64 {
        self.trimmed_before(u64::MAX)
    }

    /// The newest entry with this id, trimmed or not.
    pub(super) fn newest(&self, id: FrameId) -> Option<u64> {
        self.numbered()
            .rfind(|(_, entry)| entry.id == id)
            .map(|(offset, _)| offset)
    }

    pub(super) fn handshake_head(&self) -> u64 {
        self.numbered()
            .filter(|(_, entry)| matches!(entry.kind(), Kind::Create | Kind::Commit))
            .map(|(offset, _)| offset)
            .max()
            .unwrap_or(0)
    }

    fn raw_account(&self) -> Option<AccountId> {
        match self.entries.first()?.detail {
            Detail::Create { account, .. } => account,
            _ => None,
        }
    }

    /// Returns the roster after the entry at `offset`.
    fn roster_after(&self, offset: u64) -> BTreeSet<AgentId> {
        let mut roster = BTreeSet::new();
        for (_, entry) in self.numbered().filter(|(at, _)| *at <= offset) {
            match &entry.detail {
                Detail::Create {
                    mode: ChannelMode::Mls, ..
                } => {
                    roster.insert(entry.author);
                }
                Detail::Commit {
                    roster: Some(whole), ..
                } => roster = whole.iter().copied().collect(),
                Detail::Commit { adds, removes, .. } => {
                    roster.retain(|agent| !removes.contains(agent));
                    roster.extend(adds);
                }
                _ => {}
            }
        }
        roster
    }

    /// Policies in force one after another, each with its author and offset.
    fn policies(&self) -> Vec<(u64, AgentId, Policy)> {
        let mut policies: Vec<(u64, AgentId, Policy)> = Vec::new();
        for (offset, entry) in self.numbered() {
            if let Detail::Create { policy: Some(new), .. } | Detail::Commit { policy: Some(new), .. } = &entry.detail
                && policies.last().is_none_or(|(_, _, last)| last != new)
            {
                policies.push((offset, entry.author, new.clone()));
            }
        }
        policies
    }

    pub(super) fn policy(&self) -> Option<Policy> {
        self.policies().pop().map(|(_, _, policy)| policy)
    }

    /// The policies that an admin of before may put back, and who changed them: as they were before one agent changed them, while
    /// no other admin of that time has committed.
    fn contested(&self) -> Option<(AgentId, Vec<Policy>)> {
        let mut contested: Option<(AgentId, Vec<Policy>)> = None;
        let mut policy: Option<Policy> = None;
        for (offset, entry) in self.numbered() {
            match &entry.detail {
                Detail::Create { policy: first, .. } => policy.clone_from(first),
                Detail::Commit {
                    policy: Some(new),
                    roster,
                    ..
                } if policy.as_ref() != Some(new) => {
                    let leaving = self.leaving_before(offset);
                    let puts_back = |by: &AgentId, old: &[Policy]| {
                        let stays = |agent: &AgentId| {
                            let is_gone = roster.as_ref().is_some_and(|whole| !whole.contains(agent));
                            !(leaving.contains(agent) && is_gone)
                        };
                        roster.is_some()
                            && *by != entry.author
                            && new.admins().contains(&entry.author)
                            && old.iter().any(|policy| policy.with_admins(stays) == *new)
                    };
                    let before = policy.replace(new.clone());
                    contested = match (contested, before) {
                        (Some((by, mut old)), Some(before)) if by == entry.author => {
                            old.retain(|kept| *kept != before);
                            old.push(before);
                            let over = old.len().saturating_sub(8);
                            old.drain(..over);
                            Some((by, old))
                        }
                        (Some((by, old)), _) if old.contains(new) || puts_back(&by, &old) => None,
                        (_, before) => before.map(|before| (entry.author, vec![before])),
                    };
                }
                Detail::Commit { .. } => {
                    let was_admin = |old: &[Policy]| old.iter().any(|policy| policy.admins().contains(&entry.author));
                    contested = contested.filter(|(by, old)| *by == entry.author || !was_admin(old));
                }
                _ => {}
            }
        }
        contested
    }

    /// Returns the agents that have proposed to leave, and have been on the roster since.
    fn leaving(&self) -> BTreeSet<AgentId> {
        self.leaving_before(self.head() + 1)
    }

    fn leaving_before(&self, before: u64) -> BTreeSet<AgentId> {
        let mut leaving = BTreeSet::new();
        for (offset, entry) in self.numbered().filter(|(at, _)| *at < before) {
            match &entry.detail {
                Detail::Proposal => {
                    leaving.insert(entry.author);
                }
                Detail::Commit { adds, .. } => {
                    let roster = self.roster_after(offset);
                    leaving.retain(|agent| roster.contains(agent) && !adds.contains(agent));
                }
                _ => {}
            }
        }
        leaving
    }

    fn is_allowed(&self, right: Right, author: &AgentId) -> bool {
        let roster = self.roster();
        self.policy()
            .is_none_or(|policy| policy.allows(right, author, |agent| roster.contains(agent)))
    }

    /// Returns the policy's objection to a commit.
    fn policy_objection(&self, header: &Header) -> Option<(Code, Option<u64>)> {
        let policy = self.policy()?;
        let Detail::Commit {
            adds,
            removes,
            roster,
            policy: new,
            ..
        } = &header.detail
        else {
            return None;
        };
        let (before, leaving) = (self.roster(), self.leaving());
        let is_gone = |agent: &AgentId| match roster {
            Some(whole) => !whole.contains(agent),
            None => removes.contains(agent) && !adds.contains(agent),
        };
        let adds_someone = adds.iter().any(|agent| !removes.contains(agent));
        let removes_someone = match roster {
            Some(_) => policy
                .admins()
                .iter()
                .any(|agent| before.contains(agent) && is_gone(agent) && !leaving.contains(agent)),
            None => removes.iter().any(|agent| is_gone(agent) && !leaving.contains(agent)),
        };
        let changes = new.as_ref().is_some_and(|new| {
            let stays = |agent: &AgentId| !(leaving.contains(agent) && is_gone(agent));
            let lets_go = policy.with_admins(stays);
            let puts_back = roster.is_some()
                && new.admins().contains(&header.author)
                && self.contested().is_some_and(|(by, before)| {
                    by != header.author && before.iter().any(|old| old == new || old.with_admins(stays) == *new)
                });
            *new != policy && *new != lets_go && !puts_back
        });
        let asked = [
            (Right::Add, adds_someone),
            (Right::Remove, removes_someone),
            (Right::Policy, changes),
        ];
        let forbidden = asked
            .into_iter()
            .any(|(right, asked)| asked && !self.is_allowed(right, &header.author));
        forbidden.then_some((Code::PolicyForbids, None))
    }

    pub(super) fn roster(&self) -> BTreeSet<AgentId> {
        self.roster_after(self.head())
    }

    /// Returns for each offset up to one past the head whether the agent may read the entry there, or the next one to
    /// come.
    fn readable(&self, agent: AgentId) -> Vec<bool> {
        let mut on: Vec<bool> = (0..=self.head())
            .map(|offset| self.roster_after(offset).contains(&agent))
            .collect();
        // An agent that a correction puts back was never off; one that it removes was off before.
        for (offset, entry) in self.numbered() {
            let at = offset as usize;
            if let Detail::Commit {
                adds,
                removes,
                roster: Some(_),
                ..
            } = &entry.detail
                && (on[at] || removes.contains(&agent))
                && !on[at - 1]
                && !adds.contains(&agent)
                && let Some(last) = on[..at].iter().rposition(|on| *on)
                && last as u64 + 1 > self.trimmed_before(offset)
            {
                on[last..at].fill(true);
            }
        }
        let mut readable: Vec<bool> = on.windows(2).map(|around| around[0] || around[1]).collect();
        readable.push(on[on.len() - 1]);
        // A stretch that has ended, whole below a trim, is forgotten.
        let mut from = 0;
        while from < readable.len() {
            let run = readable[from..].iter().take_while(|may| **may).count();
            let last_offset = (from + run) as u64;
            if last_offset <= self.trimmed() {
                readable[from..from + run].fill(false);
            }
            from += run + 1;
        }
        readable
    }

    /// The answers for all cursors from 0 to the head.
    pub(super) fn accesses(&self, agent: AgentId, account: AccountId) -> Vec<Access> {
        let all = |may| match may {
            true => Access::Readable { until: None },
            false => Access::NotMember { next: None },
        };
        let whole = |access| vec![access; self.entries.len() + 1];
        match (self.log, self.raw_account()) {
            (LogId::Agent(owner), _) => return whole(all(owner == agent)),
            (LogId::Channel(_), _) if self.entries.is_empty() => return whole(Access::UnknownLog),
            (LogId::Channel(_), Some(owner)) => return whole(all(owner == account)),
            (LogId::Channel(_), None) => {}
        }
        let readable = self.readable(agent);
        let offset_at = |index: usize| Offset::new(index as u64 + 1);
        (0..readable.len())
            .map(|wanted| {
                let change = (wanted..readable.len()).find(|at| readable[*at] != readable[wanted]);
                match readable[wanted] {
                    true => Access::Readable {
                        until: change.map(|at| offset_at(at).previous()),
                    },
                    false => Access::NotMember {
                        next: change.map(offset_at),
                    },
                }
            })
            .collect()
    }

    /// The unspent claims before an offset, oldest first, and the single-use packages that were given: entry by entry from the
    /// beginning, what each claim took, which Welcome spent it, which Trim or later claim had it forgotten.
    fn held(&self, before: u64) -> Held {
        let mut held = Held::default();
        for (offset, entry) in self.numbered().filter(|(at, _)| *at < before) {
            match &entry.detail {
                Detail::KeyPackageClaim { .. } => {
                    let Ok(Took::New(package)) = self.took(offset, entry, &held) else {
                        panic!("a claim that is an entry took something");
                    };
                    if !package.1 {
                        held.given.insert(package.0);
                    }
                    held.claims.push(Unspent {
                        at: offset,
                        package,
                        agent: entry.author,
                        account: account_of(entry),
                    });
                    if held.claims.len() > limits::CLAIMS_REMEMBERED_MAX {
                        held.claims.remove(0);
                    }
                }
                Detail::Welcome {
                    channel,
                    returns,
                    offset: bundle,
                } => {
                    let known = self.welcomed_with_consent(*channel, offset, &held);
                    let theirs = |claim: &&Unspent| claim.agent == entry.author;
                    let single_use = held.claims.iter().position(|claim| theirs(&claim) && !claim.package.1);
                    let (home, _) = self.consent(offset);
                    let own = known.filter(|(_, account)| account.is_some() && *account == home);
                    let by = match (known, single_use) {
                        (Some(by), _) if *returns => by,
                        (_, Some(at)) => {
                            let claim = held.claims.remove(at);
                            (claim.agent, claim.account)
                        }
                        (known, None) => {
                            let last_resort = held.claims.iter().find(theirs);
                            let last_resort = last_resort.map(|claim| (claim.agent, claim.account));
                            last_resort.or(known).expect("a Welcome that is an entry was expected")
                        }
                    };
                    let by = own.unwrap_or(by);
                    let newest = held.welcomed.entry(*channel).or_insert((0, by));
                    if newest.0 < bundle.get() {
                        *newest = (bundle.get(), by);
                    }
                    assert!(
                        held.welcomed.len() <= limits::WELCOMES_REMEMBERED_MAX,
                        "stories are short"
                    );
                }
                Detail::Trim { up_to } => held.claims.retain(|claim| claim.at > up_to.get()),
                Detail::KeyPackagePolicy { account, rule } => {
                    let home = Some(*account);
                    held.claims.retain(|claim| {
                        claim.agent.log() == self.log
                            || claim.account == home
                            || is_listed(rule, &claim.agent, claim.account.as_ref())
                    });
                }
                _ => {}
            }
        }
        held
    }

    /// Returns the account of the log's owner, and the owner's rule on other claims, for an entry at `offset`.
    fn consent(&self, offset: u64) -> (Option<AccountId>, ClaimRule) {
        let before = || {
            self.numbered()
                .filter(move |(at, _)| *at < offset)
                .map(|(_, entry)| &entry.detail)
        };
        let account = before().rev().find_map(|detail| match detail {
            Detail::KeyPackage { account, .. } => *account,
            Detail::KeyPackagePolicy { account, .. } => Some(*account),
            _ => None,
        });
        let rule = before().rev().find_map(|detail| match detail {
            Detail::KeyPackagePolicy { rule, .. } => Some(rule.clone()),
            _ => None,
        });
        (account, rule.unwrap_or_default())
    }

    /// Returns the stock for an entry at `offset`: single-use packages and last resorts.
    fn stock_at(&self, offset: u64, given: &BTreeSet<u64>) -> (Vec<u64>, Option<u64>) {
        let offered = |resort: bool| {
            let is = move |entry: &Header| matches!(entry.detail, Detail::KeyPackage { last_resort, .. } if last_resort == resort);
            self.numbered()
                .filter(move |(at, entry)| *at < offset && is(entry))
                .map(|(at, _)| at)
        };
        let trimmed = self.trimmed_before(offset);
        let live = offered(false)
            .filter(|at| *at > trimmed && !given.contains(at))
            .collect();
        (live, offered(true).next_back().filter(|at| *at > trimmed))
    }

    /// Whether an agent may claim by an entry at `offset`.
    fn may_claim(&self, offset: u64, (agent, account): Brought, held: &Held) -> bool {
        let (home, rule) = self.consent(offset);
        let (live, last_resort) = self.stock_at(offset, &held.given);
        let is_new = home.is_none() && live.is_empty() && last_resort.is_none();
        let listed = is_listed(&rule, &agent, account.as_ref());
        agent.log() == self.log || is_new || account == home || (home.is_some() && listed)
    }

    /// Whose claim brought the agent to a channel, if that one may claim by an entry at `offset`.
    fn welcomed_with_consent(&self, channel: ChannelId, offset: u64, held: &Held) -> Option<Brought> {
        let (_, by) = *held.welcomed.get(&channel)?;
        self.may_claim(offset, by, held).then_some(by)
    }

    /// Returns the package that a claim at `offset` takes, or the reason for none.
    fn took(&self, offset: u64, claim: &Header, held: &Held) -> Result<Took, Code> {
        let (owner, account) = (self.log, account_of(claim));
        let (home, _) = self.consent(offset);
        let is_own = claim.author.log() == owner;
        if !self.may_claim(offset, (claim.author, account), held) {
            return Err(Code::ClaimNotAllowed);
        }
        let (live, last_resort) = self.stock_at(offset, &held.given);
        let single_use = live.into_iter().min();
        let last = last_resort.map(|package| (package, true));
        if is_own || account.is_none() {
            let oldest = single_use.map(|package| (package, false));
            return oldest.or(last).map(Took::New).ok_or(Code::KeyPackagesExhausted);
        }
        let ours = |resort: bool| {
            let mine = held
                .claims
                .iter()
                .filter(|claim| claim.account == account && claim.agent.log() != owner);
            mine.filter(|claim| claim.package.1 == resort).count()
        };
        let again = held.claims.iter().find(|earlier| {
            earlier.agent == claim.author && earlier.account == account && Some(earlier.package) == last
        });
        let again = again.map(|earlier| Took::Again(earlier.at));
        let strangers = held
            .claims
            .iter()
            .filter(|claim| claim.account.is_some() && claim.account != home);
        if account != home && strangers.count() >= limits::CLAIMS_BY_OTHERS_MAX {
            return again.ok_or(Code::ClaimsUnspent);
        }
        if let Some(package) = single_use
            && ours(false) < limits::CLAIMS_BY_ACCOUNT_MAX
        {
            return Ok(Took::New((package, false)));
        }
        match (last, again) {
            (None, _) if single_use.is_some() => Err(Code::ClaimsUnspent),
            (None, _) => Err(Code::KeyPackagesExhausted),
            (Some(_), Some(again)) => Ok(again),
            (Some(_), None) if account != home && ours(true) >= limits::CLAIMS_BY_ACCOUNT_MAX => {
                Err(Code::ClaimsUnspent)
            }
            (Some(last), None) => Ok(Took::New(last)),
        }
    }

    fn takes_next(&self, claim: &Header) -> Result<Took, Code> {
        let next = self.head() + 1;
        self.took(next, claim, &self.held(next))
    }

    /// Single-use packages, and whether there is a last resort.
    pub(super) fn stock(&self) -> (usize, bool) {
        let next = self.head() + 1;
        let (live, last_resort) = self.stock_at(next, &self.held(next).given);
        (live.len(), last_resort.is_some())
    }

    /// Returns the packages that unspent claims took, by the claims' offsets.
    pub(super) fn claimed(&self) -> BTreeMap<u64, (u64, bool)> {
        let held = self.held(self.head() + 1);
        held.claims.into_iter().map(|claim| (claim.at, claim.package)).collect()
    }

    /// The last entry given up that is no Trim, and the last Trim among those given up: a reader whose cursor is before the
    /// first has lost something, and one whose cursor is not has not.
    pub(super) fn given_up(&self) -> u64 {
        self.numbered()
            .filter(|(at, entry)| *at <= self.trimmed() && entry.kind() != Kind::Trim)
            .map(|(at, _)| at)
            .max()
            .unwrap_or(0)
    }

    /// The newest Welcome of each channel, where its entry was given up.
    pub(super) fn welcomes_given_up(&self) -> Vec<(ChannelId, u64)> {
        if matches!(self.log, LogId::Channel(_)) {
            return Vec::new();
        }
        let mut newest: BTreeMap<ChannelId, (u64, u64)> = BTreeMap::new();
        for (at, entry) in self.numbered() {
            if let Detail::Welcome { channel, offset, .. } = entry.detail
                && newest.get(&channel).is_none_or(|(bundle, _)| *bundle < offset.get())
            {
                newest.insert(channel, (offset.get(), at));
            }
        }
        let gone = newest.into_iter().filter(|(_, (_, at))| *at <= self.trimmed());
        gone.map(|(channel, (bundle, _))| (channel, bundle)).collect()
    }

    /// The verdict; an accepted frame is an entry after this.
    pub(super) fn apply(&mut self, header: &Header) -> Expected {
        let verdict = self.judge(header);
        if matches!(verdict, Expected::Appended { .. }) {
            self.entries.push(header.clone());
        }
        verdict
    }

    fn judge(&self, header: &Header) -> Expected {
        if let Some(offset) = self.newest(header.id).filter(|offset| *offset > self.trimmed()) {
            return Expected::Duplicate(offset);
        }
        if let Some((code, offset)) = self.objection(header) {
            return Expected::Refused(code, offset);
        }
        let took = match header.kind() {
            Kind::KeyPackageClaim => self.takes_next(header).ok(),
            _ => None,
        };
        if let Some(Took::Again(earlier)) = took {
            return Expected::Duplicate(earlier);
        }
        let offset = self.head() + 1;
        Expected::Appended {
            offset,
            welcomed: match &header.detail {
                Detail::Commit { recipients, .. } => recipients.clone(),
                _ => Vec::new(),
            },
            claimed: match took {
                Some(Took::New(package)) => Some(package),
                Some(Took::Again(_)) | None => None,
            },
            trimmed: match header.detail {
                Detail::Trim { up_to } => Some(up_to.get()),
                _ => None,
            },
        }
    }

    fn objection(&self, header: &Header) -> Option<(Code, Option<u64>)> {
        let kind = header.kind();
        let version = header.id.as_bytes()[6] / 16;
        if version == 8 && kind != Kind::Welcome {
            return Some((Code::KindRefused, None));
        }
        if matches!(self.log, LogId::Channel(_)) {
            match (self.entries.is_empty(), kind == Kind::Create) {
                (true, true) => return None,
                (true, false) => return Some((Code::UnknownLog, None)),
                (false, true) => return Some((Code::LogExists, None)),
                (false, false) => {}
            }
        }
        if let Detail::Trim { up_to } = header.detail {
            let is_group = matches!(self.log, LogId::Channel(_)) && self.raw_account().is_none();
            let is_member = self.roster().contains(&header.author);
            if is_group && is_member && !self.is_allowed(Right::Trim, &header.author) {
                return Some((Code::PolicyForbids, None));
            }
            let in_range = (self.trimmed() + 1..=self.head()).contains(&up_to.get());
            return (!in_range).then_some((Code::TrimRange, Some(self.trimmed() + 1)));
        }
        match (self.log, self.raw_account()) {
            (LogId::Agent(owner), _) => self.mailbox_objection(owner, header),
            (LogId::Channel(_), Some(owner)) => match header.detail {
                Detail::Raw { account } => (account != owner).then_some((Code::NotMember, None)),
                _ => Some((Code::KindRefused, None)),
            },
            (LogId::Channel(_), None) => self.group_objection(header),
        }
    }

    fn mailbox_objection(&self, owner: AgentId, header: &Header) -> Option<(Code, Option<u64>)> {
        let (live, last_resort) = self.stock();
        match &header.detail {
            Detail::KeyPackage { .. } | Detail::KeyPackagePolicy { .. } if header.author != owner => {
                Some((Code::NotMember, None))
            }
            Detail::KeyPackagePolicy { .. } => None,
            Detail::KeyPackage { last_resort: true, .. } if last_resort => None,
            Detail::KeyPackage { .. } => {
                let full = live + usize::from(last_resort) == limits::KEY_PACKAGES_MAX;
                full.then_some((Code::KeyPackagesFull, None))
            }
            Detail::KeyPackageClaim { .. } => self.takes_next(header).err().map(|code| (code, None)),
            Detail::Welcome { channel, .. } => {
                let next = self.head() + 1;
                let held = self.held(next);
                let is_claimed = held.claims.iter().any(|claim| claim.agent == header.author);
                let is_expected = is_claimed || self.welcomed_with_consent(*channel, next, &held).is_some();
                (!is_expected).then_some((Code::WelcomeUnclaimed, None))
            }
            _ => Some((Code::KindRefused, None)),
        }
    }

    fn group_objection(&self, header: &Header) -> Option<(Code, Option<u64>)> {
        let kind = header.kind();
        if !kind.is_under_handshake_rule() {
            return Some((Code::KindRefused, None));
        }
        let roster = self.roster();
        if !roster.contains(&header.author) {
            return Some((Code::NotMember, None));
        }
        let head = self.handshake_head();
        if header.parent.get() != head {
            let code = match kind {
                Kind::Message => Code::StaleEpoch,
                _ => Code::StaleHandshake,
            };
            return Some((code, Some(head)));
        }
        if let Some(objection) = self.policy_objection(header) {
            return Some(objection);
        }
        let Detail::Commit {
            adds,
            removes,
            roster: whole,
            ..
        } = &header.detail
        else {
            return None;
        };
        if let Some(whole) = whole {
            let sound = whole.contains(&header.author) && adds.iter().all(|agent| whole.contains(agent));
            return (!sound).then_some((Code::RosterChange, None));
        }
        let remain = |agent: &AgentId| roster.contains(agent) && !removes.contains(agent);
        let sound = !removes.contains(&header.author)
            && removes.iter().all(|agent| roster.contains(agent))
            && !adds.iter().any(remain);
        (!sound).then_some((Code::RosterChange, None))
    }
}
