//! Every shape in which a configuration is found, and what is left when we go.

use super::*;
use crate::install::plan::InstallError;

#[test]
fn a_list_gets_our_entry_last_and_loses_it_again() {
    let host = Host::with(&[("10-calico.conflist", CALICO)]);
    fs::set_permissions(host.path("10-calico.conflist"), fs::Permissions::from_mode(0o600)).unwrap();
    let report = host.plan.install().unwrap();
    assert_eq!(report.configuration, host.path("10-calico.conflist"));
    assert_eq!((report.others.join(" "), report.written.len()), ("calico portmap".to_owned(), 3));
    assert_eq!(host.types("10-calico.conflist"), ["calico", "portmap", PLUGIN]);
    let value: Value = serde_json::from_str(&host.read("10-calico.conflist")).unwrap();
    let expected = serde_json::json!({
        "type": "culvert-cni",
        "socket": "/run/culvert/cni.sock",
        "excludeNamespaces": ["kube-system"],
        "ambientList": "/run/culvert/ambient.json",
        "kubeconfig": "/etc/cni/net.d/culvert-kubeconfig",
        "agentPod": { "namespace": "istio-system", "namePrefix": "ztunnel-" },
        "capabilities": { "io.kubernetes.cri.pod-annotations": true },
    });
    assert_eq!(value["plugins"][2], expected);
    assert_eq!(host.mode(Path::new("net.d/10-calico.conflist")), 0o600);
    assert_eq!(host.mode(Path::new("net.d/culvert-kubeconfig")), 0o600);
    assert_eq!(host.mode(Path::new("bin/culvert-cni")), 0o755);
    assert!(host.plan.install().unwrap().written.is_empty(), "all of it is there already");
    let removal = host.plan.remove();
    assert!(removal.failures.is_empty(), "{:?}", removal.failures);
    assert_eq!(host.read("10-calico.conflist"), CALICO);
    assert_eq!(host.mode(Path::new("net.d/10-calico.conflist")), 0o600);
    assert_eq!(host.names(), ["10-calico.conflist"]);
    assert_eq!(fs::read_dir(host.dir.path().join("bin")).unwrap().count(), 0);
    assert!(!host.path(KUBECONFIG).exists());
    assert!(host.plan.remove().changed.is_empty(), "nothing is left to be removed");
}

#[test]
fn a_single_plugin_is_wrapped_into_a_list_and_unwrapped() {
    let host = Host::with(&[("10-net.conf", BRIDGE)]);
    fs::set_permissions(host.path("10-net.conf"), fs::Permissions::from_mode(0o640)).unwrap();
    let report = host.plan.install().unwrap();
    assert_eq!(report.configuration, host.path("10-net.conflist"));
    assert_eq!(
        (host.names(), host.types("10-net.conflist")),
        (vec!["10-net.conflist".to_owned()], vec!["bridge".to_owned(), PLUGIN.to_owned()])
    );
    assert_eq!(host.mode(Path::new("net.d/10-net.conflist")), 0o640);
    assert!(host.plan.install().unwrap().written.is_empty());
    // The network plugin starts again and writes its own file again.
    let newer = BRIDGE.replace("\"bridge\"", "\"bridge\", \"mtu\": 1400");
    host.write("10-net.conf", &newer);
    assert!(host.plan.install().unwrap().has_written_configuration());
    assert_eq!(host.names(), ["10-net.conflist"]);
    assert!(host.plan.remove().failures.is_empty());
    assert_eq!((host.names(), host.read("10-net.conf")), (vec!["10-net.conf".to_owned()], newer));
}

#[test]
fn the_first_that_can_be_used_is_used_and_the_others_are_told_of() {
    let large = format!("{{\"pad\":\"{}\"}}", "x".repeat(2 << 20));
    let host = Host::with(&[
        ("00-empty.conflist", ""),
        ("01-nonsense.conflist", "{"),
        ("02-list.conf", CALICO),
        ("03-none.conflist", "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[]}"),
        ("04-large.conflist", &large),
        ("08-backup.conflist.bak", CALICO),
        ("10-calico.conflist", CALICO),
        ("20-net.conf", BRIDGE),
    ]);
    host.write("05-bytes.conflist", b"\xff\xfe{");
    fs::create_dir(host.path("06-directory.conflist")).unwrap();
    std::os::unix::fs::symlink("nowhere", host.path("07-nowhere.conflist")).unwrap();
    nix_fifo(&host.path("07-pipe.conflist"));
    let report = host.plan.install().unwrap();
    assert_eq!(report.configuration, host.path("10-calico.conflist"));
    for name in ["00-", "01-", "02-", "03-", "04-", "05-", "06-", "07-pipe"] {
        let told: Vec<_> =
            report.cautions.iter().filter(|caution| caution.contains(&format!("/{name}"))).collect();
        assert_eq!(told.len(), 1, "{name}: {:?}", report.cautions);
    }
    assert_eq!(host.read("20-net.conf"), BRIDGE);
    assert_eq!(host.read("02-list.conf"), CALICO);
    assert!(host.plan.remove().failures.is_empty());
    assert_eq!(host.read("10-calico.conflist"), CALICO);
}

