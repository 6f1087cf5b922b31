//! A whole node on this machine, and agents that use it through the command.

use crate::process::{Place, Running};
use serde_json::Value;

/// A node that keeps nothing, and the place where its agents run.
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) running: Running,
    pub(crate) told: Value,
}

impl Node {
    pub(crate) fn start(log: &str) -> Self {
        let mut place = Place::new();
        let arguments = ["--json", "--log", log, "dev", "--dir", "node"]
            .into_iter()
            .chain(ANY_PORT);
        let mut running = Running::start(place.command(arguments), &place.path("dev.log"));
        let told = running.json();
        place.set("SKYTALE_API_URL", told["api_url"].as_str().expect("a URL"));
        place.set("SKYTALE_API_KEY", told["api_key"].as_str().expect("a key"));
        Self { place, running, told }
    }

    /// Returns the output of an agent's command, as JSON.
    pub(crate) fn agent(&self, name: &str, arguments: &[&str]) -> Value {
        let vault = format!("{name}.vault");
        let mut line = arguments.to_vec();
        line.extend(["--vault", &vault, "--timeout-s", "120"]);
        self.place.json(&line)
    }

    /// An agent with keys on offer. Gives its id.
    pub(crate) fn join(&self, name: &str) -> String {
        text(&self.agent(name, &["init"])["agent"])
    }

    /// Messages that an agent reads, as their texts.
    pub(crate) fn read(&self, name: &str, arguments: &[&str]) -> Vec<String> {
        let vault = format!("{name}.vault");
        let line = ["--json", "channel", "read", "--vault", &vault, "--timeout-s", "120"];
        let ran = self.place.run(line.iter().chain(arguments));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let json = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        ran.stdout.lines().map(|line| text(&json(line)["text"])).collect()
    }
}

pub(crate) const ANY_PORT: [&str; 10] = [
    "--api-listen",
    "127.0.0.1:0",
    "--relay-listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--https-listen",
    "127.0.0.1:0",
    "--bridge-listen",
    "127.0.0.1:0",
];

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
