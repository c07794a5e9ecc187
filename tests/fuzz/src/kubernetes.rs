//! What the plugin reads when the agent is not there: the list that the agent left, the kubeconfig, the API's answer.

use cni::ambient::{AmbientList, Listed};
use cni::fuzzing;
use cni::protocol::PodName;

/// The list that the agent leaves says the same when it is written again, and of a pod what is written in it.
///
/// # Panics
/// When something does not hold.
pub fn ambient_list(data: &[u8]) {
    let Some((list, written)) = fuzzing::ambient_list(data) else { return };
    let again = fuzzing::ambient_list(&written).map(|(list, _)| list);
    assert_eq!(again.as_ref(), Some(&list));
    for namespace in list.namespaces.iter().take(8) {
        assert!(matches!(list.find(namespace, "any"), Listed::Yes | Listed::Namespace));
    }
    for pod in list.pods.iter().take(8) {
        if let Some((namespace, name)) = pod.split_once('/') {
            assert_eq!(list.find(namespace, name), Listed::Yes);
        }
    }
    // Only a list that says that it is whole says that a pod is not in the mesh.
    let says_no = |list: &AmbientList| list.find("\n", "\n") == Listed::No;
    assert!(!says_no(&list) || list.complete);
}

/// A kubeconfig is read as something that can be asked for in one line of HTTP and with one header.
///
/// # Panics
/// When something does not hold.
pub fn kubeconfig(data: &[u8]) {
    let read = match fuzzing::kubeconfig(data) {
        Ok(read) => read,
        Err(why) => return assert!(!why.is_empty()),
    };
    let breaks = |text: &str| text.contains(|c: char| c.is_ascii_control());
    assert!(!read.token.is_empty() && read.token.is_ascii() && !breaks(&read.token));
    assert!(!breaks(&read.prefix) && !read.prefix.contains(' ') && !read.prefix.ends_with('/'));
    assert!(read.prefix.is_empty() || read.prefix.starts_with('/'));
    assert!(!format!("{read:?}").contains("token"), "secrets are not printed");
}

/// An answer of the Kubernetes API, as it comes: once it is whole, more bytes change nothing of it.
///
/// # Panics
/// When something does not hold.
pub fn kube_answer(data: &[u8]) {
    let whole = fuzzing::answer(data, false);
    for end in [data.len() / 4, data.len() / 2, data.len().saturating_sub(1)] {
        if let Ok(Some(early)) = fuzzing::answer(&data[..end], false) {
            assert_eq!(whole.as_ref().ok(), Some(&Some(early)), "after {end} bytes");
        }
    }
    let ended = fuzzing::answer(data, true);
    if let Ok(Some(reply)) = &whole {
        assert_eq!(ended.as_ref().ok(), Some(&Some(reply.clone())));
    }
    let Ok(Some((_, body))) = ended else { return };
    assert!(body.len() < data.len());
    let pod = PodName { name: "sleep".into(), namespace: "default".into(), uid: Some("u1".into()) };
    let other = PodName { name: "sleep2".into(), ..pod.clone() };
    if fuzzing::metadata(&body, &pod).is_ok() {
        let has = |text: &str| String::from_utf8_lossy(&body).contains(text) || body.contains(&b'\\');
        assert!(has("sleep") && has("default") && has("u1"));
        assert!(fuzzing::metadata(&body, &other).is_err(), "an answer is about one pod");
    }
}
