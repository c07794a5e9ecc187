//! Which pods are to be in the mesh: those that the mesh file names, and those of which Kubernetes says so.
//!
//! The file outranks Kubernetes. What Kubernetes has not said yet is unknown, and what is unknown changes nothing: a pod that is captured
//! stays so, and one that is not waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control::file::Enrollment;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::record::PodKey;
use crate::kubernetes::{Known, Standing, View};

/// A pod that is to be in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// How it is to be captured.
    pub(crate) entry: Enrollment,
    /// As the container runtime and the kernel have it; none without Kubernetes.
    pub(crate) uid: Option<Arc<str>>,
    /// Its addresses, where Kubernetes knows them.
    pub(crate) ips: Vec<IpAddr>,
}

/// Whether a pod is to be in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// It is.
    Yes(Wanted),
    /// It is not, or is not there.
    No,
    /// Kubernetes has not said so far.
    Unknown,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    file: watch::Receiver<Vec<Enrollment>>,
    view: Option<watch::Receiver<Arc<View>>>,
}

impl Wishes {
    /// Of a file, and of Kubernetes if that is asked.
    pub(crate) fn new(
        file: watch::Receiver<Vec<Enrollment>>,
        view: Option<watch::Receiver<Arc<View>>>,
    ) -> Self {
        Self { file, view }
    }

    /// Whether a pod is wanted now.
    pub(crate) fn want(&self, pod: &PodKey) -> Want {
        let view = self.now();
        let known = view.as_ref().and_then(|view| view.pods.get(pod));
        let named = |entry: &&Enrollment| entry.namespace == pod.namespace && entry.name == pod.name;
        if let Some(entry) = self.file.borrow().iter().find(named) {
            return Want::Yes(Wanted::of_file(entry, known));
        }
        match (&view, known) {
            (None, _) => Want::No,
            (Some(view), None) if view.is_complete => Want::No,
            (Some(_), None) => Want::Unknown,
            (Some(_), Some(known)) => want(known),
        }
    }

    /// Whether the pod with this UID is wanted; waits until Kubernetes has said so, but not for longer than `limit`.
    pub(crate) async fn decide(&self, pod: &PodKey, uid: Option<&str>, limit: Duration) -> Want {
        let deadline = Instant::now() + limit;
        let Some(mut view) = self.view.clone() else { return self.want(pod) };
        loop {
            // What is marked as seen before it is looked at is not missed.
            let now = Arc::clone(&view.borrow_and_update());
            let is_other = |known: &Arc<Known>| uid.is_some_and(|uid| *uid != *known.runtime_uid);
            match self.want(pod) {
                // Of a pod that is not there yet nobody can say that it is not wanted.
                _ if now.pods.get(pod).is_some_and(is_other) => {}
                Want::No if !now.pods.contains_key(pod) => {}
                Want::Unknown => {}
                decided => return decided,
            }
            match timeout_at(deadline, view.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Want::Unknown,
            }
        }
    }

    /// All that are wanted now.
    pub(crate) fn all(&self) -> Vec<Wanted> {
        let view = self.now();
        let pods = view.as_ref().map(|view| &view.pods);
        let key =
            |entry: &Enrollment| PodKey { namespace: entry.namespace.clone(), name: entry.name.clone() };
        let file = self.file.borrow();
        let of_file =
            file.iter().map(|entry| Wanted::of_file(entry, pods.and_then(|pods| pods.get(&key(entry)))));
        let is_named = |pod: &PodKey| file.iter().any(|e| e.namespace == pod.namespace && e.name == pod.name);
        let of_api =
            pods.into_iter().flatten().filter(|(pod, _)| !is_named(pod)).filter_map(|(_, known)| match want(
                known,
            ) {
                Want::Yes(wanted) => Some(wanted),
                Want::No | Want::Unknown => None,
            });
        of_file.chain(of_api).collect()
    }

    /// Whether everybody has said who is wanted.
    pub(crate) fn are_complete(&self) -> bool {
        self.now().is_none_or(|view| view.is_complete)
    }

    /// Waits until somebody says something else; false if nobody ever will.
    pub(crate) async fn changed(&mut self) -> bool {
        match &mut self.view {
            None => self.file.changed().await.is_ok(),
            Some(view) => tokio::select! {
                changed = self.file.changed() => changed.is_ok(),
                changed = view.changed() => changed.is_ok(),
            },
        }
    }

    fn now(&self) -> Option<Arc<View>> {
        self.view.as_ref().map(|view| Arc::clone(&view.borrow()))
    }
}

impl Wanted {
    /// As an entry of the file has it, with what Kubernetes knows of the pod.
    fn of_file(entry: &Enrollment, known: Option<&Arc<Known>>) -> Self {
        let uid = known.map(|known| Arc::clone(&known.runtime_uid));
        Self { entry: entry.clone(), uid, ips: Vec::new() }
    }

    /// Its names.
    pub(crate) fn pod(&self) -> PodKey {
        PodKey { namespace: self.entry.namespace.clone(), name: self.entry.name.clone() }
    }

