//! Random expressions and what they read. Seeded; the same run everywhere.

use serde_json::{Value as Json, json};

/// A small deterministic source of choices (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    pub fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    pub fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }
}

const VARIABLES: &[&str] = &[
    "jwt.sub",
    "jwt.role",
    "jwt.level",
    "jwt.score",
    "jwt.admin",
    "jwt.groups",
    "jwt.nested",
    "jwt.nested.key",
    "jwt.nested.none.deeper",
    "jwt[\"https://x/roles\"]",
    "jwt.groups[0]",
    "jwt.nothing",
    "jwt",
    "apiKey",
    "apiKey.team",
    "basicAuth.username",
    "request.method",
    "request.path",
    "request.headers",
    "request.headers.accept",
    "request.headers[\"x-team\"]",
    "source.address",
    "source.port",
    "mcp.methodName",
    "mcp.tool.name",
    "mcp.tool.target",
    "mcp.prompt.name",
    "mcp.resource.name",
];

const LITERALS: &[&str] = &[
    "0",
    "1",
    "2",
    "-1",
    "5",
    "9223372036854775807",
    "1u",
    "5u",
    "1.0",
    "2.5",
    "-0.5",
    "1e3",
    "true",
    "false",
    "null",
    "\"\"",
    "\"a\"",
    "\"alice\"",
    "\"admin\"",
    "'echo'",
    "\"/mcp\"",
    "\"7\"",
    "\"ü\"",
    "r'\\d'",
    "[]",
    "{}",
];

const PATTERNS: &[&str] = &["^a", "e$", "[a-z]+", "\\\\d+", "echo|add", "", "^(GET|POST)$"];

/// An expression; most are of booleans.
pub fn expression(dice: &mut Dice, depth: usize, locals: &mut Vec<&'static str>) -> String {
    if depth == 0 || dice.one_in(12) {
        return leaf(dice, locals);
    }
    let next = |dice: &mut Dice, locals: &mut Vec<&'static str>| expression(dice, depth - 1, locals);
    match dice.roll(20) {
        0..=3 => {
            let operator = dice.pick(&["&&", "||"]);
            format!("({} {operator} {})", next(dice, locals), next(dice, locals))
        }
        4..=7 => {
            let operator = dice.pick(&["==", "!=", "==", "<", "<=", ">", ">="]);
            format!("({} {operator} {})", next(dice, locals), next(dice, locals))
        }
        8 => format!("!({})", next(dice, locals)),
        9 => format!("({} ? {} : {})", next(dice, locals), next(dice, locals), next(dice, locals)),
        10 => {
            let operator = dice.pick(&["+", "-", "*", "/", "%"]);
            format!("({} {operator} {})", next(dice, locals), next(dice, locals))
        }
        11 => format!("-({})", next(dice, locals)),
        12 | 13 => format!("({} in {})", next(dice, locals), list(dice, depth, locals)),
        14 => {
            let function = dice.pick(&["startsWith", "endsWith", "contains"]);
            format!("({}).{function}({})", next(dice, locals), next(dice, locals))
        }
        15 => format!("({}).matches(\"{}\")", next(dice, locals), dice.pick(PATTERNS)),
        16 => format!("{}({})", dice.pick(&["size", "int", "uint", "double", "string"]), next(dice, locals)),
        17 => has(dice),
        18 => fold(dice, depth, locals),
        _ => format!("({})[{}]", next(dice, locals), next(dice, locals)),
    }
}

