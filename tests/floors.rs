//! The floors of the house: a file of `src/` may import from floors below its own, never from one above. The order is the
//! one in `src/lib.rs`; here it is held.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the top down; rooms of one floor do not see each other.
const FLOORS: [&[&str]; 12] = [
    &["main"],
    &["cli"],
    &["gateway"],
    &["shard", "control"],
    &["mesh"],
    &["snapshot", "session"],
    &["policy", "backend"],
    &["request"],
    &["principal"],
    &["protocol", "telemetry"],
    &["fault", "limits"],
    &[],
];
/// The demo is a program of its own that the binary carries: it sees nothing, and only those who start it see it.
const DEMO: &str = "demo";
const SEE_THE_DEMO: [&str; 4] = ["cli", "control", "gateway", "demo"];

fn floor_of(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|rooms| rooms.contains(&module))
        .unwrap_or_else(|| panic!("{module} is on no floor: place it in this test and in src/lib.rs"))
}

/// Whether a file of `from` may import from `to`.
fn is_allowed(from: &str, to: &str) -> bool {
    if to == DEMO {
        return SEE_THE_DEMO.contains(&from);
    }
    from != DEMO && (from == to || floor_of(from) < floor_of(to))
}

#[test]
fn imports_go_only_downward() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = BTreeSet::new();
    for file in files(&source) {
        let inside = file.strip_prefix(&source).expect("a file of src");
        let module =
            inside.iter().next().and_then(|first| first.to_str()).expect("a name in UTF-8").trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        for (line, to) in imports(&text) {
            if !is_allowed(module, &to) {
                upward.insert(format!("src/{}:{line}: {module} sees {to}", inside.display()));
            }
        }
    }
    let upward: Vec<String> = upward.into_iter().collect();
    assert!(upward.is_empty(), "imports that do not go downward:\n{}", upward.join("\n"));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let sources = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    sources.chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}

/// The first names after `crate::`, in `use` lines and in paths, with their lines; comments do not count.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, path) in code.match_indices("crate::") {
            let starts_a_path = !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            let rest = &code[at + path.len()..];
            if starts_a_path {
                found.extend(first_names(rest).into_iter().map(|name| (number + 1, name)));
            }
        }
    }
    found
}

/// `a::b` is `a`; `{a::b, c}` is `a` and `c`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim().chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut depth = 0;
    let parts = group.split(|next: char| {
        depth += i32::from(next == '{') - i32::from(next == '}');
        next == ',' && depth == 0
    });
    parts.map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn the_reader_of_imports_reads() {
    let text = "use crate::a::{b, c};\nuse crate::{d, e::{f, g}, h};\n// crate::no\nlet x = crate::i::j(); pub(crate) fn k() {}\n//! [`crate::no`]\n";
    let names: Vec<(usize, String)> = imports(text);
    let names: Vec<(usize, &str)> = names.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(names, [(1, "a"), (2, "d"), (2, "e"), (2, "h"), (4, "i")]);
}

#[test]
fn the_floors_hold() {
    assert!(is_allowed("shard", "mesh") && is_allowed("gateway", "control") && is_allowed("session", "limits"));
    for (from, to) in [
        ("shard", "control"),
        ("control", "shard"),
        ("policy", "backend"),
        ("backend", "policy"),
        ("fault", "protocol"),
        ("demo", "shard"),
    ] {
        assert!(!is_allowed(from, to), "{from} sees {to}");
    }
}
