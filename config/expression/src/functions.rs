//! The functions and calculations of values. Which of them a call means was decided when the expression was read.

use crate::eval::{Budget, Error};
use crate::node::{Function, Operation};
use crate::value::{List, Value};

const TWO_TO_63: f64 = (1u64 << 63) as f64;

pub(crate) fn of_one<'a>(function: Function, value: Value<'a>, budget: &Budget) -> Result<Value<'a>, Error> {
    let text = |value: &Value<'a>| -> Result<String, Error> {
        let text = value.as_str().ok_or(Error::Type)?;
        budget.spend_bytes(text.len())?;
        Ok(text.to_owned())
    };
    match function {
        Function::Size => size(&value, budget),
        Function::LowerAscii => Ok(Value::made(text(&value)?.to_ascii_lowercase())),
        Function::UpperAscii => Ok(Value::made(text(&value)?.to_ascii_uppercase())),
        Function::Trim => Ok(Value::made(text(&value)?.trim())),
        Function::Int => int(value),
        Function::Uint => uint(value),
        Function::Double => double(value),
        Function::String => match value {
            Value::Text(_) => Ok(value),
            Value::Int(int) => Ok(Value::made(int.to_string())),
            Value::Uint(uint) => Ok(Value::made(uint.to_string())),
            Value::Double(double) => Ok(Value::made(double.to_string())),
            Value::Bool(bool) => Ok(Value::made(bool.to_string())),
            _ => Err(Error::Type),
        },
        Function::StartsWith | Function::EndsWith | Function::Contains | Function::Split => Err(Error::Type),
    }
}

pub(crate) fn of_two<'a>(
    function: Function,
    one: &Value<'a>,
    other: &Value<'a>,
    budget: &Budget,
) -> Result<Value<'a>, Error> {
    let (Some(text), Some(part)) = (one.as_str(), other.as_str()) else { return Err(Error::Type) };
    budget.spend_bytes(text.len())?;
    Ok(match function {
        Function::StartsWith => Value::Bool(text.starts_with(part)),
        Function::EndsWith => Value::Bool(text.ends_with(part)),
        Function::Contains => Value::Bool(text.contains(part)),
        Function::Split => {
            let parts: Vec<Value<'a>> = match part {
                "" => text.chars().map(|letter| Value::made(letter.to_string())).collect(),
                _ => text.split(part).map(Value::made).collect(),
            };
            budget.spend(parts.len())?;
            Value::List(List::Made(parts.into()))
        }
        _ => return Err(Error::Type),
    })
}

fn size<'a>(value: &Value<'_>, budget: &Budget) -> Result<Value<'a>, Error> {
    let size = match value {
        Value::Text(text) => {
            budget.spend_bytes(text.as_str().len())?;
            text.as_str().chars().count()
        }
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return Err(Error::Type),
    };
    i64::try_from(size).map(Value::Int).map_err(|_| Error::Range)
}

fn int(value: Value<'_>) -> Result<Value<'_>, Error> {
    match value {
        Value::Int(_) => Ok(value),
        Value::Uint(uint) => i64::try_from(uint).map(Value::Int).map_err(|_| Error::Range),
        // Toward zero. The ends of the range do not count: they are what the integers there are rounded to.
        Value::Double(double) if double > -TWO_TO_63 && double < TWO_TO_63 => Ok(Value::Int(double as i64)),
        Value::Double(_) => Err(Error::Range),
        Value::Text(text) => text.as_str().parse().map(Value::Int).map_err(|_| Error::Convert),
        _ => Err(Error::Type),
    }
}

fn uint(value: Value<'_>) -> Result<Value<'_>, Error> {
    match value {
        Value::Uint(_) => Ok(value),
        Value::Int(int) => u64::try_from(int).map(Value::Uint).map_err(|_| Error::Range),
        Value::Double(double) if (0.0..2.0 * TWO_TO_63).contains(&double) => Ok(Value::Uint(double as u64)),
        Value::Double(_) => Err(Error::Range),
        Value::Text(text) => text.as_str().parse().map(Value::Uint).map_err(|_| Error::Convert),
        _ => Err(Error::Type),
    }
}

fn double(value: Value<'_>) -> Result<Value<'_>, Error> {
    match value {
        Value::Double(_) => Ok(value),
        Value::Int(int) => Ok(Value::Double(int as f64)),
        Value::Uint(uint) => Ok(Value::Double(uint as f64)),
        Value::Text(text) => text.as_str().parse().map(Value::Double).map_err(|_| Error::Convert),
        _ => Err(Error::Type),
    }
}

pub(crate) fn negate<'a>(value: &Value<'_>) -> Result<Value<'a>, Error> {
    match value {
        Value::Int(int) => int.checked_neg().map(Value::Int).ok_or(Error::Range),
        Value::Double(double) => Ok(Value::Double(-double)),
        _ => Err(Error::Type),
    }
}

/// Whole numbers do not overflow in silence, and different types of numbers are not mixed (CEL, "Numeric Values").
pub(crate) fn calculate<'a>(
    operation: Operation,
    one: Value<'a>,
    other: Value<'a>,
    budget: &Budget,
) -> Result<Value<'a>, Error> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => {
            let made = match operation {
                Operation::Add => one.checked_add(other),
                Operation::Subtract => one.checked_sub(other),
                Operation::Multiply => one.checked_mul(other),
                Operation::Divide => one.checked_div(other),
                Operation::Modulo => one.checked_rem(other),
            };
            made.map(Value::Int).ok_or(Error::Range)
        }
        (Value::Uint(one), Value::Uint(other)) => {
            let made = match operation {
                Operation::Add => one.checked_add(other),
                Operation::Subtract => one.checked_sub(other),
                Operation::Multiply => one.checked_mul(other),
                Operation::Divide => one.checked_div(other),
                Operation::Modulo => one.checked_rem(other),
            };
            made.map(Value::Uint).ok_or(Error::Range)
        }
        (Value::Double(one), Value::Double(other)) => match operation {
            Operation::Add => Ok(Value::Double(one + other)),
            Operation::Subtract => Ok(Value::Double(one - other)),
            Operation::Multiply => Ok(Value::Double(one * other)),
            Operation::Divide => Ok(Value::Double(one / other)),
            Operation::Modulo => Err(Error::Type),
        },
        (Value::Text(one), Value::Text(other)) if operation == Operation::Add => {
            let (one, other) = (one.as_str(), other.as_str());
            budget.spend_bytes(one.len() + other.len())?;
            Ok(Value::made([one, other].concat()))
        }
        (Value::List(one), Value::List(other)) if operation == Operation::Add => {
            budget.spend(one.len() + other.len())?;
            let items: Vec<Value<'a>> = one.iter().chain(other.iter()).collect();
            Ok(Value::List(List::Made(items.into())))
        }
        _ => Err(Error::Type),
    }
}
