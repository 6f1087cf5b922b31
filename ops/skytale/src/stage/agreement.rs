//! Whether agents have the sent messages, and the same ones.

use super::{AgentReport, Comparison};

/// Comparison of all agents' messages with the sent ones, and with one another.
#[derive(Clone, Debug)]
pub(crate) struct Agreement {
    /// Sum of the comparisons, over all agents.
    pub found: Comparison,
    /// Number of agents.
    pub agents: usize,
    /// Messages that should be found: each at each agent.
    pub expected: u64,
    /// Whether all are at one offset with one digest.
    pub digests: bool,
    /// Whether all have one transcript.
    pub transcripts: bool,
}

impl Agreement {
    pub(crate) fn of(agents: &[AgentReport], sent: u64) -> Self {
        let mut found = Comparison::default();
        for agent in agents {
            found.add(&agent.compared);
        }
        let same =
            |pick: &dyn Fn(&AgentReport) -> String| agents.windows(2).all(|pair| pick(&pair[0]) == pick(&pair[1]));
        Self {
            found,
            agents: agents.len(),
            expected: sent * agents.len() as u64,
            digests: agents.iter().all(|agent| agent.digest.is_some())
                && same(&|agent| format!("{} {:?}", agent.cursor, agent.digest)),
            transcripts: same(&|agent| agent.transcript.clone()),
        }
    }

    /// Whether there are agents, and each has exactly the sent messages.
    pub(crate) const fn holds(&self) -> bool {
        let complete = self.agents > 0 && self.found.delivered == self.expected;
        complete && self.found.is_exact() && self.digests && self.transcripts
    }
}
