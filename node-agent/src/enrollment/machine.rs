//! The life of one pod, as far as capture goes: what is to be done next, and what may be said of the pod meanwhile.
//!
//! A pure function of events, without I/O and without a clock: [`super::Enroller`] does each [`Step`] and reports what came of it, and a
//! model test feeds it everything in any order. An event that does not fit the state, because it comes late or twice, changes nothing.
//!
//! Invariants. [`Mark::Enabled`] is the word for a pod in [`State::Enrolled`] alone, which is reached by a proof of the capture that is in
//! place. What is held of a pod is let go by a release or an undoing and by nothing else; a failure leaves what was held before it. A pod in
//! [`State::Absent`] holds nothing.

#[cfg(test)]
mod model;

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is known of it, and nothing held.
    #[default]
    Absent,
    /// It is to be in the mesh; nobody is at work on it.
    Pending,
    /// It is being captured, and that is to be proven.
    Capturing,
    /// Its capture is proven, and is being put in its place.
    Verified,
    /// It is captured and served, and that is proven.
    Enrolled,
    /// It was enrolled, and something of its capture is lost.
    Degraded,
    /// Its capture is being ended.
    Releasing,
}

/// What happens to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is wanted, and nobody has said where it is, or why it cannot be captured.
    Await,
    /// An agent before this one has captured it in the network namespace with this cookie, and nobody serves it there.
    Adopt {
        /// The kernel's number of the namespace.
        cookie: u64,
    },
    /// It is to be captured in the network namespace with this cookie.
    Enrol {
        /// The kernel's number of the namespace.
        cookie: u64,
        /// Whether another agent, of this process's life or before, has captured it there.
        adopted: bool,
    },
    /// It is to be let go.
    Release,
    /// [`Step::Attach`] is done, or has failed and left what was there before.
    Attached(bool),
    /// [`Step::Prove`] is done, or a connection has not arrived.
    Proven(bool),
    /// [`Step::Keep`] is done, or has failed.
    Kept(bool),
    /// [`Step::Undo`] is done as far as it can be.
    Undone,
    /// [`Step::Withdraw`] is done, or has been waited for long enough.
    Withdrawn,
    /// [`Step::Release`] is done, or has failed and left the pod captured.
    Released(bool),
    /// A part of its capture is lost, or a connection of it has not arrived.
    Lost,
    /// Its capture is whole again, and proven.
    Mended,
}

/// What is to be done next; what came of it is the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until something happens.
    Rest,
    /// Attach capture in the namespace, in the place of what is held there.
    Attach,
    /// Prove it by a connection.
    Prove,
    /// Write down that it is there, and serve by it.
    Keep,
    /// Take back what was attached, and what was written down.
    Undo,
    /// Have the annotation taken back.
    Withdraw,
    /// End capture.
    Release,
}

impl Step {
    /// The event that says what came of it.
    pub(crate) fn report(self, is_done: bool) -> Event {
        match self {
            Self::Rest => Event::Await,
            Self::Attach => Event::Attached(is_done),
            Self::Prove => Event::Proven(is_done),
            Self::Keep => Event::Kept(is_done),
            Self::Undo => Event::Undone,
            Self::Withdraw => Event::Withdrawn,
            Self::Release => Event::Released(is_done),
        }
    }
}

/// What the pod's annotation may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Whatever it says: what it was written for is still in place, and is being looked at.
    Leave,
    /// That the pod is captured.
    Enabled,
    /// That it is to be.
    Pending,
    /// Anything but that it is captured.
    NotEnabled,
    /// Nothing.
    Absent,
}

/// A capture in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    cookie: u64,
    /// Whether a connection has arrived by it since it was attached, and nothing of it was lost since.
    is_proven: bool,
    /// Whether this process serves it.
    is_served: bool,
}

/// One pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    state: State,
    held: Option<Held>,
    /// What was held when the attempt that is under way began.
    before: Option<Held>,
    /// Where it is to be captured.
    target: Option<(u64, bool)>,
    /// Whether an attempt has failed since it was enrolled last.
    has_failed: bool,
}

impl Machine {
    /// Where it is in its life.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether something of it is captured.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Where it is captured.
    #[cfg(test)]
    pub(crate) fn holds(&self) -> Option<u64> {
        self.held.map(|held| held.cookie)
    }

