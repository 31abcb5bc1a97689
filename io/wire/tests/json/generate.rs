//! Texts for the differential tests: JSON-RPC messages and plain values, then damage. Seeded; the same run everywhere.

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

const TOP: &[&str] = &["jsonrpc", "method", "id", "params", "result", "error", "extra", "", "Method"];
const PARAMS: &[&str] = &[
    "name",
    "arguments",
    "_meta",
    "uri",
    "cursor",
    "ref",
    "level",
    "requestId",
    "taskId",
    "progressToken",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "inputResponses",
    "requestState",
    "id",
    "method",
    "x",
];
const META: &[&str] = &[
    "progressToken",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/subscriptionId",
    "io.modelcontextprotocol/related-task",
    "io.modelcontextprotocol/",
    "traceparent",
    "name",
];
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "7",
    "-1",
    "9007199254740993",
    "123456789012345678901234567890",
    "1.5",
    "-0.25e-3",
    "1E+2",
    "0.0",
    "1e5",
];
const PIECES: &[&str] = &[
    "a",
    "tool",
    "\\\"",
    "\\\\",
    "\\n",
    "\\/",
    "\\u0041",
    "\\ud83d\\ude00",
    "\u{e9}",
    "\u{1f600}",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    " ",
    "'",
    "\u{7f}",
    "\\\\\\\"",
    "\u{2028}",
    "jsonrpc",
];

/// A JSON-RPC-like object; often one that `scan` accepts, sometimes with repeated or escaped keys.
pub fn message(dice: &mut Dice) -> String {
    let mut out = String::new();
    space(dice, &mut out);
    object(dice, &mut out, 0, TOP);
    space(dice, &mut out);
    out
}

/// Any value.
pub fn value(dice: &mut Dice) -> String {
    let mut out = String::new();
    space(dice, &mut out);
    any(dice, &mut out, 0);
    space(dice, &mut out);
    out
}

fn object(dice: &mut Dice, out: &mut String, depth: usize, keys: &[&str]) {
    out.push('{');
    space(dice, out);
    let repeats = dice.one_in(12);
    let mut used = Vec::new();
    let wanted = dice.roll(if depth < 2 { 7 } else { 4 });
    let routed = depth <= 2 && !std::ptr::eq(keys, PIECES);
    for _ in 0..wanted {
        let name = dice.pick(keys);
        if !repeats && used.contains(&name) {
            continue;
        }
        if !used.is_empty() {
            out.push(',');
            space(dice, out);
        }
        used.push(name);
        key(dice, out, name);
        space(dice, out);
        out.push(':');
        space(dice, out);
        member(dice, out, depth, if routed { name } else { "" });
        space(dice, out);
    }
    out.push('}');
}

fn member(dice: &mut Dice, out: &mut String, depth: usize, name: &str) {
    match (depth, name) {
        (0, "jsonrpc") if !dice.one_in(10) => out.push_str("\"2.0\""),
        (0, "params") if !dice.one_in(10) => object(dice, out, 1, PARAMS),
        (1, "_meta") if !dice.one_in(10) => object(dice, out, 2, META),
        (0, "method") | (1, "name" | "uri") if !dice.one_in(10) => string(dice, out),
        (0, "error") if !dice.one_in(4) => object(dice, out, 3, PIECES),
        _ => any(dice, out, depth + 1),
    }
}

fn key(dice: &mut Dice, out: &mut String, name: &str) {
    // Keys taken from `PIECES` are already spelt as JSON.
    out.push('"');
    let escape_at = if dice.one_in(40) { dice.roll(name.len().max(1)) } else { usize::MAX };
    for (at, character) in name.char_indices() {
        if at == escape_at && character.is_ascii_alphanumeric() && !name.contains('\\') {
            out.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            out.push(character);
        }
    }
    out.push('"');
}

fn any(dice: &mut Dice, out: &mut String, depth: usize) {
    match dice.roll(if depth > 6 { 5 } else { 8 }) {
        0 => out.push_str(dice.pick(&["true", "false", "null"])),
        1 | 2 => out.push_str(dice.pick(NUMBERS)),
        3 | 4 => string(dice, out),
        5 | 6 => object(dice, out, depth.max(3), PIECES),
        _ => array(dice, out, depth),
    }
}

fn array(dice: &mut Dice, out: &mut String, depth: usize) {
    out.push('[');
    space(dice, out);
    for index in 0..dice.roll(4) {
        if index > 0 {
            out.push(',');
        }
        space(dice, out);
        any(dice, out, depth + 1);
        space(dice, out);
    }
    out.push(']');
}

fn string(dice: &mut Dice, out: &mut String) {
    out.push('"');
    let length = if dice.one_in(15) { dice.roll(120) } else { dice.roll(6) };
    for _ in 0..length {
        out.push_str(dice.pick(PIECES));
    }
    // Runs of backslashes, which block ends like to cut.
    if dice.one_in(10) {
        (0..dice.roll(40)).for_each(|_| out.push_str("\\\\"));
    }
    // Keys are drawn from the pieces too, and a lone quote among them is escaped there.
    out.push('"');
}

fn space(dice: &mut Dice, out: &mut String) {
    if dice.one_in(6) {
        (0..dice.roll(4)).for_each(|_| out.push_str(dice.pick(&[" ", "\n", "\t", "\r"])));
    }
    if dice.one_in(200) {
        (0..dice.roll(80)).for_each(|_| out.push(' '));
    }
}

/// Damages a text in one to three places.
pub fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    const LIKELY: &[u8] = b"\"\\{}[]:,0-.eE tnu \n\x00\x1f\x7f\x80\xc3\xed\xff";
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len() + 1);
        let byte = LIKELY[dice.roll(LIKELY.len())];
        match dice.roll(6) {
            0 => bytes.insert(at, byte),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            4 if at < bytes.len() => bytes[at] = byte,
            _ => {
                let end = (at + dice.roll(12)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}