fn leaf(dice: &mut Dice, locals: &[&'static str]) -> String {
    if !locals.is_empty() && dice.one_in(2) {
        return dice.pick(locals).to_owned();
    }
    if dice.one_in(3) { dice.pick(LITERALS).to_owned() } else { dice.pick(VARIABLES).to_owned() }
}

fn list(dice: &mut Dice, depth: usize, locals: &mut Vec<&'static str>) -> String {
    match dice.roll(4) {
        0 => dice.pick(&["jwt.groups", "jwt", "request.headers", "jwt.nested", "apiKey"]).to_owned(),
        1 => {
            let entries: Vec<String> = (0..dice.roll(3))
                .map(|place| format!("{}: {}", ["\"a\"", "1", "true"][place], leaf(dice, locals)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        2 => {
            let items: Vec<&str> = (0..dice.roll(4)).map(|_| dice.pick(LITERALS)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => {
            let items: Vec<String> =
                (0..dice.roll(3)).map(|_| expression(dice, depth.saturating_sub(2), locals)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

fn has(dice: &mut Dice) -> String {
    let names = [
        "jwt.sub",
        "jwt.nothing",
        "jwt.nested.key",
        "jwt.nothing.deeper",
        "jwt.sub.deeper",
        "mcp.tool",
        "mcp.prompt",
        "mcp.tool.name",
        "mcp.prompt.name",
        "mcp.methodName",
        "request.headers",
        "request.headers.accept",
        "request.headers.nothing",
        "basicAuth.username",
        "apiKey.team",
        "source.subject",
    ];
    format!("has({})", dice.pick(&names))
}

fn fold(dice: &mut Dice, depth: usize, locals: &mut Vec<&'static str>) -> String {
    let name = ["x", "y", "z"][locals.len().min(2)];
    // The order of a map's keys is the library's own.
    let is_map = dice.one_in(4);
    let range = if is_map { dice.pick(&["jwt", "apiKey", "jwt.nested"]).to_owned() } else { list_range(dice, locals) };
    locals.push(name);
    let body = expression(dice, depth - 1, locals);
    let other = expression(dice, depth.saturating_sub(2), locals);
    locals.pop();
    match dice.roll(if is_map { 3 } else { 6 }) {
        0 => format!("({range}).all({name}, {body})"),
        1 => format!("({range}).exists({name}, {body})"),
        2 => format!("({range}).exists_one({name}, {body})"),
        3 => format!("({range}).filter({name}, {body})"),
        4 => format!("({range}).map({name}, {body})"),
        _ => format!("({range}).map({name}, {other}, {body})"),
    }
}

fn list_range(dice: &mut Dice, locals: &[&'static str]) -> String {
    match dice.roll(3) {
        0 => "jwt.groups".to_owned(),
        1 => {
            let items: Vec<String> = (0..dice.roll(4)).map(|_| leaf(dice, locals)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => "jwt[\"https://x/roles\"]".to_owned(),
    }
}

/// A document with every root of the names, and some of what they may have.
pub fn document(dice: &mut Dice) -> Json {
    let mut jwt = json!({});
    let scalars = |dice: &mut Dice| {
        let choices = [
            json!("alice"),
            json!("admin"),
            json!(""),
            json!(7),
            json!(-1),
            json!(2.5),
            json!(u64::MAX),
            json!(true),
            json!(null),
            json!("echo"),
            json!("7"),
            json!(["a", "admin", 1]),
            json!({"key": "a"}),
        ];
        choices[dice.roll(choices.len())].clone()
    };
    for name in ["sub", "role", "level", "score", "admin", "https://x/roles"] {
        if dice.one_in(2) {
            jwt[name] = scalars(dice);
        }
    }
    if dice.one_in(2) {
        jwt["groups"] = json!((0..dice.roll(4)).map(|_| scalars(dice)).collect::<Vec<_>>());
    }
    if dice.one_in(2) {
        jwt["nested"] = json!({ "key": scalars(dice) });
    }
    let mut mcp = json!({});
    if dice.one_in(2) {
        mcp["methodName"] = json!("tools/call");
    }
    match dice.roll(4) {
        0 | 1 => mcp["tool"] = json!({"name": dice.pick(&["echo", "add", "7"]), "target": "a"}),
        2 => mcp["prompt"] = json!({"name": "echo", "target": "b"}),
        _ => mcp["resource"] = json!({"name": "file:///a", "target": "a"}),
    }
    json!({
        "jwt": if dice.one_in(4) { json!({}) } else { jwt },
        "apiKey": if dice.one_in(2) { json!({"team": scalars(dice)}) } else { json!({}) },
        "basicAuth": if dice.one_in(2) { json!({"username": "alice"}) } else { json!({}) },
        "request": {
            "method": "POST", "path": "/mcp",
            "headers": {"accept": "*/*", "x-team": ["a", "b"]},
        },
        "source": {"address": "10.1.2.3", "port": 4711},
        "mcp": mcp,
    })
}