/// A pipe that nobody writes to: whoever reads it waits for ever.
fn nix_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn one_that_may_not_be_read_is_passed_over() {
    let host = Host::with(&[("10-secret.conflist", CALICO), ("20-net.conflist", CALICO)]);
    // Root may read everything, so what cannot be read is a file that is none: a loop of links.
    fs::remove_file(host.path("10-secret.conflist")).unwrap();
    std::os::unix::fs::symlink("10-secret.conflist", host.path("10-secret.conflist")).unwrap();
    let report = host.plan.install().unwrap();
    assert_eq!(report.configuration, host.path("20-net.conflist"));
    assert!(
        report.cautions[0].contains("cannot read") && report.cautions[0].contains("10-secret"),
        "{report:?}"
    );
}

#[test]
fn what_the_runtime_uses_and_we_cannot_is_not_gone_past() {
    let old = CALICO.replace("0.3.1", "0.2.0");
    let host = Host::with(&[("10-calico.conflist", &old), ("20-net.conf", BRIDGE)]);
    let error = host.plan.install().unwrap_err().to_string();
    assert!(
        error.contains("10-calico.conflist") && error.contains("0.2.0") && error.contains("0.3.1"),
        "{error}"
    );
    assert_eq!((host.read("10-calico.conflist"), host.read("20-net.conf")), (old, BRIDGE.to_owned()));
    // After the one that is used it does not matter.
    let host =
        Host::with(&[("10-calico.conflist", CALICO), ("20-old.conflist", &CALICO.replace("0.3.1", "0.2.0"))]);
    assert_eq!(host.plan.install().unwrap().configuration, host.path("10-calico.conflist"));
}

#[test]
fn nothing_to_be_added_to_is_waited_for() {
    let host = Host::with(&[]);
    let error = host.plan.install().unwrap_err();
    assert!(
        matches!(error, InstallError::None { .. }) && error.to_string().contains("waited for"),
        "{error}"
    );
    assert!(host.names().is_empty());
    assert!(host.dir.path().join("bin/culvert-cni").exists(), "the plugin is there before anybody calls it");
    host.write("10-half.conflist", "{\"cniVersion\"");
    let error = host.plan.install().unwrap_err().to_string();
    assert!(error.contains("10-half.conflist"), "{error}");
}

#[test]
fn one_that_is_named_is_used_under_either_of_its_names() {
    let mut host = Host::with(&[("10-calico.conflist", CALICO), ("20-net.conf", BRIDGE)]);
    host.plan.name = Some("20-net.conf".to_owned());
    for _ in 0..2 {
        assert_eq!(host.plan.install().unwrap().configuration, host.path("20-net.conflist"));
    }
    assert_eq!(host.read("10-calico.conflist"), CALICO);
    host.plan.name = Some("30-later.conflist".to_owned());
    let error = host.plan.install().unwrap_err().to_string();
    assert!(error.contains("30-later.conflist") && error.contains("waited for"), "{error}");
    host.write("30-later.conflist", "no");
    let error = host.plan.install().unwrap_err().to_string();
    assert!(error.contains("30-later.conflist: it is no network configuration"), "{error}");
}

