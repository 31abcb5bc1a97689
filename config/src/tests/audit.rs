//! What is written of the audit log and of the admin server's key.

use super::{good, printed, read};
use crate::WhenBehind;

#[test]
fn the_audit_log() {
    let audit = |text: &str| {
        good(&format!("config: {text}\nmcp: {{port: 3000, targets: [{{name: a, stdio: {{cmd: x}}}}]}}")).process.audit
    };
    assert_eq!(audit("{}"), None);
    let default = audit("{audit: {}}").unwrap();
    assert_eq!((default.file.as_deref(), default.calls, default.is_chained()), (None, false, false));
    assert_eq!((default.claims, default.when_behind), (vec!["iss".to_owned(), "sub".to_owned()], WhenBehind::Drop));
    let all = audit("{audit: {file: a.log, calls: true, claims: [], key: $AGENTLANE_AUDIT_KEY, whenBehind: refuse}}");
    let all = all.unwrap();
    assert_eq!((all.calls, all.is_chained(), all.when_behind), (true, true, WhenBehind::Refuse));
    assert!(!format!("{all:?}").contains("sixteen"));
}

#[test]
fn keys_that_are_none() {
    let text = "config:
  adminKey: short
  audit: {chain: false, key: also short}
mcp: {port: 3000, targets: [{name: a, stdio: {cmd: x}}]}
";
    assert_eq!(
        printed(&read(text, false).unwrap_err()),
        [
            "2:13: config.adminKey: expected a key of 16 bytes at least, got a shorter one",
            "3:25: config.audit.key: cannot stand beside chain: false; it is the chain's",
            "3:30: config.audit.key: expected a key of 16 bytes at least, got a shorter one",
        ]
    );
}
