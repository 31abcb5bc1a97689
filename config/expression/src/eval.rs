//! Evaluation. Errors are values: `&&` and `||` look at both sides before they give one up (CEL language definition,
//! "Logical Operators"), and so do `all` and `exists`.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;

use crate::STEPS_MAX;
use crate::functions;
use crate::node::{Fold, FoldKind, Node, Order};
use crate::value::{List, Map, Text, Value};
use crate::variable::{Inputs, Variables};

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The only thing missing is one of these.
    Missing(Variables),
    /// A map has no such member.
    NoKey,
    /// Not for values of this type.
    Type,
    /// A number or place that does not exist.
    Range,
    /// A text that is no number.
    Convert,
    /// Too many steps.
    Budget,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing(variables) => {
                f.write_str("there is no ")?;
                for (place, variable) in variables.iter().enumerate() {
                    if place > 0 {
                        f.write_str(" or ")?;
                    }
                    f.write_str(variable.path())?;
                }
                Ok(())
            }
            Error::NoKey => f.write_str("no such member"),
            Error::Type => f.write_str("a value of another type"),
            Error::Range => f.write_str("out of range"),
            Error::Convert => f.write_str("not a number"),
            Error::Budget => f.write_str("too many steps"),
        }
    }
}

/// Steps that are left.
pub(crate) struct Budget(Cell<u32>);

impl Budget {
    pub(crate) fn new(steps: u32) -> Self {
        Budget(Cell::new(steps))
    }

    pub(crate) fn spend(&self, steps: usize) -> Result<(), Error> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.0.get().checked_sub(steps));
        self.0.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(Error::Budget)
    }

    /// For so many bytes looked at or made.
    pub(crate) fn spend_bytes(&self, bytes: usize) -> Result<(), Error> {
        self.spend(1 + bytes / 64)
    }
}

pub(crate) fn evaluate<'a>(node: &'a Node, inputs: &'a dyn Inputs) -> Result<Value<'a>, Error> {
    Evaluation { inputs, budget: Budget::new(STEPS_MAX), locals: Vec::new() }.value(node)
}

struct Evaluation<'a> {
    inputs: &'a dyn Inputs,
    budget: Budget,
    locals: Vec<Value<'a>>,
}

impl<'a> Evaluation<'a> {
    fn value(&mut self, node: &'a Node) -> Result<Value<'a>, Error> {
        Ok(match node {
            Node::Null => Value::Null,
            Node::Bool(bool) => Value::Bool(*bool),
            Node::Int(int) => Value::Int(*int),
            Node::Uint(uint) => Value::Uint(*uint),
            Node::Double(double) => Value::Double(*double),
            Node::Text(text) => Value::text(text),
            Node::Input(variable) => self.inputs.value(*variable).ok_or(Error::Missing(Variables::of(&[*variable])))?,
            Node::HasInput { these, around } => {
                if !around.is_empty() && !self.has_any(*around) {
                    return Err(Error::Missing(*around));
                }
                Value::Bool(self.has_any(*these))
            }
            Node::Local(place) => self.locals.get(*place).cloned().ok_or(Error::Type)?,
            Node::Member(operand, name) => self.value(operand)?.member(name)?,
            Node::Has(operand, name) => match self.value(operand)?.member(name) {
                Ok(_) => Value::Bool(true),
                Err(Error::NoKey) => Value::Bool(false),
                Err(error) => return Err(error),
            },
            Node::Index(operand, key) => {
                let (operand, key) = (self.value(operand)?, self.value(key)?);
                operand.at(&key, &self.budget)?
            }
            Node::Not(operand) => Value::Bool(!self.bool(operand)?),
            Node::Negate(operand) => functions::negate(&self.value(operand)?)?,
            Node::And(left, right) => Value::Bool(self.connect(left, right, false)?),
            Node::Or(left, right) => Value::Bool(self.connect(left, right, true)?),
            Node::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                if self.bool(condition)? { self.value(then)? } else { self.value(otherwise)? }
            }
            Node::Equal { sides, negated } => {
                let (left, right) = self.both(sides)?;
                self.text_cost(&left)?;
                Value::Bool(left.equals(&right, &self.budget)? != *negated)
            }
            Node::Order { sides, order } => {
                let (left, right) = self.both(sides)?;
                self.text_cost(&left)?;
                Value::Bool(order.holds(left.compare(&right)?))
            }
            Node::Calculate { sides, operation } => {
                let (left, right) = self.both(sides)?;
                functions::calculate(*operation, left, right, &self.budget)?
            }
            Node::In(sides) => {
                let (needle, hay) = self.both(sides)?;
                Value::Bool(hay.contains(&needle, &self.budget)?)
            }
            Node::InLiterals(needle, literals) => Value::Bool(self.in_literals(needle, literals)?),
            Node::List(items) => {
                self.budget.spend(items.len())?;
                let items: Vec<Value<'a>> = items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?;
                Value::List(List::Made(items.into()))
            }
            Node::Map(entries) => self.map(entries)?,
            Node::Call(function, arguments) => self.call(*function, arguments)?,
            Node::Matches(operand, regex) => {
                let operand = self.value(operand)?;
                let text = operand.as_str().ok_or(Error::Type)?;
                self.budget.spend_bytes(text.len())?;
                Value::Bool(regex.is_match(text))
            }
            Node::InNetwork(operand, network) => {
                let operand = self.value(operand)?;
                let Value::Text(text) = &operand else { return Err(Error::Type) };
                Value::Bool(network.contains(text.address().ok_or(Error::Convert)?))
            }
            Node::Default(parts) => {
                let [value, otherwise] = &**parts;
                match self.value(value) {
                    Err(Error::Missing(_) | Error::NoKey) => self.value(otherwise)?,
                    outcome => outcome?,
                }
            }
            Node::Fold(fold) => self.fold(fold)?,
        })
    }

