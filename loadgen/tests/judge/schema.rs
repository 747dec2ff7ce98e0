//! The JSON of a run is as `report.schema.json` says. The validator knows what that file uses.

use serde_json::Value;

/// Complaints about `value`, with where it stands.
fn check(schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{place}: {value} is none of {allowed:?}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    let is = |name: &&str| match *name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the schema has an unknown type {other}"),
    };
    if !types.is_empty() && !types.iter().any(is) {
        found.push(format!("{place}: {value} is no {types:?}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        found.push(format!("{place}: {number} is below {least}"));
    }
    if let Some(items) = value.as_array().filter(|_| schema["items"].is_object()) {
        for (index, item) in items.iter().enumerate() {
            check(&schema["items"], item, &format!("{place}[{index}]"), found);
        }
    }
    let Some(object) = value.as_object() else {
        return;
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            found.push(format!("{place}: {name} is missing"));
        }
    }
    for (name, member) in object {
        let place = format!("{place}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{place}: unknown")),
            (Value::Null, other) => check(other, member, &place, found),
            (known, _) => check(known, member, &place, found),
        }
    }
}

/// Complaints about a report.
pub(crate) fn complaints(report: &Value) -> Vec<String> {
    let text = include_str!("../../report.schema.json");
    let schema: Value = serde_json::from_str(text).unwrap();
    let mut found = Vec::new();
    check(&schema, report, "report", &mut found);
    found
}

#[test]
fn a_report_that_is_not_as_the_schema_says_is_complained_about() {
    let complaints = complaints(&serde_json::json!({"schema": 1, "users": -1, "extra": true}));
    let text = complaints.join("\n");
    for part in [
        "report.schema: 1 is none of",
        "report.users: -1 is below 0",
        "report.extra: unknown",
        "\"ledger\" is missing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
