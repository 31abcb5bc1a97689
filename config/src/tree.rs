//! YAML text to a tree in which every node has its place. Owns the limits on size, depth and aliases and the rule that a
//! key stands once; must not know any key.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::fault::{FaultKind, Mark};

/// Longest text that is read, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting of mappings and sequences.
pub(crate) const DEPTH_MAX: usize = 64;
/// Most nodes in the tree, counting every expansion of an alias.
pub(crate) const NODES_MAX: usize = 250_000;
/// Most bytes of scalars and keys in the tree, counting every expansion of an alias.
pub(crate) const SCALAR_BYTES_MAX: usize = 16 << 20;

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub mark: Mark,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A scalar as written, variables unexpanded.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub text: String,
    /// Written without quotes, so that it may be a number, a boolean or null.
    pub plain: bool,
}

/// One key of a mapping with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub mark: Mark,
    pub node: Node,
}

/// Why a text has no tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeFault {
    pub mark: Mark,
    pub path: String,
    pub message: String,
    pub kind: FaultKind,
}

impl Node {
    pub(crate) fn is_scalar(&self) -> bool {
        matches!(self.value, Value::Scalar(_))
    }

    /// Null in YAML's core schema.
    pub(crate) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                scalar.plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// Reads one YAML document. An empty text is a null node. Gives the tree with the duplicate keys found (of each, the first
/// value stays), or the one fault that ends reading.
pub(crate) fn parse(text: &str) -> Result<(Node, Vec<TreeFault>), TreeFault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(limit(Mark { line: 1, column: 1 }, format!("the document is longer than {TEXT_BYTES_MAX} bytes")));
    }
    // A byte order mark is no content (YAML 1.2, 5.2).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| TreeFault {
            mark: mark_of(error.marker()),
            path: builder.path(),
            message: error.info().to_owned(),
            kind: FaultKind::Syntax,
        })?;
        builder.on(event, mark_of(&span.start))?;
    }
    let root = builder.root.unwrap_or_else(|| Node { mark: Mark { line: 1, column: 1 }, value: null() });
    Ok((root, builder.duplicates))
}

fn null() -> Value {
    Value::Scalar(Scalar { text: String::new(), plain: true })
}

fn mark_of(marker: &Marker) -> Mark {
    let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mark { line: bounded(marker.line()), column: bounded(marker.col()).saturating_add(1) }
}

fn limit(mark: Mark, message: String) -> TreeFault {
    TreeFault { mark, path: String::new(), message, kind: FaultKind::Limit }
}

/// What a node costs against the limits.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    /// How deep it goes; a scalar is 0.
    depth: usize,
}

/// A mapping or sequence whose end has not been seen.
struct Open {
    mark: Mark,
    anchor: usize,
    cost: Cost,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, seen: HashSet<String>, key: Option<(String, Mark)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Cost)>,
    spent: Cost,
    root: Option<Node>,
    documents: usize,
    duplicates: Vec<TreeFault>,
}