    /// What its annotation may say.
    pub(crate) fn mark(&self) -> Mark {
        match self.state {
            State::Enrolled => Mark::Enabled,
            State::Verified => Mark::Leave,
            State::Capturing if self.is_still_good() => Mark::Leave,
            State::Pending if self.has_failed => Mark::Pending,
            State::Pending if self.held.is_some() => Mark::Leave,
            State::Capturing | State::Pending => Mark::NotEnabled,
            State::Degraded => Mark::Pending,
            State::Releasing if self.target.is_some() => Mark::NotEnabled,
            State::Releasing | State::Absent => Mark::Absent,
        }
    }

    /// Whether the capture that an earlier annotation was written for is in place, so far as anybody knows.
    fn is_still_good(&self) -> bool {
        self.before.is_some_and(|before| before.is_proven || (!before.is_served && !self.has_failed))
    }

    /// Takes an event, and says what is to be done.
    pub(crate) fn on(&mut self, event: Event) -> Step {
        match (self.state, event) {
            (State::Absent, Event::Await) => self.rest(State::Pending),
            (State::Absent | State::Pending, Event::Adopt { cookie }) if self.held.is_none() => {
                self.held = Some(Held { cookie, is_proven: false, is_served: false });
                self.rest(State::Pending)
            }
            (State::Capturing | State::Verified, Event::Enrol { .. } | Event::Release) => Step::Rest,
            (_, Event::Enrol { cookie, adopted }) => self.begin(cookie, adopted),
            (_, Event::Release) => self.end(),
            (State::Capturing, Event::Attached(true)) => self.attached(),
            (State::Capturing, Event::Proven(true)) => self.proven(),
            (State::Verified, Event::Kept(true)) => {
                self.has_failed = false;
                self.before = None;
                self.rest(State::Enrolled)
            }
            (State::Capturing, Event::Attached(false) | Event::Proven(false))
            | (State::Verified, Event::Kept(false)) => self.fail(),
            (State::Capturing, Event::Undone) => {
                self.held = None;
                self.rest(State::Pending)
            }
            (State::Releasing, Event::Withdrawn) => Step::Release,
            (State::Releasing, Event::Released(true)) => self.released(),
            (State::Enrolled, Event::Lost) => {
                self.set_proven(false);
                self.rest(State::Degraded)
            }
            (State::Degraded, Event::Mended) => {
                self.set_proven(true);
                self.rest(State::Enrolled)
            }
            _ => Step::Rest,
        }
    }

    fn rest(&mut self, state: State) -> Step {
        self.state = state;
        Step::Rest
    }

    fn begin(&mut self, cookie: u64, adopted: bool) -> Step {
        self.target = Some((cookie, adopted));
        if self.held.is_some_and(|held| held.cookie != cookie) {
            // No wait for the annotation here: whoever brings the pod waits for its capture.
            self.state = State::Releasing;
            return Step::Release;
        }
        self.capture()
    }

    fn capture(&mut self) -> Step {
        let Some((cookie, adopted)) = self.target else { return self.rest(State::Absent) };
        if adopted && self.held.is_none() {
            self.held = Some(Held { cookie, is_proven: false, is_served: false });
        }
        self.before = self.held;
        self.state = State::Capturing;
        Step::Attach
    }

    fn attached(&mut self) -> Step {
        let Some((cookie, _)) = self.target else { return Step::Rest };
        self.held = Some(Held { cookie, is_proven: false, is_served: true });
        Step::Prove
    }

    fn proven(&mut self) -> Step {
        // A proof of what is not attached is one of something else.
        if !self.held.is_some_and(|held| held.is_served && !held.is_proven) {
            return Step::Rest;
        }
        self.set_proven(true);
        self.state = State::Verified;
        Step::Keep
    }

    /// What was held before the attempt stays, to be tried again; else nothing may stay.
    fn fail(&mut self) -> Step {
        self.has_failed = true;
        let Some(before) = self.before.take() else {
            self.state = State::Capturing;
            return Step::Undo;
        };
        self.held = Some(Held { is_proven: false, ..before });
        self.rest(if before.is_served { State::Degraded } else { State::Pending })
    }

    fn end(&mut self) -> Step {
        self.target = None;
        if self.held.is_none() {
            return self.rest(State::Absent);
        }
        self.state = State::Releasing;
        Step::Withdraw
    }

    fn released(&mut self) -> Step {
        (self.held, self.before) = (None, None);
        // Another namespace, of which nothing is known yet.
        self.has_failed = false;
        self.capture()
    }

