//! Each pod's machine, with what is told of it: to the gauge, to whoever asks, and to the API.
//!
//! Invariant: gauge and annotation follow the machine in the order of its events, for both are told while the table is held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::machine::{Event, Machine, Mark, State, Step};
use super::record::PodKey;
use super::shown::{Gauges, PodState, Shown};

/// Who writes down what may be said of a pod, which the runtime knows by a UID.
pub(crate) type Scribe = Box<dyn Fn(&PodKey, Option<&Arc<str>>, Mark) + Send + Sync>;

/// All pods.
pub(super) struct States {
    table: Mutex<BTreeMap<PodKey, Row>>,
    shown: Shown,
    scribe: Option<Scribe>,
}

#[derive(Debug, Default)]
struct Row {
    machine: Machine,
    /// Of the pod that the machine is about.
    uid: Option<Arc<str>>,
    /// What is the matter, if something is.
    why: String,
}

impl Row {
    fn state(&self) -> PodState {
        let why = |text: &str| if self.why.is_empty() { text.to_owned() } else { self.why.clone() };
        match self.machine.state() {
            State::Enrolled => PodState::Enrolled,
            State::Degraded => PodState::Degraded(why("it is not captured as it was")),
            State::Releasing => PodState::Pending("it is being released".to_owned()),
            State::Capturing | State::Verified => PodState::Pending("it is being enrolled".to_owned()),
            State::Absent | State::Pending => PodState::Pending(why("it is to be enrolled")),
        }
    }
}

impl States {
    pub(super) fn new(gauges: Gauges, scribe: Option<Scribe>) -> Self {
        Self { table: Mutex::default(), shown: Shown::new(gauges), scribe }
    }

    /// Takes an event of a pod, and says what is to be done.
    pub(super) fn on(&self, pod: &PodKey, event: Event) -> Step {
        self.change(pod, |row| row.machine.on(event))
    }

    /// The same, with what is the matter.
    pub(super) fn on_because(&self, pod: &PodKey, event: Event, why: String) -> Step {
        self.change(pod, |row| {
            row.why = why;
            row.machine.on(event)
        })
    }

    /// The same of a pod with this UID.
    pub(super) fn on_pod(&self, pod: &PodKey, uid: Option<Arc<str>>, event: Event) -> Step {
        self.change(pod, |row| {
            row.uid = uid;
            row.machine.on(event)
        })
    }

    /// Notes that a pod of which nothing is known is to be in the mesh, and what it waits for.
    pub(super) fn await_if_new(&self, pod: &PodKey, why: &str) {
        let is_known = self.lock().contains_key(pod);
        if !is_known {
            self.on_because(pod, Event::Await, why.to_owned());
        }
    }

    /// Whether capture of a pod is held, in this process's name or in that of one before it.
    pub(super) fn is_held(&self, pod: &PodKey) -> bool {
        self.lock().get(pod).is_some_and(|row| row.machine.is_held())
    }

    fn change(&self, pod: &PodKey, work: impl FnOnce(&mut Row) -> Step) -> Step {
        let mut table = self.lock();
        let row = table.entry(pod.clone()).or_default();
        let step = work(row);
        if row.machine.state() == State::Enrolled {
            row.why.clear();
        }
        if let Some(scribe) = &self.scribe {
            scribe(pod, row.uid.as_ref(), row.machine.mark());
        }
        if row.machine.state() == State::Absent {
            table.remove(pod);
            self.shown.remove(pod);
        } else {
            self.shown.set(pod, row.state());
        }
        step
    }

    /// Forgets the pending pods of which `keep` does not say so, and nothing is held.
    pub(super) fn retain_pending(&self, keep: impl Fn(&PodKey) -> bool) {
        let is_idle = |row: &Row| row.machine.state() == State::Pending && !row.machine.is_held();
        let gone: Vec<PodKey> = {
            let table = self.lock();
            let idle = table.iter().filter(|(pod, row)| is_idle(row) && !keep(pod));
            idle.map(|(pod, _)| pod.clone()).collect()
        };
        for pod in gone {
            self.change(&pod, |row| if is_idle(row) { row.machine.on(Event::Release) } else { Step::Rest });
        }
    }

    /// Every pod's state, by name.
    pub(super) fn all(&self) -> Vec<(PodKey, PodState)> {
        self.shown.all()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, Row>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown::StateLabel;
    use super::*;

    const IN: [Event; 4] = [
        Event::Enrol { cookie: 7, adopted: false },
        Event::Attached(true),
        Event::Proven(true),
        Event::Kept(true),
    ];

    #[test]
    fn the_gauge_follows_the_machines_and_forgotten_pods_are_not_counted() {
        let gauges = Gauges::default();
        let states = States::new(gauges.clone(), None);
        let count = |state| gauges.get_or_create(&StateLabel::of(state)).get();
        let counts = || (count("enrolled"), count("degraded"), count("pending"));
        let pod = |name: &str| PodKey { namespace: "n".into(), name: name.into() };
        states.on_because(&pod("a"), Event::Await, "why".into());
        states.on_because(&pod("b"), Event::Await, "why".into());
        for event in IN {
            states.on(&pod("a"), event);
        }
        assert_eq!(counts(), (1, 0, 1));
        states.on_because(&pod("a"), Event::Lost, "what".into());
        assert_eq!(counts(), (0, 1, 1));
        assert_eq!(states.all()[0].1, PodState::Degraded("what".into()));
        states.retain_pending(|_| false);
        for event in [Event::Release, Event::Withdrawn, Event::Released(true), Event::Release] {
            states.on(&pod("a"), event);
        }
        assert_eq!(counts(), (0, 0, 0));
        assert!(states.all().is_empty());
    }

    #[test]
    fn the_scribe_is_told_each_mark_with_the_uid_that_it_is_about() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let scribe: Scribe = {
            let told = Arc::clone(&told);
            Box::new(move |_, uid, mark| told.lock().unwrap().push((uid.cloned(), mark)))
        };
        let states = States::new(Gauges::default(), Some(scribe));
        let pod = PodKey { namespace: "n".into(), name: "a".into() };
        states.on_pod(&pod, Some("u1".into()), IN[0]);
        for event in IN[1..].iter() {
            states.on(&pod, *event);
        }
        let told = told.lock().unwrap();
        assert!(told.iter().all(|(uid, _)| uid.as_deref() == Some("u1")));
        let marks: Vec<Mark> = told.iter().map(|(_, mark)| *mark).collect();
        assert_eq!(marks, [Mark::NotEnabled, Mark::NotEnabled, Mark::Leave, Mark::Enabled]);
    }
}
