//! From a tree to nodes: every name and every call is looked up here. What has no meaning is refused with its place.

mod call;

use crate::node::{Fold, FoldKind, Node};
use crate::parse::{Kind, Tree, parse};
use crate::variable::{Scope, Unnamed, Variable, Variables};
use crate::{Fault, Path, TEXT_BYTES_MAX};

/// Different paths that are remembered of one expression.
const PATHS_MAX: usize = 64;

pub(crate) struct Compiled {
    pub node: Node,
    pub reads: Variables,
    pub paths: Vec<Path>,
}

pub(crate) fn compile(text: &str, scope: Scope) -> Result<Compiled, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault { offset: 0, message: format!("an expression of more than {TEXT_BYTES_MAX} bytes") });
    }
    if text.trim().is_empty() {
        return Err(Fault { offset: 0, message: "an empty expression".to_owned() });
    }
    let tree = parse(text)?;
    let mut compiler = Compiler { scope, locals: Vec::new(), reads: Variables::NONE, paths: Vec::new() };
    let node = compiler.node(&tree)?;
    let Compiler { reads, paths, .. } = compiler;
    Ok(Compiled { node, reads, paths })
}

fn fault(at: &Tree, message: impl Into<String>) -> Fault {
    Fault { offset: at.offset, message: message.into() }
}

struct Compiler {
    scope: Scope,
    /// Variables of the comprehensions around, the outermost first.
    locals: Vec<String>,
    reads: Variables,
    paths: Vec<Path>,
}

impl Compiler {
    fn boxed(&mut self, tree: &Tree) -> Result<Box<Node>, Fault> {
        self.node(tree).map(Box::new)
    }

    fn pair(&mut self, one: &Tree, other: &Tree) -> Result<Box<[Node; 2]>, Fault> {
        Ok(Box::new([self.node(one)?, self.node(other)?]))
    }

    fn nodes<'t>(&mut self, trees: impl IntoIterator<Item = &'t Tree>) -> Result<Box<[Node]>, Fault> {
        trees.into_iter().map(|tree| self.node(tree)).collect()
    }

    fn node(&mut self, tree: &Tree) -> Result<Node, Fault> {
        if let Some(path) = self.path(tree) {
            return self.variable(tree, &path);
        }
        Ok(match &tree.kind {
            Kind::Null => Node::Null,
            Kind::Bool(bool) => Node::Bool(*bool),
            Kind::Int(int) => Node::Int(*int),
            Kind::Uint(uint) => Node::Uint(*uint),
            Kind::Double(double) => Node::Double(*double),
            Kind::Text(text) => Node::Text(text.as_str().into()),
            Kind::Name(name) => match self.locals.iter().rposition(|local| local == name) {
                Some(place) => Node::Local(place),
                None => return Err(fault(tree, format!("unknown variable {name}"))),
            },
            Kind::Select(operand, name) => Node::Member(self.boxed(operand)?, name.as_str().into()),
            Kind::Index(operand, key) => Node::Index(self.boxed(operand)?, self.boxed(key)?),
            Kind::Call { target, name, arguments } => self.call(tree, target.as_deref(), name, arguments)?,
            Kind::List(items) => Node::List(self.nodes(items)?),
            Kind::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| Ok((self.node(key)?, self.node(value)?)));
                Node::Map(entries.collect::<Result<_, Fault>>()?)
            }
            Kind::Not(operand) => Node::Not(self.boxed(operand)?),
            Kind::Negate(operand) => Node::Negate(self.boxed(operand)?),
            Kind::Binary(operator, left, right) => self.binary(*operator, left, right)?,
            Kind::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                Node::Choice(Box::new([self.node(condition)?, self.node(then)?, self.node(otherwise)?]))
            }
        })
    }

    /// The names that an expression spells, from a variable on, if it spells names alone.
    fn path<'t>(&self, mut tree: &'t Tree) -> Option<Vec<&'t str>> {
        let mut segments = Vec::new();
        loop {
            match &tree.kind {
                Kind::Name(name) if !self.locals.contains(name) => {
                    segments.push(name.as_str());
                    segments.reverse();
                    return Some(segments);
                }
                Kind::Select(operand, name) => {
                    segments.push(name);
                    tree = operand;
                }
                Kind::Index(operand, key) => {
                    let Kind::Text(name) = &key.kind else { return None };
                    segments.push(name);
                    tree = operand;
                }
                _ => return None,
            }
        }
    }

    fn variable(&mut self, at: &Tree, path: &[&str]) -> Result<Node, Fault> {
        let (variable, length) = Variable::of(path, self.scope).map_err(|reason| unnamed(at, path, reason))?;
        self.reads = self.reads.and(Variables::of(&[variable]));
        self.remember(variable, &path[length..]);
        Ok(members(variable, &path[length..]))
    }

    fn has(&mut self, at: &Tree, operand: &Tree, name: &str) -> Result<Node, Fault> {
        let Some(mut path) = self.path(operand) else {
            return Ok(Node::Has(self.boxed(operand)?, name.into()));
        };
        path.push(name);
        // What a root stands for is always there, though it may be empty.
        let around = match path.len() {
            0..=2 => Variables::NONE,
            length => Variables::under(&path[..length - 1], self.scope),
        };
        let (these, node) = match Variable::of(&path, self.scope) {
            Ok((variable, length)) if length < path.len() => {
                self.remember(variable, &path[length..]);
                let operand = Box::new(members(variable, &path[length..path.len() - 1]));
                (Variables::of(&[variable]), Node::Has(operand, name.into()))
            }
            Ok((variable, _)) => {
                self.remember(variable, &[]);
                let these = Variables::of(&[variable]);
                (these, Node::HasInput { these, around })
            }
            Err(Unnamed::Inner(these)) => (these, Node::HasInput { these, around }),
            Err(reason) => return Err(unnamed(at, &path, reason)),
        };
        self.reads = self.reads.and(these);
        Ok(node)
    }

    /// `range.exists(local, body)` and the like.
    fn fold(
        &mut self,
        range: &Tree,
        local: &Tree,
        kind: impl FnOnce(&mut Self) -> Result<FoldKind, Fault>,
    ) -> Result<Node, Fault> {
        let Kind::Name(name) = &local.kind else { return Err(fault(local, "expected a name for the element")) };
        let range = self.node(range)?;
        let local = self.locals.len();
        self.locals.push(name.clone());
        let kind = kind(self);
        self.locals.pop();
        Ok(Node::Fold(Box::new(Fold { range, local, kind: kind? })))
    }

    fn remember(&mut self, variable: Variable, names: &[&str]) {
        let mut text = variable.path().to_owned();
        for name in names {
            let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            text.push_str(&if is_plain { format!(".{name}") } else { format!("[{name:?}]") });
        }
        if self.paths.len() < PATHS_MAX && self.paths.iter().all(|path| path.text != text) {
            self.paths.push(Path { text, node: members(variable, names) });
        }
    }
}

fn unnamed(at: &Tree, path: &[&str], reason: Unnamed) -> Fault {
    let name = path.join(".");
    let message = match reason {
        Unnamed::NotBuilt => format!("{name} is known, but not built in this version"),
        Unnamed::Unknown => format!("unknown variable {name}"),
        Unnamed::Inner(these) => {
            let names: Vec<&str> = these.iter().map(Variable::path).collect();
            format!("{name} has no value of its own, but {}", names.join(", "))
        }
    };
    fault(at, message)
}

fn members(variable: Variable, names: &[&str]) -> Node {
    names.iter().fold(Node::Input(variable), |node, name| Node::Member(Box::new(node), (*name).into()))
}
