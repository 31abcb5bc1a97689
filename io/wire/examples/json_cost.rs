//! Prints what the JSON walk costs, in nanoseconds per message, at each vector level that the processor has.
//! `cargo run --release -p agentlane-wire --example json_cost`

use std::hint::black_box;
use std::time::Instant;

use agentlane_wire::json::{
    Level, ListKind, ListMerger, Range32, ScanLimits, Splice, get_path, root, scan, scan_at, validate, validate_at,
};
use bytes::Bytes;

/// Rounds of a measurement; the fastest counts, as the others had company.
const ROUNDS: usize = 25;

fn main() {
    let unchecked = ScanLimits { validate_below: 0, ..ScanLimits::default() };
    let calls = [200, 2048, 64 * 1024].map(|size| ("text", size, text_call(size)));
    let nested = [2048, 64 * 1024].map(|size| ("nested", size, nested_call(size)));
    let escaped = [("escaped", 64 * 1024, escaped_call(64 * 1024))];
    println!("{:<34}{:>12}{:>12}{:>12}", "ns per message", "portable", "sse2", "avx2");
    for (shape, size, call) in calls.iter().chain(&nested).chain(&escaped) {
        assert!(scan(call, &ScanLimits::default()).is_ok() && validate(call, &unchecked).is_ok());
        row(&format!("scan {shape} {size}"), |level| ns(|| scan_at(level, black_box(call), &unchecked).is_ok()));
        row(&format!("validate {shape} {size}"), |level| {
            ns(|| validate_at(level, black_box(call), &unchecked).is_ok())
        });
        row(&format!("scan+validate {shape} {size}"), |level| {
            let all = ScanLimits { validate_below: u32::MAX, ..ScanLimits::default() };
            ns(|| scan_at(level, black_box(call), &all).is_ok())
        });
    }
    splices();
    merge();
}

fn row(label: &str, cost: impl Fn(Level) -> f64) {
    print!("{label:<34}");
    Level::available().for_each(|level| print!("{:>12.0}", cost(level)));
    println!();
}

/// What a message costs with its id and name replaced: copied, or cut into parts and let go again. Writing is not included.
fn splices() {
    println!("\n{:<34}{:>12}{:>12}", "ns per splice", "copied", "parts");
    for size in [200, 512, 1024, 2048, 4096, 8192, 16 * 1024, 64 * 1024] {
        let call = text_call(size);
        let Ok(envelope) = scan(&call, &ScanLimits::default()) else {
            continue;
        };
        let id = Bytes::from_static(b"\"a7\"");
        let edit = || {
            let mut splice = Splice::new();
            splice.replace_id(&envelope, id.clone());
            splice.replace_name(&envelope, "echo");
            splice
        };
        let copied = ns(|| edit().contiguous(black_box(&call)).is_ok());
        let parts = ns(|| edit().parts(black_box(&call)).is_ok());
        println!("{size:<34}{copied:>12.0}{parts:>12.0}");
    }
}

fn merge() {
    let pages = [page("alpha"), page("beta")];
    let at = |page: &Bytes| -> Option<Range32> { get_path(page, root(page).ok()?, &["result"]).ok()? };
    let results = [at(&pages[0]), at(&pages[1])].map(|range| range.expect("the page has a result"));
    let bytes = pages[0].len() + pages[1].len();
    let cost = ns(|| {
        let mut merger = ListMerger::new(ListKind::Tools, bytes + 4096);
        for (page, result) in pages.iter().zip(results) {
            assert!(merger.add_page(black_box(page), result, ListKind::Tools, "prefix_").is_ok());
        }
        merger.finish(None, &[]).len() > bytes / 2
    });
    println!("\nmerge of two lists of 50 tools, {bytes} bytes: {:.1} us", cost / 1000.0);
}

/// The fastest round's mean.
fn ns(work: impl Fn() -> bool) -> f64 {
    let mut repeats = 1u32;
    loop {
        let start = Instant::now();
        (0..repeats).for_each(|_| assert!(black_box(work())));
        if start.elapsed().as_micros() > 2000 {
            break;
        }
        repeats *= 2;
    }
    let round = |_| {
        let start = Instant::now();
        (0..repeats).for_each(|_| assert!(black_box(work())));
        start.elapsed().as_nanos() as f64 / f64::from(repeats)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn call(arguments: &str) -> Bytes {
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{{"name":"everything_echo","arguments":{arguments},"_meta":{{"progressToken":17}}}}}}"#
    );
    Bytes::from(text)
}

/// A tools/call of `size` bytes, most of it one plain string.
fn text_call(size: usize) -> Bytes {
    let prose = "the quick brown fox jumps over the lazy dog, ".repeat(size / 40 + 1);
    let frame = call(r#"{"message":""}"#).len();
    call(&format!(r#"{{"message":"{}"}}"#, &prose[..size - frame]))
}

/// A tools/call of about `size` bytes of small nested values.
fn nested_call(size: usize) -> Bytes {
    let row = r#"{"id":12345,"name":"row name","tags":["a","bc","def"],"geo":{"lat":51.5,"lon":-0.12},"ok":true},"#;
    let rows = row.repeat(size / row.len());
    call(&format!(r#"{{"rows":[{}]}}"#, rows.trim_end_matches(',')))
}

/// A tools/call of about `size` bytes whose string holds JSON as text.
fn escaped_call(size: usize) -> Bytes {
    let row = r#"{\"id\":12345,\"name\":\"row name\"},\n"#;
    call(&format!(r#"{{"message":"{}"}}"#, row.repeat(size / row.len())))
}

/// A tools/list answer of 50 tools of 1 KB.
fn page(server: &str) -> Bytes {
    let tool = |index: usize| {
        let prose = "Describes at some length what the tool does and when to call it. ".repeat(7);
        let properties: Vec<String> = (0..6)
            .map(|n| format!(r#""field_{n}":{{"type":"string","description":"what field {n} is for"}}"#))
            .collect();
        let schema = format!(r#"{{"type":"object","properties":{{{}}},"required":["field_0"]}}"#, properties.join(","));
        format!(r#"{{"name":"{server}_tool_{index}","description":"{prose}","inputSchema":{schema}}}"#)
    };
    let tools: Vec<String> = (0..50).map(tool).collect();
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{}]}}}}"#, tools.join(",")))
}
