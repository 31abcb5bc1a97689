//! The source against a model of its surroundings: every short sequence of what may happen, long random ones, and the
//! rules that have a time in them one by one.

use super::super::filter::{Change, Filter, List, Lists, Uri};
use super::*;

const GRANTED: Lists = Lists::one(List::Tools);

fn filter(lists: Lists, uris: &[&str]) -> Filter {
    Filter { lists, uris: uris.iter().map(|&uri| Uri::from(uri)).collect() }
}

fn resource(uri: &str) -> Change {
    Change::Resource(Uri::from(uri))
}

/// A target that grants changes of its tools and of every resource but `no`, and the listeners as they see it.
#[derive(Clone)]
struct World {
    now: Instant,
    source: Source,
    /// Asked for and not answered.
    asked: Vec<(StreamId, Filter)>,
    /// Acknowledged and neither closed nor broken.
    open: Vec<(StreamId, Filter)>,
    listeners: BTreeMap<ListenerId, Filter>,
    /// Changes that a listener was granted and has not been told.
    due: BTreeSet<(ListenerId, Change)>,
    finished: bool,
    opened: usize,
}

/// What may happen, in short.
#[derive(Clone, Copy, Debug)]
enum Step {
    First,
    Second,
    Widen,
    Acknowledge,
    Fail,
    Break,
    Tools,
    Resource,
    Moment,
    While,
}

const STEPS: [Step; 10] = [
    Step::First,
    Step::Second,
    Step::Widen,
    Step::Acknowledge,
    Step::Fail,
    Step::Break,
    Step::Tools,
    Step::Resource,
    Step::Moment,
    Step::While,
];

impl World {
    fn new() -> Self {
        World {
            now: Instant::now(),
            source: Source::default(),
            asked: Vec::new(),
            open: Vec::new(),
            listeners: BTreeMap::new(),
            due: BTreeSet::new(),
            finished: false,
            opened: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::First => self.come_or_go(1, filter(Lists::ALL, &["a", "no"])),
            Step::Second => self.come_or_go(2, filter(Lists::one(List::Prompts), &["a"])),
            Step::Widen => {
                let Some(wants) = self.listeners.get_mut(&1) else { return };
                match wants.uris.remove("b") {
                    true => {
                        self.due.remove(&(1, resource("b")));
                        assert!(self.source.narrow(self.now, 1, "b"));
                    }
                    false => {
                        wants.uris.insert(Uri::from("b"));
                        self.source.widen(self.now, 1, Uri::from("b"));
                    }
                }
            }
            Step::Acknowledge if !self.asked.is_empty() => {
                let (stream, asked) = self.asked.remove(0);
                let granted = Filter {
                    lists: asked.lists.and(GRANTED),
                    uris: asked.uris.iter().filter(|uri| ***uri != *"no").cloned().collect(),
                };
                self.open.push((stream, granted.clone()));
                self.source.opened(self.now, stream, &granted, Lists::ALL);
            }
            Step::Fail if !self.asked.is_empty() => {
                let (stream, _) = self.asked.remove(0);
                self.source.broke(self.now, stream, None);
            }
            Step::Break if !self.open.is_empty() => {
                let (stream, _) = self.open.remove(0);
                self.source.broke(self.now, stream, None);
            }
            Step::Tools => self.change(&Change::List(List::Tools)),
            Step::Resource => self.change(&resource("a")),
            Step::Moment => self.pass(OVERLAP),
            Step::While => self.pass(SHRINK_AFTER + Duration::from_secs(1)),
            Step::Acknowledge | Step::Fail | Step::Break => {}
        }
        self.obey();
    }

    fn come_or_go(&mut self, listener: ListenerId, wants: Filter) {
        if self.listeners.remove(&listener).is_some() {
            self.due.retain(|(id, _)| *id != listener);
            self.source.leave(self.now, listener);
        } else {
            self.listeners.insert(listener, wants.clone());
            self.source.join(self.now, listener, wants);
        }
    }

    fn has(&self, listener: ListenerId, change: &Change) -> bool {
        match change {
            Change::List(list) => self.source.granted_lists(listener).has(*list),
            Change::Resource(uri) => self.source.standing(listener, uri) == Standing::Granted,
        }
    }

