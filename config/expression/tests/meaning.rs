//! What is refused when it is read, with its place, and what evaluation says of inputs that do not fit.

use agentlane_expression::{Error, Expression, Inputs, Map, Scope, Value, Variable, Variables};
use serde_json::{Value as Json, json};

struct Sample(Json);

impl Inputs for Sample {
    fn value(&self, variable: Variable) -> Option<Value<'_>> {
        let found = variable.path().split('.').try_fold(&self.0, |json, name| json.get(name));
        match (variable, found) {
            (Variable::Jwt | Variable::ApiKey, None) => Some(Value::Map(Map::Empty)),
            (_, found) => found.map(Value::json),
        }
    }
}

fn holds(text: &str, inputs: &Json) -> Result<bool, Error> {
    let expression = Expression::compile(text, Scope::Mcp).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    expression.holds(&Sample(inputs.clone()))
}

#[test]
fn what_has_no_meaning_is_refused_with_its_place() {
    let cases = [
        ("", 0, "empty"),
        ("   ", 0, "empty"),
        ("jwt.sub ==", 10, "not an expression"),
        ("jwt.sub == 'a' &&& true", 17, "not an expression"),
        ("true && user.name == 'a'", 8, "unknown variable user.name"),
        ("mcp.tool.nam == 'a'", 0, "unknown variable mcp.tool.nam"),
        ("mcp.tool == 'a'", 0, "mcp.tool has no value of its own, but mcp.tool.name, mcp.tool.target, mcp.tool.risk"),
        ("jwt.rawToken == 'a'", 0, "known, but not built"),
        ("true || response.code == 200", 8, "known, but not built"),
        ("jwt.sub.matches(jwt.pattern)", 16, "must be a literal"),
        ("jwt.sub.matches('(')", 0, "not a pattern"),
        ("jwt.sub.frobnicate()", 0, "no function frobnicate"),
        ("startsWith(jwt.sub, 'a')", 0, "no function startsWith"),
        ("cidr('10.0.0.0/33').containsIP(source.address)", 0, "needs a network"),
        ("timestamp(jwt.exp) > 1", 0, "no function timestamp"),
        ("jwt.sub == b'a'", 11, "not built: bytes"),
        ("[?jwt.sub]", 0, ""),
        ("Message{a: 1}", 0, ""),
        ("[1].exists(x, y)", 0, "unknown variable y"),
    ];
    for (text, offset, message) in cases {
        let fault = Expression::compile(text, Scope::Mcp).expect_err(text);
        assert!(fault.message.contains(message), "{text}: {fault:?}");
        if offset > 0 {
            assert_eq!(fault.offset, offset, "{text}: {fault:?}");
        }
    }
    let fault = Expression::compile("mcp.tool.name == 'a'", Scope::Http).unwrap_err();
    assert!(fault.message.contains("unknown variable mcp.tool.name"), "{fault:?}");
}

#[test]
fn too_long_and_too_deep_is_refused() {
    let deep = |open: &str, close: &str, times: usize| format!("{}true{}", open.repeat(times), close.repeat(times));
    for text in [
        "a".repeat(17_000),
        deep("(", ")", 10_000 / 2),
        deep("[", "]", 5_000),
        deep("!", "", 10_000),
        deep("-", "", 10_000),
        deep("true ? ", " : false", 1_000),
        format!("jwt{}", "[0]".repeat(4_000)),
        format!("jwt{}", ".a".repeat(6_000)),
        "jwt.sub.matches('a{1000}{1000}{1000}')".to_owned(),
    ] {
        assert!(Expression::compile(&text, Scope::Mcp).is_err(), "{}", &text[..40]);
    }
    let long = vec!["jwt.sub == 'a'"; 400].join(" || ");
    assert!(Expression::compile(&long, Scope::Mcp).is_ok(), "many alternatives are not deep");
}

