//! The cache against a model that remembers everything, and the hints.

use super::*;

const BOUNDS: Bounds = Bounds { entries: 6, bytes: 1_000 };

/// Numbers that look random, the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn viewer(number: u64) -> Viewer {
    let headers = format!("POST / HTTP/1.1\r\nhost: a\r\nauthorization: {}\r\n\r\n", number / 2);
    let mut buffer = bytes::BytesMut::from(headers.as_bytes());
    let limits = agentlane_wire::h1::HeadLimits::default();
    let head = agentlane_wire::h1::parse_request(&mut buffer, &limits).unwrap().unwrap();
    Viewer { caller: Caller::of(&head.headers), abilities: number % 2 }
}

/// Everything that was ever inserted, newest last.
struct Inserted {
    of: u64,
    audience: Audience,
    viewer: Viewer,
    value: u64,
    bytes: usize,
    stamp: Stamp<u64>,
}

impl Inserted {
    fn is_same_place(&self, other: &Inserted) -> bool {
        self.of == other.of && self.audience == other.audience && self.audience.shares(&self.viewer, &other.viewer)
    }
}

/// What is held of all that was inserted: the last of each place, and of those the newest within the bounds.
fn held(all: &[Inserted]) -> Vec<&Inserted> {
    let mut held: Vec<&Inserted> = Vec::new();
    for one in all {
        held.retain(|other| !other.is_same_place(one));
        if one.bytes <= BOUNDS.bytes / 2 {
            held.push(one);
        }
        while held.len() > BOUNDS.entries || held.iter().map(|one| one.bytes).sum::<usize>() > BOUNDS.bytes {
            held.remove(0);
        }
    }
    held
}

#[test]
fn random_sequences_give_what_the_model_gives_and_nothing_of_another_identity() {
    let viewers: Vec<Viewer> = (0..6).map(viewer).collect();
    let mut hits = [0; 2];
    for seed in 1..60u64 {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut cache = Cache::new(BOUNDS);
        let mut all: Vec<Inserted> = Vec::new();
        let mut marks = [0u64; 3];
        let mut now = Instant::now();
        for value in 0..300 {
            let of = numbers.below(3);
            let who = viewers[numbers.below(6) as usize];
            let mark = marks[of as usize];
            match numbers.below(10) {
                0 => marks[of as usize] += 1,
                1 => now += Duration::from_millis(numbers.below(400)),
                2..6 => {
                    let audience = [Audience::Everybody, Audience::Alike, Audience::Own][numbers.below(3) as usize];
                    let fresh_until = now + Duration::from_millis(numbers.below(500));
                    let stale_until = now + Duration::from_millis(numbers.below(900));
                    // Some were begun before the last invalidation.
                    let mark = mark.saturating_sub(numbers.below(2));
                    let stamp = Stamp { made: now, mark, fresh_until, stale_until };
                    let bytes = numbers.below(600) as usize;
                    cache.insert(of, audience, &who, value, bytes, stamp);
                    all.push(Inserted { of, audience, viewer: who, value, bytes, stamp });
                    // Two entries of one moment would be equally young.
                    now += Duration::from_millis(1);
                }
                _ => {
                    let found = cache.find(&of, &who, mark, now);
                    assert_eq!(found, expected(&all, of, &who, mark, now), "seed {seed}, step {value}");
                    let Some(found) = found else { continue };
                    hits[usize::from(found.fresh_for.is_some())] += 1;
                    let origin = &all.iter().find(|one| one.value == found.value).unwrap();
                    let own = origin.viewer.caller == who.caller && origin.viewer.abilities == who.abilities;
                    assert!(own || origin.audience != Audience::Own, "seed {seed}: another's private entry");
                }
            }
            assert!(cache.len() <= BOUNDS.entries && cache.bytes() <= BOUNDS.bytes);
        }
    }
    assert!(hits.iter().all(|&hits| hits > 500), "the sequences hit fresh and stale entries: {hits:?}");
}

fn expected(all: &[Inserted], of: u64, who: &Viewer, mark: u64, now: Instant) -> Option<Found<u64, u64>> {
    let held = held(all);
    let mine = || held.iter().filter(|one| one.of == of && one.audience.shares(&one.viewer, who));
    let fresh = mine().filter(|one| one.stamp.mark >= mark && now < one.stamp.fresh_until);
    let found = |one: &&&Inserted, fresh_for| Found {
        value: one.value,
        audience: one.audience,
        mark: one.stamp.mark,
        fresh_for,
    };
    if let Some(one) = fresh.min_by_key(|one| one.audience) {
        return Some(found(&one, Some(one.stamp.fresh_until - now)));
    }
    let stale = mine().filter(|one| now < one.stamp.stale_until).max_by_key(|one| one.stamp.made);
    stale.map(|one| found(&one, None))
}

#[test]
fn what_is_too_large_is_not_taken_and_what_it_replaces_goes() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let stamp = Stamp { made: now, mark: 0, fresh_until: later, stale_until: later };
    let (me, mut cache) = (viewer(0), Cache::new(BOUNDS));
    cache.insert("a", Audience::Own, &me, 1, 10, stamp);
    cache.insert("a", Audience::Own, &me, 2, BOUNDS.bytes, stamp);
    assert_eq!(cache.find(&"a", &me, 0, now), None, "the older one would be a wrong answer");
    assert!(cache.is_empty() && cache.bytes() == 0);
}

#[test]
fn merged_hints_promise_no_more_than_any_part() {
    let hints = |ttl, public| Hints { ttl: Duration::from_millis(ttl), public };
    let cases: [(&[Hints], bool, bool, Hints); 8] = [
        (&[], false, false, hints(0, false)),
        (&[hints(50, true)], false, false, hints(50, true)),
        (&[hints(50, true), hints(20, true)], false, false, hints(20, true)),
        (&[hints(50, true), hints(90, false)], false, false, hints(50, false)),
        (&[hints(50, true), hints(0, true)], false, false, hints(0, true)),
        (&[hints(50, true)], true, false, hints(50, false)),
        (&[hints(50, true)], false, true, hints(0, true)),
        (&[hints(50, false)], true, true, hints(0, false)),
    ];
    for (parts, depends_on_caller, degraded, expected) in cases {
        assert_eq!(Hints::merged(parts.iter().copied(), depends_on_caller, degraded), expected, "{parts:?}");
    }
    assert_eq!(
        (hints(1_500, true).ttl_ms(), hints(0, true).scope(), hints(0, false).scope()),
        (1_500, "public", "private")
    );
    let second = Some(Duration::from_secs(1));
    assert!(!Hints::of(Audience::Alike, second).public, "it depends on what the client can do");
    assert_eq!(Hints::of(Audience::Everybody, None), hints(0, true));
}
