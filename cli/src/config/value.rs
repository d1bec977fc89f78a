//! A value of a key's type, from TOML or from text. Pure.
//!
//! The type is that of the default. Keys whose name says bytes take `64MiB`, those in `_ms` take `5s`; lists are
//! separated by commas. A whole number stands for a fraction where one is wanted.

use toml::Value;

use crate::units;

/// `given` as a value of the type of `default`. The error says what was expected.
pub fn fit(key: &str, given: Value, default: &Value) -> Result<Value, String> {
    match (default, given) {
        (Value::Float(_), Value::Integer(whole)) => Ok(Value::Float(whole as f64)),
        (Value::Integer(_), Value::Integer(whole)) if whole < 0 => {
            Err(format!("{whole} is negative"))
        }
        (Value::Integer(_), Value::String(text)) if is_bytes(key) || is_millis(key) => {
            parse(key, &text, default)
        }
        (Value::Array(_), Value::String(one)) => Ok(Value::Array(vec![Value::String(one)])),
        (default, given) if default.same_type(&given) => Ok(given),
        (default, given) => {
            Err(format!("expected {}, got {}", default.type_str(), given.type_str()))
        }
    }
}

/// Text as a value of the type of `default`.
pub fn parse(key: &str, text: &str, default: &Value) -> Result<Value, String> {
    let whole = |number: u64| i64::try_from(number).map(Value::Integer).map_err(|e| e.to_string());
    match default {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Boolean(_) => match text {
            "true" | "yes" | "on" | "1" => Ok(Value::Boolean(true)),
            "false" | "no" | "off" | "0" => Ok(Value::Boolean(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        Value::Integer(_) if is_bytes(key) => whole(units::parse_bytes(text)?),
        Value::Integer(_) if is_millis(key) => whole(units::parse_millis(text)?),
        Value::Integer(_) => {
            let number: u64 =
                text.parse().map_err(|_| format!("{text:?} is not a whole number from 0 up"))?;
            whole(number)
        }
        Value::Float(_) => {
            text.parse().map(Value::Float).map_err(|_| format!("{text:?} is not a number"))
        }
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
        }
        Value::Datetime(_) | Value::Table(_) => Err("cannot be set from text".into()),
    }
}

fn is_bytes(key: &str) -> bool {
    key.contains("bytes")
}

fn is_millis(key: &str) -> bool {
    key.ends_with("_ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_takes_the_type_of_the_default() {
        let whole = Value::Integer(1);
        assert_eq!(parse("block_bytes", "64MiB", &whole), Ok(Value::Integer(64 << 20)));
        assert_eq!(parse("interval_ms", "5s", &whole), Ok(Value::Integer(5_000)));
        assert!(parse("replication", "5s", &whole).is_err());
        assert!(parse("replication", "-1", &whole).is_err());
        assert_eq!(parse("x", "yes", &Value::Boolean(false)), Ok(Value::Boolean(true)));
        let list = Value::Array(vec![]);
        let two = Value::Array(vec![Value::String("/a".into()), Value::String("/b".into())]);
        assert_eq!(parse("volumes", "/a, /b", &list), Ok(two));
    }

    #[test]
    fn a_wrong_type_is_named() {
        let why = fit("replication", Value::Boolean(true), &Value::Integer(3)).unwrap_err();
        assert_eq!(why, "expected integer, got boolean");
        assert!(fit("replication", Value::Integer(-3), &Value::Integer(3)).is_err());
        assert_eq!(fit("f", Value::Integer(1), &Value::Float(0.5)), Ok(Value::Float(1.0)));
    }
}
