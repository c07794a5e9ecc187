//! The machine and the annotation's plan in a world where everything comes in any order: steps that fail, captures that break, agents that
//! die, writes that are lost, done without an answer, or land when their writer is dead, and news that are late or come twice.
//!
//! The world is a model of the kernel and of the API; machine and plan are those that the agent runs on.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Event, Machine, Mark, State, Step};
use crate::kubernetes::{Plan, Word};

/// What the kernel has captured of the pod.
#[derive(Clone, Copy, Debug)]
struct Capture {
    cookie: u64,
    is_whole: bool,
    /// A connection has arrived since it was attached.
    was_proven: bool,
}

#[derive(Clone, Debug)]
enum Op {
    /// Somebody brings the pod, perhaps in another namespace.
    Bring {
        is_replaced: bool,
    },
    Await,
    Release,
    /// The step that is under way ends.
    Finish(bool),
    /// Something is said that nobody asked for.
    Stray(Event),
    /// Capture breaks.
    Break,
    /// The watch looks.
    Look,
    /// The watch mends, or tries to.
    Mend(bool),
    /// A write begins if one is due.
    Write,
    /// The oldest write arrives or is lost; its answer is lost or not.
    Arrive {
        is_done: bool,
        is_answered: bool,
    },
    /// The annotation's watch tells how the object was so many versions ago.
    Observe(usize),
    /// The agent dies, and another one starts.
    Die,
}

#[derive(Debug)]
struct World {
    machine: Machine,
    step: Step,
    place: u64,
    kernel: Option<Capture>,
    /// Whether the last order was to let the pod go, and nothing has been ordered since.
    is_released: bool,
    plan: Plan,
    /// What the annotation said in each version; the last is now.
    api: Vec<Option<Word>>,
    /// Writes under way; those of dead agents are not answered.
    writes: Vec<(Option<Word>, bool)>,
}

impl World {
    fn new() -> Self {
        Self {
            machine: Machine::default(),
            step: Step::Rest,
            place: 1,
            kernel: None,
            is_released: true,
            plan: Plan::new(None, 1),
            api: vec![None, None],
            writes: Vec::new(),
        }
    }

    fn version(&self) -> u64 {
        self.api.len() as u64 - 1
    }

    fn says(&self) -> Option<Word> {
        self.api.last().copied().flatten()
    }

    fn on(&mut self, event: Event) {
        let step = self.machine.on(event);
        // What is under way goes on; orders wait for the pod's place, and stray events change nothing.
        if step != Step::Rest {
            self.step = step;
        }
        self.plan.set(self.machine.mark());
    }

    fn apply(&mut self, op: &Op) {
        let is_busy = self.step != Step::Rest;
        match *op {
            // Whoever brings or releases a pod waits for its place.
            Op::Bring { is_replaced } if !is_busy => {
                self.place += u64::from(is_replaced);
                let adopted = self.kernel.is_some_and(|capture| capture.cookie == self.place);
                self.is_released = false;
                self.on(Event::Enrol { cookie: self.place, adopted });
            }
            Op::Await if !is_busy => self.on(Event::Await),
            Op::Release if !is_busy => {
                self.is_released = true;
                self.on(Event::Release);
            }
            Op::Finish(is_done) => self.finish(is_done),
            // What ends a step is said by who does the step; what is said besides it fits none.
            Op::Stray(event) if !is_busy => self.on(event),
            Op::Break => {
                if let Some(capture) = self.kernel.as_mut() {
                    capture.is_whole = false;
                }
            }
            Op::Look if !is_busy && self.kernel.is_some_and(|capture| !capture.is_whole) => {
                self.on(Event::Lost)
            }
            Op::Mend(is_done) if !is_busy && is_done && self.machine.state() == State::Degraded => {
                if let Some(capture) = self.kernel.as_mut() {
                    (capture.is_whole, capture.was_proven) = (true, true);
                    self.on(Event::Mended);
                }
            }
            Op::Write => self.begin_write(),
            Op::Arrive { is_done, is_answered } => self.arrive(is_done, is_answered),
            Op::Observe(ago) => {
                let version = self.api.len() - 1 - ago.min(self.api.len() - 1);
                self.plan.observe(self.api[version], version as u64);
            }
            Op::Die => self.die(),
            _ => {}
        }
    }