    fn has_any(&self, variables: Variables) -> bool {
        variables.iter().any(|variable| self.inputs.value(variable).is_some())
    }

    fn bool(&mut self, node: &'a Node) -> Result<bool, Error> {
        match self.value(node)? {
            Value::Bool(bool) => Ok(bool),
            _ => Err(Error::Type),
        }
    }

    fn both(&mut self, sides: &'a [Node; 2]) -> Result<(Value<'a>, Value<'a>), Error> {
        Ok((self.value(&sides[0])?, self.value(&sides[1])?))
    }

    fn text_cost(&self, value: &Value<'_>) -> Result<(), Error> {
        match value {
            Value::Text(text) => self.budget.spend_bytes(text.as_str().len()),
            _ => Ok(()),
        }
    }

    /// `&&` or `||`: a side that is `decisive` decides, whatever the other one is.
    fn connect(&mut self, left: &'a Node, right: &'a Node, decisive: bool) -> Result<bool, Error> {
        let left = self.bool(left);
        if left == Ok(decisive) {
            return Ok(decisive);
        }
        match (left, self.bool(right)) {
            (_, Ok(right)) if right == decisive => Ok(decisive),
            (Ok(_), right) => right,
            (Err(error), Ok(_)) => Err(error),
            (Err(left), Err(right)) => Err(graver(left, right, decisive)),
        }
    }

    fn in_literals(&mut self, needle: &'a Node, literals: &'a [Node]) -> Result<bool, Error> {
        let needle = self.value(needle)?;
        self.budget.spend(literals.len())?;
        for literal in literals {
            let found = match (literal, &needle) {
                (Node::Text(literal), Value::Text(text)) => **literal == *text.as_str(),
                (Node::Text(_), _) => false,
                _ => self.value(literal)?.equals(&needle, &self.budget)?,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn map(&mut self, entries: &'a [(Node, Node)]) -> Result<Value<'a>, Error> {
        let mut made: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let (key, value) = (self.value(key)?, self.value(value)?);
            if !matches!(key, Value::Text(_) | Value::Int(_) | Value::Uint(_) | Value::Bool(_)) {
                return Err(Error::Type);
            }
            for (other, _) in &made {
                if other.equals(&key, &self.budget)? {
                    return Err(Error::Range);
                }
            }
            made.push((key, value));
        }
        Ok(Value::Map(Map::Made(made.into())))
    }

    fn call(&mut self, function: crate::node::Function, arguments: &'a [Node]) -> Result<Value<'a>, Error> {
        self.budget.spend(1)?;
        match arguments {
            [only] => functions::of_one(function, self.value(only)?, &self.budget),
            [first, second] => {
                let (first, second) = (self.value(first)?, self.value(second)?);
                functions::of_two(function, &first, &second, &self.budget)
            }
            _ => Err(Error::Type),
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Value<'a>, Error> {
        let elements = match self.value(&fold.range)? {
            Value::List(list) => list,
            Value::Map(map) => List::Made(map.keys().into()),
            _ => return Err(Error::Type),
        };
        let elements = elements.iter();
        match &fold.kind {
            FoldKind::All(body) => self.each(fold.local, elements, body, false),
            FoldKind::Exists(body) => self.each(fold.local, elements, body, true),
            FoldKind::ExistsOne(body) => {
                let mut count = 0;
                for element in elements {
                    count += usize::from(self.with(fold.local, element, |this| this.bool(body))?);
                }
                Ok(Value::Bool(count == 1))
            }
            FoldKind::Collect(condition, body) => {
                let mut made = Vec::new();
                for element in elements {
                    let value = self.with(fold.local, element, |this| {
                        let taken = condition.as_ref().map_or(Ok(true), |condition| this.bool(condition))?;
                        taken.then(|| this.value(body)).transpose()
                    });
                    made.extend(value?);
                }
                Ok(Value::List(List::Made(made.into())))
            }
        }
    }

    /// `all` or `exists`: one that is `decisive` decides, whatever the others are.
    fn each(
        &mut self,
        local: usize,
        elements: impl Iterator<Item = Value<'a>>,
        body: &'a Node,
        decisive: bool,
    ) -> Result<Value<'a>, Error> {
        let mut failed = None;
        for element in elements {
            match self.with(local, element, |this| this.bool(body)) {
                Ok(bool) if bool == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(Error::Budget) => return Err(Error::Budget),
                Err(error) => failed = Some(failed.map_or(error, |failed| graver(failed, error, decisive))),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn with<T>(
        &mut self,
        local: usize,
        element: Value<'a>,
        inside: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.budget.spend(1)?;
        self.locals.truncate(local);
        self.locals.push(element);
        let outcome = inside(self);
        self.locals.truncate(local);
        outcome
    }
}

/// Which of two errors is told. Something that is missing makes neither side of `||` less of a fault, and whatever it is
/// asked for together with by `&&` not asked at all.
fn graver(left: Error, right: Error, either: bool) -> Error {
    match (left, right) {
        (Error::Budget, _) | (_, Error::Budget) => Error::Budget,
        (Error::Missing(left), Error::Missing(right)) => Error::Missing(left.and(right)),
        (Error::Missing(_), other) | (other, Error::Missing(_)) if either => other,
        (missing @ Error::Missing(_), _) | (_, missing @ Error::Missing(_)) => missing,
        (left, _) => left,
    }
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl<'a> From<Text<'a>> for Value<'a> {
    fn from(text: Text<'a>) -> Self {
        Value::Text(text)
    }
}
