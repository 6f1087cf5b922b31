//! Rules on who may claim an agent's KeyPackages.

use crate::{AccountId, AgentId, limits};

/// Agents that may claim an agent's KeyPackages beside the agent itself and the agents of its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClaimRule {
    /// Nobody else.
    #[default]
    Account,
    /// Those listed, too.
    Listed(Allowed),
    /// Every agent.
    Anyone,
}

/// Accounts and agents that may claim KeyPackages: at least one, at most [`limits::CLAIM_RULE_MAX`], each once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Allowed {
    accounts: Vec<AccountId>,
    agents: Vec<AgentId>,
}

/// A list that no rule may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowedError {
    /// Nobody is listed.
    #[error("the list is empty")]
    Empty,
    /// More accounts and agents than a rule may list.
    #[error("{count} accounts and agents are over the limit of {}", limits::CLAIM_RULE_MAX)]
    TooMany {
        /// Number of accounts and agents.
        count: usize,
    },
    /// Not ascending, or one of them twice.
    #[error("the list is not in ascending order")]
    Order,
}

impl AllowedError {
    /// Returns the problem, in words that stay the same.
    pub(crate) const fn problem(self) -> &'static str {
        match self {
            Self::Empty => "missing",
            Self::TooMany { .. } => "names more accounts and agents than a rule may",
            Self::Order => "not in ascending order",
        }
    }
}

impl Allowed {
    /// A list in any order; one that is there twice counts once.
    pub fn new(
        accounts: impl IntoIterator<Item = AccountId>,
        agents: impl IntoIterator<Item = AgentId>,
    ) -> Result<Self, AllowedError> {
        let (mut accounts, mut agents): (Vec<_>, Vec<_>) =
            (accounts.into_iter().collect(), agents.into_iter().collect());
        accounts.sort_unstable();
        accounts.dedup();
        agents.sort_unstable();
        agents.dedup();
        Self::ascending(accounts, agents)
    }

    /// A list that is in ascending order already: one list has one encoding.
    pub fn ascending(accounts: Vec<AccountId>, agents: Vec<AgentId>) -> Result<Self, AllowedError> {
        let count = accounts.len() + agents.len();
        if count == 0 {
            return Err(AllowedError::Empty);
        }
        if count > limits::CLAIM_RULE_MAX {
            return Err(AllowedError::TooMany { count });
        }
        if !accounts.is_sorted_by(|a, b| a < b) || !agents.is_sorted_by(|a, b| a < b) {
            return Err(AllowedError::Order);
        }
        Ok(Self { accounts, agents })
    }

    /// The accounts, ascending. Each stands for all of its agents.
    pub fn accounts(&self) -> &[AccountId] {
        &self.accounts
    }

    /// The agents, ascending.
    pub fn agents(&self) -> &[AgentId] {
        &self.agents
    }
}

impl ClaimRule {
    /// Whether an agent of an account may claim, beside the owner's account.
    pub fn allows(&self, agent: &AgentId, account: Option<&AccountId>) -> bool {
        match self {
            Self::Account => false,
            Self::Listed(allowed) => {
                allowed.agents.binary_search(agent).is_ok()
                    || account.is_some_and(|account| allowed.accounts.binary_search(account).is_ok())
            }
            Self::Anyone => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountId = AccountId::from_bytes([1; 16]);
    const B: AccountId = AccountId::from_bytes([2; 16]);
    const X: AgentId = AgentId::from_bytes([3; 32]);
    const Y: AgentId = AgentId::from_bytes([4; 32]);

    #[test]
    fn a_list_allows_its_accounts_and_agents_and_nobody_else() {
        let listed = ClaimRule::Listed(Allowed::new([A, A], [X]).expect("a list"));
        assert!(listed.allows(&Y, Some(&A)));
        assert!(listed.allows(&X, Some(&B)) && listed.allows(&X, None));
        assert!(!listed.allows(&Y, Some(&B)) && !listed.allows(&Y, None));
        assert!(!ClaimRule::Account.allows(&X, Some(&A)));
        assert!(ClaimRule::Anyone.allows(&Y, None));
    }

    #[test]
    fn a_list_is_bounded_has_somebody_and_has_one_order() {
        assert_eq!(Allowed::new([], []), Err(AllowedError::Empty));
        assert_eq!(Allowed::ascending(vec![B, A], vec![]), Err(AllowedError::Order));
        assert_eq!(Allowed::ascending(vec![A, A], vec![]), Err(AllowedError::Order));
        assert_eq!(Allowed::new([B, A], [Y, X]), Allowed::ascending(vec![A, B], vec![X, Y]));
        let many = |count: usize| (0..count as u128).map(|number| AccountId::from_bytes(number.to_be_bytes()));
        assert!(Allowed::new(many(limits::CLAIM_RULE_MAX - 1), [X]).is_ok());
        let over = Allowed::new(many(limits::CLAIM_RULE_MAX), [X]);
        assert_eq!(
            over,
            Err(AllowedError::TooMany {
                count: limits::CLAIM_RULE_MAX + 1
            })
        );
    }
}