    /// Whether it says where the pod is, or what it is found by.
    pub(crate) fn can_be_found(&self) -> bool {
        self.is_placed() || (self.uid.is_some() && !self.ips.is_empty())
    }

    /// Whether it says where the pod is.
    pub(crate) fn is_placed(&self) -> bool {
        self.entry.netns.is_some() || self.entry.container.is_some()
    }

    /// Whether it may be the pod with this UID.
    pub(crate) fn may_be(&self, uid: Option<&str>) -> bool {
        match (&self.uid, uid) {
            (Some(known), Some(uid)) => **known == *uid,
            _ => true,
        }
    }
}

fn want(known: &Arc<Known>) -> Want {
    match &known.standing {
        Standing::In(entry) => Want::Yes(Wanted {
            entry: entry.clone(),
            uid: Some(Arc::clone(&known.runtime_uid)),
            ips: known.ips.clone(),
        }),
        Standing::Out => Want::No,
        Standing::Undecided => Want::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn key(name: &str) -> PodKey {
        PodKey { namespace: "demo".into(), name: name.into() }
    }

    fn entry(name: &str) -> Enrollment {
        Enrollment {
            name: name.into(),
            namespace: "demo".into(),
            service_account: None,
            netns: None,
            container: None,
            annotations: [].into(),
        }
    }

    fn known(uid: &str, standing: Standing) -> Arc<Known> {
        Arc::new(Known {
            uid: uid.into(),
            runtime_uid: uid.into(),
            standing,
            ips: Vec::new(),
            says: None,
            version: 1,
        })
    }

    fn view(is_complete: bool, pods: &[(&str, Arc<Known>)]) -> Arc<View> {
        let pods = pods.iter().map(|(name, known)| (key(name), Arc::clone(known))).collect();
        Arc::new(View { is_complete, pods, namespaces: Arc::default() })
    }

    struct World {
        wishes: Wishes,
        view: watch::Sender<Arc<View>>,
        _file: watch::Sender<Vec<Enrollment>>,
    }

    fn world(file: &[&str], now: Arc<View>) -> World {
        let (sender, file) = watch::channel(file.iter().map(|name| entry(name)).collect());
        let (view, receiver) = watch::channel(now);
        World { wishes: Wishes::new(file, Some(receiver)), view, _file: sender }
    }

    fn is(want: &Want) -> Option<bool> {
        match want {
            Want::Yes(_) => Some(true),
            Want::No => Some(false),
            Want::Unknown => None,
        }
    }

    #[test]
    fn what_kubernetes_has_not_said_is_unknown_and_the_file_outranks_it() {
        let pods = [
            ("in", known("1", Standing::In(entry("in")))),
            ("out", known("2", Standing::Out)),
            ("undecided", known("3", Standing::Undecided)),
            ("named", known("4", Standing::Out)),
        ];
        for is_complete in [false, true] {
            let World { wishes, .. } = &world(&["named", "elsewhere"], view(is_complete, &pods));
            let want = |name: &str| is(&wishes.want(&key(name)));
            assert_eq!((want("in"), want("out"), want("undecided")), (Some(true), Some(false), None));
            assert_eq!((want("named"), want("elsewhere")), (Some(true), Some(true)));
            assert_eq!(want("unseen"), is_complete.then_some(false));
            assert_eq!(wishes.all().len(), 3);
        }
    }

    #[test]
    fn without_kubernetes_the_file_alone_decides() {
        let (_sender, file) = watch::channel(vec![entry("named")]);
        let wishes = Wishes::new(file, None);
        assert_eq!((is(&wishes.want(&key("named"))), is(&wishes.want(&key("x")))), (Some(true), Some(false)));
        assert!(wishes.are_complete());
    }

    #[tokio::test]
    async fn a_pod_that_is_not_seen_yet_is_waited_for() {
        let world = world(&[], view(true, &[]));
        let wishes = world.wishes.clone();
        let asked = tokio::spawn(async move { wishes.decide(&key("new"), Some("1"), LONG).await });
        world.view.send_replace(view(true, &[("other", known("9", Standing::Out))]));
        world.view.send_replace(view(true, &[("new", known("1", Standing::In(entry("new"))))]));
        assert_eq!(is(&asked.await.unwrap()), Some(true));
        assert_eq!(is(&world.wishes.decide(&key("never"), None, SHORT).await), None);
    }

    #[tokio::test]
    async fn another_pod_of_the_same_name_decides_nothing() {
        let world = world(&[], view(true, &[("a", known("old", Standing::In(entry("a"))))]));
        assert_eq!(is(&world.wishes.decide(&key("a"), Some("new"), SHORT).await), None);
        assert_eq!(is(&world.wishes.decide(&key("a"), Some("old"), SHORT).await), Some(true));
        assert_eq!(is(&world.wishes.decide(&key("a"), None, SHORT).await), Some(true));
        world.view.send_replace(view(true, &[("a", known("new", Standing::Out))]));
        assert_eq!(is(&world.wishes.decide(&key("a"), Some("new"), SHORT).await), Some(false));
    }
}