#[test]
fn a_copy_comes_first_follows_the_original_and_leaves_it_alone() {
    let mut host = Host::with(&[("10-calico.conflist", CALICO)]);
    host.plan.style = Style::Copied;
    let report = host.plan.install().unwrap();
    assert_eq!(report.configuration, host.path("02-culvert.conflist"));
    assert_eq!(host.types("02-culvert.conflist"), ["calico", "portmap", PLUGIN]);
    assert_eq!(host.read("10-calico.conflist"), CALICO);
    assert!(host.plan.install().unwrap().written.is_empty());
    host.write("10-calico.conflist", CALICO.replace("portmap", "bandwidth"));
    assert!(host.plan.install().unwrap().has_written_configuration());
    assert_eq!(host.types("02-culvert.conflist"), ["calico", "bandwidth", PLUGIN]);
    // Somebody breaks the copy.
    host.write("02-culvert.conflist", "{");
    assert!(host.plan.install().unwrap().has_written_configuration());
    // A network plugin that comes before it.
    host.write("01-other.conf", BRIDGE);
    let report = host.plan.install().unwrap();
    assert!(
        report
            .cautions
            .iter()
            .any(|caution| caution.contains("01-other.conf") && caution.contains("earlier name"))
    );
    assert_eq!(host.types("02-culvert.conflist"), ["bridge", PLUGIN], "a copy of what the runtime would use");
    fs::remove_file(host.path("01-other.conf")).unwrap();
    host.plan.install().unwrap();
    assert!(host.plan.remove().failures.is_empty());
    assert_eq!(host.names(), ["10-calico.conflist"]);
}

#[test]
fn from_one_style_to_the_other_nothing_is_left() {
    let mut host = Host::with(&[("10-calico.conflist", CALICO)]);
    host.plan.install().unwrap();
    host.plan.style = Style::Copied;
    host.plan.install().unwrap();
    assert_eq!(host.read("10-calico.conflist"), CALICO);
    assert_eq!(host.types("02-culvert.conflist"), ["calico", "portmap", PLUGIN]);
    host.plan.style = Style::Chained;
    host.plan.install().unwrap();
    assert_eq!(host.names(), ["10-calico.conflist"]);
    assert_eq!(host.types("10-calico.conflist"), ["calico", "portmap", PLUGIN]);
}

#[test]
fn alone_it_is_a_network_of_its_own() {
    let mut host = Host::with(&[("10-calico.conflist", CALICO)]);
    host.plan.style = Style::Alone;
    assert_eq!(host.plan.install().unwrap().configuration, host.path("culvert-cni.conf"));
    let value: Value = serde_json::from_str(&host.read("culvert-cni.conf")).unwrap();
    assert_eq!((&value["type"], &value["name"]), (&PLUGIN.into(), &PLUGIN.into()));
    assert!(host.plan.install().unwrap().written.is_empty());
    assert!(host.plan.remove().failures.is_empty());
    assert_eq!(
        (host.names(), host.read("10-calico.conflist")),
        (vec!["10-calico.conflist".to_owned()], CALICO.to_owned())
    );
}

#[test]
fn another_mesh_in_the_same_list_is_told_of_or_replaced() {
    let both = CALICO
        .replace("{ \"type\": \"portmap\" }", "{ \"type\": \"portmap\" },\n    { \"type\": \"istio-cni\" }");
    let mut host = Host::with(&[("10-calico.conflist", &both)]);
    let report = host.plan.install().unwrap();
    assert!(report.cautions.iter().any(|caution| caution.contains("--replace-istio-cni")), "{report:?}");
    host.plan.replaces_istio = true;
    assert!(host.plan.install().unwrap().cautions.is_empty());
    assert_eq!(host.types("10-calico.conflist"), ["calico", "portmap", PLUGIN]);
    host.plan.remove();
    assert_eq!(host.read("10-calico.conflist"), both);
}

#[test]
fn without_kubernetes_there_is_no_kubeconfig() {
    let mut host = Host::with(&[("10-calico.conflist", CALICO)]);
    host.plan.api = None;
    host.plan.install().unwrap();
    let value: Value = serde_json::from_str(&host.read("10-calico.conflist")).unwrap();
    assert_eq!(value["plugins"][2].get("kubeconfig"), None);
    assert!(!host.path(KUBECONFIG).exists());
}

#[test]
fn what_a_crash_left_is_swept_and_never_read() {
    let host = Host::with(&[("10-calico.conflist", CALICO)]);
    host.write(".10-calico.conflist.culvert-new", "{\"cniVers");
    host.plan.install().unwrap();
    host.write(".10-calico.conflist.culvert-new", "{\"cniVers");
    assert!(host.plan.remove().failures.is_empty());
    assert_eq!(
        (host.names(), host.read("10-calico.conflist")),
        (vec!["10-calico.conflist".to_owned()], CALICO.to_owned())
    );
}
