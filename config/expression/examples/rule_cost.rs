//! What rules cost: nanoseconds for one expression, and for the twenty of a call. `cargo run --release --example rule_cost`.

use std::hint::black_box;
use std::time::Instant;

use agentlane_expression::{Expression, Inputs, Scope, Value, Variable};
use serde_json::{Value as Json, json};

struct Call {
    claims: Json,
    tool: &'static str,
}

impl Inputs for Call {
    fn value(&self, variable: Variable) -> Option<Value<'_>> {
        match variable {
            Variable::Jwt => Some(Value::json(&self.claims)),
            Variable::McpToolName => Some(Value::text(self.tool)),
            Variable::McpToolTarget => Some(Value::text("github")),
            Variable::SourceAddress => Some(Value::text("10.1.2.3")),
            _ => None,
        }
    }
}

const RULES: [&str; 10] = [
    "jwt.sub == 'bob' && mcp.tool.name == 'create_issue'",
    "mcp.tool.name.startsWith('delete_')",
    "mcp.tool.name in ['drop', 'truncate', 'format', 'shutdown']",
    "'admin' in jwt.groups",
    "jwt.realm.level >= 7",
    "mcp.tool.target == 'payments' && !(jwt.department in ['finance', 'audit'])",
    "jwt.groups.exists(group, group.startsWith('blocked-'))",
    "has(jwt.suspended) && jwt.suspended",
    "mcp.tool.name.matches('^(rm|del)[a-z_]*$')",
    "cidr('192.168.0.0/16').containsIP(source.address)",
];

const ROUNDS: u32 = 5_000;
const BATCHES: u32 = 60;

fn main() {
    let claims = json!({
        "iss": "https://issuer.example", "aud": "agents", "exp": 1_900_000_000, "iat": 1_800_000_000,
        "sub": "alice", "department": "research", "groups": ["staff", "research", "on-call"], "realm": {"level": 3},
    });
    let call = Call { claims, tool: "search_issues" };
    let rules: Vec<Expression> =
        RULES.iter().map(|text| Expression::compile(text, Scope::Mcp).expect("a good rule")).collect();
    for rule in &rules {
        println!("{:7.1} ns  {}", nanoseconds(|| rule.holds(&call).is_ok()), rule.text());
    }
    let twenty = nanoseconds(|| rules.iter().chain(&rules).filter(|rule| rule.holds(&call) == Ok(true)).count() > 20);
    println!("{twenty:7.1} ns  twenty deny rules of which none holds");
}

/// Of the fastest batch: what others do on the machine only adds.
fn nanoseconds(mut work: impl FnMut() -> bool) -> f64 {
    let batches = (0..BATCHES).map(|_| {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            black_box(work());
        }
        begun.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
    });
    batches.fold(f64::INFINITY, f64::min)
}
