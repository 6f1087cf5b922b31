//! As much of JSON Schema (2020-12) as the API's document uses: whether a value fits, and values at the edges.

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use regex::Regex;
use serde_json::{Map, Number, Value, json};

/// The schemas of a document.
pub(crate) struct Schemas {
    document: Value,
}

impl Schemas {
    pub(crate) fn new(document: Value) -> Self {
        Self { document }
    }

    /// The schema itself, where it is named elsewhere.
    fn at<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => self.at(self.document.pointer(&name[1..]).unwrap_or_else(|| panic!("no {name}"))),
            None => schema,
        }
    }

    /// Whether a value fits a schema.
    pub(crate) fn fits(&self, schema: &Value, value: &Value) -> bool {
        let schema = self.at(schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            return choices.iter().filter(|choice| self.fits(choice, value)).count() == 1;
        }
        let is = |name: &str| match name {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("type {other}"),
        };
        let of_type = match &schema["type"] {
            Value::String(name) => is(name),
            Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
            other => panic!("type {other}"),
        };
        of_type
            && schema["enum"].as_array().is_none_or(|values| values.contains(value))
            && match value {
                Value::Number(number) => in_bounds(schema, number),
                Value::String(text) => {
                    let chars = text.chars().count() as u64;
                    let pattern = schema["pattern"].as_str().map(regex);
                    between(chars, schema, "minLength", "maxLength") && pattern.is_none_or(|regex| regex.is_match(text))
                }
                Value::Array(items) => {
                    between(items.len() as u64, schema, "minItems", "maxItems")
                        && items.iter().all(|item| self.fits(&schema["items"], item))
                }
                Value::Object(fields) => self.fields_fit(schema, fields),
                Value::Null | Value::Bool(_) => true,
            }
    }

    fn fields_fit(&self, schema: &Value, fields: &Map<String, Value>) -> bool {
        let required = schema["required"].as_array().into_iter().flatten();
        let none_missing = required
            .into_iter()
            .all(|name| fields.contains_key(name.as_str().unwrap()));
        none_missing
            && fields.iter().all(|(name, value)| match schema["properties"].get(name) {
                Some(schema) => self.fits(schema, value),
                None => schema["additionalProperties"] != false,
            })
    }

    /// Values at the edges of a schema, on both sides; `good` is one that fits.
    pub(crate) fn edges(&self, schema: &Value, good: &Value, runner: &mut TestRunner) -> Vec<Value> {
        let schema = self.at(schema);
        let mut edges = vec![
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1.5),
            json!(""),
            json!([]),
            json!({}),
        ];
        if let Some(choices) = schema["oneOf"].as_array() {
            for choice in choices.iter().filter(|choice| choice["type"] != "null") {
                edges.extend(self.edges(choice, good, runner));
            }
            return edges;
        }
        let bound = |name: &str| schema[name].as_u64();
        if let Some(max) = bound("maximum") {
            edges.extend([json!(max - 1), json!(max), json!(max as f64 * 2.0)]);
            edges.extend(max.checked_add(1).map(Value::from));
        }
        if let Some(min) = bound("minimum").filter(|min| *min > 0) {
            edges.extend([json!(min - 1), json!(min)]);
        }
        let lengths = |least: Option<u64>, most: Option<u64>| {
            let both = [least, most].into_iter().flatten();
            both.flat_map(|length| [length.saturating_sub(1), length, length + 1])
                .collect::<Vec<_>>()
        };
        for length in lengths(bound("minLength"), bound("maxLength")) {
            edges.extend(["a", "€", " "].map(|text| json!(text.repeat(length as usize))));
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            edges.extend(near(pattern, runner).into_iter().map(Value::from));
        }
        if let Some(items) = good.as_array() {
            for length in lengths(bound("minItems"), bound("maxItems")) {
                edges.push(items.iter().cycle().take(length as usize).cloned().collect());
            }
            if let Some(first) = items.first() {
                edges.extend(
                    self.edges(&schema["items"], first, runner)
                        .into_iter()
                        .map(|item| json!([item])),
                );
            }
        }
        if let Some(fields) = good.as_object() {
            edges.extend(self.field_edges(schema, fields, runner));
        }
        edges
    }

    fn field_edges(&self, schema: &Value, good: &Map<String, Value>, runner: &mut TestRunner) -> Vec<Value> {
        let mut edges = Vec::new();
        let with = |name: &str, value: Option<Value>| {
            let mut fields = good.clone();
            match value {
                Some(value) => fields.insert(name.to_owned(), value),
                None => fields.remove(name),
            };
            Value::from(fields)
        };
        edges.push(with("another", Some(json!(1))));
        for (name, schema) in schema["properties"].as_object().unwrap() {
            edges.push(with(name, None));
            let value = good.get(name).unwrap_or_else(|| panic!("the example has no `{name}`"));
            edges.extend(
                self.edges(schema, value, runner)
                    .into_iter()
                    .map(|edge| with(name, Some(edge))),
            );
        }
        edges
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// Texts that a pattern takes, and texts that are nearly such.
fn near(pattern: &str, runner: &mut TestRunner) -> Vec<String> {
    let strategy = proptest::string::string_regex(&pattern.replace(['^', '$'], ""));
    // A class that begins with `^` is another one without it.
    let strategy = strategy.ok().filter(|_| !pattern.contains("[^"));
    let mut texts = Vec::new();
    for _ in 0..12 {
        let Some(strategy) = &strategy else { break };
        let text = strategy.new_tree(runner).unwrap().current();
        let mut shorter = text.clone();
        shorter.pop();
        texts.extend([
            shorter,
            format!("{text}0"),
            format!("{text}\n"),
            format!(" {text}"),
            text.to_uppercase(),
            text.replace('-', ""),
            text,
        ]);
    }
    texts.extend(["\u{0}", "a\u{7f}", "a\u{85}", "ä", "~", "%"].map(str::to_owned));
    texts
}

fn in_bounds(schema: &Value, number: &Number) -> bool {
    let is_in = |value: f64| {
        schema["minimum"].as_f64().is_none_or(|min| value >= min)
            && schema["maximum"].as_f64().is_none_or(|max| value <= max)
    };
    match number.as_u64() {
        Some(value) => {
            schema["minimum"].as_u64().is_none_or(|min| value >= min)
                && schema["maximum"].as_u64().is_none_or(|max| value <= max)
        }
        None => number.as_f64().is_some_and(is_in),
    }
}

fn between(length: u64, schema: &Value, least: &str, most: &str) -> bool {
    schema[least].as_u64().is_none_or(|min| length >= min) && schema[most].as_u64().is_none_or(|max| length <= max)
}
