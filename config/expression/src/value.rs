//! Values while an expression is evaluated: borrowed from what they were read from wherever that is possible.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

use serde_json::{Map as JsonMap, Value as Json};

use crate::eval::{Budget, Error};

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    List(List<'a>),
    Map(Map<'a>),
}

/// A string.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Made(Rc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json]),
    Made(Rc<[Value<'a>]>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Empty,
    Json(&'a JsonMap<String, Json>),
    /// Keys once each.
    Made(Rc<[(Value<'a>, Value<'a>)]>),
    Object(&'a dyn Object),
}

/// Something of the host's with members by names.
pub trait Object: std::fmt::Debug {
    fn member(&self, name: &str) -> Option<Value<'_>>;
    /// Each once.
    fn names(&self) -> Vec<Text<'_>>;
}

impl<'a> Value<'a> {
    pub fn text(text: &'a str) -> Self {
        Value::Text(Text::Borrowed(text))
    }

    pub fn made(text: impl Into<Rc<str>>) -> Self {
        Value::Text(Text::Made(text.into()))
    }

    pub fn texts<'b: 'a>(texts: impl IntoIterator<Item = &'b str>) -> Self {
        Value::List(List::Made(texts.into_iter().map(Value::text).collect()))
    }

    /// Whole numbers are integers wherever they fit.
    pub fn json(json: &'a Json) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(bool) => Value::Bool(*bool),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Value::Int(int),
                (None, Some(uint)) => Value::Uint(uint),
                (None, None) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::text(text),
            Json::Array(items) => Value::List(List::Json(items)),
            Json::Object(members) => Value::Map(Map::Json(members)),
        }
    }

    /// As a document; what is no JSON (a number that is none, keys that are no strings) becomes a string.
    pub fn to_json(&self) -> Json {
        match self {
            Value::Null => Json::Null,
            Value::Bool(bool) => Json::Bool(*bool),
            Value::Int(int) => Json::from(*int),
            Value::Uint(uint) => Json::from(*uint),
            Value::Double(double) => {
                serde_json::Number::from_f64(*double).map_or_else(|| Json::String(double.to_string()), Json::Number)
            }
            Value::Text(text) => Json::String(text.as_str().to_owned()),
            Value::List(list) => Json::Array(list.iter().map(|item| item.to_json()).collect()),
            Value::Map(map) => {
                let members = map.entries().into_iter().map(|(key, value)| {
                    let key = match &key {
                        Value::Text(text) => text.as_str().to_owned(),
                        other => other.to_json().to_string(),
                    };
                    (key, value.to_json())
                });
                Json::Object(members.collect())
            }
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub(crate) fn member(&self, name: &str) -> Result<Value<'a>, Error> {
        match self {
            Value::Map(map) => map.member(name).ok_or(Error::NoKey),
            _ => Err(Error::Type),
        }
    }

    /// `self[key]`.
    pub(crate) fn at(&self, key: &Value<'_>, budget: &Budget) -> Result<Value<'a>, Error> {
        match (self, key) {
            (Value::List(list), key) => {
                let place = match *key {
                    Value::Int(int) => usize::try_from(int).ok(),
                    Value::Uint(uint) => usize::try_from(uint).ok(),
                    Value::Double(double) if double.fract() == 0.0 && (0.0..4e9).contains(&double) => {
                        Some(double as usize)
                    }
                    _ => return Err(Error::Type),
                };
                place.and_then(|place| list.get(place)).ok_or(Error::Range)
            }
            (Value::Map(map), Value::Text(name)) => map.member(name.as_str()).ok_or(Error::NoKey),
            (Value::Map(Map::Made(entries)), Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Bool(_)) => {
                for (own, value) in entries.iter() {
                    if own.equals(key, budget)? {
                        return Ok(value.clone());
                    }
                }
                Err(Error::NoKey)
            }
            (Value::Map(_), Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Bool(_)) => Err(Error::NoKey),
            _ => Err(Error::Type),
        }
    }

    /// `needle in self`.
    pub(crate) fn contains(&self, needle: &Value<'_>, budget: &Budget) -> Result<bool, Error> {
        match self {
            // The usual question: is the word in the claim?
            Value::List(List::Json(items)) if needle.as_str().is_some() => {
                budget.spend(items.len())?;
                Ok(items.iter().any(|item| item.as_str() == needle.as_str()))
            }
            Value::List(list) => {
                for item in list.iter() {
                    if item.equals(needle, budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Map(_) => match self.at(needle, budget) {
                Ok(_) => Ok(true),
                Err(Error::NoKey) => Ok(false),
                Err(error) => Err(error),
            },
            _ => Err(Error::Type),
        }
    }

    /// Numbers of different types may be equal; values of different kinds are not.
    pub(crate) fn equals(&self, other: &Value<'_>, budget: &Budget) -> Result<bool, Error> {
        budget.spend(1)?;
        Ok(match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(one), Value::Bool(other)) => one == other,
            (Value::Text(one), Value::Text(other)) => one.as_str() == other.as_str(),
            (Value::List(one), Value::List(other)) => {
                if one.len() != other.len() {
                    return Ok(false);
                }
                for (one, other) in one.iter().zip(other.iter()) {
                    if !one.equals(&other, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(one), Value::Map(other)) => {
                let entries = one.entries();
                if entries.len() != other.len() {
                    return Ok(false);
                }
                let other = Value::Map(other.clone());
                for (key, value) in &entries {
                    match other.at(key, budget) {
                        Ok(found) if value.equals(&found, budget)? => {}
                        Err(Error::Budget) => return Err(Error::Budget),
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => numbers(self, other) == Some(Ordering::Equal),
        })
    }

    /// The order of two numbers, strings or booleans.
    pub(crate) fn compare(&self, other: &Value<'_>) -> Result<Ordering, Error> {
        match (self, other) {
            (Value::Text(one), Value::Text(other)) => Ok(one.as_str().cmp(other.as_str())),
            (Value::Bool(one), Value::Bool(other)) => Ok(one.cmp(other)),
            _ => numbers(self, other).ok_or(Error::Type),
        }
    }
}

/// The order of two numbers; `None` where one is none.
fn numbers(one: &Value<'_>, other: &Value<'_>) -> Option<Ordering> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
        (Value::Uint(one), Value::Uint(other)) => Some(one.cmp(other)),
        (Value::Int(int), Value::Uint(uint)) => Some(i128::from(*int).cmp(&i128::from(*uint))),
        (Value::Uint(uint), Value::Int(int)) => Some(i128::from(*uint).cmp(&i128::from(*int))),
        (Value::Double(one), Value::Double(other)) => one.partial_cmp(other),
        (Value::Double(double), Value::Int(int)) => with_double(i128::from(*int), *double).map(Ordering::reverse),
        (Value::Double(double), Value::Uint(uint)) => with_double(i128::from(*uint), *double).map(Ordering::reverse),
        (Value::Int(int), Value::Double(double)) => with_double(i128::from(*int), *double),
        (Value::Uint(uint), Value::Double(double)) => with_double(i128::from(*uint), *double),
        _ => None,
    }
}

/// Exactly: a double beyond 2^53 is not rounded to meet an integer.
fn with_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Integers have 64 bits; what is beyond is beyond all of them.
    if double.abs() >= 1e30 {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = double.floor();
    Some(whole.cmp(&(floor as i128)).then(if double > floor { Ordering::Less } else { Ordering::Equal }))
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Made(text) => text,
        }
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.as_str().parse().ok()
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(items) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, place: usize) -> Option<Value<'a>> {
        match self {
            List::Json(items) => items.get(place).map(Value::json),
            List::Made(items) => items.get(place).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        // Without borrowing the list itself, which may be dropped before.
        let list = self.clone();
        (0..self.len()).filter_map(move |place| list.get(place))
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Empty => 0,
            Map::Json(members) => members.len(),
            Map::Made(entries) => entries.len(),
            Map::Object(object) => object.names().len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn member(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Map::Empty => None,
            Map::Json(members) => members.get(name).map(Value::json),
            Map::Made(entries) => {
                entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
            }
            Map::Object(object) => object.member(name),
        }
    }

    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Empty => Vec::new(),
            Map::Json(members) => members.keys().map(|key| Value::text(key)).collect(),
            Map::Made(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
            Map::Object(object) => object.names().into_iter().map(Value::Text).collect(),
        }
    }

    pub(crate) fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Map::Empty => Vec::new(),
            Map::Json(members) => members.iter().map(|(key, value)| (Value::text(key), Value::json(value))).collect(),
            Map::Made(entries) => entries.to_vec(),
            Map::Object(object) => {
                let members = object.names().into_iter().filter_map(|name| {
                    let value = object.member(name.as_str())?;
                    Some((Value::Text(name), value))
                });
                members.collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_meet_across_types() {
        let budget = Budget::new(100);
        let equal = |one: Value<'_>, other: Value<'_>| one.equals(&other, &budget).unwrap();
        assert!(equal(Value::Int(1), Value::Double(1.0)) && equal(Value::Uint(1), Value::Int(1)));
        assert!(!equal(Value::Int(9_007_199_254_740_993), Value::Double(9_007_199_254_740_992.0)));
        assert!(!equal(Value::Double(f64::NAN), Value::Double(f64::NAN)));
        assert!(!equal(Value::Int(1), Value::text("1")) && !equal(Value::Null, Value::Bool(false)));
        assert_eq!(Value::Int(-1).compare(&Value::Double(-1.5)).unwrap(), Ordering::Greater);
        assert_eq!(Value::Uint(u64::MAX).compare(&Value::Double(f64::INFINITY)).unwrap(), Ordering::Less);
    }
}