#[test]
fn what_is_not_there_is_an_error_that_says_so() {
    let tool = json!({"mcp": {"tool": {"name": "echo", "target": "a"}}});
    let name = Variables::of(&[Variable::McpPromptName]);
    let missing = Err(Error::Missing(name));
    assert_eq!(holds("mcp.prompt.name == 'x'", &tool), missing);
    assert_eq!(holds("mcp.prompt.name == 'x' && jwt.role == 'a'", &tool), missing);
    assert_eq!(holds("mcp.prompt.name == 'x' || jwt.role == 'a'", &tool), Err(Error::NoKey));
    assert_eq!(holds("mcp.prompt.name == 'x' || mcp.tool.name == 'echo'", &tool), Ok(true));
    assert_eq!(holds("mcp.prompt.name == 'x' && mcp.tool.name == 'add'", &tool), Ok(false));
    assert_eq!(holds("!(mcp.prompt.name == 'x')", &tool), missing);
    assert_eq!(holds("has(mcp.prompt)", &tool), Ok(false));
    assert_eq!(holds("has(mcp.tool) && has(mcp.tool.name)", &tool), Ok(true));
    assert!(matches!(holds("has(mcp.prompt.name)", &tool), Err(Error::Missing(_))));
    assert_eq!(holds("jwt.sub == 'a'", &tool), Err(Error::NoKey));
    assert_eq!(holds("has(jwt.sub)", &tool), Ok(false));
    assert_eq!(holds("default(jwt.sub, 'none') == 'none'", &tool), Ok(true));
    assert_eq!(holds("default(mcp.prompt.name, '') == ''", &tool), Ok(true));
    assert_eq!(holds("mcp.tool.name", &tool), Err(Error::Type));
}

#[test]
fn functions_of_strings_and_networks() {
    let inputs = json!({
        "jwt": {"scope": "read write", "sub": " Alice ", "https://x/roles": ["a", "b"]},
        "source": {"address": "::ffff:10.2.3.4"},
    });
    for text in [
        "'read' in jwt.scope.split(' ')",
        "jwt.scope.split(' ').exists(s, s == 'write')",
        "jwt.sub.trim().lowerAscii() == 'alice' && 'a'.upperAscii() == 'A'",
        "'b' in jwt['https://x/roles'] && jwt[\"https://x/roles\"].size() == 2",
        "cidr('10.0.0.0/8').containsIP(source.address) && !cidr('11.0.0.0/8').containsIP(source.address)",
        "jwt.sub.matches('(?i)alice')",
    ] {
        assert_eq!(holds(text, &inputs), Ok(true), "{text}");
    }
    assert_eq!(holds("cidr('10.0.0.0/8').containsIP(jwt.sub)", &inputs), Err(Error::Convert));
}

#[test]
fn evaluation_ends() {
    let inputs = json!({"jwt": {"list": (0..200).collect::<Vec<_>>(), "text": "a".repeat(100_000)}});
    for text in [
        "jwt.list.all(a, jwt.list.all(b, jwt.list.all(c, a + b + c >= 0)))",
        "jwt.list.map(a, jwt.list.map(b, jwt.list)).size() == jwt.list.size()",
        "jwt.list.all(a, jwt.text.matches('b$') || true)",
        "jwt.list.map(a, jwt.text + jwt.text).size() > 0",
    ] {
        assert_eq!(holds(text, &inputs), Err(Error::Budget), "{text}");
    }
}

#[test]
fn an_expression_says_what_it_reads() {
    let text = "jwt.role == 'a' && (has(mcp.tool) || jwt['x y'].z in request.headers) && jwt.role != ''";
    let expression = Expression::compile(text, Scope::Mcp).unwrap();
    let reads = Variables::of(&[
        Variable::Jwt,
        Variable::McpToolName,
        Variable::McpToolTarget,
        Variable::McpToolRisk,
        Variable::RequestHeaders,
    ]);
    assert_eq!(expression.reads(), reads);
    let sample = Sample(json!({"jwt": {"role": "a"}}));
    let readings: Vec<(&str, Option<Json>)> = expression
        .readings(&sample)
        .into_iter()
        .map(|(path, value)| (path, value.ok().map(|value| value.to_json())))
        .collect();
    let expected = [("jwt.role", Some(json!("a"))), ("jwt[\"x y\"].z", None), ("request.headers", None)];
    assert_eq!(readings, expected);
}
