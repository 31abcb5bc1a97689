//! Limits of what clients may ask for and of what is asked of backends: how often, how much at once, how again. Must not
//! know where they are enforced.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::context::{Context, Table};
use crate::fault::FaultKind;
use crate::form::{Form, record, words};
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

fn fills_often_enough(limit: &RateLimit, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let fits = limit.fill_interval >= FILL_INTERVAL_MIN;
    if !fits {
        let mark = table.entry(&["fillInterval"]).map_or(table.mark, |entry| entry.node.mark);
        let message = "expected at least 10ms".to_owned();
        cx.at_key("fillInterval", |cx| cx.fault_at(mark, FaultKind::Invalid, message));
    }
    fits
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
