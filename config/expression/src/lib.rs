//! Expressions in CEL (the Common Expression Language, github.com/google/cel-spec) over what a gateway knows of a request.
//! Text is read once; names and functions that do not exist are faults with their place there, not
//! at a request. Evaluation borrows what it reads, is bounded in steps, and ends with a value or an error, never a panic.
//!
//! It must not know who asks, nor what becomes of the answer.

mod compile;
mod eval;
mod functions;
mod node;
mod parse;
mod token;
mod value;
mod variable;

pub use eval::Error;
pub use value::{List, Map, Object, Text, Value};
pub use variable::{Inputs, Scope, Variable, Variables};

use std::fmt;

use node::Node;

/// Longest text of an expression, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Deepest nesting of an expression.
pub const DEPTH_MAX: usize = 64;
/// Most steps of one evaluation: an element looked at, a function called, 64 bytes compared or copied.
pub const STEPS_MAX: u32 = 20_000;

/// An expression, ready to be evaluated.
#[derive(Debug)]
pub struct Expression {
    text: String,
    node: Node,
    reads: Variables,
    paths: Vec<Path>,
}

/// Something that an expression reads: a variable, or members of one.
#[derive(Debug)]
pub struct Path {
    text: String,
    node: Node,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins, in characters from the start of the text; 0 where that is not known.
    pub offset: usize,
    /// Lowercase, short, without a full stop.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Expression {
    /// Reads an expression that may use what `scope` has.
    pub fn compile(text: &str, scope: Scope) -> Result<Expression, Fault> {
        let compiled = compile::compile(text, scope)?;
        let compile::Compiled { node, reads, paths } = compiled;
        Ok(Expression { text: text.to_owned(), node, reads, paths })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every variable that it may read.
    pub fn reads(&self) -> Variables {
        self.reads
    }

    /// The value, or why there is none.
    pub fn evaluate<'a>(&'a self, inputs: &'a dyn Inputs) -> Result<Value<'a>, Error> {
        eval::evaluate(&self.node, inputs)
    }

    /// Whether it holds; what is neither true nor false is an error.
    pub fn holds(&self, inputs: &dyn Inputs) -> Result<bool, Error> {
        match self.evaluate(inputs)? {
            Value::Bool(bool) => Ok(bool),
            _ => Err(Error::Type),
        }
    }

    /// What it reads, in the order in which it is written, with the values now; an error where there is none.
    pub fn readings<'a>(&'a self, inputs: &'a dyn Inputs) -> Vec<(&'a str, Result<Value<'a>, Error>)> {
        self.paths.iter().map(|path| (path.text.as_str(), eval::evaluate(&path.node, inputs))).collect()
    }
}
