//! Calls: operators, macros, and the functions that there are.

use regex::RegexBuilder;

use super::{Compiler, fault};
use crate::Fault;
use crate::node::{FoldKind, Function, Network, Node, Operation, Order};
use crate::parse::{Binary, Kind, Tree};

/// Most memory of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl Compiler {
    pub(super) fn binary(&mut self, operator: Binary, left: &Tree, right: &Tree) -> Result<Node, Fault> {
        let order = |order| move |sides| Node::Order { sides, order };
        let calculate = |operation| move |sides| Node::Calculate { sides, operation };
        Ok(match operator {
            Binary::Or => Node::Or(self.boxed(left)?, self.boxed(right)?),
            Binary::And => Node::And(self.boxed(left)?, self.boxed(right)?),
            Binary::In => self.contained(left, right)?,
            Binary::Equal => Node::Equal { sides: self.pair(left, right)?, negated: false },
            Binary::NotEqual => Node::Equal { sides: self.pair(left, right)?, negated: true },
            Binary::Less => order(Order::Less)(self.pair(left, right)?),
            Binary::LessOrEqual => order(Order::LessOrEqual)(self.pair(left, right)?),
            Binary::Greater => order(Order::Greater)(self.pair(left, right)?),
            Binary::GreaterOrEqual => order(Order::GreaterOrEqual)(self.pair(left, right)?),
            Binary::Add => calculate(Operation::Add)(self.pair(left, right)?),
            Binary::Subtract => calculate(Operation::Subtract)(self.pair(left, right)?),
            Binary::Multiply => calculate(Operation::Multiply)(self.pair(left, right)?),
            Binary::Divide => calculate(Operation::Divide)(self.pair(left, right)?),
            Binary::Modulo => calculate(Operation::Modulo)(self.pair(left, right)?),
        })
    }

    fn contained(&mut self, needle: &Tree, hay: &Tree) -> Result<Node, Fault> {
        let needle = self.node(needle)?;
        Ok(match &hay.kind {
            Kind::List(items) if items.iter().all(is_literal) => Node::InLiterals(Box::new(needle), self.nodes(items)?),
            _ => Node::In(Box::new([needle, self.node(hay)?])),
        })
    }

    pub(super) fn call(
        &mut self,
        at: &Tree,
        target: Option<&Tree>,
        name: &str,
        arguments: &[Tree],
    ) -> Result<Node, Fault> {
        match (target, name, arguments) {
            (None, "has", [argument]) => match &argument.kind {
                Kind::Select(operand, name) => self.has(argument, operand, name),
                _ => Err(fault(argument, "has() needs a member, like jwt.sub")),
            },
            (None, "default", [value, otherwise]) => Ok(Node::Default(self.pair(value, otherwise)?)),
            (None, "matches", [operand, pattern]) | (Some(operand), "matches", [pattern]) => {
                self.matches(operand, pattern)
            }
            (Some(network), "containsIP", [address]) => {
                let network = network_of(network)?;
                Ok(Node::InNetwork(self.boxed(address)?, network))
            }
            (Some(range), "all", [local, body]) => self.fold(range, local, |this| this.node(body).map(FoldKind::All)),
            (Some(range), "exists", [local, body]) => {
                self.fold(range, local, |this| this.node(body).map(FoldKind::Exists))
            }
            (Some(range), "exists_one" | "existsOne", [local, body]) => {
                self.fold(range, local, |this| this.node(body).map(FoldKind::ExistsOne))
            }
            (Some(range), "filter", [local, condition]) => {
                self.fold(range, local, |this| Ok(FoldKind::Collect(Some(this.node(condition)?), this.node(local)?)))
            }
            (Some(range), "map", [local, body]) => {
                self.fold(range, local, |this| Ok(FoldKind::Collect(None, this.node(body)?)))
            }
            (Some(range), "map", [local, condition, body]) => {
                self.fold(range, local, |this| Ok(FoldKind::Collect(Some(this.node(condition)?), this.node(body)?)))
            }
            _ => self.function(at, target, name, arguments),
        }
    }

    fn function(&mut self, at: &Tree, target: Option<&Tree>, name: &str, arguments: &[Tree]) -> Result<Node, Fault> {
        let values: Vec<&Tree> = target.into_iter().chain(arguments).collect();
        let function = match (name, target.is_some(), values.len()) {
            ("size", _, 1) => Function::Size,
            ("startsWith", true, 2) => Function::StartsWith,
            ("endsWith", true, 2) => Function::EndsWith,
            ("contains", true, 2) => Function::Contains,
            ("lowerAscii", true, 1) => Function::LowerAscii,
            ("upperAscii", true, 1) => Function::UpperAscii,
            ("trim", true, 1) => Function::Trim,
            ("split", true, 2) => Function::Split,
            ("int", false, 1) => Function::Int,
            ("uint", false, 1) => Function::Uint,
            ("double", false, 1) => Function::Double,
            ("string", false, 1) => Function::String,
            _ => return Err(fault(at, format!("there is no function {name} with these arguments"))),
        };
        Ok(Node::Call(function, self.nodes(values)?))
    }

    fn matches(&mut self, operand: &Tree, pattern: &Tree) -> Result<Node, Fault> {
        let Kind::Text(text) = &pattern.kind else {
            return Err(fault(pattern, "the pattern of matches must be a literal"));
        };
        let regex = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build().map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            fault(pattern, format!("not a pattern: {reason}"))
        })?;
        Ok(Node::Matches(self.boxed(operand)?, Box::new(regex)))
    }
}

fn is_literal(tree: &Tree) -> bool {
    matches!(tree.kind, Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Uint(_) | Kind::Double(_) | Kind::Text(_))
}

/// `cidr("10.0.0.0/8")`.
fn network_of(tree: &Tree) -> Result<Network, Fault> {
    let network = match &tree.kind {
        Kind::Call { target: None, name, arguments } if name == "cidr" => match arguments.as_slice() {
            [Tree { kind: Kind::Text(text), .. }] => Network::parse(text),
            _ => None,
        },
        _ => None,
    };
    network.ok_or_else(|| fault(tree, "containsIP needs a network like cidr(\"10.0.0.0/8\")"))
}
