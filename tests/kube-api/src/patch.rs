//! Patches: JSON merge patch (RFC 7396) and what of the strategic one its users here need: maps are merged, and lists of named things by
//! their key.

use serde_json::{Map, Value};

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Merge,
    Strategic,
}

/// The keys by which a strategic patch joins lists, most telling first: conditions, taints, containers.
const KEYS: [&str; 3] = ["type", "key", "name"];

/// Changes a value as a patch says.
pub(crate) fn apply(value: &mut Value, patch: &Value, style: Style) {
    match (&mut *value, patch) {
        (_, Value::Object(changes)) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let Some(object) = value.as_object_mut() else { return };
            for (name, change) in changes {
                if change.is_null() {
                    object.remove(name);
                } else {
                    apply(object.entry(name.clone()).or_insert(Value::Null), change, style);
                }
            }
        }
        (Value::Array(list), Value::Array(changes)) if style == Style::Strategic => join(list, changes),
        _ => *value = patch.clone(),
    }
}

fn join(list: &mut Vec<Value>, changes: &[Value]) {
    let named = changes.iter().all(Value::is_object);
    let key = KEYS.into_iter().find(|key| changes.iter().all(|change| change.get(key).is_some()));
    let Some(key) = key.filter(|_| named) else {
        *list = changes.to_vec();
        return;
    };
    for change in changes {
        match list.iter_mut().find(|known| known.get(key) == change.get(key)) {
            Some(known) => apply(known, change, Style::Strategic),
            None => list.push(change.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut value: Value, patch: &Value, style: Style) -> Value {
        apply(&mut value, patch, style);
        value
    }

    #[test]
    fn a_merge_patch_follows_its_rfc() {
        let value = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        let patch = json!({"a": {"b": null, "c": [3], "e": {"f": null, "g": 1}}, "d": {"h": 2}});
        let expected = json!({"a": {"c": [3], "e": {"g": 1}}, "d": {"h": 2}});
        assert_eq!(patched(value, &patch, Style::Merge), expected);
    }

    #[test]
    fn a_strategic_patch_joins_lists_by_their_keys() {
        let value = json!({"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other"}]});
        let patch = json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "New"}]});
        let expected =
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other"}, {"type": "New"}]});
        assert_eq!(patched(value, &patch, Style::Strategic), expected);
        assert_eq!(patched(json!({"a": [1]}), &json!({"a": [2]}), Style::Strategic), json!({"a": [2]}));
    }
}