impl Builder {
    fn on(&mut self, event: Event<'_>, mark: Mark) -> Result<(), TreeFault> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.syntax(mark, "a second document; one file holds one document"));
                }
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, mark),
            Event::Scalar(text, style, anchor, tag) => {
                let mut plain = style == ScalarStyle::Plain;
                if let Some(tag) = tag {
                    if !tag.is_yaml_core_schema() || tag.suffix != "str" {
                        return Err(self.syntax(mark, "tags other than !!str are not supported"));
                    }
                    plain = false;
                }
                let cost = Cost { nodes: 1, bytes: text.len(), depth: 0 };
                let node = Node { mark, value: Value::Scalar(Scalar { text: text.into_owned(), plain }) };
                self.keep(anchor, &node, cost);
                self.add(node, cost)
            }
            Event::SequenceStart(anchor, tag) => self.start(mark, anchor, tag.is_some(), Content::Sequence(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                let content = Content::Mapping { entries: Vec::new(), seen: HashSet::new(), key: None };
                self.start(mark, anchor, tag.is_some(), content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn start(&mut self, mark: Mark, anchor: usize, tagged: bool, content: Content) -> Result<(), TreeFault> {
        if tagged {
            return Err(self.syntax(mark, "tags other than !!str are not supported"));
        }
        if self.wants_key() {
            return Err(self.syntax(mark, "a key must be a scalar"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(limit(mark, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.open.push(Open { mark, anchor, cost: Cost { nodes: 1, bytes: 0, depth: 1 }, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), TreeFault> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { entries, .. } => Value::Mapping(entries),
        };
        let node = Node { mark: open.mark, value };
        self.keep(open.anchor, &node, open.cost);
        self.add(node, open.cost)
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), TreeFault> {
        let Some((node, cost)) = self.anchors.get(&anchor) else {
            return Err(self.syntax(mark, "an alias to a node that has not ended"));
        };
        let cost = *cost;
        if self.open.len() + cost.depth > DEPTH_MAX {
            return Err(limit(mark, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        // Checked before the copy is made: the copy is what the limit guards against.
        self.check(cost, mark)?;
        let node = Node { mark, value: node.value.clone() };
        self.add(node, cost)
    }

    /// Remembers an anchored node for its aliases. The copy kept counts against the limits as well.
    fn keep(&mut self, anchor: usize, node: &Node, cost: Cost) {
        if anchor > 0 {
            self.spent.nodes += cost.nodes;
            self.spent.bytes += cost.bytes;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
    }

    fn check(&self, cost: Cost, mark: Mark) -> Result<(), TreeFault> {
        let (mut nodes, mut bytes) = (self.spent.nodes, self.spent.bytes);
        for open in &self.open {
            nodes += open.cost.nodes;
            bytes += open.cost.bytes;
        }
        if nodes + cost.nodes > NODES_MAX {
            return Err(limit(mark, format!("more than {NODES_MAX} nodes, aliases expanded")));
        }
        if bytes + cost.bytes > SCALAR_BYTES_MAX {
            return Err(limit(mark, format!("more than {SCALAR_BYTES_MAX} bytes, aliases expanded")));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, cost: Cost) -> Result<(), TreeFault> {
        self.check(cost, node.mark)?;
        if self.wants_key() {
            return self.key(node, cost);
        }
        let duplicate = self.is_duplicate().then(|| self.path());
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.cost.nodes += cost.nodes;
        open.cost.bytes += cost.bytes;
        open.cost.depth = open.cost.depth.max(cost.depth + 1);
        match &mut open.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, seen, key } => {
                let Some((key, mark)) = key.take() else { return Ok(()) };
                if let Some(path) = duplicate {
                    let message = format!("the key {key:?} is there twice");
                    self.duplicates.push(TreeFault { mark, path, message, kind: FaultKind::Duplicate });
                    return Ok(());
                }
                seen.insert(key.clone());
                entries.push(Entry { key, mark, node });
            }
        }
        Ok(())
    }

    fn key(&mut self, node: Node, cost: Cost) -> Result<(), TreeFault> {
        let Value::Scalar(scalar) = node.value else { return Err(self.syntax(node.mark, "a key must be a scalar")) };
        if scalar.plain && scalar.text == "<<" {
            return Err(self.syntax(node.mark, "merge keys (<<) are not supported"));
        }
        let Some(Open { cost: total, content: Content::Mapping { key, .. }, .. }) = self.open.last_mut() else {
            return Ok(());
        };
        total.bytes += cost.bytes;
        *key = Some((scalar.text, node.mark));
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Mapping { key: None, .. }, .. }))
    }

    fn is_duplicate(&self) -> bool {
        match self.open.last() {
            Some(Open { content: Content::Mapping { key: Some((key, _)), seen, .. }, .. }) => seen.contains(key),
            _ => false,
        }
    }

    fn syntax(&self, mark: Mark, message: &str) -> TreeFault {
        TreeFault { mark, path: self.path(), message: message.to_owned(), kind: FaultKind::Syntax }
    }

    /// The field that is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.content {
                Content::Sequence(items) => path.push_str(&format!("[{}]", items.len())),
                Content::Mapping { key: Some((key, _)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Content::Mapping { key: None, .. } => {}
            }
        }
        path
    }
}
