//! Values written as text, as in `margin=0.3,type_of_triplets=hard`.

use serde_json::Value;

use super::Options;

/// Reads options: `key=value,key=value`, or a JSON object.
///
/// A value is a number, `true` or `false` (also `True`, `False`, `None` as in Python), a list `[a,b]` (or `(a,b)`), a
/// text in single or double quotes, any other JSON, or else a text as it stands. Commas within brackets or quotes do
/// not separate.
///
/// # Errors
/// The problem in words: an item without `=`, a name given twice, an open bracket or quote.
pub fn parse_options(text: &str) -> Result<Options, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("expected a JSON object, got `{text}`: {error}"));
    }
    let mut options = Options::new();
    for item in split(text)? {
        let Some((key, value)) = item.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            return Err(format!("expected `key=value`, got `{item}`"));
        };
        let key = key.trim();
        if options.insert(key.to_owned(), parse(value)?).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
    }
    Ok(options)
}

/// Reads a list of texts: a JSON list, or texts joined by commas. Commas within brackets or quotes do not separate, so
/// `A(x=1,y=2),B()` are two.
///
/// # Errors
/// The problem in words: an open bracket or quote, or JSON that is not a list of texts.
pub fn split_list(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| format!("expected a list of texts, got `{text}`: {error}"));
    }
    Ok(split(text)?.into_iter().map(str::to_owned).collect())
}

fn parse(text: &str) -> Result<Value, String> {
    let text = text.trim();
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let within = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    if let Some(quoted) = within('\'', '\'') {
        return Ok(quoted.into());
    }
    if let Some(items) = within('[', ']').or_else(|| within('(', ')')) {
        return split(items)?.into_iter().map(parse).collect::<Result<Vec<_>, _>>().map(Value::from);
    }
    Ok(match (text, text.parse::<f64>()) {
        ("True", _) => true.into(),
        ("False", _) => false.into(),
        ("None", _) => Value::Null,
        (_, Ok(number)) if number.is_finite() => number.into(), // `.5` and `+1` are numbers, but not in JSON
        _ => text.into(),
    })
}

/// The trimmed items between the commas that stand outside of brackets and quotes; none for an empty text.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut items, mut start, mut open) = (Vec::new(), 0, Vec::new());
    let mut before = ',';
    for (at, next) in text.char_indices() {
        match open.last() {
            Some(quote @ ('"' | '\'')) => {
                if next == *quote && before != '\\' {
                    open.pop();
                }
            }
            inside => match next {
                '(' => open.push(')'),
                '[' => open.push(']'),
                '{' => open.push('}'),
                ')' | ']' | '}' if inside == Some(&next) => drop(open.pop()),
                ')' | ']' | '}' => return Err(format!("`{next}` closes nothing in `{text}`")),
                // Within a word a quote is an apostrophe.
                '"' | '\'' if matches!(before, ',' | '=' | ':' | '(' | '[' | '{') => open.push(next),
                ',' if inside.is_none() => {
                    items.push(text[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            },
        }
        if !next.is_whitespace() {
            before = next;
        }
    }
    if let Some(missing) = open.last() {
        return Err(format!("expected `{missing}` before the end of `{text}`"));
    }
    items.push(text[start..].trim());
    if items.last() == Some(&"") {
        items.pop(); // an empty text, or a comma at the end
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(text: &str) -> Value {
        parse_options(text).unwrap().into()
    }

    #[test]
    fn values_have_the_types_they_are_written_as() {
        assert_eq!(
            options("margin=0.3, type_of_triplets=hard,swap=true,smooth=False,top=None,count=3,eps=1e-5,p=.5"),
            json!({"margin": 0.3, "type_of_triplets": "hard", "swap": true, "smooth": false, "top": null, "count": 3,
                   "eps": 1e-5, "p": 0.5})
        );
        assert_eq!(
            options(r#"betas=(0.9,0.999),names=[a,'b, c',"d"],text="x=1, y",quote='it''s',inner={"a": [1, 2]}"#),
            json!({"betas": [0.9, 0.999], "names": ["a", "b, c", "d"], "text": "x=1, y", "quote": "it''s",
                   "inner": {"a": [1, 2]}})
        );
        assert_eq!(options("text=don't stop,freeze=layers:0-3"), json!({"text": "don't stop", "freeze": "layers:0-3"}));
    }

    #[test]
    fn options_may_be_json_or_empty() {
        assert_eq!(options(r#" {"margin": 0.3, "names": ["a"]}"#), json!({"margin": 0.3, "names": ["a"]}));
        assert_eq!(options(""), json!({}));
        assert_eq!(options(" margin=1, "), json!({"margin": 1}));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let problem = |text| parse_options(text).unwrap_err();
        assert_eq!(problem("margin"), "expected `key=value`, got `margin`");
        assert_eq!(problem("a=1,,b=2"), "expected `key=value`, got ``");
        assert_eq!(problem("=1"), "expected `key=value`, got `=1`");
        assert_eq!(problem("a=1,a=2"), "`a` is given twice");
        assert_eq!(problem("a=[1,2"), "expected `]` before the end of `a=[1,2`");
        assert_eq!(problem("a='b"), "expected `'` before the end of `a='b`");
        assert_eq!(problem("a=1)"), "`)` closes nothing in `a=1)`");
        assert!(problem("{a: 1}").starts_with("expected a JSON object, got `{a: 1}`"));
    }

    #[test]
    fn a_list_is_split_at_outer_commas_only() {
        let expected = ["EarlyStopping(monitor='val_loss', patience=2)", "B()"];
        assert_eq!(split_list("EarlyStopping(monitor='val_loss', patience=2), B()").unwrap(), expected);
        assert_eq!(split_list(r#"["a,b", "c"]"#).unwrap(), ["a,b", "c"]);
        assert!(split_list("").unwrap().is_empty());
        assert!(split_list("[1]").unwrap_err().starts_with("expected a list of texts, got `[1]`"));
    }
}
