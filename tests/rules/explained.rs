//! `agentlane explain`, and what `check` says of rules.

use serde_json::{Value, json};

use crate::support::gateway::{Folder, run};

const CONFIG: &str = r#"
binds:
- port: 3000
  listeners:
  - policies:
      authorization:
        rules:
        - "request.path == '/mcp'"
    routes:
    - name: tools
      policies:
        mcpAuthorization:
          rules:
          - jwt.role in ["admin", "dev"]
          - allow: mcp.tool.name == "search"
          - deny: mcp.tool.target == "payments" && jwt.role != "admin"
      backends:
      - mcp:
          targets:
          - name: payments
            mcp: {host: "http://127.0.0.1:1/mcp"}
          - name: notes
            mcp: {host: "http://127.0.0.1:2/mcp"}
"#;

fn explain(claims: &Value, more: &[&str]) -> String {
    let folder = Folder::new();
    let (file, principal) = (folder.path().join("agentlane.yaml"), folder.path().join("claims.json"));
    std::fs::write(&file, CONFIG).expect("a file");
    std::fs::write(&principal, claims.to_string()).expect("a file");
    let (file, principal) = (file.to_str().expect("UTF-8"), principal.to_str().expect("UTF-8"));
    let mut args = vec!["explain", "-f", file, "--route", "tools", "--principal", principal];
    args.extend(more);
    let ended = run(&args, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.replace(file, "agentlane.yaml")
}

#[test]
fn the_rule_its_place_and_the_claim_are_named() {
    let dev = json!({ "sub": "alice", "role": "dev" });
    let text = explain(&dev, &["--tool", "payments__refund"]);
    assert!(text.starts_with("refused by mcpAuthorization.rules[2] at 16:19\n"), "{text}");
    assert!(text.contains("> mcpAuthorization.rules[2] at 16:19 deny: holds\n"), "{text}");
    assert!(
        text.contains("    jwt.role = \"dev\"\n") && text.contains("    mcp.tool.target = \"payments\"\n"),
        "{text}"
    );
    let text = explain(&dev, &["--tool", "add_note", "--target", "notes"]);
    assert!(text.starts_with("allowed by mcpAuthorization.rules[0] at 14:13\n"), "{text}");
    let text = explain(&json!({}), &["--tool", "notes__add_note"]);
    assert!(
        text.starts_with("refused by mcpAuthorization.rules[2] at 16:19\n") || text.contains("no rule allows it"),
        "{text}"
    );
    assert!(text.contains("    jwt.role: no such member\n"), "{text}");
    let text = explain(&dev, &["--path", "/elsewhere"]);
    assert!(text.starts_with("refused by authorization: no rule allows it\n"), "{text}");
    assert!(text.contains("    request.path = \"/elsewhere\"\n"), "{text}");
}

#[test]
fn programs_get_a_document() {
    let text = explain(&json!({ "role": "admin" }), &["--tool", "payments__refund", "--json"]);
    let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&said["allowed"], &said["by"]), (&json!(true), &json!("mcpAuthorization.rules[0] at 14:13")));
    let deny = &said["rules"][3];
    assert_eq!((&deny["line"], &deny["column"], &deny["effect"]), (&json!(16), &json!(19), &json!("deny")));
    assert_eq!((&deny["outcome"], &deny["reads"]["jwt.role"]["value"]), (&json!("does not hold"), &json!("admin")));
}

#[test]
fn what_does_not_exist_is_said() {
    let folder = Folder::new();
    let file = folder.path().join("agentlane.yaml");
    std::fs::write(&file, CONFIG).expect("a file");
    let file = file.to_str().expect("UTF-8");
    for (args, expected) in [
        (vec!["--route", "nothing", "--tool", "a"], "no route has the name \"nothing\"; there are tools"),
        (vec!["--route", "tools", "--tool", "a"], "which target? payments, notes"),
        (vec!["--route", "tools", "--tool", "a", "--target", "x"], "no target has the name \"x\""),
        (vec!["--route", "tools", "--tool", "notes__a", "--principal", "/nowhere"], "/nowhere"),
    ] {
        let mut all = vec!["explain", "-f", file];
        all.extend(args);
        let ended = run(&all, &[]);
        assert!(ended.code != Some(0) && ended.stderr.contains(expected), "{}", ended.stderr);
    }
    std::fs::write(file, CONFIG.replace("jwt.role in", "jwt.role im")).expect("a file");
    let ended = run(&["check", file], &[]);
    assert!(
        ended.stderr.contains(":14:22: binds[0].listeners[0].routes[0].policies.mcpAuthorization.rules[0]: "),
        "{}",
        ended.stderr
    );
}
