//! Tokens to a tree (CEL language definition, "Syntax"). Neither it nor the tree gets deeper than the limit, whatever the
//! text: the tree is walked by recursion afterwards.

use crate::token::{Lexer, Token};
use crate::{DEPTH_MAX, Fault};

/// A part of an expression.
#[derive(Debug)]
pub(crate) struct Tree {
    /// In characters from the start of the text.
    pub offset: usize,
    depth: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Name(String),
    Select(Box<Tree>, String),
    Index(Box<Tree>, Box<Tree>),
    Call { target: Option<Box<Tree>>, name: String, arguments: Vec<Tree> },
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    Not(Box<Tree>),
    Negate(Box<Tree>),
    Binary(Binary, Box<Tree>, Box<Tree>),
    Choice(Box<[Tree; 3]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// Words that are kept from being names ("Syntax", RESERVED).
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Loosest first; those of one level go from left to right.
const LEVELS: [&[(&str, Binary)]; 5] = [
    &[("||", Binary::Or)],
    &[("&&", Binary::And)],
    &[
        ("==", Binary::Equal),
        ("!=", Binary::NotEqual),
        ("<", Binary::Less),
        ("<=", Binary::LessOrEqual),
        (">", Binary::Greater),
        (">=", Binary::GreaterOrEqual),
        ("in", Binary::In),
    ],
    &[("+", Binary::Add), ("-", Binary::Subtract)],
    &[("*", Binary::Multiply), ("/", Binary::Divide), ("%", Binary::Modulo)],
];

pub(crate) fn parse(text: &str) -> Result<Tree, Fault> {
    let mut lexer = Lexer::new(text);
    let (token, offset) = lexer.next()?;
    let mut parser = Parser { lexer, token, offset, depth: 0 };
    let tree = parser.expression()?;
    match parser.token {
        Token::End => Ok(tree),
        _ => parser.unexpected(),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    /// Of the token.
    offset: usize,
    /// Calls of the parser within each other.
    depth: usize,
}

impl Parser<'_> {
    fn fault<T>(&self, offset: usize, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { offset, message: message.into() })
    }

    fn unexpected<T>(&self) -> Result<T, Fault> {
        let what = match &self.token {
            Token::Name(name) => name.clone(),
            Token::Text(_) => "a string".to_owned(),
            Token::Int(_) | Token::Uint(_) | Token::Double(_) => "a number".to_owned(),
            Token::Sign("?." | "[?") => return self.fault(self.offset, "not built: optional values"),
            Token::Sign("{") => return self.fault(self.offset, "not built: messages"),
            Token::Sign(sign) => format!("{sign:?}"),
            Token::End => "end".to_owned(),
        };
        self.fault(self.offset, format!("not an expression: unexpected {what}"))
    }

    fn advance(&mut self) -> Result<Token, Fault> {
        let (token, offset) = self.lexer.next()?;
        self.offset = offset;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(&self.token, Token::Sign(own) if *own == sign)
    }

    fn take(&mut self, sign: &str) -> Result<bool, Fault> {
        let is = self.is_sign(sign);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.take(sign)? { Ok(()) } else { self.unexpected() }
    }

    fn tree(&self, offset: usize, kind: Kind, under: usize) -> Result<Tree, Fault> {
        let depth = under + 1;
        if depth > DEPTH_MAX {
            return self.fault(offset, format!("nested deeper than {DEPTH_MAX} levels"));
        }
        Ok(Tree { offset, depth, kind })
    }

    fn expression(&mut self) -> Result<Tree, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fault(self.offset, format!("nested deeper than {DEPTH_MAX} levels"));
        }
        let tree = self.choice();
        self.depth -= 1;
        tree
    }

    fn choice(&mut self) -> Result<Tree, Fault> {
        let condition = self.binary(0)?;
        if !self.take("?")? {
            return Ok(condition);
        }
        let then = self.binary(0)?;
        self.expect(":")?;
        let otherwise = self.expression()?;
        let (offset, under) = (condition.offset, condition.depth.max(then.depth).max(otherwise.depth));
        self.tree(offset, Kind::Choice(Box::new([condition, then, otherwise])), under)
    }

    fn binary(&mut self, level: usize) -> Result<Tree, Fault> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let first = self.binary(level + 1)?;
        // `a || b || c` may be long: as a tree of terms it is not deep.
        if let [(sign, operator)] = operators {
            let mut terms = vec![first];
            while self.take(sign)? {
                terms.push(self.binary(level + 1)?);
            }
            return self.balanced(*operator, terms);
        }
        let mut left = first;
        while let Some(operator) = self.operator(operators) {
            self.advance()?;
            let right = self.binary(level + 1)?;
            left = self.joined(operator, left, right)?;
        }
        Ok(left)
    }

    fn operator(&self, operators: &[(&str, Binary)]) -> Option<Binary> {
        let text = match &self.token {
            Token::Sign(sign) => sign,
            Token::Name(name) => name.as_str(),
            _ => return None,
        };
        operators.iter().find(|(own, _)| *own == text).map(|(_, operator)| *operator)
    }

    fn joined(&self, operator: Binary, left: Tree, right: Tree) -> Result<Tree, Fault> {
        let (offset, under) = (left.offset, left.depth.max(right.depth));
        self.tree(offset, Kind::Binary(operator, Box::new(left), Box::new(right)), under)
    }

    fn balanced(&self, operator: Binary, mut terms: Vec<Tree>) -> Result<Tree, Fault> {
        while terms.len() > 1 {
            let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
            let mut rest = terms.into_iter();
            while let Some(left) = rest.next() {
                joined.push(match rest.next() {
                    Some(right) => self.joined(operator, left, right)?,
                    None => left,
                });
            }
            terms = joined;
        }
        match terms.pop() {
            Some(tree) => Ok(tree),
            None => self.unexpected(),
        }
    }

    fn unary(&mut self) -> Result<Tree, Fault> {
        let offset = self.offset;
        let sign = match self.token {
            Token::Sign(sign @ ("!" | "-")) => sign,
            _ => return self.member(),
        };
        let mut times = 0usize;
        while self.take(sign)? {
            times += 1;
        }
        // The lowest integer has no positive one to be the negative of.
        if let (1, "-", &Token::Int(number)) = (times, sign, &self.token)
            && let Some(negative) = 0i64.checked_sub_unsigned(number)
        {
            self.advance()?;
            let tree = self.tree(offset, Kind::Int(negative), 0)?;
            return self.members(tree);
        }
        let mut tree = self.member()?;
        for _ in 0..times {
            let under = tree.depth;
            let operand = Box::new(tree);
            tree = self.tree(offset, if sign == "!" { Kind::Not(operand) } else { Kind::Negate(operand) }, under)?;
        }
        Ok(tree)
    }

    fn member(&mut self) -> Result<Tree, Fault> {
        let tree = self.primary()?;
        self.members(tree)
    }

    fn members(&mut self, mut tree: Tree) -> Result<Tree, Fault> {
        loop {
            let (offset, under) = (tree.offset, tree.depth);
            if self.take(".")? {
                let Token::Name(_) = self.token else { return self.unexpected() };
                let Token::Name(name) = self.advance()? else { return self.unexpected() };
                tree = if self.take("(")? {
                    let arguments = self.list(")")?;
                    let under = arguments.iter().map(|argument| argument.depth).fold(under, usize::max);
                    self.tree(offset, Kind::Call { target: Some(Box::new(tree)), name, arguments }, under)?
                } else {
                    self.tree(offset, Kind::Select(Box::new(tree), name), under)?
                };
            } else if self.take("[")? {
                let key = self.expression()?;
                self.expect("]")?;
                let under = under.max(key.depth);
                tree = self.tree(offset, Kind::Index(Box::new(tree), Box::new(key)), under)?;
            } else {
                return Ok(tree);
            }
        }
    }

    /// Expressions up to `end`, which is taken too; a last comma says nothing.
    fn list(&mut self, end: &str) -> Result<Vec<Tree>, Fault> {
        let mut trees = Vec::new();
        while !self.take(end)? {
            trees.push(self.expression()?);
            if !self.take(",")? {
                self.expect(end)?;
                break;
            }
        }
        Ok(trees)
    }

    fn primary(&mut self) -> Result<Tree, Fault> {
        let offset = self.offset;
        if matches!(self.token, Token::End)
            || matches!(&self.token, Token::Sign(sign) if !["(", "[", "{"].contains(sign))
        {
            return self.unexpected();
        }
        let (kind, under) = match self.advance()? {
            Token::Text(text) => (Kind::Text(text), 0),
            Token::Int(number) => match i64::try_from(number) {
                Ok(int) => (Kind::Int(int), 0),
                Err(_) => return self.fault(offset, "not a number of 64 bits"),
            },
            Token::Uint(number) => (Kind::Uint(number), 0),
            Token::Double(double) => (Kind::Double(double), 0),
            Token::Name(name) => return self.name(offset, name),
            Token::Sign("(") => {
                let tree = self.expression()?;
                self.expect(")")?;
                return Ok(Tree { offset, ..tree });
            }
            Token::Sign("[") => {
                let items = self.list("]")?;
                let under = items.iter().map(|item| item.depth).max().unwrap_or(0);
                (Kind::List(items), under)
            }
            _ => {
                let entries = self.entries()?;
                let under = entries.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0);
                (Kind::Map(entries), under)
            }
        };
        self.tree(offset, kind, under)
    }

    fn name(&mut self, offset: usize, name: String) -> Result<Tree, Fault> {
        let kind = match name.as_str() {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            "null" => Kind::Null,
            word if word == "in" || RESERVED.contains(&word) => {
                return self.fault(offset, format!("not an expression: unexpected {word}"));
            }
            _ if self.take("(")? => {
                let arguments = self.list(")")?;
                let under = arguments.iter().map(|argument| argument.depth).max().unwrap_or(0);
                return self.tree(offset, Kind::Call { target: None, name, arguments }, under);
            }
            _ => Kind::Name(name),
        };
        self.tree(offset, kind, 0)
    }

    fn entries(&mut self) -> Result<Vec<(Tree, Tree)>, Fault> {
        let mut entries = Vec::new();
        while !self.take("}")? {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",")? {
                self.expect("}")?;
                break;
            }
        }
        Ok(entries)
    }
}
