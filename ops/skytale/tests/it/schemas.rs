//! Output of commands with `--json` has the shape in `docs/schemas`. Every test that runs a command with `--json`
//! checks it, through [`check_output`]; the tests here see that the schemas are strict, and that none is missing.

use crate::process::Place;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Commands whose output is no JSON.
const RAW: &[&str] = &["completions", "exit-codes"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas")
}

fn schema(name: &str) -> Option<Value> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("docs/schemas/{name}.json: {error}")))
}

/// The schema of a command line: of the longest command in it, wherever options are.
pub(crate) fn name_of(arguments: &[&str]) -> Option<String> {
    (0..arguments.len()).find_map(|start| {
        let words: Vec<&str> = arguments[start..]
            .iter()
            .take_while(|word| !word.starts_with('-'))
            .copied()
            .collect();
        (1..=words.len())
            .rev()
            .map(|count| words[..count].join("-"))
            .find(|name| !name.contains('/') && folder().join(format!("{name}.json")).exists())
    })
}

/// Checks a value that a command gave.
pub(crate) fn check(name: &str, value: &Value) {
    let schema = schema(name).unwrap_or_else(|| panic!("no docs/schemas/{name}.json"));
    if let Some(problem) = problem(&schema, value) {
        panic!("this is not what docs/schemas/{name}.json says: {problem}\n{value:#}");
    }
}

/// Checks what a command with these arguments wrote to standard output and standard error, if they ask for JSON.
pub(crate) fn check_output(arguments: &[&str], stdout: &str, stderr: &str) {
    if !arguments.contains(&"--json") {
        return;
    }
    let values = |text: &str| -> Vec<Value> {
        text.lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    };
    for failure in values(stderr).iter().filter(|value| value.get("error").is_some()) {
        check("failure", failure);
    }
    for value in values(stdout) {
        let Some(name) = name_of(arguments) else {
            panic!(
                "`{}` has no schema in docs/schemas. One to begin with:\n{:#}",
                arguments.join(" "),
                draft(&value)
            );
        };
        check(&name, &value);
    }
}

fn problem(schema: &Value, value: &Value) -> Option<String> {
    let validator = jsonschema::draft202012::new(schema).expect("a schema");
    let found = validator.iter_errors(value).next();
    found.map(|error| format!("{error}, at `{}`", error.instance_path()))
}

/// A schema that a value fits, for a person to finish.
fn draft(value: &Value) -> Value {
    match value {
        Value::Null => json!({"type": ["string", "null"]}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(number) if number.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer", "minimum": 0}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(items) => json!({"type": "array", "items": items.first().map_or(json!({}), draft)}),
        Value::Object(fields) => {
            let properties: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| (name.clone(), draft(value)))
                .collect();
            let required: Vec<&String> = fields.keys().collect();
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
        }
    }
}

/// Every command, from the page that is generated from the command line's definition.
fn commands() -> Vec<String> {
    let page = Place::new().run(["reference", "cli"]).stdout;
    let all: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## skytale "))
        .map(str::to_owned)
        .collect();
    assert!(all.len() > 40, "{all:?}");
    all
}

#[test]
fn every_command_has_a_schema_and_every_schema_a_command() {
    let all = commands();
    let is_group = |name: &str| all.iter().any(|other| other.starts_with(&format!("{name} ")));
    let mut missing: Vec<&String> = all
        .iter()
        .filter(|name| !RAW.contains(&name.as_str()) && schema(&name.replace(' ', "-")).is_none())
        .collect();
    // Some groups do something themselves: `relay` serves a node. They have a schema; others need none.
    missing.retain(|name| !is_group(name));
    assert!(missing.is_empty(), "no docs/schemas for {missing:?}");
    for entry in std::fs::read_dir(folder()).expect("docs/schemas") {
        let name = entry.expect("a file").path();
        let name = name
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        assert!(
            name == "failure" || all.iter().any(|command| command.replace(' ', "-") == name),
            "docs/schemas/{name}.json is of no command"
        );
    }
}

/// Every object says which fields it has, and allows no others.
#[test]
fn schemas_are_exact() {
    fn look(name: &str, schema: &Value) {
        match schema {
            Value::Object(fields) => {
                if fields.get("type") == Some(&json!("object")) {
                    assert!(fields.contains_key("additionalProperties"), "{name}: {schema:#}");
                }
                if fields.contains_key("properties") && fields.get("type") == Some(&json!("object")) {
                    assert_eq!(fields["additionalProperties"], false, "{name}: {schema:#}");
                    assert!(fields.contains_key("required"), "{name}: {schema:#}");
                }
                fields.values().for_each(|inner| look(name, inner));
            }
            Value::Array(items) => items.iter().for_each(|inner| look(name, inner)),
            _ => {}
        }
    }
    for entry in std::fs::read_dir(folder()).expect("docs/schemas") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("read");
        let schema: Value = serde_json::from_str(&text).expect("JSON");
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        look(&path.to_string_lossy(), &schema);
    }
}

#[test]
fn a_shape_that_changed_is_noticed() {
    let place = Place::new();
    let value = place.json(&["config", "print"]);
    let schema = schema("config-print").expect("a schema");
    assert_eq!(problem(&schema, &value), None);
    let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut other = value.clone();
        change(other.as_object_mut().expect("an object"));
        assert!(problem(&schema, &other).is_some(), "{other}");
    };
    changed(&|fields| {
        fields.insert("more".into(), json!(1));
    });
    changed(&|fields| {
        fields.remove("file");
    });
    changed(&|fields| {
        fields.insert("file".into(), json!(7));
    });
    changed(&|fields| {
        fields["config"]["api_url"]["source"] = json!(null);
    });
}

#[test]
fn a_schema_to_begin_with_fits_its_value() {
    let value = json!({"a": 1, "b": [{"c": null}], "d": "x", "e": 1.5, "f": true, "g": []});
    assert_eq!(problem(&draft(&value), &value), None);
    assert!(problem(&draft(&value), &json!({"a": 1})).is_some());
}

#[test]
fn the_schema_of_a_command_line_is_that_of_its_longest_command() {
    let name = |words: &[&str]| name_of(words);
    assert_eq!(
        name(&["--json", "channel", "outbox", "room"]).as_deref(),
        Some("channel-outbox")
    );
    assert_eq!(
        name(&["channel", "outbox", "drop", "x"]).as_deref(),
        Some("channel-outbox-drop")
    );
    assert_eq!(name(&["relay"]).as_deref(), Some("relay"));
    assert_eq!(name(&["--config", "/x", "whoami", "--json"]).as_deref(), Some("whoami"));
    assert_eq!(name(&["channels"]), None);
}
