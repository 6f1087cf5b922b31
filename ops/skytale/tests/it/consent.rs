//! Consent to additions, and additions that wait, by the command.

use crate::node::{Node, text};
use serde_json::{Value, json};

fn requests(node: &Node) -> Vec<Value> {
    let listed = node.agent("bob", &["channel", "requests"]);
    listed["requests"].as_array().expect("a list").clone()
}

/// A channel of alice's with bob added and something said.
fn added(node: &Node, label: &str, bob: &str) -> String {
    let channel = text(&node.agent("alice", &["channel", "create", label])["channel"]);
    node.agent("alice", &["channel", "add", label, bob]);
    node.agent("alice", &["channel", "send", label, "hello"]);
    channel
}

#[test]
fn an_addition_waits_and_nothing_of_it_is_shown_until_it_is_accepted() {
    let node = Node::start("warn");
    let (alice, bob) = (node.join("alice"), node.join("bob"));
    let consent = node.agent("bob", &["consent"]);
    assert_eq!(
        (&consent["claims"]["who"], &consent["in_force"]),
        (&json!("account"), &json!(true))
    );
    assert_eq!(consent["account"], node.agent("alice", &["whoami"])["account"]);
    let consent = node.agent("bob", &["consent", "--allow", &alice, "--trust", "nobody"]);
    assert_eq!(consent["claims"]["agents"], json!([alice]));
    assert_eq!(
        (&consent["trust"]["account"], &consent["in_force"]),
        (&json!(false), &json!(true))
    );
    let consent = node.agent("bob", &["consent", "--anyone"]);
    assert_eq!(
        (&consent["claims"]["who"], &consent["in_force"]),
        (&json!("anyone"), &json!(true))
    );

    let plans = added(&node, "plans", &bob);
    let waiting = requests(&node);
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(
        (&waiting[0]["channel"], &waiting[0]["by"]),
        (&json!(plans), &json!(alice))
    );
    assert_eq!(node.agent("bob", &["channel", "list"])["channels"], json!([]));
    node.agent("bob", &["channel", "accept", &plans[..8]]);
    assert_eq!(node.read("bob", &[&plans]), ["hello"]);

    let offers = added(&node, "offers", &bob);
    assert_eq!(requests(&node).len(), 1);
    node.agent("bob", &["channel", "decline", &offers]);
    assert_eq!(requests(&node), [] as [Value; 0]);
    let channels = node.agent("bob", &["channel", "list"]);
    assert_eq!(channels["channels"].as_array().expect("a list").len(), 1, "{channels}");
    // Any agent that is online lets it go.
    let gone = (0..20).any(|_| {
        node.agent("alice", &["channel", "send", "offers", "anybody?"]);
        let members = node.agent("alice", &["channel", "members", "offers"]);
        members["members"].as_array().is_some_and(|members| members.len() == 1)
    });
    assert!(gone, "bob is still in the group");
}