    fn change(&mut self, change: &Change) {
        for &listener in self.listeners.keys() {
            if self.has(listener, change) {
                self.due.insert((listener, change.clone()));
            }
        }
        let hearing = self.open.iter().filter(|(_, granted)| match change {
            Change::List(list) => granted.lists.has(*list),
            Change::Resource(uri) => granted.uris.contains(uri),
        });
        let hearing: Vec<StreamId> = hearing.map(|(stream, _)| *stream).collect();
        for stream in hearing {
            self.source.heard(self.now, stream, change.clone());
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.source.tick(self.now);
    }

    /// Does what the source says, and holds it to its rules.
    fn obey(&mut self) {
        for command in self.source.commands() {
            match command {
                Command::Open { stream, filter } => {
                    assert!(!filter.is_empty(), "a stream for nothing");
                    self.asked.push((stream, filter));
                    self.opened += 1;
                }
                Command::Close { stream } => {
                    let before = self.asked.len() + self.open.len();
                    self.asked.retain(|(id, _)| *id != stream);
                    self.open.retain(|(id, _)| *id != stream);
                    assert_eq!(self.asked.len() + self.open.len() + 1, before, "closed what is not there");
                }
                Command::Deliver { listener, change } => {
                    assert!(self.has(listener, &change), "{change:?} without a grant");
                    self.due.remove(&(listener, change));
                }
                Command::End { .. } => panic!("this target keeps what it grants"),
                Command::Settled { .. } => {}
                Command::Finished => self.finished = true,
            }
            self.finished &= self.listeners.is_empty();
        }
        assert!(self.asked.len() <= 1 && self.asked.len() + self.open.len() <= 2, "too many streams");
        assert!(self.source.wake_at().is_none_or(|at| at > self.now), "a wake-up that is due already");
    }

    /// Lets everything come to rest, with a target that works.
    fn rest(&mut self) {
        for _ in 0..100 {
            while !self.asked.is_empty() {
                self.step(Step::Acknowledge);
            }
            let Some(at) = self.source.wake_at() else { return };
            self.now = at;
            self.source.tick(at);
            self.obey();
        }
        panic!("no rest");
    }

    /// What must hold when nothing happens any more.
    fn check(mut self, path: &[Step]) {
        self.rest();
        assert!(self.due.is_empty(), "never told: {:?} after {path:?}", self.due);
        for (&listener, wants) in &self.listeners {
            assert_eq!(self.source.waits(listener), Waits::No, "{path:?}");
            assert_eq!(self.source.granted_lists(listener), wants.lists.and(GRANTED), "{path:?}");
            for uri in &wants.uris {
                let expected = if **uri == *"no" { Standing::Refused } else { Standing::Granted };
                assert_eq!(self.source.standing(listener, uri), expected, "{uri} after {path:?}");
            }
        }
        let wanted: BTreeSet<Uri> = self.listeners.values().flat_map(|wants| wants.uris.clone()).collect();
        let wanted: BTreeSet<Uri> = wanted.into_iter().filter(|uri| **uri != *"no").collect();
        let streams: Vec<&Filter> = self.open.iter().map(|(_, granted)| granted).collect();
        match wanted.is_empty() {
            true => {
                assert!(streams.is_empty(), "{streams:?} after {path:?}");
                assert!(path.is_empty() || self.finished || self.opened == 0, "{path:?}");
            }
            false => assert_eq!(streams.iter().map(|at| &at.uris).collect::<Vec<_>>(), [&wanted], "{path:?}"),
        }
    }

    fn every_path(&self, depth: usize, path: &mut Vec<Step>) {
        self.clone().check(path);
        if depth == 0 {
            return;
        }
        for step in STEPS {
            let mut next = self.clone();
            path.push(step);
            next.step(step);
            next.every_path(depth - 1, path);
            path.pop();
        }
    }
}

#[test]
fn every_short_sequence_comes_to_rest_with_everybody_told() {
    World::new().every_path(5, &mut Vec::new());
}

#[test]
fn every_sequence_that_follows_on_two_settled_listeners() {
    let mut world = World::new();
    for step in [Step::First, Step::Acknowledge, Step::Second, Step::Moment] {
        world.step(step);
    }
    world.rest();
    world.every_path(4, &mut vec![Step::First]);
}

#[test]
fn long_random_sequences_come_to_rest_with_everybody_told() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2_000 {
        let mut world = World::new();
        let mut path = Vec::new();
        for _ in 0..60 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let step = STEPS[(state >> 33) as usize % STEPS.len()];
            path.push(step);
            world.step(step);
        }
        world.check(&path);
    }
}