    fn set_proven(&mut self, is_proven: bool) {
        if let Some(held) = self.held.as_mut() {
            held.is_proven = is_proven;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds events, and returns what is to be done after each.
    fn steps(machine: &mut Machine, events: &[Event]) -> Vec<Step> {
        events.iter().map(|event| machine.on(*event)).collect()
    }

    const BRING: Event = Event::Enrol { cookie: 7, adopted: false };
    const IN: [Event; 4] = [BRING, Event::Attached(true), Event::Proven(true), Event::Kept(true)];

    #[test]
    fn in_is_attach_prove_keep_and_only_then_the_annotation() {
        let mut machine = Machine::default();
        let marks: Vec<Mark> = IN
            .iter()
            .map(|event| {
                machine.on(*event);
                machine.mark()
            })
            .collect();
        assert_eq!(marks, [Mark::NotEnabled, Mark::NotEnabled, Mark::Leave, Mark::Enabled]);
        assert_eq!((machine.state(), machine.holds()), (State::Enrolled, Some(7)));
    }

    #[test]
    fn out_is_annotation_first_and_capture_last() {
        let mut machine = Machine::default();
        steps(&mut machine, &IN);
        assert_eq!(machine.on(Event::Release), Step::Withdraw);
        assert_eq!((machine.mark(), machine.holds()), (Mark::Absent, Some(7)));
        assert_eq!(machine.on(Event::Withdrawn), Step::Release);
        assert_eq!(machine.on(Event::Released(false)), Step::Rest);
        assert_eq!((machine.state(), machine.holds()), (State::Releasing, Some(7)));
        assert_eq!(steps(&mut machine, &[Event::Release, Event::Withdrawn]), [Step::Withdraw, Step::Release]);
        assert_eq!(machine.on(Event::Released(true)), Step::Rest);
        assert_eq!((machine.state(), machine.holds()), (State::Absent, None));
    }

    #[test]
    fn a_failure_leaves_what_was_there_before_it_and_nothing_else() {
        for failure in [&[Event::Attached(false)][..], &[Event::Attached(true), Event::Proven(false)]] {
            let mut fresh = Machine::default();
            fresh.on(BRING);
            assert_eq!(steps(&mut fresh, failure).last(), Some(&Step::Undo));
            fresh.on(Event::Undone);
            assert_eq!((fresh.state(), fresh.mark(), fresh.holds()), (State::Pending, Mark::Pending, None));
            let mut adopted = Machine::default();
            adopted.on(Event::Enrol { cookie: 7, adopted: true });
            assert_eq!(adopted.mark(), Mark::Leave);
            assert_eq!(steps(&mut adopted, failure).last(), Some(&Step::Rest));
            assert_eq!(
                (adopted.state(), adopted.mark(), adopted.holds()),
                (State::Pending, Mark::Pending, Some(7))
            );
            let mut served = Machine::default();
            steps(&mut served, &IN);
            served.on(BRING);
            assert_eq!(served.mark(), Mark::Leave);
            steps(&mut served, failure);
            assert_eq!((served.state(), served.mark()), (State::Degraded, Mark::Pending));
        }
    }

    #[test]
    fn another_namespace_is_another_capture() {
        let mut machine = Machine::default();
        steps(&mut machine, &IN);
        assert_eq!(machine.on(Event::Enrol { cookie: 8, adopted: false }), Step::Release);
        assert_eq!(machine.mark(), Mark::NotEnabled);
        assert_eq!(machine.on(Event::Released(true)), Step::Attach);
        assert_eq!(steps(&mut machine, &IN[1..]), [Step::Prove, Step::Keep, Step::Rest]);
        assert_eq!((machine.state(), machine.holds()), (State::Enrolled, Some(8)));
    }

    #[test]
    fn what_is_late_or_doubled_changes_nothing() {
        let mut machine = Machine::default();
        steps(&mut machine, &IN);
        for late in
            [Event::Attached(true), Event::Proven(false), Event::Kept(false), Event::Undone, Event::Withdrawn]
        {
            assert_eq!(machine.on(late), Step::Rest);
            assert_eq!(machine.state(), State::Enrolled, "{late:?}");
        }
        steps(&mut machine, &[Event::Lost, Event::Lost]);
        assert_eq!((machine.state(), machine.mark()), (State::Degraded, Mark::Pending));
        steps(&mut machine, &[Event::Mended, Event::Mended]);
        assert_eq!((machine.state(), machine.mark()), (State::Enrolled, Mark::Enabled));
        let mut absent = Machine::default();
        for late in [Event::Lost, Event::Mended, Event::Released(true), Event::Proven(true), Event::Release] {
            assert_eq!((absent.on(late), absent.state()), (Step::Rest, State::Absent), "{late:?}");
        }
    }
}
