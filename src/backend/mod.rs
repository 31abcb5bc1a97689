//! What can stand behind a route, as compiled facts: one file per kind. It describes; the shard does the talking.

pub mod http;
pub mod mcp;

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

/// Backends of one route with their weights.
#[derive(Clone, Debug, Default)]
pub struct Weighted {
    backends: Vec<(Backend, u32)>,
    total: u32,
}

impl Weighted {
    pub fn new(backends: Vec<(Backend, u32)>) -> Self {
        let total = backends.iter().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        Weighted { backends, total }
    }

    /// The backend for the `ticket`-th request, with its place: exact shares over any run of as many requests as the weights add up to,
    /// spread rather than in blocks. `None` without a backend of weight.
    pub fn pick(&self, ticket: u64) -> Option<(usize, &Backend)> {
        if let [(backend, weight)] = self.backends.as_slice() {
            return (*weight > 0).then_some((0, backend));
        }
        if self.total == 0 {
            return None;
        }
        // A stride that shares no divisor with the total visits every ticket once per round.
        let stride = (1..).map(|step| self.total / 2 + step).find(|&step| gcd(step, self.total) == 1)?;
        let mut place = ((ticket % u64::from(self.total)) * u64::from(stride) % u64::from(self.total)) as u32;
        for (index, (backend, weight)) in self.backends.iter().enumerate() {
            if place < *weight {
                return Some((index, backend));
            }
            place -= weight;
        }
        None
    }

    /// The backend at a place that [`Weighted::pick`] gave.
    pub fn get(&self, place: usize) -> Option<&Backend> {
        self.backends.get(place).map(|(backend, _)| backend)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().map(|(backend, _)| backend)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str) -> Backend {
        let endpoint = http::Endpoint { authority: name.into(), addresses: Arc::from([]) };
        Backend::Http(Arc::new(http::HttpBackend { endpoint, request: Vec::new(), response: Vec::new(), redirect: None }))
    }

    #[test]
    fn shares_are_exact_over_a_round() {
        for weights in [vec![1, 1], vec![9, 1], vec![3, 0, 2], vec![50, 30, 20], vec![1]] {
            let named: Vec<_> = weights.iter().enumerate().map(|(i, &w)| (backend(&i.to_string()), w)).collect();
            let weighted = Weighted::new(named);
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0; weights.len()];
            for ticket in 100..100 + u64::from(total) {
                counts[weighted.pick(ticket).unwrap().1.name().parse::<usize>().unwrap()] += 1;
            }
            assert_eq!(counts, weights);
        }
        assert!(Weighted::new(vec![(backend("a"), 0)]).pick(1).is_none());
        assert!(Weighted::default().pick(1).is_none());
    }
}
