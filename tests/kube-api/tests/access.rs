//! Who may do what, as a client over the network is told and refused.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kube_api::KubeApi;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const ACCOUNT: &str = "system:serviceaccount:demo:watcher";

/// Asks for something, for somebody if that is not empty; returns the status and what came.
fn ask(api: &KubeApi, dir: &Path, line: &str, user: &str, body: &Value) -> Result<(u16, Value)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(api.address()?)?);
    let token = std::fs::read_to_string(dir.join("token"))?;
    let user = if user.is_empty() { String::new() } else { format!("Impersonate-User: {user}\r\n") };
    let body = body.to_string();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{user}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token.trim(),
        body.len(),
    )?;
    let mut answer = Vec::new();
    // It closes the connection and says no more.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| answer.clone())?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, serde_json::from_str(body)?))
}

#[test]
fn whoever_is_impersonated_may_do_what_was_granted_and_is_told_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut api = KubeApi::new(dir.path())?;
    api.start(TcpListener::bind("127.0.0.1:0")?)?;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "watch"});
    let account = json!({"kind": "ServiceAccount", "namespace": "demo", "name": "watcher"});
    for object in [
        json!({
            "kind": "ClusterRole", "metadata": {"name": "watch"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
        }),
        json!({
            "kind": "ClusterRoleBinding", "metadata": {"name": "watch"}, "roleRef": role, "subjects": [account],
        }),
    ] {
        api.apply(&object)?;
    }
    let may = |user: &str, verb: &str| -> Result<Value> {
        let review = json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "pods"}}});
        let (status, told) = ask(&api, dir.path(), &format!("POST {REVIEWS}"), user, &review)?;
        ensure!(status == 201 && told["kind"] == "SelfSubjectAccessReview", "{status} {told}");
        Ok(told["status"]["allowed"].clone())
    };
    ensure!(may(ACCOUNT, "watch")? == true && may(ACCOUNT, "delete")? == false);
    ensure!(may("jane", "watch")? == false && may("", "delete")? == true);
    let get = |user: &str, path: &str| ask(&api, dir.path(), &format!("GET {path}"), user, &Value::Null);
    ensure!(get(ACCOUNT, "/api/v1/pods")?.0 == 200);
    let (status, refusal) = get(ACCOUNT, "/api/v1/nodes")?;
    ensure!(status == 403 && refusal["reason"] == "Forbidden", "{status} {refusal}");
    ensure!(get("", "/api/v1/nodes")?.0 == 200);
    let verbs: Vec<&str> = api.seen().iter().map(|seen| seen.verb).collect();
    ensure!(verbs == ["create", "create", "create", "create", "list", "list", "list"], "{verbs:?}");
    Ok(())
}
