//! What can stand behind a route, as compiled facts: one file per kind. It describes; the shard does the talking.

pub mod health;
pub mod http;
pub mod lock;
pub mod mcp;
pub mod retry;

use std::sync::Arc;

/// One backend of a route.
#[derive(Clone, Debug)]
pub enum Backend {
    Http(Arc<http::HttpBackend>),
    Mcp(Arc<mcp::McpBackend>),
}

impl Backend {
    /// Its name in metrics and records.
    pub fn name(&self) -> &str {
        match self {
            Backend::Http(http) => &http.endpoint.authority,
            Backend::Mcp(mcp) => &mcp.key,
        }
    }
}

/// The choices of one route with their weights.
#[derive(Clone, Debug)]
pub struct Weighted<T> {
    choices: Vec<(T, u32)>,
    total: u32,
}

impl<T> Weighted<T> {
    pub fn new(choices: Vec<(T, u32)>) -> Self {
        let total = choices.iter().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        Weighted { choices, total }
    }

    /// The choice for the `ticket`-th request, with its place: exact shares over any run of as many requests as the weights add up to,
    /// spread rather than in blocks. `None` without a choice of weight.
    pub fn pick(&self, ticket: u64) -> Option<(usize, &T)> {
        if let [(choice, weight)] = self.choices.as_slice() {
            return (*weight > 0).then_some((0, choice));
        }
        if self.total == 0 {
            return None;
        }
        // A stride that shares no divisor with the total visits every ticket once per round.
        let stride = (1..).map(|step| self.total / 2 + step).find(|&step| gcd(step, self.total) == 1)?;
        let mut place = ((ticket % u64::from(self.total)) * u64::from(stride) % u64::from(self.total)) as u32;
        for (index, (choice, weight)) in self.choices.iter().enumerate() {
            if place < *weight {
                return Some((index, choice));
            }
            place -= weight;
        }
        None
    }

    /// The choice at a place that [`Weighted::pick`] gave.
    pub fn get(&self, place: usize) -> Option<&T> {
        self.choices.get(place).map(|(choice, _)| choice)
    }

    /// The other choices that have a weight, from the one after a place on.
    pub fn others(&self, place: usize) -> impl Iterator<Item = (usize, &T)> {
        let count = self.choices.len();
        let others = (1..count).map(move |step| (place + step) % count);
        others.filter(|&other| self.choices[other].1 > 0).map(|other| (other, &self.choices[other].0))
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.choices.iter().map(|(choice, _)| choice)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_over_a_round() {
        for weights in [vec![1, 1], vec![9, 1], vec![3, 0, 2], vec![50, 30, 20], vec![1]] {
            let weighted = Weighted::new(weights.iter().copied().enumerate().collect());
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0; weights.len()];
            for ticket in 100..100 + u64::from(total) {
                let (place, choice) = weighted.pick(ticket).unwrap();
                assert_eq!(weighted.get(place), Some(choice));
                counts[*choice] += 1;
            }
            assert_eq!(counts, weights);
        }
        assert!(Weighted::new(vec![("a", 0)]).pick(1).is_none());
        assert!(Weighted::<()>::new(Vec::new()).pick(1).is_none());
    }
}
