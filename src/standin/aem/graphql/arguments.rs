//! The arguments of a field in a query, as far as the stand-in needs them: numbers, strings, variables.

use serde_json::{Map, Value};

/// Those of the first field of this name; none where it has no list of them, `None` where it cannot be read.
pub(super) fn of(query: &str, field: &str, variables: &Value) -> Option<Map<String, Value>> {
    let after = query.split_once(field).map_or("", |(_, after)| after).trim_start();
    let mut arguments = Map::new();
    let Some(mut rest) = after.strip_prefix('(') else {
        return Some(arguments);
    };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if rest.starts_with(')') {
            return Some(arguments);
        }
        let (name, after) = rest.split_once(':')?;
        let (value, after) = value(after.trim_start(), variables)?;
        arguments.insert(name.trim_end().to_owned(), value);
        rest = after;
    }
}

fn value<'a>(text: &'a str, variables: &Value) -> Option<(Value, &'a str)> {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let value = values.next()?.ok()?;
        return Some((value, &text[values.byte_offset()..]));
    }
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ',' | ')'))?;
    let (word, rest) = text.split_at(end);
    let value = match word.strip_prefix('$') {
        Some(name) => variables[name].clone(),
        None => word.parse::<i64>().ok()?.into(),
    };
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_strings_and_variables_are_read_and_nothing_else() {
        let variables = json!({"n": 7});
        let read = |query: &str| of(query, "list", &variables).map(Value::from);
        for query in ["{list{items}}", "{ list { items } }", "{other}", "list()"] {
            assert_eq!(read(query), Some(json!({})), "{query}");
        }
        let expected = Some(json!({"first": 2, "after": "a\")(,", "n": 7}));
        assert_eq!(read(r#"{ list ( first:2,after:"a\")(,", n : $n ) { items } }"#), expected);
        assert_eq!(read("{list(\n  first: 2\n  n: $n\n){x}}"), Some(json!({"first": 2, "n": 7})));
        for query in
            ["{list(first:", "{list(first:2", "{list(filter:{a:1}){x}}", "{list(a:true){x}}", "{list(\"a"]
        {
            assert_eq!(read(query), None, "{query}");
        }
    }
}
