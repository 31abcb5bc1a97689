//! Limits of what clients may ask for and of what is asked of backends: how often, how much at once, how again. Must not
//! know where they are enforced.

use std::sync::Arc;
use std::time::Duration;

use agentlane_expression::{Expression, Scope};
use serde_json::{Value as Json, json};

use crate::context::{Context, Table};
use crate::fault::FaultKind;
use crate::form::{Form, record, words};
use crate::rules;
use crate::scalar::Int;
use crate::schema::Definitions;
use crate::tree::{Node, Value};

/// Most tokens of a rate limit: with the shortest interval they can be counted for ten years.
const TOKENS_MAX: u64 = 100_000_000;
/// The shortest time between two fills: the clock is no finer.
const FILL_INTERVAL_MIN: Duration = Duration::from_millis(10);

record! {
    /// A token bucket: each request takes a token, and is answered 429 when there is none. It holds for all shards together.
    pub struct RateLimit {
        /// Most tokens that gather, and how many there are at first.
        pub max_tokens: u64 = must "maxTokens" as Int<u64, 1, TOKENS_MAX>;
        /// Tokens that each fill adds.
        pub tokens_per_fill: u64 = must "tokensPerFill" as Int<u64, 1, TOKENS_MAX>;
        /// The time between two fills, at least 10ms.
        pub fill_interval: Duration = must "fillInterval";
        /// What is counted. Default: requests.
        pub unit: RateUnit = or(RateUnit::Requests) "type";
        /// An expression over the request and who sent it: each of its values has a bucket of its own. Requests for which
        /// it has no value share one bucket of the same size. Default: one bucket for all. This key is agentlane's own.
        pub key: Option<RateKey> = opt "key";
    }
    check fills_often_enough;
}

words! {
    /// What a rate limit counts.
    pub enum RateUnit {
        /// Each request is one.
        Requests = "requests",
    }
    later "tokens";
}

/// What tells the buckets of a limit apart.
#[derive(Debug, Clone)]
pub struct RateKey(pub Arc<Expression>);

impl PartialEq for RateKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.text() == other.0.text()
    }
}

impl Form for RateKey {
    type Out = RateKey;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<RateKey> {
        rules::expression(node, cx, Scope::Http).map(RateKey)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

fn fills_often_enough(limit: &RateLimit, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let fits = limit.fill_interval >= FILL_INTERVAL_MIN;
    if !fits {
        let mark = table.entry(&["fillInterval"]).map_or(table.mark, |entry| entry.node.mark);
        let message = "expected at least 10ms".to_owned();
        cx.at_key("fillInterval", |cx| cx.fault_at(mark, FaultKind::Invalid, message));
    }
    fits
}

record! {
    /// How many requests may be under way at once, over all shards together. One above it is answered 503.
    pub struct ConcurrencyLimit {
        /// So many.
        pub max_requests: u32 = must "maxRequests" as Int<u32, 1, 1_000_000>;
    }
}

record! {
    /// Sends a request again that failed, or whose answer is no answer: when nothing of it was sent, or when its method is
    /// idempotent (GET, HEAD, OPTIONS, PUT, DELETE, TRACE) and its body came with its head. Of MCP messages those that only
    /// read; a tool call when nothing of it was sent.
    pub struct Retry {
        /// How often it is sent in all. Default: 1, which is no retry.
        pub attempts: u8 = or(1) "attempts" as Int<u8, 1, 255>;
        /// The pause before it is sent again. Default: none.
        pub backoff: Option<Duration> = opt "backoff";
        /// Statuses of answers that are asked for again. A connection that fails always is.
        pub codes: Vec<u16> = must "codes" as Vec<Int<u16, 100, 599>>;
        /// Retries for a hundred requests, beside ten at once and one a second. Default: 20.
        pub budget_percent: u32 = or(20) "budgetPercent" as Int<u32, 0, 1000>;
    }
    later "precondition", "condition";
}

record! {
    /// Watches how the addresses of a backend fare. A connection that fails, no answer in time and a status of 500 or more
    /// are failures.
    pub struct Health {
        /// Lets an address rest that keeps failing. Each shard judges by what it sees itself.
        pub eviction: Eviction = or(Eviction::default()) "eviction";
    }
    later "unhealthyExpression";
}

record! {
    /// When an address rests and for how long. After its rest one request tries it; if that fails, the next rest is longer, up
    /// to ten times. With all addresses at rest requests are answered 503 at once.
    pub struct Eviction {
        /// The first rest. Default: 30s.
        pub duration: Duration = or(Eviction::default().duration) "duration";
        /// Failures in a row that evict an address. Default: 5.
        pub consecutive_failures: u32 = or(Eviction::default().consecutive_failures) "consecutiveFailures" as Int<u32, 1, 1_000_000>;
        /// How many of a host's addresses may rest at once, in hundredths. Default: 100.
        pub max_percent: u8 = or(Eviction::default().max_percent) "maxPercent" as Int<u8, 1, 100>;
    }
    later "restoreHealth", "healthThreshold";
}

impl Default for Eviction {
    fn default() -> Self {
        Self { duration: Duration::from_secs(30), consecutive_failures: 5, max_percent: 100 }
    }
}

/// A list of limits, every one of which must hold. The vocabulary also has a mapping with conditions.
pub(crate) struct RateLimits;

impl Form for RateLimits {
    type Out = Vec<RateLimit>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Vec<RateLimit>> {
        if let Value::Mapping(entries) = &node.value
            && let Some(entry) = entries.iter().find(|entry| entry.key == "conditional")
        {
            cx.at_key("conditional", |cx| {
                let place = cx.place(entry.mark);
                cx.not_built(place, "", "left out");
            });
            return None;
        }
        Vec::<RateLimit>::decode(node, cx)
    }

    fn schema(defs: &mut Definitions) -> Json {
        json!({"type": "array", "items": RateLimit::schema(defs)})
    }

    fn absent() -> Option<Vec<RateLimit>> {
        Some(Vec::new())
    }
}