/// A source with one listener that has its tools and `a`.
fn settled() -> World {
    let mut world = World::new();
    world.step(Step::First);
    world.step(Step::Acknowledge);
    world
}

fn delivered(world: &mut World) -> Vec<(ListenerId, Change)> {
    let commands = world.source.commands().into_iter();
    let told = commands.filter_map(|command| match command {
        Command::Deliver { listener, change } => Some((listener, change)),
        Command::Open { stream, filter } => {
            world.asked.push((stream, filter));
            None
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn what_comes_on_both_streams_of_a_handover_is_told_once() {
    let mut world = settled();
    world.step(Step::Widen);
    let (old, new) = (1, 2);
    let tools = Change::List(List::Tools);
    world.source.heard(world.now, old, tools.clone());
    assert_eq!(delivered(&mut world), [], "held while the new one opens");
    world.source.opened(world.now, new, &filter(GRANTED, &["a", "b"]), Lists::ALL);
    world.source.heard(world.now, new, tools.clone());
    world.source.heard(world.now, old, tools.clone());
    world.source.heard(world.now, old, resource("a"));
    assert_eq!(delivered(&mut world), []);
    world.now += OVERLAP;
    world.source.tick(world.now);
    assert_eq!(delivered(&mut world), [(1, tools.clone()), (1, resource("a"))]);
    world.source.heard(world.now, old, tools.clone());
    assert_eq!(delivered(&mut world), [], "the old one is closed");
    world.source.heard(world.now, new, tools.clone());
    assert_eq!(delivered(&mut world), [(1, tools)]);
}

#[test]
fn a_target_that_stays_silent_while_a_new_stream_opens_holds_nothing_back_for_long() {
    let mut world = settled();
    world.step(Step::Widen);
    world.source.heard(world.now, 1, resource("a"));
    world.now += HOLD_MAX;
    world.source.tick(world.now);
    assert_eq!(delivered(&mut world), [(1, resource("a"))]);
    world.source.heard(world.now, 1, resource("a"));
    assert_eq!(delivered(&mut world), [(1, resource("a"))]);
}

#[test]
fn a_stream_that_broke_is_opened_again_and_everything_counts_as_changed() {
    let mut world = settled();
    world.now += STEADY;
    world.source.broke(world.now, 1, None);
    assert_eq!(world.source.wake_at(), Some(world.now + PAUSE_MIN));
    world.now += PAUSE_MIN;
    world.source.tick(world.now);
    assert_eq!(delivered(&mut world), []);
    world.source.opened(world.now, 2, &filter(GRANTED, &["a"]), Lists::ALL);
    assert_eq!(delivered(&mut world), [(1, Change::List(List::Tools)), (1, resource("a"))]);
}

#[test]
fn pauses_grow_while_a_target_fails_and_what_it_asks_for_counts() {
    let mut world = World::new();
    world.step(Step::First);
    let mut pause = PAUSE_MIN;
    for stream in 1..12 {
        assert_eq!(world.source.waits(1), if stream == 1 { Waits::Yes } else { Waits::Down });
        world.source.broke(world.now, stream, None);
        assert_eq!(world.source.wake_at(), Some(world.now + pause), "after {stream} failures");
        world.now += pause;
        world.source.tick(world.now);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    let asked = Duration::from_secs(7);
    let mut world = settled();
    world.source.broke(world.now, 1, Some(asked));
    assert_eq!(world.source.wake_at(), Some(world.now + asked));
}

#[test]
fn a_target_that_came_late_says_that_its_lists_are_there() {
    let mut world = World::new();
    world.step(Step::First);
    world.step(Step::Fail);
    world.now += PAUSE_MIN;
    world.source.tick(world.now);
    assert_eq!(delivered(&mut world), []);
    world.source.opened(world.now, 2, &filter(GRANTED, &["a"]), Lists::ALL);
    assert_eq!(delivered(&mut world), [(1, Change::List(List::Tools))]);
}

#[test]
fn a_silent_target_grants_nothing_and_is_not_asked_again_and_again() {
    let mut world = World::new();
    world.step(Step::First);
    world.source.unheard(world.now, 1, Unheard { offers: GRANTED, mute: false });
    assert_eq!((world.source.waits(1), world.source.granted_lists(1)), (Waits::No, Lists::NONE));
    assert_eq!(world.source.offers(), GRANTED);
    assert_eq!(world.source.standing(1, "a"), Standing::Refused);
    assert_eq!(world.source.wake_at(), None);
    world.source.commands();
    world.source.join(world.now, 2, filter(Lists::ALL, &["a"]));
    assert_eq!(world.source.waits(2), Waits::No);
    assert_eq!(world.source.commands(), [Command::Settled { listener: 2 }]);
    // Later it is asked once more, for whoever comes then.
    world.source.join(world.now + REFUSED_FOR, 3, filter(Lists::ALL, &[]));
    assert!(matches!(world.source.commands()[..], [Command::Open { stream: 2, .. }]));
}

#[test]
fn a_grant_that_cannot_be_kept_ends_its_listener() {
    let mut world = settled();
    world.step(Step::Second);
    world.step(Step::Acknowledge);
    world.rest();
    let stream = world.open[0].0;
    world.source.broke(world.now, stream, None);
    world.now += PAUSE_MIN;
    world.source.tick(world.now);
    world.source.commands();
    // It comes back without tools.
    world.source.opened(world.now, stream + 1, &filter(Lists::NONE, &["a"]), Lists::NONE);
    let commands = world.source.commands();
    assert!(commands.contains(&Command::End { listener: 1 }), "{commands:?}");
    assert!(commands.contains(&deliver(2, resource("a"))), "the other one stays: {commands:?}");
    assert!(!commands.contains(&Command::End { listener: 2 }), "{commands:?}");
}

#[test]
fn a_part_of_a_resource_reaches_those_who_have_the_whole() {
    let mut world = World::new();
    world.source.join(world.now, 1, filter(Lists::NONE, &["file:///a", "file:///b"]));
    world.source.join(world.now, 2, filter(Lists::NONE, &["file:///a/x"]));
    world.source.opened(world.now, 1, &filter(Lists::NONE, &["file:///a", "file:///b"]), Lists::NONE);
    world.source.opened(world.now, 2, &filter(Lists::NONE, &["file:///a", "file:///b", "file:///a/x"]), Lists::NONE);
    world.now += OVERLAP;
    world.source.tick(world.now);
    world.source.commands();
    for (uri, expected) in [
        ("file:///a", vec![1]),
        ("file:///a/x", vec![2]),
        ("file:///a/y", vec![1]),
        ("memo:only-the-target-knows", vec![1, 2]),
    ] {
        world.source.heard(world.now, 2, resource(uri));
        let told: Vec<ListenerId> = delivered(&mut world).into_iter().map(|(listener, _)| listener).collect();
        assert_eq!(told, expected, "{uri}");
    }
}

#[test]
fn the_stream_outlives_its_last_listener_for_a_while() {
    let mut world = settled();
    world.step(Step::First);
    assert_eq!(world.source.wake_at(), Some(world.now + LINGER));
    world.step(Step::First);
    assert_eq!(world.source.waits(1), Waits::No, "the stream is still there");
    assert_eq!(world.opened, 1);
    world.step(Step::First);
    world.pass(LINGER);
    assert_eq!(world.source.commands(), [Command::Close { stream: 1 }, Command::Finished]);
}

#[test]
fn more_resources_than_may_be_are_refused_at_once() {
    let mut world = World::new();
    world.source.join(world.now, 1, Filter::default());
    for number in 0..=SOURCE_URIS_MAX {
        world.source.widen(world.now, 1, Uri::from(format!("memo:{number}")));
    }
    assert_eq!(world.source.standing(1, &format!("memo:{SOURCE_URIS_MAX}")), Standing::Refused);
    assert_eq!(world.source.standing(1, "memo:0"), Standing::Waiting);
}
