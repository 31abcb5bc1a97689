//! A bucket for each value of an expression. All shards share them: a stripe of the table is locked for the time of a look-up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentlane_expression::{Expression, Inputs, Value};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::bucket::{Bucket, Rate};
use crate::limits::RATE_KEYS_MAX;

/// Parts of a table that are locked each for itself.
const STRIPES: usize = 64;
/// Buckets of one part.
const STRIPE_MAX: usize = RATE_KEYS_MAX / STRIPES;

/// A value of the expression, as a digest: values are of any length, and not for anybody's eyes.
pub type Key = [u8; SHA256_OUTPUT_LEN];

/// The buckets of one limit.
#[derive(Debug)]
pub struct Keyed {
    expression: Arc<Expression>,
    stripes: Box<[Mutex<HashMap<Key, Entry>>]>,
}

#[derive(Debug)]
struct Entry {
    bucket: Bucket,
    asked: Instant,
}

impl Keyed {
    pub fn new(expression: Arc<Expression>) -> Self {
        Keyed { expression, stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }

    /// Whose bucket a request takes from. `None`: the expression fails or is null; such requests have one bucket together.
    pub fn key_of(&self, inputs: &dyn Inputs) -> Option<Key> {
        let value = match self.expression.evaluate(inputs) {
            Err(_) | Ok(Value::Null) => return None,
            Ok(value) => value,
        };
        // As JSON, in which a number is no text of the same digits.
        let text = value.to_json().to_string();
        digest(&SHA256, text.as_bytes()).as_ref().try_into().ok()
    }

    /// Takes one token; else how long it takes until there is one.
    pub fn take(&self, key: Key, rate: Rate, at: Instant) -> Result<(), Duration> {
        let mut stripe = self.stripe(&key);
        if let Some(entry) = stripe.get_mut(&key) {
            entry.asked = at;
            return entry.bucket.take(1, at);
        }
        if stripe.len() >= STRIPE_MAX {
            make_room(&mut stripe, at);
        }
        let entry = stripe.entry(key).or_insert(Entry { bucket: Bucket::new(rate, at), asked: at });
        entry.bucket.take(1, at)
    }

    /// Gives a token back that was not needed.
    pub fn give_back(&self, key: &Key) {
        if let Some(entry) = self.stripe(key).get(key) {
            entry.bucket.give_back();
        }
    }

    fn stripe(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Entry>> {
        let place = usize::from(key[0]) % STRIPES;
        self.stripes[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buckets that are full leave, which changes nothing for anybody; where there is none, the eighth that was asked longest ago.
fn make_room(stripe: &mut HashMap<Key, Entry>, at: Instant) {
    let before = stripe.len();
    stripe.retain(|_, entry| !entry.bucket.is_full(at));
    if stripe.len() < before {
        return;
    }
    let mut asked: Vec<Instant> = stripe.values().map(|entry| entry.asked).collect();
    let (_, &mut oldest, _) = asked.select_nth_unstable(before / 8);
    // Of those that were asked at the same moment as many as it takes.
    let mut leaving = before / 8 + 1;
    stripe.retain(|_, entry| {
        let leaves = leaving > 0 && entry.asked <= oldest;
        leaving -= usize::from(leaves);
        !leaves
    });
}

#[cfg(test)]
mod tests {
    use agentlane_expression::{Scope, Variable};

    use super::*;

    const RATE: Rate = Rate { burst: 2, per_fill: 2, interval: Duration::from_secs(1) };

    struct Path(Option<String>);

    impl Inputs for Path {
        fn value(&self, variable: Variable) -> Option<Value<'_>> {
            (variable == Variable::RequestPath).then_some(self.0.as_deref().map(Value::text)).flatten()
        }
    }

    fn keyed() -> Keyed {
        Keyed::new(Arc::new(Expression::compile("request.path", Scope::Http).unwrap()))
    }

    fn key(keyed: &Keyed, number: usize) -> Key {
        keyed.key_of(&Path(Some(number.to_string()))).unwrap()
    }

    fn held(keyed: &Keyed) -> usize {
        keyed.stripes.iter().map(|stripe| stripe.lock().unwrap().len()).sum()
    }

    #[test]
    fn each_value_has_a_bucket() {
        let (keyed, at) = (keyed(), Instant::now());
        for number in 0..10 {
            let passed = (0..5).filter(|_| keyed.take(key(&keyed, number), RATE, at).is_ok()).count();
            assert_eq!(passed, 2, "{number}");
        }
        keyed.give_back(&key(&keyed, 3));
        let passed = |number| (0..5).filter(|_| keyed.take(key(&keyed, number), RATE, at).is_ok()).count();
        assert_eq!((passed(3), passed(4)), (1, 0));
        assert_eq!(keyed.key_of(&Path(None)), None, "what fails has none");
    }

    #[test]
    fn the_table_is_bounded() {
        let (keyed, start) = (keyed(), Instant::now());
        // All at one moment, so that none is full again.
        for number in 0..2 * RATE_KEYS_MAX {
            assert_eq!(keyed.take(key(&keyed, number), RATE, start), Ok(()));
        }
        assert!((RATE_KEYS_MAX / 2..=RATE_KEYS_MAX).contains(&held(&keyed)), "{}", held(&keyed));
        // Those that were asked last are remembered.
        let later = start + Duration::from_millis(1);
        let own = key(&keyed, 3 * RATE_KEYS_MAX);
        assert!((0..2).all(|_| keyed.take(own, RATE, later).is_ok()));
        for number in 0..RATE_KEYS_MAX / 4 {
            let _ = keyed.take(key(&keyed, 4 * RATE_KEYS_MAX + number), RATE, start);
        }
        assert!(keyed.take(own, RATE, later).is_err());
        // Full ones leave first, all of them.
        let much_later = start + Duration::from_secs(10);
        for number in 0..RATE_KEYS_MAX / 2 {
            assert_eq!(keyed.take(key(&keyed, 8 * RATE_KEYS_MAX + number), RATE, much_later), Ok(()));
        }
        assert_eq!(held(&keyed), RATE_KEYS_MAX / 2);
    }
}