    /// The step under way, as the kernel has it.
    fn finish(&mut self, is_done: bool) {
        let event = match std::mem::replace(&mut self.step, Step::Rest) {
            Step::Rest => return,
            Step::Attach => {
                if is_done {
                    self.kernel = Some(Capture { cookie: self.place, is_whole: true, was_proven: false });
                }
                Event::Attached(is_done)
            }
            Step::Prove => {
                let capture = self.kernel.as_mut().unwrap();
                let arrives = is_done && capture.is_whole;
                capture.was_proven |= arrives;
                Event::Proven(arrives)
            }
            Step::Keep => Event::Kept(is_done),
            Step::Undo => {
                self.kernel = None;
                Event::Undone
            }
            Step::Withdraw => Event::Withdrawn,
            Step::Release => {
                if is_done {
                    self.kernel = None;
                }
                Event::Released(is_done)
            }
        };
        self.on(event);
    }

    fn begin_write(&mut self) {
        let Some(word) = self.plan.begin() else { return };
        if word == Some(Word::Enabled) {
            let capture = self.kernel.unwrap();
            assert_eq!(self.machine.state(), State::Enrolled);
            assert!(capture.was_proven && self.machine.holds() == Some(capture.cookie), "{self:?}");
        }
        self.writes.push((word, true));
    }

    fn arrive(&mut self, is_done: bool, is_answered: bool) {
        if self.writes.is_empty() {
            return;
        }
        let (word, is_mine) = self.writes.remove(0);
        if is_done {
            self.api.push(word);
        }
        match (is_mine, is_done && is_answered) {
            (true, true) => self.plan.written(self.version()),
            (true, false) => self.plan.failed(),
            (false, _) => {}
        }
    }

    fn die(&mut self) {
        self.machine = Machine::default();
        self.step = Step::Rest;
        self.writes.iter_mut().for_each(|write| write.1 = false);
        self.plan = Plan::new(self.says(), self.version());
        // A pod without a record is awaited if it is wanted. If it is not, it is as good as out, which says even less of it.
        self.on(self.kernel.map_or(Event::Await, |capture| Event::Adopt { cookie: capture.cookie }));
    }

    /// What holds always.
    fn check(&self) {
        let held = self.machine.holds();
        if self.machine.state() == State::Absent {
            assert!(held.is_none() && self.kernel.is_none(), "captured, and nobody knows: {self:?}");
        }
        if let Some(capture) = self.kernel.filter(|_| self.step != Step::Undo) {
            assert_eq!(held, Some(capture.cookie), "{self:?}");
        }
        if self.machine.state() == State::Enrolled {
            assert!(self.kernel.is_some_and(|capture| capture.was_proven), "{self:?}");
        }
        let is_known = self.plan.is_settled() && self.writes.is_empty() && self.plan.knows(self.version());
        if is_known && self.says() == Some(Word::Enabled) {
            assert!(matches!(self.machine.mark(), Mark::Enabled | Mark::Leave), "{self:?}");
        }
    }

    /// Everything that is under way ends well.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.finish(true);
            while !self.writes.is_empty() {
                self.arrive(true, true);
            }
            self.plan.observe(self.says(), self.version());
            self.begin_write();
            self.check();
        }
        assert!(self.step == Step::Rest && self.writes.is_empty());
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<bool>().prop_map(|is_replaced| Op::Bring { is_replaced }),
        1 => Just(Op::Await),
        2 => Just(Op::Release),
        12 => prop::bool::weighted(0.8).prop_map(Op::Finish),
        2 => stray().prop_map(Op::Stray),
        1 => Just(Op::Break),
        2 => Just(Op::Look),
        2 => any::<bool>().prop_map(Op::Mend),
        6 => Just(Op::Write),
        6 => (prop::bool::weighted(0.8), prop::bool::weighted(0.8))
            .prop_map(|(is_done, is_answered)| Op::Arrive { is_done, is_answered }),
        4 => (0usize..4).prop_map(Op::Observe),
        1 => Just(Op::Die),
    ]
}

/// What may be said twice or late, of a pod that nobody is at work on.
fn stray() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<bool>().prop_map(Event::Attached),
        any::<bool>().prop_map(Event::Proven),
        any::<bool>().prop_map(Event::Kept),
        Just(Event::Undone),
        Just(Event::Await),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_annotation_follows_proven_capture_and_nothing_is_left(ops in vec(op(), 1..120)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            world.check();
        }
        world.settle();
        // However it came to be as it is, it can be brought in, ...
        world.apply(&Op::Bring { is_replaced: false });
        world.settle();
        prop_assert_eq!(world.machine.state(), State::Enrolled);
        prop_assert!(world.kernel.is_some_and(|capture| capture.cookie == world.place));
        prop_assert_eq!(world.says(), Some(Word::Enabled));
        // ... and out, and then nothing is left.
        world.apply(&Op::Release);
        world.settle();
        prop_assert_eq!(world.machine.state(), State::Absent);
        prop_assert!(world.kernel.is_none() && world.is_released);
        prop_assert_eq!(world.says(), None);
    }
}
